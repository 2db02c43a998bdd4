"""Networks without their pruned filters: the same outputs, and exactly the weights that the mask leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import raysslprune
from raysslprune import masks, models
from raysslprune.commands import export
from raysslprune.criteria import filters
from raysslprune.lottery import from_start
from raysslprune.messages import UserError
from raysslprune.models.channels import dead, spaces, zero_removed
from raysslprune.release.shrink import measured, shrink
from raysslprune.spec import Init, Prune, Train
from tests.helpers.chains import execute
from tests.helpers.exports import refused
from tests.helpers.runner import SEED, SHORT

IMAGE = (1, 8, 8)


def pruned(arch: str, keep: float = 0.3) -> tuple[models.Network, masks.Mask]:
    """A drawn network with lively BatchNorm, with whole filters removed, and its mask."""
    generator = torch.Generator().manual_seed(0)
    net = models.network(arch, 1, lambda width: nn.Linear(width, 10), generator, torch.device("cpu")).eval()
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.ndim == 1 and tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5 * ("var" in name))
        weights = {name: w.detach() for name, w in models.prunable(net.trunk).items()}
        found = spaces(net.trunk, IMAGE)
        full = masks.full({name: w.shape for name, w in weights.items()})
        scores = {name: torch.rand(w.shape, generator=generator) / w[0].numel() for name, w in weights.items()}
        mask = filters.prune(scores, full, round(masks.left(full) * keep), found, generator, uniform=True).mask
        for name, weight in models.prunable(net.trunk).items():
            weight *= mask[name]
        zero_removed(net.trunk, found, mask)
    return net, mask


def named(mask: masks.Mask) -> masks.Mask:
    return {f"trunk.{name}": m for name, m in mask.items()}


@pytest.mark.parametrize("arch", ["conv4", "resnet8", "alexnet8"])
def test_a_shrunk_network_has_the_same_outputs_and_only_the_weights_that_are_left(arch: str) -> None:
    net, mask = pruned(arch)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    small = shrink(net, named(mask), IMAGE)
    images = torch.randn(16, *IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(small(images), net(images), rtol=1e-4, atol=1e-5)
        assert net(images).std() > 1e-3
    assert sum(w.numel() for w in models.prunable(small.get_submodule("trunk")).values()) == masks.left(mask)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_shrunk_network_is_what_torch_pruning_makes() -> None:
    """torch-pruning 1.6 removes the same filters; its outputs are the same, and so are its shapes."""
    tp = pytest.importorskip("torch_pruning")
    net, mask = pruned("resnet8")
    theirs, _ = pruned("resnet8")
    theirs.requires_grad_(True)
    for space in spaces(theirs.trunk, IMAGE):
        if space.makers:
            graph = tp.DependencyGraph().build_dependency(theirs, torch.zeros(1, *IMAGE))
            layer = theirs.trunk.get_submodule(space.makers[0].removesuffix(".weight"))
            gone = dead(space, mask)
            assert gone is not None
            graph.get_pruning_group(layer, tp.prune_conv_out_channels, idxs=gone.nonzero().flatten().tolist()).prune()
    small = shrink(net, named(mask), IMAGE)
    shapes = {name: t.shape for name, t in small.state_dict().items()}
    assert shapes == {name: t.shape for name, t in theirs.state_dict().items()}
    images = torch.randn(16, *IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(small(images), theirs.eval()(images), rtol=1e-4, atol=1e-5)


def test_a_network_whose_removed_channels_are_not_zero_is_refused() -> None:
    """As BatchNorm's shift would leave the last ones, which the head reads."""
    net, mask = pruned("conv4")
    made = measured(net, named(mask), IMAGE)
    assert made.parameters[1] < 0.5 * made.parameters[0]
    assert min(made.seconds) > 0
    with torch.no_grad():
        net.trunk.get_parameter("layers.bn4.bias").fill_(1.0)
    with pytest.raises(UserError, match="the smaller network's outputs differ by"):
        measured(net, named(mask), IMAGE)


# ------------------------------------------------------------------------------------- the command

RECIPE = replace(SHORT, samples=256)
DENSE = Train(task="labels", data="digits", arch="resnet8", recipe=RECIPE, seed=SEED, start=Init(seed=SEED))
UNDER = from_start(Prune(of=DENSE, keep=0.3, unit="filter", at=0), of=DENSE, task="labels", recipe=RECIPE)


def test_export_writes_the_smaller_network(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = execute([UNDER], tmp_path / "runs")
    assert store.step(UNDER.id) == UNDER  # though nothing trained what the mask was made from
    out = tmp_path / "out"
    assert export.main([UNDER.id, "--root", store.base, "--out", str(out), "--shrink"]) == 0
    said = capfd.readouterr().out
    assert "shrunk.safetensors" in said
    assert "times as fast" in said
    whole, small = raysslprune.load_subnetwork(out), raysslprune.load_subnetwork(out, shrunk=True)
    images = torch.randn(8, *IMAGE)
    with torch.no_grad():
        torch.testing.assert_close(small(images), whole(images), rtol=1e-4, atol=1e-4)
    left = masks.left(raysslprune.load_mask(out))
    assert sum(w.numel() for w in models.prunable(small.trunk).values()) == left
    facts = small.config["shrunk"]
    assert facts["parameters"][1] == sum(p.numel() for p in small.parameters()) < facts["parameters"][0]
    card = (out / "README.md").read_text()
    assert "Whole filters are pruned" in card
    assert "unstructured" not in card
    assert "load_subnetwork(path, shrunk=True)" in card
    assert "not trained" in card
    stays_removed(whole, raysslprune.load_mask(out))


def stays_removed(net: nn.Module, mask: masks.Mask) -> None:
    """Train an exported network further: removed channels have neither weights nor scale nor shift."""
    optimizer = torch.optim.SGD(net.train().parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        outputs: Tensor = net(torch.randn(32, *IMAGE))
        nn.functional.cross_entropy(outputs, torch.arange(32) % 10).backward()
        optimizer.step()
    trunk = net.get_submodule("trunk")
    for space in spaces(trunk, IMAGE):
        gone = dead(space, mask)
        if gone is not None:
            assert all(not trunk.get_parameter(name)[gone].any() for name in space.affine)


def test_nothing_is_shrunk_without_whole_filters(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    plain = replace(UNDER, mask=Prune(of=DENSE, keep=0.3, at=0))
    store = execute([plain], tmp_path / "runs")
    said = refused(capfd, 1, plain.id, "--root", store.base, "--out", str(tmp_path / "out"), "--shrink")
    assert said == (f"step {plain.id} is no network with a mask of whole filters, so --shrink has nothing to remove")
    assert export.main([plain.id, "--root", store.base, "--out", str(tmp_path / "out")]) == 0
    with pytest.raises(
        ValueError, match=r"there is no shrunk.safetensors in .*: raysslprune export STEP --shrink writes one"
    ):
        raysslprune.load_subnetwork(tmp_path / "out", shrunk=True)
