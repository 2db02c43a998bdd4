"""Figure 8: as Figure 3, with more networks.

VGG-19 and ResNet-18 on CIFAR-10, ResNet-50 and AlexNet on ImageNet; three small networks on digits. Masks pruned on
labels, on RotNet and on Exemplar, and random masks, are re-trained on labels: above from random weights, below as
winning tickets. The controls drawn thin are those of Figure 3.
"""

from collections.abc import Iterator

from raysslprune import (
    BASELINES,
    CONTROLS,
    REINIT,
    SETTINGS,
    TICKET,
    Claim,
    Curve,
    Figure,
    Point,
    claims_on,
    claims_on_labels,
    retrained,
)

FIGURE = Figure(
    title="Re-training pruned masks on labels, more networks",
    inits=(REINIT, TICKET),
    references=(Curve(task="labels", init=TICKET),),
    controls=CONTROLS,
    everywhere=BASELINES,
)


def claims(scale: str) -> Iterator[Claim]:
    """The paper's claims: random masks are adjusted for natural zeros in the panels that have them."""
    yield from claims_on_labels(SETTINGS[scale].margin)
    for task in ("rotnet", "exemplar"):
        yield from claims_on(task, SETTINGS[scale].nets.values(), SETTINGS[scale].margin)


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    for net in s.nets.values():
        yield from retrained(net, ("labels", "rotnet", "exemplar"), seed=seed, levels=s.levels, keep=s.keep)
