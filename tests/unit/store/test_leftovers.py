"""Steps that nothing needs: what is found, and that an interrupted deletion harms no other step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pyarrow import fs

from raysslprune.spec import Imported, Step
from raysslprune.store import leftovers
from raysslprune.store.leftovers import CHECKPOINT, MASK, TRAINING, UNFINISHED
from raysslprune.store.record import MASK as MASK_FILE
from raysslprune.store.steps import INDEX, Store
from tests.helpers.object_store import ObjectStore, object_store
from tests.helpers.steps import commit, files_of, made, prune, train

IMPORTED = Imported(arch="conv4", channels=1, digest="0" * 64)
NEEDED: tuple[Step, ...] = (train(), prune())
UNNEEDED: tuple[Step, ...] = (train(1), prune(1), train(2), prune(2))


@pytest.fixture(params=["path", "objects"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A root with all of these steps, an unfinished one, and three checkpoints."""
    store = made(tmp_path / "runs") if request.param == "path" else object_store()
    return filled(store)


def filled(store: Store) -> Store:
    for step in (*NEEDED, *UNNEEDED, IMPORTED):
        commit(store, step)
    for step in (train(0), train(1), train(3)):
        store.save_checkpoint(step.id, b"checkpoint")
    store.write(f"steps/{train(4).id}/spec.json", json.dumps({"kind": "Train"}).encode())
    store.write(f"steps/{train(5).id}/weights.safetensors", b"12345")
    store.survey(step.id for step in (*NEEDED, *UNNEEDED))
    store.remember()
    return store


def contents(store: Store) -> dict[str, bytes]:
    """Every file of the root but the index, by its name."""
    found = store.fs.get_file_info(fs.FileSelector(store.base, recursive=True))
    names = [info.path.removeprefix(f"{store.base}/") for info in found if info.is_file]
    return {name: store.read(name) for name in names if name != INDEX}


def found_in(store: Store) -> leftovers.Leftovers:
    return leftovers.find(store, {step.id for step in NEEDED})


def test_each_is_found_with_its_kind_and_its_files(store: Store) -> None:
    before, found = contents(store), found_in(store)
    kinds = {(one.step, one.kind) for one in found.unneeded}
    assert kinds == {
        *((step.id, TRAINING) for step in (train(1), train(2))),
        *((step.id, MASK) for step in (prune(1), prune(2))),
        *((step.id, UNFINISHED) for step in (train(4), train(5))),
        *((step.id, CHECKPOINT) for step in (train(1), train(3))),
    }
    assert len(found.unneeded) == len(kinds)
    for one in found.unneeded:
        folder = "checkpoints" if one.kind == CHECKPOINT else f"steps/{one.step}"
        assert one.files == {name: len(before[f"{folder}/{name}"]) for name in one.files}
        if one.kind != CHECKPOINT:
            assert {f"{folder}/{name}" for name in one.files} == {name for name in before if name.startswith(folder)}
    assert (found.imported, found.unreadable) == ([IMPORTED.id], [])
    assert contents(store) == before


def test_these_are_deleted_and_nothing_else(store: Store) -> None:
    before, found = contents(store), found_in(store)
    gone = {f"steps/{one.step}/{name}" for one in found.unneeded if one.kind != CHECKPOINT for name in one.files}
    gone |= {f"checkpoints/{step.id}" for step in (train(1), train(3))}
    leftovers.delete(store, found.unneeded, lambda: None)
    assert contents(store) == {name: data for name, data in before.items() if name not in gone}
    if store.local:
        assert {path.name for path in Path(store.base, "steps").iterdir()} == {s.id for s in (*NEEDED, IMPORTED)}
    again = found_in(store)
    assert (again.unneeded, again.imported) == ([], [IMPORTED.id])


def test_the_index_forgets_them(store: Store) -> None:
    there = Store(store.root)
    there.fs = store.fs
    leftovers.delete(there, found_in(there).unneeded, lambda: None)
    later = Store(store.root)
    later.fs = store.fs
    assert set(later._index) == {step.id for step in NEEDED}
    leftovers.delete(later, leftovers.find(later, ()).unneeded, lambda: None)  # of an index that becomes empty
    last = Store(store.root)
    last.fs = store.fs
    assert last._index == {}
    assert last.survey([train().id]) == ({}, [])


@pytest.mark.parametrize("finished", [True, False])
def test_an_imported_mask_is_never_deleted(finished: bool, store: Store) -> None:
    """Not even one whose commit was interrupted, or whose kind can't be read."""
    if not finished:
        store.remove(f"steps/{IMPORTED.id}/SUCCESS")
    store.write(f"steps/{prune(1).id}/spec.json", b"{}")  # does not match its checksum
    store.write(f"steps/{train(4).id}/spec.json", b"\xff")
    found = found_in(store)
    assert found.imported == [IMPORTED.id]
    assert {*found.unreadable} == {prune(1).id, train(4).id}
    leftovers.delete(store, found.unneeded, lambda: None)
    left = contents(store)
    assert left[f"steps/{IMPORTED.id}/{MASK_FILE}"] == files_of(IMPORTED)[MASK_FILE]
    assert left[f"steps/{prune(1).id}/{MASK_FILE}"] == files_of(prune(1))[MASK_FILE]
    assert f"steps/{train(4).id}/spec.json" in left


def test_a_lost_lock_stops_the_deletion(store: Store) -> None:
    before = contents(store)

    def lost() -> None:
        raise RuntimeError("another sweep")

    with pytest.raises(RuntimeError, match="another sweep"):
        leftovers.delete(store, found_in(store).unneeded, lost)
    assert contents(store) == before


class Interrupted(ObjectStore):
    """Deletes a folder's objects one by one, SUCCESS last, and stops after ``left`` deletions."""

    left = 10**9

    def delete_file(self, path: str) -> None:
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        super().delete_file(path)

    def delete_dir(self, path: str) -> None:
        for key in sorted((key for key in self.keys if key.startswith(f"{path}/")), reverse=True):
            self.delete_file(key)


DELETIONS = 2 * 4 + 2 * 3 + 2 + 2
"""Files of two trainings, of two masks, of two unfinished steps, and two checkpoints."""


@pytest.mark.parametrize("count", range(DELETIONS + 1))
def test_a_deletion_interrupted_anywhere_leaves_whole_steps(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "AT_ONCE", 1)
    store, handler = Store("mock:///bucket/runs"), Interrupted()
    store.fs = fs.PyFileSystem(handler)
    store.create()
    filled(store)
    before, handler.left = contents(store), count
    if count < DELETIONS:
        with pytest.raises(KeyboardInterrupt):
            leftovers.delete(store, found_in(store).unneeded, lambda: None)
    else:
        leftovers.delete(store, found_in(store).unneeded, lambda: None)
    left = contents(store)
    assert len(before) - len(left) == count
    whole = [name.split("/")[1] for name in left if name.endswith("/SUCCESS")]
    for step in whole:
        files = {name for name in before if name.startswith(f"steps/{step}/")}
        assert {name: left.get(name) for name in files} == {name: before[name] for name in files}
    assert {step.id for step in (*NEEDED, IMPORTED)} <= {*whole}
    handler.left = 10**9
    leftovers.delete(store, found_in(store).unneeded, lambda: None)  # the same again
    assert {name.split("/")[1] for name in contents(store) if name.startswith("steps/")} == {
        step.id for step in (*NEEDED, IMPORTED)
    }
