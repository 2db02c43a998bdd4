"""Figure 10: as Figure 6, for more architectures.

The paper does not list them; these are its VGGs, with one fully-connected layer in the place of three, and ResNets.
On ImageNet all networks use the recipe of ResNet-50, since the paper gives no other.
"""

from collections.abc import Iterator

from raysslprune import SETTINGS, Magnitudes, Point, unpruned

FIGURE = Magnitudes(title="Magnitudes of the weights of unpruned networks, more architectures")


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    yield from unpruned(scale, SETTINGS[scale].unpruned_archs["fig10"], seed=seed)
