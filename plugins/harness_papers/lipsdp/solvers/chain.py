"""LipSDP-NSR in chained form (S = P = 0) as a `barrier.Program`, for GroupSort and Householder.

In a basis of each group that splits what the activation leaves alone from the rest, T_k = lambda_k I + gamma_k K^T K is
diagonal, with two numbers a group: lambda + gamma (or lambda + group gamma) and lambda. The program is: minimise mu (l2) or
sum mu (l-infinity, one output; then L^2 <= sum mu) subject to
    X_k = T_{k-1} - W_k^T T_k W_k >= 0 for k < l, X_l = T_{l-1} - W_l^T W_l >= 0, T_0 = diag(mu).
With R = X_k^-1 the gradient of F is -diag(R) for t_{k-1} and diag(W R W^T) for t_k; its Hessian R o R, (W R W^T) o (W R W^T)
and -(W R) o (W R): block tridiagonal, so a Newton step costs some 8 d^3 a layer. T_k >= 0 follows from X >= 0.

The rows of W_l in l-infinity are a batch: all arrays have a leading axis.
"""

from __future__ import annotations

import numpy as np

from harness_papers.lipsdp.problems import Array, Network
from harness_papers.lipsdp.solvers.barrier import Newton
from harness_papers.lipsdp.solvers.reductions import Scaled, group_basis, rotate

RIDGE = 1e-14  # on a Hessian of unit diagonal


class ChainProgram:
    """heads: numbers mu, 1 in l2 and the inputs in l-infinity. rows: how many programs, one per output in l-infinity."""

    def __init__(self, problem: Network, scaled: Scaled) -> None:
        linf = problem.norm == "linf"
        self.bases = [group_basis(problem, k) for k in range(len(problem.hidden))]
        weights = list(scaled.weights)
        for k, (basis, _) in enumerate(self.bases):
            weights[k] = rotate(basis, weights[k])
            weights[k + 1] = rotate(basis, weights[k + 1].T).T
        self.weights, last = weights[:-1], weights[-1]
        self.inputs, self.rows = weights[0].shape[1], len(last) if linf else 1
        self.output = last[:, :, None] * last[:, None, :] if linf else (last.T @ last)[None]
        self.heads = self.inputs if linf else 1
        ties = [np.arange(self.inputs) if linf else np.zeros(self.inputs, int)]
        ties += [tie(len(basis), basis.shape[1], kept) for basis, kept in self.bases]
        self.ties = ties
        self.sums = [None if len(t) == t.max() + 1 else np.eye(t.max() + 1)[t] for t in ties]  # (units, numbers)
        self.edges = np.cumsum([0, *(int(t.max()) + 1 for t in ties)])
        self.degree = sum(len(t) for t in ties)
        self.cost = (np.arange(self.edges[-1]) < self.heads).astype(np.float64)

    def by_layer(self, x: Array) -> list[Array]:
        """The diagonals of T_0, ..., T_{l-1}, each (batch, n_k), of x (batch, v)."""
        return [x[:, start:end][:, t] for start, end, t in zip(self.edges[:-1], self.edges[1:], self.ties, strict=True)]

    def slacks(self, x: Array, rows: Array) -> list[Array]:
        """X_1, ..., X_l, each (batch, n_{k-1}, n_{k-1})."""
        t = self.by_layer(x)
        made = [diagonals(b) - w.T @ (a[:, :, None] * w) for b, a, w in zip(t[:-1], t[1:], self.weights, strict=True)]
        return [*made, diagonals(t[-1]) - self.output[rows]]

    def matrices(self, x: Array, row: int) -> list[Array]:
        return [slack[0] for slack in self.slacks(x[None], np.array([row]))]

    def barrier(self, x: Array, rows: Array) -> Array:
        value = np.where(np.isfinite(x).all(axis=1) & (x > 0).all(axis=1), 0.0, np.inf)
        safe = np.where(np.isfinite(value)[:, None], x, 1.0)
        for slack in self.slacks(safe, rows):
            value -= log_determinants(slack)
        return np.where(np.isnan(value), np.inf, value)

    def newton(self, x: Array, rows: Array) -> Newton:
        gradient = np.zeros_like(x)
        sizes = np.diff(self.edges)
        diagonal = [np.zeros((len(x), size, size)) for size in sizes]
        below = []
        for k, slack in enumerate(self.slacks(x, rows)):
            inverse = np.linalg.inv(slack)
            inverse = 0.5 * (inverse + inverse.transpose(0, 2, 1))
            here = slice(self.edges[k], self.edges[k + 1])
            gradient[:, here] -= self.sum_tied(np.diagonal(inverse, axis1=1, axis2=2), k)
            diagonal[k] += self.sum_both(inverse**2, k, k)
            if k < len(self.weights):
                after = slice(self.edges[k + 1], self.edges[k + 2])
                across = self.weights[k] @ inverse
                around = across @ self.weights[k].T
                gradient[:, after] += self.sum_tied(np.diagonal(around, axis1=1, axis2=2), k + 1)
                diagonal[k + 1] += self.sum_both(around**2, k + 1, k + 1)
                below.append(-self.sum_both(across**2, k + 1, k))
        solver = BlockTridiagonal(diagonal, below, self.edges)
        cost = np.broadcast_to(self.cost, x.shape)
        return Newton(cost, gradient, solver.solve, lambda y: y)

    def sum_tied(self, array: Array, k: int) -> Array:
        sums = self.sums[k]
        return array if sums is None else array @ sums

    def sum_both(self, array: Array, left: int, right: int) -> Array:
        """Rows and columns of units summed to those of numbers."""
        rows, columns = self.sums[left], self.sums[right]
        array = array if rows is None else rows.T @ array
        return array if columns is None else array @ columns

    def starts(self) -> list[Array]:
        """The norm product's multipliers (rows, v), each layer's some way above what it needs."""
        made = []
        for grow in (1.5, 1.1, 4.0):
            scales = grow ** np.arange(len(self.ties), 0, -1.0)
            x = np.repeat(scales, np.diff(self.edges))
            made.append(np.broadcast_to(x, (self.rows, len(x))).copy())
        return made

    def multipliers(self, x: Array) -> list[tuple[Array, Array]]:
        """(lambda, gamma) of each hidden layer, both (batch, groups), of x (batch, v).

        T_k = lambda I + gamma K^T K; the eigenvalue on what is kept is lambda + gamma |K|^2.
        """
        made = []
        for k, (basis, _) in enumerate(self.bases):
            numbers = x[:, self.edges[k + 1] : self.edges[k + 2]].reshape(len(x), len(basis), 2)
            made.append((numbers[:, :, 1], numbers[:, :, 0] - numbers[:, :, 1]))
        return made


def tie(groups: int, group: int, kept: int) -> Array:
    """Which number each unit of a layer has: 2 g for what the activation keeps of group g, 2 g + 1 for the rest."""
    inside = (np.arange(group) >= kept).astype(int)
    return (2 * np.arange(groups)[:, None] + inside).ravel()


def diagonals(t: Array) -> Array:
    """(batch, n) -> (batch, n, n)."""
    return t[:, :, None] * np.eye(t.shape[1])


def log_determinants(matrices: Array) -> Array:
    """(batch,): of symmetric (batch, n, n); -inf where one is not positive definite."""
    try:
        factors = np.linalg.cholesky(matrices)
    except np.linalg.LinAlgError:
        if len(matrices) == 1:
            return np.array([-np.inf])
        return np.concatenate([log_determinants(one[None]) for one in matrices])
    return np.asarray(2.0 * np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(axis=1))


class BlockTridiagonal:
    """Solves with a batch of symmetric positive definite block-tridiagonal matrices, scaled to unit diagonal first."""

    def __init__(self, diagonal: list[Array], below: list[Array], edges: Array) -> None:
        """Raises LinAlgError where a matrix is not positive definite to working precision."""
        self.edges = edges
        self.scale = [1.0 / np.sqrt(np.diagonal(block, axis1=1, axis2=2)) for block in diagonal]
        self.half: list[Array] = []  # inverses of the Cholesky factors of the pivots
        self.steps: list[Array] = []  # L_k,k-1
        for k, block in enumerate(diagonal):
            pivot = block * self.scale[k][:, :, None] * self.scale[k][:, None, :] + RIDGE * np.eye(block.shape[1])
            if k:
                cross = below[k - 1] * self.scale[k][:, :, None] * self.scale[k - 1][:, None, :]
                self.steps.append(cross @ self.half[-1].transpose(0, 2, 1))
                pivot -= self.steps[-1] @ self.steps[-1].transpose(0, 2, 1)
            self.half.append(np.linalg.inv(np.linalg.cholesky(pivot)))

    def solve(self, right: Array) -> Array:
        """(batch, v, r) -> the same shape."""
        parts = [right[:, a:b] * s[:, :, None] for a, b, s in zip(self.edges[:-1], self.edges[1:], self.scale, strict=True)]
        forward: list[Array] = []
        for k, part in enumerate(parts):
            forward.append(self.half[k] @ (part - self.steps[k - 1] @ forward[-1] if k else part))
        backward: list[Array] = []
        for k in reversed(range(len(parts))):
            known = self.steps[k].transpose(0, 2, 1) @ backward[-1] if k + 1 < len(parts) else 0.0
            backward.append(self.half[k].transpose(0, 2, 1) @ (forward[k] - known))
        solution = [b * s[:, :, None] for b, s in zip(reversed(backward), self.scale, strict=True)]
        return np.concatenate(solution, axis=1)
