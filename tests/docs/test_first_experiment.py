"""docs/first-experiment.md, from its first command to its last, on images made here."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import CHECKOUT

PAGE = (CHECKOUT / "docs/first-experiment.md").read_text()
COMMANDS = re.findall(r"^    ((?:raysslprune|python -m raysslprune\.sweep) .*?) *(?:#.*)?$", PAGE, re.M)


def shapes(folder: Path) -> None:
    """Discs, squares and crosses on noise: 80 images of each class for training and 40 for testing."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :48]
    for split, count in (("train", 80), ("val", 40)):
        for name in ("disc", "square", "cross"):
            (folder / split / name).mkdir(parents=True)
            for number in range(count):
                down, right = abs(y - rng.integers(16, 32)), abs(x - rng.integers(16, 32))
                size, image = rng.integers(7, 14), rng.integers(0, 90, (48, 48, 3))
                inside = {
                    "disc": down**2 + right**2 < size**2,
                    "square": (down < size) & (right < size),
                    "cross": ((down < 3) & (right < size)) | ((right < 3) & (down < size)),
                }
                image[inside[name]] += rng.integers(90, 160, 3)
                Image.fromarray(image.astype("uint8")).save(folder / split / name / f"{number}.png")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_of_the_page_works(tmp_path: Path) -> None:
    """At the base ``smoke``, which trains one epoch where the page's trains twelve."""
    shapes(tmp_path / "data/pets")
    (scale,) = re.findall(r"^```toml pets.toml\n(.*?)^```$", PAGE, re.M | re.S)
    (tmp_path / "pets.toml").write_text(scale.replace('base = "laptop"', 'base = "smoke"'))
    said = {}
    assert len(COMMANDS) == 9
    for command in COMMANDS:
        words = shlex.split(command)
        words = [sys.executable, *words[1:]] if words[0] == "python" else [sys.executable, "-m", *words]
        done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        said[command] = done.stdout
    assert "folder/pets: 240 training and 120 test images of 3 classes" in said[COMMANDS[0]]
    assert re.search(r"^(holds|undecided|contradicted): Randomly re-initialised, masks", said[COMMANDS[3]], re.M)
    assert {path.name for path in (tmp_path / "runs/results").iterdir()} >= {"pets", "pets-set-labels.lr=0.1"}
    (tmp_path / "pets.toml").write_text((tmp_path / "pets.toml").read_text() + "\n" + said[COMMANDS[4]])
    again = [sys.executable, "-m", "raysslprune", "sweep", "fig3", "--scale", "pets.toml", "--dry-run"]
    assert subprocess.run(again, cwd=tmp_path).returncode == 0, "what tune prints is a part of a scale file"
    step = re.findall(r"\b[0-9a-f]{16}\b", said[COMMANDS[8]])[-1]
    shutil.rmtree(tmp_path / "net", ignore_errors=True)
    export = [sys.executable, "-m", "raysslprune", "export", step, "--out", "net"]
    subprocess.run(export, cwd=tmp_path, check=True)
    assert (tmp_path / "net/model.safetensors").exists()
