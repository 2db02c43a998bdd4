"""Identity: what changes a step's id, and what does not."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysslprune.lottery import Chain, finetune, imp, linear, random_prune, random_reinit, untrained, winning_ticket
from raysslprune.paper.scales import SETTINGS
from raysslprune.spec import (
    SVM,
    Final,
    ImportedWeights,
    Init,
    Prune,
    RandomPrune,
    Recipe,
    Rewind,
    Shuffle,
    Step,
    Train,
    closure,
    dump,
    load,
    read_by,
    seed_of,
    to_plain,
)
from tests.helpers.strategies import graphs, recipes

RECIPE = Recipe(samples=14_400, batch=64, lr=0.05, momentum=0.9)
STEPPED = dataclasses.replace(RECIPE, schedule="steps", decay_at=(7_200,))
INIT = Init(seed=0)
DENSE = Train(task="labels", data="digits", arch="conv4", recipe=RECIPE, seed=0, start=INIT)
ROTNET = dataclasses.replace(DENSE, task="rotnet")
REWIND = Rewind(of=DENSE, samples=1_200)
PRUNE = Prune(of=DENSE, keep=0.8)
MOVED = Prune(of=DENSE, keep=0.8, criterion="movement")
RANDOM = RandomPrune(arch="conv4", data="digits", keep=0.8, level=3, seed=0)
SHUFFLE = Shuffle(of=PRUNE, seed=0)
FINAL = Final(of=ROTNET)
MACHINES = SVM(costs=(0.1, 1.0))
VOC = Train(
    task="labels", data="voc07", arch="conv4", recipe=MACHINES, seed=0, start=FINAL, mask=PRUNE, trunk_frozen=True
)


def id_of(value: Any) -> str:
    """Of a step, or of a training that has this recipe or start."""
    if isinstance(value, Recipe):
        return dataclasses.replace(DENSE, recipe=value).id
    if isinstance(value, SVM):
        return dataclasses.replace(VOC, recipe=value).id
    if isinstance(value, (Init, Rewind, Final)):
        return dataclasses.replace(DENSE, start=value).id
    assert isinstance(value, Step)
    return value.id


def long_chain(levels: int) -> Chain:
    return imp(task="labels", data="digits", arch="conv4", recipe=RECIPE, seed=0, levels=levels, keep=0.8, rewind=1_200)


# ------------------------------------------------------------------------------------- ids

_ROUND_1 = dataclasses.replace(DENSE, start=REWIND, mask=PRUNE)

# A change here renames every stored run: users would train everything again. Where a step's meaning has changed,
# raise the VERSION of its kind; else find what changed the id, and undo it.
GOLDEN = {
    "dense": (DENSE, "7e9b8162fd4257b7"),
    "dense on rotnet": (ROTNET, "2eb2575c4dd242e6"),
    "another seed and draw": (dataclasses.replace(DENSE, seed=5, start=Init(seed=3, draw=1)), "e81798b96413cdc3"),
    "every field of a recipe": (
        dataclasses.replace(
            DENSE,
            recipe=Recipe(
                samples=3_840_000,
                batch=1_536,
                lr=0.1,
                optimizer="sgd",
                momentum=0.9,
                nesterov=True,
                weight_decay=1e-4,
                schedule="steps",
                decay_at=(1_200_000, 2_400_000),
                warmup=15_360,
                pad=4,
                flip=True,
            ),
        ),
        "91e19a2e584c04e7",
    ),
    "adam": (
        dataclasses.replace(DENSE, recipe=Recipe(samples=100, batch=2, lr=1e-3, optimizer="adam")),
        "fa7ac868eeadd7c5",
    ),
    "prune": (PRUNE, "de9d33f8a57b3eb0"),
    "prune three convolutions": (Prune(of=DENSE, keep=0.64, scope="convs:3"), "eb4838f3f6723af1"),
    "random prune": (RANDOM, "16b14ee976de56b2"),
    "shuffle": (SHUFFLE, "e6dd3d006301606d"),
    "snip at initialisation": (
        Prune(of=ROTNET, keep=0.1, criterion="snip", at=0, samples=100, passes=5, allocation="uniform"),
        "7e7ea24948e120d9",
    ),
    "movement since a snapshot": (Prune(of=DENSE, keep=0.8, criterion="movement", since=1_200), "a8a1f5f7291ad6b6"),
    "filters": (Prune(of=DENSE, keep=0.8, criterion="batchnorm", unit="filter"), "3f86ef2d0dee579a"),
    "round 1": (_ROUND_1, "6475cf40c90d58ca"),
    "prune of round 1": (Prune(of=_ROUND_1, keep=0.8), "fed1caf90b7ea479"),
    "ticket of another task": (dataclasses.replace(_ROUND_1, task="rotnet"), "e2c6b1682bbc6f35"),
    "random mask, random start": (
        dataclasses.replace(DENSE, start=Init(seed=0, draw=1), mask=RANDOM),
        "88c2cb2aaa2f38b9",
    ),
    "round 20 at laptop scale": (
        imp(
            task="rotnet",
            data="digits",
            arch="conv4",
            recipe=SETTINGS["laptop"].recipes["rotnet"],
            seed=2,
            levels=21,
            keep=0.8,
            rewind=1_200,
        ).rounds[20],
        "86ad763fc7ff8709",
    ),
    "every newer field of a recipe": (
        dataclasses.replace(
            DENSE,
            task="exemplar",
            recipe=Recipe(
                samples=51_200_000,
                batch=1_536,
                lr=0.3,
                bn_batch=48,
                flip=True,
                crop=0.08,
                angle=10,
                jitter=(0.4, 0.4, 0.4, 0.1),
                grayscale=0.2,
                options=(("dimension", 128), ("margin", 0.5), ("negatives", "random")),
            ),
        ),
        "a25455f5e13ee92b",
    ),
    "linear classifier": (linear(_ROUND_1, data="places205", recipe=RECIPE), "17273c2f00d08296"),
    "linear SVMs": (VOC, "1a7dae9db1aee330"),
    "linear SVMs on drawn weights": (
        dataclasses.replace(untrained(_ROUND_1, data="voc07", recipe=MACHINES), calibrated=False),
        "a65bb6e74a845d3e",
    ),
    "fine-tuning": (finetune(ROTNET, data="voc07", recipe=RECIPE), "7d9aa4c5b4ad90f2"),
    "random mask over three convolutions": (
        random_prune(like=DENSE, keep=0.8, level=3, scope="convs:3"),
        "0c3e3c32d5170b11",
    ),
    "random mask without natural zeros": (
        random_prune(like=DENSE, keep=0.8, level=3, nonzero=DENSE),
        "7069df7a4a90091d",
    ),
    "under that mask": (
        random_reinit(
            random_prune(like=DENSE, keep=0.8, level=3, nonzero=DENSE), like=DENSE, task="labels", recipe=RECIPE
        ),
        "2c9939b6b8e3d7db",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_ids(name: str) -> None:
    step, golden = GOLDEN[name]
    assert step.id == golden


def test_an_id_by_hand() -> None:
    recipe = '{"batch":64,"lr":0.05,"momentum":0.9,"samples":14400,"value":"Recipe"}'
    start = '{"seed":0,"value":"Init"}'
    dense = (
        f'{{"arch":"conv4","data":"digits","kind":"Train","recipe":{recipe},"seed":0,"start":{start},'
        '"task":"labels","version":1}'
    )
    assert DENSE.id == hashlib.sha256(dense.encode()).hexdigest()[:16]
    prune = f'{{"keep":0.8,"kind":"Prune","of":{{"step":"{DENSE.id}"}},"version":1}}'
    assert PRUNE.id == hashlib.sha256(prune.encode()).hexdigest()[:16]


def test_ids_of_the_newer_kinds_by_hand() -> None:
    machines = (
        '{"arch":"conv4","data":"voc07","kind":"Train","mask":{"step":"%s"},'
        '"recipe":{"costs":[0.1,1],"value":"SVM"},"seed":0,"start":{"of":{"step":"%s"},"value":"Final"},'
        '"task":"labels","trunk_frozen":true,"version":1}'
    )
    assert VOC.id == hashlib.sha256((machines % (PRUNE.id, ROTNET.id)).encode()).hexdigest()[:16]
    untaught = (
        '{"arch":"conv4","calibrated":true,"data":"voc07","kind":"Train","recipe":{"costs":[0.1,1],"value":"SVM"},'
        '"seed":0,"start":{"draw":1,"seed":0,"value":"Init"},"task":"labels","trunk_frozen":true,"version":1}'
    )
    assert (
        untrained(DENSE, data="voc07", recipe=MACHINES, draw=1).id
        == (hashlib.sha256(untaught.encode()).hexdigest()[:16])
    )
    ticket = (
        '{"arch":"conv4","data":"digits","first_sample":0,"kind":"Train","mask":{"step":"%s"},"recipe":%s,"seed":0,'
        '"start":{"of":{"step":"%s"},"samples":1200,"value":"Rewind"},"task":"labels","version":1}'
    )
    recipe = '{"batch":64,"lr":0.05,"momentum":0.9,"samples":14400,"value":"Recipe"}'
    chain = Chain(rounds=(ROTNET,), masks=(None, Prune(of=ROTNET, keep=0.8)), rewind=1_200)
    mask = chain.masks[1]
    assert mask is not None
    assert (
        winning_ticket(chain, 1, task="labels", recipe=RECIPE).id
        == (hashlib.sha256((ticket % (mask.id, recipe, ROTNET.id)).encode()).hexdigest()[:16])
    )
    drawn = (
        '{"arch":"conv4","data":"digits","keep":0.8,"kind":"RandomPrune","level":3,"nonzero":{"step":"%s"},'
        '"scope":"convs:2","seed":0,"version":1}'
    )
    step = dataclasses.replace(RANDOM, scope="convs:2", nonzero=DENSE)
    assert step.id == hashlib.sha256((drawn % DENSE.id).encode()).hexdigest()[:16]
    allocated = (
        '{"allocation":"erk","arch":"conv4","data":"digits","keep":0.8,"kind":"RandomPrune","level":3,"seed":0,'
        '"version":1}'
    )
    step = dataclasses.replace(RANDOM, allocation="erk")
    assert step.id == hashlib.sha256(allocated.encode()).hexdigest()[:16]
    recipe = '{"batch":64,"lr":0.05,"momentum":0.9,"options":[["a",true],["b","x"],["c",2]],"samples":14400,'
    dense = (
        f'{{"arch":"conv4","data":"digits","kind":"Train","recipe":{recipe}"value":"Recipe"}},"seed":0,'
        '"start":{"seed":0,"value":"Init"},"task":"labels","version":1}'
    )
    made = dataclasses.replace(RECIPE, options=(("c", 2.0), ("a", True), ("b", "x")))
    assert id_of(made) == hashlib.sha256(dense.encode()).hexdigest()[:16]


def test_an_id_does_not_depend_on_the_order_of_keywords() -> None:
    recipe = Recipe(momentum=0.9, lr=0.05, batch=64, samples=14_400)
    assert Train(start=INIT, seed=0, recipe=recipe, arch="conv4", data="digits", task="labels").id == DENSE.id


def test_an_id_does_not_depend_on_fields_at_their_default() -> None:
    recipe = dataclasses.replace(
        RECIPE,
        optimizer="sgd",
        nesterov=False,
        schedule="constant",
        decay_at=(),
        warmup=0,
        bn_batch=0,
        pad=0,
        flip=False,
        crop=0,
        angle=0,
        jitter=(),
        grayscale=0,
        options=(),
    )
    step = Train(
        task="labels",
        data="digits",
        arch="conv4",
        recipe=recipe,
        seed=0,
        start=Init(seed=0, draw=0),
        mask=None,
        trunk_frozen=False,
    )
    assert step.id == DENSE.id
    assert dataclasses.replace(RANDOM, scope="all", nonzero=None, allocation="global").id == RANDOM.id
    spelled = SVM(costs=(0.1, 1.0), folds=3, positive_weight=2.0, tolerance=1e-4, iterations=2000)
    assert id_of(spelled) == VOC.id
    spelled = {"criterion": "magnitude", "allocation": "global", "unit": "weight", "samples": 512}
    spelled |= {"at": None, "since": None, "passes": None}
    assert Prune(of=DENSE, keep=0.8, scope="all", **spelled).id == PRUNE.id
    assert to_plain(DENSE)["recipe"].keys() == {"value", "samples", "batch", "lr", "momentum"}


def test_a_new_field_at_its_default_renames_nothing() -> None:
    """The rule that lets the project grow."""
    wider: Any = dataclasses.make_dataclass(
        "Recipe", [("ema", "float", 0.0)], bases=(Recipe,), frozen=True, kw_only=True
    )
    values = {field.name: getattr(RECIPE, field.name) for field in dataclasses.fields(RECIPE)}
    assert id_of(wider(**values)) == DENSE.id
    assert id_of(wider(**values, ema=0.5)) != DENSE.id


def test_ids_are_the_same_in_every_process() -> None:
    program = """
from raysslprune.spec import *
recipe = Recipe(samples=14_400, batch=64, lr=0.05, momentum=0.9)
dense = Train(task="labels", data="digits", arch="conv4", recipe=recipe, seed=0, start=Init(seed=0))
mask = Prune(of=dense, keep=0.8)
print(dense.id, mask.id, Shuffle(of=mask, seed=0).id, seed_of("epoch", 1, 2))
"""
    for hash_seed in ("0", "1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        run = subprocess.run([sys.executable, "-P", "-c", program], env=environment, capture_output=True, text=True)
        assert run.stdout.split() == [DENSE.id, PRUNE.id, SHUFFLE.id, str(seed_of("epoch", 1, 2))], run.stderr


# Every field of every noun: a value to begin with, and another one for the field.
CHANGES: dict[str, dict[str, tuple[Any, Any]]] = {
    "Recipe": {
        "samples": (RECIPE, 14_401),
        "batch": (RECIPE, 65),
        "lr": (RECIPE, 0.05000000001),
        "optimizer": (RECIPE, "adamw"),
        "momentum": (RECIPE, 0.0),
        "nesterov": (RECIPE, True),
        "weight_decay": (RECIPE, 1e-4),
        "schedule": (RECIPE, "cosine"),
        "decay_at": (STEPPED, (7_200, 9_600)),
        "warmup": (RECIPE, 640),
        "bn_batch": (RECIPE, 32),
        "pad": (RECIPE, 1),
        "flip": (RECIPE, True),
        "crop": (RECIPE, 0.08),
        "angle": (RECIPE, 10.0),
        "jitter": (RECIPE, (0.4, 0.4, 0.4, 0.1)),
        "grayscale": (RECIPE, 0.2),
        "precision": (RECIPE, "bf16"),
        "options": (RECIPE, (("margin", 0.5),)),
    },
    "SVM": {
        "costs": (MACHINES, (0.1,)),
        "folds": (MACHINES, 5),
        "positive_weight": (MACHINES, 1.0),
        "tolerance": (MACHINES, 1e-3),
        "iterations": (MACHINES, 1000),
    },
    "Init": {"seed": (INIT, 1), "draw": (INIT, 1)},
    "Rewind": {"of": (REWIND, ROTNET), "samples": (REWIND, 1_201)},
    "Final": {"of": (FINAL, DENSE)},
    "Train": {
        "task": (DENSE, "rotnet"),
        "data": (DENSE, "cifar10"),
        "arch": (DENSE, "resnet18"),
        "recipe": (DENSE, STEPPED),
        "seed": (DENSE, 1),
        "start": (DENSE, REWIND),
        "mask": (DENSE, PRUNE),
        "trunk_frozen": (DENSE, True),
        "first_sample": (DENSE, 64),
        "calibrated": (dataclasses.replace(DENSE, trunk_frozen=True), True),
    },
    "Prune": {
        "of": (PRUNE, ROTNET),
        "keep": (PRUNE, 0.64),
        "scope": (PRUNE, "convs:3"),
        "criterion": (PRUNE, "snip"),
        "allocation": (PRUNE, "lamp"),
        "unit": (PRUNE, "filter"),
        "at": (PRUNE, 0),
        "since": (MOVED, 1_200),
        "samples": (dataclasses.replace(PRUNE, criterion="snip"), 100),
        "passes": (PRUNE, 2),
    },
    "RandomPrune": {
        "arch": (RANDOM, "resnet18"),
        "data": (RANDOM, "cifar10"),
        "keep": (RANDOM, 0.64),
        "level": (RANDOM, 4),
        "seed": (RANDOM, 1),
        "scope": (RANDOM, "convs"),
        "nonzero": (RANDOM, DENSE),
        "allocation": (RANDOM, "erk"),
    },
    "Shuffle": {"of": (SHUFFLE, Prune(of=ROTNET, keep=0.8)), "seed": (SHUFFLE, 1)},
}


@pytest.mark.parametrize("kind", [Recipe, SVM, Init, Rewind, Final, Train, Prune, RandomPrune, Shuffle])
def test_every_field_changes_the_id(kind: type[Any]) -> None:
    assert CHANGES[kind.__name__].keys() == {field.name for field in dataclasses.fields(kind)}
    ids: list[str] = []
    for field, (base, value) in CHANGES[kind.__name__].items():
        changed = id_of(dataclasses.replace(base, **{field: value}))
        assert changed != id_of(base), field
        ids.append(changed)
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize("kind", [Train, Prune, RandomPrune, Shuffle])
def test_another_version_of_a_kind_is_another_id(kind: type[Step], monkeypatch: pytest.MonkeyPatch) -> None:
    old = {Train: DENSE, Prune: PRUNE, RandomPrune: RANDOM, Shuffle: SHUFFLE}[kind]
    monkeypatch.setattr(kind, "VERSION", 1_000)
    assert dataclasses.replace(old).id != old.id  # made anew, under the new version


def test_a_parents_change_reaches_all_its_descendants() -> None:
    other = dataclasses.replace(DENSE, seed=1)
    for a, b in ((DENSE, other), (PRUNE, Prune(of=other, keep=0.8))):
        assert a.id != b.id
    assert SHUFFLE.id != Shuffle(of=Prune(of=other, keep=0.8), seed=0).id


def test_an_id_is_16_hex_digits() -> None:
    assert len(DENSE.id) == 16
    assert set(DENSE.id) <= set("0123456789abcdef")


def test_equality_and_hash_are_those_of_the_id() -> None:
    twin = dataclasses.replace(DENSE)
    assert twin is not DENSE
    assert twin == DENSE
    assert len({twin, DENSE, ROTNET, PRUNE}) == 3
    assert DENSE != ROTNET
    assert DENSE.id != DENSE
    assert (DENSE == PRUNE) is False


def test_steps_and_values_are_frozen() -> None:
    for value in (RECIPE, MACHINES, INIT, REWIND, FINAL, DENSE, PRUNE, RANDOM, SHUFFLE):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, 1)


# ------------------------------------------------------------------------------------- dump and load


@given(steps=graphs())
@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
def test_a_graph_comes_back_from_json(steps: list[Step]) -> None:
    graph = dump(steps)
    back = load(json.loads(json.dumps(graph)))
    assert list(back) == list(graph)
    for step in steps:
        found = back[step.id]
        assert type(found) is type(step)
        for field in dataclasses.fields(step):  # pyright: ignore[reportArgumentType]
            assert getattr(found, field.name) == getattr(step, field.name)


@given(recipe=recipes(), shuffled=st.randoms())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_an_id_depends_neither_on_the_order_of_fields_nor_on_that_of_options(
    recipe: Recipe, shuffled: random.Random
) -> None:
    values = [(field.name, getattr(recipe, field.name)) for field in dataclasses.fields(recipe)]
    options = list(dict(recipe.options).items())
    shuffled.shuffle(values)
    shuffled.shuffle(options)
    twin = Recipe(**{**dict(values), "options": tuple(options)})
    assert list(twin.options) == sorted(options, key=lambda option: option[0])
    assert id_of(twin) == id_of(recipe)
    assert twin == recipe


@given(a=recipes(), b=recipes())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_other_recipes_are_other_steps(a: Recipe, b: Recipe) -> None:
    assert (id_of(a) == id_of(b)) == (a == b)


def test_options_and_costs_are_kept_in_order() -> None:
    options = {"temperature": 0.07, "Beta": 1, "dimension": 128, "all_turns": True}
    made = dataclasses.replace(RECIPE, options=options)
    assert made.options == (("Beta", 1), ("all_turns", True), ("dimension", 128), ("temperature", 0.07))
    assert made == dataclasses.replace(RECIPE, options=tuple(options.items()))
    assert hash(made) == hash(dataclasses.replace(made, options=made.options))
    assert SVM(costs=(1.0, 1e-3, 10.0)) == SVM(costs=(10.0, 1.0, 1e-3))
    assert SVM(costs=(1.0, 1e-3, 10.0)).costs == (1e-3, 1.0, 10.0)


@pytest.mark.parametrize("wrong", [{"margin": None}, {1: 0.5}, {"margin": [0.5]}, [("margin", 0.5)], "margin"])
def test_options_are_a_mapping_from_names_to_plain_values(wrong: Any) -> None:
    with pytest.raises(ValueError, match="options of Recipe must be a mapping from names to values, not "):
        dataclasses.replace(RECIPE, options=wrong)


def test_a_shuffled_mask_is_not_shuffled_again() -> None:
    with pytest.raises(ValueError, match="of of Shuffle must be a mask that is not shuffled, not <Shuffle "):
        Shuffle(of=SHUFFLE, seed=1)  # pyright: ignore[reportArgumentType]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hasty(Recipe):
    weights: list[float] = dataclasses.field(default_factory=list)


def test_an_annotation_without_a_check_is_an_error() -> None:
    """Or a new field would be of any type, and equal steps would have several ids."""
    with pytest.raises(TypeError, match=r"Hasty\.weights: check_types has no check for the annotation list\[float\]"):
        Hasty(samples=64, batch=64, lr=0.1)


def test_nested_tuples_come_back_as_tuples() -> None:
    recipe = dataclasses.replace(
        STEPPED, jitter=(0.4, 0.4, 0.0, 0.0), options=(("negatives", "semi-hard"), ("margin", 0.5), ("flag", False))
    )
    step = dataclasses.replace(DENSE, recipe=recipe)
    back = load(json.loads(json.dumps(dump([step, VOC]))))
    train, machines = back[step.id], back[VOC.id]
    assert isinstance(train, Train)
    assert isinstance(train.recipe, Recipe)
    assert train.recipe.options == (("flag", False), ("margin", 0.5), ("negatives", "semi-hard"))
    assert train.recipe.jitter == (0.4, 0.4, 0.0, 0.0)
    assert train.recipe.decay_at == (7_200,)
    hash(train.recipe)
    assert isinstance(machines, Train)
    assert machines.recipe == MACHINES
    assert machines.start == FINAL
    assert machines.trunk_frozen


@given(steps=graphs(), seed=st.integers(0, 100))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_closure_has_each_step_once_and_parents_first(steps: list[Step], seed: int) -> None:
    asked = random.Random(seed).sample(steps, k=(len(steps) + 1) // 2)
    found = closure([*asked, *asked])
    place = {step.id: i for i, step in enumerate(found)}
    assert len(place) == len(found)
    needed: set[str] = set()
    todo: list[Step] = list(asked)
    while todo:
        step = todo.pop()
        needed.add(step.id)
        todo += step.parents
    assert place.keys() == needed
    assert all(place[parent.id] < place[step.id] for step in found for parent in step.parents)


def test_parents_are_what_a_step_reads_from_each_once() -> None:
    assert DENSE.parents == ()
    assert PRUNE.parents == (DENSE,)
    assert set(_ROUND_1.parents) == {DENSE, PRUNE}
    assert SHUFFLE.parents == (PRUNE,)
    assert RANDOM.parents == ()
    assert set(VOC.parents) == {ROTNET, PRUNE}
    assert dataclasses.replace(DENSE, start=FINAL).parents == (ROTNET,)
    assert dataclasses.replace(RANDOM, nonzero=DENSE).parents == (DENSE,)
    assert dataclasses.replace(DENSE, seed=1, start=Final(of=DENSE), mask=PRUNE).parents == (DENSE, PRUNE)


def test_closure_goes_through_final_weights_and_natural_zeros() -> None:
    adjusted = random_prune(like=ROTNET, keep=0.8, level=3, nonzero=DENSE)
    last = linear(dataclasses.replace(ROTNET, mask=adjusted), data="voc07", recipe=MACHINES)
    assert {step.id for step in closure([last])} == {
        DENSE.id,
        adjusted.id,
        dataclasses.replace(ROTNET, mask=adjusted).id,
        last.id,
    }


def test_2000_rounds_are_no_deeper_than_one() -> None:
    levels = 2_000
    last = long_chain(levels).rounds[-1]
    found = closure([last])
    assert len(found) == levels + (levels - 1)
    assert found[0].id == DENSE.id
    assert found[-1] is last


def test_2000_rounds_travel_as_plain_data() -> None:
    graph = dump([long_chain(2_000).rounds[-1]])
    assert list(load(json.loads(json.dumps(graph)))) == list(graph)


def tampered(**changes: Any) -> dict[str, dict[str, Any]]:
    graph = json.loads(json.dumps(dump([_ROUND_1])))
    graph[DENSE.id].update(changes)
    return graph


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"task": "rotnet"}, {"version": 2}, {"start": {"value": "Init", "seed": 1}}]
)
def test_load_refuses_what_does_not_match_its_id(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{DENSE.id} was made by another version"):
        load(tampered(**changes))


def test_load_accepts_what_was_not_tampered_with() -> None:
    assert load(tampered())[_ROUND_1.id] == _ROUND_1


# ------------------------------------------------------------------------------------- bad values

GOOD = {"samples": 100, "batch": 10, "lr": 0.1}
BAD_RECIPES: list[tuple[dict[str, Any], str]] = [
    ({"samples": 0}, "samples > 0, not 0"),
    ({"samples": -5}, "samples > 0, not -5"),
    ({"batch": 1}, "batch > 1 .*, not 1"),
    ({"lr": 0.0}, "lr > 0, not 0.0"),
    ({"lr": float("nan")}, "lr > 0, not nan"),
    ({"optimizer": "lars"}, "'lars' is not one of sgd, adam, adamw"),
    ({"schedule": "step"}, "'step' is not one of constant, cosine, linear, steps"),
    ({"nesterov": True}, "nesterov needs momentum"),
    ({"schedule": "linear", "warmup": RECIPE.samples}, "a warm-up that ends before the recipe's"),
    ({"schedule": "steps"}, "decay_at is required with schedule 'steps'"),
    ({"decay_at": (5,)}, "decay_at is required with schedule 'steps' and not allowed with other schedules"),
    ({"weight_decay": -1e-4}, "can't be negative"),
    ({"weight_decay": float("nan")}, "can't be negative"),
    ({"warmup": -1}, "can't be negative"),
    ({"pad": -1}, "can't be negative"),
    ({"bn_batch": 1}, "bn_batch must divide the batch of 10 and be at least 2, not 1"),
    ({"bn_batch": 3}, "bn_batch must divide the batch of 10 and be at least 2, not 3"),
    ({"bn_batch": 20}, "bn_batch must divide the batch of 10"),
    ({"bn_batch": -5}, "bn_batch must divide the batch of 10"),
    ({"crop": -0.01}, "crop must be a fraction of the image's area, not -0.01"),
    ({"crop": 1.01}, "crop must be a fraction of the image's area, not 1.01"),
    ({"crop": float("nan")}, "crop must be a fraction of the image's area, not nan"),
    ({"crop": 0.08, "pad": 2}, "a recipe has pad or crop, not both"),
    ({"angle": -1}, "angle must be from 0 to 180 degrees, not -1"),
    ({"angle": 180.5}, "angle must be from 0 to 180 degrees, not 180.5"),
    ({"angle": float("nan")}, "angle must be from 0 to 180 degrees, not nan"),
    ({"grayscale": -0.1}, "grayscale must be a probability, not -0.1"),
    ({"grayscale": 1.1}, "grayscale must be a probability, not 1.1"),
    ({"jitter": (0.4, 0.4, 0.4)}, "jitter must be four strengths from 0 to 1"),
    ({"jitter": (0.1,) * 5}, "jitter must be four strengths from 0 to 1"),
    ({"jitter": (1.1, 0.4, 0.4, 0.1)}, "jitter must be four strengths from 0 to 1"),
    ({"jitter": (0.4, 0.4, -0.1, 0.1)}, "jitter must be four strengths from 0 to 1"),
    ({"jitter": (0.4, 0.4, 0.4, 0.51)}, "hue jitter must be at most half a turn"),
    ({"options": (("margin", 0.5), ("margin", 0.5))}, "an option is given twice: margin, margin"),
    ({"options": (("margin", 0.5), ("b", 1), ("margin", "x"))}, "an option is given twice: b, margin, margin"),
]

FINE: list[dict[str, Any]] = [
    {"bn_batch": 2},
    {"bn_batch": 10},
    {"crop": 1.0},
    {"crop": 1e-3, "flip": True},
    {"angle": 180},
    {"grayscale": 1.0},
    {"jitter": (1.0, 1.0, 1.0, 0.5)},
    {"options": (("a", 1), ("b", 1))},
]


@pytest.mark.parametrize("changes", FINE)
def test_what_is_just_possible_is_taken(changes: dict[str, Any]) -> None:
    made = Recipe(**GOOD, **changes)
    assert {name: getattr(made, name) for name in changes} == changes


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"costs": ()}, "an SVM needs costs, all above 0"),
        ({"costs": (1.0, 0.0)}, "an SVM needs costs, all above 0"),
        ({"costs": (-1.0, 2.0)}, "an SVM needs costs, all above 0"),
        ({"folds": 1}, "cross-validation needs 2 folds or more, not 1"),
    ],
)
def test_a_bad_svm_is_refused_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(MACHINES, **changes)


@pytest.mark.parametrize("changes", [{"trunk_frozen": False}, {"task": "rotnet"}])
def test_svms_are_for_labels_on_a_frozen_trunk(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="SVMs need the task labels and a frozen trunk"):
        dataclasses.replace(VOC, **changes)


def test_nothing_begins_with_svms() -> None:
    """They leave weights of SVMs and no network."""
    for make in (
        lambda: linear(VOC, data="voc07", recipe=RECIPE),
        lambda: dataclasses.replace(DENSE, start=Rewind(of=VOC, samples=0)),
        lambda: Prune(of=VOC, keep=0.5),
        lambda: dataclasses.replace(RANDOM, nonzero=VOC),
    ):
        with pytest.raises(
            ValueError, match="linear SVMs leave no network, so no step can start from them or prune them"
        ):
            make()


@pytest.mark.parametrize("samples", [14_400, 20_000])
def test_a_training_has_something_left_to_train(samples: int) -> None:
    longer = dataclasses.replace(DENSE, recipe=dataclasses.replace(RECIPE, samples=20_000))
    with pytest.raises(ValueError, match="nothing is left to train: the recipe ends at 14400 samples"):
        dataclasses.replace(DENSE, start=Rewind(of=longer, samples=samples))
    assert dataclasses.replace(DENSE, start=Rewind(of=longer, samples=14_399)).begins_at == 14_399


@pytest.mark.parametrize("scope", ["", "ALL", "convs:", "convs:0", "convs:01", "convs:-1", "convs:1 ", "all\n", "conv"])
def test_a_scope_is_refused_with_a_sentence(scope: str) -> None:
    for step in (PRUNE, RANDOM):
        with pytest.raises(ValueError, match="is not 'all', 'convs', or 'convs:d' with d from 1"):
            dataclasses.replace(step, scope=scope)


@pytest.mark.parametrize("allocation", ["", "ERK", "uniform", "erk\n"])
def test_an_allocation_is_refused_with_a_sentence(allocation: str) -> None:
    with pytest.raises(ValueError, match=r"^allocation '.*' is not one of global, erk$"):
        dataclasses.replace(RANDOM, allocation=allocation)


def test_erk_does_not_avoid_natural_zeros() -> None:
    with pytest.raises(ValueError, match=r"allocation 'erk' can't avoid natural zeros, .*: leave out nonzero"):
        dataclasses.replace(RANDOM, allocation="erk", nonzero=DENSE)


@pytest.mark.parametrize(("changes", "sentence"), BAD_RECIPES)
def test_a_bad_recipe_is_refused_with_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    Recipe(**GOOD)
    with pytest.raises(ValueError, match=sentence):
        Recipe(**{**GOOD, **changes})


@pytest.mark.parametrize("keep", [0, 1, -0.1, 1.5, float("nan")])
def test_keep_is_a_fraction(keep: float) -> None:
    with pytest.raises(ValueError, match="keep must be a fraction between 0 and 1, not"):
        Prune(of=DENSE, keep=keep)
    with pytest.raises(ValueError, match="keep must be a fraction between 0 and 1, not"):
        dataclasses.replace(RANDOM, keep=keep)


def test_a_level_is_not_negative() -> None:
    with pytest.raises(ValueError, match="level must be 0 or more, not -1"):
        dataclasses.replace(RANDOM, level=-1)


@pytest.mark.parametrize("samples", [-1, 14_401])
def test_one_rewinds_to_where_a_training_was(samples: int) -> None:
    with pytest.raises(ValueError, match=f"can't rewind to {samples} samples"):
        Rewind(of=DENSE, samples=samples)


def test_one_cannot_rewind_to_before_a_rewound_training_began() -> None:
    with pytest.raises(ValueError, match="can't rewind to 1199 samples"):
        Rewind(of=_ROUND_1, samples=1_199)
    assert Rewind(of=_ROUND_1, samples=1_200).samples == 1_200


# ------------------------------------------------------------------------------------- seeds


@given(keys=st.lists(st.tuples(st.text(max_size=3), st.integers(), st.integers()), min_size=2, max_size=5, unique=True))
@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
def test_seeds_differ_where_any_part_of_the_key_does(keys: list[tuple[str, int, int]]) -> None:
    seeds = [seed_of(*key) for key in keys]
    assert len(set(seeds)) == len(keys)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_are_pinned() -> None:
    """Another hash here would give every stored training another order of samples."""
    assert seed_of("init", 0, 0) == 6_139_533_873_909_357_879
    assert seed_of("epoch", 0, 0) == 1_889_118_267_459_282_187
    assert seed_of("epoch", 1, 11) == 247_059_279_828_474_885
    assert seed_of("epoch", 11, 1) == 8_923_672_141_544_053_094
    assert len({seed_of("1"), seed_of(1), seed_of(1, 0), seed_of()}) == 4


# ------------------------------------------------------------------------------------- a training's own words


def test_a_training_begins_where_it_was_rewound_to() -> None:
    assert (DENSE.begins_at, DENSE.rewind) == (0, None)
    assert dataclasses.replace(DENSE, start=Rewind(of=ROTNET, samples=0)).rewind == 0
    assert (_ROUND_1.begins_at, _ROUND_1.rewind) == (1_200, 1_200)
    assert dataclasses.replace(DENSE, start=FINAL).begins_at == 0


def test_a_training_may_have_the_whole_schedule_from_a_rewound_start() -> None:
    whole = dataclasses.replace(_ROUND_1, first_sample=0)
    assert (whole.begins_at, whole.rewind) == (0, 1_200)
    assert whole.start == _ROUND_1.start
    assert to_plain(whole) == {**to_plain(_ROUND_1), "first_sample": 0}
    assert load(dump([whole]))[whole.id] == whole
    dataclasses.replace(DENSE, start=Rewind(of=whole, samples=600))  # its states begin at 0


@pytest.mark.parametrize(
    ("step", "first", "sentence"),
    [
        (DENSE, 0, "first_sample 0 is where the start was taken"),
        (_ROUND_1, 1_200, "first_sample 1200 is where the start was taken"),
        (DENSE, -1, "first_sample is a number of samples from 0, not -1"),
        (DENSE, 14_400, "nothing is left to train: the recipe ends at 14400 samples"),
        (DENSE, True, "first_sample of Train must be a whole number or None, not True"),
    ],
)
def test_a_first_sample_that_makes_no_sense_is_refused(step: Train, first: int, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        dataclasses.replace(step, first_sample=first)


@pytest.mark.parametrize(
    ("step", "keeps"),
    [
        (DENSE, False),
        (_ROUND_1, True),
        (dataclasses.replace(_ROUND_1, seed=9, recipe=STEPPED), True),
        (dataclasses.replace(_ROUND_1, task="rotnet"), False),
        (dataclasses.replace(_ROUND_1, data="cifar10"), False),
        (dataclasses.replace(DENSE, start=Final(of=DENSE)), False),
        (VOC, False),
    ],
)
def test_a_head_is_kept_where_task_and_data_stay(step: Train, keeps: bool) -> None:
    assert step.keeps_head is keeps


# ------------------------------------------------------------------------------------- criteria


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"criterion": "magnitudes"}, "criterion 'magnitudes' is not one of magnitude, relative-magnitude, "),
        ({"allocation": "even"}, "allocation 'even' is not one of global, uniform, erk, lamp"),
        ({"unit": "channel"}, "unit 'channel' is not one of weight, filter"),
        ({"criterion": "l2"}, "criterion 'l2' needs unit='filter'"),
        (
            {"unit": "filter", "allocation": "erk"},
            "unit 'filter' needs allocation 'global' or 'uniform', and no passes",
        ),
        ({"unit": "filter", "passes": 2}, "unit 'filter' needs allocation 'global' or 'uniform', and no passes"),
        ({"criterion": "grasp", "allocation": "lamp"}, "allocation 'lamp' needs scores that are not negative"),
        ({"samples": 100}, "criterion 'magnitude' uses no gradients: leave out samples"),
        ({"criterion": "snip", "samples": 1}, "samples must be at least 2, not 1"),
        ({"passes": 0}, "passes must be at least 1, not 0"),
        ({"since": 1_200}, "since is for criterion 'movement' only"),
        ({"at": 14_401}, "at is a number of samples from 0 to 14400, between which the training runs, not 14401"),
        ({"criterion": "movement", "since": -1}, "since is a number of samples from 0 to 14400"),
        ({"criterion": "movement", "since": 0}, "since 0 is where the training begins, which None says, too"),
        ({"criterion": "movement", "at": 0}, "criterion 'movement' needs at after the state from which"),
        ({"criterion": "movement", "at": 64, "since": 640}, "criterion 'movement' needs at after the state from which"),
    ],
)
def test_prunings_that_make_no_sense_are_refused(fields: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Prune(of=DENSE, keep=0.8, **fields)


def test_a_mask_of_whole_filters_is_not_shuffled_weight_by_weight() -> None:
    with pytest.raises(ValueError, match="a mask of whole filters can't be shuffled weight by weight"):
        Shuffle(of=Prune(of=DENSE, keep=0.8, unit="filter"), seed=0)


def test_a_mask_at_the_start_reads_what_its_training_starts_from() -> None:
    at_start = Prune(of=DENSE, keep=0.8, criterion="snip", at=0)
    assert (at_start.parents, read_by(at_start)) == ((DENSE,), ())
    # the state after 1 sample is that after the first update
    assert read_by(Prune(of=DENSE, keep=0.8, criterion="snip", at=1)) == (DENSE,)
    rewound = dataclasses.replace(DENSE, start=REWIND, mask=at_start)
    assert set(read_by(Prune(of=rewound, keep=0.8, criterion="snip", at=1_200))) == {DENSE, at_start}
    # 1,152 and 1,200 samples are seen after 18 and 19 updates of 64
    assert Prune(of=rewound, keep=0.8, at=1_210).judges_start
    assert not Prune(of=rewound, keep=0.8, at=1_217).judges_start
    # rewound to the start of a dense training: as that one begins
    again = dataclasses.replace(DENSE, start=Rewind(of=DENSE, samples=0), mask=at_start)
    assert read_by(Prune(of=again, keep=0.8, criterion="snip", at=0)) == (at_start,)
    transferred = dataclasses.replace(DENSE, start=FINAL)
    assert read_by(Prune(of=transferred, keep=0.8, criterion="snip", at=0)) == (ROTNET,)


def test_closure_of_what_is_read_leaves_out_trainings_of_which_only_the_start_is_judged() -> None:
    at_start = Prune(of=DENSE, keep=0.8, criterion="snip", at=0)
    step = dataclasses.replace(DENSE, seed=1, mask=at_start)
    assert closure([step], read_by) == [at_start, step]
    assert closure([step]) == [DENSE, at_start, step]


@pytest.mark.parametrize("fields", [{"criterion": "snip"}, {"unit": "filter"}, {"at": 0}, {"criterion": "movement"}])
def test_imported_weights_are_pruned_by_what_needs_weights_only(fields: dict[str, Any]) -> None:
    weights = ImportedWeights(arch="conv4", channels=1, digest="0" * 64)
    assert Prune(of=weights, keep=0.5, criterion="relative-magnitude", allocation="erk").snapshots == ()
    with pytest.raises(ValueError, match="imported weights come without a task, images and other states"):
        Prune(of=weights, keep=0.5, **fields)
