"""What the commands share: their parser, checked option values, errors as one sentence, exit codes."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, NoReturn

from raysslprune import __version__, catalogue, process
from raysslprune.messages import FAILED, MAX_SEEDS, ROOT, STOPPED, USAGE, say, traceback_file, without_stdout


def _fault(error: Exception) -> int:
    """Report an unexpected exception, with its traceback in a file. Returns the code; call it in the handler."""
    return say(f"a fault in raysslprune itself: {type(error).__name__}: {error}{traceback_file()}", FAILED)


Main = Callable[..., int]


def reports_errors(main: Main) -> Main:
    """Make a function the ``main`` of a command.

    It flushes stdout at the end, turns an unexpected error and Ctrl-C into one sentence, and gives the exit code that
    a shell expects of a program that a signal stopped.
    """

    @wraps(main)
    def whole(arguments: Sequence[str] | None = None) -> int:
        try:
            with process.unwinding():
                code = _flushed(main, arguments)
        except KeyboardInterrupt:
            code = say("stopped", STOPPED)
        return process.exit_code(code)

    return whole


def path(text: str) -> str:
    """An option's value that names a file or a folder. A leading ``~`` is the home folder, as no shell has it in
    ``--out=~/x``.
    """
    return os.path.expanduser(text)


def _flushed(main: Main, arguments: Sequence[str] | None) -> int:
    code = 0
    try:
        try:
            code = main(arguments)
        finally:  # after --help, too
            sys.stdout.flush()
    except BrokenPipeError:  # as by `| head`
        return without_stdout(code)
    except OSError as error:
        why = f"can't write to stdout: {error.strerror or error}"
        return without_stdout(code or say(why, FAILED))
    except Exception as error:
        return _fault(error)
    return code


def count(text: str) -> int:
    """An option's value that counts seeds or workers."""
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MAX_SEEDS:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a whole number from 1 to {MAX_SEEDS}")
    return int(text)


def positive(text: str) -> int:
    """An option's value that is a whole number from 1, without a sign."""
    if not re.fullmatch("[0-9]{1,9}", text) or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a whole number from 1")
    return int(text)


class Parser(argparse.ArgumentParser):
    """Of a command: it has ``--version``, and its help ends with examples and exit codes.

    examples: whole commands. codes: what it exits with, as ``0 all is done; 2 a wrong call``.
    """

    def __init__(self, *, examples: Sequence[str] = (), codes: str = "", **given: Any) -> None:
        shown = "\n         ".join(examples)
        ends = [f"example: {shown}"] * bool(examples) + [f"exit codes: {codes}"] * bool(codes)
        given.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(epilog="\n\n".join(ends), allow_abbrev=False, **given)
        self.add_argument("--version", action="version", version=f"raysslprune {__version__}")

    def add_root(self) -> None:
        """``--root``."""
        help = "where results live: a folder, s3:// or gs:// (default: ./runs)"
        self.add_argument("--root", default=ROOT, metavar="DIR", help=help)

    def add_data(self, more: str = "") -> None:
        """``--data``. more: the end of its help."""
        help = f"where data sets lie (default: $RAYSSLPRUNE_DATA, else ./data){more}"
        self.add_argument("--data", type=catalogue.data_root, default="", metavar="DIR", help=help)

    def _print_message(self, message: str, file: Any = None) -> None:
        """As argparse does, which would go on if it can't be written."""
        print(message, end="", file=file or sys.stderr)

    def error(self, message: str) -> NoReturn:
        """One sentence instead of the whole usage."""
        unknown = re.match(r"unrecognized arguments: (--[^\s=]+)", message)
        near = difflib.get_close_matches(unknown[1], self._option_string_actions, 1, cutoff=0.75) if unknown else []
        hint = f"; did you mean {near[0]}?" if near else ""
        self.exit(say(f"{message}{hint}; see --help", USAGE))
