"""``python -m benchmarks.gpu``: the command line."""

from __future__ import annotations

from raysslprune import process

if __name__ == "__main__":
    process.begin()

import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.results import Results, failures
from benchmarks.gpu.run import Part, Run, prepare, run_part, wait_for_imports
from raysslprune import catalogue
from raysslprune.commands.common import Parser, path, reports_errors
from raysslprune.messages import FAILED, STOPPED, say

PARTS = (
    Part(name="machine", says="what is measured: device, driver, versions", limit=10, quick=5),
    Part(name="correctness", says="losses, a pruning chain, resuming, two processes", limit=65, quick=28),
    Part(name="devices", says="the tests of devices, by pytest", limit=50, quick=20),
    Part(name="loop", says="our loop over a bare one, and model FLOPs over a measured ceiling", limit=85, quick=18),
    Part(name="compiled", says="torch.compile and CUDA graphs, and whether they pay", limit=70, quick=15),
    Part(name="small", says="several small networks at once: processes, threads, one program", limit=55, quick=12),
    Part(name="inputs", says="views made and JPEGs decoded on the device", limit=25, quick=9),
    Part(name="learning", says="CIFAR-10, as many epochs as fit", limit=120, quick=12),
)
"""Parts, the most important first, with their time limits in seconds."""

SHARED = Part(name="ranks", says="a training that the ranks of torchrun share", limit=120, quick=60)
"""The part that replaces all others under torchrun."""


@reports_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the parts. Returns the exit code."""
    options = _parser().parse_args(arguments)
    ranks = "WORLD_SIZE" in os.environ
    root = str(Path(options.data if options.data is not None else catalogue.data_root()).absolute())
    if options.data is not None and not _has_cifar(root):
        return say(f"there is no CIFAR-10 in {root}; without --data, images are made up", FAILED)
    try:
        results = Results(_new_file(options.out), time.monotonic(), shows=os.environ.get("RANK", "0") == "0")
    except OSError as error:
        return say(f"can't write to {options.out}: {error.strerror or error}", FAILED)
    chosen = [SHARED] if ranks else [part for part in PARTS if options.part in ("", part.name)]
    try:
        with tempfile.TemporaryDirectory(prefix="raysslprune-") as scratch:  # a part that is ended leaves its files
            os.environ["TMPDIR"] = scratch
            prepare()
            wait_for_imports()
            for part in chosen:
                limit = part.quick if options.quick else part.limit
                run_part(part, Run(quick=options.quick, data=root, end=time.monotonic() + limit), results)
    except KeyboardInterrupt:
        return say(f"stopped; the results so far are in {results.path}", STOPPED)
    return _ended(results)


def _ended(results: Results) -> int:
    records = results.read()
    failed = failures(records)
    if results.shows:
        passed = sum(record.get("passed", False) for record in records)
        print(f"{passed} checks passed, {failed} lines failed; all results are in {results.path}")
    return FAILED if failed else 0


def _parser() -> Parser:
    parts = "; ".join(f"{part.name}: {part.says}" for part in PARTS)
    parser = Parser(
        prog="python -m benchmarks.gpu",
        description="Prove on a GPU that trainings are right, and measure how fast they are, in eight minutes at most.",
        examples=["python -m benchmarks.gpu --quick", "torchrun --nproc-per-node 2 -m benchmarks.gpu"],
        codes="0 all checks passed; 1 one failed, or a part could not be run; 2 a wrong call",
    )
    parser.add_argument("--quick", action="store_true", help="two minutes at most")
    parser.add_argument(
        "--out", type=path, default="gpu-results", metavar="DIR", help="folder for the results, with one file per run"
    )
    parser.add_argument(
        "--part", default="", choices=[part.name for part in PARTS], help=f"run only this part; {parts}"
    )
    parser.add_argument("--data", type=path, metavar="DIR", help="folder of CIFAR-10, as cifar10 or parquet/cifar10")
    return parser


def _new_file(folder: str) -> str:
    """Create an empty file for the results of this run, or of this rank. Raises OSError."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    rank = f"-rank{os.environ['RANK']}" if "RANK" in os.environ else ""
    file = Path(folder) / f"{time.strftime('%Y-%m-%d-%H%M%S')}{rank}.jsonl"
    file.touch()
    return str(file)


def _has_cifar(root: str) -> bool:
    from benchmarks.gpu.learning import found_name  # imports torch

    return found_name(root) is not None


if __name__ == "__main__":
    process.end(main())
