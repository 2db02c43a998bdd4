"""A row traced to all that it is made from."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from dataclasses import replace

import pytest
from rich.console import Console

from raysslprune import words
from raysslprune.catalogue import shown_metrics
from raysslprune.lottery import Chain, finetune, imp, linear, random_prune, random_reinit, shuffled, winning_ticket
from raysslprune.plan.graph import make_plan
from raysslprune.spec import SVM, Mask, Recipe, Shuffle, Step, closure
from raysslprune.store.record import File, Record
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point
from raysslprune.terminal.explain import explain

RECIPE = Recipe(samples=14_400, batch=64, lr=0.05, momentum=0.9, nesterov=True, options=(("margin", 0.5),))
LONG = replace(RECIPE, samples=28_800)


def chain(task: str, levels: int) -> Chain:
    return imp(
        task=task, data="digits", arch="conv4", recipe=RECIPE, seed=4, levels=levels, keep=0.8, rewind=1200, scope="all"
    )


ROTNET = chain("rotnet", 3)
DENSE = ROTNET.dense
NONZERO = random_prune(like=DENSE, keep=0.8, level=5, scope="convs:2", nonzero=DENSE)
STEPS = {
    "ticket": winning_ticket(ROTNET, 2, task="labels", recipe=LONG),
    "reinit": random_reinit(ROTNET.masks[3], like=DENSE, task="labels", recipe=LONG),
    "shuffled": random_reinit(shuffled(ROTNET, 1), like=DENSE, task="labels", recipe=LONG),
    "random": random_reinit(Shuffle(of=NONZERO, seed=9), like=DENSE, task="labels", recipe=LONG),
    "linear": linear(ROTNET.rounds[1], data="elsewhere", recipe=LONG),
    "svms": linear(DENSE, data="digits:10%-of-images", recipe=SVM(costs=(0.1, 10.0))),
    "tuned": finetune(ROTNET.rounds[2], data="digits", recipe=RECIPE),
}
POINTS = [
    Point(step=step, task=name, init="any", level=n, seed=4, metric="map" if name == "svms" else "top1", panel="left")
    for n, (name, step) in enumerate(STEPS.items())
]


def record(step: Step, **more: object) -> Record:
    if isinstance(step, Mask):
        metrics, facts = {"density": 0.41, "density_in_scope": 0.4}, {}
        files = {"mask.safetensors": File(size=4_370, sha256="")}
    else:
        metrics = {"top1": 97.25, "map": 55.5, "train_loss": 0.1, "density": 0.512}
        metrics |= {"natural_sparsity": 0.0, "natural_sparsity_1e-6": 0.5, "collapsed_layers": 0.0}
        facts = {"seconds": 187.0, "begun": 1_790_000_000.5, "host": "box", "device": "cuda:0", **more}
        files = {"weights.safetensors": File(size=133_000, sha256="")}
    facts["versions"] = {"raysslprune": "0.1", "torch": "2.9"}
    return Record(step=step.id, metrics=metrics, facts=facts, files={"spec.json": File(size=300, sha256=""), **files})


RECORDS = {step.id: record(step) for step in closure(STEPS.values())}


def explained(row: str, records: Mapping[str, Record] = RECORDS, points: list[Point] = POINTS) -> list[str]:
    out = io.StringIO()
    explain(Console(file=out, width=60), "figx", points, row, records, Store("/somewhere/runs"))
    return out.getvalue().splitlines()


def chain_of(lines: list[str]) -> list[list[str]]:
    """The lines of the steps, as (number, id, what it is made from, all else)."""
    found = [re.fullmatch(r"#(\d+) +([0-9a-f]{16})  (.*?)(  .*)?", line) for line in lines]
    return [list(match.groups()) for match in found if match]


@pytest.mark.parametrize("name", STEPS)
def test_all_that_a_row_is_made_from_is_there_in_order(name: str) -> None:
    """Against the parents that each step names, walked here."""
    number = list(STEPS).index(name)
    lines = explained(str(number))
    assert lines[0] == f"figx, row {number}: left, {name}, any, level {number}, seed 4"
    assert lines[1].strip() == ("map 55.5" if name == "svms" else "top1 97.25")

    def behind(step: Step) -> set[Step]:
        return {step}.union(*(behind(parent) for parent in step.parents))

    steps = {step.id: step for step in behind(STEPS[name])}
    listed = chain_of(lines)
    assert [int(line[0]) for line in listed] == list(range(1, len(steps) + 1))
    assert {line[1] for line in listed} == steps.keys()
    assert listed[-1][1] == STEPS[name].id
    place = {line[1]: int(line[0]) for line in listed}
    for step_id, step in steps.items():
        made = listed[place[step_id] - 1][2]
        named = {int(n) for n in re.findall(r"(?:from|mask|prune|shuffle|in) #(\d+)\b", made)}
        assert named == {place[parent.id] for parent in step.parents}, made
        assert all(place[parent.id] < place[step_id] for parent in step.parents)


def test_a_training_says_how_many_labels_it_has_seen() -> None:
    said = {}
    for row, name in enumerate(STEPS):
        found = [line for line in explained(str(row)) if "samples with labels" in line]
        said[name] = [line.partition("it starts from: ")[2] for line in found]
    whole = ["28,800"]  # RotNet saw none
    assert said == dict.fromkeys(STEPS, whole) | {"svms": [], "tuned": ["14,400"]}


def test_each_kind_of_step_in_words() -> None:
    said = {line[2] for row in range(len(STEPS)) for line in chain_of(explained(str(row)))}
    assert {
        "train rotnet R1, seed 4, drawn from seed 4",
        "prune #1: 80% of all stay",
        "train rotnet R1, seed 4, from #1 at 1,200, under mask #2",
        "train labels R2, seed 4, from #1 at 1,200, the recipe from 0 on, under mask #4",
        "train labels R2, seed 4, drawn from seed 4, draw 1, under mask #6",
        "shuffle #2 in each layer, seed 4",
        "random mask: 80% of convs:2 stay, 5 times, seed 4, without weights that are 0 in #1",
        "shuffle #2 in each layer, seed 9",
        "train labels R2, seed 4, from #3, under mask #2",
        "train labels R2, seed 4, from #1",
        "train labels R2, seed 4, from #5, under mask #4",
    } <= said


def test_recipes_in_full_and_once() -> None:
    assert [line for line in explained("0") if re.match(r"R\d", line)] == [
        "R1: rotnet on digits, conv4: samples 14,400 (epochs: 12), batch 64, lr 0.05, momentum 0.9, nesterov, "
        "options ((margin 0.5))",
        "R2: labels on digits, conv4: samples 28,800 (epochs: 24), batch 64, lr 0.05, momentum 0.9, nesterov, "
        "options ((margin 0.5))",
    ]
    assert explained("4")[-5].startswith("R2: linear on elsewhere, conv4: samples 28,800, batch 64")
    assert "R2: linear SVMs on digits:10%-of-images, conv4: costs (0.1 10)" in explained("5")


def test_what_how_long_when_where_and_the_files() -> None:
    lines = explained("1")
    step = STEPS["reinit"]
    assert f"step {step.id}: labels seed 4, rotnet mask 3, drawn; labels on digits, conv4" in lines
    assert "    top1 97.25, density 0.512, map 55.5, natural_sparsity_1e-6 0.5, train_loss 0.1" in lines
    assert f"    /somewhere/runs/steps/{step.id}/weights.safetensors  133 kB" in lines
    listed = [(line[2], re.split("  +", line[3].strip())) for line in chain_of(lines)]
    for what, rest in listed:
        if what.startswith("train"):
            assert rest == ["top1 97.25", "51.2%", "3:07 min", "2026-09-21 14:13", "run 1", "weights 133 kB"]
        else:
            assert rest == ["41%", "run 2", "mask 4.37 kB"]
    masks = "run 2: masks, made in the processes of trainings; raysslprune 0.1, torch 2.9"
    assert lines[-2:] == ["run 1: box, cuda:0; raysslprune 0.1, torch 2.9", masks]


def test_how_ties_fell_and_what_older_masks_did() -> None:
    """A mask without ties says nothing; one that was made before ties were drawn says what it would have done."""
    tied = {ROTNET.masks[1].id: 0, ROTNET.masks[2].id: 27_378}  # pyright: ignore[reportOptionalMemberAccess]

    def with_facts(some: Mapping[str, int]) -> dict[str, Record]:
        more = {key: replace(RECORDS[key], facts={**RECORDS[key].facts, "tied": count}) for key, count in some.items()}
        return RECORDS | more

    def about_masks(lines: list[str]) -> list[str]:
        return [line for line in lines if "magnitude" in line]

    none, drawn = (explained("0", with_facts(dict.fromkeys(tied, 0))), explained("0", with_facts(tied)))
    assert about_masks(none) == []
    assert about_masks(drawn) == [
        "ties: weights of equal magnitude; which of them stay was drawn, with a seed from the step's id"
    ]
    assert [re.split("  +", line[3].strip())[0] for line in chain_of(drawn) if line[2].startswith("prune")] == [
        "41%",
        "draw among 27,378 ties",
    ]
    older = "made before ties were drawn: {}; of weights of equal magnitude, if any, the last stayed"
    assert about_masks(explained("0")) == [older.format("#2, #4")]
    second = ROTNET.masks[2]
    assert second is not None
    assert about_masks(explained("0", with_facts({second.id: 5})))[1:] == [older.format("#2")]
    assert about_masks(explained(STEPS["ticket"].id, {})) == []


def test_the_main_metric_comes_first_even_if_it_is_0_and_no_other_0_is_told() -> None:
    metrics = {"rotation_top1": 0.0, "train_loss": 0.0, "density": 1.0, "natural_sparsity_1e-6": 3.5, "a": 1.0}
    assert [*shown_metrics(metrics).items()] == [
        ("rotation_top1", 0.0),
        ("a", 1.0),
        ("density", 1.0),
        ("natural_sparsity_1e-6", 3.5),
    ]
    assert shown_metrics({"density": 0.5, "density_in_scope": 0.0}) == {"density": 0.5}


def test_runs_in_two_places_are_told_apart() -> None:
    records = {**RECORDS, DENSE.id: record(DENSE, host="other")}
    lines = explained("0", records)
    runs = [line.split(";")[0] for line in lines if line.startswith("run ")]
    assert runs == ["run 1: other, cuda:0", "run 2: masks, made in the processes of trainings", "run 3: box, cuda:0"]


def test_what_is_not_done_says_so() -> None:
    step = STEPS["ticket"]
    records = {key: value for key, value in RECORDS.items() if key not in (step.id, ROTNET.rounds[1].id)}
    lines = explained(step.id, records)
    assert lines[0] == "figx: a step without a row"
    assert lines[2].strip() == "not done"
    listed = {line[1]: (line[3] or "").strip() for line in chain_of(lines)}
    assert [key for key, rest in listed.items() if rest == "not done"] == [ROTNET.rounds[1].id, step.id]


def test_rows_are_those_of_the_table() -> None:
    """Which has no row for what is not done."""
    records = {key: value for key, value in RECORDS.items() if key != STEPS["ticket"].id}
    assert explained("0", records)[0] == "figx, row 0: left, reinit, any, level 1, seed 4"


def test_a_step_by_its_id_or_the_beginning_of_it() -> None:
    """Any step; with the rows that show it, which may be several."""
    ids = [step.id for step in closure(STEPS.values())]
    for step in (STEPS["linear"], ROTNET.masks[1], DENSE):
        assert step is not None
        start = next(step.id[:n] for n in range(4, 17) if sum(i.startswith(step.id[:n]) for i in ids) == 1)
        for text in (step.id, step.id[:12], step.id.upper()[:12], start):
            assert chain_of(explained(text))[-1][1] == step.id
    twice = [*POINTS, replace(POINTS[2], init="again")]
    lines = explained(STEPS["shuffled"].id, points=twice)
    assert [line for line in lines if line.startswith("figx")] == [
        "figx, row 2: left, shuffled, any, level 2, seed 4",
        "figx, row 7: left, shuffled, again, level 2, seed 4",
    ]


@pytest.mark.parametrize("row", ["7", "99999", "-1", "", "xyz", "0" * 16, "1.0", "١٢"])
def test_a_row_that_is_not_there_is_one_sentence(row: str) -> None:
    with pytest.raises(ValueError, match=r"figx has no row and no step .*; its rows are 0 to 6$") as caught:
        explained(row)
    assert "\n" not in str(caught.value)


def test_the_shortest_beginning_that_only_one_step_has_is_enough() -> None:
    """With a letter in it: digits alone are a row's number."""
    ids = sorted(step.id for step in closure(STEPS.values()))
    starts = [(step, step[:digits]) for step in ids for digits in (1, 2, 3)]
    unique = [(step, start) for step, start in starts if sum(other.startswith(start) for other in ids) == 1]
    short = [(step, start) for step, start in unique if not start.isdecimal()]
    assert short
    for step, start in short:
        assert any(line.startswith(f"step {step}: ") for line in explained(start))


def test_where_only_some_points_are_done_it_says_so() -> None:
    some = {point.step.id: RECORDS[point.step.id] for point in POINTS[:2]}
    with pytest.raises(ValueError, match=r"its rows are 0 to 1, since 2 of 7 points are done$"):
        explained("5", some)


def test_an_ambiguous_id_and_an_empty_table_are_one_sentence_each() -> None:
    ids = [step.id for step in closure(STEPS.values())]
    letter = next(c for c in "abcdef" if sum(i.startswith(c) for i in ids) > 1)
    with pytest.raises(ValueError, match=f"steps of figx begin with '{letter}': [0-9a-f]{{16}}, "):
        explained(letter)
    with pytest.raises(ValueError, match=r"figx has no row and no step '0'; it has no rows yet"):
        explained("0", {})


def test_a_long_chain_is_a_line_for_each_step_however_narrow_the_terminal() -> None:
    long = chain("npid", 31)
    points = [Point(step=long.rounds[-1], task="npid", init="any", level=30, seed=4)]
    records = {step.id: record(step) for step in closure([long.rounds[-1]])}
    lines = explained("0", records, points)
    assert len(chain_of(lines)) == 31 + 30
    assert len(lines) < 61 + 20
    assert sum(line.startswith("R") for line in lines) == 1


def test_titles_are_those_of_the_jobs() -> None:
    graph = make_plan(POINTS)
    for number, step in enumerate(STEPS.values()):
        assert f"step {step.id}: {graph.jobs[step.id].title}; {words.what(step)}" in explained(str(number))
