"""S-KAN, S-ConvKAN and what they are compared with, as learners of `regress` and `classify`; what each of them costs.

All KAN learners are one net with a pool: S-KAN drops families on its way, the soft mixture never does, a random selection
starts with one for each output, and a family alone is a pool of one. All start from the same weights of a family, scaled alike.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness.lab import (
    ACTIVATIONS,
    Classify,
    Conv,
    Diverged,
    Linear,
    NetSolution,
    Regress,
    Unsupported,
    count_params,
    count_step,
)
from harness_papers.kan.families import draw
from harness_papers.skan.method import POOL, ConvNet, DenseNet, pooled_size, reset, select_layers
from harness_papers.skan.picture import save_picture
from harness_papers.skan.training import Schedule, train

WITHIN = 0.05  # how nearly a baseline's parameters have to match
ITEMS = 1024  # training items on which the first weights are scaled
HELD = 0.2  # share of the training items on which the oracle chooses


# KANs -------------------------------------------------------------------------------------------------------------------


def solve_selected(problem: Classify | Regress, ctx: Any, params: Any) -> NetSolution:
    """S-KAN, or S-ConvKAN on images: all families, then one drop after the other, then one family for each output.

    Of a dense net small enough, the families and the functions of its edges are kept with the record as edges.svg.
    """
    schedule = Schedule(params.full, params.exclusive)
    solution = fit_pool(problem, ctx, params, started(problem, ctx, params, POOL), schedule)
    if isinstance(solution.module, DenseNet):
        save_picture(ctx, solution.module, problem.x[:ITEMS].to(ctx.device, ctx.dtype))
    return solution


def solve_soft(problem: Classify | Regress, ctx: Any, params: Any) -> NetSolution:
    """The ablation without pruning: the mixture of all families to the end."""
    return fit_pool(problem, ctx, params, started(problem, ctx, params, POOL))


def solve_random(problem: Classify | Regress, ctx: Any, params: Any) -> NetSolution:
    """The control: one family for each output from the start, drawn at random."""
    net = started(problem, ctx, params, POOL, choose=False)
    generator = ctx.generator("selection")
    for layer in select_layers(net):
        layer.choose(torch.randint(len(POOL), (layer.out_features,), generator=generator))
    start(net, problem)
    return fit_pool(problem, ctx, params, net)


def solve_family(problem: Classify | Regress, ctx: Any, params: Any) -> NetSolution:
    """A single-space KAN: one family everywhere."""
    return fit_pool(problem, ctx, params, started(problem, ctx, params, (params.family,)))


def solve_oracle(problem: Classify | Regress, ctx: Any, params: Any) -> NetSolution:
    """The best single family, trained as `solve_family` does it. It is chosen on a fifth of the training items, after the whole
    budget on the others for every family.

    The trials of the other families are charged in FLOPs only, so no budget in FLOPs or seconds can hold it: Unsupported.
    """
    if {"flops", "wall_s"} & set(ctx.budget):
        raise Unsupported("the oracle trains every family and one anew: it has no form of equal compute; use steps or epochs")
    rows = torch.randperm(len(problem.x), generator=ctx.generator("held-for-choice")).to(problem.x.device)
    held, learnt = rows.split([round(HELD * len(rows)), len(rows) - round(HELD * len(rows))])
    part = replace(problem, x=problem.x[learnt], y=problem.y[learnt])
    losses = {name: loss_on(problem, held, part, Trying(ctx), params, name) for name in POOL}
    best = min(losses, key=lambda name: losses[name])
    if not math.isfinite(losses[best]):
        raise Diverged("every family alone diverged")
    ctx.log(oracle=best)
    return fit_pool(problem, ctx, params, started(problem, ctx, params, (best,)))


def loss_on(problem: Classify | Regress, held: Tensor, part: Classify | Regress, ctx: Any, params: Any, family: str) -> float:
    """The loss on the held items of a family that was trained on the part; inf where it diverged."""
    try:
        solution = fit_pool(part, ctx, params, started(part, ctx, params, (family,)))
    except Diverged:
        return math.inf
    out = solution.predict(problem.x[held])
    y = problem.y[held]
    found = F.cross_entropy(out, y) if isinstance(problem, Classify) else F.mse_loss(out, y.to(out.dtype))
    return float(found) if math.isfinite(float(found)) else math.inf


class Trying:
    """A context for a net that is tried and thrown away: the same budget anew, no offers; its FLOPs are the trial's."""

    def __init__(self, ctx: Any) -> None:
        self.ctx, self.spent = ctx, dict.fromkeys(ctx.budget, 0.0)
        self.device, self.dtype, self.budget = ctx.device, ctx.dtype, ctx.budget
        self.generator, self.region = ctx.generator, ctx.region

    def spend(self, **units: float) -> None:
        self.spent.update({unit: used + units.get(unit, 0.0) for unit, used in self.spent.items()})
        self.ctx.spend(flops=units["flops"])

    def left(self, unit: str) -> float:
        return self.budget.get(unit, math.inf) - self.spent.get(unit, 0.0)

    def offer(self, solution: Any) -> None:
        pass

    def log(self, **diagnostics: float | str) -> None:
        pass


def fit_pool(
    problem: Classify | Regress, ctx: Any, params: Any, net: nn.Module, schedule: Schedule | None = None
) -> NetSolution:
    return train(problem, ctx, net, params.lr, params.batch, params.evaluations, schedule)


def started(problem: Classify | Regress, ctx: Any, params: Any, families: Sequence[str], choose: bool = True) -> nn.Module:
    """A net with first weights; scaled on the training items unless `choose` leaves that for later."""
    net = build(problem.shape, params, families, ctx.dtype)
    reset(net, ctx)
    if choose:
        start(net, problem)
    return net


def start(net: Any, problem: Classify | Regress) -> None:
    like = next(net.parameters())
    net.start(problem.x[:ITEMS].to(like.device, like.dtype))


def build(
    shape: Mapping[str, int], params: Any, families: Sequence[str], dtype: torch.dtype = torch.float32
) -> DenseNet | ConvNet:
    """The net that shape and parameters ask for. Raises Unsupported where they do not go together."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # grids are made in it: cast later, a float64 trial would carry float32's rounding
    try:
        if hasattr(params, "channels"):
            return ConvNet(families, image_of(shape), params.channels, shape["outputs"], params.tau)
        widths = (shape["inputs"], *[params.width] * params.depth, shape["outputs"])
        return DenseNet(families, widths, params.tau)
    except ValueError as exc:
        raise Unsupported(str(exc)) from exc
    finally:
        torch.set_default_dtype(before)


def image_of(shape: Mapping[str, int]) -> tuple[int, int, int]:
    if not {"channels", "height", "width"} <= set(shape):
        raise Unsupported(f"S-ConvKAN needs images; the task has {shape['inputs']} flat inputs")
    return shape["channels"], shape["height"], shape["width"]


# Baselines --------------------------------------------------------------------------------------------------------------


def solve_mlp(problem: Classify | Regress, ctx: Any, params: Any) -> NetSolution:
    """An MLP with as many parameters as S-KAN has after pruning; trained as the KANs are."""
    return fit_pool(problem, ctx, params, drawn(matched_mlp(problem.shape, params), ctx))


def solve_cnn(problem: Classify, ctx: Any, params: Any) -> NetSolution:
    """A CNN with as many parameters as S-ConvKAN has after pruning; trained as that is."""
    return fit_pool(problem, ctx, params, drawn(matched_cnn(problem.shape, params), ctx))


def params_after_pruning(shape: Mapping[str, int], params: Any) -> float:
    """The mean over the pool of a net of one family: what S-KAN keeps on average if it chooses evenly.

    What it will choose is not known before it has, so nothing can be matched to that; each record says what was left.
    """
    with torch.device("meta"):
        return sum(count_params(build(shape, params, (name,))) for name in POOL) / len(POOL)


def matched_mlp(shape: Mapping[str, int], params: Any) -> nn.Sequential:
    """`layers` hidden layers, the first of w units and the others of w or somewhat fewer. Raises Unsupported beyond 5 %."""
    target, n, m = params_after_pruning(shape, params), shape["inputs"], shape["outputs"]

    def size(first: int, later: int) -> int:
        sides = [n, first, *[later] * (params.layers - 1), m]
        return sum((a + 1) * b for a, b in itertools.pairwise(sides))

    first, later = nearest(target, size, lambda w: range((w + 1) // 2, w + 1) if params.layers > 1 else (w,), "an MLP")
    sides = [n, first, *[later] * (params.layers - 1)]
    net = nn.Sequential()
    for a, b in itertools.pairwise(sides):
        net.extend([Linear(a, b), ACTIVATIONS[params.activation]()])
    return net.append(Linear(sides[-1], m))


def matched_cnn(shape: Mapping[str, int], params: Any) -> nn.Module:
    """The form of `ConvNet` with affine convolutions and an activation. Raises Unsupported beyond 5 %."""
    image = image_of(shape)
    target, kernel = params_after_pruning(shape, params), 3

    def size(first: int, second: int) -> int:
        convolutions = (image[0] * kernel**2 + 1) * first + (first * kernel**2 + 1) * second
        return convolutions + (pooled_size(image, (first, second)) + 1) * shape["outputs"]

    first, second = nearest(target, size, lambda w: range(w, 3 * w + 1), "a CNN")
    return PlainConvNet(image, (first, second), shape["outputs"], params.activation)


def nearest(target: float, size: Any, seconds: Any, what: str) -> tuple[int, int]:
    """The pair of widths whose net is nearest to the target; of equals the most even."""
    pairs = [(w, v) for w in range(1, 1 + most(target, size, seconds)) for v in seconds(w)]
    best = min(pairs, key=lambda p: (abs(size(*p) - target), abs(p[1] - p[0])))
    if abs(size(*best) / target - 1) > WITHIN:
        raise Unsupported(f"{what} has {size(*best)} parameters at the nearest, S-KAN {target:g} after pruning: over 5 % off")
    return best


def most(target: float, size: Any, seconds: Any) -> int:
    """The first width whose smallest net has more parameters than asked for."""
    width = 1
    while size(width, min(seconds(width))) < target:
        width += 1
    return width


class PlainConvNet(nn.Module):
    """(N, C, H, W) -> (N, outputs): 3x3 convolution, activation, mean over 2x2, twice; then an affine map."""

    def __init__(self, image: tuple[int, int, int], channels: tuple[int, int], outputs: int, activation: str) -> None:
        super().__init__()
        first, second = channels
        self.conv1, self.conv2 = Conv(image[0], first, 3, 1), Conv(first, second, 3, 1)
        self.act = ACTIVATIONS[activation]()
        self.head = Linear(pooled_size(image, channels), outputs)

    def forward(self, x: Tensor) -> Tensor:
        for conv in (self.conv1, self.conv2):
            x = F.avg_pool2d(self.act(conv(x)), 2)
        return self.head(x.flatten(1))


def drawn(net: nn.Module, ctx: Any) -> nn.Module:
    """He's first weights, biases 0, each layer from a stream of its own."""
    for name, part in net.named_modules():
        if isinstance(part, Linear | Conv):
            draw(part.weight, math.sqrt(2 / part.weight[0].numel()), ctx.generator(f"init/{name}"))
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    return net


# Costs ------------------------------------------------------------------------------------------------------------------


def cost_selected(shape: Mapping[str, int], params: Any) -> dict[str, Any]:
    """Parameters after pruning, on average over the pool; FLOPs of a step fall on the way, so there is no one number."""
    return {"params": params_after_pruning(shape, params), "no_flops": "steps get cheaper with each family that is dropped"}


def cost_soft(shape: Mapping[str, int], params: Any) -> dict[str, Any]:
    with torch.device("meta"):
        return step_of(build(shape, params, POOL), shape, params)


def cost_family(shape: Mapping[str, int], params: Any) -> dict[str, Any]:
    with torch.device("meta"):
        return step_of(build(shape, params, (params.family,)), shape, params)


def cost_mlp(shape: Mapping[str, int], params: Any) -> dict[str, Any]:
    return step_of(matched_mlp(shape, params), shape, params)


def cost_cnn(shape: Mapping[str, int], params: Any) -> dict[str, Any]:
    return step_of(matched_cnn(shape, params), shape, params)


def step_of(net: nn.Module, shape: Mapping[str, int], params: Any) -> dict[str, Any]:
    inputs = image_of(shape) if "channels" in shape else (shape["inputs"],)
    batch = min(params.batch, shape.get("train_items", params.batch))
    step = count_step(net, inputs, batch, labels="channels" in shape)
    return {
        "params": count_params(net), "flops": step.flops / batch, "counted": step.counted, "uncounted": sorted(step.uncounted)
    }  # fmt: skip
