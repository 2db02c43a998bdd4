"""Masks: which weights stay. Bool tensors by parameter name, on the CPU; no files, no Ray.

The one measure is *density*: the fraction of the prunable weights that is left.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from raysslprune.spec import NATURAL_SPARSITIES, survivors

Mask = dict[str, Tensor]
"""A bool tensor for every prunable weight, by parameter name and of its shape: True where the weight stays."""


def full(shapes: Mapping[str, torch.Size]) -> Mask:
    """The mask under which all weights stay."""
    return {name: torch.ones(shape, dtype=torch.bool) for name, shape in shapes.items()}


class Pruned(NamedTuple):
    """A mask, and the number of weights of equal score among which a draw decided: 0 if it decided nothing."""

    mask: Mask
    tied: int


Scores = Mapping[str, Tensor]
"""A score for every prunable weight, by parameter name and of its shape: the higher, the longer it stays."""


def prune(
    weights: Mapping[str, Tensor],
    mask: Mask,
    keep: float,
    generator: torch.Generator,
    scope: Iterable[str] | None = None,
) -> Pruned:
    """Global magnitude pruning with an exact count (paper 3.1).

    Exactly ``survivors(left, keep)`` of the weights that ``mask`` leaves in the tensors of ``scope`` (None: all)
    stay: those with the largest magnitudes. generator: as for :func:`best`. Raises ValueError for a weight that is NaN.
    """
    wanted = set(mask if scope is None else scope)
    names = [name for name in mask if name in wanted]
    magnitudes = {name: weights[name].detach().abs() for name in names}
    return best(magnitudes, mask, survivors(left(mask, names), keep), generator, names)


def best(
    scores: Scores, mask: Mask, stay: int, generator: torch.Generator, scope: Iterable[str] | None = None
) -> Pruned:
    """Keep exactly ``stay`` of the weights that ``mask`` leaves in the tensors of ``scope``: those with the best score.

    If only some of the weights that equal the lowest of these scores can stay, they are drawn at random. A threshold
    alone would prune too many or none of them; their positions would empty the first layers. Tensors outside the scope
    keep the weights that ``mask`` leaves.

    scope: None for all tensors. generator: of the CPU. It is used only for that draw. Raises ValueError for a score
    that is NaN or minus infinity, and if fewer weights are left than shall stay.
    """
    wanted = set(mask if scope is None else scope)
    names = [name for name in mask if name in wanted]
    flat = _flat(scores, {name: mask[name] for name in names})
    if stay > (candidates := left(mask, names)):
        raise ValueError(f"can't keep {stay} of {candidates} weights")
    if stay == candidates:
        return Pruned({name: m.clone() for name, m in mask.items()}, 0)
    ranked = flat.numpy()
    last = len(ranked) - stay - 1  # index of the best score to prune; weights pruned before come first
    ranked.partition(last)  # in place; seven times faster than torch's kthvalue, which sorts more than needed
    threshold = float(ranked[last])
    kept = stay - int((flat[last + 1 :] > threshold).count_nonzero())  # number at the threshold that stay
    tied = int((flat == threshold).count_nonzero()) if kept else 0
    dtype = flat.dtype
    del flat, ranked  # as large as the weights; the draw needs as much
    drawn = torch.randperm(tied, generator=generator, dtype=torch.int32) < kept  # True ``kept`` times
    pruned, placed = dict(mask), 0
    for name in names:
        score = scores[name].detach().to(dtype)
        pruned[name] = (score > threshold).logical_and_(mask[name])
        if placed < tied:
            ties = (score == threshold).logical_and_(mask[name])
            pruned[name].masked_scatter_(ties, drawn[placed:])
            placed += int(ties.count_nonzero())
    return Pruned(pruned, tied)


def best_in_layers(scores: Scores, mask: Mask, counts: Mapping[str, int], generator: torch.Generator) -> Pruned:
    """Keep exactly ``counts[name]`` weights in each layer, as :func:`best` does.

    Layers without a count keep all that ``mask`` leaves. tied: the sum over the layers. Raises as :func:`best` does.
    """
    made, tied = dict(mask), 0
    for name, count in counts.items():
        one = best(scores, {name: mask[name]}, count, generator)
        made |= one.mask
        tied += one.tied
    return Pruned(made, tied)


def _flat(scores: Scores, mask: Mask) -> Tensor:
    """Scores of all weights named in ``mask``, concatenated; minus infinity where the mask has pruned them.

    Raises ValueError for an unpruned weight whose score is NaN or minus infinity.
    """
    double = any(scores[name].dtype == torch.float64 for name in mask)
    flat = torch.empty(sum(m.numel() for m in mask.values()), dtype=torch.float64 if double else torch.float32)
    for part, (name, m) in zip(flat.split([m.numel() for m in mask.values()]), mask.items(), strict=True):
        gone = m.logical_not().flatten()
        part.copy_(scores[name].detach().flatten()).masked_fill_(gone, math.inf)
        if len(part) and not part.amin() > -math.inf:  # NaN too
            raise ValueError(f"can't prune {name}: it has scores that are NaN or minus infinity")
        part.masked_fill_(gone, -math.inf)
    return flat


def lamp(scores: Scores, mask: Mask, generator: torch.Generator) -> dict[str, Tensor]:
    """Layer-adaptive scores, to be ranked over all layers (Lee et al. 2021, https://arxiv.org/abs/2010.07611, eq. 4).

    The square of a score, divided by the sum of the squares that are not smaller, within its layer and over the weights
    that ``mask`` leaves. So the best weight of a layer has the score 1, and no layer is emptied before every layer has
    one weight left. Where scores of a layer tie, the published order is that of positions; here it is drawn.

    scores: the paper's are magnitudes. Returns float64; 0 for a layer whose scores are all 0, and for pruned weights.
    Raises ValueError for a score that is negative or NaN.
    """
    made: dict[str, Tensor] = {}
    for name, m in mask.items():
        size = scores[name].detach().double()[m]
        if not (size >= 0).all():
            raise ValueError(f"allocation 'lamp' needs scores of 0 or more, but {name} has others")
        shuffled = torch.randperm(len(size), generator=generator)
        order = shuffled[size[shuffled].argsort(descending=True, stable=True)]  # the best first
        squares = size[order].square()
        made[name] = torch.zeros(m.shape, dtype=torch.float64)
        relative = torch.empty_like(size)
        relative[order] = (squares / squares.cumsum(0)).nan_to_num(0.0)
        made[name][m] = relative
    return made


def random(
    shapes: Mapping[str, torch.Size],
    count: int,
    generator: torch.Generator,
    scope: Iterable[str] | None = None,
    eligible: Mask | None = None,
) -> Mask:
    """A mask of ``count`` weights, drawn at random over the tensors of ``scope`` together (the paper's baseline).

    scope: None for all tensors; in tensors outside it, all weights stay. eligible: mask of the weights of the scope
    that may stay; if there are fewer than ``count``, all of these stay.
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


def erk(shapes: Mapping[str, torch.Size], count: int, room: Mapping[str, int] | None = None) -> dict[str, int]:
    """Number of weights that stay in each layer if ``count`` stay in all, allocated by Erdős-Rényi-Kernel.

    A layer's density is proportional to the sum of its shape divided by the product: for a convolution, to
    (n_out + n_in + height + width) / (n_out * n_in * height * width) (Evci et al. 2020,
    https://arxiv.org/abs/1911.11134, section 3). A layer whose density would exceed 1 is dense, and the other layers
    share the rest. room: the most that can stay in each layer, if not all of its weights. Rounded as by :func:`shared`.
    """
    sizes = {name: shape.numel() for name, shape in shapes.items()}
    return shared({name: sum(shape) for name, shape in shapes.items()}, room or sizes, count)


def shared(parts: Mapping[str, int], room: Mapping[str, int], count: int) -> dict[str, int]:
    """Share ``count`` weights among layers in proportion to ``parts``; a layer without room for its share is full.

    The other layers share the rest. Fractions are rounded by largest remainder, the earlier layer first where
    remainders tie. ``room`` must suffice.
    """
    kept: dict[str, int] = {}
    open_, left = dict(parts), count
    while True:
        total = sum(open_.values())
        full = [name for name, part in open_.items() if left * part >= total * room[name]]
        if not full:
            break
        for name in full:
            kept[name] = room[name]
            left -= room[name]
            del open_[name]
    shares = {name: divmod(left * part, total) for name, part in open_.items()}
    kept |= {name: whole for name, (whole, _) in shares.items()}
    short = left - sum(whole for whole, _ in shares.values())
    for name in sorted(shares, key=lambda name: -shares[name][1])[:short]:
        kept[name] += 1
    return {name: kept[name] for name in parts}


def random_in_layers(shapes: Mapping[str, torch.Size], counts: Mapping[str, int], generator: torch.Generator) -> Mask:
    """A random mask of ``counts[name]`` weights in each layer; in layers without a count, all weights stay."""
    places = {name: torch.arange(shape.numel()).view(shape) for name, shape in shapes.items()}
    return shuffle({name: at < counts.get(name, at.numel()) for name, at in places.items()}, generator)


def nonzero(weights: Mapping[str, Tensor]) -> Mask:
    """The mask of weights that are not *natural zeros*: larger than float32's machine precision (paper 4.3)."""
    zero = NATURAL_SPARSITIES["natural_sparsity"]
    return {name: weight.abs() > zero for name, weight in weights.items()}


def shuffle(mask: Mask, generator: torch.Generator) -> Mask:
    """The mask with its entries permuted within each tensor: every layer keeps its density and nothing else."""
    return {name: m.flatten()[torch.randperm(m.numel(), generator=generator)].view(m.shape) for name, m in mask.items()}


def left_after(total: int, keep: float, level: int) -> int:
    """Number of ``total`` weights that ``level`` rounds of pruning leave, each rounded as :func:`prune` does."""
    for _ in range(level):
        total = survivors(total, keep)
    return total


def left(mask: Mask, names: Iterable[str] | None = None) -> int:
    """Number of weights that a mask leaves in the tensors of these names; None: in all."""
    return sum(int(mask[name].count_nonzero()) for name in (mask if names is None else names))


def density(mask: Mask) -> float:
    """The fraction of the prunable weights that is left."""
    return sum(int(m.sum()) for m in mask.values()) / sum(m.numel() for m in mask.values())


def densities(mask: Mask) -> dict[str, float]:
    """The fraction of each layer that is left, by the name of its weight."""
    return {name: density({name: m}) for name, m in mask.items()}


def metrics(mask: Mask) -> dict[str, float]:
    """Metrics of a training's mask: ``density``, and ``collapsed_layers``, the number of layers with no weight left."""
    return {"density": density(mask), "collapsed_layers": float(sum(not m.any() for m in mask.values()))}


def scope_names(scope: str, names: Iterable[str], convolutions: list[str]) -> list[str]:
    """Names of the tensors in a scope: ``all``, ``convs``, or ``convs:d`` for the first d convolutions.

    Raises ValueError for another word, or for more convolutions than the network has.
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
    """The mask as packed bits (uint8, eight weights a byte, first in the highest bit): 2.9 MB for ResNet-50."""
    return {name: torch.from_numpy(np.packbits(m.flatten().numpy())) for name, m in mask.items()}


def unpack(packed: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> Mask:
    """The inverse of :func:`pack`. Raises ValueError if names or sizes do not fit ``shapes``."""
    if list(packed) != list(shapes) and set(packed) != set(shapes):
        raise ValueError("the mask is for another network: its layers' names differ")
    return {name: _unpack(packed[name], shape) for name, shape in shapes.items()}


def digest(mask: Mask) -> str:
    """SHA-256, in hexadecimal, of the layers' names, shapes and masks, whatever the order of the layers.

    The input is, for each layer sorted by name: the name, the shape as ``(16, 1, 3, 3)``, a newline, the packed bits.
    """
    found = hashlib.sha256()
    for name, bits in sorted(pack(mask).items()):
        found.update(f"{name} {tuple(mask[name].shape)}\n".encode() + bits.numpy().tobytes())
    return found.hexdigest()


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of tensors' names, types, shapes and values, whatever their order in the mapping.

    The input is, for each tensor sorted by name: the name, the dtype and the shape, as in ``bn1.bias torch.float32
    (64,)``, a newline, and its values in memory order, little-endian.
    """
    found = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        values = tensor.detach().cpu().contiguous()
        found.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode() + values.numpy().tobytes())
    return found.hexdigest()


def _unpack(packed: Tensor, shape: torch.Size) -> Tensor:
    count = shape.numel()
    if packed.shape != (-(-count // 8),):
        raise ValueError("the mask is for another network: its layers' sizes differ")
    return torch.from_numpy(np.unpackbits(packed.numpy(), count=count).view(bool)).view(shape)


def _split(flat: Tensor, shapes: Mapping[str, torch.Size]) -> Mask:
    sizes = [shape.numel() for shape in shapes.values()]
    return {name: part.view(shape) for (name, shape), part in zip(shapes.items(), flat.split(sizes), strict=True)}
