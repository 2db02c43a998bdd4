"""``raysslprune import-weights``: others' weights into the store, and what is trained and pruned from them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import raysslprune
from raysslprune import masks, results, sweep_loader, words
from raysslprune.catalogue import label_samples
from raysslprune.commands import export, import_weights
from raysslprune.lottery import finetune, imp, linear
from raysslprune.plan.graph import make_plan
from raysslprune.spec import Final, ImportedWeights, Prune, Step, Train, dump, load
from raysslprune.store import leftovers
from raysslprune.store.record import MASK, WEIGHTS, Damaged
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point
from raysslprune.training.make_masks import NoExchange, NotImported
from raysslprune.training.runner import Runner
from tests.helpers.chains import execute
from tests.helpers.exports import CLASSIFIER, DOC, LABELS, MACHINES, ROTNET, SEED

DIGEST = "0123456789abcdef" * 4
DENSE = ROTNET.dense


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ------------------------------------------------------------------------------------- the step


def test_the_id_of_imported_weights_by_hand() -> None:
    step = ImportedWeights(arch="conv4", channels=1, digest=DIGEST)
    text = f'{{"arch":"conv4","channels":1,"digest":"{DIGEST}","kind":"ImportedWeights","version":1}}'
    assert step.id == hashlib.sha256(text.encode()).hexdigest()[:16] == "c66c15f5d2ce20e9"
    assert step.parents == ()
    assert eval(step.line, vars(raysslprune) | {"ImportedWeights": ImportedWeights}) == step


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="a digest has 64 hexadecimal digits"):
        ImportedWeights(arch="conv4", channels=1, digest="abc")
    with pytest.raises(ValueError, match="the imported weights are of resnet8, not of conv4"):
        dataclasses.replace(DENSE, start=Final(of=ImportedWeights(arch="resnet8", channels=1, digest=DIGEST)))
    weights = ImportedWeights(arch="conv4", channels=1, digest=DIGEST)
    for build in (linear, finetune):
        with pytest.raises(ValueError, match="imported weights have no seed: give one"):
            build(weights, data="digits", recipe=LABELS)


def all_uses(of: Train | ImportedWeights) -> dict[str, Train]:
    """What final weights are good for: the same steps from a training's own and from imported ones."""
    mask = Prune(of=of, keep=0.1)
    chain = imp(
        task="labels",
        data="digits",
        arch="conv4",
        recipe=LABELS,
        seed=SEED,
        levels=2,
        keep=0.5,
        rewind=0,
        start=Final(of=of),
    )
    return {
        "classifier": linear(of, data="digits", recipe=CLASSIFIER, seed=SEED),
        "SVMs": linear(of, data="digits", recipe=MACHINES, seed=SEED),
        "classifier, pruned": linear(of, data="digits", recipe=CLASSIFIER, seed=SEED, mask=mask),
        "fine-tuned, pruned": finetune(of, data="digits:10%-of-images", recipe=LABELS, seed=SEED, mask=mask),
        "pruned in transfer": chain.rounds[1],
    }


def test_the_steps_of_a_sweep_survive_their_json() -> None:
    steps = all_uses(ImportedWeights(arch="conv4", channels=1, digest=DIGEST))
    assert {one.id for one in load(dump(steps.values())).values()} >= {step.id for step in steps.values()}
    assert steps["classifier, pruned"].seed == SEED
    assert steps["classifier, pruned"].target_density == 0.1


def test_in_words() -> None:
    steps = all_uses(ImportedWeights(arch="conv4", channels=1, digest=DIGEST))
    assert words.title(steps["classifier"]) == f"linear seed {SEED}, dense, from imported weights 01234567"
    expected = f"linear seed {SEED}, imported weights 01234567 mask 1, from imported weights 01234567"
    assert words.title(steps["classifier, pruned"]) == expected
    assert len(set(words.titles(steps.values()).values())) == len(steps)
    assert label_samples(steps["fine-tuned, pruned"]) is None


# ------------------------------------------------------------------------------------- weights in


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A training, and all that is made from its final weights. Don't write to it."""
    return execute(all_uses(DENSE).values(), tmp_path_factory.mktemp("weights") / "runs")


def moco_like(trained: Store) -> dict[str, Any]:
    own = load_file(Path(trained.base) / "steps" / DENSE.id / WEIGHTS)
    encoder = {name.removeprefix("trunk."): t for name, t in own.items() if name.startswith("trunk.")}
    state = {f"module.encoder_q.{name}": t for name, t in encoder.items()}
    state |= {f"module.encoder_k.{name}": t * 2 for name, t in encoder.items()}
    state |= {"module.encoder_q.fc.0.weight": torch.ones(64, 64), "module.queue": torch.ones(64, 8)}
    return {"epoch": 200, "state_dict": state}


def imported(trained: Store, folder: Path) -> Path:
    torch.save(moco_like(trained), folder / "moco.pth.tar")
    assert import_weights.main([str(folder / "moco.pth.tar"), "--arch", "conv4", "--root", str(folder / "runs")]) == 0
    return folder / "runs"


def step_in(out: str) -> ImportedWeights:
    scope: dict[str, Any] = {}
    exec(out, scope)
    assert scope["START"] == Final(of=scope["WEIGHTS"])
    return scope["WEIGHTS"]


def by_hand(tensors: dict[str, Tensor]) -> str:
    lines = (
        f"{name} {t.dtype} ({', '.join(map(str, t.shape))}{',' * (t.ndim == 1)})\n".encode() + t.numpy().tobytes()
        for name, t in sorted(tensors.items())
    )
    return hashlib.sha256(b"".join(lines)).hexdigest()


def test_weights_come_into_the_store(trained: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    root = imported(trained, tmp_path)
    said = capfd.readouterr()
    step, store = step_in(said.out), Store(root)
    own = {n: t for n, t in load_file(Path(trained.base) / "steps" / DENSE.id / WEIGHTS).items() if n[:6] == "trunk."}
    assert step == ImportedWeights(
        arch="conv4", channels=1, digest=by_hand({name.removeprefix("trunk."): t for name, t in own.items()})
    )
    stored = load_file(root / "steps" / step.id / WEIGHTS)
    assert stored.keys() == own.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in own.items())
    assert store.step(step.id) == step
    record = store.record(step.id)
    assert record is not None
    assert record.facts["source"] == "moco.pth.tar"
    assert f"# step {step.id} in {root}: {len(own)} tensors of conv4 under state_dict.module.encoder_q" in said.out
    at = "state_dict.module"
    parts = f"{at}.encoder_k ({len(own)}), {at}.encoder_q.fc (1), {at}.queue (1)"
    assert said.err == f"raysslprune: left out, by number of tensors: {parts}\n"


def test_all_that_starts_from_them_is_what_starts_from_the_training_itself(trained: Store, tmp_path: Path) -> None:
    """Pruned, probed, fine-tuned, pruned in transfer: the same bits, from the same weights by another way."""
    root = imported(trained, tmp_path)
    weights = ImportedWeights(arch="conv4", channels=1, digest=_only(root))
    theirs, ours = all_uses(weights), all_uses(DENSE)
    store = execute(theirs.values(), root)
    for name, step in theirs.items():
        record, own = store.record(step.id), trained.record(ours[name].id)
        assert record is not None, name
        assert own is not None, name
        assert record.metrics == own.metrics, name
        got, expected = (load_file(Path(s.base) / "steps" / i / WEIGHTS) for s, i in
                         ((store, step.id), (trained, ours[name].id)))  # fmt: skip
        assert got.keys() == expected.keys()
        assert all(torch.equal(got[key], tensor) for key, tensor in expected.items()), name
    masks_of = [cast(Step, uses["classifier, pruned"].mask).id for uses in (theirs, ours)]
    left, right = (store.record(masks_of[0]), trained.record(masks_of[1]))
    assert left is not None
    assert right is not None
    assert left.metrics == right.metrics
    assert left.metrics["density"] == 3240 / 32400


def _only(root: Path) -> str:
    (folder,) = (root / "steps").iterdir()
    step = Store(root).step(folder.name)
    assert isinstance(step, ImportedWeights)
    return step.digest


def test_no_job_makes_them_and_their_absence_is_told(trained: Store, tmp_path: Path) -> None:
    weights = ImportedWeights(arch="conv4", channels=1, digest=DIGEST)
    steps = all_uses(weights)
    points = [Point(step=step, task=name, init="", level=0, seed=SEED) for name, step in steps.items()]
    plan = make_plan(points)
    assert weights.id in plan.ids
    assert plan.not_imported({}) == [weights]
    told = f"the imported conv4 weights 01234567 (step {weights.id}) are missing in {tmp_path}; import them: "
    told += f"raysslprune import-weights FILE --arch conv4 --root {tmp_path}"
    assert weights.missing_in(str(tmp_path)) == told
    for name in ("classifier", "SVMs", "classifier, pruned"):
        with pytest.raises(NotImported, match="import-weights FILE --arch conv4"):
            execute([steps[name]], tmp_path)
    job = plan.jobs[steps["classifier"].id]
    assert plan.maker(weights.id, job) is job


def test_a_damaged_file_of_them_is_found(trained: Store, tmp_path: Path) -> None:
    root = imported(trained, tmp_path)
    step = ImportedWeights(arch="conv4", channels=1, digest=_only(root))
    path = root / "steps" / step.id / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    store = Store(root)
    train = linear(step, data="digits", recipe=CLASSIFIER, seed=0)
    with pytest.raises(Damaged, match="does not match its checksum"):
        Runner(store=store, exchange=NoExchange()).starting_state(train)


def test_they_are_never_deleted_and_not_exported_by_themselves(
    trained: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = imported(trained, tmp_path)
    step = ImportedWeights(arch="conv4", channels=1, digest=_only(root))
    found = leftovers.find(Store(root), needed=())
    assert found.imported == [step.id]
    assert not found.unneeded
    capfd.readouterr()
    assert export.main([step.id, "--root", str(root), "--out", str(tmp_path / "out")]) == 1
    assert "is imported weights; export a training that starts from them, or a mask" in capfd.readouterr().err


def test_a_network_and_a_mask_from_them_are_exported(trained: Store, tmp_path: Path) -> None:
    root = imported(trained, tmp_path)
    step = ImportedWeights(arch="conv4", channels=1, digest=_only(root))
    tuned = finetune(step, data="digits", recipe=LABELS, seed=SEED, mask=Prune(of=step, keep=0.1))
    store = execute([tuned], root)
    for one in (tuned, tuned.mask):
        assert one is not None
        out = tmp_path / one.id
        assert export.main([one.id, "--root", str(root), "--out", str(out)]) == 0
        card = (out / "README.md").read_text()
        assert (
            "Pruned by magnitude once, from imported weights: of the weights left in scope `all` the largest 10%"
            in card
        )
        assert f"from the file `moco.pth.tar`, SHA-256 of the weights {step.digest}" in card
        assert store.has(f"steps/{one.id}/{MASK if one is tuned.mask else WEIGHTS}")
    mask = raysslprune.load_mask(tmp_path / tuned.mask.id) if tuned.mask else {}
    assert masks.density(mask) == 0.1


# ------------------------------------------------------------------------------------- files


class Evil:
    def __reduce__(self) -> Any:
        return os.mkdir, ("evil",)


def as_numpy(state: dict[str, Tensor], path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, **cast(Any, {name: t.numpy() for name, t in state.items()}))


WRITERS: dict[str, Callable[[dict[str, Tensor], Path], object]] = {
    "torch": torch.save,
    "torch of old": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "safetensors": lambda state, path: save_file({n: t.contiguous() for n, t in state.items()}, path),
    "numpy": as_numpy,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_the_format_is_known_by_the_content(writer: str, trained: Store, tmp_path: Path) -> None:
    WRITERS[writer](moco_like(trained)["state_dict"], tmp_path / "x.pth.tar")
    step, found = import_weights.into_store(Store(tmp_path / "runs"), tmp_path / "x.pth.tar", "conv4")
    torch.save(moco_like(trained), tmp_path / "y.pth.tar")
    assert import_weights.into_store(Store(tmp_path / "runs"), tmp_path / "y.pth.tar", "conv4")[0] == step
    assert found.prefix == "module.encoder_q."


@pytest.mark.parametrize(
    ("arguments", "content", "why"),
    [
        (["--arch", "conv9"], {}, "architecture 'conv9' is not known; did you mean 'conv"),
        (["--arch", "conv4"], torch.nn.Linear(2, 2), "if it is a whole network, save its state_dict()"),
        (["--arch", "conv4"], {"a": Evil()}, "x.pt is damaged, is not a checkpoint, or contains objects other than"),
        (
            ["--arch", "conv4"],
            [torch.ones(2)],
            "x.pt can't be imported as conv4: it has no weights of conv4, but no te",
        ),
        (
            ["--arch", "conv4", "--prefix", "net"],
            {"state_dict": {"fc.weight": torch.ones(2)}},
            "it has no weights of conv4 after the prefix 'net', but state_dict.fc.weight",
        ),
    ],
    ids=["arch", "network", "code", "list", "prefix"],
)
def test_a_wrong_call_or_file_is_one_sentence(
    arguments: list[str], content: Any, why: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    torch.save(content, tmp_path / "x.pt")
    assert import_weights.main([str(tmp_path / "x.pt"), *arguments, "--root", str(tmp_path / "runs")]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert why in line
    assert not (tmp_path / "runs").exists()
    assert not Path("evil").exists()


def test_a_file_that_is_not_there_is_one_sentence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for path, why in ((tmp_path, "is a folder, not a file"), (tmp_path / "none", "there is no file")):
        assert import_weights.main([str(path), "--arch", "conv4", "--root", str(tmp_path / "runs")]) == 2
        assert why in capfd.readouterr().err


def test_the_docs_own_sweep_prunes_and_probes_them(trained: Store, tmp_path: Path) -> None:
    root = imported(trained, tmp_path)
    (code,) = re.findall(r"^```python pretrained.py\n(.*?)^```$", DOC, re.M | re.S)
    (tmp_path / "pretrained.py").write_text(code.replace("DIGEST", _only(root)))
    points = sweep_loader.load(tmp_path / "pretrained.py", "smoke", 1).points
    store = execute([point.step for point in points], root)
    records, _ = store.survey(make_plan(points).ids)
    rows = results.table("pretrained", "smoke", points, records).to_pylist()
    left = [round(row["density"], 4) for row in rows if row["init"] == "probed"]
    assert left == [1.0, 0.5, 0.25, 0.125]
    assert [round(row["density"], 4) for row in rows if row["init"] == "pruned in transfer"] == left
    probed = [row["value"] for row in rows if row["init"] == "probed"]
    assert len(set(probed)) == 4
    assert probed[0] > 60  # of ten classes: the features of a training of one epoch


def test_a_file_with_changed_bytes_is_read_or_refused(trained: Store, tmp_path: Path) -> None:
    """By a sentence that names it, whatever its parser fails with."""
    torch.save(moco_like(trained), tmp_path / "whole.pt")
    whole, rng = (tmp_path / "whole.pt").read_bytes(), random.Random(0)
    path = tmp_path / "x.pt"
    said: list[str] = []
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(rng.choice((1, 3, 30))):
            data[rng.randrange(rng.choice((64, 2000, len(data))))] = rng.randrange(256)
        path.write_bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])
        try:
            import_weights.into_store(Store(tmp_path / "runs"), path, "conv4")
        except ValueError as error:
            said.append(str(error))
    assert len(said) > 10
    assert all(text.startswith(f"{path} can't be imported as conv4: ") for text in said)
