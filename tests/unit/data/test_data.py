"""Names of data sets, and where they lie."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from raysslprune import catalogue, data, experiment
from raysslprune.commands import check, export, resize
from raysslprune.data import DataError
from tests.helpers.layouts import tree


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """The data root of ``folder/pets``."""
    tree(tmp_path / "pets")
    return tmp_path


# ------------------------------------------------------------------------------------- all names


@pytest.mark.parametrize("name", catalogue.DATASETS)
def test_every_known_data_set_says_what_it_wants(name: str, tmp_path: Path) -> None:
    whole = f"{name}/some" if name in ("folder", "parquet") else name
    source = data.source(whole)
    if name == "digits":
        source.locate(tmp_path)
        return
    for look in (source.locate, source.load):
        with pytest.raises(DataError, match=f"{tmp_path}/.*expected") as error:
            look(tmp_path)
        assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_data_first_loaded_in_inference_mode_can_be_trained_on() -> None:
    """They are cached, and torch saves no inference tensor for a backward pass."""
    data.load.cache_clear()
    with torch.inference_mode():
        data.load("digits:10%-of-images")
    for name in ("digits", "digits:10%-of-images"):
        images, labels = next(iter(data.load(name).train.batches(10)))
        weight = torch.zeros(10, 64, requires_grad=True)
        F.cross_entropy(images.flatten(1).float() @ weight.T, labels).backward()
        assert weight.grad is not None
        assert weight.grad.any()


# ------------------------------------------------------------------------------------- the check command


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
        assert experiment.Experiment.load("table1", data=given).data == str(pets)
    assert not list((pets / "cwd").iterdir())
