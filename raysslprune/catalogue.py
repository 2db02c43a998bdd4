"""What the names in a step stand for: tasks, architectures and data sets, and the code behind each.

A new one is a file and a line here. From outside the package it is a file only: a name of the form
``module:attribute`` means that attribute of a module that every worker can import.

Standard library only, so that a wrong name is found before anything heavy is imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from raysslprune import moved
from raysslprune.spec import SVM, Option, Train

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


@dataclass(kw_only=True)
class Labels:
    """standardise: a BatchNorm without weights before the last layer, as the linear classifiers of Goyal et al. 2019
    have it (https://arxiv.org/abs/1905.01235).
    """

    standardise: bool = False


@dataclass(kw_only=True)
class RotNet:
    """all_turns: each view in all four turns, as in the authors' code; else in one, drawn at random."""

    all_turns: bool = False


NEGATIVES = ("random", "semi-hard")


@dataclass(kw_only=True)
class Exemplar:
    """dimension: of the embedding. margin: of the hinge.

    negatives: the other image of each triplet, among the samples whose BatchNorm statistics are taken together:
        ``random``, or ``semi-hard``: the nearest one that is farther than the positive, else the farthest.
    """

    dimension: int = 128
    margin: float = 0.5
    negatives: str = "random"

    def __post_init__(self) -> None:
        if self.negatives not in NEGATIVES:
            raise ValueError(f"negatives {self.negatives!r} is not one of {', '.join(NEGATIVES)}")
        if self.dimension < 1 or self.margin <= 0:
            raise ValueError("Exemplar needs a dimension of at least 1 and a margin above 0")


@dataclass(kw_only=True)
class NPID:
    """dimension: of the embedding. temperature: that similarities are divided by. momentum: of the memory. negatives:
    remembered embeddings that an image is told from.
    """

    dimension: int = 128
    temperature: float = 0.07
    momentum: float = 0.5
    negatives: int = 4096

    def __post_init__(self) -> None:
        if self.dimension < 1 or self.negatives < 1 or self.temperature <= 0 or not 0 <= self.momentum < 1:
            raise ValueError("NPID needs dimension and negatives above 0, temperature above 0, momentum from 0 to 1")


@dataclass(kw_only=True)
class S4L:
    """labelled: the part of the images whose labels may be used, as in SUBSET. weight: of the rotation loss.

    labels_turned: cross-entropy on all four turns of the labelled image, as in the authors' code; else on the upright
        one, for images whose class depends on where up is.
    """

    labelled: str = "10%-of-images"
    weight: float = 1.0
    labels_turned: bool = True

    def __post_init__(self) -> None:
        check_subset(self.labelled)
        if self.weight <= 0:
            raise ValueError("S4L needs a weight above 0")


OPTIONS: Mapping[str, type] = {"labels": Labels, "rotnet": RotNet, "exemplar": Exemplar, "npid": NPID, "s4l": S4L}
"""By task, as in TASKS, whose classes inherit these."""

SEVERAL = {"voc07"}
"""Data sets of the package whose images have several labels."""

ONE_LABEL: Mapping[str, tuple[str, ...]] = {
    "labels": ("top1",),
    "rotnet": ("rotation_top1",),
    "exemplar": ("triplet_accuracy",),
    "npid": ("knn_top1",),
    "s4l": ("top1", "rotation_top1"),
}
"""What a task measures on images with one label each."""

SEVERAL_LABELS = {**ONE_LABEL, "labels": ("map",), "npid": ()}
"""The same on images with several."""

NATURAL = ("natural_sparsity", *(f"natural_sparsity_1e-{digits}" for digits in (30, 20, 12, 9, 6)))


def metrics(step: Train) -> tuple[str, ...]:
    """What a training measures, and may measure where its data set is a user's own; empty for a task of a user's own.

    Linear SVMs measure the same whatever the task.
    """
    source = data_parts(step.data)[0]
    one, several = source not in SEVERAL, source in SEVERAL or source not in DATASETS
    if isinstance(step.recipe, SVM):
        return (*("top1",) * one, "map", "unconverged_fits", "density", "collapsed_layers")
    if step.task not in OPTIONS:
        return ()
    own = (*ONE_LABEL[step.task] * one, *SEVERAL_LABELS[step.task] * several)
    return (*dict.fromkeys(own), "density", "collapsed_layers", "train_loss", *NATURAL)


def made(task: str, kind: type[Any], given: Iterable[tuple[str, Option]]) -> Any:
    """A dataclass with these of its fields, by name. Raises ValueError for a field or a value that it can't have."""
    known = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for option, value in given:
        if option not in known:
            raise ValueError(f"task {task} has no option {option!r}, only {', '.join(known) or 'none at all'}")
        wanted = type(known[option].default)
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise ValueError(f"option {option} of task {task} is of type {wanted.__name__}, not {value!r}")
    return kind(**dict(given))


def main_metric(metrics: Mapping[str, float]) -> str | None:
    """What a training is judged by: top1, else the first of its task's own, which stand first. None: it has none."""
    own = [metric for metric in metrics if not metric.startswith("density")]
    return "top1" if "top1" in own else own[0] if own else None


def shown_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """What people are told of them: the main one first, and no other that is 0, as natural sparsities mostly are."""
    main = main_metric(metrics)
    first = {} if main is None else {main: metrics[main]}
    return first | {name: value for name, value in sorted(metrics.items()) if value and name != main}
