"""Names of snapshots."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from raysslprune.store.record import MASK, WEIGHTS, snapshot_name, snapshots_in


@given(st.sets(st.integers(0, 10**15)))
def test_names_of_snapshots_round_trip(samples: set[int]) -> None:
    names = {WEIGHTS, MASK, "spec.json", *(snapshot_name(s) for s in samples)}
    assert snapshots_in(names) == samples
    assert len(names) == len(samples) + 3
