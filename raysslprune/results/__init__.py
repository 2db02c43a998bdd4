"""What came out: one typed Arrow table a sweep, SQL over all of a root's, and files for other programs.

``load`` and ``query`` read what sweeps wrote; ``raysslprune results`` is the same from the shell.
"""

from raysslprune.results.sql import QueryError, load, query
from raysslprune.results.tables import (
    KEYS,
    MAGNITUDES,
    MEANS,
    PROVENANCE,
    RANKS,
    SCHEMA,
    from_parquet,
    listing,
    magnitudes,
    means,
    provenance,
    pruned_percent,
    stored_rows,
    summary,
    table,
    to_parquet,
    unmeasured,
)

__all__ = [
    "KEYS",
    "MAGNITUDES",
    "MEANS",
    "PROVENANCE",
    "RANKS",
    "SCHEMA",
    "QueryError",
    "from_parquet",
    "listing",
    "load",
    "magnitudes",
    "means",
    "provenance",
    "pruned_percent",
    "query",
    "stored_rows",
    "summary",
    "table",
    "to_parquet",
    "unmeasured",
]
