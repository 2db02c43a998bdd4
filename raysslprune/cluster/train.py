"""One training by Ray Train: in this process, or by several workers that share each batch through torch's DDP.

Several workers are started for each training, which takes 10 to 20 seconds, so this is for trainings of many minutes.
All that must last is in the store; Ray Train stores nothing.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import Any, cast

import ray
import torch
from ray.exceptions import RayError
from ray.train import (
    ControllerError,
    FailureConfig,
    LoggingConfig,
    RunConfig,
    ScalingConfig,
    WorkerGroupError,
    get_context,
)
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from raysslprune.cluster import patches
from raysslprune.cluster.nodes import no_cuda
from raysslprune.cluster.options import NOT_STARTED
from raysslprune.cluster.shared import Exchange
from raysslprune.environment import LAUNCHER, changed
from raysslprune.plan.cost import cores
from raysslprune.spec import Train, dump, load
from raysslprune.store.steps import Store
from raysslprune.training.runner import Runner, Trained


class WorkerLost(Exception):
    """A worker's process died; the training resumes from its last checkpoint when it is run again."""


class Unfit(Exception):
    """A worker's node can't compute on its GPU; every other training would fail there too."""


@dataclass(frozen=True)
class Team:
    """Workers that share a training; for Runner.train_by. gpus: GPUs of each worker; 0: a core.

    title: title of the training in Ray's dashboard.
    """

    workers: int
    gpus: float
    title: str

    def __call__(self, runner: Runner, step: Train, snapshots: set[int], keep_last: bool) -> Trained:
        """Train a step. Raises what the training raises, and WorkerLost."""
        if self.workers == 1:
            return in_this_process(runner, step, snapshots, keep_last)
        options = ("data_root", "checkpoint_every", "curves", "curve_points", "compile")
        config = {
            "root": runner.store.address,
            "runner": {name: getattr(runner, name) for name in options},
            "graph": dump([step]),
            "train": step.id,
            "snapshots": sorted(snapshots),
            "keep_last": keep_last,
            "gpus": self.gpus,
        }
        with tempfile.TemporaryDirectory(prefix="raysslprune-train-") as scratch:
            trainer = TorchTrainer(
                _work,
                train_loop_config=config,
                torch_config=TorchConfig(backend="nccl" if self.gpus == 1 else "gloo"),  # NCCL needs whole GPUs
                scaling_config=ScalingConfig(
                    num_workers=self.workers,
                    use_gpu=self.gpus > 0,
                    resources_per_worker={"CPU": 1, "GPU": self.gpus} if self.gpus else {"CPU": 1},
                ),
                run_config=RunConfig(
                    name=f"{self.title} ({step.id})".replace("/", "-"),
                    storage_path=scratch,
                    worker_runtime_env={"env_vars": {"TORCHELASTIC_USE_AGENT_STORE": "False"}},  # there is no torchrun
                    # else Ray Train would start a new team while some of the first still run, and wait forever
                    failure_config=FailureConfig(max_failures=0, max_preemption_failures=0, controller_failure_limit=0),
                    logging_config=LoggingConfig("ERROR"),
                ),
            )
            try:
                return cast(Trained, trainer.fit().return_value)
            except WorkerGroupError as error:
                raise _cause(error) from error
            except ControllerError as error:
                why = str(error.controller_failure).strip().splitlines()
                raise WorkerLost(f"{NOT_STARTED}: {why[-1] if why else 'no cause is known'}") from error


def in_this_process(runner: Runner, step: Train, snapshots: set[int], keep_last: bool) -> Trained:
    """Train a step in Ray Train's local mode, which costs nothing to start.

    A launcher's variables are unset: with them, Ray Train would wait for the other processes of a team.
    """
    done: list[Trained] = []
    trainer = TorchTrainer(
        lambda: done.append(runner.trained(step, snapshots, keep_last)),
        scaling_config=ScalingConfig(num_workers=0),
        run_config=RunConfig(name=step.id, storage_path=tempfile.gettempdir()),
    )
    with changed(dict.fromkeys(LAUNCHER)):
        trainer.fit()
    return done[0]


def _work(config: dict[str, Any]) -> Trained | None:
    """Train as one of several workers; only rank 0 returns a result. Raises Unfit."""
    if config["gpus"] and (wrong := no_cuda()):
        raise Unfit(f"node {ray.util.get_node_ip_address()} {wrong}")
    torch.set_num_threads(threads(config["gpus"]))
    exchange = Exchange.connect()
    runner = Runner(
        store=Store(config["root"]),
        exchange=exchange,
        device=get_device(),
        progress=exchange.report,
        **config["runner"],
    )
    step = load(config["graph"])[config["train"]]
    assert isinstance(step, Train)
    done = runner.trained(step, set(config["snapshots"]), config["keep_last"])
    return done if get_context().get_world_rank() == 0 else None


def _cause(error: WorkerGroupError) -> Exception:
    """Return Unfit, or WorkerLost if a worker died, since others then fail too; else the first exception."""
    failures = list(error.worker_failures.values())
    if unfit := next((one for one in failures if isinstance(one, Unfit)), None):
        return unfit
    dead = [one for one in failures if isinstance(one, (RayError, *patches.health_check_errors()))]
    return WorkerLost(str(dead[0]).strip().splitlines()[-1].strip()) if dead else failures[0]


def threads(gpus: float) -> int:
    """Return a worker's number of threads: 1, or on a GPU as large a share of the node's cores as of its GPUs."""
    if not gpus:
        return 1  # many small trainings side by side are faster than one that is split
    here = ray.get_runtime_context().get_node_id()
    of_node = next((node["Resources"].get("GPU", 1) for node in ray.nodes() if node["NodeID"] == here), 1)
    return max(1, int(cores() * gpus / of_node))
