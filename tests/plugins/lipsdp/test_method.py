"""LipSDP against golden values, closed forms, invariances and an exhaustive oracle."""

from __future__ import annotations

import json
import sys
from itertools import chain, pairwise, repeat
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from harness_papers.lipsdp import ExactParams, SampleParams, SdpParams, method
from harness_papers.lipsdp.problems import Multipliers, Network, NormProduct, network
from harness_papers.lipsdp.sampling import max_jacobian, steepest_pair
from harness_papers.lipsdp.solvers import general
from harness_papers.lipsdp.solvers.barrier import cheapest
from harness_papers.lipsdp.solvers.neuron import SlopeProgram
from harness_papers.lipsdp.solvers.reductions import scale
from harness_papers.lipsdp.solvers.squares import Form, SquaresProgram
from harness_papers.lipsdp.tasks import random_network
from harness_papers.lipsdp.verify import norm_product, pair_quotient, prove, vertex_maximum
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import Diverged, Unsupported
from harness.context import Clocks
from harness.errors import BudgetSpent
from lipsdp.conftest import card_net, normal, real_context

CARD = 1e-5  # the card gives six decimals, and tolerance 1e-5 for ReLU nets
EXACT = 1e-6  # proved gap 1e-6 of L^2, half of it of L, on either side

# dims: norm product, Layer, Neuron, largest Jacobian norm at 20000 points of default_rng(1)
GOLDEN = {
    "2-4-2": (1.810608, 1.116250, 0.587702, 0.587702),
    "4-8-3": (2.235289, 1.741244, 1.487544, 1.487544),
    "4-8-8-3": (3.361342, 2.196002, 1.923352, 1.780923),
    "4-8-8-8-3": (5.153830, 2.618677, 1.936940, 1.369501),
    "10-16-16-16-10": (10.851489, None, 3.250570, 1.921948),
    "8-32-32-4": (6.285725, None, 2.352721, 1.289696),
}


@pytest.fixture
def neuron(make_ctx):
    return lambda net, **params: proved(net, method.solve_neuron(net, make_ctx(), SdpParams(**params)))


@pytest.fixture
def layer(make_ctx):
    return lambda net, **params: proved(net, method.solve_layer(net, make_ctx(), SdpParams(**params)))


def proved(net, solution):
    """What counts: the bound that the evidence proves, not the method's own number."""
    return prove(net, solution).bound


@pytest.mark.parametrize("dims", GOLDEN)
def test_the_card_s_golden_values_are_reached(dims, neuron, layer):
    """Weights, LMI, solver, repair and re-check together give the numbers that two other solvers gave."""
    product, golden_layer, golden_neuron, sample = GOLDEN[dims]
    net = card_net(dims)
    points = normal(1, 20_000, net.weights[0].shape[1])

    assert norm_product(net) == pytest.approx(product, rel=CARD)
    assert neuron(net) == pytest.approx(golden_neuron, rel=CARD)
    assert max_jacobian(net, points)[0] == pytest.approx(sample, rel=CARD)
    assert pair_quotient(net, steepest_pair(net, points)) == pytest.approx(sample, rel=CARD)
    if golden_layer is not None:
        assert layer(net) == pytest.approx(golden_layer, rel=CARD)


@pytest.mark.parametrize("dims", ["2-4-2", "4-8-3"])
def test_one_hidden_layer_reaches_the_largest_norm_over_all_masks(dims, neuron):
    """With so few units LipSDP loses nothing here: the card gives the mask maximum as the value."""
    net = card_net(dims)

    assert neuron(net) == pytest.approx(method.largest_over_patterns(net), rel=EXACT)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([[[3.0, 4.0]], [[2.0]]], 10.0),  # one unit: |W2| |W1|
        ([np.eye(3), np.eye(3)], 1.0),  # the ReLU of each coordinate
        ([[[3.0, 0.0], [0.0, 1.0]]], 3.0),  # no hidden layer: the spectral norm
        ([[[0.0, 0.0]], [[2.0]]], 0.0),  # a layer of zeros: a constant
    ],
)
def test_hand_cases(weights, expected, neuron, layer):
    """Closed forms that need no solver to know."""
    net = network([np.array(w) for w in weights])

    assert neuron(net) == pytest.approx(expected, rel=EXACT)
    assert layer(net) == pytest.approx(expected, rel=EXACT)


def test_bounds_come_in_the_order_of_their_freedom(neuron, layer, make_ctx):
    """sample <= exact <= Neuron <= Layer <= norm product: each may do what the one after it may, and more."""
    net = card_net("3-5-4-2")
    sample = method.solve_sampled(net, make_ctx(), SampleParams(samples=2000))
    exact = method.solve_exact(net, make_ctx(), ExactParams())

    order = [proved(net, sample), proved(net, exact), neuron(net), layer(net), norm_product(net)]

    assert all(low <= high * (1 + EXACT) for low, high in pairwise(order)), order
    assert order[0] < order[-1] / 2  # or the order would say nothing


@pytest.mark.parametrize("scale", [1e-3, -2.0, 1e4])
@pytest.mark.parametrize("k", [0, 1, 2])
def test_scaling_a_layer_scales_the_bound(k, scale, neuron):
    """L(c W_k) = |c| L: slope restriction knows no sign, and no size."""
    net = card_net("3-4-4-2")
    scaled = network([w * scale if i == k else w for i, w in enumerate(net.weights)])

    assert neuron(scaled) == pytest.approx(abs(scale) * neuron(net), rel=EXACT)


def test_rotating_input_and_output_leaves_the_bound(neuron):
    """L(W_1 Q) = L = L(Q W_l) for orthogonal Q, also with more inputs than units, where W_1 is reduced."""
    net = card_net("9-4-5-3")
    q_in, q_out = (np.linalg.qr(normal(seed, n, n))[0] for seed, n in ((5, 9), (6, 3)))
    rotated = network([net.weights[0] @ q_in, net.weights[1], q_out @ net.weights[2]])

    assert neuron(rotated) == pytest.approx(neuron(net), rel=EXACT)


def test_permuting_hidden_units_permutes_their_multipliers(make_ctx):
    """The order of units is a name; a bound that depends on it mixes up rows."""
    net, order = card_net("4-6-3"), [3, 1, 5, 0, 4, 2]
    permuted = network([net.weights[0][order], net.weights[1][:, order]])

    ours = method.solve_neuron(net, make_ctx(), SdpParams())
    theirs = method.solve_neuron(permuted, make_ctx(), SdpParams())

    assert theirs.bound == pytest.approx(ours.bound, rel=EXACT)
    reordered = Multipliers((ours.evidence.t[0][order],))
    assert prove(permuted, type(ours)(ours.bound, "upper", reordered)).bound == pytest.approx(ours.bound, rel=EXACT)


def test_biases_do_not_enter(neuron):
    """The incremental constraint holds for any shift of the pre-activations."""
    net = card_net("3-5-2")
    shifted = network(list(net.weights), [normal(1, 5), normal(2, 2)])

    assert neuron(shifted) == neuron(net)


@pytest.mark.parametrize(
    ("activation", "alpha", "beta"), [("leaky_relu", 0.01, 1.0), ("tanh", 0.0, 1.0), ("sigmoid", 0.0, 0.25)]
)
def test_other_slopes_are_bounded_too(activation, alpha, beta, neuron, layer, make_ctx):
    """The LMI with alpha > 0 and beta < 1: between the largest norm over slope vertices and the product with beta."""
    net = card_net("3-4-4-2", activation)

    assert (net.alpha, net.beta) == (alpha, beta)
    exact = proved(net, method.solve_exact(net, make_ctx(), ExactParams()))
    assert exact <= neuron(net) * (1 + EXACT) <= layer(net) * (1 + EXACT) ** 2 <= norm_product(net) * (1 + EXACT) ** 3
    assert neuron(net) < 1.1 * exact


def test_the_network_variant_is_not_valid():
    """Why LipSDP-Network is not offered: its constraint couples units, and two ReLU units already break it.

    The card's example: x = (1, 0), y = (0, -1). With T = (e_1 - e_2)(e_1 - e_2)^T the constraint demands
    (dx_1 - dx_2)(dphi_1 - dphi_2) - (dphi_1 - dphi_2)^2 >= 0.
    """
    x, y = np.array([1.0, 0.0]), np.array([0.0, -1.0])
    dx, dphi = x - y, np.maximum(x, 0) - np.maximum(y, 0)
    coupling = np.outer([1.0, -1.0], [1.0, -1.0])

    coupled = dx @ coupling @ dphi - dphi @ coupling @ dphi
    diagonal = [dx[i] * dphi[i] - dphi[i] ** 2 for i in range(2)]

    assert coupled == -1.0
    assert min(diagonal) >= 0.0  # what Neuron and Layer rely on holds


tiny = st.tuples(
    st.lists(st.integers(1, 3), min_size=3, max_size=4),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["relu", "leaky_relu", "tanh", "sigmoid"]),
)


def tiny_net(sizes: list[int], seed: int, activation: str) -> Network:
    rng = np.random.default_rng(seed)
    net = random_network(tuple(sizes), rng, activation)
    return network(list(net.weights), [rng.standard_normal(w.shape[0]) for w in net.weights], activation)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(tiny, st.sampled_from([("ours", 1e-6), ("ours", 0.3), ("clarabel", 1e-8), ("scs", 1e-3)]))
def test_no_certified_bound_lies_below_a_slope_or_the_mask_maximum(tmp_path_factory, drawn, how):
    """Soundness, also for a rough solver: between what points show and what the norm product gives."""
    net, ctx = tiny_net(*drawn), real_context(tmp_path_factory.mktemp("blobs"))

    bound = proved(net, method.solve_neuron(net, ctx, SdpParams(solver=how[0], eps=how[1])))

    points = 3 * normal(1, 300, net.weights[0].shape[1])
    assert bound >= pair_quotient(net, steepest_pair(net, points))
    assert bound >= method.largest_over_patterns(net) * (1 - 1e-12)  # rounding of the oracle
    if how != ("scs", 1e-3):
        assert bound <= norm_product(net) * (1 + EXACT)


@pytest.mark.parametrize("left", [1, 5, 8])
@pytest.mark.parametrize(("solver", "status"), [("ours", "stopped"), ("clarabel", "user_limit")])
def test_a_solver_that_is_stopped_early_still_leaves_a_certificate(solver, status, left, make_ctx):
    """Each iterate of ours is feasible, and the repair mixes in what is; what is cut off costs tightness, not validity."""
    net = card_net("4-8-8-3")
    ctx = make_ctx(solver_iterations=left)

    solution = method.solve_neuron(net, ctx, SdpParams(solver=solver))

    assert ctx.clocks.spent == {"solver_iterations": left}
    assert ctx.diagnostics["solver_status"] == status
    assert 1.923352 <= proved(net, solution) <= norm_product(net)


def test_seconds_that_run_out_stop_our_solver_too(make_ctx):
    """The clock is looked at before each step; a tenth of the seconds is kept for the proof."""
    net, ticks = card_net("4-8-8-3"), chain([0.0] * 12, repeat(9.5))
    ctx = make_ctx()
    ctx.clocks = Clocks({"wall_s": 10.0}, now=lambda: next(ticks))
    ctx.clocks.start()

    solution = method.solve_neuron(net, ctx, SdpParams())

    assert ctx.diagnostics["solver_status"] == "stopped"
    assert 1.923352 <= proved(net, solution) <= norm_product(net)


def test_the_outputs_of_a_net_share_the_seconds_equally():
    """l-infinity by slopes solves one program after the other: the first must not leave nothing to the last."""
    now = {"wall_s": 12.0, "solver_iterations": 30.0}
    first = method.share_of(now.__getitem__, 3, 0)
    assert (first("wall_s"), first("solver_iterations")) == (4.0, 30.0)
    now["wall_s"] = 9.0  # it took 3
    assert first("wall_s") == 1.0

    assert method.share_of(now.__getitem__, 2, 7)("wall_s") == 4.5
    assert method.share_of(now.__getitem__, 2, 7)("solver_iterations") == 23.0
    assert method.share_of(lambda clock: float("inf"), 3, 7)("wall_s") == float("inf")


def test_a_solver_that_outlasts_the_budget_leaves_the_norm_product(monkeypatch, make_ctx):
    """The last offer is the result then: what is known before the solver starts, and nothing that came too late."""
    net, seconds, find = card_net("4-8-8-3"), [0.0], method.find
    ctx = make_ctx()
    ctx.clocks = Clocks({"wall_s": 10.0}, now=lambda: seconds[0])
    ctx.clocks.start()

    def slow(*arguments):
        result = find(*arguments)
        seconds[0] = 11.0
        return result

    monkeypatch.setattr(method, "find", slow)
    with pytest.raises(BudgetSpent):
        method.solve_neuron(net, ctx, SdpParams())

    (offered,) = ctx.offered
    assert isinstance(offered.evidence, NormProduct)
    assert ctx.blobs == []
    assert ctx.diagnostics == {"solver_status": "not finished"}


@pytest.mark.parametrize(
    ("solver", "seconds", "iterations"), [("clarabel", "time_limit", "max_iter"), ("scs", "time_limit_secs", "max_iters")]
)
def test_the_solver_is_told_what_is_left_of_the_budget(solver, seconds, iterations, make_ctx):
    """A tenth of the time is kept for the repair; without a budget there is no limit of time."""
    limited = general.solver_options(solver, 1e-8, {"wall_s": 20.0, "solver_iterations": 7.0}.__getitem__)
    free = general.solver_options(solver, 1e-8, make_ctx().left)

    assert (limited[seconds], limited[iterations]) == (18.0, 7)
    assert seconds not in free
    assert free[iterations] >= 500


def test_multipliers_that_break_the_lmi_are_repaired_at_a_price():
    """The solver's word is not needed: even noise in place of its multipliers becomes a bound, only a worse one."""
    scaled = scale(card_net("4-8-8-3"))
    program = SlopeProgram(scaled, False, 1)
    (interior,) = cheapest(program.starts(), program.cost)
    noise = np.abs(normal(3, 17)) * 1e-3

    assert program.barrier(noise[None], np.array([0]))[0] == np.inf
    point, share = general.repair(program, 0, noise, interior, 1)

    assert share > 0
    assert np.linalg.eigvalsh(program.matrices(point, 0)[0])[0] > 0
    assert 1.923352 <= scaled.factor * sqrt(point[0]) <= 3.361342


def test_the_certificate_that_is_saved_proves_the_bound_by_itself(make_ctx):
    """Read back from its bytes, without the method: floats survive, and the LMI holds for what was written."""
    net, ctx = card_net("4-8-8-3"), make_ctx()
    solution = method.solve_neuron(net, ctx, SdpParams())

    (blob,) = ctx.blobs
    read = json.loads(Path(blob["path"]).read_bytes())

    assert (blob["name"], blob["media_type"]) == ("certificate.json", "application/json")
    assert read["sizes"] == [4, 8, 8, 3]
    assert read["bound"] == solution.bound
    assert read["min_eigenvalue_scaled"] >= 0
    evidence = Multipliers(tuple(np.array(layer) for layer in read["multipliers"]))
    again = prove(net, type(solution)(read["bound"], "upper", evidence))
    assert again.bound == prove(net, solution).bound


def test_without_cvxpy_ours_works_and_the_others_name_the_mend(monkeypatch, make_ctx):
    """The general solvers are an extra; who lacks it and asks for one is told what to install."""
    monkeypatch.setitem(sys.modules, "cvxpy", None)

    with pytest.raises(Unsupported, match=r"pip install 'paper-harness-papers\[certify\]', or solver='ours'"):
        method.solve_neuron(card_net("2-4-2"), make_ctx(), SdpParams(solver="clarabel"))
    assert method.solve_neuron(card_net("2-4-2"), make_ctx(), SdpParams()).bound == pytest.approx(0.587702, rel=CARD)


def test_a_solver_that_gives_nothing_is_a_divergence_with_its_status(make_ctx):
    """An LMI that no rho satisfies: the solver's word reaches the record instead of a traceback."""
    impossible = SquaresProgram(-np.eye(2), [Form(np.eye(1, 2), np.zeros(1, int), np.ones(1))], np.ones(1))

    with pytest.raises(Diverged, match="clarabel ended with status 'infeasible'"):
        general.solve_conic(impossible, 0, "clarabel", 1e-8, make_ctx().left)


def test_the_norm_product_is_what_needs_no_solver(make_ctx):
    """A net without hidden layers has nothing to optimise, so no certificate is kept."""
    ctx = make_ctx()
    solution = method.solve_neuron(network([normal(0, 3, 4)]), ctx, SdpParams())

    assert isinstance(solution.evidence, NormProduct)
    assert ctx.blobs == []


def test_the_exhaustive_oracle_refuses_what_would_take_for_ever(make_ctx):
    """2^N patterns: the limit and the reason are in the message."""
    with pytest.raises(Unsupported, match="17 hidden units, max_units=16"):
        method.solve_exact(card_net("2-17-2"), make_ctx(), ExactParams())


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
def test_both_exhaustive_searches_agree(activation):
    """The oracle's own recursion and the verifier's enumeration, which share no code."""
    net = card_net("3-4-5-2", activation)

    assert vertex_maximum(net, None) == pytest.approx(method.largest_over_patterns(net), rel=1e-10)  # float64, norms of size 1


def test_sampling_depends_on_the_seed_and_on_nothing_else(make_ctx):
    """Same seed, same bits; another seed, another point."""
    net = card_net("4-8-3")
    solve = lambda seed: method.solve_sampled(net, make_ctx(seed), SampleParams(samples=50))  # noqa: E731

    assert np.array_equal(solve(0).evidence.x, solve(0).evidence.x)
    assert not np.array_equal(solve(0).evidence.x, solve(1).evidence.x)


def test_solving_twice_gives_the_same_bits(make_ctx):
    """One thread and no random number: the same certificate."""
    net = card_net("4-8-8-3")
    first, second = (method.solve_neuron(net, make_ctx(), SdpParams()) for _ in range(2))

    assert first.bound == second.bound
    assert all(np.array_equal(a, b) for a, b in zip(first.evidence.t, second.evidence.t, strict=True))
