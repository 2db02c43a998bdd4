"""``python -m raysslprune.sweep fig3``: from a sweep file to its table, claims and figure.

The same command again goes on where the last one ended; when nothing is missing it only draws.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib.util
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from rich.console import Console

from raysslprune import claims, names, plan, progress, report, results
from raysslprune.recipes import NETS
from raysslprune.scales import SETTINGS
from raysslprune.spec import Rewind, Train, closure
from raysslprune.store import Damaged, Record, Store, StoreError
from raysslprune.sweepfile import Claim, Drawing, Figure, Listing, Magnitudes, Point, Search

USAGE, FAILED, STOPPED = 2, 1, 130
"""Exit codes: a wrong call; a step, the store or the cluster failed; Ctrl-C."""


class SweepError(Exception):
    """A sweep file can't be used. The message is a sentence for the user."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A sweep file, loaded, with its points for all seeds, or the rows of its listing."""

    name: str
    drawing: Drawing
    claims: tuple[Claim, ...]
    points: tuple[Point, ...]
    rows: tuple[tuple[Any, ...], ...] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return _say("stopped; every finished step is kept, and the same command goes on from there", STOPPED)
    except SweepError as error:
        return _say(str(error), USAGE)
    except StoreError as error:
        return _say(str(error), FAILED)
    except OSError as error:
        return _say(f"{error}; what was finished is kept, and the same command goes on from there", FAILED)
    except Exception as error:
        with tempfile.NamedTemporaryFile("w", prefix="raysslprune-", suffix=".log", delete=False) as log:
            log.write(traceback.format_exc())
        return _say(f"a fault in raysslprune itself: {type(error).__name__}: {error}; details in {log.name}", FAILED)


def load(name: str, scale: str, seeds: int) -> Sweep:
    """The sweep by its name in sweeps/, or by the path of a Python file. Raises SweepError."""
    path = _locate(name)
    module = _execute(path)
    drawing = getattr(module, "FIGURE", None)
    if not isinstance(drawing, Drawing):
        raise SweepError(f"{path} needs FIGURE, a raysslprune.sweepfile.Figure")
    if isinstance(drawing, Listing):
        rows = tuple(tuple(row) for row in _called(path, module, "rows", "rows(scale) that gives tuples", scale))
        if not all(len(row) == len(drawing.columns) for row in rows):
            raise SweepError(f"rows(scale) in {path} must give tuples of {len(drawing.columns)}, as there are columns")
        return Sweep(name=path.stem, drawing=drawing, claims=(), points=(), rows=rows)
    stated = getattr(module, "CLAIMS", ())
    if callable(getattr(module, "claims", None)):
        stated = tuple(_called(path, module, "claims", "", scale))
    if not isinstance(stated, tuple) or not all(isinstance(claim, Claim) for claim in stated):
        raise SweepError(f"CLAIMS in {path} must be a tuple of raysslprune.sweepfile.Claim")
    wanted = "points(scale, seed) that gives raysslprune.sweepfile.Point values"
    points = tuple(point for seed in range(seeds) for point in _called(path, module, "points", wanted, scale, seed))
    if not points or not all(isinstance(point, Point) for point in points):
        raise SweepError(
            f"points(scale, seed) in {path} must give one raysslprune.sweepfile.Point or more, and nothing else"
        )
    _check_names(path, points)
    _check_seeds(path, points)
    _check_curves(path, drawing, stated, points)
    return Sweep(name=path.stem, drawing=drawing, claims=stated, points=points)


def _called(path: Path, module: ModuleType, name: str, wanted: str, *arguments: object) -> list[Any]:
    """What a function of a sweep file gives, as a list. Raises SweepError."""
    function = getattr(module, name, None)
    if not callable(function):
        raise SweepError(f"{path} needs a function {wanted}")
    try:
        return list(function(*arguments))  # pyright: ignore[reportArgumentType]
    except (Exception, SystemExit) as error:
        raise SweepError(_where(path, error)) from error


def _check_names(path: Path, points: Sequence[Point]) -> None:
    """Raise SweepError for a task, architecture or data set that nobody knows."""
    trainings = [step for step in closure(point.step for point in points) if isinstance(step, Train)]
    try:
        for task in dict.fromkeys(step.task for step in trainings):
            names.check("task", names.TASKS, task)
        for arch in dict.fromkeys(step.arch for step in trainings):
            names.check("architecture", names.ARCHITECTURES, arch)
        for data in dict.fromkeys(step.data for step in trainings):
            names.check("data set", names.DATASETS, names.data_parts(data)[0])
    except ValueError as error:
        raise SweepError(f"{path}: {error}") from error


def _check_seeds(path: Path, points: Sequence[Point]) -> None:
    """Raise SweepError where one measurement would be counted twice: its standard error would be a lie."""
    places: set[tuple[object, ...]] = set()
    seeds: dict[tuple[object, ...], int] = {}
    for point in points:
        start = point.step.start
        rewind = start.samples if isinstance(start, Rewind) else None
        place = (point.panel, point.task, point.init, point.level, point.metric, rewind)
        where = f"{point.curve}, level {point.level}"
        if (*place, point.seed) in places:
            raise SweepError(f"{path} gives two points for {where}, seed {point.seed}")
        places.add((*place, point.seed))
        if seeds.setdefault((*place, point.step.id), point.seed) != point.seed:
            raise SweepError(f"{path} gives the same training for every seed at {where}: it must depend on the seed")


def _check_curves(path: Path, drawing: Drawing, stated: Sequence[Claim], points: Sequence[Point]) -> None:
    """Raise SweepError where a name is wrong: it would be found out only when all is trained, as an empty panel."""
    curves = dict.fromkeys(point.curve for point in points)
    named = [curve for claim in stated for curve in claim.curves]
    if isinstance(drawing, Figure):
        named += [*drawing.references, *drawing.everywhere]
        for init in dict.fromkeys(curve.init for curve in curves) if drawing.inits else ():
            if init not in drawing.inits:
                inits = ", ".join(drawing.inits)
                raise SweepError(f"{path} has points with init {init!r}, which is none of its figure's inits ({inits})")
        for init in drawing.inits:
            if all(curve.init != init for curve in curves):
                raise SweepError(f"{path} has no points with init {init!r}, which its figure has a place for")
    for curve in named:
        if not any(curve.covers(known) for known in curves):
            raise SweepError(f"{path} names the curve {str(curve)!r}, which none of its points is on")


def known() -> list[str]:
    """Names of the sweeps that come with the package."""
    return sorted((path.stem for path in _folder().glob("*.py")), key=_in_words_and_numbers)


def _in_words_and_numbers(name: str) -> list[tuple[str, int]]:
    """So that fig2 comes before fig10."""
    return [(word, int(number or 0)) for word, number in re.findall(r"(\D+)(\d*)", name)]


def _run(options: argparse.Namespace) -> int:
    names = known() if "all" in options.sweeps else list(dict.fromkeys(options.sweeps))
    seeds = options.seeds or SETTINGS[options.scale].seeds
    sweeps = [load(name, options.scale, seeds) for name in names]
    stems = [sweep.name for sweep in sweeps]
    if len(set(stems)) < len(stems):
        raise SweepError(f"two sweeps of one name would write to the same files: {', '.join(names)}")
    store = Store(options.root)
    points = [point for sweep in sweeps for point in sweep.points]
    drawn = [p.step for sweep in sweeps if isinstance(sweep.drawing, Magnitudes) for p in sweep.points]
    graph = plan.make(points, weights_of=drawn, keep_all=options.keep == "all")
    new = store.is_new()
    records, damaged = ({}, []) if new else store.survey(graph.ids)
    pending = graph.pending(records)
    if options.dry_run:
        missing = _missing_data(pending, options.data, fetch=False)
        report.dry_run(_console(), store, graph, records, damaged, missing, progress.cores())
        return 0
    for sentence in _missing_data(pending, options.data, fetch=True):
        return _say(sentence, FAILED)
    store.create()
    failures = 0
    with store.lock():
        _set_aside(store, damaged)
        if pending:
            failures = _train(graph, pending, records, store, os.path.abspath(options.data))
            store.mark()
            records, _ = store.survey(graph.ids)
        for sweep in sweeps:
            _present(sweep, options.scale, records, store)
    if failures:
        return _say(f"{failures} steps failed or were skipped; the results above are without them", FAILED)
    return 0


def _missing_data(pending: Sequence[plan.Job], root: str, fetch: bool) -> list[str]:
    """A sentence for each data set that the pending jobs need and that is not whole under the data root."""
    wanted = dict.fromkeys(names.data_parts(job.train.data)[:2] for job in pending)
    missing: list[str] = []
    for kind, argument in wanted:
        if kind in names.EMBEDDED and not argument:
            continue
        from raysslprune import data  # imports torch, which takes seconds

        try:
            data.source(f"{kind}/{argument}" if argument else kind).locate(Path(os.path.abspath(root)), fetch)
        except (data.DataError, ValueError) as error:
            missing.append(str(error))
    return missing


def _train(
    graph: plan.Plan, pending: list[plan.Job], records: Mapping[str, Record], store: Store, data_root: str
) -> int:
    """Run what is pending on Ray; gives the number of jobs that failed or were skipped."""
    cost = plan.cost(graph.jobs.values(), records, NETS)
    schedule = plan.Schedule(pending, cost.seconds)
    log = _log_file(store)
    with progress.output_to(log) as terminal:
        console = Console(file=terminal)
        console.print(
            f"{graph.trainings_left(records)} of {len(graph.jobs)} trainings to run; Ray's own output goes to {log}",
            highlight=False,
            soft_wrap=True,
        )
        shown = progress.Progress(console, schedule, cost.seconds, len(graph.jobs) - len(pending))
        with shown.shown():
            from raysslprune import fanout  # imports Ray, which takes seconds

            try:
                with fanout.cluster(), _sigterm_as_interrupt():
                    exchange = fanout.Exchange.start()
                    with shown.watching(exchange.training):
                        fanout.run(graph, schedule, store, data_root, shown)
            except fanout.ClusterError as error:
                raise StoreError(str(error)) from error
    return len(schedule.failed) + len(schedule.skipped) + len(schedule.waiting)


def _present(sweep: Sweep, scale: str, records: Mapping[str, Record], store: Store) -> None:
    """Table, claims and figure of one sweep, from the store alone."""
    if isinstance(sweep.drawing, Listing):
        report.listing(_console(), sweep.drawing, sweep.rows)
        _write(store, scale, sweep.name, {".parquet": results.to_parquet(results.listing(sweep.drawing, sweep.rows))})
        return
    try:
        table = results.table(sweep.name, scale, sweep.points, records)
    except ValueError as error:
        raise SweepError(f"{sweep.name}: {error}") from error
    if not len(table):
        return
    report.table(_console(), sweep.drawing, table)
    report.claims(_console(), claims.judge(sweep.claims, table))
    files = {
        ".parquet": results.to_parquet(table),
        "-runs.parquet": results.to_parquet(results.provenance(sweep.points, records)),
    }
    from raysslprune import figures  # imports Matplotlib, which takes a second

    of = ", ".join(dict.fromkeys(f"{point.step.data}, {point.step.arch}" for point in sweep.points))
    if isinstance(sweep.drawing, Magnitudes):
        sorted_weights = results.magnitudes(sweep.points, store)
        files["-magnitudes.parquet"] = results.to_parquet(sorted_weights)
        canvas = figures.magnitudes(sweep.drawing, sorted_weights, subtitle=of)
    elif isinstance(sweep.drawing, Search):
        canvas = figures.search(sweep.drawing, table, set(), subtitle=of)
    else:
        canvas = figures.draw(sweep.drawing, table, subtitle=of)
    _write(
        store, scale, sweep.name, {**files, ".png": figures.save(canvas, "png"), ".pdf": figures.save(canvas, "pdf")}
    )


def _write(store: Store, scale: str, name: str, files: Mapping[str, bytes]) -> None:
    """Under results/, saying where."""
    for suffix, data in files.items():
        path = f"results/{scale}/{name}{suffix}"
        store.write(path, data)
        _console().print(store.path(path), highlight=False, soft_wrap=True, markup=False)


def _set_aside(store: Store, damaged: Sequence[Damaged]) -> None:
    for damage in damaged:
        where = store.set_aside(damage.step_id)
        _say(f"step {damage.step_id}: {damage.why}; set aside in {where}, and made again", 0)


def _locate(name: str) -> Path:
    if name.endswith(".py") or os.sep in name:
        path = Path(name)
        if not path.is_file():
            raise SweepError(f"there is no sweep file {name}")
        if path.suffix != ".py":
            raise SweepError(f"{name} is no sweep file: its name must end in .py")
        return path
    path = _folder() / f"{name}.py"
    if name not in known():
        near = difflib.get_close_matches(name, known(), 1, 0.4)
        hint = f"did you mean {near[0]}? " if near else ""
        raise SweepError(f"there is no sweep {name!r}; {hint}Known: {', '.join(known())}; or give a .py file")
    return path


def _folder() -> Path:
    """sweeps/: inside the package where it was installed from a wheel, beside it in a checkout."""
    here = Path(__file__).parent
    inside = here / "sweeps"
    return inside if inside.is_dir() else here.parent / "sweeps"


def _execute(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"raysslprune_sweep_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # leave nothing beside a user's file
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise SweepError(_where(path, error)) from error
    finally:
        sys.dont_write_bytecode = writes
    return module


def _where(path: Path, error: Exception | SystemExit) -> str:
    """The error as one sentence, with the line of the sweep file that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if os.path.abspath(frame.filename) == os.path.abspath(path)]
    line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
    text = error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
    return f"{path}{f', line {line}' if line else ''}: {type(error).__name__}: {text}"


def _log_file(store: Store) -> str:
    if not store.local:
        return os.path.join(tempfile.gettempdir(), f"raysslprune-ray-{progress.stamp()}.log")
    folder = store.path("logs")
    os.makedirs(folder, exist_ok=True)
    return os.path.join(folder, f"ray-{progress.stamp()}.log")


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Any:
    """A polite end stops as Ctrl-C does, instead of with Ray's stack trace."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _console() -> Console:
    """stdout; wide enough for a table where it is no terminal."""
    return Console() if sys.stdout.isatty() else Console(width=120)


def _say(sentence: str, code: int) -> int:
    print(f"raysslprune: {' '.join(sentence.split())}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence instead of the whole usage."""
        self.exit(_say(f"{message}; see --help", USAGE))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m raysslprune.sweep",
        description="Train what a figure needs, then draw it. The same command again goes on where it ended.",
        epilog="example: python -m raysslprune.sweep fig3 --seeds 3",
        allow_abbrev=False,
    )
    parser.add_argument(
        "sweeps", nargs="+", metavar="SWEEP", help=f"{', '.join(known())}, all, or a .py file of your own"
    )
    parser.add_argument("--scale", default="laptop", choices=list(SETTINGS), help="how large (default: laptop)")
    parser.add_argument("--seeds", type=_count, metavar="N", help="seeds 0 to N-1 (default: the scale's)")
    parser.add_argument(
        "--root", default="runs", metavar="DIR", help="where results live: a folder, s3:// or gs:// (default: ./runs)"
    )
    parser.add_argument(
        "--data",
        default=os.environ.get("RAYSSLPRUNE_DATA") or "data",
        metavar="DIR",
        help="where data sets lie (default: $RAYSSLPRUNE_DATA, else ./data); digits come with the package",
    )
    parser.add_argument(
        "--keep",
        default="all",
        choices=["all", "needed"],
        help="final weights to keep: of all trainings (default), or only of those that others start from",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would run and what it would cost, and end")
    return parser


def _count(text: str) -> int:
    if not re.fullmatch("[0-9]{1,4}", text) or not 1 <= int(text) <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r:.40} is not a whole number from 1 to 1000")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
