"""Weights from torchvision's checkpoints and from files."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from raysslprune import models

CPU = torch.device("cpu")


def linear(outputs: int = 10) -> Callable[[int], nn.Module]:
    return lambda width: nn.Linear(width, outputs)


def conv4(seed: int = 0, channels: int = 1, outputs: int = 10) -> models.Network:
    return models.network("conv4", channels, linear(outputs), torch.Generator().manual_seed(seed), CPU)


def state(seed: int) -> dict[str, Tensor]:
    return conv4(seed).state_dict()


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


# ------------------------------------------------------------------------------------- torchvision's checkpoints


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


WEIGHTS = {"a.weight": torch.arange(6.0).view(2, 3), "b": torch.tensor(4)}


# ------------------------------------------------------------------------------------- checkpoint files


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
    with pytest.raises(
        ValueError, match=r"checkpoint\.pth has no named weights \(tensors\), at the top level or under"
    ):
        models.read_checkpoint(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_damaged_file_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    (safetensors.torch.save_file if name.endswith("safetensors") else torch.save)(cast(Any, WEIGHTS), path)
    whole = path.read_bytes()
    for content in (b"", b"<html>404</html>", b"hello world", whole[: len(whole) // 2], whole[:-3]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^.*{name} is damaged, is not a checkpoint, [^\n]*$"):
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
    with pytest.raises(ValueError, match="tensors and plain values; if it is a whole network, save"):
        models.read_checkpoint(path)
    assert not made.exists()
    torch.load(path, weights_only=False)
    assert made.exists()  # it would have run


def test_a_module_that_was_saved_whole_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "checkpoint.pth")
    with pytest.raises(ValueError, match="tensors and plain values; if it is a whole network, save"):
        models.read_checkpoint(tmp_path / "checkpoint.pth")


def test_an_outline_is_made_once_and_is_the_trunks() -> None:
    once, trunk = models.outline("conv4", 1), models.trunk("conv4", 1)
    assert models.outline("conv4", 1) is once
    assert models.outline("conv4", 3) is not once
    assert trunk is not once  # it is a network's, which is filled with weights
    shapes = {name: (tensor.shape, tensor.device.type) for name, tensor in once.state_dict().items()}
    assert shapes == {name: (tensor.shape, "meta") for name, tensor in trunk.state_dict().items()}
