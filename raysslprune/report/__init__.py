"""A report on the sweeps of a root: one HTML page that needs no network.

``contents`` reads the contents of the page from the store, as plain values; ``page`` makes HTML of them, and
``drawing`` of the figures.
"""
