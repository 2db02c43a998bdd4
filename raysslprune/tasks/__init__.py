"""What a network is trained on: the views, the loss and the metric of a task.

A new task is a ``Task`` in a file here and a line in ``names.TASKS``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from raysslprune import names
from raysslprune.spec import Option
from raysslprune.tasks.task import Task


def find(name: str, options: Iterable[tuple[str, Option]] = ()) -> Task:
    """A task, with a recipe's options. Raises ValueError for a name, an option or a value that it does not know."""
    kind: type[Task] = names.resolve("task", names.TASKS, name)
    known = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for option, value in options:
        if option not in known:
            raise ValueError(f"task {name} has no option {option!r}, only {', '.join(known) or 'none at all'}")
        wanted = type(known[option].default)
        if type(value) is not wanted and not (wanted is float and type(value) is int):
            raise ValueError(f"option {option} of task {name} is of type {wanted.__name__}, not {value!r}")
    return kind(**dict(options))
