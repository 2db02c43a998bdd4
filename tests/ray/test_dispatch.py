"""Many jobs that train nothing, on a real Ray: what Tune keeps meanwhile."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ray.tune.experiment import Trial

from benchmarks import no_training
from benchmarks.dispatch import plan_of
from raysslprune.cluster.tune import ReadyJobs
from raysslprune.plan.graph import Job
from raysslprune.terminal.progress import output_to

JOBS, SLOTS = 1000, 2


@dataclass
class Counter(no_training.Meter):
    """A meter that counts the trials in memory every hundred jobs."""

    trials: list[int] = field(default_factory=list)

    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None:
        super().job_done(job, facts)
        if self.done % 100 == 0:
            gc.collect()
            self.trials.append(sum(isinstance(one, Trial) for one in gc.get_objects()))


@pytest.mark.slow
def test_a_thousand_jobs_need_few_trials_and_none_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
