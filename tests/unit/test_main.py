"""``raysslprune``: all commands under one name, help and exit codes, completion by real shells, and the package."""

from __future__ import annotations

import ast
import os
import re
import select
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml

from raysslprune import __main__ as command
from raysslprune import __version__, completion
from raysslprune.loader import known
from raysslprune.names import ARCHITECTURES, DATASETS
from raysslprune.scales import SETTINGS
from tests.helpers import CHECKOUT

PROJECT = CHECKOUT
PACKAGE = PROJECT / "raysslprune"
PROJECT_FILE = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]

Capture = pytest.CaptureFixture[str]


def call(*arguments: str) -> int:
    """The command in this process; gives its exit code."""
    try:
        return command.main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


@pytest.mark.parametrize("arguments", [("sweep", "table1"), ("sweep", "fig3", "--scale", "smoke", "--dry-run")])
def test_a_reader_that_has_enough_is_no_error(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """As `| head`; what is written is written."""
    ours, theirs = os.pipe()
    os.close(ours)
    command = [sys.executable, "-m", "raysslprune", *arguments, "--root", str(tmp_path / "runs")]
    with os.fdopen(theirs, "w") as closed:
        run = subprocess.run(command, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / "runs/results").exists() == (arguments[1] == "table1")


# ------------------------------------------------------------------------------------- the commands


def test_the_help_names_all_commands_and_exit_codes(capsys: Capture) -> None:
    assert call("--help") == 0
    said = capsys.readouterr().out
    for name, kind in command.COMMANDS.items():
        assert re.search(rf"^    {name}\s+{re.escape(kind.says[:20])}", said, re.M)
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
    assert guarded() - {"raysslprune.bench.__main__"} == {"raysslprune.sweep", "raysslprune.__main__"}


@pytest.mark.parametrize("name", command.COMMANDS)
def test_a_commands_help_is_its_parsers(name: str, capsys: Capture) -> None:
    assert call(name, "--help") == 0
    said = capsys.readouterr().out
    assert said == command.COMMANDS[name].load()._parser().format_help()
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
    """README, --help and what happens."""
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
    readme = (PROJECT / "README.md").read_text()
    (told,) = re.findall(r"Exit codes: ([^.]*)\.", " ".join(readme.split()))
    (helped,) = re.findall(r"^exit codes: (.*)$", capsys.readouterr().out, re.M)
    for text in (told, helped):
        assert [int(code) for code in re.findall(r"(?:^|; )(\d+) ", text)] == list(given)


def test_a_stop_while_a_command_is_imported_is_one_sentence(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command.Command, "load", stop)
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


# ------------------------------------------------------------------------------------- completion

NAMES = {"bash": "raysslprune", "zsh": "_raysslprune", "fish": "raysslprune.fish"}
SWEEPS = set(known())
OPTIONS = {"--help", "--version", "--scale", "--seeds", "--root", "--data", "--keep", "--explain", "--dry-run"}
WORDS = [
    ("raysslprune ", {*command.COMMANDS, "completion"}),
    ("raysslprune completion ", {"bash", "zsh", "fish"}),
    ("raysslprune sweep ", SWEEPS | {"bites.py", "runs"}),
    ("raysslprune sweep fig3 fig", {name for name in SWEEPS if name.startswith("fig")}),
    ("raysslprune sweep fig3 --dry-run re", {"rewind"}),
    ("raysslprune sweep fig3 --scale ", set(SETTINGS)),
    ("raysslprune sweep --keep n", {"needed"}),
    ("raysslprune sweep fig3 --root ", {"runs"}),
    ("raysslprune analysis --scale laptop fig1", {"fig1", "fig10"}),
    ("raysslprune im", {"import-mask"}),
    ("raysslprune check c", {name for name in DATASETS if name.startswith("c")}),
    ("raysslprune check --data . fo", {"folder/"}),
    ("raysslprune import-mask x.pt --arch vgg", {name for name in ARCHITECTURES if name.startswith("vgg")}),
]
"""What is typed, and all that it may become, in a folder with bites.py, notes.txt and the folder runs."""


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script for each shell, under the name that it looks for."""
    folder = tmp_path_factory.mktemp("completion")
    for shell, name in NAMES.items():
        (folder / name).write_text(completion.script(shell, command.tree()))
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder that somebody types in."""
    (tmp_path / "runs").mkdir()
    for name in ("bites.py", "notes.txt"):
        (tmp_path / name).touch()
    return tmp_path


def bare(here: Path) -> dict[str, str]:
    """An environment in which there is neither raysslprune nor its Python: Tab must do without them."""
    return {"PATH": "/usr/bin:/bin", "HOME": str(here), "TERM": "dumb", "LC_ALL": "C.UTF-8", "INPUTRC": "/dev/null"}


def needs(shell: str) -> None:
    if not shutil.which(shell, path="/usr/bin:/bin"):
        pytest.skip(f"needs {shell}")


@pytest.mark.parametrize("shell", NAMES)
def test_the_scripts_are_of_their_shells(shell: str, scripts: Path, capsys: Capture) -> None:
    needs(shell)
    subprocess.run([shell, "-n", str(scripts / NAMES[shell])], check=True)
    assert call("completion", shell) == 0
    assert capsys.readouterr().out == (scripts / NAMES[shell]).read_text() + "\n"


def offered(shell: str, typed: str, scripts: Path, here: Path) -> set[str]:
    """All that a shell offers for what is typed, without the slash of folders."""
    if shell == "bash":
        words = typed.split(" ")
        program = (
            f'source "$1"; shift; COMP_WORDS=("$@"); COMP_CWORD={len(words) - 1}; compopt() {{ :; }}; '
            'found=$(complete -p raysslprune); found=${found#* -F }; ${found%% *}; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        start = ["bash", "--norc", "-c", program, "bash", str(scripts / NAMES[shell]), *words]
    else:
        start = ["fish", "-N", "-c", f"source {scripts / NAMES[shell]}; complete -C '{typed}'"]
    run = subprocess.run(start, cwd=here, env=bare(here), capture_output=True, text=True, check=True)
    assert run.stderr == ""
    found = [line.partition("\t")[0] for line in run.stdout.splitlines() if line]
    assert len(found) == len(set(found)), "something is offered twice"
    return {"runs" if word == "runs/" else word for word in found}


@pytest.mark.parametrize("shell", ["bash", "fish"])
@pytest.mark.parametrize(("typed", "words"), WORDS, ids=[typed for typed, _ in WORDS])
def test_what_is_offered(shell: str, typed: str, words: set[str], scripts: Path, here: Path) -> None:
    needs(shell)
    assert offered(shell, typed, scripts, here) == words


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_options_are_offered(shell: str, scripts: Path, here: Path) -> None:
    needs(shell)
    assert offered(shell, "raysslprune sweep fig3 --", scripts, here) >= OPTIONS
    assert offered(shell, "raysslprune --", scripts, here) == {"--help", "--version"}


SETUP = {
    "bash": """PS1=; source {script}; tell() {{ printf %s "$READLINE_LINE" > told; }}; bind -x '"\\C-t": tell'""",
    "zsh": """PROMPT=; fpath=({folder} $fpath); autoload -Uz compinit; compinit -u -D;
        tell() {{ printf %s "$BUFFER" > told; }}; zle -N tell; bindkey '^T' tell; bindkey '^U' kill-whole-line""",
}
START = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}


class Terminal:
    """An interactive shell at a terminal, with the completion in place."""

    def __init__(self, shell: str, scripts: Path, here: Path) -> None:
        self.here = here
        self.end, terminal = os.openpty()
        self.shell = subprocess.Popen(
            START[shell],
            stdin=terminal, stdout=terminal, stderr=terminal, cwd=here, env=bare(here), start_new_session=True,
        )  # fmt: skip
        os.close(terminal)
        setup = SETUP[shell].format(script=scripts / NAMES[shell], folder=scripts)
        self.press(f"{' '.join(setup.split())}; touch ready\n")
        self.wait_for("ready")

    def press(self, keys: str) -> None:
        os.write(self.end, keys.encode())

    def wait_for(self, name: str) -> Path:
        """A file that the shell writes. Raises TimeoutError with what is on the terminal."""
        shown, until = b"", time.monotonic() + 60
        while not (self.here / name).exists() or (name == "told" and not (self.here / name).stat().st_size):
            if time.monotonic() > until:
                raise TimeoutError(shown.decode())
            if select.select([self.end], [], [], 0.05)[0]:
                shown += os.read(self.end, 65536)
        return self.here / name

    def completed(self, typed: str) -> str:
        """The line after Tab."""
        self.press(f"{typed}\t\x14")
        told = self.wait_for("told")
        line = told.read_text()
        told.unlink()
        self.press("\x15")
        return line

    def close(self) -> None:
        self.shell.kill()
        self.shell.wait()
        os.close(self.end)


@pytest.mark.parametrize("shell", START)
def test_tab_at_a_terminal(shell: str, scripts: Path, here: Path) -> None:
    needs(shell)
    terminal = Terminal(shell, scripts, here)
    try:
        for typed, line in (
            ("raysslprune sw", "raysslprune sweep "),
            ("raysslprune sweep tab", "raysslprune sweep table1 "),
            ("raysslprune sweep fig3 rew", "raysslprune sweep fig3 rewind "),
            ("raysslprune sweep --dry-run fig3 bi", "raysslprune sweep --dry-run fig3 bites.py "),
            ("raysslprune sweep fig3 --sc", "raysslprune sweep fig3 --scale "),
            ("raysslprune sweep fig3 --scale pap", "raysslprune sweep fig3 --scale paper "),
            ("raysslprune sweep fig3 --root ru", "raysslprune sweep fig3 --root runs/"),
            ("raysslprune check pl", "raysslprune check places205 "),
            ("raysslprune imp", "raysslprune import-mask "),
            ("raysslprune sweep notes", "raysslprune sweep notes"),
        ):
            assert terminal.completed(typed) == line
    finally:
        terminal.close()


@pytest.mark.parametrize("name", [name for name in command.COMMANDS if name not in ("sweep", "completion")])
def test_our_own_fault_is_one_sentence_and_a_log(
    name: str, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of sweep, test_cli.py has it."""

    def fail(*_: object) -> int:
        raise ZeroDivisionError("ours\nalone")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(command.COMMANDS[name].load(), "_parser", fail)
    assert command.main([name]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    (log,) = tmp_path.iterdir()
    assert line == (f"raysslprune: a fault in raysslprune itself: ZeroDivisionError: ours alone; details in {log}")
    assert "Traceback" in log.read_text()


# ------------------------------------------------------------------------------------- the package


def test_the_version_is_one() -> None:
    semantic = r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    assert re.fullmatch(semantic, __version__)
    assert version("raysslprune") == __version__, "that of the installation"
    newest = re.findall(
        rf"^## \[({semantic})\] - (unreleased|\d{{4}}-\d\d-\d\d)$", (PROJECT / "CHANGELOG.md").read_text(), re.M
    )
    assert newest[0][0] == __version__
    assert yaml.safe_load((PROJECT / "CITATION.cff").read_text())["version"] == __version__


def test_the_citation_has_the_software_and_the_paper() -> None:
    cited = yaml.safe_load((PROJECT / "CITATION.cff").read_text())
    assert cited.keys() >= {"cff-version", "message", "title", "authors"}, "what the format demands"
    (paper,) = cited["references"]
    assert [author["family-names"] for author in paper["authors"]] == [
        "Caron",
        "Morcos",
        "Bojanowski",
        "Mairal",
        "Joulin",
    ]
    assert paper["url"] == PROJECT_FILE["urls"]["Paper"]
    assert cited["license"] == PROJECT_FILE["license"]


def test_the_entry_point_and_the_marker_of_types() -> None:
    module, _, attribute = PROJECT_FILE["scripts"]["raysslprune"].partition(":")
    assert getattr(import_module(module), attribute) is command.program
    assert (PACKAGE / "py.typed").read_bytes() == b""


def test_hooks_run_what_the_environment_has() -> None:
    (repository,) = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"].split() for hook in repository["hooks"]]
    assert all(entry[:2] == [".venv/bin/python", "-m"] for entry in entries)
    checked = (PROJECT / ".ci/run").read_text()
    for entry in entries[:3]:  # ruff, ruff, pyright: CI has the same, without mending
        assert " ".join(entry[:4] if entry[2] == "ruff" else entry) in checked


USER = """
from raysslprune.lottery import imp
from raysslprune.scales import SETTINGS

s = SETTINGS["laptop"]
chain = imp(task="labels", data=s.data, arch=s.arch, recipe=s.recipes["labels"], seed="0", levels=2, keep=0.5, rewind=0)
reveal_type(chain.dense)
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wheel_has_all_and_its_user_has_types(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    subprocess.run([*pip, "wheel", "--no-deps", "-w", str(tmp_path), str(PROJECT)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with ZipFile(wheel) as archive:
        files = set(archive.namelist())
        (licence,) = [name for name in files if name.endswith(".dist-info/licenses/LICENSE")]
        assert archive.read(licence) == (PROJECT / "LICENSE").read_bytes()
    for path in PACKAGE.rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            assert path.relative_to(PROJECT).as_posix() in files
    assert {f"raysslprune/sweeps/{name}.py" for name in SWEEPS} <= files

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], check=True)
    python = tmp_path / "venv/bin/python"
    (site,) = tmp_path.glob("venv/lib/*/site-packages")
    subprocess.run([*pip, "--python", str(python), "install", "--no-deps", str(wheel)], check=True)
    others = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path.endswith("site-packages"))}
    for arguments, said in ((["--version"], "raysslprune 0."), (["sweep", "fig3", "--dry-run"], "trainings")):
        run = subprocess.run(
            [str(python.parent / "raysslprune"), *arguments], cwd=tmp_path, env=others, capture_output=True, text=True
        )
        assert (run.returncode, run.stderr) == (0, "")
        assert said in run.stdout
    where = subprocess.run(
        [str(python), "-c", "import raysslprune; print(raysslprune.__file__)"],
        cwd=tmp_path, env=others, capture_output=True, text=True,
    )  # fmt: skip
    assert where.stdout.startswith(str(site)), "this was about another installation"

    (tmp_path / "user.py").write_text(USER)
    seen = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonpath", str(python), "user.py"],
        cwd=tmp_path, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert 'cannot be assigned to parameter "seed" of type "int"' in seen
    assert 'Type of "chain.dense" is "Train"' in seen
    assert "1 error, " in seen
