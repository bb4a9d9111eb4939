"""`harness claims`, the ledger; and what a suite fixes of claims, before it runs and in its plan."""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import example, json_option, option, registry_option
from harness.showing import finite, one_line

if TYPE_CHECKING:
    from harness.claims.evidence import Standing
    from harness.claims.fixing import Fixing, Protocol, Unfixed
    from harness.claims.verdicts import Decision, Verdict
    from harness.registry import Registry

GATE = 3
SHORT = 8  # hex digits of a digest, for people
ATTEMPTS_SHOWN, ATTEMPT_SHOWN = 3, 16  # how many, and hex digits of an id: the first twelve are its time
MINUTES = 16  # of a time as text
# A sign beside each colour: not everybody sees colours, and a log has none.
SIGNS: Mapping[str, tuple[str, str]] = {
    "supported": ("✓", "green"), "refuted": ("✗", "red"), "inconclusive": ("?", "yellow"), "not testable here": ("–", "dim"),
}  # fmt: skip
VERDICTS = "`harness claims CLAIM` shows one in full"


@dataclass(frozen=True)
class Told:
    """A claim of a suite on a device: what would be or is fixed, and how far it has come."""

    protocol: Protocol
    fixing: Fixing | None
    standing: Standing

    @property
    def line(self) -> str:
        p, s = self.protocol, self.standing
        size = f"{len(p.places)} cells x {len(p.seeds)} seed{'' if len(p.seeds) == 1 else 's'} on {p.device}"
        when = f"fixed {self.fixing.fixed_at:%Y-%m-%d %H:%M} UTC" if self.fixing else "not fixed yet: `harness run` fixes it"
        state = "complete" if s.counting == s.wanted else f"{s.counting} of {s.wanted} trials have an attempt since"
        state = f"; {state}" if self.fixing else ""
        older = f"; {s.older} ran before and do not count: `harness run --force` runs them again" if s.older else ""
        return f"claim {p.claim}: {p.digest[:SHORT]}, {size}, {when}{state}{older}"


def tell(found: Sequence[Protocol | Unfixed], registry: Registry, machine: str, torch: str) -> list[Told | Unfixed]:
    """What the suite's claims have come to, in its order."""
    from harness.claims.evidence import Where, standing
    from harness.claims.fixing import Unfixed, fixings

    known = {fixing.protocol.digest: fixing for fixing in fixings(registry)} if found else {}
    fixed = [(p, known.get(p.digest)) for p in found if not isinstance(p, Unfixed)]
    told = iter([Told(p, f, s) for (p, f), s in zip(fixed, standing(registry, fixed, Where(machine, torch)), strict=True)])
    return [p if isinstance(p, Unfixed) else next(told) for p in found]


def lines(told: Iterable[Told | Unfixed]) -> Iterator[str]:
    for one in told:
        if isinstance(one, Told):
            yield one.line
        else:
            where = f" on {one.device}" if one.device else ""
            yield f"claim {one.claim}: cannot be fixed{where}: {'; '.join(one.reasons)}"


def to_json(told: Iterable[Told | Unfixed]) -> list[dict[str, object]]:
    """For `harness plan --json`."""
    return [
        {
            "claim": one.protocol.claim, "device": one.protocol.device, "protocol": one.protocol.digest,
            "cells": len(one.protocol.places), "seeds": one.protocol.seeds, "extension": one.protocol.extension,
            "fixed_at": one.fixing.fixed_at.isoformat() if one.fixing else None, **asdict(one.standing),
        }
        if isinstance(one, Told) else asdict(one)
        for one in told
    ]  # fmt: skip


def fix_claims(
    found: Sequence[Protocol | Unfixed], registry: Registry, suite: str, run: Sequence[str], machine: str, torch: str
) -> None:
    """Fix what the suite's claims are judged on, and say so on stderr. run: the words behind `harness run`."""
    from harness.claims.fixing import Unfixed, fix

    fix([p for p in found if not isinstance(p, Unfixed)], registry, suite, run)
    for line in lines(tell(found, registry, machine, torch)):
        click.echo(line, err=True)


# The ledger -----------------------------------------------------------------------------------------------------------


@click.command(
    "claims", epilog=example("harness claims crrelu"), short_help="Which claims hold: verdicts with intervals, n and power."
)
@click.argument("names", nargs=-1, metavar="[PAPER|CLAIM]...")
@option("--check", is_flag=True, help=f"Exit {GATE} where a claim is refuted.")
@registry_option
@json_option
def claims_command(names: tuple[str, ...], check: bool, registry: Path, as_json: bool) -> None:
    """Judge the claims of all papers, of a PAPER, or one CLAIM (paper.claim), which is then shown in full.

    A claim is supported, refuted, inconclusive, or not testable here, on the attempts that started after it was fixed and on
    exactly its series; machines and torch versions are never pooled. No trial runs: what would settle a claim is said.
    """
    from harness.claims.judging import judge_claims
    from harness.cli.run import load_plugins
    from harness.registry import Registry
    from harness.suite import suites_of_claims

    catalogue = load_plugins()
    opened = Registry.open(registry, create=False)
    verdicts = judge_claims(opened, catalogue, names, suites_of_claims())
    if as_json:
        click.echo(json.dumps(finite([asdict(v) for v in verdicts])))
    elif names and all(name in catalogue.claims for name in names):
        for verdict in verdicts:
            draw_in_full(verdict)
    else:
        draw_ledger(verdicts)
    for warning in opened.warnings:
        click.echo(f"warning: {one_line(warning)}", err=True)
    if check and any(v.word == "refuted" for v in verdicts):
        sys.exit(GATE)


def draw_ledger(verdicts: Sequence[Verdict]) -> None:
    """One row a verdict, by paper; then why those that are open are open, and what would settle them."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from harness.cli.tables import console

    out = console()
    times = Counter(v.claim for v in verdicts)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("verdict", no_wrap=True)
    for name in ("claim", "estimate", "interval", "asked"):
        table.add_column(name, overflow="fold")
    for name in ("n", "power", "cost"):
        table.add_column(name, justify="right", no_wrap=True)
    paper = ""
    for v in verdicts:
        if v.paper != paper:
            paper = v.paper
            table.add_row("", Text(paper, style="bold"))
        sign, style = SIGNS[v.word]
        # Of one claim there is a verdict for each protocol and place: what tells them apart stands below its name.
        place = f"\n  {v.suite}, {v.machine}, {v.device}, torch {v.torch_version}\n  fixed {v.fixed_at[:MINUTES]}"
        which = place if times[v.claim] > 1 else ""
        texts = [v.claim.partition(".")[2] + which, *numbers_of(v)]
        table.add_row(Text(f"{sign} {v.word.removesuffix(' here')}", style=style), *map(Text, texts))
    out.print(table)
    counts = Counter[str](v.word for v in verdicts)
    out.print(", ".join(f"{counts[word]} {word}" for word in SIGNS if counts[word]) + f"; {VERDICTS}", markup=False)
    for word, text in notes(verdicts):
        sign, style = SIGNS[word]
        out.print(Text(f"{sign} {text}", style=style), soft_wrap=True)


def notes(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, str]]:
    """Why what is open is open, with what would settle it. Of several papers what never ran is told in one line."""
    open_ = [v for v in verdicts if v.word in ("inconclusive", "not testable here")]
    several = len({v.paper for v in verdicts}) > 1
    for v in open_:
        if v.attempts or not several:
            yield v.word, f"{v.claim}: {v.reason}" + (f"; `{v.command}`" if v.command else "")
    if several:
        idle = [v for v in open_ if v.word == "inconclusive" and not v.attempts]
        commands = ", ".join(f"`{c}`" for c in sorted({v.command for v in idle if v.command}))
        if idle:
            yield (
                "inconclusive",
                f"{len(idle)} {'has' if len(idle) == 1 else 'have'} not run" + (f": {commands}" if commands else ""),
            )
        if any(v.word == "not testable here" and not v.attempts for v in open_):
            yield "not testable here", "`harness claims PAPER` says what it would take"


def numbers_of(v: Verdict) -> list[str]:
    """Estimate, interval, range, n, power and cost of the decision that made the word: the first that has it."""
    same = [d for d in v.decisions if d.word == v.word] or list(v.decisions)
    cost = "" if v.cost_ratio is None else f"{ratio_text(v.cost_ratio)}x"
    if not same:
        return ["", "", "", "", "", cost]
    d = same[0]
    others = f" (1/{len(v.decisions)})" if len(v.decisions) > 1 else ""
    power = share_text(v.power)
    return [
        estimate_text(d),
        interval_of(d),
        range_text(d) + others,
        str(v.n) if v.n == v.wanted else f"{v.n}/{v.wanted}",
        power,
        cost,
    ]


def draw_in_full(v: Verdict) -> None:
    """All that is known of a verdict."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from harness.cli.tables import console

    out = console()
    sign, style = SIGNS[v.word]
    out.print(Text.assemble((v.claim, "bold"), "  ", (f"{sign} {v.word}", style), f": {v.reason}"), soft_wrap=True)
    facts = [
        ("says", v.says), ("paper", f"{v.value} ({v.place})"), ("source", v.source), ("scaled down", v.scaled_down),
        ("not verified", "; ".join(v.unverified)), ("where", where_text(v) if v.machine else ""),
        ("fixed", f"{v.fixed_at}, protocol {v.protocol[:SHORT]}, suite {v.suite}" if v.protocol else "not yet"),
        ("looked at", looked_at(v)), ("effect", "" if v.effect is None else f"{v.effect:g}"),
        ("power", power_text(v)), ("cost", cost_text(v)),
        ("attempts", attempts_text(v)), ("missing", "\n".join(v.missing)), ("elsewhere", "; ".join(v.others)),
        ("command", v.command),
    ]  # fmt: skip
    grid = Table.grid(padding=(0, 2))
    for name, text in facts:
        if text:
            grid.add_row(Text(name, style="dim"), Text(text, overflow="fold"))
    out.print(grid)
    if v.decisions:
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        levels = {d.confidence for d in v.decisions if not d.every}
        interval = f"{100 * max(levels):.3g} % interval" if len(levels) == 1 else "interval"
        for name in ("", "number", "estimate", interval, "asked"):
            table.add_column(name, overflow="fold")
        for name in ("n", "p", "d", "power"):
            table.add_column(name, justify="right", no_wrap=True)
        for d in v.decisions:
            sign, style = SIGNS[d.word]
            texts = (d.what, estimate_text(d), interval_of(d, level=len(levels) > 1), range_text(d), str(d.n))
            more = (number_text(d.p), number_text(d.effect_size), share_text(d.power))
            table.add_row(Text(sign, style=style), *map(Text, texts + more))
        out.print(table)
        wider = sorted({d.refuting_confidence for d in v.decisions if d.refuting_confidence > d.confidence})
        if wider:
            out.print(
                f"to refute, an interval at {100 * wider[-1]:.1f} % has to lie outside: one condition of several refutes all"
            )
    out.print()


def estimate_text(d: Decision) -> str:
    return "" if d.estimate is None else f"{number_text(d.estimate)}{unit_text(d.unit)}"


def unit_text(unit: str) -> str:
    return "" if unit in ("", "1") else f" {unit}"


def interval_of(d: Decision, level: bool = False) -> str:
    if d.interval_low is None or d.interval_high is None:
        return ""
    low, high = number_text(d.interval_low), number_text(d.interval_high)
    if d.every:
        return f"{low} to {high}"  # what was seen: no interval
    return f"[{low}, {high}]" + (f" at {100 * d.confidence:.3g} %" if level else "")


def range_text(d: Decision) -> str:
    """What is asked of the interval; of single values the limits are allowed."""
    more, less = (">=", "<=") if d.every else (">", "<")
    slack = f" (slack {d.slack:g})" if d.slack else ""
    if math.isinf(d.low) and math.isinf(d.high):
        return "anything"
    if math.isinf(d.high):
        return f"{more} {d.low:g}{slack}"
    return f"{less} {d.high:g}{slack}" if math.isinf(d.low) else f"{d.low:g} to {d.high:g}{slack}"


def number_text(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def share_text(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f} %"


def looked_at(v: Verdict) -> str:
    if v.tasks:
        return f"{v.n} of {v.wanted} tasks, {v.seeds} seed{'' if v.seeds == 1 else 's'} each"
    return f"{v.n} of {v.wanted} seeds"


def power_text(v: Verdict) -> str:
    if v.power is None:
        return ""
    return share_text(v.power) + (
        f"; {v.seeds_needed} seeds would give 80 %" if v.seeds_needed and v.seeds_needed > v.n else ""
    )


def cost_text(v: Verdict) -> str:
    if v.cost_ratio is None:
        return ""
    return f"{ratio_text(v.cost_ratio)} times the seconds of what it is compared with (quality trials, run beside others)"


def ratio_text(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def attempts_text(v: Verdict) -> str:
    shown = ", ".join(name[:ATTEMPT_SHOWN] for name in v.attempts[:ATTEMPTS_SHOWN])
    more = ", ..." if len(v.attempts) > ATTEMPTS_SHOWN else ""
    return f"{len(v.attempts)}: {shown}{more} (`harness logs ID` shows one, --json lists all)" if v.attempts else ""


def where_text(v: Verdict) -> str:
    return f"{v.machine}, {v.device}, {v.dtype}, {v.threads} thread{'s' * (v.threads > 1)}, torch {v.torch_version}"


COMMANDS = [claims_command]
