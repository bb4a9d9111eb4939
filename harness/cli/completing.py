"""What the Tab key offers for arguments: shipped suites and suite files, data sets, all that has a name. Never an error."""

from __future__ import annotations

from pathlib import Path

import click


def suites(ctx: click.Context, param: click.Parameter, start: str) -> list[str]:
    """Names of shipped suites, suite files here, and the folders on the way to others."""
    from harness.suite.shipped import SUFFIXES, shipped_suites

    names = [path.stem for path in shipped_suites() if path.stem.startswith(start)]
    folder, _, _ = start.rpartition("/")
    here = Path(f"{folder}/") if folder or start.startswith("/") else Path()
    try:
        found = sorted(here.iterdir())
    except OSError:
        return names
    shown = [f"{path}/" if path.is_dir() else str(path) for path in found if path.is_dir() or path.suffix in SUFFIXES]
    return names + [name for name in shown if name.startswith(start) and (start or not name.startswith("."))]


def data_sets(ctx: click.Context, param: click.Parameter, start: str) -> list[str]:
    """Every set of every plugin that loads."""
    from harness.catalogue import load_catalogue

    return [offer.name for offer in load_catalogue().datasets if offer.name.startswith(start)]


def fetchable(ctx: click.Context, param: click.Parameter, start: str) -> list[str]:
    from harness.catalogue import load_catalogue
    from harness.fetching import downloads_of

    return [o.name for o in load_catalogue().datasets if o.name.startswith(start) and downloads_of(o.spec)]


def methods(ctx: click.Context, param: click.Parameter, start: str) -> list[str]:
    from harness.catalogue import load_catalogue

    return sorted({offer.name for offer in load_catalogue().methods if offer.name.startswith(start)})


def names(ctx: click.Context, param: click.Parameter, start: str) -> list[str]:
    """All that `harness describe` knows, but for data sets of a collection (pmlb/...), which would bury the rest."""
    from harness.catalogue import load_catalogue

    catalogue = load_catalogue()
    kinds = (catalogue.methods, catalogue.tasks, catalogue.papers, catalogue.tracks, catalogue.kernels, catalogue.datasets,
             catalogue.commands)  # fmt: skip
    found = {offer.name for offers in kinds for offer in offers}
    return sorted(name for name in found if name.startswith(start) and ("/" not in name or "/" in start))
