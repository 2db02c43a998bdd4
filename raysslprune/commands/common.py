"""Shared by the commands: their parser, the types of option values, and errors turned into a sentence and a code."""

from __future__ import annotations

import argparse
import difflib
import os
import re
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

from raysslprune import __version__, catalogue, process
from raysslprune.messages import (
    FAILED,
    MAX_SEEDS,
    ROOT,
    SCALE,
    STOPPED,
    USAGE,
    UserError,
    say,
    traceback_file,
    without_stdout,
)
from raysslprune.paper.scalefile import no_scale
from raysslprune.paper.scales import SETTINGS

Main = Callable[..., int]


def reports_errors(*, stopped: str = "stopped", kept: str = "") -> Callable[[Main], Main]:
    """Decorate the ``main`` of a command: every exception becomes one sentence on stderr and an exit code.

    The decorated function also flushes stdout, and returns the exit code that a shell expects after a signal.
    stopped: the sentence after Ctrl-C. kept: the end of the sentence of an OSError.
    """

    def decorate(main: Main) -> Main:
        @wraps(main)
        def whole(arguments: Sequence[str] | None = None) -> int:
            try:
                with process.unwinding():
                    code = _reported(main, arguments, stopped, kept)
            except KeyboardInterrupt:  # while an error is being reported, for example
                code = say("stopped", STOPPED)
            return process.exit_code(code)

        return whole

    return decorate


def _reported(main: Main, arguments: Sequence[str] | None, stopped: str, kept: str) -> int:
    code = 0
    try:
        try:
            code = main(arguments)
        except UserError as error:
            code = say(str(error), error.code)
        except KeyboardInterrupt:
            code = say(stopped, STOPPED)
        except OSError as error:
            if isinstance(error, BrokenPipeError) and not _has_reader():
                raise
            code = say(f"{error}{kept}", FAILED)
        finally:  # after --help, too
            sys.stdout.flush()
    except BrokenPipeError:  # as by `| head`
        return without_stdout(code)
    except OSError as error:
        why = f"can't write to stdout: {error.strerror or error}"
        return without_stdout(code or say(why, FAILED))
    except Exception as error:
        return say(f"internal error in raysslprune: {type(error).__name__}: {error}{traceback_file()}", FAILED)
    return code


def _has_reader() -> bool:
    """Return False if stdout is a pipe that nobody reads any more, as after `| head`."""
    poll = select.poll()
    poll.register(1, 0)  # POLLERR is reported without being requested
    return not poll.poll(0)


@contextmanager
def wrong_calls() -> Iterator[None]:
    """Raise a UserError with the exit code of a wrong call in place of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise UserError(str(error), code=USAGE) from error


def path(text: str) -> str:
    """Parse a path. A leading ``~`` is the home folder, which shells do not expand in ``--out=~/x``."""
    return os.path.expanduser(text)


def whole(low: int, high: int) -> Callable[[str], int]:
    """Make a parser of whole numbers from ``low`` to ``high``, written in plain digits."""

    def parse(text: str) -> int:
        if not re.fullmatch("[0-9]{1,9}", text) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text!r:.40} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def seeds(text: str) -> int | tuple[int, ...]:
    """Parse a number of seeds, or the seeds themselves as ``0,3,5-9``."""
    if re.fullmatch("[0-9]{1,9}", text) and 1 <= int(text) <= MAX_SEEDS:
        return int(text)
    named: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch("([0-9]{1,9})(?:-([0-9]{1,9}))?", part) if text != part or "-" in part else None
        low, high = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not match or low > high or high - low >= MAX_SEEDS:
            hint = "; for seed 0 alone: 0-0" if text == "0" else ""
            raise argparse.ArgumentTypeError(
                f"{text!r:.40} is neither a whole number from 1 to {MAX_SEEDS} nor seeds such as 0,3,5-9{hint}"
            )
        named |= {*range(low, high + 1)}
    if len(named) > MAX_SEEDS:
        raise argparse.ArgumentTypeError(f"{text!r:.40} has more than {MAX_SEEDS} seeds")
    return tuple(sorted(named))


def check_file(file: Path) -> None:
    """Raise ValueError unless there is such a file."""
    if not file.is_file():
        raise ValueError(f"{file} is a folder, not a file" if file.is_dir() else f"there is no file {file}")


def scale(text: str) -> str:
    """Parse a scale: the name of one of the package, or a file's, which is not read yet."""
    if text not in SETTINGS and not text.endswith(".toml"):
        raise argparse.ArgumentTypeError(no_scale(text))
    return text


count, positive = whole(1, MAX_SEEDS), whole(1, 10**9 - 1)
"""Parsers of a number of seeds or workers, and of any positive number."""


class Parser(argparse.ArgumentParser):
    """A command's parser: it adds ``--version``, and examples and exit codes at the end of the help.

    examples: complete commands. codes: all exit codes except that of Ctrl-C, as ``0 all is done; 2 a wrong call``.
    """

    def __init__(self, *, examples: Sequence[str] = (), codes: str = "", **given: Any) -> None:
        shown = "\n         ".join(examples)
        ends = [f"example: {shown}"] * bool(examples) + [f"exit codes: {codes}; {STOPPED} Ctrl-C"] * bool(codes)
        given.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(epilog="\n\n".join(ends), allow_abbrev=False, **given)
        self.add_argument("--version", action="version", version=f"raysslprune {__version__}")

    def add_root(self) -> None:
        """Add ``--root``."""
        help = "folder of the results, or an s3:// or gs:// address (default: ./runs)"
        self.add_argument("--root", default=ROOT, metavar="DIR", help=help)

    def add_data(self, more: str = "") -> None:
        """Add ``--data``. more: the end of its help."""
        help = f"folder of the data sets (default: $RAYSSLPRUNE_DATA, else ./data){more}"
        self.add_argument("--data", type=catalogue.data_root, default="", metavar="DIR", help=help)

    def add_scale(self, of: str, default: str | None = SCALE, choice: str = "") -> None:
        """Add ``--scale`` and ``--set``. of: what the scale is for. choice: help on the default, if it is no scale."""
        known = f"{', '.join(SETTINGS)}, or a .toml file"
        help = f"scale of {of}: {known} (default: {choice or default})"
        self.add_argument("--scale", type=scale, default=default, metavar="SCALE", help=help)
        help = "replace a value of the scale, by its key in a scale file: labels.lr=0.1; results get their own folder"
        self.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=help)

    def add_seeds(self, default: str) -> None:
        """Add ``--seeds``."""
        help = f"N for seeds 0 to N-1, or seeds such as 0,3,5-9 (default: {default})"
        self.add_argument("--seeds", type=seeds, metavar="N", help=help)

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print as argparse does, but raise an error if that fails."""
        print(message, end="", file=file or sys.stderr)

    def error(self, message: str) -> NoReturn:
        """Print one sentence instead of the full usage, and exit with USAGE."""
        unknown = re.match(r"unrecognized arguments: (--[^\s=]+)", message)
        near = difflib.get_close_matches(unknown[1], self._option_string_actions, 1, cutoff=0.75) if unknown else []
        hint = f"; did you mean {near[0]}?" if near else ""
        self.exit(say(f"{message}{hint}; see --help", USAGE))
