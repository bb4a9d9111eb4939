"""A raster of spikes and the firing rates of layers as SVG text: the same for the same numbers, and no script."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from xml.sax.saxutils import escape

from torch import Tensor

MARGIN, LABEL, SLOT, ROW, GAP = 16, 96, 10, 5, 14  # pixels
BAR_WIDTH, BAR_HEIGHT = 360, 14
INK, LINE, SPIKE, LIGHT = "#333333", "#cccccc", "#0072b2", "#99c7e0"
STYLE = "font:11px sans-serif"


def draw_raster(layers: Sequence[tuple[str, Tensor]], steps: int | None = None) -> str:
    """(name, spikes (units, slots)) of each layer, the first layer at the bottom: a stroke for each spike.

    steps: slots of an item, between which a line is drawn; none unless given.
    """
    shapes: list[str] = []
    slots = max((spikes.shape[1] for _, spikes in layers), default=0)
    top = MARGIN + 14.0
    for name, spikes in reversed(layers):
        height = ROW * len(spikes)
        shapes.append(text(MARGIN, top + height / 2 + 4, name))
        if steps:
            marks = "".join(f"M{LABEL + SLOT * at},{top:g}v{height}" for at in range(0, slots + 1, steps))
            shapes.append(f'<path d="{marks}" stroke="{LINE}" fill="none"/>')
        strokes = "".join(f"M{x:g},{y:g}v{ROW - 1}" for x, y in places(spikes, top))
        shapes.append(f'<path d="{strokes}" stroke="{SPIKE}" stroke-width="2" fill="none"/>')
        top += height + GAP
    shapes.append(text(LABEL, MARGIN + 4, "time, one item after the other"))
    return picture(LABEL + SLOT * slots + MARGIN, top, "spikes of some units of each layer", shapes)


def places(spikes: Tensor, top: float) -> Iterator[tuple[float, float]]:
    for unit, slot in (spikes != 0).nonzero().tolist():
        yield LABEL + SLOT * (slot + 0.5), top + ROW * unit


def draw_rates(layers: Sequence[tuple[str, Sequence[float], float]]) -> str:
    """(name, sorted rates of the units, share that is silent) of each layer: a bar to the mean, a line from 10 to 90 %."""
    widest = max((rates[int(0.9 * (len(rates) - 1))] for _, rates, _ in layers), default=0.0)
    widest = max(widest, *(sum(rates) / len(rates) for _, rates, _ in layers), 1e-9)
    shapes = [text(LABEL, MARGIN + 4, "spikes a step: mean, and 10 to 90 % of the units")]
    for at, (name, rates, silent) in enumerate(layers):
        y, mean = MARGIN + 18 + at * (BAR_HEIGHT + GAP), sum(rates) / len(rates)
        low, high = (BAR_WIDTH * rates[int(share * (len(rates) - 1))] / widest for share in (0.1, 0.9))
        length, middle = BAR_WIDTH * mean / widest, y + BAR_HEIGHT / 2
        shapes += [
            text(MARGIN, middle + 4, name),
            f'<rect x="{LABEL}" y="{y:g}" width="{length:.1f}" height="{BAR_HEIGHT}" fill="{LIGHT}"/>',
            f'<path d="M{LABEL + low:.1f},{middle:g}H{LABEL + high:.1f}" stroke="{SPIKE}" stroke-width="2" fill="none"/>',
            text(LABEL + max(length, high) + 8, middle + 4, f"{mean:.3f}, {silent:.0%} silent"),
        ]
    height = MARGIN + 18 + len(layers) * (BAR_HEIGHT + GAP)
    return picture(LABEL + BAR_WIDTH + 130, height, "firing rates by layer", shapes)


def text(x: float, y: float, said: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="{INK}">{escape(said)}</text>'


def picture(width: float, height: float, title: str, shapes: Sequence[str]) -> str:
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}"'
    background = '<rect width="100%" height="100%" fill="#ffffff"/>'
    return "\n".join(
        [f'{head} role="img" style="{STYLE}">', f"<title>{escape(title)}</title>", background, *shapes, "</svg>", ""]
    )
