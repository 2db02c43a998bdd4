"""Execute a job: read its starting weights, train, write its results.

This works the same in a notebook, in a test, and in a trial of a sweep. Ray is needed only to share masks between
processes, and for several workers that share a training.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from raysslprune import data, masks, models, parallel, sources, tasks
from raysslprune.catalogue import VALIDATION, shown_metrics
from raysslprune.data import Dataset
from raysslprune.evaluate import svm
from raysslprune.evaluate.metrics import chance, features
from raysslprune.models.channels import outlined, zero_removed
from raysslprune.spec import SVM, Init, Mask, Step, Train, load, reads_end
from raysslprune.store.record import (
    CHANCE,
    CURVE,
    LAYERS,
    MULTIPLY_ADDS,
    WEIGHTS,
    Record,
    snapshot_name,
    snapshots_in,
    versions,
)
from raysslprune.store.steps import Store
from raysslprune.tasks.task import Task
from raysslprune.training.calibration import calibrate
from raysslprune.training.evidence import starting_file
from raysslprune.training.loop import Checkpoint, Hooks, Loop, Outcome, State, starting_network
from raysslprune.training.make_masks import MaskMaker, Masks

CHECKPOINT_EVERY = 60.0
"""Approximate seconds of training between checkpoints: the most that is lost if a process dies."""

CURVE_EVERY = 0.05
"""Approximate seconds between points of a learning curve."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished training. resumed_at: samples seen at the checkpoint that it resumed from; None without a checkpoint.

    device: name of one worker's device. images: number of training images. chance: CHANCE of store.record. rounding:
    features in use that may round differently each time (Loop.rounding). left: facts on what the mask leaves of the
    network, as :func:`what_is_left` returns them. resumed_sources: sources.SOURCES of the process that wrote the
    checkpoint.
    """

    outcome: Outcome
    resumed_at: int | None
    device: str
    workers: int
    images: int
    chance: Mapping[str, float]
    rounding: tuple[str, ...] = ()
    left: Mapping[str, Any] = field(default_factory=dict)
    resumed_sources: Mapping[str, list[str]] = field(default_factory=dict)


class Curve:
    """A learning curve in TensorBoard's format; its steps are samples seen."""

    def __init__(self, folder: str) -> None:
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(folder)

    def add(self, seen: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, seen)

    def end(self, seen: int, metrics: Mapping[str, float]) -> None:
        """Add the final metrics and close the file. Metrics that are 0 are left out as clutter, except the main one."""
        self.add(seen, {f"end/{name}": value for name, value in shown_metrics(metrics).items()})
        self.writer.close()


@dataclass(kw_only=True)
class Runner:
    """An executor of jobs on a store.

    data_root: folder of the data sets. device: the device of this process. progress: called with (job id, done, total),
    in samples, or in fits of SVMs. train_by: runs a training for this runner: in this process, unless a team of workers
    does it (cluster/train.py). curves: folder for learning curves, as TensorBoard's event files; '' for none. compile:
    compile networks, and capture updates on a GPU as graphs. curve_points: as in Loop.
    """

    store: Store
    exchange: Masks
    data_root: str = ""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    train_by: Callable[[Runner, Train, set[int], bool], Trained] = lambda runner, *what: runner.trained(*what)
    progress: Callable[[str, int, int], None] = lambda _job, _seen, _end: None
    checkpoint_every: float = field(default_factory=lambda: CHECKPOINT_EVERY)
    curves: str = ""
    compile: bool = False
    curve_points: int = 0
    masks: MaskMaker = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.masks = MaskMaker(store=self.store, exchange=self.exchange, data_root=self.data_root, device=self.device)

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Make the missing steps of a job (``plan.graph.Job.to_plain``); return the facts of its training.

        Raises Damaged for a damaged input file, NotImported for an input that must be imported first, and errors of the
        training.
        """
        steps = load(job["graph"])
        step = steps[job["train"]]
        assert isinstance(step, Train)
        sources.remember(steps.values())
        for mask_id in job["before"]:
            self.masks.get(steps[mask_id])
        missing = [steps[mask_id] for mask_id in job["after"] if self.store.record(mask_id) is None]
        record = self.store.record(step.id)
        had = record.files if record else {}
        wanted = {snapshot_name(samples) for samples in job["snapshots"]}
        if job["weights"] or any(reads_end(mask) for mask in missing if isinstance(mask, Mask)):
            wanted.add(WEIGHTS)
        if record is None or not wanted <= had.keys():
            stays = job["weights"] or job["keep"] or WEIGHTS in had
            return self.make(step, set(job["snapshots"]) | snapshots_in(had), missing, stays).facts
        for mask in missing:
            self.masks.get(mask)
        return record.facts

    def make(self, step: Train, snapshots: set[int], after: list[Step], stays: bool) -> Record:
        """Train a step, commit it, and make the masks ``after``. stays: keep its final weights.

        If the weights are not kept, the masks are made before the training is committed. If the process is killed in
        between, the training resumes from a checkpoint of its end, so that all masks come from the same weights.
        """
        training, files, metrics, facts = self.train(step, snapshots, keep_last=bool(after) and not stays)
        self.masks.at_hand = {step.id: dict(files)}
        try:
            if not stays:
                del files[WEIGHTS]
                for mask in after:
                    self.masks.get(mask)
            record = self.store.commit(training, files, metrics, facts)
            self.store.drop_checkpoint(step.id)
            if stays:
                for mask in after:
                    self.masks.get(mask)
        finally:
            self.masks.at_hand = {}
        return record

    def train(
        self, step: Train, snapshots: set[int], keep_last: bool = False
    ) -> tuple[Train, dict[str, bytes], dict[str, float], dict[str, Any]]:
        """Train a step from its last checkpoint on; return the arguments of Store.commit.

        keep_last: also save a checkpoint of the end.
        """
        begun = time.time()
        done = self.svms(step) if isinstance(step.recipe, SVM) else self.train_by(self, step, snapshots, keep_last)
        outcome = done.outcome
        files = {WEIGHTS: to_safetensors(outcome.weights)}
        files |= {snapshot_name(s): to_safetensors(state) for s, state in outcome.snapshots.items()}
        facts: dict[str, Any] = {
            "seconds": outcome.seconds,
            "images_per_second": outcome.images_per_second,
            "begun": begun,
            "resumed_at": done.resumed_at,
            "host": platform.node(),
            "device": done.device,
            "workers": done.workers,
            "images": done.images,
            CHANCE: dict(done.chance),
            "versions": versions(),
            **done.left,
        }
        if outcome.curve:
            facts[CURVE] = sorted(outcome.curve.items())
        if done.rounding:
            facts["rounding"] = list(done.rounding)
        if made_by := sources.merged(sources.of(step, self.store), done.resumed_sources):
            facts[sources.SOURCES] = made_by
        return step, files, outcome.metrics, facts

    def trained(self, step: Train, snapshots: set[int], keep_last: bool) -> Trained:
        """Train a step. Every process of a torch.distributed group must call this, and gets the same result."""
        sources.remember([step])
        curve = Curve(self.curves) if self.curves and parallel.rank() == 0 else None
        with in_background(lambda checkpoint: self.save(step, checkpoint)) as save:
            hooks = Hooks(
                save=save,
                save_every=self.checkpoint_every,
                progress=lambda seen, end: self.progress(step.id, seen, end),
                **({"curve": curve.add, "look_every": CURVE_EVERY} if curve else {}),
            )
            loop = Loop(
                step=step,
                data=data.load(step.data, self.data_root),
                start=self.starting_state(step),
                mask=None if step.mask is None else self.masks.get(step.mask),
                snapshots_at=snapshots,
                device=self.device,
                hooks=hooks,
                compiled=self.compile,
                graphed=self.compile,
                curve_points=self.curve_points,
            )
            checkpoint = self.checkpoint(step, snapshots)
            if checkpoint is not None:
                loop.restore(checkpoint)
            outcome = loop.run()
            if curve:
                curve.end(loop.seen, outcome.metrics)
            if keep_last and parallel.rank() == 0:
                save(loop.checkpoint())
        return Trained(
            outcome=outcome,
            resumed_at=checkpoint.seen if checkpoint else None,
            device=name_of(self.device),
            workers=parallel.ranks(),
            images=len(loop.data.train),
            rounding=loop.rounding,
            chance=chance(loop.data.test.labels, loop.data.classes),
            left=what_is_left(step, loop.task, loop.data, loop.kept),
            resumed_sources=_from_tensor(checkpoint.tensors.get(sources.SOURCES)) if checkpoint else {},
        )

    def starting_state(self, step: Train) -> State | None:
        """State that a training starts from; None if its weights are drawn."""
        if isinstance(step.start, Init):
            return None
        return from_safetensors(self.masks.stored(*starting_file(step)))

    def svms(self, step: Train) -> Trained:
        """Fit linear SVMs on the features of a frozen trunk, instead of a training loop."""
        assert isinstance(step.recipe, SVM)
        begun = time.perf_counter()
        dataset = data.load(step.data, self.data_root).to(self.device)
        task = tasks.find(step.task)
        net = starting_network(step, task, dataset, self.starting_state(step))
        trunk = net.trunk.to(self.device).eval()
        weights = models.prunable(trunk)
        shapes = {name: weight.shape for name, weight in weights.items()}
        kept = self.masks.get(step.mask) if step.mask else masks.full(shapes)
        with torch.no_grad():
            for name, weight in weights.items():
                weight *= kept[name].to(weight.device)
        if step.prunes_filters:
            image = dataset.channels, dataset.size, dataset.size
            zero_removed(trunk, outlined(step.arch, image), kept)
        if step.calibrated:
            calibrate(trunk, dataset)
        known, asked = (features(trunk, dataset, split) for split in (dataset.train, dataset.test))
        featured = time.perf_counter() - begun
        fitted = svm.fit(
            step.recipe, known, dataset.train.labels.cpu(), progress=lambda done, of: self.progress(step.id, done, of)
        )
        metrics = fitted.metrics(asked, dataset.test.labels.cpu()) | masks.metrics(kept)
        if dataset.validation is not None:
            held_out = fitted.metrics(features(trunk, dataset, dataset.validation), dataset.validation.labels.cpu())
            metrics |= {f"{name}{VALIDATION}": held_out[name] for name in ("top1", "map") if name in held_out}
        outcome = Outcome(
            weights={"head.weight": fitted.weight, "head.bias": fitted.bias, "costs": fitted.costs},
            snapshots={},
            metrics=metrics,
            seconds=time.perf_counter() - begun,
            images_per_second=(len(known) + len(asked)) / featured,
        )
        return Trained(
            outcome=outcome,
            resumed_at=None,
            device=name_of(self.device),
            workers=1,
            images=len(known),
            chance=chance(dataset.test.labels, dataset.classes),
            left=what_is_left(step, task, dataset, kept),
        )

    def save(self, step: Train, checkpoint: Checkpoint) -> None:
        tensors = {**checkpoint.tensors, "seen": torch.tensor(checkpoint.seen)}
        if made_by := sources.of(step, self.store):
            tensors[sources.SOURCES] = torch.tensor(list(json.dumps(made_by).encode()), dtype=torch.uint8)
        self.store.save_checkpoint(step.id, to_safetensors(tensors))

    def checkpoint(self, step: Train, snapshots: set[int]) -> Checkpoint | None:
        """Checkpoint of an interrupted training; None if there is none, or it lacks a snapshot that it passed."""
        stored = self.store.load_checkpoint(step.id)
        if stored is None:
            return None
        tensors = from_safetensors(stored)
        seen = int(tensors.pop("seen"))
        taken = {int(name.split(".")[1]) for name in tensors if name.startswith("snapshot.")}
        if any(samples <= seen for samples in snapshots - taken):
            return None
        return Checkpoint(seen=seen, tensors=tensors)


@contextmanager
def in_background(work: Callable[[Checkpoint], None]) -> Iterator[Callable[[Checkpoint], None]]:
    """Yield a function that waits for the last call's ``work`` to end, starts ``work`` in a thread, and returns.

    The next call, or the end of the block, raises an exception of the work.
    """
    with ThreadPoolExecutor(1) as thread:
        started: list[Future[None]] = []

        def start(checkpoint: Checkpoint) -> None:
            if started:
                started.pop().result()
            started.append(thread.submit(work, checkpoint))

        yield start
        if started:
            started.pop().result()


def what_is_left(step: Train, task: Task, data: Dataset, kept: masks.Mask) -> dict[str, Any]:
    """Facts on what a mask leaves of a training's network: LAYERS and MULTIPLY_ADDS of store.record.

    The head counts too. The multiply-adds of a user's own network are left out if its forward pass reads values, since
    they are counted on the meta device, where tensors have none.
    """
    facts: dict[str, Any] = {LAYERS: masks.densities(kept)}
    trunk = models.trunk(step.arch, data.channels)
    with torch.device("meta"):
        net = models.Network(trunk, task.head(int(trunk.width), data))  # pyright: ignore[reportArgumentType]
    with suppress(Exception):
        counts = models.multiply_adds(net, data.channels, data.size)
        for name, m in kept.items():
            counts[f"trunk.{name}"] = counts[f"trunk.{name}"] * int(m.count_nonzero()) // m.numel()
        facts[MULTIPLY_ADDS] = sum(counts.values())
    return facts


def _from_tensor(text: torch.Tensor | None) -> dict[str, list[str]]:
    """Return the value of sources.SOURCES in a checkpoint, which holds tensors only; {} if there is none."""
    return {} if text is None else json.loads(bytes(text.tolist()))


def name_of(device: torch.device) -> str:
    """Name of a device: ``cpu``, or as ``cuda (NVIDIA H100 80GB HBM3)``."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
