"""``python -m raysslprune.data.check imagenet --data DIR``: decode every image of a data set, and name the broken ones.

A training would meet a broken image hours after its start. This takes minutes, and names all of them at once.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import track

from raysslprune import data
from raysslprune.command import FAILED, STOPPED, USAGE, Parser, say, told
from raysslprune.data.dataset import DataError, Source, Split
from raysslprune.data.files import SKIP, BrokenImage, Files, ahead, skipped

Faults = list[tuple[str, DataError]]
"""Images that can't be read or decoded, as name and error."""


@told
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
    print(f"{name}: {len(found.train):,} training and {len(found.test):,} test images of {found.classes:,} classes")
    faults = [*_faults(found.train, "training images"), *_faults(found.test, "test images")]
    for _, error in faults:
        print(error)
    broken = [image for image, error in faults if isinstance(error, BrokenImage)]
    if isinstance(found.train, Files):
        folder = Path(found.train.root)
        if broken and skip_broken:
            add_to_skip_file(folder, broken)
        print(f"{len(skipped(folder)):,} images are left out by {folder / SKIP}")
    left = len(faults) - len(broken) * skip_broken
    print(f"{left:,} images are broken or can't be read" if left else "no image is broken")
    return FAILED if left else 0


def add_to_skip_file(folder: Path, names: Sequence[str]) -> None:
    """Leave images out of a data set from now on. Raises DataError."""
    path, temporary = folder / SKIP, folder / f".{SKIP}-{os.getpid()}"
    odd = [name for name in names if "\n" in name]
    if odd:
        raise DataError(f"{odd[0]!r} in {folder} can't be a line of {path}; rename that file, or remove it")
    temporary.write_text("".join(f"{name}\n" for name in sorted({*skipped(folder), *names})), encoding="utf-8")
    temporary.replace(path)


def _faults(split: Split, title: str) -> Faults:
    if not isinstance(split, Files):
        return []  # resident: decoded when it was loaded
    found = ahead(partial(_fault, split), range(len(split)), 64)
    shown = track(found, title, len(split), console=Console(stderr=True))
    return [(split.names[index], error) for index, error in enumerate(shown) if error]


def _fault(files: Files, index: int) -> DataError | None:
    try:
        files.image(index)
    except DataError as error:
        return error
    return None


def _parser() -> Parser:
    parser = Parser(
        prog="python -m raysslprune.data.check",
        description="Decode every image of a data set, and name the broken ones.",
        examples=["python -m raysslprune.data.check imagenet --data /data --skip-broken"],
        codes="0 no image is broken; 1 some are, or the data set is missing; 2 a wrong call; 130 Ctrl-C",
    )
    parser.add_argument("name", metavar="NAME", help="as a sweep has it: imagenet, voc07, folder/pets, ...")
    parser.add_data()
    parser.add_argument(
        "--skip-broken", action="store_true", help=f"leave the broken images out from now on, by {SKIP} in its folder"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
