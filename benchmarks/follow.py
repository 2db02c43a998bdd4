"""Note when this process begins and ends the import of some modules, and calls of some of their functions.

This runs in each Python process of a sweep that is measured, so it imports only the standard library.
"""

from __future__ import annotations

import functools
import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

EVENTS: dict[str, tuple[str, ...]] = {
    "ray": (),
    "torch": (),
    "ray.tune": (),
    "torch._dynamo": (),
    "torch.optim": ("Optimizer.__init__",),
    "raysslprune.process": ("end",),
    "raysslprune.sweep_loader": ("load",),
    "raysslprune.execution": ("Execution.train",),
    "raysslprune.cluster.nodes": ("_init", "shut_down"),
    "raysslprune.cluster.tune": ("run", "JobTrial.setup", "JobTrial.prepare"),
    "raysslprune.training.runner": ("Runner.run",),
    "raysslprune.training.loop": ("Loop.run", "Loop.update"),
    "raysslprune.present": ("present_sweep",),
}
"""Modules whose import is noted, and their functions whose first call and last return are noted."""


def follow(folder: str) -> None:
    """Note to a file in ``folder`` when this process begins and ends what is in EVENTS, and when it begins itself."""
    file = os.open(os.path.join(folder, str(os.getpid())), os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(kind: str, name: str) -> None:
        os.write(file, f"{kind} {name} {time.time()}\n".encode())

    note("begin", "process")
    sys.meta_path.insert(0, _Finder(note))


class _Finder(importlib.abc.MetaPathFinder):
    """Finder that leaves finding to others, and notes the import of modules in EVENTS."""

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self.note = note

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in EVENTS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def noted(module: ModuleType) -> None:
            self.note("begin", fullname)
            execute(module)
            self.note("end", fullname)
            for name in EVENTS[fullname]:
                _wrap(module, name, self.note)

        spec.loader.exec_module = noted
        return spec


def _wrap(module: ModuleType, name: str, note: Callable[[str, str], None]) -> None:
    """Note each call of a function of a module, or of a method of one of its classes."""
    full = f"{module.__name__}.{name}"
    owner, _, attribute = name.rpartition(".")
    holder = getattr(module, owner) if owner else module
    function = getattr(holder, attribute)

    @functools.wraps(function)
    def noted(*args: Any, **kwargs: Any) -> Any:
        note("begin", full)
        try:
            return function(*args, **kwargs)
        finally:
            note("end", full)

    setattr(holder, attribute, noted)
