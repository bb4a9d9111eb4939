"""KAN layers against the sum over edges that they stand for, against their parameter counts, and under changes of the grid."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from harness_papers.kan.families import BSplines, Gaussians, ReluBumps, make_layer
from harness_papers.kan.layers import (
    BasisConv2d,
    KANLinear,
    kan_layers,
    spline_linear,
)
from harness_papers.kan.splines import Grid, bases, bases_by_recursion, fit_coefficients
from torch import Tensor, nn

SIZES = [(784, 64), (64, 10)]


def made(layer: nn.Module, rng: torch.Generator) -> nn.Module:
    """In float64, with weights."""
    layer = layer.double()
    layer.reset(rng)
    return layer


def count(*layers: nn.Module) -> int:
    return sum(p.numel() for layer in layers for p in layer.parameters() if p.requires_grad)


def edge_by_edge(layer: KANLinear, x: Tensor) -> Tensor:
    """y_o = sum_i w silu(x_i) + s sum_j c_j B_j(x_i), one edge after another: the oracle."""
    rows = []
    for output in range(layer.out_features):
        total = torch.zeros(len(x), dtype=x.dtype)
        for i in range(layer.in_features):
            knots = layer.grid.knots(x.dtype) if layer.knots is None else layer.knots[i]
            spline = bases_by_recursion(x[:, i], knots, layer.grid.order) @ layer.spline_weight[output, i]
            scale = 1.0 if layer.spline_scaler is None else layer.spline_scaler[output, i]
            total = total + layer.base_weight[output, i] * F.silu(x[:, i]) + scale * spline
        rows.append(total)
    return torch.stack(rows, dim=1)


# Counts and values ------------------------------------------------------------------------------------------------------


def test_parameters_are_those_of_the_public_code():
    """The card's counts, of runs of both repositories, and of the MLP beside them."""
    assert count(*(KANLinear(*size) for size in SIZES)) == 508_160
    assert count(KANLinear(2, 5), KANLinear(5, 1)) == 150
    assert count(*(make_layer("fastkan", *size) for size in SIZES)) == 459_114
    assert count(make_layer("fastkan", 2, 5), make_layer("fastkan", 5, 1)) == 155
    assert count(*(nn.Linear(*size) for size in SIZES)) == 50_890


@pytest.mark.parametrize("scaler", [True, False])
@pytest.mark.parametrize("grid", [Grid(), Grid(3, 2, -2.0, 0.5)], ids=str)
def test_one_product_equals_the_sum_over_edges(scaler, grid, rng):
    """Also for inputs outside the grid."""
    layer = made(KANLinear(5, 3, grid, scaler=scaler), rng)
    x = torch.randn(40, 5, generator=rng, dtype=torch.float64) * 2

    torch.testing.assert_close(layer(x), edge_by_edge(layer, x), atol=1e-12, rtol=0)  # the card asks for 1e-5; this is float64
    torch.testing.assert_close(layer.curves(x).sum(2), layer(x), atol=1e-12, rtol=0)
    torch.testing.assert_close(layer(x.view(2, 4, 5, 5)), layer(x).view(2, 4, 5, 3), atol=1e-12, rtol=0)


def test_gradients_pass_gradcheck(rng):
    """Of inputs and of all weights."""
    x = (torch.rand(4, 3, generator=rng, dtype=torch.float64) * 2.4 - 1.2).requires_grad_()
    weights = [torch.randn(shape, generator=rng, dtype=torch.float64).requires_grad_() for shape in ((2, 3), (2, 3, 8))]

    assert torch.autograd.gradcheck(lambda x, w, c: spline_linear(x, w, c, Grid()), (x, *weights))


def test_a_layer_starts_as_the_public_code_does(rng):
    """Base and scaler uniform in +-1 / sqrt(in); splines through noise of 0.1 / G, so near 0."""
    layer = KANLinear(100, 50)
    layer.reset(rng)

    for weight in (layer.base_weight.detach(), layer.spline_scaler.detach()):
        assert 0.099 < float(weight.abs().max()) <= 0.1
        assert abs(float(weight.std()) - 0.1 / math.sqrt(3)) < 0.002
    at = layer.grid.knots()[3:-3]
    heights = bases(at, layer.grid) @ layer.spline_weight.detach().reshape(-1, 8).T
    assert 0.0099 < float(heights.abs().max()) <= 0.0100001  # (u - 1/2) 0.1 / 5


def test_the_same_generator_draws_the_same_layer():
    """On which everything rests that compares two trials."""
    layers = [KANLinear(4, 3), KANLinear(4, 3)]
    for layer in layers:
        layer.reset(torch.Generator().manual_seed(3))

    assert all(torch.equal(a, b) for a, b in zip(*(layer.parameters() for layer in layers), strict=True))


# Changes of the grid ----------------------------------------------------------------------------------------------------


def trained(rng: torch.Generator, scaler: bool = True) -> tuple[KANLinear, Tensor]:
    """A layer whose splines are as large as its base, and inputs that do not fill the grid."""
    layer = made(KANLinear(4, 3, scaler=scaler, noise=5.0), rng)
    return layer, (torch.rand(256, 4, generator=rng, dtype=torch.float64) * 1.4 - 0.6)


@pytest.mark.parametrize("scaler", [True, False])
def test_an_updated_grid_leaves_the_function_as_near_as_the_knots_allow(scaler, rng):
    """Every edge's own curve, scaler included, is met as well as splines on the new knots can, fitted here to many points."""
    layer, x = trained(rng, scaler)
    old_knots, old_curves = layer.grid.knots(torch.float64), layer.scaled_weight().detach().clone()
    before = layer(x).detach()

    layer.update_grid(x, uniform=0.5)
    new = layer.knots
    at = new[:, 3] + torch.linspace(0, 1, 4_001, dtype=torch.float64)[:-1, None] * (new[:, -4] - new[:, 3])
    heights = torch.einsum("pib,oib->pio", bases_by_recursion(at, old_knots, 3), old_curves)
    nearest = fit_coefficients(at, heights, new, 3)
    expected = F.silu(x) @ layer.base_weight.T + torch.einsum("nib,oib->no", bases_by_recursion(x, new, 3), nearest)

    assert new.shape == (4, 12)
    torch.testing.assert_close(layer(x), edge_by_edge(layer, x), atol=1e-12, rtol=0)  # the layer uses the new knots
    torch.testing.assert_close(layer(x), expected, atol=1e-3, rtol=0)  # a sum over 4,000 points for the integral
    assert float((layer(x).detach() - before).abs().max()) < 0.1 * float(before.abs().max())


def test_an_updated_grid_that_can_hold_the_function_changes_nothing(rng):
    """Coefficients of a cubic polynomial: every grid holds it, so that only rounding is left. It is so with the scaler."""
    layer, x = trained(rng)
    at = torch.linspace(-1, 1, 100, dtype=torch.float64)[:, None].expand(-1, 4)
    heights = torch.stack([at**3, at - at**2, 1 - 2 * at], dim=2)
    with torch.no_grad():
        layer.spline_weight.copy_(fit_coefficients(at, heights, layer.grid.knots(torch.float64), 3))
    before = layer(x)

    layer.update_grid(x)

    torch.testing.assert_close(layer(x), before, atol=1e-8, rtol=0)  # float64 through two fits; uneven knots


def test_putting_scaled_curves_into_unscaled_weights_changes_the_function(rng):
    """What the public code does with its default scaler: s is multiplied twice. Ours does not; the size is the card's."""
    layer, x = trained(rng)
    ours, before = layer, layer(x)
    twice = made(KANLinear(4, 3), rng)
    twice.load_state_dict(layer.state_dict())
    ours.update_grid(x, uniform=0.5)
    with torch.no_grad():
        twice.knots = ours.knots
        twice.spline_weight.copy_(ours.spline_weight * ours.spline_scaler[..., None])

    wrong, right = ((layer(x) - before).detach().abs().max() for layer in (twice, ours))

    assert float(wrong) > 10 * float(right)


@pytest.mark.parametrize("updated", [False, True])
def test_a_refined_grid_changes_nothing(updated, rng):
    """From 5 to 10 intervals: the finer splines contain the coarser ones, also on knots of each feature's own."""
    layer, x = trained(rng)
    if updated:
        layer.update_grid(x)
    before = layer(x)

    layer.refine_grid(10)

    assert layer.spline_weight.shape == (3, 4, 13)
    assert layer.spline_weight.requires_grad
    torch.testing.assert_close(layer(x), before, atol=1e-8, rtol=0)  # float64 through a fit


@pytest.mark.parametrize("updated", [False, True])
def test_a_part_of_a_layer_has_the_curves_of_the_whole(updated, rng):
    """What pruning leaves: the chosen outputs' sums over the chosen inputs."""
    layer, x = trained(rng)
    if updated:
        layer.update_grid(x)
    outputs, inputs = torch.tensor([2, 0]), torch.tensor([3, 1])

    small = layer.part(outputs, inputs)

    assert (small.in_features, small.out_features) == (2, 2)
    torch.testing.assert_close(small.curves(x[:, inputs]), layer.curves(x)[:, outputs][:, :, inputs], atol=1e-13, rtol=0)
    torch.testing.assert_close(small(x[:, inputs]), layer.curves(x)[:, outputs][:, :, inputs].sum(2), atol=1e-12, rtol=0)


# Images -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("basis", [BSplines(), Gaussians(), ReluBumps()], ids=lambda b: type(b).__name__)
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2)])
def test_the_convolution_is_the_layer_on_every_patch(basis, kernel, stride, rng):
    """Bases of the padded image, then one convolution: what unfolding patches and applying the dense layer gives."""
    conv = made(BasisConv2d(2, 3, kernel, stride, basis), rng)
    x = torch.randn(4, 2, 7, 6, generator=rng, dtype=torch.float64)

    patches = F.unfold(x, kernel, padding=kernel // 2, stride=stride).transpose(1, 2)
    dense = basis(patches).flatten(2) @ conv.weight.permute(0, 1, 3, 4, 2).flatten(1).T
    dense = dense + F.silu(patches) @ conv.base_weight.flatten(1).T
    got = conv(x)

    assert got.shape[2:] == (math.ceil(7 / stride), math.ceil(6 / stride))
    torch.testing.assert_close(got.flatten(2).transpose(1, 2), dense, atol=1e-12, rtol=0)  # float64


def test_a_net_s_layers_are_found_by_name():
    """What probes and pictures go through."""
    net = nn.Sequential(KANLinear(2, 3), nn.ReLU(), nn.Sequential(make_layer("fastkan", 3, 1)))

    assert [name for name, _ in kan_layers(net)] == ["0", "2.0"]
