"""What stands in a report. Nothing is trained here."""

from __future__ import annotations

import base64
import json
import re
import shlex
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from raysslprune import results, sweep
from raysslprune.commands import report as command
from raysslprune.figures import curves, ink
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.only import PART
from raysslprune.report import contents
from raysslprune.results import claims
from raysslprune.spec import Prune
from raysslprune.store.record import WEIGHTS, Damaged
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load
from tests.helpers.reports import DAY, EVIL, MEANS, QUOTES, SPARSITIES, Document, Roots, finish, report, rows_of
from tests.helpers.results import write_of_earlier_design
from tests.helpers.tables import FIGURE, LEVELS, bimodal, density, figure_3, table

# ------------------------------------------------------------------------------------- what stands on it


def test_means_are_those_of_the_values(reported: Roots, report_page: Path) -> None:
    values: dict[tuple[str, str, str], list[float]] = {}
    for row in rows_of(reported.root):
        pruned = f"{100 - 100 * row['density']:.1f}" if row["level"] else "dense"
        values.setdefault((row["task"], row["init"], pruned), []).append(row["value"])
    shown = {
        (row["task"], row["init"], row["% pruned"]): (row["mean ± s.e."], row["n"])
        for row in Document(report_page.read_text()).table("smoke-fig3", MEANS)
    }
    assert shown == {
        key: (f"{statistics.fmean(some):.1f} ± {statistics.stdev(some) / 3**0.5:.1f}", "3")
        for key, some in values.items()
    }


def test_medians_and_collapsed_seeds_have_columns_if_there_are_any() -> None:
    some = bimodal()
    shown = contents._means(results.summary(table(some)).to_pylist(), None)
    rows = [dict(zip(shown.columns, (cell.text for cell in row.cells), strict=True)) for row in shown.rows]
    names = ("task", "% pruned", "median", "n", "layers emptied", "seeds collapsed")
    expected = []
    for task in ("labels", "random"):
        for level in LEVELS:
            mine = [row for row in some if (row["task"], row["level"]) == (task, level)]
            median = f"{statistics.median(row['value'] for row in mine):.1f}"
            lost = {("random", 10): ("2", "1"), ("random", 14): ("2", "3")}.get((task, level), ("0", "0"))
            expected.append((task, results.pruned_percent(density(level)), median, "3", *lost))
    assert [tuple(row[name] for name in names) for row in rows] == expected
    whole = contents._means(results.summary(table(row for row in some if row["task"] == "labels")).to_pylist(), None)
    assert not {"median", "layers emptied", "seeds collapsed"} & {*whole.columns}
    lost = contents._means(results.summary(table(row for row in some if row["level"] == 14)).to_pylist(), None)
    assert "seeds collapsed" in lost.columns
    assert "median" not in lost.columns, "no row has seeds of both kinds"


def test_each_point_leads_to_its_step(reported: Roots, report_page: Path) -> None:
    document = Document(report_page.read_text())
    points = document.table("smoke-fig3", "points")
    steps = {row["folder in the root"].split("/")[1]: row for row in document.table("steps", "steps")}
    wanted = rows_of(reported.root)
    assert len(points) == len(wanted)
    for number, (point, row) in enumerate(zip(points, wanted, strict=True)):
        facts = json.loads((reported.root / "steps" / row["step"] / "SUCCESS").read_text())["facts"]
        assert point == {
            "row": str(number),
            "task": row["task"],
            "init": row["init"],
            "% pruned": f"{100 - 100 * row['density']:.1f}" if row["level"] else "dense",
            "seed": str(row["seed"]),
            "value": f"{row['value']:.6g}",
            "seconds": f"{facts['seconds']:.3g}",
            "step": row["step"][:8],
        }
        assert f"top1 {row['value']:.4g}" in steps[row["step"]]["metrics"]
        assert steps[row["step"]]["seconds"] == point["seconds"]
        assert steps[row["step"]]["begun (UTC)"].startswith(DAY)
        assert steps[row["step"]]["for"] == "fig3" + (" odd & <odd>" if row["level"] == 0 else "")


def test_each_step_says_what_it_is_made_from(reported: Roots, report_page: Path) -> None:
    steps = {row["folder in the root"]: row for row in Document(report_page.read_text()).table("steps", "steps")}
    chain = [point.step for point in load("fig3", "smoke", 3).points if point.task == "rotnet"]
    ticket = next(step for step in chain if step.mask is not None and type(step.start).__name__ == "Rewind")
    assert isinstance(ticket.mask, Prune)
    what = steps[f"steps/{ticket.id}/"]["what it is"]
    dense = ticket.start.of  # pyright: ignore[reportAttributeAccessIssue]
    begins = rf"from {dense.id[:8]} at \d+, the recipe from 0 on, under mask {ticket.mask.id[:8]}"
    assert re.fullmatch(rf"train labels R\d+, seed 0, {begins}", what)
    assert steps[f"steps/{ticket.mask.id}/"]["what it is"] == f"prune {ticket.mask.of.id[:8]}: 40% of all stay"


def test_the_command_of_a_figure_explains_each_of_its_rows(
    reported: Roots, report_page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the page's scale, seeds and root; without its seeds, it would not know a step of the last one."""
    text = Document(report_page.read_text()).text
    commands = [shlex.split(line) for line in re.findall(r"python -m raysslprune\.sweep .* --explain ROW", text)]
    assert [words[3] for words in commands] == ["fig3", str(reported.odd)]
    step = next(point.step for point in load("fig3", "smoke", 3).points if point.seed == 2 and point.level == 3)
    capsys.readouterr()
    assert sweep.main([*commands[0][3:-1], step.id]) == 0
    assert f"step {step.id}" in capsys.readouterr().out
    root = ["--root", str(reported.root)]
    assert commands[0][3:] == ["fig3", "--scale", "smoke", "--seeds", "3", *root, "--explain", "ROW"]


def test_verdicts_near_chance_are_warned_of(reported: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "is_near", lambda value, chance: False)
    assert "near chance" not in Document(report(reported.root, tmp_path / "before.html", "fig3")).text
    monkeypatch.setattr(claims, "is_near", lambda value, chance: True)
    after = Document(report(reported.root, tmp_path / "after.html", "fig3")).text
    said = (
        r"the dense network \(labels winning ticket\) is near chance: [\d.]+%, where guessing gives 10.0%; 14 verdicts"
    )
    assert re.search(said, after)


def test_claims_are_those_that_the_sweep_printed(reported: Roots, report_page: Path) -> None:
    text = " ".join(Document(report_page.read_text()).text.split())
    printed = re.split(r"^(?=holds: |contradicted: |undecided: )", reported.printed, flags=re.MULTILINE)[1:]
    assert len(printed) > 10
    for claim in printed:
        alone = re.split("to add seeds|careful|\n\n", claim)[0]
        verdict, _, says = " ".join(alone.split()).partition(": ")
        assert f"{verdict} {says}" in text


def test_rows_of_an_earlier_design_are_left_out_with_a_word(reported: Roots, tmp_path: Path) -> None:
    shutil.copytree(reported.root, root := tmp_path / "runs")
    before = Document(report(root, tmp_path / "before.html", "fig3"))
    assert "earlier design" not in before.text
    gone = write_of_earlier_design(Store(str(root)), "fig3", "smoke", 3)
    after = Document(report(root, tmp_path / "after.html", "fig3"))
    assert f"{gone} of 63 rows of results/smoke/fig3.parquet are of an earlier design, in which tickets" in after.text
    assert after.table("smoke-fig3", "points") == before.table("smoke-fig3", "points")


def test_provenance_and_cost(reported: Roots, report_page: Path) -> None:
    facts = [json.loads(path.read_text())["facts"] for path in (reported.root / "steps").glob("*/SUCCESS")]
    trainings = [one for one in facts if "seconds" in one]
    (row,) = (row for row in Document(report_page.read_text()).table("", "on this page") if row["figure"] == "fig3")
    of_odd_alone = 3
    assert (row["seeds"], row["points"]) == ("3", str(len(rows_of(reported.root))))
    assert row["trainings"] == str(len(trainings) - of_odd_alone)
    text = " ".join(Document(report_page.read_text()).text.split())
    seconds = sum(one["seconds"] for one in trainings)
    assert f"Trainings {len(trainings)} Training time {seconds // 3600:.0f}:{seconds % 3600 // 60:02.0f} h" in text
    assert "Where <b>box</b> (cpu) Versions raysslprune 0.1.0, torch 2.11.0, numpy 2.0.0, python 3.11.7" in text
    assert f"Trained {DAY} 08:26 to" in text
    assert "Speed 1,000 images/s per training" in text
    assert f"Trainings {len(trainings) - of_odd_alone}, 3 of them shared with other figures" in text
    assert "Trainings 6, 3 of them shared with other figures" in text


def test_links_lead_somewhere_and_nothing_is_loaded(report_page: Path) -> None:
    attributes = Document(report_page.read_text()).attributes
    ids = attributes["id"]
    assert len(set(ids)) == len(ids)
    links = [link for link in attributes["href"] if link != "data:,"]
    links += re.findall(r"url\((#[^)]+)\)", report_page.read_text())
    assert len(links) > 100
    assert {link.removeprefix("#") for link in links} <= {*ids}
    assert all(link.startswith("#") for link in links)
    assert "src" not in attributes
    assert not re.search(r"url\((?!#)|@import|style=|xlink", report_page.read_text())


def test_a_name_that_is_html_is_shown_as_it_is(reported: Roots, report_page: Path) -> None:
    source = report_page.read_text()
    assert source.count("<script") == source.count("</script") == 1
    assert "<img src=x" not in source
    document = Document(source)
    section = "smoke-odd%20%26%20%3Codd%3E"
    rows = document.table(section, MEANS)
    assert [(row["task"]) for row in rows] == [EVIL, "plain"]
    assert f"{EVIL} ({QUOTES})" in document.text  # the claim, and its source
    assert {row["for"] for row in document.table("steps", "steps")} == {"fig3", "odd & <odd>", "fig3 odd & <odd>"}
    assert f"{EVIL}: Top-1 accuracy (%) over remaining weights" in "\n".join(document.attributes["aria-label"])
    assert QUOTES in "\n".join(document.attributes["aria-label"])


def test_a_figure_is_in_the_page_as_svg(report_page: Path) -> None:
    """Twice: for a wide screen, and for a phone."""
    found = re.findall(r'<div class="(\w+)"><svg [^>]*aria-label="([^"]+)"', report_page.read_text())
    assert [kind for kind, _ in found] == ["wide", "narrow"] * 2
    for _, alt in found[:2]:
        assert alt.startswith(
            "Re-training pruned masks on labels: Top-1 accuracy (%) over remaining weights. Curves: labels"
        )


def test_a_title_stands_once(reported: Roots) -> None:
    """Above the figure and not in it: beside the outlines of a text Matplotlib writes the text as a comment."""
    assert b"<!-- Made up -->" in ink.save(curves.draw(FIGURE, table(figure_3())), "svg")
    store = Store(str(reported.root))
    (section,) = contents.gather(contents.find(["fig3"], None, store, print), store, print).sections
    for _, picture in section.pictures:
        assert b"<!-- Random re-init -->" in picture
        assert section.title.encode() not in picture


def test_points_of_a_figure_have_their_value_n_seeds_and_steps(reported: Roots, report_page: Path) -> None:
    """Each point once in each form, and where a curve is drawn in both axes, twice."""
    titles = re.findall(r"<title>([^<]+)</title>", report_page.read_text().partition('id="smoke-fig3"')[2])
    told = {tuple(title.split("\n")) for title in titles}
    values: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
    for row in rows_of(reported.root):
        values.setdefault((row["task"], row["init"], row["level"]), []).append(row)
    for (_, _, level), rows in values.items():
        some = [row["value"] for row in rows]
        error = statistics.stdev(some) / 3**0.5
        seeds = [f"seed {row['seed']}: {row['value']:.2f}, step {row['step']}" for row in rows]
        (where,) = {
            where for where, *rest in told if rest == [f"{statistics.fmean(some):.1f} ± {error:.1f} (n=3)", *seeds]
        }
        left = "dense" if level == 0 else f"{100 * rows[0]['density']:.3g}% of the weights left"
        assert where.endswith(left)


def test_a_figure_of_very_many_points_is_of_pixels(
    reported: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "VECTORS", len(rows_of(reported.root)) - 1)
    wide, narrow = Document(report(reported.root, tmp_path / "report.html", "fig3")).attributes["src"]
    for source in (wide, narrow):
        kind, _, picture = source.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(picture).startswith(b"\x89PNG")


def test_a_table_that_needs_no_training(report_page: Path) -> None:
    rows = Document(report_page.read_text()).table("smoke-table1", "Rewind")
    assert [*rows[0]] == ["network", "task", "epochs", "samples", "updates", "% of training"]
    assert rows[0]["task"] == "labels"


def test_the_same_root_gives_the_same_page(reported: Roots, report_page: Path, tmp_path: Path) -> None:
    again = report(reported.root, tmp_path / "again.html", "fig3", "table1", str(reported.odd))
    assert again == report_page.read_text()


def test_a_search_with_networks_beside_it_that_are_not_rewound(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(sweep.__file__).parent.parent / "sweeps/rewind.py").read_text()
    mine = tmp_path / "mine.py"
    mine.write_text(
        f"{text}\n\n_rewound = points\n\n\ndef points(scale, seed):\n    yield from _rewound(scale, seed)\n"
        "    chain = SETTINGS[scale].imp('labels', seed=seed, levels=1, keep=0.5)\n"
        "    yield Point(step=chain.dense, task='labels', init='dense', level=0, seed=seed)\n"
    )
    finish([str(mine)], tmp_path / "runs", seeds=1)
    assert sweep.main([str(mine), "--scale", "smoke", "--seeds", "1", "--root", str(tmp_path / "runs")]) == 0
    shown, _, found = capsys.readouterr().out.partition("What was chosen")
    assert re.search(r"^ +no +\d", shown, re.MULTILINE)
    assert re.search(r"^labels +\d", found, re.MULTILINE)
    assert not re.search(r"^labels +0\.0 ", found, re.MULTILINE)
    assert "mine" in report(tmp_path / "runs", tmp_path / "report.html", str(mine))


def test_magnitudes_and_a_search(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "runs"
    finish(["fig6", "rewind"], root, seeds=2)
    assert sweep.main(["rewind", "--scale", "smoke", "--seeds", "2", "--root", str(root)]) == 0
    found = capsys.readouterr().out.partition("What was chosen")[2]
    document = Document(report(root, tmp_path / "report.html"))
    rows = document.table("smoke-rewind", MEANS)
    studies = {(row["task"], row["% pruned"]) for row in rows}
    assert len(studies) > 1
    for task, pruned in studies:
        search = [row["search"] for row in rows if (row["task"], row["% pruned"]) == (task, pruned)]
        assert (search.count("finalist"), search.count("fell behind")) == (6, 6)
        assert re.search(rf"^{task} +{pruned} +6 ", found, re.MULTILINE)
    assert "are not in the root" not in document.text
    assert len(document.attributes["viewbox"]) == 2 * 2
    assert {row["metric"] for row in document.table("smoke-fig6", MEANS)} == SPARSITIES
    assert "magnitudes over the rank of the weight" in "\n".join(document.attributes["aria-label"])
    damaged = load("fig6", "smoke", 1).points[0].step.id
    (root / "steps" / damaged / WEIGHTS).unlink()
    document = Document(report(root, tmp_path / "report.html"))
    assert f"step {damaged}: {WEIGHTS} is missing" in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["draw", "save"])
def test_without_a_figure_the_page_has_all_else(
    broken: str,
    reported: Roots,
    report_page: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr({"draw": curves, "save": ink}[broken], broken, fail)
    out = tmp_path / "report.html"
    assert command.main(["fig3", "table1", str(reported.odd), "--root", str(reported.root), "--out", str(out)]) == 1
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert [line.partition(": RuntimeError: no font; details in ")[0] for line in said.err.splitlines()] == [
        f"raysslprune: the figure of {name} could not be drawn (all other results are complete)"
        for name in ("fig3", reported.odd.stem)
    ]
    without, whole = Document(out.read_text("utf-8")), Document(report_page.read_text("utf-8"))
    assert not {"src", "viewbox"} & {*without.attributes}
    assert without.text.count("The figure could not be drawn when this page was made.") == 2
    assert without.table("smoke-fig3", MEANS) == whole.table("smoke-fig3", MEANS)
    assert without.attributes["id"] == [name for name in whole.attributes["id"] if not re.match(r"f\d[wn]-", name)]


def test_weights_that_are_damaged_meanwhile_cost_a_figure_of_magnitudes_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise Damaged("abc", "weights are gone")

    root, out = tmp_path / "runs", tmp_path / "report.html"
    finish(["fig6"], root, seeds=1)
    monkeypatch.setattr(results, "magnitudes", fail)
    assert command.main(["fig6", "--root", str(root), "--out", str(out)]) == 1
    sentence = "raysslprune: step abc: weights are gone; run its sweep again to rebuild it\n"
    assert capsys.readouterr().err == sentence
    document = Document(out.read_text("utf-8"))
    assert {row["metric"] for row in document.table("smoke-fig6", MEANS)} == SPARSITIES
    assert "The figure could not be drawn" in document.text


# ------------------------------------------------------------------------------------- what is not there


def test_what_is_missing_is_said_and_not_made_up(damaged_root: Path, tmp_path: Path) -> None:
    gone = [row for row in rows_of(damaged_root) if row["task"] == "random"]
    for row in gone:
        shutil.rmtree(damaged_root / "steps" / row["step"])
    document = Document(report(damaged_root, tmp_path / "report.html", "fig3"))
    points = document.table("smoke-fig3", "points")
    assert len(points) == len(rows_of(damaged_root)) - len(gone)
    assert "random" not in {row["task"] for row in points}
    assert f"{len(gone)} of its {len(rows_of(damaged_root))} points are not in the root." in " ".join(
        document.text.split()
    )
    (row,) = document.table("", "on this page")
    assert row["missing"] == str(len(gone))


def test_what_is_damaged_is_left_out(damaged_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    step = next(row["step"] for row in rows_of(damaged_root) if row["task"] == "random")
    (damaged_root / "steps" / step / "SUCCESS").write_text("{}")
    document = Document(report(damaged_root, tmp_path / "report.html", "fig3"))
    said = (
        f"raysslprune: step {step}: its SUCCESS is incomplete or damaged; left out; run its sweep again to rebuild it\n"
    )
    assert capsys.readouterr().err == said
    assert step[:8] not in {row["step"] for row in document.table("smoke-fig3", "points")}


def test_an_empty_store_gives_no_table(damaged_root: Path, tmp_path: Path) -> None:
    shutil.rmtree(damaged_root / "steps")
    document = Document(report(damaged_root, tmp_path / "report.html", "fig3"))
    assert [caption for _, caption in document.tables] == ["What is on this page"]
    assert "src" not in document.attributes


def test_a_long_table_is_cut_and_says_so(reported: Roots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "ROWS", 7)
    monkeypatch.setattr(contents, "STEPS", 5)
    document = Document(report(reported.root, tmp_path / "report.html", "fig3"))
    of = len(rows_of(reported.root))
    assert len(document.table("smoke-fig3", f"{of} points")) == 7
    assert len(document.table("smoke-fig3", MEANS)) == 7
    assert f"The first 7 of {of} rows of results/smoke/fig3.parquet." in document.text
    shown = {f"steps/{row['step']}/" for row in rows_of(reported.root)[:7]}
    assert {row["folder in the root"] for row in document.table("steps", "steps")} == shown
    links = {link.removeprefix("#") for link in document.attributes["href"] if link.startswith("#")}
    assert links <= {*document.attributes["id"]}


def test_other_scales_and_parts_of_sweeps_are_named(tmp_path: Path) -> None:
    """Without their files or expressions a report can't load them."""
    part = f"fig3{PART}a-1"
    paths = [("laptop", name) for name in ("fig3", "fig3-runs", part)] + [("pets", "fig3"), ("pets", "fig3-claims")]
    assert contents._aside(paths, list(SETTINGS)) == "fig3-only-a-1 (laptop), fig3 (pets)"
    assert contents._aside(paths, ["pets"]) == "fig3-only-a-1 (laptop)"
