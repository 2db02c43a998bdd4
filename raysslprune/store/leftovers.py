"""Steps that nothing needs any more: find them in a root, and delete them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from raysslprune.store.record import Damaged
from raysslprune.store.steps import Store

TRAINING, MASK, UNFINISHED, CHECKPOINT = "trainings", "masks", "unfinished steps", "checkpoints"
KINDS = (TRAINING, MASK, UNFINISHED, CHECKPOINT)
"""Kinds of leftovers. A step is unfinished if it has files but no SUCCESS: its commit or deletion was interrupted."""

IMPORTED = ("Imported", "ImportedWeights")
"""Classes of steps that no job can make: ``spec.External``."""

AT_ONCE = 16
"""Number of leftovers that are deleted at once: on an object store each takes several calls."""


@dataclass(frozen=True, kw_only=True)
class Leftover:
    """A step, or the checkpoint of one, that is not needed. kind: one of KINDS. files: sizes in bytes, by name."""

    step: str
    kind: str
    files: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Leftovers:
    """What a root has beside the steps that are needed.

    unneeded: can be deleted. imported: ids of imported masks and weights, which no sweep can make again. unreadable:
    ids of steps whose spec.json can't be read, so that they may be imported. Neither of these is ever deleted.
    kept: number of steps that are needed only by tables. tables: names of these tables.
    """

    unneeded: Sequence[Leftover]
    imported: Sequence[str]
    unreadable: Sequence[str]
    kept: int = 0
    tables: Sequence[str] = ()


def find(store: Store, needed: Collection[str]) -> Leftovers:
    """Find the steps and checkpoints of a root whose ids are not among the needed ones. Changes nothing."""
    listing = {step: files for step, files in store.listing().items() if step not in needed}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        named = pool.map(lambda step: _kind(store, step, "SUCCESS" in listing[step]), listing)
        kinds = dict(zip(listing, named, strict=True))
    steps = [
        Leftover(
            step=step,
            kind=_group(kinds[step], "SUCCESS" in files),
            files={name: max(0, size) for name, (size, _) in files.items()},
        )
        for step, files in listing.items()
        if kinds[step] not in (*IMPORTED, None)
    ]
    checkpoints = {step: size for step, size in store.checkpoints().items() if step not in needed}
    return Leftovers(
        unneeded=[*steps, *(Leftover(step=i, kind=CHECKPOINT, files={i: size}) for i, size in checkpoints.items())],
        imported=[step for step, kind in kinds.items() if kind in IMPORTED],
        unreadable=[step for step, kind in kinds.items() if kind is None],
    )


def _group(kind: str | None, finished: bool) -> str:
    """Return which of KINDS a step belongs to. kind: the name of its class."""
    if not finished:
        return UNFINISHED
    return TRAINING if kind == "Train" else MASK


def _kind(store: Store, step: str, finished: bool) -> str | None:
    """Return the name of the step's class; '' if it has no spec.json and is unfinished, None if that is unreadable."""
    with suppress(Damaged, OSError, ValueError, KeyError, TypeError):
        if finished:
            return str(store.spec(step)["kind"])
        name = f"steps/{step}/spec.json"
        return str(json.loads(store.read(name))["kind"]) if store.has(name) else ""
    return None


def delete(store: Store, unneeded: Sequence[Leftover], check: Callable[[], None]) -> None:
    """Delete leftovers, so that an interruption at any point leaves every other step whole.

    check: called now and then; may raise an error to stop.
    """

    def remove(one: Leftover) -> None:
        if one.kind == CHECKPOINT:
            store.drop_checkpoint(one.step)
        else:
            store.delete(one.step)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, len(unneeded), AT_ONCE):
            check()
            list(pool.map(remove, unneeded[start : start + AT_ONCE]))
    store.forget(one.step for one in unneeded)
    store.remember()
