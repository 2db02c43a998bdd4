"""A sweep as an object, for notebooks, scripts and the command: plan it, run it, read and draw its results.

    fig3 = Experiment.load("fig3", seeds=3)
    fig3.run()
    fig3.draw()

A sweep made of points in a notebook works like one in a file: both use the same root, and share their trainings.
"""

from __future__ import annotations

import operator
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import pyarrow as pa

from raysslprune import catalogue, present, results, sources, sweep_loader
from raysslprune.cluster.options import RunOptions
from raysslprune.execution import Execution
from raysslprune.kinds import kind_of
from raysslprune.messages import UserError, note, seeds_in_words
from raysslprune.paper import scalefile
from raysslprune.paper.scales import SETTINGS, given, too_short, whole
from raysslprune.plan.cost import cores
from raysslprune.plan.graph import Job, Plan, make_plan
from raysslprune.plan.looks import MAX_SEEDS, looks
from raysslprune.plan.only import NoPoint, part
from raysslprune.results import claims as judged
from raysslprune.results import overlap
from raysslprune.results.sql import rows_of_others
from raysslprune.spec import External, Init, network_of, not_read
from raysslprune.store import leftovers
from raysslprune.store.leftovers import Leftovers
from raysslprune.store.lock import InUse
from raysslprune.store.record import Damaged, Record, StoreError
from raysslprune.store.steps import Held, Store
from raysslprune.sweep_loader import NotAtThisScale, Sweep, SweepError
from raysslprune.sweepfile import Claim, Figure, Magnitudes, Point, Search, Tuning
from raysslprune.terminal import status, tables
from raysslprune.trackers import follow
from raysslprune.trackers.runs import Tracker

if TYPE_CHECKING:
    from raysslprune.figures.ink import Canvas


class Failed(UserError):
    """A sweep did not finish, or a part of it could not be drawn. Finished steps are kept."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One or more sweeps at a scale, and the root of their results.

    data: folder of the data sets. seeds_hint: text that a user types before a number of seeds, for messages. An
    Experiment has no state: each method reads the root anew.
    """

    sweeps: tuple[Sweep, ...]
    scale: str
    store: Store
    data: str
    seeds_hint: str = "seeds="

    def __repr__(self) -> str:
        points = sum(len(sweep.points) for sweep in self.sweeps)
        return f"<{self.name} at scale {self.scale}, {points} points, root {self.store.shown}>"

    @property
    def name(self) -> str:
        """The names of all sweeps."""
        return ", ".join(sweep.name for sweep in self.sweeps)

    @property
    def sweep(self) -> Sweep:
        """The only sweep. Raises ValueError if there are several."""
        if len(self.sweeps) != 1:
            raise ValueError(f"this needs a single sweep, but {self.name} are loaded; load one alone")
        return self.sweeps[0]

    @classmethod
    def load(
        cls,
        name: str | os.PathLike[str],
        *more: str | os.PathLike[str],
        scale: str | os.PathLike[str] = "laptop",
        seeds: SupportsIndex | Iterable[SupportsIndex] | None = None,
        until_decided: bool = False,
        max_seeds: SupportsIndex | None = None,
        set: Mapping[str, Any] | Iterable[str] = (),
        only: str | None = None,
        root: str | os.PathLike[str] = "runs",
        data: str | os.PathLike[str] | None = None,
    ) -> Experiment:
        """Load sweeps of the package by their names, ``all`` of them, or your own by the paths of their files.

        scale: one of the package, or the path of a TOML file. set: values of the scale to replace, by their keys in
        such a file, as ``{"labels.lr": 0.1}``. seeds: number of seeds, or the seeds, as ``[0, 3, 5]``; None for the
        scale's default. until_decided: for sweeps with claims, judge these at 3, 6, 12 ... seeds, up to ``max_seeds``
        (24 by default), and add seeds for the undecided ones only. only: a condition on columns that are known before
        training, as ``"task == 'labels' and level >= 10"``; other points are left out. With ``set`` or ``only`` results
        have names of their own. root: a folder, s3:// or gs://. data: folder of the data sets; None for
        ``$RAYSSLPRUNE_DATA``, else ./data. In paths a leading ``~`` is the home folder.

        Raises SweepError if a sweep or the scale can't be used, StoreError if the root can't be used.
        """
        scale = _scale(scale, set)
        at, chosen = _looks(until_decided, seeds, max_seeds), _seeds(scale, seeds)
        every = "all" in (name, *more)
        wanted = sweep_loader.known() if every else list(dict.fromkeys((name, *more)))
        sweeps: list[Sweep] = []
        for one in wanted:
            try:
                sweep = sweep_loader.load(one, scale, chosen, at)
                sweeps.append(sweep if only is None else part(sweep, only))
            except (NotAtThisScale, NoPoint) as error:
                if not every:
                    raise
                note(f"{error}; it is left out")
        if not sweeps:
            raise SweepError(f"no sweep of the package can be made at scale {scale}")
        if len({sweep.name for sweep in sweeps}) < len(sweeps):
            names = ", ".join(map(str, wanted))
            raise SweepError(f"two sweeps have the same name and would overwrite each other's files: {names}")
        return cls(sweeps=tuple(sweeps), scale=scale, store=Store(root), data=_absolute(data))

    @classmethod
    def of(
        cls,
        points: Callable[[str, int], Iterable[Point]],
        figure: Figure | Magnitudes | Search | Tuning,
        *,
        name: str,
        claims: Iterable[Claim] = (),
        scale: str | os.PathLike[str] = "laptop",
        seeds: SupportsIndex | Iterable[SupportsIndex] | None = None,
        set: Mapping[str, Any] | Iterable[str] = (),
        only: str | None = None,
        root: str | os.PathLike[str] = "runs",
        data: str | os.PathLike[str] | None = None,
    ) -> Experiment:
        """Make a sweep without a file, from the points, figure and claims that a file would define.

        name: prefix of the names of its result files. The other arguments and the errors are those of :meth:`load`.
        """
        if not re.fullmatch(r"\w[\w.]*", name) or name in sweep_loader.known():
            raise SweepError(
                "the name of your own sweep must not be that of one of the package, must have only letters, digits, _ "
                f"and ., and must not begin with a dot; it is {name!r}"
            )
        scale = _scale(scale, set)
        found = tuple(point for seed in _seeds(scale, seeds) for point in points(scale, seed) or ())
        sweep = sweep_loader.checked(Sweep(name=name, drawing=figure, claims=tuple(claims), points=found), name)
        sweep = sweep if only is None else part(sweep, only)
        return cls(sweeps=(sweep,), scale=scale, store=Store(root), data=_absolute(data))

    # ------------------------------------------------------------------ run it

    def plan(self, *, keep: str = "all", remake: bool = False) -> None:
        """Print what would run, what is done, what is missing, and what it would cost. Arguments as for :meth:`run`."""
        graph = self._graph(self.sweeps, keep)
        records, damaged = self._survey(graph.ids)
        records, _ = self._by_other_sources(records, remake)
        self._note_other_results()
        self._note_too_short(graph)
        missing = self._missing_data(graph.pending(records), fetch=False)
        missing += [mask.missing_in(self.store.shown) for mask in graph.not_imported(records)]
        missing = missing or self._unfit(graph.pending(records))
        alone = {sweep.name: self._graph([sweep], keep) for sweep in self.sweeps}
        console, on_gpu = tables.stdout(), SETTINGS[self.scale].gpus > 0
        tables.dry_run(console, self.store, graph, records, damaged, missing, cores(), on_gpu, alone)
        for sentence in filter(None, (kind_of(sweep).plan_note for sweep in self.sweeps)):
            console.print(sentence, highlight=False, soft_wrap=True, markup=False)

    def run(
        self,
        *,
        keep: str = "all",
        remake: bool = False,
        workers_per_step: int | None = None,
        gpus_per_worker: float | None = None,
        slots: int | None = None,
        address: str | None = None,
        wait: bool = False,
        dashboard: bool = False,
        json_lines: bool = False,
        curves: bool = False,
        curve_points: SupportsIndex = 0,
        compile: bool = False,
        track: str = "",
    ) -> None:
        """Train what is missing, on Ray; then print tables and claims, and write the files of the results.

        After an interruption, another call resumes from the finished steps. remake: make the finished steps again that
        other versions of your own source files made, and all that descends from them. The other arguments are the
        command's options, described in RunOptions. Raises Failed if a step fails or data are missing, StoreError if the
        root or Ray can't be used, SweepError for ``curves`` with a root that is not a folder.
        """
        options = RunOptions(
            keep=keep,
            workers_per_step=workers_per_step,
            gpus_per_worker=gpus_per_worker,
            slots=slots,
            address=address,
            wait=wait,
            dashboard=dashboard,
            json_lines=json_lines,
            curves=curves,
            curve_points=operator.index(curve_points),
            compile=compile,
            track=track,
        )
        while True:
            try:
                faults = self._run(options, remake)
                break
            except InUse as busy:
                if not wait:
                    raise
                note(f"waiting for {self.store.shown}: {busy}")
                self.store.await_release()
        _raise(faults)

    def draft(self) -> None:
        """Print and draw the finished points, even while the sweep runs. The files go to the root's folder ``drafts``.

        Nothing is trained or locked. Raises Failed if something can't be drawn, StoreError if there are no results.
        """
        self.check_root()
        records, _ = self._survey(self._graph(self.sweeps).ids)
        self._note_other_results()
        _raise([fault for sweep in self.sweeps for fault in self._draft(sweep, records)])

    def explain(self, row: int | str) -> None:
        """Print how a row of the table was made. row: its number, or its step's id. Raises ValueError if absent."""
        from raysslprune.terminal.explain import explain

        self._note_other_results()
        if not kind_of(self.sweep).trains:
            raise ValueError(f"the rows of {self.sweep.name} need no training, so there is nothing to explain")
        explain(tables.stdout(), self.sweep.name, self.sweep.points, str(row), self._records(), self.store)

    def check_root(self) -> None:
        """Raise StoreError if the root does not exist yet."""
        if self.store.is_new():
            raise StoreError(
                f"there are no results in {self.store.shown}; --root must be a folder that a sweep has filled"
            )

    def leftovers(self) -> Leftovers:
        """Return what the root has beside the steps that these sweeps need, and that tables of others need.

        The table of another sweep, scale or seed needs the steps of its rows and all that these were made from. Raises
        StoreError if the root does not exist, or it or one of its tables can't be read.
        """
        self.check_root()
        needed = {*self._graph(self.sweeps).ids}
        own = {(self.scale, sweep.name, point.seed) for sweep in self.sweeps for point in sweep.points}
        others = rows_of_others(self.store, own)
        finished = {step for step, files in self.store.listing().items() if "SUCCESS" in files}
        try:
            behind = self.store.specs({step for steps in others.values() for step in steps}, among=finished)
        except Damaged as damage:
            raise StoreError(f"{damage}; run its sweep again to rebuild it") from damage
        kept = behind.keys() - needed
        tables = sorted(f"{figure} ({scale})" for (scale, figure), steps in others.items() if steps & kept)
        return replace(leftovers.find(self.store, needed | kept), kept=len(kept), tables=tables)

    def _run(self, options: RunOptions, remake: bool) -> list[str]:
        """Train and present all sweeps. Returns a sentence for each fault."""
        store = self.store
        if options.curves and not store.local:
            raise SweepError("--curves needs a root that is a folder, since TensorBoard appends to its files")
        tracker = follow.opened(options.track, store) if options.track else None
        graph = self._graph(self.sweeps, options.keep)
        records, damaged, replaced = self._checked(graph, remake)
        self._note_other_results()
        self._note_too_short(graph)
        reporter = status.Reporter(store, self.sweeps, self.scale, graph, records)
        with self._locked(damaged, replaced) as lock, reporter.reporting():
            execution = Execution(graph, self.sweeps, self.scale, records, store, reporter)
            with self._followed_by(options.track, tracker, graph.ids, reporter):
                failures = execution.train(self.data, options, lock.check)
            records, _ = store.survey(graph.ids)
            faults = self._present(records, execution)
            store.remember()
        self._note_looks(records)
        faults += filter(None, (results.unmeasured(sweep.points, records) for sweep in self.sweeps))
        if failures:
            faults.append(f"steps that failed or were skipped: {failures}; the results above do not include them")
        return faults

    def _followed_by(
        self, name: str, tracker: Tracker | None, ids: Collection[str], reporter: status.Reporter
    ) -> AbstractContextManager[None]:
        """Send finished steps to a tracker inside the block, if there is one."""
        if tracker is None:
            return nullcontext()
        own = Store(self.store.address)  # for another thread

        def told(sentence: str) -> None:
            """Print a note above the progress while this is on the screen."""
            (reporter.progress.note if reporter.progress and reporter.progress.on_screen else note)(sentence)

        follower = follow.Follower(name, tracker, self.sweeps, self.scale, lambda: own.survey(ids)[0], told)
        return follower.following()

    def train_here(self, run: Callable[[Job], object], remake: bool = False) -> dict[str, Record]:
        """Train what is missing without Ray, by calls of ``run``, and write no results; return all steps' records.

        remake: as for :meth:`run`. Raises Failed if data are missing or a file is damaged, StoreError for the root.
        """
        graph = self._graph(self.sweeps)
        records, damaged, replaced = self._checked(graph, remake)
        if jobs := graph.pending(records):
            with self._locked(damaged, replaced):
                try:
                    for job in jobs:
                        run(job)
                except Damaged as damage:
                    where = self.store.set_aside(damage.step_id)
                    raise Failed(f"{damage}; moved to {where}; run the same command to make it again") from damage
                records, _ = self.store.survey(graph.ids)
                self.store.remember()
        return records

    def _checked(self, graph: Plan, remake: bool) -> tuple[dict[str, Record], list[Damaged], list[str]]:
        """Return the records of finished steps, the damage of others, and the ids of steps to replace.

        Raises Failed if something is missing that no job can make, SweepError if a start or a mask does not fit.
        """
        records, damaged = self._survey(graph.ids)
        records, replaced = self._by_other_sources(records, remake)
        missing = [step.missing_in(self.store.shown) for step in graph.not_imported(records)]
        missing = missing or self._missing_data(graph.pending(records), fetch=True)
        if missing:
            raise Failed(missing[0])
        if unfit := self._unfit(graph.pending(records)):
            raise SweepError(unfit[0])
        return records, damaged, replaced

    @contextmanager
    def _locked(self, damaged: Iterable[Damaged], replaced: Sequence[str]) -> Iterator[Held]:
        """Create and lock the root, and set aside the damaged steps and those to replace."""
        store = self.store
        if mended := store.create():
            note(mended)
        with store.lock() as lock:
            if lock.lockless:
                note(lock.lockless)
            for damage in damaged:
                note(f"{damage}; moved to {store.set_aside(damage.step_id)}; it will be made again")
            for step_id in replaced:
                store.set_aside(step_id, "replaced")
                store.drop_checkpoint(step_id)
            yield lock

    def _by_other_sources(self, records: dict[str, Record], remake: bool) -> tuple[dict[str, Record], list[str]]:
        """Find finished steps that other versions of the user's source files made, and print a note for each file.

        Returns the records of the steps that stay done, and the ids of those to replace, children before parents.
        """
        changed = sources.changed(records)
        stay = "these stay done; --remake (remake=True in Python) makes these, and all that descends from them, again"
        again = "these, and all that descends from them, are made again" if remake else stay
        for file, ids in changed.items():
            note(f"{file} has changed since it made {len(ids):,} finished step{'s' * (len(ids) > 1)}; {again}")
        if not remake:
            return records, []
        origins = {step_id for ids in changed.values() for step_id in ids}
        steps = sources.descendants((point.step for sweep in self.sweeps for point in sweep.points), origins)
        replaced = [step.id for step in reversed(steps) if step.id in records]
        return {i: record for i, record in records.items() if i not in set(replaced)}, replaced

    def _present(self, records: Mapping[str, Record], execution: Execution) -> list[str]:
        """Present all sweeps. Returns a sentence for each missing figure."""
        faults: list[str] = []
        try:
            for sweep in self.sweeps:
                studies = execution.searches.get(sweep.name)
                faults += present.present_sweep(sweep, self.scale, records, self.store, self.seeds_hint, studies)
        except Damaged as damage:  # damage that neither sizes nor times revealed
            where = self.store.set_aside(damage.step_id)
            raise Failed(f"{damage}; moved to {where}; run the same command to make it again") from damage
        return faults

    def _note_looks(self, records: Mapping[str, Record]) -> None:
        """Print how many claims are decided, and what was saved by adding seeds for undecided claims only."""
        for sweep in (sweep for sweep in self.sweeps if sweep.looks):
            jobs = self._graph([sweep]).jobs.values()
            done = sum(job.is_done(records) for job in jobs)
            verdicts = judged.judge(sweep.claims, kind_of(sweep).table(self.scale, records))
            decided = sum(verdict.verdict != judged.UNDECIDED for verdict in verdicts)
            note(
                f"{sweep.name}: {decided} of {len(verdicts)} claims are decided; this took {done:,} trainings, where "
                f"{sweep.looks[-1]} seeds of all points take {len(jobs):,}"
            )

    def _draft(self, sweep: Sweep, records: Mapping[str, Record]) -> list[str]:
        """Present the finished points of a sweep. Returns a sentence for each fault."""
        done, points = sum(point.step.id in records for point in sweep.points), len(sweep.points)
        if points and not done:
            return [f"{sweep.name}: none of its {points} points is finished"]
        studies = kind_of(sweep).studies(self.scale, records, self.store, note)
        lacks = f"{points - done} of {points} points are not done" if done < points else ""
        if studies:  # a search trains only the points that it chooses
            lacks = "" if studies.ended else "its search has not ended"
        if lacks:
            note(f"{sweep.name}: {lacks}; this is a draft of what is done")
        try:
            return present.present_sweep(sweep, self.scale, records, self.store, self.seeds_hint, studies, "drafts")
        except Damaged as damage:
            return [f"{damage}; run its sweep again to rebuild it"]

    def _note_other_results(self) -> None:
        """Print what is left out of sweeps, and notes on results in the root of more seeds, an earlier design, or
        another file of the same name.
        """
        fewer: dict[tuple[str, str, str], list[str]] = {}
        for sweep in self.sweeps:
            if sweep.part:
                note(sweep.part)
        for sweep in self.sweeps if not self.store.is_new() else ():
            rows = results.stored_rows(self.store, self.scale, sweep.name)
            steps, seeds = {point.step.id for point in sweep.points}, {point.seed for point in sweep.points}
            stored = {seed for seed, _, _ in rows}
            at = results.stored_looks(self.store, self.scale, sweep.name)
            if at and not sweep.looks:
                call, shell, _ = self.seeds_hint.rpartition("--seeds ")
                by = f"{call}--until-decided --max-seeds " if shell else "until_decided=True, max_seeds="
                note(
                    f"{sweep.name}: the results in {self.store.shown} have seeds that were added until claims were "
                    f"decided; this call has {len(seeds)} seeds; to use them all: {by}{at[-1]}"
                )
            elif stored - seeds:
                more, less, union = (self._in_words(some) for some in (stored, seeds, stored | seeds))
                fewer.setdefault((more, less, union), []).append(sweep.name)
            others = sum(step not in steps for seed, step, _ in rows if seed in seeds)
            path = self.store.path(f"results/{self.scale}/{sweep.name}.parquet")
            if earlier := results.left_out(path, rows, sweep.points):
                note(earlier)
            elif others:
                note(
                    f"{others} of {len(rows)} rows of {path} belong to points that are not in this {sweep.name}; if "
                    "another file of that name wrote them, rename one of the two files, or they overwrite each other's "
                    "results"
                )
        for (more, less, union), names in fewer.items():
            have = f"{more} seeds" if more.isdecimal() else f"the seeds {more}"
            note(
                f"{', '.join(names)}: the results in {self.store.shown} have {have}, this call has {less}; "
                f"to use all{f' {union}' if union.isdecimal() else ''}: {self.seeds_hint}{union}"
            )

    def _in_words(self, seeds: AbstractSet[int]) -> str:
        """Seeds as a command or a notebook takes them."""
        words = seeds_in_words(seeds)
        return words if words.isdecimal() or self.seeds_hint.endswith("--seeds ") else str(sorted(seeds))

    def _missing_data(self, pending: Sequence[Job], fetch: bool) -> list[str]:
        """Return a sentence for each data set that these jobs need and that is incomplete. fetch: download them."""
        missing: list[str] = []
        read = [one.data for job in pending for one in (job.train, *(of for m in job.masks for of in not_read(m)))]
        for kind, argument in dict.fromkeys(catalogue.data_parts(name)[:2] for name in read):
            if kind in catalogue.EMBEDDED and not argument:
                continue
            from raysslprune import data  # imports torch, which takes seconds

            try:
                source = data.source(f"{kind}/{argument}" if argument else kind)
                for remark in source.locate(Path(self.data), fetch) or ():
                    note(remark)
            except (data.DataError, ValueError) as error:
                missing.append(str(error))
        missing = missing or self._miscounted(pending)
        return list(dict.fromkeys(missing))  # two data sets may have the same files

    def _note_too_short(self, graph: Plan) -> None:
        """Print a note on recipes that have too few updates."""
        if sentence := too_short(self.scale, [job.train.recipe for job in graph.jobs.values()]):
            note(sentence)

    def _miscounted(self, pending: Sequence[Job]) -> list[str]:
        """Return a sentence for each data set of these jobs whose training images the scale's file counts wrongly."""
        used = {whole(job.train.data) for job in pending}
        wrong: list[str] = []
        file, *changes = given(self.scale)
        for name, images in SETTINGS[self.scale].counts.items():
            if whole(name) not in used:
                continue
            from raysslprune import data

            try:
                found = data.count(name, self.data)
            except (data.DataError, ValueError) as error:
                wrong.append(str(error))
            else:
                if found != images:
                    changed = any(re.fullmatch(rf"(.+\.)?images={images:_}", change) for change in changes)
                    wrong.append(
                        f"{name} in {self.data} has {found:,} training images, and {'--set' if changed else file} says "
                        f"images = {images}; correct one of the two, because all lengths depend on them"
                    )
        return wrong

    def _unfit(self, pending: Sequence[Job]) -> list[str]:
        """Return a sentence for each start and mask of these jobs that is for images with other channels."""
        wrong: list[str] = []
        for step in (job.train for job in pending):
            start = () if isinstance(step.start, Init) else (("start", step.start.of, step.start.of),)
            mask = () if step.mask is None else (("mask", step.mask, network_of(step.mask)),)
            for role, read, net in (*start, *mask):
                if not isinstance(net, External) and whole(net.data) == whole(step.data):
                    continue
                from raysslprune import data, models  # imports torch, which takes seconds

                try:
                    has = data.channels(step.data, self.data)
                    takes = net.channels if isinstance(net, External) else data.channels(net.data, self.data)
                    shapes = [
                        [weight.shape for weight in models.outline(step.arch, channels).state_dict().values()]
                        for channels in (takes, has)
                    ]
                except (data.DataError, ValueError):  # broken images, or a finished training's, which may be gone
                    continue
                if shapes[0] != shapes[1]:
                    channels = "1 channel" if takes == 1 else f"{takes} channels"
                    wrong.append(
                        f"the {role}, step {read.id}, is for images with {channels}, and {step.data} has {has}"
                    )
        return list(dict.fromkeys(wrong))

    @staticmethod
    def _graph(sweeps: Sequence[Sweep], keep: str = "all") -> Plan:
        points = [point for sweep in sweeps for point in sweep.points]
        drawn = [point.step for sweep in sweeps if kind_of(sweep).draws_weights for point in sweep.points]
        return make_plan(points, weights_of=drawn, keep_all=keep == "all")

    def _survey(self, ids: Sequence[str]) -> tuple[dict[str, Record], list[Damaged]]:
        """Look up these steps in the root, which may not exist yet."""
        return ({}, []) if self.store.is_new() else self.store.survey(ids)

    # ------------------------------------------------------------------ its results

    def table(self) -> pa.Table:
        """Return a row for each finished point (results.SCHEMA), with a note on stderr if some are not finished.

        For a listing, return its rows.
        """
        kind, records, points = kind_of(self.sweep), self._records(), len(self.sweep.points)
        table = kind.table(self.scale, records)
        if lacking := results.unmeasured(self.sweep.points, records):
            note(f"{self.sweep.name}: {lacking}")
        elif len(table) < points and not kind.chooses:  # a search trains only what it chooses
            note(f"{self.sweep.name}: {points - len(table)} of {points} points are not done; run() finishes them")
        return table

    def means(self) -> pa.Table:
        """Return the mean, the standard error and the number of seeds, as ``results.summary`` does."""
        return results.summary(self.table())

    def verdicts(self) -> list[judged.Verdict]:
        """Test each claim on the table; return the verdicts."""
        return judged.judge(self.sweep.claims, self.table()) if self.sweep.claims else []

    def draw(self) -> Canvas:
        """Draw the figure of the finished points. Raises ValueError for a listing, which is only a table."""
        kind = kind_of(self.sweep)
        table = kind.drawn_table(self.sweep.points, self.table(), self.store)
        studies = kind.studies(self.scale, self._records(), self.store, note)
        return _shows_itself(kind.canvas(table, studies and studies.tried))

    # ------------------------------------------------------------------ its masks

    def masks(self) -> tuple[pa.Table, pa.Table]:
        """Return two tables on finished masks: densities of their layers, and overlaps of equally dense masks.

        Their schemas are LAYERS and OVERLAPS in ``results.overlap``. Raises Damaged for a mask that can't be read.
        """
        return overlap.measure(self._masks(), self.store)

    def draw_layers(self) -> Canvas:
        """Draw the density of each layer, by task and level. Raises ValueError if no mask is finished."""
        return self._draw_masks(0, present.draw_layers)

    def draw_overlaps(self) -> Canvas:
        """Draw the overlaps of masks of different tasks or seeds. Raises ValueError if there are none to draw."""
        return self._draw_masks(1, present.draw_overlaps)

    def _draw_masks(self, which: int, draw: Callable[[Sweep, pa.Table], Canvas]) -> Canvas:
        masks = self._masks()
        table = overlap.shown(masks, *overlap.measure(masks, self.store))[which]
        if not len(table):
            raise ValueError(f"{self.sweep.name} has {len(masks)} finished masks, which is too few to draw")
        return _shows_itself(draw(self.sweep, table))

    def _records(self) -> dict[str, Record]:
        return self._survey(make_plan(self.sweep.points).ids)[0]

    def _masks(self) -> list[overlap.Placed]:
        records = self._records()
        return [mask for mask in overlap.placed(self.sweep.points) if mask.mask.id in records]


def _raise(faults: Sequence[str]) -> None:
    """Raise Failed with the last of these sentences, if any, after printing the others."""
    for sentence in faults[:-1]:
        note(sentence)
    if faults:
        raise Failed(faults[-1])


def _scale(name: str | os.PathLike[str], changes: Mapping[str, Any] | Iterable[str]) -> str:
    """Return the scale, read from its file if it has one. Raises SweepError."""
    try:
        return scalefile.scale(name, changes)
    except scalefile.ScaleError as error:
        raise SweepError(str(error)) from error


def _seeds(scale: str, seeds: SupportsIndex | Iterable[SupportsIndex] | None) -> Sequence[int]:
    """Return the seeds, by default the scale's. Raises SweepError for a wrong number or list."""
    if seeds is None:
        return range(SETTINGS[scale].seeds)
    if isinstance(seeds, Iterable) and not isinstance(seeds, str):
        items = list(seeds)
        whole_numbers = (one for one in items if isinstance(one, SupportsIndex) and not isinstance(one, bool))
        named = {*map(operator.index, whole_numbers)}
        if not named or len(named) < len(items) or not all(0 <= seed < 2**31 for seed in named):
            raise SweepError(f"seeds must be different whole numbers from 0, not {items!r:.40}")
        return sorted(named)
    if isinstance(seeds, bool) or not isinstance(seeds, SupportsIndex) or operator.index(seeds) < 1:
        raise SweepError(f"seeds must be a whole number of at least 1, not {seeds!r:.40}")
    return range(operator.index(seeds))


def _looks(until_decided: bool, seeds: object, max_seeds: SupportsIndex | None) -> tuple[int, ...]:
    """Return the numbers of seeds at which claims are judged; () if seeds are not added. Raises SweepError."""
    if until_decided and seeds is not None:
        raise SweepError("a number of seeds can't be combined with until-decided; set max-seeds instead")
    if max_seeds is not None and not until_decided:
        raise SweepError("max-seeds needs until-decided")
    if not until_decided:
        return ()
    count = MAX_SEEDS if max_seeds is None else operator.index(max_seeds)
    if count < judged.MIN_SEEDS:
        raise SweepError(f"max-seeds must be at least {judged.MIN_SEEDS}, not {count}")
    return looks(count)


def _absolute(data: str | os.PathLike[str] | None) -> str:
    """Return the folder of the data sets as an absolute path, since workers run in other folders."""
    return os.path.abspath(catalogue.data_root(data))


def _shows_itself(canvas: Canvas) -> Canvas:
    """Let notebooks show the figure without pyplot. Returns the figure."""
    from raysslprune.figures.ink import save

    canvas._repr_png_ = lambda: save(canvas, "png", dpi=150)  # pyright: ignore[reportAttributeAccessIssue]
    return canvas
