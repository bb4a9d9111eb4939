"""RRR on divide-and-concur constraints for nets of Boolean threshold functions.

NumPy, in the trial's dtype; the authors' program computes in float64.

Every data item i has its own copy of each weight w and of each input x on every edge, and its own value y of every node.
Set A (each item and node by itself): y is -1 or +1, and y * (w.x) >= delta = sqrt(m / sigma), m = fan-in. Set B (concur):
all items agree on the weights, each node's weights have mean square 1, all copies of a value agree, output values are the
labels. RRR seeks a point of both: a = P_A(v), b = P_B(2a - v), v <- v + beta (b - a).

Coordinates. Edge variables are kept as their normalised sum and difference, (w + x) / sqrt 2 and (w - x) / sqrt 2. The
rotation keeps lengths and turns w.x into (|sum|^2 - |difference|^2) / 2, so the move to the surface w.x = c, which mixes w
and x, becomes one factor on the sum and another one on the difference.

Layout. `edges` arrays are (M, 2, n, I): input slot (slot 0 is the bias source, unused slots of narrower layers hold 0), sum
or difference, node, item. `nodes` arrays are (1 + inputs + n, I): bias source, inputs, then all threshold functions, layer
by layer.

Source: Elser and Lal 2026, arXiv:2602.17493.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import Diverged, Unsupported
from harness_papers.boolean_rrr.offers import Offers
from harness_papers.boolean_rrr.problem import BooleanProblem, LayeredNet, Weights

Array = NDArray[np.floating]
HALF = np.sqrt(0.5)
NEWTON_STEPS = 3


# Projection to A ------------------------------------------------------------------------------------------------------


def rotate(edges: Array) -> Array:
    """(w, x) on axis 1 to ((w + x), (w - x)) / sqrt 2, and back: the rotation is its own inverse."""
    return np.stack([edges[:, 0] + edges[:, 1], edges[:, 0] - edges[:, 1]], axis=1) * HALF


def solve_shift(near: Array, far: Array, delta: Array | float) -> Array:
    """The root v in [0, 1) of near / (1 - v)^2 - far / (1 + v)^2 = delta; 0 where near - far >= delta already.

    near, far: half the squared lengths of the part that must grow and of the part that must shrink, near > 0, of equal
    shape; delta > 0. Accurate to a few units of rounding for every input.

    With t = 1 + v, share = far / (delta + far) and k = sqrt(near / (delta + far)) the equation reads
    (2 - t) sqrt((1 - share) t^2 + share) = k t. The left side less the right one falls and is concave on [1, 2], so Newton
    cannot cycle; it is a straight line at share = 1, and the start is exact at share = 0, share = 1 and k = 1. All inputs come
    down to (k, share) in the unit square; over it the start is off by less than 0.03 and Newton then by 4e-4, 6e-8, 2e-15.
    So three steps are always enough, without branches (the authors' program: up to 50, with bisection).
    """
    bound = delta + far
    k = np.minimum(np.sqrt(near / bound), 1)
    share = far / bound
    rest = 1 - share
    t = 1 + (1 - k) / (1 + share * k)
    for _ in range(NEWTON_STEPS):
        scaled = rest * t
        square = scaled * t + share
        slope = k * np.sqrt(square)
        left = 2 - t
        t += (left * square - t * slope) / (square - left * scaled + slope)
    return (t - 1) * (near - far < delta)


def nearest_gate(edges: Array, y: Array, delta: Array) -> tuple[Array, Array]:
    """Project every (node, item) to A: the factors on sum and difference, and the value of the node.

    edges (M, 2, n, I), y (n, I), delta (n, I). Returns factors (2, n, I), so that edges * factors is the projection, and
    values (n, I) in {-1, +1}. Both values are tried and the nearer one is taken (a tie gives -1). That covers the case
    y * (w.x) > 0 too: there the sign of y is nearer in y and in (w, x).
    """
    near = np.einsum("mkni,mkni->kni", edges, edges) / 2
    far = near[::-1].copy()  # for the value -1, sum and difference change places
    shift = solve_shift(near, far, delta)
    # On the surface the grown part is delta longer than the shrunk one, so one of them gives half the squared distance.
    shrunk = far / np.square(1 + shift)
    distance = np.square(shift) * (shrunk + shrunk + delta)
    positive = distance[0] - distance[1] < 2 * y  # 2 distance + (1 - y)^2 against 2 distance + (1 + y)^2
    u = np.where(positive, shift[0], -shift[1])
    factors = np.empty_like(shift)
    np.divide(1, 1 - u, out=factors[0])
    np.divide(1, 1 + u, out=factors[1])
    return factors, np.where(positive, y.dtype.type(1), y.dtype.type(-1))


def move_to_surface(w: Array, x: Array, c: float) -> tuple[Array, Array, float]:
    """The point of w.x = c nearest to (w, x), both (m,), and u with w' - w = u x', x' - x = u w'.

    Outwards only, as the search needs it. Raises ValueError where w.x is beyond c already, and where the nearest point is not
    unique (w = -x for c > 0, w = x for c < 0).
    """
    sign = 1.0 if c > 0 else -1.0
    near, far = (np.sum(np.square(w + side * x)) / 4 for side in (sign, -sign))
    if c == 0 or near - far > abs(c):
        raise ValueError(f"move_to_surface: w.x = {float(w @ x)} is not inside c = {c}; give c of larger size")
    if near == 0:
        raise ValueError(f"move_to_surface: w = {-sign:+.0f} x, so many points of w.x = {c} are equally near; change w or x")
    u = sign * float(solve_shift(np.array([near]), np.array([far]), abs(c))[0])
    return (w + u * x) / (1 - u * u), (x + u * w) / (1 - u * u), u


# The net as index arrays ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Wiring:
    """A layered net, each layer fed by the bias source and by the whole layer before it.

    fan_in (n,); source (M, n): node at the other end of each slot, `sources` (one past the last) where the slot is unused;
    layer_start (L,): first threshold function of each layer; row, column (sources - 1,): where node 1, 2, ... is found in an
    array (M, L) over slots and layers; feeding: how many nodes feed others (all but the outputs).
    """

    widths: tuple[int, ...]
    fan_in: NDArray[np.intp]
    source: NDArray[np.intp]
    layer_start: NDArray[np.intp]
    row: NDArray[np.intp]
    column: NDArray[np.intp]

    @property
    def feeding(self) -> int:
        return 1 + sum(self.widths[:-1])

    @property
    def first_gate(self) -> int:
        return 1 + self.widths[0]


def wire(widths: tuple[int, ...]) -> Wiring:
    """The wiring of a layered net with these widths, inputs first."""
    before, after = widths[:-1], widths[1:]
    fan_in = np.repeat([1 + width for width in before], after)
    source = np.full((max(fan_in), len(fan_in)), 1 + sum(before))
    source[0] = 0
    starts = np.cumsum([0, *after[:-1]])
    first_source = 1
    for width, start, width_after in zip(before, starts, after, strict=True):
        source[1 : 1 + width, start : start + width_after] = np.arange(first_source, first_source + width)[:, None]
        first_source += width
    row = np.concatenate([np.arange(1, 1 + width) for width in before])
    column = np.repeat(np.arange(len(before)), before)
    return Wiring(widths, fan_in, source, starts, row, column)


# Projection to B and the iteration ------------------------------------------------------------------------------------


class Search:
    """The state of one RRR search: `edges`, `nodes`, the metric weights `metric` and the weights that were last agreed on.

    All items are used in each step; after the start nothing is random.
    """

    def __init__(
        self, problem: BooleanProblem, sigma: float, beta: float, gamma: float, rng: np.random.Generator, dtype: Any
    ) -> None:
        self.wiring = wire(problem.widths)
        self.beta, self.gamma = beta, gamma
        items, gates = problem.items, len(self.wiring.fan_in)
        # One value an item: NumPy is faster on whole rows than on a column that it has to repeat.
        self.delta = np.sqrt(self.wiring.fan_in / sigma).astype(dtype)[:, None].repeat(items, axis=1)
        ones = np.ones((items, 1))
        self.inputs = np.concatenate([-ones, problem.table.inputs], axis=1).T.astype(dtype)
        self.labels = np.ascontiguousarray(problem.table.outputs.T, dtype=dtype)

        start = rng.uniform(-1, 1, size=(len(self.wiring.source), 2, gates, items))
        start *= (self.wiring.source < self.wiring.feeding)[:, None, :, None]
        self.edges = rotate(start).astype(dtype)
        hidden = rng.uniform(-1, 1, size=(gates - len(self.labels), items)).astype(dtype)
        self.nodes = np.concatenate([self.inputs, hidden, self.labels])
        self.metric = np.ones_like(self.nodes)
        self.agreed = np.zeros((len(self.wiring.source), gates), dtype)

    def project_a(self, edges: Array, nodes: Array) -> tuple[Array, Array]:
        """The nearest point where each item's nodes are all threshold functions with margin, and the inputs are the data."""
        factors, values = nearest_gate(edges, nodes[self.wiring.first_gate :], self.delta)
        return edges * factors, np.concatenate([self.inputs, values])

    def project_b(self, edges: Array, nodes: Array) -> tuple[Array, Array, Array]:
        """The nearest point, in the metric, where all copies agree: edges, nodes, and the weights (M, n) agreed on."""
        wiring, metric = self.wiring, self.metric
        gate_metric = metric[wiring.first_gate :]

        # The weighted mean over items needs no division: the length of each node's weights is set right after it.
        weights = np.einsum("mkni,ni->mn", edges, gate_metric)
        weights *= np.sqrt(wiring.fan_in / np.einsum("mn,mn->n", weights, weights))

        inputs = (edges[:, 0] - edges[:, 1]) * gate_metric
        total = np.add.reduceat(inputs, wiring.layer_start, axis=1) * HALF
        mass = np.add.reduceat(gate_metric, wiring.layer_start, axis=0)
        agreed = np.empty((wiring.feeding + 1, nodes.shape[1]), nodes.dtype)
        agreed[0] = (nodes[0] + total[0].sum(axis=0)) / (1 + mass.sum(axis=0))
        own = metric[1 : wiring.feeding]
        agreed[1:-1] = (own * nodes[1 : wiring.feeding] + total[wiring.row, wiring.column]) / (own + mass[wiring.column])
        agreed[-1] = 0  # what unused slots read

        w, x = HALF * weights[:, :, None], (HALF * agreed).take(wiring.source, axis=0)
        concurred = np.empty_like(edges)
        np.add(w, x, out=concurred[:, 0])
        np.subtract(w, x, out=concurred[:, 1])
        return concurred, np.concatenate([agreed[:-1], self.labels]), weights

    def step(self) -> float:
        """One iteration of RRR and of the metric's relaxation. Returns the gap; raises Diverged where it is not finite."""
        a_edges, a_nodes = self.project_a(self.edges, self.nodes)
        b_edges, b_nodes, self.agreed = self.project_b(2 * a_edges - self.edges, 2 * a_nodes - self.nodes)
        b_edges -= a_edges
        b_nodes -= a_nodes
        first = self.wiring.first_gate
        squared = np.einsum("mkni,mkni->ni", b_edges, b_edges) + np.square(b_nodes[first:])
        mean = float(squared.mean())
        if not np.isfinite(mean):
            raise Diverged("rrr: the gap is not finite")
        self.edges += self.beta * b_edges
        self.nodes += self.beta * b_nodes
        if mean > 0:
            self.metric[first:] += self.gamma * (squared / mean - self.metric[first:])
        return float(np.sqrt(mean))

    def weights(self) -> Weights:
        """The weights last agreed on, by layer (width, 1 + width before it); column 0 is the bias source's."""
        return tuple(self.agreed[: 1 + before, start : start + width].T.copy() for before, start, width in self._layers())

    def _layers(self) -> Iterator[tuple[int, int, int]]:
        widths = self.wiring.widths
        return zip(widths[:-1], self.wiring.layer_start.tolist(), widths[1:], strict=True)


def solve(problem: BooleanProblem, ctx: Any, params: Any) -> LayeredNet:
    """Search until the gap is below gapstop or the budget is spent; a step of the budget is one iteration.

    At each offer the net with the most correct training bits so far is offered. Logs best_gap, and iterations_to_solution
    once the gap is closed. Raises Unsupported away from the CPU and for types that NumPy lacks.
    """
    dtype = numpy_dtype(ctx)
    sigma = problem.sigma if params.sigma is None else params.sigma
    gapstop = problem.gapstop if params.gapstop is None else params.gapstop
    search = Search(problem, sigma, params.beta, params.gamma, ctx.rng("init/rrr"), dtype)
    offers = Offers(ctx, problem)
    best_gap = np.inf
    iteration = 0
    while True:
        ctx.spend(steps=1, items_edges=problem.items * problem.edges)
        with ctx.region("train_step"):
            gap = search.step()
        iteration += 1
        best_gap = min(best_gap, gap)
        solved = gap < gapstop
        if solved or offers.due():
            ctx.log(best_gap=best_gap, last_gap=gap)
            offers.consider(LayeredNet(search.weights()))
            offers.show()
        if solved:
            ctx.log(iterations_to_solution=iteration)
            return offers.best


def numpy_dtype(ctx: Any) -> type[np.floating]:
    """The trial's dtype for NumPy. Raises Unsupported for a device or a type that this version cannot serve."""
    if ctx.device.type != "cpu":
        raise Unsupported(f"rrr runs on the CPU only, not on {ctx.device.type}; write devices: [cpu]")
    known = {"torch.float64": np.float64, "torch.float32": np.float32}
    if str(ctx.dtype) not in known:
        raise Unsupported(f"rrr needs dtype float64 (the paper's) or float32, not {ctx.dtype}")
    return known[str(ctx.dtype)]
