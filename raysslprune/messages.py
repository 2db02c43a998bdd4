"""Messages for users, on stderr or as exceptions; exit codes, and default values that commands share."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress

USAGE, FAILED, STOPPED, NO_MACHINES = 2, 1, 130, 75
"""Exit codes: a wrong call; a step, the store, the data or the cluster failed; Ctrl-C (see process.exit_code); the
cluster had no machine for a long time (EX_TEMPFAIL: the same command may succeed later)."""

ROOT = "runs"
"""Default of ``--root``: the folder of the results."""

SCALE = "laptop"
"""Default of ``--scale``."""

MAX_SEEDS = 1000
"""Upper limit for ``--seeds`` and ``--workers-per-step``."""

MAX_SENTENCE = 5_000
"""Upper limit for the number of characters of a message; the longest path is shorter."""


class UserError(Exception):
    """An error that a user can do something about. Its text is the one sentence that a command prints.

    code: the exit code of the command, by default that of the class. Exceptions that pass news between processes, such
    as of a damaged file or a lost worker, are not UserErrors.
    """

    code = FAILED

    def __init__(self, sentence: str, *, code: int | None = None) -> None:
        super().__init__(sentence)
        if code is not None:
            self.code = code


def say(sentence: str, code: int) -> int:
    """Print a sentence on stderr, as one line, without characters that control a terminal. Returns the code."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(sentence.split()))
    shown = line if len(line) <= MAX_SENTENCE else f"{line[:MAX_SENTENCE]}…"  # it may quote a user's input
    with suppress(OSError):  # the terminal was closed; the exit code says the same
        print(f"raysslprune: {shown}", file=sys.stderr, flush=True)
    return code


def note(sentence: str) -> None:
    """Print a sentence on stderr that is not an error."""
    say(sentence, 0)


def traceback_file() -> str:
    """Write the traceback of the current exception to a file. Returns words that name the file; '' if that fails."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="raysslprune-", suffix=".log", delete=False) as log:
            log.write(traceback.format_exc())
    except OSError:  # the disk is full, which may be the error itself
        return ""
    return f"; details in {log.name}"


def without_stdout(code: int) -> int:
    """Discard the rest of stdout, after its reader has gone or its disk is full. Returns the code."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def seeds_in_words(seeds: int | Iterable[int]) -> str:
    """Write seeds as ``--seeds`` takes them: their number if they are the first ones, else as ``0,3,5-9``."""
    found = [*range(seeds)] if isinstance(seeds, int) else sorted(set(seeds))
    if found == [*range(len(found))]:
        return str(len(found))
    runs: list[list[int]] = []
    for seed in found:
        if runs and runs[-1][-1] == seed - 1:
            runs[-1].append(seed)
        else:
            runs.append([seed])
    if len(runs) == len(runs[0]) == 1:
        return f"{found[0]}-{found[0]}"
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def sweep_command(
    sweep: str | Sequence[str],
    scale: str | Sequence[str] = SCALE,
    root: str = ROOT,
    seeds: int | Iterable[int] | None = None,
    more: Sequence[str] = (),
) -> str:
    """Return the command that makes the results of a sweep, or of several, quoted for a shell.

    scale: its name, or the words that give it after ``--scale``. seeds: their number, or the seeds; None for the
    scale's own number. more: further words, at the end.
    """
    given = [scale] if isinstance(scale, str) else [*scale]
    words = ["python", "-m", "raysslprune.sweep", *([sweep] if isinstance(sweep, str) else sweep)]
    words += ["--scale", *given] if given != [SCALE] else []
    words += ["--seeds", seeds_in_words(seeds)] if seeds is not None else []
    words += ["--root", root] if root != ROOT else []
    return " ".join(map(_quoted, [*words, *more]))


def _quoted(word: str) -> str:
    """Quote a word for a shell: by double quotes if it has single ones, as ``--only "task == 'labels'"``."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)
