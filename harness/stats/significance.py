"""Tests and effect sizes of paired differences, and what several tests or looks do to an error rate."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from harness.stats.intervals import safe_mean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Alternative = Literal["two-sided", "greater", "less"]
MOST_EXACT = 16  # 65,536 sign patterns
MOST_KEPT = 64  # seeds: 32 MB
DRAWS, DRAWS_SEED = 2**16 - 1, 20260217
FEWEST_PAIRS = 5  # with fewer nobody is called better or worse


def sign_flip_p(differences: Sequence[float], threshold: float = 0.0, alternative: Alternative = "two-sided") -> float | None:
    """The p-value of a mean difference against `threshold`, from all ways to flip signs of difference - threshold.

    It assumes that they are symmetric about their centre, nothing else. Exact up to 16 differences, the smallest two-sided p
    then being 2 / 2**n: with 5 of them 0.0625. Beyond that from 65,535 drawn patterns and the observed one, always the same.
    None where a difference is infinite or NaN. Raises ValueError for no differences.
    Source: Fisher 1935, The Design of Experiments, section 21; Phipson and Smyth 2010, SAGMB 9, for the drawn ones.
    """
    if not differences:
        raise ValueError("sign_flip_p: no differences")
    # 0.92 - 0.90 - 0.02 is not 0 in floats, and flipping what is only rounding would be significant.
    shifted = [0.0 if math.isclose(d, threshold, rel_tol=1e-12) else d - threshold for d in differences]
    largest = max(abs(s) for s in shifted)
    if not math.isfinite(largest) or any(math.isnan(s) for s in shifted):
        return None
    if largest == 0.0:
        return 1.0
    import numpy as np

    scaled = np.array(shifted) / largest  # a sum of what diverged may overflow
    observed = scaled.sum()
    exact = len(scaled) <= MOST_EXACT
    if exact:
        sums = np.zeros(1)
        for value in scaled:
            sums = np.concatenate([sums + value, sums - value])
    else:
        n = len(scaled)
        patterns = kept_signs(n) if n <= MOST_KEPT else drawn_signs(n)
        sums = np.concatenate([signs @ scaled for signs in patterns])
    sums, observed = {"two-sided": (np.abs(sums), abs(observed)), "greater": (sums, observed), "less": (-sums, -observed)}[
        alternative
    ]
    # Patterns that give the same sum may differ in the last bits: they count as as extreme.
    as_extreme = int(np.count_nonzero(sums >= observed - 1e-12 * len(scaled)))
    return as_extreme / len(sums) if exact else (as_extreme + 1) / (DRAWS + 1)


def drawn_signs(n: int) -> Iterator[NDArray[np.int64]]:
    """DRAWS patterns of n signs, always the same, in parts."""
    import numpy as np

    generator = np.random.default_rng(DRAWS_SEED)
    return (generator.integers(0, 2, (rows, n)) * 2 - 1 for rows in chunks(n))


@lru_cache(maxsize=2)
def kept_signs(n: int) -> tuple[NDArray[np.float64], ...]:
    """The same, kept: a ledger asks for the same n some hundred times, and drawing them takes longer than the sums."""
    import numpy as np

    return tuple(signs.astype(np.float64) for signs in drawn_signs(n))


def chunks(n: int) -> list[int]:
    """DRAWS in parts of at most 4 million signs."""
    size = max(1, 2**22 // n)
    return [min(size, DRAWS - start) for start in range(0, DRAWS, size)]


def paired_t_p(differences: ArrayLike) -> NDArray[np.float64]:
    """Two-sided p-values of paired t tests, one for each row of differences; NaN in a row is a pair that is not there.

    p < 0.05 is the same as a 95 % `paired_interval` without 0, but for differences that are all equal: t has no meaning where
    nothing varies, and p is that of the sign flips, 2 / 2**n. 1 where there are fewer than two pairs, no difference at all, or
    differences too large for a float.
    """
    import numpy as np
    from scipy.special import stdtr

    rows = np.atleast_2d(np.asarray(differences, dtype=np.float64))
    missing = np.isnan(rows)
    filled = np.where(missing, 0.0, rows)
    found = rows.shape[1] - missing.sum(axis=1)
    largest = np.abs(filled).max(axis=1, initial=0.0)
    usable = (found >= 2) & (largest > 0) & np.isfinite(largest)
    n = np.maximum(found, 2)
    with np.errstate(invalid="ignore"):  # infinities, which are not usable
        scaled = filled / np.where(usable, largest, 1.0)[:, None]  # the squares of large ones overflow
        mean = scaled.sum(axis=1) / n
        away = scaled - mean[:, None]
        away[missing] = 0.0
        error = np.sqrt(np.einsum("ij,ij->i", away, away) / (n - 1) / n)
        equal = error <= 1e-9  # of the largest: 0.92 - 0.9 and 0.82 - 0.8 differ by what is only rounding
    t = np.divide(np.abs(mean), error, out=np.zeros_like(mean), where=~equal)
    p: NDArray[np.float64] = np.where(usable, np.where(equal, 2.0 ** (1 - n), 2 * stdtr(n - 1, -t)), 1.0)
    return p


def effect_size(differences: Sequence[float], threshold: float = 0.0) -> float | None:
    """Mean of the differences over their standard deviation, without unit, corrected for small n.

    Cohen's d for pairs (d_z) times Hedges' exact factor: 0.80 at n = 5, 0.92 at n = 11. None for fewer than 3 differences,
    where the factor has no value, where they do not vary, and where one is infinite or NaN.
    Source: Cohen 1988, chapter 2; Hedges 1981, Journal of Educational Statistics 6.
    """
    n = len(differences)
    if n < 3:
        return None
    mean = safe_mean(differences)
    sd = math.hypot(*[d - mean for d in differences]) / math.sqrt(n - 1)
    if sd == 0.0 or not math.isfinite(sd) or not math.isfinite(mean):
        return None
    df = n - 1
    factor = math.exp(math.lgamma(df / 2) - math.lgamma((df - 1) / 2)) / math.sqrt(df / 2)
    return factor * (mean - threshold) / sd


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """p-values of one family, in the same order, adjusted so that the chance of any false rejection stays at the level.

    Raises ValueError where one is not in [0, 1]. Source: Holm 1979, Scandinavian Journal of Statistics 6.
    """
    if wrong := [p for p in p_values if not 0 <= p <= 1]:
        raise ValueError(f"holm: got {wrong[0]!r}; a p-value lies in [0, 1]")
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for step, place in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        so_far = max(so_far, min(1.0, (len(p_values) - step) * p_values[place]))
        adjusted[place] = so_far
    return tuple(adjusted)


def looks(alpha: float = 0.05, extension: int = 0) -> tuple[float, float]:
    """The confidence of the interval at the first look, and at the second, which extends the seeds once where declared.

    Two looks at half of alpha each keep the chance of any false call within alpha (Bonferroni), whatever the first one showed.
    Without an extension there is one look, and it has all of alpha. Raises ValueError unless 0 < alpha < 1, extension from 0.
    """
    if not 0 < alpha < 1 or extension < 0:
        raise ValueError(f"looks: alpha {alpha!r}, extension {extension!r}; give 0 < alpha < 1 and extension from 0")
    confidence = 1 - (alpha / 2 if extension else alpha)
    return confidence, confidence
