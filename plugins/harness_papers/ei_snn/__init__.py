"""Spiking nets without normalisation: excitatory and inhibitory units in each layer. Declarations only."""

from __future__ import annotations

ARXIV = "https://arxiv.org/abs/2509.23253v3"
