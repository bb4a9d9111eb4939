"""The tasks: which net, what is held, and a score that no claim can bend."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from harness_papers.lipsdp import (
    METHODS,
    ExactParams,
    RandomNet,
    SampleParams,
    SdpParams,
    TrainedNet,
    method,
    random_net_shape,
    tasks,
    trained_net_shape,
)
from harness_papers.lipsdp.nets import TASKS as tasks_declared
from harness_papers.lipsdp.problems import SLOPES, Bound, LipschitzBound, Multipliers, Network, NormProduct, PointPair, network
from harness_papers.lipsdp.recipes import ACTIVATIONS, train_mlp
from harness_papers.lipsdp.sampling import forward
from harness_papers.lipsdp.verify import activate, evaluate, norm_product, pair_quotient
from pydantic import ValidationError

from harness import Invalid, Unsupported
from lipsdp.conftest import card_net, normal
from lipsdp.test_activations import SORTED_LINF

SMALL = RandomNet(dims="4-8-3", samples=500)
SOLVERS = {
    "lipsdp-neuron": (method.solve_neuron, SdpParams()),
    "lipsdp-layer": (method.solve_layer, SdpParams()),
    "norm-product": (method.solve_norm_product, None),
    "sampled-lower-bound": (method.solve_sampled, SampleParams(samples=500)),
    "exact-masks": (method.solve_exact, ExactParams()),
}


@pytest.fixture
def small(make_ctx):
    return tasks.load_random_net(SMALL, make_ctx(stage="load"))


def score(instance, solution, ctx=None):
    return tasks.score(instance.held["test"], solution, SMALL, ctx)


def test_every_method_gives_a_scored_solution_with_all_metrics(small, make_ctx):
    """What resume and claims rely on: no metric is left out, and each is a finite number."""
    groups = {"lipsdp-nsr", "nsr-full", "nsr-null", "lipsdp-rr"}  # for nets of groups of units
    assert set(SOLVERS) | groups == {m.name for m in METHODS}
    for name, (solve, params) in SOLVERS.items():
        solution = solve(small.problem, make_ctx(), params)

        values = score(small, solution)

        assert isinstance(solution, LipschitzBound), name
        assert set(values) == {"bound", "tightness", "lower_bound", "certified", "repair"}
        assert all(np.isfinite(v) for v in values.values())
        assert values["tightness"] >= 1 - 1e-9, name
        assert 0 <= values["repair"] < 1e-6, name


def test_a_lower_bound_never_leads_the_upper_bounds(small, make_ctx):
    """It proves no upper bound, so it is given what needs no proof: the norm product, which every method may reach."""
    values = {name: score(small, solve(small.problem, make_ctx(), params)) for name, (solve, params) in SOLVERS.items()}

    lower = values["sampled-lower-bound"]
    assert lower["bound"] == values["norm-product"]["bound"] == max(v["bound"] for v in values.values())
    assert lower["certified"] == 0.0
    assert lower["lower_bound"] > 0.0
    assert all(v["certified"] == 1.0 and v["lower_bound"] == 0.0 for name, v in values.items() if name != "sampled-lower-bound")
    assert values["lipsdp-neuron"]["bound"] < values["lipsdp-layer"]["bound"] < values["norm-product"]["bound"]


def test_the_method_s_own_number_never_counts(small):
    """A claim far above what is proved does no harm, and one below is Invalid; the recomputed bound is scored."""
    product = norm_product(small.problem)

    assert score(small, Bound(10 * product, "upper", NormProduct()))["bound"] == product
    with pytest.raises(Invalid, match="the evidence proves"):
        score(small, Bound(0.98 * product, "upper", NormProduct()))


def test_an_upper_bound_below_a_slope_that_was_seen_is_invalid(small):
    """Two points are enough to prove it wrong, whatever its evidence.

    The claim is within what a repair would forgive, on a net whose norm product is its constant.
    """
    net = network([np.diag([2.0, 1.0])])
    instance = tasks.instance(net, normal(0, 10, 2))

    with pytest.raises(Invalid, match=r"claims the upper bound 1\.99.*two points have a slope of 1\.99999"):
        score(instance, Bound(1.99, "upper", NormProduct()))
    assert score(instance, Bound(2.0, "upper", NormProduct()))["tightness"] == pytest.approx(1.0, abs=1e-9)


def test_a_certificate_that_does_not_verify_is_invalid(small, make_ctx):
    """A better number with the true multipliers."""
    true = method.solve_neuron(small.problem, make_ctx(), SdpParams())
    halved = Multipliers(tuple(t / 2 for t in true.evidence.t))

    with pytest.raises(Invalid, match="do not prove"):
        score(small, Bound(true.bound, "upper", halved))


def test_scoring_uses_the_network_that_was_handed_out(small, make_ctx):
    """A certificate of a flatter net, made by scaling the problem's weights, does not count."""
    flatter = network([w / 2 for w in small.problem.weights])

    with pytest.raises(Invalid):
        score(small, method.solve_neuron(flatter, make_ctx(), SdpParams()))
    with pytest.raises(ValueError, match="read-only"):
        small.problem.weights[0][0, 0] = 0.0


def test_the_card_s_draw_is_the_card_s_net_whatever_the_seed(make_ctx):
    """The golden values are reachable as a task: weights from default_rng(0), points from default_rng(1)."""
    params = RandomNet(dims="4-8-3", draw="card")
    nets = [tasks.load_random_net(params, make_ctx(seed, "load")) for seed in (0, 1)]

    assert nets[0].problem.weights[0][0, 0] == pytest.approx(0.062865110547, abs=1e-12)
    assert all(np.array_equal(nets[0].problem.weights[k], nets[1].problem.weights[k]) for k in range(2))
    assert pair_quotient(nets[1].problem, nets[1].held["test"]["pair"]) == pytest.approx(1.487544, rel=1e-5)


def test_each_seed_is_a_net_of_its_own_and_the_same_one_again(make_ctx):
    """Seeds are the pairs of every claim."""
    first, again, second = (tasks.load_random_net(SMALL, make_ctx(seed, "load")) for seed in (0, 0, 1))

    assert np.array_equal(first.problem.weights[1], again.problem.weights[1])
    assert np.array_equal(first.held["test"]["pair"].x, again.held["test"]["pair"].x)
    assert not np.array_equal(first.problem.weights[1], second.problem.weights[1])


def test_what_is_held_survives_pickling(small):
    """The worker seals it as bytes."""
    held = pickle.loads(pickle.dumps(small.held["test"]))

    assert np.array_equal(held["network"].weights[0], small.problem.weights[0])
    assert pair_quotient(held["network"], held["pair"]) == pair_quotient(small.problem, small.held["test"]["pair"])


@pytest.mark.parametrize(
    ("dims", "sizes"), [("4-8-8-3", (4, 8, 8, 3)), ((2, 3), (2, 3)), ([5, 1, 2], (5, 1, 2)), ("04-8-3", (4, 8, 3))]
)
def test_sizes_are_read_from_a_string_or_a_list_and_written_in_one_way(dims, sizes):
    """Two ways of writing one net must be one identity."""
    params = RandomNet(dims=dims)

    assert params.sizes == sizes
    assert params.dims == "-".join(map(str, sizes))
    assert random_net_shape(params) == {"inputs": sizes[0], "outputs": sizes[-1], "hidden_units": sum(sizes[1:-1])}


@pytest.mark.parametrize("dims", ["", "4", "4-", "4-0-3", "4--3", "4x8", "-4-3"])
def test_sizes_that_are_none_are_refused_with_an_example(dims):
    """The message shows how to write it."""
    with pytest.raises(ValidationError, match="write at least two positive sizes joined by dashes, as 4-8-8-3"):
        RandomNet(dims=dims)


TRAINED = {"width": 8, "epochs": 4, "samples": 400}


@pytest.mark.parametrize("activation", sorted(SLOPES))
def test_a_trained_net_is_certified_as_any_other(activation, make_ctx):
    """digits, 64-8-8-10: the derived weights are the problem, in float64, and the order of the bounds holds."""
    params = TrainedNet(depth=3, activation=activation, **TRAINED)
    loaded = tasks.load_trained_net(params, make_ctx(stage="load"))

    solution = method.solve_neuron(loaded.problem, make_ctx(), SdpParams())
    values = tasks.score(loaded.held["test"], solution, params, None)

    assert [w.shape for w in loaded.problem.weights] == [(8, 64), (8, 8), (10, 8)]
    assert trained_net_shape(params) == {"inputs": 64, "outputs": 10, "hidden_units": 16}
    assert loaded.problem.biases[0].any()
    assert values["tightness"] >= 1.0
    assert values["bound"] < norm_product(loaded.problem)


def test_the_trained_net_has_learnt_digits(make_ctx):
    """Or the task would be about initialisations: above 80 % of its training images after four epochs."""
    ctx = make_ctx(stage="load")
    made = train_mlp(ctx, data_set="digits", depth=2, width=16, activation="relu", group=1, epochs=8)
    net = network(*([made[f"{what}.{k}"].double().numpy() for k in range(2)] for what in ("weight", "bias")))

    from harness import data

    logits = np.stack([evaluate(net, x)[0] for x in made["points"].double().numpy()])
    assert (logits.argmax(axis=1) == data.load("digits").y).mean() > 0.8


def test_the_recipe_and_the_checker_mean_the_same_activation():
    """The bound is about the function that was trained."""
    import torch

    x = np.linspace(-5, 5, 101)
    assert set(ACTIVATIONS) == set(SLOPES)
    for name, function in ACTIVATIONS.items():
        np.testing.assert_allclose(activate(name, x), function(torch.from_numpy(x)).numpy(), rtol=0, atol=1e-15)


@pytest.mark.parametrize("name", sorted(SLOPES))
def test_declared_slopes_hold_for_secants(name):
    """Every secant lies in [alpha, beta], and some come near both ends: the declared interval is valid and not too wide."""
    x, y = 10 * normal(0, 2, 20_000)
    secants = (activate(name, x) - activate(name, y)) / (x - y)
    near = np.linspace(-40, 40, 4001)
    steep = np.diff(activate(name, near)) / np.diff(near)
    alpha, beta = SLOPES[name]

    assert alpha - 1e-9 <= secants.min()
    assert secants.max() <= beta + 1e-9  # float64 differences of numbers of size 10
    assert steep.min() == pytest.approx(alpha, abs=1e-3)
    assert steep.max() == pytest.approx(beta, abs=1e-3)


def test_a_net_that_is_constant_where_it_is_looked_at_is_unsupported():
    """Tightness would divide by zero; a dead ReLU layer does it."""
    dead = network([np.eye(2), np.eye(2)], [np.array([-1e6, -1e6]), np.zeros(2)])

    with pytest.raises(Unsupported, match="does not change on any held point"):
        tasks.instance(dead, normal(0, 50, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"activation": "gelu"}, "activation='gelu'; use one of"),
        ({"beta": 0.5}, "do not hold for 'relu'"),
        ({"weights": (np.ones((3, 2)), np.ones((2, 4)))}, "layer 1 of shape"),
        ({"weights": (np.ones((3, 2), np.float32), np.ones((2, 3)))}, "needs float64"),
        ({"weights": (np.full((3, 2), np.nan), np.ones((2, 3)))}, "not finite"),
        ({"biases": (np.zeros(3),)}, "2 weights and 1 biases"),
    ],
)
def test_a_network_that_cannot_be_certified_is_refused(change, message):
    """At the border, before a solver makes nonsense of it."""
    fine = {"weights": (np.ones((3, 2)), np.ones((2, 3))), "biases": (np.zeros(3), np.zeros(2))}
    Network(**fine)

    with pytest.raises(ValueError, match=message):
        Network(**{**fine, **change})


def test_the_sampled_pair_shows_the_jacobian_s_norm():
    """In a linear region two points along the first right singular vector have exactly that slope."""
    from harness_papers.lipsdp.sampling import max_jacobian, steepest_pair

    net, points = card_net("4-8-8-3"), normal(7, 300, 4)
    pair = steepest_pair(net, points)

    assert isinstance(pair, PointPair)
    assert pair_quotient(net, pair) == pytest.approx(max_jacobian(net, points)[0], rel=1e-7)


# Groups, l-infinity, rows ----------------------------------------------------------------------------------------------------

CARD = 1e-5  # the card gives six decimals


@pytest.mark.parametrize(("dims", "group"), SORTED_LINF)
def test_the_card_s_rows_in_l_infinity_are_reachable_as_tasks(dims, group, make_ctx):
    """Net, norm, row and points: two columns of the card's table."""
    product, sampled = SORTED_LINF[dims, group]
    params = RandomNet(dims=dims, draw="card", activation="groupsort", group=group, norm="linf", rows=1)
    loaded = tasks.load_random_net(params, make_ctx(stage="load"))

    assert len(loaded.problem.weights[-1]) == 1
    assert random_net_shape(params)["outputs"] == 1
    assert norm_product(loaded.problem) == pytest.approx(product, rel=CARD)
    assert pair_quotient(loaded.problem, loaded.held["test"]["pair"]) == pytest.approx(sampled, rel=CARD)


@pytest.mark.parametrize(("activation", "group"), [("groupsort", 2), ("groupsort", 4), ("householder", 2)])
def test_a_trained_net_of_groups_is_what_was_trained(activation, group, make_ctx):
    """The problem computes the logits of the recipe's own net, in its norm, and has learnt its images."""
    import torch
    from harness_papers.lipsdp import recipes

    params = TrainedNet(depth=3, activation=activation, group=group, norm="linf", width=16, epochs=8, samples=200)
    made: dict[str, torch.Tensor] = {}
    ctx = make_ctx(stage="load")
    derive = ctx.derive
    ctx.derive = lambda *args, **named: made.update(derive(*args, **named)) or made
    net = tasks.load_trained_net(params, ctx).problem

    layers = [[made[f"{what}.{k}"].double() for k in range(3)] for what in ("weight", "bias")]
    x = made["points"].double()[:50]
    logits = recipes.forward(x, *layers, recipes.activation_of(activation, group))
    np.testing.assert_allclose(forward(net, x.numpy())[0], logits.numpy(), rtol=0, atol=1e-12 * float(abs(logits).max()))
    assert (net.norm, net.activation, net.group) == ("linf", activation, group)
    assert made["accuracy"] > 0.8


def test_orthogonal_layers_leave_the_activation_alone(make_ctx):
    """The product of their norms is 1, and so is the slope of a MaxMin net: it changes no length."""
    params = RandomNet(dims="6-6-6", weights="orthogonal", activation="groupsort", samples=500)
    loaded = tasks.load_random_net(params, make_ctx(stage="load"))

    assert norm_product(loaded.problem) == pytest.approx(1.0, abs=1e-12)
    assert pair_quotient(loaded.problem, loaded.held["test"]["pair"]) == pytest.approx(1.0, abs=1e-8)
    assert not np.allclose(loaded.problem.weights[0], loaded.problem.weights[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dims": "4-9-3", "activation": "groupsort"}, r"hidden layers of \(9,\) do not divide into groups of 2"),
        ({"dims": "4-8-3", "activation": "groupsort", "group": 3}, "do not divide into groups of 3"),
        ({"dims": "4-8-4", "weights": "orthogonal"}, "write equal sizes, as 8-8-8"),
        ({"dims": "4-8-4", "group": 1}, "greater than or equal to 2"),
    ],
)
def test_nets_that_cannot_be_are_refused_where_the_suite_is_read(settings, message):
    with pytest.raises(ValidationError, match=message):
        RandomNet(**settings)
    assert RandomNet(dims="4-9-3", group=4).group == 4  # of no meaning for relu


def test_more_rows_than_outputs_are_unsupported(make_ctx):
    with pytest.raises(Unsupported, match="rows=4: the net has 3 outputs"):
        tasks.load_random_net(SMALL.model_copy(update={"rows": 4}), make_ctx(stage="load"))


def test_the_data_of_a_trained_net_are_those_that_it_is_trained_on():
    """A plan without the data folder names MNIST where it is asked for, and only there."""
    (task,) = (t for t in tasks_declared if t.name == "trained-net")

    assert [task.datasets(TrainedNet(data=name)) for name in ("digits", "mnist")] == [("digits",), ("mnist",)]
    assert trained_net_shape(TrainedNet(data="mnist", rows=1)) == {"inputs": 784, "outputs": 1, "hidden_units": 32}


@pytest.mark.data
@pytest.mark.slow
def test_mnist_is_learnt_too(make_ctx):
    params = TrainedNet(data="mnist", depth=2, width=32, activation="groupsort", epochs=1, samples=100)

    net = tasks.load_trained_net(params, make_ctx(stage="load")).problem

    assert [w.shape for w in net.weights] == [(32, 784), (10, 32)]
