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
from raysslprune.store.record import StoreError
from raysslprune.sweep_loader import SweepError
from raysslprune.sweep_loader import load as load_file
from raysslprune.sweepfile import Figure, Magnitudes, Point
from tests.helpers.chains import execute
from tests.helpers.tickets import CLAIMS, FIGURE, SOURCE, TICKET, points, step_of, tickets

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
        (done.draw(), "Tickets (digits, conv4)"),
        (done.draw_layers(), "Tickets: what is left of each layer (digits, conv4)"),
        (done.draw_overlaps(), "Tickets: overlap of masks (digits, conv4)"),
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
    with pytest.raises(Failed):
        done.run()
    said = capsys.readouterr()
    assert "Tickets win" in said.out
    assert said.err.startswith("raysslprune: the figure of tickets could not be drawn, all else is there: ")
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
    assert [verdict.verdict for verdict in new.verdicts()] == [claims.FEW]
    new.draw()
    for draw in (new.draw_layers, new.draw_overlaps):
        with pytest.raises(ValueError, match="tickets has 0 masks that are done"):
            draw()
    assert not (tmp_path / "new").exists()


def test_what_is_half_done_says_how_much_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    half = tickets(tmp_path / "runs", seeds=1)
    execute(step_of(half.sweep.points)[:2], tmp_path / "runs")
    for what in (half.table, half.means, half.verdicts, half.draw):
        what()
        assert capsys.readouterr().err == "raysslprune: tickets: 2 of 4 points are not done; run() goes on with them\n"


def test_fewer_seeds_than_there_are_results_of_are_told(
    done: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words of Python, as is what asks for more."""
    root = tmp_path / "runs"
    shutil.copytree(done.store.base, root)
    tickets(root).run()
    capsys.readouterr()
    sentence = (
        f"raysslprune: tickets: the results in {root} are of 3 seeds, and this is of 1; for all of them: seeds=3\n"
    )
    for what in (tickets(root, seeds=1).plan, tickets(root, seeds=1).run):
        what()
        said = capsys.readouterr()
        assert said.err == sentence
    assert "\nClaims\n" in said.out
    assert "verdicts need 3 seeds: run again with seeds=3\n" in said.out


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
    with pytest.raises(ValueError, match="has 0 masks"):
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
        (points, {"seeds": 0}, "seeds are a number from 1, not 0"),
        (points, {"name": "fig3"}, "a new one, not 'fig3'"),
        (points, {"name": "../mine"}, "a name of letters and digits"),
        (lambda *_: [], {}, "must give one raysslprune.Point or more"),
        (lambda *_: None, {}, "must give one raysslprune.Point or more"),
        (points, {"seeds": "3"}, "seeds are a number from 1, not '3'"),
        (lambda *_: [1], {}, "must give one raysslprune.Point or more"),
        (wrong(task="label"), {}, "task 'label' is not known; did you mean 'labels'?"),
        (
            lambda scale, _: points(scale, 0),
            {"seeds": 2},
            "tickets gives two points for labels winning ticket, level 0",
        ),
        (points, {"figure": Figure(title="", references=(replace(TICKET, task="x"),))}, "none of its points is on"),
    ],
)
def test_a_wrong_sweep_is_one_sentence(some: Any, more: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    said = {"figure": FIGURE, "name": "tickets", "scale": "smoke", "seeds": 1, "root": str(tmp_path), **more}
    with pytest.raises(SweepError, match=re.escape(sentence)):
        Experiment.of(some, said.pop("figure"), **said)


def test_a_root_that_is_somebody_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StoreError, match="holds other files"):
        tickets(tmp_path).plan()


def test_missing_data_fail_with_the_reason_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def dense(scale: str, seed: int) -> Iterator[Point]:
        (step, *_) = step_of(points(scale, seed))
        yield Point(step=replace(step, data="folder/pets"), task="labels", init="dense", level=0, seed=seed)

    said: dict[str, Any] = {"scale": "smoke", "root": str(tmp_path / "runs"), "data": str(tmp_path)}
    elsewhere = Experiment.of(dense, Figure(title="Elsewhere"), name="elsewhere", **said)
    with pytest.raises(Failed, match="elsewhere did not come to its end"):
        elsewhere.run()
    assert str(tmp_path / "pets") in capsys.readouterr().err
