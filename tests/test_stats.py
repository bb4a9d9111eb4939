"""Intervals against closed forms, tables and other implementations."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from harness import timing
from harness.stats import (
    binomial_interval,
    correlation_interval,
    iqm_interval,
    median_interval,
    paired_interval,
    t_interval,
    t_quantile,
    welch_interval,
)

# Darwin's 15 pairs of maize, crossed minus self-fertilised, in eighths of an inch (Fisher 1935, The Design of Experiments).
MAIZE = [49.0, -67.0, 8.0, 16.0, 6.0, 23.0, 28.0, 41.0, 14.0, 29.0, 56.0, 24.0, 75.0, 60.0, -48.0]


def test_the_command_line_does_not_wait_for_numpy_or_scipy():
    """Importing the statistics costs nothing: half a second of imports belongs to who computes."""
    code = "import sys, harness.stats; sys.exit(bool({'numpy', 'scipy'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_scipys_slow_part_is_never_imported():
    """scipy.stats costs more than a second; scipy.special has what is needed."""
    code = (
        "import sys\nfrom harness.stats import *\n"
        "v = [1.0, 2.0, 4.0, 8.0, 9.0, 9.5]\n"
        "t_interval(v), welch_interval(v, v[:3]), median_interval(v), iqm_interval(v), binomial_interval(1, 5)\n"
        "correlation_interval(v, v[::-1]), sign_flip_p(v), effect_size(v), seeds_needed(1.0, 2.0)\n"
        "stratified_bootstrap_interval(iqm, [[x] for x in v], seed=1, replications=10)\n"
        "sys.exit('scipy.stats' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


@pytest.mark.parametrize(("df", "expected"), [(1, 12.7062047), (4, 2.7764451), (9, 2.2621572), (29, 2.0452296)])
def test_t_quantiles_are_those_of_the_tables(df, expected):
    """Two-sided 95 %."""
    assert t_quantile(0.975, df) == pytest.approx(expected, abs=1e-6)


def test_the_interval_of_five_numbers_by_hand():
    """1..5: mean 3, sd sqrt(2.5), half-width t(4) * sd / sqrt(5)."""
    found = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])

    half = 2.7764451052 * math.sqrt(2.5 / 5)
    assert (found.mean, found.n) == (3.0, 5)
    assert found.low == pytest.approx(3 - half)
    assert found.high == pytest.approx(3 + half)


def test_darwins_maize_has_the_t_that_fisher_published():
    """t = 2.148 on 14 degrees of freedom: just beyond the 5 % point 2.145, so the 95 % interval just excludes 0."""
    found = t_interval(MAIZE)

    standard_error = (found.high - found.mean) / t_quantile(0.975, 14)
    assert found.mean / standard_error == pytest.approx(2.148, abs=5e-4)  # three decimals are printed
    assert 0 < found.low < 0.1


def test_one_value_has_no_interval():
    """A single seed says nothing of the spread: no interval rather than a made-up one."""
    assert t_interval([0.5]).low is None


def test_pairing_removes_what_both_share():
    """The same offset in every pair is a difference without doubt, however much the pairs themselves vary."""
    found = paired_interval([1.5, 10.5, 100.5], [1.0, 10.0, 100.0])

    assert (found.low, found.mean, found.high) == (0.5, 0.5, 0.5)


def test_unequal_lengths_are_refused():
    """A missing seed must be dropped from both, by the caller, knowingly."""
    with pytest.raises(ValueError, match="2 against 1"):
        paired_interval([1.0, 2.0], [1.0])


@pytest.mark.parametrize(
    ("a", "b"), [([1.0, 2.0, 4.0], [10.0, 30.0, 20.0, 25.0, 90.0]), ([1.0, 1.0, 1.0], [2.0, 3.0]), ([5.0, 6.0], [1.0, 3.0])]
)
@pytest.mark.filterwarnings("ignore:Precision loss")  # scipy says so of a sample that does not vary
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_welchs_interval_is_scipys(a, b, confidence):
    """Unequal numbers, unequal variances, one side that does not vary."""
    found = welch_interval(a, b, confidence)
    theirs = stats.ttest_ind(a, b, equal_var=False).confidence_interval(confidence)

    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9)  # other order of summation
    assert (found.mean, found.n) == (pytest.approx(np.mean(a) - np.mean(b)), len(a) + len(b))


def test_welchs_interval_survives_what_has_no_spread_or_too_much():
    """Equal values are certain; one value on a side is no interval; what diverged is infinitely uncertain, not an error."""
    certain, single, diverged = (
        welch_interval([1.0, 1.0], [3.0, 3.0]),
        welch_interval([1.0], [2.0, 3.0]),
        welch_interval([1e308, -1e308], [0.0, 1.0]),
    )

    assert (certain.low, certain.high) == (-2.0, -2.0)
    assert (single.mean, single.low, single.high) == (-1.5, None, None)
    assert diverged.low < -1e307
    assert diverged.high > 1e307


@pytest.mark.parametrize(
    ("n", "confidence", "r"),
    [(5, 0.95, 0), (6, 0.95, 1), (8, 0.95, 1), (9, 0.95, 2), (10, 0.95, 2), (20, 0.95, 6), (7, 0.99, 0), (8, 0.99, 1)],
)
def test_the_median_lies_between_the_order_statistics_of_the_tables(n, confidence, r):
    """The r-th from either end; r = 0: so few values give no interval. 2 * 0.5**n must be within what may be missed."""
    found = median_interval([float(v) for v in range(n, 0, -1)], confidence)

    assert found.mean == (n + 1) / 2
    assert (found.low, found.high) == ((r, n - r + 1) if r else (None, None))


@pytest.mark.parametrize("n", [6, 11, 100, 1001])
def test_the_timers_and_the_statistics_agree_on_the_median(n):
    """Two implementations for two callers (samples of a timer, seeds of a claim); one answer."""
    values = list(np.random.default_rng(n).lognormal(size=n))
    found = median_interval(values)

    assert (found.low, found.high) == timing.median_interval(values)
    assert found.mean == pytest.approx(np.median(values), rel=1e-15)


@pytest.mark.filterwarnings("ignore:Precision loss")  # scipy says so of a sample that does not vary
@pytest.mark.parametrize("n", [2, 3, 4, 5, 10, 19])
def test_the_interquartile_means_interval_ends_where_yuens_test_rejects(n):
    """scipy has the two-sample test of trimmed means; against a sample without spread it is that of one sample."""
    values = np.random.default_rng(n).gamma(2.0, size=n)
    found = iqm_interval(values.tolist())

    assert found.mean == pytest.approx(stats.trim_mean(values, 0.25))
    for end in (found.low, found.high):
        constant = np.full(8, end)
        assert stats.ttest_ind(values, constant, equal_var=False, trim=0.25).pvalue == pytest.approx(0.05, abs=1e-9)


def test_one_outlier_does_not_move_the_interquartile_mean():
    """That is what it is for: a seed that diverged counts as one bad seed, not as infinitely bad."""
    found = iqm_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, math.inf])

    assert found.mean == 4.5
    assert found.low == pytest.approx(4.5 - 3.182446305 * math.sqrt(((1.5**2) * 2 * 3 + 0.25 * 2) / (4 * 3)))


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (5, 10), (10, 10), (17, 20), (0, 1)])
@pytest.mark.parametrize("confidence", [0.95, 0.975])
def test_a_shares_interval_is_the_exact_one(successes, n, confidence):
    found = binomial_interval(successes, n, confidence)
    theirs = stats.binomtest(successes, n).proportion_ci(confidence, "exact")

    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), rel=1e-9, abs=1e-12)  # theirs: a root search


def test_ten_of_ten_is_not_yet_ninety_percent():
    """The closed form at the end: 0.025 ** (1 / 10)."""
    assert binomial_interval(10, 10).low == pytest.approx(0.025**0.1)
    assert binomial_interval(10, 10).high == 1.0


def test_the_correlation_is_spearmans_with_ties_sharing_their_rank():
    generator = np.random.default_rng(5)
    a, b = generator.integers(0, 6, 30).astype(float), generator.normal(size=30)

    assert correlation_interval(a.tolist(), b.tolist()).mean == pytest.approx(stats.spearmanr(a, b).statistic)


def test_the_correlations_interval_by_hand():
    """Ranks 1..6 against 2, 1, 4, 3, 6, 5: r = 1 - 6 * 6 / 210; z = atanh(r), its variance (1 + r**2 / 2) / 3."""
    found = correlation_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 1.0, 4.0, 3.0, 6.0, 5.0])

    r = 1 - 36 / 210
    half = 1.959963985 * math.sqrt((1 + r * r / 2) / 3)
    assert (found.mean, found.low, found.high) == pytest.approx(
        (r, math.tanh(math.atanh(r) - half), math.tanh(math.atanh(r) + half))
    )


@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_correlation_of_few_pairs_is_not_certain(sign):
    """atanh(1) is infinite, and an interval without width would settle any claim; the next smaller value gives the open end."""
    found = correlation_interval([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [sign * v for v in (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)])
    low, high = sorted([found.low * sign, found.high * sign])

    near = 1 - 12 / 210  # two neighbours exchanged
    assert found.mean * sign == 1.0
    assert low == pytest.approx(math.tanh(math.atanh(near) - 1.959963985 * math.sqrt((1 + near**2 / 2) / 3)))
    assert high == 1.0


def test_what_does_not_vary_correlates_with_nothing():
    """No estimate, so no interval: a claim on it stays undecided."""
    found = correlation_interval([1.0] * 8, [float(v) for v in range(8)])

    assert math.isnan(found.mean)
    assert (found.low, found.high) == (None, None)


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: t_interval([]), "no values"),
        (lambda: welch_interval([], [1.0]), "0 against 1"),
        (lambda: median_interval([1.0, math.nan]), "count it as the metric's worst"),
        (lambda: iqm_interval([]), "iqm_interval: no values"),
        (lambda: binomial_interval(3, 2), "3 successes of 2"),
        (lambda: binomial_interval(0, 0), "n from 1"),
        (lambda: correlation_interval([1.0], [1.0, 2.0]), "1 against 2"),
        (lambda: correlation_interval([1.0, math.nan], [1.0, 2.0]), "it has no rank"),
    ],
)
def test_bad_input_is_refused_with_the_mend(call, told):
    with pytest.raises(ValueError, match=told):
        call()
