"""Fixtures that tests of several modules use; what they give is described in tests/helpers."""

from tests.helpers.cli import cli, figure_3
from tests.helpers.exports import exported, trained
from tests.helpers.reports import damaged_root, report_page, reported
from tests.helpers.results import results_root, small_root

__all__ = [
    "cli",
    "damaged_root",
    "exported",
    "figure_3",
    "report_page",
    "reported",
    "results_root",
    "small_root",
    "trained",
]
