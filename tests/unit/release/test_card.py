"""The card of an exported network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import yaml

from raysslprune import data
from raysslprune.commands import export
from raysslprune.release import contents
from raysslprune.release.contents import Images
from raysslprune.spec import Step, Train, closure
from raysslprune.store.steps import Store
from tests.helpers.exports import SHAPES, TRAININGS, card_of, committed, mask_in


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", TRAININGS)
def test_the_card_tells_all_steps_behind_a_network(name: str, trained: Store, exported: dict[str, Path]) -> None:
    card, step = card_of(exported[name]), TRAININGS[name]
    rows = re.findall(r"^\| #(\d+) \| `([0-9a-f]{16})` \| (.*?) \|", card, re.M)
    assert [row[1] for row in rows] == [one.id for one in closure([step])]
    place = {step_id: number for number, step_id, _ in rows}
    for one in closure([step]):
        made = next(what for _, step_id, what in rows if step_id == one.id)
        named = set(re.findall(r"(?:from|mask|prune|shuffle) #(\d+)\b", made))
        assert named == {place[parent.id] for parent in one.parents}, made
    trainings = [one for one in closure([step]) if isinstance(one, Train)]
    assert len(re.findall(r"^R\d+: .*samples 1,280 .*batch 64, lr 0\.05", card, re.M)) <= len(trainings)
    assert f"Step `{step.id}`" in card


def test_the_card_has_results_and_densities(trained: Store, exported: dict[str, Path]) -> None:
    card, record = card_of(exported["ticket"]), trained.record(TRAININGS["ticket"].id)
    assert record is not None
    assert f"| `top1` | {record.metrics['top1']:.6g} | accuracy, in percent |" in card
    stays = mask_in(trained, cast(Step, TRAININGS["ticket"].mask), SHAPES)
    for key, m in stays.items():
        shape = "x".join(map(str, m.shape))
        assert f"| `{key}` | {shape} | {m.sum():,} | {m.size:,} | {100 * m.mean():.4g} |" in card
    left = sum(int(m.sum()) for m in stays.values())
    assert left == round(round(32_400 * 0.2) * 0.2)
    assert f"with {left:,} of 32,400 prunable weights left (density {left / 32_400:.6g})" in card
    assert "Pruned by magnitude 2 times, after a training on task `rotnet`" in card
    assert "the largest 20% stay" in card
    assert "had after 640 samples" in card
    dense = (exported["ticket"] / "model.safetensors").stat().st_size
    sparse = (exported["ticket"] / "sparse.safetensors").stat().st_size
    assert f"({100 * sparse / dense:.3g}%)" in card


def test_the_card_tells_random_masks_from_those_of_erk(exported: dict[str, Path]) -> None:
    sentence = (
        "The mask is random: of the weights in scope `convs:3` it keeps as many as 1 prunings that keep 1% each would "
        "leave{}."
    )
    erk = ", shared among the layers by Erdős-Rényi-Kernel"
    assert sentence.format("") in card_of(exported["random"])
    assert sentence.format(erk) in card_of(exported["erk"])


def test_the_card_tells_nobody_where_it_was_made(trained: Store, exported: dict[str, Path]) -> None:
    record = trained.record(TRAININGS["ticket"].id)
    assert record is not None
    for folder in exported.values():
        text = card_of(folder) + (folder / "config.json").read_text()
        assert record.facts["host"] not in text
        assert trained.base not in text
        assert str(folder.parent) not in text


def test_the_cards_three_lines_work(exported: dict[str, Path]) -> None:
    code = re.findall(r"```python\n(import raysslprune\n.*?)```", card_of(exported["ticket"]), re.S)[0]
    assert len([line for line in code.splitlines() if line]) == 3
    scope: dict[str, Any] = {"images": torch.randint(0, 17, (5, 1, 8, 8), dtype=torch.uint8)}
    exec(code.replace("path/to/this/folder", str(exported["ticket"])), scope)
    assert scope["outputs"].shape == (5, 10)


def test_the_front_matter_is_yaml_whatever_the_data_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "gzipped", len)
    name = 'folder/a "b": - c:10%-of-images'
    trained, step = committed(tmp_path / "runs", "conv4", name, classes=2)
    assert export.main([step.id, "--root", trained.base, "--out", str(tmp_path / "out")]) == 0
    front = yaml.safe_load(card_of(tmp_path / "out").split("---\n")[1])
    assert front["datasets"] == [name]
    assert front["library_name"] == "raysslprune"
    assert "license" not in front


def test_images_on_disk_are_normalised_as_the_data_set_says(tmp_path: Path) -> None:
    """Though it is not read, and need not be there."""
    from PIL import Image

    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / "pets" / split / label).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "pets" / split / label / "1.png")
    loaded = data.load("folder/pets", str(tmp_path))
    for name in ("folder/pets", "folder/pets:50%-of-classes", "imagenet", "places205", "voc07", "voc07/whole"):
        found = Images.of(name, str(tmp_path / "nothing"))
        assert (found.channels, found.size, found.white) == (loaded.channels, loaded.size, loaded.white)
        assert torch.equal(torch.tensor(found.mean), loaded.mean.flatten())
        assert torch.equal(torch.tensor(found.std), loaded.std.flatten())
