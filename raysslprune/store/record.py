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

WEIGHTS = "weights.safetensors"
MASK = "mask.safetensors"


def snapshot_name(samples: int) -> str:
    """The artefact that holds a training's state after ``samples`` samples."""
    return f"snapshot-{samples}.safetensors"


def snapshots_in(names: Iterable[str]) -> set[int]:
    """The inverse of :func:`snapshot_name`, over the artefacts of a step."""
    return {int(n[len("snapshot-") : -len(".safetensors")]) for n in names if n.startswith("snapshot-")}


def versions() -> dict[str, str]:
    """Of what the numbers depend on."""
    return {
        "raysslprune": __version__,
        **{name: _version(name) for name in ("torch", "numpy")},
        "python": platform.python_version(),
    }


_version = cache(version)  # it parses a package's whole metadata, and every step asks


class StoreError(Exception):
    """The root can't be used. The message is a sentence for the user."""


class Damaged(Exception):
    """A file of a finished step does not match its checksum, or is gone."""

    def __init__(self, step_id: str, why: str) -> None:
        super().__init__(step_id, why)
        self.step_id, self.why = step_id, why


@dataclass(frozen=True, kw_only=True)
class File:
    size: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """What SUCCESS holds.

    metrics: the results; they depend on the step alone. facts: of the run that made it (seconds, versions, host).
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
        """Raises Damaged unless these bytes are a whole record of that step."""
        try:
            body = json.loads(data)
            checksum = body.pop("sha256")
            if checksum != _checksum_of(body) or body["step"] != step_id:
                raise ValueError
            files = {name: File(**file) for name, file in body.pop("files").items()}
            return Record(**body, files=files)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise Damaged(step_id, "its SUCCESS is not whole") from None


def _checksum_of(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
