"""What is recorded is what the documentation's test accepts."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest

from tests.helpers.notebooks import NOTEBOOK, check_recorded, code_of, outputs_of
from tests.tools import record_notebook


def test_paths_are_relative_in_all_texts() -> None:
    folder = "/tmp/notebook-x"
    printed = nbformat.v4.new_output("stream", name="stderr", text=f"log: {folder}/runs/a.log, {folder}-2/b\n")
    shown = nbformat.v4.new_output("execute_result", data={"text/plain": f"'{folder}/runs'", "image/png": "AAAA"})
    for output in (printed, shown):
        record_notebook.relative(output, folder)
    assert printed.text == f"log: runs/a.log, {folder}-2/b\n"
    assert shown.data == {"text/plain": "'runs'", "image/png": "AAAA"}


@pytest.mark.slow
def test_a_recorded_notebook_is_accepted(tmp_path: Path) -> None:
    """At scale smoke; the cell with the parameters stays as it is."""
    record_notebook.main(["--scale", "smoke", "--seeds", "2", "--out", str(tmp_path / "recorded.ipynb")])
    check_recorded(tmp_path / "recorded.ipynb")
    code = code_of(tmp_path / "recorded.ipynb")
    assert "56 of 56 trainings to run" in outputs_of(code[2])
    assert [cell["source"] for cell in code] == [cell["source"] for cell in code_of(NOTEBOOK)]
