"""Every kind of file in a root is cut short, flipped, emptied, replaced, taken away or made unreadable.

It is recognised, named in one sentence, set aside and made again; and no table ever has a wrong number. The commands
are the real ones, and so is what runs the jobs, but for Ray, in whose place they are run here one after the other.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysslprune import execution, results, sweep
from raysslprune.cluster.options import RunOptions
from raysslprune.commands import export
from raysslprune.commands import results as query
from raysslprune.figures import ink
from raysslprune.messages import FAILED, note
from raysslprune.plan.graph import Job, make_plan
from raysslprune.store.record import Damaged
from raysslprune.store.steps import Store
from raysslprune.sweep_loader import load

FILES = {
    "mine.py": """
from dataclasses import replace
from raysslprune.lottery import imp, winning_ticket
from raysslprune.paper.scales import SETTINGS
from raysslprune.sweepfile import Figure, Point
FIGURE = Figure(title="Mine")
def points(scale, seed):
    recipe = replace(SETTINGS[scale].recipes["labels"], samples=640)
    chain = imp(task="labels", data="digits", arch="conv4", recipe=recipe, seed=seed, levels=2, keep=0.5, rewind=128)
    for level in (0, 1, 2):
        step = winning_ticket(chain, level, task="labels", recipe=recipe)
        yield Point(step=step, task="labels", init="winning ticket", level=level, seed=seed)
""",
    "sizes.py": """
import mine
from raysslprune.sweepfile import Magnitudes
FIGURE = Magnitudes(title="Sizes")
def points(scale, seed):
    yield next(mine.points(scale, seed))
""",
    "searched.py": """
import mine
from raysslprune.lottery import imp, winning_ticket
from raysslprune.sweepfile import Point, Search
FIGURE = Search(title="Searched", objective="train_loss")
def points(scale, seed):
    dense = next(mine.points(scale, seed)).step
    for rewind in (0, 128, 256, 384):
        chain = imp(task="labels", data="digits", arch="conv4", recipe=dense.recipe, seed=seed, levels=1, keep=0.5,
                    rewind=rewind)
        step = winning_ticket(chain, 1, task="labels", recipe=dense.recipe)
        for metric in ("top1", "train_loss"):
            yield Point(step=step, task="labels", init="winning ticket", level=1, seed=seed, metric=metric)
""",
}
"""Three sweeps that share most of what they need, and leave every kind of file."""

SWEEPS = ("mine.py", "sizes.py", "searched.py")
TABLES = ("mine", "sizes", "sizes-magnitudes", "searched")
"""Tables that depend on the steps alone."""

KINDS = {
    "marker": r"raysslprune\.json",
    "index": r"index\.parquet",
    "lock": r"lock",
    "status": r"status\.json",
    "spec": r"steps/\w+/spec\.json",
    "weights": r"steps/\w+/weights\.safetensors",
    "snapshot": r"steps/\w+/snapshot-\d+\.safetensors",
    "mask": r"steps/\w+/mask\.safetensors",
    "SUCCESS": r"steps/\w+/SUCCESS",
    "table": r"results/smoke/(mine|sizes|searched)\.parquet",
    "runs": r"results/smoke/\w+-runs\.parquet",
    "steps": r"results/smoke/\w+-steps\.parquet",
    "claims": r"results/smoke/\w+-claims\.parquet",
    "magnitudes": r"results/smoke/sizes-magnitudes\.parquet",
    "picture": r"results/smoke/\w+\.(png|pdf)",
    "journal": r"studies/searched-smoke\.journal",
    "checkpoint": r"checkpoints/\w+",
    "damaged": r"damaged/.*",
    "log": r"logs/.*",
}
"""Of all files of a root, to their names below it."""

OF_STEPS = ("spec", "weights", "snapshot", "mask", "SUCCESS")
VIEWS = ("index", "lock", "status", "table", "runs", "steps", "claims", "magnitudes", "picture", "damaged", "log")
"""What a damage to is no loss: made again without a word, or never read."""


def train(run: execution.Execution, data_root: str, manner: RunOptions, check: object) -> int:
    """Stand-in for ``Execution.train``: the same schedule, searcher and repairs, in this process."""
    from ray.tune.search import Searcher

    from raysslprune.cluster import nodes, tune
    from raysslprune.training.make_masks import NoExchange
    from raysslprune.training.runner import Runner

    watcher = Told()
    one = nodes.Capacity(cpus=1, gpus=0)
    jobs = tune.ReadyJobs(
        run.schedule, run.graph, run.store, data_root, watcher, RunOptions(), lambda: one, after_each=run.advance
    )
    runner = Runner(store=run.store, exchange=NoExchange())
    for trial in map(str, count()):
        given = jobs.suggest(trial)
        if given == Searcher.FINISHED:
            break
        assert given, "nothing is ready, and nothing runs"
        try:
            result = {"facts": json.dumps(runner.run(json.loads(jobs.assignment(trial)["job"])))}
        except Damaged as damage:
            result = {"damaged": damage.step_id, "why": damage.why}
        except Exception as error:
            result = {"error": f"{type(error).__name__}: {error}", "traceback": ""}
        jobs.on_trial_complete(trial, result)
    return len(run.schedule.failed) + len(run.schedule.skipped) + len(run.schedule.waiting)


class Told:
    """A watcher that prints failures and notes on stderr, and nothing else."""

    def slots_are(self, count: int) -> None: ...

    def waits(self, what: str, sentence: str) -> None: ...
    def job_started(self, job: Job, workers: int = 1) -> None: ...
    def job_done(self, job: Job, facts: Mapping[str, Any]) -> None: ...
    def process_lost(self, job: Job, why: str, seconds: float) -> None: ...

    def job_failed(self, job: Job, why: str, skipped: int) -> None:
        note(f"{job.title}: {why}")

    def note(self, sentence: str) -> None:
        note(sentence)


@dataclass(frozen=True, kw_only=True)
class Said:
    code: int
    out: str
    err: list[str]


class Here:
    """A folder with sweep files and a root, and the commands run in it."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.root, self.capsys = folder, folder / "runs", capsys

    def __call__(self, main: Callable[[list[str]], int], *arguments: str) -> Said:
        self.capsys.readouterr()
        code = main(list(arguments))
        out, err = self.capsys.readouterr()
        assert "Traceback" not in err
        assert "internal error in raysslprune" not in err
        return Said(code=code, out=out, err=err.splitlines())

    def sweep(self, *more: str) -> Said:
        return self(sweep.main, *SWEEPS, "--scale", "smoke", "--root", str(self.root), *more)

    def of(self, kind: str) -> list[Path]:
        """Files of a kind, in order."""
        names = (path for path in sorted(self.root.rglob("*")) if path.is_file())
        return [path for path in names if re.fullmatch(KINDS[kind], path.relative_to(self.root).as_posix())]

    def tables(self) -> dict[str, bytes]:
        return {name: (self.root / f"results/smoke/{name}.parquet").read_bytes() for name in TABLES}

    def steps(self) -> dict[str, tuple[int, bytes]]:
        """Time and content of all files of the steps; only the time of SUCCESS, because its facts differ."""
        found: dict[str, tuple[int, bytes]] = {}
        for path in self.root.glob("steps/*/*"):
            data = b"" if path.name == "SUCCESS" else path.read_bytes()
            found[path.relative_to(self.root).as_posix()] = (path.stat().st_mtime_ns, data)
        return found


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution.Execution, "train", train)
    monkeypatch.setattr(ink, "save", lambda _canvas, kind: kind.encode())  # drawing takes longer than training here


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose root has every kind of file; don't write to it."""
    from raysslprune.paper.scales import SETTINGS
    from raysslprune.training.make_masks import NoExchange
    from raysslprune.training.runner import Runner

    folder = tmp_path_factory.mktemp("corruption")
    for name, text in FILES.items():
        (folder / name).write_text(text)
    sys.path.insert(0, str(folder))
    root = folder / "runs"
    assert SETTINGS["smoke"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution.Execution, "train", train)
        patch.setattr(ink, "save", lambda _canvas, kind: kind.encode())
        assert sweep.main([*(str(folder / name) for name in SWEEPS), "--scale", "smoke", "--root", str(root)]) == 0
        assert sweep.main([str(folder / "mine.py"), "--scale", "smoke", "--root", str(root)]) == 0  # an index of all
    store = Store(str(root))
    for point in load(str(folder / "mine.py"), "smoke", 1).points:  # as trainings leave them that are killed half way
        runner = Runner(store=store, exchange=NoExchange(), progress=_stop_half_way, checkpoint_every=0)
        with pytest.raises(Killed):
            runner.trained(point.step, set(), False)
    store.write("logs/ray.log", b"said")
    store.write("damaged/0123/weights.safetensors", b"x")
    return folder


class Killed(Exception):
    pass


def _stop_half_way(_job: str, seen: int, end: int) -> None:
    if seen > end // 2:
        raise Killed


@pytest.fixture
def here(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Here:
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)  # times, too: the index knows the files by them
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(path for path in sys.path if path != str(finished))])
    return Here(tmp_path, capsys)


# ------------------------------------------------------------------ damages


@contextmanager
def bound_by_rights() -> Iterator[None]:
    """Run this thread, and those that it starts, as a user to whom file permissions apply, unlike root."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    sets = (ctypes.c_uint32 * 6)()
    assert libc.capget(head, sets) == 0
    before, above = sets[0], 0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    sets[0] = before & ~above
    assert libc.capset(head, sets) == 0
    try:
        yield
    finally:
        sets[0] = before
        assert libc.capset(head, sets) == 0


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0x10]) + data[middle + 1 :] if data else b"x"


def _other(here: Here, file: Path, kind: str) -> bytes:
    """Content of another file of that kind, or of another kind if it is the only one."""
    others = [path.read_bytes() for path in [*here.of(kind), *here.of("SUCCESS"), *here.of("weights")] if path != file]
    return next(data for data in others if data != file.read_bytes())


def damage(here: Here, file: Path, kind: str, how: str) -> None:
    """Damage a file; ``quietly``: with its size and time as before."""
    data, times = file.read_bytes(), (file.stat().st_atime_ns, file.stat().st_mtime_ns)
    match how:
        case "cut short":
            file.write_bytes(data[: len(data) * 2 // 3])
        case "flipped" | "flipped quietly":
            file.write_bytes(flip(data))
        case "emptied":
            file.write_bytes(b"")
        case "another's":
            file.write_bytes(_other(here, file, kind))
        case "a folder":
            file.unlink()
            file.mkdir()
        case "gone":
            file.unlink()
        case "unreadable":
            file.chmod(0)
    if how == "flipped quietly":
        os.utime(file, ns=times)
    elif file.is_file() and how != "unreadable":
        os.utime(file, ns=(times[0], times[1] + 1_000_000_000))


WAYS = ("cut short", "flipped", "flipped quietly", "emptied", "another's", "a folder", "gone", "unreadable")
COMMON = ("flipped", "cut short", "another's")


def cases(*kinds: str) -> list[Any]:
    """All damages of all these kinds, except those that hardly differ from others."""
    return [
        pytest.param(kind, how, marks=() if how in COMMON[number % 3 :][:1] else pytest.mark.slow, id=f"{kind}, {how}")
        for number, kind in enumerate(kinds)
        for how in WAYS
    ]


# ------------------------------------------------------------------ the tests


def test_every_file_of_a_root_is_of_a_kind_that_is_damaged_here(here: Here) -> None:
    """A new kind of file fails here; it needs a place in KINDS and in one of the tests below."""
    files = {path.relative_to(here.root).as_posix() for path in here.root.rglob("*") if path.is_file()}
    assert not [name for name in files if not any(re.fullmatch(kind, name) for kind in KINDS.values())]
    assert not [kind for kind in KINDS if not here.of(kind)]
    assert {*OF_STEPS, *VIEWS, "marker", "journal", "checkpoint"} == KINDS.keys()


def test_a_whole_root_is_left_as_it_is(here: Here) -> None:
    before, steps = here.tables(), here.steps()
    assert here.sweep().err == []
    assert (here.tables(), here.steps()) == (before, steps)


def survivors(here: Here) -> None:
    """Check that the tables of the store have only correct rows, though some may be missing."""
    for name in ("mine.py", "searched.py"):
        points = load(str(here.folder / name), "smoke", 1).points
        records, _ = Store(str(here.root)).survey(make_plan(points).ids)
        true = pq.read_table(here.root / f"results/smoke/{name[:-3]}.parquet").to_pylist()
        now = results.table(name[:-3], "smoke", points, records).to_pylist()
        chosen = {row["step"] for row in true}
        assert [row for row in now if row["step"] in chosen and row not in true] == []


@pytest.mark.parametrize(("kind", "how"), cases(*OF_STEPS))
def test_a_damaged_step_is_named_set_aside_and_made_again(kind: str, how: str, here: Here) -> None:
    tables, steps, aside = here.tables(), here.steps(), set(os.listdir(here.root / "damaged"))
    file = here.of(kind)[0]
    step_id = file.parent.name
    if how == "unreadable":
        (here.root / "index.parquet").unlink()  # by which nobody would look
    damage(here, file, kind, how)
    with bound_by_rights():
        survivors(here)
        said = here.sweep()
    assert (said.code, here.tables()) == (0, tables)
    now = {name: path for name, path in here.steps().items() if not name.startswith(f"steps/{step_id}/")}
    if how == "flipped quietly":  # nothing says so until it is read
        assert said.err == []
        return
    if (kind, how) == ("SUCCESS", "gone"):  # as if it had never been finished
        assert said.err == []
    else:
        (sentence,) = said.err
        assert sentence.startswith(f"raysslprune: step {step_id}: ")
        assert "; moved to " in sentence
        (there,) = set(os.listdir(here.root / "damaged")) - aside
        assert there in sentence
    made_beside = {f"steps/{step_id}/{name}" for name in os.listdir(here.root / "steps" / step_id)}
    assert {name: data for name, (_, data) in here.steps().items()} == {name: data for name, (_, data) in steps.items()}
    assert now == {name: file for name, file in steps.items() if name not in made_beside}, "more was touched"
    assert here.sweep().err == []


@pytest.mark.parametrize(("kind", "how"), cases(*VIEWS))
def test_what_is_made_from_the_steps_is_made_again(kind: str, how: str, here: Here) -> None:
    tables, steps = here.tables(), here.steps()
    damage(here, here.of(kind)[0], kind, how)
    if (kind, how) in (("lock", "unreadable"), ("lock", "a folder")):
        with bound_by_rights():
            said = here.sweep()
        assert (said.code, len(said.err)) == (FAILED, 1)
        assert "lock" in said.err[0]
        return
    with bound_by_rights():
        said = here.sweep()
    assert (said.code, len(said.err)) == (0, (kind, how) == ("table", "another's")), said.err
    assert all("rename one of the two" in sentence for sentence in said.err), "whose table it is, is looked at"
    assert (here.tables(), here.steps()) == (tables, steps)


@pytest.mark.parametrize("how", ["cut short", "flipped", "emptied", "another's", "gone", "a folder", "unreadable"])
def test_a_root_without_a_whole_marker_is_ours_by_what_it_holds(how: str, here: Here) -> None:
    tables, steps, marker = here.tables(), here.steps(), here.root / "raysslprune.json"
    was = marker.read_bytes()
    damage(here, marker, "marker", how)
    with bound_by_rights():
        said = here.sweep()
    if how in ("flipped", "another's", "unreadable"):  # it says that it is another version's; or nothing
        assert (said.code, len(said.err)) == (FAILED, 1)
        marker.chmod(0o644)
        marker.unlink()
        said = here.sweep()
    (sentence,) = said.err
    assert "raysslprune.json was missing or damaged" in sentence
    assert (said.code, here.tables(), here.steps(), marker.read_bytes()) == (0, tables, steps, was)
    assert here.sweep().err == []


@pytest.mark.parametrize("how", WAYS)
def test_a_damaged_journal_changes_no_table(how: str, here: Here) -> None:
    tables, steps, (journal,) = here.tables(), here.steps(), here.of("journal")
    damage(here, journal, "journal", how)
    with bound_by_rights():
        said = here.sweep()
    if how in ("unreadable", "a folder"):
        assert (said.code, len(said.err)) == (FAILED, 1)
        assert journal.name in said.err[0]
        return
    assert said.code == 0
    assert len(said.err) == (how not in ("emptied", "gone")), said.err
    assert (here.tables(), here.steps()) == (tables, steps)


@pytest.mark.parametrize("how", [None, *WAYS])
def test_a_training_goes_on_from_a_whole_checkpoint_of_its_own_alone(how: str | None, here: Here) -> None:
    tables, steps = here.tables(), here.steps()
    file = here.of("checkpoint")[0]
    shutil.rmtree(here.root / "steps" / file.name)
    if how:
        damage(here, file, "checkpoint", how)
    with bound_by_rights():
        said = here.sweep()
    assert (said.code, said.err, here.tables()) == (0, [], tables)
    assert {name: data for name, (_, data) in here.steps().items()} == {name: data for name, (_, data) in steps.items()}
    facts = json.loads((here.root / "steps" / file.name / "SUCCESS").read_text())["facts"]
    assert (facts["resumed_at"] is None) == (how is not None), "it went on from where it should not, or did not go on"


@pytest.mark.parametrize("kind", ["table", "runs", "steps", "claims", "magnitudes"])
def test_no_flipped_bit_of_a_table_gives_a_wrong_number(kind: str, here: Here) -> None:
    """Parquet has no checksum over all its content, and zstd's covers only what it packed."""
    file = here.of(kind)[0]
    data = file.read_bytes()
    true = results.from_parquet(data)
    assert true.equals(pq.read_table(file)), "what other programs read"
    refused = 0
    for position in range(0, len(data), 1 + len(data) // 1500):
        flipped = bytearray(data)
        flipped[position] ^= 1 << position % 8
        try:
            found = results.from_parquet(bytes(flipped))
        except (pa.ArrowException, OSError):
            refused += 1
        else:
            assert found.to_pylist() == true.to_pylist(), position
            # in a table without rows, a flip may change whether a column may have nulls
            assert found.schema.equals(true.schema, check_metadata=False) or not len(true)
    assert refused > 300


def _flip_a_number(file: Path) -> None:
    """The first bit whose flip Parquet does not notice, and which changes numbers."""
    data = file.read_bytes()
    for position in range(len(data)):
        file.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with suppress(pa.ArrowException, OSError):
            now = pq.read_table(file)
            if now.schema.equals(results.SCHEMA) and not now.equals(results.from_parquet(data)):
                return
    raise AssertionError("Parquet sees all of them")


@pytest.mark.parametrize("how", ["flipped in a number", "another's", "emptied", "unreadable"])
def test_a_query_refuses_a_damaged_table_in_a_sentence(how: str, here: Here) -> None:
    file = here.root / "results/smoke/mine.parquet"
    if how == "flipped in a number":
        _flip_a_number(file)
    else:
        damage(here, file, "table", how)
    with bound_by_rights():
        said = here(query.main, "FROM results", "--root", str(here.root))
    assert (said.code, said.out, len(said.err)) == (FAILED, "", 1)
    assert "mine.parquet" in said.err[0]
    assert "run its sweep again" in said.err[0] or "run its own sweep again" in said.err[0]


@pytest.mark.parametrize("kind", ["weights", "SUCCESS"])
def test_what_a_reader_finds_damaged_the_next_sweep_makes_again(kind: str, here: Here) -> None:
    """Even if its size and time are as they were when the index was written."""
    step_id = load("mine.py", "smoke", 1).points[1].step.id
    file = here.root / "steps" / step_id / {"weights": "weights.safetensors"}.get(kind, kind)
    was, tables = here.steps(), here.tables()
    damage(here, file, kind, "flipped quietly")
    assert here.sweep("--dry-run").code == 0
    said = here(export.main, step_id, "--out", "net", "--root", str(here.root))
    assert (said.code, len(said.err)) == (FAILED, 1)
    assert "run its sweep again" in said.err[0]
    said = here.sweep()
    assert said.code == 0
    (sentence,) = said.err
    assert step_id in sentence
    assert here.tables() == tables
    assert {name: data for name, (_, data) in here.steps().items()} == {name: data for name, (_, data) in was.items()}


def test_weights_that_a_figure_finds_damaged_are_set_aside(here: Here) -> None:
    tables, step_id = here.tables(), load("sizes.py", "smoke", 1).points[0].step.id
    damage(here, here.root / "steps" / step_id / "weights.safetensors", "weights", "flipped quietly")
    said = here.sweep()
    assert (said.code, len(said.err)) == (FAILED, 1)
    assert f"step {step_id}: weights.safetensors does not match its checksum; moved to" in said.err[0]
    assert (here.sweep().err, here.tables()) == ([], tables)


def test_a_job_that_meets_damage_has_it_made_again(here: Here) -> None:
    """The first mask is read by the training that uses it, which must run again."""
    tables, steps = here.tables(), here.steps()
    ticket = load("mine.py", "smoke", 1).points[1].step
    assert ticket.mask is not None
    damage(here, here.root / "steps" / ticket.mask.id / "mask.safetensors", "mask", "flipped quietly")
    shutil.rmtree(here.root / "steps" / ticket.id)
    said = here.sweep()
    assert said.code == 0
    (sentence,) = said.err
    assert f"step {ticket.mask.id}: mask.safetensors does not match its checksum; moved to" in sentence
    assert here.tables() == tables
    assert {name: data for name, (_, data) in here.steps().items()} == {name: data for name, (_, data) in steps.items()}


def test_a_folder_in_which_a_step_was_is_a_file(here: Here) -> None:
    tables, step_id = here.tables(), here.of("weights")[0].parent.name
    shutil.rmtree(here.root / "steps" / step_id)
    (here.root / "steps" / step_id).write_text("what is this?")
    said = here.sweep()
    assert (said.code, len(said.err), here.tables()) == (0, 1, tables)
    assert f"step {step_id}: " in said.err[0]


def test_a_damaged_lock_that_is_held_is_told(here: Here) -> None:
    with Store(str(here.root)).lock():
        (here.root / "lock").write_bytes(b"\xff\xfe\x00")
        said = here.sweep()
    assert (said.code, len(said.err)) == (FAILED, 1)
    assert "another sweep" in said.err[0]


def test_one_who_is_bound_by_rights_can_not_read_what_has_none(tmp_path: Path) -> None:
    """Otherwise the tests above would show nothing."""
    (tmp_path / "x").write_text("x")
    (tmp_path / "x").chmod(0)
    with bound_by_rights(), pytest.raises(PermissionError):
        (tmp_path / "x").read_text()
    with nullcontext() if os.geteuid() == 0 else pytest.raises(PermissionError):
        (tmp_path / "x").read_text()
