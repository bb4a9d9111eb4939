"""Attempts in, points of histories out: one number for each commit, benchmark and choice of parameters, lower is better.

A benchmark is what a history follows: a quantity of a kernel, or of a task with its net, training and budget. Its
parameters tell its lines apart: implementation, elements, method, device, ... Nothing is read or written here.
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist, median
from typing import Any

import numpy as np

from harness.identity import canonical, digest
from harness.records import FAILURES

# What a row must have to make points of it.
COLUMNS = (
    "attempt_id", "machine", "environment", "git_commit", "git_dirty", "kind", "status", "started_at", "wall_s",
    "peak_rss_bytes", "peak_device_bytes", "task", "task_params", "net", "train", "budget", "tuning", "matched", "method",
    "method_params", "device", "dtype", "threads", "seed", "root_seed", "torch_version", "measure", "declared",
    "measurements", "timings", "diagnostics",
)  # fmt: skip
PLACE = ("device", "dtype", "threads")
SHARES = ("1", "share")
UNITS = {"s": "seconds", "B": "bytes"}  # asv scales these two for print
# Of a kernel: its seconds again, upside down, and what explains them; then what belongs to the machine, not to the code.
KERNEL_LEFT_OUT = ("bytes_rate", "flop_rate", "faults")
MACHINE_PARTS = ("ceiling", "copy", "copy_cold")  # a copy's seconds are exported all the same: they tell the machine's steps
MAX_SAMPLES = 100  # of one point
CONFIDENCE = 0.99
NIGHT_NOISE = 0.01  # relative deviation of one night's time, assumed where none was measured
SPARSE = 2  # a product of parameters of which less than one in SPARSE was measured is split
SMALL = 64  # unless it is as small as this

Value = str | int | float | bool | None


@dataclass(frozen=True)
class Group:
    """What is measured together. definition: canonical JSON of all that must agree along a history, but the parameters."""

    kind: str
    stem: str
    definition: str
    param_names: tuple[str, ...]


@dataclass(frozen=True)
class Quantity:
    """One number of an attempt, as it was recorded. part: of the data, or the region of code."""

    part: str
    name: str
    unit: str
    better: str

    @property
    def lower_name(self) -> str:
        """The name of what is exported, of which less is better."""
        return {"same": "", "shortfall": "one_minus_", "inverse": "inverse_", "negative": "minus_"}[self.turn] + self.name

    @property
    def lower_unit(self) -> str:
        if self.turn == "shortfall":
            return f"1 - {self.name}"
        if self.turn == "inverse":
            above, _, below = self.unit.partition("/")
            return f"{below}/{above}"
        return f"-1 * {self.unit}" if self.turn == "negative" else UNITS.get(self.unit, self.unit)

    @property
    def turn(self) -> str:
        """How a number becomes one of which less is better; from the definition alone, so that no value can change it."""
        if self.better == "lower":
            return "same"
        if self.unit in SHARES:
            return "shortfall"
        return "inverse" if "/" in self.unit else "negative"

    def lower(self, value: float | None) -> float | None:
        """The value to export; None for one that is no finite number, or that has no finite inverse."""
        if value is None or not math.isfinite(value):
            return None
        if self.turn == "inverse":
            return 1 / value if value > 0 and math.isfinite(1 / value) else None
        return {"same": value, "shortfall": 1 - value, "negative": -value}[self.turn]


@dataclass(frozen=True)
class Where:
    """What one file of results is about. python and torch: versions."""

    machine: str
    commit: str
    python: str
    torch: str


@dataclass(frozen=True)
class Reading:
    """What one attempt says of one quantity. value None: it failed, and counts as `worst` where there is one.

    interval: of the median, 99 %, where the attempt has samples enough. calls: how many each sample averages over.
    """

    order: tuple[float, str]  # when it started, and the attempt's id
    seed: int
    value: float | None
    samples: tuple[float, ...] = ()
    interval: tuple[float, float] | None = None
    taken: int = 1
    calls: int = 1
    wall_s: float = 0.0
    worst: float | None = None


@dataclass(frozen=True)
class Point:
    """One number of a history. value None: every attempt failed. taken: samples in all, of which `samples` are kept."""

    value: float | None
    interval: tuple[float, float] | None = None
    quartiles: tuple[float, float] | None = None
    samples: tuple[float, ...] = ()
    taken: int = 0
    calls: int = 1
    started_s: float = 0.0
    wall_s: float = 0.0


@dataclass(frozen=True)
class Benchmark:
    """A quantity of a group, or of a part of it: `fixed` are parameters that its name holds.

    params: the values of each parameter, sorted. points: by file, then by values of the parameters.
    """

    name: str
    pretty_name: str
    unit: str
    version: str
    param_names: tuple[str, ...]
    params: tuple[tuple[Value, ...], ...]
    points: Mapping[Where, Mapping[tuple[Value, ...], Point]]


@dataclass(frozen=True)
class _Failure:
    """An attempt that failed, until it is known which quantities its group has."""

    group: Group
    where: Where
    cell: tuple[Value, ...]
    kind: str
    reading: Reading
    owed: Mapping[str, float | None]  # names that it was to measure -> worst; of a kernel or a timing: regions


def make_benchmarks(rows: Iterable[Mapping[str, Any]], pythons: Mapping[str, str]) -> list[Benchmark]:
    """The histories in these attempts, by name. rows: with COLUMNS; pythons: environment -> version of Python.

    Attempts that were interrupted or are unsupported leave no point. A benchmark that never has a value is left out.
    """
    readings: dict[tuple[Group, Quantity], dict[Where, dict[tuple[Value, ...], list[Reading]]]] = {}
    failures: list[_Failure] = []
    for row in rows:
        group, cell = group_of(row), cell_of(row)
        where = Where(row["machine"], row["git_commit"], pythons.get(row["environment"], ""), row["torch_version"])
        if row["status"] == "ok":
            for quantity, reading in readings_of(row):
                by_where = readings.setdefault((group, quantity), {})
                by_where.setdefault(where, {}).setdefault(cell, []).append(reading)
        elif row["status"] in FAILURES:
            failed = Reading(order_of(row), row["seed"], None, wall_s=row["wall_s"] or 0.0)
            failures.append(_Failure(group, where, cell, row["kind"], failed, owed_by(row)))
    add_failures(readings, failures)
    names = stems(group for group, _ in readings)
    made = [
        benchmark
        for (group, quantity), found in readings.items()
        for benchmark in benchmarks_of(names[group], group, quantity, found)
    ]
    twice = Counter(benchmark.name for benchmark in made)  # "a-b" and "a_b", or a metric that changed its unit
    named = [b if twice[b.name] == 1 else replace(b, name=f"{b.name}_{b.version[:6]}") for b in made]
    return sorted(named, key=lambda benchmark: benchmark.name)


# An attempt ------------------------------------------------------------------------------------------------------------


def group_of(row: Mapping[str, Any]) -> Group:
    """Which group a row belongs to. Methods that were matched to a baseline stand in the baseline's group."""
    if row["kind"] == "kernel":
        names = ("implementation", *sorted(parsed(row["task_params"])), *PLACE)
        return Group("kernel", f"kernels.{slug(bare(row['task']))}", canonical([row["task"], names]), names)
    matched = parsed(row["matched"])
    shared = {name: matched.get(name) if matched else parsed(row[name]) for name in ("net", "train")}
    alike = [row["task"], *(parsed(row[name]) for name in ("task_params", "budget", "tuning")), shared, row["root_seed"]]
    arch = slug(str((shared["net"] or {}).get("arch", "own_net")))
    return Group(row["kind"], f"{row['kind']}.{slug(bare(row['task']))}.{arch}", canonical(alike), ("method", *PLACE))


def cell_of(row: Mapping[str, Any]) -> tuple[Value, ...]:
    """The values of the group's parameters."""
    place = tuple(row[name] for name in PLACE)
    params = parsed(row["method_params"])
    given = f"({', '.join(f'{k}={v}' for k, v in sorted(params.items()))})" if params else ""
    if row["kind"] == "kernel":
        # Eager code in the place of ours is another line: else a missing compiler would look like a slower kernel.
        fallback = any(d["name"] == "fallback" and d["text"] for d in row["diagnostics"])
        name = row["method"].removeprefix(f"{row['task']}/") + given + (" (fallback)" if fallback else "")
        case = parsed(row["task_params"])
        return (name, *(scalar(case[key]) for key in sorted(case)), *place)
    matched = parsed(row["matched"])
    at = f" [{matched.get('where')}={matched.get('value')}]" if matched else ""
    return (bare(row["method"]) + given + at, *place)


def readings_of(row: Mapping[str, Any]) -> Iterator[tuple[Quantity, Reading]]:
    """The numbers of an ok attempt that have a direction; each is turned so that less is better."""
    order, seed, wall_s = order_of(row), row["seed"], row["wall_s"] or 0.0
    calls = {m["part"]: m["value"] for m in row["measurements"] if m["quantity"] == "calls_per_sample"}
    # As kernels are measured: on one CPU thread by process time, which a busy machine does not stretch.
    clock = "cpu_s" if row["kind"] == "kernel" and row["device"] == "cpu" and row["threads"] == 1 else "wall_s"
    # A first call with a warm cache is another thing than one that compiles.
    cache = next((d["text"] for d in row["diagnostics"] if d["name"] == "compile_cache" and d["text"]), "cache_unknown")
    timed = set()
    for timing in row["timings"]:
        samples = [value for value in timing[clock] if math.isfinite(value)]
        if samples and row["kind"] != "quality":  # a quality trial's seconds are indicative
            timed.add(timing["region"])
            yield (
                Quantity(timing["region"], "time", "s", "lower"),
                Reading(
                    order, seed, median(samples), tuple(samples), median_interval(samples), len(samples),
                    int(calls.get(timing["region"]) or 1), wall_s,
                ),
            )  # fmt: skip
    for m in row["measurements"]:
        if m["better"] not in ("lower", "higher") or m["part"] in MACHINE_PARTS:
            continue
        if row["kind"] == "kernel" and (m["quantity"] in KERNEL_LEFT_OUT or (m["quantity"] == "time" and m["part"] in timed)):
            continue
        name = m["quantity"] if m["part"] != "compile" else f"{m['quantity']}_{cache}"
        quantity = Quantity(m["part"], name, m["unit"], m["better"])
        value = quantity.lower(m["value"])
        yield quantity, Reading(order, seed, value, (value,) if value is not None else (), wall_s=wall_s)
    for column, name in (("peak_rss_bytes", "peak_rss"), ("peak_device_bytes", "peak_device")):
        if row[column] is not None:
            value = float(row[column])
            yield Quantity("resource", name, "B", "lower"), Reading(order, seed, value, (value,), wall_s=wall_s)


def owed_by(row: Mapping[str, Any]) -> dict[str, float | None]:
    """What a failed attempt was to measure, with the `worst` that it counts as."""
    owed: dict[str, float | None] = dict.fromkeys(row["measure"])
    return owed | {m["quantity"]: m["worst"] for m in row["declared"]}


def order_of(row: Mapping[str, Any]) -> tuple[float, str]:
    return (row["started_at"].timestamp() if row["started_at"] is not None else 0.0, row["attempt_id"])


def parsed(text: str | None) -> Any:
    """A JSON column; {} for none, and for text that is no JSON (a record from elsewhere may hold anything)."""
    try:
        value = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def scalar(value: Any) -> Value:
    return value if isinstance(value, str | int | float | bool) or value is None else canonical(value)


def bare(reference: str) -> str:
    return reference.rpartition("/")[2]


def slug(text: str) -> str:
    """What asv may use as a part of a name and of a file's: [a-z0-9_]."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:64] or "unnamed"


# Failures --------------------------------------------------------------------------------------------------------------


def add_failures(
    readings: dict[tuple[Group, Quantity], dict[Where, dict[tuple[Value, ...], list[Reading]]]], failures: Iterable[_Failure]
) -> None:
    """A failed attempt is a reading without a value of every quantity that it owed."""
    quantities = defaultdict(list)
    for group, quantity in readings:
        quantities[group].append(quantity)
    for failure in failures:
        for quantity in quantities[failure.group]:
            told_by = quantity.name if failure.kind == "quality" else quantity.part
            if quantity.part == "resource" or (failure.owed and told_by not in failure.owed):
                continue
            old = failure.reading
            worst = quantity.lower(failure.owed.get(quantity.name))
            made = Reading(old.order, old.seed, None, wall_s=old.wall_s, worst=worst)
            readings[failure.group, quantity].setdefault(failure.where, {}).setdefault(failure.cell, []).append(made)


# Points ----------------------------------------------------------------------------------------------------------------


def combine(readings: Sequence[Reading]) -> Point:
    """One point of all attempts of a commit: the median of each seed's (or process's) attempts, then the median of those.

    A seed's last attempt says whether it failed. A failed seed counts as `worst`; where there is none it is left out.
    """
    by_seed: dict[int, list[Reading]] = {}
    for reading in sorted(readings, key=lambda r: r.order):
        by_seed.setdefault(reading.seed, []).append(reading)
    started_s = max(r.order[0] for r in readings)
    wall_s = sum(r.wall_s for r in readings)
    kept = [[r for r in of if r.value is not None] if of[-1].value is not None else [] for of in by_seed.values()]
    good = [r for of in kept for r in of]
    if not good:
        return Point(None, started_s=started_s, wall_s=wall_s)
    worst = [of[-1].worst for of in by_seed.values() if of[-1].value is None]
    values = [median(r.value for r in of if r.value is not None) for of in kept if of] + [w for w in worst if w is not None]
    intervals = [r.interval for r in good if r.interval is not None]
    interval: tuple[float, float] | None
    if intervals:
        # Processes differ by more than the samples of one of them say: from the least bound to the greatest.
        interval = (min(low for low, _ in intervals), max(high for _, high in intervals))
        share = max(1, MAX_SAMPLES // len(good))
        samples = tuple(s for r in good for s in thinned(r.samples, share))[:MAX_SAMPLES]
        taken = sum(r.taken for r in good)
    else:
        interval = median_interval(values) or t_interval(values)
        samples, taken = tuple(values[:MAX_SAMPLES]), len(values)
    low, high = np.quantile(np.asarray(samples), [0.25, 0.75])
    calls = round(median(r.calls for r in good))
    return Point(median(values), interval, (float(low), float(high)), samples, taken, calls, started_s, wall_s)


def thinned(samples: Sequence[float], most: int) -> tuple[float, ...]:
    """Every n-th, in the order taken: at most so many, and none is altered."""
    return tuple(samples[:: max(1, math.ceil(len(samples) / most))])


def median_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """The 99 % interval of the median by order statistics, of any distribution; None below 8 values, where there is none."""
    rank = interval_rank(len(values))
    if rank == 0:
        return None
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    return float(ordered[rank - 1]), float(ordered[len(ordered) - rank])


@lru_cache(maxsize=4096)
def interval_rank(n: int) -> int:
    """The largest r with P(Bin(n, 1/2) <= r - 1) <= 0.5 %; 0 where there is none."""
    from scipy.special import bdtr

    below = bdtr(np.arange(n // 2 + 1), n, 0.5)
    return int(np.searchsorted(below, (1 - CONFIDENCE) / 2, side="right")) if n else 0


def t_interval(values: Sequence[float]) -> tuple[float, float] | None:
    """For 2 to 7 values, of which order statistics give no 99 % interval, and asv's `compare` needs one. Around the mean."""
    if len(values) < 2:
        return None
    from scipy.special import stdtrit

    middle = float(np.mean(values))
    half = float(stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return (middle - half, middle + half) if math.isfinite(half) else None


# Benchmarks ------------------------------------------------------------------------------------------------------------


def stems(groups: Iterable[Group]) -> dict[Group, str]:
    """How names of benchmarks start. A kernel's is its name; a task's has a digest, for it comes with many nets and budgets."""
    distinct = sorted(set(groups), key=lambda g: (g.stem, g.definition))
    shared = Counter(group.stem for group in distinct)
    return {
        group: group.stem
        if group.kind == "kernel" and shared[group.stem] == 1
        else f"{group.stem}_{digest(group.definition)[:6]}"
        for group in distinct
    }


def benchmarks_of(
    stem: str, group: Group, quantity: Quantity, found: Mapping[Where, Mapping[tuple[Value, ...], Sequence[Reading]]]
) -> Iterator[Benchmark]:
    """One benchmark, or several where most of the product of its parameters was never measured."""
    points = with_nights({where: {c: combine(rs) for c, rs in cells.items()} for where, cells in found.items()}, quantity)
    name = f"registry.{stem}.{slug(quantity.part)}.{slug(quantity.lower_name)}"
    title = f"{group.stem.partition('.')[2]} {quantity.part}: {quantity.lower_name}"
    cells = {cell for by_cell in points.values() for cell in by_cell}
    for fixed, part in split_sparse(cells, group.param_names, {}):
        kept = {where: {c: p for c, p in by_cell.items() if c in part} for where, by_cell in points.items()}
        if all(point.value is None for by_cell in kept.values() for point in by_cell.values()):
            continue
        free = [i for i, param in enumerate(group.param_names) if param not in fixed]
        names = tuple(group.param_names[i] for i in free)
        axes = tuple(tuple(sorted({cell[i] for cell in part}, key=sort_key)) for i in free)
        ends = "".join(f".{slug(str(value))}" for value in fixed.values())
        yield Benchmark(
            name=name + ends,
            pretty_name=title + "".join(f", {param} {value}" for param, value in fixed.items()),
            unit=quantity.lower_unit,
            version=digest([group.definition, quantity.part, quantity.name, quantity.unit, quantity.better, names])[:16],
            param_names=names,
            params=axes,
            points={
                where: {tuple(cell[i] for i in free): point for cell, point in by_cell.items()}
                for where, by_cell in kept.items()
                if by_cell
            },
        )


def with_nights(
    points: Mapping[Where, Mapping[tuple[Value, ...], Point]], quantity: Quantity
) -> dict[Where, dict[tuple[Value, ...], Point]]:
    """Intervals of times, widened by what one night differs from another: samples of one night say nothing of that.

    By as much along a whole history, for asv weighs points by their intervals: with widths that differ several times over, or
    that grow with the time itself, its search misses a step of a fifth.
    """
    if quantity.name != "time":
        return {where: dict(by_cell) for where, by_cell in points.items()}
    oldest: dict[tuple[Value, ...], Point] = {}
    for cell, point in ((cell, point) for by_cell in points.values() for cell, point in by_cell.items()):
        if point.value is not None and (cell not in oldest or point.started_s < oldest[cell].started_s):
            oldest[cell] = point
    return {
        where: {cell: widened(point, oldest[cell].value if cell in oldest else None) for cell, point in by_cell.items()}
        for where, by_cell in points.items()
    }


def widened(point: Point, scale: float | None) -> Point:
    """Each bound moved out as two independent errors add: its own distance, and a night's noise of `scale`."""
    if point.interval is None or point.value is None or scale is None:
        return point
    night = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * NIGHT_NOISE * abs(scale)
    below, above = (math.hypot(bound - point.value, night) for bound in point.interval)
    return replace(point, interval=(point.value - below, point.value + above))


def split_sparse(
    cells: set[tuple[Value, ...]], names: Sequence[str], fixed: Mapping[str, Value]
) -> Iterator[tuple[dict[str, Value], set[tuple[Value, ...]]]]:
    """The cells in blocks, each with the parameters that are fixed in it: first where it ran (device, ...), then its case."""
    axes = {name: sorted({cell[i] for cell in cells}, key=sort_key) for i, name in enumerate(names)}
    product = math.prod(len(values) for values in axes.values())
    first = (*PLACE, *(name for name in reversed(names) if name not in PLACE))
    several = [name for name in first if len(axes[name]) > 1]
    if product <= max(SMALL, SPARSE * len(cells)) or len(several) < 2:
        yield dict(fixed), cells
        return
    name = several[0]
    for value in axes[name]:
        below = {cell for cell in cells if cell[names.index(name)] == value}
        yield from split_sparse(below, names, {**fixed, name: value})


def sort_key(value: Value) -> tuple[bool, float, str]:
    """Numbers by size, then everything else by its text."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (not number, float(value) if number and value is not None else 0.0, str(value))


def product_of(benchmark: Benchmark) -> Iterator[tuple[Value, ...]]:
    """All values of the parameters, the last parameter fastest: the order of asv's lists."""
    return itertools.product(*benchmark.params)
