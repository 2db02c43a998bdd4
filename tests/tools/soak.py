"""Kill what runs a sweep, again and again at random, and see that nothing is lost.

    python -m tests.tools.soak --kills 30 --seed 0

Each kill is a SIGKILL of the driver, a worker, the exchange, the raylet or the GCS of a sweep on this machine's own
Ray; the command is given again whenever it ended. At the end all that the sweep left must be, bit for bit, what an
undisturbed one leaves. Exit code 1 if anything is not. Takes about 40 s a kill on two cores.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.helpers.commands import done_steps
from tests.helpers.processes import descendants, wait_until

KINDS = {
    "driver": "",
    "worker": "ray::JobTrial",
    "exchange": "ray::_Board",
    "raylet": "raylet/raylet",
    "GCS": "gcs/gcs_server",
}
"""What is killed, to what its command line holds."""

DYING = 90
"""Seconds in which the command must end, with a sentence, after its Ray was killed."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Kill what runs a sweep, and see that nothing is lost.")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the order and the moments of the kills")
    parser.add_argument("--seeds", type=int, default=1, help="of the sweep: more give more time to kill it in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:  # short: Ray's sockets are in it
        calm = Soak(Path(folder) / "calm", options.seeds)
        calm.start()
        calm.wait(3600)
        soak = Soak(Path(folder) / "soak", options.seeds)
        soak.disturb(options.kills, random.Random(options.seed))
        return soak.report(calm)


@dataclass
class Soak:
    """A sweep on a root, and what befell it."""

    folder: Path
    seeds: int
    begun: float = field(default_factory=time.monotonic)
    commands: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    done: dict[str, int] = field(default_factory=dict)
    """Steps that were ever seen finished, with the time of their SUCCESS."""
    seen: set[tuple[int, str]] = field(default_factory=set)
    """All processes that it had when something was killed, with their start."""
    faults: list[str] = field(default_factory=list)
    took: Counter[str] = field(default_factory=Counter)
    """Seconds from the kill of a raylet or GCS until the command had ended."""

    @property
    def root(self) -> Path:
        return self.folder / "runs"

    def start(self) -> None:
        self.commands += 1
        self.folder.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "raysslprune.sweep", "fig3", "--scale", "laptop", "--seeds", str(self.seeds)]
        with open(self.folder / f"{self.commands}.err", "w") as err, open(self.folder / "out", "w") as out:
            self.process = subprocess.Popen(
                [*command, "--root", str(self.root)],
                env={**os.environ, "RAY_TMPDIR": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return (self.folder / f"{self.commands}.err").read_text()

    def wait(self, seconds: float) -> int:
        """For the command to end. One that hangs is killed, and noted."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.faults.append(f"command {self.commands} did not end within {seconds:.0f} s")
            self.look()
            self.process.kill()
            return self.process.wait()
        if "Traceback" in self.said:
            self.faults.append(f"command {self.commands} ended with a traceback")
        return code

    def disturb(self, kills: int, rng: random.Random) -> None:
        """Kill so often, or until there is nothing left to do; and let the sweep end."""
        self.start()
        kinds = [kind for _ in range(-(-kills // len(KINDS))) for kind in KINDS][:kills]
        for kind in rng.sample(kinds, kills):  # as many of each
            if self.process.poll() is not None:
                self.start()
            victim = self.victim(kind, rng)
            if victim is None:
                break
            self.look()
            try:
                os.kill(victim, signal.SIGKILL)
            except ProcessLookupError:
                continue  # Tune ended this worker a moment ago
            self.kills[kind] += 1
            print(f"{time.monotonic() - self.begun:5.0f} s: {len(self.done)} steps done, {kind} killed", flush=True)
            if kind == "driver":
                self.process.wait()
            elif kind in ("raylet", "GCS"):
                since = time.monotonic()
                code, last = self.wait(DYING), self.said.splitlines()[-1]
                self.took[kind] += round(time.monotonic() - since)
                if code != 1 or not last.startswith(("raysslprune: Ray died", "raysslprune: can't start Ray")):
                    self.faults.append(f"command {self.commands} ended with code {code}: {last:.200}")
        if self.process.poll() is None:
            self.look()
            code = self.wait(3600)
        else:
            self.start()
            code = self.wait(3600)
        if code:
            self.faults.append(f"command {self.commands} ended with code {code}: {self.said[-200:]}")
        self.look()

    def victim(self, kind: str, rng: random.Random) -> int | None:
        """A process of that kind at some moment; None if the sweep ends first."""
        rest, more = rng.uniform(0, 3), len(done_steps(self.root)) + rng.randrange(4)
        early = kind == "driver" and rng.random() < 0.3  # while Ray starts, too
        found: list[int] = []

        def there() -> bool:
            nonlocal found
            names = {pid: name.split(" --")[0] for pid, name in descendants(self.process.pid)}
            working = any(name.startswith(KINDS["worker"]) for name in names.values())  # Ray has started
            named = [pid for pid, name in names.items() if working and KINDS[kind] in name]
            found = [self.process.pid] if kind == "driver" else named
            return self.process.poll() is not None or (bool(found) and (early or len(done_steps(self.root)) >= more))

        wait_until(there, 300)
        time.sleep(rest)
        if self.process.poll() is not None:
            if self.process.returncode:
                self.faults.append(f"command {self.commands} ended by itself: {self.said[-200:]}")
            return None
        there()
        return rng.choice(found) if found else None

    def look(self) -> None:
        """A finished step must stay as it is; and remember the processes."""
        now = done_steps(self.root)
        self.faults += [f"step {step} was lost or made again" for step, at in self.done.items() if now.get(step) != at]
        self.done |= now
        self.seen |= {(pid, begun(pid)) for pid, _ in descendants(self.process.pid)}

    @property
    def starts(self) -> Counter[str]:
        """How often each training was begun, from what the workers printed."""
        lines = (line for log in self.folder.glob("ray/session_2*/logs/worker-*.out") for line in _lines(log))
        return Counter(line.split(":")[0] for line in lines if line.split(":")[0] in self.done)

    def report(self, calm: Soak) -> int:
        """Print what happened. Gives the exit code."""
        for kind, name in (("file", "steps/*/*"), ("table", "results/laptop/fig3.parquet")):
            for path in calm.root.glob(name):
                other = self.root / path.relative_to(calm.root)
                if path.name != "SUCCESS" and (not other.is_file() or other.read_bytes() != path.read_bytes()):
                    self.faults.append(f"{kind} {path.relative_to(calm.root)} is missing or another")
        if done_steps(self.root).keys() != done_steps(calm.root).keys():
            self.faults.append("the steps are not those of the undisturbed sweep")
        left = self.left_over(60)
        self.faults += [f"process {name} is left over" for name in left]
        again = sum(count - 1 for count in self.starts.values())
        table = Table(show_header=False)
        killed = ", ".join(f"{self.kills[kind]} x {kind}" for kind in KINDS)
        for name, said in (
            ("kills", f"{self.kills.total()}: {killed}"),
            ("commands given", f"{self.commands}"),
            ("steps", f"{len(self.done)}, of which {len(self.starts)} trainings"),
            ("trainings begun again", f"{again}"),
            ("finished steps lost", f"{sum('was lost' in fault for fault in self.faults)}"),
            ("to end after Ray died", ", ".join(f"{self.took[k] / self.kills[k]:.0f} s ({k})" for k in self.took)),
            ("processes left", f"{len(left)}"),
            ("files that differ", f"{sum('or another' in fault for fault in self.faults)}"),
            ("time", f"{time.monotonic() - self.begun:.0f} s; undisturbed {self.begun - calm.begun:.0f} s"),
        ):
            table.add_row(name, said)
        console = Console(highlight=False)
        console.print(table)
        for fault in self.faults:
            console.print(fault, markup=False)
        if self.faults:
            kept = tempfile.mkdtemp(prefix="soak-kept-")
            without = shutil.ignore_patterns("sockets")
            shutil.copytree(self.folder, kept, symlinks=True, ignore=without, dirs_exist_ok=True)
            console.print(f"kept in {kept}")
        return 1 if self.faults else 0

    def left_over(self, seconds: float) -> list[str]:
        """Processes of it that are still there after so long."""
        end = time.monotonic() + seconds
        while (left := [pid for pid, at in self.seen if at and begun(pid) == at]) and time.monotonic() < end:
            time.sleep(1)
        return [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in left]


def begun(pid: int) -> str:
    """When a process began, in ticks since the machine did; '' if it is gone, or only its parent has not noticed."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if words[0] == "Z" else words[19]


def _lines(path: Path) -> Iterator[str]:
    with open(path, errors="replace") as file:
        yield from file


if __name__ == "__main__":
    sys.exit(main())
