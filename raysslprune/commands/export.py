"""``raysslprune export STEP --out DIR``: a trained network, or a mask, as a folder to give to others.

Its weights by torchvision's names, its mask as bits, a sparse form of the weights, what is needed to build the network,
and a model card. ``raysslprune.load_subnetwork`` reads it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from raysslprune.commands.common import Parser, path, reports_errors
from raysslprune.messages import FAILED, STOPPED, USAGE, say
from raysslprune.store.record import Damaged, StoreError
from raysslprune.store.steps import Store
from raysslprune.words import size

if TYPE_CHECKING:
    import argparse

MIN_DIGITS = 4
"""Digits of an id that can stand for it."""


class _Wrong(Exception):
    """A call that can't be done. The message is a sentence for the user."""


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except _Wrong as error:
        return say(str(error), USAGE)
    except Damaged as damage:
        why = f"step {damage.step_id}: {damage.why}; run its sweep again, which makes it anew"
        return say(why, FAILED)
    except (StoreError, OSError) as error:
        return say(str(error), FAILED)
    except KeyboardInterrupt:
        return say("stopped; nothing was exported", STOPPED)


def _run(options: argparse.Namespace) -> int:
    out = Path(options.out)
    _check(out, options.onnx)
    store = Store(options.root)
    if store.is_new():
        raise StoreError(f"there are no results in {store.shown}; --root wants the folder of a sweep")
    if len(options.step) < MIN_DIGITS:
        raise _Wrong(f"the first {MIN_DIGITS} digits of a step's id are wanted at least, not {options.step!r}")
    try:
        step_id = store.find(options.step)
    except ValueError as error:
        raise _Wrong(str(error)) from error
    from raysslprune.data import DataError
    from raysslprune.release import card, contents  # imports torch, which takes seconds

    try:
        made = contents.read(store, step_id, os.path.abspath(options.data), options.trust)
        if options.onnx and made.state is None:
            raise _Wrong(f"step {step_id} is a mask, and --onnx wants a network")
        files, sizes = contents.contents(made, options.onnx)
    except (contents.ExportError, DataError, ValueError, TypeError) as error:
        return say(str(error), FAILED)
    files[contents.CARD] = card.card(made, sizes, options.onnx).encode()
    write(files, out)
    for name, content in files.items():
        print(f"{out / name}  {size(len(content))}")
    return 0


def write(files: Mapping[str, bytes], out: Path) -> None:
    """A folder with these files, all or none: one that is killed leaves a hidden folder beside it at most."""
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    part = out.absolute().with_name(f".{out.absolute().name}.{uuid.uuid4().hex}.part")
    try:
        part.mkdir()
        for name, content in files.items():
            (part / name).write_bytes(content)
        part.rename(out)  # over a folder that is empty
    except BaseException:  # Ctrl-C too
        shutil.rmtree(part, ignore_errors=True)
        raise


def _check(out: Path, onnx: bool) -> None:
    """Raise _Wrong for what would fail at the end only."""
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise _Wrong(f"{place} is a file; --out wants a new or empty folder")
    if out.is_dir() and any(out.iterdir()):
        raise _Wrong(f"{out} is not empty; --out wants a new or empty folder")
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if onnx and missing:
        raise _Wrong(f"--onnx needs {' and '.join(missing)}: pip install 'raysslprune[onnx]'")


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune export",
        description="Write a trained network, or a mask, as a folder that others can load.",
        examples=[
            "raysslprune export 5f3a --out lottery-conv4",
            "raysslprune export 5f3a --out lottery-conv4 --onnx --root s3://bucket/runs",
        ],
        codes="0 it is there; 1 the step, the store or the data failed; 2 a wrong call; 130 Ctrl-C",
    )
    parser.add_argument(
        "step", metavar="STEP", help="a step's id, or how it begins: from the table's column `step`, or --explain"
    )
    parser.add_argument("--out", required=True, type=path, metavar="DIR", help="the folder to write, new or empty")
    parser.add_argument("--onnx", action="store_true", help="write model.onnx too; needs onnx and onnxscript")
    parser.add_argument(
        "--trust", action="store_true", help="import networks and data sets of your own that the step names"
    )
    parser.add_root()
    parser.add_data("; for the sizes and means of images")
    return parser
