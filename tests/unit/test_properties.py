"""What holds for anything that can be written in a sweep file, typed as an option, planned, or pruned."""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, example, given, settings
from hypothesis import strategies as st

from raysslprune import masks
from raysslprune.__main__ import tree
from raysslprune.plan.cost import cost_of
from raysslprune.plan.graph import make_plan
from raysslprune.plan.schedule import Schedule
from raysslprune.spec import (
    SVM,
    Final,
    Imported,
    Init,
    Mask,
    Prune,
    RandomPrune,
    Recipe,
    Rewind,
    Shuffle,
    Step,
    Train,
    closure,
    dump,
    survivors,
)
from raysslprune.spec import load as load_steps
from raysslprune.sweep_loader import SweepError, load
from raysslprune.sweepfile import Point
from tests.helpers import CHECKOUT
from tests.helpers.strategies import graphs
from tests.tools import fuzz

RECIPE = Recipe(samples=640, batch=64, lr=0.1)
DENSE = Train(task="labels", data="digits", arch="conv4", recipe=RECIPE, seed=0, start=Init(seed=0))
PRUNED = Prune(of=DENSE, keep=0.5)
VALUES: dict[type[Any], Any] = {
    Recipe: RECIPE,
    SVM: SVM(costs=(1.0,)),
    Init: Init(seed=0),
    Rewind: Rewind(of=DENSE, samples=64),
    Final: Final(of=DENSE),
    Train: DENSE,
    Prune: PRUNED,
    RandomPrune: RandomPrune(arch="conv4", data="digits", keep=0.5, level=1, seed=0),
    Shuffle: Shuffle(of=PRUNED, seed=0),
    Imported: Imported(arch="conv4", channels=1, digest="0" * 64),
}
"""One of each kind of value that a result depends on."""
ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.sampled_from([0, 1, 2, -1, 0.5, 64, 2**31, 2**63, 1e300, math.nan, math.inf, -math.inf, -0.0]),
    st.text(max_size=8),
    st.sampled_from(["labels", "sgd", "adamw", "steps", "cosine", "bf16", "all", "convs:2", "\0", "\ud800"]),
    st.binary(max_size=3),
    st.lists(st.floats() | st.integers(), max_size=4),
    st.tuples(st.floats(), st.floats(), st.floats(), st.floats()),
    st.lists(st.integers(0, 10**6), max_size=3).map(tuple),
    st.lists(st.tuples(st.text(max_size=3), st.integers() | st.floats() | st.text(max_size=3)), max_size=3).map(tuple),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from([*VALUES.values(), print, int, object(), 1j]),
)


def within(value: Any) -> Train:
    """A training that has the value somewhere in it."""
    match value:
        case Train():
            return value
        case Recipe() | SVM():
            frozen = isinstance(value, SVM)
            return dataclasses.replace(DENSE, recipe=value, trunk_frozen=frozen)
        case Init() | Rewind() | Final():
            return dataclasses.replace(DENSE, start=value)
    assert isinstance(value, Mask)
    return dataclasses.replace(DENSE, mask=value)


# ------------------------------------------------------------------------------------- values and steps


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
@given(data=st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
def test_a_value_of_anything_is_refused_in_a_sentence_or_comes_back_as_it_is(kind: type[Any], data: Any) -> None:
    fields = [field.name for field in dataclasses.fields(kind)]
    some = data.draw(st.dictionaries(st.sampled_from(fields), ANYTHING, min_size=1, max_size=2))
    try:
        value = dataclasses.replace(VALUES[kind], **some)
        step = within(value)
    except ValueError as error:
        refused = str(error)
    else:
        refused = ""
        _comes_back(value, step)
    assert not refused or 10 < len(refused) < 1000
    assert "\n" not in refused


def _comes_back(value: Any, step: Train) -> None:
    back = load_steps(json.loads(json.dumps(dump([step]))))[step.id]
    assert back == step
    for ours, theirs in zip(closure([step]), closure([back]), strict=True):
        assert vars(ours) | {"parents": 0} == vars(theirs) | {"parents": 0}
        json.dumps(dump([theirs]), allow_nan=False)
    hash(value)


FIELDS = [field.name for field in dataclasses.fields(Recipe)]
PAIRS = st.sampled_from(FIELDS).flatmap(
    lambda name: st.tuples(st.just(name), ANYTHING).flatmap(
        lambda one: st.tuples(st.just(one), st.tuples(st.just(name), ANYTHING | st.sampled_from(_like(one[1]))))
    )
)
"""Two values of one field, often alike."""


def _like(value: Any) -> list[Any]:
    """What is equal to it, or nearly, in other types."""
    if isinstance(value, (bool, int, float)) and abs(value) < 2**40:  # not NaN
        return [value, bool(value), int(value), float(value), str(value)]
    return [value]


@given(pair=PAIRS)
@example(pair=(("pad", 1), ("pad", True)))
@example(pair=(("flip", 1), ("flip", True)))
@example(pair=(("momentum", 1), ("momentum", 1.0)))
@settings(max_examples=200)
def test_equal_recipes_are_one_step_and_others_are_two(pair: tuple[tuple[str, Any], tuple[str, Any]]) -> None:
    try:
        one, other = (dataclasses.replace(RECIPE, **{name: value}) for name, value in pair)
    except ValueError:
        return
    assert (one == other) == (within(one).id == within(other).id)


def shuffled(plain: Any, rng: random.Random) -> Any:
    """JSON data with the fields of all its objects in another order."""
    if isinstance(plain, dict):
        items = list(plain.items())
        rng.shuffle(items)
        return {name: shuffled(value, rng) for name, value in items}
    return [shuffled(item, rng) for item in plain] if isinstance(plain, list) else plain


@given(steps=graphs(), rng=st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_an_id_knows_no_order_of_fields(steps: list[Step], rng: random.Random) -> None:
    graph = dump(steps)
    assert list(load_steps({step_id: shuffled(plain, rng) for step_id, plain in graph.items()})) == list(graph)


def test_ids_of_any_steps_are_the_same_in_another_process() -> None:
    """Where sets have another order, and nothing was made before."""
    found: list[dict[str, Any]] = []

    @given(steps=graphs())
    @settings(max_examples=30, database=None, derandomize=True, phases=[Phase.generate])
    def collect(steps: list[Step]) -> None:
        found.append(dump(steps))

    collect()
    assert len({step_id for graph in found for step_id in graph}) > 30
    code = "import json, sys; from raysslprune.spec import load; [load(graph) for graph in json.load(sys.stdin)]"
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    command = [sys.executable, "-c", code]  # load compares each id with that of what it has made
    run = subprocess.run(command, input=json.dumps(found), env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


UNDER_A_MASK = dataclasses.replace(DENSE, start=Init(seed=1), mask=PRUNED)


# ------------------------------------------------------------------------------------- plans


@given(steps=graphs(), rng=st.randoms(use_true_random=False))
@example(steps=[DENSE, PRUNED, UNDER_A_MASK], rng=random.Random(0))
@settings(max_examples=60)
def test_any_plan_is_a_graph_without_cycles_in_order(steps: list[Step], rng: random.Random) -> None:
    trains = [step for step in steps if isinstance(step, Train)]
    points = [Point(step=step, task="t", init="i", level=n, seed=0) for n, step in enumerate(trains)]
    made = make_plan(points)
    places = {job_id: place for place, job_id in enumerate(made.jobs)}
    for job in made.jobs.values():
        assert all(places[parent.id] < places[job.id] for parent in job.parents), "a child before its parent"
        assert len({parent.id for parent in job.parents}) == len(job.parents)
        assert all(job in parent.children for parent in job.parents)
        assert all(job in child.parents for child in job.children)
    needed = closure(trains)
    assert set(made.jobs) == {step.id for step in needed if isinstance(step, Train)}
    assert len(made.ids) == len(set(made.ids)), "a step is made twice"
    assert set(made.ids) == {step.id for step in needed}
    makers = {step.id: job.id for job in made.jobs.values() for step in (job.train, *job.after)}
    for job in made.jobs.values():
        reads = {makers[parent.id] for parent in job.train.parents if parent.id in makers}
        assert reads - {job.id} <= {parent.id for parent in job.parents}
    handed: list[str] = []
    schedule = Schedule(made.jobs.values(), {job_id: rng.random() for job_id in made.jobs})
    while (job := schedule.next()) is not None:
        for step in closure([job.train, *job.masks]):  # a mask that needs no training may be made again
            assert makers.get(step.id, job.id) in (*handed, job.id), "a job before what it reads"
        handed.append(job.id)
        schedule.done(job.id)
    assert sorted(handed) == sorted(made.jobs)
    assert schedule.finished


@given(steps=graphs(), rng=st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_a_plan_knows_no_order_of_points(steps: list[Step], rng: random.Random) -> None:
    points = [Point(step=s, task="t", init="i", level=n, seed=0) for n, s in enumerate(steps) if isinstance(s, Train)]
    assume(points)
    graphs_ = []
    for _ in range(2):
        made = make_plan(points)
        graphs_.append(
            {job.id: (job.snapshots, job.weights, {p.id for p in job.parents}) for job in made.jobs.values()}
        )
        rng.shuffle(points)
    assert graphs_[0] == graphs_[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweeps")


def loaded(path: Path, text: str) -> bool:
    """Whether it is taken; what is not, is refused in one sentence that names the file."""
    path.write_text(text, encoding="utf-8", errors="replace")
    try:
        sweep = load(str(path), "smoke", 1)
    except SweepError as error:
        refused = str(error)
        if str(path) not in refused or "\n" in refused:
            pytest.fail(refused)
        return False
    made = make_plan(sweep.points)
    assert cost_of(made.jobs.values(), {}, {}).seconds.keys() == made.jobs.keys()
    json.dumps(dump(point.step for point in sweep.points), allow_nan=False)
    return True


# ------------------------------------------------------------------------------------- sweep files


@given(rng=st.randoms(use_true_random=False))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sweep_file_is_taken_or_refused(folder: Path, rng: random.Random) -> None:
    how = rng.choice((fuzz.mutated, fuzz.with_a_value))
    loaded(folder / "changed.py", how(fuzz.GOOD, rng))


@given(text=st.text(max_size=60) | st.lists(st.sampled_from(fuzz.LINES), max_size=3).map("\n".join), good=st.booleans())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_as_a_sweep_file_is_taken_or_refused(folder: Path, text: str, good: bool) -> None:
    assume("KeyboardInterrupt" not in text)
    loaded(folder / "text.py", f"{fuzz.GOOD}\n{text}" if good else text)


def test_the_good_sweep_file_is_taken(folder: Path) -> None:
    """Or the tests above would show little."""
    assert loaded(folder / "good.py", fuzz.GOOD)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("def points(scale, seed):\n    while True: yield None", "check for an endless loop"),
        ("raise Exception('y' * 10**6)", "yyy"),
        ("FIGURE = 0.int", "SyntaxError"),
        ("from raysslprune.spec import Recipe\nRecipe(samples=9, batch=2, lr=1, flip=1)", "flip"),
        ("imp(task='labels', data=1, arch='', recipe=1, seed=0, levels=10**9, keep=0.5, rewind=0)", "levels must be"),
    ],
)  # fmt: skip
def test_what_no_sweep_file_may_do_is_said(
    what: str, said: str, folder: Path, recwarn: pytest.WarningsRecorder
) -> None:
    path = folder / "wrong.py"
    path.write_text(f"{fuzz.GOOD}\n{what}\n")
    with pytest.raises(SweepError) as refused:
        load(str(path), "smoke", 1)
    assert said in str(refused.value)
    assert len(str(refused.value)) < 3000
    assert not recwarn.list


@cache
def commands() -> dict[str, argparse.ArgumentParser]:
    (kinds,) = (action for action in tree()._actions if isinstance(action, argparse._SubParsersAction))
    return dict(kinds.choices)


# ------------------------------------------------------------------------------------- options


@given(rng=st.randoms(use_true_random=False))
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_options_are_taken_or_refused_in_a_sentence(rng: random.Random, capsys: pytest.CaptureFixture[str]) -> None:
    name = rng.choice(list(fuzz.BASES))
    arguments = fuzz.wrong(name, rng.choice(fuzz.BASES[name]), rng)
    capsys.readouterr()
    try:
        commands()[name].parse_args(arguments)
        code: object = None
    except SystemExit as end:
        code = end.code
    said = capsys.readouterr().err
    assert code in (None, 0, 2)
    assert len(said.splitlines()) == (code == 2)
    assert all(line.startswith("raysslprune: ") and line.isprintable() for line in said.splitlines())


@given(rng=st.randoms(use_true_random=False))
@settings(max_examples=100)
def test_options_mean_the_same_in_any_order_and_form(rng: random.Random) -> None:
    given_ = {"--scale": "smoke", "--seeds": "3", "--root": "a b", "--keep": "needed", "--data": "-x", "--explain": "0"}
    options = rng.sample(sorted(given_), rng.randrange(1, len(given_)))
    pairs = [[f"{option}={given_[option]}"] for option in options]
    parser = commands()["sweep"]
    first = parser.parse_args(["fig3", *(word for pair in pairs for word in pair)])
    rng.shuffle(pairs)
    pairs = [pair if rng.random() < 0.5 or "-x" in pair[0] else pair[0].split("=", 1) for pair in pairs]
    pairs.insert(rng.randrange(len(pairs) + 1), ["fig3"])
    assert parser.parse_args([word for pair in pairs for word in pair]) == first


@pytest.mark.parametrize(
    "cases", [20, pytest.param(300, marks=[pytest.mark.slow, pytest.mark.timeout(600)])], ids="{} cases".format
)
def test_bad_calls_by_the_script(cases: int) -> None:
    """More would take ten minutes; docs/reliability.md has what thousands came to."""
    command = [sys.executable, "-m", "tests.tools.fuzz", "--cases", str(cases), "--seed", "1"]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"\n{cases} cases in " in run.stdout


DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
SMALLEST = {dtype: torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps for dtype in DTYPES}
"""Of the numbers that are not zero, the denormal ones."""


@st.composite
def networks(draw: st.DrawFn) -> tuple[dict[str, torch.Tensor], masks.Mask]:
    """Layers of any shape, some without a weight, with zeros, ties, denormals and infinities; and what is left."""
    dtypes = draw(st.sampled_from([(dtype,) for dtype in DTYPES] + [(torch.float32, torch.float64)]))
    weights, mask = {}, {}
    for number in range(draw(st.integers(1, 3))):
        dtype = draw(st.sampled_from(dtypes))
        shape = draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
        count = math.prod(shape)
        tiny = SMALLEST[dtype]
        some = st.sampled_from([0.0, -0.0, tiny, -tiny, 3 * tiny, 0.5, -0.5, 1.0, math.inf, -math.inf, 0.1, -0.1, 1e-5])
        values = draw(st.lists(some, min_size=count, max_size=count))
        left = draw(st.one_of(st.just([True] * count), st.lists(st.booleans(), min_size=count, max_size=count)))
        weights[f"w{number}"] = torch.tensor(values, dtype=dtype).view(shape)
        mask[f"w{number}"] = torch.tensor(left, dtype=torch.bool).view(shape)
    return weights, mask


# ------------------------------------------------------------------------------------- masks


@given(network=networks(), keep=st.floats(0, 1, exclude_min=True, exclude_max=True))
@settings(max_examples=150)
def test_of_any_weights_exactly_as_many_stay_and_the_largest(
    network: tuple[dict[str, torch.Tensor], masks.Mask], keep: float
) -> None:
    weights, mask = network
    pruned, tied = masks.prune(weights, mask, keep, torch.Generator().manual_seed(7))
    left = [
        (abs(float(weight)), name, i)
        for name in mask
        for i, (weight, stays) in enumerate(zip(weights[name].flatten(), mask[name].flatten(), strict=True))
        if stays
    ]
    stay = survivors(len(left), keep)
    ranked = sorted((size for size, *_ in left), reverse=True)
    found = {(name, i) for name in mask for i in pruned[name].flatten().nonzero().flatten().tolist()}
    assert found <= {entry[1:] for entry in left}
    assert sorted((size for size, *entry in left if tuple(entry) in found), reverse=True) == ranked[:stay]
    decided = 0 < stay < len(left) and ranked[stay - 1] == ranked[stay]
    assert tied == (ranked.count(ranked[stay]) if decided else 0)
    assert {name: m.shape for name, m in pruned.items()} == {name: m.shape for name, m in mask.items()}
    assert all(m.dtype == torch.bool for m in pruned.values())


@given(network=networks(), place=st.integers(0, 10**6), keep=st.floats(0.01, 0.99))
@settings(max_examples=100)
def test_what_is_no_number_is_refused_where_it_is_left_and_only_there(
    network: tuple[dict[str, torch.Tensor], masks.Mask], place: int, keep: float
) -> None:
    weights, mask = network
    places = [(name, i) for name in mask for i in range(mask[name].numel())]
    assume(places)
    name, i = places[place % len(places)]
    weights[name].view(-1)[i] = math.nan
    if mask[name].view(-1)[i]:
        with pytest.raises(ValueError, match="that are NaN"):
            masks.prune(weights, mask, keep, torch.Generator())
    else:
        pruned, _ = masks.prune(weights, mask, keep, torch.Generator())
        assert not pruned[name].view(-1)[i]


@given(network=networks(), keep=st.floats(0.01, 0.9))
@settings(max_examples=50)
def test_pruning_again_and_again_ends_with_none_and_never_brings_one_back(
    network: tuple[dict[str, torch.Tensor], masks.Mask], keep: float
) -> None:
    weights, mask = network
    total = sum(int(m.sum()) for m in mask.values())
    for level in range(1, 12):
        before, mask = mask, masks.prune(weights, mask, keep, torch.Generator()).mask
        assert not any((mask[name] & ~before[name]).any() for name in mask)
        assert sum(int(m.sum()) for m in mask.values()) == masks.left_after(total, keep, level)


@given(network=networks(), count=st.integers(0, 300), seed=st.integers(0, 2**62))
@settings(max_examples=100)
def test_any_mask_is_drawn_shuffled_and_packed_with_exact_counts(
    network: tuple[dict[str, torch.Tensor], masks.Mask], count: int, seed: int
) -> None:
    weights, mask = network
    shapes = {name: weight.shape for name, weight in weights.items()}
    total = sum(shape.numel() for shape in shapes.values())
    drawn = masks.random(shapes, count, torch.Generator().manual_seed(seed))
    assert sum(int(m.sum()) for m in drawn.values()) == min(count, total)
    eligible = masks.nonzero(weights)
    adjusted = masks.random(shapes, count, torch.Generator().manual_seed(seed), eligible=eligible)
    assert sum(int(m.sum()) for m in adjusted.values()) == min(count, sum(int(m.sum()) for m in eligible.values()))
    assert not any((adjusted[name] & ~eligible[name]).any() for name in shapes)
    moved = masks.shuffle(mask, torch.Generator().manual_seed(seed))
    assert {name: int(m.sum()) for name, m in moved.items()} == {name: int(m.sum()) for name, m in mask.items()}
    back = masks.unpack(masks.pack(mask), shapes)
    assert all(torch.equal(back[name], mask[name]) for name in shapes)
    assert masks.digest(back) == masks.digest(mask)
    others = {name: ~m for name, m in mask.items()}
    assert (masks.digest(others) == masks.digest(mask)) == (total == 0)
