"""The store: a step is done when SUCCESS says so, and nothing damaged is ever taken for good."""

from __future__ import annotations

import errno
import fcntl
import inspect
import io
import json
import os
import pickle
import platform
import re
import resource
import shutil
import signal
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
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import fs

from raysslprune import lock
from raysslprune import store as module
from raysslprune.spec import Init, Prune, Recipe, Step, Train, to_plain
from raysslprune.store import (
    INDEX,
    MASK,
    WEIGHTS,
    Damaged,
    Record,
    Store,
    StoreError,
    snapshot_name,
    snapshots_in,
)
from raysslprune.store import LEASE as LEASE_FILE
from tests.helpers import CHECKOUT, without_flock
from tests.helpers.bomb import Bomb
from tests.helpers.processes import wait_until
from tests.helpers.without_flock import SYS_FLOCK

RECIPE = Recipe(samples=2400, batch=64, lr=0.05)
SNAPSHOT = "snapshot-1200.safetensors"
METRICS = {"top1": 98.5, "density": 1.0}
FACTS = {"seconds": 1.5, "versions": {"torch": "2"}, "resumed_at": None}


def train(seed: int = 0) -> Train:
    return Train(task="labels", data="digits", arch="conv4", recipe=RECIPE, seed=seed, start=Init(seed=seed))


def prune(seed: int = 0) -> Prune:
    return Prune(of=train(seed), keep=0.8)


def files_of(step: Step) -> dict[str, bytes]:
    """Files of the same sizes and other bytes for each step of a kind."""
    body = step.id.encode() * 64
    return {WEIGHTS: b"w" + body, SNAPSHOT: b"s" + body} if isinstance(step, Train) else {MASK: b"m" + body}


def commit(store: Store, step: Step) -> Record:
    return store.commit(step, files_of(step), METRICS, FACTS)


def made(root: Path | str) -> Store:
    store = Store(str(root))
    store.create()
    return store


def every_file(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# ------------------------------------------------------------------ an object store, as S3 and GCS look through pyarrow


class _Upload(io.BytesIO):
    """Bytes that become visible when the stream is closed."""

    def __init__(self, publish: Callable[[bytes], None]) -> None:
        super().__init__()
        self.publish = publish

    def close(self) -> None:
        if not self.closed:
            self.publish(self.getvalue())
        super().close()


class ObjectStore(fs.FileSystemHandler):
    """Keys and bytes in memory. Like Arrow's S3 and GCS: folders need not be made, and can't be moved."""

    def __init__(self) -> None:
        self.keys: dict[str, bytes] = {}
        self.times: dict[str, float] = {}
        self.clock: Callable[[], float] = time.time

    def get_type_name(self) -> str:
        return "objects"

    def normalize_path(self, path: str) -> str:
        return path

    def _info(self, path: str) -> fs.FileInfo:
        if path in self.keys:
            return fs.FileInfo(path, fs.FileType.File, size=len(self.keys[path]), mtime=self.times[path])
        below = any(key.startswith(f"{path}/") for key in self.keys)
        return fs.FileInfo(path, fs.FileType.Directory if below else fs.FileType.NotFound)

    def get_file_info(self, paths: list[str]) -> list[fs.FileInfo]:
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        base = f"{selector.base_dir}/"
        below = [key for key in sorted(self.keys) if key.startswith(base)]
        if not below and not selector.allow_not_found:
            raise FileNotFoundError(selector.base_dir)
        if selector.recursive:
            return [self._info(key) for key in below]
        return [self._info(base + name) for name in dict.fromkeys(key[len(base) :].split("/")[0] for key in below)]

    def create_dir(self, path: str, recursive: bool) -> None: ...

    def delete_dir(self, path: str) -> None:
        self.keys = {key: data for key, data in self.keys.items() if not key.startswith(f"{path}/")}

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self.delete_dir(path)

    def delete_root_dir_contents(self) -> None:
        self.keys = {}

    def delete_file(self, path: str) -> None:
        del self.keys[path]

    def move(self, src: str, dest: str) -> None:
        self.copy_file(src, dest)
        self.delete_file(src)

    def copy_file(self, src: str, dest: str) -> None:
        if src not in self.keys:
            raise FileNotFoundError(errno.ENOENT, f"no such key {src}")
        self.put(dest, self.keys[src])

    def put(self, path: str, data: bytes) -> None:
        self.keys[path], self.times[path] = data, self.clock()

    def open_input_stream(self, path: str) -> pa.PythonFile:
        if path not in self.keys:
            raise FileNotFoundError(errno.ENOENT, f"no such key {path}")
        return pa.PythonFile(io.BytesIO(self.keys[path]), mode="r")

    def open_input_file(self, path: str) -> pa.PythonFile:
        return self.open_input_stream(path)

    def open_output_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        return pa.PythonFile(_Upload(lambda data: self.put(path, data)), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        raise NotImplementedError


def object_store() -> Store:
    store = Store("mock:///bucket/runs")
    store.fs = fs.PyFileSystem(ObjectStore())
    store.create()
    return store


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


# ------------------------------------------------------------------ commit and read


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


# ------------------------------------------------------------------ SUCCESS last


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


# ------------------------------------------------------------------ damage


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
    files = {n: module.File(size=len(d), sha256=f"{len(d):064x}") for n, d in files_of(step).items()}
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

    monkeypatch.setattr(module, "VERIFY_AT_MOST", total)
    records, damaged = store.survey([step.id])
    assert (records, [damage.step_id for damage in damaged]) == ({}, [step.id])

    names.clear()
    monkeypatch.setattr(module, "VERIFY_AT_MOST", total - 1)
    records, damaged = store.survey([step.id])
    assert (set(records), damaged) == ({step.id}, [])
    assert names == [f"steps/{step.id}/SUCCESS"]
    with pytest.raises(Damaged):
        store.artefact(step.id, WEIGHTS)

    path.unlink()  # sizes and presence are looked at all the same
    assert [damage.step_id for damage in store.survey([step.id])[1]] == [step.id]


# ------------------------------------------------------------------ writing


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


# ------------------------------------------------------------------ the root


def refusal(root: Path | str, make: bool = True) -> str:
    """The sentence with which a root is refused."""
    with pytest.raises(StoreError) as caught:
        made(root) if make else Store(str(root)).is_new()
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert str(root) in sentence
    assert "Traceback" not in sentence
    return sentence


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


@pytest.mark.parametrize("root", ["foo://bucket/x", "http://host/x", "://x", "s3:///x", "file://relative/x"])
def test_an_address_that_is_not_known_is_refused(root: str) -> None:
    refusal(root)


def test_path_is_where_people_look(tmp_path: Path) -> None:
    assert Store(str(tmp_path)).path("results/a.png") == str(tmp_path / "results" / "a.png")
    assert Store(tmp_path.as_uri()).path("results/a.png") == str(tmp_path / "results" / "a.png")
    assert object_store().path("results/a.png") == "mock:///bucket/runs/results/a.png"


def test_a_relative_root_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = made("runs")
    commit(store, train())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.artefact(train().id, WEIGHTS) == files_of(train())[WEIGHTS]


# ------------------------------------------------------------------ one sweep at a time

HOLDER = """
import subprocess, sys, time
from raysslprune.store import Store
with Store(sys.argv[1]).lock():
    child = subprocess.Popen(["sleep", "60"], close_fds=False, stdout=subprocess.DEVNULL)  # as Ray's processes
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_a_second_sweep_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    root = str(tmp_path / "runs")
    store = made(root)
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, root], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            for _ in range(2):
                with pytest.raises(StoreError) as caught, store.lock():
                    pytest.fail("two hold the lock")
                assert re.search(rf"\b{holder.pid}\b", str(caught.value))
                assert "\n" not in str(caught.value)
            holder.kill()
            holder.wait(10)
            os.kill(child, 0)  # its child lives on, and holds nothing
            with store.lock():
                assert (tmp_path / "runs" / "lock").read_text() == str(os.getpid())
        finally:
            os.kill(child, signal.SIGKILL)


def test_the_lock_is_given_back(tmp_path: Path) -> None:
    store = made(tmp_path / "runs")
    with pytest.raises(RuntimeError, match="from within"), store.lock():
        raise RuntimeError("from within")
    with store.lock(), pytest.raises(StoreError, match=str(os.getpid())), Store(store.root).lock():
        pytest.fail("two hold the lock")
    with store.lock():
        pass
    assert not Store(store.root).is_new()


# A file system without locks: the kernel refuses flock to a process, see without_flock.py

WITHOUT_FLOCK = [sys.executable, without_flock.__file__]
ATTEMPT = """
import sys
from raysslprune.store import Store, StoreError
try:
    with Store(sys.argv[1]).lock() as held:
        print(held.lockless, file=sys.stderr)
except StoreError as error:
    sys.exit(str(error))
"""
needs_seccomp = pytest.mark.skipif(SYS_FLOCK is None, reason="the number of flock(2) is not known for this machine")


@contextmanager
def holding(root: str, *prefix: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a root, until it is killed."""
    with subprocess.Popen([*prefix, sys.executable, "-c", HOLDER, root], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            yield holder
        finally:
            holder.kill()
            os.kill(child, signal.SIGKILL)


def attempt(root: str, *prefix: str) -> tuple[int, str]:
    """Take the lock of a root in a process of its own; gives the exit code, and what was said."""
    return _run([*prefix, sys.executable, "-c", ATTEMPT, root])


def draw_table1(root: str, *prefix: str) -> tuple[int, str]:
    """The same by a sweep that trains nothing."""
    return _run([*prefix, sys.executable, "-m", "raysslprune.sweep", "table1", "--root", root])


def _run(command: list[str]) -> tuple[int, str]:
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return run.returncode, run.stderr.strip()


def age_lease(root: str, seconds: float) -> None:
    """As if the lease had been written so long ago."""
    path = os.path.join(root, "lease")
    then = time.time() - seconds
    os.utime(path, (then, then))


@needs_seccomp
@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_a_root_without_locks_has_a_lease(error: int, tmp_path: Path) -> None:
    root, prefix = str(tmp_path / "runs"), (*WITHOUT_FLOCK, str(error))
    made(root)
    with holding(root, *prefix) as holder:
        code, said = attempt(root, *prefix)
        assert code == 1
        assert re.fullmatch(
            rf"another sweep \(process {holder.pid} on {re.escape(platform.node())}\) is running on {re.escape(root)}; "
            r"wait for it, or use another --root; if it was killed, the same command goes on in (60|5\d) s",
            said,
        ), said
        holder.kill()
        holder.wait(10)
        assert attempt(root, *prefix)[0] == 1, "nobody knows yet that it is dead"
        age_lease(root, lock.STALE + 1)
        code, said = attempt(root, *prefix)
    assert (code, said) == (
        0,
        f"the file system of {root} has no locks ({os.strerror(error)}), so this sweep holds a lease; "
        "if it is killed, the root is free again 60 s later",
    )
    assert not (tmp_path / "runs" / "lease").exists()


@needs_seccomp
def test_a_sweep_says_that_its_root_has_no_locks(tmp_path: Path) -> None:
    root, prefix = str(tmp_path / "runs"), (*WITHOUT_FLOCK, str(errno.ENOLCK))
    code, said = draw_table1(root, *prefix)
    assert code == 0
    assert said.startswith(f"raysslprune: the file system of {root} has no locks (No locks available), so ")
    assert "\n" not in said
    with holding(root, *prefix):
        code, said = draw_table1(root, *prefix)
    assert code == 1
    assert said.startswith("raysslprune: another sweep (process ")
    assert "\n" not in said


@needs_seccomp
@pytest.mark.slow
def test_a_root_without_locks_is_free_a_minute_after_a_kill(tmp_path: Path) -> None:
    root, prefix = str(tmp_path / "runs"), (*WITHOUT_FLOCK, str(errno.ENOLCK))
    made(root)
    with holding(root, *prefix) as holder:
        time.sleep(lock.REFRESH + 5)
        assert attempt(root, *prefix)[0] == 1
        holder.kill()
        holder.wait(10)
    killed, refusals = time.monotonic(), 0
    while attempt(root, *prefix)[0] == 1:
        refusals += 1
        assert time.monotonic() - killed < lock.STALE + 10
        time.sleep(1)
    assert refusals


@needs_seccomp
@pytest.mark.parametrize("first_has_locks", [True, False], ids=["first", "second"])
def test_one_that_has_locks_and_one_that_has_none_exclude_each_other(first_has_locks: bool, tmp_path: Path) -> None:
    """As two machines that mount one file system in different ways."""
    root, without = str(tmp_path / "runs"), (*WITHOUT_FLOCK, str(errno.ENOSYS))
    first, second = ((), without) if first_has_locks else (without, ())
    made(root)
    with holding(root, *first) as holder:
        code, err = attempt(root, *second)
        assert code == 1
        assert f"process {holder.pid} on " in err
        holder.kill()
        holder.wait(10)
        code, err = attempt(root, *second)
        assert code == 1, "nobody knows yet that it is dead"
        age_lease(root, lock.STALE + 1)
        assert attempt(root, *second)[0] == 0


@pytest.mark.parametrize(("machine", "free"), [("another", False), (lock.machine(), True)], ids=["another", "this"])
def test_a_flock_frees_the_lease_of_a_dead_sweep_of_this_machine_only(machine: str, free: bool, tmp_path: Path) -> None:
    """Another machine may have locks of its own, that are not seen here."""
    store = made(tmp_path / "runs")
    holder = {"id": "f" * 32, "host": "node7", "process": 4321, "machine": machine}
    (tmp_path / "runs" / "lease").write_text(json.dumps(holder))
    if free:
        with store.lock() as held:
            assert held.lockless == ""
    else:
        with pytest.raises(StoreError, match="process 4321 on node7"), store.lock():
            pytest.fail("two hold the lock")


def test_a_look_at_the_lock_does_not_refuse_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = made(tmp_path / "runs")
    path = tmp_path / "runs" / "lock"
    assert lock.look(store, LEASE_FILE, str(path)) == (None, False)
    with store.lock():
        holder, alive = lock.look(store, LEASE_FILE, str(path))
        assert isinstance(holder, lock.Holder)
        assert (holder.process, alive) == (os.getpid(), True)
    with path.open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)  # for as long as the look takes
        monkeypatch.setattr(lock.time, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
        with store.lock():
            pass


@pytest.fixture
def leased(monkeypatch: pytest.MonkeyPatch) -> tuple[Store, ObjectStore]:
    """An object store whose clock stands still, an hour behind, and a lease with short waits."""
    monkeypatch.setattr(lock, "SETTLE", 0.01)
    monkeypatch.setattr(lock, "REFRESH", 0.05)
    store = object_store()
    objects = store.fs.handler
    began = time.time() - 3600
    objects.clock = lambda: began
    return store, objects


LEASE = "bucket/runs/lock"
OTHER = json.dumps({"id": "f" * 32, "host": "node7", "process": 4321}).encode()


def test_a_lease_refuses_a_second_sweep_and_is_given_back(leased: tuple[Store, ObjectStore]) -> None:
    store, objects = leased
    before = dict(objects.keys)
    for _ in range(2):
        with store.lock():
            assert json.loads(objects.keys[LEASE])["process"] == os.getpid()
            for _ in range(2):
                with pytest.raises(StoreError) as caught, store.lock():
                    pytest.fail("two hold the lease")
                assert f"process {os.getpid()} on {platform.node()}" in str(caught.value)
                assert "mock:///bucket/runs;" in str(caught.value)
                assert "in 60 s" in str(caught.value)
                assert "\n" not in str(caught.value)
        assert objects.keys == before, "neither lease nor probes are left"
    with pytest.raises(RuntimeError, match="from within"), store.lock():
        raise RuntimeError("from within")
    assert objects.keys == before


def test_a_lease_is_stale_by_the_stores_own_clock(leased: tuple[Store, ObjectStore]) -> None:
    store, objects = leased
    began = objects.clock()
    objects.put(LEASE, OTHER)
    for later, left in ((0, 60), (59, 1), (59.9, 1)):
        objects.clock = lambda later=later: began + later
        with pytest.raises(StoreError, match=rf"process 4321 on node7.* in {left} s$"), store.lock():
            pytest.fail("two hold the lease")
        assert objects.keys[LEASE] == OTHER
    objects.clock = lambda: began + 60
    with store.lock():
        assert json.loads(objects.keys[LEASE])["process"] == os.getpid()
    assert LEASE not in objects.keys


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"{}", b"\xff", b'{"id": "x"}'])
def test_a_lease_that_cannot_be_made_out_is_somebodys(data: bytes, leased: tuple[Store, ObjectStore]) -> None:
    store, objects = leased
    objects.put(LEASE, data)
    with pytest.raises(StoreError, match="unknown"), store.lock():
        pytest.fail("two hold the lease")
    began = objects.clock()
    objects.clock = lambda: began + 61
    with store.lock():
        assert objects.keys[LEASE] != data


def test_a_lease_is_refreshed_also_where_it_was_deleted(leased: tuple[Store, ObjectStore]) -> None:
    store, objects = leased
    with store.lock():
        mine, began = objects.keys[LEASE], objects.clock()
        objects.clock = lambda: began + 20
        wait_until(lambda: objects.times[LEASE] == began + 20, 5)
        objects.delete_file(LEASE)
        wait_until(lambda: objects.keys.get(LEASE) == mine, 5)
    assert LEASE not in objects.keys
    time.sleep(0.2)
    assert LEASE not in objects.keys, "nothing refreshes it after the end"


def test_a_store_that_is_away_for_a_moment_loses_no_lease(
    leased: tuple[Store, ObjectStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, objects = leased
    tried: list[str] = []

    def away(path: str) -> pa.PythonFile:
        tried.append(path)
        raise OSError("no route to host")

    with store.lock():
        began = objects.clock()
        with monkeypatch.context() as patch:
            patch.setattr(objects, "open_input_stream", away)
            wait_until(lambda: len(tried) >= 3, 5)
        objects.clock = lambda: began + 20
        wait_until(lambda: objects.times[LEASE] == began + 20, 5)
    assert LEASE not in objects.keys


def test_a_store_that_is_away_at_the_end_hides_no_error(
    leased: tuple[Store, ObjectStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, objects = leased

    def away(path: str) -> pa.PythonFile:
        raise OSError("no route to host")

    def work() -> None:
        monkeypatch.setattr(objects, "open_input_stream", away)
        raise RuntimeError("from within")

    with pytest.raises(RuntimeError, match="from within"), store.lock():
        work()
    assert LEASE in objects.keys, "to be stale in a minute"


def test_a_sweep_whose_lease_was_taken_over_is_stopped(leased: tuple[Store, ObjectStore]) -> None:
    """Whoever works long asks now and then, from whichever thread."""
    store, objects = leased

    def work() -> None:
        with store.lock() as held:
            held.check()
            objects.put(LEASE, OTHER)
            end = time.monotonic() + 10
            while time.monotonic() < end:
                held.check()
            pytest.fail("not told")

    with ThreadPoolExecutor(1) as pool, pytest.raises(StoreError) as caught:
        pool.submit(work).result()
    assert "process 4321 on node7" in str(caught.value)
    assert "taken over mock:///bucket/runs" in str(caught.value)
    assert objects.keys[LEASE] == OTHER, "the lease is the other's"


def test_a_lost_lease_is_said_at_the_end_at_the_latest(leased: tuple[Store, ObjectStore]) -> None:
    store, objects = leased

    def taken() -> None:
        objects.put(LEASE, OTHER)
        time.sleep(0.3)

    with pytest.raises(StoreError, match="node7"), store.lock():
        taken()
    assert objects.keys[LEASE] == OTHER


def test_ctrl_c_stays_ctrl_c_and_gives_the_lease_back(leased: tuple[Store, ObjectStore]) -> None:
    store, objects = leased
    with pytest.raises(KeyboardInterrupt), store.lock():
        signal.raise_signal(signal.SIGINT)
    assert LEASE not in objects.keys


def test_of_two_that_write_at_once_the_last_one_stays(
    leased: tuple[Store, ObjectStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other wrote after our look, and before we looked again."""
    store, objects = leased
    sleep = time.sleep

    def other_writes(seconds: float) -> None:
        objects.put(LEASE, OTHER)
        sleep(seconds)

    monkeypatch.setattr(lock.time, "sleep", other_writes)
    with pytest.raises(StoreError, match="process 4321 on node7"), store.lock():
        pytest.fail("two hold the lease")
    assert objects.keys[LEASE] == OTHER


SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


@pytest.mark.parametrize(
    "root",
    [
        f"s3://AKIA:{SECRET}@bucket/runs",
        f"s3://AKIA:{SECRET.replace('/', '%2F')}@bucket/runs",
        f"S3://AKIA:{SECRET}@bucket/runs",
        f"s3://:{SECRET}@bucket/runs?region=us-east-1",
        f"s3://{SECRET.replace('/', '%2F')}@bucket/runs",
        f"s3://bucket/runs?region=us-east-1&secret_key={SECRET}",
        f"s3://bucket/runs?session_token={SECRET}",
        f"s3://bucket/runs?endpoint_override=http://user:{SECRET}@127.0.0.1:9",
        f"gs://user:{SECRET}@bucket/runs",
        f"abfs://account:{SECRET}@container/runs",
    ],
)
def test_credentials_in_an_address_are_refused_and_never_said(root: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store(root)
    assert SECRET[:12] not in str(caught.value)
    assert "AKIA" not in str(caught.value)
    assert "AWS_SECRET_ACCESS_KEY" in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("root", "base"),
    [
        ("s3://bucket/a@b/c:d?region=eu-west-1&endpoint_override=127.0.0.1:9&scheme=http", "bucket/a@b/c:d"),
        ("s3://bucket?region=eu-west-1", "bucket"),
        ("s3://bucket/runs/?region=eu-west-1", "bucket/runs"),
        ("gs://anonymous@bucket/keys", "bucket/keys"),
    ],
)
def test_other_addresses_are_not_taken_for_credentials(root: str, base: str) -> None:
    store = Store(root)
    assert store.base == base
    assert store.path("results/a.png") == f"{root.partition('?')[0].rstrip('/')}/results/a.png"
    assert store.address == root


# ------------------------------------------------------------------ names


@given(st.sets(st.integers(0, 10**15)))
def test_names_of_snapshots_round_trip(samples: set[int]) -> None:
    names = {WEIGHTS, MASK, "spec.json", *(snapshot_name(s) for s in samples)}
    assert snapshots_in(names) == samples
    assert len(names) == len(samples) + 3


# ------------------------------------------------------------------ the index


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
        "import sys; from pathlib import Path; from raysslprune.store import read_parquet; "
        "read_parquet(Path(sys.argv[1]).read_bytes())"
    )
    for _ in range(80):
        assert subprocess.run([sys.executable, "-c", read, tmp_path / "table.parquet"], check=False).returncode == 0


def test_tables_in_memory_are_read_in_one_place() -> None:
    """Which is why: see there."""
    package = Path(module.__file__).parent
    reading = [path.name for path in package.rglob("*.py") if "read_table(" in path.read_text()]
    assert reading == ["store.py"]
    assert "use_threads=False" in inspect.getsource(module.read_parquet)
