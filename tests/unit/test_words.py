"""Numbers, durations and sizes in words."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raysslprune import progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0, "0 s"),
        (0.4, "0 s"),
        (41.6, "42 s"),
        (59.4, "59 s"),
        (59.6, "1:00 min"),
        (187, "3:07 min"),
        (3599.4, "59:59 min"),
        (3599.6, "1:00 h"),
        (8100, "2:15 h"),
        (47 * 3600 + 59 * 60, "47:59 h"),
        (48 * 3600, "2.0 days"),
        (4.2 * 86400, "4.2 days"),
        (400 * 86400, "400.0 days"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (340_000, "340 kB"),
        (2_900_000, "2.9 MB"),
        (999_600, "1 MB"),
        (999_999_999, "1 GB"),
        (11_719_372, "11.7 MB"),
        (1.2e12, "1.2 TB"),
    ],
)
def test_sizes(count: float, text: str) -> None:
    assert progress.size(count) == text


@given(st.integers(0, 9 * 10**14))
def test_sizes_are_plain_numbers_near_the_truth(count: int) -> None:
    number, unit = progress.size(count).split()
    assert re.fullmatch(r"\d+(\.\d+)?", number)
    shown = float(number) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert abs(shown - count) <= 0.006 * count
    assert float(number) < 1000
