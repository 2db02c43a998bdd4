"""Speed of pruning beside torch's own, and of the ways to pass a mask on."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks.statistics import spread
from raysslprune.commands.common import positive


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Time global magnitude pruning of ResNet-50 beside torch's own, on one core, and the ways to pass its mask on."""
    import ray
    import torch
    from safetensors.torch import save
    from torch.nn.utils import prune

    from raysslprune import masks, models
    from raysslprune.cluster.nodes import connected
    from raysslprune.cluster.shared import Exchange
    from raysslprune.spec import Init, Prune, Recipe, Train
    from raysslprune.store.record import MASK
    from raysslprune.store.steps import Store

    torch.set_num_threads(1)
    net = models.network("resnet50", 3, torch.nn.Identity, torch.Generator().manual_seed(0), torch.device("cpu"))
    drawn = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    weights = models.prunable(net.trunk)
    shapes = {name: weight.shape for name, weight in weights.items()}
    full = masks.full(shapes)
    generator = torch.Generator().manual_seed(0)
    zeros = {name: weight * (torch.rand(weight.shape, generator=generator) > 0.845) for name, weight in weights.items()}
    packed = masks.pack(masks.prune(weights, full, 0.8, generator).mask)
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
                "prune, ours": seconds(lambda: masks.prune(weights, full, 0.8, generator)),
                "prune, ours, 84.5% zeros": seconds(lambda: masks.prune(zeros, full, 0.8, generator)),
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
        "seconds": {name: spread([run[name] for run in runs]) for name in runs[0]},
        "torch over ours": spread([run["prune, torch"] / run[ours] for run in runs]),
        "84.5% zeros over distinct": spread([run[f"{ours}, 84.5% zeros"] / run[ours] for run in runs]),
        "pack and unpack over pruning": spread([(run["pack"] + run["unpack"]) / run[ours] for run in runs]),
        "file over object store": spread(
            [run["read the file and check it"] / run["get from the object store"] for run in runs]
        ),
        "extra memory over weights": spread([_memory_of_pruning() for _ in range(options.repeats)]),
    }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--repeats", type=positive, default=5, help="how often (default: %(default)s)")


PRUNING = """
import re, torch
from pathlib import Path
from raysslprune import masks

def status(name):
    return 1024 * int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
weights = {str(layer): torch.randn(512, 512, 3, 3) for layer in range(10)}
full = masks.full({name: weight.shape for name, weight in weights.items()})
masks.prune({"0": weights["0"][:8]}, {"0": full["0"][:8]}, 0.8, generator)
Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
before = status("VmRSS")
masks.prune(weights, full, 0.8, generator)
print((status("VmHWM") - before) / sum(weight.nbytes for weight in weights.values()))
"""


def _memory_of_pruning() -> float:
    """Return the memory of pruning, besides weights and masks, relative to that of the weights (23.6 million)."""
    return float(subprocess.run([sys.executable, "-c", PRUNING], check=True, capture_output=True, text=True).stdout)
