"""Addresses of roots: paths, schemes, and credentials that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysslprune.store.record import WEIGHTS, StoreError
from raysslprune.store.steps import Store
from tests.helpers.object_store import object_store
from tests.helpers.steps import commit, files_of, made, refusal, train

# ------------------------------------------------------------------------------------- the root


@pytest.mark.parametrize("root", ["foo://bucket/x", "http://host/x", "://x", "s3:///x", "file://relative/x"])
def test_an_address_that_is_not_known_is_refused(root: str) -> None:
    refusal(root)


def test_path_is_where_people_look(tmp_path: Path) -> None:
    assert Store(str(tmp_path)).path("results/a.png") == str(tmp_path / "results" / "a.png")
    assert Store(tmp_path.as_uri()).path("results/a.png") == str(tmp_path / "results" / "a.png")
    assert object_store().path("results/a.png") == "mock:///bucket/runs/results/a.png"


def test_a_relative_root_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = made("runs")
    commit(store, train())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert store.artefact(train().id, WEIGHTS) == files_of(train())[WEIGHTS]


SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"


# ------------------------------------------------------------------------------------- one sweep at a time


@pytest.mark.parametrize(
    "root",
    [
        f"s3://AKIA:{SECRET}@bucket/runs",
        f"s3://AKIA:{SECRET.replace('/', '%2F')}@bucket/runs",
        f"S3://AKIA:{SECRET}@bucket/runs",
        f"s3://:{SECRET}@bucket/runs?region=us-east-1",
        f"s3://{SECRET.replace('/', '%2F')}@bucket/runs",
        f"s3://bucket/runs?region=us-east-1&secret_key={SECRET}",
        f"s3://bucket/runs?session_token={SECRET}",
        f"s3://bucket/runs?endpoint_override=http://user:{SECRET}@127.0.0.1:9",
        f"gs://user:{SECRET}@bucket/runs",
        f"abfs://account:{SECRET}@container/runs",
    ],
)
def test_credentials_in_an_address_are_refused_and_never_said(root: str) -> None:
    with pytest.raises(StoreError) as caught:
        Store(root)
    assert SECRET[:12] not in str(caught.value)
    assert "AKIA" not in str(caught.value)
    assert "AWS_SECRET_ACCESS_KEY" in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("root", "base"),
    [
        ("s3://bucket/a@b/c:d?region=eu-west-1&endpoint_override=127.0.0.1:9&scheme=http", "bucket/a@b/c:d"),
        ("s3://bucket?region=eu-west-1", "bucket"),
        ("s3://bucket/runs/?region=eu-west-1", "bucket/runs"),
        ("gs://anonymous@bucket/keys", "bucket/keys"),
    ],
)
def test_other_addresses_are_not_taken_for_credentials(root: str, base: str) -> None:
    store = Store(root)
    assert store.base == base
    assert store.path("results/a.png") == f"{root.partition('?')[0].rstrip('/')}/results/a.png"
    assert store.address == root
