"""The order of samples and their random draws, as functions of (seed, position) alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from raysslprune.data.stream import Samples, Stream
from raysslprune.spec import seed_of

N, DRAWS = 37, 4


def stream(seed: int = 5) -> Stream:
    return Stream(N, DRAWS, seed)


def same(a: Samples, b: Samples) -> bool:
    return torch.equal(a.index, b.index) and torch.equal(a.draws, b.draws)


def join(parts: list[Samples]) -> Samples:
    return Samples(torch.cat([p.index for p in parts]), torch.cat([p.draws for p in parts]))


def by_sample(batches: list[Samples], position: int = 0) -> dict[tuple[int, int], list[float]]:
    """(epoch, sample) to its draws, where the batches follow each other from ``position`` on."""
    found: dict[tuple[int, int], list[float]] = {}
    for batch in batches:
        for sample, draws in zip(batch.index.tolist(), batch.draws.tolist(), strict=True):
            found[position // N, sample] = draws
            position += 1
    return found


def test_every_epoch_is_a_permutation_and_each_its_own() -> None:
    s = stream()
    orders = [s.take(epoch * N, N).index.tolist() for epoch in range(6)]
    assert all(sorted(order) == list(range(N)) for order in orders)
    assert len({tuple(order) for order in [*orders, list(range(N))]}) == 7


@given(start=st.integers(0, 3 * N), chunks=st.lists(st.integers(1, 2 * N), min_size=1, max_size=8))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_any_cutting_gives_the_same_samples_and_draws(start: int, chunks: list[int]) -> None:
    s, position = stream(), start
    parts: list[Samples] = []
    for count in chunks:
        parts.append(s.take(position, count))
        assert len(parts[-1].index) == len(parts[-1].draws) == count
        position += count
    assert same(join(parts), stream().take(start, sum(chunks)))


@pytest.mark.parametrize("batch", [1, 8, N, 50])
def test_draws_belong_to_seed_epoch_and_sample(batch: int) -> None:
    s = stream()
    cut = by_sample([s.take(position, batch) for position in range(0, 4 * N, batch)])
    whole = by_sample([stream().take(0, 4 * N)])
    assert len(whole) == 4 * N
    assert whole.items() <= cut.items()


def test_an_interruption_at_any_position_changes_nothing() -> None:
    whole = stream().take(0, 3 * N)
    for position in range(1, 3 * N, 5):
        assert same(join([stream().take(0, position), stream().take(position, 3 * N - position)]), whole)


def test_one_may_go_back() -> None:
    s = stream()
    early = s.take(3, 10)
    s.take(20 * N, 10)
    assert same(s.take(3, 10), early)


def test_a_batch_may_straddle_epochs() -> None:
    s = stream()
    batch = s.take(N - 3, 8)
    assert batch.index.tolist() == s.take(0, N).index.tolist()[-3:] + s.take(N, N).index.tolist()[:5]
    assert torch.equal(batch.draws, torch.cat([s.take(N - 3, 3).draws, s.take(N, 5).draws]))


def test_seeds_and_epochs_differ() -> None:
    """In order and in draws; also where seed and epoch are exchanged."""
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 11), (11, 1), (2, 0)]
    epochs = [stream(seed).take(epoch * N, N) for seed, epoch in places]
    assert len({tuple(e.index.tolist()) for e in epochs}) == len(places)
    draws = [by_sample([e]) for e in epochs]
    assert len({repr(d[0, 0]) for d in draws}) == len(places)


def test_draws_are_uniform_and_all_different() -> None:
    draws = torch.cat([Stream(1000, DRAWS, 0).take(epoch * 1000, 1000).draws for epoch in range(3)])
    assert draws.shape == (3000, DRAWS)
    assert bool((draws >= 0).all() and (draws < 1).all())
    counts = torch.stack([torch.histc(column, 10, 0, 1) for column in draws.T])
    assert float(((counts - 300).square() / 300).sum(1).max()) < 33.7  # chi-square, 9 degrees of freedom, p = 0.0001
    assert len({tuple(row) for row in draws.tolist()}) == 3000


def test_no_global_random_state() -> None:
    before = torch.get_rng_state()
    first = stream().take(0, 2 * N)
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(123)
        assert same(stream().take(0, 2 * N), first)


def test_the_stream_written_out() -> None:
    """The order is drawn first, then a row of draws for each sample. A change here is another training everywhere."""
    for seed, epoch in ((0, 0), (5, 2)):
        generator = torch.Generator().manual_seed(seed_of("epoch", seed, epoch))
        order = torch.randperm(N, generator=generator)
        table = torch.rand(N, DRAWS, generator=generator)
        batch = stream(seed).take(epoch * N, N)
        assert batch.index.tolist() == order.tolist()
        assert by_sample([batch], epoch * N) == {(epoch, sample): table[sample].tolist() for sample in range(N)}
