"""What turns a layer's input into currents: plain weights, and the circuit of excitatory and inhibitory units.

In: x (N, d) or (N, C, H, W), N = time steps times items. Out: currents (N, n_E) or (N, n_E, H', W'). Nothing here knows time:
each row is by itself, in training too. Building a layer draws nothing; `reset` or `init_from` fills it.
Source: arXiv:2509.23253 v3, E-I layer, E-I Init (equations 53 and 54) and E-I Prop.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness_papers.ei_snn.normalised import normalised, why_eager

EPSILON = 1e-6  # in place of the adaptive stabilisation, in its ablation
Stabilise = Literal["adaptive", "epsilon"]


def project(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """x by a weight (out, d), or by one (out, C, k, k) as a convolution with `same` padding."""
    if weight.ndim == 2:
        return F.linear(x, weight)
    return F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)


def mix(x: Tensor, weight: Tensor) -> Tensor:
    """The units of x (N, n, ...) at each position by a weight (out, n)."""
    return project(x, weight if x.ndim == 2 else weight[..., None, None])


def by_unit(values: Tensor, like: Tensor) -> Tensor:
    """(n,) so that it multiplies the units of `like` (N, n, ...)."""
    return values.view(-1, *[1] * (like.ndim - 2))


class Moments(NamedTuple):
    """Of a layer's input. m: mean.   q: mean square.   v: the variance over the batch, unbiased, mean over the features."""

    m: float
    q: float
    v: float


def input_moments(x: Tensor, rows: int | None = None) -> Moments:
    """rows: how many rows the batch stands for, where equal ones were left out; all N unless given."""
    x = x.detach().flatten(1).double()
    rows = len(x) if rows is None else rows
    v = x.var(dim=0, correction=0).mean() * (rows / max(1, rows - 1))
    m, q, v = torch.stack([x.mean(), x.square().mean(), v]).tolist()
    return Moments(m, q, v)


# Plain weights ----------------------------------------------------------------------------------------------------------


class Weights(nn.Module):
    """A weight (out, *fan) and a bias (out,), where there is one: the layer of the nets without inhibition."""

    def __init__(self, fan: tuple[int, ...], out: int, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.stride, self.fan_in = stride, math.prod(fan)
        self.weight = nn.Parameter(torch.empty(out, *fan))
        self.bias = nn.Parameter(torch.empty(out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        currents = project(x, self.weight, self.stride)
        return currents if self.bias is None else currents + by_unit(self.bias, currents)

    @torch.no_grad()
    def reset(self, generator: torch.Generator, gain: float | None = None) -> None:
        """Torch's own default, U(-1, 1) / sqrt(d) for weight and bias; with a gain, N(0, gain^2 / d) and no bias."""
        bound = 1 / math.sqrt(self.fan_in)
        drawn = torch.empty(self.weight.shape)
        if gain is None:
            drawn.uniform_(-bound, bound, generator=generator)
        else:
            drawn.normal_(0, gain * bound, generator=generator)
        self.weight.copy_(drawn)
        if self.bias is not None:
            zero = torch.zeros(self.bias.shape)
            self.bias.copy_(zero if gain is not None else zero.uniform_(-bound, bound, generator=generator))

    @torch.no_grad()
    def scale_to_unit_variance(self, x: Tensor) -> None:
        """Divide the weight so that the currents on x have a variance of 1 over rows, units and positions.

        Raises ValueError where the inputs are all zero, so that no current varies.
        """
        v = project(x, self.weight, self.stride).double().var().item()
        if not v > 0:
            raise ValueError(f"unit variance: the inputs of a layer with fan-in {self.fan_in} are all zero")
        self.weight.div_(math.sqrt(v))


# Excitation and inhibition ----------------------------------------------------------------------------------------------


class Circuit(nn.Module):
    """n_E excitatory and n_I inhibitory units on one input x >= 0; all parameters but the bias stay >= 0.

    I_EE = W_EE x, I_IE = W_IE x, I_EI = W_EI I_IE, I_sh = W_EI (g_I I_IE);  I = g_E (I_EE - I_EI) / I_sh + b_E.
    An output layer gives I_EE - I_EI. W_EE and W_IE are one matrix, their products one product; likewise those of W_EI.
    """

    def __init__(
        self,
        fan: tuple[int, ...],
        out: int,
        stride: int = 1,
        *,
        ratio: int = 4,
        output: bool = False,
        stabilise: Stabilise = "adaptive",
        through: bool = True,
        scale_gradient: bool = True,
    ) -> None:
        """ratio: n_E / n_I.   stabilise, through, scale_gradient: see `stabilised` and `scaled_gradient`."""
        super().__init__()
        self.stride, self.fan_in, self.output = stride, math.prod(fan), output
        self.stabilise, self.through, self.scale_gradient = stabilise, through, scale_gradient
        self.excitatory, self.inhibitory = out, max(1, out // ratio)  # two classes have one inhibitory unit
        self.inputs = nn.Parameter(torch.empty(out + self.inhibitory, *fan))  # W_EE above W_IE
        self.inhibition = nn.Parameter(torch.empty(out, self.inhibitory))  # W_EI
        if not output:
            self.shunt = nn.Parameter(torch.empty(self.inhibitory))  # g_I
            self.gain = nn.Parameter(torch.empty(out))  # g_E
            self.bias = nn.Parameter(torch.empty(out))  # b_E

    def forward(self, x: Tensor) -> Tensor:
        excited, mixed = self.stacked(x)
        if self.output:
            return excited - mixed
        given = (excited, mixed, self.gain, self.bias)
        if self.stabilise != "adaptive" or why_eager(*given):
            return normalised_formula(*given, self.through, self.stabilise)
        return normalised(*given, self.through, normalised_formula)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """I_EE - I_EI, and I_sh before its zeros are filled; None of an output layer."""
        excited, mixed = self.stacked(x)
        if self.output:
            return excited - mixed, None
        subtracted, shunting = mixed.split(self.excitatory, dim=1)
        return excited - subtracted, shunting

    def stacked(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """I_EE, and I_EI above I_sh, one tensor (N, 2 n_E, ...); I_EI alone of an output layer."""
        excited, inhibited = project(x, self.inputs, self.stride).split([self.excitatory, self.inhibitory], dim=1)
        weight = scaled_gradient(self.inhibition, 1 / self.fan_in if self.scale_gradient else 1.0)
        return excited, mix(inhibited, weight if self.output else torch.cat([weight, weight * self.shunt]))

    @torch.no_grad()
    def init_from(
        self, x: Tensor, generator: torch.Generator, *, rows: int | None = None, kaiming: bool = False, shunt_one: bool = False
    ) -> None:
        """E-I Init from the batch x that the layer will see; see `input_moments` for rows.

        kaiming: the ablation, |N(0, 2 / fan-in)| for all weights and gains of 1.   shunt_one: the ablation, g_I = 1 alone.
        Raises ValueError for inputs that are constant over the batch: their variance is all the weights go by.
        """
        if not self.output:
            self.gain.fill_(1.0)
            self.bias.zero_()
            self.shunt.fill_(1.0)
        drawn = torch.empty(self.inputs.shape)
        if kaiming:
            self.inputs.copy_(drawn.normal_(0, math.sqrt(2 / self.fan_in), generator=generator).abs_())
            small = torch.empty(self.inhibition.shape)
            self.inhibition.copy_(small.normal_(0, math.sqrt(2 / self.inhibitory), generator=generator).abs_())
            return
        m, q, v = input_moments(x, rows)
        if not v > 0:
            raise ValueError(f"E-I Init: the inputs of a layer with fan-in {self.fan_in} are constant over the batch")
        scale = math.sqrt(v / (self.fan_in * (q + v)))
        self.inputs.copy_(drawn.exponential_(generator=generator) * scale)
        self.inhibition.fill_(1 / self.inhibitory)
        if not (self.output or shunt_one):
            self.shunt.fill_(math.sqrt(q + v) / (math.sqrt(self.fan_in) * m))

    def constrained(self) -> list[nn.Parameter]:
        """The parameters that must stay >= 0."""
        return [p for name, p in self.named_parameters() if name != "bias"]


def normalised_formula(
    excited: Tensor, mixed: Tensor, gain: Tensor, bias: Tensor, through: bool, how: Stabilise = "adaptive"
) -> Tensor:
    """`normalised.normalised` in torch's operations."""
    subtracted, shunting = mixed.chunk(2, dim=1)
    balanced = excited - subtracted
    return by_unit(gain, balanced) * balanced / stabilised(shunting, how, through) + by_unit(bias, balanced)


def stabilised(shunting: Tensor, how: Stabilise = "adaptive", through: bool = True) -> Tensor:
    """I_sh (N, n, ...) without zeros, so that it may divide.

    adaptive: a zero becomes the smallest value of its row that is none, 1 in a row of zeros. epsilon: EPSILON is added.
    through: the gradient of a filled value goes to the zero beneath it as if it were that; else it goes nowhere.
    """
    if how == "epsilon":
        return shunting + EPSILON
    return cast(Tensor, FillZeros.apply(shunting, through))


class FillZeros(torch.autograd.Function):
    """`stabilised`, adaptively. It never asks the device whether there are zeros."""

    @staticmethod
    def forward(ctx: Any, shunting: Tensor, through: bool) -> Tensor:
        zero = shunting == 0
        least = shunting.masked_fill(zero, math.inf).flatten(1).amin(dim=1)
        least = torch.where(least.isinf(), 1.0, least).view(-1, *[1] * (shunting.ndim - 1))
        if not through:
            ctx.save_for_backward(zero)
        return torch.where(zero, least, shunting)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return (grad.masked_fill(ctx.saved_tensors[0], 0.0) if ctx.saved_tensors else grad), None


def scaled_gradient(weight: Tensor, factor: float) -> Tensor:
    """weight as it is; its gradient is multiplied by factor."""
    return weight if factor == 1.0 else cast(Tensor, ScaledGradient.apply(weight, factor))


class ScaledGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None
