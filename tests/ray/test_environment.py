"""The environment during and after a sweep, and a Ray that the program started itself."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import raysslprune

POINTS = """
from raysslprune.spec import Init, Recipe, Train
from raysslprune.sweepfile import Curve, Figure, Point

FIGURE = Figure(title="t", references=(Curve(task="a", init="b"),))


def points(scale, seed):
    recipe = Recipe(samples=64, batch=64, bn_batch=16, lr=0.05)
    step = Train(task="labels", data="digits", arch="conv4", recipe=recipe, seed=seed, start=Init(seed=seed))
    yield Point(step=step, task="a", init="b", level=1, seed=seed)
"""
COMMON = (
    POINTS
    + """
import json, logging, os, sys

def seen():
    loggers = {name: (logging.getLogger(name).level, len(logging.getLogger(name).handlers)) for name in ("", "ray")}
    return dict(os.environ), loggers

def run(name):
    from raysslprune.experiment import Experiment
    one = Experiment.of(points, FIGURE, name="own", scale="smoke", root=f"{sys.argv[1]}/{name}", data=sys.argv[1])
    one.run()
    return len(one.table())
"""
)
BEFORE = (
    COMMON
    + """
import ray
ray.init(**json.loads(sys.argv[2]))

@ray.remote(num_cpus=0)
class Mine:
    def who(self):
        return os.getpid()

mine = Mine.remote()
pid, before = ray.get(mine.who.remote()), seen()
import raysslprune.experiment
rows = [run("first"), run("second")]
facts = {"rows": rows, "same": seen() == before, "up": ray.is_initialized(), "mine": ray.get(mine.who.remote()) == pid}
print(json.dumps(facts))
"""
)
INTERRUPTED = (
    COMMON.replace("samples=64", "samples=64_000_000")
    + """
import signal, threading, time
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False)

def until(free, seconds):
    end = time.monotonic() + seconds
    while (ray.available_resources().get("CPU") == 2) != free and time.monotonic() < end:
        time.sleep(0.2)
    return ray.available_resources().get("CPU") == 2

def stop():
    until(False, 100)
    os.kill(os.getpid(), signal.SIGINT)

threading.Thread(target=stop, daemon=True).start()
kept = None
try:
    run("first")
except BaseException as error:
    kept = error  # as a notebook keeps it, with all that its frames hold
print(json.dumps({"stopped": type(kept).__name__, "free": until(True, 20), "up": ray.is_initialized()}))
"""
)
AFTER = (
    COMMON
    + """
before = dict(os.environ)
if sys.argv[2] == "with":
    import raysslprune.experiment
    run("first")
    assert dict(os.environ) == before, set(os.environ.items()) ^ set(before.items())
import ray
ray.init(address="local", num_cpus=1, include_dashboard=False)
where = ray.nodes()[0]
os.environ.pop("RAY_CLIENT_MODE", None)  # set when Ray is imported, which the sweep may have done
changes = {name: value for name, value in os.environ.items() if before.get(name) != value}
level = logging.getLogger("ray").level
ray.shutdown()
print(json.dumps({"changes": changes, "address": where["NodeManagerAddress"], "level": level}))
"""
)


def program(source: str, *arguments: str, home: Path, **environment: str) -> dict[str, Any]:
    """Run a program in a new home; return the JSON in its last line."""
    home.mkdir()
    given = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    given |= {"HOME": str(home), "RAY_worker_niceness": "0", **environment}
    done = subprocess.run(
        [sys.executable, "-c", source, *arguments], env=given, cwd=home, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    return next(json.loads(line) for line in reversed(done.stdout.splitlines()) if line.startswith("{"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_rays_program_keeps_it(tmp_path: Path) -> None:
    """Twice in a row, without a new Ray; the program's other work on its Ray continues."""
    how = json.dumps({"address": "local", "num_cpus": 2, "include_dashboard": False, "namespace": "mine"})
    found = program(BEFORE, str(tmp_path), how, home=tmp_path / "home")
    assert found == {"rows": [1, 1], "same": True, "up": True, "mine": True}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_interrupted_sweep_leaves_no_worker_on_a_ray_that_goes_on(tmp_path: Path) -> None:
    found = program(INTERRUPTED, str(tmp_path), home=tmp_path / "home")
    assert found == {"stopped": "KeyboardInterrupt", "free": True, "up": True}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_later_ray_of_the_program_is_as_without_a_sweep(tmp_path: Path) -> None:
    """Compared with the same program without this package; the sweep itself writes no token."""
    shared = {"RAY_ADDRESS": "", "TMPDIR": str(tmp_path / "Münch" / ("x" * 60))}
    Path(shared["TMPDIR"]).mkdir(parents=True)
    shared["RAY_TMPDIR"] = "/tmp"
    without = program(AFTER, str(tmp_path), "without", home=tmp_path / "without", **shared)
    found = program(AFTER, str(tmp_path), "with", home=tmp_path / "with", **shared)
    assert found == without
    tokens = [(tmp_path / which / ".ray/auth_token").exists() for which in ("with", "without")]
    assert tokens[0] == tokens[1]


def closed(path: Path) -> Path | None:
    """Return the outermost folder above a path that other users can't enter, None if there is none."""
    return next((folder for folder in reversed(path.parents) if folder.stat().st_mode & 0o005 != 0o005), None)


def as_another_user(command: list[str], user: int, needed: Iterable[Path], aside: Path) -> list[str]:
    """Return the command that runs this one as another user, who can read the needed folders where they are.

    Each closed folder above them, such as root's home, is covered by an empty open one, in which only they are mounted,
    in a mount namespace of the command's own. aside: an empty folder to keep them in meanwhile.
    """
    command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *command]
    covers = {path: folder for path in sorted(needed) if (folder := closed(path))}
    if not covers:
        return command
    kept = [(str(path), str(aside / str(number))) for number, path in enumerate(covers)]
    lines = [
        "mount --make-rprivate /",
        *(f"mkdir {place} && mount --bind {shlex.quote(path)} {place}" for path, place in kept),
        *(f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(folder))}" for folder in sorted({*covers.values()})),
        *(f"mkdir -p {shlex.quote(path)} && mount --bind {place} {shlex.quote(path)}" for path, place in kept),
        f"exec {shlex.join(command)}",
    ]
    return ["unshare", "--mount", "bash", "-ec", "\n".join(lines)]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_users_with_one_temporary_folder_are_in_nobodys_way(tmp_path: Path) -> None:
    """One owns ``ray`` in TMPDIR; the other's sweep runs, and writes nothing there."""
    if os.geteuid() or not shutil.which("setpriv") or not shutil.which("unshare"):
        pytest.skip("needs root, setpriv and unshare")
    user = 65534
    package = Path(raysslprune.__file__).parent
    needed = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parent.parent}
    needed |= {package, *package.parent.glob("sweeps")}
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for own in (folder / "home", folder / "tmp"):
            own.mkdir()
            os.chown(own, user, user)
        (folder / "aside").mkdir()
        (folder / "tmp/ray").mkdir()  # as root has begun a Ray there
        (folder / "home/own.py").write_text(POINTS)
        given = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "XDG_"))}
        given |= {"HOME": f"{folder}/home", "TMPDIR": f"{folder}/tmp", "RAY_worker_niceness": "0"}
        command = [sys.executable, "-m", "raysslprune.sweep", "own.py", "--scale", "smoke"]
        command = as_another_user(command, user, needed, folder / "aside")
        done = subprocess.run(command, env=given, cwd=folder / "home", capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        assert (folder / "home/runs/results/smoke/own.parquet").stat().st_uid == user
        assert not (folder / "home/.ray").exists()
        assert list((folder / "tmp/ray").iterdir()) == []
