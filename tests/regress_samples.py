"""Nights to judge: kernel, timing and quality trials of many invocations, with the times and values that a test gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from registry_samples import MACHINE, WHERE, make_trial, name_of

from harness.records import Attempt, Measurement, Outcome, Provenance, Resources, Timing, Trial
from harness.registry import Registry
from harness.regress import History, Point
from harness.regress.points import ALIKE, Reading

BEGAN = datetime(2026, 9, 1, 2, tzinfo=UTC)
TIME = Reading("time", "forward", "timing", "s", "lower")
ACCURACY = Reading("quality", "accuracy", "test", "1", "higher")
DIGITS = "paper-harness/digits"
CRRELU = "paper-harness-papers/crrelu"


def commit_of(night: int) -> str:
    return name_of("commit", night) + "0" * 8


def night_of(night: int, suite: str = "kernels") -> Provenance:
    return replace(WHERE, invocation=f"inv-{night:03d}", suite=suite, git_commit=commit_of(night))


def attempt(night: int, trial: Trial, suite: str = "kernels", **outcome: Any) -> Attempt:
    """One of the night: started at 2 in the morning, a second later for each seed."""
    started = (BEGAN + timedelta(days=night, seconds=trial.seed)).isoformat(timespec="microseconds")
    id = f"{name_of(night, trial.series_key):.32}"
    return Attempt(id, trial, Outcome(**{"status": "ok", "started_at": started, **outcome}), night_of(night, suite))


def kernel_trial(process: int = 0, **changes: Any) -> Trial:
    case = changes.pop("case", {"elements": 1_000_000, "layout": "contiguous"})
    method = changes.pop("method", f"{CRRELU}/ours")
    key = name_of("kernel", method, case, process, sorted(map(str, changes.items())))
    made = make_trial(
        kind="kernel", track="paper-harness/kernels", task=CRRELU, task_params=case, net=None, train=None, budget={},
        measure=("forward",), seed=process, series_key=key, trial_id=name_of("trial", key), **changes,
    )  # fmt: skip
    return replace(made, method=method)


def kernel_night(night: int, seconds: float, regions: Sequence[str] = ("forward",), **changes: Any) -> list[Attempt]:
    """Three processes, 1 % apart; wall seconds say double, as on a busy machine."""
    made = []
    for process, factor in enumerate((0.99, 1.0, 1.01)):
        cpu = (seconds * factor,) * 5
        wall = tuple(2 * s for s in cpu)
        timings = tuple(Timing(region, wall, cpu, 3, "precise") for region in regions)
        made.append(attempt(night, kernel_trial(process, **changes), timings=timings))
    return made


def quality_night(night: int, accuracies: Sequence[float], peak_bytes: int = 300_000_000, **changes: Any) -> list[Attempt]:
    made = []
    for seed, accuracy in enumerate(accuracies):
        trial = make_trial("relu", seed, **changes)
        value = Measurement("accuracy", "test", "1", "higher", accuracy, 0.0)
        resources = Resources(wall_s=1.0, peak_rss_bytes=peak_bytes)
        made.append(attempt(night, trial, "vision", measurements=(value,), resources=resources))
    return made


def registry_of(path: Path, attempts: Sequence[Attempt]) -> Registry:
    registry = Registry.open(path)
    for made in attempts:
        registry.append(made)
    return Registry.open(path, create=False)


def history(values: Sequence[float] | Sequence[Sequence[float]], reading: Reading = TIME, **alike: Any) -> History:
    """A history of these values, or of these lists of one value a seed, one a night."""
    trial = kernel_trial() if reading.aspect == "time" else make_trial()
    known = {name: getattr(trial, name) for name in ALIKE} | alike
    points = []
    for night, value in enumerate(values):
        by_seed = {0: float(value)} if isinstance(value, int | float) else dict(enumerate(map(float, value)))
        mean = sum(by_seed.values()) / len(by_seed)
        at = BEGAN + timedelta(days=night)
        points.append(Point(at, f"inv-{night:03d}", commit_of(night), False, f"{night:032x}", by_seed, mean))
    return History("kernels", known, reading, tuple(points))


def nights(count: int, make: Callable[[int], list[Attempt]]) -> list[Attempt]:
    return [made for night in range(count) for made in make(night)]


__all__ = ["ACCURACY", "BEGAN", "CRRELU", "DIGITS", "MACHINE", "TIME"]
