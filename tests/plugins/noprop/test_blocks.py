"""The stack of blocks against the same blocks in torch's own layers, one by one."""

from __future__ import annotations

import pytest
import torch
from harness_papers.noprop.blocks import Blocks, BlockSpec
from torch.nn import functional as F

from .plain import plain_copies, values_of

T, B = 3, 7
FREE = {f"{layer}_bias" for layer in ("x", "z", "z1", "z2", "head_x", "head1")}  # in front of a norm
SPECS = {
    "mlp": BlockSpec((6,), classes=4, dims=5, width=8),
    "mlp, layer norm": BlockSpec((6,), classes=4, dims=5, width=8, norm="layer"),
    "mlp, no norm": BlockSpec((2, 3), classes=4, dims=5, width=8, norm="none"),
    "mlp, time": BlockSpec((6,), classes=4, dims=5, width=8, norm="none", time=True),
    "image": BlockSpec((2, 9, 8), classes=4, dims=5, width=16, kind="image"),
    "image, time": BlockSpec((2, 9, 8), classes=4, dims=5, width=16, kind="image", norm="none", time=True),
}


@pytest.fixture(params=SPECS.values(), ids=SPECS)
def spec(request) -> BlockSpec:
    return request.param


@pytest.fixture
def stack(spec, make_ctx) -> Blocks:
    """Blocks in float64, so that nothing but rounding differs."""
    return Blocks(spec, T).draw(make_ctx()).double()


@pytest.fixture
def batch(spec, rng):
    """Items, z for each block, times, labels."""
    x = torch.randn(B, *spec.inputs, generator=rng, dtype=torch.float64)
    z = torch.randn(T, spec.dims, B, generator=rng, dtype=torch.float64)
    t = torch.rand(B, generator=rng, dtype=torch.float64) if spec.time else None
    return x, z, t, torch.randint(spec.classes, (B,), generator=rng)


def stacked_loss(stack, x, z, t, y):
    logits = stack.logits(stack.see(x), z, None if t is None else stack.at(t))
    return logits, F.cross_entropy(logits, y.expand(len(z), -1), reduction="none").mean(dim=1).sum()


def time_of(t):
    return () if t is None else (t,)


def test_all_blocks_at_once_give_what_each_gives_alone(stack, batch):
    """Logits in training and evaluation, and the running statistics in between."""
    x, z, t, y = batch
    plain = plain_copies(stack)

    for training in (True, False):
        stack.train(training)
        logits, _ = stacked_loss(stack, x, z, t, y)
        for k, block in enumerate(plain):
            expected = block.train(training)(x, z[k].T, *time_of(t))
            torch.testing.assert_close(logits[k].T, expected, rtol=1e-9, atol=1e-11)  # float64 through some ten layers


def test_all_gradients_at_once_are_those_of_each_block_alone(stack, batch):
    """Every parameter of every block."""
    x, z, t, y = batch
    plain = plain_copies(stack)

    stacked_loss(stack, x, z, t, y)[1].backward()

    for k, block in enumerate(plain):
        F.cross_entropy(block(x, z[k].T, *time_of(t)), y).backward()
        for name, expected in values_of(block, lambda p: p.grad).items():
            torch.testing.assert_close(getattr(stack, name).grad[k], expected, rtol=1e-7, atol=1e-11)


def test_steps_of_adamw_on_the_stack_are_steps_on_each_block(stack, batch):
    """AdamW knows no neighbours: training together is training apart."""
    x, z, t, y = batch
    plain = plain_copies(stack)
    settings = {"lr": 1e-3, "weight_decay": 1e-3, "fused": True}
    ours = torch.optim.AdamW(stack.parameters(), **settings)
    theirs = [torch.optim.AdamW(block.parameters(), **settings) for block in plain]

    for _ in range(5):
        ours.zero_grad()
        stacked_loss(stack, x, z, t, y)[1].backward()
        ours.step()
        for k, (block, optimizer) in enumerate(zip(plain, theirs, strict=True)):
            optimizer.zero_grad()
            F.cross_entropy(block(x, z[k].T, *time_of(t)), y).backward()
            optimizer.step()

    for k, block in enumerate(plain):
        for name, expected in values_of(block, lambda p: p.detach()).items():
            # A bias in front of a batch norm has no gradient but rounding, which Adam makes steps of: two times 5 lr at most.
            free = stack.spec.norm == "batch" and name in FREE
            torch.testing.assert_close(getattr(stack, name)[k], expected, rtol=0, atol=1e-2 if free else 1e-8)


def test_a_view_of_one_block_is_that_block(stack, batch):
    """The chain goes block by block through views, which share storage with the stack."""
    x, z, t, y = batch
    stack.eval()
    logits, _ = stacked_loss(stack, x, z, t, y)

    if t is None:
        for k, part in enumerate(stack.each()):
            alone = stack.logits(stack.see(x, part), z[k : k + 1], p=part)
            torch.testing.assert_close(alone[0], logits[k], rtol=1e-10, atol=1e-12)


def test_the_loss_of_one_block_moves_no_other(stack, batch):
    """Invariant 6 of the card: blocks are trained apart."""
    x, z, t, y = batch
    logits, _ = stacked_loss(stack, x, z, t, y)

    F.cross_entropy(logits[1].T, y).backward()

    for parameter in stack.parameters():
        assert not parameter.grad[0].any()
        assert not parameter.grad[2].any()


def test_initial_values_depend_on_the_block_s_number_only(make_ctx):
    """A chain of 5 starts with the blocks of a chain of 2; so does a control that leaves out z, where it has the same layer."""
    spec = SPECS["mlp"]
    long, short = Blocks(spec, 5).draw(make_ctx()), Blocks(spec, 2).draw(make_ctx())

    for name, tensor in short.named_parameters():
        assert torch.equal(tensor, getattr(long, name)[:2])
    assert not torch.equal(long.x_weight[0], long.x_weight[1])
    assert long.x1_weight.abs().max() <= 6**-0.5
    assert not torch.equal(long.x1_weight, Blocks(spec, 5).draw(make_ctx(seed=1)).x1_weight)


def test_dropout_acts_in_training_only(make_ctx, rng):
    """The paper's 0.2 behind the layers that read the item."""
    spec = BlockSpec((6,), classes=4, dims=5, width=8, dropout=0.5)
    stack, x = Blocks(spec, T).draw(make_ctx()), torch.randn(B, 6, generator=rng)

    assert not torch.equal(stack.see(x), stack.see(x))
    stack.eval()
    assert torch.equal(stack.see(x), stack.see(x))


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"width": 1}, "at least 2"),
        ({"kind": "image", "inputs": (64,)}, "use block: mlp"),
        ({"kind": "image", "inputs": (1, 3, 8)}, "at least 4x4"),
        ({"kind": "image", "inputs": (1, 8, 8), "width": 12}, "multiple of 8"),
    ],
)
def test_a_block_that_cannot_be_is_refused(wrong, says):
    """With what would mend it."""
    with pytest.raises(ValueError, match=says):
        BlockSpec(**{"inputs": (6,), "classes": 3, "dims": 3, "width": 8, **wrong})
