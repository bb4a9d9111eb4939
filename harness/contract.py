"""The versioned contract with plugins: which API a plugin was written for, and what it uses that will go.

`harness.API_VERSION` is "major.minor". A plugin states what it was written for in its entry point's module, as text in
`HARNESS_API`; one that states nothing was written for the first, 0.1. Within a major version names are added and none is taken
away, so an older minor works; a newer one may need what is not here yet. What is to go with the next major warns until then.
"""

from __future__ import annotations

import ast
import importlib.util
import re
import sys
import warnings
from typing import Any

import harness
from harness.errors import PluginError

STATED = "HARNESS_API"
FIRST = "0.1"
VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})")


def require_compatible(stated: Any) -> str:
    """The version that a plugin states. Raises PluginError with the mend for one that this harness does not serve."""
    here = harness.API_VERSION
    found = VERSION.fullmatch(stated) if isinstance(stated, str) else None
    if found is None:
        raise PluginError(f'{STATED} = {stated!r}; write the version that it was written for as text, {STATED} = "{here}"')
    major, minor = map(int, found.groups())
    ours, newest = map(int, here.split("."))
    written = f"it was written for harness API {stated}, and this is API {here}"
    if major < ours:
        raise PluginError(f"{written}: install a version of the plugin for API {ours}, or a paper-harness with API {major}")
    if major > ours or minor > newest:
        raise PluginError(f"{written}: `pip install -U paper-harness`, or install an older version of the plugin")
    return str(stated)


def stated_by(module: str) -> Any:
    """What a module states, from its source: for one that cannot be imported. None where it states nothing that is read so."""
    try:
        spec = importlib.util.find_spec(module)
        source = spec.loader.get_source(module) if spec and spec.loader else None  # type: ignore[attr-defined]
        tree = ast.parse(source or "")
    except Exception:  # a plugin's own package, a loader of any kind
        return None
    for node in tree.body:
        names = [t.id for t in getattr(node, "targets", ()) if isinstance(t, ast.Name)]
        if isinstance(node, ast.Assign) and STATED in names and isinstance(node.value, ast.Constant):
            return node.value.value
    return None


def warn_deprecated(what: str, instead: str, gone: str) -> None:
    """A DeprecationWarning at the line that used it: the nearest one outside of harness.

    what: the old way; instead: the new one; gone: the API version that will lack the old.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] == "harness":
        level, frame = level + 1, frame.f_back
    text = f"{what} is deprecated and goes with harness API {gone}; use {instead}"
    warnings.warn(text, DeprecationWarning, stacklevel=level)
