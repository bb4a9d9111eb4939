"""Aggregates over several tasks: scores are arrays of runs x tasks, one array a method, higher is better, on a common scale.

A run is one seed on all tasks. These serve boards and pages, no verdict: a bootstrap of few runs promises too much.
Source: Agarwal et al. 2021, arXiv:2108.13264, whose definitions these are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

from harness.stats.intervals import Interval, ranks
from harness.stats.significance import FEWEST_PAIRS, paired_t_p

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

    Reals = NDArray[np.float64]
    Statistic = Callable[..., Any]

REPLICATIONS = 50_000
CHUNK = 2**21  # numbers held at once while replications are drawn: 16 MB an array


def iqm(scores: ArrayLike) -> float:
    """Interquartile mean of all runs and tasks together: a quarter, rounded down, of the scores is dropped at either end."""
    return float(trimmed(checked("iqm", scores)[None])[0])


def optimality_gap(scores: ArrayLike, target: float = 1.0) -> float:
    """By how much scores fall short of `target` on average; what exceeds it makes up for nothing. Lower is better."""
    return float(shortfall(checked("optimality_gap", scores)[None], target)[0])


def probability_of_improvement(x: ArrayLike, y: ArrayLike) -> float:
    """The chance that a run of x scores more than a run of y on the same task, ties counting half, averaged over the tasks.

    x, y: runs x tasks; the runs may differ in number, the tasks may not.
    """
    mine, theirs = checked("probability_of_improvement", x), checked("probability_of_improvement", y)
    same_tasks("probability_of_improvement", mine, theirs)
    return float(improvements(mine[None], theirs[None])[0])


def performance_profile(scores: ArrayLike, taus: ArrayLike) -> Reals:
    """The share of runs and tasks with a score above each tau; shape (taus,)."""
    import numpy as np

    shares: Reals = shares_above(checked("performance_profile", scores)[None], np.asarray(taus, dtype=np.float64))[0]
    return shares


def profile_band(
    scores: ArrayLike, taus: ArrayLike, *, seed: int, replications: int = 2_000, confidence: float = 0.95
) -> tuple[Reals, Reals] | None:
    """Low and high of the profile at each tau, each for itself, by stratified bootstrap; None with a single run."""
    import numpy as np

    points = np.asarray(taus, dtype=np.float64)
    drawn = bootstrap_distribution(lambda s: shares_above(s, points), scores, seed=seed, replications=replications)
    if drawn is None:
        return None
    return percentiles(drawn, confidence)


def stratified_bootstrap_interval(
    statistic: Callable[..., float],
    *scores: ArrayLike,
    seed: int,
    paired: bool = False,
    replications: int = REPLICATIONS,
    confidence: float = 0.95,
) -> Interval:
    """A statistic of one or two score arrays with its percentile interval; runs are drawn anew within each task.

    statistic: `iqm`, `optimality_gap` and `probability_of_improvement` are computed for many replications at once; any other
    function of the arrays is called for each. paired: run i of all arrays belongs together and is drawn together.
    seed: the same seed gives the same interval. n: runs (the fewest of the arrays); a single one gives no interval.
    At few runs it is too narrow: docs/statistics.md shows by how much.
    """
    arrays = all_checked("stratified_bootstrap_interval", scores)
    estimate, n = float(statistic(*arrays)), min(len(a) for a in arrays)
    many = MANY_AT_ONCE.get(statistic) or one_by_one(statistic)
    drawn = bootstrap_distribution(many, *arrays, seed=seed, paired=paired, replications=replications)
    if drawn is None:
        return Interval(estimate, None, None, n)
    low, high = percentiles(drawn, confidence)
    return Interval(estimate, float(low), float(high), n)


def bootstrap_distribution(
    statistic: Statistic, *scores: ArrayLike, seed: int, paired: bool = False, replications: int = REPLICATIONS
) -> Reals | None:
    """A statistic of `replications` stratified resamples, first axis replications; None where an array has a single run.

    statistic: takes arrays of replications x runs x tasks. Raises ValueError where paired arrays differ in shape.
    """
    import numpy as np

    arrays = all_checked("bootstrap_distribution", scores)
    if paired and len({a.shape for a in arrays}) > 1:
        raise ValueError(
            f"bootstrap_distribution: paired arrays of shapes {', '.join(str(a.shape) for a in arrays)}; give equal ones"
        )
    if min(len(a) for a in arrays) < 2:
        return None
    generator = np.random.default_rng(seed)
    # probability_of_improvement compares all runs with all: what it holds at once is a product.
    largest = max(a.size for a in arrays) * (max(len(a) for a in arrays) if len(arrays) > 1 else 1)
    size = max(1, CHUNK // largest)
    parts = []
    for start in range(0, replications, size):
        count = min(size, replications - start)
        drawn: NDArray[np.int64] | None = None
        resamples = []
        for array in arrays:
            if drawn is None or not paired:
                drawn = generator.integers(0, len(array), (count, *array.shape))
            resamples.append(array[drawn, np.arange(array.shape[1])])
        parts.append(np.asarray(statistic(*resamples), dtype=np.float64))
    return np.concatenate(parts)


def percentiles(drawn: Reals, confidence: float) -> tuple[Reals, Reals]:
    """Over the first axis, the middle `confidence` of what was drawn."""
    import numpy as np

    # Values that were drawn, not means of two: between a score and an infinite one there is no mean.
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2], axis=0, method="inverted_cdf")
    return low, high


def one_by_one(statistic: Callable[..., float]) -> Statistic:
    return lambda *resamples: [statistic(*arrays) for arrays in zip(*resamples, strict=True)]


def trimmed(scores: Reals) -> Reals:
    """Interquartile means of replications x runs x tasks; shape (replications,)."""
    import numpy as np

    flat = scores.reshape(len(scores), -1)
    n = flat.shape[1]
    k = n // 4
    if k:
        flat = np.partition(flat, (k, n - k - 1), axis=1)
    middle: Reals = flat[:, k : n - k].mean(axis=1)
    return middle


def shortfall(scores: Reals, target: float = 1.0) -> Reals:
    import numpy as np

    gaps: Reals = target - np.minimum(scores, target).mean(axis=(1, 2))
    return gaps


def improvements(x: Reals, y: Reals) -> Reals:
    import numpy as np

    mine, theirs = x[:, :, None, :], y[:, None, :, :]
    wins = np.count_nonzero(mine > theirs, axis=(1, 2, 3)) + np.count_nonzero(mine == theirs, axis=(1, 2, 3)) / 2
    shares: Reals = wins / (x.shape[1] * y.shape[1] * x.shape[2])
    return shares


def shares_above(scores: Reals, taus: Reals) -> Reals:
    """replications x taus."""
    import numpy as np

    flat = np.sort(scores.reshape(len(scores), -1), axis=1)
    below = [np.searchsorted(row, taus, side="right") for row in flat]
    above: Reals = 1 - np.asarray(below, dtype=np.float64) / flat.shape[1]
    return above


MANY_AT_ONCE: dict[Callable[..., float], Statistic] = {
    iqm: trimmed,
    optimality_gap: shortfall,
    probability_of_improvement: improvements,
}


def mean_ranks(values: Sequence[float], better: Literal["higher", "lower"] = "higher") -> list[float]:
    """The rank of each value, 1 for the best; ties share their mean rank. Raises ValueError for NaN."""
    if any(v != v for v in values):
        raise ValueError("mean_ranks: NaN among the values; it has no rank, count it as the metric's worst")
    return ranks([-v for v in values] if better == "higher" else values)


def beats(scores: ArrayLike, better: Literal["higher", "lower"] = "higher", level: float = 0.05) -> list[list[bool]]:
    """What `rank_ranges` takes: i beats j where the paired t test of the two says so, Holm-adjusted over all pairs of methods.

    scores: methods x seeds; NaN where a method has no score: two methods are compared over the seeds that both have,
    and below 5 of these nothing is said.
    """
    import numpy as np

    array = np.asarray(scores, dtype=np.float64)
    one, other = np.triu_indices(len(array), 1)
    p, signs = np.empty(len(one)), np.empty(len(one))
    size = max(1, CHUNK // max(1, array.shape[1]))
    for start in range(0, len(one), size):
        part = slice(start, start + size)
        with np.errstate(over="ignore", invalid="ignore"):
            differences = array[one[part]] - array[other[part]]
            p[part] = paired_t_p(differences)
            # Of values near the largest float the sum overflows, their shares of the largest do not.
            missing = np.isnan(differences)
            p[part][missing.sum(axis=1) > array.shape[1] - FEWEST_PAIRS] = 1.0
            differences[missing] = 0.0
            signs[part] = (differences / np.abs(differences).max(axis=1, initial=1e-300)[:, None]).sum(axis=1)
    # Holm's steps down: the smallest p against level / pairs, the next one against level / (pairs - 1), until one fails.
    ordered = np.argsort(p, kind="stable")
    passed = p[ordered] * np.arange(len(p), 0, -1) <= level
    clear = ordered[: len(p) if passed.all() else int(passed.argmin())]
    found = [[False] * len(array) for _ in array]
    for place in clear.tolist():
        first = (signs[place] > 0) == (better == "higher")
        i, j = int(one[place]), int(other[place])
        found[i if first else j][j if first else i] = True
    return found


def rank_ranges(beats: Sequence[Sequence[bool]]) -> list[tuple[int, int]]:
    """Best and worst rank that each of m methods can have; beats[i][j]: i is better than j beyond doubt.

    A method is placed behind another only where that one beats it: what nothing tells apart is tied. Raises ValueError unless
    beats is m x m and no two beat each other.
    """
    m = len(beats)
    if any(len(row) != m for row in beats):
        raise ValueError(f"rank_ranges: {m} rows of {', '.join(str(len(row)) for row in beats)}; give m x m")
    if clash := next(((i, j) for i, row in enumerate(beats) for j in range(i, m) if row[j] and beats[j][i]), None):
        raise ValueError(f"rank_ranges: methods {clash[0]} and {clash[1]} beat each other")
    return [(1 + sum(beaten), m - sum(row)) for row, beaten in zip(beats, zip(*beats, strict=True), strict=True)]


def checked(who: str, scores: ArrayLike) -> Reals:
    """Runs x tasks as floats. Raises ValueError for another shape, for none, and for NaN."""
    import numpy as np

    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{who}: scores of shape {array.shape}; give runs x tasks, at least one of each")
    if np.isnan(array).any():
        raise ValueError(f"{who}: NaN among the scores; count what failed as the task's worst score")
    return array


def all_checked(who: str, scores: Sequence[ArrayLike]) -> list[Reals]:
    if not scores:
        raise ValueError(f"{who}: no scores; give one array or two of runs x tasks")
    return [checked(who, s) for s in scores]


def same_tasks(who: str, x: Reals, y: Reals) -> None:
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"{who}: {x.shape[1]} against {y.shape[1]} tasks; give the same tasks in the same order")
