"""``raysslprune clean``: what is listed and deleted, and what tables keep."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from raysslprune import __main__ as command
from raysslprune import results, sweep_loader
from raysslprune.spec import Imported
from raysslprune.store.record import MASK, WEIGHTS
from raysslprune.store.steps import INDEX, Store
from raysslprune.words import size
from tests.helpers.chains import execute
from tests.helpers.cli import GOOD, Called, Cli, commit, own, smoke, steps_of
from tests.helpers.points import chain
from tests.helpers.steps import SNAPSHOT, files_of, train

FIG3 = ("fig3", "--scale", "smoke")


def clean(cli: Cli, *arguments: str) -> Called:
    cli.capsys.readouterr()
    try:
        code = command.main(["clean", *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = cli.capsys.readouterr()
    return Called(code=code, out=out, err=err)


def files(cli: Cli) -> dict[str, bytes]:
    """All files but the index, which may change, and locks."""
    root = cli.folder / "runs"
    found = {path.relative_to(root).as_posix(): path for path in root.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if name not in (INDEX, "lock", "lease")}


def steps(cli: Cli) -> set[str]:
    return {path.parent.name for path in (cli.folder / "runs/steps").glob("*/SUCCESS")}


def rows(out: str) -> dict[str, list[str]]:
    """The cells of the printed table by the first of each row."""
    found = [re.split(r"\s{2,}", line.strip()) for line in out.splitlines()]
    return {cells[0]: cells[1:] for cells in found if len(cells) == 6}


def tabled(store: Store, seeds: int = 1) -> None:
    """Write the table of figure 3, as a sweep does."""
    points = sweep_loader.load("fig3", "smoke", seeds).points
    table = results.table("fig3", "smoke", points, store.survey(smoke(seeds).ids)[0])
    assert len(table) == len(points)
    store.write("results/smoke/fig3.parquet", results.to_parquet(table))


def orphans(store: Store) -> None:
    """Two trainings with a mask each, which no sweep needs, a training that did not end, and its checkpoint."""
    for seed in (100, 101):
        store.commit(train(seed), files_of(train(seed)), {}, {})
    store.write(f"steps/{train(102).id}/spec.json", b'{"kind": "Train"}')
    store.save_checkpoint(train(102).id, b"123")


def test_of_a_root_that_has_only_what_is_needed_nothing_is_listed(cli: Cli, figure_3: Store) -> None:
    before = files(cli)
    for delete in ((), ("--delete",)):
        called = clean(cli, *FIG3, *delete)
        assert (called.code, called.err) == (0, "")
        assert called.out == "nothing to delete in runs: all is needed by fig3 at scale smoke with 1 seed, or kept\n"
        assert files(cli) == before


def test_what_is_listed_is_then_deleted_and_all_else_stays(cli: Cli, figure_3: Store) -> None:
    tabled(figure_3)
    figure_3.write("results/smoke/fig3.png", b"a picture")
    before, needed = files(cli), steps(cli)
    orphans(figure_3)
    added = {name: len(data) for name, data in files(cli).items() if name not in before}
    trained = {name: count for name, count in added.items() if train(102).id not in name}
    listed = clean(cli, *FIG3)
    assert (listed.code, listed.err) == (0, "")
    assert "not needed in runs by fig3 at scale smoke with 1 seed\n" in listed.out
    weights, snapshots = (
        size(sum(count for name, count in added.items() if name.endswith(f"/{kind}"))) for kind in (WEIGHTS, SNAPSHOT)
    )
    assert rows(listed.out) == {
        "trainings": ["2", "8", size(sum(trained.values())), weights, snapshots],
        "unfinished steps": ["1", "1", "17 B", "0 B", "0 B"],
        "checkpoints": ["1", "1", "35 B", "0 B", "0 B"],
        "together": ["4", "10", size(sum(added.values())), weights, snapshots],
    }
    assert listed.out.splitlines()[-1] == "nothing is deleted yet; to delete, add --delete"
    assert files(cli).keys() == before.keys() | added.keys()
    deleted = clean(cli, *FIG3, "--delete")
    assert (deleted.code, deleted.err) == (0, "")
    assert deleted.out.splitlines()[:-1] == listed.out.splitlines()[:-1]
    assert deleted.out.splitlines()[-1] == "deleted; tables and figures are kept"
    assert files(cli) == before
    assert steps(cli) == needed == {step.id for step in steps_of(smoke())}
    assert cli(*FIG3).code == 0  # the fixture fails if anything is left to train
    assert {name: data for name, data in files(cli).items() if name.endswith("fig3.parquet")} == {
        name: data for name, data in before.items() if name.endswith("fig3.parquet")
    }


def test_tables_of_more_seeds_keep_their_steps_until_they_are_deleted(cli: Cli, figure_3: Store) -> None:
    first, both = ({step.id: step for step in steps_of(smoke(seeds))} for seeds in (1, 2))
    more = both.keys() - first.keys()
    commit(figure_3, [both[i] for i in more], smoke(2))
    tabled(figure_3, 2)
    orphans(figure_3)
    called = clean(cli, *FIG3, "--delete")
    assert rows(called.out)["trainings"][0] == "2"
    assert f"kept: {len(more)} steps behind tables of other sweeps, scales or seeds: fig3 (smoke)\n" in called.out
    assert steps(cli) == both.keys()
    (cli.folder / "runs/results/smoke/fig3.parquet").unlink()
    called = clean(cli, *FIG3)
    assert "kept" not in called.out
    assert rows(called.out)["together"][0] == str(len(more))
    assert clean(cli, *FIG3, "--seeds", "2").out.startswith("nothing to delete in runs")
    assert clean(cli, *FIG3, "--delete").code == 0
    assert steps(cli) == first.keys()


def test_tables_of_other_sweeps_and_scales_keep_all_that_their_rows_were_made_from(cli: Cli, figure_3: Store) -> None:
    tabled(figure_3)
    needed = steps(cli)
    for call in ((own(cli), "--scale", "laptop"), ("fig10", "--scale", "laptop")):
        called = clean(cli, *call)
        assert f"kept: {len(needed)} steps behind tables of other sweeps, scales or seeds: fig3 (smoke)" in called.out
        assert "nothing to delete" in called.out
    (cli.folder / "runs/results/smoke/fig3.parquet").unlink()
    mine = rows(clean(cli, own(cli), "--scale", "smoke").out)
    assert mine["together"][0] == str(len(needed) - 1)  # it needs figure 3's dense network


def test_imported_masks_are_kept(cli: Cli, figure_3: Store) -> None:
    mask = Imported(arch="conv4", channels=1, digest="1" * 64)
    figure_3.commit(mask, {MASK: b"imported"}, {}, {})
    called = clean(cli, *FIG3, "--delete")
    assert called.out.splitlines()[-1] == f"kept: imported masks and weights, which no sweep can make again: {mask.id}"
    assert figure_3.artefact(mask.id, MASK) == b"imported"


def test_steps_without_a_readable_spec_are_kept_and_named(cli: Cli, figure_3: Store) -> None:
    orphans(figure_3)
    figure_3.write(f"steps/{train(100).id}/spec.json", b"damaged")
    called = clean(cli, *FIG3, "--delete")
    assert f"kept: 1 step without a readable spec.json: {train(100).id}\n" in called.out
    assert {train(100).id} == steps(cli) - {step.id for step in steps_of(smoke())}


def test_a_sweep_that_runs_is_not_robbed_of_its_steps(cli: Cli, figure_3: Store) -> None:
    orphans(figure_3)
    before = files(cli)
    with figure_3.lock():
        called = clean(cli, *FIG3, "--delete")
        assert (called.code, called.out) == (1, "")
        assert re.match(r"raysslprune: another sweep \(process \d+\) is running on runs; wait for it, ", called.err)
        assert len(called.err.splitlines()) == 1
        assert rows(clean(cli, *FIG3).out)["trainings"][0] == "2"  # to look is allowed
    assert files(cli) == before


@pytest.mark.parametrize("delete", [(), ("--delete",)])
def test_what_can_not_be_read_ends_it_before_anything_is_deleted(delete: tuple[str, ...], cli: Cli) -> None:
    called = clean(cli, *FIG3, *delete)
    assert (called.code, called.out) == (1, "")
    assert "there are no results in runs; --root must be a folder that a sweep has filled" in called.err
    assert not (cli.folder / "runs").exists()


@pytest.mark.parametrize("spoilt", ["table", "step"])
def test_damage_of_a_table_that_would_keep_steps_ends_it(spoilt: str, cli: Cli, figure_3: Store) -> None:
    tabled(figure_3)
    orphans(figure_3)
    if spoilt == "table":
        (cli.folder / "runs/results/smoke/fig3.parquet").write_bytes(b"damaged")
    else:
        figure_3.write(f"steps/{smoke().points[0].step.id}/spec.json", b"damaged")
    before = {name for name in files(cli) if name.startswith("steps/")}
    called = clean(cli, own(cli), "--scale", "smoke", "--delete")
    assert (called.code, called.out) == (1, "")
    assert "run its sweep again to rebuild it" in called.err
    assert len(called.err.splitlines()) == 1
    assert {name for name in files(cli) if name.startswith("steps/")} == before


def test_sweeps_are_those_of_the_sweep_command(cli: Cli, figure_3: Store) -> None:
    (cli.folder / "good.py").write_text(GOOD)
    assert clean(cli, "fig3", "good.py", "--scale", "smoke").code == 0
    assert "with 1 seed" in clean(cli, "all", "--scale", "smoke").out
    called = clean(cli, "figg3")
    assert called.code == 2
    assert "there is no sweep 'figg3'" in called.err
    assert clean(cli).code == 2


def test_on_an_empty_root_of_ones_own_there_is_nothing(cli: Cli, tmp_path: Path) -> None:
    Store(str(cli.folder / "runs")).create()
    assert clean(cli, *FIG3, "--delete").out.startswith("nothing to delete in runs")


MINE = """
from raysslprune import Curve, Figure, Point
from tests.helpers.points import chain

FIGURE = Figure(title="t", references=(Curve(task="labels", init="a"),))


def points(scale, seed):
    for level, step in enumerate(chain(seed=seed, levels=2).rounds):
        yield Point(step=step, task="labels", init="a", level=level, seed=seed)
"""


def test_what_is_left_of_trained_networks_is_not_trained_again(cli: Cli) -> None:
    """Two real chains, of which one goes: the other is whole, and its steps are those of before."""
    (cli.folder / "mine.py").write_text(MINE)
    kept, gone = chain(levels=2), chain(seed=1, levels=2)
    root = cli.folder / "runs"
    execute([*kept.rounds, *gone.rounds], root)
    before = files(cli)
    assert clean(cli, "mine.py", "--seeds", "2").out.startswith("nothing to delete in runs")
    called = clean(cli, "mine.py", "--seeds", "1", "--delete")
    assert (rows(called.out)["trainings"][0], rows(called.out)["masks"][0]) == ("2", "1")
    assert steps(cli) == {kept.dense.id, kept.rounds[1].id, kept.rounds[1].mask.id if kept.rounds[1].mask else ""}
    there = {f"steps/{step}" for step in steps(cli)}
    assert files(cli) == {n: data for n, data in before.items() if "/" not in n or n.rpartition("/")[0] in there}
    times = {path: path.stat().st_mtime_ns for path in root.rglob("steps/*/SUCCESS")}
    assert len(times) == 3
    store = execute(kept.rounds, root)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("steps/*/SUCCESS")} == times
    assert store.survey([step.id for step in kept.rounds])[1] == []
