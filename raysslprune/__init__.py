"""Pruning convolutional networks with and without labels: distributed sweeps from one command to the paper's figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysslprune.subnetwork import load_subnetwork as load_subnetwork

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``load_subnetwork``, found when it is asked for: it needs torch, whose import takes seconds."""
    if name == "load_subnetwork":
        from raysslprune.subnetwork import load_subnetwork

        return load_subnetwork
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
