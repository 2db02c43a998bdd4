"""Number of workers of a training, and what a cluster can hold."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raysslprune.cluster.options import Capacity, RunOptions
from raysslprune.cluster.ray_thread import ClusterError
from raysslprune.paper.recipes import APPENDIX_D
from raysslprune.spec import Recipe


def has(cpus: float = 64, gpus: float = 0) -> Capacity:
    return Capacity(cpus=cpus, gpus=gpus)


def test_on_cores_a_training_has_one_worker_unless_told_otherwise() -> None:
    assert RunOptions().workers(16, has()) == 1
    assert RunOptions(workers_per_step=4).workers(16, has()) == 4


def test_on_gpus_it_has_the_papers_number_where_there_are_so_many() -> None:
    """Appendix D states the number of GPUs for each ImageNet recipe."""
    for row in APPENDIX_D:
        if isinstance(row.recipe, Recipe) and row.gpus > 1:
            assert RunOptions(gpus_per_worker=1).workers(row.recipe.parts, has(gpus=32)) == row.gpus, row
    assert {row.gpus for row in APPENDIX_D} >= {8, 16, 32}


@pytest.mark.parametrize(
    ("parts", "limit", "expected"),
    [(16, 16, 16), (16, 15, 8), (16, 1, 1), (12, 5, 4), (12, 11, 6), (7, 6, 1), (1, 100, 1)],
)
def test_parts_are_shared_evenly(parts: int, limit: int, expected: int) -> None:
    assert RunOptions(workers_per_step=limit).workers(parts, has()) == expected
    assert RunOptions(gpus_per_worker=1).workers(parts, has(cpus=200, gpus=limit)) == expected


def test_workers_of_a_cluster() -> None:
    assert has(cpus=3.5).workers(0) == 3
    assert has(cpus=64, gpus=8).workers(1) == 8
    assert has(cpus=64, gpus=8).workers(0.25) == 32
    assert has(cpus=6, gpus=8).workers(1) == 6, "each needs a core, too"


@pytest.mark.parametrize(
    ("options", "there", "sentence"),
    [
        (
            RunOptions(gpus_per_worker=1),
            has(cpus=2),
            "a step needs 1 GPU and a core; this cluster has 0 GPUs and 2 cores "
            "at most; --gpus-per-worker 0 computes on cores",
        ),
        (
            RunOptions(gpus_per_worker=0.5),
            has(cpus=0, gpus=0),
            "a step needs 0.5 GPU and a core; this cluster has 0 GPUs and 0 ",
        ),
        (
            RunOptions(workers_per_step=8),
            has(cpus=2),
            "a step needs 8 workers with a core each; this cluster has 0 GPUs and 2 cores at most; "
            "reduce --workers-per-step",
        ),
        (
            RunOptions(workers_per_step=8, gpus_per_worker=1),
            has(gpus=4),
            "a step needs 8 workers with 1 GPU each; this cluster has 4 GPUs",
        ),
        (
            RunOptions(),
            has(cpus=0.5),
            "a step needs a core; this cluster has 0 GPUs and 0.5 cores at most; start Ray with more",
        ),
    ],
)
def test_what_a_cluster_can_never_hold_is_said(options: RunOptions, there: Capacity, sentence: str) -> None:
    with pytest.raises(ClusterError) as caught:
        options.check({1, 16}, there)
    assert str(caught.value).startswith(sentence)


def test_a_limit_that_is_too_low_or_lacking_is_named() -> None:
    """``slots`` is a limit, and what an unknown autoscaler may be asked for."""
    grows = replace(has(cpus=0), most=has(cpus=64), machine=has(cpus=8))
    for there, options, advice in (
        (grows, RunOptions(workers_per_step=16, slots=8), "raise --slots"),
        (has(cpus=0), RunOptions(), "start Ray with more; if it grows by itself, --slots N says how far"),
        (has(cpus=8), RunOptions(workers_per_step=16), "; if it grows by itself, --slots N says how far"),
    ):
        with pytest.raises(ClusterError, match=f"{advice}$"):
            options.check({16}, there)
    RunOptions(workers_per_step=16).check({16}, grows)
    RunOptions(slots=16, workers_per_step=16).check({16}, has(cpus=0))
    RunOptions(slots=2, gpus_per_worker=1).check({16}, has(cpus=0))
    assert RunOptions(slots=2, gpus_per_worker=1).workers(16, has(cpus=0)) == 2


def test_what_fits_is_not_complained_about() -> None:
    RunOptions(workers_per_step=8).check({1, 16}, has(cpus=8))
    RunOptions(workers_per_step=800).check({1, 16}, has(cpus=16))
    RunOptions(gpus_per_worker=1).check({1, 16}, has(gpus=1))
