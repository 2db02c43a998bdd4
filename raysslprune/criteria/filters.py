"""Prune whole filters: the rows of a convolution or linear layer, and the columns that read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from raysslprune import masks
from raysslprune.masks import Mask, Pruned, Scores
from raysslprune.models.channels import Space, dead


def prune(
    scores: Scores,
    mask: Mask,
    stay: int,
    spaces: Sequence[Space],
    generator: torch.Generator,
    scope: Iterable[str] | None = None,
    uniform: bool = False,
) -> Pruned:
    """Remove the filters with the lowest scores until as near as possible to ``stay`` weights are left in the scope.

    A filter's score is the sum over its weights. Filters of layers that share channels through shortcuts are one, and
    have one score. With a filter its weights go, and the weights that read its output in layers of the scope. The last
    layer's filters are features, of which the head then reads zeros. Layers that share channels with a layer outside
    the scope stay whole, and each layer keeps at least one filter.

    If fewer weights than ``stay`` would be left by as much as more would, more stay. Filters with the same score are
    ordered by a draw. uniform: rank filters within their layer only, so that all layers lose the same fraction.
    Raises ValueError for a score that is NaN or missing, and if the scope has no filter to prune.
    """
    names = set(mask if scope is None else scope)
    free = [space for space in spaces if space.makers and names.issuperset(space.makers)]
    if not free:
        raise ValueError("whole filters can't be pruned: no layer of the scope has channels of its own")
    candidates, values = _ranked(free, scores, mask, generator, uniform)
    made = {name: m.clone() for name, m in mask.items()}
    left, removed = masks.left(mask, names), 0
    for space, channel in candidates:
        if left <= stay:
            break
        parts = _parts(made, space, channel, names)
        before = [part.clone() for part in parts]
        had = left
        for part in parts:
            left -= int(part.count_nonzero())
            part.fill_(False)
        if stay - left >= had - stay:
            for part, old in zip(parts, before, strict=True):
                part.copy_(old)
            break
        removed += 1
    cut = values[removed - 1] if 0 < removed < len(values) else None
    tied = values.count(cut) if cut is not None and values[removed] == cut else 0
    return Pruned(made, tied)


def _ranked(
    free: Sequence[Space], scores: Scores, mask: Mask, generator: torch.Generator, uniform: bool
) -> tuple[list[tuple[Space, int]], list[float]]:
    """Filters that may go, the first to go first, and the values by which they are ranked."""
    filters: list[tuple[Space, int]] = []
    values: list[float] = []
    for space in free:
        missing = [name for name in space.makers if name not in scores]
        if missing:
            raise ValueError(f"whole filters can't be pruned: the criterion gives no score for {missing[0]}")
        total = torch.stack([(scores[name] * mask[name]).double().flatten(1).sum(1) for name in space.makers]).sum(0)
        if total.isnan().any():
            raise ValueError(f"can't prune {space.makers[0]}: it has scores that are NaN")
        gone = dead(space, mask)
        assert gone is not None
        alive = (~gone).nonzero().flatten()
        order = alive[torch.randperm(len(alive), generator=generator)]
        order = order[total[order].argsort(stable=True)]
        for rank, channel in enumerate(order[:-1].tolist()):  # the best stays
            filters.append((space, channel))
            values.append((rank + 0.5) / len(order) if uniform else float(total[channel]))
    shuffled = torch.randperm(len(values), generator=generator)
    ranked = torch.tensor(values, dtype=torch.float64)[shuffled].argsort(stable=True)
    chosen = shuffled[ranked].tolist()
    return [filters[one] for one in chosen], [values[one] for one in chosen]


def _parts(mask: Mask, space: Space, channel: int, names: set[str]) -> list[Tensor]:
    """Views of a mask where a filter's weights are, and those that read its output."""
    rows = [mask[name][channel] for name in space.makers]
    readers = ((name, numbers) for name, numbers in space.readers if name in names)
    return rows + [mask[name][:, channel * numbers : (channel + 1) * numbers] for name, numbers in readers]
