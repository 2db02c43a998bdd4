"""The soak on three hosts, and that its report sees what is wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from raysslprune.store.steps import Store
from tests.helpers.hosts import missing
from tests.tools.soak import Soak, begun, main
from tests.tools.soak_places import OwnRay


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_thirty_kills_on_three_hosts_lose_nothing_and_change_no_byte(capsys: pytest.CaptureFixture[str]) -> None:
    if why := missing():
        pytest.skip(why)
    assert main(["--kills", "30", "--seeds", "2", "--hosts"]) == 0, capsys.readouterr().out


TRAINED = "0" * 16


def soak_of(folder: Path) -> Soak:
    """A soak after its end, with one step that was trained once."""
    root = folder / "runs"
    Store(str(root)).create()
    for name in ("SUCCESS", "weights.safetensors"):
        (root / "steps" / TRAINED).mkdir(parents=True, exist_ok=True)
        (root / "steps" / TRAINED / name).write_text("same")
    (root / "results/laptop").mkdir(parents=True)
    (root / "results/laptop/fig3.parquet").write_text("table")
    logs = folder / "ray/session_2026/logs"
    logs.mkdir(parents=True)
    (logs / "worker-1.out").write_text(f"{TRAINED}: labels seed 0\n")
    soak = Soak(OwnRay(folder), 1)
    soak.process = subprocess.Popen(["true"])
    soak.process.wait()
    soak.look()
    return soak


def changed_weights(soak: Soak) -> None:
    (soak.root / "steps" / TRAINED / "weights.safetensors").write_text("other")


def changed_table(soak: Soak) -> None:
    (soak.root / "results/laptop/fig3.parquet").write_text("other")


def lost_step(soak: Soak) -> None:
    shutil.rmtree(soak.root / "steps" / TRAINED)


def made_again(soak: Soak) -> None:
    os.utime(soak.root / "steps" / TRAINED / "SUCCESS", ns=(1, 1))
    soak.look()


def trained_twice(soak: Soak) -> None:
    with open(next(soak.place.logs()), "a") as log:
        log.write(f"{TRAINED}: labels seed 0\n")


def no_logs(soak: Soak) -> None:
    next(soak.place.logs()).unlink()


def lease_left(soak: Soak) -> None:
    (soak.root / "lease").write_text("{}")


def process_left(soak: Soak) -> None:
    soak.seen.add((os.getpid(), begun(os.getpid())))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda _: None, ""),
        (changed_weights, f"file steps/{TRAINED}/weights.safetensors is missing or another"),
        (changed_table, "table results/laptop/fig3.parquet is missing or another"),
        (lost_step, "the steps are not those of the undisturbed sweep"),
        (made_again, f"step {TRAINED} was lost or made again"),
        (trained_twice, "1 trainings were begun again, and the kills can have cost 0"),
        (no_logs, "no log says which trainings were begun"),
        (lease_left, "the root is still held by unknown"),
        (process_left, "is left over"),
    ],
)
def test_the_report_names_each_fault(
    spoil: Callable[[Soak], None],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where it keeps what is wrong
    monkeypatch.setattr("tests.tools.soak.ENDING", 0.1)
    calm, soak = soak_of(tmp_path / "calm"), soak_of(tmp_path / "soak")
    spoil(soak)
    assert soak.report(calm.root) == bool(said)
    assert said in " ".join(capsys.readouterr().out.split())


def test_a_soak_that_can_have_no_hosts_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.tools.soak.missing", lambda: "no sshd here")
    with pytest.raises(SystemExit, match="2"):
        main(["--hosts"])
