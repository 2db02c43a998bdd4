"""Masks and networks of PyTorch's own pruning, and files that others write, read as masks."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.nn.utils import prune

from raysslprune import models
from raysslprune.release import subnetwork, torch_prune
from tests.helpers.exports import SHAPES


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    with pytest.raises(ValueError, match=r"layers\.bn2\.bias is pruned, but is no weight of a convolution"):
        torch_prune.from_torch_prune(trunk)


def test_a_mask_prunes_a_module_by_torchs_own_means(exported: dict[str, Path]) -> None:
    mask, trunk = subnetwork.load_mask(exported["ticket"]), conv4()
    before = {name: w.detach().clone() for name, w in models.prunable(trunk).items()}
    assert torch_prune.to_torch_prune(trunk, mask) is trunk
    assert prune.is_pruned(trunk)
    for name, w in models.prunable(trunk).items():
        assert torch.equal(w, before[name] * mask[name])
        assert torch.equal(trunk.state_dict()[f"{name}_mask"], mask[name].float())
        assert torch.equal(trunk.state_dict()[f"{name}_orig"], before[name])
    assert all(torch.equal(m, mask[name]) for name, m in torch_prune.from_torch_prune(trunk).items())


def test_a_mask_of_another_module_changes_nothing(exported: dict[str, Path]) -> None:
    mask, trunk = subnetwork.load_mask(exported["ticket"]), conv4()
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
        ({"layers.conv1.weight": torch.full((16, 1, 3, 3), 0.5)}, "not a mask: it has values other than 0 and 1"),
        ({"layers.conv1.weight": torch.full((16, 1, 3, 3), math.nan)}, "not a mask: it has values other than 0 and 1"),
        (
            {"conv1.weight": torch.ones(16, 1, 3, 3)},
            "the file has masks for conv1.weight, but for none of the network's layers "
            "(layers.conv1.weight, layers.conv2.weight, ",
        ),
        ({f"layers.bn{n}.weight": torch.zeros(16) for n in range(5)}, "bn2.weight and 2 more, but for none of the"),
        (
            {"layers.conv1.weight": torch.ones(16, 1, 3, 3), "layers.bn1.bias": torch.zeros(16)},
            "layers.bn1.bias is pruned, but is no weight of a convolution or linear layer here",
        ),
    ],
)
def test_what_is_no_mask_of_the_network_is_refused(given: dict[str, Tensor], why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        torch_prune.fit(given, SHAPES)
