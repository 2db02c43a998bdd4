"""The search for the best rewind, on made-up values: a training is done when the test says so, with the metric it says.

Only the last test trains, on a real Ray."""

from __future__ import annotations

import contextlib
import math
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage
from optuna.storages.journal import JournalFileBackend

from raysslprune.plan import search
from raysslprune.plan.graph import Job, Plan, make_plan
from raysslprune.plan.schedule import Schedule
from raysslprune.plan.search import Studies, Study, importances
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point
from tests.helpers.search import LEVELS, REWINDS, Killed, World, hill, make, points, response, rewind_of


class Asked:
    """A look-up of values, some of which are unknown at first; records the candidates and seeds that it gave."""

    def __init__(self, values: Mapping[int, Sequence[float]], chance: random.Random | None = None) -> None:
        self.values, self.chance = values, chance
        self.known: set[tuple[int, int]] = set()

    def __call__(self, candidate: int, seed: int) -> float | None:
        assert candidate in self.values, "outside the grid"
        if self.chance and (candidate, seed) not in self.known and self.chance.random() < 0.5:
            return None
        self.known.add((candidate, seed))
        return self.values[candidate][seed]


VALUES = st.floats(-1e6, 1e6) | st.just(90.0) | st.just(math.nan)
SEEDS = 7


def test_of_equal_means_the_first_candidate_is_better() -> None:
    """Though a later one was better with fewer seeds."""
    values = {0: (1.0, 3.0, 0.0), 1: (0.0, 0.0, 0.0), 2: (3.0, 1.0, 0.0), 3: (0.5, 0.0, 0.0)}
    trials = search.halving(values, 3, lambda candidate, seed: values[candidate][seed])
    assert [trials[candidate].state.name for candidate in values] == ["COMPLETE", "PRUNED", "PRUNED", "PRUNED"]


def naive(values: Mapping[int, Sequence[float]], seeds: int) -> tuple[dict[int, float], set[tuple[int, int]]]:
    """The finalists' means and all that is measured, round by round."""
    alive, measured = sorted(values), set()
    count = 1
    while True:
        count = min(count, seeds)
        measured |= {(candidate, seed) for candidate in alive for seed in range(count)}
        alive = [c for c in alive if not any(math.isnan(value) for value in values[c][:count])]
        means = {c: math.fsum(values[c][:count]) / count for c in alive}
        if count == seeds:
            return means, measured
        ranked = sorted(alive, key=lambda c: (-means[c], c))
        alive = sorted(ranked[: (len(ranked) + 1) // 2])
        count *= 2


# ------------------------------------------------------------------------------------- one study, no store


@settings(max_examples=100)
@given(
    st.dictionaries(st.integers(0, 10**9), st.tuples(*[VALUES] * SEEDS), min_size=1, max_size=17),
    st.integers(1, SEEDS),
    st.integers(0, 99),
)
def test_whatever_the_values_and_when_they_come_it_ends_within_the_grid_and_chooses_the_same(
    values: dict[int, tuple[float, ...]], seeds: int, timing: int
) -> None:
    study, asked = Study("s", list(values), seeds), Asked(values, random.Random(timing))
    while not study.ended:
        study.advance(asked)
        assert len(set(study.awaited)) == len(study.awaited)
        assert not set(study.awaited) & asked.known, "trained again"
    means, measured = naive(values, seeds)
    assert study.values == pytest.approx(means, rel=1e-9, abs=1e-6)
    assert asked.known == measured
    at_once, same = Asked(values), Study("s", list(values), seeds)
    same.advance(at_once)
    assert same.ended
    assert (same.trials, at_once.known) == (study.trials, asked.known)


def test_the_better_half_of_sixteen_candidates_is_trained_on() -> None:
    """By hand: each candidate's value is its number."""
    study, known = Study("s", range(16), 3), dict[tuple[int, int], float]()

    def look(candidate: int, seed: int) -> float | None:
        return known.get((candidate, seed))

    for seeds, left in ((1, range(16)), (2, range(8, 16)), (3, range(12, 16))):
        study.advance(look)
        assert study.awaited == [(c, seeds - 1) for c in left]
        assert not study.ended
        known.update({(c, seeds - 1): float(c) for c in left})
    study.advance(look)
    assert study.ended
    assert study.values == {12: 12.0, 13: 13.0, 14: 14.0, 15: 15.0}
    assert len(known) == 16 + 8 + 4
    assert list(search.rungs(8)) == [1, 2, 4, 8]
    assert list(search.rungs(1)) == [1]


@pytest.mark.parametrize("known", range(0, 41, 3))
def test_optunas_record_goes_on_from_what_it_has_and_is_written_anew_if_that_is_wrong(known: int) -> None:
    """At any number of known values: the record is the trials'; and what another search recorded is replaced."""
    values = {c: [hill(7, 3.0)(c) + random.Random(str((c, seed))).gauss(0, 2) for seed in range(8)] for c in range(16)}
    storage, told = InMemoryStorage(), set[tuple[int, int]]()

    def look(candidate: int, seed: int) -> float | None:
        if (candidate, seed) not in told and len(told) >= known:
            return None
        told.add((candidate, seed))
        return values[candidate][seed]

    study = Study("s", range(16), 8, storage)
    study.advance(look)
    study.record()
    first = {trial.number: trial.datetime_start for trial in optuna.load_study(study_name="s", storage=storage).trials}
    known = 99
    study.advance(look)
    study.record()
    trials = optuna.load_study(study_name="s", storage=storage).trials
    assert {trial.number: trial.datetime_start for trial in trials} == first, "it went on"
    for trial, own in zip(trials, study.trials.values(), strict=True):
        assert (trial.state, trial.intermediate_values) == (own.state, dict(enumerate(own.means, 1)))
    assert [trial.state.name for trial in trials].count("COMPLETE") == 2
    other = Study("s", range(16), 8, storage)
    other.advance(lambda candidate, seed: values[candidate][seed] if (candidate, seed) != (3, 0) else math.nan)
    other.record()
    states = [trial.state.name for trial in optuna.load_study(study_name="s", storage=storage).trials]
    assert (states[3], len(states), states.count("FAIL")) == ("FAIL", 16, 1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A finished search; copy its root, don't write to it."""
    return World(tmp_path_factory.mktemp("undisturbed") / "runs", points()).run()


# ------------------------------------------------------------------------------------- a grid, a store, and who trains


def test_it_trains_what_halving_asks_for_and_nothing_else(undisturbed: World) -> None:
    """Ten candidates and two seeds: the better five have the second seed, too."""
    tried, grid = undisturbed.studies.tried, search.grid(undisturbed.grid)
    assert len(grid) == 6
    wanted = [p for p in undisturbed.grid if p.level == 0]
    for key, candidates in grid.items():
        jobs = undisturbed.plan.jobs
        values = {rewind: [response(jobs[p.step.id]) for p in points] for rewind, points in candidates.items()}
        means, measured = naive(values, 2)
        assert len(means) == 5
        assert {rewind: value for (*place, rewind), value in tried.items() if tuple(place) == key} == pytest.approx(
            means
        )
        assert undisturbed.studies.best[key] == max(sorted(means), key=means.__getitem__)
        wanted += [candidates[rewind][seed] for rewind, seed in measured]
    assert set(undisturbed.trained) == {job.id for job in undisturbed.plan.behind(wanted)}
    assert len(undisturbed.trained) < len(undisturbed.plan.jobs)


@pytest.mark.parametrize("workers", [1, 7])
def test_the_order_in_which_trainings_end_does_not_change_what_is_tried(
    undisturbed: World, tmp_path: Path, workers: int
) -> None:
    world = World(tmp_path / "runs", points(), workers=workers).run(shuffle=random.Random(workers))
    assert world.studies.tried == undisturbed.studies.tried
    assert world.studies.best == undisturbed.studies.best


def test_several_studies_need_one_chain_and_it_is_trained_once(undisturbed: World) -> None:
    """With labels, the ticket of a level is a round of the chain: level 3's candidate contains those of 1 and 2."""
    tried = undisturbed.studies.tried
    several = [r for r in REWINDS if all(("labels", level, r) in tried for level in LEVELS)]
    assert several
    assert len(undisturbed.trained) == len(set(undisturbed.trained))


def test_two_sweeps_share_jobs(tmp_path: Path) -> None:
    grid = points()
    ordinary = [p for p in grid if rewind_of(p) == 160]
    world = World(tmp_path / "runs", grid, ordinary=ordinary)
    again = Studies("other-laptop", grid, world.plan, world.schedule, {}, world.store, world.notes.append)
    first = world.studies.advance
    world.studies.advance = lambda: (first(), again.advance())[0]  # type: ignore[method-assign]
    world.run()
    assert {p.step.id for p in ordinary} <= set(world.trained)
    assert again.ended
    assert again.tried == world.studies.tried


def test_what_is_trained_already_costs_nothing(undisturbed: World, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "runs"))
    store.create()
    for job in undisturbed.plan.jobs.values():
        make(store, job)
    world = World(tmp_path / "runs", points())
    world.studies.advance()
    assert world.schedule.finished
    assert world.studies.ended
    assert world.trained == []
    assert world.studies.tried == undisturbed.studies.tried


@pytest.mark.parametrize("told", [True, False], ids=["told", "not told"])
def test_killed_after_any_job_it_goes_on_and_finds_the_same(undisturbed: World, tmp_path: Path, told: bool) -> None:
    for moment in range(1 + 4 * told, len(undisturbed.trained), 8):
        root = tmp_path / str(moment)
        killed = World(root, points())
        with pytest.raises(Killed):
            killed.run(moment, told=told)
        assert len(killed.trained) == moment
        resumed = World(root, points())
        assert killed.studies.tried.items() <= resumed.studies.tried.items()
        resumed.run()
        assert not set(resumed.trained) & set(killed.trained)
        assert resumed.studies.tried == undisturbed.studies.tried
        assert set(resumed.trained) | set(killed.trained) == set(undisturbed.trained)
        assert resumed.notes == []


def test_killed_again_and_again(undisturbed: World, tmp_path: Path) -> None:
    for _ in undisturbed.trained[::4]:
        with contextlib.suppress(Killed):
            World(tmp_path / "runs", points()).run(4, told=False)
    world = World(tmp_path / "runs", points()).run()
    assert len(world.trained) <= 4
    assert world.studies.tried == undisturbed.studies.tried


def journal_of(root: Path) -> Path:
    return root / "studies" / "rewind-laptop.journal"


def copied(world: World, to: Path) -> Path:
    shutil.copytree(world.store.base, to)
    return to


def test_a_finished_search_only_reads(undisturbed: World, tmp_path: Path) -> None:
    root = copied(undisturbed, tmp_path / "runs")
    before = journal_of(root).read_bytes()
    world = World(root, points()).run()
    assert world.trained == []
    assert world.studies.tried == undisturbed.studies.tried
    assert journal_of(root).read_bytes() == before


def test_the_journal_is_one_that_optuna_reads(undisturbed: World, tmp_path: Path) -> None:
    file = JournalFileBackend(str(journal_of(copied(undisturbed, tmp_path / "runs"))))
    storage = optuna.storages.JournalStorage(file)
    names = optuna.get_all_study_names(storage)
    assert len(names) == len(undisturbed.studies.studies) == 6
    for name in names:
        study = optuna.load_study(study_name=name, storage=storage)
        task, level, seeds, _ = name.split(", ")
        best = undisturbed.studies.best[task, int(level.removeprefix("level "))]
        assert seeds == "2 seeds"
        assert REWINDS[study.best_params["rewind"]] == best


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"\xff\x00" + data,
        lambda data: data[:-7],
        lambda data: b'{"a": 1}\n' + data,
        lambda data: b"5\n",
        lambda data: data[len(data) // 2 :],
    ],
    ids=["no text", "torn", "no log", "no object", "its second half"],
)
def test_a_journal_that_cannot_be_read_is_set_aside_and_begun_anew(
    undisturbed: World, tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    root = copied(undisturbed, tmp_path / "runs")
    spoiled = spoil(journal_of(root).read_bytes())
    journal_of(root).write_bytes(spoiled)
    world = World(root, points()).run()
    assert world.trained == []
    assert world.studies.tried == undisturbed.studies.tried
    (aside,) = (root / "damaged").iterdir()
    assert aside.read_bytes() == spoiled
    assert len(world.notes) == 1
    assert world.notes[0].startswith("studies/rewind-laptop.journal can't be read; moved to ")
    assert World(root, points()).notes == []


def test_a_journal_cut_between_any_of_its_lines_is_gone_on_with(undisturbed: World, tmp_path: Path) -> None:
    """As another program may do it; this one always writes the whole file."""
    root = copied(undisturbed, tmp_path / "runs")
    known = undisturbed.studies.best
    lines = journal_of(root).read_bytes().splitlines(keepends=True)
    for count in (*range(0, len(lines), 37), *range(len(lines) - 5, len(lines))):
        journal_of(root).write_bytes(b"".join(lines[:count]))
        world = World(root, points())
        kept = world.studies.tried
        assert kept.items() <= undisturbed.studies.tried.items()
        world.run()
        assert world.studies.tried.items() >= kept.items()
        assert world.notes == []
        assert all(len([place for place in world.studies.tried if place[:2] == key]) == 5 for key in known)
        assert World(root, points()).studies.tried == world.studies.tried


def test_steps_that_were_deleted_are_made_again(undisturbed: World, tmp_path: Path) -> None:
    root = copied(undisturbed, tmp_path / "runs")
    tried = undisturbed.studies.tried
    lost = [p for p in undisturbed.grid if p.seed == 1 and p.level == 3 and (p.task, 3, rewind_of(p)) in tried][:3]
    assert {point.task for point in lost} == {"labels"}
    for point in lost:
        shutil.rmtree(root / "steps" / point.step.id)
    world = World(root, points())
    assert {place for place in tried if place not in world.studies.tried} == {
        p for p in tried if p[:2] == ("labels", 3)
    }
    world.run()
    assert world.trained == [point.step.id for point in lost]
    assert world.studies.tried == tried


def test_a_value_that_the_store_does_not_bear_out_is_taken_from_the_store(undisturbed: World, tmp_path: Path) -> None:
    root = copied(undisturbed, tmp_path / "runs")
    place = next(place for place in undisturbed.studies.tried if place[:2] == ("rotnet", 3))
    first, second = (p for p in undisturbed.grid if (p.task, p.level, rewind_of(p)) == place)
    store = Store(str(root))
    store.commit(second.step, {}, {"top1": 12.5}, {"images_per_second": 1.0})
    world = World(root, points()).run()
    assert world.trained == []
    other = response(world.plan.jobs[first.step.id])
    assert world.studies.tried[place] == pytest.approx((12.5 + other) / 2)
    assert world.studies.tried.keys() == undisturbed.studies.tried.keys()
    same = world.studies.tried.items() - {(place, world.studies.tried[place])}
    assert same <= undisturbed.studies.tried.items()
    journal = optuna.storages.JournalStorage(JournalFileBackend(str(journal_of(root))))
    name = next(name for name in optuna.get_all_study_names(journal) if name.startswith("rotnet, level 3"))
    trial = optuna.load_study(study_name=name, storage=journal).trials[REWINDS.index(place[2])]
    assert trial.value == world.studies.tried[place]


def test_a_trial_of_which_a_job_fails_is_told_so_and_its_study_goes_on(undisturbed: World, tmp_path: Path) -> None:
    bad = {p.step.id for p in undisturbed.grid if (p.task, p.level, rewind_of(p)) == ("rotnet", 3, 960)}
    assert ("rotnet", 3, 960) in undisturbed.studies.tried
    root = tmp_path / "runs"
    world = World(root, points(), broken=lambda job: job.id in bad).run()
    tried = world.studies.tried
    assert ("rotnet", 3, 960) not in tried
    assert len([place for place in tried if place[:2] == ("rotnet", 3)]) == 5
    others = {place: value for place, value in undisturbed.studies.tried.items() if place[:2] != ("rotnet", 3)}
    assert {place: value for place, value in tried.items() if place[:2] != ("rotnet", 3)} == others
    repaired = World(root, points()).run()
    assert bad <= set(repaired.trained)
    assert not set(repaired.trained) & set(world.trained)
    assert repaired.studies.tried == undisturbed.studies.tried


def test_where_everything_fails_it_ends_and_says_nothing_is_best(tmp_path: Path) -> None:
    world = World(tmp_path / "runs", points(), broken=lambda job: True).run()
    assert world.studies.tried == world.studies.best == {}
    assert importances(world.studies.tried) == {}
    assert len(World(tmp_path / "runs", points()).run().studies.best) == 6


def test_a_metric_that_is_not_there_fails_its_trials(tmp_path: Path) -> None:
    grid = [Point(step=p.step, task=p.task, init="t", level=p.level, seed=p.seed, metric="mAP") for p in points()]
    world = World(tmp_path / "runs", grid).run()
    assert world.studies.tried == {}


def test_more_seeds_are_another_study_that_trains_nothing_again(tmp_path: Path) -> None:
    world = World(tmp_path / "runs", points(seeds=3)).run()
    assert all(len(study.values) == 3 for study in world.studies.studies.values())
    more = World(tmp_path / "runs", points(seeds=4)).run()
    assert all(", 4 seeds, " in study.name for study in more.studies.studies.values())
    assert not set(more.trained) & set(world.trained)


def test_a_grid_of_other_rewinds_is_another_study(undisturbed: World, tmp_path: Path) -> None:
    root = copied(undisturbed, tmp_path / "runs")
    world = World(root, points(rewinds=range(80, 1600, 160))).run()
    assert {rewind for _, _, rewind in world.studies.tried} <= set(range(80, 1600, 160))
    assert World(root, points()).studies.tried == undisturbed.studies.tried


@pytest.mark.parametrize("change", ["a seed is missing", "a seed comes twice", "another metric"])
def test_what_cannot_be_compared_is_refused(change: str) -> None:
    grid = points(tasks=["labels"])
    last = grid.pop()
    if change == "a seed comes twice":
        grid += [last, last]
    if change == "another metric":
        grid.append(Point(step=last.step, task="labels", init="t", level=last.level, seed=last.seed, metric="mAP"))
    with pytest.raises(ValueError, match="the rewinds of labels, level 3 can't be compared"):
        search.grid(grid)


# ------------------------------------------------------------------------------------- importance


def test_what_the_value_depends_on_is_most_important() -> None:
    tried = {(task, level, r): 90.0 - level + r / 1e5 for task in ("a", "b") for level in (1, 5, 9) for r in (0, 8, 9)}
    found = importances(tried)
    assert next(iter(found)) == "level"
    assert found["level"] > 0.9
    assert found.keys() == {"task", "level", "rewind"}
    assert sum(found.values()) == pytest.approx(1)
    assert importances(tried) == found
    one_task = importances({place: value for place, value in tried.items() if place[0] == "a"})
    assert one_task["task"] == 0


def test_nothing_is_important_where_there_is_too_little_or_all_is_the_same() -> None:
    assert importances({}) == importances({("a", 1, 0): 1.0, ("a", 1, 1): 2.0}) == {}
    assert importances({("a", 1, r): 1.0 for r in range(9)}) == {}


def jobs_in_pieces() -> Iterator[tuple[Plan, list[list[Job]]]]:
    graph = make_plan(points(tasks=["labels"], seeds=1, rewinds=REWINDS[:3]))
    for seed in range(20):
        chance = random.Random(seed)
        wanted = chance.sample(list(graph.points), 6)
        yield graph, [graph.behind([point]) for point in wanted]


# ------------------------------------------------------------------------------------- the schedule that grows


def test_jobs_that_are_added_run_once_after_their_parents_whatever_ran_before() -> None:
    for number, (graph, pieces) in enumerate(jobs_in_pieces()):
        chance = random.Random(number)
        schedule = Schedule([], dict.fromkeys(graph.jobs, 1.0))
        done: list[str] = []
        while pieces or not schedule.finished:
            if pieces and (schedule.finished or chance.random() < 0.3):
                schedule.add(pieces.pop())
            job = schedule.next()
            if job is not None and (chance.random() < 0.7 or schedule.next() is None):
                assert all(parent.id in done for parent in job.parents)
            for running in list(schedule.running.values())[: chance.randrange(3)]:
                done.append(running.id)
                schedule.done(running.id)
        assert len(set(done)) == len(done)
        assert set(done) == schedule.jobs.keys()
        assert schedule.failed == schedule.skipped == {}


def test_paths_are_those_of_a_schedule_that_had_all_from_the_start() -> None:
    for graph, pieces in jobs_in_pieces():
        seconds = {job_id: 1.0 + number for number, job_id in enumerate(graph.jobs)}
        grown = Schedule(pieces[0], seconds)
        for piece in pieces[1:]:
            grown.add(piece)
        wanted = {job.id for piece in pieces for job in piece}
        whole = Schedule([job for job in graph.jobs.values() if job.id in wanted], seconds)
        assert grown.longest_path == whole.longest_path
        while not whole.finished:
            first, second = grown.next(), whole.next()
            assert first is not None
            assert first is second
            grown.done(first.id)
            whole.done(first.id)


def test_behind_what_runs_a_job_waits_and_behind_what_failed_it_is_skipped() -> None:
    graph = make_plan(points(tasks=["labels"], seeds=1, rewinds=[160]))
    jobs = list(graph.jobs.values())  # a chain: the dense training, then levels 1 to 3
    schedule = Schedule(jobs[:1], dict.fromkeys(graph.jobs, 1.0))
    assert schedule.next() is jobs[0]
    schedule.add(jobs[:2])
    assert schedule.longest_path == 2
    assert schedule.next() is None
    schedule.done(jobs[0].id)
    assert schedule.next() is jobs[1]
    schedule.fail(jobs[1].id)
    assert schedule.finished
    schedule.add(jobs)
    assert schedule.finished
    assert schedule.skipped.keys() == {job.id for job in jobs[2:]}
    assert schedule.jobs == graph.jobs


def test_what_is_shown_grows_with_the_schedule() -> None:
    from rich.console import Console

    from raysslprune.terminal.progress import Progress

    graph = make_plan(points(tasks=["labels"], seeds=1, rewinds=[160]))
    jobs, seconds = list(graph.jobs.values()), dict.fromkeys(graph.jobs, 1.0)
    schedule = Schedule(jobs[:1], seconds)
    shown = Progress(Console(), schedule, seconds, jobs[:1] * 5)  # whichever they are
    assert (shown.finished, shown.total) == (5, 6)
    schedule.add(jobs)
    assert (shown.finished, shown.total) == (5, 9)
    while job := schedule.next():
        schedule.done(job.id)
    assert (shown.finished, shown.total) == (9, 9)
