"""Tasks that networks are trained on: their views, losses and metrics.

To add a task, write a ``Task`` in a file here, and a line in ``catalogue.TASKS`` and its options in ``catalogue``.
"""

from __future__ import annotations

from raysslprune import catalogue
from raysslprune.catalogue import made
from raysslprune.spec import Options
from raysslprune.tasks.task import Task


def find(name: str, options: Options = ()) -> Task:
    """A task with a recipe's options. Raises ValueError for an unknown name, an unknown option or a wrong value."""
    kind: type[Task] = catalogue.resolve("task", catalogue.TASKS, name)
    return made(name, kind, options)
