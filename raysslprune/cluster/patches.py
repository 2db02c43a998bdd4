"""Every private part of Ray that this package patches or uses; no other module touches one.

Ray promises nothing about these names, so pyproject.toml allows one minor version of it. Each function below says what
Ray does, why that does not suit a sweep, what is done instead, and what to do when Ray changes. All of it was read and
run in Ray 2.60.0.

To move to another Ray: change REQUIREMENT and pyproject.toml and run the tests of this module, which hold each name,
its parameters and what it does against the Ray that is installed. A sweep on a Ray that differs ends with a sentence
before it starts: :func:`check`.
"""

from __future__ import annotations

import atexit
import inspect
import pkgutil
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import ray

from raysslprune.cluster.ray_thread import ClusterError

REQUIREMENT = "ray[default,tune,train]>=2.60,<2.61"
"""The versions that the names below were read in, as in pyproject.toml."""


@dataclass(frozen=True)
class Private:
    """A private name of Ray, and what this package relies on about it.

    name: ``module:name``, or that of an attribute or keyword, which only shows in ``used_in``. takes: its parameters.
    used_in: a function of Ray that looks the name up whenever it is called, so that a patch takes effect.
    """

    name: str
    takes: tuple[str, ...] | None = None
    used_in: str = ""

    def difference(self) -> str:
        """How the installed Ray differs from that; '' if it does not."""
        try:
            if ":" in self.name:
                found = pkgutil.resolve_name(self.name)
                if self.takes is not None and tuple(inspect.signature(found).parameters) != self.takes:
                    return "takes other parameters"
            if self.used_in:
                code = inspect.unwrap(pkgutil.resolve_name(self.used_in)).__code__
                if self.name.rpartition(":")[2].rpartition(".")[2] not in (*code.co_names, *code.co_consts):
                    return f"is not used in {self.used_in}"
        except (ImportError, AttributeError):
            return "is missing"
        except (TypeError, ValueError):  # no function any more
            return "takes other parameters"
        return ""


_MODULE = "ray.tune.execution.tune_controller"
_CONTROLLER = f"{_MODULE}:TuneController"
_CACHE = "ray.tune.utils.object_cache:_ObjectCache"
_METADATA = "ray.tune.experiment.trial:_TrainingRunMetadata"

NAMES = (
    Private(f"{_CONTROLLER}._maybe_reuse_cached_actor", ("self", "trial"), f"{_CONTROLLER}._schedule_trial_actor"),
    Private("_trial_to_actor", used_in=f"{_CONTROLLER}.__init__"),
    Private("_resetting_trials", used_in=f"{_CONTROLLER}.__init__"),
    Private(f"{_MODULE}:_ObjectCache", ("may_keep_one",), f"{_CONTROLLER}.__init__"),
    Private(f"{_CACHE}.has_cached_object", ("self", "key")),
    Private(f"{_CACHE}.cache_object", ("self", "key", "obj")),
    Private(f"{_CACHE}.pop_cached_object", ("self", "key")),
    Private(f"{_CACHE}.flush_cached_objects", ("self", "force_all")),
    Private("_cached_objects", used_in=f"{_CACHE}.__init__"),
    Private("_num_cached_objects", used_in=f"{_CACHE}.__init__"),
    Private("_max_num_objects", used_in=f"{_CACHE}.__init__"),
    Private(f"{_CONTROLLER}._get_trial_checkpoints", ("self",), f"{_CONTROLLER}.save_to_dir"),
    Private(f"{_MODULE}:PlacementGroupResourceManager", ("update_interval_s",), f"{_CONTROLLER}.__init__"),
    Private(f"{_MODULE}:PlacementGroupResourceManager.clear", ("self",)),
    Private(
        "ray.tune.execution.class_cache:ENV_VARS_TO_PROPAGATE",
        used_in="ray.tune.execution.class_cache:_ActorClassCache.get",
    ),
    Private("run_metadata", used_in="ray.tune.experiment:Trial.__init__"),
    Private("metric_analysis", used_in=f"{_METADATA}.__init__"),
    Private("metric_n_steps", used_in=f"{_METADATA}.__init__"),
    Private("ray._private.ray_constants:ENABLE_RAY_CLUSTER", used_in="ray._private.services:get_node_ip_address"),
    Private(
        "ray._private.ray_constants:RAY_ENABLE_UV_RUN_RUNTIME_ENV",
        used_in="ray._private.worker:_maybe_modify_runtime_env",
    ),
    Private("_temp_dir", used_in="ray._private.worker:init"),
    Private("ray._common.utils:get_default_ray_temp_dir", ()),
    Private("ray._private.worker:get_dashboard_url", ()),
    Private("ray._raylet:Config.initialize", ("config_list",)),
    Private("ray._raylet:AuthenticationTokenLoader.instance", ()),
    Private("ray._raylet:AuthenticationTokenLoader.reset_cache", ("self",)),
    Private("ray.tune.registry:_unregister_all", (), "ray.tune.registry:_Registry._register_atexit"),
    Private("ray._raylet:setproctitle", ("title",)),
    Private("ray.train.v2._internal.exceptions:WorkerHealthCheckTimeoutError"),
    Private("ray.train.v2._internal.exceptions:WorkerHealthCheckFailedError"),
)


def check() -> None:
    """Raise ClusterError unless the installed Ray has all of NAMES, as they were read."""
    different = [f"{one.name} {difference}" for one in NAMES if (difference := one.difference())]
    if different:
        others = f", and {len(different) - 1} more differ" if len(different) > 1 else ""
        raise ClusterError(
            f"Ray {ray.__version__} is not one that raysslprune can use: its {different[0]}{others}; "
            f"install {REQUIREMENT}"
        )


# ------------------------------------------------------------------------------------- Tune, for one run


@contextmanager
def trials_await_own_worker(patience: float) -> Iterator[None]:
    """Let a trial whose worker is starting wait for that worker, for at most ``patience`` seconds.

    Ray: Tune gives such a trial the first worker that becomes free and cancels the start of its own
    (https://github.com/ray-project/ray/pull/36020 says why).
    Unsuitable: a worker needs seconds to start and import torch, a small training less. So after a moment with one
    ready job, or the death of a worker, every start was cancelled and one worker did the rest of the sweep.
    Instead: ``_maybe_reuse_cached_actor`` answers no while the trial's own worker starts. After ``patience`` it
    answers as Tune's: that worker may not be able to start at all.
    When Ray changes: drop this patch if Tune lets started workers finish starting; else find what replaced the method
    that swaps a trial's worker, and the two collections that tell which trials have one or are being reset.
    """
    controller: Any = pkgutil.resolve_name(_CONTROLLER)
    swap = controller._maybe_reuse_cached_actor
    asked: dict[str, float] = {}

    def patient(self: Any, trial: Any) -> bool:
        if trial in self._trial_to_actor and trial not in self._resetting_trials:  # its own worker is starting
            now = time.monotonic()
            if now - asked.setdefault(trial.trial_id, now) < patience:
                return False
        asked.pop(trial.trial_id, None)
        return swap(self, trial)

    with mock.patch.object(controller, "_maybe_reuse_cached_actor", patient):
        yield


def _tune_cache() -> Any:
    try:
        return pkgutil.resolve_name(_CACHE)
    except (ImportError, AttributeError):
        return object


TuneCache: Any = _tune_cache()
"""Tune's cache of free workers, to derive from; ``object`` where Ray has none, which :func:`check` reports."""


def free_workers_kept_in(cache: Any) -> AbstractContextManager[object]:
    """Have Tune keep its free workers in ``cache``, a :data:`TuneCache`.

    Ray: Tune's own cache ends all free workers but one unless trials wait for them
    (https://github.com/ray-project/ray/pull/31974).
    Unsuitable: most jobs of a sweep become ready when another ends, so workers are often free for a moment; each
    ended one costs seconds to start again.
    Instead: what reuse.FreeWorkers decides. It overrides the methods that keep, give and end workers.
    When Ray changes: drop this patch if Tune takes a number of workers to keep; else see what TuneController makes in
    place of ``_ObjectCache``, and how FreeWorkers' overrides map to it.
    """

    def given(may_keep_one: bool) -> Any:
        return cache

    return mock.patch(f"{_MODULE}._ObjectCache", given)


def trials_not_saved() -> AbstractContextManager[object]:
    """Have Tune save nothing about its trials.

    Ray: Tune pickles each trial when it changes, so that an experiment can be restored: milliseconds a trial, more
    with many (https://github.com/ray-project/ray/issues/11233), and no setting turns it off.
    Unsuitable: the store is the memory of a sweep; Tune is never asked to restore anything.
    Instead: ``_get_trial_checkpoints`` gives an empty mapping and pickles nothing.
    When Ray changes: drop this patch if saving can be turned off; else see what ``TuneController.save_to_dir`` calls.
    """

    def nothing(self: Any) -> dict[str, str]:
        return {}

    return mock.patch(f"{_MODULE}.TuneController._get_trial_checkpoints", nothing)


def resource_manager() -> Any:
    """Tune's holder of workers' resources, for :func:`resources_held_by`; its ``clear()`` ends all that it holds."""
    return pkgutil.resolve_name(f"{_MODULE}:PlacementGroupResourceManager")()


def resources_held_by(manager: Any) -> AbstractContextManager[object]:
    """Have Tune hold its workers' resources by ``manager``.

    Ray: Tune makes a PlacementGroupResourceManager of its own that nobody else can reach.
    Unsuitable: an interrupted Tune leaves its workers behind, on a cluster that lives on; only their placement groups
    lead to them.
    Instead: Tune gets ``manager``, which the caller clears.
    When Ray changes: drop this patch if ``tune.Tuner`` takes a ``resource_manager_factory``, as TuneController does;
    else see what TuneController.__init__ makes where it is given none.
    """

    def given() -> Any:
        return manager

    return mock.patch(f"{_MODULE}.PlacementGroupResourceManager", given)


def workers_given(variables: Collection[str]) -> AbstractContextManager[object]:
    """Have Tune set these of this process's environment variables in its workers, too, and none of AWS's keys.

    Ray: Tune sets a fixed list, AWS's keys among them, by a runtime environment, which each node logs in plain text
    (https://github.com/ray-project/ray/issues/28276).
    Unsuitable: keys do not belong in logs, and the nodes have their own; and ``variables`` are not on that list.
    Instead: the list without AWS's and with ``variables``.
    When Ray changes: see where ``_ActorClassCache.get`` has its names from. Never drop this while the list has keys.
    """
    names: set[str] = pkgutil.resolve_name("ray.tune.execution.class_cache:ENV_VARS_TO_PROPAGATE")
    wanted = {name for name in names if not name.startswith("AWS_")} | set(variables)
    return mock.patch("ray.tune.execution.class_cache.ENV_VARS_TO_PROPAGATE", wanted)


def forget_statistics(trial: Any) -> None:
    """Drop Tune's statistics over the results of a trial that has ended.

    Ray: Tune keeps each trial to the end, with the statistics of each of its metrics: half of some 90 kB.
    Unsuitable: a sweep has thousands of trials with one result each, which nobody asks Tune for.
    Instead: ``run_metadata.metric_analysis`` and ``metric_n_steps`` are emptied.
    When Ray changes: drop this if Tune lets go of ended trials; tests/faults/test_memory.py measures what one costs.
    """
    trial.run_metadata.metric_analysis.clear()
    trial.run_metadata.metric_n_steps.clear()


# ------------------------------------------------------------------------------------- a Ray that starts or ends


def on_localhost() -> AbstractContextManager[object]:
    """Have a Ray that starts meanwhile listen on 127.0.0.1 alone, all of its parts.

    Ray: it listens on all of the machine's addresses, except on macOS and Windows
    (https://github.com/ray-project/ray/pull/31166 has the variable that says so).
    Unsuitable: a Ray for one sweep on one machine has no business on the network.
    Instead: the constant that Ray reads from RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER is False. The variable itself would be
    inherited by whatever this process starts, a ``ray start`` too, which it makes fail.
    When Ray changes: drop this if ``ray.init`` takes the address to listen on; else see what
    ``services.get_node_ip_address`` reads.
    """
    return mock.patch("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)


def uv_environments(on: bool) -> AbstractContextManager[object]:
    """Have ``ray.init`` build an environment of uv's for each worker only if ``on``, and Ray was to do so.

    Ray: in a process under ``uv run`` it does (https://github.com/ray-project/ray/pull/53060), unless
    RAY_ENABLE_UV_RUN_RUNTIME_ENV is 0 when Ray is imported.
    Unsuitable: it copies the folder and costs each worker seconds; a sweep's workers use this process's environment.
    Instead: the constant that Ray read from that variable is False meanwhile, also where Ray was imported before.
    When Ray changes: drop this if ``ray.init`` takes a switch, or reads the variable when it is called.
    """
    constants: Any = pkgutil.resolve_name("ray._private.ray_constants")
    wanted = on and constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
    return mock.patch.object(constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", wanted)


def temporary_folder(folder: str | None) -> dict[str, Any]:
    """The argument of ``ray.init`` that has Ray put its files into ``folder``; None: where :func:`default_folder` says.

    Ray: a Ray that starts takes ``_temp_dir``, without any promise.
    Unsuitable: its own choice may be too long for its sockets, or another user's: see cluster.sockets.
    When Ray changes: see what ``ray.init`` takes in its place, or set RAY_TMPDIR.
    """
    return {"_temp_dir": folder}


def default_folder() -> str:
    """Where Ray puts its files by itself: ``ray`` in RAY_TMPDIR, TMPDIR or /tmp.

    When Ray changes: this is ``get_default_ray_temp_dir``; it has no public equivalent.
    """
    return pkgutil.resolve_name("ray._common.utils:get_default_ray_temp_dir")()


def dashboard_address() -> str:
    """The address of the connected Ray's dashboard; '' if there is none.

    Ray: only ``ray.init`` gives it publicly, to its caller.
    Unsuitable: a notebook may have called that, before its sweep.
    When Ray changes: see what ``ray.init`` has its ``dashboard_url`` from.
    """
    return pkgutil.resolve_name("ray._private.worker:get_dashboard_url")() or ""


def read_environment_again() -> None:
    """Have Ray read again from the environment whether it asks for a token, and which.

    Ray: its C++ part reads RAY_AUTH_MODE and RAY_AUTH_TOKEN when it is imported, and keeps them.
    Unsuitable: a sweep sets them for the Ray that it starts, and restores them, so that a Ray that the same program
    starts later is as the user wants it. The mode would stay otherwise
    (https://github.com/ray-project/ray/pull/64755).
    Instead: both are read again, as Ray's own tests do.
    When Ray changes: see ray/_private/authentication_test_utils.py.
    """
    raylet: Any = pkgutil.resolve_name("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def drop_exit_hooks() -> None:
    """Let this program end without asking a Ray that does not answer.

    Ray: it registers ``ray.shutdown`` with atexit, and Tune ``registry._unregister_all``.
    Unsuitable: where the raylet or the head has died, both wait for ever
    (https://github.com/ray-project/ray/issues/29431 is one such hang).
    Instead: neither is called.
    When Ray changes: see what else of it calls ``atexit.register``.
    """
    atexit.unregister(ray.shutdown)
    atexit.unregister(pkgutil.resolve_name("ray.tune.registry:_unregister_all"))


# ------------------------------------------------------------------------------------- workers


def set_process_title(title: str) -> None:
    """Name this worker's process, as the dashboard and ``ps`` show it, until Ray does so after the call.

    When Ray changes: nothing but the name is lost; the package setproctitle does the same.
    """
    pkgutil.resolve_name("ray._raylet:setproctitle")(title)


def health_check_errors() -> tuple[type[Exception], ...]:
    """What Ray Train reports of a worker that does not answer.

    Ray: these exceptions are not exported, unlike those that a worker raises.
    When Ray changes: see what WorkerGroupError.worker_failures holds for a worker that hangs.
    """
    names = ("WorkerHealthCheckTimeoutError", "WorkerHealthCheckFailedError")
    return tuple(pkgutil.resolve_name(f"ray.train.v2._internal.exceptions:{name}") for name in names)
