"""Run by test_fused.py with TRITON_INTERPRET=1: the Triton kernels on the CPU, launch by launch, against the loop."""

from __future__ import annotations

import itertools
import os

import torch
from harness_papers.ei_snn import triton_kernels as launches
from harness_papers.ei_snn.fused import STEPS, Neuron
from harness_papers.ei_snn.neuron import ALPHAS, lif_loop

SHAPES = [(1, 5), (3, 700), (4, 33), (6, 513), (9, 20)]  # within a program and beyond it; steps that do and do not fill blocks
HOW = list(itertools.product((2.0, 3.3), (False, True), (True, False), ALPHAS))  # tau, hard, detach, surrogate


def compare(steps: int, count: int, tau: float, hard: bool, detach: bool, surrogate: str, expanded: bool) -> float:
    """The largest error of the gradient over the largest gradient; spikes must be equal."""
    rng = torch.Generator().manual_seed(steps * count)
    currents = torch.randn(1 if expanded else steps, count, generator=rng) * 0.7 + 0.4
    currents, step = (currents.expand(steps, -1), 0) if expanded else (currents, count)
    grad, grad_step = torch.randn(steps, 2 * count, generator=rng)[:, :count], 2 * count
    neuron = Neuron(1 - 1 / tau, 1.25, ALPHAS[surrogate], hard, detach, surrogate)
    spikes, made = torch.full((steps, count), torch.nan), torch.full((steps, count), torch.nan)
    kept = torch.full(((steps - 1) // STEPS, count), torch.nan) if neuron.needs_u and steps > STEPS else None

    launches.forward(currents, step, spikes, kept, neuron)
    launches.backward(currents, step, kept, grad, grad_step, made, neuron)

    leaf = currents.double().requires_grad_()  # the interpreter rounds leak * v before it adds, torch does not
    expected = lif_loop(leaf, tau, 1.25, "hard" if hard else "soft", detach, surrogate, ALPHAS[surrogate])
    (slopes,) = torch.autograd.grad(expected, leaf, grad.double())
    assert torch.equal(spikes, expected.float()), (steps, count, neuron)
    return float((made - slopes).abs().max() / slopes.abs().max())


def main() -> None:
    assert os.environ.get("TRITON_INTERPRET") == "1"
    for (steps, count), (tau, hard, detach, surrogate) in itertools.product(SHAPES, HOW):
        error = compare(steps, count, tau, hard, detach, surrogate, expanded=count == 33)
        assert error <= 1e-5, (steps, count, tau, hard, detach, surrogate, error)  # Kernel.tolerance
        print(f"{steps} {count} {tau} {hard} {detach} {surrogate}: agrees, {error:.1e}")


if __name__ == "__main__":
    main()
