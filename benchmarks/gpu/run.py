"""Run the parts, each in a process of its own that the system ends when its time is over."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from benchmarks.gpu.results import Line, Results, Said

if TYPE_CHECKING:
    import torch

    from benchmarks.gpu import timing

PROCESSES = multiprocessing.get_context("forkserver")
"""Processes come from a server that has imported torch and never touched the GPU, as CUDA does not survive a fork."""

GRACE = 3.0
"""Seconds from a part's limit until its process is ended, whatever it is doing."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """A module of this package with ``lines(run)``, and its limit in seconds: on a GPU, and with ``--quick``."""

    name: str
    says: str
    limit: float
    quick: float

    def lines(self, run: Run) -> Iterator[Line]:
        return import_module(f"benchmarks.gpu.{self.name}").lines(run)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Arguments of a part. end: when its time ends, by ``time.monotonic``. data: folder of data sets, or ''."""

    quick: bool
    data: str
    end: float

    @property
    def left(self) -> float:
        """Seconds until the part's time is over."""
        return self.end - time.monotonic()

    @property
    def device(self) -> torch.device:
        """Device of this process, under torchrun of its rank; ranks share GPUs if there are fewer."""
        import torch

        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())

    @property
    def on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def pace(self) -> timing.Pace:
        """Pace of measurements of our loop and a bare one."""
        from benchmarks.gpu.timing import Pace

        return self.choose(Pace(0.7, 3), Pace(0.3, 2), Pace(0.05, 1, warm_up=1))

    def choose(self, gpu: Any, quick: Any, cpu: Any) -> Any:
        """Choose a value: for a GPU, for a GPU with ``--quick``, or for the CPU."""
        if not self.on_gpu:
            return cpu
        return quick if self.quick else gpu


def prepare() -> None:
    """Start the server that forks this process's children; it imports once what every part needs. Does not wait for it.

    A part that calls :func:`together` needs a server of its own, and calls this first.
    """
    PROCESSES.set_forkserver_preload(["benchmarks.gpu.preload"])
    forkserver.ensure_running()


def wait_for_imports() -> None:
    """Wait until the server has imported all, so that this does not take time from the first part."""
    first = PROCESSES.Process()
    first.start()
    first.join()


def run_part(part: Part, run: Run, results: Results) -> None:
    """Run a part in another process until it or its time ends; write a line if the process was ended or crashed."""
    limit = run.left
    process = PROCESSES.Process(target=_process, args=(part, run, results))
    process.start()
    try:
        process.join(limit + 2 * GRACE)
    finally:
        if process.exitcode is None:
            process.kill()
            process.join()
    if process.exitcode in (-signal.SIGALRM, -signal.SIGKILL) and run.left <= 0:
        results.add(
            part.name, Said(name="time", says=f"ended after {limit:.0f} s, its limit; the rest was not measured")
        )
    elif process.exitcode:
        ended = f"by signal {-process.exitcode}" if process.exitcode < 0 else f"with code {process.exitcode}"
        results.add(part.name, Said(name="process", says=f"it ended {ended}", failed=True))


def end_with(run: Run) -> None:
    """Make the system end this process GRACE seconds after the part's time, whatever it waits for."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, max(run.left, 0) + GRACE)


def _process(part: Part, run: Run, results: Results) -> None:
    _begin(run)
    try:
        write(part, run, results)
    except KeyboardInterrupt:  # the command says so
        os._exit(1)


def _begin(run: Run) -> None:
    """Prepare a new process: time limit, no warnings and, on a CPU, whose cores others may use, one thread."""
    end_with(run)
    warnings.simplefilter("ignore")  # they would come between the results
    if not run.on_gpu:
        import torch

        torch.set_num_threads(1)


def write(part: Part, run: Run, results: Results) -> None:
    """Write the lines of a part as they come; also its exception, or that its time ran out."""
    try:
        lines = part.lines(run)
        while run.left > 0:
            line = next(lines, None)
            if line is None:
                return
            results.add(part.name, line)
        results.add(part.name, Said(name="time", says="its time is over; the rest was not measured"))
    except Exception as error:
        says = " ".join(f"{type(error).__name__}: {error}".split())
        results.add(part.name, Said(name="error", says=says, failed=True, details=traceback.format_exc()))


Wait = Callable[[], object]
"""Barrier: returns when all processes have called it."""

WAITS, RETURNS, FAILS = "waits", "returns", "fails"


def together(run: Run, count: int, target: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return the results of ``target(run, wait, number, *arguments)`` in ``count`` processes at once, by number.

    target: a module-level function. wait: returns when all have called it. Raises RuntimeError if one fails.
    """
    pipes = [PROCESSES.Pipe() for _ in range(count)]
    processes = [
        PROCESSES.Process(target=_one_of, args=(run, theirs, target, number, arguments))
        for number, (_, theirs) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, theirs in pipes:
        theirs.close()
    try:
        return _returned([ours for ours, _ in pipes])
    finally:
        for process in processes:
            process.kill()
            process.join()


def _returned(pipes: Sequence[Connection]) -> list[Any]:
    """Release the processes whenever all of them wait; return their results when all have. Raises RuntimeError."""
    while True:
        messages = [_received(number, pipe) for number, pipe in enumerate(pipes)]
        for kind, value in messages:
            if kind == FAILS:
                raise RuntimeError(value)
        if all(kind == RETURNS for kind, _ in messages):
            return [value for _, value in messages]
        for pipe in pipes:
            pipe.send_bytes(b"go")


def _received(number: int, pipe: Connection) -> tuple[str, Any]:
    try:
        return pickle.loads(pipe.recv_bytes())
    except EOFError:
        return FAILS, f"process {number} ended before its work was done"


def _one_of(run: Run, pipe: Connection, target: Callable[..., Any], number: int, given: Sequence[Any]) -> None:
    def send(kind: str, value: Any = None) -> None:
        pipe.send_bytes(pickle.dumps((kind, value)))  # by value: torch's shared memory ends with this process

    def wait() -> None:
        send(WAITS)
        pipe.recv_bytes()

    _begin(run)
    try:
        send(RETURNS, target(run, wait, number, *given))
    except (BrokenPipeError, EOFError):  # the part was ended, and nobody waits for this
        os._exit(1)
    except Exception as error:
        send(FAILS, f"in process {number}, {type(error).__name__}: {error}")
