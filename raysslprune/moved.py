"""Where version 0.1 had what is elsewhere now: the line to write in the place of an import that no longer works.

Sweep files, tasks and networks are users' own files, so what they import has to be said, and not only looked up.
Standard library only.
"""

from __future__ import annotations

import ast
import os
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from raysslprune import MODULE_OF

MODULES = {
    "analysis": "results.overlap",
    "api": "experiment",
    "claims": "results.claims",
    "cluster": "cluster.nodes",
    "command": "commands.common",
    "completion": "commands.completion",
    "data.check": "commands.check",
    "data.feed": "data.batches",
    "data.resize": "commands.resize",
    "distribute": "cluster.train",
    "evaluate": "evaluate.metrics",
    "exchange": "cluster.shared",
    "experiments": "paper.experiments",
    "explain": "terminal.explain",
    "export": "commands.export",
    "fanout": "cluster.tune",
    "figures": "figures.curves",
    "import_mask": "commands.import_mask",
    "loader": "sweep_loader",
    "lock": "store.lock",
    "modelcard": "release.card",
    "monitor": "cluster.prometheus",
    "names": "catalogue",
    "options": "catalogue",
    "plan": "plan.graph",
    "progress": "terminal.progress",
    "recipes": "paper.recipes",
    "release": "release.contents",
    "run": "training.runner",
    "scales": "paper.scales",
    "search": "plan.search",
    "store": "store.steps",
    "subnetwork": "release.subnetwork",
    "svm": "evaluate.svm",
    "terminal": "terminal.tables",
    "torch_prune": "release.torch_prune",
    "train": "training.loop",
    "warm": "cluster.reuse",
}
"""Old modules, and where most of each is now; all below ``raysslprune``."""

_ELSEWHERE = {
    "figures": {
        "figures.ink": "save",
        "figures.masks": "layer_densities overlaps",
        "figures.others": "magnitudes search",
        "figures.style": "NAMES TITLES METRICS",
    },
    "plan": {
        "plan.cost": "Cost Disk Estimate Work cost_of estimate",
        "plan.schedule": "Schedule",
        "spec": "prunings target_density",
        "words": "describe title titles what",
    },
    "run": {"training.make_masks": "Masks NotImported"},
    "store": {"store.record": "Damaged File Record snapshot_name snapshots_in versions"},
}
PARTS = {
    f"{old}.{name}": new for old, parts in _ELSEWHERE.items() for new, names in parts.items() for name in names.split()
}
"""What is not where the most of its old module is: ``module.name``, and its module now."""

RENAMED = {"plan.cost": "cost_of", "plan.left": "target_density", "plan.make": "make_plan"}
"""What has another name now."""


def new_line(node: ast.Import | ast.ImportFrom) -> str | None:
    """The line that imports the same, under the same names, from where it is now; None where nothing of it moved.

    What the package itself offers is imported from there.
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
    """Where ``from module import name`` finds it now, and what it is called there. module: '' for ``import name``."""
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
    """A sentence with the file, the line and what to write there, where an old import of somebody's file is behind an
    error; else None.
    """
    missing = getattr(error, "obj", None) if isinstance(error, AttributeError) else None
    module = missing.__name__ if isinstance(missing, ModuleType) else None
    if isinstance(error, ImportError):
        module = error.name
    if not f"{module}.".startswith("raysslprune."):
        return None
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _ours(frame.filename)]
    for node in _imports(frames[-1].filename) if frames else ():
        at_fault = (
            node.lineno <= (frames[-1].lineno or 0) <= (node.end_lineno or 0)
            if isinstance(error, ImportError)
            else module in _modules(node)
        )
        line = new_line(node) if at_fault else None
        if line:
            return f"{_shown(frames[-1].filename)}, line {node.lineno}: version 0.2 has this elsewhere; write: {line}"
    return None


def _ours(file: str) -> bool:
    """Whether it is the package's, or Python's way to import."""
    return file.startswith("<") or Path(file).is_relative_to(Path(__file__).parent)


def _imports(file: str) -> Iterator[ast.Import | ast.ImportFrom]:
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def _modules(node: ast.Import | ast.ImportFrom) -> set[str]:
    """Names of the modules that it may import."""
    above = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
    return {f"{above}{alias.name}" for alias in node.names}


def _shown(file: str) -> str:
    """As it is called from the folder that a user is in."""
    near = os.path.relpath(file)
    return file if near.startswith(os.pardir) else near
