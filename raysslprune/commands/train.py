"""``raysslprune train --task rotnet --data digits --arch conv4``: train one network, and print its metrics."""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Sequence
from typing import Any

from raysslprune import catalogue, words
from raysslprune.commands.common import Parser, reports_errors, whole
from raysslprune.messages import note
from raysslprune.table import Table, lines


@reports_errors(stopped="stopped; run the same command again to resume")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    from raysslprune.single import train

    done = train(
        options.task,
        options.data,
        options.arch,
        start=options.start,
        mask=options.mask,
        seed=options.seed,
        root=options.root,
        data_root=options.data_root,
        device=options.device,
        remake=options.remake,
        **dict(options.set),
    )
    if not done.trained:
        note("this training was finished before; nothing was trained")
    print(f"# step {done.step.id}: {words.title(done.step)}")
    print(f"# {words.recipe_in_words(done.step)}")
    changed = f", changed: {', '.join(name for name, _ in options.set)}" if options.set else ""
    print(f"# recipe: {done.recipe}{changed}")
    shown = catalogue.shown_metrics(done.metrics).items()
    for line in lines(Table.of(("metric", "value"), [(name, f"{value:.6g}") for name, value in shown])):
        print(line)
    return 0


def setting(text: str) -> tuple[str, Any]:
    """Parse ``NAME=VALUE``. A value is written as in TOML, and text may be without quotes: ``0.1``, ``cosine``."""
    name, mark, value = text.partition("=")
    if not mark or not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise argparse.ArgumentTypeError(f"{text!r:.80} is not of the form NAME=VALUE, such as lr=0.1")
    try:
        found = tomllib.loads(f"value = {value}")["value"] if "\n" not in value else value
    except tomllib.TOMLDecodeError:
        found = value
    return name, tuple(found) if isinstance(found, list) else found


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune train",
        description="Train one network, and print its metrics. What is finished in the root is not trained again.",
        examples=[
            "raysslprune train --task rotnet --data digits --arch conv4 --set lr=0.1",
            "raysslprune train --task labels --data digits:10%-of-images --arch conv4 --start 5f3a",
        ],
        codes="0 it is trained; 1 the training, the store or the data failed; 2 a wrong call",
    )
    add = parser.add_argument
    add("--task", required=True, metavar="NAME", help=f"{', '.join(catalogue.TASKS)}, or your own, as mine:SimCLR")
    add("--data", required=True, metavar="DATA", help="the data set, as in a sweep file: digits, folder/pets, ...")
    add("--arch", required=True, metavar="NAME", help="the network, as in a sweep file: conv4, resnet18, ...")
    start = "id of a training, or of imported weights, whose final weights it starts from (default: drawn weights)"
    add("--start", metavar="STEP", help=start)
    add("--mask", metavar="STEP", help="id of the mask to train under (default: none)")
    add_set(parser, "; the recipe itself is that of a scale with this data set, or a similar one, as the output says")
    add("--seed", type=whole(0, 2**31 - 1), default=0, metavar="N", help="seed of weights and images (default: 0)")
    add("--device", choices=["cpu", "cuda"], help="where to train (default: cuda if there is a GPU)")
    remake = "make steps again that other versions of your own source files made, and all that descends from them"
    add("--remake", action="store_true", help=remake)
    parser.add_root()
    add_data_root(parser)
    return parser


def add_set(parser: Parser, more: str = "") -> None:
    """Add ``--set``. more: the end of its help."""
    help = f"change a field of the recipe, or an option of the task; may be repeated{more}"
    parser.add_argument("--set", action="append", default=[], type=setting, metavar="NAME=VALUE", help=help)


def add_data_root(parser: Parser) -> None:
    """Add ``--data-root``, for commands whose ``--data`` is the name of a data set."""
    help = "folder of the data sets (default: $RAYSSLPRUNE_DATA, else ./data)"
    parser.add_argument("--data-root", type=catalogue.data_root, default="", metavar="DIR", help=help)
