"""Run jobs on a cluster by Ray Tune: a searcher releases the jobs that are ready, and each trial runs job after job.

A trial goes on as long as there is a job for its worker, so torch is imported once a slot and not once a training, and
a job costs Tune a step and not a trial. The actor of a trial that ends is reused for the next one. A job whose process
died is released again, and resumes from its last checkpoint on any slot. Tune stores nothing that must last: the same
command plans again from the store.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher
from ray.util import get_node_ip_address

from raysslprune.catalogue import data_parts
from raysslprune.cluster import patches
from raysslprune.cluster.imports import import_all
from raysslprune.cluster.nodes import SETTINGS, Lifeline, check_nodes, complaint, is_own, no_compiler
from raysslprune.cluster.options import NOT_STARTED, Capacity, RunOptions
from raysslprune.cluster.ray_thread import ClusterError, RayThread
from raysslprune.cluster.reuse import WorkerReuse
from raysslprune.cluster.shared import Exchange
from raysslprune.messages import FAILED, NO_MACHINES
from raysslprune.plan.graph import Job, Plan
from raysslprune.plan.schedule import Schedule
from raysslprune.store.record import Damaged, versions
from raysslprune.store.steps import Store
from raysslprune.words import file_name

KEPT = "finished steps are kept; run the same command again to resume"

RETRIES = 3
"""Retries of a job whose process died without a new checkpoint. A job that raises an exception is not retried."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Values of errno that end the sweep: every further job would fail in the same way."""

MACHINES_WITHIN = 3600.0
"""Seconds without any machine for the jobs that are handed out, after which a sweep ends."""

SETTLED = 10.0
"""Seconds that jobs wait for cores beside those of others before this is reported: Ray may be about to place them."""

MAX_REPAIRS = 100
"""Maximum number of damaged artefacts that a sweep makes again; with more, the disk itself is at fault."""


class Watcher(Protocol):
    """Receiver of a sweep's events; terminal.progress.Progress is one."""

    def slots_are(self, count: int) -> None: ...
    def waits(self, what: str, sentence: str) -> None: ...
    def job_started(self, job: Job, workers: int) -> None: ...
    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None: ...
    def job_failed(self, job: Job, why: str, skipped: int) -> None: ...
    def process_lost(self, job: Job, why: str, seconds: float) -> None: ...
    def note(self, sentence: str) -> None: ...


class JobTrial(tune.Trainable):
    """A trial that runs jobs, one in each step, in a process that has torch imported and the data loaded.

    The driver assigns each job before its step. A trial ends if there is no next job for its worker; its process is
    then reused by another trial.
    """

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """Request a core or GPU for a single worker, which is this process; next to nothing if it starts several."""
        if config["workers"] > 1:
            return tune.PlacementGroupFactory([{"memory": 1}])
        return tune.PlacementGroupFactory([{"CPU": 1, "GPU": config["gpus"]} if config["gpus"] else {"CPU": 1}])

    def setup(self, config: dict[str, Any]) -> None:
        """Leave everything to ``prepare``: an exception here would end the process, whose start takes seconds."""
        self.ready = False

    def assign(self, job: dict[str, Any]) -> None:
        """Set the job of the next step, as ``ReadyJobs.assignment`` returns it."""
        self.assigned = job

    def get_auto_filled_metrics(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Leave the configuration out, with which Tune would fill every result."""
        return {
            name: value for name, value in super().get_auto_filled_metrics(*args, **kwargs).items() if name != "config"
        }

    def prepare(self, config: dict[str, Any]) -> str:
        """Prepare this process, once; return what is wrong with its node, '' if nothing is."""
        import_all()
        import torch

        from raysslprune.cluster.train import threads
        from raysslprune.training.runner import Runner

        alone = config["workers"] == 1
        on_gpu = bool(config["gpus"]) and alone
        wrong = complaint(config["root"], config["data"], config["sources"], config["versions"], gpus=on_gpu)
        if config["compile"]:
            wrong = wrong or no_compiler()
        if wrong:
            return f"node {get_node_ip_address()} {wrong}"
        torch.set_num_threads(threads(config["gpus"]) if alone else 1)
        self.exchange = Exchange.connect()
        self.runner = Runner(
            store=Store(config["root"]),
            exchange=self.exchange,
            data_root=config["data"],
            device=torch.device("cuda" if on_gpu else "cpu"),
            progress=self.exchange.report,
        )
        self.ready = True
        return ""

    def step(self) -> dict[str, Any]:
        """Run the assigned job. The result has one of the keys facts, damaged, lost, unfit, broken and error."""
        try:
            if not self.ready and (unfit := self.prepare(self.config)):
                return {"unfit": unfit}
        except Exception as error:  # not the job's failure: it has not begun
            why = f"node {get_node_ip_address()} can't start a worker: {type(error).__name__}: {error}"
            return {"broken": why, "traceback": traceback.format_exc()}
        job = json.loads(self.assigned["job"])
        try:
            return self._outcome(job)
        finally:
            self.exchange.forget(job["train"])

    def _outcome(self, job: dict[str, Any]) -> dict[str, Any]:
        from raysslprune.cluster.train import Team, Unfit, WorkerLost

        title, runner = self.assigned["title"], self.runner
        patches.set_process_title(f"ray::JobTrial: {title}")
        print(f"{job['train']}: {title}", flush=True)  # for the actor's log in the dashboard
        runner.curves = self.assigned["curves"]
        for option in ("curve_points", "compile"):
            setattr(runner, option, self.config[option])
        runner.train_by = Team(self.config["workers"], self.config["gpus"], title)
        try:
            return {"facts": json.dumps(runner.run(job))}  # Tune would flatten a dict
        except Damaged as damage:
            return {"damaged": damage.step_id, "why": damage.why}
        except WorkerLost as lost:
            return {"lost": str(lost)}
        except Unfit as unfit:
            return {"unfit": str(unfit)}
        except Exception as error:  # the job's failure, not the trial's: this process can run others
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                why = f"can't write to {runner.store.shown}: {os.strerror(error.errno)}"
                return {"unfit": f"{why}; {KEPT}"}
            return {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True


@dataclass(frozen=True, kw_only=True)
class Running:
    """A job that was handed out, its number of workers, and when that was, in seconds since 1970."""

    job: Job
    workers: int
    begun: float


@dataclass(eq=False, repr=False)
class ReadyJobs(Searcher):
    """Searcher for Tune: suggests a trial for the next job whose parents are done, None while there is none, FINISHED
    at the end. A trial whose job has ended goes on with the next one (``go_on``), if it can.

    capacity: returns the cluster's capacity. title: returns a job's title for the dashboard. after_each: called after
    each job, also a failed one; may add jobs to the schedule. check: called often; an exception that it raises ends
    Tune's loop. clock: returns seconds since 1970. placed: returns how many workers have a place on the cluster.
    """

    schedule: Schedule
    plan: Plan
    store: Store
    data_root: str
    watcher: Watcher
    options: RunOptions
    capacity: Callable[[], Capacity]
    title: Callable[[Job], str] = lambda job: job.title
    after_each: Callable[[], None] = lambda: None
    check: Callable[[], None] = lambda: None
    clock: Callable[[], float] = time.time
    placed: Callable[[], int] = lambda: 1
    running: dict[str, Running] = field(default_factory=dict, init=False)
    at_work: set[str] = field(default_factory=set, init=False)
    """Trials whose job has begun on a worker."""
    losses: dict[str, tuple[float | None, int]] = field(default_factory=dict, init=False)
    """By job id: time of the checkpoint at the last death of its process, and number of deaths since then."""
    repairs: int = field(default=0, init=False)
    unfit: str = field(default="", init=False)
    most: int = field(default=0, init=False)
    """The most slots that the cluster had, or could grow to."""
    stuck_at: int = field(default=0, init=False)
    """Slots that were there when the workers of a training waited in vain for more."""
    error: Exception | None = field(default=None, init=False)
    """Exception that ends the sweep."""
    code: int = field(default=FAILED, init=False)
    """Exit code with which ``unfit`` ends the sweep."""
    waits_for: tuple[str, float] = field(default=("", 0.0), init=False)
    """What all jobs that are handed out wait for, '' for nothing, and since when."""

    def __post_init__(self) -> None:
        super().__init__()
        parts = [data_parts(job.train.data) for job in self.plan.jobs.values()]
        self.sources = sorted({"/".join(part[:2]).rstrip("/") for part in parts})
        self.versions = versions()

    def suggest(self, trial_id: str) -> Any:
        """Return the configuration of a trial for the next job, which ``assignment`` returns."""
        self.check()
        if self.unfit:
            raise ClusterError(self.unfit)  # before that node fails more jobs; Tune passes on only errors raised here
        if self.error:
            raise self.error
        if self.schedule.finished:
            return Searcher.FINISHED
        running = self.hand_out(trial_id)
        self.watch()
        if running is None:
            return None
        return {
            "root": self.store.address,
            "data": self.data_root,
            "sources": self.sources,
            "versions": self.versions,
            "workers": running.workers,
            "gpus": self.options.gpus,
            "compile": self.options.compile,
            "curve_points": self.options.curve_points,
        }

    def assignment(self, trial_id: str) -> dict[str, Any]:
        """Return the present job of a trial, as its worker gets it."""
        job = self.running[trial_id].job
        title = self.title(job)
        curves = self.store.path(f"curves/{file_name(f'{title} {job.id}')}")
        return {"job": json.dumps(job.to_plain()), "title": title, "curves": curves if self.options.curves else ""}

    def go_on(self, trial_id: str, result: dict[str, Any]) -> dict[str, Any] | None:
        """Handle a trial's result; return the next job for its worker, None if there is none.

        If trials still wait for a worker, that job is the first of theirs, because it was chosen before; its trial gets
        the next job instead.
        """
        alone = trial_id in self.running and self.running[trial_id].workers == 1
        try:
            self.on_trial_complete(trial_id, result)
            if not alone or self.unfit or "broken" in result:
                return None
            waiting = (trial for trial, run in self.running.items() if trial not in self.at_work and run.workers == 1)
            receiver = next(waiting, trial_id)
            first = self.running.get(receiver)
            running = self.hand_out(receiver, most=1)
            if running is None:
                return None  # the trial that waits takes this worker
            self.running[trial_id] = first or running
            self.at_work.add(trial_id)
            return self.assignment(trial_id)
        except Exception as error:  # Tune would hide it in a text
            self.error = error
            return None

    def hand_out(self, trial_id: str, most: float = math.inf) -> Running | None:
        """Release the next job with its number of workers; return None while there is none with ``most`` at most.

        Jobs are for the workers that the cluster has room for, and for those of one machine that may join: a trial that
        waits for it makes an autoscaler add it, and dies with this process. A job that needs more than one machine is
        asked for as a whole, when no other waits.
        """
        capacity = self._capacity()
        slots = self.options.room(capacity)
        self.watcher.slots_are(slots.there)
        self.most = max(self.most, slots.most)
        taken = sum(run.workers for run in self.running.values())
        self.schedule.allow(lambda parts: self.options.workers(parts, capacity))

        def share(job: Job) -> int:
            limits = (slots.there, slots.asked, slots.most if taken <= slots.there else 0)
            given = (self.schedule.share(job, limit - taken, slots.most) for limit in limits if limit > taken)
            return next(filter(None, given), 0)

        # Chosen before its slot is free, it might not be the best any more
        job = self.schedule.next(lambda job: 0 < share(job) <= most)
        if job is None:
            return None
        workers = share(job)
        self.running[trial_id] = Running(job=job, workers=workers, begun=self.clock())
        self.watcher.job_started(job, workers)
        return self.running[trial_id]

    def _capacity(self) -> Capacity:
        """Return the capacity; without growth if workers have waited in vain for more machines than are there now."""
        capacity = self.capacity()
        there = self.options.room(capacity).there
        return replace(capacity, most=capacity) if there and there == self.stuck_at else capacity

    def watch(self) -> None:
        """Report what all jobs that are handed out wait for, once. Raises ClusterError if no machine comes."""
        what, now = self._lacking(), self.clock()
        if what != self.waits_for[0]:
            self.waits_for = what, now
        waited = now - self.waits_for[1]
        sentence = ""
        if what == "machines":
            sentence = self.options.waits_for_machines(self.capacity(), self.most)
        elif what and waited >= SETTLED:
            sentence = "waiting for cores: others hold the cluster's cores; `ray status` shows what is in use"
        self.watcher.waits(what if sentence else "", sentence)
        if what == "machines" and waited > MACHINES_WITHIN:
            lacking = sentence.removeprefix("waiting for machines: ")
            self.unfit = f"no training could begin for {MACHINES_WITHIN / 60:g} min: {lacking}; {KEPT}"
            self.code = NO_MACHINES
            raise ClusterError(self.unfit)

    def _lacking(self) -> str:
        """Return what all jobs that are handed out wait for: ``machines``, ``cores`` that others hold, or ''."""
        capacity = self.capacity()
        there = self.options.room(capacity).there
        if not self.running:
            return "machines" if self.schedule.ready else ""
        waiting = [run for trial, run in self.running.items() if trial not in self.at_work or run.workers > there]
        if len(waiting) < len(self.running):
            return ""
        if all(run.workers > there for run in waiting):
            return "machines"
        held = capacity.free is not None and capacity.free.workers(self.options.gpus) < 1
        return "cores" if held and not self.placed() else ""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Handle the result of a trial's job; deaths arrive through TrialEvents."""
        if result is None or trial_id not in self.running:
            return
        if "unfit" in result:
            self.unfit = result["unfit"]
            return
        if "lost" in result:
            if result["lost"].startswith(NOT_STARTED):
                self.stuck_at = self.options.room(self.capacity()).there
            self.process_lost(trial_id, result["lost"])
            return
        if "broken" in result:
            self.process_lost(trial_id, result["traceback"], result["broken"])
            return
        job = self._ended(trial_id).job
        if "facts" in result:
            self.schedule.done(job.id)
            self.watcher.job_done(job, json.loads(result["facts"]))
        elif "damaged" in result:
            self._make_again(job, result["damaged"], result["why"])
        else:
            self._fail(job, result["error"], result["traceback"])
        self.after_each()

    def process_lost(self, trial_id: str, cause: str, broken: str = "") -> None:
        """Put a job whose process died back into the schedule, unless its retries are used up.

        broken: why the process could not even start the job; once retries are used up, the sweep fails with this
        reason, and not the job.
        """
        if trial_id not in self.running:
            return
        run = self._ended(trial_id)
        job, saved = run.job, self.store.checkpoint_time(run.job.id)
        before, times = self.losses.get(job.id, (None, 0))
        times = times + 1 if before == saved else 1
        self.losses[job.id] = (saved, times)
        last = cause.strip().splitlines()[-1] if cause.strip() else "no cause is known"
        if times > RETRIES and not broken:
            self._fail(job, f"its process died {times} times without writing a new checkpoint: {last}", cause)
        else:
            if times > RETRIES:
                self.unfit = broken
            else:
                self.watcher.process_lost(job, last, self.clock() - max(run.begun, saved or 0.0))
            self.schedule.redo(job.id, job)
        self.after_each()

    def _ended(self, trial_id: str) -> Running:
        self.at_work.discard(trial_id)
        return self.running.pop(trial_id)

    def _make_again(self, job: Job, step_id: str, why: str) -> None:
        """Set a damaged step aside, and make ``job``, which found the damage, wait for the job that makes it again."""
        self.repairs += 1
        maker = self.plan.maker(step_id, job)
        if maker is None or self.repairs > MAX_REPAIRS:
            self._fail(job, f"step {step_id}: {why}", f"step {step_id}: {why}")
            return
        with suppress(FileNotFoundError):  # another job has just set it aside
            where = self.store.set_aside(step_id)
            self.watcher.note(f"step {step_id}: {why}; moved to {where}; it will be made again")
        self.schedule.redo(job.id, maker)

    def _fail(self, job: Job, why: str, details: str) -> None:
        before = len(self.schedule.skipped)
        self.schedule.fail(job.id)
        name = f"logs/{job.id}.log"
        with suppress(OSError):  # most likely a full disk, which is what ``why`` says already
            self.store.write(name, f"{json.dumps(job.to_plain(), indent=1)}\n\n{details}\n".encode())
            why += f"; details in {self.store.path(name)}"
        self.watcher.job_failed(job, why, len(self.schedule.skipped) - before)

    def __getstate__(self) -> dict[str, Any]:
        """Return an empty state: Tune pickles its searcher for a resume that is never requested."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Save nothing, for the same reason."""


class JobScheduler(FIFOScheduler):
    """Scheduler for Tune: starts trials in their order, and lets those whose job has ended go on with the next.

    Tune's own scans all trials for the next to start; this one has a queue.
    """

    def __init__(self, searcher: ReadyJobs) -> None:
        super().__init__()
        self.searcher = searcher
        self.pending: deque[Trial] = deque()

    @property
    def supports_buffered_results(self) -> bool:
        """Tell Tune not to run several steps of a trial at once: each has its own job."""
        return False

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self.pending.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        while self.pending and self.pending[0].status != Trial.PENDING:
            self.pending.popleft()
        return self.pending[0] if self.pending else None

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        job = self.searcher.go_on(trial.trial_id, result)
        if job is None:
            return self.STOP
        patches.worker_of(trial).assign.remote(job)  # Ray keeps the order of calls: the next step follows
        return self.CONTINUE


class TrialEvents(tune.Callback):
    """Give each trial that starts its first job, and report to the searcher which trials die and why.

    Tune itself tells a searcher only of trials that return.
    """

    def __init__(self, searcher: ReadyJobs) -> None:
        self.searcher = searcher

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.searcher.at_work.add(trial.trial_id)
        patches.worker_of(trial).assign.remote(self.searcher.assignment(trial.trial_id))

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        cause = Path(trial.error_file).read_text() if trial.error_file else ""  # get_error() would find it later
        cause = cause.partition("\n")[2] or cause  # the first line is the time
        if "in its creation task" in cause:  # most likely it can't import this package
            node, last = re.search("ip=([^,)]+)", cause), cause.strip().splitlines()[-1]
            self.searcher.unfit = f"node {node[1] if node else 'of a worker'} can't run raysslprune: {last}"
        self.searcher.process_lost(trial.trial_id, cause)


def run(
    plan: Plan,
    schedule: Schedule,
    store: Store,
    data_root: str,
    watcher: Watcher,
    options: RunOptions | None = None,
    title: Callable[[Job], str] = lambda job: job.title,
    after_each: Callable[[], None] = lambda: None,
    thread: RayThread | None = None,
) -> None:
    """Run a schedule on the connected Ray, on which an Exchange was started; return when no job is left that can run.

    title: returns a job's title for Ray's dashboard. after_each: called after each job, also a failed one; a search
    then adds jobs. thread: the RayThread that this runs in, abandoned if Ray dies. Raises ClusterError if the cluster
    or one of its nodes can't run the schedule.

    The trainable has no parameters besides its configuration: Tune's wrappers would hide its name from the dashboard.
    """
    options, thread = options or RunOptions(), thread or RayThread()
    life = Lifeline(lambda why: thread.abandon(ClusterError(why)))
    searcher = ReadyJobs(
        schedule, plan, store, data_root, watcher, options, lambda: life.capacity, title, after_each, thread.check
    )
    reuse = WorkerReuse()
    options.check({job.parts for job in schedule.waiting.values()}, life.capacity)
    check_nodes(store, data_root, searcher.sources, gpus=options.gpus > 0)
    with tempfile.TemporaryDirectory(prefix="raysslprune-tune-") as scratch:
        tuner = tune.Tuner(
            JobTrial,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=JobScheduler(searcher),
                num_samples=-1,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                progress_reporter=tune.CLIReporter(),  # the one for notebooks would clear the cell
                callbacks=[TrialEvents(searcher), reuse],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # else scratch must be on all nodes
            ),
        )
        try:
            with (
                life.watched(),
                patches.callbacks_not_counted(),
                patches.trials_not_saved(),
                patches.ended_trials_forgotten(),
                patches.ended_steps_forgotten(),
                patches.resources_freed(unless=lambda: life.dead) as placed,
                patches.workers_inherit() if is_own() else patches.workers_given(SETTINGS),
                reuse.patched(),
            ):
                searcher.placed = placed
                tuner.fit()
        except Exception:
            if searcher.unfit:
                raise ClusterError(searcher.unfit, code=searcher.code) from None
            raise
