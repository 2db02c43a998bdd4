"""Data sets: where they lie, how they are read, and what the training loop sees of them.

Small ones are resident on the device as uint8; of large ones only the paths are held, and images are decoded ahead
by threads. A new data set is a ``Source`` in a file here and a line in ``catalogue.DATASETS``.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import replace
from functools import cache
from pathlib import Path

from raysslprune import catalogue
from raysslprune.data import subsets
from raysslprune.data.dataset import IGNORED, DataError, Dataset, Resident, Source, Split, no_argument, resident
from raysslprune.data.files import Files

__all__ = [
    "IGNORED",
    "DataError",
    "Dataset",
    "Resident",
    "Source",
    "Split",
    "load",
    "no_argument",
    "resident",
    "source",
]


def source(name: str) -> Source:
    """The source of a step's data. Raises ValueError for a name that is not known, or stands for something else."""
    kind, argument, _ = catalogue.data_parts(name)
    make = catalogue.resolve("data set", catalogue.DATASETS, kind)
    try:
        made: Source = make(argument)
        _ = made.locate, made.load
    except (TypeError, AttributeError) as error:
        raise ValueError(f"data set {kind!r} is no data.Source: {error}") from error
    return made


@cache
def load(name: str, root: str | os.PathLike[str] | None = None) -> Dataset:
    """A step's data set or subset, read once a process. root: as catalogue.data_root. Raises ValueError, DataError."""
    whole, _, subset = name.rpartition(":") if catalogue.data_parts(name)[2] else (name, "", "")
    if subset:
        return subsets.of(load(whole, root), subset)
    place = Path(catalogue.data_root(root)).absolute()
    found = source(name).load(place)
    check = ["raysslprune", "check", name, "--data", str(place), "--skip-broken"]
    splits = [replace(s, check=shlex.join(check)) if isinstance(s, Files) else s for s in (found.train, found.test)]
    return replace(found, train=splits[0], test=splits[1])
