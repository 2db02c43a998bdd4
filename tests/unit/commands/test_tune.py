"""``raysslprune tune``: which recipes are tried, how one is chosen, and what is said of it. No training, no Ray."""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from raysslprune import execution, results
from raysslprune.commands import tune
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.search import Range, candidates, spanning
from raysslprune.spec import Init, Recipe, Train
from raysslprune.store.steps import Store
from tests.helpers import CHECKOUT
from tests.helpers.results import VERSIONS

Value = Callable[[Train], float]
FACTS = {"seconds": 1.0, "images_per_second": 1.0, "begun": 0.0, "host": "", "device": "cpu", "versions": VERSIONS}


def value(step: Train) -> float:
    """Best at a rate of 0.05 and a batch of 64; NaN, a failure, above 0.25. Seeds differ by up to two points."""
    recipe = step.recipe
    assert isinstance(recipe, Recipe)
    if recipe.lr > 0.25:
        return math.nan
    return 90 - 10 * abs(math.log(recipe.lr / 0.05)) - (recipe.batch == 32) + 2 * math.sin(step.seed * recipe.lr * 500)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Train]:
    """Stand-in for Ray: commits made-up metrics of each job that the schedule hands out. Returns what it trained."""
    steps: list[Train] = []

    def train(run: execution.Execution, *_: object) -> int:
        while job := run.schedule.next():
            steps.append(job.train)
            if math.isnan(found := value(job.train)):
                run.schedule.fail(job.id)
            else:
                metric = {"labels": "top1", "rotnet": "rotation_top1", "npid": "knn_top1"}[job.train.task]
                metrics = {f"{metric}_validation": found, metric: 1000 - found, "density": 1.0, "collapsed_layers": 0.0}
                run.store.commit(job.train, {}, metrics, FACTS)
                run.schedule.done(job.id)
            run.advance()
        return len(run.schedule.failed)

    monkeypatch.setattr(execution.Execution, "train", train)
    monkeypatch.chdir(tmp_path)
    return steps


def test_the_best_on_held_out_images_is_printed_for_a_scale_file(
    trained: list[Train], capsys: pytest.CaptureFixture[str]
) -> None:
    """By a halving written out here: the means over one, two and four seeds decide."""
    assert tune.main(["labels", "--over", "lr=0.01..0.3", "batch=32,64", "--trials", "8"]) == 0
    told = capsys.readouterr()
    every = [{step.recipe: step for step in trained if step.seed == seed} for seed in range(1000, 1004)]
    assert {step.seed for step in trained} == {*range(1000, 1004)}, "none that a figure counts"
    left = list(every[0])
    assert len(left) == 8
    for seeds in (1, 2, 4):
        means = {one: fmean(value(every[seed][one]) for seed in range(seeds)) for one in left}
        left = sorted((one for one in left if not math.isnan(means[one])), key=lambda one: -means[one])
        keep = math.ceil(len(left) / 2) if seeds < 4 else len(left)
        left = left[:keep]
    best = left[0]
    assert isinstance(best, Recipe)
    assert tomllib.loads(told.out) == {"recipes": {"labels": {"lr": best.lr, "batch": best.batch}}}
    values = [value(every[seed][best]) for seed in range(4)]
    assert f"#     {fmean(values):.2f} ± {stdev(values):.2f} ({' '.join(f'{one:.2f}' for one in values)})" in told.out
    assert "chosen by top1_validation on digits:25%-held-out" in told.out
    assert "not on test images" in told.out
    assert {step.data for step in trained} == {"digits:25%-held-out"}
    assert all(step.start == Init(seed=step.seed) and step.mask is None for step in trained)
    kept = SETTINGS["laptop"].recipes["labels"]
    assert {(one.samples, one.momentum, one.pad) for one in every[0] if isinstance(one, Recipe)} == {
        (kept.samples, kept.momentum, kept.pad)
    }


def test_the_same_call_trains_nothing_again(trained: list[Train], capsys: pytest.CaptureFixture[str]) -> None:
    call = ["rotnet", "--over", "lr=0.02,0.04,0.08", "--seeds", "2"]
    assert tune.main(call) == 0
    first, count = capsys.readouterr().out, len(trained)
    assert count == 3 + 2
    assert tune.main(call) == 0
    assert (capsys.readouterr().out, len(trained)) == (first, count)
    assert tune.main([*call[:-1], "4"]) == 0
    assert len(trained) == 3 + 2 + 2, "more seeds of the one recipe that is left"
    assert tune.main(["rotnet", "--over", "lr=0.02,0.04", "--seeds", "1"]) == 0
    assert len(trained) == 7, "a trial of another call is the same step"


def test_what_was_tried_is_in_sql_and_in_optunas_journal(trained: list[Train], tmp_path: Path) -> None:
    assert tune.main(["labels", "--over", "lr=0.01..0.2", "batch=32,64", "--trials", "6", "--seeds", "2"]) == 0
    (sql,) = re.findall(r'raysslprune results "(SELECT lr, .*tune.*)"', (CHECKOUT / "docs/learning.md").read_text())
    rows = results.query(sql, str(tmp_path / "runs")).to_pylist()
    assert {(row["lr"], row["batch"]) for row in rows} == {(s.recipe.lr, s.recipe.batch) for s in trained}  # pyright: ignore
    (journal,) = (tmp_path / "runs/studies").iterdir()
    storage = JournalStorage(JournalFileBackend(str(journal)))
    (study,) = optuna.get_all_study_summaries(storage)
    trials = optuna.load_study(study_name=study.study_name, storage=storage).trials
    tried = {(step.recipe.lr, step.recipe.batch) for step in trained}  # pyright: ignore
    assert {(trial.params["lr"], trial.params["batch"]) for trial in trials} == tried
    assert len(trials) == 6
    assert sum(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials) == 3


def test_recipes_that_fail_are_out(trained: list[Train], capsys: pytest.CaptureFixture[str]) -> None:
    assert tune.main(["labels", "--over", "lr=0.04,0.28,0.3", "--seeds", "1"]) == 0
    told = capsys.readouterr()
    assert tomllib.loads(told.out)["recipes"]["labels"] == {"lr": 0.04}
    assert re.search(r"^# each with its one seed\n#     \d\d\.\d\d  lr = 0\.04$", told.out, re.M)
    assert "2 failed" in told.out
    assert "steps that failed or were skipped: 2" in told.err
    assert tune.main(["labels", "--over", "lr=0.28,0.3", "--seeds", "1"]) == 1
    assert capsys.readouterr().err == (
        "raysslprune: steps that failed or were skipped: 2; the results above do not include them\n"
    )


def test_data_that_are_missing_are_one_sentence(
    trained: list[Train], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert tune.main(["labels", "--scale", "paper", "--over", "lr=0.1,0.2", "--data", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert (told.out, len(told.err.splitlines())) == ("", 1)
    assert f"there is no folder {tmp_path}/imagenet/train" in told.err


def test_options_and_subsets_of_a_task(trained: list[Train], capsys: pytest.CaptureFixture[str]) -> None:
    call = ["--over", "options.temperature=0.2,0.4", "nesterov=true,false", "optimizer=sgd", "--seeds", "1"]
    assert tune.main(["npid", *call]) == 0
    (section,) = tomllib.loads(capsys.readouterr().out)["recipes"].values()
    assert section["options"]["temperature"] in (0.2, 0.4)
    assert isinstance(section["nesterov"], bool)
    assert section["optimizer"] == "sgd"
    assert len(trained) == 4
    assert tune.main(["labels:10%-of-images", "--over", "lr=0.04,0.06", "--seeds", "1"]) == 0
    assert list(tomllib.loads(capsys.readouterr().out)["recipes"]) == ["labels:10%-of-images"]
    assert trained[-1].data == "digits:25%-held-out:10%-of-images"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["dogs", "--over", "lr=1,2"], r"this scale has no recipe for 'dogs', only for labels, rotnet, "),
        (["labels", "--over", "rate=1,2"], r"--over 'rate=1,2': 'rate' is not one of samples, batch, lr, "),
        (["labels", "--over", "btch=1,2"], r"; did you mean batch\?$"),
        (["labels", "--over", "lr"], r"write the values of lr, of type float, as a\.\.b or a,b,c"),
        (["labels", "--over", "lr=0.1..x"], r"write the values of lr, of type float"),
        (["labels", "--over", "lr=0.1.."], r"write the values of lr, of type float"),
        (["labels", "--over", "batch=32.5"], r"write the values of batch, of type int"),
        (["labels", "--over", "flip=yes"], r"write the values of flip, of type bool, as a,b,c"),
        (["labels", "--over", "lr=0.3..0.1"], r"the first end must be below the second"),
        (["labels", "--over", "decay_at=3,4"], r"'decay_at' is not one of"),
        (["labels", "--over", "options.margin=1,2"], r"'options\.margin' is not one of .*options\.standardise"),
        (["labels", "--over", "optimizer=sgd,lion"], r"optimizer 'lion' is not one of sgd, adam, adamw"),
        (["exemplar", "--over", "options.margin=0.0,1.0"], r"Exemplar needs .* a margin above 0"),
        (["labels", "--over", "bn_batch=3"], r"bn_batch must divide the batch of 64"),
        (["labels", "--over", "lr=1", "--trials", "0"], r"whole number from 1 to 1000"),
        (["labels"], r"--over"),
    ],
    ids=lambda part: " ".join(part) if isinstance(part, list) else "",
)
def test_a_wrong_call_is_one_sentence(
    arguments: list[str], sentence: str, trained: list[Train], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: Any = tune.main(arguments)
    except SystemExit as end:
        code = end.code
    told = capsys.readouterr()
    assert (code, told.out, len(told.err.splitlines())) == (2, "", 1)
    assert re.search(sentence, told.err), told.err
    assert not trained
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_trains_nothing(trained: list[Train], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert tune.main(["labels", "--over", "lr=0.01..0.3", "--dry-run"]) == 0
    assert re.search(r"will run +64 trainings", capsys.readouterr().out)
    assert (trained, list(tmp_path.iterdir())) == ([], [])


# ------------------------------------------------------------------------------------- which are tried


def test_drawn_values_fill_their_ranges_evenly() -> None:
    """Of 32 rates on a log scale, each eighth of the range has three to five; the same at each call."""
    over = {"lr": Range(0.01, 1.0), "momentum": Range(0.8, 0.96), "batch": [32, 64], "warmup": Range(10, 5000)}
    found = candidates(over, 32)
    assert found == candidates(over, 32)
    assert len({tuple(one.items()) for one in found}) == 32
    eighths = [int(4 * math.log10(one["lr"] / 0.01)) for one in found]
    assert all(2 <= eighths.count(eighth) <= 6 for eighth in range(8)), eighths
    quarters = [int((one["momentum"] - 0.8) / 0.04) for one in found]
    assert all(5 <= quarters.count(quarter) <= 11 for quarter in range(4)), quarters
    assert {one["batch"] for one in found} == {32, 64}
    assert all(isinstance(one["warmup"], int) and 10 <= one["warmup"] <= 5000 for one in found)
    assert all(float(f"{one['lr']:.3g}") == one["lr"] for one in found)


def test_choices_alone_are_all_tried_if_there_are_enough_trials() -> None:
    over: dict[str, Any] = {"a": [1, 2, 3], "b": [True, False]}
    every = [{"a": a, "b": b} for a in (1, 2, 3) for b in (True, False)]
    assert candidates(over, 6) == every
    some = candidates(over, 4)
    assert len(some) == 4
    assert all(one in every for one in some)
    assert len(candidates({"a": Range(1, 3)}, 16)) == 3, "there are no more whole numbers"


def test_ranges_of_optuna_span_the_values() -> None:
    assert spanning([3, 1, 2]) == optuna.distributions.IntDistribution(1, 3)
    assert spanning([0.5, 1]) == optuna.distributions.FloatDistribution(0.5, 1)
    assert spanning(["b", "a", "b"]) == optuna.distributions.CategoricalDistribution(["a", "b"])
    assert spanning([True, False]) == optuna.distributions.CategoricalDistribution([False, True])


def test_a_report_does_not_ask_for_its_sweep_file(
    trained: list[Train], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from raysslprune.report.contents import find

    assert tune.main(["labels", "--over", "lr=0.04,0.06", "--seeds", "1"]) == 0
    notes: list[str] = []
    with pytest.raises(Exception, match="has no results"):
        find([], None, Store(str(tmp_path / "runs")), notes.append)
    assert notes == []
