"""Kolmogorov-Arnold layers: each edge from an input to an output has a learned curve of its own, and an output sums its edges.

Here stand the layer of B-splines and the convolution over any functions that edges share; the dense layers of other families
are in families.py. The bases are the same for all edges, so that a layer is one matrix product of all bases of all inputs
(efficient-kan's form); a test compares it with the sum over edges. Parameters are uninitialised until `reset`, as those of
`harness.lab`'s own layers are.
Sources: Liu et al. 2024, arXiv:2404.19756; efficient-kan (Blealtan, MIT), rewritten from its formulas.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness_papers.kan.families import Basis, KanLayer, draw
from harness_papers.kan.fused import fused_spline_linear, why_eager
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
    fused: on the one grid fused.py's code runs, where it applies: it makes no tensor of all bases. With knots, and where it
    does not apply (`why_eager` says why), the formula runs.
    """

    knots: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid: Grid | None = None,
        *,
        scaler: bool = True,
        noise: float = 0.1,
        fused: bool = True,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.grid, self.noise, self.fused = grid or Grid(), noise, fused
        self.base_weight = nn.Parameter(torch.empty(out_features, in_features))
        self.spline_weight = nn.Parameter(torch.empty(out_features, in_features, self.grid.bases))
        self.spline_scaler = nn.Parameter(torch.empty(out_features, in_features)) if scaler else None
        self.register_buffer("knots", None)

    def reset(self, generator: torch.Generator) -> None:
        """Draw the weights on the CPU: w and s uniform in +-1 / sqrt(in), c fitted to noise of `noise` / G at the knots."""
        with torch.no_grad():
            fill_uniform(self.base_weight, self.in_features, generator)
            if self.spline_scaler is not None:
                fill_uniform(self.spline_scaler, self.in_features, generator)
            drawn = draw_splines(self.grid, self.spline_weight[..., 0].numel(), self.noise, generator)
            self.spline_weight.copy_(drawn.view(self.spline_weight.shape))

    def scaled_weight(self) -> Tensor:
        """(out, in, G + k): the coefficients of the curves, s c."""
        return self.spline_weight if self.spline_scaler is None else self.spline_weight * self.spline_scaler.unsqueeze(-1)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, self.in_features)
        if self.knots is None and self.fused:
            out = fused_spline_linear(flat, self.base_weight, self.spline_weight, self.grid, self.spline_scaler)
        elif self.knots is None:
            out = spline_linear(flat, self.base_weight, self.scaled_weight(), self.grid)
        else:
            found = bases_by_recursion(flat, self.knots, self.grid.order)
            out = F.linear(F.silu(flat), self.base_weight) + F.linear(found.flatten(1), self.scaled_weight().flatten(1))
        return out.view(*x.shape[:-1], self.out_features)

    def why_eager(self, x: Tensor) -> str:
        """Why the formula runs for inputs like x (N, in) and not the fused code; "" where that does."""
        if not self.fused:
            return "the layer was made without"
        if self.knots is not None:
            return "each input has knots of its own"
        return why_eager(x, self.base_weight, self.spline_weight, self.grid, self.spline_scaler)

    def curves(self, x: Tensor) -> Tensor:
        """Each edge's curve at its input: (N, in) -> (N, out, in), whose sum over the inputs is the output."""
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

    @torch.no_grad()
    def part(self, outputs: Tensor, inputs: Tensor) -> KANLinear:
        """A layer of these outputs and inputs (int64) only, with their curves: what is left of one whose units were pruned."""
        small = KANLinear(
            len(inputs), len(outputs), self.grid, scaler=self.spline_scaler is not None, noise=self.noise, fused=self.fused
        ).to(self.spline_weight)
        for name, parameter in small.named_parameters():
            parameter.copy_(getattr(self, name)[outputs][:, inputs])
        small.knots = None if self.knots is None else self.knots[inputs]
        return small

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


# Images -----------------------------------------------------------------------------------------------------------------


class BasisConv2d(nn.Module):
    """(N, C, H, W) -> (N, C', ceil(H / stride), ceil(W / stride)): sums of curves over every patch, `same` padding.

    basis: the functions, the same for all edges; base: a branch weight * silu(x) beside them.   std: of the weights at first;
    None: 1 / sqrt(C kernel_size^2 size), which gives outputs of about the size of the functions.
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
        basis: Basis,
        *,
        base: bool = True,
        std: float | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.kernel_size, self.stride = in_channels, out_channels, kernel_size, stride
        self.basis = basis
        count = basis.size
        self.fan_in = in_channels * kernel_size**2
        self.std = std if std is not None else 1 / math.sqrt(self.fan_in * count)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, count, kernel_size, kernel_size))
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.base_weight = nn.Parameter(torch.empty(shape)) if base else None

    def reset(self, generator: torch.Generator) -> None:
        """Draw weights: of the bases normal of deviation std, of the base uniform in +-1 / sqrt(C kernel_size^2)."""
        with torch.no_grad():
            draw(self.weight, self.std, generator)
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


def fill_uniform(parameter: Tensor, fan_in: int, generator: torch.Generator) -> None:
    """Uniform in +-1 / sqrt(fan_in), drawn in float32 on the CPU: the same on every device."""
    drawn = torch.rand(parameter.shape, generator=generator, dtype=torch.float32, device="cpu")
    parameter.copy_((2 * drawn - 1) / math.sqrt(fan_in))


def draw_splines(grid: Grid, curves: int, noise: float, generator: torch.Generator | None) -> Tensor:
    """(curves, bases) float64: splines through heights at the G + 1 knots, uniform in +-noise / 2 / G, drawn on the CPU."""
    heights = torch.rand(grid.intervals + 1, curves, generator=generator, dtype=torch.float32, device="cpu")
    heights = ((heights - 0.5) * (noise / grid.intervals)).double()
    knots = grid.knots(torch.float64)
    # One fit for all: a spline through given heights depends on no edge's number.
    at = knots[grid.order : grid.order + grid.intervals + 1, None]
    return fit_coefficients(at, heights[:, None, :], knots, grid.order)[:, 0]


def kan_layers(module: nn.Module) -> list[tuple[str, Any]]:
    """The layers of this room in a net, by qualified name, in the order of the forward pass."""
    kinds = (KANLinear, KanLayer, BasisConv2d)
    return [(name, part) for name, part in module.named_modules() if isinstance(part, kinds)]
