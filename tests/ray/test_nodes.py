"""Nodes that join, die, or are unsuitable; workers that die, alone or with others that share their training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

import raysslprune
from raysslprune.cluster.tune import RETRIES
from tests.helpers.commands import (
    SHAREABLE,
    STARTED,
    SWEEP,
    Command,
    Finished,
    done_steps,
    finish,
    start,
    sweep,
    table_of,
)
from tests.helpers.processes import descendants, frozen_at_work, trials, wait_until

HELPER = """
import json, sys
from ray.cluster_utils import Cluster

cluster = Cluster()
for line in sys.stdin:
    variables = json.loads(line)
    gpus = int(variables.pop("GPUS", 0))
    node = cluster.add_node(num_cpus=1, num_gpus=gpus, include_dashboard=False, env_vars=variables)
    print(cluster.address, node.all_processes["raylet"][0].process.pid, node.node_id, flush=True)
cluster.shutdown()
"""
UNSHARE = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")


class Nodes:
    """Raylets on this machine, with one core each, as nodes; the first is the head."""

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
        """Add a node whose workers get these variables; GPUS is its number of GPUs. Return its raylet's process id."""
        assert self.helper.stdin
        assert self.helper.stdout
        print(json.dumps(environment), file=self.helper.stdin, flush=True)
        self.address, raylet, name = self.helper.stdout.readline().split()
        self.raylets.append(int(raylet))
        self.ids[int(raylet)] = name
        return int(raylet)

    def add_elsewhere(self, mount: str) -> subprocess.Popen[str]:
        """Add a node with its own mounts, made by the shell command ``mount``. Needs root."""
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

    def start(self, *arguments: str, cwd: Path | None = None, program: Sequence[str] = SWEEP) -> subprocess.Popen[str]:
        """Start the command, or another program, on these nodes."""
        environment = {"RAY_ADDRESS": self.address, "RAY_AUTH_MODE": "disabled"}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            return start(*arguments, cwd=cwd, program=program)


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    with ExitStack() as stack:
        yield Nodes(stack)


def drain(address: str, node: str) -> None:
    """As a cloud's notice that it will end a spot machine."""
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
    """Neither by a single worker nor by a team: torchrun's variables are in the environment of Ray's nodes."""
    (tmp_path / "launched.py").write_text(LAUNCHED)
    left = {"RANK": "1", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "127.0.0.1"}
    left |= {"GROUP_RANK": "0", "ROLE_RANK": "1", "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for _ in range(2):
        nodes.add(MASTER_PORT="29400", **left)
    done = finish(nodes.start("launched.py", "--scale", "smoke", "--workers-per-step", "2", cwd=tmp_path))
    assert done.code == 0, done.err
    assert len(pq.read_table(tmp_path / "runs/results/smoke/launched.parquet")) == 2


def kill_all(ancestor: int) -> None:
    """Kill a process and its descendants at once; for a raylet, as if its machine were taken away."""
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
    """Check for one sentence, no traceback, and no training."""
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
        ("mount -t tmpfs none {root}", "does not see the root {root} of this sweep; it must be shared"),
        (
            "mount -t tmpfs none {own} && mkdir {own}/up {own}/work && "
            "mount -t overlay -o lowerdir={root},upperdir={own}/up,workdir={own}/work none {root}",
            "does not write to the same {root} as this process; the root must be shared",
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


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine that can't compute on a GPU")
def test_a_node_whose_gpu_can_not_compute_is_named_before_it_trains(nodes: Nodes, tmp_path: Path) -> None:
    """On one machine by its first worker; on several before the sweep starts, where what has no GPU is not asked."""
    for gpus in ("1", "0"):
        nodes.add(GPUS=gpus)
        root = tmp_path / gpus
        result = finish(nodes.start("fig3", "--scale", "smoke", "--gpus-per-worker", "1", "--root", str(root)))
        complains(result, root, " can't compute on its GPU: ", f"(driver none; torch {torch.__version__}, built for ")
        assert "failed: " not in result.err


SLOW = """
import sys, time
from raysslprune import sweep
from raysslprune.cluster import nodes, tune

nodes.SILENT = 10.0
check = tune.check_nodes


def slow(*arguments, **more):
    check(*arguments, **more)
    time.sleep(13)


tune.check_nodes = slow
sys.exit(sweep.main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_slow_checks_of_nodes_are_not_taken_for_a_dead_ray(nodes: Nodes, tmp_path: Path) -> None:
    for _ in range(2):
        nodes.add()
    (tmp_path / "own.py").write_text(SHAREABLE)
    program = (sys.executable, "-c", SLOW)
    result = finish(nodes.start("own.py", "--scale", "smoke", cwd=tmp_path, program=program))
    assert result.code == 0, result.err


# ------------------------------------------------------------------------------------- several sweeps, and their slots


def at_once(err: str) -> int:
    """Return how many jobs were handed out at once, at most, by the lines of JSON of a sweep."""
    most, running = 0, 0
    for line in err.splitlines():
        event = json.loads(line)["event"] if line.startswith("{") else ""
        running += (event == "started") - (event in ("done", "failed", "lost"))
        most = max(most, running)
    return most


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_slots_bound_a_sweep_and_are_the_cores_of_an_own_ray(finished: Finished, nodes: Nodes, tmp_path: Path) -> None:
    """One of a cluster's two, and three on a Ray that the sweep starts, whatever this machine has."""
    for _ in range(2):
        nodes.add()
    for name, slots, begin in (("cluster", "1", nodes.start), ("own", "3", start)):
        root = tmp_path / name
        result = finish(begin("fig3", "--scale", "smoke", "--root", str(root), "--slots", slots, "--json-lines"))
        assert result.code == 0, result.err
        assert at_once(result.err) == int(slots)
        assert table_of(root) == finished.table


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_second_sweep_says_that_others_hold_the_cores(head: Nodes, tmp_path: Path) -> None:
    first = head.start("fig3", "--scale", "smoke", "--root", str(tmp_path / "first"))
    still = frozen_at_work(head.raylets[0])
    (tmp_path / "own.py").write_text(SHAREABLE)
    second = head.start("own.py", "--scale", "smoke", "--json-lines", cwd=tmp_path)
    try:
        assert second.stderr
        lines = (json.loads(line) for line in second.stderr)
        event = next(line for line in lines if line["event"] == "waiting")
        assert (event["for"], event["text"]) == (
            "cores",
            "waiting for cores: others hold the cluster's cores; `ray status` shows what is in use",
        )
    finally:
        os.kill(still, signal.SIGCONT)
    assert finish(first).code == 0
    assert finish(second).code == 0


EXCHANGE = """
import sys
import ray
from ray.exceptions import RayError
from raysslprune.cluster import shared

ray.init(address=sys.argv[1], log_to_driver=False)
context = ray.get_runtime_context()


def node_of(exchange):
    return ray.get(exchange.actor.__ray_call__.remote(lambda self: ray.get_runtime_context().get_node_id()))


print(*(node_of(shared.Exchange.start()) == context.get_node_id() for _ in range(6)), flush=True)


class Elsewhere:
    get_job_id = context.get_job_id
    get_node_id = staticmethod(lambda: sys.argv[2])


shared.ray.get_runtime_context = Elsewhere
exchange, get, failed = shared.Exchange.start(), ray.get, []
exchange.training()
print("started", flush=True)
sys.stdin.readline()


def noting(*arguments, **more):
    try:
        return get(*arguments, **more)
    except RayError as error:
        failed.append(error)
        raise


shared.ray.get = noting
found = [exchange.get("mask") for _ in range(100)]
print("\\nfound", found.count(None), len(failed), flush=True)
"""


@pytest.mark.slow
def test_the_exchange_is_on_the_drivers_node_and_calls_do_not_wait_for_one_that_is_gone(nodes: Nodes) -> None:
    """Started six times among three nodes; then on another node, which dies, so that it can't be restarted."""
    *_, doomed = nodes.add(), nodes.add(), nodes.add()
    program = subprocess.Popen(
        [sys.executable, "-c", EXCHANGE, nodes.address, nodes.ids[doomed]],
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    STARTED.append(program)
    assert program.stdout
    assert program.stdin
    assert program.stdout.readline().split() == ["True"] * 6
    assert program.stdout.readline() == "started\n"
    kill_all(doomed)
    out, _ = program.communicate("go\n", timeout=120)
    (found,) = (line for line in out.splitlines() if line.startswith("found "))  # Ray prints here, too
    assert found == "found 100 1", "only the first asked"


# ------------------------------------------------------------------------------------- steps that can never be held


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (("--gpus-per-worker", "1"), "a step needs 1 GPU and a core; this cluster has 0 GPUs and "),
        (("--workers-per-step", "64"), "a step needs 64 workers with a core each; this cluster has 0 GPUs and "),
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
    """Here by data that only a worker can't look for."""
    (tmp_path / "own.py").write_text(SHAREABLE.replace("digits", "probe:Source"))
    (tmp_path / "probe.py").write_text(PROBE.replace("if not (", "if not {True: 1}[fetch] and not ("))
    result = sweep("own.py", "--scale", "smoke", cwd=tmp_path)
    assert result.code == 1
    said = result.err.splitlines()
    assert said[-1].startswith("raysslprune: node ")
    assert said[-1].endswith(" can't start a worker: KeyError: False")
    assert "Traceback" not in result.err
    assert sum(line.startswith("lost: ") for line in said) == RETRIES
