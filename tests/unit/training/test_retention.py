"""What stays of a finished job where weights that nobody reads do not: killed, raced and asked for more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from raysslprune.lottery import finetune, imp, linear, random_prune, random_reinit, shuffled
from raysslprune.paper.scales import SETTINGS
from raysslprune.plan.graph import Job, Plan, make_plan
from raysslprune.spec import Init, Recipe, Step, Train
from raysslprune.store.record import MASK, WEIGHTS, Record, snapshots_in
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Point
from raysslprune.training.loop import Loop, Outcome
from raysslprune.training.make_masks import MaskMaker, NoExchange
from raysslprune.training.runner import Runner
from tests.helpers.chains import execute


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


SHORT = replace(SETTINGS["smoke"].recipes["labels"], samples=320)
LABELS = imp(
    task="labels", data="digits", arch="conv4", recipe=SHORT, seed=0, levels=2, keep=0.4, rewind=128, scope="all"
)
OTHER = imp(
    task="labels", data="digits", arch="conv4", recipe=SHORT, seed=0, levels=1, keep=0.7, rewind=128, scope="convs"
)
DENSE, ROUND = LABELS.rounds


def drawn(mask: Any) -> Train:
    return random_reinit(mask, like=DENSE, task="labels", recipe=SHORT)


LEAVES = (drawn(LABELS.masks[2]), drawn(shuffled(LABELS, 1)), drawn(OTHER.masks[1]))
"""From the dense training come two masks and a shuffled one; from the round another."""


def make(*steps: Train, keep_all: bool = False) -> Plan:
    points = [Point(step=step, task="labels", init="any", level=n, seed=0) for n, step in enumerate(steps)]
    return make_plan(points, keep_all=keep_all)


def plain(job: Job) -> dict[str, Any]:
    """As a worker gets it."""
    return json.loads(json.dumps(job.to_plain()))


def opened(root: Path) -> Store:
    store = Store(str(root))
    store.create()
    return store


def runner(store: Store) -> Runner:
    return Runner(store=store, exchange=NoExchange())


def run_all(graph: Plan, store: Store) -> list[str]:
    """Run what is pending; gives the ids."""
    pending = graph.pending(surveyed(graph, store))
    for job in pending:
        runner(store).run(plain(job))
    return [job.id for job in pending]


def surveyed(graph: Plan, store: Store) -> dict[str, Record]:
    records, damaged = store.survey(graph.ids)
    assert damaged == []
    return records


def record(store: Store, step: Step) -> Record:
    found = store.record(step.id)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """All of it, with all weights. Don't write to it."""
    return execute(LEAVES, tmp_path_factory.mktemp("whole") / "runs")


def same_results(store: Store, whole: Store, graph: Plan) -> None:
    """Metrics, masks and snapshots are those of the run that kept everything; all that is there is whole."""
    records = surveyed(graph, store)
    assert list(records) == graph.ids
    for step_id, found in records.items():
        expected = whole.record(step_id)
        assert expected is not None
        assert found.metrics == expected.metrics
        assert {**expected.files, **found.files} == expected.files
        assert expected.files.keys() - found.files.keys() <= {WEIGHTS}


# ------------------------------------------------------------------------------------- what stays


def test_only_what_is_needed_stays(whole: Store, tmp_path: Path) -> None:
    graph, store = make(*LEAVES), opened(tmp_path / "runs")
    run_all(graph, store)
    same_results(store, whole, graph)
    assert not list(tmp_path.rglob(WEIGHTS))
    assert not list(tmp_path.rglob("checkpoints/*"))
    assert snapshots_in(record(store, DENSE).files) == {128}
    assert graph.pending(surveyed(graph, store)) == []
    kept = make(*LEAVES, keep_all=True)
    assert kept.pending(surveyed(kept, store)) == [], "keeping all makes nothing again of what was not kept"
    assert all(WEIGHTS in record(whole, job.train).files for job in graph.jobs.values())


def test_what_another_figure_wants_to_start_from_is_trained_again(whole: Store, tmp_path: Path) -> None:
    store = opened(tmp_path / "runs")
    run_all(make(*LEAVES), store)
    tuned, judged = finetune(ROUND, data="digits", recipe=SHORT), linear(ROUND, data="digits", recipe=SHORT)
    more = make(*LEAVES, tuned, judged)
    assert run_all(more, store) == [ROUND.id, tuned.id, judged.id]
    assert record(store, ROUND).files == record(whole, ROUND).files
    assert record(store, ROUND).metrics == record(whole, ROUND).metrics
    assert WEIGHTS not in record(store, tuned).files
    assert more.pending(surveyed(more, store)) == []
    first = make(*LEAVES)
    assert run_all(first, store) == []
    assert WEIGHTS in record(store, ROUND).files
    same_results(store, whole, first)


def test_a_new_mask_is_made_by_training_again_and_is_that_of_the_weights_that_were_not_kept(
    whole: Store, tmp_path: Path
) -> None:
    store = opened(tmp_path / "runs")
    run_all(make(LEAVES[0]), store)
    assert run_all(make(*LEAVES), store) == [DENSE.id, LEAVES[1].id, LEAVES[2].id]
    same_results(store, whole, make(*LEAVES))
    assert WEIGHTS not in record(store, DENSE).files


def test_a_new_shuffled_mask_needs_no_training(whole: Store, tmp_path: Path) -> None:
    store = opened(tmp_path / "runs")
    run_all(make(LEAVES[0]), store)
    begun = record(store, DENSE).facts["begun"]
    assert run_all(make(LEAVES[0], LEAVES[1]), store) == [DENSE.id, LEAVES[1].id]
    assert record(store, DENSE).facts["begun"] == begun
    same_results(store, whole, make(LEAVES[0], LEAVES[1]))


def test_weights_that_are_there_stay_when_their_training_is_made_again(tmp_path: Path) -> None:
    """As for another snapshot, asked for by a figure that does not need the weights."""
    store, tuned = opened(tmp_path / "runs"), finetune(DENSE, data="digits", recipe=SHORT)
    run_all(make(tuned), store)
    before = record(store, DENSE).files
    assert WEIGHTS in before
    run_all(make(*LABELS.rounds), store)
    after = record(store, DENSE).files
    assert after.keys() - before.keys() == {"snapshot-128.safetensors"}
    assert {name: after[name] for name in before} == before


def test_natural_zeros_keep_the_weights_that_they_are_of(tmp_path: Path) -> None:
    adjusted = [random_prune(like=DENSE, keep=0.4, level=level, nonzero=DENSE) for level in (1, 2)]
    store = opened(tmp_path / "runs")
    run_all(make(drawn(adjusted[0])), store)
    assert WEIGHTS in record(store, DENSE).files
    begun = record(store, DENSE).facts["begun"]
    run_all(make(*map(drawn, adjusted)), store)
    assert record(store, DENSE).facts["begun"] == begun


def test_a_damaged_mask_is_made_again_from_weights_that_are_trained_again(whole: Store, tmp_path: Path) -> None:
    graph, store = make(*LEAVES), opened(tmp_path / "runs")
    run_all(graph, store)
    first = LABELS.masks[1]
    assert first is not None
    path = Path(store.path(f"steps/{first.id}/{MASK}"))
    path.write_bytes(path.read_bytes()[:-1])
    store.set_aside(first.id)
    assert run_all(graph, store) == [DENSE.id]
    same_results(store, whole, graph)


# ------------------------------------------------------------------------------------- killed, and raced


class Killed(BaseException):
    """As by the operating system: nothing catches it."""


class Watched(Store):
    """Calls ``at`` before the call of that number of those that read or change the store."""

    def __init__(self, root: str, number: int, at: Callable[[], None]) -> None:
        super().__init__(root)
        self.number, self.at, self.calls = number, at, list[str]()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if len(self.calls) == self.number:
            self.at()

    def write(self, name: str, data: bytes) -> None:
        self._call(f"write {name}")
        super().write(name, data)

    def read(self, name: str) -> bytes:
        self._call(f"read {name}")
        return super().read(name)

    def drop_checkpoint(self, step_id: str) -> None:
        self._call(f"drop {step_id}")
        super().drop_checkpoint(step_id)


def job_with_three_masks(keep_all: bool = False) -> dict[str, Any]:
    job = make(*LEAVES, keep_all=keep_all).jobs[DENSE.id]
    assert len(job.after) == 3
    return plain(job)


def calls_of_a_run(root: Path, job: Mapping[str, Any]) -> list[str]:
    opened(root)
    watched = Watched(str(root), 0, lambda: None)
    runner(watched).run(dict(job))
    return watched.calls


def result(store: Store) -> dict[str, Any]:
    """Of the dense training and its masks: metrics and files by step; whatever is there is whole."""
    job = job_with_three_masks()
    records, damaged = store.survey([job["train"], *job["after"]])
    assert damaged == []
    assert list(records) == [job["train"], *job["after"]]
    return {step_id: (found.metrics, found.files) for step_id, found in records.items()}


def expected(whole: Store, weights: bool) -> dict[str, Any]:
    found = result(whole)
    metrics, files = found[DENSE.id]
    return {**found, DENSE.id: (metrics, {name: file for name, file in files.items() if weights or name != WEIGHTS})}


def die() -> None:
    raise Killed


def test_killed_at_any_call_of_the_store_the_masks_are_the_same(
    whole: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And from when there is a mask, no weight is computed again: on a device that is not exact, it might differ."""
    job = job_with_three_masks()
    calls = calls_of_a_run(tmp_path / "counted", job)
    run = Loop.run
    made = [number for number, call in enumerate(calls, 1) if call.startswith("write") and MASK in call]
    assert len(made) == 3
    assert made[-1] < calls.index(f"write steps/{DENSE.id}/SUCCESS") + 1, "the training is done when its masks are"
    for number in range(1, len(calls) + 1):
        store = opened(tmp_path / str(number))
        with pytest.raises(Killed):
            runner(Watched(store.root, number, die)).run(job)
        began: list[bool] = []

        def go_on(loop: Loop, began: list[bool] = began) -> Outcome:
            began.append(loop.seen < loop.end)
            return run(loop)

        with monkeypatch.context() as patched:
            patched.setattr(Loop, "run", go_on)
            runner(store).run(job)
        assert result(store) == expected(whole, weights=False), calls[number - 1]
        assert not list((tmp_path / str(number)).rglob(WEIGHTS))
        assert not list((tmp_path / str(number)).rglob("checkpoints/*")) or calls[number - 1].startswith("drop")
        if number > made[0]:
            assert began in ([], [False]), calls[number - 1]


@pytest.mark.parametrize("second_keeps", [False, True])
@pytest.mark.parametrize("first_keeps", [False, True])
def test_a_second_writer_at_any_call_of_the_store_spoils_nothing(
    first_keeps: bool, second_keeps: bool, whole: Store, tmp_path: Path
) -> None:
    """It runs from beginning to end in the middle of the first one."""
    job, other = job_with_three_masks(first_keeps), job_with_three_masks(second_keeps)
    calls = calls_of_a_run(tmp_path / "counted", job)
    for number in range(1, len(calls) + 1, 1 if first_keeps == second_keeps else 2):
        store = opened(tmp_path / str(number))

        def race(store: Store = store) -> None:
            runner(store).run(other)

        runner(Watched(store.root, number, race)).run(job)
        found = result(store)
        assert found in (expected(whole, weights=False), expected(whole, weights=True)), calls[number - 1]
        if first_keeps == second_keeps:
            assert found == expected(whole, weights=first_keeps)


def test_a_checkpoint_of_the_end_gives_the_same_training(whole: Store, tmp_path: Path) -> None:
    """That which is kept until the masks are made."""
    store, job = opened(tmp_path / "runs"), job_with_three_masks()

    def no_masks(maker: MaskMaker, step: Any) -> Any:
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MaskMaker, "get", no_masks)
        with pytest.raises(Killed):
            Runner(store=store, exchange=NoExchange()).run(job)
    assert store.load_checkpoint(DENSE.id) is not None
    assert store.record(DENSE.id) is None
    facts = runner(store).run({**job, "keep": True})
    assert facts["resumed_at"] == 320
    assert result(store) == expected(whole, weights=True)


def test_a_worker_that_failed_at_a_mask_forgets_its_weights(tmp_path: Path) -> None:
    """The same process runs the next job."""
    store = opened(tmp_path / "runs")
    job = job_with_three_masks()
    calls = calls_of_a_run(tmp_path / "counted", job)
    one = runner(Watched(store.root, calls.index(f"write steps/{job['after'][0]}/SUCCESS") + 1, die))
    with pytest.raises(Killed):
        one.run(job)
    assert one.masks.at_hand == {}
    one.run(job)
    assert one.masks.at_hand == {}


def test_svms_leave_no_weights(tmp_path: Path) -> None:
    machines = SETTINGS["smoke"].linear[1].recipe
    assert not isinstance(machines, Recipe)
    step = Train(
        task="labels", data="digits", arch="conv4", recipe=machines, seed=0, start=Init(seed=0), trunk_frozen=True
    )
    store, graph = opened(tmp_path / "runs"), make(step)
    run_all(graph, store)
    assert record(store, step).files.keys() == {"spec.json"}
    assert graph.pending(surveyed(graph, store)) == []
