"""What an export holds: against networks rebuilt here, and torchvision's."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

import raysslprune
from raysslprune import catalogue, data, models
from raysslprune.commands import export
from raysslprune.evaluate.metrics import accuracy
from raysslprune.lottery import imp
from raysslprune.release import contents, subnetwork
from raysslprune.spec import Final, Step, Train, seed_of
from raysslprune.store.record import WEIGHTS
from raysslprune.store.steps import Store
from tests.helpers.chains import execute
from tests.helpers.exports import (
    LABELS,
    RANDOM,
    ROTNET,
    SEED,
    SHAPES,
    SVMS,
    TRAININGS,
    card_of,
    committed,
    copy,
    mask_in,
    refused,
    weights,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rebuilt(trained: Store, step: Train) -> nn.Module:
    """The network in the store, as it was when the training evaluated it."""
    state = weights(trained, step)
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
    name: str, trained: Store, exported: dict[str, Path]
) -> None:
    net, digits = raysslprune.load_subnetwork(exported[name]), data.load("digits")
    reference = rebuilt(trained, TRAININGS[name])
    assert not net.training
    for (images, _), (normalised, _) in zip(digits.test.batches(200), digits.batches(digits.test, 200), strict=True):
        assert images.dtype == torch.uint8
        assert torch.equal(net.preprocess(images), normalised)
        outputs = net(net.preprocess(images))
        assert outputs.dtype == torch.float32
        assert outputs.std() > 0.01
        assert torch.equal(outputs, reference(normalised))


@pytest.mark.parametrize("name", ["dense", "ticket", "classifier", "random"])
def test_a_loaded_network_has_the_accuracy_that_its_step_has(
    name: str, trained: Store, exported: dict[str, Path]
) -> None:
    record = trained.record(TRAININGS[name].id)
    assert record is not None
    digits = data.load("digits")
    found = accuracy(raysslprune.load_subnetwork(str(exported[name])), digits, digits.test)
    assert found == record.metrics["top1"]
    assert json.loads((exported[name] / "config.json").read_text())["metrics"] == record.metrics


@pytest.mark.parametrize("name", TRAININGS)
def test_weights_have_plain_names_and_pruned_ones_are_zero_without_a_sign(
    name: str, trained: Store, exported: dict[str, Path]
) -> None:
    found, own = load_file(exported[name] / "model.safetensors"), weights(trained, TRAININGS[name])
    assert found.keys() == {key.removeprefix("trunk.") for key in own}
    step = TRAININGS[name].mask
    stays = mask_in(trained, step, SHAPES) if step else {}
    for key, tensor in own.items():
        kept = found[key.removeprefix("trunk.")]
        assert kept.dtype == tensor.dtype
        assert torch.equal(kept, tensor)
        if key.removeprefix("trunk.") in stays:
            pruned = torch.from_numpy(~stays[key.removeprefix("trunk.")])
            assert not kept.view(torch.int32)[pruned].any()
            assert bool(pruned.any()) == (name not in ("random", "erk") or "conv4" not in key)


def test_the_mask_is_the_stores(trained: Store, exported: dict[str, Path]) -> None:
    for name, step in TRAININGS.items():
        found = subnetwork.load_mask(exported[name])
        assert {key: m.shape for key, m in found.items()} == SHAPES
        stays = mask_in(trained, step.mask, SHAPES) if step.mask else {}
        for key, m in found.items():
            assert np.array_equal(m.numpy(), stays.get(key, np.ones(m.shape, bool)))


@pytest.mark.parametrize("name", ["ticket", "random"])
def test_the_sparse_form_is_bitmap_and_values_as_the_docs_say(name: str, exported: dict[str, Path]) -> None:
    """Read here by numpy alone, from the file's own bytes."""
    dense = load_file(exported[name] / "model.safetensors")
    content = (exported[name] / "sparse.safetensors").read_bytes()
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


def test_either_form_is_enough(tmp_path: Path, exported: dict[str, Path]) -> None:
    folder = copy(str(exported["ticket"]), tmp_path / "sparse")
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
    assert subnetwork.to_sparse(dict(reversed(state.items())), mask) == content, "safetensors reads in any order"
    tensors = subnetwork.from_safetensors(content)
    assert tensors.keys() == {"few", "none", "unnamed"} | {
        f"{name}.{part}" for name in ("some", "all", "odd") for part in ("bitmap", "values")
    }
    assert [len(tensors[f"{name}.values"]) for name in ("some", "all", "odd")] == [61, 0, 10]
    back = subnetwork.from_sparse(content, tensors)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) and back[name].dtype == state[name].dtype for name in state)


def test_a_dense_network_has_no_sparse_form(exported: dict[str, Path]) -> None:
    names = {"model.safetensors", "mask.safetensors", "config.json", "README.md"}
    assert {path.name for path in exported["dense"].iterdir()} == names
    assert {path.name for path in exported["ticket"].iterdir()} == names | {"sparse.safetensors"}


def test_a_head_that_is_more_than_a_last_layer_is_left_out(tmp_path: Path) -> None:
    """As that of a task from outside the package."""
    trained, step = Store(str(tmp_path / "runs")), TRAININGS["dense"]
    trained.create()
    head = nn.Sequential(nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2))
    net = models.network("conv4", 1, lambda _width: head, torch.Generator().manual_seed(1), torch.device("cpu"))
    trained.commit(step, {WEIGHTS: to_safetensors(net.state_dict())}, {"top1": 50.0, "density": 1.0}, {})
    assert export.main([step.id, "--root", trained.base, "--out", str(tmp_path / "out")]) == 0
    loaded, images = raysslprune.load_subnetwork(tmp_path / "out"), torch.randn(3, 1, 8, 8)
    reference = net.eval().to(memory_format=torch.channels_last).trunk
    assert torch.equal(loaded(images), reference(images))
    assert loaded(images).shape == (3, 64)
    assert "the task's head is more than a last layer and is not included" in (tmp_path / "out/README.md").read_text()


# ------------------------------------------------------------------------------------- torchvision


@torch.inference_mode()
@pytest.mark.parametrize(
    ("arch", "exact", "changes"),
    [
        pytest.param("resnet50", True, 0, marks=pytest.mark.slow),
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
    monkeypatch.setattr(contents, "gzipped", len)  # which takes longer than all else on such networks
    name = "imagenet" if changes == 0 else "folder/pets"
    trained, step = committed(tmp_path / "runs", arch, name, classes=12)
    assert export.main([step.id, "--root", trained.base, "--out", str(tmp_path / "out")]) == 0
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
    for arch in catalogue.ARCHITECTURES:
        with torch.device("meta"):
            trunk = models.trunk(arch, 3)
            state = models.Network(trunk, nn.Linear(cast(int, trunk.width), 12)).state_dict()
        released = subnetwork.released_names(state, arch)
        assert len(released) == len(state)
        assert subnetwork.own_names(released, arch) == state


def test_a_trunk_whose_names_are_those_of_the_last_layer_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"the trunk of mine:Net has a weight head\.fc, but 'head' is reserved for the last"
    ):
        subnetwork.released_names({"trunk.head.fc": torch.ones(1), "head.weight": torch.ones(1)}, "mine:Net")


MASKS: dict[str, Step] = {
    "pruned": cast(Step, ROTNET.masks[2]),
    "random": RANDOM,
    "shuffled": cast(Step, TRAININGS["shuffled"].mask),
}


# ------------------------------------------------------------------------------------- masks out


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_exported_alone(name: str, trained: Store, tmp_path: Path) -> None:
    step = MASKS[name]
    assert export.main([step.id[:12], "--root", trained.base, "--out", str(tmp_path / "mask")]) == 0
    files = {path.name for path in (tmp_path / "mask").iterdir()}
    assert files == {"mask.safetensors", "config.json", "README.md"}
    found = subnetwork.load_mask(tmp_path / "mask")
    for key, stays in mask_in(trained, step, SHAPES).items():
        assert np.array_equal(found[key].numpy(), stays)
    with pytest.raises(ValueError, match=r"contains a mask but no network; raysslprune\.load_mask reads it"):
        raysslprune.load_subnetwork(tmp_path / "mask")


# ------------------------------------------------------------------------------------- weights from before a training


def drawn(step: Train, outputs: int) -> dict[str, Tensor]:
    """A network as it is drawn, by the package's own distribution from the step's seed."""
    generator = torch.Generator().manual_seed(seed_of("init", SEED, 0))
    net = models.network(step.arch, 1, lambda width: nn.Linear(width, outputs), generator, torch.device("cpu"))
    return net.state_dict()


@pytest.mark.parametrize(("name", "at"), [("ticket", "rewind"), ("ticket", "0"), ("pretext", "0"), ("dense", "0")])
def test_weights_from_before_a_training_are_masked(name: str, at: str, trained: Store, tmp_path: Path) -> None:
    """Those of the rewind are the snapshot's, the first ones are drawn anew; the head is that of the step."""
    step, out = TRAININGS[name], tmp_path / "out"
    assert export.main([step.id, "--at", at, "--root", trained.base, "--out", str(out)]) == 0
    rotnet = drawn(ROTNET.dense, 4)
    source = rotnet if name != "dense" else drawn(step, 10)
    if at == "rewind":
        source = load_file(Path(trained.base) / "steps" / ROTNET.dense.id / "snapshot-640.safetensors")
    stays = mask_in(trained, step.mask, SHAPES) if step.mask else {n: np.ones(s, bool) for n, s in SHAPES.items()}
    net = raysslprune.load_subnetwork(str(out))
    found = {f"trunk.{key}": tensor for key, tensor in net.trunk.state_dict().items()}
    assert found.keys() == {key for key in source if key.startswith("trunk.")}
    for key, tensor in found.items():
        kept = stays.get(key.removeprefix("trunk."))
        assert torch.equal(tensor, source[key] if kept is None else source[key] * torch.from_numpy(kept)), key
    head = drawn(step, 10) if name != "pretext" else rotnet  # the ticket's task is another, so its head is drawn anew
    assert torch.equal(net.head.weight, head["head.weight"])  # pyright: ignore[reportArgumentType]
    config = json.loads((out / "config.json").read_text())
    assert (config["at"], config["metrics"]) == (640 if at == "rewind" else 0, {})
    card = card_of(out)
    assert "## Results" not in card
    assert f"the weights that its chain had after {config['at']} samples" in card


def test_a_chain_from_final_weights_begins_with_these(tmp_path: Path) -> None:
    """Not with the weights that the pretext task was drawn with. Its network needs no weights of its own."""
    chain = imp(
        task="labels", data="digits", arch="conv4", recipe=LABELS, seed=SEED, levels=2, keep=0.5, rewind=0,
        start=Final(of=ROTNET.dense),
    )  # fmt: skip
    store = execute([chain.rounds[1]], tmp_path / "runs")
    folder = Path(store.base) / "steps" / chain.rounds[1].id
    final = load_file(Path(store.base) / "steps" / ROTNET.dense.id / "weights.safetensors")
    stays = mask_in(store, cast(Step, chain.masks[1]), SHAPES)
    exported = {}
    for at in ("0", "rewind"):
        out = tmp_path / f"at-{at}"
        assert export.main([folder.name, "--at", at, "--root", store.base, "--out", str(out)]) == 0
        exported[at] = load_file(out / "model.safetensors")
    for name, kept in stays.items():
        wanted = final[f"trunk.{name}"] * torch.from_numpy(kept)
        assert torch.equal(exported["0"][name], wanted)
    assert exported["0"].keys() == exported["rewind"].keys()
    assert all(torch.equal(exported["0"][name], exported["rewind"][name]) for name in exported["0"])


def test_what_has_no_weights_from_before_is_one_sentence(
    trained: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    end = ["--root", trained.base, "--out", str(tmp_path / "out")]
    dense, linear, mask = TRAININGS["dense"].id, TRAININGS["classifier"].id, cast(Step, ROTNET.masks[1]).id
    said = refused(capfd, 1, dense, "--at", "rewind", *end)
    assert said == f"step {dense} was not rewound: its first weights are drawn; --at 0 exports these"
    assert "are the final ones of another training" in refused(capfd, 1, linear, "--at", "rewind", *end)
    assert refused(capfd, 2, mask, "--at", "0", *end) == f"step {mask} is a mask, and --at needs a network"
    assert "leave no network" in refused(capfd, 1, SVMS.id, "--at", "0", *end)
    assert "invalid choice: '5'" in refused(capfd, 2, dense, "--at", "5", *end)
