"""``raysslprune analysis``: what the masks of a sweep keep of each layer, and how much they have in common."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from raysslprune.commands.common import Parser, reports_errors
from raysslprune.kinds import kind_of
from raysslprune.messages import FAILED, MAX_SEEDS, note, say, sweep_command
from raysslprune.paper import scalefile
from raysslprune.paper.scales import SETTINGS, given
from raysslprune.present import present_masks
from raysslprune.results.overlap import Placed, placed
from raysslprune.store.record import Damaged, StoreError
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import Sweep, SweepError, known, load, refusing


@reports_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    store = Store(options.root)
    new = store.is_new()
    scale = scalefile.scale(options.scale, options.set)
    seeds = options.seeds or _seeds(options.sweep, scale, store)
    sweep = load(options.sweep, scale, seeds)
    masks = _placed(sweep)
    records, damaged = ({}, []) if new else store.survey(dict.fromkeys(mask.mask.id for mask in masks))
    more = seeds if seeds != SETTINGS[scale].seeds else None
    makes = sweep_command(options.sweep, given(scale), options.root, more)
    for damage in damaged:
        note(f"mask {damage.step_id}: {damage.why}; it is left out; to make it again, run: {makes}")
    done = [mask for mask in masks if mask.mask.id in records]
    if not done:
        raise StoreError(f"no mask of {sweep.name} is in {store.shown} yet; to make them, run: {makes}")
    missing = [mask for mask in masks if mask.mask.id not in records]
    if missing and not kind_of(sweep).chooses:  # a search makes only the masks that it chooses
        how_many = f"{len(missing)} of {len(masks)} masks are not there yet"
        note(f"{how_many}, the first of them {missing[0]}; to make them, run: {makes}")
    try:
        faults = present_masks(sweep, scale, done, store)
    except Damaged as damage:
        raise StoreError(f"mask {damage.step_id}: {damage.why}; to make it again, run: {makes}") from None
    for fault in faults:
        say(fault, FAILED)
    return FAILED if faults else 0


def _seeds(name: str, scale: str, store: Store) -> int:
    """Return the number of seeds that have masks of their own in the store, but at least the scale's.

    A mask that all seeds share, such as an imported one, says nothing about the number of seeds.
    """
    seeds = SETTINGS[scale].seeds
    while seeds < MAX_SEEDS:
        masks = _placed(load(name, scale, seeds + 1))
        shared = {mask.mask.id for mask in masks if mask.seed < seeds}
        own = {mask.mask.id for mask in masks if mask.seed == seeds} - shared
        if not any(store.has(f"steps/{mask_id}/SUCCESS") for mask_id in own):
            break
        seeds += 1
    return seeds


def _placed(sweep: Sweep) -> list[Placed]:
    """Return the masks of a sweep with their places. Raises SweepError if there are none."""
    with refusing(sweep.name):
        masks = placed(sweep.points)
    if not masks:
        raise SweepError(f"{sweep.name} has no masks: it prunes nothing")
    return masks


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="raysslprune analysis",
        description="Compare the masks of a sweep: how much of each layer they keep, and how much they have in common. "
        "Trains nothing.",
        examples=["raysslprune analysis fig3", "raysslprune analysis fig3 --seeds 3"],
        codes="0 all is done; 1 there is no mask, or a figure or the store failed; 2 a wrong call or sweep file",
    )
    parser.add_argument("sweep", metavar="SWEEP", help=f"{', '.join(known())}, or a .py file of your own")
    parser.add_scale("the sweep")
    parser.add_seeds("all that have masks")
    parser.add_root()
    return parser
