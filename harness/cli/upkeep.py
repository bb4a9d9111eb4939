"""`harness compact`, `verify` and `gc`: keeping a registry small and sound."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import Duration, example, json_option, option, registry_option
from harness.cli.registry import open_registry, say_warnings
from harness.errors import HarnessError
from harness.showing import one_line

if TYPE_CHECKING:
    from harness.registry.collecting import Garbage
    from harness.registry.verifying import Report

GATE_CLOSED = 3
MAX_LISTED = 20


@contextlib.contextmanager
def progress_of(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal's stderr; called with (done, of how many)."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


@click.command("compact", epilog=example("harness compact --all"), short_help="Fold small files into few.")
@option("--all", "everything", is_flag=True, help="Into as few files as the bound on one file allows.")
@registry_option
@json_option
def compact_command(everything: bool, registry: Path, as_json: bool) -> None:
    """Make few files of many, so that queries stay quick; `harness run` does it by itself where there are too many.

    No attempt is lost, whenever it is stopped. The files that were replaced stay for 7 days; then `harness run` deletes them.
    """
    opened = open_registry(registry)
    done = opened.compact(everything)
    if as_json:
        click.echo(json.dumps(vars(done)))
    else:
        click.echo(
            f"{done.files_before} files of {size(done.bytes_before)} are now {done.files_after} of {size(done.bytes_after)}; "
            f"{done.rows} attempts were written anew"
        )
    say_warnings(opened)


@click.command("verify", epilog=example("harness verify"), short_help="Read and check every file.")
@option("--no-move", is_flag=True, help="Leave damaged files where they are; change nothing in the folder.")
@registry_option
@json_option
def verify_command(no_move: bool, registry: Path, as_json: bool) -> None:
    """Read every file of a registry and name each that is damaged, truncated, foreign, missing or in conflict.

    Damaged files are moved to quarantine/, so that nobody uses them; all else stays as it is. Exit 3 where anything was found
    that means loss or doubt: all but what lies in quarantine and is whole elsewhere.
    """
    from harness.registry.files import FOLDERS, Layout
    from harness.registry.verifying import verify

    if not any((registry / name).exists() for name in ("FORMAT", *FOLDERS)):
        raise HarnessError(f"{registry}: no registry there; name one with --registry")
    with progress_of("verify") as progress:
        try:
            report = verify(Layout(registry), no_move, progress)
        except OSError as exc:
            raise HarnessError(f"{registry}: cannot be listed ({exc.strerror}); mend its permissions or its disk") from exc
    if as_json:
        click.echo(json.dumps({**vars(report), "findings": [vars(one) for one in report.findings], "sound": not report.closes}))
    else:
        tell_report(registry, report)
    sys.exit(GATE_CLOSED if report.closes else 0)


def tell_report(registry: Path, report: Report) -> None:
    for one in report.findings:
        click.echo(one_line(f"{one.kind}: {registry / one.path}: {one.what}; {one.mend}"))
    kinds = Counter(one.kind for one in report.findings)
    told = ", ".join(f"{n} {kind}" for kind, n in sorted(kinds.items())) or "nothing wrong"
    read = f"{report.files} files, {size(report.size_bytes)}, {report.attempts} rows of attempts"
    click.echo(one_line(f"{registry}: {told}; {read}"))


@click.command("gc", epilog=example("harness gc --grace 30d"), short_help="List, or delete, what is garbage.")
@option("--grace", type=Duration(), default="7d", show_default=True, help="Leave what is younger: 12h, 7d.")
@option("--yes", is_flag=True, help="Delete it. Without this nothing is deleted.")
@registry_option
@json_option
def gc_command(grace: float, yes: bool, registry: Path, as_json: bool) -> None:
    """List what a registry no longer needs: replaced files, leftovers of dead writers, artefacts that no attempt names.

    Never a record: no query answers differently afterwards. With --yes each file is judged again and then deleted at once.
    """
    opened = open_registry(registry)
    found = opened.collect(grace) if yes else opened.garbage(grace)
    if as_json:
        files = [{**vars(one), "why": one.why} for one in found]
        click.echo(json.dumps({"deleted": yes, "size_bytes": sum(one.size_bytes for one in found), "files": files}))
    else:
        tell_garbage(found, yes)
    say_warnings(opened)


def tell_garbage(found: Sequence[Garbage], deleted: bool) -> None:
    by_kind: dict[str, list[Garbage]] = {}
    for one in found:
        by_kind.setdefault(one.kind, []).append(one)
    for kind, those in by_kind.items():
        click.echo(f"{kind}: {len(those)} files, {size(sum(one.size_bytes for one in those))}: {those[0].why}")
        for one in those[:MAX_LISTED]:
            click.echo(f"  {one_line(one.path)}")
        if len(those) > MAX_LISTED:
            click.echo(f"  and {len(those) - MAX_LISTED} more (--json lists all)")
    total = f"{len(found)} files, {size(sum(one.size_bytes for one in found))}"
    if not found:
        click.echo("no garbage")
    else:
        click.echo(f"{total} deleted" if deleted else f"{total} may go; `harness gc --yes` deletes them")


COMMANDS = [compact_command, verify_command, gc_command]
