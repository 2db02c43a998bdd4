"""Shell completion of ``raysslprune``, as scripts that shtab writes from the parsers: Tab runs no Python.

What an argument may be is said by its choices, else by its name or metavar: a SWEEP, a DIR, a FILE.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from typing import Any

import shtab

from raysslprune.catalogue import ARCHITECTURES, DATASETS
from raysslprune.sweep_loader import known

NAMED = {"folder", "parquet"}
"""Data sets with a name of their own behind a slash."""


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """For bash, zsh or fish: what it is to read in order to complete the parser's arguments."""
    data = (f"{name}/" if name in NAMED else name for name in DATASETS)
    ways = {
        "arch": _words("arch", ARCHITECTURES),
        "name": _words("data", data),
        "DIR": shtab.DIRECTORY,
        "FILE": shtab.FILE,
        "SWEEP": _sweeps(known()),
    }
    for action in _arguments(parser):
        kind = action.dest if action.dest in ways else action.metavar
        if action.choices is None and kind in ways:
            action.complete = ways[kind]  # pyright: ignore[reportAttributeAccessIssue]
    made = shtab.complete(parser, shell)
    if shell == "zsh":  # shtab completes only the first of several words
        made = made.replace('\n  "(*):', '\n  "*:')
    return made


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Of a parser and of all below it."""
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


def _sweeps(names: Iterable[str]) -> dict[str, Any]:
    """Known ones, or Python files. In bash shtab adds a slash to folders where ``file`` is in the function's name."""
    function, given = "_raysslprune_sweep_or_file", " ".join(names)
    return {
        "bash": function,
        "zsh": function,
        "fish": f"({function})",
        "preamble": {
            "bash": f"""{function}() {{
  compgen -W '{given}' -- "$1"
  compgen -f -X '!*.py' -- "$1"
  compgen -d -- "$1"
}}""",
            "zsh": f"""{function}() {{
  _alternative 'sweeps:sweep:({given})' 'files:sweep file:_path_files -g "*.py"' 'folders:folder:_path_files -/'
}}""",
            "fish": f"""function {function}
  printf '%s\\tsweep\\n' {given}
  __fish_complete_path (commandline -ct) 'sweep file' | string match -er '(?:\\.py|/)\\t'
end""",
        },
    }
