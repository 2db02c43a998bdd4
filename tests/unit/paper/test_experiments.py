"""The points of each figure against the paper's text, said in plain steps."""

from __future__ import annotations

import itertools
import math

import pytest

from raysslprune.evaluate import metrics
from raysslprune.paper.experiments import NONZERO, RANDOM, REINIT, SHUFFLED, SPARSITIES, TICKET
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.graph import make_plan
from raysslprune.spec import SVM, Final, Init, Mask, Prune, RandomPrune, Rewind, Shuffle, Train
from raysslprune.sweep import Sweep, load
from raysslprune.sweepfile import Point

PAPER_LEVELS = [1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 21, 24, 27, 30]


def figure(name: str, scale: str = "paper", seeds: int = 1) -> Sweep:
    return load(name, scale, seeds)


def chain(mask: Mask) -> list[Train]:
    """The trainings behind an iterative mask, last first."""
    trainings: list[Train] = []
    step: Mask | None = mask
    while step is not None:
        assert isinstance(step, Prune)
        trainings.append(step.of)
        step = step.of.mask
    return trainings


def levels(points: list[Point]) -> list[int]:
    return sorted({point.level for point in points})


def test_a_chain_is_the_papers_iterative_magnitude_pruning() -> None:
    """Section 3.1: each round from the dense run's weights after 3 epochs, a fifth of the weights less each time."""
    ticket = next(p for p in figure("fig3").points if (p.task, p.init, p.level) == ("rotnet", TICKET, 30))
    assert isinstance(ticket.step.mask, Prune)
    rounds = chain(ticket.step.mask)
    dense = rounds[-1]
    assert len(rounds) == 30
    assert dense.mask is None
    assert isinstance(dense.start, Init)
    for one in rounds[:-1]:
        assert one.start == Rewind(of=dense, samples=3 * 1_280_000)
        assert one.task == "rotnet"
    assert {one.mask.keep for one in rounds[:-1] if isinstance(one.mask, Prune)} == {0.8}
    assert math.isclose(0.8**30, 0.00124, rel_tol=0.01)
    assert (ticket.step.task, ticket.step.start) == ("labels", Rewind(of=dense, samples=3 * 1_280_000))


def test_figure_3_has_both_data_sets_six_curves_and_14_rates() -> None:
    points = [p for p in figure("fig3").points if p.level]
    assert {p.panel: p.step.arch for p in points} == {
        "ImageNet, ResNet-50": "resnet50",
        "CIFAR-10, ResNet-18": "resnet18-cifar",
    }
    for _, group in itertools.groupby(sorted(points, key=lambda p: (p.panel, p.task, p.init)), key=lambda p: p.curve):
        assert levels(list(group)) == PAPER_LEVELS
    tickets = {p.task for p in points if p.init == TICKET}
    assert tickets == {"labels", "rotnet", "exemplar"}
    assert all(p.step.task == "labels" for p in points)
    adjusted = {p.panel for p in points if p.task == NONZERO}
    assert adjusted == {"CIFAR-10, ResNet-18"}


def test_label_tickets_are_rounds_of_the_label_chain() -> None:
    points = figure("fig3", "laptop").points
    deepest = next(p for p in points if (p.task, p.init, p.level) == ("labels", TICKET, 24))
    assert isinstance(deepest.step.mask, Prune)
    rounds = {one.id for one in chain(deepest.step.mask)}
    others = [p for p in points if (p.task, p.init) == ("labels", TICKET) and p.level < 24]
    assert {p.step.id for p in others} <= rounds


def test_masks_are_retrained_from_new_weights() -> None:
    for point in figure("fig3", "laptop").points:
        if point.init == REINIT:
            assert point.step.start == Init(seed=0, draw=1)
            kind = {RANDOM: RandomPrune, SHUFFLED: Shuffle}.get(point.task, Prune)
            assert isinstance(point.step.mask, kind)


def test_figure_8_of_three_nets_on_digits_and_four_in_the_paper() -> None:
    assert len({p.panel for p in figure("fig8").points}) == 4
    assert len({p.panel for p in figure("fig8", "laptop").points}) == 3


@pytest.mark.parametrize("scale", SETTINGS)
def test_figure_1_judges_frozen_features_and_untrained_ones_under_the_same_mask(scale: str) -> None:
    points = [p for p in figure("fig1", scale).points if p.task != "labels"]
    trained = {(p.panel, p.task, p.level): p.step for p in points if p.init == "pre-trained"}
    control = {(p.panel, p.task, p.level): p.step for p in points if p.init == "untrained"}
    assert trained.keys() == control.keys()
    for key, step in trained.items():
        assert step.trunk_frozen
        assert isinstance(step.start, Final)
        assert step.start.of.task == key[1]
        assert step.start.of.mask == step.mask == control[key].mask
        assert control[key].start == Init(seed=0)
        assert control[key].trunk_frozen
    assert {p.metric for p in points if isinstance(p.step.recipe, SVM)} == {"map"}


def test_figure_1_of_the_paper_has_its_three_data_sets_and_no_sparse_npid() -> None:
    """NPID is not pruned past a tenth, which is between levels 10 (10.7%) and 11 (8.6%)."""
    points = figure("fig1").points
    assert {p.step.data for p in points} == {"voc07", "places205", "imagenet"}
    assert levels([p for p in points if p.task == "npid"]) == [0, 1, 2, 3, 4, 6, 8, 10]
    assert levels([p for p in points if p.task == "rotnet"]) == [0, *PAPER_LEVELS]


@pytest.mark.parametrize("scale", SETTINGS)
def test_figure_2_prunes_before_or_during_transfer_from_the_same_pre_trained_weights(scale: str) -> None:
    for point in figure("fig2", scale).points:
        step, where = point.step, point.init
        assert (step.task, step.data) == ("labels", SETTINGS[scale].finetune.data)
        assert not step.trunk_frozen
        if where == "from scratch":
            assert isinstance(step.start, Init)
        elif point.level == 0 or where == "pruned in pre-training":
            assert isinstance(step.start, Final)
            assert step.start.of.task == point.task
            assert step.start.of.mask == step.mask
        else:
            start = step.start
            assert isinstance(start, Rewind)
            assert start.samples == 0
            assert isinstance(start.of.start, Final)
            assert start.of.start.of.task == point.task
            assert isinstance(step.mask, Prune)
            assert all(one.data == step.data for one in chain(step.mask))


@pytest.mark.parametrize("name", ["fig4", "fig9"])
@pytest.mark.parametrize("scale", SETTINGS)
def test_layerwise_masks_are_of_one_depth_each(name: str, scale: str) -> None:
    panels: dict[str, set[str]] = {}
    for point in figure(name, scale).points:
        mask = point.step.mask
        if isinstance(mask, Prune):
            panels.setdefault(point.panel, set()).update(
                one.mask.scope for one in [point.step, *chain(mask)] if isinstance(one.mask, Prune)
            )
        elif isinstance(mask, RandomPrune):
            panels.setdefault(point.panel, set()).add(mask.scope)
    assert len(panels) == 4
    assert all(len(scopes) == 1 for scopes in panels.values())
    assert panels["whole network"] == {"all"}


@pytest.mark.parametrize("scale", SETTINGS)
def test_figure_5_prunes_with_few_labels_and_trains_on_all(scale: str) -> None:
    s = SETTINGS[scale]
    points = figure("fig5", scale).points
    panels = list(dict.fromkeys(p.panel for p in points))
    assert len(panels) == 2
    for point in points:
        assert (point.step.task, point.step.data, point.step.recipe) == ("labels", s.data, s.recipes["labels"])
        if isinstance(point.step.mask, Prune):
            pruned_on = point.step.mask.of
            assert pruned_on.task == ("labels" if point.task == "few labels" else point.task)
            part = pruned_on.data.removeprefix(s.data)
            assert part.startswith(":") == (point.task == "few labels")
            if point.task == "s4l":
                labelled = dict(pruned_on.recipe.options).get("labelled", "10%-of-images")  # pyright: ignore
                assert point.panel == "labels of " + str(labelled).replace("-of-", " of the ")


def test_figure_7_rewinds_one_dense_training_to_four_points() -> None:
    points = [p for p in figure("fig7").points if p.level]
    starts = {p.init: p.step.start for p in points}
    assert len({start.of.id for start in starts.values() if isinstance(start, Rewind)}) == 1
    assert {start.samples for start in starts.values() if isinstance(start, Rewind)} == {
        384_000,
        853_333,
        1_920_000,
        3_840_000,
    }


@pytest.mark.parametrize("scale", SETTINGS)
def test_rewind_study_shares_one_dense_training_a_task(scale: str) -> None:
    points = figure("rewind", scale).points
    for task in ("labels", "rotnet"):
        starts = [p.step.start for p in points if p.task == task]
        assert len({start.of.id for start in starts if isinstance(start, Rewind)}) == 1
        candidates = {start.samples for start in starts if isinstance(start, Rewind)}
        assert {0, SETTINGS[scale].rewind[task]} <= candidates
        assert len(candidates) >= (3 if scale == "smoke" else 8)


def test_sparsities_are_the_metrics_of_every_training() -> None:
    assert set(SPARSITIES) == set(metrics.THRESHOLDS)


def test_figures_6_and_10_prune_nothing_and_share_their_trainings() -> None:
    six, ten = figure("fig6").points, figure("fig10").points
    assert all(p.step.mask is None and p.level == 0 for p in (*six, *ten))
    assert {p.step.id for p in six} < {p.step.id for p in ten}
    assert {(p.panel, p.init) for p in six} == {
        (net, data) for net in ("VGG-19", "ResNet-18") for data in ("CIFAR-10", "ImageNet")
    }


def test_figures_share_their_chains() -> None:
    """RotNet's chain of Figure 3 is that of Figures 1, 2 and 5, and the whole network's of Figure 4."""
    names = ("fig1", "fig2", "fig3", "fig4", "fig5")
    chains = [
        {i for i, job in make_plan(figure(name).points).jobs.items() if job.train.task == "rotnet"} for name in names
    ]
    common = set.intersection(*chains)
    assert len(common) == 27  # those that masks down to Figure 4's deepest level, 27, are made from
    assert make_plan([p for name in names for p in figure(name).points]).jobs.keys() >= common
