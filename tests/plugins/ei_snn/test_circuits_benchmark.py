"""The benchmark of the circuits runs, and both sides of each comparison agree; what it finds is not tested here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness_papers.ei_snn.layers import Circuit

from tests.benchmarks.bench_circuits import separate

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("fan", [(6,), (3, 3, 3)], ids=str)
def test_what_it_is_compared_with_is_the_same_layer(fan, rng):
    """Currents and gradients, zeros of the divisor among them: a rival that did less would flatter nobody."""
    shape = (5, *fan) if len(fan) == 1 else (5, fan[0], 7, 7)
    x = (torch.rand(shape, generator=rng, dtype=torch.float64) < 0.1).double()
    x[0] = 0
    circuit = Circuit(fan, 8).double()
    circuit.init_from(x, rng)
    leaves = list(circuit.parameters())

    ours, theirs = circuit(x), separate(circuit, x)
    gradients = [torch.autograd.grad(out.square().sum(), leaves) for out in (ours, theirs)]

    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)  # sums in another order, divided by small numbers
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-7)


@pytest.mark.slow
def test_a_quick_look_gives_every_figure():
    """A benchmark that broke unnoticed would leave the README's figures without a command."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_circuits", "--quick", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    figures = [json.loads(line) for line in done.stdout.splitlines()]

    assert [figure["what"].split(":")[0] for figure in figures] == ["stacked", "stacked", "once"]
    assert all(min(f["slow_s"]) > 0 and min(f["fast_s"]) > 0 for f in figures)
