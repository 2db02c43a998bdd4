"""Sweeps from Python: ``Experiment``."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from raysslprune import results
from raysslprune.experiment import Experiment, Failed
from raysslprune.figures import curves
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.graph import make_plan
from raysslprune.results import claims, overlap
from raysslprune.spec import Imported, Init
from raysslprune.store.record import StoreError
from raysslprune.sweep_loader import SweepError, known
from raysslprune.sweep_loader import load as load_file
from raysslprune.sweepfile import Figure, Magnitudes, Point
from tests.helpers.chains import execute
from tests.helpers.tickets import CLAIMS, FIGURE, SOURCE, TICKET, points, step_of, tickets

FIGURE_ALONE = Figure(title="Alone")

HEAD = f"""
from raysslprune.sweepfile import Claim, Curve, Figure

TICKET, REINIT = (Curve(task="labels", init=init) for init in ("winning ticket", "random re-init"))
FIGURE = Figure(title="Tickets", references=(TICKET,))
CLAIMS = (Claim(says="Tickets win", source="here", higher=TICKET, lower=REINIT, relation="above"),)
{SOURCE}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """All trained, in this process and without Ray."""
    root = tmp_path_factory.mktemp("done") / "runs"
    made = tickets(root)
    execute(step_of(made.sweep.points), root)
    return made


# ------------------------------------------------------------------------------------- an experiment


def test_the_numbers_are_those_of_the_store(done: Experiment) -> None:
    rows = done.table().to_pylist()
    assert [row["step"] for row in rows] == [point.step.id for point in done.sweep.points]
    for row in rows:
        success = json.loads(Path(done.store.path(f"steps/{row['step']}/SUCCESS")).read_text())
        assert row["value"] == success["metrics"]["top1"]
        assert (row["figure"], row["scale"]) == ("tickets", "smoke")
    assert {row["n"] for row in done.means().to_pylist()} == {3}
    (verdict,) = done.verdicts()
    assert (verdict,) == tuple(claims.judge(CLAIMS, done.table()))
    assert "n = 3" in verdict.numbers


def test_a_figure_shows_itself_in_a_notebook(done: Experiment) -> None:
    for canvas, title in (
        (done.draw(), "Tickets (digits, four convolutions)"),
        (done.draw_layers(), "Tickets: what is left of each layer (digits, four convolutions)"),
        (done.draw_overlaps(), "Tickets: overlap of masks (digits, four convolutions)"),
    ):
        assert canvas.get_suptitle() == title
        assert canvas._repr_png_().startswith(b"\x89PNG")  # pyright: ignore[reportAttributeAccessIssue]


def test_masks_are_those_of_the_analysis(done: Experiment) -> None:
    layers, overlaps = done.masks()
    assert {*layers["mask"].to_pylist()} == {p.step.mask.id for p in done.sweep.points if p.step.mask}
    assert (layers.schema, overlaps.schema) == (overlap.LAYERS, overlap.OVERLAPS)
    assert len(overlaps) == 2 * 3 * (1 + 4)


def test_run_writes_what_the_command_writes(
    done: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a sweep file with the same words; there is nothing left to train, so Ray is not started."""
    done.run()
    said = capsys.readouterr()
    assert "Tickets" in said.out
    assert "Tickets win" in said.out
    assert not said.err
    folder = Path(done.store.path("results/smoke"))
    assert {path.name for path in folder.iterdir()} >= {f"tickets.{kind}" for kind in ("parquet", "png", "pdf")}
    (tmp_path / "tickets.py").write_text(HEAD)
    file = Experiment.load(str(tmp_path / "tickets.py"), scale="smoke", seeds=3, root=done.store.root)
    assert file.sweep == done.sweep
    assert (folder / "tickets.parquet").read_bytes() == results.to_parquet(file.table())


def test_a_figure_that_cannot_be_drawn_costs_no_number(
    done: Experiment, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(curves, "draw", fail)
    Path(done.store.path("results/smoke/tickets.parquet")).unlink(missing_ok=True)
    with pytest.raises(Failed, match=r"^the figure of tickets could not be drawn \(all other results are complete\): "):
        done.run()
    assert "Tickets win" in capsys.readouterr().out
    assert Path(done.store.path("results/smoke/tickets.parquet")).is_file()
    assert len(done.verdicts()) == 1
    with pytest.raises(RuntimeError, match="no font"):
        done.draw()


def test_settings_of_a_notebook_change_no_figure(done: Experiment) -> None:
    shown = done.draw()._repr_png_()  # pyright: ignore[reportAttributeAccessIssue]
    with mpl.rc_context({"axes.facecolor": "red", "savefig.bbox": "tight", "text.usetex": True}):
        assert done.draw()._repr_png_() == shown  # pyright: ignore[reportAttributeAccessIssue]


def test_plan_trains_nothing(done: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done.plan()
    assert re.search(r"will run +0 trainings, 0 masks", capsys.readouterr().out)
    tickets(tmp_path / "new").plan()
    left = make_plan(done.sweep.points)
    masks = sum(len(job.masks) for job in left.jobs.values())
    assert re.search(rf"will run +{len(left.jobs)} trainings, {masks} masks", capsys.readouterr().out)
    assert not (tmp_path / "new").exists()


def test_a_plan_says_of_masks_that_are_missing_and_of_searches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the command does."""
    mask = Imported(arch="conv4", channels=1, digest="0" * 64)

    def under(scale: str, seed: int) -> Iterator[Point]:
        for point in points(scale, seed):
            yield replace(point, step=replace(point.step, mask=mask, start=Init(seed=seed)), level=0)

    made = Experiment.of(
        lambda scale, seed: list(under(scale, seed))[:1], FIGURE_ALONE, name="mine", scale="smoke", root=str(tmp_path)
    )
    made.plan()
    assert " ".join(mask.missing_in(str(tmp_path)).split()[:4]) in " ".join(capsys.readouterr().out.split())
    Experiment.load("rewind", scale="smoke", root=str(tmp_path)).plan()
    assert (
        "rewind: the table counts all seeds of all candidates; after 1, 2, 4, ... seeds only the better half"
        in capsys.readouterr().out
    )


def test_several_sweeps_are_one_plan_and_one_run(
    done: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What they share is trained once, and each has its table; what is of one table wants one sweep."""
    (tmp_path / "tickets.py").write_text(HEAD)
    (tmp_path / "again.py").write_text(HEAD)
    files = [tmp_path / "tickets.py", tmp_path / "again.py"]
    both = Experiment.load(*files, scale="smoke", seeds=3, root=done.store.root)
    assert repr(both) == f"<tickets, again at scale smoke, 24 points, root {done.store.shown}>"
    both.plan()
    assert re.search(r"will run +0 trainings, 0 masks", capsys.readouterr().out)
    both.run()
    assert capsys.readouterr().out.count("Tickets win") == 2
    folder = Path(done.store.path("results/smoke"))
    (one, other) = (results.load(name, done.store.root, "smoke") for name in ("tickets", "again"))
    assert one.drop_columns("figure").equals(other.drop_columns("figure"))
    for path in folder.glob("again*"):
        path.unlink()
    with pytest.raises(ValueError, match="this needs a single sweep, but tickets, again are loaded; load one alone"):
        both.table()
    with pytest.raises(SweepError, match="two sweeps have the same name and would overwrite each other's files"):
        Experiment.load(files[0], f"{tmp_path}/../{tmp_path.name}/tickets.py", root=done.store.root)


def test_all_are_the_sweeps_of_the_package(tmp_path: Path) -> None:
    every = Experiment.load("all", scale="smoke", root=tmp_path)
    assert [sweep.name for sweep in every.sweeps] == known()


def test_a_row_is_explained(done: Experiment, capsys: pytest.CaptureFixture[str]) -> None:
    done.explain(3)
    assert done.sweep.points[3].step.id in capsys.readouterr().out
    with pytest.raises(ValueError, match="no row and no step '99'"):
        done.explain(99)


def test_what_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    new = tickets(tmp_path / "new", seeds=1)
    assert repr(new) == f"<tickets at scale smoke, 4 points, root {tmp_path / 'new'}>"
    assert len(new.table()) == len(new.means()) == 0
    assert new.table().schema.equals(results.SCHEMA)
    assert [verdict.verdict for verdict in new.verdicts()] == [claims.UNDECIDED]
    new.draw()
    for draw in (new.draw_layers, new.draw_overlaps):
        with pytest.raises(ValueError, match="tickets has 0 finished masks"):
            draw()
    assert not (tmp_path / "new").exists()


def test_what_is_half_done_says_how_much_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = tickets(tmp_path / "runs", seeds=1)
    execute(step_of(half.sweep.points)[:2], tmp_path / "runs")
    for what in (half.table, half.means, half.verdicts, half.draw):
        what()
        assert capsys.readouterr().err == "raysslprune: tickets: 2 of 4 points are not done; run() finishes them\n"


def test_fewer_seeds_than_there_are_results_of_are_told(
    done: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words of Python, as is what asks for more."""
    root = tmp_path / "runs"
    shutil.copytree(done.store.base, root)
    tickets(root).run()
    capsys.readouterr()
    sentence = f"raysslprune: tickets: the results in {root} have 3 seeds, this call has 1; to use all 3: seeds=3\n"
    for what in (tickets(root, seeds=1).plan, tickets(root, seeds=1).run):
        what()
        said = capsys.readouterr()
        assert said.err == sentence
    assert "\nClaims\n" in said.out
    assert "\nto add seeds: seeds=3\n" in said.out


def test_seeds_are_the_scales_by_default(tmp_path: Path) -> None:
    made = Experiment.of(points, FIGURE, name="tickets", root=str(tmp_path))
    assert (made.scale, len(made.sweep.points)) == ("laptop", 4 * SETTINGS["laptop"].seeds)
    assert len(Experiment.load("fig3", root=str(tmp_path)).sweep.points) == len(load_file("fig3", "laptop", 1).points)


def test_sweeps_of_other_kinds(tmp_path: Path) -> None:
    """Sorted weights, a search of which nothing is done, and a table without trainings."""
    root = str(tmp_path / "runs")
    sorted_weights = Experiment.load("fig6", scale="smoke", seeds=1, root=root)
    execute(step_of(sorted_weights.sweep.points)[:1], tmp_path / "runs")
    assert isinstance(sorted_weights.sweep.drawing, Magnitudes)
    assert sorted_weights.draw().axes[0].lines
    with pytest.raises(ValueError, match="has 0 finished masks"):
        sorted_weights.draw_layers()
    assert Experiment.load("rewind", scale="smoke", seeds=1, root=root).draw().axes
    listing = Experiment.load("table1", root=root)
    assert len(listing.table()) == len(listing.sweep.rows)
    assert listing.verdicts() == []
    with pytest.raises(ValueError, match="table1 is a table"):
        listing.draw()


def wrong(seed_of: Callable[[int], int] = lambda seed: seed, **step: Any) -> Callable[[str, int], Iterator[Point]]:
    """Points with other steps."""

    def made(scale: str, seed: int) -> Iterator[Point]:
        for point in points(scale, seed):
            yield replace(point, step=replace(point.step, seed=seed_of(seed), **step))

    return made


# ------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("some", "more", "sentence"),
    [
        (points, {"scale": "huge"}, "there is no scale 'huge', only laptop"),
        (points, {"seeds": 0}, "seeds must be a whole number of at least 1, not 0"),
        (
            points,
            {"name": "fig3"},
            "must have only letters, digits, _ and ., and must not begin with a dot; it is 'fig3'",
        ),
        (
            points,
            {"name": "../mine"},
            "must not be that of one of the package, must have only letters, digits, _ and ., ",
        ),
        (lambda *_: [], {}, "must give one raysslprune.Point or more"),
        (lambda *_: None, {}, "must give one raysslprune.Point or more"),
        (points, {"seeds": "3"}, "seeds must be a whole number of at least 1, not '3'"),
        (lambda *_: [1], {}, "must give one raysslprune.Point or more"),
        (wrong(task="label"), {}, "task 'label' is not known; did you mean 'labels'?"),
        (
            lambda scale, _: points(scale, 0),
            {"seeds": 2},
            "tickets gives two points for labels winning ticket, level 0",
        ),
        (
            points,
            {"figure": Figure(title="", references=(replace(TICKET, task="x"),))},
            "x winning ticket', which has no points",
        ),
    ],
)
def test_a_wrong_sweep_is_one_sentence(some: Any, more: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    said = {"figure": FIGURE, "name": "tickets", "scale": "smoke", "seeds": 1, "root": str(tmp_path), **more}
    with pytest.raises(SweepError, match=re.escape(sentence)):
        Experiment.of(some, said.pop("figure"), **said)


def test_a_root_that_is_somebody_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="contains other files but no "):
        tickets(tmp_path).plan()


def test_missing_data_fail_with_the_reason(tmp_path: Path) -> None:
    def dense(scale: str, seed: int) -> Iterator[Point]:
        (step, *_) = step_of(points(scale, seed))
        yield Point(step=replace(step, data="folder/pets"), task="labels", init="dense", level=0, seed=seed)

    said: dict[str, Any] = {"scale": "smoke", "root": str(tmp_path / "runs"), "data": str(tmp_path)}
    elsewhere = Experiment.of(dense, Figure(title="Elsewhere"), name="elsewhere", **said)
    with pytest.raises(Failed, match=re.escape(str(tmp_path / "pets"))):
        elsewhere.run()
