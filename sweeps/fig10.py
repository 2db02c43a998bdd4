"""Figure 10: as Figure 6, for more architectures.

The paper does not list them; these are its VGGs, with one fully-connected layer in the place of three, and ResNets.
ImageNet's recipe is that of ResNet-50 for all, since the paper gives no other.
"""

from collections.abc import Iterator

from raysslprune import Magnitudes, Point, unpruned

LARGE = ("vgg11", "vgg13", "vgg16", "vgg19", "resnet18", "resnet34", "resnet50")
NETS = {
    "laptop": ("conv4", "resnet8", "alexnet8"),
    "smoke": ("conv4", "resnet8", "alexnet8"),
    "cifar10-small": ("conv5", "resnet8", "alexnet8"),
    "cifar10": LARGE,
    "paper": LARGE,
}

FIGURE = Magnitudes(title="Magnitudes of the weights of unpruned networks, more architectures")


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    yield from unpruned(scale, NETS[scale], seed=seed)
