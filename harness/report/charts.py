"""Numbers in, Vega-Lite objects out: what a chart shows. Colours are the page's own, named by its style sheet.

Each mark carries a `tip`: its label for screen readers, and what the page shows beside the pointer. Shapes and dashes say the
same as colours. Names reach a chart by `short_label` only: the renderer ends the process at a character that XML has not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.showing import short_label

Spec = dict[str, Any]
LARGEST = 1e300  # what diverged to more cannot be drawn; the table beside the chart has it
# Okabe and Ito's colours, in the light and the dark form that the style sheet gives them.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8A8A8A")
COLOURS = [f"var(--c{i}, {hex})" for i, hex in enumerate(PALETTE, 1)]
SHAPES = ["circle", "triangle-up", "square", "diamond", "cross", "triangle-down", "triangle-left"]
DASHES = [[1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 1], [1, 3], [10, 4]]
INK = "var(--ink, #1b1f24)"
QUIET = "var(--quiet, #59636e)"
BAND = "var(--band, #e8eef4)"
WIDE, HIGH = 380, 230


@dataclass(frozen=True)
class Dot:
    """A number with its interval. label: of the row or the point; tip: in words."""

    label: str
    x: float
    low: float
    high: float
    group: str
    tip: str
    y: float = 0.0
    text: str = ""


def drawable(*values: float) -> bool:
    return all(math.isfinite(v) and abs(v) < LARGEST for v in values)


def palette(groups: Sequence[str], title: str | None = None) -> Spec:
    """Colour by group, in their order."""
    legend = {"title": title, "orient": "top", "labelLimit": 300} if len(groups) > 1 else None
    scale = {"domain": list(groups), "range": [COLOURS[i % len(COLOURS)] for i in range(len(groups))]}
    return {"field": "group", "type": "nominal", "scale": scale, "legend": legend}


def shapes(groups: Sequence[str]) -> Spec:
    scale = {"domain": list(groups), "range": [SHAPES[i % len(SHAPES)] for i in range(len(groups))]}
    return {
        "field": "group",
        "type": "nominal",
        "scale": scale,
        "legend": {"title": None, "orient": "top"} if len(groups) > 1 else None,
    }


# The place of a verdict's word among colours and shapes: the same in every forest, whichever words are there.
VERDICTS = {
    "supported": 2, "better": 2, "faster": 2, "refuted": 1, "worse": 1, "slower": 1, "inconclusive": 4, "ambiguous": 4,
    "tied": 4, "same": 0, "one seed": 6, "not testable here": 6,
}  # fmt: skip


def verdict_scales(words: Sequence[str]) -> tuple[Spec, Spec]:
    """Colour and shape, fixed for each word."""
    places = [VERDICTS.get(word, 5) for word in words]
    colour, shape = palette(words), shapes(words)
    colour["scale"]["range"] = [COLOURS[at] for at in places]
    shape["scale"]["range"] = [SHAPES[at] for at in places]
    return colour, shape


TIP: Spec = {"field": "tip", "type": "nominal"}


def forest(
    dots: Sequence[Dot], axis: str, ranges: Iterable[tuple[float, float]] = (), at: float | None = None, log: bool = False
) -> Spec:
    """A row each: estimate and interval. ranges: where the estimate has to lie, shaded; at: a line, such as no difference.

    log: for ratios, which are above 0.
    """
    rows = [d for d in dots if drawable(d.x, d.low, d.high) and not (log and min(d.x, d.low) <= 0)]
    labels = [short_label(d.label, i) for i, d in enumerate(dots, 1)]
    labels = [f"{label} #{i}" if label in labels[: i - 1] else label for i, label in enumerate(labels, 1)]
    shown = dict(zip(map(id, dots), labels, strict=True))
    groups = list(dict.fromkeys(d.group for d in rows))
    values = [
        {"row": shown[id(d)], "x": d.x, "low": d.low, "high": d.high, "group": d.group, "tip": short_label(d.tip, 1)}
        for d in rows
    ]
    y = {"field": "row", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 320}}
    limits = [(low, high) for low, high in ranges]
    ends = [v for d in rows for v in (d.low, d.high)] + [v for pair in limits for v in pair if drawable(v)]
    ends += [at] if at is not None and drawable(at) else []
    domain = [min(ends) / 1.15, max(ends) * 1.15] if log and ends else padded(ends)
    scale: Spec = {"domain": domain, "nice": False, **({"type": "log"} if log else {"zero": False})}
    x = {"field": "x", "type": "quantitative", "title": axis, "scale": scale, "axis": {"tickCount": 6}}
    layers: list[Spec] = []
    for low, high in limits:
        left, right = (low if drawable(low) else domain[0], high if drawable(high) else domain[1])
        layers.append(
            {
                "data": {"values": [{"x": left, "x2": right}]},
                "mark": {"type": "rect", "color": BAND, "aria": False},
                "encoding": {"x": x, "x2": {"field": "x2"}},
            }
        )
    if at is not None:
        layers.append(
            {
                "data": {"values": [{"x": at}]},
                "mark": {"type": "rule", "color": QUIET, "strokeDash": [4, 3], "aria": False},
                "encoding": {"x": x},
            }
        )
    colour, shape = verdict_scales(groups)
    layers += [
        {
            "mark": {"type": "rule", "strokeWidth": 2, "aria": False},
            "encoding": {"y": y, "x": {**x, "field": "low"}, "x2": {"field": "high"}, "color": colour},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 70},
            "encoding": {"y": y, "x": x, "color": colour, "shape": shape, "description": TIP},
        },
    ]
    return {"data": {"values": values}, "layer": layers, "width": WIDE, "height": max(40, 24 * len(rows))}


def padded(ends: Sequence[float]) -> list[float]:
    """A domain that leaves some room at both ends."""
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = 0.06 * (high - low) or 0.5 * abs(high) or 0.5
    return [low - room, high + room]


def strips(values: Mapping[str, Sequence[tuple[float, str]]], axis: str) -> Spec:
    """Each seed a dot: label -> (value, tip)."""
    rows, labels = [], {}
    for i, (label, dots) in enumerate(values.items(), 1):
        labels[label] = short_label(label, i)
        rows += [
            {"row": labels[label], "x": v, "group": labels[label], "tip": short_label(tip, 1)} for v, tip in dots if drawable(v)
        ]
    groups = list(labels.values())
    colour = {**palette(groups), "legend": None}
    return {
        "data": {"values": rows},
        "width": WIDE,
        "height": max(40, 30 * len(groups)),
        "mark": {"type": "point", "size": 60, "filled": True, "opacity": 0.75},
        "encoding": {
            "y": {"field": "row", "type": "nominal", "sort": None, "title": None, "axis": {"labelLimit": 320}},
            "x": {"field": "x", "type": "quantitative", "title": axis, "scale": {"zero": False}, "axis": {"tickCount": 6}},
            "color": colour,
            "shape": {**shapes(groups), "legend": None},
            "description": TIP,
        },
    }


def cost_scatter(dots: Sequence[Dot], x_title: str, y_title: str) -> Spec:
    """Quality against cost: x with its interval is the cost's axis, y the quality. Dots with a text are labelled."""
    shown = [d for d in dots if d.x > 0 and drawable(d.x, d.y, d.low, d.high)]
    named = apart(shown)
    rows = [
        {
            "x": d.x,
            "y": d.y,
            "low": d.low,
            "high": d.high,
            "group": d.group,
            "tip": short_label(d.tip, 1),
            "text": short_label(d.text, i) if i in named else "",
        }
        for i, d in enumerate(shown)
    ]
    groups = sorted({d.group for d in shown}, key=lambda g: (g != "method", g))
    x = {
        "field": "x",
        "type": "quantitative",
        "title": x_title,
        "scale": {"type": "log", "nice": False, "padding": 40},
        "axis": {"tickCount": 5},
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "title": y_title,
        "scale": {"zero": False, "padding": 12},
        "axis": {"tickCount": 6},
    }
    return {
        "data": {"values": rows},
        "width": WIDE + 60,
        "height": HIGH + 30,
        "layer": [
            {
                "mark": {"type": "rule", "strokeWidth": 1, "opacity": 0.55, "aria": False},
                "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": palette(groups)},
            },
            {
                "mark": {"type": "point", "filled": True, "size": 75},
                "encoding": {"x": x, "y": y, "color": palette(groups), "shape": shapes(groups), "description": TIP},
            },
            {
                "mark": {"type": "text", "align": "left", "dx": 8, "dy": -6, "color": INK, "aria": False},
                "encoding": {"x": x, "y": y, "text": {"field": "text"}},
            },
        ],
    }


def apart(dots: Sequence[Dot]) -> set[int]:
    """Numbers of the dots whose text is shown: one that would lie on another one's has its tooltip only."""
    if not dots:
        return set()
    places = [(math.log(d.x), d.y) for d in dots]
    wide = max(x for x, _ in places) - min(x for x, _ in places) or 1.0
    high = max(d.high for d in dots) - min(d.low for d in dots) or 1.0
    kept: list[int] = []
    for i, (x, y) in enumerate(places):
        if dots[i].text and all(abs(x - places[k][0]) / wide > 0.25 or abs(y - places[k][1]) / high > 0.07 for k in kept):
            kept.append(i)
    return set(kept)


def curves(
    lines: Mapping[str, Sequence[tuple[float, float, float, float]]],
    x_title: str,
    y_title: str,
    log: bool = False,
    log_y: bool = False,
    marks: bool = True,
) -> Spec:
    """label -> (x, y, low, high): a line with its band. marks: also a dot a point, with its numbers as a tooltip."""
    labels = {label: short_label(label, i) for i, label in enumerate(lines, 1)}
    rows = [
        {
            "x": x,
            "y": y,
            "low": low,
            "high": high,
            "group": labels[label],
            "tip": short_label(f"{label}: {y:.4g} at {x:.4g}", 1),
        }
        for label, points in lines.items()
        for x, y, low, high in points
        if drawable(x, y, low, high)
    ]
    groups = list(labels.values())
    far = any(x >= 1e4 for points in lines.values() for x, _, _, _ in points)
    large = any(y >= 1e5 for points in lines.values() for _, y, _, _ in points)
    scale = {"type": "log", "nice": False} if log else {"nice": False}
    x = {
        "field": "x",
        "type": "quantitative",
        "title": x_title,
        "scale": scale,
        "axis": {"tickCount": 5, "format": "~s" if far else "~g"},
    }
    scale = {"type": "log", "nice": False} if log_y else {"zero": False}
    y = {
        "field": "y",
        "type": "quantitative",
        "title": y_title,
        "scale": scale,
        "axis": {"tickCount": 6, "format": "~s" if log_y or large else ""},
    }
    dash = {
        "field": "group",
        "type": "nominal",
        "legend": {"title": None, "orient": "top"} if len(groups) > 1 else None,
        "scale": {"domain": groups, "range": [DASHES[i % len(DASHES)] for i in range(len(groups))]},
    }
    layers: list[Spec] = [
        {
            "mark": {"type": "area", "opacity": 0.16, "aria": False},
            "encoding": {"x": x, "y": {**y, "field": "low"}, "y2": {"field": "high"}, "color": palette(groups)},
        },
        {
            "mark": {"type": "line", "strokeWidth": 2, "aria": False},
            "encoding": {"x": x, "y": y, "color": palette(groups), "strokeDash": dash},
        },
    ]
    if marks:
        layers.append(
            {
                "mark": {"type": "point", "size": 26, "filled": True},
                "encoding": {
                    "x": x,
                    "y": y,
                    "color": palette(groups),
                    "shape": {**shapes(groups), "legend": None},
                    "description": TIP,
                },
            }
        )
    return {"data": {"values": rows}, "width": WIDE - 70, "height": HIGH, "layer": layers}


def roofline(points: Sequence[Dot], roofs: Mapping[str, tuple[float, float]], hollow: str) -> Spec:
    """FLOP/s over FLOP per byte, both on log axes. roofs: label -> (bytes/s, FLOP/s), one for each size of case.

    A dot has the colour of its own roof, which its label names, and the shape of its group; those whose text is `hollow` are
    not filled.
    """
    shown = [d for d in points if d.x > 0 and d.y > 0 and drawable(d.x, d.y) and d.label in roofs]
    names = {label: short_label(label, 1) for label in roofs}
    rows = [
        {
            "x": d.x,
            "y": d.y,
            "group": short_label(d.group, 1),
            "roof": names[d.label],
            "tip": short_label(d.tip, 1),
            "kind": d.text,
        }
        for d in shown
    ]
    ridges = [matmul / copy for copy, matmul in roofs.values()]
    left, right = min([d.x for d in shown] + ridges) / 4, max([d.x for d in shown] + ridges) * 4
    lines = [
        {"x": x, "y": y, "roof": names[label]}
        for label, (copy, matmul) in roofs.items()
        for x, y in ((left, left * copy), (matmul / copy, matmul), (right, matmul))
    ]
    low = min([d.y for d in shown] + [left * copy for copy, _ in roofs.values()]) / 2
    high = 2 * max(matmul for _, matmul in roofs.values())
    x = {
        "field": "x",
        "type": "quantitative",
        "title": "FLOP per byte",
        "scale": {"type": "log", "domain": [left, right], "nice": False},
        "axis": {"tickCount": 5, "format": "~g"},
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "title": "FLOP/s",
        "scale": {"type": "log", "domain": [low, high], "nice": False},
        "axis": {"tickCount": 5, "format": "~s"},
    }
    legend = {"title": "roof of size", "orient": "top", "labelLimit": 300}
    colour = {**palette(list(names.values())), "field": "roof", "legend": legend}
    encoding = {
        "x": x,
        "y": y,
        "color": colour,
        "shape": shapes(list(dict.fromkeys(short_label(d.group, 1) for d in shown))),
        "description": TIP,
    }
    return {
        "width": WIDE,
        "height": HIGH + 20,
        "layer": [
            {
                "data": {"values": lines},
                "mark": {"type": "line", "strokeWidth": 2, "aria": False},
                "encoding": {"x": x, "y": y, "color": colour},
            },
            {
                "data": {"values": [r for r in rows if r["kind"] != hollow]},
                "mark": {"type": "point", "filled": True, "size": 70},
                "encoding": encoding,
            },
            {
                "data": {"values": [r for r in rows if r["kind"] == hollow]},
                "mark": {"type": "point", "filled": False, "size": 70},
                "encoding": encoding,
            },
        ],
    }


def history(points: Sequence[tuple[str, float]], y_title: str, step: int | None, levels: tuple[float, float] | None) -> Spec:
    """(night, value) in time order. step: the first point of the new level, marked; levels: before and after it."""
    rows = [{"x": i, "y": v, "tip": short_label(f"{night}: {v:.4g}", 1)} for i, (night, v) in enumerate(points) if drawable(v)]
    last = len(points) - 1
    x = {
        "field": "x",
        "type": "quantitative",
        "title": "night",
        "scale": {"nice": False, "domain": [0, max(1, last)]},
        "axis": {"tickCount": min(8, max(1, last)), "tickMinStep": 1, "format": "d"},
    }
    y = {
        "field": "y",
        "type": "quantitative",
        "title": y_title,
        "scale": {"zero": False},
        "axis": {"tickCount": 5, "format": "~s"},
    }
    layers: list[Spec] = [
        {"mark": {"type": "line", "color": COLOURS[0], "strokeWidth": 1.5, "aria": False}, "encoding": {"x": x, "y": y}},
        {
            "mark": {"type": "point", "color": COLOURS[0], "filled": True, "size": 30},
            "encoding": {"x": x, "y": y, "description": TIP},
        },
    ]
    if step is not None:
        layers.append(
            {
                "data": {"values": [{"x": step}]},
                "mark": {"type": "rule", "color": COLOURS[1], "strokeDash": [4, 3], "strokeWidth": 2, "aria": False},
                "encoding": {"x": x},
            }
        )
        if levels is not None and drawable(*levels):
            ends = [{"x": 0, "x2": step, "y": levels[0]}, {"x": step, "x2": last, "y": levels[1]}]
            layers.append(
                {
                    "data": {"values": ends},
                    "mark": {"type": "rule", "color": COLOURS[1], "strokeWidth": 2, "aria": False},
                    "encoding": {"x": x, "x2": {"field": "x2"}, "y": y},
                }
            )
    return {"data": {"values": rows}, "layer": layers, "width": WIDE + 120, "height": HIGH - 60}
