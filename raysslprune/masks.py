"""Masks: which weights stay. Bool tensors by parameter name, on the CPU; no files, no Ray.

The one measure is *density*: the fraction of the prunable weights that is left.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from raysslprune.spec import survivors

Mask = dict[str, Tensor]
"""Parameter name to a bool tensor of the parameter's shape, True where the weight stays; every prunable weight."""

NATURAL_ZERO = 2.0**-23
"""The largest magnitude that counts as zero: float32's machine precision. The paper says no more than that."""


def full(shapes: Mapping[str, torch.Size]) -> Mask:
    """The mask under which all weights stay."""
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


def prune(weights: Mapping[str, Tensor], mask: Mask, keep: float, scope: Iterable[str] | None = None) -> Mask:
    """Global magnitude pruning with an exact count (paper 3.1).

    Of the weights that ``mask`` leaves in the tensors named by ``scope`` (None: all), exactly
    ``survivors(left, keep)`` stay: those with the largest (|w|, position), positions counted through the
    tensors in the mask's order. A threshold alone would prune too many or none where magnitudes tie.

    Raises ValueError for a weight that is not a number.
    """
    wanted = set(mask if scope is None else scope)
    names = [name for name in mask if name in wanted]
    magnitude = _magnitudes(weights, {name: mask[name] for name in names})
    left = sum(int(mask[name].count_nonzero()) for name in names)
    stay = survivors(left, keep)
    if stay == left:
        return {name: m.clone() for name, m in mask.items()}
    ranked = magnitude.numpy()
    last = len(ranked) - stay - 1  # of those that go, in the order of magnitudes, where pruned weights come first
    ranked.partition(last)  # in place; seven times faster than torch's kthvalue, which sorts more than is asked for
    threshold = float(ranked[last])
    tied = stay - int((magnitude[last + 1 :] > threshold).count_nonzero())  # of those at the threshold, so many stay
    pruned = dict(mask)
    for name in reversed(names):
        size = weights[name].detach().abs()
        stays = (size > threshold).logical_and_(mask[name])
        if tied:
            ties = ((size == threshold) & mask[name]).flatten().nonzero().flatten()
            kept = ties[max(0, len(ties) - tied) :]
            stays.view(-1)[kept] = True
            tied -= len(kept)
        pruned[name] = stays
    return pruned


def _magnitudes(weights: Mapping[str, Tensor], mask: Mask) -> Tensor:
    """Of all weights named in ``mask``, one after the other; -1 where the mask has pruned them.

    Raises ValueError for a weight that is left and not a number.
    """
    double = any(weights[name].dtype == torch.float64 for name in mask)
    flat = torch.empty(sum(m.numel() for m in mask.values()), dtype=torch.float64 if double else torch.float32)
    for part, (name, m) in zip(flat.split([m.numel() for m in mask.values()]), mask.items(), strict=True):
        part.copy_(weights[name].detach().flatten()).abs_().masked_fill_(m.logical_not().flatten(), -1)
    if len(flat) and flat.amax().isnan():
        raise ValueError("can't prune weights that are not numbers (NaN)")
    return flat


def random(
    shapes: Mapping[str, torch.Size],
    count: int,
    generator: torch.Generator,
    scope: Iterable[str] | None = None,
    eligible: Mask | None = None,
) -> Mask:
    """``count`` weights stay, drawn at random over the tensors of ``scope`` together (the paper's *random* baseline).

    scope: None for all tensors; all weights of the others stay. eligible: only these may stay in the scope, so
    fewer than ``count`` do where there are no more.
    """
    wanted = set(shapes if scope is None else scope)
    mask = full({name: shape for name, shape in shapes.items() if name not in wanted})
    drawn = {name: shape for name, shape in shapes.items() if name in wanted}
    flat = torch.zeros(sum(shape.numel() for shape in drawn.values()), dtype=torch.bool)
    if eligible is None:
        flat[torch.randperm(len(flat), generator=generator)[:count]] = True
    else:
        candidates = torch.cat([eligible[name].flatten() for name in drawn]).nonzero().flatten()
        flat[candidates[torch.randperm(len(candidates), generator=generator)[:count]]] = True
    mask |= _split(flat, drawn)
    return {name: mask[name] for name in shapes}


def nonzero(weights: Mapping[str, Tensor]) -> Mask:
    """Where weights are not *natural zeros*: larger than float32's machine precision (paper 4.3)."""
    return {name: weight.abs() > NATURAL_ZERO for name, weight in weights.items()}


def shuffle(mask: Mask, generator: torch.Generator) -> Mask:
    """The mask with its entries permuted within each tensor: every layer keeps its density and nothing else."""
    return {name: m.flatten()[torch.randperm(m.numel(), generator=generator)].view(m.shape) for name, m in mask.items()}


def left_after(total: int, keep: float, level: int) -> int:
    """How many of ``total`` weights ``level`` rounds of pruning leave, each rounded as :func:`prune` does."""
    for _ in range(level):
        total = survivors(total, keep)
    return total


def density(mask: Mask) -> float:
    """The fraction of the prunable weights that is left."""
    return sum(int(m.sum()) for m in mask.values()) / sum(m.numel() for m in mask.values())


def collapsed_layers(mask: Mask) -> list[str]:
    """Names of the tensors with no weight left: nothing passes through such a layer."""
    return [name for name, m in mask.items() if not m.any()]


def scope_names(scope: str, names: Iterable[str], convolutions: list[str]) -> list[str]:
    """The tensors that a Prune's scope means: ``all``, ``convs``, or ``convs:d`` for the first d convolutions.

    Raises ValueError for another word or a depth that the network does not have.
    """
    if scope == "all":
        return list(names)
    if scope == "convs":
        return convolutions
    depths = {f"convs:{depth}": depth for depth in range(1, len(convolutions) + 1)}
    if scope in depths:
        return convolutions[: depths[scope]]
    raise ValueError(f"scope {scope!r} is not 'all', 'convs', or 'convs:d' with d from 1 to {len(convolutions)}")


def pack(mask: Mask) -> dict[str, Tensor]:
    """As packed bits (uint8, eight weights a byte, first weight in the highest bit): 2.9 MB for ResNet-50."""
    return {name: torch.from_numpy(np.packbits(m.flatten().numpy())) for name, m in mask.items()}


def unpack(packed: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> Mask:
    """The inverse of :func:`pack`. Raises ValueError where names or sizes do not fit ``shapes``."""
    if list(packed) != list(shapes) and set(packed) != set(shapes):
        raise ValueError("the mask is of another network: its layers' names differ")
    return {name: _unpack(packed[name], shape) for name, shape in shapes.items()}


def digest(mask: Mask) -> str:
    """SHA-256, in hexadecimal, of the layers' names and shapes and of which weights stay; in any order of the layers.

    Of each layer in the order of their names: the name, the shape as ``(16, 1, 3, 3)``, a line's end, the packed bits.
    """
    found = hashlib.sha256()
    for name, bits in sorted(pack(mask).items()):
        found.update(f"{name} {tuple(mask[name].shape)}\n".encode() + bits.numpy().tobytes())
    return found.hexdigest()


def _unpack(packed: Tensor, shape: torch.Size) -> Tensor:
    count = shape.numel()
    if packed.shape != (-(-count // 8),):
        raise ValueError("the mask is of another network: its layers' sizes differ")
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=count).view(bool)).view(shape)


def _split(flat: Tensor, shapes: Mapping[str, torch.Size]) -> Mask:
    sizes = [shape.numel() for shape in shapes.values()]
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), flat.split(sizes), strict=True)}
