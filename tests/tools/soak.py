"""Kill what runs a sweep, again and again at random, and see that nothing is lost.

    python -m tests.tools.soak --kills 30 --seed 0
    python -m tests.tools.soak --kills 30 --seed 0 --seeds 2 --hosts

Each kill is a SIGKILL of the driver, a worker, the exchange, the raylet or the GCS of a sweep on this machine's own
Ray; the command is given again whenever it ended. With --hosts the sweep runs on a cluster of three hosts in
namespaces, of which one vanishes now and then and comes back, and the driver gets other signals, too. At the end all
that the sweep left must be, bit for bit, what an undisturbed one on this machine leaves. Exit code 1 if anything is
not. Takes about 40 s a kill on two cores.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from raysslprune.messages import FAILED
from raysslprune.store.steps import Store
from tests.helpers.commands import done_steps
from tests.helpers.hosts import missing
from tests.helpers.processes import wait_until
from tests.tools.soak_places import DRIVER, WORKER, OwnRay, place

ACTORS = (WORKER, OwnRay.kinds["exchange"])

DYING = 180
"""Seconds in which the command must end, with a sentence, after its Ray was killed, or after a signal."""

ENDING = 60.0
"""Seconds in which all processes must end after the last command, and again after its Ray was stopped."""

ENDS = ("raysslprune: Ray died", "raysslprune: can't start Ray", "raysslprune: can't reach the Ray cluster")
"""How the last line of a command begins whose Ray was killed."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Kill what runs a sweep, and see that nothing is lost.")
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0, help="of the order and the moments of the kills")
    parser.add_argument("--seeds", type=int, default=1, help="of the sweep: more give more time to kill it in")
    parser.add_argument("--calm", type=Path, metavar="ROOT", help="an undisturbed sweep's root, to make none")
    parser.add_argument("--hosts", action="store_true", help="run the sweep on three hosts; needs Linux and root")
    options = parser.parse_args(arguments)
    if options.hosts and (why := missing()):
        parser.error(why)
    # a shell's background jobs ignore Ctrl-C, and so their children
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:  # short: Ray's sockets are in it
        calm = options.calm or undisturbed(Path(folder) / "calm", options.seeds)
        with place(Path(folder) / "soak", options.hosts) as where:
            soak = Soak(where, options.seeds)
            soak.disturb(options.kills, random.Random(options.seed))
            return soak.report(calm)


def undisturbed(folder: Path, seeds: int) -> Path:
    """Run the sweep to its end on this machine; return its root."""
    calm = Soak(OwnRay(folder), seeds)
    calm.start()
    code = calm.wait(3600)
    if code:
        raise SystemExit(f"the undisturbed sweep ended with code {code}: {calm.said[-200:]}")
    print(f"undisturbed: {calm.lasted:.0f} s", flush=True)
    return calm.root


@dataclass
class Soak:
    """A sweep on a root, and what befell it."""

    place: OwnRay
    seeds: int
    begun: float = field(default_factory=time.monotonic)
    lasted: float = 0
    """Seconds until the last command had ended."""
    commands: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    done: dict[str, int] = field(default_factory=dict)
    """Steps that were ever seen finished, with the time of their SUCCESS."""
    seen: set[tuple[int, str]] = field(default_factory=set)
    """All processes that it had when something was killed, with their start."""
    faults: list[str] = field(default_factory=list)
    took: Counter[str] = field(default_factory=Counter)
    """Seconds from a kill that ended Ray until the command had ended."""
    ended: Counter[str] = field(default_factory=Counter)
    """Kills that ended Ray."""
    moments: list[tuple[float, str]] = field(default_factory=list)
    """When what was killed, by the clock of the root's files."""
    may_lose: int = 0
    """Trainings that the kills may have cost at most."""

    @property
    def folder(self) -> Path:
        return self.place.folder

    @property
    def root(self) -> Path:
        return self.folder / "runs"

    def start(self) -> None:
        self.commands += 1
        self.folder.mkdir(exist_ok=True)
        sweep = ["-m", "raysslprune.sweep", "fig3", "--scale", "laptop", "--seeds", str(self.seeds)]
        self.process = self.place.start(sweep, self.root, self.folder / f"{self.commands}.err")
        # on a cluster, workers of the command before may still be ending
        self.stale = {pid for pid, name in self.place.processes(self.process).items() if name.startswith(ACTORS)}

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
        self.lasted = time.monotonic() - self.begun
        if "Traceback" in self.said:
            self.faults.append(f"command {self.commands} ended with a traceback")
        return code

    def disturb(self, kills: int, rng: random.Random) -> None:
        """Kill so often, or until there is nothing left to do; and let the sweep end."""
        self.start()
        kinds = [kind for _ in range(-(-kills // len(self.place.kinds))) for kind in self.place.kinds][:kills]
        for kind in rng.sample(kinds, kills):  # as many of each
            while (hit := self.hit(kind, rng)) is None:
                pass  # Tune ended this worker a moment ago
            if not hit:
                self.faults.append(f"all was done after {self.kills.total()} kills: give the sweep more --seeds")
                break
        if self.process.poll() is None:
            self.look()
            code = self.wait(3600)
        else:
            self.start()
            code = self.wait(3600)
        if code:
            self.faults.append(f"command {self.commands} ended with code {code}: {self.said[-200:]}")
        self.look()

    def hit(self, kind: str, rng: random.Random) -> bool | None:
        """Kill once, and bring back what was killed. False if nothing is left to do; None if the victim was gone."""
        if self.process.poll() is not None:
            self.start()
        victim = self.victim(kind, rng)
        if victim is None:
            return False
        self.look()
        moment, since = time.time(), time.monotonic()
        try:
            self.place.kill(kind, victim)
        except ProcessLookupError:
            return None
        self.kills[kind] += 1
        self.moments.append((moment, kind))
        self.may_lose += self.place.loses(kind)
        print(f"{since - self.begun:5.0f} s: {len(self.done)} steps done, {kind} killed", flush=True)
        self.expect_end(kind, since)
        self.place.mend(kind)
        return True

    def expect_end(self, kind: str, since: float) -> None:
        """Wait for the end of the command if this kill must end it, and check how it ends."""
        if self.place.ends_driver(kind):
            code, signalled = self.wait(DYING), kind in DRIVER and DRIVER[kind] != signal.SIGKILL
            if signalled and code != 128 + DRIVER[kind]:
                self.faults.append(f"command {self.commands} ended with code {code} after {kind}: {self.said[-200:]}")
        elif self.place.ends_ray(kind):
            code, last = self.wait(DYING), self.said.splitlines()[-1]
            self.ended[kind] += 1
            self.took[kind] += round(time.monotonic() - since)
            # the last trainings may have ended before it was seen that Ray is dead
            if code and (code != FAILED or not last.startswith(ENDS)):
                self.faults.append(f"command {self.commands} ended with code {code}: {last:.200}")

    def victim(self, kind: str, rng: random.Random) -> int | None:
        """A process of that kind at some moment; None if the sweep ends first."""
        rest, more = rng.uniform(0, 3), len(done_steps(self.root)) + rng.randrange(4)
        early = kind == "driver" and rng.random() < 0.3  # while Ray starts, too
        found: list[int] = []

        def there() -> bool:
            nonlocal found
            names = self.place.processes(self.process)
            names = {pid: name for pid, name in names.items() if pid not in self.stale}
            working = any(name.startswith(WORKER) for name in names.values())  # Ray has started
            found = self.place.victims(kind, self.process, names) if working or kind == "driver" else []
            return self.process.poll() is not None or (bool(found) and (early or len(done_steps(self.root)) >= more))

        wait_until(there, 900)
        time.sleep(rest)
        wait_until(there, 900)  # what was there may have ended meanwhile
        if self.process.poll() is None:
            return rng.choice(found)
        if self.process.returncode:
            self.faults.append(f"command {self.commands} ended by itself: {self.said[-200:]}")
        return None

    def look(self) -> None:
        """A finished step must stay as it is; and remember the processes."""
        now = done_steps(self.root)
        self.faults += [f"step {step} was lost or made again" for step, at in self.done.items() if now.get(step) != at]
        self.done |= now
        self.seen |= {(pid, begun(pid)) for pid in self.place.processes(self.process)}

    @property
    def starts(self) -> Counter[str]:
        """How often each training was begun, from what the workers printed."""
        lines = (line for log in self.place.logs() for line in _lines(log))
        return Counter(line.split(":")[0] for line in lines if line.split(":")[0] in self.done)

    def report(self, calm: Path) -> int:
        """Print what happened. Gives the exit code."""
        for kind, name in (("file", "steps/*/*"), ("table", "results/laptop/fig3.parquet")):
            for path in calm.glob(name):
                other = self.root / path.relative_to(calm)
                if path.name != "SUCCESS" and (not other.is_file() or other.read_bytes() != path.read_bytes()):
                    self.faults.append(f"{kind} {path.relative_to(calm)} is missing or another")
        if done_steps(self.root).keys() != done_steps(calm).keys():
            self.faults.append("the steps are not those of the undisturbed sweep")
        if not self.starts:
            self.faults.append("no log says which trainings were begun")
        again = sum(count - 1 for count in self.starts.values())
        if again > self.may_lose:
            self.faults.append(f"{again} trainings were begun again, and the kills can have cost {self.may_lose}")
        left = self.left_over(ENDING)
        self.faults += [f"process {name} is left over" for name in left]
        if holds := self.still_held():
            self.faults.append(holds)
        table = Table(show_header=False)
        killed = ", ".join(f"{self.kills[kind]} x {kind}" for kind in self.place.kinds)
        for name, said in (
            ("kills", f"{self.kills.total()}: {killed}"),
            ("commands given", f"{self.commands}"),
            ("steps", f"{len(self.done)}, of which {len(self.starts)} trainings"),
            ("trainings begun again", f"{again}; the kills can have cost {self.may_lose}"),
            ("finished steps lost", f"{sum('was lost or' in fault for fault in self.faults)}"),
            ("to end after Ray died", ", ".join(f"{self.took[k] / self.ended[k]:.0f} s ({k})" for k in self.took)),
            ("to the next finished step", ", ".join(f"{mean:.0f} s ({kind})" for kind, mean in self.gaps().items())),
            ("processes left", f"{len(left)}"),
            ("files that differ", f"{sum('or another' in fault for fault in self.faults)}"),
            ("time", f"{self.lasted:.0f} s"),
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

    def gaps(self) -> dict[str, float]:
        """Mean seconds from a kill to the next finished step, by kind; steps end all the time without kills, too."""
        ends = sorted(at / 1e9 for at in self.done.values())
        each: dict[str, list[float]] = {}
        for moment, kind in self.moments:
            if after := [end - moment for end in ends if end > moment]:
                each.setdefault(kind, []).append(min(after))
        return {kind: statistics.mean(each[kind]) for kind in self.place.kinds if kind in each}

    def still_held(self) -> str:
        """Say who holds the root's lock after the end; '' if nobody does."""
        holder, alive = Store(str(self.root)).holder()
        return f"the root is still held by {holder}" if alive or holder else ""

    def left_over(self, seconds: float) -> list[str]:
        """Processes of it that are still there after so long: first its own, then all if Ray, too, is stopped."""
        end = time.monotonic() + seconds
        while (left := self.actors()) and time.monotonic() < end:
            time.sleep(1)
        self.place.stop()
        end = time.monotonic() + seconds
        while (ours := [pid for pid, at in self.seen if at and begun(pid) == at]) and time.monotonic() < end:
            time.sleep(1)
        lines = [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ") for pid in ours]
        return list(dict.fromkeys([*left, *lines, *self.place.outlived()]))

    def actors(self) -> list[str]:
        """Workers and exchanges of any of its commands that are there now."""
        return [name for name in self.place.processes(self.process).values() if name.startswith(ACTORS)]


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
