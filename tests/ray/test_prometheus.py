"""What a node publishes for Prometheus while a sweep runs, and what Grafana queries."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from raysslprune.cluster import prometheus
from tests.helpers import CHECKOUT
from tests.helpers.monitored import KIND, RECIPE, chain

WHOLE = RECIPE.samples
DASHBOARD = CHECKOUT / "docs" / "grafana-dashboard.json"
PROGRAM = """
import json, sys, time, urllib.request
import raysslprune, ray
from tests.helpers import monitored
from raysslprune.cluster import prometheus as monitor
from raysslprune.cluster.shared import Exchange

wanted = set(sys.argv[1:])
monitor.LOOK_EVERY = 0.2
ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
node = ray.nodes()[0]
exchange = Exchange.start()
played = monitored.Played([*monitored.chain(), *monitored.chain(seed=1)])
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
EXPORTED = {
    *(f"ray_{prometheus.PREFIX}{name}" for name in prometheus.GAUGES),
    *(f"ray_{prometheus.PREFIX}{name}_total" for name in prometheus.COUNTERS),
}
"""Names of all the sweep's metrics in Prometheus."""

ON_GPUS = {"ray_node_gpus_utilization", "ray_node_gram_used"}
"""Published only by a node with GPUs; compared with the names that Ray's own agent registers."""


def asked() -> set[str]:
    """Names of the metrics in Grafana's dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert all("ray_" in query and '{SessionName=~"$session"' in query for query in queries)
    return {name for query in queries for name in re.findall(r"\bray_\w+", query)}


@pytest.fixture(scope="module")
def endpoint() -> tuple[dict[tuple[str, frozenset[tuple[str, str]]], float], int]:
    """A node's metrics, by name and labels, while a made-up schedule runs; and the samples seen by the running job."""
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
    task = dict(zip(prometheus.KIND, KIND, strict=True))
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
    assert len(asked() & EXPORTED) >= 6
    assert asked() - names == ON_GPUS
    assert names >= EXPORTED
    from ray.dashboard.modules.reporter.reporter_agent import METRICS_GAUGES

    assert {name.removeprefix("ray_") for name in ON_GPUS} <= METRICS_GAUGES.keys()
