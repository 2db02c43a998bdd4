"""Experiments that several figures make, each with other networks: their points, and what the paper says of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from raysslprune.lottery import random_prune, random_reinit, shuffled
from raysslprune.paper.recipes import appendix_d
from raysslprune.paper.scales import FEW, SETTINGS, Net, images_of
from raysslprune.spec import Init, Mask, Train
from raysslprune.sweepfile import Claim, Curve, Point

TICKET, REINIT = "winning ticket", "random re-init"
RANDOM, NONZERO, SHUFFLED = "random", "random nonzero", "shuffled labels"

# ------------------------------------------------------------------------------------- Figures 3 and 8


def retrained(net: Net, tasks: Sequence[str], *, seed: int, levels: Sequence[int], keep: float) -> Iterator[Point]:
    """The masks of chains on ``tasks``, re-trained on labels as winning tickets and from random weights (paper 4.2.1).

    Beside them random masks; random masks that avoid natural zeros, where the network has such; and label masks
    shuffled within each layer. ``tasks`` must include labels.
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
        masks[SHUFFLED] = shuffled(chains["labels"], level)
        for task, mask in masks.items():
            again = random_reinit(mask, like=dense, task="labels", recipe=labels)
            yield Point(step=again, panel=net.title, task=task, init=REINIT, level=level, seed=seed)
        for task, chain in chains.items():
            ticket = net.ticket(chain, level)
            yield Point(step=ticket, panel=net.title, task=task, init=TICKET, level=level, seed=seed)


def claims_on_labels() -> Iterator[Claim]:
    """What section 4.2.1 says of masks pruned on labels."""
    yield Claim(
        says="For masks pruned on labels, winning tickets are significantly better than random re-init",
        source="section 4.2.1",
        higher=Curve(task="labels", init=TICKET),
        lower=Curve(task="labels", init=REINIT),
        relation="above",
        within=(0.005, 0.3),
    )


def claims_on(task: str) -> Iterator[Claim]:
    """What section 4.2.1 says of masks pruned on a self-supervised task. Ranges and margins are ours."""
    ticket, reinit = Curve(task=task, init=TICKET), Curve(task=task, init=REINIT)
    where = "section 4.2.1"
    yield Claim(
        says=f"Randomly re-initialised, masks pruned on {task} match those pruned with labels",
        source=where,
        higher=Curve(task="labels", init=REINIT),
        lower=reinit,
        relation="equal",
        margin=2.0,
        within=(0.02, 0.6),
    )
    yield Claim(
        says=f"Winning tickets found on {task} are significantly below those found with labels",
        source=where,
        higher=Curve(task="labels", init=TICKET),
        lower=ticket,
        relation="above",
        within=(0.005, 0.3),
    )
    yield Claim(
        says=f"For masks pruned on {task}, winning tickets give only a slight boost, or none, over random re-init",
        source=where,
        higher=ticket,
        lower=reinit,
        relation="equal",
        margin=2.0,
        within=(0.02, 0.6),
    )
    yield Claim(
        says=f"Winning tickets found on {task} remain way above random pruning",
        source=where,
        higher=ticket,
        lower=Curve(task=RANDOM, init=REINIT),
        relation="above",
        within=(0.005, 0.3),
    )
    yield Claim(
        says=f"The gap between {task} and random pruning increases when the network is severely pruned",
        source=where,
        higher=reinit,
        lower=Curve(task=RANDOM, init=REINIT),
        relation="widens",
        within=(0.01, 0.6),
    )


# ------------------------------------------------------------------------------------- Figures 4 and 9


def layerwise(
    net: Net, depths: dict[str, str], tasks: Sequence[str], *, seed: int, levels: Sequence[int], keep: float
) -> Iterator[Point]:
    """Winning tickets where only the first layers are pruned (paper 4.2.1 and Appendix B), beside random masks of them.

    depths: the panels' titles to scopes as in Prune, from shallow to deep.
    """
    labels = net.recipes["labels"]
    for title, scope in depths.items():
        chains = {
            task: net.imp(task, seed=seed, levels=max(levels), keep=keep, scope=scope) for task in ("labels", *tasks)
        }
        dense = chains["labels"].dense
        yield Point(step=dense, panel=title, task="labels", init=TICKET, level=0, seed=seed)
        for level in levels:
            for task, chain in chains.items():
                yield Point(step=net.ticket(chain, level), panel=title, task=task, init=TICKET, level=level, seed=seed)
            mask = random_prune(like=dense, keep=keep, level=level, scope=scope)
            again = random_reinit(mask, like=dense, task="labels", recipe=labels)
            yield Point(step=again, panel=title, task=RANDOM, init=REINIT, level=level, seed=seed)


def claims_on_depth(task: str) -> Iterator[Claim]:
    """What the paper says of the gap between labels and a self-supervised task."""
    yield Claim(
        says=f"The gap between labels and {task} is narrow in the first layers and widens with depth",
        source="section 4.2.1 and Appendix B",
        higher=Curve(task="labels", init=TICKET),
        lower=Curve(task=task, init=TICKET),
        relation="widens",
        along="panels",
        within=(0.005, 0.3),
    )


# ------------------------------------------------------------------------------------- Figures 6 and 10

SGD, ADAM, CIFAR10, IMAGENET = "SGD", "Adam with L2", "CIFAR-10", "ImageNet"

SPARSITIES = ("natural_sparsity", *(f"natural_sparsity_1e-{digits}" for digits in (30, 20, 12, 9, 6)))
"""Metrics of every training: how many weights count as zero, at float32's precision and at other thresholds."""

TITLES = {
    "conv4": "four convolutions",
    "conv5": "five convolutions",
    "resnet8": "small ResNet",
    "alexnet8": "small AlexNet",
    **{f"vgg{depth}": f"VGG-{depth}" for depth in (11, 13, 16, 19)},
    **{f"resnet{depth}": f"ResNet-{depth}" for depth in (18, 34, 50)},
}
"""Architectures, for people."""


def unpruned(scale: str, archs: Sequence[str], *, seed: int) -> Iterator[Point]:
    """Networks trained on labels whose weights may vanish without pruning (paper 4.3 and Appendix C).

    At the scales ``cifar10`` and ``paper`` by the paper's recipes for CIFAR-10 and, for ImageNet, by that for
    ResNet-50; at the small ones by our SGD and by the paper's optimiser on CIFAR-10, Adam with L2 in the gradient.
    """
    s = SETTINGS[scale]
    ours, theirs = s.recipes["labels"], appendix_d("labels", "cifar10", "vgg19")
    adam = replace(ours, optimizer="adam", momentum=0.0, nesterov=False, lr=0.001, weight_decay=theirs.weight_decay)
    runs = {
        "paper": {CIFAR10: ("cifar10", theirs), IMAGENET: ("imagenet", ours)},
        "cifar10": {CIFAR10: ("cifar10", theirs)},
    }.get(scale, {SGD: (s.data, ours), ADAM: (s.data, adam)})
    for arch in archs:
        for init, (data, recipe) in runs.items():
            stem = "-cifar" if data == "cifar10" and arch.startswith("resnet") else ""
            step = Train(task="labels", data=data, arch=arch + stem, recipe=recipe, seed=seed, start=Init(seed=seed))
            for metric in SPARSITIES:
                yield Point(step=step, panel=TITLES[arch], task="labels", init=init, level=0, seed=seed, metric=metric)


# ------------------------------------------------------------------------------------- Figure 7 and Table 1


def rewinds_with_few_labels(net: Net) -> dict[str, int]:
    """Where to rewind to with 10% of the labels, by what stays as it is with all of them (paper, Appendix A)."""
    labels, few, rewind = net.recipes["labels"], net.recipes[f"labels:{FEW}"], net.rewind["labels"]
    images = images_of(net.data)
    return {
        "same number of epochs": round(rewind * images_of(f"{net.data}:{FEW}") / images),
        "same part of the training": round(rewind * few.samples / labels.samples),
        "same number of updates": round(rewind * few.batch / labels.batch),
        "same number of samples": rewind,
    }
