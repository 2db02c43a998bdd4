"""Contents of an export: a network or a mask of the store, and its files.

``subnetwork.py`` reads and lists these files; ``card.py`` writes the README among them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from raysslprune import catalogue, data, masks, models, tasks
from raysslprune.data import files
from raysslprune.data.folder import Folder
from raysslprune.data.voc07 import VOC07
from raysslprune.masks import Mask
from raysslprune.messages import USAGE, UserError
from raysslprune.models.channels import affine_mask
from raysslprune.models.channels import outlined as channels_of
from raysslprune.release import subnetwork
from raysslprune.release.shrink import Shrunk, measured
from raysslprune.spec import (
    SVM,
    External,
    Final,
    Imported,
    ImportedWeights,
    Init,
    Prune,
    RandomPrune,
    Recipe,
    Rewind,
    Shuffle,
    Step,
    Train,
    closure,
)
from raysslprune.store.record import MASK, WEIGHTS, Damaged, Record, snapshot_name
from raysslprune.store.steps import Store
from raysslprune.training.loop import starting_network

ONNX, CARD = "model.onnx", "README.md"


@dataclass(frozen=True, kw_only=True)
class Images:
    """Inputs of a network: square images of ``size`` x ``size`` pixels, uint8 from 0 to ``white``.

    mean, std: of each channel, on that scale, for normalisation.
    """

    channels: int
    size: int
    white: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @staticmethod
    def of(name: str, root: str) -> Images:
        """Inputs from the data set ``name``, which is read unless its images are files: these are all prepared alike.

        Raises ValueError for an unknown data set, data.DataError for missing or broken files.
        """
        source = data.source(name)
        if isinstance(source, VOC07) or (isinstance(source, Folder) and not source.resident):
            size = (source.size if isinstance(source, Folder) else None) or files.Files.size
            return Images(channels=3, size=size, white=255.0, mean=files.MEAN, std=files.STD)
        found = data.load(name, root)
        return Images(
            channels=found.channels,
            size=found.size,
            white=found.white,
            mean=tuple(found.mean.flatten().tolist()),
            std=tuple(found.std.flatten().tolist()),
        )


@dataclass(frozen=True, kw_only=True)
class Release:
    """A finished step, ready to be exported.

    behind: the step and all its ancestors, each after its parents. records: their records, by id. channels: number of
    image channels. images: None for a mask that has no data, such as an imported one. mask: mask of all prunable
    weights. state: the weights by released names, pruned ones 0; None for a mask. head: as subnetwork.describe_head
    returns it. at: samples seen by the weights if they are those from before the training; None for its final weights.
    shrunk: the network without its pruned filters, if that is exported too.
    """

    step: Step
    behind: list[Step]
    records: Mapping[str, Record]
    arch: str
    channels: int
    images: Images | None
    mask: Mask
    state: dict[str, Tensor] | None = None
    head: Mapping[str, Any] | None = None
    at: int | None = None
    shrunk: Shrunk | None = None

    @property
    def record(self) -> Record:
        return self.records[self.step.id]

    def config(self, sha256: Mapping[str, str]) -> dict[str, Any]:
        """Return ``config.json``, with the checksums of the files beside it."""
        config: dict[str, Any] = {
            "raysslprune": subnetwork.FORMAT,
            "kind": "mask" if self.state is None else "network",
            "step": self.step.id,
            "arch": self.arch,
            "channels": self.channels,
            "density": masks.density(self.mask),
            "metrics": self.record.metrics if self.at is None else {},
        }
        if self.at is not None:
            config["at"] = self.at
        if isinstance(self.step, Train):
            config |= {"task": self.step.task, "data": self.step.data, "head": self.head}
        if self.images is not None:
            config["images"] = {name: value for name, value in asdict(self.images).items() if name != "channels"}
        if self.shrunk is not None:
            config["shrunk"] = self.shrunk.facts
        return config | {"sha256": dict(sha256)}


def read(store: Store, step_id: str, data_root: str, trust: bool = False, at: str = "") -> Release:
    """Read a finished step from the store, and verify it. trust: import any code outside this package that it names.

    at: which weights from before the training to take instead of its final ones: ``0``, those with which the dense
    training began that it goes back to; ``rewind``, those to which it was rewound. The mask is applied to both.
    Raises UserError if it can't be exported, Damaged for a damaged file, ValueError for an unknown name.
    """
    if store.record(step_id) is None:
        raise UserError(f"step {step_id} is not finished; run its sweep again to finish it")
    step = store.step(step_id)
    if isinstance(step, ImportedWeights):
        raise UserError(f"step {step_id} is imported weights; export a training that starts from them, or a mask")
    assert isinstance(step, Train | Prune | RandomPrune | Shuffle | Imported)
    behind = closure([step])
    if not trust and (foreign := _foreign(behind, tasks=bool(at))):
        raise UserError(
            f"step {step_id} names {foreign!r}, which is code from outside this package; if you trust whoever wrote "
            "this root, add --trust to import it"
        )
    records = {one.id: record for one in behind if (record := store.record(one.id)) is not None}
    if isinstance(step, Train):
        _check_has_weights(step, records[step_id], store, at)
    elif at:
        raise UserError(f"step {step_id} is a mask, and --at needs a network", code=USAGE)
    origin = step if isinstance(step, Train) else step.origin
    source = origin.of if isinstance(origin, Prune) else origin
    images = None if isinstance(source, External) else Images.of(source.data, data_root)
    channels = source.channels if isinstance(source, External) else cast(Images, images).channels
    shapes = {name: weight.shape for name, weight in models.prunable(models.trunk(step.arch, channels)).items()}
    weights: dict[str, Tensor] = {}
    if isinstance(step, Train):
        weights = _before(step, at, store, data_root) if at else _tensors(store, step_id, WEIGHTS)
        if any(f"trunk.{name}" not in weights or weights[f"trunk.{name}"].shape != shapes[name] for name in shapes):
            raise UserError(f"the weights of step {step_id} do not fit {step.arch} as it is defined here")
    mask = step.mask if isinstance(step, Train) else step
    release = Release(
        step=step,
        behind=behind,
        records=records,
        arch=step.arch,
        channels=channels,
        images=images,
        mask=masks.full(shapes) if mask is None else masks.unpack(_tensors(store, mask.id, MASK), shapes),
    )
    if isinstance(step, Train) and at:
        release = replace(release, at=step.rewind if at == REWIND else 0)
        for name, stays in release.mask.items():
            weights[f"trunk.{name}"] *= stays
        if step.prunes_filters and images is not None:
            found = channels_of(step.arch, (channels, images.size, images.size))
            for name, stays in affine_mask(found, release.mask).items():
                weights[f"trunk.{name}"] *= stays
    return _with_weights(release, weights) if weights else release


REWIND = "rewind"
"""Value of ``at`` for the weights to which a training was rewound."""


def _before(step: Train, at: str, store: Store, data_root: str) -> dict[str, Tensor]:
    """Return weights from before a training, unmasked, with the head with which it began. Raises UserError, Damaged."""
    if at == REWIND:
        if not isinstance(step.start, Rewind):
            drawn = "drawn" if isinstance(step.start, Init) else "the final ones of another training"
            raise UserError(f"step {step.id} was not rewound: its first weights are {drawn}; --at 0 exports these")
        return _starting_state(step, _tensors(store, step.start.of.id, snapshot_name(step.start.samples)), data_root)
    first = step
    while isinstance(first.start, Rewind):
        first = first.start.of
    brought = _tensors(store, first.start.of.id, WEIGHTS) if isinstance(first.start, Final) else None
    state = _starting_state(first, brought, data_root)
    return state if first is step else _starting_state(step, state, data_root)


def _starting_state(step: Train, start: dict[str, Tensor] | None, data_root: str) -> dict[str, Tensor]:
    assert isinstance(step.recipe, Recipe)
    task = tasks.find(step.task, step.recipe.options)
    return starting_network(step, task, data.load(step.data, data_root), start).state_dict()


def _foreign(steps: Sequence[Step], tasks: bool) -> str:
    """Return the name of a network or data set of the steps that is not in this package; '' if there is none.

    tasks: look at the names of tasks too.
    """
    for step in steps:
        task = getattr(step, "task", "") if tasks else ""
        if task and task not in catalogue.TASKS:
            return task
        arch, images = getattr(step, "arch", ""), getattr(step, "data", "")
        if arch and arch not in catalogue.ARCHITECTURES:
            return arch
        if images and catalogue.data_parts(images)[0] not in catalogue.DATASETS:
            return images
    return ""


def _check_has_weights(step: Train, record: Record, store: Store, at: str) -> None:
    """Raise UserError if the training left no network, or its final weights are to be exported and were not kept."""
    if isinstance(step.recipe, SVM):
        trained = getattr(step.start, "of", None)
        instead = f"; export step {trained.id}, whose features they classify" if trained else ""
        raise UserError(f"step {step.id} trains linear SVMs, which leave no network{instead}")
    if WEIGHTS not in record.files and not at:
        raise UserError(
            f"the weights of step {step.id} were not kept (--keep needed): to have them, delete "
            f"{store.path(f'steps/{step.id}')} and run its sweep again with --keep all"
        )


def _with_weights(release: Release, weights: dict[str, Tensor]) -> Release:
    """Add a training's weights, by the store's names. Raises UserError if they do not fit the mask."""
    for name, stays in release.mask.items():
        weight = weights[f"trunk.{name}"]
        if weight[~stays].any():
            raise UserError(f"weights of {name} in step {release.step.id} are not 0 though its mask prunes them")
        weight[~stays] = 0.0  # some are -0
    head = subnetwork.describe_head(weights)
    if head is None:
        weights = {name: tensor for name, tensor in weights.items() if name.startswith("trunk.")}
    return replace(release, state=subnetwork.released_names(weights, release.arch), head=head)


def _tensors(store: Store, step_id: str, name: str) -> dict[str, Tensor]:
    """Read an artefact's tensors. Raises Damaged, also for a file of another format with a matching checksum."""
    try:
        return from_safetensors(store.artefact(step_id, name))
    except SafetensorError as error:
        raise Damaged(step_id, f"{name} is not a safetensors file: {error}") from None


# ------------------------------------------------------------------------------------- files


@dataclass(frozen=True, kw_only=True)
class Size:
    """Bytes of a file, plain and compressed by gzip."""

    plain: int
    gzipped: int


def contents(release: Release, with_onnx: bool = False) -> tuple[dict[str, bytes], dict[str, Size]]:
    """Return the files of a release by name, except the card, and the sizes of those with weights or the mask."""
    made = {subnetwork.MASK: subnetwork.packed(release.mask)}
    if release.state is not None:
        made[subnetwork.MODEL] = to_safetensors(release.state, {"format": "pt"})
        if masks.density(release.mask) < 1:
            made[subnetwork.SPARSE] = subnetwork.to_sparse(release.state, release.mask)
    if release.shrunk is not None:
        state = {name: tensor.contiguous() for name, tensor in release.shrunk.state.items()}
        made[subnetwork.SHRUNK] = to_safetensors(subnetwork.released_names(state, release.arch), {"format": "pt"})
    sizes = {name: Size(plain=len(content), gzipped=gzipped(content)) for name, content in made.items()}
    if with_onnx:
        made[ONNX] = onnx(release)
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}
    config = json.dumps(release.config(sha256), indent=1) + "\n"
    return made | {subnetwork.CONFIG: config.encode()}, sizes


def with_shrunk(release: Release) -> Release:
    """Add the network without its pruned filters. Raises UserError if its mask is not of whole filters."""
    step = release.step
    if not (isinstance(step, Train) and step.prunes_filters):
        raise UserError(f"step {step.id} is no network with a mask of whole filters, so --shrink has nothing to remove")
    assert release.images is not None
    mask = {f"trunk.{name}": m for name, m in release.mask.items()}
    image = release.channels, release.images.size, release.images.size
    return replace(release, shrunk=measured(network(release), mask, image))


def network(release: Release) -> models.Network:
    """Build the network of a release, with its weights."""
    assert release.state is not None
    with torch.device("meta"):
        net = models.Network(models.trunk(release.arch, release.channels), subnetwork.make_head(release.head))
    net.load_state_dict(subnetwork.own_names(release.state, release.arch), assign=True)
    return net


def gzipped(content: bytes) -> int:
    """Return the size in bytes after compression by gzip at its default level."""
    return len(gzip.compress(content, 6, mtime=0))


def onnx(release: Release) -> bytes:
    """Convert the network to ONNX: normalised ``images`` (batch, channels, size, size) to ``outputs`` (batch, ...).

    Batches may have any size. Needs the packages onnx and onnxscript.
    """
    assert release.images is not None
    net = network(release)
    size = release.images.size
    program = torch.onnx.export(
        net.eval(),
        (torch.zeros(2, release.channels, size, size),),  # with one image, torch would fix the batch size
        dynamo=True,
        input_names=["images"],
        output_names=["outputs"],
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    assert program is not None
    return program.model_proto.SerializeToString()
