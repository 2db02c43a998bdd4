"""``raysslprune check``: images that cannot be read, and what is not read."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raysslprune import data
from raysslprune.commands import check
from raysslprune.data import files
from tests.helpers.images import save
from tests.helpers.layouts import TWO, put, table, tree


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """The data root of ``folder/pets``."""
    tree(tmp_path / "pets")
    return tmp_path


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
    assert lines[4:] == [
        "3 images are broken or can't be read",
        "5 training images can be read: images = 5",
        f"to leave them out: raysslprune check folder/pets --data {spoilt} --skip-broken",
    ]
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
    assert out.splitlines()[-1] == "4 training images can be read: images = 4"
    for more in ([], ["--skip-broken"]):
        assert check.main(["folder/pets", "--data", str(spoilt), *more]) == 0
        expected = ["no image is broken", "4 training images can be read: images = 4"]
        assert capsys.readouterr().out.splitlines()[-2:] == expected
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
    assert lines[1].startswith("5 images with 16 bits per channel hardly use the upper 8 bits, the only ones read: ")
    assert "read: 3 levels of grey remain in train/a/6.png; scale" in lines[1]
    assert lines[2:] == [
        "no image is broken",
        "9 training images can be read: images = 9",
    ]


def test_check_tells_of_what_is_not_read(pets: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pets / "pets/train/dog/1.jfif").write_text("x")
    assert check.main(["folder/pets", "--data", str(pets)]) == 0
    assert f"1 file in {pets}/pets will not be read: 1 .jfif; images have" in capsys.readouterr().out


def test_check_does_not_leave_out_what_it_could_not_read(spoilt: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (spoilt / "pets/train/dog/z.jpg").symlink_to("nowhere.jpg")
    assert check.main(["folder/pets", "--data", str(spoilt), "--skip-broken"]) == 1
    out = capsys.readouterr().out
    assert f"image {spoilt}/pets/train/dog/z.jpg can't be read: No such file" in out
    assert out.splitlines()[-2:] == ["1 image is broken or can't be read", "5 training images can be read: images = 5"]
    assert files.skipped(spoilt / "pets") == NAMES


def test_check_takes_other_data_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check.main(["digits", "--data", str(tmp_path)]) == 0
    expected = ["no image is broken", "1,200 training images can be read: images = 1200"]
    assert capsys.readouterr().out.splitlines()[-2:] == expected
    put(tmp_path, table([*TWO, b"text"], [0, 1, 0]))
    assert check.main(["parquet/x", "--data", str(tmp_path)]) == 1
    assert "raysslprune: the image in row 2 of" in capsys.readouterr().err


def test_check_counts_the_images_of_a_subset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a scale file needs them: of 1,200 digits a tenth, rounded in each class."""
    assert check.main(["digits:10%-of-images", "--data", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "digits: 1,200 training and 597 test images of 10 classes"
    count = len(data.load("digits:10%-of-images").train)
    assert lines[-2:] == [
        "1,200 training images can be read",
        f"digits:10%-of-images: {count} of the training images: images = {count}",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["imagnet"], 2, "data set 'imagnet' is not known; did you mean 'imagenet'?"),
        (["folder"], 2, "folder/NAME needs a name"),
        (["digits/x"], 2, "digits takes no argument; remove"),
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
    assert (run.returncode, len(run.stdout.splitlines())) == (1, 7), run.stderr
    assert "test images" in run.stderr
    assert "Traceback" not in run.stderr
