"""THE training loop: one function for the pretext task, the rounds of a chain and re-training on labels.

It knows torch but neither Ray nor the store: what must outlive the process goes through ``Hooks``.

Three things are exact. A masked weight is 0 after every update. A training that is interrupted and resumed
gives the same bits as one that is not (on the CPU). A training rewound to sample k of a dense run and left
unmasked retraces that run from k on, but for the optimiser's state, which starts empty.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from raysslprune import masks, models, tasks
from raysslprune.data import Dataset
from raysslprune.data.stream import Stream
from raysslprune.data.views import Views
from raysslprune.spec import Init, Recipe, Train, seed_of

VIEWS_AT_ONCE = 1024
"""Samples whose views are made in one go, at most, unless one batch has more."""

LOOK_EVERY = 0.5
"""Seconds between looks at the loss and at what hooks want; each waits for the device."""

State = dict[str, Tensor]
"""A network's parameters and buffers by name, on the CPU: ``trunk.*`` and ``head.*``."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a training needs to go on: tensors by name, and the samples seen so far."""

    seen: int
    tensors: State


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """metrics: the task's own (percent), ``density``, ``collapsed_layers``, ``train_loss`` of the last epoch.

    seconds: wall time of this process in the loop and the evaluation. images_per_second: of the loop alone.
    """

    weights: State
    snapshots: dict[int, State]
    metrics: dict[str, float]
    seconds: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """save: keep this checkpoint; called about every ``save_every`` seconds. progress: samples seen, and of all."""

    save: Callable[[Checkpoint], None] = lambda _: None
    save_every: float = 60.0
    progress: Callable[[int, int], None] = lambda _seen, _total: None


@dataclass(kw_only=True)
class Loop:
    """One training in progress. Build it, perhaps :meth:`restore` a checkpoint, then :meth:`run` it once."""

    step: Train
    data: Dataset
    start: State | None = None
    mask: masks.Mask | None = None
    snapshots_at: Collection[int] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    hooks: Hooks = field(default_factory=Hooks)

    def __post_init__(self) -> None:
        recipe = self.step.recipe
        self.task = tasks.find(self.step.task)
        self.data = self.data.to(self.device)
        net = starting_network(self.step, self.data, self.start).to(self.device)
        self.net = net.to(memory_format=torch.channels_last)  # a third faster on the CPU, and what GPUs want
        self.views = Views(self.data, recipe)
        self.stream = Stream(len(self.data.train), self.task.draws, self.step.seed)
        self.optimizer = optimizer(recipe, self.net)
        weights = models.prunable(self.net.trunk)
        self.kept = self.mask or masks.full({name: w.shape for name, w in weights.items()})
        self.masked = list(weights.values()) if self.mask else []
        self.keeps = [torch.empty_like(w).copy_(self.kept[name]).detach() for name, w in weights.items() if self.mask]
        self.apply_mask()
        self.seen = updates(self.step.first_sample, recipe.batch) * recipe.batch
        self.end = updates(recipe.samples, recipe.batch) * recipe.batch
        self.losses, self.counted = torch.zeros((), device=self.device), 0
        self.snapshots: dict[int, State] = {}
        self.ready: list[tuple[Tensor, ...]] = []

    def run(self) -> Outcome:
        """Train to the end and evaluate. Raises FloatingPointError where the loss is no longer finite."""
        recipe, begun, first = self.step.recipe, time.perf_counter(), self.seen
        looked = saved = begun
        self.net.train()
        self.take_snapshots()
        while self.seen < self.end:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(recipe, self.seen)
            loss = self.task.loss(self.net, *self.next_batch())
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.apply_mask()
            self.add_loss(loss.detach())
            self.seen += recipe.batch
            self.take_snapshots()
            now = time.perf_counter()
            if now - looked >= LOOK_EVERY:
                looked = now
                self.mean_loss()
                self.hooks.progress(self.seen, self.end)
                if now - saved >= self.hooks.save_every:
                    saved = now
                    self.check_mask()
                    self.hooks.save(self.checkpoint())
        train_loss = self.mean_loss()
        trained = time.perf_counter() - begun
        self.check_mask()
        if not all(tensor.isfinite().all() for tensor in self.net.state_dict().values()):
            raise FloatingPointError(f"the weights are no longer finite after {self.seen:,} samples")
        self.net.eval()
        metrics = self.task.evaluate(self.net, self.data)
        metrics["density"] = masks.density(self.kept)
        metrics["collapsed_layers"] = float(len(masks.collapsed_layers(self.kept)))
        metrics["train_loss"] = train_loss
        return Outcome(
            weights=_copy(self.net.state_dict()),
            snapshots=self.snapshots,
            metrics=metrics,
            seconds=time.perf_counter() - begun,
            images_per_second=(self.seen - first) / trained,
        )

    def next_batch(self) -> tuple[Tensor, ...]:
        """Views are made for many updates at once: on small images the calls cost more than the pixels."""
        batch = self.step.recipe.batch
        if not self.ready:
            ahead = min(max(1, VIEWS_AT_ONCE // batch) * batch, self.end - self.seen)
            views = self.task.sample(self.views, self.stream.take(self.seen, ahead))
            self.ready = list(zip(*(part.split(batch) for part in views), strict=True))[::-1]
        return self.ready.pop()

    def add_loss(self, loss: Tensor) -> None:
        """The mean is of one epoch: the sum begins anew with each."""
        if self.seen // len(self.data.train) != (self.seen - self.step.recipe.batch) // len(self.data.train):
            self.losses.zero_()
            self.counted = 0
        self.losses += loss
        self.counted += 1

    def mean_loss(self) -> float:
        """Over the epoch so far. The one place that waits for the device, so it is where NaN is found."""
        mean = float(self.losses) / max(1, self.counted)
        if not math.isfinite(mean):
            raise FloatingPointError(f"the loss is {mean} after {self.seen:,} of {self.end:,} samples")
        return mean

    @torch.no_grad()
    def apply_mask(self) -> None:
        """After each update, not before it: momentum and weight decay would bring masked weights back."""
        if self.masked:
            torch._foreach_mul_(self.masked, self.keeps)  # pyright: ignore[reportPrivateImportUsage]

    def check_mask(self) -> None:
        """Raises RuntimeError where a masked weight is not exactly 0."""
        for weight, keep in zip(self.masked, self.keeps, strict=True):
            if weight.detach()[keep == 0].any():
                raise RuntimeError(f"a pruned weight came back to life after {self.seen:,} samples")

    def take_snapshots(self) -> None:
        for samples in self.snapshots_at:
            if samples not in self.snapshots and updates(samples, self.step.recipe.batch) == self.updates_done:
                self.snapshots[samples] = _copy(self.net.state_dict())

    @property
    def updates_done(self) -> int:
        return self.seen // self.step.recipe.batch

    def checkpoint(self) -> Checkpoint:
        """All that changes during training, as flat tensors: nothing needs unpickling to come back."""
        tensors = {f"net.{name}": t for name, t in _copy(self.net.state_dict()).items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            kept = {key: t for key, t in state.items() if t is not None}
            tensors |= {f"optimizer.{index}.{key}": t for key, t in _copy(kept).items()}
        for samples, snapshot in self.snapshots.items():
            tensors |= {f"snapshot.{samples}.{name}": t.clone() for name, t in snapshot.items()}
        tensors["losses"] = self.losses.cpu().clone()
        tensors["counted"] = torch.tensor(self.counted)
        return Checkpoint(seen=self.seen, tensors=tensors)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from ``checkpoint`` as if there had been no interruption."""
        groups: dict[str, dict[str, Tensor]] = {"net": {}, "optimizer": {}, "snapshot": {}}
        for name, tensor in checkpoint.tensors.items():
            kind, _, rest = name.partition(".")
            if rest:
                groups[kind][rest] = tensor
        self.net.load_state_dict(groups["net"])
        state: dict[int, dict[str, Tensor]] = {}
        parameters = list(self.net.parameters())
        for name, tensor in groups["optimizer"].items():
            index, _, key = name.partition(".")
            like = parameters[int(index)]
            if tensor.shape == like.shape:  # in the parameter's memory format: fused kernels pair bytes, not indices
                tensor = torch.empty_like(like).copy_(tensor).detach()
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        for name, tensor in groups["snapshot"].items():
            samples, _, key = name.partition(".")
            self.snapshots.setdefault(int(samples), {})[key] = tensor
        self.losses.copy_(checkpoint.tensors["losses"])
        self.counted = int(checkpoint.tensors["counted"])
        self.seen = checkpoint.seen
        self.ready = []


def starting_network(step: Train, data: Dataset, start: State | None) -> models.Network:
    """The network as ``step.start`` says, on the CPU. ``start``: the snapshot's state where it is a Rewind.

    Raises ValueError where that state is of another network.
    """
    origin = step.start
    key = (origin.seed, origin.draw) if isinstance(origin, Init) else (step.seed, 0)
    generator = torch.Generator().manual_seed(seed_of("init", *key))
    outputs = tasks.find(step.task).outputs(data)
    net = models.network(step.arch, data.channels, outputs, generator, torch.device("cpu"))
    if isinstance(origin, Init):
        return net
    if start is None:
        raise ValueError("a rewound training needs the state to rewind to")
    own = net.state_dict()
    brought = {name: t for name, t in start.items() if step.keeps_head or name.startswith("trunk.")}
    kept = {} if step.keeps_head else {name: t for name, t in own.items() if name.startswith("head.")}
    try:
        net.load_state_dict({**brought, **kept})
    except RuntimeError as error:
        raise ValueError(f"the weights to start from do not fit {step.arch}: {error}") from error
    return net


def optimizer(recipe: Recipe, net: nn.Module) -> torch.optim.Optimizer:
    """A fresh optimiser over all parameters; weight decay on all of them, as in the paper's time."""
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    extra = {"momentum": recipe.momentum, "nesterov": recipe.nesterov} if recipe.optimizer == "sgd" else {}
    return kinds[recipe.optimizer](
        net.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True, **extra
    )


def learning_rate(recipe: Recipe, seen: int) -> float:
    """For the update that begins after ``seen`` samples. Warm-up is linear and reaches 1 at its last update."""
    rate = recipe.lr
    if recipe.warmup:
        rate *= min(1.0, (seen + recipe.batch) / recipe.warmup)
    if recipe.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, seen / recipe.samples)))
    elif recipe.schedule == "steps":
        rate *= 0.1 ** sum(seen >= at for at in recipe.decay_at)
    return rate


def updates(samples: int, batch: int) -> int:
    """Updates after which at least ``samples`` samples have been seen. 50,000 / 512: 98, as in the paper's epoch."""
    return -(-samples // batch)


def _copy(state: State) -> State:
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in state.items()}
