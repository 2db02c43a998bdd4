"""Hypothesis' strategies for steps."""

from __future__ import annotations

import dataclasses
from typing import Any

from hypothesis import strategies as st

from raysslprune.spec import SVM, Final, Init, Mask, Prune, RandomPrune, Recipe, Rewind, Shuffle, Step, Train


@st.composite
def recipes(draw: st.DrawFn) -> Recipe:
    momentum = draw(st.sampled_from([0.0, 0.9]))
    decay_at = tuple(draw(st.lists(st.integers(1, 10**7), max_size=3)))
    return Recipe(
        samples=draw(st.integers(1, 10**9)),
        batch=2 * draw(st.integers(1, 2048)),
        lr=draw(st.floats(1e-10, 10)),
        optimizer=draw(st.sampled_from(["sgd", "adam", "adamw"])),
        momentum=momentum,
        nesterov=momentum > 0 and draw(st.booleans()),
        weight_decay=draw(st.floats(0, 1)),
        schedule="steps" if decay_at else draw(st.sampled_from(["constant", "cosine"])),
        decay_at=decay_at,
        warmup=draw(st.integers(0, 1000)),
        flip=draw(st.booleans()),
        **draw(NEWER),
    )


NEWER = st.fixed_dictionaries(
    {},
    optional={
        "bn_batch": st.just(2),
        "angle": st.floats(0, 180),
        "jitter": st.tuples(*[st.floats(0, 1)] * 3, st.floats(0, 0.5)),
        "grayscale": st.floats(0, 1),
        "options": st.dictionaries(
            st.text(max_size=4), st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4)
        ).map(lambda options: tuple(options.items())),
    },
).flatmap(
    lambda some: st.one_of(
        st.integers(0, 4).map(lambda pad: {**some, "pad": pad}),
        st.floats(0, 1).map(lambda crop: {**some, "crop": crop}),
    )
)


@st.composite
def svms(draw: st.DrawFn) -> SVM:
    costs = draw(st.lists(st.floats(1e-7, 1e2), min_size=1, max_size=5))
    return SVM(costs=tuple(costs), folds=draw(st.integers(2, 9)), positive_weight=draw(st.floats(0.1, 10)))


CRITERIA: list[dict[str, Any]] = [
    {},
    {"criterion": "relative-magnitude", "allocation": "erk"},
    {"criterion": "snip", "samples": 64, "passes": 3},
    {"criterion": "mine:score", "allocation": "lamp"},
]
"""Further fields of a pruning."""


@st.composite
def graphs(draw: st.DrawFn) -> list[Step]:
    """Steps that grow on each other, in the order in which they were made."""
    text = st.text(max_size=5)
    steps: list[Step] = []
    for _ in range(draw(st.integers(1, 8))):
        trains = [s for s in steps if isinstance(s, Train) and isinstance(s.recipe, Recipe)]
        made = [s for s in steps if isinstance(s, Mask)]
        kinds = ["train", "random"] + ["prune"] * bool(trains) + ["shuffle"] * bool(made)
        kind, seed = draw(st.sampled_from(kinds)), draw(st.integers(0, 2**40))
        if kind == "prune":
            keep = draw(st.floats(0.01, 0.99))
            steps.append(
                Prune(
                    of=draw(st.sampled_from(trains)),
                    keep=keep,
                    scope=draw(st.sampled_from(["all", "convs", "convs:2"])),
                    **draw(st.sampled_from(CRITERIA)),
                )
            )
        elif kind == "shuffle":
            steps.append(Shuffle(of=draw(st.sampled_from([mask.origin for mask in made])), seed=seed))
        elif kind == "random":
            keep, level = draw(st.floats(0.01, 0.99)), draw(st.integers(0, 30))
            steps.append(
                RandomPrune(
                    arch=draw(text),
                    data=draw(text),
                    keep=keep,
                    level=level,
                    seed=seed,
                    scope=draw(st.sampled_from(["all", "convs", "convs:2"])),
                    nonzero=draw(st.sampled_from([None, *trains])),
                )
            )
        else:
            start: Init | Rewind | Final = Init(seed=seed, draw=draw(st.integers(0, 1)))
            how = draw(st.sampled_from(["draw", "rewind", "final"]))
            if trains and how != "draw":
                of = draw(st.sampled_from(trains))
                rewound = st.integers(of.begins_at, of.recipe.samples)
                start = Final(of=of) if how == "final" else Rewind(of=of, samples=draw(rewound))
            recipe: Recipe | SVM = draw(recipes() | svms())
            if isinstance(recipe, Recipe) and isinstance(start, Rewind) and start.samples >= recipe.samples:
                recipe = dataclasses.replace(recipe, samples=start.samples + 1)
            steps.append(
                Train(
                    task="labels" if isinstance(recipe, SVM) else draw(text),
                    data=draw(text),
                    arch=draw(text),
                    recipe=recipe,
                    seed=seed,
                    start=start,
                    mask=draw(st.sampled_from([None, *made])),
                    trunk_frozen=isinstance(recipe, SVM) or draw(st.booleans()),
                )
            )
    return steps
