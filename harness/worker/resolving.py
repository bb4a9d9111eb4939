"""Names of code, "package.module:function", to the code itself. Used where code runs, never where it is planned."""

from __future__ import annotations

import importlib
from typing import Any

from harness.errors import PluginError


def resolve(name: str, declared_by: str) -> Any:
    """The object that "package.module:name" names. Raises PluginError with who declared it; import errors pass through."""
    module_name, colon, path = name.partition(":")
    if not (module_name and colon and path):
        raise PluginError(f'{declared_by} names code {name!r}; write "package.module:function"')
    found: Any = importlib.import_module(module_name)
    for part in path.split("."):
        if not hasattr(found, part):
            raise PluginError(f"{declared_by} names {name!r}, but {module_name} has no {path!r}")
        found = getattr(found, part)
    return found
