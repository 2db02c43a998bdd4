"""What an export holds: a network or a mask of the store, and the files for it.

``subnetwork.py`` reads these files, and says which they are; ``card.py`` writes the README among them.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from raysslprune import catalogue, data, masks, models
from raysslprune.data import files
from raysslprune.data.folder import Folder
from raysslprune.data.voc07 import VOC07
from raysslprune.masks import Mask
from raysslprune.release import subnetwork
from raysslprune.spec import SVM, Imported, Prune, RandomPrune, Shuffle, Step, Train, closure
from raysslprune.store.record import MASK, WEIGHTS, Damaged, Record
from raysslprune.store.steps import Store

ONNX, CARD = "model.onnx", "README.md"


class ExportError(Exception):
    """A step can't be released. The message is a sentence for the user."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """What networks see: square images of ``size`` pixels, uint8 from 0 to ``white``, normalised by ``mean`` and
    ``std``, on that scale, for each channel."""

    channels: int
    size: int
    white: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @staticmethod
    def of(name: str, root: str) -> Images:
        """Of a step's data. Images on disk are all alike, so the data set need not be there; of others it is read.

        Raises ValueError, data.DataError.
        """
        if isinstance(data.source(name), Folder | VOC07):
            return Images(channels=3, size=files.Files.size, white=255.0, mean=files.MEAN, std=files.STD)
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
    """What is released of a finished step.

    behind: the step and all that it was made from, each after its parents. records: of these, by id. mask: of all
    prunable weights. state: the weights by released names, pruned ones 0; None of a mask. head: as
    subnetwork.describe_head has it. images: None of a mask from elsewhere, which does not know any.
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

    @property
    def record(self) -> Record:
        return self.records[self.step.id]

    def config(self, sha256: Mapping[str, str]) -> dict[str, Any]:
        """``config.json``, with the checksums of the files beside it."""
        images = self.images
        config: dict[str, Any] = {
            "raysslprune": subnetwork.FORMAT,
            "kind": "mask" if self.state is None else "network",
            "step": self.step.id,
            "arch": self.arch,
            "channels": self.channels,
            "density": masks.density(self.mask),
            "metrics": self.record.metrics,
        }
        if isinstance(self.step, Train):
            config |= {"task": self.step.task, "data": self.step.data, "head": self.head}
        if images is not None:
            scale = {"white": images.white, "mean": list(images.mean), "std": list(images.std)}
            config["images"] = {"size": images.size, **scale}
        return config | {"sha256": dict(sha256)}


def read(store: Store, step_id: str, data_root: str, trust: bool = False) -> Release:
    """A finished step from the store, whole. trust: import what it names from outside this package.

    Raises ExportError, Damaged, data.DataError, ValueError.
    """
    if store.record(step_id) is None:
        raise ExportError(f"step {step_id} is not finished; run its sweep again to finish it")
    step = store.step(step_id)
    behind = closure([step])
    if not trust and (strange := _strange(behind)):
        raise ExportError(
            f"step {step_id} names {strange!r}, which is code from outside this package, and a root may have been "
            "written by anybody: --trust imports it"
        )
    records = {one.id: record for one in behind if (record := store.record(one.id)) is not None}
    if not isinstance(step, Train):
        return _mask(store, step, behind, records, data_root)
    if isinstance(step.recipe, SVM):
        judged = getattr(step.start, "of", None)
        instead = f": export the one whose features they judge, {judged.id}" if judged else ""
        raise ExportError(f"step {step_id} is linear SVMs, and leaves no network{instead}")
    if WEIGHTS not in records[step_id].files:
        raise ExportError(
            f"the weights of step {step_id} were not kept (--keep needed): to have them, delete "
            f"{store.path(f'steps/{step_id}')} and run its sweep again with --keep all"
        )
    images = Images.of(step.data, data_root)
    weights = _tensors(store, step_id, WEIGHTS)
    trunk = models.prunable(models.trunk(step.arch, images.channels))
    shapes = {name: weight.shape for name, weight in trunk.items()}
    if {name: weights[f"trunk.{name}"].shape for name in shapes if f"trunk.{name}" in weights} != shapes:
        raise ExportError(f"the weights of step {step_id} are not of {step.arch} as it is here")
    mask = masks.full(shapes)
    if step.mask is not None:
        mask = masks.unpack(_tensors(store, step.mask.id, MASK), shapes)
    for name, stays in mask.items():
        weight = weights[f"trunk.{name}"]
        if weight[~stays].any():
            raise ExportError(f"weights of {name} in step {step_id} are not 0 though its mask prunes them")
        weight[~stays] = 0.0  # some are -0
    head = subnetwork.describe_head(weights)
    if head is None:
        weights = {name: tensor for name, tensor in weights.items() if name.startswith("trunk.")}
    return Release(
        step=step,
        behind=behind,
        records=records,
        arch=step.arch,
        channels=images.channels,
        images=images,
        mask=mask,
        state=subnetwork.released_names(weights, step.arch),
        head=head,
    )


def _tensors(store: Store, step_id: str, name: str) -> dict[str, Tensor]:
    """Raises Damaged, also where somebody put another file there and made its checksum fit."""
    try:
        return from_safetensors(store.artefact(step_id, name))
    except SafetensorError as error:
        raise Damaged(step_id, f"{name} is no safetensors file: {error}") from None


def _strange(steps: Sequence[Step]) -> str:
    """A network or data set of theirs that is not of this package; '' where all are."""
    for step in steps:
        arch, images = getattr(step, "arch", ""), getattr(step, "data", "")
        if arch and arch not in catalogue.ARCHITECTURES:
            return arch
        if images and catalogue.data_parts(images)[0] not in catalogue.DATASETS:
            return images
    return ""


def _mask(store: Store, step: Step, behind: list[Step], records: Mapping[str, Record], data_root: str) -> Release:
    """A step that is a mask."""
    origin = step
    while isinstance(origin, Shuffle):
        origin = origin.of
    if isinstance(origin, Imported):
        arch, channels, images = origin.arch, origin.channels, None
    else:
        assert isinstance(origin, Prune | RandomPrune)
        net = origin if isinstance(origin, RandomPrune) else origin.of
        images = Images.of(net.data, data_root)
        arch, channels = net.arch, images.channels
    shapes = {name: weight.shape for name, weight in models.prunable(models.trunk(arch, channels)).items()}
    mask = masks.unpack(_tensors(store, step.id, MASK), shapes)
    return Release(step=step, behind=behind, records=records, arch=arch, channels=channels, images=images, mask=mask)


# ------------------------------------------------------------------------------------- files


@dataclass(frozen=True, kw_only=True)
class Size:
    """Bytes of a file, and of the same behind gzip."""

    plain: int
    gzipped: int


def contents(release: Release, with_onnx: bool = False) -> tuple[dict[str, bytes], dict[str, Size]]:
    """The files of a release by name, all but the card, and how large those are that hold weights or the mask."""
    made = {subnetwork.MASK: subnetwork.packed(release.mask)}
    if release.state is not None:
        made[subnetwork.MODEL] = to_safetensors(release.state, {"format": "pt"})
        if masks.density(release.mask) < 1:
            made[subnetwork.SPARSE] = subnetwork.to_sparse(release.state, release.mask)
    sizes = {name: Size(plain=len(content), gzipped=gzipped(content)) for name, content in made.items()}
    if with_onnx:
        made[ONNX] = onnx(release)
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in made.items()}
    config = json.dumps(release.config(sha256), indent=1) + "\n"
    return made | {subnetwork.CONFIG: config.encode()}, sizes


def gzipped(content: bytes) -> int:
    """Bytes behind gzip at its usual level."""
    return len(gzip.compress(content, 6, mtime=0))


def network(release: Release) -> models.Network:
    """The network in evaluation mode."""
    assert release.state is not None
    with torch.device("meta"):
        net = models.Network(models.trunk(release.arch, release.channels), subnetwork.make_head(release.head))
    net.load_state_dict(subnetwork.own_names(release.state, release.arch), assign=True)
    return net.eval()


def onnx(release: Release) -> bytes:
    """The network as ONNX, from ``images`` (batch, channels, size, size), normalised, to ``outputs`` (batch, ...).

    Any batch will do. Needs onnx and onnxscript.
    """
    assert release.images is not None
    size = release.images.size
    example = torch.zeros(2, release.channels, size, size)  # of one image, torch would take the batch for a constant
    program = torch.onnx.export(
        network(release),
        (example,),
        dynamo=True,
        input_names=["images"],
        output_names=["outputs"],
        dynamic_shapes=({0: "batch"},),
        verbose=False,
    )
    assert program is not None
    return program.model_proto.SerializeToString()


def outputs(release: Release) -> str:
    """What a network gives for each image, in words."""
    assert isinstance(release.step, Train)
    if release.head is None:
        return "features: the head of its task is more than a last layer, and is left out"
    return (
        f"{release.head['outputs']} numbers: {OUTPUTS.get(release.step.task, f'what task {release.step.task} wants')}"
    )


OUTPUTS = {
    "labels": "a score (logit) for each class, in the order of the data set's classes",
    "rotnet": "a score (logit) for each of four quarter turns",
    "s4l": "a score (logit) for each class, then one for each of four quarter turns",
    "exemplar": "an embedding, to be compared by its cosine",
    "npid": "an embedding, to be compared by its cosine",
}
