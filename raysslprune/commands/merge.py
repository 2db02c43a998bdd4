"""``raysslprune merge ROOT... --into ROOT``: copy the finished steps of several roots into one."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from raysslprune.commands.common import Parser, reports_errors
from raysslprune.messages import FAILED, USAGE, UserError, note, say
from raysslprune.store.lock import Holder
from raysslprune.store.merge import BEHIND, CONFLICT, DAMAGED, LOST, Outcome, counted, merge
from raysslprune.store.steps import Store

SHOWN = 3
"""Number of conflicts and of damaged steps that are named; the others are counted."""


@reports_errors(stopped="stopped; the same command goes on")
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    into = Store(options.into)
    sources = [Store(root) for root in dict.fromkeys(options.roots)]
    _check(sources, into)
    into.create()
    lost = 0
    with into.lock() as lock:
        if lock.lockless:
            note(lock.lockless)
        for source in sources:
            if running := _running(source):
                note(f"a sweep ({running}) is running on {source.shown}: only its finished steps are merged")
            outcomes = merge(source, into, lock.check)
            print(f"{source.shown}: {_in_words(outcomes)}")
            for sentence in _complaints(outcomes, source.shown, into.shown):
                say(sentence, FAILED)
            lost += sum(one.kind in LOST for one in outcomes)
    print(
        f"merged into {into.shown}; to write the tables, run the sweeps with this root: nothing of it is trained again"
    )
    return FAILED if lost else 0


def _check(sources: Sequence[Store], into: Store) -> None:
    """Raise an error unless all sources are roots, and none is the target. Writes nothing."""
    for source in sources:
        if source.path("") == into.path(""):
            raise UserError(f"{source.shown} can't be merged into itself; name another root after --into", code=USAGE)
        if source.is_new():
            raise UserError(
                f"there are no results in {source.shown}; each ROOT must be a folder that a sweep has filled"
            )
    into.is_new()  # raises an error for a folder with other files


def _running(store: Store) -> Holder | None:
    """Return the sweep that runs on a root, None if none does."""
    holder, alive = store.holder()
    return holder if alive else None


def _in_words(outcomes: Sequence[Outcome]) -> str:
    return ", ".join(f"{count:,} {kind}" for kind, count in counted(outcomes).items()) or "no finished steps"


def _complaints(outcomes: Sequence[Outcome], source: str, into: str) -> Iterator[str]:
    """Yield a sentence for each reason not to have merged steps."""
    damaged = [f"step {one.step}: {one.why}" for one in outcomes if one.kind == DAMAGED]
    conflicts = [f"step {one.step}: {one.why}" for one in outcomes if one.kind == CONFLICT]
    behind = sum(one.kind == BEHIND for one in outcomes)
    if damaged:
        yield (
            f"damaged in {source}, and not merged: {_some(damaged)}; the next sweep that needs them makes them again"
        )
    if conflicts:
        made = f"{behind:,} steps that were made from these are" if behind > 1 else "1 step that was made from these is"
        more = f", and {made} not merged" if behind else ""
        yield (
            f"other results in {into} and {source}, as of another kind of GPU or version of PyTorch: {_some(conflicts)}"
            f"; those of {into} stay{more}"
        )


def _some(sentences: Sequence[str]) -> str:
    """Join the first few sentences, and count the others."""
    rest = len(sentences) - SHOWN
    return "; ".join([*sentences[:SHOWN], *([f"and {rest:,} more"] if rest > 0 else [])])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raysslprune merge",
        description="Copy the finished steps of several roots into one. Steps that are there stay; results that differ "
        "are reported, and never replaced.",
        examples=["raysslprune merge runs-a /mnt/b/runs --into runs", "raysslprune merge s3://bucket/runs --into runs"],
        codes="0 all is merged; 1 some steps differ or are damaged, or a root can't be used; 2 a wrong call",
    )
    parser.add_argument("roots", nargs="+", metavar="ROOT", help="roots to copy from; they stay as they are")
    parser.add_argument("--into", required=True, metavar="ROOT", help="root to copy to: new, or one that sweeps filled")
    return parser
