"""Figures from tables of results. Matplotlib is imported only here."""

from raysslprune.figures.backend import any_backend

with any_backend():
    import matplotlib.figure  # noqa: F401
