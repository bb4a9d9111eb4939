"""CRReLU, its even-bump ablation, and EAFO: the entropy argument from which the paper derives it. arXiv:2405.12954.

In: pre-activations (any shape, any float dtype) and one scalar eps a layer. Out: activations. The entropy part works on
NumPy functions of one variable, in float64 and in nats, and imports SciPy when it is called. No training happens here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.lab import Unsupported

HALF = (torch.float16, torch.bfloat16)
Curve = Callable[[np.ndarray], np.ndarray]


# The activation ---------------------------------------------------------------------------------------------------------


def crrelu(x: Tensor, eps: Tensor) -> Tensor:
    """max(0, x) + eps x exp(-x^2 / 2), elementwise, keeping only x for the backward pass.

    x: any shape, floating; eps: one element. Returns x's shape and dtype; dimensionless. float16 and bfloat16 are computed
    in float32. Derivatives: 1[x > 0] + eps (1 - x^2) exp(-x^2 / 2) with 1[0 > 0] = 0, and sum of x exp(-x^2 / 2).
    x = +-inf gives NaN, as the formula does.
    Source: arXiv:2405.12954.
    """
    return _BumpedReLU.apply(x, eps, False)


def crrelu_even(x: Tensor, eps: Tensor) -> Tensor:
    """The ablation: max(0, x) + eps |x| exp(-x^2 / 2). The correction is as large everywhere, but even instead of odd."""
    return _BumpedReLU.apply(x, eps, True)


class _BumpedReLU(torch.autograd.Function):
    """ReLU plus eps times a Gaussian bump. Autograd on the formula would keep five tensors of x's size; this keeps x."""

    @staticmethod
    def forward(x: Tensor, eps: Tensor, even: bool) -> Tensor:
        wide = _widen(x)
        bump = _envelope(wide).mul_(wide.abs() if even else wide)
        return torch.addcmul(wide.clamp_min(0), bump, eps.to(bump.dtype)).to(x.dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, bool], output: Tensor) -> None:
        x, eps, even = inputs
        ctx.save_for_backward(x, eps)
        ctx.even = even

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # type: ignore[override]
        # Nothing that autograd may want is overwritten: this pass is itself differentiated where a loss holds gradients.
        x, eps = ctx.saved_tensors
        wide, grad_wide = _widen(x), _widen(grad)
        arm = wide.abs() if ctx.even else wide
        envelope = _envelope(wide)
        bump = envelope * arm
        grad_x = grad_eps = None
        if ctx.needs_input_grad[0]:
            slope = torch.addcmul(envelope, arm, bump, value=-1)  # (1 - x^2) exp(-x^2 / 2) in one pass
            slope = slope * wide.sign() if ctx.even else slope
            grad_x = (grad_wide * torch.addcmul((wide > 0).to(wide.dtype), slope, eps.to(wide.dtype))).to(x.dtype)
        if ctx.needs_input_grad[1]:
            grad_eps = (grad_wide * bump).sum().to(eps.dtype).reshape(eps.shape)
        return grad_x, grad_eps, None


def _envelope(x: Tensor) -> Tensor:
    """exp(-x^2 / 2) in one new tensor."""
    return x.square().mul_(-0.5).exp_()


def _widen(x: Tensor) -> Tensor:
    """float32 for half precision: x^2 overflows float16 from |x| = 256, and bfloat16 would round exp to 3 digits."""
    return x.float() if x.dtype in HALF else x


class CRReLU(nn.Module):
    """The layer: one scalar eps, trained or frozen.

    A trained eps has no axis, so that rules which decay only tensors with two or more axes leave it alone. A frozen eps is
    a buffer: it is no parameter and is not counted as one.
    """

    eps: Tensor

    def __init__(self, eps: float = 0.01, learnable: bool = True, even: bool = False) -> None:
        super().__init__()
        self.even = even
        if learnable:
            self.eps = nn.Parameter(torch.tensor(float(eps)))
        else:
            self.register_buffer("eps", torch.tensor(float(eps)))

    def forward(self, x: Tensor) -> Tensor:
        return crrelu_even(x, self.eps) if self.even else crrelu(x, self.eps)

    def extra_repr(self) -> str:
        learnable = isinstance(self.eps, nn.Parameter)
        return f"eps={float(self.eps.detach()):.4g}, learnable={learnable}, even={self.even}"


def build(place: Any, params: Any) -> nn.Module:
    """The component `crrelu`: works at every place, since it is elementwise."""
    return CRReLU(params.eps, params.learnable)


def build_even(place: Any, params: Any) -> nn.Module:
    """The ablation `crrelu-even`."""
    return CRReLU(params.eps, params.learnable, even=True)


def measure_eps(held_part: Any, solution: Any, ctx: Any) -> dict[str, float]:
    """The probe `crrelu-eps`: largest and smallest eps over the layers of a trained net, in the order of its layers.

    If all return to 0 the correction is unused. Raises Unsupported for a solution without a CRReLU layer.
    """
    net = getattr(solution, "module", None)
    found = [float(m.eps.detach()) for m in net.modules() if isinstance(m, CRReLU)] if isinstance(net, nn.Module) else []
    if not found:
        raise Unsupported("probe crrelu-eps: the solution has no CRReLU layer; measure crrelu_eps_* with crrelu only")
    return {"crrelu_eps_max": max(found), "crrelu_eps_min": min(found), "crrelu_eps_max_abs": max(map(abs, found))}


# EAFO: entropy of the output of an activation --------------------------------------------------------------------------


def output_entropy(log_slope: Curve) -> float:
    """Differential entropy of f(X) in nats for X ~ N(0, 1) and a strictly increasing f, given x -> log f'(x).

    H(f(X)) = H(X) + E[log f'(X)]. Exact but for the quadrature over |x| <= 12, beyond which the Gaussian holds 4e-33.
    The logarithm is asked for, not the slope: the slopes of bounded activations underflow in the tails.
    """
    from scipy.integrate import quad  # late: SciPy's integrators cost more to import than this plugin

    gaussian = 0.5 * np.log(2 * np.pi * np.e)
    mean = quad(lambda x: _density(x) * log_slope(np.asarray(x)), -12.0, 12.0, points=[0.0], epsabs=1e-12, limit=200)[0]
    return float(gaussian + mean)


def entropy_of_inverse(y: Curve, dy: Curve, low: float, high: float) -> float:
    """The paper's functional G(y) = -int p(y) y' log(p(y) y') dt over the outputs t in (low, high), p standard normal.

    y: the inverse of the activation, dy: its derivative. Nats. For an increasing activation onto (low, high) this is the
    output entropy; for one branch of an activation (ReLU on t > 0) it is that branch's part.
    """
    from scipy.integrate import quad
    from scipy.special import entr  # -q log q, 0 at q = 0

    return float(quad(lambda t: entr(_density(y(t)) * dy(t)), low, high, epsabs=1e-12, epsrel=1e-11, limit=400)[0])


def entropy_correction(y: Curve, dy: Curve, d2y: Curve) -> Curve:
    """EAFO's correction of an inverse activation: eta(t) = -(p'(y) y' + p(y) y'' / y'), p standard normal.

    eta is the steepest descent of G: for a change h of the inverse, dG = -int eta h dt. eta = 0 everywhere exactly where
    p(y) y' is constant, that is for the input's distribution function: the worst activation with fixed boundary values.
    For ReLU on t > 0 (y = t) it is t p(t), the bump of CRReLU.
    """

    def eta(t: np.ndarray) -> np.ndarray:
        # p'(y) = -y p(y) takes one density instead of two.
        return _density(y(t)) * (y(t) * dy(t) - d2y(t) / dy(t))

    return eta


def _density(x: Any) -> Any:
    return np.exp(-0.5 * np.square(x)) / np.sqrt(2 * np.pi)
