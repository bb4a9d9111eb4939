"""The schedule, the optimiser across drops, and every learner on a small problem."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from harness_papers.skan import METHODS
from harness_papers.skan.learners import (
    build,
    cost_family,
    cost_mlp,
    cost_selected,
    cost_soft,
    matched_cnn,
    matched_mlp,
    params_after_pruning,
    solve_cnn,
    solve_family,
    solve_mlp,
    solve_oracle,
    solve_random,
    solve_selected,
    solve_soft,
    started,
)
from harness_papers.skan.method import POOL, DenseNet, reset, select_layers
from harness_papers.skan.training import Schedule, Selection, train

from harness.lab import Diverged, Regress, Unsupported, count_params, train_flops

PARAMS = {method.name: method.params for method in METHODS}
DROPS = len(POOL) - 1


def params(name: str, **values):
    width = 8 if name == "skan-mlp" else 3  # so small a KAN as of width 3 has no MLP within 5 %
    return PARAMS[name](**{"width": width, "evaluations": 2} | values)


# The schedule -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "due"), [(0.0, 0), (0.299, 0), (0.3, 0), (0.3 + 0.3 / 7 + 1e-9, 1), (0.45, 3), (0.599, 6), (0.6, 7), (1.0, 7)]
)
def test_drops_are_spread_evenly_over_the_second_phase(share, due):
    assert Schedule(0.3, 0.6).due(share, 7) == due


def test_phases_out_of_order_are_refused():
    with pytest.raises(ValueError, match="give 0 <= full <= exclusive <= 1"):
        Schedule(0.7, 0.6)


def test_each_phase_has_its_share_of_the_steps(curve, make_ctx, monkeypatch):
    """100 steps: 30 with all families, the last 40 with one for each output."""
    left = []
    advance = Selection.advance

    def watch(self, share):
        found = advance(self, share)
        left.append(max(int(layer.alive.sum(dim=1).max()) for layer in self.layers))
        return found

    monkeypatch.setattr(Selection, "advance", watch)
    solve_selected(curve, make_ctx(steps=100), params("s-kan"))

    steps = left[:-1]  # the last look is behind the last step
    assert len(steps) == 100
    assert steps.count(len(POOL)) == 34  # 30, and the first of seven intervals of 30 / 7
    assert steps.count(1) == 40
    assert steps == sorted(steps, reverse=True)


def test_a_drop_keeps_the_moments_of_what_is_left(curve, make_ctx):
    """A step after a drop must be the step of an Adam that had only the smaller parameters from the start."""
    net = DenseNet(("gram", "chebyshev"), (1, 4, 1)).double()
    reset(net, make_ctx())
    x, y = curve.x.double(), curve.y.double()
    net.start(x)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01, fused=True)
    for _ in range(5):
        optimizer.zero_grad()
        F.mse_loss(net(x), y).backward()
        optimizer.step()
    layer = select_layers(net)[0]
    old = layer.layers["gram"].weight
    before = {k: v.clone() for k, v in optimizer.state[old].items()}
    with torch.no_grad():
        layer.theta[0, 0], layer.theta[1, 0] = 9.0, -9.0  # at least one output on each side
    stay = layer.theta[:, 0] >= layer.theta[:, 1]

    Selection(net, optimizer, Schedule()).advance(1.0)

    new = layer.layers["gram"].weight
    assert new.shape[0] == int(stay.sum())
    assert torch.equal(optimizer.state[new]["exp_avg"], before["exp_avg"][stay])
    assert torch.equal(optimizer.state[new]["exp_avg_sq"], before["exp_avg_sq"][stay])
    assert optimizer.state[new]["step"] == 5
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in held} == {id(p) for p in net.parameters()}
    assert set(map(id, optimizer.state)) <= {id(p) for p in held}


def test_flops_are_counted_step_by_step_and_fall_with_every_drop(curve, make_ctx):
    ctx = make_ctx(steps=50)
    solution = solve_selected(curve, ctx, params("s-kan"))
    all_families = train_flops(build(curve.shape, params("s-kan"), POOL), (1,), 200, labels=False)
    left = train_flops(solution.module, (1,), 200, labels=False)

    spent = ctx.clocks.spent["flops"]

    assert ctx.clocks.spent["steps"] == 50
    assert 50 * left < spent < 50 * all_families
    assert spent > 17 * all_families + 20 * left


def test_a_budget_in_flops_is_used_up_to_less_than_a_step(curve, make_ctx):
    family = params("skan-family", family="gram")
    step = train_flops(build(curve.shape, family, ("gram",)), (1,), 200, labels=False)
    ctx = make_ctx(flops=10.5 * step)

    solve_family(curve, ctx, family)

    assert ctx.clocks.spent["steps"] == 10


def test_s_kan_in_a_budget_of_flops_ends_with_one_family(curve, make_ctx):
    step = train_flops(build(curve.shape, params("s-kan"), POOL), (1,), 200, labels=False)
    ctx = make_ctx(flops=20 * step)

    solution = solve_selected(curve, ctx, params("s-kan"))

    assert all(layer.theta is None for layer in select_layers(solution.module))
    assert ctx.clocks.spent["steps"] > 20


def test_too_short_a_budget_still_ends_with_one_family(curve, make_ctx):
    for steps in (0, 1, 2):
        ctx = make_ctx(steps=steps)

        solution = solve_selected(curve, ctx, params("s-kan"))

        assert all(layer.theta is None for layer in select_layers(solution.module))
        assert len(ctx.offered) >= 1


def test_a_budget_without_an_end_is_refused(curve, make_ctx):
    with pytest.raises(Unsupported, match="never ends training"):
        solve_family(curve, make_ctx(), params("skan-family"))


def test_a_loss_that_is_not_finite_is_a_divergence(curve, make_ctx):
    bad = Regress(curve.x, curve.y * math.inf, (1,), 1)

    with pytest.raises(Diverged, match="not finite after"):
        solve_family(bad, make_ctx(steps=4), params("skan-family"))


# The learners -----------------------------------------------------------------------------------------------------------

DENSE = {
    "s-kan": (solve_selected, {}),
    "skan-soft": (solve_soft, {}),
    "skan-random": (solve_random, {}),
    "skan-oracle": (solve_oracle, {}),
    "skan-mlp": (solve_mlp, {"activation": "silu"}),
    **{f"skan-family:{name}": (solve_family, {"family": name}) for name in POOL},
}
CONV = {
    "s-convkan": (solve_selected, {}),
    "convkan-soft": (solve_soft, {}),
    "convkan-random": (solve_random, {}),
    "convkan-cnn": (solve_cnn, {"activation": "gelu"}),
    **{f"convkan-family:{name}": (solve_family, {"family": name}) for name in POOL},
}


@pytest.mark.parametrize("name", DENSE)
def test_every_arm_learns_a_sine(name, curve, make_ctx):
    """Half of the loss of the mean is gone after 300 steps: all arms train."""
    solve, values = DENSE[name]
    ctx = make_ctx(steps=300)

    solution = solve(curve, ctx, params(name.split(":")[0], **values))

    error = F.mse_loss(solution.predict(curve.x), curve.y)
    assert error < 0.5 * curve.y.var()
    assert ctx.clocks.spent["steps"] == 300
    assert ctx.diagnostics["params_left"] == count_params(solution.module)


@pytest.mark.parametrize("name", CONV)
def test_every_arm_learns_images(name, images, make_ctx):
    """Far above the third that chance gets right."""
    solve, values = CONV[name]
    # Switches are nearly constant, and in a convolution no norm stands in front of them: few channels pass little on.
    channels, steps = ((8, 16), 200) if "rswaf" in name else ((3, 4), 80)
    ctx = make_ctx(samples_seen=32 * steps)

    chosen = PARAMS[name.split(":")[0]](channels=channels, batch=32, evaluations=2, lr=0.01, **values)
    solution = solve(images, ctx, chosen)

    accuracy = (solution.predict(images.x).argmax(dim=1) == images.y).double().mean()
    assert accuracy > 0.6
    assert ctx.clocks.spent["samples_seen"] == 32 * steps


@pytest.mark.parametrize("name", ["s-kan", "skan-random", "skan-mlp"])
def test_a_trial_again_gives_the_same_bits(name, curve, make_ctx):
    solve, values = DENSE[name]
    first, second = (solve(curve, make_ctx(seed=4, steps=20), params(name, **values)).predict(curve.x) for _ in range(2))
    other = solve(curve, make_ctx(seed=5, steps=20), params(name, **values)).predict(curve.x)

    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_the_dtype_of_the_trial_is_kept(curve, make_ctx):
    wide = Regress(curve.x.double(), curve.y.double(), (1,), 1)

    solution = solve_selected(wide, make_ctx(dtype="float64", steps=10), params("s-kan"))

    assert {p.dtype for p in solution.module.parameters()} == {torch.float64}
    assert solution.predict(wide.x).dtype == torch.float64
    grids = [b for name, b in solution.module.named_buffers() if name.endswith("centres")]
    assert all(torch.equal(g, torch.linspace(g[0], g[-1], len(g), dtype=torch.float64)) for g in grids)


def test_the_oracle_is_the_arm_of_the_family_that_it_chose(curve, make_ctx):
    ctx, alone = make_ctx(steps=40), make_ctx(steps=40)
    found = solve_oracle(curve, ctx, params("skan-oracle"))
    best = ctx.diagnostics["oracle"]

    expected = solve_family(curve, alone, params("skan-family", family=best))

    assert torch.equal(found.predict(curve.x), expected.predict(curve.x))
    assert ctx.clocks.spent["steps"] == 40
    assert ctx.clocks.spent["flops"] > 4 * alone.clocks.spent["flops"]  # every family was trained once


def test_the_oracle_has_no_form_of_equal_compute(curve, make_ctx):
    with pytest.raises(Unsupported, match="no form of equal compute"):
        solve_oracle(curve, make_ctx(flops=1e9), params("skan-oracle"))


def test_a_random_selection_is_drawn_by_the_seed(curve, make_ctx):
    def chosen(seed):
        net = solve_random(curve, make_ctx(seed=seed, steps=2), params("skan-random", width=8)).module
        return [layer.chosen() for layer in select_layers(net)]

    assert chosen(0) == chosen(0)
    assert chosen(0) != chosen(1)


# Costs ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [1, 2, 3])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_an_mlp_has_as_many_parameters_within_a_twentieth(inputs, layers):
    shape = {"inputs": inputs, "outputs": 1, "train_items": 1000}
    asked = params("skan-mlp", width=8, layers=layers)

    got = count_params(matched_mlp(shape, asked))

    alone = [count_params(build(shape, asked, (name,))) for name in POOL]
    assert params_after_pruning(shape, asked) == pytest.approx(sum(alone) / len(alone))
    assert got == pytest.approx(sum(alone) / len(alone), rel=0.05)


@pytest.mark.parametrize(("side", "channels"), [(8, (8, 16)), (28, (8, 16)), (8, (3, 4))])
def test_a_cnn_has_as_many_parameters_within_a_twentieth(side, channels):
    shape = {"inputs": side**2, "outputs": 10, "channels": 1, "height": side, "width": side, "train_items": 100}
    asked = PARAMS["convkan-cnn"](channels=channels)

    assert count_params(matched_cnn(shape, asked)) == pytest.approx(params_after_pruning(shape, asked), rel=0.05)


def test_what_cannot_be_matched_is_refused():
    """The smallest MLP of ten hidden layers is larger than so small a KAN."""
    shape = {"inputs": 1, "outputs": 1, "train_items": 10}

    with pytest.raises(Unsupported, match="over 5 % off"):
        matched_mlp(shape, params("skan-mlp", width=1, layers=10))


def test_costs_are_those_of_the_nets(curve):
    shape = curve.shape
    family, soft = params("skan-family", family="relu-kan"), params("skan-soft")

    assert cost_family(shape, family)["params"] == count_params(build(shape, family, ("relu-kan",)))
    assert cost_soft(shape, soft)["params"] == count_params(build(shape, soft, POOL))
    assert cost_selected(shape, params("s-kan"))["params"] == params_after_pruning(shape, params("s-kan"))
    assert cost_mlp(shape, params("skan-mlp", width=8))["flops"] > 0
    for cost in (cost_family(shape, family), cost_soft(shape, soft)):
        assert cost["counted"] == 1.0, cost["uncounted"]


def test_images_are_asked_for(curve, make_ctx):
    with pytest.raises(Unsupported, match="needs images"):
        solve_selected(curve, make_ctx(steps=1), PARAMS["s-convkan"]())


def test_full_batches_need_no_order(curve, make_ctx):
    """One batch of all items: the result does not depend on the stream of orders; in smaller batches it does."""

    def trained(batch, seed):
        net = started(curve, make_ctx(), params("skan-family"), ("gram",))
        ctx = make_ctx(steps=3)
        ctx.generator = lambda stream: torch.Generator().manual_seed(seed)
        train(curve, ctx, net, 0.01, batch, 1)
        return torch.cat([p.detach().flatten() for p in net.parameters()])

    assert torch.equal(trained(1000, 1), trained(1000, 2))
    assert not torch.equal(trained(10, 1), trained(10, 2))
