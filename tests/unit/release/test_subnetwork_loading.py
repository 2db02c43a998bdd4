"""Exported networks loaded again: damaged, changed, or of another program."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import raysslprune
from raysslprune import models
from raysslprune.release import subnetwork
from tests.helpers.exports import copy


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_package_stays_cheap_to_import() -> None:
    program = (
        "import sys, raysslprune; assert not {'torch', 'numpy', 'safetensors'} & sys.modules.keys()\n"
        "from raysslprune import load_subnetwork; print(load_subnetwork.__module__)\n"
        "raysslprune.load_subnetworks"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "raysslprune.release.subnetwork\n", run.stderr
    assert run.stderr.splitlines()[-1].startswith("AttributeError: module 'raysslprune' has no attribute")


TINY = "class Tiny:\n    raise SystemExit('imported')\n"


def test_a_folder_can_not_make_anything_be_imported(
    tmp_path: Path, exported: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(str(exported["ticket"]), tmp_path / "theirs")
    (tmp_path / "evil.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "arch": "evil:Tiny"}))
    with pytest.raises(
        ValueError, match=r"'evil:Tiny' is not in this package; pass its function: load_subnetwork\(path, trunk="
    ):
        raysslprune.load_subnetwork(folder)
    assert "evil" not in sys.modules
    net = subnetwork.load_subnetwork(folder, trunk=lambda channels: models.trunk("conv4", channels))
    own = raysslprune.load_subnetwork(exported["ticket"])
    assert torch.equal(net(torch.ones(1, 1, 8, 8)), own(torch.ones(1, 1, 8, 8)))


@pytest.mark.parametrize("name", ["model.safetensors", "mask.safetensors"])
def test_a_damaged_file_is_recognised(name: str, tmp_path: Path, exported: dict[str, Path]) -> None:
    folder = copy(str(exported["ticket"]), tmp_path / "damaged")
    content = bytearray((folder / name).read_bytes())
    content[-100] ^= 1
    (folder / name).write_bytes(content)
    read = subnetwork.load_mask if name.startswith("mask") else raysslprune.load_subnetwork
    with pytest.raises(ValueError, match=rf"{name} is damaged: it does not match its checksum in config\.json"):
        read(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"raysslprune": 2}', '"raysslprune"'])
def test_another_programs_folder_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json was not written by this version of raysslprune export"):
        raysslprune.load_subnetwork(tmp_path)


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path, exported: dict[str, Path]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    whys = {"empty": "it has no config.json", "nowhere": "there is no such folder", "file": "there is no such folder"}
    for name, why in whys.items():
        for read in (raysslprune.load_subnetwork, subnetwork.load_mask):
            with pytest.raises(
                ValueError, match=rf"/{name} is not an exported network or mask: {why}; raysslprune export STEP "
            ):
                read(tmp_path / name)
    (copy(str(exported["ticket"]), tmp_path / "ticket") / "mask.safetensors").unlink()
    with pytest.raises(ValueError, match=r"there is no mask\.safetensors in .*/ticket"):
        subnetwork.load_mask(tmp_path / "ticket")


@pytest.mark.parametrize(
    "wrong",
    [{"channels": "1"}, {"channels": 3}, {"head": {"kind": "x", "features": 1, "outputs": 1}}, {"images": {"mean": 1}}]
    + [{name: None} for name in ("kind", "arch", "channels", "images", "sha256")],
    ids=str,
)
def test_a_config_that_somebody_changed_is_refused(
    wrong: dict[str, Any], tmp_path: Path, exported: dict[str, Path]
) -> None:
    folder = copy(str(exported["ticket"]), tmp_path / "changed")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **wrong}))
    with pytest.raises(ValueError, match=r"config\.json was not written by this version of raysslprune export"):
        raysslprune.load_subnetwork(folder)


@pytest.mark.parametrize(
    ("images", "was"),
    [
        (torch.rand(2, 1, 8, 8), r"float32 \(2, 1, 8, 8\); multiply images from 0 to 1 by 16 first"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.int64), r"int64 \(2, 1, 8, 8\)"),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), r"uint8 \(1, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"uint8 \(2, 3, 8, 8\)"),
        (torch.zeros(2, 8, 8, 1, dtype=torch.uint8), r"uint8 \(2, 8, 8, 1\)"),
    ],
    ids=["from 0 to 1", "whole numbers", "one image", "colours", "channels last"],
)
def test_images_that_are_not_as_stored_are_refused(images: torch.Tensor, was: str, exported: dict[str, Path]) -> None:
    net = raysslprune.load_subnetwork(exported["ticket"])
    with pytest.raises(ValueError, match=rf"^images must be uint8 of shape \(n, 1, height, width\), not {was}$"):
        net.preprocess(images)


def test_images_that_are_no_tensor_are_refused(exported: dict[str, Path]) -> None:
    net: Any = raysslprune.load_subnetwork(exported["ticket"])
    with pytest.raises(ValueError, match=r"^images must be a tensor, as from torch.from_numpy, not ndarray$"):
        net.preprocess(np.zeros((2, 1, 8, 8), np.uint8))


def test_weights_of_another_network_are_refused(tmp_path: Path, exported: dict[str, Path]) -> None:
    folder = copy(str(exported["ticket"]), tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "arch": "conv5"}))
    with pytest.raises(
        ValueError, match=r"the weights in .* do not fit conv5 as it is defined here: .*layers\.conv1\.weight"
    ):
        raysslprune.load_subnetwork(folder)
