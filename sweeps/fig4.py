"""Figure 4: winning tickets where only the first layers are pruned.

Prune iteratively on labels and on RotNet, but only down to a given depth; train the winning tickets on labels. The
paper's answer: the gap between labels and RotNet is narrow if only the first convolutions are pruned, and wide if the
last are too, since self-supervised features are good in shallow layers and poor in deep ones.

The paper does not say down to which depths ResNet-50 is pruned; here they are the ends of its stages.
"""

from collections.abc import Iterator

from raysslprune import SETTINGS, TICKET, Curve, Figure, Point, claims_on_depth, depths, pruned_to_depth

FIGURE = Figure(title="Winning tickets of networks pruned to a depth", references=(Curve(task="labels", init=TICKET),))

CLAIMS = tuple(claims_on_depth("rotnet"))


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    yield from pruned_to_depth(s.net, depths(s.arch), ["rotnet"], seed=seed, levels=s.levels, keep=s.keep)
