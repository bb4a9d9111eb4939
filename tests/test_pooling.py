"""Several tasks together: which boards are pooled, and what a pool says, against numbers computed without it."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

import numpy as np
import pytest
from invoking import harness
from registry_samples import MACHINE
from test_leaderboard import Filled

from harness.pooling import make_pools
from harness.stats import holm, iqm, probability_of_improvement, signed_rank_p, t_interval

TASKS = ("d/a", "d/b", "d/c")


@pytest.fixture
def filled(tmp_path):
    return Filled(tmp_path / "registry")


def fill(filled: Filled, methods: dict[str, float], seeds: int = 4, **changes: Any) -> dict[str, np.ndarray]:
    """Accuracies of each method on each task; runs x tasks by method."""
    rng = np.random.default_rng(3)
    found = {}
    for method, level in methods.items():
        scores = np.clip(rng.normal(level, 0.05, (seeds, len(TASKS))), 0, 1)
        for i, task in enumerate(TASKS):
            role = "baseline" if method == "relu" else "method"
            filled.add(method, scores[:, i].tolist(), task=task, role=role, **changes)
        found[method] = scores
    return found


def test_a_pool_says_what_the_statistics_of_its_scores_say(filled):
    """Method by method, from the numbers that were recorded."""
    scores = fill(filled, {"relu": 0.5, "silu": 0.55, "elu": 0.3})

    [pool] = make_pools(filled.boards())
    rows = {row.method: row for row in pool.rows}

    assert (pool.tasks, pool.baseline, pool.metric.name) == (("a", "b", "c"), "relu", "accuracy")
    for method, row in rows.items():
        assert row.iqm.mean == pytest.approx(iqm(scores[method]))
        assert row.iqm.low < row.iqm.mean < row.iqm.high
        assert row.profile[0] > row.profile[-1] == 0.0
        assert (row.runs, row.n_failed) == (4, 0)
    assert rows["relu"].improvement is None
    assert rows["silu"].improvement.mean == pytest.approx(probability_of_improvement(scores["silu"], scores["relu"]))
    assert [row.rank.mean for row in pool.rows] == sorted(row.rank.mean for row in pool.rows)
    assert rows["elu"].rank.mean == 3.0


def test_ranks_and_signed_ranks_take_the_tasks_as_their_sample(filled):
    """Eight tasks, two seeds: the means of the seeds are ranked and tested, and Holm counts the methods."""
    rng = np.random.default_rng(11)
    tasks = [f"d/t{i}" for i in range(8)]
    means = {method: rng.uniform(0.3, 0.8, 8).round(3) for method in ("relu", "silu", "elu")}
    means["silu"] = means["relu"] + np.linspace(0.01, 0.08, 8)
    for method, levels in means.items():
        for task, level in zip(tasks, levels.tolist(), strict=True):
            filled.add(method, [level - 0.01, level + 0.01], task=task, role="baseline" if method == "relu" else "method")

    [pool] = make_pools(filled.boards())
    rows = {row.method: row for row in pool.rows}
    order = [sorted(means, key=lambda m, i=i: -means[m][i]) for i in range(8)]

    assert rows["silu"].rank == t_interval([float(1 + each.index("silu")) for each in order])
    raw = [signed_rank_p((means[m] - means["relu"]).tolist()) for m in ("silu", "elu")]
    assert (rows["silu"].p, rows["elu"].p) == pytest.approx(holm(raw))
    assert rows["silu"].p == pytest.approx(2 * 2 / 2**8)  # all eight the same way, times two methods
    assert rows["relu"].p is None


def test_a_test_over_a_few_tasks_is_not_shown(filled):
    """Of four tasks no sign pattern is rare."""
    fill(filled, {"relu": 0.5, "silu": 0.9})

    assert {row.p for row in make_pools(filled.boards())[0].rows} == {None}


def test_the_same_boards_give_the_same_pool(filled):
    fill(filled, {"relu": 0.5, "silu": 0.55})

    assert make_pools(filled.boards()) == make_pools(filled.boards())


def test_where_less_is_better_the_pool_keeps_the_metrics_unit(filled):
    """An error of 0.2 is shown as 0.2, and beats 0.4."""
    for task in TASKS:
        for method, level in (("relu", 0.4), ("silu", 0.2)):
            filled.add(method, [{"error": level + e / 100} for e in range(3)], task=task, owed=("error",))

    [pool] = make_pools(filled.boards())

    best = pool.rows[0]
    assert (best.method, best.rank.mean) == ("silu", 1.0)
    assert best.iqm.mean == pytest.approx(0.21)
    assert best.iqm.low <= best.iqm.mean <= best.iqm.high
    assert all(a > b for a, b in zip(pool.taus, pool.taus[1:], strict=False))


def test_a_failure_counts_as_the_worst_in_a_pool_too(filled):
    fill(filled, {"relu": 0.5})
    for task in TASKS:
        filled.add("silu", [0.9, "failed", 0.9, 0.9], task=task)

    [pool] = make_pools(filled.boards())

    silu = next(row for row in pool.rows if row.method == "silu")
    assert silu.n_failed == 3
    assert silu.iqm.mean == pytest.approx(0.9)  # of 12 scores the 3 zeros are among those that are dropped
    assert silu.profile[0] == pytest.approx(9 / 12)


def test_tasks_with_different_metrics_have_no_common_mean(filled):
    """Accuracies and errors cannot be averaged; who is better more often can be counted."""
    filled.add("relu", [0.5, 0.6], task="d/a", role="baseline")
    filled.add("silu", [0.7, 0.8], task="d/a")
    filled.add("relu", [{"error": 0.5}, {"error": 0.6}], task="d/b", role="baseline", owed=("error",))
    filled.add("silu", [{"error": 0.1}, {"error": 0.2}], task="d/b", owed=("error",))

    [pool] = make_pools(filled.boards())

    assert (pool.metric, pool.taus) == (None, ())
    assert [(row.method, row.iqm, row.rank.mean) for row in pool.rows] == [("silu", None, 1.0), ("relu", None, 2.0)]
    assert pool.rows[0].improvement.mean == 1.0


def test_what_is_not_on_all_tasks_is_left_out_with_the_reason(filled):
    fill(filled, {"relu": 0.5, "silu": 0.6})
    filled.add("elu", [0.5] * 4, task="d/a")
    for i, task in enumerate(TASKS):
        filled.add("gelu", [0.5] * (4 - i), task=task)

    [pool] = make_pools(filled.boards())

    assert {row.method for row in pool.rows} == {"relu", "silu"}
    assert pool.left_out == {
        "elu": "not ranked on b, c",
        "gelu": "its numbers of scores differ: 4 on a, 3 on b, 2 on c",
    }


@pytest.mark.parametrize("changes", [{"net": {"arch": "cnn", "width": 8}}, {"device": "cuda"}, {"torch_version": "2.14.0"}])
def test_only_what_agrees_in_all_but_task_and_budget_is_pooled(filled, changes):
    for method in ("relu", "silu"):
        filled.add(method, [0.5, 0.6], task="d/a")
        filled.add(method, [0.5, 0.6], task="d/b", **changes)

    assert make_pools(filled.boards()) == []


def test_each_task_may_have_its_own_budget_but_no_task_is_pooled_twice(filled):
    """Epochs become samples seen, as many as the task has; one task under two budgets is no two tasks."""
    for method in ("relu", "silu"):
        filled.add(method, [0.5, 0.6], task="d/a", budget={"samples_seen": 10.0})
        filled.add(method, [0.5, 0.6], task="d/b", budget={"samples_seen": 20.0})
        filled.add(method, [0.5, 0.6], task="d/b", budget={"samples_seen": 30.0})

    pools = make_pools(filled.boards())

    assert [pool.tasks for pool in pools] == [("a", "b")]


def test_numbers_that_overflow_make_a_pool(filled):
    """What diverged may be finite and huge; a warning of an array library is no answer."""
    for task in TASKS:
        for method in ("relu", "silu"):
            filled.add(method, [{"nll": 1e308}, {"nll": -1e308}, {"nll": 1.0}], task=task, owed=("nll",))

    [pool] = make_pools(filled.boards())

    assert {row.improvement for row in pool.rows} == {None}
    assert all(math.isfinite(row.rank.mean) for row in pool.rows)


def test_the_pool_stands_below_the_boards_in_every_format(filled):
    scores = fill(filled, {"relu": 0.5, "silu": 0.6})
    where = ("--registry", filled.registry.path, "--machine", MACHINE)

    [made] = harness("leaderboard", "--json", *where).json["pools"]
    lines = [r for r in csv.DictReader(io.StringIO(harness("leaderboard", "--csv", *where).out)) if r["section"] == "pool"]
    table, markdown = harness("leaderboard", *where).out, harness("leaderboard", "--markdown", *where).out

    assert [float(line["iqm_mean"]) for line in lines] == [row["iqm"]["mean"] for row in made["rows"]]
    for text in (f"{iqm(scores['silu']):.4g} [", "P(beats relu)", "3 tasks: a, b, c"):
        assert text in table
        assert text in markdown
