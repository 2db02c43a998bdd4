"""One training by Ray Train: in this very process, or by several workers that share each batch through torch's DDP.

Several are started anew for each training, which takes 10 to 20 seconds: that is for trainings of many minutes. What
must outlive them is in the store, as always; Ray Train is not asked to keep anything.
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
from raysslprune.cluster.shared import Exchange
from raysslprune.environment import LAUNCHER, changed
from raysslprune.plan.cost import cores
from raysslprune.spec import Train, dump, load
from raysslprune.store.steps import Store
from raysslprune.training.runner import Runner, Trained


class WorkerLost(Exception):
    """A worker's process died; the training goes on from its last checkpoint when it is run again."""


@dataclass(frozen=True)
class Team:
    """So many workers, with so much of a GPU each (0: a core). What Runner.train_by wants.

    title: of the training, for Ray's dashboard.
    """

    workers: int
    gpus: float
    title: str

    def __call__(self, runner: Runner, step: Train, snapshots: set[int], keep_last: bool) -> Trained:
        """Raises what the training raises, and WorkerLost."""
        if self.workers == 1:
            return in_this_process(runner, step, snapshots, keep_last)
        what = {
            "root": runner.store.address,
            "data": runner.data_root,
            "graph": dump([step]),
            "train": step.id,
            "snapshots": sorted(snapshots),
            "keep_last": keep_last,
            "checkpoint_every": runner.checkpoint_every,
            "curves": runner.curves,
            "gpus": self.gpus,
        }
        with tempfile.TemporaryDirectory(prefix="raysslprune-train-") as scratch:
            trainer = TorchTrainer(
                _work,
                train_loop_config=what,
                torch_config=TorchConfig(backend="nccl" if self.gpus == 1 else "gloo"),  # NCCL wants whole GPUs
                scaling_config=ScalingConfig(
                    num_workers=self.workers,
                    use_gpu=self.gpus > 0,
                    resources_per_worker={"CPU": 1, "GPU": self.gpus} if self.gpus else {"CPU": 1},
                ),
                run_config=RunConfig(
                    name=f"{self.title} ({step.id})".replace("/", "-"),
                    storage_path=scratch,
                    worker_runtime_env={"env_vars": {"TORCHELASTIC_USE_AGENT_STORE": "False"}},  # no torchrun is there
                    # by itself Ray Train would start a team again beside what is left of the first, and wait for ever
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
                raise WorkerLost(f"its workers did not start: {why[-1] if why else 'no cause is known'}") from error


def in_this_process(runner: Runner, step: Train, snapshots: set[int], keep_last: bool) -> Trained:
    """Ray Train's local mode, which costs nothing to start.

    It would take this process for one of a team, and wait for the others, where a launcher's variables are left over.
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


def _work(what: dict[str, Any]) -> Trained | None:
    """What each worker does; only rank 0 has something to say."""
    torch.set_num_threads(threads(what["gpus"]))
    exchange = Exchange.connect()
    runner = Runner(
        store=Store(what["root"]),
        exchange=exchange,
        data_root=what["data"],
        device=get_device(),
        progress=exchange.report,
        checkpoint_every=what["checkpoint_every"],
        curves=what["curves"],
    )
    step = load(what["graph"])[what["train"]]
    assert isinstance(step, Train)
    done = runner.trained(step, set(what["snapshots"]), what["keep_last"])
    return done if get_context().get_world_rank() == 0 else None


def _cause(error: WorkerGroupError) -> Exception:
    """What happened first: a death, which the others only see as a closed connection; else what was raised."""
    failures = list(error.worker_failures.values())
    dead = [one for one in failures if isinstance(one, (RayError, *patches.health_check_errors()))]
    return WorkerLost(str(dead[0]).strip().splitlines()[-1].strip()) if dead else failures[0]


def threads(gpus: float) -> int:
    """Threads of a worker with so much of a GPU: its part of the node's cores, to decode images with; else one."""
    if not gpus:
        return 1  # many small trainings side by side beat one that is split
    here = ray.get_runtime_context().get_node_id()
    of_node = next((node["Resources"].get("GPU", 1) for node in ray.nodes() if node["NodeID"] == here), 1)
    return max(1, int(cores() * gpus / of_node))
