"""The rewind study: Optuna chooses which of a grid's rewinds are trained at all.

One study for each task and level, over the index of a rewind in the sorted ones that the grid has: never a free
number, so that all share one dense training. Its objective is the mean over seeds. What it does not choose is not
trained; what is trained already, for another study or in another run, costs it nothing.

A study begins with two thirds of its trials spread evenly over the candidates, all at once. Then TPE asks for one
after the other, from few draws, and again where it would repeat itself: by its defaults, on ten candidates, it returns
to the same one and is no better than chance. It ends early when it has nothing new to ask for. What a study chooses
depends on its values alone, not on when they came: however often a search is interrupted, it finds the same.

Nothing is pruned by intermediate values: the accuracy of a chain's earlier rounds, or of a training's earlier epochs,
says little about which rewind is best at this level. Nor seed by seed: on three seeds Optuna's WilcoxonPruner has no
p-value under 0.125 to reject with.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, IntDistribution
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage, InMemoryStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.trial import FrozenTrial, TrialState, create_trial

from raysslprune.plan.graph import Job, Plan
from raysslprune.plan.schedule import Schedule
from raysslprune.spec import Rewind, seed_of
from raysslprune.store.record import Damaged, Record
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point

optuna.logging.set_verbosity(optuna.logging.ERROR)

Key = tuple[str, int]
"""Task and level: what there is a study for."""

Look = Callable[[int], float | None]
"""A candidate's value: None while it is not known, NaN if it can't be had."""

FIRST = 2 / 3
"""Of a study's trials: those that are spread evenly and run at once."""

DRAWS = 30
"""Times in a row that TPE may ask for what was tried before a study ends."""

CHOICES = 8
"""Draws of which TPE takes the best. Among its default of 24 are all of ten candidates: it would choose the same ever
again."""

PARAMETER = "rewind"


class Study:
    """Which of ``candidates`` is best, from the values of at most ``trials`` of them."""

    def __init__(self, name: str, candidates: Sequence[int], trials: int, storage: BaseStorage | None = None) -> None:
        self.name, self.candidates, self.storage = name, sorted(candidates), storage or InMemoryStorage()
        self.trials = min(trials, len(candidates))
        self._open()

    @property
    def running(self) -> list[int]:
        """Candidates whose values it waits for."""
        return [self._candidate(trial) for trial in self._all() if trial.state == TrialState.RUNNING]

    @property
    def values(self) -> dict[int, float]:
        """What was tried, and how good it is."""
        return {self._candidate(t): t.values[0] for t in self._all() if t.state == TrialState.COMPLETE}

    @property
    def ended(self) -> bool:
        """All trials were made, or TPE has asked for a candidate again."""
        tried = [self._candidate(trial) for trial in self._all()]
        return not self.running and (len(set(tried)) >= self.trials or len(set(tried)) < len(tried))

    def resume(self, look: Look) -> None:
        """Keep the trials that ``look`` confirms and those that run; try the candidates of all others again."""
        trials = self._all()
        good = [self._is_ours(trial) and self._stands(trial, look) for trial in trials]
        if all(good):
            return
        optuna.delete_study(study_name=self.name, storage=self.storage)
        self._open()
        begun: set[int] = set()
        for trial, stands in zip(trials, good, strict=True):
            if stands:
                self._study.add_trial(trial)
            elif self._is_ours(trial) and self._candidate(trial) not in begun:
                begun.add(self._candidate(trial))
                self._start(trial.params[PARAMETER])

    def advance(self, look: Look) -> None:
        """Tell what is known by now, and ask for more."""
        while True:
            for trial in self._all():
                if trial.state == TrialState.RUNNING and (value := look(self._candidate(trial))) is not None:
                    state = TrialState.COMPLETE if math.isfinite(value) else TrialState.FAIL
                    self._study.tell(trial.number, value if math.isfinite(value) else None, state=state)
            if self.running or self.ended:
                return
            self._ask()

    def _ask(self) -> None:
        count, first = len(self.candidates), math.ceil(FIRST * self.trials)
        if not self._all():
            for i in range(first):
                self._start((2 * i + 1) * count // (2 * first))
        else:
            self._study.sampler = _Anew(seed_of(self.name, len(self._all())) % 2**32)
            self._study.ask(self._space)

    def _start(self, index: int) -> None:
        self._study.enqueue_trial({PARAMETER: index})
        self._study.ask(self._space)

    def _open(self) -> None:
        self._space: dict[str, BaseDistribution] = {PARAMETER: IntDistribution(0, len(self.candidates) - 1)}
        try:
            self._study = optuna.load_study(study_name=self.name, storage=self.storage)
        except KeyError:
            self._study = optuna.create_study(study_name=self.name, storage=self.storage, direction="maximize")

    def _all(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    def _candidate(self, trial: FrozenTrial) -> int:
        return self.candidates[trial.params[PARAMETER]]

    def _is_ours(self, trial: FrozenTrial) -> bool:
        return trial.distributions == self._space

    def _stands(self, trial: FrozenTrial, look: Look) -> bool:
        if trial.state == TrialState.COMPLETE:
            return trial.values[0] == look(self._candidate(trial))
        return trial.state == TrialState.RUNNING


class _Anew(TPESampler):
    """TPE that draws again where it would repeat a trial."""

    def __init__(self, seed: int) -> None:
        super().__init__(n_startup_trials=1, n_ei_candidates=CHOICES, multivariate=False, seed=seed)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        tried = {t.params[param_name] for t in study.get_trials(deepcopy=False) if t.number != trial.number}
        value = super().sample_independent(study, trial, param_name, param_distribution)
        for _ in range(DRAWS - 1):
            if value not in tried:
                break
            value = super().sample_independent(study, trial, param_name, param_distribution)
        return value


# ------------------------------------------------------------------ live


class Studies:
    """The studies of one sweep, which release what they choose into a schedule that runs.

    Their journal is a cache of decisions, under ``studies/`` of the root, to be looked at with Optuna's own tools. The
    truth is the store: a value that it does not bear out is had again, and a journal that is gone is made again.
    """

    def __init__(
        self,
        name: str,
        trials: int,
        points: Iterable[Point],
        plan: Plan,
        schedule: Schedule,
        records: Mapping[str, Record],
        store: Store,
        note: Callable[[str], None],
    ) -> None:
        """name: of the sweep and its scale. points: of the grid; those that are not rewound are no candidates.

        schedule: whatever else runs, begun already. records: what was done before. note: takes a sentence for the user.
        """
        self.plan, self.schedule, self.records, self.store, self.note = plan, schedule, dict(records), store, note
        self._pending = {job.id for job in plan.pending(records)}
        self._points = grid(points)
        self._needed: dict[tuple[Key, int], list[Job]] = {}
        self._journal, storage = _opened(store, f"studies/{name}.journal", note)
        self.studies: dict[Key, Study] = {}
        for key, candidates in self._points.items():
            steps = [(p.step.id, p.metric) for points in candidates.values() for p in points]
            seeds = len(next(iter(candidates.values())))
            title = f"{key[0]}, level {key[1]}, {seeds} seeds, {seed_of(*steps):016x}"
            study = self.studies[key] = Study(title, list(candidates), trials, storage)
            study.resume(self._look(key))

    def advance(self) -> None:
        """Release what the studies want next; at the start, and after every job that ended, well or not."""
        for key, study in self.studies.items():
            study.advance(self._look(key))
        self._journal.save()  # before anything runs that it does not know of
        wanted = [job for key, study in self.studies.items() for c in study.running for job in self._jobs(key, c)]
        self.schedule.add(wanted)

    @property
    def ended(self) -> bool:
        return all(study.ended for study in self.studies.values())

    @property
    def tried(self) -> dict[tuple[str, int, int], float]:
        """(task, level, rewind) to value, of all that was tried."""
        return {(*key, rewind): value for key, study in self.studies.items() for rewind, value in study.values.items()}

    @property
    def best(self) -> dict[Key, int]:
        """The rewind that is best of those tried, the earliest of equals; no entry where nothing succeeded."""
        found = {key: study.values for key, study in self.studies.items()}
        return {key: max(sorted(values), key=values.__getitem__) for key, values in found.items() if values}

    def _look(self, key: Key) -> Look:
        return lambda candidate: self._value(key, candidate)

    def _value(self, key: Key, candidate: int) -> float | None:
        jobs, schedule = self._jobs(key, candidate), self.schedule
        if any(job.id in schedule.failed or job.id in schedule.skipped for job in jobs):
            return math.nan
        if any(i not in schedule.jobs or i in schedule.waiting or i in schedule.running for i in (j.id for j in jobs)):
            return None
        return fmean(self._metric(point) for point in self._points[key][candidate])

    def _metric(self, point: Point) -> float:
        if point.step.id not in self.records:
            try:
                record = self.store.record(point.step.id)
            except Damaged as damage:
                self.note(f"step {damage.step_id}: {damage.why}; the search goes on without it")
                record = None
            if record is None:
                return math.nan
            self.records[point.step.id] = record
        return self.records[point.step.id].metrics.get(point.metric, math.nan)

    def _jobs(self, key: Key, candidate: int) -> list[Job]:
        """What was yet to be done for it when the run began, parents before children."""
        if (key, candidate) not in self._needed:
            behind = self.plan.behind(self._points[key][candidate])
            self._needed[key, candidate] = [job for job in behind if job.id in self._pending]
        return self._needed[key, candidate]


def grid(points: Iterable[Point]) -> dict[Key, dict[int, list[Point]]]:
    """The points of each study: rewind to a point for each seed, in order.

    Raises ValueError where a mean over seeds would be no fair comparison.
    """
    found: dict[Key, dict[int, list[Point]]] = {}
    for point in sorted(points, key=lambda point: point.seed):
        if isinstance(point.step.start, Rewind):
            found.setdefault((point.task, point.level), {}).setdefault(point.step.start.samples, []).append(point)
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


class Journal(BaseJournalBackend):
    """Optuna's journal as a file of the store, in the format of its JournalFileBackend; written whole by ``save``."""

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
    """The journal; an empty one in the place of one that can't be read."""
    try:
        data = store.read(name)
    except FileNotFoundError:
        data = b""
    try:
        journal = Journal(store, name, data)
        return journal, JournalStorage(journal)
    except Exception:  # whatever Optuna makes of lines that are not its own
        aside = f"damaged/{name.rpartition('/')[2]}-{uuid.uuid4().hex[:8]}"
        store.write(aside, data)
        note(f"{name} can't be read; set aside in {store.path(aside)}, and begun anew from what is trained")
        journal = Journal(store, name)
        return journal, JournalStorage(journal)


# ------------------------------------------------------------------ afterwards


def importances(tried: Mapping[tuple[str, int, int], float]) -> dict[str, float]:
    """How much of the variance the task, the level and the rewind explain (fANOVA), the most important first.

    tried: (task, level, rewind) to value. Within one study the rewind is the only parameter and explains all, hence
    over all of them together. The levels and rewinds count by their ranks. Empty where there is nothing to explain.
    """
    if len(tried) < 4 or len(set(tried.values())) == 1:
        return {}
    names = ("task", "level", PARAMETER)
    known = {name: sorted({place[i] for place in tried}) for i, name in enumerate(names)}
    space: dict[str, BaseDistribution] = {
        "task": CategoricalDistribution(known["task"]),
        "level": IntDistribution(0, len(known["level"]) - 1),
        PARAMETER: IntDistribution(0, len(known[PARAMETER]) - 1),
    }
    study = optuna.create_study(direction="maximize")
    for (task, level, rewind), value in sorted(tried.items()):
        params = {"task": task, "level": known["level"].index(level), PARAMETER: known[PARAMETER].index(rewind)}
        study.add_trial(create_trial(params=params, distributions=space, value=value))
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return optuna.importance.get_param_importances(study, evaluator=evaluator)
