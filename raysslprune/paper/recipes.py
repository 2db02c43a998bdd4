"""The paper's recipes, as literal tables to compare with its Appendix D by eye. Lengths are in samples seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raysslprune.spec import SVM, Option, Recipe

# ------------------------------------------------------------------------------------- the paper

IMAGENET = 1_280_000
"""Training images of ImageNet as the paper's Table 1 counts them; there are 1,281,167."""

TENTH = 128_000
"""Images in 10% of each of ImageNet's classes, or in 10% of the classes, counted in the same way."""

CIFAR = 50_000
VOC07 = 5_011
"""Images of VOC2007's trainval."""

SURE = {
    "P": "read in the paper",
    "P?": "read in the paper, where a wrong digit in the copy that was read would not be noticed",
    "D": "follows from what the paper says",
    "R": "not in the paper; from a work that it cites, or from that work's or its authors' code",
    "A": "newer than the paper; from the task's authors, their paper or their code",
    "L": "newer than the paper; from a published benchmark: lightly's or solo-learn's",
    "E": "not in the paper; our choice",
}
"""Certainty of a value, by letter."""


@dataclass(frozen=True)
class Row:
    """A recipe of the paper for ``tasks`` on ``data`` with ``archs``, on ``gpus`` GPUs (0: the paper does not say).

    guessed: key of SURE for each field of the recipe and option of the task that is less certain than P, by name.
    """

    tasks: tuple[str, ...]
    data: str
    archs: tuple[str, ...]
    gpus: int
    recipe: Recipe | SVM
    guessed: Mapping[str, str] = field(default_factory=dict)


def _imagenet(
    epochs: int,
    of: int,
    batch: int,
    each: int,
    lr: float,
    warmup: int,
    decay: float,
    decay_at: tuple[int, ...],
    crop: float = 0.08,
    **more: Any,
) -> Recipe:
    """A recipe for ImageNet. epochs, warmup, decay_at: in epochs of ``of`` samples. each: samples in a GPU's batch."""
    return Recipe(
        samples=epochs * of,
        batch=batch,
        bn_batch=each,
        lr=lr,
        momentum=0.9,
        weight_decay=decay,
        schedule="steps" if decay_at else "cosine",
        decay_at=tuple(at * of for at in decay_at),
        warmup=warmup * of,
        crop=crop,
        flip=True,
        **more,
    )


def _cifar(epochs: int, lr: float, decay_at: tuple[int, ...], **more: Any) -> Recipe:
    return Recipe(
        samples=epochs * CIFAR,
        batch=512,
        lr=lr,
        optimizer="adam",
        weight_decay=1e-4,
        schedule="steps",
        decay_at=tuple(at * CIFAR for at in decay_at),
        pad=2,
        flip=True,
        **more,
    )


_COLOUR: dict[str, Any] = {"angle": 10, "jitter": (0.4, 0.4, 0.4, 0.1)}
"""Augmentation for Exemplar's "colour augmentation and small random rotations": the paper gives no strengths."""

_EXEMPLAR: dict[str, Option] = {"dimension": 128, "margin": 0.5, "negatives": "random"}
"""Options of Exemplar. The margin is that of Doersch & Zisserman 2017 and of google/revisiting-self-supervised."""

_NPID: dict[str, Option] = {"dimension": 128, "momentum": 0.5, "negatives": 16_384, "temperature": 0.07}
"""Options of NPID. The paper gives the negatives; the others are Wu et al.'s (zhirongw/lemniscate.pytorch)."""

_IN_CROP = {"crop": "R"}
_IN_EXEMPLAR = {"angle": "E", "jitter": "E", "dimension": "E", "margin": "R", "negatives": "E"}

APPENDIX_D: tuple[Row, ...] = (
    #                                             epochs       batch each  lr  warm-up wd    decay at
    Row(("labels",), "imagenet", ("alexnet-bn",), 8,
        _imagenet(90, IMAGENET, 4096, 512, 0.4, 0, 1e-4, (30, 60)), _IN_CROP),
    Row(("labels",), "imagenet", ("resnet50",), 16,
        _imagenet(90, IMAGENET, 1536, 96, 0.1, 0, 1e-4, (50, 65, 80)), _IN_CROP),
    Row(("labels",), "imagenet:10%-of-images", ("resnet50",), 8,
        _imagenet(200, TENTH, 768, 96, 0.1, 5, 1e-3, (140, 160, 180)), _IN_CROP),
    Row(("labels",), "imagenet:10%-of-classes", ("resnet50",), 8,
        _imagenet(200, TENTH, 768, 96, 0.3, 5, 3e-4, (140, 160, 180)), _IN_CROP | {"lr": "P?"}),
    # "batch 2048, 32 x 64" counts views: a sample here is a labelled and an unlabelled image, four turns of each
    Row(("s4l",), "imagenet", ("resnet50",), 32,
        _imagenet(200, TENTH, 2048 // 8, 64 // 8, 0.1, 5, 3e-4, (140, 160, 180)),
        _IN_CROP | {"samples": "D", "batch": "D", "bn_batch": "D", "decay_at": "D", "warmup": "D"}),
    Row(("rotnet",), "imagenet", ("resnet50",), 16,
        _imagenet(90, IMAGENET, 1536, 96, 1.0, 5, 1e-5, (50, 65, 80)), _IN_CROP | {"lr": "P?", "weight_decay": "P?"}),
    Row(("exemplar",), "imagenet", ("resnet50",), 32,
        _imagenet(40, IMAGENET, 1536, 48, 0.3, 0, 1e-5, (20, 30), options=_EXEMPLAR, **_COLOUR),
        _IN_CROP | _IN_EXEMPLAR | {"weight_decay": "P?"}),
    Row(("npid",), "imagenet", ("resnet50",), 8,
        _imagenet(150, IMAGENET, 1024, 128, 0.03, 0, 1e-4, (), crop=0.2, options=_NPID, jitter=(0.4,) * 4,
                  grayscale=0.2),
        {"lr": "P?", "crop": "R", "jitter": "R", "grayscale": "R", "dimension": "R", "momentum": "R",
         "temperature": "R"}),
    Row(("rotnet",), "imagenet", ("alexnet-bn",), 16,
        _imagenet(90, IMAGENET, 8192, 512, 0.5, 2, 1e-5, (30, 60)), _IN_CROP | {"weight_decay": "P?"}),
    Row(("exemplar",), "imagenet", ("alexnet-bn",), 16,
        _imagenet(30, IMAGENET, 4096, 256, 0.1, 0, 1e-4, (20,), options=_EXEMPLAR, **_COLOUR),
        _IN_CROP | _IN_EXEMPLAR),
    Row(("labels", "rotnet"), "cifar10", ("vgg19", "resnet18-cifar"), 1,
        _cifar(160, 0.001, (80, 120)), {"pad": "P?"}),
    Row(("exemplar",), "cifar10", ("vgg19", "resnet18-cifar"), 1,
        _cifar(180, 0.0003, (120,), options=_EXEMPLAR, **_COLOUR), _IN_EXEMPLAR | {"pad": "P?", "lr": "P?"}),
)  # fmt: skip
"""All bullets of the paper's Appendix D, in its order. Decays are by 10."""

REWIND = {"imagenet": 3 * IMAGENET, "cifar10": 1 * CIFAR}
"""Samples seen at the point to which winning tickets are rewound, whatever the task (paper, Appendix A)."""

COSTS = tuple(sorted({*(10.0**e for e in range(-7, 3)), *(2.0**-e for e in range(4, 20))}))
"""Costs of linear SVMs to choose from: the 26 of Goyal et al. 2019."""

TRANSFER: dict[str, Row] = {
    # Goyal et al. 2019: 140,000 updates. Their text has no strengths for its colour changes; their classifiers follow a
    # BatchNorm without weights. The paper says no more than "SGD" and "final representation".
    "linear": Row(("labels",), "imagenet", ("resnet50", "alexnet-bn"), 0, Recipe(
        samples=140_000 * 256, batch=256, lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4, schedule="steps",
        decay_at=(40_000 * 256, 80_000 * 256, 120_000 * 256), crop=0.08, flip=True, options={"standardise": True},
    ), dict.fromkeys(("samples", "batch", "lr", "momentum", "nesterov", "weight_decay", "schedule", "decay_at", "crop",
                      "flip", "standardise"), "R")),
    "svm": Row(("labels",), "voc07", ("resnet50",), 0, SVM(costs=COSTS), {"costs": "R"}),
    # The batch and the weight decay are Goyal et al.'s, for the same experiment
    "finetune": Row(("labels",), "voc07", ("resnet50",), 0, Recipe(
        samples=90 * VOC07, batch=128, lr=0.01, momentum=0.9, weight_decay=1e-6, schedule="steps",
        decay_at=(50 * VOC07, 65 * VOC07, 80 * VOC07), crop=0.08, flip=True,
    ), {"batch": "R", "momentum": "E", "weight_decay": "R", "crop": "R", "flip": "R"}),
}  # fmt: skip
"""Recipes to judge pruned features with (paper 4.1). ``linear`` also serves for Places205."""


_JITTER: dict[str, Any] = {"jitter": (0.4, 0.4, 0.4, 0.1), "grayscale": 0.2}
_SIAMESE: dict[str, Any] = {"momentum": 0.9, "schedule": "cosine", "flip": True}
"""What all rows of TODAY have."""


def _from(grade: str, *names: str) -> dict[str, str]:
    return dict.fromkeys(names, grade)


_IN_SIAMESE = _from("A", "momentum", "schedule", "flip", "grayscale", "crop", "jitter", "dimension", "hidden")
_IN_LIGHTLY = _from("L", "samples", "batch", "lr", "weight_decay", "momentum", "schedule") | _from(
    "L", "crop", "flip", "jitter", "grayscale"
)
_IN_VICREG = _from("A", "invariance", "variance", "covariance")


def _siamese(lr: float, decay: float, crop: float, **more: Any) -> Recipe:
    """A recipe for ImageNet: 100 epochs in batches of 512, with 10 epochs of warm-up."""
    given = {"samples": 100 * IMAGENET, "batch": 512, "bn_batch": 64, "warmup": 10 * IMAGENET, **_SIAMESE, **more}
    return Recipe(lr=lr, weight_decay=decay, crop=crop, **given)


def _cifar_siamese(lr: float = 0.06, **options: Option) -> Recipe:
    """lightly's benchmark on CIFAR-10, cifar10_benchmark.py: the same for all tasks but for their options."""
    return Recipe(samples=200 * CIFAR, batch=128, lr=lr, weight_decay=5e-4, crop=0.08, options=options, **_JITTER,
                  **_SIAMESE)  # fmt: skip


_LARS = {"batch": "E", "bn_batch": "E", "lr": "E", "weight_decay": "E"}
"""Fields that the authors choose for LARS, or for BatchNorm over thousands of images, neither of which we have. The
rate is 0.05 * batch / 256, with which Chen & He 2021 (https://arxiv.org/abs/2011.10566) train such networks by SGD; for
VICReg, whose loss is some 25 times as large, a fifth of it."""

TODAY: tuple[Row, ...] = (
    Row(("simclr",), "imagenet", ("resnet50",), 0,
        _siamese(0.1, 1e-4, 0.08, jitter=(0.8, 0.8, 0.8, 0.2), grayscale=0.2,
                 options={"dimension": 128, "hidden": 2048, "temperature": 0.1}),
        _IN_SIAMESE | _LARS | _from("A", "samples", "warmup", "weight_decay", "temperature")),
    Row(("moco",), "imagenet", ("resnet50",), 8,
        _siamese(0.03, 1e-4, 0.2, samples=200 * IMAGENET, batch=256, bn_batch=32, warmup=0, **_JITTER,
                 options={"dimension": 128, "hidden": 2048, "temperature": 0.2, "queue": 65_536, "ema": 0.999}),
        _IN_SIAMESE | _from("A", "samples", "batch", "bn_batch", "lr", "weight_decay", "temperature", "queue", "ema")),
    Row(("byol",), "imagenet", ("resnet50",), 0,
        _siamese(0.1, 1e-4, 0.08, jitter=(0.4, 0.4, 0.2, 0.1), grayscale=0.2,
                 options={"dimension": 256, "hidden": 4096, "ema": 0.99}),
        _IN_SIAMESE | _LARS | _from("A", "warmup") | _from("L", "samples", "ema")),
    Row(("vicreg",), "imagenet", ("resnet50",), 8,
        _siamese(0.02, 1e-4, 0.08, jitter=(0.4, 0.4, 0.2, 0.1), grayscale=0.2,
                 options={"dimension": 8192, "hidden": 8192, "invariance": 25.0, "variance": 25.0, "covariance": 1.0}),
        _IN_SIAMESE | _LARS | _IN_VICREG | _from("A", "samples", "batch", "bn_batch", "warmup")),
    Row(("simclr",), "cifar10", ("resnet18-cifar",), 1,
        _cifar_siamese(dimension=128, hidden=512, temperature=0.5),
        _IN_LIGHTLY | _from("L", "dimension", "hidden", "temperature")),
    Row(("moco",), "cifar10", ("resnet18-cifar",), 1,
        _cifar_siamese(dimension=128, hidden=512, temperature=0.1, queue=4096, ema=0.99),
        _IN_LIGHTLY | _from("L", "dimension", "hidden", "temperature", "queue", "ema")),
    Row(("byol",), "cifar10", ("resnet18-cifar",), 1,
        _cifar_siamese(dimension=256, hidden=1024, ema=0.99),
        _IN_LIGHTLY | _from("L", "dimension", "hidden", "ema") | {"jitter": "E"}),
    # lightly has no recipe of VICReg on CIFAR-10; the expander's widths are solo-learn's
    Row(("vicreg",), "cifar10", ("resnet18-cifar",), 1,
        _cifar_siamese(0.01, dimension=2048, hidden=2048, invariance=25.0, variance=25.0, covariance=1.0),
        _from("E", *_IN_LIGHTLY) | _from("L", "dimension", "hidden") | _IN_VICREG),
)  # fmt: skip
"""Recipes of tasks newer than the paper, as published: on ImageNet by their authors, on CIFAR-10 by lightly."""


def today(task: str, data: str) -> Recipe:
    """The recipe of TODAY for a task and a data set. Raises KeyError if there is none."""
    for row in TODAY:
        if task in row.tasks and data == row.data and isinstance(row.recipe, Recipe):
            return row.recipe
    raise KeyError(f"there is no recipe of {task} on {data}")


def appendix_d(task: str, data: str, arch: str) -> Recipe:
    """The paper's recipe for a task, a data set and an architecture. Raises KeyError if the paper has none."""
    for row in APPENDIX_D:
        if task in row.tasks and data == row.data and arch in row.archs and isinstance(row.recipe, Recipe):
            return row.recipe
    raise KeyError(f"the paper has no recipe of {task} on {data} with {arch}")


# ------------------------------------------------------------------------------------- what networks cost


@dataclass(frozen=True)
class Net:
    """Expected costs of a network before any measurement. images_per_second: training speed on one core.

    macs: multiply-adds of a forward pass, head included, on one image of ``pixels`` x ``pixels``; 0: not counted. Both
    speeds are for this image size.
    """

    parameters: int
    prunable: int
    images_per_second: float
    macs: int = 0
    pixels: int = 224

    @property
    def on_gpu(self) -> float:
        """Training speed on one GPU, images a second; 0 if unknown. Derived, not measured, except for ResNet-50."""
        return _ON_GPU * _RESNET50 / self.macs if self.macs else 0.0


GPU = "A100 (TF32)"
"""Device of the stated GPU-hours."""

_ON_GPU = 938.0
"""Images a second of ResNet-50, trained on one A100 80GB in TF32 at 224 pixels, without loading. R: NVIDIA's
DeepLearningExamples, PyTorch/Classification/ConvNets/resnet50v1.5/README.md, "Training performance results"."""

_RESNET50 = 4_089_184_256

PIXELS = {"digits": 8, "cifar10": 32, "cifar100": 32, "imagenet": 224, "places205": 224, "voc07": 224}
"""Height and width of a data set's images as networks see them; for other data sets, a network's own ``pixels``."""

VIEWS = {"exemplar": 2, "s4l": 8, "simclr": 2, "byol": 2, "vicreg": 2}
"""Images that a task passes through the network for each sample, if more than one. S4L: four turns of two."""

TARGETS = {"moco": 1, "byol": 2}
"""Images that a task also passes through a moving average of the network for each sample, forward only."""


NETS: dict[str, Net] = {
    # Parameters include a head of 10 classes, or of 1,000 for ImageNet. The speed of conv4 was measured on a core of a
    # two-core virtual machine in 2026-11; the others are derived from it by the ratio of multiplications, unmeasured.
    # Columns: parameters, prunable, images/s, macs, pixels.
    "conv4": Net(33_338, 32_400, 14_000, 304_768, 8),
    "conv5": Net(35_962, 34_992, 4_000, 1_438_336, 32),
    "resnet8": Net(77_754, 76_432, 7_000, 763_520, 8),
    "alexnet8": Net(376_794, 369_296, 6_800, 1_226_752, 8),
    "resnet18-cifar": Net(11_173_962, 11_159_232, 45, 555_422_720, 32),
    "resnet18-cifar-half": Net(2_797_610, 2_790_240, 180, 139_299_328, 32),
    "resnet34-cifar": Net(21_282_122, 21_259_968, 22, 1_159_402_496, 32),
    "resnet50-cifar": Net(23_520_842, 23_447_232, 18, 1_297_829_888, 32),
    "resnet18": Net(11_689_512, 11_166_912, 13, 1_814_073_344),
    "resnet34": Net(21_797_672, 21_267_648, 7, 3_663_761_408),
    "resnet50": Net(25_557_032, 23_454_912, 5, _RESNET50),
    "vgg11": Net(9_231_114, 9_217_728, 150, 152_769_536, 32),
    "vgg13": Net(9_416_010, 9_402_048, 100, 228_267_008, 32),
    "vgg16": Net(14_728_266, 14_710_464, 75, 313_201_664, 32),
    "vgg19": Net(20_040_522, 20_018_880, 60, 398_136_320, 32),
    "alexnet": Net(61_100_840, 56_994_496, 25, 714_188_480),
    "alexnet-bn": Net(61_110_184, 56_994_496, 25, 714_188_480),
}
