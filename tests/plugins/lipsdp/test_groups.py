"""LipSDP-NSR and -RR against golden values, closed forms, invariances, exhaustive oracles and rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from harness_papers.lipsdp import SdpParams, method
from harness_papers.lipsdp.problems import (
    Bound,
    GroupMultipliers,
    Multipliers,
    Network,
    NullSpaceMultipliers,
    PerOutput,
    ResidualMultipliers,
    SlopeVertices,
    network,
)
from harness_papers.lipsdp.sampling import steepest_pair
from harness_papers.lipsdp.verify import margin, norm_product, pair_quotient, prove, vertex_maximum
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import Invalid, Unsupported
from lipsdp.conftest import card_net, normal, real_context
from lipsdp.test_activations import SORTED_LINF, householder_net, sorting_net
from lipsdp.test_verify import Matrix, exact, is_positive_definite

CARD = 1e-5  # the card gives six decimals and this tolerance; the proved gap of L is 5e-7
UNBOUNDED = 1e-3  # downwards, for (T, S, P): its multipliers grow without bound, so solvers stop short
EXACT = 1e-6  # proved gap 1e-6 of L^2, half of it of L, on either side

# dims, group: chain, (T, S, P), null space, residual ReLU
GOLDEN = {
    ("2-4-2", 2): (1.251949, 1.251949, 1.251949, 1.833727),
    ("4-8-3", 2): (1.818101, 1.815972, 1.815972, 2.108342),
    ("4-8-8-3", 2): (2.299085, 2.130808, 2.130662, 2.927401),
    ("4-8-8-3", 4): (2.898891, 2.893318, 2.893312, None),
    ("4-8-8-8-3", 2): (3.222717, 2.897286, 2.897105, 4.896979),
    ("10-16-16-16-10", 2): (6.846751, None, None, None),
    ("10-16-16-16-10", 4): (8.641360, None, None, None),
}
GOLDEN_LINF = {
    ("2-4-2", 2): 0.830460,
    ("4-8-3", 2): 1.434157,
    ("4-8-8-3", 2): 3.128004,
    ("4-8-8-3", 4): 4.033373,
    ("4-8-8-8-3", 2): 4.428393,
    ("10-16-16-16-10", 2): 9.876764,
    ("10-16-16-16-10", 4): 13.840796,
}
SOLVE = {
    "chain": method.solve_nsr,
    "full": method.solve_nsr_full,
    "null": method.solve_nsr_null,
    "residual": method.solve_rr,
}


@pytest.fixture
def bound(make_ctx):
    """(kind, net) -> the bound that the evidence proves."""
    return lambda kind, net, **params: prove(net, SOLVE[kind](net, make_ctx(), SdpParams(**params))).bound


@pytest.mark.parametrize("case", GOLDEN)
def test_the_card_s_golden_values_are_reached_in_l2(case, bound):
    """Four programs, two solvers behind the card's numbers, a third here, and a proof of each."""
    net = sorting_net(*case)
    chain, full, null, residual = GOLDEN[case]

    assert bound("chain", net) == pytest.approx(chain, rel=CARD)
    if full is not None:
        assert null * (1 - CARD) <= bound("full", net) <= full * (1 + CARD)
        assert full * (1 - UNBOUNDED) <= bound("full", net)
        assert bound("null", net) == pytest.approx(null, rel=CARD)
    if residual is not None:
        assert bound("residual", net) == pytest.approx(residual, rel=CARD)


@pytest.mark.parametrize("case", GOLDEN_LINF)
def test_the_card_s_golden_values_are_reached_in_linf(case, bound):
    """Output row 0 alone, as the card has it."""
    net = sorting_net(*case, norm="linf", rows=slice(0, 1))

    assert bound("chain", net) == pytest.approx(GOLDEN_LINF[case], rel=CARD)
    assert bound("chain", net) <= SORTED_LINF[case][0]


@pytest.mark.parametrize(("kind", "expected"), [("chain", 1.0), ("full", 1.0), ("null", 1.0), ("residual", np.sqrt(2.0))])
def test_maxmin_alone_has_the_constant_1_and_the_residual_form_cannot_see_it(kind, expected, bound):
    """Claim L3: one MaxMin layer between identities."""
    net = network([np.eye(2), np.eye(2)], activation="groupsort")

    assert bound(kind, net) == pytest.approx(expected, rel=EXACT)


@pytest.mark.parametrize("kind", SOLVE)
def test_without_a_hidden_layer_the_bound_is_the_norm(kind, bound):
    """l = 1: the spectral norm, or the largest row sum."""
    weight = np.array([[3.0, 0.0], [4.0, 1.0]])

    assert bound(kind, network([weight], activation="groupsort")) == pytest.approx(np.linalg.norm(weight, 2), rel=1e-10)
    assert bound(kind, network([weight], activation="groupsort", norm="linf")) == pytest.approx(5.0, rel=1e-10)


@pytest.mark.parametrize("kind", SOLVE)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_scaling_a_layer_scales_the_bound(kind, norm, bound):
    """L(c W_k) = |c| L for the last layer whatever its sign, and for the first."""
    net = sorting_net("3-4-4-2", norm=norm)
    for k, scale in ((0, 1e-3), (1, 7.0), (2, -50.0)):
        scaled = network([w * scale if i == k else w for i, w in enumerate(net.weights)], activation="groupsort", norm=norm)

        assert bound(kind, scaled) == pytest.approx(abs(scale) * bound(kind, net), rel=EXACT)


@pytest.mark.parametrize("kind", SOLVE)
def test_rotating_input_and_output_leaves_the_bound(kind, bound):
    """L(W_1 Q) = L = L(Q W_l) in l2, also with more inputs than units, where W_1 is reduced."""
    net = sorting_net("9-4-6-3")
    q_in, q_out = (np.linalg.qr(normal(seed, n, n))[0] for seed, n in ((5, 9), (6, 3)))
    rotated = network([net.weights[0] @ q_in, net.weights[1], q_out @ net.weights[2]], activation="groupsort")

    assert bound(kind, rotated) == pytest.approx(bound(kind, net), rel=EXACT)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize(
    "net", [sorting_net("3-6-4-2"), sorting_net("3-6-6-2", 3), householder_net("3-6-4-2", 2), householder_net("3-6-6-2", 3)]
)
def test_bounds_come_in_the_order_of_their_freedom(net, norm, bound):
    """sample <= exact <= null space <= (T, S, P) <= chain <= norm product."""
    net = network(
        list(net.weights), list(net.biases), net.activation, group=net.group, directions=list(net.directions) or None, norm=norm
    )
    sample = pair_quotient(net, steepest_pair(net, 3 * normal(1, 2000, 3)))
    kinds = ("null", "full", "chain") if norm == "l2" or net.activation == "groupsort" else ("null", "full")

    order = [sample, vertex_maximum(net, SlopeVertices()), *(bound(kind, net) for kind in kinds), norm_product(net)]

    assert all(low <= high * (1 + EXACT) for low, high in pairwise(order)), order


def test_householder_with_the_direction_of_a_swap_has_maxmin_s_bounds(bound):
    """v = (1, -1) is MaxMin, whatever its length."""
    maxmin = sorting_net("4-8-8-3")
    pairs = [np.tile([3.0, -3.0], (4, 1))] * 2
    reflected = network(list(maxmin.weights), activation="householder", directions=pairs)

    for kind in ("chain", "full", "null"):
        assert bound(kind, reflected) == pytest.approx(bound(kind, maxmin), rel=EXACT)


def test_outputs_in_a_batch_are_the_outputs_one_by_one(make_ctx):
    """l-infinity: the rows of W_l share Newton steps and nothing else; the bound is the largest of theirs."""
    whole = sorting_net("4-8-6-5", norm="linf")
    found = method.solve_nsr(whole, make_ctx(), SdpParams())
    alone = []
    for row in whole.weights[-1]:
        one = network([*whole.weights[:-1], row[None]], activation="groupsort", norm="linf")
        alone.append(method.solve_nsr(one, make_ctx(), SdpParams()).bound)

    assert found.bound == pytest.approx(max(alone), rel=EXACT)
    assert [mu.sum() for mu in found.evidence.mu] == pytest.approx(alone, rel=EXACT)


@pytest.mark.parametrize("kind", ["neuron", "layer"])
def test_slopes_are_bounded_in_linf_too(kind, make_ctx):
    """Between the largest norm over all slope patterns, the sample, and the product of row sums; with Clarabel's number."""
    net = network(list(card_net("3-5-4-2").weights), norm="linf")
    solve = method.solve_neuron if kind == "neuron" else method.solve_layer

    ours = prove(net, solve(net, make_ctx(), SdpParams())).bound

    assert vertex_maximum(net, SlopeVertices()) <= ours <= norm_product(net)
    theirs = prove(net, solve(net, make_ctx(), SdpParams(solver="clarabel", eps=1e-8))).bound
    assert ours == pytest.approx(theirs, rel=EXACT)


@pytest.mark.parametrize("kind", ["chain", "null", "residual"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_general_solvers_agree(kind, norm, bound):
    """Clarabel solves the same program from its matrices; (T, S, P) it calls inaccurate."""
    net = sorting_net("3-6-4-2", norm=norm)

    assert bound(kind, net, solver="clarabel", eps=1e-8) == pytest.approx(bound(kind, net), rel=EXACT)
    assert bound(kind, net, solver="scs", eps=1e-6) == pytest.approx(bound(kind, net), rel=1e-3)  # scs is rough


def test_iterations_that_the_first_output_used_up_leave_a_certificate_of_the_others(make_ctx):
    """Three outputs, four iterations: one program is stopped, two are not started, and the bound is proved all the same."""
    net = sorting_net("3-4-4-3", norm="linf")
    ctx = make_ctx(solver_iterations=4)

    solution = method.solve_nsr(net, ctx, SdpParams(solver="clarabel"))

    assert ctx.clocks.spent == {"solver_iterations": 4}
    assert vertex_maximum(net, SlopeVertices()) <= prove(net, solution).bound <= norm_product(net)


drawn_nets = st.tuples(
    st.sampled_from(["2-2-2", "3-4-2", "2-4-2-2", "3-2-4-1"]), st.integers(0, 2**32 - 1), st.sampled_from(["sort", "reflect"])
)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(drawn_nets, st.sampled_from(["chain", "full", "null"]), st.sampled_from(["l2", "linf"]), st.sampled_from([1e-6, 0.3]))
def test_no_certified_bound_lies_below_a_slope_or_the_pattern_maximum(tmp_path_factory, drawn, kind, norm, eps):
    """Soundness, also for a solver that stops early."""
    dims, seed, how = drawn
    rng = np.random.default_rng(seed)
    sizes = [int(n) for n in dims.split("-")]
    weights = [rng.standard_normal((after, before)) for before, after in pairwise(sizes)]
    biases = [rng.standard_normal(n) for n in sizes[1:]]
    directions = [rng.standard_normal((n // 2, 2)) for n in sizes[1:-1]] if how == "reflect" else None
    activation = "groupsort" if how == "sort" else "householder"
    net = network(weights, biases, activation, directions=directions, norm=norm)

    proved = prove(net, SOLVE[kind](net, real_context(tmp_path_factory.mktemp("blobs")), SdpParams(eps=eps))).bound

    assert proved >= pair_quotient(net, steepest_pair(net, 3 * normal(1, 300, sizes[0])))
    assert proved >= vertex_maximum(net, SlopeVertices()) * (1 - 1e-12)  # that number is rounded upwards
    assert proved**2 <= norm_product(net) ** 2 / (1 - eps)


# The proof, in rational arithmetic ----------------------------------------------------------------------------------------


def exact_inequality(net: Network, rho: Fraction, evidence) -> Matrix:
    """l2, from the card's own formulas in exact arithmetic: groupsort of 2, coordinates of each kind of evidence."""
    weights = [exact(w) for w in net.weights]
    sizes = [len(weights[0][0]), *net.hidden]
    null, residual = isinstance(evidence, NullSpaceMultipliers), isinstance(evidence, ResidualMultipliers)
    free = [sizes[0], *(n // 2 if null else n for n in net.hidden)]
    n, start = sum(free), [sum(free[:k]) for k in range(len(free) + 1)]
    p = [[Fraction(0)] * n for _ in range(n)]
    unit = lambda i: [Fraction(int(i == j)) for j in range(n)]  # noqa: E731
    z = [unit(i) for i in range(sizes[0])]
    for i in range(sizes[0]):
        p[i][i] += rho
    for k, weight in enumerate(weights[:-1]):
        x = [combine(row, z) for row in weight]
        own = [unit(start[k + 1] + i) for i in range(free[k + 1])]
        if null:
            z = [combine([1, sign], [x[i], own[i // 2]]) for i in range(len(x)) for sign in [1 if i % 2 == 0 else -1]]
        elif residual:
            z = [combine([1, 1], [x[i + 1], own[i]]) if i % 2 == 0 else combine([1, -1], [x[i], own[i]]) for i in range(len(x))]
        else:
            z = own
        for g in range(len(x) // 2):
            pair = slice(2 * g, 2 * g + 2)
            if residual:
                m = combine([1, -1], x[pair])
                for t, y, of in zip(evidence.t[k][pair], own[pair], (m, combine([-1], [m])), strict=True):
                    add_product(p, -2 * Fraction(float(t)), y, combine([1, -1], [of, y]))
                continue
            lam = Fraction(float(evidence.lam[k][g]))
            for dx, dz in zip(x[pair], z[pair], strict=True):
                add_product(p, -lam, dx, dx)
                add_product(p, lam, dz, dz)
            if not null:
                gamma, nu, tau = (Fraction(float(of[k][g])) for of in (evidence.gamma, evidence.nu, evidence.tau))
                a, b = combine([1, 1], x[pair]), combine([1, 1], z[pair])
                add_product(p, -(gamma - 2 * tau), a, a)
                add_product(p, -2 * (nu + tau), a, b)
                add_product(p, gamma + 2 * nu, b, b)
    for row in weights[-1]:
        out = combine(row, z)
        add_product(p, Fraction(-1), out, out)
    return p


def combine(factors, rows):
    return [
        sum((Fraction(f) * x for f, x in zip(factors, column, strict=True)), Fraction(0)) for column in zip(*rows, strict=True)
    ]


def add_product(p: Matrix, scale: Fraction, left, right) -> None:
    for i, (l_i, r_i) in enumerate(zip(left, right, strict=True)):
        for j, (l_j, r_j) in enumerate(zip(left, right, strict=True)):
            p[i][j] += scale * (l_i * r_j + r_i * l_j) / 2


@pytest.mark.parametrize("kind", SOLVE)
def test_what_is_called_proved_is_proved_in_rational_arithmetic(kind, make_ctx):
    """The reported bound, the weights and the multipliers, as the exact numbers that they are, satisfy the inequality."""
    net = sorting_net("2-4-2-2")
    solution = SOLVE[kind](net, make_ctx(), SdpParams())

    bound = prove(net, solution).bound

    assert is_positive_definite(exact_inequality(net, Fraction(bound) ** 2, solution.evidence))
    assert not is_positive_definite(exact_inequality(net, Fraction(bound * (1 - 1e-5)) ** 2, solution.evidence))
    assert margin(net, bound, solution.evidence) > 0


@pytest.mark.parametrize("kind", SOLVE)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_claim_below_what_the_multipliers_prove_is_invalid(kind, norm, make_ctx):
    """A hundredth and a half less is more than a repair forgives; multipliers of a flatter net do not help."""
    net = sorting_net("3-4-4-2", norm=norm)
    true = SOLVE[kind](net, make_ctx(), SdpParams())
    steeper = network([w * 1.1 for w in net.weights], activation="groupsort", norm=norm)

    with pytest.raises(Invalid, match="the multipliers do not prove L <="):
        prove(net, Bound(true.bound * 0.985, "upper", true.evidence))
    with pytest.raises(Invalid, match="do not prove"):
        prove(steeper, true)
    slightly = prove(net, Bound(true.bound * 0.9999, "upper", true.evidence))
    assert true.bound * (1 - EXACT) <= slightly.bound <= true.bound * 1.001  # the next step of the ladder of repairs


def one_per_pair(*values: float) -> tuple[np.ndarray, ...]:
    return tuple(np.full(2, value) for value in values)


@pytest.mark.parametrize(
    ("evidence", "message"),
    [
        (
            GroupMultipliers(*[one_per_pair(1.0)] * 4),
            r"multipliers of shapes \(\(2,\),\); the hidden layers have groups \(2, 2\)",
        ),
        (GroupMultipliers(one_per_pair(-1.0, 1.0), *[one_per_pair(0.0, 0.0)] * 3), "finite and >= 0"),
        (GroupMultipliers(one_per_pair(1.0, 1.0), one_per_pair(np.nan, 0.0), *[one_per_pair(0.0, 0.0)] * 2), "finite"),
        (GroupMultipliers(one_per_pair(1e308, 1e308), *[one_per_pair(-1e308, 1e308)] * 3), "do not prove"),
        (NullSpaceMultipliers(one_per_pair(0.0, 0.0)), "do not prove"),
        (NullSpaceMultipliers(one_per_pair(np.inf, 0.0)), "finite and >= 0"),
        (ResidualMultipliers(one_per_pair(1.0, 1.0)), r"multipliers of shapes \(\(2,\), \(2,\)\)"),
        (Multipliers((np.ones(4), np.ones(4))), "prove nothing about 'groupsort'"),
        (PerOutput((np.ones(3),) * 2, (NullSpaceMultipliers(one_per_pair(1.0, 1.0)),) * 2), "prove nothing in 'l2'"),
    ],
)
def test_spoilt_evidence_is_invalid_in_l2(evidence, message):
    """Wrong shapes, signs, sizes, kinds, and numbers that are none."""
    with pytest.raises(Invalid, match=message):
        prove(sorting_net("3-4-4-2"), Bound(5.0, "upper", evidence))


@pytest.mark.parametrize(
    ("mu", "rows", "message"),
    [
        (1, 2, "multipliers for 1 and 2 outputs; the network has 2, of 3 inputs"),
        (2, 1, "multipliers for 2 and 1 outputs"),
        (-2, 2, "mu must be finite and >= 0"),
    ],
)
def test_spoilt_evidence_is_invalid_in_linf(mu, rows, message):
    """One vector mu and one set of multipliers for each output."""
    evidence = PerOutput((np.full(3, np.sign(mu) * 1.0),) * abs(mu), (NullSpaceMultipliers(one_per_pair(1.0, 1.0)),) * rows)

    with pytest.raises(Invalid, match=message):
        prove(sorting_net("3-4-4-2", norm="linf"), Bound(5.0, "upper", evidence))
    with pytest.raises(Invalid, match="prove nothing in 'linf'"):
        prove(sorting_net("3-4-4-2", norm="linf"), Bound(5.0, "upper", NullSpaceMultipliers(one_per_pair(1.0, 1.0))))


def test_evidence_for_the_wrong_activation_is_invalid():
    """A sum that is kept, a pair that is sorted: reflections keep another sum, ReLU none, and RR is for MaxMin alone."""
    with pytest.raises(Invalid, match="prove nothing about 'relu'"):
        prove(card_net("3-4-4-2"), Bound(5.0, "upper", NullSpaceMultipliers(one_per_pair(1.0, 1.0))))
    with pytest.raises(Invalid, match="residual ReLU prove nothing about 'householder'"):
        prove(householder_net("3-4-4-2", 2), Bound(5.0, "upper", ResidualMultipliers((np.ones(4), np.ones(4)))))
    with pytest.raises(Invalid, match="residual ReLU prove nothing about 'groupsort' of 4"):
        prove(sorting_net("3-4-4-2", 4), Bound(5.0, "upper", ResidualMultipliers((np.ones(4), np.ones(4)))))


def test_methods_for_groups_refuse_what_they_say_nothing_about(make_ctx):
    """The other method is named."""
    with pytest.raises(Unsupported, match="got 'relu'; use lipsdp-neuron"):
        method.solve_nsr(card_net("3-4-2"), make_ctx(), SdpParams())
    with pytest.raises(Unsupported, match="for MaxMin; got 'groupsort' in groups of 4"):
        method.solve_rr(sorting_net("3-4-2", 4), make_ctx(), SdpParams())
    with pytest.raises(Unsupported, match="small nets, up to 2000 units; got 2002"):
        method.solve_nsr_null(sorting_net("2-2002-2"), make_ctx(), SdpParams())
