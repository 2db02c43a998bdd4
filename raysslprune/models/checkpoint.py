"""Read checkpoints of torchvision's models and of trainings of these, and fit them to a trunk."""

from __future__ import annotations

import argparse
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

NESTED = ("state_dict", "model_state_dict", "model")
"""Where training programs put the weights in a checkpoint that also holds the optimiser: PyTorch's examples (imagenet),
its tutorials, and torchvision's references (classification)."""

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and torch.compile put before the names of a network's weights."""

HEADS = ("fc.", "classifier.")
"""Where torchvision's models have their last layer, and VGG its MLP."""


def read(path: str | Path) -> dict[str, Tensor]:
    """The weights in a file, by name, on the CPU; no code in it is ever run.

    They stand in it directly or under one of ``NESTED``, in a form that :func:`load` reads. Raises ValueError for any
    other file, OSError where there is none.
    """
    for weights in places(load(path), NESTED):
        if weights and all(isinstance(weight, Tensor) for weight in weights.values()):
            return {str(name): weight for name, weight in weights.items()}
    raise ValueError(f"{path} holds no weights by name, neither directly nor under {', '.join(NESTED)}")


def load(path: str | Path) -> Any:
    """The content of a file that safetensors, ``torch.save`` or numpy wrote, whatever its name; tensors on the CPU.

    Raises ValueError, in one sentence, for any other file and for one that holds code; OSError where there is none.
    """
    path = Path(path)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch has doubts about its own sparse tensors
            return _load(path)
    except OSError:
        raise
    except Exception as error:  # a parser of what may be any bytes can stumble in any way
        # without torch's own text, which tells how to run the code that a file brings
        raise ValueError(f"{path} is damaged, or no checkpoint, or holds more than tensors and plain values") from error


def is_safetensors(path: str | Path) -> bool:
    """Whether a file begins as safetensors do: with the header's length in eight bytes, and the header, JSON."""
    with Path(path).open("rb") as file:
        return file.read(9)[8:] == b"{"


def places(found: Any, keys: Sequence[str], depth: int = 2) -> Iterator[Mapping[Any, Any]]:
    """The mappings where weights may stand: those under ``keys``, which may be nested, and then ``found`` itself."""
    if isinstance(found, Mapping):
        for key in keys if depth else ():
            yield from places(found.get(key), keys, depth - 1)
        yield found


def bare(name: str, wrappers: tuple[str, ...] = WRAPPERS) -> str:
    """The name of a weight without what wrappers of the network put before it, in any order.

    Where a part of the network was compiled by itself, ``_orig_mod`` stands in the middle.
    """
    while name.startswith(wrappers):
        name = name.partition(".")[2]
    return name.replace("._orig_mod.", ".")


def fit(state: Mapping[str, Tensor], trunk: Mapping[str, Tensor], arch: str) -> dict[str, Tensor]:
    """The tensors of ``state`` that ``trunk``, a trunk's own state, has: with its dtypes, contiguous, on the CPU.

    The classifier is left out, and so are the prefixes of wrappers. Checkpoints older than torch 0.4.1
    do not count batch-norm's batches; nothing here reads the count, and it is 0 then, as torch has it.
    Raises ValueError, in one sentence, where a tensor is missing, unknown, or of another shape.
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


def _load(path: Path) -> Any:
    if is_safetensors(path):
        return safetensors.torch.load_file(path)
    if _is_numpy(path):
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(_native(array)) for name, array in arrays.items()}
    # torchvision's training program saves its arguments too, and a Namespace has no code to run
    with torch.serialization.safe_globals([argparse.Namespace]), path.open("rb") as file:
        return torch.load(file, map_location="cpu", weights_only=True)  # of a path it would go by the ending


def _is_numpy(path: Path) -> bool:
    """Whether a file is an ``.npz``: a zip archive, as those of ``torch.save`` are, of ``.npy`` files."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return all(name.endswith(".npy") for name in archive.namelist())


def _native(array: np.ndarray) -> np.ndarray:
    """In this machine's byte order, which torch wants."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _some(what: list[str]) -> str:
    more = f" and {len(what) - 3} more" if len(what) > 3 else ""
    return ", ".join(what[:3]) + more
