"""The programs of GroupSort, Householder and residual ReLU that have no chain, as sums of signed squares (`squares`).

All are in the coordinates of a scaled network; x = (mu, multipliers), mu as in `chain`: one number in l2, one per input in
l-infinity (then with one output). Certified are the multipliers, by `verify`, which writes the inequality down again.
"""

from __future__ import annotations

import numpy as np

from harness_papers.lipsdp.problems import Array, Network
from harness_papers.lipsdp.solvers.reductions import Scaled, group_basis, rotate
from harness_papers.lipsdp.solvers.squares import Form, SquaresProgram

FREE = 1e4  # the multiplier of (1^T dx - 1^T dphi)^2 = 0 in (T, S, P), over the layer's scale: it grows without bound


def null_space(problem: Network, scaled: Scaled) -> SquaresProgram:
    """LipSDP-NSR on the space where each group keeps its sum: z_k = C C^T W_k z_{k-1} + Q y_k, coordinates (z_0, y_1, ...).

    C and Q are the kept and the other columns of the groups' bases. Constraint of group g:
    lambda_g (|Q_g^T W_k z_{k-1}|^2 - |y_g|^2) >= 0. Variables: mu, lambda. No gamma, tau, nu: they multiply 0.
    """
    bases = [group_basis(problem, k) for k in range(len(problem.hidden))]
    free = [len(basis) * (problem.group - kept) for basis, kept in bases]
    edges = scaled.weights[0].shape[1] + np.cumsum([0, *free])
    z, heads = np.eye(edges[0], edges[-1]), edges[0] if problem.norm == "linf" else 1
    forms, variables = [head(edges[0], edges[-1], heads)], heads
    for k, (basis, kept) in enumerate(bases):
        inner = rotate(basis, scaled.weights[k] @ z).reshape(len(basis), problem.group, -1)
        y = np.zeros((free[k], edges[-1]))
        y[:, edges[k] : edges[k + 1]] = np.eye(free[k])
        group = np.repeat(np.arange(len(basis)), problem.group - kept) + variables
        moved = inner[:, kept:].reshape(free[k], -1)
        forms.append(Form(np.concatenate([y, moved]), np.tile(group, 2), np.repeat([1.0, -1.0], free[k])))
        both = np.concatenate([inner[:, :kept], y.reshape(len(basis), -1, edges[-1])], axis=1)
        z, variables = (basis @ both).reshape(problem.hidden[k], -1), variables + len(basis)
    return program(forms, scaled.weights[-1] @ z, heads, variables)


def full(problem: Network, scaled: Scaled) -> SquaresProgram:
    """LipSDP-NSR with T, S and P in the coordinates (z_0, ..., z_{l-1}). Variables: mu, lambda, sigma; eta is fixed.

    T, S, P add any form p a^2 + 2 q a b + r b^2 with p + 2 q + r = 0 in the kept parts a of dx and b of dphi of a group:
    sigma (b^2 - a^2) and eta (a - b)^2 span them, and P grows with eta, which is set to FREE times the layer's scale.
    """
    edges = np.cumsum([0, *(weight.shape[1] for weight in scaled.weights)])
    heads = edges[1] if problem.norm == "linf" else 1
    identity = np.eye(edges[-1])
    forms, variables = [head(edges[1], edges[-1], heads)], heads
    constant = np.zeros((edges[-1], edges[-1]))
    for k, size in enumerate(problem.hidden):
        basis, kept = group_basis(problem, k)
        before, here = identity[edges[k] : edges[k + 1]], identity[edges[k + 1] : edges[k + 2]]
        dx = scaled.weights[k] @ before
        group = np.repeat(np.arange(len(basis)), problem.group) + variables
        forms.append(Form(np.concatenate([here, dx]), np.tile(group, 2), np.repeat([1.0, -1.0], size)))
        a, b = (rotate(basis, of).reshape(*basis.shape[:2], -1)[:, :kept].reshape(len(basis) * kept, -1) for of in (dx, here))
        constant += FREE * (a - b).T @ (a - b)
        group = np.repeat(np.arange(len(basis)), kept) + variables + len(basis)
        forms.append(Form(np.concatenate([b, a]), np.tile(group, 2), np.repeat([1.0, -1.0], len(a))))
        variables += 2 * len(basis)
    return program(forms, scaled.weights[-1] @ identity[edges[-2] :], heads, variables, constant)


def residual(problem: Network, scaled: Scaled) -> SquaresProgram:
    """LipSDP-RR: MaxMin written as H x + G relu(M x), then LipSDP-Neuron on the ReLU units; coordinates (z_0, y_1, ...).

    The larger of a pair is x_2 + relu(x_1 - x_2), the smaller x_2 - relu(x_2 - x_1). With m = M x the constraint of a unit
    is 2 t y (m - y) >= 0, and -2 y (m - y) = y^2 + (y - m)^2 - m^2. Variables: mu, t.
    """
    edges = scaled.weights[0].shape[1] + np.cumsum([0, *problem.hidden])
    identity, z = np.eye(edges[-1]), np.eye(edges[0], edges[-1])
    heads = edges[0] if problem.norm == "linf" else 1
    forms, variables = [head(edges[0], edges[-1], heads)], heads
    for k, size in enumerate(problem.hidden):
        x, y = scaled.weights[k] @ z, identity[edges[k] : edges[k + 1]]
        difference = x[0::2] - x[1::2]
        m = np.stack([difference, -difference], axis=1).reshape(size, -1)
        unit = np.arange(size) + variables
        forms.append(Form(np.concatenate([y, y - m, m]), np.tile(unit, 3), np.repeat([1.0, 1.0, -1.0], size)))
        z, variables = np.stack([x[1::2] + y[0::2], x[1::2] - y[1::2]], axis=1).reshape(size, -1), variables + size
    return program(forms, scaled.weights[-1] @ z, heads, variables)


def head(inputs: int, n: int, heads: int) -> Form:
    """mu |z_0|^2."""
    return Form(np.eye(inputs, n), np.zeros(inputs, int) if heads == 1 else np.arange(inputs), np.ones(inputs))


def program(forms: list[Form], output: Array, heads: int, variables: int, constant: Array | float = 0.0) -> SquaresProgram:
    cost = (np.arange(variables) < heads).astype(np.float64)
    return SquaresProgram(constant - output.T @ output, forms, cost)


def sorting_start(problem: Network, per_layer: list[int]) -> Array:
    """A feasible (1, v): lambda of the norm product, each layer's a half above what it needs; other multipliers 0.

    per_layer: multipliers of each hidden layer, of which the first are lambda, one a group.
    """
    scales = 1.5 ** np.arange(len(per_layer) + 1, 0, -1.0)
    heads = problem.weights[0].shape[1] if problem.norm == "linf" else 1
    parts = [np.full(heads, scales[0])]
    for scale, size, count in zip(scales[1:], problem.hidden, per_layer, strict=True):
        parts.append(np.where(np.arange(count) < size // problem.group, scale, 0.0))
    return np.concatenate(parts)[None]


def residual_start(problem: Network) -> Array:
    """A feasible (1, v) for `residual`: s_k bounds |z_k|^2 <= 4 |x_k|^2 + 2 |y_k|^2, with |m|^2 <= 4 |x_k|^2 and norms 1."""
    s, parts = 1.1, []
    for size in reversed(problem.hidden):
        parts.append(np.full(size, 2.2 * s))
        s *= 13.5  # > 4 + 4 * 2.2
    heads = problem.weights[0].shape[1] if problem.norm == "linf" else 1
    return np.concatenate([np.full(heads, s), *parts[::-1]])[None]
