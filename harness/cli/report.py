"""`harness report`: the registry as static pages."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.options import example, json_option, option, registry_option

if TYPE_CHECKING:
    from harness.catalogue import Catalogue


@click.command("report", epilog=example("harness report -o build/report"), short_help="Static pages that open from a disk.")
@option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the pages; a report that is there is replaced.",
)
@option(
    "--compare",
    nargs=2,
    metavar="A B",
    default=None,
    help="Methods, kernels, commits, days or machines of the compare page. [default: the best two of each board]",
)
@option(
    "--results", type=click.Path(path_type=Path, dir_okay=False), default=None,
    help="Also write leaderboards, claims and kernels into this Markdown file.",
)  # fmt: skip
@registry_option
@json_option
def report_command(output: Path, compare: tuple[str, str] | None, results: Path | None, registry: Path, as_json: bool) -> None:
    """Write what the registry holds as HTML: leaderboards, claims, methods, comparisons, kernels, nights, machines.

    Open index.html in any browser; no page asks for anything from elsewhere. The same records give the same bytes.
    """
    from harness.claims.judging import judge_claims
    from harness.cli.registry import open_registry, say_warnings
    from harness.cli.run import load_plugins
    from harness.report import make_report
    from harness.suite import suites_of_claims

    opened = open_registry(registry)
    catalogue = load_plugins()
    again = ["harness", "report", "-o", str(output), "--results", str(results), "--registry", str(registry)]
    document = None if results is None else (results, shlex.join(again))
    papers = [offer.spec for offer in catalogue.papers]
    verdicts = judge_claims(opened, catalogue, (), suites_of_claims())
    made = make_report(opened, output, papers, declared_methods(catalogue), verdicts, compare, document)
    say_warnings(opened)
    if as_json:
        click.echo(json.dumps({**vars(made), "folder": str(made.folder)}))
    else:
        click.echo(
            f"{made.folder / 'index.html'}: {made.pages} pages and {made.charts} charts of {made.attempts:,} attempts, "
            f"{made.size_bytes / 1e6:.2f} MB"
        )


def declared_methods(catalogue: Catalogue) -> dict[str, dict[str, str]]:
    """What plugins say of their methods, by reference."""
    return {
        o.ref: {
            "kind": getattr(o.spec, "kind", "learner"),
            "summary": o.spec.summary,
            "source": o.spec.source,
            "paper": catalogue.paper_of(o.plugin),
        }
        for o in catalogue.methods
    }


COMMANDS = [report_command]
