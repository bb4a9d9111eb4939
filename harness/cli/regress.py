"""`harness regress`: what became slower, larger or worse; a gate."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import completing
from harness.cli.options import example, json_option, option, registry_option
from harness.cli.registry import machine_of, open_registry, say_warnings
from harness.cli.run import stopped_by_signals
from harness.errors import HarnessError, NothingSelected
from harness.showing import one_line

if TYPE_CHECKING:
    from harness.regress.interleaved import Subject

GATE_CLOSED = 3


class Day(click.ParamType[datetime]):
    """2026-09-01, or with a time; UTC unless it says otherwise."""

    name = "date"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r}: write a date, such as 2026-09-01", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class Parameter(click.ParamType[tuple[str, Any]]):
    """NAME=VALUE; the value as JSON, else as text."""

    name = "name=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not name or not equals:
            self.fail(f"{value!r}: write NAME=VALUE, such as hidden=1024", param, ctx)
        try:
            return name, json.loads(text)
        except ValueError:
            return name, text


@click.command(
    "regress",
    epilog=example("harness regress --interleaved HEAD~1..HEAD --kernel crrelu --implementation ours"),
    short_help="What became slower, larger or worse; a gate.",
)
@click.argument("suites", nargs=-1, metavar="[SUITE]...", shell_complete=completing.suites)
# No variable: HARNESS_MACHINE is what this machine is called, which is the default, not a wish.
@click.option("--machine", default=None, help="Records of this machine. [default: this one]")
@option("--since", type=Day(), default=None, help="Look at nights from this day on.")
@option("--interleaved", metavar="A..B", default=None, help="Measure two commits in turn, now; A.. is A against the folder.")
@option("--kernel", default=None, help="With --interleaved: the kernel.")
@option("--implementation", default="ours", show_default=True, help="With --interleaved: which of its implementations.")
@option("--elements", type=click.IntRange(0), default=None, help="With --interleaved: the case's size.")
@option("--layout", default=None, help="With --interleaved: contiguous, strided or unaligned.")
@option("--param", type=Parameter(), multiple=True, help="With --interleaved: a further parameter of the case.")
@option("--region", type=click.Choice(["forward", "backward", "forward_backward"]), default=None,
        help="With --interleaved: what is timed. [default: both passes]")  # fmt: skip
@option("--device", default="cpu", show_default=True, help="With --interleaved.")
@option("--dtype", default="float32", show_default=True, help="With --interleaved.")
@option("--threads", type=click.IntRange(1), default=1, show_default=True, help="With --interleaved.")
@option("--rounds", type=click.IntRange(2), default=8, show_default=True, help="With --interleaved: rounds of A B B A a pair.")
@option("--pairs", type=click.IntRange(1), default=4, show_default=True, help="With --interleaved: fresh pairs of processes.")
@registry_option
@json_option
def regress_command(
    suites: tuple[str, ...], machine: str | None, since: datetime | None, interleaved: str | None, kernel: str | None,
    implementation: str, elements: int | None, layout: str | None, param: tuple[tuple[str, Any], ...], region: str | None,
    device: str, dtype: str, threads: int, rounds: int, pairs: int, registry: Path, as_json: bool,
) -> None:  # fmt: skip
    """Judge the nights that the registry holds, of each SUITE or of all: time, memory and quality, one machine at a time.

    Confirmed: the history shows a step that still holds. Suspected: only the last night is worse; the command that would settle
    it is printed. Broken: what ended well now fails. A change that was meant is accepted with `harness annotate --expected`.
    With --interleaved, two commits are measured now, in turn, in warm processes of their own.
    Exit 3 where something regressed, 4 where there is no history yet.
    """
    if interleaved is None:
        judge_nights(suites, machine, since, registry, as_json)
        return
    if kernel is None or suites:
        raise HarnessError("regress: --interleaved measures one kernel: name it with --kernel, and no SUITE")
    from harness.regress.interleaved import Subject

    given = {"elements": elements, "layout": layout}
    case = {name: value for name, value in given.items() if value is not None} | dict(param)
    subject = Subject(kernel, implementation, case, region or "", device, dtype, threads)
    compare_commits(interleaved, subject, rounds, pairs, as_json)


def judge_nights(suites: tuple[str, ...], machine: str | None, since: datetime | None, registry: Path, as_json: bool) -> None:
    from harness.provenance import machine_id
    from harness.regress.judging import judge

    opened = open_registry(registry)
    found = judge(opened, suites, machine or machine_of(opened, machine_id()), since)
    say_warnings(opened)
    if as_json:
        click.echo(json.dumps(found.to_json()))
    if not found.judged:
        raise NothingSelected(no_history(suites, found.young, found.nights, found.machine))
    if not as_json:
        click.echo("\n".join(found.lines()))
    sys.exit(GATE_CLOSED if found.regressed else 0)


def no_history(suites: tuple[str, ...], young: int, nights: int, machine: str) -> str:
    """Why nothing could be judged, and what to run."""
    from harness.regress.nightly import LEAST_NIGHTS

    named = " ".join(suites) or "SUITE"
    have = f"{young} series have {nights} nights at most" if young else "there are no nights"
    return one_line(
        f"regress: no history on machine {machine}: {have}, {LEAST_NIGHTS + 1} are needed; run `harness nightly {named}` each "
        f"night (or `harness run {named} --force`), or compare two commits now with --interleaved A..B --kernel NAME"
    )


def compare_commits(between: str, subject: Subject, rounds: int, pairs: int, as_json: bool) -> None:
    from harness.regress.interleaved import Rounds, compare, two_versions

    with stopped_by_signals(), two_versions(Path.cwd(), between) as (a, b):
        found = compare(a, b, subject, Rounds(pairs, rounds))
    if as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        click.echo("\n".join(found.lines()))
    sys.exit(GATE_CLOSED if found.word == "slower" else 0)


COMMANDS = [regress_command]
