"""One job, executed: read what it starts from, train, write what it gives.

The same in a notebook, in a test, and in a trial of a sweep: Ray is only needed for masks to travel by, and where
several workers share a training.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors

from raysslprune import data, masks, models, parallel, tasks
from raysslprune.catalogue import shown_metrics
from raysslprune.evaluate import svm
from raysslprune.evaluate.metrics import features
from raysslprune.spec import (
    SVM,
    Init,
    Rewind,
    Shuffle,
    Step,
    Train,
    load,
)
from raysslprune.store.record import WEIGHTS, Record, snapshot_name, snapshots_in, versions
from raysslprune.store.steps import Store
from raysslprune.training.loop import Checkpoint, Hooks, Loop, Outcome, State, starting_network
from raysslprune.training.make_masks import MaskMaker, Masks

CHECKPOINT_EVERY = 60.0
"""Seconds of training, about: what a death costs at most."""

CURVE_EVERY = 0.05
"""Seconds between points of a learning curve, about."""


@dataclass(frozen=True, kw_only=True)
class Trained:
    """resumed_at: samples seen at the checkpoint that it went on from, if there was one. device: of one worker."""

    outcome: Outcome
    resumed_at: int | None
    device: str
    workers: int


class Curve:
    """A learning curve as TensorBoard shows it; steps are samples seen."""

    def __init__(self, folder: str) -> None:
        from tensorboardX import SummaryWriter

        self.writer = SummaryWriter(folder)

    def add(self, seen: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, seen)

    def end(self, seen: int, metrics: Mapping[str, float]) -> None:
        """With what was measured at the end, but for what is 0 and not the main metric: that would drown it."""
        self.add(seen, {f"end/{name}": value for name, value in shown_metrics(metrics).items()})
        self.writer.close()


@dataclass(kw_only=True)
class Runner:
    """Executes jobs against a store.

    data_root: where data sets lie. device: what this process trains on. progress: called with (job id, done, of all),
    in samples, or in fits where SVMs are fitted. train_by: how a training of this runner is run: by itself, unless
    others do it for it (cluster/train.py). curves: a folder for the learning curves of what it trains, as TensorBoard's
    event files; '' for none.
    """

    store: Store
    exchange: Masks
    data_root: str = ""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    train_by: Callable[[Runner, Train, set[int], bool], Trained] = lambda runner, *what: runner.trained(*what)
    progress: Callable[[str, int, int], None] = lambda _job, _seen, _end: None
    checkpoint_every: float = field(default_factory=lambda: CHECKPOINT_EVERY)
    curves: str = ""
    masks: MaskMaker = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.masks = MaskMaker(store=self.store, exchange=self.exchange, data_root=self.data_root)

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Make what is missing of a job (``plan.graph.Job.to_plain``); returns the facts of its training.

        Raises Damaged where something it starts from is not whole, NotImported, and whatever the training
        raises.
        """
        steps = load(job["graph"])
        step = steps[job["train"]]
        assert isinstance(step, Train)
        for mask_id in job["before"]:
            self.masks.get(steps[mask_id])
        missing = [steps[mask_id] for mask_id in job["after"] if self.store.record(mask_id) is None]
        record = self.store.record(step.id)
        had = record.files if record else {}
        wanted = {snapshot_name(samples) for samples in job["snapshots"]}
        if job["weights"] or any(not isinstance(mask, Shuffle) for mask in missing):
            wanted.add(WEIGHTS)
        if record is None or not wanted <= had.keys():
            stays = job["weights"] or job["keep"] or WEIGHTS in had
            return self.make(step, set(job["snapshots"]) | snapshots_in(had), missing, stays).facts
        for mask in missing:
            self.masks.get(mask)
        return record.facts

    def make(self, step: Train, snapshots: set[int], after: list[Step], stays: bool) -> Record:
        """Train a step, commit it, and make masks from it. stays: whether its final weights do.

        If not, the masks come first: the training isn't done before they are. Killed until then, it goes on from its
        last state, which is kept so long, and not one weight can be another.
        """
        training, files, metrics, facts = self.train(step, snapshots, keep_last=bool(after) and not stays)
        self.masks.at_hand = {step.id: files[WEIGHTS]}
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
        """Train a step from its last checkpoint on; gives what Store.commit wants.

        keep_last: make a checkpoint of the end, too.
        """
        begun = time.time()
        done = self.svms(step) if isinstance(step.recipe, SVM) else self.train_by(self, step, snapshots, keep_last)
        outcome = done.outcome
        files = {WEIGHTS: to_safetensors(outcome.weights)}
        files |= {snapshot_name(s): to_safetensors(state) for s, state in outcome.snapshots.items()}
        facts = {
            "seconds": outcome.seconds,
            "images_per_second": outcome.images_per_second,
            "begun": begun,
            "resumed_at": done.resumed_at,
            "host": platform.node(),
            "device": done.device,
            "workers": done.workers,
            "versions": versions(),
        }
        return step, files, outcome.metrics, facts

    def trained(self, step: Train, snapshots: set[int], keep_last: bool) -> Trained:
        """Train a step; by each process of a torch.distributed group where there is one, and with the same result."""
        curve = Curve(self.curves) if self.curves and parallel.rank() == 0 else None
        loop = Loop(
            step=step,
            data=data.load(step.data, self.data_root),
            start=self.starting_state(step),
            mask=None if step.mask is None else self.masks.get(step.mask),
            snapshots_at=snapshots,
            device=self.device,
            hooks=Hooks(
                save=lambda checkpoint: self.save(step, checkpoint),
                save_every=self.checkpoint_every,
                progress=lambda seen, end: self.progress(step.id, seen, end),
                **({"curve": curve.add, "look_every": CURVE_EVERY} if curve else {}),
            ),
        )
        checkpoint = self.checkpoint(step, snapshots)
        if checkpoint is not None:
            loop.restore(checkpoint)
        outcome = loop.run()
        if curve:
            curve.end(loop.seen, outcome.metrics)
        if keep_last and parallel.rank() == 0:
            self.save(step, loop.checkpoint())
        return Trained(
            outcome=outcome,
            resumed_at=checkpoint.seen if checkpoint else None,
            device=name_of(self.device),
            workers=parallel.ranks(),
        )

    def starting_state(self, step: Train) -> State | None:
        """What a training starts from, unless its weights are drawn."""
        if isinstance(step.start, Init):
            return None
        name = snapshot_name(step.start.samples) if isinstance(step.start, Rewind) else WEIGHTS
        return from_safetensors(self.store.artefact(step.start.of.id, name))

    def svms(self, step: Train) -> Trained:
        """Linear SVMs on the features of a frozen trunk, in the place of a loop."""
        assert isinstance(step.recipe, SVM)
        begun = time.perf_counter()
        dataset = data.load(step.data, self.data_root).to(self.device)
        net = starting_network(step, tasks.find(step.task), dataset, self.starting_state(step))
        trunk = net.trunk.to(self.device).eval()
        weights = models.prunable(trunk)
        kept = (
            self.masks.get(step.mask) if step.mask else masks.full({n: weight.shape for n, weight in weights.items()})
        )
        with torch.no_grad():
            for name, weight in weights.items():
                weight *= kept[name].to(weight.device)
        known = features(trunk, dataset, dataset.train)
        asked = features(trunk, dataset, dataset.test)
        featured = time.perf_counter() - begun
        fitted = svm.fit(
            step.recipe, known, dataset.train.labels.cpu(), progress=lambda done, of: self.progress(step.id, done, of)
        )
        metrics = fitted.metrics(asked, dataset.test.labels.cpu())
        metrics["density"] = masks.density(kept)
        metrics["collapsed_layers"] = float(len(masks.collapsed_layers(kept)))
        outcome = Outcome(
            weights={"head.weight": fitted.weight, "head.bias": fitted.bias, "costs": fitted.costs},
            snapshots={},
            metrics=metrics,
            seconds=time.perf_counter() - begun,
            images_per_second=(len(known) + len(asked)) / featured,
        )
        return Trained(outcome=outcome, resumed_at=None, device=name_of(self.device), workers=1)

    def save(self, step: Train, checkpoint: Checkpoint) -> None:
        tensors = {**checkpoint.tensors, "seen": torch.tensor(checkpoint.seen)}
        self.store.save_checkpoint(step.id, to_safetensors(tensors))

    def checkpoint(self, step: Train, snapshots: set[int]) -> Checkpoint | None:
        """The last one of a training that was interrupted, unless it is past a snapshot that it did not take."""
        data = self.store.load_checkpoint(step.id)
        if data is None:
            return None
        tensors = from_safetensors(data)
        seen = int(tensors.pop("seen"))
        taken = {int(name.split(".")[1]) for name in tensors if name.startswith("snapshot.")}
        if any(samples <= seen for samples in snapshots - taken):
            return None
        return Checkpoint(seen=seen, tensors=tensors)


def name_of(device: torch.device) -> str:
    """``cpu``, or as ``cuda (NVIDIA H100 80GB HBM3)``."""
    return f"cuda ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else device.type
