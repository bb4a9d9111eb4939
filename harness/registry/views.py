"""The views that `harness query` offers: the rows of the registry as the long tables that people ask for.

`attempts` has one row an attempt, lists and all; the others repeat its keys on each row. Units are in the names or in `unit`
columns, times are UTC, null is not measured. `v_` views choose: the latest attempt of each series, and scores over seeds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.records import FAILURES
from harness.registry.schema import attempt_schema

ROWS = "_rows"  # the Arrow table that all views stand on; not for users: it holds only the columns that a query needs
FACTS = "_facts"

# On every row of the long tables: what names the attempt, and what people group and filter by.
KEYS = (
    "attempt_id", "trial_id", "series_key", "pair_key", "invocation", "suite", "machine", "kind", "track", "task", "method",
    "role", "paper", "device", "dtype", "threads", "seed", "torch_version", "status", "started_at",
)  # fmt: skip

# What must agree before seeds are pooled.
POOLED = (
    "machine", "kind", "track", "task", "task_params", "method", "method_params", "net", "train", "budget", "tuning",
    "device", "dtype", "threads", "torch_version",
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """sql: a SELECT. columns: those of the attempts that it reads; None: all. uses: other views in it."""

    sql: str
    columns: tuple[str, ...] | None
    uses: tuple[str, ...] = ()
    summary: str = ""


def long_table(column: str, select: str, summary: str) -> View:
    """A view with one row per element `e` of a list column."""
    keys = ", ".join(KEYS)
    sql = f"SELECT {keys}, {select} FROM (SELECT {keys}, unnest({column}) AS e FROM {ROWS})"
    return View(sql, (*KEYS, column), summary=summary)


LATEST = f"""
SELECT * FROM {ROWS} WHERE status NOT IN ('interrupted', 'unsupported')
QUALIFY row_number() OVER (
    PARTITION BY series_key, machine ORDER BY started_at DESC NULLS LAST, attempt_id DESC) = 1
"""

# A failed attempt counts as `worst` for all that it owed: what it declares itself; in each part in which other attempts of
# its task have that metric; and, where it declares nothing, what they have and it was to measure. Seconds have no `worst`:
# a failed timing attempt is counted and left out.
LEADERBOARD = f"""
WITH latest AS (SELECT {", ".join(POOLED)}, attempt_id, role, paper, code_digest, started_at, status, measure,
                       declared, measurements, timings FROM v_latest),
known AS (
    SELECT task, task_params, e.quantity AS quantity, e.part AS part, last(e.unit ORDER BY started_at) AS unit,
           last(e.better ORDER BY started_at) AS better, last(e.worst ORDER BY started_at) AS worst
    FROM (SELECT task, task_params, started_at, unnest(measurements) AS e FROM {ROWS} WHERE status = 'ok')
    WHERE e.part <> 'resource' GROUP BY ALL),
failed AS (SELECT * FROM latest WHERE status IN {FAILURES!r}),
declared AS (SELECT attempt_id, e.* FROM (SELECT attempt_id, unnest(declared) AS e FROM failed)),
owed AS (
    SELECT attempt_id, quantity, part, unit, better, worst FROM declared
    UNION ALL
    SELECT f.attempt_id, k.quantity, k.part, k.unit, k.better, CASE WHEN d.attempt_id IS NULL THEN k.worst ELSE d.worst END
    FROM failed f JOIN known k ON k.task = f.task AND k.task_params IS NOT DISTINCT FROM f.task_params
    LEFT JOIN declared d ON d.attempt_id = f.attempt_id AND d.quantity = k.quantity
    WHERE f.kind = 'quality' AND (d.attempt_id IS NOT NULL OR (
        len(f.declared) = 0 AND (len(f.measure) = 0 OR list_contains(f.measure, k.quantity))))
    UNION ALL
    SELECT attempt_id, unnest(measure), 'timing', 's', 'lower', NULL FROM failed WHERE kind = 'timing'),
scores AS (
    SELECT attempt_id, e.quantity AS quantity, e.part AS part, e.unit AS unit, e.better AS better, e.value AS score
    FROM (SELECT attempt_id, unnest(measurements) AS e FROM latest WHERE status = 'ok') WHERE e.value IS NOT NULL
    UNION ALL
    SELECT attempt_id, e.region, 'timing', 's', 'lower', list_median(e.wall_s)
    FROM (SELECT attempt_id, unnest(timings) AS e FROM latest WHERE status = 'ok' AND kind = 'timing') WHERE len(e.wall_s) > 0
    UNION ALL
    SELECT attempt_id, quantity, part, any_value(unit), any_value(better), max(worst)
    FROM owed GROUP BY attempt_id, quantity, part)
SELECT {", ".join(f"l.{name}" for name in POOLED)},
       last(l.role ORDER BY l.started_at) AS role, last(l.paper ORDER BY l.started_at) AS paper,
       s.quantity, s.part, s.unit, s.better,
       count(*) FILTER (l.status = 'ok') AS n_ok, count(*) FILTER (l.status <> 'ok') AS n_failed,
       count(*) FILTER (s.score IS NULL) AS n_left_out,
       avg(s.score) AS mean,
       CASE WHEN bool_and(isfinite(s.score)) THEN stddev_samp(CASE WHEN isfinite(s.score) THEN s.score END) END AS sd,
       median(s.score) AS median, min(s.score) AS min, max(s.score) AS max,
       count(DISTINCT l.code_digest) AS n_code_digests
FROM scores s JOIN latest l USING (attempt_id)
GROUP BY {", ".join(f"l.{name}" for name in POOLED)}, s.quantity, s.part, s.unit, s.better
ORDER BY l.machine, l.task, s.quantity, s.part,
         CASE WHEN s.better = 'higher' THEN -avg(s.score) ELSE avg(s.score) END NULLS LAST, l.method
"""

VIEWS = {
    "attempts": View(f"SELECT * FROM {ROWS}", None, summary="one row an attempt; lists of what it measured"),
    "measurements": long_table(
        "measurements", "e.quantity, e.part, e.unit, e.better, e.value, e.worst", "one row a number: metric or probe, part"
    ),
    "series": long_table(
        "series", "e.quantity, e.part, e.unit, e.axis, unnest(e.x) AS x, unnest(e.y) AS y", "one row a point of a metric"
    ),
    "curves": long_table(
        "curve",
        "e.quantity, e.part, e.unit, e.value, map_from_entries(e.at) AS clocks, map_from_entries(e.at)['wall_s'] AS at_wall_s",
        "one row an offer and metric; clocks: amounts by name",
    ),
    "timings": long_table(
        "timings",
        "e.region, e.warmup, e.stop_reason, unnest(range(1, len(e.wall_s) + 1)) AS sample, "
        "unnest(e.wall_s) AS sample_wall_s, unnest(e.cpu_s) AS sample_cpu_s",
        "one row a raw sample, seconds a call",
    ),
    "spent": long_table("spent", "e.clock, e.amount", "one row a budget clock: what the attempt used"),
    "diagnostics": long_table("diagnostics", "e.name, e.value, e.text", "what methods logged; never ranked"),
    "blobs": long_table("blobs", "e.name, e.media_type, e.sha256, e.size_bytes", "one row an artefact, kept under blobs/"),
    "facts": View(f"SELECT * FROM {FACTS}", (), summary="machines, environments and data that attempts name; facts: JSON"),
    "v_latest": View(LATEST, None, summary="the last attempt of each series on each machine that says something"),
    "v_leaderboard": View(
        LEADERBOARD,
        (*POOLED, "attempt_id", "role", "paper", "series_key", "code_digest", "started_at", "status", "measure", "declared",
         "measurements", "timings"),
        uses=("v_latest",),
        summary="mean, sd, n ok, n failed over seeds by method, task, metric and part; failed ones count as `worst`",
    ),
}  # fmt: skip


def with_uses(names: Iterable[str]) -> list[str]:
    """The views and those that they stand on, in the order in which they can be made."""
    needed = set(names)
    needed |= {used for name in needed for used in VIEWS[name].uses}
    return [name for name in sorted(VIEWS, key=lambda n: len(VIEWS[n].uses)) if name in needed]


def columns_of(names: Iterable[str]) -> set[str]:
    """The columns of the attempts that these views read."""
    found: set[str] = set()
    for name in names:
        columns = VIEWS[name].columns
        found |= set(attempt_schema().names if columns is None else columns)
    return found
