"""Channels of a network: which layers make them, read them, and share them through shortcuts.

A *space* is a set of channels with one numbering. The layers whose outputs are added make the same space, so a filter
can only be removed from all of them together.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from raysslprune.models import trunk


@dataclass(eq=False)
class Space:
    """Channels that some layers make and others read.

    makers: names of the weights with a row for each channel. readers: names of the weights with columns for each
    channel, and how many. affine: names of the parameters with one number for each channel, which is added to it or
    multiplied with it: BatchNorm's scale and shift, and biases. statistics: names of buffers of this kind.
    output: True for the channels of the module's output.
    """

    makers: list[str] = field(default_factory=list)
    readers: list[tuple[str, int]] = field(default_factory=list)
    affine: list[str] = field(default_factory=list)
    statistics: list[str] = field(default_factory=list)
    output: bool = False


def spaces(module: nn.Module, image: tuple[int, int, int]) -> list[Space]:
    """The spaces of a module, a trunk or a whole network, in the order of its layers. image: shape of its input.

    Raises ValueError, in one sentence, for a module whose channels can't be followed.
    """
    return _traced(module, image)[0]


def norms(module: nn.Module, image: tuple[int, int, int]) -> dict[str, str]:
    """Names of BatchNorm layers by the weight whose output they normalise. Raises as :func:`spaces` does."""
    return _traced(module, image)[1]


@cache
def outlined(arch: str, image: tuple[int, int, int]) -> list[Space]:
    """The spaces of an architecture's trunk. Raises as :func:`spaces` does."""
    return spaces(trunk(arch, image[0]), image)


def dead(space: Space, mask: Mapping[str, Tensor]) -> Tensor | None:
    """Which channels no layer makes any more, (channels,); None if a maker has no mask, so that none is dead."""
    if not space.makers or any(name not in mask for name in space.makers):
        return None
    return torch.stack([~mask[name].flatten(1).any(1) for name in space.makers]).all(0)


def affine_mask(found: list[Space], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The mask of the affine parameters, by name: False for channels that a mask of whole filters has removed."""
    gone = ((space, dead(space, mask)) for space in found)
    return {name: ~where for space, where in gone if where is not None for name in space.affine}


@torch.no_grad()
def zero_removed(trunk: nn.Module, found: list[Space], mask: Mapping[str, Tensor]) -> None:
    """Set the affine parameters of removed channels to 0: else the shift of a removed filter still gives outputs."""
    parameters = dict(trunk.named_parameters())
    for name, stays in affine_mask(found, mask).items():
        parameters[name].mul_(stays.to(parameters[name].device))


# ------------------------------------------------------------------------------------- tracing

_KEEP_MODULES = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Tanh, nn.Identity),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
"""Layers that treat channels alike and give 0 for a channel of zeros."""

_KEEP = {
    *(torch.relu, F.relu, F.relu6, F.leaky_relu, F.elu, F.gelu, F.silu, F.hardswish, torch.tanh),
    *(F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d, F.adaptive_max_pool2d),
    *("relu", "relu_", "tanh", "mean", "amax", "contiguous"),
}
"""Functions, and names of methods, of the same kind."""

_ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}
_FLATTEN = {torch.flatten, "flatten"}


def _traced(module: nn.Module, image: tuple[int, int, int]) -> tuple[list[Space], dict[str, str]]:
    training = module.training
    try:
        graph = fx.symbolic_trace(module.eval())
        ShapeProp(graph).propagate(torch.zeros(1, *image, device=next(module.parameters()).device))
    except Exception as error:
        why = " ".join(str(error).split())
        raise ValueError(f"whole filters can't be pruned: the network can't be traced: {why:.200}") from error
    finally:
        module.train(training)
    return _Walk(graph).result()


class _Walk:
    """A walk over a traced graph: follows the space of each value, and how many numbers it has for each channel."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.modules = dict(graph.named_modules())
        self.at: dict[fx.Node, tuple[Space, int]] = {}
        self.merged: dict[Space, Space] = {}
        self.made: list[Space] = []
        self.norms: dict[str, str] = {}
        for node in graph.graph.nodes:
            self.follow(node)

    def result(self) -> tuple[list[Space], dict[str, str]]:
        return [space for space in self.made if space not in self.merged], self.norms

    def follow(self, node: fx.Node) -> None:
        inputs = [one for one in node.all_input_nodes if one in self.at]
        if node.op == "placeholder":
            self.at[node] = self.new(), 1
        elif node.op == "output":
            for one in inputs:
                self.space(one).output = True
        elif node.op == "call_module":
            self.layer(node, str(node.target), inputs[0])
        elif node.target in _ADD and len(inputs) == 2 and _shape(inputs[0]) == _shape(inputs[1]):
            self.at[node] = self.join(*map(self.space, inputs)), self.at[inputs[0]][1]
        elif node.target in _FLATTEN and len(_shape(node)) == 2:
            space, numbers = self.at[inputs[0]]
            self.at[node] = space, numbers * _shape(inputs[0])[2:].numel()
        elif node.target in _KEEP and len(inputs) == 1 and _shape(node)[1] == _shape(inputs[0])[1]:
            self.at[node] = self.at[inputs[0]]
        elif inputs and "tensor_meta" in node.meta:
            raise _lost(node)

    def layer(self, node: fx.Node, name: str, given: fx.Node) -> None:
        part, numbers = self.modules[name], self.at[given][1]
        if isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and part.groups == 1):
            self.space(given).readers.append((f"{name}.weight", numbers))
            made = self.new(makers=[f"{name}.weight"], affine=[f"{name}.bias"] * (part.bias is not None))
            self.at[node] = made, 1
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and numbers == 1:
            space = self.space(given)
            space.affine += [f"{name}.{one}" for one, _ in part.named_parameters()]
            space.statistics += [f"{name}.{one}" for one, buffer in part.named_buffers() if buffer.ndim]
            if part.affine and given.op == "call_module" and f"{given.target}.weight" in space.makers:
                self.norms[f"{given.target}.weight"] = name
            self.at[node] = self.at[given]
        elif isinstance(part, nn.Flatten) and len(_shape(node)) == 2:
            self.at[node] = self.space(given), numbers * _shape(given)[2:].numel()
        elif isinstance(part, _KEEP_MODULES):
            self.at[node] = self.at[given]
        else:
            raise _lost(node, type(part).__name__)

    def new(self, **fields: object) -> Space:
        self.made.append(Space(**fields))  # pyright: ignore[reportArgumentType]
        return self.made[-1]

    def space(self, node: fx.Node) -> Space:
        space = self.at[node][0]
        while space in self.merged:
            space = self.merged[space]
        return space

    def join(self, first: Space, second: Space) -> Space:
        """Join two spaces whose channels are added: the earlier one gets all that the other has."""
        if first is second:
            return first
        one, other = sorted((first, second), key=self.made.index)
        for name in ("makers", "readers", "affine", "statistics"):
            getattr(one, name).extend(getattr(other, name))
        one.output |= other.output
        self.merged[other] = one
        return one


def _shape(node: fx.Node) -> torch.Size:
    return node.meta["tensor_meta"].shape


def _lost(node: fx.Node, kind: str = "") -> ValueError:
    return ValueError(
        f"whole filters can't be pruned: channels can't be followed through {kind or node.op} {node.target!s:.80}"
    )
