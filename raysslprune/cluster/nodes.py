"""Start Ray on this machine, or connect to a cluster; check that its nodes can run the sweep; notice its death."""

from __future__ import annotations

import gc
import logging
import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
import yaml
from ray.util import client, get_node_ip_address
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raysslprune.cluster import patches
from raysslprune.cluster.options import Capacity
from raysslprune.cluster.ray_thread import ClusterError
from raysslprune.environment import changed, defaults
from raysslprune.process import collector_off
from raysslprune.store.record import StoreError, versions
from raysslprune.store.steps import MARKER, Store

CHECKED_WITHIN = 120.0
"""Seconds within which all nodes must import the package and check the root and the data."""

LOOK_EVERY, SILENT = 2.0, 30.0
"""Seconds between queries of the cluster; seconds without an answer after which it counts as dead. Ray itself waits
forever if a node's raylet has died, and ends the process without a message if the head has died.
"""

OWN_TOKEN = secrets.token_hex(32)
"""Authentication token of a Ray that a sweep starts, unless RAY_AUTH_TOKEN sets another."""

STARTED_WITHIN = 120.0
"""Seconds within which Ray must start or connect; Ray itself waits forever for a head that dies meanwhile."""

REACHED_WITHIN = 10.0
"""Seconds within which the head of a cluster must accept a connection."""

SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1000000",  # by default Ray ends this process 60 s after its head died
    "RAY_task_events_max_num_task_in_gcs": "10000",  # shown by the dashboard; the default of 100,000 takes 300 MB
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # else Tune itself restarts a trial without reporting it
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # the dashboard shows shared trainings
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # delay until the end of a shared training is seen; default 2
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",  # a cluster may have to grow first; default 60
    "RAY_USAGE_STATS_ENABLED": "0",  # no data about a sweep leaves the cluster
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # ReadyJobs limits them; a lower limit here starves starting actors
}
"""Environment variables of Ray and Tune while a sweep runs, unless the user has set them."""


@contextmanager
def connected(
    cpus: int | None = None,
    dashboard: bool = False,
    abandon: Callable[[ClusterError], None] = lambda _: None,
    given: str | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> Iterator[str]:
    """Connect to Ray: to the instance that this program already uses, else to a cluster, else start one.

    The cluster is the one at the address ``given``, else in RAY_ADDRESS. An instance that the program already used
    stays connected afterwards. A new one runs on this machine, with ``cpus`` cores and, if ``dashboard`` is True, a
    dashboard. It requires a token that only this process and its children have, listens on 127.0.0.1 only, and ends
    with this context. abandon: called from another thread if Ray has not started after STARTED_WITHIN seconds. note:
    called with a sentence if a Ray runs here that no address names. Yields the address of the dashboard, or ''. Raises
    ClusterError.
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
    address, source = named_address(given)
    if address is None and not source and (other := patches.started_here()):
        note(f"a Ray runs here, at {other}, and this sweep does not use it; to use it: --address auto")
    mode = os.environ.get("RAY_AUTH_MODE") or "token"
    if mode.lower() not in ("token", "disabled"):
        raise ClusterError(f"RAY_AUTH_MODE is {mode!r:.40}; it must be token or disabled")
    settings = {**defaults(SETTINGS), "RAY_ADDRESS": address, "RAY_AUTH_MODE": mode}
    settings |= {"PYTHONWARNINGS": None}  # for this program only: "error" would end Ray's own processes at a warning
    if address is None and mode.lower() == "token":
        settings |= defaults({"RAY_AUTH_TOKEN": OWN_TOKEN})
    try:
        with changed(settings), ExitStack() as stack:
            patches.read_environment_again()
            if address is None:
                stack.enter_context(usable_folder())
            stack.callback(shut_down, wait=address is None)
            with _deadline(abandon):
                context = _joined(address, source) if address else _started(cpus, dashboard)
            _State.own = address is None
            yield context.dashboard_url or ""
    finally:
        _State.own = False
        patches.read_environment_again()


class _State:
    own = False  # whether `connected` has started the Ray that is connected


def is_own() -> bool:
    """Return whether :func:`connected` has started the connected Ray, so that its processes have all of SETTINGS."""
    return _State.own


def shut_down(wait: bool) -> None:
    """Shut Ray down with the garbage collector off. wait: return only after Ray's processes have ended.

    If the collector frees an object reference meanwhile, in any thread, Ray 2.60 ends the process.
    """
    gc.collect()  # the references that it would free later
    with collector_off():
        ray.shutdown(wait_for_processes=wait)


def named_address(given: str | None = None) -> tuple[str | None, str]:
    """Return the address of the cluster that a sweep uses, and where it was named: in --address, RAY_ADDRESS or ''.

    The address is None if the sweep starts its own Ray. Raises ClusterError.
    """
    named = {"--address": given or "", "RAY_ADDRESS": os.environ.get("RAY_ADDRESS", "")}
    source = next((name for name, value in named.items() if value.strip()), "")
    address = named.get(source, "").strip()
    if address in ("", "local"):
        return None, source
    host, _, port = address.rpartition(":")
    if address == "auto" or (host and "/" not in host and port.isascii() and port.isdecimal()):
        return address, source
    kinds = {"http": "the dashboard's address", "https": "the dashboard's address", "ray": CLIENT}
    raise _refused(source, address, kinds.get(address.partition("://")[0], "not the address of a cluster's head"))


CLIENT = "an address for Ray Client (ray://), which is not for sweeps"


def _refused(source: str, address: str, kind: str) -> ClusterError:
    return ClusterError(
        f"{source} is {address}, which is {kind}; set it to HOST:PORT of the head (usually port 6379), or to auto on a "
        "machine of the cluster; without it, the sweep starts its own Ray"
    )


@contextmanager
def _deadline(abandon: Callable[[ClusterError], None]) -> Iterator[None]:
    kept = "finished steps are kept; run the same command again to resume"
    why = f"Ray has not started within {STARTED_WITHIN:.0f} s; {kept}"

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


def _started(cpus: int | None, dashboard: bool) -> Any:
    """Start Ray on this machine. Raises ClusterError."""
    try:
        with patches.on_localhost(), patches.agent_on_any_port():
            return _init(address="local", num_cpus=cpus, include_dashboard=dashboard, dashboard_host="127.0.0.1")
    except Exception as error:
        why = " ".join(str(error).split())
        busy = "; the machine may be busy: nothing is lost, run the same command again" if "timed out" in why else ""
        raise ClusterError(f"can't start Ray: {why}{busy}") from error


def _joined(address: str, source: str) -> Any:
    """Connect to the cluster at this address, which ``source`` names. Raises ClusterError."""
    try:
        found = patches.address_here() if address == "auto" else address
        host, _, port = found.rpartition(":")
        end = (host.strip("[]"), int(port))
        socket.create_connection(end, timeout=REACHED_WITHIN).close()  # Ray waits for minutes if nothing listens
        if patches.is_for_ray_client(found, REACHED_WITHIN):
            raise _refused(source, address, CLIENT)
        with patches.on_localhost() if _is_on_localhost_only(*end) else nullcontext():
            return _init(address=found)
    except ClusterError:
        raise
    except Exception as error:
        raise ClusterError(
            f"can't reach the Ray cluster at {address} (from {source}); check that it runs, and that this process "
            "has its token in RAY_AUTH_TOKEN or ~/.ray/auth_token (or RAY_AUTH_MODE=disabled, if it requires none)"
        ) from error


def _is_on_localhost_only(host: str, port: int) -> bool:
    """Return whether a head at this address listens on 127.0.0.1 only, as a Ray does that a sweep has started.

    For such an address Ray tries this machine's address in the network instead, and waits.
    """
    if not socket.gethostbyname(host).startswith("127."):
        return False
    try:
        socket.create_connection((get_node_ip_address(), port), timeout=REACHED_WITHIN).close()
    except OSError:
        return True
    return False


def _init(**arguments: Any) -> Any:
    """Call ``ray.init`` without its output; use uv environments only if RAY_ENABLE_UV_RUN_RUNTIME_ENV is set."""
    with patches.uv_environments(bool(os.environ.get("RAY_ENABLE_UV_RUN_RUNTIME_ENV"))):
        return ray.init(log_to_driver=False, logging_level=logging.ERROR, **arguments)


SOCKET_FOLDER = 103 - len("/session_2026-11-28_21-43-34_875189_1234567/sockets/dash_TaskEventsHead")
"""Maximum length of the path of Ray's folder, in bytes: the path of a socket may have 107 on Linux, 103 on macOS."""


@contextmanager
def usable_folder() -> Iterator[None]:
    """Set RAY_TMPDIR to a new private folder if the one that Ray chooses is not usable. Raises ClusterError.

    Ray puts its files into ``ray`` in RAY_TMPDIR, TMPDIR or /tmp. That folder is not usable if the paths of its
    sockets would be too long or not ASCII, or if another user owns it. The private folder is removed at the end.
    """
    if _is_usable(Path(patches.default_folder())):
        yield
        return
    if not os.access("/tmp", os.W_OK | os.X_OK):
        raise ClusterError(
            f"can't start Ray: {patches.default_folder()} is too long for its sockets, or not yours, and /tmp can't be "
            "written; set RAY_TMPDIR to a folder of yours with a short name"
        )
    with (
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        changed({"RAY_TMPDIR": folder}),
    ):
        yield


def _is_usable(folder: Path) -> bool:
    """Return whether Ray can make its sockets in this folder, and no other user owns it."""
    if not str(folder).isascii() or len(str(folder)) > SOCKET_FOLDER:
        return False
    try:
        return all(found.st_uid == os.geteuid() for found in (folder.lstat(), folder.stat()))
    except FileNotFoundError:
        return os.access(folder.parent, os.W_OK | os.X_OK)
    except OSError:
        return False


# ------------------------------------------------------------------------------------- the cluster's capacity and death


def capacity() -> Capacity:
    """Return what the connected cluster has, and what it may grow to have.

    Its limits are those that its autoscaler has told Ray; if there are none, those in the file of ``ray up``. A Ray on
    127.0.0.1, as a sweep starts it, does not grow.
    """
    there, free = _of(ray.cluster_resources()), _of(ray.available_resources())
    if limits := patches.growth():
        most = _of(limits.most, machine=_largest_of(limits.machines))
    elif is_alone():
        most = there
    else:
        most = largest(Path(GROWS_TO).expanduser())
    machine = most.machine if most else _largest_of(node["Resources"] for node in ray.nodes() if node["Alive"])
    return replace(there, free=free, most=most, machine=machine)


def is_alone() -> bool:
    """Return whether the connected Ray is on 127.0.0.1, as a sweep starts it, so that no other machine can join."""
    return ray.get_runtime_context().gcs_address.startswith("127.")


def _of(resources: Mapping[str, float], machine: Capacity | None = None) -> Capacity:
    """Return the cores and GPUs among Ray's resources."""
    return Capacity(cpus=resources.get("CPU", 0), gpus=resources.get("GPU", 0), machine=machine)


def _largest_of(machines: Iterable[Mapping[str, float]]) -> Capacity:
    """Return the largest number of cores, and of GPUs, that one of these machines has."""
    each = [_of(machine) for machine in machines]
    return Capacity(cpus=max((one.cpus for one in each), default=0), gpus=max((one.gpus for one in each), default=0))


class Lifeline:
    """Monitor of the connected cluster, in threads of its own because calls to a dead Ray do not return."""

    def __init__(self, lost: Callable[[str], None]) -> None:
        """lost: called once, from another thread, with a sentence on the cause, when Ray has died."""
        self.lost = lost
        self.dead = False
        self.capacity = capacity()
        self._gone = False
        self._here = ray.get_runtime_context().get_node_id()
        self._answered = time.monotonic()
        self._stop = threading.Event()

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch the cluster within this context."""
        self._answered = time.monotonic()  # the node checks before this may take longer than SILENT
        for act in (self._look, self._judge):
            threading.Thread(target=act, daemon=True).start()
        try:
            yield
        finally:
            self._stop.set()

    def _look(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            with suppress(Exception):  # a dead Ray raises many kinds of exceptions
                alive = any(node["Alive"] for node in ray.nodes() if node["NodeID"] == self._here)
                self.capacity = capacity()
                self._gone = not alive
                self._answered = time.monotonic()

    def _judge(self) -> None:
        while not self._gone and time.monotonic() - self._answered < SILENT:
            if self._stop.wait(0.5):
                return
        why = "its process on this machine ended" if self._gone else f"its head did not answer for {SILENT:.0f} s"
        self.dead = True
        patches.drop_exit_hooks()
        self.lost(f"Ray died: {why}; finished steps are kept; run the same command again to resume")


GROWS_TO = "~/ray_bootstrap_config.yaml"
"""Path of the cluster file of ``ray up``, on the head; its autoscaler does not tell Ray what it may add."""


def largest(config: Path) -> Capacity | None:
    """Return the capacity of all nodes that a cluster file allows, as far as it states resources; None if unreadable.

    Its ``machine`` is what one of the workers has.
    """
    try:
        content = yaml.safe_load(config.read_text())
        types, most = content["available_node_types"], content["max_workers"]
        kinds = {name: kind.get("resources") or {} for name, kind in types.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return None
    head = content.get("head_node_type")
    counts = {name: 1 if name == head else min(most, kind.get("max_workers", most)) for name, kind in types.items()}
    total = {
        resource: sum(counts[name] * kinds[name].get(resource, 0) for name in kinds) for resource in ("CPU", "GPU")
    }
    return _of(total, machine=_largest_of(kinds[name] for name in kinds if name != head))


# ------------------------------------------------------------------------------------- checks of the nodes


def check_nodes(store: Store, data_root: str, sources: Collection[str], gpus: bool = False) -> None:
    """Check that every node has this package, the same root, and the data. Raises ClusterError.

    sources: names of data sets. gpus: check also that nodes with GPUs can compute on them. If the cluster is this
    machine alone, nothing is checked: its first worker will do that.
    """
    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    if [node["NodeID"] for node in nodes] == [here]:
        return
    probe = f"probe-{uuid.uuid4().hex}"
    store.write(probe, b"driver")
    try:
        # A process that has computed on a GPU keeps a part of its memory: it ends after the check
        check: Any = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(complaint)
        answers = [
            check.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                store.address,
                data_root,
                list(sources),
                versions(),
                probe,
                str(index),
                gpus=gpus and bool(node["Resources"].get("GPU")),
            )
            for index, node in enumerate(nodes)
        ]
        for index, (node, answer) in enumerate(zip(nodes, answers, strict=True)):
            try:
                wrong = ray.get(answer, timeout=CHECKED_WITHIN)
            except Exception as error:
                if not any(other["Alive"] for other in ray.nodes() if other["NodeID"] == node["NodeID"]):
                    continue  # it left the cluster meanwhile
                wrong = f"can't run raysslprune: {str(error).strip().splitlines()[-1]}"
            if not wrong and not store.has(f"{probe}-{index}"):
                wrong = (
                    f"does not write to the same {store.shown} as this process; the root must be shared, or on s3://"
                )
            if wrong:
                raise ClusterError(f"node {node['NodeManagerAddress']} {wrong}")
    finally:
        for name in (probe, *(f"{probe}-{index}" for index in range(len(nodes)))):
            store.remove(name)


COMPILERS = ("g++", "clang++")
"""Compilers that torch.compile can use: for kernels on the CPU, and for the code that launches kernels on a GPU."""


def no_compiler() -> str:
    """Return why this node can't run ``--compile``, as the end of a sentence; '' if it can."""
    if any(map(shutil.which, COMPILERS)):
        return ""
    return f"has no C++ compiler, which --compile needs: neither {' nor '.join(COMPILERS)} is on its PATH"


def no_cuda() -> str:
    """Compute on each GPU that this process sees. Return why that fails, as the end of a sentence; '' if it works."""
    import torch

    try:
        for number in range(max(1, torch.cuda.device_count())):
            torch.ones(1, device=torch.device("cuda", number)).item()  # waits for the kernel
    except Exception as error:  # without CUDA in this build: AssertionError
        why = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        return f"can't compute on its GPU: {why} (driver {_driver()}; torch {torch.__version__}, built for {build})"
    return ""


def fault_of_gpu() -> str:
    """Compute on a GPU of the connected Ray, in a process that then ends. Return as :func:`no_cuda` does."""
    check: Any = ray.remote(num_cpus=0, num_gpus=1, max_retries=0, max_calls=1)(no_cuda)
    try:
        return ray.get(check.remote(), timeout=CHECKED_WITHIN)
    except Exception as error:  # the driver may end the process
        return f"can't compute on its GPU: {str(error).strip().splitlines()[-1]}"


def _driver(file: Path = Path("/proc/driver/nvidia/version")) -> str:
    """Return the version of NVIDIA's driver on this node, 'none' if none is loaded."""
    with suppress(OSError):
        if found := re.search(r"^NVRM version:.*?\s(\d+(?:\.\d+)+)\s", file.read_text(), re.MULTILINE):
            return found[1]
    return "none"


def complaint(
    root: str,
    data_root: str,
    sources: Collection[str],
    expected: Mapping[str, str],
    probe: str = MARKER,
    answer: str = "",
    gpus: bool = False,
) -> str:
    """Return what is wrong with the node that this runs on, as the end of a sentence; '' if nothing is.

    expected: versions on the driver. probe: a file that the driver wrote under the root. answer: if given, the node
    writes ``probe-answer`` beside it. gpus: whether it must be able to compute on the GPUs that this process sees.
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
        return f"does not see the root {store.shown} of this sweep; it must be shared, or on s3://"
    for name in sources:
        try:
            data.source(name).locate(Path(data_root))
        except (data.DataError, ValueError) as error:
            return f"lacks data: {error}"
    return no_cuda() if gpus else ""
