"""Which process runs which tests, and what tests of all folders share. Where a test goes: README.md beside this."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
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


def _may_start_ray(nodeid: str) -> bool:
    """Whether the test is in another folder than ``tests/unit``, in which none does."""
    return not nodeid.startswith("tests/unit/")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Two processes, and five minutes for a test, unless the call says otherwise; without the plugins, neither."""
    alone = "PYTEST_XDIST_WORKER" in os.environ or config.getoption("usepdb")
    if not alone and config.getoption("numprocesses", 2) is None:
        config.option.numprocesses = 2
    if config.getoption("timeout", 300) is None:
        config.option.timeout = 300


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not _may_start_ray(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    """Used with ``-n 2``; ``-n 0`` runs all in one process."""
    from xdist.scheduler import LoadScopeScheduling

    class OneRay(LoadScopeScheduling):
        """Of pytest's two processes one runs all that may start Ray, which takes both cores, and it begins with that.

        The other runs the rest, file by file, so that a file's fixtures are made once.
        """

        def _split_scope(self, nodeid: str) -> str:
            return "ray" if _may_start_ray(nodeid) else nodeid.partition("::")[0]

    config.option.loadscopereorder = False
    return OneRay(config, log)


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
