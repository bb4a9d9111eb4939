"""The AF-KAN layer and the layer that it is held against, which lacks its features. arXiv:2503.06112.

In: activations (N, D). Out: (N, O). What the paper calls func_norm and attention are `feature_range` and the reductions here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.lab import make_norm

Elementwise = Callable[[Tensor], Tensor]


def squared(p: Tensor) -> Tensor:
    return p * p  # the gradient of torch's own square is a power, which is slower


ACTIVATIONS: Mapping[str, Elementwise] = {
    "silu": F.silu,
    "relu": F.relu,
    "gelu": F.gelu,
    "selu": F.selu,
    "elu": F.elu,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "leaky_relu": F.leaky_relu,
}

COMBINATIONS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "quad1": lambda u, v: squared(u * v),
    "quad2": lambda u, v: u * v + u * u + v * v,
    "sum": torch.add,
    "prod": torch.mul,
    "sum_prod": lambda u, v: u + v + u * v,
    "cubic1": lambda u, v: (u + v) * (u * u + v * v),
    "cubic2": lambda u, v: (u * v) ** 3,
}


# The features -----------------------------------------------------------------------------------------------------------


class Phases(NamedTuple):
    """Where the functions of a layer rise (low) and fall (high), (M,) each."""

    low: Tensor
    high: Tensor


def make_phases(grid: int, order: int, dtype: torch.dtype | None = None) -> Phases:
    """low_j = (j - k) / g, high_j = low_j + (k + 1) / g for j = 0 .. M - 1, M = g + k: g = grid, k = order.

    All together they are symmetric about 1/2: M functions whose supports overlap, from -k / g to (g + k) / g.
    """
    low = torch.arange(-order, grid, dtype=dtype or torch.get_default_dtype()) / grid
    return Phases(low, low + (order + 1) / grid)


def make_features(x: Tensor, phases: Phases, act: Elementwise, func: str) -> Tensor:
    """(N, D) -> (M, N, D): func of u = act(x - low) and v = act(high - x).

    M stands first: sums over M, and over all that share a phase, then run along memory.
    """
    low, high = phases.low[:, None, None], phases.high[:, None, None]
    return COMBINATIONS[func](act(x - low), act(high - x))


class Range(NamedTuple):
    """Where features lie: f becomes (f - least) / span, in [0, 1]. Shapes that go with (M, N, D)."""

    least: Tensor
    span: Tensor


def feature_range(f: Tensor, over: str) -> Range | None:
    """The paper's func_norm, over the features of each "sample" or of the whole "batch"; None for "none".

    f: (M, N, D). The paper divides by the L2 norm of the whole first, which the scaling to [0, 1] then takes out again: it is
    left out. Features that are all equal become 0.
    """
    if over == "none":
        return None
    axes = (0, 2) if over == "sample" else (0, 1, 2)
    least, most = f.amin(axes, keepdim=True), f.amax(axes, keepdim=True)
    span = most - least
    # 1 rather than a tiny number: f - least is 0 then, and its gradient stays finite.
    return Range(least, torch.where(span > 0, span, 1.0))


# From M functions to one: a forward pass takes the features (M, N, D) and their range --------------------------------------


class Multistep(nn.Module):
    """(M, N, D) -> (N, D): a learned mean of the M functions, the same for all inputs. Uninitialised until `reset`."""

    def __init__(self, functions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(functions))
        self.bias = nn.Parameter(torch.empty(()))

    def forward(self, f: Tensor, within: Range | None) -> Tensor:
        return weighted_sums(self.weight[None], f, within)[0] + self.bias

    def reset(self, generator: torch.Generator) -> None:
        """As torch starts such layers: uniform in +-1 / sqrt(fan_in)."""
        bound = len(self.weight) ** -0.5
        fill(self.weight, bound, generator)
        fill(self.bias, bound, generator)


class GlobalAttention(nn.Module):
    """(M, N, D) -> (N, D): the sum of the M functions, weighed by a softmax over the D inputs of their learned mean."""

    def __init__(self, inputs: int, functions: int) -> None:
        super().__init__()
        self.mean = Multistep(functions)
        self.temperature = nn.Parameter(torch.tensor(math.sqrt(inputs)))

    def forward(self, f: Tensor, within: Range | None) -> Tensor:
        weights = torch.stack([self.mean.weight, torch.ones_like(self.mean.weight)])
        scores, total = weighted_sums(weights, f, within)  # both from one look at the features
        return self.weigh(scores + self.mean.bias) * total

    def weigh(self, scores: Tensor) -> Tensor:
        """(N, D) from (N, D): positive, of sum 1 over D."""
        return torch.softmax(scores / self.temperature.clamp(min=1.0), dim=-1)


class SpatialAttention(nn.Module):
    """(M, N, D) -> (N, D): a mean of the M functions, weighed by a softmax over M of each function convolved along D.

    Uninitialised until `reset`.
    """

    def __init__(self, inputs: int, functions: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(functions, 1, 3))
        self.bias = nn.Parameter(torch.empty(functions))
        self.temperature = nn.Parameter(torch.tensor(math.sqrt(inputs)))

    def forward(self, f: Tensor, within: Range | None) -> Tensor:
        # The convolution pads with 0, so the features are scaled first here.
        f = f if within is None else (f - within.least) / within.span
        return (self.weigh(f) * f).sum(0)

    def weigh(self, f: Tensor) -> Tensor:
        """(M, N, D), positive, of sum 1 over M."""
        scores = F.conv1d(f.transpose(0, 1), self.weight, self.bias, padding=1, groups=len(self.bias))
        return torch.softmax(scores / self.temperature.clamp(min=1.0), dim=1).transpose(0, 1)

    def reset(self, generator: torch.Generator) -> None:
        fill(self.weight, 3**-0.5, generator)
        fill(self.bias, 3**-0.5, generator)


REDUCTIONS: Mapping[str, Callable[[int, int], nn.Module]] = {
    "global_attn": GlobalAttention,
    "spatial_attn": SpatialAttention,
    "multistep": lambda inputs, functions: Multistep(functions),
}


def weighted_sums(weights: Tensor, f: Tensor, within: Range | None) -> Tensor:
    """sum_j w_kj f'_j for weights (K, M): (K, N, D), f' the features scaled by their range. f' itself is never stored."""
    sums = (weights @ f.flatten(1)).unflatten(1, f.shape[1:])
    return sums if within is None else (sums - weights.sum(1)[:, None, None] * within.least) / within.span


def fill(parameter: Tensor, bound: float, generator: torch.Generator) -> None:
    """Uniform in +-bound, drawn on the CPU in float32."""
    with torch.no_grad():
        parameter.copy_(torch.rand(parameter.shape, generator=generator, dtype=torch.float32).mul_(2).sub_(1).mul_(bound))


# The layers -------------------------------------------------------------------------------------------------------------


class NormLinear(nn.Module):
    """(N, D) -> (N, O): W act(norm(x)), without bias. It is what AF-KAN has behind its features, and the control without them.

    Uninitialised until `init_net`, or `reset`, which starts W as torch does.
    """

    def __init__(self, inputs: int, outputs: int, act: str, norm: str) -> None:
        super().__init__()
        self.act, self.inputs = ACTIVATIONS[act], inputs
        self.norm = {"layer": nn.LayerNorm, "batch": nn.BatchNorm1d, "none": lambda _: nn.Identity()}[norm](inputs)
        self.weight = nn.Parameter(torch.empty(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.act(self.norm(x)), self.weight)

    def reset(self, generator: torch.Generator) -> None:
        fill(self.weight, self.inputs**-0.5, generator)


class AFKAN(nn.Module):
    """(N, D) -> (N, O): W act(norm(r)), r the features of x reduced to one number an input.

    The phases and the reduction are trained too, and are shared by all inputs. params: as `LayerParams`.
    """

    def __init__(self, inputs: int, outputs: int, params: Any) -> None:
        super().__init__()
        self.act, self.func, self.over = ACTIVATIONS[params.act], params.func, params.func_norm
        phases = make_phases(params.grid, params.order)
        self.low, self.high = nn.Parameter(phases.low), nn.Parameter(phases.high)
        self.reduction = REDUCTIONS[params.reduction](inputs, len(phases.low))
        self.out = NormLinear(inputs, outputs, params.act, params.norm)

    def forward(self, x: Tensor) -> Tensor:
        f = make_features(x, Phases(self.low, self.high), self.act, self.func)
        return self.out(self.reduction(f, feature_range(f, self.over)))  # type: ignore[no-any-return]


def build(in_features: int, out_features: int, params: Any) -> nn.Module:
    """The component `afkan`, all its variants."""
    return AFKAN(in_features, out_features, params)


def build_control(in_features: int, out_features: int, params: Any) -> nn.Module:
    """The control `norm-silu-linear`: the same layer without the features."""
    return NormLinear(in_features, out_features, params.act, params.norm)


def build_layernorm_silu(place: Any, params: Any) -> nn.Module:
    """The control `layernorm-silu`: only the norm stands in front of an addition, only SiLU behind it."""
    if place.role == "join":
        return nn.SiLU()
    norm = make_norm("layer", place)
    return nn.Sequential(norm, nn.SiLU()) if place.activated else norm
