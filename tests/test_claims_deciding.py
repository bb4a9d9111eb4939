"""From values to a word: the nodes' numbers, three-valued logic, intervals against ranges, levels of several conditions."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from claim_samples import spread

from harness.claims.deciding import Ends, above, combine, decide
from harness.claims.numbers import numbers, shared_given, words
from harness.rules import (
    All,
    AtLeast,
    Cell,
    Corr,
    Diff,
    Every,
    Over,
    Rank,
    Ratio,
    Seeds,
    Share,
    Slope,
    Tasks,
    Within,
    better,
    given,
    non_inferior,
)
from harness.stats import signed_rank_interval, signed_rank_p, t_interval

A, B, C = (Cell(name, "t", "m") for name in "abc")
S, R, I = "supported", "refuted", "inconclusive"  # noqa: E741
TRIPLES = list(itertools.product([S, R, I], repeat=3))


def word(rule, n=10, effect=None, alpha=0.05, **values):
    found = {Cell(name, "t", "m"): list(v) for name, v in values.items()}
    return decide(rule, found, {}, n, alpha, effect)


# Numbers --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (A, 2.0),
        (Diff(A, B), -1.0),
        (Ratio(A, B), 2 / 3),
        (Ratio(A, Diff(B, B)), math.inf),
        (Over((A, B, C), "mean"), 4.0),
        (Over((A, B, C), "min"), 2.0),
        (Over((A, B, C), "max"), 7.0),
        (Over((A, B, C), "median"), 3.0),
        (Rank(A, (A, B, C)), 3.0),
        (Rank(A, (A, B, C), "lower"), 1.0),
        (Slope(((1.0, A), (2.0, B), (6.0, C)), "linear", "linear"), 1.0),
        (Slope(((1.0, A), (math.e, Ratio(B, Ratio(B, A)))), "log", "log"), 0.0),
        (Slope(((1.0, Diff(A, A)), (2.0, B)), "log", "log"), None),  # the logarithm of 0
        (Ratio(Diff(A, A), Diff(A, A)), None),  # 0 / 0
    ],
)
def test_a_node_gives_one_number_a_seed(node, expected):
    """Worked by hand; a number that is none is missing, as one that was not measured."""
    (got,) = numbers(node, {A: [2.0], B: [3.0], C: [7.0]}, 1)

    assert got == (None if expected is None else pytest.approx(expected))


def test_ranks_share_their_mean_where_methods_tie():
    assert numbers(Rank(A, (A, B, C)), {A: [2.0], B: [2.0], C: [1.0]}, 1) == (1.5,)


@pytest.mark.parametrize("node", [Diff(A, B), Ratio(A, B), Over((A, B), "max"), Rank(A, (A, B)), Slope(((1.0, A), (2.0, B)))])
def test_a_seed_that_lacks_one_of_its_values_has_no_number(node):
    """Not even the maximum, which the other values might decide."""
    assert numbers(node, {A: [2.0, 2.0], B: [None, 1.0]}, 2)[0] is None


# Three-valued logic ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", TRIPLES)
def test_all_is_supported_by_all_and_refuted_by_one(found):
    """Every combination of three: what an open condition could still become decides."""
    outcomes = {
        all(w == S for w in ends) for ends in itertools.product(*([S, R] if w == I else [w] for w in found))
    }  # fmt: skip
    expected = I if len(outcomes) == 2 else S if outcomes == {True} else R

    assert combine(3, found) == expected


@pytest.mark.parametrize("found", TRIPLES)
@pytest.mark.parametrize("k", [1, 2, 3])
def test_at_least_k_is_decided_as_soon_as_the_open_ones_cannot_change_it(found, k):
    outcomes = {
        ends.count(S) >= k for ends in itertools.product(*([S, R] if w == I else [w] for w in found))
    }  # fmt: skip
    expected = I if len(outcomes) == 2 else S if outcomes == {True} else R

    assert combine(k, found) == expected


# Ranges ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "rule", "expected"),
    [
        (0.02, Within(A, low=0.0), S),
        (-0.02, Within(A, low=0.0), R),
        (0.002, Within(A, low=0.0), I),
        (0.02, Within(A, high=0.0), R),
        (0.02, Within(A, low=0.0, high=0.1), S),
        (0.12, Within(A, low=0.0, high=0.1), R),
        (0.095, Within(A, low=0.0, high=0.1), I),
        (-0.02, Within(A, low=0.0, slack=0.05), I),  # beyond, but by no more than the slack
        (-0.07, Within(A, low=0.0, slack=0.05), R),
        (0.12, Within(A, low=0.0, high=0.1, slack=0.05), I),
        (0.02, Within(Seeds(A, "mean"), low=0.0), S),
        (0.02, Within(Seeds(A, "median"), low=0.0), S),
        (-0.02, Within(Seeds(A, "iqm"), low=0.0), R),
    ],
)
def test_an_interval_inside_supports_one_beyond_refutes_and_else_it_is_open(mean, rule, expected):
    """Ten seeds with a standard deviation of 0.01: the interval is the mean +- 0.0072."""
    got, (decision,) = word(rule, a=spread(mean))

    assert got == decision.word == expected


def test_the_interval_is_the_paired_t_interval_of_the_differences():
    """What is shown is what decided: checked against the statistics' own function."""
    a, b = spread(0.9), [0.85, 0.86, 0.84, 0.83, 0.88, 0.84, 0.85, 0.86, 0.87, 0.82]
    got, (decision,) = word(better("a", "b", "t", "m"), a=a, b=b)
    expected = t_interval([x - y for x, y in zip(a, b, strict=True)])

    assert got == S
    assert (decision.estimate, decision.interval_low, decision.interval_high) == (expected.mean, expected.low, expected.high)
    assert (decision.n, decision.confidence, len(decision.values)) == (10, 0.95, 10)


def test_equal_numbers_do_not_support_better_but_non_inferior():
    """A method that does the same as another is not better: touching the limit is not enough."""
    same = spread(0.9)

    assert word(better("a", "b", "t", "m"), a=same, b=same)[0] == I
    assert word(non_inferior("a", "b", "t", "m", 0.01), a=same, b=same)[0] == S
    assert word(better("a", "b", "t", "m", by=0.02), a=[0.92] * 10, b=[0.9] * 10)[0] == I  # 0.02 but for rounding


@pytest.mark.parametrize(("value", "other", "expected"), [(1.0, 0.0, True), (0.92 - 0.9, 0.02, False), (math.nan, 0.0, False),
                                                          (math.inf, 1.0, True), (0.0, -math.inf, True)])  # fmt: skip
def test_above_means_by_more_than_rounding(value, other, expected):
    assert above(value, other) is expected


def test_fewer_than_ten_pairs_decide_nothing():
    """However clear it looks."""
    assert word(Within(A, low=0.0), n=9, a=spread(5.0, 9))[0] == I


def test_a_missing_seed_leaves_a_comparison_open_and_the_rest_is_shown():
    """One look at the seeds that the claim names: what is there so far is shown, and decides nothing."""
    values = [None, *spread(5.0)[1:]]
    got, (decision,) = word(Within(A, low=0.0), a=values)

    assert got == I
    assert (decision.n, decision.values[0]) == (9, None)
    assert decision.interval_low > 0


def test_what_diverged_without_bound_leaves_a_mean_open_and_not_a_median():
    values = [*spread(5.0)[1:], math.inf]

    assert word(Within(A, low=0.0), a=values)[0] == I
    assert word(Within(Seeds(A, "median"), low=0.0), a=values)[0] == S


@pytest.mark.parametrize(
    ("hits", "rule", "expected"),
    [
        (9, Within(Share(A, low=1.0), low=0.5), S),
        (7, Within(Share(A, low=1.0), low=0.5), I),
        (0, Within(Share(A, low=1.0), low=0.5), R),
        (0, Within(Share(A, low=1.0), low=0.5, slack=0.4), I),
    ],
)
def test_a_share_is_decided_by_its_exact_interval(hits, rule, expected):
    """9 of 10: [0.555, 0.997]; 7 of 10: [0.348, 0.933]; 0 of 10: [0, 0.308] (Clopper and Pearson)."""
    assert word(rule, a=[1.0] * hits + [0.5] * (10 - hits))[0] == expected


def test_a_correlation_is_decided_by_its_interval():
    rising = list(range(20))

    assert word(Within(Corr(A, B), low=0.5), n=20, a=rising, b=rising)[0] == S
    assert word(Within(Corr(A, B), low=0.5), n=20, a=rising, b=rising[::-1])[0] == R


EXTREMES = (1e308, -1e308, 5e-324, -0.0, 0.0, math.inf, -math.inf, math.nan, None, 0.5)
NODES = (
    A, Diff(A, B), Ratio(A, B), Over((A, B), "median"), Rank(A, (A, B)), Slope(((1.0, A), (2.0, B))), Seeds(A, "median"),
    Seeds(Diff(A, B), "iqm"), Share(Diff(A, B), low=0.0), Corr(A, B),
)  # fmt: skip


@pytest.mark.parametrize("node", NODES, ids=lambda node: type(node).__name__)
def test_no_number_that_a_record_may_hold_breaks_the_judge(node):
    """Overflowing sums, infinities, NaN: the word may be open, and is never an exception."""
    rng = random.Random(repr(node))
    for _ in range(200):
        values = {name: [rng.choice(EXTREMES) for _ in range(10)] for name in "ab"}
        got, (decision,) = word(Within(node, low=0.0), effect=0.1, **values)
        assert got in (S, R, I)
        assert got == I or decision.interval_low is not None


# Every ----------------------------------------------------------------------------------------------------------------


def test_every_is_closed_and_one_counterexample_refutes_whatever_is_missing():
    """A bound that is equal is sound; one below is not, and no further seed can mend it."""
    sound = Every(Ratio(A, B), low=1.0)

    assert word(sound, a=[1.0] * 10, b=[1.0] * 10)[0] == S
    assert word(sound, a=[1.0] * 9 + [0.999], b=[1.0] * 10)[0] == R
    assert word(sound, a=[None] * 9 + [0.999], b=[1.0] * 10)[0] == R
    assert word(sound, a=[None] + [1.5] * 9, b=[1.0] * 10)[0] == I
    assert word(Every(A, low=1.0, at_least=11), a=[1.5] * 10)[0] == I


# Levels ---------------------------------------------------------------------------------------------------------------


def test_one_condition_of_several_has_to_lie_further_beyond_to_refute_all():
    """Each of 5 true conditions may look refuted by chance; all are supported only if each one is, at the full level."""
    # +-0.00715 at 95 %, +-0.0103 at 99 %
    one, (single,) = word(Within(A, high=0.0), a=spread(0.009))
    rule = All((Within(A, high=0.0), *(Within(B, low=0.0),) * 4))
    five, decisions = word(rule, a=spread(0.009), b=spread(0.009))

    assert one == R
    assert five == I
    assert [d.word for d in decisions] == [I, S, S, S, S]
    assert single.refuting_confidence == pytest.approx(0.95)
    assert {d.confidence for d in decisions} == {0.95}
    assert decisions[0].refuting_confidence == pytest.approx(0.99)


def test_one_condition_of_several_has_to_lie_further_inside_to_support_any():
    """At least 1 of 5: each has its chance to be called by accident."""
    rule = AtLeast(1, (Within(A, low=0.0), *(Within(B, low=0.0),) * 4))

    assert word(rule, a=spread(0.009), b=spread(-0.02))[0] == I
    assert word(rule, a=spread(0.012), b=spread(-0.02))[0] == S
    assert word(rule, a=spread(-0.009), b=spread(-0.009))[0] == R  # all five, at the full level


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e6])
def test_a_difference_that_is_only_rounding_wins_nothing(size):
    """0.3 - (0.1 + 0.2) at every seed is less than 0 by 1e-17, and has no spread."""
    high, low = [(0.1 + 0.2) * size] * 10, [0.3 * size] * 10

    assert word(better("a", "b", "t", "m"), a=high, b=low)[0] == I
    assert word(better("a", "b", "t", "m"), a=low, b=high)[0] == I
    assert word(better("a", "b", "t", "m"), a=[x + 1e-9 * size for x in high], b=low)[0] == S


# Power ----------------------------------------------------------------------------------------------------------------


def test_power_and_the_seeds_needed_are_those_of_the_paired_t_test():
    """Cohen's table 2.3.5 (two-sided 0.05): d = 0.5 takes 34 pairs for 80 %, and d = 0.8 has 0.61 of ten."""
    _, (half,) = word(Within(A, low=0.0), effect=0.005, a=spread(0.001))
    _, (most,) = word(Within(A, low=0.0), effect=0.008, a=spread(0.001))

    assert half.seeds_needed == 34
    assert most.power == pytest.approx(0.62, abs=0.02)
    assert half.detectable == pytest.approx(0.00996, abs=1e-4)


def test_the_power_of_a_share_is_that_of_its_exact_interval():
    """The card of the Boolean nets: a share of 0.6 against a limit of 0.3 with 40 seeds."""
    _, (decision,) = word(Within(Share(A, low=1.0), low=0.3), n=40, effect=0.3, a=[1.0] * 18 + [0.0] * 22)

    # 19 of 40 are the fewest whose interval lies above 0.3: P(X >= 19 | 0.6) = 0.9608
    assert decision.power == pytest.approx(0.9608, abs=1e-3)


# Words ----------------------------------------------------------------------------------------------------------------


def test_a_decision_says_in_words_what_is_compared():
    """What all cells are given tells none of them apart, and is left out."""
    mlp, vit = ({"net__arch": arch, "budget__steps": 3} for arch in ("mlp", "vit"))
    rule = All((better("a", "b", "t", "m", **mlp), better("a", "b", "t", "m", **vit)))

    assert [words(part.node, shared_given(rule)) for part in rule.rules] == [
        "m of a - b on t (arch=mlp)", "m of a - b on t (arch=vit)",
    ]  # fmt: skip
    assert (
        words(Share(Cell("a", "t", "m", given(method__beta=0.2)), low=1.0)) == "share of seeds with m of a on t (beta=0.2) >= 1"
    )
    assert words(Slope(((2.0, A), (4.0, B)))) == "slope of log [m of a on t, ...] over log 2, 4"


# Over tasks -----------------------------------------------------------------------------------------------------------


def on_tasks(method: str, n: int = 12) -> list[Cell]:
    return [Cell(method, "table", "m", given(task__name=f"t{i}")) for i in range(n)]


def over(how="signed-rank", n=12):
    """a - b on each of n tasks."""
    return Tasks(tuple(itertools.starmap(Diff, zip(on_tasks("a", n), on_tasks("b", n), strict=True))), how)


def judged(rule, a, b, ends=None, n=None):
    """a, b: of each task its values, one a seed."""
    values = dict(zip([*on_tasks("a", len(a)), *on_tasks("b", len(b))], [*a, *b], strict=True))
    return decide(rule, values, {}, n or len(a[0]), 0.05, None, ends)


@pytest.mark.parametrize(("how", "interval"), [("signed-rank", signed_rank_interval), ("mean", t_interval)])
def test_over_tasks_the_sample_is_one_mean_of_the_seeds_a_task(how, interval):
    """Two seeds of 12 tasks are 12 numbers, not 24: what varies from task to task is what the interval is about."""
    a = [[0.9 + 0.01 * i, 0.92 + 0.01 * i] for i in range(12)]
    b = [[0.88, 0.9 + 0.002 * i] for i in range(12)]
    differences = [sum(x) / 2 - sum(y) / 2 for x, y in zip(a, b, strict=True)]

    got, (decision,) = judged(Within(over(how), low=0.0), a, b)
    expected = interval(differences)

    assert got == S
    assert (decision.estimate, decision.interval_low, decision.interval_high) == pytest.approx(
        (expected.mean, expected.low, expected.high)
    )
    assert decision.values == pytest.approx(differences)
    assert (decision.n, decision.wanted, decision.tasks) == (12, 12, True)


@pytest.mark.parametrize(
    ("differences", "expected"),
    [
        ([0.01] * 10 + [-0.001, -0.002], S),  # two small losses against ten
        ([0.01] * 10 + [-0.5, -0.5], I),  # two large ones have the largest ranks
        ([-0.01] * 12, R),
        ([0.0] * 12, I),
        ([0.01] * 4 + [0.0] * 8, I),  # where nothing tells them apart, four tasks do not
        ([0.9] + [0.001, -0.001] * 5 + [0.001], I),  # one task, however far, is one rank
    ],
)
def test_over_tasks_it_is_wilcoxons_test_that_decides(differences, expected):
    """One seed is enough: tasks are the sample. The p beside it is of the same test."""
    got, (decision,) = judged(Within(over(), low=0.0), [[0.5 + d] for d in differences], [[0.5]] * 12)

    assert got == expected
    assert decision.p == pytest.approx(signed_rank_p(differences))


def test_a_task_that_lacks_a_seed_leaves_the_rest_open():
    """The tasks that are there are shown; to leave one out would flatter the method that failed on it."""
    a = [[0.9, 0.9]] * 11 + [[0.9, None]]

    got, (decision,) = judged(Within(over(), low=0.0), a, [[0.5, 0.5]] * 12)

    assert (got, decision.n, decision.wanted, decision.values[-1]) == (I, 11, 12, None)


def test_over_tasks_a_cell_that_failed_says_nothing_and_a_divergence_counts():
    """As with seeds: to diverge is a method's own doing, to be killed is not."""
    a, b = [[0.9]] * 11 + [[0.0]], [[0.5]] * 12
    last = on_tasks("a")[-1]

    killed, (one,) = judged(Within(over(), low=0.0), a, b, Ends([0], {last: ["timeout"]}))
    diverged, _ = judged(Within(over(), low=0.0), a, b, Ends([0], {last: ["diverged"]}))

    assert (killed, "failed at every seed" in one.lacks) == (I, True)
    assert diverged == S
    assert one.what == "pseudomedian over tasks of [m of a - b on each of 12 tasks]"


def test_mean_ranks_over_tasks_are_compared_like_any_number():
    """What average-rank tables show, as a rule: a is first on every task, so its rank is one better."""
    ranks = Tasks(
        tuple(
            Diff(Rank(a, (a, b)), Rank(b, (a, b))) for a, b in zip(on_tasks("a"), on_tasks("b"), strict=True)
        ), "mean",
    )  # fmt: skip
    a = [[0.9]] * 11 + [[0.4]]

    got, (decision,) = judged(Within(ranks, high=0.0), a, [[0.5]] * 12)

    assert (got, decision.unit) == (S, "rank")
    assert decision.estimate == pytest.approx(-10 / 12)
    assert "rank of a among 2 by m on each of 12 tasks" in decision.what
