"""Random views of images in batches, on the CPU or the GPU, from numbers drawn beforehand.

What only moves pixels (shift, flip, quarter turn) is one gather through a table of source indices, made once by
torch's own flip and rot90. A crop and a small rotation are resampled bilinearly. Colours are changed last.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from raysslprune.data.batches import Batch
from raysslprune.data.boxes import TRIES, crop_boxes
from raysslprune.data.dataset import Dataset, Resident, Split
from raysslprune.spec import Recipe

GREY = (0.299, 0.587, 0.114)
"""Luma of red, green and blue (ITU-R BT.601)."""


def draws(recipe: Recipe) -> int:
    """Uniform numbers that one view uses up, in this order: place down and right, flip, crop, angle, jitter, grey."""
    return 3 + 2 * TRIES * bool(recipe.crop) + bool(recipe.angle) + len(recipe.jitter) + bool(recipe.grayscale)


class Views:
    """Augmented views of a split by a recipe. Where images are files, a batch brings its crops along, decoded."""

    def __init__(self, data: Dataset, split: Split, recipe: Recipe) -> None:
        self.data, self.split, self.recipe = data, split, recipe
        self.shifts = 2 * recipe.pad + 1
        self.turned = torch.stack([_grid(data.size).rot90(turns).flatten() for turns in range(4)]).to(data.device)
        if isinstance(split, Resident):
            images = F.pad(split.images, [recipe.pad] * 4)
            self.pixels = images.flatten(2)
            self.sources = _sources(data.size, images.shape[-1], self.shifts).to(images.device)
        elif recipe.pad:
            raise ValueError("pad shifts resident images only; for images on disk a recipe has crop")

    @property
    def random(self) -> bool:
        """Whether two views of an image can differ."""
        r = self.recipe
        return bool(r.pad or r.flip or r.crop or r.angle or r.jitter or r.grayscale)

    @property
    def moves_pixels_only(self) -> bool:
        """Whether a view is nothing but the fast gather."""
        r = self.recipe
        return isinstance(self.split, Resident) and not (r.crop or r.angle or r.jitter or r.grayscale)

    def __call__(self, batch: Batch, view: int = 0, turns: Tensor | int = 0) -> Tensor:
        """Normalised views, (n, channels, size, size), each turned ``turns`` quarters counter-clockwise at last.

        view: which of the batch's views of each sample.
        """
        drawn = batch.draws[:, view].to(self.data.device)
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
        pixels = self.pixels[index.to(self.pixels.device)]
        source = self.sources[which].unsqueeze(1).expand(-1, pixels.shape[1], -1)
        return pixels.gather(2, source).unflatten(2, (self.data.size, self.data.size))

    def changed(self, batch: Batch, view: int, place: Tensor, flip: Tensor, rest: Tensor) -> Tensor:
        """Views on the uint8 scale, as float32, of any recipe; not turned yet."""
        recipe, white = self.recipe, self.data.white
        if batch.pixels is not None:
            images = batch.pixels[:, view].to(self.data.device, torch.float32, non_blocking=True)
        else:
            straight = torch.zeros_like(flip)
            images = self.moved(batch.index[:, view], place, straight).float()
        if recipe.crop:
            if batch.pixels is None:
                boxes = crop_boxes(batch.draws[:, view].cpu().numpy(), images.shape[3], images.shape[2], recipe.crop)
                images = resampled(images, torch.from_numpy(boxes).to(images))
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
    """Each image's box, enlarged bilinearly to the whole image's size; what lies outside the box is not looked at."""
    height, width = images.shape[2:]

    def positions(low: Tensor, high: Tensor, size: int) -> Tensor:
        """(n, size) in grid_sample's terms: -1 and 1 are the outer edges of the first and the last pixel."""
        step = (high - low) / size
        pixel = low[:, None] + (torch.arange(size, device=images.device) + 0.5) * step[:, None] - 0.5
        return (torch.minimum(pixel.clamp(min=low[:, None]), high[:, None] - 1) * 2 + 1) / size - 1

    left, top, right, bottom = boxes.unbind(1)
    x = positions(left, right, width)[:, None, :].expand(-1, height, -1)
    y = positions(top, bottom, height)[:, :, None].expand(-1, -1, width)
    return F.grid_sample(images, torch.stack([x, y], dim=3), padding_mode="border", align_corners=False)


def rotated(images: Tensor, degrees: Tensor) -> Tensor:
    """Each image turned counter-clockwise about its centre, bilinearly, black where nothing was. Square images."""
    angle = degrees.to(images) * (math.pi / 180)
    zero = torch.zeros_like(angle)
    theta = torch.stack([angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero], dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, align_corners=False)


def jittered(images: Tensor, drawn: Tensor, strengths: tuple[float, ...], white: float) -> Tensor:
    """Brightness, contrast, saturation and hue of each image changed in this order, by (n, 4) uniform numbers.

    The factors are uniform in 1 ± strength; hue moves by up to ± strength turns. Without colours, the last two do
    nothing. white: the scale's largest value.
    """
    factors = (1 + (2 * drawn - 1) * torch.tensor(strengths, device=drawn.device))[:, :, None, None, None]
    images = (images * factors[:, 0]).clamp(0, white)
    mean = grey(images).mean(dim=(1, 2, 3), keepdim=True)
    images = torch.lerp(mean, images, factors[:, 1]).clamp(0, white)
    if images.shape[1] != 3:
        return images
    images = torch.lerp(grey(images).expand_as(images), images, factors[:, 2].expand_as(images)).clamp(0, white)
    return hue_moved(images, factors[:, 3] - 1) if strengths[3] else images


def grey(images: Tensor) -> Tensor:
    """(n, 1, h, w): the luma of colours; grey images as they are."""
    if images.shape[1] != 3:
        return images
    return (images * torch.tensor(GREY, device=images.device)[:, None, None]).sum(1, keepdim=True)


def hue_moved(images: Tensor, turns: Tensor) -> Tensor:
    """Hue of the HSV model moved by ``turns`` (n, 1, 1, 1) of the colour wheel."""
    value, _ = images.max(1, keepdim=True)
    chroma = value - images.min(1, keepdim=True).values
    red, green, blue = images.split(1, dim=1)
    safe = torch.where(chroma == 0, 1, chroma)
    hue = torch.where(value == red, (green - blue) / safe % 6, (blue - red) / safe + 2)
    hue = torch.where((value == blue) & (value != red) & (value != green), (red - green) / safe + 4, hue)
    steps = torch.tensor([5.0, 3.0, 1.0], device=images.device)[:, None, None]
    k = (steps + hue + 6 * turns) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)


def turned(images: Tensor, turns: Tensor | int, table: Tensor) -> Tensor:
    """Each image turned by exactly so many quarters, counter-clockwise. table: (4, size * size) source indices."""
    if isinstance(turns, int):
        return images.rot90(turns, (2, 3)) if turns else images
    source = table[turns].unsqueeze(1).expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, source).view_as(images)


def _grid(size: int) -> Tensor:
    return torch.arange(size * size).view(size, size)


def _sources(size: int, padded: int, shifts: int) -> Tensor:
    """(shifts * shifts * 2 * 4, size * size) flat indices into a padded image."""
    grid = _grid(padded)
    rows = []
    for down in range(shifts):
        for right in range(shifts):
            crop = grid[down : down + size, right : right + size]
            for view in (crop, crop.flip(1)):
                rows += [view.rot90(turns).flatten() for turns in range(4)]
    return torch.stack(rows)
