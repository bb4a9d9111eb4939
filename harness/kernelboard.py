"""Kernel boards: the implementations of a kernel side by side, case by case, on one machine. Nothing is drawn here.

In: the view `v_kernels`. An implementation whose result was wrong has no time and no rank; one that fell back to eager code
is labelled and not ranked as what it was meant to be.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.identity import canonical
from harness.records import KERNEL_REGIONS, Trial, case_text
from harness.registry import Registry
from harness.strangers import MAX_SHOWN, read_json

NOISY = 0.10  # interquartile range over median
MIN_COPY_RATE = 1e9  # below it, a copy is nothing but the cost of its call
SHARED = ("kernel", "device", "dtype", "threads", "torch_version", "machine")


@dataclass(frozen=True)
class Figure:
    """One region of one implementation in one case. time_s: the median of the processes' medians, between lowest and highest.

    floor_multiple: of the time in which the same bytes can be copied. roofline_share: of what the device can do, 1 is best.
    faults: page faults a call. spread: interquartile range over median, within a process.
    """

    time_s: float
    lowest_s: float
    highest_s: float
    floor_multiple: float | None
    roofline_share: float | None
    bytes_rate: float | None
    flop_rate: float | None
    faults: float | None
    extra_bytes: float | None
    spread: float | None
    contended: bool
    rank: int | None

    @property
    def doubtful(self) -> bool:
        return self.contended or (self.spread or 0.0) > NOISY


@dataclass(frozen=True)
class KernelRow:
    """One implementation in one case. figures: by region. error: the largest, over the largest value of the reference."""

    case: str
    implementation: str
    role: str
    figures: Mapping[str, Figure]
    error: float | None
    fallback: bool
    first_call_s: float | None
    n_ok: int
    n_failed: int


@dataclass(frozen=True)
class KernelBoard:
    """One kernel on one device. shared, case: what its rows agree in. copy_rates: bytes a second, by case, where it tells."""

    kernel: str
    shared: Mapping[str, Any]
    case: Mapping[str, Any]
    rows: tuple[KernelRow, ...]
    copy_rates: Mapping[str, float]

    @property
    def regions(self) -> tuple[str, ...]:
        """Those that were timed, the well-known ones first."""
        found = {region for row in self.rows for region in row.figures}
        return (*(r for r in KERNEL_REGIONS if r in found), *sorted(found - set(KERNEL_REGIONS) - {"copy"}))


@dataclass(frozen=True)
class Payoff:
    """What compiling costs, and after how many steps (forward and backward) it has been worth it; None: never."""

    case: str
    first_call_s: float
    steps: int | None


def payoffs(board: KernelBoard) -> list[Payoff]:
    """For each case in which compiled and eager code were both timed."""
    found = []
    eager = {row.case: step_s(row) for row in board.rows if row.implementation == "eager"}
    for row in board.rows:
        mine, theirs = step_s(row), eager.get(row.case)
        if row.first_call_s is not None and mine is not None and theirs is not None:
            steps = math.ceil(row.first_call_s / (theirs - mine)) if theirs > mine else None
            found.append(Payoff(row.case, row.first_call_s, steps))
    return found


def step_s(row: KernelRow) -> float | None:
    """Seconds of the last region that there is: both passes, where both were timed."""
    return next((row.figures[region].time_s for region in reversed(KERNEL_REGIONS) if region in row.figures), None)


def make_kernel_boards(registry: Registry, machine: str, trials: Collection[Trial] | None = None) -> list[KernelBoard]:
    """Boards of the latest attempts on one machine. trials: only the series of these; None: all."""
    rows = registry.query("SELECT * FROM v_kernels WHERE machine = ?", [machine]).to_pylist()
    if trials is not None:
        wanted = {series_of(t.task, t.task_params, t.method, t.device, t.dtype, t.threads) for t in trials}
        rows = [row for row in rows if row_series(row) in wanted]
    rows.sort(key=lambda row: ([str(row[name]) for name in SHARED], row["elements"] or 0, str(row["case"])))
    grouped = itertools.groupby(rows, key=lambda row: [row[name] for name in SHARED])
    return [make_board(list(group)) for _, group in grouped]


def series_of(kernel: str, case: Mapping[str, Any], method: str, device: str, dtype: str, threads: int) -> tuple[Any, ...]:
    return (kernel, canonical(dict(case)), method.rpartition("/")[2], device, dtype, threads)


def row_series(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("kernel", "case", "implementation", "device", "dtype", "threads"))


def make_board(rows: Sequence[Mapping[str, Any]]) -> KernelBoard:
    shared = {name: rows[0][name] for name in SHARED}
    common = common_case([case_of(row) for row in rows])
    rates = {label_of(row, common): row["copy_rate"] for row in rows if (row["copy_rate"] or 0.0) >= MIN_COPY_RATE}
    return KernelBoard(str(shared["kernel"]), shared, common, tuple(make_rows(rows, common)), rates)


def common_case(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Parameters that have one value throughout, without size and layout."""
    first = cases[0]
    names = [n for n in first if n not in ("elements", "layout")]
    return {n: first[n] for n in names if all(n in case and case[n] == first[n] for case in cases)}


def make_rows(rows: Sequence[Mapping[str, Any]], common: Mapping[str, Any]) -> Iterator[KernelRow]:
    """Case by case, small first; in a case the best first, by the last region that all have; what has no rank stands last."""
    for _, of_case in itertools.groupby(rows, key=lambda row: row["case"]):
        by_name: dict[str, list[Mapping[str, Any]]] = {}
        for row in of_case:
            by_name.setdefault(row["implementation"], []).append(row)
        yield from sorted((make_row(those, common) for those in by_name.values()), key=speed)


def make_row(rows: Sequence[Mapping[str, Any]], common: Mapping[str, Any]) -> KernelRow:
    first = rows[0]
    figures = {row["region"]: figure_of(row) for row in rows if row["region"] is not None and row["time_s"] is not None}
    return KernelRow(
        case=label_of(first, common), implementation=first["implementation"], role=first["role"], figures=figures,
        error=first["error"], fallback=bool(first["fallback"]), first_call_s=first["first_call_s"], n_ok=first["n_ok"],
        n_failed=first["n_failed"],
    )  # fmt: skip


def figure_of(row: Mapping[str, Any]) -> Figure:
    return Figure(**{name: row[name] for name in Figure.__dataclass_fields__})


def label_of(row: Mapping[str, Any], common: Collection[str] = ()) -> str:
    """The case without the parameters in `common`."""
    case = case_of(row)
    return case_text({n: v for n, v in case.items() if n not in common}) if case else str(row["case"])[:MAX_SHOWN]


def case_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Nothing where a stranger's record holds something else."""
    case = read_json(row["case"] or "")
    return case if isinstance(case, dict) and isinstance(case.get("elements", 0), int) else {}


def speed(row: KernelRow) -> tuple[bool, float, str]:
    time_s = step_s(row)
    return (time_s is None or row.n_failed > 0 or row.fallback, time_s or 0.0, row.implementation)
