"""A report as one HTML page: it loads nothing, and all text is escaped."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from raysslprune import report
from raysslprune.report.contents import Report
from raysslprune.report.drawing import inline


def render(contents: Report) -> str:
    """Return the page. Its content security policy has the hashes of its own style and script, and allows no others."""
    own = {name: files(report).joinpath(f"page.{name}").read_text("utf-8") for name in ("html", "css", "js")}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["drawn"] = _drawn
    return environment.from_string(own["html"]).render(
        report=contents,
        style=Markup(own["css"]),
        script=Markup(own["js"]),
        style_hash=_hash(own["css"]),
        script_hash=_hash(own["js"]),
    )


def _hash(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def _drawn(picture: tuple[str, bytes], prefix: str, alt: str) -> Markup:
    """Return a picture as an element. prefix: for the ids in an SVG, unique in the page."""
    kind, data = picture
    if kind == "image/svg+xml":
        return inline(data, prefix, alt)
    return Markup('<img src="data:{};base64,{}" alt="{}">').format(kind, base64.b64encode(data).decode(), alt)
