"""The barrier method: derivatives against differences, proved gaps, batches, early stops, and nets of full size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from harness_papers.lipsdp import SdpParams, method
from harness_papers.lipsdp.problems import network
from harness_papers.lipsdp.solvers import barrier, forms, general
from harness_papers.lipsdp.solvers.chain import BlockTridiagonal, ChainProgram
from harness_papers.lipsdp.solvers.neuron import SlopeProgram
from harness_papers.lipsdp.solvers.reductions import group_basis, scale
from harness_papers.lipsdp.verify import norm_product, prove

from lipsdp.conftest import card_net, normal
from lipsdp.test_activations import householder_net, sorting_net

RELU, LEAKY = card_net("5-6-4-3"), card_net("5-6-4-3", "leaky_relu")
MAXMIN = sorting_net("5-6-4-3")
ROW = network([*MAXMIN.weights[:-1], MAXMIN.weights[-1][:1]], activation="groupsort", norm="linf")
ROW_RELU = network([*RELU.weights[:-1], RELU.weights[-1][:1]], norm="linf")


def slopes(net, tied=False, heads=1):
    program = SlopeProgram(scale(net), tied, heads)
    return program, program.starts()[0]


def chain(net):
    program = ChainProgram(net, scale(net))
    return program, program.starts()[0]


PROGRAMS = {
    "neuron": slopes(RELU),
    "neuron, leaky": slopes(LEAKY),
    "neuron, sigmoid": slopes(card_net("5-6-4-3", "sigmoid")),
    "layer": slopes(LEAKY, tied=True),
    "neuron, l-infinity": slopes(ROW_RELU, heads=5),
    "layer, l-infinity": slopes(ROW_RELU, tied=True, heads=5),
    "chain": chain(MAXMIN),
    "chain, groups of 3": chain(sorting_net("5-6-6-3", 3)),
    "chain, householder": chain(householder_net("5-6-6-3", 3)),
    "chain, l-infinity": chain(sorting_net("5-6-4-3", norm="linf")),
    "null space": (forms.null_space(MAXMIN, scale(MAXMIN)), forms.sorting_start(MAXMIN, [3, 2])),
    "null space, l-infinity": (forms.null_space(ROW, scale(ROW)), forms.sorting_start(ROW, [3, 2])),
    "full": (forms.full(MAXMIN, scale(MAXMIN)), forms.sorting_start(MAXMIN, [6, 4])),
    "residual": (forms.residual(MAXMIN, scale(MAXMIN)), forms.residual_start(MAXMIN)),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_newton_s_system_is_that_of_the_differences(name):
    """Gradient and Hessian of F in the program's own coordinates, from values of F alone; starts are feasible."""
    program, x = PROGRAMS[name]
    rows = np.arange(len(x))
    x = x * (1.0 + 0.05 * np.abs(normal(3, *x.shape)) * (name not in ("residual", "full")))
    newton, v = program.newton(x, rows), x.shape[1]

    f = lambda y: program.barrier(x + newton.lift(y), rows)  # noqa: E731
    step = 1e-4 * np.abs(x).mean()
    unit = [np.tile(step * np.eye(v)[i], (len(x), 1)) for i in range(v)]
    assert np.isfinite(f(0 * unit[0])).all()
    gradient = np.stack([(f(e) - f(-e)) / (2 * step) for e in unit], axis=1)
    np.testing.assert_allclose(newton.gradient, gradient, rtol=1e-4, atol=1e-4 * np.abs(gradient).max())  # O(h^2) of the steps

    hessian = np.zeros((len(x), v, v))
    for i in range(v):
        ahead, behind = (program.newton(x + newton.lift(sign * unit[i]), rows) for sign in (1.0, -1.0))
        hessian[:, :, i] = (along(ahead, newton, v) - along(behind, newton, v)) / (2 * step)
    solved = newton.solve(hessian)  # H^-1 H
    np.testing.assert_allclose(solved, np.broadcast_to(np.eye(v), solved.shape), rtol=0, atol=2e-3)


def along(at: barrier.Newton, base: barrier.Newton, v: int) -> np.ndarray:
    """The gradient at one point in the coordinates of another: through x, where both are plain but for the first one."""
    steps = np.stack([base.lift(np.tile(np.eye(v)[i], (len(base.cost), 1))) for i in range(v)], axis=1)
    own = np.stack([at.lift(np.tile(np.eye(v)[i], (len(base.cost), 1))) for i in range(v)], axis=1)
    plain = np.linalg.solve(own, at.gradient[:, :, None])
    return (steps @ plain)[:, :, 0]


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_proved_gap_holds_the_optimum_of_another_solver(name):
    """Clarabel's optimum lies between our lower bound and our value, which are within 1e-6 of each other."""
    program, x = PROGRAMS[name]

    path = barrier.solve(program, [x], 1e-6, lambda step: True)

    assert path.status == "optimal"
    assert path.gap(program.cost).max() <= 1e-6
    for row in range(len(x)):
        value = general.solve_conic(program, row, "clarabel", 1e-9, lambda clock: float("inf")).value
        slack = 1e-4 if name == "full" else 1e-6  # Clarabel's own; it calls (T, S, P) inaccurate
        assert path.lower[row] <= value * (1 + slack)
        assert value <= (path.x[row] @ program.cost) * (1 + slack)


def test_every_stop_leaves_a_feasible_point_and_a_true_lower_bound():
    """go_on is asked before each step; the value falls, the lower bound rises, and they never cross."""
    program, x = PROGRAMS["neuron"]
    optimum = barrier.solve(program, [x], 1e-9, lambda step: True)
    values, bounds = [], []
    for steps in range(0, 16, 3):
        path = barrier.solve(program, [x], 1e-9, lambda step, steps=steps: step < steps)
        assert path.steps == steps
        assert np.isfinite(program.barrier(path.x, np.array([0])))[0]
        values.append(path.x[0] @ program.cost)
        bounds.append(path.lower[0])

    assert values == sorted(values, reverse=True)
    assert bounds == sorted(bounds)
    assert bounds[-1] > 0
    best = optimum.x[0] @ program.cost
    assert all(low <= best <= high for low, high in zip(bounds, values, strict=True))


def test_a_start_that_leads_nowhere_gives_way_to_the_next(monkeypatch):
    """Where no lower bound shows up the path is left; the cheapest feasible point is kept."""
    program, x = PROGRAMS["neuron"]
    asked = []
    follow = barrier.follow
    lost = barrier.Path(x, np.zeros(1), 5, "no lower bound")
    monkeypatch.setattr(barrier, "follow", lambda *a: asked.append(a[1]) or (lost if len(asked) == 1 else follow(*a)))

    path = barrier.solve(program, [x, 2.0 * x], 1e-6, lambda step: True)

    assert (len(asked), path.status) == (2, "optimal")
    assert path.steps > 5


def test_block_tridiagonal_systems_are_solved():
    """Against the dense solution, in a batch, with blocks of different sizes and scales."""
    sizes, rng = (3, 2, 4), np.random.default_rng(0)
    edges = np.cumsum([0, *sizes])
    root = rng.standard_normal((2, 9, 9))
    root[:, 5:, :3] = 0.0
    root = np.tril(root) + 3 * np.eye(9)
    root[:, 5:, :3] = 0.0
    scales = 10.0 ** rng.uniform(-4, 4, 9)
    whole = (root @ root.transpose(0, 2, 1)) * scales[:, None] * scales
    where = [slice(a, b) for a, b in pairwise(edges)]
    diagonal = [whole[:, block, block] for block in where]
    below = [whole[:, where[k + 1], where[k]] for k in range(2)]
    right = rng.standard_normal((2, 9, 3)) * scales[:, None]

    found = BlockTridiagonal(diagonal, below, edges).solve(right)

    assert not whole[:, 5:, :3].any()
    np.testing.assert_allclose(found * scales[:, None], np.linalg.solve(whole, right) * scales[:, None], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("net", [MAXMIN, sorting_net("4-8-3", 4), householder_net("4-8-3", 2), householder_net("4-8-3", 4)])
def test_the_basis_of_a_group_splits_what_is_kept_from_the_rest(net):
    """Orthonormal; the first columns are orthogonal to what a swap or a reflection moves along."""
    bases, kept = group_basis(net, 0)

    np.testing.assert_allclose(bases.transpose(0, 2, 1) @ bases, np.broadcast_to(np.eye(net.group), bases.shape), atol=1e-14)
    for g, basis in enumerate(bases):
        moved = np.eye(net.group)[0] - np.eye(net.group)[1] if net.activation == "groupsort" else net.directions[0][g]
        np.testing.assert_allclose(basis[:, :kept].T @ moved, 0.0, atol=1e-14)


def deep(width: int, layers: int, activation: str, inputs: int = 64) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    sizes = [inputs, *[width] * layers, 10]
    return [rng.standard_normal((after, before)) / np.sqrt(before) for before, after in pairwise(sizes)]


@pytest.mark.slow
def test_deep_relu_nets_are_solved_to_a_proved_gap(make_ctx):
    """18 layers of 32: the norm product is 70,968, the bound 114.2327. The central path of such nets is nearly singular."""
    net = network(deep(32, 17, "relu"))
    ctx = make_ctx()

    bound = prove(net, method.solve_neuron(net, ctx, SdpParams())).bound

    assert ctx.diagnostics["solver_status"] == "optimal"
    assert ctx.diagnostics["program_lower_bound"] <= bound <= ctx.diagnostics["program_lower_bound"] * (1 + 1e-6)
    assert bound == pytest.approx(114.23266, rel=1e-6)
    assert norm_product(net) > 70_000


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_the_chain_of_18_layers_of_128_is_solved_to_a_proved_gap(norm, make_ctx):
    """The largest net of the paper's tables, with weights of our own."""
    net = network(deep(128, 17, "groupsort"), activation="groupsort", norm=norm)
    ctx = make_ctx()

    bound = prove(net, method.solve_nsr(net, ctx, SdpParams())).bound

    assert ctx.diagnostics["solver_status"] == "optimal"
    assert bound <= ctx.diagnostics["program_lower_bound"] * (1 + 1e-6)
    assert bound < norm_product(net) / 2
