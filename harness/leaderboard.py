"""Leaderboards: attempts of one machine in, tables of methods with intervals out. Nothing is drawn here.

Only attempts that agree on task, net, training, budget, device, dtype, threads, torch version and root seed share a board: what
is on it can be paired by seed. An attempt that failed counts as the metric's declared `worst`; where none is declared it is
left out, and the counts say so. An attempt that is annotated as `invalid` counts for nothing: the one before it is the latest.

Ranks have ties: a method stands behind another only where their difference, seed by seed, is beyond doubt for all pairs of
methods on the board together (Holm), and there are 5 seeds. The order of the rows is that of the means.

The work is columnar: SQL chooses the latest attempts and puts together those that agree in all but seed and numbers (an
`Alike`); the numbers stay arrays until a row's statistics need them.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from statistics import median
from typing import TYPE_CHECKING, Any

from harness.identity import canonical
from harness.records import FAILURES
from harness.registry import Registry
from harness.stats import Interval, beats, paired_interval, rank_ranges, safe_mean, t_interval
from harness.strangers import MAX_SHOWN, is_number, read_json, strangeness

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    Integers = NDArray[np.int64]
    Reals = NDArray[np.float64]

SHARED = ("task", "task_params", "net", "train", "budget", "device", "dtype", "threads", "torch_version", "machine", "tuning",
          "root_seed")  # fmt: skip
JSON_TEXT = ("method_params", "task_params", "net", "train", "budget", "tuning", "matched", "tuned")
# Attempts that agree in these differ in seed and numbers only.
ALIKE = (*SHARED, "matched", "tuned", "method", "method_params", "role", "kind", "owed")
# One number an attempt, in lists that go with the list of places.
BY_PLACE = ("pairs", "outcomes", "solve_s", "peak_bytes", "params")
TUNED = ("trials", "failed", "cost_s")
OTHER, OK, FAILED, UNSUPPORTED = range(4)  # outcomes


@dataclass(frozen=True)
class Metric:
    name: str
    unit: str
    better: str


@dataclass(frozen=True)
class Row:
    """One method on one board. ranked: False for oracles and for methods without a single ok attempt.

    method: its label on this board; ref, given: its full reference, and its parameters but for a matched one.
    rank: the best and the worst that it can have; None where it is not ranked. scores: on the board's first metric, one for
    each pair of the board, in one order for all its rows; NaN where it has none.
    difference: method - baseline, seed by seed, on the board's first metric. others: means of the further metrics.
    timings: region -> medians of each fresh process, seconds. mismatch: of matched parameters or FLOPs, a share; match: what
    was matched, to which method, and for FLOPs how much of the work was counted.
    tuned: over its seeds, the tuning trials, those that failed, their seconds, and the values that were chosen, by name.
    attempts: the ids of all that the row rests on, timed ones too, in their order; none where nobody asked for them.
    solve_s, peak_bytes: medians over ok attempts; peak_bytes: of the device, on a CPU of the process.
    flops: of training on one item, where they were matched.
    """

    method: str
    role: str
    interval: Interval | None
    n_ok: int
    n_failed: int
    n_unsupported: int
    difference: Interval | None
    others: Mapping[str, float]
    timings: Mapping[str, tuple[float, ...]]
    solve_s: float | None
    params: int | None
    mismatch: float | None
    ranked: bool
    attempts: tuple[str, ...] = ()
    ref: str = ""
    given: Mapping[str, Any] = field(default_factory=dict)
    rank: tuple[int, int] | None = None
    scores: tuple[float, ...] = ()
    peak_bytes: float | None = None
    flops: float | None = None
    match: Mapping[str, Any] | None = None
    tuned: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Board:
    """Methods that can be compared, best first, on one task in one net under one budget.

    label: its task and net, and the settings that tell it from the other boards of both.
    """

    task: str
    shared: Mapping[str, Any]
    metric: Metric
    further: tuple[Metric, ...]
    baseline: str
    rows: tuple[Row, ...]
    label: str = ""


@dataclass(frozen=True)
class Alike:
    """Latest attempts that agree in ALIKE. texts: what they agree in, JSON decoded; `owed` is there as `declared`.
    shared: the texts of a board, as they stand.

    places: the attempts' numbers among all, in the order of their ids; ascending.
    """

    texts: Mapping[str, Any]
    shared: tuple[Any, ...]
    places: Integers

    @property
    def first(self) -> int:
        return int(self.places[0])

    @property
    def last(self) -> int:
        return int(self.places[-1])

    @property
    def is_quality(self) -> bool:
        return bool(self.texts["kind"] == "quality")


@dataclass(frozen=True)
class Latest:
    """What boards are made of. groups: in the order of their first attempts. The arrays: one number a place.

    pairs: the number of the attempt's pair key, in the order of the keys. solve_s, peak_bytes, params: NaN where not measured.
    values: by metric, of the test part of ok attempts; NaN where there is none. ids: of the attempts, a place each; none where
    nobody asked for them.
    timings: place -> (region, median seconds) of ok attempts.
    """

    groups: Sequence[Alike]
    pairs: Integers
    outcomes: Integers
    solve_s: Reals
    peak_bytes: Reals
    params: Reals
    values: Mapping[str, Reals]
    timings: Mapping[int, Sequence[tuple[str, float]]]
    ids: NDArray[np.object_]


@dataclass(frozen=True)
class Chosen:
    """What boards are made of, where not of all: patterns such as "evonorm-*", and devices. A name fits with or without its
    distribution, a method also with the parameters of its label. A board's baseline stays on it, whatever is chosen."""

    tasks: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    def has_board(self, group: Alike) -> bool:
        in_task = not self.tasks or fits(self.tasks, group.texts["task"])
        return in_task and (not self.devices or group.texts["device"] in self.devices)

    def has_method(self, method: Method) -> bool:
        return not self.methods or fits(self.methods, method.ref, method.label)


def fits(patterns: Iterable[str], ref: str, label: str = "") -> bool:
    names = (ref, ref.rpartition("/")[2], label)
    return any(fnmatchcase(name, pattern) for pattern in patterns for name in names)


def make_leaderboards(
    registry: Registry, trial_ids: Iterable[str] | None, machine: str, baseline: str | None = None,
    chosen: Chosen | None = None, with_ids: bool = False,
) -> list[Board]:  # fmt: skip
    """Boards over the latest attempts of these trials (None: of every series), on one machine.

    baseline: full reference of the method that the others are compared with; None: the one that trials were matched to,
    else the first baseline by name. with_ids: whether rows name their attempts, which takes time where there are many.
    """
    latest = read_latest(registry, trial_ids, machine, with_ids)
    if latest is None:
        return []
    chosen = chosen or Chosen()
    keys: dict[tuple[Any, ...], str] = {}  # a key is long, and most groups of a board have the same texts
    by_board: dict[str, list[Alike]] = {}
    for group in filter(chosen.has_board, latest.groups):
        if group.shared not in keys:
            keys[group.shared] = canonical([shared_part(group, name) for name in SHARED])
        by_board.setdefault(keys[group.shared], []).append(group)
    boards = [make_board(groups, latest, baseline, chosen) for _, groups in sorted(by_board.items())]
    return with_labels(with_task_labels([b for b in boards if b is not None]))


def with_task_labels(boards: Sequence[Board]) -> list[Board]:
    """Where several boards are of one task, the parameters in which they differ are part of its label."""
    by_task: dict[str, list[Board]] = {}
    for board in boards:
        by_task.setdefault(board.shared["task"], []).append(board)
    labelled = []
    for board in boards:
        same = [b.shared["task_params"] or {} for b in by_task[board.shared["task"]]]
        own = board.shared["task_params"] or {}
        varying = [f"{k}={v}" for k, v in own.items() if len({canonical(p.get(k)) for p in same}) > 1]
        labelled.append(replace(board, task=board.task + (f"({', '.join(varying)})" if varying else "")))
    return labelled


# What a reader asks for first, where boards differ in several settings.
TELLING = ("net.width", "net.depth", "train.optimizer", "train.lr", "train.batch", "budget.samples_seen", "budget.steps")


def with_labels(boards: Sequence[Board]) -> list[Board]:
    """Boards of one task and one kind of net get as many of their settings into the label as tell them apart."""
    plain = [", ".join([board.task, *([str(board.shared["net"]["arch"])] if board.shared["net"] else [])]) for board in boards]
    settings = [settings_of(board.shared) for board in boards]
    labels = list(plain)
    for name in dict.fromkeys(name for one in settings for name in one):
        for same in [[i for i, label in enumerate(labels) if label == text] for text in dict.fromkeys(labels)]:
            if len({canonical(settings[i].get(name)) for i in same}) > 1:
                for i in same:
                    labels[i] += f", {name.rpartition('.')[2]} {settings[i].get(name, '-')}"
    return [replace(board, label=label) for board, label in zip(boards, labels, strict=True)]


def settings_of(shared: Mapping[str, Any]) -> dict[str, Any]:
    """What a board's methods share, by dotted name, in the order in which a reader asks for it."""
    groups = {name: shared.get(name) or {} for name in ("net", "train", "budget", "tuning")}
    dotted = {f"{group}.{key}": value for group, values in groups.items() for key, value in values.items()}
    dotted |= {name: shared.get(name) for name in ("device", "dtype", "threads", "torch_version", "root_seed")}
    return {name: dotted[name] for name in (*TELLING, *dotted) if name in dotted}


# The latest attempts ---------------------------------------------------------------------------------------------------

# One statement, so that all of it is of one moment; its three results are lists of structs in one row, and stay columns.
# Interrupted and invalid attempts are left out; `unsupported` is the last word on a trial only where there is no other.
# Only numbers and places are kept for the joins: the wide texts pass through once, into the grouping.
LATEST = f"""
WITH latest AS MATERIALIZED (
    SELECT id, attempt_id, row_number() OVER (ORDER BY attempt_id) - 1 AS place
    FROM _numbered SEMI JOIN (
          SELECT coalesce(arg_max(id, attempt_id) FILTER (status <> 'unsupported'), arg_max(id, attempt_id)) AS id
          FROM _numbered
          WHERE machine = $machine AND status <> 'interrupted' AND kind NOT IN ('kernel', 'tuning')
                AND annotation IS DISTINCT FROM 'invalid' AND attempt_id IS NOT NULL {{chosen}}
          GROUP BY {{key}}) USING (id)),
groups AS (
    SELECT {", ".join(ALIKE)}, list(place) AS places, list(pair_key) AS pairs,
           list(solve_s) AS solve_s, list(params) AS params, list(coalesce(peak_device_bytes, peak_rss_bytes)) AS peak_bytes,
           list(CASE WHEN status = 'ok' THEN {OK} WHEN status IN {FAILURES!r} THEN {FAILED}
                     WHEN status = 'unsupported' THEN {UNSUPPORTED} ELSE {OTHER} END) AS outcomes
    FROM _numbered JOIN latest USING (id) GROUP BY {", ".join(ALIKE)}),
scores AS (
    SELECT quantity, list(place) AS places, list(value) AS "values"
    FROM _measured JOIN latest USING (id) WHERE part = 'test' AND value IS NOT NULL GROUP BY quantity),
regions AS (
    SELECT place, region, median(sample_wall_s) AS median_s
    FROM timings JOIN latest USING (attempt_id)
    WHERE status = 'ok' AND region IS NOT NULL AND isfinite(sample_wall_s) GROUP BY place, region)
SELECT (SELECT list(g) FROM groups g) AS groups, (SELECT list(s) FROM scores s) AS scores,
       (SELECT list(r ORDER BY place, region) FROM regions r) AS regions,
       {{ids}} AS ids
"""


def read_latest(registry: Registry, trial_ids: Iterable[str] | None, machine: str, with_ids: bool) -> Latest | None:
    """The latest attempt of each of these trials, or of each series; None where there is none."""
    parameters: dict[str, Any] = {"machine": machine}
    listed = "(SELECT list(attempt_id ORDER BY place) FROM latest)" if with_ids else "NULL::VARCHAR[]"
    if trial_ids is None:
        sql = LATEST.format(key="series_key", chosen="", ids=listed)
    else:
        sql = LATEST.format(key="trial_id", chosen="AND trial_id IN (SELECT unnest($ids))", ids=listed)
        parameters["ids"] = sorted(trial_ids)
    found = registry.query(sql, parameters)
    lists = elements(found, "groups")
    if not len(lists):
        return None
    places = flat(lists, "places")
    pairs, outcomes, solve_s, peaks, params = (by_place(places, flat(lists, name), len(places)) for name in BY_PLACE)
    timings: dict[int, list[tuple[str, float]]] = {}
    for region in elements(found, "regions").to_pylist():
        timings.setdefault(region["place"], []).append((region["region"], region["median_s"]))
    groups = without_strange(read_groups(lists), registry)
    values = read_values(elements(found, "scores"), outcomes == OK)
    return Latest(
        groups, pairs, outcomes, solve_s, peaks, params, values, timings, elements(found, "ids").to_numpy(zero_copy_only=False)
    )


def without_strange(groups: Sequence[Alike], registry: Registry) -> list[Alike]:
    """The groups whose texts have the shape that all below relies on; of the others a warning each."""
    kept = []
    for group in groups:
        if why := strangeness(group.texts):
            method, task = (str(group.texts[name])[:MAX_SHOWN] for name in ("method", "task"))
            registry.warn(
                f"{len(group.places)} attempts of method {method!r} on task {task!r} are left out of leaderboards: {why}, "
                "which no harness writes; `harness annotate --where SQL --invalid REASON` takes them out for good"
            )
        else:
            kept.append(group)
    return kept


def elements(found: pa.Table, name: str) -> Any:
    """What the list in a column's only row holds, as an Arrow array."""
    return found[name].combine_chunks().flatten()


def flat(found: pa.StructArray, name: str) -> NDArray[Any]:
    """What the lists of a column hold, one after the other."""
    return numbers(found.field(name).flatten())


def by_place(places: Integers, values: NDArray[Any], size: int) -> NDArray[Any]:
    """The values in the order of their places; NaN where a place has none."""
    import numpy as np

    found = np.full(size, np.nan) if len(places) < size else np.empty(size, values.dtype)
    found[places] = values
    return found


def read_groups(found: pa.StructArray) -> list[Alike]:
    """In the order of their first attempts."""
    import numpy as np

    columns = {name: found.field(name).to_pylist() for name in ALIKE}
    shared = zip(*(columns[name] for name in (*SHARED, "matched")), strict=True)
    places = [np.sort(each) for each in split(flat(found, "places"), found.field("places"))]
    groups = [Alike(*parts) for parts in zip(decoded(columns), shared, places, strict=True)]
    return sorted(groups, key=lambda group: group.first)


def decoded(columns: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
    """Rows of these columns. Each JSON text is read once, as most share net and training: nobody may change what it becomes."""
    known: dict[str | None, Any] = {"": None, None: None}

    def read(text: str | None) -> Any:
        if text not in known:
            known[text] = read_json(text or "")
        return known[text]

    declared = {text: text and json.loads(text) for text in set(columns["owed"])}  # `worst` may be infinite
    read_columns = [map(read, values) if name in JSON_TEXT else values for name, values in columns.items() if name != "owed"]
    read_columns.append(map(declared.get, columns["owed"]))
    names = [*(name for name in columns if name != "owed"), "declared"]
    return (dict(zip(names, row, strict=True)) for row in zip(*read_columns, strict=True))


def numbers(values: pa.Array) -> NDArray[Any]:
    """NaN for null. Of texts: their numbers in the order of all that there are; each null has one of its own."""
    import numpy as np
    import pyarrow as pa

    if not pa.types.is_string(values.type):
        return np.asarray(values.to_numpy(zero_copy_only=False))
    encoded = values.dictionary_encode()
    texts = encoded.dictionary.to_pylist()
    rank = {text: number for number, text in enumerate(sorted(texts))}
    codes = encoded.indices.fill_null(-1).to_numpy()
    found: Integers = np.array([*(rank[text] for text in texts), 0], np.int64)[codes]
    found[codes < 0] = len(texts) + np.arange((codes < 0).sum())
    return found


def split(values: NDArray[Any], lists: pa.ListArray) -> list[NDArray[Any]]:
    """The flat values of a list column as one array a list; no copies."""
    offsets = lists.offsets.to_numpy() - lists.offsets[0].as_py()
    return [values[start:end] for start, end in itertools.pairwise(offsets.tolist())]


def read_values(found: pa.StructArray, ok: NDArray[np.bool_]) -> dict[str, Reals]:
    """By metric, one value a place; NaN for what is not ok."""
    import numpy as np

    if not len(found):
        return {}
    places, values = (split(flat(found, name), found.field(name)) for name in ("places", "values"))
    names = found.field("quantity").to_pylist()
    return {name: np.where(ok, by_place(places[i], values[i], len(ok)), np.nan) for i, name in enumerate(names)}


# Boards ----------------------------------------------------------------------------------------------------------------


def shared_part(group: Alike, name: str) -> Any:
    """What a board's attempts have in common; for matched ones, net and training of the baseline that they were matched to."""
    if name in ("net", "train") and group.texts["matched"]:
        return group.texts["matched"][name]
    return group.texts[name]


@dataclass(frozen=True)
class Method:
    """All that one board holds of one method. groups: in the order of their first attempts.

    places: of its quality attempts, ascending; pairs, ok, failed: of each of these, as in `Latest`.
    paired_once: whether no two of them share a pair.
    """

    label: str
    groups: Sequence[Alike]
    places: Integers
    pairs: Integers
    ok: NDArray[np.bool_]
    failed: NDArray[np.bool_]
    paired_once: bool

    @property
    def ref(self) -> str:
        return str(self.groups[0].texts["method"])

    @property
    def role(self) -> str:
        return str(self.groups[0].texts["role"])

    @property
    def ranked(self) -> bool:
        return bool(self.ok.any()) and self.role != "oracle"


def make_board(groups: Sequence[Alike], latest: Latest, wanted: str | None, chosen: Chosen) -> Board | None:
    """None where no quality attempt of these declares a metric, or no method is chosen. groups: in the order of their first
    attempts."""
    quality = [g for g in groups if g.is_quality]
    metrics, worst = declared_metrics(quality), worst_values(quality)
    if not metrics:
        return None
    methods = methods_of(groups, latest)
    baseline = choose_baseline(methods, wanted)
    if not any(map(chosen.has_method, methods)):
        return None
    methods = [m for m in methods if m.label == baseline or chosen.has_method(m)]
    found = [scored(m, metrics[0], latest, worst) for m in methods]
    table = score_table(found)
    against = next((line for m, line in zip(methods, table, strict=True) if m.label == baseline), None)
    standings = zip(methods, found, table, ranks_of(methods, table, metrics[0]), strict=True)
    rows = [
        make_row(m, metrics, once_a_pair(m, *own), line, None if m.label == baseline else against, worst, latest, rank)
        for m, own, line, rank in standings
    ]
    rows.sort(key=lambda r: order(r, metrics[0]))
    shared = {name: shared_part(groups[0], name) for name in SHARED}
    return Board(str(shared["task"]).rpartition("/")[2], shared, metrics[0], tuple(metrics[1:]), baseline, tuple(rows))


def score_table(found: Sequence[tuple[Integers, Reals]]) -> Reals:
    """Methods x the pairs of a board, ascending; NaN where a method has none. Of two attempts of one pair the later counts."""
    import numpy as np

    columns = np.unique(np.concatenate([pairs for pairs, _ in found]))
    table = np.full((len(found), len(columns)), np.nan)
    for line, (pairs, scores) in zip(table, found, strict=True):
        line[np.searchsorted(columns, pairs)] = scores
    return table


def ranks_of(methods: Sequence[Method], table: Reals, metric: Metric) -> list[tuple[int, int] | None]:
    """The best and the worst rank of each method; None for what is not ranked, or has no score."""
    import numpy as np

    places = [i for i, m in enumerate(methods) if m.ranked and metric.better != "neither" and np.isfinite(table[i]).any()]
    ranges = rank_ranges(beats(table[places], "higher" if metric.better == "higher" else "lower"))
    found = dict(zip(places, ranges, strict=True))
    return [found.get(i) for i in range(len(methods))]


def methods_of(groups: Sequence[Alike], latest: Latest) -> list[Method]:
    """In the order of their first attempts."""
    uses = [method_use(g) for g in groups]
    identities = [canonical(use) for use in uses]
    labels = method_labels(dict(zip(identities, uses, strict=True)))
    by_label: dict[str, list[Alike]] = {}
    for identity, group in zip(identities, groups, strict=True):
        by_label.setdefault(labels[identity], []).append(group)
    return [method_of(label, same, latest) for label, same in by_label.items()]


def method_of(label: str, groups: Sequence[Alike], latest: Latest) -> Method:
    """Its quality attempts in one piece, in the order of their ids."""
    import numpy as np

    nothing = groups[0].places[:0]  # of a method that was only timed
    places = np.sort(np.concatenate([nothing, *(g.places for g in groups if g.is_quality)]))
    pairs, outcomes = latest.pairs[places], latest.outcomes[places]
    once = len(set(pairs.tolist())) == len(pairs)
    return Method(label, groups, places, pairs, outcomes == OK, outcomes == FAILED, once)


def choose_baseline(methods: Sequence[Method], wanted: str | None) -> str:
    """The label of the method that the others are compared with; "" where there is none."""
    matched = next((g.texts["matched"]["to"] for m in methods for g in m.groups if g.texts["matched"]), None)
    for ref in (wanted, matched):
        for method in methods:
            if ref is not None and method.ref == ref:
                return method.label
    return min((m.label for m in methods if m.role == "baseline"), default="")


def declared_metrics(quality: Iterable[Alike]) -> list[Metric]:
    """The metrics that the attempts owe, the ranked ones first, in the order of the first attempt that declares them."""
    seen: dict[str, Metric] = {}
    for declared in each_once(quality):
        for d in declared:
            seen.setdefault(d["quantity"], Metric(d["quantity"], d["unit"], d["better"]))
    return sorted(seen.values(), key=lambda m: m.better == "neither")  # stable: otherwise as the suite or the task orders them


def worst_values(quality: Iterable[Alike]) -> dict[str, float | None]:
    """What a failure counts as, by metric; the last attempt's word."""
    found: dict[str, float | None] = {}
    for declared in each_once(sorted(quality, key=lambda g: g.last, reverse=True)):
        found = {d["quantity"]: d["worst"] for d in declared} | found
    return found


def each_once(groups: Iterable[Alike]) -> Iterable[list[dict[str, Any]]]:
    """What these declare, in the order of the first that does; equal texts were read into one object."""
    return {id(g.texts["declared"]): g.texts["declared"] or [] for g in groups}.values()


def method_use(group: Alike) -> tuple[str, dict[str, Any]]:
    """A method with its parameters, but for the one that was matched: it follows from the baseline."""
    matched = group.texts["matched"]
    hidden = matched["where"].removeprefix("method.") if matched and matched["where"].startswith("method.") else None
    return group.texts["method"], {k: v for k, v in (group.texts["method_params"] or {}).items() if k != hidden}


def method_labels(uses: Mapping[str, tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Bare names; the parameters that vary between uses of one method, and the distribution of equal names, are added."""
    by_name: dict[str, list[tuple[str, str, dict[str, Any]]]] = {}
    for key, (ref, params) in uses.items():
        by_name.setdefault(ref.rpartition("/")[2], []).append((key, ref, params))
    labels = {}
    for name, same in by_name.items():
        refs = {ref for _, ref, _ in same}
        varying = [k for k in same[0][2] if len(same) > 1 and len({canonical(p.get(k)) for _, _, p in same}) > 1]
        for key, ref, params in same:
            shown = ", ".join(f"{k}={params[k]}" for k in varying if k in params)
            labels[key] = (ref if len(refs) > 1 else name) + (f"({shown})" if shown else "")
    return labels


def scored(method: Method, metric: Metric, latest: Latest, worst: Mapping[str, float | None]) -> tuple[Integers, Reals]:
    """The metric by attempt, with the pair of each; failures count as `worst` where there is one."""
    import numpy as np

    values, bound = latest.values.get(metric.name), worst.get(metric.name)
    scores = np.full(len(method.places), np.nan) if values is None else values[method.places]
    if bound is not None:
        scores[method.failed] = bound
    finite = np.isfinite(scores)
    return method.pairs[finite], scores[finite]


def once_a_pair(method: Method, pairs: Integers, scores: Reals) -> list[float]:
    """Of two attempts of one pair the later counts."""
    values: list[float] = scores.tolist()
    return values if method.paired_once else list(dict(zip(pairs.tolist(), values, strict=True)).values())


def make_row(
    method: Method, metrics: Sequence[Metric], own: Sequence[float], scores: Reals, against: Reals | None,
    worst: Mapping[str, float | None], latest: Latest, rank: tuple[int, int] | None,
) -> Row:  # fmt: skip
    """On the first metric, own: what the method scored; scores, against: its line of the board's table and the baseline's."""
    ref, given = method_use(method.groups[0])
    matched = next((g.texts["matched"] for g in method.groups if g.texts["matched"]), None)
    found = {m.name: scored(method, m, latest, worst) for m in metrics[1:]}
    ok = method.places[method.ok]
    seconds, peaks, params = (measured(of[ok]) for of in (latest.solve_s, latest.peak_bytes, latest.params))
    return Row(
        method=method.label,
        role=method.role,
        interval=t_interval(own) if own else None,
        n_ok=len(ok),
        n_failed=int(method.failed.sum()),
        n_unsupported=int((latest.outcomes[method.places] == UNSUPPORTED).sum()),
        difference=None if against is None else difference(scores, against),
        others={name: safe_mean(once_a_pair(method, *values)) for name, values in found.items() if len(values[0])},
        timings=timings_of(method, latest),
        solve_s=median(seconds) if seconds else None,
        params=int(params[0]) if params else None,
        mismatch=matched["mismatch"] if matched else None,
        ranked=method.ranked,
        ref=ref,
        given=given,
        rank=rank,
        scores=tuple(scores.tolist()),
        peak_bytes=float(median(peaks)) if peaks else None,
        flops=matched_flops(matched),
        attempts=ids_of(method, latest),
        match=match_of(matched) if matched else None,
        tuned=tuned_of(method),
    )


def ids_of(method: Method, latest: Latest) -> tuple[str, ...]:
    import numpy as np

    if not len(latest.ids):
        return ()
    return tuple(latest.ids[np.sort(np.concatenate([g.places for g in method.groups]))].tolist())


def matched_flops(matched: Mapping[str, Any] | None) -> float | None:
    """What the harness counted when it matched training FLOPs."""
    known = matched and matched.get("unit") == "flops" and isinstance(matched.get("got"), int | float)
    return float(matched["got"]) if matched and known else None


def match_of(matched: Mapping[str, Any]) -> dict[str, Any]:
    """What the reader of a result must know of its match. A share that is no number was written by a stranger."""
    shares = {name: matched[name] for name in ("counted", "target_counted") if is_number(matched.get(name))}
    return {name: matched.get(name) for name in ("unit", "to", "where", "value", "uncounted") if name in matched} | shares


def tuned_of(method: Method) -> dict[str, Any] | None:
    """What tuning a method cost and chose, in all its seeds together."""
    found = [(g.texts["tuned"], len(g.places)) for g in method.groups if g.is_quality and isinstance(g.texts["tuned"], dict)]
    if not found:
        return None
    sums = {name: sum(n * tuned[name] for tuned, n in found if is_number(tuned.get(name))) for name in TUNED}
    chosen: dict[str, list[Any]] = {}
    for values in (tuned["values"] for tuned, _ in found if isinstance(tuned.get("values"), dict)):
        for name, value in sorted(values.items()):
            chosen.setdefault(name, []).append(value)
    return {**sums, "values": chosen}


def measured(values: Reals) -> list[float]:
    """Those that are there."""
    import numpy as np

    found: list[float] = values[~np.isnan(values)].tolist()
    return found


def difference(own: Reals, against: Reals) -> Interval | None:
    """The paired difference over the seeds that both have."""
    import numpy as np

    both = np.isfinite(own) & np.isfinite(against)
    return paired_interval(own[both].tolist(), against[both].tolist()) if both.any() else None


def timings_of(method: Method, latest: Latest) -> dict[str, tuple[float, ...]]:
    """region -> the medians of the fresh processes, in the order of the attempts."""
    if not latest.timings:
        return {}
    found: dict[str, list[float]] = {}
    for place in sorted(place for g in method.groups for place in g.places.tolist()):
        for region, median_s in latest.timings.get(place, ()):
            found.setdefault(region, []).append(median_s)
    return {region: tuple(values) for region, values in found.items()}


def order(row: Row, metric: Metric) -> tuple[Any, ...]:
    """Best first; what is not ranked and what has no value comes last."""
    mean = row.interval.mean if row.interval else math.inf
    return (not row.ranked, row.interval is None, -mean if metric.better == "higher" else mean, row.method)
