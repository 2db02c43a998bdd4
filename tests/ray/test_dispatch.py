"""Many jobs that train nothing, on a real Ray: what Tune keeps meanwhile."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.tune.experiment import Trial

from benchmarks import no_training
from benchmarks.dispatch import plan_of
from raysslprune.cluster.tune import ReadyJobs
from raysslprune.plan.graph import Job
from raysslprune.terminal.progress import output_to
from tests.helpers import CHECKOUT

JOBS, SLOTS = 1000, 2


def in_memory(kind: type) -> int:
    gc.collect()
    return sum(issubclass(type(one), kind) for one in gc.get_objects())  # isinstance would ask proxies, which may warn


@dataclass
class Counter(no_training.Meter):
    """A meter that counts the trials and the references to Ray's objects in memory every hundred jobs.

    before: their numbers before the first job, as other tests of this process have left some.
    """

    trials: list[int] = field(default_factory=list)
    references: list[int] = field(default_factory=list)
    before: tuple[int, int] = field(default_factory=lambda: (in_memory(Trial), in_memory(ray.ObjectRef)))

    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None:
        super().job_done(job, facts)
        if self.done % 100 == 0:
            self.trials.append(in_memory(Trial) - self.before[0])
            self.references.append(in_memory(ray.ObjectRef) - self.before[1])


@pytest.mark.slow
def test_a_thousand_jobs_need_few_trials_and_nothing_is_kept_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    suggest = ReadyJobs.suggest

    def counted(self: ReadyJobs, trial_id: str) -> Any:
        answer = suggest(self, trial_id)
        if isinstance(answer, dict):
            asked.append(trial_id)
        return answer

    monkeypatch.setattr(ReadyJobs, "suggest", counted)
    meter = Counter(warm=100)
    with output_to(str(tmp_path / "log")):
        no_training.run(plan_of(JOBS), str(tmp_path), SLOTS, meter)
    assert meter.done == JOBS
    assert len(asked) <= JOBS / 20, "a trial for each job: workers did not go on"
    assert len(meter.trials) == JOBS / 100
    assert max(meter.trials) <= 2 * SLOTS + 2
    assert max(meter.references) <= 50, "results of earlier jobs are kept"


@pytest.mark.slow
def test_the_benchmark_says_what_a_job_costs_at_each_number_of_jobs() -> None:
    command = [sys.executable, "-m", "benchmarks", "--json", "dispatch", "--jobs", "300", "200"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert measured["benchmark"] == "dispatch"
    rows = {name: row for name, row in measured.items() if name not in ("benchmark", "machine")}
    assert len(rows) == 4
    assert all(list(row) == ["200 jobs", "300 jobs"] for row in rows.values())
    assert all(value > 0 for name in ("jobs/s", "ms of the driver's CPU time, a job") for value in rows[name].values())
