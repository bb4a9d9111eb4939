"""A trained Kolmogorov-Arnold net as two drawings: the curves of its strongest edges, and the graph without the weak ones.

In: the net and items that it is to be looked at on. Out: SVG text, the same for the same numbers. Nothing is loaded to draw it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from harness_papers.kan.families import EPS, BasisLayer, WaveletLayer
from harness_papers.kan.layers import KANLinear

Array = NDArray[np.float64]
KINDS = (KANLinear, BasisLayer, WaveletLayer)
ITEMS = 128  # that a net is looked at on
WEAK = 0.1  # an edge below this share of its layer's largest is weak
MOST_CURVES, MOST_LINES, MOST_POINTS = 12, 48, 32  # of a layer, and of a curve: a trial's drawings have some 30 kB
COLUMNS, PLOT_WIDTH, PLOT_HEIGHT, GAP_X, GAP_Y, MARGIN = 6, 120, 70, 26, 46, 24  # pixels
LEVEL, ROW, LEAST_ROW, TALLEST = 220, 26, 10, 480
INK, LINE, CURVE = "#333333", "#bbbbbb", "#0072b2"
STYLE = "font:11px sans-serif"


@dataclass(frozen=True)
class Edges:
    """A layer on N items. x: (N, in), what its curves are functions of.   values: (N, out, in), what each edge adds there.

    normed: whether x is the layer's input behind its norm.
    """

    x: Array
    values: Array
    normed: bool = False

    @property
    def sizes(self) -> Array:
        """(out, in): the mean distance of an edge's values from their mean: a constant edge has none."""
        return np.abs(self.values - self.values.mean(axis=0)).mean(axis=0)


# From a net to edges ----------------------------------------------------------------------------------------------------


def look_at(module: nn.Module, x: Tensor, items: int = ITEMS) -> list[Edges]:
    """The net's layers of edges in the order of the forward pass, on the first `items` of x; [] where it has none.

    The net is in eval mode meanwhile. A layer that sees tokens is looked at on the first of them.
    """
    found: list[Edges] = []
    modes = [(part, part.training) for part in module.modules()]
    layers = [part for part in module.modules() if isinstance(part, KINDS)]
    hooks = [
        layer.register_forward_hook(lambda part, given, out: found.append(edges_of(part, given[0], items))) for layer in layers
    ]
    first = next(iter(module.parameters()), x)
    try:
        with torch.no_grad():
            module.eval()(x[:items].to(first.device, first.dtype))
    finally:
        for hook in hooks:
            hook.remove()
        for part, training in modes:
            part.training = training
    return found


def edges_of(layer: nn.Module, x: Tensor, items: int = ITEMS) -> Edges:
    """Of one layer of KINDS, on the first `items` of its inputs (..., in).

    Of functions behind a norm, the curves are functions of the normed input: the base, which sees the input itself, is then
    left out. A bias belongs to no edge.
    """
    x = x.detach().flatten(0, -2)[:items]
    match layer:
        case KANLinear():
            return Edges(to_array(x), to_array(layer.curves(x)))
        case BasisLayer():
            seen = F.layer_norm(x, x.shape[-1:], layer.norm_weight, layer.norm_bias, EPS) if layer.norm else x
            values = torch.einsum("nij,oij->noi", layer.basis(seen), layer.weight.unflatten(1, (layer.in_features, -1)))
            if layer.base is not None and not layer.norm:
                values = values + F.silu(x).unsqueeze(1) * layer.base
            return Edges(to_array(seen), to_array(values), layer.norm)
        case WaveletLayer():
            waves = layer.wavelet((x.unsqueeze(1) - layer.shift) / layer.scale) * layer.weight
            return Edges(to_array(x), to_array(waves + F.silu(x).unsqueeze(1) * layer.base))
    raise TypeError(f"edges_of: {type(layer).__name__} has no edges; give one of {', '.join(k.__name__ for k in KINDS)}")


def to_array(x: Tensor) -> Array:
    found: Array = x.detach().cpu().double().numpy()
    return found


def strong_edges(layers: Sequence[Edges], weak: float = WEAK) -> list[NDArray[np.bool_]]:
    """Of each layer (out, in): the edges that are left.

    An edge has to reach the share `weak` of its layer's largest, and to lie on a way of such edges from an input to an output.
    """
    kept = [
        sizes >= weak * sizes.max() if sizes.max() > 0 else np.zeros_like(sizes, bool) for sizes in (e.sizes for e in layers)
    ]
    for before, after in itertools.pairwise(kept):  # nothing that no input reaches
        after &= before.any(axis=1)[None, :]
    for after, before in itertools.pairwise(reversed(kept)):  # nothing that reaches no output
        before &= after.any(axis=0)[:, None]
    return kept


# Drawings ---------------------------------------------------------------------------------------------------------------


def draw_curves(layers: Sequence[Edges]) -> str:
    """The curves of each layer's strongest edges: over the inputs that the layer saw, each on a scale of its own."""
    shapes: list[str] = []
    top = MARGIN
    for number, layer in enumerate(layers, 1):
        order = strongest(layer.sizes)
        of = (
            f"the {len(order)} largest of {layer.sizes.size:,} edges"
            if len(order) < layer.sizes.size
            else "all edges, the largest first"
        )
        shapes.append(
            text(MARGIN, top, f"layer {number}: {of}" + (", over normed inputs" if layer.normed else ""), weight="bold")
        )
        for at, (o, i) in enumerate(order):
            x = MARGIN + (at % COLUMNS) * (PLOT_WIDTH + GAP_X)
            y = top + 18 + (at // COLUMNS) * (PLOT_HEIGHT + GAP_Y)
            shapes += draw_curve(
                layer, o, i, x, y, name_of(number, i, len(layers), "in"), name_of(number, o, len(layers), "out")
            )
        top += 18 + (len(order) + COLUMNS - 1) // COLUMNS * (PLOT_HEIGHT + GAP_Y) + 12
    width = 2 * MARGIN + COLUMNS * (PLOT_WIDTH + GAP_X) - GAP_X
    return picture(width, top, "learned edge functions", shapes)


def strongest(sizes: Array, most: int = MOST_CURVES) -> list[tuple[int, int]]:
    """(out, in) of the largest edges, the largest first; of equal ones the first."""
    order = np.argsort(-sizes, axis=None, kind="stable")[:most]
    return [(int(at) // sizes.shape[1], int(at) % sizes.shape[1]) for at in order]


def draw_curve(layer: Edges, o: int, i: int, x: float, y: float, source: str, target: str) -> Iterator[str]:
    order = np.argsort(layer.x[:, i], kind="stable")
    order = order[np.linspace(0, len(order) - 1, min(MOST_POINTS, len(order))).astype(int)]
    across, up = layer.x[order, i], layer.values[order, o, i]
    (low, high), (least, most) = ends(across), ends(up)
    points = " ".join(
        f"{x + PLOT_WIDTH * (a - low) / (high - low):.1f},{y + PLOT_HEIGHT * (most - b) / (most - least):.1f}"
        for a, b in zip(across.tolist(), up.tolist(), strict=True)
    )
    yield f'<rect x="{x:g}" y="{y:g}" width="{PLOT_WIDTH}" height="{PLOT_HEIGHT}" fill="none" stroke="{LINE}"/>'
    if least < 0 < most:
        zero = y + PLOT_HEIGHT * most / (most - least)
        yield f'<path d="M{x:g},{zero:.1f} h{PLOT_WIDTH}" stroke="{LINE}" stroke-dasharray="3 3"/>'
    yield f'<polyline points="{points}" fill="none" stroke="{CURVE}" stroke-width="1.5"/>'
    yield text(x, y + PLOT_HEIGHT + 13, f"{source} to {target}")
    yield text(x, y + PLOT_HEIGHT + 26, f"x {number(low)} to {number(high)}, y {number(least)} to {number(most)}", size=9)


def ends(values: Array) -> tuple[float, float]:
    """Of an axis; a constant lies in the middle of one of width 1."""
    low, high = float(values.min()), float(values.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def draw_graph(layers: Sequence[Edges], weak: float = WEAK) -> str:
    """The pruned graph: the strong edges, of a large layer its largest, and the units that they join, in columns.

    An edge is as wide as it is large in its layer.
    """
    kept = strong_edges(layers, weak)
    drawn = [
        [edge for edge in strongest(np.where(left, layer.sizes, -1.0), MOST_LINES) if left[edge]]
        for layer, left in zip(layers, kept, strict=True)
    ]
    places = place_units(drawn)
    shapes = []
    for level, (layer, left, lines) in enumerate(zip(layers, kept, drawn, strict=True)):
        middle = MARGIN + 40 + LEVEL * (level + 0.5)
        told = f"{int(left.sum()):,} of {left.size:,} edges" + (f", {len(lines)} drawn" if len(lines) < left.sum() else "")
        shapes.append(text(middle, MARGIN, told, anchor="middle"))
        shapes += [draw_line(places, level, edge, layer.sizes) for edge in reversed(lines)]  # the largest on top
    for (level, unit), (x, y) in places.items():
        shapes.append(f'<circle cx="{x:g}" cy="{y:g}" r="4" fill="{INK}"/>')
        name = name_of(level + 1, unit, len(layers), "in") if level < len(layers) else name_of(level, unit, len(layers), "out")
        aside = {0: ("end", -8, 4), len(layers): ("start", 8, 4)}
        anchor, right, down = aside.get(level, ("middle", 0, -6))
        shapes.append(text(x + right, y + down, name, anchor=anchor, size=9))
    height = max((y for _, y in places.values()), default=MARGIN) + MARGIN
    title = f"edges of at least {weak:.0%} of their layer's largest"
    return picture(2 * MARGIN + 80 + LEVEL * len(layers), height, title, shapes)


def place_units(drawn: Sequence[Sequence[tuple[int, int]]]) -> dict[tuple[int, int], tuple[float, float]]:
    """(level, unit) -> where it stands, of the units that these edges, (out, in) layer by layer, begin or end at."""
    units: list[set[int]] = [set() for _ in range(len(drawn) + 1)]
    for level, lines in enumerate(drawn):
        units[level] |= {i for _, i in lines}
        units[level + 1] |= {o for o, _ in lines}
    tallest = max(1, *map(len, units))
    row = min(ROW, max(LEAST_ROW, TALLEST / tallest))
    return {
        (level, unit): (MARGIN + 40 + LEVEL * level, MARGIN + 24 + row * (at + (tallest - len(column)) / 2))
        for level, column in enumerate(units)
        for at, unit in enumerate(sorted(column))
    }


def draw_line(places: Mapping[tuple[int, int], tuple[float, float]], level: int, edge: tuple[int, int], sizes: Array) -> str:
    (x1, y1), (x2, y2) = places[level, edge[1]], places[level + 1, edge[0]]
    share, middle = float(sizes[edge] / sizes.max()), (x1 + x2) / 2
    bend = f"M{x1:g},{y1:g} C{middle:g},{y1:g} {middle:g},{y2:g} {x2:g},{y2:g}"
    look = f'stroke-opacity="{share:.2f}" stroke-width="{0.5 + 2.5 * share:.2f}"'
    return f'<path d="{bend}" fill="none" stroke="{CURVE}" {look}/>'


def name_of(layer: int, unit: int, layers: int, side: str) -> str:
    """x3 an input, h2_5 unit 5 of the second hidden level, y0 an output."""
    level = layer - (side == "in")
    return f"x{unit}" if level == 0 else f"y{unit}" if level == layers else f"h{level}_{unit}"


def number(value: float) -> str:
    return f"{value:.2g}"


def text(x: float, y: float, said: str, *, anchor: str = "start", size: int = 11, weight: str = "normal") -> str:
    weighed = "" if weight == "normal" else f' font-weight="{weight}"'
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" font-size="{size}"{weighed} fill="{INK}">{escape(said)}</text>'


def picture(width: float, height: float, title: str, shapes: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join(
        [f'{head} role="img" style="{STYLE}">', f"<title>{escape(title)}</title>", background, *shapes, "</svg>", ""]
    )


# Into a record ----------------------------------------------------------------------------------------------------------


def save_pictures(ctx: Any, module: nn.Module, x: Tensor, *, graph: bool = True) -> list[Edges]:
    """Keep edge-functions.svg and, where asked for, pruned-graph.svg of the net on items x with the record, once a trial.

    Returns what was drawn; [] for a net without edges, of which nothing is kept. Layers that are not a chain have no graph.
    """
    layers = look_at(module, x)
    if layers and not any(blob["name"] == "edge-functions.svg" for blob in ctx.blobs):
        ctx.save("edge-functions.svg", draw_curves(layers).encode(), "image/svg+xml")
        if graph and all(a.values.shape[1] == b.x.shape[1] for a, b in itertools.pairwise(layers)):
            ctx.save("pruned-graph.svg", draw_graph(layers).encode(), "image/svg+xml")
    return layers


def measure_edges(held_part: Mapping[str, Any], solution: Any, ctx: Any) -> dict[str, float]:
    """The probe `kan-edges`: {"edges", "strong_edges"}, and both pictures beside the record.

    edges: of all layers; strong_edges: the share that `strong_edges` leaves, looked at on the part's first 128 items. 0 and 0
    for a net without such layers, so that a suite may measure it beside other methods.
    """
    module = getattr(solution, "module", None)
    layers = save_pictures(ctx, module, held_part["x"]) if isinstance(module, nn.Module) else []
    total = sum(layer.sizes.size for layer in layers)
    left = sum(int(kept.sum()) for kept in strong_edges(layers)) if layers else 0
    return {"edges": float(total), "strong_edges": left / total if total else 0.0}
