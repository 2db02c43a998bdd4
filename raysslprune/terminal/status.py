"""Progress of the sweep on a root: written by the sweep, read from another terminal or another machine.

A sweep writes a snapshot of its progress to ``status.json`` of its root every few seconds, and a last one when it ends.
The root's lock and lease show whether it still runs.
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
from raysslprune.paper.scales import SETTINGS, given
from raysslprune.plan.graph import Plan
from raysslprune.store import lock
from raysslprune.store.record import Record
from raysslprune.store.steps import STATUS, Store
from raysslprune.sweep_loader import Sweep, known
from raysslprune.terminal.progress import Progress
from raysslprune.words import duration, left_in_words

EVERY = 3.0
"""Seconds between snapshots in a folder; in an object store they are lock.REFRESH seconds apart."""

MAX_FAILURES = 20
"""Maximum number of failures that a snapshot lists."""

RUNNING, ENDED, STOPPED_EARLY = "running", "ended", "stopped"

# ------------------------------------------------------------------ written by a sweep


class Reporter:
    """Write snapshots of a sweep. Until ``progress`` is set, they show what the store had when the sweep began."""

    def __init__(
        self, store: Store, sweeps: Sequence[Sweep], scale: str, graph: Plan, records: Mapping[str, Record]
    ) -> None:
        self.store = store
        self.progress: Progress | None = None
        seeds = max(({point.seed for point in sweep.points} for sweep in sweeps), key=len, default=set[int]())
        usual = {*range(SETTINGS[scale].seeds)}
        self._sweep = {
            "sweeps": [sweep.name for sweep in sweeps],
            "scale": scale,
            "seeds": len(seeds),
            "given": {"scale": given(scale), "seeds": None if seeds == usual else sorted(seeds)},
            "process": os.getpid(),
            "host": platform.node(),
            "begun": _now(),
        }
        total = len(graph.jobs)
        self._before = {"finished": total - graph.trainings_left(records), "total": total, "running": []}

    @contextmanager
    def reporting(self) -> Iterator[Reporter]:
        """Write snapshots inside the block, and the last one at its end. A failed write does not stop the sweep."""
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
        with suppress(Exception):  # such as a full disk: a missing snapshot must not end a sweep
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
    """State of the sweep on a root, as its files show it.

    holder: holder of the lease, or None. alive: True if it still runs. snapshot: the last one, empty if it is missing
    or damaged. age: seconds since the snapshot was written, by this machine's clock.
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
        """True if the snapshot is of the sweep that holds the lease."""
        known, holder = self.snapshot, self.holder
        own = (known.get("process"), known.get("host"))
        return isinstance(holder, lock.Holder) and (holder.process, holder.host) == own

    @property
    def state(self) -> str:
        """The state in words."""
        known, age = self.snapshot, duration(self.age)
        if self.alive and not self.is_holders:
            return f"a sweep has just started: {self.holder}"
        if not known:
            return "no sweep is running, and none has left a report"
        who, written = f"process {known['process']} on {known['host']}", _local(known["written"])
        if known["state"] != RUNNING:
            return f"no sweep is running; the last one {known['state']} {written}, {age} ago"
        if self.alive:
            return f"running since {_local(known['begun'])}, {who}; last update {age} ago"
        lost = f"{who} was killed or lost its connection; last update {written}"
        return f"no sweep is running: {lost}; the same command resumes it"


_FIELDS = {"sweeps", "scale", "seeds", "process", "host", "begun", "written", "state", "finished", "total", "running"}
"""Fields that every snapshot has."""


def _snapshot(store: Store) -> Mapping[str, Any]:
    """Return the last snapshot; empty if it is missing or damaged."""
    try:
        found = json.loads(store.read(STATUS))
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.keys() >= _FIELDS else {}


def lines(store: Store, seen: Seen) -> Iterator[tuple[str, str]]:
    """Yield the lines of the status as (name, text)."""
    known, live = seen.snapshot, seen.alive and seen.is_holders
    yield "root", store.path("").rstrip("/")
    yield "state", seen.state
    if not known or (seen.alive and not seen.is_holders):
        return
    seeds = f", {known['seeds']} seed{'s' * (known['seeds'] != 1)}" if known["seeds"] else ""
    yield "sweep", f"{', '.join(known['sweeps'])} at scale {known['scale']}{seeds}"
    left, waiting = "", known.get("waiting") if live else ""
    if live and "seconds_left" in known and not waiting:
        left = f", {left_in_words(known['seconds_left'], known.get('guess', False), known.get('starting', False))}"
    yield "trainings", f"{known['finished']:,} of {known['total']:,} done{left}"
    if waiting:
        yield "now", waiting
    for job in known["running"] if live else ():
        seen_samples, end = job.get("samples") or (0, 0)
        yield "now", job["title"] + (f" ({100 * seen_samples // end}%)" if end else "")
    if known.get("failures"):
        yield "failed", f"{known['failures']:,}, and {known['skipped']:,} that need them"
    for failure in known.get("failed", ()):
        yield "failed", f"{failure['title']} ({failure['step']}): {failure['why']}"
    if draw := _drawing(known, store):
        yield "to draw", draw


def _drawing(snapshot: Mapping[str, Any], store: Store) -> str:
    """Return the command that draws the finished part; '' if nothing or all is done, or the sweep is the user's own."""
    if not 0 < snapshot["finished"] < snapshot["total"] or not set(snapshot["sweeps"]) <= set(known()):
        return ""
    name, scale = snapshot["sweeps"][0], snapshot["scale"]
    call = snapshot.get("given", {"scale": [scale], "seeds": snapshot["seeds"]})  # older snapshots have none
    return f"{sweep_command(name, call['scale'], store.root, call['seeds'])} --draw"


def _local(moment: str) -> str:
    """Format a moment in this machine's time zone."""
    return f"{datetime.fromisoformat(moment).astimezone():%Y-%m-%d %H:%M:%S}"
