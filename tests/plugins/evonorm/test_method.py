"""The six EvoNorms against loops over the paper's formulas, the card's golden values and their invariances."""

from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from harness_papers.evonorm import METHODS, B0Params, BParams, SParams
from harness_papers.evonorm import method as evonorm
from harness_papers.evonorm.method import (
    Affine,
    EvoNormB,
    EvoNormS,
    batch_variance,
    choose_groups,
    evonorm_b0,
    evonorm_b1,
    evonorm_b2,
    evonorm_s0,
    evonorm_s1,
    evonorm_s2,
)
from pydantic import ValidationError
from torch import Tensor, nn

from harness.lab import Unsupported

B_FORMS, S_FORMS = ("b0", "b1", "b2"), ("s0", "s1", "s2")
FORMS = (*B_FORMS, *S_FORMS)
PARAMS = {"b0": B0Params, "b1": BParams, "b2": BParams, "s0": SParams, "s1": SParams, "s2": SParams}


def place(features: int = 4, dims: int = 2, role: str = "hidden") -> SimpleNamespace:
    return SimpleNamespace(features=features, dims=dims, activated=role in ("hidden", "join"), role=role)


def build(form: str, where: SimpleNamespace, **params: object) -> nn.Module:
    return getattr(evonorm, f"build_{form}")(where, PARAMS[form](**params))


def layer(form: str, features: int = 4, groups: int = 2, eps: float | None = None) -> nn.Module:
    """A fresh layer, with the card's eps unless given."""
    params = {} if eps is None else {"eps": eps}
    return build(form, place(features), **(params | ({"groups": groups} if form in S_FORMS else {})))


def randomised(module: nn.Module, rng: torch.Generator) -> nn.Module:
    """Parameters away from 1 and 0, so that a swapped or forgotten one shows."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=rng))
    return module


# (t: the value, v; vb, vi, mi, vg, mg: the statistics with eps added) -> the value before the affine step. The card's table.
FORMULAS = {
    "b0": lambda t, v, vb, vi, mi, vg, mg: t / max(math.sqrt(vb), v * t + math.sqrt(vi)),
    "b1": lambda t, v, vb, vi, mi, vg, mg: t / max(math.sqrt(vb), (t + 1) * math.sqrt(mi)),
    "b2": lambda t, v, vb, vi, mi, vg, mg: t / max(math.sqrt(vb), math.sqrt(mi) - t),
    "s0": lambda t, v, vb, vi, mi, vg, mg: t / (1 + math.exp(-v * t)) / math.sqrt(vg),
    "s1": lambda t, v, vb, vi, mi, vg, mg: t / (1 + math.exp(-t)) / math.sqrt(vg),
    "s2": lambda t, v, vb, vi, mi, vg, mg: t / (1 + math.exp(-t)) / math.sqrt(mg),
}


def by_loops(form: str, x: Tensor, p: dict[str, Tensor], batch_var: Tensor, groups: int, eps: float) -> Tensor:
    """The layer, value by value: the oracle."""
    n, c, _, w = x.shape
    y, size = torch.empty_like(x), c // groups
    for i in range(n):
        for j in range(c):
            start = j // size * size
            one = x[i, j].flatten().tolist()
            many = x[i, start : start + size].flatten().tolist()
            statistics = (batch_var[j].item(), variance(one), mean_square(one), variance(many), mean_square(many))
            v = p["v"][j].item() if "v" in p else math.nan  # NaN would show in a form without v
            for k, t in enumerate(one):
                value = FORMULAS[form](t, v, *(s + eps for s in statistics))
                y[i, j, k // w, k % w] = p["gamma"][j].item() * value + p["beta"][j].item()
    return y


def mean_square(values: list[float]) -> float:
    return math.fsum(t * t for t in values) / len(values)


def variance(values: list[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((t - mean) ** 2 for t in values) / len(values)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_each_layer_is_its_formula(form, mode, rng):
    """Element by element, with random v, gamma, beta and two groups of three channels."""
    x = torch.randn(3, 6, 2, 3, generator=rng, dtype=torch.float64) * 2 + 0.5
    module = randomised(layer(form, features=6).double(), rng).train(mode == "train")
    running = torch.rand(6, generator=rng, dtype=torch.float64) + 0.1
    if form in B_FORMS:
        module.running_var.copy_(running)
    batch_var = x.var((0, 2, 3), unbiased=False) if mode == "train" else running

    expected = by_loops(form, x, dict(module.named_parameters()), batch_var, groups=2, eps=module.eps)
    got = module(x)

    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-13)  # float64; sums in another order


# The card's golden values ----------------------------------------------------------------------------------------------

GOLDEN_X = (2 * torch.sin(0.7 * torch.arange(32, dtype=torch.float64) + 0.3) + 0.5).reshape(2, 4, 2, 2).float()
GOLDEN = {  # form: (y[0, 0], sum of y, sum of |y| where the card has it)
    "b0": ([0.677274, 0.807650, 0.826890, 0.780713], 3.82690, 20.23279),
    "b1": ([0.264645, 0.347856, 0.361598, 0.329298], -1.00472, 15.40567),
    "b2": ([0.887137, 1.774974, 2.019222, 1.505008], 20.12667, None),
    "s0": ([0.555081, 1.333334, 1.557751, 1.087176], 18.39314, 22.23635),
    "s1": ([0.555081, 1.333334, 1.557751, 1.087176], 18.39314, 22.23635),
    "s2": ([0.514814, 1.236612, 1.444750, 1.008311], 16.48234, None),
}


@pytest.mark.parametrize(("form", "golden"), GOLDEN.items())
def test_golden_values_of_the_public_implementation(form, golden):
    """Obtained for the card by running timm's file in float32, with each layer's default eps."""
    torch.testing.assert_close(GOLDEN_X[0, 0].flatten(), torch.tensor([1.0910404, 2.1829420, 2.4833296, 1.8509264]))
    first, total, total_abs = golden

    y = layer(form)(GOLDEN_X)

    torch.testing.assert_close(y[0, 0].flatten(), torch.tensor(first), atol=2e-5, rtol=0)  # the card's tolerance
    assert y.sum().item() == pytest.approx(total, abs=2e-5)
    if total_abs is not None:
        assert y.abs().sum().item() == pytest.approx(total_abs, abs=2e-5)


def test_the_running_variance_after_one_step_is_the_golden_one():
    """Start 1, momentum 0.1, and the unbiased factor in the running value only."""
    module = layer("b0")
    module(GOLDEN_X)

    golden = torch.tensor([1.072858, 1.109280, 1.122505, 1.106596])
    torch.testing.assert_close(module.running_var, golden, atol=2e-5, rtol=0)
    torch.testing.assert_close(module.running_var, 0.9 + 0.1 * GOLDEN_X.var((0, 2, 3)), rtol=1e-6, atol=0)


def test_evaluation_after_one_step_uses_the_running_variance():
    """Golden values of B2 in eval mode right after one training step."""
    module = layer("b2")
    module(GOLDEN_X)

    y = module.eval()(GOLDEN_X)

    torch.testing.assert_close(y[0, 0].flatten(), torch.tensor([1.053338, 2.107507, 2.397514, 1.786965]), atol=2e-5, rtol=0)


# Invariants -------------------------------------------------------------------------------------------------------------


def test_b0_with_v_zero_on_single_pixels_is_uncentred_batch_norm(rng):
    """Then the map's own deviation is sqrt(eps), never above the batch's."""
    x = torch.randn(8, 4, 1, 1, generator=rng, dtype=torch.float64)
    one, zero = torch.ones(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)

    got = evonorm_b0(x, batch_variance(x), zero, one, zero)

    expected = x / (x.var((0, 2, 3), unbiased=False) + 1e-3).sqrt().view(1, 4, 1, 1)
    torch.testing.assert_close(got, expected, rtol=1e-14, atol=0)


def test_b0_keeps_the_sign_of_its_input(rng):
    """The denominator is at least the batch's deviation, also where v x is far below 0 (claim E4: no activation)."""
    x = torch.randn(8, 4, 5, 5, generator=rng) * 10
    v, one, zero = torch.tensor([5.0, -5.0, 1.0, 0.0]), torch.ones(4), torch.zeros(4)

    y = evonorm_b0(x, batch_variance(x), v, one, zero)

    assert torch.equal(y.sign(), x.sign())


def test_b0_does_not_centre_its_input(rng):
    """Claim E4: a shifted input gives another output, where batch norm gives the same."""
    x = torch.randn(8, 4, 5, 5, generator=rng)
    module = layer("b0")

    assert (module(x + 3) - module(x)).abs().max() > 0.1
    torch.testing.assert_close(nn.BatchNorm2d(4)(x + 3), nn.BatchNorm2d(4)(x), atol=1e-4, rtol=0)  # float32 at mean 3


SCALE_FREE = {
    "b0": lambda x, v, one, zero: evonorm_b0(x, batch_variance(x), v, one, zero, eps=0.0),
    "b1": lambda x, v, one, zero: evonorm_b1(x, batch_variance(x), one, zero, eps=0.0),
    "b2": lambda x, v, one, zero: evonorm_b2(x, batch_variance(x), one, zero, eps=0.0),
    "s0": lambda x, v, one, zero: evonorm_s0(x, v, one, zero, 2, eps=0.0),
    "s1": lambda x, v, one, zero: evonorm_s1(x, one, zero, 2, eps=0.0),
    "s2": lambda x, v, one, zero: evonorm_s2(x, one, zero, 2, eps=0.0),
}


@pytest.mark.parametrize("scale", [0.1, 3.0, 100.0])
@pytest.mark.parametrize("form", FORMS)
def test_only_b0_and_b2_do_not_see_the_scale_of_their_input(form, scale, rng):
    """Without eps. B1 sees it through x + 1, the S layers through the sigmoid."""
    x = torch.randn(4, 4, 3, 3, generator=rng, dtype=torch.float64)
    v, one, zero = torch.randn(4, generator=rng, dtype=torch.float64), x.new_ones(4), x.new_zeros(4)

    base, scaled = (SCALE_FREE[form](t, v, one, zero) for t in (x, scale * x))

    if form in ("b0", "b2"):
        torch.testing.assert_close(scaled, base, rtol=1e-12, atol=1e-14)  # float64 rounding
    else:
        assert (scaled - base).abs().max() > 0.1


def test_s1_is_s0_with_v_one(rng):
    """S1 is the search's S0 without the learned v."""
    x = torch.randn(4, 8, 3, 3, generator=rng, dtype=torch.float64)
    one, zero = x.new_ones(8), x.new_zeros(8)

    torch.testing.assert_close(evonorm_s0(x, one, one, zero, 2), evonorm_s1(x, one, zero, 2), rtol=1e-13, atol=1e-15)


def test_s2_is_s1_where_group_means_vanish(rng):
    """The mean square is then the variance."""
    x = torch.randn(4, 8, 3, 3, generator=rng, dtype=torch.float64)
    centred = x - x.reshape(4, 2, -1).mean(2).repeat_interleave(4, 1)[:, :, None, None]
    one, zero = x.new_ones(8), x.new_zeros(8)

    torch.testing.assert_close(evonorm_s2(centred, one, zero, 2), evonorm_s1(centred, one, zero, 2), rtol=1e-12, atol=1e-15)
    assert not torch.allclose(evonorm_s2(x, one, zero, 2), evonorm_s1(x, one, zero, 2))


@pytest.mark.parametrize(
    ("form", "mode"), [*((f, m) for f in S_FORMS for m in ("train", "eval")), *((f, "eval") for f in B_FORMS)]
)
def test_a_sample_is_treated_alike_in_any_batch(form, mode, rng):
    """To the bit: permuted, shortened or alone. B layers in training are the exception that gives them their name."""
    x = torch.randn(6, 8, 4, 4, generator=rng)
    module = randomised(layer(form, features=8), rng).train(mode == "train")
    order = torch.tensor([3, 0, 5, 1, 4, 2])

    y = module(x)

    assert torch.equal(module(x[order]), y[order])
    assert torch.equal(module(x[:2]), y[:2])
    assert torch.equal(module(x[4:5]), y[4:5])


@pytest.mark.parametrize("form", B_FORMS)
def test_b_layers_in_training_see_the_batch(form, rng):
    """So a test that finds no batch dependence in them would be blind."""
    x = torch.randn(6, 4, 4, 4, generator=rng)
    x[3:] *= 5
    module = layer(form)

    assert not torch.allclose(module(x)[:3], module(x[:3]))


@pytest.mark.parametrize("form", S_FORMS)
def test_channels_of_a_group_can_be_permuted(form, rng):
    """With equal parameters the outputs are permuted and nothing else; across groups they change."""
    x = torch.randn(2, 8, 3, 3, generator=rng, dtype=torch.float64)
    module = layer(form, features=8).double()
    within, across = [2, 0, 3, 1, 5, 4, 7, 6], [4, 1, 2, 3, 0, 5, 6, 7]

    y = module(x)

    torch.testing.assert_close(module(x[:, within]), y[:, within], rtol=1e-13, atol=1e-15)  # sums in another order
    assert not torch.allclose(module(x[:, across]), y[:, across])


@pytest.mark.parametrize("form", S_FORMS)
def test_s_layers_are_the_same_in_training_and_evaluation(form, rng):
    """They keep no state."""
    x = torch.randn(2, 4, 3, 3, generator=rng)
    module = layer(form)

    assert torch.equal(module.train()(x), module.eval()(x))
    assert not list(module.buffers())


# Numbers and gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_gradients_pass_gradcheck(form, mode, rng):
    """Of the input and of every parameter; random inputs have no ties in the maximum."""
    x = torch.randn(2, 4, 2, 3, generator=rng, dtype=torch.float64, requires_grad=True)
    module = randomised(layer(form).double(), rng).train(mode == "train")
    names, values = zip(*((n, p.detach().clone().requires_grad_()) for n, p in module.named_parameters()), strict=True)

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        if form in B_FORMS:
            module.running_var.fill_(1.0)  # finite differences call it many times
        return torch.func.functional_call(module, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(call, (x, *values))


@pytest.mark.parametrize("form", FORMS)
def test_single_pixels_give_finite_values_and_gradients(form, rng):
    """With an unbiased variance of one value they would be NaN."""
    x = torch.randn(5, 4, 1, 1, generator=rng, requires_grad=True)

    y = layer(form)(x)
    y.sum().backward()

    assert y.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
def test_constant_maps_give_finite_values_and_gradients(form):
    """Their variance is 0: eps under the root keeps the root's slope finite."""
    x = torch.full((2, 4, 3, 3), 2.0, requires_grad=True)

    y = layer(form)(x)
    y.sum().backward()

    assert y.isfinite().all()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_statistics_of_half_precision_maps_are_taken_in_single(form, dtype, rng):
    """In float16 a sum of squares over 32 x 32 x 4 values near 20 would be infinite."""
    x = (torch.randn(2, 8, 32, 32, generator=rng) * 20).to(dtype)
    module = layer(form, features=8)

    y, expected = module.to(dtype)(x), layer(form, features=8)(x.float())

    assert y.dtype == dtype
    # 1 / max|y| units of half precision: three roundings (numerator, denominator, affine)
    torch.testing.assert_close(y.float(), expected, rtol=4 * torch.finfo(dtype).eps, atol=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("form", B_FORMS)
def test_the_running_variance_holds_no_graph_and_spoils_none(form, rng):
    """A backward pass through an earlier evaluation still works after a training step has moved the buffer."""
    x = torch.randn(4, 4, 3, 3, generator=rng, requires_grad=True)
    module = layer(form)

    evaluated = module.eval()(x)
    module.train()(x)
    evaluated.sum().backward()

    assert module.running_var.grad_fn is None
    assert not module.running_var.requires_grad
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("form", B_FORMS)
def test_the_gradient_passes_through_the_batch_variance_in_training(form, rng):
    """The statistics belong to the layer's function: detached ones would be another layer."""
    x = torch.randn(3, 4, 2, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    module = layer(form).double()

    through = torch.autograd.grad(module(x).square().sum(), x)[0]
    module.eval().running_var.copy_(batch_variance(x.detach()))
    beside = torch.autograd.grad(module(x).square().sum(), x)[0]

    assert (through - beside).abs().max() > 1e-3


@pytest.mark.parametrize("form", B_FORMS)
def test_training_on_one_value_a_channel_is_refused(form):
    """Its unbiased variance does not exist; batch norm refuses it too. Evaluation is fine."""
    x = torch.ones(1, 4, 1, 1)

    with pytest.raises(ValueError, match="train with a batch of 2 or more"):
        layer(form)(x)
    assert layer(form).eval()(x).isfinite().all()


def test_the_running_variance_converges_to_that_of_the_data(rng):
    """After many steps evaluation divides by what training divided by."""
    module = EvoNormB(2, "b2", eps=1e-5)
    for _ in range(200):
        module(torch.randn(64, 2, 4, 4, generator=rng) * torch.tensor([1.0, 3.0]).view(1, 2, 1, 1))

    # 0.1 / (2 - 0.1) of the variance of one estimate of 1024 values: 0.01 relative; four of them
    torch.testing.assert_close(module.running_var, torch.tensor([1.0, 9.0]), rtol=0.04, atol=0)


@pytest.mark.parametrize("form", FORMS)
def test_the_input_is_not_written_to(form, rng):
    """A residual block reads it again."""
    x = torch.randn(2, 4, 3, 3, generator=rng)
    before = x.clone()

    layer(form)(x)

    assert torch.equal(x, before)


# The components ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (4, 1), (8, 1), (16, 2), (20, 2), (32, 4), (64, 8), (256, 32), (512, 32)]
)
def test_the_default_makes_groups_of_about_eight_channels_and_32_in_wide_nets(channels, groups):
    """The paper's 32 groups where its widths are, and something that exists in the small nets."""
    assert choose_groups(channels) == groups


def test_groups_can_be_given_by_number_or_by_size():
    """As in the public implementation."""
    assert choose_groups(48, groups=3) == 3
    assert choose_groups(48, group_size=3) == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": 17}, r"default of 2 groups \(C // 8\) does not divide C=17; write groups: 1 or 17"),
        (
            {"channels": 12, "groups": 8},
            r"groups=8 does not divide C=12; write groups: 1, 2, 3, 4, 6 or 12, or change",
        ),
        ({"channels": 6, "group_size": 4}, r"group_size=4 does not divide C=6; write group_size: 1, 2, 3 or 6"),
    ],
)
def test_groups_that_do_not_divide_are_refused_with_those_that_do(arguments, message):
    """The trial ends as unsupported and its error is the mend."""
    with pytest.raises(Unsupported, match=message):
        choose_groups(**arguments)


def test_groups_and_group_size_together_are_refused():
    """One would be ignored in silence."""
    with pytest.raises(ValueError, match="give one of the two"):
        choose_groups(8, groups=2, group_size=4)


def test_a_number_of_groups_below_one_is_refused():
    """Before anything runs."""
    with pytest.raises(ValidationError):
        SParams(groups=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("dims", "shape"), [(0, r"\(N, C\)"), (1, r"\(N, T, C\)")])
def test_places_without_maps_are_refused_with_the_mend(form, dims, shape):
    """An MLP or a transformer has no H and W to take statistics over."""
    with pytest.raises(Unsupported, match=rf"evonorm-{form} needs feature maps.*has {shape}: use net.arch cnn or resnet8"):
        build(form, place(dims=dims))


@pytest.mark.parametrize("form", FORMS)
def test_in_front_of_a_residual_sum_stands_a_plain_affine_map(form, rng):
    """Neither normalised nor activated; the residual branch starts at 0 and the shortcut at 1, as in the authors' code."""
    x = torch.randn(2, 4, 3, 3, generator=rng)
    residual, shortcut, asked = (
        build(form, place(role="residual")),
        build(form, place(role="shortcut")),
        build(form, place(role="residual"), residual_gamma=0.5),
    )

    assert isinstance(residual, Affine)
    assert torch.equal(residual(x), torch.zeros_like(x))
    assert torch.equal(shortcut(x), x)
    assert torch.equal(asked(x), 0.5 * x)
    with torch.no_grad():
        shortcut.gamma.copy_(torch.arange(4.0))
        shortcut.beta.copy_(torch.tensor([0.0, 10.0, 20.0, 30.0]))
    torch.testing.assert_close(shortcut(x)[:, 3], 3 * x[:, 3] + 30)


@pytest.mark.parametrize("form", FORMS)
def test_behind_a_residual_sum_stands_a_relu(form):
    """As in the authors' ResNet: the block's last activation has no norm to be joined with."""
    assert isinstance(build(form, place(role="join")), nn.ReLU)


def test_eps_is_the_card_s_for_each_form():
    """1e-3 for B0, 1e-5 for the others."""
    assert {form: layer(form).eps for form in FORMS} == {"b0": 1e-3} | dict.fromkeys(("b1", "b2", "s0", "s1", "s2"), 1e-5)


def test_v_gamma_and_beta_are_vectors_and_start_at_one_one_and_zero():
    """One value a channel, without a second axis: weight decay on matrices leaves them alone. v in B0 and S0 only."""
    for form in FORMS:
        parameters = dict(layer(form).named_parameters())
        assert parameters.keys() == ({"gamma", "beta", "v"} if form in ("b0", "s0") else {"gamma", "beta"})
        for name, p in parameters.items():
            assert torch.equal(p, torch.zeros(4) if name == "beta" else torch.ones(4))


def test_every_form_is_declared_once_with_its_own_code():
    """Six components; each builds the layer of its name."""
    assert {m.name: m.build for m in METHODS} == {
        f"evonorm-{form}": f"harness_papers.evonorm.method:build_{form}" for form in FORMS
    }
    assert all(isinstance(layer(form), EvoNormB if form in B_FORMS else EvoNormS) for form in FORMS)
    assert all(layer(form).form == form for form in FORMS)


def test_importing_the_declarations_imports_no_torch():
    """`harness list` loads every paper; torch costs more than a second."""
    code = "import sys, harness_papers.evonorm; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
