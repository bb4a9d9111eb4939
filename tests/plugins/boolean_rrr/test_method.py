"""The projections and the search against hand examples, golden values, the paper's invariants and a loop over single edges."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from harness_papers.boolean_rrr import AutoencoderParams, MultiplierParams, RRRParams
from harness_papers.boolean_rrr.method import Search, move_to_surface, nearest_gate, rotate, solve, solve_shift, wire
from harness_papers.boolean_rrr.problem import BooleanProblem, LayeredNet, Table, as_bits
from harness_papers.boolean_rrr.tasks import load_autoencoder, load_multiplier, margin, multiplier_table, score
from scipy.stats import binom

from harness.context import Context
from harness.errors import BudgetSpent, Diverged, Unsupported

from .oracle import Oracle, project_gate

GOLDEN_W = np.array([0.5, -0.2, 0.9, 0.1, -0.7])
GOLDEN_X = np.array([1, -0.3, -0.8, 0.4, 0.6])
GOLDEN_DELTA = np.sqrt(5 / 3)


@pytest.fixture
def rng() -> np.random.Generator:
    """The one source of randomness of a test here: NumPy's, like the method's."""
    return np.random.default_rng(20260217)


@pytest.fixture
def and_problem() -> BooleanProblem:
    """Both inputs 1: one threshold function with weights 1, 1, 1 on (bias, first, second), exactly on the margin."""
    inputs = np.array(list(itertools.product([0, 1], repeat=2)))
    return BooleanProblem(Table(as_bits(inputs, "inputs"), as_bits(inputs.min(axis=1, keepdims=True), "outputs")), (2, 1))


def multiplier() -> BooleanProblem:
    return load_multiplier(MultiplierParams(), None).problem


def search_of(
    problem: BooleanProblem, beta: float = 0.2, gamma: float = 1e-3, seed: int = 1, dtype: type = np.float64
) -> Search:
    return Search(problem, problem.sigma, beta, gamma, np.random.default_rng(seed), dtype)


def gate(w: np.ndarray, x: np.ndarray, y: float, delta: float) -> tuple[np.ndarray, np.ndarray, float]:
    """`nearest_gate` for one node and one item, in the coordinates (w, x)."""
    edges = rotate(np.stack([w, x], axis=1)[:, :, None, None])
    factors, value = nearest_gate(edges, np.array([[y]]), np.array([[delta]]))
    moved = rotate(edges * factors)[:, :, 0, 0]
    return moved[:, 0], moved[:, 1], float(value[0, 0])


# The move to the surface w.x = c ----------------------------------------------------------------------------------------


def test_three_steps_find_the_root_for_every_input():
    """No branch, no tolerance: the fixed number of steps must do over the whole unit square that all inputs come down to."""
    k, share = np.meshgrid(np.linspace(0, 1, 1001)[1:], np.linspace(0, 1, 1001)[:-1])
    delta = 1 - share  # then delta + far = 1, near = k^2

    v = solve_shift(np.square(k), share, delta)

    # Not divided by (1 - v)^2, which would only magnify rounding; and nothing moves where near - far >= delta.
    residual = (1 - v) * np.sqrt(delta + share / np.square(1 + v)) - k
    inside = np.square(k) - share < delta
    assert np.abs(residual[inside]).max() < 1e-14  # about 20 units of rounding of the numbers compared
    assert (v[~inside] == 0).all()
    assert (v >= 0).all()
    assert (v < 1).all()


def test_the_root_is_found_in_float32_too(rng):
    """A suite may ask for float32; its root must be right to float32's rounding."""
    near, far = (rng.uniform(0.1, 5, 1000) for _ in range(2))

    single = solve_shift(near.astype(np.float32), far.astype(np.float32), np.float32(1.3))

    assert single.dtype == np.float32
    np.testing.assert_allclose(single, solve_shift(near, far, 1.3), atol=2e-6)  # a dozen units of float32's rounding


def test_the_moved_point_lies_on_the_surface_along_its_normal(rng):
    """w'.x' = c, and (w' - w, x' - x) = u (x', w'): the conditions of a nearest point."""
    for _ in range(200):
        w, x = rng.normal(size=(2, 7))
        c = float((abs(w @ x) + rng.uniform(0.01, 5)) * rng.choice([-1, 1]))

        w2, x2, u = move_to_surface(w, x, c)

        assert w2 @ x2 == pytest.approx(c, abs=1e-10)
        np.testing.assert_allclose(w2 - w, u * x2, atol=1e-10)
        np.testing.assert_allclose(x2 - x, u * w2, atol=1e-10)


def test_hand_example_of_equal_vectors():
    """w = x = (1, 1, 1), c = 12: u = 1 - sqrt(3 / 12) = 1/2, so both double."""
    w2, x2, u = move_to_surface(np.ones(3), np.ones(3), 12.0)

    assert u == pytest.approx(0.5, abs=1e-14)
    np.testing.assert_allclose(np.stack([w2, x2]), 2.0, atol=1e-13)


@pytest.mark.parametrize("c", [3.5, 12.0, 300.0])
def test_equal_vectors_have_the_closed_form(c):
    """For w = x, u = 1 - sqrt(m / c) with m = |w|^2."""
    assert move_to_surface(np.ones(3), np.ones(3), c)[2] == pytest.approx(1 - np.sqrt(3 / c), abs=1e-14)


@pytest.mark.parametrize(
    ("sign", "u", "distance2"),
    [(1, 0.399481, 0.813750), (-1, -0.171502, 0.135310)],
)
def test_golden_moves_of_the_card(sign, u, distance2):
    """Both candidates of one example, from a float64 bisection; six digits are given."""
    w2, x2, got = move_to_surface(GOLDEN_W, GOLDEN_X, sign * GOLDEN_DELTA)

    assert got == pytest.approx(u, abs=1e-6)
    assert ((w2 - GOLDEN_W) ** 2).sum() + ((x2 - GOLDEN_X) ** 2).sum() == pytest.approx(distance2, abs=1e-6)
    if sign < 0:
        np.testing.assert_allclose(w2, [0.338453, -0.153051, 1.068634, 0.032351, -0.827233], atol=1e-6)
        np.testing.assert_allclose(x2, [0.941955, -0.273751, -0.983273, 0.394452, 0.741872], atol=1e-6)


@pytest.mark.parametrize(
    ("w", "x", "c", "says"),
    [
        ([1, 1], [-1, -1], 1.0, "equally near"),
        ([1, 1], [1, 1], -1.0, "equally near"),
        ([2, 2], [2, 2], 1.0, "not inside"),
        ([1, 0], [0, 1], 0.0, "not inside"),
    ],
)
def test_moves_without_one_nearest_point_are_refused(w, x, c, says):
    """Where w = -x every direction is as good: no number is better than a made-up one."""
    with pytest.raises(ValueError, match=says):
        move_to_surface(np.array(w, float), np.array(x, float), c)


# Projection to A --------------------------------------------------------------------------------------------------------


def test_golden_choice_of_the_card():
    """With y = .2 the value +1 costs .64 + .813750, the value -1 costs 1.44 + .135310: +1 is nearer."""
    w2, x2, y2 = gate(GOLDEN_W, GOLDEN_X, 0.2, GOLDEN_DELTA)

    assert y2 == 1
    assert w2 @ x2 == pytest.approx(GOLDEN_DELTA, abs=1e-10)


def test_a_point_beyond_the_margin_keeps_its_weights_and_inputs_to_the_bit():
    """y (w.x) >= delta holds already; only y is rounded."""
    edges = rotate(np.array([1.0, 1.0, -1.0, 2.0, 0.5, 0.5]).reshape(3, 2, 1, 1))
    assert float(np.sum(rotate(edges)[:, 0] * rotate(edges)[:, 1])) < -0.5

    factors, value = nearest_gate(edges, np.array([[-0.3]]), np.array([[0.5]]))

    assert (factors == 1).all()
    assert value == -1


def test_each_node_is_projected_as_the_description_says(rng):
    """Both cases of the description, bisection and explicit costs, against the rotated form without cases."""
    for _ in range(300):
        m = int(rng.integers(2, 9))
        w, x, y = rng.normal(size=m), rng.normal(size=m), float(rng.normal())
        delta = float(rng.uniform(0.1, 3))

        got, expected = gate(w, x, y, delta), project_gate(w, x, y, delta)

        assert got[2] == expected[2]
        np.testing.assert_allclose(got[0], expected[0], atol=1e-10)  # as exact as the bisection
        np.testing.assert_allclose(got[1], expected[1], atol=1e-10)


def test_projection_to_a_is_idempotent():
    """A projected point is in the set, so projecting again leaves it."""
    search = search_of(multiplier())
    once = search.project_a(search.edges, search.nodes)

    twice = search.project_a(*once)

    np.testing.assert_allclose(twice[0], once[0], atol=1e-10)
    np.testing.assert_array_equal(twice[1], once[1])


# Projection to B --------------------------------------------------------------------------------------------------------


def moved_search(problem: BooleanProblem) -> Search:
    """A search after some steps, so that the metric weights differ from 1."""
    search = search_of(problem, gamma=0.1)
    for _ in range(5):
        search.step()
    assert np.ptp(search.metric) > 0.1
    return search


@pytest.mark.parametrize("widths", [(4, 4, 4, 4), (4, 2, 5, 4)])
def test_after_concur_all_items_agree_and_weights_have_mean_square_one(widths):
    """What B means; also with layers of different fan-in, where unused slots must stay 0."""
    search = moved_search(BooleanProblem(multiplier_table(2), widths))

    edges, nodes, weights = search.project_b(search.edges, search.nodes)

    w, x = np.moveaxis(rotate(edges), 1, 0)
    used = search.wiring.source < search.wiring.feeding
    np.testing.assert_allclose(w, np.broadcast_to(weights[:, :, None], w.shape), atol=1e-12)
    np.testing.assert_allclose((weights**2).sum(axis=0) / search.wiring.fan_in, 1, atol=1e-12)
    assert (w[~used] == 0).all()
    assert (x[~used] == 0).all()
    padded = np.concatenate([nodes[: search.wiring.feeding], np.zeros_like(nodes[:1])])
    np.testing.assert_allclose(x, padded[search.wiring.source], atol=1e-12)
    np.testing.assert_array_equal(nodes[-widths[-1] :], search.labels)


def test_projection_to_b_is_idempotent():
    """For a fixed metric a projected point is in the set already."""
    search = moved_search(multiplier())
    once = search.project_b(search.edges, search.nodes)

    twice = search.project_b(once[0], once[1])

    for again, first in zip(twice, once, strict=True):
        np.testing.assert_allclose(again, first, atol=1e-12)


def test_concur_is_the_nearest_agreeing_point_in_the_metric(rng):
    """Any other agreed value of a node is further away: checks the weighting without repeating its formula."""
    search = moved_search(multiplier())
    edges, nodes, _ = search.project_b(search.edges, search.nodes)
    gates = search.metric[search.wiring.first_gate :]

    def distance2(moved_edges, moved_nodes):
        feeding = search.wiring.feeding
        on_edges = (np.square(moved_edges - search.edges) * gates).sum()
        return on_edges + (np.square(moved_nodes - search.nodes) * search.metric)[:feeding].sum()

    best = distance2(edges, nodes)
    for node in range(search.wiring.feeding):
        change = np.zeros_like(nodes)
        change[node] = 1e-3 * rng.choice([-1, 1])
        padded = np.concatenate([change[: search.wiring.feeding], np.zeros_like(change[:1])])
        on_edges = np.zeros_like(edges)
        on_edges[:, 1] = padded[search.wiring.source]

        assert distance2(edges + rotate(on_edges), nodes + change) > best


# The iteration ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("widths", [(4, 4, 4, 4), (4, 2, 5, 4)])
def test_the_search_takes_the_steps_of_the_loop_over_edges(widths):
    """Twelve steps, the metric relaxing fast, layers of equal and of different fan-in."""
    problem = BooleanProblem(multiplier_table(2), widths)
    search = search_of(problem, beta=0.7, gamma=0.05)
    used = search.wiring.source < search.wiring.feeding
    # (M, n, I) to (I, edges): edges of the loop go node by node, slot by slot.
    on_edges = [rotate(search.edges)[:, part].transpose(1, 0, 2)[used.T].T for part in (0, 1)]
    table = problem.table
    loop = Oracle(widths, table.inputs, table.outputs, 3.0, 0.7, 0.05, *on_edges, search.nodes.T)

    gaps = [(search.step(), loop.step()) for _ in range(12)]

    got, expected = np.array(gaps).T
    np.testing.assert_allclose(got, expected, rtol=1e-9)  # rounding, which the iteration amplifies a little
    np.testing.assert_allclose(search.nodes.T, loop.y, atol=1e-9)
    np.testing.assert_allclose(search.metric.T, loop.g, atol=1e-9)


def test_a_solution_is_a_fixed_point(and_problem):
    """Where a = b the gap is 0 and nothing moves."""
    search = search_of(and_problem)
    x = np.concatenate([-np.ones((1, 4)), and_problem.table.inputs.T])[:, None, :]
    search.edges = rotate(np.stack([np.ones_like(x), x], axis=1))
    search.nodes = np.concatenate([x[:, 0], and_problem.table.outputs.T])
    edges, nodes = search.edges.copy(), search.nodes.copy()

    gap = search.step()

    assert gap < 1e-14
    np.testing.assert_allclose(search.edges, edges, atol=1e-14)
    np.testing.assert_allclose(search.nodes, nodes, atol=1e-14)


def test_wiring_counts_the_edges_of_the_problem():
    """The clock `items_edges` and the arrays must mean the same edges: 60 in the net 4-4-4-4."""
    wiring = wire((4, 4, 4, 4))

    assert wiring.fan_in.sum() == multiplier().edges == 60
    assert (wire((8, 3, 8, 8)).source < 20).sum() == 9 * 3 + 4 * 8 + 9 * 8


def test_numbers_that_overflow_end_as_diverged():
    """A gap that is no number must not run on to the end of the budget."""
    search = search_of(multiplier())
    search.nodes[7, 0] = np.nan

    with pytest.raises(Diverged, match="gap"):
        search.step()


# Threshold functions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("m", [3, 5, 9])
def test_three_equal_weights_lie_exactly_on_the_margin(m):
    """w = sqrt(m / 3) (1, 1, 1, 0, ...): majority, and AND or OR with the bias; a copy gate has margin sqrt(m)."""
    inputs = np.array(list(itertools.product([-1, 1], repeat=m - 1)), dtype=np.int8)
    majority = np.zeros((1, m))
    majority[0, :3] = np.sqrt(m / 3)
    copy = np.zeros((1, m))
    copy[0, 1] = np.sqrt(m)

    for weights, expected in ((majority, 1), (copy, np.sqrt(3))):
        net = LayeredNet((weights,))
        assert np.abs(net.pre_activations(inputs)[0]).min() == pytest.approx(expected * np.sqrt(m / 3), abs=1e-14)
        assert margin(net, Table(inputs, net.predict(inputs)), sigma=3.0) == pytest.approx(expected, abs=1e-14)


def test_turning_a_hidden_node_changes_no_output(rng):
    """A threshold function is odd, so flipping all its weights and all weights on its value cancels."""
    inputs = np.array(list(itertools.product([-1, 1], repeat=4)), dtype=np.int8)
    first, second = rng.normal(size=(4, 5)), rng.normal(size=(4, 5))
    turned_first, turned_second = first.copy(), second.copy()
    turned_first[2] *= -1
    turned_second[:, 1 + 2] *= -1

    expected = LayeredNet((first, second)).predict(inputs)

    np.testing.assert_array_equal(LayeredNet((turned_first, turned_second)).predict(inputs), expected)
    assert (LayeredNet((turned_first, second)).predict(inputs) != expected).any()  # the net does use that node


# The learner ------------------------------------------------------------------------------------------------------------


def test_the_search_ends_when_the_gap_closes_and_says_after_how_many_steps(and_problem, make_ctx):
    """Early only by solving: the clocks then hold what was needed, not the budget."""
    ctx = make_ctx(steps=5000)

    net = solve(and_problem, ctx, RRRParams())

    steps = ctx.diagnostics["iterations_to_solution"]
    assert 1 < steps < 5000
    assert ctx.diagnostics["best_gap"] < 0.01
    assert ctx.clocks.spent == {"steps": steps, "items_edges": steps * 4 * 3}
    assert ctx.offered[-1][0] is net
    np.testing.assert_array_equal(net.predict(and_problem.table.inputs), and_problem.table.outputs)
    np.testing.assert_allclose(net.weights[0], 1, atol=0.05)  # the only point with this margin; the gap was closed to 0.01


def test_an_unsolved_search_spends_its_budget_and_offers_evenly(make_ctx):
    """About twenty points a curve, the last at the very end, so that BudgetSpent finds a result."""
    ctx = make_ctx(steps=100)

    with pytest.raises(BudgetSpent):
        solve(multiplier(), ctx, RRRParams())

    assert ctx.clocks.spent["steps"] == 100
    assert [round(at["steps"]) for _, at in ctx.offered] == [1, *range(5, 101, 5)]
    assert "iterations_to_solution" not in ctx.diagnostics


def test_offers_never_get_worse_on_the_training_bits(make_ctx):
    """The search wanders; what is offered is the best so far, as in the authors' program."""
    ctx = make_ctx(steps=400)
    instance = load_multiplier(MultiplierParams(), None)

    with pytest.raises(BudgetSpent):
        solve(instance.problem, ctx, RRRParams(beta=1.5))

    shares = [score(instance.held["test"], net, None, None)["train_bits"] for net, _ in ctx.offered]
    assert shares == sorted(shares)
    assert shares[-1] > shares[0]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_same_seed_gives_the_same_bits_and_the_trials_dtype(dtype, make_ctx):
    """Everything random comes from the trial's streams."""
    nets = []
    for seed in (3, 3, 4):
        ctx = make_ctx(seed=seed, dtype=dtype, steps=30)
        with pytest.raises(BudgetSpent):
            solve(multiplier(), ctx, RRRParams())
        nets.append(ctx.offered[-1][0])

    assert nets[0].weights[0].dtype == np.dtype(dtype)
    for one, two in zip(nets[0].weights, nets[1].weights, strict=True):
        np.testing.assert_array_equal(one, two)
    assert (nets[0].weights[0] != nets[2].weights[0]).any()


def test_types_and_devices_it_cannot_serve_are_unsupported(make_ctx):
    """No silent change of dtype or device."""
    with pytest.raises(Unsupported, match="float64"):
        solve(multiplier(), make_ctx(dtype="bfloat16", steps=1), RRRParams())
    ctx = make_ctx(steps=1)
    ctx.device = type("Device", (), {"type": "cuda"})()
    with pytest.raises(Unsupported, match="CPU only"):
        solve(multiplier(), ctx, RRRParams())


def test_importing_the_declarations_loads_neither_torch_nor_numpy():
    """`harness list` asks every paper; the search itself needs no torch either."""
    code = (
        "import sys, harness_papers.boolean_rrr as paper\n"
        "assert not {'torch', 'numpy'} & set(sys.modules), sorted(sys.modules)\n"
        "import harness_papers.boolean_rrr.method, harness_papers.boolean_rrr.tasks\n"
        "assert 'torch' not in sys.modules\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ}, check=False)

    assert done.returncode == 0, done.stderr


# Success rates ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "beta", "gamma", "solved_by_c"),
    [
        (load_multiplier, 0.2, 1e-3, 7),
        (load_multiplier, 0.5, 1e-3, 14),
        (load_multiplier, 0.2, 0.0, 0),
        (load_autoencoder, 0.2, 1e-3, 8),
        (load_autoencoder, 0.5, 1e-3, 1),
    ],
    ids=["multiplier-.2", "multiplier-.5", "multiplier-no-relaxation", "autoencoder-.2", "autoencoder-.5"],
)
def test_as_many_seeds_are_solved_as_by_the_authors_program(load, beta, gamma, solved_by_c, make_ctx):
    """Measured with the authors' C program: so many of 20 runs within 10,000 iterations, gapstop .01.

    Two binomial samples: ours must be possible at some rate at which the other's count is possible too, each at 99.9 %.
    """
    solved = 0
    for seed in range(20):
        ctx: Context = make_ctx(seed=seed, stage="load", steps=10_000)
        params = MultiplierParams() if load is load_multiplier else AutoencoderParams()
        problem = load(params, ctx).problem
        ctx.stage = "solve"
        try:
            solve(problem, ctx, RRRParams(beta=beta, gamma=gamma, gapstop=0.01))
        except BudgetSpent:
            continue
        solved += 1

    rates = np.linspace(0, 1, 1001)
    tail = 0.0005

    def possible(count: int) -> np.ndarray:
        return (binom.cdf(count, 20, rates) >= tail) & (binom.sf(count - 1, 20, rates) >= tail)

    assert (possible(solved) & possible(solved_by_c)).any(), f"solved {solved} of 20; the C program {solved_by_c}"
