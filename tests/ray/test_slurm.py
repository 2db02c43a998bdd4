"""deploy/slurm.sbatch: under a real Slurm on three hosts, and quickly with stand-ins for Slurm and Ray."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysslprune.sweep
from tests.helpers import CHECKOUT
from tests.helpers.commands import Finished, done_steps, table_of
from tests.helpers.hosts import SHARED, Host, hosts, missing, wait

SCRIPT = CHECKOUT / "deploy/slurm.sbatch"

# ------------------------------------------------------------------------------------- with stand-ins

SRUN = """#!{python}
import os, signal, subprocess, sys, time

arguments, options = sys.argv[1:], []
while arguments[0].startswith("--"):
    options.append(arguments.pop(0))
nodes = int(os.environ["SLURM_JOB_NUM_NODES"])
if arguments[0] in ("mkdir", "rm"):
    sys.exit(subprocess.run(arguments).returncode)
assert options == ["--kill-on-bad-exit=1"] * (nodes > 1) + ["--cpus-per-task=2"], options
tasks = [
    subprocess.Popen(arguments, env={{**os.environ, "SLURM_PROCID": str(rank)}}, start_new_session=True)
    for rank in range(nodes)
]
while all(task.poll() in (None, 0) for task in tasks) and any(task.poll() is None for task in tasks):
    time.sleep(0.05)
for task in tasks:
    if task.poll() is None:
        os.killpg(task.pid, signal.SIGTERM)
sys.exit(max(code if (code := task.wait()) >= 0 else 128 - code for task in tasks))
"""
"""As srun: the first task that fails ends the others by SIGTERM, and the highest code is returned."""

RAY = """#!{python}
import os, subprocess, sys, time

assert sys.argv[1] == "symmetric-run"
options, command = sys.argv[2 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
assert options[:5] == ["--address", "127.0.0.1:20007", "--min-nodes", "3", "--num-cpus=2"], options
assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
assert os.path.isdir(os.environ["RAY_TMPDIR"])
print("Send termination request to a command line", flush=True)
if os.environ["SLURM_PROCID"] == "0":
    sys.exit(subprocess.run(command).returncode)
time.sleep(600)
"""

PYTHON = """#!/bin/sh
echo "$@" >> calls
echo to stdout
echo to stderr >&2
test -z "$SIGNAL" || kill -USR1 $(cat pid)
exit $CODE
"""
"""With SIGNAL the time limit comes while the sweep runs."""

SCONTROL = """#!/bin/sh
test "$1" = requeue && echo "$@" >> requeued || printf 'localhost\\nother\\n'
"""


def run_with_stand_ins(
    folder: Path, nodes: int, code: int, *arguments: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """Run the script as Slurm would on its first node. code: what the sweep returns. more: variables of the job."""
    for name, text in (("srun", SRUN), ("ray", RAY), ("python", PYTHON), ("scontrol", SCONTROL)):
        (folder / name).write_text(text.format(python=sys.executable) if name in ("srun", "ray") else text)
        (folder / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_ID": "40007", "SLURM_JOB_NUM_NODES": str(nodes)}
    cores = {"SLURM_JOB_CPUS_PER_NODE": "16(x2),2"}  # no --cpus-per-task: as many as the smallest node has
    path = {"PATH": f"{folder}:{sys.prefix}/bin:{os.environ['PATH']}"}
    environment = {**os.environ, **job, **cores, **path, "CODE": str(code), **more}
    return subprocess.run(
        ["bash", "-c", 'echo $$ > pid; exec bash "$@"', "-", SCRIPT, "fig3", "--root", "/shared/my runs", *arguments],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def options_of(folder: Path) -> argparse.Namespace:
    """Parse the call of the sweep as the sweep does."""
    (call,) = (folder / "calls").read_text().splitlines()
    return raysslprune.sweep._parser().parse_args(call.replace("my runs", "my_runs").split()[2:])


@pytest.mark.parametrize("code", [0, 1, 2, 75])
@pytest.mark.parametrize(
    ("nodes", "more"), [(1, "--address local --slots 2 --wait"), (3, "--address 127.0.0.1:20007 --wait")]
)
def test_the_exit_code_of_a_sweep_is_that_of_the_job(nodes: int, more: str, code: int, tmp_path: Path) -> None:
    done = run_with_stand_ins(tmp_path, nodes, code)
    assert done.returncode == code, done.stderr
    assert (tmp_path / "calls").read_text() == f"-m raysslprune.sweep {more} fig3 --root /shared/my runs\n"
    assert options_of(tmp_path).sweeps == ["fig3"]
    assert done.stdout == "to stdout\n"
    assert "to stderr\n" in done.stderr
    assert "termination" not in done.stderr
    assert (f"ended with exit code {code}; " in done.stderr) == (nodes > 1)
    of_ray = {"raysslprune-40007.ray"} if nodes > 1 else set[str]()
    stand_ins = {"calls", "pid", "srun", "ray", "python", "scontrol"}
    assert {path.name for path in tmp_path.iterdir()} == stand_ins | of_ray
    for name in of_ray:
        assert set((tmp_path / name).read_text().splitlines()) == {"Send termination request to a command line"}
    assert not Path("/tmp/ray-40007").exists()


@pytest.mark.parametrize("nodes", [1, 3])
def test_cpus_per_task_says_how_many_cores_of_a_node_are_used(nodes: int, tmp_path: Path) -> None:
    """The stand-ins demand two."""
    more = {"SLURM_CPUS_PER_TASK": "2", "SLURM_JOB_CPUS_PER_NODE": "16(x3)"}
    assert run_with_stand_ins(tmp_path, nodes, 0, **more).returncode == 0
    del more["SLURM_CPUS_PER_TASK"]
    assert run_with_stand_ins(tmp_path, nodes, 0, **more).returncode != 0


@pytest.mark.parametrize("nodes", [1, 3])
def test_your_slots_win_over_those_of_the_script(nodes: int, tmp_path: Path) -> None:
    done = run_with_stand_ins(tmp_path, nodes, 0, "--slots", "1")
    assert done.returncode == 0, done.stderr
    assert options_of(tmp_path).slots == 1


@pytest.mark.parametrize("nodes", [1, 3])
@pytest.mark.parametrize("count", [{}, {"SLURM_RESTART_COUNT": "0"}])
def test_a_job_whose_time_is_up_is_queued_again(nodes: int, count: dict[str, str], tmp_path: Path) -> None:
    done = run_with_stand_ins(tmp_path, nodes, 75, SIGNAL="1", **count)
    assert done.returncode == 75
    assert (tmp_path / "requeued").read_text() == "requeue 40007\n"
    assert "goes back into the queue" in done.stderr


def test_a_job_whose_time_limit_leaves_no_time_to_train_is_not_queued_for_ever(tmp_path: Path) -> None:
    done = run_with_stand_ins(tmp_path, 1, 75, SIGNAL="1", SLURM_RESTART_COUNT="1")
    assert done.returncode == 75
    assert not (tmp_path / "requeued").exists()
    assert "longer --time" in done.stderr


@pytest.mark.parametrize("nodes", [1, 3])
def test_an_environment_that_is_not_active_is_reported_once(nodes: int, tmp_path: Path) -> None:
    done = run_with_stand_ins(tmp_path, nodes, 0, PATH=f"{tmp_path}:/usr/bin:/bin")
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("slurm.sbatch: ")
    assert "activate" in sentence
    assert not (tmp_path / "calls").exists()


def test_a_job_array_is_refused_before_anything_runs(tmp_path: Path) -> None:
    done = run_with_stand_ins(tmp_path, 3, 0, SLURM_ARRAY_JOB_ID="40006", SLURM_ARRAY_TASK_ID="1")
    assert done.returncode == 2
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith("slurm.sbatch: ")
    assert "one sweep at a time" in sentence
    assert "raysslprune merge" in sentence
    assert not (tmp_path / "calls").exists()


# ------------------------------------------------------------------------------------- with Slurm

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "sinfo", "srun")
NODES = ("node1", "node2", "node3")
FOLDER = f"{SHARED}/slurm"

# As little as Slurm takes: no cgroups, no accounts, processes found in /proc
CONF = """
ClusterName=test
SlurmctldHost=node1({head})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool_%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd_%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmctldTimeout=300
SlurmdTimeout=300
MessageTimeout=60
KillWait=60
{nodes}
PartitionName=all Nodes=node[1-3] Default=YES MaxTime=INFINITE State=UP
"""

DAEMONS = f"""
set -e
mount --bind {FOLDER}/hosts /etc/hosts
mkdir -p -m 755 /run/munge && mkdir -m 700 /run/key && cp {FOLDER}/key /run/key/key
munged --key-file=/run/key/key --seed-file=/run/key/seed --log-file=/run/key/log --pid-file=/run/munge/pid
for daemon in "$@" "slurmd -N $(hostname)"; do
  setsid $daemon -D -f {FOLDER}/slurm.conf < /dev/null > /dev/null 2>&1 &
done
"""
"""What runs on each host; the first has the controller, too, as an argument."""


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_under_slurm(tmp_path: Path, finished: Finished) -> None:
    """The sweep goes on after the job was queued again half way, and ends in the same table.

    Then a wrong call, on three nodes and on one, and a job array.
    """
    if why := missing() or without_slurm():
        pytest.skip(why)
    with hosts(NODES, tmp_path) as made, slurm(made, tmp_path):
        head = made["node1"]
        job = submit(head, "fig3", "--scale", "smoke", "--root", f"{SHARED}/runs")
        wait_until(lambda: len(done_steps(tmp_path / "runs")) >= 5, lambda: log_of(tmp_path, job))
        on(head, "scancel", "--batch", "--signal=USR1", job)  # as Slurm does before the time limit
        wait_until(lambda: state(head, job)["Restarts"] == "1", lambda: str(state(head, job)))
        kept = done_steps(tmp_path / "runs")
        assert len(kept) < len(done_steps(finished.root)), "it was not half way"
        # Slurm lets two minutes pass before it starts a job again, after the last process of its first run has ended
        wait_until(lambda: state(head, job)["JobState"] == "PENDING", lambda: str(state(head, job)))
        on(head, "scontrol", "update", f"JobId={job}", "StartTime=now")
        assert ended(head, job) == ("COMPLETED", "0:0"), log_of(tmp_path, job)
        log = log_of(tmp_path, job)
        assert "it goes back into the queue" in log
        assert table_of(tmp_path / "runs") == finished.table
        after = done_steps(tmp_path / "runs")
        assert after.keys() == done_steps(finished.root).keys()
        assert {step: after[step] for step in kept} == kept, "finished steps were made again"
        provenance = pq.read_table(tmp_path / "runs/results/smoke/fig3-runs.parquet")
        assert set(provenance["host"].to_pylist()) == set(NODES)

        wrong = [submit(head, f"--nodes={nodes}", "--cpus-per-task=1", "no-such-sweep") for nodes in (3, 1)]
        (array,) = [submit(head, "--array=0-1", "--cpus-per-task=1", "fig3", "--root", f"{SHARED}/array")]
        for one in wrong:
            assert ended(head, one) == ("FAILED", "2:0"), log_of(tmp_path, one)
            assert "no-such-sweep" in log_of(tmp_path, one)
        assert ended(head, f"{array}_1") == ("FAILED", "2:0")
        assert not (tmp_path / "array").exists()
        for host in made.values():
            wait_until(lambda host=host: not left_on(host), lambda host=host: left_on(host))


ENVIRONMENT = {
    "SLURM_CONF": f"{FOLDER}/slurm.conf",
    "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "PYTHONPATH": str(CHECKOUT),
    "RAY_worker_niceness": "0",
    "OMP_NUM_THREADS": "1",
}


def without_slurm() -> str:
    """Return why there can be no Slurm here; '' if there can."""
    lacking = [program for program in PROGRAMS if not shutil.which(program)]
    return f"no {', '.join(lacking)} here: apt-get install slurm-wlm munge" if lacking else ""


@contextmanager
def slurm(made: dict[str, Host], shared: Path) -> Iterator[None]:
    """Run Slurm's daemons on the hosts; they end with the hosts."""
    folder = shared / "slurm"
    for name in ("state", *(f"spool_{name}" for name in made)):
        (folder / name).mkdir(parents=True, mode=0o700)
    nodes = [f"NodeName={name} NodeAddr={host.ip} CPUs=1 RealMemory=1000 State=UNKNOWN" for name, host in made.items()]
    text = CONF.format(head=made["node1"].ip, folder=FOLDER, nodes="\n".join(nodes))
    (folder / "slurm.conf").write_text(text)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "hosts").write_text("127.0.0.1 localhost\n" + "".join(f"{h.ip} {n}\n" for n, h in made.items()))
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o400)
    for host in made.values():
        on(host, "bash", "-c", DAEMONS, "bash", *(["slurmctld"] if host.name == "node1" else []))
    head = made["node1"]
    idle = ["bash", "-c", "sinfo --noheader --Node --format=%T || true"]  # the controller may not answer yet
    wait_until(
        lambda: on(head, *idle).split() == ["idle"] * len(made),
        lambda: on(head, "sinfo", "-R") + (folder / "slurmctld.log").read_text(),
    )
    yield


def on(host: Host, *command: str) -> str:
    """Run a command on a host, which must succeed, as its users do; return its output."""
    done = subprocess.run(
        host.command(*command, **ENVIRONMENT),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


def submit(host: Host, *arguments: str) -> str:
    """Submit the script from the shared folder, and return the job's id. arguments: options of sbatch come first."""
    count = next((i for i, word in enumerate(arguments) if not word.startswith("--")), len(arguments))
    command = ["sbatch", "--parsable", f"--chdir={SHARED}", *arguments[:count], str(SCRIPT), *arguments[count:]]
    (job,) = re.findall(r"^\d+$", on(host, *command), re.M)
    return job


def state(host: Host, job: str) -> dict[str, str]:
    """What Slurm tells of a job."""
    return dict(re.findall(r"(\w+)=(\S*)", on(host, "scontrol", "show", "job", job)))


def ended(host: Host, job: str) -> tuple[str, str]:
    """Wait for the end of a job; return its state and exit code."""
    wait_until(
        lambda: state(host, job).get("JobState") in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"),
        lambda: str(state(host, job)),
    )
    return state(host, job)["JobState"], state(host, job)["ExitCode"]


def log_of(shared: Path, job: str) -> str:
    path = shared / f"raysslprune-{job}.log"
    return path.read_text() if path.exists() else f"no log of job {job}"


def left_on(host: Host) -> str:
    """What the jobs have left on a host: Ray's folders and processes, and Python's."""
    processes = [line for line in host.processes() if re.search(r"\bray|raylet|python", line)]
    return "\n".join([*on(host, "find", "/tmp", "-maxdepth", "1", "-name", "ray*").split(), *processes])


def wait_until(done: Callable[[], bool], told: Callable[[], str]) -> None:
    """Wait, for long if need be: other tests run beside this one. told: what to say if it does not happen."""
    for _ in wait(700):
        if done():
            return
    raise TimeoutError(told())
