"""The program ``raysslprune``: all commands by their names. ``python -m raysslprune`` is the same program.

A command's module is imported when the command is called, so that this one's own help is there at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from raysslprune import process
from raysslprune.commands.common import Parser, reports_errors


@dataclass(frozen=True)
class Command:
    """A command: the module with its ``main(arguments)`` and its ``_parser()``, and what it does."""

    module: str
    says: str

    def load(self) -> ModuleType:
        """Its module, which may take seconds."""
        with process.importing():
            return import_module(self.module)


COMMANDS = {
    "sweep": Command("raysslprune.sweep", "train what figures need, then draw them"),
    "status": Command("raysslprune.commands.status", "how far the sweep on a root is, while it runs or after"),
    "results": Command("raysslprune.commands.results", "SQL over all results of a root"),
    "report": Command("raysslprune.commands.report", "one HTML page of what sweeps found"),
    "analysis": Command("raysslprune.commands.analysis", "what masks keep of each layer, and how much they share"),
    "export": Command("raysslprune.commands.export", "a trained network, or a mask, as a folder to give to others"),
    "import-mask": Command("raysslprune.commands.import_mask", "a mask found by another tool, into a root"),
    "check": Command("raysslprune.commands.check", "name the broken images of a data set"),
    "resize": Command("raysslprune.commands.resize", "copy a data set with smaller images"),
}


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    with suppress(FileNotFoundError):  # a folder that is gone
        if os.getcwd() not in sys.path:  # as for `python -m`: a sweep may name modules that lie beside it
            sys.path.insert(0, os.getcwd())
    if not given or given[0] not in COMMANDS:
        parser = _parser()
        options = parser.parse_args(given)
        if options.command != "completion":  # were it required, this would be said of a wrong option too
            parser.error("COMMAND must come first")
        from raysslprune.commands import completion

        print(completion.script(options.shell, tree()))
        return 0
    return COMMANDS[given[0]].load().main(given[1:])


def program() -> NoReturn:
    """The whole process that a shell starts as ``raysslprune``."""
    process.begin()
    process.end(main())


def tree() -> argparse.ArgumentParser:
    """The parser of ``raysslprune`` with those of all commands in their places, which imports all of them."""
    parser = _parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            action.choices.update({name: command.load()._parser() for name, command in COMMANDS.items()})
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raysslprune",
        description="Prune convolutional networks with and without labels, and draw the figures.",
        examples=[
            "raysslprune sweep fig3 --dry-run",
            "raysslprune sweep fig3",
            "raysslprune sweep --help",
            "raysslprune completion bash > ~/.local/share/bash-completion/completions/raysslprune",
        ],
        codes="0 all is done; 1 a step, the store, the data or Ray failed; 2 a wrong call or sweep file; 130 Ctrl-C",
    )
    kinds = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, command in COMMANDS.items():
        kinds.add_parser(name, help=command.says)
    shells = kinds.add_parser("completion", help="print what makes a shell complete all of these")
    shells.add_argument("shell", choices=["bash", "zsh", "fish"], metavar="SHELL", help="bash, zsh or fish")
    return parser


if __name__ == "__main__":
    program()
