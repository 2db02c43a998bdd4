"""Run thousands of tiny steps in one sweep, and see that nothing grows with them.

    python -m tests.tools.soak_memory --steps 2000

Every few seconds each process of the sweep is looked at: memory, file descriptors, threads; and the object store. What
grows is told as a straight line's slope, since the first tenth of the steps. At the end a table and, on stdout's last
line, the same as JSON. Exit code 1 where anything is over its bound. Takes about ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression

from rich.console import Console
from rich.table import Table

from tests.helpers.commands import finish
from tests.helpers.processes import descendants
from tests.tools.soak import begun

CHAIN = 5
"""Trainings of a chain; each but the last gives a mask."""

SWEEP = f"""
from raysslprune.lottery import imp, winning_ticket
from raysslprune.spec import Recipe
from raysslprune.sweepfile import Curve, Figure, Point

FIGURE = Figure(title="Tiny", references=(Curve(task="labels", init="ticket"),))


def points(scale, seed):
    recipe = Recipe(samples=128, batch=64, lr=0.05)
    chain = imp(task="labels", data="digits", arch="conv4", recipe=recipe, seed=seed, levels={CHAIN}, keep=0.5,
                rewind=64)
    for level in range({CHAIN}):
        ticket = winning_ticket(chain, level, task="labels", recipe=recipe)
        yield Point(step=ticket, task="labels", init="ticket", level=level, seed=seed)
"""

ROLES = {
    "worker": "ray::JobTrial",
    "exchange": "ray::_Board",
    "raylet": "raylet/raylet ",
    "GCS": "gcs/gcs_server",
}
"""To what a process's command line holds. The command itself is the driver, and the searcher is in it."""

GROWTH = {"driver": 60.0, "worker": 15.0, "exchange": 15.0, "raylet": 15.0, "GCS": 15.0, "others": 30.0}
"""MB for 1,000 trainings, at most, of the memory that is a role's own. The GCS keeps 3 kB of each call that the
dashboard lists, of the last 10,000."""

MORE = 8
"""File descriptors and threads, at most, that a role has more at the end than after the first tenth."""

STORE = 32.0
"""MB in Ray's object store, at most: the masks and Ray's own."""


@dataclass(frozen=True)
class Look:
    """Of a role's processes at one moment. own, rss: MB, without and with what is a file's, as torch's libraries."""

    processes: int = 0
    own: float = 0.0
    rss: float = 0.0
    files: int = 0
    threads: int = 0

    def __add__(self, other: Look) -> Look:
        return Look(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass
class Soak:
    """Looks at a running sweep, by the number of its trainings that were done then."""

    looks: list[tuple[int, dict[str, Look], float | None]] = field(default_factory=list)
    """(trainings done, by role, MB in the object store)."""
    seen: set[tuple[int, str]] = field(default_factory=set)
    """All processes, with their start."""

    def look(self, pid: int, done: int, session: Path) -> None:
        roles: dict[str, Look] = {}
        for one, name in ((pid, ""), *descendants(pid)):
            if (look := look_at(one)) is not None:
                self.seen.add((one, begun(one)))
                role = role_of(name)
                roles[role] = roles.get(role, Look()) + look
        self.looks.append((done, roles, in_object_store(session)))


def role_of(command: str) -> str:
    """The role of a process by its command line; '' is the driver's."""
    if not command:
        return "driver"
    return next((role for role, part in ROLES.items() if part in command.split(" --")[0] + " "), "others")


def look_at(pid: int) -> Look | None:
    """None where it is gone."""
    folder = Path(f"/proc/{pid}")
    try:
        memory = dict(re.findall(r"^(Anonymous|Rss): +(\d+) kB", (folder / "smaps_rollup").read_text(), re.M))
        threads, files = len(os.listdir(folder / "task")), len(os.listdir(folder / "fd"))
        return Look(1, int(memory["Anonymous"]) / 1e3, int(memory["Rss"]) / 1e3, files, threads)
    except (OSError, KeyError):
        return None


def in_object_store(session: Path) -> float | None:
    """MB, from the node's own metrics, which are some ten seconds old; None while there are none."""
    try:
        (port,) = session.glob("metrics_export_port_*")
        url = f"http://{address_of(int(port.read_text()))}/metrics"
        text = urllib.request.urlopen(url, timeout=5).read().decode()
    except (OSError, ValueError):
        return None
    found = re.findall(r"^ray_object_store_used_memory\{.*\} (\S+)$", text, re.M)
    return sum(map(float, found)) / 1e6 if found else None


def address_of(port: int) -> str:
    """Where something listens on this port: Ray's metrics do so on the node's own address only."""
    listening = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True).stdout.split()
    return next((word for word in listening if word.endswith(f":{port}")), f"127.0.0.1:{port}").replace(
        "*", "127.0.0.1"
    )


def run(steps: int, every: float, folder: Path) -> tuple[Soak, list[str]]:
    """A sweep of so many trainings; what was seen of it, and what went wrong."""
    (folder / "tiny.py").write_text(SWEEP)
    (folder / "tmp").mkdir()
    seeds, root = -(-steps // CHAIN), folder / "runs"
    environment = {**os.environ, "RAY_TMPDIR": str(folder), "TMPDIR": str(folder / "tmp")}
    command = [sys.executable, "-m", "raysslprune.sweep", "tiny.py", "--seeds", str(seeds), "--root", str(root)]
    soak, faults = Soak(), []
    with open(folder / "err", "w") as err, open(folder / "out", "w") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=err, text=True)
        try:
            while process.poll() is None:
                done = len(list(root.glob("steps/*/weights.safetensors")))
                soak.look(process.pid, done, folder / "ray/session_latest")
                time.sleep(every)
        finally:
            if process.poll() is None:
                process.terminate()
            finish(process)
    done = len(list(root.glob("steps/*/weights.safetensors")))
    if process.returncode or done != seeds * CHAIN:
        said = (folder / "err").read_text()[-300:]
        faults.append(f"the sweep ended with code {process.returncode} and {done} trainings: {said}")
    end = time.monotonic() + 30
    while (left := [pid for pid, at in soak.seen if at and begun(pid) == at]) and time.monotonic() < end:
        time.sleep(0.5)
    faults += [f"process {pid} is left over" for pid in left]
    faults += [f"{path} is left over" for path in (folder / "tmp").glob("raysslprune-*")]
    return soak, faults


def grown(looks: Sequence[tuple[int, float]]) -> float:
    """The slope of a straight line through them, for 1,000 trainings."""
    return 1000 * linear_regression([done for done, _ in looks], [value for _, value in looks]).slope


def judge(soak: Soak, growth: Mapping[str, float]) -> tuple[Table, dict[str, object], list[str]]:
    """As a table, as JSON, and what is over its bound."""
    last = soak.looks[-1][0]
    late = [look for look in soak.looks if last / 10 <= look[0] < last]  # from warm on, until it ends
    table = Table("", "processes", "own, MB", "grown, MB / 1,000", "bound", "RSS, MB", "files", "threads", box=None)
    numbers: dict[str, object] = {"trainings": last, "looks": len(late)}
    faults: list[str] = []
    first, end = late[0][1], late[-1][1]
    for role in growth:
        if role not in first or role not in end:
            continue
        mine = [(done, roles[role].own) for done, roles, _ in late if role in roles]
        slope, a, b = grown(mine), first[role], end[role]
        table.add_row(
            role,
            *(f"{b.processes}", f"{a.own:.0f} to {b.own:.0f}", f"{slope:.1f}", f"{growth[role]:.0f}"),
            *(f"{a.rss:.0f} to {b.rss:.0f}", f"{a.files} to {b.files}", f"{a.threads} to {b.threads}"),
        )
        numbers[role] = {"grown_mb_per_1000": round(slope, 2), "first": vars(a), "last": vars(b)}
        if slope > growth[role]:
            faults.append(f"{role}: grew by {slope:.1f} MB for 1,000 trainings, over {growth[role]:.0f}")
        faults += [
            f"{role}: {name} went from {x} to {y}"
            for name, x, y in (("files", a.files, b.files), ("threads", a.threads, b.threads))
            if y > x + MORE
        ]
    stored = [mb for _, _, mb in late if mb is not None]
    numbers["object_store_mb"] = {"first": stored[0], "most": max(stored)} if stored else None
    table.add_row(
        "object store", "", f"{stored[0]:.1f} to {max(stored):.1f}" if stored else "not told", "", f"{STORE:.0f}"
    )
    if stored and max(stored) > STORE:
        faults.append(f"object store: {max(stored):.0f} MB, over {STORE:.0f}")
    return table, numbers, faults


def main() -> int:
    parser = argparse.ArgumentParser(description="Run very many tiny steps, and see that nothing grows with them.")
    parser.add_argument("--steps", type=int, default=2000, help="trainings; the masks between them come on top")
    parser.add_argument("--every", type=float, default=3.0, help="seconds between looks")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:  # short: Ray's sockets are in it
        since = time.monotonic()
        soak, faults = run(options.steps, options.every, Path(folder))
        table, numbers, over = judge(soak, GROWTH)
    console = Console(highlight=False, width=140)
    console.print(table)
    for fault in (*faults, *over):
        console.print(fault, markup=False)
    print(json.dumps({**numbers, "seconds": round(time.monotonic() - since), "faults": [*faults, *over]}))
    return 1 if faults or over else 0


if __name__ == "__main__":
    sys.exit(main())
