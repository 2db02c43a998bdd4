"""Images that stay on disk: only their names are held, and threads decode them ahead of whoever uses them.

Threads, not processes: Pillow lets go of Python's lock while it decodes and resizes, so they scale with the cores.
Forking inside a Ray actor is unsafe, and starting processes afresh would import torch again for each of the 31
trainings of a chain.
"""

from __future__ import annotations

import os
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
"""Of the files that are taken for images, in lower case; the same as torchvision's."""


MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
"""Of red, green and blue over ImageNet, on the uint8 scale; everybody's constants."""

SKIP = "skip.txt"
"""In a data set's folder: images that are left out, as paths from that folder, one a line, and comments after ``#``."""

LITTER = ("@eaDir", "Thumbs.db", "desktop.ini")
"""What Synology's file servers and Windows hide in folders of images."""


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
        from raysslprune.data import images  # imports Pillow, which data sets without images on disk can do without

        if box is not None:
            image = images.square(image, self.size, box)
        else:
            image = images.resized(image, self.resize)
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
        from raysslprune.data import images

        try:
            image = images.decode(data)
            if self.resize**2 * max(image.size) > images.MAX_PIXELS * min(image.size):
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
