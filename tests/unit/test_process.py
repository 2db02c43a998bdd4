"""The garbage collector of this process."""

from __future__ import annotations

import contextlib
import gc

import pytest

from raysslprune import process


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
