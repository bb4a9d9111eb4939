"""The registry beside MLflow's sqlite store: the same attempts appended, read back, aggregated, weighed, in turns in one run.

What is compared with what, call by call:
- to append: `Registry.append` with its flushes; create_run, one log_batch and set_terminated, with sqlite's default flushes.
  A run holds what an attempt does: the trial's fields as parameters, measurements and resources as metrics, each curve point as
  a metric with its step (MLflow keeps one clock, the others are left out), provenance and status as tags.
- all of them: `Registry.open` and `Registry.table` with every column but the curve, as Arrow; `MlflowClient.search_runs`, all
  pages, which gives parameters, tags and the last value of each metric, as MLflow's own objects (a data frame costs more).
- an aggregate, the mean of a metric by method over what is ok: `Registry.open` and one `Registry.query`;
  `mlflow.search_runs` with a filter and pandas' groupby, for MLflow aggregates nothing itself.
- bytes: a registry whose one invocation is folded and whose replaced files are gone (they stay for a week); MLflow's folder.
Both answers must be equal. The values differ from attempt to attempt, so that no encoding gains from copies.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from harness.identity import canonical
from harness.provenance import new_id
from harness.records import Attempt, CurvePoint, Measurement, Resources
from harness.registry import Registry, schema
from tests.benchmarks.bench_registry import METHODS, real_attempt
from tests.benchmarks.figures import Figure, Readings, interleave
from tests.benchmarks.peers import MLflow
from tests.benchmarks.usage import Usage

APPEND_GOAL, QUERY_GOAL, SPACE_GOAL = 0.1, 0.02, 0.1
TURNS = 10
BOARD = """
SELECT method, avg(value) AS mean, count(*) AS number FROM measurements
WHERE status = 'ok' AND part = 'test' AND quantity = 'accuracy' GROUP BY method"""
ALL_COLUMNS = tuple(name for name in schema.attempt_schema().names if name != "curve")


def measure_peers(folder: Path, runs: int, rounds: int, mlflow: Path | None, reason: str) -> list[Figure]:
    """mlflow: the Python of its environment, or None for the given reason. runs: a multiple of TURNS."""
    model = real_attempt(folder / "peers-model")
    if mlflow is None:
        return [Figure("CPU of appending one attempt, beside MLflow", append_alone(folder, model, runs), missing=(reason,))]
    registry = Registry.open(folder / "peers-registry")
    with MLflow(mlflow, folder / "mlflow") as store:
        figures = measure_appends(folder, registry, store, model, runs)
        cpu = time.process_time()
        registry.fold(model.provenance.invocation)
        fold_ms = 1e3 * (time.process_time() - cpu) / runs
        whole_bytes = size_of(registry.path) / runs
        registry.remove_replaced(grace_s=-1.0)
        return [
            *figures,
            Figure("CPU of folding afterwards, an attempt", Readings("fold", "ms", (fold_ms,))),
            *measure_queries(registry.path, store, runs, rounds),
            *compare_bytes(size_of(registry.path) / runs, whole_bytes, store.ask("size")["bytes"] / runs),
        ]


def measure_appends(folder: Path, registry: Registry, store: MLflow, model: Attempt, runs: int) -> list[Figure]:
    """In turns of a tenth of the runs each; a turn's reading is the median of its appends."""
    attempts, file = vary(model), folder / "contents.jsonl"
    turn(registry, store, attempts, file, 1)  # imports, first-time statements, the facts
    ours, theirs = zip(*(turn(registry, store, attempts, file, runs // TURNS) for _ in range(TURNS)), strict=True)
    return [
        ratio("CPU of appending one attempt / of logging one MLflow run", ours, theirs, APPEND_GOAL),
        Figure("CPU of appending one attempt, beside MLflow", Readings("append", "ms", ours), peers=(named(theirs, "ms"),)),
    ]


def turn(registry: Registry, store: MLflow, attempts: Iterator[Attempt], file: Path, number: int) -> tuple[float, float]:
    """Milliseconds of CPU of one append, of one MLflow run: medians of `number` with the same content."""
    some = [next(attempts) for _ in range(number)]
    file.write_text("".join(json.dumps(content_of(attempt)) + "\n" for attempt in some))
    theirs = store.ask("log", file=str(file))["cpu_ms"]
    return median(append_all(registry, some)), median(theirs)


def append_all(registry: Registry, attempts: list[Attempt]) -> list[float]:
    cpu_ms = []
    for attempt in attempts:
        cpu = time.process_time()
        registry.append(attempt)
        cpu_ms.append(1e3 * (time.process_time() - cpu))
    return cpu_ms


def append_alone(folder: Path, model: Attempt, runs: int) -> Readings:
    registry, attempts = Registry.open(folder / "peers-registry"), vary(model)
    return Readings("append", "ms", tuple(append_all(registry, [next(attempts) for _ in range(runs + 1)])[1:]))


def measure_queries(path: Path, store: MLflow, runs: int, rounds: int) -> list[Figure]:
    """All attempts, and an aggregate over them: processes that are warm, the registry opened anew each time."""
    figures = []
    calls = {"all attempts with parameters and metrics": (read_all, "search"), "the mean by method": (read_board, "board")}
    for what, (ours, theirs) in calls.items():
        pair = {"ours": lambda call=ours: call(path), "theirs": lambda call=theirs: store.ask(call)}
        for call in pair.values():
            call()
        found = interleave(pair, rounds)
        check_equal(what, found["ours"][-1], found["theirs"][-1], runs + 1)
        for clock in ("cpu_s", "wall_s"):
            name = "CPU" if clock == "cpu_s" else "Wall time"
            mine, other = (tuple(answer[clock] for answer in found[who]) for who in pair)
            figures += [
                ratio(f"{name} of reading {what} / in MLflow", mine, other, QUERY_GOAL),
                Figure(f"{name} of reading {what} ({runs:,})", Readings("ours", "s", mine), peers=(named(other, "s"),)),
            ]
    return figures


def read_all(path: Path) -> dict[str, Any]:
    cpu, wall = time.process_time(), time.perf_counter()
    table = Registry.open(path, create=False).table(ALL_COLUMNS)
    usage = Usage(time.process_time() - cpu, time.perf_counter() - wall)
    values = [m["value"] for ms in table["measurements"].to_pylist() for m in ms if (m["quantity"], m["part"]) == TEST_ACCURACY]
    return {**vars(usage), "runs": table.num_rows, "sum": sum(values)}


def read_board(path: Path) -> dict[str, Any]:
    cpu, wall = time.process_time(), time.perf_counter()
    rows = Registry.open(path, create=False).query(BOARD).to_pylist()
    usage = Usage(time.process_time() - cpu, time.perf_counter() - wall)
    return {**vars(usage), "rows": [[row["method"], row["mean"], row["number"]] for row in rows]}


TEST_ACCURACY = ("accuracy", "test")


def check_equal(what: str, ours: dict[str, Any], theirs: dict[str, Any], runs: int) -> None:
    """Raises RuntimeError: who lost something answers fast."""
    if "rows" in ours:
        mine, other = ({row[0]: row[1:] for row in answer["rows"]} for answer in (ours, theirs))
        equal = mine.keys() == other.keys() and all(
            mine[m][1] == other[m][1] and math.isclose(mine[m][0], other[m][0], rel_tol=1e-9) for m in mine
        )
    else:
        equal = ours["runs"] == theirs["runs"] == runs and math.isclose(ours["sum"], theirs["sum"], rel_tol=1e-9)
    if not equal:
        raise RuntimeError(f"{what}: the registry says {str(ours)[:300]}, MLflow says {str(theirs)[:300]}")


def compare_bytes(folded: float, whole: float, theirs: float) -> list[Figure]:
    return [
        ratio("Bytes on disk of one attempt, folded / of one MLflow run", (folded,), (theirs,), SPACE_GOAL),
        Figure("Bytes on disk of one attempt, folded", Readings("folded", "B", (folded,)), peers=(named((theirs,), "B"),)),
        Figure("The same with its loose file, which goes after a week", Readings("loose", "B", (whole,))),
    ]


def ratio(what: str, ours: tuple[float, ...], theirs: tuple[float, ...], goal: float) -> Figure:
    each = tuple(a / b for a, b in zip(ours, theirs, strict=True))
    return Figure(what, Readings("ratio", "ratio", each), goal)


def named(values: tuple[float, ...], unit: str) -> Readings:
    return Readings("MLflow", unit, values)


def size_of(path: Path) -> int:
    """Bytes of a registry, without its index: that one may be deleted."""
    files = (file for file in path.rglob("*") if file.is_file() and not file.is_relative_to(path / "index"))
    return sum(file.stat().st_size for file in files)


# The same content for both --------------------------------------------------------------------------------------------


def vary(model: Attempt) -> Iterator[Attempt]:
    """Attempts like the model, without end: ten methods, each number a little different, names as unlike as digests are."""
    rng, began = np.random.default_rng(0), datetime(2026, 9, 21, tzinfo=UTC)
    trial, outcome = model.trial, model.outcome
    number = 0
    while True:
        seed, method = divmod(number, METHODS)
        changed = replace(
            trial, method=f"paper-harness/method-{method}", seed=seed,
            **{name: rng.bytes(16).hex() for name in ("series_key", "trial_id", "pair_key")},
        )  # fmt: skip
        solve_s = float(rng.gamma(20.0, 0.03))
        measured = replace(
            outcome,
            started_at=(began + timedelta(seconds=number)).isoformat(timespec="microseconds"),
            measurements=tuple(replace(m, value=shaken(rng, m.value)) for m in outcome.measurements),
            curve=tuple(replace(p, value=shaken(rng, p.value), at=later(p, solve_s)) for p in outcome.curve),
            spent={**outcome.spent, "wall_s": solve_s},
            resources=shaken_resources(rng, outcome.resources),
        )
        yield replace(model, attempt_id=new_id(), trial=changed, outcome=measured)
        number += 1


def shaken(rng: np.random.Generator, value: float | None) -> float | None:
    return None if value is None else value * float(rng.normal(1.0, 0.01))


def later(point: CurvePoint, solve_s: float) -> dict[str, float]:
    return {clock: amount * solve_s if clock == "wall_s" else amount for clock, amount in point.at.items()}


def shaken_resources(rng: np.random.Generator, spent: Resources) -> Resources:
    factor = float(rng.normal(1.0, 0.05))
    values = {f.name: getattr(spent, f.name) for f in fields(spent) if f.name != "params"}
    return replace(spent, **{name: type(v)(factor * v) for name, v in values.items() if v is not None})


def content_of(attempt: Attempt) -> dict[str, Any]:
    """An attempt as a run: see mlflow_peer.py."""
    trial, outcome, where = attempt.trial, attempt.outcome, attempt.provenance
    # After the curve: of two values at one step MLflow gives the larger one back.
    final = 1 + max((int(p.at["steps"]) for p in outcome.curve), default=0)
    metrics = [(f"{p.part}.{p.quantity}", p.value, int(p.at["steps"])) for p in outcome.curve]
    metrics += [(key_of(m), m.value, final) for m in outcome.measurements if m.value is not None]
    resources = {f.name: getattr(outcome.resources, f.name) for f in fields(outcome.resources)}
    metrics += [(name, float(value), final) for name, value in resources.items() if value is not None]
    tags = {name: str(getattr(where, name)) for name in (*schema.PROVENANCE_TEXT, "git_dirty")}
    tags |= {"attempt_id": attempt.attempt_id, "status": outcome.status, "worker_environment": canonical(outcome.environment)}
    return {
        "time": round(1000 * datetime.fromisoformat(outcome.started_at).timestamp()),
        "params": {f.name: as_text(getattr(trial, f.name)) for f in fields(trial)},
        "metrics": metrics,
        "tags": tags,
    }


def key_of(measurement: Measurement) -> str:
    return f"{measurement.part}.{measurement.quantity}"


def as_text(value: Any) -> str:
    return value if isinstance(value, str) else canonical(value)
