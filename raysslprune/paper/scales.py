"""Networks, data, recipes and grids of the figures, at each scale.

Lengths are in samples seen; ``n * DIGITS`` reads as n epochs of digits. Recipes of the scale ``paper`` are those of
Appendix D; comments mark the values that the paper does not give and that are chosen here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import wraps
from typing import Any, Concatenate, NoReturn, ParamSpec, Self, TypeVar

from raysslprune import lottery
from raysslprune.catalogue import data_parts, is_held_out
from raysslprune.lottery import Chain
from raysslprune.paper.recipes import CIFAR, IMAGENET, REWIND, TRANSFER, VOC07, appendix_d, today
from raysslprune.spec import SVM, Option, Recipe, Start, Train
from raysslprune.sweepfile import Unfit

DIGITS = 1_200
"""Training images of scikit-learn's digits in our split."""

IMAGES = {"digits": DIGITS, "cifar10": CIFAR, "cifar100": CIFAR, "imagenet": IMAGENET, "voc07": VOC07}
"""Training images of data sets, as the paper counts them. A scale file gives those of other data sets."""

FEW_IMAGES = 10_000
"""Number of training images below which a quarter of them is held out for choices, instead of a tenth."""

FEW_UPDATES = 50
"""Number of updates below which a training can't be expected to learn anything."""

FEW = "10%-of-images"
"""Subset of the labelled images in experiments with few labels."""


P = ParamSpec("P")
R = TypeVar("R")


class _Known(dict[str, Any]):
    """A dict whose KeyError for an unknown name lists the known names."""

    def __missing__(self, name: str) -> NoReturn:
        raise KeyError(f"unknown name {name!r}; known: {', '.join(self)}")


@dataclass(frozen=True, kw_only=True)
class Net:
    """A network on a data set, and its recipes there.

    title: for people. recipes, rewind: by task; ``labels:10%-of-images`` is labels on those images alone,
    ``s4l:10%-of-images`` is S4L with their labels. Rewinds are in samples seen.
    natural_zeros: True if many weights vanish in training, so that figures need random masks without them (paper 4.3).
    images: training images of data sets or subsets, by name, from which :meth:`images_of` computes those of subsets.
    """

    title: str
    data: str
    arch: str
    recipes: Mapping[str, Recipe]
    rewind: Mapping[str, int]
    natural_zeros: bool = False
    images: Mapping[str, int] = field(default_factory=lambda: IMAGES, repr=False)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, dict):
                object.__setattr__(self, each.name, _Known(value))

    @property
    def held_out(self) -> Net:
        """This network on a part of its training images. The others are held out, to choose by what they say."""
        part = "25%-held-out" if self.images_of() < FEW_IMAGES else "10%-held-out"
        return replace(self, data=f"{self.data}:{part}")

    @property
    def labelled(self) -> tuple[str, ...]:
        """The subsets for which there are recipes of S4L, in their order: the few labels of Figure 5."""
        parts = (task.partition("s4l:")[2] for task in self.recipes)
        return tuple(part for part in parts if part and f"labels:{part}" in self.recipes)

    def images_of(self, part: str = "") -> int:
        """Number of training images of the network's data set, or of a subset of it. Raises Unfit if it is unknown."""
        return images_of(f"{self.data}:{part}" if part else self.data, self.images)

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
        **pruning: Any,
    ) -> Chain:
        """Iterative pruning on a task, by its name in ``recipes``; otherwise as :func:`lottery.imp`."""
        verb, _, part = data_parts(task)
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
            **pruning,
        )

    def ticket(self, chain: Chain, level: int) -> Train:
        """A chain's winning ticket, trained on all labels."""
        return lottery.winning_ticket(chain, level, task="labels", recipe=self.recipes["labels"], data=self.data)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A test of pruned features: the ``metric`` of a training with ``recipe`` on ``data``. title: for people."""

    title: str
    data: str
    recipe: Recipe | SVM
    metric: str


@dataclass(frozen=True, kw_only=True)
class Target(Probe):
    """A test that fine-tunes all layers of a network."""

    recipe: Recipe


def _by_main_net(method: Callable[Concatenate[Net, P], R]) -> Callable[Concatenate[Setting, P], R]:
    """Make a method of Setting that calls this method of its main network."""

    @wraps(method)
    def call(setting: Setting, *args: P.args, **kwargs: P.kwargs) -> R:
        return method(setting.net, *args, **kwargs)

    return call


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A scale: its main network, and other networks by role. What a Net has, a Setting has from its main network.

    levels: numbers of prunings that figures show; each pruning keeps the fraction ``keep`` of the remaining weights.
    linear: tests of frozen features. finetune: test of fine-tuned networks. seeds: default number of seeds. margin:
    difference in points that does not matter, for claims that two networks are as good as each other. gpus: default
    number of GPUs for a worker. unpruned: data set and recipe of the trainings on labels in which weights may vanish
    without pruning, by title; unpruned_archs: their networks, by figure. counts: training images of data sets as a
    scale file counts them, by name, to compare with the data.
    """

    net: Net
    others: Mapping[str, Net]
    linear: tuple[Probe, ...]
    finetune: Target
    keep: float
    levels: tuple[int, ...]
    seeds: int
    margin: float = 2.0
    gpus: float = 0.0
    unpruned: Mapping[str, tuple[str, Recipe]] = field(default_factory=dict)
    unpruned_archs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "others", _Known(self.others))

    @property
    def nets(self) -> dict[str, Net]:
        """All networks, the main one first, under the name ``main``."""
        return {"main": self.net, **self.others}

    @property
    def title(self) -> str:
        return self.net.title

    @property
    def data(self) -> str:
        return self.net.data

    @property
    def arch(self) -> str:
        return self.net.arch

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        return self.net.recipes

    @property
    def rewind(self) -> Mapping[str, int]:
        return self.net.rewind

    @property
    def natural_zeros(self) -> bool:
        return self.net.natural_zeros

    @property
    def images(self) -> Mapping[str, int]:
        return self.net.images

    @property
    def labelled(self) -> tuple[str, ...]:
        return self.net.labelled

    imp = _by_main_net(Net.imp)
    ticket = _by_main_net(Net.ticket)
    images_of = _by_main_net(Net.images_of)


class Scale(str):
    """The name of a scale that is not the package's: it names the folder of the results, and ``SETTINGS`` takes it.

    setting: the scale itself. given: the words of a command line that give it, those after ``--scale``.
    """

    setting: Setting
    given: tuple[str, ...]

    def __new__(cls, name: str, setting: Setting, given: tuple[str, ...]) -> Self:
        made = super().__new__(cls, name)
        made.setting, made.given = setting, given
        return made


def given(scale: str) -> tuple[str, ...]:
    """The words of a command line that give a scale, those after ``--scale``."""
    return scale.given if isinstance(scale, Scale) else (scale,)


def too_short(scale: str, used: Collection[Recipe | SVM]) -> str:
    """A sentence on the recipes of a user's scale that have too few updates; '' if there are none.

    used: the recipes of the trainings that are planned; others do not count.
    """
    if not isinstance(scale, Scale):
        return ""
    recipes = {pair for net in scale.setting.nets.values() for pair in net.recipes.items() if pair[1] in used}
    return few_updates(recipes, "*.samples or *.batch")


def few_updates(recipes: Iterable[tuple[str, Recipe]], keys: str) -> str:
    """A sentence on recipes, by task, that have too few updates to learn anything; '' if there are none.

    keys: what a user sets to have more.
    """
    short = {
        f"{task}: {updates} update{'s' * (updates != 1)} ({recipe.samples:,} samples, batches of {recipe.batch})"
        for task, recipe in recipes
        if (updates := -(-recipe.samples // recipe.batch)) < FEW_UPDATES
    }
    return f"{'; '.join(sorted(short))}: too few to learn anything; set {keys}" if short else ""


class _Settings(dict[str, Setting]):
    """The package's scales by name. ``[]`` also takes a :class:`Scale`, and gives its setting."""

    def __missing__(self, name: str) -> Setting:
        if isinstance(name, Scale):
            return name.setting
        raise KeyError(f"unknown scale {name!r}; known: {', '.join(self)}")


def whole(data: str) -> str:
    """The name of a data set without its subset."""
    source, argument, _ = data_parts(data)
    return f"{source}/{argument}" if argument else source


def images_of(data: str, known: Mapping[str, int] = IMAGES) -> int:
    """Number of training images of a data set or a subset of one, with classes of equal size.

    known: numbers by name, from the longest of which that fits the others are computed. Raises Unfit if none fits.
    """
    fits = [name for name in known if f"{data}:".startswith(f"{name}:")]
    if not fits:
        raise Unfit(
            f"the number of training images of {data} is not known; a scale file gives it as images, and "
            f"raysslprune check {data} prints it"
        )
    nearest = max(fits, key=len)
    images = known[nearest]
    for subset in filter(None, data.removeprefix(nearest).split(":")):
        part = round(images * int(subset.partition("%")[0]) / 100)
        images = images - part if is_held_out(subset) else part
    return images


def counted(images: Mapping[str, int]) -> dict[str, int]:
    """IMAGES with further numbers, by data set or subset, and those that follow for the whole data sets."""
    found = dict(IMAGES)
    for data, count in images.items():
        fraction = Fraction(1)
        for subset in filter(None, data.removeprefix(whole(data)).split(":")):
            part = Fraction(int(subset.partition("%")[0]), 100)
            fraction *= 1 - part if is_held_out(subset) else part
        found |= {whole(data): round(count / fraction), data: count}
    return found


# ------------------------------------------------------------------------------------- laptop

_LAPTOP = Recipe(
    samples=12 * DIGITS, batch=64, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4, schedule="cosine", pad=1
)
_LINEAR = Recipe(
    samples=100 * CIFAR,
    batch=256,
    lr=0.1,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-4,
    schedule="cosine",
    options={"standardise": True},
)
_VIEWS: dict[str, Any] = {"angle": 15, "jitter": (0.4, 0.4, 0.0, 0.0)}
"""Small rotations, brightness and contrast, for the tasks that discriminate images by their views."""

_SMALL_EXEMPLAR: dict[str, Option] = {"dimension": 64, "margin": 0.5, "negatives": "random"}

# Wu et al.'s temperature of 0.07 diverges at 19 updates an epoch: the memory is renewed faster than the network spreads
_SMALL_NPID: dict[str, Option] = {"dimension": 64, "momentum": 0.5, "negatives": 64, "temperature": 0.5}

_SMALL_SIAMESE: dict[str, dict[str, Any]] = {
    "simclr": {"crop": 0.5, "pad": 0, "options": {"dimension": 64, "hidden": 128, "temperature": 0.2}},
    "moco": {
        "lr": 0.02,
        "options": {"dimension": 64, "hidden": 128, "temperature": 0.2, "queue": 512, "ema": 0.99},
    },
    "byol": {"options": {"dimension": 64, "hidden": 128, "ema": 0.99}},
    "vicreg": {
        "lr": 0.02,
        "options": {"dimension": 128, "hidden": 128, "invariance": 25.0, "variance": 25.0, "covariance": 1.0},
    },
}
"""What differs from the recipe for labels with tasks newer than the paper. It was chosen on digits that were held out
(docs/learning.md)."""

SIAMESE = tuple(_SMALL_SIAMESE)
"""Tasks newer than the paper: two views of an image."""

LABELLED = {"digits": (FEW, "20%-of-classes"), "cifar10": (FEW, "20%-of-classes"), "imagenet": (FEW, "10%-of-classes")}
"""Subsets with labels in Figure 5, by data set: of images, or of classes. 10% of ten classes would be only one."""


def _small(labels: Recipe, views: dict[str, Any], **s4l: Option) -> dict[str, Recipe]:
    """Recipes for all tasks on few images, with as many epochs as for labels; for NPID and newer tasks twice as many.

    With few labels the samples are halved, so that the rewind is about as early as in the paper (17% of training; 15%
    there). Labels alone have as many epochs as S4L, in batches three times as large, which is the paper's ratio.
    labels: recipe of labels, RotNet and Exemplar; others have the laptop's learning rate and weight decay unless they
    have their own. views: augmentation of the tasks that compare views or images. s4l: more options of S4L.
    """
    others = replace(labels, lr=_LAPTOP.lr, weight_decay=_LAPTOP.weight_decay)
    longer = replace(others, samples=2 * labels.samples, **views)
    recipes = {
        "labels": labels,
        "rotnet": labels,
        "exemplar": replace(labels, options=_SMALL_EXEMPLAR, **views),
        "npid": replace(longer, lr=0.005, options=_SMALL_NPID),
    }
    for task, changes in _SMALL_SIAMESE.items():
        recipes[task] = replace(longer, **changes)
    for part in LABELLED["digits"]:
        recipes |= _few(others, part, samples=labels.samples // 2, batch=16, **s4l)
    return recipes


def _few(labels: Recipe, part: str, samples: int, batch: int, **s4l: Option) -> dict[str, Recipe]:
    """Recipes for labels on a subset of the images, and for S4L with these labels, of equally many labelled images.

    The paper has recipes for few labels on ImageNet only. As there, a batch of S4L has a third as many labelled images.
    """
    scale = samples / labels.samples
    few = replace(
        labels,
        samples=samples,
        batch=3 * batch,
        decay_at=tuple(round(scale * at) for at in labels.decay_at),
        warmup=round(scale * labels.warmup),
    )
    return {f"labels:{part}": few, f"s4l:{part}": replace(few, batch=batch, options={"labelled": part, **s4l})}


def _net(title: str, data: str, arch: str, recipes: Mapping[str, Recipe], rewind: int) -> Net:
    """A Net with the same rewind, in samples seen, for all tasks: the paper, too, fixes the samples."""
    return Net(title=title, data=data, arch=arch, recipes=recipes, rewind=dict.fromkeys(recipes, rewind))


def _probes(data: str, linear: Recipe, costs: tuple[float, ...]) -> tuple[Probe, ...]:
    return (
        Probe(title="linear classifier", data=data, recipe=linear, metric="top1"),
        Probe(title="linear SVMs", data=data, recipe=SVM(costs=costs), metric="map"),
    )


def _digits_net(title: str, arch: str, epochs: int, schedule: str) -> Net:
    labels = replace(_LAPTOP, samples=epochs * DIGITS, schedule=schedule)
    # S4L's labels are on upright images only: a 6 turned by half is a 9
    recipes = _small(labels, _VIEWS, labels_turned=False, weight=1.0)
    return _net(title, "digits", arch, recipes, rewind=DIGITS if epochs > 2 else DIGITS // 4)


def _digits_setting(epochs: int, schedule: str, costs: tuple[float, ...], **more: Any) -> Setting:
    # The features are computed only once, so a linear classifier takes half a second
    linear = replace(_LINEAR, samples=5 * epochs * DIGITS, batch=64)
    return Setting(
        net=_digits_net("digits, four convolutions", "conv4", epochs, schedule),
        others={
            "resnet": _digits_net("digits, small ResNet", "resnet8", epochs, schedule),
            "alexnet": _digits_net("digits, small AlexNet", "alexnet8", epochs, schedule),
        },
        linear=_probes("digits", linear, costs),
        # Few images, as VOC07 has compared with ImageNet: with all images there would be nothing to transfer
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

# From Wu et al. 2018's code for CIFAR-10: temperature, memory's momentum, dimension, crop and colours, batch, rate
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
    options={"dimension": 128, "momentum": 0.5, "negatives": 4096, "temperature": 0.1},
)


def _cifar(arch: str) -> dict[str, Recipe]:
    """The paper's recipes for ResNet-18 and VGG-19; those of ResNet-18 for other networks."""
    known = arch if arch in ("vgg19", "resnet18-cifar") else "resnet18-cifar"
    recipes = {task: appendix_d(task, "cifar10", known) for task in ("labels", "rotnet", "exemplar")}
    recipes["npid"] = _CIFAR_NPID
    recipes |= {task: today(task, "cifar10") for task in SIAMESE}
    for part in LABELLED["cifar10"]:
        recipes |= _few(recipes["labels"], part, samples=40 * CIFAR, batch=64)
    return recipes


def _cifar_net(title: str, arch: str) -> Net:
    return replace(_net(title, "cifar10", arch, _cifar(arch), REWIND["cifar10"]), natural_zeros=True)


# ------------------------------------------------------------------------------------- CIFAR-10, a tenth of it

_TENTH = f"cifar10:{FEW}"
_TENTH_IMAGES = CIFAR // 10

_TENTH_SIAMESE: dict[str, dict[str, Any]] = {
    "simclr": {"lr": 0.03},
    "moco": {"lr": 0.02},
    "byol": {"lr": 0.06, "options": {**_SMALL_SIAMESE["byol"]["options"], "ema": 0.97}},
    "vicreg": {"lr": 0.02},
}


def _small_net(title: str, arch: str) -> Net:
    """The laptop's recipes on a tenth of CIFAR-10's images, with as many epochs, and rates chosen on held-out images.

    Of eight pairs of rate and weight decay this one was the best for labels, and no worse than the best for RotNet and
    Exemplar. NPID's rate was the best of six; rates and crops of the newer tasks were chosen from 6 to 14 trials. With
    few labels, labels and S4L have the best of eight pairs each. docs/learning.md has the trials, and how the rate of
    fine-tuning was chosen.
    """
    labels = replace(_LAPTOP, samples=12 * _TENTH_IMAGES, lr=0.14, weight_decay=0.0014, pad=2, flip=True)
    recipes = _small(labels, _COLOUR)
    recipes["npid"] = replace(recipes["npid"], lr=0.013)
    for task, chosen in _TENTH_SIAMESE.items():
        recipes[task] = replace(recipes[task], crop=0.5, pad=0, **chosen)
    for part in LABELLED["digits"]:
        recipes[f"labels:{part}"] = replace(recipes[f"labels:{part}"], lr=0.1, weight_decay=5e-4)
        recipes[f"s4l:{part}"] = replace(recipes[f"s4l:{part}"], lr=0.2, weight_decay=0.0025)
    return _net(title, _TENTH, arch, recipes, rewind=_TENTH_IMAGES)


def _on_one_percent(lr: float, pad: int) -> Target:
    recipe = replace(_LAPTOP, samples=60 * 500, batch=32, lr=lr, pad=pad, flip=True)
    return Target(title="fine-tuned on 1% of the images", data="cifar10:1%-of-images", recipe=recipe, metric="top1")


# ------------------------------------------------------------------------------------- CIFAR-10 in hours


def _fast() -> dict[str, Recipe]:
    """One-cycle recipes in bfloat16: 15 epochs; 30 for NPID and newer tasks, at their published learning rates, scaled
    with the batch.
    """
    labels = Recipe(
        samples=15 * CIFAR,
        batch=512,
        lr=0.4,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        schedule="linear",
        warmup=3 * CIFAR,
        pad=4,
        flip=True,
        precision="bf16",
    )
    npid = replace(
        _CIFAR_NPID, samples=30 * CIFAR, batch=256, lr=0.06, schedule="linear", warmup=6 * CIFAR, precision="bf16"
    )
    recipes = {"labels": labels, "rotnet": labels, "exemplar": replace(labels, **_COLOUR), "npid": npid}
    recipes |= {task: _faster(today(task, "cifar10")) for task in SIAMESE}
    for part in LABELLED["cifar10"]:
        recipes |= _few(labels, part, samples=labels.samples // 2, batch=128)
    return recipes


def _faster(recipe: Recipe) -> Recipe:
    """A recipe of 200 epochs in batches of 128 as one cycle of 30 in batches of 256, with twice the learning rate."""
    cycle: dict[str, Any] = {"schedule": "linear", "warmup": 6 * CIFAR, "precision": "bf16"}
    return replace(recipe, samples=30 * CIFAR, batch=256, lr=2 * recipe.lr, **cycle)


def _fast_net(title: str, arch: str) -> Net:
    return replace(_cifar_net(title, arch), recipes=_fast())


# ------------------------------------------------------------------------------------- the paper


def _imagenet(arch: str) -> dict[str, Recipe]:
    """Recipes of Appendix D; for tasks that the paper trains on ResNet-50 only, the recipes of ResNet-50."""

    def recipe(task: str, data: str) -> Recipe:
        try:
            return appendix_d(task, data, arch)
        except KeyError:
            return appendix_d(task, data, "resnet50")

    recipes = {task: recipe(task, "imagenet") for task in ("labels", "rotnet", "exemplar", "npid")}
    recipes |= {task: today(task, "imagenet") for task in SIAMESE}
    for part in LABELLED["imagenet"]:
        s4l = recipe("s4l", "imagenet")
        recipes[f"labels:{part}"] = recipe("labels", f"imagenet:{part}")
        recipes[f"s4l:{part}"] = replace(s4l, options={**dict(s4l.options), "labelled": part})
    return recipes


def _imagenet_net(title: str, arch: str) -> Net:
    return _net(title, "imagenet", arch, _imagenet(arch), REWIND["imagenet"])


def _transfer(kind: str) -> Any:
    return TRANSFER[kind].recipe


PAPER_LEVELS = (1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 21, 24, 27, 30)
"""Fourteen levels from 20% to 99.9% pruned, as in the paper (3.3), which does not list them."""

# ------------------------------------------------------------------------------------- the scales

SETTINGS: dict[str, Setting] = {
    # Weights left at levels 3, 7, 10, 14, 18, 21, 24: 51.2, 21.0, 10.7, 4.4, 1.8, 0.92, 0.47 %.
    "laptop": _digits_setting(
        epochs=12, schedule="cosine", costs=(0.1, 1.0, 10.0), keep=0.8, levels=(3, 7, 10, 14, 18, 21, 24)
    ),
    # Each round is two of the paper's. Weights left: 41.0, 16.8, 4.4, 1.8 %. A training takes one core 15 s.
    "cifar10-small": Setting(
        net=_small_net("CIFAR-10, 5,000 images, five convolutions", "conv5"),
        others={
            "resnet": _small_net("CIFAR-10, 5,000 images, small ResNet", "resnet8"),
            "alexnet": _small_net("CIFAR-10, 5,000 images, small AlexNet", "alexnet8"),
        },
        linear=_probes(_TENTH, replace(_LINEAR, samples=60 * _TENTH_IMAGES, batch=64), costs=(0.01, 0.1, 1.0)),
        finetune=_on_one_percent(lr=0.03, pad=2),
        keep=0.64,
        levels=(2, 4, 7, 9),
        seeds=2,
    ),
    # For one GPU and some hours. Weights left: 64, 41, 26, 17, 11, 6.9, 4.4, 2.8, 1.8, 1.2 %.
    "cifar10-fast": Setting(
        gpus=1.0,
        net=_fast_net("CIFAR-10, ResNet-18 half as wide", "resnet18-cifar-half"),
        others={
            "vgg11": _fast_net("CIFAR-10, VGG-11", "vgg11"),
            "alexnet": _fast_net("CIFAR-10, small AlexNet", "alexnet8"),
        },
        linear=_probes("cifar10", _LINEAR, costs=(0.001, 0.01, 0.1)),
        finetune=_on_one_percent(lr=0.01, pad=4),
        keep=0.64,
        levels=tuple(range(1, 11)),
        seeds=3,
    ),
    "cifar10": Setting(
        gpus=1.0,
        net=_cifar_net("CIFAR-10, ResNet-18", "resnet18-cifar"),
        others={
            "vgg19": _cifar_net("CIFAR-10, VGG-19", "vgg19"),
            "alexnet": _cifar_net("CIFAR-10, small AlexNet", "alexnet8"),
        },
        linear=(
            Probe(title="CIFAR-10, linear classifier", data="cifar10", recipe=_LINEAR, metric="top1"),
            Probe(title="CIFAR-100, linear classifier", data="cifar100", recipe=_LINEAR, metric="top1"),
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
        net=_imagenet_net("ImageNet, ResNet-50", "resnet50"),
        others={
            "resnet18": _cifar_net("CIFAR-10, ResNet-18", "resnet18-cifar"),
            "vgg19": _cifar_net("CIFAR-10, VGG-19", "vgg19"),
            "alexnet": _imagenet_net("ImageNet, AlexNet", "alexnet-bn"),
        },
        linear=(
            Probe(title="VOC07, linear SVMs", data="voc07/whole", recipe=_transfer("svm"), metric="map"),
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


def _in_tf32(setting: Setting) -> Setting:
    """The setting in TF32, PyTorch's default for convolutions on GPUs that support it."""

    def net(net: Net) -> Net:
        return replace(net, recipes={name: replace(recipe, precision="tf32") for name, recipe in net.recipes.items()})

    def probe(probe: Any) -> Any:
        recipe = probe.recipe  # SVMs are fitted on the CPU in any case
        return replace(probe, recipe=replace(recipe, precision="tf32")) if isinstance(recipe, Recipe) else probe

    return replace(
        setting,
        net=net(setting.net),
        others={role: net(other) for role, other in setting.others.items()},
        linear=tuple(map(probe, setting.linear)),
        finetune=probe(setting.finetune),
    )


SETTINGS = _Settings(SETTINGS | {scale: _in_tf32(SETTINGS[scale]) for scale in ("cifar10", "paper")})

# ------------------------------------------------------------------------------------- Figures 6 and 10

SGD, ADAM, ON_CIFAR10, ON_IMAGENET = "SGD", "Adam with L2", "CIFAR-10", "ImageNet"
"""Titles of trainings without pruning."""

_DIGITS_NETS = ("conv4",), ("conv4", "resnet8", "alexnet8")
_LARGE = ("vgg11", "vgg13", "vgg16", "vgg19", "resnet18", "resnet34", "resnet50")
_LARGE_CIFAR = tuple(f"{arch}-cifar" if arch.startswith("resnet") else arch for arch in _LARGE)

UNPRUNED_ARCHS = {
    "laptop": _DIGITS_NETS,
    "smoke": _DIGITS_NETS,
    "cifar10-small": (("conv5",), ("conv5", "resnet8", "alexnet8")),
    "cifar10-fast": (("vgg11", "resnet18-cifar"), ("vgg11", "vgg13", "resnet18-cifar", "resnet34-cifar")),
    "cifar10": (("vgg19", "resnet18-cifar"), _LARGE_CIFAR),
    "paper": (("vgg19", "resnet18"), _LARGE),
}
"""Networks of Figures 6 and 10, by scale. For Figure 10 the paper lists none; these are its VGGs and ResNets."""


def _unpruned(scale: str) -> dict[str, tuple[str, Recipe]]:
    """The trainings in which weights may vanish without pruning (paper 4.3 and Appendix C).

    The scales ``cifar10`` and ``paper`` use the paper's recipe for CIFAR-10, and ``paper`` on ImageNet that of
    ResNet-50. Other scales compare our SGD with the paper's optimiser for CIFAR-10, Adam with L2 in the gradient.
    """
    s, theirs = SETTINGS[scale], appendix_d("labels", "cifar10", "vgg19")
    ours = s.recipes["labels"]
    adam = replace(ours, optimizer="adam", momentum=0.0, nesterov=False, lr=0.001, weight_decay=theirs.weight_decay)
    return {
        "paper": {ON_CIFAR10: ("cifar10", theirs), ON_IMAGENET: (s.data, ours)},
        "cifar10": {ON_CIFAR10: (s.data, theirs)},
    }.get(scale, {SGD: (s.data, ours), ADAM: (s.data, adam)})


SETTINGS |= {
    scale: replace(
        SETTINGS[scale], unpruned=_unpruned(scale), unpruned_archs=dict(zip(("fig6", "fig10"), archs, strict=True))
    )
    for scale, archs in UNPRUNED_ARCHS.items()
}
