"""``raysslprune resize imagenet``: copy a data set with smaller images, which decode in half the time.

Each epoch decodes all images anew, and most of their pixels are lost when crops are resized. A copy has other pixels,
so results on it are other results: it is a data set of its own, ``folder/imagenet-256``. Its images have their old
names and order, so that ``10%-of-images`` are the same ones.

The copy gets its name when it is whole. Until then it lies in a hidden folder beside, and the same command goes on.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import time
from argparse import ArgumentTypeError
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from raysslprune import catalogue, data
from raysslprune.commands.common import Parser, path, reports_errors
from raysslprune.data.dataset import DataError, Dataset, counted
from raysslprune.data.files import Files, ahead, below
from raysslprune.data.folder import Folder
from raysslprune.data.images import resized
from raysslprune.messages import FAILED, STOPPED, USAGE, say
from raysslprune.terminal.progress import LINE_EVERY
from raysslprune.words import duration, size

SHORTER = 256
"""Pixels of an image's shorter side: what it is resized to for testing, so that view loses nothing but to JPEG."""

QUALITY = 95
"""Of the JPEG files that are written."""

T = TypeVar("T")


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        source = data.source(options.name)
        part = catalogue.data_parts(options.name)[2]
    except ValueError as error:
        return say(str(error), USAGE)
    if not isinstance(source, Folder):
        return say(f"{options.name} is no folder of images for each class, as imagenet and folder/NAME are", USAGE)
    if part:
        return say(f"resize the whole data set; its part is then folder/{source.name}-{options.shorter}:{part}", USAGE)
    root = Path(options.data)
    try:
        return resize(source, root, Path(options.out or root), options.shorter)
    except (DataError, OSError) as error:
        return say(str(error), FAILED)
    except KeyboardInterrupt:
        return say("stopped; the same command goes on from here", STOPPED)


def resize(source: Folder, root: Path, out: Path, shorter: int = SHORTER) -> int:
    """Make a data set's copy under the data root ``out``, or what is missing of it, and say what it is called.

    No image is enlarged: files whose images are small enough are copied. Returns the exit code, FAILED where images are
    broken or can't be read; they are named. Raises DataError.
    """
    name = f"{source.name}-{shorter}"
    target = below(out, "folder", name)
    if os.path.realpath(below(root, "folder", source.name)) in map(str, Path(os.path.realpath(target)).parents):
        raise DataError(f"{target} would be within the data set itself; choose another --out")
    found = source.load(root)
    splits = [_files(found.train), _files(found.test)]
    if not target.exists():
        unfinished = target.with_name(f".{target.name}.unfinished")
        faults = _make(splits, unfinished, shorter)
        for fault in faults:
            print(fault)
        if faults:
            missing = counted(len(faults), "image is", "images are")
            mend = f"mend them, or leave out all that are broken: {splits[0].check}"
            return say(f"{missing} missing in the copy, so it is not finished; {mend}", FAILED)
        _demand_same(found, out, unfinished, "remove it, and start again")
        unfinished.rename(target)
    _demand_same(found, out, target, "remove it to make it anew")
    before, after = (sum(_bytes(Path(root), files) for files in splits) for root in (splits[0].root, target))
    images = counted(sum(map(len, splits)), "image", "images")
    print(f"folder/{name}: {images} in {target}, {size(after)} instead of {size(before)}")
    return 0


def _files(split: data.Split) -> Files:
    assert isinstance(split, Files)
    return split


def _make(splits: Sequence[Files], folder: Path, shorter: int) -> list[DataError]:
    """Make what is missing of a copy in that folder. Returns what is wrong with images of the source."""
    for part in {os.path.dirname(name) for files in splits for name in files.names}:
        (folder / part).mkdir(parents=True, exist_ok=True)
    temporary = folder / f".writing-{os.getpid()}"
    temporary.mkdir(exist_ok=True)
    missing = [
        (files, index)
        for files in splits
        for index, name in enumerate(files.names)
        if not _is_there(os.path.join(folder, name))
    ]
    made = ahead(partial(_make_one, folder, temporary, shorter), missing, 64)
    faults = [fault for fault in _watched(made, len(missing)) if fault]
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover)
    return faults


def _make_one(folder: Path, temporary: Path, shorter: int, which: tuple[Files, int]) -> DataError | None:
    """One image of the copy. Returns what is wrong with the original. Raises DataError where it can't be written."""
    files, index = which
    try:
        image = files.image(index)
    except DataError as error:
        return error
    name: str = files.names[index]
    writing = temporary / str(threading.get_ident())
    try:
        if min(image.size) <= shorter:
            shutil.copyfile(os.path.join(files.root, name), writing)
        else:
            encoded = io.BytesIO()
            resized(image, shorter).save(encoded, "JPEG", quality=QUALITY)
            writing.write_bytes(encoded.getbuffer())
        writing.replace(folder / name)
    except OSError as error:
        raise DataError(f"{folder / name} can't be written: {error.strerror or error}") from error
    return None


def _is_there(path: str) -> bool:
    """And not empty, as files can be after a machine lost its power."""
    try:
        return os.path.getsize(path) > 0
    except FileNotFoundError:
        return False


def _demand_same(found: Dataset, out: Path, folder: Path, advice: str) -> None:
    """Raises DataError where the folder has other images than ``found``."""
    copy = Folder(folder.relative_to(out.absolute()).as_posix()).load(out)
    for ours, theirs in ((copy.train, found.train), (copy.test, found.test)):
        if _files(ours).names.tolist() != _files(theirs).names.tolist():
            raise DataError(f"{folder} has other images than {_files(theirs).root} has now; {advice}")


def _bytes(root: Path, files: Files) -> int:
    return sum(os.path.getsize(os.path.join(root, name)) for name in files.names)


def _watched(results: Iterable[T], total: int) -> Iterator[T]:
    """The same, telling on stderr how far it is and how long the rest will take."""
    terminal = sys.stderr.isatty()
    begun = said = time.monotonic()
    for done, result in enumerate(results, 1):
        yield result
        now = time.monotonic()
        if now - said >= (0.5 if terminal else LINE_EVERY) or (terminal and done == total):
            said = now
            left = duration((now - begun) / done * (total - done))
            line = f"{done:,} of {total:,} images, {left} left"
            print(f"\r{line:60}" if terminal else line, end="" if terminal and done < total else "\n", file=sys.stderr)


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune resize",
        description="Copy a data set with smaller images, which decode in half the time. The same command again"
        " goes on where it ended.",
        examples=["raysslprune resize imagenet --data /data"],
        codes="0 the copy is whole; 1 the data set is missing or has broken images; 2 a wrong call; 130 Ctrl-C",
    )
    parser.add_argument("name", metavar="NAME", help="as a sweep has it: imagenet, places205, folder/pets")
    parser.add_data()
    parser.add_argument(
        "--out", type=path, metavar="DIR", help="the data root that gets the copy (default: that of --data)"
    )
    parser.add_argument(
        "--shorter",
        type=_pixels,
        default=SHORTER,
        metavar="PIXELS",
        help="the shorter side of the new images (default: %(default)s, as for testing)",
    )
    return parser


def _pixels(text: str) -> int:
    if not text.isdecimal() or not SHORTER <= int(text) <= 4096:
        raise ArgumentTypeError(f"{text!r:.40} is not a whole number from {SHORTER} to 4096")
    return int(text)
