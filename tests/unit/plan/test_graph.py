"""From points to jobs, and the order in which they are handed out."""

from __future__ import annotations

import io
import json
import runpy
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from torch import nn

from raysslprune import data, masks, models, names, plan, terminal
from raysslprune.lottery import (
    Chain,
    finetune,
    imp,
    linear,
    random_prune,
    random_reinit,
    shuffled,
    untrained,
    winning_ticket,
)
from raysslprune.plan import Job, Plan, Schedule
from raysslprune.recipes import GPU, NETS, TRANSFER, VIEWS, Net, appendix_d
from raysslprune.scales import SETTINGS
from raysslprune.spec import (
    SVM,
    Final,
    Init,
    Mask,
    Prune,
    RandomPrune,
    Recipe,
    Rewind,
    Shuffle,
    Step,
    Train,
    load,
)
from raysslprune.store import File, Record, Store
from raysslprune.sweepfile import Point
from raysslprune.train import Loop
from tests.helpers import CHECKOUT

RECIPE = Recipe(samples=2400, batch=64, lr=0.05)
LONG = Recipe(samples=4800, batch=64, lr=0.05)
MACHINES = SVM(costs=(0.1, 1.0))


def chain(
    task: str = "labels", seed: int = 0, levels: int = 3, keep: float = 0.5, rewind: int = 1200, arch: str = "conv4"
) -> Chain:
    return imp(task=task, data="digits", arch=arch, recipe=RECIPE, seed=seed, levels=levels, keep=keep, rewind=rewind)


def drawn(mask: Mask | None, like: Train, recipe: Recipe = RECIPE) -> Train:
    return random_reinit(mask, like=like, task="labels", recipe=recipe)


def points(steps: Iterable[Train]) -> list[Point]:
    return [Point(step=step, task="labels", init="any", level=n, seed=0) for n, step in enumerate(steps)]


def made_up(seed: int = 0) -> list[Point]:
    """A sweep with every kind of step: tickets on two tasks, drawn weights, random, shuffled, twice shuffled masks."""
    labels, rotnet = chain(seed=seed), chain("rotnet", seed=seed)
    dense = labels.dense
    random = random_prune(like=dense, keep=0.5, level=2)
    twice = Shuffle(of=Shuffle(of=random, seed=seed), seed=seed + 1)
    return points(
        [
            winning_ticket(rotnet, 3, task="labels", recipe=RECIPE),
            drawn(twice, dense),
            drawn(random, dense),
            drawn(random, dense, LONG),
            winning_ticket(labels, 2, task="labels", recipe=RECIPE),
            drawn(shuffled(labels, 3), dense),
            drawn(labels.masks[1], dense),
            drawn(Shuffle(of=shuffled(rotnet, 1), seed=5), dense),
            dense,
        ]
    )


def judged(seed: int = 0) -> list[Point]:
    """Figures 1 and 2 and the adjusted baseline: linear classifiers, SVMs and fine-tuning at every level of a chain."""
    rotnet = chain("rotnet", seed=seed)
    dense = rotnet.dense
    during = imp(
        task="labels",
        data="digits",
        arch="conv4",
        recipe=RECIPE,
        seed=seed,
        levels=2,
        keep=0.5,
        rewind=0,
        start=Final(of=dense),
    )
    adjusted = random_prune(like=dense, keep=0.5, level=2, nonzero=dense)
    steps: list[Train] = []
    for of in rotnet.rounds:
        steps += [make(of, data="digits", recipe=r) for make in (linear, untrained) for r in (LONG, MACHINES)]
        steps.append(finetune(of, data="digits", recipe=RECIPE))
    return points(
        [
            drawn(Shuffle(of=adjusted, seed=4), dense),
            *during.rounds,
            drawn(adjusted, dense),
            drawn(random_prune(like=dense, keep=0.5, level=2, scope="convs:2", nonzero=rotnet.rounds[1]), dense),
            *steps,
        ]
    )


FIG3 = runpy.run_path(str(CHECKOUT / "sweeps/fig3.py"))["points"]


def fig3(scale: str, seeds: int) -> list[Point]:
    return [point for seed in range(seeds) for point in FIG3(scale, seed)]


SWEEPS = {
    "fig3 laptop": fig3("laptop", 2),
    "fig3 smoke": fig3("smoke", 2),
    "made up": [*made_up(), *made_up(1)],
    "judged": [*judged(), *judged(1)],
}


@pytest.fixture(params=SWEEPS)
def asked(request: pytest.FixtureRequest) -> list[Point]:
    return SWEEPS[request.param]


# ------------------------------------------------------------------ an independent reading of the steps


def reads(step: Step) -> list[Step]:
    """What a step reads from, by its fields."""
    match step:
        case Train(start=Rewind(of=other) | Final(of=other), mask=mask):
            return [other, *([mask] if mask is not None else [])]
        case Train(mask=mask):
            return [mask] if mask is not None else []
        case Prune(of=trained):
            return [trained]
        case Shuffle(of=mask):
            return [mask]
    assert isinstance(step, RandomPrune)
    return [] if step.nonzero is None else [step.nonzero]


def all_behind(step: Step) -> set[Step]:
    """The step and everything that it needs."""
    return {step}.union(*(all_behind(parent) for parent in reads(step)))


def trainings_behind(step: Step) -> set[Step]:
    return {one for one in all_behind(step) if isinstance(one, Train)}


def source(mask: Step) -> Step | None:
    """The training that a mask is made from, through any shuffles."""
    while isinstance(mask, Shuffle):
        mask = mask.of
    if isinstance(mask, RandomPrune):
        return mask.nonzero
    assert isinstance(mask, Prune)
    return mask.of


# ------------------------------------------------------------------ make


def test_every_step_asked_for_is_in_the_plan_once(asked: list[Point]) -> None:
    graph = plan.make(iter(asked))
    wanted = set().union(*(all_behind(point.step) for point in asked))
    assert list(graph.points) == asked
    assert Counter(graph.ids) == Counter(step.id for step in wanted)
    assert list(graph.jobs) == [job.id for job in graph.jobs.values()]
    assert set(graph.jobs) == {step.id for step in wanted if isinstance(step, Train)}


def test_parents_come_before_their_children(asked: list[Point]) -> None:
    place = {job_id: n for n, job_id in enumerate(plan.make(asked).jobs)}
    for job in plan.make(asked).jobs.values():
        assert len({parent.id for parent in job.parents}) == len(job.parents)
        assert all(place[parent.id] < place[job.id] for parent in job.parents)
        assert all(place[child.id] > place[job.id] for child in job.children)


def test_parents_are_the_trainings_that_a_job_reads_from(asked: list[Point]) -> None:
    jobs = plan.make(asked).jobs
    for job in jobs.values():
        step = job.train
        expected = set() if isinstance(step.start, Init) else {step.start.of.id}
        if step.mask is not None and (pruned := source(step.mask)):
            expected.add(pruned.id)
        assert {parent.id for parent in job.parents} == expected
        assert all(job in parent.children for parent in job.parents)
        assert all(job in child.parents for child in job.children)
        assert sum(job in other.children for other in jobs.values()) == len(expected)


def test_each_mask_is_made_once_where_its_training_ran(asked: list[Point]) -> None:
    graph = plan.make(asked)
    first_user: dict[Step, str] = {}
    for job in graph.jobs.values():
        for mask in (m for m in all_behind(job.train) if isinstance(m, Mask) and source(m) is None):
            first_user.setdefault(mask, job.id)
    seen: set[Step] = set()
    for job in graph.jobs.values():
        for mask in job.before:
            assert source(mask) is None
            assert first_user[mask] == job.id
        for mask in job.after:
            assert source(mask) == job.train
        for mask in job.masks:
            assert mask not in seen
            seen.add(mask)
            if isinstance(mask, Shuffle):
                assert mask.of in seen, "a mask is shuffled before it is there"


def test_a_snapshot_is_kept_of_exactly_what_is_rewound_to(asked: list[Point]) -> None:
    graph = plan.make(asked)
    expected: dict[str, set[int]] = {job_id: set() for job_id in graph.jobs}
    for job in graph.jobs.values():
        if isinstance(job.train.start, Rewind):
            expected[job.train.start.of.id].add(job.train.start.samples)
    assert {job_id: job.snapshots for job_id, job in graph.jobs.items()} == expected


def test_chains_rewound_differently_share_a_dense_training() -> None:
    chains = [chain(rewind=samples) for samples in (0, 600, 1200)]
    graph = plan.make(points(c.rounds[-1] for c in chains))
    dense = graph.jobs[chains[0].dense.id]
    assert dense.snapshots == {0, 600, 1200}
    assert len(dense.after) == 1
    assert len(graph.jobs) == 1 + 3 * 2


def test_counts_of_figure_3_by_hand() -> None:
    """Laptop, a seed: seven levels up to 24, their sum 97. Smoke: levels 1 and 3. Labels, RotNet and Exemplar."""
    graph = plan.make(fig3("laptop", 1))
    assert len(graph.points) == 1 + 7 * 8
    assert len(graph.jobs) == 25 + 2 * 24 + 2 * 7 + 5 * 7  # label rounds, other rounds, other tickets, drawn weights
    assert len(graph.ids) - len(graph.jobs) == 3 * 24 + 7 + 7
    assert graph.trainings_without_sharing() == 1 + 7 * (97 + 7) + 7
    graph = plan.make(fig3("smoke", 2))
    assert len(graph.points) == 2 * (1 + 2 * 8)
    assert len(graph.jobs) == 2 * (4 + 2 * 3 + 2 * 2 + 5 * 2)
    assert len(graph.ids) - len(graph.jobs) == 2 * (3 * 3 + 2 + 2)
    assert graph.trainings_without_sharing() == 2 * (1 + 7 * (4 + 2) + 2)


def test_counts_of_the_judged_chain_by_hand() -> None:
    graph = plan.make(judged())
    # three rounds; what is judged at each level: linear, SVMs, both untrained, fine-tuned; in transfer, the second
    # round, as the first is the dense fine-tuning; three under random masks
    assert len(graph.jobs) == 3 + 3 * 5 + 1 + 3
    # masks of levels 1 and 2 by RotNet and of level 1 in transfer; three random ones and a shuffled one less one
    assert len(graph.ids) - len(graph.jobs) == 2 + 1 + 3


def test_judging_in_several_ways_shares_the_chain() -> None:
    """Figure 1 on three data sets and Figure 2: no round is trained twice, whatever is asked of it."""
    rounds = chain("npid", levels=5).rounds
    alone = plan.make(points(rounds))
    asked = [linear(of, data=on, recipe=r) for of in rounds for on, r in (("a", LONG), ("b", LONG), ("c", MACHINES))]
    asked += [finetune(of, data="c", recipe=RECIPE) for of in rounds]
    graph = plan.make(points(asked))
    assert set(alone.ids) <= set(graph.ids)
    assert len(graph.jobs) == 5 + 4 * 5
    assert graph.trainings_without_sharing() == 4 * (2 + 3 + 4 + 5 + 6)
    for of in rounds:
        starts = [job.train.start for job in graph.jobs[of.id].children]
        assert sum(start == Final(of=of) for start in starts) == 4


def test_final_weights_are_a_parent_and_no_snapshot() -> None:
    rotnet = chain("rotnet")
    step = finetune(rotnet.rounds[2], data="digits", recipe=RECIPE)
    jobs = plan.make(points([step])).jobs
    # under the mask of round 2, which was made beside round 1
    assert {parent.id for parent in jobs[step.id].parents} == {rotnet.rounds[2].id, rotnet.rounds[1].id}
    assert jobs[rotnet.rounds[2].id].snapshots == set()
    assert jobs[rotnet.dense.id].snapshots == {1200}


def test_pruning_during_transfer_keeps_the_state_at_sample_0() -> None:
    dense = chain("rotnet").dense
    during = imp(
        task="labels",
        data="digits",
        arch="conv4",
        recipe=RECIPE,
        seed=0,
        levels=3,
        keep=0.5,
        rewind=0,
        start=Final(of=dense),
    )
    jobs = plan.make(points(during.rounds)).jobs
    assert jobs[during.dense.id].snapshots == {0}
    assert {parent.id for parent in jobs[during.dense.id].parents} == {dense.id}


def test_a_mask_without_natural_zeros_is_made_after_the_training_whose_zeros_they_are() -> None:
    dense = chain().dense
    adjusted = random_prune(like=dense, keep=0.5, level=2, nonzero=dense)
    plain = random_prune(like=dense, keep=0.5, level=2)
    permuted = Shuffle(of=adjusted, seed=1)
    steps = [drawn(mask, dense) for mask in (permuted, adjusted, plain)]
    jobs = plan.make(points(steps)).jobs
    assert list(jobs) == [dense.id, *(step.id for step in steps)]
    assert jobs[dense.id].after == [adjusted, permuted]
    assert [job.before for job in jobs.values()] == [[], [], [], [plain]]
    assert [[p.id for p in job.parents] for job in jobs.values()] == [[], [dense.id], [dense.id], []]


def test_what_a_job_reads_is_made_again_by_the_job_that_makes_it(asked: list[Point]) -> None:
    """Before it, or by itself where it is a mask for which no training is needed."""
    graph = plan.make(asked)
    for job in graph.jobs.values():
        for step in all_behind(job.train) - {job.train}:
            maker = graph.maker(step.id, job)
            assert maker is not None
            if isinstance(step, Mask) and source(step) is None:
                assert maker is job or step in maker.before
            else:
                assert maker is not job
                assert step == maker.train or step in maker.after
        assert graph.maker(job.id, job) is job
        assert graph.maker("0" * 16, job) is None


def test_trainings_without_sharing_against_a_naive_count(asked: list[Point]) -> None:
    expected = sum(len(trainings_behind(point.step)) for point in asked)
    assert plan.make(asked).trainings_without_sharing() == expected


@settings(max_examples=300)
@given(st.integers(1, 9).flatmap(lambda n: st.tuples(*(st.sets(st.integers(0, max(0, i - 1))) for i in range(n)))))
def test_trainings_without_sharing_of_any_graph(parents: tuple[set[int], ...]) -> None:
    dag = [sorted(numbers) if i else [] for i, numbers in enumerate(parents)]
    jobs = {job.id: job for job in jobs_of(dag)}
    graph = Plan(points=tuple(points(TRAINS[: len(dag)])), jobs=jobs)

    def behind(node: int) -> set[int]:
        return {node}.union(*(behind(parent) for parent in dag[node]))

    assert graph.trainings_without_sharing() == sum(len(behind(node)) for node in range(len(dag)))


def test_trainings_without_sharing_are_counted_along_a_chain_without_walking_it(
    asked: list[Point], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the time is linear."""
    graph, walked = plan.make(asked), list[Job]()
    walk = plan._ancestors
    monkeypatch.setattr(plan, "_ancestors", lambda job: walked.append(job) or walk(job))
    graph.trainings_without_sharing()
    assert all(not job.parents for job in walked)
    assert len({job.id for job in walked}) <= 1


def test_two_sweeps_together_share_what_both_need() -> None:
    one = made_up()
    other = points([chain().rounds[2], drawn(chain(levels=5).masks[5], chain().dense), chain(seed=9).dense])
    alone, beside = plan.make(one), plan.make(other)
    both = plan.make([*one, *other])
    assert set(both.ids) == set(alone.ids) | set(beside.ids)
    assert len(both.ids) == len(set(both.ids)) < len(alone.ids) + len(beside.ids)
    assert len(plan.make([*one, *one]).ids) == len(alone.ids)
    new = set(both.jobs) - set(alone.jobs)
    # rounds 3 and 4 of the longer chain and what is drawn under its mask 5, and the other seed's dense training
    assert len(new) == 4


def test_the_plan_does_not_depend_on_the_order_of_the_points(asked: list[Point]) -> None:
    forth, back = plan.make(asked), plan.make(asked[::-1])
    assert set(forth.ids) == set(back.ids)
    assert forth.trainings_without_sharing() == back.trainings_without_sharing()


def test_a_chain_of_hundreds_of_rounds_can_be_planned() -> None:
    long = chain(levels=300, keep=0.98)
    graph = plan.make(points([long.rounds[-1], drawn(long.masks[300], long.dense)]))
    assert len(graph.jobs) == 301


def test_nothing_asked_for_is_an_empty_plan() -> None:
    graph = plan.make([])
    assert (graph.ids, graph.trainings_without_sharing(), graph.pending({})) == ([], 0, [])


def test_a_job_travels_as_json(asked: list[Point]) -> None:
    for job in list(plan.make(asked).jobs.values())[-8:]:
        plain = json.loads(json.dumps(job.to_plain()))
        steps = load(plain["graph"])
        assert steps[plain["train"]] == job.train
        assert [steps[i] for i in plain["before"]] == job.before
        assert [steps[i] for i in plain["after"]] == job.after
        assert set(plain["snapshots"]) == job.snapshots
        assert (plain["weights"], plain["keep"]) == (job.weights, True)


def test_titles_are_for_people() -> None:
    labels = chain()
    twice = Shuffle(of=shuffled(labels, 2), seed=1)
    titles = {
        "labels seed 0, dense, drawn": labels.dense,
        "labels seed 0, labels mask 2, rewound": labels.rounds[2],
        "labels seed 0, rotnet mask 3, rewound": winning_ticket(chain("rotnet"), 3, task="labels", recipe=RECIPE),
        "labels seed 0, random mask 2, drawn": drawn(random_prune(like=labels.dense, keep=0.5, level=2), labels.dense),
        "labels seed 0, shuffled shuffled labels mask 2, drawn": drawn(twice, labels.dense),
        "linear seed 0, rotnet mask 2, from rotnet": linear(chain("rotnet").rounds[2], data="digits", recipe=LONG),
        "linear SVMs seed 0, dense, from npid": linear(chain("npid").dense, data="digits", recipe=MACHINES),
        "linear seed 4, labels mask 1, drawn": untrained(chain(seed=4).rounds[1], data="digits", recipe=LONG),
        "labels seed 0, rotnet mask 1, from rotnet": finetune(chain("rotnet").rounds[1], data="a", recipe=LONG),
        "labels seed 0, random mask 3, drawn": drawn(
            random_prune(like=labels.dense, keep=0.5, level=3, nonzero=labels.dense), labels.dense
        ),
    }
    for title, step in titles.items():
        assert plan.make(points([step])).jobs[step.id].title == title


def test_titles_that_several_have_say_what_tells_them_apart() -> None:
    half, quarter = ([one.rounds[1], one.rounds[2]] for one in (chain(keep=0.5), chain(keep=0.25)))
    other = chain(keep=0.25, arch="conv5").rounds[1]
    named = plan.titles(plan.make(points([*half, *quarter])).jobs.values())
    assert [named[step.id] for step in (*half, *quarter)] == [
        "labels seed 0, labels mask 1, rewound, 50% left",
        "labels seed 0, labels mask 2, rewound, 25% left",
        "labels seed 0, labels mask 1, rewound, 25% left",
        "labels seed 0, labels mask 2, rewound, 6.25% left",
    ]
    named = plan.titles(plan.make(points([quarter[0], other])).jobs.values())
    assert [named[step.id].rpartition(", ")[2] for step in (quarter[0], other)] == [quarter[0].arch, "conv5"]
    alone = plan.make(points([quarter[1]])).jobs
    assert plan.titles(alone.values()) == {i: job.title for i, job in alone.items()}


# ------------------------------------------------------------------ pending


WEIGHTS = "weights.safetensors"


def record(step_id: str, files: Iterable[str] = (WEIGHTS,), speed: float = 1000.0, device: str = "cpu") -> Record:
    return Record(
        step=step_id,
        metrics={},
        facts={"images_per_second": speed, "device": device},
        files={name: File(size=1, sha256="") for name in files},
    )


def everything(graph: Plan) -> dict[str, Record]:
    """Records of a store in which all is done, and nothing left out."""
    records = {step_id: record(step_id) for step_id in graph.ids}
    for job in graph.jobs.values():
        names = [WEIGHTS, *(f"snapshot-{samples}.safetensors" for samples in job.snapshots)]
        records[job.id] = record(job.id, names)
    return records


def pending_ids(graph: Plan, records: dict[str, Record]) -> list[str]:
    return [job.id for job in graph.pending(records)]


def test_a_full_store_has_nothing_pending_and_an_empty_one_all(asked: list[Point]) -> None:
    graph = plan.make(asked)
    assert pending_ids(graph, everything(graph)) == []
    assert pending_ids(graph, {}) == list(graph.jobs)


def test_a_missing_training_is_pending_and_its_children_are_not() -> None:
    graph = plan.make(made_up())
    for job_id in graph.jobs:
        records = everything(graph)
        del records[job_id]
        assert pending_ids(graph, records) == [job_id]


def test_a_missing_mask_makes_its_maker_pending() -> None:
    graph = plan.make(made_up())
    for job in graph.jobs.values():
        for mask in job.masks:
            records = everything(graph)
            del records[mask.id]
            assert pending_ids(graph, records) == [job.id]


def test_a_missing_snapshot_makes_its_training_pending() -> None:
    graph = plan.make(made_up())
    dense = [job for job in graph.jobs.values() if job.snapshots]
    assert len(dense) == 2
    for job in dense:
        records = everything(graph)
        records[job.id] = record(job.id, [WEIGHTS, "snapshot-120.safetensors"])
        assert pending_ids(graph, records) == [job.id]
        assert set(job.snapshots) == {1200}


def test_several_things_missing_keep_the_order_of_the_plan() -> None:
    graph = plan.make(made_up())
    records = everything(graph)
    gone = list(graph.jobs)[1::3]
    for job_id in gone:
        del records[job_id]
    assert pending_ids(graph, records) == gone


# ------------------------------------------------------------------ retention


@pytest.mark.parametrize("keep_all", [True, False])
def test_weights_are_wanted_of_what_is_started_from_and_of_natural_zeros(asked: list[Point], keep_all: bool) -> None:
    graph = plan.make(asked, keep_all=keep_all)
    steps = set().union(*(all_behind(point.step) for point in asked))
    expected = {step.start.of for step in steps if isinstance(step, Train) and isinstance(step.start, Final)}
    expected |= {step.nonzero for step in steps if isinstance(step, RandomPrune) and step.nonzero is not None}
    assert {job.train for job in graph.jobs.values() if job.weights} == expected
    assert {job.keep for job in graph.jobs.values()} == {keep_all}


def test_weights_are_wanted_of_what_a_figure_reads() -> None:
    labels = chain()
    graph = plan.make(points(labels.rounds), weights_of=[labels.dense], keep_all=False)
    assert [job.weights for job in graph.jobs.values()] == [True, False, False]


def without_weights(graph: Plan) -> dict[str, Record]:
    """Records of a store in which all is done, and no weights stay."""
    records = everything(graph)
    for job in graph.jobs.values():
        records[job.id] = record(job.id, [name for name in records[job.id].files if name != WEIGHTS])
    return records


@pytest.mark.parametrize("keep_all", [True, False])
def test_only_weights_that_are_read_are_missed(asked: list[Point], keep_all: bool) -> None:
    """Whether others would be kept now makes no difference to what is done."""
    graph = plan.make(asked, keep_all=keep_all)
    records = without_weights(graph)
    assert pending_ids(graph, records) == [job.id for job in graph.jobs.values() if job.weights]
    assert graph.trainings_left(records) == sum(job.weights for job in graph.jobs.values())


def test_a_mask_that_is_missing_needs_the_weights_again_and_a_shuffled_one_does_not() -> None:
    labels = chain()
    permuted = shuffled(labels, 1)
    graph = plan.make(points([*labels.rounds, drawn(permuted, labels.dense)]), keep_all=False)
    dense = graph.jobs[labels.dense.id]
    assert dense.after == [labels.masks[1], permuted]
    for gone, trained in ((labels.masks[1], False), (permuted, True)):
        records = without_weights(graph)
        assert gone is not None
        del records[gone.id]
        assert pending_ids(graph, records) == [dense.id]
        assert dense.is_trained(records) == trained


# ------------------------------------------------------------------ the schedule, on made-up graphs

Dag = list[list[int]]  # the parents of each node, all of them before it


@st.composite
def dags(draw: st.DrawFn) -> Dag:
    count = draw(st.integers(1, 9))
    return [sorted(draw(st.sets(st.integers(0, i - 1), max_size=3))) if i else [] for i in range(count)]


PARTS = (1, 2, 4, 8)
SHARED = {parts: replace(RECIPE, bn_batch=RECIPE.batch // parts if parts > 1 else 0) for parts in PARTS}
TRAINS = [
    Train(task="labels", data="digits", arch="conv4", recipe=SHARED[PARTS[i % 4]], seed=i, start=Init(seed=0))
    for i in range(9)
]
NUMBER = {train.id: number for number, train in enumerate(TRAINS)}


def jobs_of(dag: Dag) -> list[Job]:
    jobs = [Job(train=train) for train, _ in zip(TRAINS, dag, strict=False)]
    for job, parents in zip(jobs, dag, strict=True):
        job.parents = [jobs[parent] for parent in parents]
        for parent in parents:
            jobs[parent].children.append(job)
    return jobs


def descendants(dag: Dag, node: int) -> set[int]:
    children = [child for child, parents in enumerate(dag) if node in parents]
    return set(children).union(*(descendants(dag, child) for child in children))


def longest_path(dag: Dag, seconds: Sequence[float], pending: set[int], node: int) -> float:
    """From the start of ``node`` to the end of the last job behind it, through pending jobs only."""
    behind = [child for child, parents in enumerate(dag) if node in parents and child in pending]
    return seconds[node] + max((longest_path(dag, seconds, pending, child) for child in behind), default=0)


class Driver:
    """Runs a schedule as a cluster would, and holds its answers against the definition."""

    def __init__(self, dag: Dag, seconds: Sequence[float], pending: set[int], data: st.DataObject) -> None:
        self.dag, self.seconds, self.data = dag, seconds, data
        self.jobs = jobs_of(dag)
        self.schedule = Schedule(
            [self.jobs[i] for i in sorted(pending)], {job.id: s for job, s in zip(self.jobs, seconds, strict=True)}
        )
        self.done = set(range(len(dag))) - pending
        self.waiting, self.running = set(pending), set[int]()
        self.failed, self.skipped = set[int](), set[int]()
        self.handed: Counter[int] = Counter()
        self.behind: dict[int, int] = {}
        self.workers = data.draw(st.integers(1, 4))

    def ready(self) -> set[int]:
        return {i for i in self.waiting if self.done.issuperset(self.dag[i])}

    def ask(self) -> int | None:
        """The next job, held against what may be handed out."""
        ready, job = self.ready(), self.schedule.next()
        if job is None:
            must = {i for i in ready if i not in self.behind or self.behind[i] in self.done}
            assert not must, "a job whose parents are done was not handed out"
            return None
        number = NUMBER[job.id]
        assert job is self.jobs[number]
        assert number in ready, "handed out before its parents were done, or twice"
        self.waiting.remove(number)
        self.running.add(number)
        self.handed[number] += 1
        return number

    def turns(self) -> Iterator[int]:
        """Fill the workers; then give one running job, drawn, that now ends somehow. Until nothing runs."""
        while True:
            assert self.schedule.finished == (not self.waiting and not self.running)
            assert {NUMBER[i] for i in self.schedule.waiting} == self.waiting
            assert {NUMBER[i] for i in self.schedule.running} == self.running
            while len(self.running) < self.workers and self.ask() is not None:
                pass
            if not self.running:
                assert not self.waiting, "nothing runs, yet there is something left to do"
                assert self.schedule.finished
                assert self.schedule.next() is None
                return
            number = self.data.draw(st.sampled_from(sorted(self.running)))
            yield number

    def succeed(self, number: int) -> None:
        self.schedule.done(self.jobs[number].id)
        self.running.remove(number)
        self.done.add(number)

    def back(self, number: int, _: int) -> None:
        self.succeed(number)

    def fail(self, number: int) -> None:
        """What waits for the job, or for what waits for it, is skipped; what is behind a job done or running is not."""
        self.schedule.fail(self.jobs[number].id)
        self.running.remove(number)
        self.failed.add(number)
        while behind := {i for i in self.waiting if not (self.failed | self.skipped).isdisjoint(self.dag[i])}:
            self.skipped |= behind
            self.waiting -= behind

    def redo(self, number: int, first: int) -> None:
        self.schedule.redo(self.jobs[number].id, self.jobs[first])
        self.running.remove(number)
        self.waiting.add(number)
        if first != number:
            self.behind[number] = first  # may also wait for this one, be it no parent
        if first in self.done:
            self.done.remove(first)
            self.waiting.add(first)


SECONDS = st.lists(st.integers(1, 9), min_size=9, max_size=9)


def driver(dag: Dag, data: st.DataObject, *, all_pending: bool = False) -> Driver:
    nodes = st.sets(st.integers(0, len(dag) - 1), min_size=1)
    pending = set(range(len(dag))) if all_pending else data.draw(nodes)
    return Driver(dag, data.draw(SECONDS)[: len(dag)], pending, data)


@given(dags(), st.data())
def test_all_jobs_are_handed_out_once_after_their_parents(dag: Dag, data: st.DataObject) -> None:
    run = driver(dag, data)
    pending = set(run.waiting)
    for number in run.turns():
        run.succeed(number)
    assert run.handed == Counter(pending)
    assert run.schedule.failed == run.schedule.skipped == {}


@given(dags(), st.data())
def test_a_failure_skips_exactly_what_depends_on_it(dag: Dag, data: st.DataObject) -> None:
    run = driver(dag, data, all_pending=True)
    for number in run.turns():
        (run.fail if data.draw(st.booleans()) else run.succeed)(number)
    behind = set().union(*(descendants(dag, number) for number in run.failed))
    assert {NUMBER[i] for i in run.schedule.failed} == run.failed
    assert {NUMBER[i] for i in run.schedule.skipped} == behind
    assert run.handed == Counter(set(range(len(dag))) - behind)


def wide(limit: int) -> Callable[[int], int]:
    """As many workers as a job has parts, but at most so many."""
    return lambda parts: min(parts, limit)


@given(dags(), st.data())
def test_the_longest_remaining_path_goes_first(dag: Dag, data: st.DataObject) -> None:
    """Each job on as many workers as it may have, which may change while they run; one each before that is said."""
    run = driver(dag, data)
    run.workers = 1
    limit = 1
    while not run.schedule.finished:
        seconds = [run.seconds[i] / wide(limit)(job.parts) for i, job in enumerate(run.jobs)]
        length = {node: longest_path(dag, seconds, run.waiting, node) for node in run.waiting}
        assert run.schedule.longest_path == max(length.values())
        assert run.schedule.ready == len(run.ready())
        best = max(length[i] for i in run.ready())
        number = run.ask()
        assert number is not None
        assert length[number] == best
        if data.draw(st.booleans()):
            limit = data.draw(st.sampled_from(PARTS))
            run.schedule.allow(wide(limit))
        run.succeed(number)
    assert run.schedule.longest_path == 0


@given(dags(), st.data())
def test_a_job_shares_what_is_free_if_it_then_still_ends_in_time(dag: Dag, data: st.DataObject) -> None:
    """Held against the definition, among jobs that end or are handed out again."""
    run = driver(dag, data)
    limit, slots = data.draw(st.sampled_from(PARTS)), data.draw(st.integers(1, 12))
    most = wide(limit)
    run.schedule.allow(most)
    best = [run.seconds[i] / most(job.parts) for i, job in enumerate(run.jobs)]
    for number in run.turns():
        unfinished = run.waiting | run.running
        left = sum(run.seconds[i] for i in unfinished) / slots
        for ready in run.ready():
            job, free = run.jobs[ready], data.draw(st.integers(1, slots))
            after = longest_path(dag, best, unfinished, ready) - best[ready]
            possible = [few for few in PARTS if few <= min(free, most(job.parts))]
            few = max(possible)
            good = few == most(job.parts) or (few * 4 >= most(job.parts) and run.seconds[ready] / few + after <= left)
            assert run.schedule.share(job, free, slots) == (few if good else 0)
        (run.redo if data.draw(st.booleans()) and run.handed[number] < 3 else run.back)(number, number)


def test_what_failed_leaves_no_time_to_wait_for() -> None:
    """On 4 slots: 240 s of work in all are a minute, in which the shared job can end on one worker, in 40 s. When the
    other fails, 40 s of work are left, which take 10 s on all four."""
    first, behind, shared = jobs = jobs_of([[], [0], []])
    assert (first.parts, behind.parts, shared.parts) == (1, 2, 4)
    schedule = Schedule(jobs, {first.id: 100, behind.id: 100, shared.id: 40})
    schedule.allow(wide(4))
    assert schedule.next() is first
    assert [schedule.share(shared, free, 4) for free in (4, 3, 2, 1)] == [4, 2, 2, 1]
    schedule.fail(first.id)
    assert schedule.skipped.keys() == {behind.id}
    assert [schedule.share(shared, free, 4) for free in (4, 3, 2, 1)] == [4, 0, 0, 0]
    schedule.add([])
    assert schedule.next() is shared


def test_nothing_overtakes_the_longest_path() -> None:
    jobs = jobs_of([[], [], []])
    schedule = Schedule(jobs, {job.id: seconds for job, seconds in zip(jobs, (1, 3, 2), strict=True)})
    asked: list[Job] = []
    assert schedule.next(lambda job: asked.append(job) is not None) is None
    assert asked == [jobs[1]]
    assert not schedule.running
    assert [schedule.next(lambda _: True) for _ in range(4)] == [jobs[1], jobs[2], jobs[0], None]


@settings(max_examples=150)
@given(dags().filter(any), st.data())
def test_a_job_put_behind_its_damaged_parent_runs_again_and_all_finishes(dag: Dag, data: st.DataObject) -> None:
    run = driver(dag, data)
    expected = Counter(run.waiting)
    for number in run.turns():
        if dag[number] and sum(expected.values()) < 40 and data.draw(st.booleans()):
            parent = data.draw(st.sampled_from(dag[number]))
            expected.update({number: 1, parent: int(parent in run.done)})
            run.redo(number, parent)
        else:
            run.succeed(number)
    assert run.handed == +expected
    assert run.done == set(range(len(dag)))


@given(dags(), st.data())
def test_a_job_whose_own_artefact_is_damaged_runs_again(dag: Dag, data: st.DataObject) -> None:
    """As when a mask is missing of a finished training whose weights turn out to be damaged."""
    run = driver(dag, data)
    expected = Counter(run.waiting)
    for number in run.turns():
        if sum(expected.values()) < 30 and data.draw(st.booleans()):
            expected[number] += 1
            run.redo(number, number)
        else:
            run.succeed(number)
    assert run.handed == expected


@settings(max_examples=150)
@given(dags(), st.data())
def test_a_job_put_behind_any_ancestor_runs_again(dag: Dag, data: st.DataObject) -> None:
    """As when the mask before the last is damaged, which a parent's parent has made."""
    run = driver(dag, data)
    expected = Counter(run.waiting)
    for number in run.turns():
        others = sorted(other for other in run.done if number in descendants(dag, other))
        if others and sum(expected.values()) < 40 and data.draw(st.booleans()):
            first = data.draw(st.sampled_from(others))
            expected.update({number: 1, first: 1})
            run.redo(number, first)
        else:
            run.succeed(number)
    assert run.handed == expected


@settings(max_examples=150)
@given(dags().filter(any), st.data())
def test_failures_after_repairs_leave_nothing_behind(dag: Dag, data: st.DataObject) -> None:
    run, repairs = driver(dag, data), 0
    for number in run.turns():
        how = data.draw(st.sampled_from(["succeed", "fail", "redo"]))
        lost = any(number in descendants(dag, failed) for failed in run.failed)  # not all that it reads can be made
        if how == "redo" and dag[number] and not lost and repairs < 8:
            repairs += 1
            run.redo(number, data.draw(st.sampled_from(dag[number])))
        else:
            (run.fail if how == "fail" else run.succeed)(number)
    assert run.schedule.finished
    assert len(run.done | run.failed | run.skipped) == len(dag)
    assert run.skipped <= set().union(*(descendants(dag, number) for number in run.failed))


def test_an_empty_schedule_is_finished() -> None:
    schedule = Schedule([], {})
    assert schedule.finished
    assert schedule.next() is None
    assert schedule.ready == schedule.longest_path == 0


def test_figure_3_begins_with_its_dense_trainings() -> None:
    """From each a chain of 24 trainings hangs, and behind that a training from drawn weights."""
    graph = plan.make(fig3("laptop", 1))
    jobs = graph.pending({})
    schedule = Schedule(jobs, {job.id: float(job.samples) for job in jobs})
    assert schedule.longest_path == (12 + 23 * 11 + 12) * 1200
    first = [schedule.next(), schedule.next(), schedule.next()]
    dense = {f"{task} seed 0, dense, drawn" for task in ("labels", "rotnet", "exemplar")}
    assert {job.title for job in first if job} == dense


# ------------------------------------------------------------------ cost


def test_cost_before_anything_was_measured() -> None:
    graph = plan.make(made_up())
    nets = {"conv4": Net(parameters=1000, prunable=800, images_per_second=500, pixels=8)}
    cost = plan.cost(graph.jobs.values(), {}, nets)
    for job in graph.jobs.values():
        samples = job.train.recipe.samples - (1200 if isinstance(job.train.start, Rewind) else 0)
        assert cost.seconds[job.id] == pytest.approx(plan.OVERHEAD + samples / 500)
    # 32-bit weights of each training and two snapshots; a bit for each prunable weight of each mask
    assert cost.disk == 4 * 1000 * (len(graph.jobs) + 2) + 100 * (len(graph.ids) - len(graph.jobs))


def test_cost_by_the_median_of_the_measured_speeds() -> None:
    graph = plan.make(made_up())
    some = [job.id for job in graph.jobs.values() if not job.snapshots and job.train.task == "labels"][:3]
    records = {i: record(i, speed=speed) for i, speed in zip(some, (90.0, 4000.0, 100.0), strict=True)}
    cost = plan.cost(graph.jobs.values(), records, NETS)
    for job in graph.jobs.values():
        left = 0 if job.id in some else job.samples
        speed = 100 if job.train.task == "labels" else NETS["conv4"].images_per_second  # other tasks are not as fast
        assert cost.seconds[job.id] == pytest.approx(plan.OVERHEAD + left / speed)


def test_cost_of_each_task_and_of_a_frozen_trunk_by_its_own_speed() -> None:
    rotnet, other = chain("rotnet"), chain("rotnet", seed=1)
    steps = {
        "rotnet": rotnet.dense,
        "frozen": linear(rotnet.dense, data="digits", recipe=LONG),
        "machines": linear(rotnet.dense, data="digits", recipe=MACHINES),
        "labels": finetune(rotnet.dense, data="digits", recipe=RECIPE),
    }
    twins = {
        "rotnet": other.dense,
        "frozen": linear(other.dense, data="digits", recipe=LONG),
        "machines": linear(other.dense, data="digits", recipe=MACHINES),
        "labels": finetune(other.dense, data="digits", recipe=RECIPE),
    }
    graph = plan.make(points([*steps.values(), *twins.values()]))
    nets = {"conv4": Net(parameters=10, prunable=8, images_per_second=10, pixels=8)}
    speeds = {"rotnet": 24.0, "frozen": 4800.0, "machines": 1e9, "labels": 48.0}
    records = {steps[name].id: record(steps[name].id, speed=speed) for name, speed in speeds.items()}
    cost = plan.cost(graph.jobs.values(), records, nets)
    seconds = {"rotnet": 2400 / 24, "frozen": 4800 / 4800, "machines": plan.SVMS, "labels": 2400 / 48}
    for name, twin in twins.items():
        assert cost.seconds[twin.id] == pytest.approx(plan.OVERHEAD + seconds[name]), name
        assert cost.seconds[steps[name].id] == pytest.approx(plan.OVERHEAD)
    del records[steps["frozen"].id]
    unmeasured = plan.cost(graph.jobs.values(), records, nets)
    # by what is stated of the net, of which a frozen trunk takes a third; not by the speed of a trunk that is trained
    assert unmeasured.seconds[twins["frozen"].id] == pytest.approx(plan.OVERHEAD + 4800 / 30)


def test_a_training_without_its_snapshot_costs_as_if_it_were_not_there() -> None:
    graph = plan.make(made_up())
    dense = next(job for job in graph.jobs.values() if job.snapshots)
    speed = NETS["conv4"].images_per_second
    for files, left in (([WEIGHTS], 2400), ([WEIGHTS, "snapshot-1200.safetensors"], 0)):
        records = {dense.id: record(dense.id, files, speed=speed)}
        cost = plan.cost(graph.jobs.values(), records, NETS)
        assert cost.seconds[dense.id] == pytest.approx(plan.OVERHEAD + left / speed)
        assert graph.trainings_left(records) == len(graph.jobs) - (not left)


def test_cost_of_each_network_by_its_own_speed() -> None:
    dense = chain().dense
    other, wide, unknown = replace(dense, seed=1), replace(dense, arch="wide"), replace(dense, arch="unknown")
    graph = plan.make(points([dense, other, wide, unknown]))
    nets = {
        "conv4": Net(parameters=10, prunable=8, images_per_second=240, pixels=8),
        "wide": Net(parameters=20, prunable=8, images_per_second=24, pixels=8),
        "other": Net(parameters=9, prunable=8, images_per_second=60, pixels=8),
    }
    cost = plan.cost(graph.jobs.values(), {dense.id: record(dense.id, speed=48)}, nets)
    assert cost.seconds[dense.id] == pytest.approx(plan.OVERHEAD)
    assert cost.seconds[other.id] == pytest.approx(plan.OVERHEAD + 50)
    assert cost.seconds[wide.id] == pytest.approx(plan.OVERHEAD + 100)
    assert cost.seconds[unknown.id] == pytest.approx(plan.OVERHEAD + 40)  # as the known nets in the middle
    assert cost.disk == 4 * (10 + 10 + 20)
    assert cost.guessed == {unknown.id}
    assert cost.unsized == ("unknown",)
    measured = {unknown.id: record(unknown.id, speed=48)}
    again = plan.cost(plan.make(points([unknown, replace(unknown, seed=1)])).jobs.values(), measured, nets)
    assert not again.guessed, "one like it has run here"


def test_cost_of_nothing() -> None:
    cost = plan.cost([], {}, {})
    assert (cost.seconds, cost.disk, cost.guessed, cost.unsized) == ({}, 0, frozenset(), ())


# ------------------------------------------------------------------ what figures cost

MILLION = 1e6


def pretext(task: str, seed: int = 0) -> Train:
    recipe = appendix_d(task, "imagenet", "resnet50")
    return Train(task=task, data="imagenet", arch="resnet50", recipe=recipe, seed=seed, start=Init(seed=seed))


LINEAR, SVMS = (TRANSFER[kind].recipe for kind in ("linear", "svm"))


def test_gpu_hours_by_hand() -> None:
    """RotNet, 90 epochs, and a linear classifier, 140,000 updates of 256, on an A100 at 938 images/s."""
    rotnet = pretext("rotnet")
    graph = plan.make(points([linear(rotnet, data="imagenet", recipe=LINEAR)]))
    cost = plan.estimate(graph, {}, NETS, "cuda")
    assert (cost.points, cost.steps, cost.trainings, cost.masks) == (1, 2, 2, 0)
    assert (cost.left, cost.without_sharing) == (2, 2)
    pretrained, judged = cost.work
    assert (pretrained.what, judged.what) == ("rotnet on imagenet, resnet50", "linear on imagenet, resnet50")
    assert (pretrained.trainings, pretrained.samples) == (1, 115_200_000)
    assert judged.samples == 35_840_000
    assert pretrained.images_per_second == 938
    assert judged.images_per_second == pytest.approx(3 * 938)
    assert pretrained.hours == pretrained.left == pytest.approx(115.2 * MILLION / 938 / 3600)
    assert judged.hours == pytest.approx(35.84 * MILLION / 2814 / 3600)
    assert cost.hours == cost.hours_left == pytest.approx(34.115 + 3.538, abs=0.001)
    assert {work.source for work in cost.work} == {"stated"}
    size = 4 * 25_557_032
    assert cost.disk == plan.Disk(weights=2 * size, needed=size, snapshots=0, masks=0, kept=2 * size)


def test_gpu_hours_by_task_and_network() -> None:
    """Exemplar sees two images a sample, S4L eight; VGG-19 has five times ResNet-50's multiply-adds at 224 pixels."""
    dense = {task: pretext(task) for task in ("labels", "rotnet", "npid", "exemplar", "s4l")}
    wide = replace(dense["labels"], arch="vgg19")
    strange = replace(dense["labels"], arch="mine:net")
    graph = plan.make(points([*dense.values(), wide, strange, linear(dense["npid"], data="voc07", recipe=SVMS)]))
    work = {work.what: work for work in plan.estimate(graph, {}, NETS, "cuda").work}
    speeds = {name: work[f"{name} on imagenet, resnet50"].images_per_second for name in dense}
    assert speeds == {"labels": 938, "rotnet": 938, "npid": 938, "exemplar": 469, "s4l": 938 / 8}
    assert work["labels on imagenet, vgg19"].images_per_second == pytest.approx(
        938 * 4_089_184_256 / (398_136_320 * 7 * 7)  # counted at 32 pixels, a seventh of 224
    )
    assert work["labels on imagenet, mine:net"].source == "guessed"
    fitted = work["linear SVMs on voc07, resnet50"]
    assert (fitted.trainings, fitted.hours, fitted.source) == (1, 0, "on the CPU")


def test_gpu_hours_by_what_a_gpu_measured() -> None:
    """And not by what a CPU did; the twin of what is done has the same speed."""
    done, on_cpu, other = pretext("rotnet"), pretext("rotnet", 1), pretext("rotnet", 2)
    graph = plan.make(points([done, on_cpu, other]))
    records = {
        done.id: record(done.id, speed=500, device="cuda:0"),
        on_cpu.id: record(on_cpu.id, speed=5),
    }
    (work,) = plan.estimate(graph, records, NETS, "cuda").work
    assert (work.images_per_second, work.source, work.trainings) == (500, "measured", 3)
    assert work.hours == pytest.approx(3 * 115.2 * MILLION / 500 / 3600) == pytest.approx(192)
    assert work.left == pytest.approx(64)
    alone = plan.estimate(plan.make(points([other])), records, NETS, "cuda", graph.jobs.values())
    assert alone.hours == alone.hours_left == pytest.approx(64)
    (work,) = plan.estimate(graph, records, NETS, "cpu").work
    assert (work.images_per_second, work.source) == (5, "measured")


def test_speeds_by_the_size_of_the_images() -> None:
    """As many more multiply-adds as images have more pixels; and what was measured is of one data set."""
    small = replace(pretext("labels"), arch="vgg19", data="cifar10")
    large, part = replace(small, data="imagenet"), replace(small, data="cifar10:10%-of-images")
    graph = plan.make(points([small, large, part]))
    nets = {"vgg19": Net(parameters=10, prunable=8, images_per_second=490, macs=1, pixels=32)}
    seconds = plan.cost(graph.jobs.values(), {}, nets).seconds
    samples = small.recipe.samples
    assert seconds[small.id] == seconds[part.id] == pytest.approx(plan.OVERHEAD + samples / 490)
    assert seconds[large.id] == pytest.approx(plan.OVERHEAD + samples / 10)
    seconds = plan.cost(graph.jobs.values(), {small.id: record(small.id, speed=70)}, nets).seconds
    assert seconds[part.id] == pytest.approx(plan.OVERHEAD + samples / 70)
    assert seconds[large.id] == pytest.approx(plan.OVERHEAD + samples / 10)


def test_a_training_that_was_resumed_at_its_very_end_measures_nothing() -> None:
    done, other = pretext("rotnet"), pretext("rotnet", 1)
    graph = plan.make(points([done, other]))
    records = {done.id: record(done.id, speed=0.0, device="cuda")}
    (work,) = plan.estimate(graph, records, NETS, "cuda").work
    assert work.source == "stated"
    assert plan.cost(graph.jobs.values(), records, NETS).seconds[other.id] > 0


def test_disk_by_retention() -> None:
    nets = {"conv4": Net(parameters=1000, prunable=800, images_per_second=500, pixels=8)}
    for keep_all in (True, False):
        graph = plan.make(judged(), keep_all=keep_all)
        disk = plan.estimate(graph, {}, nets, "cpu").disk
        assert disk.weights == 4000 * len(graph.jobs)
        assert disk.needed == 4000 * 3  # the three rounds, which all are judged
        assert disk.snapshots == 4000 * 2
        assert disk.masks == 100 * (len(graph.ids) - len(graph.jobs))
        weights = disk.weights if keep_all else disk.needed
        assert disk.kept == weights + disk.snapshots + disk.masks
        assert plan.cost(graph.jobs.values(), {}, nets).disk == disk.kept


def test_the_estimate_of_nothing() -> None:
    cost = plan.estimate(plan.make([]), {}, {}, "cuda")
    assert (cost.points, cost.steps, cost.hours, cost.work) == (0, 0, 0, ())


def test_a_hundred_thousand_points_are_planned_and_costed_in_linear_time() -> None:
    """Counted in calls of functions, not in seconds: ten times as many points take ten times as many."""

    def calls(seeds: int) -> int:
        asked, count = [point for seed in range(seeds) for point in FIG3("smoke", seed)], 0

        def counter(_frame: object, event: str, _arg: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(counter)
        try:
            plan.estimate(plan.make(asked), {}, NETS, "cuda")
        finally:
            sys.setprofile(None)
        return count

    assert calls(20) < 11 * calls(2)


@pytest.mark.parametrize("arch", NETS)
def test_multiply_adds_of_a_network(arch: str) -> None:
    if not NETS[arch].macs:
        pytest.skip("not counted")
    imagenet, digits = ("resnet18", "resnet34", "resnet50", "alexnet", "alexnet-bn"), ("conv4", "resnet8", "alexnet8")
    channels, size, classes = (3, 224, 1000) if arch in imagenet else (1, 8, 10) if arch in digits else (3, 32, 10)
    assert NETS[arch].pixels == size
    with torch.device("meta"):
        trunk, image = models.trunk(arch, channels), torch.empty(1, channels, size, size)
    assert isinstance(trunk.width, int)
    total = trunk.width * classes

    def count(layer: nn.Module, _inputs: object, output: torch.Tensor) -> None:
        nonlocal total
        if isinstance(layer, nn.Conv2d):
            total += output[0].numel() * layer.weight[0].numel()
        elif isinstance(layer, nn.Linear):
            total += layer.weight.numel()

    for layer in trunk.modules():
        layer.register_forward_hook(count)
    trunk.eval()(image)
    assert NETS[arch].macs == total


@pytest.mark.parametrize("task", names.TASKS)
def test_images_a_task_looks_at_for_each_sample(task: str) -> None:
    digits = data.load("digits")
    recipe = next(r for name, r in SETTINGS["smoke"].recipes.items() if name.startswith(task))
    recipe = replace(RECIPE, samples=64, options=recipe.options)
    step = Train(task=task, data="digits", arch="conv4", recipe=recipe, seed=0, start=Init(seed=0))
    loop = Loop(step=step, data=digits)
    seen = 0

    def count(_net: nn.Module, inputs: tuple[torch.Tensor, ...], _output: object) -> None:
        nonlocal seen
        seen += len(inputs[0]) if loop.net.training else 0

    loop.net.trunk.register_forward_hook(count)
    loop.run()
    assert seen == 64 * VIEWS.get(task, 1)


def test_a_dry_run_at_the_papers_scale_says_what_each_figure_costs() -> None:
    rotnet, labels = pretext("rotnet"), pretext("labels")
    asked = {"one": points([rotnet, labels]), "two": points([rotnet, linear(rotnet, data="imagenet", recipe=LINEAR)])}
    figures = {name: plan.make(some) for name, some in asked.items()}
    graph, out = plan.make([point for some in asked.values() for point in some]), io.StringIO()
    terminal.dry_run(Console(file=out, width=100), Store("/nowhere"), graph, {}, [], [], 2, gpu=True, figures=figures)
    rows = [line.split() for line in out.getvalue().splitlines()]
    hours = {"one": 68.2, "two": 37.7, "together": 71.8}
    for name, counts in {"one": [2, 2, 2, 2], "two": [2, 2, 2, 3], "together": [4, 3, 3, 5]}.items():
        assert [name, *map(str, counts), *[str(hours[name])] * 2] in rows
    assert ["rotnet", "on", "imagenet,", "resnet50", "1", "115.2", "938", "stated", "34.1", "34.1"] in rows
    assert ["linear", "on", "imagenet,", "resnet50", "1", "35.8", "2,814", "stated", "3.5", "3.5"] in rows
    assert ["together", "0", "B", "0", "B", "102", "MB", "307", "MB"] in rows  # one of three is read
    assert "each figure alone: 106 GPU-hours; together: 71.8" in out.getvalue()
    assert GPU in out.getvalue()
    assert "on 2 cores" not in out.getvalue()


def test_a_dry_run_of_one_figure_on_this_machine_is_short() -> None:
    out = io.StringIO()
    terminal.dry_run(Console(file=out, width=100), Store("/nowhere"), plan.make(made_up()), {}, [], [], 2)
    lines = out.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == [
        "root",
        "points",
        "unique",
        "done",
        "will",
        "without",
        "time",
        "disk",
    ]


# ------------------------------------------------------------------------------------- what is left


def test_what_a_mask_leaves_is_its_density_but_for_rounding() -> None:
    chain = SETTINGS["laptop"].imp("labels", seed=0, levels=7, keep=0.8)
    assert plan.left(None) == 1
    for level, mask in enumerate(chain.masks[1:], 1):
        assert mask is not None
        assert plan.left(mask) == pytest.approx(0.8**level)
        assert plan.left(Shuffle(of=mask, seed=3)) == pytest.approx(0.8**level)
    random = RandomPrune(arch="conv4", data="digits", keep=0.8, level=5, seed=0)
    assert plan.left(random) == pytest.approx(masks.left_after(32_400, 0.8, 5) / 32_400, rel=1e-3)
