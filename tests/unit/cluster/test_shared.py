"""The board of masks and progress, without Ray."""

from __future__ import annotations

from raysslprune.cluster import shared


def test_the_least_used_go_first() -> None:
    """The class of the actor, without Ray's object store; the capacity is in bytes."""
    keeper = shared._Board(capacity=250)
    for name in "abc":
        keeper.masks[name] = (None, 100)  # pyright: ignore[reportArgumentType]
        keeper.size += 100
        if name == "b":
            assert keeper.get("a") == [None]  # used: now b is the least recently used
    keeper.drop_excess()
    assert list(keeper.masks) == ["a", "c"]
    assert keeper.size == 200
