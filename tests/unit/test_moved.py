"""Imports of version 0.1: which line to write now, and that a sweep file which has one is refused with it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from raysslprune import MODULE_OF, catalogue, moved
from raysslprune.moved import MODULES, PARTS, new_line
from raysslprune.sweep_loader import SweepError, load
from tests.helpers import CHECKOUT

LINES = [
    ("from R.recipes import appendix_d", "from R import appendix_d"),
    ("from R.scales import SETTINGS", "from R import SETTINGS"),
    ("from R.scales import SETTINGS as S, DIGITS", "from R import SETTINGS as S; from R.paper.scales import DIGITS"),
    ("from R.recipes import Net", "from R.paper.recipes import Net"),  # the package's own is that of scales
    ("from R import recipes, scales", "from R.paper import recipes, scales"),
    ("from R import lottery, plan", "from R import lottery; from R.plan import graph as plan"),
    ("from R.plan import Job", "from R.plan.graph import Job"),
    ("from R.plan import make", "from R.plan.graph import make_plan as make"),
    ("from R.plan import Job, Estimate", "from R.plan.graph import Job; from R.plan.cost import Estimate"),
    ("from R.plan import schedule, Job", "from R.plan import schedule; from R.plan.graph import Job"),
    ("from R.data import feed, resident", "from R.data import batches as feed, resident"),
    ("from R.data.feed import X as Y", "from R.data.batches import X as Y"),
    ("from R.evaluate import accuracy, part", "from R import accuracy; from R.evaluate.metrics import part"),
    ("from R.api import Experiment", "from R import Experiment"),
    ("from R.release import ExportError, Images",
     "from R import UserError as ExportError; from R.release.contents import Images"),
    ("from R.names import *", "from R.catalogue import *"),
    ("import R.options", "import R.catalogue"),
    ("import numpy as np, R.options as o", "import numpy as np, R.catalogue as o"),
    ("import R.data.feed", "import R.data.batches"),
    ("from R.lottery import imp", None),
    ("from R.evaluate import svm", None),
    ("from R import results, data", None),
    ("import R", None),
    ("import raysslprunex.recipes", None),
    ("from recipes import appendix_d", None),
    ("from . import recipes", None),
    ("from .recipes import appendix_d", None),
]  # fmt: skip
"""Lines of version 0.1, and what to write for each; R stands for the package, so that no tool renames what is old."""


def whole(text: str) -> str:
    return re.sub(r"\bR\b", "raysslprune", text)


def bound(statements: list[ast.stmt]) -> set[str]:
    """The names that imports bind."""
    return {
        (alias.asname or alias.name).partition(".")[0]
        for node in statements
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }


@pytest.mark.parametrize(("line", "new"), LINES)
def test_the_new_line(line: str, new: str | None) -> None:
    (node,) = ast.parse(whole(line)).body
    assert isinstance(node, ast.Import | ast.ImportFrom)
    found = new_line(node)
    assert found == (new and whole(new))
    for again in ast.parse(found or "").body:
        assert isinstance(again, ast.Import | ast.ImportFrom)
        assert new_line(again) is None
    assert not found or bound(ast.parse(found).body) == bound([node])


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules that moved: `old` to `lottery`, `results` to `results.tables`, `results.old` to `results.sql`."""
    monkeypatch.setattr(moved, "MODULES", {"old": "lottery", "results": "results.tables", "results.old": "results.sql"})


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize(
    ("text", "line", "write"),
    [
        ("from R.old import imp", 1, "from R import imp"),
        ("x = 1\nfrom R.old import (\n  imp,\n  MOST_LEVELS as most,\n)", 2,
         "from R import imp; from R.lottery import MOST_LEVELS as most"),
        ("from R import old", 1, "from R import lottery as old"),
        ("import R.old", 1, "import R.lottery"),
        ("import R.old.more", 1, None),
        ("from R.results import nothing", 1, "from R.results.tables import nothing"),
        ("from R.results import old", 1, "from R.results import sql as old"),
        ("import os\nfrom R import results as r\nr.nothing()", 2, "from R.results import tables as r"),
        ("def points(scale, seed):\n    from R.old import imp", 2, "from R import imp"),
        ("def points(scale, seed):\n    return r.nothing\nfrom R import results as r", 3,
         "from R.results import tables as r"),
        ("from R import nothing", 1, None),
        ("from R.lottery import nothing", 1, None),
        ("import nothing_of_this_name", 1, None),
        ("import R.old, nothing_of_this_name", 1, "import R.lottery, nothing_of_this_name"),
        ("import nothing_of_this_name, R.old", 1, None),
        ("None.x", 1, None),
    ],
)  # fmt: skip
def test_a_sweep_file_with_an_old_import_is_refused(
    text: str, line: int, write: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(whole(f"{text}\nfrom R import Figure\nFIGURE = Figure(title='Mine')\n"))
    with pytest.raises(SweepError) as refused:
        load("mine.py", "smoke", 1)
    if write:
        said = f"mine.py, line {line}: this moved in version 0.2; write: {whole(write)}"
        assert str(refused.value) == said
    else:
        assert str(refused.value).startswith("mine.py, line ")
        assert "elsewhere" not in str(refused.value)


@pytest.mark.usefixtures("gone")
def test_of_a_module_that_a_sweep_file_imports_its_own_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("beside_a_sweep.py").write_text(whole('"""Mine."""\n\nfrom R.old import imp\n'))
    Path("mine.py").write_text("import os\nimport beside_a_sweep\n")
    said = whole("beside_a_sweep.py, line 3: this moved in version 0.2; write: from R import imp")
    with pytest.raises(SweepError) as refused:
        load("mine.py", "smoke", 1)
    assert str(refused.value) == said
    with pytest.raises(ValueError, match=re.escape(f"task 'beside_a_sweep:Task': {said}")):
        catalogue.resolve("task", {}, "beside_a_sweep:Task")


@pytest.mark.usefixtures("gone")
def test_a_file_elsewhere_is_named_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(whole("from R.old import imp"))
    with pytest.raises(SweepError, match=re.escape(f"{path}, line 1: ")):
        load(path, "smoke", 1)


@pytest.mark.skipif(find_spec("raysslprune.paper") is None, reason="the modules are still where they were")
def test_everything_is_where_the_table_says() -> None:
    """And nothing is where it was, but for packages that have the name of an old module."""
    for new in {*MODULES.values(), *PARTS.values()}:
        assert find_spec(f"raysslprune.{new}"), new
    for old in MODULES.keys() - {new.partition(".")[0] for new in MODULES.values()}:
        package = f"raysslprune.{old}".rpartition(".")[0]
        assert find_spec(package) is None or find_spec(f"raysslprune.{old}") is None, old
    for whole_name, new in PARTS.items():
        place = find_spec(f"raysslprune.{new}")
        assert place
        assert place.origin
        assert re.search(rf"^(def |class )?{whole_name.partition('.')[2]}\b", Path(place.origin).read_text(), re.M)


@pytest.mark.skipif(find_spec("raysslprune.paper") is None, reason="the modules are still where they were")
@pytest.mark.parametrize(
    "old", ["analysis", "bench", "data.check", "data.resize", "export", "import_mask", "report", "results", "status"]
)
def test_a_command_of_version_0_1_does_not_end_as_if_it_had_done_something(old: str) -> None:
    """Job scripts may have it: a module that is still there, and no program, would do nothing and exit with 0."""
    done = subprocess.run([sys.executable, "-m", f"raysslprune.{old}", "--help"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "No module named" in done.stderr


def test_what_the_package_offers_is_in_no_old_module() -> None:
    """Else the new line would be the old one."""
    if find_spec("raysslprune.paper"):
        assert not {module.removeprefix("raysslprune.") for module in MODULE_OF.values()} & MODULES.keys()


def test_the_changelog_lists_all() -> None:
    text = (CHECKOUT / "CHANGELOG.md").read_text()
    for old, new in MODULES.items():
        assert f"| `{old}` | `{new}` |" in text
    for whole_name, new in PARTS.items():
        old, _, name = whole_name.partition(".")
        assert re.search(rf"\| `{old}` \| .*`{name}`.* \| `{new}` \|", text), whole_name
