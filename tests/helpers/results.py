"""Roots with made-up results."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysslprune import results
from raysslprune.results import claims
from raysslprune.spec import Mask, closure
from raysslprune.store.record import LAYERS, MULTIPLY_ADDS, Record
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load

Frame = Any
"""pandas' types can't follow what is done with one here."""
VERSIONS = {"raysslprune": "0.1.0", "torch": "2.11.0", "numpy": "2.0.0", "python": "3.11.7"}


def record(step: Any) -> Record:
    """What a step could have come to: all of it a function of its id."""
    drawn = random.Random(step.id)
    if isinstance(step, Mask):
        facts = {LAYERS: {"layers.conv1.weight": step.target_density}}
        return Record(step=step.id, metrics={"density_in_scope": step.target_density}, facts=facts, files={})
    density = step.target_density
    collapsed = density < 0.02 and drawn.random() < 0.2
    facts = {
        "seconds": drawn.uniform(1, 3),
        "images_per_second": drawn.uniform(5_000, 15_000),
        "begun": 1_763_800_000 + drawn.randrange(100_000) / 8,
        "resumed_at": 640 if drawn.random() < 0.05 else None,
        "host": drawn.choice(["one", "two"]),
        "device": drawn.choice(["cpu", "cuda (H100)"]),
        "workers": drawn.choice([1, 2]),
        "versions": VERSIONS,
        LAYERS: {"layers.conv1.weight": density},
        MULTIPLY_ADDS: drawn.randrange(1_000_000),
    }
    metrics = {"density": density, "collapsed_layers": float(collapsed), "train_loss": drawn.random()}
    metrics["top1"] = 10.0 if collapsed else 98 - drawn.random() - 60 * (1 - density) ** 30 * drawn.random()
    if "held-out" in step.data:
        metrics["top1_validation"] = metrics["top1"] + drawn.random() - 1
    return Record(step=step.id, metrics=metrics, facts=facts, files={})


def write(store: Store, name: str, scale: str, seeds: int) -> None:
    """The tables of a sweep, as the command writes them."""
    sweep = load(name, scale, seeds)
    records = {step.id: record(step) for step in closure(point.step for point in sweep.points)}
    table = results.table(name, scale, sweep.points, records)
    for suffix, one in {
        "": table,
        "-runs": results.provenance(sweep.points, records),
        "-steps": results.steps(sweep.points, records),
        "-claims": claims.table(claims.judge(sweep.claims, table)),
    }.items():
        store.write(f"results/{scale}/{name}{suffix}.parquet", results.to_parquet(one))


def write_of_earlier_design(store: Store, name: str, scale: str, seeds: int) -> int:
    """A sweep's table as the command wrote it before labels were counted. Returns how many of its rows are unfair.

    Then tickets went on where their chain was, whatever the task, and untrained weights were not calibrated.
    """
    points = [
        replace(point, step=replace(point.step, first_sample=None, calibrated=False))
        for point in load(name, scale, seeds).points
    ]
    records = {step.id: record(step) for step in closure(point.step for point in points)}
    table = results.table(name, scale, points, records).drop_columns(["label_samples", "design"])
    store.write(f"results/{scale}/{name}.parquet", results.to_parquet(table))
    return sum(point.init == "winning ticket" and point.task != "labels" for point in points)


@pytest.fixture(scope="module")
def results_root(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Figure 3 at two scales, and the rewind study, whose dense networks are Figure 3's."""
    store = Store(str(tmp_path_factory.mktemp("query") / "runs"))
    write(store, "fig3", "laptop", 3)
    write(store, "fig3", "cifar10-small", 2)
    write(store, "rewind", "laptop", 3)
    return store.base


@pytest.fixture
def small_root(tmp_path: Path) -> str:
    """Figure 3 at scale smoke, with one seed."""
    store = Store(str(tmp_path / "runs"))
    write(store, "fig3", "smoke", 1)
    return store.base


def frame(results_root: str, pattern: str) -> Frame:
    """The files of a root as pandas reads them, without raysslprune."""
    import pandas as pd

    paths = [
        path for path in sorted(Path(results_root).glob("results/*/*.parquet")) if re.fullmatch(pattern, path.stem)
    ]
    assert paths
    parts = []
    for path in paths:
        part = pd.read_parquet(path)
        parts.append(part if "figure" in part else part.assign(figure=path.stem.split("-")[0], scale=path.parent.name))
    return pd.concat(parts, ignore_index=True)


def same(found: list[tuple[Any, ...]], wanted: list[tuple[Any, ...]]) -> None:
    """Row by row; numbers to rounding, NaN is null."""
    assert len(found) == len(wanted)
    for row, right in zip(found, wanted, strict=True):
        assert len(row) == len(right)
        for value, expected in zip(row, right, strict=True):
            if isinstance(expected, float):
                assert (value is None) if np.isnan(expected) else (value == pytest.approx(expected, abs=1e-9)), row
            else:
                assert value == expected, (row, right)


def fig3(results_root: str, scale: str = "laptop") -> Frame:
    data = frame(results_root, "fig3|rewind")
    return data[(data.figure == "fig3") & (data.scale == scale)]


def tuples(data: Frame, *columns: str) -> list[tuple[Any, ...]]:
    return [*data[[*columns]].itertuples(index=False, name=None)]


def collapsed(results_root: str) -> list[tuple[Any, ...]]:
    lost: dict[tuple[Any, ...], list[Any]] = {}
    for row in fig3(results_root).itertuples():
        if row.collapsed_layers:
            lost.setdefault((row.panel, row.task, row.init, row.density), []).append(row)
    found = [
        (*key, len(mine), max(row.collapsed_layers for row in mine), sum(row.value for row in mine) / len(mine))
        for key, mine in lost.items()
    ]
    return sorted(found, key=lambda row: (*row[:3], -row[3]))


@contextmanager
def command(*arguments: str, stdout: Any = subprocess.PIPE) -> Iterator[subprocess.Popen[bytes]]:
    """``raysslprune results`` with these arguments, as a user starts it, until it ends."""
    words = [sys.executable, "-m", "raysslprune", "results", *arguments]
    with subprocess.Popen(words, stdout=stdout, stderr=subprocess.PIPE) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise
