"""``python -m raysslprune.sweep fig3``: from a sweep file to its table, claims and figure.

The same command again goes on where the last one ended; when nothing is missing it only draws.
"""

from __future__ import annotations

from raysslprune import process

if __name__ == "__main__":
    process.begin()  # before the imports that take a while

import argparse
import os
import re
from collections.abc import Mapping, Sequence

from raysslprune.commands.common import Parser, count, reports_errors
from raysslprune.experiment import RunOptions, draw_drafts, make, missing_data, planned, tell_of_results
from raysslprune.messages import FAILED, STOPPED, USAGE, say
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.cost import cores
from raysslprune.store.record import Record, StoreError
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep, SweepError, known, load
from raysslprune.sweepfile import Listing, Search
from raysslprune.terminal import tables


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return say(KEPT, STOPPED)
    except SweepError as error:
        return say(str(error), USAGE)
    except StoreError as error:
        return say(str(error), FAILED)
    except OSError as error:
        return say(f"{error}; what was finished is kept, and the same command goes on from there", FAILED)


def _run(options: argparse.Namespace) -> int:
    wanted = known() if "all" in options.sweeps else list(dict.fromkeys(options.sweeps))
    seeds = options.seeds or SETTINGS[options.scale].seeds
    sweeps = [load(name, options.scale, seeds) for name in wanted]
    stems = [sweep.name for sweep in sweeps]
    if len(set(stems)) < len(stems):
        raise SweepError(f"two sweeps of one name would write to the same files: {', '.join(wanted)}")
    store = Store(options.root)
    if options.draw:
        if options.dry_run or options.explain is not None:
            raise SweepError("--draw goes neither with --dry-run nor with --explain")
        return draw_drafts(sweeps, options.scale, store)
    if not options.dry_run and options.explain is None:
        gpus = SETTINGS[options.scale].gpus if options.gpus_per_worker is None else options.gpus_per_worker
        how = RunOptions(
            workers_per_step=options.workers_per_step,
            gpus_per_worker=gpus,
            dashboard=options.dashboard,
            json_lines=options.json_lines,
            curves=options.curves,
        )
        return make(sweeps, options.scale, store, os.path.abspath(options.data), options.keep, how)
    graph = planned(sweeps, options.keep)
    records, damaged = ({}, []) if store.is_new() else store.survey(graph.ids)
    tell_of_results(sweeps, options.scale, store)
    if options.explain is not None:
        return _explain(sweeps, options.explain, records, store)
    missing = missing_data(graph.pending(records), os.path.abspath(options.data), fetch=False)
    missing += [mask.missing_in(store.shown) for mask in graph.not_imported(records)]
    alone = {sweep.name: planned([sweep], options.keep) for sweep in sweeps}
    gpu = SETTINGS[options.scale].gpus > 0
    tables.dry_run(tables.stdout(), store, graph, records, damaged, missing, cores(), gpu, alone)
    for sweep in sweeps:
        if isinstance(sweep.drawing, Search):
            sentence = f"{sweep.name}: all candidates are counted; Optuna trains {sweep.drawing.trials} in each study"
            tables.stdout().print(sentence, highlight=False, soft_wrap=True, markup=False)
    return 0


KEPT = (
    "stopped; every finished step is kept, and the same command goes on from there; with --draw it draws what is there"
)


def _explain(sweeps: Sequence[Sweep], row: str, records: Mapping[str, Record], store: Store) -> int:
    """How a row of a table came about."""
    from raysslprune.terminal.explain import explain

    if len(sweeps) > 1:
        raise SweepError("--explain wants one sweep: the rows of which table?")
    if isinstance(sweeps[0].drawing, Listing):
        raise SweepError(f"there is nothing behind the rows of {sweeps[0].name}: it needs no training")
    try:
        explain(tables.stdout(), sweeps[0].name, sweeps[0].points, row, records, store)
    except ValueError as error:
        raise SweepError(str(error)) from error
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m raysslprune.sweep",
        description="Train what a figure needs, then draw it. The same command again goes on where it ended.",
        examples=[
            "python -m raysslprune.sweep fig3 --seeds 3",
            "python -m raysslprune.sweep all --scale paper --dry-run",
            "python -m raysslprune.sweep fig3 --draw",
            "python -m raysslprune.sweep fig3 --explain 17",
        ],
        codes="0 all is done; 1 a step, a figure, the store or Ray failed; 2 a wrong call or sweep file; 130 Ctrl-C",
    )
    parser.add_argument(
        "sweeps", nargs="+", metavar="SWEEP", help=f"{', '.join(known())}, all, or a .py file of your own"
    )
    parser.add_argument("--scale", default="laptop", choices=list(SETTINGS), help="how large (default: laptop)")
    parser.add_argument("--seeds", type=count, metavar="N", help="seeds 0 to N-1 (default: the scale's)")
    parser.add_root()
    parser.add_data("; digits come with the package")
    parser.add_argument(
        "--keep",
        default="all",
        choices=["all", "needed"],
        help="final weights to keep: of all trainings (default), or only of those that others start from",
    )
    parser.add_argument(
        "--explain",
        metavar="ROW",
        help="say how a row of the table came about, from its number (from 0) or its step's id, and end",
    )
    parser.add_argument(
        "--workers-per-step",
        type=count,
        metavar="N",
        help="workers that share a training (default: on GPUs as many as the recipe has parts of a batch, else 1)",
    )
    parser.add_argument(
        "--gpus-per-worker",
        type=_fraction,
        metavar="F",
        help="of a worker, 0 to 1; 0.25 puts four trainings on a GPU (default: 1 at scales cifar10 and paper, else 0)",
    )
    parser.add_argument("--dashboard", action="store_true", help="start Ray's dashboard, too, on this machine only")
    parser.add_argument(
        "--json-lines", action="store_true", help="tell how it goes on as an object of JSON a line, on stderr"
    )
    parser.add_argument(
        "--curves", action="store_true", help="write learning curves for TensorBoard to ROOT/curves, a folder each"
    )
    parser.add_argument(
        "--draw", action="store_true", help="train nothing: draw what is done, to ROOT/drafts, also while a sweep runs"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would run and what it would cost, and end")
    return parser


def _fraction(text: str) -> float:
    if not re.fullmatch(r"[0-9]*\.?[0-9]+", text) or not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a number from 0 to 1")
    return float(text)


if __name__ == "__main__":
    process.end(main())
