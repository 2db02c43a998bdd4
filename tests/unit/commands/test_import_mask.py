"""``raysslprune import-mask``: masks into the store, and sweeps that train under them."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

import raysslprune
from raysslprune import masks, models, results, words
from raysslprune.commands import export, import_mask
from raysslprune.lottery import imp, random_reinit, rewound
from raysslprune.plan.graph import make_plan
from raysslprune.release import subnetwork
from raysslprune.spec import Imported, Rewind, Shuffle, Step, Train
from raysslprune.store.record import MASK, Damaged
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load
from raysslprune.sweepfile import Point
from raysslprune.training.make_masks import NotImported
from tests.helpers.chains import execute
from tests.helpers.exports import (
    DOC,
    LABELS,
    ROTNET,
    SEED,
    SHAPES,
    SMOKE,
    SVMS,
    TRAININGS,
    by_hand,
    card_of,
    code_of,
    made_mask,
    mask_in,
    weights,
)


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def magnitudes_above(trunk: nn.Module, amount: float) -> dict[str, np.ndarray]:
    """What global magnitude pruning leaves, by one sort of all magnitudes in numpy."""
    sizes = {name: np.abs(w.detach().numpy()) for name, w in models.prunable(trunk).items()}
    ordered = np.sort(np.concatenate([s.ravel() for s in sizes.values()]))
    threshold = ordered[round(amount * len(ordered))]
    return {name: s >= threshold for name, s in sizes.items()}


# ------------------------------------------------------------------------------------- masks in


def test_the_digest_is_of_every_bit_name_and_shape_in_any_order() -> None:
    mask = made_mask()
    assert masks.digest(mask) == by_hand(mask)
    assert masks.digest(dict(reversed(mask.items()))) == by_hand(mask)
    last = "layers.conv4.weight"
    flipped = {**mask, last: mask[last].clone()}
    flipped[last].view(-1)[-1] ^= True
    turned = {**mask, last: mask[last].view(32, 64, 3, 3)}
    renamed = {**{name: m for name, m in mask.items() if name != last}, "layers.conv5.weight": mask[last]}
    assert len({masks.digest(m) for m in (mask, flipped, turned, renamed)}) == 4


DIGEST = "0123456789abcdef" * 4


def test_the_id_of_an_imported_mask_by_hand() -> None:
    step = Imported(arch="conv4", channels=1, digest=DIGEST)
    text = f'{{"arch":"conv4","channels":1,"digest":"{DIGEST}","kind":"Imported","version":1}}'
    assert step.id == hashlib.sha256(text.encode()).hexdigest()[:16] == "34ad80d9f86e4fdb"
    assert step.parents == ()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"channels": 0}, "channels must be at least 1, not 0"),
        ({"digest": DIGEST[1:]}, "a digest has 64 hexadecimal digits in lower case"),
        ({"digest": DIGEST.upper()}, "a digest has 64 hexadecimal digits in lower case"),
        ({"digest": "DIGEST"}, "not 'DIGEST'"),
    ],
)
def test_what_makes_no_sense_of_an_imported_mask_is_refused(change: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        Imported(**{"arch": "conv4", "channels": 1, "digest": DIGEST, **change})


def test_an_imported_mask_is_for_its_own_architecture() -> None:
    mask = Imported(arch="resnet8", channels=1, digest=DIGEST)
    for one in (mask, Shuffle(of=mask, seed=0)):
        with pytest.raises(ValueError, match="the imported mask is for resnet8, not for conv4"):
            random_reinit(one, like=ROTNET.dense, task="labels", recipe=LABELS)
        with pytest.raises(ValueError, match="the imported mask is for resnet8, not for conv4"):
            dataclasses.replace(SVMS, mask=one)
    like = dataclasses.replace(ROTNET.dense, arch="resnet8")
    assert random_reinit(mask, like=like, task="labels", recipe=LABELS).mask == mask


def test_a_rewound_training_is_the_winning_ticket_under_any_mask() -> None:
    mask = Imported(arch="conv4", channels=1, digest=DIGEST)
    ticket = rewound(mask, to=ROTNET.dense, samples=640, task="labels", recipe=LABELS)
    assert ticket == dataclasses.replace(TRAININGS["ticket"], mask=mask)
    assert ticket.start == Rewind(of=ROTNET.dense, samples=640)
    assert (ticket.data, ticket.arch, ticket.seed) == ("digits", "conv4", SEED)
    other = rewound(mask, to=ROTNET.dense, samples=640, task="labels", recipe=LABELS, data="digits:10%-of-images")
    assert other.data == "digits:10%-of-images"


def imported(root: Path, mask: Mapping[str, Tensor], *more: str) -> int:
    (root.parent / "mask.safetensors").write_bytes(to_safetensors({f"{n}_mask": m.float() for n, m in mask.items()}))
    return import_mask.main([str(root.parent / "mask.safetensors"), "--arch", "conv4", "--root", str(root), *more])


def test_a_mask_comes_into_the_store(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mask = made_mask()
    assert imported(tmp_path / "runs", mask) == 0
    said = capfd.readouterr()
    assert said.err == ""
    scope: dict[str, Any] = {}
    exec(said.out, scope)
    step = scope["MASK"]
    assert step == Imported(arch="conv4", channels=1, digest=by_hand(mask))
    trained = Store(str(tmp_path / "runs"))
    record = trained.record(step.id)
    assert record is not None
    left = sum(int(m.sum()) for m in mask.values())
    assert record.metrics == {"density": left / 32_400, "density_in_scope": left / 32_400}
    assert record.facts["source"] == "mask.safetensors"
    assert f"step {step.id} in {tmp_path / 'runs'}: {100 * left / 32_400:.4g}% of conv4's weights stay" in said.out
    for name, m in mask_in(trained, step, SHAPES).items():
        assert np.array_equal(m, mask[name].numpy())
    assert trained.step(step.id) == step
    content = {path.name: path.read_bytes() for path in (tmp_path / "runs/steps" / step.id).iterdir()}
    assert imported(tmp_path / "runs", mask) == 0
    again = {path.name: path.read_bytes() for path in (tmp_path / "runs/steps" / step.id).iterdir()}
    assert again == content


def test_an_exported_mask_comes_into_another_store(
    exported: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(exported["ticket"] / "mask.safetensors"), "--arch", "conv4", "--root", str(tmp_path / "runs")]
    assert import_mask.main(arguments) == 0
    assert by_hand(subnetwork.load_mask(exported["ticket"])) in capfd.readouterr().out


def test_channels_are_asked_for_where_the_first_layer_is_not_there(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    some = {name: m for name, m in made_mask().items() if "conv1" not in name}
    assert imported(tmp_path / "runs", some) == 2
    said = capfd.readouterr().err
    assert "has no mask of the first convolution, layers.conv1.weight: add --channels" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "runs").exists()
    assert imported(tmp_path / "runs", some, "--channels", "3") == 0
    full = {"layers.conv1.weight": torch.ones(16, 3, 3, 3, dtype=torch.bool)}
    assert f'channels=3, digest="{by_hand(full | some)}"' in capfd.readouterr().out


def test_a_mask_of_the_last_layer_is_left_out_and_that_is_said(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert imported(tmp_path / "runs", {**made_mask(), "fc.weight": torch.zeros(10, 64)}) == 0
    said = capfd.readouterr()
    assert said.err == "raysslprune: left out, since the last layer is never pruned here: fc.weight\n"
    assert by_hand(made_mask()) in said.out


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


def archive(*arrays: np.ndarray, **named: np.ndarray) -> bytes:
    """As numpy.savez writes it."""
    np.savez(content := io.BytesIO(), *arrays, **cast(Any, named))
    return content.getvalue()


@pytest.mark.parametrize(
    ("arguments", "content", "code", "why"),
    [
        (["--arch", "conv9"], {}, 2, "architecture 'conv9' is not known; did you mean 'conv"),
        (["--arch", "conv4", "--channels", "x"], {}, 2, "'x' is not a whole number from 1 to 1000; see --help"),
        (["--arch", "conv4"], {"layers.conv1.weight": torch.randn(16, 1, 3, 3)}, 2, "it has values other than 0 and 1"),
        (
            ["--arch", "conv4"],
            {"a": Evil()},
            2,
            "damaged, is not a checkpoint, or contains objects other than tensors and plain",
        ),
        (
            ["--arch", "conv4"],
            {"layers.conv1.weight": np.ones((16, 1, 3, 3))},
            2,
            "objects other than tensors and plain values",
        ),
        (
            ["--arch", "conv4"],
            {"layers.conv1": Evil()},
            2,
            "damaged, is not a checkpoint, or contains objects other than tensors",
        ),
        (["--arch", "conv4"], b"", 2, "mask.pt is damaged, is not a checkpoint"),
        (["--arch", "conv4"], b'\x08\0\0\0\0\0\0\0{"a": 1}', 2, "mask.pt is damaged, is not a checkpoint"),
        (
            ["--arch", "conv4"],
            archive(a=np.array([Evil()], dtype=object)),
            2,
            "contains objects other than tensors and plain values",
        ),
        (["--arch", "conv4"], archive(a=np.array(["text"])), 2, "mask.pt is damaged, is not a checkpoint"),
        (["--arch", "conv4"], archive(), 2, "has no named tensors, at the top level or under masks, mask, "),
        (
            ["--arch", "conv4"],
            archive(np.ones(3)),
            2,
            "the file has masks for arr_0, but for none of the network's layers",
        ),
        (["--arch", "conv4"], archive(np.ones(3))[:-9], 2, "mask.pt is damaged, is not a checkpoint"),
        (["--arch", "conv4"], [torch.ones(2)], 2, "mask.pt has no named tensors, at the top level or under"),
        (
            ["--arch", "conv4"],
            {"fc.bias": torch.ones(4, dtype=torch.uint8)},
            2,
            "the file has masks for fc.bias, but for none of the net",
        ),
        (
            ["--arch", "conv4"],
            {"layers.conv1.weight": torch.ones(16, 9)},
            2,
            "the mask of convolution layers.conv1.weight is (16, 9); it must have four dimensions",
        ),
        (
            ["--arch", "conv4"],
            {"layers.conv1.weight": torch.ones(16, 1, 3, 3, device="meta")},
            2,
            "layers.conv1.weight can't be read as a mask: it is float32, strided, of shape (16, 1, 3, 3), on meta",
        ),
        (
            ["--arch", "conv4"],
            {f"{wrapper}layers.conv1.weight": torch.ones(16, 1, 3, 3) for wrapper in ("", "module.")},
            2,
            "the file has two masks for layers.conv1.weight, one named module.layers.conv1.weight",
        ),
        (
            ["--arch", "conv4"],
            {"layers.conv1": {"weight": torch.ones(16, 1, 3, 3)}, "layers.bn1": {"weight": torch.zeros(16)}},
            2,
            "layers.bn1.weight is pruned, but is no weight of a convolution or linear layer here",
        ),
        (
            ["--arch", "conv4"],
            {"layers.conv1.weight": torch.ones(16, 1, 3, 3), "other": torch.ones(1).expand(10**15)},
            2,
            "other can't be read as a mask: it is float32, strided, of shape (1000000000000000,), on cpu",
        ),
        (["--arch", "conv4"], None, 2, "there is no file mask.pt"),
        (["--arch", "conv4"], "folder", 2, "mask.pt is a folder, not a file"),
        (
            ["--arch", "conv4"],
            {"features.0.weight": torch.ones(16, 1, 3, 3)},
            2,
            "the file has masks for features.0.weight, but for none",
        ),
        (["--arch", "resnet8"], {"layers.conv1.weight": torch.ones(16, 1, 3, 3)}, 2, "layers (layers.0.weight, "),
    ],
)
def test_what_can_not_be_imported_is_one_sentence(
    arguments: list[str],
    content: Any,
    code: int,
    why: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content == "folder":
        Path("mask.pt").mkdir()
    elif isinstance(content, bytes):
        Path("mask.pt").write_bytes(content)
    elif content is not None:
        torch.save(content, "mask.pt")
    assert code_of(import_mask.main, ["mask.pt", "--root", "runs", *arguments]) == code
    said = capfd.readouterr()
    assert why in said.err
    assert len(said.err.splitlines()) == 1
    assert said.out == ""
    assert not (tmp_path / "runs").exists()
    assert not (tmp_path / "evil").exists()


def under(mask: Any) -> Train:
    return random_reinit(mask, like=ROTNET.dense, task="labels", recipe=LABELS)


def points_of(*steps: Train) -> list[Point]:
    return [Point(step=step, task="labels", init="", level=1, seed=SEED) for step in steps]


# ------------------------------------------------------------------------------------- in a sweep


def test_no_job_makes_an_imported_mask(tmp_path: Path) -> None:
    mask = Imported(arch="conv4", channels=1, digest=DIGEST)
    graph = make_plan(points_of(under(mask), under(Shuffle(of=mask, seed=0))))
    assert [job.parents for job in graph.jobs.values()] == [[], []]
    assert [job.before for job in graph.jobs.values()] == [[mask], [Shuffle(of=mask, seed=0)]]
    assert mask.id in graph.ids
    assert graph.not_imported({}) == [mask]
    assert words.describe(mask) == "imported mask 01234567"
    assert words.describe(Shuffle(of=mask, seed=0)) == "shuffled imported mask 01234567"
    assert math.isnan(mask.target_density)
    with pytest.raises(NotImported) as missing:
        execute([under(mask)], tmp_path / "runs")
    assert str(missing.value) == (
        f"the imported conv4 mask 01234567 (step {mask.id}) is missing in {tmp_path / 'runs'}; import it: "
        f"raysslprune import-mask FILE --arch conv4 --root {tmp_path / 'runs'}"
    )
    assert Store(str(tmp_path / "runs")).record(under(mask).id) is None


def test_a_damaged_imported_mask_is_recognised_and_can_be_imported_again(tmp_path: Path) -> None:
    mask = made_mask()
    step = Imported(arch="conv4", channels=1, digest=by_hand(mask))
    assert imported(tmp_path / "runs", mask) == 0
    path = tmp_path / "runs/steps" / step.id / MASK
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    trained = Store(str(tmp_path / "runs"))
    graph = make_plan(points_of(under(step)))
    records, damaged = trained.survey(graph.ids)
    assert [damage.step_id for damage in damaged] == [step.id]
    assert graph.not_imported(records) == [step]
    with pytest.raises(Damaged):
        execute([under(step)], tmp_path / "runs")
    trained.set_aside(step.id)
    assert imported(tmp_path / "runs", mask) == 0
    execute([under(step)], tmp_path / "runs")
    records, _ = Store(trained.base).survey(graph.ids)
    assert graph.not_imported(records) == []
    assert graph.pending(records) == []


def test_the_docs_own_way_from_torchs_pruning_to_a_table(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export a dense network, prune it by torch, import the mask, and train from it, as docs/export.md shows."""
    monkeypatch.chdir(tmp_path)
    code = dict(re.findall(r"^```python (\S+)\n(.*?)^```$", DOC, re.M | re.S))
    dense = imp(
        task="labels", data="digits", arch="conv4", recipe=SMOKE.recipes["labels"], seed=0, levels=0, keep=0.1, rewind=0
    ).dense
    trained = execute([dense], tmp_path / "runs")
    assert export.main([dense.id, "--out", "dense"]) == 0
    exec(code["prune.py"], {})
    capfd.readouterr()
    command = re.findall(r"^    raysslprune import-mask (.*)$", DOC, re.M)
    assert len(command) == 1
    assert import_mask.main(command[0].split()) == 0
    *_, line = capfd.readouterr().out.splitlines()
    digest = re.findall('digest="(.*)"', line)[0]
    text = code["theirs.py"].replace("DIGEST", digest)
    assert line in text.splitlines(), "it is printed as it stands in a sweep file"
    (tmp_path / "theirs.py").write_text(text)

    points = load("theirs.py", "smoke", 1).points
    steps = [point.step for point in points]
    execute(steps, tmp_path / "runs")
    trunk = raysslprune.load_subnetwork("dense").trunk
    stays = magnitudes_above(trunk, 0.9)
    assert sum(int(m.sum()) for m in stays.values()) == 3_240
    ticket, reinit, control = (weights(trained, step) for step in steps)
    for name, m in stays.items():
        assert np.array_equal(mask_in(trained, cast(Step, steps[0].mask), SHAPES)[name], m)
        for state in (ticket, reinit):
            assert not state[f"trunk.{name}"].numpy()[~m].any()
            assert state[f"trunk.{name}"].numpy()[m].all()
        left = control[f"trunk.{name}"].numpy() != 0
        assert left.sum() == m.sum()
        assert not np.array_equal(left, m)
    assert isinstance(steps[0].start, Rewind)
    assert steps[0].start.of == dense
    graph = make_plan(points)
    records, _ = trained.survey(graph.ids)
    table = results.table("theirs", "smoke", points, records)
    assert table["density"].to_pylist() == table["density_of_all"].to_pylist() == [0.1] * 3

    assert export.main([steps[0].id, "--out", "theirs"]) == 0
    assert f"The mask was made elsewhere: it is from the file `pruned.pt`, SHA-256 of the mask {digest}" in card_of(
        tmp_path / "theirs"
    )
    assert export.main([cast(Step, steps[0].mask).id, "--out", "mask"]) == 0
    assert by_hand(subnetwork.load_mask("mask")) == digest
    assert "images" not in json.loads((tmp_path / "mask/config.json").read_text())
