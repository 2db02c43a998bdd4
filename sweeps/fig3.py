"""Figure 3: masks found with and without labels, re-trained on labels.

Prune iteratively on labels, on RotNet and on Exemplar. Then train every subnetwork on labels, once from the weights
that the chain had early in its dense run (winning tickets) and once from new random weights (random re-init), and
compare with random masks. The paper's answer: from random weights, masks found without labels are as good as those
found with labels; as winning tickets they are not.

On CIFAR-10 many weights vanish without pruning (Figure 6), so further random masks keep only weights that do not, and
masks are compared with these (section 4.3). Beyond the paper, drawn thin: masks of labels and of RotNet shuffled within
each layer, which keep only the density of each layer; and random masks that keep more of small layers (ERK, Evci et al.
2020), whose densities need no training at all.
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
    Net,
    Point,
    claims_on,
    claims_on_labels,
    retrained,
)

FIGURE = Figure(
    title="Re-training pruned masks on labels",
    inits=(REINIT, TICKET),
    references=(Curve(task="labels", init=TICKET),),
    controls=CONTROLS,
    everywhere=BASELINES,
)


def nets(scale: str) -> list[Net]:
    """ImageNet and CIFAR-10 in the paper, one data set at the other scales."""
    s = SETTINGS[scale]
    return [s.net, *(net for role, net in s.others.items() if role == "resnet18")]


def claims(scale: str) -> Iterator[Claim]:
    """The paper's claims: random masks are adjusted for natural zeros in the panels that have them."""
    yield from claims_on_labels(SETTINGS[scale].margin)
    for task in ("rotnet", "exemplar"):
        yield from claims_on(task, nets(scale), SETTINGS[scale].margin)


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    for net in nets(scale):
        yield from retrained(net, ("labels", "rotnet", "exemplar"), seed=seed, levels=s.levels, keep=s.keep)
