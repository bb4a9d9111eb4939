"""The registry in, all that the pages are made of out: `Collected`, frozen. What is shown follows from the records alone.

Nothing depends on the time, on where the registry lies, or on the order of its files: a merged copy gives the same pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.comparing import Comparison, Contrasts, compare_kernels, compare_results, read_sides
from harness.errors import HarnessError
from harness.kernelboard import KernelBoard, make_kernel_boards
from harness.kernels.ceilings import MachineCheck, latest_checks
from harness.leaderboard import Board, make_leaderboards
from harness.pooling import Pool, make_pools
from harness.records import FAILURES
from harness.regress.judging import Rules, Verdicts, judge_histories, measured_floors
from harness.regress.points import History, read_histories
from harness.report.artefacts import Artefact, read_artefacts

if TYPE_CHECKING:
    from harness.claims.verdicts import Verdict
    from harness.registry import Registry
    from harness.specs import Paper

# An attempt as a page lists it; its log stays in the registry.
SHOWN = (
    "attempt_id",
    "trial_id",
    "pair_key",
    "series_key",
    "invocation",
    "suite",
    "machine",
    "environment",
    "kind",
    "task",
    "task_params",
    "method",
    "role",
    "paper",
    "device",
    "dtype",
    "threads",
    "seed",
    "root_seed",
    "torch_version",
    "status",
    "error",
    "limit_fired",
    "annotation",
    "annotation_reason",
    "started_at",
    "git_commit",
    "git_dirty",
    "wall_s",
    "solve_s",
    "cpu_s",
    "peak_rss_bytes",
    "peak_device_bytes",
    "params",
    "code_digest",
    "data_digest",
)
CHOSEN = f"SELECT {', '.join(SHOWN)} FROM attempts WHERE attempt_id IN (SELECT unnest($ids)) ORDER BY attempt_id"
VALUES = """
SELECT attempt_id, quantity, value FROM measurements
WHERE part = 'test' AND value IS NOT NULL AND attempt_id IN (SELECT unnest($ids)) ORDER BY ALL
"""
# Offers are numbered within an attempt: at the k-th one, all seeds have spent as much.
CURVES = """
WITH members AS (SELECT unnest($ids) AS attempt_id, unnest($groups) AS g),
points AS (
    SELECT m.g, c.quantity, c.value, c.clocks,
           row_number() OVER (PARTITION BY c.attempt_id, c.quantity ORDER BY c.at_wall_s) AS k
    FROM curves AS c JOIN members AS m USING (attempt_id) WHERE c.part = $part),
laid AS (SELECT g, quantity, k, value, unnest(map_entries(clocks)) AS e FROM points)
SELECT g, quantity, k, e.key AS clock, avg(e.value) AS at, avg(value) AS mean, stddev_samp(value) AS sd, count(*) AS n
FROM laid WHERE isfinite(value) AND abs(value) < 1e100 AND isfinite(e.value) AND abs(e.value) < 1e100
GROUP BY g, quantity, k, e.key ORDER BY ALL
"""
COUNTS = f"""
SELECT suite, machine, kind, count(*) AS n, count(*) FILTER (status = 'ok') AS ok,
       count(*) FILTER (status IN {FAILURES!r}) AS failed,
       count(*) FILTER (status NOT IN ('ok', {str(FAILURES)[1:-1]})) AS other,
       count(DISTINCT invocation) AS invocations, min(started_at) AS first, max(started_at) AS last, sum(wall_s) AS wall_s
FROM attempts WHERE annotation IS DISTINCT FROM 'invalid' GROUP BY suite, machine, kind ORDER BY ALL
"""
# The last word on each series: what has failed since is still wrong, what was mended is not; what was interrupted says nothing.
FAILED = f"""
SELECT attempt_id, suite, machine, kind, method, task, task_params, device, seed, status, error, limit_fired, paper, annotation,
       annotation_reason
FROM v_latest WHERE status IN {FAILURES!r} ORDER BY attempt_id
"""
# `v_latest` leaves out what is unsupported: here where it is the last word on its series.
UNSUPPORTED = """
SELECT attempt_id, suite, machine, kind, method, task, task_params, device, seed, status, error, limit_fired, paper, annotation,
       annotation_reason
FROM (SELECT *, row_number() OVER (PARTITION BY series_key, machine ORDER BY started_at DESC NULLS LAST, attempt_id DESC) AS age
      FROM attempts WHERE status <> 'interrupted' AND annotation IS DISTINCT FROM 'invalid')
WHERE age = 1 AND status = 'unsupported' ORDER BY attempt_id
"""
DECLARED = """
SELECT attempt_id, e.quantity, e.worst FROM (
    SELECT attempt_id, unnest(declared) AS e FROM attempts WHERE kind = 'quality' AND attempt_id IN (SELECT unnest($ids)))
WHERE e.worst IS NOT NULL ORDER BY ALL
"""
SPENT = "SELECT attempt_id, clock, amount FROM spent WHERE attempt_id IN (SELECT unnest($ids)) ORDER BY ALL"
KERNEL_IDS = """
SELECT attempt_id, task, task_params, method, device, dtype, threads, torch_version, machine FROM v_latest
WHERE kind = 'kernel' ORDER BY attempt_id
"""
KERNEL_TIMES = """
SELECT attempt_id, part AS region, value FROM measurements
WHERE kind = 'kernel' AND quantity = 'time' AND attempt_id IN (SELECT unnest($ids)) ORDER BY ALL
"""
ROOFS = """
SELECT kernel, "case", device, dtype, threads, torch_version, machine,
       median(copy_rate) AS copy_rate, median(matmul_rate) AS matmul_rate
FROM v_kernels WHERE copy_rate > 0 AND matmul_rate > 0 GROUP BY ALL ORDER BY ALL
"""
NEWEST = """
SELECT max(started_at) AS at, arg_max(git_commit, struct_pack(s := started_at, i := attempt_id)) AS git_commit,
       arg_max(torch_version, struct_pack(s := started_at, i := attempt_id)) AS torch_version, count(*) AS n,
       count(*) FILTER (annotation = 'invalid') AS n_invalid, count(DISTINCT environment) AS environments
FROM attempts WHERE started_at IS NOT NULL
"""

DIGITS = 12
KERNEL_SHARED = ("device", "dtype", "threads", "torch_version", "machine")

Attempt = Mapping[str, Any]


@dataclass(frozen=True)
class CurvePoint:
    """The mean over n seeds at an offer. at: the mean amount on the clock."""

    at: float
    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True)
class Machine:
    """A machine of the registry. histories: of it, with the verdicts on them."""

    name: str
    facts: Mapping[str, Any]
    checks: tuple[MachineCheck, ...]
    noise: Mapping[tuple[str, int], float]
    environments: tuple[str, ...]
    histories: tuple[History, ...]
    verdicts: Verdicts


@dataclass(frozen=True)
class Collected:
    """All that the pages show. attempts, values, spent, kernel_times: by attempt id, of what boards rest on.

    worst: by board's number, what a failure counts as. curves: by (board's number, row's number in it, quantity, clock).
    kernel_ids: attempts by (kernel board's number, case, implementation). roofs: by kernel board and case, the bytes/s and
    FLOP/s that were measured beside it. papers: those that plugins declare, by name. method_kinds: what they declare of
    methods, by reference. artefacts: by attempt id, of the trials that stand for a method on a board.
    """

    boards: tuple[Board, ...]
    pools: tuple[Pool, ...]
    kernels: tuple[KernelBoard, ...]
    machines: tuple[Machine, ...]
    attempts: Mapping[str, Attempt]
    values: Mapping[str, Mapping[str, float]]
    worst: tuple[float | None, ...]
    spent: Mapping[str, Mapping[str, float]]
    curves: Mapping[tuple[int, int, str, str], tuple[CurvePoint, ...]]
    kernel_ids: Mapping[tuple[int, str, str], tuple[str, ...]]
    kernel_times: Mapping[str, Mapping[str, float]]
    roofs: Mapping[int, Mapping[str, tuple[float, float]]]
    counts: tuple[Mapping[str, Any], ...]
    failed: tuple[Attempt, ...]
    unsupported: tuple[Attempt, ...]
    newest: Mapping[str, Any]
    environments: Mapping[str, Mapping[str, Any]]
    data: Mapping[str, Mapping[str, Any]]
    papers: Mapping[str, Paper]
    compared: Comparison | None = None
    contrasts: Contrasts | None = None
    verdicts: tuple[Verdict, ...] = ()
    method_kinds: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    artefacts: Mapping[str, tuple[Artefact, ...]] = field(default_factory=dict)

    @property
    def empty(self) -> bool:
        return not self.counts


def collect(
    registry: Registry,
    papers: Iterable[Paper] = (),
    verdicts: Sequence[Verdict] = (),
    methods: Mapping[str, Mapping[str, str]] | None = None,
    compared: tuple[str, str] | None = None,
) -> Collected:
    """compared: two kernels' implementations, commits, days or machines; None: eager code and ours, where both were timed.

    papers, methods (what is declared of a method, by reference): of the catalogue; verdicts: of `harness.claims`."""
    counts = registry.query(COUNTS).to_pylist()
    facts = registry.facts()
    names = sorted({str(row["machine"]) for row in counts} | checked_machines(facts))
    boards = [board for name in names for board in make_leaderboards(registry, None, name, with_ids=True)]
    kernels = [board for name in names for board in make_kernel_boards(registry, name)]
    ids = sorted({id for board in boards for row in board.rows for id in row.attempts})
    by_kernel = kernel_attempts(registry, kernels)
    timed = sorted({id for those in by_kernel.values() for id in those})
    attempts = {row["attempt_id"]: row for row in registry.query(CHOSEN, {"ids": [*ids, *timed]}).to_pylist()}
    times = compare_times(registry, compared) if kernels else None
    contrasts = compare_named(registry, *compared) if compared is not None and times is None else None
    values = nested(registry.query(VALUES, {"ids": ids}).to_pylist())
    return Collected(
        boards=tuple(boards),
        pools=tuple(make_pools(boards)),
        kernels=tuple(kernels),
        machines=tuple(read_machine(registry, name, facts, attempts) for name in names),
        attempts=attempts,
        values=values,
        worst=worst_of(boards, nested(registry.query(DECLARED, {"ids": ids}).to_pylist())),
        spent=nested(registry.query(SPENT, {"ids": ids}).to_pylist()),
        curves=read_curves(registry, boards),
        kernel_ids=by_kernel,
        kernel_times=nested(registry.query(KERNEL_TIMES, {"ids": timed}).to_pylist()),
        roofs=read_roofs(registry, kernels),
        counts=tuple(counts),
        failed=tuple(registry.query(FAILED).to_pylist()),
        unsupported=tuple(registry.query(UNSUPPORTED).to_pylist()),
        newest=registry.query(NEWEST).to_pylist()[0],
        environments=named_facts(facts, "environment"),
        data=named_facts(facts, "data"),
        papers={paper.name: paper for paper in sorted(papers, key=lambda p: p.name)},
        verdicts=tuple(sorted(verdicts, key=lambda v: (v.claim, v.machine, v.device, v.protocol))),
        compared=times,
        contrasts=contrasts,
        method_kinds=methods or {},
        artefacts=read_artefacts(registry, boards, attempts, values),
    )


def compare_times(registry: Registry, compared: tuple[str, str] | None) -> Comparison | None:
    """None where the two sides share no timed case: then they are methods, or nothing."""
    try:
        return compare_kernels(registry, *(compared or ("eager", "ours")))
    except HarnessError:
        return None


def compare_named(registry: Registry, a: str, b: str) -> Contrasts:
    """Raises HarnessError for a name that means nothing here, or several things."""
    return compare_results(registry, *read_sides(registry, a, b))


def checked_machines(facts: Iterable[Mapping[str, Any]]) -> set[str]:
    """Those that were checked, also without an attempt."""
    return {f["facts"]["machine"] for f in facts if f["kind"] == "ceilings" and isinstance(f["facts"].get("machine"), str)}


def named_facts(facts: Iterable[Mapping[str, Any]], kind: str) -> dict[str, Mapping[str, Any]]:
    """By name. Two that are told differently under one name: the one whose text is less, whatever the order of the files."""
    found: dict[str, Mapping[str, Any]] = {}
    for fact in facts:
        told = fact["facts"]
        if fact["kind"] == kind and isinstance(told, dict):
            before = found.get(fact["name"])
            if before is None or json.dumps(told, sort_keys=True) < json.dumps(before, sort_keys=True):
                found[fact["name"]] = told
    return found


def nested(rows: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """(id, name, number) as id -> name -> number."""
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        id, name, value = row.values()
        found.setdefault(id, {})[name] = value
    return found


def worst_of(boards: Iterable[Board], declared: Mapping[str, Mapping[str, float]]) -> tuple[float | None, ...]:
    """What a failure counts as on each board: the last attempt's word, as the boards have it."""
    found = []
    for board in boards:
        name = board.metric.name
        ids = [id for row in board.rows for id in row.attempts if name in declared.get(id, {})]
        found.append(declared[max(ids)][name] if ids else None)
    return tuple(found)


def read_machine(registry: Registry, name: str, facts: Sequence[Mapping[str, Any]], attempts: Mapping[str, Attempt]) -> Machine:
    noise = measured_floors(registry, name)
    histories = read_histories(registry, machine=name)
    return Machine(
        name=name,
        facts=named_facts(facts, "machine").get(name, {}),
        checks=tuple(latest_checks(facts, name)),
        noise=noise,
        environments=tuple(sorted({str(a["environment"]) for a in attempts.values() if a["machine"] == name})),
        histories=tuple(histories),
        verdicts=judge_histories(histories, name, Rules(floors=noise)),
    )


def read_curves(registry: Registry, boards: Sequence[Board]) -> dict[tuple[int, int, str, str], tuple[CurvePoint, ...]]:
    """On the test part, which no training saw; the clocks are those of the track."""
    members = [
        (id, number << 20 | at)
        for number, board in enumerate(boards)
        for at, row in enumerate(board.rows)
        for id in row.attempts
    ]
    if not members:
        return {}
    ids, groups = zip(*members, strict=True)
    found: dict[tuple[int, int, str, str], list[CurvePoint]] = {}
    for row in registry.query(CURVES, {"ids": list(ids), "groups": list(groups), "part": "test"}).to_pylist():
        key = (row["g"] >> 20, row["g"] & (1 << 20) - 1, row["quantity"], row["clock"])
        found.setdefault(key, []).append(CurvePoint(steady(row["at"]), steady(row["mean"]), steady(row["sd"]), row["n"]))
    return {key: tuple(points) for key, points in found.items()}


def steady(value: float | None) -> Any:
    """To the digits that a sum keeps in whatever order DuckDB takes it."""
    return None if value is None else float(f"{value:.{DIGITS}g}")


def kernel_attempts(registry: Registry, boards: Sequence[KernelBoard]) -> dict[tuple[int, str, str], tuple[str, ...]]:
    """(number of the board, case, implementation) -> the latest attempts, by the same labels as the board has them."""
    from harness.kernelboard import label_of

    if not boards:
        return {}
    places = places_of(boards)
    found: dict[tuple[int, str, str], list[str]] = {}
    for row in registry.query(KERNEL_IDS).to_pylist():
        number = places.get((row["task"], *(row[n] for n in KERNEL_SHARED)))
        if number is not None:
            case = label_of({"case": row["task_params"]}, boards[number].case)
            found.setdefault((number, case, str(row["method"]).rpartition("/")[2]), []).append(row["attempt_id"])
    return {key: tuple(ids) for key, ids in found.items()}


def places_of(boards: Sequence[KernelBoard]) -> dict[tuple[Any, ...], int]:
    return {(board.kernel, *(board.shared[n] for n in KERNEL_SHARED)): i for i, board in enumerate(boards)}


def read_roofs(registry: Registry, boards: Sequence[KernelBoard]) -> dict[int, dict[str, tuple[float, float]]]:
    """By case: what fits into a cache is copied several times as fast as what does not."""
    from harness.kernelboard import label_of

    places = places_of(boards)
    found: dict[int, dict[str, tuple[float, float]]] = {}
    for row in registry.query(ROOFS).to_pylist() if boards else []:
        number = places.get((row["kernel"], *(row[n] for n in KERNEL_SHARED)))
        if number is not None:
            case = label_of({"case": row["case"]}, boards[number].case)
            found.setdefault(number, {})[case] = (row["copy_rate"], row["matmul_rate"])
    return found
