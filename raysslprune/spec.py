"""The nouns: what is trained, what is pruned, from which weights, with which seed.

Everything that a result depends on is a frozen value in this file, and nothing else is: the number
of GPUs, paths and logging are not in these types, so they cannot change an identity by accident.

A *step* is a node of the graph that a sweep asks for. Its ``id`` is a hash of its kind, the version
of that kind's meaning, the fields that differ from their defaults, and its parents' ids. Two figures
that ask for the same step therefore name the same directory of the store, and the step is made once.

Standard library only: a sweep file imports in milliseconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar, Self

# ------------------------------------------------------------------------------------- values


class _Value:
    """A part of a step. Many steps share one, so its JSON data is cached."""

    def __post_init__(self) -> None:
        check_types(self)

    @cached_property
    def plain(self) -> dict[str, Any]:
        return {"value": type(self).__name__, **_fields(self)}


@dataclass(frozen=True, kw_only=True)
class Recipe(_Value):
    """A training recipe: a row of the paper's Appendix D.

    All lengths are in *samples seen*, the one unit of progress; epochs and updates are derived.

    samples: length of the whole training.
    batch: samples in one optimiser update.
    lr: learning rate, the highest of the schedule.
    optimizer: ``sgd``, ``adam`` (L2 coupled, as the paper's CIFAR-10 runs) or ``adamw``.
    momentum, nesterov: of SGD.
    weight_decay: of all weights, BatchNorm's and biases included.
    schedule: ``constant``, ``cosine`` (to 0 at the end), ``linear`` (from the end of the warm-up to 0 at the end: with
        a warm-up, one cycle), or ``steps`` (divided by 10 at each of ``decay_at``).
    decay_at: samples seen when the rate of the schedule ``steps`` falls.
    warmup: samples over which the learning rate rises linearly from 0.
    bn_batch: samples that share BatchNorm statistics (the paper's samples per GPU); an update accumulates its gradient
        over ``batch / bn_batch`` such parts. 0: the whole batch. In-batch negatives come from the same part.
    pad, flip: random shift by up to ``pad`` pixels (zero padding, then a crop of the image's size) and
        horizontal flip. crop: random resized crop of at least this fraction of the image's area, 0 for none.
    angle: random rotation by up to this many degrees. jitter: brightness, contrast, saturation (factors in
        ``1 ± strength``) and hue (in turns of the colour wheel), in this order. grayscale: probability.
        All are drawn anew for each view of each sample in each epoch, and applied in the order shift or crop, flip,
        angle, jitter, grayscale.
    precision: ``float32``; ``tf32``: a GPU rounds the factors of float32 products to 10 bits, a CPU does not; or
        ``bf16``: the network in bfloat16 where that is safe (autocast), weights and loss in float32.
    options: options of the task, as ``{"margin": 0.5}``. They are kept as pairs, sorted by name. An option belongs to
        the recipe's identity even if it is given with its default value.
    """

    samples: int
    batch: int
    lr: float
    optimizer: str = "sgd"
    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    decay_at: tuple[int, ...] = ()
    warmup: int = 0
    bn_batch: int = 0
    pad: int = 0
    flip: bool = False
    crop: float = 0.0
    angle: float = 0.0
    jitter: tuple[float, ...] = ()
    grayscale: float = 0.0
    precision: str = "float32"
    options: Options = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        pairs = self.options.items() if isinstance(self.options, Mapping) else self.options
        object.__setattr__(self, "options", tuple(sorted(pairs, key=lambda option: option[0])))
        _demand(self.samples > 0, f"a recipe needs samples > 0, not {self.samples}")
        _demand(self.batch > 1, f"a recipe needs batch > 1 (batch-norm), not {self.batch}")
        _demand(self.lr > 0, f"a recipe needs lr > 0, not {self.lr}")
        for field, known in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES), ("precision", PRECISIONS)):
            value = getattr(self, field)
            _demand(value in known, f"{field} {value!r} is not one of {', '.join(known)}")
        _demand(not self.nesterov or self.momentum > 0, "nesterov needs momentum > 0")
        _demand(
            bool(self.decay_at) == (self.schedule == "steps"),
            "decay_at is required with schedule 'steps' and not allowed with other schedules",
        )
        _demand(
            self.schedule != "linear" or self.warmup < self.samples,
            f"schedule 'linear' needs a warm-up that ends before the recipe's {self.samples} samples",
        )
        _demand(
            self.weight_decay >= 0 and self.warmup >= 0 and self.pad >= 0,
            "weight_decay, warmup and pad can't be negative",
        )
        _demand(
            self.bn_batch == 0 or (self.bn_batch > 1 and self.batch % self.bn_batch == 0),
            f"bn_batch must divide the batch of {self.batch} and be at least 2, not {self.bn_batch}",
        )
        _demand(0 <= self.crop <= 1, f"crop must be a fraction of the image's area, not {self.crop}")
        _demand(not (self.crop and self.pad), "a recipe has pad or crop, not both")
        _demand(0 <= self.angle <= 180, f"angle must be from 0 to 180 degrees, not {self.angle}")
        _demand(0 <= self.grayscale <= 1, f"grayscale must be a probability, not {self.grayscale}")
        _demand(
            len(self.jitter) in (0, 4) and all(0 <= strength <= 1 for strength in self.jitter),
            "jitter must be four strengths from 0 to 1: brightness, contrast, saturation, hue",
        )
        _demand(not self.jitter or self.jitter[3] <= 0.5, "hue jitter must be at most half a turn of the colour wheel")
        names = [name for name, _ in self.options]
        _demand(len(set(names)) == len(names), f"an option is given twice: {', '.join(names)}")
        _check_finite(self)

    @property
    def parts(self) -> int:
        """Number of parts of a batch with BatchNorm statistics of their own: the most workers that can share it."""
        return self.batch // self.bn_batch if self.bn_batch else 1

    def reached(self, samples: int) -> int:
        """Samples seen after the fewest updates that see ``samples``: 98 updates for 50,000 / 512, as in the paper."""
        return -(-samples // self.batch) * self.batch


def value_of(recipe: Recipe | SVM, name: str) -> Any:
    """A recipe's field, or its option ``options.NAME``."""
    field, _, option = name.partition(".")
    return dict(getattr(recipe, field))[option] if option else getattr(recipe, field)


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with other values, by the names that :func:`value_of` takes. Raises ValueError as Recipe does."""
    fields = {name: value for name, value in values.items() if "." not in name}
    options = {name.partition(".")[2]: value for name, value in values.items() if "." in name}
    return dataclasses.replace(recipe, **fields, options={**dict(recipe.options), **options})


Option = bool | int | float | str
Options = Mapping[str, Option] | tuple[tuple[str, Option], ...]

OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("float32", "tf32", "bf16")
SCHEDULES = ("constant", "cosine", "linear", "steps")


@dataclass(frozen=True, kw_only=True)
class SVM(_Value):
    """Linear SVMs on frozen features instead of gradient descent: one for each class against the others.

    The benchmark of Goyal et al. 2019 (https://arxiv.org/abs/1905.01235): features divided by their length, squared
    hinge loss, and for each class the cost with the best average precision in cross-validation.

    costs: candidates for the cost of a violation. folds: of the cross-validation.
    tolerance, iterations: where liblinear stops.
    positive_weight: weight of a sample of the class relative to one of the others.
    """

    costs: tuple[float, ...]
    folds: int = 3
    positive_weight: float = 2.0
    tolerance: float = 1e-4
    iterations: int = 2000

    samples: ClassVar[int] = 0
    parts: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "costs", tuple(sorted(self.costs)))
        _demand(bool(self.costs) and self.costs[0] > 0, "an SVM needs costs, all above 0")
        _demand(self.folds > 1, f"cross-validation needs 2 folds or more, not {self.folds}")
        _check_finite(self)


@dataclass(frozen=True, kw_only=True)
class Init(_Value):
    """Weights drawn from the initialisation distribution. ``draw`` distinguishes independent draws of one seed."""

    seed: int
    draw: int = 0


@dataclass(frozen=True, kw_only=True)
class Rewind(_Value):
    """The state of training ``of`` after ``samples`` samples, with BatchNorm statistics (paper 3.1 and Appendix A).

    Training continues from that position of the schedule and of the data order, with a fresh optimiser.
    """

    of: Train
    samples: int

    def __post_init__(self) -> None:
        super().__post_init__()
        _demand(
            self.of.begins_at <= self.samples <= self.of.recipe.samples,
            f"can't rewind to {self.samples} samples of a training from {self.of.begins_at} "
            f"to {self.of.recipe.samples}",
        )


@dataclass(frozen=True, kw_only=True)
class Final(_Value):
    """The final trunk of training ``of``, or imported weights, to transfer to a task; the head is drawn anew."""

    of: Train | ImportedWeights


Start = Init | Rewind | Final

# ------------------------------------------------------------------------------------- steps


class Step:
    """A node of the graph. Steps with equal ids are equal: hash and equality use the id.

    id: 16 hex digits, stable across processes, field order, and new fields at their default. Computed with the step,
    from its parents' ids, so that a long chain needs no recursion.
    """

    VERSION: ClassVar[int]

    def __post_init__(self) -> None:
        check_types(self)
        self.check()
        svms = any(isinstance(step, Train) and isinstance(step.recipe, SVM) for step in self.parents)
        _demand(not svms, "linear SVMs leave no network, so no step can start from them or prune them")
        text = json.dumps(to_plain(self), sort_keys=True, separators=(",", ":"))
        object.__setattr__(self, "id", hashlib.sha256(text.encode()).hexdigest()[:16])

    if TYPE_CHECKING:
        id: str

    def check(self) -> None:
        """Raise ValueError if a field's value makes no sense."""

    @cached_property
    def parents(self) -> tuple[Step, ...]:
        """The steps that this step reads from, each once."""
        return tuple(dict.fromkeys(_steps_in(self)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Step) and self.id == other.id

    def __hash__(self) -> int:
        return int(self.id, 16)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id}>"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Train(Step):
    """Train ``arch`` on ``task`` over ``data``; gives weights, snapshots and metrics.

    seed: seeds the data order, the augmentation, and a head that ``start`` does not provide.
    start: source of the weights. A Rewind of a training on the same task and data provides the head too;
        otherwise the head is drawn anew.
    mask: which weights of the trunk stay; the others are exactly 0 throughout. None: all stay.
    trunk_frozen: train the head alone, on the features of a trunk that is in evaluation mode (a linear classifier).
    first_sample: position in the recipe's schedule and data order at which training begins. None: where ``start`` was
        taken, so a Rewind goes on from there. 0 with a Rewind gives the whole schedule, for another task or data set.
    calibrated: take the BatchNorm statistics of a frozen trunk that was never trained from the training images.
    """

    VERSION: ClassVar[int] = 1
    task: str
    data: str
    arch: str
    recipe: Recipe | SVM
    seed: int
    start: Start
    mask: Mask | None = None
    trunk_frozen: bool = False
    first_sample: int | None = None
    calibrated: bool = False

    def check(self) -> None:
        if self.first_sample is not None:
            _demand(self.first_sample >= 0, f"first_sample is a number of samples from 0, not {self.first_sample}")
            _demand(
                self.first_sample != (self.rewind or 0),
                f"first_sample {self.first_sample} is where the start was taken, which None says, too: leave it out",
            )
        untrained = self.trunk_frozen and isinstance(self.start, Init)
        _demand(untrained or not self.calibrated, "calibrated is for a frozen trunk that was never trained")
        if isinstance(self.recipe, SVM):
            _demand(self.trunk_frozen and self.task == "labels", "SVMs need the task labels and a frozen trunk")
        else:
            _demand(
                self.begins_at < self.recipe.samples,
                f"nothing is left to train: the recipe ends at {self.recipe.samples} samples",
            )
        if self.mask is not None and isinstance(mask := self.mask.origin, Imported):
            _demand(mask.arch == self.arch, f"the imported mask is for {mask.arch}, not for {self.arch}")
        if isinstance(self.start, Final) and isinstance(weights := self.start.of, ImportedWeights):
            _demand(weights.arch == self.arch, f"the imported weights are of {weights.arch}, not of {self.arch}")

    @property
    def target_density(self) -> float:
        """Density of the mask, or 1 if there is none."""
        return 1.0 if self.mask is None else self.mask.target_density

    @property
    def rewind(self) -> int | None:
        """Samples seen by the state that this training starts from; None if it is not rewound."""
        return self.start.samples if isinstance(self.start, Rewind) else None

    @property
    def begins_at(self) -> int:
        """Position in the recipe's schedule and data order at which this training begins."""
        return (self.rewind or 0) if self.first_sample is None else self.first_sample

    @property
    def prunes_filters(self) -> bool:
        """True if the mask is of whole filters, with which their biases and BatchNorm's scales and shifts are 0."""
        return isinstance(self.mask, Prune) and self.mask.unit == "filter"

    def is_start(self, samples: int) -> bool:
        """Return whether the state after so many samples is the one with which this training begins."""
        assert isinstance(self.recipe, Recipe)
        return self.recipe.reached(samples) == self.recipe.reached(self.begins_at)

    @property
    def begins_as(self) -> Train | None:
        """The training with whose first state this one begins: an unmasked one that it is rewound to the start of."""
        start = self.start
        if isinstance(start, Rewind) and start.of.mask is None and start.of.is_start(start.samples):
            return start.of
        return None

    @property
    def first_start(self) -> Start:
        """The source of the weights with which this training begins, behind trainings that begin as it does."""
        step = self
        while (same := step.begins_as) is not None:
            step = same
        return step.start

    @property
    def keeps_head(self) -> bool:
        """True if the starting weights include a head for this task."""
        start = self.start
        return isinstance(start, Rewind) and (start.of.task, start.of.data) == (self.task, self.data)


class _Original(Step):
    """A mask that is not shuffled."""

    @property
    def origin(self) -> Self:
        """This mask itself. The origin of a Shuffle is the mask that it shuffles."""
        return self


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prune(_Original):
    """Keep the weights with the highest scores; by default, global magnitude pruning (paper 3.1).

    of: the training whose weights are judged; or imported weights, by a criterion that needs weights only.

    The fraction ``keep`` of the weights left in ``scope`` stays: exactly ``survivors(left, keep)``, the best.
    Where scores tie at the threshold, a draw seeded by the step's id decides which weights stay.
    In older masks (whose records have no ``tied``), the last in the order of the network stayed.

    scope: ``all`` (every convolution and fully-connected layer of the trunk), ``convs``, or
        ``convs:3`` (the first three convolutions only).
    criterion: the score, one of CRITERIA (defined in ``criteria/``), or a function of your own, ``module:attribute``.
    allocation: how many weights stay in each layer. ``global``: scores of all layers are ranked together. ``uniform``:
        the same fraction of each layer. ``erk``: small layers keep more (Evci et al. 2020; see ``masks.erk``).
        ``lamp``: global, by scores relative to the layer's larger ones (Lee et al. 2021; see ``masks.lamp``).
    unit: ``weight``; or ``filter``: whole filters of convolutions and neurons of linear layers, by the sum of their
        weights' scores, as many as bring the number of weights nearest to the count above (see ``filters.prune``).
    at: judge the snapshot of ``of`` after so many samples; None: its final weights. A state with which ``of`` begins,
        as 0 mostly is, needs no training of ``of``.
    since: for ``movement``, the snapshot of ``of`` that it is counted from; None: the state with which ``of`` begins.
    samples: number of samples of the task and data of ``of`` in the loss that is differentiated, drawn by the step's
        id. For criteria with gradients only.
    passes: number of prunings within this one state. Each judges what the last one left, and all keep the same fraction
        but for rounding. None: 100 for ``synflow``, as published; else 1.
    """

    VERSION: ClassVar[int] = 1
    of: Train | ImportedWeights
    keep: float
    scope: str = "all"
    criterion: str = "magnitude"
    allocation: str = "global"
    unit: str = "weight"
    at: int | None = None
    since: int | None = None
    samples: int = 512
    passes: int | None = None

    def check(self) -> None:
        _check_pruning(self.keep, self.scope)
        own = ":" in self.criterion
        known = ", ".join(CRITERIA)
        _demand(
            own or self.criterion in CRITERIA,
            f"criterion {self.criterion!r:.80} is not one of {known}, or a function of your own, module:attribute",
        )
        _demand(
            self.allocation in PRUNE_ALLOCATIONS,
            f"allocation {self.allocation!r:.80} is not one of {', '.join(PRUNE_ALLOCATIONS)}",
        )
        _demand(self.unit in UNITS, f"unit {self.unit!r:.80} is not one of {', '.join(UNITS)}")
        filters = self.unit == "filter"
        _demand(filters or self.criterion not in OF_FILTERS, f"criterion {self.criterion!r} needs unit='filter'")
        _demand(
            not filters or (self.allocation in ("global", "uniform") and self.passes is None),
            "unit 'filter' needs allocation 'global' or 'uniform', and no passes",
        )
        _demand(
            self.allocation != "lamp" or self.criterion != "grasp",
            "allocation 'lamp' needs scores that are not negative, which 'grasp' has",
        )
        gradients = own or self.criterion in WITH_GRADIENTS
        _demand(self.samples > 1, f"samples must be at least 2, not {self.samples}")
        _demand(
            gradients or self.samples == Prune.samples,
            f"criterion {self.criterion!r} uses no gradients: leave out samples",
        )
        _demand(self.passes is None or self.passes > 0, f"passes must be at least 1, not {self.passes}")
        moves = self.criterion == "movement"
        _demand(moves or self.since is None, "since is for criterion 'movement' only")
        if isinstance(self.of, ImportedWeights):
            plain = self.criterion in ("magnitude", "relative-magnitude") and self.unit == "weight"
            _demand(
                plain and self.at is None,
                "imported weights come without a task, images and other states: they can be pruned by criterion "
                "'magnitude' or 'relative-magnitude', unit 'weight' and no at",
            )
            return
        if not isinstance(recipe := self.of.recipe, Recipe):
            return
        begins, end = self.of.begins_at, recipe.samples
        for name, samples in (("at", self.at), ("since", self.since)):
            _demand(
                samples is None or begins <= samples <= end,
                f"{name} is a number of samples from {begins} to {end}, between which the training runs, not {samples}",
            )
        _demand(
            self.since is None or not self.of.is_start(self.since),
            f"since {self.since} is where the training begins, which None says, too: leave it out",
        )
        _demand(
            not moves or self.at is None or self.at > (self.since or begins),
            "criterion 'movement' needs at after the state from which the movement is counted",
        )

    @property
    def judges_start(self) -> bool:
        """True if it judges the weights with which ``of`` begins, so that ``of`` itself need not be trained."""
        return self.at is not None and isinstance(self.of, Train) and self.of.is_start(self.at)

    @property
    def reads_start(self) -> bool:
        """True if it reads the weights with which ``of`` begins."""
        return self.judges_start or (self.criterion == "movement" and self.since is None)

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Samples seen at the snapshots of ``of`` that it reads."""
        of = self.of
        if isinstance(of, ImportedWeights):
            return ()
        return tuple(s for s in (self.at, self.since) if s is not None and not of.is_start(s))

    @property
    def arch(self) -> str:
        """Architecture of the network that the mask is for."""
        return self.of.arch

    @property
    def rounds(self) -> list[Prune]:
        """The prunings that lead to this mask: itself first, that of the dense network last."""
        rounds: list[Prune] = [self]
        while isinstance(before := rounds[-1].of.mask, Prune):
            rounds.append(before)
        return rounds

    @property
    def target_density(self) -> float:
        """Nominal density of the mask within its scope, apart from rounding."""
        rounds = self.rounds
        return math.prod(one.keep for one in rounds) * rounds[-1].of.target_density


WITH_GRADIENTS = ("taylor", "snip", "grasp")
"""Criteria that need gradients of the task's loss."""

OF_FILTERS = ("l2", "batchnorm")
"""Criteria of whole filters."""

CRITERIA = ("magnitude", "relative-magnitude", "movement", *WITH_GRADIENTS, "synflow", *OF_FILTERS)
"""Names of criteria; ``catalogue.CRITERIA`` has the code behind each."""

PRUNE_ALLOCATIONS = ("global", "uniform", "erk", "lamp")
UNITS = ("weight", "filter")


def _check_pruning(keep: float, scope: str) -> None:
    _demand(0 < keep < 1, f"keep must be a fraction between 0 and 1, not {keep}")
    known = re.fullmatch("all|convs|convs:[1-9][0-9]*", scope)
    _demand(known is not None, f"scope {scope!r} is not 'all', 'convs', or 'convs:d' with d from 1")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RandomPrune(_Original):
    """A random mask over ``scope`` (the paper's baseline), as sparse as ``level`` rounds of Prune.

    allocation: how many weights stay in each layer. ``global``: chance decides, since all layers are drawn from
        together. ``erk``: small layers keep more (Erdős-Rényi-Kernel, Evci et al. 2020; see ``masks.erk``).
    nonzero: a dense training whose natural zeros are all pruned (paper 4.3, the adjusted baseline); if too few weights
        are nonzero, just these stay.
    """

    VERSION: ClassVar[int] = 1
    arch: str
    data: str
    keep: float
    level: int
    seed: int
    scope: str = "all"
    nonzero: Train | None = None
    allocation: str = "global"

    def check(self) -> None:
        _check_pruning(self.keep, self.scope)
        _demand(self.level >= 0, f"level must be 0 or more, not {self.level}")
        _demand(
            self.allocation in ALLOCATIONS,
            f"allocation {self.allocation!r:.80} is not one of {', '.join(ALLOCATIONS)}",
        )
        _demand(
            self.nonzero is None or self.allocation == "global",
            f"allocation {self.allocation!r} can't avoid natural zeros, since a layer may have too few other weights: "
            "leave out nonzero",
        )

    @property
    def target_density(self) -> float:
        """Nominal density of the mask within its scope, apart from rounding and natural zeros."""
        return self.keep**self.level


ALLOCATIONS = ("global", "erk")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Shuffle(Step):
    """A mask with its entries permuted within each layer: the control that keeps only the layers' densities."""

    VERSION: ClassVar[int] = 1
    of: Prune | RandomPrune | Imported
    seed: int

    def check(self) -> None:
        whole = isinstance(self.of, Prune) and self.of.unit == "filter"
        _demand(not whole, "a mask of whole filters can't be shuffled weight by weight")

    @property
    def origin(self) -> Prune | RandomPrune | Imported:
        """The mask that is shuffled."""
        return self.of

    @property
    def arch(self) -> str:
        """Architecture of the network that the mask is for."""
        return self.of.arch

    @property
    def scope(self) -> str:
        """Layers that the mask prunes, as in Prune."""
        return self.of.scope

    @property
    def target_density(self) -> float:
        """Density of the shuffled mask: permuting entries does not change it."""
        return self.of.target_density


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class External(Step):
    """A step from outside the package. No job makes it: a command puts it into the store.

    channels: number of channels of the images that ``arch`` takes. digest: SHA-256 of the content.
    """

    VERSION: ClassVar[int] = 1
    CONTENT: ClassVar[str]
    COMMAND: ClassVar[str]
    arch: str
    channels: int
    digest: str

    def check(self) -> None:
        _demand(self.channels > 0, f"channels must be at least 1, not {self.channels}")
        _demand(
            re.fullmatch("[0-9a-f]{64}", self.digest) is not None,
            f"a digest has 64 hexadecimal digits in lower case, not {self.digest!r:.80}",
        )

    @property
    def line(self) -> str:
        """This step as an expression for a sweep file."""
        return f'{type(self).__name__}(arch="{self.arch}", channels={self.channels}, digest="{self.digest}")'

    def missing_in(self, root: str) -> str:
        """Error message for the store at ``root``, which lacks this step."""
        are, them = ("are", "them") if self.CONTENT.endswith("s") else ("is", "it")
        return (
            f"the imported {self.arch} {self.CONTENT} {self.digest[:8]} (step {self.id}) {are} missing in {root}; "
            f"import {them}: raysslprune {self.COMMAND} FILE --arch {self.arch} --root {shlex.quote(root)}"
        )


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class ImportedWeights(External):
    """Weights of a trunk that was trained elsewhere, put into the store by ``raysslprune import-weights``.

    They are pruned by ``Prune(of=...)``, and trainings start from them by ``Final(of=...)``, as from the final weights
    of a dense training. digest: by masks.digest_of_weights.
    """

    CONTENT: ClassVar[str] = "weights"
    COMMAND: ClassVar[str] = "import-weights"
    mask: ClassVar[None] = None
    target_density: ClassVar[float] = 1.0


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Imported(External, _Original):
    """A mask from outside the package, put into the store by ``raysslprune import-mask``. digest: by masks.digest."""

    CONTENT: ClassVar[str] = "mask"
    COMMAND: ClassVar[str] = "import-mask"

    @property
    def scope(self) -> str:
        """All layers: nothing more is known about an imported mask."""
        return "all"

    @property
    def target_density(self) -> float:
        """NaN: the density is known only after the mask is read."""
        return math.nan


Mask = Prune | RandomPrune | Shuffle | Imported


def network_of(mask: Mask) -> Train | RandomPrune | External:
    """Return the step that says for which network a mask is: its architecture, and its data or number of channels."""
    return mask.origin.of if isinstance(mask.origin, Prune) else mask.origin


NATURAL_SPARSITIES = {
    "natural_sparsity": 2.0**-23,
    **{f"natural_sparsity_{zero}": float(zero) for zero in ("1e-30", "1e-20", "1e-12", "1e-9", "1e-6")},
}
"""Metrics of weights that vanish without pruning (paper 4.3), and the largest magnitude that each counts as zero.

The first threshold is float32's machine precision, as in the paper, which says no more about it.
"""


def reads_end(mask: Mask) -> bool:
    """Return whether a mask is made from the final weights of a training."""
    match mask:
        case Prune(at=at):
            return at is None
        case RandomPrune(nonzero=nonzero):
            return nonzero is not None
        case _:
            return False


def survivors(left: int, keep: float) -> int:
    """Number of weights that stay if the fraction ``keep`` of ``left`` stays: rounded to nearest, ties to even."""
    return round(left * keep)


def seed_of(*key: object) -> int:
    """A 63-bit seed that depends on every part of ``key`` and on nothing else, such as process or order of calls."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


# ------------------------------------------------------------------------------------- plain data


def to_plain(step: Step) -> dict[str, Any]:
    """The step as JSON data: its fields that differ from their defaults, its parents by id.

    This form is hashed, stored in ``spec.json`` and sent to workers.
    """
    return {"kind": type(step).__name__, "version": step.VERSION, **_fields(step)}


def dump(steps: Iterable[Step]) -> dict[str, dict[str, Any]]:
    """The steps and all their ancestors as JSON data by id, parents before children."""
    return {step.id: to_plain(step) for step in closure(steps)}


def load(graph: dict[str, dict[str, Any]]) -> dict[str, Step]:
    """The inverse of :func:`dump`. Raises ValueError if an id does not match its step."""
    steps: dict[str, Any] = {}
    for step_id, plain in graph.items():
        step = _build(plain, steps)
        assert isinstance(step, Step)
        if step.id != step_id or plain["version"] != step.VERSION:
            raise ValueError(f"step {step_id} was made by another version of raysslprune")
        steps[step_id] = step
    return steps


def read_by(step: Step) -> tuple[Step, ...]:
    """The steps whose results are needed to make a step.

    These are its parents, except for a mask that judges the weights with which a training begins: it needs only what
    that training needs.
    """
    of = _judged_at_start(step)
    if of is None:
        return step.parents
    start = of.first_start
    needed = None if isinstance(start, Init) else start.of, of.mask
    return tuple(one for one in needed if one is not None)


def not_read(step: Step) -> tuple[Train, ...]:
    """The trainings of which a step needs the description only: see :func:`read_by`."""
    found: list[Train] = []
    of = _judged_at_start(step)
    while of is not None:
        found.append(of)
        of = of.begins_as
    return tuple(found)


def _judged_at_start(step: Step) -> Train | None:
    """Return the training whose first state a mask is made from; None for other steps."""
    if isinstance(step, Prune) and step.judges_start and isinstance(step.of, Train):
        return step.of
    return None


def closure(
    steps: Iterable[Step], parents: Callable[[Step], tuple[Step, ...]] = lambda step: step.parents
) -> list[Step]:
    """The steps and all that they depend on, each once, every parent before its children.

    parents: what a step depends on; :func:`read_by` leaves out trainings that nothing reads.
    """
    seen: dict[Step, None] = {}
    stack: list[tuple[Step, bool]] = [(step, False) for step in reversed(list(steps))]
    while stack:  # iterative: a chain of hundreds of rounds must not hit the recursion limit
        step, parents_done = stack.pop()
        if step in seen:
            continue
        if parents_done:
            seen[step] = None
        else:
            stack.append((step, True))
            stack.extend((parent, False) for parent in reversed(parents(step)))
    return list(seen)


_declared = cache(dataclasses.fields)


def _fields(value: Any) -> dict[str, Any]:
    plain = {}
    for field in _declared(type(value)):
        item = getattr(value, field.name)
        if item != field.default:
            plain[field.name] = _plain(item)
    return plain


def _plain(item: Any) -> Any:
    """Convert a field to JSON data. Whole floats become ints: 1 and 1.0 are equal, so they must be the same step."""
    if isinstance(item, Step):
        return {"step": item.id}
    if isinstance(item, _Value):
        return item.plain
    if isinstance(item, tuple):
        return [_plain(part) for part in item]
    return int(item) if isinstance(item, float) and item.is_integer() else item


def _build(plain: dict[str, Any], steps: dict[str, Step]) -> Any:
    def item(value: Any) -> Any:
        if isinstance(value, dict):
            return steps[value["step"]] if "step" in value else _build(value, steps)
        return tuple(item(part) for part in value) if isinstance(value, list) else value

    kind = _KINDS[plain.get("kind") or plain["value"]]
    return kind(**{k: item(v) for k, v in plain.items() if k not in ("kind", "value", "version")})


def _steps_in(value: Any) -> Iterator[Step]:
    for field in _declared(type(value)):
        item = getattr(value, field.name)
        if isinstance(item, Step):
            yield item
        elif isinstance(item, (Rewind, Final)):
            yield item.of


def _demand(condition: bool, sentence: str) -> None:
    if not condition:
        raise ValueError(sentence)


def check_types(value: Any, types: Mapping[str, Fit] | None = None) -> None:
    """Raise ValueError for a field not of its declared type, TypeError for an unknown type. Convert NumPy's integers.

    Equal values must have one identity: 1 and True are equal, but hash to different ids. Unusable values must be found
    before training.
    """
    for field in _declared(type(value)):
        item = getattr(value, field.name)
        kind = str(field.type)
        if kind not in (types or _TYPES):
            raise TypeError(f"{type(value).__name__}.{field.name}: check_types has no check for the annotation {kind}")
        fits, wanted = (types or _TYPES)[kind]
        if not fits(item):
            if isinstance(item, Integral) and not isinstance(item, int) and fits(int(item)):
                object.__setattr__(value, field.name, int(item))
                continue
            raise ValueError(f"{field.name} of {type(value).__name__} must be {wanted}, not {item!r:.80}")


def _check_finite(value: Any) -> None:
    """Raise ValueError for a float, alone or in a tuple, that is infinite or NaN."""
    for field in _declared(type(value)):
        item = getattr(value, field.name)
        for number in item if isinstance(item, tuple) else (item,):
            finite = not isinstance(number, float) or math.isfinite(number)
            _demand(finite, f"{field.name} of {type(value).__name__} must be finite, not {number!r}")


Fit = tuple[Callable[[object], bool], str]
"""A test of a field's values, and a name for the values that pass it."""


def is_text(item: object) -> bool:
    """Return whether the item is text that can be written to a file; a lone surrogate cannot."""
    if not isinstance(item, str):
        return False
    try:
        item.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_whole(item: object) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and -(2**63) <= item < 2**63


def is_number(item: object) -> bool:
    """Return whether the item is a number. JSON returns whole floats as integers of any size."""
    whole = isinstance(item, int) and not isinstance(item, bool) and abs(item) <= sys.float_info.max
    return whole or isinstance(item, float)


def _option(item: object) -> bool:
    if not (isinstance(item, tuple) and len(item) == 2 and is_text(item[0])):
        return False
    return is_text(item[1]) or isinstance(item[1], bool | int | float)


def _are_options(item: object) -> bool:
    pairs = tuple(item.items()) if isinstance(item, Mapping) else item
    return isinstance(pairs, tuple) and all(map(_option, pairs))


def one_of(*kinds: type) -> Callable[[object], bool]:
    return lambda item: isinstance(item, kinds)


def all_of(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda item: isinstance(item, tuple) and all(map(fits, item))


_TYPES: Mapping[str, Fit] = {
    "int": (is_whole, "a whole number"),
    "int | None": (lambda item: item is None or is_whole(item), "a whole number or None"),
    "float": (is_number, "a number"),
    "str": (is_text, "text"),
    "bool": (one_of(bool), "True or False"),
    "tuple[int, ...]": (all_of(is_whole), "a tuple of whole numbers"),
    "tuple[float, ...]": (all_of(is_number), "a tuple of numbers"),
    "Options": (_are_options, "a mapping from names to values"),
    "Recipe | SVM": (one_of(Recipe, SVM), "a Recipe or an SVM"),
    "Start": (one_of(Init, Rewind, Final), "an Init, a Rewind or a Final"),
    "Train": (one_of(Train), "a Train"),
    "Train | ImportedWeights": (one_of(Train, ImportedWeights), "a Train or ImportedWeights"),
    "Train | None": (one_of(Train, type(None)), "a Train or None"),
    "Prune | RandomPrune | Imported": (one_of(Prune, RandomPrune, Imported), "a mask that is not shuffled"),
    "Mask": (one_of(Prune, RandomPrune, Shuffle, Imported), "a mask"),
    "Mask | None": (one_of(Prune, RandomPrune, Shuffle, Imported, type(None)), "a mask or None"),
}
"""Tests of the fields above, by declared type."""


_KINDS: dict[str, Callable[..., Any]] = {
    kind.__name__: kind
    for kind in (
        *(Recipe, SVM, Init, Rewind, Final),
        *(Train, Prune, RandomPrune, Shuffle, Imported, ImportedWeights),
    )
}
