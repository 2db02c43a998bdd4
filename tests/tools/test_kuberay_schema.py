"""The check of the manifest against KubeRay's schema, on a small schema of the same kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools import kuberay_schema

SPEC: dict[str, Any] = {
    "type": "object",
    "required": ["entrypoint"],
    "properties": {
        "entrypoint": {"type": "string"},
        "limits": {
            "type": "object",
            "additionalProperties": {
                "anyOf": [{"type": "integer"}, {"type": "string"}],
                "x-kubernetes-int-or-string": True,
                "type": "string",
            },
        },
        "groups": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
        "any": {"type": "object", "properties": {}, "x-kubernetes-preserve-unknown-fields": True},
    },
}
TOP: dict[str, Any] = {
    "type": "object",
    "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {}, "spec": SPEC},
}
DEFINITION = {"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": TOP}}]}}


def errors(version: str = "v1", **spec: Any) -> list[str]:
    manifest = {"apiVersion": f"ray.io/{version}", "kind": "RayJob", "metadata": {"name": "x"}, "spec": spec}
    return kuberay_schema.errors(DEFINITION, manifest)


def test_a_valid_manifest_has_no_errors() -> None:
    assert not errors(entrypoint="a", limits={"cpu": 8, "gpu": "1"}, groups=[{"name": "b"}], any={"c": 1})


@pytest.mark.parametrize(
    ("spec", "where", "what"),
    [
        ({"entrypoint": 1}, "$.spec.entrypoint", "1"),
        ({"entrypoint": "a", "entripoint": "b"}, "$.spec", "entripoint"),
        ({"entrypoint": "a", "groups": [{"name": "b"}, {"nam": "c"}]}, "$.spec.groups[1]", "nam"),
        ({"entrypoint": "a", "limits": {"cpu": 0.5}}, "$.spec.limits.cpu", "0.5"),
        ({}, "$.spec", "entrypoint"),
    ],
)
def test_an_error_is_told_with_its_place(spec: dict[str, Any], where: str, what: str) -> None:
    (error,) = errors(**spec)
    assert error.startswith(f"{where}: ")
    assert what in error


def test_a_version_that_the_schema_does_not_have() -> None:
    assert errors("v2", entrypoint="a") == ["apiVersion: v2 is none of v1"]


def test_the_command_reads_the_manifest_of_this_checkout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "crd.yaml"
    path.write_text(yaml.safe_dump(DEFINITION))
    assert kuberay_schema.main([str(path)]) == 1  # of the manifest's fields the small schema has one
    assert "rayClusterSpec" in capsys.readouterr().out
    top = {**TOP, "properties": {**TOP["properties"], "spec": {**SPEC, "x-kubernetes-preserve-unknown-fields": True}}}
    path.write_text(yaml.safe_dump({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": top}}]}}))
    assert kuberay_schema.main([str(path)]) == 0
    assert capsys.readouterr().out == "rayjob.yaml is valid\n"
    assert kuberay_schema.main([]) == kuberay_schema.main([str(tmp_path / "none")]) == 2
