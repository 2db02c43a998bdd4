"""``raysslprune analysis``: what the masks behind a sweep keep of each layer, and how much they share."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from raysslprune.commands.common import Parser, count, reports_errors
from raysslprune.messages import FAILED, MAX_SEEDS, SCALE, STOPPED, USAGE, say, sweep_command
from raysslprune.paper.scales import SETTINGS
from raysslprune.present import present_masks
from raysslprune.results.overlap import Placed, placed
from raysslprune.store.record import Damaged, StoreError
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep, SweepError, known, load
from raysslprune.sweepfile import Search


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except KeyboardInterrupt:
        return say("stopped", STOPPED)
    except SweepError as error:
        return say(str(error), USAGE)
    except (StoreError, OSError) as error:
        return say(str(error), FAILED)


def _run(options: argparse.Namespace) -> int:
    store = Store(options.root)
    new = store.is_new()
    seeds = options.seeds or _seeds(options.sweep, options.scale, store)
    sweep = load(options.sweep, options.scale, seeds)
    masks = _placed(sweep)
    records, damaged = ({}, []) if new else store.survey(dict.fromkeys(mask.mask.id for mask in masks))
    there = [mask for mask in masks if mask.mask.id in records]
    more = seeds if seeds != SETTINGS[options.scale].seeds else None
    makes = sweep_command(options.sweep, options.scale, options.root, more)
    for damage in damaged:
        say(f"mask {damage.step_id}: {damage.why}; it is left out, and made again by: {makes}", 0)
    if not there:
        return say(f"no mask of {sweep.name} is in {store.shown} yet; this makes them: {makes}", FAILED)
    lacking = [mask for mask in masks if mask.mask.id not in records]
    if lacking and not isinstance(sweep.drawing, Search):  # which makes only what it chooses
        count = f"{len(lacking)} of {len(masks)} masks are not there yet"
        say(f"{count}, the first of them {lacking[0]}; this makes them: {makes}", 0)
    try:
        return present_masks(sweep, options.scale, there, store)
    except Damaged as damage:
        return say(f"mask {damage.step_id}: {damage.why}; this makes it again: {makes}", FAILED)


def _seeds(name: str, scale: str, store: Store) -> int:
    """As many as the store has masks of, but at least the scale's."""
    seeds = SETTINGS[scale].seeds
    while seeds < MAX_SEEDS:
        more = _placed(load(name, scale, seeds + 1))
        if not any(store.has(f"steps/{mask.mask.id}/SUCCESS") for mask in more if mask.seed == seeds):
            break
        seeds += 1
    return seeds


def _placed(sweep: Sweep) -> list[Placed]:
    """Raises SweepError where there is nothing to look at."""
    try:
        masks = placed(sweep.points)
    except ValueError as error:
        raise SweepError(f"{sweep.name}: {error}") from error
    if not masks:
        raise SweepError(f"there are no masks behind {sweep.name}: nothing is pruned for it")
    return masks


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raysslprune analysis",
        description="What the masks behind a sweep keep of each layer, and how much they share. Trains nothing.",
        examples=["raysslprune analysis fig3", "raysslprune analysis fig3 --seeds 3"],
        codes="0 all is done; 1 no mask is there, or a figure or the store failed; 2 a wrong call or sweep file; "
        "130 Ctrl-C",
    )
    parser.add_argument("sweep", metavar="SWEEP", help=f"{', '.join(known())}, or a .py file of your own")
    parser.add_argument("--scale", default=SCALE, choices=list(SETTINGS), help=f"which (default: {SCALE})")
    parser.add_argument("--seeds", type=count, metavar="N", help="seeds 0 to N-1 (default: all that are there)")
    parser.add_root()
    return parser
