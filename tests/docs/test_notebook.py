"""The notebook shows what it made, and runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from raysslprune import results
from raysslprune.plan.graph import make_plan
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load as load_file
from tests.helpers.notebooks import NOTEBOOK, check_recorded


def test_the_notebook_shows_what_it_made() -> None:
    check_recorded(NOTEBOOK)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path) -> None:
    """In a kernel, with Ray, from nothing, at scale smoke; and the kernel is as it was."""
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.read(NOTEBOOK, as_version=4)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    progress = "raysslprune.terminal.progress"
    often = f"import {progress}\n{progress}.LINE_EVERY = 0.2\n"  # Ray alone takes longer to start
    code[0].source = often + 'SCALE, SEEDS, ROOT = "smoke", 2, "runs"'
    for cell in code:
        cell.outputs, cell.execution_count = [], None
    book.cells.append(
        nbformat.v4.new_code_cell("import os\nprint('printed')\nos.write(1, b'written')\nos.system('echo echoed')")
    )
    # Under pytest a kernel would not look after what is written to its descriptors, as it does for people
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    client = NotebookClient(book, timeout=250, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=environment)

    def said(cell: Any, name: str) -> str:
        return "".join(out.text for out in cell.outputs if out.output_type == "stream" and out.name == name)

    plans, runs = ([cell for cell in code if f".{verb}()" in cell.source] for verb in ("plan", "run"))
    assert ["done" in said(cell, "stdout") for cell in plans] == [True, True]
    for cell, trainings in zip(runs, ("56 of 56", "5 of 17"), strict=True):
        assert f"{trainings} trainings to run" in said(cell, "stderr")
        assert "trainings, " in said(cell, "stderr")
        assert "mean ± standard error over n seeds" in said(cell, "stdout")
        for out in cell.outputs:
            assert out.output_type == "stream", out
            assert "\x1b[2K" not in out.text  # which moves a terminal's cursor
    assert sum("image/png" in out.get("data", {}) for cell in code for out in cell.outputs) == 4
    last = said(book.cells[-1], "stdout")
    assert all(word in last for word in ("printed", "written", "echoed"))

    for name, count in (("fig3", 2 * 21), ("other", 2 * 2 * 3)):
        table = results.load(name, root=str(tmp_path / "runs"), scale="smoke")
        assert len(table) == count
    store = Store(str(tmp_path / "runs"))
    wanted = load_file("fig3", "smoke", 2).points
    assert results.table("fig3", "smoke", wanted, store.survey(make_plan(wanted).ids)[0]).equals(
        results.load("fig3", root=str(tmp_path / "runs"), scale="smoke")
    )
