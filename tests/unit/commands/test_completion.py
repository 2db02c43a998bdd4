"""Completion, by the shells themselves."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from raysslprune import __main__ as command
from raysslprune.catalogue import ARCHITECTURES, DATASETS
from raysslprune.commands import completion
from raysslprune.paper.scales import SETTINGS
from raysslprune.sweep_loader import known

Capture = pytest.CaptureFixture[str]


def call(*arguments: str) -> int:
    """The command in this process; gives its exit code."""
    try:
        return command.main(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


NAMES = {"bash": "raysslprune", "zsh": "_raysslprune", "fish": "raysslprune.fish"}
SWEEPS = set(known())
OPTIONS = {"--help", "--version", "--scale", "--seeds", "--root", "--data", "--keep", "--explain", "--dry-run"}
WORDS = [
    ("raysslprune ", {*command.COMMANDS, "completion"}),
    ("raysslprune completion ", {"bash", "zsh", "fish"}),
    ("raysslprune sweep ", SWEEPS | {"bites.py", "runs"}),
    ("raysslprune sweep fig3 fig", {name for name in SWEEPS if name.startswith("fig")}),
    ("raysslprune sweep fig3 --dry-run re", {"rewind"}),
    ("raysslprune sweep fig3 --scale ", {*SETTINGS, "pets.toml", "runs"}),
    ("raysslprune scale la", {"laptop"}),
    ("raysslprune sweep --keep n", {"needed"}),
    ("raysslprune sweep fig3 --root ", {"runs"}),
    ("raysslprune analysis --scale laptop fig1", {"fig1", "fig1-today", "fig10"}),
    ("raysslprune im", {"import-mask", "import-weights"}),
    ("raysslprune tr", {"train", "try"}),
    ("raysslprune train --task r", {"rotnet"}),
    ("raysslprune train --data c", {name for name in DATASETS if name.startswith("c")}),
    ("raysslprune try x:y --arch resnet8", {"resnet8"}),
    ("raysslprune train --data-root ", {"runs"}),
    ("raysslprune check c", {name for name in DATASETS if name.startswith("c")}),
    ("raysslprune check --data . fo", {"folder/"}),
    ("raysslprune import-mask x.pt --arch vgg", {name for name in ARCHITECTURES if name.startswith("vgg")}),
]
"""What is typed, and all that it may become, in a folder with bites.py, notes.txt, pets.toml and the folder runs."""


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
    for name in ("bites.py", "notes.txt", "pets.toml"):
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
            ("raysslprune import-m", "raysslprune import-mask "),
            ("raysslprune sweep notes", "raysslprune sweep notes"),
        ):
            assert terminal.completed(typed) == line
    finally:
        terminal.close()
