"""What a network is trained on: the views, the loss and the metric of a task.

A new task is a file here and a line in ``TASKS``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from torch import Tensor, nn

from raysslprune.data import Dataset
from raysslprune.data.stream import Batch
from raysslprune.data.views import Views
from raysslprune.tasks.labels import Labels
from raysslprune.tasks.rotnet import RotNet


class Task(Protocol):
    """draws: how many uniform numbers each sample needs in each epoch, those of its view included."""

    draws: int

    def outputs(self, data: Dataset) -> int:
        """Width of the head."""
        ...

    def sample(self, views: Views, batch: Batch) -> tuple[Tensor, ...]:
        """What the loss needs of these training samples: views, targets; each with a row for each sample."""
        ...

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        """The mean loss over rows of what :meth:`sample` gave, a scalar to call ``backward`` on."""
        ...

    def evaluate(self, net: nn.Module, data: Dataset) -> dict[str, float]:
        """The task's own metric on the test set, by name, in percent; the network in eval mode."""
        ...


TASKS: dict[str, Task] = {"labels": Labels(), "rotnet": RotNet()}


def find(name: str) -> Task:
    """The task by name. Raises ValueError for a name that is not known."""
    if name not in TASKS:
        raise ValueError(f"task {name!r} is not one of {', '.join(TASKS)}")
    return TASKS[name]
