"""The store: a step is done when SUCCESS says so, and nothing damaged is ever taken for good."""

from __future__ import annotations

import errno
import inspect
import json
import os
import pickle
import resource
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysslprune.spec import Step, to_plain
from raysslprune.store import steps as module
from raysslprune.store.record import MASK, WEIGHTS, Damaged, File, Record
from raysslprune.store.steps import INDEX, Store
from tests.helpers import CHECKOUT
from tests.helpers.bomb import Bomb
from tests.helpers.object_store import object_store
from tests.helpers.steps import FACTS, METRICS, SNAPSHOT, commit, files_of, made, prune, refusal, train


def every_file(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=["path", "uri", "objects"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A store at a path, at a file:// address, and on an object store."""
    root = tmp_path / "runs"
    match request.param:
        case "path":
            return made(root)
        case "uri":
            return made(root.as_uri())
        case _:
            return object_store()


# ------------------------------------------------------------------------------------- commit and read


def test_a_committed_step_comes_back(anywhere: Store) -> None:
    step, mask, other = train(), prune(), train(1)
    assert anywhere.survey([step.id, mask.id]) == ({}, [])
    written = commit(anywhere, step)
    commit(anywhere, mask)

    records, damaged = anywhere.survey([step.id, mask.id, other.id])
    assert damaged == []
    assert set(records) == {step.id, mask.id}
    for record in (records[step.id], anywhere.record(step.id), written):
        assert record is not None
        assert (record.step, record.metrics, record.facts) == (step.id, METRICS, FACTS)
        assert set(record.files) == {"spec.json", WEIGHTS, SNAPSHOT}
        assert record.files[WEIGHTS].size == len(files_of(step)[WEIGHTS])
    for name, data in files_of(step).items():
        assert anywhere.artefact(step.id, name) == data
    assert anywhere.artefact(mask.id, MASK) == files_of(mask)[MASK]
    assert json.loads(anywhere.artefact(step.id, "spec.json")) == to_plain(step)
    assert anywhere.survey([other.id]) == ({}, [])
    assert anywhere.record(other.id) is None


def test_files_of_a_step_are_written_to_an_object_store_at_the_same_time_and_success_last(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each write waits for the two others; SUCCESS comes when all are there."""
    store, step, together = object_store(), train(), threading.Barrier(3, timeout=60)
    write, there = Store._write, list[list[str]]()

    def meets(self: Store, path: str, data: bytes) -> None:
        if path.endswith("SUCCESS"):
            there.append(sorted(name for name in (*files_of(step), "spec.json") if self.has(f"steps/{step.id}/{name}")))
        else:
            together.wait()
        write(self, path, data)

    monkeypatch.setattr(Store, "_write", meets)
    commit(store, step)
    assert there == [[SNAPSHOT, "spec.json", WEIGHTS]]
    assert store.artefact(step.id, WEIGHTS) == files_of(step)[WEIGHTS]


def test_a_file_that_can_not_be_written_leaves_a_step_unfinished(
    anywhere: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = Store._write

    def full(self: Store, path: str, data: bytes) -> None:
        if SNAPSHOT in path:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_write", full)
        with pytest.raises(OSError, match="No space left"):
            commit(anywhere, train())
    assert anywhere.record(train().id) is None
    assert anywhere.survey([train().id]) == ({}, [])
    commit(anywhere, train())
    assert set(anywhere.survey([train().id])[0]) == {train().id}


def test_what_a_step_does_not_have_is_not_made_up(anywhere: Store) -> None:
    commit(anywhere, train())
    for step_id, name in ((train().id, MASK), (train().id, "snapshot-7.safetensors"), (train(1).id, WEIGHTS)):
        with pytest.raises(Damaged) as caught:
            anywhere.artefact(step_id, name)
        assert caught.value.step_id == step_id


def test_a_step_set_aside_is_kept_and_not_done(anywhere: Store) -> None:
    """Also on an object store, where Arrow can move no folder (S3FileSystem::Move, GcsFileSystem::Move)."""
    step, other = train(), train(1)
    commit(anywhere, step)
    commit(anywhere, other)
    anywhere.write(f"steps/{step.id}/{WEIGHTS}", b"broken")
    where = anywhere.set_aside(step.id)
    assert "damaged" in where
    assert step.id in where
    name = f"damaged/{where.rpartition('/')[2]}"
    assert anywhere.read(f"{name}/{WEIGHTS}") == b"broken"
    assert anywhere.read(f"{name}/{SNAPSHOT}") == files_of(step)[SNAPSHOT]
    assert anywhere.record(step.id) is None
    records, damaged = anywhere.survey([step.id, other.id])
    assert (set(records), damaged) == ({other.id}, [])
    commit(anywhere, step)
    assert anywhere.artefact(step.id, WEIGHTS) == files_of(step)[WEIGHTS]


def test_a_step_can_be_set_aside_twice(tmp_path: Path) -> None:
    store, step = made(tmp_path / "runs"), train()
    places = set()
    for _ in range(2):
        commit(store, step)
        places.add(store.set_aside(step.id))
    assert len(places) == 2
    assert all(Path(place, "SUCCESS").is_file() for place in places)


def test_checkpoints(anywhere: Store) -> None:
    step_id = train().id
    assert anywhere.load_checkpoint(step_id) is None
    anywhere.drop_checkpoint(step_id)
    for data in (b"first", b"second, longer", b""):
        anywhere.save_checkpoint(step_id, data)
        assert anywhere.load_checkpoint(step_id) == data
    assert anywhere.survey([step_id]) == ({}, [])
    anywhere.drop_checkpoint(step_id)
    assert anywhere.load_checkpoint(step_id) is None


def test_a_damaged_checkpoint_is_ignored(tmp_path: Path) -> None:
    store, step_id = made(tmp_path / "runs"), train().id
    store.save_checkpoint(step_id, b"tensors" * 100)
    path = tmp_path / "runs" / "checkpoints" / step_id
    whole = path.read_bytes()
    flipped = [bytes([*whole[:i], whole[i] ^ 1, *whole[i + 1 :]]) for i in (0, 31, 32, len(whole) - 1)]
    for data in (b"", whole[:5], whole[:32], whole[:-1], whole + b"x", pickle.dumps("tensors"), *flipped):
        path.write_bytes(data)
        assert store.load_checkpoint(step_id) is None
    path.write_bytes(whole)
    assert store.load_checkpoint(step_id) == b"tensors" * 100


class Killed(BaseException):
    """As SIGKILL: nothing catches it."""


def interrupted_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Make the ``call``-th write from now on, counted from 0, the point where the process dies."""
    write, calls = Store.write, iter(range(1000))

    def dying(self: Store, name: str, data: bytes) -> None:
        if next(calls) == call:
            raise Killed
        write(self, name, data)

    monkeypatch.setattr(Store, "write", dying)


# ------------------------------------------------------------------------------------- SUCCESS last


@pytest.mark.parametrize("call", range(4))  # spec.json, weights, snapshot, SUCCESS
def test_an_interrupted_commit_is_not_done(call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, step = made(tmp_path / "runs"), train()
    with monkeypatch.context() as patch:
        interrupted_at(patch, call)
        with pytest.raises(Killed):
            commit(store, step)
    assert store.survey([step.id]) == ({}, [])
    assert store.record(step.id) is None
    with pytest.raises(Damaged):
        store.artefact(step.id, WEIGHTS)
    commit(store, step)
    assert set(store.survey([step.id])[0]) == {step.id}


def test_four_writes_are_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path / "runs")
    with monkeypatch.context() as patch:
        interrupted_at(patch, 4)
        commit(store, train())
    assert store.record(train().id) is not None


@pytest.mark.parametrize("call", range(4))
def test_an_interrupted_second_commit_is_never_a_mixture(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step made again with other bytes, as on another machine: the old step, or damage that is seen."""
    store, step = made(tmp_path / "runs"), train()
    commit(store, step)
    changed = {name: data[::-1] for name, data in files_of(step).items()}
    with monkeypatch.context() as patch:
        interrupted_at(patch, call)
        with pytest.raises(Killed):
            store.commit(step, changed, METRICS, FACTS)
    records, damaged = store.survey([step.id])
    assert set(records) | {damage.step_id for damage in damaged} == {step.id}
    if records:
        assert {name: store.artefact(step.id, name) for name in changed} == files_of(step)
    else:
        assert call > 1


def test_a_killed_process_leaves_only_whole_steps(tmp_path: Path) -> None:
    code = """
import sys
sys.path.insert(0, sys.argv[2])
from tests.unit.store import test_steps as t
store = t.made(sys.argv[1])
for seed in range(1_000_000):
    t.commit(store, t.train(seed))
    print(seed, flush=True)
"""
    root = tmp_path / "runs"
    child = subprocess.Popen([sys.executable, "-c", code, str(root), str(CHECKOUT)], stdout=subprocess.PIPE, text=True)
    with child:
        assert child.stdout is not None
        while (last := int(child.stdout.readline())) < 50:
            pass
        child.kill()
        last = max([last, *map(int, child.stdout.read().split())])
    steps = [train(seed) for seed in range(last + 2)]
    records, damaged = Store(str(root)).survey(step.id for step in steps)
    assert damaged == []
    assert {step.id for step in steps[: last + 1]} <= set(records)
    assert all(Store(str(root)).artefact(s.id, WEIGHTS) == files_of(s)[WEIGHTS] for s in steps if s.id in records)


def test_two_commits_of_one_step_at_once_leave_a_whole_step(tmp_path: Path) -> None:
    store, workers = made(tmp_path / "runs"), 4
    for seed in range(10):
        step = train(seed)
        files = {name: data * 200 for name, data in files_of(step).items()}
        together = threading.Barrier(workers)

        def work(
            number: int,
            step: Step = step,
            files: dict[str, bytes] = files,
            together: threading.Barrier = together,
        ) -> None:
            together.wait(10)
            Store(store.root).commit(step, files, METRICS, {**FACTS, "host": f"host{number}"})

        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(work, range(workers)))
        records, damaged = store.survey([step.id])
        assert damaged == []
        assert records[step.id].facts["host"] in {f"host{i}" for i in range(workers)}
        assert {name: store.artefact(step.id, name) for name in files} == files
    assert not [name for name in every_file(tmp_path) if name.endswith(".part")]


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return bytes([*data[:middle], data[middle] ^ 16, *data[middle + 1 :]])


def _damage(how: str, path: Path, same_of_other: Path) -> None:
    data = path.read_bytes()
    match how:
        case "truncated":
            path.write_bytes(data[:-1])
        case "halved":
            path.write_bytes(data[: len(data) // 2])
        case "longer":
            path.write_bytes(data + b"\0")
        case "bit flipped":
            path.write_bytes(_flip(data))
        case "emptied":
            path.write_bytes(b"")
        case "zeroed":
            path.write_bytes(bytes(len(data)))
        case "another step's":
            shutil.copy(same_of_other, path)
        case "deleted":
            path.unlink()
        case _:
            raise AssertionError(how)


HOWS = ["truncated", "halved", "longer", "bit flipped", "emptied", "zeroed", "another step's", "deleted"]
KINDS = [(train, "spec.json"), (train, WEIGHTS), (train, SNAPSHOT), (prune, MASK), (train, "SUCCESS")]


# ------------------------------------------------------------------------------------- damage


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize(("make", "name"), KINDS, ids=[name for _, name in KINDS])
def test_damage_is_recognised_and_set_aside(how: str, make: Callable[[int], Step], name: str, tmp_path: Path) -> None:
    store, step, other = made(tmp_path / "runs"), make(0), make(1)
    commit(store, step)
    commit(store, other)
    folder = tmp_path / "runs" / "steps" / step.id
    _damage(how, folder / name, tmp_path / "runs" / "steps" / other.id / name)

    records, damaged = store.survey([step.id, other.id])
    assert set(records) == {other.id}
    gone = name == "SUCCESS" and how == "deleted"  # then the step is simply not done
    assert [damage.step_id for damage in damaged] == ([] if gone else [step.id])
    with pytest.raises(Damaged) as caught:
        store.artefact(step.id, name)
    assert caught.value.step_id == step.id
    assert "\n" not in caught.value.why

    where = Path(store.set_aside(step.id))
    assert where.parent == tmp_path / "runs" / "damaged"
    assert where.is_dir()
    assert not folder.exists()
    assert store.record(step.id) is None
    records, damaged = store.survey([step.id, other.id])
    assert (set(records), damaged) == ({other.id}, [])
    commit(store, step)
    assert set(store.survey([step.id])[0]) == {step.id}


def test_no_bit_of_success_can_flip_unseen() -> None:
    step = train()
    files = {n: File(size=len(d), sha256=f"{len(d):064x}") for n, d in files_of(step).items()}
    whole = Record(step=step.id, metrics=METRICS, facts=FACTS, files=files).to_bytes()
    assert Record.from_bytes(whole, step.id).metrics == METRICS
    for position in range(len(whole)):
        for bit in range(8):
            data = bytearray(whole)
            data[position] ^= 1 << bit
            with pytest.raises(Damaged):
                Record.from_bytes(bytes(data), step.id)


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"3", b'"x"', b"{}", b'{"sha256": 1}', b"\xff\xfe", b"1" * 5000],
    ids=["nothing", "null", "list", "number", "text", "object", "checksum", "no text", "long number"],
)
def test_a_success_of_something_else_is_damage(data: bytes, tmp_path: Path) -> None:
    store, step = made(tmp_path / "runs"), train()
    commit(store, step)
    (tmp_path / "runs" / "steps" / step.id / "SUCCESS").write_bytes(data)
    records, damaged = store.survey([step.id])
    assert records == {}
    assert [damage.step_id for damage in damaged] == [step.id]


def test_a_whole_step_in_another_steps_place_is_damage(tmp_path: Path) -> None:
    store, step, other = made(tmp_path / "runs"), train(), train(1)
    commit(store, other)
    steps = tmp_path / "runs" / "steps"
    shutil.copytree(steps / other.id, steps / step.id)
    records, damaged = store.survey([step.id, other.id])
    assert set(records) == {other.id}
    assert [damage.step_id for damage in damaged] == [step.id]
    with pytest.raises(Damaged):
        store.artefact(step.id, WEIGHTS)


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    target = tmp_path / "executed"
    bomb = pickle.dumps(Bomb(target))
    pickle.loads(bomb)  # it does go off
    target.rmdir()

    store, step = made(tmp_path / "runs"), train()
    folder = tmp_path / "runs" / "steps" / step.id
    for name in (WEIGHTS, SNAPSHOT, "spec.json", "SUCCESS"):
        commit(store, step)
        (folder / name).write_bytes(bomb)
        records, damaged = store.survey([step.id])
        assert records == {}
        assert [damage.step_id for damage in damaged] == [step.id]
        with pytest.raises(Damaged):
            store.artefact(step.id, name)
        store.set_aside(step.id)
    store.save_checkpoint(step.id, b"x")
    (tmp_path / "runs" / "checkpoints" / step.id).write_bytes(bomb)
    assert store.load_checkpoint(step.id) is None
    assert not target.exists()


def test_a_large_store_is_verified_where_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, step = made(tmp_path / "runs"), train()
    record = commit(store, step)
    total = sum(len(data) for data in files_of(step).values()) + record.files["spec.json"].size
    path = tmp_path / "runs" / "steps" / step.id / WEIGHTS
    path.write_bytes(_flip(path.read_bytes()))
    names: list[str] = []
    read = Store.read
    monkeypatch.setattr(Store, "read", lambda self, name: names.append(name) or read(self, name))

    monkeypatch.setattr(module, "MAX_VERIFIED", total)
    records, damaged = store.survey([step.id])
    assert (records, [damage.step_id for damage in damaged]) == ({}, [step.id])

    names.clear()
    monkeypatch.setattr(module, "MAX_VERIFIED", total - 1)
    records, damaged = store.survey([step.id])
    assert (set(records), damaged) == ({step.id}, [])
    assert names == [f"steps/{step.id}/SUCCESS"]
    with pytest.raises(Damaged):
        store.artefact(step.id, WEIGHTS)

    path.unlink()  # sizes and presence are looked at all the same
    assert [damage.step_id for damage in store.survey([step.id])[1]] == [step.id]


class _Full:
    """A file system that is full after the first half of a file."""

    def __init__(self, real: Any, error: BaseException) -> None:
        self.real, self.error = real, error

    @contextmanager
    def open_output_stream(self, path: str) -> Iterator[_Full]:
        with self.real.open_output_stream(path) as self.stream:
            yield self

    def write(self, data: bytes) -> None:
        self.stream.write(data[: len(data) // 2])
        raise self.error


# ------------------------------------------------------------------------------------- writing


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "bad")])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(error: OSError, tmp_path: Path) -> None:
    store = made(tmp_path / "runs")
    store.write("results/a", b"old")
    before = every_file(tmp_path)
    store.fs = _Full(store.fs, error)
    for name in ("results/a", "results/b"):
        with pytest.raises(OSError, match=error.strerror):
            store.write(name, b"new" * 1000)
    assert every_file(tmp_path) == before


def test_a_step_on_a_full_disk_is_not_done(tmp_path: Path) -> None:
    store, step = made(tmp_path / "runs"), train()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # spec.json fits, the weights do not
    try:
        with pytest.raises(OSError, match="large"):
            commit(store, step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.survey([step.id]) == ({}, [])
    assert set(every_file(tmp_path / "runs")) == {"raysslprune.json", f"steps/{step.id}/spec.json"}


# ------------------------------------------------------------------------------------- the root


@pytest.mark.parametrize("form", ["path", "uri"])
def test_a_new_or_empty_root_becomes_ours(form: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "new", tmp_path / "deep" / "er", tmp_path / "empty"):
        root = str(folder) if form == "path" else folder.as_uri()
        assert Store(root).is_new()
        assert not (folder / "raysslprune.json").exists()
        made(root)
        assert not Store(root).is_new()
        assert set(every_file(folder)) == {"raysslprune.json"}
        made(root)
        assert set(every_file(folder)) == {"raysslprune.json"}


def test_looking_at_a_root_writes_nothing(tmp_path: Path) -> None:
    Store(str(tmp_path / "new")).is_new()
    assert list(tmp_path.iterdir()) == []


def test_a_root_that_we_made_keeps_what_it_holds(tmp_path: Path) -> None:
    commit(made(tmp_path / "runs"), train())
    (tmp_path / "runs" / "notes.txt").write_text("mine")
    before = every_file(tmp_path)
    made(tmp_path / "runs")
    assert every_file(tmp_path) == before


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "main.tex").write_text("x")
    assert "other files" in refusal(tmp_path / "thesis")
    assert every_file(tmp_path) == {"thesis/main.tex": b"x"}
    assert "other files" in refusal((tmp_path / "thesis").as_uri())


def test_a_file_for_a_root_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "is a file" in refusal(tmp_path / "file")
    refusal(tmp_path / "file" / "below")
    assert every_file(tmp_path) == {"file": b"x"}


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where not even root can make a folder")
def test_a_root_that_cannot_be_made_is_refused() -> None:
    assert "write" in refusal("/proc/raysslprune")
    assert "write" in refusal("/proc/self/raysslprune/deeper")


@pytest.mark.skipif(os.geteuid() == 0, reason="permission bits do not bind root")
def test_a_root_without_permission_is_refused(tmp_path: Path) -> None:
    made(tmp_path / "runs")
    (tmp_path / "runs").chmod(0o500)
    assert "write" in refusal(tmp_path / "runs")
    (tmp_path / "runs").chmod(0o000)
    assert "read" in refusal(tmp_path / "runs", make=False)
    (tmp_path / "runs").chmod(0o700)


@pytest.mark.parametrize("error", [PermissionError(errno.EACCES, "Permission denied"), OSError(errno.EIO, "bad disk")])
def test_a_root_that_cannot_be_read_is_refused(error: OSError, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for root, whom permission bits do not bind."""
    made(tmp_path / "runs")

    def fail(self: Store, name: str) -> bytes:
        raise error

    monkeypatch.setattr(Store, "read", fail)
    assert str(error.strerror) in refusal(tmp_path / "runs")


@pytest.mark.parametrize("marker", ['{"raysslprune": 2}', '{"raysslprune": "1"}', "{}", "[]", "null"])
def test_a_root_of_another_version_is_refused(marker: str, tmp_path: Path) -> None:
    (tmp_path / "raysslprune.json").write_text(marker)
    assert "version" in refusal(tmp_path)


@pytest.mark.parametrize("marker", [b"", b"{", b"\xff\xfe\x00"])
def test_a_root_with_a_broken_marker_is_refused(marker: bytes, tmp_path: Path) -> None:
    (tmp_path / "raysslprune.json").write_bytes(marker)
    refusal(tmp_path)
    assert every_file(tmp_path) == {"raysslprune.json": marker}


def reads_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names that a store reads from now on."""
    names: list[str] = []
    read = store.read
    monkeypatch.setattr(store, "read", lambda name: names.append(name) or read(name))
    return names


def remembered(root: Path, count: int = 20) -> list[str]:
    """So many finished steps under a root, surveyed and remembered; gives their ids."""
    store = made(root)
    ids = [commit(store, prune(seed)).step for seed in range(count)]
    store.survey(ids)
    store.remember()
    return ids


# ------------------------------------------------------------------------------------- the index


def test_what_is_remembered_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = remembered(tmp_path / "runs")
    store = Store(str(tmp_path / "runs"))
    names = reads_of(store, monkeypatch)
    records, damaged = store.survey(ids)
    assert names == [INDEX]
    assert damaged == []
    assert list(records) == ids
    assert all(records[i] == store.record(i) for i in ids)
    names.clear()
    new = commit(store, prune(99)).step
    assert set(store.survey([*ids, new])[0]) == {*ids, new}
    assert {name.split("/")[1] for name in names} == {new}  # in one process, the index is read once


@pytest.mark.parametrize("name", [MASK, "spec.json", "SUCCESS"])
def test_what_changed_since_is_looked_at(name: str, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    first, *others = remembered(root)
    path = root / "steps" / first / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    records, damaged = Store(str(root)).survey([first, *others])
    assert [damage.step_id for damage in damaged] == [first]
    assert list(records) == others
    path.unlink()
    records, damaged = Store(str(root)).survey([first, *others])
    assert [damage.step_id for damage in damaged] == ([] if name == "SUCCESS" else [first])
    assert list(records) == others


def test_a_step_made_again_is_not_the_remembered_one(tmp_path: Path) -> None:
    root, step = tmp_path / "runs", train()
    store = made(root)
    commit(store, step)
    store.survey([step.id])
    store.remember()
    store.set_aside(step.id)
    assert Store(str(root)).survey([step.id]) == ({}, [])
    store.commit(step, files_of(step), {"top1": 1.0}, FACTS)
    for _ in range(2):
        again = Store(str(root))
        assert again.survey([step.id])[0][step.id].metrics == {"top1": 1.0}
        again.remember()


@pytest.mark.parametrize("damage", ["garbage", "empty", "truncated", "another table", "a wrong record", "a folder"])
def test_a_bad_index_is_no_index(damage: str, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    ids = remembered(root)
    wanted, path = Store(str(root)).survey(ids), root / INDEX
    match damage:
        case "garbage":
            path.write_bytes(b"PAR1" + bytes(range(256)) + b"PAR1")
        case "empty":
            path.write_bytes(b"")
        case "truncated":
            path.write_bytes(path.read_bytes()[:-20])
        case "another table":
            pq.write_table(pa.table({"a": [1]}), path)
        case "a folder":
            path.unlink()
            path.mkdir()
        case _:
            table = pq.read_table(path).to_pydict()
            better = json.loads(table["success"][0]) | {"metrics": {"top1": 100.0}}
            table["success"] = [json.dumps(better).encode(), *table["success"][1:]]
            pq.write_table(pa.table(table), path)
    assert Store(str(root)).survey(ids) == wanted


def test_nothing_new_is_not_written_down(tmp_path: Path) -> None:
    ids = remembered(tmp_path / "runs")
    (tmp_path / "runs" / INDEX).unlink()
    store = Store(str(tmp_path / "runs"))
    store.remember()
    store.survey([])
    store.remember()
    assert not (tmp_path / "runs" / INDEX).exists()
    store.survey(ids[:3])
    store.remember()
    assert pq.read_table(tmp_path / "runs" / INDEX)["step"].to_pylist() == ids[:3]


def test_survey_of_a_thousand_steps_is_quick(tmp_path: Path) -> None:
    store = made(tmp_path / "runs")
    steps = [prune(seed) for seed in range(1000)]
    for step in steps:
        commit(store, step)
    begun = time.monotonic()
    records, damaged = store.survey(step.id for step in steps)
    assert (len(records), damaged) == (1000, [])
    assert time.monotonic() - begun < 10


@pytest.mark.slow
def test_a_process_that_has_read_a_table_ends_well(tmp_path: Path) -> None:
    """With Arrow's threads, about one in ten aborts at its end: all of these do with a probability of 1e-4."""
    table = pa.table({f"column {n}": pa.array(range(400)) for n in range(30)})
    pq.write_table(table, tmp_path / "table.parquet")
    read = (
        "import sys; from pathlib import Path; from raysslprune.store.steps import read_parquet; "
        "read_parquet(Path(sys.argv[1]).read_bytes())"
    )
    for _ in range(80):
        assert subprocess.run([sys.executable, "-c", read, tmp_path / "table.parquet"], check=False).returncode == 0


def test_tables_in_memory_are_read_in_one_place() -> None:
    """Which is why: see there."""
    package = Path(module.__file__).parent.parent
    reading = [path.name for path in package.rglob("*.py") if "read_table(" in path.read_text()]
    assert reading == ["steps.py"]
    assert "use_threads=False" in inspect.getsource(module.read_parquet)
