"""Make or fetch masks: what a training runs under, and what is pruned from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from raysslprune import data, masks, models
from raysslprune.spec import Imported, Mask, Prune, RandomPrune, Shuffle, Train, seed_of, unshuffled
from raysslprune.store.record import MASK, WEIGHTS, versions
from raysslprune.store.steps import Store


class NotImported(Exception):
    """A mask from elsewhere is not in the store. The message is a sentence for the user."""


class Masks(Protocol):
    """A fast way for packed masks to travel; the store is the sure one."""

    def put(self, mask_id: str, packed: dict[str, np.ndarray]) -> None: ...
    def get(self, mask_id: str) -> dict[str, np.ndarray] | None: ...


class NoExchange:
    """Masks by their files only."""

    def put(self, mask_id: str, packed: dict[str, np.ndarray]) -> None: ...

    def get(self, mask_id: str) -> dict[str, np.ndarray] | None:
        return None


@dataclass(kw_only=True)
class MaskMaker:
    """Gives the mask of a step: from the exchange, from the store, or made now.

    data_root: where data sets lie, since the number of an image's channels is in a network's shapes.
    """

    store: Store
    exchange: Masks
    data_root: str = ""
    at_hand: dict[str, bytes] = field(default_factory=dict, init=False, repr=False)
    """Final weights of the training that was just run, by its id: the masks beside it are made from these."""

    def get(self, step: Any) -> masks.Mask:
        """The mask of a step: from the exchange, or its file, or made now and written to both."""
        assert isinstance(step, Mask)
        shapes = self._shapes(step)
        packed = self.exchange.get(step.id)
        if packed is not None:
            return masks.unpack({name: torch.from_numpy(bits.copy()) for name, bits in packed.items()}, shapes)
        if self.store.record(step.id) is not None:
            tensors = from_safetensors(self.store.artefact(step.id, MASK))
        else:
            tensors = self.commit(step, self.make(step, shapes))
        self.exchange.put(step.id, {name: bits.numpy() for name, bits in tensors.items()})
        return masks.unpack(tensors, shapes)

    def commit(self, step: Mask, made: masks.Mask, **facts: Any) -> dict[str, torch.Tensor]:
        """Write a mask to the store; gives it packed."""
        tensors = masks.pack(made)
        in_scope = {name: made[name] for name in self._scope(step, made)}
        metrics = {"density": masks.density(made), "density_in_scope": masks.density(in_scope)}
        self.store.commit(step, {MASK: to_safetensors(tensors)}, metrics, {"versions": versions(), **facts})
        return tensors

    def make(self, step: Mask, shapes: dict[str, torch.Size]) -> masks.Mask:
        if isinstance(step, Imported):
            raise NotImported(step.missing_in(self.store.shown))
        if isinstance(step, Prune):
            trunk = self._weights(step.of, shapes)
            before = masks.full(shapes) if step.of.mask is None else self.get(step.of.mask)
            return masks.prune(trunk, before, step.keep, self._scope(step, shapes))
        generator = torch.Generator().manual_seed(seed_of(step.id))
        if isinstance(step, Shuffle):
            return masks.shuffle(self.get(step.of), generator)
        scope = self._scope(step, shapes)
        total = sum(shapes[name].numel() for name in scope)
        count = masks.left_after(total, step.keep, step.level)
        eligible = None if step.nonzero is None else masks.nonzero(self._weights(step.nonzero, shapes))
        return masks.random(shapes, count, generator, scope, eligible)

    def _weights(self, step: Train, shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
        weights = from_safetensors(self.at_hand.get(step.id) or self.store.artefact(step.id, WEIGHTS))
        return {name: weights[f"trunk.{name}"] for name in shapes}

    def _scope(self, step: Mask, shapes: Iterable[str]) -> list[str]:
        """The tensors that a mask was to prune: of one from elsewhere all."""
        origin = unshuffled(step)
        scope = "all" if isinstance(origin, Imported) else origin.scope
        return masks.scope_names(scope, shapes, models.convolutions(self._trunk(step)))

    def _trunk(self, step: Mask) -> torch.nn.Module:
        origin = unshuffled(step)
        if isinstance(origin, Imported):
            return models.outline(origin.arch, origin.channels)
        net = origin if isinstance(origin, RandomPrune) else origin.of
        return models.outline(net.arch, data.load(net.data, self.data_root).channels)

    def _shapes(self, step: Mask) -> dict[str, torch.Size]:
        return {name: weight.shape for name, weight in models.prunable(self._trunk(step)).items()}
