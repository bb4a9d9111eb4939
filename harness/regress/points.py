"""From the registry to histories: one number a night of each series, in time order. Judges nothing.

A history is what agrees in all that `series_key` names but the seed, on one machine and torch version. Quality: one value a
seed, so that nights are compared seed by seed; the night's is their mean. Times, memory and a kernel's error: one value a
process; the night's is their median. A night is one invocation. Attempts annotated as `invalid` count for nothing; where one
is annotated as `expected`, a new history begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from statistics import median
from typing import TYPE_CHECKING, Any, Literal

from harness.records import FAILURES, case_text
from harness.stats import safe_mean
from harness.strangers import read_json

if TYPE_CHECKING:
    from harness.registry import Registry

Aspect = Literal["time", "memory", "quality", "error"]
# All that a series is named by (harness.identity), but the seed; and what must agree before its numbers are compared.
ALIKE = (
    "kind", "track", "method", "method_params", "task", "task_params", "net", "train", "budget", "tuning", "device", "dtype",
    "threads", "root_seed", "torch_version",
)  # fmt: skip
FACTS = (*ALIKE, "attempt_id", "invocation", "suite", "git_commit", "git_dirty", "started_at", "seed", "status", "error",
         "annotation", "peak_rss_bytes", "peak_device_bytes", "declared")  # fmt: skip
NOT_JUDGED = ("validation", "resource")  # parts: what steers the training, and what a method is, not how well it does
FLOOR_REGION = "copy"  # the machine's own pace, beside which a kernel is timed

ATTEMPTS = f"""
SELECT {", ".join(FACTS)} FROM attempts
WHERE machine = $machine AND kind <> 'tuning' AND status NOT IN ('interrupted', 'unsupported')
      AND annotation IS DISTINCT FROM 'invalid'
      AND started_at IS NOT NULL {{chosen}}
ORDER BY started_at, attempt_id
"""
TIMES = """
SELECT attempt_id, region, median(sample_wall_s) AS wall_s, median(sample_cpu_s) AS cpu_s
FROM timings WHERE machine = $machine AND status = 'ok' AND kind IN ('timing', 'kernel') GROUP BY attempt_id, region
"""
NUMBERS = """
SELECT attempt_id, quantity, part, unit, better, value FROM measurements
WHERE machine = $machine AND status = 'ok' AND value IS NOT NULL
      AND ((kind = 'quality' AND better IN ('higher', 'lower'))
           OR (kind = 'kernel' AND (part = 'check' OR quantity = 'extra_bytes')))
"""


@dataclass(frozen=True)
class Reading:
    """What is watched of an attempt: one of these numbers is one history."""

    aspect: Aspect
    quantity: str
    part: str
    unit: str
    better: str


@dataclass(frozen=True)
class Point:
    """A night of a history. at: when its first attempt started. by_seed: its values, by seed or by number of the process.

    attempt_id: of that first attempt, by which people speak of the night.
    """

    at: datetime
    invocation: str
    commit: str
    dirty: bool
    attempt_id: str
    by_seed: Mapping[int, float]
    value: float


@dataclass(frozen=True)
class History:
    """One watched number over the nights since the last expected change. alike: by the names of ALIKE, JSON decoded.

    broken: how the newest night failed where all its attempts did and those before had not; "" else.
    """

    suite: str
    alike: Mapping[str, Any]
    reading: Reading
    points: tuple[Point, ...]
    broken: str = ""

    @property
    def values(self) -> list[float]:
        return [point.value for point in self.points]

    @property
    def label(self) -> str:
        """How people read it: "crrelu/ours [1M] cpu forward"."""
        method, task = ("/".join(str(self.alike[name]).split("/")[1:]) for name in ("method", "task"))
        params = self.alike["task_params"]
        case = case_text(params) if self.alike["kind"] == "kernel" and isinstance(params, Mapping) else ""
        where = f" [{case}]" if case else f" on {task}" if self.alike["kind"] != "kernel" else ""
        given = self.alike["method_params"]
        said = f"({', '.join(f'{k}={v}' for k, v in given.items())})" if isinstance(given, Mapping) and given else ""
        threads = "" if self.alike["threads"] == 1 else f" {self.alike['threads']} threads"
        dtype = "" if self.alike["dtype"] == "float32" else f" {self.alike['dtype']}"
        return f"{method}{said}{where} {self.alike['device']}{dtype}{threads} {self.reading.quantity}"

    def since_start(self, at: int) -> History:
        """Without the first `at` nights."""
        return replace(self, points=self.points[at:])


def read_histories(
    registry: Registry, suites: Sequence[str] = (), machine: str = "", since: datetime | None = None
) -> list[History]:
    """All of one machine, in the order of their first attempts. suites: of these only; none named: of all."""
    chosen, parameters = "", {"machine": machine}
    if suites:
        chosen += " AND suite IN (SELECT unnest($suites))"
        parameters |= {"suites": list(suites)}  # type: ignore[dict-item]
    if since is not None:
        chosen += " AND started_at >= $since"
        parameters |= {"since": since}  # type: ignore[dict-item]
    rows = registry.query(ATTEMPTS.format(chosen=chosen), parameters).to_pylist()
    times = by_attempt(registry.query(TIMES, {"machine": machine}).to_pylist())
    numbers = by_attempt(registry.query(NUMBERS, {"machine": machine}).to_pylist())
    grouped: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        row["readings"] = dict(readings(row, times.get(row["attempt_id"], ()), numbers.get(row["attempt_id"], ())))
        grouped.setdefault(tuple(row[name] for name in ALIKE), []).append(row)
    return [history for group in grouped.values() for history in histories_of(group)]


def by_attempt(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["attempt_id"], []).append(row)
    return found


# One attempt ----------------------------------------------------------------------------------------------------------


def readings(
    row: Mapping[str, Any], times: Iterable[Mapping[str, Any]], numbers: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[Reading, float]]:
    """What is watched of an attempt, finite values only. One that failed counts as what it declares as `worst`."""
    for reading, value in all_readings(row, times, numbers):
        if value is not None and math.isfinite(value):
            yield reading, value


def all_readings(
    row: Mapping[str, Any], times: Iterable[Mapping[str, Any]], numbers: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[Reading, float | None]]:
    kind, failed = row["kind"], row["status"] in FAILURES
    # Another process that takes the core lengthens the wall seconds of one thread, hardly its own.
    clock = "cpu_s" if row["device"] == "cpu" and row["threads"] == 1 else "wall_s"
    for time in times:
        if not time["region"].startswith(FLOOR_REGION):
            yield Reading("time", time["region"], "timing", "s", "lower"), time[clock]
    for number in numbers:
        if kind == "kernel" and number["quantity"] == "extra_bytes":
            yield Reading("memory", number["quantity"], number["part"], "B", "lower"), number["value"]
        elif kind == "kernel":
            yield Reading("error", number["quantity"], number["part"], number["unit"], "lower"), number["value"]
        elif number["part"] not in NOT_JUDGED:
            named = (number[name] for name in ("quantity", "part", "unit", "better"))
            yield Reading("quality", *named), number["value"]
    if kind == "quality" and failed:
        for metric in row["declared"] or ():
            if metric["better"] in ("higher", "lower") and metric["part"] not in NOT_JUDGED:
                named = (metric[name] for name in ("quantity", "part", "unit", "better"))
                yield Reading("quality", *named), metric["worst"]
    # Of a kernel's process most memory is its float64 reference: what the kernel itself takes is `extra_bytes`.
    for name in ("peak_rss_bytes", "peak_device_bytes") if kind != "kernel" and not failed else ():
        yield Reading("memory", name, "resource", "B", "lower"), row[name]


# One series -----------------------------------------------------------------------------------------------------------


def histories_of(rows: Sequence[Mapping[str, Any]]) -> Iterator[History]:
    """The histories of attempts that agree in ALIKE, which come in the order of their start."""
    last = rows[-1]
    alike = {name: read_json(last[name]) if is_json(name, last[name]) else last[name] for name in ALIKE}
    begins = [row["invocation"] for row in rows if row["annotation"] == "expected"]
    start = next((i for i, row in enumerate(rows) if begins and row["invocation"] == begins[-1]), 0)
    kept = rows[start:]
    broken = how_broken(kept)
    found: dict[Reading, list[Mapping[str, Any]]] = {}
    for row in kept:
        for reading in row["readings"]:
            found.setdefault(reading, []).append(row)
    for reading, measured in found.items():
        yield History(last["suite"], alike, reading, tuple(points_of(reading, measured)), broken)


def is_json(name: str, value: Any) -> bool:
    return isinstance(value, str) and name in ("method_params", "task_params", "net", "train", "budget", "tuning")


def points_of(reading: Reading, rows: Iterable[Mapping[str, Any]]) -> Iterator[Point]:
    by_night: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        by_night.setdefault(row["invocation"], []).append(row)
    for invocation, night in by_night.items():
        by_seed = {row["seed"]: float(row["readings"][reading]) for row in night}  # of a seed that ran twice: the last
        value = night_value(reading, by_seed)
        first = night[0]
        yield Point(
            first["started_at"], invocation, first["git_commit"] or "", bool(first["git_dirty"]), first["attempt_id"],
            by_seed, value,
        )  # fmt: skip


def night_value(reading: Reading, by_seed: Mapping[int, float]) -> float:
    values = list(by_seed.values())
    return safe_mean(values) if reading.aspect == "quality" else float(median(values))


def how_broken(rows: Sequence[Mapping[str, Any]]) -> str:
    """The status and error of the newest night where nothing of it ended well and something before did."""
    newest = [row for row in rows if row["invocation"] == rows[-1]["invocation"]]
    before = [row for row in rows if row["invocation"] != rows[-1]["invocation"]]
    known = any(row["annotation"] == "expected" for row in newest)
    if known or any(row["status"] == "ok" for row in newest) or not any(row["status"] == "ok" for row in before):
        return ""
    last = newest[-1]
    return f"{last['status']}: {last['error']}" if last["error"] else str(last["status"])


def paired_by_seed(points: Sequence[Point]) -> tuple[list[Point], list[int]]:
    """The nights that can be compared seed by seed with the last one, and the seeds that they all have.

    A night that shares fewer than half of the last one's seeds is left out: it would take the other nights' seeds with it.
    """
    wanted = set(points[-1].by_seed)
    kept = [point for point in points if 2 * len(wanted & set(point.by_seed)) >= len(wanted)]
    shared = wanted.intersection(*(point.by_seed for point in kept))
    return (kept, sorted(shared)) if shared else ([points[-1]], sorted(wanted))
