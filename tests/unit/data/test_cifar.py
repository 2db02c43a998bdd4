"""CIFAR: read, downloaded, damaged, and missing."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import os
import pickle
import shutil
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from raysslprune import data
from raysslprune.data import DataError, cifar


def archive(kind: type[datasets.CIFAR10], path: Path, classes: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A small archive of the real layout; gives what torchvision's class must believe, and the images."""
    rng = np.random.default_rng(classes)
    images: dict[str, np.ndarray] = {}
    contents: dict[str, bytes] = {}
    for name, _ in (*kind.train_list, *kind.test_list):
        images[name] = rng.integers(0, 256, (2 * classes, 3072), dtype=np.uint8)
        key = "labels" if classes == 10 else "fine_labels"
        contents[name] = pickle.dumps({"data": images[name], key: [*range(classes)] * 2})
    label_names = [f"class {i}" for i in range(classes)]
    contents[kind.meta["filename"]] = pickle.dumps({kind.meta["key"]: label_names})
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            info = tarfile.TarInfo(f"{kind.base_folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    beliefs = {
        "tgz_md5": hashlib.md5(path.read_bytes()).hexdigest(),
        "train_list": [[name, md5[name]] for name, _ in kind.train_list],
        "test_list": [[name, md5[name]] for name, _ in kind.test_list],
        "meta": {**kind.meta, "md5": md5[kind.meta["filename"]]},
    }
    return beliefs, images


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


class QuietServer(http.server.HTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """torchvision looks for a redirection first and hangs up."""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which this machine serves it to itself."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(QuietHandler, directory=str(tmp_path / "served"))
    with QuietServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        yield tmp_path / "served", f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@pytest.fixture(params=["cifar10", "cifar100"])
def small(
    request: pytest.FixtureRequest, served: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> tuple[str, type[datasets.CIFAR10], dict[str, np.ndarray]]:
    """One of the data sets, served small: its name, torchvision's class, and the images of each file."""
    name: str = request.param
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    beliefs, images = archive(kind, served[0] / kind.filename, 10 if name == "cifar10" else 100)
    for key, value in {**beliefs, "url": f"{served[1]}/{kind.filename}"}.items():
        monkeypatch.setattr(kind, key, value)
    return name, kind, images


def test_cifar_is_downloaded_and_read(
    small: tuple[str, type[datasets.CIFAR10], dict[str, np.ndarray]],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, kind, images = small
    root, source = tmp_path / "data", data.source(name)
    download = kind.download

    def talkative(self: datasets.CIFAR10) -> None:
        print("as torchvision did once")
        download(self)

    monkeypatch.setattr(kind, "download", talkative)
    with pytest.raises(DataError, match=rf"^{root}/{name}/{kind.base_folder}/\w+ is missing; expected: .*{kind.url}"):
        source.locate(root)
    assert not root.exists()
    source.locate(root, fetch=True)
    source.locate(root)
    found = source.load(root)
    assert capfd.readouterr().out == ""
    classes = 10 if name == "cifar10" else 100
    for split, listed in ((found.train, kind.train_list), (found.test, kind.test_list)):
        assert isinstance(split, data.Resident)
        wanted = np.concatenate([images[file] for file, _ in listed]).reshape(-1, 3, 32, 32)
        assert np.array_equal(split.images.numpy(), wanted)
        assert split.labels.tolist() == [*range(classes)] * 2 * len(listed)
        assert split.labels.dtype == torch.int64
    whole = np.concatenate([images[file] for file, _ in kind.train_list]).reshape(-1, 3, 1024).astype(float)
    assert np.allclose(found.mean.flatten(), whole.mean((0, 2)), atol=1e-3)
    assert np.allclose(found.std.flatten(), whole.std((0, 2)), atol=1e-2)
    assert found.classes == classes
    assert os.listdir(root / name) == [kind.base_folder]


def test_cifar_is_not_downloaded_twice(
    small: tuple[str, type[datasets.CIFAR10], dict[str, np.ndarray]], served: tuple[Path, str], tmp_path: Path
) -> None:
    name, kind, _ = small
    data.source(name).locate(tmp_path, fetch=True)
    (served[0] / kind.filename).unlink()
    data.source(name).locate(tmp_path, fetch=True)
    damaged = tmp_path / name / kind.base_folder / kind.test_list[0][0]
    damaged.write_bytes(b"x")
    for look in (data.source(name).locate, data.source(name).load):
        with pytest.raises(DataError, match=f"^{damaged} is damaged; expected"):
            look(tmp_path)
    with pytest.raises(DataError, match=r"could not be downloaded \(HTTP Error 404: File not found\)"):
        data.source(name).locate(tmp_path, fetch=True)
    assert damaged.read_bytes() == b"x"


def test_damaged_files_are_downloaded_again(
    small: tuple[str, type[datasets.CIFAR10], dict[str, np.ndarray]], tmp_path: Path
) -> None:
    name, kind, _ = small
    data.source(name).locate(tmp_path, fetch=True)
    (tmp_path / name / kind.base_folder / kind.train_list[0][0]).write_bytes(b"half")
    (tmp_path / name / kind.base_folder / kind.meta["filename"]).unlink()
    data.source(name).locate(tmp_path, fetch=True)
    data.source(name).load(tmp_path)


def test_an_archive_put_there_by_hand_needs_no_network(
    small: tuple[str, type[datasets.CIFAR10], dict[str, np.ndarray]],
    served: tuple[Path, str],
    tmp_path: Path,
) -> None:
    name, kind, _ = small
    (tmp_path / name).mkdir()
    shutil.move(served[0] / kind.filename, tmp_path / name)
    data.source(name).locate(tmp_path, fetch=True)
    data.source(name).load(tmp_path)


def test_a_download_that_fails_is_one_sentence(
    small: tuple[str, type[datasets.CIFAR10], dict[str, np.ndarray]],
    served: tuple[Path, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, kind, _ = small
    (served[0] / kind.filename).write_bytes(b"another archive")
    with pytest.raises(DataError, match=rf"^{kind.url} could not be downloaded \(File not found or corrupted.\)"):
        data.source(name).locate(tmp_path, fetch=True)
    monkeypatch.setattr(kind, "url", "http://127.0.0.1:9/none.tar.gz")
    with pytest.raises(
        DataError, match=r"could not be downloaded \(.*refused.*\); if this machine has no network, put .* into"
    ):
        data.source(name).locate(tmp_path, fetch=True)
    assert not (tmp_path / name).exists()
    with pytest.raises(DataError, match="refused"):
        data.source(name).locate(tmp_path / "a/b", fetch=True)
    assert not (tmp_path / "a").exists()
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="refused"):
        data.source(name).locate(tmp_path, fetch=True)
    assert os.listdir(tmp_path / name) == []  # somebody else's, who may be about to put the archive there


def test_nothing_is_unpickled_whose_checksum_is_wrong(
    small: tuple[str, type[datasets.CIFAR10], dict[str, np.ndarray]], tmp_path: Path
) -> None:
    name, kind, _ = small
    data.source(name).locate(tmp_path, fetch=True)

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (os.mkdir, (str(tmp_path / "sprung"),))

    for file in (kind.train_list[0][0], kind.meta["filename"]):
        path = tmp_path / name / kind.base_folder / file
        whole = path.read_bytes()
        path.write_bytes(pickle.dumps(Trap()))
        with pytest.raises(DataError, match=f"{path} is damaged"):
            data.source(name).load(tmp_path)
        path.write_bytes(whole)
    assert not (tmp_path / "sprung").exists()


def test_cifar_100_is_not_cifar_10() -> None:
    assert cifar.CIFAR100().kind is datasets.CIFAR100
    with pytest.raises(ValueError, match="cifar100 takes no argument; remove"):
        cifar.CIFAR100("x")
