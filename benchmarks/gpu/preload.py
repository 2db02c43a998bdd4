"""What every part imports, imported once by the server that processes are forked from. Nothing here touches a GPU."""

from __future__ import annotations

import torch._dynamo  # which the first optimiser of a process imports, for seconds
import torchvision

from raysslprune import data, models, tasks
from raysslprune.evaluate import metrics
from raysslprune.training import loop

__all__ = ["data", "loop", "metrics", "models", "tasks", "torch", "torchvision"]
