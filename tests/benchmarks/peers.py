"""benchopt, the peer that users would pick instead: an environment of its own, and a benchmark in which nothing happens."""

from __future__ import annotations

import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pyarrow.parquet as pq

from tests.benchmarks.usage import Usage, clean_environment, run_measured

BENCHOPT = "1.10.0"
SOLVERS = ("one", "two")
OBJECTIVE = """
    from benchopt import BaseObjective

    class Objective(BaseObjective):
        name = "nothing"

        def set_data(self, answer):
            self.answer = answer

        def get_objective(self):
            return {"answer": self.answer}

        def get_one_result(self):
            return {"answer": 0.0}

        def evaluate_result(self, answer):
            return {"value": abs(answer - self.answer)}
"""
DATASET = """
    from benchopt import BaseDataset

    class Dataset(BaseDataset):
        name = "trivial"
        parameters = {"seed": list(range(SEEDS))}

        def get_data(self):
            return {"answer": 1.0}
"""
SOLVER = """
    from benchopt import BaseSolver

    class Solver(BaseSolver):
        name = "NAME"
        sampling_strategy = "run_once"

        def set_objective(self, answer):
            self.answer = answer

        def run(self, _):
            pass

        def get_result(self):
            return {"answer": self.answer}
"""


class Unavailable(Exception):
    """The peer cannot be run here; the text says why."""


def ensure_benchopt(home: Path, install: bool = True) -> Path:
    """The command `benchopt` of exactly the version above, installed into the environment `home` if it is not there.

    Raises Unavailable, with pip's last line, where it cannot be had or `install` is False and it is not there.
    """
    marker, command = home / f"benchopt-{BENCHOPT}", home / "bin" / "benchopt"
    if marker.exists() and command.exists():
        return command
    if not install:
        raise Unavailable(f"benchopt {BENCHOPT} is not installed in {home.name}")
    print(f"installing benchopt {BENCHOPT} into {home.name}", file=sys.stderr)
    steps = (
        [sys.executable, "-m", "venv", str(home)],
        [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", f"benchopt=={BENCHOPT}"],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
            raise Unavailable(f"benchopt {BENCHOPT} cannot be installed: {said[-1]}")
    marker.touch()
    return command


def run_benchopt(command: Path, folder: Path, runs: int) -> Usage:
    """`runs` runs in which nothing happens, recorded as benchopt does by default; no plots. Raises ValueError if some are lost.

    The folder is made anew each time: benchopt keeps what it has run in a cache there.
    """
    seeds, rest = divmod(runs, len(SOLVERS))
    if rest:
        raise ValueError(f"runs must be a multiple of {len(SOLVERS)}, got {runs}")
    write_benchmark(folder, seeds)
    usage = run_measured([command, "run", ".", "--no-plot", "--no-html"], folder, clean_environment())
    recorded = sum(pq.read_table(file).num_rows for file in (folder / "outputs").glob("*.parquet"))
    if recorded != runs:
        raise ValueError(f"benchopt recorded {recorded} of {runs} runs")
    return usage


def write_benchmark(folder: Path, seeds: int) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    files = {"objective.py": OBJECTIVE, "datasets/trivial.py": DATASET.replace("SEEDS", str(seeds))}
    files |= {f"solvers/{name}.py": SOLVER.replace("NAME", name) for name in SOLVERS}
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip())
