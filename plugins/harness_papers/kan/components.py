"""The components that harness_papers.kan declares: each function is the `build` of one. Imports torch."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness_papers.kan.families import FAMILIES, Basis, BasisLayer, BSplines, Chebyshev, Gaussians, ReluBumps
from harness_papers.kan.layers import BasisConv2d, KANLinear, draw_splines
from harness_papers.kan.splines import Grid, bases


def grid_of(params: Any) -> Grid:
    return Grid(params.grid, params.order, params.low, params.high)


def build_kan(in_features: int, out_features: int, params: Any) -> nn.Module:
    grid, fused = grid_of(params), params.kernel == "auto"
    return KANLinear(in_features, out_features, grid, scaler=params.scaler, noise=params.noise, fused=fused)


def build_kan_conv(in_channels: int, out_channels: int, kernel_size: int, stride: int, params: Any) -> nn.Module:
    grid = grid_of(params)
    basis: Basis = {
        "b-spline": lambda: BSplines(grid),
        "gaussian": lambda: Gaussians(grid.low, grid.high, grid.bases),
        "bump": lambda: ReluBumps(grid.intervals, grid.order, grid.low, grid.high),
        "chebyshev": lambda: Chebyshev(grid.bases - 1),
    }[params.functions]()
    return BasisConv2d(in_channels, out_channels, kernel_size, stride, basis)


def build_fastkan(in_features: int, out_features: int, params: Any) -> nn.Module:
    family = dataclasses.replace(FAMILIES["fastkan"], basis=partial(Gaussians, params.low, params.high, params.grid))
    return BasisLayer(family, in_features, out_features, params.norm)


def build_relu_kan(in_features: int, out_features: int, params: Any) -> nn.Module:
    inputs = in_features if params.trained_ends else None
    basis = partial(ReluBumps, params.grid, params.order, params.low, params.high, inputs)
    return BasisLayer(dataclasses.replace(FAMILIES["relu-kan"], basis=basis, bias=True), in_features, out_features)


def build_chebyshev_kan(in_features: int, out_features: int, params: Any) -> nn.Module:
    family = dataclasses.replace(FAMILIES["chebyshev"], basis=partial(Chebyshev, params.degree))
    return BasisLayer(family, in_features, out_features)


def build_bspline_activation(place: Any, params: Any) -> nn.Module:
    """At every place where a net activates; in front of an addition it would be no activation, and there it is not."""
    return BSplineActivation(place.features, grid_of(params), base=params.base)


class BSplineActivation(nn.Module):
    """w_c silu(z) + sum_j c_cj B_j(z), a curve for each feature c: (N, C), (N, T, C) or (N, C, H, W) -> the same shape.

    The features are axis 1 of images, else the last. w starts at 1; the coefficients go through noise of 0.1 / G at the knots,
    as on a KAN's edges, drawn from torch's global generator, which the reference learner seeds for each trial.
    Source: the control MLP_spline of https://github.com/yu-rp/KANbeFair, there without the base.
    """

    def __init__(self, features: int, grid: Grid, *, base: bool = True, noise: float = 0.1) -> None:
        super().__init__()
        self.features, self.grid = features, grid
        self.base_weight = nn.Parameter(torch.ones(features)) if base else None
        self.spline_weight = nn.Parameter(torch.empty(features, grid.bases))
        with torch.no_grad():
            self.spline_weight.copy_(draw_splines(grid, features, noise, None))

    def forward(self, z: Tensor) -> Tensor:
        last = z.movedim(1, -1) if z.ndim == 4 else z
        out = (bases(last, self.grid) * self.spline_weight).sum(-1)
        out = out if self.base_weight is None else out + self.base_weight * F.silu(last)
        return out.movedim(-1, 1) if z.ndim == 4 else out

    def extra_repr(self) -> str:
        return f"{self.features}, {self.grid}, base={self.base_weight is not None}"
