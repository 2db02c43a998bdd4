"""Experiments that several figures make, each with other networks: their points, and the paper's claims on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from raysslprune.lottery import from_start, linear, random_prune, random_reinit, shuffled, untrained
from raysslprune.paper.scales import FEW, SETTINGS, Net, Setting
from raysslprune.spec import NATURAL_SPARSITIES, Init, Mask, Prune, Shuffle, Train
from raysslprune.sweepfile import Claim, Curve, Dense, Point

TICKET = "winning ticket"
"""Init of a subnetwork that starts from the weights its chain was rewound to."""

REINIT = "random re-init"
"""Init of a subnetwork that starts from newly drawn weights."""

RANDOM = "random"
"""Name of random masks, drawn over the whole network."""

NONZERO = "random nonzero"
"""Name of random masks that avoid the natural zeros of the dense network (paper 4.3)."""

ERK = "random erk"
"""Name of random masks whose layers' densities follow from the layers' shapes (Evci et al. 2020)."""

SHUFFLED = {"shuffled labels": "labels", "shuffled rotnet": "rotnet"}
"""Names of controls whose masks are shuffled within each layer, and the tasks that these are pruned on."""

CONTROLS = (*SHUFFLED, ERK)
"""Masks that are not in the paper."""

BASELINES = tuple(Curve(task=task, init=REINIT) for task in (RANDOM, NONZERO))
"""The paper's random masks: the plain ones, and those adjusted for natural zeros (4.3), if the network has any."""

PROPER_NAMES = {
    "rotnet": "RotNet",
    "exemplar": "Exemplar",
    "npid": "NPID",
    "s4l": "S4L",
    "simclr": "SimCLR",
    "moco": "MoCo v2",
    "byol": "BYOL",
    "vicreg": "VICReg",
}
"""Names of tasks as their authors write them, for prose."""

# ------------------------------------------------------------------------------------- Figure 1

TRAINED = "pre-trained"
"""Features of the trained network."""

UNTRAINED = "untrained"
"""Features of the weights that a network's chain began with, under the same mask."""

ANEW = "untrained, drawn anew"
"""Features of other untrained weights, under the same mask."""

DENSE_FEATURES = tuple(Curve(task="labels", init=init) for init in (TRAINED, UNTRAINED))
"""Features of the dense networks that are trained on labels, and on nothing."""


def judged_features(s: Setting, levels: Mapping[str, Sequence[int]], *, seed: int) -> Iterator[Point]:
    """Linear classifiers on frozen features of chains, and on untrained weights under the same masks (paper 4.1).

    levels: numbers of prunings to judge by task, in order; 0 is judged too. Also judged are the dense network of labels
    and its untrained weights.
    """
    judges = {TRAINED: linear, UNTRAINED: untrained, ANEW: partial(untrained, draw=1)}

    def points(step: Train, task: str, level: int, inits: Iterable[str]) -> Iterator[Point]:
        for probe in s.linear:
            for init in inits:
                judged = judges[init](step, data=probe.data, recipe=probe.recipe)
                place = {"panel": probe.title, "task": task, "init": init, "level": level, "metric": probe.metric}
                yield Point(step=judged, seed=seed, **place)

    for task, drawn in levels.items():
        chain = s.imp(task, seed=seed, levels=max(drawn) + 1, keep=s.keep)
        for level in (0, *drawn):
            yield from points(chain.rounds[level], task, level, judges)
    labels = s.imp("labels", seed=seed, levels=1, keep=s.keep).dense
    yield from points(labels, "labels", 0, (TRAINED, UNTRAINED))


def claims_on_features(task: str, margin: float, severely: bool = True) -> Iterator[Claim]:
    """Claims of section 4.1 on a task, and that its features are better than untrained ones. margin: of the scale.

    severely: True if the chain is pruned below 5%; if not, the claim is the paper's on NPID.
    """
    trained, name, source = Curve(task=task, init=TRAINED), PROPER_NAMES[task], "section 4.1"
    moderate, severe, dense = (0.1, 1.0), (0.0, 0.05), Dense(curve=trained)
    compared = partial(Claim, source=source, within=moderate)
    yield compared(
        says=f"Pruning up to 90% does not deteriorate {name}'s features",
        higher=trained,
        lower=dense,
        relation="not worse",
        margin=margin,
        at="each",
    )
    if severely:
        says = f"Pruning up to 90% even improves {name}'s features slightly"
        yield compared(says=says, higher=trained, lower=dense, relation="above")
    else:
        says = f"{name}'s features remain as good as unpruned ones when up to 90% is pruned, and become no better"
        yield compared(says=says, higher=trained, lower=dense, relation="equal", margin=margin, at="each")
    for init, weights in ((UNTRAINED, "untrained weights"), (ANEW, "untrained weights drawn anew")):
        yield compared(
            says=f"What {name} has learned exceeds {weights} under the same masks",
            source="not in the paper",
            higher=trained,
            lower=Curve(task=task, init=init),
            relation="above",
        )
    if severely:
        says = f"With less than 5% of the weights {name}'s features are significantly worse"
        yield compared(says=says, higher=dense, lower=trained, relation="above", within=severe)


# ------------------------------------------------------------------------------------- Figures 3 and 8


def retrained(net: Net, tasks: Sequence[str], *, seed: int, levels: Sequence[int], keep: float) -> Iterator[Point]:
    """The masks of chains on ``tasks``, re-trained on labels as winning tickets and from random weights (paper 4.2.1).

    For comparison: random masks; random masks that avoid natural zeros, if the network has any; masks shuffled within
    each layer, which keep only the layers' densities; and random masks whose layers' densities follow from the layers'
    shapes alone (ERK). ``tasks`` must include labels.
    """
    labels = net.recipes["labels"]
    chains = {task: net.imp(task, seed=seed, levels=max(levels), keep=keep) for task in tasks}
    dense = chains["labels"].dense
    yield Point(step=dense, panel=net.title, task="labels", init=TICKET, level=0, seed=seed)
    for level in levels:
        masks: dict[str, Mask | None] = {task: chain.masks[level] for task, chain in chains.items()}
        masks[RANDOM] = random_prune(like=dense, keep=keep, level=level)
        if net.natural_zeros:
            masks[NONZERO] = random_prune(like=dense, keep=keep, level=level, nonzero=dense)
        masks |= {name: shuffled(chains[task], level) for name, task in SHUFFLED.items() if task in chains}
        masks[ERK] = random_prune(like=dense, keep=keep, level=level, allocation="erk")
        for task, mask in masks.items():
            again = random_reinit(mask, like=dense, task="labels", recipe=labels)
            yield Point(step=again, panel=net.title, task=task, init=REINIT, level=level, seed=seed)
        for task, chain in chains.items():
            ticket = net.ticket(chain, level)
            yield Point(step=ticket, panel=net.title, task=task, init=TICKET, level=level, seed=seed)


def claims_on_labels(margin: float) -> Iterator[Claim]:
    """Claims of section 4.2.1 on masks pruned on labels, and one on their control. margin: that of the scale."""
    yield _above(
        "For masks pruned on labels, winning tickets are significantly better than random re-init",
        Curve(task="labels", init=TICKET),
        Curve(task="labels", init=REINIT),
    )
    yield _as_good(
        "At moderate pruning rates random pruning is competitive with pruning on labels",
        Curve(task=RANDOM, init=REINIT),
        Curve(task="labels", init=REINIT),
        margin,
        relation="not worse",
        within=(0.3, 1.0),
    )
    yield from _claims_on_control("labels")


def claims_on(task: str, nets: Iterable[Net], margin: float) -> Iterator[Claim]:
    """Claims of section 4.2.1 on masks pruned on a self-supervised task, and one on their control if there is one.

    The random baseline of each network is the one that is adjusted for natural zeros if the network has any (4.3).
    Ranges of densities are ours. margin: that of the scale.
    """
    ticket, reinit = Curve(task=task, init=TICKET), Curve(task=task, init=REINIT)
    baselines, name = [_baseline(net) for net in nets], PROPER_NAMES.get(task, task)
    yield _as_good(
        f"Randomly re-initialised, masks pruned on {name} match those pruned with labels",
        reinit,
        Curve(task="labels", init=REINIT),
        margin,
    )
    yield _above(
        f"Winning tickets found on {name} are significantly below those found with labels",
        Curve(task="labels", init=TICKET),
        ticket,
    )
    yield _as_good(
        f"For masks pruned on {name}, winning tickets give a slight boost, or none, over random re-init",
        ticket,
        reinit,
        margin,
        relation="not worse",
    )
    for words, random in baselines:
        says = f"Winning tickets found on {name} remain way above {words}"
        yield _above(says, replace(ticket, panel=random.panel), random)
    for words, random in baselines:
        says = f"The gap between {name} and {words} increases when the network is severely pruned"
        higher = replace(reinit, panel=random.panel)
        yield Claim(says=says, source=_SOURCE, higher=higher, lower=random, relation="widens", within=(0.01, 0.6))
    yield from _claims_on_control(task)


_SOURCE = "section 4.2.1"


def _baseline(net: Net) -> tuple[str, Curve]:
    """Return the random baseline that masks of a network are compared with: its name in a sentence, and its curve."""
    if net.natural_zeros:
        return "random pruning adjusted for natural zeros", Curve(task=NONZERO, init=REINIT, panel=net.title)
    return "random pruning", Curve(task=RANDOM, init=REINIT, panel=net.title)


def _claims_on_control(task: str) -> Iterator[Claim]:
    """Yield the claim that masks are better than their shuffle: that positions matter, not only layers' densities."""
    for control in (name for name, of in SHUFFLED.items() if of == task):
        says = (
            f"Masks pruned on {PROPER_NAMES.get(task, task)} are better than the same masks shuffled within each layer"
        )
        pair = Curve(task=task, init=REINIT), Curve(task=control, init=REINIT)
        yield _above(says, *pair, source="not in the paper")


def _above(says: str, higher: Curve, lower: Curve, source: str = _SOURCE) -> Claim:
    return Claim(says=says, source=source, higher=higher, lower=lower, relation="above", within=(0.005, 0.3))


def _as_good(
    says: str,
    higher: Curve,
    lower: Curve,
    margin: float,
    relation: str = "equal",
    within: tuple[float, float] = (0.02, 0.6),
) -> Claim:
    """Make a claim that must be true at each density: a mean over densities would let a gain hide a loss."""
    return Claim(
        says=says,
        source=_SOURCE,
        higher=higher,
        lower=lower,
        relation=relation,
        margin=margin,
        at="each",
        within=within,
    )


# ------------------------------------------------------------------------------------- Figures 4 and 9


def pruned_to_depth(
    net: Net, depths: dict[str, str], tasks: Sequence[str], *, seed: int, levels: Sequence[int], keep: float
) -> Iterator[Point]:
    """Winning tickets with only the first layers pruned (paper 4.2.1 and Appendix B), and random masks of these layers.

    depths: scope of each panel, as in Prune, by the panel's title; from shallow to deep.
    """
    labels = net.recipes["labels"]
    for title, scope in depths.items():
        rounds = max(levels)
        chains = {task: net.imp(task, seed=seed, levels=rounds, keep=keep, scope=scope) for task in ("labels", *tasks)}
        dense = chains["labels"].dense
        yield Point(step=dense, panel=title, task="labels", init=TICKET, level=0, seed=seed)
        for level in levels:
            for task, chain in chains.items():
                yield Point(step=net.ticket(chain, level), panel=title, task=task, init=TICKET, level=level, seed=seed)
            mask = random_prune(like=dense, keep=keep, level=level, scope=scope)
            again = random_reinit(mask, like=dense, task="labels", recipe=labels)
            yield Point(step=again, panel=title, task=RANDOM, init=REINIT, level=level, seed=seed)


def claims_on_depth(task: str) -> Iterator[Claim]:
    """Claims of the paper on the gap between labels and a self-supervised task."""
    name = PROPER_NAMES.get(task, task)
    yield Claim(
        says=f"The gap between labels and {name} is narrow in the first layers and widens with depth",
        source="section 4.2.1 and Appendix B",
        higher=Curve(task="labels", init=TICKET),
        lower=Curve(task=task, init=TICKET),
        relation="widens",
        along="panels",
        within=(0.005, 0.3),
    )


# ------------------------------------------------------------------------------------- Figures 6 and 10

TITLES = {
    "conv4": "four convolutions",
    "conv5": "five convolutions",
    "resnet8": "small ResNet",
    "alexnet8": "small AlexNet",
    **{f"vgg{depth}": f"VGG-{depth}" for depth in (11, 13, 16, 19)},
    **{f"resnet{depth}{stem}": f"ResNet-{depth}" for depth in (18, 34, 50) for stem in ("", "-cifar")},
    "resnet18-cifar-half": "ResNet-18 half as wide",
    "alexnet": "AlexNet",
    "alexnet-bn": "AlexNet",
}
"""Names of architectures, for people."""


def arch_title(arch: str) -> str:
    """Name of an architecture, for people. A ResNet has the same name with either stem."""
    return TITLES.get(arch.removesuffix("-cifar"), arch)


def unpruned(scale: str, archs: Sequence[str], *, seed: int) -> Iterator[Point]:
    """Networks trained on labels whose weights may vanish without pruning (paper 4.3 and Appendix C).

    The scale's ``unpruned`` has the data sets and the recipes. On CIFAR-10 ResNets have the stem for its small images.
    """
    for arch in archs:
        for init, (data, recipe) in SETTINGS[scale].unpruned.items():
            stem = "-cifar" if data == "cifar10" and arch in ("resnet18", "resnet34", "resnet50") else ""
            step = Train(task="labels", data=data, arch=arch + stem, recipe=recipe, seed=seed, start=Init(seed=seed))
            panel = arch_title(arch)
            for metric in NATURAL_SPARSITIES:
                yield Point(step=step, panel=panel, task="labels", init=init, level=0, seed=seed, metric=metric)


# ------------------------------------------------------------------------------------- Figure 7 and Table 1


def rewinds_with_few_labels(net: Net) -> dict[str, int]:
    """Rewinds for 10% of the labels, in samples seen, by the quantity kept as with all labels (paper, Appendix A)."""
    labels, few, rewind = net.recipes["labels"], net.recipes[f"labels:{FEW}"], net.rewind["labels"]
    return {
        "same number of epochs": round(rewind * net.images_of(FEW) / net.images_of()),
        "same part of the training": round(rewind * few.samples / labels.samples),
        "same number of updates": round(rewind * few.batch / labels.batch),
        "same number of samples": rewind,
    }


# ------------------------------------------------------------------------------------- criteria

INITIAL = "initial weights"
"""Init of a subnetwork that is trained from the weights with which the network that was pruned began."""

CRITERIA = {
    "magnitude": {},
    "magnitude, LAMP": {"allocation": "lamp"},
    "movement": {"criterion": "movement"},
    "Taylor": {"criterion": "taylor"},
    "SNIP": {"criterion": "snip", "at": 0},
    "GraSP": {"criterion": "grasp", "at": 0},
    "SynFlow": {"criterion": "synflow", "at": 0},
}
"""Fields of a Prune by the names of criteria, for people. Those with ``at`` judge a network at initialisation."""


def by_criteria(net: Net, tasks: Sequence[str], *, seed: int, levels: Sequence[int], keep: float) -> Iterator[Point]:
    """Masks of networks pruned once, by each criterion, trained on labels from the network's initial weights.

    Each mask keeps as many weights as ``level`` prunings. For comparison: the masks shuffled within each layer, random
    masks, and random masks allocated by ERK. ``tasks``: what the dense networks learn; must include labels.
    """
    labels = net.recipes["labels"]
    dense = {task: net.imp(task, seed=seed, levels=0, keep=keep).dense for task in tasks}
    for panel, how in CRITERIA.items():
        yield Point(step=dense["labels"], panel=panel, task="labels", init=INITIAL, level=0, seed=seed)
        for level in levels:
            masks: dict[str, Mask] = {}
            for task, of in dense.items():
                mask = masks[task] = Prune(of=of, keep=keep**level, **how)  # pyright: ignore[reportArgumentType]
                masks |= {name: Shuffle(of=mask, seed=seed) for name, one in SHUFFLED.items() if one == task}
            for name, allocation in ((RANDOM, "global"), (ERK, "erk")):
                masks[name] = random_prune(like=dense["labels"], keep=keep, level=level, allocation=allocation)
            for task, mask in masks.items():
                step = from_start(mask, of=dense["labels"], task="labels", recipe=labels)
                yield Point(step=step, panel=panel, task=task, init=INITIAL, level=level, seed=seed)


def claims_on_criteria(margin: float) -> Iterator[Claim]:
    """Claims on each criterion, with labels and without: is it better than chance, and do positions matter?"""
    frankle = "Frankle et al. 2021 (arXiv:2009.08576), abstract"
    best = Curve(task="labels", init=INITIAL, panel="magnitude")
    for panel, how in CRITERIA.items():
        at_start = "at" in how
        for task in SHUFFLED.values():
            name = PROPER_NAMES.get(task, task)
            source = frankle if task == "labels" and at_start else "not in the paper"
            mask, shuffled_ = (Curve(task=one, init=INITIAL, panel=panel) for one in (task, f"shuffled {task}"))
            says = f"Masks by {panel} on {name} are better than random masks"
            yield _above(says, mask, Curve(task=RANDOM, init=INITIAL, panel=panel), source)
            if not at_start:
                says = f"Masks by {panel} on {name} are better than the same masks shuffled within each layer"
                yield _above(says, mask, shuffled_, source)
                continue
            says = f"Masks by {panel} on {name} are not better than the same masks shuffled within each layer"
            yield replace(_as_good(says, shuffled_, mask, margin, relation="not worse"), source=source)
        if at_start:
            says = f"Masks by {panel} at initialisation are below masks by magnitude after training"
            yield _above(says, best, Curve(task="labels", init=INITIAL, panel=panel), frankle)
