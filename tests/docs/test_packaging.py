"""The package: version, citation, entry point, hooks, and a wheel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from raysslprune import __main__ as command
from raysslprune import __version__
from raysslprune.sweep_loader import known
from tests.helpers import CHECKOUT

PROJECT = CHECKOUT
PACKAGE = PROJECT / "raysslprune"
PROJECT_FILE = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
SWEEPS = set(known())


def test_the_version_is_one() -> None:
    semantic = r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    assert re.fullmatch(semantic, __version__)
    assert version("raysslprune") == __version__, "that of the installation"
    newest = re.findall(
        rf"^## \[({semantic})\] - (unreleased|\d{{4}}-\d\d-\d\d)$", (PROJECT / "CHANGELOG.md").read_text(), re.M
    )
    assert newest[0][0] == __version__
    assert yaml.safe_load((PROJECT / "CITATION.cff").read_text())["version"] == __version__


def test_the_citation_has_the_software_and_the_paper() -> None:
    cited = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert cited.keys() >= {"cff-version", "message", "title", "authors"}, "what the format demands"
    (paper,) = cited["references"]
    assert [author["family-names"] for author in paper["authors"]] == [
        "Caron",
        "Morcos",
        "Bojanowski",
        "Mairal",
        "Joulin",
    ]
    assert paper["url"] == PROJECT_FILE["urls"]["Paper"]
    assert cited["license"] == PROJECT_FILE["license"]


def test_the_entry_point_and_the_marker_of_types() -> None:
    module, _, attribute = PROJECT_FILE["scripts"]["raysslprune"].partition(":")
    assert getattr(import_module(module), attribute) is command.program
    assert (PACKAGE / "py.typed").read_bytes() == b""


def test_hooks_run_what_the_environment_has() -> None:
    (repository,) = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"].split() for hook in repository["hooks"]]
    assert all(entry[:2] == [".venv/bin/python", "-m"] for entry in entries)
    checked = (PROJECT / ".ci/run").read_text().replace("$python", ".venv/bin/python")
    for entry in entries[:3]:  # ruff, ruff, pyright: CI has the same, without mending
        assert " ".join(entry[:4] if entry[2] == "ruff" else entry) in checked


USER = """
from raysslprune.lottery import imp
from raysslprune.paper.scales import SETTINGS

s = SETTINGS["laptop"]
chain = imp(task="labels", data=s.data, arch=s.arch, recipe=s.recipes["labels"], seed="0", levels=2, keep=0.5, rewind=0)
reveal_type(chain.dense)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wheel_has_all_and_its_user_has_types(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(PROJECT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        files = set(archive.namelist())
        (licence,) = [name for name in files if name.endswith(".dist-info/licenses/LICENSE")]
        assert archive.read(licence) == (PROJECT / "LICENSE").read_bytes()
    for path in PACKAGE.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert path.relative_to(PROJECT).as_posix() in files
    assert {f"raysslprune/sweeps/{name}.py" for name in SWEEPS} <= files

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv/bin/python"
    (site,) = tmp_path.glob("venv/lib/*/site-packages")
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True)
    others = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))}
    for arguments, said in ((["--version"], "raysslprune 0."), (["sweep", "fig3", "--dry-run"], "trainings")):
        run = subprocess.run(
            [str(python.parent / "raysslprune"), *arguments], cwd=tmp_path, env=others, capture_output=True, text=True
        )
        assert (run.returncode, run.stderr) == (0, "")
        assert said in run.stdout
    where = subprocess.run(
        [str(python), "-c", "import raysslprune; print(raysslprune.__file__)"],
        cwd=tmp_path, env=others, capture_output=True, text=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(site)), "this was about another installation"

    (tmp_path / "user.py").write_text(USER)
    seen = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", str(python), "user.py"],
        cwd=tmp_path, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert 'cannot be assigned to parameter "seed" of type "int"' in seen
    assert 'Type of "chain.dense" is "Train"' in seen
    assert "1 error, " in seen
