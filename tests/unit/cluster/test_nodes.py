"""What a cluster has or may grow to have, and how a sweep connects to it."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import socket
import stat
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from ray._private import parameter, ray_constants
from ray._raylet import (  # pyright: ignore[reportMissingImports]
    AuthenticationTokenLoader,  # pyright: ignore[reportAttributeAccessIssue]
    get_authentication_mode,  # pyright: ignore[reportAttributeAccessIssue]
)

from raysslprune.cluster import nodes as nodes_module
from raysslprune.cluster import patches
from raysslprune.cluster.nodes import Lifeline, complaint, connected, largest, no_compiler
from raysslprune.cluster.options import Capacity
from raysslprune.cluster.ray_thread import ClusterError
from raysslprune.store.record import versions
from raysslprune.store.steps import Store
from tests.helpers import CHECKOUT
from tests.helpers.processes import wait_until

PROJECT = CHECKOUT


def has(cpus: float = 64, gpus: float = 0) -> Capacity:
    return Capacity(cpus=cpus, gpus=gpus)


# ------------------------------------------------------------------------------------- autoscaling


def test_a_cluster_that_grows_is_counted_at_its_largest(tmp_path: Path) -> None:
    """With the project's own file for AWS, which `ray up` leaves on the head."""
    said = yaml.safe_load((PROJECT / "cluster.yaml").read_text())
    of_workers = next(kind for name, kind in said["available_node_types"].items() if name != said["head_node_type"])
    most = largest(PROJECT / "cluster.yaml")
    assert most is not None
    assert most.gpus == said["max_workers"] * of_workers["resources"]["GPU"] > 0
    assert most.cpus == said["max_workers"] * of_workers["resources"]["CPU"] > 0
    assert of_workers["min_workers"] == 0


def test_kinds_of_nodes_are_added_up(tmp_path: Path) -> None:
    config = tmp_path / "cluster.yaml"
    kinds = {
        "head": {"resources": {"CPU": 2}, "max_workers": 0},
        "small": {"resources": {"CPU": 8, "GPU": 1}, "max_workers": 3},
        "large": {"resources": {"CPU": 96, "GPU": 8}},
        "unknown": {"max_workers": 7},
    }
    config.write_text(yaml.safe_dump({"max_workers": 5, "head_node_type": "head", "available_node_types": kinds}))
    most = largest(config)
    assert most == Capacity(cpus=2 + 3 * 8 + 5 * 96, gpus=3 + 5 * 8, machine=Capacity(cpus=96, gpus=8))


@pytest.mark.parametrize(
    "text", ["", "[]", "max_workers: 3", "a: [", "available_node_types: {a: 3}\nmax_workers: 2", None]
)
def test_a_file_that_says_nothing_adds_nothing(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config").write_text(text)
    assert largest(tmp_path / "config") is None


# ------------------------------------------------------------------------------------- a Ray that dies


class Fake:
    """Stand-in for what Lifeline asks of Ray: a node that can end, or stop answering."""

    def __init__(self) -> None:
        self.alive, self.answers = True, True

    def nodes(self) -> list[dict[str, object]]:
        while not self.answers:
            time.sleep(0.01)
        return [{"NodeID": "other", "Alive": True}, {"NodeID": "mine", "Alive": self.alive}]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    made = Fake()
    monkeypatch.setattr(nodes_module.ray, "nodes", made.nodes)
    monkeypatch.setattr(nodes_module.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "mine"))
    monkeypatch.setattr(nodes_module, "capacity", has)
    for name, seconds in (("LOOK_EVERY", 0.05), ("SILENT", 0.6)):
        monkeypatch.setattr(nodes_module, name, seconds)
    yield made
    made.answers = True


@pytest.mark.parametrize(
    ("what", "why"), [("alive", "its process on this machine ended"), ("answers", "its head did not answer for 1 s")]
)
def test_a_dead_ray_is_told_once(what: str, why: str, fake: Fake) -> None:
    """Nothing is reported while it lives."""
    told: list[str] = []
    life = Lifeline(told.append)
    with life.watched():
        time.sleep(1)
        assert told == []
        setattr(fake, what, False)
        wait_until(lambda: bool(told), 10)
        time.sleep(1)
    assert told == [f"Ray died: {why}; finished steps are kept; run the same command again to resume"]


def test_silence_is_counted_from_the_start_of_watching(fake: Fake) -> None:
    """The checks of the nodes come before that, and may take longer than a dead Ray is silent."""
    told: list[str] = []
    life = Lifeline(told.append)
    fake.answers = False
    threading.Timer(0.3, setattr, (fake, "answers", True)).start()
    life._answered -= 100
    with life.watched():
        time.sleep(1)
    assert told == []
    assert not life.dead


def test_no_garbage_is_collected_while_ray_shuts_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reference in the garbage, for which Ray would end the process, is collected before."""

    class Reference:
        me: object

    circle = Reference()
    circle.me = circle
    alive, seen = weakref.ref(circle), []
    monkeypatch.setattr(nodes_module.ray, "shutdown", lambda **_: seen.append((alive(), gc.isenabled())))
    del circle
    nodes_module.shut_down(wait=False)
    assert seen == [(None, False)]
    assert gc.isenabled()


def test_a_program_on_ray_client_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes_module.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(nodes_module.client.ray, "is_connected", lambda: True)
    with pytest.raises(ClusterError, match=r"^this program is connected to Ray by Ray Client \(ray://\)"), connected():
        pytest.fail("connected")


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let ``auto`` find a head that listens, whatever runs on this machine."""
    monkeypatch.setattr(nodes_module.patches, "is_for_ray_client", lambda *_: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(nodes_module.patches, "address_here", lambda: f"127.0.0.1:{server.getsockname()[1]}")
        yield


@pytest.mark.usefixtures("head")
def test_a_start_that_takes_too_long_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
    abandoned: list[ClusterError] = []
    monkeypatch.setattr(nodes_module, "STARTED_WITHIN", 0.1)
    monkeypatch.setenv("RAY_ADDRESS", "auto")

    def never(**_: object) -> None:
        time.sleep(0.5)
        raise ConnectionError("no")

    monkeypatch.setattr(nodes_module.ray, "init", never)
    with pytest.raises(ClusterError, match="can't reach the Ray cluster"), connected(abandon=abandoned.append):
        pass
    assert len(abandoned) == 1
    assert str(abandoned[0]).startswith(
        "Ray has not started within 0 s; finished steps are kept; run the same command again to resume"
    )
    monkeypatch.setattr(nodes_module.ray, "init", lambda **_: SimpleNamespace(dashboard_url="x"))
    monkeypatch.setattr(nodes_module.ray, "shutdown", lambda **_: None)
    with connected(abandon=abandoned.append) as address:
        assert address == "x"
        time.sleep(0.3)
    assert len(abandoned) == 1, "one that did start is not"


# ------------------------------------------------------------------------------------- nodes


@pytest.fixture
def root(tmp_path: Path) -> Store:
    store = Store(str(tmp_path / "runs"))
    store.create()
    return store


def test_a_node_that_will_do_has_nothing_to_say(root: Store, tmp_path: Path) -> None:
    root.write("probe-1", b"x")
    assert complaint(root.address, str(tmp_path), ["digits"], versions(), "probe-1", "7") == ""
    assert root.read("probe-1-7") == b"node"
    assert complaint(root.address, str(tmp_path), ["digits"], versions()) == ""


def test_a_root_that_is_not_the_same_is_found_out(root: Store, tmp_path: Path) -> None:
    said = complaint(root.address, "", [], versions(), "probe-2", "0")
    assert said == f"does not see the root {root.shown} of this sweep; it must be shared, or on s3://"
    assert not root.has("probe-2-0")
    nowhere = tmp_path / "nowhere"
    assert "does not see the root" in complaint(str(nowhere), "", [], versions())
    assert not nowhere.exists()


def test_missing_data_and_other_versions_are_found_out(root: Store, tmp_path: Path) -> None:
    said = complaint(root.address, str(tmp_path / "data"), ["digits", "imagenet"], versions())
    assert said.startswith("lacks data: ")
    assert str(tmp_path / "data") in said
    other = {**versions(), "torch": "1.0", "python": "2.7"}
    assert complaint(root.address, "", [], other) == (
        f"has torch {versions()['torch']}, not 1.0, python {versions()['python']}, not 2.7"
    )


class Broken:
    """Stand-in for torch.cuda and a tensor on it, on a node whose driver is too old."""

    def __init__(self, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error = error
        self.devices: list[str] = []
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch, "ones", self.ones)
        monkeypatch.setattr(torch.version, "cuda", "13.2")

    def ones(self, *_: int, device: torch.device) -> torch.Tensor:
        self.devices.append(str(device))
        if device.index == 1:
            raise self.error
        return torch.zeros(1)


def test_a_gpu_that_can_not_compute_is_found_out_with_its_driver_and_build(
    root: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two."""
    version = tmp_path / "version"
    version.write_text(
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC 2023\nGCC version: 12.2\n"
    )
    broken = Broken(
        RuntimeError("The NVIDIA driver on your system is too old (found version 12020).\nPlease"), monkeypatch
    )
    driver = nodes_module._driver
    monkeypatch.setattr(nodes_module, "_driver", lambda: driver(version))
    said = complaint(root.address, str(tmp_path), ["digits"], versions(), gpus=True)
    assert said == (
        "can't compute on its GPU: The NVIDIA driver on your system is too old (found version 12020) "
        f"(driver 535.104.05; torch {torch.__version__}, built for CUDA 13.2)"
    )
    assert broken.devices == ["cuda:0", "cuda:1"]
    assert complaint(root.address, str(tmp_path), ["digits"], versions()) == "", "no GPU was asked for"
    broken.error = AssertionError("Torch not compiled with CUDA enabled")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(nodes_module, "_driver", lambda: driver(tmp_path / "nothing"))
    assert complaint(root.address, str(tmp_path), [], versions(), gpus=True) == (
        "can't compute on its GPU: Torch not compiled with CUDA enabled "
        f"(driver none; torch {torch.__version__}, built for no CUDA)"
    )


def test_a_node_without_a_compiler_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert no_compiler() == "has no C++ compiler, which --compile needs: neither g++ nor clang++ is on its PATH"
    (tmp_path / "clang++").touch(0o755)
    assert no_compiler() == ""


def test_an_address_where_nobody_listens_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    sentence = rf"^can't reach the Ray cluster at 127\.0\.0\.1:{port} \(from RAY_ADDRESS\); check that it runs, "
    with pytest.raises(ClusterError, match=sentence), connected():
        pass


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("", None),
        ("  ", None),
        ("local", None),
        (" local\n", None),
        ("auto", "auto"),
        ("10.0.0.7:6379", "10.0.0.7:6379"),
        ("head.example.org:6379\n", "head.example.org:6379"),
        ("[::1]:6379", "[::1]:6379"),
    ],
)
def test_what_names_a_cluster(said: str, address: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", said)
    assert nodes_module.named_address() == (address, "RAY_ADDRESS" if said.strip() else "")
    assert nodes_module.named_address("10.0.0.9:1") == ("10.0.0.9:1", "--address"), "it comes first"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("http://127.0.0.1:8265", "the dashboard's address"),
        ("https://head:8265/", "the dashboard's address"),
        ("ray://127.0.0.1:10001", "an address for Ray Client (ray://), which is not for sweeps"),
        ("head", "not the address of a cluster's head"),
        ("head:", "not the address of a cluster's head"),
        (":6379", "not the address of a cluster's head"),
        ("head:ray", "not the address of a cluster's head"),
        ("LOCAL", "not the address of a cluster's head"),
        ("anyscale://mine", "not the address of a cluster's head"),
    ],
)
def test_what_names_no_cluster_is_said_at_once(said: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", said)
    monkeypatch.setattr(nodes_module.ray, "init", None)
    with (
        pytest.raises(ClusterError, match=f"^RAY_ADDRESS is {said}, which is {re.escape(kind)}; set it to HOST:PORT "),
        connected(),
    ):
        pass
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(ClusterError, match=f"^--address is {said}, which is "), connected(given=said):
        pass


def test_a_mode_that_ray_would_take_for_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "tokens")
    monkeypatch.setattr(nodes_module.ray, "init", None)
    with pytest.raises(ClusterError, match=r"^RAY_AUTH_MODE is 'tokens'; it must be token or disabled$"), connected():
        pass


# ------------------------------------------------------------------------------------- its environment


@dataclass
class Begun:
    """The arguments of ray.init, and what Ray would have found in the environment."""

    arguments: dict[str, Any]
    environment: dict[str, str]
    mode: int
    has_token: bool


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[Begun]:
    """Replace ray.init by a function that records how it was called."""
    found: list[Begun] = []

    def init(**arguments: Any) -> SimpleNamespace:
        token = AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
        found.append(Begun(arguments, dict(os.environ), get_authentication_mode(), token))
        os.environ["RAY_LEFT"] = "as Ray leaves some"
        return SimpleNamespace(dashboard_url=None)

    monkeypatch.setattr(nodes_module.ray, "init", init)
    monkeypatch.setattr(nodes_module.ray, "shutdown", lambda **_: None)
    for name in ("RAY_ADDRESS", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/nowhere")
    return found


DISABLED, TOKEN = 0, 1
"""Ray's numbers for them."""


@pytest.mark.parametrize("address", [None, "", "local"])
def test_a_ray_of_its_own_has_a_token_of_its_own(
    address: str | None, begun: list[Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    before = dict(os.environ)
    with connected(cpus=1):
        assert len(begun) == 1
    assert begun[0].arguments["address"] == "local"
    assert begun[0].arguments["dashboard_host"] == "127.0.0.1"
    assert (begun[0].mode, begun[0].has_token) == (TOKEN, True)
    assert begun[0].environment["RAY_AUTH_TOKEN"] == nodes_module.OWN_TOKEN
    assert "RAY_ADDRESS" not in begun[0].environment, "its workers must not go to another"
    assert dict(os.environ) == before
    cached = AuthenticationTokenLoader.instance().has_token(ignore_auth_mode=True)
    assert (get_authentication_mode(), cached) == (DISABLED, False), "a later ray.init() is as without a sweep"


@pytest.mark.usefixtures("head")
@pytest.mark.parametrize(
    ("given", "mode", "token"),
    [
        ({"RAY_AUTH_TOKEN": "0123456789abcdef" * 4}, TOKEN, "0123456789abcdef" * 4),
        ({"RAY_AUTH_TOKEN": "", "RAY_AUTH_MODE": ""}, TOKEN, nodes_module.OWN_TOKEN),
        ({"RAY_AUTH_MODE": "Token"}, TOKEN, nodes_module.OWN_TOKEN),
        ({"RAY_AUTH_MODE": "disabled"}, DISABLED, None),
        ({"RAY_ADDRESS": "auto"}, TOKEN, None),
        ({"RAY_ADDRESS": "auto", "RAY_AUTH_MODE": "disabled"}, DISABLED, None),
    ],
    ids=["a token", "nothing", "a mode", "no token", "a cluster", "a cluster without"],  # not the token that is drawn
)
def test_what_the_user_set_stays(
    given: dict[str, str], mode: int, token: str | None, begun: list[Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TUNE_GLOBAL_CHECKPOINT_S", "7")
    with connected():
        pass
    assert begun[0].mode == mode
    assert begun[0].environment.get("RAY_AUTH_TOKEN") == token
    assert begun[0].environment["TUNE_GLOBAL_CHECKPOINT_S"] == "7"
    assert begun[0].environment["TUNE_DISABLE_SIGINT_HANDLER"] == "1"
    assert {name: os.environ.get(name) for name in given} == given


@pytest.mark.usefixtures("head")
@pytest.mark.parametrize(("address", "own"), [(None, True), ("local", True), ("auto", False)])
def test_what_a_sweep_started_is_its_own_until_it_ends(
    address: str | None, own: bool, begun: list[Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    if address is not None:
        monkeypatch.setenv("RAY_ADDRESS", address)
    assert not nodes_module.is_own()
    with contextlib.suppress(KeyError), connected():
        assert nodes_module.is_own() == own
        raise KeyError
    assert not nodes_module.is_own()


def test_the_agent_of_an_own_ray_takes_a_port_that_is_free(begun: list[Begun], monkeypatch: pytest.MonkeyPatch) -> None:
    init, ports = nodes_module.ray.init, list[int | None]()

    def looked(**arguments: Any) -> Any:
        ports.append(parameter.RayParams().dashboard_agent_listen_port)
        return init(**arguments)

    monkeypatch.setattr(nodes_module.ray, "init", looked)
    with connected():
        pass
    assert ports == [0]


def test_a_start_that_timed_out_may_be_tried_again(begun: list[Begun], monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: Any) -> None:
        raise RuntimeError("the GCS timed out\nduring startup")

    monkeypatch.setattr(nodes_module.ray, "init", init)
    sentence = "^can't start Ray: the GCS timed out during startup; the machine may be busy: nothing is lost, run the "
    with pytest.raises(ClusterError, match=f"{sentence}same command again$"), connected():
        pass


def test_the_environment_is_as_before_though_ray_did_not_start(
    begun: list[Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    def init(**_: Any) -> None:
        os.environ["RAY_LEFT"] = "1"
        raise OSError("no")

    monkeypatch.setattr(nodes_module.ray, "init", init)
    before = dict(os.environ)
    with pytest.raises(ClusterError, match=r"^can't start Ray: no$"), connected():
        pass
    assert dict(os.environ) == before
    assert get_authentication_mode() == DISABLED


@pytest.mark.parametrize(("said", "expected"), [(None, False), ("0", False), ("1", True)])
def test_uv_run_builds_no_environments(
    said: str | None, expected: bool, begun: list[Begun], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even though Ray read its variable on import, before the sweep."""
    monkeypatch.setattr(ray_constants, "RAY_ENABLE_UV_RUN_RUNTIME_ENV", True if said is None else said == "1")
    monkeypatch.delenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", raising=False)
    if said is not None:
        monkeypatch.setenv("RAY_ENABLE_UV_RUN_RUNTIME_ENV", said)
    init, found = nodes_module.ray.init, list[bool]()

    def looked(**arguments: Any) -> Any:
        found.append(ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV)
        return init(**arguments)

    monkeypatch.setattr(nodes_module.ray, "init", looked)
    before = ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV
    with connected():
        pass
    assert found == [expected]
    assert before == ray_constants.RAY_ENABLE_UV_RUN_RUNTIME_ENV


# ------------------------------------------------------------------------------------- its folder


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a short name, as TMPDIR."""
    with tempfile.TemporaryDirectory(prefix="t-", dir="/tmp") as name:
        monkeypatch.delenv("RAY_TMPDIR", raising=False)
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)


def test_rays_own_folder_will_do(short: Path) -> None:
    for _ in ("it is made", "it is there"):
        with nodes_module.usable_folder():
            assert patches.default_folder() == str(short / "ray")
        (short / "ray").mkdir(exist_ok=True)


def spoilt_by_length(short: Path) -> Path:
    return short / ("x" * 60)


def spoilt_by_letters(short: Path) -> Path:
    return short / "Münch"


def spoilt_by_its_parent(short: Path) -> Path:
    return short / "nowhere/at/all"


def spoilt_by_a_file(short: Path) -> Path:
    (short / "ray").touch()
    (short / "file").touch()
    return short / "file"


def spoilt_by_its_owner(short: Path) -> Path:
    if os.geteuid():
        pytest.skip("needs root")
    (short / "ray").mkdir()
    os.chown(short / "ray", 65534, 65534)
    return short


def spoilt_by_a_link_of_another(short: Path) -> Path:
    """Ray would make the link's target writable for everybody."""
    if os.geteuid():
        pytest.skip("needs root")
    (short / "mine").mkdir()
    (short / "ray").symlink_to(short / "mine")
    os.chown(short / "ray", 65534, 65534, follow_symlinks=False)
    return short


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize(
    "spoil",
    [
        spoilt_by_length,
        spoilt_by_letters,
        spoilt_by_its_parent,
        spoilt_by_a_file,
        spoilt_by_its_owner,
        spoilt_by_a_link_of_another,
    ],
)
def test_another_folder_takes_its_place(
    spoil: Callable[[Path], Path], variable: str, short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is private to this user, and removed at the end."""
    monkeypatch.setenv(variable, str(spoil(short)))
    before = dict(os.environ)
    with nodes_module.usable_folder():
        folder = Path(patches.default_folder())
        found = folder.parent.lstat()
        assert (found.st_uid, found.st_mode) == (os.geteuid(), stat.S_IFDIR | 0o700)
        with socket.socket(socket.AF_UNIX) as one:  # as long as Ray's own may be
            (folder / "session_2026-11-28_21-43-34_875189_1234567/sockets").mkdir(parents=True)
            one.bind(f"{folder}/session_2026-11-28_21-43-34_875189_1234567/sockets/dash_TaskEventsHead")
    assert not folder.parent.exists()
    assert dict(os.environ) == before


def test_where_no_folder_will_do_it_is_said(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(short / "Münch"))
    monkeypatch.setattr(nodes_module.os, "access", lambda *_: False)
    sentence = r"^can't start Ray: .*/Münch/ray is too long for its sockets, .*; set RAY_TMPDIR to a folder"
    with pytest.raises(ClusterError, match=sentence), nodes_module.usable_folder():
        pass
