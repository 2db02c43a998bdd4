"""Depths of pruning, against the networks themselves."""

from __future__ import annotations

import itertools

import pytest
from torch import nn

from raysslprune.catalogue import ARCHITECTURES
from raysslprune.models import convolutions, trunk
from raysslprune.paper.depths import CONVOLUTIONS, STAGES, depths
from raysslprune.sweepfile import Unfit


def ends(arch: str) -> list[int]:
    found = depths(arch)
    assert list(found)[-1] == "whole network"
    assert found["whole network"] == "all"
    return [int(scope.removeprefix("convs:")) for scope in list(found.values())[:-1]]


def test_every_network_of_the_package_has_depths() -> None:
    assert {*STAGES, *CONVOLUTIONS} == {*ARCHITECTURES}


@pytest.mark.parametrize("arch", STAGES)
def test_stages_end_where_the_next_one_begins(arch: str) -> None:
    """By the names of the convolutions: those of a ResNet say their stage; ResNet-8's are blocks after one layer."""
    names = convolutions(trunk(arch, 3))
    stages = [[*group] for _, group in itertools.groupby(names, key=lambda name: name.split(".")[:2])]
    if arch == "resnet8":
        joined = [stages[0] + stages[1], *stages[2:]]
    else:
        joined = [[name for name in names if name.startswith(f"layer{stage}")] for stage in (1, 2, 3, 4)]
        joined[0] = [names[0], *joined[0]]
    assert ends(arch) == list(itertools.accumulate(map(len, joined)))[:-1]
    assert list(depths(arch)) == [
        "stage 1",
        *(f"up to {stage}" for stage in range(2, len(joined))),
        "whole network",
    ]


@pytest.mark.parametrize("arch", CONVOLUTIONS)
def test_other_depths_are_in_the_network(arch: str) -> None:
    count = len(convolutions(trunk(arch, 3)))
    assert ends(arch) == sorted(set(ends(arch)))
    linear = any(isinstance(part, nn.Linear) for part in trunk(arch, 3).modules())
    assert 0 < ends(arch)[0] <= ends(arch)[-1] < count + linear


@pytest.mark.parametrize("arch", ["vgg11", "vgg13", "vgg16", "vgg19"])
def test_depths_of_vggs_end_at_a_max_pool(arch: str) -> None:
    seen, pools = 0, list[int]()
    for part in trunk(arch, 3).modules():
        seen += isinstance(part, nn.Conv2d)
        if isinstance(part, nn.MaxPool2d):
            pools.append(seen)
    assert {*ends(arch)} <= {*pools}


class Deep(nn.Module):
    width = 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(channels, 4, 3), *(nn.Conv2d(4, 4, 3) for _ in range(5)))


class Flat(nn.Module):
    width = 4

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels, 4, 3)


def test_a_network_of_ones_own_is_pruned_by_quarters() -> None:
    assert depths(f"{__name__}:Deep") == {
        "up to 2": "convs:2",
        "up to 3": "convs:3",
        "up to 5": "convs:5",
        "whole network": "all",
    }
    with pytest.raises(Unfit, match="Flat has a single convolution, so it can't be pruned down to a depth"):
        depths(f"{__name__}:Flat")
    with pytest.raises(ValueError, match="can't be imported"):
        depths("nowhere_at_all:Net")
