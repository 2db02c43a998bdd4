"""The rewind study: which is the best point to rewind winning tickets to?

Section 5 of the paper: winning tickets are particularly sensitive to this point, and "early in training" is
ill-defined. Candidates are sixteen states of the dense training, for each task and density: the beginning, and points
around the paper's choice, evenly spaced in the logarithm of the samples seen, as far as the schedule reaches. All are
measured with one seed, and only the better half of them is trained on after one, two, four and more seeds.

The choice does not see the test images: a part of the training images is held out, chains and tickets train on the
others, the accuracy on those held out decides, and the figure shows the accuracy on the test set. What is chosen is a
part of a recipe, not of one data set's size: recipes and rewinds are counted in samples seen, so they stay the same on
fewer images.
"""

from collections.abc import Iterator

from raysslprune import SETTINGS, TICKET, Point, Search

FIGURE = Search(title="Where to rewind winning tickets to")


def points(scale: str, seed: int) -> Iterator[Point]:
    """The points among which the study may choose, for one seed."""
    s, net = SETTINGS[scale], SETTINGS[scale].net.held_out
    for task in ("labels", "rotnet"):
        end = min(net.recipes[task].samples, net.recipes["labels"].samples)
        for rewind in (0, *(round(net.rewind[task] * 2.0 ** (half / 2)) for half in range(-7, 8))):
            if rewind < end:
                chain = net.imp(task, seed=seed, levels=max(s.levels), keep=s.keep, rewind=rewind)
                for level in s.levels[-4::2]:
                    for metric in ("top1", FIGURE.objective):
                        step = net.ticket(chain, level)
                        yield Point(step=step, task=task, init=TICKET, level=level, seed=seed, metric=metric)
