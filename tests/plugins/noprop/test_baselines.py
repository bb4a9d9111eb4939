"""The chain, the neural ODE and the ensemble against plain loops, and what all methods cost."""

from __future__ import annotations

import builtins
import importlib

import pytest
import torch
from harness_papers.noprop import METHODS, AdjointParams, ChainParams, EnsembleParams
from harness_papers.noprop.baselines import Chain, Ensemble, NeuralODE, solve_adjoint, solve_chain, solve_ensemble
from harness_papers.noprop.blocks import BlockSpec
from harness_papers.noprop.method import ItemNoise
from torch.nn import functional as F

from harness import Unsupported
from harness.lab import count_params

from .plain import plain_copies

B, CLASSES = 8, 4
FLOAT64 = {"rtol": 1e-8, "atol": 1e-10}
SMALL = {"width": 16, "batch": 32, "lr": 1e-2, "evaluations": 2}


@pytest.fixture
def batch(rng):
    return torch.randn(B, 6, generator=rng, dtype=torch.float64), torch.arange(B) % CLASSES


def ready(module, make_ctx, batch):
    """With initial values, in float64."""
    module.blocks.draw(make_ctx())
    if hasattr(module, "codes"):
        module.codes.draw(make_ctx(), *batch)
    return module.double()


def test_the_chain_and_its_gradients_are_those_of_plain_blocks(make_ctx, batch, rng, monkeypatch):
    """Equations 17 to 19, block after block; gradients reach every block through the chain."""
    x, y = batch
    module = ready(Chain(BlockSpec((6,), CLASSES, 5, width=8), ChainParams(blocks=3, embedding="learned")), make_ctx, batch)
    plain, codes, gate = plain_copies(module.blocks), module.codes, module.gate.detach().clone().requires_grad_()
    start = torch.randn(5, B, generator=rng, dtype=torch.float64)
    monkeypatch.setattr(torch, "randn", lambda *shape, **kinds: start)

    module.loss(module(x), y).backward()

    z, weight = start.T, codes.weight.detach()
    for t, block in enumerate(plain):
        share = torch.tanh(gate[t])
        z = (1 - share) * z + share * (block(x, z).softmax(dim=1) @ weight)
    logits = z @ codes.out_weight.detach().T + codes.out_bias.detach()[:, 0]
    F.cross_entropy(logits, y).backward()
    torch.testing.assert_close(module.gate.grad, gate.grad, **FLOAT64)
    for t, block in enumerate(plain):
        torch.testing.assert_close(module.blocks.head2_weight.grad[t], block.head[6].weight.grad, **FLOAT64)
        torch.testing.assert_close(module.blocks.z_weight.grad[t], block.read[0].weight.grad, rtol=1e-6, atol=1e-12)


def test_the_gates_start_where_they_are_told(make_ctx, batch):
    """g_t = tanh(w_t)."""
    module = Chain(BlockSpec((6,), CLASSES, CLASSES, width=8), ChainParams(blocks=3, gate=0.3))

    torch.testing.assert_close(module.gate.tanh(), torch.full((3,), 0.3))


def test_the_ensemble_answers_by_the_mean_probability_of_the_members_so_far(make_ctx, batch):
    """And its members are trained apart: the loss of one moves no other."""
    x, y = batch
    spec = BlockSpec((6,), CLASSES, CLASSES, width=8, z=False)
    module = ready(Ensemble(spec, EnsembleParams(blocks=3)), make_ctx, batch).eval()
    with torch.no_grad():
        each = module.blocks.logits(module.blocks.see(x), None).softmax(dim=1)

    for t, step in enumerate(module.walk(x), start=1):
        torch.testing.assert_close(step.state.softmax(dim=1), each[:t].mean(dim=0).T, **FLOAT64)
    F.cross_entropy(module.train()(x)[0].T, y).backward()
    assert all(not p.grad[1:].any() for p in module.parameters())
    assert not {name for name, _ in module.named_parameters() if "_z" in name or name.startswith("blocks.z")}


# The neural ODE ---------------------------------------------------------------------------------------------------------

ODE = BlockSpec((6,), CLASSES, CLASSES, width=8, norm="none", time=True)


def test_euler_s_method_on_the_field_is_the_loop(make_ctx, batch):
    """z + f(t, z) / steps, at the left end of each step."""
    pytest.importorskip("torchdiffeq")
    x, _ = batch
    module = ready(NeuralODE(ODE, AdjointParams(steps=6), salt=3), make_ctx, batch).eval()
    (block,), z = plain_copies(module.blocks), ItemNoise(x, 3, 0)(0, CLASSES).T

    with torch.no_grad():
        answer = module(x)
        for k in range(6):
            z = z + block(x, z, torch.full((B,), k / 6, dtype=torch.float64)) / 6

    torch.testing.assert_close(answer, module.codes.read(z.T).T, **FLOAT64)


def test_adjoint_gradients_are_those_through_the_solver(make_ctx, batch, rng):
    """To the solver's own error: a fine fourth-order solver, against automatic differentiation of its steps.

    Also for what reads the items, which the adjoint equation reaches only because `see` is handed to it.
    """
    torchdiffeq = pytest.importorskip("torchdiffeq")
    x, y = batch
    module = ready(NeuralODE(ODE, AdjointParams(steps=40, solver="rk4")), make_ctx, batch)
    z = torch.randn(CLASSES, B, generator=rng, dtype=torch.float64)
    named = dict(module.named_parameters())

    module.loss(module.codes.read(module.integrate(module.blocks.see(x), z, marks=1)[-1]).T, y).backward()
    adjoint = {name: p.grad.clone() for name, p in named.items()}
    module.zero_grad()
    seen = module.blocks.see(x)
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    direct = torchdiffeq.odeint(lambda t, z: module.velocity(t, z, seen), z, times, method="rk4", options={"step_size": 1 / 40})
    module.loss(module.codes.read(direct[-1]).T, y).backward()

    assert adjoint["blocks.x1_weight"].abs().max() > 1e-4
    for name, parameter in named.items():
        largest = parameter.grad.abs().max().item()  # the kinks of ReLU make the solver's error larger than fourth order
        torch.testing.assert_close(adjoint[name], parameter.grad, rtol=0, atol=1e-2 * largest)


def test_without_torchdiffeq_the_adjoint_says_what_to_install(make_ctx, blobs, monkeypatch):
    """Unsupported before anything is built; the rest of the suite runs."""
    real = builtins.__import__

    def missing(name, *rest, **more):
        if name == "torchdiffeq":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(Unsupported, match=r"pip install torchdiffeq"):
        solve_adjoint(blobs(), make_ctx(steps=1), AdjointParams())


# As learners ------------------------------------------------------------------------------------------------------------

SOLVES = {
    "chain": (solve_chain, ChainParams, {"blocks": 2, "gate": 0.1}),
    "chain, layer norm": (solve_chain, ChainParams, {"blocks": 2, "norm": "layer", "embedding": "learned"}),
    "ensemble": (solve_ensemble, EnsembleParams, {"blocks": 2}),
    "adjoint": (solve_adjoint, AdjointParams, {"steps": 3}),
}


@pytest.mark.parametrize(("solve", "declared", "params"), SOLVES.values(), ids=SOLVES)
def test_each_baseline_learns_an_easy_problem_and_repeats_itself(solve, declared, params, make_ctx, blobs):
    """A baseline that does not learn would make any method look good."""
    if solve is solve_adjoint:
        pytest.importorskip("torchdiffeq")
    problem, params = blobs(), declared(**SMALL, **params)
    first, again = (solve(problem, make_ctx(steps=4), params).predict(problem.x) for _ in range(2))
    learned = solve(problem, make_ctx(steps=90), params).predict(problem.x)

    assert torch.equal(first, again)
    assert (learned.argmax(dim=1) == problem.y).float().mean() > 0.95


# Costs ------------------------------------------------------------------------------------------------------------------

SHAPES = {
    "vector": {"inputs": 6, "outputs": CLASSES, "train_items": 96},
    "image": {"inputs": 128, "outputs": CLASSES, "train_items": 96, "channels": 2, "height": 8, "width": 8},
}


@pytest.mark.parametrize("kind", ["mlp", "image"])
@pytest.mark.parametrize("embedding", ["one-hot", "learned", "prototype"])
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_declared_costs_are_those_of_the_trained_net(method, embedding, kind, make_ctx, blobs):
    """`match` trusts the count; here it is compared with what a worker counts on the solution."""
    if method.name == "noprop-adjoint":
        pytest.importorskip("torchdiffeq")
    if method.name == "noprop-ensemble" and embedding != "one-hot":
        pytest.skip("the ensemble has no embedding")
    shape = SHAPES["image" if kind == "image" else "vector"]
    inputs = (2, 8, 8) if kind == "image" else (6,)
    few = {"blocks": 2} if "blocks" in method.params.model_fields else {"steps": 3}
    few |= {"embedding": embedding} if "embedding" in method.params.model_fields else {}
    params = method.params(block=kind, width=16, **few)
    solve, cost = (getattr(importlib.import_module(c.split(":")[0]), c.split(":")[1]) for c in (method.solve, method.cost))

    solution = solve(blobs(classes=CLASSES, inputs=inputs), make_ctx(steps=1), params)

    assert cost(shape, params)["params"] == count_params(solution.module)


def test_a_chain_costs_as_many_flops_as_its_blocks():
    """Each block once, forward and backward; the ensemble's blocks are smaller by what reads z."""
    methods = {method.name: method for method in METHODS}

    def cost_at(name: str, **params) -> dict:
        module, _, function = methods[name].cost.partition(":")
        cost = getattr(importlib.import_module(module), function)
        return cost(SHAPES["vector"], methods[name].params(width=16, batch=32, **params))

    one, ten = (cost_at("noprop-dt", blocks=blocks)["flops"] for blocks in (1, 10))
    assert ten == pytest.approx(10 * one, rel=0.01)
    assert cost_at("noprop-first-block", blocks=10)["flops"] == pytest.approx(one, rel=0.01)
    assert cost_at("noprop-backprop")["flops"] == pytest.approx(ten, rel=0.2)
    assert one * 4 < cost_at("noprop-ensemble")["flops"] < ten
    assert cost_at("noprop-ct")["flops"] == cost_at("noprop-ct", steps=3)["flops"]  # of training, not of inference
    assert "meta" in cost_at("noprop-adjoint")["no_flops"]
    for name in ("noprop-dt", "noprop-backprop", "noprop-ct", "noprop-fm", "noprop-ensemble"):
        assert cost_at(name)["counted"] > 0.9, cost_at(name)["uncounted"]
