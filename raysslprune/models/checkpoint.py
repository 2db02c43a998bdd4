"""Read checkpoints of torchvision's models, and of trainings of these, and fit them to a trunk."""

from __future__ import annotations

import argparse
import errno
import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

NESTED = ("state_dict", "model_state_dict", "model")
"""Keys of the weights in a checkpoint that also holds the optimiser: those of PyTorch's examples (imagenet), of its
tutorials, and of torchvision's references (classification)."""

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile put before the names of a network's weights."""

HEADS = ("fc.", "classifier.")
"""Prefixes of the last layer in torchvision's models, and of VGG's MLP."""


def read(path: str | Path) -> dict[str, Tensor]:
    """The weights in a file, by name, on the CPU; code in the file is never run.

    They are at the top level or under one of ``NESTED``, in a form that :func:`load` reads. Raises ValueError for any
    other file, OSError if the file can't be read.
    """
    for weights in places(load(path), NESTED):
        if weights and all(isinstance(weight, Tensor) for weight in weights.values()):
            return {str(name): weight for name, weight in weights.items()}
    raise ValueError(f"{path} has no named weights (tensors), at the top level or under {', '.join(NESTED)}")


def load(path: str | Path) -> Any:
    """The content of a file that safetensors, ``torch.save`` or numpy wrote, whatever its name; tensors on the CPU.

    Raises ValueError, in one sentence, for any other file and for a file with code; OSError if it can't be read.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch warns of its own sparse tensors
            return _load(path)
    except Exception as error:  # a parser of arbitrary bytes can fail in any way, even seek to impossible places
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        # without torch's own message, which says how to run the code in a file
        raise ValueError(
            f"{path} is damaged, is not a checkpoint, or contains objects other than tensors and plain values; "
            "if it is a whole network, save its state_dict()"
        ) from error


def is_safetensors(path: str | Path) -> bool:
    """Return whether a file starts like safetensors: eight bytes for the header's length, then the header, in JSON."""
    with Path(path).open("rb") as file:
        return file.read(9)[8:] == b"{"


def places(found: Any, keys: Sequence[str], depth: int = 2) -> Iterator[Mapping[Any, Any]]:
    """Yield the mappings that may hold the weights: those under ``keys``, perhaps nested, then ``found`` itself."""
    if isinstance(found, Mapping):
        for key in keys if depth else ():
            yield from places(found.get(key), keys, depth - 1)
        yield found


def bare(name: str, wrappers: tuple[str, ...] = WRAPPERS) -> str:
    """The name of a weight without the prefixes of wrappers, in any order.

    If a part of the network was compiled by itself, ``_orig_mod`` is in the middle of the name.
    """
    while name.startswith(wrappers):
        name = name.partition(".")[2]
    return name.replace("._orig_mod.", ".")


def fit(state: Mapping[str, Tensor], trunk: Mapping[str, Tensor], arch: str) -> dict[str, Tensor]:
    """Select the tensors that a trunk's state dict ``trunk`` names, in its dtypes, contiguous, on the CPU.

    The classifier and the prefixes of wrappers are left out. Checkpoints older than torch 0.4.1 do not
    count batch-norm's batches; for these the count, which nothing here reads, is 0, as in torch.
    Raises ValueError, in one sentence, if a tensor is missing, unknown, or of another shape.
    """
    given = {bare(name): tensor.detach() for name, tensor in state.items()}
    given = {name: tensor for name, tensor in given.items() if name in trunk or not name.startswith(HEADS)}
    uncounted = [name for name in trunk if name not in given and name.endswith(".num_batches_tracked")]
    given |= {name: torch.zeros((), dtype=torch.long) for name in uncounted}
    missing = [name for name in trunk if name not in given]
    unknown = [name for name in given if name not in trunk]
    others = [
        f"{name} is {tuple(given[name].shape)}, not {tuple(own.shape)}"
        for name, own in trunk.items()
        if name in given and given[name].shape != own.shape
    ]
    faults = {"missing: ": missing, "unknown: ": unknown, "": others}
    if any(faults.values()):
        text = "; ".join(f"{kind}{_some(what)}" for kind, what in faults.items() if what)
        raise ValueError(f"the checkpoint is not of architecture {arch!r}: {text}")
    return {name: given[name].to("cpu", own.dtype).contiguous() for name, own in trunk.items()}


# ------------------------------------------------------------------------------------- a trunk in any layout

SECOND = re.compile(r"(^|[._])(encoder_k|student|target|momentum|ema)(?![a-z])")
"""Pattern of the prefixes of networks that others are preferred to. The published evaluations use MoCo's query encoder,
DINO's teacher, BYOL's online network, and solo-learn's backbone rather than its momentum backbone."""

RENAME = "; if it is the same network, rename its tensors (docs/export.md)"
"""What to do about weights whose names do not fit."""

COUNT = ".num_batches_tracked"
"""End of the name of batch-norm's count of batches, which nothing here reads and some checkpoints lack."""


Site = tuple[str, Callable[[str], str]]
"""A place of a trunk in a file: the prefix, and the function from the trunk's own names to those after the prefix."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A trunk in a file. tensors: its state dict. channels: of its images. prefix: what precedes its names in the file.

    left_out: number of the other tensors by part of the file, such as ``state_dict.module.encoder_q.fc``.
    """

    tensors: dict[str, Tensor]
    channels: int
    prefix: str
    left_out: dict[str, int]


def find(content: Any, make: Callable[[int], nn.Module], arch: str, prefix: str | None = None) -> Found:
    """Find a trunk in the content of a checkpoint, in whatever layout.

    Names of nested mappings are joined with dots, as ``teacher.backbone.conv1.weight``. A trunk is where all names of
    its state dict follow one prefix; its layers may be numbered, as in ``nn.Sequential(*net.children())``. Of several
    trunks, those whose prefixes match SECOND are passed over.

    make: makes the trunk for a number of image channels, on any device. prefix: prefix of the trunk to take, or the end
    of it. The tensors found are in the trunk's dtypes, contiguous, on the CPU.
    Raises ValueError, in one sentence, if a tensor is missing, unknown, of another shape or not finite, and if several
    trunks are left to choose from.
    """
    flat = {name.replace("_orig_mod.", ""): tensor for name, tensor in _flat(content)}
    outline = make(1)
    needed = [name for name in outline.state_dict() if not name.endswith(COUNT)]
    site, spelt = _site(flat, outline, needed, arch, prefix)
    parts = {spelt(name).partition(".")[0] for name in needed}
    inside = [name.removeprefix(site) for name in flat if name.startswith(site)]
    known = {spelt(name) for name in outline.state_dict()}
    beyond = [name for name in inside if name not in known and not name.startswith(HEADS)]
    instead = f", but {_some(beyond)}{RENAME}" if beyond else ""
    _refuse("does not have", [name for name in needed if site + spelt(name) not in flat], instead)
    _refuse(f"has weights that {arch} lacks:", [name for name in beyond if name.partition(".")[0] in parts])
    first = next(name for name, part in outline.named_modules() if isinstance(part, nn.Conv2d))
    channels = flat[site + spelt(f"{first}.weight")].shape[1:2].numel()
    own = make(channels).state_dict()
    taken = {name: flat[site + spelt(name)] for name in own if site + spelt(name) in flat}
    shapes = {name: (tuple(tensor.shape), tuple(own[name].shape)) for name, tensor in taken.items()}
    _refuse(
        "has other shapes:", [f"{name} is {its}, not {ours}" for name, (its, ours) in shapes.items() if its != ours]
    )
    _refuse("has values that are not finite numbers in", [name for name, t in taken.items() if not _is_finite(t)])
    tensors = {
        name: taken[name].detach().to(like.dtype).contiguous() if name in taken else torch.zeros((), dtype=like.dtype)
        for name, like in own.items()
    }
    others = flat.keys() - {site + spelt(name) for name in own}
    left_out = Counter(_part(name, site) for name in flat if name in others)
    return Found(tensors=tensors, channels=channels, prefix=site, left_out=dict(left_out))


def _flat(content: Any, start: str = "", depth: int = 5) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested mappings, by their names joined with dots."""
    if isinstance(content, Tensor):
        yield start, content
    elif isinstance(content, Mapping) and depth:
        for name, value in content.items():
            yield from _flat(value, f"{start}.{name}" if start else str(name), depth - 1)


def _site(flat: Collection[str], outline: nn.Module, needed: Sequence[str], arch: str, prefix: str | None) -> Site:
    """Return the place of the trunk in a file. Raises ValueError if there is none, or several to choose from."""
    number = {name: str(n) for n, (name, _) in enumerate(outline.named_children())}

    def numbered(name: str) -> str:
        first, dot, rest = name.partition(".")
        return f"{number.get(first, first)}{dot}{rest}"

    sites: Counter[Site] = Counter()
    for spelt in (str, numbered):
        known = set(map(spelt, needed))
        for name in flat:
            parts = name.split(".")
            ends = ((".".join([*parts[:n], ""]), ".".join(parts[n:])) for n in range(len(parts)))
            sites.update((start, spelt) for start, end in ends if end in known)
    if not sites:
        where = f" after the prefix {prefix!r}" if prefix else ""
        has = f"{_some([*flat])}{RENAME}" if flat else "no tensors at all"
        raise ValueError(f"it has no weights of {arch}{where}, but {has}")
    if prefix is not None:
        sites = _after(prefix, sites, len(needed), arch)
    whole = [site for site, count in sites.items() if count == len(needed)]
    first = [site for site in whole if prefix is None and not SECOND.search(site[0])] or whole
    if len(first) > 1:
        names = ", ".join(repr(start.rstrip(".")) for start, _ in first)
        raise ValueError(f"it has several networks; choose one of them by --prefix: {names}")
    return first[0] if first else sites.most_common(1)[0][0]


def _after(prefix: str, sites: Counter[Site], size: int, arch: str) -> Counter[Site]:
    """Return the sites with this prefix, or else those whose prefix ends in it. size: number of the trunk's weights."""
    wanted = prefix and f"{prefix.rstrip('.')}."
    same = {site: count for site, count in sites.items() if site[0] == wanted}
    ending = {site: count for site, count in sites.items() if wanted and site[0].endswith(f".{wanted}")}
    if not same and not ending:
        whole = [site for site, count in sites.items() if count == size] or [site for site, _ in sites.most_common(3)]
        others = _some([repr(start.rstrip(".")) for start, _ in whole])
        raise ValueError(f"it has no weights of {arch} after the prefix {prefix!r}, but after {others}")
    return Counter(same or ending)


def _refuse(what: str, names: list[str], more: str = "") -> None:
    if names:
        raise ValueError(f"it {what} {_some(names)}{more}")


def _is_finite(tensor: Tensor) -> bool:
    """Return whether a tensor is a dense array of finite real numbers."""
    dense = tensor.device.type == "cpu" and tensor.layout == torch.strided and not tensor.is_quantized
    return dense and not tensor.is_complex() and bool(tensor.isfinite().all())


def _part(name: str, site: str) -> str:
    """Return the part of a file that a tensor outside the trunk belongs to: one level below what it shares with it."""
    parts, trunk = name.split("."), site.split(".")
    shared = next((n for n, (a, b) in enumerate(zip(parts, trunk, strict=False)) if a != b), len(parts) - 1)
    return ".".join(parts[: shared + 1])


def _load(path: Path) -> Any:
    if is_safetensors(path):
        return safetensors.torch.load_file(path)
    if _is_numpy(path):
        with np.load(path, allow_pickle=False) as arrays:
            native = {name: array.astype(array.dtype.newbyteorder("="), copy=False) for name, array in arrays.items()}
            return {name: torch.from_numpy(array) for name, array in native.items()}  # torch needs native byte order
    # torchvision's training program also saves its arguments, a Namespace, which runs no code
    with torch.serialization.safe_globals([argparse.Namespace]), path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)  # given a path, torch goes by the extension


def _is_numpy(path: Path) -> bool:
    """Return whether a file is an ``.npz``: a zip archive, as ``torch.save`` writes too, but only of ``.npy`` files."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(name.endswith(".npy") for name in archive.namelist())


def _some(what: list[str]) -> str:
    more = f" and {len(what) - 3} more" if len(what) > 3 else ""
    return ", ".join(what[:3]) + more
