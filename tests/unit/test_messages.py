"""Sentences on stderr: what they may hold; and the errors that are sentences."""

from __future__ import annotations

import os
import pickle
import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest

import raysslprune
from raysslprune.commands.common import reports_errors
from raysslprune.messages import FAILED, USAGE, UserError, say
from raysslprune.store.record import Damaged


@pytest.mark.parametrize(
    "arguments", [["completion", "bash"], ["check", "digits"], ["sweep", "--version"]], ids=" ".join
)
def test_what_can_not_be_printed_is_said(arguments: list[str]) -> None:
    """However late it is found out: at the exit, Python itself would say it in its own way."""
    command = [sys.executable, "-m", "raysslprune", *arguments]
    with open("/dev/full", "w") as full:
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=buffered, check=False)
    assert run.returncode == 1
    (line,) = run.stderr.splitlines()
    assert line.startswith("raysslprune: ")
    assert line.endswith("No space left on device")


def test_a_sentence_steers_no_terminal_and_has_an_end(capsys: pytest.CaptureFixture[str]) -> None:
    assert say("a \x1b[31m\u202e b\n c" + "x" * 10**6, 2) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("raysslprune: a \ufffd[31m\ufffd b cx")
    assert line.isprintable()
    assert len(line) < 6000


# ------------------------------------------------------------------------------------- errors


def family() -> list[type[UserError]]:
    """UserError and all classes below it, wherever in the package they are."""
    for module in pkgutil.walk_packages(raysslprune.__path__, "raysslprune."):
        if not module.name.endswith("__main__"):
            import_module(module.name)
    found, new = [UserError], [UserError]
    while new:
        new = [kind for above in new for kind in above.__subclasses__()]
        found += new
    return list(dict.fromkeys(kind for kind in found if kind.__module__.startswith("raysslprune")))


def test_each_survives_a_pickle_with_its_attributes() -> None:
    kinds = family()
    assert {"SweepError", "StoreError", "DataError", "BrokenImage", "QueryError", "Failed", "ClusterError"} <= {
        kind.__name__ for kind in kinds
    }
    for kind in kinds:
        for error in (kind("there is no /x; make it"), kind("there is no /x; make it", code=7)):
            error.add_note("seen on node 3")
            copy = pickle.loads(pickle.dumps(error))
            assert type(copy) is kind
            assert str(copy) == "there is no /x; make it"
            assert (copy.code, copy.__notes__) == (error.code, ["seen on node 3"])
        assert error.code == 7
        assert kind("").code in (FAILED, USAGE)


def test_what_processes_tell_each_other_is_none() -> None:
    from raysslprune.cluster.train import WorkerLost

    for error in (Damaged("1a2b", "its weights are gone"), WorkerLost("it died")):
        assert not isinstance(error, UserError)
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("code", [FAILED, USAGE, 7])
def test_a_command_exits_with_its_code_and_prints_its_sentence(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    @reports_errors()
    def main(arguments: object = None) -> int:
        raise UserError("there is no /x", code=code)

    assert main() == code
    assert capsys.readouterr().err == "raysslprune: there is no /x\n"


@pytest.mark.parametrize(
    ("error", "sentence", "code"),
    [
        (KeyboardInterrupt(), "stopped; nothing was made", 130),
        (OSError(5, "no"), "[Errno 5] no; half is kept", FAILED),
        (BrokenPipeError(32, "a socket of Ray's"), "[Errno 32] a socket of Ray's; half is kept", FAILED),
    ],
)
def test_a_command_says_how_it_was_stopped(
    error: BaseException, sentence: str, code: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """A pipe that breaks is an error unless it is stdout."""

    @reports_errors(stopped="stopped; nothing was made", kept="; half is kept")
    def main(arguments: object = None) -> int:
        raise error

    assert main() == code
    assert capfd.readouterr().err == f"raysslprune: {sentence}\n"
