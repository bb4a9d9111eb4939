"""The views that `harness query` offers: the rows of the registry as the long tables that people ask for.

`attempts` has one row an attempt, lists and all; the others repeat its keys on each row. Units are in the names or in `unit`
columns, times are UTC, null is not measured. `v_` views choose: the latest attempt of each series, and scores over seeds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from harness.records import FAILURES
from harness.registry.schema import attempt_schema

# What all views stand on, not for users: the attempts, with the columns that a query needs, and what people say of them. Each has
# a number in this query, `id`, and what it declares as one text, `owed`: numbers are quicker to join by than names are, and a
# text is quicker to compare than a list of structs is. Texts are equal where the lists are: they hold each float in full.
ROWS = "_rows"
OWN = "id, owed"
OWED = "CAST(to_json(declared) AS VARCHAR)"
SAID = ("annotation", "annotation_reason")
# The Arrow tables of which it is made: attempts that were read from their files, and the annotations in force.
READ = "_read"
NOTES = "_notes"
FACTS = "_facts"

# Beyond it squares overflow, and DuckDB then refuses the whole query.
SQUARES = 1e150

# On every row of the long tables: what names the attempt, and what people group and filter by.
KEYS = (
    "attempt_id", "trial_id", "series_key", "pair_key", "invocation", "suite", "machine", "kind", "track", "task",
    "task_params", "method", "role", "paper", "device", "dtype", "threads", "seed", "torch_version", "status", "started_at",
)  # fmt: skip

# Of a number that an attempt measured.
MEASURED = ("quantity", "part", "unit", "better", "value", "worst")

# What must agree before seeds are pooled.
POOLED = (
    "machine", "kind", "track", "task", "task_params", "method", "method_params", "net", "train", "budget", "tuning",
    "device", "dtype", "threads", "torch_version",
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """sql: a SELECT. columns: those of the attempts that it reads. uses: other views in it.

    whole: it also passes on all other columns, so that it reads those that the query names.
    """

    sql: str
    columns: tuple[str, ...]
    uses: tuple[str, ...] = ()
    summary: str = ""
    whole: bool = False


def long_table(column: str, select: str, summary: str) -> View:
    """A view with one row per element `e` of a list column."""
    keys = ", ".join((*KEYS, *SAID))
    sql = f"SELECT {keys}, {select} FROM (SELECT {keys}, unnest({column}) AS e FROM {ROWS})"
    return View(sql, (*KEYS, column), summary=summary)


# The greatest (start, id) and not a window with a sort: of a million attempts a tenth of a second instead of half of one.
LATEST = f"""
SELECT * EXCLUDE ({OWN}) FROM {ROWS} SEMI JOIN (
    SELECT max(struct_pack(started := coalesce(started_at, '-infinity'), attempt_id := attempt_id)).attempt_id AS attempt_id
    FROM {ROWS} WHERE status NOT IN ('interrupted', 'unsupported') AND annotation IS DISTINCT FROM 'invalid'
                      AND attempt_id IS NOT NULL
    GROUP BY series_key, machine) USING (attempt_id)
"""

# A failed attempt counts as `worst` for all that it owed: what it declares itself; in each part in which other attempts of
# its task have that metric; and, where it declares nothing, what they have and it was to measure. Seconds have no `worst`:
# a failed timing attempt is counted and left out.
# The many wide texts that make a pool are compared once, an attempt each; after that a pool is a number, and so is the place of
# an attempt in the order of start and id, by which the last word on a unit, a direction or a role is found without a sort.
LEADERBOARD = f"""
WITH latest AS MATERIALIZED (
    SELECT {", ".join(POOLED)}, attempt_id, role, paper, code_digest, status, measure, declared, timings,
           row_number() OVER (ORDER BY started_at NULLS FIRST, attempt_id) AS place
    FROM v_latest WHERE kind <> 'kernel'),
pools AS MATERIALIZED (
    SELECT {", ".join(POOLED)}, row_number() OVER () AS pool,
           arg_max(struct_pack(role := role, paper := paper), place) AS said, list(place) AS places
    FROM latest GROUP BY {", ".join(POOLED)}),
members AS MATERIALIZED (
    SELECT place, pool, attempt_id, status, code_digest
    FROM (SELECT pool, unnest(places) AS place FROM pools) JOIN latest USING (place)),
measured AS MATERIALIZED (
    SELECT a.place, a.pool, m.quantity, m.part, m.unit, m.better, m.value, m.worst
    FROM measurements AS m JOIN members AS a USING (attempt_id) WHERE a.status = 'ok'),
known AS (
    SELECT p.task, p.task_params, m.quantity, m.part,
           unnest(arg_max(struct_pack(unit := m.unit, better := m.better, worst := m.worst), m.place))
    FROM measured AS m JOIN pools AS p USING (pool) WHERE m.part <> 'resource'
    GROUP BY p.task, p.task_params, m.quantity, m.part),
failed AS (SELECT * FROM latest WHERE status IN {FAILURES!r}),
declared AS (SELECT place, e.* FROM (SELECT place, unnest(declared) AS e FROM failed)),
owed AS (
    SELECT place, quantity, part, unit, better, worst FROM declared
    UNION ALL
    SELECT f.place, k.quantity, k.part, k.unit, k.better, CASE WHEN d.place IS NULL THEN k.worst ELSE d.worst END
    FROM failed f JOIN known k ON k.task = f.task AND k.task_params IS NOT DISTINCT FROM f.task_params
    LEFT JOIN declared d ON d.place = f.place AND d.quantity = k.quantity
    WHERE f.kind = 'quality' AND (d.place IS NOT NULL OR (
        len(f.declared) = 0 AND (len(f.measure) = 0 OR list_contains(f.measure, k.quantity))))
    UNION ALL
    SELECT place, unnest(measure), 'timing', 's', 'lower', NULL FROM failed WHERE kind = 'timing'),
scores AS (
    SELECT place, quantity, part, unit, better, value AS score FROM measured WHERE value IS NOT NULL
    UNION ALL
    SELECT place, e.region, 'timing', 's', 'lower', list_median(e.wall_s)
    FROM (SELECT place, unnest(timings) AS e FROM latest WHERE status = 'ok' AND kind = 'timing') WHERE len(e.wall_s) > 0
    UNION ALL
    SELECT place, quantity, part, any_value(unit), any_value(better), max(worst)
    FROM owed GROUP BY place, quantity, part),
summed AS (
    SELECT a.pool, s.quantity, s.part, s.unit, s.better,
           count(*) FILTER (a.status = 'ok') AS n_ok, count(*) FILTER (a.status <> 'ok') AS n_failed,
           count(*) FILTER (s.score IS NULL) AS n_left_out,
           avg(s.score) AS mean,
           CASE WHEN bool_and(abs(s.score) < {SQUARES})
                THEN stddev_samp(CASE WHEN abs(s.score) < {SQUARES} THEN s.score END) END AS sd,
           median(s.score) AS median, min(s.score) AS min, max(s.score) AS max,
           count(DISTINCT a.code_digest) AS n_code_digests
    FROM scores s JOIN members a USING (place)
    GROUP BY a.pool, s.quantity, s.part, s.unit, s.better)
SELECT {", ".join(f"p.{name}" for name in POOLED)}, p.said.role AS role, p.said.paper AS paper, s.* EXCLUDE (pool)
FROM summed AS s JOIN pools AS p USING (pool)
ORDER BY p.machine, p.task, s.quantity, s.part,
         CASE WHEN s.better = 'higher' THEN -s.mean ELSE s.mean END NULLS LAST, p.method
"""

# Of an implementation of a kernel in one case. A number is the median of its fresh processes', with their range for times.
CASE_OF = ("machine", "task", "task_params", "device", "dtype", "threads", "torch_version")
MEDIANS = ("bytes_rate", "flop_rate", "floor_multiple", "roofline_share", "faults", "extra_bytes", "spread")
KERNELS = f"""
WITH latest AS MATERIALIZED (
    SELECT attempt_id, {", ".join(CASE_OF)}, method, role, paper, status, code_digest FROM v_latest WHERE kind = 'kernel'),
told AS MATERIALIZED (
    SELECT {", ".join(f"l.{name}" for name in (*CASE_OF, "method"))}, m.part, m.quantity, m.value
    FROM latest AS l JOIN measurements AS m USING (attempt_id) WHERE l.status = 'ok' AND isfinite(m.value)),
attempts_of AS (
    SELECT {", ".join(CASE_OF)}, method, any_value(role) AS role, any_value(paper) AS paper,
           count(*) FILTER (status = 'ok') AS n_ok, count(*) FILTER (status <> 'ok') AS n_failed,
           count(DISTINCT code_digest) AS n_code_digests
    FROM latest GROUP BY {", ".join(CASE_OF)}, method),
whole AS (
    SELECT {", ".join(CASE_OF)}, method,
           max(value) FILTER (part = 'check' AND quantity LIKE 'error%') AS error,
           coalesce(max(value) FILTER (part = 'check' AND quantity = 'fallback'), 0) > 0 AS fallback,
           median(value) FILTER (part = 'ceiling' AND quantity = 'copy_rate') AS copy_rate,
           median(value) FILTER (part = 'ceiling' AND quantity = 'matmul_rate') AS matmul_rate,
           max(value) FILTER (part = 'compile' AND quantity = 'first_call') AS first_call_s
    FROM told GROUP BY {", ".join(CASE_OF)}, method),
timed AS (
    SELECT {", ".join(CASE_OF)}, method, part AS region,
           median(value) FILTER (quantity = 'time') AS time_s, min(value) FILTER (quantity = 'time') AS lowest_s,
           max(value) FILTER (quantity = 'time') AS highest_s,
           {", ".join(f"median(value) FILTER (quantity = '{name}') AS {name}" for name in MEDIANS)},
           coalesce(max(value) FILTER (quantity = 'contended'), 0) > 0 AS contended
    FROM told WHERE part NOT IN ('check', 'ceiling', 'compile', 'resource') GROUP BY {", ".join(CASE_OF)}, method, part)
SELECT a.machine, a.task AS kernel, coalesce(split_part(a.method, '/', -1), '') AS implementation, a.role, a.paper,
       CASE WHEN json_valid(a.task_params)
            THEN try_cast(json_extract_string(a.task_params, '$.elements') AS BIGINT) END AS elements,
       CASE WHEN json_valid(a.task_params) THEN json_extract_string(a.task_params, '$.layout') END AS layout,
       a.task_params AS "case", a.device, a.dtype, a.threads, a.torch_version, t.region,
       CASE WHEN t.time_s IS NOT NULL AND a.n_failed = 0 AND NOT w.fallback THEN rank() OVER (
           PARTITION BY {", ".join(f"a.{name}" for name in CASE_OF)}, t.region, t.time_s IS NULL OR a.n_failed > 0 OR w.fallback
           ORDER BY t.time_s) END AS rank,
       a.n_ok, a.n_failed, t.* EXCLUDE ({", ".join((*CASE_OF, "method", "region"))}),
       w.* EXCLUDE ({", ".join((*CASE_OF, "method"))}), a.n_code_digests
FROM attempts_of AS a
LEFT JOIN whole AS w ON {" AND ".join(f"a.{name} IS NOT DISTINCT FROM w.{name}" for name in (*CASE_OF, "method"))}
LEFT JOIN timed AS t ON {" AND ".join(f"a.{name} IS NOT DISTINCT FROM t.{name}" for name in (*CASE_OF, "method"))}
ORDER BY a.machine, kernel, elements, layout, a.device, a.dtype, t.region, rank NULLS LAST, implementation
"""

# What `harness run` fixed of claims, one row a series. Of two facts that fix one protocol the earlier counts. What a stranger
# wrote in another shape is null, or has no row.
FIXED_SHAPE = """{"claim": "VARCHAR", "digest": "VARCHAR", "suite": "VARCHAR", "fixed_at": "VARCHAR", "seeds": ["BIGINT"],
    "extension": ["BIGINT"], "cells": [{"cell": {"method": "VARCHAR", "task": "VARCHAR", "metric": "VARCHAR",
    "part": "VARCHAR", "given": "JSON"}, "series": ["VARCHAR"]}]}"""
CLAIMS = f"""
WITH told AS (SELECT json_transform(facts, '{FIXED_SHAPE}') AS f FROM facts WHERE kind = 'claim'),
cells AS (SELECT f, try_cast(f.fixed_at AS TIMESTAMPTZ) AS fixed_at, unnest(f.cells) AS c FROM told),
series AS (
    SELECT f, fixed_at, c, unnest(c.series) AS series_key,
           unnest(list_concat(f.seeds, f.extension)) AS seed, unnest(range(1, len(c.series) + 1)) > len(f.seeds) AS extends
    FROM cells)
SELECT f.claim AS claim, f.digest AS protocol, f.suite AS suite, min(fixed_at) AS fixed_at, c.cell.method AS method,
       c.cell.task AS task, c.cell.metric AS metric, c.cell.part AS part, CAST(c.cell.given AS VARCHAR) AS "given",
       seed, extends, series_key
FROM series WHERE series_key IS NOT NULL GROUP BY ALL
ORDER BY claim, protocol, method, task, "given", metric, seed
"""

VIEWS = {
    "attempts": View(
        f"SELECT * EXCLUDE ({OWN}) FROM {ROWS}", (), summary="one row an attempt; lists of what it measured", whole=True
    ),
    "measurements": long_table(
        "measurements", ", ".join(f"e.{name}" for name in MEASURED), "one row a number: metric or probe, part"
    ),
    "series": long_table(
        "series", "e.quantity, e.part, e.unit, e.axis, unnest(e.x) AS x, unnest(e.y) AS y", "one row a point of a metric"
    ),
    "curves": long_table(
        "curve",
        # try: a stranger's clocks may have no name, or one name twice.
        "e.quantity, e.part, e.unit, e.value, try(map_from_entries(e.at)) AS clocks, "
        "try(map_from_entries(e.at))['wall_s'] AS at_wall_s",
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
    "v_latest": View(
        LATEST, ("series_key", "machine", "status", "started_at"),
        summary="the last attempt of each series on each machine that says something", whole=True,
    ),
    "v_leaderboard": View(
        LEADERBOARD,
        (*POOLED, "role", "paper", "code_digest", "measure", "declared", "timings"),
        uses=("v_latest", "measurements"),
        summary="mean, sd, n ok, n failed over seeds by method, task, metric and part; failed ones count as `worst`",
    ),
    "v_kernels": View(
        KERNELS,
        (*CASE_OF, "kind", "method", "role", "paper", "status", "code_digest", "series_key", "started_at"),
        uses=("v_latest", "measurements"),
        summary="time, share of the roofline, error of each implementation of a kernel by case and region; failed: no rank",
    ),
    "v_claims": View(
        CLAIMS, (), uses=("facts",),
        summary="what claims are judged on: the series of each cell and seed, fixed at a time; later attempts count",
    ),
}  # fmt: skip

# For the harness's own large questions, by attempts' numbers; no user is told of them.
INNER = {
    "_numbered": View(f"SELECT * FROM {ROWS}", ("declared",), whole=True),
    "_measured": View(
        f"SELECT id, e.quantity, e.part, e.value FROM (SELECT id, unnest(measurements) AS e FROM {ROWS})", ("measurements",)
    ),
}
KNOWN = {**VIEWS, **INNER}


def with_uses(names: Iterable[str]) -> list[str]:
    """The views and those that they stand on, in the order in which they can be made."""
    needed = set(names)
    needed |= {used for name in needed for used in KNOWN[name].uses}
    return [name for name in sorted(KNOWN, key=lambda n: len(KNOWN[n].uses)) if name in needed]


def columns_of(names: Iterable[str], named: Iterable[str] | None) -> set[str]:
    """The columns of the attempts that these views read. named: those that the query names; None: all of them."""
    views = [KNOWN[name] for name in with_uses(names)]
    found = {"attempt_id"}.union(*(view.columns for view in views))
    if any(KNOWN[name].whole for name in names):
        known = set(attempt_schema().names)
        found |= known if named is None else known & set(named)
    return found


# Where the rows come from ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Indexed:
    """The index as a source of rows. catalog: under which name it is attached. columns: what is asked of it.

    lacking: whether some rows are not in it, but in READ.
    """

    catalog: str
    columns: tuple[str, ...]
    lacking: bool


def rows_sql(index: Indexed | None, read: Collection[str], said: bool) -> str:
    """ROWS. read: the columns of READ, `id` among them. said: whether people said anything of attempts; a join with nothing is
    not free."""
    owed = f"{OWED if 'declared' in read else 'NULL::VARCHAR'} AS owed"
    rows = f"SELECT *, {owed} FROM {READ}"
    if index is not None:
        named = ", ".join(index.columns)
        more = f" UNION ALL SELECT id, {named}, {owed} FROM {READ}" if index.lacking else ""
        rows = f"SELECT id, {named}, owed FROM {index.catalog}.rows{more}"
    if not said:
        return f"SELECT *, {', '.join(f'NULL::VARCHAR AS {name}' for name in SAID)} FROM ({rows})"
    return f"SELECT r.*, {', '.join(f'n.{name}' for name in SAID)} FROM ({rows}) AS r LEFT JOIN {NOTES} AS n USING (attempt_id)"


def over_index(index: Indexed) -> dict[str, str]:
    """The views that are others over an index, which has the measurements as a table of their own."""
    measured = f"SELECT id, {', '.join(MEASURED)} FROM {index.catalog}.measured"
    if index.lacking:
        read = f"SELECT id, unnest(measurements) AS e FROM {READ}"
        measured += f" UNION ALL SELECT id, {', '.join(f'e.{name}' for name in MEASURED)} FROM ({read})"
    keys = ", ".join((*KEYS, *SAID, *(f"m.{name}" for name in MEASURED)))
    return {"measurements": f"SELECT {keys} FROM {ROWS} JOIN ({measured}) AS m USING (id)", "_measured": measured}


def repeated_sql(index: Indexed) -> str:
    """Finds something where an attempt that was read from its file is in the index too: then neither would be seen once."""
    return f"SELECT 1 FROM {index.catalog}.rows SEMI JOIN {READ} USING (attempt_id) LIMIT 1"
