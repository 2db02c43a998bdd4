"""Colours, lines and markers that tell curves apart."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib import colors
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from raysslprune.figures.curves import draw
from raysslprune.figures.style import INITS, SPARE, STYLE, curve_styles
from raysslprune.sweep_loader import known, load
from raysslprune.sweepfile import Curve, Figure
from tests.helpers.tables import FIGURE, PLAIN, REINIT, TICKET, every, figure_3, line, means, names, plain, rows, table


def lightness(color: str) -> float:
    """CIE L*: 0 is black, 100 is white, and 2.3 is about what one can just tell apart side by side."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colors.to_rgb(color)]
    y = sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
    return 116 * y ** (1 / 3) - 16 if y > 216 / 24389 else y * 24389 / 27


def test_lightness_by_known_values() -> None:
    assert [lightness(c) for c in ("#000000", "#ffffff", "#777777")] == pytest.approx([0, 100, 50.03], abs=0.1)


def test_colours_of_tasks_differ_in_grey_print() -> None:
    greys = {task: lightness(style["color"]) for task, style in STYLE.items()}
    close = {(a, b): round(abs(greys[a] - greys[b]), 1) for a, b in itertools.combinations(greys, 2)}
    assert {pair: gap for pair, gap in close.items() if gap < 5} == {}


SEEN = {
    "protanopia": [(0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)],
    "deuteranopia": [(0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)],
    "tritanopia": [(1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)],
    "all cones": [(1, 0, 0), (0, 1, 0), (0, 0, 1)],
}
"""What dichromats see of linear RGB: Machado, Oliveira and Fernandes 2009, table 1, severity 1."""


def distance(one: str, other: str, eyes: str) -> float:
    """CIE 1976 colour difference as these eyes see it; some 2.3 are just noticeable side by side."""
    lab = []
    for color in (one, other):
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colors.to_rgb(color)]
        r, g, b = (min(1.0, max(0.0, float(np.dot(row, linear)))) for row in SEEN[eyes])
        x, y, z = (
            (0.4124564 * r + 0.3575761 * g + 0.1804375 * b) / 0.95047,
            0.2126729 * r + 0.7151522 * g + 0.0721750 * b,
            (0.0193339 * r + 0.1191920 * g + 0.9503041 * b) / 1.08883,
        )
        x, y, z = (t ** (1 / 3) if t > 216 / 24389 else (24389 / 27 * t + 16) / 116 for t in (x, y, z))
        lab.append((116 * y - 16, 500 * (x - y), 200 * (y - z)))
    return float(np.linalg.norm(np.subtract(*lab)))


def test_distance_by_known_values() -> None:
    """Red and green, by their published coordinates in CIELAB; of grey, no eyes see another colour."""
    red, green = (53.24, 80.09, 67.20), (87.73, -86.18, 83.18)
    assert distance("#ff0000", "#00ff00", "all cones") == pytest.approx(
        np.linalg.norm(np.subtract(red, green)), abs=0.1
    )
    for eyes in SEEN:
        assert distance("#404040", "#c0c0c0", eyes) == pytest.approx(
            lightness("#c0c0c0") - lightness("#404040"), abs=0.5
        )


TOGETHER = {
    "fig1": ("rotnet", "exemplar", "npid"),
    "fig3": ("labels", "rotnet", "exemplar", "random"),
    "fig5": ("labels", "s4l", "few labels", "rotnet", "random"),
    "fig3-today": ("labels", "rotnet", "simclr", "moco", "byol", "vicreg", "random"),
}


@pytest.mark.parametrize("eyes", SEEN)
@pytest.mark.parametrize("figure", TOGETHER)
def test_colours_of_a_figure_are_apart_for_all_eyes_and_in_grey(figure: str, eyes: str) -> None:
    styles = curve_styles(TOGETHER[figure]).values()
    for one, other in itertools.combinations([style["color"] for style in styles], 2):
        assert distance(one, other, eyes) > 15, (one, other)
        assert abs(lightness(one) - lightness(other)) > 5


@pytest.mark.parametrize("eyes", SEEN)
def test_colours_of_inits_are_apart_for_all_eyes_and_in_grey(eyes: str) -> None:
    """Of Figure 7's four."""
    shades = [colors.to_hex(INITS(rank / 3)) for rank in range(4)]
    for one, other in itertools.combinations(shades, 2):
        assert distance(one, other, eyes) > 30
        assert abs(lightness(one) - lightness(other)) > 10


def test_no_curve_is_black_as_the_dense_line() -> None:
    curves = [style["color"] for style in (*STYLE.values(), *SPARE)] + [
        colors.to_hex(INITS(at / 9)) for at in range(10)
    ]
    assert all(distance(color, "#000000", eyes) > 28 for color in curves for eyes in SEEN)


def test_every_style_has_its_own_marker_and_colour() -> None:
    styles = [*STYLE.values(), *SPARE]
    assert len({style["marker"] for style in styles}) == len(styles)
    assert len({colors.to_hex(style["color"]) for style in styles}) == len(styles)
    assert all(lightness(style["color"]) < 75 for style in styles), "too light on white paper"


def looks(curve: Line2D) -> tuple[str, str]:
    return colors.to_hex(str(curve.get_color())), str(curve.get_marker())


def test_a_task_looks_the_same_in_every_figure() -> None:
    first = draw(FIGURE, table(figure_3())).axes
    second = [plain("exemplar", "rotnet", "jigsaw", "labels")]
    for name in ("Labels", "RotNet"):
        assert len({looks(line(ax, name)) for ax in (*first, *second)}) == 1
    assert looks(line(first[0], "Labels")) != looks(line(first[0], "RotNet"))


def test_tasks_in_one_figure_look_different() -> None:
    tasks = [*STYLE, *(f"keep {percent} %" for percent in (20, 50, 80))]
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
    expected = (STYLE[style]["color"], STYLE[style]["marker"])
    assert looks(line(plain("labels", task), name)) == expected


def test_two_tasks_never_share_a_style() -> None:
    ax = plain("labels:10%-of-images", "labels:20%-of-images")
    assert looks(line(ax, "10% Labels")) != looks(line(ax, "20% Labels"))
    tasks = [f"task {n}" for n in range(2 * len(SPARE))]
    ax = plain(*tasks)
    assert len({(*looks(line(ax, task)), line(ax, task).get_linestyle()) for task in tasks}) == len(tasks)


def test_an_unknown_task_gets_a_spare_style_and_keeps_it() -> None:
    known = {colors.to_hex(style["color"]) for style in STYLE.values()}
    for task in ("jigsaw", "keep 50 %", "Ünïcode"):
        one, two = line(plain("labels", task), task), line(plain(task, "rotnet"), task)
        assert looks(one) == looks(two)
        assert looks(one)[0] not in known
        assert looks(one)[1] not in {style["marker"] for style in STYLE.values()}


def test_a_control_is_thinner_and_hollow_in_its_tasks_colour() -> None:
    left, _ = draw(FIGURE, table(figure_3())).axes
    by_init = replace(PLAIN, controls=("untrained",))
    (other,) = draw(by_init, table(rows([("rotnet", "trained"), ("rotnet", "untrained")]))).axes
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


def test_erk_masks_have_the_colour_of_random_ones_and_a_line_and_a_marker_of_their_own() -> None:
    ax = plain("random", "random nonzero", "random erk")
    erk = line(ax, "Random, ERK")
    assert looks(erk)[0] == looks(line(ax, "Random"))[0]
    assert looks(erk)[1] not in {style["marker"] for style in (*STYLE.values(), *SPARE)}
    lines = [line(ax, name).get_linestyle() for name in ("Random", "Random, non-zero weights", "Random, ERK")]
    assert lines == ["-", "--", "-."]
    assert colors.to_hex(str(erk.get_markerfacecolor())) == "#ffffff"


def test_inits_in_the_same_axes_differ_by_line_and_marker() -> None:
    """As in the paper's Figure 2; a task of one init is only named by the task."""
    before, during = "pruned in pre-training", "pruned during transfer"
    some = rows([(task, init) for task in ("rotnet", "exemplar") for init in (before, during)])
    (ax,) = draw(PLAIN, table(some + rows([("random", REINIT)]))).axes
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
    (ax,) = draw(PLAIN, table(rows([("rotnet", TICKET), *curves], levels=(7,), seeds=(0,)))).axes
    markers = [
        (str(one.get_color()), str(one.get_marker()), str(one.get_markerfacecolor()))
        for one in ax.lines
        if str(one.get_label()).startswith("Labels")
    ]
    assert len({*markers}) == len(curves)
    assert markers[0] == (STYLE["labels"]["color"], "o", STYLE["labels"]["color"])
    assert {marker for _, marker, _ in markers}.isdisjoint({STYLE["rotnet"]["marker"]})


def test_what_is_everywhere_differs_from_the_rows_own() -> None:
    figure = replace(FIGURE, everywhere=(Curve(task="labels", init=REINIT),))
    left, right = draw(figure, table(rows([("labels", REINIT), ("labels", TICKET)]))).axes
    assert names(left) == {"Labels"}
    assert names(right) == {"Labels", "Labels, random re-init"}
    assert line(right, "Labels").get_linestyle() == line(left, "Labels").get_linestyle() == "-"
    assert line(right, "Labels, random re-init").get_linestyle() == "--"
    assert np.allclose(every(line(right, "Labels, random re-init")), means("labels", REINIT))


def test_inits_as_shades() -> None:
    """As in the paper's Figure 7: from dark to light, each with a marker."""
    inits = ["same epochs", "same part", "same updates", "same samples"]
    (ax,) = draw(replace(PLAIN, colour="init"), table(rows([("few labels", init) for init in inits]))).axes
    shown = [line(ax, init.capitalize()) for init in inits]
    greys = [lightness(looks(curve)[0]) for curve in shown]
    assert all(b - a > 8 for a, b in itertools.pairwise(greys))
    assert greys[-1] < 75
    assert len({looks(curve)[1] for curve in shown}) == len(inits)


FIGURES = [name for name in known() if isinstance(load(name, "laptop", 1).drawing, Figure)]


def drawn(name: str) -> list[Axes]:
    """The axes of a sweep's figure, on made-up values."""
    sweep = load(name, "laptop", 1)
    assert isinstance(sweep.drawing, Figure)
    made = [
        row
        for p in sweep.points
        for row in rows([(p.task, p.init)], levels=[p.level], seeds=[p.seed], panel=p.panel, metric=p.metric)
    ]
    return draw(sweep.drawing, table(made)).axes


@pytest.mark.parametrize("name", FIGURES)
def test_no_two_curves_of_the_papers_figures_look_alike(name: str) -> None:
    """Not even a single point of each, which shows no line; and in grey print not if both have the same marker."""
    for ax in drawn(name):
        curves = [one for one in ax.lines if str(one.get_marker()) not in ("", "None")]
        points = [(*looks(one), colors.to_hex(str(one.get_markerfacecolor())) == "#ffffff") for one in curves]
        assert points
        for (colour, *mark), (other, *its) in itertools.combinations(points, 2):
            assert mark != its or abs(lightness(colour) - lightness(other)) > 5, (ax.get_title(), mark)
        assert len({one.get_label() for one in curves}) == len(curves)
