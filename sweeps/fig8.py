"""Figure 8: as Figure 3, with more networks.

VGG-19 and ResNet-18 on CIFAR-10, ResNet-50 and AlexNet on ImageNet; three small networks on digits. Masks pruned on
labels and on RotNet, and random ones, re-trained on labels; above from random weights, below as winning tickets.
"""

from collections.abc import Iterator

from raysslprune import (
    RANDOM,
    REINIT,
    SETTINGS,
    SHUFFLED,
    TICKET,
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
    controls=(SHUFFLED,),
    everywhere=(Curve(task=RANDOM, init=REINIT),),
)

CLAIMS = (*claims_on_labels(), *claims_on("rotnet"))


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    for net in s.nets.values():
        yield from retrained(net, ("labels", "rotnet"), seed=seed, levels=s.levels, keep=s.keep)
