"""Figure 1: how good pruned self-supervised features are, judged by linear classifiers.

Prune iteratively on RotNet, Exemplar and NPID; freeze what each round has learned; train a linear classifier on it:
linear SVMs on VOC07 and classifiers by SGD on Places205 and ImageNet in the paper, both on the same images at smaller
scales. The paper's answer: pruning up to 90% of the weights does no harm, and under 5% it does.

NPID, the most expensive task, is pruned down to 10% of the weights only, as in the paper. Beyond the paper, drawn thin:
*untrained* weights under the same masks. Only what exceeds these was learned by the task.
"""

from collections.abc import Iterator

from raysslprune import SETTINGS, Claim, Curve, Dense, Figure, Point, linear, untrained

TASKS = ("rotnet", "exemplar", "npid")
TRAINED, UNTRAINED = "pre-trained", "untrained"
NPID_LEVEL = 10  # 10.7% left, at 20% a round
SUPERVISED, RANDOM = (Curve(task="labels", init=init) for init in (TRAINED, UNTRAINED))

FIGURE = Figure(
    title="Linear classification with pruned features",
    x="pruned",
    references=(SUPERVISED, RANDOM),
    controls=(UNTRAINED,),
)


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    labels = s.imp("labels", seed=seed, levels=1, keep=s.keep).dense
    npid = [level for level in s.levels if s.keep**level > 0.99 * 0.8**NPID_LEVEL]
    drawn = {task: npid if task == "npid" else s.levels for task in TASKS}
    for task, levels in drawn.items():
        chain = s.imp(task, seed=seed, levels=max(levels) + 1, keep=s.keep)
        for level in (0, *levels):
            for probe in s.linear:
                for init, judged in ((TRAINED, linear), (UNTRAINED, untrained)):
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


def _claims(task: str) -> Iterator[Claim]:
    trained, control = Curve(task=task, init=TRAINED), Curve(task=task, init=UNTRAINED)
    yield Claim(
        says=f"Pruning up to 90% does not deteriorate {task}'s features",
        source="section 4.1",
        higher=trained,
        lower=Dense(curve=trained),
        relation="equal",
        margin=2.0,
        within=(0.1, 1.0),
    )
    yield Claim(
        says=f"What {task} has learned exceeds untrained weights under the same masks",
        source="not in the paper",
        higher=trained,
        lower=control,
        relation="above",
        within=(0.1, 1.0),
    )
    if task != "npid":
        yield Claim(
            says=f"With less than 5% of the weights {task}'s features are significantly worse",
            source="section 4.1",
            higher=Dense(curve=trained),
            lower=trained,
            relation="above",
            within=(0.0, 0.05),
        )


CLAIMS = tuple(claim for task in TASKS for claim in _claims(task))
