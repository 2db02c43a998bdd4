"""The one training loop: for pretext tasks, the rounds of a chain and re-training on labels.

Linear classifiers on a frozen trunk and fine-tuning are trainings like any other. The loop uses neither Ray nor the
store: ``Hooks`` pass on everything that must outlive the process.

Several processes may share a training through torch.distributed. Each gets some of the parts of every batch (the
samples of a part share BatchNorm statistics), and all have the same network throughout. The results of one process and
of several differ by rounding only.

Three things are exact. A masked weight is 0 after every update. A training that is interrupted and resumed
gives the same bits as an uninterrupted one (on the CPU). A training rewound to sample k of a dense run and left
unmasked retraces that run from k on, except for the optimiser's state, which starts empty.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from raysslprune import masks, models, parallel, tasks
from raysslprune.catalogue import VALIDATION
from raysslprune.data import Dataset
from raysslprune.data.batches import Batch, Feed
from raysslprune.data.dataset import sent
from raysslprune.data.views import Views, draws
from raysslprune.evaluate.metrics import features, natural_sparsity
from raysslprune.models import channels
from raysslprune.spec import Init, Recipe, Train, seed_of
from raysslprune.tasks.labels import Labels
from raysslprune.tasks.task import Task
from raysslprune.training.calibration import batch_norms, calibrate
from raysslprune.training.device import UpdateGraph, arithmetic

VIEWS_AT_ONCE = 1024
"""Maximum samples whose views are made at once, unless one batch has more."""

LOOK_EVERY = 0.5
"""Approximate seconds between looks at the loss and calls of hooks; each look waits for the device and other ranks."""

FIRST_LOOK = 1
"""Updates before the first look."""

WARM_UP = 3
"""Updates before the one that is captured as a CUDA graph: they allocate the memory that all later updates use."""

# One kernel for many small tensors, in place
_copy_all, _add_all = torch._foreach_copy_, torch._foreach_add_  # pyright: ignore[reportPrivateImportUsage]
_multiply_all, _zero_all = torch._foreach_mul_, torch._foreach_zero_  # pyright: ignore[reportPrivateImportUsage]

State = dict[str, Tensor]
"""A network's parameters and buffers by name, on the CPU: ``trunk.*`` and ``head.*``; in snapshots ``task.*`` too."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """State from which a training can resume: tensors by name, and the number of samples seen."""

    seen: int
    tensors: State


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Results of a training. metrics: the task's metrics, ``density``, ``collapsed_layers``, natural sparsities, and
    ``train_loss``, the mean loss of the last epoch.

    seconds: wall time of this process in the loop and the evaluation. images_per_second: speed of the loop alone.
    curve: the task's metrics at the points of a learning curve, by samples seen.
    """

    weights: State
    snapshots: dict[int, State]
    metrics: dict[str, float]
    seconds: float
    images_per_second: float
    curve: dict[int, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """Callbacks of a training. save: takes a checkpoint, about every ``save_every`` seconds. progress: takes the number
    of samples seen, and their total.

    curve: takes the samples seen and the values of a learning curve: ``loss``, its mean over the epoch so far, and
    ``learning_rate``. It is called about every ``look_every`` seconds, like progress; and with the task's metrics at
    the points of Loop.curve_points. Only rank 0 calls hooks.
    """

    save: Callable[[Checkpoint], None] = lambda _: None
    save_every: float = 60.0
    progress: Callable[[int, int], None] = lambda _seen, _total: None
    curve: Callable[[int, dict[str, float]], None] = lambda _seen, _values: None
    look_every: float = field(default_factory=lambda: LOOK_EVERY)


@dataclass(kw_only=True)
class Loop:
    """A training in progress. Build it, perhaps :meth:`restore` a checkpoint, then :meth:`run` it once.

    compiled: compute the network by torch.compile, which compiles once for all networks of one shape in a process.
    graphed: launch each update as one CUDA graph where possible: on one GPU, for a ``capturable`` task.
    Both change results by rounding only.
    curve_points: number of points, evenly spaced from the start of the training to its end, at which the task's metrics
    are measured; 0 for none. This changes no result.
    """

    step: Train
    data: Dataset
    start: State | None = None
    mask: masks.Mask | None = None
    snapshots_at: Collection[int] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    hooks: Hooks = field(default_factory=Hooks)
    compiled: bool = False
    graphed: bool = False
    curve_points: int = 0

    def __post_init__(self) -> None:
        step, recipe = self.step, self.step.recipe
        assert isinstance(recipe, Recipe)
        self.recipe = recipe
        self.task = tasks.find(step.task, recipe.options)
        self.data = self.data.to(self.device)
        self.task.begin(self.data, torch.Generator().manual_seed(seed_of("task", step.seed)))
        net = starting_network(step, self.task, self.data, self.start).to(self.device)
        self.net = net.to(memory_format=torch.channels_last)  # a third faster on the CPU, and preferred by GPUs
        self.trained = net.head if step.trunk_frozen else net
        net.trunk.requires_grad_(not step.trunk_frozen)
        self.graphed &= self.device.type == "cuda" and parallel.ranks() == 1 and self.task.capturable
        self.optimizer = optimizer(recipe, self.trained, captured_on=self.device if self.graphed else None)
        weights = models.prunable(self.net.trunk)
        self.kept = self.mask or masks.full({name: w.shape for name, w in weights.items()})
        kept = dict(self.kept) if self.mask else {}
        if step.prunes_filters:
            found = channels.outlined(step.arch, (self.data.channels, self.data.size, self.data.size))
            kept |= channels.affine_mask(found, self.kept)
        self.masked: list[Tensor] = []
        self.keeps: list[Tensor] = []
        self.mask_too(self.net.trunk, kept)
        self.apply_mask()
        self.task.meet(self.net, recipe)
        if step.keeps_head and self.start is not None:
            self.set_task_state(self.start)
        if (twin := self.task.twin()) is not None:
            self.mask_too(twin, kept)
            self.apply_mask()
        if step.calibrated:
            with arithmetic(recipe.precision, self.device):
                calibrate(net.trunk, self.data)
        self.micro = recipe.batch // recipe.parts
        self.share = parallel.Share.of_this_process(recipe.batch, self.micro)
        self.parts = self.share.count // self.micro
        norms = batch_norms(self.trained) if recipe.parts > 1 else []
        self.statistics = [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]
        self.sums = [torch.zeros_like(statistic) for statistic in self.statistics]
        self.tracked = [norm.num_batches_tracked for norm in norms if norm.num_batches_tracked is not None]
        self.before = [torch.empty_like(buffer) for buffer in (*self.statistics, *self.tracked)]
        self.forward: nn.Module = self.net
        self.views = Views(self.data, self.data.train, recipe)
        if step.trunk_frozen and isinstance(self.task, Labels) and not self.views.random:
            with arithmetic(recipe.precision, self.device):
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
        self.compute = torch.compile(self.forward) if self.compiled else self.forward
        self.graph: UpdateGraph | None = None
        self.seen = recipe.reached(step.begins_at)
        self.end = recipe.reached(recipe.samples)
        self.position = self.share.begin(self.seen)
        self.losses, self.counted = torch.zeros((), device=self.device), 0
        self.updates_done = 0
        """Number of updates done by this process."""
        self.good: int | None = None
        """Samples seen at the last checkpoint, in which all weights are finite; None before the first."""
        self.snapshots: dict[int, State] = {}
        self.curve: dict[int, dict[str, float]] = {}
        self.curve_at = evenly_spaced(self.seen, self.end, recipe.batch, self.curve_points)
        self.measuring = 0.0
        """Seconds that the points of the learning curve took."""
        self.ready: list[tuple[Tensor, ...]] = []

    def mask_too(self, trunk: nn.Module, kept: masks.Mask) -> None:
        """Mask the weights of a trunk from now on, by name."""
        parameters = dict(trunk.named_parameters())
        self.masked += [parameters[name] for name in kept]
        self.keeps += [torch.empty_like(parameters[name]).copy_(m).detach() for name, m in kept.items()]

    def run(self) -> Outcome:
        """Train to the end and evaluate. Raises FloatingPointError if a loss, weight or metric is not finite."""
        with arithmetic(self.recipe.precision, self.device), self.own_stream():
            start, first = time.perf_counter(), self.seen
            self.train(start)
            train_loss = self.mean_loss()
            trained = time.perf_counter() - start - self.measuring
            metrics = self.judged() | {"train_loss": train_loss}
        for name, value in metrics.items():
            if not math.isfinite(value):
                raise self.not_finite(f"{name} is {value}")
        return Outcome(
            weights=_copy(self.net.state_dict()),
            snapshots=self.snapshots,
            metrics=metrics,
            seconds=time.perf_counter() - start,
            images_per_second=(self.seen - first) / trained,
            curve=self.curve,
        )

    @property
    def rounding(self) -> tuple[str, ...]:
        """Features in use that may round differently each time, since sums may add up in another order."""
        ways = {"compiled": self.compiled, "CUDA graphs": self.graphed, "cuDNN's choice": self.device.type == "cuda"}
        return tuple(way for way, used in ways.items() if used)

    def own_stream(self) -> AbstractContextManager[object]:
        """A new CUDA stream if updates are captured, since nothing can be captured on the default stream."""
        if not self.graphed:
            return nullcontext()
        torch.cuda.synchronize(self.device)
        return torch.cuda.stream(torch.cuda.Stream(self.device))

    def train(self, start: float) -> None:
        """Do all updates. start: time of the start, by ``time.perf_counter``."""
        recipe, looked, saved, pause, look_in = self.recipe, 0.0, 0.0, FIRST_LOOK, FIRST_LOOK
        self.check()
        self.net.eval()
        self.trained.train()
        self.take_snapshots()
        self.take_curve_point()
        while self.seen < self.end:
            rate = self.set_learning_rate()
            self.next_update()
            self.seen += recipe.batch
            self.take_snapshots()
            self.take_curve_point()
            look_in -= 1
            if look_in:  # counted in updates, as ranks' clocks differ
                continue
            loss = self.mean_loss()
            now = self.clock(start)
            look_in = pause = max(1, int(pause * min(2.0, self.hooks.look_every / max(now - looked, 1e-9))))
            looked = now
            if parallel.rank() == 0:
                self.hooks.progress(self.seen, self.end)
                self.hooks.curve(self.seen, {"loss": loss, "learning_rate": rate})
            if now - saved >= self.hooks.save_every:
                saved = now
                self.check()
                if parallel.rank() == 0:
                    self.hooks.save(self.checkpoint())
                self.good = self.seen

    def judged(self) -> dict[str, float]:
        """Compute the metrics of the task, the mask and the weights. Raises as :meth:`check` does."""
        self.check()
        metrics = self.measured()
        if self.curve_at:
            self.curve[self.seen] = metrics
        metrics = metrics | masks.metrics(self.kept)
        return metrics | natural_sparsity(models.prunable(self.net.trunk), self.kept)

    def measured(self) -> dict[str, float]:
        """Measure the task's metrics, also on images that are held out. Leaves the network in evaluation mode."""
        self.net.eval()
        metrics = self.task.evaluate(self.net, self.data, self.recipe)
        if self.data.validation is not None:
            held_out = self.task.evaluate(self.net, replace(self.data, test=self.data.validation), self.recipe)
            metrics |= {f"{name}{VALIDATION}": value for name, value in held_out.items()}
        return metrics

    def take_curve_point(self) -> None:
        """Measure the network at a point of the learning curve; at the last, :meth:`judged` does."""
        if self.seen not in self.curve_at or self.seen in self.curve or self.seen == self.end:
            return
        begun = time.perf_counter()
        self.curve[self.seen] = self.measured()
        self.trained.train()  # as before: a frozen trunk stays in evaluation mode
        if parallel.rank() == 0:
            self.hooks.curve(self.seen, self.curve[self.seen])
        self.measuring += time.perf_counter() - begun

    def set_learning_rate(self) -> float:
        """Set the learning rate of the next update and return it. Captured updates read it from a tensor."""
        rate = learning_rate(self.recipe, self.seen)
        for group in self.optimizer.param_groups:
            if self.graphed:
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        return rate

    def next_update(self) -> None:
        """Update the weights by the next batch, without waiting for the device."""
        if self.seen // self.feed.samples != (self.seen - self.recipe.batch) // self.feed.samples:
            self.losses.zero_()  # the mean is over one epoch
            self.counted = 0
        self.counted += 1
        self.updates_done += 1
        if not self.graphed or self.updates_done <= WARM_UP:
            self.update(self.next_batch() for _ in range(self.parts))
            return
        batch = [self.next_batch() for _ in range(self.parts)]
        self.graph = self.graph or UpdateGraph(self.update, batch)
        self.graph(batch)

    def update(self, batch: Iterable[tuple[Tensor, ...]]) -> None:
        """Update the weights by the parts of a batch, by kernels only: everything that changes is in tensors."""
        self.optimizer.zero_grad()
        self.accumulate(batch)
        self.optimizer.step()
        self.apply_mask()
        self.task.updated()

    def accumulate(self, batch: Iterable[tuple[Tensor, ...]]) -> None:
        """Accumulate the gradient of one update.

        If BatchNorm sees only parts of the batch, the running statistics move once per update, by the mean over all
        parts, however many processes share these: as on many GPUs with one part each and common running statistics.
        """
        buffers = [*self.statistics, *self.tracked]
        if buffers:
            _copy_all(self.before, buffers)
            _zero_all(self.sums)
        if self.task.whole_batch:
            self.accumulate_whole(batch)
        else:
            self.accumulate_parts(batch)
        if buffers:
            self.share_statistics()
            _copy_all(self.tracked, self.before[len(self.statistics) :])
            _add_all(self.tracked, 1)

    def accumulate_parts(self, batch: Iterable[tuple[Tensor, ...]]) -> None:
        """Accumulate the gradient of the mean of the parts' losses, one part after the other."""
        buffers = [*self.statistics, *self.tracked]
        for index, part in enumerate(batch):
            if index and buffers:
                _copy_all(buffers, self.before)
            with self.gradients_stay_here(index < self.parts - 1):
                loss = self.task.loss(self.outputs, *part)
                (loss if self.parts == 1 else loss / self.parts).backward()
            self.losses += loss.detach() / self.parts
            if buffers:
                _add_all(self.sums, self.statistics)

    def accumulate_whole(self, batch: Iterable[tuple[Tensor, ...]]) -> None:
        """Accumulate the gradient of one loss of all parts together."""
        samples = [torch.cat(parts) for parts in zip(*batch, strict=True)]
        loss = self.task.loss(self.outputs_by_part, *samples)
        loss.backward()
        self.losses += loss.detach()
        for total, statistic in zip(self.sums, self.statistics, strict=True):
            total.copy_(statistic * self.parts)

    def outputs_by_part(self, images: Tensor) -> Tensor:
        """Outputs for views of all samples of this process, where BatchNorm sees one part of the batch at a time.

        images: a row for each sample, or several times as many, one view of all samples after the other. The running
        statistics move by the mean over the parts.
        """
        if self.parts == 1:
            return self.outputs(images)
        groups = images.unflatten(0, (-1, self.parts, self.micro)).transpose(0, 1)
        # by .data: autograd would refuse a change before the backward pass, which in training mode does not read them
        statistics = [statistic.data for statistic in self.statistics]
        begun, sums = [s.clone() for s in statistics], [torch.zeros_like(s) for s in statistics]
        outputs: list[Tensor] = []
        for group in groups:
            _copy_all(statistics, begun)
            outputs.append(self.outputs(group.flatten(0, 1).contiguous(memory_format=torch.channels_last)))
            _add_all(sums, statistics)
        _copy_all(statistics, [total / self.parts for total in sums])
        return torch.stack(outputs).unflatten(1, groups.shape[1:3]).transpose(0, 1).flatten(0, 2)

    def outputs(self, images: Tensor) -> Tensor:
        """Outputs of the network, computed in the recipe's precision, as float32 for the loss."""
        if self.recipe.precision != "bf16":
            return self.compute(images)
        with torch.autocast(self.device.type, torch.bfloat16):
            return self.compute(images).float()

    def gradients_stay_here(self, here: bool) -> AbstractContextManager[None]:
        """Context in which ranks exchange no gradients if ``here`` is True: they exchange them once per update."""
        if here and isinstance(self.forward, DistributedDataParallel):
            return self.forward.no_sync()
        return nullcontext()

    @torch.no_grad()
    def share_statistics(self) -> None:
        """Set running statistics to the mean over all parts of the update, from the sums over this process's parts."""
        flat = parallel.mean(torch.cat(self.sums) / self.parts)
        _copy_all(self.statistics, flat.split([len(total) for total in self.sums]))

    def next_batch(self) -> tuple[Tensor, ...]:
        """The inputs of the loss for the next part of a batch.

        Views are made for many updates at once: on small images the calls cost more than the pixels. Images on disk
        are read part by part, decoded ahead by the feed.
        """
        if not self.ready:
            batch = self.recipe.batch
            if self.feed.decodes:
                count = self.micro
            elif self.share.count < batch:
                count = self.share.count
            else:
                count = min(max(1, VIEWS_AT_ONCE // batch) * batch, self.end - self.seen)
            parts = self.task.sample(self.views, self.feed.take(self.position, count))
            self.ready = list(zip(*(part.split(self.micro) for part in parts), strict=True))[::-1]
        self.position = self.share.after(self.position + self.micro)
        return self.ready.pop()

    def mean_loss(self) -> float:
        """Mean loss over the epoch so far; waits for the device. Raises FloatingPointError if it is not finite."""
        mean = float(parallel.mean(self.losses)) / max(1, self.counted)
        if not math.isfinite(mean):
            raise self.not_finite(f"the loss is {mean}")
        return mean

    def not_finite(self, what: str) -> FloatingPointError:
        good = (
            "there is no checkpoint" if self.good is None else f"the last good checkpoint is at {self.good:,} samples"
        )
        return FloatingPointError(f"{what} after {self.seen:,} of {self.end:,} samples; {good}")

    @torch.no_grad()
    def apply_mask(self) -> None:
        """Set masked weights to 0, after each update, since momentum and weight decay may change them in the update."""
        if self.masked:
            _multiply_all(self.masked, self.keeps)

    def clock(self, start: float) -> float:
        """Seconds since ``start``, by the clock of rank 0."""
        seconds = time.perf_counter() - start
        if parallel.ranks() == 1:
            return seconds
        return float(parallel.from_first(torch.tensor(seconds, dtype=torch.float32, device=self.device)))

    def check(self) -> None:
        """Raise RuntimeError if ranks differ or a masked weight is not 0, FloatingPointError for NaN or infinity."""
        if parallel.ranks() > 1:  # first, so that either all ranks raise the errors below or none does
            digest = hashlib.sha256(str(self.seen).encode())
            for tensor in (*self.keeps, *self.net.state_dict().values()):
                digest.update(tensor.detach().cpu().contiguous().numpy().data)
            if not parallel.agree(digest.digest(), self.device):
                raise RuntimeError(f"the workers no longer have the same network after {self.seen:,} samples")
        if not all(tensor.isfinite().all() for tensor in self.net.state_dict().values()):
            raise self.not_finite("a weight is not finite")
        for weight, keep in zip(self.masked, self.keeps, strict=True):
            if weight.detach()[keep == 0].any():
                raise RuntimeError(f"a pruned weight is no longer 0 after {self.seen:,} samples")

    def take_snapshots(self) -> None:
        for samples in self.snapshots_at:
            if samples not in self.snapshots and self.recipe.reached(samples) == self.seen:
                self.snapshots[samples] = _copy(self.net.state_dict()) | self.task_state()

    def task_state(self) -> State:
        return {f"task.{name}": tensor for name, tensor in _copy(self.task.state).items()}

    def set_task_state(self, state: State) -> None:
        for name, tensor in self.task.state.items():
            tensor.copy_(state[f"task.{name}"])

    def checkpoint(self) -> Checkpoint:
        """All state that changes in training, as flat tensors, so that no unpickling is needed to restore it."""
        tensors = {f"net.{name}": t for name, t in _copy(self.net.state_dict()).items()}
        tensors |= self.task_state()
        for index, state in self.optimizer.state_dict()["state"].items():
            kept = {key: t for key, t in state.items() if t is not None}
            tensors |= {f"optimizer.{index}.{key}": t for key, t in _copy(kept).items()}
        for samples, snapshot in self.snapshots.items():
            tensors |= {f"snapshot.{samples}.{name}": t.clone() for name, t in snapshot.items()}
        for samples, metrics in self.curve.items():
            tensors |= {f"curve.{samples}.{name}": _double(value) for name, value in metrics.items()}
        tensors["losses"] = self.losses.cpu().clone()
        tensors["counted"] = torch.tensor(self.counted)
        return Checkpoint(seen=self.seen, tensors=tensors)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Resume from ``checkpoint`` as if there had been no interruption."""
        groups: dict[str, dict[str, Tensor]] = {kind: {} for kind in ("net", "task", "optimizer", "snapshot", "curve")}
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
            if tensor.shape == like.shape:  # in the parameter's memory format: fused kernels go by memory order
                tensor = torch.empty_like(like).copy_(tensor).detach()
            state.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        for name, tensor in groups["snapshot"].items():
            samples, _, key = name.partition(".")
            self.snapshots.setdefault(int(samples), {})[key] = tensor
        for name, tensor in groups["curve"].items():
            samples, _, key = name.partition(".")
            self.curve.setdefault(int(samples), {})[key] = float(tensor)
        self.losses.copy_(checkpoint.tensors["losses"])
        self.counted = int(checkpoint.tensors["counted"])
        self.good = self.seen = checkpoint.seen
        self.position = self.share.begin(self.seen)
        self.ready = []


class Features(Views):
    """Features of a frozen trunk, computed once, instead of views that are not random."""

    def __init__(self, trunk: nn.Module, data: Dataset) -> None:
        self.data, self.split = data, data.train
        self.rows = features(trunk, data, data.train).to(data.device)

    def __call__(self, batch: Batch, view: int = 0, turns: Tensor | int = 0) -> Tensor:
        return self.rows[sent(batch.index[:, view], self.rows.device)]


def starting_network(step: Train, task: Task, data: Dataset, start: State | None) -> models.Network:
    """Make the network that ``step.start`` describes, on the CPU. start: the state, for a Rewind or Final.

    Raises ValueError if the state is missing or does not fit.
    """
    origin = step.start
    key = (origin.seed, origin.draw) if isinstance(origin, Init) else (step.seed, 0)
    generator = torch.Generator().manual_seed(seed_of("init", *key))
    net = models.network(step.arch, data.channels, lambda width: task.head(width, data), generator, torch.device("cpu"))
    if isinstance(origin, Init):
        return net
    if start is None:
        raise ValueError("a training that starts from another one needs its state")
    own = net.state_dict()
    brought = {name: t for name, t in start.items() if name.startswith("trunk.")}
    head = {name: t for name, t in (start if step.keeps_head else own).items() if name.startswith("head.")}
    try:
        net.load_state_dict({**brought, **head})
    except RuntimeError as error:
        raise ValueError(f"the weights to start from do not fit {step.arch}: {error}") from error
    return net


def optimizer(recipe: Recipe, module: nn.Module, captured_on: torch.device | None = None) -> torch.optim.Optimizer:
    """A fresh optimiser over all parameters, with weight decay on all of them, as was usual at the paper's time.

    captured_on: the GPU on which a graph captures its steps, if any; the learning rate is then a tensor there.
    """
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    rate = torch.tensor(recipe.lr, device=captured_on) if captured_on else recipe.lr
    extra: dict[str, Any] = {"capturable": captured_on is not None}
    if recipe.optimizer == "sgd":  # always capturable
        extra = {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
    return kinds[recipe.optimizer](module.parameters(), lr=rate, weight_decay=recipe.weight_decay, fused=True, **extra)


def learning_rate(recipe: Recipe, seen: int) -> float:
    """Learning rate of the update after ``seen`` samples. Warm-up is linear; its last update has the full rate."""
    rate = recipe.lr
    if recipe.warmup:
        rate *= min(1.0, (seen + recipe.batch) / recipe.warmup)
    if recipe.schedule == "cosine":
        rate *= 0.5 * (1 + math.cos(math.pi * min(1.0, seen / recipe.samples)))
    elif recipe.schedule == "linear":
        rate *= min(1.0, max(0.0, recipe.samples - seen) / (recipe.samples - recipe.warmup))
    elif recipe.schedule == "steps":
        rate *= 0.1 ** sum(seen >= at for at in recipe.decay_at)
    return rate


def evenly_spaced(start: int, end: int, batch: int, count: int) -> set[int]:
    """So many points from ``start`` to ``end``, both included, in samples seen after whole updates; one: the end.

    There are fewer if there are fewer updates.
    """
    if count < 2:
        return {end} if count else set()
    updates = (end - start) // batch
    return {start + batch * round(updates * number / (count - 1)) for number in range(count)}


def _double(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def _copy(state: State) -> State:
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in state.items()}
