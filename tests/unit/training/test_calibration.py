"""BatchNorm statistics of untrained networks, against a loop over images and what happens without them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raysslprune import models
from raysslprune.data import Dataset, load, resident
from raysslprune.training import calibration
from raysslprune.training.calibration import batch_norms, calibrate

DIGITS = load("digits", "")


def net_of(arch: str, channels: int, density: float = 1.0, seed: int = 0) -> models.Network:
    """Drawn weights, of which a random part is masked."""
    generator = torch.Generator().manual_seed(seed)
    net = models.network(arch, channels, lambda width: nn.Linear(width, 10), generator, torch.device("cpu"))
    with torch.no_grad():
        for weight in models.prunable(net.trunk).values():
            weight *= torch.rand(weight.shape, generator=generator) < density
    return net.eval()


def convolved(images: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """A 3x3 convolution with padding 1, in float64."""
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)))
    height, width = images.shape[2:]
    windows = [padded[:, :, y : y + height, x : x + width] for y in range(3) for x in range(3)]
    return np.einsum("knchw,ock->nohw", np.stack(windows), weight.reshape(*weight.shape[:2], 9))


def pooled(x: np.ndarray) -> np.ndarray:
    return x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).max(axis=(3, 5))


def naive(net: nn.Module, images: np.ndarray, batch: int) -> dict[str, Any]:
    """Mean and unbiased variance of each layer of conv4, each image counting once, in float64."""
    weights = [w.detach().double().numpy() for w in models.prunable(net).values()]
    found: dict[str, Any] = {f"{kind}{layer}": 0.0 for layer in range(4) for kind in ("mean", "var")}
    for start in range(0, len(images), batch):
        x = images[start : start + batch]
        share = len(x) / len(images)
        for layer, weight in enumerate(weights):
            x = convolved(x, weight)
            mean, var, count = x.mean(axis=(0, 2, 3)), x.var(axis=(0, 2, 3)), x[:, 0].size
            found[f"mean{layer}"] += share * mean
            found[f"var{layer}"] += share * var * count / (count - 1)
            x = (x - mean[:, None, None]) / np.sqrt(var + 1e-5)[:, None, None]
            x = np.maximum(x, 0)
            x = pooled(x) if layer in (0, 2) else x
    return found


def test_statistics_are_means_over_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,200 images in batches of 500, 500 and 200."""
    monkeypatch.setattr(calibration, "IMAGES", 500)
    net = net_of("conv4", 1, density=0.3)
    images = torch.cat([images for images, _ in DIGITS.batches(DIGITS.train, 400)])
    expected = naive(net.trunk, images.double().numpy(), 500)
    calibrate(net.trunk, DIGITS)
    for layer, norm in enumerate(batch_norms(net.trunk)):
        assert norm.running_mean is not None
        assert norm.running_var is not None
        np.testing.assert_allclose(norm.running_mean.numpy(), expected[f"mean{layer}"], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(norm.running_var.numpy(), expected[f"var{layer}"], rtol=1e-4, atol=1e-5)


def test_nothing_else_changes() -> None:
    net, before = net_of("conv4", 1, density=0.3), net_of("conv4", 1, density=0.3)
    calibrate(net.trunk, DIGITS)
    assert not net.trunk.training
    assert {norm.momentum for norm in batch_norms(net)} == {0.1}
    for (name, weight), other in zip(net.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(weight, other), name


def test_a_network_without_batchnorm_does_not_change() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 8))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    calibrate(net, DIGITS)
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def spread(net: models.Network, data: Dataset) -> float:
    """Standard deviation of features over images."""
    images = next(iter(data.batches(data.train, 64)))[0]
    with torch.inference_mode():
        features: Tensor = net.trunk(images)
    return float(features.std(dim=0).mean())


def test_signals_of_a_sparse_untrained_network_do_not_die() -> None:
    """With a running mean of 0 and a variance of 1 they do, and any task would seem to have learned something."""
    images = torch.randint(256, (64, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    data = resident((images, torch.arange(64) % 10), (images, torch.arange(64) % 10))
    net = net_of("vgg11", 3, density=0.02)
    assert spread(net, data) < 1e-4
    calibrate(net.trunk, data)
    assert spread(net, data) > 1e-2
