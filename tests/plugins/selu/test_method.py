"""SELU and alpha dropout against their formulas; the moment map against the card's values, quadrature and simulation."""

from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from harness_papers.selu import METHODS, DropoutParams, SELUParams
from harness_papers.selu.method import (
    ALPHA,
    LAMBDA,
    SATURATION,
    AlphaDropout,
    alpha_dropout,
    alpha_dropout_constants,
    build,
    build_inverted,
    fixed_point,
    measure_moments,
    moment_jacobian,
    moment_map,
    selu,
)
from pydantic import ValidationError
from scipy.integrate import quad
from scipy.special import erfc
from scipy.stats import norm
from torch import Tensor, nn

from harness.lab import NetSolution, Slot, Unsupported

PLACE = SimpleNamespace(features=4, dims=0, activated=True, role="hidden")


def formula(x: np.ndarray) -> np.ndarray:
    """The paper's formula in NumPy: the oracle."""
    return LAMBDA * np.where(x > 0, x, ALPHA * np.expm1(np.minimum(x, 0)))


# The activation ---------------------------------------------------------------------------------------------------------


def test_values_are_the_golden_ones():
    """The card's values; torch's operation is the paper's function."""
    golden = [-1.6705687288, -1.1113307378, -0.6917581878, 0, 0.5253504937, 1.0507009874, 3.1521029621]
    x = torch.tensor([-3, -1, -0.5, 0, 0.5, 1, 3], dtype=torch.float64)

    torch.testing.assert_close(selu(x), torch.tensor(golden, dtype=torch.float64), atol=1e-10, rtol=0)  # the card's digits


def test_values_and_slopes_follow_the_formula(rng):
    """The slope is lambda on the right, y + lambda alpha on the left: it needs the output only."""
    x = torch.randn(1000, generator=rng, dtype=torch.float64).mul_(3).requires_grad_()

    y = selu(x)
    y.sum().backward()
    slope = torch.where(y > 0, LAMBDA, y + LAMBDA * ALPHA)

    np.testing.assert_allclose(y.detach(), formula(x.detach().numpy()), rtol=1e-14, atol=1e-15)  # float64 rounding
    torch.testing.assert_close(x.grad, slope, rtol=1e-14, atol=1e-15)


def test_gradients_pass_gradcheck(rng):
    """Away from the kink at 0."""
    x = torch.randn(20, generator=rng, dtype=torch.float64)

    assert torch.autograd.gradcheck(selu, (x + 0.1 * x.sign()).requires_grad_())


def test_the_constants_solve_the_equations_that_define_them():
    """alpha makes the mean of selu(Z) 0, lambda its variance 1, both in closed form for a standard normal Z."""
    half, two = math.exp(0.5) * erfc(math.sqrt(0.5)), math.exp(2) * erfc(math.sqrt(2))
    alpha = math.sqrt(2 / math.pi) / (1 - half)
    scale = math.sqrt(2 / (1 + alpha**2 * (1 - 2 * half + two)))

    assert math.isclose(alpha, ALPHA, rel_tol=1e-14)  # 1 - half loses no digit that matters
    assert math.isclose(scale, LAMBDA, rel_tol=1e-14)


def test_saturation_is_the_limit_on_the_left():
    """A dropped unit gets the value of a unit that is switched off as far as it goes."""
    assert selu(torch.tensor(-60.0, dtype=torch.float64)).item() == SATURATION
    assert math.isclose(SATURATION, -1.7580993408473766, rel_tol=1e-15)


def test_moments_of_selu_of_a_standard_normal_are_zero_and_one(rng):
    """Monte Carlo with four million normals, as on the card."""
    y = selu(torch.randn(4_000_000, generator=rng, dtype=torch.float64))

    assert abs(y.mean().item()) < 2e-3  # four standard errors of 1 / 2000
    assert abs(y.var().item() - 1) < 2e-3  # the card's; three standard errors of 7e-4, of a fixed draw


# Alpha dropout ----------------------------------------------------------------------------------------------------------

CONSTANTS = {0.95: (0.9548444760, 0.0839355722), 0.9: (0.9212845161, 0.1619709701), 0.5: (0.8864048947, 0.7791939305)}


@pytest.mark.parametrize(("keep", "golden"), CONSTANTS.items())
def test_the_affine_constants_are_the_golden_ones(keep, golden):
    """The card's values."""
    assert alpha_dropout_constants(keep) == pytest.approx(golden, abs=1e-10)  # the card's digits


@pytest.mark.parametrize("keep", [1.0, 0.95, 0.9, 0.5, 0.1])
def test_alpha_dropout_keeps_mean_zero_and_variance_one_exactly(keep):
    """E[y] = a alpha' (1 - q) + b and Var[y] = a^2 (q + alpha'^2 q (1 - q)) for an input of mean 0 and variance 1."""
    a, b = alpha_dropout_constants(keep)
    mean = a * SATURATION * (1 - keep) + b
    variance = a**2 * (keep + SATURATION**2 * keep * (1 - keep))

    assert math.isclose(mean, 0, abs_tol=1e-15)
    assert math.isclose(variance, 1, rel_tol=1e-14)


@pytest.mark.parametrize("drop", [0.05, 0.1, 0.5])
def test_moments_stay_after_selu_and_agree_with_torch(drop, rng):
    """A simulation, beside torch's own alpha dropout; inverted dropout loses the variance."""
    x = selu(torch.randn(1_000_000, generator=rng, dtype=torch.float64))

    ours = alpha_dropout(x, drop, rng)
    torch.manual_seed(7)
    theirs = nn.AlphaDropout(drop)(x)
    inverted = nn.functional.dropout(x, drop)

    for y in (ours, theirs):
        assert abs(y.mean().item()) < 5e-3  # five standard errors of 1 / 1000
        assert abs(y.var().item() - 1) < 1e-2  # the fourth moment is below 5: seven standard errors
    assert inverted.var().item() > 1 + 0.9 * drop / (1 - drop)


def test_each_unit_is_either_mapped_or_set_to_the_saturation(rng):
    """y = a x + b where kept, a alpha' + b where dropped; the share of dropped units is the rate."""
    x = torch.randn(100_000, generator=rng, dtype=torch.float64)
    a, b = alpha_dropout_constants(0.8)

    y = alpha_dropout(x, 0.2, rng)
    dropped = y == a * SATURATION + b

    torch.testing.assert_close(y[~dropped], a * x[~dropped] + b, rtol=1e-14, atol=1e-15)
    assert abs(dropped.double().mean().item() - 0.2) < 0.0063  # five standard errors of sqrt(0.16 / 1e5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_rate_is_kept_in_half_precision(dtype, rng):
    """A mask from bfloat16 uniforms would have a resolution of 1/256."""
    x = torch.ones(1_000_000, dtype=dtype)

    y = alpha_dropout(x, 0.05, rng)

    assert y.dtype == dtype
    assert abs((y < 0).double().mean().item() - 0.05) < 0.0011  # five standard errors


def test_the_gradient_passes_through_kept_units_only(rng):
    """dy/dx is a where kept, 0 where dropped."""
    x = torch.zeros(1000, dtype=torch.float64, requires_grad=True)

    y = alpha_dropout(x, 0.3, rng)
    y.sum().backward()
    a, b = alpha_dropout_constants(0.7)

    assert 600 < (y == b).sum() < 800
    assert torch.equal(x.grad, (y == b) * torch.tensor(a, dtype=torch.float64))


def test_evaluation_and_rate_zero_change_nothing(rng):
    """Alpha dropout is for training."""
    x = torch.randn(100, generator=rng)

    assert AlphaDropout(0.5).eval()(x) is x
    assert AlphaDropout(0.0)(x) is x


def test_the_mask_comes_from_the_global_generator_that_the_learner_seeds(rng):
    """Same seed, same mask: a trial repeats to the bit."""
    x, layer = torch.randn(1000, generator=rng), AlphaDropout(0.5)
    torch.manual_seed(1)
    first = layer(x)
    torch.manual_seed(1)

    assert torch.equal(layer(x), first)
    assert not torch.equal(layer(x), first)


@pytest.mark.parametrize("drop", [-0.1, 1.0, float("nan")])
def test_a_rate_that_is_no_probability_below_one_is_refused(drop):
    """At rate 1 nothing is left of the input, and a is infinite."""
    with pytest.raises(ValueError, match=r"give a probability in \[0, 1\)"):
        AlphaDropout(drop)
    with pytest.raises(ValidationError):
        SELUParams(dropout=drop)


# The moment map ---------------------------------------------------------------------------------------------------------


def test_mean_zero_variance_one_is_a_fixed_point():
    """Theorem 1's fixed point, for omega = 0 and tau = 1."""
    assert moment_map(0, 1) == pytest.approx((0, 1), abs=1e-12)


ITERATES = {
    1: (0.0896120838, 1.7144780717),
    2: (0.0642475840, 1.5214236523),
    5: (0.0260644824, 1.2200654615),
    10: (0.0068588443, 1.0596449512),
    20: (0.0005672587, 1.0049919408),
}


@pytest.mark.parametrize(("layers", "golden"), ITERATES.items())
def test_iterates_from_a_half_and_two_are_the_golden_ones(layers, golden):
    """The card's values: mean 0.5 and variance 2 are drawn back to (0, 1)."""
    here = (0.5, 2.0)
    for _ in range(layers):
        here = moment_map(*here)

    assert here == pytest.approx(golden, abs=1e-9)  # the card's digits


FIXED = {
    (0.1, 0.95): (-0.0208703086, 0.8264737506),
    (0.1, 1.1): (0.0547059806, 1.4102898293),
    (-0.1, 1.1): (0.0435857234, 1.3905796027),
}


@pytest.mark.parametrize(("weights", "golden"), FIXED.items())
def test_fixed_points_for_other_weights_are_the_golden_ones(weights, golden):
    """The card's values, each inside the box of theorem 1."""
    got = fixed_point(*weights)

    assert got == pytest.approx(golden, abs=1e-8)
    assert -0.1 <= got.mean <= 0.1
    assert 0.8 <= got.variance <= 1.5


def test_the_jacobian_at_the_fixed_point_is_the_golden_one():
    """Its largest singular value is below 1: the fixed point attracts."""
    got = moment_jacobian(0, 1)

    np.testing.assert_allclose(got, [[0, 0.0888347551], [0, 0.7826478833]], atol=1e-10)  # the card's digits
    assert np.linalg.norm(got, 2) == pytest.approx(0.7877, abs=1e-4)  # the paper's own number


FIELDS = [(0.0, 1.0, 0.0, 1.0), (0.5, 2.0, 0.3, 0.8), (-2.0, 0.3, 1.0, 1.0), (3.0, 5.0, -1.0, 2.0), (1.0, 40.0, 1.0, 1.0)]


@pytest.mark.parametrize("at", FIELDS)
def test_the_map_is_the_mean_and_variance_of_selu_of_a_normal(at):
    """Against quadrature of the definition; the closed form is only a way to compute it."""
    m, s = at[0] * at[2], math.sqrt(at[1] * at[3])

    def moment(power: int) -> float:
        sides = ((m - 14 * s, 0), (0, m + 14 * s))  # the kink at 0 is a border
        return sum(quad(lambda z: formula(z) ** power * norm.pdf(z, m, s), *side, limit=200, epsabs=1e-13)[0] for side in sides)

    assert moment_map(*at) == pytest.approx((moment(1), moment(2) - moment(1) ** 2), rel=1e-9, abs=1e-10)  # the quadrature's


@pytest.mark.parametrize("at", FIELDS)
def test_the_jacobian_is_the_derivative_of_the_map(at):
    """Against central differences."""
    mean, variance, *weights = at
    step = 1e-5

    columns = [
        np.subtract(moment_map(mean + step, variance, *weights), moment_map(mean - step, variance, *weights)),
        np.subtract(moment_map(mean, variance + step, *weights), moment_map(mean, variance - step, *weights)),
    ]

    np.testing.assert_allclose(moment_jacobian(*at), np.stack(columns, 1) / (2 * step), atol=1e-8)  # step^2, rounding / step


@pytest.mark.parametrize("variance", [1e-12, 1e4, 1e8])
def test_the_map_stays_finite_where_the_plain_formula_overflows(variance):
    """exp(s2 / 2) is infinite from s2 = 1420 on and erfc is 0 there: together they are NaN."""
    mean, spread = moment_map(0, variance)

    assert math.isfinite(mean)
    assert 0 < spread < variance * LAMBDA**2 * (1 + ALPHA**2)
    if variance > 1:  # a wide normal sees lambda max(0, z) and a constant
        assert spread == pytest.approx(variance * LAMBDA**2 * (0.5 - 0.5 / math.pi), rel=0.05)


@pytest.mark.parametrize(("variance", "tau"), [(0.0, 1.0), (1.0, -1.0), (float("nan"), 1.0)])
def test_a_variance_that_is_not_positive_is_refused(variance, tau):
    """The map divides by it."""
    with pytest.raises(ValueError, match="must be positive"):
        moment_map(0, variance, 0, tau)


def test_the_map_contracts_in_the_box_of_theorem_1():
    """Claim S2. omega in [-0.1, 0.1], tau in [0.95, 1.1], mean in [-0.1, 0.1], variance in [0.8, 1.5]: on a grid."""
    norms = [
        np.linalg.norm(moment_jacobian(mean, variance, omega, tau), 2)
        for omega in np.linspace(-0.1, 0.1, 5)
        for tau in np.linspace(0.95, 1.1, 4)
        for mean in np.linspace(-0.1, 0.1, 5)
        for variance in np.linspace(0.8, 1.5, 8)
    ]

    assert max(norms) < 1


def test_the_map_leads_the_box_of_theorem_1_into_itself():
    """Claim S2: with the contraction, Banach's theorem gives one attracting fixed point in the box."""
    images = [
        moment_map(mean, variance, omega, tau)
        for omega in np.linspace(-0.1, 0.1, 5)
        for tau in np.linspace(0.95, 1.1, 4)
        for mean in np.linspace(-0.1, 0.1, 5)
        for variance in np.linspace(0.8, 1.5, 8)
    ]

    assert max(abs(i.mean) for i in images) <= 0.1
    assert min(i.variance for i in images) >= 0.8
    assert max(i.variance for i in images) <= 1.5


def ratios(means: list[float], variances: list[float], taus: list[float]) -> list[float]:
    """Variance after over variance before, for omega in [-0.1, 0.1]."""
    return [
        moment_map(mean, variance, omega, tau).variance / variance
        for omega in (-0.1, 0.0, 0.1)
        for mean in means
        for variance in variances
        for tau in taus
    ]


def test_large_variances_shrink():
    """Theorem 2: from 3 on the variance falls, so that it cannot explode."""
    assert max(ratios([-1, -0.5, 0, 0.5, 1], [3, 4, 6, 10, 16], [0.8, 1, 1.25])) < 1


def test_small_variances_grow():
    """Theorem 3: near 0 the variance rises, so that it cannot vanish."""
    assert min(ratios([-0.1, 0, 0.1], [0.02, 0.05, 0.1, 0.16], [0.8, 1, 1.25])) > 1
    assert min(ratios([-0.1, 0, 0.1], [0.02, 0.1, 0.2, 0.24], [0.9, 1, 1.25])) > 1


def test_a_search_without_end_is_said_so():
    """The caller learns that the map did not come to rest, and gets no half-way point."""
    with pytest.raises(ArithmeticError, match="still moving after 3 layers"):
        fixed_point(0.1, 0.95, at_most=3)


# Propagation through random nets: claim S2 by simulation ----------------------------------------------------------------


def moments_by_layer(activation, gain, rng, depth=64, width=256):
    """Mean and variance behind each layer of an MLP with weights N(0, gain / width) on 1024 standard normal inputs."""
    x = torch.randn(1024, width, generator=rng)
    found = []
    for _ in range(depth):
        x = activation(x @ (torch.randn(width, width, generator=rng) * math.sqrt(gain / width)))
        found.append((x.mean().item(), x.var().item()))
    return found


def test_selu_with_lecun_weights_keeps_its_moments_through_64_layers(rng):
    """The card's bounds for support; tanh's variance decays and SELU with He's weights leaves the box."""
    mean, variance = moments_by_layer(selu, 1.0, rng)[-1]
    tanh = moments_by_layer(torch.tanh, 1.0, rng)[-1][1]
    he = moments_by_layer(selu, 2.0, rng)[-1][1]

    assert abs(mean) < 0.2
    assert 0.8 < variance < 1.3
    assert tanh < 0.1
    assert he > 3


def test_alpha_dropout_keeps_the_moments_through_layers_and_inverted_dropout_does_not(rng):
    """The reason for alpha dropout: after 16 layers at rate 0.1 the variance is still near 1."""
    torch.manual_seed(3)
    with_alpha = moments_by_layer(lambda x: alpha_dropout(selu(x), 0.1, rng), 1.0, rng, depth=16)[-1][1]
    with_inverted = moments_by_layer(lambda x: nn.functional.dropout(selu(x), 0.1), 1.0, rng, depth=16)[-1][1]

    assert 0.85 < with_alpha < 1.15
    assert with_inverted > with_alpha + 0.2


# The components ---------------------------------------------------------------------------------------------------------


def test_selu_asks_for_lecun_and_its_ablation_for_he():
    """The initialisation belongs to the method; the ablation differs in nothing else."""
    declared = {m.name: (m.build, m.params, m.init) for m in METHODS}

    assert declared["selu"] == ("harness_papers.selu.method:build", SELUParams, "lecun")
    assert declared["selu-he"] == ("harness_papers.selu.method:build", SELUParams, "he")
    assert declared["selu-inverted-dropout"][2] == "lecun"


def test_components_build_what_they_say(rng):
    """SELU alone, SELU with alpha dropout, SELU with inverted dropout; in evaluation all three are SELU."""
    x = torch.randn(64, 4, generator=rng)
    plain, alpha, inverted = (
        build(PLACE, SELUParams()),
        build(PLACE, SELUParams(dropout=0.5)),
        build_inverted(PLACE, DropoutParams(dropout=0.5)),
    )
    torch.manual_seed(0)

    assert torch.equal(plain(x), selu(x))
    assert alpha(x).min() < SATURATION * 0.8 + 0.7  # set units: a alpha' + b = -0.779
    assert (inverted(x) == 0).any()
    assert all(torch.equal(m.eval()(x), selu(x)) for m in (plain, alpha, inverted))
    assert not [p for m in (plain, alpha, inverted) for p in m.parameters()]


def test_the_probe_reports_the_moments_layer_by_layer(rng):
    """Measured by the harness on held items, not logged by the method."""

    class Double(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    net = nn.Sequential(Slot(Double()), nn.Linear(3, 3), Slot(Double()))
    nn.init.eye_(net[1].weight)
    nn.init.constant_(net[1].bias, 1.0)
    x = torch.randn(500, 3, generator=rng)

    got = measure_moments({"x": x}, NetSolution(net), None)

    assert got["layer_mean"].x == (1.0, 2.0)
    assert got["layer_mean"].y == pytest.approx((2 * x.mean().item(), 4 * x.mean().item() + 2), abs=1e-5)
    assert got["layer_variance"].y == pytest.approx([k * x.var(unbiased=False).item() for k in (4, 16)], rel=1e-5)
    assert (got["last_layer_mean"], got["last_layer_variance"]) == (got["layer_mean"].y[1], got["layer_variance"].y[1])
    with pytest.raises(Unsupported, match="no `module`"):
        measure_moments({"x": x}, SimpleNamespace(), None)


def test_importing_the_declarations_imports_no_torch():
    """`harness list` loads every paper; torch costs more than a second."""
    code = "import sys, harness_papers.selu; sys.exit(any(m in sys.modules for m in ('torch', 'scipy')))"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
