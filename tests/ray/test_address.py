"""Which Ray a sweep uses: its own, one that runs here, a head on 127.0.0.1, or none at a wrong address."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from ray.util import get_node_ip_address

from tests.helpers.commands import SHAREABLE, STARTED, Command, sweep
from tests.helpers.processes import descendants


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


@dataclass(frozen=True)
class Head:
    """A Ray that `ray start` has started. folder: RAY_TMPDIR, where it leaves its address. client: port of ray://."""

    address: str
    client: int
    folder: Path

    @property
    def sessions(self) -> int:
        """Number of Rays that were started in the folder."""
        return len(list(self.folder.glob("ray/session_20*")))


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with tempfile.TemporaryDirectory(prefix="h-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        port, client = free_port(), free_port()
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=1"]
        command += [f"--port={port}", f"--ray-client-server-port={client}", "--include-dashboard=false"]
        process = subprocess.Popen(
            [*command, "--disable-usage-stats"],
            env={**os.environ, "RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            assert process.stdout
            assert any("Ray runtime started" in line for line in process.stdout)
            yield Head(f"{get_node_ip_address()}:{port}", client, Path(folder))
        finally:
            for pid in (process.pid, *(pid for pid, _ in descendants(process.pid))):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small sweep, own.py, and an environment without an address."""
    (tmp_path / "own.py").write_text(SHAREABLE)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    return tmp_path


def run(here: Path, *arguments: str) -> Command:
    return sweep("own.py", "--scale", "smoke", *arguments, cwd=here)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_ray_that_runs_here_is_named_and_used_only_if_asked_for(
    head: Head, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(head.folder))
    note = f"a Ray runs here, at {head.address}, and this sweep does not use it; to use it: --address auto"
    for number, (arguments, variable, named, sessions) in enumerate(
        [
            ((), "", True, 2),  # its own is the second
            (("--address", "auto"), "127.0.0.1:1", False, 2),  # the variable does not matter
            ((), "local", False, 3),
        ]
    ):
        monkeypatch.setenv("RAY_ADDRESS", variable)
        result = run(here, "--root", f"runs-{number}", *arguments)
        assert result.code == 0, result.err
        assert (note in result.err) == named
        assert head.sessions == sessions


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["disabled", "token"])
def test_the_port_of_ray_client_is_refused_in_its_own_words(
    mode: str, head: Head, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in words about a token, which Ray's timeout would be taken for."""
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    address = f"127.0.0.1:{head.client}"
    result = run(here, "--address", address)
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith(
        f"raysslprune: --address is {address}, which is an address for Ray Client (ray://), which is not for sweeps; "
    )
    assert "token" not in result.err


ON_LOCALHOST = """
import sys
import ray
from raysslprune.cluster import patches

with patches.on_localhost():
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_head_that_listens_on_localhost_alone_is_used(here: Path) -> None:
    """Ray would try this machine's address in the network, and wait."""
    program = subprocess.Popen(
        [sys.executable, "-c", ON_LOCALHOST], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    STARTED.append(program)
    assert program.stdout
    address = program.stdout.readline().strip()
    assert address.startswith("127.0.0.1:")
    result = run(here, "--address", address)
    assert result.code == 0, result.err
    assert program.poll() is None
    program.communicate("", timeout=60)
