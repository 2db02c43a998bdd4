"""Figures. Matplotlib is imported only here."""
