"""A linear matrix inequality of signed squares as a `barrier.Program`: P(x) = P_0 + sum_a (S x)_a f_a f_a^T >= 0.

Every constraint of this paper is a sum of squares of linear forms with signs, so one dense solver serves the forms that have
no chain: null space, (T, S, P) and residual ReLU. With R = P^-1 and Y = F R F^T: gradient -S^T diag(Y), Hessian S^T (Y o Y) S.
It costs some m^2 n for m forms and n variables of the quadratic form, per step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from harness_papers.lipsdp.problems import Array
from harness_papers.lipsdp.solvers.barrier import Newton

RIDGE = 1e-14  # on a Hessian of unit diagonal


@dataclass(frozen=True)
class Form:
    """A linear form in (z_0, ...) per row (m, n), the variable that multiplies their squares (m,), and the factor (m,)."""

    rows: Array
    variable: Array
    factor: Array


class SquaresProgram:
    """A batch of one. constant: P_0 (n, n); cost: (v,)."""

    def __init__(self, constant: Array, forms: list[Form], cost: Array) -> None:
        self.constant, self.cost, self.degree = constant, cost, len(constant)
        self.forms = np.concatenate([form.rows for form in forms])
        self.variable = np.concatenate([form.variable for form in forms])
        self.factor = np.concatenate([form.factor for form in forms])

    @cached_property
    def sums(self) -> Array:
        """S (m, v)."""
        sums = np.zeros((len(self.forms), len(self.cost)))
        sums[np.arange(len(self.forms)), self.variable] = self.factor
        return sums

    def matrix(self, x: Array) -> Array:
        weighted = (self.factor * x[self.variable])[:, None] * self.forms
        return self.constant + self.forms.T @ weighted

    def matrices(self, x: Array, row: int) -> list[Array]:
        return [self.matrix(x)]

    def barrier(self, x: Array, rows: Array) -> Array:
        return np.array([self.barrier_of_one(one) for one in x])

    def barrier_of_one(self, x: Array) -> float:
        if not np.isfinite(x).all():
            return np.inf
        try:
            factor = np.linalg.cholesky(self.matrix(x))
        except np.linalg.LinAlgError:
            return np.inf
        value = -2.0 * np.log(np.diag(factor)).sum()
        return float(value) if np.isfinite(value) else np.inf

    def newton(self, x: Array, rows: Array) -> Newton:
        half = np.linalg.solve(np.linalg.cholesky(self.matrix(x[0])), self.forms.T)
        inner = half.T @ half
        gradient = -self.sums.T @ np.diag(inner)
        hessian = self.sums.T @ (inner * inner) @ self.sums
        scale = 1.0 / np.sqrt(np.diag(hessian))
        hessian *= scale[:, None] * scale
        hessian[np.diag_indices_from(hessian)] += RIDGE
        factor = cho_factor(hessian, lower=True, overwrite_a=True, check_finite=False)

        def solve(right: Array) -> Array:
            return np.asarray((scale[:, None] * cho_solve(factor, scale[:, None] * right[0], check_finite=False))[None])

        return Newton(self.cost[None], gradient[None], solve, lambda y: y)
