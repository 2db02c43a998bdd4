"""Sweeps on clusters that are not there, against cases worked out by hand, an exhaustive search, and accounts."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import cluster as benchmark
from benchmarks.simulate import Cluster, Costs, Outcome, bound, simulate
from raysslprune.cluster.options import RunOptions
from raysslprune.paper.recipes import NETS
from raysslprune.plan.cost import SVMS, cost_of, estimate
from raysslprune.plan.graph import Job, Plan, make_plan
from raysslprune.spec import Init, Recipe, Train
from raysslprune.sweep_loader import known, load

FREE = Costs(start=0.0, fit=0.0, checkpoint=60.0)
"""Nothing but training costs time."""

Node = tuple[int, float, tuple[int, ...]]
"""A job: the parts of its batch, its seconds on one GPU, its parents."""


def graph_of(nodes: Sequence[Node]) -> tuple[Plan, dict[str, float]]:
    jobs: list[Job] = []
    for number, (parts, _, parents) in enumerate(nodes):
        recipe = Recipe(samples=960, batch=32, bn_batch=32 // parts if parts > 1 else 0, lr=0.1)
        step = Train(task="labels", data="digits", arch="conv4", recipe=recipe, seed=number, start=Init(seed=0))
        job = Job(train=step, parents=[jobs[parent] for parent in parents])
        for parent in job.parents:
            parent.children.append(job)
        jobs.append(job)
    assert [job.parts for job in jobs] == [parts for parts, _, _ in nodes]
    graph = Plan(points=(), jobs={job.id: job for job in jobs})
    return graph, {job.id: seconds for job, (_, seconds, _) in zip(jobs, nodes, strict=True)}


def outcome_of(nodes: Sequence[Node], cluster: Cluster, costs: Costs = FREE, **more: Any) -> Outcome:
    graph, seconds = graph_of(nodes)
    outcome = simulate(graph, seconds, cluster, costs=costs, **more)
    assert outcome.failed or outcome.ended == dict.fromkeys(graph.jobs, 1)
    return outcome


# ------------------------------------------------------------------------------------- by hand


def test_a_chain_and_what_hangs_on_it_by_hand() -> None:
    """On 4 GPUs: a (4 parts, 40 s on one) takes all for 10 s. Then b (2 parts, 40 s) has two for 20 s; beside it c and
    d (one part each) run 30 s and 5 s, and e (5 s), behind d, 5 s more. All is over after 10 + 30 s.
    """
    nodes: list[Node] = [(4, 40, ()), (2, 40, (0,)), (1, 30, (0,)), (1, 5, (0,)), (1, 5, (3,))]
    outcome = outcome_of(nodes, Cluster(gpus=4))
    assert outcome.makespan == 40
    assert (outcome.alive, outcome.trained, outcome.idle) == (160, 120, 40)
    graph, seconds = graph_of(nodes)
    least = bound(graph, seconds, Cluster(gpus=4))
    assert (least.work, least.path, least.seconds) == (30, 40, 40)


def test_starts_by_hand() -> None:
    """A training of several workers starts a fit; one alone is in a process that is there."""
    costs = Costs(start=1.0, fit=20.0)
    assert outcome_of([(2, 40, ()), (1, 7, (0,))], Cluster(gpus=2), costs).makespan == 20 + 20 + 1 + 7
    outcome = outcome_of([(2, 40, ())], Cluster(gpus=3), costs)
    assert (outcome.starting, outcome.trained, outcome.idle) == (40, 40, 40)


def test_an_imperfect_speed_up_by_hand() -> None:
    costs = Costs(start=0, fit=0, efficiency=0.9)
    assert outcome_of([(4, 324, ())], Cluster(gpus=4), costs).makespan == pytest.approx(324 / (4 * 0.81))
    graph, seconds = graph_of([(4, 324, ())])
    least = bound(graph, seconds, Cluster(gpus=4), costs=costs)
    assert (least.work, least.path) == (81, pytest.approx(100))
    worse = bound(graph, seconds, Cluster(gpus=4), costs=Costs(efficiency=0.4))
    assert worse.path == 324, "where sharing makes it slower, it is fastest alone"


def test_the_last_node_has_the_rest() -> None:
    assert Cluster(gpus=20).nodes == [8, 8, 4]
    assert Cluster(gpus=16, per_node=4).nodes == [4] * 4
    assert Cluster(gpus=3).nodes == [3]


def test_workers_are_limited_as_in_a_sweep() -> None:
    nodes: list[Node] = [(16, 160, ())]
    assert outcome_of(nodes, Cluster(gpus=16)).makespan == 10
    assert outcome_of(nodes, Cluster(gpus=16), options=RunOptions(workers_per_step=4, gpus_per_worker=1)).makespan == 40
    assert outcome_of(nodes, Cluster(gpus=12)).makespan == 20


# ------------------------------------------------------------------------------------- the bound


@st.composite
def dags(draw: st.DrawFn, most: int = 7, parts: Sequence[int] = (1, 2, 4)) -> list[Node]:
    nodes: list[Node] = []
    for number in range(draw(st.integers(1, most))):
        parents = draw(st.sets(st.integers(0, number - 1), max_size=2)) if number else set[int]()
        seconds = draw(st.integers(1, 9)) * 100.0
        nodes.append((draw(st.sampled_from(parts)), seconds, tuple(sorted(parents))))
    return nodes


def schedules(nodes: Sequence[Node], gpus: int) -> Iterator[float]:
    """Makespans of all ways to list the jobs and to share each, each begun as early as its parents and GPUs allow.

    One of them is the shortest that there is. Without deaths, on whole GPUs.
    """
    shares = [[w for w in range(1, min(parts, gpus) + 1) if parts % w == 0] for parts, _, _ in nodes]
    for order in itertools.permutations(range(len(nodes))):
        if any(order.index(parent) > order.index(node) for node in order for parent in nodes[node][2]):
            continue
        for widths in itertools.product(*shares):
            placed: list[tuple[float, float, int]] = []
            ends: dict[int, float] = {}
            for node in order:
                _, seconds, parents = nodes[node]
                ready, lasts = max((ends[parent] for parent in parents), default=0.0), seconds / widths[node]
                for begin in sorted({ready, *(end for _, end, _ in placed if end > ready)}):
                    moments = [begin, *(b for b, _, _ in placed if begin < b < begin + lasts)]
                    busy = max(sum(w for b, e, w in placed if b <= moment < e) for moment in moments)
                    if busy + widths[node] <= gpus:
                        placed.append((begin, begin + lasts, widths[node]))
                        ends[node] = begin + lasts
                        break
            yield max(ends.values())


@settings(max_examples=60)
@given(dags(most=4), st.integers(1, 4))
def test_no_order_beats_the_bound_and_no_simulation_the_best_order(nodes: list[Node], gpus: int) -> None:
    graph, seconds = graph_of(nodes)
    best = min(schedules(nodes, gpus))
    assert bound(graph, seconds, Cluster(gpus=gpus)).seconds <= best * (1 + 1e-12)
    assert best <= simulate(graph, seconds, Cluster(gpus=gpus), costs=FREE).makespan * (1 + 1e-12)


@settings(max_examples=100)
@given(dags(most=9, parts=(1,)), st.integers(1, 4))
def test_where_nothing_is_shared_it_keeps_grahams_guarantee(nodes: list[Node], gpus: int) -> None:
    """Never a GPU idle while a job is ready: within work/GPUs + (1 - 1/GPUs) of the path."""
    graph, seconds = graph_of(nodes)
    least = bound(graph, seconds, Cluster(gpus=gpus))
    outcome = simulate(graph, seconds, Cluster(gpus=gpus), costs=FREE)
    assert outcome.makespan <= least.work + least.path * (1 - 1 / gpus) + 1e-9


@settings(max_examples=100)
@given(dags(most=9, parts=(1, 2, 8, 16)), st.integers(1, 24), st.sampled_from([math.inf, 4000.0, 600.0]), st.booleans())
def test_accounts(nodes: list[Node], gpus: int, life: float, dear: bool) -> None:
    """A GPU-second is one thing only, and nothing is trained twice but what is called lost."""
    cluster = Cluster(gpus=gpus, life=life, replaced=100.0)
    costs = Costs(start=0.15, fit=20.0, checkpoint=60.0, efficiency=0.9 if dear else 1.0)
    outcome = outcome_of(nodes, cluster, costs, seed=len(nodes))
    parts = [outcome.trained, outcome.lost, outcome.starting, outcome.stopped, outcome.idle]
    assert sum(parts) == pytest.approx(outcome.alive)
    assert min(parts) >= -1e-6
    if not outcome.failed:
        graph, seconds = graph_of(nodes)
        work = sum(seconds.values())
        assert bound(graph, seconds, cluster, costs=costs).seconds <= outcome.makespan * (1 + 1e-12)
        assert outcome.trained >= work * (1 - 1e-9)
        if not dear:
            assert outcome.trained == pytest.approx(work)
    if life == math.inf:
        assert outcome.alive == pytest.approx(gpus * outcome.makespan)
        assert outcome.lost == outcome.stopped == outcome.deaths == outcome.broken == outcome.failed == 0
    else:
        assert outcome.alive <= gpus * outcome.makespan * (1 + 1e-12)
    again = outcome_of(nodes, cluster, costs, seed=len(nodes))
    assert again == outcome


# ------------------------------------------------------------------------------------- deaths


def lives(seed: int, place: int, cluster: Cluster, until: float) -> list[tuple[float, float]]:
    """From when to when the machines live that are one after the other in a node's place."""
    chance, now, spans = random.Random(f"{seed} {place}"), 0.0, []
    while now < until:
        spans.append((now, now + chance.expovariate(1 / cluster.life)))
        now = spans[-1][1] + cluster.replaced
    return spans


@pytest.mark.parametrize("seed", range(5))
def test_a_death_costs_what_was_done_since_the_last_checkpoint(seed: int) -> None:
    """One training on the one GPU there is, walked along its machines' lives."""
    cluster = Cluster(gpus=1, life=1000.0, replaced=300.0, noticed=30.0)
    costs = Costs(start=1.0, fit=20.0, checkpoint=60.0)
    work, saved, lost, first, ended = 5000.0, 0.0, 0.0, True, math.nan
    for begun, died in lives(seed, 0, cluster, 1e6):
        starts = begun + (1.0 if first else 20.0)
        if starts + work - saved <= died:
            ended = starts + work - saved
            break
        trained = max(0.0, died - starts)
        saved += trained - trained % 60
        lost += trained % 60
        first = False
    outcome = outcome_of([(1, work, ())], cluster, costs, seed=seed)
    assert outcome.makespan == pytest.approx(ended)
    assert outcome.lost == pytest.approx(lost)
    assert outcome.broken == outcome.deaths > 0
    assert outcome.trained == pytest.approx(work)


def test_one_dead_node_stops_all_that_share_the_training() -> None:
    """Sixteen workers on two nodes; the half that lives is held until the death is noticed, and then waits."""
    cluster = Cluster(gpus=16, life=20_000.0, replaced=300.0, noticed=30.0)
    seed = next(s for s in itertools.count() if 1000 < min(lives(s, p, cluster, 1)[0][1] for p in (0, 1)) < 3000)
    (_, first), (_, second) = (lives(seed, place, cluster, 1)[0] for place in (0, 1))
    died = min(first, second)
    assert abs(first - second) > 5000, "the other lives on"
    outcome = outcome_of([(16, 16 * 4000.0, ())], cluster, Costs(start=0, fit=20, checkpoint=60), seed=seed)
    since = (died - 20) % 60
    assert outcome.broken == outcome.deaths == 1
    assert outcome.lost == pytest.approx(16 * since)
    assert outcome.stopped == pytest.approx(8 * 30)
    assert outcome.makespan == pytest.approx(died + 300 + 20 + 4000 - (died - 20 - since))
    assert outcome.idle == pytest.approx(8 * 270)


def test_deaths_are_the_same_whatever_runs() -> None:
    cluster = Cluster(gpus=8, per_node=2, life=5000.0)
    few = outcome_of([(1, 40_000, ())], cluster, seed=3)
    many = outcome_of([(1, 40_000, ())] * 4, cluster, seed=3)
    spans = [span for place in range(4) for span in lives(3, place, cluster, many.makespan)]
    assert many.deaths == sum(died < many.makespan for _, died in spans)
    assert few.deaths == sum(died < few.makespan for _, died in spans)
    assert outcome_of([(1, 40_000, ())] * 4, cluster, seed=4) != many


def test_what_never_comes_to_a_checkpoint_fails() -> None:
    """As in a sweep: after four deaths without one; and what needs it is skipped."""
    outcome = outcome_of([(1, 5000, ()), (1, 10, (0,)), (1, 0.1, ())], Cluster(gpus=2, life=20.0))
    assert (outcome.failed, sum(outcome.ended.values())) == (2, 1)
    assert outcome.broken == 4


# ------------------------------------------------------------------------------------- the paper's figures


@cache
def papers(seeds: int) -> tuple[Plan, dict[str, float], dict[str, float]]:
    graph = make_plan(point for name in known() for point in load(name, "paper", seeds).points)
    return graph, benchmark.on_one_gpu(graph), cost_of(graph.jobs.values(), {}, NETS).seconds


def test_seconds_on_one_gpu_are_those_that_gpu_hours_are_counted_by() -> None:
    graph, seconds, _ = papers(1)
    hours = estimate(graph, {}, NETS, "cuda").hours
    svms = sum(SVMS for job in graph.jobs.values() if not job.samples)
    assert sum(seconds.values()) == pytest.approx(3600 * hours + svms)
    assert svms > 0


@pytest.mark.parametrize("hours", [math.inf, 12])
@pytest.mark.parametrize("gpus", [8, 12, *(pytest.param(n, marks=pytest.mark.slow) for n in (24, 32, 40, 128, 512))])
def test_all_figures_come_close_to_the_bound(gpus: int, hours: float) -> None:
    """Also on clusters that trainings of sixteen workers do not fill; less so where the longest chain takes three
    quarters of the time."""
    graph, seconds, expected = papers(1)
    cluster = Cluster(gpus=gpus, life=hours * 3600)
    outcome = simulate(graph, seconds, cluster, expected=expected)
    assert outcome.ended == dict.fromkeys(graph.jobs, 1)
    share = bound(graph, seconds, cluster).seconds / outcome.makespan
    without, with_failures = (0.97, 0.96) if gpus == 512 else (0.99, 0.98)
    assert share > (without if hours == math.inf else with_failures)
