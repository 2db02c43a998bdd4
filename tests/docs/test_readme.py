"""What the README shows works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa

from raysslprune import results
from raysslprune.plan.graph import make_plan
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load
from tests.helpers import CHECKOUT
from tests.helpers.commands import sweep

README = (CHECKOUT / "README.md").read_text()
QUERY, SWEEP = re.findall(r"```python\n(.*?)```", README, re.S)


def test_the_query_runs(tmp_path: Path) -> None:
    row = {"figure": "fig3", "scale": "laptop", "task": "rotnet", "init": "winning ticket", "level": 3, "density": 0.5}
    row |= {"metric": "top1", "collapsed_layers": 0, "step": "0" * 16, "panel": "digits, four convolutions"}
    row |= {"density_of_all": 0.5, "rewind": 1_200, "data": "digits", "arch": "conv4", "design": 2}
    rows = [{**row, "seed": seed, "value": 97.0 + seed} for seed in (0, 1)]
    store = Store(str(tmp_path / "runs"))
    store.create()
    table = pa.Table.from_pylist(rows, schema=results.SCHEMA)
    store.write("results/laptop/fig3.parquet", results.to_parquet(table))
    ran = subprocess.run([sys.executable, "-c", QUERY], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "97.5" in ran.stdout


def test_the_sweep_of_ones_own_shares_figure_3s_dense_network(tmp_path: Path) -> None:
    (tmp_path / "bites.py").write_text(SWEEP)
    bites = make_plan(load(str(tmp_path / "bites.py"), "laptop", 1).points)
    figure_3 = make_plan(load("fig3", "laptop", 1).points)
    assert len(bites.jobs) == 1 + 6 + 3
    assert len(bites.jobs.keys() & figure_3.jobs.keys()) == 1


def test_the_commands_are_taken(tmp_path: Path) -> None:
    (tmp_path / "bites.py").write_text(SWEEP)
    commands = re.findall(r"^    python -m raysslprune\.sweep (.*?) *(?:#.*)?$", README, re.M)
    assert len(commands) >= 4
    for command in commands:
        if command.endswith("--draw"):  # of what is done, which is nothing yet
            drawn = sweep(*command.split(), cwd=tmp_path)
            assert (drawn.code, drawn.err.count("\n")) == (1, 1), drawn.err
            continue
        called = sweep(*command.split(), "--dry-run", cwd=tmp_path)
        if "--explain" in command:  # a row that is there once its figure is
            name, row = re.fullmatch(r"(\S+) --explain (\d+)", command).groups()  # pyright: ignore
            assert int(row) < len(load(name, "laptop", 1).points)
            assert f"{name} has no row and no step '{row}'; it has no rows yet" in called.err
        else:
            assert called.code == 0, command
