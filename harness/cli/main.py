"""The group, its options from variables and `[tool.harness]`, and what each kind of ending exits with."""

from __future__ import annotations

import sys
import tomllib
import traceback
from pathlib import Path
from typing import Any

import click

from harness import __version__
from harness.cli import data, look, registry, run
from harness.errors import HarnessError

FAULT_OF_OURS = 70
INTERRUPTED = 130


@click.group(
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
@click.version_option(__version__, prog_name="harness")
def cli() -> None:
    """Run the methods of many papers under one contract, and see which claims hold."""


for module in (run, look, registry, data):
    for command in module.COMMANDS:
        cli.add_command(command)


def main(arguments: list[str] | None = None) -> None:
    """The entry point of `harness`. Exits with the codes of the help text."""
    try:
        cli.main(arguments, prog_name="harness", standalone_mode=False, default_map=project_defaults())
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
    except BrokenPipeError:  # `harness query ... | head`
        sys.stderr.close()
        sys.exit(0)
    except Exception:  # the last line of defence: say whose fault it is, keep the traceback
        traceback.print_exc()
        click.echo("This is a fault of harness, not yours; please report the lines above.", err=True)
        sys.exit(FAULT_OF_OURS)


def project_defaults(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """`[tool.harness]` of the nearest pyproject.toml, for every command: {"registry": "..."} -> {command: {...}}."""
    start = folder or Path.cwd()
    for place in (start, *start.parents):
        file = place / "pyproject.toml"
        if file.is_file():
            with file.open("rb") as opened:
                try:
                    found = tomllib.load(opened)
                except tomllib.TOMLDecodeError as exc:
                    raise HarnessError(f"{file}: {exc}") from exc
            options = {k.replace("-", "_"): v for k, v in found.get("tool", {}).get("harness", {}).items()}
            return {name: options for name in cli.commands} if options else {}
    return {}
