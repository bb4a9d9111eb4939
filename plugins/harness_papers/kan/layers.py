"""Kolmogorov-Arnold layers: each edge from an input to an output has a learned curve of its own, and an output sums its edges.

The curves of a layer are combinations of a few functions of one input (B-splines, Gaussians, polynomials ...), the same for
all edges, so that the layer is one matrix product of all bases of all inputs (efficient-kan's form); a test compares it with
the sum over edges. Parameters are uninitialised until `reset`, as those of `harness.lab`'s own layers are.
Sources: Liu et al. 2024, arXiv:2404.19756; efficient-kan (Blealtan) and fast-kan (ZiyaoLi), rewritten from their formulas.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness_papers.kan.splines import (
    Grid,
    bases,
    bases_by_recursion,
    fit_coefficients,
    knots_for,
    move_to_knots,
)

# B-splines --------------------------------------------------------------------------------------------------------------


def spline_linear(x: Tensor, base_weight: Tensor, spline_weight: Tensor, grid: Grid) -> Tensor:
    """sum_i base_weight[o, i] silu(x_i) + sum_ij spline_weight[o, i, j] B_j(x_i): (N, in) -> (N, out).

    base_weight: (out, in).   spline_weight: (out, in, grid.bases). The formula in torch's operations; it holds all bases.
    """
    return F.linear(F.silu(x), base_weight) + F.linear(bases(x, grid).flatten(1), spline_weight.flatten(1))


class KANLinear(nn.Module):
    """(..., in) -> (..., out): curves w silu(x) + s sum_j c_j B_j(x) on every edge, without bias.

    base_weight w: (out, in).   spline_weight c: (out, in, G + k).   spline_scaler s: (out, in), or None without `scaler`.
    grid: the one that all inputs start on.   knots: None, or (in, G + 2k + 1) once `update_grid` gave each input its own.
    """

    knots: Tensor | None

    def __init__(
        self, in_features: int, out_features: int, grid: Grid | None = None, *, scaler: bool = True, noise: float = 0.1
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.grid, self.noise = grid or Grid(), noise
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, self.grid.bases))
        self.spline_scaler = nn.Parameter(torch.empty(out_features, in_features)) if scaler else None
        self.register_buffer("knots", None)

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights on the CPU: w and s uniform in +-1 / sqrt(in), c fitted to noise of `noise` / G at the knots."""
        with torch.no_grad():
            fill_uniform(self.base_weight, self.in_features, generator)
            if self.spline_scaler is not None:
                fill_uniform(self.spline_scaler, self.in_features, generator)
            intervals, order = self.grid.intervals, self.grid.order
            heights = torch.rand(intervals + 1, self.in_features * self.out_features, generator=generator, device="cpu")
            heights = (heights - 0.5) * (self.noise / intervals)
            knots = self.grid.knots(torch.float64)
            at = knots[order : order + intervals + 1, None]
            # One fit for all edges: a spline through given heights depends on no edge's number.
            fitted = fit_coefficients(at, heights[:, None, :].double(), knots, order)
            self.spline_weight.copy_(fitted.view(self.spline_weight.shape))

    def scaled_weight(self) -> Tensor:
        """(out, in, G + k): the coefficients of the curves, s c."""
        return self.spline_weight if self.spline_scaler is None else self.spline_weight * self.spline_scaler.unsqueeze(-1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.in_features)
        if self.knots is None:
            out = spline_linear(flat, self.base_weight, self.scaled_weight(), self.grid)
        else:
            found = bases_by_recursion(flat, self.knots, self.grid.order)
            out = F.linear(F.silu(flat), self.base_weight) + F.linear(found.flatten(1), self.scaled_weight().flatten(1))
        return out.view(*x.shape[:-1], self.out_features)

    @torch.no_grad()
    def curves(self, x: Tensor) -> Tensor:
        """Each edge's curve at its input: (N, in) -> (N, out, in)."""
        found = bases(x, self.grid) if self.knots is None else bases_by_recursion(x, self.knots, self.grid.order)
        return F.silu(x)[:, None, :] * self.base_weight + torch.einsum("nib,oib->noi", found, self.scaled_weight())

    @torch.no_grad()
    def update_grid(self, x: Tensor, *, uniform: float = 0.02, margin: float = 0.01) -> None:
        """Give each input knots where its values x (N, in) are, and keep the curves: the nearest on the new knots.

        The coefficients c alone are fitted again and s stays, so the layer computes what it did, but for what the new knots
        cannot express. The public code puts the fit of s c into c and so multiplies by s twice; here nothing does.
        """
        intervals, order = self.grid.intervals, self.grid.order
        new = knots_for(x, intervals, order, uniform, margin)
        self.spline_weight.copy_(move_to_knots(self.spline_weight, self._knots(), new, order))
        self.knots = new

    @torch.no_grad()
    def refine_grid(self, intervals: int) -> None:
        """More intervals for every input, on the range that it has; spline_weight becomes a new parameter.

        Where the new number is a multiple of the old one and the intervals are equal, no curve changes.
        """
        order = self.grid.order
        old = self._knots()
        grid = Grid(intervals, order, self.grid.low, self.grid.high)
        new = grid.knots(old.dtype, old.device) if self.knots is None else _split_knots(self.knots, self.grid, intervals)
        self.spline_weight = nn.Parameter(move_to_knots(self.spline_weight, old, new, order))
        self.grid = grid
        self.knots = None if self.knots is None else new

    def _knots(self) -> Tensor:
        if self.knots is not None:
            return self.knots
        return self.grid.knots(self.spline_weight.dtype, self.spline_weight.device)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, {self.grid}, scaler={self.spline_scaler is not None}"


def _split_knots(knots: Tensor, grid: Grid, intervals: int) -> Tensor:
    """Rows of knots with `intervals` intervals, each old interval cut evenly as far as the numbers allow."""
    order = grid.order
    inner = knots[:, order : order + grid.intervals + 1]
    at = torch.linspace(0, grid.intervals, intervals + 1, dtype=knots.dtype, device=knots.device)
    left = at.floor().long().clamp(max=grid.intervals - 1)
    inner = torch.lerp(inner[:, left], inner[:, left + 1], (at - left).expand(len(knots), -1))
    step = (inner[:, -1:] - inner[:, :1]) / intervals
    beyond = step * torch.arange(1, order + 1, dtype=knots.dtype, device=knots.device)
    return torch.cat([inner[:, :1] - beyond.flip(1), inner, inner[:, -1:] + beyond], dim=1)


# Any functions of one input, the same for all edges -----------------------------------------------------------------------


class BSplines(nn.Module):
    """(...) -> (..., G + k): the bases of `splines.bases` as a module for `BasisLinear`."""

    def __init__(self, grid: Grid | None = None) -> None:
        super().__init__()
        self.grid = grid or Grid()
        self.count = self.grid.bases

    def forward(self, x: Tensor) -> Tensor:
        return bases(x, self.grid)


class Gaussians(nn.Module):
    """(...) -> (..., count): exp(-((x - g_j) / h)^2) with centres g_j evenly on [low, high] and h their distance (FastKAN).

    h = (high - low) / (count - 1). Nothing is trained. Raises ValueError for fewer than 2.
    """

    def __init__(self, count: int = 8, low: float = -2.0, high: float = 2.0) -> None:
        super().__init__()
        if count < 2 or not low < high:
            raise ValueError(f"Gaussians: count={count} on [{low}, {high}]; give at least 2, and low < high")
        self.count, self.low, self.high = count, low, high
        self.width = (high - low) / (count - 1)

    def forward(self, x: Tensor) -> Tensor:
        # Made anew: a buffer would be trained data to whoever counts state, and would keep the dtype of its birth.
        centres = torch.linspace(self.low, self.high, self.count, dtype=x.dtype, device=x.device)
        return torch.exp(-(((x.unsqueeze(-1) - centres) / self.width) ** 2))


class BasisLinear(nn.Module):
    """(..., in) -> (..., out): sum_ij weight[o, i, j] f_j(norm(x)_i), and, where asked for, base(silu(x)).

    basis: a module (...) -> (..., count) with the attribute `count`, applied to each input alike; it may have parameters of
    its own where it draws none of them.   base: none, or a Linear of silu(x), the input before the norm, "with bias" or not.
    norm: a LayerNorm over the inputs, on the bases' branch only.   std: of the weights, normal and cut off at 2 std; None:
    1 / sqrt(in count), which gives outputs of about the size of the bases.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        basis: nn.Module,
        *,
        base: bool = True,
        base_bias: bool = False,
        norm: bool = False,
        std: float | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.basis = in_features, out_features, basis
        count = int(basis.count)  # type: ignore[arg-type]
        self.std = std if std is not None else 1 / math.sqrt(in_features * count)
        self.norm = nn.LayerNorm(in_features) if norm else None
        self.weight = nn.Parameter(torch.empty(out_features, in_features, count))
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features)) if base else None
        self.base_bias = nn.Parameter(torch.empty(out_features)) if base and base_bias else None

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw weights on the CPU: the base's uniform in +-1 / sqrt(in), as torch's Linear has them."""
        with torch.no_grad():
            fill_normal(self.weight, self.std, generator)
            for parameter in (self.base_weight, self.base_bias):
                if parameter is not None:
                    fill_uniform(parameter, self.in_features, generator)

    def forward(self, x: Tensor) -> Tensor:
        found = self.basis(x if self.norm is None else self.norm(x))
        out = F.linear(found.flatten(-2), self.weight.flatten(1))
        return out if self.base_weight is None else out + F.linear(F.silu(x), self.base_weight, self.base_bias)

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}"


def FastKANLinear(in_features: int, out_features: int, basis: nn.Module | None = None) -> BasisLinear:
    """FastKAN: Gaussians of the layer-normalised input, weights of std 0.1, and a base with bias on the input itself."""
    return BasisLinear(in_features, out_features, basis or Gaussians(), base_bias=True, norm=True, std=0.1)


class BasisConv2d(nn.Module):
    """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride)): the layer `BasisLinear` on every patch, `same` padding.

    The bases are computed once for each pixel and not once for each patch that it lies in: the image is padded with zeros
    first, as patches would be, and a convolution over C count channels without padding follows. So a padded pixel
    contributes f_j(0), as it does where patches are unfolded (a test). kernel_size is odd. No norm: that of a patch would
    differ from patch to patch.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        basis: nn.Module,
        *,
        base: bool = True,
        std: float | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size, self.stride = in_channels, out_channels, kernel_size, stride
        self.basis = basis
        count = int(basis.count)  # type: ignore[arg-type]
        self.fan_in = in_channels * kernel_size**2
        self.std = std if std is not None else 1 / math.sqrt(self.fan_in * count)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, count, kernel_size, kernel_size))
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.base_weight = nn.Parameter(torch.empty(shape)) if base else None

    def reset(self, generator: torch.Generator | None = None) -> None:
        """Draw weights on the CPU, as `BasisLinear` does for in = C kernel_size^2."""
        with torch.no_grad():
            fill_normal(self.weight, self.std, generator)
            if self.base_weight is not None:
                fill_uniform(self.base_weight, self.fan_in, generator)

    def forward(self, x: Tensor) -> Tensor:
        margin = self.kernel_size // 2
        padded = F.pad(x, (margin, margin, margin, margin)) if margin else x
        found = self.basis(padded).permute(0, 1, 4, 2, 3).flatten(1, 2)
        out = F.conv2d(found, self.weight.flatten(1, 2), stride=self.stride)
        # silu(0) = 0: the base may pad by itself.
        return out if self.base_weight is None else out + F.conv2d(F.silu(x), self.base_weight, None, self.stride, margin)

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, {self.kernel_size}, stride={self.stride}"


# Drawing ----------------------------------------------------------------------------------------------------------------


def fill_uniform(parameter: Tensor, fan_in: int, generator: torch.Generator | None) -> None:
    """Uniform in +-1 / sqrt(fan_in), drawn in float32 on the CPU: the same on every device."""
    drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float32, device="cpu")
    parameter.copy_((2 * drawn - 1) / math.sqrt(fan_in))


def fill_normal(parameter: Tensor, std: float, generator: torch.Generator | None) -> None:
    """Normal of mean 0 and deviation `std` before it is cut off at two deviations, drawn in float32 on the CPU."""
    drawn = torch.empty(parameter.shape, dtype=torch.float32, device="cpu")
    nn.init.trunc_normal_(drawn, std=std, a=-2 * std, b=2 * std, generator=generator)
    parameter.copy_(drawn)


def kan_layers(module: nn.Module) -> list[tuple[str, Any]]:
    """The layers of this room in a net, by qualified name, in the order of the forward pass."""
    kinds = (KANLinear, BasisLinear, BasisConv2d)
    return [(name, part) for name, part in module.named_modules() if isinstance(part, kinds)]
