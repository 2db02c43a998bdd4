"""Figure 2: is it better to prune while pre-training, or while fine-tuning on the task that counts?

Prune iteratively on RotNet and on Exemplar and fine-tune each subnetwork on the target; or fine-tune the unpruned
network on the target and prune it there, returning to the pre-trained weights after each round. The target is VOC07 in
the paper; at every scale it is small compared with the pre-training data. The paper's answer: prune in pre-training.

The paper does not say what its networks are reset to when they are pruned during transfer; the pre-trained weights
are the natural reading.
"""

from collections.abc import Iterator

from raysslprune import (
    PROPER_NAMES,
    SETTINGS,
    Claim,
    Curve,
    Figure,
    Final,
    Init,
    Point,
    Train,
    finetune,
    imp,
    winning_ticket,
)

BEFORE, DURING, SCRATCH = "pruned in pre-training", "pruned during transfer", "from scratch"
SUPERVISED = Curve(task="labels", init=BEFORE)

FIGURE = Figure(
    title="Fine-tuning pruned networks",
    x="pruned",
    references=(SUPERVISED, Curve(task="labels", init=SCRATCH)),
)


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    target, recipe = s.finetune.data, s.finetune.recipe

    def point(step: Train, task: str, init: str, level: int) -> Point:
        metric = s.finetune.metric
        return Point(step=step, panel=s.finetune.title, task=task, init=init, level=level, seed=seed, metric=metric)

    for task in ("rotnet", "exemplar"):
        before = s.imp(task, seed=seed, levels=max(s.levels) + 1, keep=s.keep)
        during = imp(
            task="labels",
            data=target,
            arch=s.arch,
            recipe=recipe,
            seed=seed,
            levels=max(s.levels),
            keep=s.keep,
            rewind=0,
            start=Final(of=before.dense),
        )
        for level in (0, *s.levels):
            yield point(finetune(before.rounds[level], data=target, recipe=recipe), task, BEFORE, level)
            yield point(winning_ticket(during, level, task="labels", recipe=recipe), task, DURING, level)
    labels = s.imp("labels", seed=seed, levels=1, keep=s.keep).dense
    scratch = Train(task="labels", data=target, arch=s.arch, recipe=recipe, seed=seed, start=Init(seed=seed))
    yield point(finetune(labels, data=target, recipe=recipe), "labels", BEFORE, 0)
    yield point(scratch, "labels", SCRATCH, 0)


CLAIMS = tuple(
    Claim(
        says=f"Fine-tuning a network pruned on {PROPER_NAMES[task]} is better than fine-tuning while pruning",
        source="section 4.1",
        higher=Curve(task=task, init=BEFORE),
        lower=Curve(task=task, init=DURING),
        relation="above",
        within=(0.005, 0.5),
    )
    for task in ("rotnet", "exemplar")
)
