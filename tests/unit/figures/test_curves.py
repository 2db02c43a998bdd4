"""Figures, drawn on made-up tables: what stands in them, and that they are fit to print."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.inset import InsetIndicator
from matplotlib.lines import Line2D

from raysslprune.figures import curves, ink
from raysslprune.figures.style import PHONE_WIDTH, STYLE
from raysslprune.sweepfile import MAX_LABEL, Curve
from tests.helpers.tables import (
    FIGURE,
    LEVELS,
    PLAIN,
    REINIT,
    TICKET,
    Row,
    bimodal,
    density,
    every,
    figure_3,
    legend,
    line,
    means,
    names,
    note,
    plain,
    points,
    rows,
    table,
    value,
    without,
)


def bands(ax: Axes) -> list[PolyCollection]:
    return [one for one in ax.collections if isinstance(one, PolyCollection)]


def corners(ax: Axes, curve: Line2D) -> np.ndarray:
    """Of the band in the curve's colour, however transparent."""
    color = colors.to_rgb(str(curve.get_color()))
    (found,) = (b for b in bands(ax) if np.allclose(np.asarray(b.get_facecolor())[0, :3], color))
    return np.concatenate([np.asarray(path.vertices) for path in found.get_paths()])


# ------------------------------------------------------------------------------------- axes


def test_one_panel_has_a_column_for_each_init() -> None:
    canvas = curves.draw(FIGURE, table(figure_3()), subtitle="smoke")
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
    canvas = curves.draw(FIGURE, table(row for panel in panels for row in figure_3(panel)))
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
    canvas = curves.draw(PLAIN, table(row for panel in panels for row in rows([("labels", TICKET)], panel=panel)))
    assert [ax.get_title() for ax in canvas.axes] == panels
    canvas.draw_without_rendering()
    places = [ax.get_subplotspec() for ax in canvas.axes]
    assert [(p.rowspan.start, p.colspan.start) for p in places if p] == [divmod(n, 3) for n in range(6)]


def test_axes_that_would_be_empty_are_left_out() -> None:
    some = figure_3("one") + [row for row in figure_3("two") if row["init"] == TICKET]
    canvas = curves.draw(FIGURE, table(some))
    assert [ax.get_title() for ax in canvas.axes] == ["One", "", "Two"]
    canvas = curves.draw(FIGURE, table(row for row in figure_3() if row["init"] == TICKET))
    assert [ax.get_title() for ax in canvas.axes] == ["Winning tickets"]


def test_panels_of_one_metric_share_y() -> None:
    """As in the paper's Figure 1."""
    some = rows([("rotnet", "linear")], panel="VOC07", metric="map")
    some += [row for panel in ("Places", "ImageNet") for row in rows([("rotnet", "linear")], panel=panel)]
    for row in some[: len(some) // 3]:
        row["value"] /= 2
    voc, places, imagenet = curves.draw(replace(PLAIN, x="pruned"), table(some)).axes
    assert [ax.get_ylabel() for ax in (voc, places, imagenet)] == [
        "Mean average precision (%)",
        "Top-1 accuracy (%)",
        "",
    ]
    assert places.get_ylim() == imagenet.get_ylim() != voc.get_ylim()
    (ax,) = curves.draw(PLAIN, table(rows([("rotnet", "x")], metric="rotation_top1"))).axes
    assert ax.get_ylabel() == "rotation_top1"


@pytest.mark.parametrize("columns", [2, 4])
def test_the_axis_of_remaining_weights(columns: int) -> None:
    some = [row for n in range(columns) for row in rows([("labels", TICKET)], levels=range(1, 31), panel=str(n))]
    canvas = curves.draw(PLAIN, table(some))
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
    """And is the logarithm of what remains, so that a collapse below 10% takes up as much room as all before it."""
    levels = (0, *LEVELS, 20)
    canvas = curves.draw(replace(PLAIN, x="pruned"), table(rows([("labels", TICKET)], levels=levels)))
    canvas.draw_without_rendering()
    (ax,) = canvas.axes
    assert ax.get_xscale() == "log"
    assert ax.get_xlabel() == "Pruned weights (%)"
    assert np.allclose(every(line(ax, "Labels")), means("labels", TICKET, levels))
    left, right = ax.get_xlim()
    assert left > 100 > 100 * density(20) > right
    shown = {t.get_text(): t.get_position()[0] for t in ax.get_xticklabels() if right <= t.get_position()[0] <= left}
    assert {"0", "50", "80", "90", "95", "98", "99"} <= set(shown)
    assert all(float(text) == pytest.approx(100 - at) for text, at in shown.items())
    dense, tenth, end = (ax.transData.transform((at, 50))[0] for at in (100, 10, 100 * density(20)))
    assert end - tenth > 0.8 * (tenth - dense)


def test_every_axis_of_numbers_has_minor_ticks() -> None:
    for figure in (PLAIN, replace(PLAIN, x="pruned")):
        canvas = curves.draw(figure, table(rows([("labels", TICKET)], levels=(0, *LEVELS))))
        canvas.draw_without_rendering()
        (ax,) = canvas.axes
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            low, high = sorted(limits)
            assert sum(low < at < high for at in axis.get_minorticklocs()) > 3


def test_the_narrow_form_has_one_column_and_names_panels_and_inits() -> None:
    some = table(row for panel in ("one", "two") for row in figure_3(panel))
    canvas = curves.draw(FIGURE, some, narrow=True)
    assert canvas.get_figwidth() == PHONE_WIDTH
    assert [ax.get_title() for ax in canvas.axes] == [
        f"{panel}, {init}" for init in (REINIT, TICKET) for panel in ("One", "Two")
    ]
    canvas.draw_without_rendering()
    boxes = [box for ax in canvas.axes if (box := ax.get_tightbbox())]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    (shown,) = canvas.legends
    parts = [shown.get_window_extent(), *(ax.title.get_window_extent() for ax in canvas.axes), *boxes]
    assert all(canvas.bbox.x0 <= part.x0 < part.x1 <= canvas.bbox.x1 for part in parts)
    assert sum(box.height for box in boxes) + shown.get_window_extent().height < canvas.bbox.height


# ------------------------------------------------------------------------------------- curves


def test_curves_run_through_the_means_at_their_densities() -> None:
    canvas = curves.draw(FIGURE, table(figure_3()))
    for ax, init in zip(canvas.axes, (REINIT, TICKET), strict=True):
        for name, task in (("Labels", "labels"), ("RotNet", "rotnet")):
            assert np.allclose(every(line(ax, name)), means(task, init), rtol=1e-12)
        assert np.allclose(every(line(ax, "Random")), means("random", REINIT), rtol=1e-12)
    assert "Random: random re-init in all panels." in note(canvas)


def test_curves_do_not_depend_on_the_order_of_the_rows() -> None:
    whole = table(figure_3())
    other = whole.take(np.random.default_rng(0).permutation(len(whole)))
    for one, two in zip(curves.draw(FIGURE, whole).axes, curves.draw(FIGURE, other).axes, strict=True):
        assert names(one) == names(two)
        for name in names(one) - {"Dense"}:
            assert np.allclose(points(line(one, name)), points(line(two, name)))


def test_a_curve_breaks_where_a_point_is_missing() -> None:
    canvas = curves.draw(FIGURE, table(without(figure_3(), "labels", TICKET, 7)))
    left, right = canvas.axes
    gap = every(line(right, "Labels"))
    assert [x for x, _ in gap] == pytest.approx([100 * density(n) for n in LEVELS])
    assert [math.isnan(y) for _, y in gap] == [False, True, False, False]
    assert np.allclose(points(line(right, "Labels")), means("labels", TICKET, (3, 10, 14)))
    assert not np.isclose(corners(right, line(right, "Labels"))[:, 0], 100 * density(7)).any()
    assert len(points(line(left, "Labels"))) == 4, "the other axes have it"
    assert "break" in note(canvas)
    assert "break" not in note(curves.draw(FIGURE, table(figure_3())))


def test_a_curve_that_ends_early_has_no_gap() -> None:
    """NPID is not pruned as far as the others."""
    some = rows([("rotnet", TICKET)]) + rows([("npid", TICKET)], levels=LEVELS[:2])
    canvas = curves.draw(PLAIN, table(some))
    assert np.allclose(every(line(canvas.axes[0], "NPID")), means("npid", TICKET, LEVELS[:2]))
    assert "break" not in note(canvas)


@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_words_that_no_font_has_and_formulas_that_are_none(kind: str) -> None:
    some = [{**row, "panel": panel} for panel in ("$x^2$", "$\\frac$", "5 $") for row in figure_3()]
    canvas = curves.draw(FIGURE, table(some), subtitle="\u4e2d\u6587")
    parses = {ax.get_title(): ax.title.get_parse_math() for ax in canvas.axes if ax.get_title()}
    assert parses == {"$x^2$": True, "$\\frac$": False, "5 $": False}
    assert ink.save(canvas, kind)


@pytest.mark.parametrize("part", ["panel", "task", "init"])
@pytest.mark.parametrize("word", ["word ", "x"])
def test_the_longest_labels_fit(part: str, word: str) -> None:
    labels = [f"{number} {word * MAX_LABEL}"[:MAX_LABEL] for number in range(3)]
    some = [
        {**row, part: label}
        for label in labels
        for row in figure_3()
        if (row["task"], row["init"]) == ("labels", TICKET)
    ]
    canvas = curves.draw(PLAIN, table(some), subtitle=word * 40)
    assert ink.save(canvas, "svg")
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
    (ax,) = curves.draw(PLAIN, table(rows([("labels", TICKET)]) + other)).axes
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
    (ax,) = curves.draw(PLAIN, table(some)).axes
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


def test_seeds_with_an_empty_layer_are_crosses() -> None:
    canvas = curves.draw(PLAIN, table(bimodal()))
    (ax,) = canvas.axes
    marks = {one.get_marker(): one for one in ax.lines if one.get_color() == STYLE["random"]["color"]}
    lost = [(100 * density(10), 10.0), *[(100 * density(14), 10.0)] * 3]
    assert np.allclose(sorted(points(marks["x"])), sorted(lost))
    whole = [(100 * density(n), value("random", REINIT, n, s)) for n in (3, 7) for s in range(3)]
    whole += [(100 * density(10), value("random", REINIT, 10, s)) for s in (0, 2)]
    assert np.allclose(sorted(points(marks["."])), sorted(whole))
    assert str(marks["x"].get_label()).startswith("_")
    assert sum(one.get_marker() == "x" for one in ax.lines) == 1
    assert "Crosses: seeds in which a layer has no weight left." in note(canvas)


def test_without_empty_layers_there_is_no_cross() -> None:
    some = bimodal()
    for row in some:
        row["collapsed_layers"] = 0
    canvas = curves.draw(PLAIN, table(some))
    assert "x" not in [one.get_marker() for one in canvas.axes[0].lines]
    assert "Crosses" not in note(canvas)


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
    canvas = curves.draw(replace(FIGURE, x=x, inits=inits), table(some))
    assert canvas.axes
    canvas.draw_without_rendering()


def test_crowded_curves_are_drawn_once_more_where_there_is_room() -> None:
    """Magnified, with their own numbers; never over a curve."""
    some = rows([("labels", TICKET)], levels=range(1, 25))
    for row in some:
        row["value"] = 98 - row["level"] / 10 if row["density"] > 0.03 else 98 - 8 * (row["level"] - 15)
    canvas = curves.draw(PLAIN, table(some))
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
    (ax,) = curves.draw(PLAIN, table(some)).axes
    assert ax.child_axes == []


def test_lines_lead_from_the_enlarged_part_to_the_inset_and_do_not_cross() -> None:
    some = rows([("labels", TICKET)], levels=range(1, 25))
    for row in some:
        row["value"] = 98 - row["level"] / 10 - 8 * max(0, row["level"] - 15)
    for x in ("remaining", "pruned"):
        canvas = curves.draw(replace(PLAIN, x=x), table(some))
        canvas.draw_without_rendering()
        (ax,) = canvas.axes
        (inset,) = ax.child_axes
        (tie,) = (child for child in ax.get_children() if isinstance(child, InsetIndicator))
        part, target = tie.rectangle.get_window_extent(), inset.get_window_extent()
        shown = [line for line in tie.connectors or () if line.get_visible()]
        ends = [line.get_path().transformed(line.get_transform()).vertices for line in shown]
        assert len(ends) == 2
        for tied in ends:
            xs, ys = np.asarray(tied, dtype=float).T.tolist()
            sides = [abs(min(xs, key=lambda x: abs(x - side)) - side) < 1 for side in (part.x0, part.x1)]
            assert sum(sides) == 1
            assert min(abs(x - (target.x0 if sides[0] else target.x1)) for x in xs) < 1, "left to left"
            assert max(ys) == pytest.approx(part.y0, abs=1) or max(ys) == pytest.approx(part.y1, abs=1)


def test_curves_that_are_apart_are_not_enlarged() -> None:
    """As in the paper's Figure 2: none is closer to the next than a marker is high."""
    tasks = ("labels", "rotnet", "exemplar")
    for gap, enlarged in ((1.0, True), (4.5, False)):
        some = rows([(task, TICKET) for task in tasks], levels=range(1, 25))
        for row in some:
            row["value"] = 98 - gap * tasks.index(row["task"]) - 9 * max(0, row["level"] - 15)
        (ax,) = curves.draw(PLAIN, table(some)).axes
        assert len(ax.child_axes) == enlarged


def test_single_points_are_covered_by_nothing() -> None:
    """Not by a curve, and not by other single points, as of two imported masks of one density."""
    some = rows([("rotnet", TICKET), ("exemplar", TICKET), ("labels", TICKET)], seeds=(0,))
    alone = [("mine", TICKET), ("yours", TICKET), ("theirs", TICKET)]
    some += rows(alone, levels=(7,), seeds=(0,)) + rows([("other", TICKET)], levels=(3,), seeds=(0,))
    for row in some:
        row["value"] = 90.0
    (ax,) = curves.draw(PLAIN, table(some)).axes
    through = [line(ax, name) for name in ("RotNet", "Exemplar", "Labels")]
    points = [line(ax, name) for name, _ in alone]
    assert min(one.get_zorder() for one in points) > max(one.get_zorder() for one in through)
    below_first = sorted(points, key=lambda one: one.get_zorder())
    sizes = [one.get_markersize() for one in below_first]
    assert all(below > above + 1 for below, above in itertools.pairwise(sizes))
    assert line(ax, "other").get_markersize() == through[0].get_markersize(), "no other point is there"


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
    canvas = curves.draw(figure, table(some))
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


# ------------------------------------------------------------------------------------- references


def test_the_dense_line_is_the_mean_of_the_reference_in_each_panel() -> None:
    other = figure_3("two")
    for row in other:
        row["value"] /= 2
    for n, ax in enumerate(curves.draw(FIGURE, table(figure_3("one") + other)).axes):
        expected = value("labels", TICKET, 0, 1) / (1 + n % 2)
        assert np.allclose(np.asarray(line(ax, "Dense").get_ydata(), dtype=float), expected)
        assert all(x < 100 for x, _ in points(line(ax, "Labels"))), "level 0 is no point of a curve"


def test_a_reference_that_names_its_panel_is_in_all_of_its_metric() -> None:
    figure = replace(PLAIN, references=(Curve(task="labels", init=TICKET, panel="one"),))
    some = rows([("labels", TICKET)], levels=(0, *LEVELS), panel="one")
    some += rows([("labels", TICKET)], panel="two") + rows([("labels", TICKET)], panel="three", metric="map")
    one, two, three = curves.draw(figure, table(some)).axes
    assert np.array_equal(line(one, "Dense").get_ydata(), line(two, "Dense").get_ydata())
    assert "Dense" not in names(three)


def test_several_references_say_what_they_are() -> None:
    trained, untrained = (Curve(task="labels", init=init) for init in ("pre-trained", "untrained"))
    figure = replace(PLAIN, x="pruned", references=(trained, untrained))
    some = rows([("rotnet", "pre-trained")], levels=(0, *LEVELS))
    some += rows([("labels", "pre-trained"), ("labels", "untrained")], levels=(0,))
    canvas = curves.draw(figure, table(some))
    assert names(canvas.axes[0]) == {"RotNet", "Dense, Labels", "Untrained"}, "a reference is no curve"
    assert legend(canvas) == ["RotNet (n=3)", "Dense, Labels (n=3)", "Untrained (n=3)"]
    first, second = (line(canvas.axes[0], name).get_linestyle() for name in ("Dense, Labels", "Untrained"))
    assert first != second
    figure = replace(PLAIN, references=(Curve(task="labels", init="a"), Curve(task="labels", init="b")))
    some = rows([("labels", "a"), ("labels", "b")], levels=(0,)) + rows([("rotnet", "a")])
    assert legend(curves.draw(figure, table(some)))[1:] == ["Dense, Labels, a (n=3)", "Dense, Labels, b (n=3)"]


def test_without_a_dense_point_there_is_no_dense_line() -> None:
    canvas = curves.draw(FIGURE, table(rows([("labels", TICKET), ("labels", REINIT)])))
    assert legend(canvas) == ["Labels (n=3)"]


# ------------------------------------------------------------------------------------- the legend


def test_the_legend_names_each_curve_once_with_its_n() -> None:
    some = figure_3("one") + [row for row in figure_3("two") if row["seed"] < 2 or row["task"] != "rotnet"]
    assert sorted(legend(curves.draw(FIGURE, table(some)))) == [
        "Dense (n=3)",
        "Labels (n=3)",
        "Labels, shuffled (n=3)",
        "Random (n=3)",
        "RotNet (n=2 to 3)",
    ]


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("count", [2, 3, 5, 9, 11])
def test_the_legend_stays_on_the_page(count: int, narrow: bool) -> None:
    tasks = [f"a task with a rather long name {n}" for n in range(count)]
    canvas = curves.draw(PLAIN, table(rows((task, TICKET) for task in tasks)), narrow=narrow)
    canvas.draw_without_rendering()
    (one,) = canvas.legends
    box, page = one.get_window_extent(), canvas.bbox
    assert page.x0 <= box.x0
    assert box.x1 <= page.x1
    assert page.y0 <= box.y0
    assert not box.overlaps(canvas.axes[0].get_window_extent())
