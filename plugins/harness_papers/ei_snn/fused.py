"""The LIF neuron fused over all steps, forward and backward: C on the CPU, Triton on CUDA. `why_eager` says where not.

`lif_fused` computes what `neuron.lif_loop` computes, bit for bit in the spikes, in two passes over memory forward, three
back. c_kernels.py and triton_kernels.py hold the code and say how it works. Nothing here knows a layer.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from harness.lab.native_elementwise import share
from harness_papers.ei_snn import c_kernels
from harness_papers.ei_snn.c_kernels import CALL, STEPS

PLAIN = (Tensor, torch.nn.Parameter)
CUDA_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Neuron(NamedTuple):
    """leak: 1 - 1 / tau.   theta: threshold.   alpha: sharpness of the surrogate.   hard: reset.   detach: the reset's s."""

    leak: float
    theta: float
    alpha: float
    hard: bool
    detach: bool
    surrogate: str

    @property
    def needs_u(self) -> bool:
        """Whether the backward pass does: with a constant slope and a soft reset it does not."""
        return self.hard or self.surrogate != "straight-through"


def why_eager(currents: Tensor, neuron: Neuron) -> str:
    """Why the loop runs for these currents, "" where the fused code does."""
    if torch.compiler.is_compiling():
        return "torch.compile is given the loop"
    if type(currents) not in PLAIN:
        return "the fused code takes plain tensors, no subclasses"
    device = "cpu" if currents.is_cpu else currents.device.type
    return _why_eager(device, currents.dtype, neuron.hard, neuron.detach, neuron.surrogate)


@cache
def _why_eager(device: str, dtype: torch.dtype, hard: bool, detach: bool, surrogate: str) -> str:
    if device == "cpu":
        return c_kernels.why_not(dtype, hard, detach, surrogate)
    if device != "cuda":
        return f"there is no fused code for {device}"
    return _why_no_triton() if dtype in CUDA_DTYPES else f"the Triton code is not for {str(dtype).removeprefix('torch.')}"


def _why_no_triton() -> str:
    try:
        _triton()
    except ImportError as exc:
        return f"Triton cannot be imported ({exc}); pip install triton"
    return ""


@cache
def _triton() -> Any:
    """The module of the Triton code; importing it needs Triton."""
    from harness_papers.ei_snn import triton_kernels

    return triton_kernels


def lif_fused(currents: Tensor, neuron: Neuron) -> Tensor:
    """Spikes (T, ...), contiguous, of currents (T, ...) for which `why_eager` is "". T is at least 1."""
    if torch.is_grad_enabled() and currents.requires_grad:
        return cast(Tensor, FusedLIF.apply(currents, neuron))
    currents, step = rows(currents)
    return forward(currents, step, neuron, None)


class FusedLIF(torch.autograd.Function):
    """Keeps the currents, and v in front of every STEPS steps but the first."""

    @staticmethod
    def forward(ctx: Any, currents: Tensor, neuron: Neuron) -> Tensor:
        currents, step = rows(currents)
        kept = None
        if neuron.needs_u:
            steps = currents.shape[0]
            if steps > STEPS:
                kept = currents.new_empty(((steps - 1) // STEPS, currents.numel() // steps), dtype=state(currents))
            ctx.save_for_backward(currents, kept)
        ctx.step, ctx.neuron = step, neuron
        return forward(currents, step, neuron, kept)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _backward_once(ctx, grad) if torch.is_grad_enabled() else _backward(ctx, grad)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    grad, step = rows(grad)
    currents, kept = ctx.saved_tensors if ctx.neuron.needs_u else (grad, None)  # not read then
    return backward(currents, ctx.step, kept, grad, step, ctx.neuron), None


# A gradient of the gradient is refused, as the loop refuses it: spikes have none.
_backward_once = torch.autograd.function.once_differentiable(_backward)


# One call of C or of Triton ---------------------------------------------------------------------------------------------


def rows(x: Tensor) -> tuple[Tensor, int]:
    """x (T, ...) and the elements from one step to the next, each step contiguous; a copy where they are not so."""
    if x.is_neg():
        x = x.resolve_neg()  # a lazy negation is a bit of the tensor, not in its memory
    if not x.is_contiguous():
        if x[0].is_contiguous():
            return x, x.stride(0)
        x = x.contiguous()
    return x, x.numel() // x.shape[0]


def state(x: Tensor) -> torch.dtype:
    """What potentials are held in."""
    return x.dtype if x.is_cpu else torch.float32


def forward(currents: Tensor, step: int, neuron: Neuron, kept: Tensor | None) -> Tensor:
    """kept: (ceil(T / STEPS) - 1, N), to be filled, or None."""
    spikes = torch.empty_like(currents, memory_format=torch.contiguous_format)
    if currents.is_cuda:
        _triton().forward(currents, step, spikes, kept, neuron)
        return spikes
    steps, count = currents.shape[0], currents.numel()
    run, _ = c_kernels.functions(currents.dtype, neuron.hard, neuron.detach, neuron.surrogate)
    at = 0 if kept is None else kept.data_ptr()
    run(CALL.pack(
        currents.data_ptr(), 0, at, spikes.data_ptr(), step, 0, steps, count // steps,
        neuron.leak, neuron.theta, 0, share(count),
    ))  # fmt: skip
    return spikes


def backward(currents: Tensor, step: int, kept: Tensor | None, grad: Tensor, grad_step: int, neuron: Neuron) -> Tensor:
    """The gradient of the currents, contiguous."""
    made = torch.empty_like(grad, memory_format=torch.contiguous_format)
    if grad.is_cuda:
        _triton().backward(currents, step, kept, grad, grad_step, made, neuron)
        return made
    steps, count = grad.shape[0], grad.numel()
    _, run = c_kernels.functions(grad.dtype, neuron.hard, neuron.detach, neuron.surrogate)
    at = 0 if kept is None else kept.data_ptr()
    run(CALL.pack(
        currents.data_ptr(), grad.data_ptr(), at, made.data_ptr(), step, grad_step, steps, count // steps,
        neuron.leak, neuron.theta, neuron.alpha, share(count),
    ))  # fmt: skip
    return made
