"""Merge roots: copy the finished steps of one root into another, where nothing contradicts them.

A step has the same id wherever it was made, but not always the same bytes: a GPU, another version of PyTorch or another
number of workers rounds differently. Of two contents of a step, the merged root keeps its own, and takes nothing that
was made from the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter

from raysslprune.store.record import Damaged, Record
from raysslprune.store.steps import Store, parents_of

COPIED, COMPLETED, REPLACED, THERE = "copied", "completed", "replaced", "already there"
CONFLICT, BEHIND, DAMAGED = "in conflict", "made from steps in conflict", "damaged"
OUTCOMES = (COPIED, COMPLETED, REPLACED, THERE, CONFLICT, BEHIND, DAMAGED)
"""Outcomes of a step. Completed: it was there without some of its files, as a sweep with ``--keep needed`` leaves it.
Replaced: it was there, but damaged."""

LOST = (CONFLICT, BEHIND, DAMAGED)
"""Outcomes of steps that the merged root does not have as the other has them."""

AT_ONCE = 16
"""Number of steps that are copied at once: on an object store each takes several calls."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a step. why: of a conflict or a damage, the end of a sentence that begins with the step."""

    step: str
    kind: str
    why: str = ""


def merge(source: Store, into: Store, check: Callable[[], None]) -> list[Outcome]:
    """Copy the finished steps of one root into another, each after those that it was made from.

    ``into`` must be locked; ``source`` is not, because a finished step does not change: a sweep may run on it. An
    interruption at any point leaves whole steps only. check: called now and then; may raise an error to stop. Raises
    OSError if the root can't be written.
    """
    finished = [step for step, files in source.listing().items() if "SUCCESS" in files]
    records, damaged = source.survey(finished)
    theirs, unreadable = _parents(source, records)
    damaged += unreadable
    mine, broken = into.survey(records)
    merger = _Merger(source, into, mine, {damage.step_id for damage in broken})
    outcomes = {damage.step_id: Outcome(step=damage.step_id, kind=DAMAGED, why=damage.why) for damage in damaged}
    order = TopologicalSorter(theirs)
    order.prepare()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        while ready := order.get_ready():
            for start in range(0, len(ready), AT_ONCE):
                check()
                some = [records[step] for step in ready[start : start + AT_ONCE] if step in theirs]
                lost = [any(_is_other(outcomes.get(p)) for p in theirs[record.step]) for record in some]
                outcomes |= {one.step: one for one in pool.map(merger.take, some, lost)}
            order.done(*ready)
    return list(outcomes.values())


def _parents(source: Store, records: Mapping[str, Record]) -> tuple[dict[str, list[str]], list[Damaged]]:
    """Return the ids of the steps that each step was made from, and the steps whose description is damaged."""

    def read(step: str) -> list[str] | Damaged:
        try:
            return parents_of(source.spec(step))
        except Damaged as damage:
            return damage

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = dict(zip(records, pool.map(read, records), strict=True))
    whole = {step: parents for step, parents in found.items() if not isinstance(parents, Damaged)}
    return whole, [damage for damage in found.values() if isinstance(damage, Damaged)]


def _is_other(outcome: Outcome | None) -> bool:
    """Return whether the merged root has another content of a step than the root that was merged, or may get one."""
    return outcome is not None and outcome.kind in (CONFLICT, BEHIND)


@dataclass(frozen=True)
class _Merger:
    """mine: records of the steps of ``into`` that are intact. broken: ids of those that are damaged."""

    source: Store
    into: Store
    mine: Mapping[str, Record]
    broken: set[str]

    def take(self, record: Record, lost: bool) -> Outcome:
        """Compare or copy a step. lost: whether it was made from a step of which ``into`` has another content."""
        mine = self.mine.get(record.step)
        try:
            if mine is not None:
                return self._compared(mine, record)
            if lost:
                return Outcome(step=record.step, kind=BEHIND)
            return self._copied(record)
        except Damaged as damage:
            return Outcome(step=record.step, kind=DAMAGED, why=damage.why)

    def _compared(self, mine: Record, other: Record) -> Outcome:
        """Compare the results and files of a step that is in both roots, and add the files that ``into`` lacks."""
        if why := difference(mine, other):
            return Outcome(step=mine.step, kind=CONFLICT, why=why)
        more = {name: file for name, file in other.files.items() if name not in mine.files}
        if not more:
            return Outcome(step=mine.step, kind=THERE)
        self._write(replace(mine, files={**mine.files, **more}), self._read(other, more))
        return Outcome(step=mine.step, kind=COMPLETED)

    def _copied(self, record: Record) -> Outcome:
        data = self._read(record, record.files)  # which may fail, before anything is moved
        if broken := record.step in self.broken:
            self.into.set_aside(record.step)
        self._write(record, data)
        return Outcome(step=record.step, kind=REPLACED if broken else COPIED)

    def _read(self, record: Record, names: Iterable[str]) -> dict[str, bytes]:
        """Read files of a step, and verify their checksums. Raises Damaged."""
        return {name: self.source.artefact(record.step, name) for name in names}

    def _write(self, record: Record, data: Mapping[str, bytes]) -> None:
        """Write files of a step, then its SUCCESS."""
        for name, content in data.items():
            self.into.write(f"steps/{record.step}/{name}", content)
        self.into.write(f"steps/{record.step}/SUCCESS", record.to_bytes())


def difference(mine: Record, other: Record) -> str:
    """Return in what two contents of a step differ, as the end of a sentence; '' if they agree in all that both have.

    The facts of a run (time, host, versions) do not matter, nor does a file that one of them lacks.
    """
    for name in sorted(mine.metrics.keys() | other.metrics.keys()):
        one, two = (json.dumps(record.metrics.get(name)) for record in (mine, other))  # as text, NaN equals NaN
        if one != two:
            return f"{name} is {one} and {two}"
    for name in sorted(mine.files.keys() & other.files.keys()):
        if mine.files[name] != other.files[name]:
            return f"{name} differs"
    return ""


def counted(outcomes: Sequence[Outcome]) -> dict[str, int]:
    """Return the number of steps of each outcome that occurs, in the order of OUTCOMES."""
    kinds = [one.kind for one in outcomes]
    return {kind: kinds.count(kind) for kind in OUTCOMES if kind in kinds}
