"""One sweep at a time on a root: by ``flock`` where it is local, by a lease where it is an object store.

An object store knows no locks. The lease is a small object which says who holds the root, and which its holder writes
again every REFRESH seconds; its age is told by the store's own clock, because hosts' clocks differ. There are ways for
two to think that they hold it, but not for long: who finds another's name in it stops. Until then they write the same
bytes (see store.py), so what is lost is work.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from pyarrow import fs

REFRESH = 20.0
"""Seconds from one refresh of a lease to the next."""

STALE = 60.0
"""Seconds without a refresh after which a lease's holder is taken to be dead: so long one waits after a kill -9."""

SETTLE = 1.0
"""Seconds that a lease must stand before it is believed, for those that start in the same instant."""


class Taken(Exception):
    """Another sweep has the root. The message is a sentence for the user."""


@contextmanager
def flock(path: str, root: str) -> Iterator[None]:
    """Hold the lock of a local root, called ``root`` for people. A dead process holds nothing. Raises Taken."""
    import fcntl

    with open(path, "a+", errors="replace") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise Taken(
                f"another sweep (process {file.read().strip() or 'unknown'}) is running on {root}; "
                "wait for it, or use another --root"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def lease(files: fs.FileSystem, folder: str, root: str) -> Iterator[None]:
    """Hold the lease of the root at ``folder`` of an object store, called ``root`` for people.

    Raises Taken; also later, if another sweep takes it over, which it may when this one was suspended or cut off for
    STALE seconds. The main thread is interrupted then as by Ctrl-C, so that no work is done twice for long.
    """
    mine = _Lease(files, folder, root)
    try:
        mine.take()
        mine.refresher.start()
        yield
    except KeyboardInterrupt:
        if mine.lost_to is None:
            raise
    finally:
        mine.give_back()
    if mine.lost_to is not None:
        raise Taken(
            f"another sweep ({mine.lost_to}) has taken over {root} while this one was suspended or cut off; "
            "every finished step is kept"
        )


@dataclass(frozen=True, kw_only=True)
class _Holder:
    """Who a lease names."""

    id: str
    host: str
    process: int

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class _Lease:
    def __init__(self, files: fs.FileSystem, folder: str, root: str) -> None:
        self.files, self.folder, self.root = files, folder, root
        self.path = f"{folder}/lock"
        self.me = _Holder(id=uuid.uuid4().hex, host=platform.node(), process=os.getpid())
        self.lost_to: _Holder | str | None = None
        self.refresher = threading.Thread(target=self.keep, name="lease", daemon=True)
        self.interrupts = threading.current_thread() is threading.main_thread()
        self._ended = threading.Event()
        self._written = False

    def take(self) -> None:
        """Raises Taken. Of several that start at once, the last to write is the one that stays."""
        holder = self.holder()
        if holder is not None:
            left = STALE - self.age()
            if left > 0:
                raise Taken(self._refusal(holder, left))
        self.write()
        time.sleep(SETTLE)
        holder = self.holder()
        if holder != self.me:
            raise Taken(self._refusal(holder or "unknown", STALE))

    def keep(self) -> None:
        """Refresh until the end, or until the lease is another's."""
        while not self._ended.wait(REFRESH):
            with suppress(OSError):  # the store is away: it may be back the next time
                holder = self.holder()
                if holder is not None and holder != self.me:
                    self.lost_to = holder
                    if self.interrupts and not self._ended.is_set():
                        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    return
                self.write()  # also where it is gone: nobody else has it

    def give_back(self) -> None:
        self._ended.set()
        if self.refresher.ident is not None:
            self.refresher.join(5)
        if not self._written or self.refresher.is_alive():  # the store is away: the lease will be stale by itself
            return
        with suppress(OSError):
            if self.holder() == self.me:
                self.files.delete_file(self.path)

    def holder(self) -> _Holder | str | None:
        """Whom the lease names: None where there is none, a word where it can't be made out."""
        try:
            with self.files.open_input_stream(self.path) as stream:
                return _Holder(**json.loads(stream.read()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return "unknown"

    def age(self) -> float:
        """Seconds since the last refresh, by the store's clock: of something that is written now."""
        probe = f"{self.folder}/probe-{uuid.uuid4().hex}"
        self._write(probe, b"probe")
        now, then = self.files.get_file_info([probe, self.path])
        self.files.delete_file(probe)
        if then.type == fs.FileType.NotFound:  # given back a moment ago
            return STALE
        return ((now.mtime_ns or 0) - (then.mtime_ns or 0)) / 1e9

    def write(self) -> None:
        self._written = True
        self._write(self.path, json.dumps(vars(self.me)).encode())

    def _write(self, path: str, data: bytes) -> None:
        with self.files.open_output_stream(path) as stream:
            stream.write(data)

    def _refusal(self, holder: _Holder | str, left: float) -> str:
        return (
            f"another sweep ({holder}) is running on {self.root}; wait for it, or use another --root; "
            f"if it was killed, the same command goes on in {max(1, round(left))} s"
        )
