"""Temporary changes to the environment variables of this process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

LAUNCHER = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""What torchrun, Slurm scripts and Kubeflow set. Where all are set, Ray Train makes any process one of such a team."""


@contextmanager
def changed(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set these variables, or remove those that are None; at the end the environment is as it was before.

    Changes that are made meanwhile, as Ray makes some, are undone, too.
    """
    before = dict(os.environ)
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            os.environ.pop(name, None)
        os.environ.update(before)


def defaults(variables: Mapping[str, str]) -> dict[str, str]:
    """Those of these variables that are not set, or set to nothing."""
    return {name: value for name, value in variables.items() if not os.environ.get(name)}
