"""The fused neuron against the loop: the same spikes, bit for bit, and its gradient, in any layout; where it does not run."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from harness_papers.ei_snn import PlainParams, c_kernels, fused, neuron
from harness_papers.ei_snn.fused import FusedLIF, Neuron, why_eager
from harness_papers.ei_snn.learners import solve_plain
from harness_papers.ei_snn.neuron import ALPHAS, lif, lif_loop
from invoking import run_script
from torch import Tensor

WHY = c_kernels.why_not(torch.float32, False, True, "sigmoid")
needs_compiler = pytest.mark.skipif(bool(WHY), reason=f"needs a C compiler: {WHY}")
PLAIN = Neuron(0.5, 1.0, 4.0, False, True, "sigmoid")
# float64: sums of two products in another order. float32: that, and the sigmoid's own 2e-7 of its peak, over some steps.
CLOSE = {torch.float64: 1e-14, torch.float32: 2e-6}
WIDE = list(itertools.product([torch.float64], ["soft", "hard"], [True, False], ALPHAS))
NARROW = [(torch.float32, *how, name) for how, name in itertools.product([("soft", True), ("hard", False)], ALPHAS)]
# Steps that fill blocks of four and that do not; neurons: one, no whole vector, more than a tile.
SHAPES = [(1, 7), (2, 33), (3, 1), (4, 100), (5, 17), (8, 8192 + 5), (11, 3, 5), (16, 64)]


def drawn(*shape: int, dtype: torch.dtype = torch.float32, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """Currents with about one spike in three, and a gradient from above."""
    currents = torch.randn(*shape, generator=rng, dtype=dtype) * 0.7 + 0.4
    return currents.requires_grad_(), torch.randn(*shape, generator=rng, dtype=dtype)


def both(currents: Tensor, grad: Tensor, how: Neuron = PLAIN, tau: float = 2.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Spikes and gradient of the currents: fused, then by the loop."""
    assert why_eager(currents, how) == ""
    ours = fused.lif_fused(currents, how)
    loop = lif_loop(currents, tau, how.theta, "hard" if how.hard else "soft", how.detach, how.surrogate, how.alpha)
    return ours, torch.autograd.grad(ours, currents, grad)[0], loop, torch.autograd.grad(loop, currents, grad)[0]


def assert_same(currents: Tensor, grad: Tensor, how: Neuron = PLAIN, tau: float = 2.0) -> None:
    ours, found, loop, wanted = both(currents, grad, how, tau)
    assert torch.equal(ours, loop)
    assert ours.is_contiguous()
    assert (found - wanted).abs().max() <= CLOSE[currents.dtype] * wanted.abs().max()


# The same numbers -------------------------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize(("dtype", "reset", "detach", "surrogate"), WIDE + NARROW, ids=str)
def test_spikes_are_the_loops_bit_for_bit_and_the_gradient_is_its_to_rounding(dtype, reset, detach, surrogate, rng):
    """Each reset, gradient through it or not, each surrogate, and a leak whose products are not exact."""
    for shape, (tau, theta, alpha) in itertools.product(SHAPES, [(2.0, 1.0, ALPHAS[surrogate]), (3.3, 0.7, 1.9)]):
        currents, grad = drawn(*shape, dtype=dtype, rng=rng)

        assert_same(currents, grad, Neuron(1 - 1 / tau, theta, alpha, reset == "hard", detach, surrogate), tau)


@needs_compiler
def test_the_sigmoids_slope_in_float32_is_within_its_declared_error_everywhere():
    """2e-7 of the peak, by a polynomial in place of an exponential; far out it falls to 0 and overflows into nothing else."""
    x = torch.cat([torch.linspace(-12, 12, 200_001), torch.tensor([-1e30, -1e6, 60.0, 1e4, 1e20, 3e38])]).double()
    currents = (x + 1).float().unsqueeze(0).requires_grad_()
    exact = neuron.slope(currents.detach().double() - 1, "sigmoid", 4.0)

    (found,) = torch.autograd.grad(fused.lif_fused(currents, PLAIN), currents, torch.ones_like(currents))

    assert (found.double() - exact).abs().max() <= 2e-7
    assert found[0, -6:].tolist() == pytest.approx([0] * 6, abs=1e-30)


@needs_compiler
@pytest.mark.parametrize("alpha", [1e-12, 1e6, 1e12, 1e30])
def test_a_sigmoid_of_any_sharpness_has_a_number_for_its_slope(alpha):
    """At the threshold, beside it and far from it: what overflows or vanishes on the way makes no NaN."""
    currents = torch.tensor([[1.0, 1 + 1e-6, 0.5, -2.0, 1e30]]).requires_grad_()
    spikes = fused.lif_fused(currents, Neuron(0.5, 1.0, alpha, False, True, "sigmoid"))

    (found,) = torch.autograd.grad(spikes, currents, torch.ones_like(currents))

    assert found[0, 0] == pytest.approx(alpha / 4)
    assert ((found >= 0) & (found <= alpha / 4 * (1 + 1e-6))).all()


@needs_compiler
@pytest.mark.parametrize("surrogate", ALPHAS)
def test_where_in_their_pages_tensors_lie_changes_no_bit(surrogate, rng):
    """It decides in which direction the code walks through the neurons."""
    drawn_currents, drawn_grad = torch.randn(2, 9, 1024 + 45, generator=rng)
    how = Neuron(0.5, 1.0, ALPHAS[surrogate], False, False, surrogate)
    found = []
    for start in range(0, 1024, 112):  # floats of a page
        currents, grad = (
            torch.empty(x.numel() + 1024)[start : start + x.numel()].view_as(x) for x in (drawn_currents, drawn_grad)
        )
        spikes = fused.lif_fused(currents.copy_(drawn_currents).requires_grad_(), how)
        found.append((spikes.detach(), *torch.autograd.grad(spikes, currents, grad.copy_(drawn_grad))))

    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


@needs_compiler
def test_without_a_gradient_the_spikes_are_the_same(rng):
    """Nothing is kept then."""
    currents, _ = drawn(9, 50, rng=rng)

    with torch.no_grad():
        assert torch.equal(lif(currents), lif(currents.detach().clone().requires_grad_()).detach())
    assert not lif(currents.detach()).requires_grad


@needs_compiler
@pytest.mark.parametrize("surrogate", ALPHAS)
def test_a_neuron_that_is_not_finite_harms_no_other(surrogate, rng):
    """Neither forward nor back; NaN does not spike, as in the loop."""
    currents, grad = drawn(6, 40, rng=rng)
    broken = currents.detach().clone()
    broken[2, 5], broken[2, 6], broken[2, 7] = torch.nan, torch.inf, -torch.inf
    others = [i for i in range(40) if i not in (5, 6, 7)]
    how = Neuron(0.5, 1.0, ALPHAS[surrogate], False, False, surrogate)

    ours, found, loop, _ = both(broken.requires_grad_(), grad, how)
    whole, right, _, _ = both(currents, grad, how)

    assert torch.equal(ours[:, others], whole[:, others])
    assert torch.equal(found[:, others], right[:, others])
    assert torch.equal(ours, loop)


# Where it lies, and who computes it -------------------------------------------------------------------------------------


VIEWS = {
    "every second": lambda x: x[..., ::2],
    "transposed": lambda x: x.transpose(1, 2),
    "cut": lambda x: x[1:, :, 1:],
    "every second step": lambda x: x[::2],
    "one for all steps": lambda x: x[:1].expand(7, -1, -1),
    "one for all rows": lambda x: x[:, :1].expand(-1, 5, -1),
    "unaligned": lambda x: x.flatten()[1:2689].view(8, 336),
    "time last": lambda x: x.permute(2, 0, 1),
}


@needs_compiler
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS)
def test_currents_and_gradients_are_read_where_they_lie(view, rng):
    """In any order, also where several stand in one place."""
    base, above = (torch.randn(9, 10, 30, generator=rng) for _ in range(2))
    plain = torch.randn(view(base).shape, generator=rng)

    assert_same(view(base * 0.7 + 0.4).detach().requires_grad_(), view(above))
    assert_same(plain.clone().requires_grad_(), view(above))
    assert_same(view(base * 0.7 + 0.4).detach().requires_grad_(), plain)


@needs_compiler
def test_equal_steps_are_not_copied_and_what_a_mean_hands_back_is_not_either(rng):
    """Direct coding gives the first layer one step for all; a mean over time gives one gradient for all."""
    equal, whole = torch.randn(1, 40, generator=rng).expand(6, -1), torch.randn(6, 40, generator=rng)

    for given, step in ((equal, 0), (whole, 40), (whole[::2], 80)):
        read, found = fused.rows(given)
        assert (read.data_ptr(), found) == (given.data_ptr(), step)
    assert fused.rows(whole.T.contiguous().T)[1] == 40  # neurons first in memory: copied


@needs_compiler
def test_no_neurons_are_no_error():
    currents = torch.zeros(5, 0, 3, requires_grad=True)

    (found,) = torch.autograd.grad(lif(currents).sum(), currents)

    assert found.shape == currents.shape


@needs_compiler
@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_change_no_bit(threads, rng, monkeypatch):
    """Each has whole cache lines of neurons to itself; some of the seven have none."""
    currents, grad = drawn(6, 8192 * 2 + 50, rng=rng)
    few, less = drawn(6, 70, rng=rng)
    alone = [both(currents, grad)[:2], both(few, less)[:2]]

    monkeypatch.setattr(fused, "share", lambda n: threads)

    for one, many in zip(alone, [both(currents, grad)[:2], both(few, less)[:2]], strict=True):
        assert all(map(torch.equal, one, many))


# Around it --------------------------------------------------------------------------------------------------------------


@needs_compiler
def test_a_quarter_of_a_tensor_is_kept_beside_the_currents(rng):
    """And nothing where the slope is the same everywhere."""
    currents, _ = drawn(16, 1000, rng=rng)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        lif(currents)
        assert sorted(t.numel() for t in kept) == [3 * 1000, 16 * 1000]
        kept.clear()
        lif(currents, surrogate="straight-through", detach=False)
    assert not kept


@needs_compiler
def test_currents_that_are_changed_before_the_backward_pass_are_noticed(rng):
    """They are read again there: autograd has to refuse it."""
    currents, grad = drawn(6, 40, rng=rng)
    near = currents * 1.0
    spikes = lif(near)
    near.detach().zero_()

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        spikes.backward(grad)


@needs_compiler
def test_a_second_derivative_is_refused_as_the_loop_refuses_it(rng):
    """It would be 0 of spikes and wrong of surrogates."""
    currents, grad = drawn(6, 40, rng=rng)
    for spikes in (lif(currents), lif_loop(currents, 2.0, 1.0, "soft", True, "sigmoid", 4.0)):
        (found,) = torch.autograd.grad(spikes, currents, grad.requires_grad_(), create_graph=True)

        with pytest.raises(RuntimeError, match="once_differentiable"):
            found.sum().backward()


@needs_compiler
@pytest.mark.parametrize("reset_gradient", [False, True])
def test_training_with_the_fused_code_is_training_with_the_loop(reset_gradient, make_ctx, clouds, monkeypatch):
    """float64, some steps of SGD through three layers: one spike that differed would be seen in every weight."""
    problem = clouds()

    def trained() -> list[Tensor]:
        ctx = make_ctx(dtype="float64", samples_seen=1536)
        params = PlainParams(depth=4, width=24, steps=6, init="balanced", batch=64, reset_gradient=reset_gradient)
        return [p.detach() for p in solve_plain(problem, ctx, params).module.parameters()]

    calls = []
    monkeypatch.setattr(neuron, "lif_fused", lambda x, how: calls.append(x.requires_grad) or fused.lif_fused(x, how))
    ours = trained()
    assert sum(calls) >= 3 * 24  # layers and steps
    monkeypatch.setattr(neuron, "why_eager", lambda currents, how: "for this test")
    calls.clear()
    loop = trained()

    assert not calls
    for one, other in zip(ours, loop, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)  # rounding of gradients, over 24 steps


# Where it does not run --------------------------------------------------------------------------------------------------


@pytest.fixture
def no_compiler(monkeypatch):
    """As on a machine without one."""
    fused._why_eager.cache_clear()
    monkeypatch.setattr(c_kernels, "why_not", lambda *how: "no C compiler is found (cc, gcc, clang); install gcc")
    yield
    fused._why_eager.cache_clear()


def test_without_a_compiler_the_loop_runs_and_the_reason_is_said(no_compiler, rng):
    """The numbers are the same; only the time is not."""
    currents, _ = drawn(6, 40, rng=rng)

    assert why_eager(currents, PLAIN) == "no C compiler is found (cc, gcc, clang); install gcc"
    assert lif(currents).grad_fn.name() == "LIFLoopBackward"


@needs_compiler
def test_with_a_compiler_the_fused_code_runs(rng):
    currents, _ = drawn(6, 40, rng=rng)

    assert why_eager(currents, PLAIN) == ""
    assert lif(currents).grad_fn.name() == f"{FusedLIF.__name__}Backward"


@pytest.mark.parametrize(
    ("currents", "reason"),
    [
        (torch.zeros(4, 2, dtype=torch.bfloat16), "the C code is for float32 and float64, not bfloat16"),
        (torch.zeros(4, 2, device="meta"), "there is no fused code for meta"),
        (torch.zeros(4, 2).as_subclass(type("Marked", (Tensor,), {})), "the fused code takes plain tensors, no subclasses"),
    ],
    ids=["bfloat16", "meta", "subclass"],
)
def test_what_it_is_not_for_runs_in_the_loop(currents, reason):
    assert why_eager(currents, PLAIN) == reason
    assert lif(currents).shape == currents.shape


def test_torch_compile_is_given_the_loop(monkeypatch):
    """It cannot look into C, and fuses the loop by itself."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)

    assert why_eager(torch.zeros(4, 2), PLAIN) == "torch.compile is given the loop"


# Triton -----------------------------------------------------------------------------------------------------------------


def test_the_triton_kernels_agree_with_the_loop_in_the_interpreter():
    """On the CPU: Triton reads TRITON_INTERPRET when it is imported."""
    pytest.importorskip("triton", reason="triton is not installed")

    assert run_script(Path(__file__).with_name("interpret_triton.py"), TRITON_INTERPRET="1").count("agrees") == 160


def test_the_triton_kernels_compile_for_a_hopper_gpu(tmp_path):
    """Without one: their types fit, and a thread loads several neurons at a time."""
    pytest.importorskip("triton", reason="triton is not installed")

    assert run_script(Path(__file__).with_name("compile_triton.py"), TRITON_CACHE_DIR=str(tmp_path)).count("compiled") == 4


def test_without_triton_the_loop_runs_on_cuda_and_the_reason_is_said(monkeypatch):
    """A GPU whose torch has no Triton with it."""

    def missing():
        raise ImportError("No module named 'triton'")

    monkeypatch.setattr(fused, "_triton", missing)

    assert fused._why_no_triton() == "Triton cannot be imported (No module named 'triton'); pip install triton"


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("reset", "detach"), [("soft", True), ("hard", False)])
@pytest.mark.parametrize("surrogate", ALPHAS)
def test_the_triton_kernels_agree_with_the_loop_on_cuda(surrogate, reset, detach, dtype, rng):
    """Half precision is computed in float32, so it is compared with the loop on the same currents in float32."""
    for shape in [*SHAPES, (64, 1000)]:
        currents, grad = (t.detach().to("cuda", dtype) for t in drawn(*shape, rng=rng))
        how = Neuron(0.5, 1.0, ALPHAS[surrogate], reset == "hard", detach, surrogate)
        assert why_eager(currents, how) == ""
        ours = fused.lif_fused(currents.requires_grad_(), how)
        wide = currents.detach().float().requires_grad_()
        loop = lif_loop(wide, 2.0, 1.0, reset, detach, surrogate, ALPHAS[surrogate])
        (found,), (wanted,) = torch.autograd.grad(ours, currents, grad), torch.autograd.grad(loop, wide, grad.float())

        assert torch.equal(ours.float(), loop)
        tolerance = {torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}[dtype]  # one rounding of the result
        assert (found.float() - wanted).abs().max() <= tolerance * wanted.abs().max()
