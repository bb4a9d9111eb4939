"""Suite files: YAML in, `Suite` out. Imports no torch and runs nothing.

    load_suite(find_suite("vision"), catalogue, overrides=["seeds=3"]) -> Suite

text (YAML, with lines) -> options (`--set`) -> values (first pass: types) -> names (second pass: the plugins) -> load.
Every mistake of a file is reported at once, each as `file:line: path: what; the mend`. A `Suite` has everything resolved but
what needs data or a device; expanding it into trials is the plan's work.
"""

from harness.suite.editors import SCHEMA_COMMENT, SCHEMA_FILE, suite_schema
from harness.suite.load import (
    TIMING_PROCESSES,
    Budget,
    Dimension,
    KernelEntry,
    Limits,
    Match,
    Measure,
    MethodEntry,
    Suite,
    TaskEntry,
    Tuning,
    count_sets,
    expand,
    load_suite,
    load_suite_text,
)  # fmt: skip
from harness.suite.parameters import matches, resolve_params
from harness.suite.shipped import find_suite, shipped_suites, suites_of_claims

__all__ = [
    "Budget", "Dimension", "KernelEntry", "Limits", "Match", "Measure", "MethodEntry", "Suite", "TaskEntry", "Tuning",
    "load_suite", "load_suite_text", "find_suite", "shipped_suites", "suites_of_claims", "expand", "count_sets",
    "resolve_params", "matches", "suite_schema", "SCHEMA_COMMENT", "SCHEMA_FILE", "TIMING_PROCESSES",
]  # fmt: skip
