"""The commands of ``raysslprune``, one module each."""
