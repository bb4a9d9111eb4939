"""PolyReLU and PolyNorm, and what they are compared with: squared ReLU and the plain polynomial. arXiv:2411.03884.

In: pre-activations (any shape, any float dtype), one weight for each power and one bias, shared by all units of a layer.
Out: activations. Plain torch operations that autograd differentiates; fused code for the same formulas is in kernels.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness.lab import Unsupported

HALF = (torch.float16, torch.bfloat16)
EPS = 1e-6


# The activations --------------------------------------------------------------------------------------------------------


def polyrelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """weight[0] relu(x)^r + ... + weight[r - 1] relu(x) + bias, elementwise; the first weight is the highest power's.

    x: any shape, floating; weight: (r,); bias: one element. Returns x's shape and dtype; half precision is computed in float32.
    The slope at 0 takes ReLU's side, 0. Source: arXiv:2411.03884, type I with the order of weights of the authors' code.
    """
    return _combine(_powers(torch.relu(_widen(x)), len(weight)), weight, bias).to(x.dtype)


def polynorm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = EPS, dim: int = -1) -> Tensor:
    """weight[0] norm(x^r) + ... + weight[r - 1] norm(x) + bias with norm(u) = u / sqrt(mean of u^2 over `dim` + eps).

    x: (..., hidden), or features at `dim`; weight: (r,); bias: one element. Returns x's shape and dtype; half precision is
    computed in float32, since mean(x^6) leaves float16 from |x| = 6.4 on. eps is on the mean of each power's square: for x
    of RMS below about 0.05 it rules mean(x^6), and the cubic term fades instead of being normalised.
    Source: arXiv:2411.03884, type II with the order of weights and the eps of the authors' code.
    """
    normed = [u * torch.rsqrt(u.square().mean(dim, keepdim=True) + eps) for u in _powers(_widen(x), len(weight))]
    return _combine(normed, weight, bias).to(x.dtype)


def polynomial(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The ablation: the same polynomial of x itself, composed with nothing."""
    return _combine(_powers(_widen(x), len(weight)), weight, bias).to(x.dtype)


def squared_relu(x: Tensor) -> Tensor:
    """relu(x)^2, a baseline of the paper; half precision is computed in float32. Source: So et al. 2021, arXiv:2109.08668."""
    return torch.relu(_widen(x)).square().to(x.dtype)


def _powers(u: Tensor, order: int) -> list[Tensor]:
    """u^order, ..., u^2, u. By products: pow(u, k) is slower, and its slope at 0 a matter of cases."""
    powers = [u]
    for _ in range(order - 1):
        powers.append(powers[-1] * u)
    return powers[::-1]


def _combine(terms: Sequence[Tensor], weight: Tensor, bias: Tensor) -> Tensor:
    """sum of weight[i] terms[i], plus bias; in the terms' dtype."""
    wide = weight.to(terms[0].dtype)
    total = wide[0] * terms[0]
    for w, term in zip(wide[1:], terms[1:], strict=True):
        total = total + w * term
    return total + bias.to(total.dtype)


def _widen(x: Tensor) -> Tensor:
    """float32 for half precision: the cube overflows float16 above |x| = 40, and bfloat16 would round it to 3 digits."""
    return x.float() if x.dtype in HALF else x


# The layers -------------------------------------------------------------------------------------------------------------


class _Polynomial(nn.Module):
    """What the layers have in common: `order` weights of 1 / order and a bias of 0, trained or frozen.

    They have one axis, so that rules which decay only tensors with two or more axes leave them alone. Frozen ones are
    buffers: they are no parameters and are not counted.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, order: int = 3, learnable: bool = True) -> None:
        super().__init__()
        weight, bias = torch.full((order,), 1 / order), torch.zeros(1)
        if learnable:
            self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        else:
            self.register_buffer("weight", weight)
            self.register_buffer("bias", bias)

    def extra_repr(self) -> str:
        return f"order={len(self.weight)}, learnable={isinstance(self.weight, nn.Parameter)}"


class PolyReLU(_Polynomial):
    """The layer around `polyrelu`."""

    def forward(self, x: Tensor) -> Tensor:
        return polyrelu(x, self.weight, self.bias)


class PolyNorm(_Polynomial):
    """The layer around `polynorm`. dim: the axis of the features that are normalised together."""

    def __init__(self, order: int = 3, learnable: bool = True, eps: float = EPS, dim: int = -1) -> None:
        super().__init__(order, learnable)
        self.eps, self.dim = eps, dim

    def forward(self, x: Tensor) -> Tensor:
        return polynorm(x, self.weight, self.bias, self.eps, self.dim)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, eps={self.eps:g}, dim={self.dim}"


class Polynomial(_Polynomial):
    """The layer around `polynomial`, the ablation."""

    def forward(self, x: Tensor) -> Tensor:
        return polynomial(x, self.weight, self.bias)


class SquaredReLU(nn.Module):
    """The layer around `squared_relu`."""

    def forward(self, x: Tensor) -> Tensor:
        return squared_relu(x)


def build_polyrelu(place: Any, params: Any) -> nn.Module:
    """The component `polyrelu`: works at every place, since it is elementwise."""
    return PolyReLU(params.order, params.learnable)


def build_polynorm(place: Any, params: Any) -> nn.Module:
    """The component `polynorm`, over the features of one item, token or pixel.

    In a feature map (N, C, H, W) that is axis 1: the channels at a pixel are what a token's hidden vector is in the paper.
    """
    return PolyNorm(params.order, params.learnable, params.eps, dim=1 if place.dims == 2 else -1)


def build_polynomial(place: Any, params: Any) -> nn.Module:
    """The ablation `polynomial`: works at every place."""
    return Polynomial(params.order, params.learnable)


def build_squared_relu(place: Any, params: Any) -> nn.Module:
    """The baseline `squared-relu`: works at every place."""
    return SquaredReLU()


# Analysis ---------------------------------------------------------------------------------------------------------------


def effective_rank(matrix: Tensor) -> float:
    """exp(entropy of the singular values as shares of their sum): 1 for rank one, n for n equal ones; 0 for a zero matrix.

    Computed in float64. Source: Roy and Vetterli 2007, "The effective rank".
    """
    values = torch.linalg.svdvals(matrix.detach().double())
    total = float(values.sum())
    if total == 0:
        return 0.0
    shares = values / total
    return math.exp(float(torch.special.entr(shares).sum()))


def measure_ranks(held_part: Any, solution: Any, ctx: Any) -> dict[str, float]:
    """The probe `ffn-rank`: mean effective rank of the feed-forward weights over the blocks of a trained vit.

    Raises Unsupported for a solution whose net has no feed-forward blocks.
    """
    net = getattr(solution, "module", None)
    blocks = list(getattr(net, "blocks", ())) if isinstance(net, nn.Module) else []
    pairs = [(b.up.weight, b.down.weight) for b in blocks if hasattr(b, "up") and hasattr(b, "down")]
    if not pairs:
        raise Unsupported("probe ffn-rank: the solution has no feed-forward blocks; measure ffn_rank_* with net.arch vit")
    up, down = ([effective_rank(pair[side]) for pair in pairs] for side in (0, 1))
    return {"ffn_rank_up": sum(up) / len(up), "ffn_rank_down": sum(down) / len(down)}
