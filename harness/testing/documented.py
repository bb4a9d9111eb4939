"""The check `documented`: a summary, and for each parameter a type, a default and a description. No torch."""

from __future__ import annotations

from typing import Any

from harness.specs import Component, Kernel, Learner, Task
from harness.testing.findings import Report


def examine_documented(spec: Component | Learner | Task | Kernel, report: Report) -> None:
    """Into the report: what `harness describe` could not say."""
    if not spec.summary.strip():
        report.add("documented", "it has no summary", 'say in a line what it is: summary="..."')
    for name, field in spec.params.model_fields.items():
        if field.annotation in (None, Any, object):
            report.add("documented", f"parameter {name!r} has no type of its own", f"write `{name}: float = ...`, or a Literal")
        if not (field.description or "").strip():
            mend = f'write `{name}: ... = Field(default, description="...")`'
            report.add("documented", f"parameter {name!r} has no description", mend)
        if field.is_required():
            report.add("documented", f"parameter {name!r} has no default", "give one, so that a suite may name it alone")
