"""Tasks and their options."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from raysslprune import catalogue
from raysslprune.tasks import find
from raysslprune.tasks.exemplar import Exemplar
from raysslprune.tasks.labels import Labels
from raysslprune.tasks.npid import NPID
from raysslprune.tasks.rotnet import RotNet
from raysslprune.tasks.s4l import S4L
from tests.helpers.tasks import drawn, made_up


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "options", "complaint"),
    [
        ("jigsaw", {}, "task 'jigsaw' is not known; known: labels, rotnet, exemplar, npid, s4l"),
        ("rotnett", {}, "did you mean 'rotnet'"),
        ("rotnet", {"turns": 4}, "task rotnet has no option 'turns'; its options: all_turns"),
        (
            "npid",
            {"seen": 1},
            "task npid has no option 'seen'; its options: dimension, temperature, momentum, negatives",
        ),
        ("npid", {"state": 1}, "has no option 'state'"),
        ("exemplar", {"views": 3}, "has no option 'views'"),
        ("rotnet", {"all_turns": 1}, "option all_turns of task rotnet must be of type bool, not 1"),
        ("exemplar", {"dimension": True}, "of type int, not True"),
        ("exemplar", {"dimension": 2.0}, "of type int, not 2.0"),
        ("exemplar", {"margin": "0.5"}, "of type float, not '0.5'"),
        ("exemplar", {"margin": True}, "of type float, not True"),
        ("exemplar", {"negatives": "hard"}, "negatives 'hard' is not one of random, semi-hard"),
        ("exemplar", {"dimension": 0}, "dimension of at least 1"),
        ("exemplar", {"margin": 0}, "margin above 0"),
        ("npid", {"dimension": 0}, "NPID needs"),
        ("npid", {"negatives": 0}, "NPID needs"),
        ("npid", {"temperature": 0.0}, "NPID needs"),
        ("npid", {"momentum": 1}, "NPID needs"),
        ("npid", {"momentum": -0.1}, "NPID needs"),
        ("s4l", {"weight": 0.0}, "weight above 0"),
        ("s4l", {"labelled": "a tenth"}, "subset 'a tenth' is not of the form '10%-of-images'"),
    ],
)
def test_what_a_task_does_not_know_is_refused_with_a_sentence(
    name: str, options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        find(name, options)


def test_each_task_has_the_options_that_are_known_without_torch() -> None:
    """Or a misspelt one would be found by the first training."""
    assert catalogue.OPTIONS.keys() == catalogue.TASKS.keys()
    for name, known in catalogue.OPTIONS.items():
        task = find(name)
        assert isinstance(task, known)
        own = {field.name for field in dataclasses.fields(task) if field.init}
        assert own == {field.name for field in dataclasses.fields(known)}


def test_options_reach_the_task() -> None:
    assert find("exemplar", {"margin": 1, "negatives": "semi-hard"}) == Exemplar(margin=1, negatives="semi-hard")
    assert find("npid", {"momentum": 0}) == NPID(momentum=0)
    assert find("rotnet", {"all_turns": True}) == RotNet(all_turns=True)


@pytest.mark.parametrize(
    ("task", "outputs"),
    [(Labels(), 3), (RotNet(), 4), (Exemplar(dimension=7), 7), (NPID(dimension=6), 6), (S4L(), 7)],
)
def test_heads_have_the_outputs_that_the_loss_wants(task: Any, outputs: int) -> None:
    task.begin(made_up(), torch.Generator())
    head = task.head(5, made_up())
    assert isinstance(head, nn.Linear)
    assert (head.in_features, head.out_features) == (5, outputs)


def test_a_standardised_head_has_a_norm_without_weights_first() -> None:
    head = Labels(standardise=True).head(5, made_up())
    features = drawn(20, 5).float() * 3 + 7
    normed = (features - features.mean(0)) / (features.var(0, unbiased=False) + 1e-5).sqrt()
    last = list(head.children())[-1]
    torch.testing.assert_close(head(features), last(normed))
    assert len(list(head.parameters())) == 2
