"""Nothing in a root is executed or leads out of it; without the token nobody is let in; secrets do not leak."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from raysslprune import data, experiment, sweep, sweep_loader
from raysslprune.commands import analysis, export
from raysslprune.commands.report import main as report
from raysslprune.commands.results import main as query
from raysslprune.spec import Final, Init, Prune, Recipe, Train, to_plain
from raysslprune.store.record import WEIGHTS, File, Record, StoreError
from raysslprune.store.steps import Store
from raysslprune.sweepfile import Figure, Point
from raysslprune.training.make_masks import NoExchange
from raysslprune.training.runner import Runner
from tests.helpers import CHECKOUT
from tests.helpers.bomb import Bomb
from tests.helpers.chains import execute
from tests.helpers.commands import Command, finish, start
from tests.helpers.processes import descendants, frozen_at_work
from tests.helpers.s3 import KEY, SECRET, objects, serving

PACKAGE = CHECKOUT / "raysslprune"

# ------------------------------------------------------------------------------------- in the source

FORBIDDEN = re.compile(
    r"pickle|cloudpickle|dill|marshal|shelve|runpy|code|"  # modules
    r"eval|exec|compile|__import__|"  # built-in functions
    r"os\.(system|popen|exec\w+|spawn\w+)|(joblib|torch\.jit)\.load|\w+\.(read_pickle|unpickle)|"
    r"yaml\.(load|unsafe_load|full_load|load_all)|importlib\.import_module|import_module|\w+\.loader\.exec_module"
)

ALLOWED = {
    ("sweep_loader.py", "spec.loader.exec_module"),  # a sweep file, which is code, and named by the user
    ("catalogue.py", "importlib.import_module"),  # module:attribute, from a sweep file, or behind --trust
    ("__init__.py", "import_module"),  # of this package, by a table of its names
    ("__main__.py", "import_module"),  # of this package
}


def runs_what_it_reads(source: str) -> list[str]:
    """Calls and imports in a program by which data could become code."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if FORBIDDEN.fullmatch(alias.name)]
        if isinstance(node, ast.ImportFrom) and FORBIDDEN.fullmatch(node.module or ""):
            found.append(node.module or "")
        if isinstance(node, ast.Call):
            name, options = ast.unparse(node.func), {word.arg: ast.unparse(word.value) for word in node.keywords}
            if FORBIDDEN.fullmatch(name) or options.get("allow_pickle") == "True" or options.get("shell") == "True":
                found.append(name)
            if name == "torch.load" and options.get("weights_only") != "True":
                found.append(name)
            if name in ("np.load", "numpy.load") and options.get("allow_pickle") != "False":
                found.append(name)
    return found


def test_no_code_of_the_package_makes_code_of_data() -> None:
    sources = {path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")}
    found = {(file, name) for file, source in sources.items() for name in runs_what_it_reads(source)}
    assert found == ALLOWED


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import load",
        "eval(text)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "numpy.loadtxt(path, allow_pickle=True)",
        "yaml.load(text)",
        "subprocess.run(text, shell=True)",
        "os.system(text)",
        "joblib.load(path)",
    ],
)
def test_it_would_be_found(line: str) -> None:
    assert runs_what_it_reads(line)
    assert not runs_what_it_reads("net.eval(); re.compile(x); torch.load(p, weights_only=True); yaml.safe_load(t)")


# ------------------------------------------------------------------------------------- bombs in a root

SWEEP = """
from raysslprune.lottery import imp, winning_ticket
from raysslprune.spec import Recipe
from raysslprune.sweepfile import Curve, Figure, Point, Search

TASK = "<script>alert(1)</script>"
FIGURE = Figure(title="../../title", references=(Curve(task=TASK, init="../../init"),))


def points(scale, seed):
    recipe = Recipe(samples=1280, batch=64, lr=0.05)
    for rewind in (64, 640):
        chain = imp(task="labels", data="digits", arch="conv4", recipe=recipe, seed=seed, levels=1, keep=0.5,
                    rewind=rewind)
        ticket = winning_ticket(chain, 1, task="labels", recipe=recipe)
        yield Point(step=ticket, panel=PANEL, task=TASK, init="../../init", level=1, seed=seed)
"""
PLAIN = SWEEP.replace("PANEL", "f'../../{rewind}'")
SEARCH = SWEEP.replace("PANEL", "''").replace('FIGURE = Figure(title="../../title"', 'FIGURE = Search(title="t"')
SEARCH = re.sub(r", references=.*", ")", SEARCH).replace('"digits"', '"digits:25%-held-out"')
SEARCH += "\n\n_shown = points\n\n\ndef points(scale, seed):\n    for point in _shown(scale, seed):\n"
SEARCH += "        yield point\n        yield replace(point, metric=FIGURE.objective)\n"
SEARCH = f"from dataclasses import replace\n{SEARCH}"
WHERE = ("--scale", "smoke")


def pickled(target: Path) -> bytes:
    return pickle.dumps(Bomb(target))


def saved_by_torch(target: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"trunk.layers.conv1.weight": Bomb(target)}, buffer)
    return buffer.getvalue()


def in_parquet(target: Path) -> bytes:
    """A column of the type by which old versions of Arrow unpickled a file's content; and pandas' metadata."""
    names = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickled(target)}
    schema = pa.schema([pa.field("step", pa.binary(), metadata=names), pa.field("seed", pa.int32())])
    buffer = io.BytesIO()
    pq.write_table(pa.table([[b"x"], [0]], schema=schema), buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def finished_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished and drawn sweeps, with names that would lead out of the root."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "plain.py").write_text(PLAIN)
    (folder / "search.py").write_text(SEARCH)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        execute([point.step for point in sweep_loader.load("plain.py", "smoke", 1).points], folder / "runs", {64, 640})
        assert sweep.main(["plain.py", "search.py", *WHERE]) == 0
        assert analysis.main(["plain.py", *WHERE]) == 0
    return folder


@pytest.fixture
def there(finished_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that root, for one test."""
    shutil.copytree(finished_root, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def ticket() -> Train:
    return sweep_loader.load("plain.py", "smoke", 1).points[0].step


def all_commands() -> None:
    """Every command that reads a root, and a job that starts from its files."""
    step = ticket()
    assert step.mask is not None
    for main, arguments in (
        (sweep.main, ["plain.py", "search.py", *WHERE, "--dry-run"]),
        (sweep.main, ["plain.py", *WHERE, "--explain", "0"]),
        (query, ["SELECT * FROM everything"]),
        (analysis.main, ["plain.py", *WHERE]),
        (report, ["plain.py", "search.py", *WHERE, "--out", "page.html"]),
        (export.main, [step.id, "--out", "network"]),
        (export.main, [step.mask.id, "--out", "mask"]),
    ):
        with suppress(SystemExit):
            assert main(arguments) in (0, 1, 2)
    runner = Runner(store=Store("runs"), exchange=NoExchange())
    with suppress(Exception):
        runner.train(replace(step, seed=7), set())  # from its parent's snapshot, under its mask
    with suppress(Exception):
        runner.checkpoint(step, set())


def vouched_for(folder: Path) -> None:
    """Rewrite SUCCESS, as anyone who can write the other files can: a checksum is no signature."""
    record = Record.from_bytes((folder / "SUCCESS").read_bytes(), folder.name)
    found = {name: (folder / name).read_bytes() for name in record.files}
    files = {name: File(size=len(d), sha256=hashlib.sha256(d).hexdigest()) for name, d in found.items()}
    (folder / "SUCCESS").write_bytes(replace(record, files=files).to_bytes())


KINDS: dict[str, str] = {
    "weights, snapshots, masks": "steps/*/*.safetensors",
    "specs": "steps/*/spec.json",
    "records": "steps/*/SUCCESS",
    "index": "index.parquet",
    "tables": "results/smoke/*.parquet",
    "journal": "studies/*",
    "marker": "raysslprune.json",
    "checkpoints": "checkpoints/*",
}


@pytest.mark.parametrize(
    ("kind", "bomb"),
    [
        *((kind, pickled) for kind in KINDS),
        *((kind, in_parquet) for kind in ("index", "tables")),
        *((kind, saved_by_torch) for kind in ("weights, snapshots, masks", "checkpoints")),
    ],
)
def test_a_bomb_in_the_place_of_a_file_does_not_go_off(
    kind: str, bomb: Callable[[Path], bytes], there: Path, tmp_path: Path
) -> None:
    target = tmp_path / "executed"
    pickle.loads(pickled(target))  # it does go off
    target.rmdir()
    Store("runs").save_checkpoint(ticket().id, b"x")
    files = list((there / "runs").glob(KINDS[kind]))
    assert files
    for path in files:
        said = bomb(target)
        path.write_bytes(hashlib.sha256(said).digest() + said if kind == "checkpoints" else said)
        if path.parent.parent.name == "steps" and path.name != "SUCCESS":
            vouched_for(path.parent)
    if kind != "index":
        (there / "runs/index.parquet").unlink()
    all_commands()
    assert not target.exists()


def test_the_commands_do_read_these_files(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above can fail."""
    read: list[str] = []
    real = Store.read
    monkeypatch.setattr(Store, "read", lambda self, name: read.append(name) or real(self, name))
    Store("runs").save_checkpoint(ticket().id, b"x")
    all_commands()
    (there / "runs/index.parquet").unlink()
    all_commands()
    for pattern in KINDS.values():
        assert any(Path(name).match(pattern) for name in read), pattern


def test_names_lead_nowhere_and_the_report_shows_them_as_they_are(there: Path, tmp_path: Path) -> None:
    shutil.rmtree(there / "runs/results")
    before = {path for path in tmp_path.rglob("*") if (there / "runs") not in path.parents}
    assert sweep.main(["plain.py", "search.py", *WHERE]) == 0
    all_commands()
    after = {path for path in tmp_path.rglob("*") if (there / "runs") not in path.parents}
    new = {path.relative_to(there).parts[0] for path in after - before}
    assert new == {"page.html", "network", "mask"}
    stems = {path.name.split(".")[0].split("-")[0] for path in (there / "runs/results/smoke").iterdir()}
    assert stems == {"plain", "search"}
    page = (there / "page.html").read_text()
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page


def committed(store: Store, step: Train) -> str:
    store.create()
    store.commit(step, {WEIGHTS: b"x"}, {"top1": 1.0, "density": 1.0, "collapsed_layers": 0.0}, {})
    return step.id


def test_a_root_can_not_make_anything_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names of the form module:attribute are for sweep files: in a root, anybody could have written one."""
    monkeypatch.chdir(tmp_path)
    recipe, store = Recipe(samples=64, batch=64, lr=0.1), Store("runs")
    common: dict[str, Any] = {"task": "labels", "recipe": recipe, "seed": 0, "start": Init(seed=0)}
    (tmp_path / "runs").mkdir()
    evil = Train(data="os:mkdir/executed", arch="conv4", **common)
    other = Train(data="digits", arch="runs.evil:go", **common)
    behind = Train(data="digits", arch="conv4", **{**common, "start": Final(of=other)})
    for step in (evil, other, behind):
        assert export.main([committed(store, step), "--out", "out"]) == 1
        assert (
            "which is code from outside this package; if you trust whoever wrote this root, add --trust"
            in capsys.readouterr().err
        )
    mask = Prune(of=evil, keep=0.5)
    store.commit(mask, {}, {}, {})
    assert export.main([mask.id, "--out", "out"]) == 1
    assert not Path("executed").exists()
    with suppress(Exception):
        export.main([evil.id, "--out", "out", "--trust"])
    assert Path("executed").exists(), "this is what it would have done"


@pytest.mark.parametrize("walk", ["..", "../../outside", "a/../../b"])
def test_no_id_leads_out_of_the_root(walk: str, there: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = Store("runs")
    for call in (
        lambda: store.artefact(walk, "spec.json"),
        lambda: store.record(walk),
        lambda: store.write(f"results/{walk}", b""),
        lambda: store.set_aside(walk),
        lambda: store.save_checkpoint(walk, b""),
    ):
        with pytest.raises(StoreError, match="' is outside runs"):
            call()
    folder = there / "runs/steps" / ticket().id
    plain = to_plain(ticket())
    plain["start"]["of"]["step"] = walk
    (folder / "spec.json").write_text(json.dumps(plain))
    vouched_for(folder)
    assert export.main([ticket().id, "--out", "out"]) == 1
    assert "' is outside runs" in capsys.readouterr().err
    assert export.main([walk, "--out", "out"]) == 2
    assert sweep.main(["plain.py", *WHERE, "--explain", walk]) == 2


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/x", "..", "", "x\n", "fig3"])
def test_an_experiments_name_is_a_name(name: str, tmp_path: Path) -> None:
    def points(scale: str, seed: int) -> Iterator[Point]:
        yield Point(step=ticket(), task="a", init="b", level=0, seed=seed)

    with pytest.raises(sweep_loader.SweepError, match="must have only letters, digits, _ and"):
        experiment.Experiment.of(points, Figure(title="t"), name=name, root=str(tmp_path))


@pytest.mark.parametrize("name", ["folder/..", "folder/../../x", "folder//etc", "folder/a/../..", "parquet/../x"])
def test_a_data_set_lies_below_the_data_root(name: str) -> None:
    with pytest.raises((ValueError, data.DataError)):
        data.source(name).locate(Path("data"))


# ------------------------------------------------------------------------------------- a Ray at work

OTHER = "hf_another-secret-of-the-environment"
TOKEN = "0123456789abcdef" * 4

VISITOR = """
import json, sys
import ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="ERROR")
print(json.dumps(ray.cluster_resources()))
"""

LONG = """
from raysslprune.spec import Init, Recipe, Train
from raysslprune.sweepfile import Curve, Figure, Point

FIGURE = Figure(title="t", references=(Curve(task="a", init="b"),))


def points(scale, seed):
    for number in (1, 2):
        recipe = Recipe(samples=6400 * number, batch=64, lr=0.05)
        step = Train(task="labels", data="digits", arch="conv4", recipe=recipe, seed=seed, start=Init(seed=seed))
        yield Point(step=step, task="a", init="b", level=number, seed=seed)
"""


PRIVATE = (
    "/api/cluster_status",
    "/api/jobs/",
    "/api/v0/tasks",
    "/api/v0/logs",
    "/events",
    "/logical/actors",
    "/nodes?view=summary",
)
"""Pages of Ray's dashboard that tell of the sweep; its first page, which asks for the token, does not."""


@dataclass
class Seen:
    """What others can see of a real sweep on s3://, with a dashboard and secrets in its environment."""

    command: Command
    listening: dict[str, str]
    """Address to the name of the process."""
    command_lines: str
    visits: dict[str, tuple[int, str]]
    """Exit code and output of those who came with this token."""
    pages: dict[tuple[str, str], tuple[int, str]]
    """Port of the dashboard's process and path to what was answered without a token: status and text."""
    elsewhere: list[str]
    """Its ports that took a connection on another interface than loopback, where no other program listens on them."""
    left: dict[str, bytes]
    """All objects of the root, and all that Ray wrote."""


def visit(address: str, **environment: str) -> tuple[int, str]:
    """Connect to a Ray at a loopback address, which Ray's clients would replace by the machine's other address."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    command = [sys.executable, "-c", VISITOR, address]
    done = subprocess.run(command, env={**env, **environment}, capture_output=True, text=True, timeout=200)
    return done.returncode, done.stdout + done.stderr


def listening(pids: set[int]) -> dict[str, str]:
    """Listening sockets of these processes: address and port to the process's command line."""
    inodes = sockets_of(pids)
    return {address: inodes[inode] for inode, address in listeners().items() if inode in inodes}


def sockets_of(pids: set[int]) -> dict[str, str]:
    """The sockets of these processes, each to its process's command line."""
    inodes: dict[str, str] = {}
    for pid in pids:
        with suppress(OSError):
            name = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(OSError):
                    inodes[os.readlink(entry)] = name
    return inodes


def listeners() -> dict[str, str]:
    """All listening sockets of this machine, each to its address and port, from the kernel's table."""
    found: dict[str, str] = {}
    for table, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                packed, port = words[1].split(":")
                raw = b"".join(bytes.fromhex(packed[i : i + 8])[::-1] for i in range(0, len(packed), 8))
                found[f"socket:[{words[9]}]"] = f"{socket.inet_ntop(family, raw)} {int(port, 16)}"
    return found


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    folder = tmp_path_factory.mktemp("ray")
    (folder / "long.py").write_text(LONG)
    with ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        temporary = stack.enter_context(short_folder())
        nowhere = str(folder / "nobody")
        for name, value in {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "HF_TOKEN": OTHER,
            "RAY_AUTH_TOKEN": TOKEN,
            "RAY_TMPDIR": str(temporary),
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }.items():
            patch.setenv(name, value)
        server = stack.enter_context(serving(folder))
        root = server.root(server.bucket())
        process = start("long.py", "--scale", "smoke", "--root", root, "--dashboard", cwd=folder)
        frozen = frozen_at_work(process.pid)
        family = {process.pid, *(pid for pid, _ in descendants(process.pid))}
        where = listening(family)
        lines = "\n".join(name for _, name in descendants(process.pid))
        gcs = next(word for word in lines.split() if word.startswith("--gcs-address=")).partition("=")[2]
        visitors: dict[str, dict[str, str]] = {
            "the right one": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN},
            "a wrong one": {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "f" * 64},
            "none": {},
            "none, on purpose": {"RAY_AUTH_MODE": "disabled"},
        }
        with ThreadPoolExecutor(4) as pool:
            came = pool.map(lambda who: visit(gcs, HOME=nowhere, **who), visitors.values())
            visits = dict(zip(visitors, came, strict=True))
        ports = [address.split()[1] for address, name in where.items() if "dashboard/dashboard.py" in name]
        pages = {(port, path): page(f"http://127.0.0.1:{port}{path}") for port in ports for path in ("/", *PRIVATE)}
        outside = answering_elsewhere(where, family)
        os.kill(frozen, signal.SIGCONT)
        command = finish(process)
        written = {str(path): path.read_bytes() for path in temporary.rglob("*") if path.is_file()}
        left = objects(Store(root)) | written
        assert command.code == 0, command.err
        yield Seen(command, where, lines, visits, pages, outside, left)


@contextmanager
def short_folder() -> Iterator[Path]:
    """A folder for Ray's sockets, with a short path."""
    with tempfile.TemporaryDirectory(prefix="sec-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def page(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def answering_elsewhere(where: Iterable[str], family: set[int]) -> list[str]:
    """The addresses and ports of ``where`` that accept a connection on another interface than loopback.

    Another program, such as the Ray of another test, may listen there on the same port.
    """
    words = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    own = [word for word in words if "." in word and not word.startswith("127.")]
    mine = sockets_of(family)
    before = {address for inode, address in listeners().items() if inode not in mine}
    ports = {address.split()[1] for address in where}
    found = {f"{ip} {port}" for ip in own for port in ports if takes_a_connection(ip, int(port))}
    after = {address for inode, address in listeners().items() if inode not in mine}
    any_host = {f"{ip} {port}" for ip in own for port in ports if {f"0.0.0.0 {port}", f":: {port}"} & (before | after)}
    return sorted(found - before - after - any_host)


def takes_a_connection(ip: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(5)
        return probe.connect_ex((ip, port)) == 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_of_a_sweeps_ray_listens_on_loopback_alone(seen: Seen) -> None:
    """Its dashboard and metrics, which require no token, and all else: by the kernel's table, and by connecting."""
    names = " ".join(seen.listening.values())
    for part in ("gcs_server", "raylet", "dashboard.py", "DashboardAgent", "JobTrial"):
        assert part in names
    hosts = {address.split()[0] for address in seen.listening}
    assert hosts <= {"127.0.0.1", "::ffff:127.0.0.1", "::1"}, seen.listening
    assert seen.elsewhere == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_who_has_not_the_token_is_refused(seen: Seen) -> None:
    code, said = seen.visits["the right one"]
    assert code == 0, said
    assert "CPU" in json.loads(said.splitlines()[-1])
    for token in ("a wrong one", "none", "none, on purpose"):
        code, said = seen.visits[token]
        assert code != 0, said
        assert '"CPU"' not in said
    own = re.search(r"http://127\.0\.0\.1:(\d+); log in with your token", seen.command.out + seen.command.err)
    assert own
    assert seen.pages[own[1], "/"][0] == 200
    assert {path: seen.pages[own[1], path][0] for path in PRIVATE} == dict.fromkeys(PRIVATE, 401)
    metrics = [said for (port, _), (_, said) in seen.pages.items() if port != own[1]]
    assert all(line.startswith(("# ", "ray_")) for said in metrics for line in said.splitlines())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_secret_is_written_or_shown(seen: Seen) -> None:
    """Not in the root, in Ray's files, on the terminal, or where `ps` shows it to everybody."""
    shown = seen.command.out + seen.command.err + seen.command_lines + "".join(said for _, said in seen.pages.values())
    assert any("gcs_server" in name for name in seen.left)
    assert any(name.endswith("weights.safetensors") for name in seen.left)
    assert "; log in with your token" in shown
    for secret in (KEY, SECRET, OTHER, TOKEN):
        assert secret not in shown, secret
        assert [name for name, said in seen.left.items() if secret.encode() in said] == []
