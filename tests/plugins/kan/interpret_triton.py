"""Run by test_fused.py with TRITON_INTERPRET=1: the Triton kernels on the CPU, launch by launch, against the formula."""

from __future__ import annotations

import os

import torch
from harness_papers.kan import triton_kernels as launches
from harness_papers.kan.fused import eager_spline_linear
from harness_papers.kan.splines import Grid
from torch import Tensor

CASES = [  # rows, inputs, outputs, grid: within a tile, beyond one in each direction, of each order; nothing
    (5, 3, 7, Grid()), (150, 40, 20, Grid()), (20, 35, 150, Grid(4, 2)), (9, 17, 5, Grid(3, 1)), (1, 1, 1, Grid()),
    (33, 6, 18, Grid(2, 3, -2.0, 3.0)), (0, 3, 4, Grid()),
]  # fmt: skip


def strided(*shape: int, dtype: torch.dtype, rng: torch.Generator) -> Tensor:
    """Every second element of wider rows."""
    return torch.randn(*shape[:-1], 2 * shape[-1] + 3, generator=rng).to(dtype)[..., 1 : 2 * shape[-1] + 1 : 2]


def compare(
    rows: int, features: int, outputs: int, grid: Grid, dtype: torch.dtype, scaled: bool, rng: torch.Generator
) -> float:
    """The largest error over the largest reference, of output and gradients."""
    x, g = strided(rows, features, dtype=dtype, rng=rng), strided(rows, outputs, dtype=dtype, rng=rng)
    shapes = [(outputs, features), (outputs, features, grid.bases), (outputs, features)]
    base, spline, scale = (strided(*shape, dtype=dtype, rng=rng) for shape in shapes)
    scaler = scale if scaled else None
    leaves = [t if t is None else t.double().requires_grad_() for t in (x, base, spline, scaler)]
    expected = eager_spline_linear(leaves[0], leaves[1], leaves[2], grid, leaves[3])
    slopes = torch.autograd.grad(expected, [t for t in leaves if t is not None], g.double())
    made = [t if t is None else torch.full(t.shape, torch.nan, dtype=dtype) for t in (x, base, spline, scaler)]
    y = torch.full((rows, outputs), torch.nan, dtype=dtype)

    launches.forward(x, base, spline, scaler, grid, y)
    launches.backward(x, base, spline, scaler, grid, g, *made)

    pairs = zip([y, *(t for t in made if t is not None)], [expected, *slopes], strict=True)
    return max(largest(a.double() - e) / max(largest(e), 1e-30) for a, e in pairs)


def largest(t: Tensor) -> float:
    return float(t.detach().abs().max()) if t.numel() else 0.0


def main() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1"
    rng = torch.Generator().manual_seed(1)
    # Tolerances as Kernel.tolerance. The interpreter cannot multiply bfloat16.
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 2e-3)):
        for scaled in (True, False):
            for rows, features, outputs, grid in CASES:
                error = compare(rows, features, outputs, grid, dtype, scaled, rng)
                assert error <= tolerance, (rows, features, outputs, grid, dtype, error)
                print(f"{rows} {features} {outputs} {grid} {dtype} {scaled}: agrees, {error:.1e}")


if __name__ == "__main__":
    main()
