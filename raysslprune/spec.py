"""The nouns: what is trained, what is pruned, from which weights, with which seed.

Everything that a result depends on is a frozen value in this file, and nothing else is: the number
of GPUs, paths and logging are not in these types, so they cannot change an identity by accident.

A *step* is a node of the graph that a sweep asks for. Its ``id`` is a hash of its kind, the version
of that kind's meaning, the fields that differ from their defaults, and its parents' ids. Two figures
that ask for the same step therefore name the same directory of the store, and it is made once.

Standard library only: a sweep file imports in milliseconds.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from numbers import Integral
from typing import TYPE_CHECKING, Any, ClassVar

# ------------------------------------------------------------------------------------- values


class _Shared:
    """What thousands of steps have in common, so that its JSON data is made once."""

    @cached_property
    def plain(self) -> dict[str, Any]:
        return {"value": type(self).__name__, **_fields(self)}


@dataclass(frozen=True, kw_only=True)
class Recipe(_Shared):
    """How a network is trained: a row of the paper's Appendix D.

    All lengths are in *samples seen*, the one unit of progress; epochs and updates are derived.

    samples: length of the whole training.
    batch: samples in one optimiser update.
    optimizer: ``sgd``, ``adam`` (L2 coupled, as the paper's CIFAR-10 runs) or ``adamw``.
    schedule: ``constant``, ``cosine`` (to 0 at the end), or ``steps`` (divided by 10 at each of ``decay_at``).
    warmup: samples over which the learning rate rises linearly from 0.
    bn_batch: samples whose BatchNorm statistics are taken together (the paper's samples per GPU); an update's gradient
        is accumulated over ``batch / bn_batch`` of these. 0: the whole batch. In-batch negatives are drawn from it too.
    pad, flip: random shift by up to ``pad`` pixels (zero padding, then a crop of the image's size) and
        horizontal flip. crop: random resized crop of at least this fraction of the image's area, 0 for none.
    angle: random rotation by up to so many degrees. jitter: brightness, contrast, saturation (factors in
        ``1 ± strength``) and hue (in turns of the colour wheel), in this order. grayscale: probability.
        All are drawn anew for each view of each sample in each epoch, and applied in the order shift or crop, flip,
        angle, jitter, grayscale.
    precision: ``float32``, or ``bf16``: the network in bfloat16 where that is safe (autocast), weights and loss in
        float32.
    options: of the task, by name, where they are not its defaults, as ``(("margin", 0.5),)``; sorted by name.
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
    options: tuple[tuple[str, Option], ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "options", tuple(sorted(self.options, key=lambda option: option[0])))
        _demand(self.samples > 0, f"a recipe needs samples > 0, not {self.samples}")
        _demand(self.batch > 1, f"a recipe needs batch > 1 (batch-norm), not {self.batch}")
        _demand(self.lr > 0, f"a recipe needs lr > 0, not {self.lr}")
        _demand(
            self.optimizer in OPTIMIZERS,
            f"optimizer {self.optimizer!r} is not one of {', '.join(OPTIMIZERS)}",
        )
        _demand(
            self.schedule in SCHEDULES,
            f"schedule {self.schedule!r} is not one of {', '.join(SCHEDULES)}",
        )
        _demand(
            self.precision in PRECISIONS,
            f"precision {self.precision!r} is not one of {', '.join(PRECISIONS)}",
        )
        _demand(not self.nesterov or self.momentum > 0, "nesterov needs momentum > 0")
        _demand(
            bool(self.decay_at) == (self.schedule == "steps"),
            "decay_at goes with schedule 'steps', and 'steps' needs decay_at",
        )
        _demand(
            self.weight_decay >= 0 and self.warmup >= 0 and self.pad >= 0,
            "weight_decay, warmup and pad can't be negative",
        )
        _demand(
            self.bn_batch == 0 or (self.bn_batch > 1 and self.batch % self.bn_batch == 0),
            f"bn_batch must divide the batch of {self.batch} and be at least 2, not {self.bn_batch}",
        )
        _demand(0 <= self.crop <= 1, f"crop is a fraction of the image's area, not {self.crop}")
        _demand(not (self.crop and self.pad), "a recipe shifts by pad or crops, not both")
        _demand(0 <= self.angle <= 180, f"angle is from 0 to 180 degrees, not {self.angle}")
        _demand(0 <= self.grayscale <= 1, f"grayscale is a probability, not {self.grayscale}")
        _demand(
            len(self.jitter) in (0, 4) and all(0 <= strength <= 1 for strength in self.jitter),
            "jitter is four strengths from 0 to 1: brightness, contrast, saturation, hue",
        )
        _demand(not self.jitter or self.jitter[3] <= 0.5, "hue jitter is at most half a turn of the colour wheel")
        names = [name for name, _ in self.options]
        _demand(len(set(names)) == len(names), f"an option is given twice: {', '.join(names)}")
        _check_finite(self)

    @property
    def parts(self) -> int:
        """Into how many parts a batch falls whose statistics are taken together: workers that can share it, at most."""
        return self.batch // self.bn_batch if self.bn_batch else 1


Option = bool | int | float | str

OPTIMIZERS = ("sgd", "adam", "adamw")
PRECISIONS = ("float32", "bf16")
SCHEDULES = ("constant", "cosine", "steps")


@dataclass(frozen=True, kw_only=True)
class SVM(_Shared):
    """Linear SVMs on frozen features instead of gradient descent: one for each class against the others.

    The benchmark of Goyal et al. 2019 (https://arxiv.org/abs/1905.01235): features divided by their length, squared
    hinge loss, and for each class the cost among ``costs`` with the best average precision in ``folds``-fold
    cross-validation.
    positive_weight: how much more a sample of the class counts than one of the others.
    """

    costs: tuple[float, ...]
    folds: int = 3
    positive_weight: float = 2.0
    tolerance: float = 1e-4
    iterations: int = 2000

    samples: ClassVar[int] = 0
    parts: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "costs", tuple(sorted(self.costs)))
        _demand(bool(self.costs) and self.costs[0] > 0, "an SVM needs costs, all above 0")
        _demand(self.folds > 1, f"cross-validation needs 2 folds or more, not {self.folds}")
        _check_finite(self)


@dataclass(frozen=True, kw_only=True)
class Init:
    """Weights drawn from the initialisation distribution. ``draw`` tells independent draws of one seed apart."""

    seed: int
    draw: int = 0

    def __post_init__(self) -> None:
        check_types(self)


@dataclass(frozen=True, kw_only=True)
class Rewind:
    """The state of training ``of`` after ``samples`` samples, BatchNorm statistics too (paper 3.1 and Appendix A).

    Training goes on from that position of the schedule and of the data order, with a fresh optimiser.
    """

    of: Train
    samples: int

    def __post_init__(self) -> None:
        check_types(self)
        _demand(
            self.of.first_sample <= self.samples <= self.of.recipe.samples,
            f"can't rewind to {self.samples} samples of a training from {self.of.first_sample} "
            f"to {self.of.recipe.samples}",
        )


@dataclass(frozen=True, kw_only=True)
class Final:
    """The trunk as training ``of`` left it, to transfer to another task or data set; the head is drawn anew."""

    of: Train

    def __post_init__(self) -> None:
        check_types(self)


Start = Init | Rewind | Final

# ------------------------------------------------------------------------------------- steps


class Step:
    """A node of the graph. Equal ids mean equal steps; both hash and equality are the id's.

    id: 16 hex digits, stable across processes, field order, and new fields at their default. Made together with the
    step, when its parents' are there, so that no chain is too long.
    """

    VERSION: ClassVar[int]

    def __post_init__(self) -> None:
        check_types(self)
        self.check()
        spent = any(isinstance(step, Train) and isinstance(step.recipe, SVM) for step in self.parents)
        _demand(not spent, "SVMs leave no network to start from or to prune")
        text = json.dumps(to_plain(self), sort_keys=True, separators=(",", ":"))
        object.__setattr__(self, "id", hashlib.sha256(text.encode()).hexdigest()[:16])

    if TYPE_CHECKING:
        id: str

    def check(self) -> None:
        """Raise ValueError where a field's value makes no sense."""

    @cached_property
    def parents(self) -> tuple[Step, ...]:
        """The steps that this one reads from, each once."""
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

    seed: of the data order, the augmentation, and of a head that ``start`` does not bring along.
    start: where the weights come from. A Rewind whose training has the same task and data brings its
        head along; from any other task only the trunk comes and the head is drawn anew.
    mask: which weights of the trunk stay; the others are exactly 0 throughout. None: all stay.
    trunk_frozen: train the head alone, on the features of a trunk that is in evaluation mode (a linear classifier).
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

    def check(self) -> None:
        if isinstance(self.recipe, SVM):
            _demand(self.trunk_frozen and self.task == "labels", "SVMs are for labels on a frozen trunk")
        else:
            _demand(
                self.first_sample < self.recipe.samples,
                f"nothing is left to train: the recipe ends at {self.recipe.samples} samples, where it would begin",
            )
        mask = self.mask
        while isinstance(mask, Shuffle):
            mask = mask.of
        if isinstance(mask, Imported):
            _demand(mask.arch == self.arch, f"the imported mask is of {mask.arch}, and not of {self.arch}")

    @property
    def first_sample(self) -> int:
        """Where in the recipe's schedule and data order this training begins."""
        return self.start.samples if isinstance(self.start, Rewind) else 0

    @property
    def keeps_head(self) -> bool:
        """Whether the starting weights include a head for this task."""
        start = self.start
        return isinstance(start, Rewind) and (start.of.task, start.of.data) == (self.task, self.data)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Prune(Step):
    """Global magnitude pruning (Han et al.; paper 3.1): drop the smallest weights of a finished training.

    Of the weights that are left in ``scope``, ``keep`` (a fraction) stay: exactly
    ``survivors(left, keep)``, ranked by (magnitude, position).

    scope: ``all`` (every convolution and fully-connected layer of the trunk), ``convs``, or
        ``convs:3`` (the first three convolutions only).
    """

    VERSION: ClassVar[int] = 1
    of: Train
    keep: float
    scope: str = "all"

    def check(self) -> None:
        _demand(0 < self.keep < 1, f"keep is a fraction between 0 and 1, not {self.keep}")
        _demand(
            re.fullmatch(SCOPES, self.scope) is not None,
            f"scope {self.scope!r} is not 'all', 'convs', or 'convs:d' with d from 1",
        )


SCOPES = "all|convs|convs:[1-9][0-9]*"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class RandomPrune(Step):
    """A mask over ``scope`` (as in Prune) at random (the paper's baseline), as sparse as ``level`` rounds of Prune.

    nonzero: a dense training whose natural zeros are never among the weights that stay (paper 4.3, the adjusted
        baseline); where fewer weights than wanted are not zero, those are what stays.
    """

    VERSION: ClassVar[int] = 1
    arch: str
    data: str
    keep: float
    level: int
    seed: int
    scope: str = "all"
    nonzero: Train | None = None

    def check(self) -> None:
        _demand(0 < self.keep < 1, f"keep is a fraction between 0 and 1, not {self.keep}")
        _demand(
            re.fullmatch(SCOPES, self.scope) is not None,
            f"scope {self.scope!r} is not 'all', 'convs', or 'convs:d' with d from 1",
        )
        _demand(self.level >= 0, f"a level is a number of prunings, not {self.level}")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Shuffle(Step):
    """A mask with its entries permuted within each layer: the control that keeps only the layers' densities."""

    VERSION: ClassVar[int] = 1
    of: Mask
    seed: int


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Imported(Step):
    """A mask that was found elsewhere. No job makes it: ``raysslprune import-mask`` puts it into the store.

    channels: of the images that ``arch`` takes. digest: SHA-256 of what the mask says, as masks.digest has it.
    """

    VERSION: ClassVar[int] = 1
    arch: str
    channels: int
    digest: str

    def check(self) -> None:
        _demand(self.channels > 0, f"a network takes images with channels, not {self.channels}")
        _demand(
            re.fullmatch("[0-9a-f]{64}", self.digest) is not None,
            f"a digest is 64 hexadecimal digits in lower case, not {self.digest!r:.80}",
        )

    def missing_in(self, root: str) -> str:
        """What to say where it is not there."""
        return (
            f"the {self.arch} mask {self.digest[:8]} (step {self.id}) is from elsewhere, and not in {root}: put it "
            f"there by raysslprune import-mask FILE --arch {self.arch} --root {root}"
        )


Mask = Prune | RandomPrune | Shuffle | Imported


def survivors(left: int, keep: float) -> int:
    """How many of ``left`` weights stay when the fraction ``keep`` is kept: rounded to nearest, ties to even."""
    return round(left * keep)


def seed_of(*key: object) -> int:
    """A 63-bit seed that depends on every part of ``key`` and on nothing else (no process, no order)."""
    digest = hashlib.sha256(json.dumps(key).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


# ------------------------------------------------------------------------------------- plain data


def to_plain(step: Step) -> dict[str, Any]:
    """The step as JSON data: its fields that differ from their defaults, its parents by id.

    This is what is hashed, what stands in ``spec.json``, and what travels to a worker.
    """
    return {"kind": type(step).__name__, "version": step.VERSION, **_fields(step)}


def dump(steps: Iterable[Step]) -> dict[str, dict[str, Any]]:
    """Those steps and all their ancestors as JSON data by id, parents before children."""
    return {step.id: to_plain(step) for step in closure(steps)}


def load(graph: dict[str, dict[str, Any]]) -> dict[str, Step]:
    """The inverse of :func:`dump`. Raises ValueError where an id does not match what it names."""
    steps: dict[str, Any] = {}
    for step_id, plain in graph.items():
        step = _build(plain, steps)
        assert isinstance(step, Step)
        if step.id != step_id or plain["version"] != step.VERSION:
            raise ValueError(f"step {step_id} was made by another version of raysslprune")
        steps[step_id] = step
    return steps


def closure(steps: Iterable[Step]) -> list[Step]:
    """The steps and all that they depend on, each once, every parent before its children."""
    seen: dict[Step, None] = {}
    stack: list[tuple[Step, bool]] = [(step, False) for step in reversed(list(steps))]
    while stack:  # iterative: a chain of hundreds of rounds must not meet the recursion limit
        step, parents_done = stack.pop()
        if step in seen:
            continue
        if parents_done:
            seen[step] = None
        else:
            stack.append((step, True))
            stack.extend((parent, False) for parent in reversed(step.parents))
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
    """Whole floats as whole numbers: 1 and 1.0 are equal, so they must be the same step."""
    if isinstance(item, Step):
        return {"step": item.id}
    if isinstance(item, _Shared):
        return item.plain
    if isinstance(item, (Init, Rewind, Final)):
        return {"value": type(item).__name__, **_fields(item)}
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
    """Raise ValueError for a field of another type than is declared: what is equal must have one identity, as 1 and
    True have not, and what no training can use must be found before one begins. NumPy's integers become Python's.
    """
    for field in _declared(type(value)):
        item = getattr(value, field.name)
        fits, wanted = (types or _TYPES).get(str(field.type), (None, ""))
        if fits and not fits(item):
            if isinstance(item, Integral) and not isinstance(item, int) and fits(int(item)):
                object.__setattr__(value, field.name, int(item))
                continue
            raise ValueError(f"{field.name} of {type(value).__name__} is {wanted}, not {item!r:.80}")


def _check_finite(value: Any) -> None:
    """Raise ValueError for infinity, and for what is no number, where no other check has found it."""
    for field in _declared(type(value)):
        item = getattr(value, field.name)
        for number in item if isinstance(item, tuple) else (item,):
            finite = not isinstance(number, float) or math.isfinite(number)
            _demand(finite, f"{field.name} of {type(value).__name__} must be finite, not {number!r}")


Fit = tuple[Callable[[object], bool], str]
"""Whether a value fits a field, and how what fits is called."""


def is_text(item: object) -> bool:
    """Whether it is text that can be written to a file, as a lone surrogate can not."""
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
    """Whole floats come back from JSON as whole numbers of any size."""
    whole = isinstance(item, int) and not isinstance(item, bool) and abs(item) <= sys.float_info.max
    return whole or isinstance(item, float)


def _option(item: object) -> bool:
    if not (isinstance(item, tuple) and len(item) == 2 and is_text(item[0])):
        return False
    return is_text(item[1]) or (isinstance(item[1], Option) and not isinstance(item[1], str))


def one_of(*kinds: type) -> Callable[[object], bool]:
    return lambda item: isinstance(item, kinds)


def all_of(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda item: isinstance(item, tuple) and all(map(fits, item))


_TYPES: Mapping[str, Fit] = {
    "int": (is_whole, "a whole number"),
    "float": (is_number, "a number"),
    "str": (is_text, "text"),
    "bool": (one_of(bool), "True or False"),
    "tuple[int, ...]": (all_of(is_whole), "a tuple of whole numbers"),
    "tuple[float, ...]": (all_of(is_number), "a tuple of numbers"),
    "tuple[tuple[str, Option], ...]": (all_of(_option), "a tuple of names with their values"),
    "Recipe | SVM": (one_of(Recipe, SVM), "a Recipe or an SVM"),
    "Start": (one_of(Init, Rewind, Final), "an Init, a Rewind or a Final"),
    "Train": (one_of(Train), "a Train"),
    "Train | None": (one_of(Train, type(None)), "a Train or None"),
    "Mask": (one_of(Prune, RandomPrune, Shuffle, Imported), "a mask"),
    "Mask | None": (one_of(Prune, RandomPrune, Shuffle, Imported, type(None)), "a mask or None"),
}
"""Of the fields above, by how they are declared: what fits, and how that is called."""


_KINDS: dict[str, Callable[..., Any]] = {
    kind.__name__: kind for kind in (Recipe, SVM, Init, Rewind, Final, Train, Prune, RandomPrune, Shuffle, Imported)
}


def target_density(mask: Mask | None) -> float:
    """The fraction of what is pruned that a mask leaves, but for rounding and natural zeros. NaN of an imported one."""
    if isinstance(mask, RandomPrune):
        return mask.keep**mask.level
    if isinstance(mask, Imported):
        return math.nan
    if isinstance(mask, Shuffle):
        return target_density(mask.of)
    if mask is None:
        return 1.0
    behind = prunings(mask)
    return math.prod(one.keep for one in behind) * target_density(behind[-1].of.mask)


def prunings(mask: Prune) -> list[Prune]:
    """All that lead to this mask, itself first."""
    behind = [mask]
    while isinstance(before := behind[-1].of.mask, Prune):
        behind.append(before)
    return behind


def unshuffled(step: Mask) -> Prune | RandomPrune | Imported:
    """What a mask is, before any shuffling."""
    while isinstance(step, Shuffle):
        step = step.of
    return step
