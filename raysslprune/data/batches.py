"""Batches for the training loop: indices of images, and the random numbers of their views.

Images on disk are decoded and cropped here ahead of time, since the seed fixes which images come next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch
from torch import Tensor

from raysslprune.data.boxes import crop_boxes
from raysslprune.data.dataset import Split
from raysslprune.data.files import Files, executor
from raysslprune.data.stream import Stream
from raysslprune.parallel import Share
from raysslprune.spec import Recipe, seed_of

AHEAD = 3
"""Number of batches that are decoded while the network trains on one."""


@dataclass(frozen=True)
class Batch:
    """A batch of samples. index: images of each sample's views, (n, views). draws: numbers of each view, (n, views, d).

    own: further numbers for the task, (n, o). pixels: crops if the images are files, uint8 (n, views, c, size, size).
    All tensors are on the CPU; the numbers are uniform in [0, 1).
    """

    index: Tensor
    draws: Tensor
    own: Tensor
    pixels: Tensor | None = None


class Feed:
    """The samples of a training, in batches.

    views, draws: number of views of a sample, and of uniform numbers for each view. own: number of further ones for a
    sample. pool: indices of the images that are samples; None for all. partner: take the last view from another image,
    drawn from all images by a second stream, as S4L's unlabelled images are. decode: add the pixels of images on disk.
    share: this process's share of a batch, if several processes share it.
    """

    def __init__(
        self,
        split: Split,
        recipe: Recipe,
        seed: int,
        *,
        views: int,
        draws: int,
        own: int,
        pool: Tensor | None = None,
        partner: bool = False,
        decode: bool = True,
        share: Share | None = None,
    ) -> None:
        self.split, self.recipe, self.pool = split, recipe, pool
        self.share = share or Share(recipe.batch, 0, recipe.batch)
        self.decodes = decode and isinstance(split, Files)
        self.views, self.draws, self.own = views, draws, own
        self.samples = len(split) if pool is None else len(pool)
        self.stream = Stream(self.samples, views * draws + own, seed)
        self.partners = Stream(len(split), 0, seed_of("partners", seed)) if partner else None
        self.ahead: deque[tuple[int, Batch, list[Future[list[np.ndarray]]]]] = deque()

    def take(self, position: int, count: int) -> Batch:
        """The batch of ``count`` samples from ``position`` on, with pixels of images on disk. Raises DataError."""
        if not self.decodes:
            return self.at(position, count)
        assert isinstance(self.split, Files)
        if self.ahead and (self.ahead[0][0] != position or len(self.ahead[0][1].index) != count):
            self.ahead.clear()
        while len(self.ahead) <= AHEAD:
            at = self.share.after(self.ahead[-1][0] + count) if self.ahead else position
            batch = self.at(at, count)
            self.ahead.append((at, batch, crops(self.split, self.recipe, batch.index, batch.draws)))
        _, batch, decoding = self.ahead.popleft()
        return Batch(batch.index, batch.draws, batch.own, together(decoding, batch.index.shape))

    def at(self, position: int, count: int) -> Batch:
        """The batch of ``count`` samples from ``position`` on, without pixels."""
        samples = self.stream.take(position, count)
        index = samples.index if self.pool is None else self.pool[samples.index]
        index = index[:, None].repeat(1, self.views)
        if self.partners is not None:
            index[:, -1] = self.partners.take(position, count).index
        drawn, own = samples.draws.split([self.views * self.draws, self.own], dim=1)
        return Batch(index, drawn.unflatten(1, (self.views, self.draws)), own)


def still(split: Split, recipe: Recipe, index: Tensor, draws: Tensor) -> Batch:
    """A batch of chosen images (n, views) with given draws (n, views, d), outside any stream: for evaluation."""
    own = torch.empty(len(index), 0)
    if not isinstance(split, Files):
        return Batch(index, draws, own)
    return Batch(index, draws, own, together(crops(split, recipe, index, draws), index.shape))


def crops(files: Files, recipe: Recipe, index: Tensor, draws: Tensor) -> list[Future[list[np.ndarray]]]:
    """Futures of the crops (c, size, size) of each sample's views; views of one image share its decoding."""

    def box(row: np.ndarray, width: int, height: int) -> Sequence[int] | None:
        return crop_boxes(row[None], width, height, recipe.crop)[0].tolist() if recipe.crop else None

    def sample(images: list[int], rows: np.ndarray) -> list[np.ndarray]:
        views: list[np.ndarray] = []
        for image, same in groupby(zip(images, rows, strict=True), key=itemgetter(0)):
            views += files.views(image, [partial(box, row) for _, row in same])
        return views

    return [executor().submit(sample, *one) for one in zip(index.tolist(), draws.numpy(), strict=True)]


def together(decoding: list[Future[list[np.ndarray]]], shape: torch.Size) -> Tensor:
    """Join decoded crops to one tensor (n, views, c, size, size), in pinned memory if there is a GPU."""
    pixels = torch.from_numpy(np.stack([view for future in decoding for view in future.result()]))
    pixels = pixels.unflatten(0, shape)
    return pixels.pin_memory() if torch.cuda.is_available() else pixels
