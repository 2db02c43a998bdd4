"""Figures of masks: density by layer, and what masks share."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from raysslprune.figures import ink, masks
from raysslprune.results import overlap
from raysslprune.results.overlap import SAME_SEED, SAME_TASK
from tests.helpers.masks import Row


def densities_of(
    *tasks: str,
    panel: str = "",
    layers: Sequence[str] = ("a.conv1.weight", "a.conv2.weight"),
    levels: Sequence[int] = (3, 7),
    n: int = 3,
) -> list[Row]:
    """Of every layer, task and level another one."""
    return [
        {
            "panel": panel,
            "task": task,
            "level": level,
            "layer": layer,
            "density": 0.8**level / (1 + i + len(task) / 10),
            "stderr": 0.01 * 0.8**level if n > 1 else None,
            "n": n,
            "overall": 0.8**level,
            "left": 0.8**level,
        }
        for task in tasks
        for level in levels
        for i, layer in enumerate(layers)
    ]


def layers_drawn(rows: Sequence[Row], subtitle: str = "") -> Canvas:
    return masks.layer_densities("A title", pa.Table.from_pylist([*rows], schema=overlap.DENSITIES), subtitle=subtitle)


def xs(line: Line2D) -> list[float]:
    return np.asarray(line.get_xdata(), dtype=float).tolist()


def ys(line: Line2D) -> list[float]:
    return np.asarray(line.get_ydata(), dtype=float).tolist()


def legend(canvas: Canvas) -> list[str]:
    (one,) = canvas.legends
    return [text.get_text() for text in one.get_texts()]


def note(canvas: Canvas) -> str:
    (one,) = canvas.legends
    return one.get_title().get_text()


def test_a_line_of_layers_for_each_level_and_axes_for_each_task() -> None:
    rows = densities_of("labels", "rotnet")
    canvas = layers_drawn(rows, "digits, conv4")
    assert canvas.get_suptitle() == "A title (digits, conv4)"
    assert [ax.get_title() for ax in canvas.axes] == ["Labels", "RotNet"]
    assert legend(canvas) == ["51% left (n=3)", "21% left (n=3)"]
    assert note(canvas) == "Bars: ± one standard error."
    for ax, task in zip(canvas.axes, ("labels", "rotnet"), strict=True):
        assert ax.get_yscale() == "log"
        assert [label.get_text() for label in ax.get_xticklabels()] == ["conv1", "conv2"]
        for level, line, bars in zip((3, 7), ax.lines, ax.collections, strict=True):
            mine = [row for row in rows if (row["task"], row["level"]) == (task, level)]
            assert xs(line) == [1, 2]
            assert ys(line) == pytest.approx([100 * row["density"] for row in mine])
            for (low, high), row in zip(bars.get_segments(), mine, strict=True):  # pyright: ignore
                assert high[1] - low[1] == pytest.approx(200 * row["stderr"])
    (first, second) = ([line.get_color() for line in ax.lines] for ax in canvas.axes)
    assert first == second
    assert len({*first}) == 2


def test_an_empty_layer_is_a_circle_on_the_axis() -> None:
    rows = densities_of("labels")
    rows[2]["density"] = 0.0
    canvas = layers_drawn(rows)
    (ax,) = canvas.axes
    dense, sparse, circle = ax.lines
    assert not np.isnan(ys(dense)).any()
    assert [*np.isnan(ys(sparse))] == [True, False]
    assert (xs(circle), ys(circle)) == ([1], [ax.get_ylim()[0]])
    assert circle.get_color() == sparse.get_color()
    assert 0 < ax.get_ylim()[0] < 100 * min(row["density"] for row in rows if row["density"])
    assert "Circles on the axis: no weight is left" in note(canvas)


def test_panels_begin_rows_and_many_layers_are_numbered() -> None:
    deep = [f"layer{i // 6}.{i % 6}.conv.weight" for i in range(30)]
    rows = densities_of("labels", "rotnet", panel="small") + densities_of("labels", panel="deep", layers=deep)
    canvas = layers_drawn(rows)
    places = [(ax.get_subplotspec().rowspan.start, ax.get_subplotspec().colspan.start) for ax in canvas.axes]  # pyright: ignore
    assert places == [(0, 0), (0, 1), (1, 0)]
    assert [ax.get_ylabel() for ax in canvas.axes] == ["small\nWeights left (%)", "", "deep\nWeights left (%)"]
    small, _, large = canvas.axes
    assert large.get_xlabel() == "Layer"
    assert not small.get_xlabel()
    assert all(tick == int(tick) for tick in large.get_xticks())
    assert all(line.get_marker() == "" for line in large.lines)
    assert "Layers are numbered in the network's order." in note(canvas)
    assert small.get_ylim() == large.get_ylim()


@pytest.mark.parametrize("tasks", [("labels",), ("labels", "rotnet", "exemplar", "random")])
def test_names_that_are_too_long_for_a_row_stand_upright(tasks: tuple[str, ...]) -> None:
    deep = [f"layer{i // 6}.{i % 6}.conv{i}.weight" for i in range(40 // len(tasks))]
    canvas = layers_drawn(densities_of(*tasks, layers=deep))
    canvas.draw_without_rendering()
    for ax in canvas.axes:
        labels = ax.get_xticklabels()
        assert [label.get_text() for label in labels] == [name.removesuffix(".weight") for name in deep]
        assert {label.get_rotation() for label in labels} == {90.0}
        boxes = [label.get_window_extent() for label in labels]
        assert not any(one.overlaps(other) for one, other in itertools.pairwise(boxes))
        assert ax.get_window_extent().height > max(box.height for box in boxes)
        assert not ax.get_xlabel()
    assert "numbered" not in note(canvas)


def shared_by(pair: tuple[str, str], relation: str = SAME_SEED, panel: str = "", n: int = 3, **more: Any) -> list[Row]:
    return [
        {
            "panel": panel,
            "relation": relation,
            "task_a": pair[0],
            "task_b": pair[1],
            "level": level,
            "density": 0.8**level,
            "jaccard": 0.9**level,
            "stderr": 0.01 if n > 2 else None,
            "n": n,
            "chance": 0.85**level,
            "chance_overall": 0.75**level,
            **more,
        }
        for level in (3, 7, 14)
    ]


def overlaps_drawn(*rows: Row) -> Canvas:
    return masks.overlaps("A title", pa.Table.from_pylist([*rows], schema=overlap.SUMMARY))


def test_overlaps_stand_beside_what_chance_gives() -> None:
    rows = [*shared_by(("labels", "rotnet")), *shared_by(("labels", "labels"), SAME_TASK)]
    canvas = overlaps_drawn(*rows)
    assert [ax.get_title() for ax in canvas.axes] == ["Different tasks, same seed", "Same task, different seeds"]
    assert [ax.get_ylabel() for ax in canvas.axes] == ["Jaccard index", ""]
    for ax in canvas.axes:
        assert (ax.get_xlabel(), ax.get_yscale(), ax.get_xscale()) == ("Remaining weights (%)", "log", "log")
        assert ax.get_xlim()[0] > ax.get_xlim()[1]  # the sparsest to the right
        index, by_layer, overall = ax.lines
        for line, name in ((index, "jaccard"), (by_layer, "chance"), (overall, "chance_overall")):
            assert xs(line) == pytest.approx([100 * 0.8**level for level in (3, 7, 14)])
            assert ys(line) == pytest.approx([row[name] for row in rows[:3]])
        assert [line.get_linestyle() for line in ax.lines] == ["-", "--", ":"]
        assert by_layer.get_color() == index.get_color()
        (bars,) = ax.collections
        assert [high[1] - low[1] for low, high in bars.get_segments()] == pytest.approx([0.02] * 3)  # pyright: ignore
    assert legend(canvas) == [
        "Labels and RotNet (n=3)",
        "Labels (n=3)",
        "Chance, given each layer's density",
        "Chance, given the density",
    ]
    assert "jackknife over seeds" in note(canvas)


def test_each_pair_looks_like_its_two_tasks() -> None:
    tasks = ("labels", "rotnet", "exemplar")
    pairs = [*itertools.combinations(tasks, 2), *((task, task) for task in tasks)]
    canvas = overlaps_drawn(*(row for pair in pairs for row in shared_by(pair)))
    (ax,) = canvas.axes
    found = {str(line.get_label()): line for line in ax.lines if not str(line.get_label()).startswith("_")}
    looks = {
        (str(line.get_color()), str(line.get_marker()), str(line.get_markerfacecolor())) for line in found.values()
    }
    assert len(looks) == len(pairs)
    mixed, first, second = (found[name] for name in ("Labels and RotNet", "Labels", "RotNet"))
    assert (mixed.get_color(), mixed.get_marker()) == (first.get_color(), second.get_marker())
    assert mixed.get_markerfacecolor() == second.get_color()


def test_two_seeds_have_no_bars_and_what_shares_nothing_is_a_circle() -> None:
    rows = shared_by(("labels", "labels"), SAME_TASK, n=2)
    rows[2]["jaccard"] = 0.0
    canvas = overlaps_drawn(*rows)
    (ax,) = canvas.axes
    assert [*np.isnan(ys(ax.lines[0]))] == [False, False, True]
    assert [ys(line)[0] for line in ax.lines if line.get_linestyle() == "None"] == [ax.get_ylim()[0]]
    assert note(canvas) == "n: seeds. Circles on the axis: nothing is shared."


@pytest.mark.parametrize("left", [0.9, 0.156, 0.0123])
def test_a_single_density_has_ticks_and_chance(left: float) -> None:
    rows = [row | {"density": left} for row in shared_by(("labels", "rotnet"))[:1]]
    canvas = overlaps_drawn(*rows)
    (ax,) = canvas.axes
    sparse, dense = sorted(ax.get_xlim())
    ticks = [tick for tick in ax.get_xticks() if sparse <= tick <= dense]
    assert ticks == [float(f"{tick:.1g}") for tick in ticks] != [], "round numbers"
    for line, name in zip(ax.lines[1:], ("chance", "chance_overall"), strict=True):
        one, other = xs(line)
        assert one > 100 * left > other, "a line, as the legend has it"
        assert ys(line) == [rows[0][name]] * 2


def test_pairs_beyond_ten_are_counted() -> None:
    pairs = [(f"task {a}", f"task {b}") for a, b in itertools.combinations(range(6), 2)]
    canvas = overlaps_drawn(*(row for pair in pairs for row in shared_by(pair)))
    assert len(legend(canvas)) == 10 + 2
    assert "5 more pairs are in the table only." in note(canvas)


def test_what_tells_masks_of_one_task_apart_is_their_name() -> None:
    canvas = overlaps_drawn(*shared_by(("rotnet, early", "rotnet, late")))
    assert legend(canvas)[0] == "Early and late (n=3)"
    canvas = overlaps_drawn(*shared_by(("rotnet, early", "labels, early")))
    assert legend(canvas)[0] == "RotNet, early and Labels, early (n=3)"


@pytest.mark.parametrize("kind", ["png", "pdf"])
def test_the_same_tables_give_the_same_files(kind: str) -> None:
    drawn = [ink.save(layers_drawn(densities_of("labels", "rotnet")), kind) for _ in range(2)]
    assert drawn[0] == drawn[1]
    drawn = [ink.save(overlaps_drawn(*shared_by(("labels", "rotnet"))), kind) for _ in range(2)]
    assert drawn[0] == drawn[1]
