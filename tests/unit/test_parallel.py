"""What several processes agree on: two of them, by gloo, against one that does the work of both."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import Tensor

from raysslprune import parallel
from raysslprune.data import Dataset, Resident
from raysslprune.tasks.npid import NPID
from tests.helpers.processes import on_ranks

RANKS, PART, UPDATES = 2, 6, 4


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def memory() -> NPID:
    """Over 10 images, so that an image comes twice in an update, on one rank or on both."""
    split = Resident(images=torch.zeros(10, 1, 2, 2, dtype=torch.uint8), labels=torch.arange(10))
    one = torch.ones(1, 1, 1)
    task = NPID(dimension=4, negatives=7, temperature=0.5, momentum=0.3)
    task.begin(Dataset(train=split, test=split, classes=10, mean=one, std=one), torch.Generator().manual_seed(0))
    return task


def part(update: int, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """What a rank trains on: images, which they are, the task's numbers."""
    generator = torch.Generator().manual_seed(100 * update + rank)
    images = torch.randn(PART, 4, generator=generator)
    return images, torch.randint(10, (PART,), generator=generator), torch.rand(PART, generator=generator)


def net(images: Tensor) -> Tensor:
    return images @ torch.randn(4, 4, generator=torch.Generator().manual_seed(9))


def by_one_process() -> tuple[dict[str, Tensor], dict[int, list[float]]]:
    """Each update in as many parts as there are ranks; the losses by rank."""
    task = memory()
    losses: dict[int, list[float]] = {rank: [] for rank in range(RANKS)}
    for update in range(UPDATES):
        for rank in range(RANKS):
            losses[rank].append(task.loss(net, *part(update, rank)).item())
        task.updated()
    return task.state, losses


def on_a_rank(rank: int, folder: Path) -> None:
    """Run in a process of its own."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=RANKS)
    task, losses = memory(), []
    for update in range(UPDATES):
        losses.append(task.loss(net, *part(update, rank)).item())
        task.updated()
    rows = torch.arange(6, dtype=torch.float64).view(3, 2) + 100 * rank
    found = {
        **task.state,
        "losses": torch.tensor(losses, dtype=torch.float64),
        "ranks": torch.tensor(parallel.ranks()),
        "rows": parallel.gathered(rows),
        "columns": parallel.gathered(rows.T),  # not contiguous
        "index": parallel.gathered(torch.tensor([rank, 5])),
        "first": parallel.from_first(torch.tensor(rank + 7.0)),
    }
    save_file({name: tensor.contiguous() for name, tensor in found.items()}, folder / f"{rank}.safetensors")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What each rank has at the end."""
    folder = tmp_path_factory.mktemp("ranks")
    on_ranks(__name__, RANKS, folder)
    return [load_file(folder / f"{rank}.safetensors") for rank in range(RANKS)]


@pytest.mark.parametrize("rank", range(RANKS))
def test_the_memory_is_that_of_one_process_bit_for_bit(rank: int, found: list[dict[str, Tensor]]) -> None:
    """Bank and normalisation; and each rank's losses are those of its parts."""
    state, losses = by_one_process()
    assert torch.equal(found[rank]["bank"], state["bank"])
    assert torch.equal(found[rank]["log_z"], state["log_z"])
    assert found[rank]["losses"].tolist() == losses[rank]
    assert not torch.equal(state["bank"], memory().state["bank"])


def test_the_parts_differ_and_meet_in_some_image() -> None:
    """Else the test above would not see whose embedding is kept, or whose normalisation it is."""
    images = [{rank: set(part(update, rank)[1].tolist()) for rank in range(RANKS)} for update in range(UPDATES)]
    assert any(each[0] & each[1] for each in images)
    assert any(len(each[rank]) < PART for each in images for rank in range(RANKS))
    alone = memory()
    alone.loss(net, *part(0, 1))
    assert float(alone.state["log_z"]) != pytest.approx(float(by_one_process()[0]["log_z"]), rel=1e-3)


@pytest.mark.parametrize("rank", range(RANKS))
def test_parts_are_joined_in_the_order_of_ranks(rank: int, found: list[dict[str, Tensor]]) -> None:
    mine = found[rank]
    assert int(mine["ranks"]) == RANKS
    assert mine["rows"].tolist() == [[0, 1], [2, 3], [4, 5], [100, 101], [102, 103], [104, 105]]
    assert mine["columns"].tolist() == [[0, 2, 4], [1, 3, 5], [100, 102, 104], [101, 103, 105]]
    assert mine["index"].tolist() == [0, 5, 1, 5]
    assert float(mine["first"]) == 7.0


def test_one_process_needs_no_others() -> None:
    rows = torch.randn(3, 2)
    assert parallel.ranks() == 1
    assert parallel.gathered(rows) is rows
    assert parallel.from_first(rows) is rows


if __name__ == "__main__":
    on_a_rank(int(sys.argv[1]), Path(sys.argv[2]))
