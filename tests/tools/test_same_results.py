"""The proof that two roots hold the same, on roots that do not."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from raysslprune import results
from raysslprune.spec import Imported
from raysslprune.store.record import MASK, WEIGHTS
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load
from tests.helpers.chains import execute
from tests.helpers.commands import sweep
from tests.tools import same_results

STEPS = [Imported(arch="conv4", channels=1, digest=digit * 64) for digit in "01"]


def same(*arguments: str | Path) -> tuple[object, str]:
    """The script's exit code and what it printed."""
    with redirect_stdout(io.StringIO()) as printed, redirect_stderr(printed):
        try:
            code = same_results.main([str(argument) for argument in arguments])
        except SystemExit as wrong_call:
            code = wrong_call.code
    return code, printed.getvalue()


def make_root(root: Path, day: int) -> Path:
    """A root of two steps and one sweep, run on that day."""
    store = Store(str(root))
    store.create()
    for step in STEPS:
        begun = datetime(2030, 1, day, tzinfo=UTC)
        facts = {"seconds": day, "begun": begun.timestamp(), "host": f"host-{day}"}
        store.commit(step, {MASK: b"a mask", WEIGHTS: b"weights"}, {"top1": 41.5}, facts)
        row = {"step": step.id, "device": "cpu", "begun": begun, "host": f"host-{day}"}
        store.write("results/smoke/fig0-runs.parquet", results.to_parquet(pa.Table.from_pylist([row])))
    store.write("results/smoke/fig0.parquet", results.to_parquet(pa.table({"value": [1.0, 2.0]})))
    store.write("results/smoke/fig0.png", b"a picture")
    return root


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return make_root(tmp_path / "before", 1)


@pytest.fixture
def after(tmp_path: Path) -> Path:
    return make_root(tmp_path / "after", 2)


def test_two_runs_of_a_sweep_are_the_same(before: Path, after: Path) -> None:
    """Though their SUCCESS and their tables of runs are not, byte for byte."""
    code, printed = same(before, after)
    assert code == 0, printed
    for line in ("steps: 2 compared", "masks: 2 compared", "weights: 2 compared", "metrics: 2 compared"):
        assert line in printed
    assert "tables: 1 compared, 0 differ" in printed


def flip(name: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / name
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))

    return change


def other_table(root: Path) -> None:
    Store(str(root)).write("results/smoke/fig0.parquet", results.to_parquet(pa.table({"value": [1.0, 2.5]})))


def other_device(root: Path) -> None:
    row = {"step": STEPS[1].id, "device": "gpu", "begun": datetime(2030, 1, 1, tzinfo=UTC), "host": ""}
    Store(str(root)).write("results/smoke/fig0-runs.parquet", results.to_parquet(pa.Table.from_pylist([row])))


def other_metric(root: Path) -> None:
    Store(str(root)).commit(STEPS[0], {MASK: b"a mask", WEIGHTS: b"weights"}, {"top1": 41.6}, {})


def other_mask(root: Path) -> None:
    """Whole, with its checksum in SUCCESS."""
    Store(str(root)).commit(STEPS[0], {MASK: b"a Mask", WEIGHTS: b"weights"}, {"top1": 41.5}, {})


A_STEP = f"steps/{STEPS[0].id}"
CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "flipped byte in a mask": (flip(f"{A_STEP}/{MASK}"), f"masks: 2 compared, 1 differ: {STEPS[0].id}/{MASK}"),
    "other mask": (other_mask, f"masks: 2 compared, 1 differ: {STEPS[0].id}/{MASK}"),
    "flipped byte in weights": (flip(f"{A_STEP}/{WEIGHTS}"), "weights: 2 compared, 1 differ"),
    "flipped byte in a spec": (flip(f"{A_STEP}/spec.json"), "specs: 2 compared, 1 differ"),
    "flipped byte in SUCCESS": (flip(f"{A_STEP}/SUCCESS"), f"metrics: 2 compared, 1 differ: {STEPS[0].id}"),
    "other metric": (other_metric, f"metrics: 2 compared, 1 differ: {STEPS[0].id}"),
    "missing step": (lambda root: shutil.rmtree(root / A_STEP), f"1 only in one root: {STEPS[0].id} (only before)"),
    "unfinished step": (lambda root: (root / A_STEP / "SUCCESS").unlink(), "steps: 2 compared, 1 differ"),
    "missing mask": (lambda root: (root / A_STEP / MASK).unlink(), "masks: 2 compared, 1 differ"),
    "other value in a table": (other_table, "tables: 1 compared, 1 differ: results/smoke/fig0.parquet"),
    "other device": (other_device, "tables of runs: 1 compared, 1 differ: results/smoke/fig0-runs.parquet"),
    "damaged table of runs": (flip("results/smoke/fig0-runs.parquet"), "tables of runs: 1 compared, 1 differ"),
    "missing table": (lambda root: (root / "results/smoke/fig0.parquet").unlink(), "fig0.parquet (only before)"),
    "flipped byte in a figure": (flip("results/smoke/fig0.png"), "figures: 1 compared, 1 differ"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_it_fails_for_any_difference(change: str, before: Path, after: Path) -> None:
    spoil, line = CHANGES[change]
    spoil(after)
    code, printed = same(before, after)
    assert code == 1
    assert line in printed


def test_what_only_one_root_has_can_be_left_out(before: Path, after: Path) -> None:
    shutil.rmtree(after / A_STEP)
    assert same(before, after, "--only-common")[0] == 0
    flip(f"steps/{STEPS[1].id}/{MASK}")(after)
    assert same(before, after, "--only-common")[0] == 1


def test_roots_with_nothing_in_common_are_not_the_same(before: Path, after: Path) -> None:
    shutil.rmtree(after / "steps")
    (after / "steps" / "another").mkdir(parents=True)
    assert same(before, after, "--only-common")[0] == 1


def test_a_wrong_call(before: Path, tmp_path: Path) -> None:
    code, printed = same(before, tmp_path / "elsewhere")
    assert code == 2
    assert "is no root of sweeps" in printed


@pytest.mark.slow
def test_a_root_that_this_code_runs_again(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    execute((point.step for point in load("fig3", "smoke", 1).points), root)
    assert sweep("fig3", "--scale", "smoke", "--root", str(root)).code == 0
    code, printed = same(root)
    assert code == 0, printed
    assert "records, with times: 45 compared, 0 differ" in printed
    flip("results/smoke/fig3.parquet")(root)
    assert same(root)[0] == 1
