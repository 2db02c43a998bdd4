"""One sweep at a time on a root: locks, and leases where there are none."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest

from raysslprune.store import lock
from raysslprune.store.record import StoreError
from raysslprune.store.steps import LEASE as LEASE_FILE
from raysslprune.store.steps import Store
from tests.helpers import without_flock
from tests.helpers.object_store import ObjectStore, object_store
from tests.helpers.processes import wait_until
from tests.helpers.steps import made
from tests.helpers.without_flock import SYS_FLOCK

HOLDER = """
import subprocess, sys, time
from raysslprune.store.steps import Store
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
from raysslprune.store.steps import Store; from raysslprune.store.record import StoreError
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
            r"wait for it, or use another --root; if it was killed, retry in (60|5\d) s",
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
