"""Intervals on arrays: pure functions. scipy.special is imported on first use; scipy.stats, which costs a second, never."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval; low and high are None where n is too small to give one."""

    mean: float
    low: float | None
    high: float | None
    n: int


def t_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean. Raises ValueError for no values; fewer than two give no interval."""
    n = len(values)
    if not n:
        raise ValueError("t_interval: no values")
    mean = safe_mean(values)
    if n < 2:
        return Interval(mean, None, None, n)
    sd = math.hypot(*[v - mean for v in values]) / math.sqrt(n - 1)  # hypot: the squares of what diverged overflow
    half = t_quantile(0.5 + confidence / 2, n - 1) * sd / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def safe_mean(values: Sequence[float]) -> float:
    """The mean; infinite or NaN, not an error, where the sum of what diverged is too large for a float."""
    try:
        return math.fsum(values) / len(values)
    except (OverflowError, ValueError):  # beyond 1e308; or an infinity of either sign
        return sum(v / len(values) for v in values)


@cache  # boards ask for the same few again and again
def t_quantile(p: float, df: int) -> float:
    """The p-quantile of Student's t with df degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, p))


def paired_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean of a - b, pair by pair. Raises ValueError where the lengths differ."""
    if len(a) != len(b):
        raise ValueError(f"paired_interval: {len(a)} against {len(b)} values; pairs need both")
    return t_interval([x - y for x, y in zip(a, b, strict=True)], confidence)
