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


CRITERION = """
from raysslprune import Init, Prune, Recipe, Train, from_start
from raysslprune.plan.graph import make_plan
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner

recipe = Recipe(samples=640, batch=64, lr=0.05)
dense = Train(task="labels", data="digits", arch="conv4", recipe=recipe, seed=0, start=Init(seed=0))
mask = Prune(of=dense, keep=0.2, criterion="mine:saved", samples=100, at=0)
step = from_start(mask, of=dense, task="labels", recipe=recipe)
store = Store("runs")
store.create()
(job,) = make_plan([Point(step=step, task="labels", init="", level=1, seed=0)]).jobs.values()
Runner(store=store, exchange=NoExchange()).run(job.to_plain())
print(store.record(mask.id).metrics["density"])
"""


def test_the_docs_own_criterion_makes_a_mask_without_training(tmp_path: Path) -> None:
    write_files(tmp_path)
    run = subprocess.run([sys.executable, "-c", CRITERION], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) == 0.2


PAIRS = """
import tempfile
from raysslprune import Init, Recipe, Train
from raysslprune.store.steps import Store
from raysslprune.plan.graph import make_plan
from raysslprune.sweepfile import Point
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner

recipe = dict(batch=64, lr=0.05, momentum=0.9, angle=15, jitter=(0.4, 0.4, 0, 0), pad=1)
store = Store("runs")
store.create()
for samples in (64, 14_400):
    given = dict(recipe=Recipe(samples=samples, **recipe), seed=0, start=Init(seed=0))
    step = Train(task="mine:Pairs", data="digits", arch="conv4", **given)
    point = Point(step=step, task="pairs", init="drawn", level=0, seed=0, metric="neighbours")
    (job,) = make_plan([point]).jobs.values()
    Runner(store=store, exchange=NoExchange()).run(job.to_plain())
    print(store.record(step.id).metrics["neighbours"])
"""


def test_the_docs_task_of_two_views_learns(tmp_path: Path) -> None:
    """It ends above what it has after one update. Its loss is that of Chen et al. 2020 by a naive loop."""
    write_files(tmp_path)
    run = subprocess.run([sys.executable, "-c", PAIRS], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    begun, trained = map(float, run.stdout.split())
    assert trained > begun + 5


NAIVE = """
import math, torch
from mine import Pairs

torch.manual_seed(0)
first, second = torch.randn(2, 5, 7, dtype=torch.float64)
rows = torch.nn.functional.normalize(torch.cat([first, second])).tolist()
cosine = lambda a, b: sum(x * y for x, y in zip(a, b))
total = 0.0
for i, row in enumerate(rows):
    odds = {j: math.exp(cosine(row, other) / 0.5) for j, other in enumerate(rows) if j != i}
    total -= math.log(odds[(i + 5) % 10] / sum(odds.values()))
print(float(Pairs().loss(lambda x: x, first, second)) - total / 10)
"""


def test_the_docs_task_of_two_views_has_the_published_loss(tmp_path: Path) -> None:
    write_files(tmp_path)
    run = subprocess.run([sys.executable, "-c", NAIVE], cwd=tmp_path, capture_output=True, text=True)
    assert abs(float(run.stdout)) < 1e-12, run.stderr


def test_a_name_that_no_worker_can_import_is_named(tmp_path: Path) -> None:
    write_files(tmp_path)
    (tmp_path / "mine.py").unlink()
    run = subprocess.run([sys.executable, "-c", IN_PROCESS], cwd=tmp_path, capture_output=True, text=True)
    assert "'mine:Stripes' can't be imported here" in run.stderr.splitlines()[-1]


@pytest.mark.parametrize("name", ["os:getcwd", "builtins:list", "raysslprune.lottery:imp", "raysslprune.lottery:Chain"])
def test_what_is_no_data_set_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"data set '{name}' is not a data.Source: .+"):
        data.source(name)


@pytest.mark.slow
def test_in_a_sweep_workers_find_the_module_beside_it(tmp_path: Path) -> None:
    write_files(tmp_path)
    done = sweep("stripes.py", cwd=tmp_path)
    assert done.code == 0, done.err
    assert pq.read_table(tmp_path / "runs/results/laptop/stripes.parquet").num_rows == 3


@pytest.mark.slow
def test_after_a_change_of_the_code_remake_trains_again(tmp_path: Path) -> None:
    write_files(tmp_path)
    assert sweep("stripes.py", cwd=tmp_path).code == 0
    records = {path: path.read_text() for path in (tmp_path / "runs/steps").glob("*/SUCCESS")}
    assert all('"sources"' in text for text in records.values())
    with (tmp_path / "mine.py").open("a") as file:
        file.write("# changed\n")
    again = sweep("stripes.py", cwd=tmp_path)
    assert again.code == 0
    (line,) = (line for line in again.err.splitlines() if "mine.py" in line)
    assert f"has changed since it made {len(records)} finished steps; these stay done" in line
    assert {path: path.read_text() for path in records} == records
    remade = sweep("stripes.py", "--remake", cwd=tmp_path)
    assert remade.code == 0, remade.err
    assert len(list((tmp_path / "runs/replaced").iterdir())) == len(records)
    assert all(path.read_text() != text for path, text in records.items())
    assert "mine.py" not in sweep("stripes.py", cwd=tmp_path).err
