"""``python -m raysslprune.bench NAME``: how much of the machine reaches the training, and what networks learn.

``loop``, ``masks`` and ``sweep`` are ratios within one run, because machines are noisy (docs/performance.md). ``tasks``
and ``cifar`` show that each task learns, ``rewind`` that Optuna's search is worth it (docs/results.md).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import mean, median, stdev
from typing import Any

from rich.console import Console
from rich.table import Table

from raysslprune.progress import cores


def loop(options: argparse.Namespace) -> dict[str, Any]:
    """Images/s of our loop, with augmentation, mask and checks, over a bare loop on the same resident tensors."""
    import torch

    from raysslprune import data, masks, models
    from raysslprune.scales import SETTINGS
    from raysslprune.spec import Init, Train
    from raysslprune.train import Loop

    torch.set_num_threads(1)
    setting = SETTINGS["laptop"]
    digits = data.load(setting.data)
    shapes = {name: w.shape for name, w in models.prunable(models.trunk(setting.arch, digits.channels)).items()}
    half = sum(shape.numel() for shape in shapes.values()) // 2

    def ours(task: str) -> float:
        step = Train(
            task=task,
            data=setting.data,
            arch=setting.arch,
            recipe=setting.recipes[task],
            seed=0,
            start=Init(seed=0),
        )
        mask = masks.random(shapes, half, torch.Generator().manual_seed(0))
        return Loop(step=step, data=digits, mask=mask).run().images_per_second

    def bare() -> float:
        recipe = setting.recipes["labels"]
        generator = torch.Generator().manual_seed(0)
        net = models.network(
            setting.arch, digits.channels, lambda w: torch.nn.Linear(w, digits.classes), generator, torch.device("cpu")
        )
        net = net.to(memory_format=torch.channels_last)
        assert isinstance(digits.train, data.Resident)
        images = digits.normalise(digits.train.images).contiguous(memory_format=torch.channels_last)
        labels = digits.train.labels
        optimizer = torch.optim.SGD(
            net.parameters(),
            lr=recipe.lr,
            momentum=recipe.momentum,
            nesterov=recipe.nesterov,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
        net.train()
        seen, begun = 0, time.perf_counter()
        while seen < recipe.samples:
            first = seen % (len(images) - recipe.batch)
            batch = slice(first, first + recipe.batch)
            loss = torch.nn.functional.cross_entropy(net(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seen += recipe.batch
        return seen / (time.perf_counter() - begun)

    bare()  # the first run of a process pays for its warm-up
    runs = [{"bare": bare(), "labels": ours("labels"), "rotnet": ours("rotnet")} for _ in range(options.repeats)]
    return {
        "images_per_second": {name: _spread([run[name] for run in runs]) for name in runs[0]},
        "over_bare": {task: _spread([run[task] / run["bare"] for run in runs]) for task in ("labels", "rotnet")},
    }


def masks(options: argparse.Namespace) -> dict[str, Any]:
    """Global magnitude pruning of ResNet-50 beside torch's own, on one core, and the ways by which its mask travels."""
    import ray
    import torch
    from safetensors.torch import save
    from torch.nn.utils import prune

    from raysslprune import masks, models
    from raysslprune.cluster import connected
    from raysslprune.exchange import Exchange
    from raysslprune.spec import Init, Prune, Recipe, Train
    from raysslprune.store import MASK, Store

    torch.set_num_threads(1)
    net = models.network("resnet50", 3, torch.nn.Identity, torch.Generator().manual_seed(0), torch.device("cpu"))
    drawn = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    weights = models.prunable(net.trunk)
    shapes = {name: weight.shape for name, weight in weights.items()}
    full = masks.full(shapes)
    packed = masks.pack(masks.prune(weights, full, 0.8))
    carried = {name: bits.numpy() for name, bits in packed.items()}
    layers = [(part, "weight") for part in net.trunk.modules() if isinstance(part, torch.nn.Conv2d)]
    assert {id(part.weight) for part, _ in layers} == {id(weight) for weight in weights.values()}

    def theirs() -> None:
        prune.global_unstructured(layers, prune.L1Unstructured, amount=0.2)

    def restored() -> None:
        for part, name in layers:
            prune.remove(part, name)
        net.load_state_dict(drawn)

    def seconds(work: Callable[[], object]) -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    runs: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as folder, connected(cpus=1):
        store, board = Store(folder), Exchange.start()
        recipe = Recipe(samples=2, batch=2, lr=1.0)
        dense = Train(task="labels", data="digits", arch="resnet50", recipe=recipe, seed=0, start=Init(seed=0))
        mask = Prune(of=dense, keep=0.8)
        store.commit(mask, {MASK: save(packed)}, {}, {})
        for number in range(-1, options.repeats):  # the first warms up
            put = board.actor.put
            run = {
                "prune, ours": seconds(lambda: masks.prune(weights, full, 0.8)),
                "prune, torch": seconds(theirs),
                "pack": seconds(lambda: masks.pack(full)),
                "unpack": seconds(lambda: masks.unpack(packed, shapes)),
                "put into the object store": seconds(lambda n=number, put=put: ray.get(put.remote(str(n), carried))),
                "get from the object store": seconds(lambda n=number: board.get(str(n))),
                "read the file and check it": seconds(lambda: store.artefact(mask.id, MASK)),
            }
            restored()
            runs += [run] if number >= 0 else []
    ours = "prune, ours"
    return {
        "weights": sum(shape.numel() for shape in shapes.values()),
        "bytes of the mask": sum(bits.nbytes for bits in carried.values()),
        "seconds": {name: _spread([run[name] for run in runs]) for name in runs[0]},
        "torch over ours": _spread([run["prune, torch"] / run[ours] for run in runs]),
        "pack and unpack over pruning": _spread([(run["pack"] + run["unpack"]) / run[ours] for run in runs]),
        "file over object store": _spread(
            [run["read the file and check it"] / run["get from the object store"] for run in runs]
        ),
        "extra memory over weights": _spread([_memory_of_pruning() for _ in range(options.repeats)]),
    }


PRUNING = """
import re, torch
from pathlib import Path
from raysslprune import masks

def status(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

torch.set_num_threads(1)
weights = {str(layer): torch.randn(512, 512, 3, 3) for layer in range(10)}
full = masks.full({name: weight.shape for name, weight in weights.items()})
masks.prune({"0": weights["0"][:8]}, {"0": full["0"][:8]}, 0.8)
Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
before = status("VmRSS")
masks.prune(weights, full, 0.8)
print((status("VmHWM") - before) / sum(weight.nbytes for weight in weights.values()))
"""


def _memory_of_pruning() -> float:
    """Memory that pruning takes beside weights and masks, over that of the weights (23.6 million)."""
    return float(subprocess.run([sys.executable, "-c", PRUNING], check=True, capture_output=True, text=True).stdout)


def sweep(options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of pure training over (wall seconds x cores) of fig3 with three seeds, from the command to the figure."""
    from raysslprune import plan, results
    from raysslprune.store import Store
    from raysslprune.sweep import load

    fig3 = load("fig3", "laptop", 3)
    graph = plan.make(fig3.points)
    walls, trainings = [], []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            root = os.path.join(folder, "runs")
            command = [sys.executable, "-m", "raysslprune.sweep", "fig3", "--seeds", "3", "--root", root]
            begun = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            walls.append(time.perf_counter() - begun)
            records, _ = Store(root).survey(graph.ids)
            assert len(results.table("fig3", "laptop", fig3.points, records)) == len(fig3.points)
            trainings.append(sum(records[job].facts["seconds"] for job in graph.jobs))
    return {
        "steps": len(graph.jobs),
        "wall_seconds": _spread(walls),
        "training_seconds": _spread(trainings),
        "efficiency": _spread([t / (w * cores()) for t, w in zip(trainings, walls, strict=True)]),
    }


def tasks(options: argparse.Namespace) -> dict[str, Any]:
    """What each task learns at laptop scale: its own metrics, and linear classifiers on its and on untrained features.

    By the same steps as in a sweep, one after the other on one core.
    """
    import torch

    from raysslprune import lottery, plan
    from raysslprune.run import NoExchange, Runner
    from raysslprune.scales import FEW, SETTINGS
    from raysslprune.spec import Init, Train
    from raysslprune.store import Store
    from raysslprune.sweepfile import Point

    torch.set_num_threads(1)
    s = SETTINGS["laptop"]
    linear, svm = (probe.recipe for probe in s.linear)
    s4l = f"s4l:{FEW}"

    def step(task: str, data: str, recipe: str, seed: int, **changes: Any) -> Train:
        made = replace(s.recipes[recipe], **changes)
        return Train(task=task, data=data, arch=s.arch, recipe=made, seed=seed, start=Init(seed=seed))

    steps: dict[str, list[Train]] = {}
    part, few = f"{s.data}:{FEW}", f"labels:{FEW}"
    for seed in range(options.repeats):
        for task in ("labels", "rotnet", "exemplar", "npid", "s4l"):
            dense = step(task, s.data, s4l if task == "s4l" else task, seed)
            named = {
                task: dense,
                f"{task}: linear": lottery.linear(dense, data=s.data, recipe=linear),
                f"{task}: SVM": lottery.linear(dense, data=s.data, recipe=svm),
            }
            for name, one in named.items():
                steps.setdefault(name, []).append(one)
        tenth = step("labels", part, few, seed)
        many = step("labels", part, few, seed, batch=s.recipes[s4l].batch)
        for name, dense in {"labels 10%": tenth, "labels 10%, as many updates as s4l": many}.items():
            steps.setdefault(name, []).append(dense)
            steps.setdefault(f"{name}: linear", []).append(lottery.linear(dense, data=s.data, recipe=linear))
        steps.setdefault("untrained: linear", []).append(lottery.untrained(dense, data=s.data, recipe=linear))
        steps.setdefault("untrained: SVM", []).append(lottery.untrained(dense, data=s.data, recipe=svm))
    points = [
        Point(step=one, task=name, init="", level=0, seed=one.seed) for name, made in steps.items() for one in made
    ]
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = Store(folder)
        store.create()
        runner = Runner(store=store, exchange=NoExchange())
        for job in plan.make(points).jobs.values():
            runner.run(job.to_plain())
        for name, made in steps.items():
            records = [record for one in made if (record := store.record(one.id))]
            for metric in records[0].metrics:
                if metric.endswith(("top1", "accuracy", "map")):
                    values = [record.metrics[metric] for record in records]
                    measured[f"{name} {metric}"] = _over_seeds(values)
    return measured


def cifar(options: argparse.Namespace) -> dict[str, Any]:
    """CIFAR-10 for real: the paper's recipe, shortened to some epochs with its decays where they were in proportion."""
    import torch

    from raysslprune import data
    from raysslprune.recipes import CIFAR, appendix_d
    from raysslprune.spec import Init, Train
    from raysslprune.train import Hooks, Loop

    paper = appendix_d(options.task, "cifar10", options.arch)
    samples = round(options.epochs * CIFAR)
    recipe = replace(paper, samples=samples, decay_at=tuple(at * samples // paper.samples for at in paper.decay_at))
    step = Train(task=options.task, data=options.dataset, arch=options.arch, recipe=recipe, seed=0, start=Init(seed=0))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def shown(seen: int, end: int) -> None:
        print(f"\r{seen:,} of {end:,} samples", end="" if seen < end else "\n", file=sys.stderr, flush=True)

    loop = Loop(step=step, data=data.load(options.dataset, options.data), device=device, hooks=Hooks(progress=shown))
    outcome = loop.run()
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads",
        "samples": loop.seen,
        "seconds": outcome.seconds,
        "images_per_second": outcome.images_per_second,
        **outcome.metrics,
    }


def rewind(options: argparse.Namespace) -> dict[str, Any]:
    """How well Optuna finds the best rewind: the study's full grid is trained, then searched again and again."""
    from raysslprune import plan, results, search
    from raysslprune import sweep as command
    from raysslprune.loader import load
    from raysslprune.store import Store
    from raysslprune.sweepfile import Search

    study = load("rewind", "laptop", options.repeats)
    assert isinstance(study.drawing, Search)
    grid = replace(study.drawing, title="All rewinds", trials=len(study.points))
    everything = replace(study, name="rewind-grid", drawing=grid)  # a journal and a table of its own
    store = Store(options.root)
    with contextlib.redirect_stdout(sys.stderr):
        if command.make([everything], "laptop", store, ""):
            raise SystemExit(1)
    records, _ = store.survey(plan.make(study.points).ids)
    rows = results.summary(results.table("rewind", "laptop", study.points, records)).to_pylist()
    values: dict[tuple[str, int], dict[int, float]] = {}
    errors: dict[tuple[str, int], float] = {}
    for row in sorted(rows, key=lambda row: row["mean"]):
        key = (row["task"], row["level"])
        values.setdefault(key, {})[row["rewind"]] = row["mean"]
        errors[key] = row["stderr"] or 0.0  # of the best, which comes last
    return {
        f"{found.task}, level {found.level}": {
            "candidates": found.candidates,
            "tried": found.trials,
            "grid's best": max(values[found.task, found.level].values()),
            "found it": found.equal,
            "within one standard error": found.within,
            "chance finds it": found.random_equal,
            "chance within": found.random_within,
        }
        for found in search.replay(values, study.drawing.trials, range(100), errors)
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m raysslprune.bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    kinds = parser.add_subparsers(dest="name", required=True)
    for run, repeats, says in (
        (loop, 7, "images/s of the training loop over a bare one"),
        (masks, 5, "pruning beside torch's own; masks through Ray and through files"),
        (sweep, 1, "efficiency of the whole command"),
        (tasks, 3, "what each task learns on digits, over seeds"),
        (rewind, 3, "whether Optuna finds the best rewind of a full grid, over seeds"),
    ):
        kind = kinds.add_parser(run.__name__, help=says)
        kind.add_argument("--repeats", type=int, default=repeats, help="how often (default: %(default)s)")
        if run is rewind:
            kind.add_argument("--root", default="runs", help="where the grid's results live (default: ./runs)")
        kind.set_defaults(run=run)
    kind = kinds.add_parser("cifar", help="accuracy and images/s of one training on CIFAR-10")
    kind.add_argument("--data", default=os.environ.get("RAYSSLPRUNE_DATA") or "data", help="where data sets lie")
    kind.add_argument("--dataset", default="cifar10", help="cifar10, or parquet/NAME (default: %(default)s)")
    kind.add_argument("--task", default="labels", choices=["labels", "rotnet", "exemplar"])
    kind.add_argument("--arch", default="resnet18-cifar", choices=["resnet18-cifar", "vgg19"])
    kind.add_argument("--epochs", type=float, default=160, help="the paper's: 160; 180 for exemplar")
    kind.set_defaults(run=cifar)
    options = parser.parse_args(arguments)
    measured = options.run(options)
    machine = {"cores": cores(), "processor": platform.machine(), "python": platform.python_version()}
    if options.json:
        print(json.dumps({"benchmark": options.name, "machine": machine, **measured}, indent=1))
        return 0
    statistics = next((list(v) for v in _leaves(measured).values() if isinstance(v, dict)), [])
    table = Table("", *statistics, box=None, padding=(0, 3, 0, 0))
    for name, value in _leaves(measured).items():
        cells = value.values() if isinstance(value, dict) else [value]
        table.add_row(name.replace("_", " "), *map(_shown, cells))
    Console().print(table)
    return 0


def _leaves(measured: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Groups of measurements flattened; a leaf is a value or its statistics."""
    flat: dict[str, Any] = {}
    for name, value in measured.items():
        if isinstance(value, dict) and any(isinstance(inner, dict) for inner in value.values()):
            flat |= _leaves(value, f"{prefix}{name} ")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _shown(value: float | str) -> str:
    return f"{value:,.{3 if abs(value) < 10 else 1}f}" if isinstance(value, float) else str(value)


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "lowest": min(values), "highest": max(values), "n": len(values)}


def _over_seeds(values: Sequence[float]) -> dict[str, float]:
    error = stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return {"mean": mean(values), "standard error": error, "n": len(values)}


if __name__ == "__main__":
    sys.exit(main())
