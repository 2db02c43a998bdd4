"""The options of the package's tasks, which values they may have, and what is measured; a recipe sets the options.

Standard library only, so that a wrong one in a sweep file is found before anything heavy is imported. A task from
outside the package has its options in its own class, which is looked at only when it is trained on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from raysslprune import names
from raysslprune.spec import SVM, Option, Train


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
    """labelled: the part of the images whose labels may be used, as in names.SUBSET. weight: of the rotation loss.

    labels_turned: cross-entropy on all four turns of the labelled image, as in the authors' code; else on the upright
        one, for images whose class depends on where up is.
    """

    labelled: str = "10%-of-images"
    weight: float = 1.0
    labels_turned: bool = True

    def __post_init__(self) -> None:
        names.check_subset(self.labelled)
        if self.weight <= 0:
            raise ValueError("S4L needs a weight above 0")


OPTIONS: Mapping[str, type] = {"labels": Labels, "rotnet": RotNet, "exemplar": Exemplar, "npid": NPID, "s4l": S4L}
"""By task, as in names.TASKS, whose classes inherit these."""

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
    source = names.data_parts(step.data)[0]
    one, several = source not in SEVERAL, source in SEVERAL or source not in names.DATASETS
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


def told(metrics: Mapping[str, float]) -> dict[str, float]:
    """What people are told of them: the main one first, and no other that is 0, as natural sparsities mostly are."""
    main = main_metric(metrics)
    first = {} if main is None else {main: metrics[main]}
    return first | {name: value for name, value in sorted(metrics.items()) if value and name != main}
