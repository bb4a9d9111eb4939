"""The contract, checked: for plugin authors, in their tests and behind `harness plugin check`.

`check_method`, `check_task` and `check_kernel` raise `NonConformant` (an AssertionError) with every finding; `examine_method`,
`examine_task`, `examine_kernel` and `examine_plugin` return a `Report` instead. `CHECKS` says what each check asks.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "harness.testing.findings": ["CHECKS", "Finding", "NonConformant", "Report"],
    "harness.testing.components": ["examine_component"],
    "harness.testing.methods": ["check_method", "examine_method"],
    "harness.testing.tasks": ["check_task", "examine_task"],
    "harness.testing.kernels": ["check_kernel", "examine_kernel"],
    "harness.testing.plugins": ["check_plugin", "examine_plugin"],
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "CHECKS", "Finding", "NonConformant", "Report", "check_kernel", "check_method", "check_plugin", "check_task",
    "examine_component", "examine_kernel", "examine_method", "examine_plugin", "examine_task",
]  # fmt: skip

if TYPE_CHECKING:
    from harness.testing.components import examine_component
    from harness.testing.findings import CHECKS, Finding, NonConformant, Report
    from harness.testing.kernels import check_kernel, examine_kernel
    from harness.testing.methods import check_method, examine_method
    from harness.testing.plugins import check_plugin, examine_plugin
    from harness.testing.tasks import check_task, examine_task


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'harness.testing' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)
