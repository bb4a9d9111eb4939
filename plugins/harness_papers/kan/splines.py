"""B-splines on a grid: bases (Cox-de Boor, and the local closed form), least-squares fits, moving a spline to another grid.

In: tensors of any float dtype. Out: the same dtype; fits are computed in float64 on the CPU. Nothing here is a layer.

A grid of G equal intervals on [low, high] is extended by k knots on each side, which gives G + k bases of order (degree) k.
Basis j, counted from 0, lives on the knots j to j + k + 1. Inside [low, high] the bases are >= 0, sum to 1, and at most k + 1
of them are not 0; outside they fade, and beyond the last knot there is no signal. Intervals are half-open, [t_j, t_j+1).
Sources: de Boor, A Practical Guide to Splines; Liu et al. 2024, arXiv:2404.19756 (the grid of a KAN).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Grid:
    """G equal `intervals` on [low, high] and splines of `order` k on it. Raises ValueError for a grid that holds none."""

    intervals: int = 5
    order: int = 3
    low: float = -1.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.intervals < 1 or self.order < 1 or not self.low < self.high:
            raise ValueError(f"{self}: give at least 1 interval, an order of at least 1, and low < high")

    @property
    def step(self) -> float:
        """The width of an interval."""
        return (self.high - self.low) / self.intervals

    @property
    def bases(self) -> int:
        """G + k, the numbers that one spline has."""
        return self.intervals + self.order

    def knots(self, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
        """(G + 2k + 1,): low - k step, ..., low, ..., high, ..., high + k step."""
        numbers = torch.arange(-self.order, self.intervals + self.order + 1, dtype=torch.float64, device="cpu")
        return (numbers * self.step + self.low).to(device, dtype)


# Bases ------------------------------------------------------------------------------------------------------------------


def local_bases(x: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """The k + 1 bases that can be non-zero at each element of x: (cell, values), of shapes x.shape and (*x.shape, k + 1).

    cell, int64 in [-k, G + k - 1], is the interval of x, counted from `low`; values[..., r] is basis cell + r, which does not
    exist where cell + r is not in [0, G + k - 1]. Beyond the knots all bases that exist are 0, and so are their slopes.
    """
    cell, _, values = _pieces(x, grid)
    return cell, torch.stack(values, dim=-1)


def bases(x: Tensor, grid: Grid) -> Tensor:
    """All G + k bases at each element of x, (*x.shape, G + k): `local_bases`, put where they belong, zeros elsewhere.

    Differentiable as often as asked.
    """
    if grid.order > 1 and x.requires_grad and torch.is_grad_enabled():
        found: Tensor = _Bases.apply(x, grid)
        return found
    return _differentiable_bases(x, grid)


class _Bases(torch.autograd.Function):
    """Autograd's own way back through the pieces would be some sixty small operations for a cubic; this is four."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Grid) -> Tensor:
        cell, lower, values = _pieces(x, grid)
        # Of order k from the pieces of order k - 1: B_j,k' = (B_j,k-1 - B_j+1,k-1) / step.
        slopes = [-lower[0], *(a - b for a, b in itertools.pairwise(lower)), lower[-1]]
        ctx.save_for_backward(x, cell, torch.stack(slopes, dim=-1))
        ctx.grid = grid
        return _put_into_place(cell, torch.stack(values, dim=-1), grid)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (x, cell, slopes), grid = ctx.saved_tensors, ctx.grid
        if torch.is_grad_enabled():  # the gradient is itself differentiated
            again = _differentiable_bases(x, grid)
            return torch.autograd.grad(again, x, grad, create_graph=True)[0], None
        wide = F.pad(grad, (grid.order, grid.order))
        return (wide.gather(-1, _columns(cell, grid)) * slopes).sum(-1) / grid.step, None


def _differentiable_bases(x: Tensor, grid: Grid) -> Tensor:
    cell, _, values = _pieces(x, grid)
    return _put_into_place(cell, torch.stack(values, dim=-1), grid)


def _pieces(x: Tensor, grid: Grid) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The cell of each x, and there the k pieces of order k - 1 and the k + 1 of order k that are not 0: each like x."""
    k = grid.order
    # Clamped to the knots first: there all bases are 0 already, and a far x cannot overflow in the powers below.
    u = ((x - grid.low) / grid.step).clamp(-k, grid.intervals + k)
    # The last knot opens no interval.
    floor = u.detach().floor().clamp(max=grid.intervals + k - 1)
    t = u - floor
    minus = -t
    lower: list[Tensor] = []
    values = [torch.ones_like(t)]
    for p in range(1, k + 1):
        raised, carried = [], None
        for r, value in enumerate(values):
            share = value / p if p > 1 else value
            term = (minus + (r + 1)) * share
            raised.append(term if carried is None else carried + term)
            carried = (t + (p - 1 - r)) * share
        assert carried is not None
        lower, values = values, [*raised, carried]
    # Clamped as an integer too: NaN must not become an index.
    return floor.long().clamp(min=-k), lower, values


def _put_into_place(cell: Tensor, values: Tensor, grid: Grid) -> Tensor:
    # k columns on each side take the bases that do not exist.
    wide = values.new_zeros(*cell.shape, grid.bases + 2 * grid.order)
    return wide.scatter(-1, _columns(cell, grid), values).narrow(-1, grid.order, grid.bases)


def _columns(cell: Tensor, grid: Grid) -> Tensor:
    return (cell + grid.order).unsqueeze(-1) + torch.arange(grid.order + 1, device=cell.device)


def bases_by_recursion(x: Tensor, knots: Tensor, order: int) -> Tensor:
    """All bases by Cox-de Boor, for any knots: (*x.shape, T - order - 1).

    knots: (T,), increasing, or (x.shape[-1], T), a row for each entry of x's last axis. A basis over an empty interval is 0.
    """
    x = x.unsqueeze(-1)
    found = ((x >= knots[..., :-1]) & (x < knots[..., 1:])).to(x.dtype)
    for p in range(1, order + 1):
        left, right = knots[..., : -p - 1], knots[..., p + 1 :]
        rising = _over(x - left, knots[..., p:-1] - left) * found[..., :-1]
        falling = _over(right - x, right - knots[..., 1:-p]) * found[..., 1:]
        found = rising + falling
    return found


def _over(a: Tensor, b: Tensor) -> Tensor:
    """a / b, and 0 where b = 0: the convention of Cox-de Boor for repeated knots."""
    empty = b == 0
    return torch.where(empty, 0.0, a / torch.where(empty, 1.0, b))


# Fits -------------------------------------------------------------------------------------------------------------------


def fit_coefficients(x: Tensor, y: Tensor, knots: Tensor, order: int, weights: Tensor | None = None) -> Tensor:
    """The splines nearest to points, by least squares: (outputs, features, bases), of y's dtype and device.

    x: (points, features).   y: (points, features, outputs), the value of each edge's curve at x.   knots: (T,) or
    (features, T).   weights: (points, features), of the squared errors. With fewer points than bases, of the splines through
    all points that with the smallest coefficients.
    """
    # Unlike lstsq on CUDA and unlike the normal equations, gelsd answers where the points do not determine the spline.
    x64, y64, knots64 = x.detach().cpu().double(), y.detach().cpu().double(), knots.detach().cpu().double()
    a, b = bases_by_recursion(x64, knots64, order).transpose(0, 1), y64.transpose(0, 1)
    if weights is not None:
        root = weights.detach().cpu().double().sqrt().transpose(0, 1).unsqueeze(-1)
        a, b = a * root, b * root
    solved = torch.linalg.lstsq(a, b, driver="gelsd").solution  # (features, bases, outputs)
    return solved.permute(2, 0, 1).to(y.device, y.dtype).contiguous()


def move_to_knots(coefficients: Tensor, old: Tensor, new: Tensor, order: int) -> Tensor:
    """The same curves on other knots: of the splines on `new` those nearest in the mean square over new's range.

    coefficients: (outputs, features, bases).   old, new: (T,) or (features, T); the numbers of knots may differ. Where new
    contains old's knots the curves do not change inside new's range; else the change is the least that new allows.
    """
    features = coefficients.shape[1]
    old64, new64 = (k.detach().cpu().double().expand(features, -1) for k in (old, new))
    low, high = new64[:, order, None], new64[:, -order - 1, None]
    # Between two neighbours of both sets of knots, old and new curves are polynomials of degree k: k + 1 points of Gauss
    # integrate the square of their difference exactly, so that this is the projection itself and not one on samples.
    edges = torch.cat([old64, new64], dim=1).clamp(low, high).sort(dim=1).values
    nodes, masses = (torch.from_numpy(a) for a in np.polynomial.legendre.leggauss(order + 1))
    middle, half = (edges[:, 1:] + edges[:, :-1]) / 2, (edges[:, 1:] - edges[:, :-1]) / 2
    x = (middle[..., None] + half[..., None] * nodes).flatten(1).T.contiguous()
    weights = (half[..., None] * masses).flatten(1).T
    y = torch.einsum("pfb,ofb->pfo", bases_by_recursion(x, old64, order), coefficients.detach().cpu().double())
    return fit_coefficients(x, y, new64, order, weights).to(coefficients.device, coefficients.dtype)


def knots_for(x: Tensor, intervals: int, order: int, uniform: float = 0.02, margin: float = 0.01) -> Tensor:
    """Knots for the inputs that a layer sees: (features, intervals + 2 order + 1).

    x: (items, features). A blend of the quantiles of x with equal intervals between its extremes, widened by `margin` on each
    side; `uniform` in [0, 1] is the share of the latter. Beyond, `order` knots at the distance of the equal intervals.
    Raises ValueError for fewer than two items. Source: the update of efficient-kan (Blealtan, MIT), written anew.
    """
    if len(x) < 2:
        raise ValueError(f"knots_for: {len(x)} items; give at least 2, which span a range")
    x64 = x.detach().double()
    shares = torch.linspace(0, 1, intervals + 1, dtype=torch.float64, device=x.device)
    quantiles = torch.quantile(x64, shares, dim=0).T
    low, high = quantiles[:, :1] - margin, quantiles[:, -1:] + margin
    step = (high - low) / intervals
    numbers = torch.arange(intervals + 1, dtype=torch.float64, device=x.device)
    inner = uniform * (low + step * numbers) + (1 - uniform) * quantiles
    # The blend alone would leave out a part of the margin, and with it the largest input of a half-open grid.
    inner[:, :1], inner[:, -1:] = low, high
    beyond = step * torch.arange(1, order + 1, dtype=torch.float64, device=x.device)
    return torch.cat([inner[:, :1] - beyond.flip(1), inner, inner[:, -1:] + beyond], dim=1).to(x.dtype)
