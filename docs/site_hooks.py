"""Pages of the site whose files are outside of docs/: README, other texts, and the source that pages link to."""

from __future__ import annotations

import ast
import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(?<=\]\()(?!\w+:|#)([^)\s#]+)(?=[)#])")
"""Target of a link to a file, without its anchor."""

LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml"}


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each file outside of docs/ that is in the navigation or that a page links to."""
    waiting = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md"]
    for file in files.documentation_pages():
        waiting += linked(f"docs/{file.src_uri}", Path(file.abs_src_path).read_text())
    while waiting:
        path = waiting.pop()
        if files.get_file_from_path(page_of(path)):
            continue
        text = source_page(path)
        files.append(File.generated(config, page_of(path), content=text))
        waiting += linked(path, text) if path.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make links between files of the repository links between pages."""
    here = page.file.src_uri
    path = next((path for path in ("README.md", "tests/README.md") if page_of(path) == here), None)
    path = path or (here if (ROOT / here).exists() else f"docs/{here}")

    def moved(found: re.Match[str]) -> str:
        target = normpath(f"{PurePosixPath(path).parent}/{found[0]}")
        return relpath(page_of(target), PurePosixPath(here).parent.as_posix())

    return LINK.sub(moved, markdown)


def linked(path: str, text: str) -> list[str]:
    """Return the files outside of docs/ that a text links to, by their paths in the repository."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    targets = (normpath(f"{PurePosixPath(path).parent}/{target}") for target in LINK.findall(prose))
    return [target for target in targets if not target.startswith("docs/") and (ROOT / target).exists()]


def page_of(path: str) -> str:
    """Return the place in the site of a file of the repository."""
    if path == "README.md":
        return "index.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return path if path.endswith(".md") else f"source/{path}.md"


def source_page(path: str) -> str:
    """Return the page of a file, or of a folder: the first lines of its modules."""
    there = ROOT / path
    if there.is_dir():
        rows = [f"| `{file.name}` | {_summary(file)} |" for file in sorted(there.glob("*.py"))]
        return "\n".join([f"# {path}/", "", "| module | |", "|---|---|", *rows, ""])
    text = there.read_text()
    return text if path.endswith(".md") else f"# {path}\n\n````{LANGUAGES.get(there.suffix, 'text')}\n{text}````\n"


def _summary(path: Path) -> str:
    return " ".join((ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0].split()).replace(
        "``", "`"
    )
