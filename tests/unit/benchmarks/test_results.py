"""Tables of roots are joined seed by seed, or refused, and then nothing is added."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from benchmarks import page
from benchmarks.results import add, join_magnitudes, mark_tried
from raysslprune import results
from raysslprune.messages import UserError
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep
from raysslprune.sweepfile import Search
from tests.helpers.results import write
from tests.helpers.search import World, points, rewind_of

Row = dict[str, Any]


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with Figure 3 at scale smoke."""
    return made(tmp_path_factory.mktemp("two"), 2)


def made(root: Path, seeds: int, *names: str) -> Path:
    for name in names or ("fig3",):
        write(Store(str(root)), name, "smoke", seeds)
    return root


def table_of(root: Path, name: str = "fig3") -> pa.Table:
    return results.from_parquet((root / f"results/smoke/{name}.parquet").read_bytes())


def rows(data: Path, name: str = "fig3") -> list[Row]:
    """Of a table in the data, without when and with what it was made."""
    found = page.read(data / f"smoke/{name}.parquet")
    assert found is not None
    return found.select(results.SCHEMA.names).to_pylist()


def changed(root: Path, to: Path, change: Callable[[list[Row]], object], name: str = "fig3") -> Path:
    """A copy of a root in which the rows of a sweep are changed."""
    shutil.copytree(root, to)
    found = table_of(root, name).to_pylist()
    change(found)
    table = pa.Table.from_pylist(found, schema=results.SCHEMA)
    (to / f"results/smoke/{name}.parquet").write_bytes(results.to_parquet(table))
    return to


def refused(root: Path, data: Path) -> str:
    """The sentence with which a root is refused; the data are then as they were."""
    before = {path: path.read_bytes() for path in data.rglob("*.parquet")}
    with pytest.raises(UserError) as error:
        add(str(root), "smoke", data)
    assert {path: path.read_bytes() for path in data.rglob("*.parquet")} == before
    sentence = str(error.value)
    assert sentence.endswith("nothing was added")
    return sentence


def test_a_seed_is_added_and_the_first_stays(two_seeds: Path, tmp_path: Path) -> None:
    one, data = made(tmp_path / "one", 1), tmp_path / "data"
    assert add(str(one), "smoke", data) == {"smoke/fig3.parquet": "written, seeds 0"}
    assert rows(data) == table_of(one).to_pylist()
    assert add(str(two_seeds), "smoke", data) == {"smoke/fig3.parquet": "written, seeds 0, 1"}
    assert rows(data) == table_of(two_seeds).to_pylist()  # as if they had been trained in one go


def test_the_same_again_and_fewer_seeds_change_nothing(two_seeds: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    add(str(two_seeds), "smoke", data)
    before = (data / "smoke/fig3.parquet").read_bytes()
    for root in (two_seeds, made(tmp_path / "one", 1)):
        assert add(str(root), "smoke", data) == {"smoke/fig3.parquet": "unchanged, seeds 0, 1"}
        assert (data / "smoke/fig3.parquet").read_bytes() == before


def test_a_table_of_an_earlier_design_whose_steps_are_the_same_is_filled_in(two_seeds: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    add(str(made(tmp_path / "one", 1)), "smoke", data)
    path = data / "smoke/fig3.parquet"
    path.write_bytes(
        results.to_parquet(results.from_parquet(path.read_bytes()).drop_columns(["label_samples", "design"]))
    )
    assert {row["label_samples"] for row in rows(data)} == {None}
    add(str(two_seeds), "smoke", data)
    assert rows(data) == table_of(two_seeds).to_pylist()


def test_each_row_has_when_and_with_what_it_was_made(two_seeds: Path, tmp_path: Path) -> None:
    add(str(two_seeds), "smoke", tmp_path)
    found = page.read(tmp_path / "smoke/fig3.parquet")
    assert found is not None
    runs = {
        row["step"]: row
        for row in results.from_parquet((two_seeds / "results/smoke/fig3-runs.parquet").read_bytes()).to_pylist()
    }
    for row in found.to_pylist():
        run = runs[row["step"]]
        assert (row["date"], row["torch"], row["device"]) == (run["begun"].date(), run["torch"], run["device"])
    assert not {"host", "seconds"} & set(found.column_names)


def test_another_step_within_a_seed_is_refused(two_seeds: Path, tmp_path: Path) -> None:
    def change(found: list[Row]) -> None:
        found[-1]["step"], found[-2]["step"] = found[-2]["step"], found[-1]["step"]

    last = table_of(two_seeds).to_pylist()[-2]
    sentence = refused(changed(two_seeds, tmp_path / "other", change), tmp_path / "data")
    assert sentence.startswith("fig3, seed 1: ")
    assert f"{last['task']} {last['init']}, level {last['level']}, top1" in sentence
    assert f"and step {last['step']} in sweeps/" in sentence


def test_another_value_within_a_seed_is_refused(two_seeds: Path, tmp_path: Path) -> None:
    def change(found: list[Row]) -> None:
        found[3]["value"] += 1e-9

    data, row = tmp_path / "data", table_of(two_seeds).to_pylist()[3]
    add(str(two_seeds), "smoke", data)
    sentence = refused(changed(two_seeds, tmp_path / "other", change), data)
    assert sentence.startswith("fig3, seed 0: ")
    assert f"has value {row['value'] + 1e-9} in " in sentence
    assert f"and {row['value']} in docs/data" in sentence


def test_missing_points_are_refused(two_seeds: Path, tmp_path: Path) -> None:
    count = len(table_of(two_seeds)) // 2
    root = changed(two_seeds, tmp_path / "other", lambda found: found.__delitem__(slice(-2, None)))
    assert refused(root, tmp_path / "data").startswith(f"fig3, seed 1: 2 of {count} points are missing in ")


def test_a_point_that_the_sweep_does_not_have_is_refused(two_seeds: Path, tmp_path: Path) -> None:
    root = changed(two_seeds, tmp_path / "other", lambda found: found[-1].update(task="clusters"))
    assert "no such point in sweeps/" in refused(root, tmp_path / "data")


def test_two_figures_of_different_runs_are_refused(two_seeds: Path, tmp_path: Path) -> None:
    """Figure 8 has the trainings of Figure 3's network, too."""
    data = tmp_path / "data"
    add(str(two_seeds), "smoke", data)
    root = made(tmp_path / "eight", 1, "fig8")
    shared = {row["step"] for row in rows(data)}
    at = next(n for n, row in enumerate(table_of(root, "fig8").to_pylist()) if row["step"] in shared)
    other = changed(root, tmp_path / "other", lambda found: found[at].update(value=50.0), "fig8")
    assert "the tables come from different runs" in refused(other, data)
    assert add(str(root), "smoke", data) == {"smoke/fig8.parquet": "written, seeds 0"}


def test_finalists_are_those_of_the_sweep(tmp_path: Path) -> None:
    sweep = Sweep(name="rewind", drawing=Search(title="", objective="top1"), claims=(), points=tuple(points()))
    world = World(tmp_path, sweep.points).run()  # it trains what halving asks for, and makes the values up
    found = [
        {"step": point.step.id, "metric": "top1", "value": made.metrics["top1"], "task": point.task}
        | {"level": point.level, "rewind": rewind_of(point)}
        for point in sweep.points
        if point.level and (made := world.store.record(point.step.id))
    ]
    mark_tried(sweep, found, "runs")
    tried = {(row["task"], row["level"], row["rewind"]) for row in found if row["tried"]}
    assert tried == set(world.studies.tried)
    assert len(tried) > 6


def test_a_search_may_lack_what_it_did_not_ask_for_and_nothing_else(tmp_path: Path) -> None:
    root, data = made(tmp_path / "runs", 2, "rewind"), tmp_path / "data"
    add(str(root), "smoke", data)
    found = page.read(data / "smoke/rewind.parquet")
    assert found is not None
    tried = [row["tried"] for row in found.to_pylist()]
    assert {True, False} == set(tried)

    def without(kind: bool) -> Path:
        at = max(n for n, was in enumerate(tried) if was is kind)
        return changed(root, tmp_path / f"without-{kind}", lambda rows: rows.pop(at), "rewind")

    assert add(str(without(False)), "smoke", tmp_path / "fewer") == {"smoke/rewind.parquet": "written, seeds 0, 1"}
    assert "rewind: the choice for " in refused(without(True), tmp_path / "none")


def magnitudes(*seeds: int, last: float = 1.0) -> pa.Table:
    rows = [
        {"panel": "", "task": "labels", "init": "SGD", "seed": seed, "rank": rank, "magnitude": size, "sparsity": 0.0}
        for seed in seeds
        for rank, size in ((0.0, 0.25), (1.0, last))
    ]
    return pa.Table.from_pylist(rows, schema=results.MAGNITUDES)


def test_magnitudes_are_joined_by_seed() -> None:
    both = join_magnitudes("fig6", magnitudes(1), magnitudes(0, 1), "runs")
    assert both.equals(magnitudes(0, 1))
    other = pa.concat_tables([magnitudes(0), magnitudes(1, last=2.0)])
    with pytest.raises(UserError, match="fig6, seed 1 has other magnitudes in runs"):
        join_magnitudes("fig6", magnitudes(0, 1), other, "runs")


def test_a_root_without_such_tables_is_refused(two_seeds: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--scale cifar10"):
        add(str(two_seeds), "cifar10", tmp_path)
