"""``raysslprune scale``: what it prints is a file for ``--scale``."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysslprune.commands.scale import main
from raysslprune.paper.scales import SETTINGS
from tests.helpers.cli import USAGE, Cli

Capture = pytest.CaptureFixture[str]


def test_what_is_printed_is_taken(cli: Cli, capsys: Capture) -> None:
    assert main(["smoke"]) == 0
    Path("pets.toml").write_text(capsys.readouterr().out)
    for arguments in (["fig3", "--scale", "pets.toml"], ["fig3", "--scale", "smoke"]):
        called = cli(*arguments, "--dry-run")
        assert called.code == 0
        assert ("too few to learn anything" in called.err) == ("pets.toml" in arguments)
        assert "28 trainings, 17 masks" in called.out


def test_a_file_is_printed_with_what_it_inherits(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "pets.toml"
    path.write_text('base = "laptop"\ndata = "parquet/pets"\nimages = 600\n')
    assert main([str(path)]) == 0
    printed = capsys.readouterr().out
    assert 'data = "parquet/pets"' in printed
    assert "images = 600" in printed
    assert 'title = "parquet/pets, small ResNet"' in printed


def test_a_wrong_name_is_one_sentence(capsys: Capture) -> None:
    assert main(["laptp"]) == USAGE
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"raysslprune: there is no scale 'laptp', only {', '.join(SETTINGS)}, and files")
    assert said.err.count("\n") == 1
