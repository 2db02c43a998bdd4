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
"""Where results live, unless another place is named."""

SCALE = "laptop"
"""How large sweeps are, unless another scale is named."""

MAX_SEEDS = 1000
"""At most; and workers of a training."""

MAX_SENTENCE = 5_000
"""Characters of a sentence: more than a path can have."""


def say(sentence: str, code: int) -> int:
    """Tell it on stderr, as one line, with nothing in it that could steer a terminal. Returns the code."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(sentence.split()))
    shown = line if len(line) <= MAX_SENTENCE else f"{line[:MAX_SENTENCE]}…"  # it may quote what somebody typed
    with suppress(OSError):  # a terminal that was closed; the exit code says the same
        print(f"raysslprune: {shown}", file=sys.stderr, flush=True)
    return code


def note(sentence: str) -> None:
    """Tell what one should know, on stderr."""
    say(sentence, 0)


def traceback_file() -> str:
    """Write the traceback of the error that is being handled to a file; gives the end of a sentence that names it."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="raysslprune-", suffix=".log", delete=False) as log:
            log.write(traceback.format_exc())
    except OSError:  # no room there, which may be what the error is about
        return ""
    return f"; details in {log.name}"


def without_stdout(code: int) -> int:
    """When what reads it is gone, or it is full, what is left must not be written at the exit. Returns the code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def sweep_command(sweep: str, scale: str = SCALE, root: str = ROOT, seeds: int | None = None) -> str:
    """What makes the results of a sweep, as it is typed. seeds: where these are not the scale's."""
    words = ["python", "-m", "raysslprune.sweep", sweep]
    words += ["--scale", scale] if scale != SCALE else []
    words += ["--seeds", str(seeds)] if seeds is not None else []
    words += ["--root", root] if root != ROOT else []
    return shlex.join(words)
