"""Every private part of Ray that this package patches or uses; no other module touches one.

Ray promises nothing about these names, so pyproject.toml allows one minor version of it. Each function below says what
Ray does, why that does not suit a sweep, what is done instead, and what to do when Ray changes. All of this was read
and run in Ray 2.60.0.

To move to another Ray: change REQUIREMENT and pyproject.toml, and run the tests of this module, which compare each
name, its parameters and its behaviour with the installed Ray. On a Ray that differs, a sweep ends with one sentence
before it starts: :func:`check`.
"""

from __future__ import annotations

import atexit
import inspect
import os
import pkgutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import ray

from raysslprune.cluster.ray_thread import ClusterError

REQUIREMENT = "ray[default,tune,train]>=2.60,<2.61"
"""Supported versions, as in pyproject.toml: those in which the names below were read."""


@dataclass(frozen=True)
class Private:
    """A private name of Ray, and what this package relies on about it.

    name: ``module:name``, or the name of an attribute or keyword that only ``used_in`` shows. takes: its parameters.
    used_in: a function of Ray that looks the name up whenever it is called, so that a patch takes effect.
    """

    name: str
    takes: tuple[str, ...] | None = None
    used_in: str = ""

    def difference(self) -> str:
        """Return how the installed Ray differs from this description; '' if it does not."""
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
        except (TypeError, ValueError):  # no longer a function
            return "takes other parameters"
        return ""


_MODULE = "ray.tune.execution.tune_controller"
_CONTROLLER = f"{_MODULE}:TuneController"
_CACHE = "ray.tune.utils.object_cache:_ObjectCache"
_ACTORS = "ray.air.execution._internal.actor_manager:RayActorManager"
_PARAMETERS = "ray._private.parameter"
_USAGE = "ray.air._internal.usage"
_TRIAL = "ray.tune.experiment:Trial"

NAMES = (
    Private(f"{_CONTROLLER}._maybe_reuse_cached_actor", ("self", "trial"), f"{_CONTROLLER}._schedule_trial_actor"),
    Private("_trial_to_actor", used_in=f"{_CONTROLLER}.__init__"),
    Private("_resetting_trials", used_in=f"{_CONTROLLER}.__init__"),
    Private("_actor_manager", used_in=f"{_CONTROLLER}.__init__"),
    Private(f"{_ACTORS}.is_actor_started", ("self", "tracked_actor")),
    Private(f"{_ACTORS}.clear_actor_task_futures", ("self", "tracked_actor")),
    Private(f"{_CONTROLLER}._schedule_trial_train", ("self", "trial"), f"{_CONTROLLER}._execute_action"),
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
    Private("_acquired_pgs", used_in=f"{_MODULE}:PlacementGroupResourceManager.__init__"),
    Private(
        "ray.tune.execution.class_cache:ENV_VARS_TO_PROPAGATE",
        used_in="ray.tune.execution.class_cache:_ActorClassCache.get",
    ),
    Private(
        "ray.tune.execution.class_cache:DEFAULT_ENV_VARS",
        used_in="ray.tune.execution.class_cache:_ActorClassCache.get",
    ),
    Private(f"{_USAGE}:tag_callbacks", ("callbacks",), "ray.tune.tune:run"),
    Private(f"{_CONTROLLER}.on_step_end", ("self",), f"{_CONTROLLER}.step"),
    Private("_trials", used_in=f"{_CONTROLLER}.add_trial"),
    Private("_live_trials", used_in=f"{_CONTROLLER}.add_trial"),
    Private("_trials_to_cache", used_in=f"{_CONTROLLER}._mark_trial_to_checkpoint"),
    Private("_stopped_trials", used_in=f"{_CONTROLLER}._set_trial_status"),
    Private("_failed_trials", used_in=f"{_CONTROLLER}._set_trial_status"),
    Private("temporary_state", used_in=f"{_TRIAL}.set_ray_actor"),
    Private("ray_actor", used_in=f"{_TRIAL}.set_ray_actor"),
    Private(f"{_PARAMETERS}:RayParams", used_in="ray._private.worker:init"),
    Private("dashboard_agent_listen_port", used_in=f"{_PARAMETERS}:RayParams.__init__"),
    Private("ray._private.ray_constants:ENABLE_RAY_CLUSTER", used_in="ray._private.services:get_node_ip_address"),
    Private(
        "ray._private.ray_constants:RAY_ENABLE_UV_RUN_RUNTIME_ENV",
        used_in="ray._private.worker:_maybe_modify_runtime_env",
    ),
    Private("ray._common.utils:get_default_ray_temp_dir", ()),
    Private("ray._private.worker:get_dashboard_url", ()),
    Private("ray._private.state:GlobalState.get_cluster_config", ("self",)),
    Private("ray._private.state:GlobalState.get_max_resources_from_cluster_config", ("self",)),
    Private("ray._private.state:state"),
    Private("ray._private.utils:get_ray_address_file", ("temp_dir",), "ray._private.utils:read_ray_address"),
    Private("ray._private.services:find_gcs_addresses", ()),
    Private("ray._private.services:get_ray_address_from_environment", ("addr", "temp_dir")),
    Private("ray._raylet:Config.initialize", ("config_list",)),
    Private("ray._raylet:AuthenticationTokenLoader.instance", ()),
    Private("ray._raylet:AuthenticationTokenLoader.reset_cache", ("self",)),
    Private("ray.tune.registry:_unregister_all", (), "ray.tune.registry:_Registry._register_atexit"),
    Private("ray._raylet:setproctitle", ("title",)),
    Private("ray.train.v2._internal.exceptions:WorkerHealthCheckTimeoutError"),
    Private("ray.train.v2._internal.exceptions:WorkerHealthCheckFailedError"),
)


def check() -> None:
    """Raise ClusterError unless the installed Ray has all of NAMES as described."""
    different = [f"{one.name} {difference}" for one in NAMES if (difference := one.difference())]
    if different:
        others = f", and {len(different) - 1} more differ" if len(different) > 1 else ""
        raise ClusterError(
            f"Ray {ray.__version__} is not supported by raysslprune: {different[0]}{others}; install {REQUIREMENT}"
        )


# ------------------------------------------------------------------------------------- Tune, for one run


@contextmanager
def trials_await_own_worker(patience: float) -> Iterator[None]:
    """Let a trial whose worker is starting wait for that worker, for at most ``patience`` seconds.

    Ray: Tune gives such a trial the first worker that becomes free, and cancels the start of its own
    (https://github.com/ray-project/ray/pull/36020 says why).
    Unsuitable: a worker needs seconds to start and import torch, a small training less. So after a moment with only
    one ready job, or the death of a worker, every start was cancelled, and one worker did the rest of the sweep.
    Instead: ``_maybe_reuse_cached_actor`` returns False while the trial's own worker starts. After ``patience`` it
    calls Tune's own method, because that worker may be unable to start at all. A worker for which Ray has found no
    machine yet does not start: its trial takes the first free worker.
    When Ray changes: drop this patch if Tune lets workers finish starting; else find what replaced the method that
    swaps a trial's worker, the two collections that show which trials have one or are being reset, and the actor
    manager's way to say that a worker has its resources.
    """
    controller: Any = pkgutil.resolve_name(_CONTROLLER)
    swap = controller._maybe_reuse_cached_actor
    asked: dict[str, float] = {}

    def patient(self: Any, trial: Any) -> bool:
        own = self._trial_to_actor.get(trial)
        if own is not None and trial not in self._resetting_trials and self._actor_manager.is_actor_started(own):
            now = time.monotonic()
            if now - asked.setdefault(trial.trial_id, now) < patience:
                return False
        asked.pop(trial.trial_id, None)
        return swap(self, trial)

    with mock.patch.object(controller, "_maybe_reuse_cached_actor", patient):
        yield


TuneCache: Any = object
"""Base class: Tune's cache of free workers, or ``object`` if Ray has none, which :func:`check` reports."""
with suppress(ImportError, AttributeError):
    TuneCache = pkgutil.resolve_name(_CACHE)


def free_workers_kept_in(cache: Any) -> AbstractContextManager[object]:
    """Make Tune keep its free workers in ``cache``, a :data:`TuneCache`.

    Ray: Tune's own cache ends all free workers but one unless trials wait for them
    (https://github.com/ray-project/ray/pull/31974).
    Unsuitable: most jobs of a sweep become ready when another ends, so workers are often free for a moment. Restarting
    one that was ended costs seconds.
    Instead: reuse.FreeWorkers decides. It overrides the methods that keep, give and end workers.
    When Ray changes: drop this patch if the number of workers to keep becomes a parameter of Tune; else see what
    TuneController creates in place of ``_ObjectCache``, and how FreeWorkers' overrides map to it.
    """
    return mock.patch(f"{_MODULE}._ObjectCache", return_value=cache)


def trials_not_saved() -> AbstractContextManager[object]:
    """Make Tune save nothing about its trials.

    Ray: Tune pickles each trial when it changes, so that an experiment can be restored. This takes milliseconds a
    trial, more with many (https://github.com/ray-project/ray/issues/11233), and no setting turns it off.
    Unsuitable: the store says what is finished; Tune is never asked to restore anything.
    Instead: ``_get_trial_checkpoints`` returns an empty mapping and pickles nothing.
    When Ray changes: drop this patch if saving can be turned off; else see what ``TuneController.save_to_dir`` calls.
    """
    return mock.patch(f"{_MODULE}.TuneController._get_trial_checkpoints", return_value={})


@contextmanager
def resources_freed(unless: Callable[[], bool] = lambda: False) -> Iterator[Callable[[], int]]:
    """Free all resources of Tune's workers at the end, also after an interrupt. unless: called then; True frees none.

    Yields a function that returns how many workers have their resources: those that run, start, or are kept.

    Ray: Tune makes a PlacementGroupResourceManager that no other code can reach.
    Unsuitable: an interrupted Tune leaves its workers behind, on a cluster that continues to run; only their placement
    groups lead to them.
    Instead: Tune gets a manager that is made here, and cleared at the end. Its ``_acquired_pgs`` are the workers'.
    When Ray changes: drop this patch if ``tune.Tuner`` takes a ``resource_manager_factory``, as TuneController does;
    else see what TuneController.__init__ creates if it is given none.
    """
    manager = pkgutil.resolve_name(f"{_MODULE}:PlacementGroupResourceManager")()
    with mock.patch(f"{_MODULE}.PlacementGroupResourceManager", return_value=manager):
        try:
            yield lambda: len(manager._acquired_pgs)
        finally:
            if not unless():
                manager.clear()


def workers_given(variables: Collection[str]) -> AbstractContextManager[object]:
    """Make Tune copy ``variables``, besides its own list, from this process's environment to its workers; no AWS key.

    Ray: Tune sets a fixed list, AWS's keys among them, by a runtime environment, which each node logs in plain text
    (https://github.com/ray-project/ray/issues/28276).
    Unsuitable: keys do not belong in logs, and the nodes have their own; and ``variables`` are not on that list.
    Instead: Tune gets the list without AWS's keys and with ``variables``.
    When Ray changes: see where ``_ActorClassCache.get`` gets its names. Never drop this while the list has keys.
    """
    names: set[str] = pkgutil.resolve_name("ray.tune.execution.class_cache:ENV_VARS_TO_PROPAGATE")
    wanted = {name for name in names if not name.startswith("AWS_")} | set(variables)
    return mock.patch("ray.tune.execution.class_cache.ENV_VARS_TO_PROPAGATE", wanted)


@contextmanager
def workers_inherit() -> Iterator[None]:
    """Make Tune start its workers without a runtime environment, in processes that Ray has started beforehand.

    Ray: Tune gives its workers a runtime environment with at least PL_DISABLE_FORK, which is for Lightning. Such a
    worker never gets one of the processes that Ray starts with the node, as many as it has cores.
    Unsuitable: the processes of a Ray that this process has started have all its variables, and a new process is
    slower.
    Instead: Tune's two collections of variables are empty, and so is the environment.
    When Ray changes: see where ``_ActorClassCache.get`` gets its variables.
    """
    module = "ray.tune.execution.class_cache"
    with mock.patch(f"{module}.DEFAULT_ENV_VARS", {}), mock.patch(f"{module}.ENV_VARS_TO_PROPAGATE", set()):
        yield


def callbacks_not_counted() -> AbstractContextManager[object]:
    """Let Tune start without counting its callbacks.

    Ray: Tune counts those of a run by their kinds, for Ray's usage statistics, even if these are off. To tell the
    kinds apart it imports Ray's callbacks for MLflow and others, and so MLflow itself if it is installed.
    Unsuitable: that import takes a second, and a sweep sends no statistics.
    Instead: nothing is counted.
    When Ray changes: drop this if ``tag_callbacks`` imports nothing, or does so only if statistics are on.
    """
    return mock.patch(f"{_USAGE}.tag_callbacks", return_value=False)


@contextmanager
def ended_trials_forgotten() -> Iterator[None]:
    """Make Tune forget trials that have ended.

    Ray: Tune keeps each trial to the end, some 40 kB, and goes through all of them at times.
    Unsuitable: a sweep may need many thousands, and never asks for one that has ended.
    Instead: at the end of each of Tune's steps they are taken out of its list, in place, and of its sets.
    When Ray changes: drop this if Tune frees ended trials; else see what ``TuneController.add_trial`` and
    ``_set_trial_status`` put trials into.
    """
    controller: Any = pkgutil.resolve_name(_CONTROLLER)
    on_step_end = controller.on_step_end

    def forgetful(self: Any) -> None:
        on_step_end(self)
        if ended := self._stopped_trials | self._failed_trials:
            self._trials[:] = [trial for trial in self._trials if trial not in ended]
            for trials in (self._live_trials, self._trials_to_cache, self._stopped_trials, self._failed_trials):
                trials -= ended

    with mock.patch.object(controller, "on_step_end", forgetful):
        yield


@contextmanager
def ended_steps_forgotten() -> Iterator[None]:
    """Make Tune forget the results of a trial's earlier steps.

    Ray: Tune keeps a reference to the result of each step, and so the result, some 4 kB, until the trial ends.
    Unsuitable: a trial may run thousands of jobs, one in each step.
    Instead: before each step the references to those that have ended are dropped, as Tune does at a trial's end.
    When Ray changes: drop this if ``RayActorManager`` drops a reference when its result has come.
    """
    controller: Any = pkgutil.resolve_name(_CONTROLLER)
    schedule = controller._schedule_trial_train

    def forgetful(self: Any, trial: Any) -> None:
        self._actor_manager.clear_actor_task_futures(self._trial_to_actor[trial])
        schedule(self, trial)

    with mock.patch.object(controller, "_schedule_trial_train", forgetful):
        yield


def worker_of(trial: Any) -> Any:
    """Return the actor of a trial that runs.

    Ray: a scheduler of Tune may change a trial's configuration, but only by pausing it.
    Unsuitable: a worker should go on with its next job at once.
    Instead: a method of the trainable is called between two of its steps.
    When Ray changes: see where ``Trial.set_ray_actor`` puts the actor.
    """
    return trial.temporary_state.ray_actor


# ------------------------------------------------------------------------------------- a Ray that starts or ends


def on_localhost() -> AbstractContextManager[object]:
    """Make all parts of a Ray that starts in this context listen on 127.0.0.1 only.

    Ray: it listens on all addresses of the machine, except on macOS and Windows
    (https://github.com/ray-project/ray/pull/31166 has the variable for this).
    Unsuitable: the Ray of one sweep on one machine should not be reachable from the network.
    Instead: the constant that Ray reads from RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER is False. The variable itself
    stays unset: every child of this process would inherit it, and ``ray start`` fails with it.
    When Ray changes: drop this if ``ray.init`` takes the address to listen on; else see what
    ``services.get_node_ip_address`` reads.
    """
    return mock.patch("ray._private.ray_constants.ENABLE_RAY_CLUSTER", False)


def agent_on_any_port() -> AbstractContextManager[object]:
    """Let the dashboard's agent of a Ray that starts in this context listen on a port that is free.

    Ray: the agent listens on port 52365, and ``ray.init`` has no argument for another. If it is taken, as by another
    Ray on this machine, the agent tries again for 3 s, for which ``ray.init`` waits, and then serves nothing.
    Unsuitable: several sweeps may run on one machine.
    Instead: ``ray.init`` makes its parameters with port 0, for which the agent takes any.
    When Ray changes: drop this if ``ray.init`` takes the port, or if its default is 0.
    """
    parameters: Any = pkgutil.resolve_name(f"{_PARAMETERS}:RayParams")
    return mock.patch(f"{_PARAMETERS}.RayParams", partial(parameters, dashboard_agent_listen_port=0))


def uv_environments(on: bool) -> AbstractContextManager[object]:
    """Let ``ray.init`` build a uv environment for each worker only if ``on`` and Ray would do so by itself.

    Ray: it does so in a process under ``uv run`` (https://github.com/ray-project/ray/pull/53060), unless
    RAY_ENABLE_UV_RUN_RUNTIME_ENV is 0 when Ray is imported.
    Unsuitable: it copies the folder, and costs each worker seconds; a sweep's workers use this process's environment.
    Instead: the constant that Ray read from that variable is False in this context, even if Ray was imported earlier.
    When Ray changes: drop this if ``ray.init`` takes a switch, or reads the variable when it is called.
    """
    constants: Any = pkgutil.resolve_name("ray._private.ray_constants")
    wanted = on and constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
    return mock.patch.object(constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", wanted)


def default_folder() -> str:
    """Return the folder that Ray chooses for its files: ``ray`` in RAY_TMPDIR, TMPDIR or /tmp.

    When Ray changes: this is ``get_default_ray_temp_dir``; it has no public equivalent.
    """
    return pkgutil.resolve_name("ray._common.utils:get_default_ray_temp_dir")()


def started_here() -> str:
    """Return the address of the Ray that this user has started here by ``ray start``; '' if none runs.

    Ray: ``ray.init(address="auto")`` uses that one, or else any other Ray here, such as that of another sweep.
    Unsuitable: a sweep that starts its own Ray only wants to know of one that is meant to be used.
    Instead: the file that ``ray start`` writes is compared with the processes that run.
    When Ray changes: see what ``get_ray_address_from_environment`` reads.
    """
    file = Path(pkgutil.resolve_name("ray._private.utils:get_ray_address_file")(None))
    services: Any = pkgutil.resolve_name("ray._private.services")
    services.find_gcs_addresses.cache_clear()
    with suppress(OSError):
        address = file.read_text().strip()
        if file.stat().st_uid == os.geteuid() and address in services.find_gcs_addresses():
            return address
    return ""


def address_here() -> str:
    """Return the address that ``auto`` stands for. Raises ConnectionError if no Ray runs here.

    Ray: ``ray.init`` finds it by itself.
    Unsuitable: what it finds may not answer, and then it waits for minutes; the address is checked before.
    When Ray changes: let ``ray.init`` find it, without that check.
    """
    found = pkgutil.resolve_name("ray._private.services:get_ray_address_from_environment")("auto", None)
    if found == "auto":
        raise ConnectionError("no Ray runs here")
    return found


def is_for_ray_client(address: str, patience: float) -> bool:
    """Return whether a server for Ray Client listens at this address, and not a cluster's head.

    Ray: ``ray.init`` waits for 40 s, and then reports a timeout.
    Unsuitable: a user who confuses the two ports should learn it at once.
    Instead: the server is asked for the head's health, by a call that only a head implements.
    When Ray changes: only the better sentence is lost.
    """
    import grpc

    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        try:
            channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")(b"", timeout=patience)
        except grpc.RpcError as error:
            return getattr(error, "code", lambda: None)() == grpc.StatusCode.UNIMPLEMENTED
    return False


@dataclass(frozen=True)
class Growth:
    """What an autoscaler may add. most: resources of the whole cluster. machines: those of each kind of machine."""

    most: Mapping[str, float]
    machines: tuple[Mapping[str, float], ...]


def growth() -> Growth | None:
    """Return the limits that the connected cluster's autoscaler has told Ray; None if it has told none.

    Ray: Ray Data and Ray Train use the same method. Ray's own autoscalers, v1 and v2, tell nothing (in 2.60); those of
    some providers do.
    When Ray changes: without it, the file of ``ray up`` and --slots remain.
    """
    state: Any = pkgutil.resolve_name("ray._private.state:state")
    most = state.get_max_resources_from_cluster_config()
    if not most:
        return None
    kinds = [kind for kind in state.get_cluster_config().node_group_configs if kind.max_count]
    return Growth(most=most, machines=tuple(dict(kind.resources) for kind in kinds))


def dashboard_address() -> str:
    """Return the address of the connected Ray's dashboard; '' if there is none.

    Ray: only ``ray.init`` returns it publicly, to its caller.
    Unsuitable: a notebook may have called ``ray.init`` before its sweep.
    When Ray changes: see where ``ray.init`` gets its ``dashboard_url``.
    """
    return pkgutil.resolve_name("ray._private.worker:get_dashboard_url")() or ""


def read_environment_again() -> None:
    """Make Ray read the authentication mode and the token from the environment again.

    Ray: its C++ part reads RAY_AUTH_MODE and RAY_AUTH_TOKEN when it is imported, and keeps them.
    Unsuitable: a sweep sets them for the Ray that it starts, and restores them, so that a Ray that the same program
    starts later is as the user configured it. The mode would stay otherwise
    (https://github.com/ray-project/ray/pull/64755).
    Instead: both are read again, as in Ray's own tests.
    When Ray changes: see ray/_private/authentication_test_utils.py.
    """
    raylet: Any = pkgutil.resolve_name("ray._raylet")
    raylet.Config.initialize("")
    raylet.AuthenticationTokenLoader.instance().reset_cache()


def drop_exit_hooks() -> None:
    """Let this program end without calling a Ray that does not answer.

    Ray: it registers ``ray.shutdown`` with atexit, and Tune ``registry._unregister_all``.
    Unsuitable: if the raylet or the head has died, both wait forever
    (https://github.com/ray-project/ray/issues/29431 is one such hang).
    Instead: neither is called.
    When Ray changes: see what else in Ray calls ``atexit.register``.
    """
    atexit.unregister(ray.shutdown)
    atexit.unregister(pkgutil.resolve_name("ray.tune.registry:_unregister_all"))


# ------------------------------------------------------------------------------------- workers


def set_process_title(title: str) -> None:
    """Set this worker's process title, for the dashboard and ``ps``, until Ray resets it after the call.

    When Ray changes: only the title is lost; the package setproctitle does the same.
    """
    pkgutil.resolve_name("ray._raylet:setproctitle")(title)


def health_check_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions by which Ray Train reports a worker that does not answer.

    Ray: they are not exported, unlike those for what a worker raises.
    When Ray changes: see what WorkerGroupError.worker_failures contains for a worker that hangs.
    """
    names = ("WorkerHealthCheckTimeoutError", "WorkerHealthCheckFailedError")
    return tuple(pkgutil.resolve_name(f"ray.train.v2._internal.exceptions:{name}") for name in names)
