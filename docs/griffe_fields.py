"""Show the parameters and fields that a docstring explains, ``name: text``, as a list."""

from __future__ import annotations

import re
from typing import Any

import griffe


class Fields(griffe.Extension):
    def on_object(self, *, obj: Any, **_: Any) -> None:
        if not obj.docstring or not (obj.is_class or obj.is_function):
            return
        parameters = obj.parameters if obj.is_function or obj.is_class else ()
        names = {parameter.name.strip("*") for parameter in parameters} | set(obj.members)
        obj.docstring.value = as_list(obj.docstring.value, names)


def as_list(docstring: str, names: set[str]) -> str:
    """Make an item of a list of each ``name: text``, at the beginning of a line or after a sentence."""
    known = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    if not known:
        return docstring
    name = rf"(?:{known})(?:\[\w+\])?"
    explained = re.compile(rf"(?:^|(?<=\. )|(?<=\.\n))({name}(?:, {name})*): ", re.M)
    paragraphs = []
    for paragraph in docstring.split("\n\n"):
        first, *rest = explained.split(" ".join(paragraph.split()) if explained.search(paragraph) else paragraph)
        items = [f"- **{names}**: {text.strip()}" for names, text in zip(rest[::2], rest[1::2], strict=True)]
        paragraphs += [first.strip()] * bool(first.strip()) + ["\n".join(items)] * bool(items)
    return "\n\n".join(paragraphs)
