"""Prune by any criterion: score the weights left, and keep the best."""

from __future__ import annotations

import torch

from raysslprune import criteria, masks
from raysslprune.criteria import filters
from raysslprune.masks import Pruned
from raysslprune.spec import Prune, survivors
from raysslprune.training.evidence import Evidence

PASSES = {"synflow": 100}
"""Prunings within one state by criterion, if a step does not say how many; for others 1."""


def prune(step: Prune, evidence: Evidence, scope: list[str], generator: torch.Generator) -> Pruned:
    """Prune what the evidence's mask leaves in the scope, in one pass or several. Raises ValueError for NaN."""
    left = masks.left(evidence.mask, scope)
    stay, passes = survivors(left, step.keep), step.passes or PASSES.get(step.criterion, 1)
    made = Pruned(evidence.mask, 0)
    for done in range(1, passes + 1):
        evidence = evidence.under(made.mask)
        count = stay if done == passes else max(stay, round(left * step.keep ** (done / passes)))
        made = _once(step, evidence, count, scope, generator)
    return made


def _once(step: Prune, evidence: Evidence, stay: int, scope: list[str], generator: torch.Generator) -> Pruned:
    mask = evidence.mask
    scores = criteria.scores(step.criterion, evidence)
    if step.unit == "filter":
        uniform = step.allocation == "uniform"
        return filters.prune(scores, mask, stay, evidence.spaces, generator, scope, uniform)
    if step.allocation == "lamp":
        inside = {name: mask[name] for name in mask if name in set(scope)}
        scores = masks.lamp(scores, inside, generator)
    if step.allocation in ("global", "lamp"):
        return masks.best(scores, mask, stay, generator, scope)
    return masks.best_in_layers(scores, mask, criteria.counts(mask, scope, stay, step.allocation), generator)
