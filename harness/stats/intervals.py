"""Intervals of one number: mean, difference of means, median, interquartile mean, share, correlation.

Each takes values in the unit of its metric and gives an `Interval` in that unit. Where what diverged is among them, infinite or
NaN, the interval is so too, and nothing raises but what needs an order, in which NaN has no place.
"""

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
def t_quantile(p: float, df: float) -> float:
    """The p-quantile of Student's t with df degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, p))


def paired_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's t interval of the mean of a - b, pair by pair. Raises ValueError where the lengths differ."""
    if len(a) != len(b):
        raise ValueError(f"paired_interval: {len(a)} against {len(b)} values; pairs need both")
    return t_interval([x - y for x, y in zip(a, b, strict=True)], confidence)


def welch_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Welch's interval of mean(a) - mean(b), for values that are not paired and need not vary alike.

    n: values of both sides together. A single value on either side gives no interval; none raises ValueError.
    Source: Welch 1947, Biometrika 34, with Satterthwaite's degrees of freedom, not rounded.
    """
    if not a or not b:
        raise ValueError(f"welch_interval: {len(a)} against {len(b)} values; each side needs one")
    n, means = len(a) + len(b), (safe_mean(a), safe_mean(b))
    difference = means[0] - means[1]
    if min(len(a), len(b)) < 2:
        return Interval(difference, None, None, n)
    # Standard errors, not variances: the squares of what diverged overflow.
    errors = [
        math.hypot(*[v - m for v in side]) / math.sqrt((len(side) - 1) * len(side))
        for side, m in zip((a, b), means, strict=True)
    ]
    total = math.hypot(*errors)
    if total == 0.0:
        return Interval(difference, difference, difference, n)
    if not math.isfinite(total):
        return Interval(difference, difference - total, difference + total, n)
    df = 1 / math.fsum((e / total) ** 4 / (len(side) - 1) for e, side in zip(errors, (a, b), strict=True))
    half = t_quantile(0.5 + confidence / 2, df) * total
    return Interval(difference, difference - half, difference + half, n)


def median_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The median with its interval between two order statistics, x_(r) and x_(n-r+1).

    No distribution is assumed. Coverage is at least `confidence`, often more: with 10 values 97.9 %. Below 6 values there is no
    95 % interval. Raises ValueError for no values, and for NaN.
    """
    ordered = in_order("median_interval", values)
    n = len(ordered)
    middle = ordered[n // 2] if n % 2 else ordered[n // 2 - 1] / 2 + ordered[n // 2] / 2  # halves first: the sum may overflow
    r = median_rank(n, confidence)
    return Interval(middle, ordered[r - 1], ordered[n - r], n) if r else Interval(middle, None, None, n)


@cache
def median_rank(n: int, confidence: float) -> int:
    """The largest r with P(Binomial(n, 1/2) < r) <= (1 - confidence) / 2; 0 where there is none. Exact, in whole numbers."""
    tail, term, r = 0, 1, 0
    while (tail + term) / 2**n <= (1 - confidence) / 2:
        tail += term
        term = term * (n - r) // (r + 1)
        r += 1
    return r


def iqm_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The interquartile mean of one sample with the t interval of a trimmed mean.

    floor(n / 4) values are dropped at either end, h are left; the variance is that of the winsorised values, with h - 1 degrees
    of freedom. Fewer than two values give no interval; none, or a NaN among them, raises ValueError.
    Source: Tukey and McLaughlin 1963, Sankhya A 25; the same as one side of Yuen 1974, Biometrika 61.
    """
    ordered = in_order("iqm_interval", values)
    n = len(ordered)
    g = n // 4
    kept = ordered[g : n - g]
    mean, h = safe_mean(kept), len(kept)
    if n < 2:
        return Interval(mean, None, None, n)
    winsorised = [kept[0]] * g + kept + [kept[-1]] * g
    centre = safe_mean(winsorised)
    error = math.hypot(*[v - centre for v in winsorised]) / math.sqrt(h * (h - 1))
    half = t_quantile(0.5 + confidence / 2, h - 1) * error
    return Interval(mean, mean - half, mean + half, n)


def in_order(who: str, values: Sequence[float]) -> list[float]:
    if not values:
        raise ValueError(f"{who}: no values")
    if any(math.isnan(v) for v in values):
        raise ValueError(f"{who}: NaN among the values; it has no place in an order, count it as the metric's worst")
    return sorted(values)


def binomial_interval(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """The exact interval of a share, of n trials: coverage is at least `confidence` whatever the share.

    Raises ValueError unless 0 <= successes <= n and n >= 1. Source: Clopper and Pearson 1934, Biometrika 26.
    """
    if not (n >= 1 and 0 <= successes <= n):
        raise ValueError(f"binomial_interval: {successes} successes of {n}; give 0 <= successes <= n, n from 1")
    from scipy.special import betaincinv

    tail = (1 - confidence) / 2
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return Interval(successes / n, low, high, n)


def correlation_interval(a: Sequence[float], b: Sequence[float], confidence: float = 0.95) -> Interval:
    """Spearman's rank correlation with its interval: Fisher's z with the variance (1 + r**2 / 2) / (n - 3).

    A perfect correlation would give an interval without width: its open end is then taken from the nearest value that n ranks
    can have otherwise (two neighbours exchanged). Fewer than 5 pairs give no interval. Where one side does not vary there is no
    correlation: the estimate is NaN. Raises ValueError for unequal lengths, no pairs, and NaN.
    Source: Bonett and Wright 2000, Psychometrika 65.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"correlation_interval: {len(a)} against {len(b)} values; give at least one pair, and both of each")
    n = len(a)
    if any(math.isnan(v) for v in (*a, *b)):
        raise ValueError("correlation_interval: NaN among the values; it has no rank, count it as the metric's worst")
    r = pearson(ranks(a), ranks(b))
    if n < 5 or math.isnan(r):
        return Interval(r, None, None, n)
    inner = 1 - 12 / (n * (n * n - 1))
    within = max(-inner, min(inner, r))
    z, half = math.atanh(within), normal_quantile(confidence) * math.sqrt((1 + within**2 / 2) / (n - 3))
    low, high = math.tanh(z - half), math.tanh(z + half)
    return Interval(r, -1.0 if r <= -inner else low, 1.0 if r >= inner else high, n)


@cache
def normal_quantile(confidence: float) -> float:
    """How many standard deviations of a normal distribution hold `confidence` of it."""
    from scipy.special import ndtri

    return float(ndtri(0.5 + confidence / 2))


def ranks(values: Sequence[float]) -> list[float]:
    """From 1 for the smallest; ties share their mean rank."""
    places: dict[float, list[int]] = {}
    for place, value in enumerate(sorted(values), 1):
        places.setdefault(value, []).append(place)
    return [(places[v][0] + places[v][-1]) / 2 for v in values]


def pearson(a: Sequence[float], b: Sequence[float]) -> float:
    """NaN where one side does not vary."""
    mean_a, mean_b = safe_mean(a), safe_mean(b)
    spread = math.hypot(*[x - mean_a for x in a]) * math.hypot(*[y - mean_b for y in b])
    if spread == 0.0:
        return math.nan
    return max(-1.0, min(1.0, math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True)) / spread))
