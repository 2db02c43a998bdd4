"""Show a sweep on stderr while it runs: one calm display; plain lines if that is no terminal; or JSON."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from raysslprune.plan.cost import OVERHEAD, cores
from raysslprune.plan.graph import Job
from raysslprune.plan.schedule import Schedule
from raysslprune.plan.time_left import TimeLeft
from raysslprune.spec import Prune, Rewind, prunings
from raysslprune.words import begins, duration, left_in_words, recipe_facts, titles, told_apart

LINE_EVERY = 10.0
"""Seconds between lines where there is no terminal."""

LOOK_EVERY = 0.5
"""Seconds between looks at how far the trainings are."""

MAX_CHAINS = 12
"""That are shown one by one."""


@dataclass
class Chain:
    """Prunings one after another of the same network. rounds: the jobs that make them, in their order."""

    name: str = ""
    rounds: list[Job] = field(default_factory=list)


def chains(jobs: Iterable[Job]) -> list[Chain]:
    """The chains among jobs, parents before children. Names tell them apart: task, seed, and what else they differ in.

    What is pruned once only is no chain.
    """
    found: dict[str, Chain] = {}
    alike: dict[str, dict[str, dict[str, str]]] = {}
    firsts: dict[str, Job] = {}
    for job in jobs:
        for mask in job.after:
            if isinstance(mask, Prune):
                *_, first = behind = prunings(mask)
                if mask is first:  # chains that are rewound to other points share it
                    firsts[first.id] = job
                    continue
                second = behind[-2]
                if second.id not in found:
                    found[second.id] = Chain(rounds=[firsts[first.id]] if first.id in firsts else [])
                found[second.id].rounds.append(job)
                train, start = second.of, second.of.start
                alike.setdefault(f"{train.task} seed {train.seed}", {})[second.id] = {
                    "data": train.data,
                    "arch": train.arch,
                    "scope": first.scope,
                    "rewind": f"rewound to {start.samples:,}" if isinstance(start, Rewind) else "",
                    "begins": begins(train),
                    "kept": f"{100 * second.keep:g}% each time",
                    **recipe_facts(train),
                    **{f"first {kind}": f"first {fact}" for kind, fact in recipe_facts(first.of).items()},
                }
    for shared, facts in alike.items():
        for key, name in told_apart(shared, facts).items():
            found[key].name = name
    return list(found.values())


@dataclass(frozen=True)
class Tally:
    """So many are made of so many jobs. ids: of those that are not."""

    name: str
    made: int
    of: int
    ids: Set[str] = frozenset()

    @staticmethod
    def of_jobs(name: str, jobs: Sequence[Job], unmade: Set[str]) -> Tally:
        ids = {job.id for job in jobs} & unmade
        return Tally(name, len(jobs) - len(ids), len(jobs), ids)


def _row(rows: Table, kind: str, tally: Tally) -> None:
    bar = ProgressBar(tally.of, tally.made, width=16)
    rows.add_row(f"  {kind}", tally.name, bar, f"{tally.made} of {tally.of}")


class Progress:
    """Shows a schedule at work. Its methods are what cluster.tune.Watcher wants."""

    draws = True
    """Whether a terminal gets a live display."""

    def __init__(
        self,
        console: Console,
        schedule: Schedule,
        expected: Mapping[str, float],
        done: Collection[Job] = (),
        guessed: Collection[str] = (),
    ) -> None:
        """expected: seconds of each job, by id. done: the jobs that the store already had. guessed: as TimeLeft has."""
        self.console, self.schedule, self.expected, self.before = console, schedule, expected, done
        self.live = self.draws and console.is_terminal
        self.time_left = TimeLeft(schedule, expected, guessed)
        self.time_left.slots = cores()
        self._training: Callable[[], Mapping[str, tuple[int, int]]] = dict
        self._polling = threading.Lock()
        self.done = 0
        self.failures: dict[str, dict[str, str]] = {}
        """Title and why, by the job's id."""
        self._titles: dict[str, str] = {}
        self._tallied: tuple[list[Tally], Tally] = [], Tally("", 0, 0)
        self._tally_at = 0.0
        self.lost, self.repeated = 0, 0.0
        self.phase = "starting Ray"
        self.rates: list[float] = []
        self._seen: Mapping[str, tuple[int, int]] = {}

    # ------------------------------------------------------------------ events

    def job_started(self, job: Job, workers: int = 1) -> None:
        self.phase = ""
        self.time_left.started(job, workers)

    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None:
        self.done += 1
        self.time_left.done(job, facts["seconds"] * facts.get("workers", 1))
        self.rates = [*self.rates[-19:], facts["images_per_second"]]

    def job_failed(self, job: Job, why: str, skipped: int) -> None:
        self._remember(job, why)
        self.time_left.ended(job)
        behind = f"; {skipped} steps that need it are skipped" if skipped else ""
        self.note(f"failed: {self.title(job)} ({job.id}): {why}{behind}")

    def process_lost(self, job: Job, why: str, seconds: float) -> None:
        self.lost += 1
        self.repeated += seconds
        self.time_left.ended(job)
        self.note(
            f"lost: {self.title(job)}: {why}; it goes on from its last checkpoint, {duration(seconds)} of work ago"
        )

    def slots_are(self, count: int) -> None:
        self.time_left.slots = count

    def note(self, sentence: str) -> None:
        """What one should look at."""
        self.console.print(sentence, style="yellow", highlight=False, soft_wrap=True, markup=False)

    def say(self, sentence: str) -> None:
        self.console.print(sentence, highlight=False, soft_wrap=True, markup=False)

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
        live = Live(
            get_renderable=self.render,
            console=self.console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,  # they go to the log; and Ray keeps what it finds in their places for good
            redirect_stderr=False,
        )
        stop = threading.Event()
        thread = threading.Thread(target=self._look, args=(stop,), daemon=True)
        with live if self.live else nullcontext():
            thread.start()
            try:
                yield
            finally:
                stop.set()
                thread.join(2)  # it may be asking a Ray that is dead

    @property
    def losses(self) -> str:
        """What was lost, and made again."""
        times = f"{self.lost} time{'s' * (self.lost > 1)}"
        return f"a process died {times}; {duration(self.repeated)} of work was done again, and nothing was lost"

    @property
    def failed(self) -> int:
        return len(self.failures)

    def _remember(self, job: Job, why: str) -> None:
        self.failures = {**self.failures, job.id: {"title": self.title(job), "why": why}}  # other threads read it

    @property
    def total(self) -> int:
        """Trainings there are; more when a search has chosen what else to train."""
        return len(self.before) + len(self.schedule.jobs)

    @property
    def finished(self) -> int:
        """Trainings that are there; fewer again where one turned out to be damaged."""
        s = self.schedule
        unmade = (*s.waiting.copy().values(), *s.running.copy().values(), *s.failed.values(), *s.skipped.values())
        return self.total - sum(not self._has_training(job) for job in unmade)

    def _has_training(self, job: Job) -> bool:
        """Whether the store already had it, and only masks are left to make beside it."""
        return job.id in self.schedule.jobs and self.expected[job.id] <= OVERHEAD

    def title(self, job: Job) -> str:
        """Its title, and what tells it from others with the same."""
        if len(self._titles) < self.total:  # at first, or a search has chosen more
            self._titles = titles(job.train for job in (*self.before, *self.schedule.jobs.copy().values()))
        return self._titles[job.id]

    def render(self) -> Group:
        finished = self.finished
        head = Table.grid(padding=(0, 2))
        head.add_row(
            f"{finished} of {self.total} trainings",
            ProgressBar(self.total, finished, width=30),
            self._left(),
            self._rate(),
        )
        rows = Table.grid(padding=(0, 2))
        running = list(self.schedule.running.values())
        tallies, leaves = self._tally()
        at_work = {job.id for job in running}
        first = sorted(tallies, key=lambda tally: at_work.isdisjoint(tally.ids))
        for tally in first[:MAX_CHAINS]:
            _row(rows, "pruning", tally)
        if rest := first[MAX_CHAINS:]:
            name = f"{len(rest)} other chains"
            _row(rows, "pruning", Tally(name, sum(t.made for t in rest), sum(t.of for t in rest)))
        if leaves.of:
            _row(rows, "training", leaves)
        for job in running:
            rows.add_row("  now", self.title(job), "", self._percent(job))
        if self.failed:
            rows.add_row("  failed", f"{self.failed}, and {len(self.schedule.skipped)} that need them", style="red")
        if self.phase:
            rows.add_row(f"  {self.phase}")
        return Group(head, rows)

    def _tally(self) -> tuple[list[Tally], Tally]:
        """Of the chains that are not at their end, and of all else; counted again when that costs little."""
        if time.monotonic() < self._tally_at:
            return self._tallied
        begun = time.monotonic()
        s = self.schedule
        jobs = [*self.before, *s.jobs.copy().values()]
        unmade = {*s.waiting, *s.running, *s.failed, *s.skipped}
        known = chains(jobs)
        rounds = {job.id for chain in known for job in chain.rounds}
        tallies = [Tally.of_jobs(chain.name, chain.rounds, unmade) for chain in known]
        leaves = Tally.of_jobs("leaves of the chains", [job for job in jobs if job.id not in rounds], unmade)
        self._tallied = [tally for tally in tallies if tally.made < tally.of], leaves
        self._tally_at = time.monotonic() + 50 * (time.monotonic() - begun)
        return self._tallied

    def snapshot(self) -> dict[str, Any]:
        """How far it is, as values for JSON. ``samples``: seen and of all, by the last look."""
        jobs = tuple(self.schedule.running.values())
        return {
            "finished": self.finished,
            "total": self.total,
            "seconds_left": round(self.time_left.seconds),
            "guess": self.time_left.is_guess,
            "running": [{**self._of(job), "samples": self._seen.get(job.id)} for job in jobs],
        }

    def _of(self, job: Job) -> dict[str, str]:
        return {"step": job.id, "title": self.title(job)}

    def _line(self) -> None:
        now = [f"{self.title(job)}{self._percent(job)}" for job in list(self.schedule.running.values())]
        doing = self.phase or (f"training {' | '.join(now)}" if now else "ending")
        text = f"{self.finished} of {self.total} trainings, {self._left()}; {doing}"
        self.say(text)

    def _left(self) -> str:
        return left_in_words(self.time_left.seconds, self.time_left.is_guess)

    def _rate(self) -> Text:
        seen = self.time_left.images_per_second
        rates = [seen] if seen else self.rates
        return Text(f"{sum(rates) / len(rates):,.0f} images/s each" if rates else "", style="dim")

    def _percent(self, job: Job) -> str:
        seen, end = self._seen.get(job.id, (0, 0))
        return f" ({100 * seen // end}%)" if end else "" if self.done else " (its worker is starting)"

    def _poll(self) -> None:
        with self._polling:
            self._seen = self._training()
        self.time_left.look(self._seen)

    def _look(self, stop: threading.Event) -> None:
        """Look at what runs until the end; where there is no live display, write a line from time to time."""
        line_at = time.monotonic() + LINE_EVERY
        while not stop.wait(min(LOOK_EVERY, LINE_EVERY)):
            self._poll()
            if not self.live and time.monotonic() >= line_at:
                self._line()
                line_at += LINE_EVERY


class JsonLines(Progress):
    """The same as an object of JSON a line, for programs. All have ``time`` (UTC) and ``event``."""

    draws = False

    def job_started(self, job: Job, workers: int = 1) -> None:
        super().job_started(job, workers)
        self._say("started", **self._of(job))

    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None:
        super().job_done(job, facts)
        measured = {name: facts[name] for name in ("seconds", "images_per_second") if name in facts}
        self._say("done", **self._of(job), **measured)

    def job_failed(self, job: Job, why: str, skipped: int) -> None:
        self._remember(job, why)
        self.time_left.ended(job)
        self._say("failed", **self._of(job), why=why, skipped=skipped)

    def process_lost(self, job: Job, why: str, seconds: float) -> None:
        self.lost += 1
        self.repeated += seconds
        self.time_left.ended(job)
        self._say("lost", **self._of(job), why=why, seconds=seconds)

    def note(self, sentence: str) -> None:
        self._say("note", text=sentence)

    def say(self, sentence: str) -> None:
        self._say("said", text=sentence)

    def _line(self) -> None:
        self._say("progress", **self.snapshot())

    def _say(self, event: str, **what: Any) -> None:
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **what}
        print(json.dumps(line), file=self.console.file, flush=True)


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
            with redirect_stdout(file), redirect_stderr(file):  # in a notebook sys.stdout is not descriptor 1
                yield terminal
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for fd, real in zip((1, 2), kept, strict=True):
                os.dup2(real, fd)
                os.close(real)
