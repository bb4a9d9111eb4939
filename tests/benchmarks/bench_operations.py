"""pytest-benchmark's own loop over single operations: `make bench`, or

    python -m pytest tests/benchmarks/bench_operations.py --benchmark-json=.benchmarks/operations.json
    harness import pytest-benchmark .benchmarks/operations.json

Not collected by a plain `pytest`. Wall seconds of one process: for a look, and for those who keep such files. What a kernel
costs is told by `harness run kernels`, which checks it first.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.catalogue import load_catalogue
from harness.registry import Registry
from harness.suite import load_suite

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # `tests` is a folder of files to pytest, a package to `python -m tests.benchmarks`

from tests.registry_samples import make_attempt, make_trial  # noqa: E402

ELEMENTS = 10_000
ATTEMPTS = 100
CATALOGUE = load_catalogue()
KERNELS = {
    f"{offer.name}-{implementation.name}": (offer, implementation)
    for offer in CATALOGUE.kernels
    for implementation in offer.spec.implementations
    if implementation.kind != "compiled" and "cpu" in implementation.devices and not implementation.requires
}


@pytest.mark.benchmark(group=f"kernels, forward, {ELEMENTS} elements")
@pytest.mark.parametrize("name", KERNELS)
def test_kernel(benchmark, name):
    import torch

    from harness.worker.kernel import resolve_implementation, resolve_kernel

    torch.set_num_threads(1)
    offer, declared = KERNELS[name]
    kernel, implementation = resolve_kernel(offer), resolve_implementation(offer.spec, declared)
    case = offer.spec.params(elements=ELEMENTS)
    inputs = kernel.make_inputs(case, torch.Generator().manual_seed(0), torch.device("cpu"), torch.float32)
    why = implementation.fallback(inputs, case) if implementation.fallback is not None else ""
    if why:
        pytest.skip(f"eager code would run: {why}")
    with torch.no_grad():
        benchmark(implementation.run, inputs, case)


@pytest.mark.benchmark(group="start")
def test_load_catalogue(benchmark):
    assert benchmark(load_catalogue).kernels


@pytest.mark.benchmark(group="start")
def test_load_suite(benchmark):
    assert benchmark(load_suite, ROOT / "suites/vision.yaml", CATALOGUE).name == "vision"


@pytest.mark.benchmark(group="registry")
def test_append(benchmark, tmp_path):
    """One record, flushed to the disk."""
    opened = Registry.open(tmp_path / "registry")
    numbers = iter(range(10**9))
    benchmark.pedantic(opened.append, setup=lambda: ((make_attempt(next(numbers), make_trial()),), {}), rounds=ATTEMPTS)


@pytest.mark.benchmark(group="registry")
def test_query(benchmark, tmp_path):
    """The leaderboard's view over files that were never read before."""
    path = tmp_path / "registry"
    filled = Registry.open(path)
    for seed in range(ATTEMPTS // 2):
        for n, method in enumerate(("relu", "silu")):
            filled.append(make_attempt(2 * seed + n, make_trial(method, seed)))

    table = benchmark(lambda: Registry.open(path, create=False).query("SELECT DISTINCT method FROM v_leaderboard"))

    assert table.num_rows == 2
