"""The benchmarks run and say what they measured. How fast anything is, no test asks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import BENCHMARKS
from benchmarks.statistics import over_seeds, spread
from tests.helpers import CHECKOUT


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments], cwd=CHECKOUT, capture_output=True, text=True
    )


def test_plan_measures_each_part_at_each_size() -> None:
    done = bench("--json", "plan", "--points", "120", "60")
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)
    assert (measured.pop("benchmark"), measured["machine"].keys() >= {"cores"}) == ("plan", True)
    del measured["machine"]
    assert measured["points"] == {"60 points": 71, "120 points": 142}  # whole seeds
    parts = {name for name in measured if name.startswith("seconds: ")}
    assert {"seconds: planned", "seconds: table", "seconds: drawn"} < parts
    assert all(0 < seconds < 60 for part in parts for seconds in measured[part].values())


def test_the_table_has_a_line_for_each_measurement() -> None:
    done = bench("plan", "--points", "60")
    assert done.returncode == 0, done.stderr
    assert {line.split("  ")[0].strip() for line in done.stdout.splitlines()} >= {"points", "steps", "seconds: planned"}


def test_a_wrong_name_is_refused() -> None:
    done = bench("speed")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["plan", "--points", "0"], 2, "'0' is not a whole number from 1"),
        (["dispatch", "--jobs", "100"], 2, "'100' is not a whole number from 200"),
        (["loop", "--repeats", "-1"], 2, "'-1' is not a whole number from 1"),
        (["loop", "--compile"], 2, "--compile needs a C++ compiler, g++ or clang++"),
        (["cifar", "--dataset", "cifra10"], 2, "data set 'cifra10' is not known"),
        (["cifar", "--data", "nowhere"], 1, "nowhere"),
        (["rewind", "--grid", "new.parquet", "--root", "/proc/nowhere"], 1, "can't write to /proc/nowhere"),
        (["results", "--add", "/nowhere"], 1, "there are no results in /nowhere"),
        (["results", "--add", "/nowhere", "--scale", "big"], 2, "invalid choice: 'big'"),
    ],
)
def test_what_can_not_be_done_is_said_in_a_sentence(
    arguments: list[str], code: int, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    done = bench(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith("raysslprune: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_every_benchmark_is_listed_and_documented() -> None:
    folder = Path(sys.modules["benchmarks"].__file__ or "").parent
    found = {path.stem for path in folder.glob("*.py")} - {
        "__init__",
        "__main__",
        "follow",
        "no_training",
        "page",
        "simulate",
        "statistics",
        "trained",
    }
    assert found == set(BENCHMARKS)
    docs = CHECKOUT / "docs"
    text = "".join((docs / name).read_text() for name in ("performance.md", "learning.md", "results.md", "science.md"))
    assert [name for name in BENCHMARKS if f"benchmarks {name}" not in text] == []


def test_statistics() -> None:
    values = [3.0, 1.0, 4.0, 1.0, 5.0]
    assert spread(values) == {"median": np.median(values), "lowest": 1.0, "highest": 5.0, "n": 5}
    found = over_seeds(values)
    assert found["mean"] == pytest.approx(np.mean(values))
    assert found["standard error"] == pytest.approx(np.std(values, ddof=1) / np.sqrt(5))
    assert np.isnan(over_seeds([1.0])["standard error"])


@pytest.mark.slow
def test_loop_compares_every_way() -> None:
    compiled = ["--compile"] if shutil.which("g++") or shutil.which("clang++") else []
    done = bench("--json", "loop", "--repeats", "1", "--nets", "conv4", *compiled)
    assert done.returncode == 0, done.stderr
    measured = json.loads(done.stdout)["conv4"]
    assert ("bare, compiled" in measured["images/s"], "seconds to compile, again" in measured) == (bool(compiled),) * 2
    speeds = {name: value["median"] for name, value in measured["images/s"].items()}
    assert min(speeds.values()) > 0
    for name, ratio in measured["over"].items():
        one, _, other = name.partition(" / ")
        assert ratio["median"] == pytest.approx(speeds[one] / speeds[other])
