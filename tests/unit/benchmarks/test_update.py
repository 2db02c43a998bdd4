"""What one update takes: counted by hand, and as the page has it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from benchmarks import update
from raysslprune.paper.recipes import NETS

PAGE = Path(__file__).parents[3] / "docs/performance.md"


def test_operations_of_conv4_by_hand() -> None:
    """Forward, and backward once for the weights and once for what came in, but for the images."""
    first = 8 * 8 * 16 * 9
    assert update.count("conv4", "digits", 64).flops == 2 * 64 * (3 * NETS["conv4"].macs - first)


def test_operators_and_bytes_by_hand() -> None:
    """A sum reads two tensors and writes one; in place, the one that it reads; a view costs nothing."""
    counts, a, b = update.Counts(), torch.zeros(10), torch.zeros(10)
    with update.counting(counts):
        _ = (a.view(5, 2) + b.view(5, 2)).flatten()
        a += b
    assert (counts.operators, counts.bytes) == (2, 4 * 30 + 4 * 30)


@pytest.mark.parametrize("net", update.NETS)
def test_the_page_has_what_is_counted(net: str) -> None:
    row = update.run(argparse.Namespace(nets=[net]))[net]
    shown = [f"{v:,}" if isinstance(v, int) else f"{v:,.{1 if name == 'GFLOP' else 2}f}" for name, v in row.items()]
    assert f"| {net} | {' | '.join(shown)} |" in PAGE.read_text()
