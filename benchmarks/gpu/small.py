"""Several small networks at once on one device: as processes, as threads with a stream each, and as ONE program.

All numbers are images/s of all networks together. "ours" is our loop, all else the bare one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import torch

from benchmarks.gpu import timing
from benchmarks.gpu.cases import Bare, Case, digits
from benchmarks.gpu.grouped import grouped
from benchmarks.gpu.results import Line, Measured, Said
from benchmarks.gpu.run import Run, Wait, prepare, together
from benchmarks.statistics import spread
from raysslprune.training.device import UpdateGraph, arithmetic

ARCH = "conv4"


def lines(run: Run) -> Iterator[Line]:
    prepare()
    case = digits(ARCH, run.device)
    counts = run.choose((1, 4, 16, 64), (1, 4, 16), (1, 2))
    for count in counts:
        yield as_one(run, case, count)
    for count in counts:
        yield as_threads(run, case, count)
    for count in counts:  # the slowest last: each process takes a while to start
        yield as_processes(run, count)


def named(count: int, way: str) -> str:
    return f"{count} x {ARCH}, {way}"


def as_one(run: Run, case: Case, count: int) -> Line:
    """Compare grouped networks, in both memory formats, with one network alone; on a GPU also as graphs."""
    one = Bare(case)
    ways: dict[str, timing.Way] = {"one alone": one}
    for name, layout in (("channels-last", torch.channels_last), ("contiguous", torch.contiguous_format)):
        bare = Together(case, count, layout)
        ways[f"grouped, {name}"] = bare
        if run.on_gpu:
            ways[f"grouped, {name}, graph"] = Graphs([bare], each=count)
    if run.on_gpu:
        ways["graphs on streams"] = Graphs([Bare(case) for _ in range(count)], each=1)
    batch = case.recipe.batch * count
    rates = timing.rates(ways, batch, run.pace)
    return Measured(name=named(count, "one program"), values=timing.compared(rates, to="one alone"))


class Together(Bare):
    """A bare loop of grouped networks; each has batches of its own."""

    def __init__(self, case: Case, count: int, layout: torch.memory_format) -> None:
        net = grouped([case.network(seed) for seed in range(count)]).to(memory_format=layout)
        super().__init__(case, net)
        self.count = count
        pairs = [[self.batches[(at + n) % len(self.batches)] for n in range(count)] for at in range(len(self.batches))]
        self.batches = [
            (
                torch.cat([images for images, _ in pair], dim=1).contiguous(memory_format=layout),
                torch.stack([labels for _, labels in pair], dim=1),
            )
            for pair in pairs
        ]

    def loss(self, outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the sum of the networks' mean losses: the gradients of each are those of its own loss."""
        return self.count * super().loss(outputs.flatten(0, 1), labels.flatten())

    def __call__(self, updates: int) -> float:
        return self.count * super().__call__(updates)


class Graphs:
    """Updates as CUDA graphs, each replayed on a stream of its own."""

    def __init__(self, loops: list[Bare], each: int) -> None:
        """each: number of networks that an update of one loop trains."""
        self.case, self.networks = loops[0].case, each * len(loops)
        self.streams = [torch.cuda.Stream(self.case.device) for _ in loops]
        timing.synchronise(self.case.device)  # the streams do not wait for what made the loops' tensors
        self.replays = [self.recorded(loop, stream) for loop, stream in zip(loops, self.streams, strict=True)]

    def recorded(self, loop: Bare, stream: torch.cuda.Stream) -> Callable[[], None]:
        with arithmetic(self.case.recipe.precision, self.case.device), torch.cuda.stream(stream):
            for _ in range(timing.WARM_UP):
                loop.update(loop.take())
            graph = UpdateGraph(loop.update, loop.take())
        return lambda: graph(loop.take())

    def __call__(self, updates: int) -> float:
        def update() -> None:
            for replay, stream in zip(self.replays, self.streams, strict=True):
                with torch.cuda.stream(stream):
                    replay()

        taken = timing.seconds(update, self.case.device, updates)
        return updates * self.networks * self.case.recipe.batch / taken


Span = tuple[float, float, int]
"""Start and end of a training's updates, by ``time.monotonic``, and its number of images."""


def as_threads(run: Run, case: Case, count: int) -> Line:
    """Measure our loop in threads of this process, on a GPU each with its own stream."""

    def way(updates: int) -> float:
        barrier = threading.Barrier(count, timeout=60)
        with ThreadPoolExecutor(count) as pool, arithmetic(case.recipe.precision, case.device):
            return together_per_second(list(pool.map(lambda _: _on_own_stream(case, updates, barrier), range(count))))

    rates = timing.rates({"ours": way}, case.recipe.batch * count, run.pace)
    return Measured(name=named(count, "threads"), values={"ours, images/s": spread(rates["ours"])})


def _on_own_stream(case: Case, updates: int, barrier: threading.Barrier) -> Span:
    with torch.cuda.stream(torch.cuda.Stream(case.device)) if case.device.type == "cuda" else nullcontext():
        return _timed(case, updates, barrier.wait)


def as_processes(run: Run, count: int) -> Line:
    """Measure our loop in ``count`` processes, as a sweep with fractions of a GPU runs them."""
    try:
        spans = together(run, count, _in_process, run.choose(2.0, 1.0, 0.1))
    except RuntimeError as error:
        if not any(says in str(error) for says in ("out of memory", "busy or unavailable")):
            raise
        return Said(name=named(count, "processes"), says=f"skipped, since the GPU does not take so many: {error}")
    return Measured(name=named(count, "processes"), values={"ours, images/s": together_per_second(spans)})


def _in_process(run: Run, wait: Wait, _number: int, seconds: float) -> Span:
    """Train for about ``seconds`` seconds, at the same time as the others."""
    case = digits(ARCH, run.device)
    _timed(case, timing.WARM_UP, wait)
    begun, end, images = _timed(case, timing.WARM_UP, wait)
    return _timed(case, max(timing.WARM_UP, round(seconds * images / (end - begun) / case.recipe.batch)), wait)


def _timed(case: Case, updates: int, wait: Wait) -> Span:
    """Train, starting when all others are ready; return the Span."""
    loop = case.loop(updates)
    timing.synchronise(case.device)
    wait()
    begun = time.monotonic()
    return begun, begun + loop.end / loop.run().images_per_second, loop.end


def together_per_second(spans: Sequence[Span]) -> float:
    """Return images/s of all trainings together, from the first start to the last end."""
    took = max(end for _, end, _ in spans) - min(begun for begun, _, _ in spans)
    return sum(images for _, _, images in spans) / took
