"""Two kernels, commits, days or machines against each other, case by case: ratios of times with their intervals.

Fresh processes are the units: times within one process vary less than times between processes, and would promise too much.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import HarnessError
from harness.registry import Registry
from harness.stats import t_quantile

Verdict = Literal["faster", "slower", "same", "ambiguous"]
SAME = 0.03  # `same` is said only where the whole interval lies so near to 1
COMMIT = re.compile(r"[0-9a-f]{4,40}")
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
WHERE = ("kernel", "case", "device", "dtype", "threads", "region")
Row = Mapping[str, Any]

TIMES = """
SELECT m.task AS kernel, m.task_params AS "case", m.device, m.dtype, m.threads, m.torch_version, m.machine, m.part AS region,
       split_part(m.method, '/', -1) AS implementation, m.seed, m.value AS time_s, a.git_commit,
       strftime(m.started_at AT TIME ZONE 'UTC', '%Y-%m-%d') AS day, m.attempt_id
FROM measurements AS m JOIN (SELECT attempt_id, git_commit FROM attempts WHERE kind = 'kernel') AS a USING (attempt_id)
WHERE m.status = 'ok' AND m.quantity = 'time' AND m.value > 0 AND isfinite(m.value) AND m.part <> 'copy'
  AND m.annotation IS DISTINCT FROM 'invalid'
ORDER BY m.started_at, m.attempt_id
"""


@dataclass(frozen=True)
class Ratio:
    """Time of b over time of a in one region of one case. low, high: 95 %, None with a single process on either side.

    a_s, b_s: geometric means over processes. n_a, n_b: processes.
    """

    where: Mapping[str, Any]
    a_s: float
    b_s: float
    ratio: float
    low: float | None
    high: float | None
    n_a: int
    n_b: int
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """differs: what the two sides differ in besides what was asked for, so that a reader knows what else may be the cause."""

    a: str
    b: str
    ratios: tuple[Ratio, ...]
    differs: tuple[str, ...]


def compare_kernels(registry: Registry, a: str, b: str) -> Comparison:
    """a, b: an implementation ("ours", "crrelu/ours"), a commit, a day (2026-11-24) or a machine.

    Raises HarnessError where one is none of these in this registry, or where they share no case.
    """
    rows = registry.query(TIMES).to_pylist()
    if not rows:
        raise HarnessError(f"registry {registry.path}: it holds no timed kernels; run `harness run kernels` first")
    sides = [side_of(rows, name) for name in (a, b)]
    # Two implementations share a case of a kernel; two commits, days or machines an implementation of it.
    keys = WHERE if all(kind == "implementation" for kind, _ in sides) else (*WHERE, "implementation")
    left, right = (latest(side, keys) for _, side in sides)
    shared = [key for key in left if key in right]
    if not shared:
        raise HarnessError(f'{a!r} and {b!r} share no case of a kernel; `harness query "SELECT * FROM v_kernels"` shows all')
    ratios = tuple(ratio_of(dict(zip(keys, key, strict=True)), left[key], right[key]) for key in shared)
    return Comparison(
        a, b, ratios, tuple(differences([r for k in shared for r in left[k]], [r for k in shared for r in right[k]]))
    )


def side_of(rows: Sequence[Row], name: str) -> tuple[str, list[Row]]:
    """What kind of thing a name is, and its rows. Raises HarnessError with what there is."""
    kinds: list[tuple[str, Callable[[Row], bool]]] = [
        ("implementation", lambda r: name in (r["implementation"], f"{bare(r['kernel'])}/{r['implementation']}")),
        ("machine", lambda r: r["machine"] == name),
    ]
    if DAY.fullmatch(name):
        kinds.append(("day", lambda r: r["day"] == name))
    if COMMIT.fullmatch(name):
        kinds.append(("commit", lambda r: str(r["git_commit"] or "").startswith(name)))
    for kind, fits in kinds:
        if found := [row for row in rows if fits(row)]:
            return kind, found
    columns = {"implementations": "implementation", "machines": "machine", "days": "day", "commits": "git_commit"}
    there = {kind: sorted({str(row[column]) for row in rows}) for kind, column in columns.items()}
    told = "; ".join(f"{kind} {', '.join(names[-8:])}" for kind, names in there.items())
    raise HarnessError(f"no timed kernels of {name!r}; there are {told}")


def bare(name: str) -> str:
    return name.rpartition("/")[2]


def latest(rows: Sequence[Row], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Row]]:
    """By key, the last reading of each process (seed) on the machine that was timed last; rows come in the order of time."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[name] for name in keys), []).append(row)
    return {key: last_of(those) for key, those in found.items()}


def last_of(rows: Sequence[Row]) -> list[Row]:
    last = rows[-1]
    same = [r for r in rows if all(r[name] == last[name] for name in ("machine", "torch_version", "implementation"))]
    return list({row["seed"]: row for row in same}.values())


def ratio_of(where: Mapping[str, Any], a: Sequence[Row], b: Sequence[Row]) -> Ratio:
    logs_a, logs_b = ([math.log(row["time_s"]) for row in rows] for rows in (a, b))
    middle_a, middle_b = (math.fsum(logs) / len(logs) for logs in (logs_a, logs_b))
    half = half_width(logs_a, logs_b)
    difference = middle_b - middle_a
    low, high = (None, None) if half is None else (math.exp(difference - half), math.exp(difference + half))
    ratio = math.exp(difference)
    return Ratio(where, math.exp(middle_a), math.exp(middle_b), ratio, low, high, len(a), len(b), verdict(low, high))


def half_width(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Of Welch's 95 % interval of the difference of two means; None where one side has a single value."""
    if min(len(a), len(b)) < 2:
        return None
    parts = [math.fsum((x - math.fsum(side) / len(side)) ** 2 for x in side) / (len(side) - 1) / len(side) for side in (a, b)]
    total = sum(parts)
    if total == 0.0:
        return 0.0
    freedom = total**2 / sum(p**2 / (len(side) - 1) for p, side in zip(parts, (a, b), strict=True))
    return t_quantile(0.975, max(1, math.floor(freedom))) * math.sqrt(total)


def verdict(low: float | None, high: float | None) -> Verdict:
    """No significance is no sameness: `same` wants the whole interval near 1."""
    if low is None or high is None:
        return "ambiguous"
    if low >= 1 - SAME and high <= 1 + SAME:
        return "same"
    return "slower" if low > 1 else "faster" if high < 1 else "ambiguous"


def differences(a: Sequence[Row], b: Sequence[Row]) -> list[str]:
    """What must agree before times are compared, and does not."""
    found = []
    for name in ("machine", "torch_version"):
        left, right = ({str(row[name]) for row in rows} for rows in (a, b))
        if left != right:
            found.append(f"{name}: {', '.join(sorted(left))} against {', '.join(sorted(right))}")
    return found


def by_kernel(ratios: Sequence[Ratio]) -> list[tuple[str, list[Ratio]]]:
    """In the order of kernel, size and region."""
    ordered = sorted(ratios, key=lambda r: [str(r.where[name]) for name in ("kernel", "device", "dtype", "case", "region")])
    return [(kernel, list(those)) for kernel, those in itertools.groupby(ordered, key=lambda r: str(r.where["kernel"]))]
