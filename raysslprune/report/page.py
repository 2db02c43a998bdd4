"""A report as one HTML page: it loads nothing, and all text on it that came from elsewhere is escaped."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from raysslprune import report
from raysslprune.report.contents import Report
from raysslprune.results import claims

MARKS = {claims.HOLDS: "holds", claims.FAILS: "fails", claims.FEW: "few"}
"""Verdict to CSS class."""


def render(contents: Report) -> str:
    """The page. Only its own style and script run in it: their hashes are in its content security policy."""
    own = {name: files(report).joinpath(f"page.{name}").read_text("utf-8") for name in ("html", "css", "js")}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["data_uri"] = _data_uri
    return environment.from_string(own["html"]).render(
        report=contents,
        marks=MARKS,
        style=Markup(own["css"]),
        script=Markup(own["js"]),
        style_hash=_hash(own["css"]),
        script_hash=_hash(own["js"]),
    )


def _hash(source: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}"


def _data_uri(picture: tuple[str, bytes]) -> str:
    """An image of its own: in it no script runs, and its ids are not the page's."""
    kind, data = picture
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
