"""Criteria that need gradients of the task's own loss, with the training's own views of the images.

For Taylor and GraSP the network is in training mode, so BatchNorm normalises by the statistics of each batch, as in the
code of GraSP's authors (https://github.com/alecwangcq/GraSP). For SNIP it is in evaluation mode, as in the code of its
authors (https://github.com/namhoonlee/snip-public): at initialisation BatchNorm changes nothing, since running means
are 0 and variances 1. The arithmetic is float32.
"""

from __future__ import annotations

import torch

from raysslprune.criteria import State
from raysslprune.masks import Scores


def taylor(state: State) -> Scores:
    """The mean over batches of (g w)², the first-order change of the loss without the weight, squared (Molchanov et al.
    2019, https://arxiv.org/abs/1906.10771, equation 8). g: the gradient of a batch's mean loss.
    """
    total = {name: torch.zeros_like(weight, dtype=torch.float64) for name, weight in state.weights.items()}
    for share, gradients in state.batch_gradients():
        for name, weight in state.weights.items():
            total[name] += share * (gradients[name].double() * weight).square()
    return total


def snip(state: State) -> Scores:
    """|g w|, the sensitivity of the loss to the connection (Lee et al. 2019, https://arxiv.org/abs/1810.02340,
    equations 5 and 6). g: the gradient over all samples. Their division by the sum of all scores changes no rank.
    """
    gradients = state.mean_gradients(training=False)
    return {name: (gradients[name].double() * weight).abs() for name, weight in state.weights.items()}


def grasp(state: State) -> Scores:
    """w (H g), by which the weight adds to the gradient's norm (Wang et al. 2020, https://arxiv.org/abs/2002.07376).

    The paper's score S = -w (H g) (equation 8) is of removal: weights with the largest S go. So this is -S, signed: the
    weights with the most negative scores, whose removal increases the gradient flow, go first. H: the Hessian of
    the mean loss over all samples. The authors' code also divides the outputs by a temperature of 200, and draws linear
    layers anew; here loss and weights are the task's own.
    """
    product = state.hessian_times(state.gradients)
    return {name: product[name].double() * weight for name, weight in state.weights.items()}
