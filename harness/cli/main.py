"""The group, its options from variables and `[tool.harness]`, and what each kind of ending exits with."""

from __future__ import annotations

import json
import sys
import tomllib
import traceback
from collections.abc import Mapping
from pathlib import Path
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
from harness.cli.options import reader_may_leave
from harness.cli.run import INTERRUPTED
from harness.errors import HarnessError
from harness.showing import visible_output

FAULT_OF_OURS = 70


class Commands(click.Group):
    """click ends with 1 where stdout's reader goes away; here that would mean that trials failed."""

    def invoke(self, ctx: click.Context) -> None:
        with reader_may_leave():
            super().invoke(ctx)


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
        # color: click takes escape sequences out where stdout is no terminal; here they are shown, wherever it leads.
        cli.main(arguments, prog_name="harness", standalone_mode=False, default_map=project_defaults(), color=True)
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
    except Exception:  # the last line of defence: say whose fault it is, keep the traceback
        traceback.print_exc()
        click.echo("This is a fault of harness, not yours; please report the lines above.", err=True)
        sys.exit(FAULT_OF_OURS)


def project_defaults(folder: Path | None = None) -> dict[str, Any]:
    """`[tool.harness]` of the nearest pyproject.toml as click's default map: command -> (command ->) parameter -> value."""
    start = folder or Path.cwd()
    file = next((f for place in (start, *start.parents) if (f := place / "pyproject.toml").is_file()), None)
    if file is None:
        return {}
    settings, known = read_settings(file), known_options(cli)
    for name in sorted(settings.keys() - known):
        from harness.catalogue import did_you_mean

        listed = ", ".join(sorted(known))
        raise HarnessError(
            f"{file}: tool.harness.{name}: no command has the option --{name}{did_you_mean(name, known)} ({listed})"
        )
    return defaults_of(cli, settings, file.parent)


def read_settings(file: Path) -> dict[str, Any]:
    """The table [tool.harness], {} where there is none. Raises HarnessError for what is no TOML."""
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("harness", {})
    except (OSError, ValueError) as exc:  # ValueError: no TOML, or no UTF-8
        raise HarnessError(f"{file}: cannot be read: {exc}") from exc
    if not isinstance(settings, dict):
        raise HarnessError(f"{file}: tool.harness: got {settings!r}; write a table, [tool.harness]")
    return settings


def options_of(command: click.Command) -> dict[str, click.Option]:
    """Options by the long name, without dashes."""
    options = [p for p in command.params if isinstance(p, click.Option)]
    return {name.removeprefix("--"): option for option in options for name in option.opts if name.startswith("--")}


def known_options(command: click.Command) -> set[str]:
    """The options of a command and of all below it."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return set(options_of(command)).union(*map(known_options, below))


def defaults_of(command: click.Command, settings: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The default map of a command: paths are relative to the settings' folder."""
    if isinstance(command, click.Group):
        return {name: defaults_of(below, settings, folder) for name, below in command.commands.items()}
    return {str(o.name): as_default(o, settings[name], folder) for name, o in options_of(command).items() if name in settings}


def as_default(option: click.Option, value: Any, folder: Path) -> Any:
    """A TOML value as click takes it."""
    if isinstance(option.type, click.Path):
        return str(folder / str(value))
    if isinstance(value, list) != option.multiple:  # `method = "relu"` and `seeds = [3, 5]` say what they mean
        return [value] if option.multiple else ",".join(map(str, value))
    return value
