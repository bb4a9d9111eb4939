"""EvoNorm's kernels against their float64 references: every implementation, forward and backward, C and Triton."""

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
from harness_papers.evonorm import c_kernels, kernels, method
from harness_papers.evonorm.cases import KERNELS, EvoNormCase, GroupCase, count_groups, shape
from torch import Tensor

from harness.kernels.memory import extra_bytes
from harness.specs import Kernel, KernelCase

CPU = torch.device("cpu")
FORMS = {"s0": KERNELS[0], "b0": KERNELS[1]}
NAMES = kernels.NAMES

needs_compiler = pytest.mark.skipif(bool(c_kernels.why_not()), reason=f"needs a C compiler: {c_kernels.why_not()}")
# torch's own complaint about the variance of nothing, where the batch is empty; the result has no elements.
empty_batch_warns = pytest.mark.filterwarnings(r"ignore:var\(\). degrees of freedom is <= 0")


def function(name: str):
    """The function that a declaration names."""
    module, _, attribute = name.partition(":")
    assert module == kernels.__name__
    return getattr(kernels, attribute)


def run_of(kernel: Kernel, name: str):
    found = kernel.implementation(name)
    assert found is not None
    return function(found.run)


def drawn(kernel: Kernel, case: KernelCase, rng: torch.Generator, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    return function(kernel.inputs)(case, rng, CPU, dtype)


def differentiated(run, inputs: dict[str, Tensor], case: KernelCase, dy: Tensor) -> dict[str, Tensor]:
    """y and the gradients of all four inputs."""
    y = run(inputs, case)
    gradients = torch.autograd.grad(y, [inputs[name] for name in NAMES], dy.to(y.dtype))
    return {"y": y.detach()} | dict(zip(NAMES, gradients, strict=True))


def errors(got: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """As a suite's check has it: the largest, over the largest absolute value."""
    return {
        name: float((got[name].double() - exact[name]).abs().max() / exact[name].abs().max().clamp(min=1e-30))
        for name in exact
        if exact[name].numel()
    }


def into(view: Tensor, x: Tensor) -> Tensor:
    """x's values in the memory of a view, as a leaf."""
    return view.copy_(x.detach()).requires_grad_()


# Name -> x in other memory, a leaf. The first three are a suite's.
LAYOUTS = {
    "contiguous": lambda x: into(torch.empty(x.shape), x),
    "strided": lambda x: into(torch.empty(*x.shape[:3], 2 * x.shape[3])[..., ::2], x),
    "unaligned": lambda x: into(torch.empty(x.numel() + 1)[1:].view(x.shape), x),
    "channels_last": lambda x: into(torch.empty(x.shape).to(memory_format=torch.channels_last), x),
    "cropped": lambda x: into(torch.empty(*x.shape[:2], x.shape[2] + 2, x.shape[3] + 3)[:, :, 1:-1, 2:-1], x),
    "transposed maps": lambda x: into(torch.empty(*x.shape[:2], x.shape[3], x.shape[2]).transpose(2, 3), x),
    "batch innermost": lambda x: into(torch.empty(*x.shape[1:], x.shape[0]).movedim(3, 0), x),
}


# Sizes ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("elements", "expected", "groups"),
    [
        (0, (0, 32, 28, 28), 4), (1, (1, 1, 1, 1), 1), (3, (1, 3, 1, 1), 1), (10_000, (2, 25, 20, 10), 5),
        (1_000_000, (50, 32, 25, 25), 4), (1 << 24, (2048, 32, 16, 16), 4), (10_007, (10_007, 1, 1, 1), 1),
    ],
)  # fmt: skip
def test_a_size_is_shared_out_without_rest(elements, expected, groups):
    """Bytes and rates are counted for `elements`; a shape with fewer would look faster than it is."""
    assert shape(EvoNormCase(elements=elements)) == expected
    assert count_groups(GroupCase(elements=elements)) == groups
    assert math.prod(expected) == elements


def test_the_least_work_is_each_map_once():
    """Read x, write y; read x and dy, write dx: 20 bytes an element, and the parameters. What a second read costs is time."""
    case = GroupCase(elements=1 << 20)
    parameters = 3 * 32 * 4

    assert KERNELS[0].bytes(case, 4) == {"forward": (8 << 20) + parameters, "backward": (12 << 20) + 2 * parameters}
    assert KERNELS[0].flops(case, 4) == {"forward": 10 << 20, "backward": 19 << 20}
    assert KERNELS[1].flops(case, 4) == {"forward": 10 << 20, "backward": 24 << 20}


# Right results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_the_reference_is_the_layer(form, rng):
    """Two writings of the formula, in float64: the component that is trained, and what kernels are compared with."""
    kernel, case = FORMS[form], FORMS[form].params(elements=6000)
    inputs = drawn(kernel, case, rng, torch.float64)
    dy = torch.randn(inputs["x"].shape, generator=rng, dtype=torch.float64)

    found = errors(
        differentiated(run_of(kernel, "eager"), inputs, case, dy),
        differentiated(function(kernel.reference), inputs, case, dy),
    )

    assert max(found.values()) <= 1e-13  # float64, sums of a few thousand


@needs_compiler
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("elements", [0, 1, 2, 17, 96, 10_000, 60_000])
@pytest.mark.parametrize("form", FORMS)
def test_ours_is_the_formula_however_the_memory_is_laid_out(form, elements, layout, rng):
    """And however dy is: the sum of a loss gives one whose strides are 0."""
    kernel, case = FORMS[form], FORMS[form].params(elements=elements)
    inputs = drawn(kernel, case, rng)
    inputs["x"] = LAYOUTS[layout](inputs["x"])
    assert torch.equal(inputs["x"].detach(), inputs["x"].detach().contiguous())
    for dy in (torch.randn(inputs["x"].shape, generator=rng), torch.tensor(0.5).expand(inputs["x"].shape)):
        exact = differentiated(function(kernel.reference), inputs, case, dy)
        got = differentiated(run_of(kernel, "ours"), inputs, case, dy)

        assert got["y"].dtype == torch.float32
        assert {name: t.shape for name, t in got.items()} == {name: t.shape for name, t in exact.items()}
        assert max(errors(got, exact).values(), default=0.0) <= kernel.tolerance["float32"] / 10
        assert not any(got[name].any() for name in NAMES[1:]) or elements  # of no elements every gradient is 0


@empty_batch_warns
@pytest.mark.parametrize("elements", [0, 1, 10_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("form", FORMS)
def test_eager_stays_within_the_tolerance_of_its_dtype(form, dtype, elements, rng):
    """Also where the layer is computed in half precision: the inputs keep away from where it would have to jump."""
    kernel, case = FORMS[form], FORMS[form].params(elements=elements)
    inputs = drawn(kernel, case, rng, dtype)
    wide = {name: t.detach().double().requires_grad_() for name, t in inputs.items()}
    dy = torch.randn(inputs["x"].shape, generator=rng).to(dtype)
    found = errors(
        differentiated(run_of(kernel, "eager"), inputs, case, dy),
        differentiated(function(kernel.reference), wide, case, dy),
    )

    if elements == 1:
        found.pop("x")  # a deviation of one value: its gradient all but cancels
    assert max(found.values(), default=0.0) <= kernel.tolerance[str(dtype).removeprefix("torch.")]


@pytest.mark.parametrize("elements", [1, 64, 10_000, 1_000_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_input_of_b0_is_where_rounding_picks_the_arm(dtype, elements, rng):
    """There the gradient jumps by its own size, and a right implementation would fail the comparison."""
    inputs = drawn(FORMS["b0"], EvoNormCase(elements=elements), rng, dtype)
    x, v = (inputs[name].detach().double() for name in ("x", "v"))
    batch = (x.var((0, 2, 3), correction=0, keepdim=True) + kernels.B0_EPS).sqrt()
    rival = v.view(1, -1, 1, 1) * x + (x.var((2, 3), correction=0, keepdim=True) + kernels.B0_EPS).sqrt()

    gap = float((rival / batch - 1).abs().min())

    assert gap > (9e-4 if dtype == torch.float32 else 2.9e-2)  # roundings are of 1e-7 in float32, of 4e-3 in bfloat16
    if elements > 64:
        assert 0.1 < float((rival > batch).double().mean()) < 0.9  # both arms are taken


@needs_compiler
def test_a_tie_is_shared_as_torch_shares_it():
    """At v = 0 in a batch of one the arms are equal everywhere; autograd gives each half of the gradient."""
    x = torch.randn(1, 2, 3, 5, generator=torch.Generator().manual_seed(0), requires_grad=True)
    inputs = {"x": x, "v": torch.zeros(2), "gamma": torch.ones(2), "beta": torch.zeros(2)}
    for name in NAMES[1:]:
        inputs[name].requires_grad_()
    case, dy = EvoNormCase(elements=30), torch.linspace(-1, 2, 30).view(1, 2, 3, 5)

    got = differentiated(kernels.ours_b0, inputs, case, dy)
    expected = differentiated(kernels.reference_b0, inputs, case, dy)

    assert max(errors(got, expected).values()) <= 1e-6
    assert expected["v"].abs().min() > 0.01  # half of it, and not none of it


HARD = {
    "far from zero": lambda x: x + 300,
    "saturated": lambda x: x * 200,
    "tiny": lambda x: x * 1e-6,
    "one map constant": lambda x: torch.cat([x[:, :1] * 0 + 2, x[:, 1:]], 1),
}


@needs_compiler
@pytest.mark.parametrize("kind", HARD)
@pytest.mark.parametrize("form", FORMS)
def test_hard_values_lose_no_more_digits_than_eager_does(form, kind, rng):
    """Variances that cancel, and exponentials that leave float32: sums of squares and a bare exp would fail here."""
    kernel, case = FORMS[form], FORMS[form].params(elements=9600)
    inputs = drawn(kernel, case, rng)
    inputs["x"] = HARD[kind](inputs["x"].detach()).requires_grad_()
    dy = torch.randn(inputs["x"].shape, generator=rng)
    exact = differentiated(function(kernel.reference), inputs, case, dy)
    ours = errors(differentiated(run_of(kernel, "ours"), inputs, case, dy), exact)
    eager = errors(differentiated(run_of(kernel, "eager"), inputs, case, dy), exact)

    for name, error in ours.items():
        assert error <= max(1e-6, 3 * eager[name]), name


@needs_compiler
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_number_spreads_as_in_the_formula(form, value, rng):
    """A net that diverges must be seen to diverge, at the same places."""
    kernel, case = FORMS[form], FORMS[form].params(elements=9600)
    inputs = drawn(kernel, case, rng)
    x = inputs["x"].detach().clone()
    x[1, 3, 0, 0] = value
    inputs["x"] = x.requires_grad_()
    dy = torch.randn(x.shape, generator=rng)

    got = differentiated(run_of(kernel, "ours"), inputs, case, dy)
    expected = differentiated(function(kernel.reference), inputs, case, dy)

    assert 0 < int(expected["y"].isnan().sum()) < x.numel()
    for name in ("y", *NAMES):
        assert torch.equal(got[name].isnan(), expected[name].isnan()), name


@needs_compiler
@pytest.mark.parametrize("form", FORMS)
def test_the_same_bits_each_time(form, rng):
    """A trial repeated is the same trial: sums have one order."""
    kernel, case = FORMS[form], FORMS[form].params(elements=70_000)
    inputs = drawn(kernel, case, rng)
    dy = torch.randn(inputs["x"].shape, generator=rng)

    first, second = (differentiated(run_of(kernel, "ours"), inputs, case, dy) for _ in range(2))

    assert all(torch.equal(first[name], second[name]) for name in first)


# Whose code runs --------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("form", FORMS)
def test_our_own_symbol_runs_and_nothing_is_compiled_by_torch(form):
    """A row called ours that inductor had made would be a lie. A fresh process: this one may have compiled something."""
    code = (
        "import sys, torch\n"
        "from harness_papers.evonorm import c_kernels, cases, kernels\n"
        f"case = cases.GroupCase(elements=10_000)\n"
        f"inputs = kernels.inputs_{form}(case, torch.Generator(), torch.device('cpu'), torch.float32)\n"
        "assert kernels.why_eager(inputs, case) == ''\n"
        f"y = kernels.ours_{form}(inputs, case)\n"
        "assert c_kernels.count_calls() == 1, c_kernels.count_calls()\n"
        "torch.autograd.grad(y.sum(), list(inputs.values()))\n"
        "assert c_kernels.count_calls() == 2, c_kernels.count_calls()\n"
        f"kernels.eager_{form}(inputs, case)\n"
        "assert c_kernels.count_calls() == 2, c_kernels.count_calls()\n"
        "assert 'torch._inductor.compile_fx' not in sys.modules\n"
        "from torch._dynamo.utils import counters\n"
        "assert not counters['frames'], counters['frames']\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", FORMS)
def test_other_dtypes_on_the_cpu_are_eager_and_say_so(form, dtype, rng):
    """The row is labelled `fallback` and not ranked as ours."""
    kernel, case = FORMS[form], FORMS[form].params(elements=96)
    inputs = drawn(kernel, case, rng, dtype)

    assert kernels.why_eager(inputs, case) == f"x is {dtype}; the C code is for float32"
    assert torch.equal(run_of(kernel, "ours")(inputs, case), run_of(kernel, "eager")(inputs, case))


def test_without_a_compiler_ours_is_eager_and_says_so():
    """In a process of its own: the search for a compiler is made once."""
    code = (
        "import torch\n"
        "from harness_papers.evonorm import cases, kernels\n"
        "case = cases.GroupCase(elements=96)\n"
        "inputs = kernels.inputs_s0(case, torch.Generator(), torch.device('cpu'), torch.float32)\n"
        "assert 'no C compiler' in kernels.why_eager(inputs, case), kernels.why_eager(inputs, case)\n"
        "assert torch.equal(kernels.ours_s0(inputs, case), kernels.eager_s0(inputs, case))\n"
    )
    env = {**os.environ, "CC": "/no/such/compiler"}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 0, ended.stderr


@needs_compiler
@pytest.mark.parametrize("form", FORMS)
def test_parameters_of_another_size_are_refused(form, rng):
    """C would read past their end."""
    kernel, case = FORMS[form], FORMS[form].params(elements=9600)
    inputs = drawn(kernel, case, rng) | {"gamma": torch.ones(31, requires_grad=True)}

    with pytest.raises(ValueError, match=r"gamma has shape \(31,\); give one value for each of 32 channels"):
        run_of(kernel, "ours")(inputs, case)


@needs_compiler
@pytest.mark.parametrize("form", FORMS)
def test_a_second_derivative_is_refused(form, rng):
    """The backward pass is C: autograd would take it for a constant, and a gradient penalty would be silently wrong."""
    kernel, case = FORMS[form], FORMS[form].params(elements=96)
    inputs = drawn(kernel, case, rng)
    (dx,) = torch.autograd.grad(run_of(kernel, "ours")(inputs, case).square().sum(), inputs["x"], create_graph=True)

    with pytest.raises(RuntimeError, match="once_differentiable"):
        dx.sum().backward()


# Cost -------------------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("layout", ["contiguous", "strided", "channels_last"])
@pytest.mark.parametrize("form", FORMS)
def test_no_memory_is_taken_beyond_the_output_the_gradients_and_statistics(form, layout, rng):
    """A copy of an input that is not contiguous would be seen here."""
    kernel, case = FORMS[form], FORMS[form].params(elements=1 << 20)
    inputs = drawn(kernel, case, rng)
    inputs["x"] = LAYOUTS[layout](inputs["x"])
    dy = torch.randn(inputs["x"].shape, generator=rng)

    def act():
        return differentiated(run_of(kernel, "ours"), inputs, case, dy).values()

    act()  # what the first call takes stays

    assert extra_bytes(act, list(inputs.values()), CPU) <= 0.05 * 4 * inputs["x"].numel()  # 4 numbers a map of 256 values


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_ours_takes_less_than_half_of_eager(form, rng):
    """Forward and backward at a million floats; a ratio of interleaved CPU times, which a busy machine does not decide."""
    kernel, case = FORMS[form], FORMS[form].params(elements=1_000_000)
    inputs = drawn(kernel, case, rng)
    dy = torch.randn(inputs["x"].shape, generator=rng)
    times: dict[str, list[float]] = {"ours": [], "eager": []}
    for _ in range(12):
        for name, found in times.items():
            before = time.process_time()
            differentiated(run_of(kernel, name), inputs, case, dy)
            found.append(time.process_time() - before)

    assert median(times["ours"][2:]) <= 0.5 * median(times["eager"][2:])


# Triton -----------------------------------------------------------------------------------------------------------------

INTERPRETED = """
import sys
import torch
from harness_papers.evonorm import kernels, triton_kernels
from harness_papers.evonorm.cases import GroupCase, largest_divisor
tolerances = {torch.float32: 1e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}  # half precision: one rounding of the result
form, ours = sys.argv[1], getattr(triton_kernels, sys.argv[1].upper())
for dtype, tolerance in tolerances.items():
    for elements in (0, 1, 100, 2400, 10_000):
        case, g = GroupCase(elements=elements), torch.Generator().manual_seed(elements)
        drawn = getattr(kernels, "inputs_" + form)(case, g, torch.device("cpu"), dtype)
        wide = {name: t.detach().double().requires_grad_() for name, t in drawn.items()}
        dy = torch.randn(drawn["x"].shape, generator=g).to(dtype)
        exact = getattr(kernels, "reference_" + form)(wide, case)
        expected = (exact.detach(), *torch.autograd.grad(exact, list(wide.values()), dy.double()))
        for memory in (torch.contiguous_format, torch.channels_last):
            drawn["x"] = drawn["x"].detach().to(memory_format=memory).requires_grad_()
            tensors = [drawn[name] for name in kernels.NAMES]
            last = (largest_divisor(drawn["x"].shape[1], 8), kernels.S0_EPS) if form == "s0" else (kernels.B0_EPS,)
            y = ours.apply(*tensors, *last)
            got = (y.detach(), *torch.autograd.grad(y, tensors, dy))
            for a, b in zip(got, expected, strict=True):
                assert a.dtype == dtype and a.shape == b.shape
                limit = tolerance * max(float(b.abs().max()), 1e-6) if b.numel() else 0.0
                assert not b.numel() or float((a.double() - b).abs().max()) <= limit, (dtype, elements, memory)
print("compared")
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton (it comes with torch for CUDA)")
@pytest.mark.parametrize("form", FORMS)
def test_the_triton_kernels_are_the_formula_too(form):
    """Interpreted on the CPU: arithmetic, masks and sums are checked without a GPU. In a process of its own, for Triton
    reads TRITON_INTERPRET when it is imported."""
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", INTERPRETED, form]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)

    assert ended.returncode == 0, ended.stderr
    assert "compared" in ended.stdout


@pytest.mark.cuda
@pytest.mark.parametrize("elements", [0, 1, 10_000, 1_000_000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", FORMS)
def test_on_cuda_triton_runs_and_agrees(form, dtype, elements, rng):
    """On a real device, with autograd around it."""
    kernel, case = FORMS[form], FORMS[form].params(elements=elements)
    inputs = function(kernel.inputs)(case, rng, torch.device("cuda"), dtype)
    wide = {name: t.detach().double().requires_grad_() for name, t in inputs.items()}
    dy = torch.randn(inputs["x"].shape, generator=rng).to("cuda", dtype)
    assert kernels.why_eager(inputs, case) == ""
    found = errors(
        differentiated(run_of(kernel, "ours"), inputs, case, dy),
        differentiated(function(kernel.reference), wide, case, dy),
    )

    if elements == 1:
        found.pop("x")  # a deviation of one value: its gradient all but cancels
    assert max(found.values(), default=0.0) <= kernel.tolerance[str(dtype).removeprefix("torch.")]


def test_eager_is_the_layer_that_is_trained(rng):
    """The row to beat is what a user of the component gets."""
    case = GroupCase(elements=9600)
    inputs = drawn(FORMS["s0"], case, rng)
    layer = method.EvoNormS(32, "s0", count_groups(case), kernels.S0_EPS)
    for name in NAMES[1:]:
        getattr(layer, name).data.copy_(inputs[name].detach())

    assert torch.equal(kernels.eager_s0(inputs, case), layer(inputs["x"]))
