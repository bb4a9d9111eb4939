"""Aggregates over tasks against cases by hand, scipy, and loops written from the definitions."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from harness.stats import (
    Interval,
    beats,
    bootstrap_distribution,
    holm,
    iqm,
    mean_ranks,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    profile_band,
    rank_ranges,
    stratified_bootstrap_interval,
)

FOUR_BY_TWO = [[0.0, 0.1], [0.2, 0.3], [0.4, 0.5], [0.6, 9.0]]  # runs x tasks


def test_the_interquartile_mean_by_hand():
    """Of eight scores two are dropped at either end: 0.2, 0.3, 0.4, 0.5 are left."""
    assert iqm(FOUR_BY_TWO) == pytest.approx(0.35)


@pytest.mark.parametrize("shape", [(1, 1), (3, 1), (1, 3), (5, 7), (10, 26)])
def test_the_interquartile_mean_is_scipys_trimmed_mean(shape):
    """Whatever the remainder of a quarter; runs and tasks together."""
    scores = np.random.default_rng(1).standard_cauchy(shape)

    assert iqm(scores) == pytest.approx(stats.trim_mean(scores, 0.25, axis=None), rel=1e-12)  # other order of summation


def test_the_optimality_gap_by_hand():
    """9.0 counts as 1: mean of 0, 0.1, ..., 0.6 and 1 is 3.1 / 8."""
    assert optimality_gap(FOUR_BY_TWO) == pytest.approx(1 - 3.1 / 8)
    assert optimality_gap(FOUR_BY_TWO, target=0.5) == pytest.approx(0.5 - (0.0 + 0.1 + 0.2 + 0.3 + 0.4 + 3 * 0.5) / 8)


def test_the_profile_is_the_share_above_each_tau_by_hand():
    """Above, not at: 0.3 itself does not exceed 0.3."""
    assert performance_profile(FOUR_BY_TWO, [-1.0, 0.0, 0.3, 0.55, 9.0]).tolist() == [1.0, 7 / 8, 4 / 8, 2 / 8, 0.0]


def test_the_probability_of_improvement_by_hand():
    """Task 1: 1 beats 0, ties with 1, so 1.5 of 2; 2 beats both. Task 2: always worse. (3.5 / 4 + 0) / 2."""
    assert probability_of_improvement([[1.0, 0.0], [2.0, 0.0]], [[0.0, 5.0], [1.0, 6.0]]) == (3.5 / 4 + 0) / 2


def test_the_probability_of_improvement_is_mann_whitneys_u_over_all_pairs():
    """With ties, unequal numbers of runs, averaged over the tasks."""
    generator = np.random.default_rng(2)
    x, y = generator.integers(0, 5, (7, 4)).astype(float), generator.integers(0, 6, (9, 4)).astype(float)
    expected = np.mean([stats.mannwhitneyu(x[:, t], y[:, t]).statistic / 63 for t in range(4)])

    assert probability_of_improvement(x, y) == pytest.approx(expected)
    assert probability_of_improvement(x, y) + probability_of_improvement(y, x) == pytest.approx(1.0)


def test_the_bootstrap_is_near_to_all_resamples_there_are():
    """Four runs of one task have 256 resamples; 50,000 drawn ones have their quantiles."""
    values = [0.1, 0.2, 0.4, 0.9]
    every = [sum(drawn) / 4 for drawn in itertools.product(values, repeat=4)]
    drawn = bootstrap_distribution(lambda s: s.mean(axis=(1, 2)), [[v] for v in values], seed=3)

    assert len(drawn) == 50_000
    assert drawn.mean() == pytest.approx(0.4, abs=4 * np.std(every) / math.sqrt(50_000))  # four standard errors
    for value in set(np.round(every, 9)):
        share = np.mean(np.array(every) <= value + 1e-9)
        assert np.mean(drawn <= value + 1e-9) == pytest.approx(share, abs=0.009)  # four standard errors of a share of a half


def test_runs_are_drawn_within_each_task():
    """The strata: scores of one task never stand in for another's, so a constant task stays constant."""
    scores = np.array([[1.0, 10.0], [2.0, 10.0], [3.0, 10.0]])

    def seen(samples):
        assert set(np.unique(samples[:, :, 0])) <= {1.0, 2.0, 3.0}
        return samples[:, :, 1].min(axis=1)

    assert set(bootstrap_distribution(seen, scores, seed=1, replications=500)) == {10.0}


def test_tasks_are_drawn_independently_of_each_other():
    """Run 1 of one task has nothing to do with run 1 of another: sums of two tasks take all combinations."""
    scores = np.array([[0.0, 0.0], [1.0, 10.0]])
    first = bootstrap_distribution(lambda s: s[:, 0, 0] + s[:, 0, 1], scores, seed=1, replications=500)

    assert set(first) == {0.0, 1.0, 10.0, 11.0}


@pytest.mark.parametrize("statistic", [iqm, optimality_gap])
def test_many_replications_at_once_are_those_one_by_one(statistic):
    """The fast path and the definition, on the same resamples, bit for bit but for the order of summation."""
    scores = np.random.default_rng(4).random((5, 3))
    fast = stratified_bootstrap_interval(statistic, scores, seed=9, replications=300)
    slow = stratified_bootstrap_interval(lambda s: statistic(s), scores, seed=9, replications=300)

    assert (fast.mean, fast.low, fast.high) == pytest.approx((slow.mean, slow.low, slow.high), rel=1e-12)


def test_the_probability_of_improvement_of_many_replications_is_that_of_each():
    generator = np.random.default_rng(5)
    x, y = generator.integers(0, 4, (4, 3)), generator.integers(0, 5, (6, 3))
    fast = stratified_bootstrap_interval(probability_of_improvement, x, y, seed=9, replications=300)
    slow = stratified_bootstrap_interval(lambda a, b: probability_of_improvement(a, b), x, y, seed=9, replications=300)

    assert fast == slow
    assert fast.n == 4


def test_one_seed_one_answer():
    scores = np.random.default_rng(6).random((6, 4))
    one, again, other = (stratified_bootstrap_interval(iqm, scores, seed=seed, replications=2000) for seed in (1, 1, 2))

    assert one == again
    assert one != other


def test_pairs_that_are_drawn_together_keep_what_they_share():
    """y is x less 1 in every run: the difference is certain when runs are drawn together, and not otherwise."""
    x = np.random.default_rng(7).random((6, 3))
    together, apart = (
        stratified_bootstrap_interval(lambda a, b: float(np.mean(a) - np.mean(b)), x, x - 1, seed=1, paired=p, replications=300)
        for p in (True, False)
    )

    assert (together.low, together.high) == pytest.approx((1.0, 1.0))
    assert apart.high - apart.low > 0.1


def test_a_single_run_has_no_interval():
    assert stratified_bootstrap_interval(iqm, [[0.5, 0.7]], seed=1) == Interval(pytest.approx(0.6), None, None, 1)
    assert profile_band([[0.5, 0.7]], [0.0], seed=1) is None


def test_a_run_that_failed_without_bound_leaves_an_interval():
    """One score of minus infinity is trimmed away in most resamples; where it is not, the interval's end says so."""
    scores = np.array([[-math.inf, 0.5], [0.4, 0.6], [0.5, 0.7], [0.6, 0.8]])
    found = stratified_bootstrap_interval(iqm, scores, seed=1, replications=2000)

    assert found.mean == pytest.approx((0.5 + 0.5 + 0.6 + 0.6) / 4)
    assert found.low == -math.inf
    assert 0.6 < found.high < 0.8


def test_the_band_of_a_profile_holds_the_profile():
    """And is nowhere wider than where half of the scores lie above."""
    scores = np.random.default_rng(8).random((10, 5))
    taus = np.linspace(-0.1, 1.1, 13)
    low, high = profile_band(scores, taus, seed=1)
    profile = performance_profile(scores, taus)

    assert (low <= profile).all()
    assert (profile <= high).all()
    assert (low[0], high[-1]) == (1.0, 0.0)
    assert (high - low).max() < 0.4


@pytest.mark.parametrize(("better", "method"), [("higher", lambda v: stats.rankdata(-v)), ("lower", stats.rankdata)])
def test_ranks_with_ties_share_their_mean(better, method):
    values = np.array([3.0, 1.0, 3.0, 2.0, 3.0, -1.0])

    assert mean_ranks(values.tolist(), better) == method(values).tolist()


def test_what_nothing_tells_apart_is_tied_by_hand():
    """a beats c, nothing else is clear: a may be 1st or 2nd, b anything, c 2nd or 3rd."""
    assert rank_ranges([[False, False, True], [False, False, False], [False, False, False]]) == [(1, 2), (1, 3), (2, 3)]


@pytest.mark.parametrize("better", ["higher", "lower"])
def test_a_method_beats_another_where_holm_adjusted_paired_t_tests_say_so(better):
    """Against scipy's test of each pair over the seeds that both have; some scores are missing."""
    rng = np.random.default_rng(5)
    scores = rng.normal([[0.0], [0.4], [0.5], [2.0], [2.0]], 0.5, (5, 12)) + rng.normal(0, 1, 12)
    scores[1, 3] = scores[2, :4] = np.nan
    pairs = list(itertools.combinations(range(5), 2))
    p_values = holm([stats.ttest_rel(scores[i], scores[j], nan_policy="omit").pvalue for i, j in pairs])
    expected = {
        (i, j) if (np.nanmean(scores[i] - scores[j]) > 0) == (better == "higher") else (j, i)
        for (i, j), p in zip(pairs, p_values, strict=True) if p <= 0.05
    }  # fmt: skip

    found = beats(scores, better)

    assert {(i, j) for i in range(5) for j in range(5) if found[i][j]} == expected
    assert 2 <= len(expected) < len(pairs)


def test_methods_that_are_equal_share_one_rank():
    """Holm keeps the chance that any of 10 equal methods is placed before another within 5 %; 400 draws: ± 2.1."""
    rng = np.random.default_rng(6)
    wrong = sum(any(map(any, beats(rng.normal(0, 1, (10, 10))))) for _ in range(400))

    assert wrong <= 400 * 0.071


@pytest.mark.parametrize("scores", [[[1.0]], [[1.0], [2.0]], [[1e308] * 6, [-1e308] * 6], [[np.nan] * 6, [1.0] * 6],
                                    [[3.0] * 6] * 2, [[0.0] * 5, [1.0] * 5], [[1.0, 1.1, 1.2, 1.1], [9.0] * 4],
                                    np.empty((2, 0)), np.empty((0, 4))])  # fmt: skip
def test_what_has_no_test_beats_nothing(scores):
    """One seed, no number that holds the difference, no common seed, no difference, 5 equal ones, 4 seeds, no methods."""
    assert not any(map(any, beats(scores)))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda: iqm([1.0, 2.0]), "give runs x tasks"),
        (lambda: iqm(np.zeros((0, 3))), "at least one of each"),
        (lambda: optimality_gap([[math.nan]]), "count what failed as the task's worst"),
        (lambda: probability_of_improvement([[1.0]], [[1.0, 2.0]]), "1 against 2 tasks"),
        (lambda: stratified_bootstrap_interval(iqm, seed=1), "no scores"),
        (
            lambda: stratified_bootstrap_interval(probability_of_improvement, [[1.0], [2.0]], [[1.0, 2.0]] * 2, seed=1),
            "1 against 2 tasks",
        ),
        (lambda: bootstrap_distribution(iqm, [[1.0], [2.0]], [[1.0]], seed=1, paired=True), "give equal ones"),
        (lambda: mean_ranks([1.0, math.nan]), "count it as the metric's worst"),
        (lambda: rank_ranges([[False], [False]]), "give m x m"),
        (lambda: rank_ranges([[True]]), "methods 0 and 0 beat each other"),
    ],
)
def test_bad_input_is_refused_with_the_mend(call, told):
    with pytest.raises(ValueError, match=told):
        call()
