"""Wilcoxon's signed ranks of paired differences: the test and its interval, both exact. The sample of a verdict over tasks.

Nothing is asked of the differences but that they are symmetric about their centre: a task on which everything goes wrong weighs
one rank, however far off it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from harness.stats.intervals import Interval, in_order, ranks
from harness.stats.significance import Alternative

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Reals = NDArray[np.float64]

SAME = 12  # digits of the largest difference: 0.92 - 0.9 and 0.82 - 0.8 are a tie


def signed_rank_p(differences: Sequence[float], threshold: float = 0.0, alternative: Alternative = "two-sided") -> float | None:
    """The p-value of differences that are symmetric about `threshold`, by the ranks of |difference - threshold|.

    Exact also with ties, which share their mean rank: the distribution is that of flipping the signs of these very ranks.
    Differences of 0 are ranked and then count for neither side, so that many of them keep a few others from being significant.
    None where a difference is infinite or NaN. Raises ValueError for no differences.
    Source: Wilcoxon 1945, Biometrics Bulletin 1; Pratt 1959, JASA 54, for the zeros.
    """
    if not differences:
        raise ValueError("signed_rank_p: no differences")
    shifted = [0.0 if math.isclose(d, threshold, rel_tol=10**-SAME) else d - threshold for d in differences]
    largest = max(abs(s) for s in shifted)
    if not math.isfinite(largest) or any(map(math.isnan, shifted)):
        return None
    if largest == 0.0:
        return 1.0
    sizes = [round(abs(s) / largest, SAME) for s in shifted]
    doubled = [round(2 * rank) for rank in ranks(sizes)]  # whole: a mean of ranks is a multiple of a half
    sums = chances(tuple(rank for rank, s in zip(doubled, shifted, strict=True) if s))
    positive = sum(rank for rank, s in zip(doubled, shifted, strict=True) if s > 0)
    below, above = float(sums[: positive + 1].sum()), float(sums[positive:].sum())
    p = {"two-sided": 2 * min(below, above), "greater": above, "less": below}[alternative]
    return min(1.0, p)


def signed_rank_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The pseudomedian (the median of the means of all pairs, each value with itself too) with its exact interval.

    The ends are two of these means in order, as the signed-rank test would not reject them; they belong to the interval, whose
    coverage is then at least `confidence` with ties too. Below 6 values there is no 95 % interval. Raises ValueError for no
    values, and for NaN.
    Source: Hodges and Lehmann 1963, Annals of Mathematical Statistics 34; Tukey 1949 for the interval.
    """
    import numpy as np

    ordered = np.array(in_order("signed_rank_interval", values))
    n = len(ordered)
    with np.errstate(invalid="ignore"):  # infinity less infinity: no mean, and no interval
        sums = ordered[:, None] / 2 + ordered / 2  # halves first: the sum may overflow
    means = np.sort(sums[np.triu_indices(n)])
    k = critical_place(n, confidence)
    middle = float(np.median(means))
    return Interval(middle, float(means[k - 1]), float(means[-k]), n) if k else Interval(middle, None, None, n)


@cache
def critical_place(n: int, confidence: float) -> int:
    """The largest k with P(signed-rank sum < k) <= (1 - confidence) / 2, of n untied differences; 0 where there is none."""
    import numpy as np

    return int(np.count_nonzero(np.cumsum(chances(tuple(range(1, n + 1)))) <= (1 - confidence) / 2 * (1 + 1e-12)))


@cache
def chances(weights: tuple[int, ...]) -> Reals:
    """Of each sum from 0 on: the chance that a random part of the weights has it, each taken with 1/2."""
    import numpy as np

    found = np.zeros(sum(weights) + 1)
    found[0] = 1.0
    for weight in weights:
        taken = found.copy()
        taken[weight:] += found[: len(found) - weight]
        found = taken / 2
    return found
