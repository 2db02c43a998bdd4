"""Which process runs which tests, and what tests of all folders share. Where a test goes: README.md beside this."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

pytest.register_assert_rewrite("tests.helpers")

from tests.helpers.commands import STARTED, Finished, sweep  # noqa: E402

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # each of the many processes would compile all of torch and Ray again
os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 starves its workers beside the other half of the tests
signal.signal(
    signal.SIGINT, signal.default_int_handler
)  # a shell's background jobs ignore Ctrl-C, and so their children
with suppress(ImportError):  # tests/unit/test_devices.py can do without
    from hypothesis import settings

    settings.register_profile("untimed", deadline=None)  # other tests may have both cores
    settings.load_profile("untimed")


FOLDERS = ("ray", "faults", "docs", "tools")
"""Whose tests may start Ray: with long ones, and so first."""


def _folder(nodeid: str) -> str:
    return nodeid.split("/")[1]


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Two processes, and five minutes for a test, unless the call says otherwise; without the plugins, neither."""
    alone = "PYTEST_XDIST_WORKER" in os.environ or config.getoption("usepdb")
    if not alone and config.getoption("numprocesses", 2) is None:
        config.option.numprocesses = 2
    if config.getoption("timeout", 300) is None:
        config.option.timeout = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: FOLDERS.index(f) if (f := _folder(item.nodeid)) in FOLDERS else len(FOLDERS))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Used with ``-n 2``; ``-n 0`` runs all in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFolder(LoadScopeScheduling):
        """Gives whole folders to one process, so that no more than two tests have a Ray at the same time; unit by file.

        What is given together makes its fixtures once.
        """

        def _split_scope(self, nodeid: str) -> str:
            folder = _folder(nodeid)
            return folder if folder in FOLDERS else nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    return ByFolder(config, log)


@pytest.fixture(autouse=True)
def nothing_left_running() -> Iterator[None]:
    """A test that fails half way must not leave its sweep behind."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Shared by all tests that compare with it: don't write to its root, copy it."""
    root = tmp_path_factory.mktemp("finished") / "runs"
    command = sweep("fig3", "--scale", "smoke", "--root", str(root))
    assert command.code == 0, command.err
    return Finished(root=root, command=command)
