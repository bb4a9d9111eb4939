"""Lower bounds by sampling: the input with the largest Jacobian, and two points that show its slope. NumPy only."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness_papers.lipsdp.problems import LEAK, Array, Network, PointPair

STEPS = tuple(10.0**-k for k in range(1, 6))  # lengths of the step, relative to the point's own norm


def steepest_pair(network: Network, points: Array) -> PointPair:
    """Two points around the one of `points` (n, n_0) with the largest Jacobian norm, along its first right singular vector.

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
    """|f(x) - f(y)| / |x - y|."""
    rise = forward(network, x[None])[0][0] - forward(network, y[None])[0][0]
    return float(np.linalg.norm(rise) / np.linalg.norm(x - y))


def max_jacobian(network: Network, points: Array) -> tuple[float, Array, Array]:
    """(largest spectral norm of the Jacobian over the points, the point that has it, its first right singular vector)."""
    best, at, jacobian = -1.0, points[0], network.weights[0]
    for start, block in jacobians(network, points):
        gram = block @ block.transpose(0, 2, 1) if block.shape[1] <= block.shape[2] else block.transpose(0, 2, 1) @ block
        squares = np.linalg.eigvalsh(gram)[:, -1]
        i = int(squares.argmax())
        if squares[i] > best:
            best, at, jacobian = float(squares[i]), points[start + i], block[i]
    return float(np.sqrt(best)), at, np.linalg.svd(jacobian)[2][0]


def jacobians(network: Network, points: Array) -> Iterator[tuple[int, Array]]:
    """(index of the block's first point, Jacobians (block, outputs, inputs)), in blocks of about 32 MB."""
    outputs, widest = network.weights[-1].shape[0], max(weight.shape[1] for weight in network.weights)
    block = max(1, (4 << 20) // (outputs * widest))
    for start in range(0, len(points), block):
        slopes = forward(network, points[start : start + block])[1]
        chain = np.broadcast_to(network.weights[-1], (len(points[start : start + block]), *network.weights[-1].shape))
        for weight, slope in zip(reversed(network.weights[:-1]), reversed(slopes), strict=True):
            chain = (chain * slope[:, None, :]) @ weight
        yield start, chain


def forward(network: Network, x: Array) -> tuple[Array, list[Array]]:
    """f of each row of x (n, n_0), and the activation's derivative at every hidden unit, one (n, n_k) per layer."""
    slopes = []
    for weight, bias in zip(network.weights[:-1], network.biases[:-1], strict=True):
        x, slope = activation(network.activation, x @ weight.T + bias)
        slopes.append(slope)
    return x @ network.weights[-1].T + network.biases[-1], slopes


def activation(name: str, x: Array) -> tuple[Array, Array]:
    """(phi(x), phi'(x)); at a kink the left derivative."""
    if name == "relu":
        return np.maximum(x, 0.0), (x > 0).astype(np.float64)
    if name == "leaky_relu":
        return np.where(x > 0, x, LEAK * x), np.where(x > 0, 1.0, LEAK)
    if name == "tanh":
        value = np.tanh(x)
        return value, 1.0 - value**2
    value = 0.5 + 0.5 * np.tanh(0.5 * x)  # the sigmoid, without overflow
    return value, value * (1.0 - value)
