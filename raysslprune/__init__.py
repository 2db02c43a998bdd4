"""Pruning convolutional networks with and without labels: distributed sweeps from one command to the paper's figure."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raysslprune.subnetwork import load_subnetwork as load_subnetwork

__version__ = "0.1.0"

# Ray reads these when it is imported, so they must stand before any module of this package imports it.
_RAY = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` builds a new environment in every worker
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_task_events_max_num_task_in_gcs": "10000",  # that the dashboard knows of; 100,000 would be 300 MB
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",  # else Tune itself starts a trial again, and tells nobody
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # the dashboard shows shared trainings
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how late the end of a shared training is seen; default 2
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "1800",  # a cluster may have to grow first; default 60
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing about a sweep is sent to anybody
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # ReadyJobs bounds them; a lower bound here starves starting actors
}
for _name, _value in _RAY.items():
    os.environ.setdefault(_name, _value)


def __getattr__(name: str) -> Any:
    """``load_subnetwork``, found when it is asked for: it needs torch, whose import takes seconds."""
    if name == "load_subnetwork":
        from raysslprune.subnetwork import load_subnetwork

        return load_subnetwork
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
