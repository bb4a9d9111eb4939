"""CRReLU against its formula, and EAFO's entropy against closed forms."""

from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from harness_papers.crrelu import CRReLUParams
from harness_papers.crrelu.method import (
    CRReLU,
    build,
    build_even,
    crrelu,
    crrelu_even,
    entropy_correction,
    entropy_of_inverse,
    measure_eps,
    output_entropy,
)
from scipy.integrate import quad
from scipy.special import logit, ndtri
from scipy.stats import norm
from torch import Tensor, nn

from harness.lab import Unsupported

PLACE = SimpleNamespace(features=4, dims=0, activated=True, role="hidden")
X = torch.tensor([-3, -1, -0.5, 0, 0.5, 1, 3], dtype=torch.float64)
BOTH = pytest.mark.parametrize("even", [False, True])


def number(eps: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(eps, dtype=dtype)


def formula(x: Tensor, eps: Tensor, even: bool = False) -> Tensor:
    """The paper's formula, term by term, left to autograd: the oracle."""
    return torch.relu(x) + eps * (x.abs() if even else x) * torch.exp(-x * x / 2)


def apply(x: Tensor, eps: Tensor, even: bool) -> Tensor:
    return crrelu_even(x, eps) if even else crrelu(x, eps)


# The activation ---------------------------------------------------------------------------------------------------------


def test_values_at_eps_one_hundredth_are_those_of_the_formula():
    """Golden values of the card, computed by hand from the formula."""
    golden = [-0.00033326990, -0.00606530660, -0.00441248451, 0, 0.50441248451, 1.00606530660, 3.00033326990]

    got = crrelu(X, number(0.01))

    torch.testing.assert_close(got, torch.tensor(golden, dtype=torch.float64), atol=1e-10, rtol=0)  # the card's 11 digits


def test_slopes_at_eps_one_hundredth_are_those_of_the_formula():
    """The slope at 0 takes ReLU's side 0, and the correction's slope vanishes exactly at +-1."""
    golden = [-0.00088871972, 0, 0.00661872677, 0.01, 1.00661872677, 1, 0.99911128028]
    x = X.clone().requires_grad_()

    crrelu(x, number(0.01)).sum().backward()

    torch.testing.assert_close(x.grad, torch.tensor(golden, dtype=torch.float64), atol=1e-10, rtol=0)  # the card's 11 digits
    assert x.grad[1] == 0
    assert x.grad[5] == 1


@BOTH
def test_value_and_gradients_are_those_that_autograd_finds_from_the_formula(even, rng):
    """The hand-written backward pass computes the formula's derivatives, not something close to them."""
    x = torch.randn(1000, generator=rng, dtype=torch.float64).mul_(3).requires_grad_()
    eps = number(-0.3).requires_grad_()
    weight = torch.randn(1000, generator=rng, dtype=torch.float64)

    expected_y = formula(x, eps, even)
    expected = torch.autograd.grad(expected_y, (x, eps), weight)
    got_y = apply(x, eps, even)
    got = torch.autograd.grad(got_y, (x, eps), weight)

    torch.testing.assert_close(got_y, expected_y, rtol=1e-14, atol=1e-15)  # float64; products in another order
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)  # a sum of 1000 terms


@BOTH
def test_gradients_and_their_gradients_pass_gradcheck(even, rng):
    """Away from the kink at 0, where finite differences say nothing; second order because a loss may hold gradients."""
    x = torch.randn(20, generator=rng, dtype=torch.float64)
    x = (x + 0.1 * x.sign()).requires_grad_()
    eps = number(0.7).requires_grad_()

    assert torch.autograd.gradcheck(lambda a, b: apply(a, b, even), (x, eps))
    assert torch.autograd.gradgradcheck(lambda a, b: apply(a, b, even), (x, eps))


@BOTH
def test_eps_zero_is_relu_to_the_bit(even, rng):
    """The correction is the only difference to the baseline."""
    x = torch.randn(500, generator=rng)

    assert torch.equal(apply(x, number(0.0, torch.float32), even), torch.relu(x))


@pytest.mark.parametrize("eps", [-1.0, 0.01, 1.0])
def test_the_correction_is_odd_and_leaves_zero_alone(eps, rng):
    """The even ablation has the same size everywhere and the other symmetry."""
    x = torch.randn(500, generator=rng, dtype=torch.float64)
    bump, mirrored = crrelu(x, number(eps)) - torch.relu(x), crrelu(-x, number(eps)) - torch.relu(-x)
    even, even_mirrored = crrelu_even(x, number(eps)) - torch.relu(x), crrelu_even(-x, number(eps)) - torch.relu(-x)

    # 1e-15: what is left of x > 0 after ReLU is subtracted again carries x's rounding
    torch.testing.assert_close(bump, -mirrored, atol=1e-15, rtol=0)
    torch.testing.assert_close(even, even_mirrored, atol=1e-15, rtol=0)
    torch.testing.assert_close(even.abs(), bump.abs(), atol=1e-15, rtol=0)
    assert crrelu(number(0.0), number(eps)) == 0


def test_far_from_zero_it_is_relu():
    """f(x) / x tends to 1 on the right, and f(x) to 0 from below on the left."""
    right, left = crrelu(number(40.0), number(1.0)), crrelu(number(-8.0), number(1.0))

    assert right == 40
    assert -1e-12 < left < 0


def test_the_correction_peaks_at_one_and_dips_below_zero():
    """With eps > 0 CRReLU is not monotone: its minimum is -exp(-1/2) eps, at x = -1."""
    x = torch.linspace(-6, 6, 1201, dtype=torch.float64)  # holds -1 up to rounding

    y = crrelu(x, number(0.5))

    assert math.isclose(float(x[y.argmin()]), -1, abs_tol=1e-9)
    assert math.isclose(float(y.min()), -0.5 * math.exp(-0.5), rel_tol=1e-12)  # flat there: rounding of x is squared


def test_the_gradient_of_eps_vanishes_over_a_symmetric_set():
    """The derivative by eps is odd in x."""
    eps = number(0.01).requires_grad_()

    crrelu(X, eps).sum().backward()

    assert abs(float(eps.grad)) < 1e-15


def test_covariance_with_a_gaussian_input_is_a_half_plus_a_multiple_of_eps():
    """E[X^2 exp(-X^2 / 2)] = 2^(-3/2), by quadrature."""
    eps = 0.4

    def integrand(x: float) -> float:
        return x * float(crrelu(number(x), number(eps))) * norm.pdf(x)

    covariance = quad(integrand, -12, 0)[0] + quad(integrand, 0, 12)[0]

    assert math.isclose(covariance, 0.5 + 2**-1.5 * eps, abs_tol=1e-9)  # the quadrature's own error is 1e-11


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@BOTH
def test_half_precision_is_computed_in_single_and_rounded_once(dtype, even, rng):
    """In half precision x^2 would overflow or lose its digits inside exp."""
    x = torch.randn(200, generator=rng).mul_(4).to(dtype).requires_grad_()
    wide = x.detach().float().requires_grad_()
    eps = torch.tensor(0.25, requires_grad=True)
    eps_half = torch.tensor(0.25, dtype=dtype, requires_grad=True)

    y, expected = apply(x, eps_half, even), apply(wide, eps, even)
    y.sum().backward()
    expected.sum().backward()

    assert y.dtype == x.grad.dtype == eps_half.grad.dtype == dtype
    assert torch.equal(y, expected.to(dtype))
    assert torch.equal(x.grad, wide.grad.to(dtype))
    assert torch.equal(eps_half.grad, eps.grad.to(dtype))
    assert crrelu(torch.tensor([60_000.0], dtype=torch.float16), eps_half).isfinite().all()


def test_only_x_is_kept_for_the_backward_pass(rng):
    """Autograd on the formula keeps five tensors of x's size; memory is the reason for the hand-written function."""
    kept: list[Tensor] = []
    x = torch.randn(1000, generator=rng, requires_grad=True)
    eps = torch.tensor(0.01, requires_grad=True)

    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        crrelu(x, eps)

    assert sum(t.numel() for t in kept) == 1001
    assert {t.data_ptr() for t in kept} == {x.data_ptr(), eps.data_ptr()}


def test_input_is_not_written_to(rng):
    """The forward pass works in place on temporaries only."""
    x = torch.randn(100, generator=rng)
    before = x.clone()

    crrelu(x, torch.tensor(0.5))

    assert torch.equal(x, before)


# The layer --------------------------------------------------------------------------------------------------------------


def test_the_layer_has_one_trained_number_without_axes():
    """One scalar a layer; without axes, so that weight decay on matrices leaves it alone."""
    layer = build(PLACE, CRReLUParams(eps=0.1))

    assert [(name, p.shape, p.item()) for name, p in layer.named_parameters()] == [("eps", (), pytest.approx(0.1))]


def test_a_frozen_eps_is_no_parameter_and_moves_with_the_module():
    """The ablation has as many parameters as ReLU, and its eps follows dtype and state_dict."""
    layer = build(PLACE, CRReLUParams(eps=0.5, learnable=False))

    assert list(layer.parameters()) == []
    assert layer.double().eps.dtype == torch.float64
    assert layer.state_dict()["eps"] == 0.5


@pytest.mark.parametrize(("make", "even"), [(build, False), (build_even, True)])
@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 4), (3, 4, 5, 5)])
def test_components_compute_the_formula_at_every_place(make, even, shape, rng):
    """Elementwise: no place is refused."""
    x = torch.randn(shape, generator=rng)
    layer = make(PLACE, CRReLUParams(eps=0.3))

    torch.testing.assert_close(layer(x), formula(x, torch.tensor(0.3), even), rtol=1e-6, atol=1e-7)  # float32 rounding


def test_the_layer_learns_its_eps():
    """A target made with eps = 0.8 is found again by gradient descent: the sign of eps' gradient is right."""
    layer = CRReLU(0.01).double()
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    target = formula(X, number(0.8))
    for _ in range(200):
        optimizer.zero_grad()
        (layer(X) - target).square().mean().backward()
        optimizer.step()

    assert math.isclose(layer.eps.item(), 0.8, abs_tol=1e-6)


def test_the_probe_reports_the_eps_of_every_layer_and_refuses_a_net_without():
    """If the learned eps return to 0 the correction is unused, so they are measured, not logged by the method."""
    net = nn.Sequential(CRReLU(0.2), nn.Linear(4, 4), CRReLU(-0.3), CRReLU(0.1, learnable=False))

    got = measure_eps(None, SimpleNamespace(module=net), None)

    assert got == pytest.approx({"crrelu_eps_max": 0.2, "crrelu_eps_min": -0.3, "crrelu_eps_max_abs": 0.3})
    with pytest.raises(Unsupported, match="no CRReLU layer"):
        measure_eps(None, SimpleNamespace(module=nn.ReLU()), None)
    with pytest.raises(Unsupported, match="no CRReLU layer"):
        measure_eps(None, SimpleNamespace(), None)


# Entropy: claim C3 ------------------------------------------------------------------------------------------------------


def log_logistic_slope(x: np.ndarray) -> np.ndarray:
    return -np.abs(x) - 2 * np.log1p(np.exp(-np.abs(x)))


ENTROPIES = {
    "normal distribution function": (norm.logpdf, 0.0),
    "logistic": (log_logistic_slope, -0.193180),
    "(1 + tanh) / 2": (lambda x: np.log(2) + log_logistic_slope(2 * x), -0.023343),  # = logistic(2 x)
    "identity": (np.zeros_like, 0.5 * math.log(2 * math.pi * math.e)),
    "2 x": (lambda x: np.full_like(x, math.log(2), dtype=float), 0.5 * math.log(2 * math.pi * math.e) + math.log(2)),
}


@pytest.mark.parametrize(("log_slope", "entropy"), ENTROPIES.values(), ids=ENTROPIES)
def test_output_entropy_of_known_activations(log_slope, entropy):
    """The card's values and two closed forms; 0 is the most that a map onto (0, 1) can have."""
    assert math.isclose(output_entropy(log_slope), entropy, abs_tol=1e-6)  # the card gives six digits


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.5, 1.6, 1.8, 3.0])
@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_no_logistic_beats_the_input_distribution(scale, shift):
    """C3: with the boundary values 0 and 1 fixed, the Gaussian distribution function has the largest output entropy.

    A logistic of slope 1.6 comes within 0.002 nats of it.
    """
    entropy = output_entropy(lambda x: math.log(scale) + log_logistic_slope(scale * x + shift))

    assert entropy < -1e-4


def test_both_ways_to_the_entropy_agree():
    """H(X) + E[log f'] and the paper's functional of the inverse are one number, here for the logistic."""
    got = entropy_of_inverse(logit, lambda t: 1 / (t * (1 - t)), 0, 1)

    assert math.isclose(got, output_entropy(log_logistic_slope), abs_tol=1e-8)  # two quadratures of 1e-10 each


def test_the_correction_vanishes_at_the_worst_activation():
    """C3 again: the input's distribution function is where the functional is stationary."""
    t = np.linspace(0.001, 0.999, 99)
    slope = lambda t: 1 / norm.pdf(ndtri(t))  # noqa: E731
    curvature = lambda t: ndtri(t) * slope(t) ** 2  # noqa: E731

    eta = entropy_correction(ndtri, slope, curvature)

    np.testing.assert_allclose(eta(t), 0, atol=1e-12)  # y - y, each up to 3


def test_the_correction_of_relu_is_the_bump_of_crrelu():
    """From y = t on t > 0 the derivation gives t p(t), proportional to the derivative of CRReLU by eps."""
    t = np.linspace(0, 5, 51)
    x, eps = torch.from_numpy(t), number(0.0).requires_grad_()
    bump = torch.stack([torch.autograd.grad(crrelu(point, eps), eps)[0] for point in x]).numpy()

    eta = entropy_correction(lambda t: t, np.ones_like, np.zeros_like)

    np.testing.assert_allclose(eta(t), bump / math.sqrt(2 * math.pi), rtol=1e-12)  # one more exp each


def test_the_first_variation_predicts_the_change_of_entropy():
    """dG = -int eta h dt, against a central difference of the functional, for the logistic and a bump h inside (0, 1)."""
    slope, curvature = (lambda t: 1 / (t * (1 - t))), (lambda t: (2 * t - 1) / (t * (1 - t)) ** 2)
    h, dh = (lambda t: (t * (1 - t)) ** 2 * t), (lambda t: 3 * t**2 * (1 - t) ** 2 - 2 * t**3 * (1 - t))
    step = 1e-3

    def entropy(s: float) -> float:
        return entropy_of_inverse(lambda t: logit(t) + s * h(t), lambda t: slope(t) + s * dh(t), 0, 1)

    eta = entropy_correction(logit, slope, curvature)
    predicted = -quad(lambda t: eta(t) * h(t), 0, 1)[0]
    measured = (entropy(step) - entropy(-step)) / (2 * step)

    assert abs(predicted) > 1e-4  # the case is not stationary, so agreement means something
    assert math.isclose(measured, predicted, abs_tol=1e-7)  # step^2 and 1e-10 / step


def test_following_the_correction_lowers_the_entropy_of_relu():
    """The point of EAFO: from ReLU's branch t > 0 a small step along eta loses int eta^2 nats a unit."""
    step = 1e-3
    eta = entropy_correction(lambda t: t, np.ones_like, np.zeros_like)
    deta = lambda t: (1 - t**2) * norm.pdf(t)  # noqa: E731

    def entropy(s: float) -> float:
        return entropy_of_inverse(lambda t: t + s * eta(t), lambda t: 1 + s * deta(t), 0, 12)

    slope = (entropy(step) - entropy(-step)) / (2 * step)

    assert entropy(step) < entropy(0)
    assert math.isclose(slope, -quad(lambda t: eta(t) ** 2, 0, 12)[0], abs_tol=1e-6)  # step^2


# The declarations -------------------------------------------------------------------------------------------------------


def test_importing_the_declarations_imports_no_torch():
    """`harness list` loads every paper; torch costs more than a second."""
    code = "import sys, harness_papers.crrelu; sys.exit(any(m in sys.modules for m in ('torch', 'scipy')))"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
