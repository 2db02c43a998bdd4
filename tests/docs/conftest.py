"""Fixtures that several folders use; what they give is described in tests/helpers."""

from tests.helpers.results import results_root, small_root

__all__ = ["results_root", "small_root"]
