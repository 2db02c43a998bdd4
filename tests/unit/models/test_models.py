"""The networks: what is prunable, how weights are drawn, and what torchvision's checkpoints give."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from raysslprune import models
from raysslprune.names import ARCHITECTURES
from raysslprune.recipes import NETS

CPU = torch.device("cpu")
CONV4 = {
    "layers.conv1.weight": (16, 1, 3, 3),
    "layers.conv2.weight": (32, 16, 3, 3),
    "layers.conv3.weight": (32, 32, 3, 3),
    "layers.conv4.weight": (64, 32, 3, 3),
}


def linear(outputs: int = 10) -> Callable[[int], nn.Module]:
    return lambda width: nn.Linear(width, outputs)


def conv4(seed: int = 0, channels: int = 1, outputs: int = 10) -> models.Network:
    return models.network("conv4", channels, linear(outputs), torch.Generator().manual_seed(seed), CPU)


def state(seed: int) -> dict[str, Tensor]:
    return conv4(seed).state_dict()


# ------------------------------------------------------------------------------------- what is prunable, by hand

Shape = tuple[int, ...]


def basic(blocks: Sequence[int], stem: int) -> list[Shape]:
    """A ResNet of blocks of two 3x3 convolutions, then the shortcut's where the width changes."""
    shapes, came = [(64, 3, stem, stem)], 64
    for width, count in zip((64, 128, 256, 512), blocks, strict=True):
        shapes += [(width, came, 3, 3), (width, width, 3, 3)] + [(width, came, 1, 1)] * (width != came)
        shapes += [(width, width, 3, 3)] * 2 * (count - 1)
        came = width
    return cast(list[Shape], shapes)


def bottleneck(blocks: Sequence[int], stem: int) -> list[Shape]:
    """A ResNet of blocks of 1x1, 3x3 and 1x1 convolutions, the last four times as wide; a shortcut in each stage."""
    shapes, came = [(64, 3, stem, stem)], 64
    for width, count in zip((64, 128, 256, 512), blocks, strict=True):
        wide = 4 * width
        shapes += [(width, came, 1, 1), (width, width, 3, 3), (wide, width, 1, 1), (wide, came, 1, 1)]
        shapes += [(width, wide, 1, 1), (width, width, 3, 3), (wide, width, 1, 1)] * (count - 1)
        came = wide
    return cast(list[Shape], shapes)


def vgg(*layers: int) -> list[Shape]:
    """``layers`` 3x3 convolutions of each of the widths, VGG's five groups."""
    widths = [width for width, count in zip((64, 128, 256, 512, 512), layers, strict=True) for _ in range(count)]
    return [(width, came, 3, 3) for came, width in zip([3, *widths], widths, strict=False)]


ALEXNET = [(64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3), (256, 384, 3, 3), (256, 256, 3, 3)]
ALEXNET += [(4096, 256 * 6 * 6), (4096, 4096)]
SHAPES: dict[str, list[Shape]] = {
    "conv4": [(16, 3, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)],
    "conv5": [(16, 3, 3, 3), (16, 16, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)],
    "resnet8": [
        *((16, 3, 3, 3), (16, 16, 3, 3), (16, 16, 3, 3)),
        *((32, 16, 3, 3), (32, 32, 3, 3), (32, 16, 1, 1)),
        *((64, 32, 3, 3), (64, 64, 3, 3), (64, 32, 1, 1)),
    ],
    "alexnet8": [
        *((16, 3, 3, 3), (32, 16, 3, 3), (48, 32, 3, 3), (32, 48, 3, 3), (32, 32, 3, 3)),
        *((512, 128), (512, 512)),
    ],
    "resnet18-cifar": basic([2, 2, 2, 2], stem=3),
    "resnet34-cifar": basic([3, 4, 6, 3], stem=3),
    "resnet50-cifar": bottleneck([3, 4, 6, 3], stem=3),
    "resnet18": basic([2, 2, 2, 2], stem=7),
    "resnet34": basic([3, 4, 6, 3], stem=7),
    "resnet50": bottleneck([3, 4, 6, 3], stem=7),
    "vgg11": vgg(1, 1, 2, 2, 2),
    "vgg13": vgg(2, 2, 2, 2, 2),
    "vgg16": vgg(2, 2, 3, 3, 3),
    "vgg19": vgg(2, 2, 4, 4, 4),
    "alexnet": ALEXNET,
    "alexnet-bn": ALEXNET,
}
WIDTHS = {arch: shapes[-1][0] for arch, shapes in SHAPES.items()}
CIFAR = {
    "conv4",
    "conv5",
    "resnet8",
    "alexnet8",
    "resnet18-cifar",
    "resnet34-cifar",
    "resnet50-cifar",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
}
"""What the paper has for 32-pixel images, or would have."""


def weights(arch: str, channels: int = 3) -> dict[str, Tensor]:
    return models.prunable(models.trunk(arch, channels))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_prunable_weights_are_those_counted_by_hand_in_order(arch: str) -> None:
    """Layer by layer; a stage's shortcut is defined after the block's own convolutions."""
    found = weights(arch)
    assert [tuple(w.shape) for w in found.values()] == SHAPES[arch]
    assert models.convolutions(models.trunk(arch, 3)) == [name for name, w in found.items() if w.dim() == 4]
    names = list(models.trunk(arch, 3).state_dict())
    assert list(found) == sorted(found, key=names.index)


@pytest.mark.parametrize(
    ("arch", "count"), [("vgg19", 20_018_880), ("resnet18-cifar", 11_159_232), ("resnet50", 23_454_912)]
)
def test_the_papers_networks_have_the_papers_number_of_prunable_weights(arch: str, count: int) -> None:
    assert sum(w.numel() for w in weights(arch).values()) == count
    assert sum(math.prod(shape) for shape in SHAPES[arch]) == count


@pytest.mark.parametrize("arch", ["alexnet", "alexnet-bn"])
def test_alexnet_is_mostly_its_mlp(arch: str) -> None:
    """Conv 2.47 M, MLP 54.53 M (paper's Figure 9 turns on it)."""
    sizes = {dim: sum(w.numel() for w in weights(arch).values() if w.dim() == dim) for dim in (4, 2)}
    assert {dim: round(size / 1e6, 2) for dim, size in sizes.items()} == {4: 2.47, 2: 54.53}


def test_conv4_has_32400_prunable_weights() -> None:
    found = weights("conv4", 1)
    assert {name: tuple(w.shape) for name, w in found.items()} == CONV4
    assert list(found) == list(CONV4)
    by_hand = 9 * (1 * 16 + 16 * 32 + 32 * 32 + 32 * 64)
    assert sum(w.numel() for w in found.values()) == by_hand == 32_400


@pytest.mark.parametrize("arch", NETS)
def test_recipes_state_the_true_sizes(arch: str) -> None:
    """With a head for the classes of digits, CIFAR-10 or ImageNet."""
    channels = 1 if arch in ("conv4", "resnet8", "alexnet8") else 3
    classes = 10 if arch in CIFAR else 1000
    trunk = models.trunk(arch, channels)
    with torch.device("meta"):
        net = models.Network(trunk, nn.Linear(WIDTHS[arch], classes))
    assert sum(p.numel() for p in net.parameters()) == NETS[arch].parameters
    assert sum(w.numel() for w in models.prunable(net.trunk).values()) == NETS[arch].prunable


def test_conv4_parameters_by_hand() -> None:
    convolutions, norms, head = 32_400, 2 * (16 + 32 + 32 + 64), 64 * 10 + 10
    assert sum(p.numel() for p in conv4().parameters()) == convolutions + norms + head == 33_338


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_head_biases_and_norms_are_not_prunable(arch: str) -> None:
    trunk = models.trunk(arch, 3)
    with torch.device("meta"):
        net = models.Network(trunk, nn.Linear(WIDTHS[arch], 10))
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


# ------------------------------------------------------------------------------------- how weights are drawn


@pytest.mark.parametrize("seed", [0, 7])
def test_the_order_of_draws_of_stored_results(seed: int) -> None:
    """Convolutions from the first to the last, then the head's weight and bias: another order would be another net."""
    generator = torch.Generator().manual_seed(seed)
    expected: dict[str, Tensor] = {}
    for name, shape in CONV4.items():
        std = math.sqrt(2) / math.sqrt(shape[0] * 9)
        expected[f"trunk.{name}"] = torch.empty(shape).normal_(0, std, generator=generator)
    expected["head.weight"] = torch.empty(10, 64).uniform_(-1 / 8, 1 / 8, generator=generator)
    expected["head.bias"] = torch.empty(10).uniform_(-1 / 8, 1 / 8, generator=generator)
    found = state(seed)
    assert all(torch.equal(found[name], t) for name, t in expected.items())


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


def test_a_head_may_have_a_norm_and_no_bias() -> None:
    """As linear probes have: batch-norm without parameters, then a linear layer."""

    def head(width: int) -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(width, affine=False), nn.Linear(width, 5, bias=False))

    net = models.network("conv4", 1, head, torch.Generator().manual_seed(0), CPU)
    found = net.head.state_dict()
    assert found["0.running_mean"].tolist() == [0.0] * 64
    assert found["0.running_var"].tolist() == [1.0] * 64
    assert int(found["0.num_batches_tracked"]) == 0
    assert found.keys() == {"0.running_mean", "0.running_var", "0.num_batches_tracked", "1.weight"}
    plain = conv4(outputs=5).state_dict()
    assert torch.equal(found["1.weight"], plain["head.weight"])
    assert all(torch.equal(t, plain[f"trunk.{name}"]) for name, t in net.trunk.state_dict().items())
    assert net(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))).shape == (4, 5)


@pytest.mark.parametrize("arch", ["resnet18-cifar", "vgg11", "alexnet-bn", "conv5", "resnet8", "alexnet8"])
def test_every_tensor_of_a_large_network_is_drawn(arch: str) -> None:
    before = torch.get_rng_state()
    net = models.network(arch, 3, linear(), torch.Generator().manual_seed(0), CPU)
    assert torch.equal(torch.get_rng_state(), before)
    start = {"running_mean": 0.0, "running_var": 1.0, "num_batches_tracked": 0.0}
    for name, part in net.named_modules():
        own = {**dict(part.named_parameters(recurse=False)), **dict(part.named_buffers(recurse=False))}
        for kind, t in own.items():
            assert not t.is_meta
            if isinstance(part, nn.Linear) or (isinstance(part, nn.Conv2d) and kind == "weight"):
                fan = t.shape[0] * t[0, 0].numel() if isinstance(part, nn.Conv2d) else 6 * part.in_features
                std = float(t.detach().std()) * math.sqrt(fan / 2)
                assert std == pytest.approx(1, abs=5 / math.sqrt(t.numel())), name
            else:
                neutral = start.get(kind, float(kind == "weight"))
                assert bool((t == neutral).all()), f"{name}.{kind}"


# ------------------------------------------------------------------------------------- what a network computes


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


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_trunk_alone_takes_no_memory_and_no_random_numbers(arch: str) -> None:
    before = torch.get_rng_state()
    trunk = models.trunk(arch, 3)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(t.is_meta for t in [*trunk.parameters(), *trunk.buffers()])


PIXELS = {arch: (63, 224) if "alexnet" in arch else (32, 224) for arch in ARCHITECTURES} | {"conv4": (8, 32, 224)}


@pytest.mark.parametrize(("arch", "pixels"), [(arch, p) for arch, sizes in PIXELS.items() for p in sizes])
@pytest.mark.parametrize("channels", [1, 3])
def test_features_are_as_wide_as_the_trunk_says(arch: str, pixels: int, channels: int) -> None:
    trunk = models.trunk(arch, channels)
    assert trunk.width == WIDTHS[arch]
    assert trunk(torch.empty(2, channels, pixels, pixels, device="meta")).shape == (2, WIDTHS[arch])


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_channels_change_the_stem_alone(arch: str) -> None:
    one, three = models.trunk(arch, 1).state_dict(), models.trunk(arch, 3).state_dict()
    stem = next(iter(weights(arch)))
    assert list(one) == list(three)
    assert {name for name in one if one[name].shape != three[name].shape} == {stem}
    assert one[stem].shape[1] == 1


@pytest.mark.parametrize(
    ("arch", "pixels", "sizes"),
    [
        *[(f"resnet{depth}-cifar", 32, [32, 16, 8, 4]) for depth in (18, 34, 50)],
        *[(f"resnet{depth}", 224, [56, 28, 14, 7]) for depth in (18, 34, 50)],
    ],
)
def test_the_stem_fits_the_images(arch: str, pixels: int, sizes: list[int]) -> None:
    """Height after each of a ResNet's four stages: the stem for CIFAR keeps the image's."""
    trunk, found = models.trunk(arch, 3), list[int]()
    for stage in (1, 2, 3, 4):
        layer = trunk.get_submodule(f"layer{stage}")
        layer.register_forward_hook(lambda _module, _inputs, output: found.append(output.shape[2]))
    trunk(torch.empty(2, 3, pixels, pixels, device="meta"))
    assert found == sizes


def test_alexnet_bn_is_what_its_description_says() -> None:
    """Batch-norm and ReLU after every layer, three pools, no bias and no dropout."""
    trunk = models.trunk("alexnet-bn", 3)
    kinds = [type(part).__name__ for part in trunk.modules() if not list(part.children())]
    conv, fc = ["Conv2d", "BatchNorm2d", "ReLU"], ["Linear", "BatchNorm1d", "ReLU"]
    pool = ["MaxPool2d"]
    assert kinds == [*conv, *pool, *conv, *pool, *conv * 3, *pool, "AdaptiveAvgPool2d", *fc, *fc]
    norms = [part for part in trunk.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert [norm.num_features for norm in norms] == [shape[0] for shape in ALEXNET]
    biases = [name for name, _ in trunk.named_parameters() if name.endswith("bias")]
    assert len(biases) == len(norms)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_no_network_drops_out(arch: str) -> None:
    dropouts = [part for part in models.trunk(arch, 3).modules() if "Dropout" in type(part).__name__]
    assert all(cast(nn.Dropout, part).p == 0 for part in dropouts)


def test_the_small_alexnet_is_mostly_its_mlp() -> None:
    sizes = {dim: sum(w.numel() for w in weights("alexnet8", 1).values() if w.dim() == dim) for dim in (4, 2)}
    assert sizes == {2: 327_680, 4: 41_616}  # 89% in the MLP


@pytest.mark.parametrize(("arch", "sizes"), [("resnet8", (8, 32)), ("alexnet8", (8, 32)), ("conv5", (32,))])
def test_small_networks_take_small_images(arch: str, sizes: tuple[int, ...]) -> None:
    net = models.network(arch, 1, linear(), torch.Generator().manual_seed(0), CPU).eval()
    for size in sizes:
        images = torch.randn(3, 1, size, size, generator=torch.Generator().manual_seed(size))
        outputs = net(images)
        assert outputs.shape == (3, 10)
        assert outputs.isfinite().all()
        torch.testing.assert_close(net(images[:1]), outputs[:1], rtol=1e-4, atol=1e-5)


def test_resnet8_is_what_its_description_says() -> None:
    """Stem, then x + f(x) three times, the last two halved and with a 1x1 shortcut, by torch's functions."""
    net = models.network("resnet8", 1, linear(), torch.Generator().manual_seed(0), CPU).eval()
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    w = {name.removeprefix("trunk.layers."): t for name, t in net.state_dict().items()}

    def norm(x: Tensor, at: str) -> Tensor:
        return F.batch_norm(x, *(w[f"{at}.{part}"] for part in ("running_mean", "running_var", "weight", "bias")))

    x = F.relu(norm(F.conv2d(images, w["0.weight"], padding=1), "1"))
    for block, stride in ((3, 1), (4, 2), (5, 2)):
        y = F.relu(norm(F.conv2d(x, w[f"{block}.conv1.weight"], stride=stride, padding=1), f"{block}.bn1"))
        y = norm(F.conv2d(y, w[f"{block}.conv2.weight"], padding=1), f"{block}.bn2")
        if stride == 2:
            x = norm(F.conv2d(x, w[f"{block}.downsample.0.weight"], stride=2), f"{block}.downsample.1")
        x = F.relu(x + y)
    expected = F.linear(x.mean(dim=(2, 3)), w["head.weight"], w["head.bias"])
    with torch.no_grad():
        torch.testing.assert_close(net(images), expected)


# ------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["conv6", "resnet18_cifar", ""])
def test_an_unknown_architecture_is_refused_with_a_sentence(name: str) -> None:
    with pytest.raises(ValueError, match=rf"architecture '{name}' is not known; .*conv4, conv5"):
        models.trunk(name, 1)
    with pytest.raises(ValueError, match=rf"architecture '{name}' is not known; .*conv4, conv5"):
        models.network(name, 1, linear(), torch.Generator(), CPU)


NETS_OF_A_USER = """
from torch import nn

class Tiny(nn.Sequential):
    width = 3

    def __init__(self, channels):
        super().__init__(nn.Conv2d(channels, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())

def no_width(channels):
    return nn.Conv2d(channels, 3, 3)

def no_module(channels):
    return channels
"""


def test_a_network_of_your_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets_of_a_user.py").write_text(NETS_OF_A_USER)
    monkeypatch.syspath_prepend(str(tmp_path))
    net = models.network("nets_of_a_user:Tiny", 2, linear(4), torch.Generator().manual_seed(0), CPU)
    assert list(models.prunable(net.trunk)) == ["0.weight"]
    assert net(torch.ones(5, 2, 8, 8)).shape == (5, 4)
    for name in ("no_width", "no_module"):
        with pytest.raises(TypeError, match=rf"nets_of_a_user:{name}.*'width'"):
            models.trunk(f"nets_of_a_user:{name}", 2)


# ------------------------------------------------------------------------------------- what draw knows


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))


class Gained(nn.Conv2d):
    """A convolution with a tensor more than draw knows."""

    def __init__(self) -> None:
        super().__init__(1, 1, 3)
        self.gain = nn.Parameter(torch.ones(1))


LAYERS = [nn.ConvTranspose2d(1, 1, 3), nn.GroupNorm(1, 2), nn.PReLU(), nn.BatchNorm3d(2), Scale(), Gained()]


@pytest.mark.parametrize("layer", LAYERS)
def test_draw_refuses_a_layer_that_it_does_not_know(layer: nn.Module) -> None:
    with pytest.raises(TypeError, match=type(layer).__name__):
        models.draw(nn.Sequential(nn.Conv2d(1, 1, 3), layer), torch.Generator())


def test_draw_zeroes_the_bias_of_a_convolution() -> None:
    conv = nn.Conv2d(1, 3, 3)
    models.draw(conv, torch.Generator())
    assert cast(Tensor, conv.bias).tolist() == [0.0] * 3


@pytest.mark.parametrize("norm", [nn.BatchNorm1d, nn.BatchNorm2d])
@pytest.mark.parametrize("affine", [True, False])
def test_draw_makes_a_norm_neutral(norm: Callable[..., nn.Module], affine: bool) -> None:
    layer = norm(3, affine=affine)
    for t in layer.state_dict().values():
        t.fill_(7)
    models.draw(layer, torch.Generator())
    start = {"weight": 1, "bias": 0, "running_mean": 0, "running_var": 1, "num_batches_tracked": 0}
    found = layer.state_dict()
    assert len(found) == (5 if affine else 3)
    assert all(bool((t == start[name]).all()) for name, t in found.items())


# ------------------------------------------------------------------------------------- torchvision's checkpoints


def trained(make: Callable[[], nn.Module]) -> nn.Module:
    """A model of torchvision's with random weights and batch-norm statistics, in eval mode."""
    generator = torch.Generator().manual_seed(5)
    with torch.device("meta"):
        model = make()
    model.to_empty(device="cpu").eval()
    for name, t in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            t.fill_(3)
        elif t.dim() > 1:
            t.normal_(0, math.sqrt(2 / t[0].numel()), generator=generator)
        else:
            t.uniform_(0.5, 1.5, generator=generator)
    return model


def into_trunk(arch: str, path: Path) -> nn.Module:
    """Our trunk in eval mode with the weights that the file of a torchvision model has."""
    found = models.from_torchvision(arch, models.read_checkpoint(path))
    trunk = models.trunk(arch, 3)
    assert list(found) == [f"trunk.{name}" for name in trunk.state_dict()]
    trunk.load_state_dict({name.removeprefix("trunk."): t for name, t in found.items()}, assign=True)
    return trunk.eval()


def vgg11_bn() -> nn.Module:
    """With a small MLP: the true one has 124 million weights, none of which is looked at."""
    model = torchvision.models.vgg11_bn(init_weights=False)
    model.classifier = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    return model


@torch.no_grad()
def test_a_resnet_of_torchvision_gives_the_same_features(tmp_path: Path, images: Tensor) -> None:
    model = cast(torchvision.models.ResNet, trained(torchvision.models.resnet50))
    torch.save({"epoch": 90, "state_dict": nn.DataParallel(model).state_dict()}, tmp_path / "resnet50.pth")
    model.fc = cast(Any, nn.Identity())
    features = into_trunk("resnet50", tmp_path / "resnet50.pth")(images)
    assert float(features.std()) > 0.1
    assert torch.equal(features, model(images))


@torch.no_grad()
def test_a_vgg_of_torchvision_gives_the_same_features(tmp_path: Path, images: Tensor) -> None:
    model = cast(torchvision.models.VGG, trained(vgg11_bn))
    safetensors.torch.save_file(model.state_dict(), tmp_path / "vgg11_bn.safetensors")
    features = into_trunk("vgg11", tmp_path / "vgg11_bn.safetensors")(images)
    assert float(features.std()) > 0.1
    torch.testing.assert_close(features, F.adaptive_avg_pool2d(model.features(images), 1).flatten(1))


@torch.no_grad()
def test_an_alexnet_of_torchvision_gives_the_same_features(tmp_path: Path, images: Tensor) -> None:
    """In train mode too: there is no dropout, and nothing of the global random state is used."""
    model = cast(torchvision.models.AlexNet, trained(torchvision.models.alexnet))
    torch.save(model.state_dict(), tmp_path / "alexnet.pth")
    model.classifier[6] = nn.Identity()
    trunk, before = into_trunk("alexnet", tmp_path / "alexnet.pth"), torch.get_rng_state()
    features = trunk(images)
    assert float(features.std()) > 0.1
    assert torch.equal(features, model(images))
    assert torch.equal(features, trunk.train()(images))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(6))


def test_what_a_checkpoint_gives_is_a_networks_state() -> None:
    """conv4 stands for all: prefixes, other dtypes and layouts, parameters, classifiers of any kind."""
    net = conv4(seed=3, channels=3)
    trunk = net.trunk.state_dict()
    given: dict[str, Tensor] = {f"module.{name}": t for name, t in trunk.items()}
    strided = trunk["layers.conv2.weight"].to(memory_format=torch.channels_last)
    given["module.layers.conv2.weight"] = nn.Parameter(strided)
    given["module.layers.conv3.weight"] = trunk["layers.conv3.weight"].double()
    heads = ["fc.weight", "fc.bias", "module.fc.0.weight", "classifier.6.weight", "module.classifier.0.bias"]
    found = models.from_torchvision("conv4", {**given, **{name: torch.ones(2) for name in heads}})
    assert list(found) == [f"trunk.{name}" for name in trunk]
    for name, own in trunk.items():
        t = found[f"trunk.{name}"]
        assert torch.equal(t, own)
        assert (t.dtype, t.is_contiguous(), t.requires_grad) == (own.dtype, True, False)
    net.load_state_dict({**found, **{name: t for name, t in net.state_dict().items() if name.startswith("head.")}})


def test_checkpoints_from_before_batches_were_counted_fit() -> None:
    trunk = conv4(seed=3, channels=3).trunk.state_dict()
    old = {name: t for name, t in trunk.items() if not name.endswith("num_batches_tracked")}
    assert len(old) == len(trunk) - 4
    found = models.from_torchvision("conv4", old)
    assert all(torch.equal(found[f"trunk.{name}"], t) for name, t in trunk.items())


def without(state: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: t for name, t in state.items() if name not in names}


def on_meta(make: Callable[[], nn.Module]) -> dict[str, Tensor]:
    with torch.device("meta"):
        return make().state_dict()


@pytest.mark.parametrize(
    ("arch", "channels", "make", "sentence"),
    [
        ("resnet18-cifar", 3, torchvision.models.resnet18, "conv1.weight is (64, 3, 7, 7), not (64, 3, 3, 3)"),
        ("resnet50", 1, torchvision.models.resnet50, "conv1.weight is (64, 3, 7, 7), not (64, 1, 7, 7)"),
        ("resnet34", 3, torchvision.models.resnet18, "missing: layer1.2.conv1.weight, "),
        ("resnet18", 3, torchvision.models.resnet34, "unknown: layer1.2.conv1.weight, "),
        ("vgg11", 3, torchvision.models.vgg11, "missing: features.1.weight, "),
        ("alexnet-bn", 3, torchvision.models.alexnet, "missing: features.1.weight, "),
        ("alexnet", 3, torchvision.models.vgg11, "missing: features.10.weight, features.10.bias"),
        ("conv4", 3, nn.Identity, "missing: layers.conv1.weight, layers.bn1.weight, layers.bn1.bias and 17 more"),
    ],
)
def test_weights_of_another_architecture_are_refused(
    arch: str, channels: int, make: Callable[[], nn.Module], sentence: str
) -> None:
    with pytest.raises(ValueError, match=f"^the checkpoint is not of architecture '{arch}': ") as error:
        models.from_torchvision(arch, on_meta(make), channels)
    assert sentence in str(error.value)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)


def test_the_sentence_names_all_that_is_wrong() -> None:
    given = without(on_meta(torchvision.models.resnet18), "layer1.0.conv1.weight")
    given |= {"encoder.weight": torch.ones(2), "bn1.bias": torch.ones(1, 64)}
    with pytest.raises(ValueError, match="resnet18") as error:
        models.from_torchvision("resnet18", given)
    assert str(error.value) == (
        "the checkpoint is not of architecture 'resnet18': missing: layer1.0.conv1.weight; "
        "unknown: encoder.weight; bn1.bias is (1, 64), not (64,)"
    )


# ------------------------------------------------------------------------------------- checkpoint files

WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(4)}


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        {"state_dict": WEIGHTS, "epoch": 3, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        {"model": WEIGHTS, "args": argparse.Namespace(lr=0.1, device="cuda", sizes=[1, 2])},
        {
            "model": "resnet50",
            "state_dict": {name: nn.Parameter(t, t.is_floating_point()) for name, t in WEIGHTS.items()},
        },
        {"model": {"name": "resnet50"}, "state_dict": WEIGHTS},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_is_read_wherever_its_weights_are(content: Any, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    for found in (models.read_checkpoint(path), models.read_checkpoint(str(path))):
        assert list(found) == list(WEIGHTS)
        assert all(torch.equal(found[name], t) for name, t in WEIGHTS.items())


def test_safetensors_are_read(tmp_path: Path) -> None:
    safetensors.torch.save_file(WEIGHTS, tmp_path / "a.safetensors")
    found = models.read_checkpoint(tmp_path / "a.safetensors")
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[name], t) for name, t in WEIGHTS.items())


@pytest.mark.parametrize(
    "content", [[torch.ones(2)], torch.ones(2), {}, {"a": 1}, {"a": torch.ones(2), "b": 1}, {"state_dict": {}}, "text"]
)
def test_a_file_without_weights_by_name_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match=r"checkpoint\.pth holds no weights by name"):
        models.read_checkpoint(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    (safetensors.torch.save_file if name.endswith("safetensors") else torch.save)(cast(Any, WEIGHTS), path)
    whole = path.read_bytes()
    for content in (b"", b"<html>404</html>", b"hello world", whole[: len(whole) // 2], whole[:-3]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^.*{name} is damaged, or no checkpoint, [^\n]*$"):
            models.read_checkpoint(path)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_file_that_is_not_there_is_said_to_be_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        models.read_checkpoint(tmp_path / name)


class Code:
    """What makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(zipped: bool, tmp_path: Path) -> None:
    path, made = tmp_path / "checkpoint.pth", tmp_path / "made"
    torch.save({"state_dict": WEIGHTS, "more": Code(made)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"holds more than tensors and plain values$"):
        models.read_checkpoint(path)
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists()  # it would have run


def test_a_module_that_was_saved_whole_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match=r"holds more than tensors and plain values$"):
        models.read_checkpoint(tmp_path / "checkpoint.pth")


def test_an_outline_is_made_once_and_is_the_trunks() -> None:
    once, trunk = models.outline("conv4", 1), models.trunk("conv4", 1)
    assert models.outline("conv4", 1) is once
    assert models.outline("conv4", 3) is not once
    assert trunk is not once  # it is a network's, which is filled with weights
    shapes = {name: (tensor.shape, tensor.device.type) for name, tensor in once.state_dict().items()}
    assert shapes == {name: (tensor.shape, "meta") for name, tensor in trunk.state_dict().items()}
