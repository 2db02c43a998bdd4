"""The files for `ray up`: Ray takes them, all that they name is there, and they open and give away nothing."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import pytest
import yaml
from moto import mock_aws
from ray.autoscaler._private.providers import _NODE_PROVIDERS
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.helpers import CHECKOUT

FILES = ("cluster.yaml", "cluster-local.yaml")
COMMANDS = ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands")


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((CHECKOUT / name).read_text())


def commands(config: dict[str, Any]) -> list[str]:
    return [command for kind in COMMANDS for command in config[kind]]


@pytest.fixture(params=FILES)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    return read(request.param)


def test_ray_takes_it(config: dict[str, Any]) -> None:
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    for kind in COMMANDS:
        assert prepared[kind] == config[kind], "nothing of Ray's defaults comes in"
    assert prepared["head_setup_commands"] == prepared["worker_setup_commands"] == config["setup_commands"]


def test_ray_refuses_a_misspelt_one(config: dict[str, Any]) -> None:
    config["idle_timeout_minuets"] = 5
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minuets"):
        validate_config(prepare_config(config))


def test_its_commands_are_shell(config: dict[str, Any]) -> None:
    for command in commands(config):
        subprocess.run(["bash", "-n", "-c", command], check=True)


def test_what_it_copies_is_there(config: dict[str, Any]) -> None:
    mounts = dict(config["file_mounts"])
    assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
    for there, here in mounts.items():
        assert (CHECKOUT / here).exists()
        assert there == f"~/raysslprune/{Path(here)}"
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    for name in (project["readme"], *project["license-files"]):  # the package can't be installed without them
        assert f"~/raysslprune/{name}" in mounts


def test_a_token_is_asked_for_and_nothing_is_open(config: dict[str, Any]) -> None:
    """Ray's own default for AWS has its dashboard listen on all interfaces."""
    environment, *_ = (command for command in config["setup_commands"] if "export RAY_ADDRESS" in command)
    assert "export RAY_AUTH_MODE=token\n" in environment
    assert "--dashboard-host=127.0.0.1" in config["head_start_ray_commands"][-1]
    assert not any("0.0.0.0" in command for command in commands(config))
    assert "security_group" not in config["provider"]
    assert not re.search(r"AKIA|aws_secret|PRIVATE KEY", yaml.safe_dump(config))


def test_no_step_runs_on_the_head_of_the_cloud() -> None:
    config = read("cluster.yaml")
    head, gpu = config["available_node_types"]["head"], config["available_node_types"]["gpu"]
    assert head["resources"]["CPU"] == 0
    assert "--num-cpus=0" in config["head_start_ray_commands"][-1]
    assert (gpu["min_workers"], gpu["max_workers"]) == (0, config["max_workers"])
    assert gpu["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


@pytest.mark.slow
def test_the_cloud_starts_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own provider for AWS, against moto in the place of AWS: nothing leaves this process."""
    monkeypatch.setenv("HOME", str(tmp_path))  # where Ray puts the key that it makes
    (tmp_path / ".ssh").mkdir()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    with mock_aws():
        ec2, iam = boto3.client("ec2", "us-east-1"), boto3.client("iam", "us-east-1")
        for name in ("raysslprune-head", "raysslprune-worker"):
            iam.create_instance_profile(InstanceProfileName=name)
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        text = (CHECKOUT / "cluster.yaml").read_text()
        config = prepare_config(yaml.safe_load(text.replace("ami-00000000000000000", image)))
        provider = _NODE_PROVIDERS["aws"](config["provider"])
        config = provider.bootstrap_config(provider.fillout_available_node_types_resources(config))
        machines = provider(config["provider"], config["cluster_name"])
        for kind, node in config["available_node_types"].items():
            tags = {"ray-node-type": kind, "ray-node-status": "", "ray-node-name": kind, "ray-user-node-type": kind}
            machines.create_node(node["node_config"], tags, 1)
        started = [machine for group in ec2.describe_instances()["Reservations"] for machine in group["Instances"]]
        assert [(machine["InstanceType"], machine.get("InstanceLifecycle")) for machine in started] == [
            ("m6i.large", None),
            ("g5.12xlarge", "spot"),
        ]
        profiles = [machine["IamInstanceProfile"]["Arn"].rpartition("/")[2] for machine in started]
        assert profiles == ["raysslprune-head", "raysslprune-worker"]
        (group,) = {machine["SecurityGroups"][0]["GroupId"] for machine in started}
        rules = ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"][0]["IpPermissions"]
        assert [rule["FromPort"] for rule in rules if rule["IpRanges"]] == [22], "what the world can reach"


def test_it_installs_once_and_again_when_the_wanted_versions_change(config: dict[str, Any], tmp_path: Path) -> None:
    """With programs in the place of uv and curl that only say how they were called."""
    (install,) = (command for command in config["setup_commands"] if "uv pip install" in command)
    called = tmp_path / "called"
    for name in (".local/bin/uv", "bin/curl"):
        program = tmp_path / name
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho {program.name} $* >> {called}\n")
        program.chmod(0o755)
    project = tmp_path / "raysslprune"
    project.mkdir()
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE"):
        (project / name).write_bytes((CHECKOUT / name).read_bytes())
    environment = {"HOME": str(tmp_path), "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}

    def calls() -> list[str]:
        called.unlink(missing_ok=True)
        subprocess.run(["bash", "-c", install], env=environment, check=True)
        return called.read_text().splitlines() if called.exists() else []

    first = calls()
    assert [line.split()[0] for line in first] == ["curl", "uv", "uv"]
    assert "-c constraints.txt -e .[cluster]" in first[-1]
    assert calls() == []
    with (project / "constraints.txt").open("a") as constraints:
        constraints.write("another==1\n")
    assert len(calls()) == 3
    assert calls() == []


def test_both_files_set_machines_up_alike() -> None:
    one, other = ({command for command in read(name)["setup_commands"] if "export" not in command} for name in FILES)
    assert one == other
    assert read(FILES[0])["file_mounts"] == read(FILES[1])["file_mounts"]
