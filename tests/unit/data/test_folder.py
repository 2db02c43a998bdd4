"""Folders, CIFAR and Parquet in the layouts that people have them in, and the command that checks images."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import io
import os
import pickle
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision import datasets

from raysslprune import api, data, export, names, sweep
from raysslprune.data import DataError, check, cifar, files, folder, resize
from raysslprune.data.files import Files
from raysslprune.scales import SETTINGS
from raysslprune.spec import Init, Train
from raysslprune.train import Loop
from tests.helpers.images import encoded, picture, save

# ----------------------------------------------------------------------------------------- folders

TREE = {
    "train": ["dog/b.jpg", "dog/a.JPEG", "dog/B.Png", "cat/1.webp", "cat/10.jpg", "cat/2.jpg", "Emu/x.ppm"],
    "val": ["dog/v.jpg", "cat/v.jpg", "Emu/v.bmp"],
}
NESTED = ["cat/a/2.jpg", "cat/a-b/1.jpg", "cat/a/b/3.jpg", "cat/a.jpg", "dog/z/deep/er/1.jpg"]


def tree(root: Path, **splits: list[str]) -> Path:
    for split, images in (splits or TREE).items():
        for number, name in enumerate(images):
            (root / split / name).parent.mkdir(parents=True, exist_ok=True)
            kind = {"webp": "WEBP", "png": "PNG", "bmp": "BMP", "ppm": "PPM"}.get(
                name.rpartition(".")[2].lower(), "JPEG"
            )
            (root / split / name).write_bytes(encoded(picture(20 + number, 16), kind))
    return root


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """The data root of ``folder/pets``."""
    tree(tmp_path / "pets")
    return tmp_path


def same_as_torchvision(split: data.Split, path: Path) -> None:
    reference = datasets.ImageFolder(str(path))
    assert isinstance(split, Files)
    assert [f"{split.root}/{name}" for name in split.names] == [image for image, _ in reference.samples]
    assert split.labels.tolist() == reference.targets
    assert split.labels.dtype == torch.int64


def test_order_and_labels_are_torchvisions(pets: Path) -> None:
    tree(pets / "pets", train=NESTED)
    source = data.source("folder/pets")
    source.locate(pets)
    found = source.load(pets)
    same_as_torchvision(found.train, pets / "pets/train")
    same_as_torchvision(found.test, pets / "pets/val")
    assert (len(found.train), len(found.test), found.classes) == (12, 3, 3)
    assert (found.size, found.channels, found.multilabel) == (224, 3, False)
    images, labels = next(found.batches(found.train, 5))
    assert (images.shape, labels.tolist()) == ((5, 3, 224, 224), found.train.labels[:5].tolist())


def test_links_are_followed(pets: Path) -> None:
    elsewhere = tree(pets / "elsewhere", train=["c.jpg"]) / "train"
    (pets / "pets/train/fox").symlink_to(elsewhere)
    (pets / "pets/val/fox").symlink_to(elsewhere)
    (pets / "pets/train/dog/linked.jpg").symlink_to(elsewhere / "c.jpg")
    (pets / "pets/train/dog/more").symlink_to(elsewhere)
    (pets / "link").symlink_to(pets / "pets")
    found = data.source("folder/link").load(pets)
    same_as_torchvision(found.train, pets / "link/train")
    assert [files_of(found.train).view(i).shape for i in range(10)] == [(3, 224, 224)] * 10


def test_what_is_hidden_or_no_image_by_its_name_is_not_seen(pets: Path) -> None:
    before = list(files_of(data.source("folder/pets").load(pets).train).names)
    for name in ("dog/.DS_Store", "dog/._a.jpg", "dog/README", "dog/boxes.txt", "dog/jpg", "classes.txt"):
        (pets / "pets/train" / name).write_text("x")
    (pets / "pets/train/.git").mkdir()
    save(picture(4, 4), pets / "pets/train/dog/.thumbnails/a.jpg")
    assert list(files_of(data.source("folder/pets").load(pets).train).names) == before


def test_what_file_servers_and_windows_hide_is_not_seen(pets: Path) -> None:
    before = data.source("folder/pets").load(pets)
    for place in ("train/@eaDir", "train/dog/@eaDir", "val/@eaDir", "train/dog/@eaDir/a.JPEG"):
        save(picture(4, 4), pets / "pets" / place / "SYNOPHOTO_THUMB_XL.jpg")
    (pets / "pets/train/dog/Thumbs.db").write_text("x")
    found = data.source("folder/pets").load(pets)
    assert list(files_of(found.train).names) == list(files_of(before.train).names)
    assert (found.classes, found.remarks) == (3, ())


def test_files_that_are_no_images_by_their_names_are_counted(pets: Path) -> None:
    before = list(files_of(data.source("folder/pets").load(pets).train).names)
    assert data.source("folder/pets").locate(pets) == ()
    for name in ("train/dog/1.jfif", "train/dog/deep/2.JFIF", "train/cat/3.gif", "val/cat/4.heic", "val/README"):
        save(picture(4, 4), pets / "pets" / name, format="GIF" if "gif" in name else "JPEG")
    save(picture(4, 4), pets / "pets/train/.cache/5.jfif", format="JPEG")
    (remark,) = data.source("folder/pets").load(pets).remarks
    assert remark.startswith(
        f"5 files in {pets}/pets will not be read: 2 .jfif, 1 .gif, 1 .heic, 1 without an ending; images have names in"
    )
    assert data.source("folder/pets").locate(pets) == (remark,)
    assert list(files_of(data.source("folder/pets").load(pets).train).names) == before
    emptied(pets / "pets/val/cat")
    (pets / "pets/val/cat/a.GIF").write_text("x")
    with pytest.raises(DataError, match=r"val/cat has no images, only 1 \.gif; wanted: files with names in \.jpg"):
        data.source("folder/pets").locate(pets)


def test_files_that_are_not_read_are_told_before_a_training(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pets / "pets/train/dog/1.avif").write_text("x")
    (pets / "five.py").write_text(SWEEP.format(data="folder/pets", task="labels"))
    arguments = [str(pets / "five.py"), "--data", str(pets), "--root", str(pets / "runs"), "--dry-run"]
    assert sweep.main(arguments) == 0
    assert capsys.readouterr().err.startswith(f"raysslprune: 1 file in {pets}/pets will not be read: 1 .avif; images")


SWEEP = """
from raysslprune.lottery import imp
from raysslprune.spec import Recipe
from raysslprune.sweepfile import Curve, Figure, Point

CURVE = Curve(task="{task}", init="winning ticket")
FIGURE = Figure(title="Pets", references=(CURVE,))


def points(scale, seed):
    recipe = Recipe(samples=8, batch=4, lr=0.01)
    chain = imp(
        task="{task}", data="{data}", arch="conv4", recipe=recipe, seed=seed, levels=1, keep=0.5, rewind=4
    )
    yield Point(step=chain.rounds[0], task=CURVE.task, init=CURVE.init, level=0, seed=seed)
"""


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_names_that_look_the_same_are_told_apart(tmp_path: Path) -> None:
    tree(tmp_path / "pets", train=[f"{COMPOSED}/1.jpg"], val=[f"{DECOMPOSED}/1.jpg"])
    source = data.source("folder/pets")
    with pytest.raises(DataError) as error:
        source.locate(tmp_path)
    has, lacks = f"{tmp_path}/pets/val", f"{tmp_path}/pets/train"
    assert str(error.value) == (
        rf"class 'cafe\u0301' is in {has}, but not in {lacks}, where '{COMPOSED}' looks like it; rename one of the two"
    )
    tree(tmp_path / "pets", train=[f"{DECOMPOSED}/1.jpg"], val=[f"{COMPOSED}/1.jpg"])
    assert source.locate(tmp_path) == (rf"'cafe\u0301' and '{COMPOSED}' look the same, and are two classes",)


@pytest.mark.parametrize("task", ["rotnet", "exemplar", "npid"])
def test_one_class_is_enough_without_labels(task: str, tmp_path: Path) -> None:
    tree(tmp_path / "photos", train=[f"all/{n}.jpg" for n in range(8)], val=[f"all/{n}.jpg" for n in range(4)])
    recipe = replace(SETTINGS["smoke"].recipes[task], batch=4, samples=8, pad=0, crop=0.5)
    step = Train(task=task, data="folder/photos", arch="conv4", recipe=recipe, seed=0, start=Init(seed=0))
    outcome = Loop(step=step, data=data.load(step.data, str(tmp_path))).run()
    assert outcome.metrics["density"] == 1.0


def files_of(split: data.Split) -> Files:
    assert isinstance(split, Files)
    return split


def test_the_order_does_not_depend_on_the_file_system(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = data.source("folder/pets").load(pets)
    scan = os.scandir

    @contextlib.contextmanager
    def backwards(path: Path) -> Iterator[list[os.DirEntry[str]]]:
        with scan(path) as entries:
            yield sorted(entries, key=lambda entry: entry.name, reverse=True)

    monkeypatch.setattr(os, "scandir", backwards)
    again = data.source("folder/pets").load(pets)
    assert list(files_of(first.train).names) == list(files_of(again.train).names)
    assert torch.equal(first.train.labels, again.train.labels)


def emptied(path: Path) -> None:
    for image in path.iterdir():
        image.unlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda p: shutil.rmtree(p), "there is no folder {p}/train; wanted: {p}/{{train,val}}/CLASS"),
        (lambda p: shutil.rmtree(p / "val"), "there is no folder {p}/val; wanted: {p}/{{train,val}}/CLASS"),
        (lambda p: (shutil.rmtree(p), p.write_text("")), "{p}/train is not a folder; wanted"),
        (lambda p: (shutil.rmtree(p / "val"), (p / "val").write_text("")), "{p}/val is not a folder; wanted"),
        (lambda p: [shutil.rmtree(c) for c in (p / "train").iterdir()], "{p}/train has 0 folders of classes; wanted"),
        (lambda p: emptied(p / "train/dog"), "{p}/train/dog has no images; wanted"),
        (lambda p: shutil.rmtree(p / "val/cat"), "class 'cat' is in {p}/train, but not in {p}/val$"),
        (lambda p: shutil.rmtree(p / "train/cat"), "class 'cat' is in {p}/val, but not in {p}/train$"),
        (
            lambda p: save(picture(4, 4), p / "val/ILSVRC2012_val_00000001.JPEG"),
            "val_00000001.JPEG is not in the folder",
        ),
        (lambda p: (p / "train/yak").symlink_to("nowhere"), "{p}/train/yak is a link to nothing"),
        (lambda p: (p / "train/cat/loop").symlink_to("."), "folder {p}/train/cat/loop/loop would be listed twice"),
        (lambda p: (p / "train/cat/round").symlink_to("round"), None),
        (lambda p: save(picture(4, 4), p / os.fsdecode(b"train/cat/\xff.png")), r"'train/cat/\\udcff.png' .*not UTF-8"),
        (lambda p: (p / "skip.txt").write_text("train/cat/3.jpg"), "{p}/skip.txt lists 'train/cat/3.jpg'"),
    ],
)
def test_what_is_missing_or_wrong_is_named(pets: Path, spoil: Callable[[Path], object], sentence: str | None) -> None:
    spoil(pets / "pets")
    for look in (data.source("folder/pets").locate, data.source("folder/pets").load):
        with pytest.raises(DataError, match=sentence.format(p=pets / "pets")) if sentence else contextlib.nullcontext():
            look(pets)


def test_a_folder_that_may_not_be_read_is_named(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scan = os.scandir

    def forbidding(path: Path) -> Any:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", forbidding)
    with pytest.raises(DataError, match=f"folder {pets}/pets/train/dog can't be listed: Permission denied"):
        data.source("folder/pets").load(pets)


@pytest.mark.parametrize(
    ("name", "kind", "sentence"),
    [
        ("imagenet", folder.ImageNet, r"/imagenet/train has 3 folders of classes; wanted: .*n01440764.* 1,000 classes"),
        ("places205", folder.Places205, r"/places205/train has 3 folders of classes; wanted: .* 205 classes"),
    ],
)
def test_known_data_sets_have_their_number_of_classes(
    name: str, kind: type[folder.Folder], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path / name)
    assert kind.wanted == {"imagenet": 1000, "places205": 205}[name]
    with pytest.raises(DataError, match=sentence):
        data.source(name).locate(tmp_path)
    monkeypatch.setattr(kind, "wanted", 3)
    data.source(name).locate(tmp_path)
    found = data.source(name).load(tmp_path)
    same_as_torchvision(found.train, tmp_path / name / "train")
    assert kind("").wanted == found.classes == 3
    with pytest.raises(ValueError, match=f"{name} takes nothing after a slash"):
        kind("x")


def test_a_subset_of_files(pets: Path) -> None:
    whole, part = data.source("folder/pets").load(pets), data.load("folder/pets:30%-of-classes", str(pets))
    assert (part.classes, len(part.test)) == (1, 1)
    assert set(files_of(part.train).names) < set(files_of(whole.train).names)
    assert part.train.labels.tolist() == [0] * len(part.train)


def test_paths_are_absolute(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers may stand in another folder."""
    monkeypatch.chdir(pets)
    found = data.source("folder/pets").load(Path())
    monkeypatch.chdir("/")
    assert files_of(found.train).view(0).any()


# ------------------------------------------------------------------------------------------- CIFAR


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
    with pytest.raises(DataError, match=rf"^{root}/{name}/{kind.base_folder}/\w+ is missing; wanted: .*{kind.url}"):
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
        with pytest.raises(DataError, match=f"^{damaged} is damaged; wanted"):
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
        DataError, match=r"could not be downloaded \(.*refused.*\); without a network, put .* into"
    ) as e:
        data.source(name).locate(tmp_path, fetch=True)
    assert "\n" not in str(e.value)
    assert not (tmp_path / name).exists()
    with pytest.raises(DataError, match="refused"):
        data.source(name).locate(tmp_path / "a/b", fetch=True)
    assert not (tmp_path / "a").exists()
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="refused"):
        data.source(name).locate(tmp_path, fetch=True)
    assert os.listdir(tmp_path / name) == []  # somebody else's, who may be about to put the archive there


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_sentence_on_missing_cifar_says_what_lies_there(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    monkeypatch.setattr(kind, "url", "http://127.0.0.1:9/none.tar.gz")
    root = tmp_path / "sets"

    with pytest.raises(DataError, match=f"unpacked in {root}/{name}$"):
        data.source(name).locate(root)
    (root / kind.base_folder).mkdir(parents=True)
    for fetch in (False, True):
        with pytest.raises(DataError, match=f"; {root}/{kind.base_folder} is there: move it into {root}/{name}$"):
            data.source(name).locate(root, fetch)
    (root / kind.base_folder).rename(root / kind.filename)
    for fetch in (False, True):
        with pytest.raises(DataError, match=f"; {root}/{kind.filename} is there: move it into {root}/{name}$"):
            data.source(name).locate(root, fetch)
    (root / kind.filename).rmdir()
    for file in (
        f"{name}-{{}}.parquet",
        f"{name}/{{}}-00000-of-00001.parquet",
        f"{name}/plain/{{}}.parquet",
    ):
        paths = [root / file.format(split) for split in ("train", "test")]
        paths[0].parent.mkdir(exist_ok=True)
        for path in paths:
            path.write_text("")
        use = f"parquet/{name}/plain" if "plain" in file else f"parquet/{name}"
        for fetch in (False, True):
            with pytest.raises(
                DataError, match=f'; {root} has Parquet files of that name: data="{use}" in a sweep file'
            ):
                data.source(name).locate(root, fetch)
        for path in paths:
            path.unlink()


def test_a_data_root_that_is_the_folder_of_cifar_itself_is_told(tmp_path: Path) -> None:
    (tmp_path / "cifar10/cifar-10-batches-py").mkdir(parents=True)
    with pytest.raises(DataError, match=rf"-py is there: --data wants the folder above, {tmp_path}$"):
        data.source("cifar10").locate(tmp_path / "cifar10")


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
    with pytest.raises(ValueError, match="cifar100 takes nothing after a slash"):
        cifar.CIFAR100("x")


# ----------------------------------------------------------------------------------------- Parquet


def table(images: list[Any], labels: list[Any], kind: pa.DataType | None = None) -> pa.Table:
    return pa.table({"image": pa.array(images, kind or pa.binary()), "label": labels})


def pictures(*sizes: int, mode: str = "RGB", kind: str = "PNG") -> list[bytes]:
    return [encoded(picture(size, size, seed).convert(mode), kind) for seed, size in enumerate(sizes)]


def put(root: Path, train: pa.Table, test: pa.Table | None = None) -> data.Source:
    pq.write_table(train, root / "x-train.parquet", row_group_size=2)
    pq.write_table(test or table(pictures(8), [0]), root / "x-test.parquet")
    return data.source("parquet/x")


@pytest.mark.parametrize("struct", [False, True])
def test_parquet_images_are_resident(tmp_path: Path, struct: bool) -> None:
    images, labels = pictures(8, 8, 8, 8, 8), [2, 0, 1, 1, 2]
    column: list[Any] = [{"bytes": image, "path": "x"} for image in images] if struct else images
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()}) if struct else pa.large_binary()
    source = put(tmp_path, table(column, labels, kind), table(pictures(8, mode="L"), [1]))
    source.locate(tmp_path)
    found = source.load(tmp_path)
    assert isinstance(found.train, data.Resident)
    assert isinstance(found.test, data.Resident)
    wanted = np.stack([np.asarray(Image.open(io.BytesIO(image))) for image in images]).transpose(0, 3, 1, 2)
    assert np.array_equal(found.train.images.numpy(), wanted)
    assert found.train.labels.tolist() == labels
    assert (found.train.labels.dtype, found.test.labels.tolist()) == (torch.int64, [1])
    grey = np.asarray(Image.open(io.BytesIO(pictures(8, mode="L")[0])))
    assert np.array_equal(found.test.images.numpy(), np.stack([grey] * 3)[None])
    assert (found.classes, found.channels, found.size) == (3, 3, 8)
    assert found.train.images.is_contiguous()


def test_parquet_images_without_colours_have_one_channel(tmp_path: Path) -> None:
    grey = pictures(8, 8, mode="L")
    found = put(tmp_path, table(grey, [0, 1]), table(grey[:1], [0])).load(tmp_path)
    assert isinstance(found.train, data.Resident)
    assert np.array_equal(found.train.images[1, 0].numpy(), np.asarray(Image.open(io.BytesIO(grey[1]))))
    assert (found.channels, found.train.images.shape) == (1, (2, 1, 8, 8))
    mixed = put(tmp_path, table(grey, [0, 1]), table(pictures(8), [0])).load(tmp_path)
    assert isinstance(mixed.train, data.Resident)
    assert mixed.train.images.shape == (2, 3, 8, 8)
    assert torch.equal(mixed.train.images[:, 1:2], found.train.images)


TWO = pictures(8, 8)


@pytest.mark.parametrize(
    ("train", "test", "sentence"),
    [
        (
            table([*TWO, TWO[0][:60]], [0, 1, 0]),
            None,
            "image in row 2 of {train}, counted from 0, can't be used: .*runc",
        ),
        (table([*TWO, b"text"], [0, 1, 0]), None, "image in row 2 of {train}, .*it is no image"),
        (table([*TWO, None], [0, 1, 0]), None, "image in row 2 of {train}, .*empty"),
        (table([*TWO, *pictures(9)], [0, 1, 0]), None, "row 2 of {train}, .* 9 x 9 pixels; all must be square and"),
        (table([encoded(picture(8, 9), "PNG")], [0]), None, "row 0 of {train}, .* 8 x 9 pixels; all must be square"),
        (table(TWO, [0, 2]), None, "2 different labels in {train} are not the numbers from 0 to 1"),
        (table(TWO, [1, 2]), None, "2 different labels in {train} are not the numbers from 0 to 1"),
        (table(TWO, [-1, 1]), None, "2 different labels in {train} are not the numbers from 0 to 1"),
        (table(TWO, [0, None]), None, "{train} has rows without a label"),
        (table([], pa.array([], pa.int64())), None, "{train} has no rows"),
        (table(TWO, [0, 1]), table(TWO, [1, 2]), "{test} has labels that are not in {train}"),
        (table(TWO, [0, 1]), table(TWO, [1, -1]), "{test} has labels that are not in {train}"),
        (table(TWO, [0, 1]), table(pictures(9), [1]), "images in {test} are not of the size of those in {train}"),
    ],
)
def test_parquet_rows_that_are_wrong_are_named(
    tmp_path: Path, train: pa.Table, test: pa.Table | None, sentence: str
) -> None:
    where = {split: tmp_path / f"x-{split}.parquet" for split in ("train", "test")}
    with pytest.raises(DataError, match=sentence.format(**where)):
        put(tmp_path, train, test).load(tmp_path)


@pytest.mark.parametrize(
    ("columns", "found"),
    [
        (
            {"img": TWO, "fine_label": [0, 1], "coarse_label": [0, 1]},
            r"img .*coarse_label .*",
        ),
        ({"image": TWO, "class": [0, 1]}, r"image .*class .*"),
        ({"jpg": TWO, "label": [0, 1]}, r"jpg .*"),
        ({"image": TWO, "label": ["a", "b"]}, r"image \(binary\), label \(string\)"),
        ({"image": TWO, "label": [0.0, 1.0]}, r"image \(binary\), label \(double\)"),
        ({"image": ["a", "b"], "label": [0, 1]}, r"image \(string\), label \(int64\)"),
        ({"image": [{"path": "a"}, {"path": "b"}], "label": [0, 1]}, r"image \(struct<path: string>\), label"),
        ({"image": [[0], [1]], "label": [0, 1]}, r"image \(list<.*>\), label"),
    ],
)
def test_parquet_columns_that_are_wrong_are_named(tmp_path: Path, columns: dict[str, Any], found: str) -> None:
    source = put(tmp_path, pa.table(columns))
    for look in (source.locate, source.load):
        with pytest.raises(DataError, match=f"^{tmp_path}/x-train.parquet has the columns {found}.*; wanted: .*image"):
            look(tmp_path)


@pytest.mark.parametrize("image", ["image", "img"])
@pytest.mark.parametrize("label", ["label", "labels", "fine_label"])
def test_parquet_columns_as_the_hub_has_them(tmp_path: Path, image: str, label: str) -> None:
    column = pa.array([{"bytes": one, "path": None} for one in TWO])
    table = pa.table({"id": [7, 8], label: [1, 0], image: column})
    source = put(tmp_path, table, table)
    source.locate(tmp_path)
    found = source.load(tmp_path)
    assert isinstance(found.train, data.Resident)
    wanted = np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in TWO]).transpose(0, 3, 1, 2)
    assert np.array_equal(found.train.images.numpy(), wanted)
    assert found.train.labels.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("columns", "near"),
    [
        (["img", "fine_label", "coarse_label"], "name it parquet/x:fine_label or parquet/x:coarse_label"),
        (["image", "class"], "name it parquet/x:class"),
        (["image", "class", "id"], "name it parquet/x:class or parquet/x:id"),
        (["jpg", "label"], "rename jpg to image"),
    ],
)
def test_the_sentence_on_columns_ends_with_the_nearest_fit(tmp_path: Path, columns: list[str], near: str) -> None:
    source = put(tmp_path, pa.table({columns[0]: TWO, **{name: [0, 1] for name in columns[1:]}}))
    sentence = rf"has the columns {columns[0]} \(binary\), .*; wanted: .*; to use it, {near}$"
    with pytest.raises(DataError, match=sentence):
        source.locate(tmp_path)


def test_of_two_columns_of_labels_the_name_says_which(tmp_path: Path) -> None:
    hub = pa.table({"img": TWO * 2, "fine_label": [0, 1, 2, 3], "coarse_label": [1, 1, 0, 0]})
    put(tmp_path, hub, hub)
    for name, labels in (("fine_label", [0, 1, 2, 3]), ("coarse_label", [1, 1, 0, 0])):
        assert data.load(f"parquet/x:{name}", tmp_path).train.labels.tolist() == labels
    assert len(data.load("parquet/x:coarse_label:50%-of-classes", tmp_path).train) == 2
    with pytest.raises(DataError, match=r"no whole numbers label; .* parquet/x:fine_label or parquet/x:coarse"):
        data.source("parquet/x:label").locate(tmp_path)
    more = pa.table({"image": TWO, "img": TWO[::-1], "label": [0, 1], "coarse_label": [1, 0]})
    put(tmp_path, more, table(TWO, [1, 0]))
    found = data.source("parquet/x").load(tmp_path)  # as it was read before there were other names
    assert isinstance(found.train, data.Resident)
    assert found.train.labels.tolist() == [0, 1]
    assert np.array_equal(found.train.images[0, 0].numpy(), np.asarray(Image.open(io.BytesIO(TWO[0])))[:, :, 0])


HASH = "-a09b74b3ef9c3b56"


@pytest.mark.parametrize("folder", ["x", "x/data"])
@pytest.mark.parametrize("end", ["", HASH])
def test_parquet_in_several_files_is_read_in_their_order(tmp_path: Path, folder: str, end: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    images, labels = pictures(*[8] * 5), [0, 1, 2, 1, 0]
    for part in (2, 0, 1):
        rows = slice(2 * part, 2 * part + 2)
        path = tmp_path / folder / f"train-{part:05}-of-00003{end}.parquet"
        pq.write_table(pa.table({"img": images[rows], "label": labels[rows]}), path)
    pq.write_table(pa.table({"img": images[:1], "label": [2]}), tmp_path / folder / "test-00000-of-00001.parquet")
    source = data.source("parquet/x")
    source.locate(tmp_path)
    found = source.load(tmp_path)
    assert isinstance(found.train, data.Resident)
    wanted = np.stack([np.asarray(Image.open(io.BytesIO(one))) for one in images]).transpose(0, 3, 1, 2)
    assert np.array_equal(found.train.images.numpy(), wanted)
    assert (found.train.labels.tolist(), found.test.labels.tolist()) == (labels, [2])
    missing = tmp_path / folder / f"train-00001-of-00003{end}.parquet"
    other = missing.with_name(f"train-00001-of-00002{end}.parquet")
    missing.rename(other)
    with pytest.raises(DataError, match=rf"{folder} has not each of the 3 parts of train once, but train-00000-of-0"):
        source.locate(tmp_path)
    pq.write_table(pa.table({"image": TWO, "label": [0, 1]}), missing)
    other.unlink()
    with pytest.raises(DataError, match=rf"{missing} has the columns image and label, but .* img and label"):
        source.locate(tmp_path)


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ([], r"there is no {r}/x-train.parquet, and no train\*.parquet in {r}/x or {r}/x/data; wanted: .*columns"),
        (
            ["x/train", "x/validation"],
            r"{r}/x has no split test, only train, validation; .* as test, rename",
        ),
        (["x/test"], r"{r}/x has no split train, only test; "),
        (["x/data/validation"], r"{r}/x/data has no split train, only validation; "),
        (["x/plain/train", "x/plain/test"], r"no {r}/x-train.parquet, .*, but parquet/x/plain would be one; wanted"),
        (
            ["x/train", "x/test", "x/train-00000-of-00001"],
            r"{r}/x has not each of the 1 parts of train once, but",
        ),
        (["x-train", "x/train", "x/test"], r"there is no {r}/x-test.parquet"),
    ],
)
def test_parquet_splits_that_are_missing_are_named(tmp_path: Path, files: list[str], sentence: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table(TWO, [0, 1]), tmp_path / f"{file}.parquet")
    for look in (data.source("parquet/x").locate, data.source("parquet/x").load):
        with pytest.raises(DataError, match=sentence.format(r=tmp_path)):
            look(tmp_path)


def test_parquet_files_that_are_missing_or_broken_are_named(tmp_path: Path) -> None:
    source = put(tmp_path, table(TWO, [0, 1]))
    path = tmp_path / "x-test.parquet"
    whole = path.read_bytes()
    for content in (whole[:-9], b"", b"PAR1"):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"^{path} can't be read: .*; wanted"):
            source.locate(tmp_path)
    path.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(DataError, match=f"{path}"):
        source.load(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=f"^there is no {path}; wanted"):
        source.locate(tmp_path)
    with pytest.raises(ValueError, match="parquet/NAME needs a name"):
        data.source("parquet")


# --------------------------------------------------------------------------------------- all names


@pytest.mark.parametrize("name", names.DATASETS)
def test_every_known_data_set_says_what_it_wants(name: str, tmp_path: Path) -> None:
    whole = f"{name}/some" if name in ("folder", "parquet") else name
    source = data.source(whole)
    if name == "digits":
        source.locate(tmp_path)
        return
    for look in (source.locate, source.load):
        with pytest.raises(DataError, match=f"{tmp_path}/.*wanted") as error:
            look(tmp_path)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------- the check command


@pytest.fixture
def spoilt(pets: Path) -> Path:
    """The data root of ``folder/pets`` with three broken images."""
    root = pets / "pets"
    (root / "train/dog/a.JPEG").write_bytes(b"")
    (root / "train/cat/2.jpg").write_text("text")
    (root / "val/dog/v.jpg").write_bytes((root / "val/dog/v.jpg").read_bytes()[:300])
    return pets


NAMES = ["train/cat/2.jpg", "train/dog/a.JPEG", "val/dog/v.jpg"]


def test_check_names_every_broken_image(spoilt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["folder/pets", "--data", str(spoilt)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "folder/pets: 7 training and 3 test images of 3 classes"
    assert [line.split(" is broken: ")[0] for line in lines[1:4]] == [f"image {spoilt}/pets/{name}" for name in NAMES]
    assert lines[4:] == [f"0 images are left out by {spoilt}/pets/skip.txt", "3 images are broken or can't be read"]
    assert not (spoilt / "pets/skip.txt").exists()


def test_check_leaves_broken_images_out_when_told_to(spoilt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (spoilt / "pets/skip.txt").write_text("# blurred\ntrain/dog/b.jpg")
    assert check.main(["folder/pets", "--data", str(spoilt), "--skip-broken"]) == 0
    out = capsys.readouterr().out
    assert f"4 images are left out by {spoilt}/pets/skip.txt" in out
    assert sorted(path.name for path in (spoilt / "pets").iterdir()) == ["skip.txt", "train", "val"]
    assert (spoilt / "pets/skip.txt").read_text().splitlines() == ["# blurred", "train/dog/b.jpg", *NAMES]
    found = data.source("folder/pets").load(spoilt)
    assert (len(found.train), len(found.test)) == (4, 2)
    assert sum(len(images) for split in (found.train, found.test) for images, _ in split.batches(2)) == 6
    for more in ([], ["--skip-broken"]):
        assert check.main(["folder/pets", "--data", str(spoilt), *more]) == 0
        assert capsys.readouterr().out.splitlines()[-1] == "no image is broken"
    assert len(files.skipped(spoilt / "pets")) == 4


def deep(path: Path, most: int) -> None:
    """A grey image of 16 bits with values from 0 to ``most``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.linspace(0, most, 64 * 64).astype(np.uint16).reshape(64, 64)).save(path)


def test_check_tells_of_images_that_lose_most_of_their_levels(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, most in enumerate([65535, 40000, 16384, 16383, 4095, 1023, 600]):
        deep(tmp_path / f"x/train/a/{number}.png", most)
    deep(tmp_path / "x/train/a/7.tif", 4095)
    save(Image.new("L", (8, 8), 9), tmp_path / "x/train/a/dark.png")
    deep(tmp_path / "x/val/a/0.png", 65535)
    assert check.main(["folder/x", "--data", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "folder/x: 9 training and 1 test image of 1 class"
    assert lines[1].startswith("5 images of 16 bits a channel hardly use the upper 8, which are all that is read: of ")
    assert "of train/a/6.png there 3 levels of grey are left; scale" in lines[1]
    assert lines[2:] == [f"0 images are left out by {tmp_path}/x/skip.txt", "no image is broken"]


def test_check_tells_of_what_is_not_read(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pets / "pets/train/dog/1.jfif").write_text("x")
    assert check.main(["folder/pets", "--data", str(pets)]) == 0
    assert f"1 file in {pets}/pets will not be read: 1 .jfif; images have" in capsys.readouterr().out


def test_a_training_that_meets_a_broken_image_says_what_leaves_it_out(
    spoilt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = data.load("folder/pets:99%-of-images", spoilt)
    with pytest.raises(DataError) as error:
        list(found.train.batches(2))
    command = str(error.value).partition("; mend it, or leave out all that are broken: ")[2]
    assert command == f"raysslprune check folder/pets --data {spoilt} --skip-broken"
    assert check.main(shlex.split(command)[3:]) == 0
    data.load.cache_clear()
    list(data.load("folder/pets:99%-of-images", spoilt).train.batches(2))


def test_check_does_not_leave_out_what_it_could_not_read(spoilt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (spoilt / "pets/train/dog/z.jpg").symlink_to("nowhere.jpg")
    assert check.main(["folder/pets", "--data", str(spoilt), "--skip-broken"]) == 1
    out = capsys.readouterr().out
    assert f"image {spoilt}/pets/train/dog/z.jpg can't be read: No such file" in out
    assert out.splitlines()[-1] == "1 image is broken or can't be read"
    assert files.skipped(spoilt / "pets") == NAMES


def test_check_takes_other_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["digits", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "no image is broken"
    put(tmp_path, table([*TWO, b"text"], [0, 1, 0]))
    assert check.main(["parquet/x", "--data", str(tmp_path)]) == 1
    assert "raysslprune: the image in row 2 of" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["imagnet"], 2, "data set 'imagnet' is not known; did you mean 'imagenet'?"),
        (["folder"], 2, "folder/NAME needs a name"),
        (["digits/x"], 2, "digits takes nothing after a slash"),
        (["imagenet"], 1, "there is no folder"),
        (["folder/newline", "--skip-broken"], 1, "can't be a line of"),
    ],
)
def test_check_refuses_in_one_sentence(
    arguments: list[str], code: int, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path / "newline", train=["a/1.jpg"], val=["a/1.jpg"])
    (tmp_path / "newline/train/a/two\nlines.jpg").write_text("")
    assert check.main([*arguments, "--data", str(tmp_path)]) == code
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("raysslprune: ")
    assert sentence in error


def test_check_wants_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        check.main(["--colour"])
    assert end.value.code == 2
    sentence = capsys.readouterr().err
    assert sentence == "raysslprune: the following arguments are required: NAME; see --help\n"


def test_check_is_a_command(spoilt: Path) -> None:
    """With the data root from the environment."""
    run = subprocess.run(
        [sys.executable, "-W", "error", "-m", "raysslprune", "check", "folder/pets"],
        capture_output=True,
        text=True,
        env={**os.environ, "RAYSSLPRUNE_DATA": str(spoilt)},
        cwd=Path(data.__file__).parents[2],
    )
    assert (run.returncode, len(run.stdout.splitlines())) == (1, 6), run.stderr
    assert "test images" in run.stderr
    assert "Traceback" not in run.stderr


def test_data_lie_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for variable, place in ((str(tmp_path / "sets"), str(tmp_path / "sets")), ("", "data")):
        monkeypatch.setenv("RAYSSLPRUNE_DATA", variable)
        with pytest.raises(data.DataError, match=re.escape(f"{place}/nothing/train")):
            data.load("folder/nothing")
        with pytest.raises(data.DataError, match=re.escape(f"{tmp_path}/here/nothing/train")):
            data.load("folder/nothing", str(tmp_path / "here"))


def test_a_tilde_is_the_home_folder_and_a_path_is_taken(
    pets: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where no shell expands it: after ``--data=``, in a quoted variable, and in Python."""
    (pets / "cwd").mkdir()
    monkeypatch.chdir(pets / "cwd")
    monkeypatch.setenv("HOME", str(pets.parent))
    home = f"~/{pets.name}"
    assert export._parser().parse_args(["3f2a9c", "--out=net", f"--data={home}"]).data == str(pets)
    assert check.main(["folder/pets", f"--data={home}"]) == 0
    assert resize.main(["folder/pets", f"--data={home}", f"--out={home}/small"]) == 0
    assert (pets / "small/pets-256/train").is_dir()
    monkeypatch.setenv("RAYSSLPRUNE_DATA", home)
    assert check.main(["folder/pets"]) == 0
    assert len(data.load("folder/pets").train) == len(data.load("folder/pets", Path(home)).train) == 7
    for given in (None, home, Path(home), pets):
        assert api.Experiment.load("table1", data=given).data == str(pets)
    assert not list((pets / "cwd").iterdir())
