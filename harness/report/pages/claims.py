"""The ledger: each claim with its verdict, the interval that it rests on, and the command that would settle what is open."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.claims.verdicts import Decision, Verdict
from harness.report import charts, linking
from harness.report.blocks import Cell, Column, Fact, Figure, Page, Row, Section, Table
from harness.report.collecting import Collected
from harness.report.words import command, literal, number, plural, sentence, share, signed_word
from harness.showing import one_line
from harness.specs import Claim, Paper

DISAGREES = "disagrees"  # between protocols, machines or environments
WORDS = ("supported", "refuted", "inconclusive", DISAGREES, "not testable here")
NOT_RUN = "not run"


def make_page(found: Collected) -> Page:
    sections = tuple(paper_section(found, paper) for paper in found.papers.values() if paper.claims)
    return Page(
        "claims.html", "claims", "Claims", (tally(found),), sections, filters=("paper", "verdict"), contents=len(sections) > 3
    )


def tally(found: Collected) -> str:
    """How many of each word, over all claims of the installed papers."""
    counts = count_words(found)
    told = [f"{counts[word]} {word}" for word in (*WORDS, NOT_RUN) if counts.get(word)]
    total = sum(counts.values())
    if not total:
        return "No installed plugin states a claim."
    said = f"{plural(total, 'claim')} of {plural(len(found.papers), 'paper')}: {', '.join(told)}."
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
    """The one word of a claim, of all places in which it was looked at; DISAGREES where these say different things, and
    NOT_RUN where nothing ran."""
    words = {NOT_RUN if v.word == "inconclusive" and not v.n else v.word for v in verdicts}
    if not words:
        return "not testable here" if claim.rule is None else NOT_RUN
    looked_at = words & set(WORDS[:3])
    if len(looked_at) > 1:
        return DISAGREES
    return next(iter(looked_at), NOT_RUN if NOT_RUN in words else "not testable here")


def paper_section(found: Collected, paper: Paper) -> Section:
    facts = (
        Fact("title", Cell(one_line(paper.title))),
        Fact("authors", Cell(one_line(paper.authors))),
        Fact("arXiv", Cell(f"{one_line(paper.arxiv)} ({paper.year})")),
    )
    return Section(
        f"paper-{linking.claim_anchor(paper.name)}", one_line(paper.name), facts, tables=(claims_table(found, [paper]),)
    )


WIDER = (
    "To refute, an interval at the second level has to lie outside the range: one condition of several refutes all. The "
    "interval shown is at the first."
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
        Column("the paper's value, and what is smaller here", "long"),
        Column("to settle it"),
    )
    rows, figures = [], []
    for paper, claim, verdicts in claims:
        judged = [verdict_row(found, paper, claim, verdict, at, numbers) for at, verdict in enumerate(verdicts)]
        rows += judged or [unjudged_row(paper, claim, numbers)]
        figures += [f for at, v in enumerate(verdicts) if (f := forest_figure(full_name(paper, claim), v, at))]
    name = f"claims-{linking.claim_anchor('+'.join(names))}"
    again = command("harness", "claims", *names)
    return Table(name, columns, tuple(rows), "Claims", sql=sql_of(names), command=again, figures=tuple(figures))


def sql_of(papers: Sequence[str]) -> str:
    """The values that the verdicts of these papers rest on, and where none is there yet."""
    columns = 'c.claim, c.method, c.task, c."given", c.seed, m.machine, m.status, c.metric, m.value, m.attempt_id'
    same = "m.series_key = c.series_key AND m.quantity = c.metric AND m.part = c.part AND m.started_at >= c.fixed_at"
    chosen = " OR ".join(f"starts_with(c.claim, {literal(f'{paper}.')})" for paper in papers)
    return f"SELECT {columns} FROM v_claims AS c LEFT JOIN measurements AS m ON {same} WHERE {chosen} ORDER BY ALL"


def tags_of(paper: Paper, word: str) -> dict[str, str]:
    return {"paper": one_line(paper.name), "verdict": word}


def claim_cell(claim: Claim, why: str) -> Cell:
    """Its name, what it says, and why the verdict is what it is."""
    name = one_line(claim.name)
    return Cell(f"{sentence(claim.says)} {sentence(why)}".strip(), name, lead=name)


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
    """What the paper reports, where, and what is smaller here."""
    told = f"{sentence(claim.value)} {sentence(claim.place)}"
    return Cell(told.strip(), title=one_line(claim.source), more=sentence(claim.scaled_down))


def verdict_row(found: Collected, paper: Paper, claim: Claim, verdict: Verdict, at: int, numbers: bool) -> Row:
    """at: which of the claim's verdicts it is."""
    decision = deciding(verdict)
    estimate = Cell("", None) if decision is None else estimate_cell(decision)
    first = next((i for i in verdict.attempts if i in found.attempts), None)
    if first is not None:
        estimate = replace(estimate, href=linking.method_file(str(found.attempts[first]["method"])))
    told = (
        estimate,
        Cell("" if decision is None else limits_of(decision)),
        Cell(pairs_text(verdict), verdict.n),
        share(verdict.power),
        number(verdict.cost_ratio),
    )
    again = one_line(verdict.command)
    cells = (
        signed_word(verdict.word, f"{verdict.word}, not run" if word_of(claim, [verdict]) == NOT_RUN else ""),
        claim_cell(claim, verdict.reason),
        *(told if numbers else ()),
        paper_value(claim),
        Cell(again, copy=again),
    )
    word = word_of(claim, [verdict])
    name = linking.claim_anchor(full_name(paper, claim)) + (f"-{at}" if at else "")
    return Row(cells, tags_of(paper, word), faint=not verdict.n, anchor=name)


def pairs_text(verdict: Verdict) -> str:
    told = str(verdict.n) if verdict.n == verdict.wanted else f"{verdict.n} of {verdict.wanted}"
    return "" if not verdict.n else told + (" tasks" if verdict.tasks else "")


def deciding(verdict: Verdict) -> Decision | None:
    """The decision that made the verdict what it is; else the first that has an estimate."""
    known = [d for d in verdict.decisions if d.estimate is not None]
    return next((d for d in known if d.word == verdict.word), known[0] if known else None)


def estimate_cell(decision: Decision) -> Cell:
    """Not ±: a share's interval lies unevenly about it. Of an `every` decision there is no interval: what was seen."""
    if decision.estimate is None:
        return Cell("", None)
    text = f"{decision.estimate:.3g}"
    if decision.interval_low is not None and decision.interval_high is not None:
        ends = f"{decision.interval_low:.3g}", f"{decision.interval_high:.3g}"
        text = f"mean {text}, least to greatest {ends[0]} to {ends[1]}" if decision.every else f"{text} [{', '.join(ends)}]"
    return Cell(
        f"{text} {unit_of(decision)}".strip(), decision.estimate, title=f"{one_line(decision.what)}; {levels_of(decision)}"
    )


def levels_of(decision: Decision) -> str:
    """Of the interval that is shown, and of the wider one that refutes where it is another."""
    if decision.every:
        return "each value by itself"
    wider = f"; to refute {100 * decision.refuting_confidence:.4g} %"
    return f"{100 * decision.confidence:.4g} %" + (wider if decision.refuting_confidence > decision.confidence else "")


def unit_of(decision: Decision) -> str:
    return "" if decision.unit in ("", "1") else one_line(decision.unit)


def limits_of(decision: Decision) -> str:
    """> 0, < 0.01, 0.9 to 1.1; with the slack that is still undecided. Of single values the limits are allowed."""
    low, high = decision.low, decision.high
    more, less = ("≥", "≤") if decision.every else (">", "<")
    slack = f", slack {decision.slack:g}" if decision.slack else ""
    if math.isfinite(low) and math.isfinite(high):
        return f"{low:g} to {high:g}{slack}"
    if math.isfinite(low):
        return f"{more} {low:g}{slack}"
    return f"{less} {high:g}{slack}" if math.isfinite(high) else "anything"


def forest_figure(name: str, verdict: Verdict, at: int = 0) -> Figure | None:
    """Every decision of a verdict with its interval, where they share a unit; the shaded range is where the claim holds."""
    known = [d for d in verdict.decisions if d.estimate is not None]
    units = {d.unit for d in known}
    if not known or len(units) > 1:
        return None
    dots = []
    labels = short_labels([d.what for d in known])
    for d in known:
        assert d.estimate is not None
        low, high = (d.estimate if end is None else end for end in (d.interval_low, d.interval_high))
        tip = f"{one_line(d.what)}: {estimate_cell(d).text}, {d.word}"
        dots.append(charts.Dot(labels[d.what], d.estimate, low, high, d.word, tip))
    ranges = sorted({(d.low, d.high) for d in known})
    says = "; ".join(f"{one_line(d.what)}: {estimate_cell(d).text} ({d.word})" for d in known)
    spec = charts.forest(dots, unit_of(known[0]) or "estimate", ranges if len(ranges) == 1 else ())
    return Figure(f"forest-{linking.claim_anchor(name)}-{at}", f"{one_line(name)}: {verdict.word}", says, spec)


def short_labels(told: Sequence[str]) -> dict[str, str]:
    """What stands beside the interval of each: settings in brackets as (...), where they would push out what differs.

    The chart's tip, its text and its table have them in full.
    """
    shorter = [re.sub(r"\([^()]{16,}\)", "(…)", text) for text in told]
    return dict(zip(told, shorter if len(set(shorter)) == len(set(told)) else told, strict=True))


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
                    Cell(levels_of(d)),
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
                Column("of", "long"),
                Column("estimate", "right"),
                Column("has to be", "right"),
                Column("n", "right"),
                Column("confidence", "right", "of the interval shown; where refuting takes a wider one, its level too"),
                Column("p", "right", "of flipping the signs; of a pseudomedian over tasks, of Wilcoxon's signed ranks"),
                Column("effect size", "right"),
                Column("power", "right"),
                Column("seeds for 80 % power", "right"),
            )
            wider = any(not d.every and d.refuting_confidence > d.confidence for d in verdict.decisions)
            yield Table(
                f"decisions-{linking.claim_anchor(name)}-{at}",
                columns,
                tuple(rows),
                f"{one_line(name)}: {verdict.word}",
                (WIDER,) if wider else (),
            )
