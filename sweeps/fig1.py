"""Figure 1: how good pruned self-supervised features are, judged by linear classifiers.

Prune iteratively on RotNet, Exemplar and NPID; freeze the features of each round; train linear classifiers on them: in
the paper, linear SVMs on VOC07, and classifiers by SGD on Places205 and ImageNet; at smaller scales, both on the same
images. The paper's answer: pruning up to 90% of the weights does no harm; with under 5% left, it does.

NPID, the most expensive task, is pruned down to 10% of the weights only, as in the paper. Beyond the paper, drawn thin:
*untrained* weights under the same masks, with BatchNorm statistics of the images: the weights that the chain began
with, from which its masks were chosen, and others drawn anew. Only the accuracy above theirs was learned from the task.
"""

from collections.abc import Iterator
from functools import partial

from raysslprune import PROPER_NAMES, SETTINGS, Claim, Curve, Dense, Figure, Point, Unfit, linear, untrained

TASKS = ("rotnet", "exemplar", "npid")
TRAINED, UNTRAINED, ANEW = "pre-trained", "untrained", "untrained, drawn anew"
JUDGED = ((TRAINED, linear), (UNTRAINED, untrained), (ANEW, partial(untrained, draw=1)))
NPID_LEVEL = 10  # 10.7% left, at 20% a round
SUPERVISED, RANDOM = (Curve(task="labels", init=init) for init in (TRAINED, UNTRAINED))

FIGURE = Figure(
    title="Linear classification with pruned features",
    x="pruned",
    references=(SUPERVISED, RANDOM),
    controls=(UNTRAINED, ANEW),
)


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    labels = s.imp("labels", seed=seed, levels=1, keep=s.keep).dense
    npid = [level for level in s.levels if s.keep**level > 0.99 * 0.8**NPID_LEVEL]
    if not npid:
        raise Unfit("NPID is pruned down to 10% of the weights only, and each level of the scale leaves fewer")
    drawn = {task: npid if task == "npid" else s.levels for task in TASKS}
    for task, levels in drawn.items():
        chain = s.imp(task, seed=seed, levels=max(levels) + 1, keep=s.keep)
        for level in (0, *levels):
            for probe in s.linear:
                for init, judged in JUDGED:
                    step = judged(chain.rounds[level], data=probe.data, recipe=probe.recipe)
                    yield Point(
                        step=step,
                        panel=probe.title,
                        task=task,
                        init=init,
                        level=level,
                        seed=seed,
                        metric=probe.metric,
                    )
    for probe in s.linear:
        for curve, judged in ((SUPERVISED, linear), (RANDOM, untrained)):
            step = judged(labels, data=probe.data, recipe=probe.recipe)
            yield Point(
                step=step,
                panel=probe.title,
                task=curve.task,
                init=curve.init,
                level=0,
                seed=seed,
                metric=probe.metric,
            )


def claims(scale: str) -> Iterator[Claim]:
    """The paper's claims on each task, and that its features are better than untrained ones."""
    for task in TASKS:
        yield from _claims(task, SETTINGS[scale].margin)


def _claims(task: str, margin: float) -> Iterator[Claim]:
    trained, name, source = Curve(task=task, init=TRAINED), PROPER_NAMES[task], "section 4.1"
    moderate, severe, dense = (0.1, 1.0), (0.0, 0.05), Dense(curve=trained)
    compared = partial(Claim, source=source, within=moderate)
    yield compared(
        says=f"Pruning up to 90% does not deteriorate {name}'s features",
        higher=trained,
        lower=dense,
        relation="not worse",
        margin=margin,
        at="each",
    )
    if task == "npid":
        says = f"{name}'s features remain as good as unpruned ones when up to 90% is pruned, and become no better"
        yield compared(says=says, higher=trained, lower=dense, relation="equal", margin=margin, at="each")
    else:
        says = f"Pruning up to 90% even improves {name}'s features slightly"
        yield compared(says=says, higher=trained, lower=dense, relation="above")
    for init, weights in ((UNTRAINED, "untrained weights"), (ANEW, "untrained weights drawn anew")):
        yield compared(
            says=f"What {name} has learned exceeds {weights} under the same masks",
            source="not in the paper",
            higher=trained,
            lower=Curve(task=task, init=init),
            relation="above",
        )
    if task != "npid":
        says = f"With less than 5% of the weights {name}'s features are significantly worse"
        yield compared(says=says, higher=dense, lower=trained, relation="above", within=severe)
