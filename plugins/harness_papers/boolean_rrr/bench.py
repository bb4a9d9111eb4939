"""What an iteration of the search costs: `python -m harness_papers.boolean_rrr.bench --boolearn FOLDER`.

Process time for each edge, item and iteration, in one run and one thread: the authors' program, the torch code, the C code;
then the C code with eight searches in as many threads as there are cores, by the clock on the wall. Everything starts from
random values and no search ends early. The authors' program is compiled as its makefile says; FOLDER is `boolearn/src` of a
clone of github.com/veitelser/boolearn; without it that column is empty. Where there is CUDA, a last line is about 64 searches
of the torch code there.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from harness_papers.boolean_rrr.c_search import CSearch, why_not
from harness_papers.boolean_rrr.method import Search
from harness_papers.boolean_rrr.problem import BooleanProblem, Table
from harness_papers.boolean_rrr.start import Settings, draw_start, fan_ins
from harness_papers.boolean_rrr.tasks import MULTIPLIER_WIDTHS, RULE30_CELLS, RULE30_WIDTHS, multiplier_table, rule30

SETTINGS = Settings(sigma=3.0, beta=0.2, gamma=1e-3)
SIDE_BY_SIDE, ON_CUDA = 8, 64
REPEATS = 5


def cases() -> dict[str, BooleanProblem]:
    """By name: the paper's smallest task, its 3-bit multiplier, rule 30, and the shape of its largest random circuits."""
    rng = np.random.default_rng(0)
    worlds = rng.integers(0, 2, size=(256, RULE30_CELLS))
    bits = rng.choice(np.array([-1, 1], dtype=np.int8), size=(512, 32))
    coded = [(2 * part - 1).astype(np.int8) for part in (worlds, rule30(worlds))]
    return {
        "multiplier 2": BooleanProblem(multiplier_table(2), MULTIPLIER_WIDTHS[2]),
        "multiplier 3": BooleanProblem(multiplier_table(3), MULTIPLIER_WIDTHS[3]),
        "rule 30": BooleanProblem(Table(*coded), RULE30_WIDTHS[1]),
        "32 wide, 5 deep": BooleanProblem(Table(bits, np.roll(bits, 1, axis=1)), (32,) * 6),
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m harness_papers.boolean_rrr.bench", description="What an iteration costs.")
    parser.add_argument("--boolearn", type=Path, metavar="FOLDER", help="boolearn/src of a clone of the authors' repository")
    parser.add_argument("--seconds", type=float, default=1.0, help="process seconds a reading, about (1)")
    named = parser.parse_args(argv)
    torch.set_num_threads(1)
    if why := why_not():
        print(f"no figures of the C code: {why}")
    cores = len(os.sched_getaffinity(0))
    together = f"C, {SIDE_BY_SIDE} searches"
    print(
        f"ns for each edge x item x iteration, the least of {REPEATS}: process time, 1 thread; last column: wall, {cores} cores"
    )
    print(f"{'':16} {'items':>6} {'edges':>6} {'authors':>8} {'torch':>8} {'C':>8} {together:>14}")
    with tempfile.TemporaryDirectory() as folder:
        program = compile_program(named.boolearn, Path(folder)) if named.boolearn else None
        for name, problem in cases().items():
            work = problem.items * problem.edges
            figures = [time_program(program, problem, Path(folder), named.seconds) if program else None]
            figures.append(time_steps(torch_steps(problem), named.seconds, time.process_time))
            for count, clock in ((1, time.process_time), (SIDE_BY_SIDE, time.perf_counter)):
                steps = None if why else c_steps(problem, count, cores)
                figures.append(None if steps is None else time_steps(steps, named.seconds, clock) / count)
            shown = ["" if seconds is None else f"{seconds / work * 1e9:.2f}" for seconds in figures]
            sizes = f"{name:16} {problem.items:6} {problem.edges:6}"
            print(f"{sizes} {shown[0]:>8} {shown[1]:>8} {shown[2]:>8} {shown[3]:>14}", flush=True)
    if torch.cuda.is_available():
        problem = cases()["multiplier 3"]
        steps = torch_steps(problem, ON_CUDA, "cuda")
        seconds = time_steps(steps, named.seconds, time.perf_counter) / (ON_CUDA * problem.items * problem.edges)
        print(f"torch on {torch.cuda.get_device_name()}, {ON_CUDA} searches of multiplier 3, wall: {seconds * 1e9:.3f} ns")
    return 0


Steps = Callable[[int], object]


def torch_steps(problem: BooleanProblem, count: int = 1, device: str = "cpu") -> Steps:
    starts = [draw_start(problem, np.random.default_rng(seed)) for seed in range(count)]
    search = Search(problem, SETTINGS, starts, device=device)
    return lambda steps: [search.step() for _ in range(steps)]


def c_steps(problem: BooleanProblem, count: int, threads: int) -> Steps:
    starts = [draw_start(problem, np.random.default_rng(seed)) for seed in range(count)]
    return CSearch(problem, SETTINGS, starts, threads).advance


def time_steps(advance: Steps, seconds: float, clock: Callable[[], float]) -> float:
    """Seconds an iteration: the least of REPEATS readings, which together take about so many seconds."""

    def reading(steps: int) -> float:
        before = clock()
        advance(steps)
        return clock() - before

    reading(3)
    steps = max(3, round(seconds / REPEATS / (reading(10) / 10)))
    return min(reading(steps) for _ in range(REPEATS)) / steps


# The authors' program -----------------------------------------------------------------------------------------------------


def compile_program(source: Path, folder: Path) -> Path:
    """As its makefile does; -fcommon because its header defines variables, which gcc 10 and later refuse twice."""
    program = folder / "train"
    files = [str(source / name) for name in ("train.c", "net.c")]
    command = ["gcc", "-O3", "-fcommon", "-o", str(program), *files, "-I", str(source), "-lm"]
    subprocess.run(command, check=True, capture_output=True)
    return program


def time_program(program: Path, problem: BooleanProblem, folder: Path, seconds: float) -> float:
    """Process seconds an iteration, by the difference of a long and a short search: reading files is no iteration."""
    (folder / "net").write_text(net_file(problem))
    (folder / "data").write_text(data_file(problem))

    def reading(steps: int) -> float:
        """sigma, beta, gamma, ten reports, steps, a gap that is never reached, one search."""
        numbers = [SETTINGS.sigma, SETTINGS.beta, SETTINGS.gamma, 10, steps, 1e-12, 1]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [str(program), "net", "data", str(problem.items), *map(str, numbers), "t"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    guess = 40e-9 * problem.items * problem.edges
    short = 12
    long = short + max(12, round(seconds / REPEATS / guess))
    return min((reading(long) - reading(short)) / (long - short) for _ in range(REPEATS))


def net_file(problem: BooleanProblem) -> str:
    nodes, first, lines, before, gate = 1 + sum(problem.widths), 1 + problem.widths[0], [], 1, 1 + problem.widths[0]
    for fan_in, width in fan_ins(problem.widths):
        for _ in range(width):
            lines += [f"{gate} {source} 0.0" for source in (0, *range(before, before + fan_in - 1))]
            gate += 1
        before += fan_in - 1
    return "\n".join([f"{nodes} {first} {problem.widths[-1]} {problem.edges}", *lines, ""])


def data_file(problem: BooleanProblem) -> str:
    rows = np.concatenate([problem.table.inputs > 0, problem.table.outputs > 0], axis=1).astype(int)
    head = [f"{problem.items}", f"2 {problem.widths[0]}", f"2 {problem.widths[-1]}"]
    return "\n".join([*head, *(" ".join(map(str, row)) for row in rows), ""])


if __name__ == "__main__":
    raise SystemExit(main())
