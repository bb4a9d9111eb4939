"""`harness export` and `harness import`: the registry in the formats of others, and theirs in the registry."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click

from harness.cli.options import example, json_option, option, registry_option
from harness.cli.registry import machine_of, open_registry, say_warnings
from harness.showing import one_line

STDOUT = Path("-")


@click.group("export", short_help="The registry in the formats of others.")
def export_group() -> None:
    """Write what the registry holds as CSV, Parquet, asv's result files or pytest-benchmark's JSON. Nothing in it changes."""


@click.group("import", short_help="Results of other tools into the registry.")
def import_group() -> None:
    """Record what another tool measured as attempts; once, however often it is taken in."""


def output_option(help_text: str, **settings: Any) -> Callable[..., Any]:
    return option("-o", "--output", type=click.Path(path_type=Path, **settings), required=True, help=help_text)


view_option = option(
    "--view",
    default="measurements",
    show_default=True,
    metavar="VIEW",
    help="A view of `harness query`: v_leaderboard, timings.",
)
# No variable: HARNESS_MACHINE is what this machine is called, which is the default, not a wish.
machine_option = click.option("--machine", default=None, help="Records of this machine. [default: this one]")


@contextmanager
def text_file(path: Path) -> Iterator[TextIO]:
    """A file to write text to, which appears when all is written; `-` is stdout."""
    from harness.exporting.writing import replacing

    if path == STDOUT:
        yield sys.stdout
        return
    with replacing(path) as aside, aside.open("w", encoding="utf-8", newline="") as file:
        yield file


def say_written(path: Path, what: str) -> None:
    """On stdout; on stderr where stdout holds the content itself."""
    click.echo(one_line(what if path == STDOUT else f"{path}: {what}"), err=path == STDOUT)


@export_group.command("csv", epilog=example("harness export csv --view v_leaderboard -o -"))
@output_option("The file; - for stdout.", dir_okay=False)
@view_option
@registry_option
def csv_command(output: Path, view: str, registry: Path) -> None:
    """Write a view as CSV, for spreadsheets.

    Text that begins with = + - @, a tab or a carriage return starts with an apostrophe, so that no spreadsheet computes it;
    control characters are escapes (\\x1b), lists are JSON, times are UTC, nothing is null. Numbers are as they are.
    """
    from harness.exporting.tables import read_view, write_csv

    opened = open_registry(registry)
    table = read_view(opened, view)
    with text_file(output) as file:
        write_csv(table, file)
    say_written(output, f"{table.num_rows} rows of {view}")
    say_warnings(opened)


@export_group.command("parquet", epilog=example("harness export parquet --view timings -o build/timings.parquet"))
@output_option("The file.", dir_okay=False)
@view_option
@registry_option
def parquet_command(output: Path, view: str, registry: Path) -> None:
    """Write a view as one Parquet file, every value and type as it is."""
    from harness.exporting.tables import read_view, write_parquet
    from harness.exporting.writing import replacing

    opened = open_registry(registry)
    table = read_view(opened, view)
    with replacing(output) as aside:
        write_parquet(table, aside)
    say_written(output, f"{table.num_rows} rows of {view}")
    say_warnings(opened)


@export_group.command("pytest-benchmark", epilog=example("harness export pytest-benchmark -o build/benchmarks.json"))
@output_option("The file; - for stdout.", dir_okay=False)
@machine_option
@option("--commit", default=None, metavar="ID", help="Attempts of this commit. [default: of the newest attempt]")
@registry_option
def to_pytest_benchmark_command(output: Path, machine: str | None, commit: str | None, registry: Path) -> None:
    """Write the latest timing and kernel attempts of a commit as pytest-benchmark's JSON.

    `pytest-benchmark compare FILE` reads it: a group is a task or a kernel's case with a region, its benchmarks are the
    methods or implementations, one for each fresh process. A file is of one machine and one commit.
    """
    from harness.exporting.pytest_benchmark import export_session
    from harness.provenance import machine_id

    opened = open_registry(registry)
    made = export_session(opened, machine or machine_of(opened, machine_id()), commit)
    with text_file(output) as file:
        json.dump(made.content, file, indent=1, allow_nan=False)
        file.write("\n")
    say_written(output, f"{made.benchmarks} benchmarks of commit {made.commit[:12] or '(none)'} on machine {made.machine}")
    for why, n in made.left_out.items():
        click.echo(f"left out: {n} attempts {why}", err=True)
    say_warnings(opened)


@export_group.command("asv", epilog=example("harness export asv -o .asv/results"))
@output_option("Folder of the result files: `results_dir` of asv.conf.json.", file_okay=False)
@option(
    "--repository", type=click.Path(path_type=Path, file_okay=False, exists=True), default=Path(), show_default=True,
    help="The git repository whose commits asv shows.",
)  # fmt: skip
@click.option("--machine", default=None, help="Only records of this machine. [default: all]")
@registry_option
def to_asv_command(output: Path, repository: Path, machine: str | None, registry: Path) -> None:
    """Write the registry as asv's result files, so that `asv publish`, `asv show` and `asv compare` need not run anything."""
    from harness.exporting.asv import export_asv

    opened = open_registry(registry)
    for line in export_asv(opened, output, repository, machine).lines():
        click.echo(one_line(line))
    say_warnings(opened)


@import_group.command(
    "pytest-benchmark", epilog=example("harness import pytest-benchmark tests/data/pytest-benchmark.json --dry-run")
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@click.option(
    "--machine", default=None, help="What its machine is called here. [default: a digest of what the file says of it]"
)
@option("--dry-run", is_flag=True, help="Check the file, say what it holds, and record nothing.")
@registry_option
@json_option
def from_pytest_benchmark_command(file: Path, machine: str | None, dry_run: bool, registry: Path, as_json: bool) -> None:
    """Record the benchmarks of FILE, made by `pytest --benchmark-json FILE`, as timing attempts with their raw samples.

    The task is a benchmark's group (its file where it has none), the method its test function. Where the samples were not
    saved, median, mean and the like become measurements. The same file again adds nothing.
    """
    from harness.exporting.pytest_benchmark import attempts_of, import_session, read_session
    from harness.registry import Registry

    session = read_session(file)
    if dry_run:
        attempts = attempts_of(session, machine)
        names = sorted({attempt.provenance.machine for attempt in attempts})
        shown = {"benchmarks": len(attempts), "machines": names, "began_at": session.began_at.isoformat()}
        told = f"{file}: {len(attempts)} benchmarks of {session.began_at.isoformat()}; nothing recorded"
        click.echo(json.dumps(shown) if as_json else one_line(told))
        return
    opened = Registry.open(registry)
    done = import_session(opened, session, machine)
    if as_json:
        click.echo(json.dumps(vars(done)))
    else:
        for line in done.lines():
            click.echo(one_line(line))
    say_warnings(opened)


COMMANDS = [export_group, import_group]
