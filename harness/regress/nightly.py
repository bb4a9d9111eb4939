"""The rule of the night: the last night against the nights before it. Pure functions on arrays; nothing is read here.

The last value is held against the median of the nights before, in units of their own robust scale and of the machine's noise
floor; both must call it unlikely. One-sided, for the bad direction; Holm over all series of the suite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Reals = NDArray[np.float64]

# Holm at this level: once in 50 quiet nights something of the suite is called. The promise is once in 30.
LEVEL = 0.02
LEAST_NIGHTS = 5
WINDOW_NIGHTS = 30
# Makes the k-th smallest distance the standard deviation of a normal sample (Croux and Rousseeuw 1992, Qn), for small n by
# their table, then n / (n + 1.4) for odd and n / (n + 3.8) for even n.
CONSISTENT = 2.2219
SMALL_SAMPLE = {2: 0.399, 3: 0.994, 4: 0.512, 5: 0.844, 6: 0.611, 7: 0.857, 8: 0.669, 9: 0.872}
WORST_SHARE, WORST_AT = 0.9, 1.2816  # 90 % of normal values lie below 1.2816 standard deviations


@dataclass(frozen=True)
class Night:
    """What the rule says of one series. change: of the last value, in the bad direction, relative to the median before."""

    p: float
    change: float
    before: float


def night_p(previous: Reals, last: Reals, noise_floor: float, of: Reals | None = None) -> Reals:
    """How likely a quiet night is at least so bad, for series whose larger values are worse.

    previous: (..., nights), last: (...). noise_floor: relative standard deviation of one night that the machine has anyway;
    of: relative to what, the absolute median unless given. Two tests, each must reject: the distance from the median in
    robust standard deviations of these nights, by Student's t, since that scale is known from few nights only; and the
    distance in noise floors, by the normal distribution.
    """
    import numpy as np
    from scipy.special import ndtr, stdtr

    n = previous.shape[-1]
    centre = np.median(previous, axis=-1)
    # The last value varies, and so does the median that it is compared with: by pi / 2n of its variance.
    widened = math.sqrt(1 + math.pi / (2 * n))
    excess = (last - centre) / widened
    floor = noise_floor * (np.abs(centre) if of is None else of)
    own = np.maximum(robust_sd(previous), worse_side(previous))
    by_nights = stdtr(degrees_of_freedom(n), -over(excess, own))
    by_floor = ndtr(-over(excess, floor))
    found: Reals = np.maximum(by_nights, by_floor)
    return found


def over(excess: Reals, scale: Reals) -> Reals:
    """excess / scale; where nothing varies, any excess is infinitely many scales, and none is none."""
    import numpy as np

    safe = np.where(scale > 0, scale, 1.0)
    return np.where(scale > 0, excess / safe, np.where(excess > 0, np.inf, np.where(excess < 0, -np.inf, 0.0)))


def robust_sd(values: Reals) -> Reals:
    """Qn: a quantile of all distances between two nights. Half of the nights may be outliers; at 30 normal ones it wastes
    a quarter of them, where the median absolute deviation wastes two thirds."""
    import numpy as np

    n = values.shape[-1]
    first, second = np.triu_indices(n, 1)
    distances = np.abs(values[..., first] - values[..., second])
    half = n // 2 + 1
    k = half * (half - 1) // 2 - 1
    consistent = SMALL_SAMPLE.get(n, n / (n + 1.4) if n % 2 else n / (n + 3.8))
    found: Reals = CONSISTENT * consistent * np.partition(distances, k, axis=-1)[..., k]
    return found


def worse_side(values: Reals) -> Reals:
    """The standard deviation of the normal distribution that reaches as far above its median as these do in a tenth of nights.

    Times that have two levels (where code or data happen to lie) are mostly on one of them: Qn sees that one's width only.
    """
    import numpy as np

    middle, high = np.quantile(values, [0.5, WORST_SHARE], axis=-1)
    found: Reals = (high - middle) / WORST_AT
    return found


def degrees_of_freedom(n: int) -> float:
    """Of the t distribution that the last night's distance in `robust_sd` follows, from n nights before it.

    Fitted to its tail at p = 0.0005 in 300,000 and more normal samples each of n = 5 (2.1), 6 (3.4), 8 (4.8), 10 (6.3),
    15 (9.3), 20 (13.8), 30 (21.7).
    """
    return 1.45 * (n // 2 + 1) - 2.4


def seeds_p(differences: Sequence[float]) -> float:
    """One-sided p of Student's t that these differences, seed by seed, have mean 0 or below. One seed says nothing: 0.

    What is bit-equal night after night has no scale of its own; but change the order of two additions, and each seed falls
    elsewhere. By the seeds' own spread that is no regression.
    """
    import numpy as np
    from scipy.special import stdtr

    n = len(differences)
    if n < 2:
        return 0.0
    found = np.asarray(differences, dtype=np.float64)
    error = found.std(ddof=1) / math.sqrt(n)
    return float(stdtr(n - 1, -over(found.mean(), error)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values: rejecting those at or below a level keeps the chance of any false one at or below it."""
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[at]))
        adjusted[at] = largest
    return adjusted


def judge_night(
    values: Sequence[float], better: str, noise_floor: float, window: int = WINDOW_NIGHTS, by_seed: Any = None
) -> Night:
    """The last of these values against at most `window` before it.

    by_seed: for quality, the same as (nights, seeds); then the seeds must say it too. With fewer than LEAST_NIGHTS before it
    there is nothing to judge by: p is 1.
    """
    import numpy as np

    if len(values) <= LEAST_NIGHTS:
        return Night(1.0, 0.0, values[-1])
    worse = -1.0 if better == "higher" else 1.0
    recent = worse * np.asarray(values[-window - 1 :], dtype=np.float64)
    centre = float(np.median(recent[:-1]))
    p = float(night_p(recent[:-1], recent[-1], noise_floor))
    if by_seed is not None:
        seeds = worse * np.asarray(by_seed, dtype=np.float64)[-window - 1 :]
        p = max(p, seeds_p(seeds[-1] - np.median(seeds[:-1], axis=0)))
    excess = float(recent[-1]) - centre
    change = excess / abs(centre) if centre else math.copysign(math.inf, excess) if excess else 0.0
    return Night(p, change, worse * centre)
