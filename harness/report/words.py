"""How things are said on every page: names, amounts, settings, SQL literals, file names. Pure functions on values."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from harness.identity import canonical, digest
from harness.leaderboard import Board
from harness.report.blocks import Cell, Mark, Span
from harness.showing import interval_text, one_line, setting_texts
from harness.stats import Interval

SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns"))
BYTES = ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B"))
RATES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
MAX_SLUG = 40
MAX_NAME = 80  # characters of a name in a cell
MAX_ERROR = 160
ID = 16  # characters of an attempt's id: as many as `harness logs` is told elsewhere
ARROWS = {"higher": "↑", "lower": "↓", "neither": ""}
SIGNS: Mapping[str, Mark] = {
    "ok": "good",
    "failed": "bad",
    "timeout": "bad",
    "oom": "bad",
    "diverged": "bad",
    "invalid": "bad",
    "unsupported": "none",
    "interrupted": "none",
    "supported": "good",
    "refuted": "bad",
    "inconclusive": "doubt",
    "disagrees": "doubt",
    "not testable here": "none",
    "confirmed": "bad",
    "broken": "bad",
    "suspected": "doubt",
    "better": "good",
    "worse": "bad",
    "tied": "doubt",
    "faster": "good",
    "slower": "bad",
    "same": "plain",
    "ambiguous": "doubt",
}


def short(ref: object) -> str:
    """The bare name of a reference, on one line, cut where it is long."""
    name = one_line(ref).split("/", 1)[-1]
    return name if len(name) <= MAX_NAME else f"{name[:MAX_NAME]}…"


def file_name(kind: str, name: str, identity: object) -> str:
    """A name that any file system takes: the readable part of a stranger's, and a digest that keeps equal ones apart."""
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_SLUG].strip("-")
    return "-".join(part for part in (kind, readable, digest(canonical(identity))[:6]) if part) + ".html"


def anchor(*names: object) -> str:
    return "r" + digest(list(map(str, names)))[:8]


def in_units(value: float, units: tuple[tuple[float, str], ...], of: str = "") -> str:
    """12.3 MiB, 4.56 µs: three digits, by the largest unit that the value reaches."""
    if not math.isfinite(value):
        return str(value)
    size, name = next((u for u in units if abs(value) >= u[0]), units[-1])
    shown = value / size
    return f"{shown:,.0f} {name}{of}".strip() if abs(shown) >= 999.5 else f"{shown:.3g} {name}{of}".strip()


def seconds(value: float | None) -> Cell:
    return Cell("", None) if value is None else Cell(in_units(value, SECONDS), value)


def size(value: float | None) -> Cell:
    return Cell("", None) if value is None else Cell(in_units(value, BYTES), value)


def rate(value: float | None, unit: str) -> Cell:
    return Cell("", None) if value is None else Cell(in_units(value, RATES, unit), value)


def count(value: float | None) -> Cell:
    return Cell("", None) if value is None else Cell(f"{value:,.0f}", value)


def number(value: float | None, href: str = "") -> Cell:
    return Cell("", None) if value is None else Cell(f"{value:.4g}", value, href)


def share(value: float | None) -> Cell:
    return Cell("", None) if value is None else Cell(f"{100 * value:.3g} %", value)


def moment(value: datetime | None) -> Cell:
    return Cell("", None) if value is None else Cell(f"{value:%Y-%m-%d %H:%M}", value.isoformat())


def interval(found: Interval | None, href: str = "", *, signed: bool = False, span: Span | None = None) -> Cell:
    """Rounded by its own width; the whole number is the cell's value."""
    if found is None:
        return Cell("")
    text = interval_text(found.mean, found.low, found.high, signed=signed)
    return Cell(text, found.mean, href, span=span)


def signed_word(word: str, text: str = "") -> Cell:
    """A word of a verdict or a status, with the colour and the sign that go with it."""
    return Cell(text or word, word, mark=SIGNS.get(word, "plain"))


def attempt_cell(attempt_id: str) -> Cell:
    """An id that stands for the command that prints its log."""
    return Cell(one_line(attempt_id[:ID]), attempt_id, copy=shlex.join(["harness", "logs", one_line(attempt_id[:ID])]))


def plural(n: int, word: str) -> str:
    """1 board, 2 boards, 1,000 series."""
    return f"{n:,} {word}" if n == 1 or word.endswith("s") else f"{n:,} {word}s"


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    shown = one_line(text).strip() if text else ""
    return shown if not shown else shown[0].upper() + shown[1:] + ("" if shown[-1] in ".!?" else ".")


def last_line(error: str | None) -> str:
    lines = (error or "").strip().splitlines()
    shown = one_line(lines[-1]) if lines else ""
    return shown if len(shown) <= MAX_ERROR else f"{shown[:MAX_ERROR]}…"


def error_cell(error: str | None, otherwise: str = "") -> Cell:
    """The last line; all of it is the cell's value where it is cut."""
    shown = last_line(error) or otherwise
    whole = one_line((error or "").strip().splitlines()[-1]) if shown.endswith("…") and error else None
    return Cell(shown, whole)


def task_label(board: Board) -> str:
    return one_line(board.label)


def settings(board: Board) -> str:
    """Net, training, budget and device of a board: what its methods have in common."""
    shared = board.shared
    budget = ", ".join(f"{k} {v:,g}" for k, v in (shared["budget"] or {}).items()) or "no budget"
    return one_line(" · ".join([*setting_texts(shared), budget, where(shared)]))


def where(shared: Mapping[str, Any]) -> str:
    threads = shared["threads"]
    return (
        f"{shared['device']} {shared['dtype']} {threads} thread{'s' if threads != 1 else ''}, torch {shared['torch_version']}"
    )


def literal(value: object) -> str:
    """A value in SQL."""
    if value is None:
        return "NULL"
    if isinstance(value, bool | int | float):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"


def conditions(**wanted: object) -> str:
    """name = 'value' AND ...; what is None has to be null."""
    told = (f"{name} IS NULL" if value is None else f"{name} = {literal(value)}" for name, value in wanted.items())
    return " AND ".join(told)


def command(*words: str) -> str:
    """As one would type it; of a stranger's name what a shell would obey is quoted."""
    return one_line(shlex.join(words))
