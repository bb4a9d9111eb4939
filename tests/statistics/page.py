"""From sections to Markdown: what `python -m tests.statistics` prints, and the whole of docs/statistics.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """rows: texts, the first column names the row. under: one sentence on what a figure is and how many draws it rests on."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    under: str


@dataclass(frozen=True)
class Section:
    """title: a heading. text: Markdown paragraphs, before the tables."""

    title: str
    text: str
    tables: tuple[Table, ...]


HEAD = """\
# How the statistics were checked

This page is written by the command at its end; no figure in a table is typed by hand. Each one counts how often `harness.stats`
was right about worlds whose truth is known, drawn from fixed seeds that were chosen before the figures were seen: about one
figure in twenty lies further from its truth than the ± under its table, by chance. The formulas themselves are held against
published numbers and other implementations by `tests/test_stats*.py`: Darwin's maize with the t and the sign-flip p that Fisher
printed, the sample sizes of the power tables, scipy for the rest.

Which number rests on what:
"""
USES = (
    (
        "a verdict on a mean or a difference",
        "paired t interval over the seeds, at 95 %; at 97.5 % a look where an extension is declared",
    ),
    ("beside it, deciding nothing", "sign-flip p, Hedges' effect size, the power, and the seeds that 80 % of it would take"),
    ("a verdict on a median", "interval between two order statistics"),
    ("a verdict on an interquartile mean", "t interval of the trimmed mean, with the winsorised variance"),
    ("a verdict on a share of seeds", "exact binomial interval"),
    ("a verdict on a correlation", "Spearman's, by Fisher's z with the variance of Bonett and Wright"),
    ("a verdict over tasks", "Wilcoxon's signed ranks, exact, over means of the seeds; or the t interval of these"),
    ("ranks, and `harness compare`'s words", "paired t test, from 5 pairs on; sign-flip p where all differences are equal"),
    ("a family of comparisons", "Holm's adjustment"),
    ("several tasks pooled", "interquartile mean, probability of improvement, profiles; stratified bootstrap; no verdict"),
)
FOOT = """\
## The command

`python -m tests.statistics --write docs/statistics.md` makes this page, in some two minutes; the same page each time.
`--quick` draws fewer worlds and takes seconds. The tests hold the same figures to their limits: a part in `make test`, at full
size in `make test-slow`.
"""


def render_page(sections: Sequence[Section]) -> str:
    uses = render_table(("Where", "Statistic"), USES, figures=False)
    return "\n".join([f"{HEAD}\n{uses}\n", *(render_section(s) for s in sections), FOOT])


def render_section(section: Section) -> str:
    tables = "\n\n".join(f"{render_table(t.head, t.rows)}\n\n{t.under}" for t in section.tables)
    return f"## {section.title}\n\n{section.text.strip()}\n\n{tables}\n"


def render_table(head: Sequence[str], rows: Sequence[Sequence[str]], figures: bool = True) -> str:
    """Columns padded so that it reads as text too; figures, in all columns but the first, to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(w) if figures and i else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in (head, *rows)
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if figures and i else "-") for i, w in enumerate(widths)) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])
