"""The spiking neuron beside its peers: `python -m tests.benchmarks.bench_lif [--quick] [--json] [--write PAGE]`.

A layer of 128 x 512 neurons (batch x width) over T = 4, 16 and 64 steps, tau 2, threshold 1, soft reset, sigmoid, float32, one
thread. All subjects are read in one process, in turns, forwards and backwards (A B C C B A); a reading is the second of two
calls, wall clock, so each finds in the caches what it left there. The lowest of all readings counts: on a machine that others
use it is nearest to that of a quiet one.

The unit is the memory floor. A step of training with a loop that keeps u moves six tensors of T x 128 x 512 floats: currents
read, spikes and u written; the gradient from above and u read, the gradient of the currents written. A copy (`copy_`, to memory
touched before) moves two, so the floor of a step is three copies among six different tensors, of forward alone a half of it.
Code that makes u again moves five, and can be below 1. The line `one pair` says what three copies between the same two take:
where a cache holds two tensors and not six that is less than moving six can take.

step: forward and backward through autograd, as a caller has it.   forward: without autograd.
bare: the C functions called one after the other without autograd, output in place: what is left when autograd costs nothing.
relu: torch's own, forward and backward, the least that any operation takes here that autograd goes through.
Each subject's spikes and gradient are compared with the reference in float64 before it is read. Where the process has not the
malloc settings of a worker (`harness.worker.environment`) it starts itself again with them: page faults would hide all else.
Goal: at most 1.3 floors a step with fused code, with and without gradient through the reset.

epilogue: what makes currents of a circuit's sums (subtract, fill zeros, divide, gain, bias), forward and backward, in C and in
torch's operations, beside the whole layer (synapses, epilogue, neurons), in turns; CPU seconds, the lowest of all readings.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from harness_papers.ei_snn import c_kernels, kernels
from harness_papers.ei_snn.cases import LIF, LIFCase, shape
from harness_papers.ei_snn.fused import STEPS, why_eager
from harness_papers.ei_snn.layers import Circuit, normalised_formula
from harness_papers.ei_snn.neuron import lif, neuron_of
from harness_papers.ei_snn.normalised import normalised
from torch import Tensor

from harness.kernels.measuring import importable
from harness.worker.environment import is_worker_environment, worker_environment
from tests.benchmarks.bench_kan import write_page

BATCH, WIDTH = 128, 512
TIMES = (4, 16, 64)
GOAL = 1.3
SHARES = {"step": 1.0, "bare": 1.0, "one pair": 1.0, "forward": 0.5}  # of the floor: what a part has to move
SLOW = ("eager", "formula", "snntorch", "spikingjelly", "norse")  # read in a few rounds: their figure is far from the floor
EVERY = 10  # rounds in which these are read once

Call = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """One subject at one T. best_s, median_s: of its readings; multiple: best_s over the floor of what it does."""

    steps: int
    part: str
    subject: str
    how: str
    best_s: float
    median_s: float
    multiple: float
    readings: int


# Subjects ---------------------------------------------------------------------------------------------------------------


def case_of(steps: int, through: bool, surrogate: str = "sigmoid", reset: str = "soft") -> LIFCase:
    return LIFCase(elements=steps * BATCH * WIDTH, steps=steps, reset_gradient=through, surrogate=surrogate, reset=reset)


def told(case: LIFCase) -> str:
    return f"{case.surrogate}, {case.reset}, {'with' if case.reset_gradient else 'no'} gradient through it"


def make_step(name: str, case: LIFCase, inputs: dict[str, Tensor], above: Tensor) -> Call:
    """Checked against float64 first. Raises ValueError where it computes something else."""
    (run,) = (getattr(kernels, i.run.split(":")[1]) for i in LIF.implementations if i.name == name)
    currents = inputs["currents"]
    spikes, expected = run(inputs, case), kernels.reference(inputs, case)
    (found,), (wanted,) = (torch.autograd.grad(s, currents, above.to(s.dtype)) for s in (spikes, expected))
    off = float((found.double() - wanted).abs().max() / wanted.abs().max())
    if not torch.equal(spikes.double(), expected) or not off <= LIF.tolerance["float32"]:
        raise ValueError(f"{name} at {told(case)}: another neuron, gradient off by {off:.1e}")
    return lambda: torch.autograd.grad(run(inputs, case), currents, above)


def make_bare(case: LIFCase, inputs: dict[str, Tensor], above: Tensor) -> Call:
    currents, neuron = inputs["currents"].detach(), neuron_of(**kernels.settings(case))
    steps, count = shape(case)
    forward, backward = c_kernels.functions(currents.dtype, neuron.hard, neuron.detach, neuron.surrogate)
    kept = torch.zeros(max(1, (steps - 1) // STEPS), count)
    spikes, made = torch.zeros_like(currents), torch.zeros_like(currents)

    def call() -> None:
        at = kept.data_ptr() if steps > STEPS and neuron.needs_u else 0
        read, given, numbers = currents.data_ptr(), above.data_ptr(), (neuron.leak, neuron.theta, neuron.alpha)
        forward(c_kernels.CALL.pack(read, 0, at, spikes.data_ptr(), count, 0, steps, count, *numbers, 1))
        backward(c_kernels.CALL.pack(read, given, at, made.data_ptr(), count, count, steps, count, *numbers, 1))

    return call


def make_subjects(steps: int, peers: tuple[str, ...]) -> dict[tuple[str, str, str], Call]:
    """(part, subject, how) -> a call."""
    generator = torch.Generator().manual_seed(steps)
    made: dict[tuple[str, str, str], Call] = {}
    inputs = kernels.make_inputs(case_of(steps, True), generator, torch.device("cpu"), torch.float32)
    above = torch.randn(steps, BATCH * WIDTH, generator=generator)
    for case in (case_of(steps, True), case_of(steps, False)):
        for name in ("ours", "eager", "formula", *peers):
            if name in ("snntorch", "norse") and not case.reset_gradient:
                continue  # they cannot cut it off
            made["step", name, told(case)] = make_step(name, case, inputs, above)
        made["bare", "ours", told(case)] = make_bare(case, inputs, above)
    plain = inputs["currents"].detach()
    made["forward", "ours", "no gradient wanted"] = lambda: kernels.ours({"currents": plain}, case)
    for name in ("arctan", "triangular", "straight-through"):
        case = case_of(steps, True, name)
        made["step", "ours", told(case)] = make_step("ours", case, inputs, above)
    for through in (True, False):
        case = case_of(steps, through, reset="hard")
        hard = kernels.make_inputs(case, generator, torch.device("cpu"), torch.float32)
        made["step", "ours", told(case)] = make_step("ours", case, hard, above)
    leaf = inputs["currents"]
    made["step", "relu", "torch's own, for comparison"] = lambda: torch.autograd.grad(torch.relu(leaf), leaf, above)
    return made


# Readings ---------------------------------------------------------------------------------------------------------------


def make_copies(steps: int, pairs: int) -> Call:
    """Three copies, each of its own pair of tensors or all of one pair."""
    made = [(torch.zeros(steps, BATCH * WIDTH), torch.randn(steps, BATCH * WIDTH)) for _ in range(pairs)] * (3 // pairs)

    def call() -> None:
        for target, source in made:
            target.copy_(source)

    return call


def measure(steps: int, peers: tuple[str, ...], rounds: int) -> tuple[list[Row], float]:
    """Rows, and the seconds of the floor."""
    subjects = make_subjects(steps, peers)
    calls = {("floor", "", ""): make_copies(steps, 3), ("one pair", "", "three copies"): make_copies(steps, 1), **subjects}
    found: dict[tuple[str, str, str], list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        names = [n for n in calls if n[1] not in SLOW or number % EVERY == 0]
        for name in names if number % 2 else reversed(names):
            calls[name]()
            began = time.perf_counter()
            calls[name]()
            found[name].append(time.perf_counter() - began)
    floor_s = min(found.pop(("floor", "", "")))
    return [row_of(steps, name, times, floor_s) for name, times in found.items()], floor_s


def row_of(steps: int, name: tuple[str, str, str], times: list[float], floor_s: float) -> Row:
    part, subject, how = name
    best = min(times)
    return Row(steps, part, subject, how, best, statistics.median(times), best / (SHARES[part] * floor_s), len(times))


# The circuit's epilogue --------------------------------------------------------------------------------------------------

LAYERS = (((512,), 512, ()), ((128,), 128, ()), ((16, 3, 3), 32, (16, 16)), ((64, 3, 3), 64, (8, 8)))  # fan, units, positions
ROWS = 4 * 32  # T = 4 times 32 items; four times as many where there is one position


@dataclass(frozen=True)
class Epilogue:
    """One layer. ours_s, formula_s: the epilogue alone; layer_s: the whole layer with ours; copy_s: of its currents."""

    layer: str
    ours_s: float
    formula_s: float
    layer_s: float
    copy_s: float


def measure_epilogue(fan: tuple[int, ...], units: int, places: tuple[int, ...], rounds: int) -> Epilogue:
    generator = torch.Generator().manual_seed(0)
    circuit, rows = Circuit(fan, units), ROWS if places else 4 * ROWS
    x = (torch.rand(rows, fan[0], *places, generator=generator) < 0.2).float()
    circuit.init_from(x, generator)
    with torch.no_grad():
        excited, mixed = (t.clone().requires_grad_() for t in circuit.stacked(x))
    given = (excited, mixed, circuit.gain, circuit.bias)
    above, target = torch.randn(excited.shape, generator=generator), torch.empty_like(excited).detach()
    near, trained = x.requires_grad_(), list(circuit.parameters())

    def by_step(t: Tensor) -> Tensor:
        return t.view(4, rows // 4, -1)

    calls: dict[str, Call] = {
        "ours": lambda: torch.autograd.grad(normalised(*given, True, normalised_formula), given, above),
        "formula": lambda: torch.autograd.grad(normalised_formula(*given, True), given, above),
        "layer": lambda: torch.autograd.grad(lif(by_step(circuit(near))), [near, *trained], by_step(above)),
        "copy": lambda: target.copy_(above),
    }
    found: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in calls if number % 2 else reversed(calls):
            calls[name]()
            began = time.process_time()
            calls[name]()
            found[name].append(time.process_time() - began)
    told = f"{'x'.join(map(str, fan))} -> {units}" + (f" at {places[0]}x{places[1]}" if places else "")
    best = {name: min(times) for name, times in found.items()}
    return Epilogue(f"{told}, {rows} rows", best["ours"], best["formula"], best["layer"], best["copy"])


def render_epilogues(found: list[Epilogue]) -> str:
    """In copies of the layer's currents, and as a share of the layer."""
    lines = [
        "| circuit | epilogue, C | epilogue, torch | times faster | the layer | with torch's |",
        "|---|---|---|---|---|---|",
    ]
    for e in found:
        ours, formula, slower = e.ours_s / e.copy_s, e.formula_s / e.copy_s, e.layer_s + e.formula_s - e.ours_s
        lines.append(
            f"| {e.layer} | {ours:.1f} copies | {formula:.1f} copies | {formula / ours:.1f} | {e.layer_s * 1e3:.3g} ms | "
            f"{slower * 1e3:.3g} ms, {100 * (slower / e.layer_s - 1):.0f} % more |"
        )
    return "\n".join(lines)


# Command ----------------------------------------------------------------------------------------------------------------


def render(found: list[Row], floors: dict[int, float]) -> str:
    """A line for each subject, a column for each T, in floors."""
    cells = {(r.part, r.subject, r.how, r.steps): r for r in found}
    lines = [
        "| part | subject | neuron | " + " | ".join(f"T = {t}" for t in TIMES) + " | goal |",
        "|---|---|---|" + "---|" * (len(TIMES) + 1),
        "| floor | | three copies | " + " | ".join(f"{floors[t] * 1e6:,.0f} us" for t in TIMES) + " | - |",
    ]
    for part, subject, how in dict.fromkeys((r.part, r.subject, r.how) for r in found):
        values = [cells[part, subject, how, t].multiple for t in TIMES]
        goal = "-"
        if (part, subject) == ("step", "ours"):
            missed = [f"T = {t}" for t, value in zip(TIMES, values, strict=True) if value > GOAL]
            goal = f"<= {GOAL}: " + (f"MISSED at {', '.join(missed)}" if missed else "met")
        lines.append(f"| {part} | {subject} | {how} | " + " | ".join(f"{v:.2f}" for v in values) + f" | {goal} |")
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_lif", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few readings")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    parser.add_argument("--write", type=Path, metavar="PAGE", help="put the table between the marks of a page")
    args = parser.parse_args(argv)
    if not is_worker_environment(1):
        command = [sys.executable, "-m", "tests.benchmarks.bench_lif", *argv]
        os.execve(sys.executable, command, worker_environment(1))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of peers
    why = why_eager(torch.zeros(1, 1), neuron_of(**kernels.settings(case_of(4, True))))
    if why:
        parser.error(f"the fused code does not run here: {why}")
    peers = tuple(i.name for i in LIF.implementations if i.kind == "peer" and all(map(importable, i.requires)))
    load, rows, floors = os.getloadavg()[0], list[Row](), dict[int, float]()
    for steps in TIMES:
        print(f"measuring: T = {steps}", file=sys.stderr)
        found, floors[steps] = measure(steps, peers, (20 if args.quick else 6400) // steps + 1)
        rows += found
    print("measuring: epilogue", file=sys.stderr)
    epilogues = [measure_epilogue(*layer, 3 if args.quick else 100) for layer in LAYERS]
    tables = [render(rows, floors), render_epilogues(epilogues)]
    for line in [json.dumps(asdict(found)) for found in (*rows, *epilogues)] if args.json else ["\n\n".join(tables)]:
        print(line)
    if args.write:
        versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in peers)
        beside = f"Beside {versions}; {platform.machine()}, in floors." if peers else "No peer is installed; in floors."
        write_page(args.write, "python -m tests.benchmarks.bench_lif " + " ".join(argv), load, [beside, *tables])


if __name__ == "__main__":
    main(sys.argv[1:])
