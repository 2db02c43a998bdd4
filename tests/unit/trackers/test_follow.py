"""Steps on their way to a tracker that may be away."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from raysslprune.messages import UserError
from raysslprune.store.record import Record
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep, load
from raysslprune.trackers import follow
from raysslprune.trackers.runs import Run

NAME = "mlflow:http://there"


class Memory:
    """A tracker that keeps the ids of its runs. away: how many calls fail first."""

    def __init__(self, away: int = 0, breaks_at: int = -1) -> None:
        self.added: list[str] = []
        self.away, self.breaks_at = away, breaks_at

    def known(self) -> set[str]:
        if self.away:
            self.away -= 1
            raise ConnectionError("behind\nit") from OSError("refused")
        return set(self.added)

    def add(self, run: Run) -> None:
        if len(self.added) == self.breaks_at:
            self.breaks_at = -1
            raise OSError("cut")
        self.added.append(run.step)


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "EVERY", 0.02)


@pytest.fixture
def sweep() -> Sweep:
    return load("fig6", "smoke", 1)


def finished(sweep: Sweep) -> dict[str, Record]:
    return {point.step.id: Record(step="", files={}, metrics={"top1": 1.0}, facts={}) for point in sweep.points}


def follower(tracker: Memory, sweep: Sweep, notes: list[str]) -> follow.Follower:
    return follow.Follower(NAME, tracker, [sweep], "smoke", lambda: finished(sweep), notes.append)


def test_each_step_is_sent_once_by_any_number_of_commands(sweep: Sweep) -> None:
    tracker, notes = Memory(), list[str]()
    for _ in range(3):
        with follower(tracker, sweep, notes).following():
            pass
    assert tracker.added == list(finished(sweep))
    assert notes == []


def test_a_tracker_that_comes_back_has_all(sweep: Sweep) -> None:
    tracker, notes = Memory(away=2, breaks_at=1), list[str]()
    with follower(tracker, sweep, notes).following():
        while len(tracker.added) < len(finished(sweep)):
            pass
    assert sorted(tracker.added) == sorted(finished(sweep))
    assert notes == [f"{NAME} can't be reached (refused); the sweep goes on and tries again"]


def test_one_that_stays_away_is_named_once_and_again_at_the_end(sweep: Sweep) -> None:
    tracker, notes = Memory(away=10**9), list[str]()
    with follower(tracker, sweep, notes).following():
        while not notes:
            pass
    assert notes == [
        f"{NAME} can't be reached (refused); the sweep goes on and tries again",
        f"{NAME} may lack {len(finished(sweep))} finished steps (refused); the next command with --track sends them",
    ]


def test_an_error_of_the_sweep_goes_through(sweep: Sweep) -> None:
    with pytest.raises(ZeroDivisionError), follower(Memory(), sweep, []).following():
        raise ZeroDivisionError


@pytest.mark.parametrize("text", ["mlflow", "mlflow:", "tensorboard:x", ""])
def test_what_is_no_tracker_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no tracker; known: mlflow:ADDRESS"):
        follow.checked(text)


@pytest.mark.parametrize("where", ["file:runs", "file:///tmp/runs", "./mlruns", "/tmp/mlruns"])
def test_a_folder_is_no_address_for_mlflow(where: str) -> None:
    """MLflow refuses folders itself, later and with an exception of its own."""
    with pytest.raises(ValueError, match="is not an address for MLflow: http://HOST:PORT of a server, or sqlite:///F"):
        follow.checked(f"mlflow:{where}")


@pytest.mark.parametrize("where", ["http://localhost:5000", "https://x.org/y", "sqlite:///runs.db", "databricks"])
def test_addresses_for_mlflow(where: str) -> None:
    assert follow.checked(f"mlflow:{where}") == f"mlflow:{where}"


def test_wandb_needs_a_folder() -> None:
    with pytest.raises(UserError, match="--track wandb: needs a root that is a folder"):
        follow.opened(
            "wandb:mine", Store("s3://bucket/runs?endpoint_override=localhost:1&scheme=http&region=us-east-1")
        )


def test_a_library_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "raysslprune.trackers.mlflow", raising=False)
    with pytest.raises(UserError, match="--track mlflow: needs mlflow-skinny; to install it: pip install mlflow-skinn"):
        follow.opened(NAME, Store(str(tmp_path)))
