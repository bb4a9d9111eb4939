"""The LIF neuron in Triton: float32, bfloat16 or float16 in memory, float32 in registers. Importing this imports triton.

A program takes BLOCK neurons through all steps; their potentials never leave registers. As in c_kernels.py the forward pass
keeps v (float32) in front of every four steps but the first, and the backward pass makes u again, four steps at a time.
Steps past the end read zeros and are not stored: going back, they come first, where the gradient is 0 anyway.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness_papers.ei_snn.c_kernels import STEPS, SURROGATES
from harness_papers.ei_snn.fused import Neuron

BLOCK = 512  # neurons of a program: 4 of each thread's, a load of 16 bytes in float32
WARPS = 4
assert STEPS == 4  # the kernels name their four potentials


def forward(currents: Tensor, step: int, spikes: Tensor, kept: Tensor | None, neuron: Neuron) -> None:
    """Fills spikes (T, ...), contiguous, and kept (ceil(T / 4) - 1, N), float32; step: of currents, in elements."""
    steps, count = len(currents), currents.numel() // len(currents)
    if count:
        with torch.cuda.device_of(currents):
            forward_kernel[(triton.cdiv(count, BLOCK),)](
                currents, step, spikes, spikes if kept is None else kept, steps, count, neuron.leak, neuron.theta,
                KEEP=kept is not None, HARD=neuron.hard, BLOCK=BLOCK, num_warps=WARPS,
            )  # fmt: skip


def backward(
    currents: Tensor, step: int, kept: Tensor | None, grad: Tensor, grad_step: int, made: Tensor, neuron: Neuron
) -> None:
    """Fills made (T, ...), contiguous, the gradient of the currents."""
    steps, count = len(grad), grad.numel() // len(grad)
    if count:
        with torch.cuda.device_of(grad):
            backward_kernel[(triton.cdiv(count, BLOCK),)](
                currents, step, made if kept is None else kept, grad, grad_step, made, steps, count, neuron.leak, neuron.theta,
                neuron.alpha, HARD=neuron.hard, DETACH=neuron.detach, NEEDS_U=neuron.needs_u,
                KIND=SURROGATES.index(neuron.surrogate), BLOCK=BLOCK, num_warps=WARPS,
            )  # fmt: skip


@triton.jit
def forward_kernel(
    i_ptr, i_step, s_ptr, kept_ptr, steps, count, leak, theta, KEEP: tl.constexpr, HARD: tl.constexpr, BLOCK: tl.constexpr
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    wide = tl.zeros((1,), tl.int64) + count  # offsets along time pass 2^31
    wide_step = tl.zeros((1,), tl.int64) + i_step
    v = tl.zeros((BLOCK,), tl.float32)
    for t in range(steps):
        if KEEP:  # noqa: SIM102 - the first is decided when the kernel is compiled
            if (t % 4 == 0) & (t > 0):
                tl.store(kept_ptr + (t // 4 - 1) * wide + at, v, mask=inside)
        u = leak * v + tl.load(i_ptr + t * wide_step + at, mask=inside, other=0.0).to(tl.float32)
        fired = u >= theta
        tl.store(s_ptr + t * wide + at, tl.where(fired, 1.0, 0.0).to(s_ptr.dtype.element_ty), mask=inside)
        v = _after(u, theta, HARD)


@triton.jit
def backward_kernel(
    i_ptr, i_step, kept_ptr, g_ptr, g_step, out_ptr, steps, count, leak, theta, alpha,
    HARD: tl.constexpr, DETACH: tl.constexpr, NEEDS_U: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < count
    wide = tl.zeros((1,), tl.int64) + count
    wide_step = tl.zeros((1,), tl.int64) + i_step
    wide_g = tl.zeros((1,), tl.int64) + g_step
    later = tl.zeros((BLOCK,), tl.float32)  # the gradient of the next step's current
    blocks = tl.cdiv(steps, 4)
    for turn in range(blocks):
        t = (blocks - 1 - turn) * 4
        u0 = tl.zeros((BLOCK,), tl.float32)
        u1, u2, u3 = u0, u0, u0
        if NEEDS_U:
            before = tl.load(kept_ptr + (t // 4 - 1) * wide + at, mask=inside & (t > 0), other=0.0).to(tl.float32)
            here = i_ptr + t * wide_step + at
            u0 = leak * before + _read(here, inside, t, steps)
            u1 = leak * _after(u0, theta, HARD) + _read(here + wide_step, inside, t + 1, steps)
            u2 = leak * _after(u1, theta, HARD) + _read(here + 2 * wide_step, inside, t + 2, steps)
            u3 = leak * _after(u2, theta, HARD) + _read(here + 3 * wide_step, inside, t + 3, steps)
        g = g_ptr + t * wide_g + at
        out = out_ptr + t * wide + at
        later = _back(
            u3, later, g + 3 * wide_g, out + 3 * wide, inside & (t + 3 < steps), leak, theta, alpha, HARD, DETACH, KIND
        )
        later = _back(
            u2, later, g + 2 * wide_g, out + 2 * wide, inside & (t + 2 < steps), leak, theta, alpha, HARD, DETACH, KIND
        )
        later = _back(u1, later, g + wide_g, out + wide, inside & (t + 1 < steps), leak, theta, alpha, HARD, DETACH, KIND)
        later = _back(u0, later, g, out, inside, leak, theta, alpha, HARD, DETACH, KIND)


@triton.jit
def _read(ptr, inside, t, steps):
    return tl.load(ptr, mask=inside & (t < steps), other=0.0).to(tl.float32)


@triton.jit
def _after(u, theta, HARD: tl.constexpr):
    """v, of u."""
    if HARD:
        v = tl.where(u >= theta, 0.0, u)
    else:
        v = tl.where(u >= theta, u - theta, u)
    return v


@triton.jit
def _back(
    u, later, g_ptr, out_ptr, here, leak, theta, alpha, HARD: tl.constexpr, DETACH: tl.constexpr, KIND: tl.constexpr
):  # fmt: skip
    """The gradient of one step's current, stored; later: that of the next step's. 0 past the last step."""
    b = _slope(u - theta, alpha, KIND)
    stays = 1.0
    if HARD:
        stays = tl.where(u < theta, 1.0, 0.0)
    if not DETACH:
        if HARD:
            stays = stays - u * b
        else:
            stays = stays - theta * b
    g = tl.load(g_ptr, mask=here, other=0.0).to(tl.float32)
    made = g * b + leak * later * stays
    tl.store(out_ptr, made.to(out_ptr.dtype.element_ty), mask=here)
    return made


@triton.jit
def _slope(x, alpha, KIND: tl.constexpr):
    """The surrogates of neuron.py, in the order of SURROGATES."""
    if KIND == 0:
        e = tl.exp(-tl.abs(alpha * x))
        b = alpha * e / ((1.0 + e) * (1.0 + e))
    elif KIND == 1:
        y = 1.5707963267948966 * alpha * x
        b = 0.5 * alpha / (1.0 + y * y)
    elif KIND == 2:
        b = alpha * tl.maximum(1.0 - alpha * tl.abs(x), 0.0)
    else:
        b = alpha + 0.0 * x
    return b
