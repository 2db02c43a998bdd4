"""One actor for a whole sweep: masks through Ray's object store, and the progress of running trainings.

One actor holds the masks, because an object dies with the process that put it: a mask that a trial put itself
would be lost with that trial. The file in the store stays the truth; here is only the fast way. A mask that is
not here, because it was dropped, or the actor died and came back empty, is read from its file.
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
"""Bytes of masks to hold; the least recently used go first."""

Packed = dict[str, np.ndarray]
"""Parameter name to packed bits (uint8), as masks.pack gives them."""


class _Board:
    """The actor. Handles travel inside lists: Ray would resolve a bare one to its value."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.size = capacity, 0
        self.masks: OrderedDict[str, tuple[ray.ObjectRef[Packed], int]] = OrderedDict()
        self.progress: dict[str, tuple[int, int]] = {}

    def put(self, mask_id: str, packed: Packed) -> None:
        if mask_id in self.masks:
            return
        size = sum(bits.nbytes for bits in packed.values())
        self.masks[mask_id] = (ray.put(packed), size)
        self.size += size
        self.drop_excess()

    def drop_excess(self) -> None:
        """The least recently used go first; the newest always stays."""
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
    """The actor's name, which differs between drivers: they may share a namespace."""
    return f"raysslprune-exchange-{ray.get_runtime_context().get_job_id()}"


class Exchange:
    """The handle to the actor. Every method is best effort: no failure of Ray's stops a training."""

    def __init__(self, actor: ActorHandle[Any]) -> None:
        self.actor = actor

    @staticmethod
    def start() -> Exchange:
        """Start the actor, on this node, which the sweep can't outlive anyway; should it die, Ray starts it anew.

        An earlier sweep's, in a program that stays connected, may still be there; it makes way.
        """
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        board = ray.remote(_Board).options(
            name=_name(), num_cpus=0, max_restarts=-1, max_task_retries=3, scheduling_strategy=here
        )
        while True:
            with suppress(ValueError):
                ray.kill(ray.get_actor(_name()))
            with suppress(ActorAlreadyExistsError):
                return Exchange(cast("ActorHandle[Any]", board.remote(CAPACITY)))
            time.sleep(0.1)  # the name is free a moment after the actor is gone

    @staticmethod
    def connect() -> Exchange:
        """To the actor that this job's driver started."""
        return Exchange(ray.get_actor(_name()))

    def put(self, mask_id: str, packed: Packed) -> None:
        self.actor.put.remote(mask_id, packed)

    def get(self, mask_id: str) -> Packed | None:
        """The packed mask, read-only and without a copy; None where it must be read from its file."""
        try:
            refs = ray.get(self.actor.get.remote(mask_id), timeout=10)
            return cast(Packed, ray.get(refs[0], timeout=10)) if refs else None
        except RayError:
            return None

    def report(self, job_id: str, seen: int, end: int) -> None:
        self.actor.report.remote(job_id, seen, end)

    def forget(self, job_id: str) -> None:
        self.actor.forget.remote(job_id)

    def training(self) -> dict[str, tuple[int, int]]:
        """Job id to samples seen, and of all."""
        try:
            return cast("dict[str, tuple[int, int]]", ray.get(self.actor.training.remote(), timeout=1))
        except RayError:
            return {}
