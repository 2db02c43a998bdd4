"""The search for the best rewind, on made-up values: a training is done when the test says so, with the metric it says.

Only the last test trains, on a real Ray."""

from __future__ import annotations

import contextlib
import math
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.storages.journal import JournalFileBackend

from raysslprune.plan import search
from raysslprune.plan.graph import Job, Plan, make_plan
from raysslprune.plan.schedule import Schedule
from raysslprune.plan.search import Studies, Study, importances
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point
from tests.helpers.search import LEVELS, REWINDS, TRIALS, Killed, World, hill, make, points, response, rewind_of


class Asked:
    """A look at values, some of which are not there at first, or never; notes what is asked for."""

    def __init__(self, values: Mapping[int, float], chance: random.Random | None = None) -> None:
        self.values, self.chance = values, chance
        self.known: set[int] = set()

    def __call__(self, candidate: int) -> float | None:
        assert candidate in self.values, "outside the grid"
        if self.chance and candidate not in self.known and self.chance.random() < 0.5:
            return None
        self.known.add(candidate)
        return self.values[candidate]


VALUES = st.floats(-1e6, 1e6) | st.just(90.0) | st.just(math.nan)


# ------------------------------------------------------------------------------------- one study, no store


@settings(max_examples=60)
@given(st.dictionaries(st.integers(0, 10**9), VALUES, min_size=1, max_size=12), st.integers(1, 15), st.integers(0, 99))
def test_whatever_the_values_and_when_they_come_it_ends_within_the_grid_and_chooses_the_same(
    values: dict[int, float], trials: int, timing: int
) -> None:
    study, asked = Study("s", list(values), trials), Asked(values, random.Random(timing))
    while not study.ended:
        study.advance(asked)
        assert len(set(study.running)) == len(study.running)
        assert not set(study.running) & asked.known, "trained again"
        assert len(asked.known) + len(study.running) <= min(trials, len(values))
    assert study.values == {c: values[c] for c in asked.known if not math.isnan(values[c])}
    at_once, same = Asked(values), Study("s", list(values), trials)
    same.advance(at_once)
    assert same.ended
    assert (same.values, at_once.known) == (study.values, asked.known)


def test_the_first_trials_are_spread_over_the_candidates_and_later_ones_come_one_by_one() -> None:
    study = Study("s", REWINDS, 6)
    study.advance(lambda _: None)
    assert study.running == [160, 480, 960, 1280]
    study.advance(lambda candidate: None if candidate == 480 else 1.0)
    assert study.running == [480]
    known = {480: 2.0}
    study.advance(known.get)
    assert len(study.running) == 1
    assert study.running[0] not in (160, 480, 960, 1280)
    assert not study.ended


def test_other_sampler_seeds_choose_otherwise() -> None:
    chosen = set()
    for seed in range(8):
        study = Study(f"s {seed}", REWINDS, 6)
        study.advance(hill(700))
        chosen.add(frozenset(study.values))
    assert len(chosen) > 1


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Don't write to its root, copy it."""
    return World(tmp_path_factory.mktemp("undisturbed") / "runs", points()).run()


def values_of(world: World) -> dict[tuple[str, int], dict[int, float]]:
    """The full grid's."""
    found: dict[tuple[str, int], dict[int, float]] = {}
    for key, candidates in search.grid(world.grid).items():
        found[key] = {
            rewind: sum(response(world.plan.jobs[p.step.id]) for p in points) / len(points)
            for rewind, points in candidates.items()
        }
    return found


# ------------------------------------------------------------------------------------- a grid, a store, and who trains


def test_it_trains_what_it_chose_and_nothing_else_and_finds_points_as_good_as_the_grids_best(
    undisturbed: World,
) -> None:
    tried, full = undisturbed.studies.tried, values_of(undisturbed)
    assert len(full) == 6
    good = 0
    for key, values in full.items():
        found = {rewind: value for (*place, rewind), value in tried.items() if tuple(place) == key}
        assert len(found) <= TRIALS < len(values)
        assert found == pytest.approx({rewind: values[rewind] for rewind in found})
        best = undisturbed.studies.best[key]
        assert found[best] == max(found.values())
        good += values[best] == max(values.values())
        assert values[best] > max(values.values()) - 2
    assert good >= 4
    chosen = [p for p in undisturbed.grid if p.level == 0 or (p.task, p.level, rewind_of(p)) in tried]
    assert set(undisturbed.trained) == {job.id for job in undisturbed.plan.behind(chosen)}
    assert len(undisturbed.trained) < len(undisturbed.plan.jobs)


@pytest.mark.parametrize("workers", [1, 7])
def test_the_order_in_which_trainings_end_does_not_change_what_is_tried(
    undisturbed: World, tmp_path: Path, workers: int
) -> None:
    world = World(tmp_path / "runs", points(), workers=workers).run(shuffle=random.Random(workers))
    assert world.studies.tried == undisturbed.studies.tried
    assert world.studies.best == undisturbed.studies.best


def test_several_studies_need_one_chain_and_it_is_trained_once(undisturbed: World) -> None:
    """Of labels, the ticket of a level is a round of the chain: level 3's candidate holds those of 1 and 2."""
    tried = undisturbed.studies.tried
    several = [r for r in REWINDS if all(("labels", level, r) in tried for level in LEVELS)]
    assert several
    assert len(undisturbed.trained) == len(set(undisturbed.trained))


def test_two_sweeps_share_jobs(tmp_path: Path) -> None:
    grid = points()
    ordinary = [p for p in grid if rewind_of(p) == 160]
    world = World(tmp_path / "runs", grid, ordinary=ordinary)
    again = Studies("other-laptop", TRIALS, grid, world.plan, world.schedule, {}, world.store, world.notes.append)
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
    assert world.notes[0].startswith("studies/rewind-laptop.journal can't be read; set aside in ")
    assert World(root, points()).notes == []


def test_a_journal_cut_between_any_of_its_lines_is_gone_on_with(undisturbed: World, tmp_path: Path) -> None:
    """As by another program. No line of ours is ever missing: the file is written whole."""
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
        assert all(len([place for place in world.studies.tried if place[:2] == key]) <= TRIALS for key in known)
        assert World(root, points()).studies.tried == world.studies.tried


def test_steps_that_were_deleted_are_made_again(undisturbed: World, tmp_path: Path) -> None:
    root = copied(undisturbed, tmp_path / "runs")
    tried = undisturbed.studies.tried
    lost = [p for p in undisturbed.grid if p.level == 3 and (p.task, 3, rewind_of(p)) in tried][:3]
    for point in lost:
        shutil.rmtree(root / "steps" / point.step.id)
    world = World(root, points())
    assert world.studies.tried.keys() == tried.keys() - {("labels", 3, rewind_of(p)) for p in lost}
    world.run()
    assert world.trained == [point.step.id for point in lost]
    assert world.studies.tried == tried


def test_a_value_that_the_store_does_not_bear_out_is_taken_from_the_store(undisturbed: World, tmp_path: Path) -> None:
    root = copied(undisturbed, tmp_path / "runs")
    place = next(place for place in undisturbed.studies.tried if place[:2] == ("rotnet", 3))
    (point, *_) = (p for p in undisturbed.grid if (p.task, p.level, rewind_of(p)) == place)
    store = Store(str(root))
    store.commit(point.step, {}, {"top1": 12.5}, {"images_per_second": 1.0})
    world = World(root, points()).run()
    assert world.trained == []
    other = response(world.plan.jobs[next(p for p in world.grid if (p.task, p.level, rewind_of(p)) == place
                                          and p.seed == 1).step.id])  # fmt: skip
    assert world.studies.tried[place] == pytest.approx((12.5 + other) / 2)
    same = world.studies.tried.items() - {(place, world.studies.tried[place])}
    assert same <= undisturbed.studies.tried.items()


def test_a_trial_of_which_a_job_fails_is_told_so_and_its_study_goes_on(undisturbed: World, tmp_path: Path) -> None:
    bad = {p.step.id for p in undisturbed.grid if (p.task, p.level, rewind_of(p)) == ("rotnet", 3, 480)}
    assert ("rotnet", 3, 480) in undisturbed.studies.tried
    root = tmp_path / "runs"
    world = World(root, points(), broken=lambda job: job.id in bad).run()
    tried = world.studies.tried
    assert ("rotnet", 3, 480) not in tried
    assert len([place for place in tried if place[:2] == ("rotnet", 3)]) == TRIALS - 1
    others = {place: value for place, value in undisturbed.studies.tried.items() if place[:2] != ("rotnet", 3)}
    assert {place: value for place, value in tried.items() if place[:2] != ("rotnet", 3)} == others
    repaired = World(root, points()).run()
    assert set(repaired.trained) == bad
    assert repaired.studies.tried.items() > tried.items()
    assert ("rotnet", 3, 480) in repaired.studies.tried


def test_where_everything_fails_it_ends_and_says_nothing_is_best(tmp_path: Path) -> None:
    world = World(tmp_path / "runs", points(), broken=lambda job: True).run()
    assert world.studies.tried == world.studies.best == {}
    assert importances(world.studies.tried) == {}
    assert len(World(tmp_path / "runs", points()).run().studies.best) == 6


def test_a_metric_that_is_not_there_fails_its_trials(tmp_path: Path) -> None:
    grid = [Point(step=p.step, task=p.task, init="t", level=p.level, seed=p.seed, metric="mAP") for p in points()]
    world = World(tmp_path / "runs", grid).run()
    assert world.studies.tried == {}


def test_a_trial_is_told_when_all_its_seeds_are_there(tmp_path: Path) -> None:
    world = World(tmp_path / "runs", points(seeds=3))
    ids = {key: [p.step.id for p in found] for (t, n), c in search.grid(world.grid).items() for r, found in c.items()
           for key in [(t, n, r)]}  # fmt: skip
    assert all(len(steps) == 3 for steps in ids.values())
    advance = world.studies.advance

    def checked() -> None:
        advance()
        assert all(set(ids[place]) <= set(world.trained) for place in world.studies.tried)

    world.studies.advance = checked  # type: ignore[method-assign]
    world.run()
    more = World(tmp_path / "runs", points(seeds=4)).run()
    assert all(", 4 seeds, " in study.name for study in more.studies.studies.values())
    assert not set(more.trained) & set(world.trained)


def test_a_grid_of_other_rewinds_is_another_study(undisturbed: World, tmp_path: Path) -> None:
    root = copied(undisturbed, tmp_path / "runs")
    world = World(root, points(rewinds=range(80, 1600, 160))).run()
    assert {rewind for _, _, rewind in world.studies.tried} <= set(range(80, 1600, 160))
    assert World(root, points()).studies.tried == undisturbed.studies.tried


def test_more_trials_go_on_where_fewer_ended(undisturbed: World, tmp_path: Path) -> None:
    root = copied(undisturbed, tmp_path / "runs")
    more = World(root, points(), trials=TRIALS + 2).run().studies.tried
    assert more.items() > undisturbed.studies.tried.items()


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
