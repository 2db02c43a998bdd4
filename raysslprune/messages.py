"""Print sentences for people on stderr; exit codes, and the defaults that several commands share."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import traceback
from contextlib import suppress

USAGE, FAILED, STOPPED = 2, 1, 130
"""Exit codes: a wrong call; a step, the store, the data or the cluster failed; Ctrl-C (see process.exit_code)."""

ROOT = "runs"
"""Default of ``--root``: where results live."""

SCALE = "laptop"
"""Default of ``--scale``: how large sweeps are."""

MAX_SEEDS = 1000
"""Upper limit for ``--seeds`` and ``--workers-per-step``."""

MAX_SENTENCE = 5_000
"""Upper limit for the characters of a sentence: more than a path can have."""


def say(sentence: str, code: int) -> int:
    """Print a sentence on stderr, as one line, without what could steer a terminal. Returns the code."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(sentence.split()))
    shown = line if len(line) <= MAX_SENTENCE else f"{line[:MAX_SENTENCE]}…"  # it may quote what somebody typed
    with suppress(OSError):  # a terminal that was closed; the exit code says the same
        print(f"raysslprune: {shown}", file=sys.stderr, flush=True)
    return code


def note(sentence: str) -> None:
    """Print a sentence on stderr that is worth knowing and no error."""
    say(sentence, 0)


def traceback_file() -> str:
    """Write the traceback of the exception in hand to a file. Returns the end of a sentence, which names the file."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="raysslprune-", suffix=".log", delete=False) as log:
            log.write(traceback.format_exc())
    except OSError:  # no room there, which may be what the error is about
        return ""
    return f"; details in {log.name}"


def without_stdout(code: int) -> int:
    """Send the rest of stdout nowhere, after its reader is gone or its disk full. Returns the code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def sweep_command(sweep: str, scale: str = SCALE, root: str = ROOT, seeds: int | None = None) -> str:
    """The command that makes the results of a sweep, as one types it. seeds: where they are not the scale's."""
    words = ["python", "-m", "raysslprune.sweep", sweep]
    words += ["--scale", scale] if scale != SCALE else []
    words += ["--seeds", str(seeds)] if seeds is not None else []
    words += ["--root", root] if root != ROOT else []
    return shlex.join(words)
