"""Checkpoints of torchvision's models, and of trainings of these: read from files, fitted to a trunk."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

NESTED = ("state_dict", "model")
"""Where training programs put the weights in a checkpoint that also holds the optimiser: PyTorch's examples (imagenet)
and torchvision's references (classification)."""

HEADS = ("fc.", "classifier.")
"""Where torchvision's models have their last layer, and VGG its MLP."""


def read(path: str | Path) -> dict[str, Tensor]:
    """The weights in a file, by name, on the CPU; no code in it is ever run.

    The file is what ``torch.save`` or safetensors wrote, the latter named ``*.safetensors``: tensors by name, or a
    checkpoint with these under ``state_dict`` or ``model``. Raises ValueError for any other, OSError where there is
    none.
    """
    path = Path(path)
    try:
        found = _load(path)
    except OSError:
        raise
    except Exception as error:  # a parser of what may be any bytes can stumble in any way
        # without torch's own text, which tells how to run the code that a file brings
        raise ValueError(f"{path} is damaged, or no checkpoint, or holds more than tensors and plain values") from error
    nested = [found.get(key) for key in NESTED] if isinstance(found, Mapping) else []
    for weights in [*nested, found]:
        if isinstance(weights, Mapping) and weights and all(isinstance(w, Tensor) for w in weights.values()):
            return {str(name): w for name, w in weights.items()}
    raise ValueError(f"{path} holds no weights by name, neither directly nor under {' or '.join(NESTED)}")


def fit(state: Mapping[str, Tensor], trunk: Mapping[str, Tensor], arch: str) -> dict[str, Tensor]:
    """The tensors of ``state`` that ``trunk``, a trunk's own state, has: with its dtypes, contiguous, on the CPU.

    The classifier is left out, and DataParallel's prefix ``module.`` is taken off. Checkpoints older than torch 0.4.1
    do not count batch-norm's batches; nothing here reads the count, and it is 0 then, as torch has it.
    Raises ValueError, in one sentence, where a tensor is missing, unknown, or of another shape.
    """
    given = {name.removeprefix("module."): tensor.detach() for name, tensor in state.items()}
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
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    # torchvision's training program saves its arguments too, and a Namespace has no code to run
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(path, map_location="cpu", weights_only=True)


def _some(what: list[str]) -> str:
    more = f" and {len(what) - 3} more" if len(what) > 3 else ""
    return ", ".join(what[:3]) + more
