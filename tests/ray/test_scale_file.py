"""A scale of one's own, from images to figure and verdicts; then a part of the figure."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.helpers.commands import sweep
from tests.helpers.layouts import pictures, put, table

pytestmark = pytest.mark.slow


def test_from_images_to_a_figure_and_a_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    labels = [number % 3 for number in range(60)]
    put(tmp_path / "data", table(pictures(*(8,) * 60), labels), table(pictures(*(8,) * 9), labels[:9]))
    (tmp_path / "pets.toml").write_text(
        'base = "smoke"\ndata = "parquet/x"\nimages = 60\n[recipes."*"]\nsamples = "4 epochs"\nbatch = 16\n'
    )
    call = ("fig3", "--scale", "pets.toml", "--data", "data", "--seeds", "1,3")
    whole = sweep(*call, cwd=tmp_path)
    assert whole.code == 0, whole.err
    assert "56 of 56 trainings to run" in whole.err
    short = "; ".join(f"{task}: 15 updates (240 samples, batches of 16)" for task in ("exemplar", "labels", "rotnet"))
    assert f"{short}: too few to learn anything" in whole.err
    assert "undecided: " in whole.out
    results = tmp_path / "runs/results/pets"
    assert {path.name for path in results.iterdir()} == {
        f"fig3{end}" for end in (".parquet", "-runs.parquet", "-steps.parquet", "-claims.parquet", ".png", ".pdf")
    }
    found = pq.read_table(results / "fig3.parquet").to_pylist()
    assert {(row["scale"], row["data"], row["seed"]) for row in found} == {
        ("pets", "parquet/x", 1),
        ("pets", "parquet/x", 3),
    }
    before = {path: path.read_bytes() for path in results.iterdir()}

    part = sweep(*call, "--only", "task == 'labels' and init == 'winning ticket'", cwd=tmp_path)
    assert part.code == 0, part.err
    assert "trainings to run" not in part.err
    assert "14 of 14 claims lack points, and are left out" in part.err
    assert {path: path.read_bytes() for path in before} == before
    beside = {path for end in ("runs", "steps", "claims") for path in results.glob(f"*-{end}.parquet")}
    (table_of_part,) = {*results.glob("fig3-only-*.parquet")} - beside
    assert pq.read_table(table_of_part).to_pylist() == [
        row | {"figure": table_of_part.stem}
        for row in found
        if (row["task"], row["init"]) == ("labels", "winning ticket")
    ]

    longer = sweep(*call, "--set", "labels.lr=0.2", "--only", "task == 'labels' and level == 0", cwd=tmp_path)
    assert longer.code == 0, longer.err
    assert "2 of 2 trainings to run" in longer.err
    assert {path: path.read_bytes() for path in before} == before
    assert (tmp_path / "runs/results/pets-set-labels.lr=0.2").is_dir()
