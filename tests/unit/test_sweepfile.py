"""What a sweep file may say, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from raysslprune.sweepfile import Claim, Curve, Dense, Figure, Listing, Magnitudes, Search

A, B = Curve(task="labels", init="winning ticket"), Curve(task="rotnet", init="winning ticket", panel="CIFAR-10")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"relation": "below"}, "'below' is not one of above, not worse, equal, widens, narrows"),
        ({"relation": "equal"}, "relations 'equal' and 'not worse' need a margin; other relations must not have one"),
        ({"relation": "above", "margin": 1.0}, "need a margin; other relations must not have one"),
        ({"relation": "widens", "along": "seeds"}, "along 'seeds' is not one of density, panels"),
        ({"relation": "above", "along": "panels"}, "along 'panels' needs relation 'widens' or 'narrows'"),
        ({"relation": "not worse"}, "relations 'equal' and 'not worse' need a margin"),
        ({"at": "most"}, "at 'most' is not one of mean, each"),
        ({"relation": "widens", "at": "each"}, "at 'each' needs relation 'above', 'equal' or 'not worse'"),
        ({"higher": "labels"}, "higher of Claim must be a curve, not 'labels'"),
        ({"lower": "80"}, "lower of Claim must be a curve or a number, not '80'"),
        ({"higher": 80.0}, "higher of Claim must be a curve, not 80.0"),
        ({"within": (0.1,)}, r"within of Claim must be two densities, not \(0.1,\)"),
        ({"within": 0.5}, "within of Claim must be two densities, not 0.5"),
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
        ({"inits": "winning ticket"}, "inits of Figure must be a tuple, each of printable text"),
        ({"references": [A]}, "references of Figure must be a tuple of curves"),
        ({"references": ("labels",)}, r"references of Figure must be a tuple of curves, not \('labels',\)"),
        ({"everywhere": (Dense(curve=A),)}, r"everywhere of Figure must be a tuple of curves, not \(Dense"),
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
        (3, "columns of Listing must be a tuple, each of printable text of at most 200 characters, not 3"),
        ((), "a listing needs columns"),
        (["a"], "columns of Listing must be a tuple"),
        (("a", 3), r"columns of Listing must be a tuple, each of .*, not \('a', 3\)"),
    ],
)
def test_a_bad_listing_is_refused_with_a_sentence(columns: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Listing(title="x", columns=columns)


@pytest.mark.parametrize(
    ("drawing", "more"), [(Figure, {}), (Magnitudes, {}), (Search, {}), (Listing, {"columns": ("a",)})]
)
def test_a_title_is_text(drawing: Any, more: dict[str, Any]) -> None:
    assert drawing(title="x", **more).title == "x"
    assert drawing(title="\u00e4 $x^2$" + "x" * 190, **more)
    for wrong in (None, "x" * 201, "a\nb", "\0", "\x1b[31m", "\udcff"):
        with pytest.raises(
            ValueError, match=r"title of [A-Z][a-z]+ must be printable text of at most 200 characters, not "
        ):
            drawing(title=wrong, **more)


def test_only_a_curve_is_dense() -> None:
    with pytest.raises(ValueError, match="curve of Dense must be a curve, not 'labels'"):
        Dense(curve="labels")  # pyright: ignore[reportArgumentType]


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
