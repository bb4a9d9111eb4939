"""One method, as a registry knows it: where it stands on each board, how it got there, how it ended, what is claimed."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.leaderboard import Board, Metric, Row, make_leaderboards
from harness.records import FAILURES
from harness.registry import Registry
from harness.showing import one_line

if TYPE_CHECKING:
    from harness.claims.verdicts import Verdict

WALL = "wall_s"  # the clock that every curve has; another one says more
MAX_ERROR = 200  # characters

MEMBERS = "members AS (SELECT unnest($ids) AS attempt_id, unnest($places) AS place, unnest($metrics) AS metric)"
# Offers are numbered within an attempt: at the k-th one, all seeds have spent as much.
CURVES = f"""
WITH {MEMBERS},
points AS (
    SELECT m.place, c.value, c.clocks, row_number() OVER (PARTITION BY c.attempt_id ORDER BY c.at_wall_s) AS k
    FROM curves AS c JOIN members AS m ON m.attempt_id = c.attempt_id AND m.metric = c.quantity WHERE c.part = 'test'),
laid AS (SELECT place, k, value, unnest(map_entries(clocks)) AS e FROM points)
SELECT place, k, e.key AS clock, avg(e.value) AS at, avg(value) AS mean
FROM laid WHERE isfinite(value) AND isfinite(e.value) AND abs(value) < 1e300 AND abs(e.value) < 1e300
GROUP BY place, k, e.key ORDER BY place, e.key, k
"""
HISTORY = f"""
WITH {MEMBERS},
keys AS MATERIALIZED (
    SELECT DISTINCT m.place, m.metric, a.series_key, a.machine FROM attempts AS a JOIN members AS m USING (attempt_id)
    WHERE a.kind = 'quality'),
runs AS MATERIALIZED (
    SELECT k.place, k.metric, a.attempt_id, a.invocation, a.started_at, a.git_commit, a.status
    FROM attempts AS a JOIN keys AS k USING (series_key, machine)
    WHERE a.status NOT IN ('interrupted', 'unsupported') AND a.annotation IS DISTINCT FROM 'invalid'),
told AS (
    SELECT r.place, r.attempt_id, m.value FROM measurements AS m JOIN runs AS r USING (attempt_id)
    WHERE m.part = 'test' AND m.quantity = r.metric AND isfinite(m.value) AND abs(m.value) < 1e300)
SELECT r.place, r.invocation, min(r.started_at) AS started_at, max(r.git_commit) AS git_commit, avg(t.value) AS mean,
       count(*) FILTER (r.status = 'ok') AS n_ok, count(*) FILTER (r.status IN {FAILURES!r}) AS n_failed
FROM runs AS r LEFT JOIN told AS t USING (place, attempt_id)
GROUP BY r.place, r.invocation ORDER BY r.place, min(r.started_at), r.invocation
"""
ENDED = f"""
WITH {MEMBERS}
SELECT m.place, a.attempt_id, a.suite, a.status, a.error, a.seed, a.paper
FROM attempts AS a JOIN members AS m USING (attempt_id)
ORDER BY a.attempt_id
"""
# Every metric of these attempts.
METRICS = """
SELECT method, task, quantity, part, unit, device, avg(value) AS mean,
       CASE WHEN bool_and(abs(value) < 1e150) THEN stddev_samp(CASE WHEN abs(value) < 1e150 THEN value END) END AS sd,
       count(value) AS n
FROM measurements WHERE attempt_id IN (SELECT unnest($ids)) GROUP BY ALL ORDER BY ALL
"""
# Of a method that no board shows: its records declare no metric.
OFF_BOARDS = """
SELECT attempt_id, method FROM v_latest
WHERE kind = 'quality' AND (method = $method OR split_part(method, '/', -1) = $method)
"""


@dataclass(frozen=True)
class Curve:
    """The board's metric on the test part while training, mean over seeds, by a clock."""

    clock: str
    at: tuple[float, ...]
    mean: tuple[float, ...]


@dataclass(frozen=True)
class Night:
    """One invocation of the series. mean: of what ended well; None where nothing did. started_at: UTC."""

    started_at: str
    git_commit: str
    mean: float | None
    n_ok: int
    n_failed: int


@dataclass(frozen=True)
class Failure:
    attempt_id: str
    seed: int
    status: str
    error: str


@dataclass(frozen=True)
class Place:
    """The method on one board: as `row`, among `of` that are ranked. scale: the ends of all intervals on the board."""

    task: str
    shared: Mapping[str, Any]
    metric: Metric
    baseline: str
    of: int
    scale: tuple[float, float]
    row: Row
    curve: Curve | None
    history: tuple[Night, ...]
    failures: tuple[Failure, ...]
    suites: tuple[str, ...]
    rerun: tuple[str, ...]


@dataclass(frozen=True)
class Portrait:
    """metrics: all that was measured of the method, by task, part and device. verdicts: of its paper's claims."""

    method: str
    paper: str
    places: tuple[Place, ...]
    metrics: tuple[Mapping[str, Any], ...]
    verdicts: tuple[Verdict, ...]


def make_portrait(
    registry: Registry, name: str, machine: str, judge: Callable[[str], Sequence[Verdict]] = lambda paper: (), *,
    curves: bool = True,
) -> Portrait | None:  # fmt: skip
    """None where the registry holds no result of such a method.

    name: "crrelu" or "dist/crrelu". judge: gives the verdicts on a paper's claims. curves: False leaves them out; they are the
    one thing that no index has. Raises HarnessError for a bare name that two distributions bear.
    """
    boards = make_leaderboards(registry, None, machine, with_ids=True)
    found = [(board, row) for board in boards for row in board.rows if name in (row.ref, row.ref.rpartition("/")[2])]
    ids = [id for _, row in found for id in row.attempts]
    refs = {row.ref for _, row in found}
    if not found:
        rows = registry.query(OFF_BOARDS, {"method": name}).to_pylist()
        ids, refs = [row["attempt_id"] for row in rows], {str(row["method"]) for row in rows}
    if not refs:
        return None
    if len(refs) > 1:
        raise HarnessError(f"{name!r} may mean several methods; write one of them: {', '.join(map(one_line, sorted(refs)))}")
    metrics = registry.query(METRICS, {"ids": ids}).to_pylist()
    told = read_told(registry, found, curves)
    paper = next((str(row["paper"]) for rows in told.ended.values() for row in rows if row["paper"]), "")
    places = tuple(place_of(number, board, row, told, registry) for number, (board, row) in enumerate(found))
    return Portrait(refs.pop(), paper, places, tuple(metrics), tuple(judge(paper)) if paper else ())


@dataclass(frozen=True)
class Told:
    """What was asked of all places at once, by the place's number."""

    nights: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    ended: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    curves: Mapping[int, Sequence[Mapping[str, Any]]] = field(default_factory=dict)


def read_told(registry: Registry, found: Sequence[tuple[Board, Row]], curves: bool) -> Told:
    members = [(id, number, board.metric.name) for number, (board, row) in enumerate(found) for id in row.attempts]
    if not members:
        return Told()
    ids, places, metrics = (list(column) for column in zip(*members, strict=True))
    parameters = {"ids": ids, "places": places, "metrics": metrics}
    asked = [by_place(registry.query(sql, parameters).to_pylist()) for sql in (HISTORY, ENDED, *([CURVES] if curves else []))]
    return Told(*asked)


def by_place(rows: Sequence[Mapping[str, Any]]) -> dict[int, list[Mapping[str, Any]]]:
    found: dict[int, list[Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["place"], []).append(row)
    return found


def place_of(number: int, board: Board, row: Row, told: Told, registry: Registry) -> Place:
    ended = told.ended.get(number, ())
    suites = tuple(dict.fromkeys(str(each["suite"]) for each in reversed(ended) if each["suite"]))
    bare = row.ref.rpartition("/")[2]
    intervals = [r.interval for r in board.rows if r.interval and r.n_ok]
    ends = [end for i in intervals for end in (i.mean if i.low is None else i.low, i.mean if i.high is None else i.high)]
    return Place(
        task=board.task,
        shared=board.shared,
        metric=board.metric,
        baseline=board.baseline,
        of=sum(r.rank is not None for r in board.rows),
        scale=(min(ends, default=0.0), max(ends, default=1.0)),
        row=row,
        curve=curve_of(told.curves.get(number, ())),
        history=tuple(map(night_of, told.nights.get(number, ()))),
        failures=tuple(map(failure_of, (each for each in ended if each["status"] in FAILURES))),
        suites=suites,
        rerun=tuple(command(suite, bare, registry) for suite in suites),
    )


def curve_of(points: Sequence[Mapping[str, Any]]) -> Curve | None:
    """By the first clock that is not the wall's."""
    clocks = dict.fromkeys(str(point["clock"]) for point in points)
    if not clocks:
        return None
    clock = next((name for name in clocks if name != WALL), WALL)
    kept = [point for point in points if point["clock"] == clock]
    return Curve(clock, tuple(p["at"] for p in kept), tuple(p["mean"] for p in kept))


def night_of(row: Mapping[str, Any]) -> Night:
    started = row["started_at"].isoformat(timespec="seconds") if row["started_at"] else ""
    return Night(started, row["git_commit"] or "", row["mean"], row["n_ok"], row["n_failed"])


def failure_of(row: Mapping[str, Any]) -> Failure:
    lines = (row["error"] or "").strip().splitlines()
    return Failure(row["attempt_id"], row["seed"], row["status"], lines[-1][:MAX_ERROR] if lines else "")


def command(suite: str, method: str, registry: Registry) -> str:
    """What runs the method's trials of a suite anew."""
    words = ["harness", "run", suite, "--method", method, "--force", "--registry", str(registry.path)]
    return one_line(" ".join(map(shlex.quote, words)))
