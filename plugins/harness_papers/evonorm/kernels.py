"""The timed kernels of EvoNorm-S0 and -B0: inputs, float64 references, and the implementations by name.

Every implementation takes {"x": (N, C, H, W), "v", "gamma", "beta": (C,)} and a case of `cases`, and returns y. Ours is C on
the CPU (`c_kernels`) and Triton on CUDA (`triton_kernels`); elsewhere the eager code runs, and `why_eager` says why.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from types import ModuleType

import torch
from torch import Tensor

from harness_papers.evonorm import c_kernels, method
from harness_papers.evonorm.cases import EvoNormCase, GroupCase, largest_divisor, shape

Inputs = Mapping[str, Tensor]
NAMES = ("x", "v", "gamma", "beta")
S0_EPS, B0_EPS = 1e-5, 1e-3
ROUNDS = 100  # of drawing again; each leaves a few hundredths of the values that it was about
ON_CUDA = (torch.float32, torch.bfloat16, torch.float16)


# Inputs and references --------------------------------------------------------------------------------------------------


def inputs_s0(case: GroupCase, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Normal maps and parameters, all with gradients."""
    return _leaves(_draw(case, generator), device, dtype)


def inputs_b0(case: EvoNormCase, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """As for S0, but v is not near 0, and values where the two arms of the maximum are nearly equal are drawn again.

    There the gradient jumps, and which side a value is on depends on rounding: it would tell nothing about an implementation.
    """
    drawn = {name: tensor.to(dtype).float() for name, tensor in _draw(case, generator).items()}
    x, v = drawn["x"], drawn["v"]
    drawn["v"] = v = torch.where(v < 0, v.clamp(-1.5, -0.5), v.clamp(0.5, 1.5))
    margin = 1e-3 if dtype in (torch.float32, torch.float64) else 3e-2  # of the batch's deviation
    for _ in range(ROUNDS):
        near = _gap(x, v).abs_() < margin
        if not near.any():
            return _leaves(drawn, device, dtype)
        x[near] = torch.randn(int(near.sum()), generator=generator).to(dtype).float()
    raise ArithmeticError(
        f"evonorm-b0: after {ROUNDS} rounds x {tuple(x.shape)} still has values nearer than {margin} to a tie"
    )


def _gap(x: Tensor, v: Tensor) -> Tensor:
    """How far each value is from where the arms are equal, in units of the batch's deviation."""
    batch_std = (_variance(x, (0, 2, 3)) + B0_EPS).sqrt()
    return (_per_channel(v) * x + (_variance(x, (2, 3)) + B0_EPS).sqrt()) / batch_std - 1


def _draw(case: EvoNormCase, generator: torch.Generator) -> dict[str, Tensor]:
    sizes = shape(case)
    return {name: torch.randn(sizes if name == "x" else sizes[1:2], generator=generator) for name in NAMES}


def _leaves(drawn: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(device, dtype).requires_grad_() for name, tensor in drawn.items()}


def reference_s0(inputs: Inputs, case: GroupCase) -> Tensor:
    x, v, gamma, beta = (inputs[name].double() for name in NAMES)
    n, c, h, w = x.shape
    group = largest_divisor(c, case.group_size)
    power = _variance(x.reshape(n, c // group, group, h, w), (2, 3, 4)).expand(n, c // group, group, 1, 1).reshape(n, c, 1, 1)
    normed = x * torch.sigmoid(_per_channel(v) * x) / (power + S0_EPS).sqrt()
    return normed * _per_channel(gamma) + _per_channel(beta)


def reference_b0(inputs: Inputs, case: EvoNormCase) -> Tensor:
    x, v, gamma, beta = (inputs[name].double() for name in NAMES)
    batch_std = (_variance(x, (0, 2, 3)) + B0_EPS).sqrt()
    rival = _per_channel(v) * x + (_variance(x, (2, 3)) + B0_EPS).sqrt()
    return x / torch.maximum(batch_std, rival) * _per_channel(gamma) + _per_channel(beta)


def _variance(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Biased, from the deviations; the dims are kept."""
    return (x - x.mean(dims, keepdim=True)).square().mean(dims, keepdim=True)


def _per_channel(p: Tensor) -> Tensor:
    return p.view(-1, 1, 1)


# Implementations --------------------------------------------------------------------------------------------------------


def eager_s0(inputs: Inputs, case: GroupCase) -> Tensor:
    x, v, gamma, beta = (inputs[name] for name in NAMES)
    channels = x.shape[1]
    return method.evonorm_s0(x, v, gamma, beta, channels // largest_divisor(channels, case.group_size), S0_EPS)


def eager_b0(inputs: Inputs, case: EvoNormCase) -> Tensor:
    x, v, gamma, beta = (inputs[name] for name in NAMES)
    return method.evonorm_b0(x, method.batch_variance(x), v, gamma, beta, B0_EPS)


def ours_s0(inputs: Inputs, case: GroupCase) -> Tensor:
    if why_eager(inputs, case):
        return eager_s0(inputs, case)
    tensors = _checked(inputs)
    return _home(tensors[0]).S0.apply(*tensors, largest_divisor(tensors[0].shape[1], case.group_size), S0_EPS)


def ours_b0(inputs: Inputs, case: EvoNormCase) -> Tensor:
    if why_eager(inputs, case):
        return eager_b0(inputs, case)
    tensors = _checked(inputs)
    return _home(tensors[0]).B0.apply(*tensors, B0_EPS)


def why_eager(inputs: Inputs, case: EvoNormCase) -> str:
    """Why our code cannot take these inputs, "" where it can."""
    x = inputs["x"]
    if x.device.type == "cpu":
        other = next((f"{name} is {inputs[name].dtype}" for name in NAMES if inputs[name].dtype != torch.float32), "")
        return f"{other}; the C code is for float32" if other else c_kernels.why_not()
    if x.device.type != "cuda":
        return f"there is no code of ours for {x.device.type}"
    if x.dtype not in ON_CUDA:
        return f"x is {x.dtype}; the Triton code is for float32, bfloat16 and float16"
    return "" if importlib.util.find_spec("triton") else "Triton is not installed"


def _checked(inputs: Inputs) -> tuple[Tensor, ...]:
    """In the order of NAMES. Raises ValueError for shapes that C would read past the end of."""
    x, *parameters = (inputs[name] for name in NAMES)
    if x.dim() != 4:
        raise ValueError(f"evonorm: x has shape {tuple(x.shape)}; give maps (N, C, H, W)")
    for name, parameter in zip(NAMES[1:], parameters, strict=True):
        if parameter.shape != x.shape[1:2]:
            raise ValueError(
                f"evonorm: {name} has shape {tuple(parameter.shape)}; give one value for each of {x.shape[1]} channels"
            )
    return x, *parameters


def _home(x: Tensor) -> ModuleType:
    """The module with our functions for the device."""
    if x.device.type == "cpu":
        return c_kernels
    from harness_papers.evonorm import triton_kernels  # imports Triton

    return triton_kernels
