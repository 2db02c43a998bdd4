"""Exported networks in other hands: what is pruned stays so in training, against torch's own pruning; their names."""

from __future__ import annotations

import copy
import dataclasses
import gc
import io
import pickle
import re
import shutil
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel

from raysslprune import masks, models
from raysslprune.commands import export
from raysslprune.paper.scales import SETTINGS
from raysslprune.release import contents, subnetwork
from raysslprune.release.contents import Images, Release
from raysslprune.release.subnetwork import Subnetwork, keep_pruned, load_mask, load_subnetwork
from raysslprune.spec import Init, RandomPrune, Train
from raysslprune.store.record import Record
from tests.helpers import CHECKOUT

DOC = (CHECKOUT / "docs/export.md").read_text()
LABELS = SETTINGS["smoke"].recipes["labels"]
DENSE = Train(task="labels", data="digits", arch="conv4", recipe=LABELS, seed=0, start=Init(seed=0))


def exported(to: Path, arch: str, channels: int, outputs: int, density: float) -> Path:
    """A made-up network as the command would export it. Of each layer, one weight that stays is 0, too."""
    generator = torch.Generator().manual_seed(1)
    net = models.network(arch, channels, lambda width: nn.Linear(width, outputs), generator, torch.device("cpu"))
    weights = models.prunable(net.trunk)
    mask = {name: torch.rand(w.shape, generator=generator) < density for name, w in weights.items()}
    with torch.no_grad():
        for name, w in weights.items():
            mask[name].view(-1)[0] = True
            w.masked_fill_(~mask[name], 0).view(-1)[0] = 0
    step = dataclasses.replace(DENSE, arch=arch, mask=RandomPrune(arch=arch, data="digits", keep=0.1, level=1, seed=0))
    images = Images(channels=channels, size=8, white=16.0, mean=(5.0,) * channels, std=(4.0,) * channels)
    made = Release(
        step=step,
        behind=[step],
        records={step.id: Record(step=step.id, metrics={}, facts={}, files={})},
        arch=arch,
        channels=channels,
        images=images,
        mask=mask,
        state=subnetwork.released_names(net.state_dict(), arch),
        head={"kind": "linear", "features": cast(int, net.trunk.width), "outputs": outputs},
    )
    files, _ = contents.contents(made)
    export.write(files, to)
    return to


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tenth of conv4. Don't write to it."""
    return exported(tmp_path_factory.mktemp("exported") / "net", "conv4", 1, 10, density=0.1)


GENERATOR = torch.Generator().manual_seed(2)
IMAGES = torch.randn(16, 1, 8, 8, generator=GENERATOR)
CLASSES = torch.randint(0, 10, (16,), generator=GENERATOR)

SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 1e-3}
OPTIMISERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    **{
        f"SGD, {way or 'by default'}": lambda p, way=way: torch.optim.SGD(p, **SGD, **dict.fromkeys(way.split(), True))
        for way in ("", "foreach", "fused", "nesterov")
    },
    **{
        f"AdamW, {way or 'by default'}": lambda p, way=way: torch.optim.AdamW(
            p, lr=3e-3, weight_decay=0.1, **cast(Any, dict.fromkeys(way.split(), True))
        )
        for way in ("", "foreach", "fused", "amsgrad")
    },
    "Adam": lambda p: torch.optim.Adam(p, lr=3e-3, weight_decay=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=1e-3, momentum=0.9),
}


def train(
    net: nn.Module,
    optimiser: torch.optim.Optimizer,
    steps: int,
    after: Callable[[], None] = lambda: None,
    dtype: torch.dtype = torch.float32,
) -> float:
    """Some steps on one batch. Gives the last loss."""
    net.train()
    loss = torch.tensor(0.0)

    def closure() -> Tensor:
        nonlocal loss
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(net(IMAGES.to(dtype)).double(), CLASSES)
        loss.backward()
        return loss

    for _ in range(steps):
        optimiser.step(cast(Any, closure))
        after()
    return float(loss.detach())


def check_zeros(net: nn.Module, folder: Path) -> None:
    """Of a trunk, or of a network with one: bit for bit 0 where the mask prunes, and by far not elsewhere."""
    weights = models.prunable(cast(nn.Module, getattr(net, "trunk", net)))
    for name, stays in load_mask(folder).items():
        weight = weights[name].detach()
        assert not weight.contiguous().view(torch.uint8).view(*weight.shape, -1)[~stays].any()
        assert (weight[stays] != 0).float().mean() > 0.9


def by_torch(net: Subnetwork, folder: Path) -> Subnetwork:
    """The same network, pruned by torch's own means and not by ours."""
    for weight in net.parameters():
        cast(Any, weight).pruned = None
    for name, stays in load_mask(folder).items():
        prune.custom_from_mask(net.trunk.get_submodule(name.removesuffix(".weight")), "weight", stays)
    return net


# ------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("name", OPTIMISERS)
def test_pruned_weights_stay_zero_and_the_others_are_trained_as_by_torchs_pruning(name: str, folder: Path) -> None:
    net = load_subnetwork(folder).double()
    before = {key: w.detach().clone() for key, w in models.prunable(net.trunk).items()}

    def check() -> None:
        check_zeros(net, folder)
        state = net.state_dict()
        assert all(not state[key][~stays].any() for key, stays in load_mask(folder).items())

    train(net, OPTIMISERS[name](net.parameters()), 100, after=check, dtype=torch.float64)
    reference = by_torch(load_subnetwork(folder).double(), folder)
    train(reference, OPTIMISERS[name](reference.parameters()), 100, dtype=torch.float64)
    for key, stays in load_mask(folder).items():
        weight = models.prunable(net.trunk)[key].detach()
        same = reference.trunk.get_parameter(f"{key}_orig").detach()
        assert torch.allclose(weight[stays], same[stays], rtol=1e-5, atol=1e-7)
        assert (weight[stays] != before[key][stays]).float().mean() > 0.5
    last = models.prunable(net.trunk)["layers.conv4.weight"]
    assert last.flatten()[0] != 0  # was 0, and stays by the mask


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_a_closure_sees_the_pruned_network_only(search: str | None, folder: Path) -> None:
    """LBFGS moves the weights between two looks at the loss, and would come away from the pruned network there."""
    net, other = (load_subnetwork(folder).double().to(memory_format=torch.contiguous_format) for _ in range(2))
    reference = by_torch(other, folder)
    losses = [
        train(one, torch.optim.LBFGS(one.parameters(), lr=0.2, line_search_fn=search), 3, dtype=torch.float64)
        for one in (net, reference)
    ]
    check_zeros(net, folder)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3, abs=1e-6)
    assert losses[0] < 0.5


def optimisers_state_of_a_dense_training(net: nn.Module) -> torch.optim.Optimizer:
    optimiser = torch.optim.SGD(net.parameters(), **SGD)
    for weight in net.parameters():
        optimiser.state[weight]["momentum_buffer"] = torch.ones_like(weight)
    return optimiser


def test_momentum_from_elsewhere_brings_nothing_back(folder: Path) -> None:
    net = load_subnetwork(folder)
    train(net, optimisers_state_of_a_dense_training(net), 1)
    check_zeros(net, folder)


def saved(net: nn.Module) -> nn.Module:
    torch.save(net, content := io.BytesIO())
    content.seek(0)
    return torch.load(content, weights_only=False)


COPIES: dict[str, Callable[[Subnetwork], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "deepcopy of a frozen one": lambda net: copy.deepcopy(net.requires_grad_(False)).requires_grad_(),
    "copy of a copy": lambda net: copy.deepcopy(copy.deepcopy(net)),
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "torch.save": saved,
    "the trunk alone": lambda net: net.trunk,
    "a copy of the trunk": lambda net: copy.deepcopy(net.trunk),
    "usual order": lambda net: net.to(memory_format=torch.contiguous_format),
    "to": lambda net: net.to("cpu", torch.float64).to(torch.float32),
    "its own state": lambda net: (net.load_state_dict(copy.deepcopy(net.state_dict())), net)[1],
    "its own state, assigned": lambda net: (net.load_state_dict(copy.deepcopy(net.state_dict()), assign=True), net)[1],
    "copied after that": lambda net: copy.deepcopy(
        (net.load_state_dict(copy.deepcopy(net.state_dict()), assign=True), net)[1]
    ),
    "averaged": lambda net: AveragedModel(net, use_buffers=True).module,
    "in a sequence": lambda net: nn.Sequential(net.trunk, nn.Linear(64, 10)),
}


@pytest.mark.parametrize("way", COPIES)
def test_copies_stay_pruned(way: str, folder: Path) -> None:
    made = COPIES[way](load_subnetwork(folder))
    train(made, optimisers_state_of_a_dense_training(made), 3)
    check_zeros(made[0] if isinstance(made, nn.Sequential) else made, folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["SGD, by default", "AdamW, by default"])
def test_other_precisions_stay_pruned(dtype: torch.dtype, name: str, folder: Path) -> None:
    for net in (load_subnetwork(folder).to(dtype), copy.deepcopy(load_subnetwork(folder).half()).to(dtype)):
        train(net, OPTIMISERS[name](net.parameters()), 10, dtype=dtype)
        check_zeros(net, folder)


def test_scaled_and_accumulated_gradients(folder: Path) -> None:
    net = load_subnetwork(folder).train()
    optimiser, scaler = torch.optim.SGD(net.parameters(), **SGD), torch.amp.GradScaler("cpu", init_scale=1024.0)
    for number in range(8):
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(net(IMAGES).float(), CLASSES)
        scaler.scale(loss).backward()
        if number % 2:
            scaler.unscale_(optimiser)
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad(set_to_none=number % 4 == 1)
        check_zeros(net, folder)


def test_distributed_data_parallel(folder: Path, tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        net = load_subnetwork(folder)
        wrapped = DistributedDataParallel(net, gradient_as_bucket_view=True)
        train(wrapped, torch.optim.SGD(wrapped.parameters(), **SGD), 5, after=lambda: check_zeros(net, folder))
        assert [*wrapped.state_dict()] == [f"module.{name}" for name in net.state_dict()]
        wrapped.load_state_dict(wrapped.state_dict())
    finally:
        torch.distributed.destroy_process_group()


def test_compiled_in_one_piece(folder: Path) -> None:
    net = load_subnetwork(folder)
    compiled = cast(nn.Module, torch.compile(net, backend="aot_eager", fullgraph=True))
    plain = copy.deepcopy(net)
    losses = [train(one, torch.optim.SGD(one.parameters(), **SGD), 3) for one in (compiled, plain)]
    check_zeros(net, folder)
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert [*compiled.state_dict()] == [f"_orig_mod.{name}" for name in net.state_dict()]


def test_other_networks_are_left_alone(folder: Path) -> None:
    """One whose graph waits for its backward, while another is updated."""
    waiting, other = load_subnetwork(folder), load_subnetwork(folder)
    loss = waiting.train()(IMAGES).sum()
    train(other, torch.optim.SGD(other.parameters(), **SGD), 1)
    loss.backward()
    dense = models.trunk("conv4", 1).to_empty(device="cpu")
    assert not any(hasattr(weight, "pruned") for weight in dense.parameters())


def test_a_network_is_gone_when_nobody_has_it(folder: Path) -> None:
    """Without waiting for the search for circles, which may come late for what is on a GPU."""
    net = load_subnetwork(folder)
    train(net, torch.optim.SGD(net.parameters(), **SGD), 1)
    weights = [weakref.ref(weight) for weight in models.prunable(net.trunk).values()]
    gc.collect()
    gc.disable()
    try:
        del net
        assert [weight() for weight in weights] == [None] * 4
    finally:
        gc.enable()


def test_other_weights_are_pruned_when_they_are_loaded(folder: Path) -> None:
    for assign in (False, True):
        net = load_subnetwork(folder)
        net.load_state_dict({name: torch.ones_like(t) for name, t in net.state_dict().items()}, assign=assign)
        check_zeros(net, folder)
        train(net, torch.optim.SGD(net.parameters(), **SGD), 1)
        check_zeros(net, folder)


def test_a_weight_that_is_let_go_grows_again(folder: Path) -> None:
    net = load_subnetwork(folder)
    weights = models.prunable(net.trunk)
    for weight in weights.values():
        assert cast(Any, weight).pruned.dtype == torch.bool
        cast(Any, weight).pruned = None
    net = copy.deepcopy(net)
    train(net, torch.optim.SGD(net.parameters(), **SGD), 1)
    for name, stays in load_mask(folder).items():
        assert net.trunk.get_parameter(name)[~stays].count_nonzero() > 0.5 * (~stays).sum()


def test_torchs_pruning_goes_on_from_here(folder: Path) -> None:
    net = load_subnetwork(folder).to(memory_format=torch.contiguous_format)
    for part in net.trunk.modules():
        if isinstance(part, nn.Conv2d):
            prune.l1_unstructured(part, "weight", amount=0.9)
    net.load_state_dict(net.state_dict())
    train(net, torch.optim.SGD(net.parameters(), **SGD), 2)
    for name, stays in load_mask(folder).items():
        assert not net.trunk.get_parameter(f"{name}_orig")[~stays].any()


def test_a_dense_network_is_as_any_other(tmp_path: Path) -> None:
    net = load_subnetwork(exported(tmp_path / "dense", "conv4", 1, 10, density=1.0))
    assert not any(hasattr(weight, "pruned") for weight in net.parameters())
    train(net, torch.optim.SGD(net.parameters(), **SGD), 1)
    assert all(weight.all() for weight in models.prunable(net.trunk).values())


def test_without_the_mask_what_is_zero_stays_so(folder: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(folder, tmp_path / "own"))
    (own / "mask.safetensors").unlink()
    (own / "model.safetensors").unlink()
    net = load_subnetwork(own)
    train(net, torch.optim.SGD(net.parameters(), **SGD), 3)
    check_zeros(net, folder)
    assert all(weight.flatten()[0] == 0 for weight in models.prunable(net.trunk).values())


def test_a_mask_that_is_damaged_is_recognised(folder: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(folder, tmp_path / "own"))
    (own / "mask.safetensors").write_bytes((own / "mask.safetensors").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"mask\.safetensors is damaged"):
        load_subnetwork(own)


def test_a_mask_of_another_network_changes_nothing(folder: Path) -> None:
    net = load_subnetwork(folder)
    mask = masks.full({name: w.shape for name, w in models.prunable(net.trunk).items()})
    none = {name: torch.zeros_like(m) for name, m in mask.items()}
    with pytest.raises(ValueError, match=r"the module has no weight conv9\.weight to prune"):
        keep_pruned(net.trunk, {**none, "conv9.weight": torch.zeros(1, dtype=torch.bool)})
    check_zeros(net, folder)


# ------------------------------------------------------------------------------------- names


def test_the_state_has_the_names_of_the_file(folder: Path) -> None:
    net, file = load_subnetwork(folder), load_file(folder / "model.safetensors")
    state = net.state_dict()
    assert sorted(state) == sorted(file)
    assert all(torch.equal(state[name], tensor) for name, tensor in file.items())
    assert "head.weight" in state
    with pytest.raises(RuntimeError, match=r"Unexpected key.*conv9"):
        net.load_state_dict({**state, "conv9.weight": torch.ones(1)})
    inner = nn.Sequential(nn.Linear(1, 1), net)
    assert [*inner.state_dict()] == ["0.weight", "0.bias", *(f"1.{name}" for name in state)]
    inner.load_state_dict(inner.state_dict())


@pytest.mark.parametrize("arch", ["resnet18", pytest.param("alexnet", marks=pytest.mark.slow)])
def test_what_was_trained_further_goes_into_torchvisions_network(arch: str, tmp_path: Path) -> None:
    folder = exported(tmp_path / "net", arch, 3, 5, density=0.2)
    net, theirs = load_subnetwork(folder), getattr(torchvision.models, arch)(num_classes=5)
    assert [*net.state_dict()] == [*theirs.state_dict()]
    theirs.load_state_dict(net.state_dict())
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(theirs.eval()(images), net(images), atol=1e-3)

    keep_pruned(theirs, load_mask(folder))
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    theirs.train()(images).square().mean().backward()
    optimiser.step()
    before, after = net.state_dict(), theirs.state_dict()
    for name, stays in load_mask(folder).items():
        assert not after[name][~stays].any()
        assert (after[name][stays] != before[name][stays]).float().mean() > 0.5


# ------------------------------------------------------------------------------------- images


def test_images_on_another_scale_are_refused(folder: Path) -> None:
    net = load_subnetwork(folder)
    images = torch.full((2, 1, 8, 8), 16, dtype=torch.uint8)
    assert torch.equal(net.preprocess(images), torch.full((2, 1, 8, 8), 2.75))
    assert net.preprocess(images[:0]).shape == (0, 1, 8, 8)
    images[1, 0, 7, 7] = 17
    with pytest.raises(
        ValueError, match=r"^pixels must be from 0 to 16, but the largest is 17; scale the images first$"
    ):
        net.preprocess(images)


def test_the_docs_own_fine_tuning(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lottery-conv4").symlink_to(folder)
    code = dict(re.findall(r"^```python (\S+)\n(.*?)^```$", DOC, re.M | re.S))["finetune.py"]
    scope: dict[str, Any] = {}
    exec(code, scope)
    check_zeros(scope["net"], folder)
    state = load_file(tmp_path / "finetuned.safetensors")
    assert state.keys() == load_file(folder / "model.safetensors").keys()
    assert all(not state[name][~stays].any() for name, stays in load_mask(folder).items())
