"""Two sides of quality results, pair by pair: differences with intervals where keys match, and why not where they do not.

Methods pair by `pair_key`; commits, dates, machines and environments by `series_key`. Besides what is asked about, machine and
torch version must agree. Of several attempts of one series on one side the latest counts; one that failed counts as the
metric's declared `worst`, and is left out where there is none.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from statistics import median
from typing import Any, Literal

from harness.comparing.sides import Side
from harness.identity import canonical
from harness.leaderboard import Metric, method_labels
from harness.records import FAILURES
from harness.registry import Registry
from harness.showing import one_line
from harness.stats import FEWEST_PAIRS, Interval, effect_size, holm, paired_interval, paired_t_p, sign_flip_p, t_interval
from harness.strangers import read_json, strangeness

Verdict = Literal["better", "worse", "same", "ambiguous"]
SAME = 0.005  # `same` is said only where the whole interval is no larger than this share of A's mean
LEVEL = 0.05
OBJECTS = ("method_params", "task_params", "net", "train", "budget", "matched")
# Besides the seed, what must agree before two results are compared, in the order in which a reader would look for the cause.
CONTROLLED = (
    "task_params",
    "net",
    "train",
    "budget",
    "tuning",
    "device",
    "dtype",
    "threads",
    "torch_version",
    "machine",
    "root_seed",
)
IGNORED: Mapping[str, tuple[str, ...]] = {
    "method": (), "commit": (), "date": (), "machine": ("machine",), "environment": ("torch_version",)
}  # fmt: skip
BESIDES = ("git_commit", "environment", "data_digest", "code_digest")
Row = Mapping[str, Any]
Name = Literal["a", "b"]
Pools = dict[str, dict[str, list[dict[str, Any]]]]  # what must agree -> the method with its parameters -> its rows

LATEST = """
SELECT attempt_id, kind, role, method, method_params, task, task_params, net, train, budget, tuning, matched, device, dtype,
       threads, seed, root_seed, torch_version, machine, environment, git_commit, code_digest, data_digest, pair_key,
       series_key, status, solve_s, declared
FROM attempts
WHERE kind = 'quality' AND status <> 'interrupted' AND annotation IS DISTINCT FROM 'invalid' AND {side}
QUALIFY row_number() OVER (PARTITION BY series_key, machine, torch_version
                           ORDER BY status = 'unsupported', started_at DESC NULLS LAST, attempt_id DESC) = 1
"""
VALUES = """
SELECT attempt_id, quantity, unit, better, worst, value FROM measurements
WHERE part = 'test' AND status = 'ok' AND value IS NOT NULL AND attempt_id IN (SELECT unnest($ids))
"""


@dataclass(frozen=True)
class Contrast:
    """B against A on one metric of one task. difference: B - A, pair by pair; better: it is so in the metric's direction.

    where: what both share (task, net, device, ..., of a side that is no method also the method). a, b: over the pairs.
    p_flip: of the sign-flip test; p_holm: of the paired t test, adjusted for all contrasts of the table: it decides,
    from 5 pairs on.
    effect: standardised difference; cost_ratio: median seconds of B over those of A, of pairs that ended well, indicative.
    only_a, only_b: seeds that the other side lacks. attempts: of A, then of B, pair by pair.
    """

    where: Mapping[str, Any]
    metric: Metric
    method_a: str
    method_b: str
    a: Interval
    b: Interval
    difference: Interval
    p_flip: float | None
    p_holm: float
    effect: float | None
    failed_a: int
    failed_b: int
    cost_ratio: float | None
    only_a: tuple[int, ...]
    only_b: tuple[int, ...]
    verdict: Verdict
    attempts: tuple[tuple[str, ...], tuple[str, ...]]


@dataclass(frozen=True)
class Apart:
    """Results of one side without a partner on the other. side: "a" or "b"; seeds: how many; because: what differs."""

    side: Name
    where: Mapping[str, Any]
    method: str
    seeds: int
    because: tuple[str, ...]


@dataclass(frozen=True)
class Contrasts:
    """packages: name, version of A, version of B, where they differ; "" where it is not installed. besides: what differs
    between the sides besides what was asked about, so that a reader knows what else may be the cause."""

    a: Side
    b: Side
    packages: tuple[tuple[str, str, str], ...]
    contrasts: tuple[Contrast, ...]
    apart: tuple[Apart, ...]
    besides: tuple[str, ...]


def compare_results(
    registry: Registry, a: Side, b: Side, tasks: Sequence[str] = (), methods: Sequence[str] = (), metrics: Sequence[str] = ()
) -> Contrasts:
    """tasks, methods: patterns, of these only. metrics: names; none: the one by which the task ranks."""
    sides = [chosen(read_side(registry, side), tasks, methods) for side in (a, b)]
    labelled([row for rows in sides for row in rows])
    pools = [pooled(rows, a.kind) for rows in sides]
    contrasts: list[Contrast] = []
    apart: list[Apart] = []
    for key in pools[0].keys() & pools[1].keys():
        for one, other in itertools.product(pools[0][key].values(), pools[1][key].values()):
            made = contrasts_of(one, other, a.kind, metrics)
            contrasts += made
            apart += [] if made else [apart_of("a", one, [other], a.kind)]
    turns: tuple[tuple[Name, Pools, Pools], ...] = (("a", pools[0], pools[1]), ("b", pools[1], pools[0]))
    for name, own, others in turns:
        theirs = [rows for uses in others.values() for rows in uses.values()]
        alone = [rows for key, uses in own.items() if key not in others for rows in uses.values()]
        apart += [apart_of(name, rows, theirs, a.kind) for rows in alone]
    contrasts.sort(key=lambda c: (c.where["task"], canonical(c.where), c.method_a, c.method_b))
    apart.sort(key=lambda each: (each.side, each.where["task"], canonical(each.where), each.method))
    environments = packages_between(registry, *sides) if a.kind == "environment" else ()
    return Contrasts(a, b, environments, tuple(judged(contrasts)), tuple(apart), tuple(differing(a.kind, contrasts, sides)))


# Reading --------------------------------------------------------------------------------------------------------------


def read_side(registry: Registry, side: Side) -> list[dict[str, Any]]:
    """The latest attempts of a side, JSON decoded, with the values of the test part; of strangers' records a warning."""
    rows = registry.query(LATEST.format(side=side.sql), {"values": list(side.values)}).to_pylist()
    kept = []
    for row in rows:
        for name in OBJECTS:
            row[name] = read_json(row[name]) if row[name] else None
        if (why := strangeness(row)) or not isinstance(row["seed"], int):
            registry.warn(
                f"attempt {row['attempt_id']} is left out of the comparison: {why or 'it has no seed'}, which no harness writes"
            )
        else:
            kept.append(row | {"values": {}, "measured": []})
    by_id = {row["attempt_id"]: row for row in kept}
    for found in registry.query(VALUES, {"ids": list(by_id)}).to_pylist() if kept else ():
        by_id[found["attempt_id"]]["values"][found["quantity"]] = found["value"]
        by_id[found["attempt_id"]]["measured"].append(found)
    for row in kept:
        row["declared"] = row["declared"] or row["measured"]  # imported records may declare nothing
    return sorted(kept, key=lambda row: (row["task"], row["method"], row["seed"], row["attempt_id"]))


def labelled(rows: Sequence[dict[str, Any]]) -> None:
    """Give each row the name of its method, with the parameters in which uses of one method differ."""
    uses = {canonical([row["method"], given(row)]): (row["method"], given(row)) for row in rows}
    labels = method_labels(uses)
    for row in rows:
        row["label"] = labels[canonical([row["method"], given(row)])]


def chosen(rows: Iterable[dict[str, Any]], tasks: Sequence[str], methods: Sequence[str]) -> list[dict[str, Any]]:
    def fits(ref: str, patterns: Sequence[str]) -> bool:
        return not patterns or any(fnmatchcase(name, p) for p in patterns for name in (ref, ref.rpartition("/")[2]))

    return [row for row in rows if fits(row["task"], tasks) and fits(row["method"], methods)]


def pooled(rows: Iterable[dict[str, Any]], kind: str) -> Pools:
    found: Pools = {}
    for row in rows:
        shared = controlled(row, kind)
        use = canonical([row["method"], given(row) if kind == "method" else row["method_params"]])
        key = canonical([row["task"], shared, None if kind == "method" else use])
        found.setdefault(key, {}).setdefault(use, []).append(row)
    return found


def controlled(row: Row, kind: str) -> dict[str, Any]:
    """Of two methods a matched one takes net and training of the baseline, as its pair key does."""
    matched = row["matched"] if kind == "method" else None
    own = {name: matched[name] if matched and name in ("net", "train") else row[name] for name in CONTROLLED}
    return {name: value for name, value in own.items() if name not in IGNORED[kind]}


def given(row: Row) -> dict[str, Any]:
    """A method's parameters, but for a matched one."""
    matched = row["matched"]
    hidden = matched["where"].removeprefix("method.") if matched and matched["where"].startswith("method.") else None
    return {k: v for k, v in (row["method_params"] or {}).items() if k != hidden}


# One contrast ---------------------------------------------------------------------------------------------------------


def contrasts_of(one: Sequence[Row], other: Sequence[Row], kind: str, metrics: Sequence[str]) -> list[Contrast]:
    """Empty where no seed has a value on both sides. Not yet judged: `p_holm` is the raw one."""
    key = "pair_key" if kind == "method" else "series_key"
    left, right = ({row[key]: row for row in rows} for rows in (one, other))
    declared = {d["quantity"]: d for rows in (other, one) for row in rows for d in row["declared"] or ()}
    ranked = [name for name, d in declared.items() if d["better"] != "neither"]
    wanted = [name for name in ranked if name in metrics] if metrics else first_of([*one, *other], ranked)
    made = []
    for name in wanted:
        metric = Metric(name, declared[name]["unit"], declared[name]["better"])
        values = [
            {k: v for k, row in side.items() if (v := value_of(row, declared[name])) is not None} for side in (left, right)
        ]
        both = [k for k in left if k in values[0] and k in values[1]]
        if both:
            pairs = [(left[k], right[k]) for k in both]
            made.append(contrast_of(metric, one, other, pairs, [[v[k] for k in both] for v in values], kind))
    return made


def first_of(rows: Sequence[Row], ranked: Sequence[str]) -> list[str]:
    """By which the task ranks: the first that the first attempt declares."""
    owed = [d["quantity"] for row in rows for d in row["declared"] or ()]
    return [name for name in dict.fromkeys(owed) if name in ranked][:1]


def value_of(row: Row, metric: Row) -> float | None:
    """Of a failure the `worst` that this task's metric has."""
    value = metric["worst"] if row["status"] in FAILURES else row["values"].get(metric["quantity"])
    return float(value) if value is not None and math.isfinite(value) else None


def contrast_of(
    metric: Metric,
    one: Sequence[Row],
    other: Sequence[Row],
    pairs: Sequence[tuple[Row, Row]],
    values: Sequence[list[float]],
    kind: str,
) -> Contrast:
    a, b = values
    differences = [y - x for x, y in zip(a, b, strict=True)]
    seeds = [{row["seed"] for row in rows} for rows in (one, other)]
    ok = [(x, y) for x, y in pairs if x["status"] == y["status"] == "ok" and x["solve_s"] and y["solve_s"]]
    seconds = [median(pair[i]["solve_s"] for pair in ok) for i in (0, 1)] if ok else None
    return Contrast(
        where={"task": one[0]["task"], **controlled(one[0], kind)},
        metric=metric,
        method_a=one[0]["label"],
        method_b=other[0]["label"],
        a=t_interval(a),
        b=t_interval(b),
        difference=paired_interval(b, a),
        p_flip=sign_flip_p(differences),
        p_holm=float(paired_t_p([differences])[0]),
        effect=effect_size(differences),
        failed_a=sum(row["status"] in FAILURES for row in one),
        failed_b=sum(row["status"] in FAILURES for row in other),
        cost_ratio=seconds[1] / seconds[0] if seconds else None,
        only_a=tuple(sorted(seeds[0] - seeds[1])),
        only_b=tuple(sorted(seeds[1] - seeds[0])),
        verdict="ambiguous",
        attempts=(tuple(x["attempt_id"] for x, _ in pairs), tuple(y["attempt_id"] for _, y in pairs)),
    )


def judged(contrasts: Sequence[Contrast]) -> list[Contrast]:
    adjusted = holm([c.p_holm for c in contrasts])
    return [replace(c, p_holm=p, verdict=verdict_of(c, p)) for c, p in zip(contrasts, adjusted, strict=True)]


def verdict_of(contrast: Contrast, p: float) -> Verdict:
    """No significance is no sameness: `same` wants the whole interval near 0."""
    found = contrast.difference
    if p <= LEVEL and found.n >= FEWEST_PAIRS:
        return "better" if (found.mean > 0) == (contrast.metric.better == "higher") else "worse"
    if found.low is None or found.high is None:
        return "ambiguous"
    return "same" if max(abs(found.low), abs(found.high)) <= SAME * abs(contrast.a.mean) else "ambiguous"


# What has no partner --------------------------------------------------------------------------------------------------


def apart_of(side: Name, rows: Sequence[Row], others: Sequence[Sequence[Row]], kind: str) -> Apart:
    """Told against the results of the other side that differ in least."""
    same = [r for r in others if r[0]["task"] == rows[0]["task"] and (kind == "method" or r[0]["method"] == rows[0]["method"])]
    because = min((reasons(rows, r, kind) for r in same), key=len, default=("the other side has no such results",))
    where = {"task": rows[0]["task"], **controlled(rows[0], kind)}
    return Apart(side, where, rows[0]["label"], len(rows), because)


def reasons(rows: Sequence[Row], others: Sequence[Row], kind: str) -> tuple[str, ...]:
    one, other = controlled(rows[0], kind), controlled(others[0], kind)
    if kind != "method" and rows[0]["method_params"] != others[0]["method_params"]:
        one, other = ({"method_params": r[0]["method_params"], **part} for r, part in ((rows, one), (others, other)))
    found = [
        part
        for name in one
        if canonical(one[name]) != canonical(other[name])
        for part in difference(name, one[name], other[name])
    ]
    if found:
        return tuple(found)
    seeds = [sorted({row["seed"] for row in side}) for side in (rows, others)]
    if not set(seeds[0]) & set(seeds[1]):
        return (f"no seed in common: {spans(seeds[0])} against {spans(seeds[1])}",)
    return ("no metric in common has a value on both sides",)


def difference(name: str, one: Any, other: Any) -> list[str]:
    """ "device: cpu against cuda"; of objects only the members that differ: "net.width: 16 against 32"."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        names = [k for k in dict.fromkeys([*one, *other]) if canonical(one.get(k)) != canonical(other.get(k))]
        return [f"{name}.{k}: {shown(one.get(k))} against {shown(other.get(k))}" for k in names]
    return [f"{name}: {shown(one)} against {shown(other)}"]


def shown(value: Any) -> str:
    text = "nothing" if value is None else canonical(value) if isinstance(value, Mapping | list) else str(value)
    return one_line(text if len(text) <= 60 else text[:60] + "…")


def spans(numbers: Sequence[int]) -> str:
    """ "0-4, 7": runs of whole numbers."""
    found: list[list[int]] = []
    for number in numbers:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in found)


# What else differs ----------------------------------------------------------------------------------------------------


def differing(kind: str, contrasts: Sequence[Contrast], sides: Sequence[Sequence[Row]]) -> list[str]:
    """Of the attempts that were compared, what differs between the sides besides what was asked about."""
    compared = [{i for c in contrasts for i in c.attempts[side]} for side in (0, 1)]
    rows = [[row for row in side if row["attempt_id"] in ids] for side, ids in zip(sides, compared, strict=True)]
    asked = {"commit": ("git_commit", "code_digest"), "environment": ("environment",), "method": ("code_digest",)}.get(kind, ())
    found = []
    for name in BESIDES:
        one, other = ({str(row[name] or "nothing") for row in side} for side in rows)
        if name not in asked and one != other:
            listed = (", ".join(sorted(v[:12] for v in side)) for side in (one, other))
            found.append(one_line(f"{name.replace('_', ' ')}: {' against '.join(listed)}"))
    return found


def packages_between(registry: Registry, a: Sequence[Row], b: Sequence[Row]) -> tuple[tuple[str, str, str], ...]:
    """Python, operating system and packages that differ between the environments that the two sides used last."""
    facts = {f["name"]: f["facts"] for f in registry.facts() if f["kind"] == "environment"}
    one, other = (versions(facts.get(last_environment(rows))) for rows in (a, b))
    names = sorted(one.keys() | other.keys())
    return tuple((name, one.get(name, ""), other.get(name, "")) for name in names if one.get(name) != other.get(name))


def last_environment(rows: Sequence[Row]) -> str:
    return str(max(rows, key=lambda row: str(row["attempt_id"]))["environment"]) if rows else ""


def versions(facts: Any) -> dict[str, str]:
    if not isinstance(facts, Mapping):
        return {}
    packages = facts.get("packages")
    found = {str(k): str(v) for k, v in packages.items()} if isinstance(packages, Mapping) else {}
    return {name: str(facts[name]) for name in ("python", "implementation", "os", "libc") if name in facts} | found
