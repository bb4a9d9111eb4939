"""The base KAN paper's way to fit a function: all points at once, L-BFGS, grids made finer in stages, edges pruned and drawn.

Both learners evaluate loss and gradient as often as the budget allows: an evaluation costs the points it sees. Imports torch.
Source: Liu et al. 2024, arXiv:2404.19756, and pykan (MIT); written from the text.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import skip_init

from harness import Diverged, Unsupported
from harness.lab import NetSolution, count_params, count_step, make_activation
from harness_papers.kan.layers import KANLinear
from harness_papers.kan.pictures import look_at, save_pictures
from harness_papers.kan.splines import Grid
from harness_papers.kan_assessment.graph import draw_graph, name_edges

ITERATIONS = 20  # of L-BFGS between two looks at the budget
SEARCH = 26  # evaluations of one iteration, at most: torch's search along a line takes 25
TINY = 1e-12


# Solving ----------------------------------------------------------------------------------------------------------------


def solve_kan(problem: Any, ctx: Any, params: Any) -> NetSolution:
    """Fit on the coarsest grid, prune where asked, make the grid finer and fit again, stage by stage; offers after each.

    Each stage has an equal share of the budget. Leaves the pictures `graph.svg` (edges by their size, with their curves) and,
    where the first stage has sparsity or pruning, `graph-first.svg` of before; and `edges.json`: for each edge the named
    function that is nearest to its curve, with R^2; and `edge-functions.svg`: the largest edges with their scales.
    """
    grids = [int(g) for g in params.grids.split("-")]
    net = make_kan(problem.inputs[0], params, grids[0], problem.outputs).to(ctx.device, ctx.dtype)
    for index, layer in enumerate(net):
        layer.reset(ctx.generator(f"init/{index}"))
    x, y = problem.x, problem.y
    for stage, intervals in enumerate(grids):
        if stage:
            for layer in net:
                layer.refine_grid(intervals)
        weight = params.sparsity if stage == 0 else 0.0
        minimise(net, x, y, ctx, params.history, share=(stage + 1) / len(grids), weight=weight)
        if stage == 0 and (params.sparsity or params.prune):
            ctx.save("graph-first.svg", draw_graph(look_at(net, x, len(x))).encode(), "image/svg+xml")
        if stage == 0 and params.prune:
            before = [layer.out_features for layer in net]
            net = prune(net, x, params.prune)
            ctx.log(units_pruned=float(sum(before) - sum(layer.out_features for layer in net)))
        ctx.offer(NetSolution(net))
    found = look_at(net, x, len(x))
    ctx.save("graph.svg", draw_graph(found).encode(), "image/svg+xml")
    ctx.save("edges.json", json.dumps(name_edges(found), indent=1).encode(), "application/json")
    save_pictures(ctx, net, x, graph=False)
    return NetSolution(net)


def solve_mlp(problem: Any, ctx: Any, params: Any) -> NetSolution:
    """The control: an MLP with He's weights (LeCun's behind tanh) and zero biases, by the same L-BFGS."""
    net = make_mlp(problem.inputs[0], params, problem.outputs).to(ctx.device, ctx.dtype)
    gain = 1.0 if params.activation == "tanh" else 2.0
    with torch.no_grad():
        for index, layer in enumerate(part for part in net if isinstance(part, nn.Linear)):
            drawn = torch.randn(layer.weight.shape, generator=ctx.generator(f"init/{index}"), dtype=torch.float32)
            layer.weight.copy_(drawn * (gain / layer.in_features) ** 0.5)
            layer.bias.zero_()
    minimise(net, problem.x, problem.y, ctx, params.history, share=1.0)
    ctx.offer(NetSolution(net))
    return NetSolution(net)


def minimise(net: nn.Module, x: Tensor, y: Tensor, ctx: Any, history: int, share: float, weight: float = 0.0) -> None:
    """Mean squared error, and `weight` times the sparsity, by L-BFGS with a strong Wolfe search, to `share` of the budget.

    Ends before that where the search makes no more progress. Raises Diverged where the error is not finite, Unsupported for a
    budget without samples_seen or steps.
    """
    clock = next((unit for unit in ("samples_seen", "steps") if unit in ctx.budget), None)
    if clock is None:
        raise Unsupported(f"budget {dict(ctx.budget)!r}: an L-BFGS fit counts points or evaluations; set samples_seen or steps")
    each = {"samples_seen": float(len(x)), "steps": 1.0}
    floor = ctx.budget[clock] * (1 - share)
    optimizer = torch.optim.LBFGS(
        net.parameters(), max_iter=ITERATIONS, history_size=history, line_search_fn="strong_wolfe",
        tolerance_grad=TINY, tolerance_change=TINY,
    )  # fmt: skip

    def evaluate() -> Tensor:
        ctx.spend(**each)
        optimizer.zero_grad()
        loss = F.mse_loss(net(x), y)
        if weight:
            loss = loss + weight * sparsity(net, x)
        loss.backward()
        return loss

    last = math.inf
    while (left := int((ctx.left(clock) - floor) // each[clock])) >= SEARCH:
        # A search may take SEARCH evaluations beyond those that it is allowed: the budget must not end in its midst.
        optimizer.param_groups[0].update(max_iter=min(ITERATIONS, left), max_eval=left - SEARCH + 1)
        with ctx.region("train_step"):
            loss = float(optimizer.step(evaluate).detach())
        if not math.isfinite(loss):
            raise Diverged(f"the error is {loss} on {len(x)} points; start from smaller weights, or a coarser grid")
        # The loss before the iterations: where these end at once, two of them are equal.
        if loss >= last:
            return
        last = loss


# Nets -------------------------------------------------------------------------------------------------------------------


def make_kan(inputs: int, params: Any, intervals: int, outputs: int = 1) -> nn.Sequential:
    """KAN layers inputs - width - ... - outputs. Uninitialised."""
    widths = [inputs, *[params.width] * params.depth, outputs]
    grid = Grid(intervals, params.order)
    # No scaler: with one coefficient more for each edge the fit has a direction that changes nothing.
    return nn.Sequential(*(KANLinear(a, b, grid, scaler=False) for a, b in itertools.pairwise(widths)))


def make_mlp(inputs: int, params: Any, outputs: int = 1) -> nn.Sequential:
    """Without values: `solve_mlp` draws them, and torch's own draws would be from chance that is not the trial's."""
    affine = partial(skip_init, nn.Linear)
    widths = [inputs, *[params.width] * params.depth]
    net = nn.Sequential()
    for a, b in itertools.pairwise(widths):
        net.extend([affine(a, b), make_activation(params.activation)])
    net.append(affine(widths[-1], outputs))
    return net


def cost_kan(shape: Mapping[str, int], params: Any) -> dict[str, Any]:
    """Of the finest grid."""
    return cost(make_kan(shape["inputs"], params, int(params.grids.split("-")[-1]), shape["outputs"]), shape)


def cost_mlp(shape: Mapping[str, int], params: Any) -> dict[str, Any]:
    return cost(make_mlp(shape["inputs"], params, shape["outputs"]), shape)


def cost(net: nn.Module, shape: Mapping[str, int]) -> dict[str, Any]:
    items = min(64, shape.get("train_items", 64))
    step = count_step(net, (shape["inputs"],), items, labels=False)
    return {
        "params": count_params(net), "flops": step.flops / items, "counted": step.counted, "uncounted": sorted(step.uncounted),
    }  # fmt: skip


# Edges ------------------------------------------------------------------------------------------------------------------


def edge_sizes(net: nn.Sequential, x: Tensor) -> list[Tensor]:
    """Of each layer (out, in): the mean of |phi(x)| over the points, differentiable."""
    sizes = []
    for layer in net:
        assert isinstance(layer, KANLinear)
        sizes.append(layer.curves(x).abs().mean(0))
        x = layer(x)
    return sizes


def sparsity(net: nn.Sequential, x: Tensor) -> Tensor:
    """Sum over layers of the edges' L1 norm and of the entropy of their shares in it."""
    total = x.new_zeros(())
    for sizes in edge_sizes(net, x):
        norm = sizes.sum()
        shares = sizes / (norm + TINY)
        total = total + norm - (shares * (shares + TINY).log()).sum()
    return total


def prune(net: nn.Sequential, x: Tensor, threshold: float) -> nn.Sequential:
    """The net without the hidden units whose largest edge in, or out, is below `threshold` times the layer's largest.

    The strongest unit of each layer stays. Other edges keep their numbers, so only what the units added is lost.
    """
    with torch.no_grad():
        sizes = edge_sizes(net, x)
    kept = [torch.arange(net[0].in_features, device=x.device)]
    for before, after in itertools.pairwise(sizes):
        strength = torch.minimum(before.amax(1) / before.max(), after.amax(0) / after.max())
        chosen = (strength >= threshold).nonzero().flatten()
        kept.append(chosen if len(chosen) else strength.argmax().view(1))
    kept.append(torch.arange(net[-1].out_features, device=x.device))
    return nn.Sequential(
        *(layer.part(rows, columns) for layer, columns, rows in zip(net, kept, kept[1:], strict=False))
    )  # fmt: skip
