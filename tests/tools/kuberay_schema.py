"""Check deploy/rayjob.yaml against the schema of a release of KubeRay, with unknown fields refused.

    python -m tests.tools.kuberay_schema ray.io_rayjobs.yaml

The argument is KubeRay's own definition of RayJob, `helm-chart/kuberay-operator/crds/ray.io_rayjobs.yaml` in its
repository at the tag of a release. Prints one line for each error and returns 1, or says that there is none.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.helpers import CHECKOUT

MANIFEST = CHECKOUT / "deploy/rayjob.yaml"


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1 or not Path(arguments[0]).is_file():
        print("kuberay_schema: give the file ray.io_rayjobs.yaml of a release of KubeRay", file=sys.stderr)
        return 2
    definition, manifest = (yaml.safe_load(Path(path).read_text()) for path in (arguments[0], MANIFEST))
    found = errors(definition, manifest)
    print("\n".join(found) if found else f"{MANIFEST.name} is valid")
    return int(bool(found))


def errors(definition: Mapping[str, Any], manifest: Mapping[str, Any]) -> list[str]:
    """Return what the manifest has wrong, by the schema of its version; empty if nothing."""
    version = manifest["apiVersion"].rpartition("/")[2]
    schemas = {one["name"]: one["schema"]["openAPIV3Schema"] for one in definition["spec"]["versions"]}
    if version not in schemas:
        return [f"apiVersion: {version} is none of {', '.join(schemas)}"]
    validator = jsonschema.Draft202012Validator(closed(schemas[version]))
    # Every manifest may have all fields of metadata, of which these schemas say only that it is an object
    rest = {name: value for name, value in manifest.items() if name != "metadata"}
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(rest)]


def closed(schema: Any) -> Any:
    """Return a Kubernetes schema as JSON schema: no unknown fields; integers or strings where it allows both."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    new = {name: closed(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
        new.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string") is True:
        new.pop("type", None)
    return new


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
