"""The script for Slurm of docs/cluster.md, with stand-ins for Slurm and for `ray symmetric-run`."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import CHECKOUT

SRUN = """#!{python}
import os, signal, subprocess, sys, time

arguments = sys.argv[1:]
assert [arguments.pop(0) for _ in range(2)] == ["--kill-on-bad-exit=1", "--cpus-per-task=2"]
tasks = [
    subprocess.Popen(arguments, env={{**os.environ, "SLURM_PROCID": str(rank)}}, start_new_session=True)
    for rank in range(int(os.environ["SLURM_JOB_NUM_NODES"]))
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
assert options == ["--address", "127.0.0.1:20007", "--min-nodes", "3", "--num-cpus=2"], options
assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
if os.environ["SLURM_PROCID"] == "0":
    sys.exit(subprocess.run(command).returncode)
time.sleep(600)
"""

PYTHON = """#!/bin/sh
echo "$@" >> calls
exit $CODE
"""


@pytest.mark.parametrize("code", [0, 1, 2, 75])
def test_the_exit_code_of_a_sweep_is_that_of_the_job(code: int, tmp_path: Path) -> None:
    (script,) = re.findall(
        r"^```bash sweep\.sbatch\n(.*?)^```$", (CHECKOUT / "docs/cluster.md").read_text(), re.M | re.S
    )
    scontrol = "#!/bin/sh\nprintf 'localhost\\nother\\n'\n"
    for name, text in (("srun", SRUN), ("ray", RAY), ("python", PYTHON), ("scontrol", scontrol)):
        (tmp_path / name).write_text(text.format(python=sys.executable) if name in ("srun", "ray") else text)
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "n[1-3]", "SLURM_JOB_ID": "40007", "SLURM_JOB_NUM_NODES": "3"}
    environment = {**os.environ, **job, "SLURM_CPUS_PER_TASK": "2", "CODE": str(code)}
    environment["PATH"] = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == code, done.stderr
    assert (tmp_path / "calls").read_text() == "-m raysslprune.sweep fig3 --root /shared/runs --address auto --wait\n"
