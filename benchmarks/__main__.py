"""Benchmarks, ``python -m benchmarks NAME``: use of the machine by trainings, and accuracy of networks.

Speeds are ratios within one run, because machines are noisy (docs/performance.md). ``tasks`` and ``cifar`` show that
each task learns, ``rewind`` which way to choose a rewind is best (docs/learning.md). ``results`` measures nothing: it
writes docs/results.md.
"""

from __future__ import annotations

from raysslprune import process

if __name__ == "__main__":
    process.begin()

import json
import platform
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from rich.table import Table

from raysslprune.commands.common import Parser, reports_errors
from raysslprune.messages import USAGE, UserError
from raysslprune.plan.cost import cores
from raysslprune.terminal import tables

BENCHMARKS = {
    "loop": "images/s of the training loop over a bare one",
    "input": "images/s from disk, beside torchvision, and the cores that eight GPUs need",
    "update": "operations, bytes and operators of one update, and the least time that a GPU needs for each",
    "masks": "pruning beside torch's own; masks through Ray and through files",
    "plan": "planning and tabling sweeps of up to 100,000 points",
    "sweep": "efficiency of the whole command",
    "start": "seconds from the command to each stage of a sweep, from the imports to the exit",
    "dispatch": "what the driver of a sweep needs for each job, with trainings that do nothing",
    "cluster": "how well up to hundreds of GPUs would be used: a simulation",
    "tasks": "what each task learns on digits, over seeds",
    "rewind": "how well ways to choose the rewind do on a whole grid, on test images and with other seeds",
    "margin": "by how much two networks differ that only differ in their draws: the margin of a scale",
    "cifar": "accuracy and images/s of one training on CIFAR-10",
    "results": "nothing: the page docs/results.md is written from the tables in docs/data",
    "recipe": "which learning rate the scale cifar10-fast should have",
}
"""Modules of this package, each with ``arguments(parser)`` and ``run(options)``, and what they measure."""


@reports_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        measured = options.run(options)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error), code=USAGE) from error
    machine = {"cores": cores(), "processor": platform.machine(), "python": platform.python_version()}
    if options.json:
        print(json.dumps({"benchmark": options.name, "machine": machine, **measured}, indent=1))
        return 0
    statistics = next((list(v) for v in _leaves(measured).values() if isinstance(v, dict)), [])
    table = Table("", *statistics, box=None, padding=(0, 3, 0, 0))
    for name, value in _leaves(measured).items():
        cells = value.values() if isinstance(value, dict) else [value]
        table.add_row(name.replace("_", " "), *map(_shown, cells))
    tables.stdout().print(table)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="python -m benchmarks",
        description="How much of the machine reaches the training, and what networks learn.",
        examples=["python -m benchmarks loop", "python -m benchmarks masks --help"],
        codes="0 measured; 1 the data or the root can't be used; 2 a wrong call",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    kinds = parser.add_subparsers(dest="name", required=True)
    for name, says in BENCHMARKS.items():
        benchmark = import_module(f"benchmarks.{name}")
        kind = kinds.add_parser(name, help=says)
        benchmark.arguments(kind)
        kind.set_defaults(run=benchmark.run)
    return parser


def _leaves(measured: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten groups of measurements; a leaf is a value or its statistics."""
    flat: dict[str, Any] = {}
    for name, value in measured.items():
        if isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values()):
            flat |= _leaves(value, f"{prefix}{name} ")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _shown(value: float | str) -> str:
    return f"{value:,.{3 if abs(value) < 10 else 1}f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    process.end(main())
