"""`harness plugin new` and `check`: begin a package of your own, and see whether it keeps the contract."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import CommaList, Duration, example, json_option, option

if TYPE_CHECKING:
    from harness.testing.findings import Report

# Written out: who asks for help does not wait for the templates; tests/test_scaffold.py holds it to harness.scaffold.KINDS.
KINDS = ("activation", "norm", "layer", "learner", "task", "kernel")


@click.group("plugin", short_help="A method of your own: begin a package, check it.")
def plugin_group() -> None:
    """A plugin is a pip package with one entry point; nothing in the harness is forked or edited for it.

    \b
    harness plugin new my-norm --kind norm     a package that works, with its claim, tests, suite, CI and README
    cd my-norm && pip install -e .             from now on every command knows its names
    harness plugin check .                     the contract: seeds, dtypes, leaks, clocks, claims ...
    harness run suites/my-norm.yaml            all seeds against baselines, then the leaderboard
    """


@plugin_group.command("new", epilog=example("harness plugin new my-norm --kind norm"))
@click.argument("name")
@option("--kind", type=click.Choice(KINDS), default="activation", show_default=True, help="What the package begins with.")
@option("--into", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Folder that gets it.  [default: .]")
def new_command(name: str, kind: str, into: Path) -> None:
    """Write a package NAME that installs, passes its own tests and keeps the contract at once: then change it, step by step.

    \b
    activation   a function between the layers of the reference nets: build(place, params) -> nn.Module
    norm         what stands in front of each activation: the same
    layer        in place of every linear layer: build(in_features, out_features, params) -> nn.Module
    learner      its own architecture and training loop: solve(problem, ctx, params) -> solution
    task         data, split and metrics: load(params, ctx) -> Instance, score(part, solution, params, ctx) -> numbers
    kernel       one hot operation, checked against float64 and timed: run(inputs, case) -> Tensor

    NAME is the distribution's and the method's: lower-case words joined by '-'. A folder that is there is never written into.
    """
    from harness.cli.run import load_plugins
    from harness.scaffold import make_package

    made = make_package(name, kind, into, load_plugins())
    files = sorted(str(f.relative_to(made)) for f in made.rglob("*") if f.is_file())
    click.echo(f"{made}: a plugin that begins with {kind}; {len(files)} files")
    for file in files:
        click.echo(f"  {file}")
    click.echo(f"""
Next:
  cd {made} && pip install -e '.[test]'
  harness plugin check .
  harness run suites/{name}.yaml""")


@plugin_group.command("check", epilog=example("harness plugin check crrelu"))
@click.argument("plugin", required=False)
@option("--only", type=CommaList(), multiple=False, default=None, help="Methods, tasks or kernels by name; all unless given.")
@option("--timeout", type=Duration(), default="10m", show_default=True, help="For each method, task or kernel.")
@option("--list", "listing", is_flag=True, help="Say what each check asks, and stop.")
@json_option
def check_command(plugin: str | None, only: Sequence[str] | None, timeout: float, listing: bool, as_json: bool) -> None:
    """Check all that an installed PLUGIN declares; PLUGIN is a distribution, an entry point, or the folder of a pyproject.toml.

    Its declarations are imported in a fresh process; each method, task and kernel is then played on a small problem, several
    times, in a process that it may crash. Findings are on stdout, each with its check and the mend. Exit 3 where there is one.
    In a test of yours: `from harness.testing import check_method; check_method("my-norm")`.
    """
    from harness.testing.findings import CHECKS

    if listing:
        for check, asks in CHECKS.items():
            click.echo(f"{check:<16} {asks}")
        return
    if plugin is None:
        raise click.UsageError("name a PLUGIN: a distribution, an entry point, or a folder such as '.'")
    from harness.testing.plugins import examine_plugin

    reports = []
    for report in examine_plugin(
        plugin, only=only, timeout_s=timeout, say=lambda text: click.echo(f"examining {text}", err=True)
    ):
        reports.append(report)
        if not as_json:
            show(report)
    findings = [finding for report in reports for finding in report.findings]
    if as_json:
        click.echo(json.dumps([report.to_json() for report in reports]))
    else:
        click.echo(summary(reports))
    sys.exit(3 if findings else 0)


def show(report: Report) -> None:
    """A line for what was examined, one for each finding, one for what was skipped."""
    from harness.showing import one_line

    wrong = len({finding.check for finding in report.findings})
    click.echo(
        f"{'✗' if wrong else '✓'} {one_line(report.about)}: "
        f"{len(report.passed)} passed, {wrong} failed, {len(report.skipped)} skipped"
    )
    for finding in report.findings:
        click.echo(f"    {one_line(str(finding))}")
    for check, why in report.skipped.items():
        click.echo(f"    skipped {check}: {one_line(why)}")
    for note in report.notes:
        click.echo(f"    warning: {one_line(note)}")


def summary(reports: Iterable[Report]) -> str:
    found = sum(len(report.findings) for report in reports)
    return f"{found} finding{'s' if found != 1 else ''}" if found else "no findings: it keeps the contract"


COMMANDS = [plugin_group]
