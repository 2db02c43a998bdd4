"""The private names of Ray, compared with the installed Ray: these tests must fail when Ray changes one."""

from __future__ import annotations

import ast
import contextlib
import inspect
import os
import pkgutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import requires
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray import tune
from ray._common import utils
from ray._private import parameter, ray_constants, services, worker
from ray._private.runtime_env import uv_runtime_env_hook
from ray._raylet import (  # pyright: ignore[reportMissingImports]
    AuthenticationTokenLoader,  # pyright: ignore[reportAttributeAccessIssue]
    get_authentication_mode,  # pyright: ignore[reportAttributeAccessIssue]
)
from ray.air._internal import usage
from ray.air.execution._internal.tracked_actor import TrackedActor
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial

import raysslprune
from raysslprune.cluster import patches
from raysslprune.cluster.patches import NAMES, Private
from raysslprune.cluster.ray_thread import ClusterError

# ------------------------------------------------------------------------------------- the names


@pytest.mark.parametrize("name", NAMES, ids=lambda one: one.name)
def test_ray_has_what_is_relied_on(name: Private) -> None:
    assert name.difference() == ""


def replace(name: str, value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give ``module:name`` another value; None: delete it. A class may be written in C, so a copy of it is changed."""
    module, _, path = name.partition(":")
    owner, _, leaf = path.rpartition(".")
    holder: Any = pkgutil.resolve_name(module)
    if not owner:
        if value is None:
            monkeypatch.delattr(holder, leaf)
        else:
            monkeypatch.setattr(holder, leaf, value)
        return
    members = dict(vars(getattr(holder, owner)))
    members = {key: member for key, member in members.items() if key not in (leaf, "__dict__", "__weakref__")}
    monkeypatch.setattr(holder, owner, type(owner, (), members if value is None else {**members, leaf: value}))


def other(self: object, another: object) -> None: ...


def removed(name: Private, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(name.name, None, monkeypatch)


def with_other_parameters(name: Private, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(name.name, other, monkeypatch)


def no_function(name: Private, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(name.name, "a text", monkeypatch)


def unused(name: Private, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(name.used_in, other, monkeypatch)


def user_removed(name: Private, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(name.used_in, None, monkeypatch)


Change = Callable[[Private, pytest.MonkeyPatch], None]


def changes() -> Iterator[tuple[Private, Change]]:
    for name in NAMES:
        if ":" in name.name:
            yield name, removed
        if name.takes is not None:
            yield from ((name, with_other_parameters), (name, no_function))
        if name.used_in:
            yield from ((name, unused), (name, user_removed))


@pytest.mark.parametrize(
    ("name", "change"), list(changes()), ids=lambda one: getattr(one, "name", None) or one.__name__
)
def test_a_ray_that_differs_is_told_before_a_sweep_starts(
    name: Private, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches.check()
    change(name, monkeypatch)
    assert name.difference()
    with pytest.raises(ClusterError, match=r"^Ray 2\.\S+ is not supported by raysslprune: .*; install ray\["):
        patches.check()


def test_each_name_can_be_changed() -> None:
    assert {name for name, _ in changes()} == set(NAMES)


def test_the_sentence_asks_for_what_pip_installs() -> None:
    wanted = [requirement for requirement in requires("raysslprune") or () if requirement.startswith("ray[")]
    (name, _, versions), (ours, _, our_versions) = wanted[0].partition("]"), patches.REQUIREMENT.partition("]")
    assert set(name.split("[")[1].split(",")) == set(ours.split("[")[1].split(","))
    assert set(versions.split(",")) == set(our_versions.split(","))


BROKEN = """
import importlib.abc, importlib.util, sys

class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != {module!r}:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module
        def without(module):
            execute(module)
            del {deleted}
        spec.loader.exec_module = without
        return spec

sys.meta_path.insert(0, Finder())
"""


@pytest.mark.parametrize(
    ("module", "deleted"),
    [
        ("ray.tune.execution.tune_controller", "module.TuneController._maybe_reuse_cached_actor"),
        ("ray._private.ray_constants", "module.ENABLE_RAY_CLUSTER"),
    ],
)
def test_a_sweep_on_such_a_ray(module: str, deleted: str, tmp_path: Path) -> None:
    """It ends before it starts Ray."""
    (tmp_path / "sitecustomize.py").write_text(BROKEN.format(module=module, deleted=deleted))
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "raysslprune.sweep", "fig3", "--scale", "smoke", "--root", str(tmp_path / "runs")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    name = deleted.removeprefix("module.")
    assert f"raysslprune: Ray 2.60.0 is not supported by raysslprune: {module}:{name} is missing" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("runs/steps/*"))


# ------------------------------------------------------------------------------------- no others

PACKAGE = Path(raysslprune.__file__).parent


def private_parts(source: str) -> set[str]:
    """Private parts of Ray in a module: imports, attributes of these, keywords, and names in strings."""
    tree, found, of_ray = ast.parse(source), set[str](), set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [(alias.name, alias.asname or alias.name.partition(".")[0]) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [(f"{node.module}.{alias.name}", alias.asname or alias.name) for alias in node.names]
        else:
            continue
        ours = [(name, bound) for name, bound in names if name.partition(".")[0] == "ray"]
        of_ray |= {bound for _, bound in ours}
        found |= {name for name, _ in ours if is_private(name)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("ray."):
            found |= {node.value} if is_private(node.value) else set()
        if isinstance(node, ast.Attribute) and is_private(node.attr) and not node.attr.startswith("__"):
            dotted = ast.unparse(node)
            found |= {dotted} if dotted.partition(".")[0] in of_ray else set()
        if isinstance(node, ast.Call):
            found |= {key.arg for key in node.keywords if key.arg and is_private(key.arg)}
    return found


def is_private(dotted: str) -> bool:
    internal = ("ray.tune.execution", "ray.air", "ray.tune.registry", "ray.tune.utils")
    return any(part.startswith("_") for part in dotted.replace(":", ".").split(".")) or dotted.startswith(internal)


def test_no_other_module_has_private_parts() -> None:
    modules = [path for path in PACKAGE.rglob("*.py") if path.name != "patches.py"]
    assert len(modules) > 50
    assert {str(path): found for path in modules if (found := private_parts(path.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import ray._private",
        "from ray._raylet import setproctitle",
        "from ray.tune.execution import class_cache",
        "def f():\n    from ray.tune.utils.object_cache import _ObjectCache",
        "from ray import tune\ntune.registry._unregister_all()",
        "import ray\nray.init(_temp_dir='/tmp')",
        "mock.patch('ray._private.worker.init')",
    ],
)
def test_one_that_had_would_be_found(source: str) -> None:
    assert private_parts(source)


def test_every_name_is_used() -> None:
    """At least once besides its row."""
    code = [path.read_text() for path in PACKAGE.rglob("*.py")]
    for name in NAMES:
        leaf = name.name.rpartition(":")[2].rpartition(".")[2]
        assert sum(text.count(leaf) for text in code) > 1, f"{name.name} is relied on no more"


# ------------------------------------------------------------------------------------- Tune


@pytest.fixture
def controller(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Factory of real ones; without this variable each would ask Ray for the size of the cluster, and no Ray runs."""
    monkeypatch.setenv("TUNE_MAX_PENDING_TRIALS_PG", "1")
    return lambda: TuneController(reuse_actors=True)


class Job:
    """The part of a trial that is used."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id, self.placement_group_factory, self.config, self.experiment_tag = trial_id, "a core", {}, ""

    def set_ray_actor(self, actor: object) -> None: ...

    def get_json_state(self) -> str:
        return f"{self.trial_id} pickled"


def starting(controller: Any, job: Job, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give a controller a free worker, and a trial whose own worker starts; return the workers that it ends."""
    controller._actor_cache.increase_max("a core")
    assert controller._actor_cache.cache_object("a core", "free")
    controller._trial_to_actor[job], controller._actor_to_trial["own"] = "own", job
    live = {"free": ("an actor", "resources"), "own": ("an actor", "resources")}
    controller._actor_manager = SimpleNamespace(
        _live_actors_to_ray_actors_resources=live, is_actor_started=live.__contains__
    )
    ended: list[str] = []
    monkeypatch.setattr(controller, "_remove_actor", lambda tracked_actor: ended.append(tracked_actor))
    monkeypatch.setattr(controller, "_schedule_trial_reset", lambda *_: None)
    return ended


def test_tune_cancels_the_start_of_a_trials_own_worker(
    controller: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reason for the patch; drop the patch when this test fails."""
    job, tunes = Job("job"), controller()
    ended = starting(tunes, job, monkeypatch)
    assert tunes._maybe_reuse_cached_actor(job)
    assert (ended, tunes._trial_to_actor[job]) == (["own"], "free")


def test_a_trial_awaits_its_own_worker(controller: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    job, tunes = Job("job"), controller()
    ended = starting(tunes, job, monkeypatch)
    with patches.trials_await_own_worker(1000):
        assert not tunes._maybe_reuse_cached_actor(job)
        assert (ended, tunes._trial_to_actor[job]) == ([], "own")
    with patches.trials_await_own_worker(0):
        assert tunes._maybe_reuse_cached_actor(job)
    assert (ended, tunes._trial_to_actor[job]) == (["own"], "free")


def test_a_trial_whose_worker_has_no_machine_takes_the_first_free_one(
    controller: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, tunes = Job("job"), controller()
    ended = starting(tunes, job, monkeypatch)
    del tunes._actor_manager._live_actors_to_ray_actors_resources["own"]
    with patches.trials_await_own_worker(1000):
        assert tunes._maybe_reuse_cached_actor(job)
    assert (ended, tunes._trial_to_actor[job]) == (["own"], "free")


def test_tune_keeps_its_free_workers_in_what_it_is_given(controller: Callable[[], Any]) -> None:
    cache: Any = patches.TuneCache(may_keep_one=True)
    with patches.free_workers_kept_in(cache):
        assert controller()._actor_cache is cache
    own = controller()._actor_cache
    assert own is not cache
    assert isinstance(own, patches.TuneCache)


def test_tune_saves_no_trials(controller: Callable[[], Any]) -> None:
    tunes = controller()
    tunes._mark_trial_to_checkpoint(Job("job"))
    with patches.trials_not_saved():
        assert tunes._get_trial_checkpoints() == {}
    assert tunes._get_trial_checkpoints() == {"job": "job pickled"}


class Ended:
    """The part of a trial that is used where trials end."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id, self.placement_group_factory, self.status = trial_id, "a core", Trial.PENDING

    def create_placement_group_factory(self) -> None: ...

    def set_status(self, status: str) -> None:
        self.status = status

    def is_finished(self) -> bool:
        return self.status in (Trial.TERMINATED, Trial.ERROR)


def run_trials(tunes: Any, count: int) -> list[int]:
    """Add trials that run and end, the last one with an error; return how many Tune has after each of its steps."""
    kept = []
    tunes._trials.append(living := Ended("living"))
    tunes._live_trials.add(living)
    for number in range(count):
        tunes.add_trial(trial := Ended(f"{number}"))
        tunes._set_trial_status(trial, Trial.RUNNING)
        tunes._set_trial_status(trial, Trial.ERROR if number == count - 1 else Trial.TERMINATED)
        tunes.on_step_end()
        kept.append(len(tunes._trials))
    return kept


def test_tune_keeps_trials_that_have_ended(controller: Callable[[], Any]) -> None:
    """The reason for the patch; drop the patch when this test fails."""
    assert run_trials(controller(), 5) == [2, 3, 4, 5, 6]


def test_trials_that_have_ended_are_forgotten(controller: Callable[[], Any]) -> None:
    tunes = controller()
    listed = tunes._trials
    with patches.ended_trials_forgotten():
        assert run_trials(tunes, 5) == [1, 1, 1, 1, 1]
    assert tunes._trials is listed
    assert [trial.trial_id for trial in listed] == ["living"]
    for kept in (tunes._stopped_trials, tunes._failed_trials, tunes._trials_to_cache, tunes._running_trials):
        assert not kept
    assert {trial.trial_id for trial in tunes._live_trials} == {"living"}


@pytest.mark.parametrize("forgetting", [False, True])
def test_results_of_ended_steps_are_kept_by_tune_and_forgotten_here(
    forgetting: bool, controller: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is the reason for the patch; drop the patch when it fails."""
    tunes, trial = controller(), Ended("trial")
    manager, actor = tunes._actor_manager, TrackedActor(1)
    refs = iter(range(10))
    remote = SimpleNamespace(options=lambda **_: SimpleNamespace(remote=lambda: next(refs)), remote=lambda: next(refs))
    tunes._trial_to_actor[trial], tunes._actor_to_trial[actor] = actor, trial
    manager._live_actors_to_ray_actors_resources[actor] = SimpleNamespace(train=remote), None
    with patches.ended_steps_forgotten() if forgetting else contextlib.nullcontext():
        for step in range(5):
            tunes._schedule_trial_train(trial)
            manager._actor_task_events.discard_future(step)  # its result has come
    assert manager._tracked_actors_to_task_futures[actor] == ({4} if forgetting else {0, 1, 2, 3, 4})


def test_the_worker_of_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    trial: Any = SimpleNamespace(temporary_state=SimpleNamespace(ray_actor=None))
    actor: Any = SimpleNamespace(get_auto_filled_metrics=SimpleNamespace(remote=lambda **_: None))
    Trial.set_ray_actor(trial, actor)
    assert patches.worker_of(trial) is actor


@pytest.mark.parametrize("dead", [False, True])
def test_resources_of_tune_are_freed_whatever_ends_it_unless_ray_is_dead(
    dead: bool, controller: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, cleared = controller()._actor_manager._resource_manager, list[object]()  # others are cleared by __del__
    manager: Any = None
    monkeypatch.setattr(type(own), "clear", lambda self: cleared.append(self))
    with contextlib.suppress(KeyboardInterrupt), patches.resources_freed(unless=lambda: dead):
        manager = controller()._actor_manager._resource_manager
        assert controller()._actor_manager._resource_manager is manager
        assert manager not in cleared
        raise KeyboardInterrupt
    assert (manager in cleared) != dead
    assert controller()._actor_manager._resource_manager is not manager
    assert type(own) is type(manager)


def test_tune_sets_variables_in_its_workers_and_none_of_awss_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN")
    for name in (*keys, "A_SETTING", "RAY_TRAIN_V2_ENABLED"):
        monkeypatch.setenv(name, "1")

    def given() -> set[str]:
        remote: Any = class_cache._ActorClassCache().get(type("Trainable", (), {}))
        return {*remote._default_options["runtime_env"]["env_vars"]}

    before = given()
    assert set(keys) < before
    assert "A_SETTING" not in before
    with patches.workers_given(["A_SETTING"]):
        assert given() == before - set(keys) | {"A_SETTING"}
    assert given() == before


def test_workers_that_inherit_get_no_runtime_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is the reason for the patch: Ray starts such a worker in a process of its own."""
    monkeypatch.setenv("RAY_TRAIN_V2_ENABLED", "1")

    def environment() -> dict[str, Any]:
        remote: Any = class_cache._ActorClassCache().get(type("Trainable", (), {}))
        return dict(remote._default_options["runtime_env"])

    assert environment()["env_vars"] == {"PL_DISABLE_FORK": "1", "RAY_TRAIN_V2_ENABLED": "1"}
    with patches.workers_inherit():
        assert environment() == {}


def test_to_start_tune_imports_no_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second is the reason for the patch; drop the patch when it fails."""
    monkeypatch.setitem(sys.modules, "ray.air.integrations.mlflow", None)  # an import of it raises
    with patches.callbacks_not_counted():
        assert usage.tag_callbacks([tune.Callback()]) is False
    with pytest.raises(ImportError, match="mlflow"):
        usage.tag_callbacks([tune.Callback()])


PATCHES: dict[str, Callable[[], Any]] = {
    "trials_await_own_worker": lambda: patches.trials_await_own_worker(1),
    "free_workers_kept_in": lambda: patches.free_workers_kept_in(None),
    "trials_not_saved": patches.trials_not_saved,
    "ended_trials_forgotten": patches.ended_trials_forgotten,
    "ended_steps_forgotten": patches.ended_steps_forgotten,
    "resources_freed": patches.resources_freed,
    "workers_given": lambda: patches.workers_given(["A_SETTING"]),
    "workers_inherit": patches.workers_inherit,
    "callbacks_not_counted": patches.callbacks_not_counted,
    "on_localhost": patches.on_localhost,
    "agent_on_any_port": patches.agent_on_any_port,
    "uv_environments": lambda: patches.uv_environments(False),
}


def patched_values() -> list[object]:
    return [pkgutil.resolve_name(name.name) for name in NAMES if ":" in name.name and name.used_in]


@pytest.mark.parametrize("patch", PATCHES)
def test_ray_is_as_it_was_after_a_patch(patch: str) -> None:
    """For other users of Ray in the same program, also after an error."""
    before = patched_values()
    with contextlib.suppress(KeyError), PATCHES[patch]():
        assert patched_values() != before
        raise KeyError
    assert patched_values() == before


def test_each_patch_says_what_ray_does_and_what_to_do_when_it_changes() -> None:
    functions = {
        name: inspect.getdoc(found) or ""
        for name, found in vars(patches).items()
        if inspect.isfunction(found) and found.__module__ == patches.__name__ and not name.startswith("_")
    }
    for name, text in functions.items():
        parts = ("Ray", "Unsuitable", "Instead", "When Ray changes") if name in PATCHES else ("When Ray changes",)
        if name != "check":
            assert all(f"\n{part}: " in text for part in parts), name
    assert PATCHES.keys() <= functions.keys()


# ------------------------------------------------------------------------------------- a Ray that starts or ends


def test_a_ray_listens_on_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_global_node", None)
    monkeypatch.setattr(services, "node_ip_address_from_perspective", lambda address: "10.0.0.7")
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    with patches.on_localhost():
        assert services.get_node_ip_address() == "127.0.0.1"
    assert services.get_node_ip_address() == "10.0.0.7"


@pytest.mark.parametrize(("on", "was", "built"), [(False, True, False), (True, True, True), (True, False, False)])
def test_uv_environments(on: bool, was: bool, built: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uv_runtime_env_hook, "_get_uv_run_cmdline", lambda: ["uv", "run", "me.py"])
    monkeypatch.setattr(uv_runtime_env_hook, "hook", lambda environment: {"py_executable": "uv run"})
    monkeypatch.setattr(ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", was)
    with patches.uv_environments(on):
        assert bool(worker._maybe_modify_runtime_env({}, _skip_env_hook=True)) == built
    assert bool(worker._maybe_modify_runtime_env({}, _skip_env_hook=True)) == was


def test_the_agent_of_a_dashboard_takes_any_port() -> None:
    """The second is the reason for the patch; drop the patch when it fails."""
    with patches.agent_on_any_port():
        assert parameter.RayParams(num_cpus=1).dashboard_agent_listen_port == 0
    assert parameter.RayParams(num_cpus=1).dashboard_agent_listen_port == 52365


def test_rays_own_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/elsewhere")
    assert patches.default_folder() == utils.get_default_ray_temp_dir() == "/elsewhere/ray"


def test_the_address_of_the_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker.global_worker, "check_connected", lambda: None)
    monkeypatch.setattr(worker, "_global_node", SimpleNamespace(webui_url="127.0.0.1:8265"))
    assert patches.dashboard_address() == "127.0.0.1:8265"
    monkeypatch.setattr(worker, "_global_node", SimpleNamespace(webui_url=None))
    assert patches.dashboard_address() == ""


DISABLED, TOKEN = 0, 1


def test_ray_keeps_its_mode_and_token_until_it_reads_them_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> tuple[int, str]:
        token = AuthenticationTokenLoader.instance().get_token_for_http_header().get("authorization", "")
        return get_authentication_mode(), token

    before = found()
    assert before == (DISABLED, "")
    try:
        for token in ("a" * 32, "b" * 32):
            with monkeypatch.context() as environment:
                environment.setenv("RAY_AUTH_MODE", "token")
                environment.setenv("RAY_AUTH_TOKEN", token)
                last = found()
                assert token not in last[1]
                patches.read_environment_again()
                assert found() == (TOKEN, f"Bearer {token}")
    finally:
        patches.read_environment_again()
    assert found() == before


HOOKS = """
import atexit
hooks = []
register, unregister = atexit.register, atexit.unregister
atexit.register = lambda hook, *rest, **more: (hooks.append(hook), register(hook, *rest, **more))[1]
atexit.unregister = lambda hook: (hooks.remove(hook) if hook in hooks else None, unregister(hook))[1]
import ray
from ray._private import worker
from ray.tune import registry
from raysslprune.cluster import patches
worker.global_worker.set_mode(ray.SCRIPT_MODE)
registry._global_registry._register_atexit()
waiting = [hook for hook in hooks if hook in (ray.shutdown, registry._unregister_all)]
print(len(waiting))
patches.drop_exit_hooks()
print([f"{hook.__module__}.{hook.__qualname__}" for hook in hooks if hook.__module__.startswith("ray.")])
"""


def test_no_exit_hook_of_rays_is_left() -> None:
    done = subprocess.run([sys.executable, "-c", HOOKS], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["2", "[]"], done.stderr


# ------------------------------------------------------------------------------------- workers


def test_a_process_gets_a_title() -> None:
    program = """
from raysslprune.cluster import patches
patches.set_process_title("a title")
print(open("/proc/self/cmdline").read())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip("\0\n ") == "a title", done.stderr


def test_health_check_errors_are_what_ray_train_gives_for_a_worker_that_hangs() -> None:
    from ray.train.v2._internal.execution.worker_group import worker_group

    errors = patches.health_check_errors()
    assert {error.__name__ for error in errors} == {name for name in vars(worker_group) if "HealthCheck" in name}
    assert all(getattr(worker_group, error.__name__) is error for error in errors)
