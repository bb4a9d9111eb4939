"""The leaky integrate-and-fire neuron over all time steps: currents (T, ...) in, spikes (T, ...) of 0 and 1 out.

u[t] = (1 - 1/tau) v[t-1] + I[t];  s[t] = 1 where u[t] >= theta;  v[t] = u[t] - theta s[t] (soft) or (1 - s[t]) u[t] (hard);
v[-1] = 0. The current is not divided by tau. In the backward pass ds/du is a surrogate's slope. Nothing here knows a layer.
Source: arXiv:2509.23253 v3 for the neuron; the surrogates are the field's usual ones.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor

from harness_papers.ei_snn.fused import Neuron, lif_fused, why_eager

Reset = Literal["soft", "hard"]
Surrogate = Literal["sigmoid", "arctan", "triangular", "straight-through"]
# The sharpness at which each slope is 1 at the threshold.
ALPHAS: dict[str, float] = {"sigmoid": 4.0, "arctan": 2.0, "triangular": 1.0, "straight-through": 1.0}


def lif(
    currents: Tensor,
    *,
    tau: float = 2.0,
    theta: float = 1.0,
    reset: Reset = "soft",
    detach: bool = True,
    surrogate: Surrogate = "sigmoid",
    alpha: float | None = None,
) -> Tensor:
    """Spikes, 0 or 1, of currents' shape (T, ...) and float dtype; each position of the other axes is a neuron of its own.

    tau: membrane time constant in steps, at least 1.   theta: threshold, above 0.   detach: whether the backward pass takes
    the reset's s[t] for a constant.   alpha: the surrogate's sharpness, see `slope`; that of ALPHAS unless given.
    currents may have stride 0 along time, where they are the same at each step (`expand`).
    Every layer gets its spikes here: from the fused code, or from `lif_loop` where `fused.why_eager` has a reason.
    Raises ValueError for a parameter out of range, or currents without a time axis.
    """
    if currents.ndim < 1 or not len(currents) or not currents.is_floating_point():
        raise ValueError(f"lif: currents {tuple(currents.shape)}, {currents.dtype}; give floats with the time steps first")
    neuron = neuron_of(tau, theta, reset, detach, surrogate, alpha)
    if why_eager(currents, neuron):
        return lif_loop(currents, tau, theta, reset, detach, surrogate, neuron.alpha)
    return lif_fused(currents, neuron)


@lru_cache(maxsize=256)
def neuron_of(tau: float, theta: float, reset: str, detach: bool, surrogate: str, alpha: float | None) -> Neuron:
    """The parameters of `lif`, checked; remembered, for a small layer takes no longer than the check. Raises ValueError."""
    alpha = ALPHAS.get(surrogate, math.nan) if alpha is None else alpha
    for name, value, options in (("reset", reset, get_args(Reset)), ("surrogate", surrogate, get_args(Surrogate))):
        if value not in options:
            raise ValueError(f"lif: {name}={value!r}; give one of {', '.join(options)}")
    for name, number, low in (("tau", tau, 1.0), ("theta", theta, 0.0), ("alpha", alpha, 0.0)):
        if not (math.isfinite(number) and number >= low and number > 0):
            raise ValueError(f"lif: {name}={number!r}; give a finite number {'of at least 1' if low else 'above 0'}")
    return Neuron(1 - 1 / tau, theta, alpha, reset == "hard", detach, surrogate)


def slope(x: Tensor, surrogate: Surrogate, alpha: float) -> Tensor:
    """The surrogate of ds/du at x = u - theta, elementwise.

    sigmoid: alpha sig(alpha x) (1 - sig(alpha x));  arctan: (alpha / 2) / (1 + (pi alpha x / 2)^2);
    triangular: alpha max(0, 1 - alpha |x|): each has area 1.  straight-through: alpha everywhere.
    """
    match surrogate:
        case "sigmoid":
            half = torch.sigmoid(alpha * x)
            return alpha * half * (1 - half)
        case "arctan":
            return (alpha / 2) / (1 + (math.pi / 2 * alpha * x).square())
        case "triangular":
            return alpha * (1 - alpha * x.abs()).clamp_(min=0)
        case "straight-through":
            return torch.full_like(x, alpha)


def lif_loop(
    currents: Tensor, tau: float, theta: float, reset: Reset, detach: bool, surrogate: Surrogate, alpha: float
) -> Tensor:
    """`lif` one time step after the other, in torch's own operations; the reference of every faster code."""
    return cast(Tensor, LIFLoop.apply(currents, 1 - 1 / tau, theta, reset == "hard", detach, surrogate, alpha))


class LIFLoop(torch.autograd.Function):
    """Keeps u for the backward pass, which walks back in time."""

    @staticmethod
    def forward(
        ctx: Any, currents: Tensor, leak: float, theta: float, hard: bool, detach: bool, surrogate: Surrogate, alpha: float
    ) -> Tensor:
        potentials, spikes = torch.empty_like(currents), torch.empty_like(currents)
        v = torch.zeros_like(currents[0])
        for current, u, s in zip(currents, potentials, spikes, strict=True):
            torch.add(current, v, alpha=leak, out=u)
            torch.ge(u, theta, out=s)
            v = u * (1 - s) if hard else torch.sub(u, s, alpha=theta)
        ctx.save_for_backward(potentials)
        ctx.leak, ctx.theta, ctx.hard, ctx.detach, ctx.surrogate, ctx.alpha = leak, theta, hard, detach, surrogate, alpha
        return spikes

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (potentials,) = ctx.saved_tensors
        found = torch.empty_like(potentials)
        later = torch.zeros_like(potentials[0])  # dL/dv[t]
        for t in range(len(potentials) - 1, -1, -1):
            u = potentials[t]
            steep = slope(u - ctx.theta, ctx.surrogate, ctx.alpha)
            torch.addcmul(later * kept(u, steep, ctx.theta, ctx.hard, ctx.detach), grad[t], steep, out=found[t])
            later = found[t] * ctx.leak
        return found, None, None, None, None, None, None


def kept(u: Tensor, steep: Tensor, theta: float, hard: bool, detach: bool) -> Tensor | float:
    """dv/du."""
    if hard:
        silent = (u < theta).to(u.dtype)
        return silent if detach else silent - u * steep
    return 1.0 if detach else 1 - theta * steep
