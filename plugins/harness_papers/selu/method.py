"""SELU, alpha dropout, and the map that carries mean and variance from layer to layer. arXiv:1706.02515.

In: activations as tensors, moments as floats. Out: the same. The theory part is float64 NumPy and imports SciPy when it is
called. Nothing here trains a net; the LeCun initialisation is asked for in the declaration.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import Series
from harness.lab import Unsupported, layer_moments

# The one solution of "the moment map leaves mean 0, variance 1 where they are, for omega = 0, tau = 1".
ALPHA = 1.6732632423543772848170429916717
LAMBDA = 1.0507009873554804934193349852946
SATURATION = -LAMBDA * ALPHA  # selu(-inf); the value of a dropped unit


# The layer --------------------------------------------------------------------------------------------------------------


def selu(x: Tensor) -> Tensor:
    """lambda x for x > 0, lambda alpha (exp(x) - 1) else; elementwise, any float dtype.

    This is torch's own operation: it has the paper's constants (a test compares them with the formula) and is fused, in the
    backward pass too.
    """
    return F.selu(x)


class AlphaDropoutConstants(NamedTuple):
    """The affine map a x + b that restores mean 0 and variance 1 after units were set to the saturation value."""

    a: float
    b: float


def alpha_dropout_constants(keep: float) -> AlphaDropoutConstants:
    """a = (q + alpha'^2 q (1 - q))^(-1/2) and b = -a (1 - q) alpha', for q = keep in (0, 1], alpha' = -lambda alpha."""
    a = (keep + SATURATION**2 * keep * (1 - keep)) ** -0.5
    return AlphaDropoutConstants(a, -a * (1 - keep) * SATURATION)


def alpha_dropout(x: Tensor, drop: float, generator: torch.Generator | None = None) -> Tensor:
    """Set units to -lambda alpha with probability drop in [0, 1), then map affinely: mean 0 and variance 1 stay.

    For activations after SELU. generator: on x's device; without one the mask comes from torch's global generator, which the
    reference learner seeds for each trial. Unlike inverted dropout there is no factor 1 / (1 - drop).
    """
    a, b = alpha_dropout_constants(1 - drop)
    # A boolean mask: uniform numbers in bfloat16 have 8 bits, too few for a probability of 0.95.
    kept = torch.empty(x.shape, dtype=torch.bool, device=x.device).bernoulli_(1 - drop, generator=generator)
    return torch.where(kept, a * x + b, a * SATURATION + b)


class AlphaDropout(nn.Module):
    """`alpha_dropout` in training, the identity in evaluation. Raises ValueError unless 0 <= drop < 1."""

    def __init__(self, drop: float) -> None:
        super().__init__()
        if not 0 <= drop < 1:
            raise ValueError(f"AlphaDropout: drop={drop!r}; give a probability in [0, 1), typically 0.05 to 0.1")
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        return alpha_dropout(x, self.drop) if self.training and self.drop else x

    def extra_repr(self) -> str:
        return f"drop={self.drop}"


class SELU(nn.Module):
    """`selu` as a layer, without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return selu(x)


def build(place: Any, params: Any) -> nn.Module:
    """The components `selu` and `selu-he`: SELU, then alpha dropout where params.dropout > 0. Works at every place."""
    return nn.Sequential(SELU(), AlphaDropout(params.dropout)) if params.dropout else SELU()


def build_inverted(place: Any, params: Any) -> nn.Module:
    """The ablation `selu-inverted-dropout`: dropped units become 0 and the others grow by 1 / (1 - dropout)."""
    return nn.Sequential(SELU(), nn.Dropout(params.dropout))


def measure_moments(held_part: Any, solution: Any, ctx: Any) -> dict[str, float | Series]:
    """The probe `layer-moments`: mean and variance behind each hidden layer of a trained reference net, on held_part["x"].

    layer_mean and layer_variance over the layers 1, 2, ..., and those of the last one. Raises Unsupported for a solution
    that is no reference net.
    """
    net = getattr(solution, "module", None)
    if not isinstance(net, nn.Module):
        raise Unsupported("probe layer-moments: the solution has no `module`; it is for components in a reference net")
    first = next(net.parameters())
    found = layer_moments(net, held_part["x"].to(first.device, first.dtype))
    layers = tuple(float(i + 1) for i in range(len(found)))
    return {
        "layer_mean": Series("layer", layers, tuple(m.mean for m in found)),
        "layer_variance": Series("layer", layers, tuple(m.var for m in found)),
        "last_layer_mean": found[-1].mean,
        "last_layer_variance": found[-1].var,
    }


# The moment map ---------------------------------------------------------------------------------------------------------


class Moments(NamedTuple):
    """Mean and variance of the activations of one layer."""

    mean: float
    variance: float


def moment_map(mean: float, variance: float, omega: float = 0.0, tau: float = 1.0) -> Moments:
    """Mean and variance after one more layer: those of selu(z) for z ~ N(mean omega, variance tau).

    omega: sum of a unit's weights, tau: sum of their squares; LeCun's initialisation has omega = 0, tau = 1 on average.
    Raises ValueError unless variance tau > 0. Finite for all moments whose squares are.
    """
    m, s2 = _field(mean, variance, omega, tau)
    g = _gaussian_parts(m, s2)
    first = LAMBDA * (g.positive + ALPHA * (g.exp1 - g.below))
    second = LAMBDA**2 * (g.positive2 + ALPHA**2 * (g.exp2 - 2 * g.exp1 + g.below))
    return Moments(first, second - first**2)


def moment_jacobian(mean: float, variance: float, omega: float = 0.0, tau: float = 1.0) -> np.ndarray:
    """d(mean~, variance~) / d(mean, variance) of `moment_map`, (2, 2) float64, in closed form.

    By Stein: dE[h(z)]/dm = E[h'(z)] and dE[h(z)]/ds2 = E[h''(z)] / 2, where selu'' has a jump lambda (1 - alpha) at 0.
    """
    m, s2 = _field(mean, variance, omega, tau)
    g = _gaussian_parts(m, s2)
    first = LAMBDA * (g.positive + ALPHA * (g.exp1 - g.below))
    first_m = LAMBDA * (1 - g.below + ALPHA * g.exp1)
    first_s2 = LAMBDA / 2 * (ALPHA * g.exp1 + (1 - ALPHA) * g.density)
    second_m = 2 * LAMBDA**2 * (g.positive + ALPHA**2 * (g.exp2 - g.exp1))
    second_s2 = LAMBDA**2 * (1 - g.below + ALPHA**2 * (2 * g.exp2 - g.exp1))
    by_field = np.array([[first_m, first_s2], [second_m - 2 * first * first_m, second_s2 - 2 * first * first_s2]])
    return by_field * np.array([omega, tau])  # m = mean omega, s2 = variance tau


def fixed_point(omega: float = 0.0, tau: float = 1.0, tolerance: float = 1e-13, at_most: int = 10_000) -> Moments:
    """Where iterating `moment_map` from (0, 1) comes to rest. Raises ArithmeticError if it does not within at_most steps."""
    here = Moments(0.0, 1.0)
    for _ in range(at_most):
        there = moment_map(*here, omega, tau)
        if max(abs(there.mean - here.mean), abs(there.variance - here.variance)) <= tolerance:
            return there
        here = there
    raise ArithmeticError(f"fixed_point: omega={omega}, tau={tau}: still moving after {at_most} layers, last at {here}")


class _Parts(NamedTuple):
    """For z ~ N(m, s2): P(z < 0), its density at 0, E[z+], E[z+^2], E[e^z; z < 0], E[e^2z; z < 0]."""

    below: float
    density: float
    positive: float
    positive2: float
    exp1: float
    exp2: float


def _field(mean: float, variance: float, omega: float, tau: float) -> tuple[float, float]:
    if not variance * tau > 0:
        raise ValueError(f"moment map: variance={variance!r} times tau={tau!r} must be positive")
    return mean * omega, variance * tau


def _gaussian_parts(m: float, s2: float) -> _Parts:
    from scipy.special import ndtr  # late: keeps SciPy out of training

    s = math.sqrt(s2)
    below = float(ndtr(-m / s))
    density = math.exp(-(m**2) / (2 * s2)) / (s * math.sqrt(2 * math.pi))
    above = float(ndtr(m / s))  # not 1 - below, which loses all digits for m far below 0
    return _Parts(
        below=below,
        density=density,
        positive=m * above + s2 * density,
        positive2=(m**2 + s2) * above + m * s2 * density,
        exp1=_tilted(m, s2, 1),
        exp2=_tilted(m, s2, 2),
    )


def _tilted(m: float, s2: float, k: int) -> float:
    """E[e^{kz}; z < 0] = e^{km + k^2 s2 / 2} erfc(u) / 2 with u = (m + k s2) / sqrt(2 s2), without overflow."""
    from scipy.special import erfc, erfcx

    u = (m + k * s2) / math.sqrt(2 * s2)
    if u > 0:
        # The exponent km + k^2 s2 / 2 - u^2 is -m^2 / (2 s2): what would overflow and underflow cancels.
        return 0.5 * math.exp(-(m**2) / (2 * s2)) * float(erfcx(u))
    return 0.5 * math.exp(k * m + k * k * s2 / 2) * float(erfc(u))  # u <= 0 makes this exponent at most -k^2 s2 / 2
