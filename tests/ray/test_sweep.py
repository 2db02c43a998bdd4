"""Real sweeps, as a user runs them: finished, repeated, killed, stopped, damaged, from the user's own file."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from raysslprune.plan.graph import make_plan
from raysslprune.sweep_loader import known, load
from raysslprune.sweepfile import Search
from tests.helpers.commands import Finished, done_steps, start, sweep, table_of

SMOKE = make_plan(load("fig3", "smoke", 1).points)
STEPS = set(SMOKE.ids)


def test_ends_with_table_claims_and_files(finished: Finished) -> None:
    assert set(done_steps(finished.root)) == STEPS
    out = finished.command.out
    for part in ("mean ± standard error", "n = 1", "winning ticket", "random re-init", "% pruned", "too few seeds"):
        assert part in out
    for kind in ("fig3.png", "fig3.pdf", "fig3.parquet"):
        path = finished.root / "results/smoke" / kind
        assert str(path) in out
        assert path.stat().st_size > 1000


def test_progress_is_calm_and_rays_noise_is_in_the_named_file(finished: Finished) -> None:
    err = finished.command.err
    assert f"{len(SMOKE.jobs)} of {len(SMOKE.jobs)} trainings to run" in err
    log = next(word for word in err.split() if word.endswith(".log"))
    assert Path(log).is_file()
    for noise in ("INFO", "WARNING", "(raylet)", "Trial", "Traceback", "ray.init"):
        assert noise not in err
    for line in err.splitlines()[1:]:
        assert f"of {len(SMOKE.jobs)} trainings" in line, "only progress lines may follow the first line"
        assert " left; " in line or " once trainings begin; " in line


def test_second_call_trains_nothing_and_draws_again(finished: Finished, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(finished.root, root)
    shutil.rmtree(root / "results")
    before = done_steps(root)
    again = sweep("fig3", "--scale", "smoke", "--root", str(root))
    assert again.code == 0
    assert again.err == ""
    assert done_steps(root) == before
    assert again.out == finished.command.out.replace(str(finished.root), str(root))
    for kind in ("fig3.parquet", "fig3.png", "fig3.pdf"):
        assert (root / "results/smoke" / kind).read_bytes() == (finished.root / "results/smoke" / kind).read_bytes()


def test_all_figures_and_tables_end_to_end_sharing_their_steps(finished: Finished, tmp_path: Path) -> None:
    """Every sweep at the smallest scale, with Figure 3 finished before: its steps are not made again."""
    root = tmp_path / "runs"
    shutil.copytree(finished.root, root)
    before = done_steps(root)
    sweeps = {name: load(name, "smoke", 1) for name in known()}
    together = make_plan([point for one in sweeps.values() for point in one.points])
    certain = make_plan([point for name, one in sweeps.items() if name != "rewind" for point in one.points])
    ran = sweep("all", "--scale", "smoke", "--root", str(root))
    assert ran.code == 0
    done = done_steps(root)
    more = {i for i, job in SMOKE.jobs.items() if job.snapshots < together.jobs[i].snapshots}  # trained again for these
    assert {step for step in before if done[step] != before[step]} <= more
    assert len(more) < 4
    assert set(certain.ids) <= done.keys() <= set(together.ids)
    for name, one in sweeps.items():
        table = pq.read_table(root / f"results/smoke/{name}.parquet")
        if isinstance(one.drawing, Search):
            tried = set(zip(*(table[column].to_pylist() for column in ("task", "level", "rewind")), strict=True))
            studies = {(point.task, point.level) for point in one.points}
            assert len(studies) == 2
            assert {(task, level) for task, level, _ in tried} == studies
            assert len(tried) == len({(point.task, point.level, point.step.rewind) for point in one.points})
            assert (root / "studies/rewind-smoke.journal").stat().st_size > 0
        else:
            assert len(table) == len(one.points or one.rows)
        if one.points:
            for kind in ("png", "pdf"):
                assert (root / f"results/smoke/{name}.{kind}").stat().st_size > 5000
    again = sweep("all", "--scale", "smoke", "--root", str(root))
    assert (again.code, again.err, again.out) == (0, "", ran.out)
    assert done_steps(root) == done


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_ten_kills_lose_nothing_and_change_no_byte(finished: Finished, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    killed(root, kills=10, seed=2)
    assert sweep("fig3", "--scale", "smoke", "--root", str(root)).code == 0
    assert table_of(root) == finished.table
    for path in finished.root.glob("steps/*/*"):
        if path.name != "SUCCESS":  # which also holds when and where
            assert (root / path.relative_to(finished.root)).read_bytes() == path.read_bytes(), path


def killed(root: Path, kills: int, seed: int) -> None:
    """Repeatedly start the sweep and kill -9 its driver at a random moment. Finished steps must stay finished."""
    rng = random.Random(seed)
    for kill in range(kills):
        before = done_steps(root)
        process = start("fig3", "--scale", "smoke", "--root", str(root))
        if kill == 0:
            time.sleep(rng.uniform(0, 8))  # while Ray starts
        else:
            enough = len(before) + 1 + rng.randrange(3)
            while process.poll() is None and len(done_steps(root)) < enough:
                time.sleep(0.02)
        process.kill()
        process.communicate()
        after = done_steps(root)
        assert {step: after[step] for step in before} == before, "a finished step was made again"


def test_damage_is_seen_set_aside_and_made_again(finished: Finished, tmp_path: Path) -> None:
    root = tmp_path / "runs"
    shutil.copytree(finished.root, root)
    jobs = list(SMOKE.jobs.values())
    weights = root / "steps" / jobs[0].id / "weights.safetensors"
    flipped = bytearray(weights.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    weights.write_bytes(flipped)
    mask = next(mask.id for job in jobs for mask in job.after)
    path = root / "steps" / mask / "mask.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    success = root / "steps" / jobs[-1].id / "SUCCESS"
    success.write_text(success.read_text().replace('"top1": ', '"top1": 1'))
    for made_up in (root / "results").rglob("*.*"):
        made_up.unlink()

    repaired = sweep("fig3", "--scale", "smoke", "--root", str(root))
    assert repaired.code == 0
    said = [line for line in repaired.err.splitlines() if "; moved to " in line]
    assert len(said) == 3
    for step in (jobs[0].id, mask, jobs[-1].id):
        assert any(line.startswith(f"raysslprune: step {step}: ") for line in said)
    assert len(list((root / "damaged").iterdir())) == 3
    assert table_of(root) == finished.table
    remade = {step for step, when in done_steps(root).items() if when != done_steps(finished.root)[step]}
    assert {jobs[0].id, mask, jobs[-1].id} <= remade
    assert len(remade) <= 4, "only what was damaged, and the masks made beside it"


OWN_SWEEP = '''
"""A sweep of one's own: does pruning in larger bites hurt?"""

from raysslprune.lottery import winning_ticket
from raysslprune.paper.scales import SETTINGS
from raysslprune.sweepfile import Curve, Figure, Point

FIGURE = Figure(
    title="Larger bites",
    references=(Curve(task="keep 50 %", init="winning ticket"),),
)


def points(scale, seed):
    s = SETTINGS[scale]
    recipe = s.recipes["labels"]
    for keep, levels in ((0.5, 2), (0.25, 1)):
        chain = s.imp("labels", seed=seed, levels=levels, keep=keep)
        for level in range(levels + 1):
            ticket = winning_ticket(chain, level, task="labels", recipe=recipe)
            yield Point(
                step=ticket, task=f"keep {keep:.0%}".replace("%", " %"), init="winning ticket", level=level, seed=seed
            )
'''


def test_a_sweep_of_ones_own_shares_the_steps_of_others(finished: Finished, tmp_path: Path) -> None:
    (tmp_path / "bites.py").write_text(OWN_SWEEP)
    shutil.copytree(finished.root, tmp_path / "runs")
    dense = next(iter(SMOKE.jobs))
    before = done_steps(tmp_path / "runs")
    own = sweep("bites.py", "--scale", "smoke", cwd=tmp_path)
    assert own.code == 0, own.err
    assert "3 of 4 trainings to run" in own.err, "the dense training is fig3's"
    assert "keep 25 %" in own.out
    assert (tmp_path / "runs/results/smoke/bites.png").is_file()
    assert done_steps(tmp_path / "runs")[dense] == before[dense]
