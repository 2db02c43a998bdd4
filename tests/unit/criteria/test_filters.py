"""Whole filters: which channels are one, how many go, and what torch-pruning and torch say."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from raysslprune import criteria, masks, models
from raysslprune.criteria import filters
from raysslprune.models.channels import Space, affine_mask, dead, norms, spaces, zero_removed
from raysslprune.spec import Prune
from raysslprune.store.record import WEIGHTS
from raysslprune.training import judge
from tests.helpers.judged import evidence, trained, training

IMAGE = (1, 8, 8)


def trunk(arch: str, image: tuple[int, int, int] = IMAGE) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    return models.network(arch, image[0], lambda width: nn.Linear(width, 2), generator, torch.device("cpu")).trunk


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: w.detach() for name, w in models.prunable(module).items()}


def all_left(weights: dict[str, Tensor]) -> masks.Mask:
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}


def pruned(arch: str, stay: int, uniform: bool = False) -> tuple[nn.Module, list[Space], masks.Mask]:
    net = trunk(arch)
    weights = weights_of(net)
    found = spaces(net, IMAGE)
    scores = {name: w.abs() for name, w in weights.items()}
    generator = torch.Generator().manual_seed(1)
    return net, found, filters.prune(scores, all_left(weights), stay, found, generator, uniform=uniform).mask


# ------------------------------------------------------------------------------------- channels


def test_layers_behind_a_shortcut_share_their_channels() -> None:
    """By hand: the small ResNet's first convolution and its first block; each later block and its shortcut."""
    found = spaces(trunk("resnet8"), IMAGE)
    made = [sorted(space.makers) for space in found if space.makers]
    assert made == [
        ["layers.0.weight", "layers.3.conv2.weight"],
        ["layers.3.conv1.weight"],
        ["layers.4.conv1.weight"],
        ["layers.4.conv2.weight", "layers.4.downsample.0.weight"],
        ["layers.5.conv1.weight"],
        ["layers.5.conv2.weight", "layers.5.downsample.0.weight"],
    ]
    first = found[1]
    assert sorted(first.readers) == [
        ("layers.3.conv1.weight", 1),
        ("layers.4.conv1.weight", 1),
        ("layers.4.downsample.0.weight", 1),
    ]
    assert sorted(first.affine) == ["layers.1.bias", "layers.1.weight", "layers.3.bn2.bias", "layers.3.bn2.weight"]
    assert [space.output for space in found] == [False] * 6 + [True]


def test_a_linear_layer_reads_four_numbers_for_each_channel_that_is_flattened() -> None:
    found = {space.makers[0]: space for space in spaces(trunk("alexnet8"), IMAGE) if space.makers}
    assert found["features.13.weight"].readers == [("mlp.0.weight", 4)]
    assert found["mlp.0.weight"].readers == [("mlp.3.weight", 1)]
    assert norms(trunk("alexnet8"), IMAGE)["mlp.0.weight"] == "mlp.1"


@pytest.mark.parametrize("arch", ["conv4", "conv5", "resnet8", "alexnet8", "resnet18-cifar", "vgg11", "resnet50"])
def test_the_channels_of_every_architecture_can_be_followed(arch: str) -> None:
    """Every prunable weight makes channels once and reads channels once, in all columns."""
    image = (3, 64, 64)
    module = models.trunk(arch, 3)
    shapes = {name: w.shape for name, w in models.prunable(module).items()}
    found = spaces(module, image)
    assert sorted(name for space in found for name in space.makers) == sorted(shapes)
    widths = {id(space): shapes[space.makers[0]][0] if space.makers else 3 for space in found}
    read = {name: widths[id(space)] * numbers for space in found for name, numbers in space.readers}
    assert read == {name: shape[1] for name, shape in shapes.items()}


class Grouped(nn.Module):
    width = 4

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, groups=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images).mean(dim=(2, 3))


class Joined(Grouped):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)

    def forward(self, images: Tensor) -> Tensor:
        return torch.cat([self.conv(images), self.conv(images)], dim=1).mean(dim=(2, 3))


class Choosing(Joined):
    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images) if images.sum() > 0 else images


@pytest.mark.parametrize(
    ("module", "sentence"),
    [
        (Grouped, "channels can't be followed through Conv2d conv"),
        (Joined, "channels can't be followed through call_function"),
        (Choosing, "the network can't be traced"),
    ],
)
def test_channels_that_can_not_be_followed_are_refused(module: type[nn.Module], sentence: str) -> None:
    with pytest.raises(ValueError, match=f"whole filters can't be pruned: {sentence}"):
        spaces(module(), (2, 8, 8))


# ------------------------------------------------------------------------------------- pruning


@pytest.mark.parametrize("arch", ["conv4", "resnet8", "alexnet8"])
@pytest.mark.parametrize("keep", [0.7, 0.2])
@pytest.mark.parametrize("uniform", [False, True])
def test_a_removed_filter_has_no_weight_anywhere_and_others_have_all(arch: str, keep: float, uniform: bool) -> None:
    net = trunk(arch)
    total = sum(w.numel() for w in weights_of(net).values())
    _, found, made = pruned(arch, round(total * keep), uniform)
    stays = {}
    for space in found:
        if space.makers:
            gone = dead(space, made)
            assert gone is not None
            assert int(gone.sum()) < len(gone)
            for name in space.makers:
                stays[name, "rows"] = ~gone
            for name, numbers in space.readers:
                stays[name, "columns"] = (~gone).repeat_interleave(numbers)
    for name, m in made.items():
        rows = stays.get((name, "rows"), torch.ones(m.shape[0], dtype=torch.bool))
        columns = stays.get((name, "columns"), torch.ones(m.shape[1], dtype=torch.bool))
        expected = rows[:, None] & columns[None]
        assert torch.equal(m, expected.view(*expected.shape, *[1] * (m.ndim - 2)).expand_as(m))


@given(seed=st.integers(0, 10**6), keep=st.floats(0.05, 0.95), tied=st.booleans(), uniform=st.booleans())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_count_is_as_near_as_whole_filters_in_order_allow(
    seed: int, keep: float, tied: bool, uniform: bool
) -> None:
    """No other number of filters, in the order of their scores, comes nearer."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: torch.Size(w.shape) for name, w in weights_of(NET).items()}
    scores = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
    if tied:
        scores = {name: (score > 0.5).float() for name, score in scores.items()}
    mask = masks.full(shapes)
    total = masks.left(mask)
    stay = round(total * keep)
    made = filters.prune(scores, mask, stay, FOUND, torch.Generator().manual_seed(seed), uniform=uniform).mask
    lefts = {total}
    for goal in range(0, total, total // 60):
        generator = torch.Generator().manual_seed(seed)
        lefts.add(masks.left(filters.prune(scores, mask, goal, FOUND, generator, uniform=uniform).mask))
    assert len(lefts) > 20
    nearest = min(abs(left - stay) for left in lefts)
    assert abs(masks.left(made) - stay) <= nearest


NET = trunk("conv4")
FOUND = spaces(NET, IMAGE)


def test_of_one_layer_the_filters_are_torchs_ln_structured() -> None:
    """The first convolution alone: half of its 16 filters, by L1 and by L2."""
    weight = weights_of(NET)["layers.conv1.weight"]
    for n, score in ((1, weight.abs()), (2, weight.square())):
        made = filters.prune(
            {"layers.conv1.weight": score},
            all_left(weights_of(NET)),
            72,
            FOUND,
            torch.Generator(),
            ["layers.conv1.weight"],
        ).mask
        layer = nn.Conv2d(1, 16, 3, bias=False)
        layer.weight.data.copy_(weight)
        torch_prune.ln_structured(layer, "weight", amount=8, n=n, dim=0)
        assert torch.equal(made["layers.conv1.weight"], layer.get_buffer("weight_mask").bool())
        assert made["layers.conv2.weight"].all()  # out of the scope


def test_shared_filters_are_torch_prunings() -> None:
    """torch-pruning 1.6, with L1 summed over the layers of a group, as here; half of each group's channels."""
    tp = pytest.importorskip("torch_pruning")
    net = trunk("resnet8")
    weights = weights_of(net)
    found = spaces(net, IMAGE)
    graph = tp.DependencyGraph().build_dependency(net, torch.zeros(1, *IMAGE))
    for space in found:
        if not space.makers:
            continue
        layer = net.get_submodule(space.makers[0].removesuffix(".weight"))
        group = graph.get_pruning_group(layer, tp.prune_conv_out_channels, idxs=[0])
        named = {module: name for name, module in net.named_modules()}
        theirs = {
            (named[item.target.module], item.handler.__name__) for item, _ in group if item.target.module in named
        }
        rows = {name for name, how in theirs if how == "prune_out_channels" and f"{name}.weight" in weights}
        columns = {name for name, how in theirs if how == "prune_in_channels" and f"{name}.weight" in weights}
        assert rows == {name.removesuffix(".weight") for name in space.makers}
        assert columns == {name.removesuffix(".weight") for name, _ in space.readers}


def test_a_layer_keeps_its_best_filter() -> None:
    net, found, made = pruned("conv4", 1)
    for space in found:
        gone = dead(space, made)
        if gone is not None:
            assert int((~gone).sum()) == 1
            scores = weights_of(net)[space.makers[0]].abs().flatten(1).sum(1)
            assert not gone[int(scores.argmax())]


def test_filters_of_layers_that_share_channels_with_one_outside_the_scope_stay() -> None:
    net = trunk("resnet8")
    weights = weights_of(net)
    scope = ["layers.0.weight", "layers.3.conv1.weight"]  # the first one shares its channels with layers.3.conv2
    scores = {name: w.abs() for name, w in weights.items()}
    made = filters.prune(scores, all_left(weights), 1, spaces(net, IMAGE), torch.Generator(), scope).mask
    assert made["layers.0.weight"].all()
    assert int(made["layers.3.conv1.weight"].flatten(1).any(1).sum()) == 1
    with pytest.raises(ValueError, match="no layer of the scope has channels of its own"):
        filters.prune(scores, all_left(weights), 1, spaces(net, IMAGE), torch.Generator(), scope[:1])


@pytest.mark.parametrize("wrong", [math.nan, None])
def test_a_filter_without_a_score_is_refused(wrong: float | None) -> None:
    weights = weights_of(NET)
    scores = {name: w.abs() for name, w in weights.items()}
    if wrong is None:
        del scores["layers.conv2.weight"]
    else:
        scores["layers.conv2.weight"][0, 0, 0, 0] = wrong
    with pytest.raises(ValueError, match=r"layers.conv2.weight"):
        filters.prune(scores, all_left(weights), 100, FOUND, torch.Generator())


# ------------------------------------------------------------------------------------- what is left


@pytest.mark.parametrize("arch", ["conv4", "resnet8", "alexnet8"])
def test_removed_channels_are_zero_after_every_layer(arch: str) -> None:
    """With weights alone set to 0, relu of BatchNorm's shift would remain."""
    net, found, made = pruned(arch, 3_000)
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.ndim == 1:
                parameter.copy_(torch.rand(len(parameter)) + 0.5)
        for name, weight in models.prunable(net).items():
            weight *= made[name]
    images = torch.rand(4, *IMAGE)

    def live(space: Space) -> float:
        """The largest output of a removed channel, at the readers of a space."""
        gone = dead(space, made)
        assert gone is not None
        seen: list[Tensor] = []
        name, numbers = space.readers[0]
        layer = net.get_submodule(name.removesuffix(".weight"))
        hook = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
        with torch.no_grad():
            net.eval()(images)
        hook.remove()
        return float(seen[0].transpose(0, 1)[gone.repeat_interleave(numbers)].abs().max())

    inner = [space for space in found if space.readers and (gone := dead(space, made)) is not None and gone.any()]
    assert inner
    assert max(map(live, inner)) > 0.1
    zero_removed(net, found, made)
    assert [live(space) for space in inner] == [0.0] * len(inner)


def test_the_affine_mask_has_every_normalisation_of_shared_channels() -> None:
    net, found, made = pruned("resnet8", 20_000)
    stays = affine_mask(found, made)
    assert set(stays) == {
        f"{name}.{one}"
        for name, part in net.named_modules()
        if isinstance(part, nn.BatchNorm2d)
        for one in ("weight", "bias")
    }
    assert torch.equal(stays["layers.1.weight"], stays["layers.3.bn2.bias"])
    assert torch.equal(stays["layers.1.weight"], made["layers.0.weight"].flatten(1).any(1))


def test_batchnorms_scale_is_the_score_of_a_filter() -> None:
    """By hand: the sum over a filter is the magnitude of its scale; a layer without BatchNorm has no scores."""
    step = Prune(of=training(), keep=0.5, criterion="batchnorm", unit="filter")
    state = trained(step.of)
    state["trunk.norm.weight"] = torch.tensor([0.5, -2.0, 1.0])
    scores = criteria.scores("batchnorm", evidence(step, None, {WEIGHTS: state}))
    assert scores.keys() == {"conv.weight"}
    assert scores["conv.weight"].flatten(1).sum(1).tolist() == pytest.approx([0.5, 2.0, 1.0])
    known = evidence(step, None, {WEIGHTS: state})
    made, _ = judge.prune(step, known, ["conv.weight"], torch.Generator())
    assert made["conv.weight"].flatten(1).any(1).tolist() == [
        False,
        True,
        True,
    ]  # 36 and 18 are as near to 27: more stay
    with pytest.raises(ValueError, match=r"the criterion gives no score for linear.weight"):
        judge.prune(step, known, ["conv.weight", "linear.weight"], torch.Generator())
