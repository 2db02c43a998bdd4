"""Jobs out to a cluster by Ray Tune: a searcher that hands out what is ready, and trials that run one job each.

Tune is never the memory: the same command plans again from the store. A trial's actor is used again for the
next trial, so that torch is imported once a slot and not once a training.
"""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import ray
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from raysslprune.exchange import Exchange
from raysslprune.plan import Job, Plan, Schedule
from raysslprune.store import Store

RETRIES = 3
"""Times that a job is tried again after the process that ran it died. An exception is not tried again."""

MOST_REPAIRS = 100
"""Damaged artefacts that a sweep makes again before it gives up: a disk that loses what is written to it."""


class ClusterError(Exception):
    """The cluster can't be used. The message is a sentence for the user."""


class Watcher(Protocol):
    """Who is told of what happens; progress.Progress is one."""

    def slots_are(self, count: int) -> None: ...
    def job_started(self, job: Job) -> None: ...
    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None: ...
    def job_failed(self, job: Job, why: str, skipped: int) -> None: ...
    def note(self, sentence: str) -> None: ...


@contextmanager
def cluster(cpus: int | None = None) -> Iterator[None]:
    """A Ray to run on: the one that RAY_ADDRESS names, else one of this machine's own for the time being.

    Its own one asks for a token that only this process and its children know. Raises ClusterError.
    """
    address = os.environ.get("RAY_ADDRESS")
    if address is None and os.environ["RAY_AUTH_MODE"] == "token":
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except Exception as error:
        if address is None:
            raise ClusterError(f"can't start Ray: {error}") from error
        raise ClusterError(
            f"can't reach the Ray cluster at {address} that RAY_ADDRESS names: is it running, and has this process "
            "its token in RAY_AUTH_TOKEN (or RAY_AUTH_MODE=disabled, where it asks for none)?"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


class JobTrial(tune.Trainable):
    """Runs one job. The process, with torch imported and the data loaded, is used again for the next."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        """One core."""
        return tune.PlacementGroupFactory([{"CPU": 1}])

    def setup(self, config: dict[str, Any]) -> None:
        import torch

        from raysslprune.run import Runner, by_ray_train

        torch.set_num_threads(1)  # one job a core: many small trainings side by side beat one that is split
        self.exchange = Exchange.connect()
        self.runner = Runner(
            store=Store(config["root"]),
            exchange=self.exchange,
            data_root=config["data"],
            run_loop=by_ray_train,
            progress=self.exchange.report,
        )

    def step(self) -> dict[str, Any]:
        from raysslprune.store import Damaged

        job = json.loads(self.config["job"])
        try:
            return {"done": True, "facts": json.dumps(self.runner.run(job))}  # Tune would flatten a dict
        except Damaged as damage:
            return {"done": True, "damaged": damage.step_id, "why": damage.why}
        except Exception as error:  # the job's failure, not the trial's: this process is still good
            return {"done": True, "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        finally:
            self.exchange.forget(job["train"])

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: what must outlive the trial is in the store."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: the same job is simply run again."""


class ReadyJobs(Searcher):
    """Tune's searcher: the next job whose parents are done, None while there is none, FINISHED at the end."""

    def __init__(
        self,
        schedule: Schedule,
        plan: Plan,
        store: Store,
        data_root: str,
        watcher: Watcher,
        slots: Callable[[], int],
        after_each: Callable[[], None] = lambda: None,
    ) -> None:
        """after_each: called when a job has ended, well or not; may add to the schedule."""
        super().__init__()
        self.after_each = after_each
        self.data_root = data_root
        self.schedule, self.plan, self.store, self.watcher, self.slots = schedule, plan, store, watcher, slots
        self.jobs: dict[str, Job] = {}
        self.causes: dict[str, str] = {}
        self.repairs = 0

    def suggest(self, trial_id: str) -> Any:
        """The next job as a trial's configuration."""
        if self.schedule.finished:
            return Searcher.FINISHED
        slots = self.slots()
        self.watcher.slots_are(slots)
        if len(self.schedule.running) >= slots:
            return None  # a job that waited for a slot would be chosen before the better ones are ready
        job = self.schedule.next()
        if job is None:
            return None
        self.jobs[trial_id] = job
        self.watcher.job_started(job)
        return {"job": json.dumps(job.to_plain()), "root": self.store.address, "data": self.data_root}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: a job gives one result, its last."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        job = self.jobs.pop(trial_id, None)
        if job is None:
            return
        if result and "facts" in result:
            self.schedule.done(job.id)
            self.watcher.job_done(job, json.loads(result["facts"]))
        elif result and "damaged" in result:
            self._make_again(job, result["damaged"], result["why"])
        else:
            cause = self.causes.get(trial_id, "no cause is known")
            why = (result or {}).get("error") or f"its process failed {RETRIES + 1} times: {cause.splitlines()[-1]}"
            self._fail(job, why, (result or {}).get("traceback") or cause)
        self.after_each()

    def _make_again(self, job: Job, step_id: str, why: str) -> None:
        """Set a damaged artefact aside and put the job that met it behind the one that makes it."""
        self.repairs += 1
        maker = self.plan.maker(step_id, job)
        if maker is None or self.repairs > MOST_REPAIRS:
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


class Causes(tune.Callback):
    """Tells the searcher why a trial's process failed, which Tune keeps from it."""

    def __init__(self, causes: dict[str, str]) -> None:
        self.causes = causes

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        self.causes[trial.trial_id] = str(trial.get_error()).strip()

    on_trial_recover = on_trial_error


def run(
    plan: Plan,
    schedule: Schedule,
    store: Store,
    data_root: str,
    watcher: Watcher,
    after_each: Callable[[], None] = lambda: None,
) -> None:
    """Run all of a schedule on the connected Ray, where the exchange is; returns when nothing is left that can run.

    after_each: called when a job has ended, well or not; a search adds to the schedule then.

    The trainable takes nothing but its configuration: any of Tune's wrappers would hide its name from the dashboard.
    """
    searcher = ReadyJobs(schedule, plan, store, data_root, watcher, _every(5.0, slots), after_each)
    with tempfile.TemporaryDirectory(prefix="raysslprune-tune-") as scratch:
        tune.Tuner(
            JobTrial,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=lambda trial: _trial_name(trial, searcher),
                trial_dirname_creator=lambda trial: trial.trial_id,
            ),
            run_config=tune.RunConfig(
                name="sweep",
                storage_path=scratch,
                verbose=0,
                callbacks=[Causes(searcher.causes)],
                failure_config=tune.FailureConfig(max_failures=RETRIES),
            ),
        ).fit()


def slots() -> int:
    """Jobs that the cluster can run at once."""
    return int(ray.cluster_resources().get("CPU", 0))


def _trial_name(trial: Trial, searcher: ReadyJobs) -> str:
    job = searcher.jobs.get(trial.trial_id)
    return job.title if job else trial.trial_id


def _every(seconds: float, read: Callable[[], int]) -> Callable[[], int]:
    """``read``, but asked again only after that many seconds."""
    last, value = -math.inf, 0

    def current() -> int:
        nonlocal last, value
        if time.monotonic() - last >= seconds:
            last, value = time.monotonic(), read()
        return value

    return current
