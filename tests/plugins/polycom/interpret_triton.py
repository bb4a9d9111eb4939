"""Run by test_kernels.py with TRITON_INTERPRET=1: the Triton kernels on the CPU, launch by launch, against the formula."""

from __future__ import annotations

import os

import torch
from harness_papers.polycom import triton_kernels as launches
from harness_papers.polycom.method import EPS, polynorm, polyrelu
from torch import Tensor

SHAPES = [(1, 1), (3, 5), (70, 100), (2, 5000), (2, 17_000), (1, 4096), (0, 8)]


def strided(rows: int, cols: int, dtype: torch.dtype, rng: torch.Generator) -> Tensor:
    """Every second element of wider rows."""
    return torch.randn(rows, 2 * cols + 3, generator=rng).to(dtype)[:, 1 : 2 * cols + 1 : 2]


def compare(name: str, shape: tuple[int, int], dtype: torch.dtype, rng: torch.Generator) -> float:
    """The largest error over the largest reference, of output and gradients; of x's gradient also over |g| |y| / |x|."""
    rows, cols = shape
    x, g = strided(rows, cols, dtype, rng), torch.randn(rows, cols, generator=rng).to(dtype)
    w, b = torch.tensor([0.5, -1.25, 2.0]), torch.tensor([-0.25])
    leaves = [t.double().requires_grad_() for t in (x, w, b)]
    expected = {"polyrelu": polyrelu, "polynorm": polynorm}[name](*leaves)
    slopes = torch.autograd.grad(expected, leaves, g.double())
    y, grad_x = torch.full((rows, cols), torch.nan, dtype=dtype), torch.full((rows, cols), torch.nan, dtype=dtype)
    eps = [EPS] if name == "polynorm" else []

    getattr(launches, f"{name}_forward")(x, rows, cols, *x.stride(), w, b, y, *eps)
    sums = getattr(launches, f"{name}_backward")(x, rows, cols, *x.stride(), w, g, *g.stride(), grad_x, *eps)

    natural = largest(g) * largest(expected) / max(largest(x), 1e-30)
    pairs = [(y, expected, 0.0), (grad_x, slopes[0], natural), (sums, torch.cat(slopes[1:]), 0.0)]
    return max(largest(a.double() - e) / max(largest(e), least, 1e-30) for a, e, least in pairs)


def largest(t: Tensor) -> float:
    return float(t.detach().abs().max()) if t.numel() else 0.0


def main() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1"
    rng = torch.Generator().manual_seed(1)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):  # as Kernel.tolerance
        for name in ("polyrelu", "polynorm"):
            for shape in SHAPES:
                error = compare(name, shape, dtype, rng)
                assert error <= tolerance, (name, shape, dtype, error)
                print(f"{name} {shape} {dtype}: agrees, {error:.1e}")


if __name__ == "__main__":
    main()
