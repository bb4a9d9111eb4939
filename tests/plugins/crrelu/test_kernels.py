"""CRReLU's kernels against the formula in float64: every implementation, forward and backward, C and Triton."""

from __future__ import annotations

import importlib.util
import math
import os
import subprocess
import sys
import time
from statistics import median

import pytest
import torch
from harness_papers.crrelu import KERNELS, kernels, method
from torch import Tensor
from torch.nn import functional as F

(KERNEL,) = KERNELS
CPU = torch.device("cpu")
OURS = kernels.OURS
BY_HAND = {i.name: i for i in KERNEL.implementations if i.kind != "compiled"}

needs_compiler = pytest.mark.skipif(bool(OURS.native.why_not()), reason=f"needs a C compiler: {OURS.native.why_not()}")


def function(name: str):
    """The function that a declaration names."""
    module, _, attribute = name.partition(":")
    assert module == kernels.__name__
    return getattr(kernels, attribute)


def layouts(x: Tensor) -> dict[str, Tensor]:
    """As a suite's `layout` lays an input."""
    n = x.numel()
    return {
        "contiguous": x.clone(),
        "strided": x.repeat_interleave(2)[::2],
        "unaligned": torch.cat([x.new_zeros(1), x])[1:] if n else x,
    }


def error(got: Tensor, exact: Tensor) -> float:
    """As a suite's check has it: over the largest absolute value."""
    if not exact.numel():
        return 0.0
    return float((got.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("layout", ["contiguous", "strided", "unaligned"])
@pytest.mark.parametrize("elements", [0, 1, 17, 10_000])
@pytest.mark.parametrize("name", BY_HAND)
def test_every_implementation_is_the_formula(name, elements, layout, rng):
    """A fast kernel with another gradient of eps would train another net."""
    case = KERNEL.params(elements=elements, layout=layout)
    inputs = function(KERNEL.inputs)(case, rng, CPU, torch.float32)
    x = layouts(inputs["x"].detach())[layout].requires_grad_()
    eps, grad = inputs["eps"], torch.randn(elements, generator=rng)
    out = function(BY_HAND[name].run)({"x": x, "eps": eps}, case)
    exact = function(KERNEL.reference)({"x": x, "eps": eps}, case)

    got, expected = torch.autograd.grad(out, (x, eps), grad), torch.autograd.grad(exact, (x, eps), grad.double())

    assert out.dtype == torch.float32
    assert exact.dtype == torch.float64
    assert error(out.detach(), exact.detach()) <= KERNEL.tolerance["float32"] / 10
    assert error(got[0], expected[0]) <= KERNEL.tolerance["float32"] / 10
    # A sum of both signs: its rounding is against the sum of absolute values, about n / 3.
    assert abs(float(got[1]) - float(expected[1])) <= 1e-7 * max(elements, 1)


@needs_compiler
def test_our_own_symbol_runs_and_nothing_is_compiled_by_torch():
    """A row called ours that inductor had made would be a lie. A fresh process: this one may have compiled something."""
    code = (
        "import sys, torch\n"
        "from harness_papers.crrelu import kernels as k\n"
        "x, eps = torch.randn(10_000, requires_grad=True), torch.tensor(0.25, requires_grad=True)\n"
        "assert k.why_fallback({'x': x, 'eps': eps}, None) == ''\n"
        "y = k.run_ours({'x': x, 'eps': eps}, None)\n"
        "assert k.OURS.native.calls() == (1, 0), k.OURS.native.calls()\n"
        "torch.autograd.grad(y.sum(), (x, eps))\n"
        "assert k.OURS.native.calls() == (1, 1), k.OURS.native.calls()\n"
        "assert 'torch._inductor.compile_fx' not in sys.modules\n"
        "from torch._dynamo.utils import counters\n"
        "assert not counters['frames'], counters['frames']\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 0, ended.stderr


SPECIAL = [math.nan, math.inf, -math.inf, 1e20, -1e20, 1e30, -1e30, 300.0, -300.0, 14.0, -14.0, 13.0, 0.0, -0.0, 1e-30, -1e-40]


@needs_compiler
def test_special_values_come_out_as_of_the_layer():
    """inf gives NaN, as the formula does; where x^2 overflows there is none: a net must not diverge by our kernel alone."""
    x = torch.tensor(SPECIAL, requires_grad=True)
    eps = torch.tensor(0.25, requires_grad=True)
    outs = OURS(x, eps), method.crrelu(x, eps)
    grads = [torch.autograd.grad(out, x, torch.ones_like(x))[0] for out in outs]

    # exp is 0 below its smallest normal number here: 1e-38 times |x| <= 14.
    torch.testing.assert_close(outs[0], outs[1], rtol=1e-6, atol=1e-36, equal_nan=True)
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-6, atol=1e-35, equal_nan=True)
    assert outs[0][:3].isnan().all()
    assert not outs[0][3:].isnan().any()


@needs_compiler
def test_the_same_bits_each_time(rng):
    """A trial repeated is the same trial; the gradient of eps is a sum with one order."""
    x, grad, eps = torch.randn(70_001, generator=rng), torch.randn(70_001, generator=rng), torch.tensor(0.25)

    first, second = (OURS.native.backward(grad, x, eps) for _ in range(2))

    assert torch.equal(first[0], second[0])
    assert torch.equal(first[1], second[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_dtypes_on_the_cpu_are_eager_and_say_so(dtype, rng):
    """The row is labelled `fallback` and not ranked as ours."""
    inputs = kernels.make_inputs(KERNEL.params(elements=9), rng, CPU, dtype)
    out = kernels.run_ours(inputs, None)

    assert f"in float32, not in {str(dtype).removeprefix('torch.')}" in kernels.why_fallback(inputs, None)
    assert torch.equal(out, kernels.run_eager(inputs, None))


def test_the_least_work_is_the_floor_of_the_issue():
    """20 bytes an element in float32, forward and backward: read x, write y; read x and y's gradient, write x's."""
    case = KERNEL.params(elements=1000)

    assert sum(KERNEL.bytes(case, 4).values()) == 20_000
    assert KERNEL.flops(case, 4) == {"forward": 8000, "backward": 11_000}


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("pass_", ["forward", "forward and backward"])
def test_at_ten_thousand_floats_ours_is_not_slower_than_gelu(pass_, rng):
    """A ratio of interleaved CPU times, so that a busy machine does not decide it; about 0.6 and 0.7."""
    x, grad = torch.randn(10_000, generator=rng, requires_grad=True), torch.randn(10_000, generator=rng)
    eps, plain = torch.tensor(0.25, requires_grad=True), x.detach()
    calls = {
        "forward": (lambda: OURS(plain, eps.detach()), lambda: F.gelu(plain)),
        "forward and backward": (
            lambda: torch.autograd.grad(OURS(x, eps), (x, eps), grad), lambda: torch.autograd.grad(F.gelu(x), x, grad),
        ),
    }[pass_]  # fmt: skip
    times: list[list[float]] = [[], []]
    for _ in range(40):
        for call, found in zip(calls, times, strict=True):
            before = time.process_time()
            for _ in range(100):
                call()
            found.append(time.process_time() - before)

    assert median(times[0][2:]) <= median(times[1][2:])


INTERPRETED = """
import torch
from harness_papers.crrelu import kernels as k, triton_kernels as t
tolerances = {torch.float32: 1e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}  # half precision: one rounding of the result
for dtype, tolerance in tolerances.items():
    for n in (0, 1, 100, 5000):
        for step in (1, 2):
            g = torch.Generator().manual_seed(n)
            x, grad = torch.randn(n * step, generator=g).to(dtype)[::step], torch.randn(n * step, generator=g).to(dtype)[::step]
            eps = torch.tensor(0.25, dtype=dtype)
            exact_x, exact_eps = x.double().requires_grad_(), eps.double().requires_grad_()
            exact = k.formula(exact_x, exact_eps)
            expected = torch.autograd.grad(exact, (exact_x, exact_eps), grad.double())
            out, (grad_x, grad_eps) = t.forward(x, eps), t.backward(grad, x, eps)
            for got, want in ((out, exact.detach()), (grad_x, expected[0]), (grad_eps, expected[1])):
                assert got.dtype == dtype and got.shape == want.shape
                limit = tolerance * float(want.abs().max()) if n else 0
                assert n == 0 and not got.sum() or float((got.double() - want).abs().max()) <= limit, (dtype, n, step)
print("compared")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton (it comes with torch for CUDA)")
def test_the_triton_kernels_are_the_formula_too():
    """Interpreted on the CPU: the arithmetic, the masks and the two-step sum are checked without a GPU."""
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=env, capture_output=True, text=True, timeout=280, check=False
    )

    assert ended.returncode == 0, ended.stderr
    assert "compared" in ended.stdout


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_cuda_triton_runs_and_agrees(dtype, rng):
    """On a real device, with autograd around it."""
    inputs = kernels.make_inputs(KERNEL.params(elements=100_003), rng, torch.device("cuda"), dtype)
    grad = torch.randn(100_003, generator=rng).to("cuda", dtype)
    assert kernels.why_fallback(inputs, None) == ""
    leaves = tuple(inputs.values())
    out, exact = kernels.run_ours(inputs, None), kernels.reference(inputs, None)
    got, expected = torch.autograd.grad(out, leaves, grad), torch.autograd.grad(exact, leaves, grad.double())

    tolerance = KERNEL.tolerance[str(dtype).removeprefix("torch.")]
    assert error(out.detach(), exact.detach()) <= tolerance
    assert error(got[0], expected[0]) <= tolerance
    assert abs(float(got[1]) - float(expected[1])) <= tolerance * max(abs(float(expected[1])), 300)  # 300: its deviation
