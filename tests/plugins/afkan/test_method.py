"""AF-KAN against the paper's formulas written as loops, the card's golden values, and its invariants."""

from __future__ import annotations

import itertools
import subprocess
import sys
from math import exp

import pytest
import torch
from harness_papers.afkan import METHODS, LayerParams, NormLinearParams
from harness_papers.afkan.method import (
    ACTIVATIONS,
    AFKAN,
    COMBINATIONS,
    REDUCTIONS,
    GlobalAttention,
    Multistep,
    NormLinear,
    Phases,
    SpatialAttention,
    build,
    build_control,
    feature_range,
    make_features,
    make_phases,
    weighted_sums,
)
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F


def start(module: nn.Module, rng: torch.Generator) -> nn.Module:
    """As `init_net` would: every part that can draws its own values."""
    for part in module.modules():
        if isinstance(part, NormLinear | Multistep | SpatialAttention):
            part.reset(rng)
    return module


def layer(rng: torch.Generator, inputs: int = 12, outputs: int = 5, **params: str | int) -> AFKAN:
    made = start(build(inputs, outputs, LayerParams(**params)).double(), rng)
    assert isinstance(made, AFKAN)
    return made


def scaled(f: Tensor, over: str) -> Tensor:
    """The paper's func_norm in its two steps, on features (M, N, D)."""
    if over == "none":
        return f
    if over == "sample":
        return torch.cat([scaled(f[:, n : n + 1], "batch") for n in range(f.shape[1])], dim=1)
    f = f / f.square().sum().sqrt()
    return (f - f.min()) / (f.max() - f.min())


# The public code ----------------------------------------------------------------------------------------------------------

# Outputs of AF_KANLayer (https://github.com/hoangthangta/All-KAN, models/af_kan.py at 825c8fb; float64), which we ran
# once on two items of 4 inputs, g = 2, k = 1, with `wave` for all weights, by (reduction, scaled over the batch, act, func).
PUBLIC = {
    ("global_attn", True, "silu", "quad1"): (
        (-1.2599574179, 0.3296476223, 0.829013287), (-0.1922032648, -1.2886020522, 1.8767762874),
    ),
    ("global_attn", True, "tanh", "cubic1"): (
        (0.6325631629, 0.070716866, -0.7250104195), (0.8645937586, -1.3739873056, 0.9316023163),
    ),
    ("global_attn", False, "silu", "quad1"): (
        (-1.2303072536, 0.3070726335, 0.8288751176), (-0.1922068681, -1.249596029, 1.825787814),
    ),
    ("global_attn", False, "tanh", "cubic1"): (
        (0.5454910157, 0.0496016908, -0.6103346733), (0.779434552, -1.3601108283, 0.9986209812),
    ),
    ("multistep", True, "silu", "quad1"): (
        (-1.1382468458, 0.251004602, 0.8101117319), (-0.173557737, -1.3506231552, 1.9392101562),
    ),
    ("multistep", True, "tanh", "cubic1"): (
        (0.6763019515, 0.0827769345, -0.7845151819), (1.0020207081, -1.2433324813, 0.623371982),
    ),
    ("multistep", False, "silu", "quad1"): (
        (-1.1380624197, 0.2509204594, 0.8100373045), (-0.173169677, -1.3491004906, 1.9368315361),
    ),
    ("multistep", False, "tanh", "cubic1"): (
        (0.6762834197, 0.0826720595, -0.7843595484), (1.0000576003, -1.2421608198, 0.6238033916),
    ),
    ("spatial_attn", True, "silu", "quad1"): (
        (-1.1897722639, 0.3081937732, 0.7868744762), (-0.2021171753, -1.2564905923, 1.844711296),
    ),
    ("spatial_attn", True, "tanh", "cubic1"): (
        (0.3452639693, -0.0554355097, -0.2727938348), (-1.1957000446, 0.6422234439, 0.3561295301),
    ),
    ("spatial_attn", False, "silu", "quad1"): (
        (-1.197973898, 0.2965288797, 0.8103254768), (-0.2009288848, -1.2351159379, 1.8155801925),
    ),
    ("spatial_attn", False, "tanh", "cubic1"): (
        (0.4858427777, 0.0002172374, -0.4861267694), (0.1651030959, -1.1620244931, 1.3539966984),
    ),
}  # fmt: skip


def wave(count: int, shift: int) -> Tensor:
    return torch.sin(torch.arange(1, count + 1, dtype=torch.float64) + shift)


@pytest.mark.parametrize(("variant", "expected"), PUBLIC.items(), ids=str)
def test_a_layer_has_the_outputs_of_the_public_code(variant, expected):
    """The whole layer: each reduction, its temperature, norm and weights, scaled over the batch as there and not at all."""
    reduction, scaled_over_batch, act, func = variant
    over = "batch" if scaled_over_batch else "none"
    made = build(4, 3, LayerParams(grid=2, order=1, act=act, func=func, reduction=reduction, func_norm=over)).double()
    with torch.no_grad():
        made.low += 0.1 * wave(3, 0)
        made.high += 0.1 * wave(3, 1)
        made.out.weight.copy_(wave(12, 2).view(3, 4))
        made.out.norm.weight.copy_(1 + 0.1 * wave(4, 3))
        made.out.norm.bias.copy_(0.1 * wave(4, 4))
        if reduction != "multistep":
            made.reduction.temperature.fill_(1.5)
        if reduction == "spatial_attn":
            made.reduction.weight.copy_(wave(9, 6).view(3, 1, 3))
            made.reduction.bias.copy_(0.1 * wave(3, 7))
        else:
            mean = made.reduction if reduction == "multistep" else made.reduction.mean
            mean.weight.copy_(wave(3, 5))
            mean.bias.fill_(0.25)

    torch.testing.assert_close(made(wave(8, 8).view(2, 4)), torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-8)


# The features -----------------------------------------------------------------------------------------------------------


def test_the_phases_are_the_card_s():
    """g = k = 3."""
    low, high = make_phases(3, 3, torch.float64)

    torch.testing.assert_close(low, torch.tensor([-3, -2, -1, 0, 1, 2], dtype=torch.float64) / 3)
    torch.testing.assert_close(high, torch.tensor([1, 2, 3, 4, 5, 6], dtype=torch.float64) / 3)


def test_the_features_at_the_grid_s_centre_are_those_of_the_public_code():
    """Its run, to the digits of the card."""
    golden = [0.008780, 0.006448, 0.032684, 0.032684, 0.006448, 0.008780]
    x = torch.tensor([[0.5]], dtype=torch.float64)
    f = make_features(x, make_phases(3, 3, torch.float64), F.silu, "quad1")

    torch.testing.assert_close(f.flatten(), torch.tensor(golden, dtype=torch.float64), atol=1e-6, rtol=0)


def numbers(x: float, low: float, high: float, func: str) -> float:
    """One feature by hand, with SiLU: the oracle."""
    u, v = ((z / (1 + exp(-z))) for z in (x - low, high - x))
    return {
        "quad1": (u * v) ** 2, "quad2": u * v + u * u + v * v, "sum": u + v, "prod": u * v, "sum_prod": u + v + u * v,
        "cubic1": (u + v) * (u * u + v * v), "cubic2": (u * v) ** 3,
    }[func]  # fmt: skip


@pytest.mark.parametrize("func", COMBINATIONS)
def test_a_feature_is_what_the_formula_says(func, rng):
    """Each of the seven combinations, function by function, input by input."""
    x, phases = torch.randn(3, 2, generator=rng, dtype=torch.float64), make_phases(2, 1, torch.float64)
    f = make_features(x, phases, F.silu, func)

    expected = [
        [[numbers(v, lo, hi, func) for v in row] for row in x.tolist()]
        for lo, hi in zip(*map(Tensor.tolist, phases), strict=True)
    ]
    torch.testing.assert_close(f, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)  # rounding only


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("func", COMBINATIONS)
def test_features_mirror_at_the_grid_s_centre(act, func, rng):
    """f_j(1/2 + t) = f_{M-1-j}(1/2 - t): all functions of a layer are one, moved and turned round."""
    t, phases = torch.randn(4, 6, generator=rng, dtype=torch.float64), make_phases(3, 3, torch.float64)
    right, left = (make_features(0.5 + s * t, phases, ACTIVATIONS[act], func) for s in (1, -1))

    torch.testing.assert_close(right, left.flip(0), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(("grid", "order"), [(3, 3), (5, 2), (1, 0)])
def test_with_relu_the_functions_are_relu_kan_s_bumps(grid, order):
    """In [0, 1] under ReLU-KAN's factor, 1 in the middle of [low, high], 0 outside."""
    phases, factor = make_phases(grid, order, torch.float64), 16 * grid**4 / (order + 1) ** 4
    x = torch.linspace(-3, 4, 2001, dtype=torch.float64)[:, None]
    bumps = factor * make_features(x, phases, F.relu, "quad1")[..., 0]
    middle = (phases.low + phases.high) / 2
    peaks = factor * make_features(middle[:, None], phases, F.relu, "quad1")[..., 0].diagonal()

    assert bumps.min() >= 0
    assert bumps.max() <= 1 + 1e-12
    torch.testing.assert_close(peaks, torch.ones_like(peaks))
    at = x.T
    inside = (at > phases.low[:, None]) & (at < phases.high[:, None])
    assert torch.equal(bumps > 0, inside)


def test_without_an_activation_the_sum_is_constant(rng):
    """(x - low) + (high - x) = (k + 1) / g."""
    x = torch.randn(5, 4, generator=rng, dtype=torch.float64)
    f = make_features(x, make_phases(3, 2, torch.float64), lambda z: z, "sum")

    torch.testing.assert_close(f, torch.ones_like(f))  # (2 + 1) / 3


# func_norm --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["sample", "batch", "none"])
def test_sums_of_scaled_features_are_those_of_the_two_steps_in_full(over, rng):
    """The L2 norm cancels, and what is linear is scaled afterwards."""
    f = torch.randn(6, 4, 9, generator=rng, dtype=torch.float64)
    weights = torch.randn(2, 6, generator=rng, dtype=torch.float64)

    got = weighted_sums(weights, f, feature_range(f, over))
    torch.testing.assert_close(got, torch.einsum("kj,jnd->knd", weights, scaled(f, over)))


@pytest.mark.parametrize("over", ["sample", "batch"])
def test_scaled_features_fill_zero_to_one(over, rng):
    f = torch.randn(6, 4, 9, generator=rng, dtype=torch.float64)
    within = feature_range(f, over)
    filled = (f - within.least) / within.span
    ends = [(filled[:, n].min(), filled[:, n].max()) for n in range(4)] if over == "sample" else [(filled.min(), filled.max())]

    assert [(float(low), float(high)) for low, high in ends] == [(0.0, 1.0)] * len(ends)


def test_features_that_are_all_equal_become_nothing_and_give_finite_gradients():
    """An item of zeros (a black picture under ReLU, say) must not end a training."""
    f = torch.zeros(6, 2, 9, dtype=torch.float64, requires_grad=True)
    sums = weighted_sums(torch.ones(1, 6, dtype=torch.float64), f, feature_range(f, "sample"))
    sums.sum().backward()

    assert torch.equal(sums, torch.zeros_like(sums))
    assert f.grad.isfinite().all()


# The reductions ---------------------------------------------------------------------------------------------------------


def test_global_attention_weighs_the_inputs(rng):
    """Weights are positive and sum to 1 over the inputs; the softmax is over D, its temperature at least 1."""
    f = torch.rand(6, 3, 16, generator=rng, dtype=torch.float64)
    attention = start(GlobalAttention(16, 6).double(), rng)
    scores = attention.mean(f, None)
    got = attention(f, None)

    weights = attention.weigh(scores)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, dtype=torch.float64))
    assert (weights > 0).all()
    assert attention.temperature.item() == 4.0
    by_hand = (scores / 4).exp() / (scores / 4).exp().sum(-1, keepdim=True)
    torch.testing.assert_close(got, by_hand * f.sum(0))
    with torch.no_grad():
        attention.temperature.fill_(0.1)
    torch.testing.assert_close(attention.weigh(scores), torch.softmax(scores, -1))


def test_spatial_attention_weighs_the_functions(rng):
    """A window of three inputs, for each function by itself, zeros beyond the ends; weights sum to 1 over M."""
    f = torch.rand(4, 2, 5, generator=rng, dtype=torch.float64)
    attention = start(SpatialAttention(5, 4).double(), rng)
    scores = torch.zeros(4, 2, 5, dtype=torch.float64)
    for j, n, d in itertools.product(range(4), range(2), range(5)):
        taps = [f[j, n, d + k] * attention.weight[j, 0, 1 + k] for k in (-1, 0, 1) if 0 <= d + k < 5]
        scores[j, n, d] = sum(taps) + attention.bias[j]
    weights = torch.softmax(scores / 5**0.5, dim=0)

    torch.testing.assert_close(attention.weigh(f), weights)
    torch.testing.assert_close(weights.sum(0), torch.ones(2, 5, dtype=torch.float64))
    torch.testing.assert_close(attention(f, None), (weights * f).sum(0))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("over", ["sample", "batch", "none"])
def test_every_reduction_sees_the_scaled_features(reduction, over, rng):
    """With their range beside them, or scaled beforehand."""
    f = torch.randn(6, 3, 8, generator=rng, dtype=torch.float64)
    reduce = start(REDUCTIONS[reduction](8, 6).double(), rng)

    torch.testing.assert_close(reduce(f, feature_range(f, over)), reduce(scaled(f, over), None))


# The layer --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("norm", ["layer", "batch", "none"])
def test_a_layer_is_its_parts_in_their_order(reduction, norm, rng):
    """Features, reduction, norm, activation, weights; no bias."""
    made, x = layer(rng, reduction=reduction, norm=norm), torch.randn(7, 12, generator=rng, dtype=torch.float64)
    f = scaled(make_features(x, make_phases(3, 3, torch.float64), F.silu, "quad1"), "sample")
    r = made.reduction(f, None)
    r = {
        "layer": lambda: F.layer_norm(r, (12,)),
        "batch": lambda: F.batch_norm(r, None, None, training=True),
        "none": lambda: r,
    }[norm]()

    torch.testing.assert_close(made(x), F.silu(r) @ made.out.weight.T)


def test_a_net_of_the_paper_s_size_has_its_parameters():
    """784-64-10 with g = k = 3: 2 M + 1 + D O + 2 D + M + 1 a layer, 52,552 in all; the control 52,512."""
    sizes = ((784, 64), (64, 10))
    ours, control = (sum(p.numel() for d, o in sizes for p in made(d, o).parameters()) for made in (
        lambda d, o: build(d, o, LayerParams()), lambda d, o: build_control(d, o, NormLinearParams())))  # fmt: skip

    assert ours == sum(2 * 6 + 1 + d * o + 2 * d + 6 + 1 for d, o in sizes) == 52_552
    assert control == 52_512


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_parameter_is_used(reduction, rng):
    """The public layer holds parameters that nothing reads; here each gets a gradient."""
    made = layer(rng, reduction=reduction)
    made(torch.randn(7, 12, generator=rng, dtype=torch.float64)).square().sum().backward()

    assert [name for name, p in made.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions_are_not_one_and_the_same(reduction, rng):
    """The public net drops `methods`, so that all of its variants are one: here they differ from each other."""
    x = torch.randn(7, 12, generator=rng, dtype=torch.float64)
    others = [layer(torch.Generator().manual_seed(1), reduction=other)(x) for other in REDUCTIONS if other != reduction]
    own = layer(torch.Generator().manual_seed(1), reduction=reduction)(x)

    assert all((own - other).abs().max() > 1e-3 for other in others)


@pytest.mark.parametrize(("func_norm", "alone"), [("sample", True), ("none", True), ("batch", False)])
def test_only_the_public_code_s_scaling_sees_the_rest_of_the_batch(func_norm, alone, rng):
    """The recorded deviation: an outlier among the other items changes no answer but under func_norm: batch."""
    made, x = layer(rng, func_norm=func_norm), torch.randn(8, 12, generator=rng, dtype=torch.float64)
    x[5] *= 10
    together, first = made(x)[:4], made(x[:4])

    assert bool(torch.allclose(together, first, rtol=1e-10)) is alone


@pytest.mark.parametrize("func", COMBINATIONS)
@pytest.mark.parametrize("act", ["silu", "tanh", "softplus"])
def test_gradients_are_right(func, act):
    """Of inputs and of all parameters, against differences; smooth activations only."""
    rng = torch.Generator().manual_seed(3)
    made = layer(rng, inputs=5, outputs=2, func=func, act=act)
    x = torch.randn(3, 5, generator=rng, dtype=torch.float64, requires_grad=True)
    parameters = dict(made.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(made, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters.values()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_dtype_is_kept(dtype, rng):
    made = start(build(12, 5, LayerParams()), rng).to(dtype)

    assert made(torch.randn(4, 12, generator=rng).to(dtype)).dtype == dtype


def test_the_control_is_the_layer_without_its_functions(rng):
    """Norm, activation, weights, as behind AF-KAN's reduction; equal draws give equal weights."""
    control = start(build_control(12, 5, NormLinearParams()).double(), torch.Generator().manual_seed(1))
    ours = layer(rng)
    ours.out.reset(torch.Generator().manual_seed(1))
    x = torch.randn(7, 12, generator=rng, dtype=torch.float64)

    assert torch.equal(control.weight, ours.out.weight)
    torch.testing.assert_close(control(x), F.silu(F.layer_norm(x, (12,))) @ control.weight.T)


def test_weights_start_as_torch_s_own_layers_do(rng):
    """Uniform in +-1 / sqrt(fan_in): Kaiming's with a = sqrt 5."""
    made = layer(rng, inputs=400, outputs=100)
    weight = made.out.weight.detach()

    assert weight.abs().max() <= 1 / 20
    assert weight.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.01)  # 40,000 draws
    assert made.reduction.mean.weight.abs().max() <= 6**-0.5


@pytest.mark.parametrize("wrong", [{"grid": 0}, {"order": -1}, {"func": "quad3"}, {"act": "identity"}, {"func_norm": "layer"}])
def test_a_setting_that_means_nothing_is_refused(wrong):
    with pytest.raises(ValidationError):
        LayerParams(**wrong)


def test_every_choice_of_the_declaration_is_built():
    """What a suite may write, the module knows, and the other way round."""
    fields = LayerParams.model_fields
    for name, table in (("act", ACTIVATIONS), ("func", COMBINATIONS), ("reduction", REDUCTIONS)):
        assert set(fields[name].annotation.__args__) == set(table)


def test_the_declaration_imports_no_torch():
    code = "import sys, harness_papers.afkan; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert {m.name for m in METHODS} == {"afkan", "norm-silu-linear", "layernorm-silu"}


def test_phases_are_trained_and_shared(rng):
    """Two numbers a function, whatever the number of inputs."""
    made = layer(rng, inputs=30)

    assert isinstance(Phases(made.low, made.high).low, nn.Parameter)
    assert made.low.shape == made.high.shape == (6,)
