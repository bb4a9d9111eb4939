"""The neuron: the paper's worked values, and the gradient against autograd through the written-out recursion."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from harness_papers.ei_snn.neuron import ALPHAS, lif, slope
from torch import Tensor

SURROGATES = list(ALPHAS)


def constant(value: float, steps: int) -> Tensor:
    return torch.full((steps, 1), value, dtype=torch.float64)


@pytest.mark.parametrize(
    ("current", "spikes"),
    [
        (0.6, [0, 0, 1, 0, 0, 1, 0]),  # u = 0.6, 0.9, 1.05, then 0.05 / 2 + 0.6 = 0.625, 0.9125, 1.05625
        (1.0, [1, 1, 1, 1, 1, 1, 1]),
        (0.5, [0, 0, 0, 0, 0, 0, 0]),  # u_t = 1 - 2^-t
        (-3.0, [0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_spikes_of_a_constant_current(current, spikes):
    """tau = 2, theta = 1, soft reset: worked by hand."""
    assert lif(constant(current, 7)).flatten().tolist() == spikes


def test_the_fixed_point_below_threshold_is_tau_times_the_current():
    """u* = tau I, so I spikes at last where tau I > theta, and never where it is below."""
    for tau in (1.0, 2.0, 5.0):
        assert not lif(constant(0.999 / tau, 400), tau=tau).any()
        assert lif(constant(1.001 / tau, 400), tau=tau).any()


def test_a_hard_reset_forgets_what_was_above_the_threshold():
    """A soft one keeps it for the next step."""
    currents = torch.tensor([[2.5], [0.5]], dtype=torch.float64)  # soft: v = 1.5, u = 1.25; hard: v = 0, u = 0.5

    assert lif(currents).flatten().tolist() == [1, 1]
    assert lif(currents, reset="hard").flatten().tolist() == [1, 0]


@pytest.mark.parametrize("surrogate", ["sigmoid", "arctan", "triangular"])
@pytest.mark.parametrize("alpha", [0.7, 4.0])
def test_a_surrogate_has_area_one(surrogate, alpha):
    """Each is the slope of a smoothed step from 0 to 1."""
    x = torch.linspace(-2000, 2000, 800_001, dtype=torch.float64)

    area = torch.trapezoid(slope(x, surrogate, alpha), x).item()

    assert area == pytest.approx(
        1, abs=2 * 2 / (math.pi**2 * alpha * 2000) + 1e-6
    )  # arctan's tails beyond 2000; the rule's error


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_the_slope_is_one_at_the_threshold(surrogate):
    """At the default sharpness, whichever surrogate: none scales the gradient by itself."""
    at = slope(torch.zeros(1, dtype=torch.float64), surrogate, ALPHAS[surrogate])

    assert at.item() == 1


def test_the_sigmoid_one_away_from_the_threshold():
    at = slope(torch.tensor([-1.0, 1.0], dtype=torch.float64), "sigmoid", 4.0)

    torch.testing.assert_close(at, torch.full_like(at, 0.0706508), rtol=1e-6, atol=0)  # given to six digits


class Spike(torch.autograd.Function):
    """The step, with a surrogate behind it."""

    @staticmethod
    def forward(ctx, x, surrogate, alpha):
        ctx.save_for_backward(x)
        ctx.how = surrogate, alpha
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return grad * slope(x, *ctx.how), None, None


def written_out(currents, tau, theta, reset, detach, surrogate, alpha):
    """The definition, step by step, differentiated by autograd."""
    v, spikes = torch.zeros_like(currents[0]), []
    for current in currents:
        u = (1 - 1 / tau) * v + current
        s = Spike.apply(u - theta, surrogate, alpha)
        spikes.append(s)
        r = s.detach() if detach else s
        v = u - theta * r if reset == "soft" else u * (1 - r)
    return torch.stack(spikes)


@pytest.mark.parametrize(
    ("reset", "detach", "surrogate"), list(itertools.product(["soft", "hard"], [True, False], SURROGATES)), ids=str
)
def test_spikes_and_gradient_are_those_of_the_written_out_recursion(reset, detach, surrogate, rng):
    """Each reset, gradient through it or not, each surrogate; a rate of firing where all branches are taken."""
    currents = (torch.randn(9, 4, 5, generator=rng, dtype=torch.float64) + 0.5).requires_grad_()
    weight = torch.randn(9, 4, 5, generator=rng, dtype=torch.float64)
    tau, theta, alpha = 1.7, 0.8, 2.3

    expected = written_out(currents, tau, theta, reset, detach, surrogate, alpha)
    (wanted,) = torch.autograd.grad((expected * weight).sum(), currents)
    got = lif(currents, tau=tau, theta=theta, reset=reset, detach=detach, surrogate=surrogate, alpha=alpha)
    (found,) = torch.autograd.grad((got * weight).sum(), currents)

    assert 0.2 < got.mean() < 0.8
    assert torch.equal(got, expected)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)  # float64; products in another order


def test_neurons_do_not_see_each_other(rng):
    """Each position is a scan of its own, so what stands beside it changes no bit."""
    currents = torch.randn(6, 3, 7, generator=rng)

    assert torch.equal(lif(currents)[:, 1:2, 2:4], lif(currents[:, 1:2, 2:4].contiguous()))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"tau": 0.5}, "tau=0.5; give a finite number of at least 1"),
        ({"theta": 0.0}, "theta=0.0; give a finite number above 0"),
        ({"alpha": -1.0}, "alpha=-1.0"),
        ({"reset": "none"}, "reset='none'; give one of soft, hard"),
        ({"surrogate": "relu"}, "surrogate='relu'; give one of sigmoid"),
    ],
    ids=str,
)
def test_a_parameter_out_of_range_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        lif(torch.zeros(2, 3), **wrong)


@pytest.mark.parametrize("currents", [torch.zeros(0, 3), torch.zeros(()), torch.zeros(2, 3, dtype=torch.int64)], ids=str)
def test_currents_need_a_time_axis_and_a_float_type(currents):
    with pytest.raises(ValueError, match="give floats with the time steps first"):
        lif(currents)
