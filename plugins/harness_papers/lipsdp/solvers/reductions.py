"""Exact reductions before a program is solved: fewer inputs, layers of norm 1, groups in a basis of their own. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from harness_papers.lipsdp.problems import Array, Network


@dataclass(frozen=True)
class Scaled:
    """A network with layers of norm 1, for which the bound is `factor` times smaller; in l2 with at most n_1 inputs.

    norms: what each layer was divided by.
    """

    weights: tuple[Array, ...]
    norms: tuple[float, ...]
    alpha: float
    beta: float

    @property
    def factor(self) -> float:
        return float(np.prod(self.norms))

    @property
    def hidden(self) -> tuple[int, ...]:
        return tuple(weight.shape[0] for weight in self.weights[:-1])

    def unscale(self, t: list[Array]) -> tuple[Array, ...]:
        """Multipliers of the network itself: layer k's grow with the square of what follows it."""
        return tuple(layer * float(np.prod(self.norms[k + 1 :])) ** 2 for k, layer in enumerate(t))


def scale(problem: Network) -> Scaled:
    """In l2 the triangular factor of W_1^T for W_1 where inputs outnumber units; each layer over its spectral norm."""
    first = problem.weights[0]
    if problem.norm == "l2" and first.shape[1] > first.shape[0]:
        first = np.linalg.qr(first.T, mode="r").T  # W_1 = R^T Q^T, and Q^T changes no l2 norm
    weights = (first, *problem.weights[1:])
    norms = tuple(float(np.linalg.norm(weight, 2)) for weight in weights)
    return Scaled(tuple(w / norm for w, norm in zip(weights, norms, strict=True)), norms, problem.alpha, problem.beta)


def group_basis(problem: Network, k: int) -> tuple[Array, int]:
    """(orthonormal bases (groups, group, group) of hidden layer k, how many first columns an activation leaves alone).

    GroupSort keeps the sum of a group; a reflection along v keeps all that is orthogonal to v.
    """
    group, groups = problem.group, problem.hidden[k] // problem.group
    if problem.activation == "groupsort":
        basis = np.linalg.qr(np.column_stack([np.ones(group), np.eye(group)[:, 1:]]))[0]
        return np.broadcast_to(basis, (groups, group, group)), 1
    bases = [np.linalg.qr(np.column_stack([v, np.eye(group)]))[0][:, :group] for v in problem.directions[k]]
    return np.array([np.roll(basis, -1, axis=1) for basis in bases]), group - 1


def rotate(bases: Array, matrix: Array) -> Array:
    """U^T matrix for the block-diagonal U of (groups, group, group); matrix is (n_k, columns)."""
    parts = matrix.reshape(*bases.shape[:2], -1)
    return np.asarray((bases.transpose(0, 2, 1) @ parts).reshape(matrix.shape))
