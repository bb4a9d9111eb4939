"""The circuit's epilogue in C against the formula in torch's operations: bits forward, gradients to rounding, any layout."""

from __future__ import annotations

import itertools

import pytest
import torch
from harness_papers.ei_snn import normalised as module
from harness_papers.ei_snn.layers import Circuit, normalised_formula
from harness_papers.ei_snn.normalised import normalised, why_eager
from torch import Tensor

WHY = module._why_not(torch.float32)
needs_compiler = pytest.mark.skipif(bool(WHY), reason=f"needs a C compiler: {WHY}")
# Rounding of a few products, and in float32 of sums over rows and positions, which the C code makes in float64.
CLOSE = {torch.float64: 1e-14, torch.float32: 3e-6}
SHAPES = [(5, 8), (64, 33), (3, 4, 6, 5), (2, 16, 1, 1), (1, 1)]  # (N, n, ...)


def drawn(shape: tuple[int, ...], dtype: torch.dtype, rng: torch.Generator) -> tuple[Tensor, ...]:
    """I_EE with what it is stacked on, I_EI above I_sh with zeros among them and a row of zeros, gain, bias, gradient."""
    rows, n, *places = shape
    stacked = torch.rand(rows, n + max(1, n // 4), *places, generator=rng, dtype=dtype)
    mixed = torch.rand(rows, 2 * n, *places, generator=rng, dtype=dtype)
    mixed[:, n:] *= torch.rand(mixed[:, n:].shape, generator=rng) > 0.3
    mixed[0, n:] = 0
    gain, bias = torch.rand(n, generator=rng, dtype=dtype), torch.randn(n, generator=rng, dtype=dtype)
    above = torch.randn(shape, generator=rng, dtype=dtype)
    return *(t.requires_grad_() for t in (stacked, mixed, gain, bias)), above


def both(given: tuple[Tensor, ...], through: bool) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Currents and the four gradients: ours, then the formula's."""
    *leaves, above = given
    stacked, mixed, gain, bias = leaves
    read = (stacked[:, : len(gain)], mixed, gain, bias)
    assert why_eager(*read) == ""
    ours, formula = normalised(*read, through, normalised_formula), normalised_formula(*read, through)
    return (ours, *torch.autograd.grad(ours, leaves, above)), (formula, *torch.autograd.grad(formula, leaves, above))


@needs_compiler
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("through", [True, False], ids=["through zeros", "not through zeros"])
def test_currents_are_the_formulas_bit_for_bit_and_gradients_are_its_to_rounding(through, dtype, rng, monkeypatch):
    """Rows that stand in a wider tensor, zeros and rows of them; on one thread and on more than there are rows."""
    for shape, threads in itertools.product(SHAPES, (1, 3)):
        monkeypatch.setattr(module, "share", lambda n, threads=threads: threads)
        ours, formula = both(drawn(shape, dtype, rng), through)

        assert torch.equal(ours[0], formula[0])
        for found, wanted in zip(ours[1:], formula[1:], strict=True):
            assert found.shape == wanted.shape
            assert (found - wanted).abs().max() <= CLOSE[dtype] * wanted.abs().max()


@needs_compiler
def test_gradients_that_do_not_lie_row_by_row_are_read_right(rng):
    """A mean hands back one number for all; a transposed layer its own order."""
    for view in (lambda g: g[:1, :1].expand(64, 33), lambda g: g.T.contiguous().T, lambda g: g[:, :1].expand(-1, 33)):
        *leaves, above = drawn((64, 33), torch.float64, rng)
        ours, formula = both((*leaves, view(above)), True)

        for found, wanted in zip(ours, formula, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)  # float64; sums in another order


@needs_compiler
def test_a_circuit_uses_it_and_can_be_differentiated_twice(rng):
    """The second time by the formula."""
    circuit = Circuit((6,), 8).double()
    with torch.no_grad():
        for p in circuit.parameters():
            p.copy_(torch.rand(p.shape, generator=rng) + 0.1)
    x = torch.rand(3, 6, generator=rng, dtype=torch.float64).requires_grad_()
    currents = circuit(x)

    assert currents.grad_fn.name() == "NormaliseBackward"
    assert torch.autograd.gradcheck(circuit, (x,))
    assert torch.autograd.gradgradcheck(circuit, (x,))


def test_without_a_compiler_the_formula_runs_and_the_numbers_are_the_same(rng, monkeypatch):
    """The reason is said."""
    circuit = Circuit((6,), 8)
    with torch.no_grad():
        for p in circuit.parameters():
            p.copy_(torch.rand(p.shape, generator=rng) + 0.1)
    x = torch.rand(3, 6, generator=rng)
    with_compiler = circuit(x)

    monkeypatch.setattr(module, "_why_not", lambda dtype: "no C compiler is found")

    assert why_eager(x) == "no C compiler is found"
    assert circuit(x).grad_fn.name() == "AddBackward0"
    assert torch.equal(circuit(x), with_compiler)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ([torch.zeros(2, 2, dtype=torch.bfloat16)], "the C code is for float32 and float64, not bfloat16"),
        ([torch.zeros(2, 2, device="meta")], "there is no fused code for meta"),
        ([torch.zeros(2, 2), torch.zeros(2, dtype=torch.float64)], "the tensors are of several dtypes"),
        ([torch.zeros(0, 2)], "there are no rows"),
    ],
    ids=["bfloat16", "meta", "several dtypes", "no rows"],
)
def test_what_it_is_not_for_runs_by_the_formula(given, reason):
    assert why_eager(*given) == reason
