"""A cluster that grows from nothing, by Ray's autoscalers v1 and v2 with fake machines, and one that never does."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from ray.core.generated import autoscaler_pb2 as pb2
from ray.core.generated import autoscaler_pb2_grpc

from raysslprune.cluster import nodes
from raysslprune.cluster.options import Capacity
from raysslprune.messages import NO_MACHINES
from tests.helpers.autoscaler import growing
from tests.helpers.commands import Finished, done_steps, finish, table_of
from tests.helpers.processes import wait_until

SLOTS = ("--slots", "2")


def events(err: str) -> list[dict[str, Any]]:
    """Return the lines of JSON that a sweep printed."""
    return [json.loads(line) for line in err.splitlines() if line.startswith("{")]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_nothing_to_two_machines_and_back_though_the_sweep_is_killed(finished: Finished, tmp_path: Path) -> None:
    """By v2, which ends idle machines. Its limits are known from --slots alone."""
    root = tmp_path / "runs"
    arguments = ("fig3", "--scale", "smoke", "--root", str(root), *SLOTS, "--json-lines")
    with growing(v2=True, machines=4) as cluster:
        process = cluster.start(*arguments)
        wait_until(lambda: cluster.machines == 2 and len(done_steps(root)) >= 2, 280)
        os.kill(process.pid, signal.SIGKILL)
        said = events(process.communicate()[1])
        before = done_steps(root)
        assert ("waiting", "machines") in [(event["event"], event.get("for")) for event in said]
        assert cluster.machines == 2, "four may come, but only two were asked for"
        wait_until(lambda: cluster.machines == 0, 120)  # nothing that outlives the sweep keeps them
        result = finish(cluster.start(*arguments))
        assert result.code == 0, result.err
        wait_until(lambda: cluster.machines == 0, 120)
    assert before.items() <= done_steps(root).items()
    assert table_of(root) == finished.table


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_where_one_of_two_machines_never_comes_no_job_waits_for_it(finished: Finished, tmp_path: Path) -> None:
    """By v1; its limits are known from the file of `ray up`. Each job for the missing machine once waited 60 s."""
    root = tmp_path / "runs"
    with growing(v2=False, machines=2, come=1) as cluster:
        process = cluster.start("fig3", "--scale", "smoke", "--root", str(root), HOME=str(cluster.file.parent))
        result = finish(process, 280)
        assert cluster.machines == 1
    assert result.code == 0, result.err
    assert "waiting for machines: 0 of 2 cores are there; `ray status` says why" in result.err
    assert table_of(root) == finished.table


IMPATIENT = """
import sys
from raysslprune import sweep
from raysslprune.cluster import tune

tune.MACHINES_WITHIN = 6.0
sys.exit(sweep.main(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_where_no_machine_comes_the_sweep_says_so_and_ends(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    with growing(v2=False, machines=2, come=0) as cluster:
        arguments = ("fig3", "--scale", "smoke", "--root", str(root), *SLOTS, "--json-lines")
        result = finish(cluster.start(*arguments, program=(sys.executable, "-c", IMPATIENT)))
    assert result.code == NO_MACHINES
    assert result.err.splitlines()[-1] == (
        "raysslprune: no training could begin for 0.1 min: 0 of 2 cores are there; `ray status` says why; "
        "finished steps are kept; run the same command again to resume"
    )
    assert "Traceback" not in result.err
    waiting = [event["text"] for event in events(result.err) if event["event"] == "waiting"]
    assert waiting == ["waiting for machines: 0 of 2 cores are there; `ray status` says why"]
    assert done_steps(root) == {}


def test_the_limits_that_an_autoscaler_has_told_ray_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the autoscalers of some providers do."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    messages: Any = pb2  # made when it is imported
    config = messages.ClusterConfig(max_resources={"CPU": 60})
    for resources, count in (({"CPU": 8}, 3), ({"CPU": 24, "GPU": 4}, 2), ({"CPU": 999}, 0)):
        config.node_group_configs.add(resources=resources, max_count=count)
    with nodes.connected(cpus=1):
        before = nodes.capacity()
        with grpc.insecure_channel(nodes.ray.get_runtime_context().gcs_address) as channel:
            request = messages.ReportClusterConfigRequest(cluster_config=config)
            autoscaler_pb2_grpc.AutoscalerStateServiceStub(channel).ReportClusterConfig(request)
        after = nodes.capacity()
    one = Capacity(cpus=1, gpus=0)
    assert before == Capacity(cpus=1, gpus=0, free=one, most=one), "an own Ray does not grow"
    assert after.cpus == 1
    assert after.most is not None
    assert (after.most.cpus, after.most.gpus) == (60, 8)
    assert after.machine == Capacity(cpus=24, gpus=4)
