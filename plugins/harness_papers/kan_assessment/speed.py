"""The probe `step-time-ratio`: a training step of a net over that of an MLP of as many parameters, in one process.

Seconds of trials that run beside others mislead; steps of two nets in turns meet the same neighbours, so their ratio holds.
Imports torch.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from harness import Unsupported
from harness.lab import count_params

BATCH = 256
REPEATS, WARMUP = 40, 5
MOST_WIDTH = 1 << 16


def measure_ratio(held_part: Mapping[str, Any], solution: Any, ctx: Any) -> dict[str, float]:
    """{"step_time_ratio": median over pairs of steps of (the solution's net) / (the MLP)}.

    A step: forward, mean of squares, backward to the weights, on 256 items of held_part["x"] (repeated where it has fewer).
    The MLP: Linear and SiLU, as many layers as the net has that map features, the width with the nearest number of parameters.
    Raises Unsupported for a solution that is no net, or that has fewer parameters than the least MLP.
    """
    net = getattr(solution, "module", None)
    if not isinstance(net, nn.Module):
        raise Unsupported("probe step-time-ratio: the solution has no `module`; it is for components in a reference net")
    first = next(net.parameters())
    x = held_part["x"].to(first.device, first.dtype)
    x = x.repeat(-(-BATCH // len(x)), *[1] * (x.ndim - 1))[:BATCH]
    outputs = net(x[:2]).shape[1]
    mlp = mlp_like(count_params(net), x[0].numel(), outputs, depth_of(net)).to(first.device, first.dtype)
    ratios = [step_seconds(net, x) / step_seconds(mlp, x.flatten(1)) for _ in range(WARMUP + REPEATS)][WARMUP:]
    return {"step_time_ratio": median(ratios)}


def depth_of(net: nn.Module) -> int:
    """Its layers from features to features, the head among them."""
    return max(1, sum(isinstance(getattr(part, "in_features", None), int) for part in net.modules()))


def mlp_like(params: int, inputs: int, outputs: int, layers: int) -> nn.Sequential:
    """The MLP of that many layers whose number of parameters is nearest to `params`."""

    def cost(width: int) -> int:
        widths = [inputs, *[width] * (layers - 1), outputs]
        return sum(a * b + b for a, b in itertools.pairwise(widths))

    if layers < 2 or cost(1) > params:
        raise Unsupported(f"probe step-time-ratio: no MLP of {layers} layers has {params} parameters; use a larger net")
    low, high = 1, MOST_WIDTH
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if cost(middle) <= params else (low, middle)
    width = min((low, high), key=lambda w: abs(cost(w) - params))
    widths = [inputs, *[width] * (layers - 1), outputs]
    mlp = nn.Sequential()
    for before, after in itertools.pairwise(widths):
        mlp.extend([nn.Linear(before, after), nn.SiLU()])
    return mlp[:-1]


def step_seconds(net: nn.Module, x: Tensor) -> float:
    """Of forward, loss and backward; gradients are new tensors each time, as after zero_grad."""
    net.zero_grad(set_to_none=True)
    synchronize(x)
    begin = time.perf_counter()
    net(x).square().mean().backward()
    synchronize(x)
    seconds = time.perf_counter() - begin
    net.zero_grad(set_to_none=True)
    return seconds


def synchronize(x: Tensor) -> None:
    # CUDA launches return early: without this the clock stops before the work does.
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
