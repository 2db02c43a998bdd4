"""Imports of a worker: torch, its compiler, and Ray Train, which take seconds before its first training."""

from __future__ import annotations

import atexit
import gc

from raysslprune.process import collector_off


def import_all() -> None:
    """Import all that a training needs, in a process that does nothing else.

    torch imports its compiler when a process makes its first optimiser. The garbage collector would go through the
    objects of all modules again and again, a fourth of the time. It leaves them out until the process ends, when
    libraries of torch report what was not freed.
    """
    with collector_off():
        import torch

        from raysslprune.cluster import train  # noqa: F401
        from raysslprune.training import runner  # noqa: F401

        torch.optim.SGD([torch.zeros(1, requires_grad=True)])
        gc.freeze()
        atexit.register(gc.unfreeze)
