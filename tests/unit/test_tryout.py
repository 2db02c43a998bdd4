"""What is wrong with a task, a network or a data set, in a sentence; each fault is one that a user may make."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from raysslprune import tryout
from raysslprune.catalogue import TASKS
from raysslprune.commands import try_out
from raysslprune.messages import UserError
from raysslprune.tryout import Fault, Report
from tests.helpers import CHECKOUT

NUMBERS = itertools.count()
HEAD = """
import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from raysslprune import Task, accuracy, resident
from raysslprune.data.dataset import Resident


@dataclass(kw_only=True)
class Plain(Task):
    smoothing: float = 0.1

    def head(self, width, data):
        return nn.Linear(width, data.classes)

    def sample(self, views, batch):
        return views(batch), views.split.labels[batch.index[:, 0]]

    def loss(self, net, *parts):
        images, labels = parts
        return F.cross_entropy(net(images), labels, label_smoothing=self.smoothing)

    def evaluate(self, net, data, recipe):
        return {"top1": accuracy(net, data, data.test)}


class Net(nn.Module):
    width = 8

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, images):
        return self.norm(self.conv(images)).relu().mean(dim=(2, 3))


def images(count):
    return torch.randint(0, 200, (count, 1, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


class Set:
    def __init__(self, argument=""):
        pass

    def locate(self, root, fetch=False):
        pass

    def load(self, root):
        return resident((images(90), torch.arange(90) % 3), (images(30), torch.arange(30) % 3))

"""
"""A task, a network and a data set that work; those below are changed from them."""

Try = Callable[..., Report]


@pytest.fixture
def attempt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Try:
    """Write a module with ``class Mine(BASE)`` and this body, and try it."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(base: str, body: str = "    pass\n", **options: object) -> Report:
        module = f"mine_{next(NUMBERS)}"
        decorator = "@dataclass(kw_only=True)\n" if base == "Plain" else ""
        (tmp_path / f"{module}.py").write_text(f"{HEAD}\n{decorator}class Mine({base}):\n{body}")
        return tryout.try_out(f"{module}:Mine", **options)  # pyright: ignore[reportArgumentType]

    return run


def test_what_works_is_said_to(attempt: Try) -> None:
    assert attempt("Plain").kind == "task"
    assert attempt("Net").kind == "network"
    found = attempt("Set", arch="resnet8")
    assert found.kind == "data set"
    assert found.facts["images"] == "90 and 30, 1 x 8 x 8, 3 classes"
    assert not found.notes
    assert attempt("Plain", changes={"smoothing": 0.2, "lr": 0.01}).notes == ()


@pytest.mark.parametrize("name", [*TASKS, "resnet8", "digits"])
def test_the_packages_own_work(name: str) -> None:
    tryout.try_out(name)


SAMPLE = """
    def sample(self, views, batch):
"""
LOSS = """
    def loss(self, net, *parts):
        images, labels = parts
"""
EVALUATE = """
    def evaluate(self, net, data, recipe):
"""
TASKS = {
    "a view too many": (
        f"{SAMPLE}        return views(batch, 0), views(batch, 1)\n",
        "sample asks for view 1, counted from 0, but the class has views = 1; it needs 2",
    ),
    "a number too many": (
        f"    draws = 1\n{SAMPLE}        return views(batch), batch.own[:, 1]\n",
        r"sample raised IndexError: .*\(mine_\d+.py, line \d+\); draws is 1, so batch.own has 1 numbers for each",
    ),
    "a list": (
        f"{SAMPLE}        return [views(batch)]\n",
        "sample must return a tuple of tensors, not a list of Tensor",
    ),
    "too few rows": (
        f"{SAMPLE}        return views(batch)[:5], views.split.labels[batch.index[:, 0]]\n",
        r"tensor 0 of sample has shape \(5, 1, 8, 8\) for 32 samples; it needs a row for each sample",
    ),
    "no views": ("    views = 0\n", "views is 0, not a whole number from 1"),
    "shapes that do not fit": (
        "\n    def head(self, width, data):\n        return nn.Linear(width + 1, data.classes)\n",
        r"loss, on tensors of \(32, 1, 8, 8\), \(32,\), raised RuntimeError: .*mat1 and mat2 shapes",
    ),
    "a layer": (
        "\n    def head(self, width, data):\n        return nn.MultiheadAttention(width, 1)\n",
        "head raised TypeError: models.draw does not know how to initialise 'in_proj_weight' of MultiheadAttention.*"
        "; build the head of convolutions, linear layers and batch-norm",
    ),
    "a loss for each sample": (
        f"{LOSS}        return F.cross_entropy(net(images), labels, reduction='none')\n",
        r"loss has shape \(32,\); it must be the mean over samples, a scalar",
    ),
    "a number": (
        f"{LOSS}        return F.cross_entropy(net(images), labels).item()\n",
        "loss returns a float, not a tensor",
    ),
    "no gradient": (
        f"{LOSS}        return F.cross_entropy(net(images).detach(), labels)\n",
        "loss has no gradient: it does not depend on the network, or is detached",
    ),
    "a gradient of the head only": (
        f"{LOSS}        return F.cross_entropy(net.head(net.trunk(images).detach()), labels)\n",
        "loss has no gradient for any weight of the network's trunk",
    ),
    "no gradient at all": (
        f"{LOSS}        return F.cross_entropy(net(images), labels) * 0\n",
        "the gradient of loss is 0 for all weights of the trunk",
    ),
    "not finite": (f"{LOSS}        return (net(images) * 0).log().mean()\n", "loss is -inf in the first update"),
    "torch's random numbers": (
        f"{LOSS}        return F.cross_entropy(net(images + torch.rand_like(images)), labels)\n",
        "loss draws from torch's global random state, so .*; use batch.own, or the generator that begin gets",
    ),
    "numpy's random numbers": (
        f"{SAMPLE}        return views(batch) * np.random.rand(), views.split.labels[batch.index[:, 0]]\n",
        "sample draws from numpy's global random state",
    ),
    "Python's random numbers": (
        "\n    def begin(self, data, generator):\n        self.factor = random.random()\n",
        "begin draws from Python's global random state",
    ),
    "random numbers in the second update only": (
        "    updates = 0\n\n    def updated(self):\n        self.updates += 1\n"
        f"{LOSS}        noise = torch.rand_like(images) if self.updates else 0\n"
        "        return F.cross_entropy(net(images + noise), labels)\n",
        "with another global random seed the same training gives another result; all randomness must come",
    ),
    "a count outside": (
        f"    calls = []\n{LOSS}        self.calls.append(1)\n"
        "        return F.cross_entropy(net(images), labels) * len(self.calls)\n",
        "the same training gives another result when it is repeated with the same global seeds",
    ),
    "state that is not kept": (
        "    updates = 0\n\n    def updated(self):\n        self.updates += 1\n"
        f"{LOSS}        return F.cross_entropy(net(images), labels) * (1 + self.updates)\n",
        "a training that resumes after its first update gives another result .*; what changes between updates must "
        "be a tensor in self.state",
    ),
    "a tensor as metric": (
        f"{EVALUATE}        return {{'top1': torch.tensor(1.0)}}\n",
        r"metric 'top1' is a Tensor, not a number; use float\(...\) or .item\(\)",
    ),
    "no metric": (f"{EVALUATE}        return None\n", "evaluate must return a dict of metrics by name, not a NoneType"),
    "a metric of ours": (
        f"{EVALUATE}        return {{'density': 1.0}}\n",
        "evaluate returns 'density', the name of a metric that every training has",
    ),
    "a metric that is not finite": (f"{EVALUATE}        return {{'top1': float('nan')}}\n", "metric 'top1' is nan"),
    "an exception": (
        f"{EVALUATE}        return data.nothing\n",
        r"evaluate raised AttributeError: 'Dataset' object has no attribute 'nothing' \(mine_\d+.py, line \d+\)",
    ),
}


@pytest.mark.parametrize("case", TASKS)
def test_what_is_wrong_with_a_task(case: str, attempt: Try) -> None:
    body, why = TASKS[case]
    with pytest.raises(Fault, match=why):
        attempt("Plain", body)


def test_views_that_are_not_used_are_noted(attempt: Try) -> None:
    assert attempt("Plain", "    views = 3\n").notes == ("views is 3, but sample uses only 1 of them",)


INIT = """
    def __init__(self, channels):
        super().__init__(channels)
"""
NETWORKS = {
    "another width": ("    width = 9\n", r"gives features of shape \(8, 8\), not \(8, 9\), \(n, width\)"),
    "no width": ("    width = None\n", "must return a module with an int attribute 'width'"),
    "no mean over the image": (
        "\n    def forward(self, images):\n        return self.conv(images)\n",
        r"gives features of shape \(8, 8, 6, 6\), not \(8, 8\)",
    ),
    "a layer": (
        f"{INIT}        self.norm = nn.GroupNorm(2, 8)\n",
        "models.draw does not know how to initialise 'weight' of GroupNorm.*; build the network of convolutions",
    ),
    "a parameter of its own": (
        f"{INIT}        self.scale = nn.Parameter(torch.ones(1))\n",
        "does not know how to initialise 'scale' of Mine",
    ),
    "dropout": (
        f"{INIT}        self.norm = nn.Sequential(self.norm, nn.Dropout(0.5))\n",
        "the network draws from torch's global random state, .*; leave out dropout and the like",
    ),
    "too large a kernel": (
        f"{INIT}        self.conv = nn.Conv2d(channels, 8, 9)\n",
        r"on images of \(8, 1, 8, 8\), raised RuntimeError: .*Kernel size can't be greater than actual input size",
    ),
    "nothing to prune": (
        "\n    def __init__(self, channels):\n        nn.Module.__init__(self)\n"
        "\n    def forward(self, images):\n        return images.flatten(1)[:, :8]\n",
        "has no convolution and no linear layer to prune",
    ),
}


@pytest.mark.parametrize("case", NETWORKS)
def test_what_is_wrong_with_a_network(case: str, attempt: Try) -> None:
    body, why = NETWORKS[case]
    with pytest.raises(Fault, match=why):
        attempt("Net", body)


LOAD = """
    def load(self, root):
"""
SETS = {
    "floats": (
        f"{LOAD}        x, y = images(30).float(), torch.arange(30)\n        return resident((x, y), (x, y))\n",
        "train has images of torch.float32, not of uint8",
    ),
    "no squares": (
        f"{LOAD}        x, y = images(30)[:, :, :4], torch.arange(30)\n        return resident((x, y), (x, y))\n",
        r"train has images of \(4, 8\) pixels, not squares",
    ),
    "labels from 1": (
        f"{LOAD}        x, y = images(30), torch.arange(30)\n        return resident((x, y), (x, y + 1))\n",
        "test has labels 1 to 30, with 30 classes",
    ),
    "labels of another type": (
        f"{LOAD}        x, y = images(30), torch.arange(30).int()\n        return resident((x, y), (x, y))\n",
        "train has labels of torch.int32, not of int64",
    ),
    "a constant channel": (
        f"{LOAD}        x, y = images(30) * 0, torch.arange(30)\n        return resident((x, y), (x, y))\n",
        "the standard deviation of a channel is 0",
    ),
    "sizes that differ": (
        f"{LOAD}        x, y = images(30), torch.arange(30)\n        return resident((x, y), (x[:, :, :4, :4], y))\n",
        "training and test images differ in channels or size",
    ),
    "random numbers": (
        f"{LOAD}        x, y = torch.randint(0, 9, (30, 1, 8, 8)).to(torch.uint8), torch.arange(30)\n"
        "        return resident((x, y), (x, y))\n",
        "load draws from torch's global random state, .*; use a generator with a fixed seed",
    ),
    "other images each time": (
        "    calls = []\n"
        f"{LOAD}        self.calls.append(1)\n        x, y = images(30) + len(self.calls), torch.arange(30)\n"
        "        return resident((x, y), (x, y))\n",
        "load gives other images or labels each time it is called",
    ),
    "something else": (f"{LOAD}        return images(30)\n", "load returns a Tensor, not a Dataset"),
    "an exception": (f"{LOAD}        return open('none')\n", r"load raised FileNotFoundError: .*none.*, line \d+\)"),
}


@pytest.mark.parametrize("case", SETS)
def test_what_is_wrong_with_a_data_set(case: str, attempt: Try) -> None:
    body, why = SETS[case]
    with pytest.raises(Fault, match=why):
        attempt("Set", body)


def test_objects_of_no_kind_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "odd_kinds.py").write_text(
        "x = 3\n\n\nclass Loss:\n    def loss(self): ...\n    def evaluate(self): ...\n"
    )
    (tmp_path / "odd_import.py").write_text("import torch\n\n1 / 0\n")
    (tmp_path / "odd_syntax.py").write_text("x = 1\ny = (\n")
    for name, error, why in (
        ("odd_kinds:x", Fault, "odd_kinds:x is a int: neither a task"),
        ("odd_kinds:Loss", Fault, "odd_kinds:Loss has a loss, but is no subclass of raysslprune.Task"),
        ("odd_kinds:y", UserError, "'odd_kinds:y' can't be imported here"),
        ("odd_nothing:y", UserError, "its module must be in the folder where the command is started"),
        ("rotnett", UserError, "'rotnett' is not known; did you mean 'rotnet'"),
        ("mine.py", UserError, "^write mine:NAME, not mine.py; NAME is your class or function in it$"),
        ("./mine.py", UserError, "^write mine:NAME, not ./mine.py; "),
        ("odd_kinds.py:Loss", UserError, "can't be imported here: .*; write the module without .py$"),
        ("odd_import:x", Fault, r"the import of its module raised ZeroDivisionError: .* \(odd_import.py, line 3\)"),
        ("odd_syntax:x", Fault, r"the import of its module raised SyntaxError: .* \(odd_syntax.py, line 2\)"),
    ):
        with pytest.raises(error, match=why):
            tryout.try_out(name)


def test_options_are_those_of_the_task(attempt: Try) -> None:
    with pytest.raises(UserError, match="has no option 'smooth'; its options: smoothing"):
        attempt("Plain", changes={"smooth": 0.2})
    with pytest.raises(UserError, match=r"option smoothing of task .* must be of type float, not 'x'"):
        attempt("Plain", changes={"smoothing": "x"})


def test_the_global_random_states_stay(attempt: Try) -> None:
    drawn: list[tuple[float, float, float]] = []
    for tried in (False, True):
        torch.manual_seed(3)
        random.seed(3)
        np.random.seed(3)
        if tried:
            attempt("Plain")
        drawn.append((torch.rand(1).item(), random.random(), np.random.rand()))
    assert drawn[0] == drawn[1]


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """On the task of docs/extending.md."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    text = (CHECKOUT / "docs/extending.md").read_text()
    code = "".join(re.findall(r"^```python mine.py\n(.*?)^```$", text, re.M | re.S))
    (tmp_path / "mine_of_docs.py").write_text(code)
    for name, kind in (("Smooth", "task"), ("Pairs", "task"), ("Tiny", "network"), ("Stripes", "data set")):
        assert try_out.main([f"mine_of_docs:{name}"]) == 0
        said = capsys.readouterr()
        assert said.out.startswith(f"mine_of_docs:{name}: the {kind} works\n")
        assert said.err == ""
    (tmp_path / "mine_wrong.py").write_text(code.replace("data.classes", "data.classes - 1"))
    assert try_out.main(["mine_wrong:Smooth"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("raysslprune: mine_wrong:Smooth: loss, on tensors of (32, 1, 8, 8), (32,), raised ")
    assert not (tmp_path / "runs").exists()
