"""Remove pruned filters from a network: a smaller dense network with the same outputs."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from raysslprune.masks import Mask
from raysslprune.messages import UserError
from raysslprune.models.channels import dead, spaces

IMAGES, PASSES = 64, 11
"""Images of a batch, and number of forward passes of which the median time is taken."""


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """A network without its pruned filters.

    state: its state dict. parameters: numbers of parameters before and after. seconds: median times of a forward pass
    of IMAGES images before and after, on this machine's CPU. largest_difference: between outputs before and after.
    """

    state: Mapping[str, Tensor]
    parameters: tuple[int, int]
    seconds: tuple[float, float]
    largest_difference: float

    @property
    def facts(self) -> dict[str, object]:
        """The same for ``config.json``."""
        return {
            "parameters": list(self.parameters),
            "seconds": list(self.seconds),
            "images": IMAGES,
            "largest_difference": self.largest_difference,
        }


def shrink(net: nn.Module, mask: Mask, image: tuple[int, int, int]) -> nn.Module:
    """Return a copy of a network, without the filters of which the mask leaves no weight and without their channels.

    mask: by the names of the network's weights. Channels of the network's own output stay. The outputs are equal but
    for rounding if the channels that go are 0, as they are after training under a mask of whole filters.
    Raises ValueError if the network's channels can't be followed.
    """
    small = copy.deepcopy(net)
    tensors = {**dict(small.named_parameters()), **dict(small.named_buffers())}
    for space in spaces(net, image):
        gone = None if space.output else dead(space, mask)
        if gone is None:
            continue
        stays = (~gone).nonzero().flatten()
        for name in (*space.makers, *space.affine, *space.statistics):
            tensors[name].data = tensors[name].data[stays]
        for name, numbers in space.readers:
            columns = (stays[:, None] * numbers + torch.arange(numbers)).flatten()
            tensors[name].data = tensors[name].data[:, columns].contiguous()
    _set_sizes(small)
    return small


def resize(net: nn.Module, shapes: Mapping[str, torch.Size]) -> None:
    """Give the parameters and buffers of a network, by name, other shapes, with undefined values."""
    for name, tensor in (*net.named_parameters(), *net.named_buffers()):
        if name in shapes and tensor.shape != shapes[name]:
            tensor.data = tensor.data.new_empty(shapes[name])
    _set_sizes(net)


def _set_sizes(net: nn.Module) -> None:
    """Set the sizes that layers know to those of their tensors."""
    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            part.out_channels, part.in_channels = part.weight.shape[:2]
        elif isinstance(part, nn.Linear):
            part.out_features, part.in_features = part.weight.shape
        elif isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d) and part.running_mean is not None:
            part.num_features = len(part.running_mean)


@torch.inference_mode()
def measured(net: nn.Module, mask: Mask, image: tuple[int, int, int]) -> Shrunk:
    """Shrink a network, compare the outputs, and measure the speed-up. Both networks in evaluation mode.

    Raises UserError if outputs differ by more than rounding, ValueError as :func:`shrink` does.
    """
    net = net.eval()
    with torch.inference_mode(False):
        small = shrink(net, mask, image).eval()
    images = torch.randn(IMAGES, *image, generator=torch.Generator().manual_seed(0))
    before, after = net(images), small(images)
    difference, scale = float((before - after).abs().max()), float(before.abs().max())
    if not difference <= 1e-4 * max(scale, 1e-30):
        raise UserError(
            f"the smaller network's outputs differ by {difference:.2g} from those of the masked one, whose largest is "
            f"{scale:.2g}: its architecture adds to channels without a filter, so export it without --shrink"
        )
    return Shrunk(
        state=small.state_dict(),
        parameters=(_parameters(net), _parameters(small)),
        seconds=(_seconds(net, images), _seconds(small, images)),
        largest_difference=difference,
    )


def _parameters(net: nn.Module) -> int:
    return sum(parameter.numel() for parameter in net.parameters())


def _seconds(net: Callable[[Tensor], Tensor], images: Tensor) -> float:
    times = []
    for _ in range(PASSES):
        begun = time.perf_counter()
        net(images)
        times.append(time.perf_counter() - begun)
    return statistics.median(times)
