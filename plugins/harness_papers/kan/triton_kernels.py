"""The B-spline layer in Triton: float32, bfloat16 or float16 in memory, float32 in registers; orders 1 to 3.

Imported only where Triton is (fused.py does it on first use). The layer is a matrix product of all functions of all inputs
with the weights. A program computes the functions of a tile of x in registers, one function after the other, and hands each
to the tensor cores: the functions are never in memory. A C program skips those that are 0; here a skipped one would leave the
tensor cores idle, which multiply more than ten times as fast as anything that could look for it.

Backward, a program sums one function's weights over the batch, or all functions' slopes for a tile of x. Weights are packed
once a call, (1 + G + k, in, out) with the base first, and no atomics are used: the same bits every time. float32 is
multiplied as three products of TensorFloat-32, which keeps its digits.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from harness_papers.kan.splines import Grid

ORDERS = (1, 2, 3)  # those whose closed form stands in `_value` and `_slope`
ROWS, OUTPUTS, FEATURES = 128, 128, 32  # of a tile
LARGE_BYTES = 200_000  # of shared memory: what the tiles of float32 take
WARPS = 8


def why_not(grid: Grid) -> str:
    """Why this code is not for the grid, "" where it is."""
    return "" if grid.order in ORDERS else f"the Triton code is for orders {', '.join(map(str, ORDERS))}, not {grid.order}"


# Launches ---------------------------------------------------------------------------------------------------------------


def forward(x: Tensor, base: Tensor, spline: Tensor, scaler: Tensor | None, grid: Grid, y: Tensor) -> None:
    """Fills y (N, out), contiguous. x: (N, in), base and scaler: (out, in), spline: (out, in, G + k), all of any strides."""
    rows, features = x.shape
    if not rows:
        return
    weights = _pack(base, spline, scaler)
    outputs, tile = y.shape[1], _tile(x, rows, y.shape[1], features)
    with torch.cuda.device_of(x):
        _forward[(triton.cdiv(rows, tile[0]) * triton.cdiv(outputs, tile[1]),)](
            x, weights, y, rows, features, outputs, *x.stride(), *_knots(grid), grid.bases, grid.order, *tile, num_warps=WARPS
        )


def backward(
    x: Tensor, base: Tensor, spline: Tensor, scaler: Tensor | None, grid: Grid, g: Tensor,
    dx: Tensor | None, dbase: Tensor | None, dspline: Tensor | None, dscaler: Tensor | None,
) -> None:  # fmt: skip
    """Fills the gradients that are not None, contiguous; g: (N, out) of any strides."""
    rows, features = x.shape
    outputs, tile = g.shape[1], _tile(x, rows, g.shape[1], features)
    if dx is not None and rows:
        weights = _pack(base, spline, scaler)
        with torch.cuda.device_of(x):
            _inputs[(triton.cdiv(rows, tile[0]) * triton.cdiv(features, tile[2]),)](
                x, weights, g, dx, rows, features, outputs, *x.stride(), *g.stride(), *_knots(grid), grid.bases, grid.order,
                *tile, num_warps=WARPS,
            )  # fmt: skip
    if dbase is None and dspline is None and dscaler is None:
        return
    sums = x.new_empty((1 + grid.bases, features, outputs), dtype=torch.float32)
    # The sum over rows takes the place of the sum over features: their tiles change places too.
    high, wide, deep = _tile(x, features, outputs, rows)
    with torch.cuda.device_of(x):
        _weights[(triton.cdiv(features, high) * triton.cdiv(outputs, wide), 1 + grid.bases)](
            x, g, sums, rows, features, outputs, *x.stride(), *g.stride(), *_knots(grid), grid.order, high, wide, deep,
            num_warps=WARPS,
        )  # fmt: skip
    if dbase is not None:
        dbase.copy_(sums[0].T)
    splines = sums[1:].permute(2, 1, 0)
    if dspline is not None:
        dspline.copy_(splines if scaler is None else splines * scaler.unsqueeze(-1))
    if dscaler is not None:
        dscaler.copy_((splines * spline).sum(-1))


def _pack(base: Tensor, spline: Tensor, scaler: Tensor | None) -> Tensor:
    """(1 + G + k, in, out): neighbours in memory are what a tile reads together."""
    outputs, features, bases = spline.shape
    packed = spline.new_empty((1 + bases, features, outputs))
    packed[0].copy_(base.T)
    packed[1:].copy_((spline if scaler is None else spline * scaler.unsqueeze(-1)).permute(2, 1, 0))
    return packed


def _knots(grid: Grid) -> tuple[float, float]:
    """The first knot of all, and 1 / the width of an interval."""
    return grid.low - grid.order * grid.step, 1 / grid.step


def _tile(x: Tensor, rows: int, outputs: int, features: int) -> tuple[int, int, int]:
    """Of ROWS x OUTPUTS x FEATURES at most; powers of 2, of 16 at least: less is no product for a tensor core."""
    most = (ROWS, OUTPUTS, FEATURES)
    if x.is_cuda and torch.cuda.get_device_properties(x.device).shared_memory_per_block_optin < LARGE_BYTES:
        most = (ROWS // 2, OUTPUTS // 2, FEATURES)
    sizes = zip((rows, outputs, features), most, strict=True)
    return tuple(min(limit, max(16, triton.next_power_of_2(n))) for n, limit in sizes)  # type: ignore[return-value]


# Kernels ----------------------------------------------------------------------------------------------------------------


@triton.jit
def _forward(
    x_ptr, w_ptr, y_ptr, rows, features, outputs, x_row, x_col, low, per_step, bases,
    ORDER: tl.constexpr, ROWS: tl.constexpr, OUTPUTS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(outputs, OUTPUTS)
    row = (tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    out = tl.program_id(0) % across * OUTPUTS + tl.arange(0, OUTPUTS)
    plane = (tl.zeros((1, 1), tl.int64) + features) * outputs  # of one function; a size of 1 is no tensor to Triton
    total = tl.zeros((ROWS, OUTPUTS), tl.float32)
    for start in range(0, features, FEATURES):
        feature = start + tl.arange(0, FEATURES)
        x = _read(x_ptr, row[:, None], feature[None, :], x_row, x_col, rows, features)
        t = (x - low) * per_step
        inside = (feature[:, None] < features) & (out[None, :] < outputs)
        at = w_ptr + feature[:, None].to(tl.int64) * outputs + out[None, :]
        w = tl.load(at, mask=inside, other=0.0)
        total = _multiply((x * tl.sigmoid(x)).to(w.dtype), w, total)
        for basis in range(bases):
            at += plane
            w = tl.load(at, mask=inside, other=0.0)
            total = _multiply(_value(t - basis, ORDER).to(w.dtype), w, total)
    written = (row[:, None] < rows) & (out[None, :] < outputs)
    tl.store(y_ptr + row[:, None] * outputs + out[None, :], total.to(y_ptr.dtype.element_ty), mask=written)


@triton.jit
def _inputs(
    x_ptr, w_ptr, g_ptr, dx_ptr, rows, features, outputs, x_row, x_col, g_row, g_col, low, per_step, bases,
    ORDER: tl.constexpr, ROWS: tl.constexpr, OUTPUTS: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(features, FEATURES)
    row = (tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    feature = tl.program_id(0) % across * FEATURES + tl.arange(0, FEATURES)
    x = _read(x_ptr, row[:, None], feature[None, :], x_row, x_col, rows, features)
    t = (x - low) * per_step
    s = tl.sigmoid(x)
    plane = (tl.zeros((1, 1), tl.int64) + features) * outputs
    total = tl.zeros((ROWS, FEATURES), tl.float32)
    for function in range(bases + 1):
        along = tl.zeros((ROWS, FEATURES), tl.float32)
        for start in range(0, outputs, OUTPUTS):
            out = start + tl.arange(0, OUTPUTS)
            inside = (feature[None, :] < features) & (out[:, None] < outputs)
            at = function * plane + feature[None, :].to(tl.int64) * outputs + out[:, None]
            w = tl.load(w_ptr + at, mask=inside, other=0.0)
            g = _read(g_ptr, row[:, None], out[None, :], g_row, g_col, rows, outputs)
            along = _multiply(g.to(w.dtype), w, along)
        if function == 0:
            total += along * s * (1.0 + x * (1.0 - s))
        else:
            total += along * per_step * _slope(t - (function - 1), ORDER)
    written = (row[:, None] < rows) & (feature[None, :] < features)
    tl.store(dx_ptr + row[:, None] * features + feature[None, :], total.to(dx_ptr.dtype.element_ty), mask=written)


@triton.jit
def _weights(
    x_ptr, g_ptr, sums_ptr, rows, features, outputs, x_row, x_col, g_row, g_col, low, per_step,
    ORDER: tl.constexpr, FEATURES: tl.constexpr, OUTPUTS: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    across = tl.cdiv(outputs, OUTPUTS)
    feature = tl.program_id(0) // across * FEATURES + tl.arange(0, FEATURES)
    out = tl.program_id(0) % across * OUTPUTS + tl.arange(0, OUTPUTS)
    function = tl.program_id(1)
    total = tl.zeros((FEATURES, OUTPUTS), tl.float32)
    for start in range(0, rows, ROWS):
        row = (start + tl.arange(0, ROWS)).to(tl.int64)
        x = _read(x_ptr, row[None, :], feature[:, None], x_row, x_col, rows, features)
        if function == 0:
            value = x * tl.sigmoid(x)
        else:
            value = _value((x - low) * per_step - (function - 1), ORDER)
        g = _read(g_ptr, row[:, None], out[None, :], g_row, g_col, rows, outputs)
        total = _multiply(value.to(x_ptr.dtype.element_ty), g.to(x_ptr.dtype.element_ty), total)
    written = (feature[:, None] < features) & (out[None, :] < outputs)
    plane = (tl.zeros((1, 1), tl.int64) + features) * outputs
    at = function * plane + feature[:, None].to(tl.int64) * outputs + out[None, :]
    tl.store(sums_ptr + at, total, mask=written)


@triton.jit
def _read(ptr, row, col, row_step, col_step, rows, cols):
    # 64 bits: a strided column may lie further than 2^31 elements away.
    at = ptr + row * row_step + col.to(tl.int64) * col_step
    return tl.load(at, mask=(row < rows) & (col < cols), other=0.0).to(tl.float32)


@triton.jit
def _multiply(a, b, total):
    return tl.dot(a, b, total, input_precision="tf32x3")


@triton.jit
def _value(s, ORDER: tl.constexpr):
    """The B-spline on the knots 0, 1, ..., ORDER + 1 at s; it is even about its middle. 0 beyond, and for NaN."""
    d = tl.abs(s - 0.5 * (ORDER + 1))
    if ORDER == 1:
        value = tl.where(d < 1.0, 1.0 - d, 0.0)
    elif ORDER == 2:
        rest = 1.5 - d
        value = tl.where(d < 0.5, 0.75 - d * d, tl.where(d < 1.5, 0.5 * rest * rest, 0.0))
    else:
        rest = 2.0 - d
        inner = 2.0 / 3.0 + d * d * (0.5 * d - 1.0)
        value = tl.where(d < 1.0, inner, tl.where(d < 2.0, rest * rest * rest / 6.0, 0.0))
    return value


@triton.jit
def _slope(s, ORDER: tl.constexpr):
    """The derivative of `_value`."""
    away = s - 0.5 * (ORDER + 1)
    d = tl.abs(away)
    if ORDER == 1:
        slope = tl.where(d < 1.0, -1.0, 0.0)
    elif ORDER == 2:
        slope = tl.where(d < 0.5, -2.0 * d, tl.where(d < 1.5, d - 1.5, 0.0))
    else:
        rest = 2.0 - d
        slope = tl.where(d < 1.0, d * (1.5 * d - 2.0), tl.where(d < 2.0, -0.5 * rest * rest, 0.0))
    return tl.where(away < 0.0, -slope, slope)
