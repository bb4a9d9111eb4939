"""The ledger: each claim with its verdict, the interval that it rests on, and the command that would settle what is open."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.claims.verdicts import Decision, Verdict
from harness.report import charts, linking
from harness.report.blocks import Cell, Column, Fact, Figure, Page, Row, Section, Table
from harness.report.collecting import Collected
from harness.report.words import command, number, share, signed_word
from harness.showing import interval_text, one_line
from harness.specs import Claim, Paper

WORDS = ("supported", "refuted", "inconclusive", "not testable here")
NOT_JUDGED = "not judged"


def make_page(found: Collected) -> Page:
    sections = tuple(paper_section(found, paper) for paper in found.papers.values() if paper.claims)
    return Page(
        "claims.html", "claims", "Claims", (tally(found),), sections, filters=("paper", "verdict"), contents=len(sections) > 3
    )


def tally(found: Collected) -> str:
    """How many of each word, over all claims of the installed papers."""
    counts = count_words(found)
    told = [f"{counts[word]} {word}" for word in (*WORDS, NOT_JUDGED) if counts.get(word)]
    total = sum(counts.values())
    if not total:
        return "No installed plugin states a claim."
    said = f"{total} claims of {len(found.papers)} papers: {', '.join(told)}."
    return f"{said} Each rule was fixed before its first attempt, in the paper's plugin."


def count_words(found: Collected) -> dict[str, int]:
    counts: dict[str, int] = {}
    for paper in found.papers.values():
        for claim in paper.claims:
            word = word_of(claim, verdicts_of(found, full_name(paper, claim)))
            counts[word] = counts.get(word, 0) + 1
    return counts


def full_name(paper: Paper, claim: Claim) -> str:
    return f"{paper.name}.{claim.name}"


def verdicts_of(found: Collected, name: str) -> list[Verdict]:
    """Of one claim; the judge names claims with or without their paper."""
    return [v for v in found.verdicts if v.claim == name or f"{v.paper}.{v.claim}" == name]


def word_of(claim: Claim, verdicts: Sequence[Verdict]) -> str:
    """The one word of a claim: of several places the first that decides, else what is open."""
    words = {v.word for v in verdicts}
    if not words:
        return "not testable here" if claim.rule is None else NOT_JUDGED
    return next(word for word in WORDS if word in words)


def paper_section(found: Collected, paper: Paper) -> Section:
    facts = (
        Fact("title", Cell(one_line(paper.title))),
        Fact("authors", Cell(one_line(paper.authors))),
        Fact("arXiv", Cell(f"{one_line(paper.arxiv)} ({paper.year})")),
    )
    return Section(
        f"paper-{linking.claim_anchor(paper.name)}", one_line(paper.name), facts, tables=(claims_table(found, [paper]),)
    )


NUMBERS = (
    Column("estimate", "right", "with its interval; of the decision that made the verdict"),
    Column("has to be", "right"),
    Column("pairs", "right"),
    Column("power", "right", "of finding the claim's effect"),
    Column("cost", "right", "seconds over those of what it is compared with"),
)


def claims_table(found: Collected, papers: Sequence[Paper]) -> Table:
    """The columns of numbers are there once a verdict has one."""
    names = [paper.name for paper in papers]
    claims = [(paper, claim, verdicts_of(found, full_name(paper, claim))) for paper in papers for claim in paper.claims]
    numbers = any(d.estimate is not None for _, _, verdicts in claims for v in verdicts for d in v.decisions)
    columns = (
        Column("verdict", "short"),
        Column("claim", "long"),
        *(NUMBERS if numbers else ()),
        Column("the paper's value", "long"),
        Column("to settle it"),
    )
    rows, figures = [], []
    for paper, claim, verdicts in claims:
        rows += [verdict_row(found, paper, claim, verdict, numbers) for verdict in verdicts] or [
            unjudged_row(paper, claim, numbers)
        ]
        figures += [f for at, v in enumerate(verdicts) if (f := forest_figure(full_name(paper, claim), v, at))]
    name = f"claims-{linking.claim_anchor('+'.join(names))}"
    again = command("harness", "claims", *names)
    return Table(name, columns, tuple(rows), "Claims", command=again, figures=tuple(figures))


def tags_of(paper: Paper, word: str) -> dict[str, str]:
    return {"paper": one_line(paper.name), "verdict": word}


def claim_cell(claim: Claim, why: str) -> Cell:
    """Its name, what it says, and why the verdict is what it is."""
    sentence = one_line(claim.says)
    return Cell(
        f"{sentence}{'' if sentence.endswith('.') else '.'} {one_line(why)}".strip(),
        one_line(claim.name),
        lead=one_line(claim.name),
    )


def unjudged_row(paper: Paper, claim: Claim, numbers: bool) -> Row:
    word = word_of(claim, ())
    why = (
        f"It would take {claim.missing}." if claim.missing else f"It is looked at with {claim.seeds} seeds, which have not run."
    )
    todo = "" if claim.rule is None else command("harness", "claims", paper.name)
    cells = (
        signed_word(word),
        claim_cell(claim, why),
        *([Cell("", None)] * (len(NUMBERS) if numbers else 0)),
        paper_value(claim),
        Cell(todo, copy=todo),
    )
    return Row(cells, tags_of(paper, word), faint=True, anchor=linking.claim_anchor(full_name(paper, claim)))


def paper_value(claim: Claim) -> Cell:
    return Cell(one_line(claim.value), title=one_line(f"{claim.place}; {claim.source}"))


def verdict_row(found: Collected, paper: Paper, claim: Claim, verdict: Verdict, numbers: bool) -> Row:
    decision = deciding(verdict)
    estimate = Cell("", None) if decision is None else estimate_cell(decision)
    first = next((i for i in verdict.attempts if i in found.attempts), None)
    if first is not None:
        estimate = replace(estimate, href=linking.method_file(str(found.attempts[first]["method"])))
    told = (
        estimate,
        Cell("" if decision is None else limits_of(decision)),
        Cell("" if not verdict.n else str(verdict.n), verdict.n),
        share(verdict.power),
        number(verdict.cost_ratio),
    )
    again = one_line(verdict.command)
    cells = (
        signed_word(verdict.word),
        claim_cell(claim, verdict.reason),
        *(told if numbers else ()),
        paper_value(claim),
        Cell(again, copy=again),
    )
    name = linking.claim_anchor(full_name(paper, claim))
    return Row(cells, tags_of(paper, verdict.word), verdict.word == "not testable here", name)


def deciding(verdict: Verdict) -> Decision | None:
    """The decision that made the verdict what it is; else the first that has an estimate."""
    known = [d for d in verdict.decisions if d.estimate is not None]
    return next((d for d in known if d.word == verdict.word), known[0] if known else None)


def estimate_cell(decision: Decision) -> Cell:
    if decision.estimate is None:
        return Cell("", None)
    text = interval_text(decision.estimate, decision.interval_low, decision.interval_high, signed=True)
    return Cell(f"{text} {one_line(decision.unit)}".strip(), decision.estimate, title=one_line(decision.what))


def limits_of(decision: Decision) -> str:
    """> 0, < 0.01, 0.9 to 1.1; with the slack that is still undecided."""
    low, high = decision.low, decision.high
    slack = f" ± {decision.slack:g}" if decision.slack else ""
    if math.isfinite(low) and math.isfinite(high):
        return f"{low:g} to {high:g}{slack}"
    if math.isfinite(low):
        return f"> {low:g}{slack}"
    return f"< {high:g}{slack}" if math.isfinite(high) else ""


def forest_figure(name: str, verdict: Verdict, at: int = 0) -> Figure | None:
    """Every decision of a verdict with its interval, where they share a unit; the shaded range is where the claim holds."""
    known = [d for d in verdict.decisions if d.estimate is not None]
    units = {d.unit for d in known}
    if not known or len(units) > 1:
        return None
    dots = []
    for d in known:
        assert d.estimate is not None
        low, high = (d.estimate if end is None else end for end in (d.interval_low, d.interval_high))
        tip = f"{one_line(d.what)}: {estimate_cell(d).text}, {d.word}"
        dots.append(charts.Dot(d.what, d.estimate, low, high, d.word, tip))
    ranges = sorted({(d.low, d.high) for d in known})
    says = "; ".join(f"{one_line(d.what)}: {estimate_cell(d).text} ({d.word})" for d in known)
    spec = charts.forest(dots, one_line(known[0].unit) or "estimate", ranges if len(ranges) == 1 else ())
    return Figure(f"forest-{linking.claim_anchor(name)}-{at}", f"{one_line(name)}: {verdict.word}", says, spec)


def decisions_table(name: str, verdicts: Sequence[Verdict]) -> Iterator[Table]:
    """What a verdict was made of, decision by decision."""
    for at, verdict in enumerate(verdicts):
        rows = [
            Row(
                (
                    signed_word(d.word),
                    Cell(one_line(d.what)),
                    estimate_cell(d),
                    Cell(limits_of(d)),
                    Cell(str(d.n), d.n),
                    Cell(f"{100 * d.confidence:g} %"),
                    number(d.p),
                    number(d.effect_size),
                    share(d.power),
                    Cell("" if d.seeds_needed is None else str(d.seeds_needed), d.seeds_needed),
                )
            )
            for d in verdict.decisions
        ]
        if rows:
            columns = (
                Column("decision"),
                Column("of"),
                Column("estimate", "right"),
                Column("has to be", "right"),
                Column("n", "right"),
                Column("confidence", "right"),
                Column("p, sign flips", "right"),
                Column("effect size", "right"),
                Column("power", "right"),
                Column("seeds for 80 % power", "right"),
            )
            yield Table(
                f"decisions-{linking.claim_anchor(name)}-{at}", columns, tuple(rows), f"{one_line(name)}: {verdict.word}"
            )
