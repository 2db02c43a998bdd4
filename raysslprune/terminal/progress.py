"""Show a running sweep on stderr: one live display in a terminal, else plain lines, or JSON."""

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
from raysslprune.spec import ImportedWeights, Prune, Train
from raysslprune.words import begins, duration, judged, left_in_words, recipe_facts, titles, told_apart

LINE_EVERY = 10.0
"""Seconds between lines if stderr is not a terminal."""

LOOK_EVERY = 0.5
"""Seconds between polls of the running trainings."""

MAX_CHAINS = 12
"""Maximum number of chains that have a row of their own."""


@dataclass
class Chain:
    """Successive prunings of one network. rounds: the jobs that make them, in order."""

    name: str = ""
    rounds: list[Job] = field(default_factory=list)


def chains(jobs: Iterable[Job]) -> list[Chain]:
    """Find the chains among jobs, which come parents first. Their names are task, seed, and what distinguishes them.

    A network that is pruned only once is not a chain.
    """
    found: dict[str, Chain] = {}
    alike: dict[str, dict[str, dict[str, str]]] = {}
    firsts: dict[str, Job] = {}
    for job in jobs:
        for mask in job.after:
            if isinstance(mask, Prune):
                *_, first = behind = mask.rounds
                if mask is first:  # chains that rewind to different points share it
                    firsts[first.id] = job
                    continue
                second = behind[-2]
                if second.id not in found:
                    found[second.id] = Chain(rounds=[firsts[first.id]] if first.id in firsts else [])
                found[second.id].rounds.append(job)
                train = second.of
                assert isinstance(train, Train)  # the job's own training
                alike.setdefault(f"{train.task} seed {train.seed}", {})[second.id] = {
                    "data": train.data,
                    "arch": train.arch,
                    "scope": first.scope,
                    "rewind": "" if train.rewind is None else f"rewound to {train.rewind:,}",
                    "begins": begins(train),
                    "kept": f"{100 * second.keep:g}% each time",
                    "judged": judged(second).removeprefix(", "),
                    **recipe_facts(train),
                    **_dense_facts(first.of),
                }
    for shared, facts in alike.items():
        for key, name in told_apart(shared, facts).items():
            found[key].name = name
    return list(found.values())


def _dense_facts(of: Train | ImportedWeights) -> dict[str, str]:
    """Facts on the dense network of a chain: the recipe that trained it, or the digest of imported weights."""
    if isinstance(of, ImportedWeights):
        return {"first weights": f"from imported weights {of.digest[:8]}"}
    return {f"first {kind}": f"first {fact}" for kind, fact in recipe_facts(of).items()}


@dataclass(frozen=True)
class Tally:
    """Count of finished jobs in a group: ``made`` out of ``of``. ids: ids of the jobs that are not finished."""

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
    """Show a running schedule; this implements cluster.tune.Watcher."""

    draws = True
    """True if a terminal gets a live display."""

    def __init__(
        self,
        console: Console,
        schedule: Schedule,
        expected: Mapping[str, float],
        done: Collection[Job] = (),
        guessed: Collection[str] = (),
    ) -> None:
        """expected: seconds of each job, by id. done: jobs that the store already had. guessed: as for TimeLeft."""
        self.console, self.schedule, self.expected, self.before = console, schedule, expected, done
        self.live = self.draws and console.is_terminal
        self.on_screen = False
        self.time_left = TimeLeft(schedule, expected, guessed)
        self.time_left.slots = cores()
        self.done, self.lost, self.repeated = 0, 0, 0.0
        self.failures: dict[str, dict[str, str]] = {}
        """Title and reason, by the job's id."""
        self.phase = "starting Ray"
        self.waiting = ""
        """What all trainings wait for: machines, or cores that others hold."""
        self.rates: list[float] = []
        self._training: Callable[[], Mapping[str, tuple[int, int]]] = dict
        self._polling = threading.Lock()
        self._seen: Mapping[str, tuple[int, int]] = {}
        self._titles: dict[str, str] = {}
        self._tallied: tuple[list[Tally], Tally] = [], Tally("", 0, 0)
        self._tally_at = 0.0

    # ------------------------------------------------------------------ events

    def job_started(self, job: Job, workers: int = 1) -> None:
        self.phase = ""
        self.time_left.started(job, workers)
        self._report("started", facts=self._of(job))

    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None:
        self.done += 1
        self.time_left.done(job, facts["seconds"] * facts.get("workers", 1))
        self.rates = [*self.rates[-19:], facts["images_per_second"]]
        self._report("done", facts=self._of(job) | {name: facts[name] for name in ("seconds", "images_per_second")})

    def job_failed(self, job: Job, why: str, skipped: int) -> None:
        title = self.title(job)
        self.failures = {**self.failures, job.id: {"title": title, "why": why}}  # a new dict: other threads read it
        self.time_left.ended(job)
        behind = f"; {skipped} steps that need it are skipped" if skipped else ""
        sentence = f"failed: {title} ({job.id}): {why}{behind}"
        self._report("failed", sentence, self._of(job) | {"why": why, "skipped": skipped})

    def process_lost(self, job: Job, why: str, seconds: float) -> None:
        self.lost += 1
        self.repeated += seconds
        self.time_left.ended(job)
        resumes = f"it resumes from its last checkpoint, {duration(seconds)} of work ago"
        self._report(
            "lost", f"lost: {self.title(job)}: {why}; {resumes}", self._of(job) | {"why": why, "seconds": seconds}
        )

    def slots_are(self, count: int) -> None:
        self.time_left.slots = count

    def waits(self, what: str, sentence: str) -> None:
        """Report what all trainings wait for, in a word and in a sentence; '' if they do not wait."""
        if what or self.waiting:
            self.phase = sentence
        if what != self.waiting:
            self.waiting = what
            self._report("waiting", sentence, {"for": what, "text": sentence})

    def note(self, sentence: str) -> None:
        """Report something that needs attention."""
        self._report("note", sentence)

    def say(self, sentence: str) -> None:
        self._report("said", sentence)

    def _report(self, event: str, sentence: str = "", facts: Mapping[str, Any] | None = None) -> None:
        """Print the sentence of an event, if it has one. facts: the event as values, for JSON."""
        if sentence:
            style = "" if event in ("said", "progress") else "yellow"
            self.console.print(sentence, style=style, highlight=False, soft_wrap=True, markup=False)

    # ------------------------------------------------------------------ the display

    @contextmanager
    def watching(self, training: Callable[[], Mapping[str, tuple[int, int]]]) -> Iterator[None]:
        """Poll ``training`` inside the block only, since Ray may be gone after it.

        training: returns (samples seen, total) by job id.
        """
        self._training = training
        try:
            yield
        finally:
            with self._polling:
                self._training = dict

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the display inside the block."""
        live = Live(
            get_renderable=self.render,
            console=self.console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,  # both go to the log already, and Ray would keep rich's replacements for good
            redirect_stderr=False,
        )
        stop = threading.Event()
        thread = threading.Thread(target=self._look, args=(stop,), daemon=True)
        with live if self.live else nullcontext():
            thread.start()
            self.on_screen = True
            try:
                yield
            finally:
                self.on_screen = False
                stop.set()
                thread.join(2)  # it may wait for a Ray that is dead

    @property
    def losses(self) -> str:
        """A sentence on the processes that died."""
        times = f"{self.lost} time{'s' * (self.lost > 1)}"
        return f"a process died {times}; {duration(self.repeated)} of work was repeated; no result was lost"

    @property
    def total(self) -> int:
        """Number of trainings; it grows when a search chooses more."""
        return len(self.before) + len(self.schedule.jobs)

    @property
    def finished(self) -> int:
        """Number of trainings in the store; it falls when one turns out to be damaged."""
        s = self.schedule
        unmade = (*s.waiting.copy().values(), *s.running.copy().values(), *s.failed.values(), *s.skipped.values())
        # A job of which only masks are missing has its training in the store
        return self.total - sum(job.id not in s.jobs or self.expected[job.id] > OVERHEAD for job in unmade)

    def title(self, job: Job) -> str:
        """Return a job's title, unique among all."""
        if len(self._titles) < self.total:  # at first, and after a search has chosen more
            self._titles = titles(job.train for job in (*self.before, *self.schedule.jobs.copy().values()))
        return self._titles[job.id]

    def render(self) -> Group:
        finished = self.finished
        head = Table.grid(padding=(0, 2))
        head.add_row(
            f"{finished} of {self.total} trainings",
            ProgressBar(self.total, finished, width=30),
            "" if self.waiting else self._left(),
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
        for job in () if self.waiting else running:
            rows.add_row("  now", self.title(job), "", self._percent(job))
        if failed := len(self.failures):
            rows.add_row("  failed", f"{failed}, and {len(self.schedule.skipped)} that need them", style="red")
        if self.phase:
            rows.add_row(f"  {self.phase}")
        return Group(head, rows)

    def _tally(self) -> tuple[list[Tally], Tally]:
        """Tally each unfinished chain, and all other jobs. Counting again takes at most about 2% of the time."""
        if time.monotonic() < self._tally_at:
            return self._tallied
        begun = time.monotonic()
        s = self.schedule
        jobs = [*self.before, *s.jobs.copy().values()]
        unmade = {*s.waiting, *s.running, *s.failed, *s.skipped}
        known = chains(jobs)
        rounds = {job.id for chain in known for job in chain.rounds}
        tallies = [Tally.of_jobs(chain.name, chain.rounds, unmade) for chain in known]
        leaves = Tally.of_jobs("outside the chains", [job for job in jobs if job.id not in rounds], unmade)
        self._tallied = [tally for tally in tallies if tally.made < tally.of], leaves
        self._tally_at = time.monotonic() + 50 * (time.monotonic() - begun)
        return self._tallied

    def snapshot(self) -> dict[str, Any]:
        """Return the progress as values for JSON. ``samples``: seen and total, at the last poll."""
        jobs = () if self.waiting else tuple(self.schedule.running.values())
        return {
            "finished": self.finished,
            "total": self.total,
            "waiting": self.phase if self.waiting else "",
            "seconds_left": round(self.time_left.seconds),
            "guess": self.time_left.is_guess,
            "starting": self.time_left.is_starting,
            "running": [{**self._of(job), "samples": self._seen.get(job.id)} for job in jobs],
        }

    def _of(self, job: Job) -> dict[str, str]:
        return {"step": job.id, "title": self.title(job)}

    def _line(self) -> None:
        now = [f"{self.title(job)}{self._percent(job)}" for job in list(self.schedule.running.values())]
        doing = self.phase or (f"training {' | '.join(now)}" if now else "finishing")
        left = "" if self.waiting else f", {self._left()}"
        text = f"{self.finished} of {self.total} trainings{left}; {doing}"
        self._report("progress", text, self.snapshot())

    def _left(self) -> str:
        left = self.time_left
        return left_in_words(left.seconds, left.is_guess, left.is_starting)

    def _rate(self) -> Text:
        seen = self.time_left.images_per_second
        rates = [seen] if seen else self.rates
        return Text(f"{sum(rates) / len(rates):,.0f} images/s each" if rates else "", style="dim")

    def _percent(self, job: Job) -> str:
        seen, end = self._seen.get(job.id, (0, 0))
        if end:
            return f" ({100 * seen // end}%)"
        return "" if self.done else " (its worker is starting)"

    def _poll(self) -> None:
        with self._polling:
            self._seen = self._training()
        self.time_left.look(self._seen)

    def _look(self, stop: threading.Event) -> None:
        """Poll the running trainings until ``stop``; without a live display, print a line from time to time."""
        line_at = time.monotonic() + LINE_EVERY
        while not stop.wait(min(LOOK_EVERY, LINE_EVERY)):
            self._poll()
            if not self.live and time.monotonic() >= line_at:
                self._line()
                line_at += LINE_EVERY


class JsonLines(Progress):
    """Print each event as one line of JSON, for programs. Each has ``time`` (UTC) and ``event``."""

    draws = False

    def _report(self, event: str, sentence: str = "", facts: Mapping[str, Any] | None = None) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "event": event, **(facts or {"text": sentence})}
        print(json.dumps(line), file=self.console.file, flush=True)


@contextmanager
def output_to(log: str) -> Iterator[TextIO]:
    """Redirect the output of this process and its children to the file ``log``; yield the real stderr.

    This redirects file descriptors, because Ray's C++ side prints too.
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
