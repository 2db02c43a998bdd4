"""Pruning convolutional networks with and without labels: distributed sweeps from one command to the paper's figure.

What a sweep file, a notebook or a script needs is imported from here: ``from raysslprune import SETTINGS, Point, imp``.
A name is looked up when it is asked for, so a sweep file loads in milliseconds, without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names once more, for type checkers and editors, which do not run __getattr__
    from raysslprune.data.dataset import resident
    from raysslprune.evaluate.metrics import accuracy
    from raysslprune.experiment import Experiment, Failed
    from raysslprune.lottery import (
        Chain,
        finetune,
        imp,
        linear,
        random_prune,
        random_reinit,
        rewound,
        shuffled,
        untrained,
        winning_ticket,
    )
    from raysslprune.paper.experiments import (
        NONZERO,
        RANDOM,
        REINIT,
        SHUFFLED,
        TICKET,
        claims_on,
        claims_on_depth,
        claims_on_labels,
        layerwise,
        retrained,
        rewinds_with_few_labels,
        unpruned,
    )
    from raysslprune.paper.recipes import APPENDIX_D, NETS, appendix_d
    from raysslprune.paper.scales import FEW, LABELLED, PAPER_LEVELS, SETTINGS, Net, Probe, Setting, Target, images_of
    from raysslprune.release.subnetwork import keep_pruned, load_mask, load_subnetwork
    from raysslprune.release.torch_prune import from_torch_prune, to_torch_prune
    from raysslprune.spec import (
        SVM,
        Final,
        Imported,
        Init,
        Mask,
        Option,
        Prune,
        RandomPrune,
        Recipe,
        Rewind,
        Shuffle,
        Start,
        Step,
        Train,
    )
    from raysslprune.sweepfile import Claim, Curve, Dense, Drawing, Figure, Listing, Magnitudes, Point, Search
    from raysslprune.tasks.task import Task

__version__ = "0.2.0"

__all__ = [
    "APPENDIX_D", "FEW", "LABELLED", "NETS", "NONZERO", "PAPER_LEVELS", "RANDOM", "REINIT", "SETTINGS", "SHUFFLED",
    "SVM", "TICKET", "Chain", "Claim", "Curve", "Dense", "Drawing", "Experiment", "Failed", "Figure", "Final",
    "Imported", "Init", "Listing", "Magnitudes", "Mask", "Net", "Option", "Point", "Probe", "Prune", "RandomPrune",
    "Recipe", "Rewind", "Search", "Setting", "Shuffle", "Start", "Step", "Target", "Task", "Train", "accuracy",
    "appendix_d", "claims_on", "claims_on_depth", "claims_on_labels", "finetune", "from_torch_prune", "images_of",
    "imp", "keep_pruned", "layerwise", "linear", "load_mask", "load_subnetwork", "random_prune", "random_reinit",
    "resident", "retrained", "rewinds_with_few_labels", "rewound", "shuffled", "to_torch_prune", "unpruned",
    "untrained", "winning_ticket",
]  # fmt: skip

_NAMES = {
    "raysslprune.experiment": "Experiment Failed",
    "raysslprune.data.dataset": "resident",
    "raysslprune.evaluate.metrics": "accuracy",
    "raysslprune.paper.experiments": """NONZERO RANDOM REINIT SHUFFLED TICKET claims_on claims_on_depth claims_on_labels
        layerwise retrained rewinds_with_few_labels unpruned""",
    "raysslprune.lottery": """Chain finetune imp linear random_prune random_reinit rewound shuffled untrained
        winning_ticket""",
    "raysslprune.paper.recipes": "APPENDIX_D NETS appendix_d",
    "raysslprune.paper.scales": "FEW LABELLED PAPER_LEVELS SETTINGS Net Probe Setting Target images_of",
    "raysslprune.spec": """SVM Final Imported Init Mask Option Prune RandomPrune Recipe Rewind Shuffle Start Step
        Train""",
    "raysslprune.release.subnetwork": "keep_pruned load_mask load_subnetwork",
    "raysslprune.sweepfile": "Claim Curve Dense Drawing Figure Listing Magnitudes Point Search",
    "raysslprune.tasks.task": "Task",
    "raysslprune.release.torch_prune": "from_torch_prune to_torch_prune",
}
MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
"""Where each name of ``__all__`` is."""


def __getattr__(name: str) -> Any:
    """Import the module that has the name."""
    if name not in MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(MODULE_OF[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
