"""Where the soak runs a sweep and what it can kill there: this machine's own Ray, or a cluster of three hosts."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import CHECKOUT
from tests.helpers.hosts import SHARED, Network, network
from tests.helpers.processes import descendants

WORKER = "ray::JobTrial"
DRIVER = {"driver": signal.SIGKILL, "driver by SIGTERM": signal.SIGTERM, "driver by SIGINT": signal.SIGINT}
"""Kinds of kills that meet the command's process, with their signals."""


class OwnRay:
    """This machine, on which a sweep starts a Ray of its own."""

    kinds: Mapping[str, str] = {
        "driver": "",
        "worker": WORKER,
        "exchange": "ray::_Board",
        "raylet": "raylet/raylet",
        "GCS": "gcs/gcs_server",
    }
    """What is killed, to what its command line holds; '' if another rule finds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.slots = os.cpu_count() or 1

    def start(self, arguments: Sequence[str], root: Path, err: Path) -> subprocess.Popen[bytes]:
        """Start the command on a root below the folder. err: gets its stderr."""
        command = [sys.executable, *arguments, "--root", str(root)]
        return _start(command, err, {**os.environ, "RAY_TMPDIR": str(self.folder)})

    def driver(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return the command's process id, None if it has none."""
        return process.pid if process.poll() is None else None

    def processes(self, process: subprocess.Popen[bytes]) -> dict[int, str]:
        """Return the command lines, without options, of all that may belong to the command."""
        return {pid: line.split(" --")[0] for pid, line in descendants(process.pid)}

    def victims(self, kind: str, process: subprocess.Popen[bytes], names: Mapping[int, str]) -> list[int]:
        """Return what a kill of this kind can meet. names: processes of the command."""
        if kind in DRIVER:
            driver = self.driver(process)
            return [] if driver is None else [driver]
        return [pid for pid, name in names.items() if self.kinds[kind] in name]

    def kill(self, kind: str, victim: int) -> None:
        """Kill it. Raises ProcessLookupError if it ended a moment ago."""
        os.kill(victim, DRIVER.get(kind, signal.SIGKILL))

    def ends_driver(self, kind: str) -> bool:
        """Return whether a kill of this kind ends the command's process at once."""
        return kind in DRIVER

    def ends_ray(self, kind: str) -> bool:
        """Return whether the command must say that its Ray died."""
        return kind in ("raylet", "GCS")

    def loses(self, kind: str) -> int:
        """Return the number of trainings that a kill may cost at most."""
        return {"worker": 1, "exchange": 0}.get(kind, self.slots)

    def mend(self, kind: str) -> None:
        """Bring back what the kill took and the command can't start itself."""

    def stop(self) -> None:
        """Stop what outlives the command."""

    def outlived(self) -> list[str]:
        """Return what runs after :meth:`stop` and belongs to no process that was ever seen."""
        return []

    def logs(self) -> Iterator[Path]:
        """Find what the workers printed."""
        yield from self.folder.glob("ray/session_2*/logs/worker-*.out")


HEAD, *OTHERS = NAMES = ("head", "worker-1", "worker-2")
PORT = 6379


class ThreeHosts(OwnRay):
    """A cluster of three hosts in namespaces, with one core each; the command runs on the head.

    A host that vanishes takes all its processes with it, and none of its connections is closed. ``hurt``: the host that
    the last kill met.
    """

    kinds: Mapping[str, str] = {**dict.fromkeys(DRIVER, ""), **OwnRay.kinds, "host": "", "head": ""}

    def __init__(self, folder: Path, net: Network) -> None:
        super().__init__(folder)
        self.net = net
        self.slots = len(NAMES)
        self.hosts = {name: net.start(name) for name in NAMES}
        self.hurt = HEAD
        self.environment = {
            "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "OMP_NUM_THREADS": "1",
            "RAY_worker_niceness": "0",
            "RAY_raylet_start_wait_time_s": "300",  # the default of 30 is too short beside other tests
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_ADDRESS": f"{self.hosts[HEAD].ip}:{PORT}",
        }
        self._start_ray()

    def start(self, arguments: Sequence[str], root: Path, err: Path) -> subprocess.Popen[bytes]:
        there = f"{SHARED}/{root.relative_to(self.net.shared)}"
        command = self._on(HEAD, sys.executable, *arguments, "--root", there)
        return _start(command, err, {**os.environ})

    def driver(self, process: subprocess.Popen[bytes]) -> int | None:
        return next((pid for pid, _ in descendants(process.pid)), None)  # the process itself is nsenter

    def processes(self, process: subprocess.Popen[bytes]) -> dict[int, str]:
        own = descendants(process.pid, *(host.pid for host in self.hosts.values()))
        return {pid: line.split(" --")[0] for pid, line in own if not line.startswith(("sshd", "sleep"))}

    def victims(self, kind: str, process: subprocess.Popen[bytes], names: Mapping[int, str]) -> list[int]:
        if kind in ("host", "head"):
            return [self.hosts[name].pid for name in (OTHERS if kind == "host" else [HEAD])]
        return super().victims(kind, process, names)

    def kill(self, kind: str, victim: int) -> None:
        self.hurt = self._host_of(victim)
        if kind in ("host", "head"):
            self.net.vanish(self.hosts[self.hurt])
        else:
            super().kill(kind, victim)

    def ends_driver(self, kind: str) -> bool:
        return super().ends_driver(kind) or kind == "head"

    def ends_ray(self, kind: str) -> bool:
        return super().ends_ray(kind) and self.hurt == HEAD

    def loses(self, kind: str) -> int:
        elsewhere = kind in ("raylet", "host") and self.hurt != HEAD
        return 1 if elsewhere else super().loses(kind)

    def mend(self, kind: str) -> None:
        if kind in ("host", "head"):
            self.hosts[self.hurt] = self.net.start(self.hurt)
        if kind in ("GCS", "head") or (kind, self.hurt) == ("raylet", HEAD):
            self._stop_ray(NAMES)
            self._start_ray()
        elif kind in ("raylet", "host"):
            self._stop_ray([self.hurt])
            self._join([self.hurt])

    def stop(self) -> None:
        self._stop_ray(NAMES)

    def outlived(self) -> list[str]:
        ours = {name: host.processes() for name, host in self.hosts.items()}
        return [f"{line} on {name}" for name in ours for line in ours[name] if not line.startswith("sshd: /")]

    def logs(self) -> Iterator[Path]:
        yield from self.folder.glob("ray/*/session_2*/logs/worker-*.out")

    def _host_of(self, pid: int) -> str:
        """Return the host on which a process runs: that of its PID namespace."""
        space = os.readlink(f"/proc/{pid}/ns/pid")
        return next(name for name, host in self.hosts.items() if os.readlink(f"/proc/{host.pid}/ns/pid") == space)

    def _on(self, name: str, *command: str) -> list[str]:
        return self.hosts[name].command(*command, **self.environment)

    def _stop_ray(self, names: Sequence[str]) -> None:
        _at_once({name: self._on(name, "ray", "stop", "--force") for name in names})

    def _start_ray(self) -> None:
        options = ("--head", f"--port={PORT}", "--include-dashboard=false")
        _at_once({HEAD: self._ray_start(HEAD, *options)})
        self._join(OTHERS)

    def _join(self, names: Sequence[str]) -> None:
        _at_once({name: self._ray_start(name, f"--address={self.environment['RAY_ADDRESS']}") for name in names})

    def _ray_start(self, name: str, *options: str) -> list[str]:
        folder = f"{SHARED}/{self.folder.name}/ray/{name}"  # outlives the host, as a disk does
        mine = (f"--node-ip-address={self.hosts[name].ip}", f"--temp-dir={folder}")
        return self._on(name, "ray", "start", *mine, *START, *options)


START = ("--num-cpus=1", "--object-store-memory=200000000", "--disable-usage-stats")


def _at_once(commands: Mapping[str, Sequence[str]]) -> None:
    """Run the commands of these hosts, each to a good end. Raises OSError."""
    running = {
        name: subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for name, command in commands.items()
    }
    said = {name: process.communicate(timeout=600)[0] for name, process in running.items()}
    for name, process in running.items():
        if process.returncode:
            raise OSError(f"{' '.join(commands[name])} on {name}: {said[name]}")


def _start(command: Sequence[str], err: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    with open(err, "w") as file:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,
        )


@contextmanager
def place(folder: Path, hosts: bool) -> Iterator[OwnRay]:
    """The place of a soak whose files are below ``folder``."""
    if not hosts:
        yield OwnRay(folder)
        return
    with network(folder.parent) as net:
        yield ThreeHosts(folder, net)
