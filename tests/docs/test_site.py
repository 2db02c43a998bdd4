"""The documentation as a site, and its reference of the package."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import raysslprune
from docs.griffe_fields import as_list
from raysslprune.sweep_loader import load
from tests.helpers import CHECKOUT
from tests.helpers.commands import sweep

REFERENCE = "\n".join(path.read_text() for path in sorted((CHECKOUT / "docs/api").glob("*.md")))


def test_the_reference_has_each_public_name_once() -> None:
    shown = re.findall(r"^::: (\S+)$", REFERENCE, re.M)
    assert len(set(shown)) == len(shown)
    assert {f"{raysslprune.MODULE_OF[name]}.{name}" for name in raysslprune.__all__} <= set(shown)


@pytest.mark.parametrize("name", ["Recipe", "SVM", "Figure", "Claim", "imp"])
def test_all_fields_are_explained(name: str) -> None:
    thing = getattr(raysslprune, name)
    fields = set(inspect.signature(thing).parameters)
    listed = re.findall(r"^- \*\*(.*?)\*\*: \S", as_list(inspect.getdoc(thing) or "", fields), re.M)
    assert {field for names in listed for field in names.split(", ")} == fields


def test_what_a_docstring_explains_becomes_a_list() -> None:
    docstring = "A thing.\n\na: one\n    and more. b, c: two: three.\nAlso d.\n\nIn d: nothing, e: nothing."
    made = as_list(docstring, {"a", "b", "c", "d"})
    assert made == "A thing.\n\n- **a**: one and more.\n- **b, c**: two: three. Also d.\n\nIn d: nothing, e: nothing."


def test_the_sweep_of_the_docs_loads_and_shares_the_chain_of_figure_3(tmp_path: Path) -> None:
    own = load(written(tmp_path), "smoke", 3)
    assert len(own.claims) == 2
    chain = {point.step.id for point in load("fig3", "smoke", 3).points if point.task == "labels"}
    by_init: dict[str, set[str]] = {}
    for point in own.points:
        by_init.setdefault(point.init, set()).add(point.step.id)
    assert by_init["weights rewound"] <= chain
    assert by_init["re-initialised"] <= chain
    assert not by_init["rate rewound"] & chain


@pytest.mark.slow
def test_the_sweep_of_the_docs_says_that_its_sides_saw_other_numbers_of_labels(tmp_path: Path) -> None:
    written(tmp_path)
    done = sweep("rewinding.py", "--scale", "smoke", "--seeds", "3", cwd=tmp_path)
    assert done.code == 0, done.err
    assert re.search(r"the sides saw [\d,]+(?: to [\d,]+)? and [\d,]+ samples with labels", " ".join(done.out.split()))


def written(folder: Path) -> Path:
    (code,) = re.findall(
        r"^```python rewinding.py\n(.*?)^```$", (CHECKOUT / "docs/question-to-sweep.md").read_text(), re.M | re.S
    )
    path = folder / "rewinding.py"
    path.write_text(code)
    return path


@pytest.mark.slow
def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    built = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, env={"NO_MKDOCS_2_WARNING": "1"})
    assert (built.returncode, built.stdout) == (0, ""), built.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    for page in ("index.html", "results/index.html", "source/sweeps/index.html", "CHANGELOG/index.html"):
        assert page in pages
    for name, page in pages.items():
        assert not re.search(r'(?:src|<link[^>]* href)="https?://', page), name
    assert 'id="raysslprune.spec.Recipe"' in pages["api/recipes/index.html"]
    assert "rewinding.py" in pages["question-to-sweep/index.html"]
