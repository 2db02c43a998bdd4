"""Other criteria of pruning: are their masks as good if they are found without labels?

Not in the paper, which prunes by magnitude alone. A dense network, trained on labels or on RotNet, is pruned once to
each density, by magnitude, LAMP, movement or Taylor. A network that is not trained at all is pruned by SNIP or GraSP,
by the loss on labels or on RotNet, or by SynFlow, which has no loss. Every mask is trained on labels from the initial
weights. The controls are random masks, masks shuffled within each layer, and random masks with ERK's densities.

Frankle et al. 2021 (https://arxiv.org/abs/2009.08576) find that masks at initialisation are better than chance, worse
than magnitude after training, and no worse if they are shuffled within each layer, so that only densities matter.
"""

from collections.abc import Iterator

from raysslprune import CONTROLS, INITIAL, SETTINGS, Claim, Curve, Figure, Point, by_criteria, claims_on_criteria

FIGURE = Figure(
    title="Masks by other criteria, trained on labels",
    references=(Curve(task="labels", init=INITIAL),),
    controls=CONTROLS,
)


def claims(scale: str) -> Iterator[Claim]:
    """Claims of Frankle et al., and the same questions about masks found without labels."""
    yield from claims_on_criteria(SETTINGS[scale].margin)


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed, at every second level, the last one included."""
    s = SETTINGS[scale]
    levels = s.levels[::-2][::-1]
    yield from by_criteria(s.net, ("labels", "rotnet"), seed=seed, levels=levels, keep=s.keep)
