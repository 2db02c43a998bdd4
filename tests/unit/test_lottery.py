"""The verbs: which steps they ask for."""

from __future__ import annotations

import dataclasses

import pytest

from raysslprune.lottery import (
    Chain,
    finetune,
    imp,
    linear,
    random_prune,
    random_reinit,
    shuffled,
    untrained,
    winning_ticket,
)
from raysslprune.spec import SVM, Final, Init, Prune, RandomPrune, Recipe, Rewind, Shuffle, Train, closure

RECIPE = Recipe(samples=14_400, batch=64, lr=0.05, momentum=0.9)
OTHER = dataclasses.replace(RECIPE, lr=0.1)
MACHINES = SVM(costs=(0.1, 1.0))
LEVELS = 5


def chain(task: str = "labels", levels: int = LEVELS, seed: int = 3, keep: float = 0.8, scope: str = "all") -> Chain:
    return imp(
        task=task,
        data="digits",
        arch="conv4",
        recipe=RECIPE,
        seed=seed,
        levels=levels,
        keep=keep,
        rewind=1_200,
        scope=scope,
    )


def differing(a: Train, b: Train) -> set[str]:
    return {f.name for f in dataclasses.fields(Train) if getattr(a, f.name) != getattr(b, f.name)}


def test_a_chain_written_out() -> None:
    """M0 = 1; Tn = Train(start=rewind(T0, k), mask=Mn); Mn+1 = Prune(Tn)."""
    dense = Train(task="labels", data="digits", arch="conv4", recipe=RECIPE, seed=3, start=Init(seed=3))
    mask_1 = Prune(of=dense, keep=0.8)
    round_1 = dataclasses.replace(dense, start=Rewind(of=dense, samples=1_200), mask=mask_1)
    mask_2 = Prune(of=round_1, keep=0.8)
    round_2 = dataclasses.replace(round_1, mask=mask_2)
    made = chain(levels=3)
    assert made.rounds == (dense, round_1, round_2)
    assert made.masks == (None, mask_1, mask_2, Prune(of=round_2, keep=0.8))
    assert made.dense == dense
    assert made.rewind == 1_200


def test_a_chain_has_one_more_mask_than_rounds_and_no_training_too_many() -> None:
    made = chain()
    assert (len(made.rounds), len(made.masks)) == (LEVELS, LEVELS + 1)
    last = made.masks[-1]
    assert last is not None
    steps = closure([last])
    assert sum(isinstance(step, Train) for step in steps) == LEVELS


def test_every_round_is_rewound_to_the_dense_training() -> None:
    made = chain()
    for step in made.rounds[1:]:
        assert isinstance(step.start, Rewind)
        assert step.start.of == made.dense
        assert differing(step, made.dense) == {"start", "mask"}


def test_scope_and_keep_reach_every_pruning() -> None:
    for mask in chain(keep=0.5, scope="convs:3").masks[1:]:
        assert isinstance(mask, Prune)
        assert (mask.keep, mask.scope) == (0.5, "convs:3")


def test_level_0_is_the_dense_training_alone() -> None:
    made = chain(levels=0)
    assert len(made.rounds) == 1
    assert made.masks == (None,)


@pytest.mark.parametrize("task", ["labels", "rotnet"])
def test_the_ticket_of_the_chains_own_task_is_its_round(task: str) -> None:
    made = chain(task)
    for level in range(LEVELS):
        assert winning_ticket(made, level, task=task, recipe=RECIPE).id == made.rounds[level].id
    last = winning_ticket(made, LEVELS, task=task, recipe=RECIPE)
    assert last.id == chain(task, levels=LEVELS + 1).rounds[LEVELS].id


def test_chains_of_other_lengths_share_their_beginning() -> None:
    short, long = chain(levels=3), chain(levels=7)
    assert long.rounds[:3] == short.rounds
    assert long.masks[:4] == short.masks
    steps = closure([long.rounds[-1], short.rounds[-1]])
    assert sum(isinstance(step, Train) for step in steps) == 7


@pytest.mark.parametrize("changes", [{"task": "rotnet"}, {"seed": 4}])
def test_other_chains_share_nothing(changes: dict[str, str | int]) -> None:
    a, b = chain(), chain(**changes)  # pyright: ignore[reportArgumentType]
    assert not {s.id for s in closure([a.rounds[-1]])} & {s.id for s in closure([b.rounds[-1]])}


def test_chains_with_another_keep_share_the_dense_training_only() -> None:
    a, b = chain(), chain(keep=0.64)
    shared = set(closure([a.rounds[-1]])) & set(closure([b.rounds[-1]]))
    assert shared == {a.dense}


def test_the_ticket_of_another_task_takes_the_trunk_and_a_new_head() -> None:
    made = chain("rotnet")
    for level in range(LEVELS + 1):
        ticket = winning_ticket(made, level, task="labels", recipe=OTHER)
        assert ticket.start == Rewind(of=made.dense, samples=1_200)
        assert ticket.keeps_head is False
        assert ticket.begins_at == 0, "as many samples of labels as a training from drawn weights"
        assert (ticket.task, ticket.recipe, ticket.mask) == ("labels", OTHER, made.masks[level])
        assert ticket.seed == made.dense.seed


def test_the_ticket_by_another_recipe_is_a_training_of_its_own() -> None:
    made = chain()
    for level in range(LEVELS):
        ticket = winning_ticket(made, level, task="labels", recipe=OTHER)
        assert ticket != made.rounds[level]
        assert isinstance(ticket.start, Rewind)
        assert ticket.keeps_head is True
        assert ticket.begins_at == 1_200


def test_random_reinit_differs_from_the_dense_training_in_draw_and_mask_only() -> None:
    made = chain("rotnet")
    dense = chain().dense
    step = random_reinit(made.masks[2], like=dense, task="labels", recipe=RECIPE)
    assert differing(step, dense) == {"start", "mask"}
    assert isinstance(step.start, Init)
    assert isinstance(dense.start, Init)
    assert step.start.seed == dense.start.seed
    assert step.start.draw != dense.start.draw
    assert step.mask == made.masks[2]
    assert step.begins_at == 0


def test_random_reinit_without_a_mask_is_a_dense_training_from_another_draw() -> None:
    dense = chain().dense
    assert differing(random_reinit(None, like=dense, task="labels", recipe=RECIPE), dense) == {"start"}


def test_random_reinit_depends_on_the_mask_and_not_on_what_it_was_pruned_for() -> None:
    """Like any training of that net, data and seed, whichever chain ``like`` is from."""
    mask = chain().masks[1]
    by_labels = random_reinit(mask, like=chain("labels").dense, task="labels", recipe=RECIPE)
    by_rotnet = random_reinit(mask, like=chain("rotnet").dense, task="labels", recipe=RECIPE)
    assert by_labels == by_rotnet


def test_random_prune_is_as_sparse_as_the_chain_and_independent_of_it() -> None:
    made = random_prune(like=chain("rotnet", seed=6).dense, keep=0.8, level=4)
    assert made == RandomPrune(arch="conv4", data="digits", keep=0.8, level=4, seed=6)
    assert made == random_prune(like=chain("labels", seed=6).dense, keep=0.8, level=4)
    assert made.parents == ()
    made = random_prune(like=chain(seed=6).dense, keep=0.8, level=4, scope="convs:2", allocation="erk")
    expected = RandomPrune(arch="conv4", data="digits", keep=0.8, level=4, seed=6, scope="convs:2", allocation="erk")
    assert made == expected


def test_shuffled_is_the_chains_mask_permuted_by_its_seed() -> None:
    made = chain(seed=6)
    mask = made.masks[2]
    assert mask is not None
    assert shuffled(made, 2) == Shuffle(of=mask, seed=6)


def test_level_0_has_no_mask_to_shuffle() -> None:
    with pytest.raises(ValueError, match="masks at levels 1 to"):
        shuffled(chain(), 0)


# ------------------------------------------------------------------------------------- scopes and other starts


def test_layerwise_pruning_is_a_scope_on_every_mask_random_ones_too() -> None:
    deep = chain(scope="convs:2")
    assert [mask.scope for mask in deep.masks if isinstance(mask, Prune)] == ["convs:2"] * LEVELS
    assert deep.dense == chain().dense, "the dense training knows nothing of it"
    assert not set(deep.rounds[1:]) & set(chain().rounds)
    random = random_prune(like=deep.dense, keep=0.8, level=4, scope="convs:2")
    assert random == RandomPrune(arch="conv4", data="digits", keep=0.8, level=4, seed=3, scope="convs:2")


def test_the_adjusted_baseline_reads_the_dense_training_and_is_otherwise_the_baseline() -> None:
    dense = chain(seed=6).dense
    made = random_prune(like=dense, keep=0.8, level=4, nonzero=dense)
    assert made == RandomPrune(arch="conv4", data="digits", keep=0.8, level=4, seed=6, nonzero=dense)
    assert made.parents == (dense,)
    assert made != random_prune(like=dense, keep=0.8, level=4)


def transferred(chained: Chain, rewind: int) -> Chain:
    return imp(
        task="labels",
        data="voc07",
        arch="conv4",
        recipe=OTHER,
        seed=3,
        levels=3,
        keep=0.5,
        rewind=rewind,
        start=Final(of=chained.dense),
    )


def test_pruning_during_transfer_written_out() -> None:
    """Each round starts where the dense fine-tuning did: at the pretext task's weights, with its head of that time."""
    pretext = chain("rotnet")
    made = transferred(pretext, rewind=0)
    dense = Train(task="labels", data="voc07", arch="conv4", recipe=OTHER, seed=3, start=Final(of=pretext.dense))
    mask_1 = Prune(of=dense, keep=0.5)
    round_1 = dataclasses.replace(dense, start=Rewind(of=dense, samples=0), mask=mask_1)
    mask_2 = Prune(of=round_1, keep=0.5)
    round_2 = dataclasses.replace(round_1, mask=mask_2)
    assert made.rounds == (dense, round_1, round_2)
    assert made.masks == (None, mask_1, mask_2, Prune(of=round_2, keep=0.5))
    assert [step.begins_at for step in made.rounds] == [0, 0, 0]
    assert [step.keeps_head for step in made.rounds] == [False, True, True]
    assert {step.task for step in closure([made.rounds[-1]]) if isinstance(step, Train)} == {"rotnet", "labels"}


def test_a_start_is_drawn_by_default() -> None:
    made = chain(seed=8)
    same = imp(
        task="labels",
        data="digits",
        arch="conv4",
        recipe=RECIPE,
        seed=8,
        levels=LEVELS,
        keep=0.8,
        rewind=1_200,
        start=Init(seed=8),
    )
    assert made == same
    assert made.dense.start == Init(seed=8)


# ------------------------------------------------------------------------------------- judging features


@pytest.mark.parametrize("recipe", [OTHER, MACHINES])
@pytest.mark.parametrize("level", [0, 2])
def test_linear_classifiers_are_on_the_final_weights_under_the_training_s_own_mask(
    level: int, recipe: Recipe | SVM
) -> None:
    made = chain("npid")
    of = made.rounds[level]
    step = linear(of, data="places205", recipe=recipe)
    assert step == Train(
        task="labels",
        data="places205",
        arch="conv4",
        recipe=recipe,
        seed=3,
        start=Final(of=of),
        mask=made.masks[level],
        trunk_frozen=True,
    )
    control = untrained(of, data="places205", recipe=recipe)
    assert differing(step, control) == {"start", "calibrated"}
    assert control.start == Init(seed=3)
    assert control.calibrated
    anew = untrained(of, data="places205", recipe=recipe, draw=1)
    assert differing(control, anew) == {"start"}
    assert anew.start == Init(seed=3, draw=1)


def test_the_control_shares_no_training_with_what_is_judged_but_its_mask() -> None:
    """Without a mask it needs no training at all."""
    made = chain("npid")
    assert closure([untrained(made.dense, data="digits", recipe=MACHINES)])[:-1] == []
    of = made.rounds[1]
    assert of not in closure([untrained(of, data="digits", recipe=MACHINES)])
    assert of in closure([linear(of, data="digits", recipe=MACHINES)])


def test_fine_tuning_trains_all_of_the_network_under_its_mask() -> None:
    made = chain("rotnet", seed=5)
    for level in (0, 3):
        step = finetune(made.rounds[level], data="voc07", recipe=OTHER)
        assert step == Train(
            task="labels",
            data="voc07",
            arch="conv4",
            recipe=OTHER,
            seed=5,
            start=Final(of=made.rounds[level]),
            mask=made.masks[level],
        )
        assert step.keeps_head is False


def test_fine_tuning_unpruned_is_where_pruning_during_transfer_begins() -> None:
    """So the two curves of the paper's Figure 2 share their first point."""
    pretext = chain("rotnet")
    assert finetune(pretext.dense, data="voc07", recipe=OTHER) == transferred(pretext, rewind=0).dense


def test_semi_supervised_is_the_chain_on_another_task_or_on_a_subset() -> None:
    tenth = imp(
        task="labels",
        data="imagenet:10%-of-images",
        arch="resnet50",
        recipe=RECIPE,
        seed=0,
        levels=2,
        keep=0.8,
        rewind=1_200,
    )
    assert {step.data for step in tenth.rounds} == {"imagenet:10%-of-images"}
    assert tenth.rounds[1].keeps_head
    ticket = winning_ticket(chain("s4l"), 2, task="labels", recipe=OTHER)
    assert ticket.keeps_head is False
    of_a_tenth = winning_ticket(tenth, 2, task="labels", recipe=RECIPE, data="imagenet")
    assert (of_a_tenth.keeps_head, of_a_tenth.begins_at) == (False, 0)
