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
from raysslprune.commands.common import Parser, reports_errors, wrong_calls
from raysslprune.data.dataset import DataError, Source, Split, counted
from raysslprune.data.files import SKIP, BrokenImage, Files, ahead, check_command, skipped
from raysslprune.data.folder import Folder
from raysslprune.data.images import levels_left
from raysslprune.messages import FAILED
from raysslprune.paper.scales import whole


@reports_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    with wrong_calls():
        source = data.source(options.name)
    code = check(options.name, source, Path(options.data), options.skip_broken)
    if options.name != whole(options.name):
        with wrong_calls():
            count = data.count(options.name, options.data)
        print(f"{options.name}: {count:,} of the training images{'' if code else f': images = {count}'}")
    return code


def check(name: str, source: Source, root: Path, skip_broken: bool) -> int:
    """Print what a data set contains and which of its images are broken. Returns the exit code. Raises DataError."""
    found = source.files(root) if isinstance(source, Folder) else source.load(root)
    tested, classes = counted(len(found.test), "test image", "test images"), counted(found.classes, "class", "classes")
    print(f"{whole(name)}: {len(found.train):,} training and {tested} of {classes}", *found.remarks, sep="\n")
    train, test = _decoded(found.train, "training images"), _decoded(found.test, "test images")
    readable = len(found.train) - sum(isinstance(error, DataError) for _, error in train)
    seen = [*train, *test]
    faults = [(image, error) for image, error in seen if isinstance(error, DataError)]
    for _, error in faults:
        print(error)
    _print_dark([(levels, image) for image, levels in seen if isinstance(levels, int)])
    broken = [image for image, error in faults if isinstance(error, BrokenImage)]
    if isinstance(found.train, Files):
        folder = Path(found.train.root)
        if broken and skip_broken:
            add_to_skip_file(folder, broken)
        if out := len(skipped(folder)):
            print(f"{counted(out, 'image is', 'images are')} left out by {folder / SKIP}")
    left = len(faults) - len(broken) * skip_broken
    print(f"{counted(left, 'image is', 'images are')} broken or can't be read" if left else "no image is broken")
    images = f": images = {readable}" if name == whole(name) else ""
    print(f"{counted(readable, 'training image', 'training images')} can be read{images}")
    if broken and not skip_broken:
        print(f"to leave them out: {check_command(whole(name), root)}")
    return FAILED if left else 0


def add_to_skip_file(folder: Path, names: Sequence[str]) -> None:
    """Add images to a data set's skip file, which leaves them out from now on. Raises DataError."""
    path, temporary = folder / SKIP, folder / f".{SKIP}-{os.getpid()}"
    for name in names:
        if "\n" in name or "\r" in name:
            raise DataError(f"{name!r} in {folder} can't be a line of {path}; rename that file, or remove it")
    before = path.read_text(encoding="utf-8").rstrip("\n") + "\n" if path.exists() else ""
    temporary.write_text(before + "".join(f"{name}\n" for name in names), encoding="utf-8")
    temporary.replace(path)


def _decoded(split: Split, title: str) -> list[tuple[str, DataError | int | None]]:
    """Decode all images. Return each one's name, and its error, or the number of grey levels left of its 16 bits."""
    if not isinstance(split, Files):
        return []  # resident images were decoded when they were loaded
    found = ahead(partial(_fault, split), range(len(split)), 64)
    return list(zip(split.names, track(found, title, len(split), console=Console(stderr=True)), strict=True))


def _fault(files: Files, index: int) -> DataError | int | None:
    try:
        data = files.read(index)
        files.decode(index, data)
    except DataError as error:
        return error
    return levels_left(data)


def _print_dark(images: Sequence[tuple[int, str]]) -> None:
    if images:
        levels, darkest = min(images)
        use = "uses" if len(images) == 1 else "use"
        print(
            f"{counted(len(images), 'image', 'images')} with 16 bits per channel hardly {use} the upper 8 bits, the "
            f"only ones read: {counted(levels, 'level', 'levels')} of grey remain in {darkest}; scale the values of all"
            " images to the full range of 16 bits"
        )


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune check",
        description="Decode every image of a data set, and name the broken ones.",
        examples=["raysslprune check imagenet --data /data --skip-broken"],
        codes="0 no image is broken; 1 some are, or the data set is missing; 2 a wrong call",
    )
    parser.add_argument("name", metavar="NAME", help="as in a sweep file: imagenet, voc07, folder/pets, ...")
    parser.add_data()
    parser.add_argument("--skip-broken", action="store_true", help=f"exclude broken images from now on, by {SKIP}")
    return parser
