"""Tables in a terminal, narrow or without Unicode too, and in Markdown; intervals and histories as pictures of characters."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import click
from rich import box
from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from harness.showing import interval_text, one_line, visible
from harness.stats import Interval

UNLIMITED = 10_000  # columns: to ask a table how wide it would like to be
BAR_CELLS = 17
SPARK_CELLS = 12
BARS = "▁▂▃▄▅▆▇█"
# What stands for a character that a terminal's encoding may not have.
PLAIN = {"├": "|", "┤": "|", "─": "-", "●": "o", "┆": ":", "±": "+/-", "↑": "^", "↓": "v", "†": "+", "‡": "++", "§": "~",
         "…": "...", **dict(zip(BARS, "_.,-=+*#", strict=True))}  # fmt: skip


class Output(Console):
    """A console for names and texts of others: what a terminal would obey is shown, what its encoding has not is spelled.

    rich ends the process where stdout's reader goes away; the command line decides that here.
    """

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        if isinstance(renderable, Text) and (shown := encodable(self, visible(renderable.plain))) != renderable.plain:
            renderable = Text(shown, style=renderable.style, justify=renderable.justify, overflow=renderable.overflow)
        return super().render(renderable, options)


def console(*, err: bool = False) -> Console:
    """Stdout or stderr; 118 columns where it is no terminal, so that a log or a README holds whole rows."""
    made = Output(stderr=err, highlight=False, emoji=False)
    if made.options.ascii_only and isinstance(made.file, io.TextIOWrapper):
        made.file.reconfigure(errors="backslashreplace")  # rich itself cuts a text with an ellipsis
    return made if made.is_terminal else Output(stderr=err, highlight=False, emoji=False, width=118)


@dataclass(frozen=True)
class Column:
    """drop: where a table is too wide, the columns with the highest number go first; 0 stays. From NEVER on a column is for
    Markdown only. picture: not in Markdown, where the digits beside it say the same."""

    heading: str
    cells: Sequence[str]
    right: bool = True
    drop: int = 0
    picture: bool = False


NEVER = 100


def print_columns(out: Console, title: str, columns: Sequence[Column]) -> list[str]:
    """A table with as many columns as fit: a cut number is worse than none. Returns the headings of those left out."""
    kept = [c for c in columns if c.drop < NEVER]
    table = made_table(out, title, kept)
    while Measurement.get(out, out.options.update(max_width=UNLIMITED), table).maximum > out.width and any(
        c.drop for c in kept
    ):
        last = max(c.drop for c in kept)
        kept = [c for c in kept if c.drop < last]
        table = made_table(out, title, kept)
    out.print(table)
    return [c.heading for c in columns if c not in kept and not c.picture]


def made_table(out: Console, title: str, columns: Sequence[Column]) -> Table:
    table = Table(
        title=Text(encodable(out, title)), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False,
        padding=(0, 1, 0, 0),
    )  # fmt: skip
    for column in columns:
        # Text: a name is not rich's markup. Where nothing more can go, names are folded and numbers stay whole.
        table.add_column(
            Text(encodable(out, column.heading)), justify="right" if column.right else "left", overflow="fold",
            no_wrap=column.right or column.picture,
        )  # fmt: skip
    for row in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*(Text(encodable(out, cell)) for cell in row))
    return table


def say(out: Console, lines: Iterable[str]) -> None:
    for line in lines:
        out.print(encodable(out, line), markup=False)


def encodable(out: Console, text: str) -> str:
    """The text in characters that the terminal's encoding has."""
    if not out.options.ascii_only:
        return text
    plain = "".join(PLAIN.get(c, c) for c in text)
    return plain.encode(out.encoding, "backslashreplace").decode(out.encoding)


# Markdown -------------------------------------------------------------------------------------------------------------


def print_markdown_columns(title: str, columns: Sequence[Column], lines: Iterable[str] = ()) -> None:
    kept = [c for c in columns if not c.picture]
    rule = ["--:" if c.right else "---" for c in kept]
    rows = [[c.heading for c in kept], rule, *zip(*(c.cells for c in kept), strict=True)]
    click.echo(f"**{markdown_cell(title)}**\n")
    for number, row in enumerate(rows):
        click.echo(f"| {' | '.join(row if number == 1 else map(markdown_cell, row))} |")
    click.echo()
    for line in lines:
        click.echo(f"- {markdown_cell(line)}")
    click.echo()


def markdown_cell(text: str) -> str:
    """A bar in a name would end its cell, a tag would be obeyed, a star may begin a list."""
    return one_line(text).replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


# Pictures and numbers -------------------------------------------------------------------------------------------------


def scale(intervals: Iterable[Interval]) -> tuple[float, float]:
    """The range that holds them all."""
    ends = sorted(
        end for i in intervals for end in (i.low if i.low is not None else i.mean, i.high if i.high is not None else i.mean)
    )
    return (ends[0], ends[-1]) if ends else (0.0, 1.0)


def bar(interval: Interval | None, low: float, high: float, cells: int = BAR_CELLS, mark: float | None = None) -> str:
    """An interval as ├──●──┤ on the scale from low to high; "" for what has no place on it. mark: a value shown as ┆."""
    if interval is None or not low < high or not math.isfinite(high - low):
        return ""
    if not all(math.isfinite(end) for end in (interval.low, interval.mean, interval.high) if end is not None):
        return ""
    drawn = [" "] * cells

    def place(value: float) -> int:
        return min(cells - 1, max(0, round((value - low) / (high - low) * (cells - 1))))

    if mark is not None:
        drawn[place(mark)] = "┆"
    left = place(interval.low if interval.low is not None else interval.mean)
    right = place(interval.high if interval.high is not None else interval.mean)
    for i in range(left, right + 1):
        drawn[i] = "─"
    drawn[left], drawn[right] = "├", "┤"
    drawn[place(interval.mean)] = "●"
    return "".join(drawn)


def spark(values: Sequence[float], cells: int = SPARK_CELLS) -> str:
    """A history as ▁▂▄▇, the least value lowest, each cell the mean of the values that fall into it; "" below two values."""
    kept = [v for v in values if math.isfinite(v)]
    if len(kept) < 2:
        return ""
    cells = min(cells, len(kept))
    parts = [kept[i * len(kept) // cells : (i + 1) * len(kept) // cells] for i in range(cells)]
    means = [math.fsum(v / len(part) for v in part) for part in parts]
    low, high = min(means), max(means)
    if not low < high or not math.isfinite(high - low):
        return BARS[len(BARS) // 2] * cells
    return "".join(BARS[min(len(BARS) - 1, int((m - low) / (high - low) * len(BARS)))] for m in means)


def interval_cell(interval: Interval | None, *, signed: bool = False) -> str:
    """mean ± half-width, to the digits that the half-width leaves meaning."""
    if interval is None:
        return ""
    return interval_text(interval.mean, interval.low, interval.high, signed=signed)


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
