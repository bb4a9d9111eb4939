"""The fused B-spline layer against the formula in float64, at the edges of grids and layouts; that it runs; its memory."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch
from harness_papers.kan import c_kernels, fused
from harness_papers.kan.c_kernels import calls
from harness_papers.kan.fused import eager_spline_linear, fused_spline_linear, why_eager
from harness_papers.kan.layers import KANLinear
from harness_papers.kan.splines import Grid
from invoking import run_script
from torch import Tensor
from torch.autograd import profiler

# A machine without a compiler runs the formula, which test_layers.py covers.
pytestmark = pytest.mark.skipif(bool(c_kernels.why_not(3)), reason="no C compiler: the fused CPU code cannot run")

CLOSE = 1e-5  # Kernel.tolerance of float32
SHAPES = [  # rows, in, out: less than a vector, whole tiles, a tile and a half; less and more than a block of 256 rows
    (7, 5, 3), (1, 1, 1), (256, 64, 64), (300, 33, 70), (513, 20, 10), (700, 48, 300), (3, 17, 130), (64, 100, 16),
]  # fmt: skip
GRIDS = [Grid(5, 3), Grid(4, 2), Grid(8, 5), Grid(20, 4, -2.0, 3.0), Grid(1, 3), Grid(3, 1)]
Weights = tuple[Tensor, Tensor, Tensor | None]


def weights_of(features: int, outputs: int, grid: Grid, rng: torch.Generator, scaler: bool = True) -> Weights:
    shapes = ((outputs, features), (outputs, features, grid.bases), (outputs, features))
    base, spline, scale = (torch.randn(shape, generator=rng) for shape in shapes)
    return base, spline, scale if scaler else None


def gradients(fn, x: Tensor, weights: Weights, grid: Grid, g: Tensor, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """The output and the gradients of x and of the weights, in float64. Strides are kept where the dtype is."""
    given = [t if t is None else t.detach().to(dtype).requires_grad_() for t in (x, *weights)]
    y = fn(given[0], given[1], given[2], grid, given[3])
    leaves = [t for t in given if t is not None]
    return tuple(t.detach().double() for t in (y, *torch.autograd.grad(y, leaves, g.to(dtype))))


def assert_right(x: Tensor, weights: Weights, grid: Grid, g: Tensor, tolerance: float = CLOSE) -> None:
    """Output and gradients against float64, over the largest of each. `x` lies on no knot of a grid of order 1."""
    base, spline, scaler = weights
    assert why_eager(x, base, spline, grid, scaler) == ""
    got = gradients(fused_spline_linear, x, weights, grid, g)
    expected = gradients(eager_spline_linear, x, weights, grid, g, torch.float64)

    for ours, theirs in zip(got, expected, strict=True):
        assert ours.shape == theirs.shape
        assert largest(ours - theirs) <= tolerance * largest(theirs)


def largest(t: Tensor) -> float:
    return float(t.abs().max()) if t.numel() else 0.0


def inputs_beyond(grid: Grid, rows: int, features: int, rng: torch.Generator) -> Tensor:
    """Uniform over the grid, its knots beyond and a little more, so that every cell and the outside are met."""
    wide = (grid.order + 1) * grid.step
    return torch.rand(rows, features, generator=rng) * (grid.high - grid.low + 2 * wide) + grid.low - wide


# Right ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scaler", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_output_and_all_gradients_are_the_formulas(shape, scaler, rng):
    """Of tiles that are full, of those that are not, and of several; inside and outside of the grid."""
    rows, features, outputs = shape
    x, g = inputs_beyond(Grid(), rows, features, rng), torch.randn(rows, outputs, generator=rng)

    assert_right(x, weights_of(features, outputs, Grid(), rng, scaler), Grid(), g)


@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_every_order_and_grid_has_the_formulas_values(grid, rng):
    """The library is compiled for each order; the number of cells and the range are the grid's."""
    x, g = inputs_beyond(grid, 90, 18, rng), torch.randn(90, 21, generator=rng)

    assert_right(x, weights_of(18, 21, grid, rng), grid, g)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the flags are x86's")
@pytest.mark.parametrize("flags", [("-mno-avx512vbmi2",), ("-mno-avx512f",), ("-mno-avx512f", "-mno-avx")], ids=str)
@pytest.mark.parametrize("order", [3, 5])
def test_narrower_vectors_and_fewer_registers_give_the_same(flags, order, rng, monkeypatch):
    """Another processor has other tiles, and sorts rows without AVX-512's help."""
    library, grid = c_kernels.library, Grid(5, order)
    monkeypatch.setattr(c_kernels, "library", lambda k: library(k, *flags))
    x, g = inputs_beyond(grid, 300, 20, rng), torch.randn(300, 70, generator=rng)

    assert_right(x, weights_of(20, 70, grid, rng), grid, g)


def test_inputs_on_knots_and_at_both_ends_are_exact(rng):
    """At a knot rounding decides the cell; a cubic and its slope are the same from both sides."""
    grid = Grid()
    x = grid.knots().repeat(3, 1).T.contiguous()  # from -2.2 to 2.2, so -1 and 1 among them
    x = torch.cat([x, torch.nextafter(x, x + 1), torch.nextafter(x, x - 1)])
    weights = weights_of(3, 40, grid, rng)

    assert_right(x, weights, grid, torch.randn(len(x), 40, generator=rng))


def test_beyond_the_knots_only_the_base_is_left(rng):
    """The spline fades to 0 at 2.2; a far input must not index anything."""
    base, spline, _ = weights_of(4, 9, Grid(), rng)
    x = torch.tensor([[2.3, -2.3, 1e30, -1e30], [3.0, -50.0, 2.21, -2.21]])

    y = fused_spline_linear(x, base, spline, Grid())

    torch.testing.assert_close(y, torch.nn.functional.silu(x) @ base.T, rtol=1e-5, atol=1e-5)


def test_nan_and_infinity_come_out_where_the_formula_has_them(rng):
    """A diverging training must not be hidden by a kernel that mends its inputs."""
    weights = weights_of(3, 5, Grid(), rng)
    x = torch.tensor([[0.1, float("nan"), 0.2], [float("inf"), 0.3, 0.1], [-float("inf"), 0.0, 0.4], [0.1, 0.2, 0.3]])
    g = torch.ones(4, 5)
    g[3, 2] = float("nan")

    expected, got = (gradients(f, x, weights, Grid(), g)[0] for f in (eager_spline_linear, fused_spline_linear))

    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5, equal_nan=True)  # float32 in another order
    assert torch.isnan(gradients(fused_spline_linear, x[3:], weights, Grid(), g[3:])[1]).all()


def test_an_empty_batch_gives_no_rows_and_gradients_of_zero(rng):
    """The last batch of a sampler may be empty."""
    weights = weights_of(6, 7, Grid(), rng)

    y, grad_x, *rest = gradients(fused_spline_linear, torch.empty(0, 6), weights, Grid(), torch.empty(0, 7))

    assert y.shape == (0, 7)
    assert grad_x.shape == (0, 6)
    assert all(largest(t) == 0 for t in rest)


def test_long_sums_keep_their_digits(rng):
    """2,000 inputs and 3,000 rows of one sign: one long float32 sum would lose two digits more."""
    grid = Grid()
    x, g = torch.rand(3000, 40, generator=rng), torch.rand(3000, 8, generator=rng)
    base, spline, _ = (t.abs() if t is not None else t for t in weights_of(40, 8, grid, rng))
    wide = torch.rand(5, 2000, generator=rng)

    assert_right(x, (base, spline, None), grid, g, 2e-6)
    assert_right(wide, (*weights_of(2000, 8, grid, rng)[:2], None), grid, torch.rand(5, 8, generator=rng), 2e-6)


# Layouts ----------------------------------------------------------------------------------------------------------------


LAYOUTS = {
    "every second element": lambda t: t.repeat_interleave(2, -1)[..., ::2],
    "a slice of wider rows": lambda t: torch.cat([t, t + 9], -1)[..., : t.shape[-1]],
    "one element past the alignment": lambda t: torch.cat([t.new_zeros(1), t.flatten()])[1:].view(t.shape),
    "first axis last": lambda t: t.movedim(0, -1).contiguous().movedim(-1, 0),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_changes_no_bit(layout, rng):
    """Of x, of each weight and of the upstream gradient; all are read where they lie."""
    weights, grid = weights_of(35, 70, Grid(), rng), Grid()
    x, g = inputs_beyond(grid, 60, 35, rng), torch.randn(60, 70, generator=rng)
    plain = gradients(fused_spline_linear, x, weights, grid, g)

    laid = gradients(fused_spline_linear, layout(x), tuple(map(layout, weights)), grid, layout(g))

    for ours, theirs in zip(laid, plain, strict=True):
        assert torch.equal(ours, theirs)


def test_a_broadcast_gradient_is_read_where_it_lies(rng):
    """`y.sum().backward()` hands down one number with strides 0."""
    x = inputs_beyond(Grid(), 20, 6, rng)

    assert_right(x, weights_of(6, 33, Grid(), rng), Grid(), torch.ones(()).expand(20, 33))


def test_threads_change_no_bit(rng, monkeypatch):
    """Forward they share rows and backward features, so that every sum has the same order; three do not divide either."""
    weights, grid = weights_of(70, 40, Grid(), rng), Grid()
    x, g = inputs_beyond(grid, 1000, 70, rng), torch.randn(1000, 40, generator=rng)
    alone = gradients(fused_spline_linear, x, weights, grid, g)

    monkeypatch.setattr(fused, "_threads", lambda *given: 3)
    shared = gradients(fused_spline_linear, x, weights, grid, g)

    assert all(torch.equal(a, b) for a, b in zip(alone, shared, strict=True))


def test_threads_are_torchs_where_there_is_work_for_them():
    """A small layer starts none."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert fused._threads(torch.empty(4096, 64), torch.empty(64, 64)) == 2
        assert fused._threads(torch.empty(16, 64), torch.empty(64, 64)) == 1
    finally:
        torch.set_num_threads(before)


# Autograd ---------------------------------------------------------------------------------------------------------------


def test_only_wanted_gradients_are_computed_and_they_are_the_same(rng):
    """The first layer of a net needs no gradient of its input; frozen weights need none either."""
    weights, grid = weights_of(9, 20, Grid(), rng), Grid()
    x, g = inputs_beyond(grid, 30, 9, rng), torch.randn(30, 20, generator=rng)
    everything = gradients(fused_spline_linear, x, weights, grid, g)[1:]

    for chosen in range(4):
        given = [t.detach().clone() for t in (x, *weights)]
        given[chosen].requires_grad_()
        fused_spline_linear(given[0], given[1], given[2], grid, given[3]).backward(g)
        assert torch.equal(given[chosen].grad.double(), everything[chosen])
        assert all(t.grad is None for i, t in enumerate(given) if i != chosen)


def test_gradients_pass_gradcheck_on_the_way_without_c(rng):
    """float64 takes the formula, in both derivatives."""
    grid = Grid(3, 3)
    x = inputs_beyond(grid, 4, 2, rng).double().requires_grad_()
    weights = [t.double().requires_grad_() for t in weights_of(2, 3, grid, rng)]

    def run(*t: Tensor) -> Tensor:
        return fused_spline_linear(t[0], t[1], t[2], grid, t[3])

    assert "float64" in why_eager(x, weights[0], weights[1], grid, weights[2])
    assert torch.autograd.gradcheck(run, (x, *weights))
    assert torch.autograd.gradgradcheck(run, (x, *weights))


def test_a_gradient_can_be_differentiated_again(rng):
    """Gradient penalties do so; then the formula gives the graph."""
    weights = weights_of(5, 6, Grid(), rng)
    found = []
    for fn in (fused_spline_linear, eager_spline_linear):
        x = inputs_beyond(Grid(), 8, 5, torch.Generator().manual_seed(3)).requires_grad_()
        (slope,) = torch.autograd.grad(fn(x, weights[0], weights[1], Grid(), weights[2]).sum(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), x)[0])

    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)  # float32; second derivatives of cubics are 6.25 times larger


# What runs --------------------------------------------------------------------------------------------------------------


def test_our_code_runs_and_nothing_is_compiled_by_torch(rng, monkeypatch):
    """One call forward, one backward."""
    monkeypatch.setattr(torch, "compile", lambda *a, **k: pytest.fail("torch.compile was called"))
    layer = KANLinear(12, 10)
    layer.reset(rng)
    before = calls()

    layer(torch.rand(4, 12, generator=rng)).sum().backward()

    assert {name: n - before[name] for name, n in calls().items()} == {"kan_forward": 1, "kan_backward": 1}


def test_the_layer_gives_the_formulas_values_until_its_inputs_have_grids_of_their_own(rng):
    """After an update the knots are no more at equal distances."""
    layer = KANLinear(6, 8)
    layer.reset(rng)
    x = torch.rand(2, 50, 6, generator=rng) * 2 - 1
    expected = eager_spline_linear(x.flatten(0, 1), layer.base_weight, layer.spline_weight, layer.grid, layer.spline_scaler)

    torch.testing.assert_close(layer(x), expected.view(2, 50, 8), rtol=1e-4, atol=1e-6)

    layer.update_grid(x.flatten(0, 1))
    before = calls()
    layer(x)
    assert calls() == before


def test_without_a_compiler_the_formula_runs_and_the_reason_is_said(rng, monkeypatch):
    """Then a row of the kernel is labelled `fallback`."""
    monkeypatch.setattr(c_kernels, "why_not", lambda order: "no C compiler is found")
    base, spline, scaler = weights_of(5, 4, Grid(), rng)
    x = torch.rand(3, 5, generator=rng)

    assert why_eager(x, base, spline, Grid(), scaler) == "no C compiler is found"
    assert torch.equal(
        fused_spline_linear(x, base, spline, Grid(), scaler), eager_spline_linear(x, base, spline, Grid(), scaler)
    )


@pytest.mark.parametrize(
    ("grid", "dtype", "reason"),
    [
        (Grid(5, 6), torch.float32, "orders up to 5, not 6"),
        (Grid(250, 3), torch.float32, "up to 255 cells, not 250"),
        (Grid(), torch.bfloat16, "for float32, not torch.bfloat16"),
    ],
)
def test_what_the_c_code_is_not_for_runs_by_the_formula(grid, dtype, reason, rng):
    base, spline, _ = (t if t is None else t.to(dtype) for t in weights_of(5, 4, grid, rng))
    x = torch.rand(3, 5, generator=rng).to(dtype)

    assert reason in why_eager(x, base, spline, grid)
    assert torch.equal(fused_spline_linear(x, base, spline, grid), eager_spline_linear(x, base, spline, grid))


def test_flops_are_counted_by_the_formula_on_meta():
    """Budgets are counted there; C code would count as nothing."""
    layer = KANLinear(6, 8).to("meta")

    assert "meta" in why_eager(torch.empty(3, 6, device="meta"), layer.base_weight, layer.spline_weight, layer.grid)
    assert layer(torch.empty(3, 6, device="meta")).shape == (3, 8)


def test_shapes_that_do_not_fit_are_refused_with_what_fits():
    """A pointer into C must not be handed a wrong size."""
    base, spline = torch.zeros(4, 5), torch.zeros(4, 5, 7)

    with pytest.raises(ValueError, match=r"x \(3, 5\), .* spline_weight \(4, 5, 7\) and 8 bases do not fit; give \(N, in\)"):
        fused_spline_linear(torch.zeros(3, 5), base, spline, Grid())


def test_no_tensor_is_made_but_output_and_gradients(rng):
    """The bases of 784 inputs alone would be 8 times the input."""
    grid = Grid()
    base, spline, _ = weights_of(784, 64, grid, rng)
    x = torch.rand(256, 784, generator=rng).requires_grad_()
    base.requires_grad_()
    spline.requires_grad_()

    with profiler.profile(profile_memory=True) as seen:
        fused_spline_linear(x, base, spline, grid).backward(torch.ones(256, 64))
    made = sum(max(0, event.cpu_memory_usage) for event in seen.function_events if event.cpu_parent is None)

    results = 4 * (256 * 64 + x.numel() + base.numel() + spline.numel())
    assert made <= 1.1 * results + 4 * 256 * 64  # the last: the ones


# Triton -----------------------------------------------------------------------------------------------------------------


def test_the_triton_kernels_agree_with_the_formula_in_the_interpreter():
    """On the CPU: Triton reads TRITON_INTERPRET when it is imported."""
    pytest.importorskip("triton", reason="triton is not installed")

    assert run_script(Path(__file__).with_name("interpret_triton.py"), TRITON_INTERPRET="1").count("agrees") == 28


def test_the_triton_kernels_compile_for_a_hopper_gpu(tmp_path):
    """Without one: their types fit, their tiles have room, and tensor cores multiply."""
    pytest.importorskip("triton", reason="triton is not installed")

    assert run_script(Path(__file__).with_name("compile_triton.py"), TRITON_CACHE_DIR=str(tmp_path)).count("compiled") == 6


def test_without_triton_the_formula_runs_on_cuda_and_the_reason_is_said(monkeypatch):
    """A GPU whose torch has no Triton with it."""

    def missing():
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(fused, "_triton", missing)

    assert fused._why_no_triton(Grid()) == "Triton cannot be imported (No module named 'triton'); pip install triton"


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shape", [*SHAPES, (1000, 512, 256), (0, 5, 3)], ids=str)
@pytest.mark.parametrize("grid", [Grid(5, 3), Grid(4, 2), Grid(3, 1)], ids=str)
def test_the_triton_kernels_agree_with_the_formula_on_cuda(dtype, shape, grid, rng):
    """In tiles that are full and in those that are not."""
    rows, features, outputs = shape
    x, g = (t.to("cuda", dtype) for t in (inputs_beyond(grid, rows, features, rng), torch.randn(rows, outputs, generator=rng)))
    weights = tuple(t if t is None else t.to("cuda", dtype) for t in weights_of(features, outputs, grid, rng))

    assert why_eager(x, weights[0], weights[1], grid, weights[2]) == ""
    got = gradients(fused_spline_linear, x, weights, grid, g, dtype)
    expected = gradients(eager_spline_linear, x, weights, grid, g, torch.float64)

    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]  # Kernel.tolerance
    for ours, theirs in zip(got, expected, strict=True):
        assert largest(ours - theirs) <= tolerance * largest(theirs)
