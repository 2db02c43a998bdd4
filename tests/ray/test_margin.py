"""Pilot trainings of the benchmark ``margin``, on Ray."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from benchmarks import margin


@pytest.mark.slow
def test_it_trains_twins_and_takes_up_what_is_done(tmp_path: Path) -> None:
    options = argparse.Namespace(scale="smoke", seeds=2, root=str(tmp_path), data="")
    found = margin.run(options)
    assert [name for name in found if "left" in name] == [
        "standard deviation at 40.00% left",
        "standard deviation at 6.40% left",
    ]
    assert found["margin"] >= 2 * found["standard deviation"] > 0
    assert margin.run(options) == found
