"""How a command ends, and the garbage collector on its way."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys

import pytest

from raysslprune import process

ENDS = """
import atexit, gc
from raysslprune import process

atexit.register(lambda: print(gc.get_freeze_count() > 0))
process.end(3)
"""


def test_a_command_ends_without_a_look_at_its_modules_but_calls_the_exit_hooks() -> None:
    run = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True)
    assert (run.returncode, run.stdout.strip()) == (3, "True"), run.stderr


@pytest.mark.parametrize("on", [True, False])
def test_the_collector_is_off_inside_and_as_before_afterwards(on: bool) -> None:
    was = gc.isenabled()
    try:
        (gc.enable if on else gc.disable)()
        with contextlib.suppress(KeyError), process.collector_off():
            assert not gc.isenabled()
            raise KeyError
        assert gc.isenabled() == on
    finally:
        (gc.enable if was else gc.disable)()
