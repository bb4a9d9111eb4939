"""Results of two sides: who is paired with whom, what the pairs say, and why the others have no partner."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from invoking import harness
from registry_samples import WHERE, make_attempt
from scipy import stats
from test_leaderboard import MATCHED, Filled, measured, trial

from harness.comparing import Contrast, Contrasts, compare_results, read_sides
from harness.comparing.results import judged
from harness.errors import HarnessError
from harness.leaderboard import Metric
from harness.stats import Interval, effect_size, holm, paired_interval, paired_t_p, sign_flip_p

A = (0.50, 0.62, 0.55, 0.60, 0.58)
B = (0.59, 0.70, 0.66, 0.68, 0.69)


@pytest.fixture
def filled(tmp_path):
    return Filled(tmp_path / "registry")


def compared(filled: Filled, a: str, b: str, **options: Any) -> Contrasts:
    return compare_results(filled.registry, *read_sides(filled.registry, a, b), **options)


def only(filled: Filled, a: str, b: str, **options: Any) -> Contrast:
    found = compared(filled, a, b, **options)
    assert found.apart == ()
    (contrast,) = found.contrasts
    return contrast


# Pairs ----------------------------------------------------------------------------------------------------------------


def test_two_methods_are_compared_seed_by_seed(filled):
    """Every number is what the statistics say of the differences B - A."""
    filled.add("relu", A, role="baseline")
    filled.add("silu", B)
    differences = [b - a for a, b in zip(A, B, strict=True)]

    found = only(filled, "relu", "silu")

    assert (found.method_a, found.method_b, found.metric.name) == ("relu", "silu", "accuracy")
    assert (found.a.mean, found.b.mean) == (pytest.approx(0.57), pytest.approx(0.664))
    expected = paired_interval(B, A)
    assert (found.difference.low, found.difference.high) == pytest.approx((expected.low, expected.high))
    assert found.p_holm == pytest.approx(stats.ttest_rel(A, B).pvalue, rel=1e-9)  # the same formula
    assert found.p_flip == sign_flip_p(differences)
    assert found.effect == pytest.approx(effect_size(differences))
    assert found.verdict == "better"


def test_less_is_better_where_the_metric_says_so(filled):
    for method, values in (("relu", A), ("silu", B)):
        filled.add(method, [{"error": v} for v in values], owed=("error",))

    assert only(filled, "relu", "silu").verdict == "worse"


def test_another_metric_may_be_asked_for(filled):
    for method, values in (("relu", A), ("silu", B)):
        filled.add(method, [{"accuracy": v, "nll": 1 - v} for v in values], owed=("accuracy", "nll"))

    found = compared(filled, "relu", "silu", metrics=["nll", "accuracy"])

    assert [(c.metric.name, c.verdict) for c in found.contrasts] == [("accuracy", "better"), ("nll", "better")]


def test_only_seeds_of_both_are_paired_and_the_others_are_named(filled):
    filled.add("relu", A)
    filled.add("silu", B[:3])

    found = only(filled, "relu", "silu")

    assert (found.difference.n, found.only_a, found.only_b) == (3, (3, 4), ())
    assert found.a.mean == pytest.approx(sum(A[:3]) / 3)


def test_a_failure_counts_as_the_worst_and_is_counted(filled):
    filled.add("relu", [0.5, "failed", 0.5])
    filled.add("silu", [0.6, 0.6, "diverged"])

    found = only(filled, "relu", "silu")

    assert (found.failed_a, found.failed_b) == (1, 1)
    assert found.difference.mean == pytest.approx((0.1 + 0.6 - 0.5) / 3)


def test_the_cost_is_a_ratio_of_medians_of_what_ended_well(filled):
    from harness.records import Resources

    for method, seconds in (("relu", (1.0, 2.0, 9.0)), ("silu", (4.0, 3.0, 8.0))):
        for seed, solve_s in enumerate(seconds):
            filled.append(trial(method, seed), measurements=(measured("accuracy", 0.5),), resources=Resources(solve_s=solve_s))

    assert only(filled, "relu", "silu").cost_ratio == 2.0


def test_a_matched_method_pairs_with_the_baseline_that_it_was_matched_to(filled):
    filled.add("relu", A, role="baseline")
    filled.add("maxout", B, net={"arch": "mlp", "width": 32}, matched=MATCHED)

    assert only(filled, "relu", "maxout").difference.n == 5


def test_uses_of_one_method_are_told_apart_by_what_differs(filled):
    for alpha, values in ((0.1, A), (0.2, B)):
        filled.add("elu", values, method_params={"alpha": alpha, "inplace": False})

    found = only(filled, "elu(alpha=0.1)", "elu(alpha=0.2)")

    assert (found.method_a, found.method_b, found.verdict) == ("elu(alpha=0.1)", "elu(alpha=0.2)", "better")


SIDES = {
    "commit": ("git_commit", "a" * 40, "b" * 40, "aaaa", "commit:bbbbb"),
    "machine": ("machine", "m-one", "m-two", "m-one", "machine:m-two"),
    "environment": ("environment", "e1" * 16, "e2" * 16, "e1e1e1", "environment:e2e2"),
}


@pytest.mark.parametrize("kind", SIDES)
def test_the_other_kinds_compare_each_method_with_itself(filled, kind):
    """Along the series: same method, same seed, another place or time."""
    field, first, second, a, b = SIDES[kind]
    for value, values in ((first, A), (second, B)):
        where = replace(WHERE, **{field: value})
        filled.add("relu", values, where=where)
        filled.add("silu", A, where=where)

    found = compared(filled, a, b)

    assert (found.a.kind, found.b.kind) == (kind, kind)
    assert [(c.method_a, c.method_b, c.verdict) for c in found.contrasts] == [
        ("relu", "relu", "better"), ("silu", "silu", "same")
    ]  # fmt: skip
    assert found.contrasts[0].p_holm == pytest.approx(2 * paired_t_p([[b - a for a, b in zip(A, B, strict=True)]])[0])


def test_torch_versions_are_environments(filled):
    """The version is what is asked about, so it need not agree; all else must."""
    filled.add("relu", A, torch_version="2.13.0+cpu")
    filled.add("relu", B, torch_version="2.14.0+cpu")

    assert only(filled, "2.13.0", "torch==2.14.0+cpu").verdict == "better"
    assert only(filled, "torch:2.13.0", "torch:2.14.0").verdict == "better"


def test_days_are_compared_and_what_else_changed_is_said(filled):
    """A number that moved over a weekend may have moved because the code did."""
    for day, values, code in (("2026-09-21", A, "c1"), ("2026-09-22", B, "c2")):
        for seed, value in enumerate(values):
            one = trial("relu", seed, code_digest=code)
            filled.append(one, measurements=(measured("accuracy", value),), started_at=f"{day}T10:00:0{seed}+00:00")

    found = compared(filled, "2026-09-21", "date:2026-09-22")

    assert [c.verdict for c in found.contrasts] == ["better"]
    assert found.besides == ("code digest: c1 against c2",)


def test_on_each_side_the_latest_attempt_counts(filled):
    """A trial that ran twice within a commit is one trial; another commit's later attempt does not hide it."""
    first, second = (replace(WHERE, git_commit=letter * 40) for letter in "ab")
    filled.add("relu", [0.1, 0.1], where=first)
    filled.add("relu", [0.5, 0.6], where=first)
    filled.add("relu", ["unsupported", "unsupported"], where=first)
    filled.add("relu", [0.7, 0.9], where=second)

    found = only(filled, "a" * 40, "b" * 40)

    assert (found.a.mean, found.b.mean) == (pytest.approx(0.55), pytest.approx(0.8))


def test_what_is_annotated_as_invalid_counts_for_nothing(filled):
    filled.add("relu", A)
    filled.add("silu", B)
    wrong = filled.append(trial("silu", 0), measurements=(measured("accuracy", 0.0),))
    filled.registry.annotate([wrong.attempt_id], "invalid", "throttled", "a test")

    assert only(filled, "relu", "silu").b.mean == pytest.approx(0.664)


def test_packages_of_two_environments_are_shown_where_they_differ(filled):
    """Who asks why torch 2.14 is worse wants to know what else came with it."""
    packages: tuple[dict[str, str], ...] = (
        {"torch": "2.13.0", "numpy": "2.1", "old": "1"},
        {"torch": "2.14.0", "numpy": "2.1"},
    )
    for name, held, values in zip(("e1" * 16, "e2" * 16), packages, (A, B), strict=True):
        where = replace(WHERE, environment=name, environment_facts={"python": "3.11", "packages": held})
        filled.add("relu", values, where=where, torch_version=held["torch"])

    found = compared(filled, "2.13.0", "2.14.0")

    assert found.packages == (("old", "1", ""), ("torch", "2.13.0", "2.14.0"))


# No partner -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"device": "cuda"}, "device: cpu against cuda"),
        ({"dtype": "float64"}, "dtype: float32 against float64"),
        ({"threads": 4}, "threads: 1 against 4"),
        ({"torch_version": "2.14.0"}, "torch_version: 2.13.0 against 2.14.0"),
        ({"net": {"arch": "mlp", "width": 128}}, "net.width: 64 against 128"),
        ({"net": None, "train": None}, 'net: {"arch":"mlp","width":64} against nothing'),
        ({"budget": {"samples_seen": 60000}}, "budget.samples_seen: 30000 against 60000"),
        ({"task_params": {"fraction": 0.5}}, "task_params.fraction: 1.0 against 0.5"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_differs_is_named_where_nothing_pairs(filled, changes, told):
    """ "not comparable" alone sends people to SQL."""
    filled.add("relu", A)
    filled.add("silu", B, **changes)

    found = compared(filled, "relu", "silu")

    assert found.contrasts == ()
    assert [(each.side, each.method, each.seeds) for each in found.apart] == [("a", "relu", 5), ("b", "silu", 5)]
    assert told in found.apart[0].because


def test_the_nearest_result_is_the_one_that_is_told_against(filled):
    filled.add("relu", A)
    filled.add("silu", B, device="cuda", dtype="float64")
    filled.add("silu", B, threads=2)

    found = compared(filled, "relu", "silu")

    assert found.apart[0].because == ("threads: 1 against 2",)


def test_seeds_that_do_not_meet_are_named(filled):
    filled.add("relu", A)
    for seed in (7, 8, 10):
        filled.append(trial("silu", seed), measurements=(measured("accuracy", 0.5),))

    (apart,) = compared(filled, "relu", "silu").apart

    assert apart.because == ("no seed in common: 0-4 against 7-8, 10",)


def test_a_task_that_one_side_never_ran_is_said(filled):
    filled.add("relu", A, task="d/one")
    filled.add("relu", A, task="d/two")
    filled.add("silu", B, task="d/one")

    found = compared(filled, "relu", "silu")

    assert len(found.contrasts) == 1
    assert [(each.where["task"], each.because) for each in found.apart] == [
        ("d/two", ("the other side has no such results",))
    ]  # fmt: skip


# Words ----------------------------------------------------------------------------------------------------------------


def contrast(values: list[float], better: str = "higher", mean: float = 1.0) -> Contrast:
    difference = paired_interval(values, [0.0] * len(values))
    p = float(paired_t_p([values])[0])
    mine = Interval(mean, None, None, len(values))
    metric, nothing = Metric("m", "1", better), ((), ())
    return Contrast({}, metric, "a", "b", mine, mine, difference, None, p, None, 0, 0, None, (), (), "ambiguous", nothing)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.1, 0.11, 0.09, 0.1, 0.1], "better"), ([-0.1, -0.11, -0.09, -0.1, -0.1], "worse"),
        ([0.1, 0.11, 0.09, 0.1], "ambiguous"), ([0.1] * 5, "ambiguous"), ([0.1] * 6, "better"), ([0.001, -0.001, 0.0], "same"),
        ([0.1, -0.1, 0.0], "ambiguous"),
        ([0.0, 0.0], "same"), ([0.1], "ambiguous"), ([0.0], "ambiguous"),
    ],
)  # fmt: skip
def test_no_significance_is_no_sameness(values, said):
    """`same` is a claim like the others: it needs the whole interval. One seed says nothing,
    fewer than 5 do not say better or worse, and the same difference each time counts as its sign flips do."""
    assert judged([contrast(values)])[0].verdict == said


def test_a_table_of_many_comparisons_is_one_family():
    """What one comparison alone would show at 5 % may be chance among many."""
    values = [0.1, 0.13, 0.02, 0.12, 0.03]
    alone = judged([contrast(values)])[0]
    among = judged([contrast(values), *[contrast([0.1, -0.1, 0.0])] * 9])

    assert (alone.verdict, among[0].verdict) == ("better", "ambiguous")
    assert among[0].p_holm == pytest.approx(holm([alone.p_holm, *[1.0] * 9])[0])


def test_two_equal_methods_seldom_seem_to_differ():
    """A against A in a table of 4: at most 5 % of tables have a false word; 400 tables: ± 2.1."""
    rng = random.Random(4)
    tables = [judged([contrast([rng.gauss(0, 1) for _ in range(8)]) for _ in range(4)]) for _ in range(400)]

    assert sum(any(c.verdict in ("better", "worse") for c in table) for table in tables) <= 400 * 0.071


# What A and B are -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "told"),
    [
        (
            "relo",
            "silu",
            "'relo' is no method, machine, environment, commit or date here; did you mean 'relu'?; there are methods relu, sw",
        ),
        ("relu", "m-1", "'relu' is the method paper-harness/relu, 'm-1' is the machine m-1: compare two of one kind"),
        ("relu", "paper-harness/relu", "are the same: the method paper-harness/relu"),
        ("relu", "commit:relu", "'commit:relu' is no method"),
        (
            "abcd",
            "relu",
            "'abcd' may mean several things; write one of them: commit:abcdef0 (the commit abcdef0); commit:abcdef1",
        ),
        ("same", "relu", "write one of them: method:d/same (the method d/same); machine:same"),
        ("swish", "relu", "write one of them: method:one/swish (the method one/swish); method:two/swish"),
        ("nothing", "nobody", "'nobody' is no method"),
    ],
)
def test_a_name_that_means_nothing_or_too_much_is_refused_with_the_mend(filled, a, b, told):
    """Guessing wrong would answer another question."""
    for method in ("relu", "silu", "d/same", "one/swish", "two/swish"):
        filled.add(method, A[:1])
    for commit, machine in (("abcdef0", "m-1"), ("abcdef1", "same")):
        filled.add("relu", A[:1], where=replace(WHERE, git_commit=commit, machine=machine))

    with pytest.raises(HarnessError) as refused:
        read_sides(filled.registry, a, b)

    assert told in str(refused.value)


def test_a_whole_commit_is_what_it_says_also_if_another_begins_with_it(filled):
    for commit in ("abcd", "abcdef"):
        filled.add("relu", A, where=replace(WHERE, git_commit=commit))

    a, b = read_sides(filled.registry, "abcd", "abcde")

    assert (a.values, b.values) == (("abcd",), ("abcdef",))


def test_an_empty_registry_says_what_to_run(filled):
    with pytest.raises(HarnessError, match="run a suite first"):
        read_sides(filled.registry, "relu", "silu")


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_says_what_it_understood_and_what_came_out(filled):
    filled.add("relu", A, role="baseline")
    filled.add("silu", B)
    filled.add("silu", B, task="d/other")

    told = harness("compare", "relu", "silu", "--registry", filled.registry.path)
    markdown = harness("compare", "relu", "silu", "--markdown", "--registry", filled.registry.path)
    [contrast] = harness("compare", "relu", "silu", "--json", "--registry", filled.registry.path).json["contrasts"]

    assert told.code == 0, told.err
    for text in ("A: relu, the method paper-harness/relu", "B: silu, the method", "better", "not comparable: silu on other"):
        assert text in told.out
        assert text in markdown.out
    assert contrast["verdict"] == "better"
    assert f"{contrast['difference']['mean']:+.3f}" in told.out


def test_where_nothing_pairs_the_command_says_why_and_exits_4(filled):
    filled.add("relu", A)
    filled.add("silu", B, device="cuda")

    told = harness("compare", "relu", "silu", "--registry", filled.registry.path)

    assert told.code == 4
    assert "nothing can be compared" in told.out
    assert "not comparable: relu on digits, mlp (A, 5 seeds) because device: cpu against cuda" in told.out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["relu"], "got 1 names; give two"),
        ([], "give two, such as `harness compare relu crrelu`, or --kernels without names"),
        (["relu", "silu", "--kernel", "x"], "choose kernels; add --kernels"),
        (["eager", "ours", "--kernels", "--task", "digits"], "choose results; leave out --kernels"),
    ],
)
def test_mistakes_of_the_command_line_are_refused_with_the_mend(filled, words, told):
    answer = harness("compare", *words, "--registry", filled.registry.path)

    assert (answer.code, told in answer.err) == (2, True), answer.err


def test_a_record_that_no_harness_writes_is_left_out_with_a_warning(filled):
    filled.add("relu", A)
    filled.add("silu", B)
    strange = trial("silu", 9, net={"width": 3})
    filled.registry.append(make_attempt(99, strange))

    found = compared(filled, "relu", "silu")

    assert len(found.contrasts) == 1
    assert any("net names no arch" in warning for warning in filled.registry.warnings)
