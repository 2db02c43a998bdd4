"""Queries of a root on s3://."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from raysslprune import results
from raysslprune.commands.results import main
from raysslprune.store.record import StoreError
from raysslprune.store.steps import Store
from tests.helpers.s3 import serving


def test_a_root_on_s3(small_root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    with serving(tmp_path) as server:
        results_root = server.root(server.bucket())
        with pytest.raises(StoreError, match="there are no results in s3://"):
            results.query("SELECT 1", results_root)
        store = Store(results_root)
        for path in sorted(Path(small_root).glob("results/*/*.parquet")):
            store.write(str(path.relative_to(small_root)), path.read_bytes())
        assert results.load("fig3", results_root, "smoke").equals(results.load("fig3", small_root, "smoke"))
        for query in ("FROM everything ORDER BY ALL", "FROM means ORDER BY ALL"):
            assert results.query(query, results_root).equals(results.query(query, small_root))
        assert main(["SELECT count(*) AS n FROM results", "--root", results_root]) == 0
        assert capfd.readouterr().out.split() == ["n", str(len(results.load("fig3", small_root, "smoke")))]
    assert os.listdir() == []
