"""The tasks' losses once more, from their definitions, in float64 on the CPU and by elementary functions only.

Each takes the network in double precision, the parts of its first batch, and the First that recorded them.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import torch
from torch import Tensor, nn

from raysslprune.training.loop import Loop, State

Net = Callable[[Tensor], Tensor]


class First:
    """Record of a loop's first update: the weights before it, images and targets, noise or queue, and the loss."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.original = loop, loop.task.loss
        self.weights: State = {}
        self.parts: tuple[Tensor, ...] = ()
        self.noise = self.bank = self.queue = torch.empty(0)
        self.loss = math.nan
        loop.task.loss = self.watched

    def watched(self, net: Net, *parts: Tensor) -> Tensor:
        if self.weights:
            return self.original(net, *parts)
        self.weights = _exact(self.loop.net.state_dict())
        self.parts = tuple(part.detach().cpu() for part in parts)
        self.bank, self.queue = (
            self.loop.task.state.get(name, torch.empty(0)).double().cpu().clone() for name in ("bank", "queue")
        )
        with self.noise_seen():
            loss = self.original(net, *parts)
        self.loss = float(loss.detach())
        return loss

    @contextmanager
    def noise_seen(self) -> Iterator[None]:
        """Record what ``torch.randint`` draws: a GPU draws other numbers than the CPU."""
        randint = torch.randint

        def drawn(*given: object, **more: object) -> Tensor:
            self.noise = randint(*given, **more)  # pyright: ignore[reportArgumentType, reportCallIssue]
            return self.noise

        with mock.patch.object(torch, "randint", drawn):
            yield


def first_update(first: First) -> tuple[float, State]:
    """Compute the loss of the first update, and the weights after it by plain SGD with the recipe's rate, masked."""
    loop = first.loop
    net = copy.deepcopy(loop.net).cpu().double().train()
    net.load_state_dict(first.weights)
    parts = [part.double() if part.is_floating_point() else part for part in first.parts]
    loss = LOSSES[loop.step.task](net, parts, first)
    gradients = torch.autograd.grad(loss, list(net.parameters()))
    named = dict(zip([name for name, _ in net.named_parameters()], gradients, strict=True))
    after = {name: first.weights[name] - loop.recipe.lr * gradient for name, gradient in named.items()}
    for name, keep in loop.kept.items():
        after[f"trunk.{name}"] *= keep
    return float(loss.detach()), after


def labels(net: Net, parts: Sequence[Tensor], _first: First) -> Tensor:
    images, wanted = parts
    return cross_entropy(net(images), wanted)


def exemplar(net: Net, parts: Sequence[Tensor], first: First) -> Tensor:
    """Triplet loss: each first view must be nearer to its second than to another image's second, by the margin."""
    one, two, _ = parts
    drawn = first.parts[2]
    anchors, positives = unit(net(torch.cat([one, two]))).chunk(2)
    rows = len(one)
    others = [(row + 1 + int(drawn[row] * (rows - 1))) % rows for row in range(rows)]
    near, far = (anchors * positives).sum(1), (anchors * positives[others]).sum(1)
    hinge = (1 - near) - (1 - far) + option(first, "margin", 0.5)
    return torch.where(hinge > 0, hinge, 0).sum() / rows


def npid(net: Net, parts: Sequence[Tensor], first: First) -> Tensor:
    """Noise-contrastive estimation with Z from these samples: P = exp(v·f / temperature) / Z against uniform noise."""
    images, index, _ = parts
    bank, noise = first.bank, first.noise.cpu()
    embedded = unit(net(images))
    own = ((embedded * bank[index]).sum(1) / option(first, "temperature", 0.07)).exp()
    others = ((embedded[:, None] * bank[noise]).sum(2) / option(first, "temperature", 0.07)).exp()
    z = (torch.cat([own[:, None], others], dim=1).sum() / (own.numel() + others.numel()) * len(bank)).detach()
    uniform = noise.shape[1] / len(bank)
    data, rest = own / z / (own / z + uniform), uniform / (others / z + uniform)
    return -(data.log().sum() + rest.log().sum()) / len(images)


def s4l(net: Net, parts: Sequence[Tensor], first: First) -> Tensor:
    """Cross-entropy of the labelled images' classes, in all four turns, plus that of the turns of all images."""
    labelled, unlabelled, wanted = parts
    turned = [images.rot90(turn, (2, 3)) for images in (labelled, unlabelled) for turn in range(4)]
    outputs = net(torch.cat(turned))
    turns = torch.arange(4).repeat_interleave(len(wanted)).repeat(2)
    by_class, by_turn = outputs[: 4 * len(wanted), :-4], outputs[:, -4:]
    return cross_entropy(by_class, wanted.repeat(4)) + option(first, "weight", 1.0) * cross_entropy(by_turn, turns)


def simclr(net: Net, parts: Sequence[Tensor], first: First) -> Tensor:
    """Cross-entropy of each view's partner among all other views, by exp(cosine / temperature)."""
    rows = unit(net(torch.cat(list(parts))))
    similar = (rows @ rows.T / option(first, "temperature", 0.1)).exp()
    n = len(rows) // 2
    partner = [(row + n) % (2 * n) for row in range(2 * n)]
    return -(similar[torch.arange(2 * n), partner] / (similar.sum(1) - similar.diagonal())).log().mean()


def moco(net: nn.Module, parts: Sequence[Tensor], first: First) -> Tensor:
    """Cross-entropy of an image's key among it and the queue; at first the average is the network itself."""
    own, key, queue = unit(net(parts[0])), unit(net(parts[1])).detach(), first.queue
    temperature = option(first, "temperature", 0.2)
    positive = ((own * key).sum(1) / temperature).exp()
    return -(positive / (positive + (own @ queue.T / temperature).exp().sum(1))).log().mean()


def byol(net: nn.Module, parts: Sequence[Tensor], _first: First) -> Tensor:
    """Squared distances of predictions and targets; at first the average is the network itself, without predictor."""
    trunk, head = net.get_submodule("trunk"), net.get_submodule("head")
    predicted = [unit(net(view)) for view in parts]
    wanted = [unit(head.get_submodule("0")(trunk(view))).detach() for view in parts]
    return sum(((p - w).square().sum(1).mean() for p, w in zip(predicted, wanted[::-1], strict=True)), torch.zeros(()))


def vicreg(net: Net, parts: Sequence[Tensor], first: First) -> Tensor:
    """Invariance, hinge on standard deviations, and covariances, from centred embeddings."""
    one, two = (net(view) for view in parts)
    loss = option(first, "invariance", 25.0) * (one - two).square().sum() / one.numel()
    for rows in (one, two):
        centred = rows - rows.sum(0) / len(rows)
        shared = centred.T @ centred / (len(rows) - 1)
        short = 1 - (shared.diagonal() + 1e-4).sqrt()
        loss = loss + option(first, "variance", 25.0) * torch.where(short > 0, short, 0).sum() / len(short) / 2
        beside = shared - torch.diag(shared.diagonal())
        loss = loss + option(first, "covariance", 1.0) * beside.square().sum() / len(short)
    return loss


LOSSES: dict[str, Callable[[nn.Module, Sequence[Tensor], First], Tensor]] = {
    "labels": labels,
    "rotnet": labels,
    "exemplar": exemplar,
    "npid": npid,
    "s4l": s4l,
    "simclr": simclr,
    "moco": moco,
    "byol": byol,
    "vicreg": vicreg,
}


def cross_entropy(outputs: Tensor, wanted: Tensor) -> Tensor:
    return (outputs.exp().sum(1).log() - outputs[torch.arange(len(wanted)), wanted]).sum() / len(wanted)


def unit(rows: Tensor) -> Tensor:
    return rows / rows.square().sum(1, keepdim=True).sqrt()


def option(first: First, name: str, default: float) -> float:
    return float(dict(first.loop.recipe.options).get(name, default))


def _exact(state: State) -> State:
    return {name: t.detach().cpu().double() if t.is_floating_point() else t.cpu().clone() for name, t in state.items()}
