"""SELU in Triton, computed in float32: kernels.py says when it runs. Importing this module imports triton."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.lab.native_elementwise import stepped
from harness_papers.selu.method import ALPHA, LAMBDA

BLOCK = 2048  # 16 elements a thread: four loads of 16 bytes in float32, two in bfloat16
WARPS = 4
SCALE = tl.constexpr(LAMBDA)
FALL = tl.constexpr(LAMBDA * ALPHA)


@triton.jit
def expm1(x):
    """For x <= 0. Near 0, where exp(x) - 1 cancels, Taylor's polynomial: its next term is 1e-8 of it at -1/4."""
    q = 1.0 + x * (1 / 7)
    q = 1.0 + x * (1 / 6) * q
    q = 1.0 + x * (1 / 5) * q
    q = 1.0 + x * (1 / 4) * q
    q = 1.0 + x * (1 / 3) * q
    q = 1.0 + x * (1 / 2) * q
    return tl.where(x > -0.25, x * q, tl.exp(x) - 1.0)


@triton.jit
def forward_kernel(x_at, x_step, out_at, n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    x = tl.load(x_at + i * x_step, mask=inside, other=0).to(tl.float32)
    out = tl.where(x > 0, SCALE * x, FALL * expm1(x))
    tl.store(out_at + i, out.to(out_at.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(x_at, x_step, grad_at, grad_step, out_at, n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    x = tl.load(x_at + i * x_step, mask=inside, other=0).to(tl.float32)
    grad = tl.load(grad_at + i * grad_step, mask=inside, other=0).to(tl.float32)
    out = grad * tl.where(x > 0, SCALE, FALL * tl.exp(x))
    tl.store(out_at + i, out.to(out_at.dtype.element_ty), mask=inside)


def forward(x: Tensor, p: None) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    n = x.numel()
    x, step = stepped(x)
    if n:
        with torch.cuda.device_of(x):  # the backward pass runs on its tensors' device by itself
            forward_kernel[(triton.cdiv(n, BLOCK),)](x, step, out, n, BLOCK=BLOCK, num_warps=WARPS)
    return out


def backward(grad: Tensor, x: Tensor, p: None) -> tuple[Tensor, None]:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    n = x.numel()
    (x, step), (grad, grad_step) = stepped(x), stepped(grad)
    if n:
        backward_kernel[(triton.cdiv(n, BLOCK),)](x, step, grad, grad_step, out, n, BLOCK=BLOCK, num_warps=WARPS)
    return out, None
