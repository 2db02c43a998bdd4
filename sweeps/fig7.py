"""Figure 7: how much winning tickets depend on the point to which they are rewound.

Prune iteratively with the labels of 10% of the images, rewinding to four points: as far as with all images when
counted in epochs, in per cent of the training, in updates, or in samples seen. Train the winning tickets on all
labels. The paper's answer: very much; the paper rewinds to the same number of samples everywhere (Table 1).
"""

from collections.abc import Iterator

from raysslprune import FEW, SETTINGS, TICKET, Claim, Curve, Figure, Point, rewinds_with_few_labels

DENSE = Curve(task="labels", init=TICKET)

FIGURE = Figure(title="Winning tickets found with 10% of the labels", references=(DENSE,), colour="init")


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    dense = s.imp("labels", seed=seed, levels=1, keep=s.keep).dense
    yield Point(step=dense, task=DENSE.task, init=DENSE.init, level=0, seed=seed)
    for init, rewind in rewinds_with_few_labels(s.net).items():
        chain = s.imp(f"labels:{FEW}", seed=seed, levels=max(s.levels), keep=s.keep, rewind=rewind)
        for level in s.levels:
            yield Point(step=s.ticket(chain, level), task="few labels", init=init, level=level, seed=seed)


CLAIMS = (
    Claim(
        says="Rewinding to as many samples is better than to as many epochs",
        source="Appendix A, which says only that tickets are sensitive to the rewind",
        higher=Curve(task="few labels", init="same number of samples"),
        lower=Curve(task="few labels", init="same number of epochs"),
        relation="above",
        within=(0.005, 0.3),
    ),
)
