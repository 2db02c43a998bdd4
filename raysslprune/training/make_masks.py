"""Masks, made or fetched: what a training runs under, and what is pruned from it."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class NotImported(Exception):
    """A mask from elsewhere is not in the store. The message is a sentence for the user."""


class Masks(Protocol):
    """A fast way for packed masks to travel; the store is the sure one."""

    def put(self, mask_id: str, packed: dict[str, np.ndarray]) -> None: ...
    def get(self, mask_id: str) -> dict[str, np.ndarray] | None: ...


class NoExchange:
    """Masks by their files only."""

    def put(self, mask_id: str, packed: dict[str, np.ndarray]) -> None: ...

    def get(self, mask_id: str) -> dict[str, np.ndarray] | None:
        return None
