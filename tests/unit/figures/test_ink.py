"""Figures as files: the same bytes, sizes, letters, and no setting of a user in them."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pyarrow as pa
import pytest
from matplotlib.figure import Figure as Canvas

from raysslprune.figures import curves, ink, masks, others
from raysslprune.sweepfile import Magnitudes, Search
from tests.helpers import CHECKOUT
from tests.helpers.tables import FIGURE, figure_3, searched, table


def digests() -> str:
    """Of the figure as PNG and as PDF; also printed by another process."""
    canvas = curves.draw(FIGURE, table(figure_3()), subtitle="smoke")
    return " ".join(hashlib.sha256(ink.save(canvas, kind)).hexdigest() for kind in ("png", "pdf"))


# ------------------------------------------------------------------------------------- files


def test_the_same_table_gives_the_same_files() -> None:
    """Here, after all that the other tests drew, and in a new process."""
    first = digests()
    environment = {**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "MPLBACKEND": "agg"}
    code = "from tests.unit.figures import test_ink as t; print(t.digests())"
    other = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, env=environment, capture_output=True, check=True)
    assert other.stdout.decode().strip() == first


def test_another_table_gives_other_files() -> None:
    changed = [row | {"value": row["value"] + (row["level"] == 7)} for row in figure_3()]
    for kind in ("png", "pdf"):
        one, other = (ink.save(curves.draw(FIGURE, table(some)), kind) for some in (figure_3(), changed))
        assert one != other


def test_a_png_is_as_wide_as_a_page_at_300_dots_an_inch() -> None:
    png = ink.save(curves.draw(FIGURE, table(figure_3())), "png")
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert width == 2070  # 6.9 inches
    assert 600 < height < 1500
    at = png.index(b"pHYs")
    x, y, unit = struct.unpack(">IIB", png[at + 4 : at + 13])
    assert (x, y, unit) == (11811, 11811, 1)  # dots a metre


def test_a_pdf_is_as_wide_as_a_page_and_holds_its_letters_as_letters() -> None:
    pdf = ink.save(curves.draw(FIGURE, table(figure_3()), subtitle="α → ω"), "pdf")
    assert pdf.startswith(b"%PDF-")
    box = re.search(rb"/MediaBox \[([^\]]*)\]", pdf)
    assert box
    assert float(box.group(1).split()[2]) == pytest.approx(6.9 * 72)
    assert b"/CIDFontType2" in pdf  # which is what PDF calls TrueType, Matplotlib's fonttype 42
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf  # fonttype 3, which publishers refuse
    assert b"CreationDate" not in pdf


HOSTILE = """\
text.usetex: True
font.family: no such font
font.size: 30
mathtext.fontset: stix
axes.facecolor: red
axes.formatter.limits: -1, 1
axes.prop_cycle: cycler("color", ["k"])
axes.grid: True
legend.loc: center
lines.marker: x
figure.dpi: 20
figure.constrained_layout.h_pad: 2
savefig.bbox: tight
savefig.transparent: True
pdf.fonttype: 3
svg.fonttype: none
path.sketch: 4, 100, 2
"""
"""A matplotlibrc that changes a figure in many ways; without LaTeX, the first line alone lets none be drawn."""
MAGNITUDES = pa.Table.from_pylist(
    [
        {"panel": "", "init": "a", "task": "labels", "seed": 0, "rank": rank, "magnitude": 10.0**-rank, "sparsity": 0.0}
        for rank in (0.0, 0.5, 1.0)
    ]
)
LAYERS = pa.Table.from_pylist(
    [
        {"panel": "", "task": "labels", "level": 1, "layer": layer, "density": 0.5, "stderr": None, "n": 1, "left": 0.5}
        for layer in ("a.weight", "b.weight")
    ]
)
PAIRS = pa.Table.from_pylist(
    [
        {"panel": "", "relation": "same seed", "task_a": "labels", "task_b": "rotnet", "density": 0.5}
        | {"jaccard": 0.4, "stderr": None, "n": 1, "chance": 0.3, "chance_overall": 0.2}
    ]
)


# ------------------------------------------------------------------------------------- whoever draws


@pytest.mark.parametrize(
    "draw",
    [
        lambda: curves.draw(FIGURE, table(figure_3()), subtitle="$x^2$"),
        lambda: others.magnitudes(Magnitudes(title="m"), MAGNITUDES),
        lambda: others.search(Search(title="s"), table(searched()), {("labels", 10, 0): 1.0}),
        lambda: masks.layer_densities("l", LAYERS),
        lambda: masks.overlaps("o", PAIRS),
    ],
    ids=["draw", "magnitudes", "search", "layers", "overlaps"],
)
def test_settings_of_a_user_change_no_figure(draw: Callable[[], Canvas], tmp_path: Path) -> None:
    expected = [ink.save(draw(), kind, dpi=50) for kind in ("png", "pdf", "svg")]
    (tmp_path / "matplotlibrc").write_text(HOSTILE)
    with mpl.rc_context(fname=tmp_path / "matplotlibrc"):
        settings = dict(mpl.rcParams)
        assert [ink.save(draw(), kind, dpi=50) for kind in ("png", "pdf", "svg")] == expected
        assert dict(mpl.rcParams) == settings, "they are the user's again"


# ------------------------------------------------------------------------------------- Matplotlib's backend

BACKEND = """
import os
from raysslprune.figures import ink
import matplotlib
from matplotlib.figure import Figure
assert ink.save(Figure(), "png")
print(os.environ["MPLBACKEND"], matplotlib.rcParams._get("backend"))
"""


@pytest.mark.parametrize("named", ["no such backend", "svg"])
def test_a_backend_that_is_not_installed_is_no_fault(named: str) -> None:
    """A notebook sets MPLBACKEND for all that it starts. One that is installed is still what pyplot uses."""
    words = [sys.executable, "-c", BACKEND]
    run = subprocess.run(words, env=os.environ | {"MPLBACKEND": named}, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith(named)
    assert (run.stdout == "svg svg\n") == (named == "svg")


def test_a_backend_that_a_notebook_has_chosen_stays() -> None:
    program = "import matplotlib; matplotlib.use('svg'); import raysslprune.figures; print(matplotlib.get_backend())"
    words = [sys.executable, "-c", program]
    run = subprocess.run(words, env=os.environ | {"MPLBACKEND": "pdf"}, capture_output=True, text=True, timeout=120)
    assert (run.stdout, run.returncode) == ("svg\n", 0), run.stderr
