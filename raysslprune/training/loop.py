"""THE training loop: one function for the pretext task, the rounds of a chain and re-training on labels.

Linear classifiers on a frozen trunk and fine-tuning are trainings like any other. It knows torch but neither Ray nor
the store: what must outlive the process goes through ``Hooks``.

Several processes may share a training, by torch.distributed: each has whole parts of every batch, those that BatchNorm
sees together, and all have the same network throughout. What one process gives and what several give differ by
rounding only.

Three things are exact. A masked weight is 0 after every update. A training that is interrupted and resumed
gives the same bits as one that is not (on the CPU). A training rewound to sample k of a dense run and left
unmasked retraces that run from k on, but for the optimiser's state, which starts empty.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raysslprune import masks, models, parallel, tasks
from raysslprune.data import Dataset
from raysslprune.data.batches import Batch, Feed
from raysslprune.data.views import Views, draws
from raysslprune.evaluate.metrics import features, natural_sparsity
from raysslprune.spec import Init, Recipe, Train, seed_of
from raysslprune.tasks.labels import Labels
from raysslprune.tasks.task import Task

VIEWS_AT_ONCE = 1024
"""Samples whose views are made in one go, at most, unless one batch has more."""

LOOK_EVERY = 0.5
"""Seconds between looks at the loss and at what hooks want, about; each waits for the device, and for other ranks."""

FIRST_LOOK = 1
"""Updates before the first of them."""

State = dict[str, Tensor]
"""A network's parameters and buffers by name, on the CPU: ``trunk.*`` and ``head.*``; in snapshots ``task.*`` too."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a training needs to go on: tensors by name, and the samples seen so far."""

    seen: int
    tensors: State


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """metrics: the task's own; ``density``, ``collapsed_layers``; natural_sparsity's; ``train_loss`` of the last epoch.

    seconds: wall time of this process in the loop and the evaluation. images_per_second: of the loop alone.
    """

    weights: State
    snapshots: dict[int, State]
    metrics: dict[str, float]
    seconds: float
    images_per_second: float


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """save: keep this checkpoint; called about every ``save_every`` seconds. progress: samples seen, and of all.

    curve: what a learning curve is drawn of, after so many samples: ``loss``, its mean over the epoch so far, and
    ``learning_rate``; called about every ``look_every`` seconds, as progress is. Of several processes, only rank 0
    calls them.
    """

    save: Callable[[Checkpoint], None] = lambda _: None
    save_every: float = 60.0
    progress: Callable[[int, int], None] = lambda _seen, _total: None
    curve: Callable[[int, dict[str, float]], None] = lambda _seen, _values: None
    look_every: float = field(default_factory=lambda: LOOK_EVERY)


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
        step, recipe = self.step, self.step.recipe
        assert isinstance(recipe, Recipe)
        self.recipe = recipe
        self.task = tasks.find(step.task, recipe.options)
        self.data = self.data.to(self.device)
        self.task.begin(self.data, torch.Generator().manual_seed(seed_of("task", step.seed)))
        net = starting_network(step, self.task, self.data, self.start).to(self.device)
        self.net = net.to(memory_format=torch.channels_last)  # a third faster on the CPU, and what GPUs want
        if step.keeps_head and self.start is not None:
            self.set_task_state(self.start)
        self.trained = net.head if step.trunk_frozen else net
        net.trunk.requires_grad_(not step.trunk_frozen)
        self.optimizer = optimizer(recipe, self.trained)
        weights = models.prunable(self.net.trunk)
        self.kept = self.mask or masks.full({name: w.shape for name, w in weights.items()})
        self.masked = list(weights.values()) if self.mask else []
        self.keeps = [torch.empty_like(w).copy_(self.kept[name]).detach() for name, w in weights.items() if self.mask]
        self.apply_mask()
        self.micro = recipe.batch // recipe.parts
        self.share = parallel.Share.of_this_process(recipe.batch, self.micro)
        self.parts = self.share.count // self.micro
        self.norms = batch_norms(self.trained) if recipe.parts > 1 else []
        self.statistics = [b for norm in self.norms for b in (norm.running_mean, norm.running_var) if b is not None]
        self.tracked = [norm.num_batches_tracked for norm in self.norms if norm.num_batches_tracked is not None]
        self.forward: nn.Module = self.net
        self.views = Views(self.data, self.data.train, recipe)
        if step.trunk_frozen and isinstance(self.task, Labels) and not self.views.random:
            self.views = Features(net.eval().trunk, self.data)
            self.forward = self.net.head
        self.feed = Feed(
            self.data.train,
            recipe,
            step.seed,
            views=self.task.views,
            draws=draws(recipe),
            own=self.task.draws,
            pool=self.task.pool(),
            partner=self.task.partner,
            decode=self.forward is self.net,
            share=self.share,
        )
        if parallel.ranks() > 1:
            self.forward = DistributedDataParallel(
                self.forward, broadcast_buffers=False, gradient_as_bucket_view=True, init_sync=False
            )
        self.seen = updates(step.first_sample, recipe.batch) * recipe.batch
        self.end = updates(recipe.samples, recipe.batch) * recipe.batch
        self.position = self.share.begin(self.seen)
        self.losses, self.counted = torch.zeros((), device=self.device), 0
        self.good: int | None = None
        """Samples seen at the last checkpoint, all of whose weights are finite."""
        self.snapshots: dict[int, State] = {}
        self.ready: list[tuple[Tensor, ...]] = []

    def run(self) -> Outcome:
        """Train to the end and evaluate. Raises FloatingPointError where a loss, weight or metric is not finite."""
        recipe, begun, first = self.recipe, time.perf_counter(), self.seen
        looked, saved, pause, look_in = 0.0, 0.0, FIRST_LOOK, FIRST_LOOK
        self.check()
        self.net.eval()
        self.trained.train()
        self.take_snapshots()
        while self.seen < self.end:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(recipe, self.seen)
            self.optimizer.zero_grad()
            self.accumulate()
            self.optimizer.step()
            self.apply_mask()
            self.task.updated()
            self.seen += recipe.batch
            self.take_snapshots()
            look_in -= 1
            if look_in:  # counted in updates, as ranks' clocks differ
                continue
            loss = self.mean_loss()
            now = self.clock(begun)
            look_in = pause = max(1, int(pause * min(2.0, self.hooks.look_every / max(now - looked, 1e-9))))
            looked = now
            if parallel.rank() == 0:
                self.hooks.progress(self.seen, self.end)
                self.hooks.curve(self.seen, {"loss": loss, "learning_rate": self.optimizer.param_groups[0]["lr"]})
            if now - saved >= self.hooks.save_every:
                saved = now
                self.check()
                if parallel.rank() == 0:
                    self.hooks.save(self.checkpoint())
                self.good = self.seen
        train_loss = self.mean_loss()
        trained = time.perf_counter() - begun
        self.check()
        self.net.eval()
        metrics = self.task.evaluate(self.net, self.data, recipe)
        metrics["density"] = masks.density(self.kept)
        metrics["collapsed_layers"] = float(len(masks.collapsed_layers(self.kept)))
        metrics |= natural_sparsity(models.prunable(self.net.trunk), self.kept)
        metrics["train_loss"] = train_loss
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise self.not_finite(f"{name} is {value}")
        return Outcome(
            weights=_copy(self.net.state_dict()),
            snapshots=self.snapshots,
            metrics=metrics,
            seconds=time.perf_counter() - begun,
            images_per_second=(self.seen - first) / trained,
        )

    def accumulate(self) -> None:
        """The gradient of one update.

        Where BatchNorm sees less than the whole batch, the running statistics move once an update, by the mean over
        its parts: what many GPUs with a part each would do, if they shared their statistics. They do, on however many
        processes the parts are.
        """
        if self.seen // self.feed.samples != (self.seen - self.recipe.batch) // self.feed.samples:
            self.losses.zero_()  # the mean is of one epoch
            self.counted = 0
        before = [statistic.clone() for statistic in self.statistics]
        updates_before = [count.clone() for count in self.tracked]
        sums = [torch.zeros_like(statistic) for statistic in self.statistics]
        for part in range(self.parts):
            for statistic, old in zip(self.statistics, before, strict=True):
                statistic.copy_(old)
            with self.gradients_stay_here(part < self.parts - 1):
                loss = self.task.loss(self.outputs, *self.next_batch())
                (loss if self.parts == 1 else loss / self.parts).backward()
            self.losses += loss.detach() / self.parts
            for total, statistic in zip(sums, self.statistics, strict=True):
                total += statistic
        if self.statistics:
            self.share_statistics(sums)
        for count, old in zip(self.tracked, updates_before, strict=True):
            count.copy_(old + 1)
        self.counted += 1

    def outputs(self, images: Tensor) -> Tensor:
        """Of the network, in the recipe's precision; the loss is computed in float32 in any case."""
        if self.recipe.precision == "float32":
            return self.forward(images)
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.forward(images).float()

    def gradients_stay_here(self, here: bool) -> AbstractContextManager[None]:
        """Whether the gradients are added to this process's own only: ranks exchange them once an update."""
        if here and isinstance(self.forward, DistributedDataParallel):
            return self.forward.no_sync()
        return nullcontext()

    @torch.no_grad()
    def share_statistics(self, sums: list[Tensor]) -> None:
        """Running statistics as the mean over all parts of the update, from the ``sums`` over this process's."""
        flat = parallel.mean(torch.cat([total / self.parts for total in sums]))
        for statistic, value in zip(self.statistics, flat.split([len(total) for total in sums]), strict=True):
            statistic.copy_(value)

    def next_batch(self) -> tuple[Tensor, ...]:
        """Views are made for many updates at once: on small images the calls cost more than the pixels.

        Images on disk come in the parts that BatchNorm sees, decoded ahead by the feed.
        """
        if not self.ready:
            batch = self.recipe.batch
            ahead = min(max(1, VIEWS_AT_ONCE // batch) * batch, self.end - self.seen)
            ahead = ahead if self.share.count == batch else self.share.count
            count = self.micro if self.feed.decodes else ahead
            parts = self.task.sample(self.views, self.feed.take(self.position, count))
            self.ready = list(zip(*(part.split(self.micro) for part in parts), strict=True))[::-1]
        self.position = self.share.after(self.position + self.micro)
        return self.ready.pop()

    def mean_loss(self) -> float:
        """Over the epoch so far. The one place that waits for the device, so it is where NaN is found."""
        mean = float(parallel.mean(self.losses)) / max(1, self.counted)
        if not math.isfinite(mean):
            raise self.not_finite(f"the loss is {mean}")
        return mean

    def not_finite(self, what: str) -> FloatingPointError:
        good = "there is no checkpoint" if self.good is None else f"the last good checkpoint has {self.good:,}"
        return FloatingPointError(f"{what} after {self.seen:,} of {self.end:,} samples; {good}")

    @torch.no_grad()
    def apply_mask(self) -> None:
        """After each update, not before it: momentum and weight decay would bring masked weights back."""
        if self.masked:
            torch._foreach_mul_(self.masked, self.keeps)  # pyright: ignore[reportPrivateImportUsage]

    def clock(self, begun: float) -> float:
        """Seconds since ``begun``, by the clock of rank 0."""
        seconds = time.perf_counter() - begun
        if parallel.ranks() == 1:
            return seconds
        return float(parallel.from_first(torch.tensor(seconds, dtype=torch.float32, device=self.device)))

    def check(self) -> None:
        """Raises RuntimeError where ranks have come apart, or a masked weight is not exactly 0; FloatingPointError."""
        if parallel.ranks() > 1:  # first: then what follows is raised by all or by none
            digest = hashlib.sha256(str(self.seen).encode())
            for tensor in (*self.keeps, *self.net.state_dict().values()):
                digest.update(tensor.detach().cpu().contiguous().numpy().data)
            if not parallel.agree(digest.digest(), self.device):
                raise RuntimeError(f"the workers no longer have the same network after {self.seen:,} samples")
        if not all(tensor.isfinite().all() for tensor in self.net.state_dict().values()):
            raise self.not_finite("a weight is not finite")
        for weight, keep in zip(self.masked, self.keeps, strict=True):
            if weight.detach()[keep == 0].any():
                raise RuntimeError(f"a pruned weight came back to life after {self.seen:,} samples")

    def take_snapshots(self) -> None:
        for samples in self.snapshots_at:
            at = updates(samples, self.recipe.batch) * self.recipe.batch
            if samples not in self.snapshots and at == self.seen:
                self.snapshots[samples] = _copy(self.net.state_dict()) | self.task_state()

    def task_state(self) -> State:
        return {f"task.{name}": tensor for name, tensor in _copy(self.task.state).items()}

    def set_task_state(self, state: State) -> None:
        for name, tensor in self.task.state.items():
            tensor.copy_(state[f"task.{name}"])

    def checkpoint(self) -> Checkpoint:
        """All that changes during training, as flat tensors: nothing needs unpickling to come back."""
        tensors = {f"net.{name}": t for name, t in _copy(self.net.state_dict()).items()}
        tensors |= self.task_state()
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
        groups: dict[str, dict[str, Tensor]] = {"net": {}, "task": {}, "optimizer": {}, "snapshot": {}}
        for name, tensor in checkpoint.tensors.items():
            kind, _, rest = name.partition(".")
            if rest:
                groups[kind][rest] = tensor
        self.net.load_state_dict(groups["net"])
        self.set_task_state(checkpoint.tensors)
        state: dict[int, dict[str, Tensor]] = {}
        parameters = list(self.trained.parameters())
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
        self.good = checkpoint.seen
        self.seen = checkpoint.seen
        self.position = self.share.begin(self.seen)
        self.ready = []


class Features(Views):
    """In the place of views where they are not random and the trunk is frozen: its features, computed once."""

    def __init__(self, trunk: nn.Module, data: Dataset) -> None:
        self.data, self.split = data, data.train
        self.rows = features(trunk, data, data.train).to(data.device)

    def __call__(self, batch: Batch, view: int = 0, turns: Tensor | int = 0) -> Tensor:
        return self.rows[batch.index[:, view].to(self.rows.device)]


def starting_network(step: Train, task: Task, data: Dataset, start: State | None) -> models.Network:
    """The network as ``step.start`` says, on the CPU. ``start``: the state where it is a Rewind or Final.

    Raises ValueError where that state is of another network.
    """
    origin = step.start
    key = (origin.seed, origin.draw) if isinstance(origin, Init) else (step.seed, 0)
    generator = torch.Generator().manual_seed(seed_of("init", *key))
    net = models.network(step.arch, data.channels, lambda width: task.head(width, data), generator, torch.device("cpu"))
    if isinstance(origin, Init):
        return net
    if start is None:
        raise ValueError("a training that starts from another needs its state")
    own = net.state_dict()
    brought = {name: t for name, t in start.items() if name.startswith("trunk.")}
    head = {name: t for name, t in (start if step.keeps_head else own).items() if name.startswith("head.")}
    try:
        net.load_state_dict({**brought, **head})
    except RuntimeError as error:
        raise ValueError(f"the weights to start from do not fit {step.arch}: {error}") from error
    return net


def batch_norms(module: nn.Module) -> list[nn.BatchNorm1d | nn.BatchNorm2d]:
    """Its BatchNorm layers."""
    return [part for part in module.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]


def optimizer(recipe: Recipe, module: nn.Module) -> torch.optim.Optimizer:
    """A fresh optimiser over all parameters; weight decay on all of them, as in the paper's time."""
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    extra = {"momentum": recipe.momentum, "nesterov": recipe.nesterov} if recipe.optimizer == "sgd" else {}
    return kinds[recipe.optimizer](
        module.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True, **extra
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
