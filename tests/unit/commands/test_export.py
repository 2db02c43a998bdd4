"""Networks and masks out of the store and into it: against networks rebuilt here, torchvision's, torch's pruning."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torchvision
import yaml
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.utils import prune

import raysslprune
from raysslprune import data, export, import_mask, masks, models, plan, release, results, subnetwork, torch_prune
from raysslprune.evaluate import accuracy
from raysslprune.loader import load
from raysslprune.lottery import imp, linear, random_reinit, rewound
from raysslprune.release import Images
from raysslprune.run import NotImported
from raysslprune.scales import SETTINGS
from raysslprune.spec import Imported, Init, RandomPrune, Recipe, Rewind, Shuffle, Step, Train, closure, to_plain
from raysslprune.store import MASK, WEIGHTS, Damaged, Store
from raysslprune.sweepfile import Point
from tests.helpers import CHECKOUT
from tests.helpers.chains import execute

DOC = (CHECKOUT / "docs/export.md").read_text()
SMOKE = SETTINGS["smoke"]
LABELS = dataclasses.replace(SMOKE.recipes["labels"], samples=1_280)
CLASSIFIER, MACHINES = (probe.recipe for probe in SMOKE.linear)
assert isinstance(CLASSIFIER, Recipe)
SEED = 3

ROTNET = imp(
    task="rotnet",
    data="digits",
    arch="conv4",
    recipe=dataclasses.replace(SMOKE.recipes["rotnet"], samples=1_280),
    seed=SEED,
    levels=2,
    keep=0.2,
    rewind=640,
)
RANDOM = RandomPrune(arch="conv4", data="digits", keep=0.01, level=1, seed=SEED, scope="convs:3")
TRAININGS: dict[str, Train] = {
    "dense": Train(task="labels", data="digits", arch="conv4", recipe=LABELS, seed=SEED, start=Init(seed=SEED)),
    "ticket": rewound(ROTNET.masks[2], to=ROTNET.dense, samples=640, task="labels", recipe=LABELS),
    "pretext": ROTNET.rounds[1],
    "classifier": linear(ROTNET.rounds[1], data="digits", recipe=CLASSIFIER),
    "random": random_reinit(RANDOM, like=ROTNET.dense, task="labels", recipe=LABELS),
    "shuffled": random_reinit(
        Shuffle(of=cast(Any, ROTNET.masks[1]), seed=1), like=ROTNET.dense, task="labels", recipe=LABELS
    ),
}
SVMS = linear(ROTNET.rounds[1], data="digits", recipe=MACHINES)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All of these, made once. Don't write to it."""
    return execute([*TRAININGS.values(), SVMS], tmp_path_factory.mktemp("export") / "runs")


@pytest.fixture(scope="module")
def folders(store: Store, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The trainings, exported by the command. Don't write to them."""
    out = tmp_path_factory.mktemp("exported")
    for name, step in TRAININGS.items():
        assert export.main([step.id, "--root", store.base, "--out", str(out / name)]) == 0
    return {name: out / name for name in TRAININGS}


def copy(of: str, to: Path) -> Path:
    return Path(shutil.copytree(of, to))


def weights(store: Store, step: Train) -> dict[str, Tensor]:
    return load_file(Path(store.base) / "steps" / step.id / WEIGHTS)


def mask_in(store: Store, step: Step, shapes: Mapping[str, torch.Size]) -> dict[str, np.ndarray]:
    """From the store's file, by numpy."""
    packed = load_file(Path(store.base) / "steps" / step.id / MASK)
    return {
        name: np.unpackbits(packed[name].numpy(), count=math.prod(shape)).astype(bool).reshape(shape)
        for name, shape in shapes.items()
    }


SHAPES = {f"layers.conv{n}.weight": torch.Size(shape) for n, shape in
          enumerate([(16, 1, 3, 3), (32, 16, 3, 3), (32, 32, 3, 3), (64, 32, 3, 3)], start=1)}  # fmt: skip


def rebuilt(store: Store, step: Train) -> nn.Module:
    """The network in the store, as it was when the training evaluated it."""
    state = weights(store, step)
    standardised = "head.1.weight" in state
    outputs = len(state["head.1.bias" if standardised else "head.bias"])

    def head(width: int) -> nn.Module:
        last = nn.Linear(width, outputs)
        return nn.Sequential(nn.BatchNorm1d(width, affine=False), last) if standardised else last

    net = models.network(step.arch, 1, head, torch.Generator(), torch.device("cpu"))
    net.load_state_dict(state)
    return net.eval().to(memory_format=torch.channels_last)


# ------------------------------------------------------------------------------------- networks out


@torch.inference_mode()
@pytest.mark.parametrize("name", TRAININGS)
def test_a_loaded_network_gives_the_outputs_of_the_one_in_the_store_bit_for_bit(
    name: str, store: Store, folders: dict[str, Path]
) -> None:
    net, digits = raysslprune.load_subnetwork(folders[name]), data.load("digits")
    reference = rebuilt(store, TRAININGS[name])
    assert not net.training
    for (images, _), (normalised, _) in zip(digits.test.batches(200), digits.batches(digits.test, 200), strict=True):
        assert images.dtype == torch.uint8
        assert torch.equal(net.preprocess(images), normalised)
        outputs = net(net.preprocess(images))
        assert outputs.dtype == torch.float32
        assert outputs.std() > 0.01
        assert torch.equal(outputs, reference(normalised))


@pytest.mark.parametrize("name", ["dense", "ticket", "classifier", "random"])
def test_a_loaded_network_has_the_accuracy_that_its_step_has(name: str, store: Store, folders: dict[str, Path]) -> None:
    record = store.record(TRAININGS[name].id)
    assert record is not None
    digits = data.load("digits")
    found = accuracy(raysslprune.load_subnetwork(str(folders[name])), digits, digits.test)
    assert found == record.metrics["top1"]
    assert json.loads((folders[name] / "config.json").read_text())["metrics"] == record.metrics


@pytest.mark.parametrize("name", TRAININGS)
def test_weights_have_plain_names_and_pruned_ones_are_zero_without_a_sign(
    name: str, store: Store, folders: dict[str, Path]
) -> None:
    found, own = load_file(folders[name] / "model.safetensors"), weights(store, TRAININGS[name])
    assert found.keys() == {key.removeprefix("trunk.") for key in own}
    step = TRAININGS[name].mask
    stays = mask_in(store, step, SHAPES) if step else {}
    for key, tensor in own.items():
        exported = found[key.removeprefix("trunk.")]
        assert exported.dtype == tensor.dtype
        assert torch.equal(exported, tensor)
        if key.removeprefix("trunk.") in stays:
            pruned = torch.from_numpy(~stays[key.removeprefix("trunk.")])
            assert not exported.view(torch.int32)[pruned].any()
            assert bool(pruned.any()) == (name != "random" or "conv4" not in key)


def test_the_mask_is_the_stores(store: Store, folders: dict[str, Path]) -> None:
    for name, step in TRAININGS.items():
        found = subnetwork.load_mask(folders[name])
        assert {key: m.shape for key, m in found.items()} == SHAPES
        stays = mask_in(store, step.mask, SHAPES) if step.mask else {}
        for key, m in found.items():
            assert np.array_equal(m.numpy(), stays.get(key, np.ones(m.shape, bool)))


@pytest.mark.parametrize("name", ["ticket", "random"])
def test_the_sparse_form_is_bitmap_and_values_as_the_docs_say(name: str, folders: dict[str, Path]) -> None:
    """Read here by numpy alone, from the file's own bytes."""
    dense = load_file(folders[name] / "model.safetensors")
    content = (folders[name] / "sparse.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    shapes = json.loads(header.pop("__metadata__")["shapes"])
    assert shapes.keys() == SHAPES.keys() - ({"layers.conv4.weight"} if name == "random" else set())

    def raw(key: str, dtype: str) -> np.ndarray:
        begin, end = header[key]["data_offsets"]
        return np.frombuffer(content[8 + length + begin : 8 + length + end], dtype)

    for key, tensor in dense.items():
        if key not in shapes:
            assert raw(key, str(tensor.numpy().dtype)).tobytes() == tensor.numpy().tobytes()
            continue
        found = np.zeros(math.prod(shapes[key]), np.float32)
        found[np.unpackbits(raw(f"{key}.bitmap", "uint8"))[: len(found)].astype(bool)] = raw(f"{key}.values", "float32")
        assert found.reshape(shapes[key]).tobytes() == tensor.numpy().tobytes()
        assert len(raw(f"{key}.bitmap", "uint8")) == -(-len(found) // 8)
    assert header.keys() == (dense.keys() - shapes.keys()) | {
        f"{key}.{part}" for key in shapes for part in ("bitmap", "values")
    }


def test_either_form_is_enough(tmp_path: Path, folders: dict[str, Path]) -> None:
    folder = copy(str(folders["ticket"]), tmp_path / "sparse")
    assert (folder / "sparse.safetensors").stat().st_size < 0.25 * (folder / "model.safetensors").stat().st_size
    dense = raysslprune.load_subnetwork(folder)
    (folder / "model.safetensors").unlink()
    sparse = raysslprune.load_subnetwork(folder)
    assert sparse.state_dict().keys() == dense.state_dict().keys()
    for name, tensor in sparse.state_dict().items():
        own = dense.state_dict()[name]
        assert tensor.dtype == own.dtype
        assert tensor.numpy().tobytes() == own.numpy().tobytes()
    (folder / "sparse.safetensors").unlink()
    with pytest.raises(ValueError, match=r"there is neither model\.safetensors nor sparse\.safetensors in .*/sparse: "):
        raysslprune.load_subnetwork(folder)


def test_a_layer_is_sparse_where_that_is_smaller() -> None:
    """64 float32 weights: the bitmap takes 8 bytes, as much as 2 pruned weights save."""
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(8, 8, generator=generator) for name in ("some", "few", "none", "all", "unnamed")}
    state["odd"] = torch.randn(7, 3, dtype=torch.float64, generator=generator)
    mask = {name: torch.ones_like(tensor, dtype=torch.bool) for name, tensor in state.items() if name != "unnamed"}
    mask["some"].view(-1)[[3, 5, 60]] = False
    mask["few"].view(-1)[[3, 5]] = False
    mask["all"][:] = False
    mask["odd"].view(-1)[::2] = False
    state = {name: tensor * mask[name] if name in mask else tensor for name, tensor in state.items()}
    content = subnetwork.to_sparse(state, mask)
    tensors = subnetwork.from_safetensors(content)
    assert tensors.keys() == {"few", "none", "unnamed"} | {
        f"{name}.{part}" for name in ("some", "all", "odd") for part in ("bitmap", "values")
    }
    assert [len(tensors[f"{name}.values"]) for name in ("some", "all", "odd")] == [61, 0, 10]
    back = subnetwork.from_sparse(content, tensors)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) and back[name].dtype == state[name].dtype for name in state)


def test_a_dense_network_has_no_sparse_form(folders: dict[str, Path]) -> None:
    names = {"model.safetensors", "mask.safetensors", "config.json", "README.md"}
    assert {path.name for path in folders["dense"].iterdir()} == names
    assert {path.name for path in folders["ticket"].iterdir()} == names | {"sparse.safetensors"}


def test_a_head_that_is_more_than_a_last_layer_is_left_out(tmp_path: Path) -> None:
    """As that of a task from outside the package."""
    store, step = Store(str(tmp_path / "runs")), TRAININGS["dense"]
    store.create()
    head = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    net = models.network("conv4", 1, lambda _width: head, torch.Generator().manual_seed(1), torch.device("cpu"))
    store.commit(step, {WEIGHTS: to_safetensors(net.state_dict())}, {"top1": 50.0, "density": 1.0}, {})
    assert export.main([step.id, "--root", store.base, "--out", str(tmp_path / "out")]) == 0
    loaded, images = raysslprune.load_subnetwork(tmp_path / "out"), torch.randn(3, 1, 8, 8)
    reference = net.eval().to(memory_format=torch.channels_last).trunk
    assert torch.equal(loaded(images), reference(images))
    assert loaded(images).shape == (3, 64)
    assert "the head of its task is more than a last layer, and is left out" in (tmp_path / "out/README.md").read_text()


# ------------------------------------------------------------------------------------- torchvision


def committed(root: Path, arch: str, name: str, classes: int) -> tuple[Store, Train]:
    """A made-up training of a large network, half of it pruned at random, in a store."""
    store = Store(str(root))
    store.create()
    mask = RandomPrune(arch=arch, data=name, keep=0.5, level=1, seed=0)
    recipe = Recipe(samples=2_560, batch=256, lr=0.1)
    step = Train(task="labels", data=name, arch=arch, recipe=recipe, seed=0, start=Init(seed=0), mask=mask)
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        net = models.Network(models.trunk(arch, 3), nn.Linear(cast(int, models.trunk(arch, 3).width), classes))
    net.to_empty(device="cpu")
    for key, t in net.state_dict().items():
        if key.endswith("num_batches_tracked"):
            t.fill_(7)
        elif t.dim() > 1:
            t.normal_(0, math.sqrt(2 / t[0].numel()), generator=generator)
        else:
            t.uniform_(0.5, 1.5, generator=generator)
    stays = {key: torch.rand(w.shape, generator=generator) < 0.5 for key, w in models.prunable(net.trunk).items()}
    with torch.no_grad():
        for key, w in models.prunable(net.trunk).items():
            w *= stays[key]
    store.commit(mask, {MASK: to_safetensors(masks.pack(stays))}, {"density": masks.density(stays)}, {})
    store.commit(step, {WEIGHTS: to_safetensors(net.state_dict())}, {"top1": 1.0}, {})
    return store, step


@torch.inference_mode()
@pytest.mark.parametrize(
    ("arch", "exact", "changes"),
    [
        ("resnet50", True, 0),
        ("resnet18-cifar", True, 2),
        ("vgg11", False, 2),  # it averages features by another kernel
        pytest.param("vgg19", False, 2, marks=pytest.mark.slow),
        pytest.param("alexnet", True, 0, marks=pytest.mark.slow),
    ],
)
def test_torchvision_takes_the_weights_by_the_cards_lines(
    arch: str, exact: bool, changes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strictly, as load_state_dict is by default."""
    monkeypatch.setattr(release, "gzipped", len)  # which takes longer than all else on such networks
    name = "imagenet" if changes == 0 else "folder/pets"
    store, step = committed(tmp_path / "runs", arch, name, classes=12)
    assert export.main([step.id, "--root", store.base, "--out", str(tmp_path / "out")]) == 0
    code = re.findall(r"```python\n(import torch\n.*?)```", (tmp_path / "out/README.md").read_text(), re.S)
    assert len(code) == 1
    assert len(re.findall(r"^model\.\w+ = ", code[0], re.M)) == changes
    assert "strict" not in code[0]
    monkeypatch.chdir(tmp_path / "out")
    scope: dict[str, Any] = {}
    exec(code[0], scope)
    model = scope["model"]
    assert isinstance(model, nn.Module)
    assert type(model).__module__.startswith("torchvision.")
    size = 32 if "cifar" in arch else 64
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    outputs = raysslprune.load_subnetwork(tmp_path / "out")(images)
    theirs = model.to(memory_format=torch.channels_last)(images)
    assert outputs.shape == (2, 12)
    assert outputs.std() > 1e-3
    assert torch.equal(outputs, theirs) if exact else torch.allclose(outputs, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "alexnet"])
def test_names_and_shapes_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, name)(num_classes=12).state_dict()
        trunk = models.trunk(name, 3)
        ours = models.Network(trunk, nn.Linear(cast(int, trunk.width), 12)).state_dict()
    released = subnetwork.released_names(ours, name)
    assert {key: t.shape for key, t in released.items()} == {key: t.shape for key, t in theirs.items()}
    assert subnetwork.own_names(released, name).keys() == ours.keys()


def test_every_architecture_of_the_package_gets_its_names_back() -> None:
    for arch in subnetwork.names.ARCHITECTURES:
        with torch.device("meta"):
            trunk = models.trunk(arch, 3)
            state = models.Network(trunk, nn.Linear(cast(int, trunk.width), 12)).state_dict()
        released = subnetwork.released_names(state, arch)
        assert len(released) == len(state)
        assert subnetwork.own_names(released, arch) == state


def test_a_trunk_whose_names_are_those_of_the_last_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the trunk of mine:Net has a weight head\.fc, and 'head' is its last"):
        subnetwork.released_names({"trunk.head.fc": torch.ones(1), "head.weight": torch.ones(1)}, "mine:Net")


# ------------------------------------------------------------------------------------- loading


def test_the_package_stays_cheap_to_import() -> None:
    program = (
        "import sys, raysslprune; assert not {'torch', 'numpy', 'safetensors'} & sys.modules.keys()\n"
        "from raysslprune import load_subnetwork; print(load_subnetwork.__module__)\n"
        "raysslprune.load_subnetworks"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout == "raysslprune.subnetwork\n", run.stderr
    assert run.stderr.splitlines()[-1].startswith("AttributeError: module 'raysslprune' has no attribute")


TINY = "class Tiny:\n    raise SystemExit('imported')\n"


def test_a_folder_can_not_make_anything_be_imported(
    tmp_path: Path, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(str(folders["ticket"]), tmp_path / "theirs")
    (tmp_path / "evil.py").write_text(TINY)
    monkeypatch.syspath_prepend(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "arch": "evil:Tiny"}))
    with pytest.raises(ValueError, match=r"'evil:Tiny' is not of this package: pass it, load_subnetwork\(path, trunk="):
        raysslprune.load_subnetwork(folder)
    assert "evil" not in sys.modules
    net = subnetwork.load_subnetwork(folder, trunk=lambda channels: models.trunk("conv4", channels))
    own = raysslprune.load_subnetwork(folders["ticket"])
    assert torch.equal(net(torch.ones(1, 1, 8, 8)), own(torch.ones(1, 1, 8, 8)))


@pytest.mark.parametrize("name", ["model.safetensors", "mask.safetensors"])
def test_a_damaged_file_is_recognised(name: str, tmp_path: Path, folders: dict[str, Path]) -> None:
    folder = copy(str(folders["ticket"]), tmp_path / "damaged")
    content = bytearray((folder / name).read_bytes())
    content[-100] ^= 1
    (folder / name).write_bytes(content)
    read = subnetwork.load_mask if name.startswith("mask") else raysslprune.load_subnetwork
    with pytest.raises(ValueError, match=rf"{name} is damaged: it does not match its checksum in config\.json"):
        read(folder)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"raysslprune": 2}', '"raysslprune"'])
def test_another_programs_folder_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json is not what this version of raysslprune exports"):
        raysslprune.load_subnetwork(tmp_path)


def test_a_folder_that_is_no_export_is_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    whys = {"empty": "there is no config.json in it", "nowhere": "it is not there", "file": "it is a file"}
    for name, why in whys.items():
        for read in (raysslprune.load_subnetwork, subnetwork.load_mask):
            with pytest.raises(
                ValueError, match=rf"/{name} is no folder of a network or mask: {why}; python -m raysslp"
            ):
                read(tmp_path / name)
    (copy(str(folders["ticket"]), tmp_path / "ticket") / "mask.safetensors").unlink()
    with pytest.raises(ValueError, match=r"there is no mask\.safetensors in .*/ticket"):
        subnetwork.load_mask(tmp_path / "ticket")


@pytest.mark.parametrize(
    "wrong",
    [{"channels": "1"}, {"channels": 3}, {"head": {"kind": "x", "features": 1, "outputs": 1}}, {"images": {"mean": 1}}]
    + [{name: None} for name in ("kind", "arch", "channels", "images", "sha256")],
    ids=str,
)
def test_a_config_that_somebody_changed_is_refused(
    wrong: dict[str, Any], tmp_path: Path, folders: dict[str, Path]
) -> None:
    folder = copy(str(folders["ticket"]), tmp_path / "changed")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **wrong}))
    with pytest.raises(ValueError, match=r"config\.json is not what this version of raysslprune exports"):
        raysslprune.load_subnetwork(folder)


@pytest.mark.parametrize(
    ("images", "was"),
    [
        (torch.rand(2, 1, 8, 8), r"float32 \(2, 1, 8, 8\); what is from 0 to 1 is multiplied by 16 first"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.int64), r"int64 \(2, 1, 8, 8\)"),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), r"uint8 \(1, 8, 8\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"uint8 \(2, 3, 8, 8\)"),
        (torch.zeros(2, 8, 8, 1, dtype=torch.uint8), r"uint8 \(2, 8, 8, 1\)"),
    ],
    ids=["from 0 to 1", "whole numbers", "one image", "colours", "channels last"],
)
def test_images_that_are_not_as_stored_are_refused(images: torch.Tensor, was: str, folders: dict[str, Path]) -> None:
    net = raysslprune.load_subnetwork(folders["ticket"])
    with pytest.raises(ValueError, match=rf"^images are uint8 of shape \(n, 1, height, width\), not {was}$"):
        net.preprocess(images)


def test_images_that_are_no_tensor_are_refused(folders: dict[str, Path]) -> None:
    net: Any = raysslprune.load_subnetwork(folders["ticket"])
    with pytest.raises(ValueError, match=r"^images are a tensor, as torch.from_numpy makes, not ndarray$"):
        net.preprocess(np.zeros((2, 1, 8, 8), np.uint8))


def test_weights_of_another_network_are_refused(tmp_path: Path, folders: dict[str, Path]) -> None:
    folder = copy(str(folders["ticket"]), tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "arch": "conv5"}))
    with pytest.raises(ValueError, match=r"the weights in .* are not of conv5 as it is here: .*layers\.conv1\.weight"):
        raysslprune.load_subnetwork(folder)


# ------------------------------------------------------------------------------------- masks out


MASKS: dict[str, Step] = {
    "pruned": cast(Step, ROTNET.masks[2]),
    "random": RANDOM,
    "shuffled": cast(Step, TRAININGS["shuffled"].mask),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_exported_alone(name: str, store: Store, tmp_path: Path) -> None:
    step = MASKS[name]
    assert export.main([step.id[:12], "--root", store.base, "--out", str(tmp_path / "mask")]) == 0
    files = {path.name for path in (tmp_path / "mask").iterdir()}
    assert files == {"mask.safetensors", "config.json", "README.md"}
    found = subnetwork.load_mask(tmp_path / "mask")
    for key, stays in mask_in(store, step, SHAPES).items():
        assert np.array_equal(found[key].numpy(), stays)
    with pytest.raises(ValueError, match=r"holds a mask and no network; raysslprune\.subnetwork\.load_mask reads it"):
        raysslprune.load_subnetwork(tmp_path / "mask")


# ------------------------------------------------------------------------------------- the card


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text()


@pytest.mark.parametrize("name", TRAININGS)
def test_the_card_tells_all_steps_behind_a_network(name: str, store: Store, folders: dict[str, Path]) -> None:
    card, step = card_of(folders[name]), TRAININGS[name]
    rows = re.findall(r"^\| #(\d+) \| `([0-9a-f]{16})` \| (.*?) \|", card, re.M)
    assert [row[1] for row in rows] == [one.id for one in closure([step])]
    place = {step_id: number for number, step_id, _ in rows}
    for one in closure([step]):
        made = next(what for _, step_id, what in rows if step_id == one.id)
        named = set(re.findall(r"(?:from|mask|prune|shuffle) #(\d+)\b", made))
        assert named == {place[parent.id] for parent in one.parents}, made
    trained = [one for one in closure([step]) if isinstance(one, Train)]
    assert len(re.findall(r"^R\d+: .*samples 1,280 .*batch 64, lr 0\.05", card, re.M)) <= len(trained)
    assert f"Step `{step.id}`" in card


def test_the_card_has_results_and_densities(store: Store, folders: dict[str, Path]) -> None:
    card, record = card_of(folders["ticket"]), store.record(TRAININGS["ticket"].id)
    assert record is not None
    assert f"| `top1` | {record.metrics['top1']:.6g} | accuracy, in percent |" in card
    stays = mask_in(store, cast(Step, TRAININGS["ticket"].mask), SHAPES)
    for key, m in stays.items():
        shape = "x".join(map(str, m.shape))
        assert f"| `{key}` | {shape} | {m.sum():,} | {m.size:,} | {100 * m.mean():.4g} |" in card
    left = sum(int(m.sum()) for m in stays.values())
    assert left == round(round(32_400 * 0.2) * 0.2)
    assert f"with {left:,} of 32,400 prunable weights left (density {left / 32_400:.6g})" in card
    assert "Pruned by magnitude 2 times, after a training on task `rotnet`" in card
    assert "the largest 20% stay" in card
    assert "had after 640 samples" in card
    dense = (folders["ticket"] / "model.safetensors").stat().st_size
    sparse = (folders["ticket"] / "sparse.safetensors").stat().st_size
    assert f"({100 * sparse / dense:.3g}%)" in card


def test_the_card_tells_nobody_where_it_was_made(store: Store, folders: dict[str, Path]) -> None:
    record = store.record(TRAININGS["ticket"].id)
    assert record is not None
    for folder in folders.values():
        text = card_of(folder) + (folder / "config.json").read_text()
        assert record.facts["host"] not in text
        assert store.base not in text
        assert str(folder.parent) not in text


def test_the_cards_three_lines_work(folders: dict[str, Path]) -> None:
    code = re.findall(r"```python\n(import raysslprune\n.*?)```", card_of(folders["ticket"]), re.S)[0]
    assert len([line for line in code.splitlines() if line]) == 3
    scope: dict[str, Any] = {"images": torch.randint(0, 17, (5, 1, 8, 8), dtype=torch.uint8)}
    exec(code.replace("path/to/this/folder", str(folders["ticket"])), scope)
    assert scope["outputs"].shape == (5, 10)


def test_the_front_matter_is_yaml_whatever_the_data_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release, "gzipped", len)
    name = 'folder/a "b": - c:10%-of-images'
    store, step = committed(tmp_path / "runs", "conv4", name, classes=2)
    assert export.main([step.id, "--root", store.base, "--out", str(tmp_path / "out")]) == 0
    front = yaml.safe_load(card_of(tmp_path / "out").split("---\n")[1])
    assert front["datasets"] == [name]
    assert front["library_name"] == "raysslprune"
    assert "license" not in front


def test_images_on_disk_are_normalised_as_the_data_set_says(tmp_path: Path) -> None:
    """Though it is not read, and need not be there."""
    from PIL import Image

    for split in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / "pets" / split / label).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "pets" / split / label / "1.png")
    loaded = data.load("folder/pets", str(tmp_path))
    for name in ("folder/pets", "folder/pets:50%-of-classes", "imagenet", "places205", "voc07"):
        found = Images.of(name, str(tmp_path / "nothing"))
        assert (found.channels, found.size, found.white) == (loaded.channels, loaded.size, loaded.white)
        assert torch.equal(torch.tensor(found.mean), loaded.mean.flatten())
        assert torch.equal(torch.tensor(found.std), loaded.std.flatten())


# ------------------------------------------------------------------------------------- what goes wrong


def code_of(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> Any:
    """What a command exits with; argparse does so itself."""
    try:
        return main(arguments)
    except SystemExit as exit_:
        return exit_.code


def refused(capfd: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """The one sentence that the command says; it leaves nothing."""
    out = next(Path(after) for flag, after in pairwise(arguments) if flag == "--out")
    before = set(out.parent.rglob("*"))
    capfd.readouterr()
    assert code_of(export.main, arguments) == code
    said = capfd.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == 1, said.err
    assert set(out.parent.rglob("*")) == before
    return lines[0].removeprefix("raysslprune: ")


def test_wrong_calls(store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, step = str(tmp_path / "x" / "out"), TRAININGS["ticket"].id
    Path(out).parent.mkdir()
    root = ["--root", store.base]
    assert refused(capfd, 2, "ffffff", "--out", out, *root) == f"there is no step 'ffffff' in {store.base}"
    said = refused(capfd, 2, step[:3], "--out", out, *root)
    assert said == f"the first 4 digits of a step's id are wanted at least, not '{step[:3]}'"
    nothing = str(tmp_path / "nothing")
    said = refused(capfd, 1, step, "--out", out, "--root", nothing)
    assert said == f"there are no results in {nothing}; --root wants the folder of a sweep"
    assert "unrecognized arguments: --frog; see --help" in refused(capfd, 2, step, "--out", out, "--frog")
    (tmp_path / "x" / "file").write_text("")
    said = refused(capfd, 2, step, "--out", str(tmp_path / "x" / "file"), *root)
    assert said.endswith("is a file; --out wants a new or empty folder")
    said = refused(capfd, 2, step, "--out", str(tmp_path / "x" / "file" / "out"), *root)
    assert said == f"{tmp_path / 'x' / 'file'} is a file; --out wants a new or empty folder"
    (tmp_path / "x" / "full").mkdir()
    (tmp_path / "x" / "full" / "file").write_text("mine")
    said = refused(capfd, 2, step, "--out", str(tmp_path / "x" / "full"), *root)
    assert said.endswith("is not empty; --out wants a new or empty folder")
    assert (tmp_path / "x" / "full" / "file").read_text() == "mine"


def test_an_empty_folder_is_taken_and_parents_are_made(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b"):
        assert export.main([TRAININGS["ticket"].id[:8].upper(), "--root", store.base, "--out", str(out)]) == 0
        assert raysslprune.load_subnetwork(out).config["step"] == TRAININGS["ticket"].id
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "a"}


def test_a_beginning_that_several_steps_share_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store = Store(str(tmp_path / "runs"))
    store.create()
    for step_id in ("aaaa1", "aaaa2", "bbbb1"):
        (tmp_path / "runs" / "steps" / step_id).mkdir(parents=True)
    said = refused(capfd, 2, "aaaa", "--root", store.base, "--out", str(tmp_path / "out"))
    assert said == f"2 steps in {store.base} begin with 'aaaa': aaaa1, aaaa2"
    said = refused(capfd, 1, "bbbb", "--root", store.base, "--out", str(tmp_path / "out"))
    assert said == "step bbbb1 is not finished: the same sweep again goes on with it"


def test_steps_that_leave_no_network(store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    said = refused(capfd, 1, SVMS.id, "--root", store.base, "--out", out)
    judged = ROTNET.rounds[1].id
    assert said == (
        f"step {SVMS.id} is linear SVMs, and leaves no network: export the one whose features they judge, {judged}"
    )
    lean, step = Store(str(tmp_path / "lean")), TRAININGS["dense"]
    lean.create()
    lean.commit(step, {}, {"top1": 97.0}, {})
    said = refused(capfd, 1, step.id, "--root", lean.base, "--out", out)
    assert said == (
        f"the weights of step {step.id} were not kept (--keep needed): to have them, delete {lean.base}/steps/{step.id}"
        " and run its sweep again with --keep all"
    )


@pytest.mark.parametrize("name", [WEIGHTS, "spec.json", "SUCCESS"])
def test_damage_in_the_store_is_one_sentence(
    name: str, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = copy(store.base, tmp_path / "runs")
    step = TRAININGS["ticket"]
    path = root / "steps" / step.id / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    said = refused(capfd, 1, step.id, "--root", str(root), "--out", str(tmp_path / "out"))
    assert said.startswith(f"step {step.id}: ")
    assert said.endswith("; run its sweep again, which makes it anew")


@pytest.mark.parametrize("what", ["dense", "mask"])
def test_what_is_behind_a_network_must_be_there(
    what: str, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = copy(store.base, tmp_path / "runs")
    gone = ROTNET.dense if what == "dense" else cast(Step, TRAININGS["ticket"].mask)
    shutil.rmtree(root / "steps" / gone.id)
    said = refused(capfd, 1, TRAININGS["ticket"].id, "--root", str(root), "--out", str(tmp_path / "out"))
    assert said.startswith(f"step {gone.id}: spec.json is not there")


def test_weights_that_a_mask_does_not_fit_are_not_exported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    store, step = committed(tmp_path / "runs", "conv4", "folder/pets", classes=2)
    state = weights(store, step)
    state["trunk.layers.conv2.weight"][:] = 1
    store.commit(step, {WEIGHTS: to_safetensors(state)}, {"top1": 1.0}, {})
    said = refused(capfd, 1, step.id, "--root", store.base, "--out", str(tmp_path / "out"))
    assert said == f"weights of layers.conv2.weight in step {step.id} are not 0 though its mask prunes them"


def test_weights_of_code_that_has_changed_are_not_exported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As an architecture of one's own under the same name."""
    store, step = committed(tmp_path / "runs", "conv4", "folder/pets", classes=2)
    state = weights(store, step)
    state["trunk.layers.conv2.weight"] = torch.ones(32, 16, 5, 5)
    store.commit(step, {WEIGHTS: to_safetensors(state)}, {"top1": 1.0}, {})
    said = refused(capfd, 1, step.id, "--root", store.base, "--out", str(tmp_path / "out"))
    assert said == f"the weights of step {step.id} are not of conv4 as it is here"


def test_data_that_are_missing_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of CIFAR-10 mean and standard deviation are the training images' own."""
    store, step = committed(tmp_path / "runs", "conv5", "cifar10", classes=10)
    (tmp_path / "data").mkdir()
    arguments = ["--root", store.base, "--out", str(tmp_path / "out"), "--data", str(tmp_path / "data")]
    assert str(tmp_path / "data" / "cifar10") in refused(capfd, 1, step.id, *arguments)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_a_stop_half_way_leaves_nothing(
    error: Any, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    write = Path.write_bytes

    def stopped(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) == 3:
            raise error
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", stopped)
    code = 130 if error is KeyboardInterrupt else 1
    said = refused(capfd, code, TRAININGS["ticket"].id, "--root", store.base, "--out", str(tmp_path / "out"))
    assert len(written) == 3
    assert {path.parent.parent for path in written} == {tmp_path}
    assert said == ("stopped; nothing was exported" if code == 130 else "No space left on device")


# ------------------------------------------------------------------------------------- ONNX


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs onnx, onnxscript and onnxruntime",
)
def test_onnx_gives_the_modules_outputs_for_any_batch(store: Store, tmp_path: Path) -> None:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    step = TRAININGS["classifier"]
    assert export.main([step.id, "--root", store.base, "--out", str(tmp_path / "out"), "--onnx"]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    assert [(i.name, i.shape[1:]) for i in session.get_inputs()] == [("images", [1, 8, 8])]
    net = raysslprune.load_subnetwork(tmp_path / "out")
    images = data.load("digits").test.some(torch.arange(70))
    for batch, _ in images.batches(37):
        for part in (batch, batch[:1]):
            normalised = net.preprocess(part)
            found = np.asarray(session.run(["outputs"], {"images": normalised.numpy()})[0])
            wanted = net(normalised).detach().numpy()
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
            assert wanted.std() > 0.1
    assert "`model.onnx` has the same network" in card_of(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    content = (tmp_path / "out" / "model.onnx").read_bytes()
    assert config["sha256"]["model.onnx"] == hashlib.sha256(content).hexdigest()


def test_onnx_that_is_not_installed_is_one_sentence(
    store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    arguments = [TRAININGS["ticket"].id, "--root", store.base, "--out", str(tmp_path / "out"), "--onnx"]
    assert refused(capfd, 2, *arguments) == "--onnx needs onnx and onnxscript: pip install 'raysslprune[onnx]'"


def test_a_mask_has_no_network_for_onnx(store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mask = TRAININGS["ticket"].mask
    assert mask is not None
    arguments = [mask.id, "--root", store.base, "--out", str(tmp_path / "out"), "--onnx"]
    assert refused(capfd, 2, *arguments) == f"step {mask.id} is a mask, and --onnx wants a network"


# ------------------------------------------------------------------------------------- torch's own pruning


def conv4() -> nn.Module:
    return models.network(
        "conv4", 1, lambda width: nn.Linear(width, 10), torch.Generator().manual_seed(2), torch.device("cpu")
    ).trunk


def magnitudes_above(trunk: nn.Module, amount: float) -> dict[str, np.ndarray]:
    """What global magnitude pruning leaves, by one sort of all magnitudes in numpy."""
    sizes = {name: np.abs(w.detach().numpy()) for name, w in models.prunable(trunk).items()}
    ordered = np.sort(np.concatenate([s.ravel() for s in sizes.values()]))
    threshold = ordered[round(amount * len(ordered))]
    return {name: s >= threshold for name, s in sizes.items()}


def globally_pruned(amount: float = 0.9) -> tuple[nn.Module, dict[str, np.ndarray]]:
    trunk = conv4()
    stays = magnitudes_above(trunk, amount)
    layers = [(part, "weight") for part in trunk.modules() if isinstance(part, nn.Conv2d)]
    prune.global_unstructured(layers, pruning_method=prune.L1Unstructured, amount=amount)
    return trunk, stays


def test_the_mask_of_a_module_that_torch_pruned() -> None:
    trunk, stays = globally_pruned()
    found = torch_prune.from_torch_prune(trunk)
    assert list(found) == list(SHAPES)
    for name, m in stays.items():
        assert found[name].dtype == torch.bool
        assert np.array_equal(found[name].numpy(), m)
        assert 0 < m.sum() < m.size


def test_unpruned_layers_are_full_and_other_parameters_may_not_be_pruned() -> None:
    trunk = conv4()
    first = cast(nn.Module, trunk.get_submodule("layers.conv1"))
    prune.l1_unstructured(first, "weight", amount=10)
    found = torch_prune.from_torch_prune(trunk)
    assert [int((~m).sum()) for m in found.values()] == [10, 0, 0, 0]
    prune.identity(trunk.get_submodule("layers.bn2"), "weight")
    assert torch_prune.from_torch_prune(trunk).keys() == SHAPES.keys()
    prune.random_unstructured(trunk.get_submodule("layers.bn2"), "bias", amount=1)
    with pytest.raises(ValueError, match=r"layers\.bn2\.bias is pruned, which is no weight of a convolution"):
        torch_prune.from_torch_prune(trunk)


def test_a_mask_prunes_a_module_by_torchs_own_means(folders: dict[str, Path]) -> None:
    mask, trunk = subnetwork.load_mask(folders["ticket"]), conv4()
    before = {name: w.detach().clone() for name, w in models.prunable(trunk).items()}
    assert torch_prune.to_torch_prune(trunk, mask) is trunk
    assert prune.is_pruned(trunk)
    for name, w in models.prunable(trunk).items():
        assert torch.equal(w, before[name] * mask[name])
        assert torch.equal(trunk.state_dict()[f"{name}_mask"], mask[name].float())
        assert torch.equal(trunk.state_dict()[f"{name}_orig"], before[name])
    assert all(torch.equal(m, mask[name]) for name, m in torch_prune.from_torch_prune(trunk).items())


def test_a_mask_of_another_module_changes_nothing(folders: dict[str, Path]) -> None:
    mask, trunk = subnetwork.load_mask(folders["ticket"]), conv4()
    with pytest.raises(ValueError, match=r"the module has no weight conv9\.weight to prune"):
        torch_prune.to_torch_prune(trunk, {**mask, "conv9.weight": torch.ones(1, dtype=torch.bool)})
    with pytest.raises(ValueError, match=r"layers\.conv4\.weight is \(3, 3\), not \(64, 32, 3, 3\)"):
        torch_prune.to_torch_prune(trunk, {**mask, "layers.conv4.weight": torch.ones(3, 3, dtype=torch.bool)})
    assert not prune.is_pruned(trunk)


FORMS: dict[str, Callable[[nn.Module, Mapping[str, Tensor]], dict[str, Any]]] = {
    "state of the trunk": lambda trunk, stays: trunk.state_dict(),
    "state of a network here": lambda trunk, stays: models.Network(trunk, nn.Linear(64, 10)).state_dict(),
    "DataParallel's": lambda trunk, stays: {f"module.{name}": t for name, t in trunk.state_dict().items()},
    "a checkpoint": lambda trunk, stays: {"epoch": 3, "state_dict": trunk.state_dict()},
    "masks alone": lambda trunk, stays: {f"{name}_mask": m.float() for name, m in stays.items()},
    "zeros and ones by name": lambda trunk, stays: {name: m.int() for name, m in stays.items()},
    "bools by name": lambda trunk, stays: {f"trunk.{name}": m for name, m in stays.items()},
    "torch.compile's": lambda trunk, stays: {f"_orig_mod.{name}": t for name, t in trunk.state_dict().items()},
    "of a wrapped wrapper": lambda trunk, stays: {f"module._orig_mod.{name}": m for name, m in stays.items()},
    "of a wrapper wrapped": lambda trunk, stays: {f"_orig_mod.module.trunk.{name}": m for name, m in stays.items()},
    "a part was compiled": lambda trunk, stays: {
        name.replace("layers.", "layers._orig_mod."): m for name, m in stays.items()
    },
    "the tutorials' checkpoint": lambda trunk, stays: {
        "epoch": 3,
        "model_state_dict": trunk.state_dict(),
        "optimizer_state_dict": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
    },
    "a checkpoint in a checkpoint": lambda trunk, stays: {"model": {"state_dict": dict(stays), "name": "conv4"}},
    "masks beside other things": lambda trunk, stays: {"masks": dict(stays), "amount": 0.9, "tool": "mine"},
    "plain values among them": lambda trunk, stays: {**stays, "amount": 0.9, "note": None},
    "NNI's": lambda trunk, stays: {
        name.removesuffix(".weight"): {"weight": m.float(), "bias": None} for name, m in stays.items()
    },
    "NNI's with biases": lambda trunk, stays: {
        f"module.{name.removesuffix('.weight')}": {"weight": m.float(), "bias": torch.ones(len(m))}
        for name, m in stays.items()
    },
    "sparse": lambda trunk, stays: {name: m.to_sparse() for name, m in stays.items()},
    "sparse numbers": lambda trunk, stays: {f"{name}_mask": m.float().to_sparse() for name, m in stays.items()},
    "views of one tensor": lambda trunk, stays: {
        name: part.view(stays[name].shape)
        for name, part in zip(
            stays,
            torch.cat([m.flatten() for m in stays.values()]).split([m.numel() for m in stays.values()]),
            strict=True,
        )
    },
    "views in another order": lambda trunk, stays: {
        name: m.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0) for name, m in stays.items()
    },
    "one tensor under two names": lambda trunk, stays: {
        f"{name}{end}": m for name, m in stays.items() for end in ("_mask", "_copy")
    },
    "parameters": lambda trunk, stays: {name: nn.Parameter(m.float()) for name, m in stays.items()},
    **{
        str(dtype): lambda trunk, stays, dtype=dtype: {name: m.to(dtype) for name, m in stays.items()}
        for dtype in (torch.uint8, torch.int64, torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn)
    },
}
IN_TORCH_ONLY = {
    *(name for name in FORMS if "checkpoint" in name or "NNI" in name or "sparse" in name or "views" in name),
    *("masks beside other things", "plain values among them", "one tensor under two names"),
}
"""What safetensors can't hold: other things than tensors by name, none of which is another's view."""


def read_and_fit(path: Path) -> dict[str, Tensor]:
    found, left_out = torch_prune.fit(torch_prune.read(path), SHAPES)
    assert left_out == []
    assert list(found) == list(SHAPES)
    assert all(m.dtype == torch.bool and m.is_contiguous() for m in found.values())
    return found


@pytest.mark.parametrize(
    ("form", "suffix"),
    [
        (form, suffix)
        for form in FORMS
        for suffix in (".pt", ".safetensors")
        if suffix == ".pt" or form not in IN_TORCH_ONLY
    ],
)
def test_a_file_of_any_form_gives_the_mask(form: str, suffix: str, tmp_path: Path) -> None:
    """Whatever its name: safetensors are in a .pt too, and the other way around."""
    trunk, stays = globally_pruned()
    content = FORMS[form](trunk, {name: torch.from_numpy(m) for name, m in stays.items()})
    for end in (suffix, ".bin", ".pt" if suffix == ".safetensors" else ".safetensors"):
        path = tmp_path / f"mask{end}"
        if suffix == ".pt":
            torch.save(content, path)
        else:
            path.write_bytes(to_safetensors({name: t.contiguous() for name, t in content.items()}))
        found = read_and_fit(path)
        assert all(np.array_equal(found[name].numpy(), m) for name, m in stays.items())


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["bool", "uint8", "<f4", ">f4", ">i8"])
def test_numpys_archives_are_read(save: Callable[..., None], dtype: str, tmp_path: Path) -> None:
    _, stays = globally_pruned()
    for name, order in (("a.npz", "C"), ("b.npz", "F")):
        save(
            tmp_path / name,
            **{f"module.{n}": np.asarray(m.astype(dtype), order=cast(Any, order)) for n, m in stays.items()},
        )
        found = read_and_fit(tmp_path / name)
        assert all(np.array_equal(found[n].numpy(), m) for n, m in stays.items())


@pytest.mark.filterwarnings("ignore:Sparse CS[RC] tensor support is in beta")
@pytest.mark.parametrize("layout", [torch.sparse_csr, torch.sparse_csc])
def test_compressed_rows_of_a_linear_layer_are_read(layout: torch.layout, tmp_path: Path) -> None:
    stays = torch.arange(32).view(4, 8) % 3 == 0
    torch.save({"0.weight": stays.float().to_sparse(layout=layout)}, tmp_path / "mask.pt")
    found, _ = torch_prune.fit(torch_prune.read(tmp_path / "mask.pt"), {"0.weight": torch.Size((4, 8))})
    assert torch.equal(found["0.weight"], stays)


def test_layers_that_a_file_does_not_name_are_full_and_the_last_layer_is_left_out() -> None:
    half = torch.arange(144).view(16, 1, 3, 3) % 2
    given = {"layers.conv1.weight": half, "fc.weight": torch.tensor([0, 1]), "classifier.6.weight": torch.ones(2)}
    found, left_out = torch_prune.fit(given, SHAPES)
    assert left_out == ["fc.weight"]
    assert torch.equal(found["layers.conv1.weight"], half.bool())
    assert all(found[name].all() and found[name].shape == shape for name, shape in list(SHAPES.items())[1:])


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"layers.conv1.weight": torch.ones(16, 3, 3, 3)}, "conv1.weight is (16, 3, 3, 3), not (16, 1, 3, 3)"),
        ({"layers.conv1.weight": torch.full((16, 1, 3, 3), 0.5)}, "no mask: it holds other values than 0 and 1"),
        ({"layers.conv1.weight": torch.full((16, 1, 3, 3), math.nan)}, "no mask: it holds other values than 0 and 1"),
        (
            {"conv1.weight": torch.ones(16, 1, 3, 3)},
            "it names conv1.weight, and none of the network's layers: layers.conv1.weight, layers.conv2.weight, ",
        ),
        ({f"layers.bn{n}.weight": torch.zeros(16) for n in range(5)}, "bn2.weight and 2 more, and none of the"),
        (
            {"layers.conv1.weight": torch.ones(16, 1, 3, 3), "layers.bn1.bias": torch.zeros(16)},
            "layers.bn1.bias is pruned, which is no weight of a convolution or linear layer here",
        ),
    ],
)
def test_what_is_no_mask_of_the_network_is_refused(given: dict[str, Tensor], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        torch_prune.fit(given, SHAPES)


# ------------------------------------------------------------------------------------- masks in


def made_mask() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return {name: torch.rand(shape, generator=generator) < 0.3 for name, shape in SHAPES.items()}


def by_hand(mask: Mapping[str, Tensor]) -> str:
    """The digest as its docstring has it."""
    text = b""
    for name in sorted(mask):
        text += f"{name} {tuple(mask[name].shape)}".encode() + b"\n" + np.packbits(mask[name].numpy().ravel()).tobytes()
    return hashlib.sha256(text).hexdigest()


def test_the_digest_is_of_every_bit_name_and_shape_in_any_order() -> None:
    mask = made_mask()
    assert masks.digest(mask) == by_hand(mask)
    assert masks.digest(dict(reversed(mask.items()))) == by_hand(mask)
    last = "layers.conv4.weight"
    flipped = {**mask, last: mask[last].clone()}
    flipped[last].view(-1)[-1] ^= True
    turned = {**mask, last: mask[last].view(32, 64, 3, 3)}
    renamed = {**{name: m for name, m in mask.items() if name != last}, "layers.conv5.weight": mask[last]}
    assert len({masks.digest(m) for m in (mask, flipped, turned, renamed)}) == 4


DIGEST = "0123456789abcdef" * 4


def test_the_id_of_an_imported_mask_by_hand() -> None:
    step = Imported(arch="conv4", channels=1, digest=DIGEST)
    text = f'{{"arch":"conv4","channels":1,"digest":"{DIGEST}","kind":"Imported","version":1}}'
    assert step.id == hashlib.sha256(text.encode()).hexdigest()[:16] == "34ad80d9f86e4fdb"
    assert step.parents == ()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"channels": 0}, "a network takes images with channels, not 0"),
        ({"digest": DIGEST[1:]}, "a digest is 64 hexadecimal digits in lower case"),
        ({"digest": DIGEST.upper()}, "a digest is 64 hexadecimal digits in lower case"),
        ({"digest": "DIGEST"}, "not 'DIGEST'"),
    ],
)
def test_what_makes_no_sense_of_an_imported_mask_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Imported(**{"arch": "conv4", "channels": 1, "digest": DIGEST, **change})


def test_an_imported_mask_is_for_its_own_architecture() -> None:
    mask = Imported(arch="resnet8", channels=1, digest=DIGEST)
    for one in (mask, Shuffle(of=mask, seed=0)):
        with pytest.raises(ValueError, match="the imported mask is of resnet8, and not of conv4"):
            random_reinit(one, like=ROTNET.dense, task="labels", recipe=LABELS)
        with pytest.raises(ValueError, match="the imported mask is of resnet8, and not of conv4"):
            dataclasses.replace(SVMS, mask=one)
    like = dataclasses.replace(ROTNET.dense, arch="resnet8")
    assert random_reinit(mask, like=like, task="labels", recipe=LABELS).mask == mask


def test_a_rewound_training_is_the_winning_ticket_under_any_mask() -> None:
    mask = Imported(arch="conv4", channels=1, digest=DIGEST)
    ticket = rewound(mask, to=ROTNET.dense, samples=640, task="labels", recipe=LABELS)
    assert ticket == dataclasses.replace(TRAININGS["ticket"], mask=mask)
    assert ticket.start == Rewind(of=ROTNET.dense, samples=640)
    assert (ticket.data, ticket.arch, ticket.seed) == ("digits", "conv4", SEED)
    other = rewound(mask, to=ROTNET.dense, samples=640, task="labels", recipe=LABELS, data="digits:10%-of-images")
    assert other.data == "digits:10%-of-images"


def imported(root: Path, mask: Mapping[str, Tensor], *more: str) -> int:
    (root.parent / "mask.safetensors").write_bytes(to_safetensors({f"{n}_mask": m.float() for n, m in mask.items()}))
    return import_mask.main([str(root.parent / "mask.safetensors"), "--arch", "conv4", "--root", str(root), *more])


def test_a_mask_comes_into_the_store(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mask = made_mask()
    assert imported(tmp_path / "runs", mask) == 0
    said = capfd.readouterr()
    assert said.err == ""
    scope: dict[str, Any] = {}
    exec(said.out, scope)
    step = scope["MASK"]
    assert step == Imported(arch="conv4", channels=1, digest=by_hand(mask))
    store = Store(str(tmp_path / "runs"))
    record = store.record(step.id)
    assert record is not None
    left = sum(int(m.sum()) for m in mask.values())
    assert record.metrics == {"density": left / 32_400, "density_in_scope": left / 32_400}
    assert record.facts["source"] == "mask.safetensors"
    assert f"step {step.id} in {tmp_path / 'runs'}: {100 * left / 32_400:.4g}% of conv4's weights stay" in said.out
    for name, m in mask_in(store, step, SHAPES).items():
        assert np.array_equal(m, mask[name].numpy())
    assert store.step(step.id) == step
    content = {path.name: path.read_bytes() for path in (tmp_path / "runs/steps" / step.id).iterdir()}
    assert imported(tmp_path / "runs", mask) == 0
    again = {path.name: path.read_bytes() for path in (tmp_path / "runs/steps" / step.id).iterdir()}
    assert again == content


def test_an_exported_mask_comes_into_another_store(
    folders: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(folders["ticket"] / "mask.safetensors"), "--arch", "conv4", "--root", str(tmp_path / "runs")]
    assert import_mask.main(arguments) == 0
    assert by_hand(subnetwork.load_mask(folders["ticket"])) in capfd.readouterr().out


def test_channels_are_asked_for_where_the_first_layer_is_not_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    some = {name: m for name, m in made_mask().items() if "conv1" not in name}
    assert imported(tmp_path / "runs", some) == 2
    said = capfd.readouterr().err
    assert "has no mask of the first convolution, layers.conv1.weight: say --channels" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
    assert imported(tmp_path / "runs", some, "--channels", "3") == 0
    full = {"layers.conv1.weight": torch.ones(16, 3, 3, 3, dtype=torch.bool)}
    assert f'channels=3, digest="{by_hand(full | some)}"' in capfd.readouterr().out


def test_a_mask_of_the_last_layer_is_left_out_and_that_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert imported(tmp_path / "runs", {**made_mask(), "fc.weight": torch.zeros(10, 64)}) == 0
    said = capfd.readouterr()
    assert said.err == "raysslprune: left out, since the last layer is never pruned here: fc.weight\n"
    assert by_hand(made_mask()) in said.out


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


def archive(*arrays: np.ndarray, **named: np.ndarray) -> bytes:
    """As numpy.savez writes it."""
    np.savez(content := io.BytesIO(), *arrays, **cast(Any, named))
    return content.getvalue()


@pytest.mark.parametrize(
    ("arguments", "content", "code", "why"),
    [
        (["--arch", "conv9"], {}, 2, "architecture 'conv9' is not known; did you mean 'conv"),
        (["--arch", "conv4", "--channels", "x"], {}, 2, "'x' is not a whole number from 1 to 1000; see --help"),
        (["--arch", "conv4"], {"layers.conv1.weight": torch.randn(16, 1, 3, 3)}, 2, "other values than 0 and 1"),
        (["--arch", "conv4"], {"a": Evil()}, 2, "damaged, or no checkpoint, or holds more than tensors and plain"),
        (["--arch", "conv4"], {"layers.conv1.weight": np.ones((16, 1, 3, 3))}, 2, "more than tensors and plain values"),
        (["--arch", "conv4"], {"layers.conv1": Evil()}, 2, "damaged, or no checkpoint, or holds more than tensors"),
        (["--arch", "conv4"], b"", 2, "mask.pt is damaged, or no checkpoint"),
        (["--arch", "conv4"], b'\x08\0\0\0\0\0\0\0{"a": 1}', 2, "mask.pt is damaged, or no checkpoint"),
        (
            ["--arch", "conv4"],
            archive(a=np.array([Evil()], dtype=object)),
            2,
            "holds more than tensors and plain values",
        ),
        (["--arch", "conv4"], archive(a=np.array(["text"])), 2, "mask.pt is damaged, or no checkpoint"),
        (["--arch", "conv4"], archive(), 2, "holds no tensors by name, neither directly nor under masks, mask, "),
        (["--arch", "conv4"], archive(np.ones(3)), 2, "it names arr_0, and none of the network's layers"),
        (["--arch", "conv4"], archive(np.ones(3))[:-9], 2, "mask.pt is damaged, or no checkpoint"),
        (["--arch", "conv4"], [torch.ones(2)], 2, "mask.pt holds no tensors by name, neither directly nor under"),
        (
            ["--arch", "conv4"],
            {"fc.bias": torch.ones(4, dtype=torch.uint8)},
            2,
            "it names fc.bias, and none of the net",
        ),
        (
            ["--arch", "conv4"],
            {"layers.conv1.weight": torch.ones(16, 9)},
            2,
            "the mask of layers.conv1.weight is (16, 9), and a convolution's has four dimensions",
        ),
        (
            ["--arch", "conv4"],
            {"layers.conv1.weight": torch.ones(16, 1, 3, 3, device="meta")},
            2,
            "layers.conv1.weight can't be read as a mask, being float32, strided, of shape (16, 1, 3, 3), on meta",
        ),
        (
            ["--arch", "conv4"],
            {f"{wrapper}layers.conv1.weight": torch.ones(16, 1, 3, 3) for wrapper in ("", "module.")},
            2,
            "it has two masks of layers.conv1.weight, of which module.layers.conv1.weight is one",
        ),
        (
            ["--arch", "conv4"],
            {"layers.conv1": {"weight": torch.ones(16, 1, 3, 3)}, "layers.bn1": {"weight": torch.zeros(16)}},
            2,
            "layers.bn1.weight is pruned, which is no weight of a convolution or linear layer here",
        ),
        (
            ["--arch", "conv4"],
            {"layers.conv1.weight": torch.ones(16, 1, 3, 3), "other": torch.ones(1).expand(10**15)},
            2,
            "other can't be read as a mask, being float32, strided, of shape (1000000000000000,), on cpu",
        ),
        (["--arch", "conv4"], None, 2, "there is no file mask.pt"),
        (["--arch", "conv4"], "folder", 2, "mask.pt is a folder, and no file"),
        (
            ["--arch", "conv4"],
            {"features.0.weight": torch.ones(16, 1, 3, 3)},
            2,
            "it names features.0.weight, and none",
        ),
        (["--arch", "resnet8"], {"layers.conv1.weight": torch.ones(16, 1, 3, 3)}, 2, "layers: layers.0.weight, "),
    ],
)
def test_what_can_not_be_imported_is_one_sentence(
    arguments: list[str],
    content: Any,
    code: int,
    why: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content == "folder":
        Path("mask.pt").mkdir()
    elif isinstance(content, bytes):
        Path("mask.pt").write_bytes(content)
    elif content is not None:
        torch.save(content, "mask.pt")
    assert code_of(import_mask.main, ["mask.pt", "--root", "runs", *arguments]) == code
    said = capfd.readouterr()
    assert why in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "evil").exists()


# ------------------------------------------------------------------------------------- in a sweep


def under(mask: Any) -> Train:
    return random_reinit(mask, like=ROTNET.dense, task="labels", recipe=LABELS)


def points_of(*steps: Train) -> list[Point]:
    return [Point(step=step, task="labels", init="", level=1, seed=SEED) for step in steps]


def test_no_job_makes_an_imported_mask(tmp_path: Path) -> None:
    mask = Imported(arch="conv4", channels=1, digest=DIGEST)
    graph = plan.make(points_of(under(mask), under(Shuffle(of=mask, seed=0))))
    assert [job.parents for job in graph.jobs.values()] == [[], []]
    assert [job.before for job in graph.jobs.values()] == [[mask], [Shuffle(of=mask, seed=0)]]
    assert mask.id in graph.ids
    assert graph.not_imported({}) == [mask]
    assert plan.describe(mask) == "imported mask 01234567"
    assert plan.describe(Shuffle(of=mask, seed=0)) == "shuffled imported mask 01234567"
    assert math.isnan(plan.left(mask))
    with pytest.raises(NotImported) as missing:
        execute([under(mask)], tmp_path / "runs")
    assert str(missing.value) == (
        f"the conv4 mask 01234567 (step {mask.id}) is from elsewhere, and not in {tmp_path / 'runs'}: put it there by "
        f"raysslprune import-mask FILE --arch conv4 --root {tmp_path / 'runs'}"
    )
    assert Store(str(tmp_path / "runs")).record(under(mask).id) is None


def test_a_damaged_imported_mask_is_recognised_and_can_be_imported_again(tmp_path: Path) -> None:
    mask = made_mask()
    step = Imported(arch="conv4", channels=1, digest=by_hand(mask))
    assert imported(tmp_path / "runs", mask) == 0
    path = tmp_path / "runs/steps" / step.id / MASK
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    store = Store(str(tmp_path / "runs"))
    graph = plan.make(points_of(under(step)))
    records, damaged = store.survey(graph.ids)
    assert [damage.step_id for damage in damaged] == [step.id]
    assert graph.not_imported(records) == [step]
    with pytest.raises(Damaged):
        execute([under(step)], tmp_path / "runs")
    store.set_aside(step.id)
    assert imported(tmp_path / "runs", mask) == 0
    execute([under(step)], tmp_path / "runs")
    records, _ = Store(store.base).survey(graph.ids)
    assert graph.not_imported(records) == []
    assert graph.pending(records) == []


def test_the_docs_own_way_from_torchs_pruning_to_a_table(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export a dense network, prune it by torch, import the mask, and train from it, as docs/export.md shows."""
    monkeypatch.chdir(tmp_path)
    code = dict(re.findall(r"^```python (\S+)\n(.*?)^```$", DOC, re.M | re.S))
    dense = imp(
        task="labels", data="digits", arch="conv4", recipe=SMOKE.recipes["labels"], seed=0, levels=0, keep=0.1, rewind=0
    ).dense
    store = execute([dense], tmp_path / "runs")
    assert export.main([dense.id, "--out", "dense"]) == 0
    exec(code["prune.py"], {})
    capfd.readouterr()
    command = re.findall(r"^    raysslprune import-mask (.*)$", DOC, re.M)
    assert len(command) == 1
    assert import_mask.main(command[0].split()) == 0
    *_, line = capfd.readouterr().out.splitlines()
    digest = re.findall('digest="(.*)"', line)[0]
    text = code["theirs.py"].replace("DIGEST", digest)
    assert line in text.splitlines(), "it is printed as it stands in a sweep file"
    (tmp_path / "theirs.py").write_text(text)

    points = load("theirs.py", "smoke", 1).points
    steps = [point.step for point in points]
    execute(steps, tmp_path / "runs")
    trunk = raysslprune.load_subnetwork("dense").trunk
    stays = magnitudes_above(trunk, 0.9)
    assert sum(int(m.sum()) for m in stays.values()) == 3_240
    ticket, reinit, control = (weights(store, step) for step in steps)
    for name, m in stays.items():
        assert np.array_equal(mask_in(store, cast(Step, steps[0].mask), SHAPES)[name], m)
        for state in (ticket, reinit):
            assert not state[f"trunk.{name}"].numpy()[~m].any()
            assert state[f"trunk.{name}"].numpy()[m].all()
        left = control[f"trunk.{name}"].numpy() != 0
        assert left.sum() == m.sum()
        assert not np.array_equal(left, m)
    assert isinstance(steps[0].start, Rewind)
    assert steps[0].start.of == dense
    graph = plan.make(points)
    records, _ = store.survey(graph.ids)
    table = results.table("theirs", "smoke", points, records)
    assert table["density"].to_pylist() == table["density_of_all"].to_pylist() == [0.1] * 3

    assert export.main([steps[0].id, "--out", "theirs"]) == 0
    assert f"The mask was found elsewhere: from the file `pruned.pt`, SHA-256 of the mask {digest}" in card_of(
        tmp_path / "theirs"
    )
    assert export.main([cast(Step, steps[0].mask).id, "--out", "mask"]) == 0
    assert by_hand(subnetwork.load_mask("mask")) == digest
    assert "images" not in json.loads((tmp_path / "mask/config.json").read_text())


# ------------------------------------------------------------------------------------- the store's part


@pytest.mark.parametrize("name", [*TRAININGS, "SVMs"])
def test_a_step_comes_back_from_the_store_as_it_was_asked_for(name: str, store: Store) -> None:
    step = TRAININGS.get(name, SVMS)
    found = store.step(step.id)
    assert [to_plain(one) for one in closure([found])] == [to_plain(one) for one in closure([step])]
    assert found == step


def test_a_step_of_another_version_is_one_sentence(tmp_path: Path) -> None:
    store, step = Store(str(tmp_path / "runs")), TRAININGS["dense"]
    store.create()
    for wrong in ({"kind": "Anneal"}, {"colour": "red"}, {"version": 2}, {"seed": 8}):
        store.commit(step, {"spec.json": json.dumps({**to_plain(step), **wrong}).encode()}, {}, {})
        with pytest.raises(ValueError, match=f"step {step.id} was made by another version of raysslprune"):
            store.step(step.id)
