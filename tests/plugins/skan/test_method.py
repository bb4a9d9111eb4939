"""Gates, drops and convolutions against plain sums, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from harness_papers.kan.families import FAMILIES, BasisLayer, make_layer
from harness_papers.skan.method import POOL, ConvLayer, ConvNet, DenseNet, SelectLayer, dense_maker, reset, select_layers

from harness.lab import count_params

pytestmark = pytest.mark.usefixtures("float64")
EXACT = {"rtol": 1e-12, "atol": 1e-12}  # float64; the order of summation differs
SHARED = [name for name in POOL if not FAMILIES[name].edges]


@pytest.fixture
def select(rng):
    """A layer of 3 inputs and 5 outputs over the whole pool, with gates that differ."""
    layer = SelectLayer(POOL, dense_maker(3, 5, norm=None))
    for part in layer.layers.values():
        part.reset(rng)
    with torch.no_grad():
        layer.theta.normal_(generator=rng)
    return layer


@pytest.fixture
def x(rng):
    return torch.randn(7, 3, generator=rng)


def by_hand(layer, x, gates):
    """sum_a s_oa KAN_a(x)_o of a layer in which no family was cut."""
    return sum(part(x) * gates[:, a] for a, part in enumerate(layer.layers.values()))


# Gates ------------------------------------------------------------------------------------------------------------------


def test_gates_are_a_softmax_over_the_families_that_are_left(select):
    s = select.gates()
    torch.testing.assert_close(s, torch.softmax(select.theta, dim=1), **EXACT)

    for left in range(len(POOL) - 1, 0, -1):
        select.drop_smallest()
        s = select.gates()
        assert (s >= 0).all()
        torch.testing.assert_close(s.sum(dim=1), torch.ones(5), **EXACT)
        assert ((s > 0).sum(dim=1) == left).all()


def test_the_layer_is_the_weighted_sum_of_its_families(select, x):
    torch.testing.assert_close(select(x), by_hand(select, x, select.gates()), **EXACT)


def test_a_one_hot_gate_is_that_family_exactly(select, x):
    """theta at +-infinity: the softmax of 1e9 is 1 to the last bit."""
    for a, name in enumerate(POOL):
        with torch.no_grad():
            select.theta.fill_(-1e9)
            select.theta[:, a] = 1e9

        torch.testing.assert_close(select(x), select.layers[name](x), rtol=0, atol=0)


def test_a_lower_temperature_sharpens(rng):
    layers = [SelectLayer(POOL, dense_maker(1, 4, norm=None), tau) for tau in (1.0, 0.1)]
    theta = torch.randn(4, len(POOL), generator=rng)
    for layer in layers:
        layer.theta.data.copy_(theta)

    soft, sharp = (layer.gates().amax(dim=1) for layer in layers)

    assert (sharp > soft).all()


def test_gradients_of_the_gates_sum_to_zero_over_the_families(select, x):
    """A softmax does not see a shift of its row."""
    select.drop_smallest()
    select(x).square().sum().backward()

    assert select.theta.grad.abs().max() > 1e-3
    assert select.theta.grad.sum(dim=1).abs().max() < 1e-10
    assert select.theta.grad[~select.alive].abs().max() == 0


# Drops ------------------------------------------------------------------------------------------------------------------


def test_each_output_loses_the_family_that_weighs_least(select):
    expected = select.theta.argmin(dim=1)

    select.drop_smallest()

    assert (~select.alive).nonzero()[:, 1].tolist() == expected.tolist()


def test_dropping_changes_nothing_but_the_gates(select, x):
    """After each drop: the whole families, weighed by what is left."""
    whole = [part(x) for part in select.layers.values()]
    for _ in range(len(POOL) - 1):
        select.drop_smallest()

        gates = select.gates()
        expected = sum(out * gates[:, a] for a, out in enumerate(whole))
        torch.testing.assert_close(select(x), expected, **EXACT)


def test_pruned_is_the_hard_gate(select, x):
    """One family for each output, the other parameters gone, and the outputs in their old places."""
    best = select.theta.argmax(dim=1)
    expected = by_hand(select, x, F.one_hot(best, len(POOL)).to(x.dtype))

    for _ in range(len(POOL) - 1):
        select.drop_smallest()

    assert select.theta is None
    assert select.chosen() == [POOL[a] for a in best.tolist()]
    torch.testing.assert_close(select(x), expected, **EXACT)
    torch.testing.assert_close(select.gates(), F.one_hot(best, len(POOL)).to(x.dtype), **EXACT)
    rows = {name: part.out_features for name, part in select.layers.items()}
    assert rows == {name: best.tolist().count(a) for a, name in enumerate(POOL) if a in best}
    of_each = {name: make_layer(name, 3, n) for name, n in rows.items()}
    assert count_params(select) == sum(map(count_params, of_each.values()))


def test_choosing_at_once_is_the_same_as_dropping_down_to_it(select, x):
    families = torch.tensor([3, 0, 3, 7, 5])
    expected = by_hand(select, x, F.one_hot(families, len(POOL)).to(x.dtype))

    select.choose(families)

    torch.testing.assert_close(select(x), expected, **EXACT)


def test_what_was_lost_cannot_be_chosen(select):
    select.choose(torch.zeros(5, dtype=torch.int64))

    with pytest.raises(ValueError, match="a family that it has lost"):
        select.choose(torch.ones(5, dtype=torch.int64))


def test_of_equal_weights_the_last_family_goes_first(select):
    """What happens without any training is definite."""
    with torch.no_grad():
        select.theta.zero_()
    for _ in range(len(POOL) - 1):
        select.drop_smallest()

    assert select.chosen() == [POOL[0]] * 5
    assert select.drop_smallest() == []


def test_a_pool_of_one_has_no_gate(rng, x):
    layer = SelectLayer(("jacobi",), dense_maker(3, 4, norm=None))
    layer.layers["jacobi"].reset(rng)

    assert layer.theta is None
    assert torch.equal(layer(x), layer.layers["jacobi"](x))
    assert torch.equal(layer.gates(), torch.ones(4, 1))


@pytest.mark.parametrize("steps", [0, 3, 7])
def test_every_gradient_is_that_of_differences(select, x, steps):
    for _ in range(steps):
        select.drop_smallest()
    with torch.no_grad():
        for part in select.layers.values():
            part.scale_rows(torch.full((part.out_features,), 0.1))

    assert torch.autograd.gradcheck(select, (x.clamp(-0.9, 0.9).requires_grad_(),))


# Scales at first --------------------------------------------------------------------------------------------------------


def test_every_family_starts_with_a_mean_square_of_one(select, rng):
    """Otherwise the gates would choose by scale."""
    x = 2 * torch.rand(400, 3, generator=rng) - 1
    before = [part(x).square().mean().item() for part in select.layers.values()]

    select.normalise(x)

    assert max(before) / min(before) > 10
    for part in select.layers.values():
        torch.testing.assert_close(part(x).square().mean(dim=0), torch.ones(5), rtol=1e-10, atol=0)


def test_a_net_scales_each_layer_on_what_reaches_it(rng, make_ctx):
    net = DenseNet(POOL, (2, 8, 1))
    reset(net, make_ctx())
    x = 2 * torch.rand(300, 2, generator=rng) - 1

    net.start(x)

    first, second = select_layers(net)
    for part in second.layers.values():
        torch.testing.assert_close(part(first(x)).square().mean(dim=0), torch.ones(1), rtol=1e-10, atol=0)


def test_the_layer_that_reads_coordinates_has_no_layer_norm():
    first, second = select_layers(DenseNet(POOL, (2, 8, 1)))

    assert not first.layers["rswaf"].norm
    assert second.layers["rswaf"].norm


def test_a_pool_and_a_single_family_start_from_the_same_weights(make_ctx):
    pool, alone = DenseNet(POOL, (1, 4, 1)), DenseNet(("gram",), (1, 4, 1))
    for net in (pool, alone):
        reset(net, make_ctx(seed=3))

    for a, b in zip(select_layers(pool), select_layers(alone), strict=True):
        assert torch.equal(a.layers["gram"].weight, b.layers["gram"].weight)


# Convolutions -----------------------------------------------------------------------------------------------------------


def as_dense(conv, inputs):
    """The dense layer over a patch, its inputs ordered (row, column, channel), with the convolution's weights."""
    dense = BasisLayer(conv.family, inputs, conv.out_features, norm=False)
    out, k, size = conv.out_features, conv.kernel, conv.basis.size
    with torch.no_grad():
        split = conv.weight.view(out, conv.in_features, size, k, k)
        dense.weight.copy_(split.permute(0, 3, 4, 1, 2).reshape(out, -1))
        if conv.base is not None:
            dense.base.copy_(conv.base.permute(0, 2, 3, 1).reshape(out, -1))
        if conv.bias is not None:
            dense.bias.copy_(conv.bias)
    return dense


@pytest.mark.parametrize("name", POOL)
def test_a_convolution_of_1x1_is_the_dense_layer_at_each_pixel(name, rng):
    conv = ConvLayer(FAMILIES[name], 3, 4, kernel=1)
    conv.reset(rng)
    x = torch.randn(2, 5, 6, 3, generator=rng)

    torch.testing.assert_close(conv(x), as_dense(conv, 3)(x), **EXACT)


@pytest.mark.parametrize("name", POOL)
def test_a_convolution_as_large_as_the_image_is_the_dense_layer(name, rng):
    conv = ConvLayer(FAMILIES[name], 2, 4, kernel=3, padding=0)
    conv.reset(rng)
    x = torch.randn(5, 3, 3, 2, generator=rng)

    got = conv(x)

    assert got.shape == (5, 1, 1, 4)
    torch.testing.assert_close(got[:, 0, 0], as_dense(conv, 18)(x.flatten(1)), **EXACT)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (1, 0)])
@pytest.mark.parametrize("name", POOL)
def test_once_a_pixel_is_the_same_as_once_a_patch(name, stride, padding, rng):
    """Unfolding zero-padded patches and applying the dense layer to each: the form of the authors' code."""
    conv = ConvLayer(FAMILIES[name], 2, 4, 3, stride, padding)
    conv.reset(rng)
    x = torch.randn(3, 6, 5, 2, generator=rng)
    patches = F.unfold(x.permute(0, 3, 1, 2), 3, padding=padding, stride=stride)  # (N, C * 9, L), channels outermost
    patches = patches.view(3, 2, 9, -1).permute(0, 3, 2, 1).flatten(2)

    got = conv(x)

    torch.testing.assert_close(got.flatten(1, 2), as_dense(conv, 18)(patches), **EXACT)


def test_a_pruned_convolution_keeps_its_channels_in_place(rng, make_ctx):
    net = ConvNet(POOL, (1, 8, 8), (4, 6), 3)
    reset(net, make_ctx())
    x = torch.randn(5, 1, 8, 8, generator=rng)
    net.start(x)
    layer = select_layers(net)[0]
    pixels = x.permute(0, 2, 3, 1)
    whole = torch.stack([part(pixels) for part in layer.layers.values()], dim=-1)
    families = torch.tensor([6, 1, 6, 2])

    layer.choose(families)

    torch.testing.assert_close(layer(pixels), torch.stack([whole[..., o, a] for o, a in enumerate(families)], dim=-1), **EXACT)


def test_too_small_an_image_is_refused():
    with pytest.raises(ValueError, match="2 layers halve 3x3 pixels too often"):
        ConvNet(POOL, (1, 3, 3), (4, 6), 3)


def test_an_unknown_family_is_refused():
    with pytest.raises(ValueError, match="family: got 'fourier'; use one of b-spline"):
        ConvNet(("fourier",), (1, 8, 8), (4, 6), 3)
