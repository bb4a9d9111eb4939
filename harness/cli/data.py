"""`harness data list|fetch|verify`: which data are here, how to get those that are not, and whether they are whole."""

from __future__ import annotations

import contextlib
import fnmatch
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli import completing
from harness.cli.options import Duration, data_dir_option, example, json_option, option
from harness.errors import HarnessError, NothingSelected
from harness.showing import one_line, visible

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from harness.catalogue import Catalogue
    from harness.fetching import Watcher
    from harness.specs import Dataset


@click.group("data", short_help="The data sets: what is here, how to get the rest, is it whole.")
def data_group() -> None:
    """Data sets by name.

    Embedded and generated ones are always here. Others are looked for in the data folder, which you name once by
    HARNESS_DATA_DIR (or --data-dir, or `data-dir` in [tool.harness]). `list` says what is here, `fetch` downloads what can be
    downloaded, `verify` reads every byte. A run never downloads: what lacks its data is skipped with the command that gets it.
    """


@data_group.command("list", epilog=example("harness data list"))
@data_dir_option
@json_option
def list_command(data_dir: Path | None, as_json: bool) -> None:
    """List every data set: where it is, whether it is here, its size and licence.

    `here` says that its files lie where they should; whether they are the declared ones, `harness data verify` finds out.
    `fetch` stands where `harness data fetch NAME` can bring it; `absent`, where it has to be placed by hand, from the source
    that `harness describe NAME` names.
    """
    from harness.cli.run import load_plugins
    from harness.data import list_rows
    from harness.fetching import downloads_of

    catalogue = load_plugins()
    rows = list_rows(catalogue, data_dir)
    for row, offer in zip(rows, catalogue.datasets, strict=True):
        row["fetchable"] = bool(downloads_of(offer.spec))
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        state = "here" if row["present"] else "fetch" if row["fetchable"] else "absent"
        click.echo(f"{row['name']:<34} {row['where']:<10} {state:<7} "
                   f"{row['size_bytes'] / 1e6:8.2f} MB  {row['licence']}")  # fmt: skip


@data_group.command("fetch", epilog=example("harness data fetch fashion-mnist kmnist --dry-run"), short_help="Download sets.")
@click.argument("names", nargs=-1, required=True, shell_complete=completing.fetchable)
@option(
    "--data-dir", type=click.Path(path_type=Path, file_okay=False), default=None,
    help="The data folder; made where it is not there yet.",
)  # fmt: skip
@option(
    "--mirror", multiple=True, metavar="ADDRESS|FOLDER",
    help="Asked before the published addresses; it holds files under the names that --dry-run shows. May be given again.",
)  # fmt: skip
@option("--offline", is_flag=True, help="Ask no server; folders given by --mirror are still asked.")
@option("--stall", type=Duration(), default="30s", show_default=True, metavar="TIME", help="Silence to bear of a server.")
@option("--dry-run", is_flag=True, help="Show what would be fetched, from where, with SHA-256; ask no server.")
@json_option
def fetch_command(
    names: tuple[str, ...],
    data_dir: Path | None,
    mirror: tuple[str, ...],
    offline: bool,
    stall: float,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Download the data sets NAMES (patterns such as 'pmlb/*' too) into the data folder, checked by digest.

    \b
    - Nothing is believed: a file stands under its name only once it has the declared SHA-256.
    - What is here and whole is left alone; what is damaged is replaced.
    - A download that breaks off is gone on with by the same command; a silent server is left after --stall.
    - Addresses are tried in turn: each --mirror, then the published ones. Proxies: HTTPS_PROXY, NO_PROXY.
    - Of CIFAR the binary archives are taken, never the pickled ones; files are taken out by name and digest.

    Without a network: `--dry-run` lists addresses and digests; fetch the files elsewhere, and give their folder with
    `--mirror FOLDER --offline`. Exit: 5 where a set could not be brought, the others are then still tried.
    """
    from harness.cli.run import load_plugins
    from harness.data.files import data_folder
    from harness.errors import MissingError
    from harness.fetching import Settings, fetch

    sets = chosen(load_plugins(), names)
    folder = data_folder(data_dir)
    if dry_run:
        show_dry(sets, folder, mirror, as_json)
        return
    if folder is None:
        raise HarnessError(
            "no data folder is named; give --data-dir FOLDER, or set HARNESS_DATA_DIR (it is made where it is not)"
        )
    settings, rows = Settings(mirror, offline, stall), []
    with watching() as watcher:
        for set_ in sets:
            try:
                brought = fetch(set_, folder, settings, watcher)
            except MissingError as exc:
                rows.append({"name": set_.name, "state": "missing", "files": [], "error": str(exc)})
                watcher.say(str(exc))
                continue
            state = "fetched" if brought else "here"
            rows.append({"name": set_.name, "state": state, "files": [str(path) for path in brought], "error": ""})
    if as_json:
        click.echo(json.dumps(rows))
    else:
        for row in rows:
            click.echo(f"{row['name']:<34} {row['state']}")
    sys.exit(5 if any(row["state"] == "missing" for row in rows) else 0)


def chosen(catalogue: Catalogue, names: tuple[str, ...]) -> list[Dataset]:
    """Each set once. Raises HarnessError for a name that nobody offers, or that nothing has to or can be fetched for."""
    from harness.fetching import downloads_of
    from harness.fetching.bringing import why_not

    found: dict[str, Dataset] = {}
    for name in names:
        if any(sign in name for sign in "*?["):
            fitting = [o.spec for o in catalogue.datasets if fnmatch.fnmatchcase(o.name, name) and downloads_of(o.spec)]
            if not fitting:
                raise NothingSelected(f"no data set that can be fetched fits {name!r}; `harness data list` shows all")
            found |= {set_.name: set_ for set_ in fitting}
            continue
        set_ = catalogue.dataset(name).spec
        if not downloads_of(set_):
            raise HarnessError(f"data set {set_.name!r} {why_not(set_)}")
        found[set_.name] = set_
    return list(found.values())


def show_dry(sets: list[Dataset], folder: Path | None, mirror: tuple[str, ...], as_json: bool) -> None:
    """Every download, whether or not it is needed: what someone with a network has to bring."""
    from harness.fetching import Settings, downloads_of
    from harness.fetching.bringing import addresses

    rows: list[dict[str, Any]] = [
        {
            "set": set_.name,
            "name": download.name,
            "addresses": list(addresses(download, Settings(mirror))),
            "sha256": download.sha256 or None,
            "size_bytes": download.size_bytes if download.sha256 else None,
            "files": [str((folder or Path("DATA_DIR")) / file.path) for file in download.files.values()],
        }
        for set_ in sets
        for download in downloads_of(set_)
    ]
    if as_json:
        click.echo(json.dumps(rows))
        return
    for row in rows:
        size = f"{row['size_bytes'] / 1e6:.1f} MB" if row["size_bytes"] else "size unknown"
        click.echo(f"{row['set']}: {row['name']}  {size}  SHA-256 {row['sha256'] or 'not published; the content is checked'}")
        for line in (*(f"from {address}" for address in row["addresses"]), *(f"to   {path}" for path in row["files"])):
            click.echo(f"  {line}")


@contextlib.contextmanager
def watching() -> Iterator[Watcher]:
    """A bar where stderr is a terminal, lines where it is a file."""
    from harness.cli.tables import console

    err = console(err=True)
    if not err.is_terminal:
        yield Lines()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    with Progress(TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(),
                  console=err) as bar:  # fmt: skip
        yield Drawn(bar)


class Lines:
    """A line when a download starts, and for what went wrong."""

    def begin(self, name: str, total: int) -> None:
        click.echo(f"{name}: {total / 1e6:.1f} MB" if total else name, err=True)

    def advance(self, done: int) -> None: ...

    def say(self, text: str) -> None:
        click.echo(visible(text), err=True)


class Drawn:
    """A bar for each download."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        self.name, self.row = "", bar.add_task("", visible=False)

    def begin(self, name: str, total: int) -> None:
        if name != self.name:
            self.name, self.row = name, self.bar.add_task(one_line(name), total=total or None)

    def advance(self, done: int) -> None:
        self.bar.update(self.row, completed=done)

    def say(self, text: str) -> None:
        self.bar.console.print(visible(text), markup=False)


@data_group.command("verify", epilog=example("harness data verify digits"))
@click.argument("names", nargs=-1, shell_complete=completing.data_sets)
@data_dir_option
@json_option
def verify_command(names: tuple[str, ...], data_dir: Path | None, as_json: bool) -> None:
    """Check the digests of the data sets NAMES (all that are here, without names). Exit 3 where one is wrong.

    Every byte is read, and its SHA-256 compared with the declared one; `wrong` names the file, what was expected, what was
    found and the mend. `harness data fetch NAME` replaces what is damaged where the set can be fetched.
    """
    from harness.cli.run import load_plugins
    from harness.data import verify_rows
    from harness.fetching import downloads_of

    catalogue = load_plugins()
    rows = verify_rows(catalogue, data_dir, names)
    for row in rows:
        if row["error"] and downloads_of(catalogue.dataset(row["name"]).spec):
            row["error"] += f"; `harness data fetch {row['name']}` does"
    if as_json:
        click.echo(json.dumps(rows))
    else:
        for row in rows:
            click.echo(f"{row['name']:<34} {row['state']}{': ' + row['error'] if row['error'] else ''}")
    sys.exit(3 if any(row["state"] == "wrong" for row in rows) else 0)


COMMANDS = [data_group]
