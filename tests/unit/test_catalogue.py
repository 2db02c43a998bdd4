"""Names of tasks, networks and data sets, and options of tasks: what is known, and what is refused."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from raysslprune import catalogue
from raysslprune.lottery import finetune, linear
from raysslprune.paper.scales import FEW, SETTINGS
from raysslprune.spec import Recipe
from raysslprune.sweep_loader import load
from tests.helpers.cli import NAMED, USAGE, Cli, refuse_file


@pytest.mark.parametrize(
    ("kind", "table", "name", "near"),
    [
        ("task", catalogue.TASKS, "rotnt", "rotnet"),
        ("task", catalogue.TASKS, "Labels", "labels"),
        ("architecture", catalogue.ARCHITECTURES, "resnet-50", "resnet50"),
        ("architecture", catalogue.ARCHITECTURES, "vgg-19", "vgg19"),
        ("data set", catalogue.DATASETS, "cifar", "cifar10"),
        ("data set", catalogue.DATASETS, "ImageNet", "imagenet"),
        ("data set", catalogue.DATASETS, "zzzzzz", None),
        ("task", catalogue.TASKS, "", None),
        ("task", catalogue.TASKS, "labels ", "labels"),
        ("task", catalogue.TASKS, "a.module", None),
        ("task", catalogue.TASKS, "a:b:c", None),
        ("task", catalogue.TASKS, ":x", None),
        ("task", catalogue.TASKS, "x:", None),
        ("task", catalogue.TASKS, "../x:y", None),
    ],
)
def test_an_unknown_name_is_told_the_nearest_and_all(
    kind: str, table: dict[str, str], name: str, near: str | None
) -> None:
    with pytest.raises(ValueError, match=re.escape(f"{kind} {name!r} is not known; ")) as caught:
        catalogue.check(kind, table, name)
    sentence = str(caught.value)
    assert ("did you mean" in sentence) == (near is not None)
    if near:
        assert f"did you mean {near!r}? " in sentence
    assert sentence.endswith(f"{'Known' if near else 'known'}: {', '.join(table)}, or use module:attribute")
    with pytest.raises(ValueError, match="is not known"):
        catalogue.resolve(kind, table, name)


def test_known_names_and_those_of_a_users_modules_are_taken() -> None:
    for kind, table in (
        ("task", catalogue.TASKS),
        ("architecture", catalogue.ARCHITECTURES),
        ("data set", catalogue.DATASETS),
    ):
        for name in (*table, "mine:Task", "a_package.module:Name", "b:_c"):
            catalogue.check(kind, table, name)


def test_both_sides_of_figure_3_have_seen_as_many_labels() -> None:
    """Tickets of labels, RotNet and Exemplar, re-inits, and random and shuffled masks; before, some saw fewer."""
    points = load("fig3", "laptop", 1).points
    assert {catalogue.label_samples(point.step) for point in points} == {14_400}  # 12 epochs of 1,200 images
    before = {
        (point.task, point.init): catalogue.label_samples(replace(point.step, first_sample=None))
        for point in points
        if point.level
    }
    fewer = {curve: seen for curve, seen in before.items() if seen != 14_400}
    assert fewer == {(task, "winning ticket"): 14_400 - 19 * 64 for task in ("rotnet", "exemplar")}  # rewound to 1,200


def test_labels_seen_by_hand() -> None:
    s = SETTINGS["laptop"]
    few, s4l = (s.imp(f"{task}:{FEW}", seed=0, levels=1, keep=0.5) for task in ("labels", "s4l"))
    assert [catalogue.label_samples(chain.dense) for chain in (few, s4l)] == [7_200, 7_200]
    # Rewound to 1,200: 25 updates of 48, or 75 of 16, each with one labelled image; then all labels
    assert [catalogue.label_samples(s.ticket(chain, 1)) for chain in (few, s4l)] == [15_600, 15_600]
    npid = s.imp("npid", seed=0, levels=1, keep=0.5).dense
    probe, svms = s.linear
    assert catalogue.label_samples(npid) == 0
    assert catalogue.label_samples(linear(npid, data="digits", recipe=probe.recipe)) == 72_000
    assert catalogue.label_samples(linear(few.dense, data="digits", recipe=probe.recipe)) == 79_200
    assert catalogue.label_samples(linear(npid, data="digits", recipe=svms.recipe)) is None
    own = replace(npid, task="mine:Task")
    assert catalogue.label_samples(own) is None
    assert catalogue.label_samples(finetune(own, data="digits", recipe=s.finetune.recipe)) is None


def test_labels_are_counted_along_a_chain_of_any_length() -> None:
    step = SETTINGS["smoke"].imp("labels", seed=0, levels=1, keep=0.5).dense
    each, recipe = catalogue.label_samples(step), step.recipe
    assert each
    assert isinstance(recipe, Recipe)
    for _ in range(2_000):
        step = finetune(step, data="digits", recipe=recipe)
    assert catalogue.label_samples(step) == 2_001 * each


def test_a_name_is_resolved_to_the_code_behind_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raysslprune.data.digits import Digits
    from raysslprune.tasks.npid import NPID

    assert catalogue.resolve("task", catalogue.TASKS, "npid") is NPID
    assert catalogue.resolve("data set", catalogue.DATASETS, "digits") is Digits
    for table in (catalogue.TASKS, catalogue.DATASETS):
        for name in table:
            assert callable(catalogue.resolve("name", table, name))
    (tmp_path / "a_users_own.py").write_text("class Mine: ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert catalogue.resolve("task", catalogue.TASKS, "a_users_own:Mine").__name__ == "Mine"
    for name, why in (("a_users_own:Yours", "no attribute 'Yours'"), ("nowhere_at_all:X", "No module named")):
        with pytest.raises(ValueError, match=f"task {name!r} can't be imported here: .*{why}"):
            catalogue.resolve("task", catalogue.TASKS, name)
    with pytest.raises(ModuleNotFoundError):  # our own: no user's mistake
        catalogue.resolve("task", {"broken": "nowhere_at_all:X"}, "broken")


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("digits", ("digits", "", "")),
        ("imagenet:10%-of-images", ("imagenet", "", "10%-of-images")),
        ("imagenet:1%-of-classes", ("imagenet", "", "1%-of-classes")),
        ("folder/pets", ("folder", "pets", "")),
        ("folder/pets/small:99%-of-images", ("folder", "pets/small", "99%-of-images")),
        ("folder/odd:name", ("folder", "odd:name", "")),
        ("mine:Source", ("mine:Source", "", "")),
        ("a.mine:Source/x", ("a.mine:Source", "x", "")),
        ("mine:Source:10%-of-classes", ("mine:Source", "", "10%-of-classes")),
        ("mine:Source/x/y:10%-of-images", ("mine:Source", "x/y", "10%-of-images")),
        ("cifar10:10%-of-images:20%-of-classes", ("cifar10", "", "10%-of-images:20%-of-classes")),
    ],
)
def test_the_parts_of_a_data_sets_name(text: str, parts: tuple[str, str, str]) -> None:
    assert catalogue.data_parts(text) == parts


@pytest.mark.parametrize(
    "subset", ["10%", "0%-of-images", "100%-of-images", "05%-of-images", "10%-of-pixels", "10%-of-images ", "1.5%-of-x"]
)
def test_a_subset_of_another_form_is_refused(subset: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"subset {subset!r} is not of the form '10%-of-images', ")):
        catalogue.data_parts(f"imagenet:{subset}")


WRONG_NAMES = {
    "task": (("lables", "digits", "conv4"), "task 'lables' is not known; did you mean 'labels'?"),
    "architecture": (("labels", "digits", "conv-4"), "architecture 'conv-4' is not known; did you mean 'conv4'?"),
    "data set": (("labels", "digit", "conv4"), "data set 'digit' is not known; did you mean 'digits'?"),
    "data set with a part": (("labels", "folders/pets", "conv4"), "data set 'folders' is not known; did you mean"),
    "subset": (("labels", "digits:10%-of-pixels", "conv4"), "subset '10%-of-pixels' is not of the form"),
    "only behind a mask": (("rotnett", "digits", "conv4"), "task 'rotnett' is not known; did you mean 'rotnet'?"),
}


@pytest.mark.parametrize("what", WRONG_NAMES)
def test_a_sweep_file_with_a_wrong_name_is_refused(what: str, cli: Cli) -> None:
    wrong, sentence = WRONG_NAMES[what]
    assert sentence in refuse_file(cli, NAMED.replace("{}", f"[('labels', 'digits', 'conv4'), {wrong}]"))


WITH_OPTIONS = NAMED.replace(
    'recipe = s.recipes["labels"]', 'recipe = replace(s.recipes["labels"], options=OPTIONS)'
).replace("{}", "[('exemplar', 'digits', 'conv4')]")
WITH_OPTIONS = f"from dataclasses import replace\n{WITH_OPTIONS}"
WRONG_OPTIONS = {
    "{'margn': 0.5}": "task exemplar has no option 'margn'; its options: dimension, margin, negatives",
    "{'margin': '0.5'}": "option margin of task exemplar must be of type float, not '0.5'",
    "(('margin', -1.0),)": "Exemplar needs a dimension of at least 1 and a margin above 0",
}


@pytest.mark.parametrize("wrong", WRONG_OPTIONS)
def test_a_wrong_option_of_a_task_is_refused_before_anything_trains(wrong: str, cli: Cli) -> None:
    sentence = refuse_file(cli, WITH_OPTIONS.replace("OPTIONS", wrong))
    assert f"mine.py: {WRONG_OPTIONS[wrong]}" in sentence


def test_options_of_a_users_own_task_are_left_to_its_class(cli: Cli) -> None:
    text = WITH_OPTIONS.replace("OPTIONS", "{'depth': 3}").replace("'exemplar'", "'theirs:Jigsaw'")
    (cli.folder / "mine.py").write_text(text.replace('task="labels"', 'task="theirs:Jigsaw"'))
    assert cli("mine.py", "--dry-run").code == 0


def test_wrong_names_are_found_without_torch(tmp_path: Path) -> None:
    code = """
import sys
from raysslprune import execution, sweep
execution.Execution.train = None  # a wrong name that is taken must not start Ray
codes = [sweep.main([f"{name}.py", *more]) for name in sys.argv[1:] for more in ([], ["--dry-run"])]
print(codes, {"torch", "ray"} & set(sys.modules))
"""
    wrong = {NAMED.replace("{}", f"[{names}]"): sentence for names, sentence in WRONG_NAMES.values()}
    wrong |= {WITH_OPTIONS.replace("OPTIONS", given): sentence for given, sentence in WRONG_OPTIONS.items()}
    files = [f"wrong{number}" for number in range(len(wrong))]
    for file, text in zip(files, wrong, strict=True):
        (tmp_path / f"{file}.py").write_text(text)
    run = subprocess.run([sys.executable, "-c", code, *files], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.stdout == f"{[USAGE] * 2 * len(files)} set()\n", run.stderr
    lines = run.stderr.splitlines()
    assert len(lines) == 2 * len(files)
    for line, sentence in zip(lines[::2], wrong.values(), strict=True):
        assert line.startswith("raysslprune: ")
        assert sentence in line
