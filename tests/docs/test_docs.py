"""What the documents show: every command is one that the parsers take, and every message one that the code says."""

from __future__ import annotations

import argparse
import ast
import functools
import re
import shlex
import subprocess
from collections.abc import Iterator
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmarks
from benchmarks.gpu import __main__ as gpu
from benchmarks.gpu import table
from raysslprune import __main__ as command
from raysslprune.sweep_loader import known
from tests.helpers import CHECKOUT

PROJECT = CHECKOUT
DOCS = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
TEXT = {path.name: path.read_text() for path in DOCS}
BY_MODULE = {"raysslprune": "", "raysslprune.sweep": "sweep", "benchmarks": "benchmarks"}
BY_MODULE |= {name: name for name in ("benchmarks.gpu", "benchmarks.gpu.table")}
"""What `python -m` is given, and the command that it is."""

OWN = {
    "bites.py": "README.md",
    "pretrained.py": "export.md",
    "rewinding.py": "question-to-sweep.md",
    "stripes.py": "extending.md",
}
"""Sweep files that a document has the reader write, and which document. Other tests run them."""

ELSEWHERE = {
    ".": "",
    "aws": "needs an account with Amazon",
    "cd": "",
    "docker": "not a program of the environment; tests/docs/test_places.py reads the Dockerfile",
    "echo": "",
    "export": "",
    "for": "",
    "helm": "needs a Kubernetes",
    "jq": "not a program of the environment",
    "kubectl": "needs a Kubernetes; tests/docs/test_places.py reads the manifest",
    "ls": "",
    "mkdir": "",
    "nvidia-cuda-mps-control": "needs a GPU",
    "openssl": "",
    "pip": "the set-up, which .ci/run does by the README's own command",
    "pre-commit": "its configuration is checked by test_packaging.py; it was run by hand",
    "prometheus": "not a program of the environment; docs/monitoring.md says with which version it was run",
    "python": "a module that is not ours: venv, pytest, ruff, pyright; .ci/run runs them",
    "ray": "starts, asks or stops a cluster: tests/ray/test_ray_up.py, and the last test of this file",
    "sbatch": "needs a Slurm: tests/ray/test_slurm.py",
    "split": "",
    "squeue": "needs a Slurm, as sbatch",
    "srun": "needs a Slurm, and Apptainer",
    "ssh": "needs other machines: tests/ray/test_ray_up.py",
    "tail": "",
    "tar": "",
    "torchrun": "starts python -m benchmarks.gpu several times: tests/unit/benchmarks/test_gpu.py",
    "uv": "the set-up, as pip",
}
"""Programs in the documents' shell blocks that are not ours, and why they are not run here; '': plain shell."""


def spans(text: str) -> list[str]:
    """Code within a line, which may be broken into two."""
    outside = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", outside)]


def blocks(text: str) -> list[str]:
    """What is to be typed: fenced as sh; or indented by four, where that is a command and not a drawing."""
    fenced = re.findall(r"^```sh\n(.*?)^```$", text, re.M | re.S)
    indented = re.findall(r"(?<=\n\n)((?:    .*\n)+)", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
    return fenced + [block for block in indented if re.match(r"    (python|ray|raysslprune)\b", block)]


def commands(text: str) -> Iterator[list[str]]:
    """The simple commands of a piece of shell, those in quotes too, without assignments and keywords."""
    text = re.sub(r"(^|\s)#.*$", "", text.replace("\\\n", " "), flags=re.M)
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";|&()<>\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t", True, ""
    words: list[str] = []
    redirected = False
    for token in [*lexer, "\n"]:
        if redirected:
            redirected = False
        elif not set(token) <= set(";|&()<>\n"):
            words.append(token)
        elif set(token) <= set("<>"):
            redirected = True
        else:
            while words and (re.match(r"\w+=", words[0]) or words[0] in ("do", "done", "then", "fi", "{", "}")):
                words = words[1:]
            if words:
                yield words
                for word in words:
                    if re.search(r"raysslprune[\w.]* |raysslprune$", word) and " " in word:
                        yield from commands(word)
            words = []


def ours(words: list[str]) -> tuple[str, list[str]] | None:
    """A command of ours, as its name ('' for raysslprune itself) and its arguments."""
    program = words[0].rpartition("/")[2]
    if program == "raysslprune":
        if len(words) > 1 and words[1] in command.COMMANDS:
            return words[1], words[2:]
        return "", words[1:]
    if program == "python" and words[1:2] == ["-m"] and words[2].partition(".")[0] in ("raysslprune", "benchmarks"):
        assert words[2] in BY_MODULE, f"{words[2]} is no command"
        return ours(["raysslprune", *words[3:]]) if words[2] == "raysslprune" else (BY_MODULE[words[2]], words[3:])
    return None


def shown() -> dict[tuple[str, str], tuple[str, list[str]]]:
    """Every command of ours in the documents: (document, as it stands there) to name and arguments."""
    found: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for document, text in TEXT.items():
        inline = [
            s
            for s in spans(text)
            if re.match(r"(\.venv/bin/)?(python -m (raysslprune[\w.]*|benchmarks[\w.]*)|raysslprune) \S", s)
        ]
        for piece in [*blocks(text), *inline]:
            for words in commands(piece):
                call = ours(words)
                if call is not None:
                    found[document, shlex.join(words)] = call
    return found


SHOWN = shown()


def test_commands_are_found_wherever_they_stand() -> None:
    documents = {document for document, _ in SHOWN}
    assert {"README.md", "cluster.md", "data.md", "performance.md", "faq.md", "troubleshooting.md"} <= documents
    names = {name for name, _ in SHOWN.values()}
    assert {"sweep", "check", "benchmarks", "results", "report", "export", ""} <= names
    text = """
A=1 python -m raysslprune.sweep fig3 --seeds 3 > log  # three
for x in 1 2; do raysslprune check $x \\
    --skip-broken; done
ray exec c.yaml 'cd x && python -m raysslprune.sweep "my file.py"' | cat
"""
    assert [call for words in commands(text) if (call := ours(words))] == [
        ("sweep", ["fig3", "--seeds", "3"]),
        ("check", ["$x", "--skip-broken"]),
        ("sweep", ["my file.py"]),
    ]


def parser_of(name: str) -> argparse.ArgumentParser:
    if name.startswith("benchmarks"):
        return {"benchmarks": benchmarks, "benchmarks.gpu": gpu, "benchmarks.gpu.table": table}[name]._parser()
    return command.load(name)._parser() if name else command._parser()


@pytest.mark.parametrize(("document", "line"), SHOWN, ids=[" ".join(key) for key in SHOWN])
def test_a_command_is_taken(document: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    name, arguments = SHOWN[document, line]
    parser = parser_of(name)
    try:
        options = parser.parse_args(arguments)
    except SystemExit as end:
        if end.code or not {"--help", "--version"} & set(arguments):
            pytest.fail(capsys.readouterr().err)
        return
    given = [*getattr(options, "sweeps", []), *filter(None, [getattr(options, "sweep", None)])]
    for sweep in given if not name.startswith("benchmarks") else []:
        assert sweep in {*known(), "all"} or sweep in OWN or (PROJECT / sweep).is_file()


def test_files_of_ones_own_are_where_they_are_said_to_be() -> None:
    for name, document in OWN.items():
        assert re.search(rf"```python {name}|[Ss]ave it as `{name}`", TEXT[document])


@pytest.mark.parametrize("document", TEXT)
def test_what_is_typed_is_shell_and_each_program_is_accounted_for(document: str) -> None:
    for block in blocks(TEXT[document]):
        assert subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True).stderr == ""
        for words in commands(block):
            if ours(words) is None:
                assert words[0].rpartition("/")[2].removesuffix("3") in ELSEWHERE, f"{words[0]} in {document}"


def test_no_program_is_accounted_for_in_vain() -> None:
    used = {w[0].rpartition("/")[2].removesuffix("3") for t in TEXT.values() for b in blocks(t) for w in commands(b)}
    assert set(ELSEWHERE) <= used


HARMLESS = ("--dry-run", "--help", "--version")
MINE = ("faq.md", "troubleshooting.md", "comparison.md", "CONTRIBUTING.md")


@pytest.mark.parametrize(
    "arguments",
    [[name, *given] for (document, _), (name, given) in SHOWN.items() if document in MINE and set(HARMLESS) & {*given}],
    ids=" ".join,
)
def test_what_only_looks_is_run(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    try:
        code = command.main([word for word in arguments if word])
    except SystemExit as end:
        code = end.code
    assert code == 0
    assert list(tmp_path.iterdir()) == []


def test_the_size_of_a_root_is_what_the_dry_run_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ((line, size),) = re.findall(r"`raysslprune ([^`]*--dry-run)` says it beforehand: ([\d.]+ MB)", TEXT["faq.md"])
    monkeypatch.chdir(tmp_path)
    assert command.main(line.split()) == 0
    assert f"about {size} when all is done" in capsys.readouterr().out


# ------------------------------------------------------------------------------------- links


def anchors(text: str) -> set[str]:
    """Of a document's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", head.replace("`", "")).strip().lower().replace(" ", "-") for head in heads}


def test_the_map_has_each_room_in_its_own_words() -> None:
    """A folder or module of the package by its path, with the first paragraph of its docstring."""
    package = PROJECT / "raysslprune"
    rooms = {f"{path.name}/": path / "__init__.py" for path in package.iterdir() if (path / "__init__.py").exists()}
    rooms |= {path.name: path for path in package.glob("*.py")}
    told = {
        name: (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0].replace("``", "`").rstrip(".")
        for name, path in rooms.items()
    }
    shown = re.findall(r"^\| \[`(.+?)`\]\(\.\./raysslprune/.+?\) \| (.+) \|$", TEXT["design.md"], re.M)
    assert dict(shown) == told
    assert len(shown) == len(told)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+://", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there.read_text()), target


# ------------------------------------------------------------------------------------- messages

SAID = (
    "SweepError",
    "ScaleError",
    "Unfit",
    "StoreError",
    "ClusterError",
    "DataError",
    "BrokenImage",
    "FloatingPointError",
    "UserError",
    "QueryError",
    "NoPicture",
)
"""Exceptions whose text is for the user, as it is."""


def text_of(node: ast.expr) -> str | None:
    """A string, with … for what is filled in."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def sources(*folders: str) -> Iterator[tuple[str, ast.AST]]:
    for path in sorted(path for folder in folders for path in (PROJECT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            yield path.name, node


STRINGS = [
    text for _, node in sources("raysslprune", "benchmarks") if isinstance(node, ast.expr) and (text := text_of(node))
]


def raised() -> dict[str, str]:
    """Every message of SAID, to the file that it is in; but for those that hand on what another error says."""
    found: dict[str, str] = {}
    for file, node in sources("raysslprune"):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in SAID and node.args:
            text = text_of(node.args[0])
            if text and len(re.sub(r"\W", "", text)) > 8:
                found[text] = file
    return found


RAISED = raised()


def rows(heading: str) -> Iterator[list[str]]:
    """The cells of all rows of the tables of troubleshooting.md whose first heading this is."""
    wanted = False
    for line in TEXT["troubleshooting.md"].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            wanted = False
        elif wanted and not set(line) <= set("|- "):
            yield cells
        elif cells[0] == heading:
            wanted = True


def quoted() -> list[str]:
    """The messages that troubleshooting.md has."""
    sure = [span for cells in rows("it says") for span in spans(cells[0])]
    return sure + [span for cells in rows("what you see") for span in spans(cells[0]) if "…" in span]


QUOTED = quoted()


def words(text: str) -> list[str]:
    return re.findall(r"[\w'*.-]*\w", text.lower())


def shared(wanted: str, said: str) -> int:
    """How many words of the first stand in the second too, in the same order."""
    matcher = SequenceMatcher(None, words(wanted), words(said), autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks())


def enough(count: int, wanted: str) -> bool:
    """Two thirds of the words, so that a sentence may be reworded; of three words or fewer, all."""
    total = len(words(wanted))
    return count == total if total <= 3 else 3 * count >= 2 * total


def said(piece: str) -> int:
    """How many words of a piece of a message the code has in one string."""
    if any(piece in text for text in STRINGS):
        return len(words(piece))
    return max(shared(piece, text) for text in STRINGS)


def explained(message: str) -> bool:
    return any(words(row) and enough(shared(row, message), row) for row in QUOTED)


@pytest.mark.parametrize("message", QUOTED)
def test_the_code_says_what_troubleshooting_quotes(message: str) -> None:
    assert enough(sum(said(piece.strip()) for piece in message.split("…")), message)


@pytest.mark.parametrize("message", RAISED, ids=ascii)
def test_troubleshooting_has_what_the_code_says(message: str) -> None:
    assert explained(message), f"{RAISED[message]}: {message}"


def test_a_sentence_may_be_reworded_and_a_new_one_wants_its_row() -> None:
    assert explained("… can't be a line of …: please rename that file, or remove it")
    assert not explained("the moon is in the way of …; wait for the morning")
    assert not explained("the checkpoint of step … belongs to another network")


# ------------------------------------------------------------------------------------- promises

NAMED = re.findall(r"`((?:\w+/)+test_\w+)::(\w+)`(\*?)", TEXT["reliability.md"])


@functools.cache
def functions(name: str) -> dict[str, ast.FunctionDef]:
    """Of a file of tests."""
    tree = ast.parse((PROJECT / "tests" / f"{name}.py").read_text())
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


@functools.cache
def marks_of(name: str) -> str:
    """Of all tests of a file."""
    found = re.search(r"^pytestmark = (.*)$", (PROJECT / "tests" / f"{name}.py").read_text(), re.M)
    return found[1] if found else ""


@pytest.mark.parametrize(("file", "name", "star"), NAMED, ids=[f"{file}-{name}" for file, name, _ in NAMED])
def test_each_promise_has_its_test(file: str, name: str, star: str) -> None:
    """Starred where it is slow."""
    own = [ast.unparse(mark) for mark in functions(file)[f"test_{name}"].decorator_list]
    assert bool(star) == ("pytest.mark.slow" in own or "pytest.mark.slow" in marks_of(file))


def test_there_are_promises() -> None:
    assert len(NAMED) > 50
