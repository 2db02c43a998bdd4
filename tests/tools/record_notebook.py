"""Run docs/notebook.ipynb from nothing, and record its outputs as the documentation shows them.

    python tests/tools/record_notebook.py                                  # minutes on a machine that is idle
    python tests/tools/record_notebook.py --scale smoke --seeds 2 --out try.ipynb        # a minute, to try it

The notebook runs in an empty folder, which is deleted. Its outputs are those of a kernel, but for what would differ
between two machines: paths of that folder are relative, and no cell has times of its execution. The texts between the
cells are not changed: read those that name numbers.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "notebook.ipynb"
TIMEOUT = 3600
"""Seconds that a cell may take."""


def record(book: Any, parameters: str = "") -> None:
    """Execute all cells of a notebook, in place. parameters: code to run instead of the cell with that tag.

    Raises nbclient's CellExecutionError if a cell fails.
    """
    (first,) = (cell for cell in book.cells if "parameters" in cell.metadata.get("tags", ()))
    source = first.source
    first.source = parameters or source
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    with tempfile.TemporaryDirectory(prefix="notebook-") as folder:
        client = NotebookClient(
            book,
            timeout=TIMEOUT,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            coalesce_streams=True,
            record_timing=False,
        )
        client.execute(env=environment)
        for cell in book.cells:
            for output in cell.get("outputs", ()):
                relative(output, folder)
    first.source = source


def relative(output: Any, folder: str) -> None:
    """Write the paths in an output as relative to the folder in which it was made."""
    forms = [f"{path}/" for path in dict.fromkeys((folder, os.path.realpath(folder)))]
    texts = [(output, "text")] if "text" in output else []
    texts += [(output.data, kind) for kind in output.get("data", ()) if kind.startswith("text/")]
    for place, name in texts:
        for form in forms:
            place[name] = place[name].replace(form, "")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", help="instead of that of the notebook")
    parser.add_argument("--seeds", type=int, default=3, help="with --scale (default: 3)")
    parser.add_argument("--out", type=Path, default=NOTEBOOK, help="file to write (default: the notebook itself)")
    options = parser.parse_args(arguments)
    book = nbformat.read(NOTEBOOK, as_version=4)
    record(book, f'SCALE, SEEDS, ROOT = "{options.scale}", {options.seeds}, "runs"' if options.scale else "")
    nbformat.write(book, options.out)


if __name__ == "__main__":
    main()
