"""What layers cost by the formulas of the fairer comparison (KANbeFair, arXiv:2407.16674), layer by layer. Imports no torch.

They count a KAN as pykan computes it, every basis by recursion on every edge, and its numbers that are not trained, so they
differ from what `match` counts: trained numbers and the operations that run here. The paper's own version may count otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

# Of an activation, an element.
ACTIVATION_FLOPS = {"identity": 0, "relu": 1, "silu": 5, "tanh": 6, "gelu": 14}


def kan_params(widths: Sequence[int], grid: int, order: int, *, shortcut: bool = True) -> int:
    """Of KAN layers between `widths`: d d' (G + k + 2) + d', and d d' more with the shortcut."""
    each = grid + order + 2 + shortcut
    return sum(before * after * each + after for before, after in pairwise(widths))


def kan_flops(widths: Sequence[int], grid: int, order: int, shortcut: str | None = "silu") -> float:
    """Of one item: d d' (9 k (G + 1.5 k) + 2 G - 2.5 k + 1), and 2 d d' + c d for a shortcut of c FLOPs an element."""
    edge = 9 * order * (grid + 1.5 * order) + 2 * grid - 2.5 * order + 1
    through = 0.0
    for before, after in pairwise(widths):
        through += before * after * edge
        through += 0 if shortcut is None else 2 * before * after + ACTIVATION_FLOPS[shortcut] * before
    return through


def mlp_params(widths: Sequence[int]) -> int:
    """d d' + d'."""
    return sum(before * after + after for before, after in pairwise(widths))


def mlp_flops(widths: Sequence[int], activation: str = "relu") -> float:
    """Of one item: 2 d d' + c d', also behind the last layer, as there."""
    return float(sum(2 * before * after + ACTIVATION_FLOPS[activation] * after for before, after in pairwise(widths)))
