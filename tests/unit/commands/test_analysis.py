"""``raysslprune analysis``: tables and figures of masks, and what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from raysslprune.commands import analysis
from raysslprune.figures import masks
from raysslprune.messages import FAILED, USAGE
from raysslprune.results import overlap
from raysslprune.results.overlap import NEITHER, SAME_SEED, SAME_TASK, Placed, densities, measure, placed, summary
from raysslprune.store.record import MASK
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load
from tests.helpers.masks import fill


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "runs"))


def run(root: Path, *arguments: str) -> int:
    return analysis.main([*arguments, "--scale", "smoke", "--root", str(root)])


@pytest.fixture
def fig3(store: Store) -> list[Placed]:
    """Made up, three seeds of them."""
    found = placed(load("fig3", "smoke", 3).points)
    fill(store, [mask.mask for mask in found])
    return found


def test_the_command_writes_tables_and_figures(
    fig3: list[Placed], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(Path(store.base), "fig3") == 0
    said = capsys.readouterr()
    assert not said.err
    folder = Path(store.base) / "results" / "smoke"
    files = [f"fig3-{name}.{kind}" for name in ("layers", "overlap") for kind in ("parquet", "png", "pdf")]
    assert {path.name for path in folder.iterdir()} == {*files}
    assert all(str(folder / name) in said.out for name in files)
    expected = measure(fig3, store)
    for name, schema, table in zip(("layers", "overlap"), (overlap.LAYERS, overlap.OVERLAPS), expected, strict=True):
        written = pq.read_table(folder / f"fig3-{name}.parquet")
        assert written.schema.equals(schema)
        assert written.equals(table)
    assert {row["seed"] for row in expected[0].to_pylist()} == {0, 1, 2}  # all that are there

    row = next(
        row
        for row in summary(expected[1]).to_pylist()
        if (row["relation"], row["task_a"], row["task_b"]) == (SAME_SEED, "labels", "rotnet")
    )
    assert f"{row['jaccard']:.3f} ± {row['stderr']:.3f} ({row['chance']:.3f})" in said.out
    assert "same task, different seeds" in said.out
    assert "random and" not in said.out
    assert "layers.conv1.weight" in said.out


def test_all_is_written_before_what_reads_has_had_enough(fig3: list[Placed], store: Store) -> None:
    words = [sys.executable, "-m", "raysslprune", "analysis", "fig3", "--scale", "smoke", "--root", store.base]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
    names = {path.name for path in (Path(store.base) / "results" / "smoke").iterdir()}
    assert names == {f"fig3-{name}.{kind}" for name in ("layers", "overlap") for kind in ("parquet", "png", "pdf")}


def test_a_figure_that_cannot_be_drawn_costs_nothing_else(
    fig3: list[Placed], store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no font")

    monkeypatch.setattr(masks, "layer_densities", fail)
    assert run(Path(store.base), "fig3") == 1
    said = capsys.readouterr()
    assert "same task, different seeds" in said.out
    assert "layers.conv1.weight" in said.out
    sentence = "raysslprune: the figure of fig3-layers could not be drawn (all other results are complete): "
    sentence += "RuntimeError: no font; "
    assert said.err.startswith(sentence)
    assert said.err.count("\n") == 1
    names = {path.name for path in (Path(store.base) / "results" / "smoke").iterdir()}
    assert names == {"fig3-layers.parquet", *(f"fig3-overlap.{kind}" for kind in ("parquet", "png", "pdf"))}


def test_what_chance_explains_is_not_shown(fig3: list[Placed], store: Store) -> None:
    """It is in the tables."""
    layers, overlaps = measure(fig3, store)
    drawn, pairs = overlap.shown(fig3, layers, overlaps)
    tasks = ["labels", "rotnet", "exemplar", "random", "random erk"]
    shuffled = {"shuffled labels", "shuffled rotnet"}
    assert {*layers["task"].to_pylist()} == {*tasks, *shuffled}
    assert [*dict.fromkeys(drawn["task"].to_pylist())] == tasks
    rows = pairs.to_pylist()
    assert {row["relation"] for row in rows} == {SAME_SEED, SAME_TASK}
    assert {row["task_a"] for row in rows} | {row["task_b"] for row in rows} == {*tasks[:3]}
    assert {NEITHER} < {row["relation"] for row in summary(overlaps).to_pylist()}
    assert drawn.to_pylist() == [row for row in densities(layers, fig3).to_pylist() if row["task"] not in shuffled]


def test_a_search_lacks_what_it_did_not_choose(store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    found = placed(load("rewind", "smoke", 1).points)
    fill(store, [mask.mask for mask in found[: len(found) // 2]])
    assert run(Path(store.base), "rewind") == 0
    assert not capsys.readouterr().err


def test_missing_masks_are_said_in_a_sentence(
    fig3: list[Placed], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = next(mask for mask in fig3 if (mask.task, mask.seed) == ("exemplar", 1))
    store.remove(f"steps/{gone.mask.id}/SUCCESS")
    assert run(Path(store.base), "fig3", "--seeds", "4") == 0
    said = capsys.readouterr()
    wanted = placed(load("fig3", "smoke", 4).points)
    lacking = [mask for mask in wanted if mask.seed == 3 or mask == gone]
    assert said.err == (
        f"raysslprune: {len(lacking)} of {len(wanted)} masks are not there yet, the first of them {lacking[0]}; "
        f"to make them, run: python -m raysslprune.sweep fig3 --scale smoke --seeds 4 --root {store.base}\n"
    )
    written = pq.read_table(Path(store.base) / "results/smoke/fig3-layers.parquet")
    assert {*written["mask"].to_pylist()} == {mask.mask.id for mask in fig3} - {gone.mask.id}


def test_a_damaged_mask_is_left_out(fig3: list[Placed], store: Store, capsys: pytest.CaptureFixture[str]) -> None:
    bad = fig3[0].mask.id
    path = Path(store.base) / "steps" / bad / MASK
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert run(Path(store.base), "fig3", "--seeds", "1") == 0
    assert f"mask {bad}: {MASK} does not match its checksum; it is left out" in capsys.readouterr().err
    written = pq.read_table(Path(store.base) / "results/smoke/fig3-layers.parquet")
    assert bad not in written["mask"].to_pylist()
    assert {*written["seed"].to_pylist()} == {0}


def test_one_seed_of_one_task_has_nothing_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "one.py"
    path.write_text(
        "from raysslprune.paper.scales import SETTINGS\n"
        "from raysslprune.sweepfile import Figure, Point\n"
        "FIGURE = Figure(title='One')\n"
        "def points(scale, seed):\n"
        "    s = SETTINGS[scale]\n"
        "    chain = s.imp('labels', seed=seed, levels=2, keep=0.5)\n"
        "    for level in (0, 1, 2):\n"
        "        yield Point(step=s.ticket(chain, level), task='labels', init='ticket', level=level, seed=seed)\n"
    )
    store = Store(str(tmp_path / "runs"))
    fill(store, [mask.mask for mask in placed(load(str(path), "smoke", 1).points)])
    assert run(tmp_path / "runs", str(path)) == 0
    assert not capsys.readouterr().err
    names = {path.name for path in (tmp_path / "runs/results/smoke").iterdir()}
    assert names == {"one-layers.parquet", "one-layers.png", "one-layers.pdf", "one-overlap.parquet"}
    assert len(pq.read_table(tmp_path / "runs/results/smoke/one-overlap.parquet")) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["fig3"], 1, "no mask of fig3 is in {root} yet; to make them, run: python -m raysslprune.sweep fig3 "),
        (["fig6"], 2, "fig6 has no masks: it prunes nothing"),
        (["table1"], 2, "table1 has no masks: it prunes nothing"),
        (["fig33"], 2, "there is no sweep 'fig33'; did you mean fig3?"),
    ],
)
def test_nothing_to_look_at_is_one_sentence(
    arguments: list[str], code: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "new", *arguments) == code
    said = capsys.readouterr()
    assert said.err.startswith("raysslprune: " + sentence.format(root=tmp_path / "new"))
    assert said.err.count("\n") == 1
    assert not said.out
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("arguments", [[], ["fig3", "--seeds", "0"], ["fig3", "--scale", "huge"], ["fig3", "fig4"]])
def test_a_wrong_call_is_one_sentence(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        analysis.main(arguments)
    assert end.value.code == USAGE
    said = capsys.readouterr().err
    assert said.startswith("raysslprune: ")
    assert said.endswith("; see --help\n")
    assert said.count("\n") == 1


def test_somebody_elses_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    assert run(tmp_path, "fig3") == FAILED
    assert "contains other files but no raysslprune.json" in capsys.readouterr().err


def test_a_mask_that_all_seeds_share_does_not_count_as_seeds(tmp_path: Path, store: Store) -> None:
    path = tmp_path / "shared.py"
    path.write_text("""
from raysslprune import SETTINGS, Curve, Figure, ImportedWeights, Point, Prune, linear

FIGURE = Figure(title="t")
WEIGHTS = ImportedWeights(arch="conv4", channels=1, digest="0" * 64)


def points(scale, seed):
    probe = SETTINGS[scale].linear[0]
    step = linear(WEIGHTS, data=probe.data, recipe=probe.recipe, seed=seed, mask=Prune(of=WEIGHTS, keep=0.5))
    yield Point(step=step, task="theirs", init="probed", level=1, seed=seed)
""")
    fill(store, [mask.mask for mask in placed(load(path, "smoke", 1).points)])
    assert analysis._seeds(str(path), "smoke", store) == 1
