"""What the registry holds for protocols, read once: of each series the attempts that started after the claim was fixed.

Rows of different machines or torch versions never meet; device, dtype and threads are parts of a series.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from harness.claims.fixing import Fixing, Place, Protocol
from harness.records import FAILURES
from harness.registry import Registry
from harness.rules import Cell

if TYPE_CHECKING:
    import pyarrow as pa

COLUMNS = {
    "series_key", "machine", "torch_version", "started_at", "status", "attempt_id", "error", "role", "code_digest",
    "data_digest", "git_commit", "solve_s", "measurements", "declared",
}  # fmt: skip
Row = Mapping[str, Any]


@dataclass(frozen=True, order=True)
class Where:
    """What must agree before seeds are pooled, beside the series."""

    machine: str
    torch_version: str


@dataclass(frozen=True)
class Found:
    """A cell's attempts in the order of the seeds, None where none counts. values: their metric, None where it is not known.

    lacks: why one of them is None, by seed. unsupported: what such attempts need, by seed. changed: the seeds that ran
    more than once and gave different numbers; the last one counts.
    """

    rows: tuple[Row | None, ...]
    values: tuple[float | None, ...]
    unit: str
    lacks: Mapping[int, str]
    unsupported: Mapping[int, str] = field(default_factory=dict)
    changed: tuple[int, ...] = ()

    def first(self, seeds: Sequence[int]) -> Found:
        """Only these, the first of all."""
        n = len(seeds)
        return replace(
            self, rows=self.rows[:n], values=self.values[:n], lacks={s: why for s, why in self.lacks.items() if s in seeds},
            unsupported={seed: what for seed, what in self.unsupported.items() if seed in seeds},
            changed=tuple(seed for seed in self.changed if seed in seeds),
        )  # fmt: skip


@dataclass
class Evidence:
    """Rows by place of execution and series, the earlier first."""

    rows: dict[Where, dict[str, list[Row]]] = field(default_factory=dict)

    def places(self, fixing: Fixing) -> list[Where]:
        """Where attempts that count for it have run; where there are none, where its series have run before."""
        keys = {key for place in fixing.protocol.places for key in place.series}
        latest = {
            where: max(series[key][-1]["started_at"] for key in keys & series.keys())
            for where, series in self.rows.items()
            if keys & series.keys()
        }
        return sorted(where for where, at in latest.items() if at > fixing.fixed_at) or sorted(latest)

    def find(self, fixing: Fixing, where: Where) -> dict[Cell, Found]:
        series, seeds = self.rows.get(where, {}), fixing.protocol.all_seeds
        return {place.cell: find_place(place, seeds, series, fixing.fixed_at) for place in fixing.protocol.places}


def read_evidence(registry: Registry, protocols: Iterable[Protocol]) -> Evidence:
    """Every attempt of their series that says something, and nothing else: a registry of many others costs one scan."""
    import pyarrow as pa
    import pyarrow.compute as pc

    keys = sorted({key for protocol in protocols for place in protocol.places for key in place.series})
    evidence = Evidence()
    if not keys:
        return evidence
    table = registry.table(COLUMNS)
    table = table.filter(pc.is_in(table["series_key"], pa.array(keys, pa.string())))
    invalid = {row["attempt_id"] for row in registry.annotations().to_pylist() if row["annotation"] == "invalid"}
    for row in in_order(table):
        if row["status"] != "interrupted" and row["started_at"] is not None and row["attempt_id"] not in invalid:
            where = Where(str(row["machine"]), str(row["torch_version"]))
            evidence.rows.setdefault(where, {}).setdefault(row["series_key"], []).append(row)
    return evidence


def in_order(table: pa.Table) -> list[Row]:
    rows: list[Row] = table.sort_by([("started_at", "ascending"), ("attempt_id", "ascending")]).to_pylist()
    return rows


def find_place(place: Place, seeds: Sequence[int], series: Mapping[str, Sequence[Row]], since: datetime) -> Found:
    """Of each seed the latest attempt since then that is not `unsupported`, and its value."""
    rows: list[Row | None] = []
    unsupported, old, again = dict[int, str](), set(), dict[int, list[Row]]()
    for seed, key in zip(seeds, place.series, strict=True):
        known = series.get(key, ())
        counting = [row for row in known if row["started_at"] > since]
        said = [row for row in counting if row["status"] != "unsupported"]
        rows.append(said[-1] if said else None)
        if len(said) > 1:
            again[seed] = said
        if counting and not said:
            unsupported[seed] = str(counting[-1]["error"])
        if known and not counting:
            old.add(seed)
    metrics = [m for row in rows if row is not None for m in metrics_of(row, place.cell)]
    unit, worst = next(((str(m["unit"]), m["worst"]) for m in metrics), ("", None))
    values, lacks = [], {}
    for seed, row in zip(seeds, rows, strict=True):
        value, why = value_of(row, place.cell, worst)
        values.append(value)
        if value is None:
            lacks[seed] = "ran before the claim was fixed" if seed in old else why
    changed = tuple(seed for seed, said in again.items() if len({value_of(row, place.cell, worst) for row in said}) > 1)
    return Found(tuple(rows), tuple(values), unit, lacks, unsupported, changed)


def metrics_of(row: Row, cell: Cell) -> list[Mapping[str, Any]]:
    """What an attempt measured of a cell's metric, or where it failed what it owed: that has no part of its own."""
    measured = [m for m in row["measurements"] if m["quantity"] == cell.metric and m["part"] == cell.part]
    return measured or [m for m in row["declared"] if m["quantity"] == cell.metric]


def value_of(row: Row | None, cell: Cell, worst: float | None) -> tuple[float | None, str]:
    """The value, or None and why. A failed attempt, and a number that is none, count as the metric's worst."""
    if row is None:
        return None, "did not run"
    metrics = metrics_of(row, cell)
    value = metrics[0].get("value") if metrics and row["status"] == "ok" else None
    if value is not None and not math.isnan(value):
        return float(value), ""
    if row["status"] not in FAILURES and value is None:
        return None, f"did not measure {cell.metric}"
    declared = metrics[0]["worst"] if metrics else worst
    if declared is None:
        what = "no number" if row["status"] == "ok" else row["status"]
        return None, f"{what}, and {cell.metric} declares no worst value to count it as"
    return float(declared), ""


# How far a protocol has come ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Standing:
    """How far a protocol has come at a place. wanted: trials of the first look; counting: those with an attempt that counts.

    older: trials that only have attempts from before the claim was fixed.
    """

    wanted: int
    counting: int
    older: int


def standing(registry: Registry, fixed: Sequence[tuple[Protocol, Fixing | None]], where: Where) -> list[Standing]:
    """Of each protocol; None: it is not fixed yet, and nothing counts."""
    series = read_evidence(registry, [protocol for protocol, _ in fixed]).rows.get(where, {})
    latest = {
        key: row["started_at"] for key, rows in series.items() for row in rows if row["status"] != "unsupported"
    }  # fmt: skip
    found = []
    for protocol, fixing in fixed:
        keys = [key for place in protocol.places for key in place.series[: len(protocol.seeds)]]
        counting = sum(fixing is not None and key in latest and latest[key] > fixing.fixed_at for key in keys)
        found.append(Standing(len(keys), counting, sum(key in latest for key in keys) - counting))
    return found
