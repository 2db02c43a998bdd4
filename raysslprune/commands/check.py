"""``raysslprune check imagenet --data DIR``: decode every image of a data set, and name the broken ones.

A training would meet a broken image hours after its start. This takes minutes, and names all of them at once.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track

from raysslprune import data
from raysslprune.commands.common import Parser, reports_errors
from raysslprune.data.dataset import DataError, Source, Split, counted
from raysslprune.data.files import SKIP, BrokenImage, Files, ahead, skipped
from raysslprune.data.images import levels_left
from raysslprune.messages import FAILED, STOPPED, USAGE, say


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        source = data.source(options.name)
    except ValueError as error:
        return say(str(error), USAGE)
    try:
        return check(options.name, source, Path(options.data), options.skip_broken)
    except (DataError, OSError) as error:
        return say(str(error), FAILED)
    except KeyboardInterrupt:
        return say("stopped", STOPPED)


def check(name: str, source: Source, root: Path, skip_broken: bool) -> int:
    """Print what a data set has and which of its images are broken. Returns the exit code. Raises DataError."""
    found = source.load(root)
    test, classes = counted(len(found.test), "test image", "test images"), counted(found.classes, "class", "classes")
    print(f"{name}: {len(found.train):,} training and {test} of {classes}", *found.remarks, sep="\n")
    seen = [*_looked_at(found.train, "training images"), *_looked_at(found.test, "test images")]
    faults = [(image, error) for image, error in seen if isinstance(error, DataError)]
    for _, error in faults:
        print(error)
    _tell_of_dark([(image, levels) for image, levels in seen if isinstance(levels, int)])
    broken = [image for image, error in faults if isinstance(error, BrokenImage)]
    if isinstance(found.train, Files):
        folder = Path(found.train.root)
        if broken and skip_broken:
            add_to_skip_file(folder, broken)
        print(f"{counted(len(skipped(folder)), 'image is', 'images are')} left out by {folder / SKIP}")
    left = len(faults) - len(broken) * skip_broken
    print(f"{counted(left, 'image is', 'images are')} broken or can't be read" if left else "no image is broken")
    return FAILED if left else 0


def add_to_skip_file(folder: Path, names: Sequence[str]) -> None:
    """Leave images out of a data set from now on. Raises DataError."""
    path, temporary = folder / SKIP, folder / f".{SKIP}-{os.getpid()}"
    odd = [name for name in names if "\n" in name or "\r" in name]
    if odd:
        raise DataError(f"{odd[0]!r} in {folder} can't be a line of {path}; rename that file, or remove it")
    before = path.read_text(encoding="utf-8").rstrip("\n") + "\n" if path.exists() else ""
    temporary.write_text(before + "".join(f"{name}\n" for name in names), encoding="utf-8")
    temporary.replace(path)


def _looked_at(split: Split, title: str) -> list[tuple[str, DataError | int | None]]:
    """For each image its name, and what is wrong with it: an error, or how few levels of grey are left."""
    if not isinstance(split, Files):
        return []  # resident: decoded when it was loaded
    found = ahead(partial(_fault, split), range(len(split)), 64)
    return list(zip(split.names, track(found, title, len(split), console=Console(stderr=True)), strict=True))


def _fault(files: Files, index: int) -> DataError | int | None:
    try:
        data = files.read(index)
        files.decode(index, data)
    except DataError as error:
        return error
    return levels_left(data)


def _tell_of_dark(images: Sequence[tuple[str, int]]) -> None:
    if images:
        darkest, levels = min(images, key=lambda image: image[1])
        print(
            f"{counted(len(images), 'image', 'images')} of 16 bits a channel hardly use the upper 8, which are all that"
            f" is read: of {darkest} there {counted(levels, 'level of grey is', 'levels of grey are')} left; scale the"
            " values of all images to the whole range of 16 bits"
        )


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune check",
        description="Decode every image of a data set, and name the broken ones.",
        examples=["raysslprune check imagenet --data /data --skip-broken"],
        codes="0 no image is broken; 1 some are, or the data set is missing; 2 a wrong call; 130 Ctrl-C",
    )
    parser.add_argument("name", metavar="NAME", help="as a sweep has it: imagenet, voc07, folder/pets, ...")
    parser.add_data()
    parser.add_argument(
        "--skip-broken", action="store_true", help=f"leave the broken images out from now on, by {SKIP} in its folder"
    )
    return parser
