"""Choose where an own sweep trains: on the cores or on the GPUs of its machine, by estimate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from raysslprune.paper.recipes import Net
from raysslprune.plan.cost import GUESSED, MEASURED, OVERHEAD, SVMS, Speeds
from raysslprune.plan.graph import Job, Plan
from raysslprune.plan.schedule import Schedule
from raysslprune.spec import SVM
from raysslprune.store.record import Record

LAUNCH = 0.003
"""Seconds that an update takes on a GPU at least, however small the network, because its kernels are launched one after
the other. Assumed, on the high side; not measured."""

WORTH = 2.0
"""Factor by which GPUs must be faster by estimate to be used without being asked for: the estimate is that rough."""


@dataclass(frozen=True, kw_only=True)
class Times:
    """Estimated seconds of what a plan has left to train: on all cores of a machine, and on all its GPUs.

    guessed: whether the speed of a network is not known.
    """

    on_cores: float
    on_gpus: float
    guessed: bool

    @property
    def gpus_are_faster(self) -> bool:
        """Return whether the GPUs are certainly faster, as far as an estimate can say."""
        return not self.guessed and self.on_cores > WORTH * self.on_gpus


def times(plan: Plan, records: Mapping[str, Record], nets: Mapping[str, Net], cores: float, gpus: float) -> Times:
    """Estimate how long a machine takes. A training has a core or a GPU to itself; no GPU runs two at once."""
    jobs = plan.jobs.values()
    cpu, cuda = (Speeds(jobs, records, nets, device) for device in ("cpu", "cuda"))
    left = [job for job in plan.pending(records) if not job.is_trained(records)]
    trained = [job for job in left if not isinstance(job.train.recipe, SVM)]

    def wall(seconds: Callable[[Job], float], places: float) -> float:
        """Seconds of all jobs together: of the longest chain at least, which no number of places shortens."""
        each = {job.id: OVERHEAD + (seconds(job) if job in trained else SVMS) for job in left}
        return max(sum(each.values()) / places, Schedule(left, each).longest_path) if left else 0.0

    return Times(
        on_cores=wall(lambda job: job.samples / cpu.of(job)[0], cores),
        on_gpus=wall(lambda job: _on_gpu(job, *cuda.of(job)), gpus),
        guessed=any(GUESSED in (cpu.of(job)[1], cuda.of(job)[1]) for job in trained),
    )


def _on_gpu(job: Job, speed: float, source: str) -> float:
    """Seconds of a training on a GPU; unless that was measured, launching its updates may take longer than they do."""
    seconds = job.samples / speed
    if source == MEASURED or isinstance(job.train.recipe, SVM):
        return seconds
    return max(seconds, job.samples / job.train.recipe.batch * LAUNCH)
