"""A cluster that grows and shrinks on this machine: Ray's autoscaler, v1 or v2, with Ray's fake machines.

Each machine is a raylet with one core. The provider is named as an external one, so that the autoscaler does not look
for an example file that Ray's wheel lacks.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray.util import get_node_ip_address

from tests.helpers.commands import SWEEP, start
from tests.helpers.processes import descendants, wait_until

HEAD_ID = "f" * 51 + "00000"
"""Ray's own name of the head of fake machines."""

PROVIDER = """
from ray.autoscaler._private.fake_multi_node.node_provider import FakeMultiNodeProvider

LIMIT = {limit}


class Machines(FakeMultiNodeProvider):
    def _create_node_with_resources_and_labels(self, *arguments):
        if self._next_node_id < LIMIT:
            super()._create_node_with_resources_and_labels(*arguments)
"""
"""A provider that adds no more than ``limit`` machines, whatever the autoscaler was promised."""


@dataclass(frozen=True)
class Growing:
    """A cluster whose head has no core. file: its cluster file, as ``ray up`` leaves it on a head."""

    process: subprocess.Popen[bytes]
    address: str
    file: Path

    @property
    def machines(self) -> int:
        """Number of machines that it has, besides the head."""
        return sum("/raylet/raylet " in line for _, line in descendants(self.process.pid)) - 1

    def start(self, *arguments: str, program: Sequence[str] = SWEEP, **environment: str) -> subprocess.Popen[str]:
        """Start the command, or another program, on this cluster."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled", **environment}.items():
                patch.setenv(name, value)
            return start(*arguments, program=program)


@contextmanager
def growing(*, v2: bool, machines: int = 2, come: int = 1000) -> Iterator[Growing]:
    """Start a cluster without machines, which may have up to so many of them, of which no more than ``come`` come."""
    with tempfile.TemporaryDirectory(prefix="a-", dir="/tmp", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with socket.create_server(("", 0)) as server:
            address = f"{get_node_ip_address()}:{server.getsockname()[1]}"
        (folder / "fake_cloud.py").write_text(PROVIDER.format(limit=come))
        file = folder / "ray_bootstrap_config.yaml"
        file.write_text(json.dumps(_config(address, machines)))
        environment = {
            "PYTHONPATH": str(folder),
            "RAY_AUTH_MODE": "disabled",
            "RAY_FAKE_CLUSTER": "1",
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_enable_autoscaler_v2": str(int(v2)),
            "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        }
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=0"]
        command += [f"--port={address.rpartition(':')[2]}", f"--autoscaling-config={file}", f"--temp-dir={folder}/ray"]
        command += ["--include-dashboard=false", "--disable-usage-stats", "--object-store-memory=100000000"]
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            assert process.stdout
            said = b""
            for line in process.stdout:
                said += line
                if b"Ray runtime started" in line:
                    break
            else:
                raise OSError(said.decode())
            cluster = Growing(process, address, file)
            wait_until(lambda: cluster.machines == 0)
            yield cluster
        finally:
            everything = [process.pid, *(pid for pid, _ in descendants(process.pid))]
            for pid in everything:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.communicate()


def _config(address: str, machines: int) -> dict[str, object]:
    lists = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    lists += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files")
    lists += ("rsync_exclude", "rsync_filter")
    provider = {"type": "external", "module": "fake_cloud.Machines", "head_node_id": HEAD_ID, "gcs_address": address}
    machine = {"CPU": 1, "object_store_memory": 100_000_000}
    return {
        "cluster_name": "fake",
        "max_workers": machines,
        "upscaling_speed": 4,
        "idle_timeout_minutes": 0.1,
        "provider": {**provider, "launch_multiple": True, "disable_node_updaters": True},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "cpu": {"resources": machine, "node_config": {}, "min_workers": 0, "max_workers": machines},
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "file_mounts_sync_continuously": False,
        **{name: [] for name in lists},
    }
