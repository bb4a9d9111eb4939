"""`[tool.harness]` of the nearest pyproject.toml: what options are when neither the line nor a variable says."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from harness.errors import HarnessError


@dataclass(frozen=True)
class Project:
    """The settings by option, and the folder that paths in them are relative to."""

    folder: Path = Path()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def defaults(self, command: click.Command) -> dict[str, Any]:
        """click's default map: (command ->) parameter -> value. {} for a group where nothing is set."""
        return defaults_of(command, self.settings, self.folder) if self.settings else {}


def read_project(group: click.Group, brought: Callable[[], list[click.Command]], folder: Path | None = None) -> Project:
    """The project of a folder. brought: the commands of plugins, asked for where a setting is no option of our own commands.

    Raises HarnessError for what is no TOML, and for a setting that no command reads.
    """
    start = folder or Path.cwd()
    file = next((f for place in (start, *start.parents) if (f := place / "pyproject.toml").is_file()), None)
    if file is None:
        return Project()
    settings, known = read_settings(file), known_options(group)
    if settings.keys() - known:
        known = known.union(*map(known_options, brought()))
    for name in sorted(settings.keys() - known):
        from harness.catalogue import did_you_mean

        listed = ", ".join(sorted(known))
        raise HarnessError(
            f"{file}: tool.harness.{name}: no command has the option --{name}{did_you_mean(name, known)} ({listed})"
        )
    return Project(file.parent, settings)


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
