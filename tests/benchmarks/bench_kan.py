"""The B-spline layer beside its peers: `python -m tests.benchmarks.bench_kan [--quick] [--only PART] [--write PAGE]`.

Each layer (G = 5, k = 3, batch 256, float32, one thread; forward and backward, no gradient of the input) is read in turns with
an MLP (Linear, SiLU, Linear) of as many parameters and as many inputs and outputs: A B B A. A reading is CPU time, so that
who shares the core is not counted; what they cost in caches is, so the lowest ratio stands beside the median.

time: at 784x64 and at 64x64.   input: the same with the gradient of the input, which the MLP then has to give too.
memory: what five steps add to the resident set, weights and gradients included; each reading in a process of its own.
Goals: the fused layer takes at most 0.8 of its MLP's time at both shapes, and at most 1.5 of its memory.
pykan is read where it is installed (`pip install pykan pandas matplotlib tqdm`), its scale of splines held at 1, so that it has
as many parameters as the others; what torch compiles is left out with --quick.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from harness_papers.kan import kernels
from harness_papers.kan.cases import KANCase
from harness_papers.kan.families import FAMILIES, BasisLayer
from harness_papers.kan.fused import fused_spline_linear, why_eager
from harness_papers.kan.splines import Grid
from torch import Tensor, nn

from harness.kernels.measuring import importable
from harness.worker.environment import worker_environment
from harness.worker.measuring import resident_bytes

BATCH, GRID = 256, Grid()
SHAPES = ((784, 64), (64, 64))
TIME_GOAL, MEMORY_GOAL = 0.8, 1.5
LEAST_S = 0.01  # of a reading
STEPS = 5  # of a reading of memory
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

Step = Callable[[], object]
Names = tuple[str, ...]
OURS, SCALED = "fused (ours)", "fused (ours), with scaler"
EAGER: Names = (OURS, SCALED, "closed form", "efficient-kan's formula", "FastKAN", "pykan's layer")
COMPILED: Names = ("closed form, compiled", "efficient-kan's formula, compiled")


@dataclass(frozen=True)
class Ratio:
    """One layer over its MLP. own_s, mlp_s: median CPU seconds of a step; ratios: of neighbouring readings."""

    part: str
    shape: tuple[int, int]
    layer: str
    parameters: int
    own_s: float
    mlp_s: float
    ratios: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)


@dataclass(frozen=True)
class Memory:
    """Bytes that STEPS steps add to the resident set, median of several processes."""

    shape: tuple[int, int]
    layer: str
    own_bytes: int
    mlp_bytes: int

    @property
    def ratio(self) -> float:
        return self.own_bytes / self.mlp_bytes


# Subjects ---------------------------------------------------------------------------------------------------------------


def make_layer(name: str, features: int, outputs: int) -> tuple[Callable[[Tensor], Tensor], list[Tensor]]:
    """(x -> y, the trained parameters)."""
    generator = torch.Generator().manual_seed(0)
    case = KANCase(elements=BATCH * features, features=features, outputs=outputs)
    if name == "FastKAN":
        layer = BasisLayer(FAMILIES["fastkan"], features, outputs)
        layer.reset(generator)
        return layer, list(layer.parameters())
    inputs = kernels.make_inputs(case, generator, torch.device("cpu"), torch.float32)
    base, spline = inputs["base"], inputs["spline"]
    if name == SCALED:
        scaler = torch.ones_like(base).requires_grad_()
        return lambda x: fused_spline_linear(x, base, spline, GRID, scaler), [base, spline, scaler]
    runs = {
        OURS: kernels.ours, "closed form": kernels.closed_form, "efficient-kan's formula": kernels.recursion,
        "pykan's layer": kernels.pykan,
    }  # fmt: skip
    run = runs[name.removesuffix(", compiled")]
    if name.endswith(", compiled"):
        torch._dynamo.reset()
        run = torch.compile(run, dynamic=False)
    return lambda x: run({"x": x, "base": base, "spline": spline}, case), [base, spline]


def make_mlp(parameters: int, features: int, outputs: int) -> nn.Module:
    """Of the hidden width that comes nearest to so many parameters."""
    hidden = max(1, round((parameters - outputs) / (features + outputs + 1)))
    return nn.Sequential(nn.Linear(features, hidden), nn.SiLU(), nn.Linear(hidden, outputs))


def make_step(run: Callable[[Tensor], Tensor], parameters: list[Tensor], features: int, outputs: int, input_grad: bool) -> Step:
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(BATCH, features, generator=generator) * 2 - 1).requires_grad_(input_grad)
    above = torch.randn(BATCH, outputs, generator=generator)

    def step() -> None:
        for parameter in (x, *parameters):
            parameter.grad = None
        run(x).backward(above)

    return step


def make_pair(name: str, features: int, outputs: int, input_grad: bool = False) -> tuple[Step, Step, int]:
    """A step of the layer, one of its MLP, and the layer's number of parameters."""
    run, parameters = make_layer(name, features, outputs)
    count = sum(p.numel() for p in parameters)
    mlp = make_mlp(count, features, outputs)
    own = make_step(run, parameters, features, outputs, input_grad)
    return own, make_step(mlp, list(mlp.parameters()), features, outputs, input_grad), count


# Readings ---------------------------------------------------------------------------------------------------------------


def compare_times(part: str, names: Names, shape: tuple[int, int], rounds: int) -> list[Ratio]:
    found = []
    for name in names:
        own, mlp, count = make_pair(name, *shape, input_grad=part == "input")
        own_s, mlp_s = in_turns(own, mlp, rounds)
        ratios = tuple(a / b for a, b in zip(own_s, mlp_s, strict=True))
        found.append(Ratio(part, shape, name, count, statistics.median(own_s), statistics.median(mlp_s), ratios))
    return found


def in_turns(a: Step, b: Step, rounds: int) -> tuple[list[float], list[float]]:
    """CPU seconds of a step of each, A B B A; as many steps a reading as take LEAST_S."""
    times = {}
    for step in (a, b):
        for _ in range(2):  # the first compiles
            step()
        began = time.process_time()
        step()
        times[step] = max(1, round(LEAST_S / max(time.process_time() - began, 1e-6)))
    readings: dict[Step, list[float]] = {a: [], b: []}
    for turn in range(rounds):
        for step in (a, b) if turn % 2 else (b, a):
            began = time.process_time()
            for _ in range(times[step]):
                step()
            readings[step].append((time.process_time() - began) / times[step])
    return readings[a], readings[b]


def compare_memory(names: Names, shape: tuple[int, int], processes: int) -> list[Memory]:
    """MLPs of as many parameters are read once."""
    mlps: dict[int, int] = {}
    found = []
    for name in names:
        count = sum(p.numel() for p in make_layer(name, *shape)[1])
        if count not in mlps:
            mlps[count] = read_apart("mlp", name, shape, processes)
        found.append(Memory(shape, name, read_apart("own", name, shape, processes), mlps[count]))
    return found


def read_apart(which: str, name: str, shape: tuple[int, int], processes: int) -> int:
    """The median of some fresh processes."""
    command = [sys.executable, "-W", "ignore", "-m", "tests.benchmarks.bench_kan", "--peak", which, name, *map(str, shape)]
    done = [
        subprocess.run(command, env=worker_environment(1), stdout=subprocess.PIPE, text=True, check=True)
        for _ in range(processes)
    ]
    return int(statistics.median(int(one.stdout) for one in done))


def read_peak(which: str, name: str, features: int, outputs: int) -> int:
    """Growth of the resident set's highest mark. What is loaded on first use is no cost of the method: 8 inputs go first."""
    own, mlp, _ = make_pair(name, 8, 8)
    (own if which == "own" else mlp)()
    del own, mlp
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes("VmRSS")
    run, parameters = make_layer(name, features, outputs)
    if which == "mlp":
        run = make_mlp(sum(p.numel() for p in parameters), features, outputs)
        parameters = list(run.parameters())
    step = make_step(run, parameters, features, outputs, input_grad=False)
    for _ in range(STEPS):
        step()
    return resident_bytes("VmHWM") - before


# Command ----------------------------------------------------------------------------------------------------------------


def render_times(found: list[Ratio]) -> str:
    lines = [
        "| part | shape | layer | parameters | step | its MLP's | time / MLP's, median | lowest | goal |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for r in found:
        goal = f"<= {TIME_GOAL:g}: {'met' if r.median <= TIME_GOAL else 'MISSED'}" if r.layer in (OURS, SCALED) else "-"
        lines.append(
            f"| {r.part} | {r.shape[0]}x{r.shape[1]} | {r.layer} | {r.parameters:,} | {r.own_s * 1e3:.3g} ms | "
            f"{r.mlp_s * 1e3:.3g} ms | {r.median:.2f} | {min(r.ratios):.2f} | {goal if r.part == 'time' else '-'} |"
        )
    return "\n".join(lines)


def render_memory(found: list[Memory]) -> str:
    lines = ["| shape | layer | memory | its MLP's | memory / MLP's | goal |", "|---|---|---|---|---|---|"]
    for m in found:
        goal = f"<= {MEMORY_GOAL:g}: {'met' if m.ratio <= MEMORY_GOAL else 'MISSED'}" if m.layer in (OURS, SCALED) else "-"
        own, mlp = m.own_bytes / 2**20, m.mlp_bytes / 2**20
        lines.append(f"| {m.shape[0]}x{m.shape[1]} | {m.layer} | {own:.2f} MiB | {mlp:.2f} MiB | {m.ratio:.2f} | {goal} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_kan", description=__doc__)
    parser.add_argument("--only", choices=("time", "input", "memory"), help="one part")
    parser.add_argument("--quick", action="store_true", help="few readings, nothing compiled")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the tables")
    parser.add_argument("--write", type=Path, metavar="PAGE", help=f"put the tables between {BEGIN} and {END} of a page")
    parser.add_argument("--peak", nargs=4, metavar=("WHICH", "NAME", "IN", "OUT"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.peak:
        print(read_peak(args.peak[0], args.peak[1], int(args.peak[2]), int(args.peak[3])))
        return
    if args.write and args.only:
        parser.error("--write needs all parts: drop --only")
    why = why_eager(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1, GRID.bases), GRID)
    if why:
        parser.error(f"the fused code does not run here: {why}")
    eager = tuple(name for name in EAGER if name != "pykan's layer" or importable("kan.KANLayer"))
    load = os.getloadavg()[0]
    names, rounds = (eager, 5) if args.quick else ((*eager, *COMPILED), 21)
    times: list[Ratio] = []
    memory: list[Memory] = []
    for shape in SHAPES:
        for part, chosen in (("time", names), ("input", (OURS, SCALED))):
            if args.only in (None, part):
                print(f"measuring: {part}, {shape[0]}x{shape[1]}", file=sys.stderr)
                times += compare_times(part, chosen, shape, rounds)
        if args.only in (None, "memory"):
            print(f"measuring: memory, {shape[0]}x{shape[1]}", file=sys.stderr)
            memory += compare_memory(eager, shape, 1 if args.quick else 3)
    tables = [render for found, render in ((times, render_times(times)), (memory, render_memory(memory))) if found]
    for line in [json.dumps(asdict(f)) for f in (*times, *memory)] if args.json else ["\n\n".join(tables)]:
        print(line)
    if args.write:
        write_page(args.write, "python -m tests.benchmarks.bench_kan " + " ".join(argv), load, tables)


def write_page(page: Path, command: str, load: float, tables: list[str]) -> None:
    """Put the tables between BEGIN and END, under what made them."""
    conditions = f"By `{command}`; torch {torch.__version__}, {os.cpu_count()} cores, load average {load:.1f} at the start."
    before, _, rest = page.read_text().partition(BEGIN)
    figures = "\n\n".join((BEGIN, conditions, *tables, END))
    page.write_text(before + figures + rest.partition(END)[2])


if __name__ == "__main__":
    main(sys.argv[1:])
