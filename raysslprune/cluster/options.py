"""What a sweep asks of a cluster, and what a cluster has. Plans and commands need these without importing Ray."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from raysslprune.cluster.ray_thread import ClusterError

NOT_STARTED = "its workers did not start"
"""Beginning of the reason if a cluster had no room for all workers of a training."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Resources of a cluster or of a machine.

    cpus, gpus: those that are there. For a cluster also: most: what it may grow to have, if that is known. machine:
    what a machine has that may join. free: what no work uses.
    """

    cpus: float
    gpus: float
    most: Capacity | None = None
    machine: Capacity | None = None
    free: Capacity | None = None

    def workers(self, gpus: float) -> int:
        """Return how many workers fit. gpus: share of a GPU that each needs besides a core, or 0."""
        return int(min(self.cpus, self.gpus / gpus) if gpus else self.cpus)


@dataclass(frozen=True, kw_only=True)
class Slots:
    """Places for workers, each with a core or a share of a GPU.

    there: on the machines that the cluster has. most: on those that it may grow to have. asked: the limit for jobs that
    are handed out: ``there``, and those of one more machine if the cluster may grow.
    """

    there: int
    most: int
    asked: int


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run that change no result.

    keep: ``all`` final weights, or only those that are ``needed``. workers_per_step: maximum number of workers that
    share a training; None: on GPUs as many as the recipe's batch has parts, as in the paper, if the cluster has so
    many, else one. gpus_per_worker: GPUs of each worker, from 0 (compute on a core) to 1; None: the scale's, divided if
    all networks are small (plan.cost.gpu_share); at a scale without GPUs, those of a sweep's own machine if they are
    faster by estimate (plan.device). slots: maximum number of workers at once, the cores of a Ray that the
    sweep starts, and what an autoscaler may be asked for; None: as many as the cluster has room for. address: address
    of the cluster, as in RAY_ADDRESS, which it overrides. wait: wait for another sweep on the same root. dashboard: if
    the sweep starts Ray, start its dashboard, too. json_lines: report progress as JSON. curves: write learning curves
    for TensorBoard. curve_points: number of points of each training, from its start to its end, at which the task's
    metrics are measured and recorded. compile: compile networks, and launch updates as CUDA graphs. track: tracker that
    gets each finished step as a run, as ``mlflow:ADDRESS`` or ``wandb:PROJECT``; empty: none.
    """

    keep: str = "all"
    workers_per_step: int | None = None
    gpus_per_worker: float | None = None
    slots: int | None = None
    address: str | None = None
    wait: bool = False
    dashboard: bool = False
    json_lines: bool = False
    curves: bool = False
    curve_points: int = 0
    compile: bool = False
    track: str = ""

    @property
    def gpus(self) -> float:
        """GPUs of each worker; 0 if not set."""
        return self.gpus_per_worker or 0.0

    def room(self, capacity: Capacity) -> Slots:
        """Return how many workers the cluster has room for, at most ``slots``.

        If nobody knows what the cluster may grow to, ``slots`` is what it may be asked for.
        """
        there, limit = capacity.workers(self.gpus), self.slots or math.inf
        most = max(there, capacity.most.workers(self.gpus)) if capacity.most else self.slots or there
        more = max(1, capacity.machine.workers(self.gpus) if capacity.machine else 1)
        return Slots(
            there=int(min(there, limit)), most=int(min(most, limit)), asked=int(min(most, there + more, limit))
        )

    def workers(self, parts: int, capacity: Capacity) -> int:
        """Return the maximum number of workers of a training whose batch has ``parts`` parts; it divides ``parts``."""
        limit = self.workers_per_step or (max(1, self.room(capacity).most) if self.gpus else 1)
        return max(count for count in range(1, parts + 1) if parts % count == 0 and count <= limit)

    def check(self, parts: Collection[int], capacity: Capacity) -> None:
        """Check that the cluster can run each step. parts: those of the recipes' batches. Raises ClusterError."""
        gpus, most = self.gpus, capacity.most or capacity
        need = max(self.workers(part, capacity) for part in parts)
        if need <= self.room(capacity).most:
            return
        wanted, advice = f"{gpus:g} GPU and a core" if gpus else "a core", "start Ray with more"
        if need > 1:
            wanted = f"{need} workers with {f'{gpus:g} GPU' if gpus else 'a core'} each"
            advice = "reduce --workers-per-step"
        if gpus and not most.gpus:
            advice = "--gpus-per-worker 0 computes on cores"
        if self.slots and need > self.slots:
            advice = "raise --slots"
        elif not capacity.most:
            advice += "; if it grows by itself, --slots N says how far"
        raise ClusterError(
            f"a step needs {wanted}; this cluster has {most.gpus:g} GPUs and {most.cpus:g} cores at most; {advice}"
        )

    def waits_for_machines(self, capacity: Capacity, most: int) -> str:
        """Return the sentence for a sweep that can't go on without machines. most: slots that the cluster may have."""
        there, unit = (capacity.gpus, "GPUs") if self.gpus else (capacity.cpus, "cores")
        return f"waiting for machines: {there:g} of {most * (self.gpus or 1):g} {unit} are there; `ray status` says why"
