"""The commands of ``raysslprune``, a module each."""
