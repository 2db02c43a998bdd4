"""Nodes that come, die, or can't do it; workers that die, alone or with others that share their training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysslprune
from raysslprune.cluster.tune import RETRIES
from tests.helpers.commands import SHAREABLE, Command, Finished, done_steps, finish, start, sweep, table_of
from tests.helpers.processes import descendants, frozen_at_work, trials, wait_until

HELPER = """
import json, sys
from ray.cluster_utils import Cluster

cluster = Cluster()
for line in sys.stdin:
    node = cluster.add_node(num_cpus=1, include_dashboard=False, env_vars=json.loads(line))
    print(cluster.address, node.all_processes["raylet"][0].process.pid, node.node_id, flush=True)
cluster.shutdown()
"""
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")


class Nodes:
    """Raylets on this machine, of one core each, that take themselves for nodes; the head is the first."""

    def __init__(self, stack: ExitStack) -> None:
        self.stack = stack
        self.helper = subprocess.Popen(
            [sys.executable, "-c", HELPER],
            env={**os.environ, "RAY_AUTH_MODE": "disabled"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        stack.callback(self.end)
        self.raylets: list[int] = []
        self.ids: dict[int, str] = {}
        """Ray's names of nodes, by their raylets."""

    def end(self) -> None:
        try:
            self.helper.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.helper.kill()
            self.helper.communicate()

    def add(self, **environment: str) -> int:
        """A node, which hands these variables on to its workers. Gives its raylet's process id."""
        assert self.helper.stdin
        assert self.helper.stdout
        print(json.dumps(environment), file=self.helper.stdin, flush=True)
        self.address, raylet, name = self.helper.stdout.readline().split()
        self.raylets.append(int(raylet))
        self.ids[int(raylet)] = name
        return int(raylet)

    def add_elsewhere(self, mount: str) -> subprocess.Popen[str]:
        """A node with a file system of its own, in which the shell command ``mount`` is run. Needs root."""
        command = f"mount --make-rprivate / && {mount} && exec {sys.executable} -m ray.scripts.scripts start"
        process = subprocess.Popen(
            [*UNSHARE, "--kill-child", "bash", "-c", f"{command} --address={self.address} --num-cpus=1 --block"],
            env={**os.environ, "RAY_AUTH_MODE": "disabled"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout
        said = ""
        for line in process.stdout:
            said += line
            if "Ray runtime started" in line:
                return process
        raise OSError(said)

    def start(self, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """The command, on these nodes."""
        environment = {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            return start(*arguments, cwd=cwd)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(stack)


def drain(address: str, node: str) -> None:
    """What a cloud's notice of a spot machine's end becomes."""
    reason = (
        "--reason",
        "DRAIN_NODE_REASON_PREEMPTION",
        "--reason-message",
        "spot",
        "--deadline-remaining-seconds",
        "1",
    )
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", address, "--node-id", node]
    subprocess.run(
        [*command, *reason], check=True, capture_output=True, env={**os.environ, "RAY_AUTH_MODE": "disabled"}
    )


LAUNCHED = """
from raysslprune.spec import Init, Recipe, Train
from raysslprune.sweepfile import Curve, Figure, Point

FIGURE = Figure(title="t", references=(Curve(task="a", init="b"),))


def points(scale, seed):
    for level, part in ((1, 64), (2, 32)):  # the second is shared by two workers
        recipe = Recipe(samples=128, batch=64, bn_batch=part, lr=0.05)
        step = Train(task="labels", data="digits", arch="conv4", recipe=recipe, seed=seed, start=Init(seed=seed))
        yield Point(step=step, task="a", init="b", level=level, seed=seed)
"""


# ------------------------------------------------------------------------------------- nodes


@pytest.mark.slow
def test_what_launched_a_node_is_not_taken_for_a_team(nodes: Nodes, tmp_path: Path) -> None:
    """Neither by who trains alone nor by a team: torchrun's variables are in the environment of Ray's nodes."""
    (tmp_path / "launched.py").write_text(LAUNCHED)
    left = {"RANK": "1", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "127.0.0.1"}
    left |= {"GROUP_RANK": "0", "ROLE_RANK": "1", "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for _ in range(2):
        nodes.add(MASTER_PORT="29400", **left)
    done = finish(nodes.start("launched.py", "--scale", "smoke", "--workers-per-step", "2", cwd=tmp_path))
    assert done.code == 0, done.err
    assert len(pq.read_table(tmp_path / "runs/results/smoke/launched.parquet")) == 2


def kill_all(ancestor: int) -> None:
    """A process and all that it started at once: of a raylet, as when its machine is taken away."""
    for pid in (ancestor, *(pid for pid, _ in descendants(ancestor))):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("notice", [False, True], ids=["without notice", "after a notice"])
def test_a_node_dies_another_joins_and_the_table_is_the_same(
    notice: bool, finished: Finished, nodes: Nodes, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    *others, doomed = nodes.add(), nodes.add(), nodes.add()
    process = nodes.start("fig3", "--scale", "smoke", "--root", str(root))
    wait_until(lambda: len(done_steps(root)) >= 2)
    frozen_at_work(doomed)
    stopped = [frozen_at_work(other) for other in others]  # so that all is for the new one to do
    if notice:
        drain(nodes.address, nodes.ids[doomed])
    kill_all(doomed)
    before = done_steps(root)
    new = nodes.add()
    wait_until(lambda: bool(trials(new, busy=True)) or process.poll() is not None)
    assert process.poll() is None, "the sweep did not wait for its node that stands still"
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    result = finish(process)
    assert result.code == 0, result.err
    assert "failed" not in result.err
    assert sum(line.startswith("lost: ") for line in result.err.splitlines()) == 1
    assert "a process died 1 time; " in result.err
    assert before.items() <= done_steps(root).items()
    assert table_of(root) == finished.table


def complains(result: Command, root: Path, *parts: str) -> None:
    """One sentence, no traceback, and nothing was trained."""
    assert result.code == 1
    said = result.err.splitlines()[-1]
    assert said.startswith("raysslprune: node "), result.err
    for part in parts:
        assert part in said
    assert "Traceback" not in result.err
    assert done_steps(root) == {}
    assert sorted(path.name for path in root.iterdir() if path.name.startswith("probe")) == []


@pytest.fixture(scope="module")
def head() -> Iterator[Nodes]:
    """A cluster of one good node."""
    with ExitStack() as stack:
        nodes = Nodes(stack)
        nodes.add()
        yield nodes


in_namespaces = pytest.mark.skipif(
    sys.platform != "linux"
    or os.geteuid() != 0
    or not shutil.which("unshare")
    or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0,
    reason="a node with a file system of its own needs Linux, root, and namespaces",
)


@pytest.mark.slow
@in_namespaces
@pytest.mark.parametrize(
    ("mount", "sentence"),
    [
        ("mount -t tmpfs none {root}", "does not see the root {root} of this sweep there; it must be shared"),
        (
            "mount -t tmpfs none {own} && mkdir {own}/up {own}/work && "
            "mount -t overlay -o lowerdir={root},upperdir={own}/up,workdir={own}/work none {root}",
            "writes to another {root} than this process; the root must be shared",
        ),
        ("mount -t tmpfs none {data}", "lacks data: "),
    ],
    ids=["another folder", "a copy", "no data"],
)
def test_a_node_with_other_folders_is_named(mount: str, sentence: str, head: Nodes, tmp_path: Path) -> None:
    folders = {name: tmp_path / name for name in ("root", "own", "data")}
    for folder in folders.values():
        folder.mkdir()
    (tmp_path / "own.py").write_text(SHAREABLE.replace("digits", "probe:Source"))
    (tmp_path / "probe.py").write_text(PROBE)
    (folders["data"] / "there").touch()
    node = head.add_elsewhere(mount.format(**folders))
    try:
        command = ("own.py", "--scale", "smoke", "--root", str(folders["root"]), "--data", str(folders["data"]))
        began = time.monotonic()
        result = finish(head.start(*command, cwd=tmp_path))
        complains(result, folders["root"], sentence.format(**folders))
        assert time.monotonic() - began < 60
    finally:
        node.kill()
        node.communicate()


PROBE = """
from raysslprune.data import DataError, source


class Source:
    def __init__(self, argument): ...

    def locate(self, root, fetch=False):
        if not (root / "there").exists():
            raise DataError(f"nothing is under {root}")

    def load(self, root):
        return source("digits").load(root)
"""


def another_version(folder: Path) -> None:
    here = Path(raysslprune.__file__)
    shutil.copytree(here.parent, folder / "raysslprune", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "raysslprune" / here.name).write_text(here.read_text().replace(raysslprune.__version__, "9.9"))


def no_package(folder: Path) -> None:
    made = folder / "raysslprune"
    made.mkdir()
    (made / "__init__.py").write_text("raise ImportError('it is not whole')")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [(another_version, "has raysslprune 9.9, not "), (no_package, "can't run raysslprune: ")],
    ids=["another version", "no package"],
)
def test_a_node_with_another_installation_is_named(
    spoil: Callable[[Path], None], sentence: str, head: Nodes, tmp_path: Path
) -> None:
    (tmp_path / "site").mkdir()
    spoil(tmp_path / "site")
    raylet = head.add(PYTHONPATH=str(tmp_path / "site"))
    try:
        root = tmp_path / "runs"
        complains(finish(head.start("fig3", "--scale", "smoke", "--root", str(root), cwd=tmp_path)), root, sentence)
    finally:
        kill_all(raylet)


@pytest.mark.slow
def test_one_that_joins_late_ends_the_sweep_and_what_is_finished_stays(head: Nodes, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    (tmp_path / "site").mkdir()
    another_version(tmp_path / "site")
    process = head.start("fig3", "--scale", "smoke", "--root", str(root), cwd=tmp_path)
    wait_until(lambda: len(done_steps(root)) >= 2)
    still = frozen_at_work(head.raylets[0])
    raylet = head.add(PYTHONPATH=str(tmp_path / "site"))
    try:
        wait_until(lambda: process.poll() is not None, 150)
    finally:
        kill_all(still)
        kill_all(raylet)
    result = finish(process)
    assert result.code == 1
    said = result.err.splitlines()[-1]
    assert said.startswith("raysslprune: node ")
    assert "has raysslprune 9.9, not " in said
    assert "Traceback" not in result.err
    assert "failed: " not in result.err
    assert len(done_steps(root)) >= 2


# ------------------------------------------------------------------------------------- steps that can never be held


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--gpus-per-worker", "1"), "a step wants 1 GPU and a core; this cluster has 0 GPUs and "),
        (("--workers-per-step", "64"), "a step wants 64 workers with a core each; this cluster has 0 GPUs and "),
    ],
)
def test_a_step_that_the_cluster_can_never_hold(
    option: tuple[str, str], sentence: str, head: Nodes, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(SHAREABLE.replace("bn_batch=16, batch=64", "bn_batch=2, batch=128"))
    began = time.monotonic()
    result = finish(head.start("own.py", "--scale", "smoke", *option, cwd=tmp_path))
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith(f"raysslprune: {sentence}")
    assert "Traceback" not in result.err
    assert done_steps(tmp_path / "runs") == {}
    assert time.monotonic() - began < 60


def test_a_worker_that_can_not_start_is_told_in_one_sentence(tmp_path: Path) -> None:
    """Here: by data that only a worker can't look for."""
    (tmp_path / "own.py").write_text(SHAREABLE.replace("digits", "probe:Source"))
    (tmp_path / "probe.py").write_text(PROBE.replace("if not (", "if not {True: 1}[fetch] and not ("))
    result = sweep("own.py", "--scale", "smoke", cwd=tmp_path)
    assert result.code == 1
    said = result.err.splitlines()
    assert said[-1].startswith("raysslprune: node ")
    assert said[-1].endswith(" can't start a worker: KeyError: False")
    assert "Traceback" not in result.err
    assert sum(line.startswith("lost: ") for line in said) == RETRIES
