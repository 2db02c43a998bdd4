"""Studies: successive halving over seeds chooses which of a grid's rewinds, or which recipes, are trained on.

Each task and level has a study. All candidates are measured with the first seed, the better half of them with the
second too, the better half of these with the third and fourth, and so on: the number of seeds doubles, and the means
over them decide. Those that are left when all seeds are used are the finalists, and the best of these is chosen. What
falls behind is not trained on; what is trained already, for another study or in another run, costs nothing.

The choices are a function of the values alone, not of when they arrive or of what else is known: a search gives the
same result however often it is interrupted.

Optuna records the studies, so that its dashboard and its own tools show them: a trial for each candidate, which
reports the mean over its seeds so far, and is pruned where it falls behind. Optuna's samplers do not choose. Candidates
are few and all known, and most of the cost is in seeds: in replays (``python -m benchmarks rewind``) TPE on means over
all seeds, with WilcoxonPruner or without, is no better at equal numbers of trainings.

Nothing is pruned by other intermediate values: the accuracy of a chain's earlier rounds, or of a training's earlier
epochs, says little about which rewind is best at this level.
"""

from __future__ import annotations

import json
import math
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product, takewhile
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import QMCSampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from raysslprune.plan.graph import Job, Plan
from raysslprune.plan.schedule import Schedule
from raysslprune.spec import seed_of
from raysslprune.store.record import Damaged, Record
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point

optuna.logging.set_verbosity(optuna.logging.ERROR)

Key = tuple[str, int]
"""Task and level of a study."""

Look = Callable[[int, int], float | None]
"""Look-up of the value of a candidate and a seed's number: None while it is unknown, NaN if it failed."""

PARAMETER = "rewind"

Parameters = Mapping[str, Any]
"""Values of a candidate by name: numbers, texts or truth values."""


@dataclass(kw_only=True)
class Trial:
    """A candidate in a study. means: over its first seed, its first two, and so on. awaited: seeds without a value."""

    state: TrialState = TrialState.RUNNING
    means: list[float] = field(default_factory=list)
    awaited: list[int] = field(default_factory=list)


def halving(candidates: Iterable[int], seeds: int, look: Look) -> dict[int, Trial]:
    """Find the best of the candidates by successive halving over seeds, as far as their values are known.

    Of equal means the first candidate counts as better. A candidate that fails for a seed is out. Finalists are
    complete, candidates that fell behind are pruned.
    """
    trials = {candidate: Trial() for candidate in candidates}
    left = list(trials)
    for count in rungs(seeds):
        for candidate in left:
            trial, values = trials[candidate], [look(candidate, seed) for seed in range(count)]
            known = [*takewhile(math.isfinite, (math.nan if value is None else value for value in values))]
            trial.means = [fmean(known[: i + 1]) for i in range(len(known))]
            trial.awaited = [seed for seed, value in enumerate(values) if value is None]
            if not trial.awaited and len(known) < count:
                trial.state = TrialState.FAIL
        left = [candidate for candidate in left if trials[candidate].state == TrialState.RUNNING]
        if any(trials[candidate].awaited for candidate in left):
            return trials
        if count < seeds:
            left.sort(key=lambda candidate: (-trials[candidate].means[-1], candidate))
            for candidate in left[math.ceil(len(left) / 2) :]:
                trials[candidate].state = TrialState.PRUNED
            left = left[: math.ceil(len(left) / 2)]
    for candidate in left:
        trials[candidate].state = TrialState.COMPLETE
    return trials


def rungs(seeds: int) -> Iterator[int]:
    """Yield the numbers of seeds after which candidates are compared: 1, 2, 4 and so on, and all."""
    count = 1
    while count < seeds:
        yield count
        count *= 2
    yield seeds


class Study:
    """A search for the best of ``candidates`` by values for each of so many seeds, recorded as a study of Optuna."""

    def __init__(
        self,
        name: str,
        candidates: Sequence[int],
        seeds: int,
        storage: BaseStorage | None = None,
        parameters: Sequence[Parameters] | None = None,
    ) -> None:
        """parameters: those of each candidate, in ascending order, for the record; None for the candidate's rank."""
        self.name, self.candidates, self.seeds = name, sorted(candidates), seeds
        self.parameters = parameters or [{PARAMETER: rank} for rank in range(len(self.candidates))]
        self.storage = storage or InMemoryStorage()
        self.trials = {candidate: Trial() for candidate in self.candidates}

    @property
    def awaited(self) -> list[tuple[int, int]]:
        """Candidates and seeds whose values are awaited."""
        return [(candidate, seed) for candidate, trial in self.trials.items() for seed in trial.awaited]

    @property
    def values(self) -> dict[int, float]:
        """Means over all seeds of the finalists."""
        finalists = {c: trial for c, trial in self.trials.items() if trial.state == TrialState.COMPLETE}
        return {candidate: trial.means[-1] for candidate, trial in finalists.items()}

    @property
    def ended(self) -> bool:
        return all(trial.state != TrialState.RUNNING for trial in self.trials.values())

    def advance(self, look: Look) -> None:
        """Choose by the known values. Optuna's study is written by :meth:`record`."""
        self.trials = halving(self.candidates, self.seeds, look)

    def record(self) -> None:
        """Write all trials to the storage: on from what it has of them, or anew if it has anything else."""
        self._space = {name: spanning([some[name] for some in self.parameters]) for name in self.parameters[0]}
        self._open()
        recorded = self._study.get_trials(deepcopy=False)
        if len({self._index(trial) for trial in recorded}) < len(recorded) or not all(map(self._agrees, recorded)):
            optuna.delete_study(study_name=self.name, storage=self.storage)
            self._open()
            recorded = []
        numbers = {self._index(trial): trial for trial in recorded}
        study_id = self.storage.get_study_id_from_name(self.name)
        for index, trial in enumerate(self.trials.values()):
            if index not in numbers:
                self._study.enqueue_trial(dict(self.parameters[index]))
                self._study.ask(self._space)
            old = numbers.get(index) or self._study.get_trials(deepcopy=False)[-1]
            if old.state == TrialState.RUNNING:
                trial_id = self.storage.get_trial_id_from_study_id_trial_number(study_id, old.number)
                for step, mean in enumerate(trial.means, 1):
                    if step not in old.intermediate_values:
                        self.storage.set_trial_intermediate_value(trial_id, step, mean)
                if trial.state == TrialState.COMPLETE:
                    self._study.tell(old.number, trial.means[-1])
                elif trial.state != TrialState.RUNNING:
                    self._study.tell(old.number, state=trial.state)

    def _open(self) -> None:
        try:
            self._study = optuna.load_study(study_name=self.name, storage=self.storage)
        except KeyError:
            self._study = optuna.create_study(study_name=self.name, storage=self.storage, direction="maximize")

    def _index(self, trial: FrozenTrial) -> int | None:
        known = trial.distributions == self._space and trial.params in self.parameters
        return self.parameters.index(trial.params) if known else None

    def _agrees(self, recorded: FrozenTrial) -> bool:
        """Return whether what is recorded of a trial is true, though there may be more."""
        index = self._index(recorded)
        if index is None:
            return False
        trial = self.trials[self.candidates[index]]
        known = dict(enumerate(trial.means, 1))
        if recorded.state == TrialState.RUNNING:
            return recorded.intermediate_values.items() <= known.items()
        return recorded.state == trial.state and recorded.intermediate_values == known


def spanning(values: Sequence[Any]) -> BaseDistribution:
    """Return the smallest range of Optuna that has these values: of whole numbers, of numbers, or a set."""
    kinds = {type(value) for value in values}
    if kinds == {int}:
        return IntDistribution(min(values), max(values))
    if kinds <= {int, float}:
        return FloatDistribution(min(values), max(values))
    return CategoricalDistribution(sorted(set(values)))


# ------------------------------------------------------------------ candidates for a recipe


@dataclass(frozen=True)
class Range:
    """All numbers from ``low`` to ``high``: whole ones, if both are. Wide ranges are drawn from on a log scale."""

    low: float
    high: float

    @property
    def distribution(self) -> BaseDistribution:
        log = self.low > 0 and self.high >= 10 * self.low
        if isinstance(self.low, int) and isinstance(self.high, int):
            return IntDistribution(self.low, self.high, log=log)
        return FloatDistribution(self.low, self.high, log=log)


DIGITS = 3
"""Significant digits of numbers that are drawn from a range."""


def candidates(over: Mapping[str, Range | Sequence[Any]], trials: int) -> list[dict[str, Any]]:
    """Draw at most so many different combinations of values, always the same for the same arguments.

    over: for each name a range, or the values to choose from. If there are only choices, and no more combinations than
    trials, these are all combinations; else Optuna draws them: numbers quasi-randomly, so that they fill the ranges
    evenly, and choices at random.
    """
    if not any(isinstance(some, Range) for some in over.values()):
        every = [dict(zip(over, values, strict=True)) for values in product(*over.values())]  # pyright: ignore
        if len(every) <= trials:
            return every
    space = {
        name: some.distribution if isinstance(some, Range) else CategoricalDistribution(list(some))
        for name, some in over.items()
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(sampler=QMCSampler(seed=0, scramble=True))
    found: list[dict[str, Any]] = []
    for _ in range(10 * trials):  # rounded, some are equal
        trial = study.ask(space)
        study.tell(trial, 0.0)
        values = {name: _rounded(value) for name, value in trial.params.items()}
        if values not in found:
            found.append(values)
        if len(found) == trials:
            break
    return found


def _rounded(value: Any) -> Any:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


# ------------------------------------------------------------------ live


class Studies:
    """The studies of one sweep, which add the jobs of the candidates that they choose to a running schedule.

    Their journal, under ``studies/`` of the root, is a cache of decisions that Optuna's own tools can show. The store
    is authoritative: values that it does not confirm are computed again, and a lost journal is written again.
    """

    def __init__(
        self,
        name: str,
        points: Iterable[Point],
        plan: Plan,
        schedule: Schedule,
        records: Mapping[str, Record],
        store: Store,
        note: Callable[[str], None],
        divide: Callable[[Iterable[Point]], Grid] | None = None,
        parameters: Callable[[Point], Parameters] | None = None,
    ) -> None:
        """Open the studies. name: sweep and scale. points: the grid; points that are not rewound are no candidates.

        schedule: the schedule that runs already. records: finished steps. note: receives sentences for the user.
        divide: function from the points to their studies and candidates, by default :func:`grid`. parameters: those of
        a candidate in Study, from one of its points.
        """
        self.plan, self.schedule, self.records, self.store, self.note = plan, schedule, dict(records), store, note
        self._pending = {job.id for job in plan.pending(records)}
        self._points = (divide or grid)(points)
        self._needed: dict[tuple[Key, int, int], list[Job]] = {}
        self._recorded = False
        self._journal, storage = _opened(store, f"studies/{name}.journal", note)
        self.studies: dict[Key, Study] = {}
        for key, candidates in self._points.items():
            seeds = len(next(iter(candidates.values())))
            some = [parameters(points[0]) for points in candidates.values()] if parameters else None
            study = self.studies[key] = Study(study_name(key, candidates), list(candidates), seeds, storage, some)
            study.advance(partial(self._value, key))

    def advance(self) -> None:
        """Add the studies' next jobs to the schedule. Call this at the start, and after each job, also a failed one."""
        for key, study in self.studies.items():
            before = study.trials
            study.advance(partial(self._value, key))
            if study.trials != before or not self._recorded:
                study.record()
        self._recorded = True
        self._journal.save()  # before any job runs that it does not contain
        wanted = [job for key, study in self.studies.items() for one in study.awaited for job in self._jobs(key, *one)]
        self.schedule.add(wanted)

    @property
    def ended(self) -> bool:
        return all(study.ended for study in self.studies.values())

    @property
    def tried(self) -> dict[tuple[str, int, int], float]:
        """Means over all seeds of the finalists, by (task, level, rewind)."""
        return {(*key, rewind): value for key, study in self.studies.items() for rewind, value in study.values.items()}

    @property
    def best(self) -> dict[Key, int]:
        """The best finalist, the earliest of equals, by study; no entry if there is none."""
        found = {key: study.values for key, study in self.studies.items()}
        return {key: max(sorted(values), key=values.__getitem__) for key, values in found.items() if values}

    def _value(self, key: Key, candidate: int, seed: int) -> float | None:
        jobs, schedule = self._jobs(key, candidate, seed), self.schedule
        if any(job.id in schedule.failed or job.id in schedule.skipped for job in jobs):
            return math.nan
        if any(i not in schedule.jobs or i in schedule.waiting or i in schedule.running for i in (j.id for j in jobs)):
            return None
        return self._metric(self._points[key][candidate][seed])

    def _metric(self, point: Point) -> float:
        if point.step.id not in self.records:
            try:
                record = self.store.record(point.step.id)
            except Damaged as damage:
                self.note(f"{damage}; the search continues without it")
                record = None
            if record is None:
                return math.nan
            self.records[point.step.id] = record
        return self.records[point.step.id].metrics.get(point.metric, math.nan)

    def _jobs(self, key: Key, candidate: int, seed: int) -> list[Job]:
        """Jobs of a candidate with a seed that were pending when the run started, parents before children."""
        if (key, candidate, seed) not in self._needed:
            behind = self.plan.behind([self._points[key][candidate][seed]])
            self._needed[key, candidate, seed] = [job for job in behind if job.id in self._pending]
        return self._needed[key, candidate, seed]


Grid = dict[Key, dict[int, list[Point]]]
"""Points of each study by candidate, in ascending order: one for each seed, in the order of seeds."""


def by_recipe(points: Iterable[Point]) -> Grid:
    """Return the points of each study by their recipes, which are numbered in the order of the points."""
    found: dict[Key, dict[Any, list[Point]]] = {}
    for point in sorted(points, key=lambda point: point.seed):
        found.setdefault((point.task, point.level), {}).setdefault(point.step.recipe, []).append(point)
    return {key: dict(enumerate(recipes.values())) for key, recipes in found.items()}


def grid(points: Iterable[Point]) -> Grid:
    """Return the points of each study by rewind: one for each seed, in the order of seeds.

    Raises ValueError if means over seeds would not be comparable.
    """
    found: dict[Key, dict[int, list[Point]]] = {}
    for point in sorted(points, key=lambda point: point.seed):
        if point.step.rewind is not None:
            found.setdefault((point.task, point.level), {}).setdefault(point.step.rewind, []).append(point)
    for (task, level), candidates in found.items():
        kinds = {
            tuple((p.seed, p.metric, p.init, p.panel, p.step.data, p.step.arch) for p in points)
            for points in candidates.values()
        }
        seeds = [point.seed for point in next(iter(candidates.values()))]
        if len(kinds) > 1 or len(set(seeds)) < len(seeds):
            raise ValueError(
                f"the rewinds of {task}, level {level} can't be compared: "
                "each needs a point for each seed, with one metric, init, panel, data set and network"
            )
    return {key: dict(sorted(candidates.items())) for key, candidates in found.items()}


def study_name(key: Key, candidates: Mapping[int, Sequence[Point]]) -> str:
    """Return a study's name in the journal, which depends on all its steps."""
    steps = [(point.step.id, point.metric) for points in candidates.values() for point in points]
    seeds = len(next(iter(candidates.values())))
    return f"{key[0]}, level {key[1]}, {seeds} seeds, {seed_of(*steps):016x}"


class Journal(BaseJournalBackend):
    """Optuna's journal as a file of the store, in the format of JournalFileBackend; ``save`` writes all of it."""

    def __init__(self, store: Store, name: str, data: bytes = b"") -> None:
        self.store, self.name = store, name
        self.lines = data.decode().splitlines(keepends=True)
        self._saved = len(self.lines)

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        return [json.loads(line) for line in self.lines[log_number_from:]]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.lines += [json.dumps(log, separators=(",", ":")) + "\n" for log in logs]

    def save(self) -> None:
        if len(self.lines) > self._saved:
            self.store.write(self.name, "".join(self.lines).encode())
            self._saved = len(self.lines)


def _opened(store: Store, name: str, note: Callable[[str], None]) -> tuple[Journal, JournalStorage]:
    """Open the journal; start an empty one if it can't be read."""
    try:
        data = store.read(name)
    except FileNotFoundError:
        data = b""
    try:
        journal = Journal(store, name, data)
        return journal, JournalStorage(journal)
    except Exception:  # Optuna may raise anything on lines that are not its own
        aside = f"damaged/{name.rpartition('/')[2]}-{uuid.uuid4().hex[:8]}"
        store.write(aside, data)
        note(f"{name} can't be read; moved to {store.path(aside)}; a new journal is made from the finished trainings")
        journal = Journal(store, name)
        return journal, JournalStorage(journal)


# ------------------------------------------------------------------ afterwards


def importances(values: Mapping[tuple[str, int, int], float]) -> dict[str, float]:
    """Shares of the variance that task, level and rewind explain (fANOVA), the most important first.

    values: by (task, level, rewind). They are analysed over all studies together: within one study the rewind is
    the only parameter and explains everything. Levels and rewinds count by their ranks. Empty if nothing varies.
    """
    if len(values) < 4 or len(set(values.values())) == 1:
        return {}
    names = ("task", "level", PARAMETER)
    known = {name: sorted({place[i] for place in values}) for i, name in enumerate(names)}
    space: dict[str, BaseDistribution] = {
        "task": CategoricalDistribution(known["task"]),
        "level": IntDistribution(0, len(known["level"]) - 1),
        PARAMETER: IntDistribution(0, len(known[PARAMETER]) - 1),
    }
    study = optuna.create_study(direction="maximize")
    for (task, level, rewind), value in sorted(values.items()):
        params = {"task": task, "level": known["level"].index(level), PARAMETER: known[PARAMETER].index(rewind)}
        study.add_trial(create_trial(params=params, distributions=space, value=value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)
