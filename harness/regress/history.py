"""The long history: asv's step detection, behind one function. Late by some nights, and hardly ever wrong.

asv promises nothing of `asv.step_detect` as a library; this is the only place that knows it, and a test holds it to what is
used here. It reads lower as better, and eats all memory on an infinity.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import MissingError

THRESHOLD = 0.03
LEAST_POINTS = 6
LEAST_LEVEL = 2  # one bad night, however bad, is no new level
WINDOW_POINTS = 200  # the fit's time grows with the square of their number


@dataclass(frozen=True)
class Step:
    """The largest rise that still holds. before, at: the last point of the old level and the first of the new one.

    old, new: the best level before, and the level now. levels: (from, to) of the points on each side of it, `to` exclusive.
    """

    before: int
    at: int
    old: float
    new: float
    levels: tuple[tuple[int, int], tuple[int, int]]


def available() -> bool:
    """Whether asv is installed."""
    return importlib.util.find_spec("asv") is not None


def lower_is_better(values: Sequence[float], better: str) -> list[float] | None:
    """The values so that lower is better and zero is best: shares as what is missing to 1, rates as their inverse.

    None where there is no such form (negative values, or zeros of a rate): the history cannot be judged by relative steps.
    """
    if not all(math.isfinite(v) and v >= 0 for v in values):
        return None
    if better != "higher":
        return list(values)
    if all(v <= 1 for v in values):
        return [1 - v for v in values]
    return [1 / v for v in values] if all(v > 0 for v in values) else None


def find_step(values: Sequence[float], threshold: float = THRESHOLD) -> Step | None:
    """The largest rise by more than the threshold that was not undone; None where there is none, or too few points.

    values: finite, lower is better, in time order. Raises MissingError without asv.
    """
    if len(values) < LEAST_POINTS:
        return None
    if not all(math.isfinite(v) for v in values):
        raise ValueError("find_step: a value is not finite; leave it out")
    if not available():
        raise MissingError("asv is not installed, and its step detection judges the history; pip install 'asv>=0.6.4'")
    step_detect: Any = importlib.import_module("asv.step_detect")
    skipped = max(0, len(values) - WINDOW_POINTS)
    steps = step_detect.detect_steps(list(values[skipped:]))
    latest, best, rises = step_detect.detect_regressions(steps, threshold=threshold)
    rises = [rise for rise in rises or () if rise[1] <= len(values) - skipped - LEAST_LEVEL]
    if not rises:
        return None
    before, at, _, _ = max(rises, key=lambda rise: rise[3] / rise[2] if rise[2] else math.inf)
    left = next((s[0], s[1]) for s in steps if s[0] <= before < s[1])
    right = next((s[0], s[1]) for s in steps if s[0] <= at < s[1])
    moved = tuple((start + skipped, end + skipped) for start, end in (left, right))
    return Step(before + skipped, at + skipped, float(best), float(latest), moved)  # type: ignore[arg-type]
