"""What the sweeps of a root found, as one HTML page that needs no network.

``contents`` says what stands on the page, as plain values taken from the store; ``page`` makes HTML of it.
"""
