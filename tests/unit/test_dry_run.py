"""``--dry-run``: steps and hours, against counts by hand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from raysslprune import experiment, sweep_loader, words
from raysslprune.paper.recipes import NETS
from raysslprune.plan.cost import OVERHEAD, START
from raysslprune.store.record import WEIGHTS
from raysslprune.store.steps import Store
from tests.helpers.cli import GOOD, SEARCHES, Called, Cli, commit, rows, smoke, steps_of

LEVELS = (3, 7, 10, 14, 18, 21, 24)
"""Of laptop."""


def figure_3_on_a_laptop() -> tuple[int, int, int, int]:
    """Points, trainings, masks, and trainings where nothing is shared, of one seed of Figure 3, from what it is.

    Chains on labels, RotNet and Exemplar; each mask that is drawn is trained on labels as a winning ticket and from
    new weights; two kinds of random masks, and the shuffled masks of labels and RotNet, from new weights only. And the
    dense network.
    """
    levels, deepest = len(LEVELS), 24
    points = 1 + levels * (3 + 3 + 4)
    rounds = 3 * deepest  # a chain's mask of level 24 needs its dense round and the 23 after it
    tickets = 1 + 2 * levels  # of labels these are rounds, but for that of the deepest level
    reinit = 7 * levels
    masks = 3 * deepest + 4 * levels
    # Alone: the dense one; trainings of random masks; all else at level l needs l rounds before it
    unshared = 1 + 2 * levels + (3 + 3 + 2) * (sum(LEVELS) + levels)
    return points, rounds + tickets + reinit, masks, unshared


def test_dry_run_of_figure_3_counts_what_one_counts_by_hand(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    net, before = NETS["conv4"], cli.files()
    points, trainings, masks, unshared = figure_3_on_a_laptop()
    assert (points, trainings, masks, unshared) == (71, 136, 100, 847)
    # 12 epochs of 1,200 images; 11 for the rounds of a chain, which go on from the state after the first
    chain = 12 + 23 * 11
    on_labels = (12 + 24 * 11) + 2 * 7 * 12 + 7 * 7 * 12  # the chain with its last ticket, other tickets, re-inits
    # Exemplar looks at two views of each image
    speed = net.images_per_second
    seconds = trainings * OVERHEAD + 1200 * (on_labels + chain + 2 * chain) / speed
    # The longest path: Exemplar's rounds, then its deepest mask from new weights
    longest = 25 * OVERHEAD + 1200 * (2 * chain + 12) / speed
    # The weights of every training, the states of three dense ones to rewind to; a bit for each weight of a mask
    disk = {"all": 4 * net.parameters * (trainings + 3) + net.prunable // 8 * masks}
    # Nothing starts from the end of another training
    disk["needed"] = 4 * net.parameters * 3 + net.prunable // 8 * masks
    for cores, wall, keep in ((2, seconds / 2, None), (1000, longest, "all"), (2, seconds / 2, "needed")):
        monkeypatch.setattr(experiment, "cores", lambda cores=cores: cores)
        called = cli("fig3", "--dry-run", *(["--keep", keep] if keep else []))
        assert (called.code, called.err) == (0, "")
        assert rows(called) == {
            "root": f"{cli.folder}/runs/",
            "points": f"{points}",
            "unique steps": f"{trainings + masks} ({trainings} trainings, {masks} masks)",
            "done": "0 trainings",
            "will run": f"{trainings} trainings, {masks} masks",
            "without sharing": f"{unshared} trainings",
            "time": f"about {words.duration(wall + START)} on {cores} cores ({words.duration(seconds)} of training)",
            "disk": f"about {words.size(disk[keep or 'all'])} when all is done",
        }
    assert cli.files() == before, "a dry run writes nothing"


def test_dry_run_says_what_it_guesses(cli: Cli) -> None:
    """A network of one's own has no known speed and no known size."""
    (cli.folder / "mine.py").write_text(
        "from raysslprune.paper.scales import SETTINGS\nfrom raysslprune.spec import Init, Train\n"
        "from raysslprune.sweepfile import Figure, Point\nFIGURE = Figure(title='Mine')\n"
        "def points(scale, seed):\n    labels = SETTINGS[scale].recipes['labels']\n"
        "    for arch in ('conv4', 'own:Net'):\n"
        "        start = Init(seed=seed)\n"
        "        step = Train(task='labels', data='digits', arch=arch, recipe=labels, seed=seed, start=start)\n"
        "        yield Point(step=step, task=arch, init='', level=0, seed=seed)\n"
    )
    said = rows(cli("mine.py", "--dry-run", "--seeds", "1"))
    assert said["time"].endswith("of training); a guess: no such training of own:Net was timed")
    weights = words.size(4 * NETS["conv4"].parameters)
    assert said["disk"] == f"about {weights} when all is done; weights of own:Net not counted (unknown size)"


def test_dry_run_of_figure_3_of_the_paper_in_gpu_hours(cli: Cli) -> None:
    """By hand: three seeds, fourteen levels up to 30; ResNet-50 on ImageNet, and ResNet-18 on CIFAR-10.

    On CIFAR-10 there is one more random mask at each level, among the weights that do not vanish of themselves.
    """
    sum_of_levels = 1 + 2 + 3 + 4 + 6 + 8 + 10 + 12 + 15 + 18 + 21 + 24 + 27 + 30
    points = 3 * ((1 + 14 * 10) + (1 + 14 * 11))
    on_labels = 31 + 2 * 14 + 7 * 14, 31 + 2 * 14 + 8 * 14  # the chain with its last ticket, tickets, re-inits
    trainings = 3 * sum(on_labels) + 3 * 4 * 30
    masks = 3 * (3 * 30 + 4 * 14 + 3 * 30 + 5 * 14)
    unshared = 1 + 2 * 14 + 8 * (sum_of_levels + 14)
    unshared = 3 * (2 * unshared + 14 * 2)  # a mask without natural zeros needs the dense network
    # Epochs: a chain, and labels; a chain's rounds go on from the state after three epochs, after one on CIFAR-10
    samples = {
        "labels on imagenet, resnet50": (3 * 157, 1_280_000 * 3 * (90 * 127 + 87 * 30)),
        "rotnet on imagenet, resnet50": (90, 1_280_000 * 3 * (90 + 29 * 87)),
        "exemplar on imagenet, resnet50": (90, 1_280_000 * 3 * (40 + 29 * 37)),
        "labels on cifar10, resnet18-cifar": (3 * 171, 50_000 * 3 * (160 * 141 + 159 * 30)),
        "exemplar on cifar10, resnet18-cifar": (90, 50_000 * 3 * (180 + 29 * 179)),
        "rotnet on cifar10, resnet18-cifar": (90, 50_000 * 3 * (160 + 29 * 159)),
    }
    assert (points, trainings, masks, unshared) == (888, 1_344, 918, 9_618)
    assert sum(trained for trained, _ in samples.values()) == trainings

    called = cli("fig3", "--scale", "paper", "--dry-run")
    assert (called.code, called.err) == (0, "")
    assert [path.name for path in cli.folder.iterdir()] == ["tmp"], "a dry run writes nothing"
    assert "cores" not in called.out
    head, takes, what_for, disk = re.split(r"cost by figure|cost by kind of training|disk space", called.out)
    said = rows(Called(code=0, out=re.sub(r"(?m)^(data| ) .*\n", "", head), err=""))
    assert said == {
        "root": f"{cli.folder}/runs/",
        "points": "888",
        "unique steps": "2,262 (1,344 trainings, 918 masks)",
        "done": "0 trainings",
        "will run": "1,344 trainings, 918 masks",
        "without sharing": "9,618 trainings",
    }
    total, lines = 0.0, re.findall(r"(?m)^(\w+ on .*?)  +([\d,]+) +([\d,.]+) +([\d,]+) +(\w+) +(\S+) +(\S+)", what_for)
    assert {what for what, *_ in lines} == samples.keys()
    for what, trained, millions, speed, source, hours, left in lines:
        of_resnet50 = 4_089_184_256 / 555_422_720 if "cifar" in what else 1
        expected = 938 * of_resnet50 / (2 if what.startswith("exemplar") else 1)
        spent = samples[what][1] / expected / 3600
        total += spent
        assert (trained, source) == (f"{samples[what][0]}", "stated")
        assert (millions, speed) == (f"{samples[what][1] / 1e6:,.1f}", f"{expected:,.0f}")
        assert hours == left == (f"{spent:,.1f}" if spent < 100 else f"{spent:,.0f}")
    assert ["fig3", "888", "2,262", "1,344", "9,618", f"{total:,.0f}", f"{total:,.0f}"] in [
        *map(str.split, takes.splitlines())
    ]
    large, small = 4 * 25_557_032, 4 * 11_173_962
    sizes = (
        3 * (146 * 23_454_912 + 160 * 11_159_232) / 8,
        3 * 3 * (large + small),
        3 * small,  # whose natural zeros others avoid
        3 * ((157 + 60) * large + (171 + 60) * small),
    )
    assert re.search(r"(?m)^fig3 +" + " +".join(map(words.size, sizes)) + " *$", disk)
    assert "GPU-hours of one A100" in called.out


def test_dry_run_counts_seeds_and_sweeps(cli: Cli) -> None:
    one = rows(cli("fig3", "--dry-run", "--scale", "smoke"))
    three = rows(cli("fig3", "--dry-run", "--scale", "smoke", "--seeds", "3"))
    assert [int(r["points"]) for r in (one, three)] == [21, 63]  # 1 + 2 levels * 10
    assert int(three["will run"].split()[0]) == 3 * int(one["will run"].split()[0])
    assert rows(cli("fig3", "--dry-run", "--scale", "smoke", "--seeds", "100"))["points"] == "2,100"
    assert cli("fig3", "fig3", "--dry-run", "--scale", "smoke").out == cli("fig3", "--dry-run", "--scale", "smoke").out
    (cli.folder / "mine.py").write_text(GOOD)
    both = rows(cli("fig3", "mine.py", "--dry-run", "--scale", "smoke"))
    assert both["points"] == "22"
    assert both["will run"] == one["will run"], "its one training is figure 3's dense one"


ALL = ["criteria", "fig1", "fig1-today", "fig2", "fig3", "fig3-today", *(f"fig{number}" for number in range(4, 11))]
ALL += ["rewind", "table1"]
"""Every figure and table of the paper, the rewind study, and the figures of newer tasks and of other criteria."""


def test_all_are_the_sweeps_of_the_package(cli: Cli) -> None:
    assert sweep_loader.known() == ALL
    called = cli("all", "--dry-run", "--scale", "smoke")
    assert (called.code, called.err) == (0, "")
    for others in (ALL, ["all", "fig3"], ["fig3", "all"], ["all", "all"]):
        assert cli(*others, "--dry-run", "--scale", "smoke").out == called.out
    assert called.out.splitlines()[-1].startswith(f"rewind{SEARCHES}after 1, 2, 4, ... seeds only the better half")
    assert called.out.count(SEARCHES) == 1
    assert SEARCHES not in cli(*(name for name in ALL if name != "rewind"), "--dry-run", "--scale", "smoke").out
    alone = [int(rows(cli(name, "--dry-run", "--scale", "smoke"))["points"].replace(",", "")) for name in ALL]
    assert int(rows(called)["points"].replace(",", "")) == sum(alone)
    assert all(points > 0 for points in alone[:-1])
    assert alone[-1] == 0, "Table 1 needs no training"


def test_all_at_the_papers_scale_costs_less_together_than_alone(cli: Cli) -> None:
    """A line for each that trains."""
    called = cli("all", "--dry-run", "--scale", "paper", "--seeds", "1")
    assert (called.code, called.err) == (0, "")
    takes = called.out.partition("cost by figure")[2].partition("cost by kind of training")[0]
    lines = {
        line.split()[0]: line.split()[1:] for line in takes.splitlines() if line.count("  ") > 4 and line[0] != " "
    }
    assert list(lines) == [*ALL[:-1], "together"]
    numbers = {name: [float(cell.replace(",", "")) for cell in cells] for name, cells in lines.items()}
    together = numbers.pop("together")
    assert together[0] == sum(points for points, *_ in numbers.values())
    apart = [sum(column) for column in zip(*numbers.values(), strict=True)]
    assert together[3] == apart[3], "without sharing"
    assert all(t < a for t, a in zip(together[1:3] + together[4:], apart[1:3] + apart[4:], strict=True))


def test_dry_run_says_what_is_done_and_what_is_damaged_and_touches_neither(cli: Cli) -> None:
    graph, store = smoke(), Store(str(cli.folder / "runs"))
    store.create()
    jobs = list(graph.jobs.values())
    trained = [jobs[0].train, *jobs[0].masks, jobs[-1].train, *jobs[-1].masks]
    commit(store, trained, graph)
    before = cli.files()
    called = cli("fig3", "--scale", "smoke", "--dry-run")
    assert called.code == 0
    assert rows(called)["done"] == "2 trainings"
    assert rows(called)["will run"].startswith(f"{len(jobs) - 2} trainings, ")
    assert "damaged" not in rows(called)
    others = [job for job in jobs if job not in (jobs[0], jobs[-1])]
    assert {job.train.task for job in (jobs[0], jobs[-1])} == {"labels"}  # measured at 1,000 images/s
    stated = NETS["conv4"].images_per_second
    speeds = {"labels": 1000, "rotnet": stated, "exemplar": stated / 2}
    left = sum(OVERHEAD + job.samples / speeds[job.train.task] for job in others)
    assert f"({words.duration(left)} of training)" in rows(called)["time"]
    assert cli.files() == before

    (cli.folder / "runs" / "steps" / jobs[0].id / WEIGHTS).write_bytes(b"broken")
    before = cli.files()
    called = cli("fig3", "--scale", "smoke", "--dry-run")
    assert called.code == 0
    assert rows(called)["done"] == "1 training"
    assert rows(called)["damaged"].startswith("1 of the steps")
    assert cli.files() == before


def test_dry_run_when_all_is_done(cli: Cli) -> None:
    graph, store = smoke(), Store(str(cli.folder / "runs"))
    store.create()
    commit(store, steps_of(graph), graph)
    said = rows(cli("fig3", "--scale", "smoke", "--dry-run"))
    assert said["done"] == f"{len(graph.jobs)} trainings"
    assert said["will run"] == "0 trainings, 0 masks"
    assert said["time"].startswith("about 0 s ")


def test_dry_run_is_quick_and_imports_neither_ray_nor_torch(tmp_path: Path) -> None:
    code = """
import sys
from raysslprune import sweep
code = sweep.main(["fig3", "--dry-run"])
print(*sorted({"ray", "torch", "matplotlib", "sklearn", "pyarrow"} & set(sys.modules)), file=sys.stderr)
sys.exit(code)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0
    assert run.stderr == "pyarrow\n"
    assert "without sharing" in run.stdout
    assert list(tmp_path.iterdir()) == []
