"""``python -m raysslprune.sweep fig3``: from a sweep file to its table, claims and figure.

Run again, the same command resumes; if nothing is missing, it only draws.
"""

from __future__ import annotations

from raysslprune import process

if __name__ == "__main__":
    process.begin()  # before the slow imports

import argparse
import re
from collections.abc import Sequence
from dataclasses import fields, replace

from raysslprune import catalogue
from raysslprune.cluster.options import RunOptions
from raysslprune.commands.common import Parser, count, reports_errors, wrong_calls
from raysslprune.experiment import Experiment
from raysslprune.messages import sweep_command
from raysslprune.paper.scales import given
from raysslprune.plan.looks import MAX_SEEDS, looks
from raysslprune.plan.only import EXAMPLE
from raysslprune.sweep_loader import SweepError, known
from raysslprune.trackers import follow

KEPT = (
    "stopped; finished steps are kept; run the same command again to resume, or add --draw to draw the finished points"
)


@reports_errors(stopped=KEPT, kept="; finished steps are kept; run the same command again to resume")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code. arguments: None for those of this process."""
    options = _parser().parse_args(arguments)
    loaded = Experiment.load(
        *options.sweeps,
        scale=options.scale,
        seeds=options.seeds,
        until_decided=options.until_decided,
        max_seeds=options.max_seeds,
        set=options.set,
        only=options.only,
        root=options.root,
        data=options.data,
    )
    experiment = replace(loaded, seeds_hint=f"{_command(options, loaded.scale)} --seeds ")
    if options.draw and (options.dry_run or options.explain is not None):
        raise SweepError("--draw can't be combined with --dry-run or --explain")
    if options.explain is not None:
        if len(experiment.sweeps) > 1:
            raise SweepError("--explain needs exactly one sweep")
        with wrong_calls():
            experiment.explain(options.explain)
    elif options.dry_run:
        experiment.plan(keep=options.keep, remake=options.remake)
    elif options.draw:
        experiment.draft()
    else:
        experiment.run(
            remake=options.remake, **{field.name: getattr(options, field.name) for field in fields(RunOptions)}
        )
    return 0


def _command(options: argparse.Namespace, scale: str) -> str:
    """Return this command with the options that say which results it makes, for messages; without ``--seeds``."""
    data = ["--data", options.data] if options.data != catalogue.data_root() else []
    only = ["--only", options.only] if options.only is not None else []
    return sweep_command(options.sweeps, given(scale), options.root, more=[*data, *only])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m raysslprune.sweep",
        description="Train what a figure needs, then draw it. The same command again resumes.",
        examples=[
            "python -m raysslprune.sweep fig3 --seeds 3",
            "python -m raysslprune.sweep all --scale paper --dry-run",
            "python -m raysslprune.sweep fig3 --draw",
            "python -m raysslprune.sweep fig3 --explain 17",
        ],
        codes="0 all is done; 1 a step, a figure, the store or Ray failed; 2 a wrong call or sweep file; "
        "75 a cluster without machines for an hour",
    )
    add = parser.add_argument
    add("sweeps", nargs="+", metavar="SWEEP", help=f"{', '.join(known())}, all, or a .py file of your own")
    parser.add_scale("the sweeps")
    parser.add_seeds("as many as the scale says; 1 for laptop")
    until = f"add seeds until all claims are decided, at {', '.join(map(str, looks()))} seeds, for undecided ones only"
    add("--until-decided", action="store_true", help=until)
    add("--max-seeds", type=count, metavar="N", help=f"end --until-decided at N seeds (default: {MAX_SEEDS})")
    only = f"train and show a part of the points, in files of its own, such as: {EXAMPLE}"
    add("--only", metavar="EXPR", help=only)
    parser.add_root()
    parser.add_data("; digits come with the package")
    keep = "final weights to keep: of all trainings (default), or only of trainings that others start from"
    add("--keep", default="all", choices=["all", "needed"], help=keep)
    remake = "make steps again that other versions of your own source files made, and all that descends from them"
    add("--remake", action="store_true", help=remake)
    add("--explain", metavar="ROW", help="explain how a row (its number from 0, or its step's id) was made, and exit")
    workers = "workers that share a training (default: on GPUs as many as the recipe's batch has parts, else 1)"
    add("--workers-per-step", type=count, metavar="N", help=workers)
    gpus = "GPUs of a worker, 0 to 1; 0.25 lets four trainings share a GPU "
    gpus += "(default: the scale's; at a scale without, 0, or this machine's GPUs if they are clearly faster)"
    add("--gpus-per-worker", type=_fraction, metavar="F", help=gpus)
    add(
        "--slots", type=count, metavar="N", help="workers at once, at most (default: all that the cluster has room for)"
    )
    address = "cluster to use: its head, or auto for the Ray that runs here (default: $RAY_ADDRESS, else an own Ray)"
    add("--address", metavar="HOST:PORT", help=address)
    add("--wait", action="store_true", help="if another sweep uses the root, wait for its end")
    add("--dashboard", action="store_true", help="also start Ray's dashboard, on this machine only")
    add("--json-lines", action="store_true", help="print progress on stderr as JSON, one object per line")
    add("--curves", action="store_true", help="write learning curves for TensorBoard to folders in ROOT/curves")
    points = "measure each training at N points from start to end: in SQL the column curve of the table steps"
    add("--curve-points", type=count, default=0, metavar="N", help=f"{points} (default: none)")
    compiled = "compile networks by torch.compile, on GPUs each update as a CUDA graph; results differ by rounding"
    add("--compile", action="store_true", help=compiled)
    tracked = "send each finished step as a run to mlflow:ADDRESS or wandb:PROJECT; steps that it lacks are sent too"
    add("--track", type=_tracker, default="", metavar="TRACKER", help=tracked)
    add("--draw", action="store_true", help="train nothing: draw what is done to ROOT/drafts, even while a sweep runs")
    add("--dry-run", action="store_true", help="print what would run and what it would cost, and exit")
    return parser


def _tracker(text: str) -> str:
    try:
        return follow.checked(text) if text else ""  # the default
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _fraction(text: str) -> float:
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", text) or not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number from 0 to 1")
    return float(text)


if __name__ == "__main__":
    process.end(main())
