"""Images that stay on disk: only their names are held, and threads decode them ahead of whoever uses them.

Threads, not processes: Pillow lets go of Python's lock while it decodes and resizes, so they scale with the cores.
Forking inside a Ray actor is unsafe, and starting processes afresh would import torch again for each of the 31
trainings of a chain.
"""

from __future__ import annotations

import io
import os
import re
import threading
import unicodedata
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from raysslprune.data.dataset import DataError, Dataset

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Of the files that are taken for images, in lower case; the same as torchvision's."""

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
"""What these files may really be. Nothing else is tried: for some formats Pillow starts other programs."""

MAX_PIXELS = 89_478_485
"""Of an image, decoded or resized: where Pillow begins to warn of decompression bombs."""

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of red, green and blue over ImageNet, on the uint8 scale; everybody's constants."""

SKIP = "skip.txt"
"""In a data set's folder: images that are left out, as paths from that folder, one a line, and comments after ``#``."""

LITTER = ("@eaDir", "Thumbs.db", "desktop.ini")
"""What Synology's file servers and Windows hide in folders of images."""

DARK = 64
"""Where the brightest pixel of an image with 16 bits a channel is below this after the cut to 8 bits, at most 14 of its
16 bits are in use: it holds numbers of 10, 12 or 14 bits, and few levels of them are left."""

Box = Sequence[float]
"""Left, top, right and bottom edge in pixels."""

Choose = Callable[[int, int], Box | None]
"""From an image's width and height, the part of it that is a view; None for the view for testing."""

T = TypeVar("T")
R = TypeVar("R")


class BrokenImage(DataError):
    """A file that could be read, but is no image, or only part of one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Files:
    """A data.Split of images on disk, as RGB.

    root: the data set's folder. names: paths from there, numpy strings (n,), which hold 1.28 million in 80 MB.
    labels: as in Split. size: of the square crops. resize: what the shorter side becomes before the central crop.
    check: the command that leaves broken images out.
    """

    root: str
    names: np.ndarray
    labels: Tensor
    size: int = 224
    resize: int = 256
    check: str = "raysslprune check NAME --skip-broken"

    @property
    def channels(self) -> int:
        return 3

    def __len__(self) -> int:
        return len(self.names)

    def batches(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """As in Split: the views for testing, in memory for at most two batches. Raises DataError."""
        images = ahead(self.view, range(len(self)), count)
        for labels in self.labels.split(count):
            batch = np.empty((len(labels), self.channels, self.size, self.size), np.uint8)
            for place, image in zip(batch, images, strict=False):
                place[:] = image
            yield torch.from_numpy(batch), labels

    def some(self, index: Tensor, labels: Tensor | None = None) -> Files:
        chosen = self.labels[index.to(self.labels.device)] if labels is None else labels
        return replace(self, names=self.names[index.cpu().numpy()], labels=chosen)

    def to(self, device: torch.device) -> Files:
        return replace(self, labels=self.labels.to(device))

    def view(self, index: int, choose: Choose | None = None) -> np.ndarray:
        """One image as uint8 (3, size, size), bilinear with antialiasing. Any thread may call it. Raises DataError.

        choose: from width and height, the box that is resized to a square. Without it, or where it gives None: the
        view for testing, the central square after the shorter side became ``resize``, exactly as torchvision's
        ``Resize`` and ``CenterCrop`` make it.
        """
        return self.views(index, [choose])[0]

    def views(self, index: int, chosen: Iterable[Choose | None]) -> list[np.ndarray]:
        """Several views of one image, which is decoded once: that takes longer than to crop and resize."""
        try:
            image = self.image(index)
        except BrokenImage as error:
            raise BrokenImage(f"{error}; mend it, or leave out all that are broken: {self.check}") from error
        return [self._square(image, choose(*image.size) if choose else None) for choose in chosen]

    def _square(self, image: Image.Image, box: Box | None) -> np.ndarray:
        if box is not None:
            left, top, right, bottom = box
            square = (self.size, self.size)
            image = image.resize(square, Image.Resampling.BILINEAR, box=(left, top, right, bottom))
        else:
            image = resized(image, self.resize)
            left, top = (round((side - self.size) / 2) for side in image.size)
            image = image.crop((left, top, left + self.size, top + self.size))
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))

    def image(self, index: int) -> Image.Image:
        """One image, decoded, in mode RGB or L. Raises DataError where it can't be read, BrokenImage where decoded."""
        return self.decode(index, self.read(index))

    def path(self, index: int) -> str:
        return os.path.join(self.root, self.names[index])

    def read(self, index: int) -> bytes:
        """The content of one image's file. Raises DataError."""
        path = self.path(index)
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            raise DataError(f"image {path} can't be read: {error.strerror}") from error

    def decode(self, index: int, data: bytes) -> Image.Image:
        """The image that is the content of that file. Raises BrokenImage."""
        try:
            image = decode(data)
            if self.resize**2 * max(image.size) > MAX_PIXELS * min(image.size):
                raise ValueError(f"{image.width} x {image.height} pixels are too long and narrow")
        except ValueError as error:
            raise BrokenImage(f"image {self.path(index)} is broken: {error}") from error
        return image


def dataset(
    root: Path,
    train: tuple[Sequence[str], Tensor],
    test: tuple[Sequence[str], Tensor],
    classes: int,
    remarks: Sequence[str] = (),
) -> Dataset:
    """A data set of images on disk under a folder, from names and labels, without those that its skip file lists.

    remarks: as Source.locate returns them. Raises DataError, also where the skip file lists what is not in the data
    set, or all that is in it.
    """
    listed = skipped(root)
    unknown = set(listed).difference(train[0], test[0])
    if unknown:
        raise DataError(f"{root / SKIP} lists {spelled(min(unknown))}, which is no image of this data set")
    splits = [_without(set(listed), root, *split) for split in (train, test)]
    if not all(map(len, splits)):
        raise DataError(f"{root / SKIP} leaves no image for training or none for testing")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return Dataset(train=splits[0], test=splits[1], classes=classes, mean=mean, std=std, remarks=tuple(remarks))


def _without(listed: set[str], root: Path, names: Sequence[str], labels: Tensor) -> Files:
    if listed:
        kept = [i for i, name in enumerate(names) if name not in listed]
        names, labels = [names[i] for i in kept], labels[kept]
    try:
        packed = np.array(names, dtype=np.dtypes.StringDType())
    except UnicodeEncodeError as error:
        raise DataError(f"the file name {error.object!r} under {root} is not UTF-8; rename it") from error
    return Files(root=str(root), names=packed, labels=labels)


def skipped(root: Path) -> list[str]:
    """The images that a data set's skip file leaves out; none where there is no such file. Raises DataError.

    Paths may be as ``find``, Windows or an error message writes them: ``./train/a.jpg``, ``train\\a.jpg``, absolute.
    """
    path = root / SKIP
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} can't be read: {getattr(error, 'strerror', None) or 'it is not UTF-8'}") from error
    stripped = [line.strip() for line in lines]
    return [_below(root, line) for line in stripped if line and not line.startswith("#")]


def _below(root: Path, line: str) -> str:
    """A path of a skip file as it is from the data set's folder. Beside a ``/``, a backslash is part of a name."""
    path = PurePosixPath(line if "/" in line else line.replace("\\", "/"))
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def spelled(name: str) -> str:
    """A name in quotes; with escapes where it is written in another way than it seems, as macOS writes accents."""
    return repr(name) if unicodedata.is_normalized("NFC", name) else ascii(name)


def listed(folder: Path, layout: str) -> list[os.DirEntry[str]]:
    """What is in a folder and not hidden. Raises DataError."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".") and entry.name not in LITTER]
    except FileNotFoundError as error:
        raise DataError(f"there is no folder {folder}; {layout}") from error
    except NotADirectoryError as error:
        raise DataError(f"{folder} is not a folder; {layout}") from error
    except OSError as error:
        raise DataError(f"folder {folder} can't be listed: {error.strerror}; {layout}") from error


def below(root: Path, kind: str, name: str) -> Path:
    """``root / name``, for a data set whose name stands after a slash: ``kind/name``.

    Raises ValueError where there is none, or where it would lead out of the data root.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"data set {kind}/NAME needs a name below the data root after the slash, not {name!r}")
    return root.absolute() / path


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


@cache
def executor() -> ThreadPoolExecutor:
    """This process's threads for reading and decoding: one for each core that it may use.

    torch knows how many these are, as a sweep tells it. Work in it must not wait for other work in it.
    """
    return ThreadPoolExecutor(max(1, torch.get_num_threads()), thread_name_prefix="decode")


def ahead(work: Callable[[T], R], items: Iterable[T], count: int) -> Iterator[R]:
    """``map(work, items)`` by the executor's threads: in order, begun for at most ``count`` items not yet asked for.

    ``count`` is raised where it would leave threads idle.
    """
    pool, count = executor(), max(count, 2 * torch.get_num_threads())
    begun: deque[Future[R]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > count:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        for future in begun:
            future.cancel()
