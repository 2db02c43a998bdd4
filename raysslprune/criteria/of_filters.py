"""Criteria of whole filters: each weight's part in its filter's score, which is the sum over the filter."""

from __future__ import annotations

from raysslprune.criteria import State
from raysslprune.masks import Scores
from raysslprune.models import Network
from raysslprune.models.channels import norms


def l2(state: State) -> Scores:
    """w². The sum over a filter ranks filters as its Euclidean norm does (He et al. 2018,
    https://arxiv.org/abs/1808.06866). With ``magnitude`` the sum is the L1 norm (Li et al. 2017).
    """
    return {name: weight.double().square() for name, weight in state.weights.items()}


def batchnorm(state: State) -> Scores:
    """The magnitude of the scale in the BatchNorm after the filter, in equal parts for its weights (Liu et al. 2017,
    https://arxiv.org/abs/1708.06519). A layer without such a scale has no scores.
    """
    net = state.network()
    assert isinstance(net, Network)
    parameters = dict(net.trunk.named_parameters())
    after = norms(net.trunk, state.image)
    scores = {}
    for name, norm in after.items():
        weight, scale = state.weights[name], parameters[f"{norm}.weight"].detach().double().abs()
        scores[name] = (scale / weight[0].numel()).view(-1, *[1] * (weight.ndim - 1)).expand_as(weight)
    return scores
