"""Arithmetic of a device: the precision of a recipe, and updates captured as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Parts = Sequence[tuple[Tensor, ...]]
"""Inputs of one update: for each part of its batch, the tensors that the task's loss takes."""


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Set a GPU's float32 products to full precision, or to 10 bits for ``tf32``; restore the setting afterwards.

    Autocast handles bf16; products that it leaves in float32 have full precision. Shapes are fixed, so cuDNN may
    benchmark its algorithms. Nothing changes on the CPU, which has no TF32.
    """
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn  # a module whose attributes are created on import
    products = torch.backends.cuda.matmul
    before = cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark
    cudnn.allow_tf32 = products.allow_tf32 = precision == "tf32"
    cudnn.benchmark = True
    try:
        yield
    finally:
        cudnn.allow_tf32, products.allow_tf32, cudnn.benchmark = before


class UpdateGraph:
    """An update as one launch: its kernels, recorded once as a CUDA graph, read their inputs from fixed tensors.

    Recording runs nothing. A graph fixes shapes, Python's numbers, and which tensors its kernels read and write, so the
    learning rate must be a tensor.
    """

    def __init__(self, update: Callable[[Parts], None], parts: Parts) -> None:
        """Record ``update``, which must have run on the current stream before; this must not be the default stream."""
        self.inputs = [tuple(tensor.clone() for tensor in part) for part in parts]
        self.graph = torch.cuda.CUDAGraph()
        # by default a CUDA call of another thread, such as one that pins a decoded image, would break the recording
        with torch.cuda.graph(self.graph, stream=torch.cuda.current_stream(), capture_error_mode="thread_local"):
            update(self.inputs)

    def __call__(self, parts: Parts) -> None:
        """Run the update on other inputs, of the same shapes."""
        for fixed, given in zip(self.inputs, parts, strict=True):
            for to, tensor in zip(fixed, given, strict=True):
                to.copy_(tensor)
        self.graph.replay()
