"""Make or fetch masks: the one that a training runs under, and those that are pruned from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from raysslprune import data, masks, models, sources
from raysslprune.messages import UserError
from raysslprune.spec import External, Imported, ImportedWeights, Mask, Prune, Shuffle, Train, network_of, seed_of
from raysslprune.store.record import EMPTIED, LAYERS, MASK, TIED, WEIGHTS, versions
from raysslprune.store.steps import Store
from raysslprune.training import judge
from raysslprune.training.evidence import Evidence


class NotImported(UserError):
    """An imported mask, or imported weights, are missing in the store."""


class Masks(Protocol):
    """An exchange through which processes share packed masks quickly. It may lose masks; the store does not."""

    def put(self, mask_id: str, packed: dict[str, np.ndarray]) -> None: ...
    def get(self, mask_id: str) -> dict[str, np.ndarray] | None: ...


class NoExchange:
    """An exchange that is always empty, so that masks are read from their files only."""

    def put(self, mask_id: str, packed: dict[str, np.ndarray]) -> None: ...

    def get(self, mask_id: str) -> dict[str, np.ndarray] | None:
        return None


@dataclass(kw_only=True)
class MaskMaker:
    """Source of masks: the exchange, the store, or the steps that they are made from.

    data_root: folder of the data sets, whose number of channels determines a network's shapes. device: where gradients
    are computed.
    """

    store: Store
    exchange: Masks
    data_root: str = ""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    at_hand: dict[str, Mapping[str, bytes]] = field(default_factory=dict, init=False, repr=False)
    """Files of the training that just ran, by its id: masks of its job are made from these."""

    def get(self, step: Any) -> masks.Mask:
        """Get a step's mask from the exchange or its file, or make and write it. Raises NotImported, Damaged."""
        assert isinstance(step, Mask)
        shapes = self._shapes(step)
        packed = self.exchange.get(step.id)
        if packed is not None:
            return masks.unpack({name: torch.from_numpy(bits.copy()) for name, bits in packed.items()}, shapes)
        if self.store.record(step.id) is not None:
            tensors = from_safetensors(self.store.artefact(step.id, MASK))
        else:
            made, facts = self.make(step, shapes)
            tensors = self.commit(step, made, **facts)
        self.exchange.put(step.id, {name: bits.numpy() for name, bits in tensors.items()})
        return masks.unpack(tensors, shapes)

    def commit(self, step: Mask, made: masks.Mask, **facts: Any) -> dict[str, torch.Tensor]:
        """Write a mask to the store and return it packed."""
        tensors = masks.pack(made)
        in_scope = {name: made[name] for name in self._scope(step, made)}
        metrics = {"density": masks.density(made), "density_in_scope": masks.density(in_scope)}
        facts |= {"versions": versions(), LAYERS: masks.densities(made)}
        if made_by := sources.of(step, self.store):
            facts[sources.SOURCES] = made_by
        self.store.commit(step, {MASK: to_safetensors(tensors)}, metrics, facts)
        return tensors

    def make(self, step: Mask, shapes: dict[str, torch.Size]) -> tuple[masks.Mask, dict[str, Any]]:
        """Make a mask, and facts for its record."""
        if isinstance(step, Imported):
            raise NotImported(step.missing_in(self.store.shown))
        generator = torch.Generator().manual_seed(seed_of(step.id))
        if isinstance(step, Prune):
            before = masks.full(shapes) if step.of.mask is None else self.get(step.of.mask)
            of = step.of
            evidence = Evidence(step, before, lambda: self._images(of), self.file, self.device)
            scope = self._scope(step, shapes)
            mask, tied = judge.prune(step, evidence, scope, generator)
            emptied = [name for name in scope if before[name].any() and not mask[name].any()]
            return mask, {TIED: tied, **({EMPTIED: emptied} if emptied else {})}
        if isinstance(step, Shuffle):
            return masks.shuffle(self.get(step.of), generator), {}
        scope = self._scope(step, shapes)
        total = sum(shapes[name].numel() for name in scope)
        count = masks.left_after(total, step.keep, step.level)
        if step.allocation == "erk":
            kept = masks.erk({name: shapes[name] for name in scope}, count)
            return masks.random_in_layers(shapes, kept, generator), {}
        eligible = None if step.nonzero is None else masks.nonzero(self._weights(step.nonzero, shapes))
        return masks.random(shapes, count, generator, scope, eligible), {}

    def _weights(self, step: Train | ImportedWeights, shapes: dict[str, torch.Size]) -> dict[str, torch.Tensor]:
        weights = from_safetensors(self.file(step, WEIGHTS))
        return {name: weights[f"trunk.{name}"] for name in shapes}

    def file(self, step: Train | ImportedWeights, name: str) -> bytes:
        """Read a file of a training: of the one that just ran, or from the store.

        Raises Damaged, and NotImported for weights that are to be imported.
        """
        return self.at_hand.get(step.id, {}).get(name) or self.stored(step, name)

    def stored(self, step: Train | ImportedWeights, name: str) -> bytes:
        """Read a file of a step in the store. Raises as :meth:`file` does."""
        if isinstance(step, ImportedWeights) and self.store.record(step.id) is None:
            raise NotImported(step.missing_in(self.store.shown))
        return self.store.artefact(step.id, name)

    def _images(self, step: Train | ImportedWeights) -> data.Dataset:
        assert isinstance(step, Train)  # nothing asks for images of imported weights
        return data.load(step.data, self.data_root)

    def _scope(self, step: Mask, shapes: Iterable[str]) -> list[str]:
        """Names of the tensors in a mask's scope."""
        return masks.scope_names(step.scope, shapes, models.convolutions(self._trunk(step)))

    def _trunk(self, step: Mask) -> torch.nn.Module:
        net = network_of(step)
        if isinstance(net, External):
            return models.outline(net.arch, net.channels)
        return models.outline(net.arch, data.load(net.data, self.data_root).channels)

    def _shapes(self, step: Mask) -> dict[str, torch.Size]:
        return {name: weight.shape for name, weight in models.prunable(self._trunk(step)).items()}
