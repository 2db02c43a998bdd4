"""Networks as ``raysslprune export`` writes them: one folder each, read without the store.

config.json         architecture, images, outputs and origin of the network
model.safetensors   all weights, pruned ones 0, by torchvision's names
sparse.safetensors  the same weights: for each pruned layer a bitmap and the weights that stay
mask.safetensors    the mask, as packed bits
shrunk.safetensors  for a mask of whole filters, on demand: a smaller dense network with the same outputs
README.md           the model card
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
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
from raysslprune.release.shrink import resize

CONFIG, MODEL, SPARSE, MASK = "config.json", "model.safetensors", "sparse.safetensors", "mask.safetensors"
SHRUNK = "shrunk.safetensors"
FORMAT = 1

LAST = {
    **dict.fromkeys((f"resnet{depth}{stem}" for depth in (18, 34, 50) for stem in ("", "-cifar")), "fc"),
    **dict.fromkeys((f"vgg{depth}" for depth in (11, 13, 16, 19)), "classifier"),
    **dict.fromkeys(("alexnet", "alexnet-bn"), "classifier.6"),
}
"""Torchvision's name of the last layer, by architecture; for all others it is ``head``."""

BITMAP, VALUES = ".bitmap", ".values"
SHAPES = "shapes"
"""Key in a file's metadata under which are, as JSON by name, the shapes of tensors stored in another form."""


class Subnetwork(models.Network):
    """An exported network, from normalised images, float32 (n, channels, size, size), to outputs, as in training.

    ``trunk`` gives features. The state dict has torchvision's names, as in ``model.safetensors``. config: the content
    of ``config.json``.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, trunk: nn.Module, head: nn.Module, config: Mapping[str, Any]) -> None:
        super().__init__(trunk, head)
        self.config = dict(config)
        self.register_state_dict_post_hook(partial(_rename, released_names))
        self.register_load_state_dict_pre_hook(partial(_rename, own_names))
        for name in ("mean", "std"):
            values = torch.tensor(config["images"][name], dtype=torch.float32, device="cpu").view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def preprocess(self, images: Tensor) -> Tensor:
        """Normalise stored images, uint8 (n, channels, size, size), for the network, on the device of its ``mean``.

        Raises ValueError for images of another type, shape or scale.
        """
        if not isinstance(images, Tensor):
            raise ValueError(f"images must be a tensor, as from torch.from_numpy, not {type(images).__name__}")
        kind, shape, channels = str(images.dtype).removeprefix("torch."), tuple(images.shape), len(self.mean)
        white = self.config["images"].get("white", 255)
        if images.dtype != torch.uint8 or images.ndim != 4 or shape[1] != channels:
            scale = f"; multiply images from 0 to 1 by {white:g} first" if images.is_floating_point() else ""
            raise ValueError(f"images must be uint8 of shape (n, {channels}, height, width), not {kind} {shape}{scale}")
        if white < 255 and images.numel() and (brightest := int(images.max())) > white:
            raise ValueError(
                f"pixels must be from 0 to {white:g}, but the largest is {brightest}; scale the images first"
            )
        return images.to(self.mean.device, torch.float32, copy=True).sub_(self.mean).div_(self.std)


def load_subnetwork(
    path: str | Path, trunk: Callable[[int], nn.Module] | None = None, shrunk: bool = False
) -> Subnetwork:
    """Load an exported network with its weights: in evaluation mode, float32, on the CPU.

    Its weights are channels-last, as in training, because the last bits of its outputs depend on their order; for tools
    that need the usual order, call ``net.to(memory_format=torch.contiguous_format)``. The weights are read from
    ``sparse.safetensors`` if ``model.safetensors`` is missing. Weights that the mask prunes, or without
    ``mask.safetensors`` all weights that are 0, stay 0 in training: see :func:`keep_pruned`.

    trunk: the architecture, a function from image channels to a trunk, if it is not this package's. A folder can't
    cause an import, and nothing in it is unpickled. shrunk: load the smaller dense network instead, which
    ``raysslprune export --shrink`` has written; nothing is pruned in it.
    Raises ValueError, in one sentence, if the folder is not a network or is damaged; OSError if it can't be read.
    """
    folder = Path(path).expanduser()
    config = read_config(folder)
    if config["kind"] != "network":
        raise ValueError(f"{folder} contains a mask but no network; raysslprune.load_mask reads it")
    arch = config["arch"]
    if trunk is None and arch not in catalogue.ARCHITECTURES:
        raise ValueError(
            f"architecture {arch!r} is not in this package; pass its function: load_subnetwork(path, trunk=...)"
        )
    if shrunk and not (folder / SHRUNK).exists():
        raise ValueError(f"there is no {SHRUNK} in {folder}: raysslprune export STEP --shrink writes one")
    dense = (folder / MODEL).exists() or shrunk
    if not dense and not (folder / SPARSE).exists():
        raise ValueError(
            f"there is neither {MODEL} nor {SPARSE} in {folder}: one of them must be there for the weights"
        )
    data, tensors = _read(folder, SHRUNK if shrunk else MODEL if dense else SPARSE, config)
    state = tensors if dense else from_sparse(data, tensors)
    with torch.device("meta"):
        body = trunk(config["channels"]) if trunk else models.trunk(arch, config["channels"])
        net = Subnetwork(body, make_head(config["head"]), config)
    if shrunk:
        resize(net, {name: tensor.shape for name, tensor in own_names(state, arch).items()})
    try:
        net.load_state_dict(state, assign=True)
    except RuntimeError as error:
        why = " ".join(str(error).split())
        raise ValueError(f"the weights in {folder} do not fit {arch} as it is defined here: {why}") from None
    net.eval().to(memory_format=torch.channels_last)
    if shrunk:
        return net
    if (folder / MASK).exists():
        mask = unpacked(*_read(folder, MASK, config))
    else:
        mask = {name: weight.detach() != 0 for name, weight in models.prunable(net.trunk).items()}
    keep_pruned(net.trunk, mask)
    return net


def load_mask(path: str | Path) -> Mask:
    """Load the mask in an exported folder, by the trunk's weight names. Raises as :func:`load_subnetwork` does."""
    folder = Path(path).expanduser()
    return unpacked(*_read(folder, MASK, read_config(folder)))


def read_config(folder: Path) -> dict[str, Any]:
    """Read ``config.json``. Raises ValueError if it is missing or another program's, OSError if it can't be read."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        why = f"it has no {CONFIG}" if folder.is_dir() else "there is no such folder"
        made = "raysslprune export STEP --out DIR makes one"
        raise ValueError(f"{folder.absolute()} is not an exported network or mask: {why}; {made}") from None
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
    raise ValueError(f"{folder / CONFIG} was not written by this version of raysslprune export")


def _read(folder: Path, name: str, config: Mapping[str, Any]) -> tuple[bytes, dict[str, Tensor]]:
    """Read an exported file and the tensors in it, and verify its checksum. Raises OSError, ValueError."""
    if not (folder / name).exists():
        raise ValueError(f"there is no {name} in {folder}")
    data = (folder / name).read_bytes()
    if hashlib.sha256(data).hexdigest() != config["sha256"].get(name):
        raise ValueError(f"{folder / name} is damaged: it does not match its checksum in {CONFIG}")
    try:
        return data, from_safetensors(data)
    except SafetensorError as error:
        raise ValueError(f"{folder / name} is damaged: {error}") from None


def shapes_in(data: bytes) -> dict[str, torch.Size]:
    """Return the shapes of the tensors that a safetensors file stores in another form; empty if there are none."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # the first eight bytes: the header's length
    shapes = json.loads(header.get("__metadata__", {}).get(SHAPES, "{}"))
    return {name: torch.Size(shape) for name, shape in shapes.items()}


# ------------------------------------------------------------------------------------- training


def keep_pruned(module: nn.Module, mask: Mask) -> nn.Module:
    """Set the weights that a mask prunes to 0, keep them 0 when the module is trained, and return the module.

    They are exactly 0 after each step of a torch optimiser and after load_state_dict, also in copies of the module and
    of its parts, pickled ones included. The types and names of module, parameters and state dict do not change.
    ``weight.pruned``, a bool tensor, marks the zeros of each pruned weight; set it to None to release them.

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
    """Return the prunable weights of a module, by name. Raises ValueError if the mask does not fit them."""
    weights = models.prunable(module)
    for name, m in mask.items():
        if name not in weights:
            raise ValueError(f"the module has no weight {name} to prune")
        if weights[name].shape != m.shape:
            raise ValueError(f"the mask of {name} is {tuple(m.shape)}, not {tuple(weights[name].shape)}")
    return weights


class StaysPruned:
    """A hook that carries ``weight.pruned``, the places where a weight is pruned, from a layer to its copies.

    A copied parameter loses its attributes, but a copied layer keeps its hooks: this is a hook of load_state_dict. It
    refers to the weight, not the layer, because a reference cycle would keep networks in memory.
    """

    def __init__(self, weight: Tensor, pruned: Tensor | None) -> None:
        _hook_optimisers()
        self.weight = weight
        setattr(weight, PRUNED, pruned)

    def __reduce__(self) -> tuple[Any, ...]:
        return StaysPruned, (self.weight, getattr(self.weight, PRUNED, None))

    def __call__(self, layer: nn.Module, _keys: Any) -> None:
        """Prune the weight that the layer loaded, which with ``assign=True`` is another parameter."""
        pruned = getattr(self.weight, PRUNED, None)
        loaded = dict(layer.named_parameters(recurse=False)).get("weight", self.weight)
        if pruned is not None:
            setattr(loaded, PRUNED, pruned)
            _zero(loaded, pruned.to(loaded.device))
        self.weight = loaded


PRUNED = "pruned"
"""Attribute of a weight that marks where it is pruned: a bool tensor, or None."""


@torch.no_grad()
def _zero(tensor: Tensor, where: Tensor) -> None:
    tensor.masked_fill_(where, 0)  # a product would leave -0 and NaN


@cache
def _hook_optimisers() -> None:
    """Hook all optimisers, once per process and only if it has weights to keep pruned."""
    register_optimizer_step_pre_hook(_before_step)
    register_optimizer_step_post_hook(_after_step)


def _pruned_weights(optimiser: Optimizer) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the weights of an optimiser that stay pruned, each with its pruned places, on its device."""
    for group in optimiser.param_groups:
        for weight in group["params"]:
            if (pruned := getattr(weight, PRUNED, None)) is not None:
                if pruned.device != weight.device:
                    setattr(weight, PRUNED, pruned := pruned.to(weight.device))
                yield weight, pruned


def _before_step(optimiser: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    """Set the gradients of pruned weights to 0, also those that a closure computes.

    Without this the weights would stay 0 too, but line searches and norms over a layer would see other gradients.
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


def _rename(
    renamed: Callable[..., dict[str, Tensor]], net: Subnetwork, state: dict[str, Tensor], prefix: str, *_: Any
) -> None:
    """Rename the entries of ``net`` in a state dict: a hook of state_dict and load_state_dict."""
    ours = {name.removeprefix(prefix): state.pop(name) for name in [*state] if name.startswith(prefix)}
    state.update({f"{prefix}{name}": value for name, value in renamed(ours, net.config["arch"]).items()})


def released_names(state: Mapping[str, Tensor], arch: str) -> dict[str, Tensor]:
    """Give a network's state, ``trunk.*`` and ``head.*``, torchvision's names. Raises ValueError if two collide."""
    last = LAST.get(arch, "head")
    renamed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        part, _, rest = name.partition(".")
        if part == "trunk" and rest.startswith(f"{last}."):
            raise ValueError(f"the trunk of {arch} has a weight {rest}, but {last!r} is reserved for the last layer")
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
    """Describe the head of a network's state for :func:`make_head`; None if it is more than a last layer."""
    own = {name.removeprefix("head."): t for name, t in state.items() if name.startswith("head.")}
    for kind, make in HEADS.items():
        with torch.device("meta"):
            like = make(1, 1).state_dict()
        if {name: t.ndim for name, t in own.items()} == {name: t.ndim for name, t in like.items()}:
            outputs, features = next(t.shape for t in own.values() if t.ndim == 2)
            return {"kind": kind, "features": features, "outputs": outputs}
    return None


def make_head(head: Mapping[str, Any] | None) -> nn.Module:
    """Build the head that :func:`describe_head` described; for None, one that returns the features."""
    return nn.Identity() if head is None else HEADS[head["kind"]](head["features"], head["outputs"])


def _standardised(features: int, outputs: int) -> nn.Module:
    """The head of task ``labels`` with its option ``standardise``."""
    return nn.Sequential(nn.BatchNorm1d(features, affine=False), nn.Linear(features, outputs))


HEADS: dict[str, Callable[[int, int], nn.Module]] = {"linear": nn.Linear, "standardised linear": _standardised}
"""Constructors of heads, from the numbers of features and outputs, by kind."""


# ------------------------------------------------------------------------------------- forms


def to_sparse(state: Mapping[str, Tensor], mask: Mask) -> bytes:
    """Store weights as a safetensors file: a bitmap and the remaining weights, for each layer that this makes smaller.

    ``NAME.bitmap`` is one bit a weight as in masks.pack, ``NAME.values`` the weights whose bit is 1, in order. Other
    tensors are unchanged. Pruned weights must be 0.
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
    return to_safetensors(tensors, {SHAPES: json.dumps(shapes, sort_keys=True)})


def from_sparse(data: bytes, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`to_sparse`, bit for bit, except for the order of tensors. tensors: those in ``data``."""
    shapes = shapes_in(data)
    state = {name: t for name, t in tensors.items() if name.removesuffix(BITMAP).removesuffix(VALUES) not in shapes}
    for name, shape in shapes.items():
        stays = masks.unpack({name: tensors[name + BITMAP]}, {name: shape})[name]
        state[name] = torch.zeros(shape, dtype=tensors[name + VALUES].dtype)
        state[name][stays] = tensors[name + VALUES]
    return state


def packed(mask: Mask) -> bytes:
    """Store a mask as a safetensors file with its shapes."""
    return to_safetensors(masks.pack(mask), {SHAPES: json.dumps({n: list(m.shape) for n, m in mask.items()})})


def unpacked(data: bytes, tensors: Mapping[str, Tensor]) -> Mask:
    """The inverse of :func:`packed`. tensors: those in ``data``. Raises ValueError if the file is no packed mask."""
    return masks.unpack(tensors, shapes_in(data))
