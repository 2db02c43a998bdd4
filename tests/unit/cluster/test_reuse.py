"""The workers that are kept, compared with Tune's own cache."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.execution import tune_controller
from ray.tune.execution.tune_controller import TuneController
from ray.tune.utils.object_cache import _ObjectCache

from raysslprune.cluster.reuse import PATIENCE, FreeWorkers, WorkerReuse, time


class Clock:
    """A clock in seconds, advanced by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_free_workers_stay_and_tunes_own_do_not(clock: Clock) -> None:
    ours, tunes = FreeWorkers(), _ObjectCache(may_keep_one=True)
    for cache in (ours, tunes):
        for name in "abc":
            cache.increase_max("core")
            cache.decrease_max("core")
            cache.cache_object("core", name)
    assert (ours.num_cached_objects, tunes.num_cached_objects) == (3, 1)
    clock.now += PATIENCE - 1
    assert list(ours.flush_cached_objects()) == []
    assert [ours.pop_cached_object("core") for _ in range(4)] == ["a", "b", "c", None]
    assert ours.num_cached_objects == 0


def test_who_was_free_for_too_long_is_ended_but_for_one(clock: Clock) -> None:
    free = FreeWorkers()
    for name in "abcd":
        assert free.cache_object("core", name)
        clock.now += 10
    clock.now += PATIENCE - 25
    assert list(free.flush_cached_objects()) == ["a", "b"]
    assert free.pop_cached_object("core") == "c"
    assert free.cache_object("core", "c")
    clock.now += 10 * PATIENCE
    assert list(free.flush_cached_objects()) == ["d"]
    assert list(free.flush_cached_objects()) == []
    assert list(free.flush_cached_objects(force_all=True)) == ["c"]
    assert (free.num_cached_objects, free._free_since) == (0, {})


def test_after_a_death_those_that_are_free_are_ended(clock: Clock) -> None:
    keeper = WorkerReuse()
    for name in "abc":
        keeper.free.cache_object("core", name)
    trial: Any = None
    keeper.on_trial_error(1, [], trial)
    assert not keeper.free.has_cached_object("core")
    assert keeper.free.pop_cached_object("core") is None
    assert list(keeper.free.flush_cached_objects()) == ["a", "b", "c"]
    assert keeper.free.cache_object("core", "d")
    assert keeper.free.pop_cached_object("core") == "d"


@given(st.lists(st.tuples(st.sampled_from(["more", "fewer", "cache", "pop", "flush", "all"]), st.sampled_from("xy"))))
def test_where_workers_are_of_several_kinds_they_are_kept_as_tune_does(calls: list[tuple[str, str]]) -> None:
    caches: list[Any] = [FreeWorkers(), _ObjectCache(may_keep_one=True)]
    for cache in caches:
        cache.increase_max("x")
        cache.increase_max("y")
    for number, (call, key) in enumerate(calls):
        answers = []
        for cache in caches:
            if call in ("more", "fewer"):
                if call == "fewer" and not cache._max_num_objects[key]:
                    continue
                getattr(cache, {"more": "increase_max", "fewer": "decrease_max"}[call])(key)
                answers.append(cache.total_max_objects)
            elif call == "cache":
                answers.append(cache.cache_object(key, number))
            elif call == "pop":
                answers.append(cache.pop_cached_object(key))
            else:
                answers.append(list(cache.flush_cached_objects(call == "all")))
        assert answers[:1] == answers[1:]
        assert caches[0].num_cached_objects == caches[1].num_cached_objects


@dataclass(frozen=True)
class Trial:
    trial_id: str


def test_a_trial_waits_for_its_own_worker_but_not_for_ever(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The return values say what Tune does next."""
    given: list[str] = []

    def take(_: object, trial: Any) -> bool:
        given.append(trial.trial_id)
        return True

    monkeypatch.setattr(TuneController, "_maybe_reuse_cached_actor", take)
    new, starting, resetting = (Trial(name) for name in ("new", "starting", "resetting"))
    controller: Any = SimpleNamespace(
        _trial_to_actor={starting: "its own", resetting: "another"},
        _resetting_trials=[resetting],
        _actor_manager=SimpleNamespace(is_actor_started=lambda actor: True),
    )
    with WorkerReuse().patched():
        reuse: Any = TuneController._maybe_reuse_cached_actor
        assert [reuse(controller, trial) for trial in (new, starting, resetting)] == [True, False, True]
        clock.now += PATIENCE - 1
        assert not reuse(controller, starting)
        clock.now += 2
        assert reuse(controller, starting)
        assert not reuse(controller, starting), "lost again, and waiting again"
    assert given == ["new", "resetting", "starting"]


def test_tune_is_as_it_was_afterwards() -> None:
    tune: Any = tune_controller
    keeper = WorkerReuse()
    before = TuneController._maybe_reuse_cached_actor, tune._ObjectCache
    with contextlib.suppress(KeyError), keeper.patched():
        assert tune._ObjectCache(may_keep_one=True) is keeper.free
        assert TuneController._maybe_reuse_cached_actor is not before[0]
        raise KeyError
    assert (TuneController._maybe_reuse_cached_actor, tune._ObjectCache) == before
