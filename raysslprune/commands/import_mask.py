"""``raysslprune import-mask FILE --arch resnet8``: a mask found by another tool, into the store.

It prints the step that a sweep file then uses as any other mask. The step's id holds a digest of the mask itself, so
that nothing can be taken for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raysslprune import catalogue
from raysslprune.commands.common import Parser, count, path, reports_errors
from raysslprune.messages import FAILED, STOPPED, USAGE, say
from raysslprune.spec import Imported
from raysslprune.store.record import StoreError
from raysslprune.store.steps import Store

if TYPE_CHECKING:
    from torch import Tensor


@reports_errors
def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        catalogue.check("architecture", catalogue.ARCHITECTURES, options.arch)
        store = Store(options.root)
        step, left_out = into_store(store, Path(options.file), options.arch, options.channels)
    except ValueError as error:
        return say(str(error), USAGE)
    except (StoreError, OSError) as error:
        return say(str(error), FAILED)
    except KeyboardInterrupt:
        return say("stopped", STOPPED)
    if left_out:
        say(f"left out, since the last layer is never pruned here: {', '.join(left_out)}", 0)
    record = store.record(step.id)
    assert record is not None
    print(f"# step {step.id} in {store.shown}: {100 * record.metrics['density']:.4g}% of {step.arch}'s weights stay")
    print("from raysslprune.spec import Imported\n")
    print(f'MASK = Imported(arch="{step.arch}", channels={step.channels}, digest="{step.digest}")')
    return 0


def into_store(store: Store, file: Path, arch: str, channels: int | None = None) -> tuple[Imported, list[str]]:
    """Commit the mask in a file; gives its step, and names in the file that were left out, being of the last layer.

    channels: of the network's images; by default those of the first convolution's mask.
    Raises ValueError where the file is no mask of that network, OSError, StoreError.
    """
    from raysslprune import masks, models
    from raysslprune.release import torch_prune
    from raysslprune.training.make_masks import MaskMaker, NoExchange

    if not file.is_file():
        raise ValueError(f"{file} is a folder, and no file" if file.is_dir() else f"there is no file {file}")
    try:
        found = torch_prune.read(file)
        torch_prune.check_names(found, models.prunable(body := models.trunk(arch, 1)))
        channels = channels or _channels(found, models.convolutions(body))
        shapes = {name: weight.shape for name, weight in models.prunable(models.trunk(arch, channels)).items()}
        mask, left_out = torch_prune.fit(found, shapes)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} is no mask of {arch}: {error}") from error
    step = Imported(arch=arch, channels=channels, digest=masks.digest(mask))
    store.create()
    MaskMaker(store=store, exchange=NoExchange()).commit(step, mask, source=file.name)
    return step, left_out


def _channels(found: Mapping[str, Tensor], convolutions: Sequence[str]) -> int:
    first = convolutions[0] if convolutions else ""
    if first not in found:
        raise ValueError(f"it has no mask of the first convolution{f', {first}' if first else ''}: say --channels")
    if found[first].ndim != 4:
        raise ValueError(f"the mask of {first} is {tuple(found[first].shape)}, and a convolution's has four dimensions")
    return found[first].shape[1]


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune import-mask",
        description="Put a mask that another tool found into a root, for sweeps to use as any other.",
        examples=["raysslprune import-mask pruned.pt --arch resnet18-cifar --root runs"],
        codes="0 it is there; 1 the store failed; 2 a wrong call, or a file that is no mask of the network; 130 Ctrl-C",
    )
    parser.add_argument(
        "file",
        type=path,
        metavar="FILE",
        help="what safetensors, torch.save or numpy.savez wrote: the state of a module that torch.nn.utils.prune has "
        "pruned, or 0 and 1 by the weights' names, or mask.safetensors of an export",
    )
    parser.add_argument("--arch", required=True, metavar="NAME", help="the network, as a sweep names it: resnet8, ...")
    parser.add_argument(
        "--channels",
        type=count,
        metavar="N",
        help="of its images (default: as the first convolution's mask has them)",
    )
    parser.add_root()
    return parser
