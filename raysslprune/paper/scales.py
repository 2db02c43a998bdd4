"""What a figure is made with at each scale: networks, data, recipes and grids.

Lengths are in samples seen; ``n * DIGITS`` reads as n epochs of digits. Recipes of the scale ``paper`` are those of
Appendix D; what the paper does not give is chosen here, and said so beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NoReturn

from raysslprune import lottery
from raysslprune.lottery import Chain
from raysslprune.paper.recipes import CIFAR, IMAGENET, REWIND, TRANSFER, appendix_d
from raysslprune.spec import SVM, Recipe, Start, Train

DIGITS = 1_200
"""Training images of scikit-learn's digits in our split."""

IMAGES = {"digits": DIGITS, "cifar10": CIFAR, "imagenet": IMAGENET}
"""Training images of data sets, as the paper counts them."""

FEW = "10%-of-images"
"""The images whose labels are known where few are."""


class _Known(dict[str, Any]):
    """By name; of a name that is not there it says which are."""

    def __missing__(self, name: str) -> NoReturn:
        raise KeyError(f"there is no {name!r} here, only {', '.join(self)}")


@dataclass(frozen=True, kw_only=True)
class Net:
    """A network on a data set, and how it is trained there.

    title: for people. recipes, rewind: by task; ``labels:10%-of-images`` and ``s4l:10%-of-images`` are labels on those
    images alone, and S4L with their labels. Rewinds are in samples seen.
    natural_zeros: whether many weights vanish in training, which random masks must then not keep (paper 4.3).
    """

    title: str
    data: str
    arch: str
    recipes: Mapping[str, Recipe]
    rewind: Mapping[str, int]
    natural_zeros: bool = False

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, dict):
                object.__setattr__(self, field.name, _Known(value))

    def imp(
        self,
        task: str,
        *,
        seed: int,
        levels: int,
        keep: float,
        scope: str = "all",
        rewind: int | None = None,
        start: Start | None = None,
    ) -> Chain:
        """Iterative magnitude pruning on a task by its name in ``recipes``; as :func:`lottery.imp` in all else."""
        verb, _, part = task.partition(":")
        return lottery.imp(
            task=verb,
            data=f"{self.data}:{part}" if verb == "labels" and part else self.data,
            arch=self.arch,
            recipe=self.recipes[task],
            seed=seed,
            levels=levels,
            keep=keep,
            rewind=self.rewind[task] if rewind is None else rewind,
            scope=scope,
            start=start,
        )

    def ticket(self, chain: Chain, level: int) -> Train:
        """A chain's winning ticket, trained on all labels."""
        return lottery.winning_ticket(chain, level, task="labels", recipe=self.recipes["labels"], data=self.data)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Something to judge pruned features by. title: for people. metric: of the training with ``recipe`` on ``data``."""

    title: str
    data: str
    recipe: Recipe | SVM
    metric: str


@dataclass(frozen=True, kw_only=True)
class Target(Probe):
    """Something that whole networks are trained further on."""

    recipe: Recipe


@dataclass(frozen=True, kw_only=True)
class Setting(Net):
    """A scale: its main network and the others, by role.

    levels: the numbers of prunings that are drawn, each leaving the fraction ``keep`` of what was left.
    linear: what frozen features are judged by. finetune: what whole networks are. seeds: how many by default. gpus:
    that a worker has by default.
    """

    others: Mapping[str, Net]
    linear: tuple[Probe, ...]
    finetune: Target
    keep: float
    levels: tuple[int, ...]
    seeds: int
    gpus: float = 0.0

    @property
    def nets(self) -> dict[str, Net]:
        """All networks, the main one first, under the name ``main``."""
        return {"main": self, **self.others}


def images_of(data: str) -> int:
    """Training images of a data set or of a subset of one, with classes of equal size."""
    source, *subsets = data.split(":")
    images = IMAGES[source]
    for subset in subsets:
        images = round(images * int(subset.partition("%")[0]) / 100)
    return images


# ------------------------------------------------------------------------------------- laptop

_LAPTOP = Recipe(
    samples=12 * DIGITS,
    batch=64,
    lr=0.05,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    schedule="cosine",
    pad=1,
)
_VIEWS: dict[str, Any] = {"angle": 15, "jitter": (0.4, 0.4, 0.0, 0.0)}
"""Small rotations, brightness and contrast, for the tasks that tell images apart by their views."""

_DIGITS_EXEMPLAR = (("dimension", 64), ("margin", 0.5), ("negatives", "random"))

# Wu et al.'s temperature of 0.07 diverges at 19 updates an epoch: the memory is renewed faster than the network spreads
_DIGITS_NPID = (("dimension", 64), ("momentum", 0.5), ("negatives", 64), ("temperature", 0.5))

LABELLED = {"digits": (FEW, "20%-of-classes"), "cifar10": (FEW, "20%-of-classes"), "imagenet": (FEW, "10%-of-classes")}
"""The labels of Figure 5: on some images of each class, or on some classes. 10% of ten classes would be only one."""


def _digits(epochs: int) -> dict[str, Recipe]:
    """All tasks for as long as labels take with ``epochs`` epochs, or a whole number of times as long.

    With few labels: half as many samples, so that the rewind comes as early as in the paper (17% of training; there
    15%); as many epochs with labels alone as with S4L, in batches three times as large, which is the paper's ratio.
    """
    labels = replace(_LAPTOP, samples=epochs * DIGITS)
    npid = replace(labels, samples=2 * labels.samples, lr=0.005)
    few = replace(labels, samples=labels.samples // 2)
    recipes = {
        "labels": labels,
        "rotnet": labels,
        "exemplar": replace(labels, options=_DIGITS_EXEMPLAR, **_VIEWS),
        "npid": replace(npid, options=_DIGITS_NPID, **_VIEWS),
    }
    for part in LABELLED["digits"]:
        # Labels on upright images only: a 6 turned by half is a 9
        options = (("labelled", part), ("labels_turned", False), ("weight", 1.0))
        recipes |= {f"labels:{part}": replace(few, batch=48), f"s4l:{part}": replace(few, batch=16, options=options)}
    return recipes


def _digits_net(title: str, arch: str, epochs: int, schedule: str = "cosine") -> dict[str, Any]:
    """Rewinds are at one epoch of all images, whatever the task: the paper fixes the samples seen too."""
    recipes = {task: replace(recipe, schedule=schedule) for task, recipe in _digits(epochs).items()}
    rewind = dict.fromkeys(recipes, DIGITS if epochs > 2 else DIGITS // 4)
    return {"title": title, "data": "digits", "arch": arch, "recipes": recipes, "rewind": rewind}


def _digits_setting(epochs: int, schedule: str, costs: tuple[float, ...], **more: Any) -> Setting:
    # On features that are computed once, so that it takes half a second
    linear = Recipe(
        samples=5 * epochs * DIGITS,
        batch=64,
        lr=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
        schedule="cosine",
        options=(("standardise", True),),
    )
    return Setting(
        **_digits_net("digits, four convolutions", "conv4", epochs, schedule),
        others={
            "resnet": Net(**_digits_net("digits, small ResNet", "resnet8", epochs, schedule)),
            "alexnet": Net(**_digits_net("digits, small AlexNet", "alexnet8", epochs, schedule)),
        },
        linear=(
            Probe(title="linear classifier", data="digits", recipe=linear, metric="top1"),
            Probe(title="linear SVMs", data="digits", recipe=SVM(costs=costs), metric="map"),
        ),
        # Few images, as VOC07 has against ImageNet: with all of them there would be nothing to transfer
        finetune=Target(
            title="fine-tuned on 10% of the images",
            data=f"digits:{FEW}",
            recipe=replace(_LAPTOP, samples=epochs * DIGITS // 2, batch=24, lr=0.01),
            metric="top1",
        ),
        seeds=1,
        **more,
    )


# ------------------------------------------------------------------------------------- CIFAR-10

_COLOUR: dict[str, Any] = {"angle": 10, "jitter": (0.4, 0.4, 0.4, 0.1)}

# Of Wu et al. 2018's code for CIFAR-10: temperature, memory's momentum, dimension, crop and colours, batch, rate
_CIFAR_NPID = Recipe(
    samples=200 * CIFAR,
    batch=128,
    lr=0.03,
    momentum=0.9,
    weight_decay=5e-4,
    schedule="cosine",
    crop=0.2,
    flip=True,
    jitter=(0.4,) * 4,
    grayscale=0.2,
    options=(("dimension", 128), ("momentum", 0.5), ("negatives", 4096), ("temperature", 0.1)),
)


def _few(labels: Recipe, part: str, samples: int, batch: int) -> dict[str, Recipe]:
    """Labels on a part of the images, and S4L with these labels, for as many epochs of them.

    The paper has such recipes for ImageNet only. Here as there a batch of S4L has a third as many labelled images.
    """
    scale = samples / labels.samples
    few = replace(labels, samples=samples, batch=3 * batch, decay_at=tuple(round(scale * at) for at in labels.decay_at))
    return {f"labels:{part}": few, f"s4l:{part}": replace(few, batch=batch, options=(("labelled", part),))}


def _cifar(arch: str) -> dict[str, Recipe]:
    """The paper's where it has one (ResNet-18 and VGG-19); the same for other networks."""
    known = arch if arch in ("vgg19", "resnet18-cifar") else "resnet18-cifar"
    recipes = {task: appendix_d(task, "cifar10", known) for task in ("labels", "rotnet", "exemplar")}
    recipes["npid"] = _CIFAR_NPID
    for part in LABELLED["cifar10"]:
        recipes |= _few(recipes["labels"], part, samples=40 * CIFAR, batch=64)
    return recipes


def _cifar_net(title: str, arch: str) -> dict[str, Any]:
    recipes = _cifar(arch)
    rewind = dict.fromkeys(recipes, REWIND["cifar10"])
    return {
        "title": title,
        "data": "cifar10",
        "arch": arch,
        "recipes": recipes,
        "rewind": rewind,
        "natural_zeros": True,
    }


_CIFAR_LINEAR = Recipe(
    samples=100 * CIFAR,
    batch=256,
    lr=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-4,
    schedule="cosine",
    options=(("standardise", True),),
)

# ------------------------------------------------------------------------------------- CIFAR-10, a tenth of it

_SMALL = f"cifar10:{FEW}"
_SMALL_IMAGES = CIFAR // 10


def _small(epochs: int = 12) -> dict[str, Recipe]:
    """The laptop's recipes with a tenth of CIFAR-10's images, as many epochs."""
    labels = replace(_LAPTOP, samples=epochs * _SMALL_IMAGES, pad=2, flip=True)
    npid = replace(labels, samples=2 * labels.samples, lr=0.005)
    recipes = {
        "labels": labels,
        "rotnet": labels,
        "exemplar": replace(labels, options=_DIGITS_EXEMPLAR, **_COLOUR),
        "npid": replace(npid, options=_DIGITS_NPID, **_COLOUR),
    }
    for part in LABELLED["cifar10"]:
        recipes |= _few(labels, part, samples=labels.samples // 2, batch=16)
    return recipes


def _small_net(title: str, arch: str) -> dict[str, Any]:
    recipes = _small()
    rewind = dict.fromkeys(recipes, _SMALL_IMAGES)
    return {"title": title, "data": _SMALL, "arch": arch, "recipes": recipes, "rewind": rewind}


# ------------------------------------------------------------------------------------- the paper


def _imagenet(arch: str) -> dict[str, Recipe]:
    """Appendix D; where it has a task for ResNet-50 alone, that recipe."""

    def recipe(task: str, data: str) -> Recipe:
        try:
            return appendix_d(task, data, arch)
        except KeyError:
            return appendix_d(task, data, "resnet50")

    recipes = {task: recipe(task, "imagenet") for task in ("labels", "rotnet", "exemplar", "npid")}
    for part in LABELLED["imagenet"]:
        s4l = recipe("s4l", "imagenet")
        recipes[f"labels:{part}"] = recipe("labels", f"imagenet:{part}")
        recipes[f"s4l:{part}"] = replace(s4l, options=(*s4l.options, ("labelled", part)))
    return recipes


def _imagenet_net(title: str, arch: str) -> dict[str, Any]:
    recipes = _imagenet(arch)
    rewind = dict.fromkeys(recipes, REWIND["imagenet"])
    return {"title": title, "data": "imagenet", "arch": arch, "recipes": recipes, "rewind": rewind}


def _transfer(kind: str) -> Any:
    return TRANSFER[kind].recipe


PAPER_LEVELS = (1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 21, 24, 27, 30)
"""Fourteen, from 20% to 99.9% pruned, as in the paper (3.3), which does not say which."""

# ------------------------------------------------------------------------------------- the scales

SETTINGS: dict[str, Setting] = {
    # Weights left at levels 3, 7, 10, 14, 18, 21, 24: 51.2, 21.0, 10.7, 4.4, 1.8, 0.92, 0.47 %.
    "laptop": _digits_setting(
        epochs=12, schedule="cosine", costs=(0.1, 1.0, 10.0), keep=0.8, levels=(3, 7, 10, 14, 18, 21, 24)
    ),
    # Two of the paper's rounds in one; weights left: 41.0, 16.8, 4.4, 1.8 %. Five seconds of a core a training.
    "cifar10-small": Setting(
        **_small_net("CIFAR-10, 5,000 images, five convolutions", "conv5"),
        others={
            "resnet": Net(**_small_net("CIFAR-10, 5,000 images, small ResNet", "resnet8")),
            "alexnet": Net(**_small_net("CIFAR-10, 5,000 images, small AlexNet", "alexnet8")),
        },
        linear=(
            Probe(
                title="linear classifier",
                data=_SMALL,
                recipe=replace(_CIFAR_LINEAR, samples=60 * _SMALL_IMAGES, batch=64),
                metric="top1",
            ),
            Probe(title="linear SVMs", data=_SMALL, recipe=SVM(costs=(0.01, 0.1, 1.0)), metric="map"),
        ),
        finetune=Target(
            title="fine-tuned on 1% of CIFAR-10",
            data="cifar10:1%-of-images",
            recipe=replace(_LAPTOP, samples=60 * 500, batch=32, lr=0.01, pad=2, flip=True),
            metric="top1",
        ),
        keep=0.64,
        levels=(2, 4, 7, 9),
        seeds=2,
    ),
    "cifar10": Setting(
        gpus=1.0,
        **_cifar_net("CIFAR-10, ResNet-18", "resnet18-cifar"),
        others={
            "vgg19": Net(**_cifar_net("CIFAR-10, VGG-19", "vgg19")),
            "alexnet": Net(**_cifar_net("CIFAR-10, small AlexNet", "alexnet8")),
        },
        linear=(
            Probe(title="CIFAR-10, linear classifier", data="cifar10", recipe=_CIFAR_LINEAR, metric="top1"),
            Probe(title="CIFAR-100, linear classifier", data="cifar100", recipe=_CIFAR_LINEAR, metric="top1"),
            Probe(title="CIFAR-10, linear SVMs", data="cifar10", recipe=SVM(costs=(0.001, 0.01, 0.1)), metric="map"),
        ),
        finetune=Target(
            title="fine-tuned on 10% of CIFAR-100",
            data=f"cifar100:{FEW}",
            recipe=Recipe(
                samples=90 * CIFAR // 10,
                batch=128,
                lr=0.01,
                momentum=0.9,
                weight_decay=1e-4,
                schedule="steps",
                decay_at=(50 * CIFAR // 10, 65 * CIFAR // 10, 80 * CIFAR // 10),
                pad=2,
                flip=True,
            ),
            metric="top1",
        ),
        keep=0.8,
        levels=PAPER_LEVELS,
        seeds=6,
    ),
    "paper": Setting(
        gpus=1.0,
        **_imagenet_net("ImageNet, ResNet-50", "resnet50"),
        others={
            "resnet18": Net(**_cifar_net("CIFAR-10, ResNet-18", "resnet18-cifar")),
            "vgg19": Net(**_cifar_net("CIFAR-10, VGG-19", "vgg19")),
            "alexnet": Net(**_imagenet_net("ImageNet, AlexNet", "alexnet-bn")),
        },
        linear=(
            Probe(title="VOC07, linear SVMs", data="voc07", recipe=_transfer("svm"), metric="map"),
            Probe(title="Places205, linear classifier", data="places205", recipe=_transfer("linear"), metric="top1"),
            Probe(title="ImageNet, linear classifier", data="imagenet", recipe=_transfer("linear"), metric="top1"),
        ),
        finetune=Target(title="fine-tuned on VOC07", data="voc07", recipe=_transfer("finetune"), metric="map"),
        keep=0.8,
        levels=PAPER_LEVELS,
        seeds=3,
    ),
    # Shows that everything works, in seconds; its numbers mean nothing.
    "smoke": _digits_setting(epochs=1, schedule="constant", costs=(1.0,), keep=0.4, levels=(1, 3)),
}
