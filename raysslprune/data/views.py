"""Random views of resident images: shift, flip and quarter turns as one gather of pixels.

A view only moves pixels, so it is a table of source indices: for each (shift down, shift right, flip, turn)
the source of every target pixel in the zero-padded image. The table is made once, by torch's own flip and
rot90; a batch of views is then two look-ups, on the CPU or the GPU, with no loop over samples.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from raysslprune.data import Dataset
from raysslprune.data.stream import Batch
from raysslprune.spec import Recipe

DRAWS = 3
"""Uniform draws that a view uses up: shift down, shift right, flip. A task's own draws come after these."""


class Views:
    """Augmented views of a data set's training images, by a recipe's ``pad`` and ``flip``."""

    def __init__(self, data: Dataset, recipe: Recipe) -> None:
        self.data, self.flip = data, recipe.flip
        self.shifts = 2 * recipe.pad + 1
        images = F.pad(data.train.images, [recipe.pad] * 4)
        self.pixels = images.flatten(2)
        self.sources = _sources(data.size, images.shape[-1], self.shifts).to(images.device)

    def __call__(self, batch: Batch, turns: Tensor | int = 0) -> Tensor:
        """Normalised views, (n, channels, size, size), each turned ``turns`` quarters counter-clockwise at last."""
        device = self.pixels.device
        draws = batch.draws.to(device)
        down, right = (draws[:, :2] * self.shifts).long().unbind(1)
        flipped = (draws[:, 2] < 0.5).long() if self.flip else torch.zeros_like(down)
        which = ((down * self.shifts + right) * 2 + flipped) * 4 + turns
        pixels = self.pixels[batch.index.to(device)]
        source = self.sources[which].unsqueeze(1).expand(-1, pixels.shape[1], -1)
        size = self.data.size
        images = self.data.normalise(pixels.gather(2, source).unflatten(2, (size, size)))
        return images.contiguous(memory_format=torch.channels_last)


def _sources(size: int, padded: int, shifts: int) -> Tensor:
    """(shifts * shifts * 2 * 4, size * size) flat indices into a padded image."""
    grid = torch.arange(padded * padded).view(padded, padded)
    rows = []
    for down in range(shifts):
        for right in range(shifts):
            crop = grid[down : down + size, right : right + size]
            for view in (crop, crop.flip(1)):
                rows += [view.rot90(turns).flatten() for turns in range(4)]
    return torch.stack(rows)
