"""`python -m harness.kernels.checkup`: the ceilings and the noise of one device, measured in this process.

It has to be started with a worker's environment: malloc and OpenMP read theirs when a process starts. It records nothing. On
stdout, one JSON object a line: {"doing": what} as it goes, last {"found": figures} or {"missing": why it cannot be done}.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import torch

from harness.kernels.ceilings import Agreement, CopyFigure, MatmulFigure, copy_rate, matmul_rate, measure_copy, measure_matmul
from harness.kernels.timers import Call, Timer, device_state, make_timer
from harness.timing import Samples, StopRule, contention, doubts

COPY_ELEMENTS = (10_000, 1_000_000, 16_000_000)
ROUNDS = 20
RULE = StopRule(limit_s=3.0)
# A block lasts its limit. On CUDA each one captures a graph anew.
BLOCKS = {"cpu": 0.05, "cuda": 0.3}


def check(device: torch.device, threads: int, rounds: int, say: Callable[[str], None] = lambda text: None) -> dict[str, Any]:
    """The figures of a `MachineCheck`: all but machine, torch_version and environment, which who asks knows."""
    dtype = torch.float32
    load = os.getloadavg()[0]
    copies = []
    for elements in COPY_ELEMENTS:
        say(f"copy of {elements:,} floats")
        copies.append(copy_figure(elements, dtype, measure_copy(device, dtype, elements, RULE), threads))
    say("matrix products")
    products = measure_matmul(device, dtype, RULE)
    matmuls = [matmul_figure(n, samples, threads) for n, samples in products.items()]
    agreements = []
    for name, call in kernels(device, dtype):
        say(f"A/A of {name}, {rounds} rounds")
        agreements.append(agree(name, call, make_timer(device), rounds, BLOCKS[device.type], threads))
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else "",
        "dtype": str(dtype).removeprefix("torch."),
        "threads": threads,
        "checked_at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "copies": [one.model_dump() for one in copies],
        "matmuls": [one.model_dump() for one in matmuls],
        "agreements": [one.model_dump() for one in agreements],
        "load": (load, os.getloadavg()[0]),
        "state": device_state(device),
    }


def kernels(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Call]]:
    """What is timed against itself: one that computes in the cache, one that waits for memory."""
    small = torch.linspace(-3, 3, 10_000, dtype=dtype, device=device)
    yield "gelu of 10k floats", lambda: torch.nn.functional.gelu(small)
    large = torch.ones(4_000_000, dtype=dtype, device=device)
    target = torch.zeros_like(large)
    yield "copy of 4M floats", lambda: target.copy_(large)


def copy_figure(elements: int, dtype: torch.dtype, samples: Samples, threads: int) -> CopyFigure:
    return CopyFigure(elements=elements, bytes_per_s=copy_rate(elements, dtype, samples, threads), **told(samples, threads))


def matmul_figure(size: int, samples: Samples, threads: int) -> MatmulFigure:
    return MatmulFigure(size=size, flops_per_s=matmul_rate(size, samples, threads), **told(samples, threads))


def told(samples: Samples, threads: int) -> dict[str, Any]:
    return {
        "wall_s": statistics.median(samples.wall_s),
        "cpu_s": statistics.median(samples.cpu_s),
        "samples": len(samples.wall_s),
        "doubts": doubts(samples, threads),
    }


# A/A --------------------------------------------------------------------------------------------------------------------


def agree(name: str, call: Call, timer: Timer, rounds: int, block_s: float, threads: int) -> Agreement:
    """Time one call as A and as B in blocks ABBA: both sides have the same middle in time, so that a steady drift cancels."""
    # No total is enough, so each block lasts as long as any other.
    rule = StopRule(min_total_s=math.inf, limit_s=block_s, warmup_s=0.0)
    timer(call, replace(rule, limit_s=4 * block_s))
    wall, cpu, waited = [], [], []
    for _ in range(rounds):
        a, b, b_again, a_again = blocks = [timer(call, rule) for _ in range(4)]
        wall.append(difference(a.wall_s + a_again.wall_s, b.wall_s + b_again.wall_s))
        cpu.append(difference(a.cpu_s + a_again.cpu_s, b.cpu_s + b_again.cpu_s))
        waited += [contention(block, threads) if block.clock == "host" else 1.0 for block in blocks]
    return Agreement(kernel=name, block_s=block_s, wall=wall, cpu=cpu, contention=statistics.median(waited))


def difference(a: Sequence[float], b: Sequence[float]) -> float:
    """Of the medians, relative to the second; 0 where a clock saw no time at all."""
    of = statistics.median(b)
    return statistics.median(a) / of - 1 if of > 0 else 0.0


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m harness.kernels.checkup", description=__doc__)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    wanted = parser.parse_args(arguments)
    if wanted.device == "cuda" and not torch.cuda.is_available():
        tell({"missing": "torch finds no CUDA device"})
        return
    torch.set_num_threads(wanted.threads)
    device = torch.device(wanted.device)
    tell({"found": check(device, wanted.threads, wanted.rounds, lambda text: tell({"doing": text}))})


def tell(what: Mapping[str, Any]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
