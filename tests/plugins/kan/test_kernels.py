"""The kernel `kan-linear`: its cases, and each implementation under the harness's own check, forward and backward."""

from __future__ import annotations

import pytest
import torch
from harness_papers.kan import c_kernels, kernels
from harness_papers.kan.cases import KAN_LINEAR, KANCase, shape

from harness.catalogue import Catalogue
from harness.kernels.checking import check_implementation, draw_operands
from harness.worker.kernel import resolve_implementation, resolve_kernel

CPU = torch.device("cpu")
# pykan's module is called `kan`, as this folder is to pytest: a run of the kernel checks it, in a process of its own.
EAGER = [i for i in KAN_LINEAR.implementations if i.kind != "compiled" and not i.requires]
CASES = [
    {"elements": 4096, "features": 64, "outputs": 40, "input_grad": True},
    {"elements": 300 * 33, "features": 33, "outputs": 70, "grid": 8, "order": 2, "input_grad": True},
    {"elements": 4096, "features": 64, "outputs": 10, "layout": "strided"},
    {"elements": 4096, "features": 64, "outputs": 10, "layout": "unaligned", "input_grad": True},
    {"elements": 1, "input_grad": True},
    {"elements": 0, "input_grad": True},
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("implementation", EAGER, ids=lambda i: i.name)
def test_every_implementation_passes_the_harnesss_check(implementation, case, catalogue: Catalogue, rng):
    """Against Cox-de Boor in float64, on several inputs, with results looked at again later."""
    (offer,) = (o for o in catalogue.kernels if o.spec.name == "kan-linear")
    kernel, made = resolve_kernel(offer), resolve_implementation(offer.spec, implementation)
    given = KANCase(**case)
    sets = draw_operands(kernel, given, rng, CPU, torch.float32)

    found = check_implementation(kernel, made.run, given, torch.float32, sets)

    assert found.errors.forward <= 1e-5  # TOLERANCES of float32
    assert found.errors.backward is not None


@pytest.mark.skipif(bool(c_kernels.why_not(3)), reason="no C compiler")
def test_the_row_is_ours_where_the_c_code_runs_and_says_so_where_it_does_not(rng):
    """The kernel's `fallback`; such a row is not ranked as ours."""
    case, wide = KANCase(elements=640, features=64), KANCase(elements=640, features=64, order=7)

    assert kernels.fallback(kernels.make_inputs(case, rng, CPU, torch.float32), case) == ""
    assert "float64" in kernels.fallback(kernels.make_inputs(case, rng, CPU, torch.float64), case)
    assert "orders up to 5, not 7" in kernels.fallback(kernels.make_inputs(wide, rng, CPU, torch.float32), wide)


@pytest.mark.parametrize(
    ("elements", "features", "rows_and_features"),
    [
        (200_704, 784, (256, 784)),
        (16_384, 64, (256, 64)),
        (1, 64, (1, 1)),
        (0, 64, (0, 64)),
        (100, 64, (2, 64)),
        (63, 64, (1, 63)),
    ],
)
def test_rows_of_a_case_keep_its_elements_as_nearly_as_they_can(elements, features, rows_and_features):
    """Bytes and FLOPs are of the rows that are made: five multiply-adds for each edge and row of a cubic, not nine."""
    case = KANCase(elements=elements, features=features, outputs=10)
    rows, inputs = rows_and_features

    assert shape(case) == rows_and_features
    assert KAN_LINEAR.flops(case, 4)["forward"] == 2 * rows * inputs * 10 * 5 + 30 * rows * inputs
    assert KAN_LINEAR.bytes(case, 4)["forward"] == 4 * (rows * inputs + 90 * inputs + 10 * rows)


def test_the_inputs_gradient_is_made_where_it_is_asked_for(rng):
    """A net's first layer needs none."""
    for wanted in (True, False):
        case = KANCase(elements=640, features=64, input_grad=wanted)
        assert kernels.make_inputs(case, rng, CPU, torch.float32)["x"].requires_grad is wanted
