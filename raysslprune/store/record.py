"""The record of a finished step: its metrics, its files and their checksums."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from raysslprune import __version__
from raysslprune.messages import UserError

WEIGHTS = "weights.safetensors"
MASK = "mask.safetensors"

TIED = "tied"
"""Fact of a pruned mask: number of weights of equal score (by default, magnitude) among which a draw decided.

Older masks lack this fact: of weights of equal magnitude, the last in the order of the network stayed.
"""

EMPTIED = "emptied"
"""Fact of a pruned mask: names of the layers' weights of which this pruning left none; absent if there are none."""


LAYERS, MULTIPLY_ADDS = "layers", "multiply_adds"
"""Facts of a mask, or of the network that was trained under it: density of each layer by the name of its weight; and
multiply-adds for one image in all convolutions and linear layers, without those of pruned weights.

Only trainings have the second. Steps of versions before 0.2 have neither.
"""


CHANCE = "chance"
"""Fact of a training: what guessing gives on its test images, in percent, by metric. Older trainings lack it."""

CURVE = "curve"
"""Fact of a training, if asked for: pairs of samples seen and the task's metrics then, from the start to the end."""


def snapshot_name(samples: int) -> str:
    """Name of the artefact with a training's state after ``samples`` samples."""
    return f"snapshot-{samples}.safetensors"


def snapshots_in(names: Iterable[str]) -> set[int]:
    """Return the samples of the snapshots among a step's artefacts: the inverse of :func:`snapshot_name`."""
    return {int(n[len("snapshot-") : -len(".safetensors")]) for n in names if n.startswith("snapshot-")}


def versions() -> dict[str, str]:
    """Versions of the software that the numbers depend on."""
    return {
        "raysslprune": __version__,
        **{name: _version(name) for name in ("torch", "numpy")},
        "python": platform.python_version(),
    }


_version = cache(version)  # it parses a package's whole metadata, and every step needs it


class StoreError(UserError):
    """The root can't be used."""


class Damaged(Exception):
    """A file of a finished step does not match its checksum, or is missing."""

    def __init__(self, step_id: str, why: str) -> None:
        super().__init__(step_id, why)
        self.step_id, self.why = step_id, why

    def __str__(self) -> str:
        return f"step {self.step_id}: {self.why}"


@dataclass(frozen=True, kw_only=True)
class File:
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """The content of SUCCESS.

    metrics: the results, which depend on the step alone. facts: details of the run (seconds, versions, host).
    """

    step: str
    metrics: dict[str, float]
    facts: dict[str, Any]
    files: dict[str, File]

    def to_bytes(self) -> bytes:
        body = asdict(self)
        return json.dumps({**body, "sha256": _checksum_of(body)}, indent=1).encode()

    @staticmethod
    def from_bytes(data: bytes, step_id: str) -> Record:
        """Read the record of a step. Raises Damaged if the bytes are not a complete record of it."""
        try:
            body = json.loads(data)
            checksum = body.pop("sha256")
            if checksum != _checksum_of(body) or body["step"] != step_id:
                raise ValueError
            files = {name: File(**file) for name, file in body.pop("files").items()}
            return Record(**body, files=files)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise Damaged(step_id, "its SUCCESS is incomplete or damaged") from None


def _checksum_of(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
