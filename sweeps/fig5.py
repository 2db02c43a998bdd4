"""Figure 5: how much do a few labels help to find winning tickets?

Prune iteratively with few labels: on these alone, or by S4L, which adds RotNet on all images. Train the winning
tickets on all labels, and compare with tickets found with all labels and with none (RotNet), and with random masks.
The few labels are those of (a) 10% of the images of each class, or (b) all images of 10% of the classes. The paper's
answer: a few labels help, and more so with all classes than with some; S4L is best.

On data sets of ten classes (b) takes two classes. Curves named "few labels" are the paper's "10% Lab".
"""

from collections.abc import Iterator

from raysslprune import (
    RANDOM,
    REINIT,
    SETTINGS,
    TICKET,
    Claim,
    Curve,
    Figure,
    Point,
    Unfit,
    random_prune,
    random_reinit,
)

FEW = "few labels"

FIGURE = Figure(title="Winning tickets found with few labels", references=(Curve(task="labels", init=TICKET),))


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    if not s.labelled:
        raise Unfit("it needs recipes of labels and of s4l with few labels, such as s4l:10%-of-images")
    for labelled in s.labelled:
        names = {"labels": "labels", "s4l": f"s4l:{labelled}", FEW: f"labels:{labelled}", "rotnet": "rotnet"}
        chains = {task: s.imp(name, seed=seed, levels=max(s.levels), keep=s.keep) for task, name in names.items()}
        panel = "labels of " + labelled.replace("-of-", " of the ")
        dense = chains["labels"].dense
        yield Point(step=dense, panel=panel, task="labels", init=TICKET, level=0, seed=seed)
        for level in s.levels:
            for task, chain in chains.items():
                ticket = s.ticket(chain, level)
                yield Point(step=ticket, panel=panel, task=task, init=TICKET, level=level, seed=seed)
            mask = random_prune(like=dense, keep=s.keep, level=level)
            again = random_reinit(mask, like=dense, task="labels", recipe=s.recipes["labels"])
            yield Point(step=again, panel=panel, task=RANDOM, init=REINIT, level=level, seed=seed)


def _claim(says: str, higher: str, lower: str, relation: str = "above", along: str = "density") -> Claim:
    return Claim(
        says=says,
        source="section 4.2.2",
        higher=Curve(task=higher, init=TICKET),
        lower=Curve(task=lower, init=TICKET),
        relation=relation,
        along=along,
        within=(0.005, 0.3),
    )


CLAIMS = (
    _claim("S4L's winning tickets are better than those found with the few labels alone", "s4l", FEW),
    _claim("Winning tickets found with few labels are better than those found with none", FEW, "rotnet"),
    _claim("S4L's winning tickets are better than those found with no labels", "s4l", "rotnet"),
    _claim("Few labels help more with all classes than with some", FEW, "rotnet", "narrows", "panels"),
)
