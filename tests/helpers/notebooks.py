"""The documentation's notebook, and what its recorded outputs must be."""

from __future__ import annotations

import ast
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.helpers import CHECKOUT

NOTEBOOK = CHECKOUT / "docs" / "notebook.ipynb"


def code_of(notebook: Path) -> list[dict[str, Any]]:
    """The cells with code."""
    return [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]


def outputs_of(cell: dict[str, Any]) -> str:
    """Its text, from prints and results."""
    parts = (out.get("text") or out.get("data", {}).get("text/plain", "") for out in cell["outputs"])
    return "".join("".join(part) for part in parts)


def check_recorded(notebook: Path) -> None:
    """As it was run: from the first cell to the last, without an error, with figures, and nothing of the machine."""
    code = code_of(notebook)
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    for cell in code:
        ast.parse("".join(cell["source"]))
        assert "error" not in {out["output_type"] for out in cell["outputs"]}
        assert not re.search(r"/(tmp|home|root|work|usr)/|\x1b\[2K", outputs_of(cell))
        assert "execution" not in cell["metadata"], "times of this run"
        streams = [out.get("name") for out in cell["outputs"]]
        assert all(name is None or name != after for name, after in pairwise(streams))
    drawn = [cell for cell in code if any("image/png" in out.get("data", {}) for out in cell["outputs"])]
    assert [re.findall(r"\.(draw\w*)\(", "".join(cell["source"])) for cell in drawn] == [
        ["draw"],
        ["draw_layers"],
        ["draw_overlaps"],
        ["draw"],
    ]
    assert "trainings to run" in outputs_of(code[2])
    (first,) = [cell for cell in code if "parameters" in cell["metadata"].get("tags", [])]
    assert "".join(first["source"]) == 'SCALE, SEEDS, ROOT = "laptop", 3, "runs"'
