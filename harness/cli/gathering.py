"""`harness merge` and `annotate`: what a registry takes in besides attempts."""

from __future__ import annotations

import contextlib
import getpass
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.options import example, json_option, option, registry_option, short
from harness.cli.registry import open_registry, say_warnings
from harness.cli.upkeep import progress_of
from harness.errors import HarnessError, NothingSelected

if TYPE_CHECKING:
    from harness.registry import Registry
    from harness.registry.annotations import Kind
    from harness.registry.merging import Report

DOUBTFUL = 3
MAX_LISTED = 20


@click.command("merge", epilog=example("harness merge registry/reference"), short_help="Add what others hold.")
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...", type=click.Path(path_type=Path))
@option("--dry-run", is_flag=True, help="Say what would be copied, and copy nothing.")
@registry_option
@json_option
def merge_command(sources: tuple[Path, ...], dry_run: bool, registry: Path, as_json: bool) -> None:
    """Add to --registry what the registries SOURCE hold: a set union, in any order, as often as you like.

    Sources are only read. A file that is damaged here is replaced by the healthy copy; one that is damaged there is named and
    not copied. Attempts that differ under one id are both kept and named. Stopped in the middle, the same command finishes.
    Exit 3 where damage or a conflict was met; all that is healthy is merged all the same.
    """
    from harness.registry import Registry

    refuse_mistakes(registry, sources)
    target = Registry.open(registry, create=not dry_run)
    reports = {}
    for source in sources:
        with progress_of(source.name) as progress:
            reports[source] = target.merge(source, dry_run, progress)
    if not dry_run:
        target.compact()  # many small files came at once: so that the next query need not open each
    if as_json:
        click.echo(json.dumps({str(source): as_row(report) for source, report in reports.items()}))
    else:
        for source, report in reports.items():
            click.echo(told(source, report, dry_run))
    say_warnings(target)
    sys.exit(DOUBTFUL if any(report.doubtful for report in reports.values()) else 0)


def refuse_mistakes(target: Path, sources: Iterable[Path]) -> None:
    """All mistakes of the command line at once, before the first copy."""
    from harness.registry.merging import check_source

    mistakes = []
    for source in sources:
        try:
            check_source(target, source)
        except HarnessError as exc:
            mistakes.append(str(exc))
    if mistakes:
        raise HarnessError("\n".join(mistakes))


def as_row(report: Report) -> dict[str, Any]:
    return {**vars(report), "conflicts": [vars(c) for c in report.conflicts], "doubtful": report.doubtful}


def told(source: Path, report: Report, dry_run: bool) -> str:
    """For people: one line, then one for each thing that somebody should look at."""
    copied = ", ".join(f"{n} {folder}" for folder, n in report.copied.items()) or "nothing"
    lines = [
        f"{source}: {'would copy' if dry_run else 'copied'} {copied} ({report.copied_bytes / 1e6:.1f} MB); "
        f"{sum(report.skipped.values())} files were here already; {report.attempts} attempts are new"
    ]
    lines += [f"  restored: {name}, which was damaged here: check the disk" for name in report.restored]
    lines += [f"  left out: {text}" for text in report.damaged]
    lines += [f"  conflict: {conflict.explain()}" for conflict in report.conflicts]
    lines += [f"  conflict: {kind} {name} is told differently by {' and '.join(files)}; all are kept"
              for kind, name, files in report.fact_conflicts]  # fmt: skip
    lines += [f"  missing: blob {name}; merge the registry where it was made" for name in report.missing]
    return "\n".join(lines)


@click.command(
    "annotate",
    epilog=example('harness annotate 0193a7b2 --invalid "the machine was throttled"'),
    short_help="Say that attempts are invalid, or failures expected.",
)
@click.argument("attempts", nargs=-1, metavar="[ATTEMPT]...")
# No variables for these: what is said of an attempt is no setting.
@click.option("--invalid", metavar="REASON", help="Take them out of every ranking; their trials run anew.")
@click.option("--expected", metavar="REASON", help="The failure is known: gates and `status --failed` say so.")
@click.option("--withdraw", metavar="REASON", help="Lift what was said of them before.")
@click.option("--where", metavar="SQL", help="Only those for which this holds, without ATTEMPT of all: \"status = 'oom'\".")
@click.option("--author", default=None, help="Who says so. [default: git's user.name, else the login name]")
@option("--dry-run", is_flag=True, help="List them and say nothing of them.")
@registry_option
@json_option
def annotate_command(
    attempts: tuple[str, ...], invalid: str | None, expected: str | None, withdraw: str | None, where: str | None,
    author: str | None, dry_run: bool, registry: Path, as_json: bool,
) -> None:  # fmt: skip
    """Say something of attempts afterwards. Nothing is changed or deleted: an annotation is a file of its own.

    ATTEMPT: the beginning of an attempt's id, or of a trial's id (all of its attempts). The newest annotation of an attempt is
    in force; --withdraw lifts it.
    """
    kind, reason = the_one_kind({"invalid": invalid, "expected": expected, "withdrawn": withdraw})
    if not attempts and where is None:
        raise HarnessError("annotate: name attempts (`harness status --failed` lists ids), or choose them with --where")
    from harness.registry import Registry

    opened = open_registry(registry)
    if not dry_run:
        opened = Registry.open(registry)
    chosen = choose_attempts(opened, attempts, where)
    if kind == "withdrawn":
        said = set(opened.annotations()["attempt_id"].to_pylist())
        chosen = [row for row in chosen if row["attempt_id"] in said]
        if not chosen:
            raise NothingSelected("annotate: nothing is said of these attempts that could be withdrawn")
    if not dry_run:
        opened.annotate([row["attempt_id"] for row in chosen], kind, reason, author or user_name())
    if as_json:
        ids = [row["attempt_id"] for row in chosen]
        click.echo(json.dumps({"attempts": ids, "kind": kind, "reason": reason, "written": not dry_run}))
    else:
        tell_annotated(chosen, kind, reason, dry_run)
    say_warnings(opened)


def the_one_kind(given: dict[str, str | None]) -> tuple[Kind, str]:
    from harness.registry.annotations import MAX_REASON_CHARACTERS

    said = {kind: reason for kind, reason in given.items() if reason is not None}
    if len(said) != 1:
        raise HarnessError("annotate: write exactly one of --invalid REASON, --expected REASON and --withdraw REASON")
    ((kind, reason),) = said.items()
    if not reason.strip() or len(reason) > MAX_REASON_CHARACTERS:
        raise HarnessError(f"annotate: the reason has {len(reason.strip())} characters; write 1 to {MAX_REASON_CHARACTERS}")
    return kind, reason.strip()  # type: ignore[return-value]


def choose_attempts(registry: Registry, prefixes: Iterable[str], where: str | None) -> list[dict[str, Any]]:
    """The attempts that are meant, oldest first. Raises HarnessError that names all that is unknown or ambiguous."""
    rows = registry.query(
        "SELECT attempt_id, trial_id, method, task, seed, status FROM attempts ORDER BY attempt_id"
    ).to_pylist()
    chosen, mistakes = set[str](), []
    for prefix in prefixes:
        try:
            chosen |= begun_with(prefix, rows, registry.path)
        except HarnessError as exc:
            mistakes.append(str(exc))
    if mistakes:
        raise HarnessError("\n".join(mistakes))
    if where is not None:
        # The line break: a condition may end in a comment.
        found = set(registry.query(f"SELECT attempt_id FROM attempts WHERE ({where}\n)")["attempt_id"].to_pylist())
        chosen = found & (chosen if prefixes else {row["attempt_id"] for row in rows})
        if not chosen:
            raise NothingSelected(f"annotate: --where {where!r}: none of the attempts is so")
    return [row for row in rows if row["attempt_id"] in chosen]


def begun_with(prefix: str, rows: Iterable[dict[str, Any]], path: Path) -> set[str]:
    """The one attempt whose id begins so, or all attempts of the one trial. Raises HarnessError for none and for several."""
    attempts, trials = set[str](), dict[str, set[str]]()
    for row in rows:
        if row["attempt_id"].startswith(prefix):
            attempts.add(row["attempt_id"])
        if row["trial_id"].startswith(prefix):
            trials.setdefault(row["trial_id"], set()).add(row["attempt_id"])
    if prefix in attempts or prefix in trials:  # a whole id is what it says, also if another one begins with it
        return {prefix} if prefix in attempts else trials[prefix]
    several = sorted(attempts) + sorted(trials)
    if not several:
        raise HarnessError(f"annotate: no attempt or trial {prefix!r} in {path}; `harness status --failed` lists ids")
    if len(several) > 1:
        listed = ", ".join(several[:3]) + (", ..." if len(several) > 3 else "")
        raise HarnessError(f"annotate: {prefix!r} begins {len(several)} ids ({listed}); write more of it")
    return attempts or trials[several[0]]


def tell_annotated(chosen: list[dict[str, Any]], kind: Kind, reason: str, dry_run: bool) -> None:
    for row in chosen[:MAX_LISTED]:
        click.echo(
            f"{row['attempt_id'][:16]}  {short(row['method'])} on {short(row['task'])} seed {row['seed']}: {row['status']}"
        )
    if len(chosen) > MAX_LISTED:
        click.echo(f"and {len(chosen) - MAX_LISTED} more")
    verb = "would be" if dry_run else "are"
    click.echo(f"{len(chosen)} attempts {verb} {kind}: {reason}")
    if kind != "withdrawn" and not dry_run:
        named = " ".join(row["attempt_id"] for row in chosen[:MAX_LISTED])
        click.echo(f"to lift it: harness annotate {named} --withdraw REASON", err=True)


def user_name() -> str:
    """git's user.name, else the login name, else nobody."""
    with contextlib.suppress(OSError):
        said = subprocess.run(["git", "config", "user.name"], capture_output=True, text=True, check=False).stdout.strip()
        if said:
            return said
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return "nobody"


COMMANDS = [merge_command, annotate_command]
