"""Every figure of docs/performance.md: `python -m tests.benchmarks [--quick] [--only PART] [--json] [--write PAGE]`."""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.benchmarks import bench_size
from tests.benchmarks.bench_peers import measure_peers
from tests.benchmarks.bench_registry import measure_registry
from tests.benchmarks.bench_report import ROWS, measure_report
from tests.benchmarks.bench_size import Shape, measure_size
from tests.benchmarks.bench_startup import measure_startup
from tests.benchmarks.bench_trials import half_way, measure_smoke, measure_trials
from tests.benchmarks.figures import Figure
from tests.benchmarks.page import Conditions, render_page, render_table
from tests.benchmarks.peers import Unavailable, ensure_benchopt, ensure_mlflow

ROOT = Path(__file__).parents[2]
PARTS = ("startup", "trials", "smoke", "registry", "size", "report", "peers", "training")


@dataclass(frozen=True)
class Size:
    """How much is measured. blocks: of the training loops, None for each case's own number. runs: in MLflow's store."""

    rounds: int
    few: int
    many: int
    appends: int
    attempts: int
    blocks: int | None
    shapes: tuple[Shape, ...]
    runs: int


FULL = Size(rounds=7, few=20, many=220, appends=300, attempts=1000, blocks=None, shapes=bench_size.FULL, runs=10_000)
QUICK = Size(rounds=2, few=2, many=12, appends=20, attempts=50, blocks=2, shapes=bench_size.QUICK, runs=50)


def parts(size: Size, folder: Path, install: bool, benchopt: Path | None, reason: str) -> dict[str, Callable[[], list[Figure]]]:
    return {
        "startup": lambda: measure_startup(folder, size.rounds, benchopt, reason),
        "trials": lambda: measure_trials(folder, size.rounds, size.few, size.many, benchopt, reason),
        "smoke": lambda: measure_smoke(folder, size.rounds),
        "registry": lambda: measure_registry(folder, size.rounds, size.appends, size.attempts),
        "size": lambda: measure_size(folder, size.rounds, size.shapes),
        "report": lambda: measure_report(folder, min(size.rounds, 3), ROWS if size is FULL else ROWS // 50),
        "peers": lambda: measure_peers(folder, size.runs, min(size.rounds, 3), *available(ensure_mlflow, install)),
        "training": lambda: training(size),
    }


def available(ensure: Callable[[Path, bool], Path], install: bool) -> tuple[Path | None, str]:
    """What a peer is run with, or None and the reason."""
    try:
        return ensure(ROOT / ".venv-peers", install), ""
    except Unavailable as exc:
        return None, str(exc)


def training(size: Size) -> list[Figure]:
    from tests.benchmarks.bench_training import measure_training  # here: it imports torch

    return measure_training(size.blocks)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a fast look with few readings; installs no peer")
    parser.add_argument("--only", action="append", choices=PARTS, help="one part; repeat")
    parser.add_argument("--json", action="store_true", help="all readings as JSON instead of the table")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the whole page too; not with --quick or --only")
    args = parser.parse_args(argv)
    if args.write and (args.quick or args.only):
        parser.error("--write needs all figures at full size: drop --quick and --only")
    size = QUICK if args.quick else FULL
    load = os.getloadavg()[0]
    benchopt, reason = available(ensure_benchopt, install=not args.quick)
    figures: list[Figure] = []
    # Beside the checkout, not in /tmp: that may be memory, where flushing a file costs nothing.
    scratch = ROOT / ".benchmarks"
    scratch.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        for name, measure in parts(size, Path(folder).resolve(), not args.quick, benchopt, reason).items():
            if not args.only or name in args.only:
                print(f"measuring: {name}", file=sys.stderr)
                figures += measure()
    for figure in figures:
        if not all(math.isfinite(v) for v in (figure.value, *figure.readings.values)):
            raise RuntimeError(f"{figure.what}: a reading is not finite")
    print(json.dumps([asdict(f) | {"value": f.value, "met": f.met} for f in figures]) if args.json else render_table(figures))
    if args.write:
        command = "python -m tests.benchmarks " + " ".join(argv)
        half = half_way(size.few, size.many)
        conditions = Conditions(command, size.rounds, size.few, size.many, half, (load, os.getloadavg()[0]))
        args.write.write_text(render_page(figures, conditions))


if __name__ == "__main__":
    main(sys.argv[1:])
