"""Figures. Matplotlib is imported only here, and whatever backend the environment names."""

from raysslprune.figures.backend import any_backend

with any_backend():
    import matplotlib.figure  # noqa: F401
