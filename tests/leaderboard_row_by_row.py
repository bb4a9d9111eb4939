"""Leaderboards attempt by attempt, in plain Python: slow, and simple enough to be believed. What the tests compare with.

It reads all rows of a registry as dicts; of DuckDB it needs a connection of its own, so no view or index of ours takes part.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean, median
from typing import Any

import duckdb
from scipy import special

from harness.identity import canonical
from harness.leaderboard import Board, Metric, Row
from harness.records import FAILURES
from harness.registry import Registry
from harness.stats import Interval, holm, paired_interval, t_interval

SHARED = ("task", "task_params", "net", "train", "budget", "device", "dtype", "threads", "torch_version", "machine", "tuning",
          "root_seed")  # fmt: skip


def make_leaderboards(
    registry: Registry, trial_ids: Iterable[str] | None, machine: str, baseline: str | None = None
) -> list[Board]:
    attempts = latest_attempts(registry, trial_ids, machine)
    groups: dict[str, list[dict[str, Any]]] = {}
    for attempt in attempts:
        groups.setdefault(canonical([shared_part(attempt, name) for name in SHARED]), []).append(attempt)
    boards = [make_board(group, baseline) for _, group in sorted(groups.items())]
    return with_task_labels([b for b in boards if b is not None])


def with_task_labels(boards: Sequence[Board]) -> list[Board]:
    """Where several boards are of one task, the parameters in which they differ are part of its label."""
    labelled = []
    for board in boards:
        same = [b.shared["task_params"] or {} for b in boards if b.shared["task"] == board.shared["task"]]
        own = board.shared["task_params"] or {}
        varying = [f"{k}={v}" for k, v in own.items() if len({canonical(p.get(k)) for p in same}) > 1]
        labelled.append(replace(board, task=board.task + (f"({', '.join(varying)})" if varying else "")))
    return labelled


def latest_attempts(registry: Registry, trial_ids: Iterable[str] | None, machine: str) -> list[dict[str, Any]]:
    """Attempts as dicts, measurements of the test part under "values".

    Interrupted and invalid ones are left out; `unsupported` is the last word on a trial only where there is no other.
    """
    chosen = "" if trial_ids is None else "AND trial_id IN (SELECT unnest($ids))"
    parameters: dict[str, Any] = {"machine": machine}
    if trial_ids is not None:
        parameters["ids"] = sorted(trial_ids)
    with duckdb.connect() as con:
        con.register("attempts", registry.table())
        con.register("annotations", registry.annotations())
        rows: list[dict[str, Any]] = (
            con.sql(
                f"""
            SELECT *, [m FOR m IN measurements IF m.part = 'test'] AS measured,
                   [{{'region': t.region, 'median_s': list_median(t.wall_s)}} FOR t IN timings] AS medians
            FROM attempts WHERE machine = $machine AND status <> 'interrupted'
            AND kind <> 'tuning' {chosen}
            AND attempt_id NOT IN (SELECT attempt_id FROM annotations WHERE annotation = 'invalid')
            QUALIFY row_number() OVER (PARTITION BY {"series_key" if trial_ids is None else "trial_id"}
                                       ORDER BY status = 'unsupported', attempt_id DESC) = 1
            ORDER BY attempt_id
            """,
                params=parameters,
            )
            .to_arrow_table()
            .to_pylist()
        )
    for row in rows:
        for name in ("method_params", "task_params", "net", "train", "budget", "tuning", "matched"):
            row[name] = json.loads(row[name]) if row[name] else None
        row["values"] = {m["quantity"]: m["value"] for m in row.pop("measured") or []}
        row["timings"] = row.pop("medians")
    return rows


def shared_part(attempt: Mapping[str, Any], name: str) -> Any:
    """What a board's attempts have in common; for a matched one, net and training of the baseline that it was matched to."""
    if name in ("net", "train") and attempt["matched"]:
        return attempt["matched"][name]
    return attempt[name]


def make_board(attempts: Sequence[Mapping[str, Any]], wanted: str | None = None) -> Board | None:
    """None where no quality attempt of the group declares a metric."""
    quality = [a for a in attempts if a["kind"] == "quality"]
    metrics = declared_metrics(quality)
    if not metrics:
        return None
    first = metrics[0]
    worst = {d["quantity"]: d["worst"] for a in quality for d in a["declared"] or []}
    names = method_labels(attempts)
    by_method: dict[str, list[Mapping[str, Any]]] = {}
    for a in attempts:
        by_method.setdefault(names[method_identity(a)], []).append(a)
    baseline = choose_baseline(by_method, wanted)
    scores = {m: scored(group, first.name, worst.get(first.name)) for m, group in by_method.items()}
    columns = sorted({pair for own in scores.values() for pair in own})
    rows = [make_row(m, group, metrics, scores, baseline, worst, columns) for m, group in by_method.items()]
    if first.better != "neither":
        ranked = {r.method: scores[r.method] for r in rows if r.ranked and scores[r.method]}
        beaten = beaten_pairs(ranked, first.better)
        rows = [replace(r, rank=rank_of(r.method, ranked, beaten)) for r in rows]
    rows.sort(key=lambda r: order(r, first))
    shared = {name: shared_part(attempts[0], name) for name in SHARED}
    return Board(str(shared["task"]).rpartition("/")[2], shared, first, tuple(metrics[1:]), baseline, tuple(rows))


def choose_baseline(by_method: Mapping[str, Sequence[Mapping[str, Any]]], wanted: str | None) -> str:
    """The label of the method that the others are compared with; "" where there is none."""
    matched = next((a["matched"]["to"] for group in by_method.values() for a in group if a["matched"]), None)
    for ref in (wanted, matched):
        for label, group in by_method.items():
            if ref is not None and group[0]["method"] == ref:
                return label
    return min((label for label, group in by_method.items() if group[0]["role"] == "baseline"), default="")


def declared_metrics(attempts: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """The metrics that the attempts owe, the ranked ones first, in the order of the first attempt that declares them."""
    seen: dict[str, Metric] = {}
    for attempt in attempts:
        for d in attempt["declared"] or []:
            seen.setdefault(d["quantity"], Metric(d["quantity"], d["unit"], d["better"]))
    return sorted(seen.values(), key=lambda m: m.better == "neither")  # stable: otherwise as the suite or the task orders them


def method_identity(attempt: Mapping[str, Any]) -> str:
    matched = attempt["matched"]
    hidden = matched["where"].removeprefix("method.") if matched and matched["where"].startswith("method.") else None
    params = {k: v for k, v in (attempt["method_params"] or {}).items() if k != hidden}
    return canonical([attempt["method"], params])


def method_labels(attempts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Bare names; the parameters that vary between uses of one method, and the distribution of equal names, are added."""
    uses = {method_identity(a): json.loads(method_identity(a)) for a in attempts}
    by_name: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for key, (ref, params) in uses.items():
        by_name.setdefault(ref.rpartition("/")[2], []).append((key, ref, params))
    labels = {}
    for name, same in by_name.items():
        refs = {ref for _, ref, _ in same}
        varying = [k for k in same[0][2] if len({canonical(p.get(k)) for _, _, p in same}) > 1]
        for key, ref, params in same:
            shown = ", ".join(f"{k}={params[k]}" for k in varying if k in params)
            labels[key] = (ref if len(refs) > 1 else name) + (f"({shown})" if shown else "")
    return labels


def scored(attempts: Iterable[Mapping[str, Any]], metric: str, worst: float | None) -> dict[str, float]:
    """The metric by pair key; failures count as `worst` where there is one."""
    found = {}
    for a in attempts:
        if a["kind"] != "quality":
            continue
        value = a["values"].get(metric) if a["status"] == "ok" else (worst if a["status"] in FAILURES else None)
        if value is not None and math.isfinite(value):
            found[a["pair_key"]] = value
    return found


def make_row(
    method: str, attempts: Sequence[Mapping[str, Any]], metrics: Sequence[Metric], scores: Mapping[str, Mapping[str, float]],
    baseline: str, worst: Mapping[str, float | None], columns: Sequence[str],
) -> Row:  # fmt: skip
    quality = [a for a in attempts if a["kind"] == "quality"]
    own = scores[method]
    n_ok = sum(a["status"] == "ok" for a in quality)
    others = {m.name: fmean(v) for m in metrics[1:] if (v := list(scored(attempts, m.name, worst.get(m.name)).values()))}
    ok = [a for a in quality if a["status"] == "ok"]
    seconds = [a["solve_s"] for a in ok if a["solve_s"] is not None]
    peaks = [a["peak_rss_bytes"] if a["peak_device_bytes"] is None else a["peak_device_bytes"] for a in ok]
    peaks = [peak for peak in peaks if peak is not None]
    ref, given = json.loads(method_identity(attempts[0]))
    matched = next((a["matched"] for a in attempts if a["matched"]), None)
    return Row(
        method=method,
        role=attempts[0]["role"],
        interval=t_interval(list(own.values())) if own else None,
        n_ok=n_ok,
        n_failed=sum(a["status"] in FAILURES for a in quality),
        n_unsupported=sum(a["status"] == "unsupported" for a in quality),
        difference=difference(own, scores.get(baseline, {})) if baseline and method != baseline else None,
        others=others,
        timings=timings_of(attempts),
        solve_s=median(seconds) if seconds else None,
        params=next((a["params"] for a in ok if a["params"] is not None), None),
        mismatch=matched["mismatch"] if matched else None,
        ranked=n_ok > 0 and attempts[0]["role"] != "oracle",
        ref=ref,
        given=given,
        scores=tuple(own.get(pair, math.nan) for pair in columns),
        peak_bytes=float(median(peaks)) if peaks else None,
        flops=float(matched["got"]) if matched and matched["unit"] == "flops" else None,
        attempts=tuple(a["attempt_id"] for a in attempts),
        match=next((told_of(a["matched"]) for a in attempts if a["matched"]), None),
        tuned=tuned_of(quality),
    )


def tuned_of(attempts: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Sums over the seeds; the values that were chosen, of seeds with the very same tuning once."""
    texts = [a["tuned"] for a in attempts if a["tuned"]]
    if not texts:
        return None
    sums = {name: sum(json.loads(text)[name] for text in texts) for name in ("trials", "failed", "cost_s")}
    chosen: dict[str, list[Any]] = {}
    for text in dict.fromkeys(texts):
        for name, value in sorted(json.loads(text)["values"].items()):
            chosen.setdefault(name, []).append(value)
    return {**sums, "values": chosen}


def rank_of(method: str, ranked: Mapping[str, Any], beaten: set[tuple[str, str]]) -> tuple[int, int] | None:
    """One more than beat it, to all but those that it beats."""
    if method not in ranked:
        return None
    return 1 + sum(loser == method for _, loser in beaten), len(ranked) - sum(winner == method for winner, _ in beaten)


def beaten_pairs(scores: Mapping[str, Mapping[str, float]], better: str) -> set[tuple[str, str]]:
    """(winner, loser) of which a paired t test says so, adjusted for all pairs."""
    pairs = list(itertools.combinations(scores, 2))
    tests = [paired_t([scores[a][k] - scores[b][k] for k in scores[a] if k in scores[b]]) for a, b in pairs]
    adjusted = holm([p for _, p in tests])
    found = [((a, b), mean) for (a, b), (mean, _), p in zip(pairs, tests, adjusted, strict=True) if p <= 0.05]
    return {(a, b) if (mean > 0) == (better == "higher") else (b, a) for (a, b), mean in found}


def paired_t(differences: Sequence[float]) -> tuple[float, float]:
    """Their mean (of any scale) and the two-sided p."""
    largest = max(map(abs, differences), default=0.0)
    if len(differences) < 5 or largest == 0.0 or math.isinf(largest):
        return 0.0, 1.0
    scaled = [d / largest for d in differences]
    mean = fmean(scaled)
    sd = math.hypot(*(d - mean for d in scaled)) / math.sqrt(len(scaled) - 1)
    if sd / math.sqrt(len(scaled)) <= 1e-9:
        return mean, 2 / 2 ** len(scaled)
    return mean, float(2 * special.stdtr(len(scaled) - 1, -abs(mean) / sd * math.sqrt(len(scaled))))


def told_of(matched: Mapping[str, Any]) -> dict[str, Any]:
    told = ("unit", "to", "where", "value", "counted", "target_counted", "uncounted")
    return {name: value for name, value in matched.items() if name in told}


def difference(own: Mapping[str, float], baseline: Mapping[str, float]) -> Interval | None:
    """The paired difference over the seeds that both have."""
    both = sorted(own.keys() & baseline.keys())
    return paired_interval([own[k] for k in both], [baseline[k] for k in both]) if both else None


def timings_of(attempts: Iterable[Mapping[str, Any]]) -> dict[str, tuple[float, ...]]:
    found: dict[str, list[float]] = {}
    for a in attempts:
        for timing in a["timings"] or [] if a["status"] == "ok" else []:
            if timing["median_s"] is not None:
                found.setdefault(timing["region"], []).append(timing["median_s"])
    return {region: tuple(values) for region, values in found.items()}


def order(row: Row, metric: Metric) -> tuple[Any, ...]:
    """Best first; what is not ranked and what has no value comes last."""
    mean = row.interval.mean if row.interval else math.inf
    return (not row.ranked, row.interval is None, -mean if metric.better == "higher" else mean, row.method)
