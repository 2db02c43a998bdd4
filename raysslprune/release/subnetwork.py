"""Networks as ``raysslprune export`` writes them: one folder each, read with nothing of the store at hand.

config.json         what is needed to build the network, what its images and outputs are, and where it came from
model.safetensors   all weights, pruned ones 0, by torchvision's names
sparse.safetensors  the same weights: of each pruned layer a bitmap and the weights that stay
mask.safetensors    which weights stay, as packed bits
README.md           the model card
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as from_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from raysslprune import catalogue, masks, models
from raysslprune.masks import Mask

CONFIG, MODEL, SPARSE, MASK = "config.json", "model.safetensors", "sparse.safetensors", "mask.safetensors"
FORMAT = 1

LAST = {
    **dict.fromkeys((f"resnet{depth}{stem}" for depth in (18, 34, 50) for stem in ("", "-cifar")), "fc"),
    **dict.fromkeys((f"vgg{depth}" for depth in (11, 13, 16, 19)), "classifier"),
    **dict.fromkeys(("alexnet", "alexnet-bn"), "classifier.6"),
}
"""By architecture, what torchvision calls the last layer; in others it is ``head``."""

BITMAP, VALUES = ".bitmap", ".values"
SHAPES = "shapes"
"""In a file's metadata: shapes by name, as JSON, of tensors that stand there in another form."""


class Subnetwork(models.Network):
    """Normalised images, float32 (n, channels, size, size), to outputs, as in training. ``trunk`` gives features.

    Its state dict has the names of ``model.safetensors``, torchvision's. config: what ``config.json`` says.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module, head: nn.Module, config: Mapping[str, Any]) -> None:
        super().__init__(trunk, head)
        self.config = dict(config)
        self.register_state_dict_post_hook(_release_names)
        self.register_load_state_dict_pre_hook(_restore_names)
        for name in ("mean", "std"):
            values = torch.tensor(config["images"][name], dtype=torch.float32, device="cpu").view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def preprocess(self, images: Tensor) -> Tensor:
        """Images as they are stored, uint8 (n, channels, size, size), to what the network takes, where its mean is.

        Raises ValueError for other images, which would be normalised as if they were on that scale.
        """
        if not isinstance(images, Tensor):
            raise ValueError(f"images are a tensor, as torch.from_numpy makes, not {type(images).__name__}")
        kind, shape, channels = str(images.dtype).removeprefix("torch."), tuple(images.shape), len(self.mean)
        white = self.config["images"].get("white", 255)
        if images.dtype != torch.uint8 or images.ndim != 4 or shape[1] != channels:
            scale = f"; what is from 0 to 1 is multiplied by {white:g} first" if images.is_floating_point() else ""
            raise ValueError(f"images are uint8 of shape (n, {channels}, height, width), not {kind} {shape}{scale}")
        if white < 255 and images.numel() and (brightest := int(images.max())) > white:
            raise ValueError(f"images are from 0 to {white:g} here, and a pixel is {brightest}; scale them first")
        return images.to(self.mean.device, torch.float32, copy=True).sub_(self.mean).div_(self.std)


def load_subnetwork(path: str | Path, trunk: Callable[[int], nn.Module] | None = None) -> Subnetwork:
    """An exported network with its weights: in evaluation mode, float32, on the CPU.

    Its weights are channels-last, as in training, on which the last bits of its outputs depend;
    ``net.to(memory_format=torch.contiguous_format)`` is for tools that need the usual order. What the mask prunes stays
    0 in training, as :func:`keep_pruned` has it; without ``mask.safetensors``, what is 0.

    trunk: the architecture, from image channels to a trunk, where it is not one of this package's. A folder's word
    alone makes nothing be imported, nor is anything in it unpickled. The weights are those of ``sparse.safetensors``
    where ``model.safetensors`` was left out.
    Raises ValueError, in one sentence, where the folder is no network, or not whole; OSError where it can't be read.
    """
    folder = Path(path).expanduser()
    config = read_config(folder)
    if config["kind"] != "network":
        raise ValueError(f"{folder} holds a {config['kind']} and no network; raysslprune.load_mask reads it")
    arch = config["arch"]
    if trunk is None and arch not in catalogue.ARCHITECTURES:
        raise ValueError(f"architecture {arch!r} is not of this package: pass it, load_subnetwork(path, trunk=...)")
    dense = (folder / MODEL).exists()
    if not dense and not (folder / SPARSE).exists():
        raise ValueError(f"there is neither {MODEL} nor {SPARSE} in {folder}: one of them holds the weights")
    data, tensors = _read(folder, MODEL if dense else SPARSE, config)
    state = tensors if dense else from_sparse(data, tensors)
    with torch.device("meta"):
        body = trunk(config["channels"]) if trunk else models.trunk(arch, config["channels"])
        net = Subnetwork(body, make_head(config["head"]), config)
    try:
        net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise ValueError(f"the weights in {folder} are not of {arch} as it is here: {why}") from None
    net.eval().to(memory_format=torch.channels_last)
    if (folder / MASK).exists():
        mask = unpacked(*_read(folder, MASK, config))
    else:
        mask = {name: weight.detach() != 0 for name, weight in models.prunable(net.trunk).items()}
    keep_pruned(net.trunk, mask)
    return net


def load_mask(path: str | Path) -> Mask:
    """The mask in an exported folder, by the names of the trunk's weights. Raises as :func:`load_subnetwork` does."""
    folder = Path(path).expanduser()
    return unpacked(*_read(folder, MASK, read_config(folder)))


def read_config(folder: Path) -> dict[str, Any]:
    """What ``config.json`` says. Raises OSError, and ValueError where there is none, or it is another program's."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        why = (
            f"there is no {CONFIG} in it"
            if folder.is_dir()
            else "it is a file"
            if folder.exists()
            else "it is not there"
        )
        made = "raysslprune export STEP --out DIR makes one"
        raise ValueError(f"{folder.absolute()} is no folder of a network or mask: {why}; {made}") from None
    except ValueError:
        config = None
    match config:
        case {"raysslprune": version, "kind": "mask", "sha256": dict()} if version == FORMAT:
            return config
        case {
            "raysslprune": version,
            "kind": "network",
            "arch": str(),
            "channels": int(channels),
            "head": None | {"kind": str(), "features": int(), "outputs": int()} as head,
            "images": {"mean": [*mean], "std": [*std]},
            "sha256": dict(),
        } if version == FORMAT and (head is None or head["kind"] in HEADS) and len(mean) == len(std) == channels:
            return config
    raise ValueError(f"{folder / CONFIG} is not what this version of raysslprune exports")


def _read(folder: Path, name: str, config: Mapping[str, Any]) -> tuple[bytes, dict[str, Tensor]]:
    """A file as it was exported, and the tensors in it. Raises OSError, ValueError."""
    if not (folder / name).exists():
        raise ValueError(f"there is no {name} in {folder}, which {CONFIG} is of")
    data = (folder / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != config["sha256"].get(name):
        raise ValueError(f"{folder / name} is damaged: it does not match its checksum in {CONFIG}")
    try:
        return data, from_safetensors(data)
    except SafetensorError as error:
        raise ValueError(f"{folder / name} is damaged: {error}") from None


def shapes_in(data: bytes) -> dict[str, torch.Size]:
    """What a safetensors file says of tensors that it has in another form; nothing where it has none.

    Its header is JSON, behind eight bytes that hold the header's length.
    """
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    shapes = json.loads(header.get("__metadata__", {}).get(SHAPES, "{}"))
    return {name: torch.Size(shape) for name, shape in shapes.items()}


# ------------------------------------------------------------------------------------- training


def keep_pruned(module: nn.Module, mask: Mask) -> nn.Module:
    """Set the weights that a mask prunes to 0, make them stay 0 when the module is trained, and give it back.

    After each step of an optimiser of torch they are exactly 0, and so they are in copies of the module and of its
    parts, pickled ones too, and after load_state_dict. Module, parameters and state dict are of the same types and
    names as before; each pruned ``weight.pruned`` tells where it is 0, and None there lets it go.

    mask: by the names of the module's weights; those of a trunk for ``net.trunk``.
    Raises ValueError for a layer that the module does not have, or of another shape, before anything is changed.
    """
    weights = weights_of(module, mask)
    for name, stays in mask.items():
        if not stays.all():
            pruned = torch.empty_like(weights[name], dtype=torch.bool).copy_(~stays)
            layer = module.get_submodule(name.removesuffix(".weight"))
            layer.register_load_state_dict_post_hook(StaysPruned(weights[name], pruned))
            _zero(weights[name], pruned)
    return module


def weights_of(module: nn.Module, mask: Mask) -> dict[str, Tensor]:
    """The prunable weights of a module, by name. Raises ValueError where a mask is not of them."""
    weights = models.prunable(module)
    for name, m in mask.items():
        if name not in weights:
            raise ValueError(f"the module has no weight {name} to prune")
        if weights[name].shape != m.shape:
            raise ValueError(f"the mask of {name} is {tuple(m.shape)}, not {tuple(weights[name].shape)}")
    return weights


class StaysPruned:
    """Carries ``weight.pruned``, where a weight is pruned, from a layer to its copies.

    A parameter loses its attributes when it is copied, while a layer takes its hooks along: this is one of them, for
    load_state_dict. It holds the weight and not the layer, as a circle would keep networks in memory.
    """

    def __init__(self, weight: Tensor, pruned: Tensor | None) -> None:
        _hook_optimisers()
        self.weight = weight
        setattr(weight, PRUNED, pruned)

    def __reduce__(self) -> tuple[Any, ...]:
        return StaysPruned, (self.weight, getattr(self.weight, PRUNED, None))

    def __call__(self, layer: nn.Module, _keys: Any) -> None:
        """Prune what the layer loaded, which is another parameter with ``assign=True``."""
        pruned = getattr(self.weight, PRUNED, None)
        loaded = dict(layer.named_parameters(recurse=False)).get("weight", self.weight)
        if pruned is not None:
            setattr(loaded, PRUNED, pruned)
            _zero(loaded, pruned.to(loaded.device))
        self.weight = loaded


PRUNED = "pruned"
"""The attribute of a weight that tells where it is pruned: a bool tensor, or None."""


@torch.no_grad()
def _zero(tensor: Tensor, where: Tensor) -> None:
    tensor.masked_fill_(where, 0)  # not multiplied: -0 and NaN would be left


@functools.cache
def _hook_optimisers() -> None:
    """Once a process, and only where there are such weights."""
    register_optimizer_step_pre_hook(_before_step)
    register_optimizer_step_post_hook(_after_step)


def _pruned_weights(optimiser: Optimizer) -> Iterator[tuple[Tensor, Tensor]]:
    """The weights of an optimiser that stay pruned, and where each is, on its device."""
    for group in optimiser.param_groups:
        for weight in group["params"]:
            if (pruned := getattr(weight, PRUNED, None)) is not None:
                if pruned.device != weight.device:
                    setattr(weight, PRUNED, pruned := pruned.to(weight.device))
                yield weight, pruned


def _before_step(optimiser: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    """Take the pruned weights' part out of the gradients: out of those that a closure computes, too.

    They would stay 0 without, but line searches and norms over a layer are to see the pruned network.
    """
    if next(_pruned_weights(optimiser), None) is None:
        return None
    _zero_gradients(optimiser)

    def masked(value: Any) -> Any:
        def closure() -> Any:
            loss = value()
            _zero_gradients(optimiser)
            return loss

        return closure if callable(value) else value

    return (args[0], *map(masked, args[1:])), {name: masked(value) for name, value in kwargs.items()}


def _zero_gradients(optimiser: Optimizer) -> None:
    for weight, pruned in _pruned_weights(optimiser):
        if weight.grad is not None:
            _zero(weight.grad, pruned)


def _after_step(optimiser: Optimizer, _args: Any, _kwargs: Any) -> None:
    for weight, pruned in _pruned_weights(optimiser):
        _zero(weight, pruned)


# ------------------------------------------------------------------------------------- names


def _release_names(net: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """Rename what :class:`Subnetwork` put into a state dict."""
    _rename(net, state, prefix, released_names)


def _restore_names(net: nn.Module, state: dict[str, Any], prefix: str, *_rest: Any) -> None:
    """Rename what :class:`Subnetwork` is to load."""
    _rename(net, state, prefix, own_names)


def _rename(net: nn.Module, state: dict[str, Any], prefix: str, renamed: Callable[..., dict[str, Any]]) -> None:
    assert isinstance(net, Subnetwork)
    ours = {name.removeprefix(prefix): state.pop(name) for name in [*state] if name.startswith(prefix)}
    state.update({f"{prefix}{name}": value for name, value in renamed(ours, net.config["arch"]).items()})


def released_names(state: Mapping[str, Tensor], arch: str) -> dict[str, Tensor]:
    """A network's state, ``trunk.*`` and ``head.*``, by the names that others know. Raises ValueError if two meet."""
    last = LAST.get(arch, "head")
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if part == "trunk" and rest.startswith(f"{last}."):
            raise ValueError(f"the trunk of {arch} has a weight {rest}, and {last!r} is its last layer's name")
        renamed[rest if part == "trunk" else f"{last}.{rest}"] = tensor
    return renamed


def own_names(state: Mapping[str, Tensor], arch: str) -> dict[str, Tensor]:
    """The inverse of :func:`released_names`."""
    last = f"{LAST.get(arch, 'head')}."
    return {
        f"head.{name.removeprefix(last)}" if name.startswith(last) else f"trunk.{name}": tensor
        for name, tensor in state.items()
    }


# ------------------------------------------------------------------------------------- heads


def describe_head(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    """What is needed to build the head of a network's state; None for one that is more than a last layer."""
    own = {name.removeprefix("head."): t for name, t in state.items() if name.startswith("head.")}
    for kind, make in HEADS.items():
        with torch.device("meta"):
            like = make(1, 1).state_dict()
        if {name: t.ndim for name, t in own.items()} == {name: t.ndim for name, t in like.items()}:
            outputs, features = next(t.shape for t in own.values() if t.ndim == 2)
            return {"kind": kind, "features": features, "outputs": outputs}
    return None


def make_head(head: Mapping[str, Any] | None) -> nn.Module:
    """The head that :func:`describe_head` described; of None, one that gives the features."""
    return nn.Identity() if head is None else HEADS[head["kind"]](head["features"], head["outputs"])


def _standardised(features: int, outputs: int) -> nn.Module:
    """As task ``labels`` has it with its option ``standardise``."""
    return nn.Sequential(nn.BatchNorm1d(features, affine=False), nn.Linear(features, outputs))


HEADS: dict[str, Callable[[int, int], nn.Module]] = {"linear": nn.Linear, "standardised linear": _standardised}
"""Kinds of heads, from the numbers of features and outputs."""


# ------------------------------------------------------------------------------------- forms


def to_sparse(state: Mapping[str, Tensor], mask: Mask) -> bytes:
    """Weights as a safetensors file: of each layer that is the smaller for it, a bitmap and the weights that stay.

    ``NAME.bitmap`` is one bit a weight as in masks.pack, ``NAME.values`` the weights where it is set, in their order.
    All else is as it is. Pruned weights must be 0.
    """
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, list[int]] = {}
    for name, tensor in state.items():
        stays = mask.get(name)
        if stays is not None and (tensor.numel() - int(stays.sum())) * tensor.element_size() > -(-tensor.numel() // 8):
            tensors |= {name + BITMAP: masks.pack({name: stays})[name], name + VALUES: tensor[stays]}
            shapes[name] = list(tensor.shape)
        else:
            tensors[name] = tensor
    return to_safetensors(tensors, {SHAPES: json.dumps(shapes)})


def from_sparse(data: bytes, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`to_sparse`, bit for bit; the tensors in another order. tensors: those in ``data``."""
    shapes = shapes_in(data)
    state = {name: t for name, t in tensors.items() if name.removesuffix(BITMAP).removesuffix(VALUES) not in shapes}
    for name, shape in shapes.items():
        stays = masks.unpack({name: tensors[name + BITMAP]}, {name: shape})[name]
        state[name] = torch.zeros(shape, dtype=tensors[name + VALUES].dtype)
        state[name][stays] = tensors[name + VALUES]
    return state


def packed(mask: Mask) -> bytes:
    """A mask as a safetensors file that says its shapes."""
    return to_safetensors(masks.pack(mask), {SHAPES: json.dumps({n: list(m.shape) for n, m in mask.items()})})


def unpacked(data: bytes, tensors: Mapping[str, Tensor]) -> Mask:
    """The inverse of :func:`packed`. tensors: those in ``data``. Raises ValueError for another file."""
    return masks.unpack(tensors, shapes_in(data))
