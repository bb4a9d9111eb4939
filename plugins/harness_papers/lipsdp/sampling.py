"""Lower bounds by sampling: the input with the largest Jacobian, and two points that show its slope. NumPy only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness_papers.lipsdp.activations import activate_layer, pull_back
from harness_papers.lipsdp.problems import Array, Network, PointPair

STEPS = tuple(10.0**-k for k in range(1, 6))  # lengths of the step, relative to the point's own norm


def steepest_pair(network: Network, points: Array) -> PointPair:
    """Two points around the one of `points` (n, n_0) with the largest Jacobian norm, along the direction that attains it.

    For a piecewise linear net the quotient equals that norm as soon as no kink lies between the two; the step with the largest
    quotient is kept, so a step across a kink does no harm.
    """
    x, direction = max_jacobian(network, points)[1:]
    size = float(np.linalg.norm(x)) or 1.0
    others = [x + sign * step * size * direction for step in STEPS for sign in (1.0, -1.0)]
    slopes = [quotient(network, x, y) for y in others]
    # The longest of the best steps: a short one has the same quotient and more rounding in it.
    return PointPair(x, next(y for y, slope in zip(others, slopes, strict=True) if slope >= max(slopes) * (1.0 - 1e-8)))


def quotient(network: Network, x: Array, y: Array) -> float:
    """|f(x) - f(y)| / |x - y| in the network's norm."""
    rise = forward(network, x[None])[0][0] - forward(network, y[None])[0][0]
    order = np.inf if network.norm == "linf" else 2
    return float(np.linalg.norm(rise, order) / np.linalg.norm(x - y, order))


def max_jacobian(network: Network, points: Array) -> tuple[float, Array, Array]:
    """(largest norm of the Jacobian over the points, the point that has it, a direction that attains it there).

    The norm is the operator norm of the network's: spectral, or the largest absolute row sum.
    """
    best, at, jacobian = -1.0, points[0], network.weights[0]
    for start, block in jacobians(network, points):
        sizes = norms(network, block)
        i = int(sizes.argmax())
        if sizes[i] > best:
            best, at, jacobian = float(sizes[i]), points[start + i], block[i]
    return best, at, steepest_direction(network, jacobian)


def norms(network: Network, block: Array) -> Array:
    """The operator norm of each Jacobian of (n, outputs, inputs)."""
    if network.norm == "linf":
        return np.asarray(abs(block).sum(axis=2).max(axis=1))
    gram = block @ block.transpose(0, 2, 1) if block.shape[1] <= block.shape[2] else block.transpose(0, 2, 1) @ block
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[:, -1], 0.0))


def steepest_direction(network: Network, jacobian: Array) -> Array:
    """The first right singular vector, or the signs of the row with the largest absolute sum (1 for 0)."""
    if network.norm == "linf":
        return np.where(jacobian[abs(jacobian).sum(axis=1).argmax()] < 0, -1.0, 1.0)
    return np.linalg.svd(jacobian)[2][0]


def jacobians(network: Network, points: Array) -> Iterator[tuple[int, Array]]:
    """(index of the block's first point, Jacobians (block, outputs, inputs)), in blocks of about 32 MB."""
    outputs, widest = network.weights[-1].shape[0], max(weight.shape[1] for weight in network.weights)
    block = max(1, (4 << 20) // (outputs * widest))
    for start in range(0, len(points), block):
        states = forward(network, points[start : start + block])[1]
        chain = np.broadcast_to(network.weights[-1], (len(points[start : start + block]), *network.weights[-1].shape))
        for k in reversed(range(len(network.hidden))):
            chain = pull_back(network, k, chain, states[k]) @ network.weights[k]
        yield start, chain


def forward(network: Network, x: Array) -> tuple[Array, list[Array]]:
    """f of each row of x (n, n_0), and what `pull_back` needs of the Jacobian at every hidden layer."""
    states = []
    for k, (weight, bias) in enumerate(zip(network.weights[:-1], network.biases[:-1], strict=True)):
        x, state = activate_layer(network, k, x @ weight.T + bias)
        states.append(state)
    return x @ network.weights[-1].T + network.biases[-1], states
