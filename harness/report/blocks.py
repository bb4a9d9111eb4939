"""What a page is made of: frozen data between what the registry holds and how it is drawn. No HTML, no SVG here.

All text may be a stranger's: it is escaped, or made visible, where it is written, never before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Mark = Literal["", "good", "bad", "doubt", "none", "plain"]
Align = Literal["left", "right", "short", "long"]  # right: numbers; short: on one line; long: a sentence


@dataclass(frozen=True)
class Span:
    """An interval on its column's common scale: low, mean and high in percent of the scale's width. zero: where 0 lies."""

    low: float
    mean: float
    high: float
    zero: float | None = None


@dataclass(frozen=True)
class Spark:
    """A history in a cell: points (x, y) in percent, y downwards; step: the x of the marked step."""

    points: tuple[tuple[float, float], ...]
    step: float | None = None


@dataclass(frozen=True)
class Cell:
    """text: as shown. value: as sorted and saved in full precision; None: the text. copy: the command that the cell stands for.

    lead: before the text, in bold; more: after it, folded. mark: a word that is also told by colour and shape.
    span, spark: a picture of the number.
    """

    text: str
    value: float | str | None = None
    href: str = ""
    copy: str = ""
    mark: Mark = ""
    title: str = ""
    lead: str = ""
    more: str = ""
    span: Span | None = None
    spark: Spark | None = None


@dataclass(frozen=True)
class Column:
    name: str
    align: Align = "left"
    title: str = ""


@dataclass(frozen=True)
class Row:
    """tags: what the page's filters choose by ("task", "device", "method"). faint: shown, but no result to rank."""

    cells: tuple[Cell, ...]
    tags: Mapping[str, str] = field(default_factory=dict)
    faint: bool = False
    anchor: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart. spec: what altair describes, as a Vega-Lite object. title, says: for who cannot see it."""

    name: str
    title: str
    says: str
    spec: Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """name: of its element and of the CSV file. sql: one SELECT that gives the numbers. command: what prints, or makes, them.

    figures: those that show the same numbers. folded: closed until somebody opens it.
    """

    name: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    sql: str = ""
    command: str = ""
    figures: tuple[Figure, ...] = ()
    folded: str = ""


@dataclass(frozen=True)
class Fact:
    name: str
    cell: Cell


@dataclass(frozen=True)
class Exhibit:
    """An artefact. title: its name; note: what it is. file: its copy beside the page, shown where it is a picture, "" for none.

    text: the beginning of a text; folded: what opens it. lies: where it is in the registry.
    """

    title: str
    note: str
    lies: str
    file: str = ""
    picture: bool = False
    text: str = ""
    folded: str = ""


@dataclass(frozen=True)
class Section:
    """facts come first, then text, then tables, then exhibits; shown: what these are, in a sentence."""

    name: str
    title: str
    facts: tuple[Fact, ...] = ()
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    exhibits: tuple[Exhibit, ...] = ()
    shown: str = ""


@dataclass(frozen=True)
class Card:
    """One headline number. note: below it."""

    title: str
    figure: str
    note: str
    href: str = ""
    mark: Mark = ""


@dataclass(frozen=True)
class Page:
    """file: "index.html". group: the entry of the navigation that it stands under. lead: the verdict, in a sentence or two.

    filters: by which tags its rows can be chosen.
    """

    file: str
    group: str
    title: str
    lead: tuple[str, ...]
    sections: tuple[Section, ...]
    cards: tuple[Card, ...] = ()
    filters: tuple[str, ...] = ()
    contents: bool = False


def to_cell(value: Any) -> Cell:
    return value if isinstance(value, Cell) else Cell("" if value is None else str(value))


def to_row(*values: Any, tags: Mapping[str, str] | None = None, faint: bool = False, anchor: str = "") -> Row:
    """Cells as they are, anything else as its text."""
    return Row(tuple(map(to_cell, values)), tags or {}, faint, anchor)


def to_columns(*names: str) -> tuple[Column, ...]:
    """`>name` is aligned to the right: numbers."""
    return tuple(Column(n.removeprefix(">"), "right" if n.startswith(">") else "left") for n in names)
