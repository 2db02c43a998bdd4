"""From points to jobs."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from raysslprune.lottery import finetune, imp, linear, random_prune, shuffled
from raysslprune.plan.graph import Plan, make_plan
from raysslprune.spec import Final, Init, Mask, Prune, RandomPrune, Rewind, Shuffle, Step, Train, load
from raysslprune.store.record import Record
from raysslprune.sweepfile import Point
from tests.helpers.points import (
    LONG,
    MACHINES,
    RECIPE,
    SWEEPS,
    WEIGHTS,
    chain,
    drawn,
    fig3,
    judged,
    made_up,
    points,
    record,
)


@pytest.fixture(params=SWEEPS)
def asked(request: pytest.FixtureRequest) -> list[Point]:
    return SWEEPS[request.param]


def reads(step: Step) -> list[Step]:
    """The steps that a step reads, by its fields."""
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
    """The step and all its ancestors."""
    return {step}.union(*(all_behind(parent) for parent in reads(step)))


def trainings_behind(step: Step) -> set[Step]:
    return {one for one in all_behind(step) if isinstance(one, Train)}


def source(mask: Step) -> Step | None:
    """The training that a mask is made from, also if it is shuffled."""
    while isinstance(mask, Shuffle):
        mask = mask.of
    if isinstance(mask, RandomPrune):
        return mask.nonzero
    assert isinstance(mask, Prune)
    return mask.of


# ------------------------------------------------------------------------------------- make


def test_every_step_asked_for_is_in_the_plan_once(asked: list[Point]) -> None:
    graph = make_plan(iter(asked))
    wanted = set().union(*(all_behind(point.step) for point in asked))
    assert list(graph.points) == asked
    assert Counter(graph.ids) == Counter(step.id for step in wanted)
    assert list(graph.jobs) == [job.id for job in graph.jobs.values()]
    assert set(graph.jobs) == {step.id for step in wanted if isinstance(step, Train)}


def test_parents_come_before_their_children(asked: list[Point]) -> None:
    place = {job_id: n for n, job_id in enumerate(make_plan(asked).jobs)}
    for job in make_plan(asked).jobs.values():
        assert len({parent.id for parent in job.parents}) == len(job.parents)
        assert all(place[parent.id] < place[job.id] for parent in job.parents)
        assert all(place[child.id] > place[job.id] for child in job.children)


def test_parents_are_the_trainings_that_a_job_reads_from(asked: list[Point]) -> None:
    jobs = make_plan(asked).jobs
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
    graph = make_plan(asked)
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
    graph = make_plan(asked)
    expected: dict[str, set[int]] = {job_id: set() for job_id in graph.jobs}
    for job in graph.jobs.values():
        if isinstance(job.train.start, Rewind):
            expected[job.train.start.of.id].add(job.train.start.samples)
    assert {job_id: job.snapshots for job_id, job in graph.jobs.items()} == expected


def test_chains_rewound_differently_share_a_dense_training() -> None:
    chains = [chain(rewind=samples) for samples in (0, 600, 1200)]
    graph = make_plan(points(c.rounds[-1] for c in chains))
    dense = graph.jobs[chains[0].dense.id]
    assert dense.snapshots == {0, 600, 1200}
    assert len(dense.after) == 1
    assert len(graph.jobs) == 1 + 3 * 2


def test_counts_of_figure_3_by_hand() -> None:
    """Laptop, a seed: seven levels up to 24, their sum 97. Smoke: levels 1 and 3. Labels, RotNet and Exemplar."""
    graph = make_plan(fig3("laptop", 1))
    assert len(graph.points) == 1 + 7 * 10
    assert len(graph.jobs) == 25 + 2 * 24 + 2 * 7 + 7 * 7  # label rounds, other rounds, other tickets, drawn weights
    assert len(graph.ids) - len(graph.jobs) == 3 * 24 + 4 * 7  # two kinds of random masks, two of shuffled ones
    assert graph.trainings_without_sharing() == 1 + 8 * (97 + 7) + 2 * 7
    graph = make_plan(fig3("smoke", 2))
    assert len(graph.points) == 2 * (1 + 2 * 10)
    assert len(graph.jobs) == 2 * (4 + 2 * 3 + 2 * 2 + 7 * 2)
    assert len(graph.ids) - len(graph.jobs) == 2 * (3 * 3 + 4 * 2)
    assert graph.trainings_without_sharing() == 2 * (1 + 8 * (4 + 2) + 2 * 2)


def test_counts_of_the_judged_chain_by_hand() -> None:
    graph = make_plan(judged())
    # three rounds; what is judged at each level: linear, SVMs, both untrained, fine-tuned; in transfer, the second
    # round, as the first is the dense fine-tuning; three under random masks
    assert len(graph.jobs) == 3 + 3 * 5 + 1 + 3
    # masks of levels 1 and 2 by RotNet and of level 1 in transfer; three random ones and a shuffled one less one
    assert len(graph.ids) - len(graph.jobs) == 2 + 1 + 3


def test_judging_in_several_ways_shares_the_chain() -> None:
    """Figure 1 on three data sets and Figure 2: no round is trained twice, whatever its uses."""
    rounds = chain("npid", levels=5).rounds
    alone = make_plan(points(rounds))
    asked = [linear(of, data=on, recipe=r) for of in rounds for on, r in (("a", LONG), ("b", LONG), ("c", MACHINES))]
    asked += [finetune(of, data="c", recipe=RECIPE) for of in rounds]
    graph = make_plan(points(asked))
    assert set(alone.ids) <= set(graph.ids)
    assert len(graph.jobs) == 5 + 4 * 5
    assert graph.trainings_without_sharing() == 4 * (2 + 3 + 4 + 5 + 6)
    for of in rounds:
        starts = [job.train.start for job in graph.jobs[of.id].children]
        assert sum(start == Final(of=of) for start in starts) == 4


def test_final_weights_are_a_parent_and_no_snapshot() -> None:
    rotnet = chain("rotnet")
    step = finetune(rotnet.rounds[2], data="digits", recipe=RECIPE)
    jobs = make_plan(points([step])).jobs
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
    jobs = make_plan(points(during.rounds)).jobs
    assert jobs[during.dense.id].snapshots == {0}
    assert {parent.id for parent in jobs[during.dense.id].parents} == {dense.id}


def test_a_mask_without_natural_zeros_is_made_after_the_training_whose_zeros_they_are() -> None:
    dense = chain().dense
    adjusted = random_prune(like=dense, keep=0.5, level=2, nonzero=dense)
    plain = random_prune(like=dense, keep=0.5, level=2)
    permuted = Shuffle(of=adjusted, seed=1)
    steps = [drawn(mask, dense) for mask in (permuted, adjusted, plain)]
    jobs = make_plan(points(steps)).jobs
    assert list(jobs) == [dense.id, *(step.id for step in steps)]
    assert jobs[dense.id].after == [adjusted, permuted]
    assert [job.before for job in jobs.values()] == [[], [], [], [plain]]
    assert [[p.id for p in job.parents] for job in jobs.values()] == [[], [dense.id], [dense.id], []]


def test_what_a_job_reads_is_made_again_by_the_job_that_makes_it(asked: list[Point]) -> None:
    """An earlier job; or itself, for a mask that needs no training."""
    graph = make_plan(asked)
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
    assert make_plan(asked).trainings_without_sharing() == expected


def test_two_sweeps_together_share_what_both_need() -> None:
    one = made_up()
    other = points([chain().rounds[2], drawn(chain(levels=5).masks[5], chain().dense), chain(seed=9).dense])
    alone, beside = make_plan(one), make_plan(other)
    both = make_plan([*one, *other])
    assert set(both.ids) == set(alone.ids) | set(beside.ids)
    assert len(both.ids) == len(set(both.ids)) < len(alone.ids) + len(beside.ids)
    assert len(make_plan([*one, *one]).ids) == len(alone.ids)
    new = set(both.jobs) - set(alone.jobs)
    # rounds 3 and 4 of the longer chain and what is drawn under its mask 5, and the other seed's dense training
    assert len(new) == 4


def test_the_plan_does_not_depend_on_the_order_of_the_points(asked: list[Point]) -> None:
    forth, back = make_plan(asked), make_plan(asked[::-1])
    assert set(forth.ids) == set(back.ids)
    assert forth.trainings_without_sharing() == back.trainings_without_sharing()


def test_a_chain_of_hundreds_of_rounds_can_be_planned() -> None:
    long = chain(levels=300, keep=0.98)
    graph = make_plan(points([long.rounds[-1], drawn(long.masks[300], long.dense)]))
    assert len(graph.jobs) == 301


def test_nothing_asked_for_is_an_empty_plan() -> None:
    graph = make_plan([])
    assert (graph.ids, graph.trainings_without_sharing(), graph.pending({})) == ([], 0, [])


def test_a_job_travels_as_json(asked: list[Point]) -> None:
    for job in list(make_plan(asked).jobs.values())[-8:]:
        plain = json.loads(json.dumps(job.to_plain()))
        steps = load(plain["graph"])
        assert steps[plain["train"]] == job.train
        assert [steps[i] for i in plain["before"]] == job.before
        assert [steps[i] for i in plain["after"]] == job.after
        assert set(plain["snapshots"]) == job.snapshots
        assert (plain["weights"], plain["keep"]) == (job.weights, True)


def everything(graph: Plan) -> dict[str, Record]:
    """Records of a store in which everything is done and kept."""
    records = {step_id: record(step_id) for step_id in graph.ids}
    for job in graph.jobs.values():
        names = [WEIGHTS, *(f"snapshot-{samples}.safetensors" for samples in job.snapshots)]
        records[job.id] = record(job.id, names)
    return records


def pending_ids(graph: Plan, records: dict[str, Record]) -> list[str]:
    return [job.id for job in graph.pending(records)]


# ------------------------------------------------------------------------------------- pending


def test_a_full_store_has_nothing_pending_and_an_empty_one_all(asked: list[Point]) -> None:
    graph = make_plan(asked)
    assert pending_ids(graph, everything(graph)) == []
    assert pending_ids(graph, {}) == list(graph.jobs)


def test_a_missing_training_is_pending_and_its_children_are_not() -> None:
    graph = make_plan(made_up())
    for job_id in graph.jobs:
        records = everything(graph)
        del records[job_id]
        assert pending_ids(graph, records) == [job_id]


def test_a_missing_mask_makes_its_maker_pending() -> None:
    graph = make_plan(made_up())
    for job in graph.jobs.values():
        for mask in job.masks:
            records = everything(graph)
            del records[mask.id]
            assert pending_ids(graph, records) == [job.id]


def test_a_missing_snapshot_makes_its_training_pending() -> None:
    graph = make_plan(made_up())
    dense = [job for job in graph.jobs.values() if job.snapshots]
    assert len(dense) == 2
    for job in dense:
        records = everything(graph)
        records[job.id] = record(job.id, [WEIGHTS, "snapshot-120.safetensors"])
        assert pending_ids(graph, records) == [job.id]
        assert set(job.snapshots) == {1200}


def test_several_things_missing_keep_the_order_of_the_plan() -> None:
    graph = make_plan(made_up())
    records = everything(graph)
    gone = list(graph.jobs)[1::3]
    for job_id in gone:
        del records[job_id]
    assert pending_ids(graph, records) == gone


# ------------------------------------------------------------------------------------- retention


@pytest.mark.parametrize("keep_all", [True, False])
def test_weights_are_wanted_of_what_is_started_from_and_of_natural_zeros(asked: list[Point], keep_all: bool) -> None:
    graph = make_plan(asked, keep_all=keep_all)
    steps = set().union(*(all_behind(point.step) for point in asked))
    expected = {step.start.of for step in steps if isinstance(step, Train) and isinstance(step.start, Final)}
    expected |= {step.nonzero for step in steps if isinstance(step, RandomPrune) and step.nonzero is not None}
    assert {job.train for job in graph.jobs.values() if job.weights} == expected
    assert {job.keep for job in graph.jobs.values()} == {keep_all}


def test_weights_are_wanted_of_what_a_figure_reads() -> None:
    labels = chain()
    graph = make_plan(points(labels.rounds), weights_of=[labels.dense], keep_all=False)
    assert [job.weights for job in graph.jobs.values()] == [True, False, False]


def without_weights(graph: Plan) -> dict[str, Record]:
    """Records of a store in which everything is done, without weights."""
    records = everything(graph)
    for job in graph.jobs.values():
        records[job.id] = record(job.id, [name for name in records[job.id].files if name != WEIGHTS])
    return records


@pytest.mark.parametrize("keep_all", [True, False])
def test_only_weights_that_are_read_are_missed(asked: list[Point], keep_all: bool) -> None:
    """Which weights would be kept now has no effect on what counts as done."""
    graph = make_plan(asked, keep_all=keep_all)
    records = without_weights(graph)
    assert pending_ids(graph, records) == [job.id for job in graph.jobs.values() if job.weights]
    assert graph.trainings_left(records) == sum(job.weights for job in graph.jobs.values())


def test_a_mask_that_is_missing_needs_the_weights_again_and_a_shuffled_one_does_not() -> None:
    labels = chain()
    permuted = shuffled(labels, 1)
    graph = make_plan(points([*labels.rounds, drawn(permuted, labels.dense)]), keep_all=False)
    dense = graph.jobs[labels.dense.id]
    assert dense.after == [labels.masks[1], permuted]
    for gone, trained in ((labels.masks[1], False), (permuted, True)):
        records = without_weights(graph)
        assert gone is not None
        del records[gone.id]
        assert pending_ids(graph, records) == [dense.id]
        assert dense.is_trained(records) == trained
