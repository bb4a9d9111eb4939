"""The families of KAN layers against closed forms, SciPy and loops over edges, in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from harness_papers.kan import ReluKANParams
from harness_papers.kan.components import build_relu_kan
from harness_papers.kan.families import (
    FAMILIES,
    WAVELETS,
    BasisLayer,
    Chebyshev,
    Gaussians,
    Gram,
    Jacobi,
    ReluBumps,
    Switches,
    WaveletGrid,
    WaveletLayer,
    make_layer,
    mexican_hat,
)
from scipy.integrate import quad
from scipy.special import eval_jacobi
from torch.autograd import gradcheck

NAMES = sorted(FAMILIES)
DENSE = ["b-spline", "fastkan", "rswaf", "chebyshev", "gram", "jacobi", "relu-kan"]


@pytest.fixture(autouse=True)
def _float64():
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(1)


def layer_of(name, rng, inputs=3, outputs=4, **settings):
    layer = make_layer(name, inputs, outputs, **settings)
    layer.reset(rng)
    return layer


# Functions --------------------------------------------------------------------------------------------------------------


def test_chebyshev_polynomials_are_cosines_of_multiples():
    """T_k(cos t) = cos(k t): the recurrence is the definition, without its infinite gradient."""
    x = torch.linspace(-1, 1, 101)

    got = Chebyshev(6)(x)

    k = torch.arange(7.0)
    torch.testing.assert_close(
        got, torch.cos(k * torch.arccos(x)[:, None]), rtol=0, atol=1e-12
    )  # rounding of arccos at the ends
    assert Chebyshev(4)(torch.tensor([0.5]))[0, 4].item() == -0.5


def test_chebyshev_has_a_finite_gradient_at_the_ends_and_none_outside():
    x = torch.tensor([-1.0, 1.0, 1.5], requires_grad=True)

    Chebyshev(4)(x).sum().backward()

    assert torch.isfinite(x.grad).all()
    assert x.grad[2] == 0


def test_jacobi_polynomials_are_scipys():
    t = torch.linspace(-0.9, 0.9, 37)
    for a, b in ((1.0, 1.0), (0.5, -0.3), (0.0, 0.0), (2.0, 1.0)):
        got = Jacobi(6, a, b)(torch.atanh(t))

        expected = torch.stack([torch.from_numpy(eval_jacobi(k, a, b, t.numpy())) for k in range(7)], dim=-1)
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)  # only rounding differs


def test_gram_polynomials_are_monic_and_orthogonal_over_their_points():
    points = 16
    nodes = torch.linspace(-1, 1, points)
    nodes[[0, -1]] *= 1 - 1e-15  # atanh has no value at the ends

    values = Gram(5, points)(torch.atanh(nodes))

    products = values.T @ values
    scale = products.diagonal().sqrt()
    off = products / scale / scale[:, None] - torch.eye(6)
    assert off.abs().max() < 1e-9  # atanh and tanh near 1 cost some digits
    t = torch.tensor([0.3])
    cubic = Gram(3, points)(torch.atanh(t))[0, 3]
    b1, b2 = (k * k * (points**2 - k * k) / ((4 * k * k - 1) * (points - 1) ** 2) for k in (1, 2))
    assert cubic.item() == pytest.approx(0.3**3 - (b1 + b2) * 0.3, rel=1e-12)


def test_radial_functions_are_one_at_their_centres():
    gaussians, switches = Gaussians(), Switches()

    torch.testing.assert_close(gaussians(gaussians.centres).diagonal(), torch.ones(8))
    torch.testing.assert_close(switches(switches.centres).diagonal(), torch.ones(8))
    at_zero = [5e-6, 0.001930, 0.105399, 0.778801, 0.778801, 0.105399, 0.001930, 5e-6]  # the card's run of FastKAN
    torch.testing.assert_close(gaussians(torch.zeros(1))[0], torch.tensor(at_zero), rtol=0, atol=6e-7)  # its 6 digits
    assert switches(switches.centres[:1] + 2.0)[0, 0].item() == pytest.approx(1 - math.tanh(1.0) ** 2, rel=1e-14)


def test_relu_bumps_stand_where_cubic_b_splines_would():
    """Height 1 in the middle of k + 1 cells, 0 outside of them."""
    bumps = ReluBumps(5, 3)
    middles = 0.5 * (bumps.starts + bumps.ends)

    assert bumps.size == 8
    torch.testing.assert_close(bumps(middles).diagonal(), torch.ones(8))
    torch.testing.assert_close(bumps.ends - bumps.starts, torch.full((8,), 1.6))
    assert bumps(bumps.ends[:1])[0, 0] == 0
    assert bumps(bumps.starts[-1:] - 1e-9)[0, -1] == 0


def test_relu_kan_trains_where_each_input_s_bumps_begin_and_end(rng):
    """As the original, which has two ends for each input and bump, and a bias; a loop over edges with ends that have moved."""
    layer = build_relu_kan(3, 4, ReluKANParams(grid=2, order=1))
    layer.reset(rng)
    starts, ends = layer.basis.starts, layer.basis.ends
    assert sum(p.numel() for p in layer.parameters()) == 4 * 3 * 3 + 4 + 2 * 3 * 3
    assert sum(p.numel() for p in build_relu_kan(3, 4, ReluKANParams(grid=2, order=1, trained_ends=False)).parameters()) == 40
    torch.testing.assert_close(starts[2].detach(), torch.tensor([-2.0, -1.0, 0.0]))
    torch.testing.assert_close(ends[0].detach(), torch.tensor([0.0, 1.0, 2.0]))
    with torch.no_grad():
        for tensor in (starts, ends, layer.bias):
            tensor += 0.3 * torch.randn(tensor.shape, generator=rng)
    x = torch.randn(5, 3, generator=rng)

    expected = layer.bias.repeat(5, 1)
    for o, i, j in itertools.product(range(4), range(3), range(3)):
        bump = (torch.relu(ends[i, j] - x[:, i]) * torch.relu(x[:, i] - starts[i, j]) * 4 / 2.0**2) ** 2
        expected[:, o] += layer.weight[o, 3 * i + j] * bump

    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)
    edges = torch.stack([sum(layer.edge(o, i, x[:, i]) for i in range(3)) for o in range(4)], dim=1)
    torch.testing.assert_close(edges + layer.bias, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "std"), [("fastkan", 0.1), ("rswaf", 0.1), ("chebyshev", 1 / (50 * 5)), ("gram", 1 / (50 * 4) ** 0.5)]
)
def test_first_weights_have_the_family_s_deviation_uncut(name, std):
    """FastKAN's normal is cut at -2 and 2 in its code, which is twenty deviations: a cut at two would leave 0.088 of 0.1."""
    layer = make_layer(name, 50, 400)
    layer.reset(torch.Generator().manual_seed(1))

    assert layer.weight.std().item() == pytest.approx(std, rel=0.02)  # of 80,000 draws and more: 8 standard errors
    assert layer.weight.abs().max() > 3 * std


def test_the_mexican_hat_has_unit_norm_and_its_known_values():
    at = mexican_hat(torch.tensor([0.0, 1.0, -1.0]))

    assert at[0].item() == pytest.approx(0.8673250706, abs=1e-10)
    assert at[1:].abs().max() == 0
    norm, _ = quad(lambda z: mexican_hat(torch.tensor(z)).item() ** 2, -12, 12)
    assert norm == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize(
    ("name", "at", "value"),
    [
        ("morlet", 0.7, math.cos(3.5) * math.exp(-0.245)),
        ("dog", 0.7, -0.7 * math.exp(-0.245)),
        ("meyer", 0.4, math.sin(0.4 * math.pi)),
        ("meyer", 0.75, math.sin(0.75 * math.pi) * math.cos(math.pi / 4)),  # half way down: nu(1/2) = 1/2
        ("meyer", 1.2, 0.0),
        ("shannon", 0.3, 2 * math.sin(0.6 * math.pi) / (0.6 * math.pi) - math.sin(0.3 * math.pi) / (0.3 * math.pi)),
        ("shannon", 0.0, 1.0),
    ],
)
def test_wavelets_have_the_values_of_their_formulas(name, at, value):
    assert WAVELETS[name](torch.tensor(at)).item() == pytest.approx(value, abs=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_a_basis_adds_one_axis_and_keeps_dtype(name):
    basis = FAMILIES[name].basis()
    for shape in ((5,), (2, 3), (2, 3, 4)):
        assert basis(torch.zeros(shape)).shape == (*shape, basis.size)
    narrow = FAMILIES[name].basis().float()
    assert narrow(torch.zeros(2, dtype=torch.float32)).dtype == torch.float32
    assert not list(basis.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_of_a_basis_are_those_of_differences(name, rng):
    basis = FAMILIES[name].basis()
    x = (1.6 * torch.rand(7, generator=rng) - 0.83).requires_grad_()

    assert gradcheck(basis, (x,))


# Layers -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DENSE)
def test_a_layer_is_the_sum_over_its_edges(name, rng):
    """A loop over outputs, inputs and functions, from the formula."""
    layer = layer_of(name, rng, norm=False)
    x = torch.randn(6, 3, generator=rng)
    expected = torch.zeros(6, 4)
    weight = layer.weight.view(4, 3, -1)
    for o in range(4):
        for i in range(3):
            for j in range(layer.basis.size):
                expected[:, o] += weight[o, i, j] * layer.basis(x[:, i])[:, j]
            if layer.base is not None:
                expected[:, o] += layer.base[o, i] * x[:, i] * torch.sigmoid(x[:, i])
    if layer.bias is not None:
        expected += layer.bias

    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)  # the order of summation


@pytest.mark.parametrize("name", sorted(WAVELETS))
def test_a_wavelet_layer_has_a_shift_and_a_scale_on_each_edge(name, rng):
    layer = layer_of(name, rng)
    with torch.no_grad():
        layer.shift.normal_(generator=rng)
        layer.scale.uniform_(0.5, 2.0, generator=rng)
    x = torch.randn(6, 3, generator=rng)
    expected = torch.zeros(6, 4)
    for o in range(4):
        for i in range(3):
            expected[:, o] += layer.weight[o, i] * WAVELETS[name]((x[:, i] - layer.shift[o, i]) / layer.scale[o, i])
            expected[:, o] += layer.base[o, i] * x[:, i] * torch.sigmoid(x[:, i])

    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_the_edges_add_up_to_the_layer(name, rng):
    layer = layer_of(name, rng, norm=False)
    x = torch.randn(6, 3, generator=rng)

    total = torch.stack([sum(layer.edge(o, i, x[:, i]) for i in range(3)) for o in range(4)], dim=1)

    bias = getattr(layer, "bias", None)
    torch.testing.assert_close(total if bias is None else total + bias, layer(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["fastkan", "rswaf"])
def test_radial_families_normalise_their_inputs_but_not_the_branch(name, rng):
    layer, plain = layer_of(name, rng), layer_of(name, rng, norm=False)
    plain.load_state_dict({k: v for k, v in layer.state_dict().items() if not k.startswith("norm_")})
    x = torch.randn(6, 3, generator=rng)
    z = (x - x.mean(1, keepdim=True)) / (x.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()

    got, without = layer(x), plain(z)
    if layer.base is not None:
        silu = torch.nn.functional.silu
        without = without + (silu(x) - silu(z)) @ layer.base.T

    torch.testing.assert_close(got, without, rtol=1e-10, atol=1e-12)


def test_a_layer_norm_over_one_input_is_left_out():
    """It would leave nothing of the input: the layer would be a constant."""
    assert not make_layer("rswaf", 1, 4).norm
    assert make_layer("rswaf", 2, 4).norm


@pytest.mark.parametrize("name", NAMES)
def test_keeping_outputs_is_selecting_columns(name, rng):
    layer = layer_of(name, rng)
    x = torch.randn(5, 3, generator=rng)
    whole = layer(x)

    pairs = layer.keep(torch.tensor([3, 1]))

    torch.testing.assert_close(layer(x), whole[:, [3, 1]], rtol=1e-12, atol=1e-12)
    assert layer.out_features == 2
    assert all(torch.equal(new, old[[3, 1]]) for old, new in pairs)
    assert all(p.requires_grad and p.is_leaf for p in layer.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_scaling_rows_scales_outputs(name, rng):
    layer = layer_of(name, rng)
    x = torch.randn(5, 3, generator=rng)
    factors = torch.tensor([2.0, -1.0, 0.5, 0.0])
    whole = layer(x)

    layer.scale_rows(factors)

    torch.testing.assert_close(layer(x), whole * factors, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_reset_draws_from_its_generator_only(name):
    first, second = make_layer(name, 3, 4), make_layer(name, 3, 4)
    torch.manual_seed(5)
    first.reset(torch.Generator().manual_seed(9))
    state = torch.get_rng_state()
    second.reset(torch.Generator().manual_seed(9))

    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_parameters_for_each_edge():
    """What a family costs: its functions, and one for the branch; FastKAN has a bias too."""
    counts = {name: sum(p.numel() for p in make_layer(name, 1, 10).parameters()) / 10 for name in NAMES}

    expected = {
        "b-spline": 8 + 1,
        "fastkan": 8 + 1 + 1,
        "rswaf": 8,
        "chebyshev": 5,
        "gram": 4 + 1,
        "jacobi": 4 + 1,
        "relu-kan": 8,
    }
    assert counts == expected | dict.fromkeys(WAVELETS, 4)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_layer("splines", 2, 2), "family: got 'splines'; use one of b-spline"),
        (lambda: WaveletGrid("haar"), "wavelet: got 'haar'; use one of mexican-hat"),
        (lambda: WaveletGrid(scale=0.0), "scale=0.0; give a number above 0"),
        (lambda: Gaussians(size=1), "size is 1; give 2 or more"),
        (lambda: Chebyshev(0), "degree is 0; give 1 or more"),
        (lambda: Gram(5, 5), "points for degree 5 is 5; give 6 or more"),
        (lambda: Jacobi(3, -1.0, 0.0), "a=-1.0, b=0.0; give numbers above -1"),
    ],
)
def test_what_makes_no_sense_is_refused(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


def test_the_layers_are_final():
    assert not BasisLayer.__subclasses__()
    assert not WaveletLayer.__subclasses__()
