"""Each criterion against loops over single weights in float64, and against torch.nn.utils.prune."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

from raysslprune import catalogue, criteria, masks, models
from raysslprune.messages import UserError
from raysslprune.spec import CRITERIA, Prune
from raysslprune.store.record import snapshot_name
from raysslprune.training import judge
from tests.helpers.judged import RECIPE, batches, double, evidence, full, loss, trained, training

STEP = 1e-5
Weights = dict[str, Tensor]


def judged(criterion: str, samples: int = 512, **fields: object) -> Prune:
    given = {"samples": samples} if samples != 512 else {}
    return Prune(of=training(), keep=0.5, criterion=criterion, **given, **fields)  # pyright: ignore[reportArgumentType]


def some_mask() -> masks.Mask:
    """A third of the weights pruned before."""
    return {name: (torch.arange(m.numel()) % 3 > 0).view(m.shape) for name, m in full().items()}


def by_differences(function: Callable[[Weights], float], weights: Weights, step: float = STEP) -> Weights:
    """The gradient, weight by weight."""
    found = {name: torch.zeros_like(w) for name, w in weights.items()}
    for name, weight in weights.items():
        for place in range(weight.numel()):
            sides = []
            for sign in (1, -1):
                moved = {other: w.clone() for other, w in weights.items()}
                moved[name].view(-1)[place] += sign * step
                sides.append(function(moved))
            found[name].view(-1)[place] = (sides[0] - sides[1]) / (2 * step)
    return found


def close(scores: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = 1e-3) -> None:
    assert scores.keys() == expected.keys()
    largest = max(float(e.abs().max()) for e in expected.values())
    for name, score in scores.items():
        torch.testing.assert_close(score.double(), expected[name], rtol=tolerance, atol=tolerance * largest)
    assert largest > 0


def test_the_names_of_criteria_are_those_with_code() -> None:
    assert set(CRITERIA) == set(catalogue.CRITERIA)


@pytest.mark.parametrize("mask", [full(), some_mask()], ids=["dense", "pruned before"])
def test_magnitudes_by_lists(mask: masks.Mask) -> None:
    step = judged("magnitude")
    weights = double(trained(step.of), mask)
    lists = {name: w.flatten().tolist() for name, w in weights.items()}
    sizes = {name: torch.tensor([abs(x) for x in values]).view(weights[name].shape) for name, values in lists.items()}
    close(criteria.scores("magnitude", evidence(step, mask)), {n: s.double() for n, s in sizes.items()}, 1e-6)
    norms = {name: math.sqrt(sum(x * x for x in values)) for name, values in lists.items()}
    relative = {name: sizes[name].double() / norms[name] for name in lists}
    close(criteria.scores("relative-magnitude", evidence(step, mask)), relative, 1e-6)


def test_a_layer_of_zeros_has_relative_magnitudes_of_zero() -> None:
    nothing = {name: m & (name != "conv.weight") for name, m in full().items()}
    scores = criteria.scores("relative-magnitude", evidence(judged("relative-magnitude"), nothing))
    assert not scores["conv.weight"].any()


@pytest.mark.parametrize("since", [None, 20])
def test_movement_is_counted_from_the_start_or_a_snapshot(since: int | None) -> None:
    step = judged("movement", since=since)
    last, middle = trained(step.of), {name: t * 0.5 for name, t in trained(step.of).items()}
    files = {"weights.safetensors": {name: t * 3 for name, t in last.items()}, snapshot_name(20): middle}
    known = evidence(step, some_mask(), files)
    factor = 2.0 if since is None else 2.5  # 3 w - w, as the start is as drawn; 3 w - w / 2
    expected = {name: factor * w.abs() for name, w in double(last, some_mask()).items()}
    close(criteria.scores("movement", known), expected, 1e-5)


@pytest.mark.parametrize("mask", [full(), some_mask()], ids=["dense", "pruned before"])
@pytest.mark.parametrize("samples", [10, 25])
def test_snip_and_taylor_by_finite_differences(mask: masks.Mask, samples: int) -> None:
    """SNIP in evaluation mode, Taylor in training mode. With 25 samples there are batches of 10, 10 and 5."""
    step = judged("snip", samples)
    state = trained(step.of)
    weights, some = double(state, mask), batches(step)
    assert [len(labels) for _, labels in some] == [10] * (samples // 10) + [5] * (samples > 10)
    slope = {name: torch.zeros_like(w) for name, w in weights.items()}
    squares = {name: torch.zeros_like(w) for name, w in weights.items()}
    for batch in some:
        share = len(batch[1]) / samples
        still = by_differences(lambda w, batch=batch: float(loss(w, state, [batch], training=False)), weights)
        one = by_differences(lambda w, batch=batch: float(loss(w, state, [batch])), weights)
        for name in weights:
            slope[name] += share * still[name]
            squares[name] += share * (one[name] * weights[name]) ** 2
    close(criteria.scores("snip", evidence(step, mask)), {n: (slope[n] * w).abs() for n, w in weights.items()})
    close(criteria.scores("taylor", evidence(step, mask)), squares)


@pytest.mark.parametrize("mask", [full(), some_mask()], ids=["dense", "pruned before"])
def test_grasp_by_finite_differences_of_the_gradients_norm(mask: masks.Mask) -> None:
    """w H g is half of the change of |g|², to first order, as the weight grows by its own size."""
    step = judged("grasp", 20)
    state = trained(step.of)
    weights, some = double(state, mask), batches(step)

    def squared_norm(moved: Weights) -> float:
        leaves = {name: w.detach().requires_grad_() for name, w in moved.items()}
        slopes = torch.autograd.grad(loss(leaves, state, some), list(leaves.values()))
        return float(sum(s.square().sum() for s in slopes))

    change = by_differences(squared_norm, weights, 1e-6)
    scores = criteria.scores("grasp", evidence(step, mask))
    close(scores, {name: change[name] / 2 * w for name, w in weights.items()}, 2e-3)
    assert any((score < 0).any() for score in scores.values())


def flow(weights: Weights, state: Mapping[str, Tensor]) -> float:
    """The sum of outputs for an image of ones, with magnitudes of all parameters, by loops."""
    rest = {name: t.double().abs() for name, t in state.items()}
    conv, linear = weights["conv.weight"].abs(), weights["linear.weight"].abs()
    features = []
    for channel in range(3):
        value = float(conv[channel].sum())  # every pixel is 1
        spread = math.sqrt(float(rest["trunk.norm.running_var"][channel]) + 1e-5)
        value = value / spread * float(rest["trunk.norm.weight"][channel]) + float(rest["trunk.norm.bias"][channel])
        features.append(value)
    outputs = 0.0
    for row in range(4):
        hidden = sum(float(linear[row, c]) * features[c] for c in range(3)) + float(rest["trunk.linear.bias"][row])
        outputs += hidden * float(rest["head.weight"][:, row].sum())
    return outputs + float(rest["head.bias"].sum())


@pytest.mark.parametrize("mask", [full(), some_mask()], ids=["dense", "pruned before"])
def test_synflow_by_single_paths(mask: masks.Mask) -> None:
    """The flow is linear in each weight's magnitude, so a weight's score is the flow that is lost without it."""
    step = judged("synflow")
    state = trained(step.of)
    weights = double(state, mask)
    expected = {name: torch.zeros_like(w) for name, w in weights.items()}
    for name, weight in weights.items():
        for place in range(weight.numel()):
            without = {other: w.clone() for other, w in weights.items()}
            without[name].view(-1)[place] = 0
            expected[name].view(-1)[place] = flow(weights, state) - flow(without, state)
    close(criteria.scores("synflow", evidence(step, mask)), expected, 1e-6)


def test_synflow_needs_no_gradients_and_no_data() -> None:
    known = evidence(judged("synflow"))
    known.batch_gradients = known.batches = None  # pyright: ignore[reportAttributeAccessIssue]
    assert criteria.scores("synflow", known)


def test_passes_of_synflow_empty_no_layer_where_one_pass_does() -> None:
    """The reason for passes (Tanaka et al. 2020): with few weights left, one pass collapses a layer."""
    left = {}
    for passes in (1, 100):
        step = Prune(of=training(), keep=6 / 66, criterion="synflow", passes=passes, at=0)
        made, _ = judge.prune(step, evidence(step), list(full()), torch.Generator())
        assert masks.left(made) == 6
        left[passes] = {name: int(m.sum()) for name, m in made.items()}
    assert min(left[100].values()) > 0
    assert judge.PASSES["synflow"] == 100


def test_each_pass_judges_what_the_last_one_left(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    step = Prune(of=training(), keep=0.25, criterion="snip", samples=10, passes=2, at=0)

    def scores(name: str, state: criteria.State) -> masks.Scores:
        seen.append(masks.left(state.mask))
        assert all(not w[~state.mask[n]].any() for n, w in state.weights.items())
        return {n: w.abs() for n, w in state.weights.items()}

    monkeypatch.setattr(criteria, "scores", scores)
    made, _ = judge.prune(step, evidence(step), list(full()), torch.Generator())
    assert seen == [66, 33]
    assert masks.left(made) == 16  # round(16.5), to even


@pytest.mark.parametrize("criterion", ["snip", "grasp", "taylor", "synflow", "relative-magnitude"])
def test_masks_are_torchs_for_the_same_scores(criterion: str) -> None:
    passes = 1 if criterion == "synflow" else None
    step = judged(criterion, 20 if criterion in ("snip", "grasp", "taylor") else 512, passes=passes)
    known = evidence(step)
    scores = criteria.scores(criterion, known)
    made, tied = judge.prune(step, known, list(full()), torch.Generator())
    assert not tied
    layers = {"conv.weight": nn.Conv2d(2, 3, 3, bias=False), "linear.weight": nn.Linear(3, 4)}
    lowest = min(float(score.min()) for score in scores.values())
    torch_prune.global_unstructured(  # pyright: ignore[reportArgumentType]
        [(layer, "weight") for layer in layers.values()],
        torch_prune.L1Unstructured,
        importance_scores={(layers[name], "weight"): score - lowest for name, score in scores.items()},
        amount=33,
    )
    for name, layer in layers.items():
        assert torch.equal(made[name], layer.get_buffer("weight_mask").bool())


def test_the_samples_are_drawn_by_the_steps_own_seed() -> None:
    steps = [judged("snip", 10), judged("snip", 10), Prune(of=training(), keep=0.4, criterion="snip", samples=10)]
    one, same, other = (criteria.scores("snip", evidence(step)) for step in steps)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)


def test_gradients_are_of_the_chains_own_task() -> None:
    """RotNet's loss, not that of labels."""
    step = Prune(of=training("rotnet"), keep=0.5, criterion="snip", samples=10, at=0)
    labels = Prune(of=training("labels"), keep=0.5, criterion="snip", samples=10, at=0)
    of_turns, of_labels = (criteria.scores("snip", evidence(one)) for one in (step, labels))
    assert not torch.allclose(of_turns["conv.weight"], of_labels["conv.weight"], rtol=0.1)


def test_a_last_batch_of_one_joins_the_one_before() -> None:
    step = judged("snip", 21)
    known = evidence(step)
    assert [len(batch[0]) for _, batch in known.batches(known.new_task(known.data))] == [10, 11]


def test_a_task_with_a_memory_is_judged_at_snapshots_only() -> None:
    recipe = {"recipe": RECIPE.__class__(samples=60, batch=10, lr=0.1, options={"dimension": 4, "negatives": 3})}
    last = Prune(of=training("npid", **recipe), keep=0.5, criterion="snip", samples=10)
    with pytest.raises(UserError, match="prune with at=60 instead of the final weights"):
        criteria.scores("snip", evidence(last))
    at_start = Prune(of=training("npid", **recipe), keep=0.5, criterion="snip", samples=10, at=0)
    assert criteria.scores("snip", evidence(at_start))["conv.weight"].any()


@pytest.mark.parametrize("task", ["simclr", "vicreg", "moco", "byol"])
def test_newer_tasks_are_judged_with_their_average_under_the_mask(task: str) -> None:
    """21 samples in batches of 10 and 11; of MoCo and BYOL only the first state is there without a snapshot."""
    options = {"dimension": 4, "hidden": 6, **({"queue": 7} if task == "moco" else {})}
    recipe = RECIPE.__class__(samples=60, batch=10, lr=0.1, pad=1, options=options)
    step = Prune(of=training(task, recipe=recipe), keep=0.5, criterion="snip", samples=21, at=0)
    known = evidence(step, some_mask())
    scores = criteria.scores("snip", known)
    assert all(scores[name][keep].any() and not scores[name][~keep].any() for name, keep in some_mask().items())
    twin = known.loaded(training=True)[1].twin()
    assert (twin is not None) == (task in ("moco", "byol"))
    for name, weight in models.prunable(twin).items() if twin is not None else ():
        torch.testing.assert_close(weight, known.weights[name])


# ------------------------------------------------------------------------------------- one's own


def gained(weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], mask: masks.Mask) -> dict[str, Tensor]:
    return {name: -(w * gradients[name]) * mask[name] for name, w in weights.items()}


def cube(weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], mask: masks.Mask) -> dict[str, Tensor]:
    return {name: w.abs() ** 3 for name, w in weights.items()}


def too_few(weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], mask: masks.Mask) -> dict[str, Tensor]:
    return {"conv.weight": weights["conv.weight"]}


HERE = "tests.unit.criteria.test_criteria:"


def test_ones_own_function_gets_weights_gradients_and_mask() -> None:
    step = Prune(of=training(), keep=0.5, criterion=f"{HERE}gained", samples=20, at=0)
    known = evidence(step, some_mask())
    scores = criteria.scores(step.criterion, known)
    expected = {n: -known.weights[n].double() * known.gradients[n] * m for n, m in some_mask().items()}
    close(scores, expected, 1e-6)
    made, _ = judge.prune(step, known, list(full()), torch.Generator())
    assert masks.left(made) == round(masks.left(some_mask()) * 0.5)


def test_gradients_that_ones_own_function_does_not_read_are_not_computed() -> None:
    known = evidence(Prune(of=training(), keep=0.5, criterion=f"{HERE}cube"))
    known.batches = None  # pyright: ignore[reportAttributeAccessIssue]
    assert criteria.scores(f"{HERE}cube", known).keys() == full().keys()


def test_scores_that_do_not_fit_are_refused() -> None:
    step = Prune(of=training(), keep=0.5, criterion=f"{HERE}too_few")
    with pytest.raises(ValueError, match=r"a score for each weight, but linear.weight has no tensor of shape \(4, 3\)"):
        criteria.scores(step.criterion, evidence(step))
