"""Activations of groups of units: values, Jacobians, extreme Jacobians, and lower bounds in l2 and l-infinity."""

from __future__ import annotations

import numpy as np
import pytest
from harness_papers.lipsdp import ExactParams, SdpParams, method
from harness_papers.lipsdp.activations import count_patterns, extreme_jacobians
from harness_papers.lipsdp.problems import Bound, Multipliers, Network, PointPair, SlopeVertices, network
from harness_papers.lipsdp.sampling import forward, jacobians, max_jacobian, steepest_pair
from harness_papers.lipsdp.verify import evaluate, norm_product, pair_quotient, prove, vertex_maximum

from harness import Invalid, Unsupported
from lipsdp.conftest import card_net, normal

CARD = 1e-6  # the card gives six decimals of numbers above 0.5

# dims, group: product of spectral norms, largest Jacobian norm at 20000 points of default_rng(1)
SORTED_L2 = {
    ("2-4-2", 2): (1.810608, 1.251949),
    ("4-8-3", 2): (2.235289, 1.815682),
    ("4-8-8-3", 2): (3.361342, 1.996027),
    ("4-8-8-3", 4): (3.361342, 2.018763),
    ("4-8-8-8-3", 2): (5.153830, 2.389111),
    ("10-16-16-16-10", 2): (10.851489, 3.349888),
    ("10-16-16-16-10", 4): (10.851489, 3.900161),
}
# the same for l-infinity and output row 0: product of the largest row sums, sample
SORTED_LINF = {
    ("2-4-2", 2): (2.096148, 0.830460),
    ("4-8-3", 2): (3.462095, 1.058766),
    ("4-8-8-3", 2): (15.640830, 2.049544),
    ("4-8-8-3", 4): (15.640830, 3.535311),
    ("4-8-8-8-3", 2): (34.179758, 2.750198),
    ("10-16-16-16-10", 2): (198.378968, 4.393244),
    ("10-16-16-16-10", 4): (198.378968, 4.724792),
}


def sorting_net(dims: str, group: int = 2, norm: str = "l2", rows: slice = slice(None)) -> Network:
    weights = list(card_net(dims).weights)
    weights[-1] = weights[-1][rows]
    return network(weights, activation="groupsort", group=group, norm=norm)


def householder_net(dims: str, group: int, norm: str = "l2") -> Network:
    weights = list(card_net(dims).weights)
    directions = [normal(k, w.shape[0] // group, group) for k, w in enumerate(weights[:-1])]
    biases = [normal(50 + k, w.shape[0]) for k, w in enumerate(weights)]
    return network(weights, biases, "householder", group=group, directions=directions, norm=norm)


@pytest.mark.parametrize("case", SORTED_L2)
def test_golden_samples_and_products_in_l2(case):
    """The order inside a group is descending: deep nets depend on it."""
    net = sorting_net(*case)
    product, sample = SORTED_L2[case]
    points = normal(1, 20_000, net.weights[0].shape[1])

    assert norm_product(net) == pytest.approx(product, rel=CARD)
    assert max_jacobian(net, points)[0] == pytest.approx(sample, rel=CARD)
    assert pair_quotient(net, steepest_pair(net, points)) == pytest.approx(sample, rel=CARD)


@pytest.mark.parametrize("case", SORTED_LINF)
def test_golden_samples_and_products_in_linf(case):
    """The Jacobian's largest absolute row sum, and the direction of signs that attains it."""
    product, sample = SORTED_LINF[case]
    net = sorting_net(*case, norm="linf", rows=slice(0, 1))
    points = normal(1, 20_000, net.weights[0].shape[1])

    assert norm_product(net) == pytest.approx(product, rel=CARD)
    assert max_jacobian(net, points)[0] == pytest.approx(sample, rel=CARD)
    assert pair_quotient(net, steepest_pair(net, points)) == pytest.approx(sample, rel=CARD)


def test_householder_with_the_direction_of_a_swap_is_maxmin():
    """v = (1, -1): reflected where the first of a pair is not the larger one."""
    maxmin, x = sorting_net("4-8-8-3"), normal(3, 50, 4)
    reflected = network(list(maxmin.weights), activation="householder")

    np.testing.assert_allclose(forward(reflected, x)[0], forward(maxmin, x)[0], rtol=0, atol=1e-14)  # numbers of size 1


NETS = {
    "groupsort of 2": sorting_net("4-8-8-3"),
    "groupsort of 4": sorting_net("4-8-8-3", 4),
    "householder of 2": householder_net("4-8-8-3", 2),
    "householder of 4": householder_net("4-8-8-3", 4),
}


@pytest.mark.parametrize("name", NETS)
def test_jacobians_are_the_differences_of_values(name):
    """Piecewise linear: a step of 1e-6 stays in its piece at all but a few points, and there the difference is exact."""
    net, x = NETS[name], normal(5, 40, 4)
    found = np.concatenate([block for _, block in jacobians(net, x)])
    step = 1e-6 * np.eye(4)
    differences = np.stack([(forward(net, x + e)[0] - forward(net, x)[0]) / 1e-6 for e in step], axis=2)

    close = np.isclose(found, differences, rtol=0, atol=1e-8).all(axis=(1, 2))  # float64 differences over 1e-6

    assert close.mean() > 0.9
    assert (np.linalg.matrix_rank(found) == 3).all()  # orthogonal pieces lose nothing of W_l ... W_1


@pytest.mark.parametrize("name", NETS)
def test_the_checker_evaluates_the_same_function(name):
    """Written twice, so that neither can prove itself; both within the checker's own bound of rounding."""
    net = NETS[name]
    for x in normal(6, 20, 4):
        value, error = evaluate(net, x)
        assert (abs(value - forward(net, x[None])[0][0]) <= 2 * error).all()
        assert error.max() < 1e-11


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize(
    "net",
    [sorting_net("3-4-4-2"), sorting_net("3-6-2", 3), householder_net("3-6-4-2", 2), householder_net("3-6-2", 3)],
    ids=["groupsort of 2", "groupsort of 3", "householder of 2", "householder of 3"],
)
def test_exhaustive_searches_agree_and_bound_every_sample(net, norm):
    """The oracle's recursion over whole layers, the checker's over groups; no Jacobian is steeper, and some are as steep."""
    net = network(
        list(net.weights), activation=net.activation, group=net.group, directions=list(net.directions) or None, norm=norm
    )
    largest = vertex_maximum(net, SlopeVertices())

    assert largest == pytest.approx(method.largest_over_patterns(net), rel=1e-10)  # float64, norms of size 1
    assert max_jacobian(net, normal(2, 5000, 3))[0] <= largest
    assert largest <= norm_product(net)
    if len(net.hidden) == 1 and net.group == 2:
        assert max_jacobian(net, normal(2, 5000, 3))[0] == pytest.approx(largest, rel=1e-9)


def test_the_exact_maximum_over_swap_patterns_is_the_card_s(make_ctx):
    """4-8-3: 2^4 patterns, all of which occur."""
    net = sorting_net("4-8-3")

    assert count_patterns(net) == 16
    assert len(list(extreme_jacobians(net, 0))) == 16
    solution = method.solve_exact(net, make_ctx(), ExactParams())
    assert prove(net, solution).bound == pytest.approx(1.815682, rel=CARD)
    with pytest.raises(Unsupported, match="262144 swap patterns, max_units=16"):
        method.solve_exact(sorting_net("2-36-2"), make_ctx(), ExactParams())
    with pytest.raises(Unsupported, match="262144 patterns; the limit is 65536"):
        prove(sorting_net("2-36-2"), Bound(100.0, "upper", SlopeVertices()))


def test_multipliers_of_single_units_prove_nothing_about_groups(make_ctx):
    """A sorted unit's secant has no slope: taking GroupSort for slopes in [-1, 1], unit by unit, would be unsound."""
    net = sorting_net("2-4-2")

    with pytest.raises(Invalid, match="prove nothing about 'groupsort'"):
        prove(net, Bound(1.0, "upper", Multipliers((np.ones(4),))))
    with pytest.raises(Unsupported, match="LipSDP by slopes"):
        method.solve_neuron(net, make_ctx(), SdpParams())


def test_a_householder_layer_can_be_steeper_than_1_in_linf():
    """I - 2 v v^T has rows whose absolute sums exceed 1, sqrt 2 at 22.5 degrees: the norm product must count them."""
    v = np.array([[np.cos(np.pi / 8), np.sin(np.pi / 8)]])
    net = network([np.eye(2), np.eye(2)], activation="householder", directions=[v], norm="linf")

    assert net.slope_product == pytest.approx(np.sqrt(2), rel=1e-14)
    assert norm_product(net) == pytest.approx(np.sqrt(2), rel=1e-13)
    pair = PointPair(np.array([-3.0, -3.0]), np.array([-4.0, -4.0]))  # inside the reflected half
    assert pair_quotient(net, pair) == pytest.approx(np.sqrt(2), rel=1e-13)
    assert network([np.eye(2), np.eye(2)], activation="householder", directions=[v]).slope_product == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"group": 3}, r"group=3 for 'groupsort'; it must be 2 or more and divide the hidden sizes \(4,\)"),
        ({"group": 1}, "group=1 for 'groupsort'"),
        ({"activation": "relu", "alpha": 0.0}, "acts on each unit alone; leave out group"),
        ({"directions": (np.ones((2, 2)),)}, r"directions of shapes \(\(2, 2\),\) for 'groupsort'; they must be \(\)"),
        ({"activation": "householder"}, r"directions of shapes \(\) for 'householder'; they must be \(\(2, 2\),\)"),
        ({"activation": "householder", "directions": (np.zeros((2, 2)),)}, "none of them zero"),
        ({"norm": "l1"}, "norm='l1'; use 'l2' or 'linf'"),
        ({"alpha": 0.0}, "do not hold for 'groupsort'"),
    ],
)
def test_groups_that_fit_no_layer_are_refused(change, message):
    """At the border, with what would fit."""
    fine = {
        "weights": (np.ones((4, 2)), np.ones((2, 4))),
        "biases": (np.zeros(4), np.zeros(2)),
        "activation": "groupsort",
        "alpha": -1.0,
        "group": 2,
    }
    Network(**fine)

    with pytest.raises(ValueError, match=message):
        Network(**{**fine, **change})
