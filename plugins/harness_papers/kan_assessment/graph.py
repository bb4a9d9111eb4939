"""A KAN as a picture and as words: its graph with a curve on every edge, and the named function nearest to each curve.

In: the points that each layer saw and its edges' values there, as NumPy arrays. Out: SVG text, and plain data.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any
from xml.sax.saxutils import escape

import numpy as np

from harness_papers.kan.pictures import Array, Edges

MOST_EDGES = 150  # in a picture: of a larger net the strongest
CURVE_POINTS = 60
PLOT, GAP, LEVEL, MARGIN = 34, 12, 170, 30  # pixels: side of a curve's box, between boxes, between levels, around all
NAMED = 0.999  # R^2 from which on the simplest function is taken
NAMING_POINTS = 200


# The picture ------------------------------------------------------------------------------------------------------------


def draw_graph(layers: Sequence[Edges]) -> str:
    """SVG: inputs below, outputs above; an edge is as dark as it is large in its layer, with its curve halfway up."""
    counts = [layers[0].x.shape[1], *(layer.values.shape[1] for layer in layers)]
    boxes = max(min(layer.values[0].size, MOST_EDGES) for layer in layers)
    width = MARGIN * 2 + max(boxes * (PLOT + GAP), max(counts) * 2 * PLOT)
    height = MARGIN * 2 + len(layers) * LEVEL
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" text-anchor="middle">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for level, layer in enumerate(layers):
        below, above = (height - MARGIN - LEVEL * n for n in (level, level + 1))
        parts += draw_layer(layer, counts[level], counts[level + 1], width, below, above)
    for level, count in enumerate(counts):
        y = height - MARGIN - LEVEL * level
        for i in range(count):
            x = place(i, count, width)
            parts.append(f'<circle cx="{x:.1f}" cy="{y}" r="5" fill="#222"/>')
            if level in (0, len(layers)):
                text = f"x{i + 1}" if level == 0 else f"y{i + 1}" if count > 1 else "y"
                parts.append(f'<text x="{x:.1f}" y="{y + (20 if level == 0 else -10)}">{text}</text>')
    return "\n".join([*parts, "</svg>", ""])


def draw_layer(layer: Edges, inputs: int, outputs: int, width: int, below: int, above: int) -> list[str]:
    sizes = layer.sizes
    order = np.argsort(-sizes, axis=None)[:MOST_EDGES]
    strongest = float(sizes.max()) or 1.0
    # By input and then output: each box stands about above the unit that it reads.
    chosen = sorted((int(i), int(o)) for o, i in zip(*np.unravel_index(order, sizes.shape), strict=True))
    parts = []
    for slot, (i, o) in enumerate(chosen):
        x, y = place(slot, len(chosen), width), (below + above) / 2
        dark = 0.08 + 0.92 * float(sizes[o, i]) / strongest
        ends = f"{place(i, inputs, width):.1f},{below} {x:.1f},{y + PLOT / 2:.1f}"
        onwards = f"{x:.1f},{y - PLOT / 2:.1f} {place(o, outputs, width):.1f},{above}"
        parts.append(f'<g opacity="{dark:.2f}" fill="none" stroke="#222">')
        parts += [f'<polyline points="{line}" stroke-width="1"/>' for line in (ends, onwards)]
        box = f'x="{x - PLOT / 2:.1f}" y="{y - PLOT / 2:.1f}" width="{PLOT}" height="{PLOT}"'
        parts.append(f'<rect {box} fill="white" stroke-width="0.7"/>')
        parts.append(f'<polyline points="{curve(layer, i, o, x, y)}" stroke="#06c" stroke-width="1.4"/>')
        parts.append(f"<title>{escape(f'{i + 1} to {o + 1}, mean size {sizes[o, i]:.3g}')}</title></g>")
    if sizes.size > MOST_EDGES:
        parts.append(f'<text x="{width / 2}" y="{above + 30}">the {MOST_EDGES} largest of {sizes.size} edges</text>')
    return parts


def curve(layer: Edges, i: int, o: int, x: float, y: float) -> str:
    """The edge's curve inside its box, each axis over its own range."""
    order = np.argsort(layer.x[:, i])
    order = order[np.linspace(0, len(order) - 1, min(CURVE_POINTS, len(order))).astype(int)]
    across, up = scaled(layer.x[order, i]), scaled(layer.values[order, o, i])
    side = PLOT - 4
    return " ".join(f"{x + side * a:.1f},{y - side * b:.1f}" for a, b in zip(across, up, strict=True))


def scaled(values: Array) -> Array:
    """To [-1/2, 1/2]; a constant to 0."""
    low, high = float(values.min()), float(values.max())
    return (values - (low + high) / 2) / ((high - low) or 1.0)


def place(index: int, count: int, width: int) -> float:
    return MARGIN + (width - 2 * MARGIN) * (index + 0.5) / count


# Names ------------------------------------------------------------------------------------------------------------------

# From simple to less so.
FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "x": lambda z: z,
    "x^2": np.square,
    "x^3": lambda z: z**3,
    "abs": np.abs,
    "exp": np.exp,
    "log": np.log,
    "sqrt": np.sqrt,
    "1/x": np.reciprocal,
    "sin": np.sin,
    "tanh": np.tanh,
    "gaussian": lambda z: np.exp(-(z**2)),
}


def name_edges(layers: Sequence[Edges]) -> list[dict[str, Any]]:
    """For each edge, the largest first: layer, from, to (counted from 1), its size, and c f(a x + b) + d with its R^2.

    The first function of FUNCTIONS with an R^2 of 0.999 or more, else the best. Source: the search of pykan's symbolic layer,
    written anew: a and b on a grid that is made finer around the best, c and d by least squares.
    """
    found = []
    for level, layer in enumerate(layers):
        rows = np.linspace(0, len(layer.x) - 1, min(NAMING_POINTS, len(layer.x))).astype(int)
        for o, i in np.ndindex(*layer.sizes.shape):
            named = name_curve(layer.x[rows, i], layer.values[rows, o, i])
            found.append({"layer": level + 1, "from": i + 1, "to": o + 1, "size": float(layer.sizes[o, i]), **named})
    return sorted(found, key=lambda edge: (edge["layer"], -edge["size"]))


def name_curve(x: Array, y: Array) -> dict[str, Any]:
    """{"function", "a", "b", "c", "d", "r2"} of a curve at points x: y is nearest to c f(a x + b) + d."""
    if np.ptp(y) <= 1e-9 * max(1.0, float(np.abs(y).max())):
        return {"function": "constant", "a": 0.0, "b": 0.0, "c": 0.0, "d": float(y.mean()), "r2": 1.0}
    best: dict[str, Any] = {"r2": -np.inf}
    for name, function in FUNCTIONS.items():
        fit = fit_function(function, x, y)
        if fit["r2"] > best["r2"] + 1e-9:
            best = {"function": name, **fit}
        if best["r2"] >= NAMED:
            break
    return best


def fit_function(function: Callable[[Array], Array], x: Array, y: Array, steps: int = 25, rounds: int = 4) -> dict[str, float]:
    """a and b of the largest correlation of f(a x + b) with y, then c and d by least squares."""
    a0, b0, reach = 0.0, 0.0, 10.0
    centred = y - y.mean()
    for _ in range(rounds):
        a, b = (v.ravel() for v in np.meshgrid(*(np.linspace(m - reach, m + reach, steps) for m in (a0, b0))))
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = function(a[:, None] * x + b[:, None])
            spread = values - values.mean(axis=1, keepdims=True)
            r2 = (spread @ centred) ** 2 / ((spread**2).sum(axis=1) * (centred**2).sum())
        r2 = np.where(np.isfinite(r2) & np.isfinite(values).all(axis=1), r2, -1.0)
        at = int(r2.argmax())
        a0, b0, reach = float(a[at]), float(b[at]), 2 * reach / steps
    if r2[at] < 0:
        return {"a": 0.0, "b": 0.0, "c": 0.0, "d": float(y.mean()), "r2": 0.0}
    c = float(spread[at] @ centred / (spread[at] ** 2).sum())
    return {"a": a0, "b": b0, "c": c, "d": float(y.mean() - c * values[at].mean()), "r2": float(r2[at])}
