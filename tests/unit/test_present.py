"""Tables, figures and claims of what is done, written and printed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from raysslprune import execution, results, sweep_loader
from raysslprune.plan.graph import make_plan
from raysslprune.store.record import WEIGHTS
from raysslprune.store.steps import Store
from tests.helpers.cli import FAILED, GOOD, LISTING, Cli, commit, own, smoke, steps_of
from tests.helpers.results import write_of_earlier_design

ENDS = ("", "-runs", "-steps", "-claims")

# ------------------------------------------------------------------------------------- around the training


def test_views_are_made_again_from_the_store_alone(figure_3: Store, cli: Cli) -> None:
    folder = cli.folder / "runs" / "results" / "smoke"
    names = {"fig3.parquet", "fig3-runs.parquet", "fig3-steps.parquet", "fig3-claims.parquet", "fig3.png", "fig3.pdf"}
    seen = []
    for _ in range(2):
        called = cli("fig3", "--scale", "smoke")
        assert (called.code, called.err) == (0, "")
        assert {path.name for path in folder.iterdir()} == names
        assert all(str(folder / name) in called.out for name in names)
        assert "Claims of the paper" in called.out
        more = "python -m raysslprune.sweep fig3 --scale smoke --seeds 3"
        assert re.search(r"^undecided: \d+ claims \(too few seeds: a verdict needs 3\)$", called.out, re.MULTILINE)
        assert called.out.count("too few seeds") == called.out.count(f"\nto add seeds: {more}\n") == 1
        seen.append({path.name: path.read_bytes() for path in folder.iterdir()})
        for path in folder.iterdir():
            path.unlink()
    assert seen[0] == seen[1]


def test_results_of_more_seeds_are_not_replaced_without_a_word(cli: Cli) -> None:
    graph, store = smoke(3), Store(str(cli.folder / "runs"))
    store.create()
    commit(store, steps_of(graph), graph)
    assert cli("fig3", "--scale", "smoke", "--seeds", "3").err == ""
    sentence = "raysslprune: fig3: the results in runs have 3 seeds, this call has 1; to use all 3: "
    for more in (["--dry-run"], ["--explain", "0"], [], ["--seeds=2"]):
        command = "python -m raysslprune.sweep fig3 --scale smoke --seeds 3"
        expected = "" if more == ["--seeds=2"] else f"{sentence}{command}\n"
        assert cli("fig3", "--scale", "smoke", *more).err == expected, more
    assert pq.read_table(cli.folder / "runs/results/smoke/fig3.parquet")["seed"].unique().to_pylist() == [0, 1]


def test_two_files_of_one_name_do_not_replace_each_others_results_without_a_word(cli: Cli) -> None:
    """But a file may be changed, and a point of both is no other's."""
    (cli.folder / "other").mkdir()
    (cli.folder / "other" / "mine.py").write_text(GOOD.replace("seed=seed, start", "seed=seed + 7, start"))
    store = Store(str(cli.folder / "runs"))
    store.create()
    for name in (own := "mine.py", other := "other/mine.py"):
        (cli.folder / own).write_text(GOOD)
        graph = make_plan(sweep_loader.load(str(cli.folder / name), "smoke", 1).points)
        commit(store, steps_of(graph), graph)
    assert [cli(own, "--scale", "smoke").err for _ in range(2)] == ["", ""]
    for more in (["--dry-run"], []):
        called = cli(other, "--scale", "smoke", *more)
        assert called.code == 0
        assert "1 of 1 rows of" in called.err
        assert "results/smoke/mine.parquet belong to points that are not in this mine; if another file" in called.err
    assert cli(other, "--scale", "smoke").err == ""


def test_rows_of_an_earlier_design_are_left_out_with_a_word(figure_3: Store, cli: Cli) -> None:
    """Their tickets of RotNet and Exemplar are other steps; those of labels are the same."""
    path = figure_3.path("results/smoke/fig3.parquet")
    sentence = f"raysslprune: {write_of_earlier_design(figure_3, 'fig3', 'smoke', 1)} of 21 rows of {path} are of an"
    assert " 4 of 21 " in sentence
    for more in (["--dry-run"], ["--draw"], []):
        called = cli("fig3", "--scale", "smoke", *more)
        assert called.code == 0
        assert called.err.startswith(f"{sentence} earlier design, in which "), more
        assert called.err.endswith("; they are left out; run its sweep again to make them anew\n")
        assert "another file" not in called.err
    assert cli("fig3", "--scale", "smoke").err == ""
    assert pq.read_table(path)["design"].unique().to_pylist() == [2]


def test_an_old_table_with_the_same_steps_needs_no_word(cli: Cli) -> None:
    file = own(cli)
    graph, store = make_plan(sweep_loader.load(str(cli.folder / file), "smoke", 1).points), Store("runs")
    store.create()
    commit(store, steps_of(graph), graph)
    assert cli(file, "--scale", "smoke").err == ""
    path = "results/smoke/mine.parquet"
    old = results.from_parquet(store.read(path)).drop_columns(["label_samples", "design"])
    store.write(path, results.to_parquet(old))
    assert cli(file, "--scale", "smoke", "--dry-run").err == ""


def test_results_that_can_not_be_read_are_made_again(figure_3: Store, cli: Cli) -> None:
    path = cli.folder / "runs/results/smoke/fig3.parquet"
    path.parent.mkdir(parents=True)
    for data in (b"", b"PAR1 and nothing else PAR1", b"x" * 999):
        path.write_bytes(data)
        called = cli("fig3", "--scale", "smoke")
        assert (called.code, called.err) == (0, "")
        assert len(pq.read_table(path)) == 21


def test_table_1_needs_no_training_and_no_ray(tmp_path: Path) -> None:
    """3 epochs are 3 x 1,280,000 images, 2,500 updates of 1,536, and 3.3% of 90 epochs."""
    code = """
import sys
from raysslprune import sweep
code = sweep.main(["table1", "--scale", "paper"])
print(*sorted({"ray", "torch", "matplotlib", "sklearn", "optuna"} & set(sys.modules)), file=sys.stderr, end="")
sys.exit(code)
"""
    path = tmp_path / "runs" / "results" / "paper" / "table1.parquet"
    seen = []
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (run.returncode, run.stderr) == (0, "")
        lines = [re.split(r"\s{2,}", line.strip()) for line in run.stdout.splitlines()]
        assert ["network", "task", "epochs", "samples", "updates", "% of training"] in lines
        assert ["ImageNet, ResNet-50", "labels", "3", "3,840,000", "2,500", "3.33"] in lines
        assert ["ImageNet, ResNet-50", "labels:10%-of-images", "30", "3,840,000", "5,000", "15"] in lines
        assert run.stdout.splitlines()[-1] == str(path)
        assert [file.name for file in path.parent.iterdir()] == ["table1.parquet"]
        assert not (tmp_path / "runs" / "logs").exists()
        assert not any((tmp_path / "runs").glob("steps/*"))
        seen.append(path.read_bytes())
    assert seen[0] == seen[1]
    (row,) = [
        row
        for row in pq.read_table(path).to_pylist()
        if (row["network"], row["task"]) == ("ImageNet, ResNet-50", "labels")
    ]
    assert list(row) == ["network", "task", "epochs", "samples", "updates", "% of training"]
    assert (row["epochs"], row["samples"], row["updates"]) == (3, 3_840_000, 2_500)
    assert row["% of training"] == pytest.approx(100 * 3 / 90)


def test_a_listing_of_ones_own_is_printed_as_it_is(cli: Cli) -> None:
    text = "\ndef rows(scale):\n    yield '[bold] ' + scale, 1234.4\n    yield '[/x]', 7\n"
    (cli.folder / "mine.py").write_text(LISTING.replace("'b'", "'[red] b'") + text)
    called = cli("mine.py", "--scale", "smoke")
    assert (called.code, called.err) == (0, "")
    lines = [re.split(r"\s{2,}", line.strip()) for line in called.out.splitlines()]
    assert ["a", "[red] b"] in lines
    assert ["[bold] smoke", "1,234"] in lines
    assert ["[/x]", "7"] in lines


def test_words_in_brackets_are_printed_as_they_are(cli: Cli) -> None:
    """Rich would take them for markup."""
    claim = "Claim(says='Masks [bold] and [/x] match [1]', source='[a]', higher=CURVE, lower=CURVE, relation='above')"
    text = GOOD.replace("Mine", "Accuracy [top-1] [/]").replace("winning ticket", "ticket [/] [1]")
    text = text.replace('task="labels", init', 'task="[l]abels [/x]", init').replace(
        "level=0,", 'level=0, panel="[red] [/]",'
    )
    (cli.folder / "mine.py").write_text(f"{text}\nCLAIMS = ({claim},)\n")
    loaded = sweep_loader.load(str(cli.folder / "mine.py"), "smoke", 1)
    store, graph = Store(str(cli.folder / "runs")), make_plan(loaded.points)
    store.create()
    commit(store, steps_of(graph), graph)
    called = cli("mine.py", "--scale", "smoke")
    assert (called.code, called.err) == (0, "")
    assert "Claims of the paper" not in called.out, "they are one's own"
    assert "[l]abels [/x]" in called.out.partition("\nClaims\n")[0]
    for words in (
        "Accuracy [top-1] [/]",
        "[red] [/], ticket [/] [1], n = 1",
        "Masks [bold] and [/x] match [1]",
        "([a])",
    ):
        assert words in called.out


@pytest.mark.parametrize("broken", ["draw", "save"])
def test_a_figure_that_cannot_be_drawn_costs_nothing_else(
    broken: str, figure_3: Store, cli: Cli, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is raised. Table and claims are there before anything is drawn, so that not even a crash costs them."""
    from raysslprune.figures import curves, ink

    folder, before = cli.folder / "runs" / "results" / "smoke", list[str]()

    def fail(*_: Any, **__: Any) -> None:
        before.append(capsys.readouterr().out)
        assert {path.name for path in folder.iterdir()} == {f"fig3{end}.parquet" for end in ENDS}
        raise RuntimeError("latex could not\nbe found")

    monkeypatch.setattr({"draw": curves, "save": ink}[broken], broken, fail)
    called = cli("fig3", "table1", "--scale", "smoke")
    assert called.code == FAILED
    (shown,) = before
    assert "Re-training pruned masks" in shown
    assert "Claims of the paper" in shown
    assert str(folder / "fig3.parquet") in called.out
    assert "fig3.png" not in called.out
    assert "table1.parquet" in called.out, "what comes after it is there, too"
    (line,) = called.err.splitlines()
    said = "raysslprune: the figure of fig3 could not be drawn (all other results are complete): "
    said += "RuntimeError: latex could not be found"
    assert line.startswith(f"{said}; details in ")
    log = Path(line.rpartition(" ")[2])
    assert "Traceback" in log.read_text()
    log.unlink()


def test_failed_steps_are_counted_and_the_rest_is_shown(
    figure_3: Store, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = list(smoke().jobs.values())[-1]
    (cli.folder / "runs" / "steps" / lost.id / WEIGHTS).write_bytes(b"broken")
    monkeypatch.setattr(execution.Execution, "train", lambda *_: 2)
    called = cli("fig3", "--scale", "smoke")
    assert called.code == FAILED
    first, second = called.err.splitlines()
    assert first.startswith(f"raysslprune: step {lost.id}: ")
    assert "; moved to " in first
    assert "; it will be made again" in first
    assert second.startswith("raysslprune: steps that failed or were skipped: 2")
    assert (cli.folder / "runs" / "results" / "smoke" / "fig3.png").is_file()
    assert len(list((cli.folder / "runs" / "damaged").iterdir())) == 1


# ------------------------------------------------------------------------------------- progress


def test_a_metric_that_a_task_of_ones_own_does_not_have_costs_no_other_row(cli: Cli) -> None:
    text = (cli.folder / own(cli, metric="top5")).read_text().replace('task="labels"', 'task="theirs:Jigsaw"')
    more = text.splitlines()[-1].replace('"top5"', '"top1"').replace("level=0", "level=1")
    (cli.folder / "mine.py").write_text(f"{text}\n{more}\n")
    loaded = sweep_loader.load(str(cli.folder / "mine.py"), "smoke", 1)
    store, graph = Store(str(cli.folder / "runs")), make_plan(loaded.points)
    store.create()
    commit(store, steps_of(graph), graph)
    called = cli("mine.py", "--scale", "smoke")
    assert called.code == FAILED
    assert "theirs:Jigsaw have no metric 'top5', only " in called.err
    assert "top1; these points are left out of the table" in called.err
    assert [row["level"] for row in results.load("mine", str(cli.folder / "runs"), "smoke").to_pylist()] == [1]
    assert "level 1" in cli("mine.py", "--scale", "smoke", "--explain", "0").out, "rows are those of the table"
