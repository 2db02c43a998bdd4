"""Figure 9: as Figure 4, with AlexNet, whose MLP has most of the weights.

The first convolution; up to the third; up to the fifth; or the whole network, its MLP too. The paper's answer: the
gap between labels and RotNet is narrow for the convolutions and wide for the MLP.
"""

from collections.abc import Iterator

from raysslprune import SETTINGS, TICKET, Curve, Figure, Point, claims_on_depth, layerwise

DEPTHS = {"convolution 1": "convs:1", "up to 3": "convs:3", "up to 5": "convs:5", "whole network": "all"}

FIGURE = Figure(title="Winning tickets of AlexNet pruned to a depth", references=(Curve(task="labels", init=TICKET),))

CLAIMS = tuple(claims_on_depth("rotnet"))


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    yield from layerwise(s.others["alexnet"], DEPTHS, ["rotnet"], seed=seed, levels=s.levels[:-1], keep=s.keep)
