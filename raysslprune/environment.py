"""Temporary changes to the environment variables of this process."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables that torchrun, Slurm scripts and Kubeflow set. With all of them, Ray Train takes a process for a worker."""


@contextmanager
def changed(variables: Mapping[str, str | None]) -> Iterator[None]:
    """Set these variables, or remove those that are None; afterwards restore the whole environment.

    Changes that other code makes in between, as Ray does, are undone too.
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
            del os.environ[name]
        os.environ.update(before)


def defaults(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the given variables that are unset or empty in the environment."""
    return {name: value for name, value in variables.items() if not os.environ.get(name)}
