"""The circuit against the paper's formulas with separate matrices, its invariances, its initial values and its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from harness_papers.ei_snn.layers import EPSILON, Circuit, Weights, input_moments, stabilised
from harness_papers.ei_snn.neuron import lif
from torch.nn import functional as F

FLOAT64 = {"rtol": 1e-10, "atol": 1e-12}  # sums of some dozen products in another order
FANS = {"linear": (6,), "conv": (3, 3, 3)}
STEPS = 4


@pytest.fixture(params=FANS, ids=str)
def fan(request):
    return FANS[request.param]


@pytest.fixture
def make(rng):
    """(fan, out, options) -> a circuit in float64 with random parameters >= 0."""

    def build(fan, out=8, stride=1, **options):
        circuit = Circuit(fan, out, stride, **options).double()
        with torch.no_grad():
            for p in circuit.parameters():
                p.copy_(torch.rand(p.shape, generator=rng) + 0.1)
        return circuit

    return build


@pytest.fixture
def spikes(rng):
    """(fan, N) -> inputs in {0, 1}."""

    def draw(fan, rows=5, rate=0.4):
        shape = (rows, *fan) if len(fan) == 1 else (rows, fan[0], 6, 5)
        return (torch.rand(shape, generator=rng) < rate).double()

    return draw


def written_out(circuit: Circuit, x):
    """I_b and I_sh, each product of the paper by itself; pixel by pixel for the convolution's inhibition."""
    n = circuit.excitatory
    w_ee, w_ie, w_ei = circuit.inputs[:n], circuit.inputs[n:], circuit.inhibition

    def apply(weight):
        return x @ weight.T if x.ndim == 2 else F.conv2d(x, weight, stride=circuit.stride, padding=1)

    i_ee, i_ie = apply(w_ee), apply(w_ie)
    balanced = i_ee - torch.einsum("ei,ni...->ne...", w_ei, i_ie)
    if circuit.output:
        return balanced, None
    return balanced, torch.einsum("ei,i,ni...->ne...", w_ei, circuit.shunt, i_ie)


def currents_of(circuit, balanced, shunting):
    """The division, element by element; a zero of the divisor is the row's smallest other value."""
    found = torch.empty_like(balanced)
    for row in range(len(balanced)):
        others = shunting[row][shunting[row] != 0]
        for place in torch.cartesian_prod(*(torch.arange(size) for size in balanced.shape[1:])).view(-1, balanced.ndim - 1):
            at = (row, *place.tolist())
            divisor = shunting[at] if shunting[at] != 0 else others.min()
            found[at] = circuit.gain[at[1]] * balanced[at] / divisor + circuit.bias[at[1]]
    return found


@pytest.mark.parametrize("stride", [1, 2])
def test_currents_are_those_of_the_written_out_circuit(fan, stride, make, spikes):
    """Stacked products change nothing but rounding; zeros of I_sh are among what is compared in the convolution."""
    circuit, x = make(fan, stride=1 if len(fan) == 1 else stride), spikes(fan, rate=0.1 if len(fan) == 3 else 0.4)
    x[:, 0] = 1 if len(fan) == 1 else x[:, 0]  # no row of zeros
    x[(slice(None), 0, 0, 0) if len(fan) == 3 else (slice(None), 0)] = 1

    balanced, shunting = written_out(circuit, x)

    assert len(fan) == 1 or (shunting == 0).any()
    torch.testing.assert_close(circuit(x), currents_of(circuit, balanced, shunting), **FLOAT64)


def test_an_output_layer_subtracts_and_does_not_divide(fan, make, spikes):
    circuit, x = make(fan, output=True), spikes(fan)

    torch.testing.assert_close(circuit(x), written_out(circuit, x)[0], **FLOAT64)
    assert {name for name, _ in circuit.named_parameters()} == {"inputs", "inhibition"}


@pytest.mark.parametrize("change", ["x", "W_IE and W_EI", "W_IE alone moves it", "g_E", "g_I"])
def test_what_the_currents_do_not_see_and_what_scales_them(change, fan, make, spikes):
    """With b_E = 0: no scale of the input, none that W_IE and W_EI share out; g_E times c is c times, g_I times c is 1 / c."""
    circuit, x, c = make(fan), spikes(fan) + 0.01, 3.7
    n, factor = circuit.excitatory, 1.0
    with torch.no_grad():
        circuit.bias.zero_()
        before = circuit(x)
        if change == "x":
            x = c * x
        elif change == "g_E":
            circuit.gain.mul_(c)
            factor = c
        elif change == "g_I":
            circuit.shunt.mul_(c)
            factor = 1 / c
        else:
            circuit.inputs[n:].mul_(c)
            if change == "W_IE and W_EI":
                circuit.inhibition.div_(c)
        after = circuit(x)

    if change == "W_IE alone moves it":
        assert not torch.allclose(after, before)
    else:
        torch.testing.assert_close(after, factor * before, **FLOAT64)


def test_one_inhibitory_unit_has_a_closed_form(make, spikes):
    """n_I = 1, W_EI = 1: I = g_E (W_EE x - w.x) / (g w.x) + b_E, and b_E where a row of W_EE is w itself."""
    circuit, x = make((6,), out=5, ratio=5), spikes((6,)) + 0.01
    with torch.no_grad():
        circuit.inhibition.fill_(1)
        circuit.inputs[2] = circuit.inputs[5]
    w = circuit.inputs[5]

    expected = circuit.gain * (x @ circuit.inputs[:5].T - (x @ w)[:, None]) / (circuit.shunt * (x @ w)[:, None]) + circuit.bias

    assert circuit.inhibitory == 1
    torch.testing.assert_close(circuit(x), expected, **FLOAT64)
    torch.testing.assert_close(circuit(x)[:, 2], circuit.bias[2].expand(5), **FLOAT64)


# Rows -------------------------------------------------------------------------------------------------------------------


def test_no_row_sees_the_rows_beside_it_in_training_either(fan, make, spikes):
    """Nothing of the batch enters, zeros that are filled included; batch norm fails this at once."""
    circuit, x = make(fan).train(), spikes(fan, rate=0.05)
    norm = (torch.nn.BatchNorm1d if len(fan) == 1 else torch.nn.BatchNorm2d)(fan[0]).double().train()

    torch.testing.assert_close(circuit(x)[2:3], circuit(x[2:3].clone()), **FLOAT64)
    assert not torch.allclose(norm(x)[2:4], norm(x[2:4]))


def test_a_row_of_zeros_gives_the_bias_and_a_finite_gradient(fan, make, spikes):
    """No spike at all at a step: there is no smallest value to divide by."""
    circuit, x = make(fan), spikes(fan)
    x[1] = 0
    x.requires_grad_()

    currents = circuit(x)
    currents.sum().backward()

    torch.testing.assert_close(currents[1], circuit.bias.view(-1, *[1] * (len(fan) - 1)).expand_as(currents[1]), **FLOAT64)
    assert all(p.grad.isfinite().all() for p in (*circuit.parameters(), x))


# E-I Prop ---------------------------------------------------------------------------------------------------------------


def test_a_filled_zero_is_the_rows_smallest_value_and_its_gradient_goes_straight_through():
    shunting = torch.tensor([[0.0, 3.0, 2.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    weight = torch.arange(1.0, 10.0, dtype=torch.float64).view(3, 3)
    zero = shunting.detach() == 0

    straight, blocked, added = stabilised(shunting), stabilised(shunting, through=False), stabilised(shunting, "epsilon")
    gradients = [torch.autograd.grad((out * weight).sum(), shunting)[0] for out in (straight, blocked, added)]

    assert straight.tolist() == blocked.tolist() == [[2, 3, 2], [5, 5, 5], [1, 1, 1]]
    assert added.tolist() == (shunting + EPSILON).tolist()
    assert torch.equal(gradients[0], weight)
    assert torch.equal(gradients[1], weight.masked_fill(zero, 0))
    assert torch.equal(gradients[2], weight)


def test_blocking_a_filled_zero_matters_only_where_inhibition_lacks_an_input_that_excitation_has(fan, make, spikes):
    """While all weights are positive, I_sh is 0 where no input is; there I_b is 0 too, and with it the gradient of I_sh."""
    straight, x = make(fan), spikes(fan, rate=0.05)
    blocked = make(fan, through=False)
    x[0] = 0
    x[(0, 0) if len(fan) == 1 else (0, 0, 2, 2)] = 1  # all that this row has is what inhibition will lack

    for lacking in (False, True):
        with torch.no_grad():
            straight.inputs[straight.excitatory :, 0] = 0.0 if lacking else straight.inputs[straight.excitatory :, 0]
        blocked.load_state_dict(straight.state_dict())
        gradients = [torch.autograd.grad(part(x).square().sum(), part.inputs)[0] for part in (straight, blocked)]
        assert torch.equal(*gradients) is not lacking
    assert (straight.parts(x)[1] == 0).any()


def test_with_epsilon_a_silent_step_multiplies_the_gradient_by_its_inverse(make):
    """What the ablation breaks: behind a row of zeros the layer's slope is 10^6 in place of about 1."""
    silent = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    adaptive, epsilon = make((6,)), make((6,), stabilise="epsilon")
    epsilon.load_state_dict(adaptive.state_dict())

    slopes = [torch.autograd.grad(part(silent)[0, 0], silent)[0] for part in (adaptive, epsilon)]

    torch.testing.assert_close(slopes[1], slopes[0] / EPSILON, **FLOAT64)


@pytest.mark.parametrize("output", [False, True])
def test_the_gradient_of_inhibition_is_divided_by_the_fan_in_and_no_other_is(fan, output, make, spikes):
    circuit, x = make(fan, output=output), spikes(fan) + 0.01
    plain = make(fan, output=output, scale_gradient=False)
    plain.load_state_dict(circuit.state_dict())

    for part in (circuit, plain):
        part(x).square().sum().backward()

    for (name, scaled), autograd in zip(circuit.named_parameters(), plain.parameters(), strict=True):
        factor = 1 / math.prod(fan) if name == "inhibition" else 1.0
        torch.testing.assert_close(scaled.grad, autograd.grad * factor, **FLOAT64)


def test_the_gradient_is_autograds_of_the_written_out_circuit(fan, make, spikes):
    """Without zeros in the divisor, so that nothing is filled."""
    circuit, x = make(fan, scale_gradient=False), (spikes(fan) + 0.01).requires_grad_()
    leaves = [*circuit.parameters(), x]
    balanced, shunting = written_out(circuit, x)
    gain, bias = (p.view(-1, *[1] * (len(fan) - 1)) for p in (circuit.gain, circuit.bias))

    wanted = torch.autograd.grad((gain * balanced / shunting + bias).square().sum(), leaves)
    found = torch.autograd.grad(circuit(x).square().sum(), leaves)

    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)  # quotients, squared


# Initial values ---------------------------------------------------------------------------------------------------------


def test_moments_are_those_of_the_merged_batch_of_all_steps(rng):
    """T equal copies may be left out, if their number is told."""
    x = torch.rand(9, 2, 3, generator=rng)
    merged = x.repeat(STEPS, 1, 1).double()

    got = input_moments(x, rows=9 * STEPS)

    wanted = [merged.mean().item(), merged.square().mean().item(), merged.var(dim=0).mean().item()]
    assert got == pytest.approx(wanted, rel=1e-12)


def test_ei_init_gives_the_moments_that_were_measured_on_digits(digits):
    """Three layers 64 -> 128 -> 128 -> 128 of 512 rows, mean over 8 seeds; the figures are of one seed of other code."""
    measured = [(0.062, 0.283, 0.783), (0.050, 0.263, 0.957), (0.062, 0.326, 0.663)]  # var(I_b), mean(I_sh), var(I)
    found = torch.zeros(3, 3)
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        x = digits.repeat(STEPS, 1)
        for layer in range(3):
            circuit = Circuit((x.shape[1],), 128)
            circuit.init_from(x, generator)
            with torch.no_grad():
                (balanced, shunting), currents, v = circuit.parts(x), circuit(x), input_moments(x).v
            found[layer] += torch.stack([balanced.var(), shunting.mean(), currents.var()]) / 8
            assert shunting.mean().item() ** 2 == pytest.approx(v, rel=0.2)  # E[I_sh] = sqrt(V); n_I = 32 draws
            x = lif(currents.view(STEPS, 128, 128)).view(-1, 128)

    torch.testing.assert_close(found, torch.tensor(measured), rtol=0.3, atol=0)  # over seeds, as the source of the figures says


def test_ei_init_balances_excitation_and_inhibition_in_expectation(rng):
    """With a wide layer: E[I_EE] = E[I_EI], Var_w(I_EE) = d s^2 (2q - m^2), of which d s^2 (q + V) = V is the estimate."""
    x = (torch.rand(64, 50, generator=rng) < 0.3).float()
    circuit = Circuit((50,), 8000)

    circuit.init_from(x, rng)

    m, q, v = input_moments(x)
    excited = x @ circuit.inputs[:8000].T
    inhibited = x @ circuit.inputs[8000:].T @ circuit.inhibition[0]
    scale_sq = v / (50 * (q + v))
    assert (excited.mean() / inhibited.mean()).item() == pytest.approx(1, abs=0.01)  # 8000 and 2000 units, 50 inputs
    row_q, row_m = x.square().mean(dim=1), x.mean(dim=1)
    # Exponential weights of mean s have variance s^2: over units, the variance of a row's currents is d s^2 mean(x^2).
    torch.testing.assert_close(excited.var(dim=1), 50 * scale_sq * row_q, rtol=0.15, atol=0)  # 8000 draws of an exponential
    assert row_m.mean().item() == pytest.approx(m)
    assert circuit.shunt[0].item() == pytest.approx(math.sqrt(q + v) / (math.sqrt(50) * m), rel=1e-6)


@pytest.mark.parametrize("value", [0.0, 0.5])
def test_ei_init_refuses_inputs_that_do_not_vary(value, fan):
    """V = 0 makes every weight 0, and the net silent for ever."""
    circuit, x = Circuit(fan, 8), torch.full((4, *fan), value)

    with pytest.raises(ValueError, match="constant over the batch"):
        circuit.init_from(x, torch.Generator())


def test_the_ablations_of_ei_init_take_away_what_they_say(digits):
    whole, one, kaiming = (Circuit((64,), 200) for _ in range(3))
    whole.init_from(digits, torch.Generator().manual_seed(1))
    one.init_from(digits, torch.Generator().manual_seed(1), shunt_one=True)
    kaiming.init_from(digits, torch.Generator().manual_seed(1), kaiming=True)

    assert torch.equal(one.inputs, whole.inputs)
    assert (one.shunt == 1).all()
    assert not (whole.shunt == 1).any()
    assert (kaiming.inputs >= 0).all()
    # The mean square of |N(0, 2/d)| is 2 / d; 16,000 draws of a squared normal are within 5 standard errors of 1.1 %.
    assert kaiming.inputs.square().mean().item() == pytest.approx(2 / 64, rel=0.055)
    assert (kaiming.gain == 1).all()


def test_plain_weights_start_as_torchs_own_and_as_told(rng):
    """default: U(-1, 1) / sqrt(d), of which the largest of 20,000 is close to the bound; balanced: deviation gain / sqrt(d)."""
    layer = Weights((100,), 200)

    layer.reset(rng)
    assert layer.weight.abs().max().item() == pytest.approx(0.1, rel=1e-3)
    assert 0 < layer.bias.abs().max().item() <= 0.1

    layer.reset(rng, gain=3.0)
    assert layer.weight.std().item() == pytest.approx(0.3, rel=0.03)  # 20,000 draws: a standard error of 0.5 %
    assert not layer.bias.any()


def test_plain_weights_can_be_scaled_to_currents_of_variance_one(fan, rng, spikes):
    layer, x = Weights(fan, 16), spikes(fan, rows=64).float()
    layer.reset(rng, gain=1.0)

    layer.scale_to_unit_variance(x)

    assert layer(x).var().item() == pytest.approx(1, rel=1e-4)  # float32
    with pytest.raises(ValueError, match="all zero"):
        layer.scale_to_unit_variance(torch.zeros_like(x))
