"""PolyReLU and PolyNorm against loops written from the paper, the card's golden values and the invariants of the formulas."""

from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from harness_papers.polycom import PolyNormParams, PolyParams
from harness_papers.polycom.method import (
    PolyNorm,
    PolyReLU,
    build_polynomial,
    build_polynorm,
    build_polyrelu,
    build_squared_relu,
    effective_rank,
    measure_ranks,
    polynomial,
    polynorm,
    polyrelu,
    squared_relu,
)
from torch import Tensor, nn

from harness.lab import Unsupported

X = torch.tensor([1, -2, 0.5, 3], dtype=torch.float64)
THIRDS = torch.full((3,), 1 / 3, dtype=torch.float64)
NIL = torch.zeros(1, dtype=torch.float64)
FORMULAS = {"polyrelu": polyrelu, "polynorm": polynorm, "polynomial": polynomial}
EVERY = pytest.mark.parametrize("formula", FORMULAS.values(), ids=FORMULAS)


def place(dims: int) -> SimpleNamespace:
    return SimpleNamespace(features=4, dims=dims, activated=True, role="hidden")


def weights(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def loop_polyrelu(row: list[float], w: list[float], b: float) -> list[float]:
    """The authors' formula, number by number; w[0] is the highest power's."""
    order = len(w)
    return [sum(w[i] * max(v, 0.0) ** (order - i) for i in range(order)) + b for v in row]


def loop_polynorm(row: list[float], w: list[float], b: float, eps: float) -> list[float]:
    order = len(w)
    out = [b] * len(row)
    for i in range(order):
        powers = [v ** (order - i) for v in row]
        norm = math.sqrt(math.fsum(p * p for p in powers) / len(row) + eps)
        out = [o + w[i] * p / norm for o, p in zip(out, powers, strict=True)]
    return out


# The formulas -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("formula", "x", "golden"),
    [
        (polyrelu, X, [1, 0, 0.2916666667, 13]),
        (polynorm, X, [0.2675852089, -0.2731914837, 0.1080900144, 1.7745010162]),
        (polynorm, 2 * X, [0.2675852288, -0.2731915162, 0.1080900240, 1.7745010852]),
    ],
)
def test_values_at_the_initial_weights_are_those_of_the_card(formula, x, golden):
    """Golden values, float64, eps 1e-6; the second PolyNorm shows the scale invariance up to eps."""
    got = formula(x, THIRDS, NIL)

    torch.testing.assert_close(got, torch.tensor(golden, dtype=torch.float64), atol=1e-9, rtol=0)  # the card's 10 digits


@pytest.mark.parametrize("w", [(0.7,), (0.5, -1.2), (0.5, -1.2, 2.0), (0.1, 0.5, -1.2, 2.0)], ids=len)
@pytest.mark.parametrize("eps", [1e-6, 0.3])
def test_values_are_those_of_a_loop_at_any_order(w, eps, rng):
    """A loop with Python's floats; the weights differ, so an order turned round is seen."""
    x = torch.randn(5, 7, generator=rng, dtype=torch.float64)
    w, b = list(w), -0.4
    relu = torch.tensor([loop_polyrelu(row, w, b) for row in x.tolist()], dtype=torch.float64)
    norm = torch.tensor([loop_polynorm(row, w, b, eps) for row in x.tolist()], dtype=torch.float64)

    # 1e-12: rounding of powers and of a sum of 7
    torch.testing.assert_close(polyrelu(x, weights(*w), weights(b)), relu, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(polynorm(x, weights(*w), weights(b), eps), norm, rtol=1e-12, atol=1e-12)


@EVERY
def test_gradients_and_their_gradients_pass_gradcheck(formula, rng):
    """Away from the kink at 0, where finite differences say nothing."""
    x = torch.randn(3, 5, generator=rng, dtype=torch.float64)
    x = (x + 0.1 * x.sign()).requires_grad_()
    w, b = weights(0.5, -1.2, 2.0).requires_grad_(), weights(0.3).requires_grad_()

    assert torch.autograd.gradcheck(formula, (x, w, b))
    assert torch.autograd.gradgradcheck(formula, (x, w, b))


def test_the_slope_of_polyrelu_is_that_of_its_cubic_and_0_up_to_0():
    """w2 + 2 w1 x + 3 w0 x^2 on the right; at 0 ReLU's side."""
    x = torch.tensor([-2.0, -1e-9, 0.0, 0.5, 3.0], dtype=torch.float64, requires_grad=True)
    w = weights(0.5, -1.2, 2.0)

    (slope,) = torch.autograd.grad(polyrelu(x, w, NIL).sum(), x)

    expected = [0, 0, 0, 2.0 - 2.4 * 0.5 + 1.5 * 0.25, 2.0 - 2.4 * 3 + 1.5 * 9]
    torch.testing.assert_close(slope, torch.tensor(expected, dtype=torch.float64), rtol=1e-14, atol=0)  # a few roundings


def test_polyrelu_holds_relu_and_squared_relu(rng):
    """What the approximation theorem rests on: with fixed weights it is either of them, to the bit."""
    x = torch.randn(200, generator=rng, dtype=torch.float64)

    assert torch.equal(polyrelu(x, weights(0, 0, 1), NIL), torch.relu(x))
    assert torch.equal(polyrelu(x, weights(0, 1, 0), NIL), squared_relu(x))
    assert torch.equal(polyrelu(x, THIRDS, NIL)[x <= 0], torch.zeros(int((x <= 0).sum()), dtype=torch.float64))


@pytest.mark.parametrize("scale", [0.5, 3.0, 1000.0])
def test_polynorm_does_not_see_the_scale_of_large_inputs(scale, rng):
    """With eps = 0 exactly; with eps = 1e-6 the smallest mean square here, some 10, is changed by 1e-7."""
    x = 2 * torch.randn(6, 32, generator=rng, dtype=torch.float64)
    w = weights(0.5, -1.2, 2.0)

    exact, scaled = polynorm(x, w, NIL, eps=0.0), polynorm(scale * x, w, NIL, eps=0.0)
    usual, usual_scaled = polynorm(x, w, NIL), polynorm(scale * x, w, NIL)

    torch.testing.assert_close(scaled, exact, rtol=1e-12, atol=1e-12)  # rounding
    torch.testing.assert_close(usual_scaled, usual, rtol=0, atol=1e-5)  # eps / 2 over mean squares of 1 and more, times 5


def test_near_0_eps_rules_the_cubic_term(rng):
    """The card's pitfall: at RMS 0.01, mean(x^6) is some 1e-11, far below eps, so the cubic term all but vanishes."""
    x = 0.01 * torch.randn(4, 64, generator=rng, dtype=torch.float64)

    cubic, linear = polynorm(x, weights(1, 0, 0), NIL), polynorm(x, weights(0, 0, 1), NIL)

    assert float(cubic.square().mean().sqrt()) < 0.01
    assert float(linear.square().mean().sqrt()) == pytest.approx(1, abs=0.02)  # eps over 1e-4


def test_each_term_of_polynorm_has_the_size_of_its_weight_and_its_own_symmetry(rng):
    """norm(u) has RMS 1; under x -> -x the square stays and the odd terms turn round."""
    x = torch.randn(4, 64, generator=rng, dtype=torch.float64)
    for power, w in ((3, weights(0.7, 0, 0)), (2, weights(0, 0.7, 0)), (1, weights(0, 0, 0.7))):
        term, mirrored = polynorm(x, w, NIL, eps=0.0), polynorm(-x, w, NIL, eps=0.0)

        sizes = term.square().mean(-1).sqrt()
        torch.testing.assert_close(sizes, torch.full_like(sizes, 0.7), rtol=1e-12, atol=0)  # rounding
        assert torch.equal(mirrored, (-1) ** power * term)


def test_a_norm_does_not_change_along_its_input(rng):
    """Without eps a term does not see the scale: sum_j x_j d/dx_j is 0 for each output."""
    x = torch.randn(16, generator=rng, dtype=torch.float64)
    for w in torch.eye(3, dtype=torch.float64):
        slopes = torch.autograd.functional.jacobian(lambda x, w=w: polynorm(x, w, NIL, eps=0.0), x)

        along = slopes @ x
        torch.testing.assert_close(along, torch.zeros_like(x), rtol=0, atol=1e-13)  # differences of numbers of size 3


@EVERY
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(formula, dtype):
    """30^6 is far beyond float16: only the result may be rounded, and is, once."""
    x, w, b = (
        torch.tensor([[-30, 0.5, 3.0, 30]], dtype=dtype),
        weights(0.5, -1.25, 2.0, dtype=dtype),
        weights(0.25, dtype=dtype),
    )

    got = formula(x, w, b)

    assert got.dtype == dtype
    assert torch.equal(got, formula(x.float(), w.float(), b.float()).to(dtype))
    assert bool(got.isfinite().all())


# The layers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [build_polyrelu, build_polynorm, build_polynomial])
def test_a_layer_adds_four_parameters_that_start_at_a_third_and_0(make):
    """As in the authors' code. One axis each: the reference learner's weight decay leaves them alone."""
    layer = make(place(0), PolyNormParams())

    assert {n: p.tolist() for n, p in layer.named_parameters()} == {"weight": pytest.approx([1 / 3] * 3), "bias": [0.0]}
    assert {p.dim() for p in layer.parameters()} == {1}


@pytest.mark.parametrize("make", [build_polyrelu, build_polynorm, build_polynomial])
def test_frozen_weights_are_no_parameters_and_move_with_the_module(make):
    """The ablation has as many parameters as ReLU."""
    layer = make(place(0), PolyNormParams(learnable=False, order=2))

    assert list(layer.parameters()) == []
    assert layer.double().weight.dtype == torch.float64
    assert layer.state_dict()["weight"].tolist() == [0.5, 0.5]


@pytest.mark.parametrize(("dims", "shape"), [(0, (3, 4)), (1, (3, 5, 4)), (2, (3, 4, 5, 6))])
def test_polynorm_normalises_the_features_at_every_place(dims, shape, rng):
    """Of an item, a token, a pixel: never over tokens, pixels or the batch, so no item sees another."""
    x = torch.randn(shape, generator=rng, dtype=torch.float64)
    layer = build_polynorm(place(dims), PolyNormParams()).double()
    features_last = x.movedim(1, -1) if dims == 2 else x

    expected = polynorm(features_last, THIRDS, NIL)

    got = layer(x).movedim(1, -1) if dims == 2 else layer(x)
    torch.testing.assert_close(got, expected, rtol=1e-7, atol=1e-7)  # 1/3 was made in float32


@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 4), (3, 4, 5, 5)])
def test_elementwise_layers_compute_their_formula_at_every_place(shape, rng):
    x = torch.randn(shape, generator=rng)
    w, b = weights(1 / 3, 1 / 3, 1 / 3, dtype=torch.float32), torch.zeros(1)

    assert torch.equal(build_polyrelu(place(0), PolyParams())(x), polyrelu(x, w, b))
    assert torch.equal(build_polynomial(place(0), PolyParams())(x), polynomial(x, w, b))
    assert torch.equal(build_squared_relu(place(0), None)(x), torch.relu(x) ** 2)


def test_polynorm_reads_eps_from_its_parameters(rng):
    """Otherwise a suite's grid over eps would compare a thing with itself."""
    x = torch.randn(2, 8, generator=rng, dtype=torch.float64)

    got = build_polynorm(place(0), PolyNormParams(eps=0.5)).double()(x)

    torch.testing.assert_close(got, polynorm(x, THIRDS, NIL, 0.5), rtol=1e-7, atol=1e-7)  # 1/3 was made in float32


@pytest.mark.parametrize(("layer", "formula"), [(PolyReLU(), polyrelu), (PolyNorm(), polynorm)])
def test_the_layer_learns_its_weights(layer, formula, rng):
    """A target made with other weights is found again by gradient descent: every gradient has its sign right."""
    x = torch.randn(64, 16, generator=rng, dtype=torch.float64)
    target = formula(x, weights(0.5, -0.2, 0.8), weights(0.3))
    layer = layer.double()
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=100, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        error = (layer(x) - target).square().mean()
        error.backward()
        return error

    optimizer.step(loss)

    torch.testing.assert_close(layer.weight.detach(), weights(0.5, -0.2, 0.8), rtol=0, atol=1e-5)  # where LBFGS stops
    torch.testing.assert_close(layer.bias.detach(), weights(0.3), rtol=0, atol=1e-5)


# Analysis ---------------------------------------------------------------------------------------------------------------


def test_the_effective_rank_counts_equal_singular_values(rng):
    """1 for rank one, n for n equal values, between them otherwise; the scale plays no part."""
    orthogonal = torch.linalg.qr(torch.randn(6, 6, generator=rng, dtype=torch.float64))[0]

    assert effective_rank(torch.outer(torch.arange(1.0, 5), torch.ones(3))) == pytest.approx(1)
    assert effective_rank(7 * orthogonal) == pytest.approx(6)
    assert effective_rank(orthogonal[:4]) == pytest.approx(4)
    assert effective_rank(torch.diag(torch.tensor([0.75, 0.25]))) == pytest.approx(math.exp(0.5623351446))  # entropy by hand
    assert effective_rank(torch.zeros(3, 3)) == 0


def test_the_probe_averages_the_ranks_over_the_blocks_and_refuses_other_nets():
    """The first map of each block and the second are told apart; a net without blocks has nothing to measure."""
    one, two = nn.Module(), nn.Module()
    for block, ranks in ((one, (1, 2)), (two, (3, 2))):
        block.up, block.down = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        for layer, rank in zip((block.up, block.down), ranks, strict=True):
            layer.weight = nn.Parameter(torch.diag(torch.tensor([1.0] * rank + [0.0] * (4 - rank))))
    net = nn.Module()
    net.blocks = nn.Sequential(one, two)

    got = measure_ranks(None, SimpleNamespace(module=net), None)

    assert got == pytest.approx({"ffn_rank_up": 2, "ffn_rank_down": 2})
    with pytest.raises(Unsupported, match=r"net\.arch vit"):
        measure_ranks(None, SimpleNamespace(module=nn.Linear(2, 2)), None)
    with pytest.raises(Unsupported, match=r"net\.arch vit"):
        measure_ranks(None, SimpleNamespace(), None)


# The declarations -------------------------------------------------------------------------------------------------------


def test_importing_the_declarations_imports_no_torch():
    """`harness list` loads every paper; torch costs more than a second."""
    code = "import sys, harness_papers.polycom; sys.exit(any(m in sys.modules for m in ('torch', 'triton')))"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
