"""A criterion that needs neither data nor loss."""

from __future__ import annotations

import torch

from raysslprune.criteria import State
from raysslprune.masks import Scores
from raysslprune.models import Network, prunable


def synflow(state: State) -> Scores:
    """Synaptic flow: |w ∂R/∂w| where R is the sum of the outputs for an image of ones, and all parameters are replaced
    by their magnitudes (Tanaka et al. 2020, https://arxiv.org/abs/2006.05467, equation 2).

    To be used in many passes within one state (100 in the paper); one pass may empty layers. As in the authors' code
    (https://github.com/ganguli-lab/Synaptic-Flow) the network is whole and in evaluation mode; here also in float64. So
    BatchNorm multiplies by |scale| / sqrt(running variance) and adds |shift|. Running means are taken as 0, as they are
    at initialisation; the authors' code would subtract their magnitudes, and R would not grow with each weight.
    """
    net = state.network().double().eval()
    assert isinstance(net, Network)
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.abs_()
        for name, buffer in net.named_buffers():
            if name.endswith("running_mean"):
                buffer.zero_()
    net(torch.ones(1, *state.image, dtype=torch.float64)).sum().backward()
    scores: dict[str, torch.Tensor] = {}
    for name, weight in prunable(net.trunk).items():
        assert weight.grad is not None
        scores[name] = (weight.detach() * weight.grad).abs()
    return scores
