"""Kolmogorov-Arnold layers, the room that the KAN papers share. Declarations only: splines.py and layers.py import torch."""
