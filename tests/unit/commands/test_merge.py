"""``raysslprune merge``: what it prints and returns, and that a merged root needs no training."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raysslprune import __main__ as command
from raysslprune.store.record import WEIGHTS
from raysslprune.store.steps import Store
from tests.helpers.cli import Called, Cli, check_refused
from tests.helpers.steps import FACTS, METRICS, files_of, made, prune, train
from tests.helpers.steps import commit as put

FIG3 = ("fig3", "--scale", "smoke")


def merge(cli: Cli, *arguments: str) -> Called:
    cli.capsys.readouterr()
    try:
        code = command.main(["merge", *arguments])
    except SystemExit as end:
        code = int(end.code or 0)
    out, err = cli.capsys.readouterr()
    return Called(code=code, out=out, err=err)


def test_two_halves_of_a_sweep_give_its_table_without_training(cli: Cli, figure_3: Store) -> None:
    assert cli(*FIG3).code == 0
    ids = sorted(figure_3.listing())
    for name, half in (("a", ids[::2]), ("b", ids[1::2] + ids[:4:2])):
        made(cli.folder / name)
        for step in half:
            shutil.copytree(cli.folder / "runs/steps" / step, cli.folder / name / "steps" / step)
    called = merge(cli, "a", "b", "--into", "both")
    assert (called.code, called.err) == (0, "")
    a, b, said = called.out.splitlines()
    assert a == f"a: {len(ids[::2])} copied"
    assert b == f"b: {len(ids[1::2])} copied, 2 already there"
    assert said.startswith("merged into both; to write the tables, run the sweeps with this root")
    assert cli(*FIG3, "--root", "both").code == 0  # the fixture fails if anything is left to train
    tables = [(cli.folder / root / "results/smoke/fig3.parquet").read_bytes() for root in ("runs", "both")]
    assert tables[0] == tables[1]
    again = merge(cli, "a", "b", "--into", "both")
    assert (again.code, again.out.splitlines()[0]) == (0, f"a: {len(ids[::2])} already there")


def test_conflicts_and_damage_are_told_and_the_rest_is_merged(cli: Cli) -> None:
    source, into = made(cli.folder / "a"), made(cli.folder / "b")
    for seed in range(6):
        put(source, train(seed))
    put(source, prune())
    for seed in range(5):
        into.commit(train(seed), files_of(train(seed)), {**METRICS, "top1": 98.0}, FACTS)
    source.write(f"steps/{train(4).id}/{WEIGHTS}", b"short")
    called = merge(cli, "a", "--into", "b")
    assert called.code == 1
    counts = "a: 1 copied, 4 in conflict, 1 made from steps in conflict, 1 damaged"
    assert called.out.splitlines()[0] == counts
    damaged, conflicts = called.err.splitlines()
    assert damaged.startswith(f"raysslprune: damaged in a, and not merged: step {train(4).id}: weights.safetensors")
    assert "top1 is 98.0 and 98.5" in conflicts
    assert "; and 1 more; those of b stay, and 1 step that was made from these is not merged" in conflicts
    assert train(5).id in into.listing()
    assert prune().id not in into.listing()


def test_a_sweep_may_run_on_a_root_that_is_merged_but_not_on_the_merged_one(cli: Cli) -> None:
    source, into = made(cli.folder / "a"), made(cli.folder / "b")
    put(source, train())
    with source.lock():
        called = merge(cli, "a", "--into", "b")
    assert (called.code, called.out.splitlines()[0]) == (0, "a: 1 copied")
    assert called.err.startswith("raysslprune: a sweep (process ")
    assert called.err.endswith(") is running on a: only its finished steps are merged\n")
    put(source, train(1))
    with into.lock():
        check_refused(merge(cli, "a", "--into", "b"), 1)
    assert into.listing().keys() == {train().id}


@pytest.mark.parametrize(
    ("roots", "into", "said", "code"),
    [
        (("a", "nowhere"), "b", "there are no results in nowhere", 1),
        (("a", "a/../b"), "b", "a/../b can't be merged into itself", 2),
        (("a",), "other", "other contains other files but no raysslprune.json", 1),
        (("other",), "b", "other contains other files but no raysslprune.json", 1),
        (("a",), "a.txt", "a.txt is a file", 1),
        (("ftp://a",), "b", "can't use ftp://a as the root", 1),
    ],
)
def test_roots_that_can_not_be_merged(roots: tuple[str, ...], into: str, said: str, code: int, cli: Cli) -> None:
    put(made(cli.folder / "a"), train())
    put(made(cli.folder / "b"), train(1))
    (cli.folder / "other").mkdir()
    (cli.folder / "other/thesis.tex").write_text("x")
    (cli.folder / "a.txt").write_text("x")
    before = cli.files()
    called = merge(cli, *roots, "--into", into)
    check_refused(called, code)
    assert said in called.err
    assert cli.files() == before


def test_a_root_that_can_not_be_written_is_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    put(made(cli.folder / "a"), train())

    def full(self: Store, name: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    made(cli.folder / "b")
    monkeypatch.setattr(Store, "write", full)
    check_refused(merge(cli, "a", "--into", "b"), 1)


def test_an_empty_root_has_nothing(cli: Cli) -> None:
    made(cli.folder / "a")
    called = merge(cli, "a", "--into", "b")
    assert (called.code, called.err) == (0, "")
    assert called.out.splitlines()[0] == "a: no finished steps"
    assert Path("b/raysslprune.json").is_file()
