"""Sweeps at a scale of one's own, with chosen seeds, values and points: by the command and as an Experiment."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest

from raysslprune import sweep
from raysslprune.experiment import Experiment
from raysslprune.messages import seeds_in_words, sweep_command
from raysslprune.paper import scalefile
from raysslprune.paper.scales import SETTINGS, given
from raysslprune.results import sql
from raysslprune.sweep_loader import NotAtThisScale, SweepError, known, load
from raysslprune.terminal.status import Reporter, Seen, lines
from tests.helpers.chains import execute
from tests.helpers.cli import FAILED, USAGE, Cli
from tests.helpers.layouts import pictures, put, table
from tests.helpers.tickets import CLAIMS, FIGURE, points, step_of

PETS = 'base = "smoke"\ndata = "parquet/x"\nimages = {}\n'


@pytest.fixture
def pets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with pets.toml and its data, six images for training."""
    (tmp_path / "data").mkdir()
    put(tmp_path / "data", table(pictures(*(8,) * 6), [0, 1, 0, 1, 0, 1]), table(pictures(8, 8), [0, 1]))
    (tmp_path / "pets.toml").write_text(PETS.format(6))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYSSLPRUNE_DATA", raising=False)
    return tmp_path


# ------------------------------------------------------------------------------------- the data


def too_short(*tasks: str) -> str:
    """The note on the recipes of six images."""
    short = "; ".join(f"{task}: 1 update (6 samples, batches of 64)" for task in tasks)
    return f"raysslprune: {short}: too few to learn anything; set *.samples or *.batch\n"


def test_images_are_compared_with_the_data_before_anything_trains(pets: Path, cli: Cli) -> None:
    assert cli("fig3", "--scale", "pets.toml", "--dry-run").err == too_short("exemplar", "labels", "rotnet")
    Path("pets.toml").write_text(PETS.format(7))
    sentence = (
        f"parquet/x in {pets}/data has 6 training images, and pets.toml says images = 7; correct one of the two, "
        "because all lengths depend on them"
    )
    assert cli.refused("fig3", "--scale", "pets.toml", code=FAILED) == f"raysslprune: {sentence}\n"
    planned = cli("fig3", "--scale", "pets.toml", "--dry-run")
    assert planned.code == 0
    assert sentence.replace(" ", "") in "".join(planned.out.split())


def test_a_wrong_number_of_images_is_blamed_on_who_says_it(cli: Cli, pets: Path) -> None:
    Path("pets.toml").write_text(PETS.format(6))
    sentence = "has 6 training images, and --set says images = 4000; correct one of the two"
    assert sentence in cli.refused("fig3", "--scale", "pets.toml", "--set", "images=4000", code=FAILED)


def test_a_training_of_few_updates_is_said_to_learn_nothing(cli: Cli) -> None:
    """Of recipes that are used, at scales of the user's own."""
    changes = ("--set", "*.samples=640 samples", "--set", "rewind=320 samples", "--set", "labels.batch=40")
    only = ("--only", "task in ('labels', 'rotnet')", "--dry-run")
    *_, line = cli("fig3", *changes, *only).err.splitlines()
    assert line == (
        "raysslprune: labels: 16 updates (640 samples, batches of 40); rotnet: 10 updates (640 samples, batches of "
        "64): too few to learn anything; set *.samples or *.batch"
    )
    enough = ("--set", "*.samples=1961 samples", "--set", "*.batch=40", "--set", "rewind=320 samples")
    assert "too few" not in cli("fig3", *enough, *only).err  # 50 updates, the last of which is of 1 sample
    fewer = ("--set", "*.samples=1960 samples", *enough[2:])
    assert "rotnet: 49 updates (1,960 samples, batches of 40): too few" in cli("fig3", *fewer, *only).err
    assert "too few" not in cli("fig3", "--scale", "smoke", "--dry-run").err


def test_figures_without_training_need_no_data(cli: Cli) -> None:
    Path("pets.toml").write_text(PETS.format(7))
    assert cli("table1", "--scale", "pets.toml").code == 0
    assert (cli.folder / "runs/results/pets/table1.parquet").exists()


def test_a_figure_that_can_not_be_made_says_why(cli: Cli) -> None:
    Path("own.toml").write_text('base = "smoke"\nkeep = 0.05\n[nets]\nalexnet = false\n[recipes]\nnpid = false\n')
    why = cli.refused("fig3", "fig9", "--scale", "own.toml")
    assert why == "raysslprune: fig9 can't be made at scale own: unknown name 'alexnet'; known: resnet\n"
    why = cli.refused("fig1", "--scale", "own.toml")
    assert why == (
        "raysslprune: fig1 can't be made at scale own: NPID is pruned down to 10% of the weights only, and each level "
        "of the scale leaves fewer\n"
    )
    Path("short.toml").write_text('base = "smoke"\nrewind = "2 epochs"\n')
    why = cli.refused("fig3", "--scale", "short.toml")
    assert why == (
        "raysslprune: fig3 can't be made at scale short: can't rewind to 2400 samples of a training from 0 to 1200; "
        'shorten the rewind too: --set "rewind=600 samples"\n'
    )
    short = ("fig3", "--set", "*.samples=640 samples")
    assert cli.refused(*short).endswith('; shorten the rewind too: --set "rewind=320 samples"\n')
    assert cli(*short, "--set", "rewind=320 samples", "--dry-run").code == 0
    called = cli("all", "--scale", "own.toml", "--dry-run")
    assert called.code == 0
    left_out = [line for line in called.err.splitlines() if line.endswith("; it is left out")]
    assert [line.split()[1] for line in left_out] == ["fig1", "fig9"]


def test_figures_without_few_labels_or_a_single_convolution(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    none = "".join(f'"{task}:{part}" = false\n' for task in ("labels", "s4l") for part in SETTINGS["smoke"].labelled)
    path.write_text(f'base = "smoke"\n[recipes]\n{none}')
    for figure, why in (
        ("fig5", "it needs recipes of labels and of s4l with few labels"),
        ("fig7", "unknown name 'labels:10%-of-images'; known: labels, rotnet, exemplar, npid"),
    ):
        with pytest.raises(NotAtThisScale) as raised:
            Experiment.load(figure, scale=path, root=tmp_path / "runs")
        assert str(raised.value).startswith(f"{figure} can't be made at scale own: {why}")


def test_a_sweep_file_of_ones_own_is_at_the_scale_too(pets: Path) -> None:
    made = Experiment.of(points, FIGURE, name="tickets", claims=CLAIMS, scale="pets.toml", root=pets / "runs")
    assert {point.step.data for point in made.sweep.points} == {"parquet/x"}
    assert made.scale == "pets"
    assert repr(made).startswith("<tickets at scale pets, ")


def test_results_are_in_a_folder_of_the_files_name(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Experiment.of(points, FIGURE, name="tickets", scale="pets.toml", seeds=[2, 5], root=pets / "runs")
    execute(step_of(made.sweep.points), pets / "runs")
    made.run()
    assert (pets / "runs/results/pets/tickets.parquet").exists()
    rows = made.table().to_pylist()
    assert {(row["scale"], row["seed"], row["data"]) for row in rows} == {
        ("pets", 2, "parquet/x"),
        ("pets", 5, "parquet/x"),
    }
    assert sql.load("tickets", pets / "runs", "pets").num_rows == len(rows)
    record = made.store.record(rows[0]["step"])
    assert record is not None
    assert record.facts["images"] == 6
    capsys.readouterr()
    fewer = Experiment.of(points, FIGURE, name="tickets", scale="pets.toml", seeds=[2], root=pets / "runs")
    fewer.plan()
    assert capsys.readouterr().err == (
        f"raysslprune: tickets: the results in {pets / 'runs'} have the seeds [2, 5], this call has [2]; to use all: "
        f"seeds=[2, 5]\n{too_short('labels', 'rotnet')}"
    )


# ------------------------------------------------------------------------------------- values, points


def test_a_value_and_a_choice_have_names_of_their_own(cli: Cli) -> None:
    called = cli("fig3", "--scale", "smoke", "--set", "labels.lr=0.2", "--only", "level == 1", "--dry-run")
    assert called.code == 0
    assert called.err.startswith("raysslprune: fig3: 10 of 21 points, as fig3-only-level-eq-1-")
    made = Experiment.load("fig3", scale="smoke", set={"labels.lr": 0.2}, only="level == 1", root=cli.folder / "runs")
    assert (made.scale, made.sweep.name[:21]) == ("smoke-set-labels.lr=0.2", "fig3-only-level-eq-1-")
    lr = {point.step.recipe.lr for point in made.sweep.points}  # pyright: ignore[reportAttributeAccessIssue]
    assert lr == {0.2}
    assert "--set labels.lrr=1: there is no key lrr; did you mean lr?" in cli.refused("fig3", "--set", "labels.lrr=1")
    assert "there is no column tsk before training" in cli.refused("fig3", "--only", "tsk == 'labels'")


def test_of_all_sweeps_those_without_such_points_are_left_out(cli: Cli) -> None:
    called = cli("all", "--scale", "smoke", "--only", "task == 's4l'", "--dry-run")
    assert called.code == 0
    left = {line.split()[1] for line in called.err.splitlines() if line.endswith("it is left out")}
    assert left == {*known()} - {"fig5"}
    assert "no sweep of the package can be made" in cli("all", "--only", "level > 999", "--dry-run").err


# ------------------------------------------------------------------------------------- seeds


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("3", {0, 1, 2}), ("0,3,5-9", {0, 3, 5, 6, 7, 8, 9}), ("4-4", {4}), ("5,1", {1, 5}), ("0-2,1", {0, 1, 2})],
)
def test_seeds_are_a_number_or_named(text: str, seeds: set[int], cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Experiment] = []
    monkeypatch.setattr(Experiment, "plan", lambda one, **_: loaded.append(one))
    assert cli("fig3", "--scale", "smoke", "--seeds", text, "--dry-run").code == 0
    assert {point.seed for point in loaded[0].sweep.points} == seeds
    assert {point.step.seed for point in loaded[0].sweep.points} == seeds


@pytest.mark.parametrize("text", ["0", "0,", ",1", "3-1", "1--2", "0, 1", "a-b", "0-1000", "1,1001-2001"])
def test_wrong_seeds_are_refused(text: str, cli: Cli) -> None:
    sentence = cli.refused("fig3", "--seeds", text, "--dry-run")
    assert sentence.endswith("for seed 0 alone: 0-0; see --help\n") == (text == "0")
    assert "is neither a whole number from 1 to 1000 nor seeds such as 0,3,5-9" in sentence


@pytest.mark.parametrize("seeds", [[], [1, 1], [-1], [0, "1"], [True], [0.5]])
def test_wrong_seeds_in_a_notebook_are_refused(seeds: Any, tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="seeds must be different whole numbers from 0, not"):
        Experiment.load("fig3", scale="smoke", seeds=seeds, root=tmp_path / "runs")


def test_named_seeds_can_not_be_added_until_decided(cli: Cli) -> None:
    assert "can't be combined with until-decided" in cli.refused("fig3", "--seeds", "0,3", "--until-decided")


@pytest.mark.parametrize(
    ("seeds", "words"),
    [(3, "3"), ([0, 1, 2], "3"), ([0, 3, 5, 6, 7], "0,3,5-7"), ([4], "4-4"), ([9, 2, 1], "1-2,9"), ([0], "1")],
)
def test_seeds_are_written_as_they_are_read(seeds: int | list[int], words: str) -> None:
    from raysslprune.commands.common import seeds as parse

    assert seeds_in_words(seeds) == words
    read = parse(words)
    assert [*(range(read) if isinstance(read, int) else read)] == [
        *(range(seeds) if isinstance(seeds, int) else sorted(seeds))
    ]


def test_a_command_names_the_file_the_values_and_the_seeds(pets: Path) -> None:
    made = Experiment.load("fig3", scale="pets.toml", set=["*.samples=2 epochs"], seeds=[1, 2], root=pets / "runs")
    assert sweep_command("fig3", given(made.scale), "r", [1, 2]) == (
        "python -m raysslprune.sweep fig3 --scale pets.toml --set '*.samples=2 epochs' --seeds 1-2 --root r"
    )


def test_a_sweep_suggests_its_own_call_with_more_seeds(pets: Path) -> None:
    """With all that says which results it makes, quoted for a shell; and nothing of how it runs."""
    call = "mine.py fig3 --scale pets.toml --set '*.samples=2 epochs' --root 'my runs' --data 'my sets'"
    call += """ --only "task == 'labels' and level > 1\""""
    options = sweep._parser().parse_args(shlex.split(f"{call} --seeds 2 --slots 3 --wait"))
    scale = scalefile.scale(options.scale, options.set)
    assert sweep._command(options, scale) == f"python -m raysslprune.sweep {call}"
    bare = sweep._parser().parse_args(["fig3"])
    assert sweep._command(bare, "laptop") == "python -m raysslprune.sweep fig3"


def test_the_status_says_how_to_draw_a_scale_of_ones_own(pets: Path) -> None:
    made = Experiment.load("fig3", scale="pets.toml", seeds=[1, 2], root=pets / "runs")
    made.store.create()
    graph = made._graph(made.sweeps)
    reporter = Reporter(made.store, made.sweeps, made.scale, graph, {})
    reporter._before["finished"] = 1
    with made.store.lock(), reporter.reporting():
        pass
    shown = dict(lines(made.store, Seen.of(made.store)))
    assert shown["sweep"] == "fig3 at scale pets, 2 seeds"
    assert shown["to draw"] == (
        f"python -m raysslprune.sweep fig3 --scale pets.toml --seeds 1-2 --root {made.store.root} --draw"
    )


def test_seeds_are_loaded_as_they_are_named() -> None:
    assert {point.seed for point in load("fig3", "smoke", [4, 7]).points} == {4, 7}
    assert SweepError.code == USAGE
