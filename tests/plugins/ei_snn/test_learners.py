"""The three nets as learners: they learn, keep their signs, and give the same bits for the same seed."""

from __future__ import annotations

import pytest
import torch
from harness_papers.ei_snn import BatchNormParams, CircuitParams, PlainParams
from harness_papers.ei_snn.learners import cost, solve

from harness import Unsupported
from harness.lab import Diverged

KINDS = {"ei": CircuitParams, "bn": BatchNormParams, "plain": PlainParams}
SMALL = {"width": 24, "depth": 3, "batch": 64, "lr": 0.05}
ABLATIONS = [
    {}, {"shunt_init": "one"}, {"stabilise": "epsilon"}, {"straight_through": False},
    {"scale_gradient": False},
]  # fmt: skip


def accuracy(solution, problem):
    return (solution.predict(problem.x).argmax(dim=1) == problem.y).float().mean().item()


@pytest.mark.parametrize("kind", KINDS)
def test_each_net_learns_clouds(kind, make_ctx, clouds):
    """Chance is a third; the plain net needs an initialisation under which it spikes."""
    problem = clouds()
    params = KINDS[kind](**SMALL, **({"init": "unit-variance"} if kind == "plain" else {}))
    ctx = make_ctx(steps=60)

    solution = solve(kind, problem, ctx, params)

    assert accuracy(solution, problem) > 0.9
    assert ctx.offered == params.evaluations


@pytest.mark.parametrize("ablation", ABLATIONS, ids=str)
def test_a_circuits_parameters_never_go_below_zero(ablation, make_ctx, clouds):
    """After each step, whatever was taken away; at this rate many would have gone there, and stand at 0."""
    problem = clouds()

    net = solve("ei", problem, make_ctx(steps=20), CircuitParams(**(SMALL | {"lr": 0.5}), **ablation)).module

    constrained = torch.cat([p.detach().flatten() for part in net.circuits() for p in part.constrained()])
    assert constrained.min() == 0
    assert (constrained == 0).sum() > 10
    assert min(part.bias.min() for part in net.circuits() if not part.output) < 0  # biases are free


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("coding", ["direct", "rate"])
def test_the_same_seed_gives_the_same_bits_and_another_does_not(kind, coding, make_ctx, clouds):
    problem, params = clouds(), KINDS[kind](**SMALL, coding=coding)

    first, again, other = (solve(kind, problem, make_ctx(seed=seed, steps=5), params).predict(problem.x) for seed in (0, 0, 1))

    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_net_that_there_is_not_is_unsupported(make_ctx, clouds):
    """An answer, not a failure: the leaderboard names it."""
    with pytest.raises(Unsupported, match="needs images"):
        solve("ei", clouds(), make_ctx(steps=1), CircuitParams(net="vgg", depth=8))


def test_a_net_whose_layers_are_silent_from_the_start_diverges(make_ctx, clouds):
    """E-I Init of the second layer has nothing to go by; a result, not an error."""
    with pytest.raises(Diverged, match="constant over the batch"):
        solve("ei", clouds(), make_ctx(steps=1), CircuitParams(**SMALL, theta=1e6))


def test_two_classes_have_one_inhibitory_unit_in_the_last_layer(make_ctx, clouds):
    """A quarter of two is none; without one the last layer would have no inhibition."""
    net = solve("ei", clouds(classes=2), make_ctx(steps=1), CircuitParams(**SMALL)).module

    assert net.readout.synapses.inhibition.shape == (2, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_the_cost_counts_the_nets_parameters_and_all_operations(kind, make_ctx, clouds):
    problem, params = clouds(), KINDS[kind](**SMALL)
    net = solve(kind, problem, make_ctx(steps=1), params).module

    told = cost(kind, problem.shape, params)

    assert told["params"] == sum(p.numel() for p in net.parameters())
    assert told["uncounted"] == []
    assert told["flops"] > 6 * told["params"]  # two products forward, four backward


def test_a_circuit_has_a_quarter_more_inputs_and_its_inhibition():
    """1.25 (d n_E) + n_E^2 / 4, gains and bias: what a batch-norm net must be widened by to match."""
    told = cost("ei", {"inputs": 64, "outputs": 10}, CircuitParams(width=128, depth=3))

    hidden = sum(160 * d + 128 * 32 + 32 + 128 + 128 for d in (64, 128))
    assert told["params"] == hidden + 12 * 128 + 10 * 2
