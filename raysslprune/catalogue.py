"""The names that a step may have: tasks, architectures and data sets, and the code behind each.

To add one to the package, write a file and a line here. Outside the package a file is enough: a name of the form
``module:attribute`` stands for that attribute of a module that every worker can import.

Standard library only, so that a wrong name is found before anything heavy is imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysslprune import moved
from raysslprune.spec import NATURAL_SPARSITIES, SVM, ImportedWeights, Init, Options, Train

TASKS = {
    "labels": "raysslprune.tasks.labels:Labels",
    "rotnet": "raysslprune.tasks.rotnet:RotNet",
    "exemplar": "raysslprune.tasks.exemplar:Exemplar",
    "npid": "raysslprune.tasks.npid:NPID",
    "s4l": "raysslprune.tasks.s4l:S4L",
    "simclr": "raysslprune.tasks.simclr:SimCLR",
    "moco": "raysslprune.tasks.moco:MoCo",
    "byol": "raysslprune.tasks.byol:BYOL",
    "vicreg": "raysslprune.tasks.vicreg:VICReg",
}
"""Tasks: subclasses of tasks.task.Task, dataclasses whose fields are the options that a recipe may set."""

ARCHITECTURES = {
    "conv4": "raysslprune.models.conv4:Conv4",
    "conv5": "raysslprune.models.small:Conv5",
    "resnet8": "raysslprune.models.small:ResNet8",
    "alexnet8": "raysslprune.models.small:AlexNet8",
    "resnet18-cifar": "raysslprune.models.resnet:resnet18_cifar",
    "resnet18-cifar-half": "raysslprune.models.resnet:resnet18_cifar_half",
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
"""Architectures: functions from the number of image channels to a trunk with ``width``, its number of features."""

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
"""Data sets: each class is a data.Source. In ``folder/NAME`` and ``parquet/NAME``, NAME is the source's argument."""

CRITERIA = {
    "magnitude": "raysslprune.criteria.magnitude:magnitude",
    "relative-magnitude": "raysslprune.criteria.magnitude:relative_magnitude",
    "movement": "raysslprune.criteria.magnitude:movement",
    "taylor": "raysslprune.criteria.gradient:taylor",
    "snip": "raysslprune.criteria.gradient:snip",
    "grasp": "raysslprune.criteria.gradient:grasp",
    "synflow": "raysslprune.criteria.flow:synflow",
    "l2": "raysslprune.criteria.of_filters:l2",
    "batchnorm": "raysslprune.criteria.of_filters:batchnorm",
}
"""Criteria of pruning: functions from a criteria.State to scores. Your own, ``module:attribute``, is a function from
weights, gradients and mask to scores."""

ON_DISK = {"imagenet", "places205", "voc07", "folder"}
"""Data sets whose images are decoded from disk for each view; except folders at a size of at most MAX_RESIDENT."""

MAX_RESIDENT = 128
"""Largest size of images that are kept in memory, in pixels: 10,000 of them take 490 MB in each process."""

SIZED = re.compile(r"(?P<name>.+):(?P<size>[0-9]+)px", re.DOTALL)
"""Pattern of the argument of a folder of images with a size: ``pets:64px`` has square images of 64 x 64 pixels."""

SIZES = (8, 1024)
"""Smallest and largest size of such images."""

EMBEDDED = {"digits"}
"""Data sets that come with the package's dependencies, so that they are never missing."""

HELD_OUT = "%-held-out"
"""End of the name of a data set of which some training images are held out, for validation."""

VALIDATION = "_validation"
"""End of the name of a metric on images that were held out. ``top1_validation`` is to them what top1 is to the test."""

SUBSET = re.compile(rf"([1-9][0-9]?)(%-of-images|%-of-classes|{HELD_OUT})")
"""Pattern of a subset of the training images, as in ``imagenet:10%-of-images``: see data.subsets."""


def check(kind: str, table: Mapping[str, str], name: str) -> None:
    """Raise ValueError for a name that is neither in the table nor of the form ``module:attribute``."""
    if name in table or re.fullmatch(r"[\w.]+:\w+", name):
        return
    if name.endswith(".py"):
        raise ValueError(f"write {os.path.basename(name)[:-3]}:NAME, not {name}; NAME is your class or function in it")
    near = difflib.get_close_matches(name, table, 1)
    hint = f"did you mean {near[0]!r}? Known" if near else "known"
    raise ValueError(f"{kind} {name!r} is not known; {hint}: {', '.join(table)}, or use module:attribute")


def resolve(kind: str, table: Mapping[str, str], name: str) -> Any:
    """Import the object that the name stands for. Raises ValueError if there is none."""
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
        hint = "; its module must be in the folder where the command is started, or on PYTHONPATH"
        hint = "; write the module without .py" if module.endswith(".py") else hint
        raise ValueError(f"{kind} {name!r} can't be imported here: {error}{hint if gone else ''}") from error


def check_subset(text: str) -> None:
    """Raise ValueError for text that does not match SUBSET."""
    if not SUBSET.fullmatch(text):
        raise ValueError(f"subset {text!r} is not of the form '10%-of-images', '10%-of-classes' or '10%-held-out'")


def is_held_out(subset: str) -> bool:
    """Return whether a subset holds images out for validation."""
    return subset.endswith(HELD_OUT)


def data_root(given: str | os.PathLike[str] | None = None) -> str:
    """The folder of all data sets: the given one, else ``$RAYSSLPRUNE_DATA``, else ``data``.

    A leading ``~`` is the home folder; no shell expands it in ``--data=~/sets``, nor in a quoted variable.
    """
    return os.path.expanduser(given or os.environ.get("RAYSSLPRUNE_DATA") or "data")


def data_parts(data: str) -> tuple[str, str, str]:
    """Split the name of a step's data into source, the source's argument, and subset; the last two may be empty.

    ``folder/pets:10%-of-images`` is ("folder", "pets", "10%-of-images"). Subsets of subsets are written in the order
    in which they are taken, ``25%-held-out:10%-of-images``. Raises ValueError for a malformed subset, and if images
    are held out twice.
    """
    whole, subsets = data, []
    while ":" in whole and "%" in (subset := whole.rpartition(":")[2]):
        check_subset(subset)
        whole = whole.rpartition(":")[0]
        subsets.insert(0, subset)
    if sum(map(is_held_out, subsets)) > 1:
        raise ValueError(f"data set {data!r} holds images out twice; it can have one validation set")
    source, _, argument = whole.partition("/")
    return source, argument, ":".join(subsets)


def sized(argument: str) -> tuple[str, int | None]:
    """Split the argument of a folder of images into its name and the images' size, None for the usual 224 pixels.

    Raises ValueError for a size out of range.
    """
    found = SIZED.fullmatch(argument)
    if found is None:
        return argument, None
    low, high = SIZES
    if not low <= int(found["size"]) <= high:
        raise ValueError(f"the size in data set folder/{argument} must be from {low}px to {high}px")
    return found["name"], int(found["size"])


def is_on_disk(data: str) -> bool:
    """Return whether a data set of the package stays on disk, so that its images can't be padded."""
    source, argument, _ = data_parts(data)
    size = sized(argument)[1] if source == "folder" else None
    return source in ON_DISK and not (size and size <= MAX_RESIDENT)


@dataclass(kw_only=True)
class Labels:
    """Options of ``labels``. standardise: put a BatchNorm without weights before the last layer, as in the linear
    classifiers of Goyal et al. 2019 (https://arxiv.org/abs/1905.01235).
    """

    standardise: bool = False


@dataclass(kw_only=True)
class RotNet:
    """Options of ``rotnet``. all_turns: use each view in all four turns, as the authors' code does; if False,
    in one random turn.
    """

    all_turns: bool = False


NEGATIVES = ("random", "semi-hard")


@dataclass(kw_only=True)
class Exemplar:
    """Options of ``exemplar``. dimension: size of the embedding. margin: of the hinge loss, as a cosine distance.

    negatives: choice of each triplet's other image among the samples that share BatchNorm statistics: ``random``, or
        ``semi-hard`` (the nearest image that is farther than the positive, or else the farthest).
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
    """Options of ``npid``. dimension: size of the embedding. temperature: divisor of the similarities. momentum:
    momentum of the memory bank. negatives: number of remembered embeddings that an image is contrasted with.
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
    """Options of ``s4l``. labelled: the subset of images whose labels are used. weight: weight of the rotation loss.

    labels_turned: take the cross-entropy on all four turns of the labelled image, as the authors' code does; if False,
        on the upright image only, which suits classes that depend on orientation.
    """

    labelled: str = "10%-of-images"
    weight: float = 1.0
    labels_turned: bool = True

    def __post_init__(self) -> None:
        check_subset(self.labelled)
        if is_held_out(self.labelled):
            raise ValueError(f"S4L's labelled images are a part such as '10%-of-images', not {self.labelled!r}")
        if self.weight <= 0:
            raise ValueError("S4L needs a weight above 0")


@dataclass(kw_only=True)
class SimCLR:
    """Options of ``simclr``. dimension: size of the embedding. hidden: width of the projector's hidden layer.
    temperature: divisor of the similarities.
    """

    dimension: int = 128
    hidden: int = 2048
    temperature: float = 0.1

    def __post_init__(self) -> None:
        if min(self.dimension, self.hidden) < 1 or self.temperature <= 0:
            raise ValueError("SimCLR needs dimension, hidden and temperature above 0")


@dataclass(kw_only=True)
class MoCo:
    """Options of ``moco``. dimension, hidden, temperature: as for ``simclr``. queue: number of earlier embeddings that
    an image is contrasted with. ema: how much of the moving average of the network an update keeps.
    """

    dimension: int = 128
    hidden: int = 2048
    temperature: float = 0.2
    queue: int = 65_536
    ema: float = 0.999

    def __post_init__(self) -> None:
        if min(self.dimension, self.hidden, self.queue) < 1 or self.temperature <= 0 or not 0 <= self.ema < 1:
            raise ValueError("MoCo needs dimension, hidden, queue and temperature above 0, and ema from 0 to below 1")


@dataclass(kw_only=True)
class BYOL:
    """Options of ``byol``. dimension: size of the embedding. hidden: width of the projector's and the predictor's
    hidden layers. ema: how much of the moving average of the network the first update keeps; it rises to 1 by a cosine.
    """

    dimension: int = 256
    hidden: int = 4096
    ema: float = 0.996

    def __post_init__(self) -> None:
        if min(self.dimension, self.hidden) < 1 or not 0 <= self.ema < 1:
            raise ValueError("BYOL needs dimension and hidden above 0, and ema from 0 to below 1")


@dataclass(kw_only=True)
class VICReg:
    """Options of ``vicreg``. dimension: size of the embedding. hidden: width of the expander's two hidden layers.
    invariance, variance, covariance: weights of the parts of the loss.
    """

    dimension: int = 8192
    hidden: int = 8192
    invariance: float = 25.0
    variance: float = 25.0
    covariance: float = 1.0

    def __post_init__(self) -> None:
        weights = self.invariance, self.variance, self.covariance
        if self.dimension < 2 or self.hidden < 1 or min(weights) < 0 or not any(weights):
            raise ValueError("VICReg needs dimension above 1, hidden above 0, and weights of at least 0, not all 0")


OPTIONS: Mapping[str, type] = {
    "labels": Labels,
    "rotnet": RotNet,
    "exemplar": Exemplar,
    "npid": NPID,
    "s4l": S4L,
    "simclr": SimCLR,
    "moco": MoCo,
    "byol": BYOL,
    "vicreg": VICReg,
}
"""Classes of options by task; the classes of TASKS inherit from them."""

SEE_LABELS = {"labels", "s4l"}
"""Tasks of the package whose samples have labels. A sample of S4L is one image with a label, and one without."""

SEVERAL = {"voc07"}
"""Data sets of the package whose images have several labels."""

SPREAD = ("feature_std", "feature_rank", "embedding_std", "embedding_rank")
"""Metrics that show whether a network gives all images the same features, or its head the same embedding."""

ONE_LABEL: Mapping[str, tuple[str, ...]] = {
    "labels": ("top1",),
    "rotnet": ("rotation_top1",),
    "exemplar": ("triplet_accuracy",),
    "npid": ("knn_top1",),
    "s4l": ("top1", "rotation_top1"),
    **dict.fromkeys(("simclr", "moco", "byol", "vicreg"), ("knn_top1", *SPREAD)),
}
"""Metrics of a task on images with one label each; with VALIDATION at their end also on images held out."""

SEVERAL_LABELS = {
    **ONE_LABEL,
    "labels": ("map",),
    "npid": (),
    **dict.fromkeys(("simclr", "moco", "byol", "vicreg"), SPREAD),
}
"""Metrics of a task on images with several labels each."""


def metrics(step: Train) -> tuple[str, ...]:
    """Names of a training's metrics: all that are possible on a user's own data set, none for a user's own task.

    Linear SVMs have the same metrics whatever the task.
    """
    source, _, subset = data_parts(step.data)
    one, several = source not in SEVERAL, source in SEVERAL or source not in DATASETS
    if isinstance(step.recipe, SVM):
        own, others = (*("top1",) * one, "map"), ("unconverged_fits", "density", "collapsed_layers")
    elif step.task in OPTIONS:
        own = (*ONE_LABEL[step.task] * one, *SEVERAL_LABELS[step.task] * several)
        others = ("density", "collapsed_layers", "train_loss", *NATURAL_SPARSITIES)
    else:
        return ()
    held_out = [metric + VALIDATION for metric in own] if any(map(is_held_out, subset.split(":"))) else []
    return (*dict.fromkeys((*own, *held_out)), *others)


def label_samples(step: Train) -> int | None:
    """Samples with labels that the weights have seen: in this training, and in those that it starts from.

    Labels that only chose the mask do not count. None if that is not known: for linear SVMs, which are not fitted
    sample by sample, and if a user's own task, or imported weights, are among what they start from.
    """
    seen, end = 0, None
    while True:  # not recursive: trainings may start from one another without limit
        recipe = step.recipe
        if isinstance(recipe, SVM) or step.task not in OPTIONS:
            return None
        if step.task in SEE_LABELS:
            seen += recipe.reached(recipe.samples if end is None else end) - recipe.reached(step.begins_at)
        if isinstance(step.start, Init):
            return seen
        if isinstance(step.start.of, ImportedWeights):
            return None
        end, step = step.rewind, step.start.of


def made(task: str, kind: type[Any], given: Options) -> Any:
    """Make a ``kind``, the dataclass of a task or of its options. Raises ValueError for a wrong option or value."""
    known = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for option, value in dict(given).items():
        if option not in known:
            raise ValueError(f"task {task} has no option {option!r}; its options: {', '.join(known) or 'none'}")
        wanted = type(known[option].default)
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise ValueError(f"option {option} of task {task} must be of type {wanted.__name__}, not {value!r}")
    return kind(**dict(given))


def main_metric(metrics: Mapping[str, float]) -> str | None:
    """Main metric of a training: top1, or else the first that is not a density, the task's own; None without any."""
    own = [metric for metric in metrics if not metric.startswith("density")]
    return "top1" if "top1" in own else next(iter(own), None)


def shown_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics to show to people: the main one first; others only if not 0, as natural sparsities mostly are."""
    main = main_metric(metrics)
    first = {} if main is None else {main: metrics[main]}
    return first | {name: value for name, value in sorted(metrics.items()) if value and name != main}
