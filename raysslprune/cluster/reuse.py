"""Keep idle Tune workers alive (two patches to Ray 2.60).

To start a worker takes seconds, with torch's import, and a small training is over before that. So workers that Tune
has asked for are left to start, and those that are free are kept for a while. patches.trials_await_own_worker and
patches.free_workers_kept_in say what Tune does by itself; which workers stay is decided here.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from raysslprune.cluster import patches

PATIENCE = 60.0
"""Seconds that a trial waits for its own worker while others are free, in case it can't start at all; and that a free
worker is kept, before its node may be given back."""


class WorkerReuse(tune.Callback):
    """Lets workers start, and keeps free ones, in a run that is :meth:`patched` and has this among its callbacks."""

    def __init__(self) -> None:
        self.free = FreeWorkers()

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Patch Tune, for one run."""
        with patches.trials_await_own_worker(PATIENCE), patches.free_workers_kept_in(self.free):
            yield

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Distrust the free workers: a worker died, and they may have died with it, as on a node that is gone."""
        self.free.trusted = False


class FreeWorkers(patches.TuneCache):
    """Tune's cache of free workers by the resources that they hold, but one that keeps all of them for PATIENCE.

    Where trainings have workers of several kinds it keeps what Tune would: a free worker would hold what another kind
    waits for. trusted: set to False, all free workers are ended, and none of them is used again.
    """

    def __init__(self) -> None:
        super().__init__(may_keep_one=True)
        self._free_since: dict[Any, float] = {}
        self.trusted = True

    @property
    def _alike(self) -> bool:
        """True if all workers so far are of one kind."""
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
        """Yield the workers to end: those that were free for too long, all but one."""
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
