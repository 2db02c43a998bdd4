"""The metrics of a sweep."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from raysslprune.cluster import prometheus
from raysslprune.cluster.prometheus import Monitor, Watchers
from raysslprune.cluster.tune import Watcher
from raysslprune.plan.graph import make_plan
from raysslprune.spec import SVM, Final, Train
from raysslprune.sweepfile import Point
from tests.helpers import CHECKOUT
from tests.helpers.monitored import KIND, RECIPE, Fake, Played, S, Values, chain, facts

WHOLE = RECIPE.samples


class Clock:
    """Stand-in for ``time`` in the monitor."""

    time = staticmethod(time.time)
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(prometheus, "time", clock)
    return clock


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], float]:
    """Published values, by name and tags."""
    monkeypatch.setattr(Fake, "values", {})
    monkeypatch.setattr(prometheus.metrics, "Gauge", Fake)
    monkeypatch.setattr(prometheus.metrics, "Counter", Fake)
    return Fake.values


def test_every_step_is_in_one_state(values: Values) -> None:
    before, (first, *rest), other = chain(seed=1)[:2], chain(), chain(seed=2)[:1]
    played = Played([first, *rest, *other], before)
    assert played.states() == {"done": 2, "ready": 2, "waiting": len(rest)}
    started = played.start()
    assert started is first
    assert played.states() == {"done": 2, "running": 1, "ready": 1, "waiting": len(rest)}
    played.done(first)
    assert played.states() == {"done": 3, "ready": 2, "waiting": len(rest) - 1}
    broken = played.start()
    played.schedule.fail(broken.id)
    played.monitor.job_failed(broken, "it broke", len(rest) - 1)
    assert played.states() == {"done": 3, "ready": 1, "failed": 1, "skipped": len(rest) - 1}
    played.monitor.slots_are(7)
    played.monitor.look({})
    assert values["slots",] == 7


def test_samples_are_counted_as_they_are_seen_and_none_twice(values: Values) -> None:
    played = Played(chain())
    job = played.start()
    counted = []
    for seen in (100, 250, 250, 400):  # the first look does not know where it began
        played.monitor.look({job.id: (seen, WHOLE)})
        counted.append(values.get(("samples", *KIND), 0))
    assert counted == [0, 150, 150, 300]
    played.monitor.look({})  # the actor that knows is away
    played.done(job)
    assert values["samples", *KIND] == WHOLE
    assert values["training_seconds", *KIND] == 2.0
    rewound = played.start()
    played.done(rewound, seconds=0.5)
    assert values["samples", *KIND] == 2 * WHOLE - S.rewind["rotnet"]
    assert values["training_seconds", *KIND] == 2.5


def test_what_was_trained_before_is_not_counted(values: Values) -> None:
    played = Played(chain())
    played.done(played.start(), resumed_at=WHOLE - 200)
    assert values["samples", *KIND] == 200
    played.done(played.start(), ago=3600)  # an hour-old training; only its masks were made
    assert values["samples", *KIND] == 200
    assert values["training_seconds", *KIND] == 2.0
    assert values.get(("rounds", *KIND, "0")) is None
    played.monitor.look({})
    assert values["rounds", *KIND, "0"] == 2


def test_a_training_that_lost_its_process_is_counted_anew(values: Values) -> None:
    played = Played(chain())
    job = played.start()
    for seen in (100, 300):
        played.monitor.look({job.id: (seen, WHOLE)})
    played.monitor.process_lost(job, "it was killed", 3.0)
    played.monitor.look({job.id: (180, WHOLE)})
    played.monitor.look({job.id: (200, WHOLE)})
    assert values["lost_processes",] == 1
    assert values["samples", *KIND] == 200 + 20
    played.done(job, resumed_at=150)
    assert values["samples", *KIND] == 200 + WHOLE - 150


def test_images_a_second_are_a_mean_over_the_window(values: Values, clock: Clock) -> None:
    played = Played(chain())
    job, speed = played.start(), ("images_per_second", *KIND)
    for tick in range(40):
        played.monitor.look({job.id: (50 * tick, WHOLE)})
        if tick > 1:
            assert values[speed] == pytest.approx(25)
        clock.now += 2
    assert len(played.monitor._looks[KIND]) <= prometheus.WINDOW / 2 + 2
    clock.now += prometheus.WINDOW / 2
    played.monitor.look({})
    assert 5 < values[speed] < 20
    for _ in range(2):
        clock.now += prometheus.WINDOW
        played.monitor.look({})
    assert values[speed] == 0


def test_short_trainings_between_two_looks_count(values: Values, clock: Clock) -> None:
    jobs = [job for seed in range(8) for job in chain(seed)[:1]]
    played = Played(jobs)
    for _ in jobs:
        clock.now += 4
        played.done(played.start())
        played.monitor.look({})
    assert values["images_per_second", *KIND] == pytest.approx(WHOLE / 4, rel=0.2)


def test_svms_count_fits_which_are_no_images(values: Values) -> None:
    pretext = chain()[0].train
    step = Train(
        task="labels", data=S.data, arch=S.arch, recipe=SVM(costs=(1.0,)), seed=0, start=Final(of=pretext),
        trunk_frozen=True,
    )  # fmt: skip
    jobs = list(make_plan([Point(step=step, task="", init="", level=0, seed=0)]).jobs.values())
    played = Played(jobs)
    played.done(played.start())
    job = played.start()
    assert job.train is step
    for fits in (1, 2, 3):
        played.monitor.look({job.id: (fits, 3)})
    played.done(job)
    assert [tags for tags in values if tags[0] == "samples"] == [("samples", *KIND)]
    assert values["training_seconds", "labels", S.arch, S.data] == 2.0


def test_the_furthest_chain_of_a_task_and_seed(values: Values) -> None:
    before, jobs = chain(seed=1, keep=0.8)[:2], chain(seed=0)
    played = Played([*jobs, *chain(seed=0, keep=0.25)], before)
    with played.monitor.watching(dict):
        pass
    assert values["rounds", *KIND, "1"] == 2
    assert values["density", *KIND, "1"] == pytest.approx(0.64)
    for job in jobs:
        played.monitor.job_started(job)
        played.monitor.job_done(job, facts())
    played.monitor.job_done(jobs[0], facts())  # made again
    played.monitor.look({})
    assert values["rounds", *KIND, "0"] == 3
    assert values["density", *KIND, "0"] == 0.125


def test_what_all_trainings_wait_for_is_published(values: Values) -> None:
    monitor = Played(chain()).monitor
    seen = []
    for what in ("", "machines", "cores", ""):
        monitor.waits(what, "a sentence")
        monitor.look({})
        seen.append((values["waiting", "machines"], values["waiting", "cores"]))
    assert seen == [(0, 0), (1, 0), (0, 1), (0, 0)]


def test_the_number_of_series_does_not_grow_with_the_sweep(values: Values) -> None:
    jobs = [job for keep in (0.2, 0.4, 0.6, 0.8) for job in chain(keep=keep, levels=6)]
    played = Played(jobs)
    while not played.schedule.finished:
        job = played.start()
        played.monitor.look({job.id: (10, WHOLE)})
        played.done(job)
    played.monitor.look({})
    assert len(jobs) > 20
    published = [name for name, *_ in values if name not in ("steps", "waiting")]
    assert sorted(published) == sorted({*prometheus.GAUGES, *prometheus.COUNTERS} - {"steps", "waiting"})
    assert Fake.about.keys() >= prometheus.GAUGES.keys() | prometheus.COUNTERS.keys()


def test_no_failure_of_metrics_goes_further(
    values: Values, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no metrics today")

    def unreachable() -> dict[str, tuple[int, int]]:
        raise ConnectionError("no Ray either")

    monkeypatch.setattr(Fake, "set", broken)
    monkeypatch.setattr(prometheus, "LOOK_EVERY", 0.001)
    played = Played(chain())
    with played.monitor.watching(unreachable):
        job = played.start()
        played.monitor.slots_are(2)
        played.monitor.process_lost(job, "killed", 1.0)
        played.done(job)
        played.monitor.job_done(job, {})
        played.monitor.job_failed(job, "", 0)
        played.monitor.note("")
        time.sleep(0.05)
    printed = capsys.readouterr().err
    assert printed.count("Traceback") == 1
    assert "no metrics today" in printed


def test_nobody_is_asked_after_the_end(values: Values, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prometheus, "LOOK_EVERY", 0.001)
    asked: list[float] = []
    with Played(chain()).monitor.watching(lambda: asked.append(0) or {}):
        time.sleep(0.05)
    count = len(asked)
    assert count > 3
    time.sleep(0.02)
    assert len(asked) == count


def test_all_watchers_are_told_all() -> None:
    told: list[tuple[object, ...]] = []

    class Noting:
        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: told.append((name, *arguments))

    methods = {name for name in vars(Watcher) if not name.startswith("_")}
    assert methods <= vars(Watchers).keys()
    assert methods <= vars(Monitor).keys()
    noting: Any = Noting()
    job, both = chain()[0], Watchers(noting, noting)
    calls: list[tuple[Any, ...]] = [
        ("slots_are", 3),
        ("waits", "machines", "a sentence"),
        ("job_started", job, 2),
        ("job_done", job, facts()),
        ("job_failed", job, "why", 4),
        ("process_lost", job, "why", 1.0),
        ("note", "a sentence"),
    ]
    assert methods == {name for name, *_ in calls}
    for name, *arguments in calls:
        getattr(both, name)(*arguments)
    assert told == [call for call in calls for _ in range(2)]


DASHBOARD = CHECKOUT / "docs" / "grafana-dashboard.json"


def asked() -> set[str]:
    """Names of the metrics in Grafana's dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert all("ray_" in query and '{SessionName=~"$session"' in query for query in queries)
    return {name for query in queries for name in re.findall(r"\bray_\w+", query)}
