"""Where output goes while the progress is shown."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raysslprune.terminal import progress


def test_output_goes_to_the_log_and_comes_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    descriptors = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for word in ("first", "second"):
        os.write(1, b"before\n")
        with progress.output_to(str(log)) as terminal:
            os.write(1, f"{word} to 1\n".encode())  # as a library in C prints
            os.write(2, f"{word} to 2\n".encode())
            subprocess.run(["sh", "-c", f"echo {word} of a child; echo {word} of a child >&2"], check=True)
            terminal.write("for the person\n")
            terminal.flush()
        os.write(1, b"after\n")
        os.write(2, b"after\n")
    out, err = capfd.readouterr()
    assert out == "before\nafter\n" * 2
    assert err == "for the person\nafter\n" * 2
    expected = [f"{w} {rest}" for w in ("first", "second") for rest in ("to 1", "to 2", "of a child", "of a child")]
    assert log.read_text().splitlines() == expected
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_output_comes_back_after_an_error_and_print_goes_along(tmp_path: Path) -> None:
    code = """
import sys
from raysslprune.terminal.progress import output_to
print("out before"); print("err before", file=sys.stderr)
try:
    with output_to(sys.argv[1]) as terminal:
        print("out within"); print("err within", file=sys.stderr)
        terminal.write("for the person\\n")
        raise RuntimeError
except RuntimeError:
    print("out after"); print("err after", file=sys.stderr)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, text=True, check=True
    )
    assert run.stdout == "out before\nout after\n"
    assert run.stderr == "err before\nfor the person\nerr after\n"
    assert sorted((tmp_path / "log").read_text().splitlines()) == ["err within", "out within"]
