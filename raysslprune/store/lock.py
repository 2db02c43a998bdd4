"""Lock a root for one sweep at a time.

Every sweep holds a *lease*: a small file that names its holder, who rewrites it every REFRESH seconds. A lease that
was not rewritten for STALE seconds belongs to a dead sweep. Its age is measured by the root's own clock, because hosts'
clocks differ.

On a folder a sweep also holds a ``flock``, if the file system has one. The kernel drops it when the process dies, so
that on the same machine nobody has to wait for a dead sweep's lease. Object stores have no locks, nor do some network
file systems; others have locks that another machine does not see. There the lease is the only lock.

Two sweeps may briefly both believe that they hold a lease; one that finds another's name in it stops. Until then they
write the same bytes (see steps.py), so only work is lost.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Protocol

from raysslprune.store.record import StoreError

REFRESH = 20.0
"""Seconds from one refresh of a lease to the next."""

STALE = 60.0
"""Seconds without a refresh after which a lease's holder counts as dead: the wait after a kill -9."""

SETTLE = 1.0
"""Seconds after which a new lease without a flock is read again, in case another sweep started in the same instant."""

GLANCE = 0.05
"""Seconds after which a flock is tried a second time: ``look`` may have held it for an instant."""


class InUse(StoreError):
    """Another sweep holds the lock."""


class Files(Protocol):
    """The files of a root, as store.steps.Store gives access to them. Writes are atomic."""

    def read(self, name: str) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...
    def remove(self, name: str) -> None: ...
    def modified(self, name: str) -> float | None: ...


# ------------------------------------------------------------------ flock


@contextmanager
def flock(path: str, root: str) -> Iterator[str]:
    """Hold the flock on the file ``path``. Yield why the file system has none, '' if it is held.

    root: name of the root in messages. A process that dies loses its flock. Raises StoreError if another one holds it.
    """
    with open(path, "a+", errors="replace") as file:
        lacking = _flock(file, root)
        if not lacking:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield lacking


def _flock(file: IO[str], root: str) -> str:
    """Take the flock. Return why the file system has none, '' if it is held now. Raises StoreError."""
    for patience in (GLANCE, 0.0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return ""
        except BlockingIOError:
            time.sleep(patience)
        except OSError as error:  # ENOSYS, ENOLCK, EOPNOTSUPP, or any other error of a file system without locks
            return error.strerror or str(error)
    file.seek(0)
    holder = file.read().strip() or "unknown"
    raise InUse(f"another sweep (process {holder}) is running on {root}; wait for it, or use another --root")


def _is_flocked(path: str) -> bool:
    """Return whether a process of this machine holds the flock of a file."""
    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # it does not exist, or can't be flocked
        return False
    return False


@cache
def machine() -> str:
    """Return an id of this machine since its boot; processes with the same id certainly see each other's flocks."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return platform.node()


# ------------------------------------------------------------------ lease


@dataclass(frozen=True, kw_only=True)
class Holder:
    """The holder of a lease. machine: id of the machine on which it also holds the flock; '' if it holds none."""

    id: str
    host: str
    process: int
    machine: str = ""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}" if self.id else "unknown"


UNKNOWN = Holder(id="", host="", process=0)
"""Holder of a lease that can't be read, or of a flock without a lease."""


@contextmanager
def lease(files: Files, name: str, root: str, *, flocked: bool = False) -> Iterator[Callable[[], None]]:
    """Hold the lease ``name`` of a root, named ``root`` in messages. flocked: True if its flock is held, too.

    Yield a function that raises StoreError once another sweep has taken the lease over, as it may if this one was
    suspended or cut off for STALE seconds; call it now and then in long work. Raises StoreError while another sweep
    holds the lease.
    """
    mine = _Lease(files, name, root, flocked)
    try:
        mine.take()
        mine.refresher.start()
        yield mine.check
    finally:
        mine.give_back()
    mine.check()


def look(files: Files, name: str, path: str | None) -> tuple[Holder | None, bool]:
    """Return the holder of a lease, and whether it is alive. Write nothing.

    path: the file that is flocked; None if there are no flocks. If the flock can't decide, the lease's age does, by
    this machine's clock.
    """
    holder = _holder(files, name)
    if path and (holder is None or holder.machine == machine()):
        flocked = _is_flocked(path)
        return holder or (UNKNOWN if flocked else None), flocked
    modified = files.modified(name)
    return holder, modified is not None and time.time() - modified < STALE


def _holder(files: Files, name: str) -> Holder | None:
    """Return the holder that the lease names, None if there is no lease."""
    try:
        return Holder(**json.loads(files.read(name)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return UNKNOWN


class _Lease:
    def __init__(self, files: Files, name: str, root: str, flocked: bool) -> None:
        self.files, self.name, self.root = files, name, root
        self.me = Holder(
            id=uuid.uuid4().hex, host=platform.node(), process=os.getpid(), machine=machine() if flocked else ""
        )
        self.lost_to: Holder | None = None
        self.refresher = threading.Thread(target=self.keep, name="lease", daemon=True)
        self._ended = threading.Event()
        self._written = False

    def take(self) -> None:
        """Take the lease. If several sweeps start at once, the last to write keeps it. Raises StoreError."""
        flocked = bool(self.me.machine)
        holder = _holder(self.files, self.name)
        if holder is not None and flocked and holder.machine == self.me.machine:
            holder = None  # it is dead: it had the flock, which this process has now
        if holder is not None and (left := STALE - self.age()) > 0:
            raise InUse(self._refusal(holder, left))
        self.write()
        if flocked:
            return
        time.sleep(SETTLE)
        holder = _holder(self.files, self.name)
        if holder != self.me:
            raise InUse(self._refusal(holder or UNKNOWN, STALE))

    def keep(self) -> None:
        """Refresh the lease until the end, or until another sweep has it."""
        while not self._ended.wait(REFRESH):
            with suppress(OSError):  # the store is unreachable: it may be back the next time
                holder = _holder(self.files, self.name)
                if holder is not None and holder != self.me:
                    self.lost_to = holder
                    return
                self.write()  # even if it is gone: nobody else has it

    def check(self) -> None:
        """Raise StoreError if another sweep has the lease."""
        if self.lost_to is not None:
            raise StoreError(
                f"another sweep ({self.lost_to}) has taken over {self.root} while this one was suspended or cut off; "
                "every finished step is kept"
            )

    def give_back(self) -> None:
        self._ended.set()
        if self.refresher.ident is not None:
            self.refresher.join(5)
        if not self._written or self.refresher.is_alive():  # the store is unreachable: the lease will become stale
            return
        with suppress(OSError):
            if _holder(self.files, self.name) == self.me:
                self.files.remove(self.name)

    def age(self) -> float:
        """Return the seconds since the last refresh, by the root's clock: compare with a file that is written now."""
        probe = f"probe-{uuid.uuid4().hex}"
        self.files.write(probe, b"probe")
        now, then = self.files.modified(probe), self.files.modified(self.name)
        self.files.remove(probe)
        return STALE if then is None or now is None else now - then  # None: released a moment ago

    def write(self) -> None:
        self._written = True
        self.files.write(self.name, json.dumps(vars(self.me)).encode())

    def _refusal(self, holder: Holder, left: float) -> str:
        return (
            f"another sweep ({holder}) is running on {self.root}; wait for it, or use another --root; "
            f"if it was killed, retry in {max(1, round(left))} s"
        )
