"""Shell completion of ``raysslprune``, as scripts that shtab writes from the parsers: Tab starts no Python.

An argument is completed by its choices, else by its name or metavar: a SWEEP, a DIR, a FILE.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any

import shtab

from raysslprune.catalogue import ARCHITECTURES, DATASETS, TASKS
from raysslprune.paper.scales import SETTINGS
from raysslprune.sweep_loader import known

NAMED = {"folder", "parquet"}
"""Data sets whose names have a second part after a slash."""


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """Return the script that makes bash, zsh or fish complete the parser's arguments."""
    data = _words("data", (f"{name}/" if name in NAMED else name for name in DATASETS))
    ways = {
        "arch": _words("arch", ARCHITECTURES),
        "task": _words("task", TASKS),
        "name": data,
        "DATA": data,
        "DIR": shtab.DIRECTORY,
        "FILE": shtab.FILE,
        "TASK": _words("task", TASKS),
        "SWEEP": _words_or_files("sweep", known(), "py"),
        "SCALE": _words_or_files("scale", SETTINGS, "toml"),
    }
    for action in _arguments(parser):
        kind = action.metavar if action.metavar in ways else action.dest
        if action.choices is None and kind in ways:
            action.complete = ways[kind]  # pyright: ignore[reportAttributeAccessIssue]
    made = shtab.complete(parser, shell)
    if shell == "zsh":  # shtab completes only the first of several words
        made = made.replace('\n  "(*):', '\n  "*:')
    return made


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Yield the arguments of a parser and of all its subparsers."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _arguments(below)


def _words(name: str, words: Iterable[str]) -> dict[str, Any]:
    function, given = f"_raysslprune_{name}", " ".join(words)
    return {
        "bash": function,
        "zsh": f"({given})",
        "fish": given,
        "preamble": {"bash": f"{function}() {{ compgen -W '{given}' -- \"$1\"; }}"},
    }


def _words_or_files(name: str, words: Iterable[str], suffix: str) -> dict[str, Any]:
    """Complete words, and files with a suffix. In bash, shtab adds a slash to folders if the function's name has
    ``file`` in it.
    """
    function, given = f"_raysslprune_{name}_or_file", " ".join(words)
    return {
        "bash": function,
        "zsh": function,
        "fish": f"({function})",
        "preamble": {
            "bash": f"""{function}() {{
  compgen -W '{given}' -- "$1"
  compgen -f -X '!*.{suffix}' -- "$1"
  compgen -d -- "$1"
}}""",
            "zsh": f"""{function}() {{
  _alternative '{name}s:{name}:({given})' 'files:{name} file:_path_files -g "*.{suffix}"' \\
    'folders:folder:_path_files -/'
}}""",
            "fish": f"""function {function}
  printf '%s\\t{name}\\n' {given}
  __fish_complete_path (commandline -ct) '{name} file' | string match -er '(?:\\.{suffix}|/)\\t'
end""",
        },
    }
