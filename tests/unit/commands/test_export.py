"""``raysslprune export``: wrong calls, steps without a network, damage, ONNX."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save as to_safetensors

import raysslprune
from raysslprune import data
from raysslprune.commands import export
from raysslprune.spec import Step, closure, to_plain
from raysslprune.store.record import WEIGHTS
from raysslprune.store.steps import Store
from tests.helpers.exports import ROTNET, SVMS, TRAININGS, card_of, committed, copy, refused, weights


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ------------------------------------------------------------------------------------- what goes wrong


def test_wrong_calls(trained: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out, step = str(tmp_path / "x" / "out"), TRAININGS["ticket"].id
    Path(out).parent.mkdir()
    root = ["--root", trained.base]
    assert refused(capfd, 2, "ffffff", "--out", out, *root) == f"there is no step 'ffffff' in {trained.base}"
    said = refused(capfd, 2, step[:3], "--out", out, *root)
    assert said == f"give at least the first 4 digits of a step's id, not '{step[:3]}'"
    nothing = str(tmp_path / "nothing")
    said = refused(capfd, 1, step, "--out", out, "--root", nothing)
    assert said == f"there are no results in {nothing}; --root must be a folder that a sweep has filled"
    assert "unrecognized arguments: --frog; see --help" in refused(capfd, 2, step, "--out", out, "--frog")
    (tmp_path / "x" / "file").write_text("")
    said = refused(capfd, 2, step, "--out", str(tmp_path / "x" / "file"), *root)
    assert said.endswith("is a file; --out must be a new or empty folder")
    said = refused(capfd, 2, step, "--out", str(tmp_path / "x" / "file" / "out"), *root)
    assert said == f"{tmp_path / 'x' / 'file'} is a file; --out must be a new or empty folder"
    (tmp_path / "x" / "full").mkdir()
    (tmp_path / "x" / "full" / "file").write_text("mine")
    said = refused(capfd, 2, step, "--out", str(tmp_path / "x" / "full"), *root)
    assert said.endswith("is not empty; --out must be a new or empty folder")
    assert (tmp_path / "x" / "full" / "file").read_text() == "mine"


def test_an_empty_folder_is_taken_and_parents_are_made(trained: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b"):
        assert export.main([TRAININGS["ticket"].id[:8].upper(), "--root", trained.base, "--out", str(out)]) == 0
        assert raysslprune.load_subnetwork(out).config["step"] == TRAININGS["ticket"].id
    assert {path.name for path in tmp_path.iterdir()} == {"empty", "a"}


def test_a_beginning_that_several_steps_share_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trained = Store(str(tmp_path / "runs"))
    trained.create()
    for step_id in ("aaaa1", "aaaa2", "bbbb1"):
        (tmp_path / "runs" / "steps" / step_id).mkdir(parents=True)
    said = refused(capfd, 2, "aaaa", "--root", trained.base, "--out", str(tmp_path / "out"))
    assert said == f"2 steps in {trained.base} begin with 'aaaa': aaaa1, aaaa2"
    said = refused(capfd, 1, "bbbb", "--root", trained.base, "--out", str(tmp_path / "out"))
    assert said == "step bbbb1 is not finished; run its sweep again to finish it"


def test_steps_that_leave_no_network(trained: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "out")
    said = refused(capfd, 1, SVMS.id, "--root", trained.base, "--out", out)
    judged = ROTNET.rounds[1].id
    assert said == (
        f"step {SVMS.id} trains linear SVMs, which leave no network; export step {judged}, whose features they classify"
    )
    lean, step = Store(str(tmp_path / "lean")), TRAININGS["dense"]
    lean.create()
    lean.commit(step, {}, {"top1": 97.0}, {})
    said = refused(capfd, 1, step.id, "--root", lean.base, "--out", out)
    assert said == (
        f"the weights of step {step.id} were not kept (--keep needed): to have them, delete {lean.base}/steps/{step.id}"
        " and run its sweep again with --keep all"
    )


@pytest.mark.parametrize("name", [WEIGHTS, "spec.json", "SUCCESS"])
def test_damage_in_the_store_is_one_sentence(
    name: str, trained: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = copy(trained.base, tmp_path / "runs")
    step = TRAININGS["ticket"]
    path = root / "steps" / step.id / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    said = refused(capfd, 1, step.id, "--root", str(root), "--out", str(tmp_path / "out"))
    assert said.startswith(f"step {step.id}: ")
    assert said.endswith("; run its sweep again to rebuild it")


@pytest.mark.parametrize("what", ["dense", "mask"])
def test_what_is_behind_a_network_must_be_there(
    what: str, trained: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = copy(trained.base, tmp_path / "runs")
    gone = ROTNET.dense if what == "dense" else cast(Step, TRAININGS["ticket"].mask)
    shutil.rmtree(root / "steps" / gone.id)
    said = refused(capfd, 1, TRAININGS["ticket"].id, "--root", str(root), "--out", str(tmp_path / "out"))
    assert said.startswith(f"step {gone.id}: spec.json is not there")


def test_weights_that_a_mask_does_not_fit_are_not_exported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    trained, step = committed(tmp_path / "runs", "conv4", "folder/pets", classes=2)
    state = weights(trained, step)
    state["trunk.layers.conv2.weight"][:] = 1
    trained.commit(step, {WEIGHTS: to_safetensors(state)}, {"top1": 1.0}, {})
    said = refused(capfd, 1, step.id, "--root", trained.base, "--out", str(tmp_path / "out"))
    assert said == f"weights of layers.conv2.weight in step {step.id} are not 0 though its mask prunes them"


def test_weights_of_code_that_has_changed_are_not_exported(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As an architecture of one's own under the same name."""
    trained, step = committed(tmp_path / "runs", "conv4", "folder/pets", classes=2)
    state = weights(trained, step)
    state["trunk.layers.conv2.weight"] = torch.ones(32, 16, 5, 5)
    trained.commit(step, {WEIGHTS: to_safetensors(state)}, {"top1": 1.0}, {})
    said = refused(capfd, 1, step.id, "--root", trained.base, "--out", str(tmp_path / "out"))
    assert said == f"the weights of step {step.id} do not fit conv4 as it is defined here"


def test_data_that_are_missing_are_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Of CIFAR-10 mean and standard deviation are the training images' own."""
    trained, step = committed(tmp_path / "runs", "conv5", "cifar10", classes=10)
    (tmp_path / "data").mkdir()
    arguments = ["--root", trained.base, "--out", str(tmp_path / "out"), "--data", str(tmp_path / "data")]
    assert str(tmp_path / "data" / "cifar10") in refused(capfd, 1, step.id, *arguments)


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError("No space left on device")])
def test_a_stop_half_way_leaves_nothing(
    error: Any, trained: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    write = Path.write_bytes

    def stopped(path: Path, content: bytes) -> int:
        written.append(path)
        if len(written) == 3:
            raise error
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", stopped)
    code = 130 if error is KeyboardInterrupt else 1
    said = refused(capfd, code, TRAININGS["ticket"].id, "--root", trained.base, "--out", str(tmp_path / "out"))
    assert len(written) == 3
    assert {path.parent.parent for path in written} == {tmp_path}
    assert said == ("stopped; nothing was exported" if code == 130 else "No space left on device")


# ------------------------------------------------------------------------------------- ONNX


@pytest.mark.skipif(
    any(find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs onnx, onnxscript and onnxruntime",
)
def test_onnx_gives_the_modules_outputs_for_any_batch(trained: Store, tmp_path: Path) -> None:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    step = TRAININGS["classifier"]
    assert export.main([step.id, "--root", trained.base, "--out", str(tmp_path / "out"), "--onnx"]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    assert [(i.name, i.shape[1:]) for i in session.get_inputs()] == [("images", [1, 8, 8])]
    net = raysslprune.load_subnetwork(tmp_path / "out")
    images = data.load("digits").test.some(torch.arange(70))
    for batch, _ in images.batches(37):
        for part in (batch, batch[:1]):
            normalised = net.preprocess(part)
            found = np.asarray(session.run(["outputs"], {"images": normalised.numpy()})[0])
            wanted = net(normalised).detach().numpy()
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
            assert wanted.std() > 0.1
    assert "`model.onnx` has the same network" in card_of(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    content = (tmp_path / "out" / "model.onnx").read_bytes()
    assert config["sha256"]["model.onnx"] == hashlib.sha256(content).hexdigest()


def test_onnx_that_is_not_installed_is_one_sentence(
    trained: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    arguments = [TRAININGS["ticket"].id, "--root", trained.base, "--out", str(tmp_path / "out"), "--onnx"]
    assert refused(capfd, 2, *arguments) == "--onnx needs onnx and onnxscript: pip install 'raysslprune[onnx]'"


def test_a_mask_has_no_network_for_onnx(trained: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mask = TRAININGS["ticket"].mask
    assert mask is not None
    arguments = [mask.id, "--root", trained.base, "--out", str(tmp_path / "out"), "--onnx"]
    assert refused(capfd, 2, *arguments) == f"step {mask.id} is a mask, and --onnx needs a network"


# ------------------------------------------------------------------------------------- the store's part


@pytest.mark.parametrize("name", [*TRAININGS, "SVMs"])
def test_a_step_comes_back_from_the_store_as_it_was_asked_for(name: str, trained: Store) -> None:
    step = TRAININGS.get(name, SVMS)
    found = trained.step(step.id)
    assert [to_plain(one) for one in closure([found])] == [to_plain(one) for one in closure([step])]
    assert found == step


def test_a_step_of_another_version_is_one_sentence(tmp_path: Path) -> None:
    trained, step = Store(str(tmp_path / "runs")), TRAININGS["dense"]
    trained.create()
    for wrong in ({"kind": "Anneal"}, {"colour": "red"}, {"version": 2}, {"seed": 8}):
        trained.commit(step, {"spec.json": json.dumps({**to_plain(step), **wrong}).encode()}, {}, {})
        with pytest.raises(ValueError, match=f"step {step.id} was made by another version of raysslprune"):
            trained.step(step.id)
