"""What a network is trained on: the views, the loss and the metric of a task.

A new task is a ``Task`` in a file here, a line in ``names.TASKS`` and its options in ``options.py``.
"""

from __future__ import annotations

from collections.abc import Iterable

from raysslprune import names
from raysslprune.options import made
from raysslprune.spec import Option
from raysslprune.tasks.task import Task


def find(name: str, options: Iterable[tuple[str, Option]] = ()) -> Task:
    """A task, with a recipe's options. Raises ValueError for a name, an option or a value that it does not know."""
    kind: type[Task] = names.resolve("task", names.TASKS, name)
    return made(name, kind, options)
