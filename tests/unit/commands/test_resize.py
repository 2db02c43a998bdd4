"""The command that copies a data set with smaller images, against torchvision and Pillow."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import v2

from raysslprune import data
from raysslprune.commands import resize
from raysslprune.data.files import Files
from tests.helpers.images import encoded, picture

IMAGES: dict[str, tuple[Image.Image, str]] = {
    "train/cat/wide.JPEG": (picture(400, 300), "JPEG"),
    "train/cat/high.jpg": (picture(301, 407), "JPEG"),
    "train/cat/small.jpg": (picture(300, 200), "JPEG"),
    "train/cat/exact.jpg": (picture(256, 300), "JPEG"),
    "train/cat/grey.jpg": (picture(350, 350).convert("L"), "JPEG"),
    "train/dog/cmyk.jpg": (picture(300, 310).convert("CMYK"), "JPEG"),
    "train/dog/lossless.png": (picture(290, 280), "PNG"),
    "train/dog/deeper/palette.png": (picture(300, 260).quantize(16), "PNG"),
    "val/cat/v.jpg": (picture(280, 300, seed=1), "JPEG"),
    "val/dog/v.jpg": (picture(257, 500), "JPEG"),
}
ENCODED = {name: encoded(image, kind) for name, (image, kind) in IMAGES.items()}
SMALL = ("train/cat/small.jpg", "train/cat/exact.jpg")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The data root of ``folder/pets``."""
    for name, content in ENCODED.items():
        path = tmp_path / "pets" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path


@pytest.fixture(autouse=True)
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, so that an interruption is where a test wants it."""
    monkeypatch.setattr(resize, "ahead", lambda work, items, _: map(work, items))


def run(root: Path, *more: str, name: str = "folder/pets") -> int:
    return resize.main([name, "--data", str(root), *more])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def loaded(root: Path, name: str) -> tuple[data.Dataset, Files, Files]:
    found = data.source(name).load(root)
    assert isinstance(found.train, Files)
    assert isinstance(found.test, Files)
    return found, found.train, found.test


# ------------------------------------------------------------------------------------- what is made


def test_the_copy_is_a_data_set_with_the_same_images_in_the_same_order(root: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in root.rglob("*") if path.is_file()}
    assert run(root) == 0
    found, train, test = loaded(root, "folder/pets-256")
    whole, all_train, all_test = loaded(root, "folder/pets")
    for ours, theirs in ((train, all_train), (test, all_test)):
        assert ours.names.tolist() == theirs.names.tolist()
        assert torch.equal(ours.labels, theirs.labels)
    assert (len(train), len(test), found.classes) == (8, 2, whole.classes)
    assert [i for i, _ in datasets.ImageFolder(str(root / "pets-256/train")).samples] == [
        str(root / "pets-256" / name) for name in train.names
    ]
    assert sorted(path.name for path in root.iterdir()) == ["pets", "pets-256"]
    assert {p: (p.stat().st_mtime_ns, p.read_bytes()) for p in (root / "pets").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("shorter", [64, 256, 270])
def test_pixels_are_torchvisions_resized_and_saved_by_pillow(root: Path, shorter: int) -> None:
    assert run(root, "--shorter", str(shorter)) == 0
    for name, (image, _) in IMAGES.items():
        found = Image.open(io.BytesIO((root / f"pets-{shorter}" / name).read_bytes()))
        if min(image.size) <= shorter:
            assert (root / f"pets-{shorter}" / name).read_bytes() == (root / "pets" / name).read_bytes()
            continue
        wanted = v2.Resize(shorter)(pil_loader(str(root / "pets" / name)))
        grey = image.mode == "L"
        saved = io.BytesIO()
        (wanted.convert("L") if grey else wanted).save(saved, "JPEG", quality=95)
        assert (found.format, found.mode, found.size) == ("JPEG", "L" if grey else "RGB", wanted.size)
        assert min(found.size) == shorter
        assert np.array_equal(np.asarray(found), np.asarray(Image.open(saved)))


def test_the_view_for_testing_is_the_same_but_for_jpeg(root: Path) -> None:
    assert run(root) == 0
    _, train, _ = loaded(root, "folder/pets-256")
    _, originals, _ = loaded(root, "folder/pets")
    for i, name in enumerate(train.names):
        difference = train.view(i).astype(float) - originals.view(i)
        assert np.abs(difference).mean() < (1e-9 if name in SMALL else 8)  # of noise, to which JPEG is unkind
        assert abs(difference.mean()) < 0.5


def test_parts_are_of_the_same_images(root: Path) -> None:
    assert run(root) == 0
    chosen = [data.load(f"folder/{name}:40%-of-images", str(root)).train for name in ("pets", "pets-256")]
    names = [files.names.tolist() for files in chosen if isinstance(files, Files)]
    assert names[0] == names[1]
    assert 1 < len(names[0]) < 8


def test_it_says_what_it_made(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root) == 0
    out = capsys.readouterr().out
    sizes = [sum(map(len, contents(root / name).values())) / 1000 for name in ("pets-256", "pets")]
    found = re.fullmatch(r"folder/pets-256: 10 images in (.*), ([\d.]+) kB instead of ([\d.]+) kB\n", out)
    assert found
    assert found[1] == str(root / "pets-256")
    assert [float(found[2]), float(found[3])] == pytest.approx(sizes, rel=0.01)


def test_another_data_root_gets_the_copy(root: Path, tmp_path: Path) -> None:
    assert run(root, "--out", str(tmp_path / "fast/disk"), "--shorter", "300") == 0
    assert [path.name for path in root.iterdir() if path.is_dir() and path.name != "fast"] == ["pets"]
    assert len(loaded(tmp_path / "fast/disk", "folder/pets-300")[1]) == 8


def test_names_may_have_several_parts(root: Path) -> None:
    (root / "zoo").mkdir()
    (root / "pets").rename(root / "zoo/pets")
    assert run(root, name="folder/zoo/pets") == 0
    assert len(loaded(root, "folder/zoo/pets-256")[1]) == 8


# ------------------------------------------------------------------------------------- once, and to the end


def test_what_is_made_is_not_made_again(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root) == 0
    before = {path: path.stat().st_mtime_ns for path in (root / "pets-256").rglob("*")}
    said = capsys.readouterr().out
    assert run(root) == 0
    assert {path: path.stat().st_mtime_ns for path in (root / "pets-256").rglob("*")} == before
    assert capsys.readouterr().out == said


KILLED = """
import os, signal, sys
from raysslprune.commands import resize
from raysslprune.data.files import Files
looked, image = [], Files.image

def kill(self, index):
    looked.append(index)
    if len(looked) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return image(self, index)

Files.image = kill
resize.ahead = lambda work, items, _: map(work, items)
resize.main(sys.argv[1:])
"""


def test_after_a_kill_it_goes_on_where_it_was(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, "folder/pets", "--data", str(root)], cwd=tmp_path)
    assert killed.returncode == -signal.SIGKILL
    assert not (root / "pets-256").exists()  # nobody trains on half of it
    made = {p: p.stat().st_mtime_ns for p in (root / ".pets-256.unfinished").rglob("*") if p.suffix}
    made = {path: when for path, when in made.items() if path.name in [Path(name).name for name in IMAGES]}
    assert len(made) == 5
    assert run(root) == 0
    for path, when in made.items():
        assert (root / "pets-256" / path.relative_to(root / ".pets-256.unfinished")).stat().st_mtime_ns == when
    assert run(root, "--out", str(tmp_path / "whole")) == 0
    assert contents(root / "pets-256") == contents(tmp_path / "whole/pets-256")
    assert contents(root / "pets-256").keys() == IMAGES.keys()
    assert sorted(path.name for path in (root / "pets-256").iterdir()) == ["train", "val"]  # of both runs


def test_ctrl_c_is_one_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = Files.image

    def interrupted(self: Files, index: int) -> Image.Image:
        if index == 3:
            raise KeyboardInterrupt
        return image(self, index)

    with monkeypatch.context() as patch:
        patch.setattr(Files, "image", interrupted)
        assert run(root) == 130
    assert capsys.readouterr() == ("", "raysslprune: stopped; run the same command again to resume\n")
    assert run(root) == 0


def test_files_that_a_power_cut_left_empty_are_made_again(root: Path) -> None:
    assert run(root) == 0
    whole = contents(root / "pets-256")
    (root / "pets-256").rename(root / ".pets-256.unfinished")
    (root / ".pets-256.unfinished/train/cat/wide.JPEG").write_bytes(b"")
    assert run(root) == 0
    assert contents(root / "pets-256") == whole


def test_the_copy_of_other_images_is_refused(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root) == 0
    (root / "pets/train/cat/new.jpg").write_bytes(encoded(picture(300, 300), "JPEG"))
    assert run(root) == 1
    assert "pets-256 has other images than" in capsys.readouterr().err
    (root / "pets/train/cat/new.jpg").unlink()
    assert run(root) == 0
    (root / "pets-256").rename(root / ".pets-256.unfinished")
    (root / ".pets-256.unfinished/val/cat/more.jpg").write_bytes(encoded(picture(9, 9), "JPEG"))
    capsys.readouterr()
    assert run(root) == 1
    assert ".pets-256.unfinished has other images than" in capsys.readouterr().err
    assert not (root / "pets-256").exists()


# ------------------------------------------------------------------------------------- what goes wrong


def test_broken_images_are_named_and_left_out_by_skip_txt(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = ["train/cat/high.jpg", "val/cat/v.jpg"]
    (root / "pets" / broken[0]).write_bytes(b"text")
    (root / "pets" / broken[1]).write_bytes((root / "pets" / broken[1]).read_bytes()[:2000])
    (root / "pets/val/cat/other.jpg").write_bytes(encoded(picture(300, 300), "JPEG"))
    before = contents(root / "pets")
    assert run(root) == 1
    out, err = capsys.readouterr()
    assert [line.split(" is broken: ")[0] for line in out.splitlines()] == [
        f"image {root / 'pets' / name}" for name in broken
    ]
    assert "--skip-broken" not in out
    assert re.fullmatch(r"raysslprune: 2 images are missing in the copy, so it .*raysslprune check .*\n", err)
    assert not (root / "pets-256").exists()
    assert contents(root / "pets") == before
    (root / "pets/skip.txt").write_text("".join(f"{name}\n" for name in broken))
    assert run(root) == 0
    assert contents(root / "pets-256").keys() == {*IMAGES, "val/cat/other.jpg"} - {*broken}


def test_a_full_disk_is_one_sentence(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: Path, _: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    assert run(root) == 1
    out, err = capsys.readouterr()
    assert re.fullmatch(r"raysslprune: .*train/cat/\w+\.\w+ can't be written: No space left on device\n", err)
    assert not out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["imagnet"], 2, "data set 'imagnet' is not known; did you mean 'imagenet'?"),
        (["digits"], 2, "digits is not a data set with a folder of images per class"),
        (["voc07"], 2, "voc07 is not a data set with a folder of images per class"),
        (["parquet/x"], 2, "parquet/x is not a data set with a folder of images per class"),
        (["folder/pets:10%-of-images"], 2, "its part is then folder/pets-256:10%-of-images"),
        (["folder/pets:ten%"], 2, "is not of the form"),
        (["imagenet"], 1, "there is no folder"),
        (["folder/pets", "--out", "pets"], 1, "would be within the data set itself"),
        (["folder/pets", "--out", "file"], 1, "file"),
        (["folder/pets", "--out", "loop"], 1, "Too many levels of symbolic links"),
    ],
)
def test_it_refuses_in_one_sentence(
    arguments: list[str],
    code: int,
    sentence: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(root)
    (root / "file").write_text("x")
    (root / "loop").symlink_to("loop")
    assert resize.main([*arguments, "--data", "."]) == code
    out, err = capsys.readouterr()
    assert err.startswith("raysslprune: ")
    assert sentence in err
    assert (err.count("\n"), out) == (1, "")
    assert sorted(path.name for path in root.iterdir()) == ["file", "loop", "pets"]
    assert contents(root / "pets").keys() == IMAGES.keys()


@pytest.mark.parametrize("wrong", [["--shorter", "15"], ["--shorter", "4097"], ["--shorter", "x"], ["--size", "3"]])
def test_it_refuses_wrong_options(wrong: list[str], root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(root, *wrong)
    assert end.value.code == 2
    assert re.fullmatch(r"raysslprune: .*; see --help\n", capsys.readouterr().err)


# ------------------------------------------------------------------------------------- how it tells


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_says_how_long_it_will_take(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four images in a minute each, of ten."""
    clock = iter(range(0, 10_000, 60))
    monkeypatch.setattr(resize.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert list(resize._watched("abcd", 10)) == list("abcd")
    lines = [f"{done} of 10 images, {10 - done}:00 min left" for done in range(1, 5)]
    err = capsys.readouterr().err
    assert [line.strip() for line in re.split("[\r\n]", err) if line.strip()] == lines
    assert err.count("\n") == (0 if terminal else 4)


def test_short_work_is_done_in_silence(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(root) == 0
    assert capsys.readouterr().err == ""


def test_it_is_a_command(root: Path) -> None:
    """With threads, and the data root from the environment."""
    options: dict[str, Any] = {"capture_output": True, "text": True, "cwd": Path(data.__file__).parents[2]}
    command = [sys.executable, "-W", "error", "-m", "raysslprune", "resize", "folder/pets"]
    done = subprocess.run(command, env={**os.environ, "RAYSSLPRUNE_DATA": str(root)}, **options)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert len(loaded(root, "folder/pets-256")[1]) == 8
