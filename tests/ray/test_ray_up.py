"""cluster-local.yaml for real: three hosts, `ray up`, a sweep, jobs, the dashboard, the token, `ray down`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.helpers import CHECKOUT
from tests.helpers.commands import Finished, done_steps, table_of
from tests.helpers.hosts import HOME, SHARED, Host, hosts, missing, wait

YAML = f"{SHARED}/cluster-local.yaml"
SWEEP = f"cd ~/raysslprune && python -m raysslprune.sweep fig3 --scale smoke --root {SHARED}/runs"
ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_UP_enable_autoscaler_v2": "1"}
"""Of who types `ray up`. Autoscaler v2 is on, as it is without that variable: the file itself must switch it off."""

HEAD, WORKERS = "head", ("worker-1", "worker-2")

FETCH = """
import json, sys, urllib.error, urllib.request
def status(path, token):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        return urllib.request.urlopen(urllib.request.Request(sys.argv[1] + path, headers=headers), timeout=20).status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError as error:
        return str(error)
token = open(sys.argv[2]).read().strip()
paths = ["/", "/api/version", "/api/jobs/", "/nodes?view=summary"]
print(json.dumps({path: [status(path, t) for t in ("", "0" * 64, token)] for path in paths}))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_ray_up(tmp_path: Path, finished: Finished) -> None:
    if why := missing():
        pytest.skip(why)
    with hosts(["operator", HEAD, *WORKERS], tmp_path) as made:
        operator, head = made["operator"], made[HEAD]
        workers = [made[name] for name in WORKERS]
        write_yaml(tmp_path, head, workers)
        for host in (head, *workers):
            as_if_installed(host)
        told = ray(operator, "get-auth-token", "--generate")
        token = re.findall("[0-9a-f]{64}", told)[-1]

        ray(operator, "up", "-y", "--no-config-cache", YAML)
        wait_for_nodes(operator, 3)
        for host in workers:
            assert host.run("cat", f"{HOME}/.ray/auth_token").stdout.strip() == token
            assert host.run("stat", "-c", "%a", f"{HOME}/.ray/auth_token").stdout.strip() == "600"

        with intruder(operator) as refused:
            ray(operator, "exec", YAML, SWEEP)
            assert table_of(tmp_path / "runs") == finished.table
            provenance = pq.read_table(tmp_path / "runs/results/smoke/fig3-runs.parquet")
            assert set(provenance["host"].to_pylist()) <= set(WORKERS), "the head has no CPU to train with"
            # Ray looks for its cluster for 20 s, whatever was wrong
            said, code = refused.communicate(timeout=90)[0], refused.returncode
        assert code == 1
        (sentence,) = [line for line in said.splitlines() if line.startswith("raysslprune: ")]
        assert "can't reach the Ray cluster" in sentence
        assert "RAY_AUTH_TOKEN" in sentence
        assert "Traceback" not in said
        assert not done_steps(tmp_path / "refused")

        assert fetch(head, f"http://{head.ip}:8265") == dict.fromkeys(
            fetch(head, "http://127.0.0.1:1"), ["refused"] * 3
        )
        with dashboard(operator) as address:
            statuses = fetch(operator, address)
            assert statuses.pop("/") == [200, 200, 200], "the page itself says nothing"
            assert set(map(tuple, statuses.values())) == {(401, 403, 200)}, statuses

            steps = sorted((tmp_path / "runs/steps").iterdir())
            for step in steps[::3]:
                shutil.rmtree(step)
            shutil.rmtree(tmp_path / "runs/results")
            job = ["job", "submit", "--address", address, "--", "bash", "-c", SWEEP]
            without = operator.run("ray", *job, RAY_AUTH_MODE="disabled", PATH=path())
            assert without.returncode
            assert not (tmp_path / "runs/results").exists()
            ray(operator, *job)
            assert table_of(tmp_path / "runs") == finished.table
            assert done_steps(tmp_path / "runs").keys() == done_steps(finished.root).keys()

        ray(operator, "down", "-y", YAML)
        for host in workers:  # as docs/own-machines.md says: `ray down` stops the head only
            ssh = ["ssh", "-i", f"{SHARED}/ssh/id", "-o", "StrictHostKeyChecking=no", f"root@{host.ip}"]
            stopped = operator.run(*ssh, "raysslprune-env/bin/ray stop")
            assert stopped.returncode == 0, stopped.stdout
        for host in (head, *workers):
            wait_until_idle(host)
        pids = [host.pid for host in made.values()]
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    assert str(tmp_path) not in Path("/proc/self/mounts").read_text()


def write_yaml(shared: Path, head: Host, workers: list[Host]) -> None:
    """The project's own file, with what it says is to be changed, changed.

    No CPU on the head, so that the steps must go to other hosts, and one on each worker, since this is one machine.
    """
    text = (CHECKOUT / "cluster-local.yaml").read_text()
    changes = {
        "head_ip: 192.0.2.10": f"head_ip: {head.ip}",
        "[192.0.2.11, 192.0.2.12]": f"[{', '.join(worker.ip for worker in workers)}]",
        "ssh_user: ubuntu": "ssh_user: root",
        "ssh_private_key: ~/.ssh/id_ed25519": f"ssh_private_key: {SHARED}/ssh/id",
        "ray start --head": "ray start --num-cpus=0 --head",
        "ray start --address": "ray start --num-cpus=1 --address",
    }
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (shared / "cluster-local.yaml").write_text(text)


def as_if_installed(host: Host) -> None:
    """This test's environment in place of the one that the setup commands would download."""
    wanted = (CHECKOUT / "pyproject.toml").read_bytes() + (CHECKOUT / "constraints.txt").read_bytes()
    stamp = f"{hashlib.sha256(wanted).hexdigest()}  -"
    script = f"ln -s {sys.prefix} ~/raysslprune-env && echo '{stamp}' > ~/.raysslprune-installed"
    assert host.run("bash", "-c", script).returncode == 0


def path() -> str:
    return f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"


def on(host: Host, *command: str) -> list[str]:
    """Run in the checkout, with Ray on the PATH."""
    inside = ["bash", "-c", f'cd {CHECKOUT} && exec "$@"', "bash", *command]
    return host.command(*inside, PATH=path(), **ENVIRONMENT)


def ray(host: Host, *arguments: str) -> str:
    """Run a Ray command that must succeed; return its output."""
    began = time.monotonic()
    done = subprocess.run(
        on(host, "ray", *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
    )
    print(f"---- ray {' '.join(arguments)}: {time.monotonic() - began:.1f} s\n{done.stdout}")
    assert done.returncode == 0, done.stdout
    return done.stdout


def wait_for_nodes(operator: Host, count: int) -> None:
    listed = ""
    for seconds in wait(120):
        listed = ray(operator, "exec", YAML, "ray status")
        if f"{count} local.cluster.node" in listed:
            print(f"---- {count} nodes after {seconds:.1f} s more")
            return
    raise TimeoutError(listed)


@contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that is ended with its children at the end."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # nsenter alone would leave its child behind
            process.communicate()


@contextmanager
def intruder(operator: Host) -> Iterator[subprocess.Popen[str]]:
    """A sweep on the head with a token that is not the cluster's."""
    wrong = f"export RAY_AUTH_TOKEN={'0' * 64}; {SWEEP.replace('/runs', '/refused')}"
    with running(on(operator, "ray", "exec", YAML, wrong)) as process:
        yield process


@contextmanager
def dashboard(operator: Host) -> Iterator[str]:
    """Run `ray dashboard`; yield the address at which the operator finds the dashboard."""
    address = "http://127.0.0.1:18265"
    with running(on(operator, "ray", "dashboard", "--port", "18265", YAML)):
        for _ in wait(30):
            if fetch(operator, address)["/"][0] == 200:
                break
        else:
            raise TimeoutError("no dashboard through ssh")
        yield address


def fetch(host: Host, address: str) -> dict[str, list[int | str]]:
    """Status of some pages: without a token, with a wrong one, with the cluster's. ``refused``: no answer."""
    done = host.run(sys.executable, "-c", FETCH, address, f"{HOME}/.ray/auth_token")
    assert done.returncode == 0, done.stdout
    return {
        page: ["refused" if "refused" in str(status) else status for status in statuses]
        for page, statuses in json.loads(done.stdout).items()
    }


def wait_until_idle(host: Host) -> None:
    """Check that only the listening sshd is left."""
    left: list[str] = []
    for _ in wait(30):
        left = [line for line in host.processes() if not line.startswith("sshd: /")]
        if not left:
            return
    raise TimeoutError(f"still on {host.name}: {left}")
