"""Each question of docs/querying.md, against pandas."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pytest

from raysslprune import results
from raysslprune.commands.results import main
from raysslprune.sweep_loader import load
from tests.helpers import CHECKOUT
from tests.helpers.results import Frame, collapsed, fig3, frame, same, tuples


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in table.to_pylist()]


DOCS = (CHECKOUT / "docs/querying.md").read_text()
QUESTIONS = dict(re.findall(r"^### (.*?)\n(?:(?!^###).)*?```sql\n(.*?)```", DOCS, re.S | re.M))


def over_seeds(data: Frame) -> Frame:
    grouped = data.groupby(["panel", "task", "init", "level", "rewind"], dropna=False)
    return grouped.agg(
        density=("density", "mean"), mean=("value", "mean"), stderr=("value", "sem"), n=("value", "size")
    ).reset_index()


def accuracy(results_root: str) -> list[tuple[Any, ...]]:
    means = over_seeds(fig3(results_root)).sort_values(["panel", "task", "init", "level"])
    return tuples(means, "panel", "task", "init", "density", "mean", "stderr", "n")


def below_dense(results_root: str) -> Frame:
    means = over_seeds(fig3(results_root))
    (dense,) = means[means.level == 0]["mean"]
    tickets = means[(means.init == "winning ticket") & (means.level > 0)]
    return tickets.assign(points=tickets["mean"] - dense)


def far_below(results_root: str) -> list[tuple[Any, ...]]:
    ordered = below_dense(results_root).sort_values(["task", "density"], ascending=[True, False])
    return tuples(ordered, "panel", "task", "density", "points")


def first_below(results_root: str) -> list[tuple[Any, ...]]:
    found = []
    for _, mine in below_dense(results_root).groupby("task"):
        worse = mine[mine.points < -1].sort_values("density")
        found += tuples(worse.tail(1), "panel", "task", "density", "points")
    return sorted(found, key=lambda row: row[2])


def worth(results_root: str) -> list[tuple[Any, ...]]:
    found = []
    data = fig3(results_root)
    for (task, level), mine in data.groupby(["task", "level"]):
        wide = mine.pivot(index="seed", columns="init", values="value")
        if {"winning ticket", "random re-init"} <= {*wide.columns}:
            gained = (wide["winning ticket"] - wide["random re-init"]).to_numpy()
            stderr = np.std(gained, ddof=1) / np.sqrt(len(gained))
            found.append((mine.panel.iloc[0], task, level, mine.density.iloc[0], gained.mean(), stderr, len(gained)))
    return found


def disagreement(results_root: str) -> list[tuple[Any, ...]]:
    wide = (
        fig3(results_root).pivot(index=["panel", "task", "init", "density"], columns="seed", values="value").to_numpy()
    )
    keys = fig3(results_root).pivot(index=["panel", "task", "init", "density"], columns="seed", values="value").index
    found = [(*key, row.min(), row.max(), np.ptp(row)) for key, row in zip(keys, wide, strict=True)]
    return sorted(found, key=lambda row: -row[-1])[:10]


def best_rewind(results_root: str) -> list[tuple[Any, ...]]:
    data = frame(results_root, "rewind")
    chosen, shown = (over_seeds(data[data.metric == metric]) for metric in ("top1_validation", "top1"))
    both = chosen.merge(shown, on=["task", "level", "rewind", "density"], suffixes=("", "_test"))
    found = []
    for (task, density), mine in both.groupby(["task", "density"]):
        best = mine.loc[mine["mean"].idxmax()]
        found.append((task, density, int(best.rewind), best["mean"], best["mean_test"], best["stderr_test"], len(mine)))
    return sorted(found, key=lambda row: (row[0], -row[1]))


def two_scales(results_root: str) -> list[tuple[Any, ...]]:
    one, other = (over_seeds(fig3(results_root, scale)) for scale in ("laptop", "cifar10-small"))
    both = one.merge(other, on=["task", "init"], suffixes=("", "_large"))
    matched = both[(both.density_large / both.density).between(0.98, 1.02)]
    ordered = matched.sort_values(["task", "init", "density"], ascending=[True, True, False])
    return tuples(ordered, "task", "init", "density", "mean", "mean_large")


def for_a_paper(results_root: str) -> list[tuple[Any, ...]]:
    means = over_seeds(fig3(results_root))
    means = means[means.level > 0]
    found = []
    for (panel, init, task), mine in means.groupby(["panel", "init", "task"]):
        cells = [f"{m:.1f} ± {s:.1f}" for m, s in tuples(mine.sort_values("level"), "mean", "stderr")]
        found.append((panel, init, task, *cells))
    return found


def trainings_of(results_root: str) -> list[tuple[Any, ...]]:
    data = fig3(results_root)
    mine = data[(data.task == "rotnet") & (data.init == "winning ticket") & (data.level == 18)]
    both = mine.merge(frame(results_root, "fig3-runs").query("scale == 'laptop'"), on="step").sort_values("seed")
    return tuples(both, "seed", "value", "step", "host", "device", "begun", "torch")


def largest_detectable(results_root: str) -> list[tuple[Any, ...]]:
    data = frame(results_root, "fig3-claims").query("scale == 'laptop' and verdict == 'undecided'")
    ordered = data.sort_values(["detectable", "panel", "says"], ascending=[False, True, True])
    return tuples(ordered, "panel", "says", "relation", "margin", "n", "effect", "low", "high", "holm", "detectable")


def all_runs(results_root: str) -> Frame:
    return frame(results_root, ".*-runs").drop_duplicates(["scale", "step"])


def all_steps(results_root: str) -> Frame:
    return frame(results_root, ".*-steps").drop_duplicates("step")


def by_learning_rate(results_root: str) -> list[tuple[Any, ...]]:
    data = frame(results_root, "fig3|rewind").query("init == 'winning ticket' and metric == 'top1'")
    both = data.merge(all_steps(results_root)[["step", "lr", "batch"]], on="step")
    grouped = both.groupby(["lr", "batch", "data"]).value.agg(["mean", "std", "size"]).reset_index()
    return tuples(grouped, "lr", "batch", "data", "mean", "std", "size")


def computed(results_root: str) -> list[tuple[Any, ...]]:
    every = all_steps(results_root)
    dense = every[(every.kind == "Train") & (every.arch == "conv4") & (every.data == "digits")].multiply_adds.max()
    data = fig3(results_root)
    both = data[data.init == "winning ticket"].merge(every[["step", "multiply_adds"]], on="step")
    both["computed"] = both.multiply_adds / dense
    grouped = both.groupby(["task", "density"])[["computed", "value"]].mean().reset_index()
    ordered = grouped.sort_values(["task", "density"], ascending=[True, False])
    return tuples(ordered, "task", "density", "computed", "value")


def speeds(results_root: str) -> list[tuple[Any, ...]]:
    found: dict[tuple[Any, ...], list[float]] = {}
    for row in all_runs(results_root).itertuples():
        found.setdefault((row.device, row.data, row.arch, row.trained_on), []).append(float(row.images_per_second))
    return [(*key, len(mine), float(np.median(mine))) for key, mine in sorted(found.items())]


def hours(results_root: str) -> list[tuple[Any, ...]]:
    found = []
    for (scale, task), mine in all_runs(results_root).groupby(["scale", "trained_on"]):
        spent = float(np.dot(mine.seconds, mine.workers)) / 3600
        found.append((scale, task, len(mine), spent, int(mine.resumed_at.notna().sum())))
    return sorted(found, key=lambda row: (row[0], -row[3]))


ANSWERS: dict[str, Callable[[str], list[tuple[Any, ...]]]] = {
    "Accuracy at each density": accuracy,
    "How far below the dense network?": far_below,
    "Where do tickets first lose more than a point?": first_below,
    "What is a winning ticket worth?": worth,
    "Where do seeds disagree most?": disagreement,
    "Which networks lost whole layers?": collapsed,
    "What is the best rewind?": best_rewind,
    "Is it the same at another scale?": two_scales,
    "Which claims are undecided?": largest_detectable,
    "A table for a paper": for_a_paper,
    "Does the learning rate matter?": by_learning_rate,
    "What does a ticket cost to compute?": computed,
    "Which trainings is a number made from?": trainings_of,
    "How fast is each device?": speeds,
    "What did it cost?": hours,
}


def test_every_question_is_tried() -> None:
    assert list(QUESTIONS) == list(ANSWERS)
    assert DOCS.count("```sql") == len(ANSWERS) == 15
    assert "## Fifteen questions" in DOCS


@pytest.mark.parametrize("question", ANSWERS)
def test_a_question_of_the_docs_has_the_answer_that_pandas_gives(question: str, results_root: str) -> None:
    wanted = ANSWERS[question](results_root)
    assert len(wanted) > 2
    same(rows(results.query(QUESTIONS[question], results_root)), wanted)


def test_the_columns_of_a_table_for_a_paper_are_what_is_pruned(results_root: str) -> None:
    names = results.query(QUESTIONS["A table for a paper"], results_root).column_names
    levels = sorted({*fig3(results_root).level} - {0})
    assert names == ["panel", "init", "task", *(f"{100 - 100 * 0.8**level:04.1f}" for level in levels)]


def test_python_of_the_docs_runs(results_root: str, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(results_root)
    code = "\n".join(re.findall(r"```python\n(.*?)```", DOCS, re.S))
    code += "\nprint(len(fig3), len(frame), len(polars), fig3.schema.field('density').metadata[b'about'], best)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    n = len(load("fig3", "laptop", 3).points)
    assert ran.stdout.startswith(f"{n} {n} {n} b'fraction left")


def test_the_commands_of_the_docs_are_taken(results_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").symlink_to(results_root)
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^    raysslprune results(.*?) *(?:[#|].*)?$", DOCS, re.M)
    assert len(commands) == 8
    for command in commands:
        words = re.findall(r'"([^"]*)"|(\S+)', command.replace("--root s3://bucket/runs", ""))
        assert main([quoted or plain for quoted, plain in words]) == 0
    assert pyarrow.csv.read_csv("everything.csv").num_rows == len(frame(results_root, "fig3|rewind"))
