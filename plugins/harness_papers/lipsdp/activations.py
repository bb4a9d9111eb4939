"""The hidden units' activations: values, Jacobians, and the extreme Jacobians between which every secant lies. NumPy only.

An activation acts on each unit alone (relu, leaky_relu, tanh, sigmoid) or on groups of neighbouring units (GROUPED):
- groupsort: each group in descending order; group 2 is MaxMin (Anil et al. 2019, arXiv:1811.05381).
- householder: x where v^T x > 0, else x - 2 v (v^T x) / (v^T v), with a direction v per group (Singla et al. 2021,
  arXiv:2108.04062). Groups of 2 with v = (1, -1) are groupsort.
Both are 1-Lipschitz in l2 and piecewise linear with orthogonal pieces; groupsort is 1-Lipschitz in l-infinity too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import permutations, product
from math import factorial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from harness_papers.lipsdp.problems import Network

Array = NDArray[np.float64]

LEAK = 0.01  # PyTorch's default
# The slopes (alpha, beta) between which each activation's every secant lies. Sigmoid's 1/4 is its steepest slope; the
# papers use [0, 1], which is valid and looser.
SLOPES: dict[str, tuple[float, float]] = {
    "relu": (0.0, 1.0),
    "leaky_relu": (LEAK, 1.0),
    "tanh": (0.0, 1.0),
    "sigmoid": (0.0, 0.25),
}
# Not slopes of single units, of which a group's have none: |dphi| <= |dx| for a whole layer is all that is said of these.
GROUPED: dict[str, tuple[float, float]] = {"groupsort": (-1.0, 1.0), "householder": (-1.0, 1.0)}


def activation(name: str, x: Array) -> tuple[Array, Array]:
    """(phi(x), phi'(x)) of an activation that acts on each unit alone; at a kink the left derivative."""
    if name == "relu":
        return np.maximum(x, 0.0), (x > 0).astype(np.float64)
    if name == "leaky_relu":
        return np.where(x > 0, x, LEAK * x), np.where(x > 0, 1.0, LEAK)
    if name == "tanh":
        value = np.tanh(x)
        return value, 1.0 - value**2
    value = 0.5 + 0.5 * np.tanh(0.5 * x)  # the sigmoid, without overflow
    return value, value * (1.0 - value)


def activate_layer(network: Network, k: int, x: Array) -> tuple[Array, Array]:
    """phi of each row of x (n, n_k), pre-activations of hidden layer k, and what `pull_back` needs of the Jacobians.

    The second is (n, n_k) slopes; for groupsort the indices (n, n_k) that sort; for householder (n, groups) 1.0 where the
    group is reflected, else 0.0.
    """
    if network.activation == "groupsort":
        groups = x.reshape(len(x), -1, network.group)
        order = np.argsort(-groups, axis=2, kind="stable") + network.group * np.arange(groups.shape[1])[:, None]
        order = order.reshape(x.shape)
        return np.take_along_axis(x, order, axis=1), order
    if network.activation == "householder":
        v, groups = network.directions[k], x.reshape(len(x), -1, network.group)
        along = (groups * v).sum(axis=2)
        flipped = (along <= 0).astype(np.float64)
        step = 2.0 * flipped * along / (v * v).sum(axis=1)
        return (groups - step[:, :, None] * v).reshape(x.shape), flipped
    return activation(network.activation, x)


def pull_back(network: Network, k: int, chain: Array, state: Array) -> Array:
    """chain (n, outputs, n_k) times the Jacobian of hidden layer k at each row, as `activate_layer` told it."""
    if network.activation == "groupsort":
        where = np.empty_like(state)
        np.put_along_axis(where, state, np.broadcast_to(np.arange(state.shape[1]), state.shape), axis=1)
        return np.take_along_axis(chain, where[:, None, :], axis=2)
    if network.activation == "householder":
        v = network.directions[k]
        groups = chain.reshape(*chain.shape[:2], -1, network.group)
        step = 2.0 * state[:, None, :] * (groups * v).sum(axis=3) / (v * v).sum(axis=1)
        return (groups - step[..., None] * v).reshape(chain.shape)
    return chain * state[:, None, :]


def count_patterns(network: Network) -> int:
    """How many products of extreme Jacobians there are in all."""
    if network.activation == "groupsort":
        return int(factorial(network.group) ** (network.units // network.group))
    return int(2 ** (network.units // network.group))


def extreme_jacobians(network: Network, k: int) -> Iterator[Array]:
    """The matrices (n_k, n_k) of whose convex hull hidden layer k's every secant is a member, in a fixed order.

    Slopes alpha or beta for each unit; the permutations of each group; each group reflected or not.
    """
    size, group = network.hidden[k], network.group
    if network.activation not in GROUPED:
        yield from (np.diag(slopes) for slopes in product((network.alpha, network.beta), repeat=size))
        return
    if network.activation == "groupsort":
        choices = [[np.eye(group)[list(order)] for order in permutations(range(group))]] * (size // group)
    else:
        choices = [[np.eye(group), np.eye(group) - 2.0 * np.outer(v, v) / (v @ v)] for v in network.directions[k]]
    for blocks in product(*choices):
        jacobian = np.zeros((size, size))
        for i, block in enumerate(blocks):
            jacobian[i * group : (i + 1) * group, i * group : (i + 1) * group] = block
        yield jacobian
