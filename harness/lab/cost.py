"""What a net costs, found without allocating it: parameters, and FLOPs of the operations that dominate.

Counted are matrix products, convolutions and attention (a multiply-add is 2 FLOPs), as torch's FLOP counter does; not
counted are elementwise operations, activations, norms, pooling, the loss and the optimiser.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from harness.lab.component import ComponentUse
from harness.lab.nets import build_net
from harness.lab.problems import image_shape
from harness.nets import Net, Train

PROBE = 2  # items: the least that batch norm accepts in training


def cost_component(
    shape: Mapping[str, int], net: Net | Mapping[str, object], train: Train | Mapping[str, object], component: ComponentUse
) -> dict[str, int]:
    """{"params": trained numbers, "flops": FLOPs of one item's forward pass} of the net around a component, on the meta device.

    shape: as `Task.shape`.   net: the net, or its fields.   train is not read: it changes neither number.
    Raises Unsupported as `build_net` does.
    """
    net = net if isinstance(net, Net) else Net.model_validate(dict(net))
    module = build_net(net, shape, component, device="meta").eval()
    inputs = image_shape(shape) or (shape["inputs"],)
    return {"params": count_params(module), "flops": forward_flops(module, inputs)}


def count_params(module: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def forward_flops(module: nn.Module, inputs: tuple[int, ...]) -> int:
    """FLOPs of one item's forward pass. inputs: the shape of one item. The module may be on any device, meta included."""
    with torch.no_grad():
        return _count(module, inputs, backward=False) // PROBE


def train_flops(module: nn.Module, inputs: tuple[int, ...], batch: int) -> int:
    """FLOPs of forward and backward pass of one training step, counted on a copy of the module on the meta device."""
    return _count(copy.deepcopy(module).to("meta"), inputs, backward=True) * batch // PROBE


def _count(module: nn.Module, inputs: tuple[int, ...], backward: bool) -> int:
    first = next(module.parameters(), None)
    x = torch.zeros(PROBE, *inputs) if first is None else torch.zeros(PROBE, *inputs, device=first.device, dtype=first.dtype)
    counter = FlopCounterMode(display=False)
    with counter:
        out: Tensor = module(x)
        if backward:
            out.sum().backward()  # type: ignore[no-untyped-call]
    return math.floor(counter.get_total_flops())
