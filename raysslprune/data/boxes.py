"""Boxes of random resized crops."""

from __future__ import annotations

import math

import numpy as np

TRIES = 4
"""Maximum draws of area and shape for a random resized crop, until one fits into the image."""

RATIOS = (math.log(3 / 4), math.log(4 / 3))
"""Range of width / height of a random resized crop, as logarithms."""


def crop_boxes(draws: np.ndarray, width: int, height: int, least: float) -> np.ndarray:
    """Boxes (left, top, right, bottom) in pixels of random resized crops, (n, 4) int64 (Szegedy et al. 2014).

    The area is uniform from the fraction ``least`` of the image's area to all of it, the logarithm of width / height is
    uniform in RATIOS, and so is the place. A box that does not fit is drawn again; after TRIES draws it is the largest
    central box of an allowed shape. draws: (n, 3 + 2 * TRIES or more), uniform in [0, 1); the first two numbers give
    the place, those from the fourth on area and shape in turn.
    """
    tries = draws[:, 3 : 3 + 2 * TRIES].astype(np.float64).reshape(len(draws), TRIES, 2)
    area = width * height * (least + (1 - least) * tries[:, :, 0])
    shape = np.exp(RATIOS[0] + (RATIOS[1] - RATIOS[0]) * tries[:, :, 1])
    wide, high = np.rint(np.sqrt(area * shape)), np.rint(np.sqrt(area / shape))
    fits = (wide > 0) & (wide <= width) & (high > 0) & (high <= height)
    first, row = fits.argmax(1), np.arange(len(draws))
    most = np.exp(RATIOS)
    central_wide, central_high = min(width, round(height * most[1])), min(height, round(width / most[0]))
    found = fits.any(1)
    wide = np.where(found, wide[row, first], central_wide)
    high = np.where(found, high[row, first], central_high)
    left = np.where(found, np.floor(draws[:, 1] * (width - wide + 1)), (width - wide) // 2)
    top = np.where(found, np.floor(draws[:, 0] * (height - high + 1)), (height - high) // 2)
    return np.stack([left, top, left + wide, top + high], axis=1).astype(np.int64)
