"""`harness nightly`: run anew, export, regress, report; one summary, one exit code."""

from __future__ import annotations

import contextlib
import json
import shlex
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import completing
from harness.cli.options import data_dir_option, example, json_option, option, registry_option
from harness.cli.run import Choice, run_suite, session, stopped_by_signals

if TYPE_CHECKING:
    from harness.nightly import Ended, Night, Step, SuiteNight
    from harness.records import Provenance

ANEW = Choice((), (), (), None, None, None, None, retry_failed=False, force=True)


@click.command(
    "nightly",
    epilog=example("harness nightly smoke --summary build/summary.md"),
    short_help="Run suites anew, export, regress, report.",
)
@click.argument("suites", nargs=-1, required=True, metavar="SUITE...", shell_complete=completing.suites)
@registry_option
@option(
    "-o", "--output", type=click.Path(path_type=Path, file_okay=False), default=Path(".asv"), show_default=True,
    help="Folder for asv's result files (results/) and the report (report/).",
)  # fmt: skip
@option("--summary", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Also write the summary to this file.")
@option(
    "--repository", type=click.Path(path_type=Path, file_okay=False, exists=True), default=Path(), show_default=True,
    help="The git repository whose commits asv shows.",
)  # fmt: skip
@option("-j", "--jobs", type=click.IntRange(min=1), default=None, help="Trials at once. [default: cores / threads]")
@data_dir_option
@json_option
def nightly_command(
    suites: tuple[str, ...], registry: Path, output: Path, summary: Path | None, repository: Path, jobs: int | None,
    data_dir: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Run every trial of each SUITE again, also what is done; then export to asv, look for regressions, make the report.

    A part that fails does not stop the others; Ctrl-C does, and keeps what is finished. The summary, in Markdown for a chat or
    an issue, goes to stdout, all else to stderr. Exit: the worst of the parts: 70, 130, 5, 3, 2, 4, 1, 0.
    """
    from harness.exporting.writing import replacing
    from harness.nightly import render

    with stopped_by_signals():
        night = spend_night(suites, registry, output, repository, jobs, data_dir)
        text = render(night)
        if summary is not None:
            with replacing(summary) as aside:
                aside.write_text(text, encoding="utf-8")
        told = {**asdict(night), "code": night.code, "regressed": night.regressed}
        click.echo(json.dumps(told, default=str) if as_json else text, nl=as_json)
    sys.exit(night.code)


def spend_night(
    suites: tuple[str, ...], registry: Path, output: Path, repository: Path, jobs: int | None, data_dir: Path | None
) -> Night:
    from harness.nightly import Night, run_steps

    began_at, began = datetime.now(UTC), time.monotonic()
    ran: list[Provenance] = []
    read: list[SuiteNight] = []
    steps: list[Step] = [(f"run {name}", partial(run_anew, name, registry, jobs, data_dir, ran)) for name in suites]
    steps += [
        ("export", partial(export_to_asv, registry, output / "results", repository)),
        ("regress", partial(look_for_regressions, registry, ran)),
        ("report", partial(write_report, registry, output / "report")),
    ]
    parts = run_steps(steps, tell=lambda name: click.echo(f"nightly: {name}", err=True))
    parts += run_steps([("read back", partial(read_back, registry, ran, read))])
    for part in parts:
        if part.ended is not None and part.ended.trace:
            click.echo(part.ended.trace, err=True)
    command = ["harness", "nightly", *suites, "--registry", str(registry)]
    return Night(began_at, time.monotonic() - began, parts, tuple(read), ran[0] if ran else None, tuple(command))


def run_anew(name: str, registry: Path, jobs: int | None, data_dir: Path | None, ran: list[Provenance]) -> Ended:
    """All trials of a suite. ran: gets where it ran, as soon as that is known; what was recorded can then be read."""
    from harness.nightly import Ended

    with to_stderr(), session(name, ANEW, registry, data_dir, jobs, read_only=False) as s:
        ran.append(s.provenance)
        return Ended(run_suite(s, yes=True, as_json=False))


def export_to_asv(registry: Path, results: Path, repository: Path) -> Ended:
    from harness.cli.registry import open_registry
    from harness.exporting.asv import export_asv
    from harness.nightly import Ended
    from harness.provenance import git_state

    commit, _ = git_state(repository)
    if not commit:
        return Ended(0, (f"no asv: {repository.absolute()} is in no git repository with commits; name one with --repository",))
    return Ended(0, tuple(export_asv(open_registry(registry), results, repository, None).lines()))


def look_for_regressions(registry: Path, ran: list[Provenance]) -> Ended:
    """Of the suites that ran, on the machine where they did."""
    from harness.cli.registry import open_registry
    from harness.nightly import GATE, Ended
    from harness.regress import judge

    if not ran:
        return Ended(0, ("no suite has run, so there is nothing new to judge",))
    names = sorted({where.suite for where in ran})
    verdicts = judge(open_registry(registry), names, ran[0].machine)
    command = shlex.join(["harness", "regress", *names, "--machine", ran[0].machine, "--registry", str(registry)])
    return Ended(GATE if verdicts.regressed else 0, (*verdicts.lines(), f"the same again: {command}"))


def write_report(registry: Path, folder: Path) -> Ended:
    """As `harness report` does. Without the libraries that draw it, the night says so and is no worse for it."""
    from harness.cli.report import report_command
    from harness.errors import MissingError
    from harness.nightly import Ended

    try:
        with to_stderr():
            report_command.main(["-o", str(folder), "--registry", str(registry)], "harness report", standalone_mode=False)
    except MissingError as exc:
        return Ended(0, (f"no report: {exc}",))
    except click.ClickException as exc:
        return Ended(2, (exc.format_message(),))
    return Ended(0, (f"{folder / 'index.html'}",))


def read_back(registry: Path, ran: list[Provenance], read: list[SuiteNight]) -> Ended:
    """What this night recorded, suite by suite, from the registry itself. read: gets it."""
    from harness.cli.registry import open_registry
    from harness.nightly import Ended, read_suite

    if ran:
        opened = open_registry(registry)
        read += [read_suite(opened, where) for where in ran]
    return Ended(0)


@contextlib.contextmanager
def to_stderr() -> Iterator[None]:
    """Stdout is the summary's."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


COMMANDS = [nightly_command]
