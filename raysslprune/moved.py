"""Imports of version 0.1 that no longer work, and the line to write instead of each.

Users' own files import these: sweep files, tasks and networks. Standard library only.
"""

from __future__ import annotations

import ast
import linecache
import os
import traceback
from pathlib import Path

from raysslprune import MODULE_OF

MODULES = {
    "analysis": "results.overlap", "api": "experiment", "claims": "results.claims", "cluster": "cluster.nodes",
    "command": "commands.common", "completion": "commands.completion", "data.check": "commands.check",
    "data.feed": "data.batches", "data.resize": "commands.resize", "distribute": "cluster.train",
    "evaluate": "evaluate.metrics", "exchange": "cluster.shared", "experiments": "paper.experiments",
    "explain": "terminal.explain", "export": "commands.export", "fanout": "cluster.tune", "figures": "figures.curves",
    "import_mask": "commands.import_mask", "loader": "sweep_loader", "lock": "store.lock",
    "modelcard": "release.card", "monitor": "cluster.prometheus", "names": "catalogue", "options": "catalogue",
    "plan": "plan.graph", "progress": "terminal.progress", "recipes": "paper.recipes", "release": "release.contents",
    "run": "training.runner", "scales": "paper.scales", "search": "plan.search", "store": "store.steps",
    "subnetwork": "release.subnetwork", "svm": "evaluate.svm", "terminal": "terminal.tables",
    "torch_prune": "release.torch_prune", "train": "training.loop", "warm": "cluster.reuse",
}  # fmt: skip
"""New module by old module: the one that has most of its contents now. All are below ``raysslprune``."""

_PARTS = {
    ("figures", "figures.ink"): "save",
    ("figures", "figures.masks"): "layer_densities overlaps",
    ("figures", "figures.others"): "magnitudes search",
    ("figures", "figures.style"): "NAMES TITLES METRICS",
    ("plan", "plan.cost"): "Cost Disk Estimate Work cost_of estimate",
    ("plan", "plan.schedule"): "Schedule",
    ("plan", "words"): "describe title titles what",
    ("release", "messages"): "UserError",
    ("run", "training.make_masks"): "Masks NotImported",
    ("store", "store.record"): "Damaged File Record snapshot_name snapshots_in versions",
}
PARTS = {f"{old}.{name}": new for (old, new), names in _PARTS.items() for name in names.split()}
"""New module of each other part of an old module, by the part's old ``module.name``."""

RENAMED = {
    "experiments.layerwise": "pruned_to_depth",
    "release.ExportError": "UserError",
    "plan.cost": "cost_of",
    "plan.make": "make_plan",
}
"""New names of renamed parts, by their old ``module.name``."""


def new_line(node: ast.Import | ast.ImportFrom) -> str | None:
    """The line that imports the same objects from their new places, under the same names; None if nothing moved.

    Public names are imported from the package itself.
    """
    if isinstance(node, ast.ImportFrom) and node.level:
        return None
    places: dict[str, list[str]] = {}
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            module, name = _now(node.module or "", alias.name)
            known_as = alias.asname or alias.name
        else:
            module, name = "", ".".join(filter(None, _now("", alias.name)))
            known_as = alias.asname or name
        places.setdefault(module, []).append(name if name == known_as else f"{name} as {known_as}")
    lines = [f"{f'from {place} ' if place else ''}import {', '.join(names)}" for place, names in places.items()]
    line = "; ".join(lines)
    return None if line == ast.unparse(node) else line


def _now(module: str, name: str) -> tuple[str, str]:
    """Module and name to import now in place of ``from module import name``. module: '' for ``import name``."""
    whole = f"{module}.{name}".lstrip(".")
    old, old_module = (path.removeprefix("raysslprune").lstrip(".") for path in (whole, module))
    if module and old in RENAMED:
        name = RENAMED[old]
        old = f"{old_module}.{name}"
    if not f"{whole}.".startswith("raysslprune.") or old in {*MODULES.values(), *PARTS.values()}:
        return module, name
    if old in MODULES:
        place, _, last = f"raysslprune.{MODULES[old]}".rpartition(".")
        return (place, last) if module else ("", f"{place}.{last}")
    if old_module not in MODULES:
        return module, name
    place = f"raysslprune.{PARTS.get(old, MODULES[old_module])}"
    return ("raysslprune" if MODULE_OF.get(name) in (module, place) else place, name)


def advice(error: BaseException) -> str | None:
    """Say which line to change, and how, if an old import in a user's file caused the error; else return None."""
    obj = getattr(error, "obj", None) if isinstance(error, AttributeError) else None
    module = error.name if isinstance(error, ImportError) else getattr(obj, "__name__", None)
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _ours(frame.filename)]
    if not frames or not f"{module}.".startswith("raysslprune."):
        return None
    file, at = frames[-1].filename, frames[-1].lineno or 0
    near = os.path.relpath(file)
    for node in ast.walk(ast.parse("".join(linecache.getlines(file)))):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        above = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
        imports_it = module in {f"{above}{alias.name}" for alias in node.names}
        fails = node.lineno <= at <= (node.end_lineno or at) if isinstance(error, ImportError) else imports_it
        if fails and (line := new_line(node)):
            shown = file if near.startswith(os.pardir) else near
            return f"{shown}, line {node.lineno}: this moved in version 0.2; write: {line}"
    return None


def _ours(file: str) -> bool:
    """Return whether a file is the package's, or a part of Python's import system."""
    return file.startswith("<") or Path(file).is_relative_to(Path(__file__).parent)
