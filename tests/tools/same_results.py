"""Prove that two roots hold the same results of the same sweeps, as before and after a change of the code.

    python tests/tools/same_results.py BEFORE AFTER        # two roots, each made by its own code
    python tests/tools/same_results.py BEFORE FIG3 --only-common        # FIG3 has fewer sweeps than BEFORE
    python tests/tools/same_results.py BEFORE              # this checkout's code, on a copy of BEFORE

Step ids, masks, weights, metrics, tables and figures must be the same byte for byte. Only the tables of runs
(*-runs.parquet) are compared without what differs from run to run: times, hosts and versions. The tables of steps
(*-steps.parquet) are not compared, since all that is in them is compared as spec, metric or run. Each file of a step
must match its checksum in SUCCESS, too. Prints a line for each kind; exit code 1 if anything differs, 2 for a wrong
call.

With one root, the sweeps that it last ran are given again on a copy without tables, figures and index. They must leave
every SUCCESS as it is, since its times would change if anything were trained again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

VOLATILE = {
    *("seconds", "images_per_second", "begun", "resumed_at", "host"),
    *("raysslprune", "torch", "numpy", "python"),
}
"""Columns of a table of runs that may differ between two runs of a sweep."""

MASK = "mask.safetensors"

MAX_NAMES = 10
"""Names in a line, of those that differ."""

Contents = dict[str, str]
"""What two roots must have in common: name to value."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Prove that two roots hold the same results of the same sweeps.")
    parser.add_argument("before", type=_root)
    parser.add_argument("after", type=_root, nargs="?", help="default: a copy of BEFORE with tables and figures anew")
    parser.add_argument("--only-common", action="store_true", help="leave out what only one of them has")
    options = parser.parse_args(arguments)
    if options.after:
        return compare(options.before, options.after, KINDS, options.only_common)
    with tempfile.TemporaryDirectory(prefix="same-results-") as folder:
        copy = Path(folder) / "copy"
        if not run_again(options.before, copy):
            return 1
        return compare(options.before, copy, {**KINDS, "records, with times": successes}, options.only_common)


def compare(before: Path, after: Path, kinds: Mapping[str, Callable[[Path], Contents]], only_common: bool) -> int:
    """Print a line for each kind of contents; returns the exit code."""
    different = False
    for kind, contents in kinds.items():
        old, new = contents(before), contents(after)
        common = old.keys() & new.keys()
        wrong = [name for name in common if old[name] != new[name]]
        alone = [f"{name} (only {side})" for side, names in _alone(old, new) for name in names]
        line = f"{kind}: {len(common)} compared, {len(wrong)} differ"
        if alone:
            line += f", {len(alone)} only in one root" + ", left out" * only_common
        named = sorted(wrong) + sorted([] if only_common else alone)
        nothing = not common and bool(old or new)
        if named:
            more = f" and {len(named) - MAX_NAMES} more" * (len(named) > MAX_NAMES)
            line += f": {', '.join(named[:MAX_NAMES])}{more}"
        elif nothing:
            line += ": nothing in common"
        print(line)
        different |= bool(named) or nothing
    return int(different)


def _alone(old: Contents, new: Contents) -> Iterator[tuple[str, set[str]]]:
    yield "before", old.keys() - new.keys()
    yield "after", new.keys() - old.keys()


def run_again(before: Path, copy: Path) -> bool:
    """Give the sweeps that ``before`` last ran again, on a copy that has none of what is made from its steps."""
    ran = json.loads((before / "status.json").read_bytes())
    shutil.copytree(
        before, copy, ignore=lambda folder, _: ["results", "index.parquet"] if folder == str(before) else []
    )
    sweeps = [sys.executable, "-m", "raysslprune.sweep", *ran["sweeps"], "--scale", ran["scale"], "--root", str(copy)]
    if ran["seeds"]:
        sweeps += ["--seeds", str(ran["seeds"])]
    done = subprocess.run(sweeps, capture_output=True, text=True)
    if done.returncode:
        print(f"the sweeps ended with exit code {done.returncode}: {done.stderr}", file=sys.stderr)
    return not done.returncode


# ------------------------------------------------------------------ what a root holds


def step_ids(root: Path) -> Contents:
    return {path.name: "done" if (path / "SUCCESS").exists() else "unfinished" for path in root.glob("steps/*")}


def specs(root: Path) -> Contents:
    return _files(root, "spec.json")


def masks(root: Path) -> Contents:
    return _files(root, MASK)


def weights(root: Path) -> Contents:
    return {name: value for name, value in _files(root, "*.safetensors").items() if Path(name).name != MASK}


def metrics(root: Path) -> Contents:
    return {path.parent.name: json.dumps(_record(path)["metrics"]) for path in _successes(root)}


def tables(root: Path) -> Contents:
    return {
        _name(path, root): _digest(path)
        for path in root.glob("results/**/*.parquet")
        if not path.name.endswith(("-runs.parquet", "-steps.parquet"))
    }


def runs(root: Path) -> Contents:
    found: Contents = {}
    for path in root.glob("results/**/*-runs.parquet"):
        try:
            table = pq.ParquetFile(path).read()
        except (pa.ArrowException, OSError):
            found[_name(path, root)] = f"not whole in {root}"
            continue
        steady = table.select([name for name in table.column_names if name not in VOLATILE])
        found[_name(path, root)] = repr((table.schema.names, table.schema.types, steady.to_pylist()))
    return found


def figures(root: Path) -> Contents:
    return {
        _name(path, root): _digest(path)
        for path in root.glob("results/**/*")
        if path.suffix in (".png", ".svg", ".pdf")
    }


def successes(root: Path) -> Contents:
    return {path.parent.name: _digest(path) for path in _successes(root)}


KINDS: dict[str, Callable[[Path], Contents]] = {
    "steps": step_ids,
    "specs": specs,
    "masks": masks,
    "weights": weights,
    "metrics": metrics,
    "tables": tables,
    "tables of runs": runs,
    "figures": figures,
}


def _files(root: Path, pattern: str) -> Contents:
    """Checksums of the steps' files of that name, both those in the steps' SUCCESS and those of the files."""
    found: Contents = {}
    for success in _successes(root):
        step = success.parent
        recorded = {name: file["sha256"] for name, file in _record(success)["files"].items()}
        for name in {path.name for path in step.glob("*")} | recorded.keys():
            if not Path(name).match(pattern):
                continue
            digest = _digest(step / name)
            whole = digest == recorded.get(name)
            found[f"{step.name}/{name}"] = digest if whole else f"{digest} against its SUCCESS in {root}"
    return found


def _successes(root: Path) -> Iterator[Path]:
    return root.glob("steps/*/SUCCESS")


def _record(success: Path) -> dict[str, Any]:
    try:
        return json.loads(success.read_bytes())
    except ValueError:
        return {"metrics": f"not whole in {success}", "files": {}}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "missing"


def _name(path: Path, root: Path) -> str:
    return str(path.relative_to(root))


def _root(text: str) -> Path:
    if not (Path(text) / "steps").is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no root of sweeps: it has no folder steps")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main())
