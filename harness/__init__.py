"""harness: run the methods of many papers under one contract, and say which claims hold.

The public names, resolved lazily: `import harness` costs nothing that a plugin's declarations do not need.
Public besides this module: `harness.lab` (reference nets and the reference learner), `harness.data`, `harness.testing`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
API_VERSION = "0.3"

_HOMES = {
    "harness.specs": [
        "Claim", "Command", "Component", "Dataset", "Implementation", "Instance", "Kernel", "KernelCase", "Learner", "Metric",
        "Paper", "Params", "Probe", "Series", "Task", "Track",
    ],
    "harness.rules": [
        "All", "AtLeast", "Cell", "Corr", "Diff", "Every", "Over", "Rank", "Ratio", "Seeds", "Share", "Slope", "Tasks",
        "Within", "better", "given", "non_inferior", "solved_share",
    ],
    "harness.errors": ["Diverged", "HarnessError", "Invalid", "Unsupported"],
    "harness.hookspecs": ["hookimpl"],
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

# Written out, so that type checkers see what is exported; tests/test_architecture.py holds it to the table above.
__all__ = [
    "API_VERSION", "__version__",
    "Claim", "Command", "Component", "Dataset", "Implementation", "Instance", "Kernel", "KernelCase", "Learner", "Metric",
    "Paper", "Params", "Probe", "Series", "Task", "Track",
    "All", "AtLeast", "Cell", "Corr", "Diff", "Every", "Over", "Rank", "Ratio", "Seeds", "Share", "Slope", "Tasks", "Within",
    "better", "given", "non_inferior", "solved_share",
    "Diverged", "HarnessError", "Invalid", "Unsupported", "hookimpl",
]  # fmt: skip

if TYPE_CHECKING:
    from harness.errors import Diverged, HarnessError, Invalid, Unsupported
    from harness.hookspecs import hookimpl
    from harness.rules import (
        All,
        AtLeast,
        Cell,
        Corr,
        Diff,
        Every,
        Over,
        Rank,
        Ratio,
        Seeds,
        Share,
        Slope,
        Tasks,
        Within,
        better,
        given,
        non_inferior,
        solved_share,
    )  # fmt: skip
    from harness.specs import (
        Claim,
        Command,
        Component,
        Dataset,
        Implementation,
        Instance,
        Kernel,
        KernelCase,
        Learner,
        Metric,
        Paper,
        Params,
        Probe,
        Series,
        Task,
        Track,
    )  # fmt: skip


# old name -> (new name, the API version that lacks the old): until then the old one works, with a warning.
_RENAMED: dict[str, tuple[str, str]] = {}


def __getattr__(name: str) -> Any:
    if name in _RENAMED:
        from harness.contract import warn_deprecated

        instead, gone = _RENAMED[name]
        warn_deprecated(f"harness.{name}", f"harness.{instead}", gone)
        name = instead
    if name not in _HOME:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
