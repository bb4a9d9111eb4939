"""Tests, effect sizes and power against published numbers and other implementations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import integrate, stats

from harness.stats import (
    effect_size,
    holm,
    looks,
    paired_t_p,
    power_of_paired_t,
    seeds_needed,
    sign_flip_p,
    t_interval,
)
from harness.stats.power import noncentral_t_below
from tests.test_stats import MAIZE


def test_darwins_maize_has_the_p_value_that_fisher_published():
    """Of 32,768 ways to flip signs 863 give a sum of at least 314, and as many one of at most -314: 5.267 %."""
    assert sign_flip_p(MAIZE) == 1726 / 32768
    assert sign_flip_p(MAIZE, alternative="greater") == 863 / 32768


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize("threshold", [0.0, 0.3])
def test_few_differences_give_scipys_exact_permutation_p(alternative, threshold):
    values = np.random.default_rng(3).normal(0.4, size=9)
    theirs = stats.permutation_test(
        (values - threshold,), np.mean, permutation_type="samples", alternative=alternative, n_resamples=math.inf
    )

    assert sign_flip_p(values.tolist(), threshold, alternative) == pytest.approx(theirs.pvalue, abs=1e-12)  # whole counts


@pytest.mark.parametrize("n", [3, 5, 10])
def test_the_smallest_p_is_two_in_all_patterns(n):
    """At 5 seeds 0.0625: no sign-flip test of 5 seeds rejects at 5 %, however clear the difference."""
    assert sign_flip_p([1.0 + 0.01 * i for i in range(n)]) == 2 / 2**n


def test_drawn_patterns_come_near_to_all_of_them():
    """18 differences have 262,144 patterns; 65,535 are drawn. Twice the same question, twice the same answer."""
    values = np.random.default_rng(8).normal(0.4, size=18)
    sums = np.zeros(1)
    for value in values:
        sums = np.concatenate([sums + value, sums - value])
    exact = float(np.mean(np.abs(sums) >= abs(values.sum()) - 1e-9))
    found = sign_flip_p(values.tolist())

    assert 0.01 < exact < 0.5
    assert found == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 65_535))  # four standard errors of the draw
    assert found == sign_flip_p(values.tolist())


def test_equal_sums_count_as_as_extreme_in_whatever_order_they_are_added():
    """0.1 + 0.2 + 0.3 and 0.3 + 0.2 + 0.1 differ in the last bit; a strict comparison would halve the p-value."""
    for order in itertools.permutations([0.1, 0.2, 0.3, 0.3]):
        assert sign_flip_p(list(order)) == 2 / 16


def test_differences_that_equal_the_threshold_are_no_evidence():
    """0.92 - 0.90 is above 0.02 in floats, in each of ten seeds."""
    assert sign_flip_p([0.92 - 0.90] * 10, threshold=0.02) == 1.0


@pytest.mark.parametrize("values", [[1.0, math.inf], [1.0, math.nan], [math.nan]])
def test_what_diverged_has_no_p_value(values):
    assert sign_flip_p(values) is None


def test_the_effect_size_by_hand():
    """1..5: mean 3, sd sqrt(2.5); Hedges' factor for 4 degrees of freedom is gamma(2) / (sqrt(2) gamma(1.5)) = 0.7979."""
    assert effect_size([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(0.797884561 * 3 / math.sqrt(2.5))
    assert effect_size([1.0, 2.0, 3.0, 4.0, 5.0], threshold=3.0) == 0.0


def test_the_effect_size_is_right_on_average():
    """That is what the factor is for: without it, 5 seeds show a quarter too much."""
    draws = np.random.default_rng(11).normal(0.8, 1.0, (20_000, 5))
    found = [effect_size(row) for row in draws.tolist()]

    assert np.mean(found) == pytest.approx(0.8, abs=4 * np.std(found) / math.sqrt(len(found)))  # four standard errors


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [2.0, 2.0, 2.0], [1.0, 2.0, math.inf], [1.0, 2.0, math.nan]])
def test_no_effect_size_where_it_has_no_meaning(values):
    assert effect_size(values) is None


def test_holms_adjustment_by_hand():
    """0.005 * 4, 0.01 * 3, 0.03 * 2, and never less than the one before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.6, 0.7]) == (1.0, 1.0)
    assert holm([]) == ()


def test_ties_in_holms_adjustment_keep_one_value():
    assert holm([0.02, 0.02]) == (0.04, 0.04)


def test_an_extension_that_is_declared_halves_what_each_look_may_miss():
    assert looks(0.05) == (0.95, 0.95)
    assert looks(0.05, extension=10) == (0.975, 0.975)


@pytest.mark.parametrize(("d", "n", "power"), [(0.2, 199, 0.8017), (0.5, 34, 0.8078), (0.8, 15, 0.8213)])
def test_seeds_needed_are_those_of_the_tables(d, n, power):
    """Small, medium and large effects at 80 % and two-sided 5 %: what G*Power 3 prints for matched pairs."""
    assert seeds_needed(d, 1.0) == n
    assert power_of_paired_t(d, 1.0, n) == pytest.approx(power, abs=5e-5)  # four decimals are printed
    assert power_of_paired_t(d, 1.0, n - 1) < 0.8


@pytest.mark.parametrize("n", [2, 3, 5, 10, 20, 100])
@pytest.mark.parametrize("alpha", [0.05, 0.025])
def test_the_power_is_the_noncentral_ts(n, alpha):
    """A second implementation, over no to overwhelming effects, either sign, any unit."""
    limit = stats.t.ppf(1 - alpha / 2, n - 1)
    for d in (0.1, 0.5, 1.0, 1.5, 2.0):
        shift = d * math.sqrt(n)
        expected = (
            stats.nct.sf(limit, n - 1, shift) + stats.nct.cdf(-limit, n - 1, shift)
            if shift < 7
            else stats.nct.sf(limit, n - 1, shift)
        )
        assert power_of_paired_t(-d * 0.01, 0.01, n, alpha) == pytest.approx(expected, abs=1e-9)  # both sum a series


@pytest.mark.parametrize("df", [1, 2, 4, 9, 30, 1000])
@pytest.mark.parametrize("shift", [7.6, 8.4, 10.0, 30.0, 50.0, 60.0])
@pytest.mark.parametrize("side", [1, -1])
def test_where_scipy_gives_up_the_probability_is_nought(df, shift, side):
    """Integrated over the spread instead: P(Z + shift < t * s), s**2 a chi-squared over df."""
    t = side * float(stats.t.ppf(0.975, df))

    def weighted(s: float) -> float:
        return float(stats.norm.cdf(t * s - shift) * stats.chi.pdf(s * math.sqrt(df), df) * math.sqrt(df))

    expected = sum(integrate.quad(weighted, a, b)[0] for a, b in itertools.pairwise([0, 0.5, 1, 1.5, 2, 4, 8, 16, 50]))
    assert noncentral_t_below(t, df, shift) == pytest.approx(
        expected, abs=1e-8
    )  # what a power is ever printed to, and far more


@pytest.mark.parametrize(
    ("effect", "sd", "n", "power"),
    [
        (1.0, 1.0, 1, 0.0),
        (0.0, 1.0, 10, 0.05),
        (1.0, 0.0, 10, 1.0),
        (1e300, 1e-300, 5, 1.0),
        (math.nan, 1.0, 5, None),
        (1.0, math.inf, 5, None),
    ],
)
def test_power_at_the_edges(effect, sd, n, power):
    assert power_of_paired_t(effect, sd, n) == power


@pytest.mark.parametrize(("effect", "sd"), [(0.0, 1.0), (1e-9, 1.0), (math.nan, 1.0), (1.0, math.inf)])
def test_no_number_of_seeds_finds_nothing(effect, sd):
    assert seeds_needed(effect, sd) is None


def test_differences_that_do_not_vary_need_two_seeds():
    assert seeds_needed(0.1, 0.0) == 2


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: sign_flip_p([]), "no differences"),
        (lambda: holm([0.5, 1.5]), "got 1.5"),
        (lambda: holm([math.nan]), "got nan"),
        (lambda: looks(0.0), "alpha 0.0"),
        (lambda: looks(0.05, -1), "extension -1"),
        (lambda: power_of_paired_t(1.0, -1.0, 5), "sd from 0"),
        (lambda: seeds_needed(1.0, 1.0, power=1.0), "power 1.0"),
    ],
)
def test_bad_input_is_refused_with_the_mend(call, told):
    with pytest.raises(ValueError, match=told):
        call()


def test_the_paired_p_is_scipys_row_by_row():
    """Rows of unequal length, of any magnitude, in one call."""
    rows = np.random.default_rng(2).normal(0.3, 1.0, (6, 8)) * np.array([[1.0], [1e-200], [1e200], [1.0], [1.0], [1.0]])
    rows[3, 1:5] = rows[4, 2:] = np.nan
    rows[5] = 0.25

    found = paired_t_p(rows)

    for row, p in zip(rows[:5], found, strict=False):
        scaled = row[~np.isnan(row)] / np.nanmax(np.abs(row))
        assert p == pytest.approx(stats.ttest_1samp(scaled, 0.0).pvalue, rel=1e-9)  # the same formula
    assert found[5] == 2 / 2**8


def test_differences_that_are_all_equal_have_the_p_of_their_sign_flips():
    """Accuracies are steps: two seeds often differ by the same, and a t of infinity is no evidence."""
    values = [0.92 - 0.90, 0.82 - 0.80, 0.72 - 0.70]  # 0.02 but for what is only rounding

    assert [paired_t_p([values[:n]])[0] for n in (2, 3)] == [sign_flip_p(values[:n]) for n in (2, 3)] == [0.5, 0.25]
    assert paired_t_p([[*values, math.nan], [0.02] * 4]).tolist() == [0.25, 0.125]


@pytest.mark.parametrize("row", [[], [1.0], [0.0, 0.0], [math.nan, 2.0], [math.inf, 1.0, 2.0], [math.nan, math.nan]])
def test_without_two_finite_differences_the_paired_p_is_one(row):
    assert paired_t_p([row]).tolist() == [1.0]


@given(st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=2, max_size=12))
def test_the_paired_p_is_below_5_percent_where_the_interval_excludes_zero(values):
    """Ranks and intervals must not contradict each other, where anything varies."""
    assume(len(set(values)) > 1)
    interval = t_interval(values)
    half = (interval.high - interval.low) / 2
    [p] = paired_t_p([values])

    if abs(abs(interval.mean) - half) > 1e-9 * (1 + half):  # on the very limit rounding decides
        assert (p < 0.05) == (abs(interval.mean) > half)
