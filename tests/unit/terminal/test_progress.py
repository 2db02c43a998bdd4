"""What a sweep shows while it runs: chains and leaves, plain lines, JSON, learning curves."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from raysslprune import data, words
from raysslprune.lottery import imp, random_reinit, winning_ticket
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.cost import OVERHEAD
from raysslprune.plan.graph import Plan, make_plan
from raysslprune.plan.schedule import Schedule
from raysslprune.spec import Init, Prune, Rewind, Train
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import known, load
from raysslprune.sweepfile import Point
from raysslprune.terminal.progress import MAX_CHAINS, JsonLines, Progress, chains
from raysslprune.training.loop import Hooks, Loop
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner

S = SETTINGS["smoke"]
FACTS = {"seconds": 1.0, "images_per_second": 1000.0}
LEVELS = 3


def graph_of(*tasks: str, seeds: int = 1, rewinds: tuple[int, ...] = (), scope: str = "all", keep: float = 0.5) -> Plan:
    """A chain for each task, seed and rewind, with a ticket and a re-init at its end."""
    points: list[Point] = []
    for task in tasks:
        for seed in range(seeds):
            for rewind in rewinds or (S.rewind[task],):
                chain = imp(
                    task=task,
                    data=S.data,
                    arch=S.arch,
                    recipe=S.recipes[task],
                    seed=seed,
                    levels=LEVELS,
                    keep=keep,
                    rewind=rewind,
                    scope=scope,
                )
                labels: dict[str, Any] = {"task": "labels", "recipe": S.recipes["labels"]}
                ticket = winning_ticket(chain, LEVELS, **labels)
                again = random_reinit(chain.masks[LEVELS], like=chain.dense, **labels)
                for init, step in (("ticket", ticket), ("re-init", again)):
                    points.append(Point(step=step, task=task, init=f"{init} {rewind}", level=LEVELS, seed=seed))
    return make_plan(points)


def shown(progress: Progress) -> list[str]:
    console = Console(file=io.StringIO(), width=140)
    with console.capture() as text:
        console.print(progress.render())
    return [" ".join(line.split()) for line in text.get().splitlines()]


def watched(graph: Plan, kind: type[Progress] = Progress, console: Console | None = None) -> Progress:
    seconds = dict.fromkeys(graph.jobs, 1.0)
    return kind(console or Console(file=io.StringIO()), Schedule(graph.jobs.values(), seconds), seconds)


# ------------------------------------------------------------------------------------- chains


def test_a_chain_is_the_trainings_that_are_pruned() -> None:
    graph = graph_of("labels", "rotnet", seeds=2)
    found = {chain.name: chain for chain in chains(graph.jobs.values())}
    assert list(found) == ["labels seed 0", "labels seed 1", "rotnet seed 0", "rotnet seed 1"]
    for name, chain in found.items():
        task, seed = name.split(" seed ")
        assert len(chain.rounds) == LEVELS  # the dense network, and two of its tickets
        assert [len(m.rounds) for job in chain.rounds for m in job.after if isinstance(m, Prune)] == [1, 2, 3]
        assert {(job.train.task, job.train.seed) for job in chain.rounds} == {(task, int(seed))}


@pytest.mark.parametrize(
    ("graph", "names"),
    [
        (graph_of("labels", rewinds=(80, 160)), {"labels seed 0, rewound to 80", "labels seed 0, rewound to 160"}),
        (
            make_plan([p for s in ("convs:1", "convs:2") for p in graph_of("labels", scope=s).points]),
            {"labels seed 0, convs:1", "labels seed 0, convs:2"},
        ),
        (
            make_plan([p for keep in (0.5, 0.25) for p in graph_of("labels", keep=keep).points]),
            {"labels seed 0, 50% each time", "labels seed 0, 25% each time"},
        ),
    ],
)
def test_names_say_what_chains_differ_in(graph: Plan, names: set[str]) -> None:
    assert {chain.name for chain in chains(graph.jobs.values())} == names


@pytest.mark.parametrize("scale", SETTINGS)
def test_all_sweeps_of_the_package_name_their_jobs_and_chains_apart(scale: str) -> None:
    """Each alone, and all together. No title is told apart by an id only."""
    sweeps = [load(name, scale, 2).points for name in known()]
    for points in (*sweeps, [point for some in sweeps for point in some]):
        jobs = make_plan(points).jobs.values()
        titles, names = words.titles(job.train for job in jobs), [chain.name for chain in chains(jobs)]
        assert len({*titles.values()}) == len(titles) == len(jobs)
        assert len({*names}) == len(names)
        assert not [name for name in (*titles.values(), *names) if ", step " in name]


def test_what_differs_in_nothing_that_is_told_has_its_id() -> None:
    facts = {"a" * 16: {"data": "x"}, "b" * 16: {"data": "x"}, "c" * 16: {"data": "y"}}
    assert words.told_apart("labels", facts) == {
        "a" * 16: "labels, x, step aaaaaaaa",
        "b" * 16: "labels, x, step bbbbbbbb",
        "c" * 16: "labels, y",
    }


def test_no_job_is_in_two_chains_but_a_dense_one() -> None:
    graph = graph_of("labels", rewinds=(80, 160))
    one, other = ({job.id for job in chain.rounds} for chain in chains(graph.jobs.values()))
    assert {graph.jobs[i].train.mask for i in one & other} == {None}
    assert chains([]) == []


# ------------------------------------------------------------------------------------- the display


def test_chains_are_rows_and_leaves_are_counted() -> None:
    graph = graph_of("labels", "rotnet")
    progress = watched(graph)
    leaves = len(graph.jobs) - 2 * LEVELS
    assert [line for line in shown(progress) if "0 of" in line][1:] == [
        "pruning labels seed 0 0 of 3",
        "pruning rotnet seed 0 0 of 3",
        f"training outside the chains 0 of {leaves}",
    ]
    done = 0
    while job := progress.schedule.next():
        progress.job_started(job)
        progress._tally_at = 0.0
        assert any(line.startswith(f"now {job.title}") for line in shown(progress))
        progress.schedule.done(job.id)
        progress.job_done(job, FACTS)
        done += 1
        progress._tally_at = 0.0
        lines = shown(progress)
        assert lines[0].startswith(f"{done} of {len(graph.jobs)} trainings")
        made = [int(line.rsplit(" of ", 1)[0].split()[-1]) for line in lines[1:] if " of " in line]
        assert sum(made) + LEVELS * (2 - len(made) + 1) == done  # chains at their end are not shown


def test_a_training_that_is_done_counts_though_masks_are_to_be_made_beside_it() -> None:
    graph = graph_of("labels")
    dense, other = list(graph.jobs.values())[:2]
    seconds = dict.fromkeys(graph.jobs, 1.0) | {dense.id: OVERHEAD}
    progress = Progress(Console(file=io.StringIO()), Schedule(graph.jobs.values(), seconds), seconds)

    def first_line() -> str:
        return shown(progress)[0]

    assert first_line().startswith(f"1 of {len(graph.jobs)} trainings")
    for job, done in ((dense, 1), (other, 2)):
        assert progress.schedule.next() is job
        progress.schedule.done(job.id)
        progress.job_done(job, FACTS)
        assert first_line().startswith(f"{done} of {len(graph.jobs)} trainings")


def test_a_training_whose_weights_turn_out_to_be_damaged_is_not_there() -> None:
    graph = graph_of("labels")
    dense, *others = graph.jobs.values()
    seconds = dict.fromkeys(graph.jobs, 1.0) | {dense.id: OVERHEAD}
    progress = Progress(Console(file=io.StringIO()), Schedule(others, seconds), seconds, [dense])
    assert shown(progress)[0].startswith("1 of ")
    job = progress.schedule.next()
    assert job
    progress.schedule.redo(job.id, dense)
    assert shown(progress)[0].startswith("0 of ")


def test_trainings_of_one_title_are_named_apart() -> None:
    """As of chains that keep other fractions, are rewound to other points, or are of other networks."""
    points = graph_of("labels").points + graph_of("labels", rewinds=(80, 160)).points
    graph = make_plan(points)
    jobs = list(graph.jobs.values())
    alike = [job for job in jobs if job.title == "labels seed 0, labels mask 1, rewound"]
    ends = {f"to {job.train.start.samples}" for job in alike if isinstance(job.train.start, Rewind)}
    progress = watched(graph)
    assert {progress.title(job) for job in alike} == {f"{alike[0].title}, {end}" for end in ends}
    assert len(ends) == 3
    (dense,) = (job for job in jobs if job.train.mask is None)
    assert progress.title(dense) == dense.title
    for job in alike[:2]:
        progress.schedule.running[job.id] = progress.schedule.waiting.pop(job.id)
    console = progress.console.file
    assert isinstance(console, io.StringIO)
    progress.job_started(alike[0])
    progress._line()
    assert all(progress.title(job) in console.getvalue() for job in alike[:2])
    assert sum(line.startswith("now ") for line in {*shown(progress)}) == 2


def test_many_chains_are_summed_up_and_those_at_work_come_first() -> None:
    graph = graph_of("labels", seeds=MAX_CHAINS + 5)
    progress = watched(graph)
    jobs = list(graph.jobs.values())
    for job in jobs:
        if job.train.mask is None and job.train.seed == MAX_CHAINS + 4 and job.after:
            progress.schedule.running[job.id] = progress.schedule.waiting.pop(job.id)
    lines = [line for line in shown(progress) if line.startswith("pruning")]
    assert len(lines) == MAX_CHAINS + 1
    assert lines[0].startswith(f"pruning labels seed {MAX_CHAINS + 4} ")
    assert lines[-1].startswith("pruning 5 other chains ")
    assert lines[-1].endswith(f" 0 of {5 * LEVELS}")


def test_failures_stay_in_sight() -> None:
    progress = watched(graph_of("labels"))
    job = progress.schedule.next()
    assert job
    progress.schedule.fail(job.id)
    progress.job_failed(job, "no reason", len(progress.schedule.skipped))
    assert f"failed 1, and {len(progress.schedule.skipped)} that need them" in shown(progress)


def test_a_hundred_thousand_steps_are_not_counted_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting takes at most about a fiftieth of the time."""
    counted: list[float] = []
    clock = [0.0]

    def slow(jobs: Any) -> list[Any]:
        counted.append(clock[0])
        clock[0] += 1.0
        return chains(jobs)

    monkeypatch.setattr("raysslprune.terminal.progress.chains", slow)
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    progress = watched(graph_of("labels"))
    for _ in range(1000):
        clock[0] += 0.25
        progress.render()
    assert 4 <= len(counted) <= 7


# ------------------------------------------------------------------------------------- JSON


def lines_of(file: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.getvalue().splitlines()]


def test_json_lines() -> None:
    file = io.StringIO()
    progress = watched(graph_of("labels"), JsonLines, Console(file=file, force_terminal=True))
    first, second = progress.schedule.next(), None
    assert first
    progress.say('7 of 8 "trainings"')
    progress.job_started(first)
    with progress.watching(lambda: {first.id: (64, 640)}):
        progress._poll()
        progress._line()
    progress.process_lost(first, "the node\nwent", 12.5)
    progress.schedule.done(first.id)
    progress.job_done(first, FACTS)
    second = progress.schedule.next()
    assert second
    progress.schedule.fail(second.id)
    progress.job_failed(second, "[red] is no colour", 3)
    progress.note("look")
    lines = lines_of(file)
    times = [datetime.fromisoformat(line.pop("time")) for line in lines]
    assert times == sorted(times)
    assert times[0].utcoffset() == timedelta(0)
    names = [{"step": job.id, "title": job.title} for job in (first, second)]
    left = lines[2].pop("seconds_left")
    assert isinstance(left, int)
    assert lines == [
        {"event": "said", "text": '7 of 8 "trainings"'},
        {"event": "started", **names[0]},
        {
            "event": "progress",
            "finished": 0,
            "total": progress.total,
            "waiting": "",
            "guess": False,
            "starting": False,
            "running": [{**names[0], "samples": [64, 640]}],
        },
        {"event": "lost", **names[0], "why": "the node\nwent", "seconds": 12.5},
        {"event": "done", **names[0], **FACTS},
        {"event": "failed", **names[1], "why": "[red] is no colour", "skipped": 3},
        {"event": "note", "text": "look"},
    ]


def test_json_is_json_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysslprune.terminal.progress.LINE_EVERY", 0.01)
    file = io.StringIO()
    progress = watched(graph_of("labels"), JsonLines, Console(file=file, force_terminal=True))
    with progress.shown():
        end = time.monotonic() + 10
        while not file.getvalue() and time.monotonic() < end:
            time.sleep(0.01)
    assert {line["event"] for line in lines_of(file)} == {"progress"}


# ------------------------------------------------------------------------------------- learning curves


def curve_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """As TensorBoard itself reads it."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_learning_curve_is_what_the_loop_saw(tmp_path: Path) -> None:
    recipe = replace(S.recipes["labels"], samples=20_000)
    step = Train(task="labels", data=S.data, arch=S.arch, recipe=recipe, seed=0, start=Init(seed=0))
    seen: list[tuple[int, Mapping[str, float]]] = []
    hooks = Hooks(curve=lambda samples, values: seen.append((samples, values)), look_every=0.01)
    plain = Loop(step=step, data=data.load(S.data), hooks=hooks).run()
    assert len(seen) > 3
    assert all(samples % recipe.batch == 0 for samples, _ in seen)
    assert seen[-1][1]["loss"] < seen[0][1]["loss"]

    store = Store(str(tmp_path / "runs"))
    store.create()
    runner = Runner(store=store, exchange=NoExchange(), curves=str(tmp_path / "curves"), curve_points=3)
    _, _, metrics, facts = runner.train(step, set())
    assert metrics == plain.metrics, "looking changes nothing"
    curve = curve_in(tmp_path / "curves")
    points = [(samples, values["top1"]) for samples, values in facts["curve"]]
    assert [samples for samples, _ in points] == [0, 9984, 20032]
    assert points[-1][1] == metrics["top1"]
    assert curve["top1"] == [(samples, pytest.approx(value)) for samples, value in points[:-1]], "the last is end/top1"
    assert {"loss", "learning_rate", "end/top1"} <= curve.keys()
    zeros = {f"end/{name}" for name, value in metrics.items() if not value}
    assert "end/natural_sparsity_1e-30" in zeros
    assert not zeros & curve.keys()
    assert curve["end/top1"] == [(-(-20_000 // recipe.batch) * recipe.batch, pytest.approx(metrics["top1"]))]
    losses = dict(curve["loss"])
    assert len(losses) > 1
    same = [(samples, values) for samples, values in seen if samples in losses]
    assert same, "the first look is after the first update, always"
    assert all(losses[samples] == pytest.approx(values["loss"], rel=1e-6) for samples, values in same)


def test_no_curve_is_written_unasked(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "runs"))
    store.create()
    step = Train(task="labels", data=S.data, arch=S.arch, recipe=S.recipes["labels"], seed=0, start=Init(seed=0))
    Runner(store=store, exchange=NoExchange()).train(step, set())
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}


WAITING = "waiting for machines: 0 of 2 cores are there; `ray status` says why"


def test_what_all_trainings_wait_for_is_shown_in_place_of_a_time_left() -> None:
    """In the display, in its plain lines, and in JSON; once as an event, and again when it is over."""
    drawn, plain, lines = (io.StringIO() for _ in range(3))
    for file, kind, in_terminal in ((drawn, Progress, True), (plain, Progress, False), (lines, JsonLines, False)):
        console = Console(file=file, force_terminal=in_terminal, width=200, highlight=False)
        progress = watched(graph_of("labels"), kind, console)
        job = progress.schedule.next()
        assert job
        progress.job_started(job)
        for _ in range(2):
            progress.waits("machines", WAITING)
        if in_terminal:
            console.print(progress.render())
        progress._line()
        assert progress.snapshot()["waiting"] == WAITING
        progress.waits("", "")
        assert progress.snapshot()["waiting"] == ""
        progress._line()
    for file in (drawn, plain):
        shown = file.getvalue()
        assert WAITING in shown
        before, after = shown.rpartition(WAITING)[::2]
        assert " left" not in before
        assert "its worker is starting" not in before
        assert " once trainings begin;" in after
    assert plain.getvalue().count(WAITING) == 2, "as an event, and in the line"
    events = lines_of(lines)
    assert [(event["event"], event.get("for")) for event in events if event["event"] == "waiting"] == [
        ("waiting", "machines"),
        ("waiting", ""),
    ]
    (during, afterwards) = [event for event in events if event["event"] == "progress"]
    assert (during["waiting"], during["running"]) == (WAITING, [])
    assert (afterwards["waiting"], len(afterwards["running"])) == ("", 1)
