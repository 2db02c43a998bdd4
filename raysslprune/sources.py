"""Source files of tasks, networks and other code from outside the package: which of their versions made a step.

A step's identity has the name ``module:attribute``, not the code behind it. So the digests of the modules' files are
recorded with each step, and a sweep can say which finished steps were made by other code than today's.
"""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Collection, Iterable, Mapping
from functools import cache
from pathlib import Path

from raysslprune.catalogue import data_parts
from raysslprune.spec import External, Step, closure
from raysslprune.store.record import Record
from raysslprune.store.steps import Store

SOURCES = "sources"
"""Fact of a step that code from outside the package made, or what it was made from: ``{module: [SHA-256, ...]}``.

Steps that older versions of this package made lack this fact.
"""


def modules_of(step: Step) -> set[str]:
    """Return the modules that a step itself names, in its task, network, data set or criterion."""
    if isinstance(step, External):  # no code makes these
        return set()
    data = data_parts(getattr(step, "data", ""))[0]
    names = (*(getattr(step, field, "") for field in ("task", "arch", "criterion")), data)
    return {name.partition(":")[0] for name in names if ":" in name}


def file_of(module: str) -> Path | None:
    """Return a module's source file, without importing the module; None if it is not found here."""
    try:
        spec = importlib.util.find_spec(module)
    except Exception:  # a package's own code runs when its module is looked up
        return None
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def digest(module: str) -> str | None:
    """SHA-256 of a module's source file, in hexadecimal; None if the module is not found here."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest() if (file := file_of(module)) else None
    except OSError:
        return None


_at_import = cache(digest)
"""The digest of a module when this process first asked, as near as possible to the module's import."""


def remember(steps: Iterable[Step]) -> None:
    """Compute the digests for these steps before their modules are imported: the files may be edited later."""
    for step in steps:
        for module in modules_of(step):
            _at_import(module)


def of(step: Step, store: Store) -> dict[str, list[str]]:
    """Return the value of SOURCES for a step that this process makes; {} if no code from outside is involved.

    It includes what is recorded for the step's parents, so a step is known to descend from other code even if it names
    none itself. Raises Damaged for a parent's damaged record.
    """
    if not any(map(modules_of, closure([step]))):
        return {}
    found = {module: {own} for module in modules_of(step) if (own := _at_import(module))}
    for parent in step.parents:
        record = store.record(parent.id)
        known = of(parent, store) if record is None else record.facts.get(SOURCES, {})
        for module, digests in known.items():
            found.setdefault(module, set()).update(digests)
    return merged(found)


def merged(*found: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Join several values of SOURCES."""
    modules = sorted({module for one in found for module in one})
    return {module: sorted({digest for one in found for digest in one.get(module, ())}) for module in modules}


def changed(records: Mapping[str, Record]) -> dict[Path, set[str]]:
    """Return the files that have changed since finished steps were made by them, with the ids of these steps."""
    files: dict[str, tuple[Path | None, str | None]] = {}
    steps: dict[Path, set[str]] = {}
    for record in records.values():
        for module, digests in record.facts.get(SOURCES, {}).items():
            if module not in files:
                files[module] = file_of(module), digest(module)
            file, now = files[module]
            if file and now and set(digests) != {now}:
                steps.setdefault(file, set()).add(record.step)
    return steps


def descendants(steps: Iterable[Step], origins: Collection[str]) -> list[Step]:
    """Return those of the steps and their ancestors whose id is in ``origins`` or that descend from one; parents first.

    Imported steps are left out: nothing can make them again.
    """
    found: dict[Step, None] = {}
    for step in closure(steps):
        made = step.id in origins or any(parent in found for parent in step.parents)
        if made and not isinstance(step, External):
            found[step] = None
    return list(found)
