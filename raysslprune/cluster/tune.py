"""Run jobs on a cluster by Ray Tune: a searcher hands out what is ready, and each trial runs one job.

Tune is never the memory: the same command plans again from the store. A trial's actor is used again for the
next trial, so that torch is imported once a slot and not once a training. A job whose process died is handed out again
as a new trial: it goes on from its last checkpoint, wherever there is room.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import Searcher
from ray.util import get_node_ip_address

from raysslprune.catalogue import data_parts
from raysslprune.cluster import patches
from raysslprune.cluster.nodes import SETTINGS, Capacity, Lifeline, Workers, check_nodes, complaint
from raysslprune.cluster.ray_thread import ClusterError, RayThread
from raysslprune.cluster.reuse import WorkerReuse
from raysslprune.cluster.shared import Exchange
from raysslprune.plan.graph import Job, Plan
from raysslprune.plan.schedule import Schedule
from raysslprune.store.record import Damaged, versions
from raysslprune.store.steps import Store

RETRIES = 3
"""Times that a job is tried again after its process died without a new checkpoint. An exception is not tried again."""

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors that end the sweep: every other job would meet them too, and fail faster than good ones work."""

MAX_REPAIRS = 100
"""Damaged artefacts that a sweep makes again before it gives up: a disk that loses what is written to it."""


class Watcher(Protocol):
    """Who is told of what happens; terminal.progress.Progress is one."""

    def slots_are(self, count: int) -> None: ...
    def job_started(self, job: Job, workers: int) -> None: ...
    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None: ...
    def job_failed(self, job: Job, why: str, skipped: int) -> None: ...
    def process_lost(self, job: Job, why: str, seconds: float) -> None: ...
    def note(self, sentence: str) -> None: ...


class JobTrial(tune.Trainable):
    """Runs one job. The process, with torch imported and the data loaded, is used again for the next."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """One worker is this process; several are started by it, and it waits for them."""
        if config["workers"] > 1:
            return tune.PlacementGroupFactory([{"memory": 1}])
        return tune.PlacementGroupFactory([{"CPU": 1, "GPU": config["gpus"]} if config["gpus"] else {"CPU": 1}])

    def setup(self, config: dict[str, Any]) -> None:
        """Nothing yet: what is raised here would end the process, and its start takes seconds."""
        self.ready = False

    def prepare(self, config: dict[str, Any]) -> str:
        """Once in a process; gives what is wrong with this node, '' if nothing is."""
        import torch

        from raysslprune.cluster.train import threads
        from raysslprune.training.runner import Runner

        wrong = complaint(config["root"], config["data"], config["sources"], config["versions"])
        if wrong:
            return f"node {get_node_ip_address()} {wrong}"
        alone = config["workers"] == 1
        torch.set_num_threads(threads(config["gpus"]) if alone else 1)
        self.exchange = Exchange.connect()
        self.runner = Runner(
            store=Store(config["root"]),
            exchange=self.exchange,
            data_root=config["data"],
            device=torch.device("cuda" if config["gpus"] and alone else "cpu"),
            progress=self.exchange.report,
        )
        self.ready = True
        return ""

    def step(self) -> dict[str, Any]:
        from raysslprune.cluster.train import Team, WorkerLost

        try:
            if not self.ready and (unfit := self.prepare(self.config)):
                return {"done": True, "unfit": unfit}
        except Exception as error:  # not the job's failure, since nothing of it was looked at
            why = f"node {get_node_ip_address()} can't start a worker: {type(error).__name__}: {error}"
            return {"done": True, "broken": why, "traceback": traceback.format_exc()}
        job = json.loads(self.config["job"])
        patches.set_process_title(f"ray::JobTrial: {self.config['title']}")
        print(f"{job['train']}: {self.config['title']}", flush=True)  # for the actor's log there
        self.runner.curves = self.config["curves"]
        self.runner.train_by = Team(self.config["workers"], self.config["gpus"], self.config["title"])
        try:
            return {"done": True, "facts": json.dumps(self.runner.run(job))}  # Tune would flatten a dict
        except Damaged as damage:
            return {"done": True, "damaged": damage.step_id, "why": damage.why}
        except WorkerLost as lost:
            return {"done": True, "lost": str(lost)}
        except Exception as error:  # the job's failure, not the trial's: this process is still good
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                why = f"can't write to {self.runner.store.shown}: {os.strerror(error.errno)}"
                return {
                    "done": True,
                    "unfit": f"{why}; what was finished is kept, and the same command goes on from there",
                }
            return {"done": True, "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        finally:
            self.exchange.forget(job["train"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: what must outlive the trial is in the store."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the same job is simply run again."""


@dataclass(frozen=True, kw_only=True)
class Running:
    """A job that was handed out: to how many workers, and when, in seconds since 1970."""

    job: Job
    workers: int
    begun: float


class ReadyJobs(Searcher):
    """Tune's searcher: the next job whose parents are done, None while there is none, FINISHED at the end."""

    def __init__(
        self,
        schedule: Schedule,
        plan: Plan,
        store: Store,
        data_root: str,
        watcher: Watcher,
        workers: Workers,
        capacity: Callable[[], Capacity],
        title: Callable[[Job], str] = lambda job: job.title,
        after_each: Callable[[], None] = lambda: None,
        curves: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        """after_each: called when a job has ended, well or not; may add to the schedule. curves: as in :func:`run`.

        clock: seconds since 1970.
        """
        super().__init__()
        self.clock = clock
        self.curves = curves
        self.title, self.after_each = title, after_each
        self.data_root = data_root
        self.schedule, self.plan, self.store, self.watcher = schedule, plan, store, watcher
        self.workers, self.capacity = workers, capacity
        self.sources = sorted({"/".join(data_parts(job.train.data)[:2]).rstrip("/") for job in plan.jobs.values()})
        self.versions = versions()
        self.running: dict[str, Running] = {}
        self.losses: dict[str, tuple[float | None, int]] = {}
        """Of a job: its checkpoint's time when its process died last, and how often it died with this one."""
        self.repairs = 0
        self.unfit = ""

    def suggest(self, trial_id: str) -> Any:
        """The next job as a trial's configuration."""
        if self.unfit:
            raise ClusterError(self.unfit)  # before that node spoils more; Tune passes on what is raised here only
        if self.schedule.finished:
            return Searcher.FINISHED
        running = self.hand_out(trial_id)
        if running is None:
            return None
        job = running.job
        return {
            "job": json.dumps(job.to_plain()),
            "title": self.title(job),
            "root": self.store.address,
            "data": self.data_root,
            "sources": self.sources,
            "versions": self.versions,
            "workers": running.workers,
            "gpus": self.workers.gpus,
            "curves": self.curves and os.path.join(self.curves, f"{self.title(job)} ({job.id})".replace("/", "-")),
        }

    def hand_out(self, trial_id: str) -> Running | None:
        """The next job with its workers, now running; None while there is none."""
        has = self.capacity()
        slots = has.workers(self.workers.gpus)
        self.watcher.slots_are(slots)
        free = slots - sum(run.workers for run in self.running.values())
        if free < 1:
            return None  # a job that waited for a slot would be chosen before the better ones are ready
        self.schedule.allow(lambda parts: self.workers.count(parts, has))
        job = self.schedule.next(lambda job: self.schedule.share(job, free, slots) > 0)
        if job is None:
            return None
        workers = self.schedule.share(job, free, slots)
        self.running[trial_id] = Running(job=job, workers=workers, begun=self.clock())
        self.watcher.job_started(job, workers)
        return self.running[trial_id]

    def name_of(self, trial: Trial) -> str:
        """For the dashboard."""
        run = self.running.get(trial.trial_id)
        return self.title(run.job) if run else trial.trial_id

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a job gives one result, its last."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Trials that returned; deaths arrive through TrialDeaths."""
        if result is None or trial_id not in self.running:
            return
        if "unfit" in result:
            self.unfit = result["unfit"]
            return
        if "lost" in result:
            self.process_lost(trial_id, result["lost"])
            return
        if "broken" in result:
            self.process_lost(trial_id, result["traceback"], result["broken"])
            return
        job = self.running.pop(trial_id).job
        if "facts" in result:
            self.schedule.done(job.id)
            self.watcher.job_done(job, json.loads(result["facts"]))
        elif "damaged" in result:
            self._make_again(job, result["damaged"], result["why"])
        else:
            self._fail(job, result["error"], result["traceback"])
        self.after_each()

    def process_lost(self, trial_id: str, cause: str, broken: str = "") -> None:
        """The process that ran a job is gone: the job is handed out again, unless this leads nowhere.

        broken: what is wrong with the process, where it could not even begin; then the sweep fails and not the job.
        """
        if trial_id not in self.running:
            return
        run = self.running.pop(trial_id)
        job, saved = run.job, self.store.checkpoint_time(run.job.id)
        before, times = self.losses.get(job.id, (None, 0))
        times = times + 1 if before == saved else 1
        self.losses[job.id] = (saved, times)
        last = cause.strip().splitlines()[-1] if cause.strip() else "no cause is known"
        if times > RETRIES and broken:
            self.unfit = broken
            self.schedule.redo(job.id, job)
        elif times > RETRIES:
            self._fail(job, f"its process failed {times} times without a new checkpoint: {last}", cause)
        else:
            self.watcher.process_lost(job, last, self.clock() - max(run.begun, saved or 0.0))
            self.schedule.redo(job.id, job)
        self.after_each()

    def _make_again(self, job: Job, step_id: str, why: str) -> None:
        """Set a damaged artefact aside and put the job that met it behind the one that makes it."""
        self.repairs += 1
        maker = self.plan.maker(step_id, job)
        if maker is None or self.repairs > MAX_REPAIRS:
            self._fail(job, f"step {step_id}: {why}", f"step {step_id}: {why}")
            return
        try:
            where = self.store.set_aside(step_id)
            self.watcher.note(f"step {step_id}: {why}; set aside in {where} and made again")
        except FileNotFoundError:
            pass  # another job met the same damage a moment ago
        self.schedule.redo(job.id, maker)

    def _fail(self, job: Job, why: str, details: str) -> None:
        before = len(self.schedule.skipped)
        self.schedule.fail(job.id)
        name = f"logs/{job.id}.log"
        try:
            self.store.write(name, f"{json.dumps(job.to_plain(), indent=1)}\n\n{details}\n".encode())
            why += f"; details in {self.store.path(name)}"
        except OSError:
            pass  # a full disk, most likely, which is what the sentence says already
        self.watcher.job_failed(job, why, len(self.schedule.skipped) - before)

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles its parts in order to restore itself, which is never asked of it."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: Tune is never the memory."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing."""


class TrialDeaths(tune.Callback):
    """Tells the searcher which trials' processes died, and why, which Tune does not; and frees memory of the others."""

    def __init__(self, searcher: ReadyJobs) -> None:
        self.searcher = searcher

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        patches.forget_statistics(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        cause = Path(trial.error_file).read_text() if trial.error_file else ""  # get_error() would find it later
        cause = cause.partition("\n")[2] or cause  # the first line says when
        if "in its creation task" in cause:  # it can't import this package, most likely
            node, last = re.search("ip=([^,)]+)", cause), cause.strip().splitlines()[-1]
            self.searcher.unfit = f"node {node[1] if node else 'of a worker'} can't run raysslprune: {last}"
        self.searcher.process_lost(trial.trial_id, cause)


class StopWhenAsked(tune.Callback):
    """Ends Tune's loop when nobody waits for it any more."""

    def __init__(self, thread: RayThread) -> None:
        self.thread = thread

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self.thread.check()

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as of the searcher."""
        return {}


def run(
    plan: Plan,
    schedule: Schedule,
    store: Store,
    data_root: str,
    watcher: Watcher,
    workers: Workers | None = None,
    title: Callable[[Job], str] = lambda job: job.title,
    after_each: Callable[[], None] = lambda: None,
    curves: str = "",
    thread: RayThread | None = None,
) -> None:
    """Run all of a schedule on the connected Ray, where the exchange is; returns when nothing is left that can run.

    workers: that each training is given. title: of a job, for Ray's dashboard. after_each: called when a job has
    ended, well or not; a search adds to the schedule then. curves: a folder for learning curves, '' for none. thread:
    that this runs in; it is abandoned where Ray dies. Raises ClusterError where the cluster or one of its nodes can't
    do it.

    The trainable takes nothing but its configuration: any of Tune's wrappers would hide its name from the dashboard.
    """
    workers, thread = workers or Workers(), thread or RayThread()
    life = Lifeline(lambda why: thread.abandon(ClusterError(why)))
    searcher = ReadyJobs(
        schedule, plan, store, data_root, watcher, workers, lambda: life.capacity, title, after_each, curves
    )
    reuse, resources = WorkerReuse(), patches.resource_manager()
    workers.check({job.parts for job in schedule.waiting.values()}, life.capacity)
    check_nodes(store, data_root, searcher.sources)
    with tempfile.TemporaryDirectory(prefix="raysslprune-tune-") as scratch:
        tuner = tune.Tuner(
            JobTrial,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=lambda trial: searcher.name_of(trial),  # Tune would copy a method, and its searcher
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                progress_reporter=tune.CLIReporter(),  # that of notebooks would clear the cell
                callbacks=[TrialDeaths(searcher), reuse, StopWhenAsked(thread)],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # else scratch must be on all nodes
            ),
        )
        try:
            with (
                life.watched(),
                patches.trials_not_saved(),
                patches.resources_held_by(resources),
                patches.workers_given(SETTINGS),
                reuse.patched(),
            ):
                try:
                    tuner.fit()
                finally:
                    if not life.dead:
                        resources.clear()
        except Exception:
            if searcher.unfit:
                raise ClusterError(searcher.unfit) from None
            raise
