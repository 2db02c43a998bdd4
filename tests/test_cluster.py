"""How many workers a training is given, and what a cluster has or may grow to have."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from raysslprune import cluster
from raysslprune.cluster import Capacity, ClusterError, Lifeline, Workers, complaint, connected, largest
from raysslprune.recipes import APPENDIX_D
from raysslprune.spec import Recipe
from raysslprune.store import Store, versions

PROJECT = Path(__file__).parent.parent


def has(cpus: float = 64, gpus: float = 0) -> Capacity:
    return Capacity(cpus=cpus, gpus=gpus)


# ------------------------------------------------------------------------------------- workers


def test_on_cores_a_training_has_one_worker_unless_told_otherwise() -> None:
    assert Workers().count(16, has()) == 1
    assert Workers(per_step=4).count(16, has()) == 4


def test_on_gpus_it_has_the_papers_number_where_there_are_so_many() -> None:
    """Appendix D says how many GPUs each recipe of ImageNet was run on."""
    for row in APPENDIX_D:
        if isinstance(row.recipe, Recipe) and row.gpus > 1:
            assert Workers(gpus=1).count(row.recipe.parts, has(gpus=32)) == row.gpus, row
    assert {row.gpus for row in APPENDIX_D} >= {8, 16, 32}


@pytest.mark.parametrize(
    ("parts", "limit", "expected"),
    [(16, 16, 16), (16, 15, 8), (16, 1, 1), (12, 5, 4), (12, 11, 6), (7, 6, 1), (1, 100, 1)],
)
def test_parts_are_shared_evenly(parts: int, limit: int, expected: int) -> None:
    assert Workers(per_step=limit).count(parts, has()) == expected
    assert Workers(gpus=1).count(parts, has(cpus=200, gpus=limit)) == expected


def test_workers_of_a_cluster() -> None:
    assert has(cpus=3.5).workers(0) == 3
    assert has(cpus=64, gpus=8).workers(1) == 8
    assert has(cpus=64, gpus=8).workers(0.25) == 32
    assert has(cpus=6, gpus=8).workers(1) == 6, "each needs a core, too"


@pytest.mark.parametrize(
    ("workers", "there", "sentence"),
    [
        (Workers(gpus=1), has(cpus=2), "a step wants 1 GPU and a core; this cluster has 0 GPUs and 2 cores at most; "
         "--gpus-per-worker 0 computes on cores"),
        (Workers(gpus=0.5), has(cpus=0, gpus=0), "a step wants 0.5 GPU and a core; this cluster has 0 GPUs and 0 "),
        (Workers(per_step=8), has(cpus=2), "a step wants 8 workers with a core each; this cluster has 0 GPUs and 2 "
         "cores at most; ask for fewer"),
        (Workers(per_step=8, gpus=1), has(gpus=4), "a step wants 8 workers with 1 GPU each; this cluster has 4 GPUs"),
        (Workers(), has(cpus=0.5), "a step wants a core; this cluster has 0 GPUs and 0.5 cores at most"),
    ],
)  # fmt: skip
def test_what_a_cluster_can_never_hold_is_said(workers: Workers, there: Capacity, sentence: str) -> None:
    with pytest.raises(ClusterError) as caught:
        workers.check({1, 16}, there)
    assert str(caught.value).startswith(sentence)


def test_what_fits_is_not_complained_about() -> None:
    Workers(per_step=8).check({1, 16}, has(cpus=8))
    Workers(per_step=800).check({1, 16}, has(cpus=16))
    Workers(gpus=1).check({1, 16}, has(gpus=1))


# ------------------------------------------------------------------------------------- autoscaling


def test_a_cluster_that_grows_is_counted_at_its_largest(tmp_path: Path) -> None:
    """By the project's own file for AWS, which `ray up` leaves on the head."""
    said = yaml.safe_load((PROJECT / "cluster.yaml").read_text())
    of_workers = next(kind for name, kind in said["available_node_types"].items() if name != said["head_node_type"])
    most = largest(PROJECT / "cluster.yaml")
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
    assert largest(config) == Capacity(cpus=2 + 3 * 8 + 5 * 96, gpus=3 + 5 * 8)


@pytest.mark.parametrize("text", ["", "[]", "max_workers: 3", "a: [", "available_node_types: {}\nmax_workers: 2", None])
def test_a_file_that_says_nothing_adds_nothing(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "config").write_text(text)
    assert largest(tmp_path / "config") == Capacity(cpus=0, gpus=0)


# ------------------------------------------------------------------------------------- a Ray that dies


class Fake:
    """In the place of what Lifeline asks of Ray: a node that is there until it is not, or stops to answer."""

    def __init__(self) -> None:
        self.alive, self.answers = True, True

    def nodes(self) -> list[dict[str, object]]:
        while not self.answers:
            time.sleep(0.01)
        return [{"NodeID": "other", "Alive": True}, {"NodeID": "mine", "Alive": self.alive}]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    made = Fake()
    monkeypatch.setattr(cluster.ray, "nodes", made.nodes)
    monkeypatch.setattr(cluster.ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "mine"))
    monkeypatch.setattr(cluster, "capacity", has)
    for name, seconds in (("LOOK_EVERY", 0.05), ("SILENT", 0.6), ("LINGER", 0.6)):
        monkeypatch.setattr(cluster, name, seconds)
    yield made
    made.answers = True


@pytest.mark.parametrize(
    ("what", "why"), [("alive", "its process on this machine ended"), ("answers", "its head did not answer for 1 s")]
)
def test_a_dead_ray_interrupts_what_waits_for_it(what: str, why: str, fake: Fake) -> None:
    """As Ctrl-C would, but with a sentence; and while it lives, nothing happens."""
    ended: list[str] = []
    life = Lifeline(ended.append)
    interrupted = False
    with life.held():
        time.sleep(1)
        assert life.lost == ""
        setattr(fake, what, False)
        try:
            time.sleep(10)
        except KeyboardInterrupt:
            interrupted = True
    assert interrupted
    assert life.lost == f"Ray died: {why}; what was finished is kept, and the same command goes on from there"
    time.sleep(1)
    assert ended == [], "this process came away in good order"


def test_who_can_not_come_away_from_a_dead_ray_is_ended(fake: Fake) -> None:
    ended: list[str] = []
    life = Lifeline(ended.append)
    with life.held():
        fake.alive = False
        for _ in range(2):
            try:
                time.sleep(1.5)
            except KeyboardInterrupt:
                continue
    assert ended == [life.lost] != [""]


def test_a_start_that_takes_long_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(cluster, "STARTED_WITHIN", 0.1)
    monkeypatch.setenv("RAY_ADDRESS", "auto")

    def never(**_: object) -> None:
        time.sleep(0.5)
        raise ConnectionError("no")

    monkeypatch.setattr(cluster.ray, "init", never)
    with pytest.raises(ClusterError, match="can't reach the Ray cluster"), connected(note=told.append):
        pass
    assert len(told) == 1
    assert told[0].startswith("Ray has not started within 0 s; if this ends now, nothing is lost")
    monkeypatch.setattr(cluster.ray, "init", lambda **_: SimpleNamespace(dashboard_url="x"))
    monkeypatch.setattr(cluster.ray, "shutdown", lambda: None)
    with connected(note=told.append) as address:
        assert address == "x"
        time.sleep(0.3)
    assert len(told) == 1, "one that did start is not told of"


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
    assert said == f"does not see the root {root.shown} of this sweep there; it must be shared, or on s3://"
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


def test_an_address_where_nobody_listens_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    sentence = rf"^can't reach the Ray cluster at 127\.0\.0\.1:{port} that RAY_ADDRESS names: is it running, "
    with pytest.raises(ClusterError, match=sentence), connected():
        pass
