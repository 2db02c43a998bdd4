"""What tasks on two views of an image have in common: views, projectors, metrics, moving averages of a network."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from raysslprune.data import Dataset
from raysslprune.data.batches import Batch
from raysslprune.data.views import Views
from raysslprune.evaluate.metrics import effective_rank, features, knn_accuracy, spread
from raysslprune.models import Network
from raysslprune.spec import Recipe
from raysslprune.tasks.task import Task

KNN_IMAGES = 100_000
"""Maximum training images among which neighbours are sought: with 2,048 features each they take 0.8 GB."""

KNN_TEMPERATURE = 0.1

# One kernel for many small tensors, in place
_add_all, _multiply_all = torch._foreach_add_, torch._foreach_mul_  # pyright: ignore[reportPrivateImportUsage]
_product_of_all = torch._foreach_mul  # pyright: ignore[reportPrivateImportUsage]


@dataclass(kw_only=True)
class TwoViews(Task):
    """A task on two views of each image, whose head is thrown away: its features are judged, and their spread."""

    views = 2
    capturable = True

    def sample(self, views: Views, batch: Batch) -> tuple[Tensor, ...]:
        return views(batch, 0), views(batch, 1)

    def evaluate(self, net: nn.Module, data: Dataset, recipe: Recipe) -> dict[str, float]:
        """Spread and effective rank of the features and of the head's outputs, on the test images.

        With one label for each image, also the top-1 of the 200 nearest training images, by the trunk's features.
        """
        trunk, head = net.get_submodule("trunk"), net.get_submodule("head")
        asked = features(trunk, data, data.test)
        with torch.inference_mode():
            embedded = head(asked.to(data.device)).float().cpu()
        return neighbours(trunk, data, asked) | {
            "feature_std": spread(asked),
            "feature_rank": effective_rank(asked),
            "embedding_std": spread(embedded),
            "embedding_rank": effective_rank(embedded),
        }


def neighbours(trunk: nn.Module, data: Dataset, asked: Tensor) -> dict[str, float]:
    """Top-1 of the features of the test images by those of at most KNN_IMAGES training images, evenly spaced."""
    if data.multilabel:
        return {}
    known = data.train.some(torch.arange(0, len(data.train), math.ceil(len(data.train) / KNN_IMAGES)))
    labels = known.labels.cpu(), data.test.labels.cpu()
    return {"knn_top1": knn_accuracy(features(trunk, data, known), labels[0], asked, labels[1], KNN_TEMPERATURE)}


def mlp(*widths: int, last_bias: bool = True, norm: bool = True) -> nn.Sequential:
    """Linear layers from width to width, with BatchNorm, unless ``norm`` is False, and ReLU between them."""
    layers: list[nn.Module] = []
    for width, hidden in pairwise(widths[:-1]):
        layers += [nn.Linear(width, hidden, bias=not norm), *(nn.BatchNorm1d(hidden),) * norm, nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1], bias=last_bias))


class Average(nn.Module):
    """A moving average of a network's weights, which gives targets without gradients.

    Its BatchNorms normalise by the batch, as the network's do in training, and keep no statistics. What is pruned in
    the network is 0 here. part: number of samples that share BatchNorm statistics.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.bf16, self.part = recipe.precision == "bf16", recipe.batch // recipe.parts
        self.net = Network(copy.deepcopy(trunk), copy.deepcopy(head)).train().requires_grad_(False)
        self.weights: list[Tensor] = list(self.net.parameters())
        self.of: list[Tensor] = [*trunk.parameters(), *head.parameters()]
        for norm in self.net.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.running_mean = norm.running_var = norm.num_batches_tracked = None

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Outputs for images, part by part, as float32. If they are no whole number of parts, parts are larger."""
        parts = images.tensor_split(max(1, len(images) // self.part))
        with torch.autocast(images.device.type, torch.bfloat16) if self.bf16 else nullcontext():
            return torch.cat([self.net(part).float() for part in parts])

    @torch.no_grad()
    def follow(self, keep: Tensor) -> None:
        """Move towards the network: keep a fraction of each weight, a scalar tensor, and take the rest from there."""
        _multiply_all(self.weights, keep)
        _add_all(self.weights, _product_of_all([weight.detach() for weight in self.of], 1 - keep))
