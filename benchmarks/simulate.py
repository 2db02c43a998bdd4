"""A simulated sweep on a cluster: the real planner, schedule and searcher, with a simulated clock.

Nothing is trained. A job takes its given time, on machines that die and are replaced; the work since its last
checkpoint is then repeated. This shows how well the order of jobs, and the number of workers of each, use clusters
too large to try; and how far that is from the best possible, since no order ends before :func:`bound`.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from raysslprune.cluster.options import Capacity, RunOptions
from raysslprune.cluster.tune import ReadyJobs
from raysslprune.plan.cost import OVERHEAD
from raysslprune.plan.graph import Job, Plan
from raysslprune.plan.schedule import Schedule
from raysslprune.store.steps import Store
from raysslprune.training.runner import CHECKPOINT_EVERY


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A cluster of GPUs in nodes of ``per_node`` (the last may have fewer), each GPU with at least one core.

    life: mean seconds that a node lives; deaths are a Poisson process. replaced: seconds from a node's death to its
    replacement. noticed: seconds from a node's death until Ray reports the loss of the jobs on it.
    """

    gpus: int
    per_node: int = 8
    life: float = math.inf
    replaced: float = 300.0
    noticed: float = 30.0

    @property
    def nodes(self) -> list[int]:
        """Number of GPUs of each node."""
        full, rest = divmod(self.gpus, self.per_node)
        return [self.per_node] * full + [rest] * (rest > 0)

    @property
    def capacity(self) -> Capacity:
        """Capacity with the nodes that will be replaced, as with an autoscaler."""
        return Capacity(cpus=self.gpus, gpus=self.gpus)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """Overhead of a training, and its efficiency on several workers.

    start: seconds to start one in an existing process. fit: seconds to start one that several workers share, or whose
    process must start first because the last one died. checkpoint: seconds of training between checkpoints.
    efficiency: that of each doubling of workers; twice as many are 2 * efficiency times as fast.
    """

    start: float = OVERHEAD
    fit: float = 20.0
    checkpoint: float = CHECKPOINT_EVERY
    efficiency: float = 1.0

    def speed(self, workers: int) -> float:
        """Return the speed of ``workers`` workers relative to one."""
        return workers * self.efficiency ** math.log2(workers)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Lower bound, in seconds, for any order. work: all trainings, each on one GPU, spread over all GPUs without a gap.
    path: the longest chain of trainings, each on the number of workers on which it is fastest."""

    work: float
    path: float

    @property
    def seconds(self) -> float:
        return max(self.work, self.path)


def bound(
    plan: Plan,
    seconds: Mapping[str, float],
    cluster: Cluster,
    options: RunOptions | None = None,
    costs: Costs | None = None,
) -> Bound:
    """Return a lower bound of a plan's makespan. seconds: time of each job's training on one GPU, by id."""
    options, costs = options or RunOptions(gpus_per_worker=1), costs or Costs()
    fastest: dict[int, float] = {}
    for parts in {job.parts for job in plan.jobs.values()}:
        most = options.workers(parts, cluster.capacity)
        fastest[parts] = max(costs.speed(few) for few in range(1, most + 1) if parts % few == 0)
    path: dict[str, float] = {}
    for job in reversed(plan.jobs.values()):
        behind = max((path[child.id] for child in job.children), default=0.0)
        path[job.id] = seconds[job.id] / fastest[job.parts] + behind
    return Bound(
        work=sum(seconds[i] for i in plan.jobs) / cluster.gpus,
        path=max(path.values(), default=0.0),
    )


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a simulated sweep. makespan: seconds from the first job's start to the last one's end.

    The next five are in GPU-seconds. alive: those of all live GPUs. Of these, trained: training that counts; lost:
    training to be repeated; starting: before a training; stopped: held by trainings that lost a worker, until that was
    noticed. The rest is ``idle``. deaths: number of nodes that died. broken: trainings that lost a worker. ended: times
    that each job succeeded, by id. failed: jobs that never reached a checkpoint, or needed one that did not.
    """

    makespan: float
    alive: float
    trained: float
    lost: float
    starting: float
    stopped: float
    deaths: int
    broken: int
    ended: dict[str, int]
    failed: int

    @property
    def idle(self) -> float:
        return self.alive - self.trained - self.lost - self.starting - self.stopped


def simulate(
    plan: Plan,
    seconds: Mapping[str, float],
    cluster: Cluster,
    *,
    expected: Mapping[str, float] | None = None,
    options: RunOptions | None = None,
    costs: Costs | None = None,
    seed: int = 0,
) -> Outcome:
    """Simulate all of a plan; the same arguments give the same outcome.

    seconds: time of each job's training on one GPU, by id. expected: the schedule's estimates, in any unit.
    seed: seed of the deaths, which do not depend on the jobs that run.
    """
    return _Simulation(
        plan, seconds, expected or seconds, cluster, options or RunOptions(gpus_per_worker=1), costs or Costs(), seed
    ).run()


# ------------------------------------------------------------------------------------- the events


@dataclass(eq=False, kw_only=True)
class _Node:
    """A machine, from its start to its death. place: index of the cluster's node that it is or replaces."""

    place: int
    gpus: int
    free: int
    begun: float
    ended: float = math.inf
    attempts: list[_Attempt] = field(default_factory=list)


@dataclass(eq=False, kw_only=True)
class _Attempt:
    """A started job. on: number of its GPUs by node, since ``begun``. training: time when it is ready to train."""

    trial: str
    job: Job
    workers: int
    on: dict[_Node, int] = field(default_factory=dict)
    begun: float = 0.0
    training: float = 0.0
    alive: bool = True


class _Simulation:
    def __init__(
        self,
        plan: Plan,
        seconds: Mapping[str, float],
        expected: Mapping[str, float],
        cluster: Cluster,
        options: RunOptions,
        costs: Costs,
        seed: int,
    ) -> None:
        self.seconds, self.cluster, self.costs = seconds, cluster, costs
        self.now = 0.0
        self.events: list[tuple[float, int, Callable[[], None]]] = []
        self.numbers = count()
        self.store = _Checkpoints()
        self.schedule = Schedule(plan.jobs.values(), expected)
        self.searcher = ReadyJobs(
            self.schedule, plan, self.store, "", _Nobody(), options, lambda: cluster.capacity, clock=lambda: self.now
        )
        self.saved: defaultdict[str, float] = defaultdict(float)
        """Seconds of each job's training up to its last checkpoint, by id."""
        self.waiting: list[_Attempt] = []
        """Attempts that wait for GPUs."""
        self.spent = dict.fromkeys(("alive", "trained", "lost", "starting", "stopped"), 0.0)
        self.deaths = self.broken = 0
        self.ended: Counter[str] = Counter()
        self.lives = [random.Random(f"{seed} {place}") for place in range(len(cluster.nodes))]
        self.nodes = [self.node(place) for place in range(len(cluster.nodes))]

    def run(self) -> Outcome:
        self.hand_out()
        while not self.schedule.finished:
            self.now = self.events[0][0]
            while self.events and self.events[0][0] == self.now:
                heapq.heappop(self.events)[2]()
            self.hand_out()
        self.spent["alive"] += sum(node.gpus * (self.now - node.begun) for node in self.nodes if node.ended == math.inf)
        return Outcome(
            makespan=self.now,
            **self.spent,
            deaths=self.deaths,
            broken=self.broken,
            ended=dict(self.ended),
            failed=len(self.schedule.failed) + len(self.schedule.skipped),
        )

    def at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self.events, (when, next(self.numbers), act))

    def hand_out(self) -> None:
        """Ask for jobs until there are none, as Tune does. Those that can't start wait in Ray's queue."""
        while running := self.searcher.hand_out(trial := str(next(self.numbers))):
            self.waiting.append(_Attempt(trial=trial, job=running.job, workers=running.workers))
        self.waiting = [attempt for attempt in self.waiting if not self.begin(attempt)]

    def begin(self, attempt: _Attempt) -> bool:
        """Start an attempt on the node with the most free GPUs, and the rest on the next, as Ray packs a group."""
        free = sorted((node for node in self.nodes if node.free), key=lambda node: -node.free)
        if sum(node.free for node in free) < attempt.workers:
            return False
        left = attempt.workers
        for node in free:
            attempt.on[node] = taken = min(left, node.free)
            node.free -= taken
            node.attempts.append(attempt)
            left -= taken
            if not left:
                break
        job = attempt.job
        fresh = attempt.workers > 1 or job.id in self.searcher.losses
        attempt.begun = self.now
        attempt.training = self.now + (self.costs.fit if fresh else self.costs.start)
        seconds = (self.seconds[job.id] - self.saved[job.id]) / self.costs.speed(attempt.workers)
        self.at(attempt.training + seconds, lambda: self.end(attempt))
        return True

    def end(self, attempt: _Attempt) -> None:
        if not attempt.alive:
            return
        self.spent["starting"] += attempt.workers * (attempt.training - attempt.begun)
        self.spent["trained"] += attempt.workers * (self.now - attempt.training)
        self.ended[attempt.job.id] += 1
        self.release(attempt)
        self.searcher.on_trial_complete(attempt.trial, {"facts": "{}"})

    def release(self, attempt: _Attempt) -> None:
        for node, gpus in attempt.on.items():
            node.attempts.remove(attempt)
            if node.ended > self.now:
                node.free += gpus

    # ------------------------------------------------------------------ deaths

    def node(self, place: int) -> _Node:
        gpus = self.cluster.nodes[place]
        node = _Node(place=place, gpus=gpus, free=gpus, begun=self.now)
        if self.cluster.life < math.inf:
            self.at(self.now + self.lives[place].expovariate(1 / self.cluster.life), lambda: self.die(node))
        return node

    def die(self, node: _Node) -> None:
        self.deaths += 1
        node.ended, node.free = self.now, 0
        self.spent["alive"] += node.gpus * (self.now - node.begun)
        for attempt in node.attempts:
            if attempt.alive:
                self.lose(attempt)
        self.at(self.now + self.cluster.replaced, lambda: self.replace(node))

    def replace(self, node: _Node) -> None:
        self.nodes[node.place] = self.node(node.place)

    def lose(self, attempt: _Attempt) -> None:
        """Lose an attempt's work since its last checkpoint. Its live workers hold their GPUs until this is noticed."""
        attempt.alive = False
        self.broken += 1
        trained = max(0.0, self.now - attempt.training)
        kept = trained // self.costs.checkpoint * self.costs.checkpoint
        self.spent["starting"] += attempt.workers * (self.now - trained - attempt.begun)
        self.spent["trained"] += attempt.workers * kept
        self.spent["lost"] += attempt.workers * (trained - kept)
        if kept:
            self.saved[attempt.job.id] += kept * self.costs.speed(attempt.workers)
            self.store.times[attempt.job.id] = attempt.training + kept
        died = self.now
        self.at(died + self.cluster.noticed, lambda: self.tell(attempt, died))

    def tell(self, attempt: _Attempt, died: float) -> None:
        self.spent["stopped"] += sum(gpus * (min(node.ended, self.now) - died) for node, gpus in attempt.on.items())
        self.release(attempt)
        self.searcher.process_lost(attempt.trial, "its node died")


class _Checkpoints(Store):
    """A store that only knows when each job wrote its last checkpoint."""

    def __init__(self) -> None:
        super().__init__("nowhere")
        self.times: dict[str, float] = {}

    def checkpoint_time(self, step_id: str) -> float | None:
        return self.times.get(step_id)

    def write(self, name: str, data: bytes) -> None:
        """Write nothing: a failed job needs no log."""


class _Nobody:
    """A progress display that shows nothing."""

    def slots_are(self, count: int) -> None: ...

    def waits(self, what: str, sentence: str) -> None: ...
    def job_started(self, job: Job, workers: int) -> None: ...
    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None: ...
    def job_failed(self, job: Job, why: str, skipped: int) -> None: ...
    def process_lost(self, job: Job, why: str, seconds: float) -> None: ...
    def note(self, sentence: str) -> None: ...
