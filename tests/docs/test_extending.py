"""A task, an architecture and a data set from outside the package, as docs/extending.md shows them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysslprune import data
from tests.helpers import CHECKOUT
from tests.helpers.commands import sweep

DOC = CHECKOUT / "docs/extending.md"

IN_PROCESS = """
import sys, tempfile
from raysslprune import sweep_loader
from raysslprune.plan.graph import make_plan
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner
from raysslprune.store.steps import Store

points = sweep_loader.load("stripes.py", "laptop", 1).points
store = Store("runs")
store.create()
for job in make_plan(points).jobs.values():
    Runner(store=store, exchange=NoExchange()).run(job.to_plain())
for point in points:
    print(point.level, *(store.record(point.step.id).metrics[m] for m in ("density", "top1")))
"""


def write_files(folder: Path) -> None:
    """The doc's code blocks, those of one name one after another."""
    for name, code in re.findall(r"^```python (\S+)\n(.*?)^```$", DOC.read_text(), flags=re.MULTILINE | re.DOTALL):
        with (folder / name).open("a") as file:
            file.write(code)


def test_the_docs_own_task_architecture_and_data_set_train(tmp_path: Path) -> None:
    write_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.py", "stripes.py"]
    run = subprocess.run([sys.executable, "-c", IN_PROCESS], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    rows = [line.split() for line in run.stdout.splitlines()]
    assert [(int(level), float(density)) for level, density, _ in rows] == [(0, 1.0), (1, 0.5), (2, 0.25)]
    assert float(rows[0][2]) > 80  # of two classes


def test_a_name_that_no_worker_can_import_is_named(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "mine.py").unlink()
    run = subprocess.run([sys.executable, "-c", IN_PROCESS], cwd=tmp_path, capture_output=True, text=True)
    assert "'mine:Stripes' can't be imported here" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["os:getcwd", "builtins:list", "raysslprune.lottery:imp", "raysslprune.lottery:Chain"])
def test_what_is_no_data_set_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"data set '{name}' is no data.Source: .+"):
        data.source(name)


@pytest.mark.slow
def test_in_a_sweep_workers_find_the_module_beside_it(tmp_path: Path) -> None:
    write_files(tmp_path)
    done = sweep("stripes.py", cwd=tmp_path)
    assert done.code == 0, done.err
    assert pq.read_table(tmp_path / "runs/results/laptop/stripes.parquet").num_rows == 3
