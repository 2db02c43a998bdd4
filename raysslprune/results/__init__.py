"""Results of sweeps: one typed Arrow table for each, SQL over all tables of a root, and export to files.

``load`` and ``query`` read what sweeps wrote; ``raysslprune results`` is the same from the shell.
"""

from raysslprune.results.sql import QueryError, load, query
from raysslprune.results.steps import STEPS, steps
from raysslprune.results.tables import (
    DESIGN,
    MAGNITUDES,
    MEANS,
    PROVENANCE,
    SCHEMA,
    from_parquet,
    left_out,
    listing,
    magnitudes,
    means,
    provenance,
    pruned_percent,
    stored_looks,
    stored_rows,
    summary,
    table,
    to_parquet,
    unmeasured,
)

__all__ = [
    "DESIGN",
    "MAGNITUDES",
    "MEANS",
    "PROVENANCE",
    "SCHEMA",
    "STEPS",
    "QueryError",
    "from_parquet",
    "left_out",
    "listing",
    "load",
    "magnitudes",
    "means",
    "provenance",
    "pruned_percent",
    "query",
    "steps",
    "stored_looks",
    "stored_rows",
    "summary",
    "table",
    "to_parquet",
    "unmeasured",
]
