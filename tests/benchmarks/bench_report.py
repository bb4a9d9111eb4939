"""`harness report` from a registry of so many rows: seconds, and the size of what it writes.

Two boards of three methods, which is 20 charts; the rows are those of the views: one a measurement and one a point of a curve.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from harness.identity import pair_key, series_key, trial_id
from harness.records import CurvePoint, Measurement, Resources
from harness.registry import Registry
from tests.benchmarks.figures import Figure, Readings
from tests.benchmarks.usage import clean_environment, run_measured
from tests.registry_samples import WHERE, make_attempt, make_trial

ROWS = 100_000
OFFERS = 32
METRICS = (("accuracy", "1", "higher", 0.0), ("nll", "nat", "lower", 10.0), ("ece", "1", "lower", 1.0))
ROWS_EACH = len(METRICS) * (OFFERS + 1)
METHODS, NETS = ("relu", "gelu", "silu"), ("mlp", "cnn")
GOAL_S, GOAL_MB = 10.0, 2.0
BIN = Path(sys.executable).parent


def measure_report(folder: Path, rounds: int, rows: int = ROWS) -> list[Figure]:
    registry, pages = folder / "report-registry", folder / "report-pages"
    made = fill(registry, rows)
    command = [BIN / "harness", "report", "-o", pages, "--registry", registry]
    environment = clean_environment()
    run_measured(command, folder, environment)  # compiles modules, fills the page cache
    usages = [run_measured(command, folder, environment) for _ in range(rounds)]
    megabytes = sum(file.stat().st_size for file in pages.iterdir()) / 1e6
    charts = sum(file.read_text().count("<figure>") for file in pages.glob("*.html"))
    what = f"{charts} charts of {made:,} rows"
    return [
        Figure(f"CPU of `harness report`: {what}", Readings("harness report", "s", tuple(u.cpu_s for u in usages)), GOAL_S),
        Figure(f"Size of the report: {what}", Readings("harness report", "MB", (megabytes,)), GOAL_MB),
    ]


def fill(path: Path, rows: int) -> int:
    """At least so many rows of the long views; how many there are."""
    registry = Registry.open(path)
    seeds = -(-rows // (ROWS_EACH * len(METHODS) * len(NETS)))
    number = 0
    for net in NETS:
        for at, method in enumerate(METHODS):
            for seed in range(seeds):
                registry.append(attempt(number, net, method, 0.8 + 0.02 * at + 0.0001 * ((seed * 37 + at) % 101), seed))
                number += 1
    registry.compact(everything=True)
    return number * ROWS_EACH


def attempt(number: int, net: str, method: str, accuracy: float, seed: int):  # type: ignore[no-untyped-def]
    role = "baseline" if method == "relu" else "method"
    trial = replace(make_trial(method, seed), net={"arch": net, "width": 8, "depth": 2}, role=role)
    fields = trial.__dict__
    trial = replace(trial, series_key=series_key(fields), trial_id=trial_id(fields), pair_key=pair_key(fields))
    values = tuple(Measurement(name, "test", unit, better, accuracy, worst) for name, unit, better, worst in METRICS)
    curve = tuple(
        CurvePoint(
            name, "test", unit, {"samples_seen": 100.0 * k, "wall_s": 0.01 * k * (1 + seed % 7 / 100)}, accuracy * k / OFFERS
        )
        for name, unit, _, _ in METRICS
        for k in range(1, OFFERS + 1)
    )
    resources = Resources(wall_s=1.0, solve_s=0.5 + 0.001 * (seed % 50), peak_rss_bytes=10**8, params=1000)
    made = make_attempt(number, trial, WHERE, measurements=values, curve=curve, resources=resources)
    return replace(made, declared=tuple(replace(v, value=None, part="") for v in values))
