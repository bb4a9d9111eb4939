"""FLOPs of a training step: counted on the real module, equal to what a person counts by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from invoking import harness_process
from torch import nn
from torch.utils.flop_counter import register_flop_formula

from harness.catalogue import load_catalogue
from harness.context import Context
from harness.lab import (
    Classify,
    ComponentUse,
    FlopCount,
    Net,
    Regress,
    Train,
    Unsupported,
    build_net,
    cost_component,
    cost_regressor,
    count_step,
    fit,
    forward_flops,
    train_component,
    train_flops,
)
from harness.specs import Component
from harness.worker.resolving import resolve

DIGITS = {"inputs": 64, "outputs": 10, "channels": 1, "height": 8, "width": 8, "train_items": 96}
RELU = ComponentUse("relu", "activation", lambda place, params: nn.ReLU(), None, None)

# For each item; a multiply-add is 2. Backward, a layer multiplies twice more, but the first one only once: nobody asks for the
# gradient of its input. A bias costs nothing forward (as in torch's own formulas) and one addition for each output backward.
LOSS = (5 * 10 + 1) + (4 * 10 + 1)  # log-softmax: maximum, difference, exp, sum, difference; backward: exp, two products, a sum
MLP = (
    2 * (2 * 64 * 16 + 3 * 16 * 16 + 3 * 16 * 10)  # 64-16-16-10
    + (16 + 16 + 10)
    + 2 * (16 + 16)  # ReLU, there and back
)
CNN = (
    2 * (2 * 64 * 9 * 1 * 8 + 3 * 16 * 9 * 8 * 16 + 3 * 16 * 10)  # 8 channels of 8x8, 16 of 4x4, the head
    + 10  # the convolutions' bias gradients are in torch's formula: at no cost
    + 2 * (8 * 64 + 16 * 16)  # ReLU
    + 2 * 16 * 16  # the mean over the pixels, there and back
)
TOKENS, WIDTH, HEADS = 4, 12, 3
VIT = (
    # embed (no input gradient), qkv, out, up, down, head
    2 * TOKENS * (2 * 16 * WIDTH + 3 * (WIDTH * 3 * WIDTH + WIDTH * WIDTH + 2 * WIDTH * 2 * WIDTH)) + 2 * 3 * WIDTH * 10
    + TOKENS * (WIDTH + 3 * WIDTH + WIDTH + 2 * WIDTH + WIDTH) + 10  # their biases
    + 3 * 2 * 2 * TOKENS * TOKENS * WIDTH  # attention: scores and mixture
    + (5 + 4) * HEADS * TOKENS * TOKENS  # softmax
    + 2 * 2 * TOKENS * WIDTH  # queries and keys are scaled, there and back
    + 3 * (8 + 10) * TOKENS * WIDTH  # three layer norms
    + 2 * TOKENS * WIDTH  # positions: added; their gradient is a sum over the batch
    + 2 * 2 * TOKENS * WIDTH  # two residual additions, there and back
    + 2 * TOKENS * 2 * WIDTH  # ReLU
    + 2 * TOKENS * WIDTH  # the mean over the tokens
)  # fmt: skip
BY_HAND = {"mlp": MLP, "cnn": CNN, "vit": VIT}
NETS = [Net(arch="mlp", width=16, depth=2), Net(arch="cnn", width=8, depth=2), Net(arch="vit", width=12, depth=1, patch=4)]


@pytest.mark.parametrize("net", NETS, ids=lambda net: net.arch)
def test_a_training_step_costs_what_is_counted_by_hand(net):
    """Every product, every activation, every gradient: what `match: {flops: ...}` and the clock `flops` rest on."""
    cost = cost_component(DIGITS, net, Train(batch=32), RELU)
    step = train_flops(build_net(net, DIGITS, RELU), (1, 8, 8), batch=32)

    assert cost["flops"] == BY_HAND[net.arch] + LOSS
    assert step == 32 * cost["flops"]
    assert (cost["counted"], cost["uncounted"]) == (1.0, [])


def test_a_forward_pass_costs_its_products_and_its_activations():
    assert forward_flops(build_net(NETS[0], DIGITS, RELU), (64,)) == 2 * (64 * 16 + 16 * 16 + 16 * 10) + 32


def test_what_stands_beside_the_products_shows():
    """Two activations in one net differ by their own steps, there and back, and by nothing else."""
    relu, silu = (
        cost_component(DIGITS, NETS[0], Train(), ComponentUse("it", "activation", lambda place, params, m=m: m(), None, None))
        for m in (nn.ReLU, nn.SiLU)
    )

    assert relu["params"] == silu["params"]
    assert silu["flops"] - relu["flops"] == ((4 + 7) - (1 + 1)) * 32


def test_targets_that_are_numbers_cost_a_squared_error():
    shape = {"inputs": 4, "outputs": 1, "train_items": 50}
    step = cost_regressor(shape, Net(width=8, depth=1), Train(), RELU)

    assert step["flops"] == 2 * (2 * 4 * 8 + 3 * 8) + (8 + 1) + 2 * 8 + (3 + 2)


def test_a_loss_that_is_the_method_is_counted_and_an_optimizer_says_that_it_is_not():
    """What differs between two losses must be in the count; what cannot be counted must not pass for equal."""
    plain = cost_component(DIGITS, NETS[0], Train(), RELU)["flops"]
    doubled = ComponentUse("l", "loss", lambda params: lambda out, y: F.cross_entropy(out, y) * 2, None, None)
    optimizer = cost_component(DIGITS, NETS[0], Train(), ComponentUse("o", "optimizer", lambda *a: None, None, None))

    assert cost_component(DIGITS, NETS[0], Train(batch=1), doubled)["flops"] == plain + 2  # one product, there and back
    assert "flops" not in optimizer
    assert optimizer["no_flops"] == "an optimizer's own step is not counted"


def test_the_clock_spends_what_was_counted():
    """A budget in FLOPs buys exactly as many steps as the count says."""
    x, y = torch.randn(40, 64), torch.arange(40) % 10
    cost = cost_component({"inputs": 64, "outputs": 10, "train_items": 40}, NETS[0], Train(batch=8), RELU)
    ctx = context({"flops": 7.5 * 8 * cost["flops"]}, NETS[0], Train(batch=8))

    train_component(Classify(x, y, 10, (64,)), ctx, RELU)

    assert ctx.clocks.spent == {"samples_seen": 56, "steps": 7, "flops": 56 * cost["flops"]}


def test_the_clock_counts_a_learners_own_loss_and_module():
    """`fit` serves learners too: their loss is theirs, and so is what it costs."""
    module = nn.Linear(4, 2)
    problem = Regress(torch.randn(20, 4), torch.randn(20, 2), (4,), 2)
    ctx = context({"flops": 1e4}, None, Train(batch=5))

    fit(problem, ctx, module, loss=lambda out, y: (out - y).abs().sum())

    step = 2 * 5 * 2 * 4 * 2 + 5 * 2 + 3 * 5 * 2 + 2 * 5 * 2  # products, bias; sub, abs, sum; and sign, product backward
    assert ctx.clocks.spent["flops"] == ctx.clocks.spent["steps"] * step


def test_every_component_that_is_shipped_is_counted_whole():
    """No operation of ours or of the papers' is guessed at. A new one needs a line in `harness.lab.flops`."""
    short = {}
    for offer in load_catalogue().methods:
        if isinstance(offer.spec, Component) and offer.spec.kind != "optimizer":
            use = component(offer.ref, {})
            for net in (Net(arch="cnn", width=8), Net(arch="vit", width=24, depth=1), Net(arch="mlp", width=8)):
                try:
                    cost = cost_component(DIGITS, net, Train(), use)
                except Unsupported:
                    continue
                if cost.get("counted") != 1.0:
                    short[offer.ref, net.arch] = cost

    assert short == {}


# Operations of others ---------------------------------------------------------------------------------------------------


@torch.library.custom_op("harness_test::triple", mutates_args=())
def triple(x: torch.Tensor) -> torch.Tensor:
    return x * 3


@torch.library.custom_op("harness_test::quadruple", mutates_args=())
def quadruple(x: torch.Tensor) -> torch.Tensor:
    return x * 4


for op in (triple, quadruple):
    op.register_fake(torch.empty_like)
    op.register_autograd(lambda ctx, grad: grad * 3)


@register_flop_formula(torch.ops.harness_test.triple)
def triple_flops(x: tuple[int, ...], *args: object, out_shape: object = None, **kwargs: object) -> int:
    return 1000


class Call(nn.Module):
    def __init__(self, call) -> None:
        super().__init__()
        self.layer, self.call = nn.Linear(4, 4), call

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.call(self.layer(x))


def test_a_formula_that_a_plugin_declares_is_used():
    """torch's own decorator is the contract: a kernel that is declared there counts here."""
    declared = count_step(Call(torch.ops.harness_test.triple), (4,), 2)
    plain = count_step(Call(torch.neg), (4,), 2)

    assert declared.flops == plain.flops - 8 + 1000  # backward each is one step an element
    assert declared.counted == 1.0


def test_an_operation_without_a_formula_is_named_and_lowers_the_share():
    """Its elements are the least it can have cost."""
    count = count_step(Call(torch.ops.harness_test.quadruple), (4,), 2)

    assert count.uncounted == {"harness_test.quadruple": 8}
    assert count.counted == count.flops / (count.flops + 8) < 1


def test_moving_memory_is_free_and_arithmetic_in_place_is_not():
    with FlopCount() as count:
        x = torch.ones(6)
        x.add_(1).mul_(2)
        x.view(2, 3).t().clone().reshape(6).contiguous()
        torch.cat([x, x])
        F.max_pool2d(torch.zeros(1, 1, 4, 4), 2)

    assert count.flops == 12 + 4 * 4
    assert count.uncounted == {}


# In a suite --------------------------------------------------------------------------------------------------------------

SUITE = """
schema: harness/suite/1
name: by-flops
tasks: [digits]
methods: [{use: relu, role: baseline}, polynorm, {use: groupnorm-relu, params: {groups: 64}}]
net: {arch: mlp, width: 32, depth: 1}
seeds: 1
budget: {steps: 3, match: {flops: 5%, to: relu}}
"""


def test_a_suite_runs_with_methods_of_equal_flops(tmp_path):
    """The width that was found is the width that is trained; the record, the plan and the leaderboard say how near it came."""
    suite = tmp_path / "by-flops.yaml"
    suite.write_text(SUITE)

    plan = harness_process("plan", suite, "--json", cwd=tmp_path)
    ran = harness_process("run", suite, "--json", cwd=tmp_path)

    [polynorm] = [t for t in plan.json["trials"] if t["matched"]]
    match = polynorm["matched"]
    cost = cost_component(
        DIGITS, Net.model_validate(polynorm["net"]), Train(), component("polynorm", polynorm["method_params"])
    )  # fmt: skip
    [board] = ran.json["boards"]
    row = next(r for r in board["rows"] if r["method"] == "polynorm")
    assert ran.code == 0, ran.err
    assert polynorm["net"]["width"] == match["value"] < 32
    assert match["got"] == cost["flops"]
    assert match["mismatch"] == row["mismatch"] == pytest.approx(cost["flops"] / match["target"] - 1) != 0
    assert abs(match["mismatch"]) <= 0.05
    assert row["match"]["counted"] == row["match"]["target_counted"] == 1.0
    assert "groupnorm-relu cannot be matched to" in ran.err
    assert "groups" in ran.err


def component(name: str, params: dict[str, object]) -> ComponentUse:
    spec = load_catalogue().method(name).spec
    assert isinstance(spec, Component)
    return ComponentUse(name, spec.kind, resolve(spec.build, name), spec.params.model_validate(params), spec.init)


def context(budget: dict[str, float], net: Net | None, train: Train) -> Context:
    ctx = Context(device="cpu", dtype="float32", budget=budget, root_seed=0, seed=0, task="t", scratch=Path("/nowhere"),
                  net=net.model_dump() if net else None, train=train.model_dump())  # fmt: skip
    ctx.stage = "solve"
    ctx._on_offer = lambda solution, at: None
    return ctx
