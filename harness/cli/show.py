"""`harness show`: a method in pictures of characters, or one attempt whole."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import completing
from harness.cli.options import example, json_option, option, registry_option, short
from harness.cli.registry import latest, open_registry, say_invalid, say_warnings
from harness.errors import HarnessError
from harness.showing import finite, one_line

if TYPE_CHECKING:
    from harness.claims.verdicts import Verdict
    from harness.cli.tables import Column
    from harness.portrait import Place, Portrait
    from harness.registry import Registry

FAILURES_SHOWN = 5
NOTES_SHOWN = 8
CURVES_OF = 20_000  # attempts: no index has the curves, so in a larger registry they are drawn where they are asked for


@click.command(
    "show", epilog=example("harness show crrelu"), short_help="A method in pictures, or all that is known of an attempt."
)
@click.argument("name", shell_complete=completing.methods)
# No variable: HARNESS_MACHINE is what this machine is called, which is the default, not a wish.
@click.option("--machine", default=None, help="Of a method: records of this machine. [default: this one]")
@option("--curves/--no-curves", default=None, help=f"Of a method: its learning curves. [default: below {CURVES_OF:,} attempts]")
@registry_option
@json_option
def show_command(name: str, machine: str | None, curves: bool | None, registry: Path, as_json: bool) -> None:
    """Show a method by its name, or an attempt by the beginning of its id.

    Of a method, a line a task: rank, interval, difference to the baseline, the learning curve and the history of its series
    over all invocations as small pictures, cost; then failures, the verdicts on its paper's claims, and how to run it again. Of
    an attempt: all of its record, with what was said of it since.
    """
    from harness.portrait import make_portrait
    from harness.provenance import machine_id

    opened = open_registry(registry)
    machines = opened.query(MACHINES, {"method": name})["machine"].to_pylist()
    if not machines:
        row = latest(opened, name)
        click.echo(json.dumps(finite(row), default=str, indent=None if as_json else 2))
        say_warnings(opened)
        return
    here = machine or the_machine(machines, machine_id())
    if curves is None:
        curves = opened.query("SELECT count(*) AS n FROM attempts")["n"][0].as_py() <= CURVES_OF
    portrait = make_portrait(opened, name, here, lambda paper: verdicts_of(opened, paper), curves=curves)
    if portrait is None:
        raise HarnessError(f"{one_line(name)} has no results that count; `harness status --failed` lists what failed")
    if as_json:
        click.echo(json.dumps(finite(dataclasses.asdict(portrait)), default=str))
    else:
        draw_portrait(portrait)
        if not curves:
            click.echo("curves are left out; --curves reads them", err=True)
        say_invalid(opened)
    say_warnings(opened)


MACHINES = """
SELECT DISTINCT coalesce(machine, '') AS machine FROM attempts
WHERE kind = 'quality' AND (method = $method OR split_part(method, '/', -1) = $method) ORDER BY machine
"""


def the_machine(names: Sequence[str], here: str) -> str:
    """This one where the method ran here, else the only one where it did; several others are for the user to choose."""
    if here in names:
        return here
    if len(names) > 1:
        raise HarnessError(f"no records of this machine ({here}); choose one with --machine: {', '.join(map(one_line, names))}")
    click.echo(f"records of machine {one_line(names[0])}; none of this one ({here})", err=True)
    return names[0]


def verdicts_of(registry: Registry, paper: str) -> Sequence[Verdict]:
    """Of a paper's claims; none where its plugin is not installed here."""
    from harness.claims.judging import judge_claims
    from harness.cli.run import load_plugins
    from harness.suite import suites_of_claims

    catalogue = load_plugins()
    named = [name for name in catalogue.claims if name.partition(".")[0] == paper]
    return judge_claims(registry, catalogue, named, suites_of_claims()) if named else ()


# Drawing --------------------------------------------------------------------------------------------------------------


def draw_portrait(portrait: Portrait) -> None:
    from harness.cli.claims import draw_ledger
    from harness.cli.tables import console, print_columns, say

    out = console()
    say(out, [one_line(portrait.method) + (f", of paper {one_line(portrait.paper)}" if portrait.paper else ""), ""])
    for title, places in by_metric(portrait.places):
        hidden = print_columns(out, title, place_columns(places))
        say(out, [f"not shown: {', '.join(hidden)} (--json has all)"] if hidden else [])
        say(out, notes_of(places))
        out.print()
    if not portrait.places:
        for row in portrait.metrics:
            say(out, [metric_line(row)])
    say(out, failure_lines(portrait.places))
    if portrait.verdicts:
        draw_ledger(portrait.verdicts)
    commands = dict.fromkeys(line for place in portrait.places for line in place.rerun)
    say(out, [f"run again: {line}" for line in commands])


def by_metric(places: Sequence[Place]) -> list[tuple[str, list[Place]]]:
    """One table a metric, device and baseline: what one heading can say."""
    found: dict[str, list[Place]] = {}
    for place in places:
        arrow = {"higher": " ↑", "lower": " ↓"}.get(place.metric.better, "")
        shared = place.shared
        where = f"{shared['device']} {shared['dtype']} | threads {shared['threads']} | torch {shared['torch_version']}"
        against = f" | baseline {place.baseline}" if place.baseline and place.baseline != place.row.method else ""
        found.setdefault(one_line(f"{place.metric.name}{arrow}{against} | {where}"), []).append(place)
    return list(found.items())


def place_columns(places: Sequence[Place]) -> list[Column]:
    from harness.cli.boards import megabytes, rank_cell
    from harness.cli.compare import places as task_labels
    from harness.cli.tables import Column, bar, interval_cell, number, spark

    rows = [place.row for place in places]
    tasks = task_labels(
        [{"task": p.task, **{k: v for k, v in p.shared.items() if k not in ("task", "task_params")}} for p in places]
    )
    labels = [
        task + (f" {row.method[row.method.index('(') :]}" if "(" in row.method else "")
        for task, row in zip(tasks, rows, strict=True)
    ]
    ranks = [f"{rank_cell(p.row)} of {p.of}" if p.row.rank else "-" for p in places]
    made = [
        Column("task", [one_line(label) for label in labels], right=False),
        Column("rank", ranks),
        Column("95 % interval", [bar(p.row.interval, *p.scale) for p in places], right=False, drop=3),
        Column("mean", [interval_cell(row.interval) for row in rows]),
    ]
    if any(row.difference for row in rows):
        made.append(Column("- baseline", [interval_cell(row.difference, signed=True) for row in rows], drop=1))
    if any(place.curve for place in places):
        made.append(Column("curve", [spark(p.curve.mean) if p.curve else "" for p in places], right=False, drop=2))
    if any(len(place.history) > 1 for place in places):
        nights = [spark([n.mean for n in p.history if n.mean is not None]) for p in places]
        made.append(Column("history", nights, right=False, drop=2))
    made += [
        Column("params", ["" if row.params is None else f"{row.params:,}" for row in rows], drop=6),
        Column("MB", [megabytes(row.peak_bytes) for row in rows], drop=7),
        Column("solve s", [number(row.solve_s) for row in rows], drop=5),
        Column("ok/fail", [f"{row.n_ok}/{row.n_failed}" for row in rows]),
    ]
    return made


def notes_of(places: Sequence[Place]) -> list[str]:
    """What the pictures show, in digits."""
    told = [line for place in places for line in (*curve_lines(place), *history_lines(place))]
    more = [f"and {len(told) - NOTES_SHOWN} more (--json has all)"] if len(told) > NOTES_SHOWN else []
    scaled = "interval: on the scale of its board, from the lowest end of any method's interval to the highest"
    return [scaled, *told[:NOTES_SHOWN], *more]


def curve_lines(place: Place) -> list[str]:
    curve = place.curve
    if curve is None or len(curve.mean) < 2:
        return []
    ends = f"{curve.mean[0]:.4g} at {curve.at[0]:,.6g} {curve.clock} to {curve.mean[-1]:.4g} at {curve.at[-1]:,.6g}"
    return [one_line(f"curve: {place.task}{net_of(place)}: {ends}, mean over seeds on the test part")]


def history_lines(place: Place) -> list[str]:
    nights = place.history
    if len(nights) < 2:
        return []
    means = " to ".join("-" if night.mean is None else f"{night.mean:.4g}" for night in (nights[0], nights[-1]))
    days = f"{nights[0].started_at[:10]} to {nights[-1].started_at[:10]}"
    failed = sum(night.n_failed for night in nights)
    return [one_line(f"history: {place.task}{net_of(place)}: {len(nights)} invocations, {days}: {means}, {failed} failed")]


def net_of(place: Place) -> str:
    net = place.shared["net"]
    return f" ({net['arch']})" if net else ""


def failure_lines(places: Sequence[Place]) -> list[str]:
    failures = [(place, failure) for place in places for failure in place.failures]
    lines = [
        one_line(f"{f.status}: {place.task}{net_of(place)}, seed {f.seed}: {f.error} (harness logs {f.attempt_id[:16]})")
        for place, f in failures[:FAILURES_SHOWN]
    ]
    more = len(failures) - FAILURES_SHOWN
    return [*lines, *([f"and {more} more failed (`harness status --failed`)"] if more > 0 else []), *([""] if lines else [])]


def metric_line(row: Mapping[str, Any]) -> str:
    mean, sd = ("-" if row[name] is None else format(row[name], form) for name, form in (("mean", ".6g"), ("sd", ".3g")))
    where = f"{short(row['task']):<20} {one_line(row['quantity']):<18} {one_line(row['part']):<11} {one_line(row['device']):<5}"
    return f"{where} mean {mean} {one_line(row['unit'])}  sd {sd}  n {row['n']}"


COMMANDS = [show_command]
