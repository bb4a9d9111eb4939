"""The core's own kernels: what every other kernel stands beside."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from harness.builtin import harness_kernels, kernels
from harness.catalogue import load_catalogue
from harness.specs import KernelCase

KERNELS = {kernel.name: kernel for kernel in harness_kernels()}
CPU = torch.device("cpu")
ALL = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)


def function(name: str):
    """The function here that a declaration names."""
    module, _, attribute = name.partition(":")
    assert module == kernels.__name__
    return getattr(kernels, attribute)


@ALL
@pytest.mark.parametrize("elements", [0, 1, 1000])
def test_torchs_operation_is_the_formula_forward_and_backward(kernel, elements, rng):
    """The reference is another way to the same number: a check of an operation against itself could not fail."""
    case = kernel.params(elements=elements)
    inputs = function(kernel.inputs)(case, rng, CPU, torch.float32)
    grad = torch.randn(elements, generator=rng)
    assert inputs["x"].shape == (elements,)
    expected = function(kernel.reference)(inputs, case)
    assert expected.dtype == torch.float64

    for implementation in kernel.implementations:
        out = function(implementation.run)(inputs, case)
        assert out.dtype == torch.float32
        assert out.data_ptr() != inputs["x"].data_ptr() or not elements
        torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-6)  # values of a few units, float32
        if kernel.backward:
            got, exact = (torch.autograd.grad(y, inputs["x"], g, retain_graph=True)[0] for y, g in
                          ((out, grad), (expected, grad.double())))  # fmt: skip
            torch.testing.assert_close(got, exact, rtol=0, atol=2e-6)  # gradients of a few units


@ALL
def test_a_kernel_stands_there_eager_and_compiled(kernel):
    """The two ways that a user has without our code."""
    assert [(i.name, i.kind) for i in kernel.implementations] == [("eager", "eager"), ("compiled", "compiled")]


@ALL
def test_the_least_work_counts_each_element_once(kernel):
    """A share of the roofline needs what must be moved, not what an implementation moves."""
    n = 1000
    case = KernelCase(elements=n)

    assert kernel.bytes(case, 4) == {"forward": 8 * n, "backward": 12 * n}
    assert kernel.bytes(case, 2) == {"forward": 4 * n, "backward": 6 * n}
    assert kernel.flops(case, 4).keys() == {"forward", "backward"}
    assert kernel.flops(KernelCase(elements=2 * n), 4)["forward"] == 2 * kernel.flops(case, 4)["forward"]


def test_relu_has_no_slope_at_zero():
    """Where the two differ the check would call torch's own operation wrong."""
    x = torch.tensor([-0.0, 0.0], requires_grad=True)
    for run in (kernels.relu, kernels.relu_reference):
        (grad,) = torch.autograd.grad(run({"x": x}, KernelCase()).sum(), x)
        assert grad.tolist() == [0, 0]


def test_they_are_in_the_catalogue():
    """By the same door as a paper's."""
    assert set(KERNELS) <= {offer.spec.name for offer in load_catalogue().kernels}


def test_declaring_them_imports_no_torch():
    """`harness list kernels` does not wait for torch."""
    code = "import sys, harness.builtin; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
