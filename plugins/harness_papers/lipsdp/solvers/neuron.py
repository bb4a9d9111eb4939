"""LipSDP for slopes in [a, b] as a `barrier.Program`: the LMI is block tridiagonal, its inverse and the Hessian are dense.

x = (mu, t): mu multiplies |z_0|^2 (one number in l2, one per input in l-infinity), t the units' or the layers' constraints.
P(x) = diag(mu) on z_0 - W_l^T W_l on z_{l-1} - sum_i t_i (f_i g_i^T + g_i f_i^T), with f_i = e_i - a w_i, g_i = b w_i - e_i;
e_i is the unit's own place and w_i its row of weights, at the units before it. In l2, L^2 <= mu; in l-infinity with one output,
L^2 <= sum mu (scaling mu and t by c and 2 rho - sum mu by 1/c shows it). t >= 0 follows from P > 0 and is no constraint.

With R = P^-1: gradient 2 diag(G R F^T), Hessian 2 (G R G^T) o (F R F^T) + 2 (G R F^T) o (G R F^T)^T, from X = E R E^T,
V = W R E^T and Q = W R W^T. Blocks of R come from the block Cholesky factor, so a Newton step costs 4 N^2 d + N^3 / 3
multiplications for N units in layers of d, and three or four N x N arrays.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from scipy.linalg import cho_factor, cho_solve, solve_triangular

from harness_papers.lipsdp.problems import Array
from harness_papers.lipsdp.solvers.barrier import Newton
from harness_papers.lipsdp.solvers.reductions import Scaled

RIDGE = 1e-14  # on a Hessian of unit diagonal: below what its entries are rounded to
INFLATIONS = (10.0, 30.0, 3.0, 1000.0, 1.0)  # of the greedy rho: nearer is not faster, and deep nets need some room


class SlopeProgram:
    """A batch of one."""

    def __init__(self, scaled: Scaled, tied: bool, heads: int) -> None:
        """tied: one t per layer. heads: 1 in l2, the number of inputs in l-infinity, then W_l is one row."""
        self.weights, self.last = scaled.weights[:-1], scaled.weights[-1]
        self.a, self.b, self.tied, self.heads = scaled.alpha, scaled.beta, tied, heads
        self.edges = np.cumsum([0, *(weight.shape[1] for weight in scaled.weights)])
        self.blocks = [slice(start, end) for start, end in pairwise(self.edges)]
        self.hidden, self.inputs = scaled.hidden, scaled.weights[0].shape[1]
        self.degree = int(self.edges[-1])
        self.cost = np.zeros(heads + (len(self.hidden) if tied else sum(self.hidden)))
        self.cost[:heads] = 1.0
        self.output = self.last.T @ self.last

    def split(self, x: Array) -> tuple[Array, list[Array]]:
        """(mu (inputs,), t per layer and unit) of x (v,)."""
        t = np.repeat(x[self.heads :], self.hidden) if self.tied else x[self.heads :]
        mu = np.repeat(x[0], self.inputs) if self.heads == 1 else x[: self.heads]
        return mu, np.split(t, np.cumsum(self.hidden)[:-1])

    def parts(self, x: Array) -> tuple[list[Array], list[Array]]:
        """The blocks of P on the diagonal and below it."""
        (mu, t), a, b = self.split(x), self.a, self.b
        diagonal = [np.diag(mu), *(np.diag(2.0 * layer) for layer in t)]
        diagonal[-1] = diagonal[-1] - self.output
        if a * b:
            for k, (layer, weight) in enumerate(zip(t, self.weights, strict=True)):
                diagonal[k] = diagonal[k] + 2.0 * a * b * (weight.T @ (layer[:, None] * weight))
        return diagonal, [-(a + b) * layer[:, None] * weight for layer, weight in zip(t, self.weights, strict=True)]

    def matrices(self, x: Array, row: int) -> list[Array]:
        diagonal, below = self.parts(x)
        whole = np.zeros((self.degree, self.degree))
        for block, part in zip(self.blocks, diagonal, strict=True):
            whole[block, block] = part
        for before, here, part in zip(self.blocks[:-1], self.blocks[1:], below, strict=True):
            whole[here, before], whole[before, here] = part, part.T
        return [whole]

    def factor(self, x: Array) -> tuple[list[Array], list[Array]]:
        """Block Cholesky: (L_kk, L_kk^-1 P_k,k+1). Raises LinAlgError where P is not positive definite."""
        diagonal, below = self.parts(x)
        factors, above = [np.linalg.cholesky(diagonal[0])], []
        for cross, block in zip(below, diagonal[1:], strict=True):
            above.append(solve_triangular(factors[-1], cross.T, lower=True, check_finite=False))
            factors.append(np.linalg.cholesky(block - above[-1].T @ above[-1]))
        return factors, above

    def barrier(self, x: Array, rows: Array) -> Array:
        return np.array([self.barrier_of_one(one) for one in x])

    def barrier_of_one(self, x: Array) -> float:
        if not (np.isfinite(x).all() and (x[: self.heads] > 0).all()):
            return np.inf
        try:
            factors = self.factor(x)[0]
        except np.linalg.LinAlgError:
            return np.inf
        value = -2.0 * sum(np.log(np.diag(factor)).sum() for factor in factors)
        return float(value) if np.isfinite(value) else np.inf

    def inverse(self, x: Array) -> Array:
        """P^-1, block by block from the last one."""
        factors, above = self.factor(x)
        inverse, end = np.empty((self.degree, self.degree)), self.degree
        for k in reversed(range(len(factors))):
            here = self.blocks[k]
            half = solve_triangular(factors[k], np.eye(len(factors[k])), lower=True, check_finite=False)
            inverse[here, here] = half.T @ half
            if k == len(above):
                continue
            after, rest = self.blocks[k + 1], slice(self.edges[k + 1], end)
            step = half.T @ above[k]
            inverse[here, rest] = -step @ inverse[after, rest]
            inverse[here, here] -= inverse[here, after] @ step.T
            inverse[rest, here] = inverse[here, rest].T
        return inverse

    def newton(self, x: Array, rows: Array) -> Newton:
        gradient, hessian = self.derivatives(self.inverse(x[0]), x[0])
        cost = np.concatenate([[self.cost @ x[0]], self.cost[1:]])
        scale = 1.0 / np.sqrt(np.diag(hessian))
        hessian *= scale[:, None]
        hessian *= scale
        hessian[np.diag_indices_from(hessian)] += RIDGE
        factor = cho_factor(hessian, lower=True, overwrite_a=True, check_finite=False)

        def lift(y: Array) -> Array:
            return y[:, :1] * x + np.concatenate([np.zeros((1, 1)), y[:, 1:]], axis=1)

        def solve(right: Array) -> Array:
            return np.asarray((scale[:, None] * cho_solve(factor, scale[:, None] * right[0], check_finite=False))[None])

        return Newton(cost[None], gradient[None], solve, lift)

    def derivatives(self, inverse: Array, x: Array) -> tuple[Array, Array]:
        """Gradient and Hessian where the step along x itself takes the place of the first coordinate.

        P and t grow together for many steps before P ceases to be positive definite, so along x the Hessian is smaller
        than its entries by many digits; there it has a closed form without cancellation, as sum_i x_i P_i = P + W_l^T W_l.
        """
        n0, a, b = self.inputs, self.a, self.b
        v = np.concatenate([w @ inverse[block] for w, block in zip(self.weights, self.blocks, strict=False)])
        x_hh, v_h = inverse[n0:, n0:], v[:, n0:]
        q = np.concatenate([v[:, block] @ w.T for w, block in zip(self.weights, self.blocks, strict=False)], axis=1)
        cross = b * v_h - x_hh
        gg = b * b * q - b * (v_h + v_h.T) + x_hh
        if a:
            cross += a * v_h.T - a * b * q
            ff = x_hh - a * (v_h + v_h.T) + a * a * q
        else:
            ff = x_hh
        units = 2.0 * (gg * ff + cross * cross.T)
        f0, g0 = inverse[n0:, :n0] - a * v[:, :n0], b * v[:, :n0] - inverse[n0:, :n0]
        seen = inverse[:, self.blocks[-1]] @ self.last.T  # R W_l^T
        w_seen = np.concatenate([w @ seen[block] for w, block in zip(self.weights, self.blocks, strict=False)])
        f_seen, g_seen = seen[n0:] - a * w_seen, b * w_seen - seen[n0:]
        t_gradient, t_along = 2.0 * np.diag(cross), -2.0 * (f_seen * g_seen).sum(axis=1)
        mu_gradient, mu_along = -np.diag(inverse)[:n0], (seen[:n0] ** 2).sum(axis=1)
        gradient = np.concatenate([self.sum_heads(mu_gradient), self.sum_layers(t_gradient)])
        along = np.concatenate([self.sum_heads(mu_along), self.sum_layers(t_along)]) - gradient
        heads, mixed = self.sum_heads(self.sum_heads(inverse[:n0, :n0] ** 2).T), self.sum_heads(-2.0 * (f0 * g0).T)
        mixed, units = self.sum_layers(mixed.T).T, self.sum_layers(self.sum_layers(units).T)
        hessian = np.block([[heads, mixed], [mixed.T, units]]) if self.tied or self.heads > 1 else bordered(heads, mixed, units)
        output = self.last @ seen[self.blocks[-1]]
        gradient[0] = -(self.degree + np.trace(output))
        hessian[0, :] = hessian[:, 0] = along
        hessian[0, 0] = self.degree + 2.0 * np.trace(output) + (output**2).sum()
        return gradient, hessian

    def sum_heads(self, array: Array) -> Array:
        """Rows of inputs summed to rows of mu."""
        return array.sum(axis=0, keepdims=True) if self.heads == 1 else array

    def sum_layers(self, array: Array) -> Array:
        """Rows of units summed to rows of t."""
        return np.add.reduceat(array, self.edges[1:-1] - self.inputs, axis=0) if self.tied else array

    def starts(self) -> list[Array]:
        """Feasible points (1, v) above the greedy t_k = 1 / lambda_max((a+b)^2 W_k M_{k-1}^-1 W_k^T), or the norm product's."""
        mu, t = self.greedy() if self.a >= 0 else self.norm_product()
        ones = np.ones(self.heads) * mu
        units = np.array(t) if self.tied else np.repeat(t, self.hidden)
        return [grow * np.concatenate([ones, units])[None] for grow in INFLATIONS]

    def greedy(self) -> tuple[float, list[float]]:
        """The least mu (all equal) for t that keep each Schur complement M_k as large as one number per layer can."""
        m, t = np.eye(self.inputs), []
        for weight in self.weights:
            gram = (self.a + self.b) ** 2 * weight @ np.linalg.solve(m, weight.T)
            t.append(1.0 / float(np.linalg.eigvalsh(gram)[-1]))
            m = 2.0 * t[-1] * np.eye(len(weight)) - t[-1] ** 2 * gram
        mu = 1.1 * float(np.linalg.eigvalsh(self.last @ np.linalg.solve(m, self.last.T))[-1])
        return mu, [mu * layer for layer in t]

    def norm_product(self) -> tuple[float, list[float]]:
        """s_k (b^2 |W_k z_{k-1}|^2 - |z_k|^2) exceeds the constraint with t_k = s_k b / (b - a): their difference is a square.

        So s_{l-1} > |W_l|^2 and s_k > b^2 s_{k+1} |W_{k+1}|^2 suffice; the norms are 1 here.
        """
        s, made = 1.1, []
        for _ in self.weights:
            made.append(s * self.b / (self.b - self.a))
            s *= 1.1 * self.b**2
        return s, made[::-1]


def bordered(heads: Array, mixed: Array, units: Array) -> Array:
    """[[heads, mixed], [mixed^T, units]] without a second copy of units on the way."""
    whole = np.empty((len(units) + 1, len(units) + 1))
    whole[:1, :1], whole[:1, 1:], whole[1:, :1], whole[1:, 1:] = heads, mixed, mixed.T, units
    return whole
