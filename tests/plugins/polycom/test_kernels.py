"""The fused kernels against the formula in float64, in every layout; that they are what runs; and that they hold no memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness_papers.polycom import POLYNORM, POLYRELU, PolyNormCase, kernels, polynorm_shape
from harness_papers.polycom.kernels import SHARE, calls, fallback, fused_polynorm, fused_polyrelu, why_eager
from harness_papers.polycom.method import polynorm, polyrelu
from torch import Tensor
from torch.autograd import profiler

from harness.lab import native
from harness.specs import KernelCase

# A machine without a compiler runs the eager code, which test_method.py covers.
pytestmark = pytest.mark.skipif(
    bool(native.why_not(kernels.SOURCE, flags=kernels.C_FLAGS)), reason="no C compiler: the fused CPU code cannot run"
)
PAIRS = {"polyrelu": (fused_polyrelu, polyrelu), "polynorm": (fused_polynorm, polynorm)}
BOTH = pytest.mark.parametrize(("fused", "formula"), PAIRS.values(), ids=PAIRS)
CLOSE = 1e-5  # Kernel.tolerance of float32

LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "every second element": lambda x: x.repeat_interleave(2, -1)[..., ::2],
    "every third element": lambda x: x.repeat_interleave(3, -1)[..., ::3],
    "a slice of wider rows": lambda x: torch.cat([x, x + 9], -1)[..., : x.shape[-1]],
    "one element past the alignment": lambda x: torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape),
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1),
    "rows turned round": lambda x: x.movedim(0, 1).contiguous().movedim(1, 0) if x.dim() > 1 else x,
}
SHAPES = [(1,), (7,), (4097,), (3, 5), (5, 1), (2, 3000), (2, 3, 129), (0,), (0, 8), (3, 0)]


def parameters() -> tuple[Tensor, Tensor]:
    return torch.tensor([0.5, -1.2, 2.0]), torch.tensor([-0.3])


def gradients(fn, x: Tensor, w: Tensor, b: Tensor, g: Tensor, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """The output and the gradients of x, weight and bias, in float64."""
    inputs = [t.to(dtype).detach().requires_grad_() for t in (x, w, b)]
    y = fn(*inputs)
    return tuple(t.detach().double() for t in (y, *torch.autograd.grad(y, inputs, g.to(dtype))))


def assert_right(fused, formula, x: Tensor, w: Tensor, b: Tensor, g: Tensor, tolerance: float = CLOSE) -> None:
    """Output and gradients against float64, over the largest of each.

    Of x's gradient also over |g| |y| / |x|: in a row of one element PolyNorm's slope is what eps leaves of a difference.
    """
    got, expected = gradients(fused, x, w, b, g, x.dtype), gradients(formula, x, w, b, g, torch.float64)
    natural = [0.0, largest(g) * largest(expected[0]) / max(largest(x), 1e-30), 0.0, 0.0]

    for ours, theirs, least in zip(got, expected, natural, strict=True):
        assert ours.shape == theirs.shape
        assert largest(ours - theirs) <= tolerance * max(largest(theirs), least)


def largest(t: Tensor) -> float:
    return float(t.abs().max()) if t.numel() else 0.0


# Right ------------------------------------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_value_and_gradients_are_the_formulas_in_every_layout(fused, formula, layout, shape, rng):
    """Of x and of the upstream gradient; rows that end within a block of 2048, at it and beyond; nothing at all."""
    w, b = parameters()
    x, g = layout(torch.randn(shape, generator=rng)), layout(torch.randn(shape, generator=rng))

    assert why_eager(x, w, b) == ""
    assert_right(fused, formula, x, w, b, g)


@BOTH
def test_a_layout_changes_no_bit(fused, formula, rng):
    """A gathered block goes through the same loop as one that is read in place."""
    w, b = parameters()
    x, g = torch.randn(6, 3000, generator=rng), torch.randn(6, 3000, generator=rng)
    plain = gradients(fused, x, w, b, g, torch.float32)

    for layout in (LAYOUTS["every second element"], LAYOUTS["one element past the alignment"]):
        assert torch.equal(gradients(fused, layout(x), w, b, g, torch.float32)[1], plain[1])
        assert torch.equal(fused(layout(x), w, b).double(), plain[0])


@BOTH
def test_a_broadcast_gradient_is_read_where_it_lies(fused, formula, rng):
    """`y.sum().backward()` hands down one number with strides 0."""
    w, b = parameters()
    x = torch.randn(3, 300, generator=rng)
    one = torch.ones(()).expand(3, 300)

    assert_right(fused, formula, x, w, b, one)


@BOTH
def test_long_sums_keep_their_digits(fused, formula, rng):
    """A million terms of one sign: a single float32 sum would lose three digits of a parameter's gradient."""
    w, b = parameters()
    x, g = torch.rand(1000, 1000, generator=rng), torch.rand(1000, 1000, generator=rng)

    got, expected = gradients(fused, x, w, b, g, torch.float32), gradients(formula, x, w, b, g, torch.float64)

    for ours, theirs in zip(got[2:], expected[2:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=3e-7, atol=0)  # blocks in float32, their sum in float64


@BOTH
@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1e2, 1e4])
def test_sizes_of_inputs_that_training_may_meet_are_exact(fused, formula, scale, rng):
    """From where eps rules every norm up to x^6 = 1e24."""
    w, b = parameters()
    x, g = scale * torch.randn(8, 256, generator=rng), torch.randn(8, 256, generator=rng)

    assert_right(fused, formula, x, w, b, g)


@BOTH
def test_nan_and_infinity_come_out_where_the_formula_has_them(fused, formula):
    """A diverging training must not be hidden by a kernel that mends its inputs."""
    w, b = torch.tensor([0.5, 1.2, 2.0]), torch.tensor([-0.3])
    x = torch.tensor([[1.0, float("nan"), -1.0], [float("inf"), 2.0, -3.0], [-float("inf"), 2.0, -3.0], [1.0, 0.0, -0.0]])
    g = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [1.0, float("inf"), float("nan")]])

    expected, got = (gradients(f, x, w, b, g, torch.float32) for f in (formula, fused))

    torch.testing.assert_close(got[:2], expected[:2], rtol=1e-5, atol=1e-6, equal_nan=True)  # float32 in another order


@BOTH
def test_two_threads_agree_with_one_and_each_with_itself(fused, formula, rng):
    """Rows and blocks are shared out; the sums are added in the order of the threads."""
    w, b = parameters()
    x, g = torch.randn(2 * SHARE // 1024 + 3, 1024, generator=rng), torch.randn(2 * SHARE // 1024 + 3, 1024, generator=rng)
    one = gradients(fused, x, w, b, g, torch.float32)
    torch.set_num_threads(2)
    try:
        assert kernels._threads(x) == 2
        two, again = gradients(fused, x, w, b, g, torch.float32), gradients(fused, x, w, b, g, torch.float32)
    finally:
        torch.set_num_threads(1)

    assert all(torch.equal(a, c) for a, c in zip(two, again, strict=True))
    assert all(torch.equal(a, c) for a, c in zip(one[:2], two[:2], strict=True))
    torch.testing.assert_close(two[2:], one[2:], rtol=1e-6, atol=1e-3)  # two float64 sums, rounded to float32 at size 1e3


@BOTH
def test_the_gradient_can_be_differentiated_again(fused, formula, rng):
    """A loss may hold gradients; then the formula's own graph answers."""
    w, b = (t.requires_grad_() for t in parameters())
    x = torch.randn(4, 16, generator=rng).requires_grad_()

    def twice(fn):
        (slope,) = torch.autograd.grad(fn(x, w, b).square().sum(), x, create_graph=True)
        return torch.autograd.grad(slope.square().sum(), (x, w, b))

    torch.testing.assert_close(twice(fused), twice(formula), rtol=1e-4, atol=1e-3)  # float32, values up to some 1e4


@BOTH
def test_only_what_is_asked_for_gets_a_gradient(fused, formula, rng):
    """Frozen weights, or inputs that are data."""
    w, b = parameters()
    x = torch.randn(4, 16, generator=rng)

    assert not fused(x, w, b).requires_grad
    fused(x, w.clone().requires_grad_(), b).sum().backward()
    leaf = x.clone().requires_grad_()
    fused(leaf, w, b).sum().backward()
    assert w.grad is None
    assert leaf.grad is not None
    with torch.no_grad():
        assert not fused(leaf, w, b).requires_grad


def test_polynorm_reads_its_eps(rng):
    """A constant in the C code would pass every other test here."""
    w, b = parameters()
    x, g = torch.randn(4, 16, generator=rng), torch.randn(4, 16, generator=rng)

    assert_right(lambda *t: fused_polynorm(*t, 0.5), lambda *t: polynorm(*t, 0.5), x, w, b, g)


# Ours, and nothing else -------------------------------------------------------------------------------------------------


@BOTH
def test_our_own_symbol_is_called_and_torch_compile_is_not(fused, formula, rng):
    """The C code counts its calls, and no dynamo frame is seen: what is timed as ours is ours."""
    w, b = (t.requires_grad_() for t in parameters())
    x = torch.randn(4, 16, generator=rng).requires_grad_()
    name = formula.__name__
    before, compiled = calls(), torch._dynamo.utils.counters["frames"].total()

    torch.autograd.grad(fused(x, w, b).sum(), (x, w, b))

    made = {symbol: count - before[symbol] for symbol, count in calls().items()}
    assert made == {s: int(s.startswith(name)) for s in made}
    assert torch._dynamo.utils.counters["frames"].total() == compiled


@pytest.mark.parametrize(
    ("x", "order", "said"),
    [
        (torch.ones(2, 2, dtype=torch.float64), 3, "float32, not torch.float64"),
        (torch.ones(2, 2, dtype=torch.bfloat16), 3, "float32, not torch.bfloat16"),
        (torch.ones(2, 2), 2, "3 weights and a bias, not 2"),
        (torch.ones(2, 2, device="meta"), 3, "no fused code for meta"),
    ],
)
def test_what_the_fused_code_does_not_do_is_said_and_done_by_the_formula(x, order, said):
    """The kernel's `fallback`; such a row is not ranked as ours."""
    w, b = torch.ones(order, dtype=x.dtype, device=x.device), torch.ones(1, dtype=x.dtype, device=x.device)
    before = calls()

    assert said in fallback({"x": x, "weight": w, "bias": b}, KernelCase())
    for fused, formula in PAIRS.values():
        got, expected = fused(x, w, b), formula(x, w, b)
        assert got.dtype == expected.dtype
        assert got.is_meta or torch.equal(got, expected)
    assert calls() == before


@BOTH
def test_no_memory_is_held_beyond_input_output_and_gradient(fused, formula, rng):
    """The formula leaves some ten tensors of x's size to the backward pass; a few bytes for parameters are all right."""
    w, b = (t.requires_grad_() for t in parameters())
    x, g = torch.randn(64, 1024, generator=rng).requires_grad_(), torch.randn(64, 1024, generator=rng)

    def allocated(fn) -> int:
        with profiler.profile(profile_memory=True) as seen:
            torch.autograd.grad(fn(x, w, b), (x, w, b), g)
        return sum(max(0, e.nbytes()) for e in seen.kineto_results.events() if e.name() == "[memory]")

    size = x.numel() * 4
    assert 2 * size <= allocated(fused) <= 2 * size + 4096
    assert allocated(formula) > 10 * size


# Declared ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elements", "hidden", "shape"),
    [
        (16_777_216, 1024, (16384, 1024)), (1_000_000, 1024, (1000, 1000)), (10_000, 1024, (10, 1000)), (1, 1024, (1, 1)),
        (0, 1024, (0, 1024)), (100, 1024, (1, 100)), (100_003, 1024, (98, 1024)), (4096, 4096, (1, 4096)), (12, 1, (12, 1)),
    ],
)  # fmt: skip
def test_rows_of_a_case_keep_its_elements_where_a_divisor_is_near(elements, hidden, shape):
    """100,003 is a prime: it is rounded to 98 rows. Bytes and FLOPs are of the rows that are made."""
    case = PolyNormCase(elements=elements, hidden=hidden)

    assert polynorm_shape(case) == shape
    assert POLYNORM.flops(case, 4)["forward"] == 12 * shape[0] * shape[1]
    assert POLYNORM.bytes(case, 4)["forward"] == 4 * (2 * shape[0] * shape[1] + 4)


@pytest.mark.parametrize("kernel", [POLYRELU, POLYNORM], ids=lambda kernel: kernel.name)
def test_every_implementation_agrees_with_the_reference_on_the_declared_inputs(kernel, rng):
    """What the declarations name exists, and its inputs are leaves with gradients."""
    case = kernel.params(elements=2048)
    find = lambda name: getattr(kernels, name.partition(":")[2])  # noqa: E731
    inputs = find(kernel.inputs)(case, rng, torch.device("cpu"), torch.float32)
    reference = find(kernel.reference)({k: t.double() for k, t in inputs.items()}, case)

    assert all(t.is_leaf and t.requires_grad for t in inputs.values())
    assert inputs["x"].numel() == 2048
    for implementation in (i for i in kernel.implementations if "cpu" in i.devices):
        got = find(implementation.run)(inputs, case)
        assert largest((got - reference).detach()) / largest(reference.detach()) < kernel.tolerance["float32"]
        assert implementation.fallback is None or find(implementation.fallback)(inputs, case) == ""


# Triton -----------------------------------------------------------------------------------------------------------------


def test_the_triton_kernels_agree_with_the_formula_in_the_interpreter():
    """On the CPU, in a process of its own: Triton reads TRITON_INTERPRET when it is imported."""
    pytest.importorskip("triton", reason="triton is not installed")
    script = Path(__file__).with_name("interpret_triton.py")

    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script)], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True,
        text=True, timeout=240, check=False,
    )  # fmt: skip

    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("agrees") == 28


@pytest.mark.cuda
@BOTH
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1000, 1000), (3, 40_000), (2000, 8), (5, 1), (0, 8), (4097,)])
def test_the_triton_kernels_agree_with_the_formula_on_cuda(fused, formula, dtype, shape, rng):
    """In each tile that polynorm's launch can choose."""
    x, g = (torch.randn(shape, generator=rng).to("cuda", dtype) for _ in range(2))
    w, b = (t.to("cuda", dtype) for t in parameters())

    assert why_eager(x, w, b) == ""
    assert_right(fused, formula, x, w, b, g, 1e-5 if dtype == torch.float32 else 2e-2)  # Kernel.tolerance
