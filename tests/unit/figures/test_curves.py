"""Figures, drawn on made-up tables: what stands in them, and that they are fit to print."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
import re
import statistics
import struct
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pyarrow as pa
import pytest
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from raysslprune import figures, results
from raysslprune.sweepfile import LONGEST_LABEL, Curve, Figure, Magnitudes, Search
from tests.helpers import CHECKOUT

TICKET, REINIT = "winning ticket", "random re-init"
LEVELS = (3, 7, 10, 14)
DENSE = Curve(task="labels", init=TICKET)
FIGURE = Figure(
    title="Made up",
    inits=(REINIT, TICKET),
    references=(DENSE,),
    controls=("shuffled labels",),
    everywhere=(Curve(task="random", init=REINIT),),
)
PLAIN = Figure(title="Plain")
Row = dict[str, Any]


def density(level: int) -> float:
    return 0.8**level


def value(task: str, init: str, level: int, seed: int) -> float:
    """Some number that tells all of these apart."""
    return 95 + len(task) - len(init) / 3 - level**1.5 / 4 + seed * (1 + level / 10)


def rows(
    curves: Iterable[tuple[str, str]],
    levels: Sequence[int] = LEVELS,
    seeds: Sequence[int] = (0, 1, 2),
    panel: str = "",
    metric: str = "top1",
    rewind: int | None = None,
) -> list[Row]:
    return [
        {
            "figure": "f",
            "scale": "s",
            "panel": panel,
            "task": task,
            "init": init,
            "level": level,
            "density": density(level),
            "density_of_all": density(level),
            "rewind": rewind,
            "seed": seed,
            "metric": metric,
            "value": value(task, init, level, seed),
            "collapsed_layers": 0,
            "data": "d",
            "arch": "a",
            "step": "x",
        }
        for task, init in curves
        for level in levels
        for seed in seeds
    ]


def table(some: Iterable[Row]) -> pa.Table:
    return pa.Table.from_pylist(list(some), schema=results.SCHEMA)


def figure_3(panel: str = "") -> list[Row]:
    """As the sweep's table: a dense point, tickets and re-inits, and the two controls."""
    curves = [(task, init) for task in ("labels", "rotnet") for init in (TICKET, REINIT)]
    curves += [("random", REINIT), ("shuffled labels", REINIT)]
    return rows([("labels", TICKET)], levels=(0,), panel=panel) + rows(curves, panel=panel)


def without(some: Iterable[Row], task: str, init: str, level: int, seeds: Sequence[int] = (0, 1, 2)) -> list[Row]:
    gone = [(task, init, level, seed) for seed in seeds]
    return [row for row in some if (row["task"], row["init"], row["level"], row["seed"]) not in gone]


def plain(*tasks: str, levels: Sequence[int] = LEVELS, seeds: Sequence[int] = (0, 1, 2)) -> Axes:
    """The one axes of tickets of these tasks."""
    (ax,) = figures.draw(PLAIN, table(rows([(task, TICKET) for task in tasks], levels, seeds))).axes
    return ax


def line(ax: Axes, name: str) -> Line2D:
    """The one curve of that name."""
    (found,) = (one for one in ax.lines if one.get_label() == name)
    return found


def names(ax: Axes) -> set[str]:
    return {str(one.get_label()) for one in ax.lines if not str(one.get_label()).startswith("_")}


def legend(canvas: Canvas) -> list[str]:
    (one,) = canvas.legends
    return [text.get_text() for text in one.get_texts()]


def note(canvas: Canvas) -> str:
    (one,) = canvas.legends
    return one.get_title().get_text().replace("\n", " ")


def bands(ax: Axes) -> list[PolyCollection]:
    return [one for one in ax.collections if isinstance(one, PolyCollection)]


def corners(ax: Axes, curve: Line2D) -> np.ndarray:
    """Of the band in the curve's colour, however transparent."""
    color = colors.to_rgb(str(curve.get_color()))
    (found,) = (b for b in bands(ax) if np.allclose(np.asarray(b.get_facecolor())[0, :3], color))
    return np.concatenate([np.asarray(path.vertices) for path in found.get_paths()])


def every(curve: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in curve.get_xydata()]  # type: ignore[union-attr]


def points(curve: Line2D) -> list[tuple[float, float]]:
    """Without gaps."""
    return [(x, y) for x, y in every(curve) if not math.isnan(y)]


def means(task: str, init: str, levels: Iterable[int] = LEVELS) -> list[tuple[float, float]]:
    return [(100 * density(n), statistics.fmean(value(task, init, n, s) for s in range(3))) for n in levels]


def shown_labels(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_xticklabels() if text.get_text()]


# ------------------------------------------------------------------ axes


def test_one_panel_has_a_column_for_each_init() -> None:
    canvas = figures.draw(FIGURE, table(figure_3()), subtitle="smoke")
    left, right = canvas.axes
    assert [ax.get_title() for ax in canvas.axes] == ["Random re-init", "Winning tickets"]
    assert names(left) == {"Labels", "RotNet", "Random", "Labels, shuffled", "Dense"}
    assert names(right) == {"Labels", "RotNet", "Random", "Dense"}
    assert (left.get_ylabel(), right.get_ylabel()) == ("Top-1 accuracy (%)", "")
    assert all(ax.get_xlabel() == "Remaining weights (%)" for ax in canvas.axes)
    assert canvas.get_suptitle() == "Made up (smoke)"


def test_panels_are_columns_and_inits_are_rows() -> None:
    """As in the paper's Figure 8."""
    panels = ["VGG-19", "ResNet-18", "ResNet-50", "AlexNet"]
    canvas = figures.draw(FIGURE, table(row for panel in panels for row in figure_3(panel)))
    upper, lower = canvas.axes[:4], canvas.axes[4:]
    assert [ax.get_title() for ax in upper] == panels
    assert [ax.get_title() for ax in lower] == [""] * 4
    assert upper[0].get_ylabel() == "Random re-init\nTop-1 accuracy (%)"
    assert lower[0].get_ylabel() == "Winning tickets\nTop-1 accuracy (%)"
    assert [bool(ax.get_xlabel()) for ax in canvas.axes] == [False] * 4 + [True] * 4
    canvas.draw_without_rendering()
    boxes = [ax.get_window_extent() for ax in canvas.axes]
    assert all(not a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    assert boxes[0].y0 > boxes[4].y1
    assert boxes[0].x0 == pytest.approx(boxes[4].x0)
    assert boxes[0].x1 < boxes[1].x0


def test_panels_without_inits_wrap_after_four() -> None:
    panels = [f"Panel {n}" for n in range(6)]
    canvas = figures.draw(PLAIN, table(row for panel in panels for row in rows([("labels", TICKET)], panel=panel)))
    assert [ax.get_title() for ax in canvas.axes] == panels
    canvas.draw_without_rendering()
    places = [ax.get_subplotspec() for ax in canvas.axes]
    assert [(p.rowspan.start, p.colspan.start) for p in places if p] == [divmod(n, 3) for n in range(6)]


def test_axes_that_would_be_empty_are_left_out() -> None:
    some = figure_3("one") + [row for row in figure_3("two") if row["init"] == TICKET]
    canvas = figures.draw(FIGURE, table(some))
    assert [ax.get_title() for ax in canvas.axes] == ["One", "", "Two"]
    canvas = figures.draw(FIGURE, table(row for row in figure_3() if row["init"] == TICKET))
    assert [ax.get_title() for ax in canvas.axes] == ["Winning tickets"]


def test_panels_of_one_metric_share_y() -> None:
    """As in the paper's Figure 1."""
    some = rows([("rotnet", "linear")], panel="VOC07", metric="map")
    some += [row for panel in ("Places", "ImageNet") for row in rows([("rotnet", "linear")], panel=panel)]
    for row in some[: len(some) // 3]:
        row["value"] /= 2
    voc, places, imagenet = figures.draw(replace(PLAIN, x="pruned"), table(some)).axes
    assert [ax.get_ylabel() for ax in (voc, places, imagenet)] == [
        "Mean average precision (%)",
        "Top-1 accuracy (%)",
        "",
    ]
    assert places.get_ylim() == imagenet.get_ylim() != voc.get_ylim()
    (ax,) = figures.draw(PLAIN, table(rows([("rotnet", "x")], metric="rotation_top1"))).axes
    assert ax.get_ylabel() == "rotation_top1"


@pytest.mark.parametrize("columns", [2, 4])
def test_the_axis_of_remaining_weights(columns: int) -> None:
    some = [row for n in range(columns) for row in rows([("labels", TICKET)], levels=range(1, 31), panel=str(n))]
    canvas = figures.draw(PLAIN, table(some))
    canvas.draw_without_rendering()
    for ax in canvas.axes:
        assert ax.get_xscale() == "log"
        left, right = ax.get_xlim()
        assert 100 >= left > 80 > 100 * density(30) > right, "dense stands left"
        shown = {
            float(t.get_text()): t
            for t in ax.get_xticklabels()
            if t.get_text() and right <= t.get_position()[0] <= left
        }
        assert all(text.get_position()[0] == pytest.approx(number) for number, text in shown.items())
        assert {10, 1} <= set(shown)
        boxes = [text.get_window_extent() for text in shown.values()]
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_the_axis_of_pruned_weights_begins_with_the_dense_network() -> None:
    canvas = figures.draw(replace(PLAIN, x="pruned"), table(rows([("labels", TICKET)], levels=(0, *LEVELS))))
    (ax,) = canvas.axes
    assert ax.get_xscale() == "linear"
    assert ax.get_xlabel() == "Pruned weights (%)"
    assert ax.get_xlim() == (-2, 102)
    expected = [(100 - x, y) for x, y in means("labels", TICKET, (0, *LEVELS))]
    assert np.allclose(every(line(ax, "Labels")), expected)


# ------------------------------------------------------------------ curves


def test_curves_run_through_the_means_at_their_densities() -> None:
    canvas = figures.draw(FIGURE, table(figure_3()))
    for ax, init in zip(canvas.axes, (REINIT, TICKET), strict=True):
        for name, task in (("Labels", "labels"), ("RotNet", "rotnet")):
            assert np.allclose(every(line(ax, name)), means(task, init), rtol=1e-12)
        assert np.allclose(every(line(ax, "Random")), means("random", REINIT), rtol=1e-12)
    assert "Random: random re-init in all panels." in note(canvas)


def test_curves_do_not_depend_on_the_order_of_the_rows() -> None:
    whole = table(figure_3())
    other = whole.take(np.random.default_rng(0).permutation(len(whole)))
    for one, two in zip(figures.draw(FIGURE, whole).axes, figures.draw(FIGURE, other).axes, strict=True):
        assert names(one) == names(two)
        for name in names(one) - {"Dense"}:
            assert np.allclose(points(line(one, name)), points(line(two, name)))


def test_a_curve_breaks_where_a_point_is_missing() -> None:
    canvas = figures.draw(FIGURE, table(without(figure_3(), "labels", TICKET, 7)))
    left, right = canvas.axes
    gap = every(line(right, "Labels"))
    assert [x for x, _ in gap] == pytest.approx([100 * density(n) for n in LEVELS])
    assert [math.isnan(y) for _, y in gap] == [False, True, False, False]
    assert np.allclose(points(line(right, "Labels")), means("labels", TICKET, (3, 10, 14)))
    assert not np.isclose(corners(right, line(right, "Labels"))[:, 0], 100 * density(7)).any()
    assert len(points(line(left, "Labels"))) == 4, "the other axes have it"
    assert "break" in note(canvas)
    assert "break" not in note(figures.draw(FIGURE, table(figure_3())))


def test_a_curve_that_ends_early_has_no_gap() -> None:
    """NPID is not pruned as far as the others."""
    some = rows([("rotnet", TICKET)]) + rows([("npid", TICKET)], levels=LEVELS[:2])
    canvas = figures.draw(PLAIN, table(some))
    assert np.allclose(every(line(canvas.axes[0], "NPID")), means("npid", TICKET, LEVELS[:2]))
    assert "break" not in note(canvas)


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_words_that_no_font_has_and_formulas_that_are_none(kind: str) -> None:
    some = [{**row, "panel": panel} for panel in ("$x^2$", "$\\frac$", "5 $") for row in figure_3()]
    canvas = figures.draw(FIGURE, table(some), subtitle="\u4e2d\u6587")
    parses = {ax.get_title(): ax.title.get_parse_math() for ax in canvas.axes if ax.get_title()}
    assert parses == {"$x^2$": True, "$\\frac$": False, "5 $": False}
    assert figures.save(canvas, kind)


@pytest.mark.parametrize("part", ["panel", "task", "init"])
@pytest.mark.parametrize("word", ["word ", "x"])
def test_the_longest_labels_fit(part: str, word: str) -> None:
    labels = [f"{number} {word * LONGEST_LABEL}"[:LONGEST_LABEL] for number in range(3)]
    some = [
        {**row, part: label}
        for label in labels
        for row in figure_3()
        if (row["task"], row["init"]) == ("labels", TICKET)
    ]
    canvas = figures.draw(PLAIN, table(some), subtitle=word * 40)
    assert figures.save(canvas, "svg")
    (shown,) = canvas.legends
    titles = [ax.title for ax in canvas.axes if ax.get_title()]
    boxes = [words.get_window_extent() for words in (shown, *titles)]
    for box in boxes:
        box = box.transformed(canvas.transFigure.inverted())
        assert 0 <= box.x0 < box.x1 <= 1
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))


def test_nearly_the_same_density_is_no_gap() -> None:
    """Halving twice and quartering may differ by a weight."""
    other = rows([("rotnet", TICKET)])
    for row in other:
        row["density"] *= 1.01
    (ax,) = figures.draw(PLAIN, table(rows([("labels", TICKET)]) + other)).axes
    assert all(len(every(line(ax, name))) == len(LEVELS) for name in ("Labels", "RotNet"))


def test_bands_are_the_standard_error() -> None:
    ax = plain("labels", "rotnet")
    assert len(bands(ax)) == 2
    for name, task in (("Labels", "labels"), ("RotNet", "rotnet")):
        band = corners(ax, line(ax, name))
        assert {round(x, 6) for x in band[:, 0]} == {round(100 * density(n), 6) for n in LEVELS}
        for level in LEVELS:
            values = [value(task, TICKET, level, seed) for seed in range(3)]
            error = statistics.stdev(values) / math.sqrt(3)
            here = band[np.isclose(band[:, 0], 100 * density(level)), 1]
            assert min(here) == pytest.approx(statistics.fmean(values) - error)
            assert max(here) == pytest.approx(statistics.fmean(values) + error)


def test_one_seed_among_several_has_no_band_and_its_neighbours_have_bars() -> None:
    some = without(rows([("labels", TICKET)]), "labels", TICKET, 10, seeds=(1, 2))
    (ax,) = figures.draw(PLAIN, table(some)).axes
    band = corners(ax, line(ax, "Labels"))
    assert [n for n in LEVELS if np.isclose(band[:, 0], 100 * density(n)).any()] == [3, 7, 14]
    (bars,) = (one for one in ax.collections if isinstance(one, LineCollection))
    values = [value("labels", TICKET, 14, seed) for seed in range(3)]
    error = statistics.stdev(values) / math.sqrt(3)
    (bar,) = bars.get_segments()
    x, mean = 100 * density(14), statistics.fmean(values)
    assert np.allclose(bar, [(x, mean - error), (x, mean + error)])


def test_single_seeds_are_dots() -> None:
    ax = plain("labels")
    (dots,) = (one for one in ax.lines if one.get_linestyle() == "None")
    expected = {(100 * density(n), value("labels", TICKET, n, s)) for n in LEVELS for s in range(3)}
    assert np.allclose(sorted(points(dots)), sorted(expected))
    assert str(dots.get_label()).startswith("_"), "dots stand in no legend"


def test_one_seed_has_neither_band_nor_dots() -> None:
    ax = plain("labels", seeds=(0,))
    assert bands(ax) == []
    assert len(ax.lines) == 1


@pytest.mark.parametrize("inits", [(), (REINIT, TICKET)], ids=["no rows", "rows"])
@pytest.mark.parametrize("x", ["remaining", "pruned"])
@pytest.mark.parametrize(
    "some",
    [
        [],
        rows([("labels", TICKET)], levels=(0,), seeds=(0,)),
        rows([("rotnet", TICKET)], levels=(0,)),
        rows([("labels", "another init")]),
        rows([("labels", TICKET)], levels=(3,), seeds=(0,)),
        rows([("labels", REINIT)], levels=(40,)),
    ],
    ids=["nothing", "only dense", "only another dense", "no row's", "one point", "very sparse"],
)
def test_what_little_there_is_is_drawn(some: list[Row], x: str, inits: tuple[str, ...]) -> None:
    """As when most of a sweep has failed: no error, and no warning."""
    canvas = figures.draw(replace(FIGURE, x=x, inits=inits), table(some))
    assert canvas.axes
    canvas.draw_without_rendering()


def test_crowded_curves_are_drawn_once_more_where_there_is_room() -> None:
    """Magnified, with their own numbers; never over a curve."""
    some = rows([("labels", TICKET)], levels=range(1, 25))
    for row in some:
        row["value"] = 98 - row["level"] / 10 if row["density"] > 0.03 else 98 - 8 * (row["level"] - 15)
    canvas = figures.draw(PLAIN, table(some))
    (ax,) = canvas.axes
    (inset,) = ax.child_axes
    assert isinstance(inset, Axes)
    assert np.allclose(every(line(inset, "Labels")), every(line(ax, "Labels")))
    (low, high), (bottom, top) = ax.get_ylim(), inset.get_ylim()
    assert low < bottom < top < high
    assert (top - bottom) < (high - low) / 4
    canvas.draw_without_rendering()
    box = inset.get_tightbbox()
    assert box
    assert not any(box.contains(*ax.transData.transform(point)) for point in points(line(ax, "Labels")))
    for row in some:
        row["value"] = 98 - 4 * row["level"]
    (ax,) = figures.draw(PLAIN, table(some)).axes
    assert ax.child_axes == []


SHAPES: dict[str, tuple[Callable[[int, int], float], Sequence[int], bool]] = {
    "late fall": (lambda level, seed: 98 - level / 20 - 8 * max(0, level - 15), range(1, 25), True),
    "one low point": (lambda level, seed: 98 - level / 20 - 40 * (level == 24), range(1, 25), True),
    "few points": (lambda level, seed: {7: 97.8, 12: 96.2, 18: 90.6}[level], (7, 12, 18), False),
    "dip": (lambda level, seed: 98 - level / 10 - 50 * (level in (15, 23)), range(1, 25), False),
    "wide band": (lambda level, seed: 98 - level / 20 - 60 * seed * (level > 14), range(1, 25), True),
}
"""Accuracy of a level and seed, at these levels; and whether there is room to show the top enlarged."""


@pytest.mark.parametrize("x", ["remaining", "pruned"])
@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_enlarged_covers_nothing(shape: str, x: str) -> None:
    """Where no corner is free of lines, bands and points, it is left out."""
    accuracy, levels, has_room = SHAPES[shape]
    some = rows([("labels", TICKET)], levels=levels) + rows([("rotnet", TICKET)], levels=(0,))
    for row in some:
        row["value"] = accuracy(row["level"], row["seed"]) if row["level"] else 99.0
    figure = replace(PLAIN, x=x, references=(Curve(task="rotnet", init=TICKET),))
    canvas = figures.draw(figure, table(some))
    canvas.draw_without_rendering()
    (ax,) = canvas.axes
    assert len(ax.child_axes) == has_room
    for inset in ax.child_axes:
        assert isinstance(inset, Axes)
        box = inset.get_tightbbox()
        assert box
        lines = [one.get_transform().transform(one.get_path().vertices) for one in ax.lines]
        lines += [ax.transData.transform(path.vertices) for band in bands(ax) for path in band.get_paths()]
        for corners in lines:
            at = np.linspace(0, len(corners) - 1, 9999)
            between = [np.interp(at, range(len(corners)), corners[:, side]) for side in (0, 1)]
            assert not any(box.contains(*point) for point in zip(*between, strict=True))


# ------------------------------------------------------------------ references


def test_the_dense_line_is_the_mean_of_the_reference_in_each_panel() -> None:
    other = figure_3("two")
    for row in other:
        row["value"] /= 2
    for n, ax in enumerate(figures.draw(FIGURE, table(figure_3("one") + other)).axes):
        expected = value("labels", TICKET, 0, 1) / (1 + n % 2)
        assert np.allclose(np.asarray(line(ax, "Dense").get_ydata(), dtype=float), expected)
        assert all(x < 100 for x, _ in points(line(ax, "Labels"))), "level 0 is no point of a curve"


def test_a_reference_that_names_its_panel_is_in_all_of_its_metric() -> None:
    figure = replace(PLAIN, references=(Curve(task="labels", init=TICKET, panel="one"),))
    some = rows([("labels", TICKET)], levels=(0, *LEVELS), panel="one")
    some += rows([("labels", TICKET)], panel="two") + rows([("labels", TICKET)], panel="three", metric="map")
    one, two, three = figures.draw(figure, table(some)).axes
    assert np.array_equal(line(one, "Dense").get_ydata(), line(two, "Dense").get_ydata())
    assert "Dense" not in names(three)


def test_several_references_say_what_they_are() -> None:
    trained, untrained = (Curve(task="labels", init=init) for init in ("pre-trained", "untrained"))
    figure = replace(PLAIN, x="pruned", references=(trained, untrained))
    some = rows([("rotnet", "pre-trained")], levels=(0, *LEVELS))
    some += rows([("labels", "pre-trained"), ("labels", "untrained")], levels=(0,))
    canvas = figures.draw(figure, table(some))
    assert names(canvas.axes[0]) == {"RotNet", "Dense, Labels", "Untrained"}, "a reference is no curve"
    assert legend(canvas) == ["RotNet (n=3)", "Dense, Labels (n=3)", "Untrained (n=3)"]
    first, second = (line(canvas.axes[0], name).get_linestyle() for name in ("Dense, Labels", "Untrained"))
    assert first != second
    figure = replace(PLAIN, references=(Curve(task="labels", init="a"), Curve(task="labels", init="b")))
    some = rows([("labels", "a"), ("labels", "b")], levels=(0,)) + rows([("rotnet", "a")])
    assert legend(figures.draw(figure, table(some)))[1:] == ["Dense, Labels, a (n=3)", "Dense, Labels, b (n=3)"]


def test_without_a_dense_point_there_is_no_dense_line() -> None:
    canvas = figures.draw(FIGURE, table(rows([("labels", TICKET), ("labels", REINIT)])))
    assert legend(canvas) == ["Labels (n=3)"]


# ------------------------------------------------------------------ the legend


def test_the_legend_names_each_curve_once_with_its_n() -> None:
    some = figure_3("one") + [row for row in figure_3("two") if row["seed"] < 2 or row["task"] != "rotnet"]
    assert sorted(legend(figures.draw(FIGURE, table(some)))) == [
        "Dense (n=3)",
        "Labels (n=3)",
        "Labels, shuffled (n=3)",
        "Random (n=3)",
        "RotNet (n=2 to 3)",
    ]


def test_the_legend_stays_on_the_page() -> None:
    tasks = [f"a task with a rather long name {n}" for n in range(9)]
    canvas = figures.draw(PLAIN, table(rows((task, TICKET) for task in tasks)))
    canvas.draw_without_rendering()
    (one,) = canvas.legends
    box, page = one.get_window_extent(), canvas.bbox
    assert page.x0 <= box.x0
    assert box.x1 <= page.x1
    assert page.y0 <= box.y0
    assert not box.overlaps(canvas.axes[0].get_window_extent())


# ------------------------------------------------------------------ telling curves apart


def lightness(color: str) -> float:
    """CIE L*: 0 is black, 100 is white, and 2.3 is about what one can just tell apart side by side."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colors.to_rgb(color)]
    y = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return 116 * y ** (1 / 3) - 16 if y > 216 / 24389 else y * 24389 / 27


def test_lightness_by_known_values() -> None:
    assert [lightness(c) for c in ("#000000", "#ffffff", "#777777")] == pytest.approx([0, 100, 50.03], abs=0.1)


def test_colours_of_tasks_differ_in_grey_print() -> None:
    greys = {task: lightness(style["color"]) for task, style in figures.STYLE.items()}
    close = {(a, b): round(abs(greys[a] - greys[b]), 1) for a, b in itertools.combinations(greys, 2)}
    assert {pair: gap for pair, gap in close.items() if gap < 5} == {}


def test_every_style_has_its_own_marker_and_colour() -> None:
    styles = [*figures.STYLE.values(), *figures.SPARE]
    assert len({style["marker"] for style in styles}) == len(styles)
    assert len({colors.to_hex(style["color"]) for style in styles}) == len(styles)
    assert all(lightness(style["color"]) < 75 for style in styles), "too light on white paper"


def looks(curve: Line2D) -> tuple[str, str]:
    return colors.to_hex(str(curve.get_color())), str(curve.get_marker())


def test_a_task_looks_the_same_in_every_figure() -> None:
    first = figures.draw(FIGURE, table(figure_3())).axes
    second = [plain("exemplar", "rotnet", "jigsaw", "labels")]
    for name in ("Labels", "RotNet"):
        assert len({looks(line(ax, name)) for ax in (*first, *second)}) == 1
    assert looks(line(first[0], "Labels")) != looks(line(first[0], "RotNet"))


def test_tasks_in_one_figure_look_different() -> None:
    tasks = [*figures.STYLE, *(f"keep {percent} %" for percent in (20, 50, 80))]
    shown = [one for one in plain(*tasks).lines if not str(one.get_label()).startswith("_")]
    assert len({looks(curve)[0] for curve in shown}) == len(tasks)
    assert len({looks(curve)[1] for curve in shown}) == len(tasks)


@pytest.mark.parametrize(
    ("task", "name", "style"),
    [
        ("labels:10%-of-images", "10% Labels", "few labels"),
        ("few labels", "Few labels", "few labels"),
        ("labels:20%-of-classes", "Labels, 20% of classes", "labels on classes"),
        ("s4l:10%-of-images", "10% S4L", "s4l"),
        ("s4l", "S4L", "s4l"),
    ],
)
def test_tasks_on_few_labels_have_names_and_styles(task: str, name: str, style: str) -> None:
    expected = (figures.STYLE[style]["color"], figures.STYLE[style]["marker"])
    assert looks(line(plain("labels", task), name)) == expected


def test_two_tasks_never_share_a_style() -> None:
    ax = plain("labels:10%-of-images", "labels:20%-of-images")
    assert looks(line(ax, "10% Labels")) != looks(line(ax, "20% Labels"))
    tasks = [f"task {n}" for n in range(2 * len(figures.SPARE))]
    ax = plain(*tasks)
    assert len({(*looks(line(ax, task)), line(ax, task).get_linestyle()) for task in tasks}) == len(tasks)


def test_an_unknown_task_gets_a_spare_style_and_keeps_it() -> None:
    known = {colors.to_hex(style["color"]) for style in figures.STYLE.values()}
    for task in ("jigsaw", "keep 50 %", "Ünïcode"):
        one, two = line(plain("labels", task), task), line(plain(task, "rotnet"), task)
        assert looks(one) == looks(two)
        assert looks(one)[0] not in known
        assert looks(one)[1] not in {style["marker"] for style in figures.STYLE.values()}


def test_a_control_is_thinner_and_hollow_in_its_tasks_colour() -> None:
    left, _ = figures.draw(FIGURE, table(figure_3())).axes
    by_init = replace(PLAIN, controls=("untrained",))
    (other,) = figures.draw(by_init, table(rows([("rotnet", "trained"), ("rotnet", "untrained")]))).axes
    for control, task in (
        (line(left, "Labels, shuffled"), line(left, "Labels")),
        (line(other, "RotNet, untrained"), line(other, "RotNet, trained")),
    ):
        assert looks(control) == looks(task)
        assert control.get_linewidth() < task.get_linewidth()
        assert control.get_linestyle() != task.get_linestyle()
        assert colors.to_hex(str(control.get_markerfacecolor())) == "#ffffff"


def test_random_masks_of_non_zero_weights_are_dashed() -> None:
    ax = plain("random", "random nonzero")
    nonzero = line(ax, "Random, non-zero weights")
    assert looks(nonzero) == looks(line(ax, "Random"))
    assert (nonzero.get_linestyle(), line(ax, "Random").get_linestyle()) == ("--", "-")


def test_inits_in_the_same_axes_differ_by_line_and_marker() -> None:
    """As in the paper's Figure 2; a task of one init is only named by the task."""
    before, during = "pruned in pre-training", "pruned during transfer"
    some = rows([(task, init) for task in ("rotnet", "exemplar") for init in (before, during)])
    (ax,) = figures.draw(PLAIN, table(some + rows([("random", REINIT)]))).axes
    for task in ("RotNet", "Exemplar"):
        one, two = line(ax, f"{task}, {before}"), line(ax, f"{task}, {during}")
        assert looks(one) == looks(two)
        assert (one.get_linestyle(), two.get_linestyle()) == ("-", "--")
        assert colors.to_hex(str(two.get_markerfacecolor())) == "#ffffff"
    assert line(ax, "Random").get_linestyle() == "-"


def test_three_inits_of_a_task_differ_by_marker_where_a_point_shows_no_line() -> None:
    """As of an imported mask; and where a shuffled task is hollow by itself."""
    inits = ("ticket", "re-init", "shuffled, re-init", "other")
    curves = [("labels", init) for init in inits] + [("shuffled labels", init) for init in inits[1:3]]
    (ax,) = figures.draw(PLAIN, table(rows([("rotnet", TICKET), *curves], levels=(7,), seeds=(0,)))).axes
    markers = [
        (str(one.get_color()), str(one.get_marker()), str(one.get_markerfacecolor()))
        for one in ax.lines
        if str(one.get_label()).startswith("Labels")
    ]
    assert len({*markers}) == len(curves)
    assert markers[0] == (figures.STYLE["labels"]["color"], "o", figures.STYLE["labels"]["color"])
    assert {marker for _, marker, _ in markers}.isdisjoint({figures.STYLE["rotnet"]["marker"]})


def test_what_is_everywhere_differs_from_the_rows_own() -> None:
    figure = replace(FIGURE, everywhere=(Curve(task="labels", init=REINIT),))
    left, right = figures.draw(figure, table(rows([("labels", REINIT), ("labels", TICKET)]))).axes
    assert names(left) == {"Labels"}
    assert names(right) == {"Labels", "Labels, random re-init"}
    assert line(right, "Labels").get_linestyle() == line(left, "Labels").get_linestyle() == "-"
    assert line(right, "Labels, random re-init").get_linestyle() == "--"
    assert np.allclose(every(line(right, "Labels, random re-init")), means("labels", REINIT))


def test_inits_as_shades() -> None:
    """As in the paper's Figure 7: from dark to light, each with a marker."""
    inits = ["same epochs", "same part", "same updates", "same samples"]
    (ax,) = figures.draw(replace(PLAIN, colour="init"), table(rows([("few labels", init) for init in inits]))).axes
    shown = [line(ax, init.capitalize()) for init in inits]
    greys = [lightness(looks(curve)[0]) for curve in shown]
    assert all(b - a > 8 for a, b in itertools.pairwise(greys))
    assert greys[-1] < 75
    assert len({looks(curve)[1] for curve in shown}) == len(inits)


# ------------------------------------------------------------------ magnitudes


def sorted_weights(panel: str, init: str, zeros: float, seed: int = 0) -> list[Row]:
    return [
        {
            "panel": panel,
            "init": init,
            "task": "labels",
            "seed": seed,
            "rank": rank,
            "magnitude": 0.0 if rank < zeros else rank / 10,
            "sparsity": 100 * zeros,
        }
        for rank in np.linspace(0, 1, 50).tolist()
    ]


def test_magnitudes_are_drawn_by_rank_down_to_machine_precision() -> None:
    some = sorted_weights("VGG-19", "CIFAR-10", 0.845) + sorted_weights("VGG-19", "CIFAR-10", 0.847, seed=1)
    some += sorted_weights("VGG-19", "ImageNet", 0.0) + sorted_weights("ResNet-18", "CIFAR-10", 0.8)
    canvas = figures.magnitudes(Magnitudes(title="Weights"), pa.Table.from_pylist(some[::-1]), subtitle="x")
    right, left = canvas.axes  # the table was turned round
    assert canvas.get_suptitle() == "Weights (x)"
    assert left.get_yscale() == "log"
    assert left.get_ylim()[0] == right.get_ylim()[0] == 2.0**-23
    cifar = [one for one in left.lines if str(one.get_label()).startswith("CIFAR-10")]
    assert len(cifar) == 2
    expected = [(100 * r["rank"], max(r["magnitude"], 2.0**-23)) for r in some[:50]]
    assert sorted(every(cifar[0])) in (expected, every(cifar[1]))
    assert any(np.allclose(every(one), expected) for one in cifar)
    key = left.get_legend()
    assert key
    assert sorted(text.get_text() for text in key.get_texts()) == ["CIFAR-10: 84.6% zeros", "ImageNet: 0.0% zeros"]
    assert key.get_title().get_text() == "VGG-19"


def test_colours_of_data_are_the_same_in_all_figures_of_magnitudes() -> None:
    def colour(inits: list[str], init: str) -> str:
        some = [row for name in inits for row in sorted_weights("net", name, 0.5)]
        (ax,) = figures.magnitudes(Magnitudes(title="t"), pa.Table.from_pylist(some)).axes
        return looks(next(one for one in ax.lines if str(one.get_label()).startswith(init)))[0]

    assert colour(["CIFAR-10", "ImageNet"], "CIFAR-10") == colour(["SGD", "CIFAR-10"], "CIFAR-10")
    assert colour(["CIFAR-10", "ImageNet"], "ImageNet") != colour(["CIFAR-10", "ImageNet"], "CIFAR-10")
    assert colour(["SGD", "Adam"], "SGD") == colour(["SGD", "CIFAR-10"], "SGD") != colour(["SGD", "Adam"], "Adam")


def test_many_panels_of_magnitudes_do_not_overlap() -> None:
    some = [row for n in range(7) for init in ("CIFAR-10", "ImageNet") for row in sorted_weights(f"net {n}", init, 0.3)]
    canvas = figures.magnitudes(Magnitudes(title="t"), pa.Table.from_pylist(some))
    canvas.draw_without_rendering()
    boxes = [box for ax in canvas.axes if (box := ax.get_tightbbox())]
    assert len(boxes) == 7
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


# ------------------------------------------------------------------ the search for a rewind

REWINDS = (0, 300, 1200, 3_840_000)


def searched() -> list[Row]:
    return [row for rewind in REWINDS for row in rows([("labels", TICKET)], levels=(10, 14), rewind=rewind)]


def test_a_search_has_axes_for_each_level_and_a_curve_over_rewinds() -> None:
    some = searched()
    for row in some:
        row["value"] -= REWINDS.index(row["rewind"])
    some = [row for row in some if (row["level"], row["rewind"]) != (14, 300)]
    tried = {("labels", 10, 0), ("labels", 10, 1200), ("labels", 14, 1200), ("labels", 14, 3_840_000)}
    canvas = figures.search(Search(title="Rewind", trials=2), table(some), tried)
    left, right = canvas.axes
    assert [ax.get_title() for ax in canvas.axes] == ["11% of the weights left", "4.4% of the weights left"]
    assert shown_labels(left) == ["0", "300", "1.2k", "3.84M"]
    for ax, level, known, filled, best in ((left, 10, [0, 1, 2, 3], [0, 2], 0), (right, 14, [0, 2, 3], [2, 3], 2)):
        curve = next(one for one in ax.lines if one.get_linestyle() == "-")
        mean = statistics.fmean(value("labels", TICKET, level, seed) for seed in range(3))
        assert np.allclose(points(curve), [(x, mean - x) for x in known])
        (hollow,) = (one for one in ax.lines if one.get_markerfacecolor() == "white")
        assert [x for x, _ in points(hollow)] == [x for x in known if x not in filled]
        (ring,) = (one for one in ax.lines if one.get_markerfacecolor() == "none")
        assert np.allclose(points(ring), [(best, mean - best)])
        (bars,) = (one for one in ax.collections if isinstance(one, LineCollection))
        values = [value("labels", TICKET, level, seed) for seed in range(3)]
        error = statistics.stdev(values) / math.sqrt(3)
        ends = [np.asarray(one) for one in bars.get_segments() if len(one) and not np.isnan(one).any()]
        assert [(end[1, 1] - end[0, 1]) / 2 for end in ends] == pytest.approx([error] * len(known))
    assert len(every(next(one for one in right.lines if one.get_linestyle() == "-"))) == 4, "a gap"
    assert legend(canvas) == ["Labels (n=3)", "Tried by Optuna", "Known, not tried", "Best of those tried"]


def test_a_search_with_nothing_to_show_is_drawn() -> None:
    search = Search(title="Rewind", trials=2)
    for some, tried in (([], set()), (searched(), set()), (searched()[:1], {("labels", 10, 0), ("rotnet", 3, 9)})):
        figures.search(search, table(some), tried).draw_without_rendering()


# ------------------------------------------------------------------ files


def digests() -> str:
    """Of the figure as PNG and as PDF; also printed by another process."""
    canvas = figures.draw(FIGURE, table(figure_3()), subtitle="smoke")
    return " ".join(hashlib.sha256(figures.save(canvas, kind)).hexdigest() for kind in ("png", "pdf"))


def test_the_same_table_gives_the_same_files() -> None:
    """Here, after all that the other tests drew, and in a new process."""
    first = digests()
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "MPLBACKEND": "agg"}
    code = "from tests.unit.figures import test_curves as t; print(t.digests())"
    other = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, env=environment, capture_output=True, check=True)
    assert other.stdout.decode().strip() == first


def test_another_table_gives_other_files() -> None:
    changed = [row | {"value": row["value"] + (row["level"] == 7)} for row in figure_3()]
    for kind in ("png", "pdf"):
        one, other = (figures.save(figures.draw(FIGURE, table(some)), kind) for some in (figure_3(), changed))
        assert one != other


def test_a_png_is_as_wide_as_a_page_at_300_dots_an_inch() -> None:
    png = figures.save(figures.draw(FIGURE, table(figure_3())), "png")
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert width == 2070  # 6.9 inches
    assert 600 < height < 1500
    at = png.index(b"pHYs")
    x, y, unit = struct.unpack(">IIB", png[at + 4 : at + 13])
    assert (x, y, unit) == (11811, 11811, 1)  # dots a metre


def test_a_pdf_is_as_wide_as_a_page_and_holds_its_letters_as_letters() -> None:
    pdf = figures.save(figures.draw(FIGURE, table(figure_3()), subtitle="α → ω"), "pdf")
    assert pdf.startswith(b"%PDF-")
    box = re.search(rb"/MediaBox \[([^\]]*)\]", pdf)
    assert box
    assert float(box.group(1).split()[2]) == pytest.approx(6.9 * 72)
    assert b"/CIDFontType2" in pdf  # which is what PDF calls TrueType, Matplotlib's fonttype 42
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf  # fonttype 3, which publishers refuse
    assert b"CreationDate" not in pdf


# ------------------------------------------------------------------------------------- whoever draws


HOSTILE = """\
text.usetex: True
font.family: no such font
font.size: 30
mathtext.fontset: stix
axes.facecolor: red
axes.formatter.limits: -1, 1
axes.prop_cycle: cycler("color", ["k"])
axes.grid: True
legend.loc: center
lines.marker: x
figure.dpi: 20
figure.constrained_layout.h_pad: 2
savefig.bbox: tight
savefig.transparent: True
pdf.fonttype: 3
svg.fonttype: none
path.sketch: 4, 100, 2
"""
"""A matplotlibrc that changes a figure in many ways; without LaTeX, the first line alone lets none be drawn."""

MAGNITUDES = pa.Table.from_pylist(
    [
        {"panel": "", "init": "a", "task": "labels", "seed": 0, "rank": rank, "magnitude": 10.0**-rank, "sparsity": 0.0}
        for rank in (0.0, 0.5, 1.0)
    ]
)
LAYERS = pa.Table.from_pylist(
    [
        {"panel": "", "task": "labels", "level": 1, "layer": layer, "density": 0.5, "stderr": None, "n": 1, "left": 0.5}
        for layer in ("a.weight", "b.weight")
    ]
)
PAIRS = pa.Table.from_pylist(
    [
        {"panel": "", "relation": "same seed", "task_a": "labels", "task_b": "rotnet", "density": 0.5}
        | {"jaccard": 0.4, "stderr": None, "n": 1, "chance": 0.3, "chance_overall": 0.2}
    ]
)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: figures.draw(FIGURE, table(figure_3()), subtitle="$x^2$"),
        lambda: figures.magnitudes(Magnitudes(title="m"), MAGNITUDES),
        lambda: figures.search(Search(title="s", trials=1), table(searched()), {("labels", 10, 0)}),
        lambda: figures.layer_densities("l", LAYERS),
        lambda: figures.overlaps("o", PAIRS),
    ],
    ids=["draw", "magnitudes", "search", "layers", "overlaps"],
)
def test_settings_of_a_user_change_no_figure(draw: Callable[[], Canvas], tmp_path: Path) -> None:
    expected = [figures.save(draw(), kind, dpi=50) for kind in ("png", "pdf", "svg")]
    (tmp_path / "matplotlibrc").write_text(HOSTILE)
    with mpl.rc_context(fname=tmp_path / "matplotlibrc"):
        settings = dict(mpl.rcParams)
        assert [figures.save(draw(), kind, dpi=50) for kind in ("png", "pdf", "svg")] == expected
        assert dict(mpl.rcParams) == settings, "they are the user's again"


BACKEND = """
import os
import raysslprune.figures
import matplotlib
from matplotlib.figure import Figure
assert raysslprune.figures.save(Figure(), "png")
print(os.environ["MPLBACKEND"], matplotlib.rcParams._get("backend"))
"""


@pytest.mark.parametrize("named", ["no such backend", "svg"])
def test_a_backend_that_is_not_installed_is_no_fault(named: str) -> None:
    """A notebook sets MPLBACKEND for all that it starts. One that is installed is still what pyplot uses."""
    words = [sys.executable, "-c", BACKEND]
    run = subprocess.run(words, env=os.environ | {"MPLBACKEND": named}, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(named)
    assert (run.stdout == "svg svg\n") == (named == "svg")


def test_a_backend_that_a_notebook_has_chosen_stays() -> None:
    program = "import matplotlib; matplotlib.use('svg'); import raysslprune.figures; print(matplotlib.get_backend())"
    words = [sys.executable, "-c", program]
    run = subprocess.run(words, env=os.environ | {"MPLBACKEND": "pdf"}, capture_output=True, text=True, timeout=120)
    assert (run.stdout, run.returncode) == ("svg\n", 0), run.stderr
