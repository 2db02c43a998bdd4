"""The networks: what is prunable, how weights are drawn, and what they compute."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysslprune import models
from raysslprune.catalogue import ARCHITECTURES
from raysslprune.paper.recipes import NETS

CPU = torch.device("cpu")
CONV4 = {
    "layers.conv1.weight": (16, 1, 3, 3),
    "layers.conv2.weight": (32, 16, 3, 3),
    "layers.conv3.weight": (32, 32, 3, 3),
    "layers.conv4.weight": (64, 32, 3, 3),
}


def test_multiply_adds_by_hand() -> None:
    """A convolution that is used twice, one in two groups, and a linear layer at each of three positions."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.twice = nn.Conv2d(2, 2, 3, padding=1)
            self.grouped = nn.Conv2d(2, 6, 2, stride=2, groups=2)
            self.last = nn.Linear(12, 5)
            self.unused = nn.Linear(7, 7)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.grouped(self.twice(self.twice(x))).reshape(len(x), -1, 12))

    with torch.device("meta"):
        net = Net()
    assert models.multiply_adds(net, channels=2, size=5) == {
        "twice.weight": 2 * (5 * 5) * (2 * 2 * 3 * 3),
        "grouped.weight": (2 * 2) * (6 * 1 * 2 * 2),
        "last.weight": 2 * (12 * 5),
    }


def linear(outputs: int = 10) -> Callable[[int], nn.Module]:
    return lambda width: nn.Linear(width, outputs)


def conv4(seed: int = 0, channels: int = 1, outputs: int = 10) -> models.Network:
    return models.network("conv4", channels, linear(outputs), torch.Generator().manual_seed(seed), CPU)


def state(seed: int) -> dict[str, Tensor]:
    return conv4(seed).state_dict()


Shape = tuple[int, ...]


def basic(blocks: Sequence[int], stem: int, first: int = 64) -> list[Shape]:
    """A ResNet of blocks of two 3x3 convolutions, then the shortcut's where the width changes."""
    shapes, came = [(first, 3, stem, stem)], first
    for width, count in zip((first, 2 * first, 4 * first, 8 * first), blocks, strict=True):
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
    "resnet18-cifar-half": basic([2, 2, 2, 2], stem=3, first=32),
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
    "resnet18-cifar-half",
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


# ------------------------------------------------------------------------------------- what is prunable, by hand


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


# ------------------------------------------------------------------------------------- what draw knows


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


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(6))
