"""Workers that stay: how Tune uses a worker again from one trial to the next, mended in two places.

To start a worker takes seconds, with torch's import, and a small training is over before that. Tune 2.60 gives a trial
that waits for its own worker the first one that becomes free, and cancels the start; the next trial that waits asks for
another, whose start is cancelled in its turn. So after a moment with one ready job, or the death of a worker, one did
all the work for the rest of the sweep. And of workers that find nothing to do for a moment, Tune ends all but one.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.utils.object_cache import _ObjectCache

PATIENCE = 60.0
"""Seconds that a trial waits for its own worker's start while others are free, in case that can't start at all; and
that a worker waits for a trial: then its node may be given back."""


class Warm(tune.Callback):
    """Lets workers start, and keeps those that are free, while it is :meth:`held`; to be one of the run's callbacks."""

    def __init__(self) -> None:
        self.free = FreeWorkers()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Tune does so meanwhile, in one run."""
        module: Any = tune_controller
        controllers: Any = TuneController
        reuse, cache = controllers._maybe_reuse_cached_actor, module._ObjectCache
        asked: dict[str, float] = {}

        def patient(controller: TuneController, trial: Trial) -> bool:
            if trial in controller._trial_to_actor and trial not in controller._resetting_trials:  # its own starts
                now = time.monotonic()
                if now - asked.setdefault(trial.trial_id, now) < PATIENCE:
                    return False
            asked.pop(trial.trial_id, None)
            return reuse(controller, trial)

        controllers._maybe_reuse_cached_actor, module._ObjectCache = patient, lambda may_keep_one: self.free
        try:
            yield
        finally:
            controllers._maybe_reuse_cached_actor, module._ObjectCache = reuse, cache

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """A worker died: free ones may have died with it, as on a node that is gone, and nothing would tell."""
        self.free.trusted = False


class FreeWorkers(_ObjectCache):
    """By what they hold, as Tune's own; but all are kept for a while, as long as all hold the same.

    Where trainings have workers of several kinds, a free one would hold what another kind is waiting for.
    trusted: set to False, all that are free are ended, and none of them is used again.
    """

    def __init__(self) -> None:
        super().__init__(may_keep_one=True)
        self._free_since: dict[Any, float] = {}
        self.trusted = True

    @property
    def _alike(self) -> bool:
        return len(self._max_num_objects) < 2

    def has_cached_object(self, key: Any) -> bool:
        return self.trusted and super().has_cached_object(key)

    def cache_object(self, key: Any, obj: Any) -> bool:
        if not self._alike:
            return super().cache_object(key, obj)
        self._cached_objects[key].append(obj)
        self._num_cached_objects += 1
        self._free_since[obj] = time.monotonic()
        return True

    def pop_cached_object(self, key: Any) -> Any:
        found = super().pop_cached_object(key)
        self._free_since.pop(found, None)
        return found

    def flush_cached_objects(self, force_all: bool = False) -> Generator[Any]:
        """Those to end: the ones that were free for too long, but for one."""
        if force_all or not self._alike or not self.trusted:
            for ended in super().flush_cached_objects(force_all or not self.trusted):
                self._free_since.pop(ended, None)
                yield ended
            self.trusted = True
            return
        long_ago = time.monotonic() - PATIENCE
        for free in self._cached_objects.values():
            while len(free) > 1 and self._free_since[free[0]] < long_ago:  # the first is free for longest
                self._num_cached_objects -= 1
                del self._free_since[free[0]]
                yield free.pop(0)
