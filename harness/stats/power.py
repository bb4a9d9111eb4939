"""How likely a difference is found with so many seeds, and how many seeds find it."""

from __future__ import annotations

import math
from functools import cache

from harness.stats.intervals import t_quantile

MOST_SEEDS = 10_000


def power_of_paired_t(effect: float, sd: float, n: int, alpha: float = 0.05) -> float | None:
    """The chance that the two-sided paired t test at `alpha` rejects, where the true mean difference is `effect`.

    sd: standard deviation of the differences, in the unit of effect. Exact for normal differences, by the noncentral t. Fewer
    than two pairs have no test, so no power: 0. Differences that do not vary: 1, or alpha without an effect. None where a
    number is not finite. Raises ValueError for a negative sd, and unless 0 < alpha < 1. Source: Cohen 1988, chapter 2.
    """
    if not 0 < alpha < 1 or sd < 0:
        raise ValueError(f"power_of_paired_t: alpha {alpha!r}, sd {sd!r}; give 0 < alpha < 1 and sd from 0")
    if not (math.isfinite(effect) and math.isfinite(sd)):
        return None
    if n < 2:
        return 0.0
    if effect == 0.0:
        return alpha
    if sd == 0.0:
        return 1.0
    df, shift = n - 1, abs(effect) / sd * math.sqrt(n)
    limit = t_quantile(1 - alpha / 2, df)
    return min(1.0, 1 - noncentral_t_below(limit, df, shift) + noncentral_t_below(-limit, df, shift))


def noncentral_t_below(t: float, df: int, shift: float) -> float:
    """P(T < t) for the noncentral t with df degrees of freedom; shift: mean over standard error, from 0."""
    from scipy.special import nctdtr

    found = float(nctdtr(df, shift, t))
    # scipy's function gives NaN where the probability is too small for it, from about 1e-13 on below 0; a test holds this.
    return 0.0 if math.isnan(found) else found


def seeds_needed(effect: float, sd: float, power: float = 0.8, alpha: float = 0.05, most: int = MOST_SEEDS) -> int | None:
    """The fewest pairs with which the two-sided paired t test at `alpha` finds `effect` with at least this power.

    effect, sd: of the differences, in one unit. None where `most` pairs do not reach it, as without an effect or where a number
    is not finite. Raises ValueError for a negative sd, and unless alpha < power < 1.
    """
    if not alpha < power < 1:
        raise ValueError(f"seeds_needed: power {power!r}; it lies between alpha ({alpha!r}) and 1")
    if effect == 0.0 or (power_of_paired_t(effect, sd, most, alpha) or 0.0) < power:
        return None
    low, high = 1, most  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        if (power_of_paired_t(effect, sd, middle, alpha) or 0.0) >= power:
            high = middle
        else:
            low = middle
    return high


def detectable_effect(sd: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """The mean difference that the two-sided paired t test at `alpha` finds with this power, from n pairs of this spread.

    None for fewer than two pairs, and where sd is not finite. Raises ValueError for a negative sd, unless alpha < power < 1.
    """
    if not alpha < power < 1 or sd < 0:
        raise ValueError(f"detectable_effect: power {power!r}, sd {sd!r}; give alpha ({alpha!r}) < power < 1 and sd from 0")
    if n < 2 or not math.isfinite(sd):
        return None
    return sd * standardised(n, power, alpha)


@cache
def standardised(n: int, power: float, alpha: float) -> float:
    """The same in standard deviations, by bisection to 12 digits."""
    low, high = 0.0, 1.0
    while (power_of_paired_t(high, 1.0, n, alpha) or 0.0) < power:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if (power_of_paired_t(middle, 1.0, n, alpha) or 0.0) >= power else (middle, high)
    return high


# Shares ---------------------------------------------------------------------------------------------------------------


def power_of_share(share: float, limit: float, n: int, alpha: float = 0.05) -> float:
    """The chance that the exact two-sided interval of a share, from n seeds, lies above `limit`, where the truth is `share`.

    Raises ValueError unless 0 <= limit, share <= 1, and 0 < alpha < 1.
    """
    if not (0 <= limit <= 1 and 0 <= share <= 1 and 0 < alpha < 1):
        raise ValueError(f"power_of_share: share {share!r}, limit {limit!r}, alpha {alpha!r}; give shares of 1, 0 < alpha < 1")
    import numpy as np
    from scipy.special import bdtrc

    # Clopper and Pearson's lower end is above `limit` where so many successes or more have a chance of alpha / 2 at most.
    enough = np.flatnonzero(bdtrc(np.arange(n), n, limit) <= alpha / 2)
    return float(bdtrc(enough[0], n, share)) if enough.size else 0.0


@cache
def seeds_needed_for_share(
    share: float, limit: float, power: float = 0.8, alpha: float = 0.05, most: int = 1_000
) -> int | None:
    """The fewest seeds that reach this power; with a few more it may fall a little below, for it rises in steps.

    None where `most` seeds do not reach it. Raises ValueError as power_of_share does.
    """
    return next((n for n in range(1, most + 1) if power_of_share(share, limit, n, alpha) >= power), None)
