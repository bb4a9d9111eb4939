"""The B-spline layer fused: only the k + 1 splines that are not 0, forward and backward. C on the CPU, Triton on CUDA.

`fused_spline_linear` computes what `layers.spline_linear` computes, with gradients of x and of all weights, and holds nothing
but input, output, gradients and tiles of a few hundred kB: no batch x in x (G + k) tensor, in no direction. `why_eager` says
where it does not apply: then that formula runs. c_kernels.py and triton_kernels.py hold the code and say how it works.
"""

from __future__ import annotations

import ctypes
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from harness_papers.kan import c_kernels
from harness_papers.kan.splines import Grid

SHARE = 1 << 20  # of rows x inputs x outputs for each thread: below it, starting one costs more than it saves
CUDA_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def fused_spline_linear(
    x: Tensor, base_weight: Tensor, spline_weight: Tensor, grid: Grid, spline_scaler: Tensor | None = None
) -> Tensor:
    """`layers.spline_linear`: (N, in) -> (N, out). Where `why_eager` has a reason, that function is called.

    base_weight: (out, in).   spline_weight: (out, in, G + k).   spline_scaler: (out, in), a factor of every spline, or None.
    Raises ValueError for shapes that do not belong together.
    """
    _check_shapes(x, base_weight, spline_weight, grid, spline_scaler)
    if why_eager(x, base_weight, spline_weight, grid, spline_scaler):
        return eager_spline_linear(x, base_weight, spline_weight, grid, spline_scaler)
    given = [t for t in (x, base_weight, spline_weight, spline_scaler) if t is not None]
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        return _FusedSplineLinear.apply(x, base_weight, spline_weight, spline_scaler, grid)  # type: ignore[no-any-return]
    return _forward(x, base_weight, spline_weight, spline_scaler, grid)


def eager_spline_linear(
    x: Tensor, base_weight: Tensor, spline_weight: Tensor, grid: Grid, spline_scaler: Tensor | None = None
) -> Tensor:
    """The same by `layers.spline_linear`, which holds all bases of all inputs."""
    from harness_papers.kan.layers import spline_linear  # here: layers.py imports this module

    scaled = spline_weight if spline_scaler is None else spline_weight * spline_scaler.unsqueeze(-1)
    return spline_linear(x, base_weight, scaled, grid)


def why_eager(x: Tensor, base_weight: Tensor, spline_weight: Tensor, grid: Grid, spline_scaler: Tensor | None = None) -> str:
    """Why the formula runs for these inputs, "" where the fused code does."""
    given = [t for t in (x, base_weight, spline_weight, spline_scaler) if t is not None]
    if torch.compiler.is_compiling():
        reason = "torch.compile is given the formula"
    elif not all(t.device == x.device for t in given):
        reason = "the tensors are on several devices"
    elif not base_weight.numel():
        reason = "there are no edges"
    elif x.is_cpu:
        kinds = {t.dtype for t in given} - {torch.float32}
        reason = f"the C code is for float32, not {kinds.pop()}" if kinds else _why_no_c(grid)
    elif x.is_cuda:
        kinds = {t.dtype for t in given}
        if len(kinds) > 1 or x.dtype not in CUDA_DTYPES:
            reason = f"the Triton code is not for {', '.join(sorted(map(str, kinds)))}"
        else:
            reason = _why_no_triton(grid)
    else:
        reason = f"there is no fused code for {x.device.type}"
    return reason


def _why_no_c(grid: Grid) -> str:
    if grid.order > c_kernels.MAX_ORDER:
        return f"the C code is for orders up to {c_kernels.MAX_ORDER}, not {grid.order}"
    if grid.intervals + 2 * grid.order > c_kernels.MAX_CELLS:
        return f"the C code is for up to {c_kernels.MAX_CELLS} cells, not {grid.intervals} + 2 x {grid.order}"
    return c_kernels.why_not(grid.order)


def _check_shapes(x: Tensor, base_weight: Tensor, spline_weight: Tensor, grid: Grid, spline_scaler: Tensor | None) -> None:
    edges = base_weight.shape
    wrong = (
        x.dim() != 2
        or base_weight.dim() != 2
        or x.shape[1] != edges[1]
        or spline_weight.shape != (*edges, grid.bases)
        or (spline_scaler is not None and spline_scaler.shape != edges)
    )
    if wrong:
        scaler = "" if spline_scaler is None else f", spline_scaler {tuple(spline_scaler.shape)}"
        raise ValueError(
            f"spline_linear: x {tuple(x.shape)}, base_weight {tuple(edges)}, spline_weight {tuple(spline_weight.shape)}"
            f"{scaler} and {grid.bases} bases do not fit; give (N, in), (out, in), (out, in, bases) and (out, in)"
        )


class _FusedSplineLinear(torch.autograd.Function):
    """Keeps x and the weights; bases are computed again in the backward pass, a tile at a time."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, base_weight: Tensor, spline_weight: Tensor, spline_scaler: Tensor | None, grid: Grid
    ) -> Tensor:
        ctx.save_for_backward(x, base_weight, spline_weight, spline_scaler)
        ctx.grid = grid
        return _forward(x, base_weight, spline_weight, spline_scaler, grid)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, base_weight, spline_weight, spline_scaler = ctx.saved_tensors
        if torch.is_grad_enabled():  # the gradient is itself differentiated
            inputs = (x, base_weight, spline_weight, spline_scaler)
            return *_differentiable(inputs, ctx.grid, grad), None
        wanted = ctx.needs_input_grad
        return *_backward(x, base_weight, spline_weight, spline_scaler, ctx.grid, grad, wanted), None


def _differentiable(inputs: tuple[Tensor | None, ...], grid: Grid, grad: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients as a graph, by the formula."""
    x, base_weight, spline_weight, spline_scaler = inputs
    wanted = [t for t in inputs if t is not None and t.requires_grad]
    out = eager_spline_linear(x, base_weight, spline_weight, grid, spline_scaler)  # type: ignore[arg-type]
    found = iter(torch.autograd.grad(out, wanted, grad, create_graph=True))
    return tuple(next(found) if t is not None and t.requires_grad else None for t in inputs)


# One call of C or of Triton ---------------------------------------------------------------------------------------------


def _forward(x: Tensor, base_weight: Tensor, spline_weight: Tensor, spline_scaler: Tensor | None, grid: Grid) -> Tensor:
    y = x.new_empty((x.shape[0], base_weight.shape[0]))
    if x.is_cuda:
        _triton().forward(x, base_weight, spline_weight, spline_scaler, grid, y)
        return y
    sizes, scaler = _sizes(x, base_weight, spline_weight, spline_scaler, None), _address(spline_scaler)
    failed = c_kernels.library(grid.order).kan_forward(
        sizes, *_first_knot(grid), x.data_ptr(), base_weight.data_ptr(), spline_weight.data_ptr(), scaler, y.data_ptr(),
        _threads(x, base_weight),
    )  # fmt: skip
    if failed:
        raise MemoryError("spline_linear: no memory for the tiles of the forward pass")
    return y


def _backward(
    x: Tensor, base_weight: Tensor, spline_weight: Tensor, spline_scaler: Tensor | None, grid: Grid, grad: Tensor,
    wanted: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:  # fmt: skip
    """Gradients, contiguous, of x and the three weights; None for those not wanted."""
    inputs = (x, base_weight, spline_weight, spline_scaler)
    made = tuple(t.new_empty(t.shape) if t is not None and w else None for t, w in zip(inputs, wanted, strict=False))
    if x.is_cuda:
        _triton().backward(x, base_weight, spline_weight, spline_scaler, grid, grad, *made)
        return made
    sizes, scaler = _sizes(x, base_weight, spline_weight, spline_scaler, grad), _address(spline_scaler)
    failed = c_kernels.library(grid.order).kan_backward(
        sizes, *_first_knot(grid), x.data_ptr(), base_weight.data_ptr(), spline_weight.data_ptr(), scaler, grad.data_ptr(),
        *map(_address, made), _threads(x, base_weight),
    )  # fmt: skip
    if failed:
        raise MemoryError("spline_linear: no memory for the tiles of the backward pass")
    return made


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _first_knot(grid: Grid) -> tuple[float, float]:
    """The first knot of all, and 1 / the width of an interval."""
    return grid.low - grid.order * grid.step, 1 / grid.step


def _sizes(x: Tensor, base_weight: Tensor, spline_weight: Tensor, scaler: Tensor | None, grad: Tensor | None) -> Any:
    """The numbers of the C code's `Sizes`."""
    return _make_sizes(
        x.shape[0], *spline_weight.shape, *x.stride(), *base_weight.stride(), *spline_weight.stride(),
        *((0, 0) if scaler is None else scaler.stride()), *((0, 0) if grad is None else grad.stride()),
    )  # fmt: skip


@lru_cache(maxsize=256)
def _make_sizes(rows: int, out: int, features: int, bases: int, *strides: int) -> Any:
    return (ctypes.c_ssize_t * c_kernels.SIZES)(rows, features, out, bases, *strides)


def _threads(x: Tensor, base_weight: Tensor) -> int:
    return max(1, min(torch.get_num_threads(), x.shape[0] * base_weight.numel() // SHARE))


@cache
def _triton() -> Any:
    """The module of the Triton code; importing it needs Triton."""
    from harness_papers.kan import triton_kernels

    return triton_kernels


def _why_no_triton(grid: Grid) -> str:
    try:
        return str(_triton().why_not(grid))
    except ImportError as exc:
        return f"Triton cannot be imported ({exc}); pip install triton"
