"""``raysslprune import-weights FILE --arch resnet50``: put somebody else's weights into the store.

It prints the step, from which a sweep file prunes, and from which trainings start, as from a training's final weights.
The step's id includes a digest of the weights, so no other weights can be mistaken for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from raysslprune import catalogue
from raysslprune.commands.common import Parser, check_file, path, reports_errors, wrong_calls
from raysslprune.messages import note
from raysslprune.spec import ImportedWeights
from raysslprune.store.record import WEIGHTS, versions
from raysslprune.store.steps import Store

if TYPE_CHECKING:
    from raysslprune.models.checkpoint import Found


@reports_errors()
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    options = _parser().parse_args(arguments)
    with wrong_calls():
        catalogue.check("architecture", catalogue.ARCHITECTURES, options.arch)
        store = Store(options.root)
        step, found = into_store(store, Path(options.file), options.arch, options.prefix)
    if found.left_out:
        parts = ", ".join(f"{part} ({count})" for part, count in found.left_out.items())
        note(f"left out, by number of tensors: {parts}")
    where = f" under {found.prefix.rstrip('.')}" if found.prefix else ""
    print(f"# step {step.id} in {store.shown}: {len(found.tensors)} tensors of {step.arch}{where}")
    print("from raysslprune import Final, ImportedWeights\n")
    print(f"WEIGHTS = {step.line}")
    print("START = Final(of=WEIGHTS)")
    return 0


def into_store(store: Store, file: Path, arch: str, prefix: str | None = None) -> tuple[ImportedWeights, Found]:
    """Commit the trunk in a file. Return its step, and what was found. prefix: as for models.checkpoint.find.

    Raises ValueError if the file has no such trunk, OSError, StoreError.
    """
    from safetensors.torch import save

    from raysslprune import masks, models

    check_file(file)
    try:
        found = models.checkpoint.find(
            models.checkpoint.load(file), lambda channels: models.trunk(arch, channels), arch, prefix
        )
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file} can't be imported as {arch}: {error}") from error
    step = ImportedWeights(arch=arch, channels=found.channels, digest=masks.digest_of_weights(found.tensors))
    weights = {f"trunk.{name}": tensor for name, tensor in found.tensors.items()}
    store.create()
    store.commit(step, {WEIGHTS: save(weights)}, {}, {"versions": versions(), "source": file.name})
    return step, found


def _parser() -> Parser:
    parser = Parser(
        prog="raysslprune import-weights",
        description="Put weights that were trained elsewhere into a root, so that sweeps can prune them and train on.",
        examples=["raysslprune import-weights moco_v2_800ep_pretrain.pth.tar --arch resnet50 --root runs"],
        codes="0 the weights are stored; 1 the store failed; 2 a wrong call, or the file lacks weights of the network",
    )
    file = "checkpoint of torchvision, MoCo, SimCLR, BYOL, SwAV, DINO, solo-learn, lightly, VISSL or the like, of "
    file += "safetensors, torch.save or numpy.savez; no code in it is run"
    parser.add_argument("file", type=path, metavar="FILE", help=file)
    parser.add_argument("--arch", required=True, metavar="NAME", help="the network, as in a sweep file: resnet50, ...")
    prefix = "prefix of the weights' names in the file, or its end, if it has several networks: module.encoder_k, ..."
    parser.add_argument("--prefix", metavar="PREFIX", help=prefix)
    parser.add_root()
    return parser
