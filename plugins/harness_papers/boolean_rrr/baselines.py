"""Gradient methods on the same nets: AdamW on an MLP, with and without the authors' penalty, and a straight-through sign net.

Full batch, binary cross-entropy on the output bits, inputs coded -1 / +1, weights and biases uniform in +-1 / sqrt(inputs)
(torch's default for a linear layer, which the authors use).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, linear

from harness.lab import Diverged
from harness_papers.boolean_rrr.offers import Offers
from harness_papers.boolean_rrr.problem import Activation, BooleanProblem, LayeredNet

Layer = tuple[Tensor, Tensor]  # weight (out, in), bias (out,)
Forward = Callable[[list[Layer], Tensor], Tensor]
Penalty = Callable[[list[Layer]], Tensor]


def solve_mlp(problem: BooleanProblem, ctx: Any, params: Any) -> LayeredNet:
    """An MLP of the task's widths, AdamW."""
    return train(problem, ctx, params, mlp_forward(params.activation), params.activation)


def solve_mlp_penalty(problem: BooleanProblem, ctx: Any, params: Any) -> LayeredNet:
    """The same with the authors' penalty, which pulls the weights towards few of equal size."""
    forward = mlp_forward(params.activation)

    def penalise(layers: list[Layer]) -> Tensor:
        return penalty(layers, params.norm, params.l1, params.over)

    return train(problem, ctx, params, forward, params.activation, penalise)


def solve_straight_through(problem: BooleanProblem, ctx: Any, params: Any) -> LayeredNet:
    """A net whose nodes are exactly -1 or +1, trained with the gradient of clip(z, -1, 1) in place of the sign's."""
    return train(problem, ctx, params, sign_forward, "sign")


def mlp_forward(activation: Activation) -> Forward:
    function = {"relu": torch.relu, "tanh": torch.tanh}[activation]

    def forward(layers: list[Layer], x: Tensor) -> Tensor:
        for weight, bias in layers[:-1]:
            x = function(linear(x, weight, bias))
        return linear(x, *layers[-1])

    return forward


def sign_forward(layers: list[Layer], x: Tensor) -> Tensor:
    """Logits (items, outputs). With the usual start most pre-activations lie in (-1, 1), where the gradient passes."""
    for weight, bias in layers[:-1]:
        x = sign_straight_through(linear(x, weight, bias))
    return linear(x, *layers[-1])


def sign_straight_through(z: Tensor) -> Tensor:
    """+1 where z > 0, else -1; backwards 1 where |z| < 1, else 0."""
    passed = z.clamp(-1, 1)
    sign = (z > 0).to(z.dtype) * 2 - 1
    return passed + (sign - passed).detach()


def penalty(layers: list[Layer], norm: float, l1: float, over: str) -> Tensor:
    """Sum over layers of norm * over_rows (|row|^2 - inputs)^2 + l1 * over_weights |w|; biases are left out, as by the authors.

    over: "mean", as the authors' notebooks compute it, or "sum", which pulls as many times harder as there are rows.
    """
    join = {"mean": torch.mean, "sum": torch.sum}[over]
    total = layers[0][0].new_zeros(())
    for weight, _ in layers:
        rows = weight.square().sum(dim=1) - weight.shape[1]
        total = total + norm * join(rows.square()) + l1 * join(weight.abs())
    return total


def train(
    problem: BooleanProblem,
    ctx: Any,
    params: Any,
    forward: Forward,
    activation: Activation,
    penalise: Penalty | None = None,
) -> LayeredNet:
    """Train until the net and its weights as a circuit give all training bits, or until the budget is spent.

    Whether they do is looked at every `check_every` steps and at each offer, inside the clocks. The circuit is asked for as
    well because that is what RRR must deliver; a net that only fits goes on. Raises Diverged when the loss is not finite.
    """
    inputs = torch.tensor(problem.table.inputs, dtype=ctx.dtype, device=ctx.device)
    target = torch.tensor(problem.table.outputs > 0, dtype=ctx.dtype, device=ctx.device)
    layers = draw_layers(problem, ctx)
    tensors = [tensor for layer in layers for tensor in layer]
    optimizer = torch.optim.AdamW(tensors, lr=params.lr, weight_decay=params.weight_decay, fused=True)
    offers = Offers(ctx, problem)
    step = 0
    while True:
        ctx.spend(steps=1, items_edges=problem.items * problem.edges)
        with ctx.region("train_step"):
            loss = binary_cross_entropy_with_logits(forward(layers, inputs), target)
            if penalise is not None:
                loss = loss + penalise(layers)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        step += 1
        due = offers.due()
        if due or step % params.check_every == 0:
            if not torch.isfinite(loss):
                raise Diverged(f"the loss is {float(loss.detach())} at step {step}")
            solved = offers.consider(as_net(layers, activation))
            if due or solved:
                ctx.log(loss=float(loss.detach()))
                offers.show()
            if solved:
                ctx.log(iterations_to_solution=step)
                return offers.best


def draw_layers(problem: BooleanProblem, ctx: Any) -> list[Layer]:
    """Initial weights, each tensor from a stream of its own, drawn in float64 so that every dtype starts alike."""
    layers = []
    for number, (before, width) in enumerate(zip(problem.widths, problem.widths[1:], strict=False)):
        tensors = []
        for name, shape in (("weight", (width, before)), ("bias", (width,))):
            drawn = torch.rand(shape, generator=ctx.generator(f"init/layers.{number}.{name}"), dtype=torch.float64)
            tensors.append(((2 * drawn - 1) / before**0.5).to(ctx.device, ctx.dtype).requires_grad_())
        layers.append((tensors[0], tensors[1]))
    return layers


def as_net(layers: list[Layer], activation: Activation) -> LayeredNet:
    """The net as it stands: one array a layer, the bias as the weight of the source that is always -1."""
    joined = (torch.cat([-bias[:, None], weight], dim=1).detach().cpu().numpy() for weight, bias in layers)
    return LayeredNet(tuple(joined), activation)
