"""What the commands have in common: exit codes, one sentence for what is wrong, and how their help ends."""

from __future__ import annotations

import argparse
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NoReturn

USAGE, FAILED, STOPPED = 2, 1, 130
"""Exit codes: a wrong call; a step, the store, the data or the cluster failed; Ctrl-C."""

ROOT = "runs"
"""Where results live, unless another place is named."""

MOST_SEEDS = 1000
"""At most; and workers of a training."""


def say(sentence: str, code: int) -> int:
    """Tell it on stderr, as one line. Returns the code."""
    print(f"raysslprune: {' '.join(sentence.split())}", file=sys.stderr)
    return code


def note(sentence: str) -> None:
    """Tell what one should know, on stderr."""
    say(sentence, 0)


def fault(error: Exception) -> int:
    """Tell of an error that nobody thought of, with its traceback in a file. Returns the code; to be called where it
    is handled.
    """
    with tempfile.NamedTemporaryFile("w", prefix="raysslprune-", suffix=".log", delete=False) as log:
        log.write(traceback.format_exc())
    return say(f"a fault in raysslprune itself: {type(error).__name__}: {error}; details in {log.name}", FAILED)


def count(text: str) -> int:
    """An option's value that counts seeds or workers."""
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= MOST_SEEDS:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a whole number from 1 to {MOST_SEEDS}")
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
        self.add_argument("--version", action="version", version=f"raysslprune {version('raysslprune')}")

    def add_root(self) -> None:
        """``--root``."""
        help = "where results live: a folder, s3:// or gs:// (default: ./runs)"
        self.add_argument("--root", default=ROOT, metavar="DIR", help=help)

    def add_data(self, more: str = "") -> None:
        """``--data``. more: the end of its help."""
        default = os.environ.get("RAYSSLPRUNE_DATA") or "data"
        help = f"where data sets lie (default: $RAYSSLPRUNE_DATA, else ./data){more}"
        self.add_argument("--data", default=default, metavar="DIR", help=help)

    def error(self, message: str) -> NoReturn:
        """One sentence instead of the whole usage."""
        self.exit(say(f"{message}; see --help", USAGE))
