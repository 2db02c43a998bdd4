"""Table 1: what the rewind, fixed in samples seen, is in epochs, in updates and in per cent of the training.

Computed from the recipes, for labels on all images and on 10% of them as in the paper, and for all other tasks.
"""

from collections.abc import Iterator

from raysslprune import SETTINGS, Listing
from raysslprune.catalogue import data_parts

FIGURE = Listing(title="Rewind", columns=("network", "task", "epochs", "samples", "updates", "% of training"))


def rows(scale: str) -> Iterator[tuple[str, str, float, int, int, float]]:
    """The table's rows: one for each network and task, those of all labels and of 10% of the labels first."""
    for net in SETTINGS[scale].nets.values():
        for task, recipe in sorted(net.recipes.items(), key=lambda item: not item[0].startswith("labels")):
            samples = net.rewind[task]
            part = data_parts(task)[2]
            updates, of_all = round(samples / recipe.batch), 100 * samples / recipe.samples
            yield net.title, task, samples / net.images_of(part), samples, updates, of_all
