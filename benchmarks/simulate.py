"""A sweep on a cluster that is not there: the real planner, schedule and searcher, with a clock that only they see.

Nothing is trained. A job takes as long as it is said to, on machines that die and are replaced; what it had done
since its last checkpoint is then done again. This shows how well the order in which jobs are handed out, and the
workers that each is given, use clusters larger than one can try on; and it says how far from the best possible that
is, since no order ends before :func:`bound`.
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

from raysslprune.cluster.nodes import Capacity, Workers
from raysslprune.cluster.tune import ReadyJobs
from raysslprune.plan.cost import OVERHEAD
from raysslprune.plan.graph import Job, Plan
from raysslprune.plan.schedule import Schedule
from raysslprune.store.steps import Store
from raysslprune.training.runner import CHECKPOINT_EVERY


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """GPUs in nodes of ``per_node`` (the last may have fewer), each with a core or more.

    life: seconds that a node lives on average; its end comes at any moment alike (a Poisson process). replaced: seconds
    from a node's death until another is in its place. noticed: seconds from there until Ray tells of what ran on it.
    """

    gpus: int
    per_node: int = 8
    life: float = math.inf
    replaced: float = 300.0
    noticed: float = 30.0

    @property
    def nodes(self) -> list[int]:
        """The GPUs of each."""
        full, rest = divmod(self.gpus, self.per_node)
        return [self.per_node] * full + [rest] * (rest > 0)

    @property
    def capacity(self) -> Capacity:
        """With the nodes that are about to be replaced, as where an autoscaler does that."""
        return Capacity(cpus=self.gpus, gpus=self.gpus)


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a training costs beside itself, and how well it is shared.

    start: seconds, of one in a process that is there already. fit: seconds, of one that several workers share, or whose
    process has to start first because the last one died. checkpoint: seconds of training between two. efficiency: of
    each doubling of workers; twice as many are 2 * efficiency times as fast.
    """

    start: float = OVERHEAD
    fit: float = 20.0
    checkpoint: float = CHECKPOINT_EVERY
    efficiency: float = 1.0

    def speed(self, workers: int) -> float:
        """Of so many workers, where that of one is 1."""
        return workers * self.efficiency ** math.log2(workers)


@dataclass(frozen=True, kw_only=True)
class Bound:
    """Seconds that no order can beat. work: all trainings, each on one GPU, spread over all GPUs without a gap.
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
    workers: Workers | None = None,
    costs: Costs | None = None,
) -> Bound:
    """seconds: that each job's training takes on one GPU, by id."""
    workers, costs = workers or Workers(gpus=1), costs or Costs()
    fastest: dict[int, float] = {}
    for parts in {job.parts for job in plan.jobs.values()}:
        most = workers.count(parts, cluster.capacity)
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
    """What became of a sweep. makespan: seconds from the first job handed out to the end of the last.

    The next five are in seconds of one GPU. alive: all that there was; of it, trained: what led to a result; lost: done
    again; starting: no training yet; stopped: held by trainings that had lost a worker, before that was noticed. The
    remainder is ``idle``. deaths: of nodes. broken: trainings that lost a worker. ended: how often each job ended well,
    by id. failed: jobs that did not, since they never came to a checkpoint, or needed one that did not.
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
    workers: Workers | None = None,
    costs: Costs | None = None,
    seed: int = 0,
) -> Outcome:
    """Hand out all of a plan; the same arguments give the same outcome.

    seconds: that each job's training takes on one GPU, by id. expected: what the schedule believes, in any unit.
    seed: of the deaths, which are the same whatever runs meanwhile.
    """
    return _Simulation(
        plan, seconds, expected or seconds, cluster, workers or Workers(gpus=1), costs or Costs(), seed
    ).run()


# ------------------------------------------------------------------------------------- the events


@dataclass(eq=False, kw_only=True)
class _Node:
    """One machine, from its start to its death. place: of the cluster's nodes, which it is or replaces."""

    place: int
    gpus: int
    free: int
    begun: float
    ended: float = math.inf
    attempts: list[_Attempt] = field(default_factory=list)


@dataclass(eq=False, kw_only=True)
class _Attempt:
    """A job that was handed out. on: its GPUs, since ``begun``. training: when it is ready to train."""

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
        workers: Workers,
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
            self.schedule, plan, self.store, "", _Nobody(), workers, lambda: cluster.capacity, clock=lambda: self.now
        )
        self.saved: defaultdict[str, float] = defaultdict(float)
        """Of each job's seconds, those that its last checkpoint has."""
        self.waiting: list[_Attempt] = []
        """Handed out, for GPUs that are about to come back."""
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
        """As Tune does: ask until there is nothing. What can't begin waits in Ray's queue."""
        while running := self.searcher.hand_out(trial := str(next(self.numbers))):
            self.waiting.append(_Attempt(trial=trial, job=running.job, workers=running.workers))
        self.waiting = [attempt for attempt in self.waiting if not self.begin(attempt)]

    def begin(self, attempt: _Attempt) -> bool:
        """On the node with the most free GPUs, and what does not fit there on the next: so Ray packs a group."""
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
        """What it did since its last checkpoint. Workers that live stop, and hold their GPUs until that is noticed."""
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
    """Nothing but when each job wrote its last one."""

    def __init__(self) -> None:
        super().__init__("nowhere")
        self.times: dict[str, float] = {}

    def checkpoint_time(self, step_id: str) -> float | None:
        return self.times.get(step_id)

    def write(self, name: str, data: bytes) -> None:
        """Nothing is written: no log of a job that failed."""


class _Nobody:
    """Is told all, and shows nothing."""

    def slots_are(self, count: int) -> None: ...
    def job_started(self, job: Job, workers: int) -> None: ...
    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None: ...
    def job_failed(self, job: Job, why: str, skipped: int) -> None: ...
    def process_lost(self, job: Job, why: str, seconds: float) -> None: ...
    def note(self, sentence: str) -> None: ...
