"""Initial weights that depend on nothing but the trial's seed, the parameter's qualified name and its shape.

Swapping one part of a net leaves every other parameter bit-equal. Only the lab's own layers are filled; what a component
brings (eps = 0.01, gamma = 1) keeps the component's values, but for linear and conv components that offer
`reset(generator)`, which is then called with a generator of the layer's own.
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from harness.context import Context
from harness.lab.component import ComponentUse, Init
from harness.lab.layers import Conv, Linear, Positions

POSITION_STD = 0.02  # of learned position embeddings, as usual in transformers


@runtime_checkable
class Resettable(Protocol):
    """A layer that can draw its own initial values."""

    def reset(self, generator: torch.Generator) -> None:
        """Fill the parameters from the generator (on the CPU)."""
        ...


def init_net(module: nn.Module, ctx: Context, init: Init = "he", component: ComponentUse | None = None) -> None:
    """Fill the lab's layers in `module` (and the component's, where they are resettable), in place.

    Weights are N(0, std^2) with std = sqrt(2 / fan_in) (he), sqrt(1 / fan_in) (lecun) or sqrt(2 / (fan_in + fan_out))
    (xavier); biases are 0. Drawn in float32 on the CPU, so a GPU trial starts from the same weights.
    """
    scheme = component.init if component is not None and component.init is not None else init
    resets = component is not None and component.kind in ("linear", "conv")
    generator = torch.Generator()
    with torch.no_grad():
        for name, part in module.named_modules():
            if isinstance(part, Linear | Conv):
                _draw(part.weight, _std(part.weight, scheme), generator, ctx, f"{name}.weight")
                if part.bias is not None:
                    part.bias.zero_()
            elif isinstance(part, Positions):
                _draw(part.weight, POSITION_STD, generator, ctx, f"{name}.weight")
            elif resets and isinstance(part, Resettable):
                part.reset(ctx.generator(f"init/{name}"))


def _draw(weight: Tensor, std: float, generator: torch.Generator, ctx: Context, name: str) -> None:
    # One generator seeded anew is equal to a new one, and cheaper.
    generator.manual_seed(ctx.stream_seed(f"init/{name}/{'x'.join(map(str, weight.shape))}"))
    weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float32).mul_(std))


def _std(weight: Tensor, scheme: Init) -> float:
    fan_in, fan_out = weight[0].numel(), weight.numel() // weight.shape[1]
    return math.sqrt({"he": 2 / fan_in, "lecun": 1 / fan_in, "xavier": 2 / (fan_in + fan_out)}[scheme])
