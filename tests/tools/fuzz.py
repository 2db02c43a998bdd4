"""Bad command lines, sweep files, roots and files, by the thousand, and a few good ones.

    python -m tests.tools.fuzz --cases 2000 --seed 0
    python -m tests.tools.fuzz --seed 0 --only 137        # that one again, with all that it says

Each case is a command of ``raysslprune`` in a new folder of its own, HOME and TMPDIR in it: most in a process that is
forked from this one, which has imported everything, some by ``python -m raysslprune``. A case is good if it ends by
itself, with an exit code that the README has, in one sentence where it is refused; if nothing is written but where it
was told to; if nothing of a file beside is told; and if no process is left. Nothing is trained: where a command would
begin to, it ends. Exit code 1 if a case is not good, with the command that makes it again.
"""

from __future__ import annotations

import argparse
import builtins
import ctypes
import io
import os
import random
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

os.environ.setdefault("OMP_NUM_THREADS", "1")

from raysslprune import __main__ as package
from raysslprune.messages import FAILED, STOPPED, USAGE
from raysslprune.paper.scales import SETTINGS

SWEEPS = Path(package.__file__).parent.parent / "sweeps"
PATIENCE = 60.0
"""Seconds that a case may take, on a machine with other work."""

ENDLESS = 40.0
"""Seconds after which a sweep file is taken to have a loop without an end, which nobody can know; Ctrl-C ends it."""

MEMORY = 4 << 30
"""Bytes, at most: what wants more would end a user's machine."""

CAPABILITY_VERSION = 0x20080522
"""The third, of Linux's capset(2)."""

CANARY = "the canary in the file that nobody named"
"""In files beside the case's: no command may tell it."""

PARTS_IN_PROCESSES = 0.03
"""Of all cases, those that run by ``python -m raysslprune``."""


@dataclass(kw_only=True)
class Case:
    """A command and what lies around it.

    files: to write into the working folder first. spoil: called with that folder. whole: all of it, when the command
    is a new process. stdout: a file, ``full`` as a disk may be, or ``closed`` as a pipe. interrupt: seconds until
    Ctrl-C, which must end it. restricted: by a user who may not write there, or read what has no permissions.
    """

    kind: str
    arguments: list[str]
    files: dict[str, str | bytes] = field(default_factory=dict)
    spoil: Callable[[Path], None] = lambda _: None
    process: bool = False
    stdout: str = "file"
    interrupt: float = ENDLESS
    restricted: bool = False


@dataclass(frozen=True, kw_only=True)
class Ended:
    """code: None where it had to be killed."""

    code: int | None
    out: str
    err: str
    left: list[str]


# ------------------------------------------------------------------------------------- what there is to be wrong

GOOD = """
from raysslprune.lottery import imp, winning_ticket
from raysslprune.paper.scales import SETTINGS
from raysslprune.sweepfile import Claim, Curve, Figure, Point
CURVE = Curve(task="labels", init="winning ticket")
FIGURE = Figure(title="Mine", references=(CURVE,))
CLAIMS = (Claim(says="it holds", source="here", higher=CURVE, lower=1.0, relation="above"),)
def points(scale, seed):
    s = SETTINGS[scale]
    recipe = s.recipes["labels"]
    chain = imp(task="labels", data="digits", arch="conv4", recipe=recipe, seed=seed, levels=2, keep=0.5, rewind=640)
    for level in (0, 1, 2):
        step = winning_ticket(chain, level, task="labels", recipe=recipe)
        yield Point(step=step, task="labels", init="winning ticket", level=level, seed=seed)
"""
"""``mine.py``, whose finished root each case finds as ``runs``."""

WORDS = (
    "", " ", "-", "--", "---", "-1", "0", "1", "2", "1.5", "1e999", "nan", "inf", "9", "１２", "½", "0x10", "1_0", "\n",
    "a\nb", "\t", "\x1b[31m", "\u202e", "é", "x", "x/", "\udcff", ".", "..", "../..", "/", "/dev/null",
    "/dev/zero", "/dev/full", "/dev/null/x", "/proc/self/mem", "/proc/x/y", "/etc/passwd", "loop", "loop/x",
    "file.txt", "file.txt/x", "folder", "fifo", "fifo.py", "fifo.safetensors", "zero.safetensors", "secret", "link",
    "dangling", "dangling/x", "%s%n", "{}", "{0.__class__}", "$(touch pwned)", "`touch pwned`", ";touch pwned", "~",
    "*", "[/red]", "[bold]", "runs", "mine.py", "None", "True", "all", "fig3", "fig3.py", "table1", "rewind", "fig1",
    "conv4", "resnet8", "digits", "cifar10", "folder/pets", "smoke", "laptop", "paper", "laptop,smoke", "os:system",
    "raysslprune.lottery:imp", "x:y", "a.b.c:d", "folder/../..", "parquet/x", "digits:10%-of-images",
    "digits:0%-of-images", "out.csv", "out.parquet", "new", "new/x/y", "out.json", "needed", "=", "a=b", "@file.txt",
)  # fmt: skip

ADDRESSES = (
    "s3://", "s3:///", "s3://key:secret@bucket/x", "s3://AKIA:wJalr/XUtn@bucket", "s3:// bucket/x", "s3://b?x=y",
    "s3://bucket?secret_key=x", "s3://bucket/%00", "gs://user:password@bucket", "gs://", "hdfs://nowhere:1/x",
    "http://example.org", "https://x", "file://", "file:///", "file://x/y", "://", "s3:", "x://y", "S3://BUCKET ?",
    "mock://x", "abfs://x@y", "s3://bucket?endpoint_override=", "s3://bucket?scheme=x&region=y", "ftp://a:b@c/d",
)  # fmt: skip

QUERIES = (
    "FROM results", "SELECT * FROM means ORDER BY ALL", "FROM everything", "FROM runs LIMIT 1", "SELECT 1, 1",
    "SELECT 1; SELECT 2", "", ";", "--", "SELEC 1", "SELECT", "FROM nothing", "SELECT nothing FROM results", "\x1b",
    "é", "COPY results TO 'pwned.csv'", "COPY (SELECT 1) TO 'pwned.parquet'", "SELECT * FROM read_csv('/etc/passwd')",
    "SELECT * FROM read_text('secret')", "FROM 'secret'", "FROM read_blob('secret')", "FROM glob('*')",
    "ATTACH 'pwned.db'", "INSTALL httpfs", "LOAD httpfs", "EXPORT DATABASE 'pwned'", "CREATE TABLE x AS SELECT 1",
    "PRAGMA version", "SET enable_external_access = true", "RESET enable_external_access", "SELECT getenv('HOME')",
    "DROP VIEW everything", "INSERT INTO results VALUES (1)", "CALL pragma_version()", "FROM duckdb_settings()",
    "FROM duckdb_secrets()", "SELECT * FROM sniff_csv('secret')", "SELECT * FROM read_json('secret')",
    "SELECT * FROM 'https://example.org/x.csv'", "FROM 's3://bucket/x.parquet'", "EXPLAIN ANALYZE FROM results",
    "EXPLAIN COPY results TO 'pwned.csv'", "SELECT 1/0", "SELECT 'x'::INT", "SELECT NULL", "SELECT []", "SELECT {}",
    "SELECT [1, NULL, 2]", "SELECT {'a': 1}", "SELECT MAP {'a': 1}", "SELECT 1::HUGEINT << 100",
    "SELECT DATE '1-1-1'", "SELECT INTERVAL 1 YEAR", "SELECT 'a'::BLOB", "SELECT '\\xff'::BLOB", "SELECT uuid()",
    "SELECT TIME '1:00'", "SELECT 'infinity'::DATE", "SELECT '-infinity'::TIMESTAMP", "SELECT 1e308 * 10",
    "SELECT 'nan'::DOUBLE", "SELECT TIMESTAMP '290000-01-01'", "SELECT 1.5::DECIMAL(38, 30)",
    "SELECT union_value(a := 1)", "SELECT 3::BIT", "SELECT 'x' AS \"\"", "SELECT 1 AS \"a\nb\"", "SELECT chr(27)",
    "SELECT chr(0)", "SELECT repeat('x', 100000)", "FROM range(100000)", "SELECT repeat('x', 10000000000000)",
    "SELECT sleep(1)", "DESCRIBE results", "SHOW TABLES", "SUMMARIZE results",
    "PIVOT results ON level USING avg(value)", "VALUES (1), (2)", "WITH x AS (FROM results) FROM x",
    "SELECT * FROM query('FROM read_text(''secret'')')", "SELECT * FROM query_table(['secret'])",
    "PREPARE x AS SELECT 1", "EXECUTE x", "BEGIN", "VACUUM", "CHECKPOINT", "USE x", "SELECT ?", "SELECT $1",
    "SELECT $name", "FROM sys", "FROM sql", "SELECT CAST(NULL AS STRUCT(a INT))",
    "SELECT TIMESTAMPTZ '2020-01-01 00:00:00+05'", "SELECT 'x'::ENUM", "SELECT ", "(", "SELECT 1" " + 1",
    "SELECT ARRAY[[1], [2]]", "SELECT 'é' COLLATE x",
)  # fmt: skip

LINES = (
    "raise ValueError('no')", "raise SystemExit", "raise SystemExit('bye')", "raise SystemExit(0)", "exit(3)",
    "import nothing_of_this_name", "from raysslprune import nothing", "def", "(", "'", "\t x", "x = \x00", "\ufeff",
    "½", "raise KeyError", "raise KeyboardInterrupt",
    "import mine", "1/0", "assert False", "open('nothing')", "print('x')", "raise Exception('a\\nb')",
    "raise Exception('\\x1b[31m')",
    "raise Exception('x' * 10**6)", "raise ExceptionGroup('g', [ValueError(1)])", "def f(): f()\nf()",
    "x = [] \nfor _ in range(10**5): x = [x]\nrepr(x)", "FIGURE = None", "FIGURE = 1", "FIGURE = Figure",
    "FIGURE = Figure()", "FIGURE = Figure(title=1)", "CLAIMS = 1", "FIGURE = Figure(title='x', inits=('y',))",
    "FIGURE = Figure(title='x', x='y')", "CLAIMS = (1,)", "CLAIMS = [CURVE]", "FIGURE = Figure(title='\\ud800')",
    "FIGURE = Figure(title='x' * 10**5)", "FIGURE = Figure(title='$\\\\frac$')",
    "FIGURE = Figure(title='\\0\\x1b[31m')", "CLAIMS = ()", "del FIGURE", "del points", "points = None", "points = 1",
    "points = lambda: 1", "points = lambda scale, seed: None", "points = lambda scale, seed: 1",
    "points = lambda scale, seed: [1]", "points = lambda scale, seed: []", "points = lambda scale, seed: [None]",
    "points = lambda scale, seed: 'x'", "points = lambda scale, seed: {}", "points = print", "points = type",
    "def points(scale, seed):\n    raise ValueError('no')", "def points(scale, seed):\n    raise SystemExit",
    "def points(scale, seed):\n    raise StopIteration", "async def points(scale, seed): pass",
    "def points(scale, seed):\n    yield\n    raise RuntimeError",
    "was = points\ndef points(scale, seed):\n    point, *_ = was(scale, seed)\n    while True: yield point",
    "was = points\ndef points(scale, seed):\n    yield from was(scale, 0)", "claims = lambda scale: CLAIMS",
    "del CLAIMS\nclaims = lambda scale: 1", "del CLAIMS\nclaims = lambda scale: [1]", "del CLAIMS\nclaims = 1",
    "CLAIMS = (Claim(says=1, source=None, higher=CURVE, lower='x', relation='above'),)",
    "CLAIMS = (Claim(says='x', source='', higher=CURVE, lower=float('nan'), relation='above'),)",
    "CLAIMS = (Claim(says='x', source='', higher=CURVE, lower=CURVE, relation='widens', along='panels'),)",
    "CLAIMS = (Claim(says='x', source='', higher=CURVE, lower=1, relation='above', within=('a', 'b')),)",
    "CLAIMS = (Claim(says=1, source=2, higher=CURVE, lower=True, relation='equal', margin='x'),)",
    "CLAIMS = (Claim(says=1, source=2, higher=CURVE, lower=1, relation='equal', margin=1),)",
    "CURVE = Curve(task=1, init=None)\nFIGURE = Figure(title='x', references=(CURVE,))",
    "from raysslprune.sweepfile import *\nFIGURE = Listing(title='x', columns=('a',))",
    "from raysslprune.sweepfile import *\nFIGURE = Listing(title='x', columns=('a', 'a'))\nrows = lambda s: [(1, 2)]",
    "from raysslprune.sweepfile import *\nFIGURE = Listing(title='', columns=('',))\nrows = lambda s: [('\\ud800',)]",
    "from raysslprune.sweepfile import *\nFIGURE = Listing(title='x', columns=('a',))\nrows = lambda s: [(1j,)]",
    "from raysslprune.sweepfile import *\nFIGURE = Listing(title='', columns=('a',))\nrows = lambda s: iter(list, 1)",
    "from raysslprune.sweepfile import *\nFIGURE = Search(title='x')\nCLAIMS = ()",
    "from raysslprune.sweepfile import *\nFIGURE = Search(title='x', objective=5)",
    "from raysslprune.sweepfile import *\nFIGURE = Search(title='x', objective='y' * 10**6)",
    "from raysslprune.sweepfile import *\nFIGURE = Magnitudes(title='x')",
)  # fmt: skip
"""More of a sweep file, behind GOOD."""

VALUES = (
    "0", "-1", "1", "2", "3", "0.5", "1.5", "1e-9", "1e300", "10**18", "10**400", "2**31", "2**63", "float('nan')",
    "float('inf')", "-float('inf')", "None", "True", "False", "''", "'x'", "'\\0'", "'\\ud800'", "()", "(1,)", "[]",
    "[1]", "{}", "b'x'", "1j", "object()", "print", "int", "lambda: 0", "CURVE", "FIGURE", "points", "'labels'",
    "640", "1280", "'a:b'", "'digits:10%-of-images'", "'digits:0%-of-images'", "'os:system'", "'../..'",
    "'x' * 10**5", "'convs'", "'convs:1'", "'convs:99'", "'rotnet'", "'s4l'", "'\\n'", "'[/red]'", "range(3)", "seed",
    "scale",
)  # fmt: skip
"""In the place of a value in a sweep file."""

TOKEN = re.compile(r"\w+|\s+|[^\w\s]")


def mutated(text: str, rng: random.Random) -> str:
    """With tokens deleted, doubled, swapped, or replaced by a value."""
    tokens = TOKEN.findall(text)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        words = [i for i, token in enumerate(tokens) if not token.isspace()]
        at = rng.choice(words)
        match rng.randrange(6):
            case 0:
                del tokens[at]
            case 1:
                tokens.insert(at, tokens[at])
            case 2:
                other = rng.choice(words)
                tokens[at], tokens[other] = tokens[other], tokens[at]
            case 3:
                tokens[at] = tokens[rng.choice(words)]
            case _:
                numbers = [i for i in words if tokens[i][0].isdigit()]
                tokens[rng.choice(numbers or words)] = rng.choice(VALUES)
    return "".join(tokens)


def with_a_value(text: str, rng: random.Random) -> str:
    """With one value that is given by name replaced by another."""
    given = list(re.finditer(r"(\w+)=([\w.\[\]\"]+|\"[^\"]*\")", text))
    one = rng.choice(given)
    return text[: one.start(2)] + rng.choice(VALUES) + text[one.end(2) :]


def damaged(folder: Path, rng: random.Random) -> None:
    """One file of the root, in one of the ways in which files go wrong."""
    files = sorted(path for path in (folder / "runs").rglob("*") if path.is_file())
    file = rng.choice(files)
    data = file.read_bytes()
    match rng.randrange(6):
        case 0:
            file.write_bytes(b"")
        case 1:
            file.write_bytes(data[: rng.randrange(len(data) + 1)])
        case 2:
            at = rng.randrange(len(data) or 1)
            file.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)] if data else []) + data[at + 1 :])
        case 3:
            file.write_bytes(rng.choice(files).read_bytes())
        case 4:
            file.unlink()
            if rng.random() < 0.5:
                file.mkdir()
        case _:
            file.write_bytes(rng.randbytes(rng.randrange(1, 300)))
    if file.is_file():
        time_ns = rng.randrange(10**18)
        os.utime(file, ns=(time_ns, time_ns))


def spoilt(rng: random.Random) -> Callable[[Path], None]:
    return lambda folder: damaged(folder, rng)


# ------------------------------------------------------------------------------------- cases

BASES: dict[str, Sequence[Sequence[str]]] = {
    "sweep": (
        ("mine.py", "--scale", "smoke", "--dry-run"),
        ("mine.py", "--scale", "smoke", "--root", "runs"),
        ("mine.py", "--scale", "smoke", "--explain", "0"),
        ("mine.py", "--scale", "smoke", "--seeds", "2", "--keep", "needed", "--json-lines", "--curves"),
        ("mine.py", "--scale", "smoke", "--gpus-per-worker", "0.5", "--workers-per-step", "1"),
        ("mine.py", "--scale", "smoke", "--slots", "1", "--address", "local", "--wait"),
        ("fig3", "--scale", "smoke", "--root", "new", "--dry-run", "--data", "data"),
    ),
    "results": (
        ("FROM results", "--root", "runs"),
        ("FROM means", "--format", "json"),
        ("FROM runs", "--export", "out.csv"),
        (),
    ),
    "report": (("mine.py", "--scale", "smoke", "--out", "page.html"), ("mine.py", "--root", "runs"), ()),
    "analysis": (("mine.py", "--scale", "smoke", "--root", "runs"), ("mine.py", "--scale", "smoke", "--seeds", "1")),
    "export": (("STEP", "--out", "new", "--root", "runs"), ("MASK", "--out", "new/net", "--data", "data")),
    "import-mask": (
        ("mask.safetensors", "--arch", "conv4", "--root", "new"),
        ("mask.safetensors", "--arch", "conv4", "--channels", "1"),
    ),
    "check": (("digits",), ("folder/pets", "--data", "data", "--skip-broken"), ("cifar10", "--data", "data")),
    "resize": (("folder/pets", "--data", "data", "--out", "new"), ("folder/pets", "--shorter", "256")),
    "completion": (("bash",), ("zsh",), ("fish",)),
}
"""Of each command, calls that are right."""

PATHS = {"--root": "runs", "--out": "report.html", "--export": "", "--data": "data"}
"""Options that name what may be written, with what they name where they are not given."""


@cache
def options() -> dict[str, list[str]]:
    """Of each command, from its own parser: an option that is new is tried without a change here."""
    (commands,) = (a for a in package.tree()._actions if isinstance(a, argparse._SubParsersAction))
    return {
        name: [option for action in parser._actions for option in action.option_strings]
        for name, parser in commands.choices.items()
    }


def word(rng: random.Random) -> str:
    """A value that some option may be given."""
    return rng.choice(ADDRESSES) if rng.random() < 0.15 else rng.choice(WORDS)


def wrong(name: str, given: Sequence[str], rng: random.Random) -> list[str]:
    """A call with something done to it, once or a few times."""
    arguments = list(given)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        at = rng.randrange(len(arguments) + 1)
        option = rng.choice(options()[name])
        match rng.randrange(9):
            case 0 if arguments:
                del arguments[min(at, len(arguments) - 1)]
            case 1 if arguments:
                arguments.insert(at, rng.choice(arguments))
            case 2 | 3 if arguments:
                arguments[min(at, len(arguments) - 1)] = word(rng)
            case 4:
                arguments[at:at] = [option, word(rng)]
            case 5:
                arguments.insert(at, f"{option}={word(rng)}")
            case 6:
                arguments.insert(
                    at, rng.choice((option, option[:-1], f"-{option}", "--nothing", "-x", "--", word(rng)))
                )
            case 7 if arguments:
                arguments.insert(at, arguments.pop(rng.randrange(len(arguments))))
            case _:
                arguments += [option, word(rng)]
    return arguments


def flags(rng: random.Random) -> Case:
    name = rng.choice([*BASES, "sweep", "sweep"])
    base = [*rng.choice(BASES[name])]
    arguments = wrong(name, base, rng)
    return Case(kind=f"flags of {name}", arguments=[name, *arguments])


def top_level(rng: random.Random) -> Case:
    return Case(kind="no command", arguments=[word(rng) for _ in range(rng.randrange(4))])


def sweep_file(rng: random.Random) -> Case:
    lines = rng.sample(LINES, rng.choice((1, 1, 1, 2)))
    text = rng.choice(
        (f"{GOOD}\n" + "\n".join(lines), "\n".join(lines), with_a_value(GOOD, rng), with_a_value(GOOD, rng))
    )
    return Case(
        kind="a sweep file", arguments=_looks_at(rng, "bad.py"), files={"bad.py": text.encode(errors="replace")}
    )


def mutated_sweep(rng: random.Random) -> Case:
    source = rng.choice(sorted(SWEEPS.glob("*.py")))
    text = mutated(source.read_text(), rng)
    scale = rng.choice(list(SETTINGS))
    arguments = ["sweep", "bad.py", "--scale", scale, "--dry-run", "--root", "new"]
    return Case(kind="a sweep of the package, changed", arguments=arguments, files={"bad.py": text})


def bytes_as_sweep(rng: random.Random) -> Case:
    data = rng.choice((rng.randbytes(rng.randrange(1, 500)), GOOD.encode()[: rng.randrange(900)], b"\xff\xfe" + b"x\0"))
    return Case(kind="bytes as a sweep file", arguments=_looks_at(rng, "bad.py"), files={"bad.py": data})


def _looks_at(rng: random.Random, sweep: str) -> list[str]:
    return rng.choice(
        (
            ["sweep", sweep, "--scale", "smoke", "--dry-run"],
            ["sweep", sweep, "--scale", "smoke"],
            ["sweep", sweep, "--scale", "smoke", "--explain", "0"],
            ["sweep", sweep, "--scale", "paper", "--dry-run"],
            ["report", sweep, "--scale", "smoke", "--out", "page.html"],
            ["analysis", sweep, "--scale", "smoke"],
        )
    )


def sql(rng: random.Random) -> Case:
    query = rng.choice(QUERIES)
    if rng.random() < 0.4:
        query = mutated(" ".join(rng.sample(QUERIES[:70], 2)), rng)
    form = rng.choice(("csv", "json", "parquet", "arrow"))
    how = rng.choice(([], [], ["--format", form], ["--export", f"out.{form}"]))
    return Case(kind="SQL", arguments=["results", query, *how])


def root(rng: random.Random) -> Case:
    name = rng.choice(("sweep", "sweep", "results", "report", "analysis", "export", "import-mask"))
    place = word(rng) if rng.random() < 0.6 else rng.choice(ADDRESSES)
    arguments = [part for part in rng.choice(BASES[name]) if part not in ("--root", "runs", "new")]
    if name == "export" and "--out" in arguments:
        arguments = ["STEP", "--out", "net"]
    return Case(kind="a root", arguments=[name, *arguments, "--root", place], restricted=rng.random() < 0.2)


def damage(rng: random.Random) -> Case:
    name = rng.choice(("sweep", "sweep", "sweep", "results", "report", "analysis", "export"))
    return Case(kind="a damaged root", arguments=[name, *rng.choice(BASES[name])], spoil=spoilt(rng))


def mask_file(rng: random.Random) -> Case:
    """Of safetensors or torch, with a few bytes changed, or of something else."""
    name = rng.choice(("mask.safetensors", "mask.pt"))

    def spoil(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        for _ in range(rng.choice((0, 1, 3, 30))):
            data[rng.randrange(rng.choice((64, len(data))))] = rng.randrange(256)
        (folder / f"bad.{name}").write_bytes(data[: rng.choice((len(data), len(data), rng.randrange(len(data))))])

    arguments = [
        "import-mask",
        f"bad.{name}",
        "--arch",
        rng.choice(("conv4", "resnet8", "conv5", "x")),
        "--root",
        "new",
    ]
    return Case(kind="a mask's file", arguments=arguments, spoil=spoil)


def images(rng: random.Random) -> Case:
    """A folder of images with something wrong in it."""
    name = rng.choice(("check", "resize"))

    def spoil(folder: Path) -> None:
        pets = folder / "data" / "pets"
        some = rng.choice(sorted(pets.rglob("*")))
        match rng.randrange(6):
            case 0:
                shutil.rmtree(some) if some.is_dir() else some.unlink()
            case 1:
                (pets / "train" / rng.choice(("loop", "x"))).symlink_to(rng.choice((".", "..", "nothing", pets)))
            case 2:
                (pets / rng.choice(("train", "val")) / rng.choice(("x.png", "é\n.png", "y"))).write_bytes(b"x")
            case 3:
                (pets / "train" / "cats" / "z.png").write_bytes(rng.randbytes(rng.randrange(200)))
            case 4:
                (pets / "skip.txt").write_bytes(rng.choice((b"nothing.png\n", b"\xff\xfe", b"train/cats/0.png\n" * 2)))
            case _:
                image = pets / "train" / "cats" / "0.png"
                image.write_bytes(image.read_bytes()[: rng.randrange(60)])

    return Case(kind="images", arguments=[name, *rng.choice(BASES[name][1:])], spoil=spoil)


def no_reader(rng: random.Random) -> Case:
    name = rng.choice(("sweep", "results", "report", "analysis", "export", "check", "completion", "import-mask"))
    case = Case(kind="no room on stdout", arguments=[name, *rng.choice(BASES[name])])
    case.stdout = rng.choice(("full", "closed"))
    return case


def stopped(rng: random.Random) -> Case:
    """An endless loop in a sweep file, which nobody can know to be one, ended by Ctrl-C."""
    text = rng.choice((f"{GOOD}\nwhile True: pass", f"{GOOD}\ndef points(scale, seed):\n    while True: pass"))
    return Case(kind="Ctrl-C", arguments=["sweep", "bad.py", "--dry-run"], files={"bad.py": text}, interrupt=0.5)


def no_rights(rng: random.Random) -> Case:
    """By a user who may not write to the root, or not read some of it."""
    name = rng.choice(("sweep", "results", "report", "analysis", "export"))

    def spoil(folder: Path) -> None:
        paths = sorted((folder / "runs").rglob("*"))
        for path in sorted(rng.sample(paths, rng.choice((0, 1, 3))), reverse=True):  # what is in a folder before it
            path.chmod(0)

    return Case(kind="no rights", arguments=[name, *rng.choice(BASES[name])], spoil=spoil, restricted=True)


KINDS: dict[Callable[[random.Random], Case], int] = {
    flags: 30,
    top_level: 3,
    sweep_file: 16,
    mutated_sweep: 14,
    bytes_as_sweep: 3,
    sql: 10,
    root: 8,
    damage: 8,
    mask_file: 3,
    images: 2,
    no_reader: 2,
    stopped: 0.4,  # pyright: ignore[reportAssignmentType]
    no_rights: 3,
}
"""To how many of a hundred."""


def case_of(seed: int, number: int) -> Case:
    """The same in each run, whatever else is run."""
    rng = random.Random(f"{seed} {number}")
    (make,) = rng.choices(list(KINDS), list(KINDS.values()))
    case = make(rng)
    plain = not case.restricted and case.interrupt == ENDLESS
    case.process = plain and case.stdout == "file" and rng.random() < PARTS_IN_PROCESSES
    trains = case.arguments[:1] == ["sweep"] and "--dry-run" not in case.arguments and "--explain" not in case.arguments
    if case.process and trains:
        case.arguments.append("--dry-run")
    return case


# ------------------------------------------------------------------------------------- one case


class Template:
    """What lies in every case's folder: a finished root, files to name, and what is none of a command's business."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        work = folder / "work"
        for name in ("home", "tmp", "work/folder", "work/data/pets/train", "work/data/pets/val"):
            (folder / name).mkdir(parents=True)
        (folder / "beside").write_text(CANARY)
        for name in ("secret", "file.txt"):
            (work / name).write_text(f"{CANARY}\n")
        (work / "mine.py").write_text(GOOD)
        (work / "loop").symlink_to("loop")
        (work / "dangling").symlink_to("nothing")
        (work / "link").symlink_to("folder")
        (work / "zero.safetensors").symlink_to("/dev/zero")
        for name in ("fifo", "fifo.py", "fifo.safetensors"):
            os.mkfifo(work / name)
        code = alone(lambda: self._fill(work))
        if code:
            raise RuntimeError("the finished root could not be made")
        self.steps = {
            kind: next(path.parent.name for path in sorted(work.glob(f"runs/steps/*/{kind}.safetensors")))
            for kind in ("weights", "mask")
        }

    @staticmethod
    def _fill(work: Path) -> int:
        """In a process of its own, since threads do not outlive a fork."""
        import torch
        from PIL import Image
        from safetensors.torch import save_file

        from raysslprune import sweep
        from raysslprune.sweep_loader import load
        from tests.helpers.chains import execute

        os.chdir(work)
        points = load("mine.py", "smoke", 1).points
        execute([point.step for point in points], work / "runs")
        for split in ("train", "val"):
            for number, kind in enumerate(("cats", "dogs")):
                (work / "data/pets" / split / kind).mkdir()
                image = Image.new("RGB", (300, 280), (number * 90, 20, 70))
                image.save(work / "data/pets" / split / kind / "0.png")
        shapes = {"layers.conv1.weight": (16, 1, 3, 3), "layers.conv2.weight": (32, 16, 3, 3)}
        mask = {name: torch.ones(shape) for name, shape in shapes.items()}
        save_file(mask, work / "mask.safetensors")
        torch.save(mask, work / "mask.pt")
        return sweep.main(["mine.py", "--scale", "smoke"])

    def copy(self, to: Path) -> None:
        """Pipes as pipes, which shutil would read."""
        subprocess.run(["cp", "-a", f"{self.folder}/.", to], check=True)


def alone(call: Callable[[], int]) -> int:
    """In a process of its own, without output. Gives its exit code."""
    child = os.fork()
    if not child:
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        try:
            os._exit(call())
        except BaseException:
            traceback.print_exc()
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def listing(folder: Path) -> dict[str, tuple[int, int, int]]:
    """All that there is below, with kind, size and time."""
    found: dict[str, tuple[int, int, int]] = {}
    stack = [str(folder)]
    while stack:
        for entry in os.scandir(stack.pop()):
            stat = entry.stat(follow_symlinks=False)
            is_folder = entry.is_dir(follow_symlinks=False)
            size, at = (0, 0) if is_folder else (stat.st_size, stat.st_mtime_ns)
            found[os.path.relpath(entry.path, folder)] = (stat.st_mode, size, at)
            if is_folder:
                stack.append(entry.path)
    return found


def may_write(case: Case) -> list[str]:
    """Where, from the working folder: what the options name, and below it."""
    if "--dry-run" in case.arguments or "--explain" in case.arguments or not case.arguments:
        return []
    places = [PATHS["--root"], PATHS["--out"]]
    places += [PATHS["--data"]] * (case.arguments[0] in ("check", "resize"))
    for before, argument in zip(["", *case.arguments], case.arguments, strict=False):
        option, _, value = argument.partition("=")
        if before in PATHS:
            places.append(argument)
        if option in PATHS:
            places.append(value)
    return [os.path.normpath(place) for place in places if place]


def run(case: Case, template: Template, folder: Path) -> tuple[Ended, list[str]]:
    """Prepare, run, and look around; gives what it said, and what was wrong."""
    template.copy(folder)
    work = folder / "work"
    named = {"STEP": template.steps["weights"][:8], "MASK": template.steps["mask"]}
    case.arguments = [named.get(argument, argument) for argument in case.arguments]
    for name, data in case.files.items():
        (work / name).write_bytes(data.encode() if isinstance(data, str) else data)
    if case.restricted:
        subprocess.run(["chmod", "-R", "a-w", folder], check=True)
        (folder / "tmp").chmod(0o700)
    case.spoil(work)
    before = listing(folder)
    out, err = folder.with_name("out"), folder.with_name("err")
    begun = time.monotonic()
    child = os.fork()
    if not child:
        _become(case, folder, out, err)
    code = _wait(child, begun, case.interrupt if case.files else PATIENCE)
    left = _left_in_session(child)
    ended = Ended(
        code=code,
        out=out.read_text(errors="surrogateescape"),
        err=err.read_text(errors="surrogateescape"),
        left=left,
    )
    after = listing(folder)
    touched = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    return ended, [*_faults(case, ended), *_strays(case, touched, work)]


def _become(case: Case, folder: Path, out: Path, err: Path) -> NoReturn:
    """The process of the command, which does not come back."""
    try:
        os.setsid()
        os.chdir(folder / "work")
        os.environ |= {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "AWS_EC2_METADATA_DISABLED": "true"}
        os.environ.pop("RAYSSLPRUNE_DATA", None)
        tempfile.tempdir = None
        for number, path in ((0, os.devnull), (1, out), (2, err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666), number)
        if case.stdout == "full":
            os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        elif case.stdout == "closed":
            reader, writer = os.pipe()
            os.dup2(writer, 1)
            os.close(reader)
        os.closerange(3, 200)
        if case.process:
            os.environ["MPLCONFIGDIR"] = str(folder.with_name("matplotlib"))
            command = [sys.executable, "-m", "raysslprune", *case.arguments]
            os.execv(sys.executable, [argument.encode("utf-8", "surrogateescape") for argument in command])
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        if case.restricted:
            _give_up_privileges()
        os._exit(_called(case.arguments))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(99)


def _give_up_privileges() -> None:
    """Permissions bind root, too, from here on. It stays the same user, whom the interpreter may belong to."""
    header = struct.pack("=Ii", CAPABILITY_VERSION, 0)
    if ctypes.CDLL(None).capset(header, bytes(24)):
        raise OSError("can't give up root's capabilities")


def _called(arguments: list[str]) -> int:
    """What the interpreter makes of a call of the command: the exit code."""
    from raysslprune import execution

    execution.Execution.train = lambda run, *_: len(run.schedule.waiting)  # pyright: ignore[reportAttributeAccessIssue]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.stdout = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), "utf-8", "strict")
    sys.stderr = io.TextIOWrapper(io.FileIO(2, "w", closefd=False), "utf-8", "backslashreplace", write_through=True)
    sys.argv = ["raysslprune", *arguments]
    try:
        code: Any = package.main(arguments)
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        traceback.print_exc()
        code = STOPPED if isinstance(error, KeyboardInterrupt) else FAILED
    if not isinstance(code, int):
        print(code if code is not None else "", end="", file=sys.stderr)
        code = 0 if code is None else FAILED
    try:
        sys.stdout.flush()
    except OSError as error:
        print(f"Exception ignored while flushing sys.stdout: {error}", file=sys.stderr)
        code = 120
    return code & 255


def _wait(child: int, begun: float, interrupt: float) -> int | None:
    """For its end. Gives its exit code, None if it had to be killed."""
    while time.monotonic() < begun + PATIENCE:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > begun + interrupt:
            os.kill(child, signal.SIGINT)
            interrupt = PATIENCE
        time.sleep(0.002)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def _left_in_session(session: int) -> list[str]:
    """Processes that it has left, which are ended."""
    left: list[str] = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(words[3]) == session and words[0] != "Z":
                    left.append((entry / "cmdline").read_text().replace("\0", " "))
                    os.kill(int(entry.name), signal.SIGKILL)
            except OSError:
                continue
    return left


def _faults(case: Case, ended: Ended) -> Iterator[str]:
    """What is wrong with how it ended."""
    lines = ended.err.splitlines()
    if ended.code is None:
        yield f"it did not end within {PATIENCE:.0f} s"
    elif ended.code not in (0, FAILED, USAGE, STOPPED):
        yield f"exit code {ended.code}"
    for words in ("Traceback (most recent", "internal error in raysslprune", "Exception ignored", "Warning: "):
        if words in ended.err + ended.out:
            yield f"it says {words!r}"
    if ended.code == USAGE and (len(lines) != 1 or not ended.err.startswith("raysslprune: ")):
        yield f"it is refused in {len(lines)} lines on stderr"
    silent = case.stdout == "closed" or "check" in case.arguments  # as by `| head`; it names broken images on stdout
    if ended.code == FAILED and not silent and not any(line.startswith("raysslprune: ") for line in lines):
        yield "it failed without a sentence"
    if ended.code == STOPPED and not case.files:
        yield "it was stopped by nobody"
    if case.interrupt < ENDLESS and ended.code != STOPPED:
        yield "Ctrl-C did not stop it"
    if any(not line.isprintable() for line in lines):
        yield "stderr has characters that steer a terminal"
    if max(map(len, lines), default=0) > 8000:
        yield "a sentence of more than 8,000 characters"
    if CANARY in ended.out + ended.err:
        yield "it tells what is in another's file"
    if ended.left:
        yield f"processes are left: {'; '.join(ended.left)}"


def _strays(case: Case, touched: Sequence[str], work: Path) -> Iterator[str]:
    """What was written where nothing named it."""
    may = [os.path.normpath(os.path.join("work", place)) for place in may_write(case)]
    may += [
        os.path.relpath(os.path.realpath(work / place), work.parent) for place in may_write(case) if place != "loop"
    ]
    for path in touched:
        if not any(path == place or path.startswith(f"{place}/") or place.startswith(f"{path}/") for place in may):
            yield f"{path} was written, changed or removed"


# ------------------------------------------------------------------------------------- all cases


PRELOADED = (
    "duckdb", "optuna", "torch", "torchvision", "onnx", "matplotlib.pyplot", "scipy.stats", "sklearn.svm", "PIL.Image",
    "rich.progress", "pyarrow.csv", "encodings.utf_32_be", "encodings.utf_16_be", "encodings.idna", "importlib.readers",
    "raysslprune.figures.curves", "raysslprune.plan.search", "raysslprune.training.runner", "raysslprune.models.conv4",
    "raysslprune.terminal.explain", "raysslprune.data.digits", "raysslprune.report.page", "raysslprune.release.card",
    "raysslprune.release.contents", "raysslprune.release.torch_prune", "raysslprune.tasks.labels",
)  # fmt: skip


def preload() -> None:
    """Import what the commands import when they need it, once for all of them."""
    package.tree()
    for name in PRELOADED:
        builtins.__import__(name)


def shown(case: Case) -> str:
    """For people."""
    words = ["raysslprune", *case.arguments]
    return " ".join(repr(word) if not re.fullmatch(r"[\w./=:-]+", word, re.A) else word for word in words)[:300]


def fuzz(cases: Sequence[int], seed: int, say: Callable[[str], None] = print, loud: bool = False) -> int:
    """Run these cases. Gives how many were not good."""
    preload()
    bad, codes, kinds = 0, Counter[str](), Counter[str]()
    begun = time.monotonic()
    slowest = (0.0, -1)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as base:
        (Path(base) / "template").mkdir()
        template = Template(Path(base) / "template")
        for done, number in enumerate(cases, 1):
            case = case_of(seed, number)
            folder = Path(base) / "case"
            folder.mkdir()
            since = time.monotonic()
            ended, faults = run(case, template, folder)
            slowest = max(slowest, (time.monotonic() - since, number))
            codes[str(ended.code)] += 1
            kinds[case.kind] += 1
            bad += bool(faults)
            if faults or loud:
                say(f"case {number}, {case.kind}: {shown(case)!a}")
                for fault in faults:
                    say(f"    {fault!a}")
                say(f"    exit code {ended.code}; stderr: {ended.err[-3000:]!a}; stdout: {ended.out[-300:]!a}")
                say(f"    again: python -m tests.tools.fuzz --seed {seed} --only {number}")
                if loud:
                    for name, data in case.files.items():
                        say(f"--- {name}\n{data}")
            subprocess.run(["chmod", "-R", "u+rwX", folder], check=True)
            shutil.rmtree(folder)
            if done % 100 == 0:
                say(f"{time.monotonic() - begun:5.0f} s: {done} cases, {bad} of them not good")
    for kind, count in sorted(kinds.items()):
        say(f"{count:6} {kind}")
    say(
        f"{len(cases)} cases in {time.monotonic() - begun:.0f} s, {bad} not good; exit codes: "
        f"{', '.join(f'{count} x {code}' for code, count in sorted(codes.items()))}; "
        f"slowest: {slowest[0]:.1f} s (case {slowest[1]})"
    )
    return bad


def main() -> int:
    parser = argparse.ArgumentParser(description="Bad command lines, sweep files and roots, by the thousand.")
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, nargs="+", metavar="N", help="these cases alone, with all that they say")
    parsed = parser.parse_args()
    numbers = parsed.only or range(parsed.cases)
    return 1 if fuzz(numbers, parsed.seed, loud=bool(parsed.only)) else 0


if __name__ == "__main__":
    sys.exit(main())
