"""Commands that plugins bring: behind our own, found by name, imported only when they are called or asked for their help."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from harness.cli.options import reader_may_leave
from harness.cli.project import Project
from harness.errors import HarnessError, PluginError

if TYPE_CHECKING:
    from harness.catalogue import Catalogue, Offer
    from harness.specs import Command

CALLED = "harness.cli.brought.called"  # in click's meta: the offer that is being called


class PluginFault(Exception):
    """A plugin's command raised what is no mistake of its user: the cause is its own. plugin: "dist:name"."""

    def __init__(self, plugin: str) -> None:
        super().__init__(plugin)
        self.plugin = plugin


class Commands(click.Group):
    """Our own commands, then those of plugins. No plugin is asked for a command of our own, so none can break or hide it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return super().list_commands(ctx) + [name for name, _ in self.brought(ctx)]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        own = super().get_command(ctx, name)
        if own is not None:
            return own
        offer = find_brought([o for _, o in self.brought(ctx)], name)
        if offer is None:
            return None
        if ctx.resilient_parsing:  # completion: a name will do, and nothing may go wrong
            return click.Command(name, short_help=offer.spec.summary)
        ctx.meta[CALLED] = offer
        command = import_command(offer)
        if isinstance(ctx.obj, Project) and ctx.default_map is not None:
            ctx.default_map[name] = ctx.obj.defaults(command)
        return command

    def brought(self, ctx: click.Context) -> list[tuple[str, Offer[Command]]]:
        """Each plugin's command with the name that calls it: the bare one where it is nobody else's, else "dist/name"."""
        from harness.cli.run import warn_of_broken

        catalogue = load_commands()
        offers = (catalogue if ctx.resilient_parsing else warn_of_broken(catalogue)).commands
        bare = [o.name for o in offers] + list(self.commands)
        return sorted(((o.name if bare.count(o.name) == 1 else o.ref, o) for o in offers), key=lambda pair: pair[0])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Ours and theirs apart; theirs by what they declare, so that help imports none of their code."""
        for title, rows in (
            ("Commands", [(name, command.get_short_help_str(limit=80)) for name, command in sorted(self.commands.items())]),
            ("Commands of plugins", [(name, offer.spec.summary) for name, offer in self.brought(ctx)]),
        ):
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> None:
        """click ends with 1 where stdout's reader goes away; here that would mean that trials failed."""
        with reader_may_leave():
            try:
                super().invoke(ctx)
            except (HarnessError, click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
                raise
            except Exception as exc:  # a plugin's own code: name it
                if CALLED not in ctx.meta:
                    raise
                raise PluginFault(ctx.meta[CALLED].plugin.id) from exc


def load_commands() -> Catalogue:
    """Of the catalogue the commands alone: `harness --help` need not check all claims."""
    from harness.catalogue import load_catalogue

    return load_catalogue(kinds=("commands",))


def find_brought(offers: Sequence[Offer[Command]], name: str) -> Offer[Command] | None:
    """The one offer of that name, bare or "dist/name"; None where there is none. Raises HarnessError for several."""
    from harness.catalogue import find

    return find(offers, name, "command") if any(name in (o.name, o.ref) for o in offers) else None


def import_command(offer: Offer[Command]) -> click.Command:
    """The click command that an offer names, its options also read from variables. Raises PluginError with whose it is."""
    from harness.worker.resolving import resolve

    by = f"command {offer.name!r} of the plugin {offer.plugin.id}"
    try:
        command = resolve(offer.spec.run, by)
    except PluginError:
        raise
    except Exception as exc:  # a plugin's own code
        raise PluginError(f"{by} cannot be imported: {type(exc).__name__}: {exc}") from exc
    if not isinstance(command, click.Command):
        raise PluginError(f"{by}: {offer.spec.run!r} is a {type(command).__name__}; name a click.Command or a click.Group")
    read_from_variables(command)
    return command


def read_from_variables(command: click.Command) -> None:
    """HARNESS_<OPTION> for every long option that names no variable of its own."""
    for param in command.params:
        long = next((name for name in param.opts if name.startswith("--")), None)
        if isinstance(param, click.Option) and long and param.envvar is None:
            param.envvar = "HARNESS_" + long.removeprefix("--").replace("-", "_").upper()
    if isinstance(command, click.Group):
        for below in command.commands.values():
            read_from_variables(below)


def brought_commands() -> list[click.Command]:
    """Those of all plugins that can be imported: for what must not end where one plugin's code is broken."""
    found = []
    for offer in load_commands().commands:
        with contextlib.suppress(PluginError):
            found.append(import_command(offer))
    return found
