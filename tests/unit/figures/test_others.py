"""Figures of magnitudes and of searches."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pyarrow as pa
import pytest
from matplotlib import colors
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.lines import Line2D

from raysslprune.figures import others
from raysslprune.sweepfile import Magnitudes, Search
from tests.helpers.tables import REWINDS, TICKET, Row, every, legend, points, searched, shown_labels, table, value


def looks(curve: Line2D) -> tuple[str, str]:
    return colors.to_hex(str(curve.get_color())), str(curve.get_marker())


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


# ------------------------------------------------------------------------------------- magnitudes


def test_magnitudes_are_drawn_by_rank_down_to_machine_precision() -> None:
    some = sorted_weights("VGG-19", "CIFAR-10", 0.845) + sorted_weights("VGG-19", "CIFAR-10", 0.847, seed=1)
    some += sorted_weights("VGG-19", "ImageNet", 0.0) + sorted_weights("ResNet-18", "CIFAR-10", 0.8)
    canvas = others.magnitudes(Magnitudes(title="Weights"), pa.Table.from_pylist(some[::-1]), subtitle="x")
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
        (ax,) = others.magnitudes(Magnitudes(title="t"), pa.Table.from_pylist(some)).axes
        return looks(next(one for one in ax.lines if str(one.get_label()).startswith(init)))[0]

    assert colour(["CIFAR-10", "ImageNet"], "CIFAR-10") == colour(["SGD", "CIFAR-10"], "CIFAR-10")
    assert colour(["CIFAR-10", "ImageNet"], "ImageNet") != colour(["CIFAR-10", "ImageNet"], "CIFAR-10")
    assert colour(["SGD", "Adam"], "SGD") == colour(["SGD", "CIFAR-10"], "SGD") != colour(["SGD", "Adam"], "Adam")


def test_many_panels_of_magnitudes_do_not_overlap() -> None:
    some = [row for n in range(7) for init in ("CIFAR-10", "ImageNet") for row in sorted_weights(f"net {n}", init, 0.3)]
    canvas = others.magnitudes(Magnitudes(title="t"), pa.Table.from_pylist(some))
    canvas.draw_without_rendering()
    boxes = [box for ax in canvas.axes if (box := ax.get_tightbbox())]
    assert len(boxes) == 7
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_lines_that_coincide_are_both_seen() -> None:
    """In a picture as in docs/: each colour has its pixels, all along the line."""
    inits = ("SGD", "Adam", "Adam with L2")
    some = [row for seed in range(3) for init in inits for row in sorted_weights("net", init, 0.1, seed)]
    canvas = others.magnitudes(Magnitudes(title="t"), pa.Table.from_pylist(some))
    canvas.set_dpi(200)
    FigureCanvasAgg(canvas).draw()
    (ax,) = canvas.axes
    picture = np.asarray(canvas.canvas.buffer_rgba())[..., :3].astype(int)  # pyright: ignore
    box = ax.get_window_extent()
    shown = picture[round(len(picture) - box.y1) : round(len(picture) - box.y0), round(box.x0) : round(box.x1)]
    for init in inits:
        colour = next(one.get_color() for one in ax.lines if str(one.get_label()) == f"{init} 0")
        near = np.abs(shown - 255 * np.asarray(colors.to_rgb(str(colour)))).sum(-1) < 90
        assert near.any(axis=0)[20:].mean() > 0.9, init


def test_magnitudes_have_minor_ticks() -> None:
    some = sorted_weights("net", "SGD", 0.0)
    canvas = others.magnitudes(Magnitudes(title="t"), pa.Table.from_pylist(some))
    canvas.draw_without_rendering()
    (ax,) = canvas.axes
    assert len(ax.xaxis.get_minorticklocs()) > 10
    assert len(ax.yaxis.get_minorticklocs()) > 10


# ------------------------------------------------------------------------------------- the search for a rewind


def test_a_search_has_axes_for_each_level_and_a_curve_over_rewinds() -> None:
    some = searched()
    for row in some:
        row["value"] -= REWINDS.index(row["rewind"])
    some = [row for row in some if (row["level"], row["rewind"]) != (14, 300)]
    by = {("labels", 10, 0): 1.0, ("labels", 10, 1200): 2.0, ("labels", 14, 1200): 9.0, ("labels", 14, 3_840_000): 8.5}
    canvas = others.search(Search(title="Rewind"), table(some), by)
    left, right = canvas.axes
    assert [ax.get_title() for ax in canvas.axes] == ["11% of the weights left", "4.4% of the weights left"]
    assert shown_labels(left) == ["0", "300", "1.2k", "3.84M"]
    for ax, level, known, filled, best in ((left, 10, [0, 1, 2, 3], [0, 2], 2), (right, 14, [0, 2, 3], [2, 3], 2)):
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
    assert legend(canvas) == ["Labels (n=3)", "Finalist", "Fell behind", "Chosen"]


def test_levels_of_a_search_share_their_axis() -> None:
    some = searched()
    for row in some:
        row["value"] /= row["level"]
    canvas = others.search(Search(title="Rewind"), table(some), {})
    left, right = canvas.axes
    assert left.get_ylim() == right.get_ylim()
    canvas.draw_without_rendering()
    assert len(left.yaxis.get_minorticklocs()) > 3
    narrow = others.search(Search(title="Rewind"), table(some), {}, narrow=True)
    assert [ax.get_subplotspec().rowspan.start for ax in narrow.axes] == [0, 1]  # pyright: ignore


def test_a_search_with_nothing_to_show_is_drawn() -> None:
    search = Search(title="Rewind")
    for some, tried in (([], {}), (searched(), {}), (searched()[:1], {("labels", 10, 0): 1.0, ("rotnet", 3, 9): 2.0})):
        others.search(search, table(some), tried).draw_without_rendering()
