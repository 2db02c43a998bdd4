"""Environment variables that are set for a while."""

from __future__ import annotations

import os
from contextlib import suppress

import pytest

from raysslprune.environment import changed, defaults


def test_changes_are_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"KEPT": "1", "GONE": "2", "OTHER": "3"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NEW", raising=False)
    before = dict(os.environ)
    with suppress(KeyError), changed({"NEW": "4", "GONE": None, "NEVER": None, "KEPT": "5"}):
        assert {**before, "NEW": "4", "KEPT": "5"} == {**os.environ, "GONE": "2"}
        assert "GONE" not in os.environ
        os.environ |= {"OTHER": "6", "MORE": "7"}
        del os.environ["NEW"]
        raise KeyError
    assert dict(os.environ) == before


def test_what_is_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET", "1")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.delenv("UNSET", raising=False)
    assert defaults({"SET": "2", "EMPTY": "2", "UNSET": "2"}) == {"EMPTY": "2", "UNSET": "2"}
