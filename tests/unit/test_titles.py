"""Titles of trainings, for people."""

from __future__ import annotations

from raysslprune import plan
from raysslprune.lottery import (
    finetune,
    linear,
    random_prune,
    shuffled,
    untrained,
    winning_ticket,
)
from raysslprune.spec import (
    Shuffle,
)
from tests.helpers.points import LONG, MACHINES, RECIPE, chain, drawn, points


def test_titles_are_for_people() -> None:
    labels = chain()
    twice = Shuffle(of=shuffled(labels, 2), seed=1)
    titles = {
        "labels seed 0, dense, drawn": labels.dense,
        "labels seed 0, labels mask 2, rewound": labels.rounds[2],
        "labels seed 0, rotnet mask 3, rewound": winning_ticket(chain("rotnet"), 3, task="labels", recipe=RECIPE),
        "labels seed 0, random mask 2, drawn": drawn(random_prune(like=labels.dense, keep=0.5, level=2), labels.dense),
        "labels seed 0, shuffled shuffled labels mask 2, drawn": drawn(twice, labels.dense),
        "linear seed 0, rotnet mask 2, from rotnet": linear(chain("rotnet").rounds[2], data="digits", recipe=LONG),
        "linear SVMs seed 0, dense, from npid": linear(chain("npid").dense, data="digits", recipe=MACHINES),
        "linear seed 4, labels mask 1, drawn": untrained(chain(seed=4).rounds[1], data="digits", recipe=LONG),
        "labels seed 0, rotnet mask 1, from rotnet": finetune(chain("rotnet").rounds[1], data="a", recipe=LONG),
        "labels seed 0, random mask 3, drawn": drawn(
            random_prune(like=labels.dense, keep=0.5, level=3, nonzero=labels.dense), labels.dense
        ),
    }
    for title, step in titles.items():
        assert plan.make(points([step])).jobs[step.id].title == title


def test_titles_that_several_have_say_what_tells_them_apart() -> None:
    half, quarter = ([one.rounds[1], one.rounds[2]] for one in (chain(keep=0.5), chain(keep=0.25)))
    other = chain(keep=0.25, arch="conv5").rounds[1]
    named = plan.titles(plan.make(points([*half, *quarter])).jobs.values())
    assert [named[step.id] for step in (*half, *quarter)] == [
        "labels seed 0, labels mask 1, rewound, 50% left",
        "labels seed 0, labels mask 2, rewound, 25% left",
        "labels seed 0, labels mask 1, rewound, 25% left",
        "labels seed 0, labels mask 2, rewound, 6.25% left",
    ]
    named = plan.titles(plan.make(points([quarter[0], other])).jobs.values())
    assert [named[step.id].rpartition(", ")[2] for step in (quarter[0], other)] == [quarter[0].arch, "conv5"]
    alone = plan.make(points([quarter[1]])).jobs
    assert plan.titles(alone.values()) == {i: job.title for i, job in alone.items()}
