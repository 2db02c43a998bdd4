"""The files of deploy/: they agree with the package, with each other and with the pages that explain them."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysslprune import sweep
from tests.helpers import CHECKOUT

DEPLOY = CHECKOUT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
APPTAINER = (DEPLOY / "apptainer.def").read_text()
JOB = yaml.safe_load((DEPLOY / "rayjob.yaml").read_text())
PINNED = dict(re.findall(r"^([\w.-]+)==(\S+)$", (CHECKOUT / "constraints.txt").read_text(), re.M))
CLUSTERS = [yaml.safe_load((CHECKOUT / name).read_text()) for name in ("cluster.yaml", "cluster-local.yaml")]


def unfolded(text: str) -> list[str]:
    """Lines, with continued ones as one, and single spaces."""
    return [" ".join(line.split()) for line in text.replace("\\\n", " ").splitlines()]


def steps(text: str) -> list[str]:
    """The commands that install packages."""
    return [line.removeprefix("RUN ") for line in unfolded(text) if re.match(r"(RUN )?(apt-get|pip) ", line)]


def section(name: str) -> str:
    """The lines of a section of the Apptainer definition."""
    (found,) = re.findall(rf"^%{name}\n(.*?)(?=^%|\Z)", APPTAINER, re.M | re.S)
    return found.strip("\n")


def options(command: str) -> Any:
    """Parse the arguments of a sweep as the command does."""
    return sweep._parser().parse_args(shlex.split(command)[2:])


# ------------------------------------------------------------------------------------- images


def test_both_images_are_made_by_the_same_steps_from_the_same_base() -> None:
    assert steps(DOCKERFILE) == steps(APPTAINER)
    assert len(steps(DOCKERFILE)) == 2
    (base,) = re.findall(r"^FROM (\S+)$", DOCKERFILE, re.M)
    assert f"\nFrom: {base}\n" in APPTAINER
    python = re.fullmatch(r"python:(\d+\.\d+)-slim-\w+", base)
    assert python
    assert f"Python :: {python[1]}" in (CHECKOUT / "pyproject.toml").read_text()
    assert all(f"--python {python[1]}." in str(cluster["setup_commands"]) for cluster in CLUSTERS)


def test_an_image_has_the_pinned_versions_and_the_installer_of_the_clusters() -> None:
    (uv,) = set(re.findall(r"uv==(\S+)", DOCKERFILE))
    assert all(f"/uv/{uv}/install.sh" in str(cluster["setup_commands"]) for cluster in CLUSTERS)
    install = steps(DOCKERFILE)[1].partition("uv pip install")[2]
    assert " -c constraints.txt " in install
    assert install.endswith(" .")
    assert "DEVICE=cuda" in DOCKERFILE
    assert "DEVICE=cuda" in APPTAINER


def test_an_image_copies_what_an_installation_needs_and_nothing_else_is_sent() -> None:
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.M) for word in line.split()]
    pairs = [line.split() for line in section("files").splitlines() if not line.lstrip().startswith("#")]
    assert sorted(pairs) == sorted([name, "/opt/raysslprune/"] for name in copied)
    assert all((CHECKOUT / name).exists() for name in copied)
    sent = re.findall(r"^!(\S+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.M)
    assert sorted(sent) == sorted(copied)
    mounted = {path.rpartition("/")[2] for path in CLUSTERS[0]["file_mounts"]} - {"auth_token"}
    assert mounted == set(copied)


def test_an_image_does_not_run_as_root() -> None:
    (user,) = re.findall(r"^USER (\d+)$", DOCKERFILE, re.M)
    assert int(user) > 0
    assert f"--uid {user}" in DOCKERFILE
    assert DOCKERFILE.index("RUN useradd") < DOCKERFILE.index(f"USER {user}")
    assert "RUN" not in DOCKERFILE[DOCKERFILE.index(f"USER {user}") :]
    for group in groups():
        security = group["template"]["spec"]["securityContext"]
        assert security["runAsNonRoot"] is True
        assert security["fsGroup"] == int(user)


@pytest.mark.parametrize("device", ["cuda", "cpu"])
def test_the_device_chooses_the_build_of_pytorch(device: str, tmp_path: Path) -> None:
    """The step itself, with stand-ins for the installers; uv knows the option that it is given."""
    for name in ("pip", "uv"):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> calls\n')
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "DEVICE": device}
    subprocess.run(["sh", "-ec", steps(DOCKERFILE)[1]], cwd=tmp_path, env=environment, check=True)
    _, installed = (tmp_path / "calls").read_text().splitlines()
    assert ("--torch-backend cpu" in installed) == (device == "cpu")
    uv = shutil.which("uv")
    if uv:
        told = subprocess.run([uv, "pip", "install", "--help"], capture_output=True, text=True, check=True).stdout
        assert all(option in told for option in re.findall(r"--[a-z-]+", installed))


SHOWN = [
    *("deploy/Dockerfile", "deploy/apptainer.def", "deploy/rayjob.yaml", "deploy/slurm.sbatch"),
    *("cluster.yaml", "cluster-local.yaml"),
]


@pytest.mark.parametrize("name", SHOWN)
def test_the_sweeps_that_a_file_shows_are_valid_commands(name: str) -> None:
    text = (CHECKOUT / name).read_text()
    shown = re.findall(
        r"(?:raysslprune\.sif sweep|raysslprune sweep|raysslprune\.sweep|slurm\.sbatch) (fig[^#'\n]*)", text
    )
    assert shown, "it shows none"
    for call in shown:
        assert options(f"raysslprune sweep {call}").sweeps


# ------------------------------------------------------------------------------------- Kubernetes


def groups() -> list[dict[str, Any]]:
    """The head's group, then the workers'."""
    cluster = JOB["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_the_job_is_a_sweep_that_may_grow_to_all_workers() -> None:
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")
    entrypoint = JOB["spec"]["entrypoint"]
    assert entrypoint.startswith("raysslprune sweep ")
    given = options(entrypoint)
    assert given.address == "auto"
    assert given.wait
    _, workers = groups()
    (container,) = workers["template"]["spec"]["containers"]
    assert given.slots == workers["maxReplicas"] * int(container["resources"]["limits"]["nvidia.com/gpu"])


def test_the_job_has_the_version_of_ray_that_the_image_has() -> None:
    assert JOB["spec"]["rayClusterSpec"]["rayVersion"] == PINNED["ray"]
    images = {group["template"]["spec"]["containers"][0]["image"] for group in groups()}
    assert len(images) == 1


def test_the_head_trains_nothing_and_workers_come_and_go() -> None:
    head, workers = groups()
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in str(head)
    assert JOB["spec"]["rayClusterSpec"]["enableInTreeAutoscaling"] is True
    assert workers["minReplicas"] == workers["replicas"] == 0 < workers["maxReplicas"]
    assert all(isinstance(value, str) for group in groups() for value in group["rayStartParams"].values())


def test_all_pods_share_the_root_and_the_data() -> None:
    root = options(JOB["spec"]["entrypoint"]).root
    for group in groups():
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
        assert mount["name"] == volume["name"]
        assert root.startswith(f"{mount['mountPath']}/")
        (data,) = (entry["value"] for entry in container["env"] if entry["name"] == "RAYSSLPRUNE_DATA")
        assert data.startswith(f"{mount['mountPath']}/")


def test_the_token_comes_from_the_secret_that_the_page_makes() -> None:
    authentication = JOB["spec"]["rayClusterSpec"]["authOptions"]
    assert authentication["mode"] == "token"
    made = f"kubectl create secret generic {authentication['secretName']} --from-literal=auth_token="
    assert made in (CHECKOUT / "docs/kubernetes.md").read_text()
    assert made in (DEPLOY / "rayjob.yaml").read_text()
    assert not re.search(r"[0-9a-f]{32}", (DEPLOY / "rayjob.yaml").read_text()), "a token in the file"


# ------------------------------------------------------------------------------------- pages


def test_each_file_has_its_page_and_what_was_not_run_is_said() -> None:
    pages = {name: (CHECKOUT / f"docs/{name}.md").read_text() for name in ("slurm", "kubernetes", "aws", "workstation")}
    pages["own-machines"] = (CHECKOUT / "docs/own-machines.md").read_text()
    overview = (CHECKOUT / "docs/cluster.md").read_text()
    for name, text in pages.items():
        assert "**What was run**" in text, name
        assert "**Not run**" in text, name
        assert f"({name}.md)" in overview
    for path in DEPLOY.iterdir():
        assert path.name == "Dockerfile.dockerignore" or f"(../deploy/{path.name})" in overview


def test_the_page_on_slurm_quotes_the_refusal_of_a_job_array() -> None:
    script = subprocess.run(
        ["bash", DEPLOY / "slurm.sbatch"],
        env={"PATH": "/usr/bin:/bin", "SLURM_ARRAY_JOB_ID": "1", "SLURM_JOB_ID": "2"},
        capture_output=True, text=True,
    )  # fmt: skip
    page = " ".join((CHECKOUT / "docs/slurm.md").read_text().split())
    assert " ".join(script.stderr.split()) in page
