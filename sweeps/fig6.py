"""Figure 6: weights that vanish without being pruned.

Train on labels, prune nothing, and sort the weights by magnitude. The paper's answer: on CIFAR-10 about 85% of
VGG-19's weights and 80% of ResNet-18's end at zero, on ImageNet none. Pruning such a network costs nothing until these
are gone, so comparisons at lower pruning rates mean little.

Weights vanish only with Adam and L2 in the gradient, long training, and a network that is far too large. On digits,
where no weight vanishes, the figure compares our SGD with Adam and L2.
"""

from collections.abc import Iterator

from raysslprune import SETTINGS, Claim, Curve, Magnitudes, Point, unpruned
from raysslprune.paper.scales import ON_CIFAR10, ON_IMAGENET

FIGURE = Magnitudes(title="Magnitudes of the weights of unpruned networks")


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    yield from unpruned(scale, SETTINGS[scale].unpruned_archs["fig6"], seed=seed)


def claims(scale: str) -> Iterator[Claim]:
    """Claims of section 4.3 on CIFAR-10 and ImageNet."""
    s = SETTINGS[scale]
    measured = {"vgg19": ("VGG-19", 84.5), "resnet18": ("ResNet-18", 80.3)} if ON_CIFAR10 in s.unpruned else {}
    archs = (arch.removesuffix("-cifar") for arch in s.unpruned_archs["fig6"])
    for panel, zeros in (measured[arch] for arch in archs if arch in measured):
        yield Claim(
            says=f"{zeros}% of {panel}'s weights vanish on CIFAR-10",
            source="Figure 6",
            higher=Curve(task="labels", init=ON_CIFAR10, panel=panel),
            lower=zeros,
            relation="equal",
            margin=5.0,
        )
    if ON_IMAGENET in s.unpruned:
        yield Claim(
            says="On ImageNet no weights vanish",
            source="Figure 6",
            higher=Curve(task="labels", init=ON_IMAGENET),
            lower=0.0,
            relation="equal",
            margin=1.0,
        )
