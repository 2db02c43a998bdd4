"""The wait for the thread that calls Ray: its exceptions, leaving it, and a dead Ray."""

from __future__ import annotations

import _thread
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from raysslprune import process
from raysslprune.cluster import ray_thread
from raysslprune.cluster.ray_thread import ClusterError, RayThread


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_work_is_done_in_a_thread_of_its_own() -> None:
    found: list[str] = []
    RayThread().run(lambda: found.append(threading.current_thread().name))
    assert found == [process.RAY_THREAD]
    assert process.RAY_THREAD not in names()


class Lingering(threading.Thread):
    """A thread that is still there for a moment after its work has ended."""

    def run(self) -> None:
        super().run()
        time.sleep(1)


def test_one_run_may_follow_another_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "Thread", Lingering)
    done: list[int] = []
    for number in range(2):
        RayThread().run(lambda number=number: done.append(number))
    assert done == [0, 1]


@pytest.mark.parametrize("error", [ClusterError("no"), ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_what_the_work_raises_is_raised(error: BaseException) -> None:
    def work() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        RayThread().run(work)
    assert caught.value is error


def test_what_the_check_raises_ends_the_work() -> None:
    thread, ended = RayThread(), threading.Event()

    def work() -> None:
        try:
            while True:
                thread.check()
                time.sleep(0.01)
        finally:
            ended.set()

    def check() -> None:
        raise ClusterError("another has it")

    with pytest.raises(ClusterError, match="another has it"):
        thread.run(work, check)
    assert ended.is_set()


def test_ctrl_c_lets_the_work_come_to_its_end_however_often_it_is_pressed() -> None:
    thread, steps = RayThread(), []

    def work() -> None:
        for _ in range(2):
            _thread.interrupt_main()
            time.sleep(0.3)
        try:
            thread.check()
        finally:
            time.sleep(0.3)  # as Ray shuts down
            steps.append("over")

    with pytest.raises(KeyboardInterrupt):
        thread.run(work)
    assert steps == ["over"]


def test_a_dead_ray_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work waits forever; run() raises, and does not wait for long."""
    monkeypatch.setattr(ray_thread, "PATIENCE", 0.3)
    thread, free = RayThread(), threading.Event()

    def work() -> None:
        threading.Thread(target=thread.abandon, args=(ClusterError("Ray died"),)).start()
        free.wait(60)

    with pytest.raises(ClusterError, match="Ray died"):
        thread.run(work)
    assert process.RAY_THREAD in names(), "a program ends without its exit hooks then"
    with pytest.raises(KeyboardInterrupt):
        thread.check()
    (left,) = (one for one in threading.enumerate() if one.name == process.RAY_THREAD)
    free.set()
    left.join(20)  # the next test wants none


def test_it_works_off_the_main_thread_and_touches_no_handler() -> None:
    before = {number: signal.getsignal(number) for number in process.SIGNALS}
    done: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        pool.submit(RayThread().run, lambda: done.append(1)).result(20)
    assert done == [1]
    assert before == {number: signal.getsignal(number) for number in process.SIGNALS}


def test_pythons_sigterm_handler_comes_back_where_c_replaced_it() -> None:
    """As Ray's C++ side does on its start, in any thread."""
    import ctypes

    caught: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: caught.append(number))
    try:

        def work() -> None:
            ctypes.CDLL(None).signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(0.5)
            signal.raise_signal(signal.SIGTERM)

        RayThread().run(work)
        assert caught == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)
