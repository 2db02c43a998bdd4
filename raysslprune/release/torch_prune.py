"""Convert masks from and to the forms of torch.nn.utils.prune and other tools: buffers of a module, and files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
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
"""Suffixes that torch's pruning adds to a parameter's name for its mask, and for its weights before pruning."""

NESTED = ("masks", "mask", *checkpoint.NESTED)
"""Keys under which a file with other contents may have its masks."""

WRAPPERS = (*checkpoint.WRAPPERS, "trunk.")
"""Prefixes to strip from names; the last is what this package's networks put before the names of their trunks."""

HEADS = ("head.", *checkpoint.HEADS)
"""Prefixes of networks' last layers, which are never pruned here."""


def to_torch_prune(module: nn.Module, mask: Mask) -> nn.Module:
    """Prune a module in place by torch's own ``custom_from_mask``, layer by layer, and return it.

    mask: by the names of the module's weights; those of a trunk for ``net.trunk``.
    Raises ValueError for a layer that the module does not have, or of another shape, before anything is changed.
    """
    subnetwork.weights_of(module, mask)
    for name, m in mask.items():
        prune.custom_from_mask(module.get_submodule(name.removesuffix(".weight")), "weight", m)
    return module


def from_torch_prune(module: nn.Module) -> Mask:
    """Return the mask of a module that torch pruned, for every convolution and linear layer; all True if not pruned.

    Raises ValueError if other parameters are pruned, such as biases.
    """
    shapes = {name: weight.shape for name, weight in models.prunable(module).items()}
    own = {name.removesuffix(ORIGINAL) for name, _ in module.named_parameters() if name.endswith(ORIGINAL)}
    buffers = {name.removesuffix(SUFFIX): m for name, m in module.named_buffers() if name.endswith(SUFFIX)}
    mask = {name: _as_bools(name, m) for name, m in buffers.items() if name in own}
    _check_others({name: m for name, m in mask.items() if name not in shapes})
    return {name: mask.get(name, torch.ones(shape, dtype=torch.bool)) for name, shape in shapes.items()}


def read(path: str | Path) -> dict[str, Tensor]:
    """Read the masks in a file: tensors by the names of the weights. Code in the file is never run.

    The file is an exported ``mask.safetensors``, or any that :func:`models.checkpoint.load` reads: tensors by name, or
    by layer and name, as NNI writes them. If names end in ``_mask``, as in the state of a module that torch pruned,
    only these count. Raises ValueError for a file without masks, OSError if it can't be read.
    """
    content = checkpoint.load(path)
    found = next(filter(None, map(_tensors, checkpoint.places(content, NESTED))), {})
    if not found:
        raise ValueError(f"{path} has no named tensors, at the top level or under {', '.join(NESTED)}")
    if checkpoint.is_safetensors(path) and all(t.dtype == torch.uint8 and t.ndim == 1 for t in found.values()):
        return subnetwork.unpacked(Path(path).read_bytes(), found)
    named = {name.removesuffix(SUFFIX): t for name, t in found.items() if name.endswith(SUFFIX)}
    by_name: dict[str, Tensor] = {}
    for name, t in (named or found).items():
        if (bare := checkpoint.bare(name, WRAPPERS)) in by_name:
            raise ValueError(f"the file has two masks for {bare}, one named {name}")
        by_name[bare] = t
    return by_name


def _tensors(place: Mapping[Any, Any]) -> dict[str, Tensor]:
    """Return the tensors in a mapping, and in the mappings in it, by their names joined with dots."""
    flat: dict[str, Any] = {}
    for name, value in place.items():
        flat |= {f"{name}.{part}": t for part, t in value.items()} if isinstance(value, Mapping) else {str(name): value}
    return {name: t for name, t in flat.items() if isinstance(t, Tensor)}


def fit(found: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> tuple[Mask, list[str]]:
    """Fit masks by name to a trunk whose prunable weights have these ``shapes``; also return the names left out.

    found: tensors of 0 and 1, of any dtype; layers without one are not pruned. Masks that prune the last layer, which
    is never pruned here, are left out.
    Raises ValueError, in one sentence, for a mask of another shape, one that prunes anything else, or no mask at all.
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


def check_names(found: Mapping[str, Tensor], prunable: Collection[str]) -> None:
    """Raise ValueError if no mask has the name of a prunable weight of the network."""
    if not found.keys() & set(prunable):
        raise ValueError(
            f"the file has masks for {_some(found, 3)}, but for none of the network's layers ({_some(prunable, 3)})"
        )


def _as_bools(name: str, mask: Tensor) -> Tensor:
    """Convert a mask of any dtype and layout to bool. Raises ValueError if it holds other values than 0 and 1."""
    try:
        dense = mask.detach().cpu().to_dense()
        stays = dense == 1
        is_binary = bool((stays | (dense == 0)).all())
    except (RuntimeError, MemoryError) as error:  # torch supports some dtypes on some devices only
        kind = f"{mask.dtype}, {mask.layout}, of shape {tuple(mask.shape)}, on {mask.device}"
        raise ValueError(f"{name} can't be read as a mask: it is {kind}".replace("torch.", "")) from error
    if not is_binary:
        raise ValueError(
            f"{name} is not a mask: it has values other than 0 and 1; to use the zeros of weights w as the mask, save "
            "w != 0"
        )
    return stays.contiguous()


def _check_others(others: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a mask of parameters that are not prunable prunes anything."""
    pruned = [name for name, m in others.items() if not m.all()]
    if pruned:
        raise ValueError(f"{_some(pruned)} is pruned, but is no weight of a convolution or linear layer here")


def _some(names: Collection[str], shown: int = 1) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join([*names][:shown]) + more
