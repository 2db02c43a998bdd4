"""Decoding and resizing images with Pillow, as torchvision's loader and transforms do."""

from __future__ import annotations

import io
import re
import threading
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
"""What these files may really be. Nothing else is tried: for some formats Pillow starts other programs."""

MAX_PIXELS = 89_478_485
"""Of an image, decoded or resized: where Pillow begins to warn of decompression bombs."""

DARK = 64
"""Where the brightest pixel of an image with 16 bits a channel is below this after the cut to 8 bits, at most 14 of its
16 bits are in use: it holds numbers of 10, 12 or 14 bits, and few levels of them are left."""


def decode(data: bytes) -> Image.Image:
    """An encoded image in Pillow's mode RGB, or L if it has no colours. Raises ValueError with the reason.

    What is transparent is laid over white, 16-bit grey is cut to its upper eight bits, and the orientation that a
    camera noted is ignored, as it is in torchvision's loader. Of several frames it is the first.
    """
    _hush_pillow()
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
        image.load()
        return _opaque(image)
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        kind = f"in one of the formats {', '.join(FORMATS)}" if data else "at all, but an empty file"
        raise ValueError(f"it is no image {kind}") from error
    except Exception as error:  # Pillow raises anything on bytes that make no sense: SyntaxError, struct.error, ...
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def levels_left(data: bytes) -> int | None:
    """How many levels are left of an image that :func:`decode` takes, if cutting it to 8 bits a channel took most.

    None for all images but those of 16 bits a channel in which the upper ones are hardly used; see DARK.
    """
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if not any(";16" in str(tile.args) for tile in image.tile):
        return None
    pixels = np.asarray(_opaque(image))
    return len(np.unique(pixels)) if pixels.max() < DARK else None


def resized(image: Image.Image, shorter: int) -> Image.Image:
    """An image whose shorter side has so many pixels, bilinear with antialiasing, as torchvision's ``Resize``."""
    longer = int(shorter * max(image.size) / min(image.size))
    size = (shorter, longer) if image.width <= image.height else (longer, shorter)
    return image.resize(size, Image.Resampling.BILINEAR)


def square(image: Image.Image, size: int, box: Sequence[float]) -> Image.Image:
    """The part of an image in a box (left, top, right, bottom), resized to a square, bilinear with antialiasing."""
    left, top, right, bottom = box
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))


def _opaque(image: Image.Image) -> Image.Image:
    """In mode L or RGB."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers, which have no agreed range")
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)


_IGNORED = ("ignore", None, Warning, re.compile(r"PIL\."), 0)

_HUSHING = threading.Lock()


def _hush_pillow() -> None:
    """Keep Pillow's warnings of oddities that do not matter, as a broken EXIF block, from the terminal.

    A filter for good: ``warnings.catch_warnings`` is not safe in threads, which would undo each other's.
    """
    if warnings.filters[:1] != [_IGNORED]:
        with _HUSHING:
            if warnings.filters[:1] != [_IGNORED]:  # setting it takes it away for a moment
                warnings.filterwarnings("ignore", module=r"PIL\.")
