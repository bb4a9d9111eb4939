"""Activations from a formula in C: against float64, in every layout, dtype and mode that autograd can bring."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from harness.lab.native_elementwise import WORTH_THREADS, Elementwise, Formula, NativeElementwise, share, stepped


def squared(x: Tensor, p: Tensor) -> Tensor:
    """p x^2: its derivatives by hand, and by autograd, are exact."""
    return p * x * x


def cube(x: Tensor) -> Tensor:
    return x * x * x


SQUARE = Elementwise(Formula("return p * x * x;", "*slope = 2 * p * x; *weight = x * x;"), squared)
CUBE = Elementwise(Formula("return x * x * x;", "*slope = 3 * x * x;"), cube)
EXP = NativeElementwise(Formula("return fast_exp(x);", "*slope = fast_expm1(x);"))

pytestmark = pytest.mark.skipif(bool(EXP.why_not()), reason=f"needs a C compiler: {EXP.why_not()}")
EVERYWHERE = np.concatenate([np.linspace(-87.3, 88, 400_001), -np.logspace(-30, 1.9, 50_000), np.logspace(-30, 1.9, 50_000)])


def exponentials(x: Tensor) -> tuple[Tensor, Tensor]:
    """exp and expm1 as the C code has them."""
    return EXP.forward(x, None), EXP.backward(torch.ones_like(x), x, None)[0]


def units(got: Tensor, exact: np.ndarray) -> float:
    """The largest error in units in the last place of float32."""
    ulp = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    return float(np.max(np.abs(got.double().numpy() - exact) / ulp))


def test_the_exponentials_are_exact_to_two_units_in_the_last_place():
    """torch's own are to about one; a kernel's tolerance of 1e-5 leaves room for the formula around it."""
    x = torch.from_numpy(EVERYWHERE.astype(np.float32))
    exp, expm1 = exponentials(x)

    assert units(exp, np.exp(x.double().numpy())) <= 1.5
    assert units(expm1, np.expm1(x.double().numpy())) <= 2


def test_the_exponentials_keep_their_ends():
    """inf * 0 must be NaN where the formula has it, so exp(-inf) is 0 and not the smallest number."""
    x = torch.tensor([-math.inf, -1e30, -88.0, 0.0, -0.0, 89.0, 1e30, math.inf, math.nan])
    exp, expm1 = exponentials(x)

    assert exp[:8].tolist() == [0, 0, 0, 1, 1, math.inf, math.inf, math.inf]
    assert expm1[:8].tolist() == [-1, -1, -1, 0, 0, math.inf, math.inf, math.inf]
    assert exp[8].isnan()
    assert expm1[8].isnan()


LAYOUTS = {
    "a number": lambda t: t[0],
    "contiguous": lambda t: t[:60].reshape(3, 4, 5),
    "unaligned": lambda t: t[1:62],
    "every second": lambda t: t[:60].reshape(6, 10)[:, ::2],
    "every second of odd rows": lambda t: t[:66].reshape(6, 11)[:, ::2],
    "permuted": lambda t: t[:60].reshape(3, 4, 5).permute(2, 0, 1),
    "channels last": lambda t: t[:48].reshape(2, 3, 2, 4).to(memory_format=torch.channels_last),
    "expanded": lambda t: t[:4].expand(3, 4),
    "one expanded": lambda t: t[:1].expand(70),
    "overlapping": lambda t: t.as_strided((5, 4), (2, 1)),
    "negated view": lambda t: torch.complex(t[:70], t[:70]).conj().imag,
    "negated number": lambda t: torch.complex(t[:1], t[:1]).conj().imag,
    "no elements": lambda t: t[:0],
    "no rows": lambda t: t[:60].reshape(6, 10)[:0, ::2],
    "blocks and a rest": lambda t: t[:3079],
}


@pytest.mark.parametrize("grad_layout", ["as it comes", "expanded", "strided"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_gives_the_same_as_the_eager_twin(layout, grad_layout, rng):
    """A kernel that walks memory its own way is wrong first where the tensor does not lie as expected."""
    x = layout(torch.randn(4000, generator=rng)).detach().requires_grad_()
    p = torch.tensor(0.7, requires_grad=True)
    out, twin = SQUARE(x, p), squared(x, p)
    wide = torch.randn(*x.shape[:-1], 2 * x.shape[-1] if x.ndim else 1, generator=rng)
    grad = {
        "as it comes": torch.randn_like(x),
        "expanded": torch.tensor(1.5).expand(x.shape),
        "strided": wide[..., ::2] if x.ndim else wide[0],
    }[grad_layout]

    got, expected = (torch.autograd.grad(y, (x, p), grad) for y in (out, twin))

    # float32: three multiplications, in another order than torch's; p's gradient is a sum of up to 3079 squares.
    torch.testing.assert_close(out, twin, rtol=1e-6, atol=0)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-6, atol=0)
    torch.testing.assert_close(got[1], expected[1], rtol=1e-5, atol=1e-4)
    assert out.shape == twin.shape
    assert got[1].shape == p.shape


@pytest.mark.parametrize("layout", ["contiguous", "permuted", "channels last"])
def test_a_dense_layout_is_kept(layout, rng):
    """As torch's own activations do: a net in channels-last stays in channels-last."""
    x = LAYOUTS[layout](torch.randn(4000, generator=rng)).requires_grad_()
    out = CUBE(x)
    (grad,) = torch.autograd.grad(out, x, torch.ones_like(out))

    assert out.stride() == grad.stride() == x.stride()


STEPS = {
    "contiguous": (lambda t: t, 1), "columns": (lambda t: t[:, ::2], 2), "a column": (lambda t: t[:, 3], 12),
    "expanded": (lambda t: t[:1, :1].expand(9, 9), 0), "rows of one": (lambda t: t[:, None, ::3], 3),
}  # fmt: skip


@pytest.mark.parametrize(("view", "step"), STEPS.values(), ids=STEPS)
def test_what_has_one_step_throughout_is_not_copied(view, step):
    """No memory but outputs and gradients, for strided inputs too."""
    x = view(torch.arange(120.0).reshape(10, 12))

    assert stepped(x)[0].data_ptr() == x.data_ptr()
    assert stepped(x)[1] == step


class Allocations(TorchDispatchMode):
    """The torch operations that ran, and the bytes of their results."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: list[int] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        self.bytes.append(made.numel() * made.element_size())
        return made


@pytest.mark.parametrize("step", [1, 2])
def test_no_memory_is_taken_beyond_output_and_gradients(step, rng):
    """Eager formulas need one more tensor for every sign; ours must not."""
    x = torch.randn(5000 * step, generator=rng)[::step].detach().requires_grad_()
    p, grad = torch.tensor(0.5, requires_grad=True), torch.randn(5000, generator=rng)
    before = SQUARE.native.calls()
    with Allocations() as seen:
        out = SQUARE(x, p)
        torch.autograd.grad(out, (x, p), grad)

    assert SQUARE.native.calls() == (before[0] + 1, before[1] + 1)
    assert sorted(seen.bytes) == [4, 20_000, 20_000]


def test_threads_share_the_work_and_change_no_bit_of_an_element(rng):
    """Elements are independent; only the sum over them is put together from parts, in float64."""
    n = 3 * WORTH_THREADS + 17
    x, grad, p = torch.randn(n, generator=rng), torch.randn(n, generator=rng), torch.tensor(0.5)
    found = {}
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            assert share(n) == threads
            out, (grad_x, grad_p) = SQUARE.native.forward(x, p), SQUARE.native.backward(grad, x, p)
            found[threads] = out, grad_x, grad_p
    finally:
        torch.set_num_threads(1)

    assert torch.equal(found[1][0], found[3][0])
    assert torch.equal(found[1][1], found[3][1])
    torch.testing.assert_close(found[1][2], found[3][2], rtol=1e-6, atol=0)
    torch.testing.assert_close(found[1][1], 2 * p * x * grad, rtol=1e-6, atol=0)


def test_few_elements_start_no_thread():
    """A thread takes as long to start as 100,000 elements take."""
    try:
        torch.set_num_threads(4)
        assert [share(n) for n in (0, 10_000, 2 * WORTH_THREADS - 1, 2 * WORTH_THREADS, 100 * WORTH_THREADS)] == [1, 1, 1, 2, 4]
    finally:
        torch.set_num_threads(1)


def test_a_parameters_gradient_over_many_elements_is_exact_to_1e_6(rng):
    """A running sum in float32 would lose three digits over a million elements of one sign."""
    x, p = torch.randn(2_000_003, generator=rng), torch.tensor(0.5)
    _, grad_p = SQUARE.native.backward(torch.ones_like(x), x, p)

    assert float(grad_p) == pytest.approx(float(x.double().square().sum()), rel=1e-6)


def test_second_derivatives_are_the_eager_ones(rng):
    """A loss may hold gradients; p may itself be made from x."""
    x = torch.randn(50, generator=rng).requires_grad_()
    q = torch.tensor(0.3, requires_grad=True)

    def second(activation) -> tuple[Tensor, ...]:
        (first,) = torch.autograd.grad(activation(x, q * x.sum()).square().sum(), x, create_graph=True)
        return torch.autograd.grad(first.square().sum(), (x, q))

    for got, expected in zip(second(SQUARE), second(squared), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)  # float32, sums of 50 terms of both signs


@pytest.mark.parametrize("needed", ["x", "p"])
def test_only_what_needs_a_gradient_gets_one(needed, rng):
    """A first layer's input has none, a frozen parameter neither; second derivatives too."""
    x, p = torch.randn(9, generator=rng), torch.tensor(0.5)
    leaf = {"x": x, "p": p}[needed].requires_grad_()
    (got,) = torch.autograd.grad(SQUARE(x, p).sum(), leaf, create_graph=True)
    (expected,) = torch.autograd.grad(squared(x, p).sum(), leaf, create_graph=True)

    torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
    assert got.requires_grad == expected.requires_grad
    assert not SQUARE(x.detach(), p.detach()).requires_grad


class Marked(Tensor):
    """A subclass may mean anything by its memory."""


FALLBACKS = {
    "float64": (torch.randn(5, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64), "in float32, not in float64"),
    "bfloat16": (torch.randn(5).bfloat16(), torch.tensor(1.0), "in float32, not in bfloat16"),
    "half a parameter": (torch.randn(5), torch.tensor(1.0).half(), "in float32, not in float16"),
    "many parameters": (torch.randn(5), torch.ones(5), "one parameter, not 5"),
    "meta": (torch.randn(5, device="meta"), torch.tensor(1.0, device="meta"), "no kernel of ours for meta"),
    "two devices": (torch.randn(5, device="meta"), torch.tensor(1.0), "the parameter is on cpu, the input on meta"),
    "subclass": (torch.randn(5).as_subclass(Marked), torch.tensor(1.0), "plain tensors, no subclasses"),
}


@pytest.mark.parametrize(("x", "p", "says"), FALLBACKS.values(), ids=FALLBACKS)
def test_what_c_cannot_do_runs_eager_and_says_so(x, p, says):
    """The row is then labelled, and not ranked as ours."""
    before = SQUARE.native.calls()
    assert says in SQUARE.fallback(x, p)

    if says != FALLBACKS["two devices"][2]:  # which torch refuses too
        out = SQUARE(x, p)
        assert out.dtype == squared(x, p).dtype
        assert x.is_meta or torch.equal(out, squared(x, p))
    assert SQUARE.native.calls() == before


def test_without_a_library_the_eager_twin_runs_and_the_reason_is_kept():
    """No compiler, or none that takes the source: slower, but the same net."""
    broken = Elementwise(Formula("return no_such_name;", "*slope = 0;"), cube)
    x = torch.tensor([2.0, 3.0])

    assert "no_such_name" in broken.fallback(x)
    assert broken(x).tolist() == [8, 27]


def test_a_remembered_choice_is_not_made_for_other_tensors(rng):
    """What serves float32 must not be handed float64's memory afterwards, in either order."""
    x, p = torch.randn(7, generator=rng), torch.tensor(0.5)
    fresh = Elementwise(Formula("return p * x * x;", "*slope = 2 * p * x; *weight = x * x;"), squared)
    for dtype in (torch.float32, torch.float64, torch.float32, torch.bfloat16):
        a, b = x.to(dtype), p.to(dtype)
        torch.testing.assert_close(fresh(a, b), squared(a, b), rtol=1e-6, atol=0)


def test_inside_torch_compile_the_formula_is_fused_by_it(rng):
    """Our C code would break the graph there; the eager twin is what a compiler can read."""
    x, p = torch.randn(100, generator=rng), torch.tensor(0.5)
    compiled = torch.compile(lambda x, p: SQUARE(x, p) + 1, backend="eager", fullgraph=True)
    before = SQUARE.native.calls()

    torch.testing.assert_close(compiled(x, p), squared(x, p) + 1, rtol=1e-6, atol=0)
    assert SQUARE.native.calls() == before
