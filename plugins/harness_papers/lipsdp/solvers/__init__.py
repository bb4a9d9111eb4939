"""Solvers of the semidefinite programs. What they return is checked by `verify`, which imports nothing from here."""
