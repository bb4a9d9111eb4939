"""`harness list` and `describe`: what the installed plugins offer. No torch is imported."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from harness.cli import completing
from harness.cli.options import example, json_option
from harness.errors import HarnessError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from harness.catalogue import Catalogue, Offer

KINDS = ("papers", "tracks", "tasks", "methods", "kernels", "datasets", "suites", "claims", "commands", "plugins")


HIDDEN = ("name", "run", "load", "score", "build", "solve", "shape", "inputs", "reference", "flops", "bytes", "data")


@click.command("list", epilog=example("harness list methods"), short_help="What the installed plugins offer.")
@click.argument("kind", type=click.Choice(KINDS))
@json_option
def list_command(kind: str, as_json: bool) -> None:
    """List everything of one KIND, one line each: name, where it comes from, what it is."""
    from harness.cli.run import load_plugins

    rows: list[dict[str, Any]] = ROWS[kind](load_plugins())
    if as_json:
        click.echo(json.dumps(rows))
        return
    widths = [max((len(str(row[k])) for row in rows), default=0) for k in (rows[0] if rows else {})]
    for row in rows:
        cells = [str(v).ljust(w) for v, w in zip(row.values(), widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def method_rows(catalogue: Catalogue) -> list[dict[str, str]]:
    return [
        {
            "name": o.name,
            "kind": getattr(o.spec, "kind", "learner"),
            "track": getattr(o.spec, "track", "any with a reference net"),
            "from": o.plugin.id,
            "summary": o.spec.summary,
        }
        for o in sorted(catalogue.methods, key=lambda o: (o.plugin.id, o.name))
    ]


def kernel_rows(catalogue: Catalogue) -> list[dict[str, str]]:
    return [
        {
            "name": o.name,
            "implementations": ", ".join(i.name for i in o.spec.implementations),
            "from": o.plugin.id,
            "summary": o.spec.summary,
        }
        for o in sorted(catalogue.kernels, key=lambda o: (o.plugin.id, o.name))
    ]


def paper_rows(catalogue: Catalogue) -> list[dict[str, Any]]:
    return [
        {
            "name": o.name,
            "arxiv": o.spec.arxiv,
            "year": o.spec.year,
            "claims": f"{len(o.spec.claims)} claims",
            "title": o.spec.title,
        }
        for o in catalogue.papers
    ]


def claim_rows(catalogue: Catalogue) -> list[dict[str, Any]]:
    seeds = {name: f"{c.seeds} seeds" if c.rule else "not testable here" for name, (_, c) in catalogue.claims.items()}
    return [{"name": name, "seeds": seeds[name], "says": c.says} for name, (_, c) in sorted(catalogue.claims.items())]


def suite_rows(_: Catalogue) -> list[dict[str, str]]:
    from harness.suite import shipped_suites

    return [{"name": path.stem, "path": str(path)} for path in shipped_suites()]


def plugin_rows(catalogue: Catalogue) -> list[dict[str, str]]:
    whole = [{"name": p.id, "version": p.version, "state": "ok", "home": str(p.home)} for p in catalogue.plugins]
    return whole + [{"name": b.id, "version": b.version, "state": b.error, "home": b.value} for b in catalogue.broken]


def track_rows(catalogue: Catalogue) -> list[dict[str, str]]:
    return [
        {"name": o.name, "clocks": ",".join(o.spec.clocks), "from": o.plugin.id, "summary": o.spec.summary}
        for o in catalogue.tracks
    ]


def task_rows(catalogue: Catalogue) -> list[dict[str, str]]:
    return [{"name": o.name, "track": o.spec.track, "from": o.plugin.id, "summary": o.spec.summary} for o in catalogue.tasks]


def dataset_rows(catalogue: Catalogue) -> list[dict[str, str]]:
    return [
        {"name": o.name, "where": o.spec.where, "licence": o.spec.licence, "summary": o.spec.summary}
        for o in catalogue.datasets
    ]


def command_rows(catalogue: Catalogue) -> list[dict[str, str]]:
    return [{"name": o.name, "from": o.plugin.id, "summary": o.spec.summary} for o in catalogue.commands]


ROWS: dict[str, Callable[[Catalogue], list[dict[str, Any]]]] = {
    "methods": method_rows,
    "kernels": kernel_rows,
    "papers": paper_rows,
    "claims": claim_rows,
    "commands": command_rows,
    "suites": suite_rows,
    "plugins": plugin_rows,
    "tracks": track_rows,
    "tasks": task_rows,
    "datasets": dataset_rows,
}


@click.command(
    "describe", epilog=example("harness describe crrelu"), short_help="Parameters, defaults, paper, claims of one thing."
)
@click.argument("name", shell_complete=completing.names)
@json_option
def describe_command(name: str, as_json: bool) -> None:
    """Say all that is declared of NAME: a method, kernel, task, track, paper, data set, command or claim."""
    from harness.cli.run import load_plugins

    found = describe(name, load_plugins())
    if as_json:
        click.echo(json.dumps(found, default=str))
        return
    for i, (title, facts) in enumerate(found.items()):
        click.echo(("\n" if i else "") + title)
        for key, value in facts.items():
            click.echo(f"  {key:<12} {value}")


def describe(name: str, catalogue: Catalogue) -> dict[str, dict[str, Any]]:
    """Title -> facts, for everything of that name. Raises HarnessError where there is none."""
    from harness.catalogue import did_you_mean

    found: dict[str, dict[str, Any]] = {}
    offers: dict[str, tuple[Offer[Any], ...]] = {
        "method": catalogue.methods,
        "kernel": catalogue.kernels,
        "task": catalogue.tasks,
        "track": catalogue.tracks,
        "paper": catalogue.papers,
        "dataset": catalogue.datasets,
        "command": catalogue.commands,
    }
    for kind, known in offers.items():
        for offer in known:
            if name in (offer.name, offer.ref):
                found[f"{kind} {offer.ref}"] = facts_of(offer.spec, catalogue.paper_of(offer.plugin), catalogue)
    if name in catalogue.claims:
        offer, claim = catalogue.claims[name]
        found[f"claim {name}"] = facts_of(claim, offer.spec.name, catalogue)
    if not found:
        names = [o.name for known in offers.values() for o in known] + list(catalogue.claims)
        raise HarnessError(f"nothing is called {name!r}{did_you_mean(name, names)} (`harness list KIND` lists all of a kind)")
    return found


def facts_of(spec: Any, paper: str, catalogue: Catalogue) -> dict[str, Any]:
    """The declared fields that say something, in the declaration's order."""
    facts: dict[str, Any] = {"paper": paper} if paper else {}
    for name in spec.__dataclass_fields__:
        value = getattr(spec, name)
        if name in HIDDEN or value in (None, "", ()):
            continue
        if name == "params":
            for field_name, text in parameter_lines(value).items():
                facts[f"params.{field_name}"] = text
        elif name == "implementations":
            for one in value:
                facts[one.name] = f"{one.kind}, on {' and '.join(one.devices)}  {one.summary}".rstrip()
        elif name == "claims":
            for claim in value:
                facts[f"{paper}.{claim.name}"] = claim.says
        elif name == "metrics":
            facts["metrics"] = ", ".join(f"{m.name} ({m.unit}, {m.better})" for m in value)
        else:
            facts[name] = value
    return facts


def parameter_lines(model: type[BaseModel]) -> dict[str, str]:
    lines = {}
    for name, field in model.model_fields.items():
        kind = getattr(field.annotation, "__name__", None) if "[" not in str(field.annotation) else None
        lines[name] = (
            f"{kind or str(field.annotation).replace('typing.', '')} = {field.default!r}  {field.description or ''}".rstrip()
        )
    return lines


COMMANDS = [list_command, describe_command]
