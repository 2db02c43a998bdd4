"""Pruning convolutional networks with and without labels: distributed sweeps from one command to the paper's figure."""

import os

# Ray reads these when it is imported, so they must stand before any module of this package imports it.
_RAY = {
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # else `uv run` builds a new environment in every worker
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "1",  # the dashboard shows shared trainings
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # how late the end of a shared training is seen; default 2
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing about a sweep is sent to anybody
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",  # ReadyJobs bounds them; a lower bound here starves starting actors
}
for _name, _value in _RAY.items():
    os.environ.setdefault(_name, _value)
