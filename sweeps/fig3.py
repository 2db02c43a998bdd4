"""Figure 3: masks found with and without labels, re-trained on labels.

Prune iteratively on labels and on RotNet. Then train every subnetwork on labels, once from the weights that the
chain had early in its dense run (winning tickets) and once from new random weights (random re-init), beside masks
drawn at random. The paper's answer: as masks, those found without labels are as good as those found with them; as
winning tickets they are not.

Beyond the paper, drawn thin: the label masks shuffled within each layer, which keep only how much of each layer
is left.
"""

from collections.abc import Iterator

from raysslprune.lottery import imp, random_prune, random_reinit, shuffled, winning_ticket
from raysslprune.recipes import SETTINGS
from raysslprune.spec import Claim, Curve, Figure, Point

TICKET, REINIT = "winning ticket", "random re-init"

FIGURE = Figure(
    title="Re-training pruned masks on labels",
    y_label="Top-1 accuracy (%)",
    panels=(REINIT, TICKET),
    reference=Curve(task="labels", init=TICKET),
    controls=("shuffled labels",),
    everywhere=(Curve(task="random", init=REINIT),),
)


def points(scale: str, seed: int) -> Iterator[Point]:
    """The figure's points for one seed."""
    s = SETTINGS[scale]
    labels = s.recipes["labels"]
    chains = {
        task: imp(
            task=task,
            data=s.data,
            arch=s.arch,
            recipe=s.recipes[task],
            seed=seed,
            levels=max(s.levels),
            keep=s.keep,
            rewind=s.rewind[task],
        )
        for task in ("labels", "rotnet")
    }
    dense = chains["labels"].dense
    yield Point(step=dense, task="labels", init=TICKET, level=0, seed=seed)
    for level in s.levels:
        for task, chain in chains.items():
            ticket = winning_ticket(chain, level, task="labels", recipe=labels)
            again = random_reinit(chain.masks[level], like=dense, task="labels", recipe=labels)
            yield Point(step=ticket, task=task, init=TICKET, level=level, seed=seed)
            yield Point(step=again, task=task, init=REINIT, level=level, seed=seed)
        masks = {
            "random": random_prune(like=dense, keep=s.keep, level=level),
            "shuffled labels": shuffled(chains["labels"], level),
        }
        for task, mask in masks.items():
            step = random_reinit(mask, like=dense, task="labels", recipe=labels)
            yield Point(step=step, task=task, init=REINIT, level=level, seed=seed)


def _curve(task: str, init: str) -> Curve:
    return Curve(task=task, init=init)


CLAIMS = (
    Claim(
        says="Randomly re-initialised, masks pruned without labels match those pruned with them",
        source="section 4.2.1",
        higher=_curve("labels", REINIT),
        lower=_curve("rotnet", REINIT),
        relation="equal",
        margin=2.0,
        within=(0.02, 0.6),
    ),
    Claim(
        says="Winning tickets found without labels are significantly below those found with labels",
        source="section 4.2.1",
        higher=_curve("labels", TICKET),
        lower=_curve("rotnet", TICKET),
        relation="above",
        within=(0.005, 0.3),
    ),
    Claim(
        says="For masks pruned on labels, winning tickets are significantly better than random re-init",
        source="section 4.2.1",
        higher=_curve("labels", TICKET),
        lower=_curve("labels", REINIT),
        relation="above",
        within=(0.005, 0.3),
    ),
    Claim(
        says="For masks pruned on RotNet, winning tickets give only a slight boost, or none, over random re-init",
        source="section 4.2.1",
        higher=_curve("rotnet", TICKET),
        lower=_curve("rotnet", REINIT),
        relation="equal",
        margin=2.0,
        within=(0.02, 0.6),
    ),
    Claim(
        says="Winning tickets found without labels remain way above random pruning",
        source="section 4.2.1",
        higher=_curve("rotnet", TICKET),
        lower=_curve("random", REINIT),
        relation="above",
        within=(0.005, 0.3),
    ),
    Claim(
        says="The gap between self-supervised and random pruning increases when the network is severely pruned",
        source="section 4.2.1",
        higher=_curve("rotnet", REINIT),
        lower=_curve("random", REINIT),
        relation="widens",
        within=(0.01, 0.6),
    ),
)
