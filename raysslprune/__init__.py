"""Pruning convolutional networks with and without labels: distributed sweeps from one command to the paper's figure.

Sweep files, notebooks and scripts import what they need from here: ``from raysslprune import SETTINGS, Point, imp``.
The module behind a name is imported on the name's first use, so a sweep file loads in milliseconds, without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names once more, for type checkers and editors, which do not run __getattr__
    # isort: off
    from raysslprune.data.dataset import resident
    from raysslprune.evaluate.metrics import accuracy
    from raysslprune.experiment import Experiment, Failed
    from raysslprune.lottery import Chain, finetune, from_start, imp, linear, random_prune, random_reinit, rewound
    from raysslprune.lottery import shuffled, untrained, winning_ticket
    from raysslprune.messages import UserError
    from raysslprune.paper.depths import depths
    from raysslprune.paper.experiments import BASELINES, CONTROLS, ERK, NONZERO, PROPER_NAMES, RANDOM, REINIT, SHUFFLED
    from raysslprune.paper.experiments import ANEW, DENSE_FEATURES, INITIAL, TICKET, UNTRAINED, by_criteria
    from raysslprune.paper.experiments import claims_on, claims_on_criteria, claims_on_depth, claims_on_features
    from raysslprune.paper.experiments import claims_on_labels, judged_features, pruned_to_depth, retrained
    from raysslprune.paper.experiments import rewinds_with_few_labels, unpruned
    from raysslprune.paper.recipes import APPENDIX_D, NETS, appendix_d
    from raysslprune.paper.scales import FEW, LABELLED, PAPER_LEVELS, SETTINGS, Net, Probe, Setting, Target, images_of
    from raysslprune.release.subnetwork import keep_pruned, load_mask, load_subnetwork
    from raysslprune.release.torch_prune import from_torch_prune, to_torch_prune
    from raysslprune.single import Training, train
    from raysslprune.spec import SVM, Final, Imported, ImportedWeights, Init, Mask, Option, Prune, RandomPrune, Recipe
    from raysslprune.spec import Rewind, Shuffle, Start, Step, Train
    from raysslprune.sweepfile import Claim, Curve, Dense, Drawing, Figure, Listing, Magnitudes, Point, Search, Unfit
    from raysslprune.tasks.task import Task
    # isort: on

__version__ = "0.2.0"

__all__ = [
    "ANEW", "APPENDIX_D", "BASELINES", "CONTROLS", "DENSE_FEATURES", "ERK", "FEW", "INITIAL", "LABELLED", "NETS",
    "NONZERO", "PAPER_LEVELS", "PROPER_NAMES", "RANDOM", "REINIT", "SETTINGS", "SHUFFLED", "SVM", "TICKET",
    "UNTRAINED", "Chain", "Claim", "Curve", "Dense", "Drawing", "Experiment", "Failed", "Figure", "Final", "Imported",
    "ImportedWeights", "Init", "Listing", "Magnitudes", "Mask", "Net", "Option", "Point", "Probe", "Prune",
    "RandomPrune", "Recipe", "Rewind", "Search", "Setting", "Shuffle", "Start", "Step", "Target", "Task", "Train",
    "Training", "Unfit", "UserError", "accuracy", "appendix_d", "by_criteria", "claims_on", "claims_on_criteria",
    "claims_on_depth", "claims_on_features", "claims_on_labels", "depths", "finetune", "from_start", "from_torch_prune",
    "images_of", "imp", "judged_features", "keep_pruned", "linear", "load_mask", "load_subnetwork", "pruned_to_depth",
    "random_prune", "random_reinit", "resident", "retrained", "rewinds_with_few_labels", "rewound", "shuffled",
    "to_torch_prune", "train", "unpruned", "untrained", "winning_ticket",
]  # fmt: skip

_NAMES = {
    "raysslprune.experiment": "Experiment Failed",
    "raysslprune.single": "Training train",
    "raysslprune.data.dataset": "resident",
    "raysslprune.evaluate.metrics": "accuracy",
    "raysslprune.messages": "UserError",
    "raysslprune.paper.depths": "depths",
    "raysslprune.paper.experiments": """ANEW BASELINES CONTROLS DENSE_FEATURES ERK INITIAL NONZERO PROPER_NAMES RANDOM
        REINIT SHUFFLED TICKET UNTRAINED by_criteria claims_on claims_on_criteria claims_on_depth
        claims_on_features claims_on_labels judged_features pruned_to_depth retrained rewinds_with_few_labels
        unpruned""",
    "raysslprune.lottery": """Chain finetune from_start imp linear random_prune random_reinit rewound shuffled untrained
        winning_ticket""",
    "raysslprune.paper.recipes": "APPENDIX_D NETS appendix_d",
    "raysslprune.paper.scales": "FEW LABELLED PAPER_LEVELS SETTINGS Net Probe Setting Target images_of",
    "raysslprune.spec": """SVM Final Imported ImportedWeights Init Mask Option Prune RandomPrune Recipe Rewind Shuffle
        Start Step Train""",
    "raysslprune.release.subnetwork": "keep_pruned load_mask load_subnetwork",
    "raysslprune.sweepfile": "Claim Curve Dense Drawing Figure Listing Magnitudes Point Search Unfit",
    "raysslprune.tasks.task": "Task",
    "raysslprune.release.torch_prune": "from_torch_prune to_torch_prune",
}
MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
"""Module that defines each name of ``__all__``."""


def __getattr__(name: str) -> Any:
    """Import the module that defines a name of ``__all__``, and return the object."""
    if name not in MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
