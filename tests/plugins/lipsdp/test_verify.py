"""The checker against exact rational arithmetic, and against every way of claiming too much."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from harness_papers.lipsdp import SdpParams, definite, exactly, inequalities, method, verify
from harness_papers.lipsdp.problems import (
    Bound,
    Multipliers,
    Network,
    NormProduct,
    PerOutput,
    PointPair,
    SlopeVertices,
    network,
)
from harness_papers.lipsdp.solvers.neuron import SlopeProgram
from harness_papers.lipsdp.solvers.reductions import Scaled
from harness_papers.lipsdp.tasks import random_network
from harness_papers.lipsdp.verify import is_surely_positive_definite, lmi, norm_product, pair_quotient, prove
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import Invalid, Unsupported
from lipsdp.conftest import card_net, normal

Matrix = list[list[Fraction]]


def exact(array: Any) -> Matrix:
    """Each float64 as the rational number that it is."""
    return [[Fraction(float(x)) for x in row] for row in array]


def exact_lmi(net: Network, rho: Fraction, t: tuple[Any, ...]) -> Matrix:
    """The LMI of the card in rational arithmetic, from the quadratic form of each single unit.

    rho |z_0|^2 - |W_l z_{l-1}|^2 - sum_i 2 t_i (z_i - alpha w_i z) (beta w_i z - z_i), as a symmetric matrix.
    """
    a, b = Fraction(net.alpha), Fraction(net.beta)
    starts = [0]
    for weight in net.weights:
        starts.append(starts[-1] + weight.shape[1])
    n = starts[-1]
    p = [[Fraction(0)] * n for _ in range(n)]
    for i in range(starts[1]):
        p[i][i] += rho
    for k, weight in enumerate(net.weights[:-1]):
        for i, row in enumerate(exact(weight)):
            # The unit's pre-activation is u . z and its output v . z, for vectors u and v.
            u, v = [Fraction(0)] * n, [Fraction(0)] * n
            u[starts[k] : starts[k + 1]] = row
            v[starts[k + 1] + i] = Fraction(1)
            left = [y - a * x for x, y in zip(u, v, strict=True)]
            right = [b * x - y for x, y in zip(u, v, strict=True)]
            subtract_product(p, 2 * Fraction(float(t[k][i])), left, right)
    for row in exact(net.weights[-1]):
        w = [Fraction(0)] * n
        w[starts[-2] :] = row
        subtract_product(p, Fraction(1), w, w)
    return p


def subtract_product(p: Matrix, scale: Fraction, left: list[Fraction], right: list[Fraction]) -> None:
    """p -= scale * (left right^T + right left^T) / 2."""
    for i in range(len(p)):
        for j in range(len(p)):
            p[i][j] -= scale * (left[i] * right[j] + right[i] * left[j]) / 2


def is_positive_definite(p: Matrix) -> bool:
    """Gaussian elimination: all pivots positive. Exact."""
    p = [row[:] for row in p]
    for i in range(len(p)):
        if p[i][i] <= 0:
            return False
        for j in range(i + 1, len(p)):
            if p[j][i]:
                factor = p[j][i] / p[i][i]
                p[j] = [x - factor * y for x, y in zip(p[j], p[i], strict=True)]
    return True


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid"])
def test_what_is_called_proved_is_proved_in_rational_arithmetic(activation, make_ctx):
    """The bound that is reported, the weights and the multipliers, as the exact numbers that they are, satisfy the LMI."""
    net = card_net("2-4-3-2", activation)
    solution = method.solve_neuron(net, make_ctx(), SdpParams())

    bound = prove(net, solution).bound

    assert is_positive_definite(exact_lmi(net, Fraction(bound) ** 2, solution.evidence.t))
    too_low = Fraction(bound * (1 - 1e-6)) ** 2
    assert not is_positive_definite(exact_lmi(net, too_low, solution.evidence.t))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 3), min_size=2, max_size=4),
    activation=st.sampled_from(["relu", "leaky_relu", "sigmoid"]),
    logs=st.lists(st.floats(-6, 3), min_size=7, max_size=7),
)
def test_a_yes_of_the_float_check_is_never_wrong_and_a_no_only_near_the_border(seed, sizes, activation, logs):
    """Arbitrary multipliers and rho: yes implies the exact matrix is positive definite; well inside it does say yes."""
    net = random_network(tuple(sizes), np.random.default_rng(seed), activation)
    numbers = iter(10.0 ** np.array(logs))
    t = tuple(np.array([next(numbers) for _ in range(size)]) for size in net.hidden)
    rho = float(next(numbers))

    said = is_surely_positive_definite(*lmi(net, rho, t))

    if said:
        assert is_positive_definite(exact_lmi(net, Fraction(rho), t))
    else:
        inside = exact_lmi(net, Fraction(rho), t)
        for i in range(len(inside)):
            inside[i][i] *= 1 - Fraction(1, 10**9)
        assert not is_positive_definite(inside)


@pytest.mark.parametrize("distance", [1e-13, 1e-15, 0.0, -1e-17, -1e-14])
def test_a_matrix_at_the_border_is_not_called_positive_definite(distance):
    """[[1, 1 - d], [1 - d, 1]] has the eigenvalue d. What float64 cannot tell from 0 must be a no."""
    p = np.array([[1.0, 1.0 - distance], [1.0 - distance, 1.0]])

    assert is_surely_positive_definite(p, abs(p), 2) == (distance > 5e-14)


def test_what_the_assembly_may_have_lost_counts_against_the_proof():
    """Large terms that cancel leave a small matrix with their rounding in it: 1e17 u is more than the eigenvalue 1."""
    p = np.eye(3)

    assert is_surely_positive_definite(p, 1e13 * np.ones((3, 3)), 3)
    assert not is_surely_positive_definite(p, 1e17 * np.ones((3, 3)), 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_prove_nothing(bad):
    """A factorisation of NaN may run to its end without a complaint."""
    p = np.eye(3)

    assert is_surely_positive_definite(p, p, 3)
    assert not is_surely_positive_definite(p, np.full((3, 3), bad), 3)
    assert not is_surely_positive_definite(p + np.diag([0.0, bad, 0.0]), p, 3)


def test_the_check_does_not_depend_on_the_size_of_units():
    """The scaling by powers of two is exact: rows and columns times 2^k give the same answer."""
    p = np.array([[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 1.0]])  # its smallest eigenvalue is 0.198
    d = 2.0 ** np.array([-300, 0, 250])

    assert is_surely_positive_definite(p * d[:, None] * d, abs(p * d[:, None] * d), 3)
    p[2, 2] = 0.6  # determinant -0.2
    assert not is_surely_positive_definite(p * d[:, None] * d, abs(p * d[:, None] * d), 3)


@pytest.mark.parametrize(("size", "proved"), [(1e-190, True), (1e-210, False)])
def test_a_matrix_so_small_that_its_terms_underflow_is_not_called_positive_definite(size, proved):
    """What was lost of them may be as large as the matrix."""
    p = size * np.eye(2)

    assert is_surely_positive_definite(p, p, 3) == proved


@pytest.fixture
def certified(make_ctx):
    """(net, a true certificate of it)."""
    net = card_net("4-8-8-3")
    return net, method.solve_neuron(net, make_ctx(), SdpParams())


@pytest.mark.parametrize("share", [0.5, 0.9, 0.98])
def test_a_claim_below_what_the_multipliers_prove_is_invalid(share, certified):
    """The number is the method's; the evidence is not for it."""
    net, true = certified

    with pytest.raises(Invalid, match=r"the multipliers do not prove L <= .*smallest eigenvalue of the scaled LMI is -"):
        prove(net, Bound(true.bound * share, "upper", true.evidence))


def test_a_claim_that_is_slightly_low_is_repaired_and_the_repair_is_told(certified):
    """Rounding of a solver is not a lie: within 1 % of L^2 the proved number takes the place of the claimed one."""
    net, true = certified

    proof = prove(net, Bound(true.bound * 0.999, "upper", true.evidence))

    assert true.bound <= proof.bound <= true.bound * 1.005  # the next step of the ladder of repairs
    assert proof.repair == pytest.approx(proof.bound / (0.999 * true.bound) - 1, rel=1e-9)


def test_a_true_certificate_of_another_net_is_worth_nothing(certified):
    """The LMI is rebuilt from the weights at hand."""
    true = certified[1]
    steeper = network([w * 1.2 for w in card_net("4-8-8-3").weights])

    with pytest.raises(Invalid, match="do not prove"):
        prove(steeper, true)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t[:1], r"multipliers of shapes \(\(8,\),\)"),
        (lambda t: (t[0][:7], t[1]), r"multipliers of shapes"),
        (lambda t: (-t[0], t[1]), "finite and >= 0"),
        (lambda t: (t[0] * np.nan, t[1]), "finite and >= 0"),
        (lambda t: (t[0] * np.inf, t[1]), "finite and >= 0"),
        (lambda t: (t[0] * 0.0, t[1]), "do not prove"),
        (lambda t: (t[0], t[1] * 0.5), "do not prove"),
        (lambda t: (t[0] * 1e300, t[1]), "do not prove"),
        (lambda t: (t[0] * 0 + 1e308, t[1]), "eigenvalue of the scaled LMI is -inf"),
    ],
)
def test_spoilt_multipliers_are_invalid(spoil, message, certified):
    """Wrong shapes, signs, sizes and numbers that are none."""
    net, true = certified

    with pytest.raises(Invalid, match=message):
        prove(net, Bound(true.bound, "upper", Multipliers(spoil(true.evidence.t))))


@pytest.mark.parametrize("claim", [np.nan, np.inf, -1.0, 1e200])
def test_a_claim_that_is_no_bound_is_invalid(claim, certified):
    """NaN compares false with everything, so it must be asked for."""
    net, true = certified

    with pytest.raises(Invalid, match="a Lipschitz bound is a number >= 0"):
        prove(net, Bound(claim, "upper", true.evidence))


class Chimera(PointPair, Multipliers):
    """Evidence of two kinds at once."""

    def __init__(self, pair: PointPair, t: Any) -> None:
        object.__setattr__(self, "x", pair.x)
        object.__setattr__(self, "y", pair.y)
        object.__setattr__(self, "t", t)


@dataclass
class Chameleon:
    """A solution that is an upper bound when it is first asked, and a lower bound afterwards."""

    bound: float
    evidence: Any
    asked: list[int] = field(default_factory=list)

    @property
    def kind(self) -> str:
        self.asked.append(1)
        return "upper" if len(self.asked) == 1 else "lower"


def test_evidence_of_the_other_kind_is_invalid():
    """A slope that was seen is no upper bound, whatever the solution calls it, and however often it changes its mind."""
    net, pair = card_net("2-4-2"), PointPair(np.zeros(2), np.ones(2))
    slope = pair_quotient(net, pair)

    with pytest.raises(Invalid, match="kind='upper', but PointPair proves lower bounds only"):
        prove(net, Bound(slope, "upper", pair))
    with pytest.raises(Invalid, match="kind='upper', but PointPair proves lower bounds only"):
        prove(net, Chameleon(slope, pair))
    with pytest.raises(Invalid, match="kind='lower', but NormProduct proves upper bounds only"):
        prove(net, Bound(1.0, "lower", NormProduct()))
    with pytest.raises(Invalid, match="evidence of type Chimera"):
        prove(net, Bound(slope, "upper", Chimera(pair, (np.ones(4),))))


@pytest.mark.parametrize(
    ("evidence", "kind", "factor"),
    [(NormProduct(), "upper", 0.9), (SlopeVertices(), "upper", 0.9), (PointPair(np.zeros(2), np.ones(2)), "lower", 1.1)],
)
def test_a_claim_beyond_its_evidence_is_invalid(evidence, kind, factor):
    """The same for evidence without multipliers: it is recomputed, and the claim must agree to 1 %."""
    net = card_net("2-4-2")
    proved = {
        NormProduct: norm_product(net),
        SlopeVertices: verify.vertex_maximum(net, evidence),
        PointPair: verify.pair_quotient(net, PointPair(np.zeros(2), np.ones(2))),
    }[type(evidence)]

    assert prove(net, Bound(proved, kind, evidence)).bound == proved
    with pytest.raises(Invalid, match=rf"claims the {kind} bound"):
        prove(net, Bound(proved * factor, kind, evidence))


@pytest.mark.parametrize(
    "pair",
    [PointPair(np.zeros(2), np.zeros(2)), PointPair(np.zeros(2), np.array([np.nan, 0.0])), PointPair(np.zeros(3), np.ones(3))],
)
def test_a_pair_that_is_none_is_invalid(pair):
    """The same point twice has no slope; NaN has no distance; three numbers are no input of this net."""
    with pytest.raises(Invalid, match="pair of points"):
        prove(card_net("2-4-2"), Bound(0.1, "lower", pair))


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "sigmoid"])
@pytest.mark.parametrize("step", [1.0, 1e-6, 1e-12])
def test_the_slope_between_two_points_is_rounded_downwards(activation, step):
    """Far below the scale of x the difference is mostly rounding; the lower bound must not grow from it."""
    net = network([np.array([[1.0], [1.0]]), np.array([[1.0, 1.0]])], [np.array([1e6, 0.0]), np.zeros(1)], activation)
    true_slope = {"relu": 2.0, "leaky_relu": 2.0, "tanh": 1.0, "sigmoid": 0.25}[activation]  # at most, by hand

    quotient = pair_quotient(net, PointPair(np.array([0.0]), np.array([step])))

    assert 0.0 <= quotient <= true_slope
    if step == 1.0 and activation == "relu":
        assert quotient == pytest.approx(2.0, rel=1e-8)  # 1e6 leaves nine digits of a difference of 1


def test_too_many_patterns_are_unsupported():
    """The checker's own limit: 2^16 patterns."""
    with pytest.raises(Unsupported, match="17 hidden units"):
        prove(card_net("2-17-2"), Bound(100.0, "upper", SlopeVertices()))


def test_the_norm_product_is_rounded_upwards():
    """Against the exact norm of a matrix whose singular values are known: 5 and 10 for [[3, 4], [8, -6]]."""
    net = network([np.array([[3.0, 4.0], [8.0, -6.0]]), np.diag([2.0, 1.0])])

    assert 20.0 < norm_product(net) < 20.0 * (1 + 1e-13)


@pytest.mark.parametrize("share", [0.9, 1.0, 1.0 - 1e-15])
@pytest.mark.parametrize("shape", [(3, 3), (2, 5), (5, 2), (1, 4)])
def test_a_norm_is_proved_whatever_lapack_says(share, shape, monkeypatch):
    """s^2 I - W W^T in rational arithmetic; with singular values that are too small the proof still has to be found."""
    weight = normal(sum(shape), *shape)
    true_norm = np.linalg.norm
    said = lambda x, order=None, axis=None: true_norm(x, order, axis) * (share if order == 2 else 1.0)  # noqa: E731
    monkeypatch.setattr(np.linalg, "norm", said)

    norm = Fraction(verify.layer_norm(weight, "l2"))

    rows = exact(weight if shape[0] <= shape[1] else weight.T)
    gram = [[sum(x * y for x, y in zip(a, b, strict=True)) for b in rows] for a in rows]
    p = [[(norm**2 if i == j else 0) - x for j, x in enumerate(row)] for i, row in enumerate(gram)]
    assert is_positive_definite(p)
    if share > 0.9:
        assert float(norm) == pytest.approx(true_norm(weight, 2), rel=1e-13)
    else:
        assert float(norm) <= true_norm(weight) * (1 + 1e-13)  # the root of all squares


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("evidence", [NormProduct(), SlopeVertices()])
def test_products_of_layers_do_not_underflow(evidence, norm):
    """Four layers of 1e-100, then four of 1e100: the constant is 1, and was 0 on the way."""
    net = network([np.array([[1e-100]])] * 4 + [np.array([[1e100]])] * 4, norm=norm)

    assert 1.0 <= prove(net, Bound(1.0, "upper", evidence)).bound <= 1 + 1e-13
    shrinking = network([np.array([[1e-100]])] * 4, norm=norm)
    with pytest.raises(Invalid, match=r"claims the upper bound 0\.0; the evidence proves [1-9]"):
        prove(shrinking, Bound(0.0, "upper", evidence))


@pytest.mark.parametrize("number", [1e-200, 1e200, 5e-324])
@pytest.mark.parametrize(
    ("evidence", "kind"),
    [
        (NormProduct(), "upper"),
        (SlopeVertices(), "upper"),
        (Multipliers((np.ones(2),)), "upper"),
        (PointPair(np.zeros(2), np.ones(2)), "lower"),
    ],
)
def test_weights_whose_products_are_lost_are_refused_where_they_are_checked(number, evidence, kind):
    """Also by `--check`, whose network was read elsewhere."""
    net = network([np.array([[1.0, 0.0], [number, 1.0]]), np.ones((1, 2))])

    with pytest.raises(Invalid, match=r"layer 0 holds .*; 0 and sizes of 1e-120 to 1e\+120 can be certified"):
        prove(net, Bound(1.0, kind, evidence))


def test_multipliers_whose_products_are_lost_prove_nothing():
    """One that is the least number above 0, and 4000 outputs whose squares vanish beside it: L is 0.632."""
    net = network([np.array([[1e100]]), np.full((4000, 1), 1e-102)])
    tiny = Multipliers((np.array([5e-324]),))

    with pytest.raises(Invalid, match=r"a multiplier of .*, so small that its products are lost; 1e-120 is the least"):
        prove(net, Bound(0.03, "upper", tiny))
    linf = PerOutput((np.array([1e-200]),) * 4000, (Multipliers((np.ones(1),)),) * 4000)
    with pytest.raises(Invalid, match="mu must be finite and >= 0, and 1e-120 at least"):
        prove(replace(net, norm="linf"), Bound(1.0, "upper", linf))


@pytest.mark.parametrize("x", [np.array([1.4e-162, 0.0]), np.array([1e-100, 0.0]), np.array([0.0, 1e160])])
def test_points_whose_distance_cannot_be_measured_are_refused(x):
    """Its square would be 0, or infinite; so the slope."""
    net = network([np.full((2, 2), 1e60), np.ones((1, 2))])

    with pytest.raises(Invalid, match="must be at least 1e-75 apart, and no number above"):
        prove(net, Bound(1.0, "lower", PointPair(np.zeros(2), x)))


def test_a_slope_that_is_no_number_is_refused():
    """An output that overflows has no distance."""
    net = network([np.array([[1e110]])] * 3, activation="tanh")
    steep = network([np.array([[1e110]])] * 4)

    with pytest.raises(Invalid, match="which is no bound"):
        prove(steep, Bound(1.0, "lower", PointPair(np.zeros(1), np.ones(1))))
    with pytest.raises(Invalid, match="which is no bound"):
        prove(net, Bound(1.0, "upper", NormProduct()))


def test_verification_shares_no_code_with_the_solver():
    """A mistake in the LMI of the method must not be made again in its check: what is imported stays inside the checker."""
    import ast
    import inspect

    checker = {f"harness_papers.lipsdp.{name}" for name in ("definite", "exactly", "inequalities")}
    for module in (verify, inequalities, definite, exactly):
        tree = ast.parse(inspect.getsource(module))
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        ours = {name for name in imported if name.startswith("harness")}
        assert ours <= {"harness", "harness_papers.lipsdp.problems", *checker}, module.__name__


def test_the_two_lmis_are_the_same_matrix():
    """Block by block in the solver and in the check, which share no line, after undoing the scaling."""
    net = card_net("3-5-4-2", "leaky_relu")
    program = SlopeProgram(Scaled(net.weights, (1.0,) * 3, net.alpha, net.beta), False, 1)
    t = (abs(normal(1, 5)), abs(normal(2, 4)))

    (ours,) = program.matrices(np.concatenate([[2.0], *t]), 0)

    np.testing.assert_allclose(ours, lmi(net, 2.0, t)[0], rtol=0, atol=1e-14)  # entries of size 1


# Deep nets, where a bound of the rounding leaves nothing ----------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "groupsort"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_exact_quotient_is_that_of_rational_arithmetic(activation, norm):
    """Layer by layer in fractions, written down again here; the float64 lies below it by its last digit or two."""
    net = replace(tiny_net("3-4-4-2", activation), norm=norm)
    x, y = normal(3, 3), normal(4, 3)

    def run(point):
        value = [Fraction(v) for v in point]
        for k, (weight, bias) in enumerate(zip(net.weights, net.biases, strict=True)):
            value = [sum(Fraction(w) * v for w, v in zip(row, value, strict=True)) + Fraction(b)
                     for row, b in zip(weight.tolist(), bias.tolist(), strict=True)]  # fmt: skip
            if k < 2 and activation == "groupsort":
                value = [v for i in (0, 2) for v in sorted(value[i : i + 2], reverse=True)]
            elif k < 2:
                leak = Fraction(0.01) if activation == "leaky_relu" else Fraction(0)
                value = [v if v > 0 else leak * v for v in value]
        return value

    rises = [a - b for a, b in zip(run(x.tolist()), run(y.tolist()), strict=True)]
    runs = [Fraction(a) - Fraction(b) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    found = Fraction(exactly.exact_quotient(net, x, y))
    if norm == "linf":
        exact = max(map(abs, rises)) / max(map(abs, runs))
        assert exact * (1 - Fraction(1, 1 << 51)) < found < exact
    else:
        exact = sum(r * r for r in rises) / sum(r * r for r in runs)
        assert exact * (1 - Fraction(1, 1 << 50)) < found * found < exact


def tiny_net(dims, activation):
    net = card_net(dims, activation)
    return replace(net, biases=tuple(normal(10 + k, len(b)) for k, b in enumerate(net.biases)))


@pytest.mark.parametrize("activation", ["relu", "groupsort"])
def test_a_deep_net_keeps_its_lower_bound(activation):
    """Twenty layers of norm 5 and absolute norm 13: what is subtracted for rounding would be larger than the slope itself."""
    rng = np.random.default_rng(0)
    weights = [5 * np.linalg.qr(rng.standard_normal((8, 8)))[0] for _ in range(20)]
    net = network(weights, activation=activation)
    pair = PointPair(normal(1, 8), normal(1, 8) * (1 + 1e-7))

    _, error = verify.evaluate(net, np.asarray(pair.x))
    slope = pair_quotient(net, pair)

    assert np.linalg.norm(error) > 1e-7 * slope  # of a distance of some 3e-7
    assert slope > 0.0
    if activation == "groupsort":  # it changes no length, so the slope is known where no swap lies between
        assert slope == pytest.approx(5.0**20, rel=1e-12)


def test_only_nets_that_are_small_and_piecewise_linear_are_taken_exactly():
    assert exactly.is_exact(card_net("4-8-3"))
    assert not exactly.is_exact(card_net("4-8-3", "tanh"))
    assert not exactly.is_exact(network([np.ones((600, 600))]))
