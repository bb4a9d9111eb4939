"""Feed-forward nets on tables, as learners of the track `classify`: SELU's and those that it is compared with.

An image is a row of its pixels. All have `depth` hidden layers of `width` units and an affine head, and are trained by the
lab's loop with the same optimiser, schedule and batches; they differ in what stands between the layers, and in the scale of
their first weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness import Series
from harness.lab import Classify, Linear, NetSolution, Train, count_params, count_step, fit, init_net
from harness_papers.selu.method import SELU, AlphaDropout

GATE_BIAS = -1.0  # of highway layers: at first they carry more than they change


def solve(build: Callable[..., nn.Module], init: str, problem: Classify, ctx: Any, params: Any) -> NetSolution:
    """Build, draw first weights, train until the budget is spent."""
    net = build(problem.shape["inputs"], problem.classes, params)
    init_net(net, ctx, init)
    finish(net)
    settings = Train(
        optimizer="sgd", lr=params.lr, weight_decay=params.weight_decay, batch=params.batch, evaluations=params.evaluations
    )
    return fit(problem, ctx, net, train=settings)


def finish(net: nn.Module) -> None:
    """What has to come after the first weights: the norms of weight-normalised layers are then those weights' norms."""
    for part in net.modules():
        if isinstance(part, NormedLinear):
            part.normalise()
        if isinstance(part, Highway):
            nn.init.constant_(part.gate.bias, GATE_BIAS)


# Nets -------------------------------------------------------------------------------------------------------------------


def build_plain(between: Callable[[int, float], list[nn.Module]], inputs: int, outputs: int, params: Any) -> nn.Module:
    """depth times an affine map and what `between`(width, dropout) gives, then the head."""
    parts: list[nn.Module] = [nn.Flatten()]
    for before in (inputs, *[params.width] * (params.depth - 1)):
        parts += [Linear(before, params.width), *between(params.width, params.dropout)]
    return nn.Sequential(*parts, Linear(params.width, outputs))


def selu(width: int, drop: float) -> list[nn.Module]:
    return [SELU(), AlphaDropout(drop)]


def relu(width: int, drop: float) -> list[nn.Module]:
    return [nn.ReLU(), nn.Dropout(drop)]


def batchnorm(width: int, drop: float) -> list[nn.Module]:
    return [nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(drop)]


def layernorm(width: int, drop: float) -> list[nn.Module]:
    return [nn.LayerNorm(width), nn.ReLU(), nn.Dropout(drop)]


class LengthAndDirection(nn.Module):
    """An affine layer with the weights g v / |v|, unit by unit. Torch's own cannot be saved whole."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.v, self.bias = layer.weight, layer.bias
        self.g = nn.Parameter(layer.weight.detach().norm(dim=1, keepdim=True))

    @property
    def weight(self) -> Tensor:
        return self.g * self.v / self.v.norm(dim=1, keepdim=True)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


class NormedLinear(nn.Module):
    """(N, in) -> (N, out): each unit's weights are a length times a direction, learned apart.

    Source: Salimans and Kingma 2016, arXiv:1602.07868, without the data-dependent first values.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.layer: nn.Module = Linear(before, after)

    def normalise(self) -> None:
        """Take the weights apart; they stay what they are."""
        assert isinstance(self.layer, nn.Linear)
        self.layer = LengthAndDirection(self.layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def build_weightnorm(inputs: int, outputs: int, params: Any) -> nn.Module:
    parts: list[nn.Module] = [nn.Flatten()]
    for before in (inputs, *[params.width] * (params.depth - 1)):
        parts += [NormedLinear(before, params.width), *relu(params.width, params.dropout)]
    return nn.Sequential(*parts, NormedLinear(params.width, outputs))


class Highway(nn.Module):
    """(N, width) -> (N, width): t relu(W x + b) + (1 - t) x with the gate t = sigmoid(W' x + b').

    Source: Srivastava et al. 2015, arXiv:1505.00387.
    """

    def __init__(self, width: int, drop: float) -> None:
        super().__init__()
        self.change, self.gate, self.drop = Linear(width, width), Linear(width, width), nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return torch.lerp(x, self.drop(torch.relu(self.change(x))), torch.sigmoid(self.gate(x)))


def build_highway(inputs: int, outputs: int, params: Any) -> nn.Module:
    """An affine layer to the width, then depth - 1 highway layers."""
    layers = [Highway(params.width, params.dropout) for _ in range(params.depth - 1)]
    first = [nn.Flatten(), Linear(inputs, params.width), *relu(params.width, params.dropout)]
    return nn.Sequential(*first, *layers, Linear(params.width, outputs))


class Residual(nn.Module):
    """(N, width) -> (N, width): x plus `layers` times batch norm, ReLU, dropout, affine.

    Source: He et al. 2016, arXiv:1603.05027, with affine layers for convolutions.
    """

    def __init__(self, width: int, layers: int, drop: float) -> None:
        super().__init__()
        parts = [[nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(drop), Linear(width, width)] for _ in range(layers)]
        self.branch = nn.Sequential(*(part for layer in parts for part in layer))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


def build_resnet(inputs: int, outputs: int, params: Any) -> nn.Module:
    """An affine layer to the width, then blocks of two layers; where an odd one is left, a block of one. A norm at the end."""
    pairs, odd = divmod(params.depth - 1, 2)
    blocks = [Residual(params.width, layers, params.dropout) for layers in [2] * pairs + [1] * odd]
    last = [nn.BatchNorm1d(params.width), nn.ReLU()]
    return nn.Sequential(nn.Flatten(), Linear(inputs, params.width), *blocks, *last, Linear(params.width, outputs))


BUILDERS: Mapping[str, tuple[Callable[..., nn.Module], str]] = {
    "snn": (partial(build_plain, selu), "lecun"),
    "relu": (partial(build_plain, relu), "he"),
    "batchnorm": (partial(build_plain, batchnorm), "he"),
    "layernorm": (partial(build_plain, layernorm), "he"),
    "weightnorm": (build_weightnorm, "he"),
    "highway": (build_highway, "he"),
    "resnet": (build_resnet, "he"),
}

solve_snn, solve_relu, solve_batchnorm, solve_layernorm, solve_weightnorm, solve_highway, solve_resnet = (
    partial(solve, *BUILDERS[name]) for name in BUILDERS
)


# Costs and the probe ------------------------------------------------------------------------------------------------------


def cost(name: str, shape: Mapping[str, int], params: Any) -> dict[str, Any]:
    """Parameters, and FLOPs of training on one item, counted on the meta device."""
    with torch.device("meta"):
        net = BUILDERS[name][0](shape["inputs"], shape["outputs"], params)
        finish(net)
    batch = min(params.batch, shape.get("train_items", params.batch))
    step = count_step(net, (shape["inputs"],), batch)
    return {
        "params": count_params(net), "flops": step.flops / batch, "counted": step.counted, "uncounted": sorted(step.uncounted)
    }  # fmt: skip


cost_snn, cost_relu, cost_batchnorm, cost_layernorm, cost_weightnorm, cost_highway, cost_resnet = (
    partial(cost, name) for name in BUILDERS
)


def measure_depth(held_part: Any, solution: Any, ctx: Any) -> dict[str, float | Series]:
    """The probe `hidden-layers`: affine layers of a net but for its head and for highway gates; 0 for what is no net."""
    net = getattr(solution, "module", None)
    parts = list(net.modules()) if isinstance(net, nn.Module) else []
    affine = sum(isinstance(part, nn.Linear | LengthAndDirection) for part in parts) - sum(
        isinstance(part, Highway) for part in parts
    )
    return {"hidden_layers": float(max(0, affine - 1))}
