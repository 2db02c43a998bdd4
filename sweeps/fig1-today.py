"""Figure 1 with the tasks of today: how good the pruned features of RotNet, SimCLR, MoCo v2, BYOL and VICReg are.

The paper's design and claims, asked again: prune iteratively on each task, freeze the features of each round, train
linear classifiers on them. Beyond the paper, drawn thin, are untrained weights under the same masks.
"""

from collections.abc import Iterator

from raysslprune import (
    ANEW,
    DENSE_FEATURES,
    SETTINGS,
    UNTRAINED,
    Claim,
    Figure,
    Point,
    claims_on_features,
    judged_features,
)

TASKS = ("rotnet", "simclr", "moco", "byol", "vicreg")

FIGURE = Figure(
    title="Linear classification with pruned features, tasks of today",
    x="pruned",
    references=DENSE_FEATURES,
    controls=(UNTRAINED, ANEW),
)


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    yield from judged_features(s, dict.fromkeys(TASKS, s.levels), seed=seed)


def claims(scale: str) -> Iterator[Claim]:
    """The paper's claims on each task, and that its features are better than untrained ones."""
    for task in TASKS:
        yield from claims_on_features(task, SETTINGS[scale].margin)
