"""RRR on divide-and-concur constraints for nets of Boolean threshold functions.

torch, in the trial's dtype and on its device, any number of searches side by side. On the CPU in float64, which is what the
authors' program computes in, `c_search` takes the same steps several times faster; this is then its oracle.

Every data item i has its own copy of each weight w and of each input x on every edge, and its own value y of every node.
Set A (each item and node by itself): y is -1 or +1, and y * (w.x) >= delta = sqrt(m / sigma), m = fan-in. Set B (concur):
all items agree on the weights, each node's weights have mean square 1, all copies of a value agree, output values are the
labels. RRR seeks a point of both: a = P_A(v), b = P_B(2a - v), v <- v + beta (b - a).

Coordinates. Edge variables are kept as their normalised sum and difference, (w + x) / sqrt 2 and (w - x) / sqrt 2. The
rotation keeps lengths and turns w.x into (|sum|^2 - |difference|^2) / 2, so the move to the surface w.x = c, which mixes w
and x, becomes one factor on the sum and another one on the difference.

Layout. `edges` has a tensor (S, 2, n, m, I) for each layer: search, sum or difference, node, input slot (slot 0 is the bias
source), item. `nodes` is (S, 1 + inputs + n, I): bias source, inputs, then all threshold functions, layer by layer.

Source: Elser and Lal 2026, arXiv:2602.17493.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness_papers.boolean_rrr.problem import BooleanProblem, Weights
from harness_papers.boolean_rrr.start import HALF, Settings, Start, fan_ins, finite, input_values

NEWTON_STEPS = 3


# Projection to A ------------------------------------------------------------------------------------------------------


def rotate(w: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """(w, x) to ((w + x), (w - x)) / sqrt 2, and back: the rotation is its own inverse."""
    return (w + x) * HALF, (w - x) * HALF


def solve_shift(near: Tensor, far: Tensor, delta: float) -> Tensor:
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
    k = (near / bound).sqrt().clamp(max=1)
    share = far / bound
    rest = 1 - share
    t = 1 + (1 - k) / (1 + share * k)
    for _ in range(NEWTON_STEPS):
        scaled = rest * t
        square = scaled * t + share
        slope = k * square.sqrt()
        left = 2 - t
        t = t + (left * square - t * slope) / (square - left * scaled + slope)
    return (t - 1) * (near - far < delta)


def nearest_gate(edges: Tensor, y: Tensor, delta: float) -> tuple[Tensor, Tensor]:
    """Project every (node, item) of a layer to A: the factors on sum and difference, and the value of the node.

    edges (S, 2, n, m, I), y (S, n, I). Returns factors (S, 2, n, I), so that edges * factors is the projection, and values
    (S, n, I) in {-1, +1}. Both values are tried and the nearer one is taken (a tie gives -1). That covers the case
    y * (w.x) > 0 too: there the sign of y is nearer in y and in (w, x).
    """
    near = edges.square().sum(dim=3) / 2
    far = near.flip(1)  # for the value -1, sum and difference change places
    shift = solve_shift(near, far, delta)
    # On the surface the grown part is delta longer than the shrunk one, so one of them gives half the squared distance.
    shrunk = far / (1 + shift).square()
    distance = shift.square() * (shrunk + shrunk + delta)
    positive = distance[:, 0] - distance[:, 1] < 2 * y  # 2 distance + (1 - y)^2 against 2 distance + (1 + y)^2
    u = torch.where(positive, shift[:, 0], -shift[:, 1])
    return torch.stack([1 / (1 - u), 1 / (1 + u)], dim=1), positive.to(y.dtype) * 2 - 1


def move_to_surface(w: Tensor, x: Tensor, c: float) -> tuple[Tensor, Tensor, float]:
    """The point of w.x = c nearest to (w, x), both (m,), and u with w' - w = u x', x' - x = u w'.

    Outwards only, as the search needs it. Raises ValueError where w.x is beyond c already, and where the nearest point is not
    unique (w = -x for c > 0, w = x for c < 0).
    """
    sign = 1.0 if c > 0 else -1.0
    near, far = ((w + side * x).square().sum() / 4 for side in (sign, -sign))
    if c == 0 or near - far > abs(c):
        raise ValueError(f"move_to_surface: w.x = {float(w @ x)} is not inside c = {c}; give c of larger size")
    if near == 0:
        raise ValueError(f"move_to_surface: w = {-sign:+.0f} x, so many points of w.x = {c} are equally near; change w or x")
    u = sign * float(solve_shift(near, far, abs(c)))
    return (w + u * x) / (1 - u * u), (x + u * w) / (1 - u * u), u


# Projection to B and the iteration ------------------------------------------------------------------------------------


class Search:
    """Searches side by side: `edges`, `nodes`, the metric weights `metric` and the weights `agreed` that were last agreed on.

    All items are used in each step; after the start nothing is random. No search sees another.
    """

    def __init__(
        self,
        problem: BooleanProblem,
        settings: Settings,
        starts: Sequence[Start],
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        def stacked(arrays: Sequence[NDArray[np.float64]]) -> Tensor:
            return torch.as_tensor(np.stack(arrays)).to(device, dtype)

        self.settings = settings
        self.fan_ins = fan_ins(problem.widths)
        bounds = np.cumsum([1, *problem.widths]).tolist()
        self.layers = [slice(*ends) for ends in pairwise(bounds)]  # of `nodes`, the inputs first; node 0 is the bias source
        self.first_gate = bounds[1]
        self.inputs = stacked([input_values(problem)])
        self.labels = stacked([problem.table.outputs.T])
        self.edges = [stacked(layer) for layer in zip(*(start.edges for start in starts), strict=True)]
        shared = [part.expand(len(starts), -1, -1) for part in (self.inputs, self.labels)]
        self.nodes = torch.cat([shared[0], stacked([start.hidden for start in starts]), shared[1]], dim=1)
        self.metric = torch.ones_like(self.nodes)
        self.agreed = [layer.new_zeros(layer.shape[0], *layer.shape[2:4]) for layer in self.edges]

    def project_a(self, edges: list[Tensor], nodes: Tensor) -> tuple[list[Tensor], Tensor]:
        """The nearest point where each item's nodes are all threshold functions with margin, and the inputs are the data."""
        moved, values = [], [self.inputs.expand(len(nodes), -1, -1)]
        for layer, part, (fan_in, _) in zip(edges, self.layers[1:], self.fan_ins, strict=True):
            factors, value = nearest_gate(layer, nodes[:, part], math.sqrt(fan_in / self.settings.sigma))
            moved.append(layer * factors[:, :, :, None])
            values.append(value)
        return moved, torch.cat(values, dim=1)

    def project_b(self, edges: list[Tensor], nodes: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """The nearest point, in the metric, where all copies agree: edges, nodes, and by layer the weights (S, n, m)."""
        concurred, weights, values = [], [], []
        bias, bias_mass = nodes[:, 0], torch.ones_like(nodes[:, 0])
        for layer, before, after in zip(edges, self.layers, self.layers[1:], strict=False):
            metric = self.metric[:, after, None]
            # The weighted mean over items needs no division: the length of each node's weights is set right after it.
            w = ((layer[:, 0] + layer[:, 1]) * metric).sum(dim=3)
            weights.append(w / w.square().mean(dim=2, keepdim=True).sqrt())
            copies = ((layer[:, 0] - layer[:, 1]) * metric).sum(dim=1) * HALF
            mass, own = metric[:, :, 0].sum(dim=1), self.metric[:, before]
            bias, bias_mass = bias + copies[:, 0], bias_mass + mass
            values.append((own * nodes[:, before] + copies[:, 1:]) / (own + mass[:, None]))
        bias = (bias / bias_mass)[:, None]
        for w, value in zip(weights, values, strict=True):
            copied = torch.cat([bias, value], dim=1)[:, None]
            concurred.append(torch.stack(rotate(w[..., None], copied), dim=1))
        return concurred, torch.cat([bias, *values, self.labels.expand(len(nodes), -1, -1)], dim=1), weights

    def step(self) -> NDArray[np.float64]:
        """One iteration, the metric's relaxation included. Returns the gaps (S,). Raises Diverged where one is not finite."""
        beta, gamma = self.settings.beta, self.settings.gamma
        a_edges, a_nodes = self.project_a(self.edges, self.nodes)
        reflected = [2 * a - v for a, v in zip(a_edges, self.edges, strict=True)]
        b_edges, b_nodes, self.agreed = self.project_b(reflected, 2 * a_nodes - self.nodes)
        nodes = b_nodes - a_nodes
        edges = [b - a for b, a in zip(b_edges, a_edges, strict=True)]
        squared = nodes[:, self.first_gate :].square() + torch.cat([e.square().sum(dim=(1, 3)) for e in edges], dim=1)
        mean = squared.mean(dim=(1, 2), keepdim=True)
        self.edges = [v + beta * e for v, e in zip(self.edges, edges, strict=True)]
        self.nodes = self.nodes + beta * nodes
        metric = self.metric[:, self.first_gate :]
        metric += torch.where(mean > 0, gamma * (squared / mean - metric), 0)
        return finite(mean.sqrt().flatten().cpu().double().numpy())

    def weights(self, number: int) -> Weights:
        """The weights that a search last agreed on, by layer (width, 1 + width before it); column 0 is the bias source's."""
        return tuple(layer[number].cpu().numpy().copy() for layer in self.agreed)
