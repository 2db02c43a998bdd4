"""Figure 3 with the tasks of today: masks of RotNet, SimCLR, MoCo v2, BYOL and VICReg, re-trained on labels.

The paper's design and claims, asked again: prune iteratively on labels and on each task, train every subnetwork on
labels, as a winning ticket and from new random weights, and compare with random masks. Beyond the paper, drawn thin:
masks shuffled within each layer, and random masks that keep more of small layers (ERK).
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

TASKS = ("rotnet", "simclr", "moco", "byol", "vicreg")

FIGURE = Figure(
    title="Re-training pruned masks on labels, tasks of today",
    inits=(REINIT, TICKET),
    references=(Curve(task="labels", init=TICKET),),
    controls=CONTROLS,
    everywhere=BASELINES,
)


def claims(scale: str) -> Iterator[Claim]:
    """The paper's claims on masks of labels and of each task."""
    s = SETTINGS[scale]
    yield from claims_on_labels(s.margin)
    for task in TASKS:
        yield from claims_on(task, [s.net], s.margin)


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    yield from retrained(s.net, ("labels", *TASKS), seed=seed, levels=s.levels, keep=s.keep)
