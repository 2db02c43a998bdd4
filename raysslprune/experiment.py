"""A sweep as an object, for notebooks, scripts and the command: plan it, run it, read and draw its results.

    fig3 = Experiment.load("fig3", seeds=3)
    fig3.run()
    fig3.draw()

A sweep made of points in a notebook is as good as one in a file: they share a root, and what one has trained the other
finds.
"""

from __future__ import annotations

import functools
import math
import operator
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, SupportsIndex

import pyarrow as pa
from rich.console import Console

from raysslprune import catalogue, present, results, sweep_loader, words
from raysslprune.cluster.ray_thread import ClusterError, RayThread
from raysslprune.environment import changed
from raysslprune.messages import FAILED, USAGE, note, say
from raysslprune.paper.recipes import NETS
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.cost import cores, cost_of
from raysslprune.plan.graph import Job, Plan, make_plan
from raysslprune.plan.schedule import Schedule
from raysslprune.results import claims as judged
from raysslprune.results import overlap
from raysslprune.spec import target_density
from raysslprune.store.record import Damaged, Record, StoreError
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep, SweepError
from raysslprune.sweepfile import Claim, Figure, Listing, Magnitudes, Point, Search
from raysslprune.terminal import progress, status, tables

if TYPE_CHECKING:
    from raysslprune.figures.ink import Canvas
    from raysslprune.plan.search import Studies


class Failed(Exception):
    """A sweep did not come to its end. Why was said on stderr."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A sweep at a scale, and the root that its results live in.

    data: where data sets lie. Nothing is remembered here: each method looks at what the root has now.
    """

    sweep: Sweep = field(repr=False)
    scale: str
    store: Store = field(repr=False)
    data: str = field(repr=False)

    def __repr__(self) -> str:
        return f"<{self.sweep.name} at scale {self.scale}, {len(self.sweep.points)} points, root {self.store.shown}>"

    @classmethod
    def load(
        cls,
        name: str | os.PathLike[str],
        *,
        scale: str = "laptop",
        seeds: SupportsIndex | None = None,
        root: str | os.PathLike[str] = "runs",
        data: str | os.PathLike[str] | None = None,
    ) -> Experiment:
        """A sweep of the package by its name, or one's own by the path of its file.

        seeds: how many; the scale's by default. root: a folder, s3:// or gs://. data: where data sets lie, as the
        command has it by default. In paths a leading ``~`` is the home folder. Raises SweepError for a sweep that can't
        be used, and StoreError for such a root.
        """
        return cls(
            sweep=sweep_loader.load(name, scale, _seeds(scale, seeds)), scale=scale, store=Store(root), data=_data(data)
        )

    @classmethod
    def of(
        cls,
        points: Callable[[str, int], Iterable[Point]],
        figure: Figure | Magnitudes | Search,
        *,
        name: str,
        claims: Iterable[Claim] = (),
        scale: str = "laptop",
        seeds: SupportsIndex | None = None,
        root: str | os.PathLike[str] = "runs",
        data: str | os.PathLike[str] | None = None,
    ) -> Experiment:
        """A sweep without a file: its points, figure and claims as a file has them. Its results' files begin with name.

        All else is as in :meth:`load`.
        """
        if not re.fullmatch(r"\w[\w.]*", name) or name in sweep_loader.known():
            raise SweepError(f"a sweep of one's own has a name of letters and digits, and a new one, not {name!r}")
        found = tuple(point for seed in range(_seeds(scale, seeds)) for point in points(scale, seed) or ())
        if not found or not all(isinstance(point, Point) for point in found):
            raise SweepError(f"{name}: points(scale, seed) must give one raysslprune.Point or more")
        made = Sweep(name=name, drawing=figure, claims=tuple(claims), points=found)
        sweep_loader.check(made, Path(name))
        return cls(sweep=made, scale=scale, store=Store(root), data=_data(data))

    # ------------------------------------------------------------------ run it

    def plan(self, *, keep: str = "all") -> None:
        """Print what would run, what is done, and what it would cost."""
        graph = planned([self.sweep], keep)
        records, damaged = ({}, []) if self.store.is_new() else self.store.survey(graph.ids)
        tell_of_results([self.sweep], self.scale, self.store, _SEEDS_HINT)
        missing = missing_data(graph.pending(records), self.data, fetch=False)
        on_gpu, alone = SETTINGS[self.scale].gpus > 0, {self.sweep.name: graph}
        tables.dry_run(tables.stdout(), self.store, graph, records, damaged, missing, cores(), on_gpu, alone)

    def run(
        self,
        *,
        keep: str = "all",
        workers_per_step: int | None = None,
        gpus_per_worker: float | None = None,
        dashboard: bool = False,
        curves: bool = False,
    ) -> None:
        """Train what is missing, on Ray; then print tables and claims, and write the results' files.

        Interrupted, or called again, it goes on from what is done. The arguments are the command's options. Raises
        Failed where a step failed or data are missing, and StoreError where the root or Ray can't be used.
        """
        gpus = SETTINGS[self.scale].gpus if gpus_per_worker is None else gpus_per_worker
        how = RunOptions(
            workers_per_step=workers_per_step,
            gpus_per_worker=gpus,
            dashboard=dashboard,
            curves=curves,
            seeds_hint=_SEEDS_HINT,
        )
        if make([self.sweep], self.scale, self.store, self.data, keep, how):
            raise Failed(
                f"{self.sweep.name} did not come to its end; what was finished is kept. See what is said above"
            )

    def explain(self, row: int | str) -> None:
        """Print how a row of the table came about, by its number or its step's id. Raises ValueError."""
        from raysslprune.terminal.explain import explain

        explain(tables.stdout(), self.sweep.name, self.sweep.points, str(row), self._records(), self.store)

    # ------------------------------------------------------------------ what came out

    def table(self) -> pa.Table:
        """A row for each point whose training is done (results.SCHEMA), with a note on stderr where some are not.

        Of a listing, its rows.
        """
        if isinstance(self.sweep.drawing, Listing):
            return results.listing(self.sweep.drawing, self.sweep.rows)
        records = self._records()
        table = results.table(self.sweep.name, self.scale, self.sweep.points, records)
        points = len(self.sweep.points)
        if lacking := results.unmeasured(self.sweep.points, records):
            note(f"{self.sweep.name}: {lacking}")
        elif len(table) < points and not isinstance(self.sweep.drawing, Search):  # which trains only what it chooses
            note(f"{self.sweep.name}: {points - len(table)} of {points} points are not done; run() goes on with them")
        return table

    def means(self) -> pa.Table:
        """Over seeds: mean, standard error and n."""
        return results.summary(self.table())

    def verdicts(self) -> list[judged.Verdict]:
        """Each claim, tested on the table."""
        return judged.judge(self.sweep.claims, self.table()) if self.sweep.claims else []

    def draw(self) -> Canvas:
        """The figure of what is done. Raises ValueError for a listing, which is a table only."""
        table = self.table()
        if isinstance(self.sweep.drawing, Magnitudes):
            table = results.magnitudes(self.sweep.points, self.store)
        studies = studies_of(self.sweep, self.scale, self._records(), self.store)
        return _shown(present.draw(self.sweep, table, studies and studies.tried))

    # ------------------------------------------------------------------ its masks

    def masks(self) -> tuple[pa.Table, pa.Table]:
        """What each mask that is done keeps of each layer, and how much each two of a level share: LAYERS and
        OVERLAPS of ``results.overlap``. Raises Damaged for one that can't be read.
        """
        return overlap.measure(self._masks(), self.store)

    def draw_layers(self) -> Canvas:
        """What is left of each layer, by task and level. Raises ValueError where no mask is done."""
        return self._draw_masks("layers")

    def draw_overlaps(self) -> Canvas:
        """How much the masks of different tasks or seeds share. Raises ValueError where no two are done."""
        return self._draw_masks("overlap")

    def _draw_masks(self, which: str) -> Canvas:
        masks = self._masks()
        layers, pairs = overlap.shown(masks, *overlap.measure(masks, self.store))
        table = {"layers": layers, "overlap": pairs}[which]
        if not len(table):
            raise ValueError(f"{self.sweep.name} has {len(masks)} masks that are done, which is too few to draw")
        return _shown(present.draw_masks(self.sweep, which, table))

    def _records(self) -> dict[str, Record]:
        return {} if self.store.is_new() else self.store.survey(make_plan(self.sweep.points).ids)[0]

    def _masks(self) -> list[overlap.Placed]:
        records = self._records()
        return [mask for mask in overlap.placed(self.sweep.points) if mask.mask.id in records]


_SEEDS_HINT = "seeds="
"""How a notebook asks for more seeds, before their number."""


def _seeds(scale: str, seeds: SupportsIndex | None) -> int:
    """Raises SweepError for an unknown scale, and for what is no number of seeds."""
    if scale not in SETTINGS:
        raise SweepError(f"there is no scale {scale!r}, only {', '.join(SETTINGS)}")
    if seeds is None:
        return SETTINGS[scale].seeds
    if isinstance(seeds, bool) or not isinstance(seeds, SupportsIndex) or operator.index(seeds) < 1:
        raise SweepError(f"seeds are a number from 1, not {seeds!r:.40}")
    return operator.index(seeds)


def _data(given: str | os.PathLike[str] | None) -> str:
    return os.path.abspath(catalogue.data_root(given))


def _shown(canvas: Canvas) -> Canvas:
    """The same, which a notebook shows as it is, without pyplot."""
    canvas._repr_png_ = functools.partial(_png, canvas)  # pyright: ignore[reportAttributeAccessIssue]
    return canvas


def _png(canvas: Canvas) -> bytes:
    from raysslprune.figures.ink import save

    return save(canvas, "png", dpi=150)


SEEDS_HINT = "--seeds "
"""How the command asks for more seeds, before their number."""


# ------------------------------------------------------------------------------------- a whole run


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a sweep runs, which changes no result.

    workers_per_step, gpus_per_worker: what a training is given, as in cluster.nodes.Workers. dashboard: whether a Ray
    that is started here has one. json_lines: report progress as JSON. curves: write learning curves. seeds_hint: what
    a person types before the number of seeds, to have more.
    """

    workers_per_step: int | None = None
    gpus_per_worker: float = 0.0
    dashboard: bool = False
    json_lines: bool = False
    curves: bool = False
    seeds_hint: str = SEEDS_HINT


def make(
    sweeps: Sequence[Sweep],
    scale: str,
    store: Store,
    data_root: str,
    keep: str = "all",
    options: RunOptions | None = None,
) -> int:
    """Train what the sweeps need and the store does not have, and draw them. Returns the exit code.

    keep: ``all`` final weights or only those that are ``needed``. Raises SweepError, StoreError and OSError.
    """
    options = options or RunOptions()
    if options.curves and not store.local:
        return say("--curves wants a root that is a folder, since TensorBoard's files are written bit by bit", USAGE)
    graph = planned(sweeps, keep)
    records, damaged = ({}, []) if store.is_new() else store.survey(graph.ids)
    for mask in graph.not_imported(records):
        return say(mask.missing_in(store.shown), FAILED)
    for sentence in missing_data(graph.pending(records), data_root, fetch=True):
        return say(sentence, FAILED)
    tell_of_results(sweeps, scale, store, options.seeds_hint)
    if mended := store.create():
        note(mended)
    with store.lock() as held, status.Reporter(store, sweeps, scale, graph, records).reporting() as report:
        if held.lockless:
            note(held.lockless)
        _set_aside(store, damaged)
        run = _Run(graph, sweeps, scale, records, store, report)
        failures = run.train(data_root, options, held.check)
        records, _ = store.survey(graph.ids)
        try:
            codes = [
                present.present_sweep(sweep, scale, records, store, options.seeds_hint, run.searches.get(sweep.name))
                for sweep in sweeps
            ]
        except Damaged as damage:  # that neither sizes nor times told
            why = f"step {damage.step_id}: {damage.why}; set aside in {store.set_aside(damage.step_id)}"
            return say(f"{why}; the same command makes it again", FAILED)
        store.remember()
    lacking = [sentence for sweep in sweeps if (sentence := results.unmeasured(sweep.points, records))]
    for sentence in lacking:
        say(sentence, FAILED)
    if failures:
        return say(f"steps that failed or were skipped: {failures}; the results above are without them", FAILED)
    return FAILED if lacking else max(codes, default=0)


def draw_drafts(sweeps: Sequence[Sweep], scale: str, store: Store) -> int:
    """Draw what is done of the sweeps, also while they run. Returns the exit code. Raises StoreError and OSError.

    It trains nothing and takes no lock. What it writes are drafts: a sweep alone writes results.
    """
    if store.is_new():
        raise StoreError(f"there are no results in {store.shown}; --root wants the folder of a sweep")
    records, _ = store.survey(planned(sweeps, "all").ids)
    tell_of_results(sweeps, scale, store)
    code = 0
    for sweep in sweeps:
        done, points = sum(point.step.id in records for point in sweep.points), len(sweep.points)
        if points and not done:
            code = say(f"{sweep.name}: none of its {points} points is done", FAILED)
            continue
        studies = studies_of(sweep, scale, records, store)
        lacks = f"{points - done} of {points} points are not done" if done < points else ""
        if studies:  # which trains only what it chooses
            lacks = "" if studies.ended else "its search has not ended"
        if lacks:
            note(f"{sweep.name}: {lacks}; this is a draft of what is done")
        try:
            code = present.present_sweep(sweep, scale, records, store, SEEDS_HINT, studies, folder="drafts") or code
        except Damaged as damage:
            code = say(f"step {damage.step_id}: {damage.why}; the sweep's own command makes it again", FAILED)
    return code


def studies_of(sweep: Sweep, scale: str, records: Mapping[str, Record], store: Store) -> Studies | None:
    """The studies of a search as far as they are, to be looked at."""
    if not isinstance(sweep.drawing, Search):
        return None
    from raysslprune.plan.search import Studies  # imports Optuna, which takes a second

    graph, nothing = make_plan(sweep.points), Schedule([], {})
    return Studies(f"{sweep.name}-{scale}", sweep.drawing.trials, sweep.points, graph, nothing, records, store, note)


def planned(sweeps: Sequence[Sweep], keep: str) -> Plan:
    """All of these sweeps together; keep as in :func:`make`."""
    points = [point for sweep in sweeps for point in sweep.points]
    drawn = [p.step for sweep in sweeps if isinstance(sweep.drawing, Magnitudes) for p in sweep.points]
    return make_plan(points, weights_of=drawn, keep_all=keep == "all")


def tell_of_results(sweeps: Sequence[Sweep], scale: str, store: Store, seeds_hint: str = SEEDS_HINT) -> None:
    """Note which results in the root have more seeds than these sweeps, or points of another file of that name.

    seeds_hint: as RunOptions has it.
    """
    fewer: dict[tuple[int, int], list[str]] = {}
    for sweep in sweeps if not store.is_new() else ():
        rows, steps = results.stored_rows(store, scale, sweep.name), {point.step.id for point in sweep.points}
        seeds, had = {point.seed for point in sweep.points}, {seed for seed, _ in rows}
        if len(had) > len(seeds):
            fewer.setdefault((len(had), len(seeds)), []).append(sweep.name)
        others = sum(step not in steps for seed, step in rows if seed in seeds)
        if others:
            path = store.path(f"results/{scale}/{sweep.name}.parquet")
            note(
                f"{others} of {len(rows)} rows of {path} are of points that this {sweep.name} does not have; if "
                "another file of that name made them, rename one of the two, or each replaces what the other wrote"
            )
    for (more, less), of in fewer.items():
        note(
            f"{', '.join(of)}: the results in {store.shown} are of {more} seeds, and this is of {less}; for all of "
            f"them: {seeds_hint}{more}"
        )


def missing_data(pending: Sequence[Job], root: str, fetch: bool) -> list[str]:
    """A sentence for each data set that the pending jobs need and that is not whole under the data root."""
    wanted = dict.fromkeys(catalogue.data_parts(job.train.data)[:2] for job in pending)
    missing: list[str] = []
    for kind, argument in wanted:
        if kind in catalogue.EMBEDDED and not argument:
            continue
        from raysslprune import data  # imports torch, which takes seconds

        try:
            for remark in data.source(f"{kind}/{argument}" if argument else kind).locate(Path(root), fetch) or ():
                note(remark)
        except (data.DataError, ValueError) as error:
            missing.append(str(error))
    return missing


class _Run:
    """What is left of a plan, and the searches that choose among some of it."""

    def __init__(
        self,
        graph: Plan,
        sweeps: Sequence[Sweep],
        scale: str,
        records: Mapping[str, Record],
        store: Store,
        report: status.Reporter,
    ) -> None:
        self.report = report
        self.graph, self.records, self.store, self.sweeps = graph, records, store, sweeps
        self.figures: dict[str, list[str]] = {}
        """Which sweeps need a job, by its id; found out when it is asked."""
        self.cost = cost_of(graph.jobs.values(), records, NETS)
        chosen = [sweep for sweep in sweeps if isinstance(sweep.drawing, Search)]
        certain = [point for sweep in sweeps if sweep not in chosen for point in sweep.points]
        wanted = {job.id for job in graph.behind(certain)}
        self.schedule = Schedule([job for job in graph.pending(records) if job.id in wanted], self.cost.seconds)
        self.searches: dict[str, Studies] = {}
        for sweep in chosen:
            from raysslprune.plan.search import Studies  # imports Optuna, which takes a second

            assert isinstance(sweep.drawing, Search)
            try:
                self.searches[sweep.name] = Studies(
                    f"{sweep.name}-{scale}",
                    sweep.drawing.trials,
                    sweep.points,
                    graph,
                    self.schedule,
                    records,
                    store,
                    note,
                )
            except ValueError as error:
                raise SweepError(f"{sweep.name}: {error}") from error
        self.advance()

    def title(self, job: Job) -> str:
        """For Ray's dashboard: for which figures, what, and how much is left of it."""
        if not self.figures:
            for sweep in self.sweeps:
                for one in self.graph.behind(sweep.points):
                    self.figures[one.id] = [*self.figures.get(one.id, []), sweep.name]
        left = target_density(job.train.mask)
        known = "" if math.isnan(left) else f", {left:.3g} left"
        return f"{' '.join(self.figures[job.id])}: {job.title}{known}"

    def advance(self) -> None:
        for studies in self.searches.values():
            studies.advance()

    @changed({})  # to import Ray changes it, too
    def train(self, data_root: str, options: RunOptions, check: Callable[[], None]) -> int:
        """Run what there is to run on Ray; gives the number of jobs that failed or were skipped.

        check: called now and then; what it raises ends the training.
        """
        if self.schedule.finished:
            return 0
        log = _log_file(self.store)
        with progress.output_to(log) as terminal:
            console = Console(file=terminal, force_terminal=terminal.isatty(), force_jupyter=False)
            left, of = self.graph.trainings_left(self.records), len(self.graph.jobs)
            done = [job for job in self.graph.jobs.values() if job.is_done(self.records)]
            kind = progress.JsonLines if options.json_lines else progress.Progress
            shown = self.report.progress = kind(console, self.schedule, self.cost.seconds, done, self.cost.guessed)
            most = "at most " if self.searches else ""
            shown.say(f"{most}{left} of {of} trainings to run; Ray's own output goes to {log}")
            with shown.shown():
                thread = RayThread()
                try:
                    thread.run(lambda: self._on_ray(thread, shown, done, data_root, options), check)
                except ClusterError as error:
                    raise StoreError(str(error)) from error
            if shown.lost:
                shown.say(shown.losses)
        self.store.mark()
        return len(self.schedule.failed) + len(self.schedule.skipped) + len(self.schedule.waiting)

    def _on_ray(
        self,
        thread: RayThread,
        shown: progress.Progress,
        done: Sequence[Job],
        data_root: str,
        options: RunOptions,
    ) -> None:
        """All that calls Ray, in its thread. done: the jobs that the store already had."""
        try:
            Path.home()
        except RuntimeError:
            raise ClusterError(
                "Ray wants a home folder, and this user has none: set HOME to a folder that is this user's own"
            ) from None
        from raysslprune.cluster import nodes, prometheus, tune  # imports Ray, which takes seconds

        workers = nodes.Workers(per_step=options.workers_per_step, gpus=options.gpus_per_worker)
        thread.check()
        with nodes.connected(dashboard=options.dashboard, abandon=thread.abandon) as dashboard:
            if options.dashboard:
                shown.note(_dashboard(dashboard, nodes.OWN_TOKEN))
            thread.check()
            metrics = prometheus.Monitor(self.schedule, done)
            exchange = tune.Exchange.start()
            with shown.watching(exchange.training), metrics.watching(exchange.training):
                tune.run(
                    self.graph,
                    self.schedule,
                    self.store,
                    data_root,
                    prometheus.Watchers(shown, metrics),
                    workers=workers,
                    title=self.title,
                    after_each=self.advance,
                    curves=self.store.path("curves") if options.curves else "",
                    thread=thread,
                )


def _dashboard(address: str, own: str) -> str:
    """own: the token of a Ray that is nobody's but this sweep's; another is a secret, and this may be logged."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    asks = f", which asks for {f'the token {own}' if token == own else 'your token'}"
    return f"Ray's dashboard: http://{address}{asks if os.environ.get('RAY_AUTH_MODE') == 'token' else ''}"


def _set_aside(store: Store, damaged: Sequence[Damaged]) -> None:
    for damage in damaged:
        where = store.set_aside(damage.step_id)
        note(f"step {damage.step_id}: {damage.why}; set aside in {where}, and made again")


def _log_file(store: Store) -> str:
    if not store.local:
        return os.path.join(tempfile.gettempdir(), f"raysslprune-ray-{words.stamp()}.log")
    folder = store.path("logs")
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, f"ray-{words.stamp()}.log")
