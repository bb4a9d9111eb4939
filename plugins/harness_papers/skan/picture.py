"""A pruned dense S-KAN as a drawing: which family each node has, and the learned function of every edge. SVG, no script."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any

import torch
from torch import Tensor

from harness_papers.skan.method import POOL, DenseNet, SelectLayer

CELL_WIDTH, CELL_HEIGHT, GAP, LABEL, EDGE, HEAD = 64, 32, 6, 120, 12, 34
POINTS = 33
MOST_EDGES = 200  # some 100 kB; beyond that nobody reads it
COLOURS = dict(zip(POOL, ("#1b6ca8", "#c8553d", "#588157", "#8e4585", "#b08900", "#2a9d8f", "#5f6caf", "#7a5c3e"), strict=True))
STYLE = "font:12px sans-serif;dominant-baseline:central"


def save_picture(ctx: Any, net: DenseNet, x: Tensor) -> None:
    """Keep edges.svg with the record, where the net is small enough to be read. x: items, (N, d), for the ranges of inputs."""
    layers: list[Any] = list(net.selects)
    if sum(layer.out_features * in_features(layer) for layer in layers) <= MOST_EDGES:
        ctx.save("edges.svg", to_svg(net, x).encode(), "image/svg+xml")


@torch.no_grad()
def to_svg(net: DenseNet, x: Tensor) -> str:
    """A block for each layer: a row for each node with its family, a curve for each input over the range that x gives it.

    Curves of a layer share their vertical scale, with 0 in the middle of a cell; behind a LayerNorm they are functions of the
    normalised input from -2 to 2. Raises ValueError for a layer that still mixes families.
    """
    shapes: list[str] = []
    top, width = float(EDGE), 0.0
    for k, layer in enumerate(net.selects):
        assert isinstance(layer, SelectLayer)
        shapes += draw_layer(layer, x, k, top)
        top += HEAD + layer.out_features * (CELL_HEIGHT + GAP) + EDGE
        width = max(width, 2 * EDGE + LABEL + in_features(layer) * (CELL_WIDTH + GAP))
        x = layer(x)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {top:g}" width="{width:g}" height="{top:g}"'
    chosen = "; ".join(f"layer {k}: {', '.join(layer.chosen())}" for k, layer in enumerate(net.selects))
    described = f"<title>S-KAN after pruning</title><desc>{escape(chosen)}</desc>"
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join([f'{head} role="img" style="{STYLE}">', described, background, *shapes, "</svg>", ""])


def draw_layer(layer: SelectLayer, x: Tensor, number: int, top: float) -> Iterator[str]:
    inputs, source = in_features(layer), "x" if number == 0 else f"h{number}"
    low, high = x.amin(dim=0), x.amax(dim=0)
    owners = [layer.owner(o) for o in range(layer.out_features)]
    curves = [[edge_values(owner, i, low[i], high[i]) for i in range(inputs)] for owner in owners]
    scale = max(float(values.abs().max()) for row in curves for values in row) or 1.0
    for i in range(inputs):
        at = EDGE + LABEL + i * (CELL_WIDTH + GAP)
        told = f"{source}.{i} {float(low[i]):.2g} to {float(high[i]):.2g}" if inputs <= 3 else f"{source}.{i}"
        yield f'<text x="{at:g}" y="{top + HEAD / 2:g}">{escape(told)}</text>'
    for o, (name, _, _) in enumerate(owners):
        y = top + HEAD + o * (CELL_HEIGHT + GAP)
        middle, colour = y + CELL_HEIGHT / 2, COLOURS.get(name, "#555555")
        yield f'<text x="{EDGE}" y="{middle:g}" fill="{colour}">h{number + 1}.{o} {escape(name)}</text>'
        for i in range(inputs):
            left = EDGE + LABEL + i * (CELL_WIDTH + GAP)
            curve = points(curves[o][i], left, middle, scale)
            yield f'<path d="M{left:g},{middle:g}h{CELL_WIDTH}" stroke="#d0d0d0"/>'
            yield f'<polyline fill="none" stroke="{colour}" stroke-width="1.5" points="{curve}"/>'


def edge_values(owner: tuple[str, Any, int], source: int, low: Tensor, high: Tensor) -> Tensor:
    _, layer, row = owner
    ends = (-2.0, 2.0) if getattr(layer, "norm", False) else (float(low), float(high))
    t = torch.linspace(*ends, POINTS, dtype=layer.weight.dtype, device=layer.weight.device)
    return layer.edge(row, source, t)


def points(values: Tensor, left: float, middle: float, scale: float) -> str:
    heights = (middle - values.double() / scale * CELL_HEIGHT / 2).tolist()
    return " ".join(f"{left + k * CELL_WIDTH / (POINTS - 1):.1f},{height:.1f}" for k, height in enumerate(heights))


def in_features(layer: SelectLayer) -> int:
    return int(next(iter(layer.layers.values())).in_features)
