"""What the training loop takes at each update: which images, and the random numbers of their views.

Images on disk are decoded and cropped here, ahead of time: what comes next is known, as the stream is endless and
fixed by the seed.
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
"""Batches that are decoded while the network trains on one."""


@dataclass(frozen=True)
class Batch:
    """index: the images that the views of each sample are of, (n, views). draws: of each view, (n, views, d).

    own: the task's own draws, (n, o). pixels: crops where the images are files, uint8 (n, views, c, size, size).
    All but pixels' content are on the CPU; uniform draws are from [0, 1).
    """

    index: Tensor
    draws: Tensor
    own: Tensor
    pixels: Tensor | None = None


class Feed:
    """The stream of a training as batches.

    views, draws: how many views a sample has, and how many uniform numbers each needs. own: further numbers a sample.
    pool: the images that are samples; None for all. partner: whether the last view is of another image, drawn from
    all images by a stream of its own (unlabelled ones beside labelled ones). decode: whether a batch of images on disk
    brings their pixels. share: which samples will be asked for, where several processes share a batch.
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
        """The ``count`` samples from ``position`` on."""
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
        """Without pixels."""
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
    """The crops (c, size, size) of each sample's views, being decoded; views of one image share its decoding."""

    def box(row: np.ndarray, width: int, height: int) -> Sequence[int] | None:
        return crop_boxes(row[None], width, height, recipe.crop)[0].tolist() if recipe.crop else None

    def sample(images: list[int], rows: np.ndarray) -> list[np.ndarray]:
        views: list[np.ndarray] = []
        for image, same in groupby(zip(images, rows, strict=True), key=itemgetter(0)):
            views += files.views(image, [partial(box, row) for _, row in same])
        return views

    return [executor().submit(sample, *one) for one in zip(index.tolist(), draws.numpy(), strict=True)]


def together(decoding: list[Future[list[np.ndarray]]], shape: torch.Size) -> Tensor:
    """Decoded crops as one tensor (n, views, c, size, size), in memory that a GPU can copy from."""
    pixels = torch.from_numpy(np.stack([view for future in decoding for view in future.result()]))
    pixels = pixels.unflatten(0, shape)
    return pixels.pin_memory() if torch.cuda.is_available() else pixels
