"""Figure 4: winning tickets where only the first layers are pruned.

Prune iteratively on labels and on RotNet, but only down to a given depth; train the winning tickets on labels. The
paper's answer: between labels and RotNet the gap is narrow where the first convolutions are pruned, and wide where
the last ones are, since self-supervised features are good in shallow layers and poor in deep ones.

The paper does not say at which depths ResNet-50 is pruned: here after its stages.
"""

from collections.abc import Iterator

from raysslprune import SETTINGS, TICKET, Curve, Figure, Point, claims_on_depth, layerwise

DEPTHS = {
    "conv4": {"convolution 1": "convs:1", "up to 2": "convs:2", "up to 3": "convs:3", "whole network": "all"},
    "conv5": {"convolution 1": "convs:1", "up to 3": "convs:3", "up to 4": "convs:4", "whole network": "all"},
    # A stage with all before it, the first convolution too
    "resnet18-cifar": {
        "stage 1": "convs:5",
        "up to 2": "convs:10",
        "up to 3": "convs:15",
        "whole network": "all",
    },
    "resnet50": {"stage 1": "convs:11", "up to 2": "convs:24", "up to 3": "convs:43", "whole network": "all"},
}

FIGURE = Figure(title="Winning tickets of networks pruned to a depth", references=(Curve(task="labels", init=TICKET),))

CLAIMS = tuple(claims_on_depth("rotnet"))


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    yield from layerwise(s, DEPTHS[s.arch], ["rotnet"], seed=seed, levels=s.levels[:-1], keep=s.keep)
