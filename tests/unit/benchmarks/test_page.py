"""docs/results.md is what the tables in docs/data say, and its numbers are worked out here once more."""

from __future__ import annotations

import io
import math
import re
import shutil
import statistics
from datetime import date
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks import page
from benchmarks.results import DOCS
from raysslprune import results
from raysslprune.messages import UserError
from raysslprune.paper.scales import SETTINGS
from raysslprune.results import claims
from raysslprune.sweep_loader import known, load

TEXT = (DOCS / "results.md").read_text()
WRITE = "python -m benchmarks results"
LABELS = {"RotNet": "rotnet", "Exemplar": "exemplar", "NPID": "npid", "S4L": "s4l"}
LABELS |= {"SimCLR": "simclr", "MoCo v2": "moco", "BYOL": "byol", "VICReg": "vicreg"}
LABELS |= {"shuffled RotNet": "shuffled rotnet", "random ERK": "random erk"}


@pytest.fixture(scope="module")
def figures() -> dict[str, page.Figure]:
    return page.shown(DOCS / "data")


def section(heading: str) -> str:
    """Of the page, from its heading to the next."""
    return re.split(r"^## ", TEXT, flags=re.M)[[*re.findall(r"^## (.*)$", TEXT, re.M)].index(heading) + 1]


def tables(text: str) -> dict[str, list[dict[str, str]]]:
    """Rows, as columns to cells, of each table of means, by what stands above it."""
    found = {}
    for caption, lines in re.findall(r"^(.*), n = \d+:\n\n((?:\|.*\n?)+)", text, re.M):
        head, _, *rest = (
            [cell.strip() for cell in line.strip().strip("|").split(" | ")] for line in lines.splitlines()
        )
        found[caption] = [dict(zip(head, row, strict=True)) for row in rest]
    return found


@pytest.mark.parametrize("name", page.PAGES)
def test_the_pages_are_what_the_tables_say(name: str) -> None:
    made = page.text(page.every(DOCS / "data"), (DOCS / f"{name}.jinja").read_text())
    assert made == (DOCS / name).read_text(), f"docs/{name} is not what {WRITE} writes"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in known() if name != "table1"])
def test_the_pictures_are_drawn_from_the_same_tables(name: str, figures: dict[str, page.Figure]) -> None:
    there = Image.open(DOCS / "images" / figures[name].file)
    made = Image.open(io.BytesIO(page.picture(figures[name])))
    assert there.size == made.size
    assert there.convert("RGB").tobytes() == made.convert("RGB").tobytes(), f"{WRITE} draws another"


@pytest.mark.parametrize(
    ("name", "heading"),
    [
        ("fig3", "Figure 3: re-training pruned masks"),
        ("fig8", "Figure 8: more networks"),
        ("fig3-today", "Figure 3 with newer tasks: re-training pruned masks"),
    ],
)
def test_means_and_standard_errors_are_right(name: str, heading: str) -> None:
    """Every cell, worked out by a plain loop over the rows of the Parquet file."""
    scales = (scale for scale, found in page.every(DOCS / "data").items() if name in found)
    rows = [row for scale in scales for row in pq.read_table(DOCS / f"data/{scale}/{name}.parquet").to_pylist()]
    panels = {row["panel"] for row in rows}
    shown = tables(section(heading))
    assert set(shown) == {f"{p}, {init}" for p in panels for init in ("random re-init", "winning ticket")}
    checked = 0
    for caption, lines in shown.items():
        panel, init = caption.rsplit(", ", 1)
        for line in lines:
            pruned = line.pop("% pruned")
            for column, cell in line.items():
                task = LABELS.get(column, column)
                values, collapsed = [], []
                for row in rows:
                    dense = pruned == "dense"
                    there = row["level"] == 0 if dense else abs(100 - 100 * row["density"] - float(pruned)) < 0.051
                    if there and (row["panel"], row["init"], row["task"]) == (panel, init, task):
                        values.append(row["value"])
                        collapsed.append(row["collapsed_layers"] > 0)
                if not cell:
                    assert values == []
                    continue
                error = f" ± {statistics.stdev(values) / math.sqrt(len(values)):.1f}" if len(values) > 1 else ""
                some = any(collapsed) and not all(collapsed)
                median = f" (median {statistics.median(values):.1f})" if some else ""
                assert cell == f"{sum(values) / len(values):.1f}{error}{median}", (caption, pruned, column)
                checked += 1
    assert checked > 50


def test_the_overview_has_the_verdicts_below_it() -> None:
    """In each column, for a scale, what the tables of claims below the scale's heading say."""
    lines = re.findall(r"^\|(.*)\|$", TEXT.split("## ")[0], re.M)
    head, _, *rows = ([cell.strip() for cell in line.split("|")] for line in lines)
    titles = {title: SETTINGS[scale].title for scale, title in page.SCALES.items()}
    headings = {page._anchor(heading): heading for heading in re.findall(r"^## (.*)$", TEXT, re.M)}
    anchor, checked = "", 0
    for link, says, _, *words in rows:
        anchor = re.findall(r"\(#(.*?)\)", link)[0] if link else anchor
        parts = dict(re.findall(r"^### (.*?)\n(.*?)(?=^### |\Z)", section(headings[anchor]), re.M | re.S))
        for column, word in zip(head[3:], words, strict=True):
            shown = parts.get(titles[column], "") if parts else section(headings[anchor])
            found = [
                verdict
                for said, verdict in re.findall(
                    r"^\| (.*?) \| [^|]* \| (holds|contradicted|undecided|not tested) \| ", shown, re.M
                )
                if said.endswith(says) and said.removesuffix(says)[-2:] in ("", ": ")
            ]
            counts = {word: found.count(word) for word in page.WORDS if word in found}
            many = ", ".join(f"{word} in {count} of {len(found)}" for word, count in counts.items())
            assert word == (found[0] if len(counts) == 1 else many), (says, column)
            checked += len(found)
    assert checked == len(
        re.findall(r" \| (?:holds|contradicted|undecided|not tested) \| .*(?:n = \d|no density)", TEXT)
    )


def test_a_second_scale_stands_beside_the_first(figures: dict[str, page.Figure]) -> None:
    """Made-up values of Figure 5 on CIFAR-10, where S4L is best by far."""
    sweep = load("fig5", page.CIFAR10, 3)
    rows = []
    for number, point in enumerate(sweep.points):
        row = dict.fromkeys(page.COLUMNS.names) | dict.fromkeys(page.VERSIONS, "1")
        row |= {"figure": "fig5", "scale": page.CIFAR10, "step": point.step.id, "metric": point.metric}
        row |= {name: getattr(point, name) for name in ("panel", "task", "init", "level", "seed")}
        row |= {"density": 0.64**point.level, "value": 50.0 + 30 * (point.task == "s4l") + number % 3}
        row |= {"collapsed_layers": 0, "device": "cpu", "date": date(2026, 1, 1), "rewind": point.step.rewind}
        rows.append(
            {name: _filled(field, row[name]) for name, field in zip(page.COLUMNS.names, page.COLUMNS, strict=True)}
        )
    small = page.Figure(sweep, page.CIFAR10, pa.Table.from_pylist(rows, schema=page.COLUMNS), None)
    text = page.text({"laptop": figures, page.CIFAR10: {"fig5": small}}, (DOCS / "results.md.jinja").read_text())
    rows_of = re.findall(r"^\| .*S4L's winning tickets are better than those found with no labels \| .*$", text, re.M)
    assert rows_of[0].split(" | ")[3:] == [figures["fig5"].words(rows_of[0].split(" | ")[1]), "holds |"]
    heading, command = "### CIFAR-10, 5,000 images, five convolutions", f"{small.command}\n"
    assert f"{heading}\n\n    {command}" in text
    assert command == "python -m raysslprune.sweep fig5 --scale benchmarks/cifar10-jpeg.toml --seeds 3\n"
    assert "images/fig5-cifar10-jpeg.png" in text
    assert "The margin is 2 points on digits and 2 points on CIFAR-10." in text
    assert text.count("### digits") == len(figures) - 1  # without the rewind study
    science = page.text({"laptop": figures, page.CIFAR10: {"fig5": small}}, (DOCS / "science.md.jinja").read_text())
    (said,) = re.findall(r"^- \*\*On both: holds\.\*\* (.*?)^(?=-)", science, re.M | re.S)
    assert "S4L's winning tickets are better than those found with no labels (fig5)" in " ".join(said.split())
    assert "(fig3)" not in science, "the other scale does not have it"


def test_a_narrower_margin_changes_the_verdicts_that_have_one(figures: dict[str, page.Figure]) -> None:
    fig3, own = figures["fig3"], SETTINGS["laptop"].margin
    assert fig3.changed_by(own) == []
    says = "Randomly re-initialised, masks pruned on RotNet match those pruned with labels"
    assert f"{says} (holds; then undecided)" in fig3.changed_by(0.1)
    margins = {one.claim.says for one in fig3.verdicts if one.claim.margin}
    assert {one.partition(" (")[0] for one in fig3.changed_by(0.1)} <= margins


def test_the_caption_in_the_readme_is_what_the_verdicts_say() -> None:
    caption = " ".join((DOCS.parent / "README.md").read_text().split("![")[1].split("Why another")[0].split())
    fig3 = page.shown(DOCS / "data", page.CIFAR10)["fig3"]
    assert fig3.file in caption
    assert ("six seeds" in caption, fig3.seeds) == (True, 6)
    assert f"within {SETTINGS[page.CIFAR10].margin:g} points" in caption
    verdicts = {one.claim.says: one for one in fig3.verdicts}
    for task in ("RotNet", "Exemplar"):
        match = verdicts[f"Randomly re-initialised, masks pruned on {task} match those pruned with labels"]
        assert match.verdict == claims.HOLDS
        assert f"down to {100 * min(match.densities):.0f}% of the weights" in caption
        below = verdicts[f"Winning tickets found on {task} are significantly below those found with labels"]
        assert below.verdict == claims.HOLDS
    for task in ("labels", "RotNet"):
        same = verdicts[f"Masks pruned on {task} are better than the same masks shuffled within each layer"]
        assert same.verdict == claims.UNDECIDED


def _filled(field: pa.Field, value: object) -> object:
    """A value that the column takes: 0 or empty where null is not allowed."""
    if value is not None or field.nullable:
        return value
    return "" if pa.types.is_string(field.type) else 0


def test_all_seeds_of_a_picture_are_in_its_table(figures: dict[str, page.Figure]) -> None:
    for name in ("fig6", "fig10"):
        figure = figures[name]
        assert figure.magnitudes is not None
        assert set(figure.magnitudes["seed"].to_pylist()) == set(figure.table["seed"].to_pylist())


def test_a_point_that_is_not_there_can_not_be_shown(figures: dict[str, page.Figure]) -> None:
    with pytest.raises(KeyError, match="fig3 has 0 points"):
        figures["fig3"].at("labels", "winning ticket", "12.3")


def test_a_table_of_an_earlier_design_is_filled_in_from_its_steps() -> None:
    """Figure 2 is the same in both designs: 7,200 samples of fine-tuning, and 14,400 before them for the reference."""
    table = page.read(DOCS / "data/laptop/fig2.parquet")
    assert table is not None
    sweep = load("fig2", "laptop", 1 + max(table["seed"].to_pylist()))
    older = table.set_column(
        table.schema.get_field_index("label_samples"), "label_samples", pa.nulls(len(table), pa.int64())
    )
    for found in (page._of_this_design(sweep, one) for one in (table, older)):
        seen = {(row["task"], row["init"]): row["label_samples"] for row in found.to_pylist()}
        assert seen.pop(("labels", "pruned in pre-training")) == 21_600
        assert set(seen.values()) == {7_200}
        assert found["design"].unique().to_pylist() == [results.DESIGN]
        assert found.select(["step", "value", "date"]).equals(table.select(["step", "value", "date"]))


def test_a_missing_a_damaged_and_an_old_table_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="has no table of criteria; to add it from a root, run: python -m benchmarks results --add ROOT"
    ):
        page.shown(tmp_path)
    path = tmp_path / "fig1.parquet"
    path.write_bytes((DOCS / "data/laptop/fig1.parquet").read_bytes()[:-9])
    shutil.copytree(DOCS / "data", tmp_path / "data")
    table = page.read(tmp_path / "data/laptop/fig1.parquet")
    assert table is not None
    other = table.set_column(
        table.schema.get_field_index("step"), table.schema.field("step"), [["0" * 16] * len(table)]
    )
    (tmp_path / "data/laptop/fig1.parquet").write_bytes(results.to_parquet(other))
    with pytest.raises(UserError, match="has other steps of fig1 than sweeps/"):
        page.shown(tmp_path / "data")
    with pytest.raises(UserError, match=r"can't read .*restore it with git checkout"):
        page.read(path)


def test_prose_is_filled_and_tables_are_left_alone() -> None:
    long = "- a mean of " + "x" * 100 + " 12.3 ± 0.4 points\n  and more\n- b"
    assert page._filled(long).splitlines() == ["- a mean of " + "x" * 100, "  12.3 ± 0.4 points and more", "- b"]
    for kept in ("| a | b |\n| --- | --- |", "    python -m x\n    y", "## A  b", "![a](b)"):
        assert page._filled(kept) == kept
