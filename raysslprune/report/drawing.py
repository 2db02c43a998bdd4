"""A figure as an element of the page, whose script shows the values of points and hides curves."""

from __future__ import annotations

import json
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

from markupsafe import Markup

ROUND = {"stroke-linejoin": "round", "stroke-linecap": "butt"}
"""Matplotlib's style of all elements, which it writes as a style sheet."""


def inline(svg: bytes, prefix: str, alt: str) -> Markup:
    """Return an SVG of ``figures.ink.save`` as an element of an HTML page. prefix: makes its ids unique in the page.

    Styles become attributes, since the page's security policy forbids styles. The identifiers of ``figures.ink`` become
    ``data-curve`` on each part of a curve and ``data-key`` on each entry of a legend; each point gets a title.
    """
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        given = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        given |= dict(part.split(": ") for part in given.pop("style", "").split("; ") if part)
        element.attrib.clear()
        element.attrib.update({name: _prefixed(name, value, prefix) for name, value in given.items()})
    for parent in [*root.iter()]:
        for child in [*parent]:
            if child.tag in ("metadata", "style"):
                parent.remove(child)
        if (parent.get("id") or "").startswith(f"{prefix}["):
            _name(parent, prefix)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.attrib.update({**ROUND, "role": "group", "aria-label": alt})
    return Markup(ElementTree.tostring(root, "unicode"))


def _prefixed(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return prefix + value
    return value.replace("#", f"#{prefix}", 1) if name == "href" or value.startswith("url(#") else value


def _name(group: Element, prefix: str) -> None:
    """Replace the id of a curve, or of its entry in the legend, with a data attribute; give its points titles."""
    kind, name, *tips = json.loads(group.attrib.pop("id").removeprefix(prefix))
    group.set(f"data-{kind}", name)
    points = [*group.iter("use")] or [group]
    for point, tip in zip(points, tips, strict=False):
        title = Element("title")
        title.text = tip
        point.insert(0, title)
