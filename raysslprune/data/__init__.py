"""Data sets: their locations, their readers, and their form in the training loop.

Small data sets are resident on the device as uint8. Of large ones only the paths are in memory; threads decode images
before they are needed. To add a data set, write a ``Source`` in a file here and a line in ``catalogue.DATASETS``.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch

from raysslprune import catalogue
from raysslprune.data import subsets
from raysslprune.data.dataset import IGNORED, DataError, Dataset, Labelled, Resident, Source, Split, resident
from raysslprune.data.files import Files, check_command

__all__ = ["IGNORED", "DataError", "Dataset", "Resident", "Source", "Split"]
__all__ += ["channels", "count", "load", "resident", "source"]


def source(name: str) -> Source:
    """The source of a step's data. Raises ValueError for an unknown name, or a name of something else than a source."""
    kind, argument, _ = catalogue.data_parts(name)
    make = catalogue.resolve("data set", catalogue.DATASETS, kind)
    try:
        made: Source = make(argument)
        _ = made.locate, made.load
    except (TypeError, AttributeError) as error:
        raise ValueError(f"data set {kind!r} is not a data.Source: {error}") from error
    return made


@cache
@torch.inference_mode(False)  # the cached tensors may be used in training later
def load(name: str, root: str | os.PathLike[str] | None = None) -> Dataset:
    """A step's data set or subset, read once per process. root: as in catalogue.data_root.

    Raises ValueError as :func:`source` does, and DataError if files are missing or broken.
    """
    whole, _, subset = name.rpartition(":") if catalogue.data_parts(name)[2] else (name, "", "")
    if subset:
        return subsets.of(load(whole, root), subset)
    place = Path(catalogue.data_root(root)).absolute()
    found = source(name).load(place)
    check = check_command(name, place)
    splits = [replace(s, check=check) if isinstance(s, Files) else s for s in (found.train, found.test)]
    return replace(found, train=splits[0], test=splits[1])


def channels(name: str, root: str | os.PathLike[str] | None = None) -> int:
    """Number of channels of a step's images. Reads no images that stay on disk, because these are RGB.

    Raises as :func:`load` does.
    """
    if catalogue.data_parts(name)[0] in catalogue.ON_DISK:
        return 3
    return load(name, root).channels


def count(name: str, root: str | os.PathLike[str] | None = None) -> int:
    """Number of training images of a step's data set or subset. Reads no images if the source has ``labels``.

    Raises as :func:`load` does.
    """
    place, made = Path(catalogue.data_root(root)).absolute(), source(name)
    labels = made.labels(place) if isinstance(made, Labelled) else made.load(place).train.labels
    for subset in filter(None, catalogue.data_parts(name)[2].split(":")):
        _, labels = subsets.among(labels, subset)
    return len(labels)
