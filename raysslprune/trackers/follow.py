"""Send finished steps to a tracker while a sweep runs, from a thread of its own."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

from raysslprune.messages import USAGE, UserError
from raysslprune.store.record import Record
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep
from raysslprune.trackers.runs import Tracker, runs

EVERY = 20.0
"""Seconds between two looks at the root, and until an unreachable tracker is tried again."""

PATIENCE = 30.0
"""Seconds without any progress after which the end of a sweep no longer waits for the tracker."""

KINDS = {"mlflow": "ADDRESS, such as mlflow:http://localhost:5000 or mlflow:sqlite:///runs.db", "wandb": "PROJECT"}
"""Trackers, and what follows their names in ``--track``."""


MLFLOW_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # by default MLflow's authors get reports, from its import on
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # by default it tries for minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
"""Variables that are set for MLflow unless the user has set them."""


def checked(text: str) -> str:
    """Return the value of ``--track``. Raises ValueError if it is none."""
    kind, _, where = text.partition(":")
    if kind not in KINDS or not where:
        known = "; ".join(f"{name}:{what}" for name, what in KINDS.items())
        raise ValueError(f"{text!r} is no tracker; known: {known}")
    if kind == "mlflow" and not re.match(r"(https?|sqlite|postgresql|mysql|mssql)(\+\w+)?:|databricks", where):
        raise ValueError(f"{text!r} is not an address for MLflow: http://HOST:PORT of a server, or sqlite:///FILE")
    return text


def opened(text: str, store: Store) -> Tracker:
    """Return the tracker that ``--track`` names, without calling it.

    Raises UserError if its library is not installed, or if it needs a root that is a folder.
    """
    kind, _, where = checked(text).partition(":")
    if kind == "wandb" and not store.local:
        raise UserError("--track wandb: needs a root that is a folder, since wandb keeps its runs in files", code=USAGE)
    try:
        if kind == "mlflow":
            for name, value in MLFLOW_SETTINGS.items():
                os.environ.setdefault(name, value)
            from raysslprune.trackers.mlflow import MLflow

            return MLflow(where)
        from raysslprune.trackers.wandb import Wandb

        return Wandb(where, store.path("wandb"))
    except ImportError as error:
        package = {"mlflow": "mlflow-skinny"}.get(kind, kind)
        raise UserError(f"--track {kind}: needs {package}; to install it: pip install {package} ({error})") from None


class Follower:
    """What a sweep has, and what a tracker has of it. read: returns the records of the finished steps."""

    def __init__(
        self,
        name: str,
        tracker: Tracker,
        sweeps: Collection[Sweep],
        scale: str,
        read: Callable[[], Mapping[str, Record]],
        note: Callable[[str], None],
    ) -> None:
        self.name, self.tracker, self.sweeps, self.scale = name, tracker, sweeps, scale
        self.read, self.note = read, note
        self.sent: set[str] | None = None
        self.missing, self.error, self.moved = 0, "", time.monotonic()
        self._ended = threading.Event()

    @contextmanager
    def following(self) -> Iterator[None]:
        """Send steps inside the block. At its end, send the rest, unless the tracker is away; say what is missing."""
        thread = threading.Thread(target=self._follow, name="tracker", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            self.moved = time.monotonic()
            while thread.is_alive() and time.monotonic() - self.moved < PATIENCE:
                thread.join(0.2)
            if self.missing or self.error or thread.is_alive():
                steps = f"{self.missing} finished steps" if self.missing else "finished steps"
                why = f" ({self.error})" if self.error else ""
                self.note(f"{self.name} may lack {steps}{why}; the next command with --track sends them")

    def _follow(self) -> None:
        while True:
            last = self._ended.is_set()
            try:
                self._send()
                self.error = ""
            except Exception as error:
                if not self.error and not last:
                    self.note(f"{self.name} can't be reached ({_cause(error)}); the sweep goes on and tries again")
                self.error = _cause(error)
            if last:
                return
            self._ended.wait(EVERY)

    def _send(self) -> None:
        """Send what the tracker lacks."""
        if self.sent is None:
            self.missing = len(runs(self.sweeps, self.scale, self.read(), ()))
            self.sent = self.tracker.known()
        waiting = runs(self.sweeps, self.scale, self.read(), self.sent)
        self.missing = len(waiting)
        for run in waiting:
            self.tracker.add(run)
            self.sent.add(run.step)
            self.missing -= 1
            self.moved = time.monotonic()


def _cause(error: BaseException) -> str:
    """Return the first line of the error behind an error, and behind that one."""
    while behind := error.__cause__ or error.__context__:
        error = behind
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
