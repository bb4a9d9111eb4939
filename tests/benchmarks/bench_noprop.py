"""NoProp's three goals: `python -m tests.benchmarks.bench_noprop [--only PART] [--quick] [--json]`.

epoch: all T blocks of NoProp-DT on each batch together, against the same blocks in torch's own layers, one after the other.
inference: NoProp-CT with the image block, items seen once, against seeing them at each of the 1,000 steps.
memory: what training adds to the resident set, for 2 to 32 blocks: one block at a time, together, and back-propagation.

One thread; process time, in turns (A B B A ...); each reading of memory is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness_papers.noprop import ChainParams, ContinuousParams, DiscreteParams
from harness_papers.noprop.baselines import solve_chain
from harness_papers.noprop.blocks import BlockSpec
from harness_papers.noprop.learners import Continuous, Discrete, solve_discrete
from harness_papers.noprop.method import ItemNoise, update_coefficients
from torch import Tensor, nn
from torch.nn import functional as F

from harness.context import Context
from harness.lab import Classify
from harness.worker.environment import worker_environment
from harness.worker.measuring import resident_bytes
from tests.plugins.noprop.plain import PlainBlock, plain_copies

CLASSES, BATCH, BLOCKS = 10, 128, 10
EPOCH_GOAL, INFERENCE_GOAL = 2.0, 20.0
COUNTS = (2, 4, 8, 16, 32)
MODES = ("one-by-one", "together", "backprop")
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Speed:
    """Medians of CPU seconds and their ratio; ratios: of neighbouring readings."""

    what: str
    slow_s: float
    fast_s: float
    ratios: tuple[float, ...]
    goal: float | None

    @property
    def ratio(self) -> float:
        return self.slow_s / self.fast_s


@dataclass(frozen=True)
class Memory:
    """Peak growth of the resident set in training, by number of blocks, and its least-squares slope; bytes."""

    mode: str
    blocks: tuple[int, ...]
    peak_bytes: tuple[int, ...]
    slope_bytes: float
    params_bytes: float


# Epoch ------------------------------------------------------------------------------------------------------------------


def compare_epochs(width: int, items: int, rounds: int) -> Speed:
    """An epoch of NoProp-DT with the block for vectors: `items` items of 64 features."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(items, 64, generator=generator), torch.randint(CLASSES, (items,), generator=generator)
    module = Discrete(BlockSpec((64,), CLASSES, CLASSES, width), DiscreteParams(width=width))
    module.blocks.draw(make_ctx(Path()))
    module.codes.draw(make_ctx(Path()), x, y)
    module = module.float().train()
    plain = plain_copies(module.blocks)
    stack_optimizer = torch.optim.AdamW(module.parameters(), fused=True)
    readout = nn.Linear(CLASSES, CLASSES)
    optimizers = [torch.optim.AdamW([*block.parameters(), *readout.parameters()], fused=True) for block in plain]

    def together() -> None:
        for rows in torch.randperm(items)[: items // BATCH * BATCH].split(BATCH):
            loss = module.loss(module(x[rows]), y[rows])
            stack_optimizer.zero_grad(set_to_none=True)
            loss.backward()
            stack_optimizer.step()

    def one_after_the_other() -> None:
        for t, (block, optimizer) in enumerate(zip(plain, optimizers, strict=True)):
            for rows in torch.randperm(items)[: items // BATCH * BATCH].split(BATCH):
                loss = plain_loss(module, block, readout, t, x[rows], y[rows])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                optimizer.step()

    slow, fast = in_turns(one_after_the_other, together, rounds)
    return speed(f"DT epoch, mlp block, width {width}, T {BLOCKS}, batch {BATCH}", slow, fast, EPOCH_GOAL)


def plain_loss(module: Discrete, block: PlainBlock, readout: nn.Linear, t: int, x: Tensor, y: Tensor) -> Tensor:
    """L_{t+1} as the paper writes it, items first."""
    u, eps = F.one_hot(y, CLASSES).float(), torch.randn(2, len(y), CLASSES)
    before, last = module.abar[t, 0, 0], module.abar[-1, 0, 0]
    guess = block(x, before.sqrt() * u + (1 - before).sqrt() * eps[0]).softmax(dim=1)
    denoised = (guess - u).square().sum(dim=1).mean()
    return module.weights[t] * denoised + F.cross_entropy(readout(last.sqrt() * u + (1 - last).sqrt() * eps[1]), y)


# Inference --------------------------------------------------------------------------------------------------------------


def compare_inference(side: int, width: int, steps: int, timed_steps: int, rounds: int) -> Speed:
    """NoProp-CT on a batch of (1, side, side) images. The slow loop is timed for `timed_steps` of its equal steps."""
    spec = BlockSpec((1, side, side), CLASSES, CLASSES, width, "image", "none", 0.2, time=True)
    module = Continuous(spec, ContinuousParams(steps=steps, width=width))
    module.blocks.draw(make_ctx(Path()))
    x = torch.randn(BATCH, *spec.inputs, generator=torch.Generator().manual_seed(0))
    module.codes.draw(make_ctx(Path()), x, torch.arange(BATCH) % CLASSES)
    module = module.float().eval()
    (block,) = plain_copies(module.blocks)
    block.eval()
    times = torch.arange(steps + 1, dtype=torch.float64) / steps
    a, b, c = (k.float() for k in update_coefficients(torch.sigmoid(-module.schedule(times)[0].detach())))

    def seen_at_every_step() -> None:
        noise = ItemNoise(x, 0, 0)
        z = noise(0, CLASSES).T
        for k in range(timed_steps):
            guess = block(x, z, times[k].float().expand(BATCH)).softmax(dim=1)
            z = a[k] * guess + b[k] * z + c[k].sqrt() * noise(k + 1, CLASSES).T

    with torch.no_grad():
        slow, fast = in_turns(seen_at_every_step, lambda: module(x), rounds)
    slow = [seconds * steps / timed_steps for seconds in slow]
    return speed(f"CT inference, image block {side}x{side}, width {width}, {steps} steps", slow, fast, INFERENCE_GOAL)


def in_turns(slow: Callable[[], Any], fast: Callable[[], Any], rounds: int) -> tuple[list[float], list[float]]:
    """CPU seconds of each, A B B A; the first round is warm-up."""
    found: dict[str, list[float]] = {"slow": [], "fast": []}
    pairs = [("slow", slow), ("fast", fast)]
    for turn in range(rounds + 1):
        for name, work in pairs if turn % 2 else reversed(pairs):
            start = time.process_time()
            work()
            if turn:
                found[name].append(time.process_time() - start)
    return found["slow"], found["fast"]


def speed(what: str, slow: list[float], fast: list[float], goal: float | None) -> Speed:
    ratios = tuple(s / f for s, f in zip(slow, fast, strict=True))
    return Speed(what, statistics.median(slow), statistics.median(fast), ratios, goal)


# Memory -----------------------------------------------------------------------------------------------------------------


def measure_memory(counts: tuple[int, ...], width: int) -> list[Memory]:
    """Each reading in a process that starts as a worker does."""
    made = []
    for mode in MODES:
        peaks, params = [], []
        for blocks in counts:
            command = [sys.executable, "-m", "tests.benchmarks.bench_noprop", "--peak", mode, str(blocks), str(width)]
            done = subprocess.run(command, env=worker_environment(1), stdout=subprocess.PIPE, text=True, check=True)
            peak, own = map(int, done.stdout.split())
            peaks.append(peak)
            params.append(own)
        slope, slope_params = (float(np.polyfit(counts, values, 1)[0]) for values in (peaks, params))
        made.append(Memory(mode, counts, tuple(peaks), slope, slope_params))
    return made


def read_peak(mode: str, blocks: int, width: int) -> tuple[int, int]:
    """Three steps of training (of each block) on 28x28 images: growth of the resident set, and bytes of the trained net."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(3 * BATCH, 1, 28, 28, generator=generator), torch.arange(3 * BATCH) % CLASSES
    problem = Classify(x, y, CLASSES, (1, 28, 28))
    shared = {"block": "image", "evaluations": 1}

    def train(count: int, wide: int) -> nn.Module:
        with tempfile.TemporaryDirectory() as scratch:
            ctx = make_ctx(Path(scratch), steps=3)
            if mode == "backprop":
                return solve_chain(problem, ctx, ChainParams(**shared, blocks=count, width=wide)).module
            params = DiscreteParams(**shared, blocks=count, width=wide, signal_high=0.999, order=mode)
            return solve_discrete(problem, ctx, params).module

    train(2, 8)  # what is loaded on first use is no cost of the method
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_bytes("VmRSS")
    module = train(blocks, width)
    own = sum(p.numel() * p.element_size() for p in module.parameters())
    return resident_bytes("VmHWM") - before, own


def make_ctx(scratch: Path, **budget: float) -> Context:
    """As a worker makes it for `solve`; offers go nowhere."""
    ctx = Context(device="cpu", dtype="float32", budget=budget, root_seed=0, seed=0, task="bench", scratch=scratch)
    ctx.stage = "solve"
    ctx._on_offer = lambda solution, at: None
    ctx.clocks.start()
    return ctx


# Command ----------------------------------------------------------------------------------------------------------------


def show_speed(found: Speed) -> str:
    low, high = np.quantile(found.ratios, [0.25, 0.75])
    goal = "" if found.goal is None else f"  goal {found.goal:g}: {'met' if found.ratio >= found.goal else 'MISSED'}"
    return (
        f"{found.what:58s} {found.slow_s * 1e3:10.1f} ms {found.fast_s * 1e3:9.1f} ms  ratio {found.ratio:6.2f} "
        f"[{low:.2f}, {high:.2f}]{goal}"
    )


def show_memory(found: Memory) -> str:
    peaks = "  ".join(f"{peak / MEBIBYTE:7.1f}" for peak in found.peak_bytes)
    return (
        f"{found.mode:12s} {peaks}   slope {found.slope_bytes / MEBIBYTE:7.2f} MiB a block, of which the trained net "
        f"{found.params_bytes / MEBIBYTE:.2f}"
    )


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_noprop", description=__doc__)
    parser.add_argument("--only", choices=("epoch", "inference", "memory"), help="one part")
    parser.add_argument("--quick", action="store_true", help="small and few: to see that it runs")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--peak", nargs=3, metavar=("MODE", "BLOCKS", "WIDTH"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.peak:
        print(*read_peak(args.peak[0], int(args.peak[1]), int(args.peak[2])))
        return
    parts: dict[str, Callable[[], list[Any]]] = {
        "epoch": lambda: (
            [compare_epochs(16, 300, 1)] if args.quick else [compare_epochs(width, 1_078, 15) for width in (64, 128, 256)]
        ),
        "inference": lambda: (
            [compare_inference(8, 16, 20, 2, 1)]
            if args.quick
            else [compare_inference(side, 256, 1000, 10, 5) for side in (8, 28)]
        ),
        "memory": lambda: measure_memory((2, 4), 8) if args.quick else measure_memory(COUNTS, 64),
    }
    for name, measure in parts.items():
        if args.only in (None, name):
            print(f"measuring: {name}", file=sys.stderr)
            for found in measure():
                text = show_speed(found) if isinstance(found, Speed) else show_memory(found)
                print(json.dumps(asdict(found)) if args.json else text, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
