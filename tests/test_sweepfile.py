"""What a sweep file may say, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from raysslprune.sweepfile import Claim, Curve, Dense, Figure, Listing, Magnitudes, Search

A, B = Curve(task="labels", init="winning ticket"), Curve(task="rotnet", init="winning ticket", panel="CIFAR-10")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"relation": "below"}, "'below' is not one of above, equal, widens, narrows"),
        ({"relation": "equal"}, "'equal' needs one"),
        ({"relation": "above", "margin": 1.0}, "a margin goes with 'equal'"),
        ({"relation": "widens", "along": "seeds"}, "along 'seeds' is not one of density, panels"),
        ({"relation": "above", "along": "panels"}, "along 'panels' goes with 'widens' and 'narrows'"),
        ({"higher": "labels"}, "a claim compares curves, not 'labels'"),
        ({"lower": "80"}, "a claim compares curves, not '80'"),
        ({"higher": 80.0}, "a claim's higher is a curve, not 80.0"),
        ({"within": (0.1,)}, r"within two densities, not \(0.1,\)"),
        ({"within": 0.5}, "within two densities, not 0.5"),
    ],
)
def test_a_bad_claim_is_refused_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    good = {"says": "x", "source": "y", "higher": A, "lower": A, "relation": "above"}
    Claim(**good)
    with pytest.raises(ValueError, match=sentence):
        Claim(**{**good, **changes})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"inits": "winning ticket"}, "a figure's inits are a tuple"),
        ({"references": [A]}, "a figure's references are a tuple"),
        ({"references": ("labels",)}, "a figure's references are curves, not 'labels'"),
        ({"everywhere": (Dense(curve=A),)}, "a figure's everywhere are curves, not Dense"),
        ({"x": "log"}, "x is 'remaining' or 'pruned', not 'log'"),
        ({"colour": "seed"}, "colour is for 'task' or 'init', not 'seed'"),
    ],
)
def test_a_bad_figure_is_refused_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Figure(title="x", **changes)


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (3, "columns are a tuple, not 3"),
        ((), r"columns are a tuple, not \(\)"),
        (["a"], "columns are a tuple"),
        (("a", 3), "columns are words, not 3"),
    ],
)
def test_a_bad_listing_is_refused_with_a_sentence(columns: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Listing(title="x", columns=columns)


@pytest.mark.parametrize(
    ("drawing", "more"), [(Figure, {}), (Magnitudes, {}), (Search, {"trials": 1}), (Listing, {"columns": ("a",)})]
)
def test_a_title_is_text(drawing: Any, more: dict[str, Any]) -> None:
    assert drawing(title="x", **more).title == "x"
    with pytest.raises(ValueError, match="a title is text, not None"):
        drawing(title=None, **more)


def test_only_a_curve_is_dense() -> None:
    with pytest.raises(ValueError, match="what is dense is a curve, not 'labels'"):
        Dense(curve="labels")  # pyright: ignore[reportArgumentType]


def test_a_search_needs_trials() -> None:
    with pytest.raises(ValueError, match="needs trials, not 0"):
        Search(title="x", trials=0)


def test_a_curve_without_a_panel_is_that_of_every_panel() -> None:
    here, there = (Curve(task="labels", init="winning ticket", panel=panel) for panel in ("here", "there"))
    assert A.covers(here)
    assert A.covers(there)
    assert here.covers(here)
    assert not here.covers(there)
    assert not A.covers(B)
    assert not A.covers(Curve(task="labels", init="random re-init", panel="here"))


def test_a_claim_knows_its_curves() -> None:
    def claim(higher: Any, lower: Any) -> Claim:
        return Claim(says="x", source="y", higher=higher, lower=lower, relation="above")

    assert claim(A, B).curves == (A, B)
    assert claim(A, Dense(curve=B)).curves == (A, B)
    assert claim(A, 80.0).curves == (A,)
    assert str(Dense(curve=B)) == "rotnet winning ticket of CIFAR-10, dense"
