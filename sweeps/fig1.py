"""Figure 1: how good pruned self-supervised features are, judged by linear classifiers.

Prune iteratively on RotNet, Exemplar and NPID; freeze the features of each round; train linear classifiers on them: in
the paper, linear SVMs on VOC07, and classifiers by SGD on Places205 and ImageNet; at smaller scales, both on the same
images. The paper's answer: pruning up to 90% of the weights does no harm; with under 5% left, it does.

NPID, the most expensive task, is pruned down to 10% of the weights only, as in the paper. Beyond the paper, drawn thin:
*untrained* weights under the same masks, with BatchNorm statistics of the images: the weights that the chain began
with, from which its masks were chosen, and others drawn anew. Only the accuracy above theirs was learned from the task.
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
    Unfit,
    claims_on_features,
    judged_features,
)

TASKS = ("rotnet", "exemplar", "npid")
NPID_LEVEL = 10  # 10.7% left, at 20% a round

FIGURE = Figure(
    title="Linear classification with pruned features",
    x="pruned",
    references=DENSE_FEATURES,
    controls=(UNTRAINED, ANEW),
)


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    npid = [level for level in s.levels if s.keep**level > 0.99 * 0.8**NPID_LEVEL]
    if not npid:
        raise Unfit("NPID is pruned down to 10% of the weights only, and each level of the scale leaves fewer")
    yield from judged_features(s, {task: npid if task == "npid" else s.levels for task in TASKS}, seed=seed)


def claims(scale: str) -> Iterator[Claim]:
    """The paper's claims on each task, and that its features are better than untrained ones."""
    for task in TASKS:
        yield from claims_on_features(task, SETTINGS[scale].margin, severely=task != "npid")
