"""What a criterion of pruning may know of a training: its weights in some state, and its loss there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property

import torch
from safetensors.torch import load as from_safetensors
from torch import Tensor, nn

from raysslprune import masks, models, tasks
from raysslprune.criteria import Tensors
from raysslprune.data import Dataset
from raysslprune.data.batches import Feed
from raysslprune.data.views import Views, draws
from raysslprune.messages import UserError
from raysslprune.models.channels import Space, outlined, zero_removed
from raysslprune.spec import Final, ImportedWeights, Init, Prune, Recipe, Rewind, Train, seed_of
from raysslprune.store.record import WEIGHTS, snapshot_name
from raysslprune.tasks.task import Task
from raysslprune.training.device import arithmetic
from raysslprune.training.loop import State, starting_network

Read = Callable[[Train | ImportedWeights, str], bytes]
"""Reads a file of a training, or of imported weights, by the file's name."""


def starting_file(step: Train) -> tuple[Train | ImportedWeights, str]:
    """The step from whose state ``step`` starts, and the state's file; its weights must not be drawn."""
    assert isinstance(step.start, Rewind | Final)
    name = snapshot_name(step.start.samples) if isinstance(step.start, Rewind) else WEIGHTS
    return step.start.of, name


def begun_task(step: Train, data: Dataset) -> Task:
    """The task of a training, as the training loop begins it."""
    assert isinstance(step.recipe, Recipe)
    task = tasks.find(step.task, step.recipe.options)
    task.begin(data, torch.Generator().manual_seed(seed_of("task", step.seed)))
    return task


class Evidence:
    """A criteria.State, from the files of the training that a step prunes. The first state of a training needs no file.

    mask: weights that are left; :meth:`under` gives the same state under another mask. load: loads the training's
    images, if they are needed. device: where gradients are computed. Raises UserError if the state lacks what the task
    keeps beside the network.
    """

    def __init__(
        self, step: Prune, mask: masks.Mask, load: Callable[[], Dataset], read: Read, device: torch.device
    ) -> None:
        self.step, self.mask, self.load, self.read, self.device = step, mask, load, read, device

    @cached_property
    def data(self) -> Dataset:
        """The images of the training."""
        return self.load()

    @property
    def image(self) -> tuple[int, int, int]:
        return self.data.channels, self.data.size, self.data.size

    @property
    def of(self) -> Train:
        """The training that is pruned. Imported weights have no loss, no images and no other state."""
        assert isinstance(self.step.of, Train)
        return self.step.of

    @property
    def recipe(self) -> Recipe:
        """The recipe of the training."""
        assert isinstance(self.of.recipe, Recipe)
        return self.of.recipe

    def under(self, mask: masks.Mask) -> Evidence:
        """Return the same state with fewer weights left."""
        other = Evidence(self.step, mask, self.load, self.read, self.device)
        other.state = self.state
        return other

    @cached_property
    def state(self) -> State:
        """All tensors of the state that is judged, before the mask: ``trunk.*``, ``head.*``, perhaps ``task.*``."""
        return self.after(self.step.at)

    @cached_property
    def spaces(self) -> list[Space]:
        """The channels of the trunk. Raises ValueError if they can't be followed."""
        return outlined(self.of.arch, self.image)

    @property
    def weights(self) -> Tensors:
        return self._weights

    @property
    def gradients(self) -> Tensors:
        return self._gradients

    @cached_property
    def _weights(self) -> Tensors:
        return self.prunable(self.state)

    @cached_property
    def _gradients(self) -> Tensors:
        return self.mean_gradients(training=True)

    def mean_gradients(self, training: bool) -> Tensors:
        total = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        for share, gradients in self.batch_gradients(training):
            for name, gradient in gradients.items():
                total[name] += share * gradient
        return total

    def earlier(self) -> Tensors:
        since = self.step.since
        return self.prunable(self.after(self.of.begins_at if since is None else since))

    def batch_gradients(self, training: bool = True) -> Iterator[tuple[float, Tensors]]:
        with arithmetic(self.recipe.precision, self.device):
            net, task = self.loaded(training)
            parameters = models.prunable(net.trunk)
            for share, batch in self.batches(task):
                loss = task.loss(net, *batch)
                found = torch.autograd.grad(loss, list(parameters.values()), materialize_grads=True)
                yield share, dict(zip(parameters, (g.cpu() for g in found), strict=True))

    def hessian_times(self, vector: Tensors) -> Tensors:
        total = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        with arithmetic(self.recipe.precision, self.device):
            net, task = self.loaded(training=True)
            parameters = models.prunable(net.trunk)
            along = [vector[name].to(self.device) for name in parameters]
            for share, batch in self.batches(task):
                weights = list(parameters.values())
                first = torch.autograd.grad(task.loss(net, *batch), weights, create_graph=True, materialize_grads=True)
                inner = torch.stack([(g * v).sum() for g, v in zip(first, along, strict=True)]).sum()
                second = torch.autograd.grad(inner, weights, materialize_grads=True)
                for name, product in zip(parameters, second, strict=True):
                    total[name] += share * product.cpu()
        return total

    def network(self) -> models.Network:
        head, cpu = self.new_task(self.data).head, torch.device("cpu")
        net = models.network(
            self.of.arch, self.data.channels, lambda width: head(width, self.data), torch.Generator(), cpu
        )
        net.load_state_dict({name: t for name, t in self.state.items() if not name.startswith("task.")})
        self.apply_mask(net.trunk)
        return net.eval()

    @torch.no_grad()
    def apply_mask(self, trunk: nn.Module) -> None:
        """Set what the mask leaves out to 0."""
        for name, weight in models.prunable(trunk).items():
            weight *= self.mask[name].to(weight.device)
        if self.of.prunes_filters:
            zero_removed(trunk, self.spaces, self.mask)

    # --------------------------------------------------------------------------------- states

    def prunable(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The prunable weights of a state under the mask, contiguous."""
        return {name: (state[f"trunk.{name}"] * m).contiguous() for name, m in self.mask.items()}

    def after(self, samples: int | None) -> State:
        """The state of the training after so many samples; None: its final weights."""
        if samples is None:
            return from_safetensors(self.read(self.step.of, WEIGHTS))
        of = self.of
        if of.is_start(samples):
            return self.first(of)
        return from_safetensors(self.read(of, snapshot_name(samples)))

    def first(self, step: Train) -> State:
        """The state with which a training begins, made as the training loop makes it."""
        if (same := step.begins_as) is not None:
            start = self.first(same)
        else:
            start = None if isinstance(step.start, Init) else from_safetensors(self.read(*starting_file(step)))
        task = begun_task(step, self.data)
        net = starting_network(step, task, self.data, start)
        assert isinstance(step.recipe, Recipe)
        task.meet(net, step.recipe)
        state = net.state_dict()
        kept = start if step.keeps_head and start is not None else {}
        return {**state, **{f"task.{name}": kept.get(f"task.{name}", t) for name, t in task.state.items()}}

    # --------------------------------------------------------------------------------- the loss

    def new_task(self, data: Dataset) -> Task:
        return begun_task(self.of, data)

    def loaded(self, training: bool) -> tuple[models.Network, Task]:
        """The network on the device, and its task, both in the state that is judged. training: the network's mode."""
        data = self.data.to(self.device)
        task, net = self.new_task(data), self.network().to(self.device)
        task.meet(net, self.recipe)
        for name, tensor in task.state.items():
            if f"task.{name}" not in self.state:
                raise UserError(
                    f"gradients of task {self.of.task} need what it keeps beside the weights, which only "
                    f"snapshots have: prune with at={self.recipe.samples} instead of the final weights"
                )
            tensor.copy_(self.state[f"task.{name}"])
        if (twin := task.twin()) is not None:
            self.apply_mask(twin)
        return net.train(training), task

    def batches(self, task: Task) -> Iterator[tuple[float, tuple[Tensor, ...]]]:
        """Yield the arguments of the loss for each batch, with its fraction of all samples.

        The samples and their views are as in a training with the step's own seed. A batch has as many samples as share
        BatchNorm statistics in the training; the last one has what is left, and joins the one before if that is one.
        """
        data, total = self.data.to(self.device), self.step.samples
        size = self.recipe.batch // self.recipe.parts
        feed = Feed(
            data.train,
            self.recipe,
            seed_of("criterion", self.step.id),
            views=task.views,
            draws=draws(self.recipe),
            own=task.draws,
            pool=task.pool(),
            partner=task.partner,
        )
        views, begin = Views(data, data.train, self.recipe), 0
        while begin < total:
            count = min(size, total - begin)
            count += total - begin - count == 1  # a batch of one has no BatchNorm statistics
            yield count / total, task.sample(views, feed.take(begin, count))
            begin += count
