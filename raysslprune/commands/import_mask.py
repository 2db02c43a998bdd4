"""``raysslprune import-mask FILE --arch resnet8``: put a mask that another tool found into the store.

It prints the step, which a sweep file then uses as any other mask. The step's id includes a digest of the mask, so no
other mask can be mistaken for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raysslprune import catalogue
from raysslprune.commands.common import Parser, check_file, count, path, reports_errors, wrong_calls
from raysslprune.messages import note
from raysslprune.spec import Imported
from raysslprune.store.steps import Store

if TYPE_CHECKING:
    from torch import Tensor


@reports_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    with wrong_calls():
        catalogue.check("architecture", catalogue.ARCHITECTURES, options.arch)
        store = Store(options.root)
        step, left_out = into_store(store, Path(options.file), options.arch, options.channels)
    if left_out:
        note(f"left out, since the last layer is never pruned here: {', '.join(left_out)}")
    record = store.record(step.id)
    assert record is not None
    print(f"# step {step.id} in {store.shown}: {100 * record.metrics['density']:.4g}% of {step.arch}'s weights stay")
    print("from raysslprune import Imported\n")
    print(f"MASK = {step.line}")
    return 0


def into_store(store: Store, file: Path, arch: str, channels: int | None = None) -> tuple[Imported, list[str]]:
    """Commit the mask in a file. Return its step, and the file's names for the last layer, which is left out.

    channels: number of channels of the network's images; by default that of the first convolution's mask.
    Raises ValueError if the file is no mask of that network, OSError, StoreError.
    """
    from raysslprune import masks, models
    from raysslprune.release import torch_prune
    from raysslprune.training.make_masks import MaskMaker, NoExchange

    check_file(file)
    try:
        found = torch_prune.read(file)
        torch_prune.check_names(found, models.prunable(body := models.trunk(arch, 1)))
        channels = channels or _channels(found, models.convolutions(body))
        shapes = {name: weight.shape for name, weight in models.prunable(models.trunk(arch, channels)).items()}
        mask, left_out = torch_prune.fit(found, shapes)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is not a mask of {arch}: {error}") from error
    step = Imported(arch=arch, channels=channels, digest=masks.digest(mask))
    store.create()
    MaskMaker(store=store, exchange=NoExchange()).commit(step, mask, source=file.name)
    return step, left_out


def _channels(found: Mapping[str, Tensor], convolutions: Sequence[str]) -> int:
    first = convolutions[0] if convolutions else ""
    if first not in found:
        raise ValueError(f"it has no mask of the first convolution{f', {first}' if first else ''}: add --channels")
    if found[first].ndim != 4:
        raise ValueError(
            f"the mask of convolution {first} is {tuple(found[first].shape)}; it must have four dimensions"
        )
    return found[first].shape[1]


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune import-mask",
        description="Put a mask that another tool found into a root, so that sweeps can use it as any other.",
        examples=["raysslprune import-mask pruned.pt --arch resnet18-cifar --root runs"],
        codes="0 the mask is stored; 1 the store failed; 2 a wrong call, or the file is not a mask of the network",
    )
    file = "file of safetensors, torch.save or numpy.savez: the state of a module that torch.nn.utils.prune pruned, or "
    file += "tensors of 0 and 1 named as the weights; or mask.safetensors of an export"
    parser.add_argument("file", type=path, metavar="FILE", help=file)
    parser.add_argument("--arch", required=True, metavar="NAME", help="the network, as in a sweep file: resnet8, ...")
    parser.add_argument("--channels", type=count, metavar="N", help="channels of its images (default: from its mask)")
    parser.add_root()
    return parser
