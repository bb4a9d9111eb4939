"""The three nets as learners of the `classify` track: initial values, training, and what they cost.

The lab's loop trains them: cross-entropy on the logits, SGD with momentum 0.9 and decay on all parameters, a linear warm-up and
a cosine to 0. After each step the parameters of circuits are cut off at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.lab import Classify, Diverged, NetSolution, Train, Unsupported, count_params, count_step, fit
from harness_papers.ei_snn.coding import Encoder
from harness_papers.ei_snn.layers import Circuit, Weights
from harness_papers.ei_snn.nets import Arm, Kind, Net, build

MOMENTUM = 0.9


def solve(kind: Kind, problem: Classify, ctx: Any, params: Any) -> NetSolution:
    """A net of this kind, trained. Raises Unsupported for parameters that do not go together, Diverged where a layer is silent
    before training, so that its successor cannot be initialised.
    """
    try:
        net = make(kind, problem, ctx, params)
    except ValueError as exc:
        raise Unsupported(str(exc)) from exc
    init(net, problem, ctx, params)
    settings = Train(
        lr=params.lr, weight_decay=params.weight_decay, batch=params.batch, warmup=params.warmup, schedule="cosine",
        evaluations=params.evaluations,
    )  # fmt: skip
    return fit(problem, ctx, net, optimizer=lambda groups: optimizer_of(net, params), train=settings)


def make(kind: Kind, problem: Classify, ctx: Any, params: Any) -> Net:
    """The net, on the trial's device. Raises ValueError as `build` does."""
    encoder = Encoder(problem.x.to(ctx.device, ctx.dtype), params.steps, params.coding, ctx.generator("coding"))
    return build(Arm(kind, params), encoder, tuple(problem.inputs), problem.classes).to(ctx.device, ctx.dtype)


def optimizer_of(net: Net, params: Any) -> torch.optim.Optimizer:
    """SGD on all parameters, gains and biases too, as in the paper."""
    made = torch.optim.SGD(
        net.parameters(), lr=params.lr, momentum=MOMENTUM, weight_decay=params.weight_decay, fused=True
    )  # fmt: skip
    made.register_step_post_hook(lambda *_: net.clamp())
    return made


# Initial values ---------------------------------------------------------------------------------------------------------


def init(net: Net, problem: Classify, ctx: Any, params: Any) -> None:
    """Fill all layers, in the order of the forward pass of one batch of training items.

    Each layer that looks at its input then sees that of layers which are filled already. Raises Diverged where it is constant.
    """
    chosen = torch.randperm(len(problem.x), generator=ctx.generator("init/batch"))[: params.batch]
    batch = problem.x[chosen.to(problem.x.device)].to(ctx.device, ctx.dtype)
    layers = {name: part for name, part in net.named_modules() if isinstance(part, Weights | Circuit)}
    hooks = [
        part.register_forward_pre_hook(partial(fill, generator=ctx.generator(f"init/{name}"), params=params, rows=len(batch)))
        for name, part in layers.items()
    ]
    try:
        with torch.no_grad():
            net.train()
            net.encoder.eval()  # codes by its fixed thresholds: chance outside of the lab's loop is not the trial's
            net(batch)
    except ValueError as exc:
        raise Diverged(str(exc)) from exc
    finally:
        for hook in hooks:
            hook.remove()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            part.reset_running_stats()


def fill(layer: nn.Module, given: tuple[Tensor, ...], *, generator: torch.Generator, params: Any, rows: int) -> None:
    """Initial values of one layer, from the input that it is just given. rows: items of the batch."""
    (x,) = given
    if isinstance(layer, Circuit):
        layer.init_from(
            x, generator, rows=rows * params.steps, kaiming=params.init == "kaiming", shunt_one=params.shunt_init == "one"
        )
        return
    assert isinstance(layer, Weights)
    layer.reset(generator, params.gain if params.init == "balanced" else 1.0 if params.init == "unit-variance" else None)
    if params.init == "unit-variance":
        layer.scale_to_unit_variance(x)


# Cost -------------------------------------------------------------------------------------------------------------------


def cost(kind: Kind, shape: Mapping[str, int], params: Any) -> dict[str, Any]:
    """See `Learner.cost`. One training step on the meta device, of a batch or of all items where there are fewer."""
    images = {"channels", "height", "width"} <= set(shape)
    inputs = (shape["channels"], shape["height"], shape["width"]) if images else (shape["inputs"],)
    encoder = Encoder(torch.zeros(1, *inputs), params.steps, params.coding, torch.Generator())
    try:
        net = build(Arm(kind, params), encoder, inputs, shape["outputs"])
    except ValueError as exc:
        raise Unsupported(str(exc)) from exc
    batch = min(params.batch, shape.get("train_items", params.batch))
    step = count_step(net, inputs, batch)
    return {
        "params": count_params(net), "flops": step.flops / batch, "counted": step.counted, "uncounted": sorted(step.uncounted),
    }  # fmt: skip


Solve = Callable[[Classify, Any, Any], NetSolution]
solve_plain: Solve = partial(solve, "plain")
solve_bn: Solve = partial(solve, "bn")
solve_ei: Solve = partial(solve, "ei")
cost_plain, cost_bn, cost_ei = (partial(cost, kind) for kind in ("plain", "bn", "ei"))
