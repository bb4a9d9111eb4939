"""The C code against the torch code step by step; what runs side by side changes no bit; bad numbers end a search."""

from __future__ import annotations

import numpy as np
import pytest
from harness_papers.boolean_rrr import MultiplierParams, Rule30Params, c_search
from harness_papers.boolean_rrr.c_search import CSearch
from harness_papers.boolean_rrr.method import Search
from harness_papers.boolean_rrr.problem import BooleanProblem, Table
from harness_papers.boolean_rrr.start import Settings, draw_start
from harness_papers.boolean_rrr.tasks import load_multiplier, load_rule30, multiplier_table

from harness.errors import Diverged

pytestmark = pytest.mark.skipif(bool(c_search.why_not()), reason="no C compiler here")


def multiplier(bits: int = 2) -> BooleanProblem:
    return load_multiplier(MultiplierParams(bits=bits), None).problem


def rule30(make_ctx, items: int) -> BooleanProblem:
    return load_rule30(Rule30Params(n_train=items, n_test=8), make_ctx(stage="load")).problem


def uneven(make_ctx) -> BooleanProblem:
    """Eleven items, so that the last block of eight is not full, and layers of different fan-in."""
    table = multiplier_table(2)
    return BooleanProblem(Table(table.inputs[:11], table.outputs[:11]), (4, 2, 5, 4))


def searches(problem: BooleanProblem, count: int = 1, threads: int = 1, settings: Settings | None = None) -> CSearch:
    starts = [draw_start(problem, np.random.default_rng(seed)) for seed in range(count)]
    return CSearch(problem, settings or Settings(3.0, 0.2, 1e-3), starts, threads)


@pytest.mark.parametrize(
    "make", [lambda _: multiplier(), lambda _: multiplier(3), uneven, lambda ctx: rule30(ctx, 20)],
    ids=["multiplier", "multiplier-3", "uneven", "rule30"],
)  # fmt: skip
def test_the_c_code_takes_the_steps_of_the_torch_code(make, make_ctx):
    """Fifty steps; the two differ in the order of sums and in how the metric's mean is applied, so by rounding only."""
    problem = make(make_ctx)
    starts = [draw_start(problem, np.random.default_rng(seed)) for seed in (3, 4)]
    settings = Settings(3.0, 0.5, 1e-2)
    ours, reference = CSearch(problem, settings, starts), Search(problem, settings, starts)

    for _ in range(50):
        np.testing.assert_allclose(ours.step(), reference.step(), rtol=1e-9)  # rounding that the iteration amplifies

    for number in range(2):
        for got, expected in zip(ours.weights(number), reference.weights(number), strict=True):
            np.testing.assert_allclose(got, expected, atol=1e-9)
        np.testing.assert_allclose(ours.items(number, "nodes"), reference.nodes[number].T, atol=1e-9)
        metric = reference.metric[number, reference.first_gate :]
        np.testing.assert_allclose(ours.items(number, "metric"), metric.T, atol=1e-9)
        sums_and_differences = np.concatenate([layer[number].flatten(1, 2) for layer in reference.edges], axis=1)
        np.testing.assert_allclose(ours.items(number, "edges"), sums_and_differences.transpose(2, 1, 0), atol=1e-9)


def test_what_runs_side_by_side_changes_no_bit():
    """Alone or among three, in one thread or in two, in one call or step by step: a search is the same search."""
    problem = multiplier()

    alone = searches(problem)
    alone_gaps = np.concatenate([alone.step() for _ in range(300)])
    together = searches(problem, count=3, threads=2)
    together_gaps = together.advance(300)

    np.testing.assert_array_equal(alone_gaps, together_gaps[0])
    for name, array in alone.states[0].items():
        np.testing.assert_array_equal(array, together.states[0][name])
    assert (together_gaps[0] != together_gaps[1]).any()


def test_items_that_are_not_there_leave_no_trace_after_many_steps(make_ctx):
    """The last block's empty places are computed too: they must stay finite, and weigh nothing."""
    search = searches(uneven(make_ctx), settings=Settings(3.0, 0.5, 0.5))

    search.advance(3000)

    assert all(np.isfinite(array).all() for array in search.states[0].values())
    assert (search.states[0]["gap"][-1, :, 3:] == 0).all()


def test_numbers_that_overflow_end_as_diverged():
    """As in the torch code: the search must not run on."""
    search = searches(multiplier())
    search.states[0]["nodes"][0, 7, 0] = np.nan

    with pytest.raises(Diverged, match="gap"):
        search.advance(5)
