"""RRR written down edge by edge from the paper's description: lists, loops and bisection. The oracle of the tests."""

from __future__ import annotations

import math

import numpy as np


def surface_shift(w: np.ndarray, x: np.ndarray, c: float) -> float:
    """The root u in (-1, 1) of [p (1 + u^2) + q u] / (1 - u^2)^2 = c, p = w.x, q = |w|^2 + |x|^2, by bisection."""
    p, q = float(w @ x), float(w @ w + x @ x)
    low, high = -1.0, 1.0
    for _ in range(200):
        u = (low + high) / 2
        if (p * (1 + u * u) + q * u) < c * (1 - u * u) ** 2:
            low = u
        else:
            high = u
    return (low + high) / 2


def project_gate(w: np.ndarray, x: np.ndarray, y: float, delta: float) -> tuple[np.ndarray, np.ndarray, float]:
    """Projection of one node and item to A, both cases of the description."""
    s = float(w @ x)

    def moved(t: float) -> tuple[np.ndarray, np.ndarray]:
        if t * s >= delta:
            return w, x
        u = surface_shift(w, x, t * delta)
        return (w + u * x) / (1 - u * u), (x + u * w) / (1 - u * u)

    def cost(t: float) -> float:
        w_t, x_t = moved(t)
        return (t - y) ** 2 + float(((w_t - w) ** 2).sum() + ((x_t - x) ** 2).sum())

    if y * s > 0:
        t = math.copysign(1.0, y)
    else:
        t = 1.0 if cost(1.0) < cost(-1.0) else -1.0
    return *moved(t), t


class Oracle:
    """w[i][e], x[i][e] on the edges of `edges` (from, to), y[i][n] on nodes; node 0 is the bias source."""

    def __init__(self, widths, inputs, labels, sigma, beta, gamma, w, x, y):
        self.edges, self.inputs, self.labels = [], inputs, labels
        before, node = range(1, 1 + widths[0]), 1 + widths[0]
        for width in widths[1:]:
            for to in range(node, node + width):
                self.edges += [(0, to), *((source, to) for source in before)]
            before, node = range(node, node + width), node + width
        self.n_in, self.n_out = widths[0], widths[-1]
        self.nodes = 1 + sum(widths)
        self.sigma, self.beta, self.gamma = sigma, beta, gamma
        self.w, self.x, self.y = w.copy(), x.copy(), y.copy()
        self.g = np.ones_like(self.y)

    def into(self, node):
        return [e for e, (_, to) in enumerate(self.edges) if to == node]

    def out_of(self, node):
        return [e for e, (source, _) in enumerate(self.edges) if source == node]

    def project_a(self, w, x, y):
        w, x, y = w.copy(), x.copy(), y.copy()
        for i in range(len(y)):
            y[i, 0] = -1
            y[i, 1 : 1 + self.n_in] = self.inputs[i]
            for node in range(1 + self.n_in, self.nodes):
                e = self.into(node)
                w[i, e], x[i, e], y[i, node] = project_gate(w[i, e], x[i, e], y[i, node], math.sqrt(len(e) / self.sigma))
        return w, x, y

    def project_b(self, w, x, y):
        w, x, y, g = w.copy(), x.copy(), y.copy(), self.g
        for node in range(1 + self.n_in, self.nodes):
            e = self.into(node)
            mean = sum(g[i, node] * w[i, e] for i in range(len(y))) / g[:, node].sum()
            w[:, e] = mean / math.sqrt((mean**2).mean())
        for i in range(len(y)):
            for node in range(self.nodes - self.n_out):
                e = self.out_of(node)
                to = [self.edges[k][1] for k in e]
                value = (g[i, node] * y[i, node] + (g[i, to] * x[i, e]).sum()) / (g[i, node] + g[i, to].sum())
                y[i, node] = x[i, e] = value
            y[i, self.nodes - self.n_out :] = self.labels[i]
        return w, x, y

    def step(self):
        v = (self.w, self.x, self.y)
        a = self.project_a(*v)
        b = self.project_b(*(2 * part_a - part for part_a, part in zip(a, v, strict=True)))
        diff = [part_b - part_a for part_a, part_b in zip(a, b, strict=True)]
        gates = range(1 + self.n_in, self.nodes)
        squared = np.array([
            [(diff[0][i, self.into(n)] ** 2).sum() + (diff[1][i, self.into(n)] ** 2).sum() + diff[2][i, n] ** 2 for n in gates]
            for i in range(len(self.y))
        ])  # fmt: skip
        self.w, self.x, self.y = (part + self.beta * d for part, d in zip(v, diff, strict=True))
        self.g[:, list(gates)] += self.gamma * (squared / squared.mean() - self.g[:, list(gates)])
        return math.sqrt(squared.mean())
