"""The three methods: their losses and chains against loops written from the paper, and as learners of the track."""

from __future__ import annotations

import math

import pytest
import torch
from harness_papers.noprop import ContinuousParams, DiscreteParams, FirstBlockParams, FlowParams
from harness_papers.noprop.blocks import BlockSpec
from harness_papers.noprop.learners import (
    Continuous,
    Discrete,
    Flow,
    is_mark,
    solve_continuous,
    solve_discrete,
    solve_first_block,
    solve_flow,
)
from harness_papers.noprop.method import ItemNoise, cosine_signal, prior_term, snr, update_coefficients
from torch.nn import functional as F

from harness import Unsupported

from .plain import plain_copies

B, CLASSES = 9, 4
EMBEDDINGS = ["one-hot", "learned", "prototype", "random"]
FLOAT64 = {"rtol": 1e-8, "atol": 1e-10}  # some hundred operations deep


def dims_of(embedding: str) -> int:
    return {"one-hot": CLASSES, "prototype": 6}.get(embedding, 5)


@pytest.fixture
def batch(rng):
    return torch.randn(B, 6, generator=rng, dtype=torch.float64), torch.arange(B) % CLASSES


@pytest.fixture
def build(make_ctx, batch):
    """(kind, embedding, parameters) -> an initialised module in float64, evaluation mode."""

    def make(kind, embedding="one-hot", **params):
        declared = {Discrete: DiscreteParams, Continuous: ContinuousParams, Flow: FlowParams}[kind]
        timed = kind is not Discrete
        spec = BlockSpec((6,), CLASSES, dims_of(embedding), width=8, norm="none" if timed else "batch", time=timed)
        module = kind(spec, declared(embedding=embedding, **params), salt=7)
        module.blocks.draw(make_ctx())
        module.codes.draw(make_ctx(), *batch)
        return module.double().eval()

    return make


# NoProp-DT --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_the_loss_of_every_block_is_the_paper_s(embedding, build, batch, rng):
    """Equation 8, one block after the other: cross-entropy, prior and weighted denoising error."""
    x, y = batch
    module = build(Discrete, embedding, blocks=3, eta=0.2).train()
    plain, abar, codes = plain_copies(module.blocks), cosine_signal(3), module.codes
    eps = torch.randn(2, 3, dims_of(embedding), B, generator=rng, dtype=torch.float64)

    losses = module.losses(module.blocks.see(x), y, eps[0], eps[1])

    u = codes.weight[y]
    for t in range(1, 4):
        z_before = abar[t - 1].sqrt() * u + (1 - abar[t - 1]).sqrt() * eps[0, t - 1].T
        z_last = abar[3].sqrt() * u + (1 - abar[3]).sqrt() * eps[1, t - 1].T
        guess = plain[t - 1](x, z_before).softmax(dim=1) @ codes.weight
        denoising = 3 / 2 * 0.2 * (snr(abar)[t] - snr(abar)[t - 1]) * (guess - u).square().sum(dim=1)
        classified = F.cross_entropy(z_last @ codes.out_weight.T + codes.out_bias[:, 0], y)
        prior = 0.0 if codes.fixed else prior_term(u.T, abar[0]).mean()
        torch.testing.assert_close(losses[t - 1], denoising.mean() + classified + prior, **FLOAT64)


def test_each_block_s_loss_reaches_that_block_and_the_shared_parts_only(build, batch, rng):
    """Invariant 6 of the card."""
    x, y = batch
    module = build(Discrete, "learned", blocks=3).train()
    eps = torch.randn(2, 3, 5, B, generator=rng, dtype=torch.float64)

    module.losses(module.blocks.see(x), y, eps[0], eps[1])[1].backward()

    assert all(not p.grad[0].any() and not p.grad[2].any() for p in module.blocks.parameters())
    assert all(p.grad is not None and p.grad.any() for p in (*module.codes.parameters(), module.blocks.head2_weight))


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_the_chain_is_the_paper_s(embedding, build, batch):
    """Equation 3, a plain block after the other with the same noise."""
    x, _ = batch
    module = build(Discrete, embedding, blocks=3)
    noise, codes, dims = ItemNoise(x, 7, 2), module.codes, dims_of(embedding)
    z = noise(0, dims).T
    a, b, c = update_coefficients(cosine_signal(3))

    steps = list(module.walk(x, draw=2))

    for k, block in enumerate(plain_copies(module.blocks)):
        logits = block.eval()(x, z)
        z = a[k] * logits.softmax(dim=1) @ codes.weight + b[k] * z + c[k].sqrt() * noise(k + 1, dims).T
        torch.testing.assert_close(steps[k].block, logits, **FLOAT64)
        torch.testing.assert_close(steps[k].state, z @ codes.out_weight.T + codes.out_bias[:, 0], **FLOAT64)
    assert [step.t for step in steps] == [1 / 3, 2 / 3, 1.0]
    assert torch.equal(module(x), list(module.walk(x))[-1].state)


def test_blocks_that_know_the_label_give_it_back(build, rng):
    """Invariant 5: with the true code as every guess and f_out the identity, abar_T = 0.99 decodes all of 500 items."""
    x, y = torch.randn(500, 6, generator=rng, dtype=torch.float64), torch.arange(500) % CLASSES
    module = build(Discrete, blocks=10)
    with torch.no_grad():
        module.codes.out_weight.copy_(torch.eye(CLASSES))
        module.codes.out_bias.zero_()
    known = 1e3 * F.one_hot(y, CLASSES).T[None].double()
    module.blocks.logits = lambda seen, z, p: known

    assert torch.equal(module(x).argmax(dim=1), y)


def test_the_first_block_alone_answers_by_its_guess(build, batch, make_ctx):
    """The control has one block, of the same start as the chain's first, and the chain's schedule."""
    x, y = batch
    chain = build(Discrete, blocks=4)
    spec = BlockSpec((6,), CLASSES, CLASSES, width=8)
    alone = Discrete(spec, FirstBlockParams(blocks=4), salt=7, trained=1)
    alone.blocks.draw(make_ctx())
    alone.codes.draw(make_ctx(), x, y)
    alone = alone.double().eval()

    torch.testing.assert_close(alone(x), next(chain.walk(x)).block, **FLOAT64)
    assert not alone.answers_by_state


# NoProp-CT --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_the_continuous_loss_is_the_paper_s(embedding, build, batch, rng):
    """Equation 9 for each item; SNR' by automatic differentiation of exp(-gamma)."""
    x, y = batch
    module = build(Continuous, embedding, eta=0.5)
    codes, (block,) = module.codes, plain_copies(module.blocks)
    eps = torch.randn(2, dims_of(embedding), B, generator=rng, dtype=torch.float64)
    t = torch.rand(B, generator=rng, dtype=torch.float64).requires_grad_()

    losses = module.losses(module.blocks.see(x), y, t, eps[0], eps[1])

    gamma = module.schedule(t)[0]
    (rise,) = torch.autograd.grad((-gamma).exp().sum(), t, retain_graph=True)
    ends = torch.sigmoid(-module.schedule(torch.tensor([0.0, 1.0], dtype=torch.float64))[0])
    u, abar = codes.weight[y], torch.sigmoid(-gamma)[:, None]
    guess = block(x, abar.sqrt() * u + (1 - abar).sqrt() * eps[0].T, t).softmax(dim=1) @ codes.weight
    z_1 = ends[1].sqrt() * u + (1 - ends[1]).sqrt() * eps[1].T
    classified = F.cross_entropy(z_1 @ codes.out_weight.T + codes.out_bias[:, 0], y, reduction="none")
    expected = 0.25 * rise * (guess - u).square().sum(dim=1) + classified + prior_term(u.T, ends[0])
    torch.testing.assert_close(losses, expected, rtol=1e-6, atol=1e-9)  # the schedule's slope against autograd's


@pytest.mark.parametrize("kind", ["mlp", "image"])
def test_seeing_the_items_once_gives_what_seeing_them_at_every_step_gives(kind, make_ctx, rng):
    """The features of x do not depend on t; so 1000 steps need them once."""
    inputs = (1, 8, 8) if kind == "image" else (6,)
    spec = BlockSpec(inputs, CLASSES, CLASSES, width=16, kind=kind, norm="none", time=True)
    x = torch.randn(B, *inputs, generator=rng, dtype=torch.float64)
    module = Continuous(spec, ContinuousParams(steps=12), salt=7)
    module.blocks.draw(make_ctx())
    module.codes.draw(make_ctx(), x, torch.arange(B) % CLASSES)
    module = module.double().eval()
    (block,), noise, steps = plain_copies(module.blocks), ItemNoise(x, 7, 0), 12
    times = torch.arange(steps + 1, dtype=torch.float64) / steps
    a, b, c = update_coefficients(torch.sigmoid(-module.schedule(times)[0]))
    z = noise(0, CLASSES).T

    with torch.no_grad():
        walked = list(module.walk(x, marks=3))
        for k in range(steps):
            logits = block.eval()(x, z, times[k].expand(B))
            z = a[k] * logits.softmax(dim=1) + b[k] * z + c[k].sqrt() * noise(k + 1, CLASSES).T

    torch.testing.assert_close(walked[-1].state, module.codes.read(z.T).T, **FLOAT64)
    torch.testing.assert_close(walked[-1].block, logits, **FLOAT64)
    assert [step.t for step in walked] == [1 / 3, 2 / 3, 1.0]


@pytest.mark.parametrize(("steps", "marks"), [(1000, 10), (7, 3), (3, 10), (1, 1)])
def test_marks_are_even_and_end_at_the_last_step(steps, marks):
    """As many as asked for, or every step where there are fewer."""
    found = [k for k in range(1, steps + 1) if is_mark(k, steps, marks)]

    assert len(found) == min(steps, marks)
    assert found[-1] == steps
    assert max(b - a for a, b in zip([0, *found], found, strict=False)) <= math.ceil(steps / len(found))


# NoProp-FM --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("embedding", EMBEDDINGS)
def test_the_flow_loss_is_the_paper_s(embedding, build, batch, rng):
    """Equations 12 and 13; a fixed embedding has no cross-entropy and no readout."""
    x, y = batch
    module = build(Flow, embedding, sigma=0.3)
    codes, (block,) = module.codes, plain_copies(module.blocks)
    z_0, eps = torch.randn(2, dims_of(embedding), B, generator=rng, dtype=torch.float64)
    t = torch.rand(B, generator=rng, dtype=torch.float64)

    losses = module.losses(module.blocks.see(x), y, t, z_0, eps)

    u, at = codes.weight[y], t[:, None]
    z = at * u + (1 - at) * z_0.T + 0.3 * eps.T
    v = block(x, z, t) @ codes.weight
    expected = (v - (u - z_0.T)).square().sum(dim=1)
    if embedding != "one-hot":
        reached = z + (1 - at) * v
        logits = reached @ codes.out_weight.T + codes.out_bias[:, 0]
        expected = expected + F.cross_entropy(logits, y, reduction="none")
    torch.testing.assert_close(losses, expected, **FLOAT64)
    assert (codes.out_weight is None) == (embedding == "one-hot")


def test_the_true_velocity_lands_on_the_class_in_one_step(build, batch):
    """Invariant 8: z_0 + (u - z_0) = u, and Euler's method cannot miss a straight line in any number of steps."""
    x, y = batch
    for steps in (1, 5):
        module = build(Flow, steps=steps)
        z_0 = ItemNoise(x, 7, 0)(0, CLASSES)
        straight = module.codes.of(y) - z_0
        module.velocity = lambda seen, z, timed, straight=straight: straight

        assert torch.equal(module(x).argmax(dim=1), y)


# As learners ------------------------------------------------------------------------------------------------------------

SOLVES = {
    "dt": (solve_discrete, DiscreteParams, {"blocks": 3}),
    "dt one by one": (solve_discrete, DiscreteParams, {"blocks": 3, "order": "one-by-one"}),
    "dt learned": (solve_discrete, DiscreteParams, {"blocks": 3, "embedding": "learned"}),
    "dt prototype": (solve_discrete, DiscreteParams, {"blocks": 3, "embedding": "prototype"}),
    "ct": (solve_continuous, ContinuousParams, {"steps": 30, "gamma0": -3.0, "gamma1": 3.0}),
    "fm": (solve_flow, FlowParams, {"steps": 30}),
    "first block": (solve_first_block, FirstBlockParams, {"blocks": 3}),
}
SMALL = {"width": 16, "batch": 32, "lr": 1e-2, "evaluations": 2}


@pytest.mark.parametrize(("solve", "declared", "params"), SOLVES.values(), ids=SOLVES)
def test_each_method_learns_an_easy_problem_and_repeats_itself(solve, declared, params, make_ctx, blobs):
    """Three clouds, far apart; 30 passes. The same seed gives the same bits, and another gives others."""
    problem, params, long = blobs(), declared(**SMALL, **params), make_ctx(samples_seen=30 * 96)
    logits = [solve(problem, make_ctx(seed=seed, steps=4), params).predict(problem.x) for seed in (0, 0, 1)]
    learned = solve(problem, long, params).predict(problem.x)

    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    assert (learned.argmax(dim=1) == problem.y).float().mean() > 0.95
    assert (long.offered[-1][1]["samples_seen"], long.offered[-1][1]["steps"]) == (30 * 96, 30 * 3)


@pytest.mark.parametrize("name", ["dt", "ct", "fm"])
def test_a_prediction_does_not_depend_on_the_batch(name, make_ctx, blobs):
    """The noise belongs to the item, and batch norm uses its running statistics."""
    solve, declared, params = SOLVES[name]
    problem = blobs()
    solution = solve(problem, make_ctx(steps=3), declared(**SMALL, **params))

    together = solution.predict(problem.x[:8])
    alone = torch.cat([solution.predict(problem.x[i : i + 1]) for i in range(8)])

    torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-4)  # rounding, grown over the chain


def test_one_by_one_offers_the_chain_as_far_as_it_goes(make_ctx, blobs):
    """Before the last block is trained the newest block's guess is the answer."""
    ctx, problem = make_ctx(steps=30), blobs()
    answers = []
    ctx._on_offer = lambda solution, at: answers.append((solution.module.trained, solution.module.answers_by_state))

    solve_discrete(problem, ctx, DiscreteParams(**SMALL, blocks=3, order="one-by-one"))

    assert answers == [(1, False), (2, False), (3, True)]
    assert ctx.clocks.spent == {"samples_seen": 30 * 32, "steps": 30}


def test_one_by_one_gives_the_blocks_that_the_stack_gives(make_ctx, blobs, monkeypatch):
    """With a fixed embedding blocks do not know of each other: the order of training changes nothing but the noise drawn.

    Here no noise is drawn, so they must agree but for rounding.
    """
    problem = blobs()
    monkeypatch.setattr(torch, "randn", lambda *shape, generator=None, **kinds: torch.zeros(*shape, **kinds))
    params = {**SMALL, "blocks": 3, "norm": "none", "lr": 1e-3}
    trained = [
        solve_discrete(problem, make_ctx(dtype="float64", steps=6), DiscreteParams(**params, order=order)).module
        for order in ("together", "one-by-one")
    ]

    for name, tensor in trained[0].blocks.named_parameters():
        torch.testing.assert_close(tensor, getattr(trained[1].blocks, name), rtol=0, atol=1e-6)  # Adam's first steps magnify


@pytest.mark.parametrize(
    ("budget", "params", "says"),
    [
        ({"flops": 1e9}, {}, "budget.flops: not counted"),
        ({"steps": 9}, {"order": "one-by-one", "embedding": "learned"}, "needs an embedding that stays"),
        ({"wall_s": 1}, {"order": "one-by-one"}, "shares out samples_seen or steps"),
        ({"steps": 9}, {"block": "image"}, "use block: mlp"),
        ({"steps": 9}, {"blocks": 32}, "some levels coincide"),
    ],
)
def test_what_cannot_be_done_is_said(budget, params, says, make_ctx, blobs):
    """Unsupported, with the mend, before any training."""
    with pytest.raises(Unsupported, match=says):
        solve_discrete(blobs(), make_ctx(**budget), DiscreteParams(**params))


def test_parameters_out_of_range_of_ct_are_said(make_ctx, blobs):
    """SNR must rise."""
    with pytest.raises(Unsupported, match="gamma1 > gamma0"):
        solve_continuous(blobs(), make_ctx(steps=1), ContinuousParams(gamma0=1.0, gamma1=0.0))


def test_images_go_through_the_paper_s_block(make_ctx, blobs):
    """With its dropout; the defaults of the declaration but for the width."""
    problem = blobs(inputs=(1, 8, 8))

    solution = solve_discrete(problem, make_ctx(steps=30), DiscreteParams(block="image", width=16, blocks=2, lr=1e-2, batch=32))

    assert solution.module.blocks.spec.dropout == 0.2
    assert (solution.predict(problem.x).argmax(dim=1) == problem.y).float().mean() > 0.9
