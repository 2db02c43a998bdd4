"""Criteria of pruning: a score for each weight of a network, the higher, the longer the weight stays.

To add a criterion, write a function from a ``State`` to scores in a file here, a line in ``catalogue.CRITERIA`` and its
name in ``spec.CRITERIA``. How many weights stay, where, and which of those that tie is decided in ``masks``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from torch import Tensor, nn

from raysslprune import catalogue, masks
from raysslprune.masks import Mask, Scores

Tensors = Mapping[str, Tensor]
"""A tensor for each prunable weight of a trunk, by the weight's name and of its shape."""


class State(Protocol):
    """A network in the state that is judged. Everything but weights and mask is computed when it is asked for.

    weights: float32, 0 where the mask has pruned them. mask: the mask under which the network was trained, or which
    earlier passes have left. image: shape of the network's input, (channels, size, size). gradients: of the mean loss
    over all samples, in training mode.
    """

    @property
    def weights(self) -> Tensors: ...
    @property
    def mask(self) -> Mask: ...
    @property
    def image(self) -> tuple[int, int, int]: ...
    @property
    def gradients(self) -> Tensors: ...

    def earlier(self) -> Tensors:
        """The weights in the state that movement is counted from, also under the mask."""
        ...

    def batch_gradients(self, training: bool = True) -> Iterator[tuple[float, Tensors]]:
        """The gradients of the mean loss of each batch, and the batch's fraction of all samples.

        training: BatchNorm normalises by the batch's own statistics; otherwise by running statistics.
        """
        ...

    def mean_gradients(self, training: bool) -> Tensors:
        """The gradients of the mean loss over all samples, as of :meth:`batch_gradients`."""
        ...

    def hessian_times(self, vector: Tensors) -> Tensors:
        """The Hessian of the mean loss over all samples, in training mode, times a vector."""
        ...

    def network(self) -> nn.Module:
        """A new copy of the network, a trunk and a head, under the mask, on the CPU and in evaluation mode."""
        ...


def scores(name: str, state: State) -> Scores:
    """Score the weights of a state by a criterion's name. Raises ValueError for scores that do not fit the weights."""
    criterion: Callable[..., Scores] = catalogue.resolve("criterion", catalogue.CRITERIA, name)
    if name in catalogue.CRITERIA:
        return criterion(state)
    made = criterion(state.weights, _Gradients(state), state.mask)
    for weight, like in state.weights.items():
        score = made.get(weight) if isinstance(made, Mapping) else None
        if not isinstance(score, Tensor) or score.shape != like.shape:
            raise ValueError(
                f"criterion {name!r} must return a mapping with a score for each weight, but {weight} has no tensor of "
                f"shape {tuple(like.shape)} in it"
            )
    return {weight: made[weight].detach().cpu() for weight in state.weights}


class _Gradients(Mapping[str, Tensor]):
    """The gradients of a state, computed at the first look at them: some criteria need none."""

    def __init__(self, state: State) -> None:
        self.state = state

    def __getitem__(self, name: str) -> Tensor:
        return self.state.gradients[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.state.weights)

    def __len__(self) -> int:
        return len(self.state.weights)


def counts(mask: Mask, names: list[str], stay: int, allocation: str) -> dict[str, int]:
    """Number of weights that stay in each layer of ``names``, ``stay`` in all: ``uniform`` or ``erk``.

    ``uniform``: the same fraction of the weights left in each layer. ``erk``: as in masks.erk; a layer that has fewer
    weights left than its share keeps them all.
    """
    room = {name: masks.left(mask, [name]) for name in names}
    if allocation == "erk":
        return masks.erk({name: mask[name].shape for name in names}, stay, room)
    return masks.shared(room, room, stay)
