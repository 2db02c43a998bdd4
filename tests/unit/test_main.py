"""``raysslprune``: all commands under one name, help and exit codes."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from raysslprune import __main__ as command
from raysslprune import __version__
from tests.helpers import CHECKOUT

PROJECT = CHECKOUT
PACKAGE = PROJECT / "raysslprune"
Capture = pytest.CaptureFixture[str]


def call(*arguments: str) -> int:
    """The command in this process; gives its exit code."""
    try:
        return command.main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


def test_the_help_names_all_commands_and_exit_codes(capsys: Capture) -> None:
    assert call("--help") == 0
    said = capsys.readouterr().out
    for name, says in command.COMMANDS.items():
        assert re.search(rf"^    {name}\s+{re.escape(says[:20])}", said, re.M)
    assert "example: raysslprune sweep fig3" in said
    assert re.search("exit codes: 0 .*; 1 .*; 2 .*; 130 ", said)


def test_the_help_imports_nothing_that_takes_long() -> None:
    """It is there within a tenth of a second or two."""
    program = """
import sys
before = set(sys.modules)
from raysslprune.__main__ import main
try:
    main(["--help"])
finally:
    print("imported", *{name.partition(".")[0] for name in set(sys.modules) - before})
"""
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    names = set(run.stdout.rpartition("imported")[2].split())
    assert "raysslprune" in names
    assert {name for name in names - sys.stdlib_module_names if not name.startswith("_")} == {"raysslprune"}


def guarded() -> set[str]:
    """Modules that are programs: those that say what they do as ``__main__``."""
    found: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
                found.add(".".join(path.relative_to(PROJECT).with_suffix("").parts))
    return found


def test_every_program_of_the_package_is_a_command() -> None:
    """A module that did nothing when it is called by `python -m` would look as if all went well."""
    assert guarded() == {"raysslprune.sweep", "raysslprune.__main__"}


@pytest.mark.parametrize("name", command.COMMANDS)
def test_a_commands_help_is_its_parsers(name: str, capsys: Capture) -> None:
    assert call(name, "--help") == 0
    said = capsys.readouterr().out
    assert said == command.load(name)._parser().format_help()
    called = "python -m raysslprune.sweep" if name == "sweep" else f"raysslprune {name}"
    assert said.startswith(f"usage: {called} ")
    assert re.search(rf"^example: {re.escape(called)}\b", said, re.M)
    assert re.search("exit codes: 0 .*; 2 ", said)


@pytest.mark.parametrize("name", ["", *command.COMMANDS])
def test_the_version(name: str, capsys: Capture) -> None:
    assert call(*filter(None, [name]), "--version") == 0
    assert capsys.readouterr().out == f"raysslprune {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ([], "COMMAND"),
        (["--", "sweep"], "COMMAND"),
        (["fig3"], "'fig3' (choose from 'sweep', "),
        (["swee"], "'swee'"),
        (["--bogus"], "--bogus"),
        (["completion"], "SHELL"),
        (["completion", "tcsh"], "'tcsh'"),
        (["sweep", "fig33"], "did you mean fig3?"),
        (["sweep", "fig3", "--seeds", "0"], "--seeds"),
        (["sweep", "fig3", "--seed", "3"], "unrecognized arguments: --seed 3; did you mean --seeds?"),
        (["sweep", "fig3", "--dryrun"], "did you mean --dry-run?"),
        (["report", "--root=a", "--scales=laptop"], "did you mean --scale?"),
        (["check"], "NAME"),
        (["bench", "loop"], "'bench' (choose from 'sweep', "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_call_is_one_sentence(arguments: list[str], word: str, capsys: Capture) -> None:
    assert call(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("raysslprune: ")
    assert len(err.splitlines()) == 1
    assert word in err


def test_the_exit_codes_are_those_of_the_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """docs/sweeping.md, --help and what happens."""
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("mine")
    Path("stops.py").write_text("raise KeyboardInterrupt")
    given = {
        0: call("sweep", "table1"),
        1: call("sweep", "fig3", "--root", "file"),
        2: call("sweep", "fig33"),
        130: call("sweep", "stops.py"),
    }
    assert list(given) == list(given.values())
    capsys.readouterr()
    call("sweep", "--help")
    page = (PROJECT / "docs/sweeping.md").read_text()
    (told,) = re.findall(r"Exit codes: ([^.]*)\.", " ".join(page.split()))
    (helped,) = re.findall(r"^exit codes: (.*)$", capsys.readouterr().out, re.M)
    for text in (told, helped):
        codes = [int(code) for code in re.findall(r"(?:^|; )(\d+) ", text)]
        assert codes == sorted([*given, 75])  # tests/ray/test_growing.py sees a cluster without machines


def test_a_stop_while_a_command_is_imported_is_one_sentence(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "load", stop)
    assert call("sweep", "fig3") == 130
    assert capsys.readouterr().err == "raysslprune: stopped\n"


SCRIPT = "import sys\nfrom raysslprune.__main__ import main\nsys.exit(main())\n"
"""What an installer writes for the entry point."""


def test_installed_it_finds_modules_beside_a_sweep_as_python_m_does(tmp_path: Path) -> None:
    """A script's own folder is where Python looks first, and not the one that a user is in."""
    for folder in ("bin", "work"):
        (tmp_path / folder).mkdir()
    (tmp_path / "bin" / "raysslprune").write_text(SCRIPT)
    (tmp_path / "work" / "beside.py").write_text("NAME = 'beside'")
    (tmp_path / "work" / "mine.py").write_text("import beside\nraise ValueError(f'{beside.NAME} was found')")
    for start in ([str(tmp_path / "bin" / "raysslprune")], ["-m", "raysslprune"]):
        run = subprocess.run(
            [sys.executable, *start, "sweep", "mine.py"], cwd=tmp_path / "work", capture_output=True, text=True
        )
        assert (run.returncode, run.stderr) == (2, "raysslprune: mine.py, line 2: ValueError: beside was found\n")
