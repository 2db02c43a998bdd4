"""Import Matplotlib, whatever backend the environment names."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def any_backend() -> Iterator[None]:
    """Import Matplotlib meanwhile, whatever the variable MPLBACKEND says.

    Matplotlib refuses to be imported while it names a backend that is not installed, as that of the notebook which
    started a command may not be. Nothing here needs a backend; one that is installed is still what pyplot then uses.
    """
    named = os.environ.get("MPLBACKEND", "")
    if not named or "matplotlib" in sys.modules:
        yield
        return
    del os.environ["MPLBACKEND"]
    try:
        yield
    finally:
        os.environ["MPLBACKEND"] = named
    with suppress(ValueError):
        sys.modules["matplotlib"].rcParams["backend"] = named
