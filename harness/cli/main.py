"""The group, and what each kind of ending exits with."""

from __future__ import annotations

import json
import sys
import traceback
from typing import Any

import click

from harness import API_VERSION, __version__
from harness.cli import (
    claims,
    compare,
    data,
    doctor,
    exchange,
    gathering,
    look,
    machine,
    nightly,
    plugin,
    registry,
    regress,
    report,
    run,
    show,
    upkeep,
)
from harness.cli.brought import Commands, PluginFault, brought_commands
from harness.cli.project import read_project
from harness.cli.run import INTERRUPTED
from harness.errors import HarnessError
from harness.showing import visible_output

FAULT_OF_OURS = 70


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="""\b
Start here:
  harness list methods          what can be compared
  harness run vision            run a shipped suite, see its leaderboard
  harness describe crrelu       parameters, paper, claims

\b
Exit codes: 0 all trials ok or already done; 1 some trials failed (their records are written); 2 a mistake you
can mend; 3 a gate closed; 4 nothing selected; 5 something needed is missing; 70 a fault of ours; 130 interrupted.
Every option is also a variable HARNESS_<OPTION> and a key of [tool.harness] in pyproject.toml.""",
)
@click.option("--version", "with_version", is_flag=True, help="Show the version and exit.")
@click.option("--json", "as_json", is_flag=True, help="With --version: versions of all that matters, for machines.")
@click.pass_context
def cli(ctx: click.Context, with_version: bool, as_json: bool) -> None:
    """Run the methods of many papers under one contract, and see which claims hold."""
    if with_version:
        click.echo(json.dumps(versions()) if as_json else f"harness, version {__version__}")
        ctx.exit()
    if as_json:
        raise click.UsageError("--json stands after a command, or with --version")
    if ctx.invoked_subcommand is None:
        raise click.exceptions.NoArgsIsHelpError(ctx)


def versions() -> dict[str, Any]:
    """What a report of a fault should name; no torch is imported."""
    import importlib.metadata
    import platform

    from harness.catalogue import load_catalogue
    from harness.records import SCHEMA_VERSION

    installed = {d.name.lower(): d.version for d in importlib.metadata.distributions() if d.name}
    catalogue = load_catalogue()
    return {
        "harness": __version__,
        "api_version": API_VERSION,
        "schema_version": SCHEMA_VERSION,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: installed.get(name) for name in ("torch", "numpy", "duckdb", "pyarrow")},
        "plugins": {plugin.id: plugin.version for plugin in catalogue.plugins},
        "broken_plugins": {plugin.id: plugin.error for plugin in catalogue.broken},
    }


for module in (
    run,
    look,
    registry,
    show,
    claims,
    compare,
    gathering,
    upkeep,
    exchange,
    machine,
    regress,
    report,
    nightly,
    data,
    doctor,
    plugin,
):
    for command in module.COMMANDS:
        cli.add_command(command)


@visible_output()
def main(arguments: list[str] | None = None) -> None:
    """The entry point of `harness`. Exits with the codes of the help text."""
    try:
        project = read_project(cli, brought_commands)
        # color: click takes escape sequences out where stdout is no terminal; here they are shown, wherever it leads.
        cli.main(
            arguments, prog_name="harness", standalone_mode=False, obj=project, default_map=project.defaults(cli), color=True
        )
    except click.exceptions.Exit as exc:
        sys.exit(exc.exit_code)
    except click.Abort:
        sys.exit(INTERRUPTED)
    except click.ClickException as exc:
        exc.show()
        sys.exit(2)
    except HarnessError as exc:
        click.echo(str(exc), err=True)
        sys.exit(exc.exit_code)
    except KeyboardInterrupt:
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except PluginFault as exc:
        traceback.print_exception(exc.__cause__)
        click.echo(
            f"This is a fault of the plugin {exc.plugin}; please report the lines above to those who wrote it.", err=True
        )
        sys.exit(FAULT_OF_OURS)
    except Exception:  # the last line of defence: say whose fault it is, keep the traceback
        traceback.print_exc()
        click.echo("This is a fault of harness, not yours; please report the lines above.", err=True)
        sys.exit(FAULT_OF_OURS)
