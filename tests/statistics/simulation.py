"""Draws many worlds whose truth is known, asks `harness.stats` about each, and counts how often it is right.

A world gives differences of two methods, one a seed, with mean 0. Every figure has its own random stream, named after it:
adding one changes no other, and the same names give the same counts.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from harness.stats import (
    Interval,
    binomial_interval,
    bootstrap_distribution,
    correlation_interval,
    holm,
    iqm,
    iqm_interval,
    looks,
    median_interval,
    paired_interval,
    probability_of_improvement,
    sign_flip_p,
    signed_rank_interval,
    stratified_bootstrap_interval,
    t_interval,
    welch_interval,
)

Reals = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, ...]], Reals]


@dataclass(frozen=True)
class Size:
    """Worlds drawn for a figure. samples: for an interval in closed form; few: where each is permuted or resampled."""

    samples: int
    few: int


FULL = Size(samples=20_000, few=4_000)
QUICK = Size(samples=4_000, few=400)


@dataclass(frozen=True)
class Rate:
    count: int
    of: int

    @property
    def value(self) -> float:
        return self.count / self.of

    def allows(self, truth: float, confidence: float = 0.999) -> bool:
        """Whether so many of so many may well come from a chance of `truth`; not 99 %, since dozens of rates are looked at."""
        limits = binomial_interval(self.count, self.of, confidence)
        return limits.low <= truth <= limits.high

    def at_most(self, truth: float) -> bool:
        """Whether nothing (99.9 %) says that the chance is above `truth`."""
        return binomial_interval(self.count, self.of, 0.998).low <= truth


def stream(*names: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(names).encode()))


def tell(answers: Sequence[bool]) -> Rate:
    return Rate(sum(answers), len(answers))


def covers(interval: Interval, truth: float) -> bool:
    return interval.low is not None and interval.high is not None and interval.low <= truth <= interval.high


def excludes_zero(interval: Interval) -> bool:
    return interval.low is not None and interval.high is not None and (interval.low > 0 or interval.high < 0)


# One number of one method, one a seed, without what the seed does to both.
METHODS: dict[str, Draw] = {
    "normal": lambda g, shape: g.normal(size=shape),
    "heavy tails (t, 3 df)": lambda g, shape: g.standard_t(3, size=shape),
    "skewed (exponential)": lambda g, shape: g.exponential(size=shape),
    "accuracy on 360 items": lambda g, shape: g.binomial(360, 0.95, size=shape) / 360,
    "accuracy on 20 items": lambda g, shape: g.binomial(20, 0.9, size=shape) / 20,
    "one seed in ten fails": lambda g, shape: g.normal(size=shape) - 10 * (g.random(shape) < 0.1),
}
# Differences of two methods that are not alike, with mean 0: nothing makes these symmetric.
DIFFERENCES: dict[str, Draw] = {
    "normal": lambda g, shape: g.normal(size=shape),
    "heavy tails (t, 3 df)": lambda g, shape: g.standard_t(3, size=shape),
    "skewed (exponential)": lambda g, shape: g.exponential(size=shape) - 1,
    "accuracy on 360 items, 95 % against 97 %": lambda g, shape: (
        (g.binomial(360, 0.97, size=shape) - g.binomial(360, 0.95, size=shape)) / 360 - 0.02
    ),
    "one seed in ten of one method fails": lambda g, shape: g.normal(size=shape) - 10 * (g.random(shape) < 0.1) + 1,
}


def alike(method: str, shape: tuple[int, ...], *names: object) -> tuple[list[list[float]], list[list[float]]]:
    """A against A: two draws of the same method, with what a seed does to both; samples x seeds each."""
    generator = stream("alike", method, shape, *names)
    shared = generator.normal(size=shape)
    draw = METHODS[method]
    return (shared + draw(generator, shape)).tolist(), (shared + draw(generator, shape)).tolist()


def false_calls(method: str, n: int, samples: int) -> Rate:
    """How often the verdict's interval sees a difference between a method and itself, n seeds each."""
    return tell([excludes_zero(paired_interval(a, b)) for a, b in zip(*alike(method, (samples, n)), strict=True)])


def coverage(differences: str, n: int, samples: int) -> Rate:
    """How often the verdict's interval holds the true mean difference."""
    drawn = DIFFERENCES[differences](stream("coverage", differences, n), (samples, n))
    return tell([covers(t_interval(row), 0.0) for row in drawn.tolist()])


@dataclass(frozen=True)
class Extended:
    """called: a difference that is not there was seen at either look. covered: the last interval looked at holds the truth."""

    called: Rate
    covered: Rate


def extended(method: str, n: int, samples: int, declared: bool = True) -> Extended:
    """A against A, looked at with n seeds, and once more with 2 n where the first look decides nothing."""
    first, second = looks(0.05, extension=n if declared else 0)
    called, covered = [], []
    for a, b in zip(*alike(method, (samples, 2 * n), "extended"), strict=True):
        interval = paired_interval(a[:n], b[:n], first)
        if not excludes_zero(interval):
            interval = paired_interval(a, b, second)
        called.append(excludes_zero(interval))
        covered.append(covers(interval, 0.0))
    return Extended(tell(called), tell(covered))


def watched(method: str, n: int, samples: int) -> Rate:
    """A against A, looked at after each seed from n to 2 n until a difference is seen: what one look at a named n forbids."""
    pairs = zip(*alike(method, (samples, 2 * n), "watched"), strict=True)
    return tell([any(excludes_zero(paired_interval(a[:k], b[:k])) for k in range(n, 2 * n + 1)) for a, b in pairs])


def flips_against_t(method: str, n: int, samples: int, shift: float) -> tuple[Rate, Rate]:
    """How often the sign-flip test and the t interval see that one method is better by `shift`; 0: that there is nothing."""
    a, b = alike(method, (samples, n), "flips", shift)
    rows = [[x + shift - y for x, y in zip(mine, theirs, strict=True)] for mine, theirs in zip(a, b, strict=True)]
    flips = [p is not None and p <= 0.05 for p in map(sign_flip_p, rows)]
    return tell(flips), tell([excludes_zero(t_interval(row)) for row in rows])


def over_tasks(method: str, n: int, samples: int, shift: float) -> tuple[Rate, Rate]:
    """n tasks, a difference each: how often signed ranks and t see that one is better by `shift`; 0: nothing is there."""
    generator, draw = stream("tasks", method, n, shift), METHODS[method]
    rows = (draw(generator, (samples, n)) - draw(generator, (samples, n)) + shift).tolist()
    return tuple(tell([excludes_zero(of(row)) for row in rows]) for of in (signed_rank_interval, t_interval))  # type: ignore[return-value]


def bootstrap_coverage(differences: str, n: int, samples: int) -> Rate:
    """Of the percentile bootstrap of a mean, 1,000 resamples each."""
    drawn = DIFFERENCES[differences](stream("coverage", differences, n), (samples, n))
    held = []
    for seed, row in enumerate(drawn):
        means = bootstrap_distribution(lambda s: s.mean(axis=(1, 2)), row[:, None], seed=seed, replications=1000)
        assert means is not None
        low, high = np.quantile(means, [0.025, 0.975])
        held.append(bool(low <= 0.0 <= high))
    return tell(held)


def found_power(d: float, n: int, samples: int) -> Rate:
    """How often an effect of d standard deviations is found with n seeds: any difference from 0 counts."""
    drawn = stream("power", d, n).normal(d, 1.0, (samples, n))
    return tell([excludes_zero(t_interval(row)) for row in drawn.tolist()])


def family_errors(n: int, methods: int, samples: int) -> tuple[Rate, Rate]:
    """Methods that all equal one baseline: how often at least one seems to differ, by raw p-values and by Holm's."""
    generator = stream("family", n, methods)
    baseline = generator.normal(size=(samples, 1, n))
    raw, adjusted = [], []
    for rows in (generator.normal(size=(samples, methods, n)) - baseline).tolist():
        p_values = [p for p in map(sign_flip_p, rows) if p is not None]
        raw.append(min(p_values) <= 0.05)
        adjusted.append(min(holm(p_values)) <= 0.05)
    return tell(raw), tell(adjusted)


def median_coverage(skewed: bool, n: int, samples: int) -> Rate:
    generator = stream("median", skewed, n)
    drawn = generator.exponential(size=(samples, n)) if skewed else generator.normal(size=(samples, n))
    truth = math.log(2) if skewed else 0.0
    return tell([covers(median_interval(row), truth) for row in drawn.tolist()])


def iqm_coverage(draw: str, n: int, samples: int) -> Rate:
    generator = stream("iqm", draw, n)
    drawn = METHODS[draw](generator, (samples, n))
    truth = 0.0
    if draw.startswith("skewed"):  # twice the integral of the quantile -ln(1 - u) from 1/4 to 3/4
        truth = 2 * (0.75 - 0.75 * math.log(0.75) - 0.25 + 0.25 * math.log(0.25))
    return tell([covers(iqm_interval(row), truth) for row in drawn.tolist()])


def correlation_coverage(rho: float, n: int, samples: int) -> Rate:
    """Of Spearman's correlation of a bivariate normal distribution, which is 6 / pi * asin(rho / 2)."""
    generator = stream("correlation", rho, n)
    a, noise = generator.normal(size=(samples, n)), generator.normal(size=(samples, n))
    b = rho * a + math.sqrt(1 - rho**2) * noise
    truth = 6 / math.pi * math.asin(rho / 2)
    return tell([covers(correlation_interval(x, y), truth) for x, y in zip(a.tolist(), b.tolist(), strict=True)])


def welch_coverage(n: int, samples: int) -> Rate:
    """n values with a standard deviation of 1 against 2 n with one of 3."""
    generator = stream("welch", n)
    a, b = generator.normal(0, 1, (samples, n)), generator.normal(0, 3, (samples, 2 * n))
    return tell([covers(welch_interval(x, y), 0.0) for x, y in zip(a.tolist(), b.tolist(), strict=True)])


def share_coverage(n: int) -> tuple[float, float]:
    """Least and mean coverage of a share's interval, over true shares from 1 to 99 %; summed exactly, nothing is drawn."""
    intervals = [binomial_interval(k, n) for k in range(n + 1)]
    held = [
        math.fsum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k, i in enumerate(intervals) if covers(i, p))
        for p in (percent / 100 for percent in range(1, 100))
    ]
    return min(held), math.fsum(held) / len(held)


def pooled_coverage(runs: int, tasks: int, samples: int) -> tuple[Rate, Rate]:
    """Of the stratified bootstrap, 1,000 resamples: interquartile mean, and probability of improvement by half a deviation.

    Task i has mean i / tasks and standard deviation 1 / 4, so that the true interquartile mean is the middle.
    """
    generator = stream("pooled", runs, tasks)
    means = np.arange(tasks) / tasks
    middle, chance = float(means.mean()), float(ndtr(0.5 / math.sqrt(2)))
    mean_held, chance_held = [], []
    for seed in range(samples):
        x = generator.normal(means + 0.125, 0.25, (runs, tasks))
        y = generator.normal(means, 0.25, (runs, tasks))
        mean_held.append(covers(stratified_bootstrap_interval(iqm, y, seed=seed, replications=1000), middle))
        interval = stratified_bootstrap_interval(probability_of_improvement, x, y, seed=seed, replications=1000)
        chance_held.append(covers(interval, chance))
    return tell(mean_held), tell(chance_held)
