"""Keep idle Tune workers alive (two patches to Ray 2.60).

Starting a worker takes seconds, because it imports torch; a small training takes less. So workers that Tune has asked
for may finish starting, and free ones are kept for a while. patches.trials_await_own_worker and
patches.free_workers_kept_in say what Tune does by itself; this module decides which workers stay.
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
"""Maximum seconds that a trial waits for its own worker while others are free, since that one may be unable to start;
also the seconds that a free worker is kept, after which its node may be released."""


class WorkerReuse(tune.Callback):
    """Callback that makes Tune reuse workers, for a run inside :meth:`patched`."""

    def __init__(self) -> None:
        self.free = FreeWorkers()

    @contextmanager
    def patched(self) -> Iterator[None]:
        """Patch Tune, for one run."""
        with patches.trials_await_own_worker(PATIENCE), patches.free_workers_kept_in(self.free):
            yield

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Distrust the free workers: they may have died with this one, such as on a lost node."""
        self.free.trusted = False


class FreeWorkers(patches.TuneCache):
    """Tune's cache of free workers by their resources, changed to keep all of them for PATIENCE seconds.

    If workers differ in their resources, it keeps only those that Tune would keep: a free worker would occupy resources
    that another kind waits for. trusted: set this to False to end all free workers without using them again.
    """

    def __init__(self) -> None:
        super().__init__(may_keep_one=True)
        self._free_since: dict[Any, float] = {}
        self.trusted = True

    @property
    def _alike(self) -> bool:
        """True if all workers so far have the same resources."""
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
        """Yield the workers to end: those that were free for too long; one always stays."""
        if force_all or not self._alike or not self.trusted:
            for ended in super().flush_cached_objects(force_all or not self.trusted):
                self._free_since.pop(ended, None)
                yield ended
            self.trusted = True
            return
        long_ago = time.monotonic() - PATIENCE
        for free in self._cached_objects.values():
            while len(free) > 1 and self._free_since[free[0]] < long_ago:  # the first has been free for longest
                self._num_cached_objects -= 1
                del self._free_since[free[0]]
                yield free.pop(0)
