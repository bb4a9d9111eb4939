"""The circuits of spiking nets: `python -m tests.benchmarks.bench_circuits [--quick] [--json]`.

stacked: a layer of circuits, forward and backward, as it is here (W_EE and W_IE one product, the two uses of W_EI one, what
follows one pass where there is a C compiler) against each product by itself, W_EI position by position, the rest in torch's
operations.
once: a first layer whose input is the same at each of T = 4 steps, against one that is given all T copies.

One thread; process time, in turns (A B B A ...).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import torch
from harness_papers.ei_snn import CircuitParams
from harness_papers.ei_snn.layers import Circuit, scaled_gradient
from harness_papers.ei_snn.nets import Arm
from torch import Tensor
from torch.nn import functional as F

from tests.benchmarks.figures import interleave

STEPS, RATE = 4, 0.2


@dataclass(frozen=True)
class Speed:
    """CPU seconds of one forward and backward pass, reading by reading, neighbours in turn."""

    what: str
    slow_s: tuple[float, ...]
    fast_s: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        return [slow / fast for slow, fast in zip(self.slow_s, self.fast_s, strict=True)]


def separate(circuit: Circuit, x: Tensor) -> Tensor:
    """The currents, product by product, as the formulas stand."""
    n = circuit.excitatory
    weight = scaled_gradient(circuit.inhibition, 1 / circuit.fan_in)
    if x.ndim == 2:
        excited, inhibited = x @ circuit.inputs[:n].T, x @ circuit.inputs[n:].T
        subtracted, shunting = inhibited @ weight.T, (circuit.shunt * inhibited) @ weight.T
        gain, bias = circuit.gain, circuit.bias
    else:
        excited, inhibited = (F.conv2d(x, part, padding=1) for part in (circuit.inputs[:n], circuit.inputs[n:]))
        gain, bias, shunt = (p.view(-1, 1, 1) for p in (circuit.gain, circuit.bias, circuit.shunt))
        subtracted = (weight @ inhibited.permute(2, 3, 1, 0)).permute(3, 2, 0, 1)
        shunting = (weight @ (shunt * inhibited).permute(2, 3, 1, 0)).permute(3, 2, 0, 1)
    zero = shunting == 0
    if zero.any():
        least = shunting.masked_fill(zero, math.inf).flatten(1).amin(dim=1).view(-1, *[1] * (x.ndim - 1))
        least = torch.where(least.isinf(), 1.0, least)
        shunting = torch.where(zero, least, shunting).detach() + (shunting - shunting.detach())
    return gain * (excited - subtracted) / shunting + bias


def compare_stacked(fan: tuple[int, ...], out: int, rows: int, side: int, rounds: int) -> Speed:
    """fan: (d,), or (C, 3, 3) on images of side x side. Raises AssertionError where the two do not agree."""
    generator = torch.Generator().manual_seed(0)
    shape = (rows, *fan) if len(fan) == 1 else (rows, fan[0], side, side)
    x = (torch.rand(shape, generator=generator) < RATE).float().requires_grad_()
    circuit = Circuit(fan, out)
    circuit.init_from(x, generator)
    torch.testing.assert_close(circuit(x), separate(circuit, x), rtol=1e-3, atol=1e-3)  # sums of float32, divided
    slow, fast = timed(lambda: separate(circuit, x), lambda: circuit(x), rounds)
    where = f"{fan[0]} to {out}" + (f" channels, 3x3, {side}x{side}" if len(fan) == 3 else " units")
    return Speed(f"stacked: {where}, {rows} rows", slow, fast)


def compare_once(channels: int, width: int, items: int, side: int, rounds: int) -> Speed:
    """A layer of circuits and neurons on images."""
    generator = torch.Generator().manual_seed(0)
    layer = Arm("ei", CircuitParams(steps=STEPS)).layer((channels, 3, 3), width)
    x = torch.rand(1, items, channels, side, side, generator=generator)
    layer.synapses.init_from(x[0], generator)
    copies = x.repeat(STEPS, 1, 1, 1, 1)
    slow, fast = timed(lambda: layer(copies), lambda: layer(x), rounds)
    return Speed(f"once: {channels} to {width} channels, 3x3, {side}x{side}, {items} items, T {STEPS}", slow, fast)


def timed(slow: Callable[[], Tensor], fast: Callable[[], Tensor], rounds: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """CPU seconds of each with its backward pass; the first round is warm-up."""

    def read(work: Callable[[], Tensor]) -> Callable[[], float]:
        def once() -> float:
            start = time.process_time()
            work().sum().backward()
            return time.process_time() - start

        return once

    found = interleave({"slow": read(slow), "fast": read(fast)}, rounds + 1)
    return tuple(found["slow"][1:]), tuple(found["fast"][1:])


def show(found: Speed) -> str:
    low, high = np.quantile(found.ratios, [0.25, 0.75])
    slow, fast = statistics.median(found.slow_s), statistics.median(found.fast_s)
    ratio = f"{statistics.median(found.ratios):5.2f} [{low:.2f}, {high:.2f}]"
    return f"{found.what:62s} {slow * 1e3:8.2f} ms {fast * 1e3:8.2f} ms  ratio {ratio}"


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_circuits", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small and few: to see that it runs")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    cases: list[Callable[[], Speed]] = [
        lambda: compare_stacked((64,), 64, 512, 0, 101),
        lambda: compare_stacked((500,), 500, 512, 0, 51),
        lambda: compare_stacked((16, 3, 3), 32, 64, 16, 31),
        lambda: compare_stacked((64, 3, 3), 128, 64, 16, 11),
        lambda: compare_once(3, 16, 32, 32, 31),
        lambda: compare_once(3, 64, 32, 32, 11),
    ]
    if args.quick:
        cases = [
            lambda: compare_stacked((8,), 8, 16, 0, 2), lambda: compare_stacked((4, 3, 3), 8, 4, 6, 2),
            lambda: compare_once(1, 8, 4, 6, 2),
        ]  # fmt: skip
    for case in cases:
        found = case()
        print(json.dumps(asdict(found)) if args.json else show(found), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
