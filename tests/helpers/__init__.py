"""What tests share; fixtures are in the conftest.py of the folder that they are for."""

from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
