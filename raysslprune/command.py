"""What the commands have in common: exit codes, one sentence for what is wrong, and how their help ends."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, NoReturn

USAGE, FAILED, STOPPED = 2, 1, 130
"""Exit codes: a wrong call; a step, the store, the data or the cluster failed; Ctrl-C."""


def say(sentence: str, code: int) -> int:
    """Tell it on stderr, as one line. Returns the code."""
    print(f"raysslprune: {' '.join(sentence.split())}", file=sys.stderr)
    return code


def note(sentence: str) -> None:
    """Tell what one should know, on stderr."""
    say(sentence, 0)


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

    def error(self, message: str) -> NoReturn:
        """One sentence instead of the whole usage."""
        self.exit(say(f"{message}; see --help", USAGE))
