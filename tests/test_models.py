"""The networks: what is prunable, how weights are drawn."""

from __future__ import annotations

import math
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysslprune import models
from raysslprune.recipes import NETS

CPU = torch.device("cpu")
CONV4 = {
    "layers.conv1.weight": (16, 1, 3, 3),
    "layers.conv2.weight": (32, 16, 3, 3),
    "layers.conv3.weight": (32, 32, 3, 3),
    "layers.conv4.weight": (64, 32, 3, 3),
}


def conv4(seed: int = 0, channels: int = 1, outputs: int = 10) -> models.Network:
    return models.network("conv4", channels, outputs, torch.Generator().manual_seed(seed), CPU)


def state(seed: int) -> dict[str, Tensor]:
    return conv4(seed).state_dict()


def test_conv4_has_32400_prunable_weights() -> None:
    weights = models.prunable(models.trunk("conv4", 1))
    assert {name: tuple(w.shape) for name, w in weights.items()} == CONV4
    assert list(weights) == list(CONV4)
    by_hand = 9 * (1 * 16 + 16 * 32 + 32 * 32 + 32 * 64)
    assert sum(w.numel() for w in weights.values()) == by_hand == 32_400


@pytest.mark.parametrize("arch", models.TRUNKS)
def test_recipes_state_the_true_sizes(arch: str) -> None:
    net = models.network(arch, 1, 10, torch.Generator(), CPU)
    assert sum(p.numel() for p in net.parameters()) == NETS[arch].parameters
    assert sum(w.numel() for w in models.prunable(net.trunk).values()) == NETS[arch].prunable


def test_conv4_parameters_by_hand() -> None:
    convolutions, norms, head = 32_400, 2 * (16 + 32 + 32 + 64), 64 * 10 + 10
    assert sum(p.numel() for p in conv4().parameters()) == convolutions + norms + head == 33_338


@pytest.mark.parametrize("arch", models.TRUNKS)
def test_head_biases_and_norms_are_not_prunable(arch: str) -> None:
    net = models.network(arch, 3, 10, torch.Generator(), CPU)
    prunable = {id(w) for w in models.prunable(net.trunk).values()}
    for name, p in net.named_parameters():
        if id(p) in prunable:
            assert name.startswith("trunk.")
            assert name.endswith(".weight")
            assert p.dim() in (2, 4)  # a norm's weight has one dimension
        else:
            assert name.startswith("head.") or p.dim() == 1


def test_linear_layers_of_a_trunk_are_prunable_without_their_bias() -> None:
    trunk = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 5))
    assert list(models.prunable(trunk)) == ["0.weight", "3.weight"]
    assert models.convolutions(trunk) == ["0.weight"]
    assert models.prunable(trunk)["3.weight"] is trunk[3].weight


def test_convolutions_are_named_in_order() -> None:
    assert models.convolutions(models.trunk("conv4", 1)) == list(CONV4)


def test_convolutions_are_drawn_normal_by_fan_out() -> None:
    """std = sqrt(2 / (output channels * 9)) to 5 standard errors, from 30 draws; mean 0."""
    drawn = [state(seed) for seed in range(30)]
    for name, shape in CONV4.items():
        values = torch.cat([d[f"trunk.{name}"].flatten() for d in drawn]).double()
        std = math.sqrt(2 / (shape[0] * 9))
        assert abs(float(values.std()) / std - 1) < 5 / math.sqrt(2 * len(values))
        assert abs(float(values.mean())) < 5 * std / math.sqrt(len(values))
        fourth = float((values / std).pow(4).mean())
        assert abs(fourth - 3) < 5 * math.sqrt(96 / len(values))  # normal, not uniform (1.8)


def test_the_head_is_drawn_as_torch_draws_linear_layers() -> None:
    bound = 1 / math.sqrt(64)
    drawn = [state(seed) for seed in range(30)]
    for part in ("head.weight", "head.bias"):
        values = torch.cat([d[part].flatten() for d in drawn]).double()
        assert float(values.abs().max()) <= bound
        assert abs(float(values.std()) * math.sqrt(3) / bound - 1) < 5 / math.sqrt(len(values))


def test_norms_begin_neutral() -> None:
    start = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0.0}
    found = {name: t for name, t in state(0).items() if ".bn" in name}
    assert len(found) == 4 * len(start)
    for name, t in found.items():
        assert bool((t == start[name.rpartition(".")[2]]).all()), name


def test_draws_depend_on_the_generator_alone() -> None:
    first = state(0)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        before = torch.get_rng_state()
        again = state(0)
        assert torch.equal(torch.get_rng_state(), before)
    other = state(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    drawn = [f"trunk.{name}" for name in CONV4] + ["head.weight", "head.bias"]
    assert not any(torch.equal(first[name], other[name]) for name in drawn)


def test_a_head_of_another_width_leaves_the_trunk_as_it_was() -> None:
    ten, four = conv4(outputs=10).trunk.state_dict(), conv4(outputs=4).trunk.state_dict()
    assert all(torch.equal(ten[name], four[name]) for name in ten)


def test_conv4_is_what_its_description_says() -> None:
    """conv16 - pool - conv32 - conv32 - pool - conv64 - average pool - fc, by torch's functions."""
    net = conv4(channels=3)
    generator = torch.Generator().manual_seed(1)
    for name, t in net.state_dict().items():
        if ".bn" in name and t.is_floating_point():
            t.copy_(torch.rand(t.shape, generator=generator) + 0.5)
    w = net.state_dict()
    images = torch.randn(5, 3, 8, 8, generator=generator)
    x = images
    for number in (1, 2, 3, 4):
        b = f"trunk.layers.bn{number}"
        x = F.conv2d(x, w[f"trunk.layers.conv{number}.weight"], padding=1)
        x = F.batch_norm(x, w[f"{b}.running_mean"], w[f"{b}.running_var"], w[f"{b}.weight"], w[f"{b}.bias"])
        x = F.relu(x)
        if number in (1, 3):
            x = F.max_pool2d(x, 2)
    x = F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), w["head.weight"], w["head.bias"])
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(images), x)


def test_a_trunk_alone_takes_no_memory() -> None:
    trunk = models.trunk("conv4", 1)
    assert all(t.is_meta for t in trunk.state_dict().values())


def test_an_unknown_architecture_is_refused_with_a_sentence() -> None:
    with pytest.raises(ValueError, match=r"'conv5' is not one of .*conv4"):
        models.trunk("conv5", 1)
    with pytest.raises(ValueError, match=r"'conv5' is not one of .*conv4"):
        models.network("conv5", 1, 10, torch.Generator(), CPU)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


@pytest.mark.parametrize("layer", [nn.ConvTranspose2d(1, 1, 3), nn.GroupNorm(1, 2), nn.PReLU(), Scale()])
def test_draw_refuses_a_layer_that_it_does_not_know(layer: nn.Module) -> None:
    with pytest.raises(TypeError, match=type(layer).__name__):
        models.draw(nn.Sequential(nn.Conv2d(1, 1, 3), layer), torch.Generator())


def test_draw_zeroes_the_bias_of_a_convolution() -> None:
    conv = nn.Conv2d(1, 3, 3)
    models.draw(conv, torch.Generator())
    assert cast(Tensor, conv.bias).tolist() == [0.0] * 3
