"""``raysslprune resize imagenet``: copy a data set with smaller images, which decode in half the time.

Each epoch decodes all images anew, and crops lose most of their pixels when they are resized. The copy has other
pixels, so it gives other results and is a data set of its own: ``folder/imagenet-256``. Its images keep their names and
order, so ``10%-of-images`` selects the same ones.

The copy is made in a hidden folder, which gets the copy's name when all is done; until then the same command resumes.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from raysslprune import catalogue, data
from raysslprune.commands.common import Parser, path, reports_errors, whole, wrong_calls
from raysslprune.data.dataset import DataError, Dataset, counted
from raysslprune.data.files import Files, ahead, below
from raysslprune.data.folder import Folder
from raysslprune.data.images import resized
from raysslprune.terminal.progress import LINE_EVERY
from raysslprune.words import duration, size

SHORTER = 256
"""Shorter side of the new images in pixels. Testing resizes to the same size, so its views lose only by JPEG."""

QUALITY = 95
"""Quality of the JPEG files that are written."""

T = TypeVar("T")


@reports_errors(stopped="stopped; run the same command again to resume")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    with wrong_calls():
        source = data.source(options.name)
        if not isinstance(source, Folder):
            raise ValueError(
                f"{options.name} is not a data set with a folder of images per class, such as imagenet or folder/NAME"
            )
        if part := catalogue.data_parts(options.name)[2]:
            name = f"folder/{source.name}-{options.shorter}:{part}"
            raise ValueError(f"resize the whole data set; its part is then {name}")
        if source.size:
            raise ValueError(f"leave out the size: folder/{source.name}; its copy can be read at any size")
    root = Path(options.data)
    resize(source, root, Path(options.out or root), options.shorter)
    return 0


def resize(source: Folder, root: Path, out: Path, shorter: int = SHORTER) -> None:
    """Make what is missing of a data set's copy under the data root ``out``, and print the copy's name.

    No image is enlarged: files with small images are copied. Raises DataError, also if images are broken or can't
    be read, after printing which ones.
    """
    name = f"{source.name}-{shorter}"
    target = below(out, "folder", name)
    if Path(os.path.realpath(below(root, "folder", source.name))) in Path(os.path.realpath(target)).parents:
        raise DataError(f"{target} would be within the data set itself; choose another --out")
    found = source.files(root)
    splits = [_files(found.train), _files(found.test)]
    if not target.exists():
        unfinished = target.with_name(f".{target.name}.unfinished")
        faults = _make(splits, unfinished, shorter)
        for fault in faults:
            print(fault)
        if faults:
            missing = counted(len(faults), "image is", "images are")
            mend = f"repair them, or leave out all broken images: {splits[0].check}"
            raise DataError(f"{missing} missing in the copy, so it is not finished; {mend}")
        _check_same(found, out, unfinished)
        unfinished.rename(target)
    _check_same(found, out, target)
    before, after = (
        sum(os.path.getsize(os.path.join(root, name)) for files in splits for name in files.names)
        for root in (splits[0].root, target)
    )
    images = counted(sum(map(len, splits)), "image", "images")
    print(f"folder/{name}: {images} in {target}, {size(after)} instead of {size(before)}")


def _files(split: data.Split) -> Files:
    assert isinstance(split, Files)
    return split


def _make(splits: Sequence[Files], folder: Path, shorter: int) -> list[DataError]:
    """Make what is missing of a copy in that folder. Returns the errors of the source's images."""
    for part in {os.path.dirname(name) for files in splits for name in files.names}:
        (folder / part).mkdir(parents=True, exist_ok=True)
    temporary = folder / f".writing-{os.getpid()}"
    temporary.mkdir(exist_ok=True)
    missing = [
        (files, index)
        for files in splits
        for index, name in enumerate(files.names)
        if not _is_done(os.path.join(folder, name))
    ]
    made = ahead(partial(_make_one, folder, temporary, shorter), missing, 64)
    faults = [fault for fault in _watched(made, len(missing)) if fault]
    for leftover in folder.glob(".writing-*"):
        shutil.rmtree(leftover)
    return faults


def _make_one(folder: Path, temporary: Path, shorter: int, which: tuple[Files, int]) -> DataError | None:
    """Make one image of the copy. Returns the original's error. Raises DataError if the copy can't be written."""
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


def _is_done(path: str) -> bool:
    """Return whether the file exists and is not empty, as files can be after a power cut."""
    try:
        return os.path.getsize(path) > 0
    except FileNotFoundError:
        return False


def _check_same(found: Dataset, out: Path, folder: Path) -> None:
    """Raise DataError if the folder has other images than ``found``."""
    copy = Folder(folder.relative_to(out.absolute()).as_posix()).files(out)
    for ours, theirs in ((copy.train, found.train), (copy.test, found.test)):
        if _files(ours).names.tolist() != _files(theirs).names.tolist():
            raise DataError(f"{folder} has other images than {_files(theirs).root} has now; remove it, and start again")


def _watched(results: Iterable[T], total: int) -> Iterator[T]:
    """Yield the results, and print on stderr how many are done and how long the others will take."""
    terminal = sys.stderr.isatty()
    start = printed = time.monotonic()
    for done, result in enumerate(results, 1):
        yield result
        now = time.monotonic()
        if now - printed >= (0.5 if terminal else LINE_EVERY) or (terminal and done == total):
            printed = now
            left = duration((now - start) / done * (total - done))
            line = f"{done:,} of {total:,} images, {left} left"
            if terminal:
                print(f"\r{line:60}", end="\n" if done == total else "", file=sys.stderr)
            else:
                print(line, file=sys.stderr)


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune resize",
        description="Copy a data set with smaller images, which decode in half the time. The same command again "
        "resumes.",
        examples=["raysslprune resize imagenet --data /data"],
        codes="0 the copy is complete; 1 the data set is missing or has broken images; 2 a wrong call",
    )
    parser.add_argument("name", metavar="NAME", help="as in a sweep file: imagenet, places205, folder/pets")
    parser.add_data()
    parser.add_argument("--out", type=path, metavar="DIR", help="folder of data sets for the copy (default: --data)")
    shorter = f"shorter side of the new images (default: {SHORTER}, as for testing)"
    parser.add_argument("--shorter", type=whole(16, 4096), default=SHORTER, metavar="PIXELS", help=shorter)
    return parser
