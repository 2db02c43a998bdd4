"""Figure 9: as Figure 4, with AlexNet, whose MLP has most of the weights.

Prune the first convolution; up to the third; up to the fifth; or the whole network with its MLP. The paper's answer:
the gap between labels and RotNet is narrow for the convolutions and wide for the MLP.
"""

from collections.abc import Iterator

from raysslprune import SETTINGS, TICKET, Curve, Figure, Point, claims_on_depth, depths, pruned_to_depth

FIGURE = Figure(title="Winning tickets of AlexNet pruned to a depth", references=(Curve(task="labels", init=TICKET),))

CLAIMS = tuple(claims_on_depth("rotnet"))


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    net = s.others["alexnet"]
    yield from pruned_to_depth(net, depths(net.arch), ["rotnet"], seed=seed, levels=s.levels, keep=s.keep)
