"""``raysslprune export STEP --out DIR``: write a trained network, or a mask, as a folder for others to load.

The folder has the weights under torchvision's names, the mask as bits, a sparse form of the weights, what is needed to
build the network, and a model card. ``raysslprune.load_subnetwork`` reads it.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from raysslprune.commands.common import Parser, path, reports_errors, wrong_calls
from raysslprune.messages import USAGE, UserError
from raysslprune.store.record import Damaged, StoreError
from raysslprune.store.steps import Store
from raysslprune.words import size

MIN_DIGITS = 4
"""Minimum number of digits that may stand for an id."""


@reports_errors(stopped="stopped; nothing was exported")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    out = Path(options.out)
    _check(out, options.onnx)
    store = Store(options.root)
    if store.is_new():
        raise StoreError(f"there are no results in {store.shown}; --root must be a folder that a sweep has filled")
    with wrong_calls():
        if len(options.step) < MIN_DIGITS:
            raise ValueError(f"give at least the first {MIN_DIGITS} digits of a step's id, not {options.step!r}")
        step_id = store.find(options.step)
    from raysslprune.release import card, contents  # imports torch, which takes seconds

    try:
        made = contents.read(store, step_id, os.path.abspath(options.data), options.trust, options.at)
        if options.onnx and made.state is None:
            raise UserError(f"step {step_id} is a mask, and --onnx needs a network", code=USAGE)
        if options.shrink:
            made = contents.with_shrunk(made)
        files, sizes = contents.contents(made, options.onnx)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error
    except Damaged as damage:
        raise StoreError(f"{damage}; run its sweep again to rebuild it") from damage
    files[contents.CARD] = card.card(made, sizes, options.onnx).encode()
    write(files, out)
    for name, content in files.items():
        print(f"{out / name}  {size(len(content))}")
    if made.shrunk is not None:
        print(f"shrunk: {card.speed_up(made.shrunk)}")
    return 0


def write(files: Mapping[str, bytes], out: Path) -> None:
    """Write these files to a new folder, all or none. A kill leaves at most a hidden folder beside ``out``."""
    out = out.absolute()
    part = out.with_name(f".{out.name}.{uuid.uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        for name, content in files.items():
            (part / name).write_bytes(content)
        part.rename(out)  # replaces an empty folder
    except BaseException:  # Ctrl-C too
        shutil.rmtree(part, ignore_errors=True)
        raise


def _check(out: Path, onnx: bool) -> None:
    """Raise UserError now for faults that would otherwise appear only at the end."""
    for place in (out, *out.parents):
        if place.exists() and not place.is_dir():
            raise UserError(f"{place} is a file; --out must be a new or empty folder", code=USAGE)
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"{out} is not empty; --out must be a new or empty folder", code=USAGE)
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if onnx and missing:
        raise UserError(f"--onnx needs {' and '.join(missing)}: pip install 'raysslprune[onnx]'", code=USAGE)


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune export",
        description="Write a trained network, or a mask, as a folder that others can load.",
        examples=[
            "raysslprune export 5f3a --out lottery-conv4",
            "raysslprune export 5f3a --at rewind --out lottery-conv4-rewound",
            "raysslprune export 5f3a --out lottery-conv4 --onnx --root s3://bucket/runs",
        ],
        codes="0 the folder is written; 1 the step, the store or the data failed; 2 a wrong call",
    )
    parser.add_argument("step", metavar="STEP", help="a step's id, or its first digits, from a table's column `step`")
    parser.add_argument("--out", required=True, type=path, metavar="DIR", help="folder to write, new or empty")
    at = "weights from before the training: 0, those with which its chain began, or rewind, those it was rewound to"
    parser.add_argument("--at", default="", choices=["0", "rewind"], help=f"{at}; its mask is applied to them")
    parser.add_argument("--onnx", action="store_true", help="also write model.onnx; needs onnx and onnxscript")
    shrink = "also write shrunk.safetensors: the network without the filters that its mask removes, smaller and dense"
    parser.add_argument("--shrink", action="store_true", help=shrink)
    parser.add_argument("--trust", action="store_true", help="import your own code that the step names")
    parser.add_root()
    parser.add_data("; for the sizes and means of images")
    return parser
