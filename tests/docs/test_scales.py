"""docs/scales.md: its files are scales, its values and choices are taken, and what it says of them is so."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest

from raysslprune.experiment import Experiment
from raysslprune.paper.scalefile import FIGURES, NET, TOP, scale
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.only import COLUMNS, part
from raysslprune.sweep_loader import known, load
from tests.helpers import CHECKOUT

TEXT = (CHECKOUT / "docs/scales.md").read_text()
FILES = dict(re.findall(r"^```toml (\S+)\n(.*?)^```$", TEXT, re.M | re.S))


@pytest.mark.parametrize("name", FILES)
def test_each_file_makes_the_figures(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(FILES[name])
    own = scale(str(tmp_path / name))
    assert own == name.removesuffix(".toml")
    for figure in known():
        if (name, figure) != ("longer.toml", "fig9"):  # it leaves the network of Figure 9 out
            assert load(figure, own, 1).name == figure


def test_the_files_are_those_of_the_commands() -> None:
    assert set(FILES) == {"pets.toml", "small.toml", "longer.toml"}
    assert {*re.findall(r"--scale (\S+\.toml)", TEXT)} <= set(FILES)


def test_what_is_said_of_pets(tmp_path: Path) -> None:
    (tmp_path / "pets.toml").write_text(FILES["pets.toml"])
    s = SETTINGS[scale(str(tmp_path / "pets.toml"))]
    assert s.finetune.data == "folder/pets:64px:10%-of-images"
    assert s.recipes["labels"].samples == 12 * 2_940


def test_single_values_are_taken() -> None:
    calls = [shlex.split(line) for line in re.findall(r"^    (raysslprune sweep .*--set.*)$", TEXT, re.M)]
    values = [[after for word, after in itertools.pairwise(call) if word == "--set"] for call in calls]
    assert sorted(map(len, values)) == [1, 2, 2]
    assert scale("laptop", values[0]) == "laptop-set-labels.lr=0.1"
    assert "`runs/results/laptop-set-labels.lr=0.1/`" in re.sub(r"\s+", " ", TEXT)
    assert SETTINGS[scale("laptop", values[1])].recipes["rotnet"].samples == 24 * 1_200
    short = SETTINGS[scale("laptop", values[2])]
    assert (short.recipes["rotnet"].samples, short.rewind["rotnet"]) == (640, 320)
    assert load("fig3", scale("laptop", values[2]), 1).points


def test_choices_are_taken(tmp_path: Path) -> None:
    expression, lone, line = re.findall(r'--only "(.*?)"', TEXT)
    assert part(load("fig3", "laptop", 1), expression).name.startswith("fig3-only-")
    without, dense = (
        {point.task for point in part(load("fig3", "laptop", 1), text).points if point.level == 0}
        for text in (lone, line)
    )
    assert (without, dense) == (set(), {"labels"})
    arguments = dict(re.findall(r'Experiment\.load\("fig3", (\w+)=(.*?)\)`', TEXT))
    assert arguments.keys() == {"scale", "set", "seeds", "only"}
    for name, value in arguments.items():
        if name != "scale":
            given = {name: eval(value)}
            assert Experiment.load("fig3", root=tmp_path / "runs", **given).sweep.points


def test_all_keys_and_columns_are_named() -> None:
    for name in {*TOP, *NET, *FIGURES}:
        assert re.search(rf"[`\[]{name}[`\].]", TEXT), name
    for name in COLUMNS:
        assert f"`{name}`" in TEXT
