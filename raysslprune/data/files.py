"""Images that stay on disk: only their names are in memory, and threads decode the images ahead of their use.

Threads, not processes: Pillow releases Python's lock while it decodes and resizes, so they scale with the cores.
Forking inside a Ray actor is unsafe, and starting processes afresh would import torch again for each of the 31
trainings of a chain.
"""

from __future__ import annotations

import os
import shlex
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from raysslprune.data.dataset import DataError, Dataset

if TYPE_CHECKING:
    from raysslprune.data.images import Image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
"""Extensions of image files, in lower case; the same as torchvision's."""

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Mean and standard deviation of red, green and blue over ImageNet, on the uint8 scale; the usual constants."""

SKIP = "skip.txt"
"""File in a data set's folder that lists images to leave out: relative paths, one per line; ``#`` comments."""

LITTER = ("@eaDir", "Thumbs.db", "desktop.ini")
"""Names of files and folders that Synology's servers and Windows add to folders of images."""

Box = Sequence[float]
"""Left, top, right and bottom edge in pixels."""

Choose = Callable[[int, int], Box | None]
"""Function from an image's width and height to the box of a view; it returns None for the view for testing."""

T = TypeVar("T")
R = TypeVar("R")


class BrokenImage(DataError):
    """A file that could be read, but is not an image, or is only a part of one."""


def check_command(name: str, root: Path) -> str:
    """The command that excludes a data set's broken images."""
    return shlex.join(["raysslprune", "check", name, "--data", str(root), "--skip-broken"])


@dataclass(frozen=True, kw_only=True, eq=False)
class Files:
    """A data.Split of images on disk, as RGB.

    root: the data set's folder. names: paths relative to it, numpy strings (n,); 1.28 million of them take 80 MB.
    labels: as in Split. size: side of the square crops, in pixels. resize: the shorter side before the central crop.
    whole: squeeze the whole image into the square instead of that crop.
    check: the command that leaves out broken images, for messages.
    """

    root: str
    names: np.ndarray
    labels: Tensor
    size: int = 224
    resize: int = 256
    whole: bool = False
    check: str = "raysslprune check NAME --skip-broken"

    @property
    def channels(self) -> int:
        return 3

    def __len__(self) -> int:
        return len(self.names)

    def batches(self, count: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the views for testing, as in Split, with at most two batches in memory. Raises DataError."""
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

        choose: returns the box to resize to a square. If it is None or returns None, the view is that for testing: the
        shorter side is resized to ``resize``, and then the central square is cut out, or all of the image resized to a
        square if ``whole``, exactly as torchvision's ``Resize(resize)`` and ``CenterCrop(size)`` or ``Resize((size,
        size))`` make it.
        """
        return self.views(index, [choose])[0]

    def views(self, index: int, chosen: Iterable[Choose | None]) -> list[np.ndarray]:
        """Views of one image, which is decoded only once: that takes longest. chosen: as ``choose`` in :meth:`view`."""
        try:
            image = self.image(index)
        except BrokenImage as error:
            raise BrokenImage(f"{error}; repair it, or leave out all broken images: {self.check}") from error
        return [self._square(image, choose(*image.size) if choose else None) for choose in chosen]

    def _square(self, image: Image.Image, box: Box | None) -> np.ndarray:
        from raysslprune.data import images  # imports Pillow, which only images on disk need

        if box is not None:
            image = images.square(image, self.size, box)
        else:
            image = images.resized(image, self.resize)
            if self.whole:
                image = images.square(image, self.size, (0, 0, *image.size))
            left, top = (round((side - self.size) / 2) for side in image.size)
            image = image.crop((left, top, left + self.size, top + self.size))
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1))

    def image(self, index: int) -> Image.Image:
        """A decoded image, in mode RGB or L. Raises DataError if it can't be read, BrokenImage if not valid."""
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
        """Decode the content of an image's file, to mode RGB or L. Raises BrokenImage."""
        from raysslprune.data import images

        try:
            image = images.decode(data)
            if self.resize**2 * max(image.size) > images.MAX_PIXELS * min(image.size):
                raise ValueError(f"its {image.width} x {image.height} pixels are too long and narrow")
        except ValueError as error:
            raise BrokenImage(f"image {self.path(index)} is broken: {error}") from error
        return image


def dataset(
    root: Path,
    train: tuple[Sequence[str], Tensor],
    test: tuple[Sequence[str], Tensor],
    classes: int,
    remarks: Sequence[str] = (),
    whole: bool = False,
) -> Dataset:
    """A data set of images on disk under a folder, from names and labels, without the images in its skip file.

    remarks: as Source.locate returns them. whole: as in Files. Raises DataError, also if the skip file lists an image
    that the data set does not have, or all images of a split.
    """
    listed = set(skipped(root))
    if unknown := listed.difference(train[0], test[0]):
        raise DataError(f"{root / SKIP} lists {spelled(min(unknown))}, but this data set has no such image")
    splits = [replace(_without(listed, root, *split), whole=whole) for split in (train, test)]
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
    """The images that a data set's skip file leaves out; none if there is no such file. Raises DataError.

    Paths may be written as by ``find``, Windows or an error message: ``./train/a.jpg``, ``train\\a.jpg``, absolute.
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
    """A path of a skip file, below the data set's folder. A backslash separates folders unless there is a ``/``."""
    path = PurePosixPath(line if "/" in line else line.replace("\\", "/"))
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def spelled(name: str) -> str:
    """A name in quotes; with escapes if it is not in Unicode's normal form NFC, as macOS writes accents."""
    return repr(name) if unicodedata.is_normalized("NFC", name) else ascii(name)


def listed(folder: Path, layout: str) -> list[os.DirEntry[str]]:
    """The entries of a folder that are not hidden. Raises DataError, with the expected ``layout``."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".") and entry.name not in LITTER]
    except FileNotFoundError as error:
        raise DataError(f"there is no folder {folder}; {layout}") from error
    except OSError as error:
        raise DataError(f"folder {folder} can't be listed: {error.strerror}; {layout}") from error


def below(root: Path, kind: str, name: str) -> Path:
    """The path ``root / name`` of a data set that is written ``kind/name``.

    Raises ValueError if the name is empty, or would lead out of the data root.
    """
    path = PurePosixPath(name)
    if not name or path.is_absolute() or ".." in path.parts:
        raise ValueError(f"data set {kind}/NAME needs a name below the data root after the slash, not {name!r}")
    return root.absolute() / path


@cache
def executor() -> ThreadPoolExecutor:
    """Threads of this process for reading and decoding: one for each core that it may use.

    A sweep sets torch's number of threads to these cores. Work in the pool must not wait for other work in it.
    """
    return ThreadPoolExecutor(max(1, torch.get_num_threads()), thread_name_prefix="decode")


def ahead(work: Callable[[T], R], items: Iterable[T], count: int) -> Iterator[R]:
    """Yield as ``map(work, items)`` does, in order, from the executor's threads, which are up to ``count`` items ahead.

    ``count`` is increased if it would leave threads idle.
    """
    pool, count = executor(), max(count, 2 * torch.get_num_threads())
    started: deque[Future[R]] = deque()
    try:
        for item in items:
            started.append(pool.submit(work, item))
            if len(started) > count:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()
    finally:
        for future in started:
            future.cancel()
