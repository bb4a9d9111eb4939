"""The results as one Markdown document: leaderboards, claims, kernels, from the same tables as the pages. For a repository.

Names are a stranger's as far as this is concerned: what Markdown would act on is escaped.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.report.blocks import Cell, Column, Page, Row, Section, Table
from harness.report.collecting import Collected
from harness.report.pages import claims, kernels, leaderboard
from harness.report.rendering import Heading
from harness.showing import visible

ACTIVE = re.compile(r"([\\`*_{}\[\]<>|#~!])")
CODE = re.compile(r"`([^`]+)`")
SIGNS = {"good": "✓ ", "bad": "✗ ", "doubt": "? ", "none": "∅ "}


def render_results(found: Collected, heading: Heading, command: str) -> str:
    """command: what writes this document again."""
    pages = [leaderboard.make_page(found), claims.make_page(found), kernels.make_page(found)]
    where = [f"torch {heading.torch}" if heading.torch else "", f"machine {heading.machines}" if heading.machines else ""]
    told = ", ".join(part for part in (f"{heading.attempts} attempts", f"the newest of {heading.newest}", *where) if part)
    blocks = [
        "# Results",
        f"Written by `{command}`; do not edit. {escaped(told)}. `harness report` makes pages of the same records, with curves, "
        "costs and every attempt.",
    ]
    blocks += [block for page in pages for block in page_blocks(page)]
    return "\n\n".join(blocks) + "\n"


def page_blocks(page: Page) -> Iterator[str]:
    yield f"## {page.title}"
    yield prose(page.lead[0])
    for section in page.sections:
        yield from section_blocks(section)


def section_blocks(section: Section) -> Iterator[str]:
    yield f"### {escaped(section.title)}"
    if section.facts:
        yield "  \n".join(f"{escaped(fact.name)}: {escaped(fact.cell.text)}" for fact in section.facts)
    if section.text:
        yield "  \n".join(map(prose, section.text))
    for table in section.tables:
        if table.rows:
            yield grid(table)


def grid(table: Table) -> str:
    """Without the columns that are pictures, and those that are empty throughout."""
    kept = [i for i, _ in enumerate(table.columns) if any(shown(row.cells[i]) for row in table.rows)]
    lines = [[escaped(table.columns[i].name) for i in kept], [rule(table.columns[i]) for i in kept]]
    lines += [cells(row, kept) for row in table.rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rule(column: Column) -> str:
    return "--:" if column.align == "right" else "---"


def cells(row: Row, kept: Sequence[int]) -> list[str]:
    return [shown(row.cells[i]) for i in kept]


def shown(cell: Cell) -> str:
    lead = f"**{escaped(cell.lead)}**: " if cell.lead else ""
    if cell.copy and cell.text:
        return "`" + visible(cell.text).replace("`", "'").replace("|", "\\|") + "`"
    more = f" Here: {escaped(cell.more)}" if cell.more else ""
    return lead + SIGNS.get(cell.mark, "") * bool(cell.text) + escaped(cell.text) + more


def prose(text: str) -> str:
    """A sentence of ours: what stands in backquotes stays code."""
    parts = CODE.split(text)
    return "".join(f"`{part}`" if at % 2 else escaped(part) for at, part in enumerate(parts))


def escaped(text: str) -> str:
    return ACTIVE.sub(r"\\\1", visible(text)).replace("@", "&#64;").replace("\n", " ")
