"""The paper's recipes, as literal tables to hold against its Appendix D by eye. Lengths are in samples seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raysslprune.spec import SVM, Recipe

# ------------------------------------------------------------------------------------- the paper

IMAGENET = 1_280_000
"""Training images of ImageNet as the paper counts them, in Table 1; there are 1,281,167."""

TENTH = 128_000
"""Images of 10% of each of ImageNet's classes, or of 10% of the classes, counted so too."""

CIFAR = 50_000
VOC07 = 5_011
"""Images of VOC2007's trainval."""

SURE = {
    "P": "read in the paper",
    "P?": "read in the paper, where a wrong digit in the copy that was read would not be noticed",
    "D": "follows from what the paper says",
    "R": "not in the paper; from a work that it cites, or from that work's or its authors' code",
    "E": "not in the paper; our choice",
}
"""How sure a value is."""


@dataclass(frozen=True)
class Row:
    """A recipe of the paper: of ``tasks`` on ``data`` with ``archs``, on so many ``gpus`` (0: it does not say).

    guessed: what is less sure than P of the recipe's fields and of the task's options, by name: a key of SURE.
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
    weight_decay: float,
    decay_at: tuple[int, ...],
    crop: float = 0.08,
    **more: Any,
) -> Recipe:
    """epochs, warmup, decay_at: in epochs of ``of`` samples. each: the batch of one GPU."""
    return Recipe(
        samples=epochs * of,
        batch=batch,
        bn_batch=each,
        lr=lr,
        momentum=0.9,
        weight_decay=weight_decay,
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
"""Exemplar's "colour augmentation and small random rotations": the paper gives no strengths."""

_EXEMPLAR = (("dimension", 128), ("margin", 0.5), ("negatives", "random"))
"""The margin is that of Doersch & Zisserman 2017 and of google/revisiting-self-supervised."""

_NPID = (("dimension", 128), ("momentum", 0.5), ("negatives", 16_384), ("temperature", 0.07))
"""The paper gives the negatives; the others are Wu et al.'s (zhirongw/lemniscate.pytorch)."""

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
"""The paper's Appendix D, every bullet, in its order. Decays are by 10."""

REWIND = {"imagenet": 3 * IMAGENET, "cifar10": 1 * CIFAR}
"""Samples seen at the point that winning tickets are rewound to, whatever the task (paper, Appendix A)."""

COSTS = tuple(sorted({*(10.0**e for e in range(-7, 3)), *(2.0**-e for e in range(4, 20))}))
"""Of linear SVMs, to choose from: the 26 of Goyal et al. 2019."""

TRANSFER: dict[str, Row] = {
    # Goyal et al. 2019: 140,000 updates. Their colour changes have no strengths in the text; theirs are before a
    # BatchNorm without weights. The paper says no more than "SGD" and "final representation".
    "linear": Row(("labels",), "imagenet", ("resnet50", "alexnet-bn"), 0, Recipe(
        samples=140_000 * 256, batch=256, lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4, schedule="steps",
        decay_at=(40_000 * 256, 80_000 * 256, 120_000 * 256), crop=0.08, flip=True, options=(("standardise", True),),
    ), dict.fromkeys(("samples", "batch", "lr", "momentum", "nesterov", "weight_decay", "schedule", "decay_at", "crop",
                      "flip", "standardise"), "R")),
    "svm": Row(("labels",), "voc07", ("resnet50",), 0, SVM(costs=COSTS), {"costs": "R"}),
    # The batch and the weight decay are Goyal et al.'s, for the same experiment
    "finetune": Row(("labels",), "voc07", ("resnet50",), 0, Recipe(
        samples=90 * VOC07, batch=128, lr=0.01, momentum=0.9, weight_decay=1e-6, schedule="steps",
        decay_at=(50 * VOC07, 65 * VOC07, 80 * VOC07), crop=0.08, flip=True,
    ), {"batch": "R", "momentum": "E", "weight_decay": "R", "crop": "R", "flip": "R"}),
}  # fmt: skip
"""How pruned features are judged (paper 4.1). ``linear`` is the same for Places205."""


def appendix_d(task: str, data: str, arch: str) -> Recipe:
    """The paper's recipe. Raises KeyError where it has none."""
    for row in APPENDIX_D:
        if task in row.tasks and data == row.data and arch in row.archs and isinstance(row.recipe, Recipe):
            return row.recipe
    raise KeyError(f"the paper has no recipe of {task} on {data} with {arch}")


# ------------------------------------------------------------------------------------- what networks cost


@dataclass(frozen=True, kw_only=True)
class Net:
    """What a network costs before anything was measured. images_per_second: trained, on one core.

    macs: multiply-adds of one image of ``pixels`` x ``pixels``, forward, with its head. 0: not counted. Both speeds are
    for images of that size.
    """

    parameters: int
    prunable: int
    images_per_second: float
    macs: int = 0
    pixels: int = 224

    @property
    def on_gpu(self) -> float:
        """Images a second, trained on one GPU; 0 where nothing is known. Derived, unmeasured, but for ResNet-50."""
        return _ON_GPU * _RESNET50 / self.macs if self.macs else 0.0


GPU = "A100 (float32, TF32 in convolutions)"
"""The device that GPU-hours are stated for."""

_ON_GPU = 938.0
"""Images a second of ResNet-50, trained on one A100 80GB in TF32 at 224 pixels, images ready. R: NVIDIA's
DeepLearningExamples, PyTorch/Classification/ConvNets/resnet50v1.5/README.md, "Training performance results"."""

_RESNET50 = 4_089_184_256

PIXELS = {"digits": 8, "cifar10": 32, "cifar100": 32, "imagenet": 224, "places205": 224, "voc07": 224}
"""Height and width of a data set's images as networks see them; of others, what a network is made for."""

VIEWS = {"exemplar": 2, "s4l": 8}
"""Images that a task passes through the network for each sample, where it is not one. S4L: four turns of two."""


NETS: dict[str, Net] = {
    # parameters with a head of 10 classes, of 1,000 for the nets of ImageNet; images/s on one core of a two-core
    # virtual machine, 2026-11, for conv4; for the others from conv4's by the ratio of multiplications, unmeasured.
    "conv4": Net(parameters=33_338, prunable=32_400, images_per_second=14_000, macs=304_768, pixels=8),
    "conv5": Net(parameters=35_962, prunable=34_992, images_per_second=4_000, macs=1_438_336, pixels=32),
    "resnet8": Net(parameters=77_754, prunable=76_432, images_per_second=7_000, macs=763_520, pixels=8),
    "alexnet8": Net(parameters=376_794, prunable=369_296, images_per_second=6_800, macs=1_226_752, pixels=8),
    "resnet18-cifar": Net(
        parameters=11_173_962, prunable=11_159_232, images_per_second=45, macs=555_422_720, pixels=32
    ),
    "resnet34-cifar": Net(
        parameters=21_282_122, prunable=21_259_968, images_per_second=22, macs=1_159_402_496, pixels=32
    ),
    "resnet50-cifar": Net(
        parameters=23_520_842, prunable=23_447_232, images_per_second=18, macs=1_297_829_888, pixels=32
    ),
    "resnet18": Net(parameters=11_689_512, prunable=11_166_912, images_per_second=13, macs=1_814_073_344),
    "resnet34": Net(parameters=21_797_672, prunable=21_267_648, images_per_second=7, macs=3_663_761_408),
    "resnet50": Net(parameters=25_557_032, prunable=23_454_912, images_per_second=5, macs=_RESNET50),
    "vgg11": Net(parameters=9_231_114, prunable=9_217_728, images_per_second=150, macs=152_769_536, pixels=32),
    "vgg13": Net(parameters=9_416_010, prunable=9_402_048, images_per_second=100, macs=228_267_008, pixels=32),
    "vgg16": Net(parameters=14_728_266, prunable=14_710_464, images_per_second=75, macs=313_201_664, pixels=32),
    "vgg19": Net(parameters=20_040_522, prunable=20_018_880, images_per_second=60, macs=398_136_320, pixels=32),
    "alexnet": Net(parameters=61_100_840, prunable=56_994_496, images_per_second=25, macs=714_188_480),
    "alexnet-bn": Net(parameters=61_110_184, prunable=56_994_496, images_per_second=25, macs=714_188_480),
}
