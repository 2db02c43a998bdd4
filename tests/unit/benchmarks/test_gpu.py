"""``python -m benchmarks.gpu`` on the CPU: its checks can fail, its limits hold, and it needs few packages."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu import correctness, table
from benchmarks.gpu.__main__ import PARTS
from benchmarks.gpu.correctness import TASKS
from benchmarks.gpu.grouped import grouped
from benchmarks.gpu.results import Check, Line, Measured, Results, Said, failures, read
from benchmarks.gpu.run import Part, Run, prepare, run_part, together, wait_for_imports, write
from benchmarks.statistics import spread
from raysslprune import models
from raysslprune.paper.scales import SETTINGS
from raysslprune.tasks import byol, exemplar, labels, moco, npid, rotnet, s4l, simclr, vicreg
from raysslprune.training.loop import optimizer
from tests.helpers import CHECKOUT

CPU = torch.device("cpu")


def gpu(*arguments: str, cwd: Path = CHECKOUT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.gpu", *arguments]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True)


def written(folder: Path, which: str = "") -> list[dict[str, Any]]:
    (file,) = folder.glob(f"*{which}.jsonl")
    return read(file)


# ------------------------------------------------------------------------------------- lines


def check(found: float, expected: float = 1.0, tolerance: float = 0.5) -> Check:
    return Check(name="a", found=found, expected=expected, tolerance=tolerance, why="because")


def test_a_check_passes_within_its_tolerance_and_never_with_nan() -> None:
    assert [check(found).passed for found in (0.4, 0.5, 1.5, 1.6, math.nan, math.inf)] == [False, True, True] + [
        False
    ] * 3


def test_each_line_is_valid_json_at_once_and_readable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(str(tmp_path / "r.jsonl"), time.monotonic())
    lines = [
        check(1.2),
        check(math.nan),
        Measured(name="b", values={"speed": spread([1.0, 2.0, 6.0])}),
        Said(name="c", says="no"),
    ]
    for count, line in enumerate(lines, start=1):
        results.add("part", line)
        raw = Path(results.path).read_text().splitlines()
        assert len(raw) == count
        json.loads(raw[-1], parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert failures(results.read()) == 1
    shown = capsys.readouterr().out.splitlines()
    assert [line.partition(": ")[2] for line in shown] == [
        "passed, 1.2, expected 1 ± 0.5", "FAILED, nan, expected 1 ± 0.5", "speed 2", "no",
    ]  # fmt: skip


# ------------------------------------------------------------------------------------- parts


class Steps(Part):
    """A part of given lines; a number is waited for so many seconds, an exception raised."""

    given: tuple[Any, ...] = ()

    def lines(self, run: Run) -> Iterator[Line]:
        for step in self.given:
            if isinstance(step, float):
                time.sleep(step)
            elif isinstance(step, Exception):
                raise step
            else:
                yield step


class Waits(Steps):
    given = (check(1.0), 600.0)


class Dies(Steps):
    given = (check(1.0),)

    def lines(self, run: Run) -> Iterator[Line]:
        yield from super().lines(run)
        os._exit(3)


def part(kind: type[Steps], *given: Any) -> Steps:
    made = kind(name="part", says="", limit=1, quick=1)
    if given:
        object.__setattr__(made, "given", given)
    return made


@pytest.fixture(scope="module")
def server() -> None:
    """That of processes, which has imported torch."""
    prepare()
    wait_for_imports()


def after(tmp_path: Path, do: Callable[[Part, Run, Results], None], one: Part, limit: float) -> list[dict[str, Any]]:
    results = Results(str(tmp_path / "r.jsonl"), time.monotonic())
    do(one, Run(quick=True, data="", end=time.monotonic() + limit), results)
    return results.read()


@pytest.mark.usefixtures("server")
def test_a_part_that_hangs_is_ended_and_is_no_failure(tmp_path: Path) -> None:
    records = after(tmp_path, run_part, part(Waits), 3)
    assert [record["name"] for record in records] == ["a", "time"]
    assert "its limit; the rest was not measured" in records[1]["says"]
    assert failures(records) == 0


@pytest.mark.usefixtures("server")
def test_a_part_whose_process_dies_has_failed(tmp_path: Path) -> None:
    records = after(tmp_path, run_part, part(Dies), 100)
    assert [record["name"] for record in records] == ["a", "process"]
    assert failures(records) == 1


def test_a_part_that_raises_has_failed_in_a_sentence(tmp_path: Path) -> None:
    records = after(tmp_path, write, part(Steps, check(1.0), ValueError("no\nluck")), 100)
    assert records[1]["says"] == "ValueError: no luck"
    assert "Traceback" in records[1]["details"]
    assert failures(records) == 1


def test_between_lines_a_part_looks_at_the_time(tmp_path: Path) -> None:
    records = after(tmp_path, write, part(Steps, check(1.0), 0.3, check(1.0), check(1.0)), 0.2)
    assert [record["name"] for record in records] == ["a", "a", "time"]
    assert failures(records) == 0


def meets(run: Run, wait: Callable[[], None], number: int, seconds: float) -> tuple[float, float]:
    time.sleep(number * seconds)
    came = time.monotonic()
    wait()
    return came, time.monotonic()


def fails(run: Run, wait: Callable[[], None], number: int) -> None:
    if number:
        raise ValueError("broken")
    wait()


@pytest.mark.usefixtures("server")
def test_processes_wait_for_each_other_and_one_that_fails_ends_all() -> None:
    run = Run(quick=True, data="", end=time.monotonic() + 100)
    spans = together(run, 2, meets, 0.3)
    assert min(went for _, went in spans) >= max(came for came, _ in spans)
    with pytest.raises(RuntimeError, match="in process 1, ValueError: broken"):
        together(run, 2, fails)


UNTOUCHED = """
import torch
asked = []
for module, name in ((torch._C, "_cuda_getDeviceCount"), (torch._C, "_cuda_init"), (torch.cuda, "is_available")):
    if hasattr(module, name):
        setattr(module, name, lambda *given, name=name: asked.append(name))
import benchmarks.gpu.preload
assert not asked, asked
assert not torch.cuda.is_initialized()
torch.cuda.is_available()
assert asked
"""


def test_what_processes_are_forked_from_never_touches_the_gpu() -> None:
    """Else no fork of it could use CUDA."""
    done = subprocess.run([sys.executable, "-c", UNTOUCHED], cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------- correctness

CLASSES = {
    "labels": labels.Labels,
    "rotnet": rotnet.RotNet,
    "exemplar": exemplar.Exemplar,
    "npid": npid.NPID,
    "s4l": s4l.S4L,
    "simclr": simclr.SimCLR,
    "moco": moco.MoCo,
    "byol": byol.BYOL,
    "vicreg": vicreg.VICReg,
}


@pytest.mark.parametrize("task", TASKS)
def test_a_loss_agrees_with_its_definition_and_a_changed_one_does_not(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def passed() -> list[bool]:
        lines = list(correctness.first(CPU, task, "float32"))
        return [line.passed for line in lines if isinstance(line, Check)]

    assert passed() == [True, True, True]
    right = CLASSES[task].loss
    monkeypatch.setattr(CLASSES[task], "loss", lambda *given: 1.001 * right(*given))
    assert passed() == [False, True, True]
    monkeypatch.setattr(CLASSES[task], "loss", lambda *given: 1.05 * right(*given))
    assert passed() == [False, False, True]


def test_weights_that_come_back_to_life_are_seen() -> None:
    mask = {"w": torch.tensor([True, False, False])}
    assert correctness.zeros("a", {"trunk.w": torch.tensor([0.0, 0.0, 1e-30])}, mask).found == 1


def test_a_mask_by_a_full_sort_breaks_ties_as_the_mask_does() -> None:
    weights = {"a": torch.tensor([[-2.0, 1.0]]), "b": torch.tensor([1.0, 3.0, 1.0, 9.0])}
    before = {"a": torch.tensor([[True, True]]), "b": torch.tensor([True, True, True, False])}
    for drawn in ([[True, True]], [False, True, False, False]), ([[True, False]], [False, True, True, False]):
        mask = {name: torch.tensor(bits) for name, bits in zip(weights, drawn, strict=True)}
        kept = correctness.sorted_mask(weights, before, 3, mask)
        assert {name: bits.tolist() for name, bits in kept.items()} == dict(zip(weights, drawn, strict=True))
    smallest = {"a": torch.tensor([[False, True]]), "b": torch.tensor([True, False, True, False])}
    assert correctness.differing(smallest, correctness.sorted_mask(weights, before, 3, smallest)) == 4


# ------------------------------------------------------------------------------------- grouped networks


def network(arch: str, seed: int) -> models.Network:
    generator = torch.Generator().manual_seed(seed)
    return models.network(arch, 3, lambda width: nn.Linear(width, 10), generator, CPU).double()


@pytest.mark.parametrize(
    ("arch", "size"),
    [
        ("conv4", 8),
        ("resnet8", 8),
        ("alexnet8", 8),
        *(pytest.param(*large, marks=pytest.mark.slow) for large in (("resnet18-cifar", 8), ("vgg11", 32))),
    ],
)
def test_grouped_networks_are_the_separate_ones(arch: str, size: int) -> None:
    """Their outputs, and after an update with momentum and weight decay their weights and running statistics."""
    recipe = replace(SETTINGS["laptop"].recipes["labels"], lr=0.01)
    nets = [network(arch, seed) for seed in range(3)]
    one = grouped(nets)
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(6, 3, size, size, generator=generator, dtype=torch.float64) for _ in nets]
    wanted = [torch.randint(10, (6,), generator=generator) for _ in nets]

    def updated(net: nn.Module, loss: Callable[[], Tensor]) -> None:
        update = optimizer(recipe, net)
        loss().backward()
        update.step()

    outputs = one(torch.cat(images, dim=1))
    assert outputs.shape == (6, 3, 10)
    for index, (net, image) in enumerate(zip(nets, images, strict=True)):
        torch.testing.assert_close(outputs[:, index], net(image), rtol=1e-9, atol=1e-9)
    updated(one, lambda: sum_of_losses(one(torch.cat(images, dim=1)), wanted))
    for net, image, target in zip(nets, images, wanted, strict=True):
        updated(net, lambda net=net, image=image, target=target: F.cross_entropy(net(image), target))
    again = grouped(nets)
    for (name, tensor), (_, other) in zip(one.state_dict().items(), again.state_dict().items(), strict=True):
        torch.testing.assert_close(tensor, other, rtol=1e-8, atol=1e-10, msg=name)


def sum_of_losses(outputs: Tensor, wanted: list[Tensor]) -> Tensor:
    return torch.stack([F.cross_entropy(outputs[:, index], target) for index, target in enumerate(wanted)]).sum()


def test_a_layer_that_is_not_known_is_not_grouped() -> None:
    with pytest.raises(TypeError, match="'weight' of PReLU is not known"):
        grouped([nn.Sequential(nn.PReLU()), nn.Sequential(nn.PReLU())])


# ------------------------------------------------------------------------------------- the page


def test_results_become_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = Results(str(tmp_path / "r.jsonl"), time.monotonic())
    results.add("machine", Measured(name="device", values={"name": "H9", "cores": 4}))
    results.add("loop", check(1.0))
    results.add("loop", check(9.0))
    results.add("loop", Measured(name="conv4", values={"images/s": spread([1234.5, 2000.0, 3000.0]), "over": 0.5}))
    results.add("loop", Said(name="time", says="its time is over"))
    capsys.readouterr()
    assert table.main([results.path]) == 0
    assert capsys.readouterr().out.split("\n\n") == [
        "On H9: cores 4.",
        "*loop*: 1 of 2 checks passed. FAILED: a: 9, expected 1 ± 0.5. time: its time is over.",
        "| loop | images/s | over |\n| --- | --- | --- |\n| conv4 | 2,000 (1,234-3,000) | 0.5 |\n",
    ]
    page = tmp_path / "page.md"
    page.write_text(f"before\n{table.BEGIN}\n\nold\n\n{table.END}\nafter\n")
    assert table.main([results.path, "--into", str(page)]) == 0
    assert page.read_text() == f"before\n{table.block(Path(results.path))}\nafter\n"
    page.write_text("nothing")
    assert table.main([results.path, "--into", str(page)]) == 1
    assert "the page has no line" in capsys.readouterr().err


def test_the_page_shows_what_was_measured() -> None:
    """Numbers are not typed by hand: python -m benchmarks.gpu.table benchmarks/gpu/measured.jsonl --into the page."""
    page = (CHECKOUT / "docs/performance.md").read_text()
    assert table.block() in page
    assert table.MEASURED.exists() or table.UNMEASURED in page


def test_the_page_names_every_part() -> None:
    page = (CHECKOUT / "docs/performance.md").read_text()
    assert [part.name for part in PARTS if f"| `{part.name}` |" not in page] == []


# ------------------------------------------------------------------------------------- the command


def test_limits_add_up_to_eight_minutes_and_two() -> None:
    assert sum(part.limit for part in PARTS) <= 480
    assert sum(part.quick for part in PARTS) <= 120


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--part", "speed"], 2, "invalid choice: 'speed'"),
        (["--data", "/nowhere"], 1, "there is no CIFAR-10 in /nowhere; without --data, images are made up"),
        (["--out", "/proc/nowhere"], 1, "can't write to /proc/nowhere: No such file or directory"),
    ],
)
def test_what_can_not_be_done_is_said_in_a_sentence(arguments: list[str], code: int, says: str) -> None:
    done = gpu(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("raysslprune: ")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


ONLY = ("torch", "torchvision", "numpy", "safetensors", "scikit-learn", "pyarrow", "pytest", "rich")
"""Distributions that the command may need, with what they require themselves."""

ABSENT = f"""
import importlib.machinery, importlib.metadata as metadata, re, sys

def closure(names):
    found, left = set(), list(names)
    while left:
        name = re.match(r"[\\w.-]+", left.pop())[0].lower().replace("_", "-")
        if name in found:
            continue
        found.add(name)
        try:
            left += [r for r in metadata.requires(name) or () if "extra ==" not in r]
        except metadata.PackageNotFoundError:
            pass
    return found

there = closure({ONLY})
owners = metadata.packages_distributions()
absent = {{module for module in owners if not there & {{name.lower().replace("_", "-") for name in owners[module]}}}}
absent -= {{"raysslprune", "pip", "setuptools"}}
assert {{"ray", "duckdb", "tensorboardX", "matplotlib", "optuna", "hypothesis"}} <= absent, absent

class Present(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in absent else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Present
"""


@pytest.fixture
def few_packages(tmp_path: Path) -> str:
    """A folder for PYTHONPATH: with it, a program and all that it starts find no other packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(ABSENT)
    return str(folder)


def test_a_package_that_is_absent_would_be_missed(few_packages: str) -> None:
    environment = os.environ | {"PYTHONPATH": few_packages}
    command = [sys.executable, "-c", "import torch, rich, pytest, PIL\nimport duckdb"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert "No module named 'duckdb'" in done.stderr


@pytest.mark.slow
def test_all_parts_run_with_few_packages(few_packages: str, tmp_path: Path) -> None:
    """On the CPU in small; no part is wrong, and the tests of devices ran. A slow machine may end parts early."""
    done = gpu("--quick", "--out", str(tmp_path / "out"), PYTHONPATH=few_packages)
    assert done.returncode == 0, done.stdout
    assert "Traceback" not in done.stderr
    records = written(tmp_path / "out")
    assert failures(records) == 0
    assert [part.name for part in PARTS] == list(dict.fromkeys(record["part"] for record in records))
    assert sum(record.get("passed", False) for record in records) > 30
    assert len(done.stdout.splitlines()) == len(records) + 1
    assert table.markdown(records).startswith("On CPU: ")


@pytest.mark.slow
def test_a_loss_that_was_changed_makes_it_exit_1(tmp_path: Path) -> None:
    copy = tmp_path / "checkout"
    for name in ("raysslprune", "benchmarks"):
        shutil.copytree(CHECKOUT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    changed = copy / "raysslprune/tasks/rotnet.py"
    source = changed.read_text()
    assert source.count("F.cross_entropy(net(images), turns)") == 1
    changed.write_text(
        source.replace("F.cross_entropy(net(images), turns)", "F.cross_entropy(net(images), turns) + 0.01")
    )
    done = gpu("--quick", "--part", "correctness", "--out", str(tmp_path / "out"), cwd=copy)
    assert done.returncode == 1, done.stdout
    failed = [record["name"] for record in written(tmp_path / "out") if record.get("passed") is False]
    assert failed[0] == "rotnet, float32: first loss, beside float64"
    assert all(name.startswith("rotnet") for name in failed)


@pytest.mark.slow
def test_ranks_share_a_training_under_torchrun(tmp_path: Path) -> None:
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*run, "-m", "benchmarks.gpu", "--quick", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    records, others = (written(tmp_path / "out", f"-rank{rank}") for rank in range(2))
    assert [record["name"] for record in records] == [record["name"] for record in others]
    assert {record["part"] for record in records} == {"ranks"}
    assert records[0]["says"] == "2, which exchange gradients by gloo"
    checks = [record for record in records if "found" in record]
    assert len(checks) == 2 * len(TASKS)
    assert all(record["passed"] for record in checks)
    assert records[-1]["values"]["of linear"] > 0
