"""torch.compile and CUDA graphs for a small and a larger network: images/s, and whether compiling pays in a chain."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial

from benchmarks.gpu import timing
from benchmarks.gpu.cases import Case, cifar, digits, ours
from benchmarks.gpu.results import Check, Line, Measured, Said
from benchmarks.gpu.run import Run
from raysslprune.paper.recipes import appendix_d

ROUNDS = 30
"""Number of rounds of the paper's chains, which all train one network under other masks."""


LONG, QUICK = timing.Pace(2.0, 2), timing.Pace(1.0, 1)
"""Each measurement makes a loop and records its graph again; in a longer one this matters less."""


SAME = {"tf32": 0.02, "bf16": 0.1}
"""Tolerances of a mean loss, relative to it; Adam's first steps amplify the rounding of bfloat16."""


def lines(run: Run) -> Iterator[Line]:
    if not any(map(shutil.which, ("gcc", "g++", "cc", "clang", os.environ.get("CC", "")))):
        yield Said(name="compiler", says="skipped: torch.compile needs a C compiler, and there is none")
        return
    if run.quick and not run.on_gpu:
        yield Said(name="compiler", says="skipped: on a CPU it takes half a minute, which is not quick")
        return
    batch = run.choose(512, 512, 4)
    small = digits("conv4", run.device).in_precision("tf32")
    larger = cifar("resnet18-cifar", run.device, batch).in_precision("bf16")
    paper = appendix_d("labels", "cifar10", "resnet18-cifar").samples
    with tempfile.TemporaryDirectory() as cache:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache  # else an earlier run's graphs would be found
        for case, samples in ((small, small.recipe.samples), (larger, paper))[: run.choose(2, 2, 1)]:
            yield measured(run, case, samples)
            yield same(case)


def measured(run: Run, case: Case, samples: int) -> Line:
    """Measure a case. samples: number of samples in one round of the chain."""
    name = f"{case.arch}, batch {case.recipe.batch}, {case.recipe.precision}"
    case.loop(timing.WARM_UP).run()  # what the device loads for any loop is not counted
    first, second, third = (seconds_to_first(case) for _ in range(3))
    how = {"eager": {}, "compiled": {"compiled": True}}
    if run.on_gpu:
        how |= {"graph": {"graphed": True}, "compiled, graph": {"compiled": True, "graphed": True}}
    ways = {way: ours(case, **options) for way, options in how.items()}
    rates = timing.rates(ways, case.recipe.batch, run.choose(LONG, QUICK, run.pace))
    found = timing.compared(rates, to="eager")
    compile_seconds = {"first round, s": first, "second round, s": second, "third round, s": third}
    eager, compiled = (samples / found[f"{way}, images/s"]["median"] for way in ("eager", "compiled"))
    chain = (first + second + (ROUNDS - 2) * third + ROUNDS * compiled) / (ROUNDS * eager)
    return Measured(name=name, values=found | compile_seconds | {f"time of {ROUNDS} rounds, over eager": chain})


def same(case: Case) -> Line:
    """Compare the loss of a few updates, compiled, with the eager one."""
    updates = 10
    eager, compiled = (case.loop(updates, compiled=how).run().metrics["train_loss"] for how in (False, True))
    return Check(
        name=f"{case.arch}, {case.recipe.precision}: mean loss of {updates} updates, compiled, beside eager",
        found=compiled,
        expected=eager,
        tolerance=SAME[case.recipe.precision] * eager,
        why="kernels that are fused round differently, and rounding grows from update to update",
    )


def seconds_to_first(case: Case) -> float:
    """Return the seconds until a new training, with a new network, has done its first update."""
    loop = case.loop(1, compiled=True)
    return timing.seconds(partial(loop.run), case.device)
