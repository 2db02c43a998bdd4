"""Start a Ray cluster on this machine, or connect to one that runs; check that its nodes fit the sweep."""

from __future__ import annotations

import gc
import logging
import os
import secrets
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.util import client
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysslprune.cluster import patches
from raysslprune.cluster.ray_thread import ClusterError
from raysslprune.environment import changed, defaults
from raysslprune.store.record import StoreError, versions
from raysslprune.store.steps import MARKER, Store

CHECKED_WITHIN = 120.0
"""Seconds for all nodes to import the package and to look at the root and the data."""

LOOK_EVERY, SILENT = 2.0, 30.0
"""Seconds between looks at the cluster; and without an answer, until it counts as dead. Ray itself waits for ever where
a node's raylet died, and ends a process without a word where the head did.
"""


OWN_TOKEN = secrets.token_hex(32)
"""Of a Ray that is started here, unless RAY_AUTH_TOKEN says another."""

STARTED_WITHIN = 120.0
"""Seconds for Ray to start or to answer; it would wait for ever for a head that dies meanwhile."""

REACHED_WITHIN = 10.0
"""Seconds in which the head of a cluster must take a connection."""

SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1000000",  # by default Ray ends this process 60 s after its head died
    "RAY_task_events_max_num_task_in_gcs": "10000",  # that the dashboard knows of; 100,000 would be 300 MB
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # else Tune itself starts a trial again, and tells nobody
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # the dashboard shows shared trainings
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how late the end of a shared training is seen; default 2
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",  # a cluster may have to grow first; default 60
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing about a sweep is sent to anybody
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # ReadyJobs bounds them; a lower bound here starves starting actors
}
"""Environment variables of Ray's and Tune's while a sweep runs, unless the user set others."""


@contextmanager
def connected(
    cpus: int | None = None, dashboard: bool = False, abandon: Callable[[ClusterError], None] = lambda _: None
) -> Iterator[str]:
    """A Ray to run on: the one this program uses already, else the one that RAY_ADDRESS names, else one of its own.

    A Ray that the program uses stays connected afterwards. One that is started here runs on this machine, asks for a
    token that only this process and its children know, listens on 127.0.0.1 only, and ends here. cpus, dashboard: what
    it has. abandon: called, from another thread, if it does not start within STARTED_WITHIN. Gives the dashboard's
    address, if there is one. Raises ClusterError.
    """
    patches.check()
    if ray.is_initialized():
        if client.ray.is_connected():
            raise ClusterError(
                "this program is connected to Ray by Ray Client (ray://), which sweeps can't use: call ray.shutdown() "
                "first, and start the sweep on a machine of that cluster, with RAY_ADDRESS=auto"
            )
        with changed(defaults(SETTINGS)):
            yield patches.dashboard_address()
        return
    address = named_address()
    mode = os.environ.get("RAY_AUTH_MODE") or "token"
    if mode.lower() not in ("token", "disabled"):
        raise ClusterError(f"RAY_AUTH_MODE is {mode!r:.40}; it wants token or disabled")
    settings = {**defaults(SETTINGS), "RAY_ADDRESS": address, "RAY_AUTH_MODE": mode}
    settings |= {"PYTHONWARNINGS": None}  # that is for this program: Ray's own processes end at their first warning
    if address is None and mode.lower() == "token":
        settings |= defaults({"RAY_AUTH_TOKEN": OWN_TOKEN})
    try:
        with changed(settings), ExitStack() as stack:
            patches.read_environment_again()
            folder = stack.enter_context(sockets()) if address is None else None
            stack.callback(shut_down, wait=folder is not None)
            with _in_time(abandon):
                context = _joined(address) if address else _started(cpus, dashboard, folder)
            yield context.dashboard_url or ""
    finally:
        patches.read_environment_again()


def shut_down(wait: bool) -> None:
    """Shut Ray down; wait: until its processes have ended.

    Without the garbage collector: where that finds an object reference meanwhile, in whichever thread, Ray 2.60 ends
    the process.
    """
    gc.collect()  # what it would find
    enabled = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown(wait_for_processes=wait)
    finally:
        if enabled:
            gc.enable()


def named_address() -> str | None:
    """The cluster that RAY_ADDRESS names; None where a sweep starts a Ray of its own. Raises ClusterError."""
    address = os.environ.get("RAY_ADDRESS", "").strip()
    if address in ("", "local"):
        return None
    host, _, port = address.rpartition(":")
    if address == "auto" or (host and "/" not in host and port.isascii() and port.isdecimal()):
        return address
    kinds = {"http": "the dashboard's address", "https": "the dashboard's address", "ray": "an address for Ray Client"}
    kind = kinds.get(address.partition("://")[0], "no address of a cluster's head")
    raise ClusterError(
        f"RAY_ADDRESS is {address}, which is {kind}; a sweep wants HOST:PORT of the head (usually 6379), or auto on "
        "a machine of the cluster, or nothing at all for a Ray of its own"
    )


@contextmanager
def _in_time(abandon: Callable[[ClusterError], None]) -> Iterator[None]:
    why = (
        f"Ray has not started within {STARTED_WITHIN:.0f} s; what was finished is kept, and the same command goes on "
        "from there"
    )

    def too_late() -> None:
        patches.drop_exit_hooks()
        abandon(ClusterError(why))

    late = threading.Timer(STARTED_WITHIN, too_late)
    late.daemon = True
    late.start()
    try:
        yield
    finally:
        late.cancel()


def _started(cpus: int | None, dashboard: bool, folder: str | None) -> Any:
    """A Ray of this machine's alone. folder: for its files, None for Ray's own choice."""
    try:
        with patches.on_localhost(), _without_uv():
            return ray.init(
                address="local",
                num_cpus=cpus,
                include_dashboard=dashboard,
                dashboard_host="127.0.0.1",
                **patches.temporary_folder(folder),
                **QUIET,
            )
    except Exception as error:
        raise ClusterError(f"can't start Ray: {' '.join(str(error).split())}") from error


def _joined(address: str) -> Any:
    """The cluster at this address."""
    host, _, port = address.rpartition(":")
    try:
        if host:  # where nobody listens Ray waits for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=REACHED_WITHIN).close()
        with _without_uv():
            return ray.init(address=address, **QUIET)
    except Exception as error:
        raise ClusterError(
            f"can't reach the Ray cluster at {address} that RAY_ADDRESS names: is it running, and has this process its "
            "token in RAY_AUTH_TOKEN or ~/.ray/auth_token (or RAY_AUTH_MODE=disabled, where it asks for none)?"
        ) from error


QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}


def _without_uv() -> AbstractContextManager[object]:
    """Keep Ray from building new environments for its workers under ``uv run``, unless its variable asks for them."""
    return patches.uv_environments(bool(os.environ.get("RAY_ENABLE_UV_RUN_RUNTIME_ENV")))


SOCKET_FOLDER = 103 - len("/session_2026-11-28_21-43-34_875189_1234567/sockets/dash_TaskEventsHead")
"""Bytes that the name of Ray's folder may have: a socket's whole name may have 107 on Linux and 103 on macOS."""


@contextmanager
def sockets() -> Iterator[str | None]:
    """A folder for the files of a Ray that starts; None where Ray's own choice will do. Raises ClusterError.

    Ray's choice is ``ray`` in RAY_TMPDIR, TMPDIR or /tmp. It will not do where its sockets' names would be too long or
    not ASCII, or where another user has it. The folder in its place is this user's alone, and is removed at the end.
    """
    if will_do(Path(patches.default_folder())):
        yield None
        return
    for parent in filter(None, ("/tmp", os.environ.get("XDG_RUNTIME_DIR"))):
        if len(os.fsencode(parent)) <= SOCKET_FOLDER - len("/ray-12345678") and os.access(parent, os.W_OK | os.X_OK):
            with tempfile.TemporaryDirectory(prefix="ray-", dir=parent, ignore_cleanup_errors=True) as folder:
                yield folder
            return
    raise ClusterError(
        f"can't start Ray: {patches.default_folder()} is too long for its sockets, or not yours, and /tmp can't be "
        "written; set RAY_TMPDIR to a folder of yours with a short name"
    )


def will_do(folder: Path) -> bool:
    """Whether Ray can make its sockets in this folder, and nobody else owns it."""
    if not str(folder).isascii() or len(str(folder)) > SOCKET_FOLDER:
        return False
    try:
        return all(found.st_uid == os.geteuid() for found in (folder.lstat(), folder.stat()))
    except FileNotFoundError:
        return os.access(folder.parent, os.W_OK | os.X_OK)
    except OSError:
        return False


# ------------------------------------------------------------------------------------- what it has


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the cluster has, or may grow to have."""

    cpus: float
    gpus: float

    def workers(self, gpus: float) -> int:
        """How many with so much of a GPU each, 0 for a core only."""
        return int(min(self.cpus, self.gpus / gpus) if gpus else self.cpus)


def capacity() -> Capacity:
    """Of the connected cluster; on the head of one that ``ray up`` made and that grows by itself, at its largest."""
    now, most = ray.cluster_resources(), largest(Path(GROWS_TO).expanduser())
    return Capacity(cpus=max(now.get("CPU", 0), most.cpus), gpus=max(now.get("GPU", 0), most.gpus))


class Lifeline:
    """What is known of the connected cluster, from a thread that asks, since a dead Ray does not answer."""

    def __init__(self, lost: Callable[[str], None]) -> None:
        """lost: called once with a sentence, from another thread, when Ray is dead."""
        self.lost = lost
        self.dead = False
        self.capacity = capacity()
        self._gone = False
        self._here = ray.get_runtime_context().get_node_id()
        self._answered = time.monotonic()
        self._stop = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the cluster from threads of its own."""
        for act in (self._look, self._judge):
            threading.Thread(target=act, daemon=True).start()
        try:
            yield
        finally:
            self._stop.set()

    def _look(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            try:
                alive = any(node["Alive"] for node in ray.nodes() if node["NodeID"] == self._here)
                self.capacity = capacity()
            except Exception:  # what Ray raises when it is not there is as varied as its parts
                continue
            self._gone = not alive
            self._answered = time.monotonic()

    def _judge(self) -> None:
        while not self._gone and time.monotonic() - self._answered < SILENT:
            if self._stop.wait(0.5):
                return
        why = "its process on this machine ended" if self._gone else f"its head did not answer for {SILENT:.0f} s"
        self.dead = True
        patches.drop_exit_hooks()
        self.lost(f"Ray died: {why}; what was finished is kept, and the same command goes on from there")


GROWS_TO = "~/ray_bootstrap_config.yaml"
"""What ``ray up`` was called with, on the head: Ray itself does not tell what its autoscaler may add."""


def largest(config: Path) -> Capacity:
    """What all nodes that a cluster file allows have together, as far as the file says; nothing if there is none."""
    import yaml

    try:
        said = yaml.safe_load(config.read_text())
        types, most = said["available_node_types"], said["max_workers"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return Capacity(cpus=0, gpus=0)
    have = {"CPU": 0.0, "GPU": 0.0}
    for name, kind in types.items():
        nodes = 1 if name == said.get("head_node_type") else min(most, kind.get("max_workers", most))
        for resource in have:
            have[resource] += nodes * (kind.get("resources") or {}).get(resource, 0)
    return Capacity(cpus=have["CPU"], gpus=have["GPU"])


@dataclass(frozen=True, kw_only=True)
class Workers:
    """What a training is given. gpus: to each worker, from 0 (it computes on a core) to 1.

    per_step: workers that share a training, at most. None: with GPUs as many as its recipe's batch has parts, as the
    paper had, if the cluster has so many; without GPUs, one.
    """

    per_step: int | None = None
    gpus: float = 0.0

    def count(self, parts: int, has: Capacity) -> int:
        """Workers for a recipe whose batch has so many parts, which can only be shared evenly."""
        limit = self.per_step or (max(1, has.workers(self.gpus)) if self.gpus else 1)
        return max(count for count in range(1, parts + 1) if parts % count == 0 and count <= limit)

    def check(self, parts: Collection[int], has: Capacity) -> None:
        """Raises ClusterError where the cluster can never hold a step. parts: of the recipes' batches."""
        need, slots = max(self.count(part, has) for part in parts), has.workers(self.gpus)
        if need <= slots:
            return
        wanted = f"{need} worker{'s' * (need > 1)} with {f'{self.gpus:g} GPU' if self.gpus else 'a core'} each"
        if need == 1:
            wanted = f"{self.gpus:g} GPU and a core" if self.gpus else "a core"
        advice = "ask for fewer" if need > 1 else "start Ray with more"
        if self.gpus and not has.gpus:
            advice = "--gpus-per-worker 0 computes on cores"
        raise ClusterError(
            f"a step wants {wanted}; this cluster has {has.gpus:g} GPUs and {has.cpus:g} cores at most; {advice}"
        )


# ------------------------------------------------------------------------------------- whether its nodes will do


def check_nodes(store: Store, data_root: str, sources: Collection[str]) -> None:
    """See that every node has this package, the same root, and the data. Raises ClusterError with a sentence.

    sources: names of data sets. Of a cluster that is this machine alone nothing needs to be asked.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if [node["NodeID"] for node in nodes] == [here]:
        return
    probe = f"probe-{uuid.uuid4().hex}"
    store.write(probe, b"driver")
    try:
        look: Any = ray.remote(num_cpus=0, max_retries=0)(complaint)
        answers = [
            look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                store.address, data_root, list(sources), versions(), probe, str(index)
            )
            for index, node in enumerate(nodes)
        ]
        for index, (node, answer) in enumerate(zip(nodes, answers, strict=True)):
            try:
                said = ray.get(answer, timeout=CHECKED_WITHIN)
            except Exception as error:
                if not any(other["Alive"] for other in ray.nodes() if other["NodeID"] == node["NodeID"]):
                    continue  # it is gone, as nodes go
                said = f"can't run raysslprune: {str(error).strip().splitlines()[-1]}"
            if not said:
                try:
                    store.read(f"{probe}-{index}")
                except OSError:
                    said = f"writes to another {store.shown} than this process; the root must be shared, or on s3://"
            if said:
                raise ClusterError(f"node {node['NodeManagerAddress']} {said}")
    finally:
        for name in (probe, *(f"{probe}-{index}" for index in range(len(nodes)))):
            store.remove(name)


def complaint(
    root: str,
    data_root: str,
    sources: Collection[str],
    expected: Mapping[str, str],
    probe: str = MARKER,
    answer: str = "",
) -> str:
    """What is wrong with the node that this runs on, as the rest of a sentence; '' if nothing is.

    expected: the versions that the driver has. probe: a file that the driver wrote under the root. answer: if given,
    ``probe-answer`` is written beside it.
    """
    from raysslprune import data  # imports torch, which takes seconds

    other = {name: found for name, found in versions().items() if found != expected[name]}
    if other:
        return f"has {', '.join(f'{name} {found}, not {expected[name]}' for name, found in other.items())}"
    try:
        store = Store(root)
        seen = store.has(probe)
        if seen and answer:
            store.write(f"{probe}-{answer}", b"node")
    except (StoreError, OSError) as error:
        return f"can't use the root: {error}"
    if not seen:
        return f"does not see the root {store.shown} of this sweep there; it must be shared, or on s3://"
    for name in sources:
        try:
            data.source(name).locate(Path(data_root))
        except (data.DataError, ValueError) as error:
            return f"lacks data: {error}"
    return ""
