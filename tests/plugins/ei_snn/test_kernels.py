"""The kernel `lif`: its cases, each implementation under the harness's own check, its peers; and the probe of what ran."""

from __future__ import annotations

import importlib.util
import itertools

import pytest
import torch
from harness_papers.ei_snn import BatchNormParams, c_kernels, fused, kernels
from harness_papers.ei_snn.cases import LIF, LIFCase, shape
from harness_papers.ei_snn.dispatch import measure_kernel
from harness_papers.ei_snn.learners import solve_bn

from harness.catalogue import Catalogue
from harness.kernels.checking import check_implementation, draw_operands
from harness.lab import Unsupported
from harness.worker.kernel import resolve_implementation, resolve_kernel

CPU = torch.device("cpu")
OWN = [i for i in LIF.implementations if i.kind != "compiled" and not i.requires]
PEERS = [i for i in LIF.implementations if i.requires]
CASES = [
    {"elements": 6 * 500, "steps": 6},
    {"elements": 9 * 70, "steps": 9, "reset": "hard", "surrogate": "arctan"},
    {"elements": 1600, "reset": "hard", "reset_gradient": False, "surrogate": "triangular", "layout": "strided"},
    {"elements": 1600, "surrogate": "straight-through", "layout": "unaligned"},
    {"elements": 3, "reset_gradient": False},
    {"elements": 0},
]  # fmt: skip
NO_COMPILER = c_kernels.why_not(torch.float32, False, False, "sigmoid")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("implementation", OWN, ids=lambda i: i.name)
def test_every_implementation_passes_the_harnesss_check(implementation, case, dtype, catalogue: Catalogue, rng):
    """Against autograd through the recursion in float64, on several inputs, with results looked at again later."""
    (offer,) = (o for o in catalogue.kernels if o.spec.name == "lif")
    kernel, made = resolve_kernel(offer), resolve_implementation(offer.spec, implementation)
    given = LIFCase(**case)
    sets = draw_operands(kernel, given, rng, CPU, dtype)

    found = check_implementation(kernel, made.run, given, dtype, sets)

    assert found.errors.forward == 0  # spikes are equal
    assert found.errors.backward is not None


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("peer", PEERS, ids=lambda i: i.name)
def test_a_peer_computes_the_same_spikes_and_gradient_or_says_that_it_cannot(peer, rng):
    """Nothing is timed beside ours that is another neuron. Those that are not installed are skipped."""
    for module in peer.requires:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    run, done = getattr(kernels, peer.name), 0
    for reset, through, name in itertools.product(["soft", "hard"], [True, False], ["sigmoid", "arctan", "triangular"]):
        case = LIFCase(elements=1600, reset=reset, reset_gradient=through, surrogate=name)
        inputs = kernels.make_inputs(case, rng, CPU, torch.float32)
        above = torch.randn(shape(case), generator=rng)
        try:
            spikes = run(inputs, case)
        except Unsupported:
            continue
        expected = kernels.reference(inputs, case)
        (found,) = torch.autograd.grad(spikes, inputs["currents"], above)
        (wanted,) = torch.autograd.grad(expected, inputs["currents"], above.double())

        assert torch.equal(spikes.double(), expected)
        assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()  # Kernel.tolerance
        done += 1

    assert done >= 2


def test_the_reference_is_another_code_than_the_one_that_runs(rng):
    """float64 throughout, and autograd's own graph: no backward pass of ours is in it."""
    case = LIFCase(elements=60, steps=6)
    spikes = kernels.reference(kernels.make_inputs(case, rng, CPU, torch.float32), case)

    assert spikes.dtype == torch.float64
    assert spikes.grad_fn.name() == "StackBackward0"


@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_no_input_lets_rounding_decide_and_none_resets_twice(reset, rng):
    """A float32 code may then be compared with float64, and snntorch with the formula; about one in three spikes."""
    currents = kernels.make_inputs(LIFCase(elements=64 * 300, steps=64, reset=reset), rng, CPU, torch.float32)["currents"]
    v, rate = torch.zeros(300, dtype=torch.float64), 0.0
    for current in currents.detach().double():
        u = v / 2 + current
        fired = u >= 1
        assert (u - 1).abs().min() > 5e-3
        assert u.max() < 2
        v = torch.where(fired, 0 * u if reset == "hard" else u - 1, u)
        rate += fired.double().mean().item() / 64

    assert 0.2 < rate < 0.4


@pytest.mark.parametrize(
    ("elements", "steps", "steps_and_neurons"),
    [(262_144, 4, (4, 65_536)), (100, 16, (16, 6)), (1, 16, (1, 1)), (0, 16, (16, 0))],
)
def test_steps_and_neurons_of_a_case(elements, steps, steps_and_neurons):
    """Two passes over memory forward, three back: no code can do with less."""
    case = LIFCase(elements=elements, steps=steps)
    whole = 4 * steps_and_neurons[0] * steps_and_neurons[1]

    assert shape(case) == steps_and_neurons
    assert LIF.bytes(case, 4) == {"forward": 2 * whole, "backward": 3 * whole}


@pytest.mark.skipif(bool(NO_COMPILER), reason="no C compiler")
def test_the_row_is_ours_where_the_c_code_runs_and_says_so_where_it_does_not(rng):
    """The kernel's `fallback`; such a row is not ranked as ours."""
    case = LIFCase(elements=640)

    assert kernels.fallback(kernels.make_inputs(case, rng, CPU, torch.float32), case) == ""
    assert "not bfloat16" in kernels.fallback(kernels.make_inputs(case, rng, CPU, torch.bfloat16), case)


@pytest.mark.parametrize("compiler", [True, False])
def test_a_record_says_by_which_code_the_neurons_were_computed(compiler, make_ctx, clouds, monkeypatch):
    """Two layers of a net of depth 3; another method has none."""
    if compiler and NO_COMPILER:
        pytest.skip(NO_COMPILER)
    if not compiler:
        fused._why_eager.cache_clear()
        monkeypatch.setattr(c_kernels, "why_not", lambda *how: "no C compiler is found")
    problem = clouds()
    solution = solve_bn(problem, make_ctx(samples_seen=128), BatchNormParams(depth=3, width=8))

    found = measure_kernel({"x": problem.x}, solution, None)
    fused._why_eager.cache_clear()

    assert found == {"fused_neurons": 2.0 * compiler, "loop_neurons": 2.0 * (not compiler)}
    assert measure_kernel({"x": problem.x}, object(), None) == {"fused_neurons": 0.0, "loop_neurons": 0.0}
