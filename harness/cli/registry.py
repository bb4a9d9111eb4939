"""`harness leaderboard`, `status`, `logs`, `query`: reading the registry."""

from __future__ import annotations

import csv
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import CommaList, data_dir_option, example, json_option, option, registry_option, short
from harness.errors import HarnessError, NothingSelected
from harness.showing import cell, finite, one_line

if TYPE_CHECKING:
    from harness.cli.boards import Form
    from harness.registry import Registry


def open_registry(path: Path) -> Registry:
    """An existing registry, for reading; what is damaged is said on stderr."""
    from harness.registry import Registry

    if not path.is_dir():
        raise HarnessError(f"{path}: no registry there; run a suite first (`harness run smoke`), or name one with --registry")
    return Registry.open(path, create=False)


def say_warnings(registry: Registry) -> None:
    for warning in registry.warnings:
        click.echo(f"warning: {one_line(warning)}", err=True)


@click.command(
    "leaderboard", epilog=example("harness leaderboard --suite vision"), short_help="Methods by task, with intervals."
)
@option("--suite", default=None, help="Only the trials of this suite, as it stands now.")
# No variable: HARNESS_MACHINE is what this machine is called, which is the default, not a wish.
@click.option("--machine", default=None, help="Records of this machine. [default: this one]")
@option("-t", "--task", "tasks", multiple=True, metavar="GLOB", help="Only these tasks, 'pmlb-*'.")
@option("-m", "--method", "methods", multiple=True, metavar="GLOB", help="Only these methods, and the baseline.")
@option("--baseline", default=None, metavar="METHOD", help="Compare with this one. [default: the suite's first baseline]")
@option("--device", "devices", type=CommaList(), default=(), help="Only cpu, or only cuda.")
@option("--svg", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Also draw them into this file.")
@option("--csv", "as_csv", is_flag=True, help="CSV on stdout, one line a method and task.")
@option("--markdown", is_flag=True, help="As Markdown tables, for a document.")
@registry_option
@data_dir_option
@json_option
def leaderboard_command(
    suite: str | None, machine: str | None, tasks: tuple[str, ...], methods: tuple[str, ...], baseline: str | None,
    devices: tuple[str, ...], svg: Path | None, as_csv: bool, markdown: bool, registry: Path, data_dir: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Rank methods on each task: mean, 95 % interval, difference to the baseline seed by seed, failures counted, cost.

    Ranks have ties: "2-4" is a method that at least one other surely beats, and that may stand anywhere from there to fourth.
    Several tasks with the same methods are pooled below their boards: interquartile mean, chance to be better than the
    baseline, mean rank, Wilcoxon's p. All formats say the same numbers.
    """
    from harness.cli.boards import draw_leaderboards
    from harness.cli.run import load_plugins
    from harness.leaderboard import Chosen, make_leaderboards
    from harness.pooling import make_pools
    from harness.provenance import machine_id

    form = the_one_form({"json": as_json, "csv": as_csv, "markdown": markdown})
    chosen = Chosen(tasks, methods, devices)

    opened = open_registry(registry)
    wanted, first, name = (None, None, "") if suite is None else chosen_by_suite(suite, registry, data_dir)
    against = first if baseline is None else load_plugins().method(baseline).ref
    here = machine_id()
    boards = make_leaderboards(opened, wanted, machine or here, against, chosen, with_ids=as_json)
    # Whose records there are is asked only where this machine has none: the question costs as much as the boards.
    if not boards and machine is None and (other := machine_of(opened, here)) != here:
        boards = make_leaderboards(opened, wanted, other, against, chosen, with_ids=as_json)
    if not boards and suite is not None and chosen == Chosen():
        require_none_of(opened, name, suite)
    if svg is not None:  # first: who reads the tables may leave in the middle
        from harness.picture import draw_svg

        svg.write_text(draw_svg(boards))
    if not boards and chosen != Chosen():
        raise NothingSelected("leaderboard: no board fits --task, --method and --device; `harness leaderboard` shows all")
    draw_leaderboards(boards, make_pools(boards), form)
    say_invalid(opened)
    say_warnings(opened)


def require_none_of(registry: Registry, name: str, suite: str) -> None:
    """Raises HarnessError where the registry has attempts of a suite that were not of its trials as they stand now.

    An empty table, or a picture of nothing over a good one, would say that nothing ran. suite: as the user named it.
    """
    (found,) = registry.query("SELECT count(*) AS n FROM attempts WHERE suite = $suite", {"suite": name}).to_pylist()
    if found["n"]:
        raise HarnessError(
            f"leaderboard: the {found['n']} attempts of {name} here are of other code, settings or data than it has now: "
            f"`harness run {shlex.quote(suite)}` runs it anew; `harness leaderboard` without --suite shows the boards of all"
        )


def the_one_form(wanted: Mapping[str, bool]) -> Form:
    """What the flags of a command ask for; a table where there is none. Raises HarnessError for two."""
    named = [form for form, asked in wanted.items() if asked]
    if len(named) > 1:
        raise HarnessError(f"--{' and --'.join(named)}: write one of them")
    return named[0] if named else "table"  # type: ignore[return-value]


def machine_of(registry: Registry, here: str) -> str:
    """This machine where it has records, else the registry's only machine; several others are for the user to choose."""
    rows = registry.query("SELECT machine, count(*) AS n FROM attempts GROUP BY machine ORDER BY machine").to_pylist()
    names = [row["machine"] for row in rows]
    if here in names or not names:
        return here
    if len(names) == 1:
        click.echo(f"records of machine {one_line(names[0])}; none of this one ({here})", err=True)
        return str(names[0])
    raise HarnessError(f"no records of this machine ({here}); choose one with --machine: {', '.join(map(one_line, names))}")


def chosen_by_suite(name: str, registry: Path, data_dir: Path | None) -> tuple[set[str], str | None, str]:
    """The trials of a suite, the method that it compares the others with, and the name that its records have."""
    from harness.cli.run import Choice, baseline_of, session

    choice = Choice((), (), (), None, None, None, None, False, False)
    with session(name, choice, registry, data_dir, None, read_only=True) as s:
        return {p.trial.trial_id for p in s.plan.planned}, baseline_of(s.suite), s.suite.name


@click.command("status", epilog=example("harness status --failed"), short_help="How the latest attempts ended.")
@option("--failed", is_flag=True, help="List each trial whose latest attempt did not end well.")
@registry_option
@json_option
def status_command(failed: bool, registry: Path, as_json: bool) -> None:
    """Count the latest attempts by suite and status; with --failed, list those that failed and why.

    Attempts that are annotated as invalid count for nothing here; as expected, they are listed with the reason.
    """
    opened = open_registry(registry)
    rows = opened.query(FAILED if failed else COUNTS).to_pylist()
    if as_json:
        click.echo(json.dumps(finite(rows), default=str))
    elif not rows:
        click.echo("no failed trials" if failed else "no attempts yet")
    elif failed:
        for row in rows:
            click.echo(failure_line(row))
    else:
        for row in rows:
            click.echo(f"{one_line(row['suite']):<16} {one_line(row['status']):<12} {row['n']:>6}")
    say_invalid(opened)
    say_warnings(opened)


LATEST = """
    FROM attempts WHERE annotation IS DISTINCT FROM 'invalid'
    QUALIFY row_number() OVER (PARTITION BY trial_id, machine ORDER BY attempt_id DESC) = 1
"""
COUNTS = (
    f"SELECT suite, status, count(*) AS n FROM (SELECT suite, status {LATEST}) GROUP BY suite, status ORDER BY suite, status"
)
FAILED = f"""
    SELECT * FROM (SELECT attempt_id, trial_id, suite, method, task, kind, seed, status, error, annotation, annotation_reason
                   {LATEST})
    WHERE status NOT IN ('ok', 'unsupported') ORDER BY attempt_id
"""
INVALID = "SELECT count(*) AS n FROM attempts WHERE annotation = 'invalid'"


def say_invalid(registry: Registry) -> None:
    """How many attempts of this registry count for nothing; asked only where something is annotated at all."""
    if not registry.annotations().num_rows:
        return
    count = registry.query(INVALID)["n"][0].as_py()
    if count:
        click.echo(f"{count} attempt{'s' if count > 1 else ''} annotated as invalid left out", err=True)


def failure_line(row: Mapping[str, Any]) -> str:
    """One failed attempt: its last line of error, and why it was expected where somebody said so."""
    error = (row["error"] or "").strip().splitlines()
    what = f"{short(row['method'])} on {short(row['task'])} {one_line(row['kind'])} {row['seed']}"
    expected = f" (expected: {one_line(row['annotation_reason'])})" if row["annotation"] == "expected" else ""
    return f"{row['attempt_id'][:16]}  {one_line(row['status']):<11} {what}: {error[-1] if error else ''}{expected}"


def latest(registry: Registry, prefix: str) -> dict[str, Any]:
    """The newest attempt whose id, or whose trial's id, starts with prefix."""
    found = registry.find(prefix)
    if not found:
        raise HarnessError(f"no attempt, trial or method {prefix!r} in {registry.path}; `harness status --failed` lists ids")
    return found[0]


@click.command("logs", epilog=example("harness logs 0193a7b2"), short_help="What a trial printed, and its error.")
@click.argument("trial")
@registry_option
def logs_command(trial: str, registry: Path) -> None:
    """Print the kept output of an attempt. TRIAL: the beginning of an attempt id or a trial id (its latest attempt)."""
    opened = open_registry(registry)
    row = latest(opened, trial)
    said = f" ({row['annotation']}: {one_line(row['annotation_reason'])})" if row["annotation"] else ""
    click.echo(f"{short(row['method'])} on {short(row['task'])} {one_line(row['kind'])} {row['seed']}: "
               f"{one_line(row['status'])}{said}", err=True)  # fmt: skip
    if row["log_dropped_bytes"]:
        click.echo(f"({row['log_dropped_bytes']} bytes in the middle were not kept)", err=True)
    log = row["log"] or ""
    click.echo(log, nl=not log.endswith("\n"))
    if row["error"]:
        click.echo(row["error"])
    say_warnings(opened)


@click.command(
    "query",
    epilog=example('harness query "SELECT status, count(*) FROM attempts GROUP BY status"'),
    short_help="Read-only SQL on the views.",
)
@click.argument("sql")
@option("--csv", "as_csv", is_flag=True, help="CSV on stdout.")
@registry_option
@json_option
def query_command(sql: str, as_csv: bool, registry: Path, as_json: bool) -> None:
    """Answer one SELECT over the views attempts, measurements, series, curves, timings, v_latest, v_leaderboard."""
    opened = open_registry(registry)
    table = opened.query(sql)
    if as_json:
        click.echo(json.dumps(finite(table.to_pylist()), default=str))
    elif as_csv:
        writer = csv.writer(sys.stdout)
        writer.writerow(map(cell, table.column_names))
        writer.writerows(map(cell, row.values()) for row in table.to_pylist())
    else:
        draw_table(table.column_names, [list(row.values()) for row in table.to_pylist()])
    say_warnings(opened)


def draw_table(names: list[str], rows: list[list[Any]]) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    from harness.cli.tables import console

    # Text, not str: names and values are not rich's markup.
    table = Table(*(Column(Text(name)) for name in names))
    for row in rows:
        table.add_row(*(Text("" if v is None else str(v)) for v in row))
    console().print(table)


COMMANDS = [leaderboard_command, status_command, logs_command, query_command]
