"""``raysslprune`` itself: the names that it offers, as Python, type checkers and editors see them."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import raysslprune
from raysslprune import MODULE_OF, __all__

SOURCE = Path(raysslprune.__file__)


def for_type_checkers() -> dict[str, str]:
    """Names and modules of the block that only type checkers read."""
    (block,) = (
        node
        for node in ast.parse(SOURCE.read_text()).body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    found: dict[str, str] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        found |= {alias.asname or alias.name: node.module or "" for alias in node.names}
    return found


def test_all_lists_agree() -> None:
    assert for_type_checkers() == MODULE_OF
    assert len(__all__) == len(set(__all__))
    assert set(__all__) == MODULE_OF.keys()
    assert set(__all__) <= set(dir(raysslprune))


@pytest.mark.parametrize("name", __all__)
def test_each_name_is_what_its_module_has(name: str) -> None:
    value = getattr(raysslprune, name)
    assert value is getattr(import_module(MODULE_OF[name]), name)
    home = getattr(value, "__module__", MODULE_OF[name])
    if home.startswith("raysslprune."):  # defined there, and not merely imported
        assert home == MODULE_OF[name]


def test_no_name_is_a_modules() -> None:
    """`from raysslprune import results` must give the module, whatever was imported before."""
    folder = SOURCE.parent
    modules = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.iterdir() if path.is_dir()}
    assert "results" in modules
    assert not modules & set(__all__)


def test_an_unknown_name_is_said() -> None:
    with pytest.raises(AttributeError, match="module 'raysslprune' has no attribute 'nothing'"):
        _ = raysslprune.nothing  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ImportError, match="cannot import name 'nothing' from 'raysslprune'"):
        exec("from raysslprune import nothing")


def test_the_package_alone_imports_nothing_of_itself() -> None:
    program = "import sys, raysslprune; print(*sorted(name for name in sys.modules if 'raysslprune' in name))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "raysslprune\n"


def test_a_type_checker_knows_them(tmp_path: Path) -> None:
    """Of the wrong argument it says so, which it could not of Any."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from raysslprune import *\nfrom raysslprune import Curve, Experiment, imp\n"
        "Curve(task=1, init='x')\nreveal_type(imp)\nreveal_type(Experiment.load)\nSETTINGS['laptop'].nothing\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, str(path)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert '"Literal[1]" is not assignable to "str"' in done.stdout
    assert 'Cannot access attribute "nothing" for class "Setting"' in done.stdout
    assert done.stdout.count("error:") == 2, done.stdout
    assert "-> Chain" in done.stdout
    assert "-> Experiment" in done.stdout
