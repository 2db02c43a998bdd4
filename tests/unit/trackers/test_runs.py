"""What steps are to trackers."""

from __future__ import annotations

from raysslprune.store.record import CURVE, Record
from raysslprune.sweep_loader import load
from raysslprune.trackers.runs import runs


def record(top1: float, **facts: object) -> Record:
    return Record(step="", files={}, metrics={"top1": top1}, facts={"begun": 100.0, "seconds": 8.0, **facts})


def test_a_run_has_its_recipe_its_metrics_and_its_places() -> None:
    sweep = load("fig3", "smoke", 1)
    dense = next(point for point in sweep.points if point.level == 0)
    assert dense.step.mask is None
    curve = [(0, {"top1": 10.0}), (600, {"top1": 50.0})]
    (run,) = runs([sweep], "smoke", {dense.step.id: record(80.0, **{CURVE: curve})}, ())
    recipe = dense.step.recipe
    assert (run.step, run.begun, run.seconds) == (dense.step.id, 100.0, 8.0)
    assert run.parameters["lr"] == recipe.lr  # pyright: ignore[reportAttributeAccessIssue]
    assert run.parameters["samples"] == recipe.samples
    assert {name: run.parameters[name] for name in ("kind", "task", "data", "arch", "seed", "level")} == {
        "kind": "Train",
        "task": "labels",
        "data": "digits",
        "arch": "conv4",
        "seed": 0,
        "level": 0,
    }
    assert run.metrics == {"top1": 80.0, "density": 1.0, "seconds": 8.0}
    assert run.curve == {0: {"top1": 10.0}, 600: {"top1": 50.0}}
    place = {"figure": "fig3", "scale": "smoke", "task": "labels", "init": "winning ticket", "level": "0"}
    assert place.items() <= run.tags.items()
    assert run.tags["parents"] == ""


def test_only_what_is_finished_and_not_yet_sent_is_a_run_and_parents_are_first() -> None:
    sweep = load("fig3", "smoke", 1)
    ticket = next(p.step for p in sweep.points if p.init == "winning ticket" and p.task == "labels" and p.level == 1)
    assert ticket.mask is not None
    chain = {step.id: record(70.0) for step in (ticket, ticket.mask, *ticket.mask.parents)}
    found = runs([sweep], "smoke", chain, ())
    assert [run.parameters["kind"] for run in found] == ["Train", "Prune", "Train"]
    assert found[-1].tags["parents"].split() == [parent.id for parent in ticket.parents]
    assert [run.step for run in runs([sweep], "smoke", chain, {found[0].step, found[1].step})] == [ticket.id]
    assert runs([sweep], "smoke", {}, ()) == []


def test_a_step_of_two_figures_has_both() -> None:
    sweeps = [load(name, "smoke", 1) for name in ("fig3", "fig8")]
    dense = next(point.step for point in sweeps[0].points if point.level == 0)
    (run,) = runs(sweeps, "smoke", {dense.id: record(80.0)}, ())
    assert run.tags["figure"] == "fig3, fig8"
