"""Replays of searches on grids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks import rewind
from benchmarks.rewind import SEARCHES, Grid, Values, compared, evaluations, made_up, read, replay
from raysslprune import results
from raysslprune.messages import UserError
from raysslprune.spec import closure
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point
from tests.helpers.results import record, write


def grid(seed: int, candidates: int = 16, seeds: int = 8) -> Grid:
    rng = np.random.default_rng(seed)
    held_out, test = rng.normal(90, 2, (2, candidates, seeds))
    return Grid(held_out=held_out, test=test)


def test_evaluations_by_hand() -> None:
    assert evaluations(16, 1) == 16
    assert evaluations(16, 3) == 16 + 8 + 4
    assert evaluations(16, 4) == 16 + 8 + 2 * 4
    assert evaluations(16, 8) == 16 + 8 + 2 * 4 + 4 * 2


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("seeds", [2, 4, 5])
def test_a_search_keeps_to_its_budget_and_chooses_by_values(name: str, seeds: int) -> None:
    """A candidate that is far better than all others is never passed over once it is looked at."""
    budget, found, used = evaluations(16, seeds), list[bool](), 0
    for number in range(16):
        values = grid(number).held_out[:, :seeds]
        values[number] += 100
        choice, used = SEARCHES[name](values, budget, np.random.default_rng(number))
        assert used <= (values.size if name == "whole grid" else budget)
        assert used % 1 == 0
        found.append(choice == number)
    share = sum(found) / 16
    if name in ("whole grid", "successive halving", "all candidates, fewer seeds"):
        assert share == 1
    assert share >= 0.25
    if name == "successive halving":
        assert used == budget


def test_the_regret_is_on_test_images_with_seeds_that_the_search_did_not_see() -> None:
    one = grid(3, candidates=4, seeds=6)
    seen: list[Values] = []

    def second(values: Values, budget: int, rng: np.random.Generator) -> tuple[int, int]:
        seen.append(values)
        assert budget == evaluations(4, 3)
        return 1, 5

    regret, used = replay(one, second, 0)
    assert (used, seen[0].shape) == (5, (4, 3))
    columns = [one.held_out[0].tolist().index(value) for value in seen[0][0]]
    others = [seed for seed in range(6) if seed not in columns]
    truth = [sum(row[seed] for seed in others) / 3 for row in one.test.tolist()]
    assert regret == pytest.approx(max(truth) - truth[1])
    assert replay(one, second, 0)[0] == regret
    assert len({replay(one, second, number)[0] for number in range(9)}) > 1


def test_differences_are_paired(monkeypatch: pytest.MonkeyPatch) -> None:
    def fixed(choice: int) -> rewind.Search:
        return lambda values, budget, rng: (choice, choice)

    monkeypatch.setattr(rewind, "SEARCHES", {"first": fixed(0), "second": fixed(1)})
    grids = [grid(number, candidates=2, seeds=4) for number in range(5)]
    found = compared({("labels", 3): grids})
    gaps = []
    for number, one in enumerate(grids):
        others = np.random.default_rng(number).permutation(4)[2:]
        first, second = one.test[:, others].mean(1)
        gaps.append(first - second)
    row = found["labels, level 3: second"]
    assert row["over random"] == pytest.approx(np.mean(gaps))
    assert row["standard error"] == pytest.approx(np.std(gaps, ddof=1) / 5**0.5)
    assert row["evaluations"] == 1
    assert found["labels, level 3: first"]["over random"] == 0


def test_a_made_up_grid_has_curves_like_the_earlier_ones() -> None:
    means = {
        key: np.mean([made_up(np.random.default_rng(n))[key].test for n in range(30)], axis=(0, 2))
        for key in rewind.EARLIER
    }
    assert all(mean[-1] < mean[:9].min() for mean in means.values()), "rewinding late is harmful"
    assert means["rotnet", 21].max() < means["labels", 21].max() < means["labels", 14].max()
    one = made_up(np.random.default_rng(0), seeds=6)["labels", 14]
    assert one.held_out.shape == one.test.shape == (16, 6)
    for values, images in ((one.held_out, 299), (one.test, 597)):
        assert np.allclose(values * images / 100, np.round(values * images / 100))


def test_a_grid_is_read_from_a_sweeps_table(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "runs"))
    write(store, "rewind", "smoke", 4)
    path = Path(store.path("results/smoke/rewind.parquet"))
    table = results.from_parquet(path.read_bytes())
    grids = read(path)
    assert len(grids) == 2
    rewinds = sorted(set(table["rewind"].to_pylist()))
    for row in table.to_pylist():
        values = grids[row["task"], row["level"]]
        array = values.test if row["metric"] == "top1" else values.held_out
        assert array[rewinds.index(row["rewind"]), row["seed"]] == row["value"]
    assert {values.test.shape for values in grids.values()} == {(len(rewinds), 4)}
    path.write_bytes(results.to_parquet(table.slice(1)))
    with pytest.raises(UserError, match="a grid has two seeds or more of all rewinds"):
        read(path)


def test_a_grid_gets_the_seeds_that_it_lacks_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "grid.parquet"
    seen: list[tuple[int, int, int]] = []  # the seed, rows in the file before, its points

    def trained(name: str, scale: str, points: list[Point], root: str) -> pa.Table:
        (seed,) = {point.seed for point in points}
        seen.append((seed, len(results.from_parquet(path.read_bytes())) if path.exists() else 0, len(points)))
        records = {step.id: record(step) for step in closure(point.step for point in points)}
        return results.table(name, scale, points, records)

    monkeypatch.setattr("benchmarks.trained.trained", trained)
    for seeds in (2, 2, 3):
        rewind.record(path, seeds, "runs")
    size = seen[0][2]
    assert seen == [(0, 0, size), (1, size, size), (2, 2 * size, size)]
    assert sorted({*results.from_parquet(path.read_bytes())["seed"].to_pylist()}) == [0, 1, 2]
