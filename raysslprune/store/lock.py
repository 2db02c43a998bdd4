"""One sweep at a time on a root.

Every sweep holds a *lease*: a small file that names its holder, who rewrites it every REFRESH seconds. A lease that
was not rewritten for STALE seconds is a dead sweep's. Its age is told by the root's own clock, because hosts' clocks
differ.

On a folder a sweep also holds a ``flock``, where the file system has one. The kernel drops it when the process dies, so
that on the same machine nobody has to wait for a dead sweep's lease. Object stores know no locks, nor do some network
file systems; others have locks that another machine does not see. There the lease stands alone.

There are ways for two sweeps to think that they hold a lease, but not for long: who finds another's name in it stops.
Until then they write the same bytes (see steps.py), so what is lost is work.
"""

from __future__ import annotations

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

REFRESH = 20.0
"""Seconds from one refresh of a lease to the next."""

STALE = 60.0
"""Seconds without a refresh after which a lease's holder is taken to be dead: so long one waits after a kill -9."""

SETTLE = 1.0
"""Seconds that a lease without a flock must stand before it is believed, for those that start in the same instant."""

GLANCE = 0.05
"""Seconds after which a flock is tried a second time: ``look`` may have held it, for an instant."""


class Taken(Exception):
    """Another sweep has the root. The message is a sentence for the user."""


class Files(Protocol):
    """The files of a root, as store.steps.Store has them. Writes are atomic."""

    def read(self, name: str) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...
    def remove(self, name: str) -> None: ...
    def modified(self, name: str) -> float | None: ...


# ------------------------------------------------------------------ flock


@contextmanager
def flock(path: str, root: str) -> Iterator[str]:
    """Hold the flock of a folder, called ``root`` for people. Yields why there is none, '' where there is one.

    A dead process holds nothing. Raises Taken.
    """
    with open(path, "a+", errors="replace") as file:
        lacking = _flock(file, root)
        if not lacking:
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
        yield lacking


def _flock(file: IO[str], root: str) -> str:
    """Why the file system has no flock, '' if it is held now. Raises Taken."""
    import fcntl

    for patience in (GLANCE, 0.0):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return ""
        except BlockingIOError:
            time.sleep(patience)
        except OSError as error:  # ENOSYS, ENOLCK, EOPNOTSUPP, and whatever else a file system says that has none
            return error.strerror or str(error)
    file.seek(0)
    raise Taken(
        f"another sweep (process {file.read().strip() or 'unknown'}) is running on {root}; "
        "wait for it, or use another --root"
    )


def _is_flocked(path: str) -> bool:
    """Whether a process of this machine holds the flock of a file."""
    import fcntl

    try:
        with open(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # nobody has made it, or it can't be flocked
        return False
    return False


@cache
def machine() -> str:
    """The machine on which a flock is seen for certain: one boot of one kernel."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return platform.node()


# ------------------------------------------------------------------ lease


@contextmanager
def lease(files: Files, name: str, root: str, *, flocked: bool = False) -> Iterator[Callable[[], None]]:
    """Hold the lease ``name`` of a root, called ``root`` for people. flocked: whether its flock is held, too.

    Raises Taken. Yields a function that raises Taken once another sweep has taken the lease over, as it may when this
    one was suspended or cut off for STALE seconds; whoever works long calls it now and then.
    """
    mine = _Lease(files, name, root, flocked)
    try:
        mine.take()
        mine.refresher.start()
        yield mine.check
    finally:
        mine.give_back()
    mine.check()


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Whom a lease names. machine: where it also has the flock; '' if it has none."""

    id: str
    host: str
    process: int
    machine: str = ""

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def look(files: Files, name: str, path: str | None) -> tuple[Holder | str | None, bool]:
    """The holder of a lease, and whether it lives. Writes nothing.

    path: of the file that is flocked, None if none can be. Where the flock does not tell, the lease's age does, by this
    machine's clock.
    """
    holder = _holder(files, name)
    if path and (holder is None or (isinstance(holder, Holder) and holder.machine == machine())):
        flocked = _is_flocked(path)
        return "unknown" if flocked and holder is None else holder, flocked
    modified = files.modified(name)
    return holder, modified is not None and time.time() - modified < STALE


def _holder(files: Files, name: str) -> Holder | str | None:
    """Whom the lease names: None if there is none, a word if it can't be made out."""
    try:
        return Holder(**json.loads(files.read(name)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        return "unknown"


class _Lease:
    def __init__(self, files: Files, name: str, root: str, flocked: bool) -> None:
        self.files, self.name, self.root, self.flocked = files, name, root, flocked
        self.me = Holder(
            id=uuid.uuid4().hex, host=platform.node(), process=os.getpid(), machine=machine() if flocked else ""
        )
        self.lost_to: Holder | str | None = None
        self.refresher = threading.Thread(target=self.keep, name="lease", daemon=True)
        self._ended = threading.Event()
        self._written = False

    def take(self) -> None:
        """Raises Taken. Of several that start at once, the last to write is the one that stays."""
        holder = self.holder()
        if holder is not None and not self.is_dead(holder) and (left := STALE - self.age()) > 0:
            raise Taken(self._refusal(holder, left))
        self.write()
        if self.flocked:
            return
        time.sleep(SETTLE)
        holder = self.holder()
        if holder != self.me:
            raise Taken(self._refusal(holder or "unknown", STALE))

    def is_dead(self, holder: Holder | str) -> bool:
        """Whether the holder is dead for certain: it held the flock that is held here now."""
        return isinstance(holder, Holder) and self.flocked and holder.machine == self.me.machine

    def keep(self) -> None:
        """Refresh until the end, or until the lease is another's."""
        while not self._ended.wait(REFRESH):
            with suppress(OSError):  # the store is away: it may be back the next time
                holder = self.holder()
                if holder is not None and holder != self.me:
                    self.lost_to = holder
                    return
                self.write()  # also where it is gone: nobody else has it

    def check(self) -> None:
        """Raise Taken if another sweep has the lease."""
        if self.lost_to is not None:
            raise Taken(
                f"another sweep ({self.lost_to}) has taken over {self.root} while this one was suspended or cut off; "
                "every finished step is kept"
            )

    def give_back(self) -> None:
        self._ended.set()
        if self.refresher.ident is not None:
            self.refresher.join(5)
        if not self._written or self.refresher.is_alive():  # the store is away: the lease will be stale by itself
            return
        with suppress(OSError):
            if self.holder() == self.me:
                self.files.remove(self.name)

    def holder(self) -> Holder | str | None:
        return _holder(self.files, self.name)

    def age(self) -> float:
        """Seconds since the last refresh, by the root's clock: compared with a file that is written now."""
        probe = f"probe-{uuid.uuid4().hex}"
        self.files.write(probe, b"probe")
        now, then = self.files.modified(probe), self.files.modified(self.name)
        self.files.remove(probe)
        if then is None or now is None:  # given back a moment ago
            return STALE
        return now - then

    def write(self) -> None:
        self._written = True
        self.files.write(self.name, json.dumps(vars(self.me)).encode())

    def _refusal(self, holder: Holder | str, left: float) -> str:
        return (
            f"another sweep ({holder}) is running on {self.root}; wait for it, or use another --root; "
            f"if it was killed, the same command goes on in {max(1, round(left))} s"
        )
