"""The points of each figure against the paper's text, said in plain steps."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from raysslprune.figures.curves import draw
from raysslprune.figures.style import NAMES
from raysslprune.paper.experiments import (
    BASELINES,
    CONTROLS,
    ERK,
    NONZERO,
    RANDOM,
    REINIT,
    SHUFFLED,
    TICKET,
    claims_on,
)
from raysslprune.paper.recipes import APPENDIX_D
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.graph import make_plan
from raysslprune.results.claims import CONTRADICTED, HOLDS, UNDECIDED, judge
from raysslprune.spec import SVM, Final, Init, Mask, Prune, RandomPrune, Recipe, Rewind, Shuffle, Train, closure
from raysslprune.sweep_loader import Sweep, known, load
from raysslprune.sweepfile import Curve, Figure, Point
from tests.helpers.tables import LEVELS, line, means, names, points, rows, table

PAPER_LEVELS = [1, 2, 3, 4, 6, 8, 10, 12, 15, 18, 21, 24, 27, 30]


def figure(name: str, scale: str = "paper", seeds: int = 1) -> Sweep:
    return load(name, scale, seeds)


def chain(mask: Mask) -> list[Train]:
    """The trainings behind an iterative mask, last first."""
    trainings: list[Train] = []
    step: Mask | None = mask
    while step is not None:
        assert isinstance(step, Prune)
        assert isinstance(step.of, Train)
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


def test_figure_3_has_both_data_sets_all_curves_and_14_rates() -> None:
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
            kinds = {RANDOM: RandomPrune, ERK: RandomPrune, **dict.fromkeys(SHUFFLED, Shuffle)}
            assert isinstance(point.step.mask, kinds.get(point.task, Prune))


@pytest.mark.parametrize("name", ["fig3", "fig8"])
def test_controls_are_random_masks_with_each_layers_density_and_with_those_of_erk(name: str) -> None:
    """As sparse as the masks that they are compared with, and drawn thin."""
    sweep = figure(name, "laptop")
    assert isinstance(sweep.drawing, Figure)
    assert sweep.drawing.controls == CONTROLS == ("shuffled labels", "shuffled rotnet", "random erk")
    masks = {(p.panel, p.task, p.level): p.step.mask for p in sweep.points if p.init == REINIT}
    controls = {key: mask for key, mask in masks.items() if key[1] in CONTROLS}
    assert len(controls) == 3 * 7 * len({p.panel for p in sweep.points})
    for (panel, task, level), mask in controls.items():
        if task == ERK:
            plain = masks[panel, RANDOM, level]
            assert isinstance(plain, RandomPrune)
            assert mask == replace(plain, allocation="erk")
        else:
            assert isinstance(mask, Shuffle)
            assert mask.of == masks[panel, task.removeprefix("shuffled "), level]


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
        assert isinstance(step.start.of, Train)
        assert step.start.of.task == key[1]
        assert step.start.of.mask == step.mask == control[key].mask
        assert control[key].start == Init(seed=0)
        assert control[key].trunk_frozen
    assert {p.metric for p in points if isinstance(p.step.recipe, SVM)} == {"map"}


def test_figure_1_of_the_paper_has_its_three_data_sets_and_no_sparse_npid() -> None:
    """NPID is not pruned past a tenth, which is between levels 10 (10.7%) and 11 (8.6%)."""
    points = figure("fig1").points
    assert {p.step.data for p in points} == {"voc07/whole", "places205", "imagenet"}
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
            assert isinstance(step.start.of, Train)
            assert step.start.of.task == point.task
            assert step.start.of.mask == step.mask
        else:
            start = step.start
            assert isinstance(start, Rewind)
            assert start.samples == 0
            assert isinstance(start.of.start, Final)
            assert isinstance(start.of.start.of, Train)
            assert start.of.start.of.task == point.task
            assert isinstance(step.mask, Prune)
            assert all(one.data == step.data for one in chain(step.mask))


def test_every_recipe_of_appendix_d_trains_a_network_of_some_figure() -> None:
    """At scale paper, which has them in TF32; S4L says which images have labels."""
    used: set[tuple[str, str, str, Recipe]] = set()
    for name in known():
        for step in closure(point.step for point in figure(name).points):
            if isinstance(step, Train) and isinstance(step.recipe, Recipe):
                options = {key: value for key, value in dict(step.recipe.options).items() if key != "labelled"}
                used.add((step.task, step.data, step.arch, replace(step.recipe, precision="float32", options=options)))
    wanted = {(t, row.data, arch, row.recipe) for row in APPENDIX_D for t in row.tasks for arch in row.archs}
    assert wanted - used == set()


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
            assert isinstance(pruned_on, Train)
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
        assert len(candidates) == (12 if scale == "smoke" else 16)


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
    assert len(common) == 30  # those that masks down to the deepest level are made from
    assert make_plan([p for name in names for p in figure(name).points]).jobs.keys() >= common


# ------------------------------------------------------------------------------------- claims on random masks


def both_baselines(panels: dict[str, tuple[float, float]]) -> list[dict[str, object]]:
    """RotNet's masks at 50%, and in each panel plain and adjusted random masks this much below; seeds differ a little.

    The gaps grow by a tenth with each level.
    """
    some = []
    for panel, gaps in panels.items():
        at = {(RANDOM, REINIT): gaps[0], (NONZERO, REINIT): gaps[1], ("rotnet", TICKET): 0.0, ("rotnet", REINIT): 0.0}
        for row in rows(at, panel=panel):
            gap = at[row["task"], row["init"]] * (1 + 0.1 * LEVELS.index(row["level"]))
            some.append({**row, "value": 50 - gap + 0.01 * row["seed"] * (gap > 0)})
    return some


def test_claims_compare_with_the_random_masks_adjusted_for_natural_zeros_where_a_network_has_any() -> None:
    """On CIFAR-10 the adjusted masks are as good as RotNet's, the plain ones far worse; on ImageNet the reverse."""
    s = SETTINGS["paper"]
    imagenet, cifar = s.net, s.others["resnet18"]
    made = both_baselines({imagenet.title: (20.0, -3.0), cifar.title: (20.0, -3.0)})
    claims = [claim for claim in claims_on("rotnet", [imagenet, cifar], 2.0) if "random pruning" in claim.says]
    found = [(v.panel, v.claim.says, v.verdict) for v in judge(claims, table(made))]
    above = "Winning tickets found on RotNet remain way above random pruning"
    gap = "The gap between RotNet and random pruning{} increases when the network is severely pruned"
    adjusted = " adjusted for natural zeros"
    assert found == [
        (imagenet.title, above, HOLDS),
        (cifar.title, above + adjusted, CONTRADICTED),
        (imagenet.title, gap.format(""), HOLDS),
        (cifar.title, gap.format(adjusted), CONTRADICTED),
    ]
    made = both_baselines({imagenet.title: (-3.0, 20.0), cifar.title: (-3.0, 20.0)})
    assert [v.verdict for v in judge(claims, table(made))] == [CONTRADICTED, HOLDS, CONTRADICTED, HOLDS]


def test_claims_do_not_fall_back_on_the_plain_baseline() -> None:
    """Where trainings of the adjusted masks are missing, there is no verdict, but the panel is named."""
    s = SETTINGS["paper"]
    imagenet, cifar = s.net, s.others["resnet18"]
    made = both_baselines({imagenet.title: (20.0, 3.0), cifar.title: (20.0, 3.0)})
    plain = [row for row in made if row["task"] != NONZERO]
    claims = [claim for claim in claims_on("rotnet", [imagenet, cifar], 2.0) if "remain way above" in claim.says]
    of_both, of_imagenet = table(plain), table(row for row in plain if row["panel"] == imagenet.title)
    for some in (of_both, of_imagenet):
        assert [(v.panel, v.verdict) for v in judge(claims, some)] == [
            (imagenet.title, HOLDS),
            (cifar.title, UNDECIDED),
        ]


@pytest.mark.parametrize("scale", SETTINGS)
@pytest.mark.parametrize("name", ["fig3", "fig8"])
def test_each_panel_of_figures_3_and_8_is_compared_with_one_random_baseline(name: str, scale: str) -> None:
    sweep = figure(name, scale)
    panels = {point.panel for point in sweep.points}
    adjusted = {point.panel for point in sweep.points if point.task == NONZERO}
    assert bool(adjusted) == (scale in ("cifar10", "cifar10-fast", "paper"))
    for word in ("way above", "The gap"):
        for task in ("RotNet", "Exemplar"):
            claims = [claim for claim in sweep.claims if word in claim.says and task in claim.says]
            lower = {claim.lower for claim in claims if isinstance(claim.lower, Curve)}
            assert {(curve.panel, curve.task) for curve in lower} == {
                (panel, NONZERO if panel in adjusted else RANDOM) for panel in panels
            }
            assert all(("natural zeros" in c.says) == (c.higher.panel in adjusted) for c in claims)  # pyright: ignore


@pytest.mark.parametrize(("gap", "verdict"), [(2.0, HOLDS), (-2.0, CONTRADICTED)])
@pytest.mark.parametrize("task", ["labels", "rotnet"])
def test_masks_are_compared_with_their_own_shuffle(task: str, gap: float, verdict: str) -> None:
    (claim,) = (c for c in figure("fig3", "laptop").claims if "shuffled" in c.says and c.higher.task == task)  # pyright: ignore
    assert claim.source == "not in the paper"
    some = rows([(name, REINIT) for name in ("labels", "rotnet", *SHUFFLED)])
    for row in some:
        row["value"] = 50 + 0.1 * row["seed"] - (gap + 0.01 * row["seed"]) * (row["task"] == f"shuffled {task}")
    (found,) = judge([claim], table(some))
    assert (found.verdict, found.panel) == (verdict, "")


def test_ticket_panels_show_both_random_baselines() -> None:
    """Those that the scale has: natural zeros are on CIFAR-10 with the paper's recipes."""
    for scale, shown in (("cifar10", BASELINES), ("laptop", BASELINES[:1])):
        sweep = figure("fig3", scale)
        assert isinstance(sweep.drawing, Figure)
        curves = [(p.task, p.init) for p in sweep.points if p.level]
        canvas = draw(sweep.drawing, table(rows(dict.fromkeys(curves))))
        _, tickets = canvas.axes
        for curve in BASELINES:
            label = NAMES[curve.task]
            assert (label in names(tickets)) == (curve in shown)
            if curve in shown:
                assert np.allclose(points(line(tickets, label)), means(curve.task, REINIT))


# ------------------------------------------------------------------------------------- tasks of today

TODAY = ("rotnet", "simclr", "moco", "byol", "vicreg")


@pytest.mark.parametrize("scale", SETTINGS)
def test_figures_1_and_3_with_the_tasks_of_today(scale: str) -> None:
    """The same levels, controls and, task by task, the same claims as in the paper's figures."""
    for number in (1, 3):
        new, papers = figure(f"fig{number}-today", scale), figure(f"fig{number}", scale)
        first = {point.panel for point in papers.points if point.panel in {p.panel for p in new.points}}
        one, other = ([p for p in sweep.points if p.panel in first] for sweep in (new, papers))
        for task in TODAY:
            wanted = {(p.panel, p.init, p.level) for p in other if p.task == "rotnet"}
            assert {(p.panel, p.init, p.level) for p in one if p.task == task} == wanted
        rest = ({p.step.id for p in points if p.task not in {*TODAY, "exemplar", "npid"}} for points in (one, other))
        assert next(rest) == next(rest), "controls and labels are the same trainings"
        chains = {p.task: p.step.mask for p in one if p.task in TODAY and isinstance(p.step.mask, Prune)}
        assert {task: chain(mask)[0].task for task, mask in chains.items()} == {task: task for task in TODAY}
        says = [claim.says for claim in new.claims]
        assert len(says) == len(set(says))
        of_papers = papers.claims if number == 1 else claims_on("exemplar", [SETTINGS[scale].net], 2.0)
        wanted = [claim.says for claim in of_papers if "Exemplar" in claim.says]
        assert len(wanted) > 4
        for name in ("RotNet", "SimCLR", "MoCo v2", "BYOL", "VICReg"):
            assert {sentence.replace("Exemplar", name) for sentence in wanted} <= set(says)
        curves = {(point.task, point.init) for point in new.points}
        for claim in new.claims:
            for side in (claim.higher, claim.lower):
                if isinstance(side, Curve):
                    assert (side.task, side.init) in curves


# ------------------------------------------------------------------------------------- other criteria


@pytest.mark.parametrize("scale", SETTINGS)
def test_masks_at_initialisation_train_nothing_and_others_one_dense_network_a_task(scale: str) -> None:
    """Besides, every mask of a level keeps the same fraction, and is trained from one network's first weights."""
    points = figure("criteria", scale).points
    at_start = [p for p in points if isinstance(p.step.mask, Prune) and p.step.mask.at == 0]
    assert {p.panel for p in at_start} == {"SNIP", "GraSP", "SynFlow"}
    plan = make_plan(at_start)
    assert {job.train for job in plan.jobs.values()} == {p.step for p in at_start}
    trained = {job.train.task for job in make_plan(points).jobs.values() if job.after}
    assert trained == {"labels", "rotnet"}
    assert sum(bool(job.after) for job in make_plan(points).jobs.values()) == 2
    assert {p.step.start for p in points} == {Init(seed=0)}
    for point in points:
        assert point.step.target_density == pytest.approx(SETTINGS[scale].keep ** point.level)
        if isinstance(mask := point.step.mask, Shuffle):
            assert mask.of == next(
                p.step.mask
                for p in points
                if (p.panel, p.level, f"shuffled {p.task}") == (point.panel, point.level, point.task)
            )


def test_claims_on_criteria_have_their_curves_and_sources() -> None:
    sweep = figure("criteria", "laptop")
    says = {claim.says: claim for claim in sweep.claims}
    frankle = [claim for claim in sweep.claims if claim.source.startswith("Frankle et al. 2021")]
    assert len(says) == len(sweep.claims) == 7 * 4 + 3
    assert (
        len(frankle) == 3 * 3
    )  # for SNIP, GraSP and SynFlow: beats chance, loses nothing by a shuffle, below magnitude
    assert all(claim.source == "not in the paper" for claim in sweep.claims if claim not in frankle)
    shuffle = says["Masks by SNIP on RotNet are not better than the same masks shuffled within each layer"]
    assert (str(shuffle.higher), str(shuffle.lower)) == (
        "shuffled rotnet initial weights of SNIP",
        "rotnet initial weights of SNIP",
    )
