"""Wilcoxon's signed ranks against scipy, against all sign patterns, and against numbers worked by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from harness.stats import holm, signed_rank_interval, signed_rank_p
from harness.stats.intervals import ranks
from harness.stats.signed_rank import chances, critical_place

ALTERNATIVES = ["two-sided", "greater", "less"]


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("n", [3, 8, 20, 50])
def test_without_ties_it_is_scipys_exact_p(n, alternative):
    values = np.random.default_rng(5).normal(0.3, size=n)
    theirs = stats.wilcoxon(values, alternative=alternative, method="exact").pvalue

    assert signed_rank_p(values.tolist(), alternative=alternative) == pytest.approx(theirs, rel=1e-9)  # sums of 2^-n


@pytest.mark.parametrize("alternative", ALTERNATIVES)
def test_ties_and_zeros_are_as_scipy_permutes_them(alternative):
    """Accuracies differ by whole items, so ties are the rule. scipy draws nothing here: 512 patterns are all there are."""
    values = np.array([0.02, 0.02, 0.0, 0.01, -0.01, 0.03, -0.02, 0.04, 0.05])
    theirs = stats.wilcoxon(
        values, zero_method="pratt", alternative=alternative, method=stats.PermutationMethod(n_resamples=np.inf)
    ).pvalue

    assert signed_rank_p(values.tolist(), alternative=alternative) == pytest.approx(theirs, rel=1e-12)


def test_it_is_the_share_of_all_sign_patterns():
    """The definition, without a distribution: ranks 1 to 7 with every choice of signs."""
    values = np.random.default_rng(5).normal(0.5, size=7)
    order = ranks(np.abs(values).tolist())
    seen = sum(rank for rank, v in zip(order, values, strict=True) if v > 0)
    sums = [sum(itertools.compress(order, keep)) for keep in itertools.product([0, 1], repeat=7)]
    both = [sum(s >= seen for s in sums), sum(s <= seen for s in sums)]

    assert signed_rank_p(values.tolist()) == min(1.0, 2 * min(both) / len(sums))


def test_what_is_only_rounding_is_a_tie_and_a_zero():
    """0.92 - 0.9 and 0.82 - 0.8 are not equal in floats, and 0.3 - 0.1 - 0.2 is not 0."""
    rounded = [0.92 - 0.9, 0.82 - 0.8, 0.72 - 0.7, -(0.62 - 0.6), 0.3 - 0.1 - 0.2]

    assert signed_rank_p(rounded) == signed_rank_p([2.0, 2.0, 2.0, -2.0, 0.0])
    assert signed_rank_p([0.92 - 0.9] * 8, threshold=0.02) == 1.0


@pytest.mark.parametrize("values", [[0.1, math.inf], [math.nan, 0.1]])
def test_what_diverged_has_no_p(values):
    assert signed_rank_p(values) is None


def test_nothing_is_refused():
    with pytest.raises(ValueError, match="no differences"):
        signed_rank_p([])
    with pytest.raises(ValueError, match="no values"):
        signed_rank_interval([])
    with pytest.raises(ValueError, match="NaN"):
        signed_rank_interval([math.nan])


# The interval ---------------------------------------------------------------------------------------------------------

# Largest sums at which a two-sided test at 5 % rejects, as printed tables have them: n = 6: 0, 10: 8, 20: 52, 25: 89.
TABLE = {5: 0, 6: 1, 10: 9, 20: 53, 25: 90}


@pytest.mark.parametrize(("n", "place"), TABLE.items())
def test_the_ends_stand_where_the_printed_table_has_them(n, place):
    """One place behind the critical sum; with five values no sum is rare enough."""
    assert critical_place(n, 0.95) == place


def test_the_pseudomedian_and_its_ends_are_means_of_pairs():
    """Six values by hand: 21 means from 1 to 40; the interval at 96.9 % are the least and the greatest of all."""
    found = signed_rank_interval([1.0, 2.0, 4.0, 8.0, 16.0, 40.0])

    assert (found.low, found.high, found.n) == (1.0, 40.0, 6)
    assert found.mean == 8.5  # the 11th of 1, 1.5, 2, 2.5, 3, 4, 4.5, 5, 6, 8, 8.5, 9, 10, 12, 16, 20.5, 21, 22, 24, 28, 40
    assert signed_rank_interval([1.0, 2.0, 4.0, 8.0, 16.0]).low is None


@pytest.mark.parametrize("n", [6, 12, 31])
def test_an_interval_holds_what_the_test_does_not_reject(n):
    """The two are one: on either side of an end the p-value is on either side of 5 %."""
    values = np.random.default_rng(5).normal(size=n).tolist()
    found = signed_rank_interval(values)
    step = 1e-7  # far less than the distance between two means of pairs

    for end, outwards in ((found.low, -step), (found.high, step)):
        assert signed_rank_p(values, end + outwards) <= 0.05 < signed_rank_p(values, end - outwards)


def test_with_ties_the_interval_holds_the_centre_at_least_as_often():
    """20 tables, differences of -2 to 2 items: 2,000 samples, none of which the closed interval should miss above 5 %."""
    samples = np.random.default_rng(5).integers(-2, 3, (2000, 20)).astype(float)
    found = [signed_rank_interval(row.tolist()) for row in samples]
    missed = sum(not one.low <= 0.0 <= one.high for one in found)

    assert missed / 2000 < 0.05 + 0.015  # three standard errors


def test_the_chances_add_up_and_mirror():
    found = chances((1, 2, 3, 4))

    assert found.sum() == 1.0
    assert (found == found[::-1]).all()
    assert found[10] == 1 / 16


# Holm, by hand: the family of a comparison over tables ------------------------------------------------------------------


def test_holm_is_the_hand_computed_one():
    """Four p-values: 0.01 x 4, then 0.015 x 3 = 0.045, then 0.03 x 2 = 0.06, then 0.04 x 1, which may not fall below 0.06."""
    assert holm([0.03, 0.01, 0.04, 0.015]) == pytest.approx((0.06, 0.04, 0.06, 0.045))
