"""PolyReLU and PolyNorm of order 3 in Triton: float32, bfloat16 or float16 in memory, float32 in registers.

Imported only where Triton is (kernels.py does it on first use). x and the gradient are matrices of any two strides; what is
written is contiguous. A program holds rows of up to WIDEST elements in registers and reads them once; longer ones twice.
Each program leaves its four sums for the parameters' gradients in a row of its own, and torch adds the rows up in float64:
no atomics, so the same bits every time.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 4096  # elements of a program, where rows are not longer
WIDEST = 16384  # a power of 2


# Launches: the arguments of the C functions, tensors in the place of addresses ------------------------------------------


def polyrelu_forward(x: Tensor, rows: int, cols: int, x_row: int, x_col: int, weight: Tensor, bias: Tensor, y: Tensor) -> None:
    if x.numel():
        pieces = triton.cdiv(cols, BLOCK)
        with torch.cuda.device_of(x):
            _relu_forward[(rows * pieces,)](x, y, weight, bias, cols, pieces, x_row, x_col, BLOCK, num_warps=8)


def polyrelu_backward(
    x: Tensor, rows: int, cols: int, x_row: int, x_col: int, weight: Tensor, g: Tensor, g_row: int, g_col: int, grad_x: Tensor
) -> Tensor:
    """Returns the gradients of the three weights and the bias, float64."""
    pieces = triton.cdiv(cols, BLOCK)
    sums = x.new_empty((rows * pieces, 4), dtype=torch.float32)
    if x.numel():
        with torch.cuda.device_of(x):
            _relu_backward[(rows * pieces,)](
                x, g, grad_x, weight, sums, cols, pieces, x_row, x_col, g_row, g_col, BLOCK, num_warps=8
            )
    return sums.sum(0, dtype=torch.float64)


def polynorm_forward(
    x: Tensor, rows: int, cols: int, x_row: int, x_col: int, weight: Tensor, bias: Tensor, y: Tensor, eps: float
) -> None:
    if x.numel():
        high, wide = tile(cols)
        with torch.cuda.device_of(x):
            _norm_forward[(triton.cdiv(rows, high),)](
                x, y, weight, bias, rows, cols, x_row, x_col, eps, high, wide, cols <= wide, num_warps=warps(high * wide)
            )


def polynorm_backward(
    x: Tensor, rows: int, cols: int, x_row: int, x_col: int, weight: Tensor, g: Tensor, g_row: int, g_col: int, grad_x: Tensor,
    eps: float,
) -> Tensor:  # fmt: skip
    """Returns the gradients of the three weights and the bias, float64."""
    high, wide = tile(cols)
    sums = x.new_empty((triton.cdiv(rows, high), 4), dtype=torch.float32)
    if x.numel():
        with torch.cuda.device_of(x):
            _norm_backward[(len(sums),)](
                x, g, grad_x, weight, sums, rows, cols, x_row, x_col, g_row, g_col, eps, high, wide, cols <= wide,
                num_warps=warps(high * wide),
            )  # fmt: skip
    return sums.sum(0, dtype=torch.float64)


def tile(cols: int) -> tuple[int, int]:
    """Rows and columns of a program, powers of 2: whole rows where they are not longer than WIDEST."""
    wide = triton.next_power_of_2(max(cols, 1)) if cols <= WIDEST else BLOCK
    return max(1, BLOCK // wide), wide


def warps(elements: int) -> int:
    """16 to 32 elements for each thread: two floats each stay in registers."""
    return min(16, max(4, elements // 512))


# Kernels ----------------------------------------------------------------------------------------------------------------


@triton.jit
def _relu_forward(x_ptr, y_ptr, w_ptr, b_ptr, cols, pieces, x_row, x_col, BLOCK: tl.constexpr):
    item = tl.program_id(0).to(tl.int64)
    row, col = item // pieces, item % pieces * BLOCK + tl.arange(0, BLOCK)
    inside = col < cols
    w0, w1, w2 = _weights(w_ptr)
    x = _read(x_ptr, row, col, x_row, x_col, inside)
    r = tl.where(x < 0, 0.0, x)  # a NaN stays one
    y = ((w0 * r + w1) * r + w2) * r + tl.load(b_ptr).to(tl.float32)
    tl.store(y_ptr + row * cols + col, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _relu_backward(x_ptr, g_ptr, out_ptr, w_ptr, sums_ptr, cols, pieces, x_row, x_col, g_row, g_col, BLOCK: tl.constexpr):
    item = tl.program_id(0).to(tl.int64)
    row, col = item // pieces, item % pieces * BLOCK + tl.arange(0, BLOCK)
    inside = col < cols
    w0, w1, w2 = _weights(w_ptr)
    x = _read(x_ptr, row, col, x_row, x_col, inside)
    g = _read(g_ptr, row, col, g_row, g_col, inside)
    r = tl.where(x < 0, 0.0, x)
    out = tl.where(x <= 0, 0.0, g * ((3.0 * w0 * r + 2.0 * w1) * r + w2))
    tl.store(out_ptr + row * cols + col, out.to(out_ptr.dtype.element_ty), mask=inside)
    gr = g * r
    _write_sums(sums_ptr, item, tl.sum(gr * r * r, 0), tl.sum(gr * r, 0), tl.sum(gr, 0), tl.sum(g, 0))


@triton.jit
def _norm_forward(
    x_ptr, y_ptr, w_ptr, b_ptr, rows, cols, x_row, x_col, eps, HIGH: tl.constexpr, WIDE: tl.constexpr, WHOLE: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64) * HIGH + tl.arange(0, HIGH)[:, None]
    w0, w1, w2 = _weights(w_ptr)
    b = tl.load(b_ptr).to(tl.float32)
    if WHOLE:
        col = tl.arange(0, WIDE)[None, :]
        inside = (row < rows) & (col < cols)
        x = _read(x_ptr, row, col, x_row, x_col, inside)
        s1, s2, s3 = _squares(x)
        a1, a2, a3 = w2 * _scale(s1, cols, eps), w1 * _scale(s2, cols, eps), w0 * _scale(s3, cols, eps)
        y = ((a3[:, None] * x + a2[:, None]) * x + a1[:, None]) * x + b
        tl.store(y_ptr + row * cols + col, y.to(y_ptr.dtype.element_ty), mask=inside)
    else:
        s1, s2, s3 = _nothing(HIGH), _nothing(HIGH), _nothing(HIGH)
        for start in range(0, cols, WIDE):
            col = start + tl.arange(0, WIDE)[None, :]
            x = _read(x_ptr, row, col, x_row, x_col, (row < rows) & (col < cols))
            more1, more2, more3 = _squares(x)
            s1, s2, s3 = s1 + more1, s2 + more2, s3 + more3
        a1, a2, a3 = w2 * _scale(s1, cols, eps), w1 * _scale(s2, cols, eps), w0 * _scale(s3, cols, eps)
        for start in range(0, cols, WIDE):
            col = start + tl.arange(0, WIDE)[None, :]
            inside = (row < rows) & (col < cols)
            x = _read(x_ptr, row, col, x_row, x_col, inside)
            y = ((a3[:, None] * x + a2[:, None]) * x + a1[:, None]) * x + b
            tl.store(y_ptr + row * cols + col, y.to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _norm_backward(
    x_ptr, g_ptr, out_ptr, w_ptr, sums_ptr, rows, cols, x_row, x_col, g_row, g_col, eps,
    HIGH: tl.constexpr, WIDE: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    item = tl.program_id(0).to(tl.int64)
    row = item * HIGH + tl.arange(0, HIGH)[:, None]
    if WHOLE:
        col = tl.arange(0, WIDE)[None, :]
        inside = (row < rows) & (col < cols)
        x = _read(x_ptr, row, col, x_row, x_col, inside)
        g = _read(g_ptr, row, col, g_row, g_col, inside)
        s1, s2, s3 = _squares(x)
        t0, t1, t2, t3 = _products(x, g)
        a1, a2, a3, b1, b2, b3 = _slopes(w_ptr, sums_ptr, item, s1, s2, s3, t0, t1, t2, t3, cols, eps)
        out = _slope(x, g, a1, a2, a3, b1, b2, b3)
        tl.store(out_ptr + row * cols + col, out.to(out_ptr.dtype.element_ty), mask=inside)
    else:
        s1, s2, s3 = _nothing(HIGH), _nothing(HIGH), _nothing(HIGH)
        t0, t1, t2, t3 = _nothing(HIGH), _nothing(HIGH), _nothing(HIGH), _nothing(HIGH)
        for start in range(0, cols, WIDE):
            col = start + tl.arange(0, WIDE)[None, :]
            inside = (row < rows) & (col < cols)
            x = _read(x_ptr, row, col, x_row, x_col, inside)
            g = _read(g_ptr, row, col, g_row, g_col, inside)
            more1, more2, more3 = _squares(x)
            s1, s2, s3 = s1 + more1, s2 + more2, s3 + more3
            more0, more1, more2, more3 = _products(x, g)
            t0, t1, t2, t3 = t0 + more0, t1 + more1, t2 + more2, t3 + more3
        a1, a2, a3, b1, b2, b3 = _slopes(w_ptr, sums_ptr, item, s1, s2, s3, t0, t1, t2, t3, cols, eps)
        for start in range(0, cols, WIDE):
            col = start + tl.arange(0, WIDE)[None, :]
            inside = (row < rows) & (col < cols)
            x = _read(x_ptr, row, col, x_row, x_col, inside)
            g = _read(g_ptr, row, col, g_row, g_col, inside)
            out = _slope(x, g, a1, a2, a3, b1, b2, b3)
            tl.store(out_ptr + row * cols + col, out.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _read(ptr, row, col, row_step, col_step, inside):
    # 64 bits: a strided column may lie further than 2^31 elements away.
    return tl.load(ptr + row * row_step + col.to(tl.int64) * col_step, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _weights(w_ptr):
    return tl.load(w_ptr).to(tl.float32), tl.load(w_ptr + 1).to(tl.float32), tl.load(w_ptr + 2).to(tl.float32)


@triton.jit
def _nothing(HIGH: tl.constexpr):
    return tl.zeros((HIGH,), tl.float32)


@triton.jit
def _squares(x):
    """Row sums of x^2, x^4 and x^6."""
    q = x * x
    return tl.sum(q, 1), tl.sum(q * q, 1), tl.sum(q * q * q, 1)


@triton.jit
def _products(x, g):
    """Row sums of g, g x, g x^2 and g x^3."""
    gx = g * x
    return tl.sum(g, 1), tl.sum(gx, 1), tl.sum(gx * x, 1), tl.sum(gx * x * x, 1)


@triton.jit
def _scale(squares, cols, eps):
    return 1.0 / tl.sqrt(squares / cols + eps)


@triton.jit
def _slopes(w_ptr, sums_ptr, item, s1, s2, s3, t0, t1, t2, t3, cols, eps):
    """Writes the parameters' sums; returns each row's factors in `_slope`."""
    w0, w1, w2 = _weights(w_ptr)
    r1, r2, r3 = _scale(s1, cols, eps), _scale(s2, cols, eps), _scale(s3, cols, eps)
    _write_sums(sums_ptr, item, tl.sum(r3 * t3, 0), tl.sum(r2 * t2, 0), tl.sum(r1 * t1, 0), tl.sum(t0, 0))
    a1, a2, a3 = w2 * r1, 2.0 * w1 * r2, 3.0 * w0 * r3
    # In this order: r^3 alone leaves float32 where x is large.
    b1, b2, b3 = a1 * (r1 * t1 / cols) * r1, a2 * (r2 * t2 / cols) * r2, a3 * (r3 * t3 / cols) * r3
    return a1, a2, a3, b1, b2, b3


@triton.jit
def _slope(x, g, a1, a2, a3, b1, b2, b3):
    q = x * x
    along = (a3[:, None] * x + a2[:, None]) * x + a1[:, None]
    return g * along - x * ((b3[:, None] * q + b2[:, None]) * q + b1[:, None])


@triton.jit
def _write_sums(sums_ptr, item, s0, s1, s2, s3):
    tl.store(sums_ptr + 4 * item, s0)
    tl.store(sums_ptr + 4 * item + 1, s1)
    tl.store(sums_ptr + 4 * item + 2, s2)
    tl.store(sums_ptr + 4 * item + 3, s3)
