"""The gradient methods: their penalty and estimator by hand, training on a task that they can solve, and repetition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from harness_papers.boolean_rrr import GradientParams, MLPParams, MultiplierParams, PenaltyParams
from harness_papers.boolean_rrr.baselines import (
    as_net,
    draw_layers,
    mlp_forward,
    penalty,
    sign_forward,
    sign_straight_through,
    solve_mlp,
    solve_mlp_penalty,
    solve_straight_through,
)
from harness_papers.boolean_rrr.problem import BooleanProblem, Table
from harness_papers.boolean_rrr.tasks import load_multiplier

from harness.errors import BudgetSpent, Diverged

SOLVERS = [
    (solve_mlp, MLPParams(activation="tanh")),
    (solve_mlp_penalty, PenaltyParams(activation="tanh")),
    (solve_straight_through, GradientParams()),
]
NAMES = ["mlp", "penalty", "straight-through"]


@pytest.fixture
def majority() -> BooleanProblem:
    """Majority of three bits with a net of one layer: one threshold function, which gradients find."""
    bits = np.array([[b >> k & 1 for k in range(3)] for b in range(8)]) * 2 - 1
    return BooleanProblem(Table(bits.astype(np.int8), np.sign(bits.sum(axis=1, keepdims=True)).astype(np.int8)), (3, 1))


def multiplier() -> BooleanProblem:
    return load_multiplier(MultiplierParams(), None).problem


@pytest.mark.parametrize("over", ["mean", "sum"])
def test_the_penalty_pulls_rows_to_the_fan_in_and_weights_to_zero(over, rng):
    """With loops: (|row|^2 - inputs)^2 and |w|, without biases; the authors take means over a layer's rows and weights."""
    layers = [(torch.randn(o, i, generator=rng, dtype=torch.float64), torch.ones(o)) for i, o in ((4, 3), (3, 2))]

    got = penalty(layers, 0.01, 0.001, over)

    expected = 0.0
    for weight, _ in layers:
        rows = [(sum(w * w for w in row) - len(row)) ** 2 for row in weight.tolist()]
        sizes = [abs(w) for row in weight.tolist() for w in row]
        join = sum if over == "sum" else lambda values: sum(values) / len(values)
        expected += 0.01 * join(rows) + 0.001 * join(sizes)
    assert float(got) == pytest.approx(expected, rel=1e-12)


def test_the_sign_lets_the_gradient_through_between_minus_one_and_one():
    """Forward exactly -1 or +1, a tie is -1; backward 1 inside, 0 outside."""
    z = torch.tensor([-2.0, -0.5, 0.0, 0.3, 1.7], requires_grad=True)

    y = sign_straight_through(z)
    (y * torch.tensor([1.0, 2, 3, 4, 5])).sum().backward()

    assert y.tolist() == [-1, -1, -1, 1, 1]
    assert z.grad.tolist() == [0, 2, 3, 4, 0]


@pytest.mark.parametrize("activation", ["relu", "tanh", "sign"])
def test_the_net_that_is_offered_computes_what_was_trained(activation, make_ctx):
    """The NumPy net with the bias as a source of -1 gives the torch logits."""
    problem = multiplier()
    layers = draw_layers(problem, make_ctx(steps=1))
    forward = sign_forward if activation == "sign" else mlp_forward(activation)

    logits = forward(layers, torch.tensor(problem.table.inputs, dtype=torch.float64))
    net = as_net(layers, activation)

    np.testing.assert_allclose(net.pre_activations(problem.table.inputs)[-1], logits.detach().numpy(), atol=1e-12)


@pytest.mark.parametrize(("solver", "params"), SOLVERS, ids=NAMES)
def test_what_gradients_can_learn_they_learn_and_stop(solver, params, majority, make_ctx):
    """All right before the budget is spent: training ends, and the last offer is the net that is returned."""
    ctx = make_ctx(steps=5000)

    net = solver(majority, ctx, params.model_copy(update={"lr": 0.01}))

    steps = ctx.clocks.spent["steps"]
    assert steps == ctx.diagnostics["iterations_to_solution"] < 5000
    assert ctx.clocks.spent["items_edges"] == steps * 8 * 4
    assert ctx.offered[-1][0] is net
    np.testing.assert_array_equal(net.predict(majority.table.inputs), majority.table.outputs)


@pytest.mark.parametrize(("solver", "params"), SOLVERS, ids=NAMES)
def test_the_same_seed_trains_to_the_same_bits(solver, params, make_ctx):
    """On one CPU and thread; another seed starts elsewhere."""
    nets = []
    for seed in (0, 0, 1):
        ctx = make_ctx(seed=seed, dtype="float32", steps=20)
        with pytest.raises(BudgetSpent):
            solver(multiplier(), ctx, params)
        nets.append(ctx.offered[-1][0])

    assert nets[0].weights[0].dtype == np.float32
    np.testing.assert_array_equal(nets[0].weights[1], nets[1].weights[1])
    assert (nets[0].weights[1] != nets[2].weights[1]).any()


def test_all_gradient_methods_of_a_pair_start_from_the_same_weights(make_ctx):
    """Streams are named by parameter, not by method; and the start does not depend on the dtype but for rounding."""
    double, single = (draw_layers(multiplier(), make_ctx(dtype=dtype, steps=1)) for dtype in ("float64", "float32"))

    for (weight, bias), (weight32, bias32) in zip(double, single, strict=True):
        assert torch.equal(weight.float(), weight32)
        assert torch.equal(bias.float(), bias32)
        assert float(weight.detach().abs().max()) <= 0.5  # 1 / sqrt(4)


def test_a_loss_that_is_not_finite_ends_as_diverged(make_ctx):
    """Not a net of NaN weights that scores as all -1."""
    with pytest.raises(Diverged, match="loss"):
        solve_mlp(multiplier(), make_ctx(dtype="float32", steps=200), MLPParams(lr=1e30))
