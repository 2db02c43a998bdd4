"""One actor for a whole sweep: masks through Ray's object store, and the progress of running trainings.

The actor itself puts the masks into the object store, because an object dies with the process that put it, such as a
trial. A mask's file is authoritative, and the actor is only faster: a mask that it has dropped, or lost because it died
and was restarted empty, is read from its file.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import suppress
from typing import Any, cast

import numpy as np
import ray
from ray.actor import ActorHandle
from ray.exceptions import ActorAlreadyExistsError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

CAPACITY = 256 << 20
"""Maximum bytes of masks in the object store; the least recently used are dropped first."""

FOUND_WITHIN, FETCHED_WITHIN, GONE_FOR = 3.0, 10.0, 10.0
"""Seconds within which the actor must answer, and a mask must come from it; and seconds without another question after
it did not, in which masks are read from their files."""

Packed = dict[str, np.ndarray]
"""Map from parameter name to packed bits (uint8), as masks.pack returns them."""


class _Board:
    """The actor. It returns references inside lists: Ray would resolve a bare one to its value."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.size = capacity, 0
        self.masks: OrderedDict[str, tuple[ray.ObjectRef[Packed], int]] = OrderedDict()
        self.progress: dict[str, tuple[int, int]] = {}

    def put(self, mask_id: str, packed: Packed) -> None:
        if mask_id not in self.masks:
            size = sum(bits.nbytes for bits in packed.values())
            self.masks[mask_id] = (ray.put(packed), size)
            self.size += size
            self.drop_excess()

    def drop_excess(self) -> None:
        """Drop masks over the capacity, the least recently used first; the newest always stays."""
        while self.size > self.capacity and len(self.masks) > 1:
            self.size -= self.masks.popitem(last=False)[1][1]

    def get(self, mask_id: str) -> list[ray.ObjectRef[Packed]]:
        if mask_id not in self.masks:
            return []
        self.masks.move_to_end(mask_id)
        return [self.masks[mask_id][0]]

    def report(self, job_id: str, seen: int, end: int) -> None:
        self.progress[job_id] = (seen, end)

    def forget(self, job_id: str) -> None:
        self.progress.pop(job_id, None)

    def training(self) -> dict[str, tuple[int, int]]:
        return self.progress


def _name() -> str:
    """Name of the actor, different for each driver, because drivers may share a namespace."""
    return f"raysslprune-exchange-{ray.get_runtime_context().get_job_id()}"


class Exchange:
    """The handle to the actor. Every method is best effort: no failure of Ray stops a training."""

    def __init__(self, actor: ActorHandle[Any]) -> None:
        self.actor = actor
        self._gone_until = 0.0

    @staticmethod
    def start() -> Exchange:
        """Start the actor on this node, which the sweep needs anyway; if it dies, Ray restarts it.

        Ray does not keep to a soft affinity. Without retries, a call fails at once while the actor is gone, instead of
        waiting for its restart. Ray's head keeps no record of its calls, several for each job, so the dashboard lists
        the jobs alone. An actor that an earlier sweep of this program left is ended first.
        """
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        board = ray.remote(_Board).options(
            name=_name(),
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=0,
            scheduling_strategy=here,
            enable_task_events=False,
        )
        while True:
            with suppress(ValueError):
                ray.kill(ray.get_actor(_name()))
            with suppress(ActorAlreadyExistsError):
                return Exchange(cast("ActorHandle[Any]", board.remote(CAPACITY)))
            time.sleep(0.1)  # the name becomes free a moment after the actor's end

    @staticmethod
    def connect() -> Exchange:
        """Connect to the actor that this job's driver started."""
        return Exchange(ray.get_actor(_name()))

    def put(self, mask_id: str, packed: Packed) -> None:
        self.actor.put.remote(mask_id, packed)

    def get(self, mask_id: str) -> Packed | None:
        """Return the packed mask, read-only and without a copy; None if it must be read from its file."""
        if time.monotonic() < self._gone_until:
            return None
        try:
            for ref in ray.get(self.actor.get.remote(mask_id), timeout=FOUND_WITHIN):
                return cast(Packed, ray.get(ref, timeout=FETCHED_WITHIN))
        except RayError:
            self._gone_until = time.monotonic() + GONE_FOR
        return None

    def report(self, job_id: str, seen: int, end: int) -> None:
        self.actor.report.remote(job_id, seen, end)

    def forget(self, job_id: str) -> None:
        self.actor.forget.remote(job_id)

    def training(self) -> dict[str, tuple[int, int]]:
        """Return (samples seen, total) of each running training by job id; empty while the actor does not answer."""
        with suppress(RayError):
            return cast("dict[str, tuple[int, int]]", ray.get(self.actor.training.remote(), timeout=1))
        return {}
