"""A trunk in checkpoints of other projects, whose layouts are made here by hand, as these projects save them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn

from raysslprune import models
from raysslprune.models import checkpoint

State = dict[str, Tensor]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def drawn(net: nn.Module, seed: int) -> nn.Module:
    """The network with random weights and statistics, none of them at its default."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            tensor.fill_(1000 + seed)
        elif name.endswith(("running_var", "bn1.weight", "bn2.weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        else:
            tensor.normal_(0, 0.05, generator=generator)
    return net.eval()


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return drawn(torchvision.models.resnet18(), seed=1)


@pytest.fixture(scope="module")
def other() -> State:
    """Another network of the same shapes, such as a momentum encoder."""
    return dict(drawn(torchvision.models.resnet18(), seed=2).state_dict())


def body(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def mlp(prefix: str, *widths: int) -> State:
    """A projector: linear layers with a ReLU between them."""
    layers = enumerate(pairwise(widths))
    return {f"{prefix}{2 * n}.weight": torch.ones(out, into) for n, (into, out) in layers}


def numbered(state: State) -> State:
    """As the state of ``nn.Sequential(*list(resnet.children())[:-1])``."""
    numbers = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    parts = {name: name.partition(".") for name in state}
    return {f"{numbers[parts[name][0]]}.{parts[name][2]}": tensor for name, tensor in state.items()}


def torchvision_(own: State, other: State) -> tuple[Any, dict[str, int]]:
    return OrderedDict(own), {"fc": 2}


def torchvision_training(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """As its references/classification/train.py saves it, with an average of the weights."""
    content = {"model": own, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": []}}
    content |= {"epoch": 3, "model_ema": {**under("module.", other), "n_averaged": torch.tensor(3)}}
    return content, {"model.fc": 2, "optimizer": 1, "model_ema": len(other) + 1}


def imagenet_example(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """PyTorch's examples/imagenet, whose ``model_best.pth.tar`` it is."""
    content = {"epoch": 9, "arch": "resnet18", "state_dict": under("module.", own), "best_acc1": torch.tensor(70.0)}
    return content, {"state_dict.module.fc": 2, "best_acc1": 1}


def moco(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """MoCo v2: facebookresearch/moco, whose head is fc.0 and fc.2."""
    state = under("module.encoder_q.", body(own)) | mlp("module.encoder_q.fc.", 512, 512, 128)
    state |= under("module.encoder_k.", body(other)) | mlp("module.encoder_k.fc.", 512, 512, 128)
    state |= {"module.queue": torch.ones(128, 64), "module.queue_ptr": torch.tensor([0])}
    content = {"epoch": 800, "arch": "resnet18", "state_dict": state, "optimizer": {"state": {}}}
    at = "state_dict.module"
    sizes = {f"{at}.encoder_q.fc": 2, f"{at}.encoder_k": len(body(other)) + 2, f"{at}.queue": 1, f"{at}.queue_ptr": 1}
    return content, sizes


def simclr(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """sthalles/SimCLR: the projector takes the place of the backbone's last layer."""
    state = under("backbone.", body(own)) | mlp("backbone.fc.", 512, 512, 128)
    return {"epoch": 100, "arch": "resnet18", "state_dict": state, "optimizer": {}}, {"state_dict.backbone.fc": 2}


def simclr_encoder(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """Spijkervet/SimCLR: the state dict itself, with an encoder and a projector."""
    return under("encoder.", body(own)) | mlp("projector.", 512, 512, 64), {"projector": 2}


def byol(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """sthalles/PyTorch-BYOL: layers by number, an online and a target network."""
    online = under("encoder.", numbered(body(own))) | mlp("projetion.net.", 512, 512, 128)
    target = under("encoder.", numbered(body(other))) | mlp("projetion.net.", 512, 512, 128)
    content = {"online_network_state_dict": online, "target_network_state_dict": target, "optimizer_state_dict": {}}
    return content, {"online_network_state_dict.projetion": 2, "target_network_state_dict": len(body(other)) + 2}


def byol_learner(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """lucidrains/byol-pytorch: the state of the whole learner, whose ``net`` is the online network's own."""
    state = under("online_encoder.net.", body(own)) | mlp("online_encoder.projector.net.", 512, 512, 256)
    state |= under("target_encoder.net.", body(other)) | mlp("online_predictor.net.", 256, 512, 256)
    sizes = {"online_encoder.projector": 2, "target_encoder": len(body(other)), "online_predictor": 2}
    return state, sizes


def swav(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """facebookresearch/swav: the state dict itself, of DistributedDataParallel."""
    state = under("module.", body(own)) | mlp("module.projection_head.", 512, 512, 128)
    state |= {"module.prototypes.weight": torch.ones(30, 128)}
    return OrderedDict(state), {"module.projection_head": 2, "module.prototypes": 1}


def dino(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """facebookresearch/dino's full checkpoint: the student is wrapped, and the teacher is what counts."""
    student = under("module.backbone.", body(other)) | mlp("module.head.mlp.", 512, 512, 256)
    teacher = under("backbone.", body(own)) | mlp("head.mlp.", 512, 512, 256)
    content = {"student": student, "teacher": teacher, "epoch": 800, "dino_loss": {"center": torch.ones(1, 64)}}
    return content, {"student": len(student), "teacher.head": 2, "dino_loss": 1}


def dino_backbone(own: State, other: State) -> tuple[Any, dict[str, int]]:
    return body(own), {}


def solo_learn(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """vturrisi/solo-learn: a checkpoint of Lightning."""
    state = under("backbone.", body(own)) | mlp("projector.", 512, 512, 128) | mlp("classifier.", 512, 100)
    state |= under("momentum_backbone.", body(other)) | mlp("momentum_projector.", 512, 512, 128)
    content = {"epoch": 399, "pytorch-lightning_version": "1.8", "state_dict": state, "hyper_parameters": {"lr": 0.1}}
    at = "state_dict"
    sizes = {f"{at}.projector": 2, f"{at}.classifier": 1, f"{at}.momentum_backbone": len(body(other))}
    return content, sizes | {f"{at}.momentum_projector": 2}


def lightly_moco(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """lightly 1.6.0's example of MoCo, in a checkpoint of Lightning: layers by number, projectors of ``layers``."""
    state = under("backbone.", numbered(body(own))) | mlp("projection_head.layers.", 512, 512, 128)
    state |= under("backbone_momentum.", numbered(body(other)))
    state |= mlp("projection_head_momentum.layers.", 512, 512, 128)
    at = "state_dict"
    sizes = {f"{at}.projection_head": 2, f"{at}.backbone_momentum": len(body(other))}
    return lightning(state), sizes | {f"{at}.projection_head_momentum": 2}


def lightly_simclr(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """lightly 1.6.0's benchmark of SimCLR: a network of torchvision without its last layer."""
    state = under("backbone.", body(own)) | mlp("projection_head.layers.", 512, 512, 128)
    return lightning(state), {"state_dict.projection_head": 2}


def lightly_dino(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """lightly 1.6.0's example of DINO: the teacher is what counts."""
    state = under("student_backbone.", numbered(body(other))) | mlp("student_head.layers.", 512, 512, 64)
    state |= under("teacher_backbone.", numbered(body(own))) | mlp("teacher_head.layers.", 512, 512, 64)
    state |= {"criterion.center.center": torch.ones(1, 1, 128)}
    at = "state_dict"
    sizes = {f"{at}.student_backbone": len(body(other)), f"{at}.student_head": 2, f"{at}.teacher_head": 2}
    return lightning(state), sizes | {f"{at}.criterion": 1}


def lightning(state: State) -> dict[str, Any]:
    """A checkpoint of PyTorch Lightning 2.6.6, without hyper-parameters."""
    content = {"epoch": 1, "global_step": 1, "pytorch-lightning_version": "2.6.6", "state_dict": state, "loops": {}}
    return content | {"callbacks": {}, "optimizer_states": [{"state": {}}], "lr_schedulers": []}


def vissl(own: State, other: State) -> tuple[Any, dict[str, int]]:
    """facebookresearch/vissl: trunk and heads apart, the trunk's layers in a ModuleDict (models/trunks/resnext.py)."""
    model = {"trunk": under("_feature_blocks.", body(own)), "heads": mlp("0.clf.", 512, 512, 128)}
    state = {"base_model": {"model": model, "meters": {}}, "train": True, "optim": {}, "hooks": {}}
    at = "classy_state_dict.base_model.model"
    return {"phase_idx": 99, "iteration": 10, "classy_state_dict": state, "config": {}}, {f"{at}.heads": 2}


def compiled(own: State, other: State) -> tuple[Any, dict[str, int]]:
    return {"model_state_dict": under("module._orig_mod.", own)}, {"model_state_dict.module.fc": 2}


Layout = Callable[[State, State], tuple[Any, dict[str, int]]]
LAYOUTS: tuple[Layout, ...] = (
    *(torchvision_, torchvision_training, imagenet_example, moco, simclr, simclr_encoder, byol, byol_learner, swav),
    *(dino, dino_backbone, solo_learn, lightly_moco, lightly_simclr, lightly_dino, vissl, compiled),
)


def find(content: Any, arch: str = "resnet18", prefix: str | None = None) -> checkpoint.Found:
    return checkpoint.find(content, partial(models.trunk, arch), arch, prefix)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_each_layout_gives_the_trunk_and_names_what_is_left_over(layout: Layout, net: nn.Module, other: State) -> None:
    content, left_out = layout(dict(net.state_dict()), other)
    found = find(content)
    expected = body(dict(net.state_dict()))
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.items())
    assert found.left_out == left_out
    assert found.channels == 3


def test_the_trunk_computes_what_torchvisions_network_does(net: nn.Module, other: State) -> None:
    content, _ = moco(dict(net.state_dict()), other)
    trunk = models.trunk("resnet18", 3).to_empty(device="cpu").eval()
    trunk.load_state_dict(find(content).tensors)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(net.get_submodule("fc")(trunk(images)), net(images))


@pytest.mark.parametrize(
    ("arch", "make"),
    [("vgg11", torchvision.models.vgg11_bn), ("alexnet", torchvision.models.alexnet)],
    ids=["vgg11", "alexnet"],
)
def test_the_mlps_of_torchvisions_other_networks_are_left_over(arch: str, make: Callable[[], nn.Module]) -> None:
    state = {f"module.{name}": tensor for name, tensor in make().state_dict().items()}
    found = find({"state_dict": state}, arch)
    expected = list(models.trunk(arch, 3).state_dict())
    assert list(found.tensors) == expected
    assert all(torch.equal(found.tensors[name], state[f"module.{name}"]) for name in expected)
    assert found.left_out == {"state_dict.module.classifier": len(state) - len(expected)}


def test_a_prefix_chooses_the_other_network(net: nn.Module, other: State) -> None:
    content, _ = moco(dict(net.state_dict()), other)
    for prefix in ("state_dict.module.encoder_k", "state_dict.module.encoder_k."):
        found = find(content, prefix=prefix)
        assert all(torch.equal(found.tensors[name], tensor) for name, tensor in body(other).items())
    why = "after the prefix 'encoder_z', but after 'state_dict.module.encoder_q', 'state_dict.module.encoder_k'$"
    with pytest.raises(ValueError, match=f"^it has no weights of resnet18 {why}"):
        find(content, prefix="encoder_z")


def test_the_end_of_a_prefix_is_enough_where_it_is_unique(net: nn.Module, other: State) -> None:
    own = body(dict(net.state_dict()))
    content, _ = moco(dict(net.state_dict()), other)
    for prefix in ("module.encoder_k", "encoder_k."):
        assert find(content, prefix=prefix).prefix == "state_dict.module.encoder_k."
    for part in ("coder_k", "module", ""):
        with pytest.raises(ValueError, match=f"after the prefix '{part}', but after 'state_dict.module.encoder_q', "):
            find(content, prefix=part)
    learner, _ = byol_learner(dict(net.state_dict()), other)
    why = "choose one of them by --prefix: 'online_encoder.net', 'target_encoder.net'$"
    with pytest.raises(ValueError, match=why):
        find(learner, prefix="net")
    nested = {**own, "net": own, "old": {"net": body(other)}}
    assert find(nested, prefix="net").prefix == "net."
    assert find(nested, prefix="").prefix == ""


def test_weights_whose_names_do_not_fit_are_listed(net: nn.Module) -> None:
    own = body(dict(net.state_dict()))
    stem = {name.replace("conv1.weight", "stem.weight") if name == "conv1.weight" else name: own[name] for name in own}
    end = r"; if it is the same network, rename its tensors \(docs/export.md\)$"
    with pytest.raises(ValueError, match=f"^it does not have conv1.weight, but stem.weight{end}"):
        find({"state_dict": stem})
    with pytest.raises(ValueError, match=f"^it has no weights of resnet18, but a.w, b.w, c.w and 1 more{end}"):
        find({f"{letter}.w": torch.ones(1) for letter in "abcd"})


def test_a_choice_that_is_not_clear_is_left_to_the_user(net: nn.Module, other: State) -> None:
    own = body(dict(net.state_dict()))
    with pytest.raises(ValueError, match="it has several networks; choose one of them by --prefix: 'left', 'right'"):
        find({"left": own, "right": body(other)})
    found = find({"left": own, "right": body(other)}, prefix="right")
    assert torch.equal(found.tensors["conv1.weight"], other["conv1.weight"])


def test_other_types_become_float32_and_a_missing_count_is_zero(net: nn.Module) -> None:
    own = {name: t for name, t in body(dict(net.state_dict())).items() if not name.endswith("num_batches_tracked")}
    found = find({name: tensor.double() for name, tensor in own.items()})
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in own.items())
    halves = find({name: tensor.half() for name, tensor in own.items()})
    assert all(torch.equal(halves.tensors[name], tensor.half().float()) for name, tensor in own.items())
    assert found.tensors["bn1.num_batches_tracked"].item() == 0


def changed(state: State, **changes: Tensor | None) -> State:
    merged = {**state, **{name.replace("__", "."): tensor for name, tensor in changes.items()}}
    return {name: tensor for name, tensor in merged.items() if tensor is not None}


NAN = torch.full((64,), torch.nan)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"layer4__1__conv2__weight": None}, "it does not have layer4.1.conv2.weight$"),
        ({"bn1__running_mean": None, "bn1__bias": None}, "it does not have bn1.bias, bn1.running_mean$"),
        ({"conv1__weight": torch.ones(64, 3, 3, 3)}, r"conv1.weight is \(64, 3, 3, 3\), not \(64, 3, 7, 7\)$"),
        ({"conv1__weight": torch.ones(64)}, r"conv1.weight is \(64,\), not \(64, 1, 7, 7\)$"),
        ({"layer1__2__conv1__weight": torch.ones(1)}, "it has weights that resnet18 lacks: layer1.2.conv1.weight$"),
        ({"bn1__weight": NAN}, "values that are not finite numbers in bn1.weight$"),
        ({"bn1__weight": torch.ones(64, device="meta")}, "not finite numbers in bn1.weight$"),
        ({"bn1__weight": torch.ones(64, dtype=torch.complex64)}, "not finite numbers in bn1.weight$"),
    ],
)
def test_a_trunk_that_is_not_whole_is_refused_by_name(
    changes: dict[str, Tensor | None], why: str, net: nn.Module
) -> None:
    with pytest.raises(ValueError, match=why):
        find({"state_dict": under("module.", changed(body(dict(net.state_dict())), **changes))})


def test_a_checkpoint_of_a_larger_network_is_refused() -> None:
    """All weights of a ResNet-18 are among those of a ResNet-34, in the same shapes."""
    with torch.device("meta"):
        larger = torchvision.models.resnet34().state_dict()
    with pytest.raises(ValueError, match=r"it has weights that resnet18 lacks: layer1.2.conv1.weight, .* and \d+ more"):
        find(larger)


def test_a_content_without_the_trunk_is_refused() -> None:
    loop: dict[str, Any] = {"a": torch.ones(1)}
    loop["b"] = loop
    for content in ({}, [torch.ones(2)], torch.ones(2), {"w": torch.ones(2)}, loop):
        with pytest.raises(ValueError, match="it has no weights of resnet18, but "):
            find(content)
