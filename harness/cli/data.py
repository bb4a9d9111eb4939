"""`harness data list|verify`: which data are here, and whether they are what their digests say."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from harness.cli.options import data_dir_option, example, json_option


@click.group("data", short_help="The data sets: what is here, and is it whole.")
def data_group() -> None:
    """Data sets by name: embedded ones are always here, others are looked for in the data folder."""


@data_group.command("list", epilog=example("harness data list"))
@data_dir_option
@json_option
def list_command(data_dir: Path | None, as_json: bool) -> None:
    """List every data set: where it is, whether it is here, its size and licence."""
    from harness.cli.run import load_plugins
    from harness.data import list_rows

    rows = list_rows(load_plugins(), data_dir)
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        click.echo(f"{row['name']:<34} {row['where']:<10} {'here' if row['present'] else 'absent':<7} "
                   f"{row['size_bytes'] / 1e6:8.2f} MB  {row['licence']}")  # fmt: skip


@data_group.command("verify", epilog=example("harness data verify digits"))
@click.argument("names", nargs=-1)
@data_dir_option
@json_option
def verify_command(names: tuple[str, ...], data_dir: Path | None, as_json: bool) -> None:
    """Check the digests of the data sets NAMES (all that are here, without names). Exit 3 where one is wrong."""
    from harness.cli.run import load_plugins
    from harness.data import verify_rows

    rows = verify_rows(load_plugins(), data_dir, names)
    if as_json:
        click.echo(json.dumps(rows))
    else:
        for row in rows:
            click.echo(f"{row['name']:<34} {row['state']}{': ' + row['error'] if row['error'] else ''}")
    sys.exit(3 if any(row["state"] == "wrong" for row in rows) else 0)


COMMANDS = [data_group]
