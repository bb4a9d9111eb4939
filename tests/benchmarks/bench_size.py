"""What a leaderboard costs over a registry of years: up to 10 million measurements that 1,000 invocations wrote.

The registries are made here, a whole invocation at a time and not attempt by attempt, in the layout that `harness run`
leaves: one folded file an invocation, with the manifest that names the loose files which it replaced (long deleted), and then
what `compact` makes of these. The rows are as long as real ones: a curve, resources, what the worker saw, a log of what failed.
`python -m tests.benchmarks.bench_size nights-1m FOLDER` makes one and leaves it there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from harness.identity import canonical
from harness.leaderboard import Board, make_leaderboards
from harness.registry import Registry, schema
from harness.registry.files import Layout, content_name, publish
from tests.benchmarks.figures import Figure, Readings
from tests.benchmarks.usage import Usage, clean_environment, run_measured

MACHINE = "534918165dd2d2e1"
BEGAN_MS = 1_790_000_000_000  # 2026-09-21: of the first invocation; the next ones follow an hour apart
INVOCATION_MS = 3_600_000
BIN = Path(sys.executable).parent
FAILED_SHARE = 0.01
LOG_BYTES = 2048  # of a failed attempt
OFFERS = 10


@dataclass(frozen=True)
class Shape:
    """A registry to make. nights: each invocation runs all series anew; otherwise each runs its own share of them, once.

    goal_s: the most that a leaderboard over it may take in a warm process, of CPU and of wall time; None where it has none.
    """

    name: str
    invocations: int
    methods: int
    tasks: int
    seeds: int
    nights: bool = True
    goal_s: float | None = None

    @property
    def series(self) -> int:
        return self.methods * self.tasks * self.seeds

    @property
    def attempts(self) -> int:
        return self.series * (self.invocations if self.nights else 1)

    @property
    def label(self) -> str:
        kind = "nights of" if self.nights else "invocations, together"
        return f"{self.attempts * MEASUREMENTS:,} measurements ({self.invocations:,} {kind} {self.series:,} series)"


FULL = (
    Shape("nights-1m", 1000, methods=10, tasks=1, seeds=10, goal_s=0.1),
    Shape("nights-10m", 1000, methods=10, tasks=10, seeds=10, goal_s=0.4),
    Shape("series-100k", 100, methods=20, tasks=50, seeds=100, nights=False, goal_s=0.5),
)
QUICK = (
    Shape("nights-1m", 10, methods=10, tasks=1, seeds=10),
    Shape("nights-10m", 10, methods=10, tasks=10, seeds=10),
    Shape("series-100k", 10, methods=20, tasks=5, seeds=10, nights=False),
)


# What every attempt has in common: the texts are those of a real attempt of digits.
NET = {"activation": "relu", "arch": "mlp", "depth": 2, "heads": 3, "init": "he", "norm": "none", "patch": 4, "width": 128}
TRAIN = {"batch": 64, "clip": 0.0, "evaluations": 20, "lr": 0.02, "optimizer": "adamw", "schedule": "cosine", "warmup": 0.05,
         "weight_decay": 0.01}  # fmt: skip
TASK_PARAMS = {"standardize": True, "subset": None, "test": 0.2, "test_subset": None, "validation": 0.25}
WORKER = {
    "deterministic": "warn_only", "python": "3.11.7", "torch": "2.13.0+cpu", "torch_cuda": None,
    "settings": {
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "CUDA_VISIBLE_DEVICES": "", "MALLOC_MMAP_THRESHOLD_": "1000000000",
        "MALLOC_TOP_PAD_": "268435456", "MALLOC_TRIM_THRESHOLD_": "8000000000", "MKL_NUM_THREADS": "1", "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    },
}  # fmt: skip
# quantity, unit, better, worst; each on both parts: MEASUREMENTS in all.
METRICS = (
    ("accuracy", "1", "higher", 0.0), ("nll", "nat", "lower", None), ("ece", "1", "lower", 1.0), ("brier", "1", "lower", 2.0),
    ("batch_dependence", "1", "lower", None),
)  # fmt: skip
PARTS = ("validation", "test")
MEASUREMENTS = len(METRICS) * len(PARTS)
OWED = METRICS[:4]
CLOCKS = ("samples_seen", "steps", "wall_s")
CONSTANT = {
    "suite": "nightly", "machine": MACHINE, "environment": "dbabb27ee2054d479ab493fe32ebc21c", "host": "vm", "git_dirty": False,
    "kind": "quality", "track": "paper-harness/classify", "paper": "", "device": "cpu", "dtype": "float32",
    "code_digest": "f0ece52f67decd1c1c82f35d3541a715", "data_digest": "9fd11167e24d988ae19e6e32f55df698",
    "torch_version": "2.13.0+cpu", "task_params": canonical(TASK_PARAMS), "net": canonical(NET), "train": canonical(TRAIN),
    "budget": canonical({"samples_seen": 21560.0}), "threads": 1, "root_seed": 0, "measure": [m[0] for m in OWED],
    "limit_fired": "", "log_dropped_bytes": 0, "params": 26122, "worker_environment": json.dumps(WORKER, sort_keys=True),
    "declared": [dict(zip(("quantity", "unit", "better", "worst"), m, strict=True)) | {"part": "test"} for m in OWED],
    "series": [], "timings": [], "diagnostics": [], "blobs": [],
}  # fmt: skip


# The registry ---------------------------------------------------------------------------------------------------------


def build(shape: Shape, path: Path) -> None:
    """A new registry of this shape: one folded file and one manifest an invocation, nothing compacted yet."""
    Registry.open(path)
    layout, series = Layout(path), series_table(shape)
    size = series.num_rows if shape.nights else -(-series.num_rows // shape.invocations)
    for number in range(shape.invocations):
        part = series if shape.nights else series.slice(number * size, size)
        publish_folded(layout, attempts_of(part, number))


def publish_folded(layout: Layout, table: pa.Table) -> None:
    """The file as a fold writes it, and its manifest: the loose files had names of their own, which nobody can guess."""
    content = schema.encode_many(table)
    name = content_name(content, ".parquet")
    publish(layout, content, layout / "folded" / name)
    replaces = sorted(hashlib.sha256(key.encode()).hexdigest() + ".parquet" for key in table["attempt_id"].to_pylist())
    manifest = json.dumps({"format": 1, "folded": name, "rows": table.num_rows, "replaces": replaces}, sort_keys=True).encode()
    publish(layout, manifest, layout / "manifests" / content_name(manifest, ".json"))


def series_table(shape: Shape) -> pa.Table:
    """What does not change from night to night, one row a series, all of its columns in today's schema."""
    keys = [(t, m, s) for t in range(shape.tasks) for m in range(shape.methods) for s in range(shape.seeds)]
    columns = {name: constant(name, value, len(keys)) for name, value in CONSTANT.items()}
    columns |= {
        "task": pa.array([f"paper-harness/task-{t:02}" for t, _, _ in keys]),
        "method": pa.array([f"paper-harness/method-{m:02}" for _, m, _ in keys]),
        "role": pa.array(["method" if m else "baseline" for _, m, _ in keys]),
        "method_params": pa.array([json.dumps({"eps": 0.01 * m}) for _, m, _ in keys]),
        "seed": pa.array([s for _, _, s in keys], pa.int64()),
        "series_key": pa.array([digest("series", *key) for key in keys]),
        "trial_id": pa.array([digest("trial", *key) for key in keys]),
        "pair_key": pa.array([digest("pair", t, s) for t, _, s in keys]),
    }
    return schema.conform(pa.table(columns))


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def constant(column: str, value: Any, rows: int) -> pa.Array:
    """One value of a column of today's schema, `rows` times."""
    one = pa.array([value], schema.attempt_schema().field(column).type)
    return one.take(pa.array(np.zeros(rows, np.int64)))


def attempts_of(series: pa.Table, number: int) -> pa.Table:
    """One invocation's attempts of these series, as a fold sorts them; the same number gives the same rows."""
    rng, rows = np.random.default_rng(number), series.num_rows
    began_ms = BEGAN_MS + number * INVOCATION_MS + 1000 * np.arange(rows)
    random = rng.bytes(10 * rows).hex()
    ok = rng.random(rows) >= FAILED_SHARE
    solve_s = rng.gamma(20.0, 0.02, rows)
    failed = ~ok
    replaced = {
        "attempt_id": pa.array([f"{ms:012x}{random[20 * i : 20 * i + 20]}" for i, ms in enumerate(began_ms.tolist())]),
        "invocation": constant("invocation", f"{began_ms[0]:012x}{digest(number)[:20]}", rows),
        "boot_id": constant("boot_id", digest("boot", number // 10), rows),
        "git_commit": constant("git_commit", digest("commit", number // 5), rows),
        "started_at": pa.array(1000 * began_ms, pa.timestamp("us", tz="UTC")),
        "status": choose(failed, "failed", "ok"),
        "error": choose(failed, "RuntimeError: the loss is not finite at step 17", ""),
        "log": choose(failed, digest("log", number) * (LOG_BYTES // 32), ""),
        "exit_code": pa.array(failed.astype(np.int64)),
        "wall_s": pa.array(solve_s + 0.1 + 0.02 * rng.random(rows)),
        "solve_s": pa.array(solve_s),
        "cpu_s": pa.array(solve_s + 0.1),
        "peak_rss_bytes": pa.array(4096 * rng.integers(9000, 9400, rows)),
        "minor_faults": pa.array(rng.integers(4000, 5000, rows)),
        "measurements": measurements(rng, ok),
        "curve": curve(rng, ok, solve_s),
        "spent": spent(solve_s),
    }
    arrays = [replaced.get(name, series[name]) for name in series.column_names]
    return pa.table(arrays, schema=series.schema).sort_by("attempt_id")


def choose(where: np.ndarray, yes: str, no: str) -> pa.Array:
    return pa.array([no, yes]).take(pa.array(where.astype(np.int64)))


def lists(name: str, lengths: np.ndarray, pattern: dict[str, list[Any]], values: dict[str, np.ndarray]) -> pa.Array:
    """A list column of structs. pattern: members that repeat in each list; values: one for each element of all lists."""
    kind = schema.attempt_schema().field(name).type
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    period = len(next(iter(pattern.values())))
    index = pa.array(np.tile(np.arange(period), int(lengths.sum()) // period))
    fields = {member.name: member.type for member in kind.value_type}
    found = {key: pa.array(given, fields[key]).take(index) for key, given in pattern.items()}
    found |= {key: given if isinstance(given, pa.Array) else pa.array(given) for key, given in values.items()}
    structs = pa.StructArray.from_arrays([found[key] for key in fields], fields=list(kind.value_type))
    return pa.ListArray.from_arrays(offsets, structs, type=kind)


def measurements(rng: np.random.Generator, ok: np.ndarray) -> pa.Array:
    """Every metric on every part; of a failed attempt none."""
    pairs = [(metric, part) for part in PARTS for metric in METRICS]
    pattern = {
        "quantity": [m[0] for m, _ in pairs], "part": [part for _, part in pairs], "unit": [m[1] for m, _ in pairs],
        "better": [m[2] for m, _ in pairs], "worst": [m[3] for m, _ in pairs],
    }  # fmt: skip
    lengths = np.where(ok, len(pairs), 0)
    return lists("measurements", lengths, pattern, {"value": rng.beta(20.0, 5.0, int(lengths.sum()))})


def curve(rng: np.random.Generator, ok: np.ndarray, solve_s: np.ndarray) -> pa.Array:
    """One metric at ten offers; the time of each is its own."""
    at = schema.attempt_schema().field("curve").type.value_type.field("at").type
    points = int(OFFERS * ok.sum())
    wall_s = (solve_s[ok][:, None] * np.linspace(0.1, 1.0, OFFERS)).ravel()
    offers = np.tile(np.arange(1, OFFERS + 1), points // OFFERS)
    amounts = np.stack([1088.0 * offers, 17.0 * offers, wall_s], axis=1).ravel()
    clocks = pa.array(CLOCKS).take(pa.array(np.tile(np.arange(3), points)))
    spent_at = pa.StructArray.from_arrays([clocks, pa.array(amounts)], fields=list(at.value_type))
    values = {
        "at": pa.ListArray.from_arrays(pa.array(3 * np.arange(points + 1, dtype=np.int32)), spent_at, type=at),
        "value": rng.beta(20.0, 5.0, points),
    }
    pattern = {"quantity": ["accuracy"] * OFFERS, "part": ["validation"] * OFFERS, "unit": ["1"] * OFFERS}
    return lists("curve", np.where(ok, OFFERS, 0), pattern, values)


def spent(solve_s: np.ndarray) -> pa.Array:
    amounts = np.stack([np.full_like(solve_s, 21504.0), np.full_like(solve_s, 336.0), solve_s], axis=1).ravel()
    return lists("spent", np.full(len(solve_s), 3), {"clock": list(CLOCKS)}, {"amount": amounts})


# The figures ----------------------------------------------------------------------------------------------------------


def measure_size(folder: Path, rounds: int, shapes: Sequence[Shape] = FULL) -> list[Figure]:
    """Each shape as its invocations left it, and compacted."""
    return [figure for shape in shapes for figure in measure_shape(folder / shape.name, rounds, shape)]


def measure_shape(path: Path, rounds: int, shape: Shape) -> list[Figure]:
    build(shape, path)
    first = Readings("first", "s", (board_in_process(path, shape).wall_s,))
    loose = [board_in_process(path, shape) for _ in range(rounds)]
    began = time.perf_counter()
    registry = Registry.open(path)  # as the next `harness run` does it: this compacts
    compact_s = time.perf_counter() - began
    registry.remove_replaced(grace_s=-1.0)
    again = Readings("first", "s", (board_in_process(path, shape).wall_s,))
    warm = [board_in_process(path, shape) for _ in range(rounds)]
    command = [BIN / "harness", "leaderboard", "--json", "--registry", path, "--machine", MACHINE]
    whole = [run_measured(command, path.parent, clean_environment()) for _ in range(rounds)]
    what = f"leaderboard over {shape.label}"
    figures = [
        Figure(f"Warm {what}: wall time", readings(w.wall_s for w in warm), shape.goal_s),
        Figure(f"Warm {what}: CPU", readings(w.cpu_s for w in warm), shape.goal_s),
        Figure("The same before compaction: wall time", readings(w.wall_s for w in loose), shape.goal_s),
        Figure("The same before compaction: CPU", readings(w.cpu_s for w in loose), shape.goal_s),
        Figure("Its first query, which checks all files and makes the index: wall time", first),
        Figure("Its first query after compaction: wall time", again),
        Figure("Opening it for writing, which compacts it: wall time", readings([compact_s])),
        Figure("`harness leaderboard --json` over it: CPU", readings(w.cpu_s for w in whole)),
        Figure("Its bytes on disk an attempt", readings([size_of(path, but="index") / shape.attempts], "B")),
        Figure("Its index, bytes an attempt", readings([size_of(path / "index") / shape.attempts], "B")),
    ]
    shutil.rmtree(path)
    return figures


def readings(values: Iterable[float], unit: str = "s") -> Readings:
    return Readings("leaderboard", unit, tuple(values))


def board_in_process(path: Path, shape: Shape) -> Usage:
    """A registry opened anew, all of its boards; in this process, where everything is imported and the files are cached."""
    cpu, wall = time.process_time(), time.perf_counter()
    boards = make_leaderboards(Registry.open(path, create=False), None, MACHINE)
    usage = Usage(time.process_time() - cpu, time.perf_counter() - wall)
    check(boards, shape)
    return usage


def check(boards: Sequence[Board], shape: Shape) -> None:
    """A query that lost something is fast. Raises RuntimeError."""
    counted = {(row.n_ok + row.n_failed) for board in boards for row in board.rows}
    if len(boards) != shape.tasks or any(len(b.rows) != shape.methods for b in boards) or counted != {shape.seeds}:
        raise RuntimeError(
            f"{shape.name}: {len(boards)} boards with {counted} attempts a row, not {shape.tasks}, {shape.seeds}"
        )


def size_of(path: Path, but: str = "") -> int:
    """Bytes of all files below, without those below the folder `but`."""
    files = (file for file in path.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files if not (but and file.is_relative_to(path / but)))


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_size", description=__doc__)
    parser.add_argument("shape", choices=[shape.name for shape in FULL])
    parser.add_argument("folder", type=Path, help="a new folder")
    parser.add_argument("--quick", action="store_true", help="a hundredth of it")
    args = parser.parse_args(argv)
    (shape,) = [s for s in (QUICK if args.quick else FULL) if s.name == args.shape]
    build(shape, args.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
