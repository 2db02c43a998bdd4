"""Matplotlib's backend, whatever a user has chosen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

BACKEND = """
import os
from raysslprune.figures import ink
import matplotlib
from matplotlib.figure import Figure
assert ink.save(Figure(), "png")
print(os.environ["MPLBACKEND"], matplotlib.rcParams._get("backend"))
"""


@pytest.mark.parametrize("named", ["no such backend", "svg"])
def test_a_backend_that_is_not_installed_is_no_fault(named: str) -> None:
    """A notebook sets MPLBACKEND for all that it starts. One that is installed is still what pyplot uses."""
    words = [sys.executable, "-c", BACKEND]
    run = subprocess.run(words, env=os.environ | {"MPLBACKEND": named}, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(named)
    assert (run.stdout == "svg svg\n") == (named == "svg")


def test_a_backend_that_a_notebook_has_chosen_stays() -> None:
    program = "import matplotlib; matplotlib.use('svg'); import raysslprune.figures; print(matplotlib.get_backend())"
    words = [sys.executable, "-c", program]
    run = subprocess.run(words, env=os.environ | {"MPLBACKEND": "pdf"}, capture_output=True, text=True, timeout=120)
    assert (run.stdout, run.returncode) == ("svg\n", 0), run.stderr
