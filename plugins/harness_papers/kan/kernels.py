"""What the kernel `kan-linear` of cases.py names: its inputs, its implementations, and the reference. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from harness_papers.kan.cases import KANCase, shape
from harness_papers.kan.fused import eager_spline_linear, fused_spline_linear, why_eager
from harness_papers.kan.splines import Grid, bases_by_recursion

Inputs = Mapping[str, Tensor]


def grid_of(case: KANCase) -> Grid:
    return Grid(case.grid, case.order)


def make_inputs(case: KANCase, generator: torch.Generator, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """x uniform on [-1.2, 1.2], a sixth of it outside of the grid; weights normal, over the root of the inputs."""
    (rows, features), grid = shape(case), grid_of(case)
    x = torch.rand(rows, features, generator=generator) * 2.4 - 1.2
    base = torch.randn(case.outputs, features, generator=generator) / features**0.5
    spline = torch.randn(case.outputs, features, grid.bases, generator=generator) / features**0.5
    made = {name: t.to(device, dtype) for name, t in {"x": x, "base": base, "spline": spline}.items()}
    return {name: t.requires_grad_(name != "x" or case.input_grad) for name, t in made.items()}


def ours(inputs: Inputs, case: KANCase) -> Tensor:
    return fused_spline_linear(inputs["x"], inputs["base"], inputs["spline"], grid_of(case))


def fallback(inputs: Inputs, case: KANCase) -> str:
    return why_eager(inputs["x"], inputs["base"], inputs["spline"], grid_of(case))


def closed_form(inputs: Inputs, case: KANCase) -> Tensor:
    return eager_spline_linear(inputs["x"], inputs["base"], inputs["spline"], grid_of(case))


def recursion(inputs: Inputs, case: KANCase) -> Tensor:
    """efficient-kan's formula, written anew: Cox-de Boor for all bases at once, then two products.

    Source: https://github.com/Blealtan/efficient-kan (MIT), forward pass of its layer, without the scaler.
    """
    x, spline = inputs["x"], inputs["spline"]
    knots = _knots(grid_of(case), x)
    found = _recursion(x, knots, case.order)
    return F.linear(F.silu(x), inputs["base"]) + F.linear(found.flatten(1), spline.flatten(1))


def _recursion(x: Tensor, knots: Tensor, order: int) -> Tensor:
    """As `splines.bases_by_recursion`, without its care for intervals of no width, which costs time."""
    x = x.unsqueeze(-1)
    found = ((x >= knots[:-1]) & (x < knots[1:])).to(x.dtype)
    for p in range(1, order + 1):
        left, right = knots[: -p - 1], knots[p + 1 :]
        rising = (x - left) / (knots[p:-1] - left) * found[..., :-1]
        found = rising + (right - x) / (right - knots[1:-p]) * found[..., 1:]
    return found


def pykan(inputs: Inputs, case: KANCase) -> Tensor:
    """A peer's layer with our weights in its places: https://github.com/KindXiaoming/pykan."""
    x, base, spline = inputs["x"], inputs["base"], inputs["spline"]
    layer = _pykan_layer(*base.shape, case.grid, case.order, str(x.device))
    weights = {
        "coef": spline.permute(1, 0, 2), "scale_base": base.T, "scale_sp": torch.ones_like(base.T),
        "grid": _knots(grid_of(case), x).expand(x.shape[1], -1),
    }  # fmt: skip
    return torch.func.functional_call(layer, weights, (x,))[0]  # type: ignore[no-any-return]


@lru_cache(maxsize=8)
def _pykan_layer(outputs: int, features: int, intervals: int, order: int, device: str) -> Any:
    from kan.KANLayer import KANLayer  # type: ignore[import-not-found,unused-ignore]

    with torch.random.fork_rng(devices=[]):  # it draws weights, which are not used, from torch's own generator
        return KANLayer(features, outputs, num=intervals, k=order, device=device)


@lru_cache(maxsize=8)
def _knots_on(grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    return grid.knots(dtype, device)


def _knots(grid: Grid, x: Tensor) -> Tensor:
    """Made once: the public code keeps them in a buffer."""
    return grid.knots(x.dtype, x.device) if torch.compiler.is_compiling() else _knots_on(grid, x.dtype, x.device)


def reference(inputs: Inputs, case: KANCase) -> Tensor:
    """Cox-de Boor in float64, which shares no line with the closed forms."""
    x = inputs["x"]
    found = bases_by_recursion(x, grid_of(case).knots(x.dtype, x.device), case.order)
    return F.linear(F.silu(x), inputs["base"]) + F.linear(found.flatten(1), inputs["spline"].flatten(1))
