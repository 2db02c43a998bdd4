"""``python -m raysslprune.sweep fig3``: from a sweep file to its table, claims and figure.

The same command again goes on where the last one ended; when nothing is missing it only draws.
"""

from __future__ import annotations

from raysslprune import process

if __name__ == "__main__":
    process.begin()

import argparse
import math
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from raysslprune import claims, names, picture, plan, progress, results, status, terminal
from raysslprune.command import FAILED, STOPPED, USAGE, Parser, count, note, say, told
from raysslprune.environment import changed
from raysslprune.loader import Sweep, SweepError, known, load
from raysslprune.ray_thread import ClusterError, RayThread
from raysslprune.recipes import NETS
from raysslprune.scales import SETTINGS
from raysslprune.store import Damaged, Record, Store, StoreError
from raysslprune.sweepfile import Listing, Magnitudes, Search

if TYPE_CHECKING:
    from raysslprune.search import Studies


@told
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return say(KEPT, STOPPED)
    except SweepError as error:
        return say(str(error), USAGE)
    except StoreError as error:
        return say(str(error), FAILED)
    except OSError as error:
        return say(f"{error}; what was finished is kept, and the same command goes on from there", FAILED)


def _run(options: argparse.Namespace) -> int:
    wanted = known() if "all" in options.sweeps else list(dict.fromkeys(options.sweeps))
    seeds = options.seeds or SETTINGS[options.scale].seeds
    sweeps = [load(name, options.scale, seeds) for name in wanted]
    stems = [sweep.name for sweep in sweeps]
    if len(set(stems)) < len(stems):
        raise SweepError(f"two sweeps of one name would write to the same files: {', '.join(wanted)}")
    store = Store(options.root)
    if options.draw:
        if options.dry_run or options.explain is not None:
            raise SweepError("--draw goes neither with --dry-run nor with --explain")
        return draw(sweeps, options.scale, store)
    if not options.dry_run and options.explain is None:
        gpus = SETTINGS[options.scale].gpus if options.gpus_per_worker is None else options.gpus_per_worker
        how = Manner(
            workers_per_step=options.workers_per_step,
            gpus_per_worker=gpus,
            dashboard=options.dashboard,
            json_lines=options.json_lines,
            curves=options.curves,
        )
        return make(sweeps, options.scale, store, os.path.abspath(options.data), options.keep, how)
    graph = planned(sweeps, options.keep)
    records, damaged = ({}, []) if store.is_new() else store.survey(graph.ids)
    tell_of_results(sweeps, options.scale, store)
    if options.explain is not None:
        return _explain(sweeps, options.explain, records, store)
    missing = missing_data(graph.pending(records), os.path.abspath(options.data), fetch=False)
    missing += [mask.missing_in(store.shown) for mask in graph.not_imported(records)]
    alone = {sweep.name: planned([sweep], options.keep) for sweep in sweeps}
    gpu = SETTINGS[options.scale].gpus > 0
    terminal.dry_run(terminal.stdout(), store, graph, records, damaged, missing, progress.cores(), gpu, alone)
    for sweep in sweeps:
        if isinstance(sweep.drawing, Search):
            sentence = f"{sweep.name}: all candidates are counted; Optuna trains {sweep.drawing.trials} in each study"
            terminal.stdout().print(sentence, highlight=False, soft_wrap=True, markup=False)
    return 0


KEPT = (
    "stopped; every finished step is kept, and the same command goes on from there; with --draw it draws what is there"
)

ASKING = "--seeds "


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a sweep runs, which changes no result.

    workers_per_step, gpus_per_worker: what a training is given, as in cluster.Workers. dashboard: whether a Ray that
    is started here has one. json_lines: tell how it goes on as JSON. curves: write learning curves. asking: what a
    person types to have more seeds, but for their number.
    """

    workers_per_step: int | None = None
    gpus_per_worker: float = 0.0
    dashboard: bool = False
    json_lines: bool = False
    curves: bool = False
    asking: str = ASKING


def make(
    sweeps: Sequence[Sweep],
    scale: str,
    store: Store,
    data_root: str,
    keep: str = "all",
    manner: Manner | None = None,
) -> int:
    """Train what the sweeps need and the store does not have, and draw them. Returns the exit code.

    keep: ``all`` final weights or only those that are ``needed``. Raises SweepError, StoreError and OSError.
    """
    manner = manner or Manner()
    if manner.curves and not store.local:
        return say("--curves wants a root that is a folder, since TensorBoard's files are written bit by bit", USAGE)
    graph = planned(sweeps, keep)
    records, damaged = ({}, []) if store.is_new() else store.survey(graph.ids)
    for mask in graph.not_imported(records):
        return say(mask.missing_in(store.shown), FAILED)
    for sentence in missing_data(graph.pending(records), data_root, fetch=True):
        return say(sentence, FAILED)
    tell_of_results(sweeps, scale, store, manner.asking)
    if mended := store.create():
        note(mended)
    with store.lock() as held, status.Reporter(store, sweeps, scale, graph, records).reporting() as report:
        if held.lockless:
            note(held.lockless)
        _set_aside(store, damaged)
        run = _Run(graph, sweeps, scale, records, store, report)
        failures = run.train(data_root, manner, held.check)
        records, _ = store.survey(graph.ids)
        try:
            codes = [
                _present(sweep, scale, records, store, manner.asking, run.searches.get(sweep.name)) for sweep in sweeps
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


def draw(sweeps: Sequence[Sweep], scale: str, store: Store) -> int:
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
            code = _present(sweep, scale, records, store, ASKING, studies, folder="drafts") or code
        except Damaged as damage:
            code = say(f"step {damage.step_id}: {damage.why}; the sweep's own command makes it again", FAILED)
    return code


def studies_of(sweep: Sweep, scale: str, records: Mapping[str, Record], store: Store) -> Studies | None:
    """The studies of a search as far as they are, to be looked at."""
    if not isinstance(sweep.drawing, Search):
        return None
    from raysslprune.search import Studies  # imports Optuna, which takes a second

    graph, nothing = plan.make(sweep.points), plan.Schedule([], {})
    return Studies(f"{sweep.name}-{scale}", sweep.drawing.trials, sweep.points, graph, nothing, records, store, note)


def planned(sweeps: Sequence[Sweep], keep: str) -> plan.Plan:
    """All of these sweeps together; keep as in :func:`make`."""
    points = [point for sweep in sweeps for point in sweep.points]
    drawn = [p.step for sweep in sweeps if isinstance(sweep.drawing, Magnitudes) for p in sweep.points]
    return plan.make(points, weights_of=drawn, keep_all=keep == "all")


def tell_of_results(sweeps: Sequence[Sweep], scale: str, store: Store, asking: str = ASKING) -> None:
    """Note which results in the root have more seeds than these sweeps, or points of another file of that name.

    asking: as Manner has it.
    """
    fewer: dict[tuple[int, int], list[str]] = {}
    for sweep in sweeps if not store.is_new() else ():
        rows, steps = results.held(store, scale, sweep.name), {point.step.id for point in sweep.points}
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
            f"them: {asking}{more}"
        )


def _explain(sweeps: Sequence[Sweep], row: str, records: Mapping[str, Record], store: Store) -> int:
    """How a row of a table came about."""
    from raysslprune.explain import explain

    if len(sweeps) > 1:
        raise SweepError("--explain wants one sweep: the rows of which table?")
    if isinstance(sweeps[0].drawing, Listing):
        raise SweepError(f"there is nothing behind the rows of {sweeps[0].name}: it needs no training")
    try:
        explain(terminal.stdout(), sweeps[0].name, sweeps[0].points, row, records, store)
    except ValueError as error:
        raise SweepError(str(error)) from error
    return 0


def missing_data(pending: Sequence[plan.Job], root: str, fetch: bool) -> list[str]:
    """A sentence for each data set that the pending jobs need and that is not whole under the data root."""
    wanted = dict.fromkeys(names.data_parts(job.train.data)[:2] for job in pending)
    missing: list[str] = []
    for kind, argument in wanted:
        if kind in names.EMBEDDED and not argument:
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
        graph: plan.Plan,
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
        self.cost = plan.cost(graph.jobs.values(), records, NETS)
        chosen = [sweep for sweep in sweeps if isinstance(sweep.drawing, Search)]
        certain = [point for sweep in sweeps if sweep not in chosen for point in sweep.points]
        wanted = {job.id for job in graph.behind(certain)}
        self.schedule = plan.Schedule([job for job in graph.pending(records) if job.id in wanted], self.cost.seconds)
        self.searches: dict[str, Studies] = {}
        for sweep in chosen:
            from raysslprune.search import Studies  # imports Optuna, which takes a second

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

    def title(self, job: plan.Job) -> str:
        """For Ray's dashboard: for which figures, what, and how much is left of it."""
        if not self.figures:
            for sweep in self.sweeps:
                for one in self.graph.behind(sweep.points):
                    self.figures[one.id] = [*self.figures.get(one.id, []), sweep.name]
        left = plan.left(job.train.mask)
        known = "" if math.isnan(left) else f", {left:.3g} left"
        return f"{' '.join(self.figures[job.id])}: {job.title}{known}"

    def advance(self) -> None:
        for studies in self.searches.values():
            studies.advance()

    @changed({})  # to import Ray changes it, too
    def train(self, data_root: str, manner: Manner, check: Callable[[], None]) -> int:
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
            kind = progress.JsonLines if manner.json_lines else progress.Progress
            shown = self.report.progress = kind(console, self.schedule, self.cost.seconds, done, self.cost.guessed)
            most = "at most " if self.searches else ""
            shown.say(f"{most}{left} of {of} trainings to run; Ray's own output goes to {log}")
            with shown.shown():
                thread = RayThread()
                try:
                    thread.run(lambda: self._on_ray(thread, shown, done, data_root, manner), check)
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
        done: Sequence[plan.Job],
        data_root: str,
        manner: Manner,
    ) -> None:
        """All that calls Ray, in its thread. done: the jobs that the store already had."""
        try:
            Path.home()
        except RuntimeError:
            raise ClusterError(
                "Ray wants a home folder, and this user has none: set HOME to a folder that is this user's own"
            ) from None
        from raysslprune import cluster, fanout, monitor  # imports Ray, which takes seconds

        workers = cluster.Workers(per_step=manner.workers_per_step, gpus=manner.gpus_per_worker)
        thread.check()
        with cluster.connected(dashboard=manner.dashboard, abandon=thread.abandon) as dashboard:
            if manner.dashboard:
                shown.note(_dashboard(dashboard, cluster.OWN_TOKEN))
            thread.check()
            metrics = monitor.Monitor(self.schedule, done)
            exchange = fanout.Exchange.start()
            with shown.watching(exchange.training), metrics.watching(exchange.training):
                fanout.run(
                    self.graph,
                    self.schedule,
                    self.store,
                    data_root,
                    monitor.Watchers(shown, metrics),
                    workers=workers,
                    title=self.title,
                    after_each=self.advance,
                    curves=self.store.path("curves") if manner.curves else "",
                    thread=thread,
                )


def _dashboard(address: str, own: str) -> str:
    """own: the token of a Ray that is nobody's but this sweep's; another is a secret, and this may be logged."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    asks = f", which asks for {f'the token {own}' if token == own else 'your token'}"
    return f"Ray's dashboard: http://{address}{asks if os.environ.get('RAY_AUTH_MODE') == 'token' else ''}"


def _present(
    sweep: Sweep,
    scale: str,
    records: Mapping[str, Record],
    store: Store,
    asking: str,
    studies: Studies | None = None,
    folder: str = "results",
) -> int:
    """Table, claims and figure of one sweep, from the store alone. Returns the exit code.

    The figure comes last, so that nothing which goes wrong with it can cost the numbers.
    """
    console, drawing, folder = terminal.stdout(), sweep.drawing, f"{folder}/{scale}"
    if isinstance(drawing, Listing):
        table = results.to_parquet(results.listing(drawing, sweep.rows))
        written = _write(store, folder, sweep.name, {".parquet": table})
        terminal.listing(console, drawing, sweep.rows)
        _tell(written)
        return 0
    table = results.table(sweep.name, scale, sweep.points, records)
    if not len(table):
        return 0
    provenance = results.provenance(sweep.points, records)
    tables = {".parquet": results.to_parquet(table), "-runs.parquet": results.to_parquet(provenance)}
    written = _write(store, folder, sweep.name, tables)
    terminal.table(console, drawing, table)
    terminal.claims(console, claims.judge(sweep.claims, table), of_paper=sweep.name in known(), asking=asking)
    tried = None
    if studies is not None:
        from raysslprune.search import importances

        tried = studies.tried
        terminal.search(console, table, tried, importances(tried))
    drawn, code = table, 0
    if isinstance(drawing, Magnitudes):
        drawn = results.magnitudes(sweep.points, store)
        written += _write(store, folder, sweep.name, {"-magnitudes.parquet": results.to_parquet(drawn)})
    try:
        draw = partial(picture.draw, sweep, drawn, tried)
        written += _write(store, folder, sweep.name, picture.files(sweep.name, draw, "png", "pdf"))
    except picture.NoPicture as fault:
        code = say(str(fault), FAILED)
    _tell(written)
    return code


def _write(store: Store, folder: str, name: str, files: Mapping[str, bytes]) -> list[str]:
    """In a folder of the root; gives where."""
    paths = [f"{folder}/{name}{suffix}" for suffix in files]
    for path, data in zip(paths, files.values(), strict=True):
        store.write(path, data)
    return [store.path(path) for path in paths]


def _tell(written: Sequence[str]) -> None:
    for path in written:
        terminal.stdout().print(path, highlight=False, soft_wrap=True, markup=False)


def _set_aside(store: Store, damaged: Sequence[Damaged]) -> None:
    for damage in damaged:
        where = store.set_aside(damage.step_id)
        note(f"step {damage.step_id}: {damage.why}; set aside in {where}, and made again")


def _log_file(store: Store) -> str:
    if not store.local:
        return os.path.join(tempfile.gettempdir(), f"raysslprune-ray-{progress.stamp()}.log")
    folder = store.path("logs")
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, f"ray-{progress.stamp()}.log")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m raysslprune.sweep",
        description="Train what a figure needs, then draw it. The same command again goes on where it ended.",
        examples=[
            "python -m raysslprune.sweep fig3 --seeds 3",
            "python -m raysslprune.sweep all --scale paper --dry-run",
            "python -m raysslprune.sweep fig3 --draw",
            "python -m raysslprune.sweep fig3 --explain 17",
        ],
        codes="0 all is done; 1 a step, a figure, the store or Ray failed; 2 a wrong call or sweep file; 130 Ctrl-C",
    )
    parser.add_argument(
        "sweeps", nargs="+", metavar="SWEEP", help=f"{', '.join(known())}, all, or a .py file of your own"
    )
    parser.add_argument("--scale", default="laptop", choices=list(SETTINGS), help="how large (default: laptop)")
    parser.add_argument("--seeds", type=count, metavar="N", help="seeds 0 to N-1 (default: the scale's)")
    parser.add_root()
    parser.add_data("; digits come with the package")
    parser.add_argument(
        "--keep",
        default="all",
        choices=["all", "needed"],
        help="final weights to keep: of all trainings (default), or only of those that others start from",
    )
    parser.add_argument(
        "--explain",
        metavar="ROW",
        help="say how a row of the table came about, from its number (from 0) or its step's id, and end",
    )
    parser.add_argument(
        "--workers-per-step",
        type=count,
        metavar="N",
        help="workers that share a training (default: on GPUs as many as the recipe has parts of a batch, else 1)",
    )
    parser.add_argument(
        "--gpus-per-worker",
        type=_fraction,
        metavar="F",
        help="of a worker, 0 to 1; 0.25 puts four trainings on a GPU (default: 1 at scales cifar10 and paper, else 0)",
    )
    parser.add_argument("--dashboard", action="store_true", help="start Ray's dashboard, too, on this machine only")
    parser.add_argument(
        "--json-lines", action="store_true", help="tell how it goes on as an object of JSON a line, on stderr"
    )
    parser.add_argument(
        "--curves", action="store_true", help="write learning curves for TensorBoard to ROOT/curves, a folder each"
    )
    parser.add_argument(
        "--draw", action="store_true", help="train nothing: draw what is done, to ROOT/drafts, also while a sweep runs"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would run and what it would cost, and end")
    return parser


def _fraction(text: str) -> float:
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", text) or not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number from 0 to 1")
    return float(text)


if __name__ == "__main__":
    process.end(main())
