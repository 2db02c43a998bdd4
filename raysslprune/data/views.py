"""Random views of images in batches, on the CPU or the GPU, from numbers drawn beforehand.

Shift, flip and quarter turn only move pixels: they are one gather through a table of source indices, which torch's flip
and rot90 make once. Crops and small rotations are resampled bilinearly. Colours are changed last.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from raysslprune.data.batches import Batch
from raysslprune.data.boxes import TRIES, crop_boxes
from raysslprune.data.dataset import Dataset, Resident, Split, sent
from raysslprune.spec import Recipe

GREY = (0.299, 0.587, 0.114)
"""Luma of red, green and blue (ITU-R BT.601)."""


def draws(recipe: Recipe) -> int:
    """Number of uniform numbers for a view, in this order: place down and right, flip, crop, angle, jitter, grey."""
    return 3 + 2 * TRIES * bool(recipe.crop) + bool(recipe.angle) + len(recipe.jitter) + bool(recipe.grayscale)


class Views:
    """Augmented views of a split by a recipe. Files come as crops in a batch; raises ValueError for their padding."""

    def __init__(self, data: Dataset, split: Split, recipe: Recipe) -> None:
        self.data, self.split, self.recipe = data, split, recipe
        self.computes = bool(recipe.crop or recipe.angle or recipe.jitter or recipe.grayscale)
        self.moves_pixels_only = isinstance(split, Resident) and not self.computes
        """True if a view is only the fast gather."""
        self.shifts = 2 * recipe.pad + 1
        self.turned = _sources(data.size, data.size, shifts=1)[:4].to(data.device)  # not the four that flip
        if isinstance(split, Resident):
            images = F.pad(split.images, [recipe.pad] * 4)
            self.pixels = images.flatten(2)
            self.sources = _sources(data.size, images.shape[-1], self.shifts).to(images.device)
        elif recipe.pad:
            raise ValueError(
                "pad is for resident images only; for images on disk use crop, or read them at a size of up to 128 "
                "pixels, which is resident: folder/NAME:64px"
            )

    @property
    def random(self) -> bool:
        """True if two views of an image can differ."""
        return bool(self.computes or self.recipe.pad or self.recipe.flip)

    def __call__(self, batch: Batch, view: int = 0, turns: Tensor | int = 0) -> Tensor:
        """Normalised views, (n, channels, size, size), each finally turned ``turns`` quarters counter-clockwise.

        view: index of the view among those of each sample.
        """
        drawn = sent(batch.draws[:, view], self.data.device)
        place, flip, rest = drawn[:, :2], drawn[:, 2] < 0.5, drawn[:, 3:]
        if self.moves_pixels_only:
            images = self.moved(batch.index[:, view], place, flip & self.recipe.flip, turns)
        else:
            images = turned(self.changed(batch, view, place, flip, rest), turns, self.turned)
        return self.data.normalise(images).contiguous(memory_format=torch.channels_last)

    def moved(self, index: Tensor, place: Tensor, flip: Tensor, turns: Tensor | int = 0) -> Tensor:
        """Resident images, shifted, flipped and turned: two look-ups, with no loop over samples."""
        down, right = (place * self.shifts).long().unbind(1)
        which = ((down * self.shifts + right) * 2 + flip) * 4 + turns
        pixels = self.pixels[sent(index, self.pixels.device)]
        source = self.sources[which].unsqueeze(1).expand(-1, pixels.shape[1], -1)
        return pixels.gather(2, source).unflatten(2, (self.data.size, self.data.size))

    def changed(self, batch: Batch, view: int, place: Tensor, flip: Tensor, rest: Tensor) -> Tensor:
        """Views on the uint8 scale, as float32, by any recipe, before quarter turns."""
        recipe, white = self.recipe, self.data.white
        if batch.pixels is not None:
            images = sent(batch.pixels[:, view], self.data.device).to(torch.float32)
        else:
            images = self.moved(batch.index[:, view], place, torch.zeros_like(flip)).float()
        if recipe.crop:
            if batch.pixels is None:
                boxes = crop_boxes(batch.draws[:, view].cpu().numpy(), images.shape[3], images.shape[2], recipe.crop)
                images = resampled(images, sent(torch.from_numpy(boxes), images.device).to(images))
            rest = rest[:, 2 * TRIES :]
        if recipe.flip:
            images = torch.where(flip[:, None, None, None], images.flip(3), images)
        if recipe.angle:
            images = rotated(images, (2 * rest[:, 0] - 1) * recipe.angle)
            rest = rest[:, 1:]
        if recipe.jitter:
            images = jittered(images, rest[:, :4], recipe.jitter, white)
            rest = rest[:, 4:]
        if recipe.grayscale and images.shape[1] == 3:
            images = torch.where((rest[:, 0] < recipe.grayscale)[:, None, None, None], grey(images), images)
        return images


def resampled(images: Tensor, boxes: Tensor) -> Tensor:
    """Enlarge each image's box bilinearly to the image's size; pixels outside the box have no influence."""
    height, width = images.shape[2:]

    def positions(low: Tensor, high: Tensor, size: int) -> Tensor:
        """Sampling positions (n, size) for grid_sample: -1 and 1 are the outer edges of the first and last pixel."""
        step = (high - low) / size
        pixel = low[:, None] + (torch.arange(size, device=images.device) + 0.5) * step[:, None] - 0.5
        return (torch.minimum(pixel.clamp(min=low[:, None]), high[:, None] - 1) * 2 + 1) / size - 1

    left, top, right, bottom = boxes.unbind(1)
    x = positions(left, right, width)[:, None, :].expand(-1, height, -1)
    y = positions(top, bottom, height)[:, :, None].expand(-1, -1, width)
    return F.grid_sample(images, torch.stack([x, y], dim=3), padding_mode="border", align_corners=False)


def rotated(images: Tensor, degrees: Tensor) -> Tensor:
    """Turn square images counter-clockwise about their centres, bilinearly; uncovered corners are black."""
    angle = degrees.to(images) * (math.pi / 180)
    zero = torch.zeros_like(angle)
    theta = torch.stack([angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def jittered(images: Tensor, drawn: Tensor, strengths: tuple[float, ...], white: float) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image in this order, by (n, 4) uniform numbers.

    The factors are uniform in 1 ± strength; hue moves by up to ± strength turns. Saturation and hue do nothing to grey
    images. white: the largest value of a pixel.
    """
    factors = (1 + (2 * drawn - 1) * _constant(strengths, drawn.device))[:, :, None, None, None]
    images = (images * factors[:, 0]).clamp(0, white)
    mean = grey(images).mean(dim=(1, 2, 3), keepdim=True)
    images = torch.lerp(mean, images, factors[:, 1]).clamp(0, white)
    if images.shape[1] != 3:
        return images
    images = torch.lerp(grey(images).expand_as(images), images, factors[:, 2].expand_as(images)).clamp(0, white)
    return hue_moved(images, factors[:, 3] - 1) if strengths[3] else images


def grey(images: Tensor) -> Tensor:
    """Luma of colour images, (n, 1, h, w); grey images are returned as they are."""
    if images.shape[1] != 3:
        return images
    return (images * _constant(GREY, images.device)[:, None, None]).sum(1, keepdim=True)


def hue_moved(images: Tensor, turns: Tensor) -> Tensor:
    """Move the hue of the HSV model by ``turns`` (n, 1, 1, 1) of the colour wheel."""
    value, _ = images.max(1, keepdim=True)
    chroma = value - images.min(1, keepdim=True).values
    red, green, blue = images.split(1, dim=1)
    safe = torch.where(chroma == 0, 1, chroma)
    hue = torch.where(value == red, (green - blue) / safe % 6, (blue - red) / safe + 2)
    hue = torch.where((value == blue) & (value != red) & (value != green), (red - green) / safe + 4, hue)
    steps = _constant((5.0, 3.0, 1.0), images.device)[:, None, None]
    k = (steps + hue + 6 * turns) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def turned(images: Tensor, turns: Tensor | int, table: Tensor) -> Tensor:
    """Turn each image by ``turns`` quarters counter-clockwise, exactly. table: (4, size * size) source indices."""
    if isinstance(turns, int):
        return images.rot90(turns, (2, 3)) if turns else images
    source = table[turns].unsqueeze(1).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, source).view_as(images)


@cache
@torch.inference_mode(False)  # its first use may be in an evaluation, the next in training
def _constant(numbers: tuple[float, ...], device: torch.device) -> Tensor:
    """The numbers on the device, copied there once."""
    return torch.tensor(numbers, device=device)


def _sources(size: int, padded: int, shifts: int) -> Tensor:
    """Flat source indices into a padded image, (shifts * shifts * 2 * 4, size * size)."""
    grid = torch.arange(padded * padded).view(padded, padded)
    places = product(range(shifts), range(shifts))
    crops = (grid[down : down + size, right : right + size] for down, right in places)
    views = (view for crop in crops for view in (crop, crop.flip(1)))
    return torch.stack([view.rot90(turns).flatten() for view in views for turns in range(4)])
