"""Merging roots: what is copied, what is refused, and that an interruption leaves whole steps only."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from pyarrow import fs

from raysslprune.spec import Final, Prune, Step, Train
from raysslprune.store.merge import (
    BEHIND,
    COMPLETED,
    CONFLICT,
    COPIED,
    DAMAGED,
    REPLACED,
    THERE,
    Outcome,
    counted,
    difference,
    merge,
)
from raysslprune.store.record import WEIGHTS, Record
from raysslprune.store.steps import Store
from tests.helpers.object_store import object_store
from tests.helpers.steps import FACTS, METRICS, commit, files_of, made, prune, train

PLACES = [("path", "path"), ("path", "objects"), ("objects", "path")]


def ticket(seed: int = 0) -> Train:
    """A training under the mask of another."""
    return replace(train(seed), mask=prune(seed))


@pytest.fixture(params=PLACES, ids=lambda pair: "-to-".join(pair))
def roots(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Store]:
    """Two empty roots: one to copy from, one to copy to."""
    one, two = request.param
    return at(one, tmp_path / "from"), at(two, tmp_path / "into")


def at(kind: str, path: Path) -> Store:
    return made(path) if kind == "path" else object_store()


def kinds(outcomes: list[Outcome]) -> dict[str, str]:
    return {one.step: one.kind for one in outcomes}


def never(*_: object) -> None:
    """Stands for a lock that nobody takes over."""


def contents(store: Store, step: Step) -> dict[str, bytes]:
    return {name: store.read(f"steps/{step.id}/{name}") for name in store.listing().get(step.id, {})}


def test_finished_steps_are_copied_byte_for_byte_and_unfinished_ones_are_not(roots: tuple[Store, Store]) -> None:
    source, into = roots
    for step in (train(), prune(), ticket()):
        commit(source, step)
    commit(into, train(1))
    source.write(f"steps/{train(2).id}/spec.json", b"{}")
    source.save_checkpoint(train(2).id, b"checkpoint")
    before = contents(into, train(1))
    assert kinds(merge(source, into, never)) == dict.fromkeys((train().id, prune().id, ticket().id), COPIED)
    for step in (train(), prune(), ticket()):
        assert contents(into, step) == contents(source, step)
        assert contents(into, step).keys() == {*files_of(step), "spec.json", "SUCCESS"}
        assert into.step(step.id) == step
    assert contents(into, train(1)) == before
    assert into.listing().keys() == {train().id, prune().id, ticket().id, train(1).id}
    assert into.checkpoints() == {}
    assert set(kinds(merge(source, into, never)).values()) == {THERE}


def test_a_run_elsewhere_with_the_same_results_is_the_same_step(roots: tuple[Store, Store]) -> None:
    source, into = roots
    source.commit(train(), files_of(train()), {"top1": math.nan}, {**FACTS, "seconds": 99.0, "host": "elsewhere"})
    into.commit(train(), files_of(train()), {"top1": math.nan}, FACTS)
    before = contents(into, train())
    assert kinds(merge(source, into, never)) == {train().id: THERE}
    assert contents(into, train()) == before


def test_files_that_the_other_root_has_kept_are_added(roots: tuple[Store, Store]) -> None:
    source, into = roots
    commit(source, train())
    fewer = {name: data for name, data in files_of(train()).items() if name != WEIGHTS}
    into.commit(train(), fewer, METRICS, {**FACTS, "seconds": 7.0})
    assert kinds(merge(source, into, never)) == {train().id: COMPLETED}
    assert into.artefact(train().id, WEIGHTS) == files_of(train())[WEIGHTS]
    record = into.record(train().id)
    assert record is not None
    assert record.facts["seconds"] == 7.0, "the run is still that of this root"
    assert kinds(merge(into, source, never)) == {train().id: THERE}


@pytest.mark.parametrize("what", ["metrics", "weights"])
def test_other_results_stay_out_and_so_does_what_was_made_from_them(roots: tuple[Store, Store], what: str) -> None:
    source, into = roots
    for step in (train(), prune(), ticket(), train(1), prune(1)):
        commit(source, step)
    files = files_of(train()) if what == "metrics" else {**files_of(train()), WEIGHTS: b"other"}
    into.commit(train(), files, {**METRICS, "top1": 98.0} if what == "metrics" else METRICS, FACTS)
    before = contents(into, train())
    outcomes = merge(source, into, never)
    assert kinds(outcomes) == {
        train().id: CONFLICT,
        prune().id: BEHIND,
        ticket().id: BEHIND,
        train(1).id: COPIED,
        prune(1).id: COPIED,
    }
    (why,) = (one.why for one in outcomes if one.kind == CONFLICT)
    assert why == ("top1 is 98.0 and 98.5" if what == "metrics" else "weights.safetensors differs")
    assert contents(into, train()) == before
    assert into.listing().keys() == {train().id, train(1).id, prune(1).id}


def test_what_descends_from_a_step_that_both_have_alike_is_copied(roots: tuple[Store, Store]) -> None:
    """The mask is the same in both roots, so it does not matter that its training differs."""
    source, into = roots
    for step in (train(), prune(), ticket()):
        commit(source, step)
    into.commit(train(), files_of(train()), {**METRICS, "top1": 98.0}, FACTS)
    commit(into, prune())
    transfer = replace(train(5), start=Final(of=train()))
    commit(source, transfer)
    assert kinds(merge(source, into, never)) == {
        train().id: CONFLICT,
        prune().id: THERE,
        ticket().id: BEHIND if train() in ticket().parents else COPIED,
        transfer.id: BEHIND,
    }


SPOILT: dict[str, Callable[[Store], None]] = {
    "weights": lambda store: store.write(f"steps/{train().id}/{WEIGHTS}", files_of(train(1))[WEIGHTS]),
    "success": lambda store: store.write(f"steps/{train().id}/SUCCESS", b"{}"),
    "spec": lambda store: store.write(f"steps/{train().id}/spec.json", b"[]"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_damaged_step_is_not_copied(roots: tuple[Store, Store], spoilt: str) -> None:
    source, into = roots
    for step in (train(), prune(), train(1)):
        commit(source, step)
    SPOILT[spoilt](source)
    outcomes = merge(source, into, never)
    assert kinds(outcomes) == {train().id: DAMAGED, prune().id: COPIED, train(1).id: COPIED}
    assert all(one.why for one in outcomes if one.kind == DAMAGED)
    assert train().id not in into.listing()


def test_damage_that_only_reading_shows_is_found_while_copying(
    roots: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Roots of more than a GiB are not read as a whole beforehand."""
    monkeypatch.setattr("raysslprune.store.steps.MAX_VERIFIED", 0)
    source, into = roots
    commit(source, train())
    SPOILT["weights"](source)
    assert kinds(merge(source, into, never)) == {train().id: DAMAGED}
    assert train().id not in into.listing()


@pytest.mark.parametrize("spoilt", SPOILT)
def test_a_damaged_step_of_the_merged_root_is_replaced(roots: tuple[Store, Store], spoilt: str) -> None:
    source, into = roots
    for store in roots:
        commit(store, train())
    SPOILT[spoilt](into)
    assert kinds(merge(source, into, never)) == {train().id: REPLACED}
    assert contents(into, train()) == contents(source, train())
    aside = into.fs.get_file_info(fs.FileSelector(f"{into.base}/damaged"))
    assert [info.base_name.rpartition("-")[0] for info in aside] == [train().id]


def test_an_interruption_leaves_whole_steps_and_parents_first(tmp_path: Path) -> None:
    source = made(tmp_path / "from")
    for step in (train(), prune(), ticket()):
        commit(source, step)
    writes = len(merge_counting_writes(source, made(tmp_path / "whole"), stop_at=10**6))
    assert writes > 8
    for stop in range(1, writes):
        into = made(tmp_path / f"into-{stop}")
        merge_counting_writes(source, into, stop)
        done = {step for step, files in into.listing().items() if "SUCCESS" in files}
        assert done in (set(), {train().id}, {train().id, prune().id})
        records, damaged = into.survey(done)
        assert records.keys() == done
        assert not damaged
        merge(source, into, never)
        assert all(contents(into, step) == contents(source, step) for step in (train(), prune(), ticket()))


def merge_counting_writes(source: Store, into: Store, stop_at: int) -> list[str]:
    """Merge until that many files are written, then fail as a full disk does; return the names of these files."""
    written: list[str] = []
    write = into.write

    def counted_write(name: str, data: bytes) -> None:
        if len(written) >= stop_at:
            raise OSError(28, "No space left on device")
        written.append(name)
        write(name, data)

    into.write = counted_write  # pyright: ignore[reportAttributeAccessIssue]
    with suppress(OSError):
        merge(source, into, never)
    into.write = write  # pyright: ignore[reportAttributeAccessIssue]
    return written


def test_who_takes_the_root_over_ends_it(tmp_path: Path) -> None:
    source, into = made(tmp_path / "from"), made(tmp_path / "into")
    commit(source, train())

    def lost() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        merge(source, into, lost)
    assert into.listing() == {}


def test_contents_differ_where_both_have_something(tmp_path: Path) -> None:
    one = commit(made(tmp_path), train())
    assert difference(one, replace(one, facts={})) == ""
    assert difference(one, replace(one, files={})) == ""
    assert difference(one, replace(one, metrics={"top1": 98.5})) == "density is 1.0 and null"
    other: Record = replace(one, files={**one.files, "more": one.files[WEIGHTS]})
    assert difference(one, other) == ""


def test_outcomes_are_counted_in_order() -> None:
    some = [Outcome(step=str(number), kind=kind) for number, kind in enumerate((DAMAGED, COPIED, DAMAGED))]
    assert list(counted(some).items()) == [(COPIED, 1), (DAMAGED, 2)]


def test_masks_of_the_start_depend_on_what_their_training_starts_from(roots: tuple[Store, Store]) -> None:
    """Such a mask does not read its training, which may be nowhere; but it does depend on that training's start."""
    source, into = roots
    untrained = replace(train(1), start=Final(of=train()))
    mask = Prune(of=untrained, keep=0.5, criterion="snip", at=0)
    for step in (train(), mask):
        commit(source, step)
    into.commit(train(), files_of(train()), {**METRICS, "top1": 98.0}, FACTS)
    assert kinds(merge(source, into, never)) == {train().id: CONFLICT, mask.id: BEHIND}
