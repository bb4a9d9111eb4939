"""The rule of the night, on arrays: when it calls, when it does not, and how often it is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm

from harness.regress.nightly import LEAST_NIGHTS, holm, judge_night, night_p, robust_sd, seeds_p

QUIET = [1.00, 1.01, 0.99, 1.005, 0.995, 1.0, 1.01, 0.99, 1.002, 0.998] * 3


@pytest.mark.parametrize("nights", [5, 6, 8, 10, 15, 30])
def test_a_quiet_night_is_called_as_seldom_as_p_says(nights):
    """The scale is known from few nights only; a normal quantile would call five times as often at 10 nights."""
    drawn = 1 + 0.01 * np.random.default_rng(nights).standard_normal((100_000, nights + 1))

    p = night_p(drawn[:, :-1], drawn[:, -1], noise_floor=0.0)

    # 100,000 draws: 3 standard deviations of a share of 0.001 are 0.0003.
    assert (p <= 1e-3).mean() <= 1.3e-3


@pytest.mark.parametrize("nights", [5, 9, 10, 29, 30])
def test_the_robust_scale_is_the_standard_deviation_of_normal_nights(nights):
    """Qn's constants: on average right within 3 %."""
    drawn = np.random.default_rng(1).standard_normal((20_000, nights))

    assert robust_sd(drawn).mean() == pytest.approx(1.0, abs=0.03)


def test_outliers_among_the_nights_before_do_not_hide_a_slow_one():
    """One night on a busy machine would double an ordinary standard deviation."""
    spoilt = [*QUIET]
    spoilt[3], spoilt[17] = 1.6, 1.9

    assert judge_night([*spoilt, 1.10], "lower", 0.01).p < 1e-6


def test_two_levels_are_no_surprise():
    """Where code happens to lie can cost 4 %, on one night of three: the next such night is as good as the last."""
    nights = [1.0 + 0.002 * (i % 3) + (0.04 if i % 3 == 0 else 0.0) for i in range(30)]

    assert judge_night([*nights, 1.045], "lower", 0.01).p > 0.05


@pytest.mark.parametrize(("better", "last", "called"), [("lower", 1.1, True), ("lower", 0.9, False), ("higher", 0.9, True),
                                                        ("higher", 1.1, False)])  # fmt: skip
def test_only_the_bad_direction_is_called(better, last, called):
    """What became faster is no alarm."""
    night = judge_night([*QUIET, last], better, 0.01)

    assert (night.p < 1e-6) == called
    assert night.change == pytest.approx(0.1 if called else -0.1, abs=1e-6)


def test_the_machines_noise_floor_bounds_what_quiet_nights_promise():
    """Thirty nights that agree to 0.01 % do not make 1 % a regression on a machine that is known to 1 %."""
    nights = [1 + 1e-4 * math.sin(i) for i in range(30)]

    assert judge_night([*nights, 1.01], "lower", noise_floor=0.0).p < 1e-9
    assert judge_night([*nights, 1.01], "lower", noise_floor=0.01).p == pytest.approx(norm.sf(1 / math.sqrt(1 + math.pi / 60)),
                                                                                     rel=0.02)  # fmt: skip


def test_too_few_nights_call_nothing():
    """Four nights have no scale."""
    assert judge_night([1.0] * (LEAST_NIGHTS - 1) + [9.0], "lower", 0.01).p == 1.0
    assert judge_night([1.0, 1.01, 0.99, 1.0, 1.0, 9.0], "lower", 0.01).p < 1e-2


def test_series_that_never_vary_are_judged_by_any_change():
    """Bit-equal memory figures: their scale is 0, and 0 is no excuse for dividing by it."""
    flat = [100.0] * 30

    assert judge_night([*flat, 100.0], "lower", 0.0).p == 0.5
    assert judge_night([*flat, 101.0], "lower", 0.0).p == 0.0
    assert judge_night([0.0] * 31, "lower", 0.0).change == 0.0


def test_quality_is_called_only_where_the_seeds_agree():
    """Other rounding sends each seed elsewhere: the mean moves by chance, up in some and down in others."""
    rng = np.random.default_rng(0)
    before = np.tile(0.95 + 0.01 * rng.standard_normal(10), (20, 1))
    scattered = before[-1] + 0.01 * rng.standard_normal(10) - 0.002
    worse = before[-1] - 0.02

    def p(last: np.ndarray) -> float:
        nights = np.vstack([before, last])
        return judge_night(nights.mean(axis=1).tolist(), "higher", 0.0, by_seed=nights).p

    assert p(scattered) > 0.02
    assert p(worse) < 1e-9


def test_one_seed_says_nothing_about_its_own_spread():
    """Then the noise floor must do."""
    assert seeds_p([0.5]) == 0.0


def test_holm_keeps_the_chance_of_any_false_alarm():
    """By hand: 4 x 0.01, then 3 x 0.02, then the larger of that and 2 x 0.03, then 0.5."""
    assert holm([0.03, 0.01, 0.5, 0.02]) == pytest.approx([0.06, 0.04, 0.5, 0.06])
    assert holm([]) == []
