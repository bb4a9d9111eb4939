"""What the instruments promise, on many drawn months. `pytest -s` shows the table that docs hold."""

from __future__ import annotations

import numpy as np
import pytest

from harness.regress.judging import Rules, judge_histories
from harness.regress.nightly import LEAST_NIGHTS
from harness.regress.simulation import (
    LONG,
    MONTH,
    NOISES,
    SERIES,
    Rate,
    Size,
    called,
    history_detections,
    interleaved_calls,
    night_detections,
    night_false_alarms,
    nights,
    simulate,
    to_markdown,
)  # fmt: skip


def pick(rates: list[Rate], **equal: object) -> float:
    (found,) = (r.value for r in rates if all(getattr(r, name) == value for name, value in equal.items()))
    return found


def test_a_quiet_month_of_a_whole_suite_gives_at_most_one_false_alarm():
    """60 series, 30 nights: the promise. Who is woken for nothing stops listening. And 10 % at 1 % noise is found."""
    rates = simulate(Size(months=30, history_series=40, steps=100, comparisons=100))
    print("\n" + to_markdown(rates))

    for noise in (0.01, 0.03):
        assert pick(rates, instrument="night", noise=noise, slowdown=0.0) <= 1.0
        assert pick(rates, instrument="history", noise=noise, slowdown=0.0) <= 1.0
        assert pick(rates, instrument="interleaved", noise=noise, slowdown=0.0) <= 0.02
    assert pick(rates, instrument="night", noise=0.01, slowdown=0.10) >= 0.99
    assert pick(rates, instrument="history", noise=0.01, slowdown=0.10, after=7) >= 0.9
    assert pick(rates, instrument="interleaved", noise=0.01, slowdown=0.05) >= 0.99
    assert pick(rates, instrument="interleaved", noise=0.03, slowdown=0.10) >= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("shape", NOISES)
def test_the_promise_holds_over_many_months_and_other_noises(shape):
    """Nights that drift and times with two levels too; where nights are really a fifth slower, the rule must call them."""
    rates = simulate(LONG, shapes=[shape])
    print("\n" + to_markdown(rates))

    for noise in (0.01, 0.03):
        assert shape == "outliers" or pick(rates, instrument="night", noise=noise, slowdown=0.0) <= 1.0
        assert pick(rates, instrument="history", noise=noise, slowdown=0.0) <= 1.0
        assert pick(rates, instrument="interleaved", noise=noise, slowdown=0.0) <= 0.03


def test_times_with_two_levels_keep_the_promise():
    """Qn alone sees the width of one level: 7 alarms a month."""
    assert night_false_alarms("two levels", 0.01, months=20, rng=np.random.default_rng(3)) <= 1.5


def test_the_simulation_judges_as_the_real_rule_does():
    """It is vectorised, Holm too; else its rates would be another rule's."""
    from regress_samples import history

    rng = np.random.default_rng(5)
    for factor in (1.0, 1.04, 1.08):
        drawn = nights("normal", 0.01, (SERIES, LEAST_NIGHTS + 20), rng)
        drawn[:3, -1] *= factor
        by_simulation = np.flatnonzero(called(drawn[:, :-1], drawn[:, -1]))

        histories = [history(row, case=n) for n, row in enumerate(drawn.tolist())]
        found = judge_histories(histories, "m-1", Rules(threshold=1e9))

        assert sorted(r.history.alike["case"] for r in found.regressions) == by_simulation.tolist()


@pytest.mark.parametrize("noise", [0.01, 0.03])
def test_larger_slowdowns_are_found_more_often(noise):
    """A rule that cannot find anything has no false alarms either."""
    rng = np.random.default_rng(0)
    shares = [
        [night_detections("normal", noise, slowdown, 100, rng) for slowdown in (0.0, 0.1, 0.3)],
        [history_detections("normal", noise, slowdown, 7, 40, rng) for slowdown in (0.0, 0.1, 0.3)],
        [interleaved_calls("normal", noise, slowdown, 40, rng) for slowdown in (0.0, 0.05, 0.3)],
    ]

    for share in shares:
        assert share == sorted(share)
        assert share[0] <= 0.05
        assert share[-1] >= 0.95


def test_a_month_has_thirty_nights_of_a_suite():
    """What the table calls a month."""
    assert (MONTH, SERIES) == (30, 60)
