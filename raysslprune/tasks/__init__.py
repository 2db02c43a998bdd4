"""What a network is trained on: the views, the loss and the metric of a task.

A new task is a ``Task`` in a file here, a line in ``catalogue.TASKS``, and its options beside it.
"""

from __future__ import annotations

from collections.abc import Iterable

from raysslprune import catalogue
from raysslprune.catalogue import made
from raysslprune.spec import Option
from raysslprune.tasks.task import Task


def find(name: str, options: Iterable[tuple[str, Option]] = ()) -> Task:
    """A task, with a recipe's options. Raises ValueError for a name, an option or a value that it does not know."""
    kind: type[Task] = catalogue.resolve("task", catalogue.TASKS, name)
    return made(name, kind, options)
