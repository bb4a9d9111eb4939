"""CRReLU in Triton, computed in float32: kernels.py says when it runs. Importing this module imports triton.

The gradient of eps is the sum of one partial sum a block, in a fixed order: the same bits each time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness.lab.native_elementwise import stepped

BLOCK = 2048  # 16 elements a thread: four loads of 16 bytes in float32, two in bfloat16
WARPS = 4


@triton.jit
def forward_kernel(x_at, x_step, out_at, eps_at, n, BLOCK: tl.constexpr):
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    x = tl.load(x_at + i * x_step, mask=inside, other=0).to(tl.float32)
    eps = tl.load(eps_at).to(tl.float32)
    out = tl.where(x > 0, x, 0.0) + eps * (x * tl.exp(-0.5 * x * x))
    tl.store(out_at + i, out.to(out_at.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(x_at, x_step, grad_at, grad_step, out_at, sums_at, eps_at, n, BLOCK: tl.constexpr):
    block = tl.program_id(0)
    i = block.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < n
    x = tl.load(x_at + i * x_step, mask=inside, other=0).to(tl.float32)
    grad = tl.load(grad_at + i * grad_step, mask=inside, other=0).to(tl.float32)
    eps = tl.load(eps_at).to(tl.float32)
    u = tl.exp(-0.5 * x * x)
    bump = x * u
    out = grad * (tl.where(x > 0, 1.0, 0.0) + eps * (u - x * bump))
    tl.store(out_at + i, out.to(out_at.dtype.element_ty), mask=inside)
    tl.store(sums_at + block, tl.sum(grad * bump, axis=0))


def forward(x: Tensor, eps: Tensor) -> Tensor:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    n = x.numel()
    x, step = stepped(x)
    if n:
        with torch.cuda.device_of(x):  # the backward pass runs on its tensors' device by itself
            forward_kernel[(triton.cdiv(n, BLOCK),)](x, step, out, eps, n, BLOCK=BLOCK, num_warps=WARPS)
    return out


def backward(grad: Tensor, x: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    n = x.numel()
    blocks = triton.cdiv(n, BLOCK)
    sums = torch.empty(blocks, device=x.device, dtype=torch.float32)
    (x, step), (grad, grad_step) = stepped(x), stepped(grad)
    if n:
        backward_kernel[(blocks,)](x, step, grad, grad_step, out, sums, eps, n, BLOCK=BLOCK, num_warps=WARPS)
    return out, sums.sum(dtype=torch.float64).to(eps.dtype).reshape(eps.shape)
