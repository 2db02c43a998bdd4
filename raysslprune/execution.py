"""Run on Ray what is left of a plan, as one schedule, with the searches that choose among its jobs, and show it."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path

from rich.console import Console

from raysslprune import words
from raysslprune.cluster.options import Capacity, RunOptions
from raysslprune.cluster.ray_thread import ClusterError, RayThread
from raysslprune.environment import changed
from raysslprune.kinds import kind_of
from raysslprune.messages import note
from raysslprune.paper.recipes import NETS
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan import device
from raysslprune.plan.cost import cost_of, gpu_share
from raysslprune.plan.graph import Job, Plan
from raysslprune.plan.looks import Looks
from raysslprune.plan.schedule import Schedule
from raysslprune.results import claims
from raysslprune.store.record import Record
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep
from raysslprune.sweepfile import Claim
from raysslprune.terminal import progress, status


class Execution:
    """The remaining jobs of a plan, and the searches that choose among them."""

    def __init__(
        self,
        graph: Plan,
        sweeps: Sequence[Sweep],
        scale: str,
        records: Mapping[str, Record],
        store: Store,
        report: status.Reporter,
    ) -> None:
        self.graph, self.sweeps, self.scale, self.records = graph, sweeps, scale, records
        self.store, self.report = store, report
        self.cost = cost_of(graph.jobs.values(), records, NETS)
        certain = [p for sweep in sweeps if not kind_of(sweep).chooses and not sweep.looks for p in sweep.points]
        wanted = {job.id for job in graph.behind(certain)}
        self.schedule = Schedule([job for job in graph.pending(records) if job.id in wanted], self.cost.seconds)
        live = (graph, self.schedule)
        studies = {sweep.name: kind_of(sweep).studies(scale, records, store, note, live) for sweep in sweeps}
        self.searches = {name: found for name, found in studies.items() if found is not None}
        self.looks = [
            Looks(sweep.looks, sweep.points, *live, records, partial(self._undecided, sweep))
            for sweep in sweeps
            if sweep.looks
        ]
        self.advance()

    @cached_property
    def _figures(self) -> Mapping[str, str]:
        """Names of the sweeps that need each job, by the job's id."""
        names: dict[str, list[str]] = {}
        for sweep in self.sweeps:
            for job in self.graph.behind(sweep.points):
                names.setdefault(job.id, []).append(sweep.name)
        return {job_id: " ".join(some) for job_id, some in names.items()}

    def title(self, job: Job) -> str:
        """Return the title of a job in Ray's dashboard: its figures, what it trains, and the density of its mask."""
        left = job.train.target_density
        known = "" if math.isnan(left) else f", {left:.3g} left"
        return f"{self._figures[job.id]}: {job.title}{known}"

    def advance(self) -> None:
        """Let each search choose what to train next, if it can, and add seeds to sweeps with undecided claims."""
        for source in (*self.searches.values(), *self.looks):
            source.advance()

    def _undecided(self, sweep: Sweep) -> list[tuple[Claim, str]]:
        """Return the claims that the finished points of a sweep leave undecided, each with its panel."""
        records, _ = self.store.survey(self.graph.ids)
        verdicts = claims.judge(sweep.claims, kind_of(sweep).table(self.scale, records))
        return [(found.claim, found.panel) for found in verdicts if found.verdict == claims.UNDECIDED]

    @changed({})  # restores the environment, which even the import of Ray changes
    def train(self, data_root: str, options: RunOptions, check: Callable[[], None]) -> int:
        """Run the remaining jobs on Ray. Returns the number of jobs that failed or never ran.

        check: called now and then; an exception that it raises ends the training. Raises ClusterError if Ray fails.
        """
        if self.schedule.finished:
            return 0
        log = _log_file(self.store)
        with progress.output_to(log) as terminal:
            console = Console(file=terminal, force_terminal=terminal.isatty(), force_jupyter=False)
            left, total = self.graph.trainings_left(self.records), len(self.graph.jobs)
            done = [job for job in self.graph.jobs.values() if job.is_done(self.records)]
            kind = progress.JsonLines if options.json_lines else progress.Progress
            shown = self.report.progress = kind(console, self.schedule, self.cost.seconds, done, self.cost.guessed)
            most = "at most " if self.searches or self.looks else ""
            shown.say(f"{most}{left} of {total} trainings to run; Ray's own output goes to {log}")
            with shown.shown():
                thread = RayThread()
                thread.run(lambda: self._call_ray(thread, shown, done, data_root, options), check)
            if shown.lost:
                shown.say(shown.losses)
        self.store.mark()
        return len(self.schedule.failed) + len(self.schedule.skipped) + len(self.schedule.waiting)

    def _call_ray(
        self, thread: RayThread, shown: progress.Progress, done: Sequence[Job], data_root: str, options: RunOptions
    ) -> None:
        """Make all calls of Ray, in its thread. done: the jobs that were already in the store."""
        try:
            Path.home()
        except RuntimeError:
            why = "Ray needs a home folder, and this user has none; set HOME to a folder that this user owns"
            raise ClusterError(why) from None
        from raysslprune.cluster import nodes, prometheus, tune  # imports Ray, which takes seconds

        thread.check()
        connection = nodes.connected(
            cpus=options.slots,
            dashboard=options.dashboard,
            abandon=thread.abandon,
            given=options.address,
            note=shown.note,
        )
        with ThreadPoolExecutor(1) as beside, connection as dashboard:
            if options.gpus_per_worker is None:
                options = replace(options, gpus_per_worker=self._share_of_a_gpu(shown.note))
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
                    options,
                    title=self.title,
                    after_each=self.advance,
                    thread=thread,
                )
            beside.submit(import_module, "raysslprune.figures.curves")  # Matplotlib, while Ray's processes end

    def _share_of_a_gpu(self, note: Callable[[str], None]) -> float:
        """Return the GPUs of each worker: the scale's, divided if all networks are small.

        At a scale without, a Ray on this machine alone uses its GPUs if they are faster by estimate, and ``note`` is
        called with a sentence on the choice.
        """
        from raysslprune.cluster import nodes

        of_scale, share = SETTINGS[self.scale].gpus, gpu_share(self.graph.jobs.values(), NETS)
        here = nodes.capacity()
        if of_scale or not here.gpus or not nodes.is_alone():
            return of_scale * share
        found = device.times(self.graph, self.records, NETS, here.cpus, here.gpus)
        fault = nodes.fault_of_gpu() if found.gpus_are_faster else ""
        note(choice(found, here, share, fault))
        return share if found.gpus_are_faster and not fault else 0.0


def choice(found: device.Times, here: Capacity, share: float, fault: str) -> str:
    """Say where trainings run, why, and how to have the other. fault: why the GPUs can't be used, '' if they can."""
    cores = f"{here.cpus:g} core{'s' * (here.cpus != 1)}"
    gpus = f"{here.gpus:g} GPU{'s' * (here.gpus != 1)}"
    both = f"{words.duration(found.on_gpus)} against {words.duration(found.on_cores)}, by estimate"
    if fault:
        return f"trainings use {cores}, because this machine {fault}"
    if found.gpus_are_faster:
        return f"trainings use {gpus} and not {cores}: {both}; to use the cores: --gpus-per-worker 0"
    why = (
        "the speed of these networks on a GPU is not known" if found.guessed else f"that is not clearly faster: {both}"
    )
    return f"trainings use {cores} and not {gpus}: {why}; to use a GPU: --gpus-per-worker {share:g}"


def _dashboard(address: str, own: str) -> str:
    """Say where the dashboard is. own: the token of this sweep's own Ray. Other tokens are secret: never log them."""
    sentence = f"Ray's dashboard: http://{address}"
    if os.environ.get("RAY_AUTH_MODE") != "token":
        return sentence
    own_token = os.environ.get("RAY_AUTH_TOKEN") == own
    return f"{sentence}; log in with {f'the token {own}' if own_token else 'your token'}"


def _log_file(store: Store) -> str:
    if not store.local:
        return os.path.join(tempfile.gettempdir(), f"raysslprune-ray-{words.stamp()}.log")
    folder = store.path("logs")
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, f"ray-{words.stamp()}.log")
