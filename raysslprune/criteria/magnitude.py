"""Criteria that need weights only: how large they are, and how far they have moved."""

from __future__ import annotations

from raysslprune.criteria import State
from raysslprune.masks import Scores


def magnitude(state: State) -> Scores:
    """|w| (Han et al. 2015, https://arxiv.org/abs/1506.02626)."""
    return {name: weight.abs() for name, weight in state.weights.items()}


def relative_magnitude(state: State) -> Scores:
    """|w| over the Euclidean norm of the weights left in its layer: layers of any scale can be ranked together.

    0 in a layer whose weights are all 0. The norm is summed in float64.
    """
    norms = {name: weight.double().norm() for name, weight in state.weights.items()}
    return {name: (weight.double().abs() / norms[name]).nan_to_num(0.0) for name, weight in state.weights.items()}


def movement(state: State) -> Scores:
    """|w - w0|, with w0 from the state that the movement is counted from ("movement" in Zhou et al. 2019,
    https://arxiv.org/abs/1905.01067; not the gradient times weight of Sanh et al. 2020).
    """
    earlier = state.earlier()
    return {name: (weight - earlier[name]).abs() for name, weight in state.weights.items()}
