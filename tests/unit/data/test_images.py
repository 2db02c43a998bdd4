"""Images that are decoded and resized: against torchvision, Pillow and hand-made files."""

from __future__ import annotations

import importlib
import io
import random
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raysslprune.data import files, images
from tests.helpers.images import chunk, encoded, palette, picture, png


def test_what_a_camera_noted_about_orientation_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(picture(60, 40), "JPEG", exif=exif)
    assert Image.open(io.BytesIO(turned)).getexif()[0x0112] == 6
    plain = encoded(picture(60, 40), "JPEG")
    assert np.array_equal(np.asarray(images.decode(turned)), np.asarray(images.decode(plain)))


def test_what_is_transparent_is_laid_over_white() -> None:
    colours = np.zeros((4, 4, 4), np.uint8)
    colours[0] = (200, 0, 0, 255)
    colours[1] = (200, 0, 0, 51)
    for kind in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        image = images.decode(encoded(Image.fromarray(colours), kind, **options))
        assert image.mode == "RGB"
        rows = np.asarray(image)[:, 0].tolist()
        assert rows == [[200, 0, 0], [244, 204, 204], [255, 255, 255], [255, 255, 255]]  # 255 - 0.2 * 55 = 244


def test_grey_with_transparency_stays_grey() -> None:
    pixels = np.array([[[10, 255], [10, 0]]], np.uint8)
    grey_and_alpha = [Image.fromarray(np.ascontiguousarray(pixels[:, :, band])) for band in (0, 1)]
    image = images.decode(encoded(Image.merge("LA", grey_and_alpha), "PNG"))
    assert (image.mode, np.asarray(image).tolist()) == ("L", [[10, 255]])
    image = images.decode(encoded(grey_and_alpha[0], "PNG", transparency=10))
    assert (image.mode, np.asarray(image).tolist()) == ("L", [[255, 255]])


def test_transparent_colours_of_a_palette_are_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    for transparency in (b"\xff\x00", 1):
        found = images.decode(encoded(image, "PNG", transparency=transparency))
        assert np.asarray(found).tolist() == [[[10, 20, 30], [255, 255, 255]]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_grey_of_16_bits_is_cut_to_8(kind: str) -> None:
    pixels = np.array([[0, 255, 256, 0x8000, 0xFFFF]], np.uint16)
    by_hand = b"P5 5 1 65535\n" + pixels.astype(">u2").tobytes()
    image = images.decode(by_hand if kind == "PPM" else encoded(Image.fromarray(pixels), kind))
    assert np.asarray(image).tolist() == [[0, 0, 1, 128, 255]]


def test_colours_of_16_bits_are_cut_to_8() -> None:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
    pixel = chunk(b"IDAT", zlib.compress(b"\0" + struct.pack(">3H", 0x01FF, 0x80AB, 0xFFFF)))
    image = images.decode(b"\x89PNG\r\n\x1a\n" + header + pixel + chunk(b"IEND", b""))
    assert np.asarray(image).tolist() == [[[1, 128, 255]]]


@pytest.mark.parametrize(
    ("image", "mode"),
    [
        (picture(9, 9), "RGB"),
        (picture(9, 9).convert("L"), "L"),
        (picture(9, 9).convert("1"), "L"),
        (palette(9, 9), "RGB"),
        (picture(9, 9).convert("CMYK"), "RGB"),
        (picture(9, 9).convert("LAB"), "RGB"),
    ],
)
def test_every_mode_becomes_rgb_or_grey(image: Image.Image, mode: str) -> None:
    found = images.decode(encoded(image, "TIFF"))
    assert (found.mode, found.size) == (mode, (9, 9))


def test_images_of_the_size_that_pillow_warns_of_really_are(tmp_path: Path) -> None:
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(io.BytesIO(png(12_000, 8_000)))
    assert Image.MAX_IMAGE_PIXELS == images.MAX_PIXELS


def test_pillows_warnings_stay_inside_even_in_threads() -> None:
    odd = png(1, 1, chunk(b"acTL", struct.pack(">II", 0, 0)), rows=b"\0\x07")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="APNG"):
            images.decode(odd)
        importlib.reload(images)  # as at its first import, which sets the filter
        found = list(files.ahead(images.decode, [odd] * 50, 50))
    assert {image.getpixel((0, 0)) for image in found} == {7}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP"])
def test_damage_gives_an_image_or_a_reason(kind: str) -> None:
    whole = encoded(picture(24, 20), kind)
    rng = random.Random(kind)
    refused: list[str] = []
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 6)):
            damaged[int(len(whole) * rng.random() ** 3)] = rng.randrange(256)  # more often near the header
        try:
            image = images.decode(bytes(damaged[: rng.randint(1, len(whole))] if rng.random() < 0.3 else damaged))
        except ValueError as error:
            refused.append(str(error))
        else:
            assert image.mode in ("RGB", "L")
    assert len(refused) > 20
    assert all(refused)


def test_running_out_of_memory_is_not_the_images_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(images, "_opaque", fail)
    with pytest.raises(MemoryError):
        images.decode(encoded(picture(4, 4), "PNG"))
