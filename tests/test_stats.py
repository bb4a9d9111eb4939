"""Intervals against closed forms and tables."""

from __future__ import annotations

import math

import pytest

from harness.stats import paired_interval, t_interval, t_quantile


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
