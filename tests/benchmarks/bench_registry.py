"""What the registry costs: the append of one attempt, and a leaderboard over 1,000 of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from harness.leaderboard import make_leaderboards
from harness.provenance import new_id
from harness.records import Attempt
from harness.registry import Registry, schema
from tests.benchmarks.bench_trials import run_suite
from tests.benchmarks.figures import Figure, Readings, interleave
from tests.benchmarks.usage import Usage, clean_environment, run_measured

APPEND_GOAL_MS = 2.5
METHODS = 10
MODEL_SUITE = """\
schema: harness/suite/1
name: model
tasks: [digits]
methods: [relu]
net: {{arch: mlp, width: 128, depth: 2}}
budget: {{epochs: 20}}
seeds: {seeds}
"""


def measure_registry(folder: Path, rounds: int, appends: int, attempts: int) -> list[Figure]:
    model = real_attempt(folder / "model")
    return [*measure_append(folder, model, appends), *measure_leaderboard(folder, model, rounds, attempts)]


def real_attempt(folder: Path) -> Attempt:
    """What `harness run` records of digits with 20 epochs: measurements, a curve, resources, what the process was."""
    run_suite(folder, MODEL_SUITE, folder, 1)
    (row,) = Registry.open(folder / "records", create=False).table().to_pylist()
    return schema.from_row(row)


def copies(model: Attempt, number: int) -> Iterator[Attempt]:
    """The attempt again and again, each of a trial of its own: ten methods, and as many seeds as that takes."""
    for index in range(number):
        seed, method = divmod(index, METHODS)
        keys = {name: f"{name}-{method}-{seed}" for name in ("series_key", "trial_id")}
        trial = replace(model.trial, method=f"dist/method-{method}", seed=seed, pair_key=f"pair-{seed}", **keys)
        yield replace(model, attempt_id=new_id(), trial=trial)


def measure_append(folder: Path, model: Attempt, appends: int) -> list[Figure]:
    """Each append flushes to the disk, as in a run; the disk's own time is in the wall clock only."""
    registry = Registry.open(folder / "appended")
    cpu_ms, wall_ms = [], []
    for attempt in copies(model, appends + 1):
        cpu, wall = time.process_time(), time.perf_counter()
        registry.append(attempt)
        wall_ms.append(1e3 * (time.perf_counter() - wall))
        cpu_ms.append(1e3 * (time.process_time() - cpu))
    loose_bytes = sum(file.stat().st_size for file in (registry.path / "attempts").iterdir()) / (appends + 1)
    cpu = time.process_time()
    registry.fold(model.provenance.invocation)
    fold_ms = 1e3 * (time.process_time() - cpu) / (appends + 1)
    # The first append imports pyarrow and writes the facts.
    return [
        Figure("CPU of appending one attempt", Readings("append", "ms", tuple(cpu_ms[1:])), APPEND_GOAL_MS),
        Figure("Wall time of appending one attempt", Readings("append", "ms", tuple(wall_ms[1:]))),
        Figure("Bytes of its loose file", Readings("append", "B", (loose_bytes,))),
        Figure("CPU of the fold at the end of the run, an attempt", Readings("fold", "ms", (fold_ms,))),
    ]


def measure_leaderboard(folder: Path, model: Attempt, rounds: int, attempts: int) -> list[Figure]:
    """The whole command in a process of its own, and in a warm process the query and the statistics alone."""
    path = folder / "board"
    registry = Registry.open(path)
    for attempt in copies(model, attempts):
        registry.append(attempt)
    registry.fold(model.provenance.invocation)
    harness = Path(sys.executable).parent / "harness"
    command = [harness, "leaderboard", "--registry", path, "--machine", model.provenance.machine]
    calls = {
        "command": partial(run_measured, command, folder, clean_environment()),
        "warm": partial(board_in_process, path, model.provenance.machine),
    }
    for call in calls.values():
        call()
    found = interleave(calls, rounds)
    whole, warm = (Readings("leaderboard", "s", cpu_of(found[name])) for name in ("command", "warm"))
    return [
        Figure(f"CPU of `harness leaderboard` over {attempts:,} attempts", whole),
        Figure("Of this, opening, query and statistics", warm),
    ]


def cpu_of(usages: list[Usage]) -> tuple[float, ...]:
    return tuple(u.cpu_s for u in usages)


def board_in_process(path: Path, machine: str) -> Usage:
    """A registry opened anew, all of its boards; in this process, where everything is imported."""
    cpu, wall = time.process_time(), time.perf_counter()
    (board,) = make_leaderboards(Registry.open(path, create=False), None, machine)
    usage = Usage(time.process_time() - cpu, time.perf_counter() - wall)
    if len(board.rows) != METHODS:
        raise RuntimeError(f"the leaderboard has {len(board.rows)} rows, not {METHODS}")
    return usage
