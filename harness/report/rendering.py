"""Pages in, files out: HTML by Jinja2 with autoescape, charts in it, and the style and script that all pages share.

Nothing on a page comes from elsewhere: its policy allows the two files beside it and nothing else. Numbers for the script are
JSON in an element that no browser runs. An artefact of a plugin is never put into a page: <img> shows it, or it is a text.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from harness.errors import MissingError
from harness.report.blocks import Cell, Column, Figure, Page, Section, Table
from harness.report.collecting import steady
from harness.report.drawing import draw, renderer
from harness.showing import finite, visible

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

ASSETS = ("report.css", "report.js")
POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"
GROUPS = (
    ("index", "Overview", "index.html"),
    ("leaderboard", "Leaderboard", "leaderboard.html"),
    ("claims", "Claims", "claims.html"),
    ("methods", "Methods", "methods.html"),
    ("compare", "Compare", "compare.html"),
    ("kernels", "Kernels", "kernels.html"),
    ("nightly", "Nightly", "nightly.html"),
    ("machines", "Machines", "machines.html"),
)
MANY = 100  # charts, 0.1 s each, from which processes that start in a second share them
MOST_PROCESSES = 8  # each holds a renderer of some 300 MB
SHORT = 24  # characters that a short column shows on every screen
CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Heading:
    """What all pages say of their origin."""

    version: str
    newest: str
    commit: str
    torch: str
    attempts: str
    machines: str


def render_pages(pages: Sequence[Page], heading: Heading) -> Iterator[tuple[str, str]]:
    """(file name, text) of every page and of what they share; processes share the drawing where there is much of it.

    Raises MissingError without Jinja2 or vl-convert.
    """
    processes = min(len(os.sched_getaffinity(0)), len(pages), MOST_PROCESSES)
    render = partial(render_page, heading=heading)
    if processes > 1 and sum(map(charts_of, pages)) >= MANY:
        # What is missing is said here, once.
        environment()
        renderer()
        # Spawned: DuckDB's threads are in this process, and would not be in a fork of it.
        with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
            yield from pool.map(render, pages)
    else:
        yield from map(render, pages)
    for name in ASSETS:
        yield name, (files("harness.report") / "assets" / name).read_text(encoding="utf-8")


def render_page(page: Page, heading: Heading) -> tuple[str, str]:
    """Its file name and its text."""
    told = {"page": page, "heading": heading, "groups": GROUPS, "policy": POLICY, "choices": choices_of(page)}
    return page.file, environment().get_template("page.html.j2").render(**told) + "\n"


def charts_of(page: Page) -> int:
    return sum(len(table.figures) for section in page.sections for table in section.tables)


@cache
def environment() -> Environment:
    try:
        import jinja2
    except ImportError as exc:
        raise MissingError("a report needs Jinja2; pip install 'paper-harness[report]'") from exc
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("harness.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "raw_table": raw_table,
        "chart": chart,
        "prose": prose,
        "polyline": polyline,
        "hint": hint,
        "quoted": shlex.quote,
    }
    made.policies["json.dumps_kwargs"] = {"sort_keys": True, "separators": (",", ":"), "ensure_ascii": True}
    return made


def shown(value: object) -> object:
    """Text without what a browser would obey: marks that turn its direction, and what has no width."""
    return visible(value) if type(value) is str else value  # Markup is a str too, and has been through here


def chart(figure: Figure) -> Markup:
    """SVG that `drawing` has taken apart and put together; nothing else enters a page unescaped."""
    from markupsafe import Markup

    return Markup(draw(figure.spec, figure.name, visible(figure.title), visible(figure.says)))


def prose(text: str) -> Markup:
    """A sentence of ours, escaped; what stands in backquotes is code."""
    from markupsafe import Markup, escape

    parts = CODE.split(visible(text))
    return Markup("").join(Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(parts))


def hint(cell: Cell, column: Column) -> str:
    """What a pointer is told of a cell: its title; else the whole of a text that may be cut."""
    whole = cell.value if isinstance(cell.value, str) else cell.text
    cut = cell.text.endswith("…") or (column.align == "short" and len(cell.text) > SHORT)
    return cell.title or (whole if cut else "")


def polyline(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def raw_table(table: Table) -> dict[str, Any]:
    """What the script sorts, filters and saves: the values in full precision."""
    told: dict[str, Any] = finite(
        {
            "columns": [visible(c.name) for c in table.columns],
            "rows": [[value_of(cell) for cell in row.cells] for row in table.rows],
            "tags": [{name: visible(tag) for name, tag in row.tags.items()} for row in table.rows],
        }
    )
    return told


def value_of(cell: Cell) -> float | str | None:
    """Rounded to what a sum keeps: a merged registry gives the same page."""
    if isinstance(cell.value, float):
        return float(steady(cell.value))
    if isinstance(cell.value, str):
        return visible(cell.value)
    pictured = cell.span is not None or cell.spark is not None
    return cell.value if cell.value is not None or pictured else visible(cell.text) or None


def choices_of(page: Page) -> Mapping[str, list[str]]:
    """What each filter can choose, where there is a choice."""
    found: dict[str, set[str]] = {name: set() for name in page.filters}
    for section in page.sections:
        for tags in tags_in(section):
            for name, value in tags.items():
                if name in found:
                    found[name].add(visible(value))
    return {name: sorted(values) for name, values in found.items() if len(values) > 1}


def tags_in(section: Section) -> Iterator[Mapping[str, str]]:
    yield section.tags
    for table in section.tables:
        for row in table.rows:
            yield row.tags
