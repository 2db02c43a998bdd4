"""The program ``raysslprune``: all commands by their names. ``python -m raysslprune`` is the same program.

A command's module is imported when the command is called, so that this program's own help appears at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from types import ModuleType
from typing import NoReturn

from raysslprune import process
from raysslprune.commands.common import Parser, reports_errors

COMMANDS = {
    "sweep": "train what figures need, then draw them",
    "tune": "choose a recipe of a task by images that are held out",
    "scale": "print a scale as a file, to change it",
    "train": "train one network, and print its metrics",
    "try": "try a task, a network or a data set of your own",
    "status": "show the progress of the sweep on a root, while it runs or after",
    "results": "query all results of a root in SQL",
    "report": "make one HTML page of the results of sweeps",
    "analysis": "compare masks: what they keep of each layer, and how much they have in common",
    "export": "write a trained network, or a mask, as a folder to give to others",
    "import-mask": "put a mask found by another tool into a root",
    "import-weights": "put weights that were trained elsewhere into a root",
    "merge": "copy the finished steps of several roots into one",
    "clean": "list, or delete, the steps that no sweep needs any more",
    "check": "name the broken images of a data set",
    "resize": "copy a data set with smaller images",
}
"""Help text of each command."""


@reports_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. arguments: None for those of this process."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    with suppress(FileNotFoundError):  # the current folder was deleted
        if os.getcwd() not in sys.path:  # as `python -m` does: a sweep may name modules in this folder
            sys.path.insert(0, os.getcwd())
    if given and given[0] in COMMANDS:
        return load(given[0]).main(given[1:])
    parser = _parser()
    options = parser.parse_args(given)
    if options.command != "completion":  # if required, argparse would report a missing COMMAND even for a wrong option
        parser.error("COMMAND must come first")
    from raysslprune.commands import completion

    print(completion.script(options.shell, tree()))
    return 0


def program() -> NoReturn:
    """Run the process that a shell starts as ``raysslprune``, and exit."""
    process.begin()
    process.end(main())


def load(command: str) -> ModuleType:
    """Import a command's module, which defines ``main(arguments)`` and ``_parser()``. The import may take seconds."""
    with process.importing():
        names = {"sweep": "raysslprune.sweep", "try": "raysslprune.commands.try_out"}  # try is a keyword
        return import_module(names.get(command, f"raysslprune.commands.{command.replace('-', '_')}"))


def tree() -> argparse.ArgumentParser:
    """Return the parser of ``raysslprune`` with the parsers of all commands, after importing all of them."""
    parser = _parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            action.choices.update({name: load(name)._parser() for name in COMMANDS})
    return parser


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raysslprune",
        description="Prune convolutional networks with and without labels, and draw the figures. A sweep trains what a "
        "figure needs; its results go to a root, by default the folder runs. raysslprune COMMAND --help says more.",
        examples=[
            "raysslprune sweep fig3 --dry-run",
            "raysslprune sweep fig3",
            "raysslprune sweep --help",
            "raysslprune completion bash > ~/.local/share/bash-completion/completions/raysslprune",
        ],
        codes="0 all is done; 1 a step, the store, the data or Ray failed; 2 a wrong call or sweep file",
    )
    kinds = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for name, says in COMMANDS.items():
        kinds.add_parser(name, help=says)
    shells = kinds.add_parser("completion", help="print a completion script for a shell")
    shells.add_argument("shell", choices=["bash", "zsh", "fish"], metavar="SHELL", help="bash, zsh or fish")
    return parser


if __name__ == "__main__":
    program()
