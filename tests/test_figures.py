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
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from raysslprune import figures, results
from raysslprune.sweepfile import Curve, Figure

TICKET, REINIT = "winning ticket", "random re-init"
LEVELS = (3, 7, 10, 14)
FIGURE = Figure(
    title="Made up",
    y_label="Top-1 accuracy (%)",
    panels=(REINIT, TICKET),
    reference=Curve(task="labels", init=TICKET),
    controls=("shuffled labels",),
    everywhere=(Curve(task="random", init=REINIT),),
)
Row = tuple[str, str, int, int, float]  # task, init, level, seed, value


def density(level: int) -> float:
    return 0.8**level


def table(rows: Iterable[Row]) -> pa.Table:
    some = [
        {
            "figure": "f",
            "scale": "s",
            "task": task,
            "init": init,
            "level": level,
            "density": density(level),
            "seed": seed,
            "metric": "top1",
            "value": value,
            "collapsed_layers": 0,
            "step": "x",
        }
        for task, init, level, seed, value in rows
    ]
    return pa.Table.from_pylist(some, schema=results.SCHEMA)


def value(task: str, init: str, level: int, seed: int) -> float:
    """Some number that tells all of these apart."""
    return 95 + len(task) - len(init) / 3 - level**1.5 / 4 + seed * (1 + level / 10)


def rows(
    curves: Iterable[tuple[str, str]], levels: Sequence[int] = LEVELS, seeds: Sequence[int] = (0, 1, 2)
) -> list[Row]:
    return [
        (task, init, level, seed, value(task, init, level, seed))
        for task, init in curves
        for level in levels
        for seed in seeds
    ]


def figure_3() -> list[Row]:
    """As the sweep's table: a dense point, tickets and re-inits, and the two controls."""
    dense = rows([("labels", TICKET)], levels=(0,))
    curves = [(task, init) for task in ("labels", "rotnet") for init in (TICKET, REINIT)]
    return dense + rows([*curves, ("random", REINIT), ("shuffled labels", REINIT)])


def line(ax: Axes, name: str) -> Line2D:
    """The one curve of that name."""
    (found,) = (one for one in ax.lines if str(one.get_label()).startswith(f"{name} (n="))
    return found


def names(ax: Axes) -> set[str]:
    return {str(one.get_label()).partition(" (n=")[0] for one in ax.lines if not str(one.get_label()).startswith("_")}


def legend(canvas: Canvas) -> list[str]:
    (one,) = canvas.legends
    return [text.get_text() for text in one.get_texts()]


def bands(ax: Axes) -> list[PolyCollection]:
    return [one for one in ax.collections if isinstance(one, PolyCollection)]


def band_of(ax: Axes, curve: Line2D) -> PolyCollection:
    """The one band in the curve's colour, however transparent."""
    color = colors.to_rgb(str(curve.get_color()))
    (found,) = (b for b in bands(ax) if np.allclose(np.asarray(b.get_facecolor())[0, :3], color))
    return found


def points(curve: Line2D) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in curve.get_xydata()]  # type: ignore[union-attr]


# ------------------------------------------------------------------ what stands in a figure


def test_a_panel_for_each_init_with_its_curves() -> None:
    canvas = figures.draw(FIGURE, table(figure_3()))
    assert len(canvas.axes) == 2
    assert [ax.get_title() for ax in canvas.axes] == ["Random re-init", "Winning tickets"]
    left, right = canvas.axes
    assert names(left) == {"Labels", "RotNet", "Random", "Labels, shuffled", "Dense"}
    assert names(right) == {"Labels", "RotNet", "Random", "Dense"}
    assert left.get_ylabel() == "Top-1 accuracy (%)"
    assert all("emaining" in ax.get_xlabel() for ax in canvas.axes)
    assert canvas.get_suptitle().startswith("Made up")


@pytest.mark.parametrize("panels", [1, 2, 3, 4])
def test_any_number_of_panels(panels: int) -> None:
    inits = tuple(f"init {n}" for n in range(panels))
    figure = Figure(title="t", y_label="y", panels=inits, reference=Curve(task="labels", init=inits[0]))
    canvas = figures.draw(figure, table(rows(("labels", init) for init in inits)))
    assert [ax.get_title() for ax in canvas.axes] == list(inits)
    for init, ax in zip(inits, canvas.axes, strict=True):
        assert points(line(ax, "Labels"))[0][1] == pytest.approx(value("labels", init, 3, 1))


def test_curves_run_through_the_means_at_their_densities() -> None:
    canvas = figures.draw(FIGURE, table(figure_3()))
    for ax, init in zip(canvas.axes, (REINIT, TICKET), strict=True):
        assert ax.get_xscale() == "log"
        low, high = ax.get_xlim()
        assert low > high, "dense stands left"
        for name, task in (("Labels", "labels"), ("RotNet", "rotnet")):
            expected = [(density(n), statistics.fmean(value(task, init, n, s) for s in range(3))) for n in LEVELS]
            assert np.allclose(points(line(ax, name)), expected, rtol=1e-12)
    random = [(density(n), value("random", REINIT, n, 1)) for n in LEVELS]  # the mean of three in a row
    for ax in canvas.axes:
        assert np.allclose(points(line(ax, "Random")), random, rtol=1e-12)


def test_the_axis_shows_percent_of_what_is_left() -> None:
    canvas = figures.draw(FIGURE, table(figure_3()))
    canvas.draw_without_rendering()
    ax = canvas.axes[0]
    shown = {
        text.get_text(): x
        for text, x in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)
        if min(ax.get_xlim()) <= x <= max(ax.get_xlim())
    }
    assert {"50", "20", "10", "5"} <= set(shown)
    assert all(float(text) == pytest.approx(100 * x) for text, x in shown.items())


def test_the_dense_line_is_the_mean_of_the_reference() -> None:
    for ax in figures.draw(FIGURE, table(figure_3())).axes:
        (dense,) = (one for one in ax.lines if str(one.get_label()).startswith("Dense"))
        expected = value("labels", TICKET, 0, 1)
        assert np.allclose(np.asarray(dense.get_ydata(), dtype=float), expected)
        assert all(x < 1 for x, _ in points(line(ax, "Labels"))), "level 0 is no point of a curve"


def test_without_a_dense_point_there_is_no_dense_line() -> None:
    canvas = figures.draw(FIGURE, table(rows([("labels", TICKET), ("labels", REINIT)])))
    assert "Dense" not in legend(canvas)


def test_the_legend_names_each_curve_once_with_its_n() -> None:
    assert sorted(legend(figures.draw(FIGURE, table(figure_3())))) == [
        "Dense (n=3)",
        "Labels (n=3)",
        "Labels, shuffled (n=3)",
        "Random (n=3)",
        "RotNet (n=3)",
    ]


def test_the_legend_says_where_seeds_are_missing() -> None:
    some = rows([("labels", TICKET)]) + rows([("rotnet", TICKET)], seeds=(0, 1))
    some = [row for row in some if row[:4] != ("labels", TICKET, 10, 2)] + rows([("random", REINIT)], seeds=(5,))
    assert {"Labels (n=2 to 3)", "RotNet (n=2)", "Random (n=1)"} <= set(legend(figures.draw(FIGURE, table(some))))


def test_a_missing_point_is_absent_from_its_curve() -> None:
    some = [row for row in figure_3() if row[:3] != ("labels", TICKET, 7)]
    left, right = figures.draw(FIGURE, table(some)).axes
    assert [x for x, _ in points(line(right, "Labels"))] == pytest.approx([density(n) for n in (3, 10, 14)])
    assert [x for x, _ in points(line(left, "Labels"))] == pytest.approx([density(n) for n in LEVELS])
    band = band_of(right, line(right, "Labels")).get_paths()[0].vertices
    assert not np.isclose(np.asarray(band)[:, 0], density(7)).any()


def test_curves_do_not_depend_on_the_order_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    whole = table(figure_3())
    other = whole.take(rng.permutation(len(whole)))
    for one, two in zip(figures.draw(FIGURE, whole).axes, figures.draw(FIGURE, other).axes, strict=True):
        assert names(one) == names(two)
        for name in names(one) - {"Dense"}:
            assert np.allclose(points(line(one, name)), points(line(two, name)))


def test_bands_are_the_standard_error() -> None:
    left, _ = figures.draw(FIGURE, table(rows([("labels", REINIT), ("rotnet", REINIT)]))).axes
    assert len(bands(left)) == 2
    for name, task in (("Labels", "labels"), ("RotNet", "rotnet")):
        corners = np.asarray(band_of(left, line(left, name)).get_paths()[0].vertices)
        assert {round(x, 9) for x in corners[:, 0]} == {round(density(n), 9) for n in LEVELS}
        for level in LEVELS:
            values = [value(task, REINIT, level, seed) for seed in range(3)]
            error = statistics.stdev(values) / math.sqrt(3)
            here = corners[np.isclose(corners[:, 0], density(level)), 1]
            assert min(here) == pytest.approx(statistics.fmean(values) - error)
            assert max(here) == pytest.approx(statistics.fmean(values) + error)


def test_a_band_closes_where_there_is_one_seed_only() -> None:
    some = [row for row in rows([("labels", REINIT)]) if not (row[2] == 10 and row[3] > 0)]
    left, _ = figures.draw(FIGURE, table(some)).axes
    corners = np.asarray(band_of(left, line(left, "Labels")).get_paths()[0].vertices)
    here = corners[np.isclose(corners[:, 0], density(10)), 1]
    assert here == pytest.approx([value("labels", REINIT, 10, 0)] * len(here))


def test_single_seeds_are_dots() -> None:
    left, _ = figures.draw(FIGURE, table(rows([("labels", REINIT)]))).axes
    (dots,) = (one for one in left.lines if one.get_linestyle() == "None")
    expected = {(density(n), value("labels", REINIT, n, s)) for n in LEVELS for s in range(3)}
    assert np.allclose(sorted(points(dots)), sorted(expected))
    assert "_" in str(dots.get_label())[:1], "dots stand in no legend"


def test_one_seed_has_neither_band_nor_dots() -> None:
    left, _ = figures.draw(FIGURE, table(rows([("labels", REINIT)], seeds=(0,)))).axes
    assert bands(left) == []
    assert len(left.lines) == 1


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
    ids=["nothing", "only dense", "only another dense", "no panel's", "one point", "very sparse"],
)
def test_what_little_there_is_is_drawn(some: list[Row]) -> None:
    """As when most of a sweep has failed: no error, and no warning."""
    canvas = figures.draw(FIGURE, table(some))
    assert len(canvas.axes) == 2
    assert figures.save(canvas, "png").startswith(b"\x89PNG")


# ------------------------------------------------------------------ telling curves apart


def luminance(color: str) -> float:
    """Relative, of WCAG 2: 0 is black, 1 is white."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colors.to_rgb(color)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def lightness(color: str) -> float:
    """CIE L*: 0 is black, 100 is white, and 2.3 is about what one can just tell apart side by side."""
    y = luminance(color)
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
    other = Figure(
        title="Another", y_label="y", panels=(TICKET, "linear"), reference=Curve(task="rotnet", init="linear")
    )
    some = rows([("exemplar", TICKET), ("rotnet", TICKET), ("labels", "linear"), ("rotnet", "linear")])
    first, second = figures.draw(FIGURE, table(figure_3())), figures.draw(other, table(some))
    seen: dict[str, set[tuple[str, str]]] = {}
    for canvas in (first, second):
        for ax in canvas.axes:
            for name in ("Labels", "RotNet"):
                if name in names(ax):
                    seen.setdefault(name, set()).add(looks(line(ax, name)))
    assert {name: len(styles) for name, styles in seen.items()} == {"Labels": 1, "RotNet": 1}
    assert seen["Labels"] != seen["RotNet"]


def test_tasks_in_one_figure_look_different() -> None:
    tasks = list(figures.STYLE)
    left, _ = figures.draw(FIGURE, table(rows((task, REINIT) for task in tasks))).axes
    shown = [line(left, figures.NAMES[task]) for task in tasks]
    assert len({looks(curve)[0] for curve in shown}) == len(tasks)
    assert len({looks(curve)[1] for curve in shown}) == len(tasks)


def test_a_control_is_thinner_and_hollow_in_its_tasks_colour() -> None:
    left, _ = figures.draw(FIGURE, table(figure_3())).axes
    control, task = line(left, "Labels, shuffled"), line(left, "Labels")
    assert looks(control) == looks(task)
    assert control.get_linewidth() < task.get_linewidth()
    assert control.get_linestyle() != task.get_linestyle()
    assert colors.to_hex(str(control.get_markerfacecolor())) == "#ffffff"


def test_an_unknown_task_gets_a_spare_style_and_keeps_it() -> None:
    known = {colors.to_hex(style["color"]) for style in figures.STYLE.values()}
    for task in ("jigsaw", "keep 50 %", "Ünïcode"):
        left, _ = figures.draw(FIGURE, table(rows([("labels", REINIT), (task, REINIT)]))).axes
        again, _ = figures.draw(FIGURE, table(rows([(task, REINIT), ("rotnet", REINIT)]))).axes
        assert looks(line(left, task)) == looks(line(again, task))
        assert looks(line(left, task))[0] not in known
        assert looks(line(left, task))[1] not in {style["marker"] for style in figures.STYLE.values()}


def test_unknown_tasks_in_one_figure_look_different() -> None:
    """As the curves of a sweep of one's own: by colour and by marker."""
    tasks = [f"keep {percent} %" for percent in (20, 50, 80)]
    left, _ = figures.draw(FIGURE, table(rows((task, REINIT) for task in tasks))).axes
    assert len({looks(line(left, task))[0] for task in tasks}) == 3
    assert len({looks(line(left, task))[1] for task in tasks}) == 3


# ------------------------------------------------------------------ files


def digests() -> str:
    """Of the figure as PNG and as PDF; also printed by another process."""
    canvas = figures.draw(FIGURE, table(figure_3()), subtitle="smoke")
    return " ".join(hashlib.sha256(figures.save(canvas, kind)).hexdigest() for kind in ("png", "pdf"))


def test_the_same_table_gives_the_same_files() -> None:
    """Here, after all that the other tests drew, and in a new process."""
    first = digests()
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "MPLBACKEND": "agg"}
    code = "import test_figures as t; print(t.digests())"
    other = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, env=environment, capture_output=True, check=True
    )
    assert other.stdout.decode().strip() == first


def test_another_table_gives_other_files() -> None:
    changed = [(*row[:4], row[4] + 1) if row[2] == 7 else row for row in figure_3()]
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
