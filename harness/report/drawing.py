"""Vega-Lite objects in, SVG out: drawn by vl-convert, then taken apart and put together again from what a picture may hold.

vl-convert comes with the extra `report` and is imported here only. altair, which knows the grammar, needs a quarter of a
second to check one chart: the tests let it check every kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any
from xml.etree import ElementTree

from harness.errors import MissingError

SVG = "{http://www.w3.org/2000/svg}"
# All that vl-convert draws with; nothing here loads or runs anything. What is beyond these is a fault of ours.
ELEMENTS = {"svg", "g", "path", "rect", "line", "circle", "text", "tspan", "title", "defs", "clipPath"}
ATTRIBUTES = {
    "aria-label",
    "aria-hidden",
    "aria-roledescription",
    "class",
    "clip-path",
    "cx",
    "cy",
    "d",
    "display",
    "dx",
    "dy",
    "fill",
    "fill-opacity",
    "font-family",
    "font-size",
    "font-style",
    "font-weight",
    "height",
    "id",
    "opacity",
    "pointer-events",
    "r",
    "role",
    "stroke",
    "stroke-dasharray",
    "stroke-linecap",
    "stroke-linejoin",
    "stroke-miterlimit",
    "stroke-opacity",
    "stroke-width",
    "text-anchor",
    "transform",
    "version",
    "viewBox",
    "width",
    "x",
    "x1",
    "x2",
    "y",
    "y1",
    "y2",
}
LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
QUIET, LINE, INK = "var(--quiet, #59636e)", "var(--line, #d5dbe1)", "var(--ink, #1b1f24)"
CONFIG: Mapping[str, Any] = {
    "background": "transparent",
    "font": "sans-serif",
    "padding": {"left": 12, "right": 16, "top": 6, "bottom": 6},
    "view": {"stroke": None},
    "axis": {
        "labelColor": QUIET,
        "titleColor": INK,
        "titleFontWeight": "normal",
        "gridColor": LINE,
        "domainColor": LINE,
        "tickColor": LINE,
        "labelFontSize": 12,
        "titleFontSize": 12,
        "labelPadding": 5,
    },
    "legend": {"labelColor": INK, "titleColor": INK, "labelFontSize": 12, "symbolStrokeWidth": 2, "symbolOpacity": 1},
    "text": {"fontSize": 12},
    "title": {"color": INK},
}


def renderer() -> ModuleType:
    """vl_convert. Raises MissingError with the mend."""
    try:
        import vl_convert
    except ImportError as exc:
        raise MissingError("a report needs vl-convert to draw its charts; pip install 'paper-harness[report]'") from exc
    return vl_convert


def configured(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {**spec, "config": dict(CONFIG)}


def draw(spec: Mapping[str, Any], name: str, title: str, says: str) -> str:
    """The chart as one <svg> element for a page. name: unique on it. title, says: for who cannot see it.

    Raises MissingError without vl-convert.
    """
    return clean(renderer().vegalite_to_svg(configured(spec)), name, title, says)


def clean(svg: str, name: str, title: str, says: str) -> str:
    """The same picture with ids of its own, numbers to a hundredth of a pixel, and a name. ValueError for what is none."""
    root = ElementTree.fromstring(svg)
    numbered: dict[str, str] = {}
    for element in root.iter():
        if element.tag.removeprefix(SVG) not in ELEMENTS or not element.tag.startswith(SVG):
            raise ValueError(f"chart {name}: <{element.tag}> is not drawn here")
        element.tag = element.tag.removeprefix(SVG)
        for key in list(element.attrib):
            if key not in ATTRIBUTES:
                raise ValueError(f"chart {name}: {key}= is not drawn here")
        if "id" in element.attrib:
            numbered[element.attrib["id"]] = element.attrib["id"] = f"{name}-{len(numbered)}"
    for element in root.iter():
        slim(element)
        if (clip := element.attrib.get("clip-path")) is not None:
            element.attrib["clip-path"] = f"url(#{numbered_id(clip, numbered)})"
    width, height = root.attrib.pop("width"), root.attrib.pop("height")
    root.attrib = {
        "viewBox": f"0 0 {width} {height}",
        "width": width,
        "height": height,
        "role": "img",
        "aria-labelledby": f"{name}-t {name}-d",
    }
    for at, (tag, text) in enumerate((("title", title), ("desc", says))):
        told = ElementTree.Element(tag, {"id": f"{name}-{tag[0]}"})
        told.text = text
        root.insert(at, told)
    return ElementTree.tostring(root, encoding="unicode")


def numbered_id(clip: str, numbered: Mapping[str, str]) -> str:
    return numbered[clip.removeprefix("url(#").removesuffix(")")]


def slim(element: ElementTree.Element) -> None:
    """Without what says nothing on a page; only marks keep their labels, for the tooltips."""
    for key in ("class", "pointer-events", "aria-roledescription", "version", "role", "aria-hidden"):
        element.attrib.pop(key, None)
    if element.tag != "path":
        element.attrib.pop("aria-label", None)
    for key in ("d", "transform", "x", "y", "x1", "x2", "y1", "y2", "width", "height"):
        if key in element.attrib:
            element.attrib[key] = LONG_NUMBER.sub(lambda found: f"{float(found.group()):.2f}", element.attrib[key])
    if element.attrib.get("opacity") == "1":
        del element.attrib["opacity"]
