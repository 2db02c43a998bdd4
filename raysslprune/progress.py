"""What a person sees while a sweep runs: one calm display, on stderr; plain lines where that is no terminal."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raysslprune.plan import OVERHEAD, START, Job, Schedule

LINE_EVERY = 10.0
"""Seconds between lines where there is no terminal."""


class Progress:
    """Shows a schedule at work. Its methods are what fanout.Events wants."""

    def __init__(self, console: Console, schedule: Schedule, expected: Mapping[str, float], done_before: int) -> None:
        """expected: seconds of each job, by id. done_before: jobs that the store already had."""
        self.console, self.schedule, self.expected = console, schedule, expected
        self.slots = cores()
        self._training: Callable[[], Mapping[str, tuple[int, int]]] = dict
        self._polling = threading.Lock()
        self.done, self.done_before = 0, done_before
        self.lost, self.repeated = 0, 0.0
        self.pace = 1.0
        self.spent, self.promised = 0.0, 0.0
        self.phase = "starting Ray"
        self.begun = time.monotonic()
        self.rates: list[float] = []
        self._seen: Mapping[str, tuple[int, int]] = {}

    # ------------------------------------------------------------------ events

    def job_started(self, job: Job) -> None:
        self.phase = ""

    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None:
        self.done += 1
        if self.expected[job.id] > OVERHEAD:  # else only masks were made, beside an older training
            self.spent += facts["seconds"]
            self.promised += self.expected[job.id]
        self.pace = self.spent / self.promised if self.promised else 1.0
        self.rates = [*self.rates[-19:], facts["images_per_second"]]

    def job_failed(self, job: Job, why: str, skipped: int) -> None:
        behind = f"; {skipped} steps that need it are skipped" if skipped else ""
        self.note(f"failed: {job.title} ({job.id}): {why}{behind}")

    def process_lost(self, job: Job, why: str, seconds: float) -> None:
        self.lost += 1
        self.repeated += seconds
        self.note(f"lost: {job.title}: {why}; it goes on from its last checkpoint, {duration(seconds)} of work ago")

    def slots_are(self, count: int) -> None:
        self.slots = count

    def note(self, sentence: str) -> None:
        self.console.print(sentence, style="yellow", highlight=False, soft_wrap=True, markup=False)

    # ------------------------------------------------------------------ the display

    @contextmanager
    def watching(self, training: Callable[[], Mapping[str, tuple[int, int]]]) -> Iterator[None]:
        """Ask ``training`` for job id to (samples seen, of all) meanwhile, and never again after: Ray may be gone."""
        self._training = training
        try:
            yield
        finally:
            with self._polling:
                self._training = dict

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Keep the display alive meanwhile."""
        terminal = self.console.is_terminal
        live = Live(get_renderable=self.render, console=self.console, refresh_per_second=4, transient=True)
        every, act = (0.5, self._poll) if terminal else (LINE_EVERY, self._line)
        stop = threading.Event()
        thread = threading.Thread(target=self._look, args=(stop, every, act), daemon=True)
        with live if terminal else nullcontext():
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join()

    @property
    def losses(self) -> str:
        """What was lost, and made again."""
        times = f"{self.lost} time{'s' * (self.lost > 1)}"
        return f"a process died {times}; {duration(self.repeated)} of work was done again, and nothing was lost"

    @property
    def total(self) -> int:
        """Steps there are; more when a search has chosen what else to train."""
        return self.done_before + len(self.schedule.jobs)

    @property
    def finished(self) -> int:
        """Steps that are there; fewer again where one turned out to be damaged."""
        s = self.schedule
        return self.total - len(s.waiting) - len(s.running) - len(s.failed) - len(s.skipped)

    def render(self) -> Group:
        finished = self.finished
        head = Table.grid(padding=(0, 2))
        head.add_row(
            f"{finished} of {self.total} steps", ProgressBar(self.total, finished, width=30), self._left(), self._rate()
        )
        rows = Table.grid(padding=(0, 2))
        for job in list(self.schedule.running.values()):
            rows.add_row("  training", job.title, self._percent(job))
        if self.phase:
            rows.add_row(f"  {self.phase}")
        return Group(head, rows)

    def _line(self) -> None:
        self._poll()
        now = [f"{job.title}{self._percent(job)}" for job in list(self.schedule.running.values())]
        doing = self.phase or (f"training {' | '.join(now)}" if now else "ending")
        text = f"{self.finished} of {self.total} steps, {self._left()}; {doing}"
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def _left(self) -> str:
        jobs = (*self.schedule.waiting, *self.schedule.running)
        seconds = sum(self.expected.get(i, 0.0) for i in tuple(jobs)) / max(1, self.slots)
        starting = 0.0 if self.done else max(0.0, START - (time.monotonic() - self.begun))
        return f"{duration(starting + self.pace * max(seconds, self.schedule.longest_path))} left"

    def _rate(self) -> Text:
        return Text(f"{sum(self.rates) / len(self.rates):,.0f} images/s each" if self.rates else "", style="dim")

    def _percent(self, job: Job) -> str:
        seen, end = self._seen.get(job.id, (0, 0))
        return f" ({100 * seen // end}%)" if end else "" if self.done else " (its worker is starting)"

    def _poll(self) -> None:
        with self._polling:
            self._seen = self._training()

    @staticmethod
    def _look(stop: threading.Event, every: float, act: Callable[[], None]) -> None:
        while not stop.wait(every):
            act()


@contextmanager
def output_to(log: str) -> Iterator[TextIO]:
    """Send all that this process and its children print to the file ``log``; gives the real stderr to write to.

    By file descriptor, because Ray's C++ side prints too.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with open(log, "a") as file, open(os.dup(kept[1]), "w") as terminal:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield terminal
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, real in zip((1, 2), kept, strict=True):
                os.dup2(real, fd)
                os.close(real)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def duration(seconds: float) -> str:
    """As 42 s, 3:07 min, 2:15 h, 4.2 days."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    if whole < 48 * 3600:
        return f"{whole // 3600}:{whole % 3600 // 60:02} h"
    return f"{whole / 86400:.1f} days"


def size(count: float) -> str:
    """Bytes as 340 kB, 2.9 MB, 1.2 TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def stamp() -> str:
    """The time now, for a file's name."""
    return time.strftime("%Y%m%d-%H%M%S")
