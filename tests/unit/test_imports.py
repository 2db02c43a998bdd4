"""Who may import what: the layers of docs/design.md, and that a sweep file imports in milliseconds."""

from __future__ import annotations

import ast
import graphlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import raysslprune
from raysslprune import __all__

PACKAGE = Path(raysslprune.__file__).parent
SWEEPS = PACKAGE.parent / "sweeps"

# ------------------------------------------------------------------------------------- at run time


def imported_by(program: str) -> set[str]:
    """The top-level modules that a program adds to those of an empty one."""
    program = f"import sys; before = set(sys.modules)\n{program}\nprint(*(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return {name.partition(".")[0] for name in run.stdout.split()}


LIGHT = """
import runpy
import raysslprune
for name in {names}:
    getattr(raysslprune, name)
for path in {paths}:
    assert {{"points", "rows"}} & runpy.run_path(path).keys()
"""


HEAVY_NAMES = {
    "Experiment", "Failed", "Task", "Training", "accuracy", "from_torch_prune", "keep_pruned", "load_mask",
    "load_subnetwork", "resident", "to_torch_prune", "train",
}  # fmt: skip
"""What the package offers to notebooks, and to modules with a task, a network or a data set of one's own."""


def test_a_sweep_file_needs_the_standard_library_only() -> None:
    paths = [str(path) for path in sorted(SWEEPS.glob("*.py"))]
    assert any(path.endswith("fig3.py") for path in paths)
    outside = imported_by(LIGHT.format(paths=paths, names=[name for name in __all__ if name not in HEAVY_NAMES]))
    outside -= sys.stdlib_module_names
    assert {name for name in outside if not name.startswith("_")} == {"raysslprune"}


def test_a_heavy_sweep_file_would_be_caught(tmp_path: Path) -> None:
    path = tmp_path / "heavy.py"
    path.write_text("import numpy\nfrom raysslprune.store.steps import Store\n\ndef points(scale, seed): ...\n")
    assert {"numpy", "pyarrow"} <= imported_by(LIGHT.format(paths=[str(path)], names=[]))


def test_only_what_is_no_sweep_files_is_slow_to_import() -> None:
    for name in HEAVY_NAMES:
        assert imported_by(f"from raysslprune import {name}") & {"torch", "rich"}, name


def test_training_and_running_a_step_need_no_ray() -> None:
    """In a notebook, or in a test. The store, and so Arrow, comes with the running only."""
    program = """
from raysslprune import catalogue, data, masks, models, parallel, tasks
from raysslprune.evaluate import metrics, svm
from raysslprune.training import loop
tasks.find("npid"), models.trunk("conv4", 1), data.load("digits")
assert not sys.modules.keys() & {"ray", "pyarrow", "matplotlib", "optuna", "sklearn"}, list(sys.modules)
import raysslprune.training.runner
"""
    found = imported_by(program)
    assert {"torch", "pyarrow"} <= found
    assert not found & {"ray", "matplotlib", "optuna", "sklearn", "joblib", "torchvision"}


def test_the_command_starts_without_torch_ray_and_matplotlib() -> None:
    found = imported_by("import raysslprune.sweep")
    assert "rich" in found
    assert not found & {"torch", "ray", "matplotlib", "sklearn", "scipy", "optuna"}


OTHERS = {
    *("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "RAY_CLIENT_MODE", "TORCHINDUCTOR_CACHE_DIR"),
    *("_RJEM_MALLOC_CONF", "_MLFLOW_TELEMETRY_SESSION_ID"),
}
"""What scikit-learn, Ray, torch and MLflow themselves set when they are imported."""


def test_to_import_the_package_changes_no_environment() -> None:
    """Its importer may use a Ray of its own."""
    names = [name for name in modules(PACKAGE) if not name.endswith("__main__")]
    assert {"raysslprune.experiment", "raysslprune.cluster.nodes", "raysslprune.cluster.tune"} <= set(names)
    program = f"""
import importlib, os, sys
before = dict(os.environ)
import raysslprune.experiment
assert dict(os.environ) == before
assert "ray" not in sys.modules
for name in {names}:
    importlib.import_module(name)
print(*(name for name in os.environ.keys() | before.keys() if os.environ.get(name) != before.get(name)))
"""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_", "KMP_"))}
    run = subprocess.run([sys.executable, "-P", "-c", program], env=clean, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert set(run.stdout.split()) <= OTHERS


INSTALLED = ("numpy", "torch", "safetensors", "sklearn", "pyarrow")
"""What a program needs that trains, measures, prunes, loads a subnetwork, or reads tables of results."""

NOT_INSTALLED = """
import importlib.abc, importlib.metadata, sys

class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in absent:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

kept = {{"raysslprune", *{installed}}}
required = importlib.metadata.requires("raysslprune")
absent = {names}
sys.meta_path.insert(0, Absent())
"""

MINIMAL = """
import pathlib, tempfile
import torch
from raysslprune import Init, Train, load_subnetwork, masks, models, results
from raysslprune.evaluate import metrics, svm
from raysslprune.paper.scales import SETTINGS
RECIPE = SETTINGS["smoke"].recipes["labels"]
from raysslprune.store.steps import Store
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner

with tempfile.TemporaryDirectory() as folder:
    store = Store(folder + "/runs")
    store.create()
    step = Train(task="labels", data="digits", arch="conv4", recipe=RECIPE, seed=0, start=Init(seed=0))
    Runner(store=store, exchange=NoExchange()).train(step, set())
    results.from_parquet(results.to_parquet(results.table("a", "smoke", [], {})))
"""

HEAVY_DEPENDENCIES = ("ray", "duckdb", "tensorboardX", "matplotlib", "optuna", "rich", "jinja2", "PIL", "shtab", "yaml")


def test_training_reading_and_loading_need_few_packages() -> None:
    """On a machine that has only these, as one with a GPU and no Ray may."""
    found = subprocess.run(
        [sys.executable, "-c", NOT_INSTALLED.format(installed=INSTALLED, names=set(HEAVY_DEPENDENCIES)) + MINIMAL],
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr


def test_a_package_that_is_not_there_would_be_missed() -> None:
    program = NOT_INSTALLED.format(installed=INSTALLED, names=set(HEAVY_DEPENDENCIES))
    found = subprocess.run(
        [sys.executable, "-c", program + "import raysslprune.plan.search"], capture_output=True, text=True
    )
    assert "No module named 'optuna'" in found.stderr


# ------------------------------------------------------------------------------------- in the source

FLOORS = [
    line.split()
    for line in (PACKAGE.parent / "docs/design.md")
    .read_text()
    .partition("```floors\n")[2]
    .partition("```")[0]
    .splitlines()
]
"""The package's modules and folders, from the map in docs/design.md; each floor imports from those before it."""

MAY_IMPORT = {
    "ray": {"cluster"},
    "matplotlib": {"figures"},
    "sklearn": {"evaluate/svm.py"},
    "joblib": {"evaluate/svm.py"},
    "duckdb": {"results/sql.py"},
    "tensorboardX": {"training/runner.py"},
    "optuna": {"plan/search.py"},
    "shtab": {"commands/completion.py"},
    "mlflow": {"trackers/mlflow.py"},
    "wandb": {"trackers/wandb.py"},
    "jinja2": {"report/page.py"},
    "PIL": {"data/images.py"},
    "torchvision": {"data/cifar.py", *(f"models/{name}.py" for name in ("alexnet", "resnet", "small", "vgg"))},
    "pyarrow": {
        "store",
        "results",
        "figures",
        "terminal/tables.py",
        "report/contents.py",
        "kinds.py",
        "present.py",
        "experiment.py",
        "data/parquet.py",
    },
    "sweeps": set[str](),
    "raysslprune.sweeps": set[str](),
    "benchmarks": set[str](),
    "tests": set[str](),
}
"""Which files, or folders, may import a package."""

HEAVY = {
    "torch",
    "numpy",
    "scipy",
    "rich",
    "safetensors",
    "raysslprune.data",
    "raysslprune.tasks",
    "raysslprune.models",
}
PURE = (
    "spec.py",
    "catalogue.py",
    "lottery.py",
    "sweepfile.py",
    "words.py",
    *(f"paper/{name}.py" for name in ("recipes", "scales", "experiments", "scalefile", "scaletext")),
    *(f"plan/{name}.py" for name in ("graph", "schedule", "cost", "time_left")),
)
MAY_NOT = {
    "masks.py": {"os", "pathlib", "io", "ray", "pyarrow", "safetensors"},
    **dict.fromkeys(PURE, HEAVY),
}


def imports(path: Path, module: str) -> set[str]:
    """Absolute names of all that a file imports, at any depth, for type checkers too; ``from a import b`` is a.b."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            found |= {f"{origin}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__"):
                found.add(str(node.args[0].value))
    return found


def modules(root: Path) -> dict[str, Path]:
    """Name to file, of a package without the sweeps that a wheel puts inside."""
    files = [path for path in sorted(root.rglob("*.py")) if "sweeps" not in path.relative_to(root).parts]
    names = [".".join([root.name, *path.relative_to(root).with_suffix("").parts]) for path in files]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, files, strict=True)}


def within(name: str, banned: str) -> bool:
    return name == banned or name.startswith(f"{banned}.")


def breaches(root: Path) -> list[str]:
    """The forbidden imports of a package, as sentences."""
    found: list[str] = []
    for module, path in modules(root).items():
        file = path.relative_to(root).as_posix()
        places = {file, file.partition("/")[0]}
        banned = {name for name, allowed in MAY_IMPORT.items() if not places & allowed} | MAY_NOT.get(file, set())
        for name in sorted(imports(path, module)):
            found += [f"{file} imports {bad}" for bad in sorted(banned) if within(name, bad)]
    return found


def test_the_layers() -> None:
    assert len(modules(PACKAGE)) > 15
    assert breaches(PACKAGE) == []


@pytest.mark.parametrize(
    ("file", "source", "breach"),
    [
        ("training/loop.py", "import ray", "training/loop.py imports ray"),
        ("training/loop.py", "def f():\n    from ray import tune", "training/loop.py imports ray"),
        ("data/run.py", "import ray.data as rd", "data/run.py imports ray"),
        ("plan/graph.py", "import importlib\nimportlib.import_module('ray.tune')", "plan/graph.py imports ray"),
        ("terminal/tables.py", "from matplotlib import pyplot as plt", "terminal/tables.py imports matplotlib"),
        ("sweep.py", "if 1:\n    import matplotlib.axes", "sweep.py imports matplotlib"),
        ("training/runner.py", "import sweeps.fig3", "training/runner.py imports sweeps"),
        ("cluster/tune.py", "from sweeps import fig3", "cluster/tune.py imports sweeps"),
        ("cluster/tune.py", "from raysslprune.sweeps.fig3 import points", "cluster/tune.py imports raysslprune.sweeps"),
        ("cluster/tune.py", "from raysslprune import sweeps", "cluster/tune.py imports raysslprune.sweeps"),
        ("tasks/labels.py", "from ..sweeps import fig3", "tasks/labels.py imports raysslprune.sweeps"),
        ("tasks/__init__.py", "from .. import sweeps", "tasks/__init__.py imports raysslprune.sweeps"),
        ("masks.py", "from pathlib import Path", "masks.py imports pathlib"),
        ("masks.py", "import os.path", "masks.py imports os"),
        ("masks.py", "import ray", "masks.py imports ray"),
        ("evaluate/metrics.py", "from sklearn.svm import LinearSVC", "evaluate/metrics.py imports sklearn"),
        ("data/digits.py", "def f():\n    import pyarrow as pa", "data/digits.py imports pyarrow"),
        ("models/conv4.py", "from torchvision import models", "models/conv4.py imports torchvision"),
        ("data/folder.py", "from PIL import Image", "data/folder.py imports PIL"),
        ("catalogue.py", "from raysslprune import tasks", "catalogue.py imports raysslprune.tasks"),
        ("paper/recipes.py", "from raysslprune.data import subsets", "paper/recipes.py imports raysslprune.data"),
        ("commands/export.py", "from benchmarks import loop", "commands/export.py imports benchmarks"),
    ],
)
def test_a_breach_would_be_caught(file: str, source: str, breach: str, tmp_path: Path) -> None:
    path = tmp_path / "raysslprune" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert breaches(tmp_path / "raysslprune") == [breach]


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("cluster/train.py", "from ray import train"),
        ("figures/ink.py", "import matplotlib as mpl"),
        (
            "training/loop.py",
            "import array\nimport rayleigh\nfrom raysslprune.sweep import main\nfrom raysslprune import sweep",
        ),
        ("masks.py", "import torch\nfrom raysslprune.spec import survivors"),
    ],
)
def test_what_is_allowed_is_no_breach(file: str, source: str, tmp_path: Path) -> None:
    path = tmp_path / "raysslprune" / file
    path.parent.mkdir(parents=True)
    path.write_text(source)
    assert breaches(tmp_path / "raysslprune") == []


def order(root: Path) -> list[str]:
    """Modules, each after those that it imports. Raises graphlib.CycleError where there is no such order."""
    known = modules(root)
    known.pop(root.name, None)  # the front door, which leads everywhere; nothing inside goes through it: see below
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        needed = {name if name in known else name.rpartition(".")[0] for name in imports(path, module)}
        graph[module] = needed & known.keys() - {module}
    return list(graphlib.TopologicalSorter(graph).static_order())


def upward(root: Path, floors: Sequence[Sequence[str]]) -> list[str]:
    """Imports of a package that do not lead to a lower floor, as sentences; and rooms that are on no floor."""
    floor = {room: number for number, rooms in enumerate(floors) for room in rooms}
    known = modules(root)
    known.pop(root.name, None)  # the front door
    found: list[str] = []
    for module, path in known.items():
        room = module.split(".")[1]
        if room not in floor:
            found.append(f"{room} is on no floor")
            continue
        needed = {name if name in known else name.rpartition(".")[0] for name in imports(path, module)} & known.keys()
        for other in sorted({name.split(".")[1] for name in needed} - {room}):
            found += [f"{module.partition('.')[2]} imports {other}"] * (floor.get(other, -1) >= floor[room])
    return found


def test_imports_go_one_way() -> None:
    assert order(PACKAGE)  # no circle within a room, either
    assert upward(PACKAGE, FLOORS) == []
    rooms = {name.split(".")[1] for name in modules(PACKAGE) if "." in name}
    assert {room for floor in FLOORS for room in floor} == rooms


@pytest.mark.parametrize(
    ("file", "source", "said"),
    [
        ("spec.py", "from raysslprune import masks", "spec imports masks"),
        ("store/steps.py", "def f():\n    from raysslprune.plan.graph import Job", "store.steps imports plan"),
        ("plan/schedule.py", "from raysslprune.terminal import tables", "plan.schedule imports terminal"),
        ("figures/ink.py", "from raysslprune.terminal import tables", "figures.ink imports terminal"),
        ("attic.py", "", "attic is on no floor"),
    ],
)
def test_an_import_upward_would_be_caught(file: str, source: str, said: str, tmp_path: Path) -> None:
    for name in ("masks.py", "plan/graph.py", "plan/cost.py", "terminal/tables.py"):
        (tmp_path / "raysslprune" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "raysslprune" / name).touch()
    (tmp_path / "raysslprune" / file).parent.mkdir(exist_ok=True)
    (tmp_path / "raysslprune" / file).write_text(source)
    assert upward(tmp_path / "raysslprune", FLOORS) == [said]


def test_nothing_inside_goes_through_the_front_door() -> None:
    """What the package offers to others, its own modules import from where it is."""
    known = modules(PACKAGE)
    for module, path in known.items():
        names = {name for name in imports(path, module) if name.count(".") == 1 and name.startswith("raysslprune.")}
        assert names - known.keys() <= {"raysslprune.__version__", "raysslprune.MODULE_OF"}, module


def test_a_circle_would_be_caught(tmp_path: Path) -> None:
    root = tmp_path / "raysslprune"
    root.mkdir()
    (root / "spec.py").write_text("def f():\n    from raysslprune.words import title")
    (root / "words.py").write_text("from raysslprune import spec")
    with pytest.raises(graphlib.CycleError):
        order(root)
