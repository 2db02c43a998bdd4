"""Figures from tables of results. Matplotlib is imported only here."""

import os
import sys
from contextlib import suppress

from raysslprune.environment import changed

_backend = "" if "matplotlib" in sys.modules else os.environ.get("MPLBACKEND", "")

# Matplotlib can't be imported while MPLBACKEND names a backend that is not installed, such as that of the notebook that
# started a command. Nothing here needs a backend; pyplot still uses the named one if it is installed.
with changed({"MPLBACKEND": None}):
    import matplotlib.figure

if _backend:
    with suppress(ValueError):
        matplotlib.rcParams["backend"] = _backend
