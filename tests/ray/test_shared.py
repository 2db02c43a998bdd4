"""Masks through Ray's object store on a real Ray, and the death of each process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raysslprune import masks
from raysslprune.cluster import nodes
from raysslprune.cluster.shared import Exchange
from raysslprune.spec import RandomPrune
from raysslprune.store.steps import Store
from raysslprune.training.runner import Runner
from tests.helpers.processes import wait_until

ray = nodes.ray


@pytest.fixture(scope="module")
def board() -> Iterator[Exchange]:
    with nodes.connected(cpus=1):
        yield Exchange.start()


def put_by_another(mask_id: str, size: int = 1_000_000) -> None:
    """A process that puts a mask, as a trial does, is killed."""

    class Producer:  # inside, so that it travels by value: the worker can't import this file
        def put(self) -> None:
            board = Exchange.connect()
            board.put(mask_id, {"a": np.arange(size, dtype=np.uint32).view(np.uint8)})
            assert board.get(mask_id) is not None  # calls of one caller come in order: it has arrived

    producer: Any = ray.remote(Producer).options(num_cpus=0).remote()
    ray.get(producer.put.remote())
    ray.kill(producer)


def test_rays_head_keeps_no_record_of_its_calls(board: Exchange) -> None:
    """There are several for each job, of 3 kB each; those that Ray keeps are for the dashboard."""
    calls = [name for name in dir(board.actor) if not name.startswith("_")]
    assert {"put", "get", "report", "forget", "training"} <= set(calls)
    assert [name for name in calls if getattr(board.actor, name)._enable_task_events] == []


def test_a_mask_outlives_the_process_that_put_it(board: Exchange) -> None:
    put_by_another("outlives")
    packed = board.get("outlives")
    assert packed is not None
    assert np.array_equal(packed["a"].view(np.uint32), np.arange(1_000_000, dtype=np.uint32))


def test_it_comes_without_a_copy(board: Exchange) -> None:
    put_by_another("shared")
    packed = board.get("shared")
    assert packed is not None
    assert not packed["a"].flags.owndata
    assert not packed["a"].flags.writeable


def test_what_is_not_there_is_none(board: Exchange) -> None:
    assert board.get("never put") is None


def test_progress_is_told_and_forgotten(board: Exchange) -> None:
    board.report("job", 3, 10)
    assert board.training() == {"job": (3, 10)}
    board.forget("job")
    assert board.training() == {}


def test_when_the_actor_dies_the_file_is_read(board: Exchange, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "runs"))
    store.create()
    step = RandomPrune(arch="conv4", data="digits", keep=0.5, level=3, seed=0)
    first = Runner(store=store, exchange=board).masks.get(step)
    packed = board.get(step.id)
    assert packed is not None
    name = next(iter(first))
    assert np.array_equal(packed[name], np.packbits(first[name].flatten().numpy()))
    ray.kill(board.actor, no_restart=False)
    time.sleep(3)  # what is called in the very moment of the death Ray may leave without an answer
    again = Runner(store=store, exchange=board).masks.get(step)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert masks.density(again) == pytest.approx(0.125, abs=1e-4)

    def put_again() -> bool:  # into the restarted, empty actor; what is put before it has started is lost
        Runner(store=store, exchange=board).masks.get(step)
        return board.get(step.id) is not None

    wait_until(put_again)
