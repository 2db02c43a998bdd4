"""A sweep as metrics: what is counted, without Ray, and what its node then shows to Prometheus."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any, ClassVar

import pytest

from raysslprune import monitor, plan
from raysslprune.fanout import Watcher
from raysslprune.lottery import imp, winning_ticket
from raysslprune.monitor import Monitor, Watchers
from raysslprune.plan import Job, Schedule
from raysslprune.scales import SETTINGS
from raysslprune.spec import SVM, Final, Train
from raysslprune.sweepfile import Point
from tests.helpers import CHECKOUT

S = SETTINGS["smoke"]
RECIPE = S.recipes["rotnet"]
WHOLE = RECIPE.samples
KIND = ("rotnet", S.arch, S.data)


def chain(seed: int = 0, levels: int = 3, keep: float = 0.5) -> list[Job]:
    """The jobs of a RotNet chain, dense first; each but the last makes the next one's mask."""
    rounds = imp(
        task="rotnet", data=S.data, arch=S.arch, recipe=RECIPE, seed=seed, levels=levels, keep=keep,
        rewind=S.rewind["rotnet"],
    )  # fmt: skip
    step = winning_ticket(rounds, levels, task="rotnet", recipe=RECIPE)
    return list(plan.make([Point(step=step, task="rotnet", init="", level=levels, seed=seed)]).jobs.values())


def facts(seconds: float = 2.0, resumed_at: int | None = None, ago: float = 0.0) -> dict[str, Any]:
    return {"seconds": seconds, "images_per_second": 1.0, "begun": time.time() - ago, "resumed_at": resumed_at}


class Fake:
    """One of Ray's metrics; keeps by name and tags' values what it is told."""

    values: ClassVar[dict[tuple[str, ...], float]] = {}
    about: ClassVar[dict[str, str]] = {}

    def __init__(self, name: str, description: str, tag_keys: tuple[str, ...]) -> None:
        self.name, self.keys = name.removeprefix("raysslprune_"), tag_keys
        self.about[self.name] = description

    def set(self, value: float, tags: Mapping[str, str]) -> None:
        assert tuple(tags) == self.keys
        self.values[self.name, *tags.values()] = value

    def inc(self, value: float, tags: Mapping[str, str]) -> None:
        assert value > 0
        self.set(self.values.get((self.name, *tags.values()), 0) + value, tags)


class Clock:
    """In the place of ``time``, where the monitor asks for the time that goes by."""

    time = staticmethod(time.time)
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(monitor, "time", clock)
    return clock


@pytest.fixture
def values(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, ...], float]:
    """What is published: by name and tags."""
    monkeypatch.setattr(Fake, "values", {})
    monkeypatch.setattr(monitor.metrics, "Gauge", Fake)
    monkeypatch.setattr(monitor.metrics, "Counter", Fake)
    return Fake.values


class Played:
    """A schedule whose jobs end as one says, with its monitor."""

    def __init__(self, jobs: list[Job], before: list[Job] | None = None) -> None:
        self.schedule = Schedule(jobs, {job.id: 1.0 for job in jobs})
        self.monitor = Monitor(self.schedule, before or [])

    def start(self) -> Job:
        job = self.schedule.next()
        assert job is not None
        self.monitor.job_started(job)
        return job

    def done(self, job: Job, **about: Any) -> None:
        self.schedule.done(job.id)
        self.monitor.job_done(job, facts(**about))

    def states(self) -> dict[str, float]:
        self.monitor.look({})
        return {tags[1]: value for tags, value in Fake.values.items() if tags[0] == "steps" and value}


Values = dict[tuple[str, ...], float]


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
    assert len(played.monitor._looks[KIND]) <= monitor.WINDOW / 2 + 2
    clock.now += monitor.WINDOW / 2
    played.monitor.look({})
    assert 5 < values[speed] < 20
    for _ in range(2):
        clock.now += monitor.WINDOW
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
    jobs = list(plan.make([Point(step=step, task="", init="", level=0, seed=0)]).jobs.values())
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


def test_the_number_of_series_does_not_grow_with_the_sweep(values: Values) -> None:
    jobs = [job for keep in (0.2, 0.4, 0.6, 0.8) for job in chain(keep=keep, levels=6)]
    played = Played(jobs)
    while not played.schedule.finished:
        job = played.start()
        played.monitor.look({job.id: (10, WHOLE)})
        played.done(job)
    played.monitor.look({})
    assert len(jobs) > 20
    published = [name for name, *_ in values if name != "steps"]
    assert sorted(published) == sorted({*monitor.GAUGES, *monitor.COUNTERS} - {"steps"})
    assert Fake.about.keys() >= monitor.GAUGES.keys() | monitor.COUNTERS.keys()


def test_no_failure_of_metrics_goes_further(
    values: Values, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no metrics today")

    def unreachable() -> dict[str, tuple[int, int]]:
        raise ConnectionError("no Ray either")

    monkeypatch.setattr(Fake, "set", broken)
    monkeypatch.setattr(monitor, "LOOK_EVERY", 0.001)
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
    monkeypatch.setattr(monitor, "LOOK_EVERY", 0.001)
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


# ------------------------------------------------------------------------------------- on a real node

DASHBOARD = CHECKOUT / "docs" / "grafana-dashboard.json"

PROGRAM = """
import json, sys, time, urllib.request
import raysslprune, ray
from tests.ray import test_prometheus
from raysslprune import monitor
from raysslprune.exchange import Exchange

wanted = set(sys.argv[1:])
test_prometheus.monitor.LOOK_EVERY = 0.2
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
node = ray.nodes()[0]
exchange = Exchange.start()
played = test_prometheus.Played([*test_prometheus.chain(), *test_prometheus.chain(seed=1)])
watcher = monitor.Watchers(played.monitor)
with played.monitor.watching(exchange.training):
    watcher.slots_are(5)
    played.done(played.start())
    job = played.start()
    seen, text = 0, ""
    for _ in range(200):
        seen += 10
        exchange.report(job.id, seen, 1_000_000)
        time.sleep(0.1)
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        text = urllib.request.urlopen(url, timeout=10).read().decode()
        names = {line.partition("{")[0].partition(" ")[0] for line in text.splitlines()}
        if seen > 300 and wanted <= names:
            break
print(json.dumps({"text": text, "seen": seen}))
"""

ON_GPUS = {"ray_node_gpus_utilization", "ray_node_gram_used"}
"""Of a node with GPUs only, where no test runs; held against the names that Ray's own agent registers."""


def asked() -> set[str]:
    """The metrics in Grafana's dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert all("ray_" in query and '{SessionName=~"$session"' in query for query in queries)
    return {name for query in queries for name in re.findall(r"\bray_\w+", query)}


@pytest.fixture(scope="module")
def endpoint() -> tuple[dict[tuple[str, frozenset[tuple[str, str]]], float], int]:
    """A node's metrics, by name and labels, while a made schedule runs; and the samples seen by what runs."""
    pytest.importorskip("opentelemetry.exporter.prometheus", reason="metrics need ray[default]")
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= {"RAY_metrics_report_interval_ms": "300", "RAY_AUTH_MODE": "disabled"}
    env["PYTHONPATH"] = str(CHECKOUT)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *(asked() - ON_GPUS)],
        capture_output=True,
        text=True,
        env=env,
        timeout=240,
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout.splitlines()[-1])
    found = {}
    for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", result["text"], re.M):
        found[name, frozenset(re.findall(r'(\w+)="([^"]*)"', labels))] = float(value)
    return found, result["seen"]


def test_prometheus_is_shown_what_the_sweep_does(endpoint: Any) -> None:
    found, seen = endpoint

    def value(name: str, **tags: str) -> float:
        hits = [v for (n, labels), v in found.items() if n == f"ray_raysslprune_{name}" and tags.items() <= labels]
        assert len(hits) == 1, (name, tags, hits)
        return hits[0]

    jobs = len(chain())
    task = dict(zip(monitor.KIND, KIND, strict=True))
    states = ("done", "running", "ready", "waiting", "failed", "skipped")
    assert [value("steps", state=state) for state in states] == [1, 1, 1, 2 * jobs - 3, 0, 0]
    assert value("slots") == 5
    assert value("lost_processes") == 0
    assert WHOLE < value("samples_total", **task) <= WHOLE + seen
    assert value("images_per_second", **task) > 0
    assert value("training_seconds_total", **task) == 2.0
    assert value("rounds", **task) == 1
    assert value("density", **task) == 0.5


def test_grafana_asks_for_what_there_is(endpoint: Any) -> None:
    names = {name for name, _ in endpoint[0]}
    assert len(asked() & monitor.EXPORTED) >= 6
    assert asked() - names == ON_GPUS
    assert names >= monitor.EXPORTED
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    assert {name.removeprefix("ray_") for name in ON_GPUS} <= METRICS_GAUGES.keys()
