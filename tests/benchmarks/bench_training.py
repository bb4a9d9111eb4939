"""What the reference learner costs over a bare torch loop: `python -m tests.benchmarks.bench_training [--blocks N] [--json]`.

Both train the same net with the same fused AdamW on the same data, in one process, one thread, in turns (A B B A ...). A step
is read from its start to the next one's start, in process time: on a machine shared with others it is steadier than the wall
clock. The ratio is that of the medians over all steps; beside it the quartiles of the ratios of neighbouring blocks' medians.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import gc
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from harness.context import Context
from harness.lab import Classify, Net, Train, build_net, fit, init_net
from harness.worker.environment import worker_environment
from tests.benchmarks.figures import Figure, Readings


@dataclass(frozen=True)
class Case:
    """A net, the size of its batches, the steps of a block, and how many blocks of each loop are read."""

    name: str
    net: Net
    inputs: tuple[int, ...]
    batch: int
    steps: int
    blocks: int


CASES = [
    Case("mlp 64-128-128-10, batch 64", Net(arch="mlp", width=128, depth=2), (64,), 64, steps=60, blocks=100),
    Case("resnet8 on 1x8x8, batch 128", Net(arch="resnet8", width=16, norm="batch"), (1, 8, 8), 128, steps=20, blocks=16),
    Case("resnet8 on 3x32x32, batch 128", Net(arch="resnet8", width=16, norm="batch"), (3, 32, 32), 128, steps=6, blocks=8),
]
ITEMS = 1280
GOAL = 1.05


@dataclass(frozen=True)
class Ratio:
    """Medians of CPU seconds a step, and the learner's over the bare loop's. block_ratios: of neighbouring blocks' medians."""

    case: str
    bare_s: float
    lab_s: float
    ratio: float
    block_ratios: tuple[float, ...]

    @property
    def quartiles(self) -> tuple[float, float]:
        low, _, high = statistics.quantiles(self.block_ratios, n=4)
        return low, high


def make_problem(case: Case) -> Classify:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ITEMS, *case.inputs, generator=generator)
    return Classify(x, torch.randint(0, 10, (ITEMS,), generator=generator), 10, case.inputs)


class Marked(Context):
    """A context as a worker makes it for `solve`, with offers that go nowhere. Notes the process time at each step's start."""

    def __init__(self, steps: int, scratch: Path) -> None:
        super().__init__(
            device="cpu", dtype="float32", budget={"steps": steps}, root_seed=0, seed=0, task="bench", scratch=scratch
        )
        self.stage = "solve"
        self._on_offer = lambda solution, at: None
        self.marks: list[int] = []
        self.clocks.start()

    def spend(self, **units: float) -> None:
        self.marks.append(time.process_time_ns())
        super().spend(**units)


def train_bare(module: nn.Module, problem: Classify, case: Case) -> list[int]:
    """The least that trains: the data is shuffled before, the learning rate stays, nothing is checked. Returns the marks."""
    matrices, others = [p for p in module.parameters() if p.ndim >= 2], [p for p in module.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, fused=True)
    order = torch.randperm(len(problem.x))
    batches = list(zip(problem.x[order].split(case.batch), problem.y[order].split(case.batch), strict=True))
    marks = []
    module.train()
    for step in range(case.steps):
        marks.append(time.process_time_ns())
        x, y = batches[step % len(batches)]
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    return marks


def train_lab(module: nn.Module, problem: Classify, case: Case, scratch: Path) -> list[int]:
    """The reference learner on the same work. Returns the marks."""
    ctx = Marked(case.steps, scratch)
    fit(problem, ctx, module, train=Train(batch=case.batch, weight_decay=0.01, evaluations=1))
    return ctx.marks


def measure(case: Case, blocks: int, scratch: Path) -> Ratio:
    """Train `blocks` blocks of steps with each loop, in turns; the first block of each is warm-up."""
    problem = make_problem(case)
    fresh = build_net(case.net, problem.shape)
    init_net(fresh, Marked(1, scratch))
    loops: dict[str, Callable[[nn.Module], list[int]]] = {
        "bare": lambda module: train_bare(module, problem, case),
        "lab": lambda module: train_lab(module, problem, case, scratch),
    }
    readings: dict[str, list[list[float]]] = {"bare": [], "lab": []}
    for block in range(blocks + 1):
        for name in ("bare", "lab") if block % 2 == 0 else ("lab", "bare"):
            module = copy.deepcopy(fresh)
            gc.collect()
            marks = loops[name](module)
            if block:
                # The first steps of a block make the optimiser's state and fill the caches.
                readings[name].append([(b - a) * 1e-9 for a, b in itertools.pairwise(marks[1:])])
    pairs = zip(readings["bare"], readings["lab"], strict=True)
    block_ratios = tuple(statistics.median(lab) / statistics.median(bare) for bare, lab in pairs)
    bare_s, lab_s = (statistics.median(itertools.chain(*readings[name])) for name in ("bare", "lab"))
    return Ratio(case.name, bare_s, lab_s, lab_s / bare_s, block_ratios)


def measure_training(blocks: int | None) -> list[Figure]:
    """The ratios as rows of the page, measured in a process that starts as a worker does: malloc settings, one thread."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_training", "--json"]
    command += [] if blocks is None else ["--blocks", str(blocks)]
    done = subprocess.run(command, env=worker_environment(1), stdout=subprocess.PIPE, text=True, check=True)
    ratios = [Ratio(**json.loads(line)) for line in done.stdout.splitlines()]
    return [
        Figure(f"Step of the learner / bare loop: {r.case}", Readings("ratio", "ratio", tuple(r.block_ratios)), GOAL, r.ratio)
        for r in ratios
    ]


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--blocks", type=int, help="timed blocks of each loop, instead of each case's own number")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch, contextlib.suppress(KeyboardInterrupt):
        for case in CASES:
            found = measure(case, args.blocks or case.blocks, Path(scratch))
            if args.json:
                print(json.dumps(asdict(found)), flush=True)
            else:
                print(
                    f"{found.case:32s} bare {found.bare_s * 1e6:9.1f} us  lab {found.lab_s * 1e6:9.1f} us  "
                    f"ratio {found.ratio:.3f} [{found.quartiles[0]:.3f}, {found.quartiles[1]:.3f}]"
                )


if __name__ == "__main__":
    main(sys.argv[1:])
