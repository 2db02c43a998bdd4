"""The tests of devices, tests/unit/test_devices.py, by pytest: the loop, the runner and two workers on a GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.gpu.results import Check, Line, Measured, Said
from benchmarks.gpu.run import Run

CHECKOUT = Path(__file__).parents[2]
TESTS = CHECKOUT / "tests/unit/test_devices.py"

QUICK = "a_runner or a_gpu_gives"
"""The tests to run with ``--quick``, as an expression for ``pytest -k``."""


def lines(run: Run) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        if not finished(run, report):
            yield Said(name="tests", says="ended before their time was over, without a result")
            return
        yield from reported(report)


def finished(run: Run, report: Path) -> bool:
    """Run the tests without plugins and conftest.py, which need more packages. Returns whether they ended in time."""
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", f"--junit-xml={report}"]
    command += ["-W", "default", *(["-k", QUICK] if run.quick else []), str(TESTS)]  # a new warning is no wrong number
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    if not run.on_gpu:
        environment["OMP_NUM_THREADS"] = "1"
    child = subprocess.Popen(
        command, cwd=CHECKOUT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        child.wait(max(run.left - 1, 0))
    except subprocess.TimeoutExpired:
        return False
    finally:
        with suppress(ProcessLookupError):  # its processes too, which share a training
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    return True


def reported(report: Path) -> Iterator[Line]:
    """Yield the lines of pytest's report. Raises OSError if there is none, because pytest could not start."""
    suite = next(ElementTree.parse(report).getroot().iter("testsuite"))
    count = {name: int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")}
    for case in suite.iter("testcase"):
        for wrong in (*case.findall("failure"), *case.findall("error")):
            says = " ".join(wrong.attrib.get("message", "").split())[:300]
            yield Said(name=case.attrib["name"], says=says, failed=True, details=wrong.text or "")
    yield Measured(name="tests", values={"run": count["tests"] - count["skipped"], "skipped": count["skipped"]})
    failed = count["failures"] + count["errors"]
    yield Check(
        name="tests that failed", found=failed, expected=0, tolerance=0, why="they say themselves what is wrong"
    )
