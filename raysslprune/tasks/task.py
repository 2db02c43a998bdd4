"""Interface of a task: views, a head, a loss and a metric."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor, nn

from raysslprune.data import Dataset
from raysslprune.data.batches import Batch
from raysslprune.data.views import Views
from raysslprune.models import Network
from raysslprune.spec import Recipe


@dataclass(kw_only=True)
class Task:
    """A task in one training. The dataclass fields of a subclass are its options, which a recipe may set.

    views: number of views of a sample. draws: number of uniform numbers that the task itself needs for each sample.
    partner: True if the last view is of another image, drawn from the whole training set.
    capturable: True if its update can be recorded as a CUDA graph: :meth:`loss` and :meth:`updated` only compute
        with tensors of fixed shapes, and Python reads no value of them.
    whole_batch: True if the loss compares samples of the whole batch, also of those that do not share BatchNorm
        statistics. :meth:`loss` is then called once for an update, with all samples of this process, and gets those of
        other processes by ``parallel.together``.
    state: tensors kept between updates, by name; checkpointed, and rewound with the network.
    """

    views: ClassVar[int] = 1
    draws: ClassVar[int] = 0
    partner: ClassVar[bool] = False
    capturable: ClassVar[bool] = False
    whole_batch: ClassVar[bool] = False
    state: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)

    def begin(self, data: Dataset, generator: torch.Generator) -> None:
        """Prepare for a training; called once, before anything else. generator: the training's, on the CPU."""

    def pool(self) -> Tensor | None:
        """Indices of the training images that are samples; None for all. Their number is the length of an epoch."""
        return None

    def head(self, width: int, data: Dataset) -> nn.Module:
        """Make the layers from a trunk's features (n, width) to the input of the loss; they are never pruned."""
        raise NotImplementedError

    def meet(self, net: Network, recipe: Recipe) -> None:
        """Prepare what depends on the network; called once, with its weights at the start of the training, masked."""

    def twin(self) -> nn.Module | None:
        """A trunk of this task's own with the layers of the network's, to be under the same mask; None without any."""
        return None

    def sample(self, views: Views, batch: Batch) -> tuple[Tensor, ...]:
        """Make the arguments of the loss for a batch of training samples: views, targets; a row for each sample."""
        raise NotImplementedError

    def loss(self, net: Callable[[Tensor], Tensor], *parts: Tensor) -> Tensor:
        """The mean loss, a scalar to call ``backward`` on, over samples as :meth:`sample` returns them."""
        raise NotImplementedError

    def updated(self) -> None:
        """Change the state; called after each update of the network."""

    def evaluate(self, net: nn.Module, data: Dataset, recipe: Recipe) -> dict[str, float]:
        """Measure the task's own metrics on the test set, by name. net: in evaluation mode."""
        raise NotImplementedError
