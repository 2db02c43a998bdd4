"""What the names in a step stand for: tasks, architectures and data sets, and the code behind each.

A new one is a file and a line here. From outside the package it is a file only: a name of the form
``module:attribute`` means that attribute of a module that every worker can import.

Standard library only, so that a wrong name is found before anything heavy is imported.
"""

from __future__ import annotations

import difflib
import importlib
import os
import re
from collections.abc import Mapping
from typing import Any

from raysslprune import moved

TASKS = {
    "labels": "raysslprune.tasks.labels:Labels",
    "rotnet": "raysslprune.tasks.rotnet:RotNet",
    "exemplar": "raysslprune.tasks.exemplar:Exemplar",
    "npid": "raysslprune.tasks.npid:NPID",
    "s4l": "raysslprune.tasks.s4l:S4L",
}
"""To a subclass of tasks.task.Task, a dataclass whose fields are the options that a recipe may set."""

ARCHITECTURES = {
    "conv4": "raysslprune.models.conv4:Conv4",
    "conv5": "raysslprune.models.small:Conv5",
    "resnet8": "raysslprune.models.small:ResNet8",
    "alexnet8": "raysslprune.models.small:AlexNet8",
    "resnet18-cifar": "raysslprune.models.resnet:resnet18_cifar",
    "resnet34-cifar": "raysslprune.models.resnet:resnet34_cifar",
    "resnet50-cifar": "raysslprune.models.resnet:resnet50_cifar",
    "resnet18": "raysslprune.models.resnet:resnet18",
    "resnet34": "raysslprune.models.resnet:resnet34",
    "resnet50": "raysslprune.models.resnet:resnet50",
    "vgg11": "raysslprune.models.vgg:vgg11",
    "vgg13": "raysslprune.models.vgg:vgg13",
    "vgg16": "raysslprune.models.vgg:vgg16",
    "vgg19": "raysslprune.models.vgg:vgg19",
    "alexnet": "raysslprune.models.alexnet:alexnet",
    "alexnet-bn": "raysslprune.models.alexnet:alexnet_bn",
}
"""To a function from the number of image channels to a trunk with an attribute ``width``, the number of features."""

DATASETS = {
    "digits": "raysslprune.data.digits:Digits",
    "cifar10": "raysslprune.data.cifar:CIFAR10",
    "cifar100": "raysslprune.data.cifar:CIFAR100",
    "imagenet": "raysslprune.data.folder:ImageNet",
    "places205": "raysslprune.data.folder:Places205",
    "voc07": "raysslprune.data.voc07:VOC07",
    "folder": "raysslprune.data.folder:Folder",
    "parquet": "raysslprune.data.parquet:Parquet",
}
"""To a subclass of data.Source. Written ``folder/NAME`` and ``parquet/NAME``, the name is handed to the source."""

EMBEDDED = {"digits"}
"""Data sets that come with the package's dependencies, so that nobody has to look for them."""

SUBSET = re.compile(r"([1-9][0-9]?)%-of-(images|classes)")
"""Of a data set's training images, written ``imagenet:10%-of-images``: see data.subsets."""


def check(kind: str, table: Mapping[str, str], name: str) -> None:
    """Raise ValueError for a name that is neither in the table nor of the form ``module:attribute``."""
    if name in table or re.fullmatch(r"[\w.]+:\w+", name):
        return
    near = difflib.get_close_matches(name, table, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise ValueError(f"{kind} {name!r} is not known; {hint}Known: {', '.join(table)}; or module:attribute")


def resolve(kind: str, table: Mapping[str, str], name: str) -> Any:
    """What the name stands for. Raises ValueError where it stands for nothing."""
    check(kind, table, name)
    module, _, attribute = table.get(name, name).partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        if name in table:
            raise
        gone = isinstance(error, ModuleNotFoundError) and f"{module}.".startswith(f"{error.name}.")
        if advice := moved.advice(error):
            raise ValueError(f"{kind} {name!r}: {advice}") from error
        hint = "; its module must lie in the folder in which the command is started, or on PYTHONPATH" if gone else ""
        raise ValueError(f"{kind} {name!r} can't be imported here: {error}{hint}") from error


def check_subset(text: str) -> None:
    """Raise ValueError for what is not of the form of SUBSET."""
    if not SUBSET.fullmatch(text):
        raise ValueError(f"subset {text!r} is not of the form '10%-of-images' or '10%-of-classes'")


def data_root(given: str | os.PathLike[str] | None = None) -> str:
    """The folder of all data sets: the given one, else ``$RAYSSLPRUNE_DATA``, else ``data``.

    A leading ``~`` is the home folder; no shell expands it in ``--data=~/sets``, nor in a quoted variable.
    """
    return os.path.expanduser(given or os.environ.get("RAYSSLPRUNE_DATA") or "data")


def data_parts(data: str) -> tuple[str, str, str]:
    """A step's data as (source, what is handed to it, subset); the last two may be empty.

    ``folder/pets:10%-of-images`` is ("folder", "pets", "10%-of-images"). A subset may be one of another: then it is
    both, ``10%-of-images:20%-of-classes``, the part that is taken first first. Raises ValueError for another subset.
    """
    whole, subsets = data, []
    while ":" in whole and "%" in (subset := whole.rpartition(":")[2]):
        check_subset(subset)
        whole = whole.rpartition(":")[0]
        subsets.insert(0, subset)
    source, _, argument = whole.partition("/")
    return source, argument, ":".join(subsets)
