"""Figure 3: masks found with and without labels, re-trained on labels.

Prune iteratively on labels, on RotNet and on Exemplar. Then train every subnetwork on labels, once from the weights
that the chain had early in its dense run (winning tickets) and once from new random weights (random re-init), beside
masks drawn at random. The paper's answer: as masks, those found without labels are as good as those found with them;
as winning tickets they are not.

On CIFAR-10 many weights vanish of themselves (Figure 6), so random masks are also drawn among those that do not
(section 4.3). Beyond the paper, drawn thin: the label masks shuffled within each layer, which keep only how much of
each layer is left.
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
    title="Re-training pruned masks on labels",
    inits=(REINIT, TICKET),
    references=(Curve(task="labels", init=TICKET),),
    controls=(SHUFFLED,),
    everywhere=(Curve(task=RANDOM, init=REINIT),),
)

CLAIMS = (*claims_on_labels(), *claims_on("rotnet"), *claims_on("exemplar"))


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed: ImageNet and CIFAR-10 in the paper, one data set at the other scales."""
    s = SETTINGS[scale]
    nets = [s, *(net for role, net in s.others.items() if role == "resnet18")]
    for net in nets:
        yield from retrained(net, ("labels", "rotnet", "exemplar"), seed=seed, levels=s.levels, keep=s.keep)
