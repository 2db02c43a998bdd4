"""Decode and resize images with Pillow, as torchvision's loader and transforms do."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import numpy as np
from PIL import Image, UnidentifiedImageError

# Pillow warns of harmless oddities, such as a broken EXIF block. Threads can't use warnings.catch_warnings.
warnings.filterwarnings("ignore", module=r"PIL\.")

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
"""Formats to try, whatever a file's name. For some other formats Pillow starts external programs."""

MAX_PIXELS = 89_478_485
"""Maximum pixels of an image, decoded or resized: above this number Pillow warns of decompression bombs."""

DARK = 64
"""Upper limit for the pixels of a dark 16-bit image after the cut to 8 bits. Such an image uses at most 14 of its 16
bits, as 10-, 12- and 14-bit numbers do, so few grey levels are left."""


def decode(data: bytes) -> Image.Image:
    """Decode an image to Pillow's mode RGB, or L if it has no colours. Raises ValueError with the reason.

    Transparent images are laid over white, 16-bit grey is cut to its upper eight bits, and a camera's orientation
    tag is ignored, as in torchvision's loader. Only the first of several frames is decoded.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"its {image.width} x {image.height} pixels are more than {MAX_PIXELS:,}")
        image.load()
        return _opaque(image)
    except MemoryError:
        raise
    except UnidentifiedImageError as error:
        fault = f"it is not an image in one of the formats {', '.join(FORMATS)}" if data else "it is an empty file"
        raise ValueError(fault) from error
    except Exception as error:  # Pillow raises all sorts of errors on invalid bytes: SyntaxError, struct.error, ...
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error


def levels_left(data: bytes) -> int | None:
    """Number of grey levels left after :func:`decode` cut an image to 8 bits, if the cut removed most of them.

    None for all images except those of 16 bits a channel whose upper bits are hardly used: see DARK.
    """
    image = Image.open(io.BytesIO(data), formats=FORMATS)
    if not any(";16" in str(tile.args) for tile in image.tile):
        return None
    pixels = np.asarray(_opaque(image))
    return len(np.unique(pixels)) if pixels.max() < DARK else None


def resized(image: Image.Image, shorter: int) -> Image.Image:
    """Resize an image to this shorter side, in pixels, bilinear with antialiasing, as torchvision's ``Resize`` does."""
    longer = int(shorter * max(image.size) / min(image.size))
    size = (shorter, longer) if image.width <= image.height else (longer, shorter)
    return image.resize(size, Image.Resampling.BILINEAR)


def square(image: Image.Image, size: int, box: Sequence[float]) -> Image.Image:
    """Resize a box (left, top, right, bottom) of an image to a square, bilinear with antialiasing."""
    left, top, right, bottom = box
    return image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, right, bottom))


def _opaque(image: Image.Image) -> Image.Image:
    """Convert an image to mode L or RGB, without transparency."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its pixels are 32-bit numbers, whose range is not defined")
    mode = "L" if image.mode in ("1", "L", "LA") else "RGB"
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image if image.mode == mode else image.convert(mode)
