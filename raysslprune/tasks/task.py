"""What a task must provide: views, a head, a loss and a metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from raysslprune.data import Dataset
from raysslprune.data.batches import Batch
from raysslprune.data.views import Views
from raysslprune.spec import Recipe


@dataclass(kw_only=True)
class Task:
    """A task in one training. The dataclass fields of a subclass are its options, which a recipe may set.

    views: how many views of a sample it wants. draws: uniform numbers of its own that it needs for each sample.
    partner: whether the last view is of another image, drawn from the whole training set.
    state: what it remembers between updates, by name; checkpointed, and rewound with the network.
    """

    views: ClassVar[int] = 1
    draws: ClassVar[int] = 0
    partner: ClassVar[bool] = False
    state: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def begin(self, data: Dataset, generator: torch.Generator) -> None:
        """Called once, first of all. ``generator`` is the training's, for a state that is drawn; on the CPU."""

    def pool(self) -> Tensor | None:
        """The training images that are samples, by index; None for all. Their number is an epoch."""
        return None

    def head(self, width: int, data: Dataset) -> nn.Module:
        """From a trunk's features (n, width) to what the loss wants; never pruned."""
        raise NotImplementedError

    def sample(self, views: Views, batch: Batch) -> tuple[Tensor, ...]:
        """What the loss needs of these training samples: views, targets; each with a row for each sample."""
        raise NotImplementedError

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        """The mean loss over the samples whose parts these are, a scalar to call ``backward`` on."""
        raise NotImplementedError

    def updated(self) -> None:
        """Called after each update of the network: the time to change the state."""

    def evaluate(self, net: nn.Module, data: Dataset, recipe: Recipe) -> dict[str, float]:
        """The task's own metrics on the test set, by name; the network in evaluation mode."""
        raise NotImplementedError
