"""Roots on s3://, on a local server that speaks S3: moto, in a process of its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from raysslprune import __main__ as command
from raysslprune.plan.graph import make_plan
from raysslprune.spec import Init, Prune, Recipe, Step, Train
from raysslprune.store import leftovers, lock
from raysslprune.store.record import MASK, WEIGHTS, Damaged, StoreError
from raysslprune.store.steps import INDEX, STATUS, Store
from raysslprune.sweep_loader import load
from raysslprune.terminal import status
from tests.helpers.commands import Command, Finished, finish, start
from tests.helpers.processes import frozen_at_work, wait_until
from tests.helpers.s3 import KEY, SECRET, Server, names, objects, serving

METRICS = {"top1": 98.5}
RECIPE = Recipe(samples=2400, batch=64, lr=0.05)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("s3")) as there:
        yield there


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of nobody; pyarrow looks for no others."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)


@pytest.fixture
def root(server: Server) -> str:
    """A new root in a bucket of its own."""
    return server.root(server.bucket())


@pytest.fixture
def store(root: str) -> Store:
    made = Store(root)
    assert made.is_new()
    made.create()
    assert not made.is_new()
    return made


def train(seed: int = 0) -> Train:
    return Train(task="labels", data="digits", arch="conv4", recipe=RECIPE, seed=seed, start=Init(seed=seed))


def files_of(step: Step) -> dict[str, bytes]:
    name = WEIGHTS if isinstance(step, Train) else MASK
    return {name: step.id.encode() * 64}


def commit(store: Store, step: Step) -> None:
    store.commit(step, files_of(step), METRICS, {"host": "here"})


# ------------------------------------------------------------------ the store


def test_steps_come_back(store: Store) -> None:
    step, mask, other = train(), Prune(of=train(), keep=0.8), train(1)
    assert store.survey([step.id]) == ({}, [])
    commit(store, step)
    commit(store, mask)
    for there in (store, Store(store.address)):
        records, damaged = there.survey([step.id, mask.id, other.id])
        assert (set(records), damaged) == ({step.id, mask.id}, [])
        assert records[step.id].metrics == METRICS
        assert there.artefact(step.id, WEIGHTS) == files_of(step)[WEIGHTS]
        assert there.artefact(mask.id, MASK) == files_of(mask)[MASK]
        assert there.record(other.id) is None
    with pytest.raises(Damaged):
        store.artefact(step.id, MASK)


def test_a_step_is_written_by_one_request_for_each_file_and_success_last(store: Store, server: Server) -> None:
    before = len(server.calls())
    commit(store, train())
    calls = [re.sub(r"\?.*", "", call).rpartition("/")[2] for call in server.calls()[before:]]
    assert (sorted(calls[:-1]), calls[-1]) == (["spec.json", WEIGHTS], "SUCCESS")


def test_a_large_file_is_written_in_parts_and_comes_back(store: Store, server: Server) -> None:
    large, before = os.urandom(12 << 20), len(server.calls())
    store.write("large", large)
    assert [call.split()[0] for call in server.calls()[before:]] == ["POST", "PUT", "PUT", "POST"]
    assert store.read("large") == large


def test_a_survey_lists_once_and_reads_nothing_twice(store: Store, server: Server) -> None:
    steps = [train(seed) for seed in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda step: commit(store, step), steps))
    before = len(server.calls())
    records, damaged = store.survey(step.id for step in steps)
    calls = server.calls()[before:]
    assert (len(records), damaged) == (20, [])
    assert len([call for call in calls if "list-type" in call]) == 1
    reads = [call for call in calls if call.startswith("GET") and "list-type" not in call]
    assert len(reads) == len(set(reads)) == 20 * 3  # SUCCESS, spec.json and the weights
    assert len(calls) <= 2 + 2 * len(reads)  # Arrow asks for the size of each first; there is no index yet
    store.remember()
    before, there = len(server.calls()), Store(store.address)
    assert set(there.survey(step.id for step in steps)[0]) == {step.id for step in steps}
    calls = server.calls()[before:]
    assert len([call for call in calls if "list-type" in call]) == 1
    assert len([call for call in calls if call.startswith("GET")]) <= 3  # the bucket's region, the list, the index


@pytest.mark.parametrize("name", [WEIGHTS, "SUCCESS"])
@pytest.mark.parametrize("how", ["truncated", "bit flipped", "deleted"])
def test_damage_is_recognised_and_set_aside(how: str, name: str, store: Store) -> None:
    step, other = train(), train(1)
    commit(store, step)
    commit(store, other)
    path = f"steps/{step.id}/{name}"
    data = store.read(path)
    match how:
        case "truncated":
            store.write(path, data[:-1])
        case "bit flipped":
            store.write(path, bytes([*data[:9], data[9] ^ 1, *data[10:]]))
        case _:
            store.fs.delete_file(f"{store.base}/{path}")
    gone = (how, name) == ("deleted", "SUCCESS")  # then the step is simply not done
    records, damaged = store.survey([step.id, other.id])
    assert set(records) == {other.id}
    assert [damage.step_id for damage in damaged] == ([] if gone else [step.id])
    with pytest.raises(Damaged):
        store.artefact(step.id, name)

    before = {n: d for n, d in objects(store).items() if n.startswith(f"steps/{step.id}/")}
    where = store.set_aside(step.id)
    assert where.startswith(f"{store.shown}/damaged/{step.id}-")
    after = objects(store)
    kept = where.removeprefix(f"{store.shown}/")
    assert {n.replace(f"steps/{step.id}", kept): d for n, d in before.items()}.items() <= after.items()
    assert not [n for n in after if n.startswith(f"steps/{step.id}/")]
    commit(store, step)
    assert set(store.survey([step.id, other.id])[0]) == {step.id, other.id}


def test_checkpoints(store: Store) -> None:
    step_id = train().id
    assert store.load_checkpoint(step_id) is None
    store.drop_checkpoint(step_id)
    for data in (b"first", b"second, longer", b""):
        store.save_checkpoint(step_id, data)
        assert store.load_checkpoint(step_id) == data
    store.drop_checkpoint(step_id)
    assert store.load_checkpoint(step_id) is None
    assert set(objects(store)) == {"raysslprune.json"}


WRITER = """
import os, sys, threading, time
from raysslprune.store.steps import Store
store = Store(sys.argv[1])
print("ready", flush=True)
store.write("steps/x/weights", bytes(30_000_000))
print("written", flush=True)
"""


def test_leftovers_are_deleted_and_nothing_else(store: Store) -> None:
    """Also those of an interrupted deletion, which has deleted SUCCESS and no more."""
    for seed in range(3):
        commit(store, train(seed))
        store.save_checkpoint(train(seed).id, b"checkpoint")
    store.remove(f"steps/{train(2).id}/SUCCESS")
    store.survey([train(0).id, train(1).id])
    before = objects(store)
    found = leftovers.find(store, {train(0).id})
    assert {(one.step, one.kind) for one in found.unneeded} == {
        (train(1).id, leftovers.TRAINING),
        (train(2).id, leftovers.UNFINISHED),
        *((train(seed).id, leftovers.CHECKPOINT) for seed in (1, 2)),
    }
    with store.lock() as lock:
        leftovers.delete(store, found.unneeded, lock.check)
    kept = {name: data for name, data in before.items() if train(1).id not in name and train(2).id not in name}
    assert {name: data for name, data in objects(store).items() if name != INDEX} == kept
    assert set(store.survey([train(0).id, train(1).id])[0]) == {train(0).id}


def test_a_root_is_merged_from_a_folder_and_back(
    store: Store, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in range(2):
        store.commit(train(seed), files_of(train(seed)), METRICS, {})
    here, back = tmp_path / "here", server.root(server.bucket())
    folder = Store(str(here))
    folder.create()
    folder.commit(train(2), files_of(train(2)), METRICS, {})
    assert command.main(["merge", store.root, "--into", str(here)]) == 0
    assert command.main(["merge", str(here), "--into", back]) == 0
    said = capsys.readouterr()
    assert [line.rpartition(": ")[2] for line in said.out.splitlines()[::2]] == ["2 copied", "3 copied"]
    assert said.err == ""
    merged = Store(back)
    records, damaged = merged.survey(train(seed).id for seed in range(3))
    assert len(records) == 3
    assert not damaged
    for seed in range(2):
        assert all(
            merged.read(f"steps/{train(seed).id}/{name}") == store.read(f"steps/{train(seed).id}/{name}")
            for name in (WEIGHTS, "spec.json", "SUCCESS")
        )
    assert merged.holder() == (None, False)


def test_a_write_is_whole_or_not_there(store: Store, server: Server) -> None:
    """Also if it is uploaded in several parts, and the process is killed between them."""
    store.write("steps/x/weights", b"old")
    sent = len(server.calls())
    writer = subprocess.Popen([sys.executable, "-c", WRITER, store.address], stdout=subprocess.PIPE, text=True)
    with writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        wait_until(lambda: any("partNumber=1" in call for call in server.calls()[sent:]), 20)
        writer.kill()
        assert writer.stdout.read() == "", "it had the time to end"
    assert store.read("steps/x/weights") == b"old"
    big = os.urandom(12_000_000)
    store.write("steps/x/weights", big)
    assert store.read("steps/x/weights") == big


def test_a_folder_of_somebody_else_is_refused(server: Server) -> None:
    store = Store(server.root(server.bucket()))
    store.write("thesis.tex", b"x")
    with pytest.raises(StoreError, match="contains other files but no ") as caught:
        store.create()
    assert "endpoint_override" not in str(caught.value)
    assert set(objects(store)) == {"thesis.tex"}


def test_the_endpoint_may_come_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = server.bucket()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
    store = Store(f"s3://{bucket}/runs")
    store.create()
    assert not Store(server.root(bucket)).is_new()
    assert store.path("results/a.png") == f"s3://{bucket}/runs/results/a.png"


# ------------------------------------------------------------------ the lease


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's times are in whole seconds."""
    monkeypatch.setattr(lock, "REFRESH", 0.5)
    monkeypatch.setattr(lock, "STALE", 2.0)


HOLDER = """
import sys, time
from raysslprune.store import lock
from raysslprune.store.steps import Store
lock.REFRESH = 0.5
with Store(sys.argv[1]).lock():
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.usefixtures("short")
def test_a_second_sweep_waits_until_a_killed_one_is_stale(store: Store) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, store.address], stdout=subprocess.PIPE, text=True)
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        time.sleep(2.5)  # longer than STALE: it must have been refreshed
        with pytest.raises(StoreError) as caught, store.lock():
            pytest.fail("two hold the lease")
        sentence = str(caught.value)
        assert f"process {holder.pid} on " in sentence
        assert f"{store.shown};" in sentence
        assert re.search(r"in [12] s$", sentence)
        assert "\n" not in sentence
        holder.kill()
    killed, refusals = time.monotonic(), 0
    while True:
        try:
            with store.lock():
                assert f'"process": {os.getpid()}' in objects(store)["lock"].decode()
                break
        except StoreError:
            assert time.monotonic() - killed < 8
            refusals += 1
            time.sleep(0.2)
    assert refusals
    assert set(objects(store)) == {"raysslprune.json"}


def test_of_those_that_start_at_once_exactly_one_wins(store: Store) -> None:
    count = 6
    together, ended = Barrier(count), Barrier(count)

    def begin(_: int) -> str | None:
        mine = Store(store.address)
        together.wait(10)
        try:
            with mine.lock():
                ended.wait(20)
                return None
        except StoreError as error:
            ended.wait(20)
            return str(error)

    with ThreadPoolExecutor(count) as pool:
        refusals = list(pool.map(begin, range(count)))
    assert refusals.count(None) == 1
    assert all("another sweep (process" in refusal for refusal in refusals if refusal)
    assert set(objects(store)) == {"raysslprune.json"}


def test_the_status_of_a_sweep_is_told_from_another_machine(
    store: Store, root: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def said() -> str:
        assert command.main(["status", "--root", root]) == 0
        return capsys.readouterr().out

    sweep = load("fig3", "smoke", 1)
    with store.lock(), status.Reporter(store, [sweep], "smoke", make_plan(sweep.points), {}).reporting():
        before = objects(store)
        assert "running since " in said()
        assert "0 of 28 done" in said()
        assert objects(store) == before, "to look changes nothing"
    assert "the last one ended " in said()
    (running,) = (data for name, data in before.items() if name == STATUS)
    store.write("lock", before["lock"])
    store.write(STATUS, running)  # as if it had been killed
    assert "running since " in said()
    now = time.time
    monkeypatch.setattr(lock.time, "time", lambda: now() + lock.STALE + 1)
    assert "was killed or lost its connection" in said()


# ------------------------------------------------------------------ the command


def fig3(root: str, *more: str) -> subprocess.Popen[str]:
    return start("fig3", "--scale", "smoke", "--root", root, *more)


def refused(command: Command) -> str:
    """Return the one sentence on stderr."""
    assert command.code == 1
    assert command.out == ""
    (sentence,) = command.err.splitlines()
    assert sentence.startswith("raysslprune: ")
    assert "Traceback" not in sentence
    assert not any(word in sentence for word in (KEY, SECRET, "endpoint_override"))
    return sentence


def test_a_bucket_that_is_not_there(server: Server) -> None:
    sentence = refused(finish(fig3(server.root("nobodys")), 60))
    assert "can't write to s3://nobodys/runs: " in sentence
    assert "bucket does not exist" in sentence


@pytest.mark.slow
def test_a_server_that_is_not_there_is_said_within_a_minute() -> None:
    """Two kinds at once: one refuses connections, the other accepts them and never answers."""
    with socket.socket() as closed, socket.socket() as silent:
        for nobody in (closed, silent):
            nobody.bind(("127.0.0.1", 0))
        silent.listen()
        ports = [nobody.getsockname()[1] for nobody in (closed, silent)]
        where = "s3://bucket/runs?endpoint_override=127.0.0.1:{}&scheme=http&region=us-east-1"
        begun = time.monotonic()
        for sweep in [fig3(where.format(port)) for port in ports]:
            assert "can't read s3://bucket/runs: " in refused(finish(sweep, 120))
    assert time.monotonic() - begun < 70


@pytest.mark.slow
def test_wrong_credentials(tmp_path: Path) -> None:
    with serving(tmp_path, INITIAL_NO_AUTH_ACTION_COUNT="1") as strict:  # of the calls, the first is for all
        sentence = refused(finish(fig3(strict.root(strict.bucket())), 60))
    assert "can't read s3://bucket-" in sentence
    assert "ACCESS_DENIED" in sentence


def test_credentials_in_the_address(server: Server) -> None:
    root = server.root("bucket").replace("//", f"//{KEY}:{SECRET}@", 1)
    for more in ([], ["--dry-run"]):
        assert "AWS_SECRET_ACCESS_KEY" in refused(finish(fig3(root, *more), 60))


def everything(bucket: Mapping[str, bytes], *commands: Command) -> bytes:
    return b"".join([*bucket.values(), *(f"{command.out}{command.err}".encode() for command in commands)])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_sweep_on_s3_is_killed_waits_goes_on_and_gives_the_same_table(
    finished: Finished, root: str, server: Server
) -> None:
    store, of = Store(root), make_plan(load("fig3", "smoke", 1).points)

    def done() -> set[str]:
        return {name.split("/")[1] for name in names(store) if name.endswith("/SUCCESS")}

    first = fig3(root)
    wait_until(lambda: len(done()) >= 3)
    os.kill(first.pid, signal.SIGSTOP)  # so that it is not done before the second has begun
    second = refused(finish(fig3(root), 60))
    assert f"another sweep (process {first.pid} on " in second
    assert store.shown in second
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    before, left = done(), store.modified("lock")
    assert left is not None
    assert len(before) < len(of.ids)
    assert "if it was killed, retry in" in refused(finish(fig3(root), 60))
    third = fig3(root, "--wait")
    wait_until(lambda: f'"process": {third.pid},' in store.read("lock").decode())
    taken = store.modified("lock")
    assert taken is not None
    assert taken - left > lock.STALE - 1, "the lock of the killed sweep was not waited for"
    assert done() == before, "it trained before it had the root"

    still = frozen_at_work(third.pid)
    beside = fig3(root, "--wait")
    assert beside.stderr is not None
    waits = next(line for line in beside.stderr if line.startswith("raysslprune: waiting for "))
    assert f"another sweep (process {third.pid} on " in waits
    os.kill(still, signal.SIGCONT)
    last = finish(third)
    assert last.code == 0, last.err
    assert last.err.count(f"waiting for {store.shown}: another sweep (process {first.pid} on ") == 1
    assert "trainings to run" in last.err
    assert done() == set(of.ids)
    made = {name: store.modified(name) for name in names(store) if name.endswith("/SUCCESS")}
    found = finish(beside)
    assert (found.code, found.out) == (0, last.out), found.err
    assert "waiting for" not in found.err
    assert "trainings to run" not in found.err, "it began beside the other"
    assert {name: store.modified(name) for name in made} == made
    assert store.read("results/smoke/fig3.parquet") == finished.table
    for kind in ("fig3.png", "fig3.pdf", "fig3.parquet", "fig3-runs.parquet"):
        assert f"{store.shown}/results/smoke/{kind}\n" in last.out
        assert len(store.read(f"results/smoke/{kind}")) > 1000
    assert "endpoint_override" not in (last.out + last.err).replace(root, ""), "but in commands to be run next"
    assert "lock" not in names(store)
    again = finish(fig3(root), 60)
    assert (again.code, again.out, again.err) == (0, last.out, "")
    log = next(word for word in last.err.split() if word.endswith(".log"))
    said = everything(objects(store), last, again) + Path(log).read_bytes()
    assert SECRET.encode() not in said
    assert KEY.encode() not in said
