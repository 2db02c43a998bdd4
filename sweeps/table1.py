"""Table 1: what the rewind, fixed in samples seen, is in epochs, in updates and in per cent of the training.

Computed from the recipes, for labels on all images and on 10% of them as in the paper, and for all other tasks.
"""

from collections.abc import Iterator

from raysslprune import SETTINGS, Listing, images_of

FIGURE = Listing(title="Rewind", columns=("network", "task", "epochs", "samples", "updates", "% of training"))


def rows(scale: str) -> Iterator[tuple[str, str, float, int, int, float]]:
    """One for each network and task, all labels and 10% of them first."""
    for net in SETTINGS[scale].nets.values():
        for task, recipe in sorted(net.recipes.items(), key=lambda item: not item[0].startswith("labels")):
            samples = net.rewind[task]
            part = task.partition(":")[2]
            images = images_of(f"{net.data}:{part}" if part else net.data)
            updates, of_all = round(samples / recipe.batch), 100 * samples / recipe.samples
            yield net.title, task, samples / images, samples, updates, of_all
