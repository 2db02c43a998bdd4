"""How far the sweep on a root is: written by the sweep, read from another terminal or another machine.

A sweep writes a snapshot of its progress to ``status.json`` of its root every few seconds, and a last one when it ends.
Whether it still runs is told by the root's lock and lease.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from raysslprune.messages import sweep_command
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.graph import Plan
from raysslprune.store import lock
from raysslprune.store.record import Record
from raysslprune.store.steps import STATUS, Store
from raysslprune.sweep_loader import Sweep, known
from raysslprune.terminal.progress import Progress
from raysslprune.words import duration, left_in_words

EVERY = 3.0
"""Seconds between snapshots in a folder; an object store gets one with each refresh of its lease."""

MAX_FAILURES = 20
"""Failures that are told one by one."""

RUNNING, ENDED, STOPPED_EARLY = "running", "ended", "stopped"

# ------------------------------------------------------------------ written by a sweep


class Reporter:
    """Writes snapshots of a sweep. Until ``progress`` is set they have what the store had when the sweep began."""

    def __init__(
        self, store: Store, sweeps: Sequence[Sweep], scale: str, graph: Plan, records: Mapping[str, Record]
    ) -> None:
        self.store = store
        self.progress: Progress | None = None
        self._sweep = {
            "sweeps": [sweep.name for sweep in sweeps],
            "scale": scale,
            "seeds": max((len({point.seed for point in sweep.points}) for sweep in sweeps), default=0),
            "process": os.getpid(),
            "host": platform.node(),
            "begun": _now(),
        }
        total = len(graph.jobs)
        self._before = {"finished": total - graph.trainings_left(records), "total": total, "running": []}

    @contextmanager
    def reporting(self) -> Iterator[Reporter]:
        """Write snapshots meanwhile, and the last one at the end. None that can't be written stops a sweep."""
        ended = threading.Event()
        thread = threading.Thread(target=self._keep_writing, args=(ended,), name="status", daemon=True)
        self._write(RUNNING)
        thread.start()
        state = STOPPED_EARLY
        try:
            yield self
            state = ENDED
        finally:
            ended.set()
            thread.join(5)
            self._write(state)

    def _keep_writing(self, ended: threading.Event) -> None:
        while not ended.wait(EVERY if self.store.local else lock.REFRESH):
            self._write(RUNNING)

    def _write(self, state: str) -> None:
        with suppress(Exception):  # a full disk, say; whatever it is, no sweep ends for it
            self.store.write(STATUS, json.dumps(self._snapshot(state), indent=1).encode())

    def _snapshot(self, state: str) -> dict[str, Any]:
        progress = self.progress
        failed = [{"step": i, **failure} for i, failure in progress.failures.items()] if progress else []
        return {
            **self._sweep,
            "state": state,
            "written": _now(),
            **(progress.snapshot() if progress else self._before),
            "failed": failed[:MAX_FAILURES],
            "failures": len(failed),
            "skipped": len(progress.schedule.skipped) if progress else 0,
        }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# ------------------------------------------------------------------ read by a person


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What a root says of its sweep.

    holder: who has the lease, None if nobody has. alive: whether they still run. snapshot: the last one, empty if there
    is none that is whole. age: seconds since it was written, by this machine's clock.
    """

    holder: lock.Holder | str | None
    alive: bool
    snapshot: Mapping[str, Any]
    age: float

    @staticmethod
    def of(store: Store) -> Seen:
        holder, alive = store.holder()
        snapshot, written = _snapshot(store), store.modified(STATUS)
        return Seen(holder=holder, alive=alive, snapshot=snapshot, age=max(0.0, time.time() - (written or 0.0)))

    @property
    def is_holders(self) -> bool:
        """Whether the snapshot is of the sweep that has the lease."""
        holder = self.holder
        return isinstance(holder, lock.Holder) and (holder.process, holder.host) == (
            self.snapshot.get("process"),
            self.snapshot.get("host"),
        )

    @property
    def state(self) -> str:
        """In words."""
        known, who = self.snapshot, f"process {self.snapshot.get('process')} on {self.snapshot.get('host')}"
        if self.alive and not self.is_holders:
            return f"a sweep has just begun: {self.holder}"
        if self.alive and known["state"] == RUNNING:
            since = f"running since {_local(known['begun'])}, {who}"
            return f"{since}; last heard of {duration(self.age)} ago"
        if not known:
            return "no sweep is running, and none has left word of itself"
        if known["state"] == RUNNING:
            return (
                f"no sweep is running: {who} was killed or cut off, last heard of {_local(known['written'])}; the same "
                "command goes on from there"
            )
        return (
            f"no sweep is running; the last one {known['state']} {_local(known['written'])}, {duration(self.age)} ago"
        )


def _snapshot(store: Store) -> Mapping[str, Any]:
    """The last snapshot; empty where there is none, or none that is whole."""
    try:
        found = json.loads(store.read(STATUS))
    except (FileNotFoundError, ValueError):
        return {}
    wanted = (
        "sweeps",
        "scale",
        "seeds",
        "process",
        "host",
        "begun",
        "written",
        "state",
        "finished",
        "total",
        "running",
    )
    return found if isinstance(found, dict) and all(name in found for name in wanted) else {}


def lines(store: Store, seen: Seen) -> Iterator[tuple[str, str]]:
    """What is said of it: names and texts."""
    known, live = seen.snapshot, seen.alive and seen.is_holders
    yield "root", store.path("").rstrip("/")
    yield "state", seen.state
    if not known or (seen.alive and not seen.is_holders):
        return
    seeds = f", {known['seeds']} seed{'s' * (known['seeds'] != 1)}" if known["seeds"] else ""
    yield "sweep", f"{', '.join(known['sweeps'])} at scale {known['scale']}{seeds}"
    done = f"{known['finished']:,} of {known['total']:,} done"
    asked = live and "seconds_left" in known
    yield "trainings", f"{done}, {left_in_words(known['seconds_left'], known.get('guess', False))}" if asked else done
    for job in known["running"] if live else ():
        yield "now", f"{job['title']}{_percent(job)}"
    if known.get("failures"):
        yield "failed", f"{known['failures']:,}, and {known['skipped']:,} that need them"
    for failure in known.get("failed", ()):
        yield "failed", f"{failure['title']} ({failure['step']}): {failure['why']}"
    if draw := _drawing(known, store):
        yield "to draw", draw


def _drawing(snapshot: Mapping[str, Any], store: Store) -> str:
    """The command that draws what is done; '' where nothing is, or all, or the sweep is a file of one's own."""
    if not 0 < snapshot["finished"] < snapshot["total"] or not set(snapshot["sweeps"]) <= set(known()):
        return ""
    seeds = snapshot["seeds"] if snapshot["seeds"] != SETTINGS[snapshot["scale"]].seeds else None
    return f"{sweep_command(snapshot['sweeps'][0], snapshot['scale'], store.root, seeds)} --draw"


def _percent(job: Mapping[str, Any]) -> str:
    seen, end = job.get("samples") or (0, 0)
    return f" ({100 * seen // end}%)" if end else ""


def _local(moment: str) -> str:
    """A moment by this machine's time zone."""
    return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M:%S}"
