"""Masks as torch.nn.utils.prune and other tools have them, in and out: as buffers of a module, and in files."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from raysslprune import masks, models
from raysslprune.masks import Mask
from raysslprune.models import checkpoint
from raysslprune.release import subnetwork

SUFFIX, ORIGINAL = "_mask", "_orig"
"""What torch's pruning puts behind a parameter's name for its mask, and for its weights before pruning."""

NESTED = ("masks", "mask", *checkpoint.NESTED)
"""Where a file may have its masks, beside other things."""

WRAPPERS = (*checkpoint.WRAPPERS, "trunk.")
"""Prefixes that say nothing; the last is that of a network here, before its trunk's names."""

HEADS = ("head.", *checkpoint.HEADS)
"""Where networks have their last layer, which is never pruned here."""


def to_torch_prune(module: nn.Module, mask: Mask) -> nn.Module:
    """Prune a module in place by torch's own ``custom_from_mask``, layer by layer, and give it back.

    mask: by the names of the module's weights; those of a trunk for ``net.trunk``.
    Raises ValueError for a layer that the module does not have, or of another shape, before anything is changed.
    """
    subnetwork.weights_of(module, mask)
    for name, m in mask.items():
        prune.custom_from_mask(module.get_submodule(name.removesuffix(".weight")), "weight", m)
    return module


def from_torch_prune(module: nn.Module) -> Mask:
    """The mask of a module that torch pruned: of every convolution and linear layer, all True where it is unpruned.

    Raises ValueError where other parameters are pruned, as biases.
    """
    shapes = {name: weight.shape for name, weight in models.prunable(module).items()}
    own = {name.removesuffix(ORIGINAL) for name, _ in module.named_parameters() if name.endswith(ORIGINAL)}
    buffers = {name.removesuffix(SUFFIX): m for name, m in module.named_buffers() if name.endswith(SUFFIX)}
    mask = {name: _as_bools(name, m) for name, m in buffers.items() if name in own}
    _check_others({name: m for name, m in mask.items() if name not in shapes})
    return {name: mask.get(name, torch.ones(shape, dtype=torch.bool)) for name, shape in shapes.items()}


def read(path: str | Path) -> dict[str, Tensor]:
    """The masks in a file: tensors by the names of the weights. No code in it is ever run.

    The file is an exported ``mask.safetensors``, or any that :func:`models.checkpoint.load` reads: tensors by name, or
    by layer and name, as NNI has them. Where names end in ``_mask``, as in the state of a module that torch pruned,
    only these count; else all do. Raises ValueError, OSError.
    """
    content = checkpoint.load(path)
    found = next(filter(None, map(_tensors, checkpoint.places(content, NESTED))), {})
    if not found:
        raise ValueError(f"{path} holds no tensors by name, neither directly nor under {', '.join(NESTED)}")
    if checkpoint.is_safetensors(path) and all(t.dtype == torch.uint8 and t.ndim == 1 for t in found.values()):
        return subnetwork.unpacked(Path(path).read_bytes(), found)
    named = {name.removesuffix(SUFFIX): t for name, t in found.items() if name.endswith(SUFFIX)}
    by_name: dict[str, Tensor] = {}
    for name, t in (named or found).items():
        if (bare := checkpoint.bare(name, WRAPPERS)) in by_name:
            raise ValueError(f"it has two masks of {bare}, of which {name} is one")
        by_name[bare] = t
    return by_name


def _tensors(place: Mapping[Any, Any]) -> dict[str, Tensor]:
    """The tensors in a mapping, or in the mappings in it, by their names joined with dots."""
    return {name: t for name, t in _flat(place) if isinstance(t, Tensor)}


def _flat(place: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in place.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{part}", t) for part, t in value.items())
        else:
            yield str(name), value


def fit(found: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> tuple[Mask, list[str]]:
    """Masks by name as the mask of a trunk whose prunable weights have these ``shapes``; and what was left out.

    found: of 0 and 1, in any dtype; a layer that is not there is not pruned. Left out is what prunes the last layer,
    which is never pruned here.
    Raises ValueError, in one sentence, where a mask is of another shape or of what is not prunable, or is no mask.
    """
    check_names(found, shapes)
    mask, heads, others = masks.full(shapes), [], {}
    for name, t in found.items():
        if name not in shapes:
            m = _as_bools(name, t)
            if name.startswith(HEADS):
                heads += [name] * (not bool(m.all()))
            else:
                others[name] = m
        elif t.shape == shapes[name]:
            mask[name] = _as_bools(name, t)
        else:
            raise ValueError(f"the mask of {name} is {tuple(t.shape)}, not {tuple(shapes[name])}")
    _check_others(others)
    return mask, heads


def check_names(found: Mapping[str, Tensor], wanted: Collection[str]) -> None:
    """Raise ValueError for a file that has no mask of a network whose prunable weights have the names ``wanted``."""
    if not found.keys() & set(wanted):
        raise ValueError(f"it names {_some(found, 3)}, and none of the network's layers: {_some(wanted, 3)}")


def _as_bools(name: str, mask: Tensor) -> Tensor:
    """A mask in any dtype and layout, dense or sparse. Raises ValueError where it holds other values than 0 and 1."""
    try:
        dense = mask.detach().cpu().to_dense()
        stays = dense == 1
        whole = bool((stays | (dense == 0)).all())
    except (RuntimeError, MemoryError) as error:  # torch computes with some dtypes on some devices only, in many words
        kind = f"{mask.dtype}, {mask.layout}, of shape {tuple(mask.shape)}, on {mask.device}"
        raise ValueError(f"{name} can't be read as a mask, being {kind}".replace("torch.", "")) from error
    if not whole:
        raise ValueError(
            f"{name} is no mask: it holds other values than 0 and 1; of weights whose zeros are the mask, save w != 0"
        )
    return stays.contiguous()


def _check_others(others: Mapping[str, Tensor]) -> None:
    """Masks of what is not prunable may not prune anything."""
    pruned = [name for name, m in others.items() if not m.all()]
    if pruned:
        raise ValueError(f"{_some(pruned)} is pruned, which is no weight of a convolution or linear layer here")


def _some(names: Collection[str], shown: int = 1) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join([*names][:shown]) + more
