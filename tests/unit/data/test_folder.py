"""Images in folders, in the layouts that people have them in, against torchvision's own reader."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import datasets, transforms

from raysslprune import catalogue, data, sweep
from raysslprune.commands import check
from raysslprune.data import DataError, Resident, folder
from raysslprune.data.files import Files
from raysslprune.paper.scales import SETTINGS
from raysslprune.spec import Init, Train
from raysslprune.training.loop import Loop
from tests.helpers.images import picture, save
from tests.helpers.layouts import tree

NESTED = ["cat/a/2.jpg", "cat/a-b/1.jpg", "cat/a/b/3.jpg", "cat/a.jpg", "dog/z/deep/er/1.jpg"]


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


# ------------------------------------------------------------------------------------- folders


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
        f"5 files in {pets}/pets will not be read: 2 .jfif, 1 .gif, 1 .heic, 1 without an extension; images have names"
    )
    assert data.source("folder/pets").locate(pets) == (remark,)
    assert list(files_of(data.source("folder/pets").load(pets).train).names) == before
    emptied(pets / "pets/val/cat")
    (pets / "pets/val/cat/a.GIF").write_text("x")
    with pytest.raises(DataError, match=r"val/cat has no images, only 1 \.gif; expected: files with names in \.jpg"):
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


def test_an_accent_as_macos_encodes_it_is_spelled_out(tmp_path: Path) -> None:
    tree(tmp_path / "pets", train=[f"{COMPOSED}/1.jpg"], val=[f"{DECOMPOSED}/1.jpg"])
    with pytest.raises(DataError) as error:
        data.source("folder/pets").locate(tmp_path)
    assert str(error.value) == rf"class 'cafe\u0301' is in {tmp_path}/pets/val, but not in {tmp_path}/pets/train"


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
        (lambda p: shutil.rmtree(p), "there is no folder {p}/train; expected: {p}/{{train,val}}/CLASS"),
        (lambda p: shutil.rmtree(p / "val"), "there is no folder {p}/val; expected: {p}/{{train,val}}/CLASS"),
        (lambda p: (shutil.rmtree(p), p.write_text("")), "folder {p}/train can't be listed: Not a directory; expected"),
        (
            lambda p: (shutil.rmtree(p / "val"), (p / "val").write_text("")),
            "folder {p}/val can't be listed: Not a directory; expected",
        ),
        (
            lambda p: [shutil.rmtree(c) for c in (p / "train").iterdir()],
            "the number of class folders in {p}/train is 0; expected",
        ),
        (lambda p: emptied(p / "train/dog"), "{p}/train/dog has no images; expected"),
        (lambda p: shutil.rmtree(p / "val/cat"), "class 'cat' is in {p}/train, but not in {p}/val$"),
        (lambda p: shutil.rmtree(p / "train/cat"), "class 'cat' is in {p}/val, but not in {p}/train$"),
        (
            lambda p: save(picture(4, 4), p / "val/ILSVRC2012_val_00000001.JPEG"),
            "val_00000001.JPEG is not in the folder",
        ),
        (lambda p: (p / "train/yak").symlink_to("nowhere"), "{p}/train/yak is a broken link"),
        (lambda p: (p / "train/cat/loop").symlink_to("."), "folder {p}/train/cat/loop/loop would be read twice"),
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
        ("imagenet", folder.ImageNet, r"/imagenet/train is 3; expected: .*n01440764.* 1,000 classes"),
        ("places205", folder.Places205, r"/places205/train is 3; expected: .* 205 classes"),
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
    with pytest.raises(ValueError, match=f"{name} takes no argument; remove"):
        kind("x")


def test_a_subset_of_files(pets: Path) -> None:
    whole, part = data.source("folder/pets").load(pets), data.load("folder/pets:30%-of-classes", str(pets))
    assert (part.classes, len(part.test)) == (1, 1)
    assert set(files_of(part.train).names) < set(files_of(whole.train).names)
    assert part.train.labels.tolist() == [0] * len(part.train)


def test_files_that_are_held_out_are_not_trained_on(pets: Path) -> None:
    tree(pets / "pets", train=["Emu/y.jpg"])
    whole, part = data.load("folder/pets", str(pets)), data.load("folder/pets:50%-held-out", str(pets))
    assert part.validation is not None
    trained, held = (set(files_of(split).names) for split in (part.train, part.validation))
    assert trained | held == set(files_of(whole.train).names)
    assert not trained & held
    assert files_of(part.validation).check == files_of(whole.train).check
    assert sum(len(labels) for _, labels in part.validation.batches(2)) == len(held)


def test_paths_are_absolute(pets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers may stand in another folder."""
    monkeypatch.chdir(pets)
    found = data.source("folder/pets").load(Path())
    monkeypatch.chdir("/")
    assert files_of(found.train).view(0).any()


# ------------------------------------------------------------------------------------- at any size


def by_torchvision(path: Path, resize: int, size: int) -> torch.Tensor:
    """All images of a split as torchvision's own transforms make them."""
    change = transforms.Compose([transforms.Resize(resize), transforms.CenterCrop(size), transforms.PILToTensor()])
    return torch.stack([change(image) for image, _ in datasets.ImageFolder(str(path))])


@pytest.mark.parametrize("size", [8, 64, 128])
def test_small_images_are_in_memory_as_torchvision_makes_them(size: int, pets: Path) -> None:
    for number, (width, height) in enumerate([(300, 90), (64, 64), (50, 200), (129, 130)]):
        save(picture(width, height), pets / f"pets/train/dog/{number}.png", format="PNG")
    found = data.load(f"folder/pets:{size}px", str(pets))
    for split, name in ((found.train, "train"), (found.test, "val")):
        assert isinstance(split, Resident)
        assert torch.equal(split.images, by_torchvision(pets / "pets" / name, size, size))
        assert split.labels.tolist() == datasets.ImageFolder(str(pets / "pets" / name)).targets
    assert isinstance(found.train, Resident)
    pixels = found.train.images.double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(found.mean.flatten().double(), pixels.mean(1), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.std.flatten().double(), pixels.std(1), rtol=1e-6, atol=0)
    assert (found.size, found.channels, found.classes, found.white) == (size, 3, 3, 255.0)


@pytest.mark.parametrize(("size", "resize"), [(129, 147), (320, 366)])
def test_large_images_are_decoded_for_each_view(size: int, resize: int, pets: Path) -> None:
    found = data.load(f"folder/pets:{size}px", str(pets))
    images = torch.cat([images for images, _ in files_of(found.test).batches(2)])
    assert torch.equal(images, by_torchvision(pets / "pets/val", resize, size))
    assert torch.equal(found.mean, data.load("folder/pets", str(pets)).mean)
    assert files_of(found.train).check == f"raysslprune check folder/pets:{size}px --data {pets} --skip-broken"


def test_a_size_is_part_of_the_name_and_of_a_subsets_name(pets: Path) -> None:
    name = "folder/pets:16px"
    assert catalogue.data_parts(f"{name}:50%-of-images") == ("folder", "pets:16px", "50%-of-images")
    part = data.load(f"{name}:34%-of-classes", str(pets))
    assert (part.size, part.classes) == (16, 1)
    steps = [Train(task="labels", data=f"folder/pets{size}", arch="conv4", recipe=SETTINGS["smoke"].recipes["labels"],
                   seed=0, start=Init(seed=0)) for size in ("", ":16px", ":224px")]  # fmt: skip
    assert len({step.id for step in steps}) == 3


@pytest.mark.parametrize("size", ["7px", "1025px", "0px", "99999999999999999999px"])
def test_a_size_out_of_range_is_a_sentence(size: str) -> None:
    with pytest.raises(ValueError, match=f"the size in data set folder/pets:{size} must be from 8px to 1024px"):
        data.source(f"folder/pets:{size}")


def test_a_recipe_with_padding_trains_on_photos_of_a_small_size(pets: Path) -> None:
    """Though images on disk can't be padded."""
    recipe = replace(SETTINGS["smoke"].recipes["labels"], batch=4, samples=16)
    assert recipe.pad
    step = Train(task="labels", data="folder/pets:16px", arch="conv4", recipe=recipe, seed=0, start=Init(seed=0))
    assert Loop(step=step, data=data.load(step.data, str(pets))).run().metrics["density"] == 1.0
    usual = replace(step, data="folder/pets")
    with pytest.raises(ValueError, match=r"images on disk.*folder/NAME:64px"):
        Loop(step=usual, data=data.load(usual.data, str(pets)))


def test_locating_reads_no_image_and_a_broken_one_says_what_leaves_it_out(spoilt: Path) -> None:
    source = data.source("folder/pets:16px")
    assert source.locate(spoilt) == ()
    with pytest.raises(DataError) as error:
        data.load("folder/pets:16px", str(spoilt))
    command = str(error.value).partition("; repair it, or leave out all broken images: ")[2]
    assert command == f"raysslprune check folder/pets --data {spoilt} --skip-broken"
    assert check.main(["folder/pets:16px", "--data", str(spoilt)]) == 1, "all of them are named"
    assert check.main(["folder/pets:16px", "--data", str(spoilt), "--skip-broken"]) == 0
    assert len(data.load("folder/pets:16px", str(spoilt)).train) == len(data.load("folder/pets", str(spoilt)).train)


@pytest.fixture
def spoilt(pets: Path) -> Path:
    """The data root of ``folder/pets`` with three broken images."""
    root = pets / "pets"
    (root / "train/dog/a.JPEG").write_bytes(b"")
    (root / "train/cat/2.jpg").write_text("text")
    (root / "val/dog/v.jpg").write_bytes((root / "val/dog/v.jpg").read_bytes()[:300])
    return pets


# ------------------------------------------------------------------------------------- the check command


def test_a_training_that_meets_a_broken_image_says_what_leaves_it_out(
    spoilt: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = data.load("folder/pets:99%-of-images", spoilt)
    with pytest.raises(DataError) as error:
        list(found.train.batches(2))
    command = str(error.value).partition("; repair it, or leave out all broken images: ")[2]
    assert command == f"raysslprune check folder/pets --data {spoilt} --skip-broken"
    assert check.main(shlex.split(command)[2:]) == 0
    data.load.cache_clear()
    list(data.load("folder/pets:99%-of-images", spoilt).train.batches(2))
