"""The peers that users would pick instead, each in an environment of its own.

benchopt with a benchmark in which nothing happens; MLflow's sqlite store, which is spoken to over a pipe.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow.parquet as pq

from tests.benchmarks.usage import Usage, clean_environment, run_measured

BENCHOPT = "1.10.0"
MLFLOW = "3.17.2"
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
    """The command `benchopt` of exactly the version above. Raises Unavailable."""
    return ensure_environment(home, "benchopt", BENCHOPT, install) / "benchopt"


def ensure_mlflow(home: Path, install: bool = True) -> Path:
    """The Python of an environment with exactly the version of MLflow above. Raises Unavailable."""
    return ensure_environment(home / "mlflow", "mlflow", MLFLOW, install) / "python"


def ensure_environment(home: Path, package: str, version: str, install: bool) -> Path:
    """The folder of commands of the environment `home`, into which the package is installed if it is not there.

    Raises Unavailable, with pip's last line, where it cannot be had or `install` is False and it is not there.
    """
    marker, commands = home / f"{package}-{version}", home / "bin"
    if marker.exists() and (commands / "python").exists():
        return commands
    if not install:
        raise Unavailable(f"{package} {version} is not installed in {home.name}")
    print(f"installing {package} {version} into {home.name}", file=sys.stderr)
    steps = (
        [sys.executable, "-m", "venv", str(home)],
        [str(commands / "pip"), "install", "--quiet", "--disable-pip-version-check", f"{package}=={version}"],
    )
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
            raise Unavailable(f"{package} {version} cannot be installed: {said[-1]}")
    marker.touch()
    return commands


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


class MLflow:
    """A process that keeps one sqlite store in a folder; see mlflow_peer.py for what it can be asked."""

    def __init__(self, python: Path, folder: Path) -> None:
        folder.mkdir()
        self._log = (folder.parent / "mlflow.log").open("wb")
        script = Path(__file__).with_name("mlflow_peer.py")
        self._process = subprocess.Popen(
            [python, script, folder], cwd=folder, env=clean_environment(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self._answer()

    def __enter__(self) -> MLflow:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()
        self._log.close()

    def ask(self, do: str, **given: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **given}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            tail = "\n".join(Path(self._log.name).read_text(errors="replace").splitlines()[-30:])
            raise RuntimeError(f"MLflow ended with exit code {self._process.wait()}:\n{tail}")
        answer: dict[str, Any] = json.loads(line)
        return answer
