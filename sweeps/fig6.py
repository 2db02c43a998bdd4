"""Figure 6: weights that vanish without being pruned.

Train on labels, prune nothing, and sort the weights by magnitude. The paper's answer: on CIFAR-10 about 85% of
VGG-19's weights and 80% of ResNet-18's end at zero, on ImageNet none. Such a network is pruned down to that for
nothing, so comparisons at lower rates mean little.

It takes Adam with L2 in the gradient, long training, and a network that is far too large. On digits, where no weight
vanishes, the figure compares our SGD with such an Adam.
"""

from collections.abc import Iterator

from raysslprune import Claim, Curve, Magnitudes, Point, unpruned
from raysslprune.paper.experiments import CIFAR10, IMAGENET

NETS = {
    "laptop": ("conv4",),
    "smoke": ("conv4",),
    "cifar10-small": ("conv5",),
    "cifar10": ("vgg19", "resnet18"),
    "paper": ("vgg19", "resnet18"),
}

FIGURE = Magnitudes(title="Magnitudes of the weights of unpruned networks")


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    yield from unpruned(scale, NETS[scale], seed=seed)


def claims(scale: str) -> Iterator[Claim]:
    """What section 4.3 says of CIFAR-10 and ImageNet."""
    for panel, zeros in (("VGG-19", 84.5), ("ResNet-18", 80.3)) if scale in ("cifar10", "paper") else ():
        yield Claim(
            says=f"{zeros}% of {panel}'s weights vanish on CIFAR-10",
            source="Figure 6",
            higher=Curve(task="labels", init=CIFAR10, panel=panel),
            lower=zeros,
            relation="equal",
            margin=5.0,
        )
    if scale == "paper":
        yield Claim(
            says="On ImageNet no weights vanish",
            source="Figure 6",
            higher=Curve(task="labels", init=IMAGENET),
            lower=0.0,
            relation="equal",
            margin=1.0,
        )
